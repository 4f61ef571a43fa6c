//! Where an inode's contents are: runs of blocks, from an extent tree or from a block map, merged where they touch.
//!
//! Invariants of what [`map`] delivers
//! - Runs ascend and do not overlap, logically; each lies inside the volume.
//! - At most `limit` runs, then [`Map::next`] returns where to go on: memory does not grow with the file.
//! - A map ends in finite time whatever its contents: what it maps plus the nodes it visits may not exceed
//!   the blocks that the volume has ([`Map::spent`]), which no sound file does, and at most [`FAULTS_MAX`]
//!   bad nodes are skipped.
//!
//! Does not: look at the size; blocks behind the end (preallocated) are delivered too. Source: `extent.rs`, `indirect.rs`.

use super::inode::{Inode, flag};
use super::superblock::Superblock;
use super::zone::Zone;
use super::{extent, indirect};
use crate::block::BlockDevice;
use crate::volume::ItemFault;
use crate::volume::cache::{AHEAD_BLOCKS, Cache};
pub(super) use crate::volume::part::{damaged, media};

/// Bad nodes that a walk skips before it gives the rest of the item up.
pub(super) const FAULTS_MAX: u32 = 16;
/// Nodes that one walk visits at most before it pauses, so that a map of nothing but nodes delays no other
/// work.
const NODES_PER_WALK_MAX: u32 = 16384;
/// End of the logical blocks that a map may cover.
pub(super) const LOGICAL_END: u64 = 1 << 32;

/// What a walk reads through.
pub(super) struct Io<'a> {
    pub(super) sb: &'a Superblock,
    pub(super) device: &'a mut dyn BlockDevice,
    pub(super) cache: &'a mut Cache,
    pub(super) zone: &'a Zone,
}

impl Io<'_> {
    /// Loads block `block`, whose range the caller has checked.
    pub(super) fn load(&mut self, block: u64, what: &'static str) -> Result<&[u8], ItemFault> {
        let offset = self.sb.offset(block);
        self.cache.load(self.device, block).map_err(|fault| media(fault, offset, what))
    }

    /// Before `blocks[0]` is loaded: when it is not at hand, reads it together with some of those that follow.
    pub(super) fn read_ahead(&mut self, blocks: impl Iterator<Item = u64>, wanted: &mut Vec<u64>) {
        wanted.clear();
        let sb = self.sb;
        wanted.extend(blocks.filter(|&block| sb.holds(block, 1)).take(AHEAD_BLOCKS));
        if wanted.first().is_some_and(|&block| !self.cache.has(block)) {
            self.cache.prefetch(self.device, wanted);
        }
    }
}

/// A run of blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) logical: u64,
    pub(super) physical: u64,
    pub(super) len: u64,
    pub(super) unwritten: bool,
}

/// The runs of (part of) an inode.
#[derive(Debug, Default)]
pub(super) struct Map {
    pub(super) runs: Vec<Run>,
    limit: usize,
    from: u64,
    /// Where the walk stopped because `runs` is full, as a logical block.
    pub(super) next: Option<u64>,
    /// The first thing that was wrong.
    pub(super) fault: Option<ItemFault>,
    faults: u32,
    nodes: u32,
    /// Blocks mapped and nodes visited so far, over all parts of the item.
    pub(super) spent: u64,
    budget: u64,
    /// Room for lists of blocks to read ahead.
    pub(super) wanted: Vec<u64>,
}

impl Map {
    /// Notes a fault. `false` when it is one too many and the walk ends.
    pub(super) fn blame(&mut self, fault: ItemFault) -> bool {
        self.fault.get_or_insert(fault);
        self.faults += 1;
        self.faults < FAULTS_MAX
    }

    /// Counts `blocks` against the volume's size. `false`, with a fault, when the item claims more than there is.
    pub(super) fn spend(&mut self, blocks: u64, device_offset: u64) -> bool {
        self.spent = self.spent.saturating_add(blocks);
        if self.spent > self.budget {
            self.fault.get_or_insert(damaged(device_offset, "file maps more blocks than the volume has"));
            return false;
        }
        true
    }

    /// Counts a node about to be visited, whose range starts at `logical`. `false` ends the walk: it costs too much, or it is
    /// time to let the caller breathe and go on at [`Map::next`].
    pub(super) fn visit(&mut self, logical: u64, device_offset: u64) -> bool {
        if self.nodes >= NODES_PER_WALK_MAX {
            self.next = Some(logical.max(self.from));
            return false;
        }
        self.nodes += 1;
        self.spend(1, device_offset)
    }

    /// Nodes that the walk visited.
    pub(super) fn nodes(&self) -> u32 {
        self.nodes
    }

    /// First logical block that is still wanted.
    pub(super) fn from(&self) -> u64 {
        self.from
    }

    /// Adds a run behind all others, merging it into the last when they touch. `false` ends the walk.
    pub(super) fn push(&mut self, mut run: Run, device_offset: u64) -> bool {
        let end = run.logical + run.len;
        if end <= self.from {
            return true;
        }
        if run.logical < self.from {
            let skip = self.from - run.logical;
            run = Run { logical: self.from, physical: run.physical + skip, len: run.len - skip, ..run };
        }
        if let Some(last) = self.runs.last_mut()
            && last.logical + last.len == run.logical
            && last.physical + last.len == run.physical
            && last.unwritten == run.unwritten
        {
            last.len += run.len;
            return self.spend(run.len, device_offset);
        }
        if self.runs.len() >= self.limit {
            self.next = Some(run.logical);
            return false;
        }
        self.runs.push(run);
        self.spend(run.len, device_offset)
    }
}

/// Fills `map` with the runs of `inode` from logical block `from` on, at most `limit` of them. `spent` is what earlier parts
/// of the same item cost. `inode_at` is the inode's place on the device, for faults.
pub(super) fn map(
    io: &mut Io<'_>,
    inode: &Inode,
    inode_at: u64,
    from: u64,
    limit: usize,
    spent: u64,
    map: &mut Map,
) {
    map.runs.clear();
    map.limit = limit.max(1);
    map.from = from;
    map.next = None;
    map.fault = None;
    map.faults = 0;
    map.nodes = 0;
    map.spent = spent;
    // Parts visit the nodes above them again, so some slack; with shared_blocks, blocks may well serve twice.
    map.budget = match io.sb.has_shared_blocks() {
        true => 2 * LOGICAL_END,
        false => io.sb.blocks_count + io.sb.blocks_count / 4 + 64,
    };
    if inode.has(flag::EXTENTS) {
        extent::walk(io, inode, inode_at, map);
    } else {
        indirect::walk(io, inode, inode_at, map);
    }
}
