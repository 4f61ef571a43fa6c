//! What the tables refer to, counted from all of their rows.
//!
//! ```text
//!  object   |----|####|####|----|##--|        256 parts; a row marks those that its frames touch
//!            marked by any row: named          marked by a row that a point or the next backup needs: live
//! ```
//!
//! Where the store's list says how large objects are, those of which little is live are named, the sparsest first. That is a guess, from below:
//! the plain length of a frame is not in the rows. `gc::rewrite` weighs them.
//!
//! Memory: [`MARK_OBJECTS_MAX`] objects at a time, 114 bytes each; with more the tables are read again for the next ones. And a stream for each
//! kind of rows, as a merge has. Time: linear in the rows.
//!
//! Invariants: an object counts as dead only when no row of any segment names it, needed or not; a row that cannot be read is a fault, so
//! nothing is dead on doubt.
//! Does not: know names that are not in the tables. Source: ours.

use std::collections::{BTreeMap, BTreeSet};

use super::rewrite::{Gates, may_move};
use super::types::{GarbageFault, Marked, Sparse};
use crate::format::key::KeyRef;
use crate::format::row::{BlockPlace, LocationRow, Place, Row, RowKind};
use crate::id::{BackupId, Lin, ObjectId, VolumeId};
use crate::log::names::NameSet;
use crate::log::state::State;
use crate::pack::{BLOCK_BYTES_MAX, frame_bytes};
use crate::store::StoreFault;
use crate::table::merge::judge;
use crate::table::segment::SegmentMeta;
use crate::table::source::{Fetch, Source, TableFault, TailRef};
use crate::table::stream::Stream;

/// Objects that are counted in one pass over the tables: 15 MiB; two TiB of data.
pub const MARK_OBJECTS_MAX: usize = 1 << 17;
/// Dead objects of one mark that are named: what one round condemns. The next one finds the rest.
pub const FOUND_MAX: usize = 4096;
/// Objects with carried rows from which on they count as dead, so that their rows are carried on into fewer.
pub const CARRIERS_MAX: u64 = 64;
/// Bytes of a part of an object: 256 of them are the usual 16 MiB; what lies behind counts with the last one.
const PART_BYTES: u64 = 64 << 10;
/// Parts of an object.
const PARTS: usize = 256;

/// Which parts of an object are in use.
type Parts = [u64; PARTS / 64];

/// A pass's objects, ascending, and what is known of each.
struct Pass {
    names: Vec<ObjectId>,
    named: Vec<Parts>,
    live: Vec<Parts>,
    /// A row refers to it.
    is_named: Vec<bool>,
    /// What is live in it must stay: a row of a running backup refers to it, or rows of several volumes do.
    stays: Vec<bool>,
    /// Stored bytes of live blocks, blocks, and a volume whose rows name them.
    blocks: Vec<(u64, u32, VolumeId)>,
    /// Live blocks of the place that rows are of: versions of a row have most of them in common.
    place: (Lin, u64),
    of_place: BTreeSet<(usize, u32, u32)>,
}

impl Pass {
    fn new(names: Vec<ObjectId>) -> Pass {
        let len = names.len();
        let none = [0; PARTS / 64];
        Pass {
            names,
            named: vec![none; len],
            live: vec![none; len],
            is_named: vec![false; len],
            stays: vec![false; len],
            blocks: vec![(0, 0, VolumeId(0)); len],
            place: (Lin::default(), 0),
            of_place: BTreeSet::new(),
        }
    }

    fn add(&mut self, row: &LocationRow, is_live: bool, is_running: bool) {
        if self.place != (row.lin, row.base) {
            (self.place, self.of_place) = ((row.lin, row.base), BTreeSet::new());
        }
        for block in &row.blocks {
            let BlockPlace::Stored(place) = block else { continue };
            let Ok(at) = self.names.binary_search(&place.object) else { continue };
            self.is_named[at] = true;
            self.stays[at] |= is_running;
            if is_live && self.of_place.insert((at, place.frame_offset, place.inner_offset)) {
                let (bytes, blocks, volume) = &mut self.blocks[at];
                self.stays[at] |= *blocks > 0 && *volume != row.lin.volume;
                *bytes += stored_bytes(place, row.block_bytes);
                *blocks = blocks.saturating_add(1);
                *volume = row.lin.volume;
            }
            let first = u64::from(place.frame_offset) / PART_BYTES;
            let end = u64::from(place.frame_offset) + u64::from(place.frame_bytes).max(1);
            for part in first..end.div_ceil(PART_BYTES) {
                let part = (part as usize).min(PARTS - 1);
                self.named[at][part / 64] |= 1 << (part % 64);
                if is_live {
                    self.live[at][part / 64] |= 1 << (part % 64);
                }
            }
        }
    }
}

/// Stored bytes of a block, at least: as if its frame were full.
fn stored_bytes(place: &Place, block_bytes: u32) -> u64 {
    let frame = u64::from(place.frame_bytes);
    let full = frame_bytes(block_bytes.min(BLOCK_BYTES_MAX)) as u64;
    let plain = frame.max(full).max(u64::from(place.inner_offset) + u64::from(place.len)).max(1);
    frame * u64::from(place.len) / plain
}

fn bytes_of(parts: &Parts) -> u64 {
    parts.iter().map(|word| u64::from(word.count_ones())).sum::<u64>() * PART_BYTES
}

/// The cuts of a volume: its points.
pub fn cuts(state: &State, volume: VolumeId) -> Vec<BackupId> {
    let is_in = |of: &crate::log::state::Point| of.volumes.iter().any(|known| known.volume == volume);
    state.points.values().filter(|point| is_in(point)).map(|point| point.backup).collect()
}

/// Segments of a volume: those that no running backup wrote, and the others.
fn apart(state: &State, segments: &[SegmentMeta]) -> (Vec<TailRef>, Vec<TailRef>) {
    let is_running = |segment: &&SegmentMeta| state.running.contains_key(&segment.backup_max);
    let (running, settled): (Vec<_>, Vec<_>) = segments.iter().partition(is_running);
    let tails = |list: Vec<&SegmentMeta>| list.into_iter().map(TailRef::from).collect();
    (tails(settled), tails(running))
}

/// Calls `on` with each location row of a segment.
pub(super) fn locations<F: Fetch>(
    source: &mut Source<F>,
    tail: TailRef,
    on: &mut dyn FnMut(&LocationRow),
) -> Result<(), TableFault> {
    let from = KeyRef::first_of(Lin::default());
    let mut rows = Stream::new(RowKind::Location, from, [tail]).keep_duplicates();
    while let Some(row) = rows.next(source)? {
        if let Row::Location(row) = &row {
            on(row);
        }
    }
    Ok(())
}

/// Sizes of stored objects from a name on, ascending, until `false` comes back.
pub type Sizes<'a> =
    dyn FnMut(&ObjectId, &mut dyn FnMut(ObjectId, u64) -> bool) -> Result<(), StoreFault> + 'a;

/// Counts what the tables of `state` refer to; `sizes` where sparse objects are to be named. Blocks; `stop` ends it early.
///
/// # Errors
/// A row cannot be read, or the store does not list: then nothing is known.
pub fn mark<F: Fetch>(
    source: &mut Source<F>,
    state: &State,
    objects_max: usize,
    mut sizes: Option<(&mut Sizes<'_>, Gates)>,
    stop: &dyn Fn() -> bool,
) -> Result<Marked, GarbageFault> {
    let mut objects = objects(state);
    if state.garbage.carriers.len() < CARRIERS_MAX {
        objects.subtract(&state.garbage.carriers);
    }
    let mut marked = Marked { objects: objects.len(), ..Marked::default() };
    let mut idle: BTreeMap<VolumeId, BTreeSet<ObjectId>> = BTreeMap::new();
    let mut names = objects.names().peekable();
    let mut is_first = true;
    while is_first || names.peek().is_some() {
        let mut pass = Pass::new(names.by_ref().take(objects_max.max(1)).collect());
        for (&volume, segments) in &state.segments {
            let (settled, running) = apart(state, segments);
            for tail in running {
                locations(source, tail, &mut |row| pass.add(row, true, true))?;
            }
            let cuts = cuts(state, volume);
            let on = &mut |row: &Row, tail: ObjectId, keep: bool| {
                if let Row::Location(row) = row {
                    pass.add(row, keep, false);
                }
                if is_first {
                    marked.rows += 1;
                }
                if is_first && !keep {
                    marked.rows_idle += 1;
                    idle.entry(volume).or_default().insert(tail);
                }
            };
            if !judge(settled, &cuts, source, stop, on)? || stop() {
                return Err(GarbageFault::Stopped);
            }
        }
        is_first = false;
        count(&pass, &mut marked);
        if let Some((sizes, gates)) = &mut sizes {
            sparse(&pass, state, (*sizes, *gates), &mut marked)?;
            marked.sparse.sort_by_key(|of| (of.live_bytes.saturating_mul(1000) / of.bytes.max(1), of.id));
            marked.sparse.truncate(FOUND_MAX);
        }
    }
    marked.idle = idle.into_iter().map(|(volume, ids)| (volume, ids.into_iter().collect())).collect();
    Ok(marked)
}

fn count(pass: &Pass, marked: &mut Marked) {
    for (at, id) in pass.names.iter().enumerate() {
        let (named, live) = (bytes_of(&pass.named[at]), bytes_of(&pass.live[at]));
        marked.named_bytes += named;
        marked.live_bytes += live;
        match (pass.is_named[at], live) {
            (false, _) => {
                marked.dead_count += 1;
                if marked.dead.len() < FOUND_MAX {
                    marked.dead.push(*id);
                }
            }
            (true, 0) => marked.dying_count += 1,
            (true, _) => {}
        }
    }
}

/// Names the objects of a pass of which little is live.
fn sparse(
    pass: &Pass,
    state: &State,
    (sizes, gates): (&mut Sizes<'_>, Gates),
    marked: &mut Marked,
) -> Result<(), GarbageFault> {
    let (Some(first), Some(last)) = (pass.names.first(), pass.names.last()) else { return Ok(()) };
    sizes(first, &mut |id, bytes| {
        if let Ok(at) = pass.names.binary_search(&id)
            && bytes_of(&pass.live[at]) > 0
            && !pass.stays[at]
            && may_move(state, &id)
        {
            let (live_bytes, blocks, volume) = pass.blocks[at];
            let live_bytes = live_bytes.min(bytes);
            if gates.is_worth(bytes, live_bytes) {
                marked.sparse_bytes += bytes - live_bytes;
                marked.sparse.push(Sparse { id, volume, live_bytes, bytes, blocks });
            }
        }
        id < *last
    })?;
    Ok(())
}

/// Names of upload objects in the tables.
pub fn objects(state: &State) -> NameSet {
    let mut objects = (*state.live).clone();
    for segment in state.segments.values().flat_map(|list| list.iter()) {
        objects.remove(&segment.id);
    }
    objects
}
