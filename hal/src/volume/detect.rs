//! What is on a device: opens the reader for it, or names it.
//!
//! Signatures, in the order in which they are tried; the first that holds decides:
//!
//! | byte | bytes | what | answer |
//! |---|---|---|---|
//! | 1080 | 53 EF, and a superblock that is sound | ext2, ext3, ext4 | its reader |
//! | 0 | `XFSB`, and a superblock that is sound | XFS | its reader |
//! | 65600 | `_BHRfS_M` | btrfs | only mounted |
//! | 0 | `LUKS` BA BE | LUKS | refused: unlock it |
//! | 0, 512, 1024, 1536 | `LABELONE` | LVM2 physical volume | refused: back up its logical volumes |
//! | 0, 4096, near the end | FC 4E 2B A9 | md array member | refused: back up the array |
//! | 3 | `NTFS    `, `EXFAT   `, `-FVE-FS-` | NTFS, exFAT, BitLocker | recognised |
//! | page size - 10 | `SWAPSPACE2`, `SWAP-SPACE` | swap | refused: nothing to keep |
//! | 128 KiB + n KiB | 00BAB10C, either endianness | ZFS | recognised |
//! | ... | | the other rows of `SIGNATURES` | recognised |
//! | 512 or 4096; 510 | `EFI PART`; 55 AA with a sound table | partition table | refused: back up the partitions |
//! | backups | 53 EF in a superblock that is sound and where it belongs | ext2, ext3, ext4 | damaged: which backup |
//!
//! A file system that lies beside the start of something else is refused: one of the two is left over from
//! before, and the device does not show which. So a disk with a partition table is no ext4, though the
//! superblock in its first, unused MiB is sound.
//!
//! Invariants: reads at most 1.4 MiB before a reader takes over, whatever is there. A damaged superblock is reported as damaged only
//! when nothing else is recognised, so a stale magic number does not hide what is there now.
//!
//! Does not: look inside containers. Source: libblkid's superblock probes (util-linux), for the places and values.

#[cfg(feature = "ext4")]
use super::ext4::Ext4;
#[cfg(feature = "xfs")]
use super::xfs::Xfs;
use super::{Volume, VolumeFault};
use crate::block::{BlockDevice, Fault, FaultKind, READ_UNIT_BYTES};

/// Bytes read from the start: up to the end of ZFS's first label.
const HEAD_BYTES: usize = 256 << 10;
/// Bytes read from the end: md superblocks of versions 0.90 and 1.0.
const TAIL_BYTES: usize = 128 << 10;

/// A fixed value at a fixed place.
struct Signature {
    at: usize,
    bytes: &'static [u8],
    what: &'static str,
}

const fn signature(at: usize, bytes: &'static [u8], what: &'static str) -> Signature {
    Signature { at, bytes, what }
}

/// File systems and formats that are recognised and have no reader here. Strong ones first.
const SIGNATURES: &[Signature] = &[
    signature(0x1_0040, b"_BHRfS_M", "a btrfs file system"),
    signature(3, b"NTFS    ", "an NTFS file system"),
    signature(3, b"EXFAT   ", "an exFAT file system"),
    signature(3, b"-FVE-FS-", "a BitLocker volume"),
    signature(32, b"NXSB", "an APFS container"),
    signature(0, b"hsqs", "a squashfs image"),
    signature(0, b"dmvdo001", "a VDO volume"),
    signature(0, b"QFI\xfb", "a qcow2 image"),
    signature(0, b"vhdxfile", "a VHDX image"),
    signature(1024, &[0x10, 0x20, 0xF5, 0xF2], "an F2FS file system"),
    signature(1024, &[0xE2, 0xE1, 0xF5, 0xE0], "an EROFS file system"),
    signature(1024, b"H+\0\x04", "an HFS+ file system"),
    signature(1030, &[0x34, 0x34], "a NILFS2 file system"),
    signature(
        4096 + 24,
        &[0xC6, 0x85, 0x73, 0xF6, 0x4E, 0x1A, 0x45, 0xCA, 0x82, 0x65, 0xF5, 0x7F, 0x48, 0xBA, 0x6D, 0x81],
        "a bcache device or a bcachefs file system",
    ),
    signature(
        4096 + 24,
        &[0xC6, 0x85, 0x73, 0xF6, 0x66, 0xCE, 0x90, 0xA9, 0xD9, 0x6A, 0x60, 0xCF, 0x80, 0x3D, 0xF7, 0xEF],
        "a bcachefs file system",
    ),
    signature(32768, b"JFS1", "a JFS file system"),
    signature(32769, b"CD001", "an ISO 9660 image"),
    signature(0x1_0000, &[0x01, 0x16, 0x19, 0x70], "a GFS2 file system"),
    signature(0x1_0034, b"ReIsErFs", "a ReiserFS file system"),
    signature(0x1_0034, b"ReIsEr2Fs", "a ReiserFS file system"),
    signature(0x1_055C, &[0x19, 0x01, 0x54, 0x19], "a UFS2 file system"),
    signature(2048, b"OCFSV2", "an OCFS2 file system"),
    signature(4096, b"OCFSV2", "an OCFS2 file system"),
    signature(82, b"FAT32   ", "a FAT file system"),
    signature(54, b"FAT16   ", "a FAT file system"),
    signature(54, b"FAT12   ", "a FAT file system"),
    #[cfg(not(feature = "ext4"))]
    signature(1080, &[0x53, 0xEF], "an ext2, ext3 or ext4 file system, whose reader this build leaves out"),
    #[cfg(not(feature = "xfs"))]
    signature(0, b"XFSB", "an XFS file system, whose reader this build leaves out"),
];

/// The one of them that [`super::mounted`] reads.
const ONLY_MOUNTED: &str = "a btrfs file system";

/// Bytes from the start in which those lie that a file system cannot lie beside.
const START_BYTES: usize = 8192;
/// Of `SIGNATURES`, those of a boot sector, which an ext4 leaves alone.
const BOOT_SECTORS: [&[u8]; 6] =
    [b"NTFS    ", b"EXFAT   ", b"-FVE-FS-", b"FAT32   ", b"FAT16   ", b"FAT12   "];
const MD_MEMBER: (&str, &str) = ("a member of an md array", "back up the array, or the device as an image");
const MD_MAGIC: [u8; 4] = [0xFC, 0x4E, 0x2B, 0xA9];
const ZFS_MAGIC: [u8; 8] = 0x00BA_B10C_u64.to_le_bytes();

/// Opens what is on `device`.
///
/// # Errors
/// [`VolumeFault::Unrecognised`] when no reader exists for it, with its name when it has one; [`VolumeFault::NoRawReader`] when
/// only the mounted one does; [`VolumeFault::Refused`] for containers, with the way out, and for features that the reader refuses; `Damaged` and `Device` as the reader says.
pub fn open(device: &mut dyn BlockDevice) -> Result<Box<dyn Volume>, VolumeFault> {
    let mut last = VolumeFault::Unrecognised(None);
    let readers: &[(Reader, &str)] = &[
        #[cfg(feature = "ext4")]
        (open_ext4, "an ext2, ext3 or ext4"),
        #[cfg(feature = "xfs")]
        (open_xfs, "an XFS"),
    ];
    for (open, own) in readers {
        match open(device) {
            Err(VolumeFault::Unrecognised(None)) => {}
            Err(fault @ VolumeFault::Damaged { .. }) => last = fault,
            other => return beside(device, own)?.map_or(other, Err),
        }
    }
    if let Some(known) = name(device)? {
        return Err(known);
    }
    // Last of all: a stale backup must not hide what is there now.
    Err(match last {
        #[cfg(feature = "ext4")]
        VolumeFault::Unrecognised(None) => Ext4::lost(device).unwrap_or(last),
        damaged => damaged,
    })
}

/// Opens the file system on `device` if nothing else is recognised there, not even a leftover: for callers
/// that must be sure.
///
/// # Errors
/// Those of [`open`], and what else is there.
pub fn open_alone(device: &mut dyn BlockDevice) -> Result<Box<dyn Volume>, VolumeFault> {
    let volume = open(device)?;
    name(device)?.map_or(Ok(volume), Err)
}

type Reader = fn(&mut dyn BlockDevice) -> Result<Box<dyn Volume>, VolumeFault>;

#[cfg(feature = "ext4")]
fn open_ext4(device: &mut dyn BlockDevice) -> Result<Box<dyn Volume>, VolumeFault> {
    Ok(Box::new(Ext4::open(device)?))
}

#[cfg(feature = "xfs")]
fn open_xfs(device: &mut dyn BlockDevice) -> Result<Box<dyn Volume>, VolumeFault> {
    Ok(Box::new(Xfs::open(device)?))
}

/// Why `device` cannot be mounted: what is on it.
pub(super) fn recognise(device: &mut dyn BlockDevice) -> Result<VolumeFault, Fault> {
    Ok(name(device)?.unwrap_or(VolumeFault::Unrecognised(None)))
}

/// Something else that begins where a file system of the kind `own` was found. A sector that cannot be read names nothing: the file system
/// was recognised without it.
fn beside(device: &mut dyn BlockDevice, own: &str) -> Result<Option<VolumeFault>, Fault> {
    let size = usize::try_from(device.geometry().size_bytes).unwrap_or(START_BYTES);
    let mut start = vec![0; START_BYTES.min(size)];
    if let Err(whole) = device.read_at(0, &mut start) {
        if whole.kind != FaultKind::Media {
            return Err(whole);
        }
        for (at, sector) in
            (0u64..).step_by(READ_UNIT_BYTES as usize).zip(start.chunks_mut(READ_UNIT_BYTES as usize))
        {
            if device.read_at(at, sector).is_err() {
                sector.fill(0);
            }
        }
    }
    let boot = || {
        SIGNATURES.iter().filter(|s| BOOT_SECTORS.contains(&s.bytes)).find(|s| is_at(&start, s.at, s.bytes))
    };
    let other = stack(&start).map(|(what, _)| what).or_else(|| table(&start)).or_else(|| Some(boot()?.what));
    Ok(other.and_then(|other| {
        refused(
            &format!("{other} and {own} file system at one place, one of them left over from before"),
            "remove the one that is left over (`wipefs`), or back up the device as an image",
        )
    }))
}

/// Names what is on `device` when no reader opened it; `None` when nothing is recognised.
fn name(device: &mut dyn BlockDevice) -> Result<Option<VolumeFault>, Fault> {
    let size = device.geometry().size_bytes;
    let mut head = vec![0; HEAD_BYTES.min(usize::try_from(size).unwrap_or(HEAD_BYTES))];
    device.read_at(0, &mut head)?;
    let mut tail = vec![0; TAIL_BYTES.min(head.len())];
    let tail_at = size - tail.len() as u64;
    device.read_at(tail_at, &mut tail)?;
    Ok(container(&head, &tail, tail_at).or_else(|| file_system(&head)).or_else(|| partitions(&head)))
}

fn refused(what: &str, way_out: &'static str) -> Option<VolumeFault> {
    Some(VolumeFault::Refused { what: what.to_owned(), way_out })
}

fn is_at(bytes: &[u8], at: usize, wanted: &[u8]) -> bool {
    bytes.get(at..).is_some_and(|rest| rest.starts_with(wanted))
}

/// What holds volumes and begins at the start.
fn stack(head: &[u8]) -> Option<(&'static str, &'static str)> {
    if is_at(head, 0, b"LUKS\xba\xbe") {
        return Some((
            "a LUKS container",
            "unlock it and back up the device inside, or back it up as an image",
        ));
    }
    let lvm = |sector: usize| is_at(head, sector, b"LABELONE") && is_at(head, sector + 24, b"LVM2 001");
    if [0, 512, 1024, 1536].into_iter().any(lvm) {
        return Some(("an LVM2 physical volume", "back up its logical volumes, or the device as an image"));
    }
    (is_at(head, 0, &MD_MAGIC) || is_at(head, 4096, &MD_MAGIC)).then_some(MD_MEMBER)
}

/// Things that hold volumes, or nothing worth keeping.
fn container(head: &[u8], tail: &[u8], tail_at: u64) -> Option<VolumeFault> {
    if let Some((what, way_out)) = stack(head) {
        return refused(what, way_out);
    }
    // Version 1.0 lies 8 to 12 KiB before the end, 0.90 in the last whole 64 KiB block but one; both aligned to 4 KiB.
    let first = (tail_at.next_multiple_of(4096) - tail_at) as usize;
    let md_end = (first..tail.len()).step_by(4096).any(|at| is_at(tail, at, &MD_MAGIC));
    if md_end {
        return refused(MD_MEMBER.0, MD_MEMBER.1);
    }
    let swap = |page: usize| is_at(head, page - 10, b"SWAPSPACE2") || is_at(head, page - 10, b"SWAP-SPACE");
    if [4096, 8192, 16384, 65536].into_iter().any(swap) {
        return refused("a swap area", "there is nothing in it to keep; leave it out");
    }
    None
}

fn file_system(head: &[u8]) -> Option<VolumeFault> {
    let known = SIGNATURES.iter().find(|s| is_at(head, s.at, s.bytes)).map(|s| s.what);
    let zfs = || {
        let mut uberblocks = (128 << 10..256 << 10).step_by(1024);
        let mut swapped = ZFS_MAGIC;
        swapped.reverse();
        uberblocks
            .any(|at| is_at(head, at, &ZFS_MAGIC) || is_at(head, at, &swapped))
            .then_some("a member of a ZFS pool")
    };
    known.or_else(zfs).map(|what| match what == ONLY_MOUNTED {
        true => VolumeFault::NoRawReader(what),
        false => VolumeFault::Unrecognised(Some(what)),
    })
}

fn partitions(head: &[u8]) -> Option<VolumeFault> {
    table(head).and_then(|what| refused(what, "back up its partitions, or the device as an image"))
}

/// A partition table.
fn table(head: &[u8]) -> Option<&'static str> {
    if is_at(head, 512, b"EFI PART") || is_at(head, 4096, b"EFI PART") {
        return Some("a disk with a GPT partition table");
    }
    let table = head.get(446..512).filter(|table| table.ends_with(&[0x55, 0xAA]))?;
    let sound = table[..64].chunks_exact(16).all(|entry| entry[0] & 0x7F == 0);
    let any = table[..64].chunks_exact(16).any(|entry| entry[4] != 0);
    (sound && any).then_some("a disk with an MBR partition table")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(at: usize, bytes: &[u8]) -> String {
        let mut head = vec![0; HEAD_BYTES];
        head[at..at + bytes.len()].copy_from_slice(bytes);
        let tail = vec![0; TAIL_BYTES];
        container(&head, &tail, 0)
            .or_else(|| file_system(&head))
            .or_else(|| partitions(&head))
            .map_or(String::new(), |fault| fault.to_string())
    }

    #[test]
    fn names_what_it_sees() {
        assert!(named(0x10040, b"_BHRfS_M").contains("btrfs"));
        assert!(named(0x10040, b"_BHRfS_M").contains("choose the reader mounted"));
        assert!(named(0, b"LUKS\xba\xbe").contains("unlock"));
        assert!(named(512, b"LABELONE\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0LVM2 001").contains("logical volumes"));
        assert!(named(4086, b"SWAPSPACE2").contains("swap"));
        assert!(named(3, b"NTFS    ").contains("NTFS"));
        assert!(named(140 << 10, &ZFS_MAGIC).contains("ZFS"));
        assert!(named(4096, &MD_MAGIC).contains("md array"));
        assert!(named(512, b"EFI PART").contains("GPT"));
        let mut mbr = [0; 66];
        mbr[4] = 0x83;
        mbr[64..].copy_from_slice(&[0x55, 0xAA]);
        assert!(named(446, &mbr).contains("MBR"));
        assert_eq!(named(100, b"nothing"), "");
    }

    #[test]
    fn short_devices_are_no_panic() {
        for len in [0, 1, 511, 1024, 4096] {
            let head = vec![0xFF; len];
            assert!(container(&head, &head, 512).is_none());
            assert!(file_system(&head).is_none());
            assert!(partitions(&head).is_none());
        }
    }
}
