//! Which inodes the inode trees call free: the first question about a directory entry that may lead nowhere, and the second about
//! an inode that is in use and has no links.
//!
//! Invariants: memory is [`LEAVES_BYTES`] and [`ROOTS`] roots; a slot for each group, the last asked-for wins. A tree that cannot be read
//! calls nothing free. Names of a directory lie in few groups, so each leaf is read about once per sweep.
//!
//! Source: ours.

use super::btree::{self, INODES, Leaf};
use super::chunks::{self, Says};
use super::group::{self, Root};
use super::map::Io;

/// Memory for leaves: those of 128 groups, in blocks of 4 KiB.
const LEAVES_BYTES: usize = 512 << 10;
/// Most roots that are kept: one read each when there are more groups.
const ROOTS: usize = 1024;

/// See the module.
#[derive(Default)]
pub(super) struct InUse {
    roots: Vec<Option<Root>>,
    /// Group and leaf in each slot.
    leaves: Vec<Option<(u32, Leaf)>>,
}

impl InUse {
    /// State of inode `number` in the trees.
    pub(super) fn says(&mut self, io: &mut Io<'_>, number: u64) -> Says {
        let (group, index) = io.sb.split_inode(number);
        let Some(group) = u32::try_from(group).ok().filter(|&group| group < io.sb.groups) else {
            return Says::Free;
        };
        match (u32::try_from(index).ok(), self.root(io, group)) {
            (Some(index), Some(root)) => self.in_tree(io, root, index),
            (None, _) => Says::Free,
            (_, None) => Says::Nothing,
        }
    }

    /// Whether inodes in the group of `number` may be in use without links; true when nothing is known.
    pub(super) fn may_be_unlinked(&mut self, io: &mut Io<'_>, number: u64) -> bool {
        let (group, _) = io.sb.split_inode(number);
        let root = u32::try_from(group).ok().and_then(|group| self.root(io, group));
        root.is_none_or(|root| root.has_unlinked)
    }

    fn root(&mut self, io: &mut Io<'_>, group: u32) -> Option<Root> {
        self.roots.resize((io.sb.groups as usize).min(ROOTS), None);
        let slot = group as usize % self.roots.len().max(1);
        let slot = self.roots.get_mut(slot)?;
        match slot {
            Some(root) if root.group == group => {}
            _ => *slot = group::inodes(io.sb, io.device, group).ok(),
        }
        *slot
    }

    fn in_tree(&mut self, io: &mut Io<'_>, root: Root, index: u32) -> Says {
        let slots = (LEAVES_BYTES >> io.sb.block_bits).max(1);
        self.leaves.resize_with(slots.min(io.sb.groups as usize), || None);
        let slot = root.group as usize % self.leaves.len().max(1);
        let Some(slot) = self.leaves.get_mut(slot) else { return Says::Nothing };
        let answers = |(group, leaf): &(u32, Leaf)| {
            *group == root.group && leaf.low <= index && leaf.next.is_none_or(|next| index < next)
        };
        if !slot.as_ref().is_some_and(answers) {
            let mut leaf = slot.take().map(|(_, leaf)| leaf).unwrap_or_default();
            if btree::leaf(io.sb, io.device, io.cache, INODES, &root, index, &mut leaf).is_err() {
                return Says::Nothing;
            }
            *slot = Some((root.group, leaf));
        }
        let Some((group, leaf)) = slot else { return Says::Nothing };
        chunks::says(io.sb, *group, &leaf.records, u64::from(index))
    }
}
