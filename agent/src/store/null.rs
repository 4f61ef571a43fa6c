//! A measuring tool (`null:///dir`): keeps everything in another store but the bodies of upload objects, which it drops.
//!
//! It shows how fast a device can be backed up at all, without a disk or a network behind it. Log, tables and small objects are
//! kept, so the agent works as on a real store. Of dropped objects only this process knows the names: to it, creating one again is
//! `Exists` and reading one `Rejected`; to others and to listings they are not there.
//! This is not a place for a backup, and [`Store::describe`] says so.
//!
//! Source: ours.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{ByteRange, PutMode, Store, StoreFault, StoreFaultKind, body_bytes, check_key, over};

/// Bodies up to this many bytes are kept wherever they are: what a probe writes and reads back.
pub const KEPT_BYTES_MAX: u64 = 64 << 10;
/// Under which prefix larger bodies are dropped.
const DROPPED: &str = "obj/";

/// A store without the bodies of upload objects.
pub struct NullStore<S> {
    kept: S,
    dropped: Mutex<BTreeSet<String>>,
}

impl<S> NullStore<S> {
    fn dropped(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.dropped.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S: Store> NullStore<S> {
    /// Keeps in `kept` what is kept.
    pub fn new(kept: S) -> NullStore<S> {
        NullStore { kept, dropped: Mutex::default() }
    }
}

impl<S: Store> over::Over for NullStore<S> {
    fn behind(&self) -> &dyn Store {
        &self.kept
    }

    fn describe(&self) -> String {
        format!("null: (drops all data, for measuring only) over {}", self.kept.describe())
    }

    fn put(&self, key: &str, body: &[&[u8]], mode: PutMode) -> Result<(), StoreFault> {
        if !key.starts_with(DROPPED) || body_bytes(body) <= KEPT_BYTES_MAX {
            return self.kept.put(key, body, mode);
        }
        check_key("PUT", key)?;
        if !self.dropped().insert(key.to_owned()) && mode == PutMode::CreateOnly {
            return Err(StoreFault::new(StoreFaultKind::Exists, "PUT", key, ""));
        }
        Ok(())
    }

    fn get(&self, key: &str, range: ByteRange, out: &mut Vec<u8>) -> Result<u64, StoreFault> {
        if self.dropped().contains(key) {
            return Err(StoreFault::new(StoreFaultKind::Rejected, "GET", key, "the null store drops bodies"));
        }
        self.kept.get(key, range, out)
    }

    fn delete(&self, key: &str) -> Result<(), StoreFault> {
        self.dropped().remove(key);
        self.kept.delete(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::memory::MemoryStore;

    #[test]
    fn large_upload_objects_are_dropped_and_all_else_is_kept() {
        let store = NullStore::new(MemoryStore::default());
        let at = vec![1; KEPT_BYTES_MAX as usize];
        let above = vec![1; KEPT_BYTES_MAX as usize + 1];
        store.put("obj/at", &[&at], PutMode::CreateOnly).unwrap();
        store.put("obj/above", &[&above], PutMode::CreateOnly).unwrap();
        store.put("seg/above", &[&above], PutMode::CreateOnly).unwrap();
        let mut out = Vec::new();
        assert_eq!(store.get("obj/at", ByteRange::Whole(KEPT_BYTES_MAX), &mut out), Ok(KEPT_BYTES_MAX));
        assert_eq!(store.get("seg/above", ByteRange::Last(1), &mut out), Ok(KEPT_BYTES_MAX + 1));
        let fault = store.get("obj/above", ByteRange::Whole(2 * KEPT_BYTES_MAX), &mut out).unwrap_err();
        assert_eq!(fault.kind, StoreFaultKind::Rejected);
        let again = store.put("obj/above", &[&above], PutMode::CreateOnly).unwrap_err();
        assert_eq!(again.kind, StoreFaultKind::Exists);
    }
}
