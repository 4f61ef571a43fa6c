//! A read-only file system that is shown to the users of this machine.
//!
//! A node is a number: [`ROOT`] for the top directory, whatever the implementation says for the others. Two names of one node are hard links.
//!
//! Invariants: nothing of it changes while it is shown, so what was answered once stays right. Calls come from several threads at once.
//!
//! Ports: `linux::fuse`. Does not: write. Source: ours.

pub use rustix::io::Errno;

use crate::volume::{ItemKind, Timestamp};

/// The node of the top directory.
pub const ROOT: u64 = 1;

/// What a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shown {
    /// Its number; users see it as the inode number.
    pub node: u64,
    /// Generation of that number.
    pub generation: u32,
    /// Its type; an image is shown as a file.
    pub kind: ItemKind,
    /// Permission bits, `0..=0o7777`.
    pub mode: u16,
    /// User id of the owner.
    pub uid: u32,
    /// Group id of the owner.
    pub gid: u32,
    /// Number of hard links.
    pub links: u32,
    /// Size in bytes.
    pub size: u64,
    /// Device number of a special file: major, minor.
    pub rdev: (u32, u32),
    /// Last access.
    pub atime: Timestamp,
    /// Last change of the contents.
    pub mtime: Timestamp,
    /// Last change of the inode.
    pub ctime: Timestamp,
}

/// An entry of a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Named<'a> {
    /// Where a listing goes on behind it.
    pub next: u64,
    /// What it names.
    pub node: u64,
    /// Of which type.
    pub kind: ItemKind,
    /// The name.
    pub name: &'a [u8],
}

/// Extended attributes: full name, value.
pub type Attributes = Vec<(Vec<u8>, Vec<u8>)>;

/// See the module. Errors are those that users see: `ENOENT`, `ENOTDIR`, `EIO` for what is damaged, `ENXIO` behind the end.
pub trait Files: Send + Sync + 'static {
    /// The node that a name means in a directory.
    fn child(&self, dir: u64, name: &[u8]) -> Result<Shown, Errno>;

    /// What a node is.
    fn shown(&self, node: u64) -> Result<Shown, Errno>;

    /// Where a symlink points.
    fn target(&self, node: u64) -> Result<Vec<u8>, Errno>;

    /// The bytes of a file from `from` on: `len` of them, fewer only at its end.
    fn read(&self, node: u64, from: u64, len: u32) -> Result<Vec<u8>, Errno>;

    /// Calls `each` with the entries of a directory from the place `from` on (0 is the beginning), until it returns `false`. `.` and `..` are
    /// not among them.
    fn list(&self, dir: u64, from: u64, each: &mut dyn FnMut(Named<'_>) -> bool) -> Result<(), Errno>;

    /// The extended attributes of a node.
    fn attributes(&self, node: u64) -> Result<Attributes, Errno>;

    /// The first byte at or behind `from` that is in data, or else in a hole; the end of a file counts as a hole. `ENXIO`: there is none.
    fn seek(&self, node: u64, from: u64, data: bool) -> Result<u64, Errno>;
}
