//! Attributes of a restored item, in the only order that keeps them all.
//!
//! | step | why here |
//! |---|---|
//! | data | a later write drops `security.capability` |
//! | owner | clears setuid, setgid and `security.capability` |
//! | extended attributes, ACLs | an ACL rewrites the group bits of the mode |
//! | mode | |
//! | `security.capability` | after the last write and the owner |
//! | project id | |
//! | times | after everything that touches them |
//! | flags | last, by the caller, when all names are there: nothing else is allowed afterwards |
//!
//! What is already right is not set again: on a tree of small files that is most of the system calls.
//!
//! Errors never end an item: each attribute that could not be set is reported and the others are set.
//! Does not: restore ctime and btime; no call can. Source: blocks reference, section E (measured).

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use rustix::fs::{AtFlags, Gid, IFlags, Mode, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;
use windlass_hal::volume::{ItemKind, Timestamp};

use super::fault::Reason;
use crate::format::row::ItemAttributes;

const CAPABILITY: &[u8] = b"security.capability";
const ACL_ACCESS: &[u8] = b"system.posix_acl_access";
const ACL_DEFAULT: &[u8] = b"system.posix_acl_default";

/// Flags that are set on restored files; the others describe layout or are the file system's own.
/// Sync, immutable, append, nodump, noatime, journal data, dirsync, topdir, project inheritance.
const FLAGS_KEPT: u32 = 0x8 | 0x10 | 0x20 | 0x40 | 0x80 | 0x4000 | 0x1_0000 | 0x2_0000 | 0x2000_0000;

/// What an inode is known to have before its attributes are set; `None` when unknown.
#[derive(Clone, Copy, Debug)]
pub struct Known {
    /// Owner and group.
    pub owner: Option<(u32, u32)>,
    /// Permission bits.
    pub mode: Option<u16>,
}

impl Known {
    /// Nothing is known: everything is set.
    pub const NOTHING: Known = Known { owner: None, mode: None };
}

/// Sets everything but flags on an open file or directory.
pub fn settle(
    fd: BorrowedFd<'_>,
    item: &ItemAttributes,
    known: Known,
    owners: bool,
    fault: &mut dyn FnMut(Reason),
) {
    let mut mode = known.mode;
    if owners && known.owner != Some((item.uid, item.gid)) {
        mode = None;
        let owner = (Some(Uid::from_raw(item.uid)), Some(Gid::from_raw(item.gid)));
        check("set owner", rustix::fs::fchown(fd, owner.0, owner.1), fault);
    }
    for (name, value) in item.xattrs.iter().filter(|(name, _)| name != CAPABILITY) {
        if name == ACL_ACCESS {
            mode = None;
        }
        if let Err(errno) = rustix::fs::fsetxattr(fd, name.as_slice(), value, XattrFlags::empty()) {
            fault(Reason::Xattr { name: name.clone(), errno });
        }
    }
    if mode != Some(item.mode) {
        check("set mode", rustix::fs::fchmod(fd, mode_of(item)), fault);
    }
    if let Some((name, value)) = item.xattrs.iter().find(|(name, _)| name == CAPABILITY)
        && let Err(errno) = rustix::fs::fsetxattr(fd, name.as_slice(), value, XattrFlags::empty())
    {
        fault(Reason::Xattr { name: name.clone(), errno });
    }
    if item.project != 0 {
        let set = windlass_hal::linux::fsattr::set_project(fd, item.project);
        check("set project id", set.map_err(|e| Errno::from_raw_os_error(e as i32)), fault);
    }
    check("set times", rustix::fs::futimens(fd, &times(item)), fault);
}

/// Sets everything but flags on a symlink or special file, by its name in a directory that only this restore writes to.
pub fn settle_name(
    dir: BorrowedFd<'_>,
    name: &str,
    item: &ItemAttributes,
    owners: bool,
    fault: &mut dyn FnMut(Reason),
) {
    let by_proc = format!("/proc/self/fd/{}/{name}", dir.as_raw_fd());
    if owners {
        let owner = (Some(Uid::from_raw(item.uid)), Some(Gid::from_raw(item.gid)));
        let set = rustix::fs::chownat(dir, name, owner.0, owner.1, AtFlags::SYMLINK_NOFOLLOW);
        check("set owner", set, fault);
    }
    for (name, value) in &item.xattrs {
        if let Err(errno) =
            rustix::fs::lsetxattr(by_proc.as_str(), name.as_slice(), value, XattrFlags::empty())
        {
            fault(Reason::Xattr { name: name.clone(), errno });
        }
    }
    if item.kind != ItemKind::Symlink {
        check("set mode", rustix::fs::chmodat(dir, name, mode_of(item), AtFlags::empty()), fault);
    }
    check("set times", rustix::fs::utimensat(dir, name, &times(item), AtFlags::SYMLINK_NOFOLLOW), fault);
}

/// Whether the item has flags to be set at the very end.
pub fn has_flags(item: &ItemAttributes) -> bool {
    matches!(item.kind, ItemKind::File | ItemKind::Directory) && item.flags & FLAGS_KEPT != 0
}

/// Adds the item's flags to those that the inode has.
pub fn set_flags(fd: BorrowedFd<'_>, item: &ItemAttributes, fault: &mut dyn FnMut(Reason)) {
    if !has_flags(item) {
        return;
    }
    let set = rustix::fs::ioctl_getflags(fd).and_then(|have| {
        let want = have | IFlags::from_bits_retain(item.flags & FLAGS_KEPT);
        if want == have { Ok(()) } else { rustix::fs::ioctl_setflags(fd, want) }
    });
    check("set flags", set, fault);
}

/// Removes what a new file or directory inherited from the default ACL of the one above; whether there was anything.
pub fn drop_inherited_acls(fd: impl AsFd) -> bool {
    // Without an ACL both fail with ENODATA or EOPNOTSUPP, which is what is wanted; the mode is set afterwards.
    let access = rustix::fs::fremovexattr(&fd, ACL_ACCESS).is_ok();
    let default = rustix::fs::fremovexattr(&fd, ACL_DEFAULT).is_ok();
    access || default
}

/// Permission bits of a row.
pub fn mode_of(item: &ItemAttributes) -> Mode {
    Mode::from_raw_mode(u32::from(item.mode & 0o7777))
}

fn times(item: &ItemAttributes) -> Timestamps {
    Timestamps { last_access: timespec(item.atime), last_modification: timespec(item.mtime) }
}

/// Nanoseconds are cut to their range: the kernel gives larger values a meaning of their own.
fn timespec(time: Timestamp) -> Timespec {
    Timespec { tv_sec: time.secs, tv_nsec: i64::from(time.nanos.min(999_999_999)) }
}

fn check(call: &'static str, result: Result<(), Errno>, fault: &mut dyn FnMut(Reason)) {
    if let Err(errno) = result {
        fault(Reason::System { call, errno });
    }
}
