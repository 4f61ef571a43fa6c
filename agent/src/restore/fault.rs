//! What a restore could not do: typed reasons, and the bounded list of them that a report carries.
//!
//! Invariants: a reason names what is missing or was not set, so that nothing is silently less (promise P1). The list is bounded by
//! [`FAULTS_MAX`]; what does not fit is counted.
//! Does not: decide what ends a restore ([`RestoreFault`] does). Source: ours.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use rustix::io::Errno;

use crate::format::fault::FormatFault;
use crate::id::{Lin, ObjectId};
use crate::store::StoreFault;
use crate::table::lost::LostRows;
use crate::table::source::TableFault;

/// Most faults that a report names; more are counted. 1,000 paths are what a person reads, and at most 4 MiB.
pub const FAULTS_MAX: usize = 1000;

/// Most bytes of a path in a report; a longer one keeps its end.
pub const FAULT_PATH_BYTES_MAX: usize = 4096;

/// One thing that is not as the recovery point has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ItemFault {
    /// Path below the target, bytes as they are; empty for the target itself.
    pub path: Vec<u8>,
    /// What is wrong.
    pub reason: Reason,
}

impl fmt::Display for ItemFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", String::from_utf8_lossy(&self.path).escape_debug(), self.reason)
    }
}

/// What is wrong with one item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The name is empty, `.`, `..`, too long, or holds a slash or NUL: it would leave its directory.
    BadName,
    /// Something of that name is there, and the options say not to replace it.
    Exists,
    /// Something that is not a directory is where a directory should be (or a directory where something else should be).
    InTheWay,
    /// Directories nest deeper than a restore follows.
    TooDeep,
    /// The selected path is not in the recovery point.
    NotFound,
    /// A name leads to an item that has no row.
    NoItem(Lin),
    /// The item's rows contradict each other; which rule.
    Rows(&'static str),
    /// A call to the system failed.
    System {
        /// Which call, for people.
        call: &'static str,
        /// Why.
        errno: Errno,
    },
    /// An extended attribute was not set.
    Xattr {
        /// Its name.
        name: Vec<u8>,
        /// Why.
        errno: Errno,
    },
    /// Stored bytes are damaged.
    Damaged {
        /// In which object.
        object: ObjectId,
        /// Offset of the frame in the object.
        frame_offset: u32,
        /// First byte of the block in the item.
        offset: u64,
        /// What the check said.
        what: FormatFault,
    },
    /// A stored object is missing, or shorter than its rows say.
    Missing {
        /// Which.
        object: ObjectId,
        /// First byte of the block in the item.
        offset: u64,
    },
    /// Rows of the item are among those that cannot be read.
    Lost(LostRows),
    /// The backup said that it could not read all of the item; its own words.
    Backup(String),
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::BadName => f.write_str("the name is not one that a directory can hold; refused"),
            Reason::Exists => f.write_str("exists already; not replaced"),
            Reason::InTheWay => {
                f.write_str("something of another type is in the way; move it away and repeat")
            }
            Reason::TooDeep => f.write_str("directories nest too deep here; what is below was not restored"),
            Reason::NotFound => f.write_str("not in this recovery point"),
            Reason::NoItem(lin) => write!(f, "no row for item {lin}"),
            Reason::Rows(rule) => write!(f, "the tables contradict themselves: {rule}"),
            Reason::System { call, errno } => write!(f, "{call}: {errno}"),
            Reason::Xattr { name, errno } => {
                write!(f, "attribute {} not set: {errno}", String::from_utf8_lossy(name).escape_debug())
            }
            Reason::Damaged { object, frame_offset, offset, what } => {
                write!(f, "bytes from {offset} on are damaged (object {object}, byte {frame_offset}): {what}")
            }
            Reason::Missing { object, offset } => {
                write!(f, "bytes from {offset} on are missing: object {object} is gone or cut short")
            }
            Reason::Lost(lost) => write!(f, "not restored, or not all of it: {lost}"),
            Reason::Backup(words) => write!(f, "incomplete since its backup: {words}"),
        }
    }
}

/// Why a restore ended early.
#[derive(Debug)]
pub enum RestoreFault {
    /// The tables cannot be read.
    Rows(TableFault),
    /// The store does not answer.
    Store(StoreFault),
    /// The target cannot be used or written to (full, read-only, gone).
    Target {
        /// Which call, for people.
        call: &'static str,
        /// Why.
        errno: Errno,
    },
    /// The target is a file that exists.
    Exists,
    /// The target device is smaller than the item.
    TooSmall {
        /// Bytes that it has.
        have: u64,
        /// Bytes that it needs.
        need: u64,
    },
    /// The item asked for is not one that this target can take.
    WrongItem(&'static str),
    /// No memory or threads for the work.
    Resources(&'static str),
    /// Somebody asked to stop.
    Cancelled,
}

impl fmt::Display for RestoreFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RestoreFault::Rows(fault) => write!(f, "reading the tables: {fault}"),
            RestoreFault::Store(fault) => write!(f, "reading the store: {fault}"),
            RestoreFault::Target { call, errno } => write!(f, "writing to the target: {call}: {errno}"),
            RestoreFault::Exists => f.write_str("the file exists; move it away, or name another"),
            RestoreFault::TooSmall { have, need } => {
                write!(f, "the target has {have} bytes, and the item needs {need}")
            }
            RestoreFault::WrongItem(why) => f.write_str(why),
            RestoreFault::Resources(what) => write!(f, "not enough {what}"),
            RestoreFault::Cancelled => f.write_str("cancelled"),
        }
    }
}

impl std::error::Error for RestoreFault {}

impl From<TableFault> for RestoreFault {
    fn from(fault: TableFault) -> RestoreFault {
        RestoreFault::Rows(fault)
    }
}

/// Faults of items as they are found, by any thread.
#[derive(Debug, Default)]
pub struct FaultLog {
    list: Mutex<Vec<ItemFault>>,
    count: AtomicU64,
}

impl FaultLog {
    /// Adds a fault; beyond [`FAULTS_MAX`] it is only counted.
    pub fn add(&self, mut path: Vec<u8>, reason: Reason) {
        self.count.fetch_add(1, Ordering::Relaxed);
        if path.len() > FAULT_PATH_BYTES_MAX {
            path.drain(..path.len() - FAULT_PATH_BYTES_MAX);
        }
        let mut list = self.list.lock().unwrap_or_else(PoisonError::into_inner);
        if list.len() < FAULTS_MAX {
            list.push(ItemFault { path, reason });
        }
    }

    /// The faults, by path, and how many there were in all.
    pub fn take(&self) -> (Vec<ItemFault>, u64) {
        let mut list = std::mem::take(&mut *self.list.lock().unwrap_or_else(PoisonError::into_inner));
        list.sort_by(|a, b| a.path.cmp(&b.path));
        (list, self.count.load(Ordering::Relaxed))
    }
}

/// Whether a failed call on the target means that no further call will do better: full, read-only, gone.
pub fn is_fatal(errno: Errno) -> bool {
    matches!(
        errno,
        Errno::NOSPC | Errno::DQUOT | Errno::ROFS | Errno::IO | Errno::NODEV | Errno::MFILE | Errno::NFILE
    )
}
