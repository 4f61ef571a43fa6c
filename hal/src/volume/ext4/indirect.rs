//! Block maps, as ext2 and ext3 have them: 15 block numbers in the inode.
//!
//! ```text
//!  block[0..12]   data blocks 0..12
//!  block[12]      indirect: a block of pointers (P = block size / 4) to data
//!  block[13]      double: pointers to indirect blocks
//!  block[14]      triple: pointers to double blocks
//!  pointer 0      a hole as large as what it would lead to
//! ```
//!
//! There are no checksums and no states here; every block is written. Loops are harmless: the levels are fixed and
//! [`Map::visit`] bounds the work.
//!
//! Source: kernel Documentation/filesystems/ext4/ifork.rst (blockmap.rst), `fs/ext4/indirect.c`.

use super::field::u32_at;
use super::inode::Inode;
use super::map::{Io, LOGICAL_END, Map, Run, damaged};
use super::zone;

const DIRECT: u64 = 12;
const ROOT_AT: u64 = 0x28;

/// Walks the map of `inode` into `map`.
pub(super) fn walk(io: &mut Io<'_>, inode: &Inode, inode_at: u64, map: &mut Map) {
    let at = inode_at + ROOT_AT;
    for i in 0..DIRECT {
        if !data(io, u32_at(&inode.block, i as usize * 4), i, at, map) {
            return;
        }
    }
    let pointers = (io.sb.block_bytes() / 4) as u64;
    let mut logical = DIRECT;
    let mut span = 1;
    for level in 1..=3u32 {
        span *= pointers;
        let block = u32_at(&inode.block, (11 + level as usize) * 4);
        if block != 0 && logical + span > map.from() && !node(io, block, level, span, logical, at, map) {
            return;
        }
        logical += span;
    }
}

/// Delivers one data block. `false` ends the walk.
fn data(io: &Io<'_>, pointer: u32, logical: u64, at: u64, map: &mut Map) -> bool {
    let physical = u64::from(pointer);
    if pointer == 0 || logical < map.from() {
        return true;
    }
    if !io.sb.holds(physical, 1) {
        return map.blame(damaged(at, "block map points outside the volume"));
    }
    if io.zone.meets(physical, 1) {
        return map.blame(damaged(at, zone::RULE));
    }
    map.push(Run { logical, physical, len: 1, unwritten: false }, at)
}

/// Walks the pointer block `block`, `level` levels above the data, which covers `span` blocks from `logical` on.
fn node(io: &mut Io<'_>, block: u32, level: u32, span: u64, logical: u64, at: u64, map: &mut Map) -> bool {
    let block = u64::from(block);
    if logical >= LOGICAL_END {
        return map.blame(damaged(at, "block map reaches beyond the largest file"));
    }
    if !io.sb.holds(block, 1) {
        return map.blame(damaged(at, "indirect block outside the volume"));
    }
    if io.zone.meets(block, 1) {
        return map.blame(damaged(at, zone::RULE));
    }
    let here = io.sb.offset(block);
    if !map.visit(logical, here) {
        return false;
    }
    let pointers = match io.load(block, "indirect block") {
        Ok(pointers) => pointers.to_vec(),
        Err(fault) => return map.blame(fault),
    };
    let step = span / (pointers.len() as u64 / 4);
    let skip = map.from().saturating_sub(logical) / step;
    for i in skip as usize..pointers.len() / 4 {
        let pointer = u32_at(&pointers, i * 4);
        let first = logical + i as u64 * step;
        if pointer == 0 {
            continue;
        }
        let go_on = if level == 1 {
            first < LOGICAL_END && data(io, pointer, first, here, map)
        } else {
            let mut wanted = std::mem::take(&mut map.wanted);
            let following = pointers[i * 4..].chunks_exact(4).map(|raw| u64::from(u32_at(raw, 0)));
            io.read_ahead(following, &mut wanted);
            map.wanted = wanted;
            node(io, pointer, level - 1, step, first, here, map)
        };
        if !go_on {
            return false;
        }
    }
    true
}
