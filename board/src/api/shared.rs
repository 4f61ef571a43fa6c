//! What the threads of the API share: what the node knows, at most half a second old; counters; events; keys of requests.
//!
//! Any number of questions cost the reactor two looks a second, and the store nothing.
//!
//! Source: ours.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use serde_json::Value;
use windlass_agent::api::metrics::ApiCounts;
use windlass_agent::coordinator::access::{self, OWNER, may_use};
use windlass_agent::id::{Epoch, Slot};
use windlass_agent::log::state::State;
use windlass_agent::work::entry::Role;
use windlass_agent::work::{Command, Reply};

use super::events::Ring;
use super::keep::Keep;
use crate::control::wire::Identity;
use crate::engine::desk::{Ask, Desk, Seen, Told, Untold};
use crate::engine::host::HostClock;
use crate::engine::repository::Repository;

/// How old what is told may be, in nanoseconds.
const FRESH_NS: u64 = 500_000_000;
/// How long the reactor may take to say what it knows.
const LOOK_PATIENCE: Duration = Duration::from_secs(2);
/// How long a coordinator may take to say its status: one that is dead is known to be within six seconds.
const STATUS_PATIENCE: Duration = Duration::from_secs(8);

/// Rules by which connections are closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// All places are taken.
    Full,
    /// Its address has as many as one may.
    Peer,
    /// As many handshakes as may be are under way.
    Handshakes,
    /// Its handshake took too long.
    HandshakeSlow,
    /// What it sent is no TLS, or its certificate is not of the CA.
    Tls,
    /// It asked nothing for too long, or its place was given to another.
    Idle,
    /// It did not take its answer.
    Stalled,
    /// It was told that it sent no request, or too slowly.
    Refused,
}

impl Rule {
    const NAMES: [&str; 8] =
        ["full", "peer", "handshakes", "handshake_slow", "tls", "idle", "stalled", "refused"];
}

/// Counters since the agent started.
#[derive(Debug, Default)]
pub struct Counts {
    /// Connections at present.
    pub connections: AtomicU64,
    /// Connections that were taken.
    pub accepted: AtomicU64,
    /// Events that slow clients missed.
    pub missed: AtomicU64,
    closed: [AtomicU64; 8],
    answers: [AtomicU64; 4],
}

impl Counts {
    /// A connection was closed by rule.
    pub fn closed(&self, rule: Rule) {
        self.closed[rule as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// A request was answered.
    pub fn answered(&self, status: u16) {
        let class = usize::from(status / 100).clamp(2, 5) - 2;
        self.answers[class].fetch_add(1, Ordering::Relaxed);
    }

    /// For the metrics.
    #[must_use]
    pub fn snapshot(&self) -> ApiCounts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let classes = ["2xx", "3xx", "4xx", "5xx"];
        ApiCounts {
            connections: read(&self.connections),
            accepted: read(&self.accepted),
            closed: std::array::from_fn(|nth| (Rule::NAMES[nth], read(&self.closed[nth]))),
            answers: std::array::from_fn(|nth| (classes[nth], read(&self.answers[nth]))),
            missed: read(&self.missed),
        }
    }
}

/// What a node knows.
#[derive(Debug)]
pub struct Snapshot {
    /// As of which epoch and slot its state is.
    pub at: (Epoch, Slot),
    /// The log's state.
    pub state: Arc<State>,
    /// The coordinator's status, or the node's own; null: none was heard yet.
    pub status: Value,
    /// When that was heard, on the clock that never goes back.
    pub status_ns: u64,
    /// It holds the lease.
    pub coordinates: bool,
    /// What waits in its queues.
    pub waits: u64,
    taken_ns: u64,
}

/// A state, and as of when it is.
type Watched = ((Epoch, Slot), Arc<State>);

/// See the module.
pub struct Shared {
    /// The reactor.
    pub desk: Desk,
    /// The repository, for what the node does not know by itself.
    pub repository: Arc<Repository>,
    /// Who the node is.
    pub identity: Identity,
    /// Memory that its profile lets it have, in bytes.
    pub memory_bytes: u64,
    /// When the agent started, in seconds since 1970.
    pub started_secs: i64,
    /// Counters.
    pub counts: Counts,
    /// The OpenAPI document, once it was asked for.
    pub openapi: OnceLock<Vec<u8>>,
    ring: Mutex<Ring>,
    keep: Mutex<Keep>,
    snapshot: Mutex<Option<Arc<Snapshot>>>,
    /// The state whose changes are events.
    watched: Mutex<Option<Watched>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    /// Of an agent that started now, under `boot`.
    #[must_use]
    pub fn new(
        desk: Desk,
        repository: Arc<Repository>,
        identity: Identity,
        memory_bytes: u64,
        boot: u64,
    ) -> Shared {
        Shared {
            desk,
            repository,
            identity,
            memory_bytes,
            started_secs: HostClock.wall_ns().div_euclid(1_000_000_000),
            counts: Counts::default(),
            openapi: OnceLock::new(),
            ring: Mutex::new(Ring::new(boot)),
            keep: Mutex::default(),
            snapshot: Mutex::default(),
            watched: Mutex::default(),
        }
    }

    /// Events.
    pub fn ring(&self) -> MutexGuard<'_, Ring> {
        lock(&self.ring)
    }

    /// Requests with a key.
    pub fn keep(&self) -> MutexGuard<'_, Keep> {
        lock(&self.keep)
    }

    fn look(&self, have: (Epoch, Slot)) -> Result<Seen, Untold> {
        match self.desk.ask(Ask::Look(have), LOOK_PATIENCE)? {
            Told::Seen(seen) => Ok(*seen),
            Told::Reply(_) => Err(Untold::Late),
        }
    }

    /// What the node knows, at most half a second old. Those who ask at once wait for one look.
    ///
    /// # Errors
    /// The reactor does not answer.
    pub fn snapshot(&self) -> Result<Arc<Snapshot>, Untold> {
        let mut slot = lock(&self.snapshot);
        let is_fresh = |known: &Arc<Snapshot>| HostClock.boot_ns().saturating_sub(known.taken_ns) < FRESH_NS;
        if let Some(known) = slot.as_ref().filter(|known| is_fresh(known)) {
            return Ok(Arc::clone(known));
        }
        let before = slot.as_ref();
        let seen = self.look(before.map(|known| known.at).unwrap_or_default())?;
        let state = seen.state.or(before.map(|known| Arc::clone(&known.state))).unwrap_or_default();
        let status = match self.desk.command(OWNER, Command::Status, STATUS_PATIENCE) {
            Ok(Reply::Status(json)) => serde_json::from_str(&json).ok(),
            Ok(Reply::Done(_) | Reply::Refused(_)) | Err(_) => None,
        };
        let now_ns = HostClock.boot_ns();
        let (status, status_ns) = match (status, before) {
            (Some(status), _) => (status, now_ns),
            (None, Some(before)) => (before.status.clone(), before.status_ns),
            (None, None) => (Value::Null, now_ns),
        };
        let (coordinates, waits) = (seen.coordinates, seen.waits as u64);
        let new = Snapshot { at: seen.at, state, status, status_ns, coordinates, waits, taken_ns: now_ns };
        let new = Arc::new(new);
        *slot = Some(Arc::clone(&new));
        Ok(new)
    }

    /// Whether what is about all policies is for a subject.
    ///
    /// # Errors
    /// Nothing is known.
    pub fn sees_all(&self, subject: &str) -> Result<bool, Untold> {
        if subject.split(',').any(|name| name == OWNER) {
            return Ok(true);
        }
        Ok(access::sees_all(&self.snapshot()?.state, subject))
    }

    /// The status as a subject may see it.
    #[must_use]
    pub fn status_for(&self, snapshot: &Snapshot, subject: &str) -> Value {
        if access::sees_all(&snapshot.state, subject) {
            return snapshot.status.clone();
        }
        let command = Command::As { subject: subject.to_owned(), command: Box::new(Command::Status) };
        let shown = access::shown(&snapshot.state, &command, snapshot.status.to_string());
        serde_json::from_str(&shown).unwrap_or(Value::Null)
    }

    /// Something was changed: the next one who asks sees it.
    pub fn forget(&self) {
        let mut slot = lock(&self.snapshot);
        if let Some(known) = slot.take() {
            let Snapshot { at, state, status, status_ns, coordinates, waits, .. } = &*known;
            let (state, status) = (Arc::clone(state), status.clone());
            let (at, status_ns, coordinates, waits) = (*at, *status_ns, *coordinates, *waits);
            *slot =
                Some(Arc::new(Snapshot { at, state, status, status_ns, coordinates, waits, taken_ns: 0 }));
        }
    }

    /// Looks for what has happened since the last call; whether something has.
    pub fn watch(&self) -> bool {
        let mut watched = lock(&self.watched);
        let have = watched.as_ref().map(|(at, _)| *at).unwrap_or_default();
        let Ok(Seen { at, state: Some(state), .. }) = self.look(have) else { return false };
        let before = watched.replace((at, Arc::clone(&state)));
        let Some((_, before)) = before else { return false };
        let mut ring = self.ring();
        let was = ring.next();
        ring.add(&before, &state, HostClock.wall_ns());
        ring.next() > was
    }

    /// Whether a subject may use what needs a role, for a policy or for what is of none.
    ///
    /// # Errors
    /// What it lacks, or that nothing is known.
    pub fn may(&self, subject: &str, role: Role, policy: Option<&str>) -> Result<Result<(), String>, Untold> {
        if subject.split(',').any(|name| name == OWNER) {
            return Ok(Ok(()));
        }
        Ok(may_use(&self.snapshot()?.state, subject, role, policy))
    }
}
