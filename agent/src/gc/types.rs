//! Orders of a coordinator to its own node, and what comes back of them. Source: ours.

use std::fmt;

use crate::format::tail::TailKind;
use crate::id::{Epoch, ObjectId, Slot, VolumeId};
use crate::store::{StoreFault, StoreFaultKind};
use crate::table::segment::SegmentMeta;
use crate::table::source::TableFault;

/// One step of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Look through the tables.
    Mark {
        /// Whether objects of which little is live are to be named: the store's list is asked how large they are.
        sizes: bool,
    },
    /// Move what is live out of objects that are mostly dead.
    Move(Move),
    /// Look at condemned objects for the last time, and carry on rows whose only home they are.
    Carry(Vec<ObjectId>),
    /// Delete retired names.
    Delete(Vec<(ObjectId, TailKind)>),
    /// Look for orphans in the store's lists, behind a key.
    Orphans {
        /// The key; empty at the beginning.
        after: String,
    },
}

/// Objects that are to be moved out of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Move {
    /// The volume whose rows follow.
    pub volume: VolumeId,
    /// The objects.
    pub names: Vec<ObjectId>,
    /// Go on behind this segment: its first inode and its name. `None`: the objects are weighed first.
    pub after: Option<(u64, ObjectId)>,
    /// Plain bytes of blocks from which on no further segment is begun.
    pub bytes_max: u64,
}

/// A step, its number, and what its new objects are named by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// Comes back.
    pub number: u64,
    /// New names are of this epoch.
    pub epoch: Epoch,
    /// The time in nanoseconds since 1970, as the store says it: whether an orphan has had its window.
    pub wall_ns: i64,
    /// What to do.
    pub step: Step,
}

/// What a step did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Of [`Step::Mark`].
    Marked(Marked),
    /// Of [`Step::Move`].
    Moved(Moved),
    /// Of [`Step::Carry`].
    Carried(Carried),
    /// Of [`Step::Delete`].
    Deleted(Deleted),
    /// Of [`Step::Orphans`].
    Swept(Swept),
}

#[cfg(test)]
impl Outcome {
    /// What comes of a step where there is no garbage.
    pub fn nothing(step: &Step) -> Outcome {
        match step {
            Step::Mark { .. } => Outcome::Marked(Marked::default()),
            Step::Move(_) => Outcome::Moved(Moved::default()),
            Step::Carry(_) => Outcome::Carried(Carried::default()),
            Step::Delete(names) => {
                let gone = names.iter().map(|name| name.0).collect();
                Outcome::Deleted(Deleted { gone, ..Deleted::default() })
            }
            Step::Orphans { .. } => Outcome::Swept(Swept::default()),
        }
    }
}

/// What the tables refer to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Marked {
    /// Objects that the log names as live.
    pub objects: u64,
    /// Of these, no row refers to any; ascending, at most [`FOUND_MAX`](super::mark::FOUND_MAX).
    pub dead: Vec<ObjectId>,
    /// All such objects.
    pub dead_count: u64,
    /// Objects that only rows refer to which no point needs: dead when merges have rid the tables of those.
    pub dying_count: u64,
    /// Bytes of frames that needed rows refer to, rounded up.
    pub live_bytes: u64,
    /// The same, of rows that are there.
    pub named_bytes: u64,
    /// Rows that no point needs.
    pub rows_idle: u64,
    /// Rows.
    pub rows: u64,
    /// Objects of which little is live, the sparsest first, at most [`FOUND_MAX`](super::mark::FOUND_MAX); none where sizes are not known.
    pub sparse: Vec<Sparse>,
    /// Dead bytes in all such objects, about.
    pub sparse_bytes: u64,
    /// Segments with rows that no point needs, by volume.
    pub idle: Vec<(VolumeId, Vec<ObjectId>)>,
}

/// An object of which little is live.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sparse {
    /// The object.
    pub id: ObjectId,
    /// A volume whose rows name it.
    pub volume: VolumeId,
    /// Bytes that are live, about.
    pub live_bytes: u64,
    /// Its bytes.
    pub bytes: u64,
    /// Blocks that are live, about.
    pub blocks: u32,
}

/// What came of moving live blocks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Moved {
    /// Objects that were worth it: those that [`Moved::after`] goes on with. Ascending.
    pub names: Vec<ObjectId>,
    /// There is more behind this segment.
    pub after: Option<(u64, ObjectId)>,
    /// Segments whose rows are in others now.
    pub removed: Vec<ObjectId>,
    /// Those others. They are in the store.
    pub added: Vec<SegmentMeta>,
    /// New objects with blocks: (name, bytes). They are in the store.
    pub objects: Vec<(ObjectId, u64)>,
    /// Objects that cannot be moved: and why.
    pub kept: Vec<(ObjectId, String)>,
    /// Objects that this step had no room for.
    pub later: Vec<ObjectId>,
    /// Plain bytes of the blocks that were copied.
    pub bytes: u64,
    /// Requests for objects and segments, those for rows left out.
    pub requests: u64,
}

/// What the last look at condemned objects gave.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Carried {
    /// The state that was looked at is as of this slot.
    pub seen: Slot,
    /// Objects that may be retired: (name, bytes). Ascending.
    pub retired: Vec<(ObjectId, u64)>,
    /// Objects that a row refers to. Ascending.
    pub spared: Vec<ObjectId>,
    /// Objects that stay as they are, as their tail cannot be read, or contradicts the tables: and why.
    pub kept: Vec<(ObjectId, String)>,
    /// New objects with the rows that were carried on: (name, bytes). They are in the store.
    pub objects: Vec<(ObjectId, u64)>,
    /// Rows that were carried on.
    pub rows: u64,
}

/// What became of deletions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Deleted {
    /// Names that are not in the store any more, ascending.
    pub gone: Vec<ObjectId>,
    /// Names that the store keeps for now, as its retention or its permissions say.
    pub later: Vec<ObjectId>,
    /// Why the first of them.
    pub why: Option<String>,
}

/// What a part of the store's lists had.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Orphans that were deleted.
    pub gone: u64,
    /// Their bytes.
    pub gone_bytes: u64,
    /// Orphans that the store keeps for now, or that were not deleted on doubt.
    pub later: u64,
    /// Why the first of them.
    pub why: Option<String>,
    /// Key behind which to go on; empty at the end.
    pub after: String,
}

/// Whether an object cannot be read for a reason of its own: it is not there, or in a tier that must be asked for it first. Then it stays, and
/// the others go on. With any other fault nothing is known.
pub(super) fn is_of_object(kind: StoreFaultKind) -> bool {
    matches!(kind, StoreFaultKind::NotFound | StoreFaultKind::Denied | StoreFaultKind::Rejected)
}

/// Why nothing came of a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GarbageFault {
    /// The store failed.
    Store(StoreFault),
    /// Tables could not be read, or rows not written.
    Table(TableFault),
    /// No memory for compression contexts.
    Memory,
    /// A backup runs that may refer to what is condemned.
    Busy,
    /// On request.
    Stopped,
}

impl fmt::Display for GarbageFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            GarbageFault::Store(fault) => fault.fmt(f),
            GarbageFault::Table(fault) => fault.fmt(f),
            GarbageFault::Memory => f.write_str("no memory for a compression context"),
            GarbageFault::Busy => f.write_str("a backup runs that may refer to what is condemned"),
            GarbageFault::Stopped => f.write_str("stopped on request"),
        }
    }
}

impl std::error::Error for GarbageFault {}

impl From<TableFault> for GarbageFault {
    fn from(fault: TableFault) -> GarbageFault {
        GarbageFault::Table(fault)
    }
}

impl From<StoreFault> for GarbageFault {
    fn from(fault: StoreFault) -> GarbageFault {
        GarbageFault::Store(fault)
    }
}
