//! The backup of one stretch of a volume: a state machine from sweep to commit, without I/O, clock or threads of its own.
//!
//! ```text
//!  Sweep -> window -> cutter -> batches (at most BATCHES_MAX, in key order)
//!            frames of a batch:  Read -> Pack (a lane) -> outcome
//!            a batch whose frames are all packed, and is the oldest: its rows are emitted, in key order
//!  objects that are full and written -> Put;  segments of rows -> Put
//!  every few objects, or after some time: rows so far + all objects they refer to acknowledged -> Commit
//! ```
//!
//! Calls: [`Backup::handle`] takes an event, [`Backup::next_action`] says what to do until it returns `None`,
//! [`Backup::deadline`] says when to come back without an event.
//!
//! Invariants
//! - Rows are emitted in key order, so two keys (`Progress`) say what a commit covers, and a killed backup goes on there. The
//!   commits of a stretch follow each other without a gap, from its first key to its last.
//! - A commit names only objects and segments that the store has acknowledged (C1).
//! - What is sent and not committed is at most 16 objects, or what was sent in 5 s: the sum of what a commit waits for
//!   ([`COMMIT_OBJECTS`], [`COMMIT_PAUSE_NS`], [`COMMIT_SLOW_NS`]), of what is packed ahead ([`link`](crate::pack::link)) and of
//!   what a batch holds back ([`pace`]). An image's too: it is cut into batches within its one item.
//! - Memory: two windows, [`BATCHES_MAX`] batches, the frame pool, the piece pool. Nothing grows (P3, I12).
//! - Pieces are promised to a frame before it goes to a lane, and [`KEEP_PIECES`] stay free for rows, so the machine always
//!   gets on: when nothing is in flight and a frame still waits for room, the open object is sent as it is.
//! - What the medium does not give costs the bytes that it did not give: they are named, and the backup goes on.
//!
//! | file | what |
//! |---|---|
//! | `mod` | the machine, its events and actions; from sweeps to batches |
//! | `types` | what it is given and what it says |
//! | `read` | frames: read, narrowed down where the medium fails, handed to lanes |
//! | `emit` | rows, in key order |
//! | `commit` | uploads and commits |
//! | `pace` | how large batches are |
//!
//! Source: ours; `agent/doc/commit-log.md`, C1 and C5; `agent/doc/architecture.md`, Data path.

mod commit;
mod emit;
mod pace;
mod read;
mod types;

use std::collections::VecDeque;
use std::sync::{Arc, MutexGuard, PoisonError};

use windlass_hal::block::{Request, Segment};
use windlass_hal::buf::Pool;
use windlass_hal::volume::{Cursor, Swept, Window};

use crate::format::record::Totals as PointTotals;
use crate::format::row::{BlockPlace, Gone, ItemRow, LocationRow, Place};
use crate::id::{Key, ObjectId};
use crate::pack::lane::{Job, JobBlock, JobPiece, Shared};
use crate::pack::link::Link;
use crate::pack::object::{ObjectBuf, Placer};
use crate::pack::plan::Plan;
use crate::table::lost::LostRows;
use crate::worker::batch::{Batch, Cutter, Group, Verdict};
use crate::worker::rows::Rows;
use crate::worker::{item, stretch};

use pace::{BATCH_NS, Pace};
pub use types::{Action, BackupFault, Base, Event, ItemTrouble, Progress, Task, Totals, Trust};

/// Batches in work at once: one whose last frames are being packed, one being read, one planned.
pub const BATCHES_MAX: usize = 3;
/// Pieces that frames leave free for rows: two row blocks with the largest item row each, and one piece begun by each.
pub const KEEP_PIECES: usize = 8;
/// Objects, sent or on their way, after which a commit is due. While it waits for those on their way, about as many follow: so a crash costs
/// at most 16 objects. On a slow uplink a commit's segment and record add a quarter to the PUTs, and segments are merged at the end.
pub const COMMIT_OBJECTS: usize = 8;
/// Commits of a stretch after which they come half as often, then a third, and so on: each leaves a segment, which merges take away only
/// when the backup has ended, and so 64 Ki of them ([`SEGMENTS_MAX`](crate::log::limits::SEGMENTS_MAX)) are enough for 100 TiB.
pub const COMMITS_CLOSE_MAX: usize = 2048;
/// Shortest time between commits that are due because of [`COMMIT_OBJECTS`], in nanoseconds: on a fast uplink they add nothing that counts.
pub const COMMIT_PAUSE_NS: u64 = 2_000_000_000;
/// Time on the way of what was sent since the last commit, after which one is due whatever the number of objects, in nanoseconds: on a slow
/// uplink, where [`COMMIT_OBJECTS`] take minutes. With what is packed ahead, and is waited for, all is committed within 5 s.
pub const COMMIT_SLOW_NS: u64 = 1_000_000_000;
/// Time after which a commit is due when there is anything to say, in nanoseconds: what was read and found unchanged counts too.
pub const COMMIT_INTERVAL_NS: u64 = 30_000_000_000;
/// Faults kept with their text; the rest are counted.
pub const FAULTS_KEPT_MAX: usize = 1000;
/// Unit in which unreadable ranges are narrowed down, in bytes (or the device's logical block when that is larger).
pub const LOST_GRANULE_BYTES: u32 = 4096;

/// A frame being read.
#[derive(Debug)]
struct Reading {
    batch: u64,
    frame: u32,
    todo: Vec<Segment>,
    lost: Vec<(u64, u64)>,
}

/// An object that frames or row blocks go to, until it is sent.
#[derive(Debug)]
struct Growing {
    id: ObjectId,
    written: u32,
    closed: Option<Arc<ObjectBuf>>,
}

#[derive(Debug)]
struct Active {
    batch: Batch,
    next_frame: usize,
    frames_left: usize,
    /// Per place: where the last point has the block; empty when no item of the batch was in it.
    base: Vec<Option<Place>>,
    /// Items that are gone since the last point, to be emitted among the batch's.
    deleted: VecDeque<(u64, Gone)>,
    /// Next row to emit.
    emit: Emit,
}

/// How far the rows of a batch are emitted.
#[derive(Clone, Copy, Debug, Default)]
struct Emit {
    item: usize,
    names: usize,
    group: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sweeping {
    Next(Cursor),
    Asked(Cursor),
    Done,
}

#[derive(Debug, PartialEq, Eq)]
enum Committing {
    /// No commit is under way.
    Idle,
    /// Rows up to `end` are in acknowledged or flying segments; objects with a lower count have to be acknowledged.
    Waiting { end: Key, totals: PointTotals, before: u32, last: bool },
    /// Asked for.
    Asked { last: bool },
    /// The last one is durable.
    Done,
}

/// How far an order to send what is packed is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flush {
    /// There is none.
    None,
    /// A commit is to begin.
    Wanted,
    /// Its commit is under way, and holds back no object that is open.
    Committing,
}

/// The state machine. See the module's text.
pub struct Backup<B: Base> {
    task: Task,
    shared: Arc<Shared>,
    frames: Pool,
    base: B,
    base_items: Vec<ItemRow>,
    rows: Rows,
    cutter: Cutter,
    sweeping: Sweeping,
    windows: Vec<Window>,
    plans: Vec<Plan>,
    batches: VecDeque<Active>,
    first_batch: u64,
    deleted: Vec<(u64, Gone)>,
    readings: Vec<Option<Reading>>,
    retries: VecDeque<Request>,
    reading: usize,
    ready: VecDeque<Job>,
    packing: usize,
    shells: Vec<(Vec<JobBlock>, Vec<JobPiece>)>,
    growing: Vec<Growing>,
    to_put: VecDeque<Action>,
    objects_out: Vec<(ObjectId, u32)>,
    segments_out: Vec<(ObjectId, u32)>,
    uncommitted: Progress,
    /// Rows below are emitted, and what had been done by then.
    emitted: (Key, Totals),
    /// Rows below are committed or about to be, and what had been done by then.
    told: (Key, Totals),
    committing: Committing,
    flush: Flush,
    last_commit_ns: u64,
    /// The newest change time met so far, in seconds.
    newest_secs: Option<i64>,
    open_since_ns: Option<u64>,
    pending: item::Pending,
    pace: Pace,
    link: Link,
    /// The item being emitted, and how many of its bytes are counted.
    counted: (u64, u64),
    totals: Totals,
    troubles: Vec<ItemTrouble>,
    /// How many of them a commit has told.
    troubles_told: usize,
}

impl<B: Base> Backup<B> {
    /// A machine for one stretch, which must be [sound](stretch::is_sound). `frames` are buffers of `frame_buf_bytes(shape.block_bytes)`; `now` is boot time in ns.
    /// `None` when there is no memory for the contexts.
    pub fn new(
        task: Task,
        shared: Arc<Shared>,
        frames: Pool,
        base: B,
        segment_bytes: u32,
        now: u64,
    ) -> Option<Backup<B>> {
        assert!(
            stretch::is_sound(task.from, task.to, &task.shape),
            "the caller has judged what it was given"
        );
        let cursor = Cursor { inode: task.from.0, within: 0 };
        let link = {
            let mut placer = shared.placer.lock().unwrap_or_else(PoisonError::into_inner);
            let link = Link::new(shared.rate.clone(), placer.object_bytes());
            placer.aim(link.object_bytes());
            link
        };
        Some(Backup {
            rows: Rows::new(task.volume, task.backup, segment_bytes)?,
            cutter: Cutter::new(task.shape, task.from),
            sweeping: Sweeping::Next(cursor),
            base_items: Vec::new(),
            windows: vec![Window::default(), Window::default()],
            plans: Vec::new(),
            batches: VecDeque::new(),
            first_batch: 0,
            deleted: Vec::new(),
            readings: Vec::new(),
            retries: VecDeque::new(),
            reading: 0,
            ready: VecDeque::new(),
            packing: 0,
            shells: Vec::new(),
            growing: Vec::new(),
            to_put: VecDeque::new(),
            objects_out: Vec::new(),
            segments_out: Vec::new(),
            uncommitted: Progress::default(),
            emitted: (task.from, Totals::default()),
            told: (task.from, Totals::default()),
            committing: Committing::Idle,
            flush: Flush::None,
            last_commit_ns: now,
            newest_secs: None,
            open_since_ns: None,
            pending: item::Pending::default(),
            pace: Pace::new(shared.rate.bytes_in(BATCH_NS), now),
            link,
            counted: (task.from.0, task.from.1.saturating_mul(u64::from(task.shape.block_bytes))),
            totals: Totals::default(),
            troubles: Vec::new(),
            troubles_told: 0,
            task,
            shared,
            frames,
            base,
        })
    }

    /// Counters so far.
    pub fn totals(&self) -> &Totals {
        &self.totals
    }

    /// Items with something missing, at most [`FAULTS_KEPT_MAX`]; `totals().fault_count` counts all.
    pub fn troubles(&self) -> &[ItemTrouble] {
        &self.troubles
    }

    /// Segments of which rows of the last point could not be read.
    pub fn lost(&self) -> Vec<LostRows> {
        self.base.lost()
    }

    /// Whether everything is committed.
    pub fn is_done(&self) -> bool {
        self.committing == Committing::Done
    }

    /// Sends what is packed as soon as it can, in objects that need not be full, and commits what is done. Asked for twice it is done once.
    pub fn flush(&mut self) {
        self.placer().close();
        self.flush = Flush::Wanted;
    }

    /// Whether there is something left to do of the last [`Backup::flush`].
    pub fn is_flushing(&self) -> bool {
        self.flush != Flush::None && !self.is_done()
    }

    /// The earliest moment at which `next_action` has something to do without an event: a commit or a flush.
    pub fn deadline(&self) -> Option<u64> {
        let commit = self.commit_due_ns().filter(|_| self.committing == Committing::Idle);
        let flush = self.open_since_ns.map(|since| since.saturating_add(self.task.flush_interval_ns));
        commit.into_iter().chain(flush).min()
    }

    /// Takes an event in.
    pub fn handle(&mut self, now: u64, event: Event) -> Result<(), BackupFault<B::Fault>> {
        match event {
            Event::Swept(window, swept) => self.swept(window, swept)?,
            Event::Read(request) => self.read(request)?,
            Event::Packed(job) => self.packed(job)?,
            Event::Stored(id) => self.stored(now, id),
            Event::Committed => self.committed(now),
        }
        Ok(())
    }

    /// The next thing to do, until there is none.
    pub fn next_action(&mut self, now: u64) -> Result<Option<Action>, BackupFault<B::Fault>> {
        loop {
            self.emit_rows(now);
            if let Some(action) = self.next_put(now) {
                return Ok(Some(action));
            }
            if let Some(action) = self.next_pack() {
                return Ok(Some(action));
            }
            if let Some(action) = self.next_read() {
                return Ok(Some(action));
            }
            if self.next_batch()? {
                continue;
            }
            if let Some(action) = self.next_sweep() {
                return Ok(Some(action));
            }
            if let Some(action) = self.next_commit(now) {
                return Ok(Some(action));
            }
            if !self.unstick(now) {
                return Ok(None);
            }
        }
    }

    fn placer(&self) -> MutexGuard<'_, Placer> {
        self.shared.placer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next_sweep(&mut self) -> Option<Action> {
        let Sweeping::Next(cursor) = self.sweeping else { return None };
        if !self.cutter.wants_window() || self.batches.len() >= BATCHES_MAX {
            return None;
        }
        let window = self.windows.pop()?;
        self.sweeping = Sweeping::Asked(cursor);
        Some(Action::Sweep(cursor, window))
    }

    fn swept(&mut self, mut window: Window, swept: Swept) -> Result<(), BackupFault<B::Fault>> {
        let Sweeping::Asked(from) = self.sweeping else { unreachable!("a window that was not asked for") };
        let to = self.task.to;
        let ends = stretch::trim(&mut window, to, &self.task.shape);
        let end = match swept {
            Swept::More(cursor) if !ends && (cursor.inode, 0) < to => {
                self.sweeping = Sweeping::Next(cursor);
                (cursor.inode, 0)
            }
            Swept::More(_) | Swept::Done => {
                self.sweeping = Sweeping::Done;
                to
            }
        };
        let newest = window.items.iter().map(|item| item.ctime.secs);
        let newest = newest.filter(|&secs| secs <= self.task.newest_secs_max).max();
        self.newest_secs = self.newest_secs.max(newest);
        self.base_items.clear();
        let goes_on = window.items.last().is_some_and(|item| !item.part.last);
        let base_to = end.0.saturating_add(u64::from(goes_on));
        self.base.items(from.inode, base_to, &mut self.base_items).map_err(BackupFault::Base)?;
        let verdicts = item::judge(&window, &self.base_items, &self.task);
        item::deleted(&window, &self.base_items, self.task.wall_secs, &mut self.deleted);
        self.cutter.begin(Arc::new(window), verdicts, end);
        Ok(())
    }

    fn next_batch(&mut self) -> Result<bool, BackupFault<B::Fault>> {
        if self.batches.len() >= BATCHES_MAX {
            return Ok(false);
        }
        let gap_bytes = self.task.reading.gap_bytes;
        let mut plan = self.plans.pop().unwrap_or_else(|| Plan::new(gap_bytes));
        plan.bytes_max = self.pace.batch_bytes();
        let Some(batch) = self.cutter.next(plan) else { return Ok(false) };
        let base = self.base_places(&batch)?;
        let frames_left = batch.plan.frames.len();
        let kept = self.deleted.partition_point(|&(inode, _)| inode < batch.end.0);
        let deleted = self.deleted.drain(..kept).collect();
        self.batches.push_back(Active {
            batch,
            next_frame: 0,
            frames_left,
            base,
            deleted,
            emit: Emit::default(),
        });
        Ok(true)
    }

    /// Where the last point has the blocks of changed items, and backups that stopped since then have those of all that are read.
    fn base_places(&mut self, batch: &Batch) -> Result<Vec<Option<Place>>, BackupFault<B::Fault>> {
        let mut places = Vec::new();
        let mut rows = Vec::new();
        for of in batch.items.iter().filter(|i| i.verdict != Verdict::Same) {
            let inode = batch.window.items[of.index as usize].inode;
            let groups = batch.groups.partition_point(|g| g.item < of.index)
                ..batch.groups.partition_point(|g| g.item <= of.index);
            let groups = &batch.groups[groups];
            let (Some(first), Some(last)) = (groups.first(), groups.last()) else { continue };
            let known = self.base_items.binary_search_by_key(&inode, |row| row.lin.inode);
            if let Some(row) =
                known.ok().map(|at| &self.base_items[at]).filter(|_| of.verdict == Verdict::Changed)
            {
                rows.clear();
                self.base.locations(row, first.base, last.base, &mut rows).map_err(BackupFault::Base)?;
                take_places(&rows, groups, &self.task, batch.places.len(), &mut places);
            }
            rows.clear();
            self.base.unfinished(inode, first.base, last.base, &mut rows).map_err(BackupFault::Base)?;
            take_places(&rows, groups, &self.task, batch.places.len(), &mut places);
        }
        Ok(places)
    }
}

/// Notes where `rows`, ascending, have the blocks of `groups`, which are among `count` of a batch.
fn take_places(
    rows: &[LocationRow],
    groups: &[Group],
    task: &Task,
    count: usize,
    places: &mut Vec<Option<Place>>,
) {
    if rows.is_empty() {
        return;
    }
    places.resize(count, None);
    for group in groups {
        let Ok(at) = rows.binary_search_by_key(&group.base, |row| row.base) else { continue };
        if rows[at].block_bytes != task.shape.block_bytes {
            continue;
        }
        let of_group = places[group.places as usize..][..group.count as usize].iter_mut();
        for (place, old) in of_group.zip(&rows[at].blocks) {
            if let BlockPlace::Stored(old) = old {
                *place = Some(*old);
            }
        }
    }
}
