//! What is on the device, before the kernel sees it: which file system, its identity, and whether it is sound
//! and clean enough to be mounted.
//!
//! | file system | what is read here | refused |
//! |---|---|---|
//! | ext2, ext3, ext4 | the superblock, by the raw reader | damaged; needs_recovery; journal_dev |
//! | XFS | superblock, 512 bytes at 0 | checksum (version 5). A log to replay is found by the kernel, which cannot write |
//! | btrfs | superblock, 4 KiB at 64 KiB | checksum (crc32c); a log tree to replay; more than one device |
//!
//! Invariants: a superblock whose checksum is wrong is never given to the kernel.
//!
//! Source: `fs/ext4/ext4.h`, `fs/xfs/libxfs/xfs_format.h` (`struct xfs_dsb`), include/uapi/linux/btrfs_tree.h
//! (`struct btrfs_super_block`).

use super::super::ext4::Ext4;
use super::{Family, Recovery};
use crate::block::BlockDevice;
use crate::volume::{Timestamp, Volume, VolumeFault, VolumeInfo, VolumeKind};

/// Options of a mount: a flag, or a name with its value.
pub(super) type Options = Vec<(&'static str, Option<&'static str>)>;

/// What is there.
#[derive(Debug)]
pub(super) struct Probed {
    pub(super) family: Family,
    pub(super) info: VolumeInfo,
    pub(super) options: Options,
}

const EXT4_SUPERBLOCK: u64 = 1024;
const EXT4_HAS_JOURNAL: u32 = 0x4;
const EXT4_RECOVER: u32 = 0x4;
const EXT4_JOURNAL_DEV: u32 = 0x8;
/// A bit of the same word: directories and files may lie in their inodes.
const EXT4_INLINE_DATA: u32 = 0x8000;
const BTRFS_SUPERBLOCK: u64 = 64 << 10;
const BTRFS_SUPERBLOCK_BYTES: usize = 4096;
/// Largest sector that an XFS superblock may fill.
const XFS_SECTOR_BYTES_MAX: usize = 32 << 10;

/// The way out of a log that holds changes.
pub(super) const LOG_WAY_OUT: &str = "mount and unmount a writable clone of it, which replays the log, and back that up; \
     or freeze the file system with fsfreeze while the snapshot is taken";

fn u16_be(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

fn u32_be(bytes: &[u8], at: usize) -> u32 {
    u32_le(bytes, at).swap_bytes()
}

fn u64_be(bytes: &[u8], at: usize) -> u64 {
    u64_le(bytes, at).swap_bytes()
}

pub(super) fn u32_le(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

pub(super) fn u64_le(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_le(bytes, at + 4)) << 32 | u64::from(u32_le(bytes, at))
}

fn uuid(bytes: &[u8]) -> [u8; 16] {
    let mut uuid = [0; 16];
    uuid.copy_from_slice(&bytes[..16]);
    uuid
}

/// Up to the first NUL.
fn label(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().copied().take_while(|&b| b != 0).collect()
}

/// Looks at `device`.
///
/// # Errors
/// [`VolumeFault::Unrecognised`] when it is none of the table's; `Damaged`, `Refused` and `Device` as in the
/// table.
pub(super) fn probe(device: &mut dyn BlockDevice, recovery: Recovery) -> Result<Probed, VolumeFault> {
    let size = device.geometry().size_bytes;
    let mut head = vec![0; 4096];
    if size < head.len() as u64 {
        return Err(VolumeFault::Unrecognised(None));
    }
    device.read_at(0, &mut head)?;
    if head.starts_with(b"XFSB") {
        return xfs(device, &head, recovery);
    }
    if size >= BTRFS_SUPERBLOCK + BTRFS_SUPERBLOCK_BYTES as u64 {
        let mut raw = vec![0; BTRFS_SUPERBLOCK_BYTES];
        device.read_at(BTRFS_SUPERBLOCK, &mut raw)?;
        if raw[0x40..].starts_with(b"_BHRfS_M") {
            return btrfs(&raw);
        }
    }
    if Ext4::recognises(&head) {
        return ext4(device, &head[EXT4_SUPERBLOCK as usize..]);
    }
    Err(VolumeFault::Unrecognised(None))
}

fn bare_info(uuid: [u8; 16], label: Vec<u8>, features: Vec<String>) -> VolumeInfo {
    VolumeInfo {
        kind: VolumeKind::Mounted,
        uuid,
        label,
        block_bytes: 0,
        size_bytes: 0,
        used_bytes: 0,
        inode_max: u64::MAX >> 1,
        inodes_used: 0,
        root: 0,
        state: None,
        written_secs: 0,
        created: Timestamp::default(),
        features,
    }
}

fn ext4(device: &mut dyn BlockDevice, raw: &[u8]) -> Result<Probed, VolumeFault> {
    let incompat = u32_le(raw, 0x60);
    let refused = |what: &str, way_out| Err(VolumeFault::Refused { what: what.to_owned(), way_out });
    if incompat & EXT4_RECOVER != 0 {
        return refused("ext4 feature needs_recovery: the journal holds changes", LOG_WAY_OUT);
    }
    if incompat & EXT4_JOURNAL_DEV != 0 {
        return refused(
            "ext4 feature journal_dev: an external journal, not a file system",
            "back up the file system that it belongs to",
        );
    }
    let info = match Ext4::open(device) {
        Ok(volume) => VolumeInfo { kind: VolumeKind::Mounted, ..volume.info().clone() },
        // Something that the raw reader does not know: the kernel may.
        Err(VolumeFault::Refused { .. }) => {
            let inline = (incompat & EXT4_INLINE_DATA != 0).then_some("inline_data");
            let features = ["ext4"].into_iter().chain(inline).map(str::to_owned).collect();
            let mut info = bare_info(uuid(&raw[0x68..]), label(&raw[0x78..0x88]), features);
            info.inode_max = u32_le(raw, 0).into();
            info.written_secs = (i64::from(raw[0x274]) << 32) + i64::from(u32_le(raw, 0x30));
            info
        }
        Err(other) => return Err(other),
    };
    // A volume may ask for a panic when something on it is wrong.
    let mut options: Options = vec![("errors", Some("continue"))];
    if u32_le(raw, 0x5C) & EXT4_HAS_JOURNAL != 0 {
        options.push(("noload", None));
    }
    Ok(Probed { family: Family::Ext4, info, options })
}

fn xfs(device: &mut dyn BlockDevice, head: &[u8], recovery: Recovery) -> Result<Probed, VolumeFault> {
    const CHECKSUM_AT: usize = 224;
    let damaged =
        |what: &str| VolumeFault::Damaged { what: format!("XFS superblock: {what}"), device_offset: 0 };
    let version = u16_be(head, 100) & 0xF;
    let sector_bytes = usize::from(u16_be(head, 102));
    if !sector_bytes.is_power_of_two() || !(512..=XFS_SECTOR_BYTES_MAX).contains(&sector_bytes) {
        return Err(damaged("sector size out of range"));
    }
    if version == 5 {
        let mut sector = vec![0; sector_bytes];
        device.read_at(0, &mut sector)?;
        let kept = u32_le(&sector, CHECKSUM_AT);
        sector[CHECKSUM_AT..CHECKSUM_AT + 4].fill(0);
        if crc32c::crc32c(&sector) != kept {
            return Err(damaged("checksum does not match"));
        }
    }
    let mut info =
        bare_info(uuid(&head[32..]), label(&head[108..120]), vec![format!("xfs version {version}")]);
    info.block_bytes = u32_be(head, 4);
    info.inodes_used = u64_be(head, 128).saturating_sub(u64_be(head, 136));
    // A snapshot has the identity of its origin, which may well be mounted.
    let mut options: Options = vec![("nouuid", None)];
    if recovery == Recovery::ProvenClean {
        options.push(("norecovery", None));
    }
    Ok(Probed { family: Family::Xfs, info, options })
}

fn btrfs(raw: &[u8]) -> Result<Probed, VolumeFault> {
    let refused = |what: &str, way_out| Err(VolumeFault::Refused { what: what.to_owned(), way_out });
    let csum_type = u16::from_le_bytes([raw[0xC4], raw[0xC5]]);
    if csum_type == 0 && crc32c::crc32c(&raw[0x20..]) != u32_le(raw, 0) {
        return Err(VolumeFault::Damaged {
            what: "btrfs superblock: checksum does not match".to_owned(),
            device_offset: BTRFS_SUPERBLOCK,
        });
    }
    if u64_le(raw, 0x60) != 0 {
        return refused(
            "btrfs log tree: it holds changes that were synced after the last commit",
            LOG_WAY_OUT,
        );
    }
    if u64_le(raw, 0x88) != 1 {
        return refused("a btrfs over several devices", "back up each device as an image");
    }
    let mut info = bare_info(uuid(&raw[0x20..]), label(&raw[0x12B..0x22B]), vec!["btrfs".to_owned()]);
    info.block_bytes = u32_le(raw, 0x90);
    // Every commit writes the superblock with a new generation; the checksum covers the roots as well.
    let mut state = [0; 16];
    state[..8].copy_from_slice(&raw[0x48..0x50]);
    state[8..].copy_from_slice(&raw[..8]);
    info.state = Some(state);
    // The top-level subvolume, whichever one the volume names as its default.
    Ok(Probed { family: Family::Btrfs, info, options: vec![("subvolid", Some("5"))] })
}
