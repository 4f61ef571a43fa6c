//! Headers of allocation groups: where their trees are.
//!
//! ```text
//!  sector 1: AGF                       sector 2: AGI
//!  0   4  magic "XAGF"                 0   4  magic "XAGI"
//!  4   4  version, 1                   4   4  version, 1
//!  8   4  number of the group          8   4  number of the group
//!  12  4  blocks in the group          12  4  blocks in the group
//!  16  4  root of the free-space tree  16  4  inodes in chunks
//!         by block                     20  4  root of the inode tree
//!  28  4  its levels                   24  4  its levels
//!  52  4  blocks in the tree           28  4  free inodes in chunks
//!                                      40  4  64 lists of unlinked inodes, FFFFFFFF = empty
//!  64  16 uuid                         296 16 uuid
//!  216 4  crc                          312 4  crc
//! ```
//!
//! Does not: follow the lists of unlinked inodes (their link count says it, and whether a list has any is enough), nor the list of free blocks (they count as used).
//! Source: kernel `fs/xfs/libxfs/xfs_format.h`, `xfs_agf_verify`, `xfs_agi_verify`.

use super::checksum;
use super::field::{array_at, u32_at};
use super::superblock::Superblock;
use crate::block::BlockDevice;
use crate::volume::VolumeFault;

const VERSION: u32 = 1;
/// Levels that a tree of a group may have: far more than fit.
pub(super) const LEVELS_MAX: u32 = 12;

/// The root of a tree of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Root {
    pub(super) group: u32,
    /// Block in the group.
    pub(super) block: u32,
    /// 1 = the root is a leaf.
    pub(super) levels: u32,
    /// Inodes, or free blocks, that the tree's records add up to.
    pub(super) total: u32,
    /// Whether inodes of the group may be in use without links: a process had them open when the volume was
    /// frozen.
    pub(super) has_unlinked: bool,
}

/// Place of the lists of unlinked inodes in an AGI, and their bytes.
const UNLINKED: std::ops::Range<usize> = 40..296;

/// What differs between the two headers.
struct Kind {
    sector: u64,
    magic: &'static [u8; 4],
    name: &'static str,
    root_at: usize,
    levels_at: usize,
    total_at: usize,
    uuid_at: usize,
    checksum_at: usize,
}

const AGF: Kind = Kind {
    sector: 1,
    magic: b"XAGF",
    name: "AGF",
    root_at: 16,
    levels_at: 28,
    total_at: 52,
    uuid_at: 64,
    checksum_at: 216,
};

const AGI: Kind = Kind {
    sector: 2,
    magic: b"XAGI",
    name: "AGI",
    root_at: 20,
    levels_at: 24,
    total_at: 16,
    uuid_at: 296,
    checksum_at: 312,
};

/// The root of the free-space tree of `group`.
pub(super) fn free_space(
    sb: &Superblock,
    device: &mut dyn BlockDevice,
    group: u32,
) -> Result<Root, VolumeFault> {
    read(sb, device, group, &AGF)
}

/// The root of the inode tree of `group`.
pub(super) fn inodes(sb: &Superblock, device: &mut dyn BlockDevice, group: u32) -> Result<Root, VolumeFault> {
    read(sb, device, group, &AGI)
}

fn read(sb: &Superblock, device: &mut dyn BlockDevice, group: u32, kind: &Kind) -> Result<Root, VolumeFault> {
    let at = sb.offset(sb.group_start(group)) + (kind.sector << sb.sector_bits);
    let mut raw = vec![0; sb.sector_bytes()];
    device.read_at(at, &mut raw)?;
    let damaged = |what: &str| VolumeFault::Damaged {
        what: format!("xfs group {group}: {} {what}", kind.name),
        device_offset: at,
    };
    if !raw.starts_with(kind.magic) || u32_at(&raw, 4) != VERSION {
        return Err(damaged("has no magic number"));
    }
    if !checksum::holds(&raw, kind.checksum_at) {
        return Err(damaged("checksum does not match"));
    }
    if array_at(&raw, kind.uuid_at) != Some(sb.meta_uuid) || u32_at(&raw, 8) != group {
        return Err(damaged("belongs elsewhere"));
    }
    if u64::from(u32_at(&raw, 12)) != sb.group_len(group) {
        return Err(damaged("has another length than the group"));
    }
    let levels = u32_at(&raw, kind.levels_at);
    if levels == 0 || levels > LEVELS_MAX {
        return Err(damaged("has a tree of too many levels"));
    }
    let is_inodes = kind.magic == AGI.magic;
    let has_unlinked = is_inodes && raw.get(UNLINKED).is_none_or(|lists| lists.iter().any(|&b| b != 0xFF));
    let (block, total) = (u32_at(&raw, kind.root_at), u32_at(&raw, kind.total_at));
    Ok(Root { group, block, levels, total, has_unlinked })
}
