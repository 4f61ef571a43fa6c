//! A store with faults by lot: objects that are lost or damaged, reads that come changed once, calls that get no answer.
//!
//! Source: ours.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use windlass_agent::store::memory::MemoryStore;
use windlass_agent::store::{ByteRange, Store, StoreFault, StoreFaultKind, over};
use windlass_tests::prng::Prng;

use super::point::Point;

/// What is wrong with a store.
#[derive(Default)]
pub struct Faults {
    /// Keys of objects that are gone.
    pub lost: BTreeSet<String>,
    /// Bytes of objects that are not what was written.
    pub flipped: BTreeMap<String, u64>,
    /// Calls of a thousand that get no answer, and are repeated.
    pub silent_permille: u64,
    /// First reads of a thousand that come with a changed byte.
    pub changed_permille: u64,
    /// From this read of an object on nothing is allowed any more.
    pub denied_from: Option<u64>,
}

pub struct Shelf {
    inner: Arc<MemoryStore>,
    faults: Faults,
    state: Mutex<(Prng, u64)>,
}

impl Shelf {
    /// With a whole store.
    pub fn whole(point: &Point) -> Shelf {
        Shelf {
            inner: Arc::clone(&point.store),
            faults: Faults::default(),
            state: Mutex::new((Prng::new(0), 0)),
        }
    }

    /// With faults by lot; and the inodes that they cost.
    pub fn with_faults(point: &Point, p: &mut Prng) -> (Shelf, BTreeSet<u64>) {
        let mut faults =
            Faults { silent_permille: p.below(100), changed_permille: p.below(2) * 200, ..Faults::default() };
        let mut hurt = BTreeSet::new();
        for frame in &point.frames {
            match p.below(12) {
                0 => drop(faults.lost.insert(frame.object.object_key())),
                1 => {
                    let at = u64::from(frame.offset) + p.below(u64::from(frame.bytes));
                    faults.flipped.insert(frame.object.object_key(), at);
                }
                _ => {}
            }
        }
        for frame in &point.frames {
            let key = frame.object.object_key();
            let within = u64::from(frame.offset)..u64::from(frame.offset) + u64::from(frame.bytes);
            if faults.lost.contains(&key) || faults.flipped.get(&key).is_some_and(|at| within.contains(at)) {
                hurt.extend(&frame.inodes);
            }
        }
        if p.one_in(8) {
            faults.denied_from = Some(p.below(10));
        }
        let state = Mutex::new((Prng::new(p.next_u64()), 0));
        (Shelf { inner: Arc::clone(&point.store), faults, state }, hurt)
    }

    /// Whether the store stops to answer at some time.
    pub fn is_denied(&self) -> bool {
        self.faults.denied_from.is_some()
    }

    fn read(&self, key: &str, range: ByteRange, out: &mut Vec<u8>, afresh: bool) -> Result<u64, StoreFault> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let is_object = key.starts_with("obj/");
        state.1 += u64::from(is_object);
        if is_object && self.faults.denied_from.is_some_and(|from| state.1 > from) {
            return Err(StoreFault::new(StoreFaultKind::Denied, "GET", key, ""));
        }
        if state.0.below(1000) < self.faults.silent_permille {
            return Err(StoreFault::new(StoreFaultKind::Unknown, "GET", key, ""));
        }
        if self.faults.lost.contains(key) {
            return Err(StoreFault::new(StoreFaultKind::NotFound, "GET", key, ""));
        }
        let before = out.len();
        let size = self.inner.get(key, range, out)?;
        let (offset, _) = range.resolve(size);
        if let Some(at) = self.faults.flipped.get(key)
            && let Some(at) = at.checked_sub(offset)
            && let Some(byte) = out.get_mut(before + at as usize)
        {
            *byte ^= 1;
        }
        if !afresh && state.0.below(1000) < self.faults.changed_permille {
            let at = before + state.0.below((out.len() - before) as u64) as usize;
            if let Some(byte) = out.get_mut(at) {
                *byte ^= 4;
            }
        }
        Ok(size)
    }
}

impl over::Over for Shelf {
    fn behind(&self) -> &dyn Store {
        &*self.inner
    }

    fn describe(&self) -> String {
        "shelf".to_owned()
    }

    fn get(&self, key: &str, range: ByteRange, out: &mut Vec<u8>) -> Result<u64, StoreFault> {
        self.read(key, range, out, false)
    }

    fn get_afresh(&self, key: &str, range: ByteRange, out: &mut Vec<u8>) -> Result<u64, StoreFault> {
        self.read(key, range, out, true)
    }
}
