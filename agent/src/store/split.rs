//! Two stores as one: the commit log and the lease in a store that keeps conditions, everything else in one that need not.
//!
//! | keys | where | needs |
//! |---|---|---|
//! | `epoch/` `beat/` `log/` `boundary/` `home`, and `probe/` | the log store | create-only PUT, plain PUT, GET, LIST, DELETE |
//! | `format` `ckpt/` `seg/` `obj/` and the rest | the object store | plain PUT, GET, LIST, DELETE, all strongly consistent |
//!
//! The probe writes below `probe/`, so it always tests the store that holds the log.
//!
//! The object store is never asked for a create-only PUT: names below a directory there are unique by
//! construction (epoch, node and boot number, or a random nonce), so a plain PUT does; a name without a slash
//! (`format`) is looked for first, which finds each earlier writer but not a concurrent one. Two concurrent
//! `repo init` with different log stores are detected when the repository of the second is opened: its log
//! store is the home of another repository.
//!
//! Invariants: a key is in one store only; what lies in the other under such a name is neither read nor listed.
//! Does not: move a log from one store to another. Source: ours.

use std::collections::VecDeque;
use std::sync::Arc;

use super::time::StoreTime;
use super::{ByteRange, Deletions, PutMode, Store, StoreFault, StoreFaultKind, Versioning};

/// What goes to the log store: directories with their slash, and whole names.
pub const LOG_KEYS: [&str; 6] = ["beat/", "boundary/", "epoch/", "home", "log/", "probe/"];
/// Keys that a merged listing takes from one store at a time: a page of most stores.
pub const MERGE_KEYS: usize = 1000;

/// Two stores as one.
pub struct SplitStore {
    objects: Arc<dyn Store>,
    log: Arc<dyn Store>,
}

impl SplitStore {
    /// Objects in one, the log in the other.
    pub fn new(objects: Arc<dyn Store>, log: Arc<dyn Store>) -> SplitStore {
        SplitStore { objects, log }
    }

    /// The object store.
    pub fn objects(&self) -> &Arc<dyn Store> {
        &self.objects
    }

    /// The store of the log.
    pub fn log(&self) -> &Arc<dyn Store> {
        &self.log
    }

    fn of(&self, key: &str) -> &dyn Store {
        if is_log(key) { &*self.log } else { &*self.objects }
    }

    /// A listing that both stores have a part in.
    fn merge(
        &self,
        prefix: &str,
        after: &str,
        each: &mut dyn FnMut(&str, u64) -> bool,
    ) -> Result<(), StoreFault> {
        let side =
            |store, log| Side { store, log, after: after.to_owned(), ready: VecDeque::new(), ended: false };
        let (mut objects, mut log) = (side(&*self.objects, false), side(&*self.log, true));
        loop {
            objects.fill(prefix)?;
            log.fill(prefix)?;
            let from_log = match (objects.ready.front(), log.ready.front()) {
                (Some((object, _)), Some((slot, _))) => slot < object,
                (None, Some(_)) => true,
                (_, None) => false,
            };
            let next = if from_log { log.ready.pop_front() } else { objects.ready.pop_front() };
            match next {
                Some((key, size)) if each(&key, size) => {}
                _ => return Ok(()),
            }
        }
    }
}

/// Whether a key belongs to the log.
fn is_log(key: &str) -> bool {
    LOG_KEYS.iter().any(|known| if known.ends_with('/') { key.starts_with(known) } else { key == *known })
}

/// One store's part of a merged listing.
struct Side<'a> {
    store: &'a dyn Store,
    log: bool,
    after: String,
    ready: VecDeque<(String, u64)>,
    ended: bool,
}

impl Side<'_> {
    /// Has the next key ready, unless there is none.
    fn fill(&mut self, prefix: &str) -> Result<(), StoreFault> {
        while self.ready.is_empty() && !self.ended {
            let (log, ready) = (self.log, &mut self.ready);
            let (mut last, mut seen) = (String::new(), 0);
            self.store.list(prefix, &self.after, &mut |key, size| {
                if is_log(key) == log {
                    ready.push_back((key.to_owned(), size));
                }
                last.clear();
                last.push_str(key);
                seen += 1;
                seen < MERGE_KEYS
            })?;
            self.ended = seen < MERGE_KEYS;
            self.after = last;
        }
        Ok(())
    }
}

impl Store for SplitStore {
    fn describe(&self) -> String {
        format!("{}, its log at {}", self.objects.describe(), self.log.describe())
    }

    fn put(&self, key: &str, body: &[&[u8]], mode: PutMode) -> Result<(), StoreFault> {
        if is_log(key) {
            return self.log.put(key, body, mode);
        }
        if mode == PutMode::CreateOnly && !key.contains('/') {
            match self.objects.get(key, ByteRange::Last(1), &mut Vec::new()) {
                Err(fault) if fault.kind == StoreFaultKind::NotFound => {}
                Err(fault) => return Err(fault),
                Ok(_) => return Err(StoreFault::new(StoreFaultKind::Exists, "PUT", key, "")),
            }
        }
        self.objects.put(key, body, PutMode::Replace)
    }

    fn get(&self, key: &str, range: ByteRange, out: &mut Vec<u8>) -> Result<u64, StoreFault> {
        self.of(key).get(key, range, out)
    }

    fn get_afresh(&self, key: &str, range: ByteRange, out: &mut Vec<u8>) -> Result<u64, StoreFault> {
        self.of(key).get_afresh(key, range, out)
    }

    fn list(
        &self,
        prefix: &str,
        after: &str,
        each: &mut dyn FnMut(&str, u64) -> bool,
    ) -> Result<(), StoreFault> {
        let both = LOG_KEYS.iter().any(|known| known.starts_with(prefix));
        match LOG_KEYS.iter().any(|known| known.ends_with('/') && prefix.starts_with(known)) {
            true => self.log.list(prefix, after, each),
            false if both => self.merge(prefix, after, each),
            false => self.objects.list(prefix, after, each),
        }
    }

    fn delete(&self, key: &str) -> Result<(), StoreFault> {
        self.of(key).delete(key)
    }

    fn delete_all(&self, keys: &[&str]) -> Result<Deletions, StoreFault> {
        match keys.iter().any(|key| is_log(key)) {
            true => Ok(keys.iter().map(|key| self.delete(key)).collect()),
            false => self.objects.delete_all(keys),
        }
    }

    fn delete_keys_max(&self) -> usize {
        self.objects.delete_keys_max()
    }

    fn set_lease_deadline(&self, ms: u64) {
        self.log.set_lease_deadline(ms);
    }

    /// Of the store of objects, if it says one: the log's may run on the nodes themselves.
    fn time(&self) -> Option<StoreTime> {
        self.objects.time().or_else(|| self.log.time())
    }

    fn credentials(&self) -> Option<String> {
        self.objects.credentials()
    }

    /// Of the log's store: that is where versions get in the way.
    /// Of the log's store: that is where conditions matter.
    fn ways(&self) -> Vec<Arc<dyn Store>> {
        self.log.ways()
    }

    fn versioning(&self) -> Result<Versioning, StoreFault> {
        self.log.versioning()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::home::HOME_KEY;
    use crate::format::repo::REPO_FORMAT_KEY;
    use crate::id::{Epoch, Slot};
    use crate::log::keys;
    use crate::store::memory::MemoryStore;

    fn split() -> SplitStore {
        SplitStore::new(Arc::new(MemoryStore::default()), Arc::new(MemoryStore::default()))
    }

    fn listed(store: &dyn Store, prefix: &str, after: &str) -> Vec<String> {
        let mut found = Vec::new();
        store
            .list(prefix, after, &mut |key, _| {
                found.push(key.to_owned());
                true
            })
            .unwrap();
        found
    }

    #[test]
    fn each_key_has_one_home() {
        let store = split();
        let log = [
            keys::epoch(Epoch(1)),
            keys::beat(Epoch(1)),
            keys::slot(Slot(1)),
            keys::boundary(Slot(1)),
            HOME_KEY.to_owned(),
            "probe/1/race".to_owned(),
        ];
        let objects = [
            keys::checkpoint(Slot(1), &[0; 16]),
            "obj/1".into(),
            "seg/1".into(),
            REPO_FORMAT_KEY.into(),
            "homes".into(),
        ];
        for key in log.iter().chain(&objects) {
            store.put(key, &[b"x"], PutMode::Replace).unwrap();
        }
        for (side, names) in [(store.log(), &log[..]), (store.objects(), &objects[..])] {
            let mut expected = names.to_vec();
            expected.sort();
            assert_eq!(listed(&**side, "", ""), expected);
        }
        for key in log.iter().chain(&objects) {
            assert_eq!(store.get(key, ByteRange::Whole(1), &mut Vec::new()), Ok(1), "{key}");
            store.delete(key).unwrap();
        }
        assert_eq!((listed(&**store.log(), "", ""), listed(&**store.objects(), "", "")), (vec![], vec![]));
    }

    #[test]
    fn the_object_store_is_not_asked_for_conditions() {
        let store = split();
        let kind = |key: &str| store.put(key, &[b"x"], PutMode::CreateOnly).err().map(|fault| fault.kind);
        for key in ["log/1", "home", "format"] {
            assert_eq!((kind(key), kind(key)), (None, Some(StoreFaultKind::Exists)), "{key}");
        }
        assert_eq!((kind("obj/1"), kind("obj/1")), (None, None), "unique by its name");
    }

    #[test]
    fn listings_are_merged_in_order_and_strays_are_passed_over() {
        let store = split();
        let mut expected = Vec::new();
        for n in 0..MERGE_KEYS + 500 {
            for key in [format!("log/{n:08}"), format!("obj/{n:08}"), format!("l/{n:08}")] {
                store.put(&key, &[b"x"], PutMode::Replace).unwrap();
                expected.push(key);
            }
        }
        expected.sort();
        // A log that was in the object store before is not this one.
        for n in 0..2 * MERGE_KEYS {
            store.objects().put(&format!("log/{n:08}"), &[b"old"], PutMode::Replace).unwrap();
        }
        assert_eq!(listed(&store, "", ""), expected);
        assert_eq!(listed(&store, "", &expected[1700]), expected[1701..]);
        assert_eq!(listed(&store, "l", ""), expected[..2 * (MERGE_KEYS + 500)]);
        assert_eq!(listed(&store, "log/", "").len(), MERGE_KEYS + 500);
        assert_eq!(listed(&store, "obj/", "obj/00000003").len(), MERGE_KEYS + 496);
        let mut left = 3;
        store
            .list("", "", &mut |_, _| {
                left -= 1;
                left > 0
            })
            .unwrap();
        assert_eq!(left, 0, "it ends when its caller says so");
    }
}
