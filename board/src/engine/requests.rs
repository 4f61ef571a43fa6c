//! What a run asked of the store, counted request by request as it is sent, repeated ones included.
//!
//! | counted as | keys |
//! |---|---|
//! | objects | `obj/` |
//! | tables | `seg/` |
//! | log | `log/`, `ckpt/`, `boundary/`, and what is written once |
//! | lease | `epoch/`, `beat/`: they depend on how long a run takes, not on what it stores |
//!
//! `asks` are GETs, LISTs and DELETEs; `asks_between` those of them that came between two objects: on the way of the data, where
//! a store with a long round trip would be felt. Source: ours.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::engine::watch::Watch;
use serde_json::{Value, json};
use windlass_agent::api::metrics::StoreCounts;
use windlass_agent::store::time::StoreTime;
use windlass_agent::store::{ByteRange, Deletions, PutMode, Store, StoreFault, StoreFaultKind, Versioning};

/// Requests of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Requests {
    /// PUTs of upload objects.
    pub objects: u64,
    /// PUTs of segments.
    pub tables: u64,
    /// PUTs of the commit log.
    pub log: u64,
    /// PUTs of the lease.
    pub lease: u64,
    /// Everything else.
    pub asks: u64,
    /// What of that came between the first object and the last.
    pub asks_between: u64,
    /// Asked since the last object.
    asks_since: u64,
}

impl Requests {
    /// PUTs in all.
    pub fn puts(&self) -> u64 {
        self.objects + self.tables + self.log + self.lease
    }

    /// For programs.
    pub fn to_json(self) -> Value {
        json!({
            "put": self.puts(), "put_objects": self.objects, "put_tables": self.tables, "put_log": self.log,
            "put_lease": self.lease, "get": self.asks, "get_between_objects": self.asks_between,
        })
    }

    fn put(&mut self, key: &str) {
        match key.split_once('/').map_or(key, |(first, _)| first) {
            "obj" => {
                if self.objects > 0 {
                    self.asks_between += self.asks_since;
                }
                self.asks_since = 0;
                self.objects += 1;
            }
            "seg" => self.tables += 1,
            "epoch" | "beat" => self.lease += 1,
            _ => self.log += 1,
        }
    }

    fn ask(&mut self) {
        self.asks += 1;
        self.asks_since += 1;
    }
}

/// Kinds of requests, as metrics name them.
const KINDS: [&str; 7] = ["put_object", "put_table", "put_log", "put_lease", "get", "list", "delete"];
/// Kinds of faults, as metrics name them. That a key is there, or is not, is an answer and no fault.
const FAULTS: [&str; 11] = [
    "conflict",
    "store_gone",
    "denied",
    "read_only",
    "full",
    "unknown",
    "silent",
    "corrupt",
    "too_long",
    "unsupported",
    "rejected",
];

/// Counts since the start, which are never taken away.
#[derive(Clone, Copy, Debug, Default)]
struct Totals {
    requests: [u64; KINDS.len()],
    faults: [u64; FAULTS.len()],
}

fn kind_of_put(key: &str) -> usize {
    match key.split_once('/').map_or(key, |(first, _)| first) {
        "obj" => 0,
        "seg" => 1,
        "epoch" | "beat" => 3,
        _ => 2,
    }
}

fn kind_of_fault(kind: StoreFaultKind) -> Option<usize> {
    match kind {
        StoreFaultKind::Exists | StoreFaultKind::NotFound => None,
        StoreFaultKind::Conflict => Some(0),
        StoreFaultKind::StoreGone => Some(1),
        StoreFaultKind::Denied => Some(2),
        StoreFaultKind::ReadOnly => Some(3),
        StoreFaultKind::Full => Some(4),
        StoreFaultKind::Unknown => Some(5),
        StoreFaultKind::Silent => Some(6),
        StoreFaultKind::Corrupt => Some(7),
        StoreFaultKind::TooLong => Some(8),
        StoreFaultKind::Unsupported => Some(9),
        StoreFaultKind::Rejected => Some(10),
    }
}

/// A store whose requests are counted, and watched for answers that do not come.
pub struct Counted {
    inner: Arc<dyn Store>,
    watch: Arc<Watch>,
    requests: Mutex<Requests>,
    totals: Mutex<Totals>,
}

impl Counted {
    /// Counts what goes to `inner`, and lets `watch` know of it.
    pub fn new(inner: Arc<dyn Store>, watch: Arc<Watch>) -> Counted {
        Counted { inner, watch, requests: Mutex::default(), totals: Mutex::default() }
    }

    /// Whether the store answers.
    pub fn watch(&self) -> &Watch {
        &self.watch
    }

    fn watched<T>(
        &self,
        verb: &str,
        key: &str,
        call: impl FnOnce() -> Result<T, StoreFault>,
    ) -> Result<T, StoreFault> {
        let kind = match verb {
            "PUT" => kind_of_put(key),
            "LIST" => 5,
            "DELETE" => 6,
            _ => 4,
        };
        self.all().requests[kind] += 1;
        let waiting = self.watch.begin(verb, key)?;
        log::debug!("store: {verb} {key}");
        let result = call();
        self.watch.end(waiting, result.as_ref().err());
        if let Some(kind) = result.as_ref().err().and_then(|fault| kind_of_fault(fault.kind)) {
            self.all().faults[kind] += 1;
        }
        result
    }

    fn requests(&self) -> MutexGuard<'_, Requests> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn all(&self) -> MutexGuard<'_, Totals> {
        self.totals.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All requests and faults since the start, by kind. Bytes are the throttle's.
    pub fn totals(&self) -> StoreCounts {
        let all = *self.all();
        StoreCounts {
            requests: std::array::from_fn(|nth| (KINDS[nth], all.requests[nth])),
            faults: std::array::from_fn(|nth| (FAULTS[nth], all.faults[nth])),
            bytes: (0, 0),
        }
    }

    /// The requests since the last call.
    pub fn take(&self) -> Requests {
        std::mem::take(&mut *self.requests())
    }
}

impl Store for Counted {
    fn describe(&self) -> String {
        self.inner.describe()
    }

    fn put(&self, key: &str, body: &[&[u8]], mode: PutMode) -> Result<(), StoreFault> {
        self.requests().put(key);
        self.watched("PUT", key, || self.inner.put(key, body, mode))
    }

    fn get(&self, key: &str, range: ByteRange, out: &mut Vec<u8>) -> Result<u64, StoreFault> {
        self.requests().ask();
        self.watched("GET", key, || self.inner.get(key, range, out))
    }

    fn get_afresh(&self, key: &str, range: ByteRange, out: &mut Vec<u8>) -> Result<u64, StoreFault> {
        self.requests().ask();
        self.watched("GET", key, || self.inner.get_afresh(key, range, out))
    }

    fn list(
        &self,
        prefix: &str,
        after: &str,
        each: &mut dyn FnMut(&str, u64) -> bool,
    ) -> Result<(), StoreFault> {
        self.requests().ask();
        // What the caller does with a key is not the store's time.
        let mut each = |key: &str, size| {
            let go_on = each(key, size);
            self.watch.progress();
            go_on
        };
        self.watched("LIST", prefix, || self.inner.list(prefix, after, &mut each))
    }

    fn time(&self) -> Option<StoreTime> {
        self.inner.time()
    }

    fn credentials(&self) -> Option<String> {
        self.inner.credentials()
    }

    fn delete(&self, key: &str) -> Result<(), StoreFault> {
        self.requests().ask();
        self.watched("DELETE", key, || self.inner.delete(key))
    }

    fn delete_keys_max(&self) -> usize {
        self.inner.delete_keys_max()
    }

    fn delete_all(&self, keys: &[&str]) -> Result<Deletions, StoreFault> {
        self.requests().ask();
        let first = keys.first().copied().unwrap_or_default();
        self.watched("DELETE", first, || self.inner.delete_all(keys))
    }

    fn set_lease_deadline(&self, ms: u64) {
        self.inner.set_lease_deadline(ms);
    }

    /// What goes over them is not counted: a probe's requests.
    fn ways(&self) -> Vec<Arc<dyn Store>> {
        self.inner.ways()
    }

    fn versioning(&self) -> Result<Versioning, StoreFault> {
        self.requests().ask();
        self.watched("VERSIONING", "", || self.inner.versioning())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::host::HostClock;
    use windlass_agent::store::memory::MemoryStore;
    use windlass_agent::store::throttle::Throttle;

    #[test]
    fn what_comes_between_objects_is_told_from_what_comes_before_and_after() {
        let clock = HostClock::shared();
        let throttle = Arc::new(Throttle::new(Arc::clone(&clock), 0, 0));
        let watch = Watch::start(clock, throttle).unwrap();
        let store = Counted::new(Arc::new(MemoryStore::default()), watch);
        let put = |key: &str| store.put(key, &[b"x"], PutMode::Replace).unwrap();
        let ask = || store.list("log/", "", &mut |_, _| true).unwrap();
        ask();
        for key in ["epoch/1", "log/1", "obj/1", "beat/1"] {
            put(key);
        }
        ask();
        ask();
        put("obj/2");
        ask();
        put("seg/1");
        let requests = store.take();
        assert_eq!((requests.objects, requests.tables, requests.log, requests.lease), (2, 1, 1, 2));
        assert_eq!((requests.puts(), requests.asks, requests.asks_between), (6, 4, 2));
        assert_eq!(store.take(), Requests::default());
    }
}
