//! Metadata blocks outside the inode tables: a bounded cache that reads many at once, for any file system of equal blocks.
//!
//! Parsing code asks for one block at a time ([`Cache::load`]) and never plans. Code that knows which blocks
//! come next announces them ([`Cache::prefetch`]): they are sorted, those at most 64 KiB apart become one
//! read of up to 256 KiB, and the device gets the list of reads at once. This is a hint only: `load` reads a
//! block that was not announced by itself, and finds the exact block that fails where a large read failed.
//!
//! Invariants
//! - Memory is `ARENA_BYTES` and `READ_BYTES`, whatever the volume. The oldest block leaves when a new one comes.
//! - A block number is checked by the caller before it gets here; one beyond the device is the device's fault to report.
//!
//! Does not: verify anything. Source: ours; the gap is measured by `tests/benches/volumes`.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::block::{BlockDevice, Fault};

/// Memory for cached blocks.
const ARENA_BYTES: usize = 2 << 20;
/// Largest read in bytes.
const READ_BYTES: usize = 256 << 10;
/// Reads in one list to the device, and how many of them are used up before the next list.
const HINTS: usize = 32;
const HINTS_STEP: usize = 16;
/// Reads that are announced before their turn, and their bytes: what a port keeps (see `linux/ahead.rs`) less two pieces of inodes.
const ANNOUNCED: usize = 32;
const ANNOUNCED_BYTES: u64 = 512 << 10;
/// Blocks at most this many bytes apart are read together: reading on costs less than another request.
pub(super) const GAP_BYTES: u64 = 64 << 10;
/// Blocks that a walk reads ahead when it misses.
pub(super) const AHEAD_BLOCKS: usize = 64;

/// See the module.
pub(super) struct Cache {
    block_bits: u32,
    arena: Vec<u8>,
    /// Block in each slot, `u64::MAX` when none.
    owner: Vec<u64>,
    index: BTreeMap<u64, u32>,
    next: usize,
    scratch: Vec<u8>,
    /// Reads of a prefetch.
    reads: Vec<Range<u64>>,
    inserted: u64,
}

impl Cache {
    /// An empty cache for blocks of `1 << block_bits` bytes (10..=16). Its memory is touched as it fills.
    pub(super) fn new(block_bits: u32) -> Cache {
        let slots = ARENA_BYTES >> block_bits;
        Cache {
            block_bits,
            arena: vec![0; ARENA_BYTES],
            owner: vec![u64::MAX; slots],
            index: BTreeMap::new(),
            next: 0,
            scratch: vec![0; READ_BYTES],
            reads: Vec::new(),
            inserted: 0,
        }
    }

    /// Blocks that fit.
    pub(super) fn slots(&self) -> usize {
        self.owner.len()
    }

    /// Bytes of a block, as a power of two.
    pub(super) fn block_bits(&self) -> u32 {
        self.block_bits
    }

    /// Puts a block in that was read elsewhere, unless it is here. `bytes` is the block.
    pub(super) fn put(&mut self, block: u64, bytes: &[u8]) {
        if self.has(block) || bytes.len() != 1 << self.block_bits {
            return;
        }
        let slot = self.evict();
        self.arena[slot << self.block_bits..(slot + 1) << self.block_bits].copy_from_slice(bytes);
        self.adopt(slot, block);
    }

    /// Blocks put in since the start: by this a caller knows how many planned blocks may have been replaced.
    pub(super) fn inserted(&self) -> u64 {
        self.inserted
    }

    /// Whether `block` is here.
    pub(super) fn has(&self, block: u64) -> bool {
        self.index.contains_key(&block)
    }

    /// The block, if it is here.
    pub(super) fn get(&self, block: u64) -> Option<&[u8]> {
        let slot = *self.index.get(&block)? as usize;
        self.arena.get(slot << self.block_bits..(slot + 1) << self.block_bits)
    }

    /// The block, read now unless it is here.
    pub(super) fn load(&mut self, device: &mut dyn BlockDevice, block: u64) -> Result<&[u8], Fault> {
        let slot = match self.index.get(&block) {
            Some(&slot) => slot as usize,
            None => {
                let slot = self.evict();
                let place = slot << self.block_bits..(slot + 1) << self.block_bits;
                device.read_at(block << self.block_bits, &mut self.arena[place])?;
                self.adopt(slot, block);
                slot
            }
        };
        Ok(&self.arena[slot << self.block_bits..(slot + 1) << self.block_bits])
    }

    /// Reads the blocks of `wanted` that are not here, as far as half the cache goes. Sorts `wanted`. Failures are left to `load`.
    pub(super) fn prefetch(&mut self, device: &mut dyn BlockDevice, wanted: &mut Vec<u64>) {
        let reads = self.arrange(wanted);
        let mut rest: &[u64] = wanted;
        for (i, read) in reads.iter().enumerate() {
            if i % HINTS_STEP == 0 && reads.len() > 1 {
                device.read_ahead(&reads[i..reads.len().min(i + HINTS)]);
            }
            let (now, later) =
                rest.split_at(rest.partition_point(|block| block << self.block_bits < read.end));
            rest = later;
            self.take(device, read, now);
        }
        self.reads = reads;
    }

    /// Tells the device of the reads that `prefetch` will make of the same blocks, as far as they leave room for inodes.
    pub(super) fn announce(&mut self, device: &mut dyn BlockDevice, wanted: &mut Vec<u64>) {
        let mut reads = self.arrange(wanted);
        let mut bytes = 0;
        let fits = |read: &&Range<u64>| {
            bytes += read.end - read.start;
            bytes <= ANNOUNCED_BYTES
        };
        let count = reads.iter().take(ANNOUNCED).take_while(fits).count();
        reads.truncate(count);
        // An empty list would say that nothing more comes.
        if !reads.is_empty() {
            device.read_ahead(&reads);
        }
        self.reads = reads;
    }

    /// Makes reads of the blocks of `wanted` that are not here, which it sorts.
    fn arrange(&mut self, wanted: &mut Vec<u64>) -> Vec<Range<u64>> {
        wanted.retain(|block| !self.index.contains_key(block));
        wanted.sort_unstable();
        wanted.dedup();
        wanted.truncate(self.slots() / 2);
        let mut reads = std::mem::take(&mut self.reads);
        reads.clear();
        let mut rest: &[u64] = wanted;
        while let Some(&first) = rest.first() {
            let fits = |pair: &[u64]| {
                (pair[1] - pair[0] - 1) << self.block_bits <= GAP_BYTES
                    && (pair[1] - first + 1) << self.block_bits <= READ_BYTES as u64
            };
            let (now, later) = rest.split_at(1 + rest.windows(2).take_while(|pair| fits(pair)).count());
            rest = later;
            let end = now.last().map_or(first, |last| last + 1);
            reads.push(first << self.block_bits..end << self.block_bits);
        }
        reads
    }

    /// Reads a range and keeps its blocks `wanted`.
    fn take(&mut self, device: &mut dyn BlockDevice, read: &Range<u64>, wanted: &[u64]) {
        let len = (read.end - read.start) as usize;
        if device.read_at(read.start, &mut self.scratch[..len]).is_err() {
            return;
        }
        for &block in wanted {
            let from = ((block << self.block_bits) - read.start) as usize;
            let slot = self.evict();
            let place = slot << self.block_bits..(slot + 1) << self.block_bits;
            self.arena[place].copy_from_slice(&self.scratch[from..from + (1 << self.block_bits)]);
            self.adopt(slot, block);
        }
    }

    /// Frees the oldest slot and returns it.
    fn evict(&mut self) -> usize {
        let slot = self.next;
        self.next = (self.next + 1) % self.owner.len();
        let old = std::mem::replace(&mut self.owner[slot], u64::MAX);
        if old != u64::MAX {
            self.index.remove(&old);
        }
        slot
    }

    fn adopt(&mut self, slot: usize, block: u64) {
        self.owner[slot] = block;
        self.index.insert(block, slot as u32);
        self.inserted = self.inserted.wrapping_add(1);
    }
}
