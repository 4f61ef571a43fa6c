//! The only place that repeats a call, and the only one that sleeps between attempts.
//!
//! | entry point | repeats on a transient fault | why that is right |
//! |---|---|---|
//! | [`Client::put_unique`] | yes | the name is ours alone, so the same bytes again change nothing |
//! | [`Client::put_slot`] | never | an answer that decides nothing belongs to the commit log (C2, C3) |
//! | [`Client::put_replace`] | yes | one writer per key (`beat/`, `boundary/`), the same bytes again |
//! | [`Client::get`], [`Client::list`], [`Client::delete`] | yes | they change nothing, or nothing more |
//! | [`Client::delete_all`] | yes, then key by key what has no clear answer | the same |
//! | [`Client::get_afresh`] | yes | the same; for bytes that came and are not what was written: a proxy, a replica, memory may have changed them |
//!
//! Invariants: a call ends within its budget plus one attempt. What is not transient is returned at once. Jitter comes from
//! a seeded generator, time from the clock.
//! Does not: choose keys, or decide what an unanswered create of a slot means.
//! Source: ours; `agent/doc/commit-log.md`, C2, C3.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use windlass_hal::clock::Clock;

use super::{
    ByteRange, CONDITIONAL_BODY_BYTES_MAX, Deletions, PutMode, Store, StoreFault, StoreFaultKind, Versioning,
    body_bytes,
};

/// Keys in one page of a LIST, for counting requests: what S3 returns at most.
pub const LIST_PAGE_KEYS: u64 = 1000;
/// Longest uninterrupted sleep in milliseconds: how soon [`Client::stop`] is noticed.
const NAP_MS: u64 = 250;

/// How long and how often a call is repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// First pause, in milliseconds; doubles with each attempt. Half of every pause is random.
    pub backoff_min_ms: u64,
    /// Longest pause, in milliseconds.
    pub backoff_max_ms: u64,
    /// No attempt starts later than this after the first, in milliseconds.
    pub budget_ms: u64,
    /// Attempts at most, the first included; at least 1.
    pub attempts_max: u32,
}

impl RetryPolicy {
    /// For data: rides out a store that restarts or a link that is down for some minutes.
    pub const DATA: RetryPolicy =
        RetryPolicy { backoff_min_ms: 100, backoff_max_ms: 20_000, budget_ms: 600_000, attempts_max: 64 };
    /// For the commit log and beats: their own deadlines are seconds.
    pub const CONTROL: RetryPolicy =
        RetryPolicy { backoff_min_ms: 50, backoff_max_ms: 1_000, budget_ms: 10_000, attempts_max: 16 };
    /// One attempt.
    pub const ONCE: RetryPolicy =
        RetryPolicy { backoff_min_ms: 0, backoff_max_ms: 0, budget_ms: 0, attempts_max: 1 };
}

/// Requests and bytes since the start, every attempt counted. Read with [`Counters::snapshot`].
#[derive(Debug, Default)]
pub struct Counters {
    put: AtomicU64,
    get: AtomicU64,
    list: AtomicU64,
    delete: AtomicU64,
    up_bytes: AtomicU64,
    down_bytes: AtomicU64,
    retries: AtomicU64,
    faults: AtomicU64,
}

/// [`Counters`] at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// PUT requests.
    pub put: u64,
    /// GET requests.
    pub get: u64,
    /// LIST pages.
    pub list: u64,
    /// DELETE requests.
    pub delete: u64,
    /// Bytes of bodies sent, repeats included.
    pub up_bytes: u64,
    /// Bytes of bodies received.
    pub down_bytes: u64,
    /// Attempts beyond the first.
    pub retries: u64,
    /// Attempts that ended in a fault of any kind but `NotFound` and `Exists`.
    pub faults: u64,
}

impl Counters {
    /// The counts now. They are read one by one, so a call that ends meanwhile may be counted in part.
    pub fn snapshot(&self) -> Counts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counts {
            put: read(&self.put),
            get: read(&self.get),
            list: read(&self.list),
            delete: read(&self.delete),
            up_bytes: read(&self.up_bytes),
            down_bytes: read(&self.down_bytes),
            retries: read(&self.retries),
            faults: read(&self.faults),
        }
    }
}

impl Counts {
    /// All requests.
    pub fn requests(&self) -> u64 {
        self.put + self.get + self.list + self.delete
    }
}

fn count(counter: &AtomicU64, by: u64) {
    counter.fetch_add(by, Ordering::Relaxed);
}

/// A store with repeats and counters. Shared between threads; [`Client::with_policy`] makes a second view of the same.
pub struct Client {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    policy: RetryPolicy,
    shared: Arc<Shared>,
}

struct Shared {
    counters: Counters,
    stopped: AtomicBool,
    /// The server has no request that deletes many.
    deletes_singly: AtomicBool,
    /// State of the jitter's generator (splitmix64).
    jitter: AtomicU64,
}

impl Client {
    /// Wraps `store`. `seed` is for the jitter only: any number that differs between nodes.
    pub fn new(store: Arc<dyn Store>, clock: Arc<dyn Clock>, policy: RetryPolicy, seed: u64) -> Client {
        let shared = Shared {
            counters: Counters::default(),
            stopped: AtomicBool::new(false),
            deletes_singly: AtomicBool::new(false),
            jitter: AtomicU64::new(seed),
        };
        Client { store, clock, policy, shared: Arc::new(shared) }
    }

    /// The same store, counters and stop mark with another policy.
    pub fn with_policy(&self, policy: RetryPolicy) -> Client {
        Client {
            store: Arc::clone(&self.store),
            clock: Arc::clone(&self.clock),
            policy,
            shared: Arc::clone(&self.shared),
        }
    }

    /// The store below, for what needs no repeats (the probe, messages).
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// The clock that it was given.
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }

    /// What was sent and received so far, by all views.
    pub fn counts(&self) -> Counts {
        self.shared.counters.snapshot()
    }

    /// Ends all pauses: from now on every view gives up after the attempt under way.
    pub fn stop(&self) {
        self.shared.stopped.store(true, Ordering::Relaxed);
    }

    /// Stores an immutable object under a name that no other process uses (`obj/`, `seg/`, `ckpt/`),
    /// repeating as needed.
    ///
    /// Up to [`CONDITIONAL_BODY_BYTES_MAX`] the PUT is create-only, so that a name used twice is noticed; `Exists` after an
    /// unanswered attempt of our own is resolved by reading it back. Larger bodies are plain PUTs: repeating one writes
    /// the same bytes, and servers hold locks while a conditional body streams.
    ///
    /// # Errors
    /// `Exists` when the name holds something else; otherwise the last attempt's fault.
    pub fn put_unique(&self, key: &str, body: &[&[u8]]) -> Result<(), StoreFault> {
        if body_bytes(body) > CONDITIONAL_BODY_BYTES_MAX {
            return self.put_replace(key, body);
        }
        let mut in_doubt = false;
        self.repeat(&mut || match self.put_once(key, body, PutMode::CreateOnly) {
            Err(fault) if fault.kind == StoreFaultKind::Exists && in_doubt => {
                self.verify_own(key, body, fault)
            }
            Err(fault) => {
                in_doubt |= fault.is_transient();
                Err(fault)
            }
            Ok(()) => Ok(()),
        })
    }

    /// One attempt to create a slot of the commit log. Every answer goes back to the log, which knows what it means.
    pub fn put_slot(&self, key: &str, body: &[&[u8]]) -> Result<(), StoreFault> {
        self.put_once(key, body, PutMode::CreateOnly)
    }

    /// Replaces `key`, which only this process writes, repeating as needed.
    pub fn put_replace(&self, key: &str, body: &[&[u8]]) -> Result<(), StoreFault> {
        self.repeat(&mut || self.put_once(key, body, PutMode::Replace))
    }

    /// [`Store::get`], repeated as needed.
    pub fn get(&self, key: &str, range: ByteRange, out: &mut Vec<u8>) -> Result<u64, StoreFault> {
        self.repeat(&mut || self.get_once(key, range, out))
    }

    /// [`Store::get_afresh`], repeated as needed.
    pub fn get_afresh(&self, key: &str, range: ByteRange, out: &mut Vec<u8>) -> Result<u64, StoreFault> {
        self.repeat(&mut || self.counted_get(out, &mut |out| self.store.get_afresh(key, range, out)))
    }

    /// [`Store::list`], repeated as needed: a repeat goes on after the last key that `each` was given.
    pub fn list(
        &self,
        prefix: &str,
        after: &str,
        each: &mut dyn FnMut(&str, u64) -> bool,
    ) -> Result<(), StoreFault> {
        let mut last = after.to_owned();
        self.repeat(&mut || {
            let from = last.clone();
            let mut keys = 0u64;
            let result = self.store.list(prefix, &from, &mut |key, size| {
                keys += 1;
                last.clear();
                last.push_str(key);
                each(key, size)
            });
            count(&self.shared.counters.list, 1 + keys.saturating_sub(1) / LIST_PAGE_KEYS);
            self.note(result)
        })
    }

    /// [`Store::delete`], repeated as needed.
    pub fn delete(&self, key: &str) -> Result<(), StoreFault> {
        self.repeat(&mut || {
            count(&self.shared.counters.delete, 1);
            self.note(self.store.delete(key))
        })
    }

    /// [`Store::delete_all`], repeated as needed, as many keys at a time as it takes: what became of each, in their order. Where the store has
    /// no such request, or refuses it, each key is deleted by itself, and so is each that it gave no clear answer for.
    pub fn delete_all(&self, keys: &[&str]) -> Deletions {
        let mut all = Deletions::with_capacity(keys.len());
        for part in keys.chunks(self.store.delete_keys_max().max(1)) {
            let asked = match part {
                [_] => None,
                _ if self.shared.deletes_singly.load(Ordering::Relaxed) => None,
                _ => Some(self.repeat(&mut || {
                    count(&self.shared.counters.delete, 1);
                    self.note(self.store.delete_all(part))
                })),
            };
            let again = |(key, answer): (&&str, Result<(), StoreFault>)| match answer {
                Err(fault) if fault.is_transient() => self.delete(key),
                answer => answer,
            };
            match asked {
                Some(Ok(answers)) if answers.len() == part.len() => {
                    all.extend(part.iter().zip(answers).map(again));
                }
                // It was repeated for as long as the policy allows.
                Some(Err(fault)) if fault.is_transient() => {
                    all.extend(part.iter().map(|_| Err(fault.clone())));
                }
                other => {
                    let is_none = |fault: &StoreFault| fault.kind == StoreFaultKind::Unsupported;
                    if other.is_some_and(|asked| asked.is_err_and(|fault| is_none(&fault))) {
                        self.shared.deletes_singly.store(true, Ordering::Relaxed);
                    }
                    all.extend(part.iter().map(|key| self.delete(key)));
                }
            }
        }
        all
    }

    /// [`Store::versioning`], repeated as needed.
    pub fn versioning(&self) -> Result<Versioning, StoreFault> {
        self.repeat(&mut || {
            count(&self.shared.counters.get, 1);
            self.note(self.store.versioning())
        })
    }

    fn put_once(&self, key: &str, body: &[&[u8]], mode: PutMode) -> Result<(), StoreFault> {
        count(&self.shared.counters.put, 1);
        count(&self.shared.counters.up_bytes, body_bytes(body));
        self.note(self.store.put(key, body, mode))
    }

    fn get_once(&self, key: &str, range: ByteRange, out: &mut Vec<u8>) -> Result<u64, StoreFault> {
        self.counted_get(out, &mut |out| self.store.get(key, range, out))
    }

    fn counted_get(
        &self,
        out: &mut Vec<u8>,
        get: &mut dyn FnMut(&mut Vec<u8>) -> Result<u64, StoreFault>,
    ) -> Result<u64, StoreFault> {
        let start = out.len();
        count(&self.shared.counters.get, 1);
        let result = self.note(get(out));
        match result {
            Ok(_) => count(&self.shared.counters.down_bytes, (out.len() - start) as u64),
            // A store that left something behind would shift the bytes of the next attempt.
            Err(_) => out.truncate(start),
        }
        result
    }

    /// Our unique name exists after an attempt of ours without an answer: if the bytes are ours, that attempt
    /// succeeded.
    fn verify_own(&self, key: &str, body: &[&[u8]], exists: StoreFault) -> Result<(), StoreFault> {
        let mut found = Vec::new();
        let size =
            self.get_once(key, ByteRange::From { offset: 0, len: body_bytes(body).max(1) }, &mut found)?;
        let ours = body.iter().flat_map(|part| part.iter());
        if size == body_bytes(body) && found.iter().eq(ours) {
            return Ok(());
        }
        Err(StoreFault { detail: "the name is ours, and it holds other bytes".to_owned(), ..exists })
    }

    fn note<T>(&self, result: Result<T, StoreFault>) -> Result<T, StoreFault> {
        if let Err(fault) = &result
            && !matches!(fault.kind, StoreFaultKind::NotFound | StoreFaultKind::Exists)
        {
            count(&self.shared.counters.faults, 1);
        }
        result
    }

    fn repeat<T>(&self, attempt: &mut dyn FnMut() -> Result<T, StoreFault>) -> Result<T, StoreFault> {
        let start = self.clock.now().as_ns();
        let mut attempts = 0u32;
        loop {
            let fault = match attempt() {
                Ok(value) => return Ok(value),
                Err(fault) if !fault.is_transient() => return Err(fault),
                Err(fault) => fault,
            };
            attempts += 1;
            let pause_ms = self.pause_ms(attempts);
            let spent_ms = self.clock.now().as_ns().saturating_sub(start) / 1_000_000;
            let in_budget = spent_ms.saturating_add(pause_ms) <= self.policy.budget_ms;
            if attempts >= self.policy.attempts_max || !in_budget || !self.nap(pause_ms) {
                if attempts == 1 {
                    return Err(fault);
                }
                let detail =
                    format!("gave up after {attempts} attempts in {spent_ms} ms; last: {}", fault.detail);
                let (verb, key) = fault.call.split_once(' ').unwrap_or((&fault.call, ""));
                return Err(StoreFault::new(fault.kind, verb, key, detail));
            }
            count(&self.shared.counters.retries, 1);
        }
    }

    /// Pause after the `attempts`-th attempt: half fixed, half random.
    fn pause_ms(&self, attempts: u32) -> u64 {
        let doubled = self.policy.backoff_min_ms.saturating_mul(1u64 << (attempts - 1).min(32));
        let pause = doubled.min(self.policy.backoff_max_ms);
        pause / 2 + self.random() % (pause - pause / 2 + 1)
    }

    /// Sleeps; false when it was stopped.
    fn nap(&self, pause_ms: u64) -> bool {
        let mut left_ms = pause_ms;
        while left_ms > 0 && !self.shared.stopped.load(Ordering::Relaxed) {
            let nap_ms = left_ms.min(NAP_MS);
            self.clock.sleep(Duration::from_nanos(nap_ms * 1_000_000));
            left_ms -= nap_ms;
        }
        !self.shared.stopped.load(Ordering::Relaxed)
    }

    /// splitmix64 (Steele, Lea, Flood 2014).
    fn random(&self) -> u64 {
        const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
        let mut z = self.shared.jitter.fetch_add(STEP, Ordering::Relaxed).wrapping_add(STEP);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}
