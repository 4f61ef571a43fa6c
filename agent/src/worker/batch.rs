//! A batch: a bounded stretch of one window, cut into rows of the location table and planned into frames.
//!
//! ```text
//!  window items, ascending      [ item ][ item (many blocks)            ][ item ] ...
//!  row groups of N blocks       |g|     |g|g|g| ... |g| : |g| ... |g|     |g|          a group becomes one location row
//!  batches                      |<---- batch 1 ------->|  |<--- batch 2 -------->|     cut between groups only
//! ```
//!
//! Invariants
//! - Batches are made, and their rows emitted, in key order: (inode, block). So the tables' rows come out sorted, and one key
//!   says how far a backup has come.
//! - What no extent covers has no group: a hole costs nothing, however large.
//! - An item that comes in several windows is cut at a group boundary; the extents behind the cut are carried to the next part.
//! - Data without an address on the device (`ExtentState::Opaque`) gets one of its own behind [`OPAQUE_FROM`], so that it is planned and
//!   counted like the rest; [`Batch::opaque`] says which file's bytes are meant. Files do not touch there, so no read spans two.
//!
//! Pure: no I/O, no clock. Source: ours.

use std::sync::Arc;

use windlass_hal::volume::{Extent, ExtentState, Item, ItemKind, Window};

use crate::format::row::{BlockPlace, RunKind};
use crate::id::Key;
use crate::limits::LOCATION_RUNS_MAX;
use crate::pack::plan::{Plan, PlanBlock, PlanPiece};
use crate::pack::reading::GAP_BYTES_MAX;

/// First of the addresses that stand for bytes of files: above any device, whose offsets are below 2^63.
pub const OPAQUE_FROM: u64 = 1 << 63;

/// Bytes of a file that are read through the volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpaqueRun {
    /// The address that stands for the first byte.
    pub at: u64,
    /// The file.
    pub inode: u64,
    /// The first byte in the file.
    pub logical: u64,
    /// Bytes.
    pub len: u64,
}

/// Sizes that a batch is cut by.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Block size in bytes.
    pub block_bytes: u32,
    /// Blocks per location row (N).
    pub row_blocks: u32,
    /// Plain bytes of a frame.
    pub frame_bytes: usize,
}

impl Shape {
    /// Bytes of the blocks of a location row.
    pub fn group_bytes(&self) -> u64 {
        u64::from(self.block_bytes) * u64::from(self.row_blocks)
    }
}

/// What is known of an item from the last point.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Not in the last point, or not comparable: everything is read.
    New,
    /// In the last point with other attributes: read, and compared block by block with its rows there.
    Changed,
    /// Exactly as in the last point: nothing is read and no row is written.
    Same,
}

/// One item of a batch.
#[derive(Debug)]
pub struct BatchItem {
    /// Index in the window.
    pub index: u32,
    /// Whether this batch holds the beginning of the window's part of the item.
    pub starts: bool,
    /// Whether this batch holds the item's end.
    pub last: bool,
    /// What to do with it.
    pub verdict: Verdict,
}

/// Blocks of one location row.
#[derive(Debug)]
pub struct Group {
    /// Index in the window.
    pub item: u32,
    /// Index of the first block, a multiple of N.
    pub base: u64,
    /// First of its blocks in `Batch::places`.
    pub places: u32,
    /// How many blocks, `1..=N`.
    pub count: u32,
    /// First of its runs in `Batch::runs`.
    pub runs: u32,
    /// How many runs; 0 when all bytes are data.
    pub run_count: u32,
}

/// A stretch of a window in work.
#[derive(Debug)]
pub struct Batch {
    /// The window that the items are in.
    pub window: Arc<Window>,
    /// Items, ascending.
    pub items: Vec<BatchItem>,
    /// Location rows to be, ascending.
    pub groups: Vec<Group>,
    /// Outcome of each block of each group.
    pub places: Vec<BlockPlace>,
    /// Extent states of groups that are not all data.
    pub runs: Vec<(RunKind, u64)>,
    /// Byte ranges (item index, from, to) that the medium did not give.
    pub lost: Vec<(u32, u64, u64)>,
    /// What addresses from [`OPAQUE_FROM`] on stand for, ascending.
    pub opaque: Vec<OpaqueRun>,
    /// Blocks to read, and how.
    pub plan: Plan,
    /// Where the sweep stands after this batch: every row below is in this batch or before.
    pub end: Key,
}

impl Batch {
    /// The file and its byte that an address from [`OPAQUE_FROM`] on stands for.
    pub fn opaque_at(&self, address: u64) -> Option<(u64, u64)> {
        let run = self.opaque[..self.opaque.partition_point(|run| run.at <= address)].last()?;
        let within = address - run.at;
        (within < run.len).then_some((run.inode, run.logical + within))
    }

    /// An address for `len` bytes of a file: right behind the last one when the bytes are, else beyond what is read as one.
    fn opaque_address(&mut self, inode: u64, logical: u64, len: u64) -> u64 {
        match self.opaque.last_mut() {
            Some(last) if last.inode == inode && last.logical + last.len == logical => {
                last.len += len;
                last.at + last.len - len
            }
            last => {
                let at = last.map_or(OPAQUE_FROM, |last| {
                    (last.at + last.len + 2 * GAP_BYTES_MAX).next_multiple_of(4096)
                });
                self.opaque.push(OpaqueRun { at, inode, logical, len });
                at
            }
        }
    }

    /// The location row of a group, with what is lost in it marked in its runs.
    pub fn location(&self, group: &Group, shape: &Shape) -> (Vec<BlockPlace>, Vec<(RunKind, u64)>) {
        let places = &self.places[group.places as usize..][..group.count as usize];
        let runs = &self.runs[group.runs as usize..][..group.run_count as usize];
        let start = group.base * u64::from(shape.block_bytes);
        let bytes = u64::from(group.count) * u64::from(shape.block_bytes);
        let mut marked = runs.to_vec();
        for &(item, from, to) in &self.lost {
            if item == group.item && from < start + bytes && to > start {
                let cut = from.max(start) - start..to.min(start + bytes) - start;
                mark_lost(&mut marked, cut, bytes);
            }
        }
        bound_runs(&mut marked);
        (places.to_vec(), marked)
    }
}

/// Makes a run list as short as a row takes: behind that many runs all is called data, and what of it is no data is zero all the same. If any of
/// it is lost, all is called lost, which is data that readers name.
fn bound_runs(runs: &mut Vec<(RunKind, u64)>) {
    if runs.len() > LOCATION_RUNS_MAX {
        let (mut kind, mut rest) = (RunKind::Data, 0);
        for (of, len) in runs.drain(LOCATION_RUNS_MAX - 1..) {
            if of == RunKind::Lost {
                kind = of;
            }
            rest += len;
        }
        runs.push((kind, rest));
    }
}

/// Turns the data within `cut` of a run list (empty: all data, `bytes` long) into lost data.
fn mark_lost(runs: &mut Vec<(RunKind, u64)>, cut: std::ops::Range<u64>, bytes: u64) {
    if runs.is_empty() {
        runs.push((RunKind::Data, bytes));
    }
    let mut out: Vec<(RunKind, u64)> = Vec::with_capacity(runs.len() + 2);
    let mut at = 0;
    for &(kind, len) in runs.iter() {
        let inside = cut.start.clamp(at, at + len)..cut.end.clamp(at, at + len);
        let lost = if kind == RunKind::Data { RunKind::Lost } else { kind };
        for (kind, len) in
            [(kind, inside.start - at), (lost, inside.end - inside.start), (kind, at + len - inside.end)]
        {
            push_run(&mut out, 0, kind, len);
        }
        at += len;
    }
    *runs = out;
}

/// Appends a run to the list that starts at `from`, merging it with the last one of the same kind.
fn push_run(runs: &mut Vec<(RunKind, u64)>, from: usize, kind: RunKind, len: u64) {
    match runs[from..].last_mut() {
        _ if len == 0 => {}
        Some((last, total)) if *last == kind => *total += len,
        _ => runs.push((kind, len)),
    }
}

/// Cuts windows into batches. Holds what is carried from one window to the next.
#[derive(Debug)]
pub struct Cutter {
    shape: Shape,
    /// Extents of an unfinished item behind its last cut.
    carry: Vec<Extent>,
    /// The item that they belong to.
    carry_inode: u64,
    window: Option<Cut>,
    /// Groups below this key are in another stretch.
    skip: Key,
}

/// A window being cut.
#[derive(Debug)]
struct Cut {
    window: Arc<Window>,
    verdicts: Vec<Verdict>,
    end: Key,
    item: usize,
    /// Extents of the current item, carried ones first; filled when the item is begun.
    extents: Vec<Extent>,
    extent: usize,
    begun: bool,
}

impl Cutter {
    /// A cutter that skips what is below `skip`.
    pub fn new(shape: Shape, skip: Key) -> Cutter {
        Cutter { shape, carry: Vec::new(), carry_inode: 0, window: None, skip }
    }

    /// Whether the last window is used up.
    pub fn wants_window(&self) -> bool {
        self.window.is_none()
    }

    /// Begins a window. `verdicts` has one entry per item; the sweep goes on at `end`, or in the window's last item if that is cut.
    pub fn begin(&mut self, window: Arc<Window>, verdicts: Vec<Verdict>, end: Key) {
        assert!(self.window.is_none() && verdicts.len() == window.items.len(), "one window at a time");
        let cut = Cut { window, verdicts, end, item: 0, extents: Vec::new(), extent: 0, begun: false };
        self.window = Some(cut);
    }

    /// The next batch of the window, planned; `None` when there is no window.
    pub fn next(&mut self, mut plan: Plan) -> Option<Batch> {
        let mut cut = self.window.take()?;
        plan.clear();
        let mut batch = Batch {
            window: Arc::clone(&cut.window),
            items: Vec::new(),
            groups: Vec::new(),
            places: Vec::new(),
            runs: Vec::new(),
            lost: Vec::new(),
            opaque: Vec::new(),
            plan,
            end: self.end_of(&cut),
        };
        while cut.item < cut.window.items.len() && !batch.plan.is_full() {
            self.take_item(&mut cut, &mut batch);
        }
        if cut.item < cut.window.items.len() {
            let item = &cut.window.items[cut.item];
            let within = cut.extents.get(cut.extent).filter(|_| cut.begun).map_or(0, |e| e.logical);
            batch.end = (item.inode, within / self.shape.group_bytes() * u64::from(self.shape.row_blocks));
            self.window = Some(cut);
        }
        batch.plan.arrange(self.shape.frame_bytes);
        Some(batch)
    }

    /// Where the sweep stands behind the whole window: an item that goes on in the next one is cut at a group.
    fn end_of(&self, cut: &Cut) -> Key {
        match cut.window.items.last() {
            Some(item) if !item.part.last => {
                (item.inode, item.part.to / self.shape.group_bytes() * u64::from(self.shape.row_blocks))
            }
            _ => cut.end,
        }
    }

    /// Takes as many groups of the current item as the plan has room for; goes to the next item when it is done.
    fn take_item(&mut self, cut: &mut Cut, batch: &mut Batch) {
        let window = Arc::clone(&cut.window);
        let item = &window.items[cut.item];
        let starts = !cut.begun;
        if starts {
            self.begin_item(cut, item);
        }
        let verdict = cut.verdicts[cut.item].clone();
        if verdict == Verdict::Same || !has_blocks(item) {
            cut.extent = cut.extents.len();
        }
        while cut.extent < cut.extents.len() && !batch.plan.is_full() {
            self.take_group(cut, item, batch);
        }
        let done = cut.extent == cut.extents.len();
        batch.items.push(BatchItem { index: cut.item as u32, starts, last: done && item.part.last, verdict });
        if done {
            cut.item += 1;
            cut.begun = false;
        }
    }

    /// Collects the extents that the item's part speaks of: those carried over, then its own up to the last whole group.
    fn begin_item(&mut self, cut: &mut Cut, item: &Item) {
        cut.begun = true;
        cut.extent = 0;
        cut.extents.clear();
        if self.carry_inode == item.inode {
            cut.extents.append(&mut self.carry);
        }
        self.carry.clear();
        let own = &cut.window.extents[item.extents.start as usize..item.extents.end as usize];
        let group = self.shape.group_bytes();
        let reach = if item.part.last { u64::MAX } else { item.part.to / group * group };
        for extent in own {
            let head = extent.len.min(reach.saturating_sub(extent.logical));
            if head > 0 {
                cut.extents.push(Extent { len: head, ..*extent });
            }
            if head < extent.len {
                self.carry_inode = item.inode;
                self.carry.push(Extent {
                    logical: extent.logical + head,
                    physical: extent.physical + head,
                    len: extent.len - head,
                    ..*extent
                });
            }
        }
    }

    /// Takes the group that the next extent begins in: all extents, or heads of extents, up to the group's end.
    fn take_group(&mut self, cut: &mut Cut, item: &Item, batch: &mut Batch) {
        let block = u64::from(self.shape.block_bytes);
        let group = self.shape.group_bytes();
        let start = cut.extents[cut.extent].logical / group * group;
        let end = start.saturating_add(group);
        let size_blocks = item.size.div_ceil(block);
        let base = start / block;
        if base >= size_blocks || (item.inode, base) < self.skip {
            self.skip_group(cut, end);
            return;
        }
        let count = (size_blocks - base).min(u64::from(self.shape.row_blocks)) as u32;
        let places = batch.places.len() as u32;
        batch.places.resize(batch.places.len() + count as usize, BlockPlace::Empty);
        let runs = batch.runs.len();
        let (mut reached, limit) = (start, item.size.min(end));
        while let Some(extent) = cut.extents.get(cut.extent).copied().filter(|e| e.logical < end) {
            let len = extent.len.min(end - extent.logical);
            if extent.logical < limit {
                push_run(&mut batch.runs, runs, RunKind::Hole, extent.logical - reached);
                let shown = len.min(limit - extent.logical);
                push_run(&mut batch.runs, runs, RunKind::from(extent.state), shown);
                reached = extent.logical + shown;
            }
            if extent.state != ExtentState::Unwritten {
                self.add_pieces(&Extent { len, ..extent }, item, cut.item as u32, (start, places), batch);
            }
            advance(cut, len);
        }
        push_run(&mut batch.runs, runs, RunKind::Hole, limit - reached);
        if let [(RunKind::Data, _)] = batch.runs[runs..] {
            batch.runs.truncate(runs);
        }
        let run_count = (batch.runs.len() - runs) as u32;
        batch.groups.push(Group { item: cut.item as u32, base, places, count, runs: runs as u32, run_count });
    }

    /// Passes over a group that needs no row.
    fn skip_group(&self, cut: &mut Cut, end: u64) {
        while let Some(extent) = cut.extents.get(cut.extent).copied().filter(|e| e.logical < end) {
            advance(cut, extent.len.min(end - extent.logical));
        }
    }

    /// Cuts a data extent at block boundaries into pieces of blocks.
    fn add_pieces(&self, extent: &Extent, item: &Item, index: u32, at: (u64, u32), batch: &mut Batch) {
        let (group_start, places) = at;
        let block_bytes = u64::from(self.shape.block_bytes);
        let mut logical = extent.logical;
        let end = extent.logical + extent.len;
        while logical < end.min(item.size) {
            let block = logical / block_bytes;
            let block_start = block * block_bytes;
            let len = (block_start + block_bytes).min(end) - logical;
            let outcome = places + ((block_start - group_start) / block_bytes) as u32;
            let physical = match extent.state {
                ExtentState::Opaque => batch.opaque_address(item.inode, logical, len),
                ExtentState::Data | ExtentState::Unwritten => extent.physical + (logical - extent.logical),
            };
            let plan = &mut batch.plan;
            let piece = plan.pieces.len() as u32;
            plan.bytes += len;
            plan.pieces.push(PlanPiece {
                physical,
                within: (logical - block_start) as u32,
                len: len as u32,
                at: 0,
            });
            match plan.blocks.last_mut() {
                Some(last) if last.outcome == outcome => last.pieces.end = piece + 1,
                _ => plan.blocks.push(PlanBlock {
                    item: index,
                    block,
                    len: (item.size - block_start).min(block_bytes) as u32,
                    pieces: piece..piece + 1,
                    outcome,
                }),
            }
            logical += len;
        }
    }
}

/// Goes `len` bytes on in the current extent.
fn advance(cut: &mut Cut, len: u64) {
    let extent = &mut cut.extents[cut.extent];
    extent.logical += len;
    extent.physical += len;
    extent.len -= len;
    if extent.len == 0 {
        cut.extent += 1;
    }
}

/// Whether an item's contents are blocks.
fn has_blocks(item: &Item) -> bool {
    matches!(item.kind, ItemKind::File | ItemKind::Image)
}

#[cfg(test)]
#[path = "batch_test.rs"]
mod tests;
