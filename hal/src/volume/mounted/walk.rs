//! Inode numbers in ascending order where the file system keeps no list that can be asked for: one walk over all names sets a
//! bit for each inode, and the bits are read in order.
//!
//! Memory: [`WALK_INODES`] bits, 16 MiB, and a stack of [`STACK_MAX`] directories, 16 MiB at most. A volume with more inode
//! numbers is walked once for each stretch of that many, so memory does not grow with it, and no volume is refused for its size.
//! Names are not kept: an inode is opened by its number, directories deliver their names when their turn comes.
//!
//! On a volume with inline_data that is not enough: where a directory's entries lie in its inode, ".." is no entry, so from a handle
//! the kernel does not find the way up, and opens this directory and those below only as long as it remembers the way down. There the
//! walk keeps every directory's parent (20 bytes each, at most [`PARENTS_MAX`]), and [`Walk::hold`] goes down by names from the nearest
//! directory above that opens. What was opened last stays open, so the kernel keeps its way, and handles open from then on.
//!
//! A directory that cannot be read is left out here and comes as an item with a fault, so it is named.
//!
//! Source: ours.

use std::collections::{BTreeMap, VecDeque};
use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::libc;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, RawDir, SeekFrom, StatxFlags};

use super::order::ext4_handle;
use crate::linux::fsattr;

/// Inode numbers that one walk covers: 16 MiB of bits, the inodes of 2 TiB as mke2fs makes them.
const WALK_INODES: u64 = 128 << 20;
/// Directories that wait on the walk's stack (16 bytes each): those of one buffer of entries for each level. A tree that needs
/// more is refused.
const STACK_MAX: usize = 1 << 20;
/// Directories whose parent is kept: 20 MiB of them. A volume with inline_data and more directories is refused.
const PARENTS_MAX: usize = 1 << 20;
/// Directories that are held open: the way to the next one is a step or two, in the order of a walk as in that of numbers.
const HELD_MAX: usize = 64;
/// Most levels that are gone up: a tree has no loops, and one that was made to have some is not followed for ever.
const LEVELS_MAX: usize = 1 << 20;
/// How a directory is opened.
const READ_DIRECTORY: libc::c_int = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NOATIME;
/// Bytes of directory entries read at once.
pub(super) const ENTRIES_BYTES: usize = 32 << 10;

/// The inodes that names lead to, of one stretch of numbers.
#[derive(Debug, Default)]
pub(super) struct Walk {
    first: u64,
    end: u64,
    inode_max: u64,
    bits: Vec<u64>,
    /// Whether handles may not be enough to open directories.
    has_inline: bool,
    /// Then, each directory's parent.
    parents: BTreeMap<u32, u32>,
    /// Then, directories that are held open, the last one at the end.
    held: VecDeque<(u64, OwnedFd)>,
}

impl Walk {
    /// A walk that has not begun, over numbers up to `inode_max` of a volume that has the feature inline_data or not.
    pub(super) fn new(inode_max: u64, has_inline: bool) -> Walk {
        Walk { inode_max, has_inline, ..Walk::default() }
    }

    /// The first inode from `from` on.
    pub(super) fn next(&mut self, root: BorrowedFd<'_>, from: u64) -> Result<Option<u64>, Errno> {
        let mut from = from;
        while from <= self.inode_max {
            self.cover(root, from)?;
            if let Some(found) = self.next_bit(from) {
                return Ok(Some(found));
            }
            from = self.end;
        }
        Ok(None)
    }

    /// Whether a name leads to `inode`.
    pub(super) fn contains(&mut self, root: BorrowedFd<'_>, inode: u64) -> Result<bool, Errno> {
        if inode == 0 || inode > self.inode_max {
            return Ok(false);
        }
        self.cover(root, inode)?;
        Ok(self.next_bit(inode) == Some(inode))
    }

    fn next_bit(&self, from: u64) -> Option<u64> {
        let at = from - self.first;
        let mut word = (at / 64) as usize;
        let mut bits = self.bits.get(word)? & (u64::MAX << (at % 64));
        while bits == 0 {
            word += 1;
            bits = *self.bits.get(word)?;
        }
        Some(self.first + word as u64 * 64 + u64::from(bits.trailing_zeros()))
    }

    /// Sets the bit of an inode; whether it was not set before. Numbers outside of the stretch count as new.
    fn set(&mut self, inode: u64) -> bool {
        if !(self.first..self.end).contains(&inode) {
            return true;
        }
        let at = inode - self.first;
        let word = &mut self.bits[(at / 64) as usize];
        let bit = 1 << (at % 64);
        let new = *word & bit == 0;
        *word |= bit;
        new
    }

    /// Walks, unless the stretch that holds `inode` is there already.
    fn cover(&mut self, root: BorrowedFd<'_>, inode: u64) -> Result<(), Errno> {
        if (self.first..self.end).contains(&inode) {
            return Ok(());
        }
        self.first = inode / WALK_INODES * WALK_INODES;
        self.end = (self.first + WALK_INODES).min(self.inode_max + 1);
        self.bits.clear();
        self.bits.resize(((self.end - self.first) as usize).div_ceil(64), 0);
        self.parents.clear();
        let done = self.walk(root);
        if done.is_err() {
            self.end = self.first;
        }
        done
    }

    fn walk(&mut self, root: BorrowedFd<'_>) -> Result<(), Errno> {
        let top = rustix::fs::statx(root, c"", AtFlags::EMPTY_PATH, StatxFlags::INO)
            .map_err(|e| Errno::from_raw(e.raw_os_error()))?
            .stx_ino;
        self.set(top);
        let mut stack = vec![(top, 0)];
        let mut found = Vec::new();
        let mut buf = vec![MaybeUninit::uninit(); ENTRIES_BYTES];
        while let Some((inode, offset)) = stack.pop() {
            found.clear();
            let next = self.read(root, inode, offset, &mut buf, &mut found)?;
            stack.extend(next.map(|next| (inode, next)));
            stack.extend(found.iter().map(|&below| (below, 0)));
            if stack.len() > STACK_MAX {
                return Err(Errno::E2BIG);
            }
        }
        Ok(())
    }

    /// Reads one buffer of entries: sets their bits, appends new directories to `found`, returns where to go on.
    fn read(
        &mut self,
        root: BorrowedFd<'_>,
        inode: u64,
        offset: u64,
        buf: &mut [MaybeUninit<u8>],
        found: &mut Vec<u64>,
    ) -> Result<Option<u64>, Errno> {
        // What cannot be read comes as an item with a fault.
        let Some(dir) = self.open(root, inode) else { return Ok(None) };
        if rustix::fs::seek(&dir, SeekFrom::Start(offset)).is_err() {
            return Ok(None);
        }
        let mut entries = RawDir::new(&dir, buf);
        loop {
            let Some(Ok(entry)) = entries.next() else { return Ok(None) };
            let (name, child, next) = (entry.file_name(), entry.ino(), entry.next_entry_cookie());
            if child != 0 && !is_dots(name) {
                let is_directory = match entry.file_type() {
                    FileType::Directory => true,
                    FileType::Unknown => is_directory(&dir, name),
                    _ => false,
                };
                if self.set(child) && is_directory {
                    found.push(child);
                    self.note(child, inode)?;
                }
            }
            if entries.is_buffer_empty() {
                return Ok(Some(next));
            }
        }
    }

    /// Notes the parent of a directory, where that may be needed.
    fn note(&mut self, inode: u64, parent: u64) -> Result<(), Errno> {
        let (true, Ok(inode), Ok(parent)) = (self.has_inline, u32::try_from(inode), u32::try_from(parent))
        else {
            return Ok(());
        };
        if self.parents.len() >= PARENTS_MAX {
            return Err(Errno::ENOSPC);
        }
        self.parents.insert(inode, parent);
        Ok(())
    }

    /// Opens a directory by its handle, once the kernel knows its way.
    fn open(&mut self, root: BorrowedFd<'_>, inode: u64) -> Option<OwnedFd> {
        by_handle(root, inode).or_else(|| {
            self.go_down(root, inode)?;
            by_handle(root, inode)
        })
    }

    /// Goes up to the nearest directory that its handle opens, down again by names, and holds what it comes by.
    fn go_down(&mut self, root: BorrowedFd<'_>, inode: u64) -> Option<()> {
        let mut way = vec![inode];
        let (mut at, mut dir) = loop {
            let parent = u64::from(*self.parents.get(&u32::try_from(*way.last()?).ok()?)?);
            match by_handle(root, parent) {
                Some(dir) => break (parent, dir),
                None if way.len() < LEVELS_MAX => way.push(parent),
                None => return None,
            }
        };
        let mut buf = vec![MaybeUninit::uninit(); ENTRIES_BYTES];
        while let Some(inode) = way.pop() {
            let below = open_child(&dir, inode, &mut buf)?;
            self.keep(at, std::mem::replace(&mut dir, below));
            at = inode;
        }
        self.keep(at, dir);
        Some(())
    }

    fn keep(&mut self, inode: u64, dir: OwnedFd) {
        if self.held.len() >= HELD_MAX {
            self.held.pop_front();
        }
        self.held.push_back((inode, dir));
    }

    /// Sees to it that the handle of `inode` opens, if it is a directory that needs help for that.
    pub(super) fn hold(&mut self, root: BorrowedFd<'_>, inode: u64) {
        let is_known = u32::try_from(inode).is_ok_and(|inode| self.parents.contains_key(&inode));
        if is_known
            && !self.held.iter().any(|(held, _)| *held == inode)
            && let Some(dir) = self.open(root, inode)
        {
            self.keep(inode, dir);
        }
    }
}

/// Opens a directory of any generation by its handle.
fn by_handle(root: BorrowedFd<'_>, inode: u64) -> Option<OwnedFd> {
    fsattr::open_handle(root, &ext4_handle(inode)?, READ_DIRECTORY).ok()
}

/// Opens the directory `inode` below `dir`.
fn open_child(dir: &OwnedFd, inode: u64, buf: &mut [MaybeUninit<u8>]) -> Option<OwnedFd> {
    rustix::fs::seek(dir, SeekFrom::Start(0)).ok()?;
    let mut entries = RawDir::new(dir, buf);
    loop {
        let entry = entries.next()?.ok()?;
        if entry.ino() == inode && !is_dots(entry.file_name()) {
            let flags =
                OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::NOATIME | OFlags::CLOEXEC;
            return rustix::fs::openat(dir, entry.file_name(), flags, Mode::empty()).ok();
        }
    }
}

/// Whether a name is "." or "..".
pub(super) fn is_dots(name: &CStr) -> bool {
    matches!(name.to_bytes(), b"." | b"..")
}

fn is_directory(dir: &OwnedFd, name: &CStr) -> bool {
    rustix::fs::statx(dir, name, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::TYPE)
        .is_ok_and(|stat| FileType::from_raw_mode(stat.stx_mode.into()) == FileType::Directory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_come_back_in_order() {
        let mut walk = Walk { end: 1000, inode_max: 999, bits: vec![0; 16], ..Walk::default() };
        for inode in [5, 63, 64, 999, 128] {
            assert!(walk.set(inode));
            assert!(!walk.set(inode));
        }
        assert!(walk.set(1000) && walk.set(1000), "outside of the stretch");
        let mut from = 0;
        let mut seen = Vec::new();
        while let Some(next) = walk.next_bit(from) {
            seen.push(next);
            from = next + 1;
        }
        assert_eq!(seen, [5, 63, 64, 128, 999]);
    }
}
