//! The fixed set of threads that block on a store, and the two queues between them and a loop.
//!
//! ```text
//!  loop --submit--> [ jobs, bounded ] --> thread 0..n: Client call --> [ done, bounded ] --take_done--> loop
//!                                                                          |
//!                                                                          +-- wake(): eventfd, mio waker, condvar
//! ```
//!
//! Invariants
//! - Accepted means exactly one [`Done`] follows; refused means the job comes back now, untouched. Jobs accepted and not
//!   yet taken as done never exceed `in_flight_max`, so neither queue can overflow and no thread waits for the loop.
//! - Buffers and bodies come back with the completion, also with a failed one.
//! - A failed job is an answer, never the end of its thread.
//!
//! - Jobs that go first ([`Uplink::submit_first`]) have a thread of their own besides those of `threads`, and those take them
//!   before others too: what names stored objects is never behind objects that are still to be sent.
//!
//! Does not: order jobs (they finish in any order), or repeat (that is the client's). Commits and beats have threads of their
//! own (`board/src/engine/calls.rs`).
//! Source: ours; `agent/doc/architecture.md`, Threads.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use windlass_hal::buf::Buf;

use super::retry::Client;
use super::{ByteRange, StoreFault, StoreFaultKind};

/// What a PUT sends: the parts, in order, for as long as the call lasts. May be asked more than once (repeats).
pub trait Body: Send + Sync {
    /// Calls `f` once with the parts.
    fn with_parts(&self, f: &mut dyn FnMut(&[&[u8]]));
}

impl Body for Vec<u8> {
    fn with_parts(&self, f: &mut dyn FnMut(&[&[u8]])) {
        f(&[self.as_slice()]);
    }
}

/// Which of the client's PUTs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PutHow {
    /// [`Client::put_unique`].
    Unique,
    /// [`Client::put_slot`].
    Slot,
    /// [`Client::put_replace`].
    Replace,
}

/// Memory for the bytes of a GET.
#[derive(Debug)]
pub enum Landing {
    /// Appended to the vector.
    Vec(Vec<u8>),
    /// Written from the buffer's start. A range that does not fit is refused before anything is sent.
    Buf(Buf),
}

/// One call to the store. The caller chooses `tag`; it is returned unchanged.
pub enum Job {
    /// Store an object.
    Put {
        /// Returned with the answer.
        tag: u64,
        /// Key of the object.
        key: String,
        /// Which call of the client stores it.
        how: PutHow,
        /// Bytes of the object.
        body: Arc<dyn Body>,
    },
    /// Read an object or a piece of it.
    Get {
        /// Returned with the answer.
        tag: u64,
        /// Key of the object.
        key: String,
        /// Which bytes to read.
        range: ByteRange,
        /// Memory for them.
        into: Landing,
    },
    /// List up to `limit` keys.
    List {
        /// Returned with the answer.
        tag: u64,
        /// Keys start with it.
        prefix: String,
        /// Keys are greater than it.
        after: String,
        /// Keys at most, which bounds the answer's memory.
        limit: usize,
    },
    /// Delete an object.
    Delete {
        /// Returned with the answer.
        tag: u64,
        /// Key of the object.
        key: String,
    },
}

/// The answer to one job.
#[derive(Debug)]
pub struct Done {
    /// The job's.
    pub tag: u64,
    /// What came of it.
    pub answer: Answer,
}

/// What came of a job, with what it was given.
pub enum Answer {
    /// Of a `Put`.
    Put {
        /// The body, for its buffers.
        body: Arc<dyn Body>,
        /// The client's answer.
        result: Result<(), StoreFault>,
    },
    /// Of a `Get`.
    Get {
        /// The bytes; as it was given when the call failed (a `Buf` may have lost its contents).
        into: Landing,
        /// Bytes delivered, and the size of the whole object.
        result: Result<Got, StoreFault>,
    },
    /// Of a `List`: keys and sizes, ascending.
    List {
        /// At most `limit`; fewer mean that there are no more.
        result: Result<Vec<(String, u64)>, StoreFault>,
    },
    /// Of a `Delete`.
    Delete {
        /// The client's answer.
        result: Result<(), StoreFault>,
    },
}

impl std::fmt::Debug for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Answer::Put { result, .. } => write!(f, "Put({result:?})"),
            Answer::Get { result, .. } => write!(f, "Get({result:?})"),
            Answer::List { result } => write!(f, "List({:?})", result.as_ref().map(Vec::len)),
            Answer::Delete { result } => write!(f, "Delete({result:?})"),
        }
    }
}

/// How much a GET brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Got {
    /// Bytes that landed.
    pub len: usize,
    /// Size of the whole object in bytes.
    pub object_bytes: u64,
}

/// Sizes of an uplink.
#[derive(Clone, Copy, Debug)]
pub struct UplinkSettings {
    /// Threads, each blocking on one call at a time; one more is for jobs that go first alone.
    pub threads: usize,
    /// Jobs accepted and not yet taken as done, at most.
    pub in_flight_max: usize,
    /// Stack of each thread in bytes.
    pub stack_bytes: usize,
}

impl Default for UplinkSettings {
    /// 4 threads, 16 jobs, 512 KiB stacks: four times what a TLS handshake and a PUT are tested to get by with.
    fn default() -> UplinkSettings {
        UplinkSettings { threads: 4, in_flight_max: 16, stack_bytes: 512 * 1024 }
    }
}

#[derive(Default)]
struct State {
    first: VecDeque<Job>,
    jobs: VecDeque<Job>,
    done: VecDeque<Done>,
    /// Accepted and not yet taken.
    in_flight: usize,
    closing: bool,
}

struct Shared {
    client: Arc<Client>,
    wake: Arc<dyn Fn() + Send + Sync>,
    state: Mutex<State>,
    job_ready: Condvar,
    first_ready: Condvar,
    done_ready: Condvar,
}

impl State {
    /// The next job, or the next of those that go first.
    fn next(&mut self, first_only: bool) -> Option<Job> {
        self.first.pop_front().or_else(|| if first_only { None } else { self.jobs.pop_front() })
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The threads and their queues. Shared by reference between any number of submitters.
pub struct Uplink {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    in_flight_max: usize,
}

impl Uplink {
    /// Starts the threads. `wake` is called after every completion, from an uplink thread; it must not block.
    ///
    /// # Errors
    /// What the system says when it has no thread left; those already started are ended.
    pub fn start(
        client: Arc<Client>,
        settings: UplinkSettings,
        wake: Arc<dyn Fn() + Send + Sync>,
    ) -> io::Result<Uplink> {
        let state = State {
            jobs: VecDeque::with_capacity(settings.in_flight_max),
            done: VecDeque::with_capacity(settings.in_flight_max),
            ..State::default()
        };
        let shared = Arc::new(Shared {
            client,
            wake,
            state: Mutex::new(state),
            job_ready: Condvar::new(),
            first_ready: Condvar::new(),
            done_ready: Condvar::new(),
        });
        let mut uplink = Uplink { shared, threads: Vec::new(), in_flight_max: settings.in_flight_max };
        for index in 0..=settings.threads {
            let shared = Arc::clone(&uplink.shared);
            let builder = Builder::new().name(format!("uplink-{index}")).stack_size(settings.stack_bytes);
            let first_only = index == settings.threads;
            uplink.threads.push(builder.spawn(move || work(&shared, first_only))?);
        }
        Ok(uplink)
    }

    /// Queues a job. `Err` gives it back when `in_flight_max` are under way already, or after [`Uplink::shutdown`] began.
    #[allow(clippy::result_large_err, reason = "the refused job itself, not a fault")]
    pub fn submit(&self, job: Job) -> Result<(), Job> {
        self.queue(job, false)
    }

    /// The same for a job that goes before all others.
    #[allow(clippy::result_large_err, reason = "the refused job itself, not a fault")]
    pub fn submit_first(&self, job: Job) -> Result<(), Job> {
        self.queue(job, true)
    }

    #[allow(clippy::result_large_err, reason = "the refused job itself, not a fault")]
    fn queue(&self, job: Job, first: bool) -> Result<(), Job> {
        let mut state = self.shared.lock();
        if state.closing || state.in_flight >= self.in_flight_max {
            return Err(job);
        }
        state.in_flight += 1;
        if first {
            state.first.push_back(job);
        } else {
            state.jobs.push_back(job);
        }
        drop(state);
        self.shared.job_ready.notify_one();
        if first {
            self.shared.first_ready.notify_one();
        }
        Ok(())
    }

    /// Takes one completion, if there is one. After a wake-up, call until `None`.
    pub fn take_done(&self) -> Option<Done> {
        let mut state = self.shared.lock();
        let done = state.done.pop_front()?;
        state.in_flight -= 1;
        Some(done)
    }

    /// Takes one completion, waiting up to `timeout`; `None` at its end, and at once when nothing is in flight.
    pub fn wait_done(&self, timeout: Duration) -> Option<Done> {
        let state = self.shared.lock();
        let waits = |state: &mut State| state.done.is_empty() && state.in_flight > 0;
        let (mut state, _) = self
            .shared
            .done_ready
            .wait_timeout_while(state, timeout, waits)
            .unwrap_or_else(PoisonError::into_inner);
        let done = state.done.pop_front()?;
        state.in_flight -= 1;
        Some(done)
    }

    /// Jobs accepted and not yet taken as done.
    pub fn in_flight(&self) -> usize {
        self.shared.lock().in_flight
    }

    /// Jobs that could be accepted now.
    pub fn room(&self) -> usize {
        self.in_flight_max - self.in_flight()
    }

    /// The client below.
    pub fn client(&self) -> &Arc<Client> {
        &self.shared.client
    }

    /// Ends the threads and returns the completions not yet taken. Calls under way finish (the client's pauses are cut
    /// short when `stop_client`); jobs not begun are answered with `Rejected`.
    pub fn shutdown(mut self, stop_client: bool) -> Vec<Done> {
        if stop_client {
            self.shared.client.stop();
        }
        self.close();
        for thread in self.threads.drain(..) {
            // A thread that panicked has left no completion; there is nothing more to learn from it here.
            let _ = thread.join();
        }
        let mut state = self.shared.lock();
        state.in_flight = 0;
        state.done.drain(..).collect()
    }

    fn close(&self) {
        let mut state = self.shared.lock();
        state.closing = true;
        while let Some(job) = state.next(false) {
            let done = refuse(job);
            state.done.push_back(done);
        }
        drop(state);
        self.shared.job_ready.notify_all();
        self.shared.first_ready.notify_all();
        self.shared.done_ready.notify_all();
    }
}

impl Drop for Uplink {
    /// Tells the threads to end and does not wait for them.
    fn drop(&mut self) {
        self.close();
    }
}

fn work(shared: &Shared, first_only: bool) {
    let ready = if first_only { &shared.first_ready } else { &shared.job_ready };
    // Bytes on their way into a `Buf`; its capacity is used again.
    let mut scratch = Vec::new();
    loop {
        let state = shared.lock();
        let idle = |state: &mut State| {
            state.first.is_empty() && (first_only || state.jobs.is_empty()) && !state.closing
        };
        let mut state = ready.wait_while(state, idle).unwrap_or_else(PoisonError::into_inner);
        let Some(job) = state.next(first_only) else { return };
        drop(state);
        let done = run(&shared.client, job, &mut scratch);
        shared.lock().done.push_back(done);
        shared.done_ready.notify_one();
        (shared.wake)();
    }
}

fn run(client: &Client, job: Job, scratch: &mut Vec<u8>) -> Done {
    match job {
        Job::Put { tag, key, how, body } => {
            let mut result =
                Err(StoreFault::new(StoreFaultKind::Rejected, "PUT", &key, "the body has no parts"));
            body.with_parts(&mut |parts| {
                result = match how {
                    PutHow::Unique => client.put_unique(&key, parts),
                    PutHow::Slot => client.put_slot(&key, parts),
                    PutHow::Replace => client.put_replace(&key, parts),
                };
            });
            Done { tag, answer: Answer::Put { body, result } }
        }
        Job::Get { tag, key, range, mut into } => {
            let result = get(client, &key, range, &mut into, scratch);
            Done { tag, answer: Answer::Get { into, result } }
        }
        Job::List { tag, prefix, after, limit } => {
            let mut keys = Vec::new();
            let listed = client.list(&prefix, &after, &mut |key, size| {
                if keys.len() < limit {
                    keys.push((key.to_owned(), size));
                }
                keys.len() < limit
            });
            Done { tag, answer: Answer::List { result: listed.map(|()| keys) } }
        }
        Job::Delete { tag, key } => {
            let result = client.delete(&key);
            Done { tag, answer: Answer::Delete { result } }
        }
    }
}

fn get(
    client: &Client,
    key: &str,
    range: ByteRange,
    into: &mut Landing,
    scratch: &mut Vec<u8>,
) -> Result<Got, StoreFault> {
    match into {
        Landing::Vec(bytes) => {
            let start = bytes.len();
            let object_bytes = client.get(key, range, bytes)?;
            Ok(Got { len: bytes.len() - start, object_bytes })
        }
        Landing::Buf(buf) => {
            let room = buf.len() as u64;
            let too_large =
                || StoreFault::new(StoreFaultKind::Rejected, "GET", key, "the range does not fit the buffer");
            let asked = match range {
                ByteRange::Whole(most) if most > room => return Err(too_large()),
                ByteRange::From { len, .. } | ByteRange::Last(len) if len > room => return Err(too_large()),
                fits => fits,
            };
            scratch.clear();
            let object_bytes = client.get(key, asked, scratch)?;
            if scratch.len() > buf.len() {
                return Err(too_large());
            }
            buf[..scratch.len()].copy_from_slice(scratch);
            Ok(Got { len: scratch.len(), object_bytes })
        }
    }
}

fn refuse(job: Job) -> Done {
    let fault = |verb, key: &str| {
        StoreFault::new(StoreFaultKind::Rejected, verb, key, "the uplink was shut down before this began")
    };
    match job {
        Job::Put { tag, key, body, .. } => {
            Done { tag, answer: Answer::Put { body, result: Err(fault("PUT", &key)) } }
        }
        Job::Get { tag, key, into, .. } => {
            Done { tag, answer: Answer::Get { into, result: Err(fault("GET", &key)) } }
        }
        Job::List { tag, prefix, .. } => {
            Done { tag, answer: Answer::List { result: Err(fault("LIST", &prefix)) } }
        }
        Job::Delete { tag, key } => {
            Done { tag, answer: Answer::Delete { result: Err(fault("DELETE", &key)) } }
        }
    }
}
