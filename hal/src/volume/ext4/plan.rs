//! What an ext4 inode will be asked for: see [`crate::volume::plan`].
//!
//! Source: ours.

use super::extent;
use super::field::{slice_at, u16_at, u32_at, wide};
use super::inode::{BLOCK_FIELD_BYTES, flag, flags_of, links_of};
use super::superblock::Superblock;
use crate::volume::cache::Cache;
use crate::volume::plan::{CHILDREN, CONTENTS_BLOCKS, Guess, Wanted};

/// A node worth looking into once it is here.
pub(super) struct Lead {
    block: u64,
    /// 0: an extent node; else the level of an indirect block.
    level: u32,
    /// Whether the data blocks are wanted too.
    contents: bool,
}

/// Guesses for one volume.
pub(super) struct Guesser<'a>(pub(super) &'a Superblock);

impl Guess for Guesser<'_> {
    type Lead = Lead;

    fn inode(&self, number: u64, raw: &[u8], wanted: &mut Wanted<Lead>) {
        let sb = self.0;
        if links_of(raw) == 0 || !u32::try_from(number).is_ok_and(|number| sb.is_ordinary(number)) {
            return;
        }
        let flags = flags_of(raw);
        let high = if sb.has_64bit() { u32::from(u16_at(raw, 0x76)) } else { 0 };
        let acl = wide(high, u32_at(raw, 0x68));
        if acl != 0 {
            wanted.blocks.push(acl);
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
            node(block, contents, wanted);
        } else if u16_at(raw, 0) & 0xF000 != 0xA000 || contents {
            if contents {
                wanted.blocks.extend((0..12).map(|i| u64::from(u32_at(block, i * 4))).filter(|&b| b != 0));
            }
            for level in 1..=3u32 {
                let pointer = u64::from(u32_at(block, (11 + level as usize) * 4));
                if pointer != 0 {
                    wanted.blocks.push(pointer);
                    if contents || level > 1 {
                        wanted.leads.push(Lead { block: pointer, level, contents });
                    }
                }
            }
        }
    }
    fn look_into(&self, cache: &Cache, lead: &Lead, wanted: &mut Wanted<Lead>) {
        if let Some(node) = cache.get(lead.block) {
            look_into(node, lead, wanted);
        }
    }

    fn is_block(&self, block: u64) -> bool {
        self.0.holds(block, 1)
    }
}

fn node(node: &[u8], contents: bool, wanted: &mut Wanted<Lead>) {
    let most = if contents { CONTENTS_BLOCKS } else { CHILDREN };
    extent::guess(node, most, &mut |block, below| match below {
        Some(depth) => {
            wanted.blocks.push(block);
            if depth > 0 || contents {
                wanted.leads.push(Lead { block, level: 0, contents });
            }
        }
        None if contents => wanted.blocks.push(block),
        None => {}
    });
}

fn look_into(bytes: &[u8], lead: &Lead, wanted: &mut Wanted<Lead>) {
    if lead.level == 0 {
        return node(bytes, lead.contents, wanted);
    }
    if lead.level == 1 && !lead.contents {
        return;
    }
    let most = if lead.level == 1 { CONTENTS_BLOCKS } else { CHILDREN };
    let pointers = bytes.chunks_exact(4).map(|raw| u64::from(u32_at(raw, 0)));
    for block in pointers.filter(|&block| block != 0).take(most) {
        wanted.blocks.push(block);
        if lead.level > 2 || (lead.level == 2 && lead.contents) {
            wanted.leads.push(Lead { block, level: lead.level - 1, contents: lead.contents });
        }
    }
}
