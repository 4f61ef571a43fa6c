//! What is there already: left as it is, replaced, or reported.
//!
//! | under a name | restored |
//! |---|---|
//! | nothing | yes |
//! | what fits (type, size, mtime, mode, owner), and is one file with its other names | no, but for `Overwrite` |
//! | a file that fits but for a part of its size, of a restore before the machine was started again | yes: its contents may be lost |
//! | something else | as [`Existing`] says, or reported |
//!
//! Source: ours.

use windlass_hal::tree::{Errno, Node, Stat};
use windlass_hal::volume::ItemKind;

use super::attr::Known;
use super::fault::Reason;
use super::file::{Dir, Job};
use super::inode_flags;
use super::remove::is_empty;
use super::target::{Existing, Target};
use super::walk::Walk;
use crate::format::row::ItemAttributes;
use crate::id::Lin;
use crate::table::source::Fetch;

/// Whether the target gets the attributes of the root item. A directory that was in use keeps its own, and one that only some
/// paths are restored to; an empty one may be a new file system, whose root is restored too.
pub(super) fn settles_root<N: Node>(
    job: &Job<N>,
    target: &Target<N>,
    item: &ItemAttributes,
    whole: bool,
) -> bool {
    let before = target.before();
    if before.has_owner_and_mode(item, job.options.owners) && before.mtime == Some(item.mtime) {
        return true;
    }
    let changes = job.options.existing.replaces() || target.was_resumed();
    target.was_made() || whole && (target.was_empty() || changes)
}

/// Whether something that is there has the item's type, mode and time, and its owner unless owners are left.
fn looks_like(have: &Stat, item: &ItemAttributes, owners: bool) -> bool {
    let kind = if item.kind == ItemKind::Image { ItemKind::File } else { item.kind };
    (have.kind, have.mode, have.mtime) == (kind, item.mode, item.mtime)
        && (!owners || (have.uid, have.gid) == (item.uid, item.gid))
}

impl<F: Fetch, N: Node> Walk<'_, F, N> {
    /// Whether to restore a name, and if so whether it may replace what is there.
    pub(super) fn admit(
        &mut self,
        dir: &Dir<N>,
        name: &[u8],
        lin: Lin,
        item: &ItemAttributes,
    ) -> Option<bool> {
        if dir.fresh {
            return Some(false);
        }
        let have = match dir.node().and_then(|dir| dir.stat_name(name)) {
            Err(Errno::NOENT) => return Some(false),
            Err(errno) => {
                self.job.system(dir.path_of(name), "look at what is there", errno);
                return None;
            }
            Ok(have) => have,
        };
        if have.kind == ItemKind::Directory {
            let reason = self.keeps_directory(dir, name, &have);
            return match reason {
                Some(reason) => {
                    self.job.faults.add(dir.path_of(name), reason);
                    None
                }
                None => Some(true),
            };
        }
        let similar = looks_like(&have, item, self.job.options.owners);
        let same = similar && (item.kind != ItemKind::File || have.size == item.size);
        if similar && have.kind == ItemKind::File && self.target.has_lost_power() && have.size <= item.size {
            if let Ok(file) = dir.node().and_then(|dir| dir.open_file(name)) {
                inode_flags::unlock(&file, item);
            }
            return Some(true);
        }
        let existing = self.job.options.existing;
        if existing == Existing::Skip {
            if same && item.links > 1 {
                self.names.keep(self.job, self.target, dir, name, lin.inode);
            }
            if same {
                self.set_flags(dir, name, item);
            }
            return None;
        }
        if existing == Existing::Overwrite {
            // What is there is not trusted, whatever it looks like: no other name is to be linked to it either.
            return Some(true);
        }
        let replaces = existing.replaces() || same && self.target.was_resumed();
        let fits = same && !(item.links > 1 && self.is_torn(dir, name, lin, item, have.inode));
        if fits {
            self.set_flags(dir, name, item);
            return None;
        }
        if !replaces {
            self.job.faults.add(dir.path_of(name), Reason::Exists);
        }
        replaces.then_some(true)
    }

    /// Sets flags on a file that a restore which ended early had named, but not come to set them. Of one with several names they are set
    /// at the end.
    fn set_flags(&self, dir: &Dir<N>, name: &[u8], item: &ItemAttributes) {
        if !self.target.was_resumed() || item.links > 1 || !inode_flags::has_late(item) {
            return;
        }
        match dir.node().and_then(|dir| dir.open_file(name)) {
            Ok(file) => inode_flags::set_at_end(&file, item, &mut |reason| {
                self.job.faults.add(dir.path_of(name), reason);
            }),
            Err(errno) => self.job.system(dir.path_of(name), "open the file for its flags", errno),
        }
    }

    /// Why a directory that is in the place of something else is left there.
    fn keeps_directory(&self, dir: &Dir<N>, name: &[u8], have: &Stat) -> Option<Reason> {
        let options = &self.job.options;
        match options.existing {
            Existing::Refuse | Existing::Skip => Some(Reason::InTheWay),
            _ if options.repository.is_needed((have.device, have.inode)) => Some(Reason::TheRepository),
            Existing::Overwrite => None,
            Existing::OverwriteIfDifferent => {
                let empty = dir.node().and_then(|dir| is_empty(&dir.open_dir(name)?));
                (!empty.unwrap_or(false)).then_some(Reason::FullDirectory)
            }
        }
    }

    /// Whether a name that is there, and looks as it should, is not the same file as the item's other names: a restore that was
    /// killed between two of them leaves it so. The first name that is met becomes the one to link to.
    fn is_torn(&self, dir: &Dir<N>, name: &[u8], lin: Lin, item: &ItemAttributes, have: u64) -> bool {
        if self.links.get(&lin).is_some_and(|file| !file.is_done()) {
            return true;
        }
        let Ok(dir) = dir.node() else { return false };
        let known = self.target.adopt(&dir, name, lin.inode, inode_flags::has_late(item));
        known.is_some_and(|inode| inode != have)
    }

    /// Whether a directory that was there is as the item says, so that it is to be so when something was added; or the work of a restore
    /// that ended early: then its time may differ, or it is as it was made.
    pub(super) fn is_restored(&self, known: Known, item: &ItemAttributes, whole: bool) -> bool {
        let as_item = known.has_owner_and_mode(item, self.job.options.owners);
        if !(whole && self.target.was_resumed()) {
            return as_item && known.mtime == Some(item.mtime);
        }
        let own = self.target.own_uid();
        let is_ours = |(uid, _)| Some(uid) == own || uid == item.uid;
        as_item || known.mode == Some(0o700) && known.owner.is_some_and(is_ours)
    }
}
