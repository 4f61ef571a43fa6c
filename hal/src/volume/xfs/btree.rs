//! Trees of an allocation group: nodes of one block, keys ascending, records in the leaves.
//!
//! ```text
//!  block                              inode tree "IAB3"            free-space tree "AB3B"
//!  0   4  magic                       key     4  first inode       key     8  first block, length
//!  4   2  level, 0 = leaf             child   4  block             child   4  block
//!  6   2  entries                     record  16 (see chunks.rs)   record  8  first block, length
//!  8   4  left neighbour
//!  12  4  right neighbour             A node: keys from 56 on, then, behind the place of the last key that
//!  16  8  address in basic blocks     would fit, the children. A leaf: records from 56 on.
//!  32  16 uuid
//!  48  4  group
//!  52  4  crc
//! ```
//!
//! A walk goes down from the root to the leaf that a key belongs to, and comes back with the key at which the next leaf
//! starts; so neighbours are never followed, and a walk that goes on at that key ends.
//!
//! Invariants: a leaf's range of keys is bounded by all nodes above it; records outside are refused. Levels
//! fall by one.
//!
//! Source: kernel `fs/xfs/libxfs/xfs_btree.c`, `xfs_ialloc_btree.c`, `xfs_alloc_btree.c`.

use super::checksum;
use super::field::{array_at, u16_at, u32_at, u64_at};
use super::group::Root;
use super::superblock::Superblock;
use crate::block::BlockDevice;
use crate::volume::VolumeFault;
use crate::volume::cache::{AHEAD_BLOCKS, Cache};

const HEAD_BYTES: usize = 56;
const CHILD_BYTES: usize = 4;

/// Which tree.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kind {
    magic: &'static [u8; 4],
    name: &'static str,
    key_bytes: usize,
    record_bytes: usize,
}

/// Chunks of inodes by first inode.
pub(super) const INODES: Kind = Kind { magic: b"IAB3", name: "inode tree", key_bytes: 4, record_bytes: 16 };
/// Free extents by first block.
pub(super) const FREE: Kind = Kind { magic: b"AB3B", name: "free-space tree", key_bytes: 8, record_bytes: 8 };

/// One leaf, and the keys that it answers for.
#[derive(Debug, Default)]
pub(super) struct Leaf {
    /// Its records, without gaps.
    pub(super) records: Vec<u8>,
    /// First key that this one answers for.
    pub(super) low: u32,
    /// First key that the next leaf answers for; `None` when this is the last.
    pub(super) next: Option<u32>,
    /// Place on the device.
    pub(super) device: u64,
}

/// Reads into `leaf` the leaf of `root`'s tree that answers for `key`.
pub(super) fn leaf(
    sb: &Superblock,
    device: &mut dyn BlockDevice,
    cache: &mut Cache,
    kind: Kind,
    root: &Root,
    key: u32,
    leaf: &mut Leaf,
) -> Result<(), VolumeFault> {
    (leaf.low, leaf.next) = (0, None);
    leaf.records.clear();
    let mut block = root.block;
    let mut low = 0;
    let mut wanted = Vec::new();
    for level in (0..root.levels).rev() {
        let damaged = |rule: &str, at: u64| VolumeFault::Damaged {
            what: format!("xfs group {}: {} {rule}", root.group, kind.name),
            device_offset: at,
        };
        let Some(linear) = sb.in_group(root.group, u64::from(block), 1) else {
            return Err(damaged("has a block outside the group", leaf.device));
        };
        leaf.device = sb.offset(linear);
        let node = cache.load(device, linear)?;
        let entries =
            verify(sb, kind, root.group, linear, level, node).map_err(|rule| damaged(rule, leaf.device))?;
        if level == 0 {
            let end = HEAD_BYTES + entries * kind.record_bytes;
            leaf.records.extend_from_slice(node.get(HEAD_BYTES..end).unwrap_or_default());
            let keys = leaf.records.chunks_exact(kind.record_bytes).map(|record| u32_at(record, 0));
            if !ascends(keys, low, leaf.next) {
                return Err(damaged("has records out of order", leaf.device));
            }
            leaf.low = low;
            break;
        }
        let keys_at = |i: usize| HEAD_BYTES + i * kind.key_bytes;
        let children_at = keys_at((node.len() - HEAD_BYTES) / (kind.key_bytes + CHILD_BYTES));
        let child = |i: usize| u32_at(node, children_at + i * CHILD_BYTES);
        if entries == 0 || !ascends((0..entries).map(|i| u32_at(node, keys_at(i))), low, leaf.next) {
            return Err(damaged("has keys out of order", leaf.device));
        }
        let last = (0..entries).rposition(|i| u32_at(node, keys_at(i)) <= key).unwrap_or(0);
        low = u32_at(node, keys_at(last));
        if last + 1 < entries {
            leaf.next = Some(u32_at(node, keys_at(last + 1)));
        }
        block = child(last);
        if level == 1 {
            // Leaves are asked for one after the other: read those that follow together with this one.
            let ahead = (last..entries).map(child).take(AHEAD_BLOCKS);
            wanted.extend(ahead.filter_map(|block| sb.in_group(root.group, u64::from(block), 1)));
            if wanted.first().is_some_and(|&first| !cache.has(first)) {
                cache.prefetch(device, &mut wanted);
            }
        }
    }
    Ok(())
}

/// Whether `keys` ascend strictly and lie in `low..end`.
fn ascends(keys: impl Iterator<Item = u32>, low: u32, end: Option<u32>) -> bool {
    let mut least = u64::from(low);
    for key in keys {
        if u64::from(key) < least || end.is_some_and(|end| key >= end) {
            return false;
        }
        least = u64::from(key) + 1;
    }
    true
}

/// Checks a block; returns how many entries it has.
fn verify(
    sb: &Superblock,
    kind: Kind,
    group: u32,
    linear: u64,
    level: u32,
    block: &[u8],
) -> Result<usize, &'static str> {
    if !block.starts_with(kind.magic) {
        return Err("block has no magic number");
    }
    if !checksum::holds(block, 52) {
        return Err("block checksum does not match");
    }
    if array_at(block, 32) != Some(sb.meta_uuid)
        || u32_at(block, 48) != group
        || u64_at(block, 16) != sb.basic(linear)
    {
        return Err("block belongs elsewhere");
    }
    if u32::from(u16_at(block, 4)) != level {
        return Err("block is at the wrong level");
    }
    let entries = usize::from(u16_at(block, 6));
    let entry_bytes = if level == 0 { kind.record_bytes } else { kind.key_bytes + CHILD_BYTES };
    match entries <= (block.len() - HEAD_BYTES) / entry_bytes {
        true => Ok(entries),
        false => Err("block claims more entries than fit"),
    }
}
