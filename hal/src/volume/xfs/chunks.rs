//! Inodes: chunks of 64 that the inode tree of each group lists.
//!
//! ```text
//!  record of the inode tree
//!  0  4  first inode in the group, a multiple of 64 where a block holds no more
//!  4  2  holes: bit i set = inodes 4i..4i+4 do not exist     without the sparse feature: 4 4 free inodes
//!  6  1  inodes that exist
//!  7  1  free inodes
//!  8  8  bit i set = inode i is free (or does not exist)
//! ```
//!
//! Invariants: a chunk in which every inode is free, and holes, are never read. A broken tree ends the sweep with its name: like
//! ext4's group descriptors it is the index of all items, and without it the missing items cannot be named.
//!
//! Source: kernel `fs/xfs/libxfs/xfs_format.h` (`xfs_inobt_rec`), `xfs_inobt_check_irec`.

use super::btree::{self, INODES, Leaf};
use super::field::{u8_at, u16_at, u32_at, u64_at};
use super::group::{self, Root};
use super::superblock::Superblock;
use crate::block::BlockDevice;
use crate::volume::VolumeFault;
use crate::volume::cache::Cache;
use crate::volume::piece::{List, Spans};

const RECORD_BYTES: usize = 16;
/// Inodes in a chunk.
const CHUNK_INODES: u32 = 64;
/// Inodes that one bit of the mask of holes stands for.
const HOLE_INODES: u32 = 4;
/// Groups and leaves looked at in one go when they hold nothing.
const LOOKS_MAX: u32 = 1024;

/// One record, checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Chunk {
    first: u32,
    holes: u16,
    free: u64,
}

/// State of an inode number in an inode tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Says {
    /// The inode is in use.
    Taken,
    /// Free, or in no chunk.
    Free,
    /// The tree cannot be read here.
    Nothing,
}

/// State of inode `index` in the leaf `records` of `group`'s tree.
pub(super) fn says(sb: &Superblock, group: u32, records: &[u8], index: u64) -> Says {
    let holds = |record: &&[u8]| {
        let first = u64::from(u32_at(record, 0));
        first <= index && index - first < u64::from(CHUNK_INODES)
    };
    // Records ascend, so the last that starts at or below `index` is the one.
    let count = records.len() / RECORD_BYTES;
    let record = |i: usize| records.get(i * RECORD_BYTES..(i + 1) * RECORD_BYTES).unwrap_or_default();
    let (mut low, mut high) = (0, count);
    while low < high {
        let middle = low.midpoint(high);
        match u64::from(u32_at(record(middle), 0)) <= index {
            true => low = middle + 1,
            false => high = middle,
        }
    }
    let Some(record) = low.checked_sub(1).map(record).filter(holds) else { return Says::Free };
    match Chunk::parse(sb, group, record) {
        Ok(chunk) => {
            let bit = 1u64 << (index - u64::from(chunk.first));
            if (hole_inodes(chunk.holes) | chunk.free) & bit != 0 { Says::Free } else { Says::Taken }
        }
        Err(_) => Says::Nothing,
    }
}

/// The inode trees, and the leaf at hand.
#[derive(Default)]
pub(super) struct Trees {
    root: Option<Root>,
    leaf: Leaf,
    /// Where the last list ended.
    next: Option<u64>,
    /// Inodes of the group at hand that its leaves hold so far, when they were all looked at.
    seen: Option<u64>,
}

/// The chunks as a list of inodes.
pub(super) struct Chunks<'a> {
    pub(super) sb: &'a Superblock,
    pub(super) cache: &'a mut Cache,
    pub(super) trees: &'a mut Trees,
}

impl Chunk {
    /// Decodes and checks a record of `group`.
    fn parse(sb: &Superblock, group: u32, record: &[u8]) -> Result<Chunk, &'static str> {
        let (first, free) = (u32_at(record, 0), u64_at(record, 8));
        let (holes, count, free_count) = match sb.has_sparse_inodes() {
            true => (u16_at(record, 4), u32::from(u8_at(record, 6)), u32::from(u8_at(record, 7))),
            false => (0, CHUNK_INODES, u32_at(record, 4)),
        };
        let exists = !hole_inodes(holes);
        if !first.is_multiple_of(CHUNK_INODES.min(1 << sb.inodes_per_block_bits)) {
            return Err("has a chunk that starts within a block");
        }
        if count != exists.count_ones() || free_count != (free & exists).count_ones() {
            return Err("has a chunk whose counts do not match");
        }
        let last = u64::from(first) + u64::from(CHUNK_INODES - 1);
        let inside = |index: u64| sb.inode_place(group, index).is_some();
        // A sparse chunk may reach behind the end of the group with its holes.
        if !inside(u64::from(first)) && holes & 1 == 0 || !inside(last) && holes >> 15 == 0 {
            return Err("has a chunk outside the group");
        }
        Ok(Chunk { first, holes, free })
    }

    /// The rows of inodes that exist and are not all free: (index of the first, count).
    fn rows(self) -> impl Iterator<Item = (u32, u32)> {
        let exists = !hole_inodes(self.holes);
        let mut at = 0;
        std::iter::from_fn(move || {
            while at < CHUNK_INODES {
                let rest = exists >> at;
                if rest & 1 == 0 {
                    at += rest.trailing_zeros().min(CHUNK_INODES - at);
                    continue;
                }
                let count = rest.trailing_ones().min(CHUNK_INODES - at);
                let row = (at, count);
                at += count;
                if self.free_of(row) != mask(count) {
                    return Some(row);
                }
            }
            None
        })
    }

    /// Free bits of a row, the first inode's lowest.
    fn free_of(self, (index, count): (u32, u32)) -> u64 {
        self.free >> index & mask(count)
    }
}

/// `count` (1..=64) low bits.
fn mask(count: u32) -> u64 {
    u64::MAX >> (CHUNK_INODES - count.clamp(1, CHUNK_INODES))
}

/// The inodes that a mask of holes stands for.
fn hole_inodes(holes: u16) -> u64 {
    (0..16).filter(|bit| holes >> bit & 1 != 0).map(|bit| 0xFu64 << (bit * HOLE_INODES)).sum()
}

impl List for Chunks<'_> {
    fn list(
        &mut self,
        device: &mut dyn BlockDevice,
        number: u64,
        spans: &mut Spans,
    ) -> Result<Option<u64>, VolumeFault> {
        let Chunks { sb, cache, trees } = self;
        if trees.next != Some(number) {
            trees.seen = None;
        }
        let seen = trees.seen;
        let listed = trees.list(sb, device, cache, number, spans);
        match &listed {
            Ok(next) => trees.next = *next,
            Err(_) => (trees.next, trees.seen) = (Some(number), seen),
        }
        listed
    }
}

impl Trees {
    fn list(
        &mut self,
        sb: &Superblock,
        device: &mut dyn BlockDevice,
        cache: &mut Cache,
        number: u64,
        spans: &mut Spans,
    ) -> Result<Option<u64>, VolumeFault> {
        let mut number = number;
        for _ in 0..LOOKS_MAX {
            let (group, index) = sb.split_inode(number);
            let Some(group) = u32::try_from(group).ok().filter(|&group| group < sb.groups) else {
                return Ok(None);
            };
            if index == 0 {
                self.seen = Some(0);
            }
            let after = self.load(sb, device, cache, group, index as u32)?;
            let (mut end, mut inodes) = (0, 0);
            for record in self.leaf.records.chunks_exact(RECORD_BYTES) {
                let chunk = Chunk::parse(sb, group, record).map_err(|rule| self.damaged(group, rule))?;
                if u64::from(chunk.first) < end {
                    return Err(self.damaged(group, "has chunks that overlap"));
                }
                end = u64::from(chunk.first) + u64::from(CHUNK_INODES);
                inodes += u64::from((!hole_inodes(chunk.holes)).count_ones());
                for row in chunk.rows() {
                    let first = u64::from(chunk.first + row.0);
                    if first + u64::from(row.1) <= index {
                        continue;
                    }
                    let Some((block, byte)) = sb.inode_place(group, first) else {
                        return Err(self.damaged(group, "has a chunk outside the group"));
                    };
                    let place = sb.offset(block) + byte as u64;
                    let first = sb.inode_number(group, first);
                    if spans.room(place) < row.1 {
                        return Ok(Some(first));
                    }
                    spans.push(first, row.1, place, chunk.free_of(row));
                }
            }
            self.seen = self.seen.map(|seen| seen + inodes);
            if after.is_none()
                && let (Some(seen), Some(root)) = (self.seen.take(), self.root)
                && seen != u64::from(root.total)
            {
                return Err(self.damaged(group, "does not hold the inodes that its header counts"));
            }
            number = match after {
                Some(index) => sb.inode_number(group, u64::from(index)),
                None if group + 1 < sb.groups => sb.inode_number(group + 1, 0),
                None => return Ok(None),
            };
        }
        Ok(Some(number))
    }

    /// Makes the leaf that answers for `index` of `group` the one at hand. Returns where the next one starts.
    fn load(
        &mut self,
        sb: &Superblock,
        device: &mut dyn BlockDevice,
        cache: &mut Cache,
        group: u32,
        index: u32,
    ) -> Result<Option<u32>, VolumeFault> {
        let root = match self.root {
            Some(root) if root.group == group => root,
            _ => group::inodes(sb, device, group)?,
        };
        self.root = Some(root);
        btree::leaf(sb, device, cache, INODES, &root, index, &mut self.leaf)?;
        Ok(self.leaf.next)
    }

    /// Finds inode `number` alone: whether it is free, its block, and its byte in it. `None` when it does not exist.
    pub(super) fn find(
        &mut self,
        sb: &Superblock,
        device: &mut dyn BlockDevice,
        cache: &mut Cache,
        number: u64,
    ) -> Result<Option<(bool, u64, usize)>, VolumeFault> {
        let (group, index) = sb.split_inode(number);
        let Some(group) = u32::try_from(group).ok().filter(|&group| group < sb.groups) else {
            return Ok(None);
        };
        self.load(sb, device, cache, group, index as u32)?;
        let holds = |record: &&[u8]| {
            let first = u64::from(u32_at(record, 0));
            first <= index && index - first < u64::from(CHUNK_INODES)
        };
        let Some(record) = self.leaf.records.chunks_exact(RECORD_BYTES).find(holds) else { return Ok(None) };
        let chunk = Chunk::parse(sb, group, record).map_err(|rule| self.damaged(group, rule))?;
        let bit = 1u64 << (index - u64::from(chunk.first));
        if hole_inodes(chunk.holes) & bit != 0 {
            return Ok(None);
        }
        Ok(sb.inode_place(group, index).map(|(block, byte)| (chunk.free & bit != 0, block, byte)))
    }

    fn damaged(&self, group: u32, rule: &str) -> VolumeFault {
        VolumeFault::Damaged {
            what: format!("xfs group {group}: inode tree {rule}"),
            device_offset: self.leaf.device,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_leave_holes_and_free_ones_out() {
        let rows = |holes, free| Chunk { first: 0, holes, free }.rows().collect::<Vec<_>>();
        assert_eq!(rows(0, 0), [(0, 64)]);
        assert_eq!(rows(0, u64::MAX), []);
        assert_eq!(rows(0, u64::MAX >> 1), [(0, 64)]);
        assert_eq!(rows(0xFF00, 0), [(0, 32)]);
        assert_eq!(rows(0x00FF, 0), [(32, 32)]);
        assert_eq!(rows(0x0FF0, 0xFFFF), [(48, 16)]);
        assert_eq!(rows(0xFFFF, 0), []);
    }
}
