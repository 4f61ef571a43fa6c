//! The blocks that the file system keeps for itself: superblocks, descriptors, bitmaps, inode tables, the journal. An extent, a map
//! or an attribute block that lies in them is a fault of its inode, as it is for the kernel (`block_validity`).
//!
//! Invariants: ranges ascend and do not touch; at most [`RANGES_MAX`] are kept (512 KiB), which is enough for 2 TiB without flex_bg and
//! 64 TiB with it. Groups behind that are not covered, and neither are those behind a descriptor that cannot be read: a zone
//! too small misses a fault, it never makes one up.
//!
//! Does not: know blocks of ordinary inodes; two of them in one place are found by [`check`](crate::volume::check).
//! Source: kernel `fs/ext4/block_validity.c`.

use std::cell::Cell;
use std::ops::Range;

use super::bitmap::base_blocks;
use super::group::{Groups, table_blocks};
use super::superblock::Superblock;
use crate::block::BlockDevice;

/// Most ranges kept (16 bytes each).
const RANGES_MAX: usize = 32768;
/// Rule that a block in the zone breaks.
pub(super) const RULE: &str = "block belongs to the file system's own metadata";

/// See the module.
pub(super) struct Zone {
    ranges: Vec<(u64, u64)>,
    /// The gap of the last look-up: the next one is mostly nearby.
    gap: Cell<(u64, u64)>,
}

impl Zone {
    /// Nothing in it.
    pub(super) fn new() -> Zone {
        Zone { ranges: Vec::new(), gap: Cell::new((0, 0)) }
    }

    /// Reads the descriptors for it.
    pub(super) fn build(sb: &Superblock, groups: &mut Groups, device: &mut dyn BlockDevice) -> Zone {
        let mut zone = Zone::new();
        for number in 0..sb.groups {
            let Ok(group) = groups.get(sb, device, number) else { break };
            if sb.group_has_super(number) {
                let start = sb.group_start(number);
                zone.add(start..start + base_blocks(sb, number, 0));
            }
            zone.add(group.block_bitmap..group.block_bitmap + 1);
            zone.add(group.inode_bitmap..group.inode_bitmap + 1);
            zone.add(group.inode_table..group.inode_table + table_blocks(sb));
            if zone.ranges.len() > 2 * RANGES_MAX {
                zone.settle();
                if zone.ranges.len() > RANGES_MAX {
                    break;
                }
            }
        }
        zone.settle();
        zone
    }

    /// Adds blocks; [`Zone::settle`] before the next question.
    pub(super) fn add(&mut self, blocks: Range<u64>) {
        if !blocks.is_empty() {
            self.ranges.push((blocks.start, blocks.end));
        }
    }

    /// Sorts and merges.
    pub(super) fn settle(&mut self) {
        self.ranges.sort_unstable();
        self.ranges.dedup_by(|next, kept| {
            let joined = next.0 <= kept.1;
            if joined {
                kept.1 = kept.1.max(next.1);
            }
            joined
        });
        self.gap.set((0, 0));
    }

    /// Whether any of `first..first + len` is in the zone.
    pub(super) fn meets(&self, first: u64, len: u64) -> bool {
        let end = first.saturating_add(len);
        let (from, to) = self.gap.get();
        if from <= first && end <= to {
            return false;
        }
        let after = self.ranges.partition_point(|&(_, range_end)| range_end <= first);
        let next = self.ranges.get(after).map_or(u64::MAX, |range| range.0);
        if next < end {
            return true;
        }
        let before = after.checked_sub(1).and_then(|i| self.ranges.get(i)).map_or(0, |range| range.1);
        self.gap.set((before, next));
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edges_of_ranges() {
        let mut zone = Zone::new();
        for range in [20..30, 5..8, 8..10, 25..31] {
            zone.add(range);
        }
        zone.settle();
        assert_eq!(zone.ranges, [(5, 10), (20, 31)]);
        for _ in 0..2 {
            for (first, len, wanted) in [
                (0, 5, false),
                (0, 6, true),
                (9, 1, true),
                (10, 10, false),
                (10, 11, true),
                (31, u64::MAX, false),
            ] {
                assert_eq!(zone.meets(first, len), wanted, "{first} {len}");
            }
        }
        assert!(!Zone::new().meets(0, 9));
    }
}
