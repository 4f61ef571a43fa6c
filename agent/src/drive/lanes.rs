//! The pack lanes' threads: one per core, a bounded queue of frames in, finished frames out, and a wake-up for the loop.
//!
//! Invariants: every frame that goes in comes out once; the queue is bounded by the frame pool (a frame owns its buffer), so it
//! needs no bound of its own. Threads are made at the start and joined when the lanes are dropped. Source: ours.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle};

use crate::pack::lane::{Job, Lane, Shared};

/// Stack of a lane's thread in bytes. zstd keeps its state on the heap; measured below 32 KiB.
const LANE_STACK_BYTES: usize = 256 << 10;

#[derive(Default)]
struct Queues {
    jobs: VecDeque<Job>,
    done: VecDeque<Job>,
    closing: bool,
}

struct Inner {
    queues: Mutex<Queues>,
    job_ready: Condvar,
    wake: Arc<dyn Fn() + Send + Sync>,
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, Queues> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The threads and their queues.
pub struct Lanes {
    inner: Arc<Inner>,
    threads: Vec<JoinHandle<()>>,
}

impl Lanes {
    /// Starts `count` lanes for frames of at most `frame_bytes` plain bytes; `wake` is called after each frame.
    pub fn start(
        count: usize,
        shared: &Arc<Shared>,
        frame_bytes: usize,
        wake: Arc<dyn Fn() + Send + Sync>,
    ) -> std::io::Result<Lanes> {
        let inner = Arc::new(Inner { queues: Mutex::default(), job_ready: Condvar::new(), wake });
        let mut lanes = Lanes { inner, threads: Vec::new() };
        for index in 0..count {
            let (inner, mut lane) = (Arc::clone(&lanes.inner), Lane::new(Arc::clone(shared), frame_bytes));
            let name = format!("lane-{index}");
            let thread = Builder::new()
                .name(name)
                .stack_size(LANE_STACK_BYTES)
                .spawn(move || run(&inner, &mut lane))?;
            lanes.threads.push(thread);
        }
        Ok(lanes)
    }

    /// Gives a frame to the next free lane.
    pub fn submit(&self, job: Job) {
        self.inner.lock().jobs.push_back(job);
        self.inner.job_ready.notify_one();
    }

    /// A frame that is done.
    pub fn take_done(&self) -> Option<Job> {
        self.inner.lock().done.pop_front()
    }
}

fn run(inner: &Inner, lane: &mut Lane) {
    loop {
        let mut queues = inner.lock();
        let mut job = loop {
            if let Some(job) = queues.jobs.pop_front() {
                break job;
            }
            if queues.closing {
                return;
            }
            queues = inner.job_ready.wait(queues).unwrap_or_else(PoisonError::into_inner);
        };
        drop(queues);
        lane.run(&mut job);
        inner.lock().done.push_back(job);
        (inner.wake)();
    }
}

impl Drop for Lanes {
    fn drop(&mut self) {
        self.inner.lock().closing = true;
        self.inner.job_ready.notify_all();
        for thread in self.threads.drain(..) {
            // A lane that panicked has aborted the process already.
            let _ = thread.join();
        }
    }
}
