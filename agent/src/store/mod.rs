//! Object stores: the four calls that everything stands on, and what their answers mean.
//!
//! | module | what |
//! |---|---|
//! | `dir` | a directory (`file://`): create by hard link, fsynced, safe between processes |
//! | `s3` | S3 and compatible (`s3://bucket/prefix`): SigV4, ureq, rustls |
//! | `retry` | the only place that repeats a call, with a budget |
//! | `probe` | what a store must prove before it is written to (commit-log C6) |
//! | `uplink` | the fixed set of threads that block on a store, and their queues |
//!
//! Needs from a store, and nothing else: create-only PUT, plain PUT, strongly consistent GET and LIST, DELETE.
//! Keys are relative to the repository's prefix: `[a-z0-9/_-]`, no leading or trailing slash.
//!
//! Source: commit-log design C2, C3; the coordination reference, section 2.2.

use std::fmt;

/// A single attempt at each call; implementations do not repeat anything. Calls block. Shared between uplink threads.
pub trait Store: Send + Sync {
    /// How people write it: `file:///srv/repo`, `s3://bucket/prefix at https://host`; no secrets in it.
    fn describe(&self) -> String;

    /// Stores `body` (the concatenation of its parts) under `key`.
    fn put(&self, key: &str, body: &[&[u8]], mode: PutMode) -> Result<(), StoreFault>;

    /// Reads `range` of `key`, appending to `out`; returns the object's whole size. A range past the end is cut there.
    fn get(&self, key: &str, range: ByteRange, out: &mut Vec<u8>) -> Result<u64, StoreFault>;

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
    /// All of it.
    All,
    /// `len` bytes from `offset`.
    From {
        /// First byte.
        offset: u64,
        /// Bytes, at least 1.
        len: u64,
    },
    /// The last `n` bytes, or all when it is shorter.
    Last(u64),
}

/// Why a call failed: what, with which key, and the server's own words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreFault {
    /// What kind.
    pub kind: StoreFaultKind,
    /// "PUT", "GET", "LIST", "DELETE" and the key.
    pub call: String,
    /// What the server or the system said, for people.
    pub detail: String,
}

/// The kinds of store failure. See commit-log C2 and C3 for what each means for a create of a log slot.
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
    /// Credentials refused or revoked (401, 403, EACCES).
    Denied,
    /// No space, or a quota.
    Full,
    /// No clear answer: timeout, reset, 5xx, 429, a truncated body. The call may have been applied.
    Unknown,
    /// The body arrived changed: a checksum said so, on either side.
    Corrupt,
    /// The store does not do what was asked (501, 400 on a header).
    Unsupported,
    /// Anything else that will not go away by repeating.
    Rejected,
}

impl StoreFault {
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
            StoreFaultKind::Denied => "access denied; check the credentials and their permissions",
            StoreFaultKind::Full => "no space left in the store",
            StoreFaultKind::Unknown => "no clear answer from the store",
            StoreFaultKind::Corrupt => "bytes were changed on the way",
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
