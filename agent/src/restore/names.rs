//! Names of one file of which some are there already and are to be left: those that are missing become names of the same file.
//!
//! ```text
//!  a name is there, and is what the item says     kept: linked into the staging directory
//!  a name is missing, and one is kept             linked to it
//!  a name is missing, none is kept yet            restored; its path is remembered, and at the end it becomes a link to the kept one,
//!                                                 if one was met later
//! ```
//!
//! Invariants: nothing that was there is changed; memory is bounded by [`PATHS_BYTES_MAX`]. Source: ours.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use windlass_hal::tree::{Errno, Node};

use super::fault::Reason;
use super::file::{Dir, FileName, Job};
use super::target::{Existing, Target};

/// Bytes of paths that are remembered. A name that does not fit, of a file of which others are there, is named as a file of its own.
const PATHS_BYTES_MAX: usize = 4 << 20;

/// What a restore that leaves what is there knows of further names.
#[derive(Debug, Default)]
pub(super) struct Names {
    /// Paths that were restored, by inode.
    made: BTreeMap<u64, Vec<Vec<u8>>>,
    /// Inodes of names that are there and cannot be linked to (they are immutable).
    unlinkable: BTreeSet<u64>,
    bytes: usize,
    /// Whether some were not remembered.
    is_full: bool,
}

impl Names {
    /// Takes a name that is there as the one that others become links to.
    pub(super) fn keep<N: Node>(
        &mut self,
        job: &Job<N>,
        target: &Target<N>,
        dir: &Dir<N>,
        name: &[u8],
        inode: u64,
    ) {
        if dir.node().and_then(|dir| target.keep(&dir, name, inode)).is_err() {
            self.bytes += size_of::<u64>();
            self.is_full |= self.bytes > PATHS_BYTES_MAX;
            if !self.is_full {
                self.unlinkable.insert(inode);
            }
        }
        if self.is_full {
            job.faults.add(dir.path_of(name), Reason::NotOneFile);
        }
    }

    /// Gives a missing name to the file that is kept. Without one it is remembered, and `false`.
    pub(super) fn link_kept<N: Node>(
        &mut self,
        job: &Job<N>,
        target: &Target<N>,
        inode: u64,
        name: &FileName<N>,
    ) -> bool {
        if job.options.existing != Existing::Skip {
            return false;
        }
        let dir = name.dir.node();
        match dir.and_then(|dir| target.link_to_kept(inode, &dir, &name.name, false)) {
            Ok(()) => return true,
            Err(Errno::NOENT) if self.unlinkable.contains(&inode) => {
                job.faults.add(name.dir.path_of(&name.name), Reason::NotOneFile);
                return false;
            }
            Err(Errno::NOENT) => {}
            Err(errno) => {
                job.system(name.dir.path_of(&name.name), "link to its other name", errno);
                return true;
            }
        }
        let path = name.dir.path_of(&name.name);
        self.bytes += path.len();
        self.is_full |= self.bytes > PATHS_BYTES_MAX;
        if !self.is_full {
            self.made.entry(inode).or_default().push(path);
        }
        false
    }

    /// When everything is there: makes what was restored before a kept name was met a link to that.
    pub(super) fn unite<N: Node>(&mut self, job: &Job<N>, target: &Target<N>) {
        for (inode, paths) in std::mem::take(&mut self.made) {
            for path in paths {
                if self.unlinkable.contains(&inode) {
                    job.faults.add(path, Reason::NotOneFile);
                } else if target.is_kept(inode)
                    && let Err(errno) = unite_one(target, inode, &path)
                {
                    job.faults.add(path, Reason::System { call: "link to its other name", errno });
                }
            }
        }
    }
}

/// Replaces what is at `path` by a link to the kept file; the directory's times stay.
fn unite_one<N: Node>(target: &Target<N>, inode: u64, path: &[u8]) -> Result<(), Errno> {
    let mut parts: Vec<&[u8]> = path.split(|&b| b == b'/').collect();
    let Some(name) = parts.pop() else { return Err(Errno::NOENT) };
    let mut dir = target.root();
    for part in parts {
        dir = Arc::new(dir.open_dir(part)?);
    }
    let stat = dir.stat()?;
    // What could not be restored is not there to be replaced.
    dir.stat_name(name)?;
    target.link_to_kept(inode, &dir, name, true)?;
    dir.set_times(stat.atime, stat.mtime)
}
