//! The inode: attributes, and where its two forks are. The data fork leads to the contents, the attribute fork to extended
//! attributes.
//!
//! ```text
//!  offset size field                         offset size field
//!  0      2    magic "IN"                    76     4    nextents          nrext64: anextents
//!  2      2    mode                          80     2    anextents         nrext64: 0
//!  4      1    version, 3                    82     1    forkoff: attribute fork, in 8 bytes from 176
//!  5      1    format of the data fork       83     1    aformat
//!  6      2    0                             90     2    flags
//!  8      4    uid                           92     4    generation
//!  12     4    gid                           96     4    next unlinked
//!  16     4    nlink                         100    4    crc
//!  20     2    projid (low)                  104    8    changecount
//!  22     2    projid (high)                 112    8    lsn
//!  24     8    nrext64: nextents             120    8    flags2
//!  32     8    atime                         128    4    cowextsize
//!  40     8    mtime                         144    8    crtime
//!  48     8    ctime                         152    8    inode number
//!  56     8    size                          160    16   uuid
//!  64     8    nblocks                       176         data fork, then attribute fork
//!  72     4    extsize
//!
//!  format: 0 device number, 1 local, 2 extents, 3 btree
//!  time: 4 bytes seconds (signed), 4 nanoseconds; bigtime: nanoseconds since 1901-12-13 20:45:52 UTC
//! ```
//!
//! Does not: follow anything. Source: kernel `fs/xfs/libxfs/xfs_format.h`, `xfs_dinode_verify`, `xfs_inode_from_disk`.

use super::checksum;
use super::field::{array_at, slice_at, u8_at, u16_at, u32_at, u64_at};
use super::superblock::Superblock;
use crate::volume::{Hints, ItemKind, Timestamp};

const MAGIC: &[u8; 2] = b"IN";
const VERSION: u8 = 3;
/// Bytes of an inode before its forks.
pub(super) const CORE_BYTES: usize = 176;
const CHECKSUM_AT: usize = 100;
/// Bytes of an extent record.
const EXTENT_BYTES: u64 = 16;
const SECOND_NANOS: u64 = 1_000_000_000;
/// Seconds from the start of bigtime to 1970.
const TIME_EPOCH_SECS: i64 = 1 << 31;

/// `di_flags` bits.
mod flag {
    pub(super) const REALTIME: u16 = 1;
}

/// `di_flags2` bits.
pub(super) mod flag2 {
    pub(in super::super) const BIGTIME: u64 = 8;
    pub(in super::super) const NREXT64: u64 = 0x10;
}

/// `di_flags` bits and what `FS_IOC_GETFLAGS` shows for them: immutable, append, sync, noatime, nodump, projinherit.
const FLAGS_SHOWN: [(u16, u32); 6] =
    [(0x8, 0x10), (0x10, 0x20), (0x20, 0x8), (0x40, 0x80), (0x80, 0x40), (0x200, 0x2000_0000)];
/// The same of `di_flags2`: dax.
const FLAGS2_SHOWN: [(u64, u32); 1] = [(0x1, 0x0200_0000)];

/// `di_flags` bits that are hints: rtinherit, nosymlinks, extsize, extszinherit, nodefrag, filestream. `FS_IOC_FSGETXATTR` shows them
/// as the same bits.
const FLAGS_HINTS: u16 = 0x7D00;
/// The same of `di_flags2`, and what is shown for them: cowextsize.
const FLAGS2_HINTS: [(u64, u32); 1] = [(0x4, Hints::COW_EXTENT_SIZE)];

/// How a fork holds what it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// A device number, or nothing.
    Device,
    /// The bytes themselves.
    Local,
    /// Extent records.
    Extents,
    /// The root of a tree of them.
    Btree,
}

/// One of the two forks of an inode.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fork {
    pub(super) format: Format,
    /// Extent records that it has, however they are kept.
    pub(super) extents: u64,
    /// Place in the inode.
    pub(super) at: usize,
    pub(super) len: usize,
}

impl Fork {
    /// The fork's bytes in the inode `raw`.
    pub(super) fn bytes<'a>(&self, raw: &'a [u8]) -> &'a [u8] {
        slice_at(raw, self.at, self.len).unwrap_or_default()
    }
}

/// An inode, decoded.
#[derive(Clone, Debug)]
pub(super) struct Inode {
    pub(super) number: u64,
    /// `None`: the mode has no known type.
    pub(super) kind: Option<ItemKind>,
    pub(super) mode: u16,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) links: u32,
    pub(super) size: u64,
    pub(super) generation: u32,
    pub(super) project: u32,
    pub(super) hints: Hints,
    pub(super) flags_shown: u32,
    pub(super) atime: Timestamp,
    pub(super) mtime: Timestamp,
    pub(super) ctime: Timestamp,
    pub(super) btime: Timestamp,
    pub(super) rdev: (u32, u32),
    pub(super) is_realtime: bool,
    pub(super) data: Fork,
    /// The attribute fork, when there is one.
    pub(super) attributes: Option<Fork>,
    /// The first rule that the inode breaks; the kernel would refuse it whole.
    pub(super) rule: Option<&'static str>,
}

/// Mode alone: 0 in a free inode.
pub(super) fn mode_of(raw: &[u8]) -> u16 {
    u16_at(raw, 2)
}

/// Link count alone: 0 in an inode that exists only while a process has it open.
pub(super) fn links_of(raw: &[u8]) -> u32 {
    u32_at(raw, 16)
}

/// Checks that `raw` is the inode `number` of this volume, as it was written.
pub(super) fn verify(sb: &Superblock, number: u64, raw: &[u8]) -> Result<(), &'static str> {
    if !raw.starts_with(MAGIC) || u8_at(raw, 4) != VERSION {
        return Err("inode has no magic number");
    }
    if !checksum::holds(raw, CHECKSUM_AT) {
        return Err("inode checksum does not match");
    }
    match u64_at(raw, 152) == number && array_at(raw, 160) == Some(sb.meta_uuid) {
        true => Ok(()),
        false => Err("inode belongs elsewhere"),
    }
}

/// A time of the bigtime feature.
pub(super) fn big_time(nanos: u64) -> Timestamp {
    // At most 2^64 / 10^9 seconds, so nothing wraps.
    Timestamp { secs: (nanos / SECOND_NANOS) as i64 - TIME_EPOCH_SECS, nanos: (nanos % SECOND_NANOS) as u32 }
}

fn kind_of(mode: u16) -> Option<ItemKind> {
    Some(match mode & 0xF000 {
        0x1000 => ItemKind::Fifo,
        0x2000 => ItemKind::CharDevice,
        0x4000 => ItemKind::Directory,
        0x6000 => ItemKind::BlockDevice,
        0x8000 => ItemKind::File,
        0xA000 => ItemKind::Symlink,
        0xC000 => ItemKind::Socket,
        _ => return None,
    })
}

fn format_of(byte: u8) -> Option<Format> {
    Some(match byte {
        0 => Format::Device,
        1 => Format::Local,
        2 => Format::Extents,
        3 => Format::Btree,
        _ => return None,
    })
}

/// Numbers of extent records of the data and the attribute fork.
fn extent_counts(raw: &[u8]) -> (u64, u64) {
    match u64_at(raw, 120) & flag2::NREXT64 {
        0 => (u64::from(u32_at(raw, 76)), u64::from(u16_at(raw, 80))),
        _ => (u64_at(raw, 24), u64::from(u32_at(raw, 76))),
    }
}

/// The forks of an inode, unchecked: used for reading ahead only.
pub(super) fn forks(raw: &[u8]) -> (Option<Fork>, Option<Fork>) {
    let (data_extents, attribute_extents) = extent_counts(raw);
    let room = raw.len().saturating_sub(CORE_BYTES);
    let split = usize::from(u8_at(raw, 82)) * 8;
    let data_len = if split == 0 { room } else { split.min(room) };
    let fork =
        |format: u8, extents, at, len| format_of(format).map(|format| Fork { format, extents, at, len });
    let data = fork(u8_at(raw, 5), data_extents, CORE_BYTES, data_len);
    let attributes = fork(u8_at(raw, 83), attribute_extents, CORE_BYTES + data_len, room - data_len);
    (data, attributes.filter(|_| split != 0))
}

/// Decodes an inode of `sb.inode_bytes()` bytes. Never fails; see [`Inode::rule`].
pub(super) fn parse(sb: &Superblock, number: u64, raw: &[u8]) -> Inode {
    let mode = mode_of(raw);
    let kind = kind_of(mode);
    let flags = u16_at(raw, 90);
    let flags2 = u64_at(raw, 120);
    let mut nanos_bad = false;
    let mut time = |at: usize| {
        if flags2 & flag2::BIGTIME != 0 {
            return big_time(u64_at(raw, at));
        }
        let nanos = u32_at(raw, at + 4);
        nanos_bad |= u64::from(nanos) >= SECOND_NANOS;
        Timestamp { secs: i64::from(u32_at(raw, at) as i32), nanos: nanos.min(SECOND_NANOS as u32 - 1) }
    };
    let (atime, mtime, ctime, btime) = (time(32), time(40), time(48), time(144));
    let shown = FLAGS_SHOWN.iter().filter(|(bit, _)| flags & bit != 0).map(|&(_, shown)| shown);
    let shown2 = FLAGS2_SHOWN.iter().filter(|(bit, _)| flags2 & bit != 0).map(|&(_, shown)| shown);
    let hints2 = FLAGS2_HINTS.iter().filter(|(bit, _)| flags2 & bit != 0).map(|&(_, shown)| shown);
    let in_bytes = |blocks: u32| u64::from(blocks) << sb.block_bits;
    let hints = Hints::of(
        u32::from(flags & FLAGS_HINTS) | hints2.sum::<u32>(),
        in_bytes(u32_at(raw, 72)),
        in_bytes(u32_at(raw, 128)),
    );
    let (data, attributes) = forks(raw);
    let rdev = match kind {
        Some(ItemKind::CharDevice | ItemKind::BlockDevice) => {
            let device = u32_at(raw, CORE_BYTES);
            // Linux keeps nine bits of the major number.
            (device >> 18 & 0x1FF, device & 0x3_FFFF)
        }
        _ => (0, 0),
    };
    let rule = broken_rule(sb, raw, kind, data, attributes);
    let rule = rule.or(nanos_bad.then_some("inode time has more than a second of nanoseconds"));
    let none = Fork { format: Format::Device, extents: 0, at: CORE_BYTES, len: 0 };
    Inode {
        number,
        kind,
        mode: mode & 0o7777,
        uid: u32_at(raw, 8),
        gid: u32_at(raw, 12),
        links: links_of(raw),
        size: u64_at(raw, 56) & (u64::MAX >> 1),
        generation: u32_at(raw, 92),
        project: u32::from(u16_at(raw, 22)) << 16 | u32::from(u16_at(raw, 20)),
        hints,
        flags_shown: shown.chain(shown2).sum(),
        atime,
        mtime,
        ctime,
        btime,
        rdev,
        is_realtime: flags & flag::REALTIME != 0,
        data: data.unwrap_or(none),
        attributes,
        rule,
    }
}

/// The first rule that the inode breaks.
fn broken_rule(
    sb: &Superblock,
    raw: &[u8],
    kind: Option<ItemKind>,
    data: Option<Fork>,
    attributes: Option<Fork>,
) -> Option<&'static str> {
    let Some(kind) = kind else { return Some("inode mode has no known file type") };
    let (size, blocks, flags2) = (u64_at(raw, 56), u64_at(raw, 64), u64_at(raw, 120));
    if size >> 63 != 0 {
        return Some("inode size out of range");
    }
    if flags2 & flag2::BIGTIME != 0 && !sb.has_bigtime()
        || flags2 & flag2::NREXT64 != 0 && !sb.has_large_counters()
    {
        return Some("inode uses a feature that the volume does not have");
    }
    if CORE_BYTES + usize::from(u8_at(raw, 82)) * 8 > sb.inode_bytes() {
        return Some("inode attribute fork outside the inode");
    }
    let (data_extents, attribute_extents) = extent_counts(raw);
    if data_extents.saturating_add(attribute_extents) > blocks {
        return Some("inode has more extents than blocks");
    }
    let Some(data) = data else { return Some("inode data fork of an unknown format") };
    let fits = |fork: &Fork| match fork.format {
        Format::Device => true,
        Format::Local => fork.extents == 0,
        Format::Extents => fork.extents <= fork.len as u64 / EXTENT_BYTES,
        Format::Btree => fork.extents > fork.len as u64 / EXTENT_BYTES,
    };
    let known = match kind {
        ItemKind::File => matches!(data.format, Format::Extents | Format::Btree),
        ItemKind::Directory | ItemKind::Symlink => {
            if size == 0 {
                return Some("directory or symlink of no size");
            }
            data.format != Format::Device && (data.format != Format::Local || size <= data.len as u64)
        }
        _ => data.format == Format::Device,
    };
    if !known || !fits(&data) {
        return Some("inode data fork does not fit its type");
    }
    let sound = match attributes {
        Some(fork) => fork.format != Format::Device && fits(&fork),
        // A new inode has format 0 there, one that had attributes format 2.
        None => matches!(u8_at(raw, 83), 0 | 2) && attribute_extents == 0,
    };
    if !sound {
        return Some("inode attribute fork makes no sense");
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn big_times_start_in_1901() {
        assert_eq!(big_time(0), Timestamp { secs: -(1 << 31), nanos: 0 });
        assert_eq!(big_time((1 << 31) * SECOND_NANOS + 5), Timestamp { secs: 0, nanos: 5 });
        assert_eq!(big_time(u64::MAX), Timestamp { secs: 16_299_260_425, nanos: 709_551_615 });
    }
}
