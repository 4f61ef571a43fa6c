//! One merge: segments of a volume in, fewer of them out.
//!
//! Which rows are needed follows from the log alone: the volume's recovery points are the cuts, and the group is all that has rows of its
//! items, or a part. A state that is older than the commit of what comes out is good enough: points that ended meanwhile see the newest
//! rows, which are always kept, and segments that are gone meanwhile make the log refuse it.
//!
//! Memory: that of [`Coalesce`] with at most [`FAN_IN`](crate::table::plan::FAN_IN) segments over one place. Does not: upload (the sink
//! does), or commit. Source: ours.

use std::fmt;

use crate::format::seal::Keys;
use crate::id::ObjectId;
use crate::log::state::State;
use crate::table::merge::{Coalesce, Progress, Scope};
use crate::table::plan::{SEGMENT_BYTES, scope};
use crate::table::segment::{SegmentMeta, SegmentSink, SegmentWriter};
use crate::table::source::{Fetch, Source, TableFault, TableLimits, TailRef};
use crate::work::MergeOrder;

/// zstd level of merged row blocks: as of those that workers write.
const ZSTD_LEVEL: i32 = 1;
/// Rows between two looks at whether to stop.
const STEP_ROWS: u32 = 4096;

/// Why nothing came of a merge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MergeFault {
    /// A segment is not in the tables (any more).
    Gone(ObjectId),
    /// No memory for compression contexts.
    Memory,
    /// Tables could not be read or written.
    Table(TableFault),
    /// Buffers are in use, by what a failed job has left behind.
    Busy,
    /// On request.
    Stopped,
}

impl fmt::Display for MergeFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MergeFault::Gone(id) => write!(f, "segment {id} is not in the tables any more"),
            MergeFault::Memory => f.write_str("no memory for a compression context"),
            MergeFault::Table(fault) => fault.fmt(f),
            MergeFault::Busy => f.write_str("upload buffers are still in use; it is tried again"),
            MergeFault::Stopped => f.write_str("stopped on request"),
        }
    }
}

impl std::error::Error for MergeFault {}

/// Merges the segments of `order` as `state` has them into `sink`, which must be empty. What is in the sink after an error is garbage.
pub fn run<F: Fetch>(
    fetch: F,
    keys: &Keys,
    state: &State,
    order: &MergeOrder,
    sink: &mut dyn SegmentSink,
    is_stopped: &dyn Fn() -> bool,
) -> Result<(), MergeFault> {
    let all = state.segments.get(&order.volume).map(|list| list.as_slice()).unwrap_or_default();
    let find =
        |id: &ObjectId| all.iter().find(|segment| segment.id == *id).copied().ok_or(MergeFault::Gone(*id));
    let group: Vec<SegmentMeta> = order.segments.iter().map(find).collect::<Result<_, _>>()?;
    let points = state.points.values();
    let cuts: Vec<_> = points
        .filter(|point| point.volumes.iter().any(|volume| volume.volume == order.volume))
        .map(|point| point.backup)
        .collect();
    let mut source = Source::new(fetch, keys, TableLimits::default()).ok_or(MergeFault::Memory)?;
    let writer = SegmentWriter::new(ZSTD_LEVEL, SEGMENT_BYTES, keys).ok_or(MergeFault::Memory)?;
    let tails: Vec<TailRef> = group.iter().map(TailRef::from).collect();
    // Of a running backup, the row of an item may be still to come when some of its locations are there.
    let is_running = |segment: &SegmentMeta| state.running.contains_key(&segment.backup_max);
    let scope = if group.iter().any(is_running) { Scope::Part } else { scope(&group, all) };
    let mut run = Coalesce::new(tails, &cuts, scope, writer);
    while run.step(&mut source, sink, STEP_ROWS).map_err(MergeFault::Table)? == Progress::More {
        if is_stopped() {
            return Err(MergeFault::Stopped);
        }
    }
    Ok(())
}
