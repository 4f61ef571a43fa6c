//! The inode: attributes, and the 60 bytes that lead to the contents.
//!
//! ```text
//!  offset size field                        offset size field (inodes above 128 bytes)
//!  0x00   2    mode                         0x80   2    extra_isize
//!  0x02   2    uid (low)                    0x82   2    checksum (high)
//!  0x04   4    size (low)                   0x84   4    ctime_extra: 2 bits era, 30 bits nanoseconds
//!  0x08   4    atime                        0x88   4    mtime_extra
//!  0x0C   4    ctime                        0x8C   4    atime_extra
//!  0x10   4    mtime                        0x90   4    crtime
//!  0x14   4    dtime                        0x94   4    crtime_extra
//!  0x18   2    gid (low)                    0x9C   4    projid
//!  0x1A   2    links_count
//!  0x1C   4    blocks (low)                 A field counts only below 0x80 + extra_isize. Behind that,
//!  0x20   4    flags                        attributes in the inode (see xattr.rs).
//!  0x28   60   block: extent root, block map, symlink target, device number, or inline data
//!  0x64   4    generation
//!  0x68   4    file_acl (low)
//!  0x6C   4    size (high)
//!  0x74   2    blocks (high)
//!  0x76   2    file_acl (high)
//!  0x78   4    uid (high), gid (high)
//!  0x7C   2    checksum (low)
//! ```
//!
//! Does not: follow anything. Source: kernel Documentation/filesystems/ext4/inodes.rst, `ext4_iget`,
//! `ext4_decode_extra_time`.

use super::checksum::{crc32c, crc32c_without};
use super::field::{array_at, u16_at, u32_at, wide};
use super::superblock::{Superblock, inode_seed};
use crate::volume::{FLAGS_SHOWN, ItemKind, Timestamp};

/// `i_flags` bits that say how the contents are laid out.
pub(super) mod flag {
    pub(in super::super) const ENCRYPT: u32 = 0x800;
    pub(in super::super) const INDEX: u32 = 0x1000;
    pub(in super::super) const EXTENTS: u32 = 0x8_0000;
    pub(in super::super) const VERITY: u32 = 0x10_0000;
    pub(in super::super) const EA_INODE: u32 = 0x20_0000;
    pub(in super::super) const INLINE_DATA: u32 = 0x1000_0000;
}

/// Bytes of the `block` field.
pub(super) const BLOCK_FIELD_BYTES: usize = 60;
/// Bytes of an inode before the extra fields.
pub(super) const GOOD_OLD_BYTES: usize = 128;
/// Bytes of the extra fields that the kernel knows.
const EXTRA_BYTES_KNOWN: usize = 32;

/// An inode, decoded. The rule that it breaks, if any, is in `rule`.
#[derive(Clone, Debug)]
pub(super) struct Inode {
    pub(super) number: u32,
    /// `None`: the mode has no known type.
    pub(super) kind: Option<ItemKind>,
    pub(super) mode: u16,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) links: u32,
    pub(super) size: u64,
    pub(super) flags: u32,
    pub(super) generation: u32,
    pub(super) project: u32,
    pub(super) atime: Timestamp,
    pub(super) mtime: Timestamp,
    pub(super) ctime: Timestamp,
    pub(super) btime: Option<Timestamp>,
    /// Seconds field of atime as stored: the value checksum of an attribute inode.
    pub(super) atime_raw: u32,
    /// Seconds field of mtime as stored: the owner, in attribute inodes made by old Lustre.
    pub(super) mtime_raw: u32,
    /// Attribute block, 0 = none.
    pub(super) file_acl: u64,
    /// Space that the inode takes, in units of 512 bytes (or blocks, huge_file).
    pub(super) blocks: u64,
    pub(super) block: [u8; BLOCK_FIELD_BYTES],
    /// Start of the attributes in the inode, when there is room for any.
    pub(super) attributes_at: Option<usize>,
    /// Start value of the checksums of all that belongs to the inode.
    pub(super) seed: u32,
    /// The first rule that the inode itself breaks.
    pub(super) rule: Option<&'static str>,
}

/// Whether the checksum of the inode's bytes holds; true when the volume has none.
pub(super) fn checksum_holds(sb: &Superblock, number: u32, raw: &[u8]) -> bool {
    if !sb.has_metadata_csum() {
        return true;
    }
    let Some((old, extra)) = raw.split_at_checked(GOOD_OLD_BYTES) else { return false };
    let seed = inode_seed(sb.seed, number, u32_at(old, 0x64));
    let low = u16_at(old, 0x7C);
    let crc = crc32c_without(seed, old, 0x7C, 2);
    if extra.is_empty() {
        return low == crc as u16;
    }
    // The high half is stored only when the extra fields reach behind it (they do in every inode that Linux writes).
    if u16_at(extra, 0) >= 4 {
        let crc = crc32c_without(crc, extra, 2, 2);
        u32::from(u16_at(extra, 2)) << 16 | u32::from(low) == crc
    } else {
        low == crc32c(crc, extra) as u16
    }
}

/// Link count alone: distinguishes a live inode from a free one or an orphan.
pub(super) fn links_of(raw: &[u8]) -> u32 {
    u32::from(u16_at(raw, 0x1A))
}

/// Mode alone, type bits and all.
pub(super) fn mode_of(raw: &[u8]) -> u16 {
    u16_at(raw, 0)
}

/// Flags alone.
pub(super) fn flags_of(raw: &[u8]) -> u32 {
    u32_at(raw, 0x20)
}

/// A time with its extra field: signed seconds moved up by 0..=3 eras of 2^32, and nanoseconds. Also whether those were in range.
fn era_time(secs: u32, extra: u32) -> (Timestamp, bool) {
    let nanos = extra >> 2;
    let secs = i64::from(secs as i32) + (i64::from(extra & 3) << 32);
    (Timestamp { secs, nanos: nanos.min(999_999_999) }, nanos < 1_000_000_000)
}

/// Decodes an inode of `sb.inode_bytes` bytes. Never fails; see [`Inode::rule`].
pub(super) fn parse(sb: &Superblock, number: u32, raw: &[u8]) -> Inode {
    let mode = u16_at(raw, 0);
    let kind = match mode & 0xF000 {
        0x1000 => Some(ItemKind::Fifo),
        0x2000 => Some(ItemKind::CharDevice),
        0x4000 => Some(ItemKind::Directory),
        0x6000 => Some(ItemKind::BlockDevice),
        0x8000 => Some(ItemKind::File),
        0xA000 => Some(ItemKind::Symlink),
        0xC000 => Some(ItemKind::Socket),
        _ => None,
    };
    let mut rule = if kind.is_none() { Some("inode mode has no known file type") } else { None };
    let mut break_rule = |text| rule = rule.or(Some(text));

    let mut extra_bytes = 0;
    let mut rule_free = true;
    if sb.inode_bytes > GOOD_OLD_BYTES {
        extra_bytes = usize::from(u16_at(raw, 0x80));
        if extra_bytes % 4 != 0 || GOOD_OLD_BYTES + extra_bytes > sb.inode_bytes {
            break_rule("inode extra size does not fit the inode");
            extra_bytes = 0;
            rule_free = false;
        }
    }
    // 0 in a large inode: made before the fields existed; the kernel then takes all that it knows as there.
    let known_bytes = match extra_bytes {
        0 if rule_free && sb.inode_bytes >= GOOD_OLD_BYTES + EXTRA_BYTES_KNOWN => EXTRA_BYTES_KNOWN,
        bytes => bytes,
    };
    let fits = |at: usize| at + 4 <= GOOD_OLD_BYTES + known_bytes;
    let mut nanos_bad = false;
    let mut time = |at: usize, extra_at: usize| {
        let secs = i64::from(u32_at(raw, at) as i32);
        if !fits(extra_at) {
            return Timestamp { secs, nanos: 0 };
        }
        let (time, good) = era_time(u32_at(raw, at), u32_at(raw, extra_at));
        nanos_bad |= !good;
        time
    };
    let atime = time(0x08, 0x8C);
    let ctime = time(0x0C, 0x84);
    let mtime = time(0x10, 0x88);
    let btime = if fits(0x90) { Some(time(0x90, 0x94)) } else { None };
    if nanos_bad {
        break_rule("inode time has more than a second of nanoseconds");
    }
    let high_size = kind == Some(ItemKind::File) || (kind == Some(ItemKind::Directory) && sb.has_large_dir());
    let mut size = wide(if high_size { u32_at(raw, 0x6C) } else { 0 }, u32_at(raw, 0x4));
    if size > 1u64 << (32 + sb.block_bits) {
        break_rule("inode size above what its map can hold");
        size = 0;
    }
    let generation = u32_at(raw, 0x64);
    let acl_high = if sb.has_64bit() { u32::from(u16_at(raw, 0x76)) } else { 0 };
    let attributes_at = GOOD_OLD_BYTES + extra_bytes;
    Inode {
        number,
        kind,
        mode: mode & 0o7777,
        uid: u32::from(u16_at(raw, 0x78)) << 16 | u32::from(u16_at(raw, 0x02)),
        gid: u32::from(u16_at(raw, 0x7A)) << 16 | u32::from(u16_at(raw, 0x18)),
        links: links_of(raw),
        size,
        flags: flags_of(raw),
        generation,
        project: if sb.has_project() && fits(0x9C) { u32_at(raw, 0x9C) } else { 0 },
        atime,
        mtime,
        ctime,
        btime,
        atime_raw: u32_at(raw, 0x08),
        mtime_raw: u32_at(raw, 0x10),
        file_acl: wide(acl_high, u32_at(raw, 0x68)),
        blocks: wide(u32::from(u16_at(raw, 0x74)), u32_at(raw, 0x1C)),
        block: array_at(raw, 0x28).unwrap_or([0; BLOCK_FIELD_BYTES]),
        // extra_isize 0 in a large inode: made before the fields existed, and the kernel looks for no attributes there.
        attributes_at: (extra_bytes != 0 && attributes_at + 8 <= sb.inode_bytes).then_some(attributes_at),
        seed: inode_seed(sb.seed, number, generation),
        rule,
    }
}

impl Inode {
    pub(super) fn has(&self, flag: u32) -> bool {
        self.flags & flag != 0
    }

    /// The flags that belong to the file, as `FS_IOC_GETFLAGS` numbers them.
    pub(super) fn flags_shown(&self) -> u32 {
        self.flags & FLAGS_SHOWN
    }

    /// Whether the target of a symlink stands in the `block` field: for the kernel, when it takes no space but for its attribute
    /// block's. A short target may well stand in a block.
    pub(super) fn is_fast_symlink(&self, sb: &Superblock) -> bool {
        let attributes =
            if self.file_acl == 0 { 0 } else { (sb.block_bytes() as u64) << sb.cluster_bits >> 9 };
        self.kind == Some(ItemKind::Symlink) && self.blocks == attributes
    }

    /// Device number of a special file as (major, minor).
    pub(super) fn rdev(&self) -> (u32, u32) {
        if !matches!(self.kind, Some(ItemKind::CharDevice | ItemKind::BlockDevice)) {
            return (0, 0);
        }
        match u32_at(&self.block, 0) {
            0 => {
                let new = u32_at(&self.block, 4);
                ((new & 0xF_FF00) >> 8, (new & 0xFF) | (new >> 12 & 0xF_FF00))
            }
            old => (old >> 8 & 0xFF, old & 0xFF),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_reach_from_1901_to_2446() {
        // The table of Documentation/filesystems/ext4/inodes.rst: era bits, signed seconds, seconds since 1970.
        for (era, secs, wanted) in [
            (0, 0x8000_0000u32, -0x8000_0000i64),
            (0, 0xFFFF_FFFF, -1),
            (0, 0, 0),
            (0, 0x7FFF_FFFF, 0x7FFF_FFFF),
            (1, 0x8000_0000, 0x8000_0000),
            (1, 0, 0x1_0000_0000),
            (3, 0x7FFF_FFFF, 0x3_7FFF_FFFF),
        ] {
            let (time, good) = era_time(secs, era | 999_999_999 << 2);
            assert_eq!((time.secs, time.nanos, good), (wanted, 999_999_999, true));
        }
        assert_eq!(era_time(0, 1_000_000_000 << 2), (Timestamp { secs: 0, nanos: 999_999_999 }, false));
    }
}
