//! The superblock: 1024 bytes at byte 1024 of the device. Everything else is found from it.
//!
//! ```text
//!  offset size field                         offset size field
//!  0x000  4    inodes_count                  0x060  4    feature_incompat
//!  0x004  4    blocks_count (low)            0x064  4    feature_ro_compat
//!  0x00C  4    free_blocks_count (low)       0x068  16   uuid
//!  0x010  4    free_inodes_count             0x078  16   volume_name
//!  0x014  4    first_data_block              0x0CE  2    reserved_gdt_blocks
//!  0x018  4    log_block_size (1024 << n)    0x0E0  4    journal_inum
//!  0x01C  4    log_cluster_size              0x0FE  2    desc_size
//!  0x020  4    blocks_per_group              0x104  8    first_meta_bg, mkfs_time
//!  0x024  4    clusters_per_group            0x150  4    blocks_count (high)
//!  0x028  4    inodes_per_group              0x158  4    free_blocks_count (high)
//!  0x02C  4    mtime                         0x175  1    checksum_type (1 = crc32c)
//!  0x030  4    wtime                         0x178  8    kbytes_written
//!  0x034  2    mnt_count                     0x240  8    usr_quota_inum, grp_quota_inum
//!  0x038  2    magic 0xEF53                  0x24C  8    backup_bgs
//!  0x03A  2    state (1 = clean)             0x26C  4    prj_quota_inum
//!  0x048  4    creator_os                    0x270  4    checksum_seed
//!  0x04C  4    rev_level                     0x274  1    wtime (bits 32..40)
//!  0x054  4    first_ino                     0x276  1    mkfs_time (bits 32..40)
//!  0x058  2    inode_size                    0x280  4    orphan_file_inum
//!  0x05C  4    feature_compat                0x3FC  4    checksum
//!  0x0E8  4    last_orphan
//! ```
//!
//! Invariants after [`Superblock::parse`]: the checksum (when there is one) is right, every incompatible feature is read, the
//! geometry is consistent with itself and fits the device. So block numbers below `blocks_count` times the block size
//! never overflow, and divisions below never meet a zero.
//!
//! Does not: fall back to backup superblocks; see `backup.rs`.
//! Source: kernel Documentation/filesystems/ext4/super.rst, `ext4_check_geometry` and friends in `fs/ext4/super.c`.

use super::checksum::{crc32c, crc32c_without};
use super::feature::{self, compat, incompat, ro_compat};
use super::field::{array_at, u8_at, u16_at, u32_at, u64_at, wide};
use crate::volume::{Timestamp, VolumeFault, VolumeInfo, VolumeKind};

/// Byte offset of the superblock on the device.
pub(super) const OFFSET: u64 = 1024;
/// Its size in bytes.
pub(super) const BYTES: usize = 1024;
/// The root directory's inode number.
pub(super) const ROOT: u32 = 2;

const MAGIC: u16 = 0xEF53;
const CHECKSUM_AT: usize = 0x3FC;
const STATE_CLEAN: u16 = 1;
const STATE_ERRORS: u16 = 2;
const CRC32C: u8 = 1;
/// Place of the journal among the internal inodes.
const JOURNAL: usize = 4;

/// What the reader needs of the superblock, checked.
#[derive(Clone, Debug)]
pub(super) struct Superblock {
    pub(super) inodes_count: u32,
    pub(super) blocks_count: u64,
    pub(super) first_data_block: u32,
    /// log2 of the block size, 10..=16.
    pub(super) block_bits: u32,
    /// log2 of blocks per cluster, 0 without bigalloc.
    pub(super) cluster_bits: u32,
    pub(super) blocks_per_group: u32,
    pub(super) clusters_per_group: u32,
    pub(super) inodes_per_group: u32,
    pub(super) inode_bytes: usize,
    pub(super) first_inode: u32,
    pub(super) desc_bytes: usize,
    pub(super) groups: u32,
    pub(super) reserved_gdt_blocks: u32,
    pub(super) first_meta_bg: u32,
    backup_groups: [u32; 2],
    compat: u32,
    incompat: u32,
    ro_compat: u32,
    pub(super) uuid: [u8; 16],
    /// Start value of all metadata checksums.
    pub(super) seed: u32,
    /// Inodes above the reserved ones that are not items: quotas, orphan file, a moved journal. 0 = none.
    internal: [u32; 5],
    /// Unmounted in order, or frozen with a journal that has nothing to replay, and without known errors.
    pub(super) was_clean: bool,
    /// Whether the inode bitmaps are as fresh as the inodes, and no inode waits without links for its last user.
    links_settled: bool,
}

impl Superblock {
    /// Whether `raw` (the 1024 bytes at [`OFFSET`]) carries the magic at all.
    pub(super) fn recognises(raw: &[u8]) -> bool {
        u16_at(raw, 0x38) == MAGIC
    }

    /// Checks the superblock and describes the volume. `device_bytes` is the size of the device.
    pub(super) fn parse(
        raw: &[u8; BYTES],
        device_bytes: u64,
    ) -> Result<(Superblock, VolumeInfo), VolumeFault> {
        let damaged = |what: &str| VolumeFault::Damaged {
            what: format!("ext4 superblock: {what}"),
            device_offset: OFFSET,
        };
        if !Self::recognises(raw) {
            return Err(VolumeFault::Unrecognised(None));
        }
        let dynamic = u32_at(raw, 0x4C) >= 1;
        // The kernel believes the feature words of a revision 0 volume too.
        let (compat_bits, incompat_bits, ro_bits) = (u32_at(raw, 0x5C), u32_at(raw, 0x60), u32_at(raw, 0x64));
        let checksum_kind = u8_at(raw, 0x175);
        if ro_bits & ro_compat::METADATA_CSUM == 0 {
            // mke2fs and tune2fs set the type with the feature and clear it with it; a feature bit lost alone would hide
            // every other damage.
            if checksum_kind != 0 {
                return Err(damaged("a checksum type without the metadata_csum feature"));
            }
        } else if crc32c(!0, &raw[..CHECKSUM_AT]) != u32_at(raw, CHECKSUM_AT) {
            // Before the type: the checksum distinguishes a flipped type from a new one.
            return Err(damaged("checksum does not match"));
        } else if checksum_kind != CRC32C {
            return Err(VolumeFault::Refused {
                what: format!("ext4 checksum type {checksum_kind}"),
                way_out: "back it up mounted, or as an image",
            });
        }
        feature::admit(incompat_bits)?;

        let log_block = u32_at(raw, 0x18);
        if log_block > 6 {
            return Err(damaged("block size above 64 KiB"));
        }
        let block_bits = 10 + log_block;
        let block_bytes = 1u32 << block_bits;
        let bits64 = incompat_bits & incompat::BITS64 != 0;
        let bigalloc = ro_bits & ro_compat::BIGALLOC != 0;
        let log_cluster = u32_at(raw, 0x1C);
        let cluster_bits = match log_cluster.checked_sub(log_block) {
            _ if !bigalloc => 0,
            Some(bits) if log_cluster <= 20 => bits,
            _ => return Err(damaged("cluster size out of range")),
        };
        let blocks_per_group = u32_at(raw, 0x20);
        let clusters_per_group = if bigalloc { u32_at(raw, 0x24) } else { blocks_per_group };
        let clusters_max = block_bytes * 8;
        if clusters_per_group == 0
            || clusters_per_group > clusters_max
            || clusters_per_group % 8 != 0
            || u64::from(clusters_per_group) << cluster_bits != u64::from(blocks_per_group)
        {
            return Err(damaged("blocks per group out of range"));
        }
        let inode_bytes = if dynamic { u32::from(u16_at(raw, 0x58)) } else { 128 };
        if inode_bytes < 128 || inode_bytes > block_bytes || !inode_bytes.is_power_of_two() {
            return Err(damaged("inode size out of range"));
        }
        let inodes_per_group = u32_at(raw, 0x28);
        // A multiple of 8 fills whole bytes of the bitmap, and keeps the highest inode number below u32::MAX.
        if inodes_per_group < block_bytes / inode_bytes
            || inodes_per_group > block_bytes * 8
            || !inodes_per_group.is_multiple_of(8)
        {
            return Err(damaged("inodes per group out of range"));
        }
        let blocks_count = wide(if bits64 { u32_at(raw, 0x150) } else { 0 }, u32_at(raw, 0x4));
        let first_data_block = u32_at(raw, 0x14);
        let first_wanted = u32::from(block_bits == 10 && cluster_bits == 0);
        if first_data_block != first_wanted || blocks_count <= u64::from(first_data_block) {
            return Err(damaged("first data block out of range"));
        }
        let size_bytes = blocks_count.checked_mul(u64::from(block_bytes)).filter(|_| blocks_count < 1 << 48);
        let Some(size_bytes) = size_bytes else {
            return Err(damaged("more blocks than can be addressed"));
        };
        if size_bytes > device_bytes {
            return Err(damaged("the file system is larger than the device"));
        }
        let groups = (blocks_count - u64::from(first_data_block)).div_ceil(u64::from(blocks_per_group));
        let inodes_count = u32_at(raw, 0x0);
        let Ok(groups) = u32::try_from(groups) else {
            return Err(damaged("more groups than can be numbered"));
        };
        if u64::from(groups) * u64::from(inodes_per_group) != u64::from(inodes_count) {
            return Err(damaged("inode count is not groups times inodes per group"));
        }
        let desc_bytes = if bits64 { u16_at(raw, 0xFE) } else { 32 };
        if bits64 && (!(64..=1024).contains(&desc_bytes) || !desc_bytes.is_power_of_two()) {
            return Err(damaged("group descriptor size out of range"));
        }
        let first_inode = if dynamic { u32_at(raw, 0x54) } else { 11 };
        if first_inode < 11 || first_inode > inodes_count {
            return Err(damaged("first inode out of range"));
        }
        let uuid = array_at(raw, 0x68).unwrap_or_default();
        let seed =
            if incompat_bits & incompat::CSUM_SEED != 0 { u32_at(raw, 0x270) } else { crc32c(!0, &uuid) };
        let orphan_file = if compat_bits & compat::ORPHAN_FILE != 0 { u32_at(raw, 0x280) } else { 0 };
        let journal = if compat_bits & compat::HAS_JOURNAL != 0 { u32_at(raw, 0xE0) } else { 0 };
        let quota = |at| if ro_bits & 0x100 != 0 { u32_at(raw, at) } else { 0 };
        let internal = [quota(0x240), quota(0x244), quota(0x26C), orphan_file, journal];
        // A hostile superblock could hide the root or a user's file behind these; the root never is internal.
        let internal = internal.map(|inode| if inode == ROOT { 0 } else { inode });

        let sb = Superblock {
            inodes_count,
            blocks_count,
            first_data_block,
            block_bits,
            cluster_bits,
            blocks_per_group,
            clusters_per_group,
            inodes_per_group,
            inode_bytes: inode_bytes as usize,
            first_inode,
            desc_bytes: usize::from(desc_bytes),
            groups,
            reserved_gdt_blocks: u32::from(u16_at(raw, 0xCE)),
            first_meta_bg: u32_at(raw, 0x104),
            backup_groups: [u32_at(raw, 0x24C), u32_at(raw, 0x250)],
            compat: compat_bits,
            incompat: incompat_bits,
            ro_compat: ro_bits,
            uuid,
            seed,
            internal,
            was_clean: u16_at(raw, 0x3A) & (STATE_CLEAN | STATE_ERRORS) == STATE_CLEAN,
            links_settled: (compat_bits & compat::HAS_JOURNAL != 0 || u16_at(raw, 0x3A) & STATE_CLEAN != 0)
                && u32_at(raw, 0xE8) == 0
                && ro_bits & ro_compat::ORPHAN_PRESENT == 0,
        };
        let free_blocks = wide(if bits64 { u32_at(raw, 0x158) } else { 0 }, u32_at(raw, 0xC));
        let label = raw[0x78..0x88].split(|&b| b == 0).next().unwrap_or_default().to_vec();
        let info = VolumeInfo {
            kind: VolumeKind::Ext4,
            uuid,
            label,
            block_bytes,
            size_bytes,
            used_bytes: blocks_count.saturating_sub(free_blocks) << block_bits,
            inode_max: u64::from(inodes_count),
            inodes_used: u64::from(inodes_count.saturating_sub(u32_at(raw, 0x10))),
            root: u64::from(ROOT),
            state: sb.state(raw),
            written_secs: (i64::from(u8_at(raw, 0x274)) << 32) + i64::from(u32_at(raw, 0x30)),
            created: Timestamp {
                secs: (i64::from(u8_at(raw, 0x276)) << 32) + i64::from(u32_at(raw, 0x108)),
                nanos: 0,
            },
            features: feature::names(compat_bits, incompat_bits, ro_bits),
        };
        Ok((sb, info))
    }

    /// The proof that nothing was written since: the kernel rewrites the superblock on every mount, unmount and freeze, with
    /// wtime (seconds), kbytes_written (a counter that any write moves), mnt_count, mtime and the free counts.
    ///
    /// ```text
    ///  0..4   crc32c of all but the checksum, so any other field counts too
    ///  4..8   wtime
    ///  8..12  kbytes_written, low half
    ///  12..16 free_blocks_count (low) xor free_inodes_count rotated by 16
    /// ```
    ///
    /// `None` when nothing forces a superblock write: no journal and not marked clean, that is, mounted without one.
    fn state(&self, raw: &[u8; BYTES]) -> Option<[u8; 16]> {
        if self.compat & compat::HAS_JOURNAL == 0 && u16_at(raw, 0x3A) & STATE_CLEAN == 0 {
            return None;
        }
        let mut state = [0; 16];
        // Without its own checksum: over both the result is the same for every superblock.
        state[..4].copy_from_slice(&crc32c(!0, &raw[..CHECKSUM_AT]).to_le_bytes());
        state[4..8].copy_from_slice(&raw[0x30..0x34]);
        state[8..12].copy_from_slice(&(u64_at(raw, 0x178) as u32).to_le_bytes());
        let free = u32_at(raw, 0xC) ^ u32_at(raw, 0x10).rotate_left(16);
        state[12..].copy_from_slice(&free.to_le_bytes());
        Some(state)
    }

    /// Block size in bytes.
    pub(super) fn block_bytes(&self) -> usize {
        1 << self.block_bits
    }

    /// Device byte of block `block`.
    pub(super) fn offset(&self, block: u64) -> u64 {
        block << self.block_bits
    }

    /// Whether the blocks `first..first + len` may hold something: inside the volume and not the superblock's.
    pub(super) fn holds(&self, first: u64, len: u64) -> bool {
        first > u64::from(self.first_data_block)
            && first.checked_add(len).is_some_and(|end| end <= self.blocks_count)
    }

    pub(super) fn has_metadata_csum(&self) -> bool {
        self.ro_compat & ro_compat::METADATA_CSUM != 0
    }

    pub(super) fn has_gdt_csum(&self) -> bool {
        !self.has_metadata_csum() && self.ro_compat & ro_compat::GDT_CSUM != 0
    }

    /// Whether the groups' UNINIT flags and unused counts mean anything.
    pub(super) fn has_uninit_groups(&self) -> bool {
        self.ro_compat & (ro_compat::METADATA_CSUM | ro_compat::GDT_CSUM) != 0
    }

    pub(super) fn has_filetype(&self) -> bool {
        self.incompat & incompat::FILETYPE != 0
    }

    pub(super) fn has_large_dir(&self) -> bool {
        self.incompat & incompat::LARGE_DIR != 0
    }

    pub(super) fn has_64bit(&self) -> bool {
        self.incompat & incompat::BITS64 != 0
    }

    pub(super) fn has_ea_inode(&self) -> bool {
        self.incompat & incompat::EA_INODE != 0
    }

    pub(super) fn has_meta_bg(&self) -> bool {
        self.incompat & incompat::META_BG != 0
    }

    pub(super) fn has_shared_blocks(&self) -> bool {
        self.ro_compat & ro_compat::SHARED_BLOCKS != 0
    }

    pub(super) fn has_project(&self) -> bool {
        self.ro_compat & ro_compat::PROJECT != 0
    }

    /// Whether an inode that its bitmap calls in use must have links: not so on a volume without a journal
    /// that was not unmounted cleanly, whose bitmaps may be stale, and not with orphans, which exist without
    /// links while a process has them open.
    pub(super) fn links_settled(&self) -> bool {
        self.links_settled
    }

    pub(super) fn bitmaps_known(&self) -> bool {
        feature::bitmaps_known(self.ro_compat)
    }

    /// Inode of the journal, 0 = none.
    pub(super) fn journal_inode(&self) -> u32 {
        self.internal[JOURNAL]
    }

    /// Whether `inode` may be an item: the root, or an ordinary number that the file system does not keep for itself.
    pub(super) fn is_ordinary(&self, inode: u32) -> bool {
        inode == ROOT
            || (inode >= self.first_inode && inode <= self.inodes_count && !self.internal.contains(&inode))
    }

    /// Whether group `group` starts with a superblock.
    pub(super) fn group_has_super(&self, group: u32) -> bool {
        let power_of = |base: u32| {
            let mut n = group;
            while n > 1 && n.is_multiple_of(base) {
                n /= base;
            }
            n == 1
        };
        if group == 0 {
            true
        } else if self.compat & compat::SPARSE_SUPER2 != 0 {
            self.backup_groups.contains(&group)
        } else if self.ro_compat & ro_compat::SPARSE_SUPER == 0 || group == 1 {
            true
        } else {
            group % 2 == 1 && (power_of(3) || power_of(5) || power_of(7))
        }
    }

    /// First block of group `group`.
    pub(super) fn group_start(&self, group: u32) -> u64 {
        u64::from(group) * u64::from(self.blocks_per_group) + u64::from(self.first_data_block)
    }

    /// Group descriptors in a block.
    pub(super) fn descs_per_block(&self) -> u32 {
        (self.block_bytes() / self.desc_bytes) as u32
    }
}

/// CRC-32C of an inode's number and generation: the start value of everything that belongs to the inode.
pub(super) fn inode_seed(seed: u32, inode: u32, generation: u32) -> u32 {
    crc32c(crc32c(seed, &inode.to_le_bytes()), &generation.to_le_bytes())
}

/// Checksum of an attribute block or anything else whose own checksum field counts as zero.
pub(super) fn block_checksum(seed: u32, block: u64, bytes: &[u8], checksum_at: usize) -> u32 {
    crc32c_without(crc32c(seed, &block.to_le_bytes()), bytes, checksum_at, 4)
}
