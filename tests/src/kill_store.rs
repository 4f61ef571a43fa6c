//! A store that kills the process at a call: what is in the store then is what a crash leaves. Source: ours.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use nix::sys::signal::{Signal, raise};
use windlass_agent::store::{ByteRange, PutMode, Store, StoreFault, Versioning};

/// Kills this process (SIGKILL) at a call to the store, before or after the call is applied.
pub struct KillStore {
    inner: Arc<dyn Store>,
    left: AtomicU64,
    writes_only: bool,
    after: bool,
}

impl KillStore {
    /// Dies at call number `at`, the first being 0; only PUT and DELETE count with `writes_only`.
    pub fn new(inner: Arc<dyn Store>, at: u64, writes_only: bool, after: bool) -> KillStore {
        KillStore { inner, left: AtomicU64::new(at), writes_only, after }
    }

    /// Calls that are left until it strikes.
    pub fn left(&self) -> u64 {
        self.left.load(Ordering::SeqCst)
    }

    fn call<T>(&self, writes: bool, work: impl FnOnce() -> T) -> T {
        if self.writes_only && !writes {
            return work();
        }
        let now = self.left.fetch_sub(1, Ordering::SeqCst) == 0;
        if now && !self.after {
            let _ = raise(Signal::SIGKILL);
        }
        let answer = work();
        if now {
            let _ = raise(Signal::SIGKILL);
        }
        answer
    }
}

impl Store for KillStore {
    fn describe(&self) -> String {
        self.inner.describe()
    }

    fn put(&self, key: &str, body: &[&[u8]], mode: PutMode) -> std::result::Result<(), StoreFault> {
        self.call(true, || self.inner.put(key, body, mode))
    }

    fn get(&self, key: &str, range: ByteRange, out: &mut Vec<u8>) -> std::result::Result<u64, StoreFault> {
        self.call(false, || self.inner.get(key, range, out))
    }

    fn list(
        &self,
        prefix: &str,
        after: &str,
        each: &mut dyn FnMut(&str, u64) -> bool,
    ) -> std::result::Result<(), StoreFault> {
        self.call(false, || self.inner.list(prefix, after, each))
    }

    fn delete(&self, key: &str) -> std::result::Result<(), StoreFault> {
        self.call(true, || self.inner.delete(key))
    }

    fn versioning(&self) -> std::result::Result<Versioning, StoreFault> {
        self.inner.versioning()
    }
}
