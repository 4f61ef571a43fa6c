//! Restore lanes: threads that fetch, open, verify and write, and finish files and directories.
//!
//! ```text
//!  task   Fetch   one ranged GET: its frames opened, every wanted block verified and written;
//!                 a frame that is not what was written is fetched once more, over another connection, before it is damage
//!         Zeros   data that is zero: written as such, so that it is allocated as it was
//!         Finish  a file without blocks, or the end of the planning of one
//! ```
//!
//! A lane blocks on the store, so there are more lanes than cores; decoding is spread by the scheduler. Each lane has one set
//! of buffers. Source: ours; peers reference, "restore at line rate".

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::Scope;

use rustix::io::Errno;
use windlass_hal::buf::{BUF_ALIGN_BYTES, Pool};

use super::fault::{Reason, RestoreFault};
use super::file::{File, Job};
use super::plan::{Fetch, Frame, Plan, PlannedBlock};
use crate::format::compress::Decompressor;
use crate::format::fault::FormatFault;
use crate::format::frame;
use crate::format::seal::{Keys, ObjectKey};
use crate::id::ObjectId;
use crate::store::retry::Client;
use crate::store::{ByteRange, StoreFaultKind};

/// Most tasks that wait for a lane.
pub const TASKS_MAX: usize = 256;
/// Stack of a lane: nothing of size is on it, and the memory counts.
const STACK_BYTES: usize = 256 << 10;
/// Zero bytes written in one call.
const ZEROS_BYTES: usize = 64 << 10;
/// What address, offset and length of a direct write are multiples of: no logical block is larger.
pub const DIRECT_ALIGN_BYTES: usize = BUF_ALIGN_BYTES;
/// Bytes of one direct write: the copy stays in the cache of the core, and the device has enough to do.
const DIRECT_BYTES: usize = 256 << 10;
static ZEROS: [u8; ZEROS_BYTES] = [0; ZEROS_BYTES];

/// A window of files: what is fetched for them, and who wants it.
pub struct Window {
    /// Fetches, frames, blocks.
    pub plan: Plan,
    /// The files that `PlannedBlock::file` counts in.
    pub files: Vec<Arc<File>>,
    /// Byte ranges of files that are data; `PlannedBlock::runs` are ranges of it.
    pub runs: Vec<(u64, u64)>,
    /// Lets the walk go on when the window is done.
    pub gate: Arc<Gate>,
}

impl Drop for Window {
    fn drop(&mut self) {
        self.gate.leave();
    }
}

/// Bounds the windows that are alive.
#[derive(Debug, Default)]
pub struct Gate {
    inside: Mutex<usize>,
    left: Condvar,
}

impl Gate {
    /// Waits until fewer than `most` are inside, and goes in.
    pub fn enter(&self, most: usize) {
        let mut inside = self.inside.lock().unwrap_or_else(PoisonError::into_inner);
        while *inside >= most {
            inside = self.left.wait(inside).unwrap_or_else(PoisonError::into_inner);
        }
        *inside += 1;
    }

    fn leave(&self) {
        *self.inside.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        self.left.notify_one();
    }
}

/// One piece of work.
pub enum Task {
    /// A fetch of a window's plan.
    Fetch(Arc<Window>, usize),
    /// Zero bytes of a file: offset, length.
    Zeros(Arc<File>, u64, u64),
    /// A file's planning is over.
    Finish(Arc<File>),
}

/// The bounded queue between the walk and the lanes.
#[derive(Default)]
pub struct Queue {
    state: Mutex<(VecDeque<Task>, bool)>,
    some: Condvar,
    room: Condvar,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, (VecDeque<Task>, bool)> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a task; waits while [`TASKS_MAX`] are waiting.
    pub fn push(&self, task: Task) {
        let mut state = self.lock();
        while state.0.len() >= TASKS_MAX {
            state = self.room.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.0.push_back(task);
        drop(state);
        self.some.notify_one();
    }

    /// No more tasks will come: lanes end when the queue is empty.
    pub fn close(&self) {
        self.lock().1 = true;
        self.some.notify_all();
    }

    fn pop(&self) -> Option<Task> {
        let mut state = self.lock();
        loop {
            if let Some(task) = state.0.pop_front() {
                if state.0.len() + 1 == TASKS_MAX {
                    self.room.notify_one();
                }
                return Some(task);
            }
            if state.1 {
                return None;
            }
            state = self.some.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// Starts `count` lanes, which end when the queue is closed and empty. After an error the queue is closed.
pub fn start<'scope, 'env: 'scope>(
    scope: &'scope Scope<'scope, 'env>,
    count: usize,
    job: &'env Job,
    client: &'env Client,
    keys: &'env Keys,
    queue: &'env Queue,
) -> Result<(), RestoreFault> {
    for _ in 0..count {
        let spawned = match Lane::new(job, client, keys) {
            None => Err("memory"),
            Some(mut lane) => std::thread::Builder::new()
                .stack_size(STACK_BYTES)
                .spawn_scoped(scope, move || lane.run(queue))
                .map_err(|_| "threads"),
        };
        if let Err(what) = spawned {
            queue.close();
            return Err(RestoreFault::Resources(what));
        }
    }
    Ok(())
}

/// A lane's own state.
struct Lane<'a> {
    job: &'a Job,
    client: &'a Client,
    keys: &'a Keys,
    fetched: Vec<u8>,
    plain: Vec<u8>,
    /// Whether each wanted block of a frame is what its row says.
    holds: Vec<bool>,
    decompressor: Decompressor,
    key: Option<(ObjectId, ObjectKey)>,
    /// Aligned memory for direct writes, made for the first one.
    aligned: Option<Pool>,
}

impl<'a> Lane<'a> {
    /// `None` when there is no memory.
    fn new(job: &'a Job, client: &'a Client, keys: &'a Keys) -> Option<Lane<'a>> {
        let decompressor = Decompressor::new()?;
        Some(Lane {
            job,
            client,
            keys,
            fetched: Vec::new(),
            plain: Vec::new(),
            holds: Vec::new(),
            decompressor,
            key: None,
            aligned: None,
        })
    }

    /// Works until the queue is closed and empty. When the restore ends early, tasks are only taken off.
    fn run(&mut self, queue: &Queue) {
        while let Some(task) = queue.pop() {
            match task {
                Task::Fetch(window, index) => self.fetch(&window, &window.plan.fetches[index]),
                Task::Zeros(file, offset, len) => {
                    if !self.job.is_over() {
                        file.write(self.job, "write", len, |fd| write_zeros(fd, offset, len));
                        self.job.progress.bytes_done.add(len);
                    }
                    file.done(self.job, 1);
                }
                Task::Finish(file) => file.done(self.job, 1),
            }
        }
    }

    fn fetch(&mut self, window: &Window, fetch: &Fetch) {
        let mut fetched = std::mem::take(&mut self.fetched);
        fetched.clear();
        let range = ByteRange::From { offset: fetch.offset.into(), len: fetch.bytes.into() };
        let there = self.get(fetch, range, false, &mut fetched) || self.get(fetch, range, true, &mut fetched);
        for frame in window.plan.frames_of(fetch) {
            let at = (frame.offset - fetch.offset) as usize;
            let end = (at + frame.bytes as usize).min(fetched.len());
            let bytes = fetched.get_mut(at..end).unwrap_or_default();
            let whole = bytes.len() == frame.bytes as usize;
            if !there {
                self.missing(window, fetch, frame, false);
            } else if !whole || self.frame(window, fetch, frame, bytes, false).is_err() {
                self.once_more(window, fetch, frame);
            }
            let blocks = window.plan.blocks_of(frame);
            for group in blocks.chunk_by(|a, b| a.file == b.file) {
                window.files[group[0].file as usize].done(self.job, group.len() as u64);
            }
        }
        self.fetched = fetched;
    }

    /// Fetches a frame by itself, from another connection: what is wrong with it now is damage.
    fn once_more(&mut self, window: &Window, fetch: &Fetch, frame: &Frame) {
        let mut bytes = Vec::new();
        let range = ByteRange::From { offset: frame.offset.into(), len: frame.bytes.into() };
        let there = self.get(fetch, range, true, &mut bytes);
        if !there || bytes.len() < frame.bytes as usize {
            self.missing(window, fetch, frame, there);
        } else if let Err(what) = self.frame(window, fetch, frame, &mut bytes, true) {
            self.damaged(window, fetch, frame, what);
        }
    }

    /// Gets bytes of an object; `false` when it is missing, or the restore ends early. What else fails ends the restore.
    fn get(&self, fetch: &Fetch, range: ByteRange, afresh: bool, out: &mut Vec<u8>) -> bool {
        if self.job.is_over() {
            return false;
        }
        self.job.progress.gets.add(1);
        let key = fetch.object.object_key();
        let got = match afresh {
            true => self.client.get_afresh(&key, range, out),
            false => self.client.get(&key, range, out),
        };
        match got {
            Ok(_) => {
                self.job.progress.bytes_read.add(out.len() as u64);
                true
            }
            Err(fault) if fault.kind == StoreFaultKind::NotFound => false,
            Err(fault) => {
                self.job.fail(RestoreFault::Store(fault));
                false
            }
        }
    }

    /// Opens a frame and writes the blocks that are wanted of it: all or none of them, but the `last` time, when those that hold are written
    /// and the others are reported.
    fn frame(
        &mut self,
        window: &Window,
        fetch: &Fetch,
        frame: &Frame,
        bytes: &mut [u8],
        last: bool,
    ) -> Result<(), FormatFault> {
        let key = match self.key.take() {
            Some((of, key)) if of == fetch.object => key,
            _ => self.keys.object(&fetch.object),
        };
        let opened = frame::open(bytes, &key, frame.offset.into());
        self.key = Some((fetch.object, key));
        let opened = opened?;
        let plain = if opened.zstd {
            self.plain.resize(opened.raw_len, 0);
            opened.plain(&mut self.decompressor, &mut self.plain)?;
            &self.plain[..]
        } else {
            opened.body
        };
        let bytes_of = |block: &PlannedBlock| {
            let from = block.inner_offset as usize;
            plain.get(from..from + block.len as usize)
        };
        let differs = FormatFault::damaged("block", "digest differs");
        self.holds.clear();
        for block in window.plan.blocks_of(frame) {
            let holds = bytes_of(block).is_some_and(|bytes| self.keys.digest(bytes) == block.digest);
            if !holds && !last {
                return Err(differs);
            }
            self.holds.push(holds);
        }
        self.job.progress.bytes_packed.add(plain.len() as u64);
        for (block, &holds) in window.plan.blocks_of(frame).iter().zip(&self.holds) {
            let file = &window.files[block.file as usize];
            match bytes_of(block).filter(|_| holds) {
                Some(bytes) => {
                    let runs = &window.runs[block.runs.0 as usize..block.runs.1 as usize];
                    let aligned = &mut self.aligned;
                    file.write(self.job, "write", u64::from(block.len), |fd| match file.direct() {
                        Some(direct) => write_direct(fd, direct, aligned, block.offset, bytes),
                        None => write_block(fd, block, runs, bytes),
                    });
                    self.job.progress.bytes_done.add(u64::from(block.len));
                }
                None => self.fault(file, fetch, frame, block, differs),
            }
        }
        Ok(())
    }

    fn fault(&self, file: &File, fetch: &Fetch, frame: &Frame, block: &PlannedBlock, what: FormatFault) {
        let (object, frame_offset, offset) = (fetch.object, frame.offset, block.offset);
        if file.damage() {
            self.job.faults.add(file.path(), Reason::Damaged { object, frame_offset, offset, what });
        }
    }

    fn damaged(&self, window: &Window, fetch: &Fetch, frame: &Frame, what: FormatFault) {
        for block in window.plan.blocks_of(frame) {
            self.fault(&window.files[block.file as usize], fetch, frame, block, what);
        }
    }

    /// A frame that is not there, with its object or, when that `is_short`, behind the object's end.
    fn missing(&self, window: &Window, fetch: &Fetch, frame: &Frame, is_short: bool) {
        if self.job.is_over() {
            return;
        }
        let object = fetch.object;
        for block in window.plan.blocks_of(frame) {
            let file = &window.files[block.file as usize];
            if file.damage() {
                let offset = block.offset;
                let reason = match is_short {
                    true => Reason::Short { object, offset },
                    false => Reason::Missing { object, offset },
                };
                self.job.faults.add(file.path(), reason);
            }
        }
    }
}

/// Writes what of a block is data: all of it, or its runs.
fn write_block(fd: &OwnedFd, block: &PlannedBlock, runs: &[(u64, u64)], bytes: &[u8]) -> Result<(), Errno> {
    if runs.is_empty() {
        return write_all(fd, block.offset, bytes);
    }
    for &(offset, len) in runs {
        let from = (offset - block.offset) as usize;
        write_all(fd, offset, &bytes[from..from + len as usize])?;
    }
    Ok(())
}

/// Writes what can be written directly that way, and the rest through the page cache.
fn write_direct(
    fd: &OwnedFd,
    direct: &OwnedFd,
    aligned: &mut Option<Pool>,
    offset: u64,
    bytes: &[u8],
) -> Result<(), Errno> {
    let fits = offset.is_multiple_of(DIRECT_ALIGN_BYTES as u64);
    let whole = if fits { bytes.len() - bytes.len() % DIRECT_ALIGN_BYTES } else { 0 };
    let (whole, rest) = bytes.split_at(whole);
    let pool = aligned.get_or_insert_with(|| Pool::new(1, DIRECT_BYTES));
    let mut buf = pool.take().ok_or(Errno::NOMEM)?;
    for (index, piece) in whole.chunks(DIRECT_BYTES).enumerate() {
        buf[..piece.len()].copy_from_slice(piece);
        write_all(direct, offset + (index * DIRECT_BYTES) as u64, &buf[..piece.len()])?;
    }
    write_all(fd, offset + whole.len() as u64, rest)
}

fn write_all(fd: &OwnedFd, mut offset: u64, mut bytes: &[u8]) -> Result<(), Errno> {
    while !bytes.is_empty() {
        match rustix::io::pwrite(fd, bytes, offset) {
            Ok(0) => return Err(Errno::IO),
            Ok(n) => {
                bytes = &bytes[n..];
                offset += n as u64;
            }
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// Writes zero bytes.
pub(super) fn write_zeros(fd: &OwnedFd, offset: u64, len: u64) -> Result<(), Errno> {
    let mut at = 0;
    while at < len {
        let n = (len - at).min(ZEROS_BYTES as u64);
        write_all(fd, offset + at, &ZEROS[..n as usize])?;
        at += n;
    }
    Ok(())
}
