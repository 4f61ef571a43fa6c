//! Extent trees: the root in the inode's 60 bytes, nodes of one block below it, at most five levels deep.
//!
//! ```text
//!  header, 12 bytes          index entry, 12 bytes       leaf entry (extent), 12 bytes
//!  0  2  magic 0xF30A        0  4  first logical block   0  4  first logical block
//!  2  2  entries             4  4  child block (low)     4  2  length; above 32768: unwritten, length - 32768
//!  4  2  entries that fit    8  2  child block (high)    6  2  first physical block (high)
//!  6  2  depth, 0 = leaf     10 2  unused                8  4  first physical block (low)
//!  8  4  generation
//!  Behind the entries that fit, in nodes but not in the root: 4 bytes crc32c (metadata_csum).
//! ```
//!
//! Invariants: depth falls by one per level, so there are no loops; entries ascend and stay in the range that the parent
//! gave, and no node but the root is empty, so no node is of use twice.
//!
//! Source: kernel Documentation/filesystems/ext4/ifork.rst, `__ext4_ext_check` and `ext4_valid_extent_entries`.

use super::checksum::crc32c;
use super::field::{u16_at, u32_at, wide};
use super::inode::Inode;
use super::map::{Io, LOGICAL_END, Map, Run, damaged};
use super::superblock::Superblock;
use super::zone::{self, Zone};

const MAGIC: u16 = 0xF30A;
const DEPTH_MAX: u16 = 5;
const ENTRY_BYTES: usize = 12;
const WRITTEN_LEN_MAX: u16 = 32768;
/// Place of the root in the inode.
const ROOT_AT: u64 = 0x28;

/// The header of a node, checked against the node's size.
#[derive(Clone, Copy)]
struct Header {
    entries: usize,
    max: usize,
    depth: u16,
}

fn header(node: &[u8]) -> Result<Header, &'static str> {
    if u16_at(node, 0) != MAGIC {
        return Err("extent node has no magic number");
    }
    let (entries, max) = (usize::from(u16_at(node, 2)), usize::from(u16_at(node, 4)));
    let depth = u16_at(node, 6);
    let fit = (node.len() / ENTRY_BYTES).saturating_sub(1);
    if max == 0 || max > fit || entries > max {
        return Err("extent node claims more entries than fit");
    }
    if depth > DEPTH_MAX {
        return Err("extent tree deeper than five levels");
    }
    Ok(Header { entries, max, depth })
}

/// Child block of an index entry; first logical block of any entry is `u32_at(entry, 0)`.
fn child(entry: &[u8]) -> u64 {
    wide(u32::from(u16_at(entry, 8)), u32_at(entry, 4))
}

fn entry(node: &[u8], index: usize) -> &[u8] {
    super::field::slice_at(node, ENTRY_BYTES + index * ENTRY_BYTES, ENTRY_BYTES).unwrap_or_default()
}

fn extent(entry: &[u8]) -> Run {
    let len = u16_at(entry, 4);
    let unwritten = len > WRITTEN_LEN_MAX;
    Run {
        logical: u64::from(u32_at(entry, 0)),
        physical: wide(u32::from(u16_at(entry, 6)), u32_at(entry, 8)),
        len: u64::from(if unwritten { len - WRITTEN_LEN_MAX } else { len }),
        unwritten,
    }
}

/// Walks the tree of `inode` into `map`.
pub(super) fn walk(io: &mut Io<'_>, inode: &Inode, inode_at: u64, map: &mut Map) {
    let at = inode_at + ROOT_AT;
    match header(&inode.block) {
        Err(rule) => {
            map.blame(damaged(at, rule));
        }
        Ok(root) if root.depth == 0 => {
            leaf(io.sb, io.zone, &inode.block, root, at, 0..LOGICAL_END, map);
        }
        Ok(root) => {
            index(io, inode, &inode.block, root, at, 0..LOGICAL_END, map);
        }
    }
}

/// Delivers a leaf's extents, which must lie in `bounds`. `false` ends the walk.
fn leaf(
    sb: &Superblock,
    zone: &Zone,
    node: &[u8],
    head: Header,
    at: u64,
    bounds: std::ops::Range<u64>,
    map: &mut Map,
) -> bool {
    let mut low = bounds.start;
    for i in 0..head.entries {
        let run = extent(entry(node, i));
        if run.len == 0 || run.logical < low || run.logical + run.len > bounds.end {
            return map.blame(damaged(at, "extents overlap or are out of order"));
        }
        if !sb.holds(run.physical, run.len) {
            return map.blame(damaged(at, "extent outside the volume"));
        }
        if zone.meets(run.physical, run.len) {
            return map.blame(damaged(at, zone::RULE));
        }
        low = run.logical + run.len;
        if !map.push(run, at) {
            return false;
        }
    }
    true
}

/// Walks the children of an index node. `false` ends the walk.
fn index(
    io: &mut Io<'_>,
    inode: &Inode,
    node: &[u8],
    head: Header,
    at: u64,
    bounds: std::ops::Range<u64>,
    map: &mut Map,
) -> bool {
    if head.entries == 0 {
        return map.blame(damaged(at, "extent index without entries"));
    }
    for i in 0..head.entries {
        let start = u64::from(u32_at(entry(node, i), 0));
        let end = if i + 1 < head.entries { u64::from(u32_at(entry(node, i + 1), 0)) } else { bounds.end };
        if start < bounds.start || start >= end || end > bounds.end {
            return map.blame(damaged(at, "extent index entries out of order"));
        }
        if end <= map.from() {
            continue;
        }
        let block = child(entry(node, i));
        let rule = match io.sb.holds(block, 1) {
            true => io.zone.meets(block, 1).then_some(zone::RULE),
            false => Some("extent node outside the volume"),
        };
        if let Some(rule) = rule {
            if !map.blame(damaged(at, rule)) {
                return false;
            }
            continue;
        }
        let mut wanted = std::mem::take(&mut map.wanted);
        io.read_ahead((i..head.entries).map(|k| child(entry(node, k))), &mut wanted);
        map.wanted = wanted;
        let child_at = io.sb.offset(block);
        if !map.visit(start, child_at) {
            return false;
        }
        let go_on = match descend(io, inode, block, head.depth - 1, start..end, map) {
            Ok(go_on) => go_on,
            Err(fault) => map.blame(fault),
        };
        if !go_on {
            return false;
        }
    }
    true
}

/// Loads and checks the node in `block`, which must have `depth`, and walks it.
fn descend(
    io: &mut Io<'_>,
    inode: &Inode,
    block: u64,
    depth: u16,
    bounds: std::ops::Range<u64>,
    map: &mut Map,
) -> Result<bool, crate::volume::ItemFault> {
    let sb = io.sb;
    let zone = io.zone;
    let at = sb.offset(block);
    let node = io.load(block, "extent node")?;
    let head = header(node).map_err(|rule| damaged(at, rule))?;
    if head.depth != depth {
        return Err(damaged(at, "extent node at the wrong depth"));
    }
    if sb.has_metadata_csum() {
        let tail = ENTRY_BYTES + head.max * ENTRY_BYTES;
        let body = node.get(..tail).filter(|_| tail + 4 <= node.len());
        if body.is_none_or(|body| crc32c(inode.seed, body) != u32_at(node, tail)) {
            return Err(damaged(at, "extent node checksum does not match"));
        }
    }
    if head.entries == 0 {
        return Err(damaged(at, "extent node without entries"));
    }
    if u64::from(u32_at(entry(node, 0), 0)) != bounds.start {
        return Err(damaged(at, "extent node does not start where its parent says"));
    }
    if depth == 0 {
        return Ok(leaf(sb, zone, node, head, at, bounds, map));
    }
    let node = node.to_vec();
    Ok(index(io, inode, &node, head, at, bounds, map))
}

/// What reading ahead may guess from a node without believing it: calls `each` with (block, levels below it), a data run's
/// blocks with `None`. Stops after `most` calls.
pub(super) fn guess(node: &[u8], most: usize, each: &mut dyn FnMut(u64, Option<u16>)) {
    let Ok(head) = header(node) else { return };
    let mut left = most;
    for i in 0..head.entries {
        if head.depth == 0 {
            let run = extent(entry(node, i));
            for k in 0..run.len.min(left as u64) {
                each(run.physical.saturating_add(k), None);
                left -= 1;
            }
        } else if left > 0 {
            each(child(entry(node, i)), Some(head.depth - 1));
            left -= 1;
        }
        if left == 0 {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A leaf of one extent, written by hand: logical 5, `len`, physical 0x0002_0000_0007.
    fn node(len: u16) -> Vec<u8> {
        let mut node = vec![0x0A, 0xF3, 1, 0, 4, 0, 0, 0, 0, 0, 0, 0];
        node.extend_from_slice(&[5, 0, 0, 0]);
        node.extend_from_slice(&len.to_le_bytes());
        node.extend_from_slice(&[2, 0, 7, 0, 0, 0]);
        node.resize(60, 0);
        node
    }

    #[test]
    fn the_longest_written_extent_is_not_unwritten() {
        let run = |len| extent(entry(&node(len), 0));
        let physical = 0x2_0000_0007;
        assert_eq!(run(1), Run { logical: 5, physical, len: 1, unwritten: false });
        assert_eq!(run(32768), Run { logical: 5, physical, len: 32768, unwritten: false });
        assert_eq!(run(32769), Run { logical: 5, physical, len: 1, unwritten: true });
        assert_eq!(run(65535), Run { logical: 5, physical, len: 32767, unwritten: true });
    }

    #[test]
    fn headers_are_checked() {
        let sound = node(1);
        assert!(header(&sound).is_ok());
        for (at, value) in [(0, 0x0B), (2, 5), (4, 5), (4, 0), (6, 6)] {
            let mut bad = sound.clone();
            bad[at] = value;
            assert!(header(&bad).is_err(), "byte {at} = {value}");
        }
        assert!(header(&sound[..11]).is_err());
        assert!(header(&[]).is_err());
    }
}
