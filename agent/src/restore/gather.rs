//! The window of a restore: blocks of many files, gathered from location rows until there are enough to plan their fetches.
//!
//! | of a row | becomes |
//! |---|---|
//! | stored block | a wanted block of the window |
//! | zero block | zeros, written by a lane at once |
//! | unwritten run | preallocation, at once |
//! | hole | nothing: it reads as zero |
//! | lost data | nothing; said here when the item's row does not say it |
//!
//! Invariants: rows are foreign, so offsets and lengths are judged first. Source: ours.

use std::sync::Arc;

use windlass_hal::tree::Node;

use super::compare::Comparing;
use super::fault::Reason;
use super::file::{File, Job};
use super::lane::{FINISH_FILES_MAX, Gate, Hands, Task, Window};
use crate::format::row::{BlockPlace, LocationRow, RunKind};
use crate::read::plan::{Merging, Plan, WantedBlock};

/// Windows alive at once: one written by the lanes, one gathered.
pub const WINDOWS_MAX: usize = 2;
/// Most files in a window.
pub const WINDOW_FILES_MAX: usize = 1024;
/// Most blocks in a window: 512 MiB of 128 KiB blocks, 400 KiB of plan.
pub const WINDOW_BLOCKS_MAX: usize = 4096;

/// The window being gathered.
pub(super) struct Gather<'a, N: Node> {
    files: Vec<Arc<File<N>>>,
    wanted: Vec<WantedBlock>,
    runs: Vec<(u64, u64)>,
    /// Planned, and nothing of them is left to be written.
    ready: Vec<Arc<File<N>>>,
    gate: Arc<Gate>,
    merging: Merging,
    pub(super) hands: &'a dyn Hands<N>,
}

impl<'a, N: Node> Gather<'a, N> {
    /// An empty window, whose tasks go to `hands`.
    pub(super) fn new(hands: &'a dyn Hands<N>, merging: Merging) -> Gather<'a, N> {
        let gate = Arc::new(Gate::default());
        let (files, wanted, runs, ready) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        Gather { files, wanted, runs, ready, gate, merging, hands }
    }

    /// The planning of `file` is over. The lane that writes its last block finishes it, or one of the next [`Task::Finish`].
    pub(super) fn planned(&mut self, file: Arc<File<N>>) {
        if file.is_planned() {
            self.ready.push(file);
            if self.ready.len() == FINISH_FILES_MAX {
                self.finish_ready();
            }
        }
    }

    fn finish_ready(&mut self) {
        if !self.ready.is_empty() {
            self.hands.push(Task::Finish(std::mem::take(&mut self.ready)));
        }
    }

    /// Takes the blocks of a location row; what is no data is made at once.
    pub(super) fn row(&mut self, job: &Job<N>, file: &Arc<File<N>>, row: &LocationRow) {
        let Some(start) = start_of(job, file, row) else { return };
        let (size, block_bytes) = (file.item.size, u64::from(row.block_bytes));
        runs_of(job, file, row, start);
        for (index, place) in row.blocks.iter().enumerate() {
            let offset = start.saturating_add(index as u64 * block_bytes);
            if offset >= size {
                break;
            }
            let len = block_bytes.min(size - offset);
            match place {
                BlockPlace::Empty | BlockPlace::Lost => {}
                BlockPlace::Zero if row.runs.is_empty() => self.zeros(file, offset, len),
                BlockPlace::Zero => {
                    each_data(row, start, offset..offset + len, &mut |from, len| self.zeros(file, from, len))
                }
                BlockPlace::Stored(place) if u64::from(place.len) != len => {
                    file.damage();
                    job.faults
                        .add(file.path(), Reason::Rows("a block of another length than the item has there"));
                }
                BlockPlace::Stored(place) => {
                    let first = self.runs.len() as u32;
                    if !row.runs.is_empty() {
                        each_data(row, start, offset..offset + len, &mut |from, len| {
                            self.runs.push((from, len))
                        });
                    } else if offset + len == size {
                        file.ends_in_data();
                    }
                    let runs = (first, self.runs.len() as u32);
                    self.block(file, WantedBlock { file: 0, offset, runs, place: *place });
                }
            }
        }
    }

    fn zeros(&mut self, file: &Arc<File<N>>, offset: u64, len: u64) {
        file.expect(1);
        self.hands.push(Task::Zeros(Arc::clone(file), offset, len));
    }

    /// Takes one block.
    pub(super) fn block(&mut self, file: &Arc<File<N>>, mut block: WantedBlock) {
        if !self.files.last().is_some_and(|last| Arc::ptr_eq(last, file)) {
            self.files.push(Arc::clone(file));
        }
        file.expect(1);
        block.file = self.files.len() as u32 - 1;
        self.wanted.push(block);
        if self.wanted.len() >= WINDOW_BLOCKS_MAX || self.files.len() >= WINDOW_FILES_MAX {
            self.send();
        }
    }

    /// Plans the window and hands it to the lanes, with all that is ready.
    pub(super) fn send(&mut self) {
        self.finish_ready();
        if self.wanted.is_empty() {
            self.files.clear();
            return;
        }
        if self.files.iter().any(|file| file.compares()) {
            self.wanted = Comparing::run(&self.files, &self.wanted, self.hands);
        }
        self.hands.make_room();
        self.gate.enter(WINDOWS_MAX);
        let window = Arc::new(Window {
            plan: Plan::new(&mut self.wanted, self.merging),
            files: std::mem::take(&mut self.files),
            runs: std::mem::take(&mut self.runs),
            gate: Arc::clone(&self.gate),
        });
        self.wanted.clear();
        for index in 0..window.plan.fetches.len() {
            self.hands.push(Task::Fetch(Arc::clone(&window), index));
        }
    }
}

/// Offset in its item of a row's first block; `None` where rows make no sense, which is named.
pub(super) fn start_of<N: Node>(job: &Job<N>, file: &Arc<File<N>>, row: &LocationRow) -> Option<u64> {
    let block_bytes = u64::from(row.block_bytes);
    let start = row.base.checked_mul(block_bytes);
    let start = start.filter(|_| block_bytes > 0 && row.blocks.len() < 1 << 16);
    if start.is_none() {
        file.damage();
        job.faults.add(file.path(), Reason::Rows("a location past the end of all numbers"));
    }
    start
}

/// Preallocates what is unwritten, and names what is lost.
pub(super) fn runs_of<N: Node>(job: &Job<N>, file: &Arc<File<N>>, row: &LocationRow, start: u64) {
    let (size, mut at) = (file.item.size, start);
    for &(kind, len) in &row.runs {
        if kind == RunKind::Unwritten && at < size {
            file.preallocate(job, at, len.min(size - at));
        }
        // An item's row names what it lacks, unless a worker that had another stretch of it found out.
        if kind == RunKind::Lost && file.item.fault.is_empty() {
            let what = format!("unreadable on the device: bytes {at}..{}", at.saturating_add(len));
            job.faults.add(file.path(), Reason::Backup(what));
        }
        at = at.saturating_add(len);
    }
}

/// Calls `each` with (offset, length) of the data, lost data included, of a row's runs within `block`.
fn each_data(row: &LocationRow, start: u64, block: std::ops::Range<u64>, each: &mut dyn FnMut(u64, u64)) {
    let mut at = start;
    for &(kind, len) in &row.runs {
        let end = at.saturating_add(len);
        let (from, to) = (at.max(block.start), end.min(block.end));
        if from < to && matches!(kind, RunKind::Data | RunKind::Lost) {
            each(from, to - from);
        }
        at = end;
    }
}
