//! A store in front of another one: it does some calls in its own way, and the one behind it does the others.
//!
//! ```text
//!  caller --> [`Over`]: put, get, list, ... --own way or not--> `behind`
//! ```
//!
//! Name the trait by its path where it is implemented (`impl over::Over for ...`): it has the methods of [`Store`], and with both in scope a
//! call would be ambiguous. Source: ours.

use std::sync::Arc;

use super::time::StoreTime;
use super::{ByteRange, Deletions, PutMode, Store, StoreFault, Versioning};

/// What a store in front of another does in its own way; each call that is not written here goes to the one behind it.
pub trait Over: Send + Sync {
    /// The store behind.
    fn behind(&self) -> &dyn Store;

    /// As [`Store::describe`].
    fn describe(&self) -> String {
        self.behind().describe()
    }

    /// As [`Store::put`].
    fn put(&self, key: &str, body: &[&[u8]], mode: PutMode) -> Result<(), StoreFault> {
        self.behind().put(key, body, mode)
    }

    /// As [`Store::get`].
    fn get(&self, key: &str, range: ByteRange, out: &mut Vec<u8>) -> Result<u64, StoreFault> {
        self.behind().get(key, range, out)
    }

    /// As [`Store::get_afresh`]: this store's own way to read, unless it says otherwise.
    fn get_afresh(&self, key: &str, range: ByteRange, out: &mut Vec<u8>) -> Result<u64, StoreFault> {
        self.get(key, range, out)
    }

    /// As [`Store::list`].
    fn list(
        &self,
        prefix: &str,
        after: &str,
        each: &mut dyn FnMut(&str, u64) -> bool,
    ) -> Result<(), StoreFault> {
        self.behind().list(prefix, after, each)
    }

    /// As [`Store::delete`].
    fn delete(&self, key: &str) -> Result<(), StoreFault> {
        self.behind().delete(key)
    }

    /// As [`Store::delete_keys_max`]: one, unless this store says otherwise, so that each key goes its way.
    fn delete_keys_max(&self) -> usize {
        1
    }

    /// As [`Store::delete_all`].
    fn delete_all(&self, keys: &[&str]) -> Result<Deletions, StoreFault> {
        Ok(keys.iter().map(|key| self.delete(key)).collect())
    }

    /// As [`Store::set_lease_deadline`].
    fn set_lease_deadline(&self, ms: u64) {
        self.behind().set_lease_deadline(ms);
    }

    /// As [`Store::time`].
    fn time(&self) -> Option<StoreTime> {
        self.behind().time()
    }

    /// As [`Store::credentials`].
    fn credentials(&self) -> Option<String> {
        self.behind().credentials()
    }

    /// As [`Store::ways`]: past this store.
    fn ways(&self) -> Vec<Arc<dyn Store>> {
        self.behind().ways()
    }

    /// As [`Store::versioning`].
    fn versioning(&self) -> Result<Versioning, StoreFault> {
        self.behind().versioning()
    }
}

impl<T: Over> Store for T {
    fn describe(&self) -> String {
        Over::describe(self)
    }

    fn put(&self, key: &str, body: &[&[u8]], mode: PutMode) -> Result<(), StoreFault> {
        Over::put(self, key, body, mode)
    }

    fn get(&self, key: &str, range: ByteRange, out: &mut Vec<u8>) -> Result<u64, StoreFault> {
        Over::get(self, key, range, out)
    }

    fn get_afresh(&self, key: &str, range: ByteRange, out: &mut Vec<u8>) -> Result<u64, StoreFault> {
        Over::get_afresh(self, key, range, out)
    }

    fn list(
        &self,
        prefix: &str,
        after: &str,
        each: &mut dyn FnMut(&str, u64) -> bool,
    ) -> Result<(), StoreFault> {
        Over::list(self, prefix, after, each)
    }

    fn delete(&self, key: &str) -> Result<(), StoreFault> {
        Over::delete(self, key)
    }

    fn delete_keys_max(&self) -> usize {
        Over::delete_keys_max(self)
    }

    fn delete_all(&self, keys: &[&str]) -> Result<Deletions, StoreFault> {
        Over::delete_all(self, keys)
    }

    fn set_lease_deadline(&self, ms: u64) {
        Over::set_lease_deadline(self, ms);
    }

    fn time(&self) -> Option<StoreTime> {
        Over::time(self)
    }

    fn credentials(&self) -> Option<String> {
        Over::credentials(self)
    }

    fn ways(&self) -> Vec<Arc<dyn Store>> {
        Over::ways(self)
    }

    fn versioning(&self) -> Result<Versioning, StoreFault> {
        Over::versioning(self)
    }
}
