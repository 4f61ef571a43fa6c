//! Reading ahead for a sweep: guesses which metadata blocks the next inodes will ask for, and has them read in physical order.
//!
//! Round 0 takes from the inodes themselves: attribute blocks, the top of extent trees and block maps, and for
//! directories and long symlinks their first blocks. Each further round looks into the nodes that the last one brought.
//!
//! Invariants: nothing is believed and nothing fails here. A wrong guess costs a read; a missing one is read when it is
//! needed. At most half the cache is planned, so what is planned is still there when its turn comes.
//!
//! Source: ours.

use super::extent;
use super::field::{slice_at, u16_at, u32_at, wide};
use super::inode::{BLOCK_FIELD_BYTES, flag, flags_of, links_of};
use super::superblock::Superblock;
use super::table::Tables;
use crate::block::BlockDevice;
use crate::volume::cache::Cache;

/// First blocks of a directory that are read ahead; larger ones read ahead by themselves.
const DIRECTORY_BLOCKS: usize = 16;
/// Children of a node that are read ahead.
const CHILDREN: usize = 64;
/// Rounds: the deepest extent tree, and the contents of a directory behind it.
const ROUNDS: u32 = 6;

/// A node worth looking into once it is here.
struct Lead {
    block: u64,
    /// 0: an extent node; else the level of an indirect block.
    level: u32,
    /// Whether the data blocks are wanted too.
    contents: bool,
}

/// What is planned.
pub(super) struct Plan {
    from: u32,
    to: u32,
    mark: u64,
    wanted: Vec<u64>,
    leads: Vec<Lead>,
    following: Vec<Lead>,
}

impl Plan {
    /// Nothing planned.
    pub(super) fn new() -> Plan {
        Plan { from: 0, to: 0, mark: 0, wanted: Vec::new(), leads: Vec::new(), following: Vec::new() }
    }

    /// Whether the plan covers inode `number` and is still in the cache.
    pub(super) fn covers(&self, number: u32, cache: &Cache) -> bool {
        (self.from..self.to).contains(&number)
            && cache.inserted().wrapping_sub(self.mark) <= cache.slots() as u64 / 2
    }

    /// Reads ahead for the inodes of the piece in `tables` from `number` on.
    pub(super) fn make(
        &mut self,
        sb: &Superblock,
        device: &mut dyn BlockDevice,
        cache: &mut Cache,
        tables: &Tables,
        number: u32,
    ) {
        let most = cache.slots() / 2;
        self.wanted.clear();
        self.leads.clear();
        self.from = number;
        self.to = tables.end();
        for number in tables.numbers(number) {
            if self.wanted.len() + DIRECTORY_BLOCKS + 4 > most {
                self.to = number;
                break;
            }
            if let Some(raw) = tables.get(sb, number)
                && raw.fault.is_none()
                && sb.is_ordinary(number)
            {
                self.inode(sb, raw.bytes);
            }
        }
        let mut left = most;
        for _ in 0..ROUNDS {
            let sound = |block: &u64| sb.holds(*block, 1);
            self.wanted.retain(sound);
            self.wanted.truncate(left);
            left -= self.wanted.len();
            cache.prefetch(device, &mut self.wanted);
            self.wanted.clear();
            std::mem::swap(&mut self.leads, &mut self.following);
            for lead in self.following.drain(..) {
                if self.wanted.len() >= left {
                    break;
                }
                if let Some(node) = cache.get(lead.block) {
                    look_into(node, &lead, &mut self.wanted, &mut self.leads);
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
        let flags = flags_of(raw);
        let high = if sb.has_64bit() { u32::from(u16_at(raw, 0x76)) } else { 0 };
        let acl = wide(high, u32_at(raw, 0x68));
        if acl != 0 {
            self.wanted.push(acl);
        }
        let contents = match u16_at(raw, 0) & 0xF000 {
            0x4000 => true,
            0xA000 => u32_at(raw, 0x4) as usize >= BLOCK_FIELD_BYTES,
            0x8000 => false,
            _ => return,
        };
        if flags & (flag::INLINE_DATA | flag::ENCRYPT) != 0 {
            return;
        }
        let block = slice_at(raw, 0x28, BLOCK_FIELD_BYTES).unwrap_or_default();
        if flags & flag::EXTENTS != 0 {
            node(block, contents, &mut self.wanted, &mut self.leads);
        } else if u16_at(raw, 0) & 0xF000 != 0xA000 || contents {
            if contents {
                self.wanted.extend((0..12).map(|i| u64::from(u32_at(block, i * 4))).filter(|&b| b != 0));
            }
            for level in 1..=3u32 {
                let pointer = u64::from(u32_at(block, (11 + level as usize) * 4));
                if pointer != 0 {
                    self.wanted.push(pointer);
                    if contents || level > 1 {
                        self.leads.push(Lead { block: pointer, level, contents });
                    }
                }
            }
        }
    }
}

fn node(node: &[u8], contents: bool, wanted: &mut Vec<u64>, leads: &mut Vec<Lead>) {
    let most = if contents { DIRECTORY_BLOCKS } else { CHILDREN };
    extent::guess(node, most, &mut |block, below| match below {
        Some(depth) => {
            wanted.push(block);
            if depth > 0 || contents {
                leads.push(Lead { block, level: 0, contents });
            }
        }
        None if contents => wanted.push(block),
        None => {}
    });
}

fn look_into(bytes: &[u8], lead: &Lead, wanted: &mut Vec<u64>, leads: &mut Vec<Lead>) {
    if lead.level == 0 {
        return node(bytes, lead.contents, wanted, leads);
    }
    if lead.level == 1 && !lead.contents {
        return;
    }
    let most = if lead.level == 1 { DIRECTORY_BLOCKS } else { CHILDREN };
    let pointers = bytes.chunks_exact(4).map(|raw| u64::from(u32_at(raw, 0)));
    for block in pointers.filter(|&block| block != 0).take(most) {
        wanted.push(block);
        if lead.level > 2 || (lead.level == 2 && lead.contents) {
            leads.push(Lead { block, level: lead.level - 1, contents: lead.contents });
        }
    }
}
