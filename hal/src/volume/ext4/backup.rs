//! Backup superblocks, as a way out: when the primary superblock is lost or damaged, the fault names the backup that is sound and the
//! command that repairs the volume from it.
//!
//! A backup is never read from: it is as old as the last mkfs, resize or e2fsck, so feature bits, journal state and the
//! orphan list may be stale, and whatever damaged the primary may have hit the descriptors behind it. e2fsck knows what to do with
//! that; a reader that went on silently would not.
//!
//! ```text
//!  block size   first block of group 1      groups with a backup (sparse_super)
//!  1 KiB        8193                        1, 3, 5, 7, 9, 25, 27, 49, ...
//!  2 KiB        16384
//!  4 KiB        32768
//!  8 KiB ..     65528 (the largest count that a multiple of 8 in 16 bits has)
//! ```
//!
//! Where the damaged primary still gives a plausible geometry (`mke2fs -g`, bigalloc), that is tried first.
//!
//! Does not: find backups of another geometry when the primary is gone. Source: e2fsck(8) on `-b`,
//! `EXT2_MAX_BLOCKS_PER_GROUP` of e2fsprogs.

use super::field::{u16_at, u32_at};
use super::superblock::{BYTES, OFFSET, Superblock};
use crate::block::BlockDevice;
use crate::volume::VolumeFault;

/// Groups in which a backup is looked for.
const GROUPS: [u64; 8] = [1, 3, 5, 7, 9, 25, 27, 49];
const GROUP_NUMBER_AT: usize = 0x5A;

/// A sound backup.
struct Backup {
    block: u64,
    block_bytes: u64,
}

/// `fault`, with the way out when there is one. `raw` is the primary superblock, as far as it could be read.
pub(super) fn with_way_out(
    device: &mut dyn BlockDevice,
    raw: &[u8; BYTES],
    fault: VolumeFault,
) -> VolumeFault {
    match fault {
        VolumeFault::Damaged { what, device_offset } => match find(device, raw) {
            Some(backup) => VolumeFault::Damaged { what: format!("{what}; {backup}"), device_offset },
            None => VolumeFault::Damaged { what, device_offset },
        },
        other => other,
    }
}

/// For a device on which nothing is recognised: a file system whose primary superblock was overwritten.
pub(super) fn lost(device: &mut dyn BlockDevice) -> Option<VolumeFault> {
    let backup = find(device, &[0; BYTES])?;
    let what = format!("ext4 superblock: no magic number; {backup}");
    Some(VolumeFault::Damaged { what, device_offset: OFFSET })
}

impl std::fmt::Display for Backup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Backup { block, block_bytes } = self;
        write!(f, "the backup in block {block} is sound: `e2fsck -b {block} -B {block_bytes}` repairs it")
    }
}

/// The first sound backup.
fn find(device: &mut dyn BlockDevice, raw: &[u8; BYTES]) -> Option<Backup> {
    let bits = u32_at(raw, 0x18);
    let own = (bits <= 6).then(|| (10 + bits, u64::from(u32_at(raw, 0x20))));
    let usual = (10..=16).map(|bits| (bits, (8u64 << bits).min(65528)));
    let mut geometries = own.into_iter().chain(usual).filter(|&(_, per_group)| per_group >= 256);
    geometries
        .find_map(|(bits, per_group)| GROUPS.iter().find_map(|&group| sound(device, bits, per_group, group)))
}

/// The backup of `group`, if it is there and belongs there.
fn sound(device: &mut dyn BlockDevice, bits: u32, per_group: u64, group: u64) -> Option<Backup> {
    let size = device.geometry().size_bytes;
    let mut raw = [0; BYTES];
    // The first data block is 1 with blocks of 1 KiB, unless there are clusters.
    for first in [u64::from(bits == 10), 0] {
        let block = group * per_group + first;
        let offset = block << bits;
        if offset.checked_add(BYTES as u64).is_none_or(|end| end > size) {
            continue;
        }
        if device.read_at(offset, &mut raw).is_err() || u64::from(u16_at(&raw, GROUP_NUMBER_AT)) != group {
            continue;
        }
        if let Ok((sb, _)) = Superblock::parse(&raw, size)
            && sb.block_bits == bits
            && u64::from(sb.blocks_per_group) == per_group
        {
            return Some(Backup { block, block_bytes: 1 << bits });
        }
    }
    None
}
