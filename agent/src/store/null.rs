//! A measuring tool (`null:`): swallows the bodies of large objects under some prefixes and keeps everything else in memory.
//!
//! Benches use it to see what the agent costs without a disk or a network behind it. Log records, checkpoints and small
//! objects are kept, so the commit log works as on a real store; a swallowed object is listed with its size, and reading it
//! is `Rejected`. Everything is gone when the process ends: this is not a place for a backup.
//!
//! Invariants: create-only has exactly one winner. Does not: fail, wait, bound what it keeps. Source: ours.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{ByteRange, PutMode, Store, StoreFault, StoreFaultKind, body_bytes, check_key, check_prefix};

/// Bodies up to this many bytes are kept wherever they are.
pub const KEPT_BYTES_MAX: u64 = 64 * 1024;
/// Under which prefixes larger bodies are swallowed, unless told otherwise.
pub const SWALLOWED: &[&str] = &["obj/"];

enum Object {
    Kept(Vec<u8>),
    /// Its size in bytes.
    Swallowed(u64),
}

impl Object {
    fn bytes(&self) -> u64 {
        match self {
            Object::Kept(body) => body.len() as u64,
            Object::Swallowed(bytes) => *bytes,
        }
    }
}

/// Objects in memory, the large ones without their bodies.
pub struct NullStore {
    swallowed: &'static [&'static str],
    objects: Mutex<BTreeMap<String, Object>>,
}

impl NullStore {
    /// Empty; swallows large bodies of keys that start with one of `swallowed`.
    pub fn new(swallowed: &'static [&'static str]) -> NullStore {
        NullStore { swallowed, objects: Mutex::new(BTreeMap::new()) }
    }

    fn objects(&self) -> MutexGuard<'_, BTreeMap<String, Object>> {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for NullStore {
    fn default() -> NullStore {
        NullStore::new(SWALLOWED)
    }
}

impl Store for NullStore {
    fn describe(&self) -> String {
        "null: (keeps no data; for measuring only)".to_owned()
    }

    fn put(&self, key: &str, body: &[&[u8]], mode: PutMode) -> Result<(), StoreFault> {
        check_key("PUT", key)?;
        let bytes = body_bytes(body);
        let swallow = bytes > KEPT_BYTES_MAX && self.swallowed.iter().any(|prefix| key.starts_with(prefix));
        let object = if swallow { Object::Swallowed(bytes) } else { Object::Kept(body.concat()) };
        let mut objects = self.objects();
        if mode == PutMode::CreateOnly && objects.contains_key(key) {
            return Err(StoreFault::new(StoreFaultKind::Exists, "PUT", key, ""));
        }
        objects.insert(key.to_owned(), object);
        Ok(())
    }

    fn get(&self, key: &str, range: ByteRange, out: &mut Vec<u8>) -> Result<u64, StoreFault> {
        check_key("GET", key)?;
        match self.objects().get(key) {
            Some(Object::Kept(body)) => {
                let (offset, len) = range.resolve(body.len() as u64);
                // In range by `resolve`, and the body is in memory, so both fit a usize.
                out.extend_from_slice(&body[offset as usize..(offset + len) as usize]);
                Ok(body.len() as u64)
            }
            Some(Object::Swallowed(_)) => {
                Err(StoreFault::new(StoreFaultKind::Rejected, "GET", key, "null: has not kept the body"))
            }
            None => Err(StoreFault::new(StoreFaultKind::NotFound, "GET", key, "")),
        }
    }

    fn list(
        &self,
        prefix: &str,
        after: &str,
        each: &mut dyn FnMut(&str, u64) -> bool,
    ) -> Result<(), StoreFault> {
        check_prefix(prefix)?;
        // One key at a time, so that `each` may call this store.
        let mut last = after.to_owned();
        let mut inclusive = prefix > after;
        if inclusive {
            prefix.clone_into(&mut last);
        }
        loop {
            let start =
                if inclusive { std::ops::Bound::Included(last) } else { std::ops::Bound::Excluded(last) };
            inclusive = false;
            let next = self
                .objects()
                .range((start, std::ops::Bound::Unbounded))
                .next()
                .map(|(key, object)| (key.clone(), object.bytes()));
            match next {
                Some((key, bytes)) if key.starts_with(prefix) && each(&key, bytes) => last = key,
                _ => return Ok(()),
            }
        }
    }

    fn delete(&self, key: &str) -> Result<(), StoreFault> {
        check_key("DELETE", key)?;
        self.objects().remove(key);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_upload_objects_are_swallowed_and_all_else_is_kept() {
        let store = NullStore::default();
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
        let mut sizes = Vec::new();
        store
            .list("obj/", "", &mut |_, size| {
                sizes.push(size);
                true
            })
            .unwrap();
        assert_eq!(sizes, [KEPT_BYTES_MAX + 1, KEPT_BYTES_MAX]);
    }
}
