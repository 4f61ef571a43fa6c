//! Removing a directory tree that was replaced, from the staging directory.
//!
//! Invariants: no symlink is followed and no other file system entered (something may be mounted in there); nesting is bounded by
//! [`DEPTH_MAX`](super::walk::DEPTH_MAX); one open directory per level. What cannot be removed ends it, the rest stays. Source: ours.

use windlass_hal::tree::{Errno, Node};

use super::walk::DEPTH_MAX;

/// Whether `dir` holds nothing.
pub(super) fn is_empty(dir: &impl Node) -> Result<bool, Errno> {
    let mut empty = true;
    dir.names(&mut |_| empty = false)?;
    Ok(empty)
}

/// Removes `name` in `dir` and, if it is a directory, everything below.
pub(super) fn remove_tree<N: Node>(dir: &N, name: &[u8]) -> Result<(), Errno> {
    match dir.remove(name) {
        Err(Errno::ISDIR | Errno::PERM) => {}
        other => return other,
    }
    let mut at = dir.open_dir(name)?;
    let device = at.stat()?.device;
    // Directories on the way down, each with the name of the one below it.
    let mut levels: Vec<(N, Vec<u8>)> = Vec::new();
    loop {
        match first_directory(&at)? {
            Some(below) => {
                let next = at.open_dir(&below)?;
                if next.stat()?.device != device {
                    return Err(Errno::BUSY);
                }
                if levels.len() >= DEPTH_MAX {
                    return Err(Errno::LOOP);
                }
                levels.push((std::mem::replace(&mut at, next), below));
            }
            None => match levels.pop() {
                Some((above, name)) => {
                    above.remove_dir(&name)?;
                    at = above;
                }
                None => return dir.remove_dir(name),
            },
        }
    }
}

/// Removes what of a directory is no directory; the name of one that is.
fn first_directory(dir: &impl Node) -> Result<Option<Vec<u8>>, Errno> {
    let mut found = None;
    let mut failed = None;
    dir.names(&mut |name| {
        if found.is_some() || failed.is_some() {
            return;
        }
        match dir.remove(name) {
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
