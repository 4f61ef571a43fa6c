//! Reading ahead for a sweep: guesses which metadata blocks the next inodes will ask for, and has them read in physical order.
//!
//! Round 0 takes from the inodes themselves: the first attribute blocks, the top of extent trees, and for directories and long
//! symlinks their first blocks. Each further round looks into the nodes that the last one brought.
//!
//! Invariants: nothing is believed and nothing fails here. A wrong guess costs a read; a missing one is read when it is
//! needed. At most half the cache is planned, so what is planned is still there when its turn comes.
//!
//! Source: ours.

use super::chunks::Chunks;
use super::dir;
use super::inode::{Fork, forks, links_of, mode_of};
use super::map::{Guess, guess_fork, guess_node};
use super::superblock::Superblock;
use crate::block::BlockDevice;
use crate::volume::cache::Cache;

/// First blocks of a directory or of attributes that are read ahead; larger ones read ahead by themselves.
const CONTENTS_BLOCKS: usize = 16;
/// Children of a node that are read ahead.
const CHILDREN: usize = 64;
/// Rounds: trees of the depth that is met, and the contents behind them.
const ROUNDS: u32 = 6;

/// What is planned.
pub(super) struct Plan {
    from: u64,
    to: u64,
    mark: u64,
    wanted: Vec<u64>,
    /// Nodes worth looking into once they are here, and whether the blocks behind them are wanted too.
    leads: Vec<(u64, bool)>,
    following: Vec<(u64, bool)>,
}

impl Plan {
    /// Nothing planned.
    pub(super) fn new() -> Plan {
        Plan { from: 0, to: 0, mark: 0, wanted: Vec::new(), leads: Vec::new(), following: Vec::new() }
    }

    /// Whether the plan covers inode `number` and is still in the cache.
    pub(super) fn covers(&self, number: u64, cache: &Cache) -> bool {
        (self.from..self.to).contains(&number)
            && cache.inserted().wrapping_sub(self.mark) <= cache.slots() as u64 / 2
    }

    /// Reads ahead for the inodes of the piece in `chunks` from `number` on.
    pub(super) fn make(
        &mut self,
        sb: &Superblock,
        device: &mut dyn BlockDevice,
        cache: &mut Cache,
        chunks: &Chunks,
        number: u64,
    ) {
        let most = cache.slots() / 2;
        self.wanted.clear();
        self.leads.clear();
        self.from = number;
        self.to = chunks.end();
        for number in chunks.numbers(number) {
            if self.wanted.len() + 2 * CONTENTS_BLOCKS > most && number != self.from {
                self.to = number;
                break;
            }
            if let Some(raw) = chunks.get(sb, number)
                && raw.fault.is_none()
            {
                self.inode(sb, raw.bytes);
            }
        }
        let mut left = most;
        for _ in 0..ROUNDS {
            self.wanted.truncate(left);
            left -= self.wanted.len();
            cache.prefetch(device, &mut self.wanted);
            self.wanted.clear();
            std::mem::swap(&mut self.leads, &mut self.following);
            for (block, contents) in self.following.drain(..) {
                if self.wanted.len() >= left {
                    break;
                }
                if let Some(node) = cache.get(block) {
                    let mut take = Taker::new(sb, contents, &mut self.wanted, &mut self.leads);
                    guess_node(node, &mut |guess| take.guess(guess));
                }
            }
            self.following.clear();
            if self.wanted.is_empty() {
                break;
            }
        }
        self.mark = cache.inserted();
    }

    fn inode(&mut self, sb: &Superblock, raw: &[u8]) {
        if links_of(raw) == 0 {
            return;
        }
        let (data, attributes) = forks(raw);
        let mut fork = |fork: Option<Fork>, contents: bool| {
            if let Some(fork) = fork {
                let mut take = Taker::new(sb, contents, &mut self.wanted, &mut self.leads);
                guess_fork(&fork, raw, &mut |guess| take.guess(guess));
            }
        };
        fork(attributes, true);
        match mode_of(raw) & 0xF000 {
            0x4000 | 0xA000 => fork(data, true),
            0x8000 => fork(data, false),
            _ => {}
        }
    }
}

/// Takes guesses until there are enough.
struct Taker<'a> {
    sb: &'a Superblock,
    contents: bool,
    left: usize,
    wanted: &'a mut Vec<u64>,
    leads: &'a mut Vec<(u64, bool)>,
}

impl<'a> Taker<'a> {
    fn new(
        sb: &'a Superblock,
        contents: bool,
        wanted: &'a mut Vec<u64>,
        leads: &'a mut Vec<(u64, bool)>,
    ) -> Taker<'a> {
        Taker { sb, contents, left: if contents { CONTENTS_BLOCKS } else { CHILDREN }, wanted, leads }
    }

    /// Takes one; `false` when no more are wanted.
    fn guess(&mut self, guess: Guess) -> bool {
        match guess {
            Guess::Contents(run) => {
                if !self.contents || run.logical >= dir::DATA_END >> self.sb.block_bits {
                    return false;
                }
                let len = run.len.min(self.left as u64);
                if let Some(first) = self.sb.linear(run.physical, len) {
                    self.wanted.extend(first..first + len);
                    self.left -= len as usize;
                }
            }
            Guess::Node(block, level) => {
                if let Some(block) = self.sb.linear(block, 1) {
                    self.wanted.push(block);
                    self.left -= 1;
                    if level > 0 || self.contents {
                        self.leads.push((block, self.contents));
                    }
                }
            }
        }
        self.left > 0
    }
}
