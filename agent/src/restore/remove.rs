//! Removing a directory tree that was replaced, from the staging directory.
//!
//! Invariants: no symlink is followed and no other file system entered (something may be mounted in there); nesting is bounded by
//! [`DEPTH_MAX`](super::walk::DEPTH_MAX); one open directory per level. What cannot be removed ends it, the rest stays. Source: ours.

use std::ffi::{CStr, CString};
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Dir as Listing};
use rustix::io::Errno;

use super::target::open_dir;
use super::walk::DEPTH_MAX;

/// Calls `each` with every name in `dir` but `.` and `..`.
pub(super) fn each_name(dir: BorrowedFd<'_>, each: &mut dyn FnMut(&CStr)) -> Result<(), Errno> {
    for entry in Listing::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        if name != c"." && name != c".." {
            each(name);
        }
    }
    Ok(())
}

/// Whether `dir` holds nothing.
pub(super) fn is_empty(dir: BorrowedFd<'_>) -> Result<bool, Errno> {
    let mut empty = true;
    each_name(dir, &mut |_| empty = false)?;
    Ok(empty)
}

/// Removes `name` in `dir` and, if it is a directory, everything below.
pub(super) fn remove_tree(dir: BorrowedFd<'_>, name: &[u8]) -> Result<(), Errno> {
    match rustix::fs::unlinkat(dir, name, AtFlags::empty()) {
        Err(Errno::ISDIR | Errno::PERM) => {}
        other => return other,
    }
    let top = open_dir(dir, name)?;
    let device = rustix::fs::fstat(&top)?.st_dev;
    // Directories on the way down, each with its name in the one above.
    let mut levels: Vec<(OwnedFd, CString)> = Vec::new();
    let mut at = top;
    loop {
        match first_directory(&at)? {
            Some(below) => {
                let next = open_dir(rustix::fd::AsFd::as_fd(&at), below.to_bytes())?;
                if rustix::fs::fstat(&next)?.st_dev != device {
                    return Err(Errno::BUSY);
                }
                if levels.len() >= DEPTH_MAX {
                    return Err(Errno::LOOP);
                }
                levels.push((std::mem::replace(&mut at, next), below));
            }
            None => match levels.pop() {
                Some((above, name)) => {
                    rustix::fs::unlinkat(&above, name, AtFlags::REMOVEDIR)?;
                    at = above;
                }
                None => return rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR),
            },
        }
    }
}

/// Removes what of a directory is no directory; the name of one that is.
fn first_directory(dir: &OwnedFd) -> Result<Option<CString>, Errno> {
    let mut found = None;
    let mut failed = None;
    each_name(rustix::fd::AsFd::as_fd(dir), &mut |name| {
        if found.is_some() || failed.is_some() {
            return;
        }
        match rustix::fs::unlinkat(dir, name, AtFlags::empty()) {
            Ok(()) => {}
            // EPERM of a directory on some file systems, and of an immutable file on all.
            Err(Errno::ISDIR) => found = Some(name.to_owned()),
            Err(errno) => failed = Some(errno),
        }
    })?;
    match failed {
        Some(errno) => Err(errno),
        None => Ok(found),
    }
}
