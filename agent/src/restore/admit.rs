//! What is there already: left as it is, replaced, or reported.
//!
//! | under a name | restored |
//! |---|---|
//! | nothing | yes |
//! | what fits (type, size, mtime, mode, owner), and is one file with its other names | no, but for `Overwrite` |
//! | a file that fits but for a part of its size, of a restore before the machine was started again | yes: its contents may be lost |
//! | a file in the place of a file, in place, with no names but the item's | what differs of it ([`compare`](super::compare)) |
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

/// What becomes of a name of the point that the target has already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Both are directories: what the point has is restored into the one that is there.
    Entered,
    /// It is as the point has it, as far as its attributes say, and stays.
    Fits,
    /// It stays because that was asked for.
    Kept,
    /// It differs, stays, and is named.
    Named,
    /// It is replaced.
    Replaced,
    /// It is compared, and what differs is written into it.
    Written,
    /// It is of another type, stays, and is named.
    InTheWay,
    /// It is a directory with contents in the place of something else, stays, and is named.
    FullDirectory,
}

impl Fate {
    /// Whether contents are written. A directory that is entered only gets its attributes.
    pub fn is_written(self) -> bool {
        matches!(self, Fate::Replaced | Fate::Written)
    }
}

/// What becomes of `have` in the place of `item`. `is_empty` says so of a directory. Pure: the walk and a preview both ask it.
pub fn fate(
    have: &Stat,
    item: &ItemAttributes,
    existing: Existing,
    owners: bool,
    is_empty: impl FnOnce() -> bool,
) -> Fate {
    match (have.kind == ItemKind::Directory, item.kind == ItemKind::Directory) {
        (true, true) => return Fate::Entered,
        (false, true) if existing.replaces() => return Fate::Replaced,
        (false, true) => return Fate::InTheWay,
        (true, false) => {
            return match existing {
                Existing::Refuse | Existing::Skip => Fate::InTheWay,
                Existing::Overwrite => Fate::Replaced,
                _ if is_empty() => Fate::Replaced,
                _ => Fate::FullDirectory,
            };
        }
        (false, false) => {}
    }
    match existing {
        Existing::Skip => Fate::Kept,
        // What is there is not trusted, whatever it looks like: no other name is to be linked to it either.
        Existing::Overwrite => Fate::Replaced,
        // With more names than the item has it is something else's file too.
        Existing::InPlace if is_file(have.kind, item.kind) && have.links <= u64::from(item.links) => {
            Fate::Written
        }
        Existing::InPlace => Fate::Replaced,
        _ if fits(have, item, owners) => Fate::Fits,
        Existing::OverwriteIfDifferent => Fate::Replaced,
        Existing::Refuse => Fate::Named,
    }
}

fn is_file(have: ItemKind, item: ItemKind) -> bool {
    have == ItemKind::File && matches!(item, ItemKind::File | ItemKind::Image)
}

/// Whether it has the item's size, too.
fn fits(have: &Stat, item: &ItemAttributes, owners: bool) -> bool {
    looks_like(have, item, owners) && (item.kind != ItemKind::File || have.size == item.size)
}

/// How a name is restored.
pub(super) enum Way<N> {
    /// It is made, and may take the place of what is there.
    Make {
        /// Whether it may.
        replace: bool,
    },
    /// Into the file that is there.
    Into(N),
}

const MAKE: bool = false;
const REPLACE: bool = true;

impl<F: Fetch, N: Node> Walk<'_, F, N> {
    /// Whether to restore a name, and if so how.
    pub(super) fn admit(
        &mut self,
        dir: &Dir<N>,
        name: &[u8],
        lin: Lin,
        item: &ItemAttributes,
    ) -> Option<Way<N>> {
        if dir.fresh {
            return Some(Way::Make { replace: MAKE });
        }
        let have = match dir.node().and_then(|dir| dir.stat_name(name)) {
            Err(Errno::NOENT) => return Some(Way::Make { replace: MAKE }),
            Err(errno) => {
                self.job.system(dir.path_of(name), "look at what is there", errno);
                return None;
            }
            Ok(have) => have,
        };
        let (existing, owners) = (self.job.options.existing, self.job.options.owners);
        let is_doubtful = is_file(have.kind, item.kind)
            && self.target.has_lost_power()
            && looks_like(&have, item, owners)
            && have.size <= item.size;
        if is_doubtful && existing != Existing::InPlace {
            if let Ok(file) = dir.node().and_then(|dir| dir.open_file(name)) {
                inode_flags::unlock(&file, item);
            }
            return Some(Way::Make { replace: REPLACE });
        }
        // Another name of what is written in place already; its name in the staging directory is one more that it has.
        let is_linked = existing == Existing::InPlace && item.links > 1 && is_file(have.kind, item.kind);
        if is_linked && self.target.stashed(lin.inode, inode_flags::has_late(item)) == Some(have.inode) {
            return None;
        }
        let is_empty = || dir.node().and_then(|dir| is_empty(&dir.open_dir(name)?)).unwrap_or(false);
        match fate(&have, item, existing, owners, is_empty) {
            Fate::InTheWay => self.refuse(dir, name, Reason::InTheWay),
            Fate::FullDirectory | Fate::Replaced
                if have.kind == ItemKind::Directory
                    && self.job.options.repository.is_needed((have.device, have.inode)) =>
            {
                self.refuse(dir, name, Reason::TheRepository)
            }
            Fate::FullDirectory => self.refuse(dir, name, Reason::FullDirectory),
            Fate::Kept => {
                if fits(&have, item, owners) {
                    if item.links > 1 {
                        self.names.keep(self.job, self.target, dir, name, lin.inode);
                    }
                    self.set_flags(dir, name, item);
                }
                None
            }
            Fate::Fits if item.links > 1 && self.is_torn(dir, name, lin, item, have.inode) => {
                if existing.replaces() || self.target.was_resumed() {
                    return Some(Way::Make { replace: REPLACE });
                }
                self.refuse(dir, name, Reason::Exists)
            }
            Fate::Fits => {
                self.set_flags(dir, name, item);
                None
            }
            Fate::Named => self.refuse(dir, name, Reason::Exists),
            Fate::Written => self.open_in_place(dir, name, lin, item, &have),
            Fate::Replaced | Fate::Entered => Some(Way::Make { replace: REPLACE }),
        }
    }

    fn refuse(&self, dir: &Dir<N>, name: &[u8], why: Reason) -> Option<Way<N>> {
        self.job.faults.add(dir.path_of(name), why);
        None
    }

    /// Opens a file that is there, to be written in place. Of one with several names the first that is met; others are the same file
    /// already, or become names of it.
    fn open_in_place(
        &mut self,
        dir: &Dir<N>,
        name: &[u8],
        lin: Lin,
        item: &ItemAttributes,
        have: &Stat,
    ) -> Option<Way<N>> {
        let opened = dir.node().and_then(|dir| match dir.open_to_write(name) {
            Err(Errno::PERM) => {
                inode_flags::unlock(&dir.open_file(name)?, item);
                dir.open_to_write(name)
            }
            other => other,
        });
        let node = match opened {
            Ok(node) => node,
            Err(errno) => {
                self.job.system(dir.path_of(name), "open the file that is there", errno);
                return None;
            }
        };
        if item.links > 1 {
            if self.links.get(&lin).is_some_and(|file| !file.is_done() && !file.compares()) {
                return Some(Way::Make { replace: REPLACE });
            }
            let flags = inode_flags::has_late(item);
            match dir.node().ok().and_then(|dir| self.target.adopt(&dir, name, lin.inode, flags)) {
                Some(inode) if inode == have.inode => return None,
                Some(_) => return Some(Way::Make { replace: REPLACE }),
                None => {}
            }
        }
        Some(Way::Into(node))
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
