//! What a restore makes in a target: files, directories and what they carry, each reached from an open directory by one name.
//!
//! ```text
//!  Opened  root --open_dir--> Node (directory) --create_unnamed--> Node (file) --write_at, attributes--> link to its name
//!                                  '-- make_dir, symlink, make_special, rename, remove, names
//! ```
//!
//! Invariants
//! - A name is one component. No symlink is followed, and nothing outside of the target is reached.
//! - A call has its whole effect or none, except a write, which may have written a part.
//! - What was made is durable after [`Node::sync_all`] (or [`Node::sync`], for the contents of a file) returned, and not before: a
//!   power failure may take names, contents or both.
//! - Every failed call returns the system's error number; the caller knows the path.
//!
//! Does not: decide what to make, retry, or clean up. Source: ours; open(2), linkat(2), renameat2(2), ioctl_iflags(2).

use std::fmt::Debug;

pub use rustix::io::Errno;

use crate::volume::{Hints, ItemKind, Timestamp};

/// What an open node or a name is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// Type of the node; never an image.
    pub kind: ItemKind,
    /// Permission bits, `0..=0o7777`.
    pub mode: u16,
    /// User id of the owner.
    pub uid: u32,
    /// Group id of the owner.
    pub gid: u32,
    /// Size of a file in bytes.
    pub size: u64,
    /// Last access.
    pub atime: Timestamp,
    /// Last change of the contents.
    pub mtime: Timestamp,
    /// Number of its file system.
    pub device: u64,
    /// Number in its file system.
    pub inode: u64,
    /// Names that lead to it.
    pub links: u64,
}

/// What a rename does with a name that is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// Fails with `EEXIST`. `EINVAL` where the file system cannot do that in one step.
    Refuse,
    /// Takes its place: of anything that is no directory (`EISDIR`).
    Replace,
    /// Both change places. `EINVAL` where the file system cannot.
    Exchange,
}

/// A target that was opened, and its properties.
#[derive(Debug)]
pub struct Opened<N> {
    /// Its top directory.
    pub root: N,
    /// Whether it was made for this.
    pub made: bool,
    /// File mode creation mask of the process; `None` when unknown.
    pub umask: Option<u16>,
    /// Differs after each start of the machine: writes from before the last start may not have reached the medium. Not 0.
    pub boot: u32,
}

/// An open directory or file.
pub trait Node: Debug + Send + Sync + Sized {
    /// Opens the directory `name`. Errors: `ENOTDIR` or `ELOOP` when it is something else.
    fn open_dir(&self, name: &[u8]) -> Result<Self, Errno>;

    /// Opens the file `name`, for its flags only.
    fn open_file(&self, name: &[u8]) -> Result<Self, Errno>;

    /// Opens the file `name` for reading and writing. Errors: `ELOOP` for a symlink; `EPERM` when it is immutable or append-only.
    fn open_to_write(&self, name: &[u8]) -> Result<Self, Errno>;

    /// Makes a directory. Errors: `EEXIST`.
    fn make_dir(&self, name: &[u8], mode: u16) -> Result<(), Errno>;

    /// Makes a file, for writing. Errors: `EEXIST`.
    fn create(&self, name: &[u8], mode: u16) -> Result<Self, Errno>;

    /// Makes a file without a name, for writing, in this directory's file system: it vanishes when it is closed unless [`Node::link`]
    /// named it. Errors: `EOPNOTSUPP`, `EISDIR` or `ENOSYS` where there are none.
    fn create_unnamed(&self, mode: u16) -> Result<Self, Errno>;

    /// Makes a symlink. Errors: `EEXIST`.
    fn symlink(&self, name: &[u8], target: &[u8]) -> Result<(), Errno>;

    /// Makes a device node (of this major and minor number), a named pipe or a socket, for its owner only. Errors: `EEXIST`.
    fn make_special(&self, name: &[u8], kind: ItemKind, device: (u32, u32)) -> Result<(), Errno>;

    /// Gives an open file, with or without a name, the name `name` in `dir`. Errors: `EEXIST`.
    fn link(&self, dir: &Self, name: &[u8]) -> Result<(), Errno>;

    /// Gives what `name` names in this directory, which is no directory, the name `new` in `dir` too. Errors: `EEXIST`.
    fn link_name(&self, name: &[u8], dir: &Self, new: &[u8]) -> Result<(), Errno>;

    /// Moves `name` to `new` in `dir`.
    fn rename(&self, name: &[u8], dir: &Self, new: &[u8], taken: Taken) -> Result<(), Errno>;

    /// Removes a name of something that is no directory. Errors: `EISDIR`, on some file systems `EPERM`, for a directory.
    fn remove(&self, name: &[u8]) -> Result<(), Errno>;

    /// Removes an empty directory. Errors: `ENOTEMPTY` or `EEXIST` when it is not.
    fn remove_dir(&self, name: &[u8]) -> Result<(), Errno>;

    /// Calls `each` with every name in this directory, in any order. Names may be removed meanwhile.
    fn names(&self, each: &mut dyn FnMut(&[u8])) -> Result<(), Errno>;

    /// Locks this directory against others until it is closed. Errors: `EAGAIN` if another process has it locked.
    fn lock(&self) -> Result<(), Errno>;

    /// Attributes of this node.
    fn stat(&self) -> Result<Stat, Errno>;

    /// Attributes of `name`, without following a symlink. Errors: `ENOENT`.
    fn stat_name(&self, name: &[u8]) -> Result<Stat, Errno>;

    /// Sets owner and group. The setuid and setgid bits and `security.capability` of a file are gone afterwards.
    fn set_owner(&self, uid: u32, gid: u32) -> Result<(), Errno>;

    /// Sets the permission bits.
    fn set_mode(&self, mode: u16) -> Result<(), Errno>;

    /// Sets the times of the last read and of the last change.
    fn set_times(&self, atime: Timestamp, mtime: Timestamp) -> Result<(), Errno>;

    /// Reads an extended attribute into `value`, which is long enough; its length. Errors: `ENODATA`; `ERANGE` when it is longer.
    fn xattr(&self, name: &[u8], value: &mut [u8]) -> Result<usize, Errno>;

    /// Sets an extended attribute.
    fn set_xattr(&self, name: &[u8], value: &[u8]) -> Result<(), Errno>;

    /// Calls `each` with the name of every extended attribute. Errors: `EOPNOTSUPP` where there are none.
    fn xattr_names(&self, each: &mut dyn FnMut(&[u8])) -> Result<(), Errno>;

    /// Removes an extended attribute. Errors: `ENODATA`, but for an ACL, which may be removed without being there.
    fn remove_xattr(&self, name: &[u8]) -> Result<(), Errno>;

    /// As [`Node::set_owner`], of `name` itself, be it a symlink.
    fn set_owner_of(&self, name: &[u8], uid: u32, gid: u32) -> Result<(), Errno>;

    /// As [`Node::set_mode`], of what `name` names, which is no symlink.
    fn set_mode_of(&self, name: &[u8], mode: u16) -> Result<(), Errno>;

    /// As [`Node::set_times`], of `name` itself, be it a symlink.
    fn set_times_of(&self, name: &[u8], atime: Timestamp, mtime: Timestamp) -> Result<(), Errno>;

    /// As [`Node::set_xattr`], of `name` itself, be it a symlink.
    fn set_xattr_of(&self, name: &[u8], key: &[u8], value: &[u8]) -> Result<(), Errno>;

    /// Sets the project id. Errors: `EOPNOTSUPP` or `ENOTTY` where there are none.
    fn set_project(&self, project: u32) -> Result<(), Errno>;

    /// `FS_*_FL` flags. Errors: `EOPNOTSUPP` or `ENOTTY` where there are none.
    fn flags(&self) -> Result<u32, Errno>;

    /// Replaces them. Errors: `EOPNOTSUPP` or `EINVAL` for one that the file system does not know.
    fn set_flags(&self, flags: u32) -> Result<(), Errno>;

    /// Adds hints; returns what of them it has then. Errors: as of [`Node::flags`].
    fn set_hints(&self, hints: Hints) -> Result<Hints, Errno>;

    /// Reads from `offset` of a file until `bytes` is full or the file ends; how many bytes that were.
    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> Result<usize, Errno>;

    /// Where the first byte at or past `offset` is that may be something else than a hole; `None` when there is none up to the end. A
    /// port that cannot say calls everything data.
    fn data_from(&self, offset: u64) -> Result<Option<u64>, Errno>;

    /// Writes all of `bytes` at `offset` of a file.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), Errno>;

    /// Writes zero bytes, which are allocated.
    fn write_zeros(&self, offset: u64, len: u64) -> Result<(), Errno>;

    /// Makes a range read as zero without writing it. Errors: `EOPNOTSUPP` where that cannot be done.
    fn clear(&self, offset: u64, len: u64) -> Result<(), Errno>;

    /// Makes a range of a file read as zero and frees what it takes; its length stays. Errors: `EOPNOTSUPP` where that cannot be done.
    fn punch(&self, offset: u64, len: u64) -> Result<(), Errno>;

    /// Allocates a range of a file, past its end as well, which keeps its length. Errors: `EOPNOTSUPP` where that cannot be done.
    fn preallocate(&self, offset: u64, len: u64) -> Result<(), Errno>;

    /// Sets a file's length. What is behind it is freed, allocated or not.
    fn set_len(&self, len: u64) -> Result<(), Errno>;

    /// Makes the contents of a file, or the names in a directory, durable.
    fn sync(&self) -> Result<(), Errno>;

    /// Makes all of its file system durable.
    fn sync_all(&self) -> Result<(), Errno>;
}
