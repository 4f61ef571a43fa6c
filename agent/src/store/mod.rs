//! Object stores: the four calls that all other code uses, and what their answers mean.
//!
//! | module | what |
//! |---|---|
//! | [`azure`] | Azure Blob (`az://account/container/prefix`): shared key or SAS |
//! | [`dir`] | a directory (`file://`): create by hard link, fsynced, safe between processes |
//! | [`etcd`] | etcd 3.4 and later (`etcd://host:2379/prefix`), for the commit log only |
//! | [`gcs`] | Google Cloud Storage (`gs://bucket/prefix`): service account, metadata server |
//! | [`s3`] | S3 and compatible (`s3://bucket/prefix`): SigV4, ureq, rustls |
//! | [`http`] | how servers are reached: agent, TLS, timeouts |
//! | [`keyring`] | credentials from files and the environment |
//! | [`memory`] | a map, for tests and simulations |
//! | [`null`] | `null://`, a measuring tool: a directory without the data |
//! | [`open`](mod@open) | from a URL to a store |
//! | [`over`] | a store in front of another one, which does what it does not do itself |
//! | [`probe`](mod@probe) | what a store must prove before it is written to (C6) |
//! | [`retry`] | the only place that repeats a call, with a budget |
//! | [`split`] | two stores as one: the log in one that keeps conditions, objects in one that need not |
//! | [`time`] | what time a store says that it is |
//! | [`throttle`] | bandwidth limits, shared by all calls of a store |
//! | [`uplink`] | the fixed set of threads that block on a store, and their queues |
//!
//! Needs from a store, and nothing else: create-only PUT, plain PUT, strongly consistent GET and LIST, DELETE.
//! Keys are relative to the repository's prefix: `[a-z0-9/_-]`, no leading or trailing slash.
//!
//! Source: `agent/doc/commit-log.md`, Answers to a create.

pub mod azure;
pub mod dir;
pub mod etcd;
pub mod gcs;
pub mod http;
pub mod keyring;
pub mod memory;
pub mod null;
pub mod open;
pub mod over;
pub mod probe;
pub mod retry;
pub mod s3;
pub mod split;
pub mod throttle;
pub mod time;
pub mod uplink;

use std::fmt;
use std::sync::Arc;

use crate::foreign;

use time::StoreTime;

/// Longest key in bytes. Ours are below 90; S3 allows 1024 with the prefix.
pub const KEY_BYTES_MAX: usize = 512;
/// Most components of a key. Ours have at most 4; a directory walk nests no deeper than this.
pub const KEY_DEPTH_MAX: usize = 8;
/// Largest body in bytes of a create-only PUT of an upload: some servers hold a lock while such a body streams
/// (`agent/doc/commit-log.md`, What stores get wrong).
pub const CONDITIONAL_BODY_BYTES_MAX: u64 = 64 * 1024;
/// Keys of the lease and of the log, which no rate limit applies to: a beat must not wait behind data, and all of them are small.
pub const URGENT_KEYS: [&str; 4] = ["beat/", "boundary/", "epoch/", "log/"];
/// Of those, what the lease depends on: a call has the store's lease deadline and no more.
pub const LEASE_KEYS: [&str; 2] = ["beat/", "epoch/"];
/// Keys of metadata, which goes before data within a rate limit: it names what is stored already, and until it is stored too a crash costs
/// all of that again.
pub const METADATA_KEYS: [&str; 2] = ["ckpt/", "seg/"];
/// How long a call of the lease may take until [`Store::set_lease_deadline`] says otherwise, in milliseconds: a quarter of the usual
/// lease of 15 s, so that three of them fit in before it ends.
pub const LEASE_CALL_MS: u64 = 3_750;

/// Whether no rate limit applies to `key`.
pub fn is_urgent(key: &str) -> bool {
    URGENT_KEYS.iter().any(|prefix| key.starts_with(prefix))
}

/// Whether `key` goes before data.
pub fn is_metadata(key: &str) -> bool {
    METADATA_KEYS.iter().any(|prefix| key.starts_with(prefix))
}

/// Whether the lease depends on `key`.
pub fn is_of_lease(key: &str) -> bool {
    LEASE_KEYS.iter().any(|prefix| key.starts_with(prefix))
}

/// A single attempt at each call; implementations do not repeat anything. Calls block. Shared between uplink threads.
pub trait Store: Send + Sync {
    /// How people write it: `file:///srv/repo`, `s3://bucket/prefix at https://host`; no secrets in it.
    fn describe(&self) -> String;

    /// Stores `body` (the concatenation of its parts) under `key`.
    fn put(&self, key: &str, body: &[&[u8]], mode: PutMode) -> Result<(), StoreFault>;

    /// Reads `range` of `key`, appending to `out`; returns the object's whole size. A range past the end is cut there.
    /// On a fault `out` is as it was.
    fn get(&self, key: &str, range: ByteRange, out: &mut Vec<u8>) -> Result<u64, StoreFault>;

    /// The same over a connection that was not used before, so that another server or proxy may answer. Where there are no connections it is
    /// [`Store::get`].
    fn get_afresh(&self, key: &str, range: ByteRange, out: &mut Vec<u8>) -> Result<u64, StoreFault> {
        self.get(key, range, out)
    }

    /// Calls `each` with (key, size) of every object whose key starts with `prefix` and is greater than `after`, ascending,
    /// until it returns `false`.
    fn list(
        &self,
        prefix: &str,
        after: &str,
        each: &mut dyn FnMut(&str, u64) -> bool,
    ) -> Result<(), StoreFault>;

    /// Deletes `key`; an absent key is success.
    fn delete(&self, key: &str) -> Result<(), StoreFault>;

    /// Keys that one request deletes at most; 1 where each needs its own.
    fn delete_keys_max(&self) -> usize {
        1
    }

    /// Deletes as many keys as [`Store::delete_keys_max`] says with one request; an absent key is success. What became of each, in their order.
    ///
    /// # Errors
    /// It is not known what became of any. [`StoreFaultKind::Unsupported`]: the server has no such request, so that each key needs
    /// [`Store::delete`].
    fn delete_all(&self, keys: &[&str]) -> Result<Deletions, StoreFault> {
        Ok(keys.iter().map(|key| self.delete(key)).collect())
    }

    /// From now on a call of the lease ([`LEASE_KEYS`]) is given up after so many milliseconds. A store without connections has no
    /// deadlines: it does nothing.
    fn set_lease_deadline(&self, _ms: u64) {}

    /// What time the store said last that it is, in any answer. `None`: it says none, or has not answered yet.
    fn time(&self) -> Option<StoreTime> {
        None
    }

    /// Where its credentials are from, for people: nothing secret. `None`: it needs none.
    fn credentials(&self) -> Option<String> {
        None
    }

    /// Ways to the same store that are apart from each other: one for each address that the name of its server resolves to, where those are
    /// several. A probe races over them. Blocks.
    fn ways(&self) -> Vec<Arc<dyn Store>> {
        Vec::new()
    }

    /// Whether the store keeps old versions of what is replaced or deleted. Asked once, by the probe.
    fn versioning(&self) -> Result<Versioning, StoreFault> {
        Ok(Versioning::Off)
    }
}

/// What became of each key of a [`Store::delete_all`].
pub type Deletions = Vec<Result<(), StoreFault>>;

/// Whether a bucket keeps old versions. Some servers ignore create-only conditions where it does or once did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Versioning {
    /// Never switched on.
    Off,
    /// Switched on.
    On,
    /// Was on; versions from then are kept.
    Suspended,
    /// The server does not answer this question (no permission, or no such call).
    NotTold,
}

/// How a PUT treats an existing object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PutMode {
    /// Fails with [`StoreFaultKind::Exists`] when the key exists, atomically.
    CreateOnly,
    /// Replaces what is there.
    Replace,
}

/// Which bytes of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ByteRange {
    /// All of it, when it has at most so many bytes. A larger object is [`StoreFaultKind::TooLong`] and none of it is read: what a
    /// server sends is not what bounds our memory.
    Whole(u64),
    /// `len` bytes from `offset`.
    From {
        /// Offset of the first byte.
        offset: u64,
        /// Bytes, at least 1.
        len: u64,
    },
    /// The last `n` bytes, or all when it is shorter.
    Last(u64),
}

impl ByteRange {
    /// Refuses an object of `size` bytes when all of it was asked for and it is larger than that may be.
    fn check_size(self, key: &str, size: u64) -> Result<(), StoreFault> {
        match self {
            ByteRange::Whole(most) if size > most => {
                let detail = format!("{size} bytes, where {most} are the most that this may have");
                Err(StoreFault::new(StoreFaultKind::TooLong, "GET", key, detail))
            }
            ByteRange::Whole(_) | ByteRange::From { .. } | ByteRange::Last(_) => Ok(()),
        }
    }

    /// The (offset, length) that this range means in an object of `size` bytes, cut at its end.
    pub fn resolve(self, size: u64) -> (u64, u64) {
        match self {
            ByteRange::Whole(_) => (0, size),
            ByteRange::From { offset, len } => {
                let offset = offset.min(size);
                (offset, len.min(size - offset))
            }
            ByteRange::Last(n) => {
                let len = n.min(size);
                (size - len, len)
            }
        }
    }
}

/// Total bytes of a body's parts.
pub fn body_bytes(body: &[&[u8]]) -> u64 {
    body.iter().map(|part| part.len() as u64).sum()
}

/// Whether `key` may name an object: see the module's doc. Rules out `.`, `..` and empty components by its alphabet.
pub fn is_valid_key(key: &str) -> bool {
    !key.is_empty() && !key.ends_with('/') && is_valid_prefix(key)
}

/// Whether `prefix` may be listed: like a key, or empty, or ending in a slash.
pub fn is_valid_prefix(prefix: &str) -> bool {
    let whole = prefix.strip_suffix('/').unwrap_or(prefix);
    let components = whole.split('/');
    prefix.is_empty()
        || (prefix.len() <= KEY_BYTES_MAX
            && components.clone().count() <= KEY_DEPTH_MAX
            && components.into_iter().all(|c| !c.is_empty() && c.bytes().all(is_key_byte)))
}

fn is_key_byte(byte: u8) -> bool {
    matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-')
}

fn check_key(verb: &str, key: &str) -> Result<(), StoreFault> {
    if is_valid_key(key) {
        return Ok(());
    }
    Err(StoreFault::new(
        StoreFaultKind::Rejected,
        verb,
        key,
        "not a valid key: a-z 0-9 _ - and single slashes",
    ))
}

fn check_prefix(prefix: &str) -> Result<(), StoreFault> {
    if is_valid_prefix(prefix) {
        return Ok(());
    }
    Err(StoreFault::new(StoreFaultKind::Rejected, "LIST", prefix, "not a valid prefix"))
}

/// Why a call failed: the kind, the key, and the server's message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreFault {
    /// The kind of failure.
    pub kind: StoreFaultKind,
    /// "PUT", "GET", "LIST", "DELETE" and the key.
    pub call: String,
    /// Message of the server or the system, for people.
    pub detail: String,
}

/// The kinds of store failure. See rules C2 and C3 for what each means for a create of a log slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StoreFaultKind {
    /// Create-only, and the key exists (412, Azure 409 BlobAlreadyExists, EEXIST).
    Exists,
    /// Nothing was decided; the same call may be repeated (409 ConditionalRequestConflict, OperationAborted).
    Conflict,
    /// No such key.
    NotFound,
    /// The bucket, container or directory itself is gone.
    StoreGone,
    /// Credentials refused or revoked (401, 403), or a directory that this user may not use (EACCES).
    Denied,
    /// A file system that is mounted read-only.
    ReadOnly,
    /// No space, or a quota.
    Full,
    /// No clear answer: timeout, reset, 5xx, 429, a truncated body. The call may have been applied.
    Unknown,
    /// No clear answer for as long as was to be waited; nothing more is asked.
    Silent,
    /// The body arrived changed: a checksum on one of the sides did not match.
    Corrupt,
    /// The object is larger than one of its kind may be; nothing of it was read.
    TooLong,
    /// The store does not do what was asked (501, 400 on a header).
    Unsupported,
    /// Anything else that will not go away by repeating.
    Rejected,
}

impl StoreFault {
    /// A fault of the call `verb key`. `detail` is mostly the server's own words: see [`foreign::message`].
    pub fn new(kind: StoreFaultKind, verb: &str, key: &str, detail: impl Into<String>) -> StoreFault {
        let cut = key.floor_char_boundary(KEY_BYTES_MAX);
        StoreFault { kind, call: format!("{verb} {}", &key[..cut]), detail: foreign::message(&detail.into()) }
    }

    /// Whether the same call may succeed later: what `retry` repeats.
    pub fn is_transient(&self) -> bool {
        matches!(self.kind, StoreFaultKind::Conflict | StoreFaultKind::Unknown | StoreFaultKind::Corrupt)
    }
}

impl fmt::Display for StoreFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            StoreFaultKind::Exists => "exists already",
            StoreFaultKind::Conflict => "conflicts with another request",
            StoreFaultKind::NotFound => "no such object",
            StoreFaultKind::StoreGone => "the bucket or directory is gone",
            StoreFaultKind::Denied => "access denied",
            StoreFaultKind::ReadOnly => "read-only file system",
            StoreFaultKind::Full => "no space left in the store",
            StoreFaultKind::Unknown => "no clear answer from the store",
            StoreFaultKind::Silent => "the store does not answer",
            StoreFaultKind::Corrupt => "bytes were changed on the way",
            StoreFaultKind::TooLong => "larger than such an object can be; something else was stored there",
            StoreFaultKind::Unsupported => "not supported by the store",
            StoreFaultKind::Rejected => "rejected by the store",
        };
        write!(f, "{}: {kind}", self.call)?;
        if !self.detail.is_empty() {
            write!(f, " ({})", self.detail)?;
        }
        Ok(())
    }
}

impl std::error::Error for StoreFault {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_what_we_write_and_nothing_else() {
        for good in ["format", "obj/00000000000000000001/00000000-00/00000001", "a-b/c_d"] {
            assert!(is_valid_key(good), "{good}");
        }
        let deep = ["a"; KEY_DEPTH_MAX].join("/");
        let long = "a".repeat(KEY_BYTES_MAX);
        assert!(is_valid_key(&deep) && is_valid_key(&long));
        for bad in ["", "/a", "a/", "a//b", "..", "a/../b", ".tmp/x", "A", "a b", "ä", "a\0"] {
            assert!(!is_valid_key(bad), "{bad:?}");
        }
        assert!(!is_valid_key(&format!("{deep}/a")) && !is_valid_key(&format!("{long}a")));
        assert!(is_valid_prefix("") && is_valid_prefix("obj/") && is_valid_prefix("obj/00"));
        assert!(!is_valid_prefix("/") && !is_valid_prefix("obj//") && !is_valid_prefix("../"));
    }

    #[test]
    fn ranges_are_cut_at_the_end() {
        assert_eq!(ByteRange::Whole(10).resolve(10), (0, 10));
        assert_eq!(ByteRange::From { offset: 4, len: 6 }.resolve(10), (4, 6));
        assert_eq!(ByteRange::From { offset: 4, len: 7 }.resolve(10), (4, 6));
        assert_eq!(ByteRange::From { offset: 11, len: u64::MAX }.resolve(10), (10, 0));
        assert_eq!(ByteRange::Last(3).resolve(10), (7, 3));
        assert_eq!(ByteRange::Last(11).resolve(10), (0, 10));
    }

    #[test]
    fn details_are_harmless_and_cut() {
        let said = "\u{1b}[2J\n".repeat(foreign::MESSAGE_BYTES_MAX);
        let fault = StoreFault::new(StoreFaultKind::Unknown, "GET", "a", said);
        assert!(
            fault.detail.len() <= foreign::MESSAGE_BYTES_MAX && fault.detail.starts_with("\\u{1b}[2J\\n")
        );
    }
}
