//! Calls to the store as values, their answers, and the book of those under way.
//!
//! A machine submits calls; a driver takes them, performs each exactly once (one attempt, no repeats: the machines decide what may be
//! repeated, rule C2), and hands the answer back under the same id. Ids are never reused, so a late or double answer finds
//! nothing and is counted.
//!
//! Invariants: a call is in exactly one of: queued, open, parked. Does not: wait or repeat by itself. Source: ours.

use std::collections::VecDeque;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use super::keys;
use super::limits::{BACKOFF_FIRST_NS, BACKOFF_LAST_NS, LEASE_CALLS};
use crate::format::copies;
use crate::format::slot::{Claim, LOG_MAGIC, whole};
use crate::store::{
    ByteRange, CONDITIONAL_BODY_BYTES_MAX, PutMode, Store, StoreFault, StoreFaultKind, is_of_lease,
};

/// Names one call of one machine; never reused within a writer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallId(pub u64);

/// Bytes that are sent more than once at times.
pub type Body = Arc<[u8]>;

/// What to ask the store.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Call {
    /// Read the whole object. Answers: `Body`, `Absent`, `Fault`.
    Get {
        /// Its key.
        key: String,
    },
    /// Create-only PUT. Answers: `Done`, `Fault` (`Exists` when the key is taken).
    Create {
        /// Its key.
        key: String,
        /// Its bytes.
        body: Body,
    },
    /// PUT of what no other process decides: plain, or create-only where the name says that it is unique. Answers: `Done`, `Fault`.
    Put {
        /// Its key.
        key: String,
        /// Its bytes.
        body: Body,
    },
    /// The greatest keys below a prefix, ascending. Answers: `Keys`, `Fault`.
    Last {
        /// The prefix.
        prefix: &'static str,
        /// How many at most.
        max: usize,
    },
    /// The first keys below a prefix that are greater than `after`, ascending. Answers: `Keys`, `Fault`.
    Above {
        /// The prefix.
        prefix: &'static str,
        /// A key, which need not exist.
        after: String,
        /// How many at most.
        max: usize,
    },
    /// The first keys below a prefix, ascending. Answers: `Keys`, `Fault`.
    List {
        /// The prefix.
        prefix: &'static str,
        /// How many at most.
        max: usize,
    },
    /// Delete; an absent key is success. Answers: `Done`, `Fault`.
    Delete {
        /// Its key.
        key: String,
    },
}

/// Calls that never wait behind those of another lane, by whichever thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Lane {
    /// What the lease depends on: grants and beats.
    Lease,
    /// What commits and readers of the log wait for.
    Log,
    /// Housekeeping, which nothing waits for: checkpoints, boundaries, deletes.
    Keep,
}

impl Call {
    /// Where it belongs.
    pub fn lane(&self) -> Lane {
        match self {
            Call::Get { key } | Call::Create { key, .. } | Call::Put { key, .. } if is_of_lease(key) => {
                Lane::Lease
            }
            Call::Get { .. } | Call::Create { .. } | Call::Last { .. } | Call::Above { .. } => Lane::Log,
            Call::Put { .. } | Call::List { .. } | Call::Delete { .. } => Lane::Keep,
        }
    }
}

/// What the store said.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Answer {
    /// Written, created, or deleted.
    Done,
    /// Contents.
    Body(Vec<u8>),
    /// No such key.
    Absent,
    /// Keys, ascending.
    Keys(Vec<String>),
    /// It failed, or it is not known.
    Fault(StoreFaultKind),
}

/// Performs a call, once; blocks. Objects are stored as two copies (`format::copies`), which no machine knows of. Also returns the store's own words when it failed, for the log.
pub fn perform(store: &dyn Store, call: &Call) -> (Answer, Option<StoreFault>) {
    if let Some(lease_ns) = lease_sought(call) {
        store.set_lease_deadline(lease_ns / (LEASE_CALLS * 1_000_000));
    }
    let result = match call {
        Call::Get { key } => {
            let mut out = Vec::new();
            store.get(key, ByteRange::Whole(keys::bytes_max(key)), &mut out).map(|_| {
                // What has no whole copy goes on as it is, for the machine that asked to say what is wrong with it.
                Answer::Body(copies::pick(&out, LOG_MAGIC, whole).map_or(out.clone(), <[u8]>::to_vec))
            })
        }
        Call::Create { key, body } => {
            store.put(key, &[body, body], PutMode::CreateOnly).map(|()| Answer::Done)
        }
        Call::Put { key, body } => {
            let put = store.put(key, &[body, body], mode_of(key, body));
            // The name has a random number in it: what exists there is what an unanswered attempt of ours has left.
            let is_ours = |fault: &StoreFault| fault.kind == StoreFaultKind::Exists;
            put.or_else(|fault| if is_ours(&fault) { Ok(()) } else { Err(fault) }).map(|()| Answer::Done)
        }
        Call::Last { prefix, max } => {
            let mut last = VecDeque::new();
            let listed = store.list(prefix, "", &mut |key, _| {
                if !keys::is_foreign(key, prefix) {
                    last.push_back(key.to_owned());
                }
                if last.len() > *max {
                    last.pop_front();
                }
                true
            });
            listed.map(|()| Answer::Keys(last.into()))
        }
        Call::Above { prefix, after, max } => {
            let mut first = Vec::new();
            let listed = store.list(prefix, after, &mut |key, _| {
                if !keys::is_foreign(key, prefix) {
                    first.push(key.to_owned());
                }
                first.len() < *max
            });
            listed.map(|()| Answer::Keys(first))
        }
        Call::List { prefix, max } => {
            let mut keys = Vec::new();
            let listed = store.list(prefix, "", &mut |key, _| {
                keys.push(key.to_owned());
                keys.len() < *max
            });
            listed.map(|()| Answer::Keys(keys))
        }
        Call::Delete { key } => store.delete(key).map(|()| Answer::Done),
    };
    match result {
        Ok(answer) => (answer, None),
        Err(fault) if fault.kind == StoreFaultKind::NotFound && matches!(call, Call::Get { .. }) => {
            (Answer::Absent, None)
        }
        // There is something, and it is none of ours. It was not read; a machine learns the same from a body that parses as nothing.
        Err(fault) if fault.kind == StoreFaultKind::TooLong => (Answer::Body(Vec::new()), Some(fault)),
        Err(fault) => (Answer::Fault(fault.kind), Some(fault)),
    }
}

/// How an object that is not a slot or a grant is stored. Checkpoints have a name of their own each; beats are replaced, and boundaries by a
/// rebuild that is repeated. Servers hold locks while a larger conditional body arrives.
fn mode_of(key: &str, body: &[u8]) -> PutMode {
    let stored = 2 * body.len() as u64;
    let is_unique = key.starts_with(keys::CHECKPOINTS) && stored <= CONDITIONAL_BODY_BYTES_MAX;
    if is_unique { PutMode::CreateOnly } else { PutMode::Replace }
}

/// The length of the lease that a call claims: what the lease depends on has so much time from now on.
fn lease_sought(call: &Call) -> Option<u64> {
    match call {
        Call::Create { key, body } if key.starts_with(keys::EPOCHS) => {
            Claim::parse_grant(body).ok().map(|grant| grant.counter)
        }
        _ => None,
    }
}

/// Pause before the `attempt`-th repeat, in nanoseconds: doubles from 0.1 s to 3 s.
pub fn backoff_ns(attempt: u32) -> u64 {
    BACKOFF_FIRST_NS.saturating_mul(1 << attempt.min(10)).min(BACKOFF_LAST_NS)
}

/// Calls under way, each with a tag that says what it is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Calls<T> {
    next: u64,
    queued: VecDeque<(CallId, Call)>,
    open: Vec<(CallId, T, Call)>,
    parked: Vec<(u64, T, Call)>,
    strays: u64,
}

/// Leaves the ids out: machines that differ in them only behave alike, which keeps a search over their states small.
impl<T: Hash> Hash for Calls<T> {
    fn hash<H: Hasher>(&self, into: &mut H) {
        self.queued.iter().for_each(|(_, call)| call.hash(into));
        self.open.iter().for_each(|(_, tag, call)| (tag, call).hash(into));
        self.parked.hash(into);
    }
}

impl<T: Copy + PartialEq> Calls<T> {
    /// An empty book whose ids are `generation` times 2^32 and up.
    pub fn new(generation: u32) -> Calls<T> {
        Calls {
            next: u64::from(generation) << 32,
            queued: VecDeque::new(),
            open: Vec::new(),
            parked: Vec::new(),
            strays: 0,
        }
    }

    /// The high half of its ids.
    pub fn generation(&self) -> u64 {
        self.next >> 32
    }

    /// Queues a call.
    pub fn submit(&mut self, tag: T, call: Call) {
        let id = CallId(self.next);
        self.next += 1;
        self.queued.push_back((id, call.clone()));
        self.open.push((id, tag, call));
    }

    /// Queues a call for a later time.
    pub fn park(&mut self, until_ns: u64, tag: T, call: Call) {
        self.parked.push((until_ns, tag, call));
    }

    /// Moves parked calls whose time has come into the queue. Returns whether there were any.
    pub fn wake(&mut self, now_ns: u64) -> bool {
        let mut any = false;
        while let Some(at) = self.parked.iter().position(|(until, _, _)| *until <= now_ns) {
            let (_, tag, call) = self.parked.swap_remove(at);
            self.submit(tag, call);
            any = true;
        }
        any
    }

    /// The next call for the driver.
    pub fn next_call(&mut self) -> Option<(CallId, Call)> {
        self.queued.pop_front()
    }

    /// Matches an answer with its call. `None` for an id that is not open: late, double, or of a machine that is gone.
    pub fn complete(&mut self, id: CallId) -> Option<(T, Call)> {
        match self.open.iter().position(|(open, _, _)| *open == id) {
            Some(at) => {
                let (_, tag, call) = self.open.swap_remove(at);
                Some((tag, call))
            }
            None => {
                self.strays = self.strays.saturating_add(1);
                None
            }
        }
    }

    /// Whether a call with this tag is queued, open or parked.
    pub fn has(&self, tag: T) -> bool {
        self.open.iter().any(|(_, open, _)| *open == tag)
            || self.parked.iter().any(|(_, parked, _)| *parked == tag)
    }

    /// Calls open or parked.
    pub fn len(&self) -> usize {
        self.open.len() + self.parked.len()
    }

    /// Whether nothing is open or parked.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Forgets everything; answers still to come count as strays.
    pub fn clear(&mut self) {
        self.queued.clear();
        self.open.clear();
        self.parked.clear();
    }

    /// When the first parked call is due.
    pub fn deadline(&self) -> Option<u64> {
        self.parked.iter().map(|(until, _, _)| *until).min()
    }

    /// Answers that found no call.
    pub fn strays(&self) -> u64 {
        self.strays
    }
}
