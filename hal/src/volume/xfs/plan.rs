//! What an XFS inode will be asked for: see [`crate::volume::plan`].
//!
//! Source: ours.

use super::dir;
use super::inode::{Fork, Format, forks, links_of, mode_of};
use super::map::{self, guess_fork, guess_node};
use super::superblock::Superblock;
use crate::volume::cache::Cache;
use crate::volume::plan::{CHILDREN, CONTENTS_BLOCKS, Guess, Wanted};

/// A node, and whether the blocks behind it are wanted too.
pub(super) type Lead = (u64, bool);

/// Guesses for one volume.
pub(super) struct Guesser<'a>(pub(super) &'a Superblock);

impl Guess for Guesser<'_> {
    type Lead = Lead;

    fn inode(&self, _number: u64, raw: &[u8], wanted: &mut Wanted<Lead>) {
        if links_of(raw) == 0 {
            return;
        }
        let (data, attributes) = forks(raw);
        let mut fork = |fork: Option<Fork>, contents: bool| {
            // Of a file, only nodes are wanted: most have none.
            if let Some(fork) = fork.filter(|fork| contents || fork.format == Format::Btree) {
                let mut take = Taker::new(self.0, contents, wanted);
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

    fn look_into(&self, cache: &Cache, &(block, contents): &Lead, wanted: &mut Wanted<Lead>) {
        if let Some(node) = cache.get(block) {
            let mut take = Taker::new(self.0, contents, wanted);
            guess_node(node, &mut |guess| take.guess(guess));
        }
    }

    fn is_block(&self, _block: u64) -> bool {
        // `linear` gave it.
        true
    }
}

/// Takes guesses until there are enough.
struct Taker<'a> {
    sb: &'a Superblock,
    contents: bool,
    left: usize,
    wanted: &'a mut Wanted<Lead>,
}

impl<'a> Taker<'a> {
    fn new(sb: &'a Superblock, contents: bool, wanted: &'a mut Wanted<Lead>) -> Taker<'a> {
        Taker { sb, contents, left: if contents { CONTENTS_BLOCKS } else { CHILDREN }, wanted }
    }

    /// Takes one; `false` when no more are wanted.
    fn guess(&mut self, guess: map::Guess) -> bool {
        match guess {
            map::Guess::Contents(run) => {
                if !self.contents || run.logical >= dir::DATA_END >> self.sb.block_bits {
                    return false;
                }
                let len = run.len.min(self.left as u64);
                if let Some(first) = self.sb.linear(run.physical, len) {
                    self.wanted.blocks.extend(first..first + len);
                    self.left -= len as usize;
                }
            }
            map::Guess::Node(block, level) => {
                if let Some(block) = self.sb.linear(block, 1) {
                    self.wanted.blocks.push(block);
                    self.left -= 1;
                    if level > 0 || self.contents {
                        self.wanted.leads.push((block, self.contents));
                    }
                }
            }
        }
        self.left > 0
    }
}
