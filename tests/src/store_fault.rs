//! A store that fails on purpose, around any other: answers lost after the call was applied, calls lost before, delays,
//! bytes of a GET changed or cut, a full store, revoked keys. For end-to-end tests, in this process.
//!
//! Each call draws from a seeded generator, so a run with one thread repeats exactly; with several threads the faults are the
//! same and who meets them is not. Source: ours; `tests/README.md`, The simulator.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use windlass_agent::store::{
    ByteRange, PutMode, Store, StoreFault, StoreFaultKind, Versioning, body_bytes, over,
};
use windlass_hal::clock::Clock;

/// How often and when calls fail. Chances are per 1000 calls.
#[derive(Clone, Debug, Default)]
pub struct FaultPlan {
    /// Seed of the generator.
    pub seed: u64,
    /// Applied, and answered with `Unknown`: PUT and DELETE.
    pub lost_answer_permille: u32,
    /// Not applied, and answered with `Unknown`: any call.
    pub lost_call_permille: u32,
    /// Not applied, and answered with `Conflict`: PUT.
    pub conflict_permille: u32,
    /// One bit of a GET's bytes is flipped, and nobody says so.
    pub flip_permille: u32,
    /// A GET delivers half its bytes and says `Unknown`.
    pub cut_permille: u32,
    /// A GET delivers half its bytes and claims success: a store that lies.
    pub short_permille: u32,
    /// A LIST breaks off with `Unknown` after some keys.
    pub list_cut_permille: u32,
    /// Every call takes up to so long, by the clock that [`FaultStore::new`] was given.
    pub delay_ns_max: u64,
    /// PUTs answer `Full` after so many bytes; 0 is never.
    pub full_after_bytes: u64,
    /// Every call answers `Denied` after so many calls; 0 is never.
    pub denied_after_calls: u64,
    /// Only keys that start with this meet faults; empty is all.
    pub prefix: String,
}

/// The wrapper. Share it as an `Arc` to switch faults while others use it.
pub struct FaultStore {
    inner: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    plan: Mutex<FaultPlan>,
    state: AtomicU64,
    calls: AtomicU64,
    put_bytes: AtomicU64,
    injected: AtomicU64,
    off: AtomicBool,
}

impl FaultStore {
    /// Around `inner`.
    pub fn new(inner: Arc<dyn Store>, clock: Arc<dyn Clock>, plan: FaultPlan) -> FaultStore {
        FaultStore {
            inner,
            clock,
            state: AtomicU64::new(plan.seed),
            plan: Mutex::new(plan),
            calls: AtomicU64::new(0),
            put_bytes: AtomicU64::new(0),
            injected: AtomicU64::new(0),
            off: AtomicBool::new(false),
        }
    }

    /// Replaces the plan; counts of calls and bytes start again, the generator goes on.
    pub fn set(&self, plan: FaultPlan) {
        *self.plan.lock().unwrap_or_else(PoisonError::into_inner) = plan;
        self.calls.store(0, Ordering::SeqCst);
        self.put_bytes.store(0, Ordering::SeqCst);
    }

    /// No faults from now on (the liveness phase of a test), or faults again.
    pub fn switch_off(&self, off: bool) {
        self.off.store(off, Ordering::SeqCst);
    }

    /// Faults that were injected so far: a test that wants some asserts that there were.
    pub fn injected(&self) -> u64 {
        self.injected.load(Ordering::SeqCst)
    }

    /// splitmix64.
    fn random(&self) -> u64 {
        const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
        let mut z = self.state.fetch_add(STEP, Ordering::SeqCst).wrapping_add(STEP);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn chance(&self, permille: u32) -> bool {
        // Drawn even when the chance is zero, so that plans of one seed meet the same numbers.
        let hit = self.random() % 1000 < u64::from(permille);
        self.injected.fetch_add(u64::from(hit), Ordering::SeqCst);
        hit
    }

    fn fault(&self, kind: StoreFaultKind, verb: &str, key: &str) -> StoreFault {
        StoreFault::new(kind, verb, key, "injected")
    }

    /// The plan for this call, unless it is spared; delays, and the faults that every kind of call can meet.
    fn enter(&self, verb: &str, key: &str) -> Result<Option<FaultPlan>, StoreFault> {
        let plan = self.plan.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if self.off.load(Ordering::SeqCst) || !key.starts_with(&plan.prefix) {
            return Ok(None);
        }
        if plan.delay_ns_max > 0 {
            self.clock.sleep(Duration::from_nanos(self.random() % plan.delay_ns_max));
        }
        let calls = self.calls.fetch_add(1, Ordering::SeqCst);
        if plan.denied_after_calls > 0 && calls >= plan.denied_after_calls {
            self.injected.fetch_add(1, Ordering::SeqCst);
            return Err(self.fault(StoreFaultKind::Denied, verb, key));
        }
        if self.chance(plan.lost_call_permille) {
            return Err(self.fault(StoreFaultKind::Unknown, verb, key));
        }
        Ok(Some(plan))
    }
}

impl Store for FaultStore {
    fn describe(&self) -> String {
        format!("{} (with injected faults)", self.inner.describe())
    }

    fn put(&self, key: &str, body: &[&[u8]], mode: PutMode) -> Result<(), StoreFault> {
        let Some(plan) = self.enter("PUT", key)? else { return self.inner.put(key, body, mode) };
        if self.chance(plan.conflict_permille) {
            return Err(self.fault(StoreFaultKind::Conflict, "PUT", key));
        }
        let bytes = body_bytes(body);
        if plan.full_after_bytes > 0
            && self.put_bytes.load(Ordering::SeqCst).saturating_add(bytes) > plan.full_after_bytes
        {
            self.injected.fetch_add(1, Ordering::SeqCst);
            return Err(self.fault(StoreFaultKind::Full, "PUT", key));
        }
        self.inner.put(key, body, mode)?;
        self.put_bytes.fetch_add(bytes, Ordering::SeqCst);
        if self.chance(plan.lost_answer_permille) {
            return Err(self.fault(StoreFaultKind::Unknown, "PUT", key));
        }
        Ok(())
    }

    fn get(&self, key: &str, range: ByteRange, out: &mut Vec<u8>) -> Result<u64, StoreFault> {
        let Some(plan) = self.enter("GET", key)? else { return self.inner.get(key, range, out) };
        let start = out.len();
        let size = self.inner.get(key, range, out)?;
        let got = out.len() - start;
        if self.chance(plan.cut_permille) {
            // Left in place on purpose: the client must clean up behind a store that does not.
            out.truncate(start + got / 2);
            return Err(self.fault(StoreFaultKind::Unknown, "GET", key));
        }
        if self.chance(plan.flip_permille) && got > 0 {
            let at = start + self.random() as usize % got;
            out[at] ^= 1 << (self.random() % 8);
        }
        if self.chance(plan.short_permille) {
            out.truncate(start + got / 2);
        }
        Ok(size)
    }

    fn list(
        &self,
        prefix: &str,
        after: &str,
        each: &mut dyn FnMut(&str, u64) -> bool,
    ) -> Result<(), StoreFault> {
        let Some(plan) = self.enter("LIST", prefix)? else { return self.inner.list(prefix, after, each) };
        if !self.chance(plan.list_cut_permille) {
            return self.inner.list(prefix, after, each);
        }
        let mut left = self.random() % 4;
        self.inner.list(prefix, after, &mut |key, size| {
            let go_on = left > 0 && each(key, size);
            left = left.saturating_sub(1);
            go_on
        })?;
        Err(self.fault(StoreFaultKind::Unknown, "LIST", prefix))
    }

    fn delete(&self, key: &str) -> Result<(), StoreFault> {
        let Some(plan) = self.enter("DELETE", key)? else { return self.inner.delete(key) };
        self.inner.delete(key)?;
        if self.chance(plan.lost_answer_permille) {
            return Err(self.fault(StoreFaultKind::Unknown, "DELETE", key));
        }
        Ok(())
    }

    fn versioning(&self) -> Result<Versioning, StoreFault> {
        self.inner.versioning()
    }
}

/// How a store gets create-only PUTs wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Careless {
    /// It does not look at the condition (Garage, a versioned bucket of Ceph 16).
    Ignores,
    /// It looks, and then writes: several racers win (s3s-fs, early SeaweedFS).
    Races,
    /// It refuses the header (Backblaze B2).
    Refuses,
}

/// A store that cannot hold a commit log, around one that could.
pub struct CarelessStore {
    inner: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    how: Careless,
}

/// Between looking and writing: all racers have looked by then.
const RACE_WINDOW: Duration = Duration::from_millis(30);

impl CarelessStore {
    /// Around `inner`.
    pub fn new(inner: Arc<dyn Store>, clock: Arc<dyn Clock>, how: Careless) -> CarelessStore {
        CarelessStore { inner, clock, how }
    }
}

impl over::Over for CarelessStore {
    fn behind(&self) -> &dyn Store {
        &*self.inner
    }

    fn describe(&self) -> String {
        format!("{} (careless: {:?})", self.inner.describe(), self.how)
    }

    fn put(&self, key: &str, body: &[&[u8]], mode: PutMode) -> Result<(), StoreFault> {
        if mode == PutMode::CreateOnly && self.how == Careless::Refuses {
            return Err(StoreFault::new(
                StoreFaultKind::Unsupported,
                "PUT",
                key,
                "status 501 NotImplemented",
            ));
        }
        if mode == PutMode::CreateOnly && self.how == Careless::Races {
            if self.inner.get(key, ByteRange::Last(1), &mut Vec::new()).is_ok() {
                return Err(StoreFault::new(StoreFaultKind::Exists, "PUT", key, ""));
            }
            self.clock.sleep(RACE_WINDOW);
        }
        self.inner.put(key, body, PutMode::Replace)
    }
}

/// A store of which every read of objects and segments comes with a flipped bit, unless it is over a connection of its own: a proxy, or the
/// memory of one server of many.
pub struct FlippingStore(pub Arc<dyn Store>);

impl over::Over for FlippingStore {
    fn behind(&self) -> &dyn Store {
        &*self.0
    }

    fn get(&self, key: &str, range: ByteRange, out: &mut Vec<u8>) -> Result<u64, StoreFault> {
        let start = out.len();
        let size = self.0.get(key, range, out)?;
        if let (true, Some(byte)) = (key.starts_with("obj/") || key.starts_with("seg/"), out.get_mut(start)) {
            *byte ^= 1;
        }
        Ok(size)
    }

    fn get_afresh(&self, key: &str, range: ByteRange, out: &mut Vec<u8>) -> Result<u64, StoreFault> {
        self.0.get(key, range, out)
    }
}
