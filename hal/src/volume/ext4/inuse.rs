//! Which inodes the inode bitmaps call free: the first check of a directory entry that may lead to no item.
//!
//! The bitmap alone decides nothing: the caller then looks at the inode itself, because a bitmap may be stale
//! where the inode is sound. The other way round, a name may lead to a deleted inode whose bit is still set:
//! when the sweep comes to such an inode, it asks whether its bit is set.
//!
//! Inodes in the part of the table that a group calls unused are free whatever the bitmap has, because the
//! sweep does not read them.
//!
//! Invariants: memory is [`ARENA_BYTES`]; a slot for each group, the last asked-for wins. A bitmap that
//! cannot be read or is not valid calls nothing free. Each bitmap is read about once per sweep, neighbours
//! together.
//!
//! Source: ours.

use super::group::Groups;
use super::map::Io;

/// Memory for bitmaps: 4 million inodes.
const ARENA_BYTES: usize = 512 << 10;
/// Groups whose bitmaps are read together: a usual flex group.
const GROUPS_AHEAD: u32 = 16;

/// See the module.
#[derive(Default)]
pub(super) struct InUse {
    bits: Vec<u8>,
    /// Group in each slot, `None` when none, and whether its bitmap is valid.
    owner: Vec<Option<(u32, bool)>>,
    wanted: Vec<u64>,
}

impl InUse {
    /// Whether inode `number` (1..=inodes_count) is free by its bitmap.
    pub(super) fn is_free(&mut self, io: &mut Io<'_>, groups: &mut Groups, number: u32) -> bool {
        !self.bit(io, groups, number).0
    }

    /// Whether inode `number` is in use by a valid bitmap.
    pub(super) fn is_taken(&mut self, io: &mut Io<'_>, groups: &mut Groups, number: u32) -> bool {
        self.bit(io, groups, number) == (true, true)
    }

    /// The bit of inode `number`, and whether the bitmap is valid.
    fn bit(&mut self, io: &mut Io<'_>, groups: &mut Groups, number: u32) -> (bool, bool) {
        let per_group = io.sb.inodes_per_group;
        let slot_bytes = per_group as usize / 8;
        if self.owner.is_empty() {
            self.owner = vec![None; (ARENA_BYTES / slot_bytes).max(1)];
            self.bits = vec![0; self.owner.len() * slot_bytes];
        }
        let (group, index) = ((number - 1) / per_group, (number - 1) as usize % per_group as usize);
        let slot = group as usize % self.owner.len();
        let place = slot * slot_bytes..(slot + 1) * slot_bytes;
        let believed = match self.owner[slot] {
            Some((owner, believed)) if owner == group => believed,
            _ => {
                let believed = fill(io, groups, group, &mut self.wanted, &mut self.bits[place.clone()]);
                self.owner[slot] = Some((group, believed));
                believed
            }
        };
        (self.bits[place][index / 8] >> (index % 8) & 1 != 0, believed)
    }
}

/// Loads the bitmap of `group` into `bits`; returns whether it is valid.
fn fill(io: &mut Io<'_>, groups: &mut Groups, group: u32, wanted: &mut Vec<u64>, bits: &mut [u8]) -> bool {
    let sb = io.sb;
    bits.fill(0xFF);
    let Ok(here) = groups.get(sb, io.device, group) else { return false };
    if here.inode_uninit {
        bits.fill(0);
        return true;
    }
    if !io.cache.has(here.inode_bitmap) {
        wanted.clear();
        for ahead in group..sb.groups.min(group.saturating_add(GROUPS_AHEAD)) {
            let bitmap = groups.get(sb, io.device, ahead).ok().filter(|group| !group.inode_uninit);
            wanted.extend(bitmap.map(|group| group.inode_bitmap));
        }
        io.cache.prefetch(io.device, wanted);
    }
    let mut believed = false;
    if let Ok(bitmap) = io.load(here.inode_bitmap, "inode bitmap")
        && here.inode_bitmap_holds(sb, bitmap)
        && let Some(bitmap) = bitmap.get(..bits.len())
    {
        bits.copy_from_slice(bitmap);
        believed = true;
    }
    let touched = here.inodes_touched as usize;
    if let Some(byte) = bits.get_mut(touched / 8) {
        *byte &= !(0xFF << (touched % 8));
        bits[touched / 8 + 1..].fill(0);
    }
    believed
}
