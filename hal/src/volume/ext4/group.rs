//! Group descriptors: where each group keeps its bitmaps and its inode table.
//!
//! ```text
//!  offset size field                      offset size field (64bit: descriptors of 64 bytes and more)
//!  0x00   4    block_bitmap (low)         0x20   4    block_bitmap (high)
//!  0x04   4    inode_bitmap (low)         0x24   4    inode_bitmap (high)
//!  0x08   4    inode_table (low)          0x28   4    inode_table (high)
//!  0x12   2    flags                      0x32   2    itable_unused (high)
//!  0x18   2    block_bitmap_csum (low)    0x38   2    block_bitmap_csum (high)
//!  0x1A   2    inode_bitmap_csum (low)    0x3A   2    inode_bitmap_csum (high)
//!  0x1C   2    itable_unused (low)
//!  0x1E   2    checksum
//! ```
//!
//! They stand in the blocks behind the superblock, or with meta_bg (from `first_meta_bg` on) one block of them at the
//! start of each run of groups that it describes.
//!
//! Invariants: a descriptor handed out has a good checksum (when the volume has them) and its three places lie in the
//! volume. Only one stretch of descriptors is in memory at a time, so memory does not grow with the volume.
//!
//! Does not: use the backup copies, which the kernel does not keep current. Source: kernel
//! Documentation/filesystems/ext4/group_descr.rst, `ext4_get_group_desc`, `descriptor_loc`.

use super::checksum::{crc16, crc32c, crc32c_without};
use super::field::{u16_at, u32_at, wide};
use super::superblock::{ROOT, Superblock};
use crate::block::BlockDevice;
use crate::volume::VolumeFault;

/// Bytes of descriptors read at once: 1024 of the large ones, 128 GiB of volume.
const STRETCH_BYTES: usize = 64 << 10;

const INODE_UNINIT: u16 = 0x1;
const BLOCK_UNINIT: u16 = 0x2;
const CHECKSUM_AT: usize = 0x1E;

/// One group, as its descriptor has it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Group {
    pub(super) block_bitmap: u64,
    pub(super) inode_bitmap: u64,
    pub(super) inode_table: u64,
    /// Inodes from the start of the table that may be in use; the rest was never touched.
    pub(super) inodes_touched: u32,
    /// The block bitmap was never written; it is computed.
    pub(super) block_uninit: bool,
    /// The inode bitmap was never written: no inode is in use.
    pub(super) inode_uninit: bool,
    block_bitmap_csum: u32,
    inode_bitmap_csum: u32,
}

/// The descriptors, read a stretch at a time.
pub(super) struct Groups {
    stretch: Vec<u8>,
    first: u32,
    count: u32,
    device_offset: u64,
}

impl Groups {
    /// None read yet.
    pub(super) fn new() -> Groups {
        Groups { stretch: Vec::new(), first: 0, count: 0, device_offset: 0 }
    }

    /// The descriptor of group `group` (below `sb.groups`). Reads a stretch when it is not at hand.
    pub(super) fn get(
        &mut self,
        sb: &Superblock,
        device: &mut dyn BlockDevice,
        group: u32,
    ) -> Result<Group, VolumeFault> {
        if group < self.first || group - self.first >= self.count {
            self.read(sb, device, group)?;
        }
        let at = (group - self.first) as usize * sb.desc_bytes;
        let device_offset = self.device_offset + at as u64;
        let damaged =
            |rule: &str| VolumeFault::Damaged { what: format!("ext4 group {group}: {rule}"), device_offset };
        let Some(raw) = self.stretch.get(at..at + sb.desc_bytes) else {
            return Err(damaged("descriptor out of range"));
        };
        if !checksum_holds(sb, group, raw) {
            return Err(damaged("descriptor checksum does not match"));
        }
        let found = parse(sb, raw).map_err(damaged)?;
        if group == 0 && found.inodes_touched < ROOT {
            return Err(damaged("calls the root inode unused"));
        }
        Ok(found)
    }

    fn read(&mut self, sb: &Superblock, device: &mut dyn BlockDevice, group: u32) -> Result<(), VolumeFault> {
        let per_block = sb.descs_per_block();
        let index = group / per_block;
        let meta = sb.has_meta_bg() && index >= sb.first_meta_bg;
        let (block, blocks) = if meta {
            let first = index * per_block;
            let mut skip = u64::from(sb.group_has_super(first));
            // With 1 KiB blocks and clusters, block 0 is the boot block and the superblock is block 1.
            if sb.block_bits == 10 && index == 0 && sb.first_data_block == 0 {
                skip += 1;
            }
            (sb.group_start(first) + skip, 1)
        } else {
            let base = (super::superblock::OFFSET >> sb.block_bits) + 1;
            let mut last = sb.groups.div_ceil(per_block);
            if sb.has_meta_bg() {
                last = last.min(sb.first_meta_bg);
            }
            let most = (STRETCH_BYTES >> sb.block_bits).max(1) as u32;
            (base + u64::from(index), (last - index).min(most))
        };
        self.count = 0;
        if block + u64::from(blocks) > sb.blocks_count {
            return Err(VolumeFault::Damaged {
                what: format!("ext4 group {group}: descriptor outside the volume"),
                device_offset: super::superblock::OFFSET,
            });
        }
        self.stretch.resize((blocks as usize) << sb.block_bits, 0);
        self.device_offset = sb.offset(block);
        device.read_at(self.device_offset, &mut self.stretch)?;
        self.first = index * per_block;
        self.count = (blocks * per_block).min(sb.groups - self.first);
        Ok(())
    }
}

fn checksum_holds(sb: &Superblock, group: u32, raw: &[u8]) -> bool {
    let stored = u16_at(raw, CHECKSUM_AT);
    let number = group.to_le_bytes();
    if sb.has_metadata_csum() {
        stored == crc32c_without(crc32c(sb.seed, &number), raw, CHECKSUM_AT, 2) as u16
    } else if sb.has_gdt_csum() {
        let crc = crc16(crc16(crc16(!0, &sb.uuid), &number), &raw[..CHECKSUM_AT]);
        let crc = if sb.has_64bit() { crc16(crc, &raw[CHECKSUM_AT + 2..]) } else { crc };
        stored == crc
    } else {
        true
    }
}

fn parse(sb: &Superblock, raw: &[u8]) -> Result<Group, &'static str> {
    let large = sb.desc_bytes >= 64;
    let high32 = |at| if large { u32_at(raw, at) } else { 0 };
    let high16 = |at| if large { u32::from(u16_at(raw, at)) << 16 } else { 0 };
    let flags = if sb.has_uninit_groups() { u16_at(raw, 0x12) } else { 0 };
    let unused = if sb.has_uninit_groups() { u32::from(u16_at(raw, 0x1C)) | high16(0x32) } else { 0 };
    let inode_uninit = flags & INODE_UNINIT != 0;
    let group = Group {
        block_bitmap: wide(high32(0x20), u32_at(raw, 0x0)),
        inode_bitmap: wide(high32(0x24), u32_at(raw, 0x4)),
        inode_table: wide(high32(0x28), u32_at(raw, 0x8)),
        inodes_touched: match sb.inodes_per_group.checked_sub(unused) {
            _ if inode_uninit => 0,
            Some(touched) => touched,
            None => return Err("more unused inodes than inodes"),
        },
        block_uninit: flags & BLOCK_UNINIT != 0,
        inode_uninit,
        block_bitmap_csum: u32::from(u16_at(raw, 0x18)) | high16(0x38),
        inode_bitmap_csum: u32::from(u16_at(raw, 0x1A)) | high16(0x3A),
    };
    if !sb.holds(group.inode_table, table_blocks(sb)) {
        return Err("inode table outside the volume");
    }
    if !sb.holds(group.block_bitmap, 1) || !sb.holds(group.inode_bitmap, 1) {
        return Err("bitmap outside the volume");
    }
    Ok(group)
}

impl Group {
    /// Whether the block bitmap's bytes match their checksum.
    pub(super) fn block_bitmap_holds(&self, sb: &Superblock, bitmap: &[u8]) -> bool {
        bitmap_holds(sb, bitmap, sb.clusters_per_group, self.block_bitmap_csum)
    }

    /// Whether the inode bitmap's bytes match their checksum.
    pub(super) fn inode_bitmap_holds(&self, sb: &Superblock, bitmap: &[u8]) -> bool {
        bitmap_holds(sb, bitmap, sb.inodes_per_group, self.inode_bitmap_csum)
    }
}

fn bitmap_holds(sb: &Superblock, bitmap: &[u8], bits: u32, stored: u32) -> bool {
    if !sb.has_metadata_csum() {
        return true;
    }
    let Some(bytes) = bitmap.get(..bits as usize / 8) else { return false };
    let crc = crc32c(sb.seed, bytes);
    crc == stored || (sb.desc_bytes < 64 && crc & 0xFFFF == stored)
}

/// Blocks of one group's inode table.
pub(super) fn table_blocks(sb: &Superblock) -> u64 {
    (u64::from(sb.inodes_per_group) * sb.inode_bytes as u64).div_ceil(sb.block_bytes() as u64)
}
