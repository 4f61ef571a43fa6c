//! Items that no directory names any more: what a directory held that could not be read when it was backed up, be it the root.
//!
//! ```text
//!  items, a window of inodes at a time --> their numbers, sorted
//!  names of all directories that live  --> which of the numbers have one
//!  the others                          --> lost+found/INODE; a directory with all that is below it, under its own names
//! ```
//!
//! Only the top of a lost tree has no name: a directory's own listing names what is in it. As e2fsck does it.
//!
//! Invariants: memory is a window ([`WINDOW_INODES`]); each of them reads the names once. Done only when a restore of everything met
//! something damaged. Source: ours.

use std::sync::Arc;

use windlass_hal::tree::Node;
use windlass_hal::volume::ItemKind;

use super::fault::{Reason, RestoreFault};
use super::file::Dir;
use super::walk::Walk;
use crate::format::key::KeyRef;
use crate::format::row::{Row, RowKind};
use crate::id::{Lin, VolumeId};
use crate::read::lookup::Lookup;
use crate::table::lost::known;
use crate::table::source::{Fetch, TableFault};

/// Inodes that are looked at in one pass over the names: 9 MiB.
const WINDOW_INODES: usize = 1 << 20;
/// Where they go.
const LOST_AND_FOUND: &[u8] = b"lost+found";

impl<F: Fetch, N: Node> Walk<'_, F, N> {
    /// Restores what of `root`'s volume nothing names into `lost+found` below the target.
    pub(super) fn orphans(&mut self, top: &Arc<Dir<N>>, root: Lin) -> Result<(), RestoreFault> {
        let mut from = 0;
        let mut lost: Option<Arc<Dir<N>>> = None;
        while !self.job.is_over() {
            let mut window = Vec::new();
            let next = nameless(self.lookup, root.volume, from, &mut window)?;
            for inode in window.into_iter().filter(|&inode| inode != root.inode) {
                let lin = Lin { volume: root.volume, inode };
                // What rows are lost cannot be told from what was deleted: those who ask for it by name are told.
                let Ok(Some(item)) = self.item(lin)? else { continue };
                let dir = match &lost {
                    Some(dir) => Arc::clone(dir),
                    None => match self.lost_and_found(top) {
                        Some(dir) => Arc::clone(lost.insert(dir)),
                        None => return Ok(()),
                    },
                };
                let name = inode.to_string().into_bytes();
                self.job.faults.add(dir.path_of(&name), Reason::NoName);
                let mut below = Vec::new();
                self.entry(&dir, &name, lin, item, None, &mut below)?;
                for (name, lin, item, wanted) in below {
                    if let Some(dir) = self.enter(&dir, &name, &item, true) {
                        self.tree(dir, lin, item, wanted)?;
                    }
                }
            }
            match next {
                Some(next) => from = next,
                None => break,
            }
        }
        if let Some(dir) = lost {
            dir.done(self.job);
        }
        Ok(())
    }

    /// The directory that they go to, which keeps its attributes when it is there.
    fn lost_and_found(&mut self, top: &Arc<Dir<N>>) -> Option<Arc<Dir<N>>> {
        let made = top.node().and_then(|top| self.make_or_open(&top, LOST_AND_FOUND));
        match made {
            Ok((fresh, fd)) => {
                let inherited = if fresh { top.inherited } else { None };
                Some(Dir::new(Some(Arc::clone(top)), LOST_AND_FOUND.to_vec(), fd, None, fresh, inherited))
            }
            Err(errno) => {
                self.job.system(LOST_AND_FOUND.to_vec(), "make the directory", errno);
                None
            }
        }
    }
}

/// Fills `out` with the inodes from `from` on, of one window, that no living directory names; returns where the next window begins.
fn nameless<F: Fetch>(
    lookup: &mut Lookup<F>,
    volume: VolumeId,
    from: u64,
    out: &mut Vec<u64>,
) -> Result<Option<u64>, TableFault> {
    let mut inodes: Vec<u64> = Vec::new();
    let mut next = None;
    let mut items = lookup.items(volume, from);
    while let Some(row) = items.next(lookup.reader())? {
        if inodes.len() == WINDOW_INODES {
            next = Some(row.lin.inode);
            break;
        }
        inodes.push(row.lin.inode);
    }
    let mut named = vec![false; inodes.len()];
    let mut names = lookup.reader().rows(RowKind::Name, KeyRef::first_of(Lin { volume, inode: 0 }));
    // The directory whose rows are being read, and since which backup its listing counts.
    let mut listing = (Lin::default(), None);
    while let Some(row) = names.next(lookup.reader().source())? {
        let Row::Name(row) = row else { continue };
        if row.parent.volume != volume {
            break;
        }
        if listing.0 != row.parent {
            let directory = known(lookup.item(row.parent))?.ok().flatten();
            let directory = directory.filter(|item| item.kind == ItemKind::Directory);
            listing = (row.parent, directory.map(|item| item.rows_from));
        }
        if listing.1 == Some(row.backup)
            && let Ok(at) = inodes.binary_search(&row.inode)
        {
            named[at] = true;
        }
    }
    out.extend(inodes.into_iter().zip(named).filter_map(|(inode, named)| (!named).then_some(inode)));
    Ok(next)
}
