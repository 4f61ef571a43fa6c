//! The used-block map, from the block bitmaps.
//!
//! One bit per block, or per cluster with bigalloc; the bits of a group fill at most one block. A group whose bitmap was never
//! written (BLOCK_UNINIT) uses what the format itself puts there: superblock and descriptor copies, and its own bitmaps
//! and inode table where they lie inside it.
//!
//! Added to the bitmaps, because they do not cover it: everything before the first data block (boot block,
//! superblock) and everything behind the last block of the file system up to the end of the device.
//!
//! A bitmap that cannot be read or is not valid makes its whole group used, and the map a superset. With an
//! unknown ro_compat feature the bitmaps may mean something else, and the whole device is reported.
//!
//! Source: kernel `ext4_init_block_bitmap`, `ext4_num_base_meta_blocks`.

use std::ops::Range;

use super::group::{Group, Groups, table_blocks};
use super::map::Io;
use super::superblock::Superblock;
use crate::volume::ranges::Joiner;
use crate::volume::{UsedQuality, VolumeFault};

/// Groups whose bitmaps are read ahead together.
const GROUPS_AHEAD: u32 = 64;

/// Calls `each` with the used byte ranges of the device.
pub(super) fn used(
    io: &mut Io<'_>,
    groups: &mut Groups,
    each: &mut dyn FnMut(Range<u64>),
) -> Result<UsedQuality, VolumeFault> {
    let sb = io.sb;
    let device_bytes = io.device.geometry().size_bytes;
    if !sb.bitmaps_known() {
        each(0..device_bytes);
        return Ok(UsedQuality::Unknown);
    }
    let mut quality = UsedQuality::Exact;
    let first = sb.offset(u64::from(sb.first_data_block));
    // Block 0 is the boot block, and with larger blocks the superblock's too.
    let mut joiner = Joiner::new(0..first.max(super::superblock::OFFSET * 2), each);
    let mut wanted = Vec::new();
    for number in 0..sb.groups {
        if number % GROUPS_AHEAD == 0 {
            wanted.clear();
            for ahead in number..sb.groups.min(number.saturating_add(GROUPS_AHEAD)) {
                let group = groups.get(sb, io.device, ahead)?;
                if !group.block_uninit {
                    wanted.push(group.block_bitmap);
                }
            }
            io.cache.prefetch(io.device, &mut wanted);
        }
        let group = groups.get(sb, io.device, number)?;
        let start = sb.group_start(number);
        let end = sb.blocks_count.min(start + u64::from(sb.blocks_per_group));
        if group.block_uninit {
            untouched(sb, number, &group, start..end, &mut joiner);
            continue;
        }
        let bitmap = io.load(group.block_bitmap, "block bitmap").ok();
        match bitmap.filter(|bitmap| group.block_bitmap_holds(sb, bitmap)) {
            Some(bitmap) => bits(sb, bitmap, start..end, &mut joiner),
            None => {
                quality = UsedQuality::Superset;
                joiner.add(sb.offset(start)..sb.offset(end));
            }
        }
    }
    joiner.add(sb.offset(sb.blocks_count)..device_bytes);
    joiner.flush();
    Ok(quality)
}

/// The set bits of a bitmap over the blocks `group`.
fn bits(sb: &Superblock, bitmap: &[u8], group: Range<u64>, joiner: &mut Joiner<'_>) {
    let blocks = group.end - group.start;
    let clusters = blocks.div_ceil(1 << sb.cluster_bits);
    let mut cluster = 0;
    while cluster < clusters {
        let byte = bitmap.get((cluster / 8) as usize).copied().unwrap_or(0xFF);
        let (bit, left) = (cluster % 8, clusters - cluster);
        let rest = byte >> bit;
        // Runs of equal bits within the byte, so that a full or an empty byte is one step.
        let (set, run) = match rest & 1 {
            0 => (false, u64::from(rest.trailing_zeros())),
            _ => (true, u64::from(rest.trailing_ones())),
        };
        let run = run.min(8 - bit).min(left);
        if set {
            let from = group.start + (cluster << sb.cluster_bits);
            let to = group.end.min(from + (run << sb.cluster_bits));
            joiner.add(sb.offset(from)..sb.offset(to));
        }
        cluster += run;
    }
}

/// What a group uses whose bitmap was never written.
fn untouched(sb: &Superblock, number: u32, group: &Group, blocks: Range<u64>, joiner: &mut Joiner<'_>) {
    let mut parts = [
        blocks.start..blocks.start + base_blocks(sb, number, sb.reserved_gdt_blocks),
        group.block_bitmap..group.block_bitmap + 1,
        group.inode_bitmap..group.inode_bitmap + 1,
        group.inode_table..group.inode_table + table_blocks(sb),
    ];
    parts.sort_unstable_by_key(|part| part.start);
    for part in parts {
        let inside = part.start.max(blocks.start)..part.end.min(blocks.end);
        if inside.is_empty() {
            continue;
        }
        // Whole clusters, as the bitmap would have them.
        let mask = (1u64 << sb.cluster_bits) - 1;
        let from = blocks.start + ((inside.start - blocks.start) & !mask);
        let to = blocks.end.min(blocks.start + ((inside.end - blocks.start + mask) & !mask));
        joiner.add(sb.offset(from)..sb.offset(to));
    }
}

/// Blocks at the start of a group for the superblock and descriptors, and `reserved` behind those that may grow.
pub(super) fn base_blocks(sb: &Superblock, number: u32, reserved: u32) -> u64 {
    let has_super = u64::from(sb.group_has_super(number));
    let per_block = sb.descs_per_block();
    let index = number / per_block;
    if sb.has_meta_bg() && index >= sb.first_meta_bg {
        let place = number % per_block;
        let has_descs = place == 0 || place == 1 || place == per_block - 1;
        return has_super + u64::from(has_descs);
    }
    if has_super == 0 {
        return 0;
    }
    let descs = if sb.has_meta_bg() { sb.first_meta_bg } else { sb.groups.div_ceil(per_block) };
    1 + u64::from(descs) + u64::from(reserved)
}
