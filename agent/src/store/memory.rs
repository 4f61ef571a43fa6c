//! A store in memory: for tests and simulations, and the model of what every other store must do.
//!
//! Invariants: create-only has exactly one winner; listings are ascending. Does not: fail, wait, bound what it keeps.
//! Source: ours.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{ByteRange, PutMode, Store, StoreFault, StoreFaultKind, check_key, check_prefix};

/// Objects by key. Everything is gone when it is dropped.
#[derive(Default)]
pub struct MemoryStore(Mutex<BTreeMap<String, Vec<u8>>>);

impl MemoryStore {
    fn objects(&self) -> MutexGuard<'_, BTreeMap<String, Vec<u8>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store for MemoryStore {
    fn describe(&self) -> String {
        "memory".to_owned()
    }

    fn put(&self, key: &str, body: &[&[u8]], mode: PutMode) -> Result<(), StoreFault> {
        check_key("PUT", key)?;
        let mut objects = self.objects();
        if mode == PutMode::CreateOnly && objects.contains_key(key) {
            return Err(StoreFault::new(StoreFaultKind::Exists, "PUT", key, ""));
        }
        objects.insert(key.to_owned(), body.concat());
        Ok(())
    }

    fn get(&self, key: &str, range: ByteRange, out: &mut Vec<u8>) -> Result<u64, StoreFault> {
        check_key("GET", key)?;
        let objects = self.objects();
        let body =
            objects.get(key).ok_or_else(|| StoreFault::new(StoreFaultKind::NotFound, "GET", key, ""))?;
        range.check_size(key, body.len() as u64)?;
        let (offset, len) = range.resolve(body.len() as u64);
        // In range by `resolve`, and the body is in memory, so both fit a usize.
        out.extend_from_slice(&body[offset as usize..(offset + len) as usize]);
        Ok(body.len() as u64)
    }

    fn list(
        &self,
        prefix: &str,
        after: &str,
        each: &mut dyn FnMut(&str, u64) -> bool,
    ) -> Result<(), StoreFault> {
        check_prefix(prefix)?;
        // One key at a time, so that `each` may call this store.
        let mut from = if prefix > after {
            Bound::Included(prefix.to_owned())
        } else {
            Bound::Excluded(after.to_owned())
        };
        loop {
            let next = self
                .objects()
                .range((from, Bound::Unbounded))
                .next()
                .map(|(key, body)| (key.clone(), body.len()));
            match next {
                Some((key, bytes)) if key.starts_with(prefix) && each(&key, bytes as u64) => {
                    from = Bound::Excluded(key)
                }
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
