//! Flags and hints of inodes (`lsattr`, XFS's extent size hints): what the target takes is set, what it does not take is named once
//! for all items.
//!
//! | when | what | why then |
//! |---|---|---|
//! | [`set_on_new`], before the first byte or entry | case folding; compression, no copy on write and extent size of a file | only an empty inode takes them |
//! | [`set_at_end`], when all names are there | everything else; immutable and append-only last | nothing else is allowed afterwards |
//! | never | fs-verity | its tree of digests is not kept; named |
//!
//! A flag that the target knows nothing of makes it refuse all of a call, so then they are tried one by one. A file system may also
//! take a flag and forget it, so what is set is read again. Source: ioctl_iflags(2), ioctl_xfs_fsgetxattr(2), `linux/fs.h`.

use windlass_hal::tree::{Errno, Node};
use windlass_hal::volume::{Hints, ItemKind};

use super::fault::{Feature, Reason};
use crate::format::row::ItemAttributes;

/// Immutable, append-only.
const LOCKS: u32 = 0x10 | 0x20;
/// Secure deletion, undeletable, sync, nodump, noatime, journal data, no tail-merging, dirsync, topdir, project inheritance.
const PLAIN: u32 = 0x1 | 0x2 | 0x8 | 0x40 | 0x80 | 0x4000 | 0x8000 | 0x1_0000 | 0x2_0000 | 0x2000_0000;
/// Compress, do not compress.
const COMPRESSION: u32 = 0x4 | 0x400;
const VERITY: u32 = 0x10_0000;
const NO_COPY_ON_WRITE: u32 = 0x80_0000;
const DAX: u32 = 0x200_0000;
const CASE_FOLDING: u32 = 0x4000_0000;

/// What an inode must have before its first byte or entry.
fn early(item: &ItemAttributes) -> (u32, Hints) {
    match item.kind {
        ItemKind::Directory => (item.flags & CASE_FOLDING, Hints::NONE),
        ItemKind::File => {
            let extent_size = Hints::of(item.hints.flags & Hints::EXTENT_SIZE, item.hints.extent_bytes, 0);
            (item.flags & (COMPRESSION | NO_COPY_ON_WRITE), extent_size)
        }
        _ => (0, Hints::NONE),
    }
}

/// What can be set when everything is there, and what cannot be set at all.
fn late(item: &ItemAttributes) -> (u32, Hints) {
    let (early_flags, early_hints) = early(item);
    let all = LOCKS | PLAIN | COMPRESSION | VERITY | NO_COPY_ON_WRITE | DAX | CASE_FOLDING;
    match item.kind {
        ItemKind::Directory | ItemKind::File => {
            let Hints { flags, extent_bytes, cow_extent_bytes } = item.hints;
            let hints = Hints::of(flags & !early_hints.flags, extent_bytes, cow_extent_bytes);
            (item.flags & all & !early_flags, hints)
        }
        _ => (0, Hints::NONE),
    }
}

/// Whether the item has something that [`set_at_end`] sets or names.
pub fn has_late(item: &ItemAttributes) -> bool {
    late(item) != (0, Hints::NONE)
}

/// Sets what only an empty inode takes on one that was just made.
pub fn set_on_new(node: &impl Node, item: &ItemAttributes, fault: &mut dyn FnMut(Reason)) {
    let (flags, hints) = early(item);
    set(node, flags, hints, fault);
}

/// Sets everything else.
pub fn set_at_end(node: &impl Node, item: &ItemAttributes, fault: &mut dyn FnMut(Reason)) {
    let (flags, hints) = late(item);
    set(node, flags, hints, fault);
}

/// Takes immutable and append-only away from a file that has them as its item says, so that it can be replaced. Whether that worked shows then.
pub fn unlock(node: &impl Node, item: &ItemAttributes) {
    if item.flags & LOCKS != 0
        && let Ok(have) = node.flags()
        && have & LOCKS != 0
    {
        let _ = node.set_flags(have & !LOCKS);
    }
}

fn set(node: &impl Node, flags: u32, hints: Hints, fault: &mut dyn FnMut(Reason)) {
    if hints != Hints::NONE {
        set_hints(node, hints, fault);
    }
    if flags == 0 {
        return;
    }
    let missing = match add_flags(node, flags & !VERITY) {
        Ok(missing) => missing | flags & VERITY,
        Err(errno) => {
            fault(Reason::System { call: "set flags", errno });
            flags & VERITY
        }
    };
    let kinds = [
        (VERITY, Feature::Verity),
        (CASE_FOLDING, Feature::CaseFolding),
        (COMPRESSION, Feature::Compression),
        (NO_COPY_ON_WRITE, Feature::NoCopyOnWrite),
        (DAX, Feature::Dax),
        (LOCKS | PLAIN, Feature::Flags),
    ];
    for (_, what) in kinds.into_iter().filter(|(bits, _)| missing & bits != 0) {
        fault(Reason::NotKept { what, items: 1 });
    }
}

/// Adds flags to those that the inode has; returns those that the file system does not take.
fn add_flags(node: &impl Node, wanted: u32) -> Result<u32, Errno> {
    let have = match node.flags() {
        Err(Errno::NOTTY | Errno::OPNOTSUPP | Errno::NOSYS) => return Ok(wanted),
        other => other?,
    };
    if have & wanted == wanted {
        return Ok(0);
    }
    let add = |have: u32, bits: u32| node.set_flags(have | bits);
    match add(have, wanted) {
        Err(Errno::OPNOTSUPP | Errno::INVAL) => {}
        other => {
            other?;
            return Ok(wanted & !node.flags()?);
        }
    }
    let bits = |of: u32| (0..u32::BITS).map(|bit| 1 << bit).filter(move |bit| of & bit != 0);
    for bit in bits(wanted & !LOCKS).chain(bits(wanted & LOCKS)) {
        match add(node.flags()?, bit) {
            Err(Errno::OPNOTSUPP | Errno::INVAL) | Ok(()) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(wanted & !node.flags()?)
}

/// Sets each hint by itself: one that does not fit this file system keeps no other out.
fn set_hints(node: &impl Node, wanted: Hints, fault: &mut dyn FnMut(Reason)) {
    let plain = Hints::FLAGS & !Hints::EXTENT_SIZE & !Hints::COW_EXTENT_SIZE;
    let parts = [
        (Hints::EXTENT_SIZE, Feature::ExtentSize),
        (Hints::COW_EXTENT_SIZE, Feature::CowExtentSize),
        (plain, Feature::XfsFlags),
    ];
    for (bits, what) in parts {
        let part = Hints::of(wanted.flags & bits, wanted.extent_bytes, wanted.cow_extent_bytes);
        if part.flags == 0 {
            continue;
        }
        match node.set_hints(part) {
            Ok(have) => {
                let have = Hints::of(have.flags & part.flags, have.extent_bytes, have.cow_extent_bytes);
                if have != part {
                    fault(Reason::NotKept { what, items: 1 });
                }
            }
            Err(Errno::NOTTY | Errno::OPNOTSUPP | Errno::INVAL | Errno::NOSYS) => {
                fault(Reason::NotKept { what, items: 1 });
            }
            Err(errno) => fault(Reason::System { call: "set XFS's hints", errno }),
        }
    }
}
