//! A cache bounded in bytes: least recently used goes first.
//!
//! Invariants: the bytes charged never exceed the bound but for one value larger than it, which is not kept.
//! Does not: hash; entries are searched linearly, which is right for the hundreds that fit. Source: ours.

use std::sync::Arc;

/// Least charge of a value in bytes: bounds the number of entries.
const CHARGE_BYTES_MIN: usize = 1024;

#[derive(Debug)]
struct Entry<K, V> {
    key: K,
    value: Arc<V>,
    bytes: usize,
    used: u64,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Cache<K, V> {
    entries: Vec<Entry<K, V>>,
    bytes: usize,
    bytes_max: usize,
    tick: u64,
}

impl<K: Eq, V> Cache<K, V> {
    pub(crate) fn new(bytes_max: usize) -> Cache<K, V> {
        Cache { entries: Vec::new(), bytes: 0, bytes_max, tick: 0 }
    }

    pub(crate) fn get(&mut self, key: &K) -> Option<Arc<V>> {
        self.tick += 1;
        let entry = self.entries.iter_mut().find(|entry| entry.key == *key)?;
        entry.used = self.tick;
        Some(Arc::clone(&entry.value))
    }

    pub(crate) fn put(&mut self, key: K, value: Arc<V>, bytes: usize) {
        let bytes = bytes.max(CHARGE_BYTES_MIN);
        if bytes > self.bytes_max {
            return;
        }
        while self.bytes + bytes > self.bytes_max {
            let oldest = self.entries.iter().enumerate().min_by_key(|(_, entry)| entry.used);
            let Some((at, _)) = oldest else {
                break;
            };
            self.bytes -= self.entries.swap_remove(at).bytes;
        }
        self.tick += 1;
        self.bytes += bytes;
        self.entries.push(Entry { key, value, bytes, used: self.tick });
    }

    pub(crate) fn clear(&mut self) {
        self.entries.clear();
        self.bytes = 0;
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_recently_used_goes_first_and_the_bound_holds() {
        let mut cache = Cache::new(3 * CHARGE_BYTES_MIN);
        for key in 0..3 {
            cache.put(key, Arc::new(key), 1);
        }
        assert!(cache.get(&0).is_some());
        cache.put(3, Arc::new(3), 1);
        assert!(cache.get(&1).is_none() && cache.get(&0).is_some());
        assert_eq!(cache.bytes(), 3 * CHARGE_BYTES_MIN);
        cache.put(9, Arc::new(9), 4 * CHARGE_BYTES_MIN);
        assert!(cache.get(&9).is_none() && cache.get(&3).is_some());
        cache.put(8, Arc::new(8), 3 * CHARGE_BYTES_MIN);
        assert!(cache.get(&8).is_some() && cache.get(&3).is_none());
    }
}
