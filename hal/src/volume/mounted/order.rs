//! Items in ascending order of their numbers, each with the handle that opens it.
//!
//! | file system | order from | generation from | memory |
//! |---|---|---|---|
//! | ext4 | a walk over all names, a bit for each inode (`walk.rs`) | any; the item's own handle has it | 32 MiB at most |
//! | XFS | `XFS_IOC_BULKSTAT`, 256 inodes at a time | there | 48 KiB |
//! | btrfs | `BTRFS_IOC_TREE_SEARCH_V2` for inode items, 64 KiB at a time, subvolume after subvolume | there | 128 KiB |
//!
//! Handles are made here from number and generation, as the file system's own export operations make them:
//!
//! ```text
//!  ext4   type 1     u32 inode, u32 generation (0: any)
//!  XFS    type 0x81  u64 inode, u32 generation
//!  btrfs  type 0x4D  u64 inode, u64 subvolume, u32 generation
//! ```
//!
//! btrfs numbers its inodes in each subvolume anew. An item's number is `subvolume << 40 | inode`, with 0 for the top-level
//! subvolume (5); numbers that do not fit are refused. Snapshots are subvolumes and are delivered like the rest.
//!
//! Does not: find inodes that no name leads to (ext4), or that the kernel leaves out of its own list because they are damaged
//! (XFS): comparing with the raw reader finds those.
//! Source: `fs/ext4/super.c`, `fs/xfs/xfs_export.c`, `fs/btrfs/export.c`, include/linux/exportfs.h; the two calls' headers.

use std::ops::RangeInclusive;
use std::os::fd::BorrowedFd;

use nix::errno::Errno;

use super::Family;
use super::probe::{u32_le, u64_le};
use super::walk::Walk;
use crate::linux::fsattr::{self, BulkInode, Handle, Search};

const EXT4_HANDLE: i32 = 1;
const XFS_HANDLE: i32 = 0x81;
const BTRFS_HANDLE: i32 = 0x4D;
/// The tree of trees, and in it the top-level subvolume.
const BTRFS_ROOT_TREE: u64 = 1;
const BTRFS_TOP: u64 = 5;
const BTRFS_INODE_ITEM: u8 = 1;
const BTRFS_ROOT_ITEM: u8 = 132;
/// Numbers of inodes and of subvolumes in btrfs.
const BTRFS_OBJECTS: RangeInclusive<u64> = 256..=u64::MAX - 255;
/// Bits of an item's number that hold the inode; the rest hold the subvolume.
pub(super) const BTRFS_INODE_BITS: u32 = 40;
/// The number that every directory has that stands in a snapshot where the origin has another subvolume.
pub(super) const BTRFS_PLACEHOLDER: u64 = 2;
/// Bytes of an inode item and of the part of a root item that is read.
const BTRFS_INODE_ITEM_BYTES: usize = 160;
const BTRFS_ROOT_ITEM_BYTES: usize = 339;

/// An item to be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// Number of the item.
    pub(super) number: u64,
    /// What opens it.
    pub(super) handle: Handle,
    /// Project id of the item, if the list has it.
    pub(super) project: Option<u32>,
}

/// Where the order comes from.
#[derive(Debug)]
pub(super) enum Order {
    Walk(Walk),
    Xfs(List),
    Btrfs(List),
}

/// What was listed last: complete for all numbers from `from` to that of the last one found.
#[derive(Debug, Default)]
pub(super) struct List {
    from: u64,
    found: Vec<Found>,
}

impl List {
    /// The first of what is here from `from` on; `None` when that is not known.
    fn next(&self, from: u64) -> Option<Found> {
        if from < self.from {
            return None;
        }
        self.found.get(self.found.partition_point(|found| found.number < from)).copied()
    }

    fn begin(&mut self, from: u64) {
        self.from = from;
        self.found.clear();
    }
}

impl Order {
    /// `has_inline`: whether directories of an ext4 may lie in their inodes.
    pub(super) fn new(family: Family, inode_max: u64, has_inline: bool) -> Order {
        match family {
            Family::Ext4 => Order::Walk(Walk::new(inode_max, has_inline)),
            Family::Xfs => Order::Xfs(List::default()),
            Family::Btrfs => Order::Btrfs(List::default()),
        }
    }

    /// The first item from number `from` on.
    pub(super) fn next(&mut self, root: BorrowedFd<'_>, from: u64) -> Result<Option<Found>, Errno> {
        match self {
            Order::Walk(walk) => {
                let next = walk.next(root, from.max(1))?;
                if let Some(inode) = next {
                    walk.hold(root, inode);
                }
                Ok(next.and_then(ext4_found))
            }
            Order::Xfs(list) => {
                let mut at = Some(from);
                while list.next(from).is_none()
                    && let Some(from) = at
                {
                    list.begin(from);
                    at = xfs_list(root, from, usize::MAX, &mut list.found)?;
                }
                Ok(list.next(from))
            }
            Order::Btrfs(list) => match list.next(from) {
                Some(found) => Ok(Some(found)),
                None => {
                    list.begin(from);
                    btrfs_list(root, from, u32::MAX, &mut list.found)?;
                    Ok(list.next(from))
                }
            },
        }
    }

    /// The item of that number.
    pub(super) fn find(&mut self, root: BorrowedFd<'_>, number: u64) -> Result<Option<Found>, Errno> {
        let listed = |list: &List| list.next(number).filter(|found| found.number == number);
        let mut one = Vec::new();
        match self {
            Order::Walk(walk) => {
                if !walk.contains(root, number)? {
                    return Ok(None);
                }
                walk.hold(root, number);
                return Ok(ext4_found(number));
            }
            Order::Xfs(list) => match listed(list) {
                Some(found) => return Ok(Some(found)),
                None => drop(xfs_list(root, number, 1, &mut one)?),
            },
            Order::Btrfs(list) => match listed(list) {
                Some(found) => return Ok(Some(found)),
                None => btrfs_list(root, number, 1, &mut one)?,
            },
        }
        Ok(one.into_iter().find(|found| found.number == number))
    }
}

/// The handle of an ext4 inode of any generation.
pub(super) fn ext4_handle(inode: u64) -> Option<Handle> {
    let inode = u32::try_from(inode).ok()?;
    Some(Handle::new(EXT4_HANDLE, &[&inode.to_ne_bytes(), &0u32.to_ne_bytes()]))
}

fn ext4_found(number: u64) -> Option<Found> {
    Some(Found { number, handle: ext4_handle(number)?, project: None })
}

/// Number and generation of the item that a handle names. Errors: EOVERFLOW when they do not fit, EINVAL for an unknown handle.
pub(super) fn identify(handle: &Handle) -> Result<(u64, u32), Errno> {
    let bytes = handle.bytes();
    let u32_at = |at: usize| {
        Ok(u32::from_ne_bytes(bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).ok_or(Errno::EINVAL)?))
    };
    let u64_at = |at: usize| {
        Ok(u64::from_ne_bytes(bytes.get(at..at + 8).and_then(|b| b.try_into().ok()).ok_or(Errno::EINVAL)?))
    };
    match handle.kind {
        EXT4_HANDLE => Ok((u64::from(u32_at(0)?), u32_at(4)?)),
        XFS_HANDLE => Ok((u64_at(0)?, u32_at(8)?)),
        BTRFS_HANDLE => Ok((btrfs_number(u64_at(8)?, u64_at(0)?)?, u32_at(16)?)),
        _ => Err(Errno::EINVAL),
    }
}

/// Appends items from number `from` on; returns where the list goes on. Inodes without links wait for their removal.
fn xfs_list(
    root: BorrowedFd<'_>,
    from: u64,
    most: usize,
    out: &mut Vec<Found>,
) -> Result<Option<u64>, Errno> {
    let mut inodes: Vec<BulkInode> = Vec::new();
    let ended = fsattr::xfs_inodes(root, from, most, &mut inodes)?;
    out.extend(inodes.iter().filter(|i| i.links > 0).map(|i| Found {
        number: i.inode,
        handle: Handle::new(XFS_HANDLE, &[&i.inode.to_ne_bytes(), &i.generation.to_ne_bytes()]),
        project: Some(i.project),
    }));
    Ok(inodes.last().filter(|_| !ended).map(|last| last.inode + 1))
}

/// Number of inodes and the latest change of any: a pass over all, before the first item is delivered.
pub(super) fn xfs_sums(root: BorrowedFd<'_>) -> Result<(u64, i64), Errno> {
    let (mut count, mut latest, mut from) = (0, 0, 0);
    let mut inodes = Vec::new();
    loop {
        inodes.clear();
        let ended = fsattr::xfs_inodes(root, from, usize::MAX, &mut inodes)?;
        count += inodes.len() as u64;
        latest = inodes.iter().map(|inode| inode.ctime_secs).fold(latest, i64::max);
        match inodes.last() {
            Some(last) if !ended => from = last.inode + 1,
            _ => return Ok((count, latest)),
        }
    }
}

/// An item's number.
fn btrfs_number(subvolume: u64, inode: u64) -> Result<u64, Errno> {
    let tag = if subvolume == BTRFS_TOP { 0 } else { subvolume };
    if inode >> BTRFS_INODE_BITS != 0 || tag >> (63 - BTRFS_INODE_BITS) != 0 {
        return Err(Errno::EOVERFLOW);
    }
    Ok(tag << BTRFS_INODE_BITS | inode)
}

/// Subvolume and inode of an item's number.
fn btrfs_split(number: u64) -> (u64, u64) {
    let tag = number >> BTRFS_INODE_BITS;
    (if tag == 0 { BTRFS_TOP } else { tag }, number & ((1 << BTRFS_INODE_BITS) - 1))
}

/// Appends items from number `from` on, of the first subvolume that has any.
fn btrfs_list(root: BorrowedFd<'_>, from: u64, most: u32, out: &mut Vec<Found>) -> Result<(), Errno> {
    let (mut tree, mut inode) = btrfs_split(from);
    loop {
        let mut inode_from = inode.max(*BTRFS_OBJECTS.start());
        loop {
            let search = Search { tree, from: inode_from, to: *BTRFS_OBJECTS.end(), kind: BTRFS_INODE_ITEM };
            let mut last = None;
            let mut failed = None;
            let ended = fsattr::btrfs_items(root, &search, most, &mut |object, _, item| {
                last = Some(object);
                // Inodes without links wait for their removal.
                if item.len() < BTRFS_INODE_ITEM_BYTES || u32_le(item, 40) == 0 {
                    return;
                }
                let generation = u64_le(item, 0) as u32;
                match btrfs_number(tree, object) {
                    Ok(number) => out.push(Found {
                        number,
                        handle: Handle::new(
                            BTRFS_HANDLE,
                            &[&object.to_ne_bytes(), &tree.to_ne_bytes(), &generation.to_ne_bytes()],
                        ),
                        project: None,
                    }),
                    Err(errno) => failed = Some(errno),
                }
            });
            if let Some(errno) = failed {
                return Err(errno);
            }
            match ended {
                Ok(true) | Err(Errno::ENOENT) => break,
                Ok(false) if out.is_empty() => inode_from = last.map_or(u64::MAX, |last| last + 1),
                Ok(false) => return Ok(()),
                Err(errno) => return Err(errno),
            }
        }
        match btrfs_subvolume(root, tree)? {
            Some((next, _)) => (tree, inode) = (next, 0),
            None => return Ok(()),
        }
    }
}

/// The first subvolume behind `after` that is not deleted, and the time of its last change in seconds.
fn btrfs_subvolume(root: BorrowedFd<'_>, after: u64) -> Result<Option<(u64, i64)>, Errno> {
    let mut from = after + 1;
    loop {
        // The top-level subvolume is the only one with a low number; other trees have low numbers too.
        let start = if from <= BTRFS_TOP { BTRFS_TOP } else { from.max(*BTRFS_OBJECTS.start()) };
        let to = if start == BTRFS_TOP { BTRFS_TOP } else { *BTRFS_OBJECTS.end() };
        let search = Search { tree: BTRFS_ROOT_TREE, from: start, to, kind: BTRFS_ROOT_ITEM };
        let mut found = None;
        let mut last = None;
        let ended = fsattr::btrfs_items(root, &search, u32::MAX, &mut |object, _, item| {
            last = Some(object);
            let lives = item.len() >= BTRFS_ROOT_ITEM_BYTES && u32_le(item, 216) > 0;
            if lives && found.is_none() {
                found = Some((object, u64_le(item, 327) as i64));
            }
        })?;
        match last {
            _ if found.is_some() => return Ok(found),
            Some(last) if !ended => from = last + 1,
            _ if start == BTRFS_TOP => from = BTRFS_TOP + 1,
            _ => return Ok(None),
        }
    }
}

/// The latest change in any subvolume, in seconds.
pub(super) fn btrfs_latest(root: BorrowedFd<'_>) -> Result<i64, Errno> {
    let (mut latest, mut after) = (0, 0);
    while let Some((subvolume, changed)) = btrfs_subvolume(root, after)? {
        latest = latest.max(changed);
        after = subvolume;
    }
    Ok(latest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_subvolumes_do_not_meet() {
        assert_eq!(btrfs_number(5, 256), Ok(256));
        assert_eq!(btrfs_number(256, 256), Ok(256 << 40 | 256));
        assert_eq!(btrfs_split(256), (5, 256));
        assert_eq!(btrfs_split(256 << 40 | 257), (256, 257));
        assert_eq!(btrfs_number(5, 1 << 40), Err(Errno::EOVERFLOW));
        assert_eq!(btrfs_number(1 << 23, 256), Err(Errno::EOVERFLOW));
        assert!(btrfs_number((1 << 23) - 1, (1 << 40) - 1).is_ok_and(|number| number < 1 << 63));
    }

    #[test]
    fn handles_say_who_they_are() {
        let handle = Handle::new(EXT4_HANDLE, &[&12u32.to_ne_bytes(), &7u32.to_ne_bytes()]);
        assert_eq!(identify(&handle), Ok((12, 7)));
        let handle = Handle::new(XFS_HANDLE, &[&(1u64 << 33).to_ne_bytes(), &9u32.to_ne_bytes()]);
        assert_eq!(identify(&handle), Ok((1 << 33, 9)));
        let parts: [&[u8]; 3] = [&257u64.to_ne_bytes(), &300u64.to_ne_bytes(), &8u32.to_ne_bytes()];
        assert_eq!(identify(&Handle::new(BTRFS_HANDLE, &parts)), Ok((300 << 40 | 257, 8)));
        assert_eq!(identify(&Handle::new(BTRFS_HANDLE, &parts[..2])), Err(Errno::EINVAL));
        assert_eq!(identify(&Handle::new(99, &parts)), Err(Errno::EINVAL));
    }
}
