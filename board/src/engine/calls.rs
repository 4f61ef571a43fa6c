//! Threads that ask the store for the commit log: beats, claims and commits never wait behind bulk uploads, behind housekeeping, nor
//! behind each other.
//!
//! | lane | calls |
//! |---|---|
//! | lease | grants and beats: what the lease depends on |
//! | log | commits, and reading the log |
//! | keep | checkpoints, boundaries and deletes: nobody waits for them |
//!
//! Each call is performed once; the machines decide what is repeated (C2).
//! Source: `agent/doc/architecture.md`, Threads.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use windlass_agent::log::call::{Answer, Call, CallId, Lane, perform};
use windlass_agent::log::limits::REPLAY_GETS_MAX;
use windlass_agent::log::session::{Done, Hands};
use windlass_agent::store::{Store, StoreFault};

use crate::failure::Failure;

/// Threads for the lease: a beat, and the look for a higher epoch that follows each commit.
const LEASE_THREADS: usize = 2;
/// Threads for housekeeping: as slow as it may be, and faster than commits make work for it.
const KEEP_THREADS: usize = 2;
/// Threads that read the log when it is opened: as many as a replay has calls open.
const READ_THREADS: usize = REPLAY_GETS_MAX;
/// Stack of each, in bytes: TLS and HTTP, as in the uplink's.
const STACK_BYTES: usize = 512 << 10;

/// The caller's end; `T` names a call. The threads end when it is dropped, each after its call.
pub struct Calls<T> {
    lease: Sender<(T, Call)>,
    log: Sender<(T, Call)>,
    keep: Sender<(T, Call)>,
}

impl<T: Send + 'static> Calls<T> {
    /// Starts the threads, `log_threads` of them for the log. `tell` hears each answer, with the store's words when it failed.
    pub fn start(
        store: &Arc<dyn Store>,
        log_threads: usize,
        tell: impl Fn(T, Answer, Option<StoreFault>) + Clone + Send + 'static,
    ) -> Result<Calls<T>, Failure> {
        Calls::with(store, [LEASE_THREADS, log_threads, KEEP_THREADS], tell)
    }

    /// With so many threads for each of lease, log and keep. What is submitted to a lane without any has no answer.
    fn with(
        store: &Arc<dyn Store>,
        threads: [usize; 3],
        tell: impl Fn(T, Answer, Option<StoreFault>) + Clone + Send + 'static,
    ) -> Result<Calls<T>, Failure> {
        let lane = |name: &str, threads: usize| {
            let (ask, asked) = channel();
            let asked = Arc::new(Mutex::new(asked));
            for number in 0..threads {
                let (asked, store, tell) = (Arc::clone(&asked), Arc::clone(store), tell.clone());
                std::thread::Builder::new()
                    .name(format!("{name}-{number}"))
                    .stack_size(STACK_BYTES)
                    .spawn(move || serve(&asked, &*store, &tell))
                    .map_err(|error| Failure::at("cannot start a thread", error))?;
            }
            Ok(ask)
        };
        let [lease, log, keep] = threads;
        Ok(Calls { lease: lane("lease", lease)?, log: lane("log", log)?, keep: lane("keep", keep)? })
    }

    /// Performs a call. The machines keep a bounded number of calls open.
    pub fn submit(&self, id: T, call: Call) {
        let lane = match call.lane() {
            Lane::Lease => &self.lease,
            Lane::Log => &self.log,
            Lane::Keep => &self.keep,
        };
        // The threads live as long as this end does.
        let _ = lane.send((id, call));
    }
}

fn serve<T>(
    asked: &Mutex<Receiver<(T, Call)>>,
    store: &dyn Store,
    tell: &impl Fn(T, Answer, Option<StoreFault>),
) {
    loop {
        let next = asked.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok((id, call)) = next else { return };
        let (answer, fault) = perform(store, &call);
        tell(id, answer, fault);
    }
}

/// The same for a session of a command.
pub struct SessionCalls {
    calls: Calls<(u32, CallId)>,
    answers: Receiver<Done>,
}

impl SessionCalls {
    /// Starts the threads of a session.
    pub fn start(store: &Arc<dyn Store>) -> Result<SessionCalls, Failure> {
        SessionCalls::with(store, [LEASE_THREADS, 1, KEEP_THREADS])
    }

    /// Starts the threads of a reader, which asks for the log, and for a beat.
    pub fn reading(store: &Arc<dyn Store>) -> Result<SessionCalls, Failure> {
        SessionCalls::with(store, [1, READ_THREADS, 0])
    }

    fn with(store: &Arc<dyn Store>, threads: [usize; 3]) -> Result<SessionCalls, Failure> {
        let (tell, answers) = channel();
        let tell = move |(round, id), answer, fault| {
            // Nobody listens any more: the session is over.
            let _ = tell.send(Done { round, id, answer, fault });
        };
        Ok(SessionCalls { calls: Calls::with(store, threads, tell)?, answers })
    }
}

impl Hands for SessionCalls {
    fn submit(&mut self, round: u32, id: CallId, call: Call) {
        self.calls.submit((round, id), call);
    }

    fn take(&mut self, patience: Duration) -> Option<Done> {
        self.answers.recv_timeout(patience).ok()
    }
}
