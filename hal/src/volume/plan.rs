//! Reading ahead for a sweep: the metadata blocks that the next inodes probably need, read in physical order.
//!
//! While the inodes of one piece are parsed, the device already reads the blocks that the inodes of the next
//! piece need. When its turn comes they are read: round 0 takes from the inodes themselves: attribute blocks,
//! the top of extent trees and block maps, and for directories and long symlinks their first blocks. Each
//! further round looks into the nodes that the last one brought.
//!
//! Invariants: nothing read here is used without a check later, and nothing fails here. A wrong guess costs a
//! read; a missing one is read when it is needed. At most half the cache is planned, so what is planned is
//! still there when its turn comes.
//!
//! Source: ours.

use super::cache::Cache;
use super::piece::{Pieces, Raw};
use crate::block::BlockDevice;

/// First blocks of a directory or of attributes that are read ahead; larger ones read ahead by themselves.
pub(super) const CONTENTS_BLOCKS: usize = 16;
/// Children of a node that are read ahead.
pub(super) const CHILDREN: usize = 64;
/// Rounds: the deepest tree, and the contents behind it.
const ROUNDS: u32 = 6;

/// What is wanted: blocks, and those of them that are worth looking into once they are here.
pub(super) struct Wanted<L> {
    pub(super) blocks: Vec<u64>,
    pub(super) leads: Vec<L>,
}

/// How a file system finds the blocks that an inode needs.
pub(super) trait Guess {
    /// A block worth looking into.
    type Lead;

    /// Adds what the inode `number` will be asked for.
    fn inode(&self, number: u64, raw: &[u8], wanted: &mut Wanted<Self::Lead>);

    /// Adds what a block points to, if it is there.
    fn look_into(&self, cache: &Cache, lead: &Self::Lead, wanted: &mut Wanted<Self::Lead>);

    /// Whether there is such a block.
    fn is_block(&self, block: u64) -> bool;
}

/// What is planned.
pub(super) struct Plan<L> {
    from: u64,
    to: u64,
    mark: u64,
    wanted: Wanted<L>,
    following: Vec<L>,
}

impl<L> Plan<L> {
    /// A plan without blocks.
    pub(super) fn new() -> Plan<L> {
        let wanted = Wanted { blocks: Vec::new(), leads: Vec::new() };
        Plan { from: 0, to: 0, mark: 0, wanted, following: Vec::new() }
    }

    /// Sees to it that inode `number`, which is in the piece, was planned, and what is planned still is in the cache.
    pub(super) fn cover(
        &mut self,
        guess: &impl Guess<Lead = L>,
        device: &mut dyn BlockDevice,
        cache: &mut Cache,
        pieces: &Pieces,
        number: u64,
    ) {
        let is_fresh = cache.inserted().wrapping_sub(self.mark) <= cache.slots() as u64 / 2;
        if !(self.from..self.to).contains(&number) || !is_fresh {
            self.make(guess, device, cache, pieces, number);
        }
    }

    /// Reads ahead for the inodes of the piece from `number` on.
    fn make(
        &mut self,
        guess: &impl Guess<Lead = L>,
        device: &mut dyn BlockDevice,
        cache: &mut Cache,
        pieces: &Pieces,
        number: u64,
    ) {
        let most = cache.slots() / 2;
        let Plan { wanted, following, .. } = self;
        let inodes = pieces.numbers(number).filter_map(|number| Some((number, pieces.get(number)?)));
        let stopped = first_round(guess, inodes, most, wanted);
        (self.from, self.to) = (number, stopped.unwrap_or(pieces.end()));
        let mut left = most;
        for _ in 0..ROUNDS {
            wanted.blocks.retain(|&block| guess.is_block(block));
            wanted.blocks.truncate(left);
            left -= wanted.blocks.len();
            take_from_pieces(pieces, cache, &mut wanted.blocks);
            cache.prefetch(device, &mut wanted.blocks);
            wanted.blocks.clear();
            std::mem::swap(&mut wanted.leads, following);
            for lead in following.drain(..) {
                if wanted.blocks.len() >= left {
                    break;
                }
                guess.look_into(cache, &lead, wanted);
            }
            if wanted.blocks.is_empty() {
                break;
            }
        }
        self.mark = cache.inserted();
        if self.to == pieces.end() {
            first_round(guess, pieces.next_inodes(), most, wanted);
            let bits = cache.block_bits();
            let elsewhere = |block: u64| pieces.at(block << bits, 1 << bits).is_none();
            wanted.blocks.retain(|&block| guess.is_block(block) && elsewhere(block));
            cache.announce(device, &mut wanted.blocks);
        }
    }
}

/// Puts into the cache what of `wanted` was read with the inodes, and takes it from the list.
fn take_from_pieces(pieces: &Pieces, cache: &mut Cache, wanted: &mut Vec<u64>) {
    let bits = cache.block_bits();
    wanted.retain(|&block| match pieces.at(block << bits, 1 << bits) {
        Some(bytes) => {
            cache.put(block, bytes);
            false
        }
        None => true,
    });
}

/// Fills `wanted` from inodes. Returns the first one, behind others, for whose blocks the cache may have no room.
fn first_round<'p, G: Guess>(
    guess: &G,
    inodes: impl Iterator<Item = (u64, Raw<'p>)>,
    most: usize,
    wanted: &mut Wanted<G::Lead>,
) -> Option<u64> {
    wanted.blocks.clear();
    wanted.leads.clear();
    for (i, (number, raw)) in inodes.enumerate() {
        if i > 0 && wanted.blocks.len() + 2 * CONTENTS_BLOCKS > most {
            return Some(number);
        }
        if raw.fault.is_none() {
            guess.inode(number, raw.bytes, wanted);
        }
    }
    None
}
