//! Where a fork's contents are: runs of blocks, from extent records in the inode or from a tree of them, merged where they
//! touch.
//!
//! ```text
//!  record, 16 bytes: 1 bit unwritten, 54 bits first logical block, 52 bits first block, 21 bits blocks
//!
//!  root in the inode: 2 level, 2 entries, then keys (8) and, behind the place of the last that fits, children (8)
//!
//!  block                          32  8  lsn
//!  0   4  magic "BMA3"            40  16 uuid
//!  4   2  level, 0 = leaf         56  8  inode
//!  6   2  entries                 64  4  crc
//!  8   16 neighbours              72     node: keys (8), children (8); leaf: records (16)
//!  24  8  address in basic blocks
//! ```
//!
//! Invariants of what [`map`] delivers
//! - Runs ascend and do not overlap, logically; each lies in one allocation group, behind its headers.
//! - At most `limit` runs, then [`Map::next`] returns where to go on: memory does not grow with the file.
//! - A map ends in finite time whatever its contents: keys and records ascend within what the parent gave, no
//!   node but the root of an empty fork is empty, and levels fall, so no node is of use twice; and a fork has
//!   the records that its inode counts, no more and no fewer.
//!
//! Does not: look at the size; blocks behind the end (preallocated) are delivered too. Source: kernel
//! `fs/xfs/libxfs/xfs_bmap_btree.c`, `xfs_bmap_validate_extent`, `xfs_iread_extents`.

use super::checksum;
use super::field::{array_at, slice_at, u16_at, u64_at};
use super::inode::{Fork, Format};
use super::superblock::Superblock;
use crate::block::BlockDevice;
use crate::volume::ItemFault;
use crate::volume::cache::{AHEAD_BLOCKS, Cache};
pub(super) use crate::volume::part::{damaged, media};

const MAGIC: &[u8; 4] = b"BMA3";
const HEAD_BYTES: usize = 72;
const ROOT_HEAD_BYTES: usize = 4;
const RECORD_BYTES: usize = 16;
const KEY_BYTES: usize = 8;
/// Levels of a tree, far more than fit.
const LEVELS_MAX: u16 = 12;
/// Bad nodes that a walk skips before it gives the rest of the item up.
const FAULTS_MAX: u32 = 16;
/// Nodes that one walk visits at most before it pauses, so that a map of nothing but nodes delays no other
/// work.
const NODES_PER_WALK_MAX: u32 = 16384;

/// What a walk reads through.
pub(super) struct Io<'a> {
    pub(super) sb: &'a Superblock,
    pub(super) device: &'a mut dyn BlockDevice,
    pub(super) cache: &'a mut Cache,
}

impl Io<'_> {
    /// Loads linear block `block`, which the caller has checked.
    pub(super) fn load(&mut self, block: u64, what: &'static str) -> Result<&[u8], ItemFault> {
        let offset = self.sb.offset(block);
        self.cache.load(self.device, block).map_err(|fault| media(fault, offset, what))
    }

    /// Before `blocks[0]` is loaded: when it is not at hand, reads it together with some of those that follow.
    pub(super) fn read_ahead(&mut self, blocks: impl Iterator<Item = u64>, wanted: &mut Vec<u64>) {
        wanted.clear();
        wanted.extend(blocks.take(AHEAD_BLOCKS));
        if wanted.first().is_some_and(|&block| !self.cache.has(block)) {
            self.cache.prefetch(self.device, wanted);
        }
    }
}

/// A run of blocks; `physical` is linear.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) logical: u64,
    pub(super) physical: u64,
    pub(super) len: u64,
    pub(super) unwritten: bool,
}

/// One record as it stands: like a run, but with the block's number on disk.
pub(super) fn record(raw: &[u8]) -> Run {
    let (high, low) = (u64_at(raw, 0), u64_at(raw, 8));
    Run {
        logical: high >> 9 & ((1 << 54) - 1),
        physical: (high & 0x1FF) << 43 | low >> 21,
        len: low & 0x1F_FFFF,
        unwritten: high >> 63 != 0,
    }
}

/// Whose fork is mapped.
#[derive(Clone, Copy, Debug)]
pub(super) struct Owner<'a> {
    pub(super) inode: u64,
    /// Place of the inode on the device, for faults.
    pub(super) at: u64,
    pub(super) raw: &'a [u8],
    pub(super) fork: Fork,
    /// Whether records that touch become one run.
    pub(super) merge: bool,
}

/// The runs of (part of) a fork.
#[derive(Debug, Default)]
pub(super) struct Map {
    pub(super) runs: Vec<Run>,
    limit: usize,
    merge: bool,
    from: u64,
    /// Whether the first run is the rest of a record that starts before it.
    pub(super) is_rest: bool,
    /// Where the walk stopped because `runs` is full, as a logical block.
    pub(super) next: Option<u64>,
    /// The first thing that was wrong.
    pub(super) fault: Option<ItemFault>,
    faults: u32,
    nodes: u32,
    /// Records so far, over all parts of the item; `None` when an earlier part is not known.
    pub(super) records: Option<u64>,
    records_max: u64,
    /// Room for lists of blocks to read ahead.
    wanted: Vec<u64>,
}

impl Map {
    /// Notes a fault. `false` when it is one too many and the walk ends.
    fn blame(&mut self, fault: ItemFault) -> bool {
        self.fault.get_or_insert(fault);
        self.faults += 1;
        self.faults < FAULTS_MAX
    }

    /// Nodes that the walk visited.
    pub(super) fn nodes(&self) -> u32 {
        self.nodes
    }

    /// Adds a record behind all others, merging it into the last when they touch. `false` ends the walk.
    fn push(&mut self, mut run: Run, at: u64) -> bool {
        let end = run.logical + run.len;
        if end <= self.from {
            return true;
        }
        let is_rest = run.logical < self.from;
        if is_rest {
            let skip = self.from - run.logical;
            run = Run { logical: self.from, physical: run.physical + skip, len: run.len - skip, ..run };
        }
        let merge = self.merge;
        let touches = |last: &Run| {
            merge
                && last.logical + last.len == run.logical
                && last.physical + last.len == run.physical
                && last.unwritten == run.unwritten
        };
        let is_full = self.runs.len() >= self.limit;
        match self.runs.last_mut().filter(|last| touches(last)) {
            Some(last) => last.len += run.len,
            None if is_full => {
                self.next = Some(run.logical);
                return false;
            }
            None => self.runs.push(run),
        }
        self.is_rest |= is_rest;
        // One that starts before was counted by the part before.
        self.records = self.records.map(|records| records + u64::from(!is_rest));
        if self.records.is_some_and(|records| records > self.records_max) {
            self.fault.get_or_insert(damaged(at, "fork has more extents than its inode counts"));
            return false;
        }
        true
    }
}

/// Fills `map` with the runs of a fork from logical block `from` on, at most `limit` of them. `records` is how many
/// records earlier parts of the same item had, when that is known.
pub(super) fn map(
    io: &mut Io<'_>,
    owner: &Owner<'_>,
    from: u64,
    limit: usize,
    records: Option<u64>,
    map: &mut Map,
) {
    map.runs.clear();
    map.limit = limit.max(1);
    map.merge = owner.merge;
    map.from = from;
    map.is_rest = false;
    map.next = None;
    map.fault = None;
    map.faults = 0;
    map.nodes = 0;
    map.records = records;
    map.records_max = owner.fork.extents;
    let bytes = owner.fork.bytes(owner.raw);
    let end = (i64::MAX as u64 >> io.sb.block_bits) + 1;
    match owner.fork.format {
        Format::Device | Format::Local => return,
        Format::Extents => {
            let len = (owner.fork.extents as usize).saturating_mul(RECORD_BYTES);
            let records = bytes.get(..len).unwrap_or_default();
            leaf(io.sb, records, owner.at, 0..end, map);
        }
        Format::Btree => {
            let level = u16_at(bytes, 0);
            let most = bytes.len().saturating_sub(ROOT_HEAD_BYTES) / (2 * KEY_BYTES);
            let entries = usize::from(u16_at(bytes, 2));
            if level == 0 || level > LEVELS_MAX || entries == 0 || entries > most {
                map.blame(damaged(owner.at, "extent tree root makes no sense"));
            } else {
                let node = Node { bytes, keys_at: ROOT_HEAD_BYTES, most, entries, level, at: owner.at };
                children(io, owner, &node, 0..end, map);
            }
        }
    }
    if map.fault.is_none()
        && map.next.is_none()
        && map.records.is_some_and(|records| records != owner.fork.extents)
    {
        map.fault = Some(damaged(owner.at, "fork has fewer extents than its inode counts"));
    }
}

/// A node above the leaves.
struct Node<'a> {
    bytes: &'a [u8],
    keys_at: usize,
    most: usize,
    entries: usize,
    level: u16,
    at: u64,
}

impl Node<'_> {
    fn key(&self, i: usize) -> u64 {
        u64_at(self.bytes, self.keys_at + i * KEY_BYTES)
    }

    fn child(&self, i: usize) -> u64 {
        u64_at(self.bytes, self.keys_at + (self.most + i) * KEY_BYTES)
    }
}

/// Delivers records, which must lie in `bounds`. `false` ends the walk.
fn leaf(sb: &Superblock, records: &[u8], at: u64, bounds: std::ops::Range<u64>, map: &mut Map) -> bool {
    let mut low = bounds.start;
    for raw in records.chunks_exact(RECORD_BYTES) {
        let run = record(raw);
        // 54 and 21 bits: the sum does not overflow.
        if run.len == 0 || run.logical < low || run.logical + run.len > bounds.end {
            return map.blame(damaged(at, "extents overlap or are out of order"));
        }
        let Some(physical) = sb.linear(run.physical, run.len) else {
            return map.blame(damaged(at, "extent outside its allocation group"));
        };
        low = run.logical + run.len;
        if !map.push(Run { physical, ..run }, at) {
            return false;
        }
    }
    true
}

/// Walks the children of a node. `false` ends the walk.
fn children(
    io: &mut Io<'_>,
    owner: &Owner<'_>,
    node: &Node<'_>,
    bounds: std::ops::Range<u64>,
    map: &mut Map,
) -> bool {
    let sb = io.sb;
    for i in 0..node.entries {
        let start = node.key(i);
        let end = if i + 1 < node.entries { node.key(i + 1) } else { bounds.end };
        if start < bounds.start || start >= end || end > bounds.end {
            return map.blame(damaged(node.at, "extent tree keys out of order"));
        }
        if end <= map.from {
            continue;
        }
        let Some(block) = sb.linear(node.child(i), 1) else {
            if !map.blame(damaged(node.at, "extent tree block outside its allocation group")) {
                return false;
            }
            continue;
        };
        let mut wanted = std::mem::take(&mut map.wanted);
        io.read_ahead((i..node.entries).filter_map(|k| sb.linear(node.child(k), 1)), &mut wanted);
        map.wanted = wanted;
        if map.nodes >= NODES_PER_WALK_MAX {
            map.next = Some(start.max(map.from));
            return false;
        }
        map.nodes += 1;
        let go_on = match descend(io, owner, block, node.level - 1, start..end, map) {
            Ok(go_on) => go_on,
            Err(fault) => map.blame(fault),
        };
        if !go_on {
            return false;
        }
    }
    true
}

/// Loads and checks the node in `block`, which must have `level`, and walks it.
fn descend(
    io: &mut Io<'_>,
    owner: &Owner<'_>,
    block: u64,
    level: u16,
    bounds: std::ops::Range<u64>,
    map: &mut Map,
) -> Result<bool, ItemFault> {
    let sb = io.sb;
    let at = sb.offset(block);
    let bytes = io.load(block, "extent tree block")?;
    let entries = verify(sb, owner.inode, block, bytes).map_err(|rule| damaged(at, rule))?;
    if u16_at(bytes, 4) != level {
        return Err(damaged(at, "extent tree block at the wrong level"));
    }
    if level == 0 {
        let records = slice_at(bytes, HEAD_BYTES, entries * RECORD_BYTES).unwrap_or_default();
        return Ok(leaf(sb, records, at, bounds, map));
    }
    let bytes = bytes.to_vec();
    let most = (bytes.len() - HEAD_BYTES) / (2 * KEY_BYTES);
    let node = Node { bytes: &bytes, keys_at: HEAD_BYTES, most, entries, level, at };
    Ok(children(io, owner, &node, bounds, map))
}

/// Checks a block of the tree of `inode`; returns how many entries it has, at least one.
fn verify(sb: &Superblock, inode: u64, block: u64, bytes: &[u8]) -> Result<usize, &'static str> {
    if !bytes.starts_with(MAGIC) {
        return Err("extent tree block has no magic number");
    }
    if !checksum::holds(bytes, 64) {
        return Err("extent tree block checksum does not match");
    }
    if array_at(bytes, 40) != Some(sb.meta_uuid)
        || u64_at(bytes, 56) != inode
        || u64_at(bytes, 24) != sb.basic(block)
    {
        return Err("extent tree block belongs elsewhere");
    }
    let entries = usize::from(u16_at(bytes, 6));
    // Records are as large as a key and a child.
    match entries > 0 && entries <= (bytes.len() - HEAD_BYTES) / RECORD_BYTES {
        true => Ok(entries),
        false => Err("extent tree block is empty or claims more entries than fit"),
    }
}

/// What reading ahead may guess from a fork or a node below it without believing it.
pub(super) enum Guess {
    /// Contents: first block on disk, blocks, first logical block.
    Contents(Run),
    /// A block of the tree, and its level.
    Node(u64, u16),
}

/// Guesses from a fork.
pub(super) fn guess_fork(fork: &Fork, raw: &[u8], each: &mut dyn FnMut(Guess) -> bool) {
    let bytes = fork.bytes(raw);
    match fork.format {
        Format::Device | Format::Local => {}
        Format::Extents => {
            let len = (fork.extents.min(bytes.len() as u64) as usize).saturating_mul(RECORD_BYTES);
            guess_records(bytes.get(..len).unwrap_or(bytes), each);
        }
        Format::Btree => {
            let most = bytes.len().saturating_sub(ROOT_HEAD_BYTES) / (2 * KEY_BYTES);
            guess_children(bytes, ROOT_HEAD_BYTES, most, each);
        }
    }
}

/// Guesses from a block of a tree.
pub(super) fn guess_node(bytes: &[u8], each: &mut dyn FnMut(Guess) -> bool) {
    let most = bytes.len().saturating_sub(HEAD_BYTES) / RECORD_BYTES;
    if !bytes.starts_with(MAGIC) {
        return;
    }
    match u16_at(bytes, 4) {
        0 => {
            let entries = usize::from(u16_at(bytes, 6)).min(most);
            guess_records(slice_at(bytes, HEAD_BYTES, entries * RECORD_BYTES).unwrap_or_default(), each);
        }
        _ => guess_children(bytes, HEAD_BYTES, most, each),
    }
}

fn guess_records(records: &[u8], each: &mut dyn FnMut(Guess) -> bool) {
    for raw in records.chunks_exact(RECORD_BYTES) {
        if !each(Guess::Contents(record(raw))) {
            return;
        }
    }
}

fn guess_children(bytes: &[u8], keys_at: usize, most: usize, each: &mut dyn FnMut(Guess) -> bool) {
    // Level and entries are the last two fields before the keys, or before the neighbours.
    let head = if keys_at == ROOT_HEAD_BYTES { 0 } else { 4 };
    let (level, entries) = (u16_at(bytes, head), usize::from(u16_at(bytes, head + 2)).min(most));
    for i in 0..entries {
        let child = u64_at(bytes, keys_at + (most + i) * KEY_BYTES);
        if !each(Guess::Node(child, level.saturating_sub(1))) {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_unpacked() {
        let raw = [0x80, 0, 0, 0, 0, 0, 0x0A, 0x01, 0, 0, 0, 0, 0, 0xE0, 0, 3];
        assert_eq!(record(&raw), Run { logical: 5, physical: 1 << 43 | 7, len: 3, unwritten: true });
        let all = record(&[0xFF; 16]);
        assert_eq!((all.logical, all.physical, all.len), ((1 << 54) - 1, (1 << 52) - 1, (1 << 21) - 1));
    }
}
