//! The backup of one volume: a state machine from sweep to commit, without I/O, clock or threads of its own.
//!
//! ```text
//!  Sweep -> window -> cutter -> batches (at most BATCHES_MAX, in key order)
//!            frames of a batch:  Read -> Pack (a lane) -> outcome
//!            a batch whose frames are all packed, and is the oldest: its rows are emitted, in key order
//!  objects that are full and written -> Put;  segments of rows -> Put
//!  every COMMIT_OBJECTS objects or COMMIT_INTERVAL: rows so far + all objects they refer to acknowledged -> Commit
//! ```
//!
//! Calls: [`Backup::handle`] takes an event, [`Backup::next_action`] says what to do until it returns `None`,
//! [`Backup::deadline`] says when to come back without an event.
//!
//! Invariants
//! - Rows are emitted in key order, so one key (`Progress`) says what a commit covers, and a killed backup goes on there.
//! - A commit names only objects and segments that the store has acknowledged (C1).
//! - Memory: two windows, [`BATCHES_MAX`] batches, the frame pool, the piece pool. Nothing grows (P3, I12).
//! - Pieces are promised to a frame before it goes to a lane, and [`KEEP_PIECES`] stay free for rows, so the machine always
//!   gets on: when nothing is in flight and a frame still waits for room, the open object is sent as it is.
//! - What the medium does not give costs the bytes that it did not give: they are named, and the backup goes on.
//!
//! Source: ours; architecture section 4, commit-log C1 and C5.

use std::collections::VecDeque;
use std::sync::{Arc, MutexGuard, PoisonError};

use windlass_hal::block::{Fault, FaultKind, Op, Request, SEGMENTS_PER_REQUEST_MAX, Segment};
use windlass_hal::buf::Pool;
use windlass_hal::volume::{Cursor, Swept, Timestamp, Window};

use crate::format::frame::FRAME_OVERHEAD_BYTES;
use crate::format::row::{BlockPlace, ItemRow, LocationRow, NameRow, Place, Row};
use crate::id::{BackupId, Lin, ObjectId, VolumeId};
use crate::pack::FRAME_FRONT_BYTES;
use crate::pack::lane::{Job, JobBlock, JobPiece, Outcome, Shared};
use crate::pack::object::{ObjectBuf, PIECE_BYTES, Placer};
use crate::pack::plan::Plan;
use crate::table::segment::SegmentMeta;
use crate::worker::batch::{Batch, Cutter, Shape, Verdict};
use crate::worker::item;
use crate::worker::rows::Rows;

/// Batches in work at once: one whose last frames are being packed, one being read, one planned.
pub const BATCHES_MAX: usize = 3;
/// Pieces that frames leave free for rows: two row blocks with the largest item row each, and one piece begun by each.
pub const KEEP_PIECES: usize = 8;
/// Objects after which a commit is due: with a segment and the record it adds under 2 % to the PUTs.
pub const COMMIT_OBJECTS: usize = 128;
/// Time after which a commit is due, in nanoseconds: what a crash may cost on a slow uplink.
pub const COMMIT_INTERVAL_NS: u64 = 60_000_000_000;
/// Faults kept with their text; the rest are counted.
pub const FAULTS_KEPT_MAX: usize = 1000;
/// Unit in which unreadable ranges are narrowed down, in bytes (or the device's logical block when that is larger).
pub const LOST_GRANULE_BYTES: u32 = 4096;

/// What to back up and how.
#[derive(Clone, Debug)]
pub struct Task {
    /// The volume's number.
    pub volume: VolumeId,
    /// The backup that rows are written under.
    pub backup: BackupId,
    /// Block, row and frame sizes.
    pub shape: Shape,
    /// The device's logical block in bytes.
    pub logical_block_bytes: u32,
    /// The file system's block in bytes: allocation past an item's size is judged by it.
    pub volume_block_bytes: u32,
    /// Read requests in flight at most.
    pub read_depth: usize,
    /// Items changed at or after this time are read even if they look as in the last point: their change time may not tell
    /// two changes apart.
    pub unsure_from: Timestamp,
    /// Where to start: (inode, block), everything below is committed.
    pub resume: (u64, u64),
    /// How long blocks may wait in an object that does not fill, in nanoseconds.
    pub flush_interval_ns: u64,
}

/// Rows of the last point, read in step with the sweep. `Fault` is whatever keeps the tables from being read.
pub trait Base {
    /// Why rows could not be read.
    type Fault;

    /// Appends the items that the last point has with inodes in `from..to`, ascending.
    fn items(&mut self, from: u64, to: u64, out: &mut Vec<ItemRow>) -> Result<(), Self::Fault>;

    /// Appends the location rows of `item` with bases in `from..=to`, ascending.
    fn locations(
        &mut self,
        item: &ItemRow,
        from: u64,
        to: u64,
        out: &mut Vec<LocationRow>,
    ) -> Result<(), Self::Fault>;
}

/// What the machine wants done. Each leads to exactly one event, except `Sweep`, `Commit` and `Put`'s own failures, which end
/// the backup in the driver.
#[derive(Debug)]
pub enum Action {
    /// Sweep the volume from the cursor into the window.
    Sweep(Cursor, Window),
    /// Read.
    Read(Request),
    /// Give to a lane.
    Pack(Job),
    /// Upload an object.
    PutObject(Arc<ObjectBuf>),
    /// Upload a segment.
    PutSegment(Arc<ObjectBuf>),
    /// Commit.
    Commit(Progress),
}

/// What has happened.
#[derive(Debug)]
pub enum Event {
    /// A window was swept.
    Swept(Window, Swept),
    /// A read came back, with faults per segment.
    Read(Request),
    /// A lane is done with a frame.
    Packed(Job),
    /// An object or segment is acknowledged.
    Stored(ObjectId),
    /// The commit is durable.
    Committed,
}

/// What a commit covers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Objects acknowledged since the last commit, with their sizes.
    pub objects: Vec<(ObjectId, u32)>,
    /// Segments written since the last commit.
    pub segments: Vec<SegmentMeta>,
    /// (inode, block): all rows below are in committed segments.
    pub end: (u64, u64),
    /// Whether the volume is done.
    pub last: bool,
}

/// What the backup did so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Items that exist.
    pub items: u64,
    /// Items that are exactly as in the last point.
    pub items_same: u64,
    /// Items that the last point had and that are gone.
    pub items_deleted: u64,
    /// Bytes of the items' contents, holes included.
    pub item_bytes: u64,
    /// Bytes read from the device.
    pub read_bytes: u64,
    /// Read operations on the device.
    pub reads: u64,
    /// Bytes of blocks whose contents were looked at.
    pub block_bytes: u64,
    /// Bytes of blocks that were stored, before compression.
    pub stored_plain_bytes: u64,
    /// Bytes of objects and segments acknowledged.
    pub stored_bytes: u64,
    /// Upload objects acknowledged.
    pub objects: u64,
    /// Segments acknowledged.
    pub segments: u64,
    /// Items with something that could not be read.
    pub fault_count: u64,
}

impl Totals {
    /// The sum of both, for several volumes.
    pub fn plus(&self, other: &Totals) -> Totals {
        Totals {
            items: self.items + other.items,
            items_same: self.items_same + other.items_same,
            items_deleted: self.items_deleted + other.items_deleted,
            item_bytes: self.item_bytes + other.item_bytes,
            read_bytes: self.read_bytes + other.read_bytes,
            reads: self.reads + other.reads,
            block_bytes: self.block_bytes + other.block_bytes,
            stored_plain_bytes: self.stored_plain_bytes + other.stored_plain_bytes,
            stored_bytes: self.stored_bytes + other.stored_bytes,
            objects: self.objects + other.objects,
            segments: self.segments + other.segments,
            fault_count: self.fault_count + other.fault_count,
        }
    }
}

/// An item that could not be read whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ItemTrouble {
    /// Which.
    pub lin: Lin,
    /// What is missing, in a sentence.
    pub what: String,
}

/// Why the machine cannot go on.
#[derive(Debug)]
pub enum BackupFault<F> {
    /// The device under the volume is gone, or refuses what the machine asked.
    Device(Fault),
    /// The last point's rows could not be read.
    Base(F),
}

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
    deleted: VecDeque<u64>,
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
    Waiting { end: (u64, u64), before: u32, last: bool },
    /// Asked for.
    Asked { last: bool },
    /// The last one is durable.
    Done,
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
    deleted: Vec<u64>,
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
    emitted: (u64, u64),
    committing: Committing,
    last_commit_ns: u64,
    open_since_ns: Option<u64>,
    pending: item::Pending,
    totals: Totals,
    troubles: Vec<ItemTrouble>,
}

impl<B: Base> Backup<B> {
    /// A machine for one volume. `frames` are buffers of `frame_buf_bytes(shape.block_bytes)`; `now` is boot time in ns.
    /// `None` when there is no memory for the contexts.
    pub fn new(
        task: Task,
        shared: Arc<Shared>,
        frames: Pool,
        base: B,
        segment_bytes: u32,
        now: u64,
    ) -> Option<Backup<B>> {
        let cursor = Cursor { inode: task.resume.0, within: 0 };
        Some(Backup {
            rows: Rows::new(task.volume, task.backup, segment_bytes)?,
            cutter: Cutter::new(task.shape, task.resume),
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
            emitted: task.resume,
            committing: Committing::Idle,
            last_commit_ns: now,
            open_since_ns: None,
            pending: item::Pending::default(),
            totals: Totals::default(),
            troubles: Vec::new(),
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

    /// Whether everything is committed.
    pub fn is_done(&self) -> bool {
        self.committing == Committing::Done
    }

    /// The earliest moment at which `next_action` has something to do without an event: a commit or a flush.
    pub fn deadline(&self) -> Option<u64> {
        let commit = (self.committing == Committing::Idle && !self.uncommitted.objects.is_empty())
            .then(|| self.last_commit_ns + COMMIT_INTERVAL_NS);
        let flush = self.open_since_ns.map(|since| since.saturating_add(self.task.flush_interval_ns));
        commit.into_iter().chain(flush).min()
    }

    /// Takes an event in.
    pub fn handle(&mut self, now: u64, event: Event) -> Result<(), BackupFault<B::Fault>> {
        match event {
            Event::Swept(window, swept) => self.swept(window, swept)?,
            Event::Read(request) => self.read(request)?,
            Event::Packed(job) => self.packed(job),
            Event::Stored(id) => self.stored(id),
            Event::Committed => self.committed(now),
        }
        Ok(())
    }

    /// The next thing to do, until there is none.
    pub fn next_action(&mut self, now: u64) -> Result<Option<Action>, BackupFault<B::Fault>> {
        loop {
            self.emit_rows();
            if let Some(action) = self.next_put() {
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

    // ---- sweep and batches

    fn next_sweep(&mut self) -> Option<Action> {
        let Sweeping::Next(cursor) = self.sweeping else { return None };
        if !self.cutter.wants_window() || self.batches.len() >= BATCHES_MAX {
            return None;
        }
        let window = self.windows.pop()?;
        self.sweeping = Sweeping::Asked(cursor);
        Some(Action::Sweep(cursor, window))
    }

    fn swept(&mut self, window: Window, swept: Swept) -> Result<(), BackupFault<B::Fault>> {
        let Sweeping::Asked(from) = self.sweeping else { panic!("a window that was not asked for") };
        let next_inode = match swept {
            Swept::More(cursor) => {
                self.sweeping = Sweeping::Next(cursor);
                cursor.inode
            }
            Swept::Done => {
                self.sweeping = Sweeping::Done;
                u64::MAX
            }
        };
        self.base_items.clear();
        let goes_on = window.items.last().is_some_and(|item| !item.part.last);
        let to = next_inode.saturating_add(u64::from(goes_on));
        self.base.items(from.inode, to, &mut self.base_items).map_err(BackupFault::Base)?;
        let verdicts = item::judge(&window, &self.base_items, &self.task);
        self.totals.items_same += verdicts.iter().filter(|v| **v == Verdict::Same).count() as u64;
        item::deleted(&window, &self.base_items, &mut self.deleted);
        self.cutter.begin(Arc::new(window), verdicts, next_inode);
        Ok(())
    }

    fn next_batch(&mut self) -> Result<bool, BackupFault<B::Fault>> {
        if self.batches.len() >= BATCHES_MAX {
            return Ok(false);
        }
        let Some(batch) = self.cutter.next(self.plans.pop().unwrap_or_default()) else { return Ok(false) };
        let base = self.base_places(&batch)?;
        let frames_left = batch.plan.frames.len();
        let kept = self.deleted.partition_point(|&inode| inode < batch.end.0);
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

    /// Where the last point has the blocks of changed items.
    fn base_places(&mut self, batch: &Batch) -> Result<Vec<Option<Place>>, BackupFault<B::Fault>> {
        let mut places = Vec::new();
        let mut rows = Vec::new();
        for of in batch.items.iter().filter(|i| i.verdict == Verdict::Changed) {
            let inode = batch.window.items[of.index as usize].inode;
            let groups = batch.groups.partition_point(|g| g.item < of.index)
                ..batch.groups.partition_point(|g| g.item <= of.index);
            let groups = &batch.groups[groups];
            let (Some(first), Some(last)) = (groups.first(), groups.last()) else { continue };
            let Ok(at) = self.base_items.binary_search_by_key(&inode, |row| row.lin.inode) else { continue };
            rows.clear();
            self.base
                .locations(&self.base_items[at], first.base, last.base, &mut rows)
                .map_err(BackupFault::Base)?;
            places.resize(batch.places.len(), None);
            for group in groups {
                let Ok(at) = rows.binary_search_by_key(&group.base, |row| row.base) else { continue };
                if rows[at].block_bytes != self.task.shape.block_bytes {
                    continue;
                }
                for (place, old) in
                    places[group.places as usize..][..group.count as usize].iter_mut().zip(&rows[at].blocks)
                {
                    if let BlockPlace::Stored(old) = old {
                        *place = Some(*old);
                    }
                }
            }
        }
        Ok(places)
    }

    // ---- reads

    fn next_read(&mut self) -> Option<Action> {
        if let Some(request) = self.retries.pop_front() {
            return Some(Action::Read(request));
        }
        if self.reading >= self.task.read_depth || self.ready.len() >= self.task.read_depth {
            return None;
        }
        let offset = self.batches.iter().position(|a| a.next_frame < a.batch.plan.frames.len())?;
        let buf = self.frames.take()?;
        let active = &mut self.batches[offset];
        let frame = active.next_frame;
        active.next_frame += 1;
        let plan = &active.batch.plan;
        let reads = plan.frames[frame].reads.clone();
        let todo = plan.reads[reads.start as usize..reads.end as usize]
            .iter()
            .rev()
            .map(|s| Segment::new(s.device_offset, s.buf_offset + FRAME_FRONT_BYTES as u32, s.len))
            .collect();
        let reading =
            Reading { batch: self.first_batch + offset as u64, frame: frame as u32, todo, lost: Vec::new() };
        let id = match self.readings.iter().position(Option::is_none) {
            Some(free) => free,
            None => {
                self.readings.push(None);
                self.readings.len() - 1
            }
        };
        self.readings[id] = Some(reading);
        self.reading += 1;
        let mut request = Request { id: id as u64, op: Op::Read, buf: Some(buf), segments: Vec::new() };
        self.fill_request(&mut request);
        Some(Action::Read(request))
    }

    /// Moves as many ranges as fit from the frame's list to the request.
    fn fill_request(&mut self, request: &mut Request) {
        request.segments.clear();
        if let Some(reading) = &mut self.readings[request.id as usize] {
            while request.segments.len() < SEGMENTS_PER_REQUEST_MAX
                && let Some(segment) = reading.todo.pop()
            {
                request.segments.push(segment);
            }
        }
        self.totals.reads += request.segments.len() as u64;
    }

    fn read(&mut self, mut request: Request) -> Result<(), BackupFault<B::Fault>> {
        let granule = u64::from(self.task.logical_block_bytes.max(LOST_GRANULE_BYTES));
        let id = request.id as usize;
        let Some(reading) = self.readings.get_mut(id).and_then(Option::as_mut) else { return Ok(()) };
        for segment in &request.segments {
            let Some(fault) = segment.fault else {
                self.totals.read_bytes += segment.len;
                continue;
            };
            if matches!(fault.kind, FaultKind::Gone | FaultKind::Misuse | FaultKind::Unsupported) {
                return Err(BackupFault::Device(fault));
            }
            if segment.len <= granule {
                let start = segment.buf_offset as usize;
                if let Some(buf) = &mut request.buf {
                    buf[start..start + segment.len as usize].fill(0);
                }
                reading.lost.push((segment.device_offset, segment.device_offset + segment.len));
                continue;
            }
            let mut at = 0;
            while at < segment.len {
                let len = granule.min(segment.len - at);
                reading.todo.push(Segment::new(
                    segment.device_offset + at,
                    segment.buf_offset + at as u32,
                    len,
                ));
                at += len;
            }
        }
        if !reading.todo.is_empty() {
            self.retry(request);
            return Ok(());
        }
        self.frame_read(request);
        Ok(())
    }

    /// Puts a request that has ranges left back in front; it keeps its buffer.
    fn retry(&mut self, mut request: Request) {
        self.fill_request(&mut request);
        self.retries.push_back(request);
    }

    /// A frame is read: its blocks become a job.
    fn frame_read(&mut self, request: Request) {
        let (Some(reading), Some(buf)) = (self.readings[request.id as usize].take(), request.buf) else {
            return;
        };
        self.reading -= 1;
        let active = &mut self.batches[(reading.batch - self.first_batch) as usize];
        let (mut blocks, mut pieces) = self.shells.pop().unwrap_or_default();
        blocks.clear();
        pieces.clear();
        let batch = &mut active.batch;
        let frame = &batch.plan.frames[reading.frame as usize];
        for block in &batch.plan.blocks[frame.blocks.start as usize..frame.blocks.end as usize] {
            let start = pieces.len() as u32;
            let from = &batch.plan.pieces[block.pieces.start as usize..block.pieces.end as usize];
            pieces.extend(from.iter().map(|p| JobPiece { within: p.within, len: p.len, at: p.at }));
            let mut place = BlockPlace::Empty;
            if !reading.lost.is_empty() {
                let block_start = block.block * u64::from(self.task.shape.block_bytes);
                let all = item::lost_ranges(from, block.len, &reading.lost, |from, to| {
                    batch.lost.push((block.item, block_start + from, block_start + to));
                });
                if all {
                    place = BlockPlace::Lost;
                }
            }
            let base = active.base.get(block.outcome as usize).copied().flatten();
            blocks.push(JobBlock {
                outcome: block.outcome,
                len: block.len,
                pieces: start..pieces.len() as u32,
                base,
                place,
            });
        }
        self.ready.push_back(Job {
            tag: reading.batch,
            buf,
            blocks,
            pieces,
            bytes: frame.bytes,
            packed: frame.packed,
            outcome: Outcome::default(),
        });
    }

    // ---- packing

    fn next_pack(&mut self) -> Option<Action> {
        let worst = self.ready.front()?.bytes as usize + FRAME_OVERHEAD_BYTES;
        if !self.placer().can_take(worst, KEEP_PIECES) {
            return None;
        }
        self.packing += 1;
        self.ready.pop_front().map(Action::Pack)
    }

    fn packed(&mut self, job: Job) {
        self.packing -= 1;
        self.placer().settle(job.bytes as usize + FRAME_OVERHEAD_BYTES);
        let active = &mut self.batches[(job.tag - self.first_batch) as usize];
        for block in &job.blocks {
            active.batch.places[block.outcome as usize] = block.place;
        }
        active.frames_left -= 1;
        let outcome = job.outcome;
        self.totals.block_bytes += outcome.digested_bytes + outcome.zero_bytes;
        self.totals.stored_plain_bytes += outcome.stored_plain_bytes;
        if let Some((id, bytes)) = outcome.stored {
            self.grown(id).written += bytes;
        }
        self.shells.push((job.blocks, job.pieces));
    }

    fn grown(&mut self, id: ObjectId) -> &mut Growing {
        let at = match self.growing.iter().position(|g| g.id == id) {
            Some(at) => at,
            None => {
                self.growing.push(Growing { id, written: 0, closed: None });
                self.growing.len() - 1
            }
        };
        &mut self.growing[at]
    }

    // ---- rows

    /// Emits rows of the oldest batch as long as it is packed and there is room for them.
    fn emit_rows(&mut self) {
        while let Some(front) = self.batches.front()
            && front.frames_left == 0
            && front.next_frame == front.batch.plan.frames.len()
        {
            let Some(mut front) = self.batches.pop_front() else { return };
            if !self.emit_batch(&mut front) {
                self.batches.push_front(front);
                return;
            }
            self.first_batch += 1;
            self.emitted = front.batch.end;
            self.plans.push(front.batch.plan);
            if let Ok(mut window) = Arc::try_unwrap(front.batch.window) {
                window.clear();
                self.windows.push(window);
            }
        }
    }

    /// Emits rows of one batch from where it stopped; `false` when room ran out first.
    fn emit_batch(&mut self, active: &mut Active) -> bool {
        while active.emit.item < active.batch.items.len() {
            let of = &active.batch.items[active.emit.item];
            let inode = active.batch.window.items[of.index as usize].inode;
            if !self.emit_deleted(&mut active.deleted, inode) || !self.emit_item(active) {
                return false;
            }
            active.emit.item += 1;
            active.emit.names = 0;
        }
        self.emit_deleted(&mut active.deleted, u64::MAX)
    }

    /// Emits deletions of inodes below `below`.
    fn emit_deleted(&mut self, deleted: &mut VecDeque<u64>, below: u64) -> bool {
        while deleted.front().is_some_and(|&inode| inode < below) {
            if !self.has_room(0) {
                return false;
            }
            if let Some(inode) = deleted.pop_front() {
                let lin = Lin { volume: self.task.volume, inode };
                self.push_row(Row::Item(ItemRow { lin, backup: self.task.backup, item: None }));
                self.totals.items_deleted += 1;
            }
        }
        true
    }

    /// Emits the names, the location rows and, at its end, the row of one item of a batch.
    fn emit_item(&mut self, active: &mut Active) -> bool {
        let of = &active.batch.items[active.emit.item];
        let window = Arc::clone(&active.batch.window);
        let item = &window.items[of.index as usize];
        if of.verdict == Verdict::Same {
            self.totals.items += u64::from(of.last);
            self.totals.item_bytes += if of.last { item.size } else { 0 };
            return true;
        }
        let lin = Lin { volume: self.task.volume, inode: item.inode };
        let backup = self.task.backup;
        if of.starts && active.emit.names == 0 {
            self.pending.begin_part(&window, item, backup);
        }
        while let Some((name, inode)) = self.pending.name(&window, active.emit.names) {
            if !self.has_room(0) {
                return false;
            }
            let row = NameRow { parent: lin, backup, run: self.pending.run, name: name.to_vec(), inode };
            self.push_row(Row::Name(row));
            active.emit.names += 1;
        }
        while let Some(group) = active.batch.groups.get(active.emit.group).filter(|g| g.item == of.index) {
            if !self.has_room(0) {
                return false;
            }
            let (blocks, runs) = active.batch.location(group, &self.task.shape);
            let block_bytes = self.task.shape.block_bytes;
            self.push_row(Row::Location(LocationRow {
                lin,
                base: group.base,
                backup,
                block_bytes,
                blocks,
                runs,
            }));
            active.emit.group += 1;
        }
        self.end_item(active)
    }

    /// The end of an item's part in a batch: its row, when the item ends here.
    fn end_item(&mut self, active: &mut Active) -> bool {
        let of = &active.batch.items[active.emit.item];
        let item = &active.batch.window.items[of.index as usize];
        if of.last && !self.has_room(self.pending.row_bytes()) {
            return false;
        }
        for &(of_item, from, to) in &active.batch.lost {
            if of_item == of.index {
                self.pending.lost(from, to);
            }
        }
        active.batch.lost.retain(|&(of_item, ..)| of_item != of.index);
        if !of.last {
            return true;
        }
        self.totals.items += 1;
        self.totals.item_bytes += item.size;
        let lin = Lin { volume: self.task.volume, inode: item.inode };
        let attributes = self.pending.end(&active.batch.window, item, self.task.volume_block_bytes);
        if !attributes.fault.is_empty() {
            self.totals.fault_count += 1;
            if self.troubles.len() < FAULTS_KEPT_MAX {
                self.troubles.push(ItemTrouble { lin, what: attributes.fault.clone() });
            }
        }
        self.push_row(Row::Item(ItemRow { lin, backup: self.task.backup, item: Some(attributes) }));
        true
    }

    /// Whether a row of `bytes` can be written to the segment and to a tail without waiting.
    fn has_room(&mut self, bytes: usize) -> bool {
        if self.rows.is_segment_full() {
            self.cut_segment();
        }
        let pieces = 2 * (bytes.div_ceil(PIECE_BYTES) + 1);
        assert!(pieces <= KEEP_PIECES, "the largest row fits what is kept for rows");
        self.placer().spare() >= pieces
    }

    fn push_row(&mut self, row: Row) {
        let pushed = self.rows.push(&row, &self.shared);
        assert!(pushed.is_ok(), "a row breaks a limit of the format that the reader's limits imply");
    }

    /// Ends the segment being written, if it has rows; it is uploaded next.
    fn cut_segment(&mut self) {
        if let Some((segment, meta)) = self.rows.end_segment(&self.shared) {
            self.segments_out.push((segment.id(), segment.len()));
            self.uncommitted.segments.push(meta);
            self.to_put.push_back(Action::PutSegment(segment));
        }
    }

    // ---- uploads

    /// An object that is closed and written, with its tail; or a segment.
    fn next_put(&mut self) -> Option<Action> {
        if let Some(action) = self.to_put.pop_front() {
            return Some(action);
        }
        loop {
            let closed = self.placer().take_closed();
            let Some(object) = closed else { break };
            self.open_since_ns = None;
            let id = object.id();
            self.grown(id).closed = Some(object);
        }
        let whole = |g: &Growing| g.closed.as_ref().is_some_and(|object| g.written == object.len());
        let at = self.growing.iter().position(whole)?;
        if self.placer().spare() == 0 {
            return None;
        }
        let object = self.growing.swap_remove(at).closed?;
        self.rows.end_object(&object, &self.shared);
        self.objects_out.push((object.id(), object.len()));
        Some(Action::PutObject(object))
    }

    fn stored(&mut self, id: ObjectId) {
        if let Some(at) = self.objects_out.iter().position(|(out, _)| *out == id) {
            let (id, bytes) = self.objects_out.swap_remove(at);
            self.totals.objects += 1;
            self.totals.stored_bytes += u64::from(bytes);
            self.uncommitted.objects.push((id, bytes));
        } else if let Some(at) = self.segments_out.iter().position(|(out, _)| *out == id) {
            let (_, bytes) = self.segments_out.swap_remove(at);
            self.totals.segments += 1;
            self.totals.stored_bytes += u64::from(bytes);
        }
    }

    // ---- commits

    fn next_commit(&mut self, now: u64) -> Option<Action> {
        match self.committing {
            Committing::Idle => {
                let last = self.is_emptied();
                let due = self.uncommitted.objects.len() >= COMMIT_OBJECTS
                    || (!self.uncommitted.objects.is_empty()
                        && now >= self.last_commit_ns + COMMIT_INTERVAL_NS);
                if !last && !due {
                    return None;
                }
                if last {
                    self.placer().close();
                }
                self.cut_segment();
                let before = self.placer().names_given();
                self.committing = Committing::Waiting { end: self.emitted, before, last };
                // With nothing to put there may be nothing to wait for either, and no event would come.
                self.next_put().or_else(|| self.next_commit(now))
            }
            Committing::Waiting { end, before, last } => {
                let open = self.placer().open().is_some_and(|o| o.id().count < before);
                let out = self.growing.iter().any(|g| g.id.count < before)
                    || self.objects_out.iter().any(|(id, _)| id.count < before)
                    || self.segments_out.iter().any(|(id, _)| id.count < before)
                    || !self.to_put.is_empty();
                if open || out {
                    return None;
                }
                self.committing = Committing::Asked { last };
                let mut progress = std::mem::take(&mut self.uncommitted);
                progress.end = end;
                progress.last = last;
                let later = progress.segments.iter().position(|s| s.id.count >= before);
                if let Some(later) = later {
                    self.uncommitted.segments = progress.segments.split_off(later);
                }
                Some(Action::Commit(progress))
            }
            Committing::Asked { .. } | Committing::Done => None,
        }
    }

    /// Whether the sweep is over and every row is emitted.
    fn is_emptied(&self) -> bool {
        self.sweeping == Sweeping::Done && self.cutter.wants_window() && self.batches.is_empty()
    }

    fn committed(&mut self, now: u64) {
        let Committing::Asked { last } = self.committing else { panic!("a commit that was not asked for") };
        self.committing = if last { Committing::Done } else { Committing::Idle };
        self.last_commit_ns = now;
    }

    /// Closes the open object when its time has come, or when nothing moves because it holds all room. `true`: look again.
    fn unstick(&mut self, now: u64) -> bool {
        let mut placer = self.shared.placer.lock().unwrap_or_else(PoisonError::into_inner);
        if placer.open().is_none() {
            self.open_since_ns = None;
            return false;
        }
        let since = *self.open_since_ns.get_or_insert(now);
        let flush = now >= since.saturating_add(self.task.flush_interval_ns);
        let waiting = !self.ready.is_empty()
            || self
                .batches
                .front()
                .is_some_and(|a| a.frames_left == 0 && a.next_frame == a.batch.plan.frames.len())
            || self.is_emptied() && self.committing == Committing::Idle;
        let moving = self.packing > 0 || !self.objects_out.is_empty() || !self.segments_out.is_empty();
        if flush || (waiting && !moving) {
            placer.close();
            self.open_since_ns = None;
            return true;
        }
        false
    }
}
