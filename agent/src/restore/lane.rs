//! Restore lanes: threads that fetch, open, verify and write, and finish files and directories.
//!
//! ```text
//!  task   Fetch   one ranged GET: every block of it that can be verified is written (`read::fetch`)
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
use crate::format::seal::Keys;
use crate::id::ObjectId;
use crate::read::decode::Unread;
use crate::read::fetch::{Blocks, Fetcher};
use crate::read::plan::{Frame, Plan, PlannedBlock};
use crate::store::StoreFault;
use crate::store::retry::Client;

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
    fetcher: Fetcher<'a>,
    /// Aligned memory for direct writes, made for the first one.
    aligned: Option<Pool>,
}

impl<'a> Lane<'a> {
    /// `None` when there is no memory.
    fn new(job: &'a Job, client: &'a Client, keys: &'a Keys) -> Option<Lane<'a>> {
        Some(Lane { job, fetcher: Fetcher::new(client, keys, &job.progress)?, aligned: None })
    }

    /// Works until the queue is closed and empty. When the restore ends early, tasks are only taken off.
    fn run(&mut self, queue: &Queue) {
        while let Some(task) = queue.pop() {
            match task {
                Task::Fetch(window, index) => {
                    let fetch = &window.plan.fetches[index];
                    let (job, aligned, object) = (self.job, &mut self.aligned, fetch.object);
                    let mut writing = Writing { job, window: &window, object, aligned };
                    self.fetcher.run(&window.plan, fetch, &mut writing);
                }
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
}

/// Writes the blocks of a fetch to their files.
struct Writing<'l> {
    job: &'l Job,
    window: &'l Window,
    object: ObjectId,
    aligned: &'l mut Option<Pool>,
}

impl Blocks for Writing<'_> {
    fn is_over(&self) -> bool {
        self.job.is_over()
    }

    fn block(&mut self, frame: &Frame, block: &PlannedBlock, bytes: Result<&[u8], Unread>) {
        let file = &self.window.files[block.file as usize];
        let (object, offset, frame_offset) = (self.object, block.offset, frame.offset);
        let lost = match bytes {
            Ok(bytes) => {
                let runs = &self.window.runs[block.runs.0 as usize..block.runs.1 as usize];
                let aligned = &mut *self.aligned;
                file.write(self.job, "write", u64::from(block.len), |fd| match file.direct() {
                    Some(direct) => write_direct(fd, direct, aligned, offset, bytes),
                    None => write_block(fd, block, runs, bytes),
                });
                self.job.progress.bytes_done.add(u64::from(block.len));
                None
            }
            Err(Unread::Damaged(what)) => Some(Reason::Damaged { object, frame_offset, offset, what }),
            Err(Unread::Short { .. }) => Some(Reason::Short { object, offset }),
            Err(Unread::Missing) => Some(Reason::Missing { object, offset }),
            // The restore is over, so the file gets no name anyway.
            Err(Unread::Ended) => None,
        };
        if let Some(reason) = lost
            && file.damage()
        {
            self.job.faults.add(file.path(), reason);
        }
        file.done(self.job, 1);
    }

    fn fail(&mut self, fault: StoreFault) {
        self.job.fail(RestoreFault::Store(fault));
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
