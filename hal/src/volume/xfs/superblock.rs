//! The superblock: one sector at byte 0 of the device. Everything else is found from it.
//!
//! ```text
//!  offset size field                offset size field               offset size field
//!  0      4    magic "XFSB"         104    2    inodesize           178    1    flags
//!  4      4    blocksize            106    2    inopblock           180    4    inoalignmt
//!  8      8    dblocks              108    12   fname (label)       192    1    dirblklog
//!  16     8    rblocks              120    1    blocklog            193    1    logsectlog
//!  32     16   uuid                 121    1    sectlog             194    2    logsectsize
//!  48     8    logstart             122    1    inodelog            196    4    logsunit
//!  56     8    rootino              123    1    inopblog            208    4    features_compat
//!  64     8    rbmino               124    1    agblklog            212    4    features_ro_compat
//!  72     8    rsumino              126    1    inprogress          216    4    features_incompat
//!  84     4    agblocks             128    8    icount              220    4    features_log_incompat
//!  88     4    agcount              136    8    ifree               224    4    crc
//!  96     4    logblocks            144    8    fdblocks            232    8    pquotino
//!  100    2    versionnum           160    8    uquotino            240    8    lsn
//!  102    2    sectsize             168    8    gquotino            248    16   meta_uuid
//! ```
//!
//! Addresses
//! ```text
//!  block on disk   group << agblklog | block in the group        ("fsblock"; gaps between groups)
//!  inode number    group << agblklog + inopblog | block in the group << inopblog | inode in the block
//!  here            group * agblocks + block in the group         ("linear"; times the block size it is the device byte)
//! ```
//!
//! Invariants after [`Superblock::parse`]: the checksum is right, every incompatible feature is read, the geometry is
//! consistent with itself and fits the device. So linear block numbers below `blocks_count` times the block size never overflow,
//! and neither do inode numbers.
//!
//! Does not: fall back to the copies in other groups. A damaged primary is a damaged volume; `xfs_repair` decides about copies.
//! Source: kernel `fs/xfs/libxfs/xfs_format.h`, `xfs_validate_sb_common` and friends in `xfs_sb.c`.

use super::checksum;
use super::feature::{self, incompat};
use super::field::{array_at, u8_at, u16_at, u32_at, u64_at};
use crate::volume::{Timestamp, VolumeFault, VolumeInfo, VolumeKind};

/// Smallest sector in bytes, and what is read to find out the real one.
pub(super) const SECTOR_BYTES_MIN: usize = 512;
/// Largest sector in bytes.
const SECTOR_BYTES_MAX: usize = 32 << 10;
/// Bytes of a basic block: the unit of addresses inside metadata and of the log.
pub(super) const BASIC_BITS: u32 = 9;
/// Place of the checksum in the superblock.
pub(super) const CHECKSUM_AT: usize = 224;
/// End of the fields that this reader knows.
pub(super) const FIELDS_END: usize = 264;

const MAGIC: &[u8; 4] = b"XFSB";
const AG_BYTES_MIN: u64 = 1 << 24;
const AG_BYTES_MAX: u64 = 1 << 40;
const AG_BLOCKS_MIN: u64 = 64;
const LOG_BYTES_MAX: u64 = 1 << 31;
const LOG_STRIPE_BYTES_MAX: u32 = 256 << 10;
/// Bits that an inode number may have.
const INODE_BITS_MAX: u32 = 56;
/// The inode numbers that mean "none".
const NO_INODE: [u64; 2] = [0, u64::MAX];

/// What the reader needs of the superblock, checked.
#[derive(Clone, Debug)]
pub(super) struct Superblock {
    /// log2 of the block size, 10..=16.
    pub(super) block_bits: u32,
    /// log2 of the sector size, 9..=15, at most `block_bits`.
    pub(super) sector_bits: u32,
    /// log2 of the inode size, 8..=11.
    pub(super) inode_bits: u32,
    /// log2 of the inodes in a block, at least 1.
    pub(super) inodes_per_block_bits: u32,
    /// log2 of the blocks of a group, rounded up.
    pub(super) group_bits: u32,
    /// log2 of the blocks in a directory block.
    pub(super) dir_bits: u32,
    /// Blocks of every group but the last.
    pub(super) group_blocks: u32,
    pub(super) groups: u32,
    pub(super) blocks_count: u64,
    pub(super) root: u64,
    /// First block of the log, linear, and its length in blocks.
    pub(super) log: (u64, u64),
    /// The user's uuid: what log records carry.
    pub(super) uuid: [u8; 16],
    /// The uuid in all other metadata.
    pub(super) meta_uuid: [u8; 16],
    ro_compat: u32,
    incompat: u32,
    /// Inodes that are not items: realtime bitmap and summary, quotas.
    internal: [u64; 5],
}

/// Sector size that the first 512 bytes of a device claim, when they are a superblock's at all.
pub(super) fn sector_bytes(head: &[u8; SECTOR_BYTES_MIN]) -> Result<usize, VolumeFault> {
    if !head.starts_with(MAGIC) {
        return Err(VolumeFault::Unrecognised(None));
    }
    let version = u16_at(head, 100) & 0xF;
    if version != 5 {
        return Err(VolumeFault::Refused {
            what: format!("xfs format version {version}, which has no checksums"),
            way_out: feature::WAY_OUT,
        });
    }
    let bytes = usize::from(u16_at(head, 102));
    let known = (SECTOR_BYTES_MIN..=SECTOR_BYTES_MAX).contains(&bytes) && bytes.is_power_of_two();
    known.then_some(bytes).ok_or_else(|| damaged("sector size out of range"))
}

fn damaged(what: &str) -> VolumeFault {
    VolumeFault::Damaged { what: format!("xfs superblock: {what}"), device_offset: 0 }
}

fn log2_of(
    value: u32,
    bits: u8,
    range: std::ops::RangeInclusive<u32>,
    what: &str,
) -> Result<u32, VolumeFault> {
    let bits = u32::from(bits);
    match range.contains(&bits) && value == 1 << bits {
        true => Ok(bits),
        false => Err(damaged(what)),
    }
}

impl Superblock {
    /// Checks the superblock in `raw`, a whole sector, and describes the volume. `device_bytes` is the size of the device.
    pub(super) fn parse(raw: &[u8], device_bytes: u64) -> Result<(Superblock, VolumeInfo), VolumeFault> {
        if !checksum::holds(raw, CHECKSUM_AT) {
            return Err(damaged("checksum does not match"));
        }
        let (ro_bits, incompat_bits) = (u32_at(raw, 212), u32_at(raw, 216));
        feature::admit(incompat_bits)?;
        if u8_at(raw, 126) != 0 {
            return Err(VolumeFault::Refused {
                what: "xfs file system that mkfs has not finished".into(),
                way_out: "make it again, or back it up as an image",
            });
        }
        let block_bits = log2_of(u32_at(raw, 4), u8_at(raw, 120), 10..=16, "block size out of range")?;
        let sector_bits = log2_of(
            u32::from(u16_at(raw, 102)),
            u8_at(raw, 121),
            BASIC_BITS..=block_bits.min(15),
            "sector size out of range",
        )?;
        let inode_bits =
            log2_of(u32::from(u16_at(raw, 104)), u8_at(raw, 122), 8..=11, "inode size out of range")?;
        let inodes_per_block_bits = u32::from(u8_at(raw, 123));
        if inodes_per_block_bits + inode_bits != block_bits
            || inodes_per_block_bits == 0
            || u32::from(u16_at(raw, 106)) != 1 << inodes_per_block_bits
        {
            return Err(damaged("inodes per block out of range"));
        }
        let dir_bits = u32::from(u8_at(raw, 192));
        if dir_bits + block_bits > 16 {
            return Err(damaged("directory block size above 64 KiB"));
        }
        let (blocks_count, group_blocks, groups) = (u64_at(raw, 8), u32_at(raw, 84), u32_at(raw, 88));
        let group_bytes = u64::from(group_blocks) << block_bits;
        if !(AG_BYTES_MIN..=AG_BYTES_MAX).contains(&group_bytes) {
            return Err(damaged("allocation group size out of range"));
        }
        let group_bits = u32::from(u8_at(raw, 124));
        if group_bits != group_blocks.next_power_of_two().trailing_zeros() {
            return Err(damaged("allocation group size and its logarithm disagree"));
        }
        let whole = u64::from(groups) * u64::from(group_blocks);
        if groups == 0
            || blocks_count > whole
            || blocks_count < whole - u64::from(group_blocks) + AG_BLOCKS_MIN
        {
            return Err(damaged("allocation groups do not add up to the volume"));
        }
        let size_bytes = blocks_count.checked_mul(1 << block_bits).filter(|&bytes| bytes <= device_bytes);
        let Some(size_bytes) = size_bytes else {
            return Err(damaged("the file system is larger than the device"));
        };
        let groups_bits = u64::from(groups).next_power_of_two().trailing_zeros();
        if groups_bits + group_bits + inodes_per_block_bits > INODE_BITS_MAX {
            return Err(damaged("inode numbers longer than 56 bits"));
        }
        let uuid: [u8; 16] = array_at(raw, 32).unwrap_or_default();
        let meta_uuid = match incompat_bits & incompat::META_UUID {
            0 => uuid,
            _ => array_at(raw, 248).unwrap_or_default(),
        };
        let mut sb = Superblock {
            block_bits,
            sector_bits,
            inode_bits,
            inodes_per_block_bits,
            group_bits,
            dir_bits,
            group_blocks,
            groups,
            blocks_count,
            root: u64_at(raw, 56),
            log: (0, 0),
            uuid,
            meta_uuid,
            ro_compat: ro_bits,
            incompat: incompat_bits,
            internal: [64, 72, 160, 168, 232].map(|at| u64_at(raw, at)),
        };
        if !sb.is_inode(sb.root) || sb.internal.contains(&sb.root) {
            return Err(damaged("root directory's inode number out of range"));
        }
        sb.log = sb.find_log(raw)?;
        let label = raw[108..120].split(|&b| b == 0).next().unwrap_or_default().to_vec();
        let (icount, ifree, free_blocks) = (u64_at(raw, 128), u64_at(raw, 136), u64_at(raw, 144));
        let info = VolumeInfo {
            kind: VolumeKind::Xfs,
            uuid,
            label,
            block_bytes: 1 << block_bits,
            size_bytes,
            used_bytes: blocks_count.saturating_sub(free_blocks) << block_bits,
            inode_max: sb.inode_number(groups - 1, (sb.group_len(groups - 1) << inodes_per_block_bits) - 1),
            inodes_used: icount.saturating_sub(ifree),
            root: sb.root,
            state: None,
            written_secs: 0,
            created: Timestamp::default(),
            features: feature::names(u32_at(raw, 208), ro_bits, incompat_bits),
        };
        Ok((sb, info))
    }

    /// Place and length of the log.
    fn find_log(&self, raw: &[u8]) -> Result<(u64, u64), VolumeFault> {
        let start = u64_at(raw, 48);
        if start == 0 {
            return Err(VolumeFault::Refused {
                what: "xfs with an external log: whether it holds changes cannot be told from this device"
                    .into(),
                way_out: feature::WAY_OUT,
            });
        }
        let blocks = u64::from(u32_at(raw, 96));
        let stripe = u32_at(raw, 196);
        if stripe > 1 && (!stripe.is_multiple_of(1 << self.block_bits) || stripe > LOG_STRIPE_BYTES_MAX) {
            return Err(damaged("log stripe unit out of range"));
        }
        match self.linear(start, blocks) {
            Some(first) if blocks > 0 && blocks << self.block_bits <= LOG_BYTES_MAX => Ok((first, blocks)),
            _ => Err(damaged("log outside its allocation group")),
        }
    }

    /// Block size in bytes.
    pub(super) fn block_bytes(&self) -> usize {
        1 << self.block_bits
    }

    /// Sector size in bytes.
    pub(super) fn sector_bytes(&self) -> usize {
        1 << self.sector_bits
    }

    /// Inode size in bytes.
    pub(super) fn inode_bytes(&self) -> usize {
        1 << self.inode_bits
    }

    /// Device byte of linear block `block`.
    pub(super) fn offset(&self, block: u64) -> u64 {
        block << self.block_bits
    }

    /// The address that metadata in linear block `block` carries: in basic blocks.
    pub(super) fn basic(&self, block: u64) -> u64 {
        block << (self.block_bits - BASIC_BITS)
    }

    /// Blocks of group `group`.
    pub(super) fn group_len(&self, group: u32) -> u64 {
        match group + 1 == self.groups {
            true => self.blocks_count - self.group_start(group),
            false => u64::from(self.group_blocks),
        }
    }

    /// First linear block of group `group`.
    pub(super) fn group_start(&self, group: u32) -> u64 {
        u64::from(group) * u64::from(self.group_blocks)
    }

    /// First block of a group behind its four headers.
    pub(super) fn headers_end(&self) -> u64 {
        (3 << self.sector_bits >> self.block_bits) + 1
    }

    /// The linear block of `len` blocks at `fsblock`, when they lie in one group behind its headers.
    pub(super) fn linear(&self, fsblock: u64, len: u64) -> Option<u64> {
        let group = u32::try_from(fsblock >> self.group_bits).ok().filter(|&group| group < self.groups)?;
        self.in_group(group, fsblock & ((1 << self.group_bits) - 1), len)
    }

    /// The linear block of `len` blocks at `block` of `group`, when they lie in it behind its headers.
    pub(super) fn in_group(&self, group: u32, block: u64, len: u64) -> Option<u64> {
        let end = block.checked_add(len)?;
        (block >= self.headers_end() && end <= self.group_len(group)).then(|| self.group_start(group) + block)
    }

    /// Bits of an inode number below the group.
    fn group_inode_bits(&self) -> u32 {
        self.group_bits + self.inodes_per_block_bits
    }

    /// The inode number of inode `index` in group `group`.
    pub(super) fn inode_number(&self, group: u32, index: u64) -> u64 {
        u64::from(group) << self.group_inode_bits() | index
    }

    /// Group of inode `inode`, and its number in it; the group may not exist.
    pub(super) fn split_inode(&self, inode: u64) -> (u64, u64) {
        (inode >> self.group_inode_bits(), inode & ((1 << self.group_inode_bits()) - 1))
    }

    /// Linear block of inode `index` (0..2^32) of group `group`, and its byte in that block; `None` outside the group.
    pub(super) fn inode_place(&self, group: u32, index: u64) -> Option<(u64, usize)> {
        let block = self.in_group(group, index >> self.inodes_per_block_bits, 1)?;
        let slot = index & ((1 << self.inodes_per_block_bits) - 1);
        Some((block, (slot as usize) << self.inode_bits))
    }

    /// Whether an inode of this number may exist.
    pub(super) fn is_inode(&self, inode: u64) -> bool {
        let (group, index) = self.split_inode(inode);
        !NO_INODE.contains(&inode)
            && u32::try_from(group)
                .is_ok_and(|group| group < self.groups && self.inode_place(group, index).is_some())
    }

    /// Whether `inode` may be an item: it may exist, and the file system does not keep it for itself.
    pub(super) fn is_item(&self, inode: u64) -> bool {
        self.is_inode(inode) && !self.is_internal(inode)
    }

    /// Whether the file system keeps `inode` for itself.
    pub(super) fn is_internal(&self, inode: u64) -> bool {
        self.internal.contains(&inode)
    }

    pub(super) fn has_ftype(&self) -> bool {
        self.incompat & incompat::FTYPE != 0
    }

    pub(super) fn has_sparse_inodes(&self) -> bool {
        self.incompat & incompat::SPINODES != 0
    }

    pub(super) fn has_bigtime(&self) -> bool {
        self.incompat & incompat::BIGTIME != 0
    }

    pub(super) fn has_large_counters(&self) -> bool {
        self.incompat & incompat::NREXT64 != 0
    }

    pub(super) fn has_parent_pointers(&self) -> bool {
        self.incompat & incompat::PARENT != 0
    }

    pub(super) fn free_space_known(&self) -> bool {
        feature::free_space_known(self.ro_compat)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two groups of 4096 blocks of 4 KiB, inodes of 512 bytes, made by hand.
    pub(crate) fn raw() -> Vec<u8> {
        let mut raw = vec![0; 512];
        let mut put = |at: usize, bytes: &[u8]| raw[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, MAGIC);
        put(4, &4096u32.to_be_bytes());
        put(8, &8000u64.to_be_bytes());
        put(32, &[7; 16]);
        put(48, &4100u64.to_be_bytes());
        put(56, &128u64.to_be_bytes());
        put(64, &129u64.to_be_bytes());
        put(72, &130u64.to_be_bytes());
        put(84, &4096u32.to_be_bytes());
        put(88, &2u32.to_be_bytes());
        put(96, &1000u32.to_be_bytes());
        put(100, &0xB4A5u16.to_be_bytes());
        put(102, &512u16.to_be_bytes());
        put(104, &512u16.to_be_bytes());
        put(106, &8u16.to_be_bytes());
        put(108, b"label");
        put(120, &[12, 9, 9, 3, 12]);
        put(212, &1u32.to_be_bytes());
        put(216, &3u32.to_be_bytes());
        sealed(raw)
    }

    fn sealed(mut raw: Vec<u8>) -> Vec<u8> {
        raw[CHECKSUM_AT..CHECKSUM_AT + 4].fill(0);
        let crc = checksum::crc32c(0, &raw);
        raw[CHECKSUM_AT..CHECKSUM_AT + 4].copy_from_slice(&crc.to_le_bytes());
        raw
    }

    #[test]
    fn addresses_turn_into_places() {
        let (sb, info) = Superblock::parse(&raw(), 8000 << 12).unwrap();
        assert_eq!((info.label.as_slice(), info.root, info.size_bytes), (&b"label"[..], 128, 8000 << 12));
        assert_eq!(sb.linear(4096 + 5, 1), Some(4096 + 5));
        assert_eq!(sb.linear(4096, 1), None, "headers");
        assert_eq!(sb.linear(4096 + 3903, 1), Some(7999));
        assert_eq!(sb.linear(4096 + 3903, 2), None, "behind the end");
        assert_eq!(sb.linear(4090, 10), None, "two groups");
        assert_eq!(sb.linear(8192 + 5, 1), None, "no such group");
        assert_eq!(sb.split_inode(1 << 15 | 17), (1, 17));
        assert_eq!(sb.inode_place(1, 17), Some((4098, 512)));
        assert_eq!(sb.inode_number(1, 17), 1 << 15 | 17);
        assert!(sb.is_item(131) && !sb.is_item(129) && !sb.is_item(0) && !sb.is_item(u64::MAX));
        assert_eq!(info.inode_max, 1 << 15 | (3904 * 8 - 1));
    }

    #[test]
    fn what_does_not_fit_is_damaged_or_refused() {
        let changed = |at: usize, bytes: &[u8]| {
            let mut raw = raw();
            raw[at..at + bytes.len()].copy_from_slice(bytes);
            Superblock::parse(&sealed(raw), 8000 << 12).err().map(|fault| fault.to_string())
        };
        assert_eq!(changed(0, MAGIC), None);
        for (at, bytes, said) in [
            (48, &[0; 8][..], "external log"),
            (126, &[1], "mkfs"),
            (216, &[0, 0, 0, 0x13], "needsrepair"),
            (216, &[0, 0, 1, 3], "metadir"),
            (4, &[0, 0, 0x20, 0], "block size"),
            (88, &[0, 0, 0, 3], "add up"),
            (8, &[0, 0, 1], "add up"),
            (96, &[0, 0, 0xFF, 0], "log outside"),
            (56, &[0xFF; 8], "root"),
        ] {
            let fault = changed(at, bytes).unwrap();
            assert!(fault.contains(said), "{fault}");
        }
        let fault = Superblock::parse(&raw(), (8000 << 12) - 1).err().unwrap().to_string();
        assert!(fault.contains("larger than the device"), "{fault}");
        let mut bad = raw();
        bad[130] ^= 1;
        assert!(Superblock::parse(&bad, 8000 << 12).err().unwrap().to_string().contains("checksum"));
        let mut old = raw();
        old[101] = 0xA4;
        assert!(sector_bytes(&old.try_into().unwrap()).err().unwrap().to_string().contains("version 4"));
    }
}
