//! What a restore could not do: typed reasons, and the bounded list of them that a report carries.
//!
//! What fails belongs to one item, or to the whole target:
//!
//! | errno of a call on the target | what it concerns |
//! |---|---|
//! | `ENOSPC` `EDQUOT` `EROFS` `EIO` `ENXIO` `ENODEV` `ESTALE` `ESHUTDOWN` | the item, unless the target takes no other file either ([`is_target_in_doubt`]) |
//! | `EMFILE` `ENFILE` | the restore: no further file can be opened ([`is_fatal`]) |
//! | everything else: `EPERM` `EFBIG` `ENAMETOOLONG` `EACCES` ... | the item |
//!
//! What no target of this kind can take (a feature, not a failure) is named once for all items, with their number.
//!
//! Invariants: a reason names what is missing or was not set, so that nothing is silently less (promise P1). The list is bounded by
//! [`FAULTS_MAX`]; what does not fit is counted.
//! Does not: decide what ends a restore ([`RestoreFault`] does). Source: ours.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use rustix::io::Errno;

use super::walk::FOLDED_NAMES_MAX;
use crate::foreign::name as printable;
use crate::format::fault::FormatFault;
use crate::id::{Lin, ObjectId};
use crate::store::StoreFault;
use crate::table::lost::LostRows;
use crate::table::source::TableFault;
use crate::units::Grouped;

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
        match &self.path[..] {
            b"" => write!(f, "the target itself: {}", self.reason),
            path => write!(f, "{}: {}", printable(path), self.reason),
        }
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
    /// A directory with contents is where something else should be, and only replacing everything may remove it.
    FullDirectory,
    /// The selected path leads through a symlink, which is not followed; its target.
    ThroughSymlink(Vec<u8>),
    /// The selected path leads through something that is no directory.
    NotADirectory,
    /// The directory holds the repository that is restored from.
    TheRepository,
    /// Something that was replaced could not be removed; the directory below the target that holds it.
    NotRemoved(String),
    /// Another name of a file that was not restored; its first name.
    OtherName(Vec<u8>),
    /// The root directory of the volume could not be read when it was backed up.
    NoRoot,
    /// No directory names the item any more (the directory was damaged): it is restored as `lost+found/INODE`.
    NoName,
    /// The names of one file that are there, and those that were missing, are not the same file.
    NotOneFile,
    /// Something that this target does not keep. Named once, by the first item.
    NotKept {
        /// What.
        what: Feature,
        /// How many items had it.
        items: u64,
    },
    /// Another name of its directory is the same to this target, which ignores case.
    SameName,
    /// The directory has more names than are told apart on a target that ignores case.
    TooManyNames,
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
    /// A stored object is missing.
    Missing {
        /// Which.
        object: ObjectId,
        /// First byte of the block in the item.
        offset: u64,
    },
    /// A stored object is there, but shorter than its rows say: damaged for good, unlike one that is missing and may come back.
    Short {
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
                f.write_str("something of another type is in the way; move it away, or give --existing overwrite")
            }
            Reason::FullDirectory => f.write_str(
                "a directory that is not empty is in the way; move it away, or give --existing overwrite, which removes it",
            ),
            Reason::ThroughSymlink(target) => write!(
                f,
                "is a symlink to {}, which is not followed; give the path that it leads to",
                printable(target)
            ),
            Reason::NotADirectory => f.write_str("is not a directory, so nothing is below it"),
            Reason::TheRepository => {
                f.write_str("this directory is the repository itself; nothing was restored into it")
            }
            Reason::NotRemoved(left) => {
                write!(f, "something that was replaced could not be removed; it is in {left}")
            }
            Reason::OtherName(first) => {
                write!(f, "another name of {}, which was not restored", printable(first))
            }
            Reason::NoRoot => f.write_str(
                "the root directory of the volume could not be read when it was backed up; what it held is below lost+found, by inode number",
            ),
            Reason::NoName => f.write_str("its name was lost with a damaged directory; restored under its inode number"),
            Reason::NotOneFile => {
                f.write_str("restored as a file of its own, because the other names of it that were there cannot be linked to")
            }
            Reason::NotKept { what, items: 1 } => write!(f, "{what}"),
            Reason::NotKept { what, items } => write!(f, "{what}; the same for {} more items", Grouped(items - 1)),
            Reason::SameName => f.write_str(
                "another name in its directory differs only in case, which this target ignores; restore it to another directory",
            ),
            Reason::TooManyNames => write!(
                f,
                "more than {} names are in its directory, too many to tell apart on a target that ignores case; not restored",
                Grouped(FOLDED_NAMES_MAX as u64)
            ),
            Reason::TooDeep => f.write_str("directories nest too deep here; what is below was not restored"),
            Reason::NotFound => f.write_str("not in this recovery point"),
            Reason::NoItem(lin) => write!(f, "no row for item {lin}"),
            Reason::Rows(rule) => write!(f, "the tables contradict themselves: {rule}"),
            Reason::System { call, errno } => write!(f, "{call}: {errno}"),
            Reason::Xattr { name, errno } => {
                write!(f, "attribute {} not set: {errno}", printable(name))
            }
            Reason::Damaged { object, frame_offset, offset, what } => {
                write!(f, "bytes from {offset} on are damaged (object {object}, byte {frame_offset}): {what}")
            }
            Reason::Missing { object, offset } => {
                write!(f, "bytes from {offset} on are missing: object {object} is not in the store")
            }
            Reason::Short { object, offset } => {
                write!(f, "bytes from {offset} on are missing: object {object} is cut short")
            }
            Reason::Lost(lost) => write!(f, "not restored, or not all of it: {lost}"),
            Reason::Backup(words) => write!(f, "incomplete since its backup: {words}"),
        }
    }
}

/// Something that a file system may not be able to keep. `Display` says what is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Feature {
    /// fs-verity.
    Verity,
    /// Names of a directory that differ in case are the same.
    CaseFolding,
    /// Compression, or that there is to be none.
    Compression,
    /// Writing in place.
    NoCopyOnWrite,
    /// Direct access.
    Dax,
    /// One or more of the flags immutable, append-only and so on.
    Flags,
    /// Hint for the size of extents.
    ExtentSize,
    /// The same for copies on write.
    CowExtentSize,
    /// XFS's other flags.
    XfsFlags,
    /// Space that was allocated past the end of a file.
    Preallocation,
    /// The setuid and setgid bits, and file capabilities.
    Privileges,
    /// Extended attributes.
    Xattrs,
    /// POSIX ACLs.
    Acls,
}

impl fmt::Display for Feature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Feature::Verity => "fs-verity is not restored (contents are); enable it again",
            Feature::CaseFolding => "the target does not take case-insensitive directories; names are case-sensitive now",
            Feature::Compression => "the compression flag is not kept by the target",
            Feature::NoCopyOnWrite => "the no-copy-on-write flag is not kept by the target",
            Feature::Dax => "the DAX flag is not kept by the target",
            Feature::Flags => "not all inode flags (lsattr) are kept by the target",
            Feature::ExtentSize => "the extent size hint is not kept by the target",
            Feature::CowExtentSize => "the extent size hint for copies on write is not kept by the target",
            Feature::XfsFlags => {
                "not all of XFS's inode flags (no-defrag, no-symlinks, realtime inheritance, file streams) are kept by the target"
            }
            Feature::Preallocation => {
                "space past the end of the file was allocated in too many pieces; not all of it is allocated again"
            }
            Feature::Xattrs => "not all extended attributes are kept by the target",
            Feature::Acls => "ACLs are not kept by the target; only owner, group and mode are",
            Feature::Privileges => {
                "setuid, setgid and file capabilities are left out, because the owner is another one now"
            }
        })
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
    /// The target is full: nothing more fits. What is there stays.
    Full(Errno),
    /// The target is a file that exists.
    Exists,
    /// The target is a symlink that leads nowhere.
    DanglingLink,
    /// The target would be a plain file or directory among the device nodes: a misspelt device.
    NoSuchDevice,
    /// The target device takes no writes.
    ReadOnlyDevice,
    /// The target is the repository's own directory, or lies in it.
    TheRepository,
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
    /// A stop was asked for.
    Cancelled,
}

impl fmt::Display for RestoreFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RestoreFault::Rows(fault) => write!(f, "reading the tables: {fault}"),
            RestoreFault::Store(fault) => write!(f, "reading the store: {fault}"),
            RestoreFault::Target { call, errno } => write!(f, "writing to the target: {call}: {errno}"),
            RestoreFault::Full(errno) => write!(
                f,
                "the target takes no more files ({errno}); what was restored so far stays. Make room and repeat the same command: it goes on there"
            ),
            RestoreFault::DanglingLink => f.write_str(
                "is a symlink to something that does not exist; make that first, or name another target",
            ),
            RestoreFault::NoSuchDevice => {
                f.write_str("there is no such device, and nothing but devices belongs there; check the name")
            }
            RestoreFault::ReadOnlyDevice => f.write_str(
                "the device is read-only; nothing was written (blockdev --setrw makes it writable)",
            ),
            RestoreFault::TheRepository => {
                f.write_str("lies in the repository itself; restore to another directory")
            }
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
    /// By kind: how many items, and the first one's path.
    not_kept: Mutex<BTreeMap<Feature, (u64, Vec<u8>)>>,
}

impl FaultLog {
    /// Adds a fault; beyond [`FAULTS_MAX`] it is only counted. What the target does not keep is one fault of each kind.
    pub fn add(&self, path: Vec<u8>, reason: Reason) {
        if let Reason::NotKept { what, items } = reason {
            let mut kinds = self.not_kept.lock().unwrap_or_else(PoisonError::into_inner);
            kinds.entry(what).or_insert((0, path)).0 += items;
        } else {
            self.push(path, reason);
        }
    }

    /// Adds a fault unless it is there.
    pub fn add_new(&self, path: Vec<u8>, reason: Reason) {
        let list = self.list.lock().unwrap_or_else(PoisonError::into_inner);
        let is_known = list.iter().any(|fault| fault.path == path && fault.reason == reason);
        drop(list);
        if !is_known {
            self.add(path, reason);
        }
    }

    /// Whether there is none, but for what the target does not keep.
    pub fn is_empty(&self) -> bool {
        self.count.load(Ordering::Relaxed) == 0
    }

    fn push(&self, mut path: Vec<u8>, reason: Reason) {
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
        let kinds = std::mem::take(&mut *self.not_kept.lock().unwrap_or_else(PoisonError::into_inner));
        for (what, (items, path)) in kinds {
            self.push(path, Reason::NotKept { what, items });
        }
        let mut list = std::mem::take(&mut *self.list.lock().unwrap_or_else(PoisonError::into_inner));
        list.sort_by(|a, b| a.path.cmp(&b.path));
        (list, self.count.load(Ordering::Relaxed))
    }
}

/// Whether a failed call means that no further file can be opened, wherever.
pub fn is_fatal(errno: Errno) -> bool {
    matches!(errno, Errno::MFILE | Errno::NFILE)
}

/// Whether a failed call on one item raises the question whether the target takes anything at all.
pub fn is_target_in_doubt(errno: Errno) -> bool {
    is_space(errno)
        || matches!(
            errno,
            Errno::ROFS | Errno::IO | Errno::NODEV | Errno::NXIO | Errno::STALE | Errno::SHUTDOWN
        )
}

/// Whether there was no room, or more than the owner may have.
pub fn is_space(errno: Errno) -> bool {
    matches!(errno, Errno::NOSPC | Errno::DQUOT)
}
