//! Restore lanes: threads that fetch, open, verify and write, and finish files and directories.
//!
//! ```text
//!  task   Fetch   one ranged GET: every block of it that can be verified is written (`read::fetch`)
//!         Zeros   data that is zero: written as such, so that it is allocated as it was
//!         Compare blocks that the target may have: those that it has are done (`compare`)
//!         ZeroOver  a range of a file that was there, which is to read as zero
//!         Finish  files of which nothing is left to be written
//! ```
//!
//! A lane blocks on the store, so there are more lanes than cores; decoding is spread by the scheduler. Each lane has one set
//! of buffers. Source: ours; `agent/doc/architecture.md`, Restore.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::Scope;

use windlass_hal::tree::{Errno, Node};

use super::compare::{self, Comparing};
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
/// Most files of one [`Task::Finish`]: waking a lane costs more than finishing a small file.
pub const FINISH_FILES_MAX: usize = 16;
/// Stack of a lane: nothing of size is on it, and the memory counts.
const STACK_BYTES: usize = 256 << 10;
/// A window of files: what is fetched for them, and who wants it.
pub struct Window<N> {
    /// Fetches, frames, blocks.
    pub plan: Plan,
    /// The files that `PlannedBlock::file` counts in.
    pub files: Vec<Arc<File<N>>>,
    /// Byte ranges of files that are data; `PlannedBlock::runs` are ranges of it.
    pub runs: Vec<(u64, u64)>,
    /// Lets the walk go on when the window is done.
    pub gate: Arc<Gate>,
}

impl<N> Drop for Window<N> {
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
pub enum Task<N> {
    /// A fetch of a window's plan.
    Fetch(Arc<Window<N>>, usize),
    /// Zero bytes of a file: offset, length.
    Zeros(Arc<File<N>>, u64, u64),
    /// Some blocks of a window, to be compared with the target.
    Compare(Arc<Comparing<N>>, Range<usize>),
    /// A range (offset, length) of a file that was there, which is to read as zero, allocated or not.
    ZeroOver(Arc<File<N>>, (u64, u64), bool),
    /// Files of which nothing is left to be written: at most [`FINISH_FILES_MAX`].
    Finish(Vec<Arc<File<N>>>),
}

/// Who does the tasks.
pub enum Crew<'c> {
    /// So many threads.
    Lanes(usize),
    /// The thread of the walk, in an order that is asked for: of so many choices, which one. For simulations.
    Walk(&'c mut dyn FnMut(usize) -> usize),
}

/// The bounded queue between the walk and the lanes.
pub struct Queue<N> {
    state: Mutex<(VecDeque<Task<N>>, bool)>,
    some: Condvar,
    room: Condvar,
}

impl<N> Queue<N> {
    fn new() -> Queue<N> {
        let state = Mutex::new((VecDeque::new(), false));
        Queue { state, some: Condvar::new(), room: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, (VecDeque<Task<N>>, bool)> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// No more tasks will come: lanes end when the queue is empty.
    fn close(&self) {
        self.lock().1 = true;
        self.some.notify_all();
    }

    fn pop(&self) -> Option<Task<N>> {
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

/// What the walk gives its tasks to.
pub trait Hands<N> {
    /// Gives it a task.
    fn push(&self, task: Task<N>);

    /// Before a thread waits for tasks to be done.
    fn make_room(&self);
}

impl<N> Hands<N> for Queue<N> {
    /// Waits while [`TASKS_MAX`] are waiting.
    fn push(&self, task: Task<N>) {
        let mut state = self.lock();
        while state.0.len() >= TASKS_MAX {
            state = self.room.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.0.push_back(task);
        drop(state);
        self.some.notify_one();
    }

    fn make_room(&self) {}
}

/// Tasks of a walk without lanes.
struct Own<'h, N> {
    lane: Lane<'h, N>,
    waiting: Vec<Task<N>>,
    choose: &'h mut dyn FnMut(usize) -> usize,
}

impl<N: Node> Own<'_, N> {
    /// Does waiting tasks in any order until `enough` says so, of how many are waiting and which one is next.
    fn work(&mut self, enough: impl Fn(usize, usize) -> bool) {
        loop {
            let waiting = self.waiting.len();
            let next = (self.choose)(waiting + 1).min(waiting);
            if waiting == 0 || enough(waiting, next) {
                return;
            }
            let task = self.waiting.swap_remove(next.min(waiting - 1));
            self.lane.task(task);
        }
    }
}

impl<N: Node> Hands<N> for RefCell<Own<'_, N>> {
    fn push(&self, task: Task<N>) {
        let mut own = self.borrow_mut();
        own.waiting.push(task);
        own.work(|waiting, next| waiting < TASKS_MAX && next == waiting);
    }

    /// No other lane will do them.
    fn make_room(&self) {
        self.borrow_mut().work(|_, _| false);
    }
}

/// Has `walk` give its tasks to a crew; back when all of them are done.
pub fn with<N: Node, R>(
    crew: Crew<'_>,
    job: &Job<N>,
    (client, keys): (&Client, &Keys),
    walk: impl FnOnce(&dyn Hands<N>) -> Result<R, RestoreFault>,
) -> Result<R, RestoreFault> {
    match crew {
        Crew::Walk(choose) => {
            let lane = Lane::new(job, client, keys).ok_or(RestoreFault::Resources("memory"))?;
            let own = RefCell::new(Own { lane, waiting: Vec::new(), choose });
            let walked = walk(&own);
            own.make_room();
            walked
        }
        Crew::Lanes(count) => {
            let queue = Queue::new();
            std::thread::scope(|scope| {
                let walked = start(scope, count, job, (client, keys), &queue).and_then(|()| walk(&queue));
                queue.close();
                walked
            })
        }
    }
}

/// Starts `count` lanes, which end when the queue is closed and empty.
fn start<'scope, 'env: 'scope, N: Node>(
    scope: &'scope Scope<'scope, 'env>,
    count: usize,
    job: &'env Job<N>,
    (client, keys): (&'env Client, &'env Keys),
    queue: &'env Queue<N>,
) -> Result<(), RestoreFault> {
    for _ in 0..count {
        let mut lane = Lane::new(job, client, keys).ok_or(RestoreFault::Resources("memory"))?;
        std::thread::Builder::new()
            .stack_size(STACK_BYTES)
            .spawn_scoped(scope, move || lane.run(queue))
            .map_err(|_| RestoreFault::Resources("threads"))?;
    }
    Ok(())
}

/// A lane's own state.
pub struct Lane<'a, N> {
    job: &'a Job<N>,
    keys: &'a Keys,
    fetcher: Fetcher<'a>,
    /// What is read of the target; empty until something is compared.
    read: Vec<u8>,
}

impl<'a, N: Node> Lane<'a, N> {
    /// `None` when there is no memory.
    fn new(job: &'a Job<N>, client: &'a Client, keys: &'a Keys) -> Option<Lane<'a, N>> {
        let fetcher = Fetcher::new(client, keys, &job.progress)?;
        Some(Lane { job, keys, fetcher, read: Vec::new() })
    }

    /// Works until the queue is closed and empty.
    fn run(&mut self, queue: &Queue<N>) {
        while let Some(task) = queue.pop() {
            self.task(task);
        }
    }

    /// Does a task. When the restore ends early, it is only counted.
    fn task(&mut self, task: Task<N>) {
        match task {
            Task::Fetch(window, index) => {
                let fetch = &window.plan.fetches[index];
                let mut writing = Writing { job: self.job, window: &window, object: fetch.object };
                self.fetcher.run(&window.plan, fetch, &mut writing);
            }
            Task::Zeros(file, offset, len) => {
                if !self.job.is_over() {
                    file.write(self.job, "write", len, |file| file.write_zeros(offset, len));
                    self.job.progress.bytes_done.add(len);
                }
                file.done(self.job, 1);
            }
            Task::Compare(comparing, range) => comparing.part(range, self.job, self.keys, &mut self.read),
            Task::ZeroOver(file, range, allocates) => {
                compare::zero(&file, self.job, range, allocates, &mut self.read);
                file.done(self.job, 1);
            }
            Task::Finish(files) => files.iter().for_each(|file| file.finish(self.job)),
        }
    }
}

/// Writes the blocks of a fetch to their files.
struct Writing<'l, N> {
    job: &'l Job<N>,
    window: &'l Window<N>,
    object: ObjectId,
}

impl<N: Node> Blocks for Writing<'_, N> {
    fn is_over(&self) -> bool {
        self.job.is_over()
    }

    fn block(&mut self, frame: &Frame, block: &PlannedBlock, bytes: Result<&[u8], Unread>) {
        let file = &self.window.files[block.file as usize];
        let (object, offset, frame_offset) = (self.object, block.offset, frame.offset);
        let lost = match bytes {
            Ok(bytes) => {
                let runs = &self.window.runs[block.runs.0 as usize..block.runs.1 as usize];
                let write = |file: &N| write_block(file, block, runs, bytes);
                file.write(self.job, "write", u64::from(block.len), write);
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
fn write_block(
    file: &impl Node,
    block: &PlannedBlock,
    runs: &[(u64, u64)],
    bytes: &[u8],
) -> Result<(), Errno> {
    if runs.is_empty() {
        return file.write_at(block.offset, bytes);
    }
    for &(offset, len) in runs {
        let from = (offset - block.offset) as usize;
        file.write_at(offset, &bytes[from..from + len as usize])?;
    }
    Ok(())
}
