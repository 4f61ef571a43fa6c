//! A measuring tool (`null:///dir`): keeps everything in another store but the bodies of upload objects, which it drops.
//!
//! It shows how fast a device can be backed up at all, without a disk or a network behind it. Log, tables and small objects are
//! kept, so the agent works as on a real store; of a dropped object there is a note, and reading it is `Rejected`.
//! This is not a place for a backup, and [`Store::describe`] says so.
//!
//! Source: ours.

use super::{ByteRange, PutMode, Store, StoreFault, StoreFaultKind, Versioning, body_bytes};

/// Bodies up to this many bytes are kept wherever they are: what a probe writes and reads back.
pub const KEPT_BYTES_MAX: u64 = 64 << 10;
/// Under which prefix larger bodies are dropped.
const DROPPED: &str = "obj/";
/// What is kept instead.
const NOTE: &[u8] = b"windlass null store: the body was dropped";

/// A store without the bodies of upload objects.
pub struct NullStore<S> {
    kept: S,
}

impl<S: Store> NullStore<S> {
    /// Keeps in `kept` what is kept.
    pub fn new(kept: S) -> NullStore<S> {
        NullStore { kept }
    }
}

impl<S: Store> Store for NullStore<S> {
    fn describe(&self) -> String {
        format!("null: (drops all data, for measuring only) over {}", self.kept.describe())
    }

    fn put(&self, key: &str, body: &[&[u8]], mode: PutMode) -> Result<(), StoreFault> {
        let drop = key.starts_with(DROPPED) && body_bytes(body) > KEPT_BYTES_MAX;
        self.kept.put(key, if drop { &[NOTE] } else { body }, mode)
    }

    fn get(&self, key: &str, range: ByteRange, out: &mut Vec<u8>) -> Result<u64, StoreFault> {
        let start = out.len();
        let bytes = self.kept.get(key, range, out)?;
        if bytes == NOTE.len() as u64 && key.starts_with(DROPPED) {
            let mut whole = Vec::new();
            self.kept.get(key, ByteRange::All, &mut whole)?;
            if whole == NOTE {
                out.truncate(start);
                return Err(StoreFault::new(
                    StoreFaultKind::Rejected,
                    "GET",
                    key,
                    "the null store drops bodies",
                ));
            }
        }
        Ok(bytes)
    }

    fn list(
        &self,
        prefix: &str,
        after: &str,
        each: &mut dyn FnMut(&str, u64) -> bool,
    ) -> Result<(), StoreFault> {
        self.kept.list(prefix, after, each)
    }

    fn delete(&self, key: &str) -> Result<(), StoreFault> {
        self.kept.delete(key)
    }

    fn versioning(&self) -> Result<Versioning, StoreFault> {
        self.kept.versioning()
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
        assert_eq!(store.get("obj/at", ByteRange::All, &mut out), Ok(KEPT_BYTES_MAX));
        assert_eq!(store.get("seg/above", ByteRange::Last(1), &mut out), Ok(KEPT_BYTES_MAX + 1));
        let fault = store.get("obj/above", ByteRange::All, &mut out).unwrap_err();
        assert_eq!(fault.kind, StoreFaultKind::Rejected);
        let again = store.put("obj/above", &[&above], PutMode::CreateOnly).unwrap_err();
        assert_eq!(again.kind, StoreFaultKind::Exists);
    }
}
