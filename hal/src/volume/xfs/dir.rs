//! Directories: entries in the inode, or in directory blocks of one or more blocks below byte 2^35 of the data fork. Behind that
//! lie hash and free-space indexes, which serve look-ups and are not read.
//!
//! ```text
//!  in the inode (short form)                 directory block
//!  0  1  entries                             0   4  magic "XDB3" (the only block) or "XDD3"
//!  1  1  entries with 8-byte inode numbers   4   4  crc
//!  2  4  parent, or 8 bytes when any has 8   8   8  address in basic blocks
//!  entry:                                    16  8  lsn
//!  0  1  length of the name                  24  16 uuid
//!  1  2  offset it would have in a block     40  8  inode
//!  3  n  name                                48  12 free stretches
//!     1  type (ftype)                        64     entries
//!     4/8 inode
//!                                            "XDB3" ends with an index: 8 bytes per entry, then 4 entries, 4 stale
//!  entry of a block, multiple of 8           unused stretch
//!  0  8  inode                               0  2  FFFF
//!  8  1  length of the name                  2  2  length
//!  9  n  name                                ...
//!     1  type (ftype)                        last 2 bytes: offset of the stretch
//!  last 2 bytes: offset of the entry
//! ```
//!
//! Invariants: a name delivered has 1..=255 bytes without '/' and NUL, is neither "." nor "..", and its inode number may be
//! an item's. The entries before a broken one are delivered; the rest of its block is not.
//!
//! Does not: look at the inodes that the entries name (`item` does), nor use the type byte. Source: kernel `fs/xfs/libxfs/xfs_da_format.h`,
//! `xfs_dir2_sf_verify`, `__xfs_dir3_data_check`.

use super::checksum;
use super::field::{array_at, slice_at, u8_at, u16_at, u32_at, u64_at};
use super::superblock::Superblock;
use crate::volume::{Name, Window};

/// Byte of the data fork at which the entries end and the indexes start.
pub(super) const DATA_END: u64 = 1 << 35;
/// Smallest entry of a block in bytes, for estimates.
pub(super) const ENTRY_BYTES_MIN: usize = 16;

const ONLY_MAGIC: &[u8; 4] = b"XDB3";
const DATA_MAGIC: &[u8; 4] = b"XDD3";
const HEAD_BYTES: usize = 64;
const ALIGN: usize = 8;
const UNUSED: u16 = 0xFFFF;
/// Bytes of an entry besides its name and type: inode, length, offset.
const FIXED_BYTES: usize = 8 + 1 + 2;
/// Type bytes that exist.
const TYPES: u8 = 9;

/// Puts the entries of a directory in its inode into `window`. Returns the parent (0 if it is not valid) and
/// the first rule that was broken.
pub(super) fn short(sb: &Superblock, bytes: &[u8], window: &mut Window) -> (u64, Option<&'static str>) {
    let (count, long) = (u8_at(bytes, 0), u8_at(bytes, 1));
    let number_bytes = if long == 0 { 4 } else { 8 };
    let number = |at: usize| match number_bytes {
        4 => u64::from(u32_at(bytes, at)),
        _ => u64_at(bytes, at),
    };
    let parent = number(2);
    let mut rule =
        (!sb.is_item(parent)).then_some("directory's .. names an inode that cannot be a directory");
    let mut at = 2 + number_bytes;
    let mut long_seen = u32::from(parent > u64::from(u32::MAX));
    for _ in 0..count {
        let len = usize::from(u8_at(bytes, at));
        let type_at = at + 3 + len;
        let number_at = type_at + usize::from(sb.has_ftype());
        let end = number_at + number_bytes;
        if len == 0 || end > bytes.len() {
            return (parent, rule.or(Some("directory entry outside the inode")));
        }
        if sb.has_ftype() && u8_at(bytes, type_at) >= TYPES {
            rule = rule.or(Some("directory entry of an unknown type"));
        }
        let inode = number(number_at);
        long_seen += u32::from(inode > u64::from(u32::MAX));
        let name = slice_at(bytes, at + 3, len).unwrap_or_default();
        rule = rule.or(put(sb, name, inode, window));
        at = end;
    }
    if at != bytes.len() {
        rule = rule.or(Some("directory in its inode has another size than its entries"));
    }
    if long_seen != u32::from(long) {
        rule = rule.or(Some("directory in its inode counts its inode numbers wrong"));
    }
    (if rule.is_some() && !sb.is_item(parent) { 0 } else { parent }, rule)
}

/// Checks a directory block of `inode`, whose first block is linear block `block`. `only`: the directory has no other.
pub(super) fn verify(
    sb: &Superblock,
    inode: u64,
    block: u64,
    only: bool,
    bytes: &[u8],
) -> Result<(), &'static str> {
    if !(bytes.starts_with(DATA_MAGIC) || only && bytes.starts_with(ONLY_MAGIC)) {
        return Err("directory block has no magic number");
    }
    if !checksum::holds(bytes, 4) {
        return Err("directory block checksum does not match");
    }
    match u64_at(bytes, 40) == inode
        && array_at(bytes, 24) == Some(sb.meta_uuid)
        && u64_at(bytes, 8) == sb.basic(block)
    {
        true => Ok(()),
        false => Err("directory block belongs elsewhere"),
    }
}

/// An entry of a block, or an unused stretch.
struct Entry<'a> {
    len: usize,
    used: Option<(u64, &'a [u8])>,
}

/// Decodes what is at `at` of a block whose entries end at `end`.
fn entry<'a>(sb: &Superblock, bytes: &'a [u8], at: usize, end: usize) -> Result<Entry<'a>, &'static str> {
    let ftype = usize::from(sb.has_ftype());
    let (len, used) = match u16_at(bytes, at) {
        UNUSED => (usize::from(u16_at(bytes, at + 2)), None),
        _ => {
            let name_len = usize::from(u8_at(bytes, at + 8));
            let name = slice_at(bytes, at + 9, name_len).unwrap_or_default();
            let len = (FIXED_BYTES + name_len + ftype).next_multiple_of(ALIGN);
            if ftype == 1 && u8_at(bytes, at + 9 + name_len) >= TYPES {
                return Err("directory entry of an unknown type");
            }
            (len, Some((u64_at(bytes, at), name)))
        }
    };
    if len == 0 || !len.is_multiple_of(ALIGN) || at + len > end {
        return Err("directory entry length out of range");
    }
    match usize::from(u16_at(bytes, at + len - 2)) == at {
        true => Ok(Entry { len, used }),
        false => Err("directory entry does not know its place"),
    }
}

/// End of the entries of a block.
fn entries_end(bytes: &[u8]) -> Result<usize, &'static str> {
    if !bytes.starts_with(ONLY_MAGIC) {
        return Ok(bytes.len());
    }
    let tail = bytes.len().saturating_sub(8);
    let index = (u32_at(bytes, tail) as usize).checked_mul(8);
    index
        .and_then(|index| tail.checked_sub(index))
        .filter(|&end| end >= HEAD_BYTES)
        .ok_or("directory block claims more entries than fit")
}

/// The parent, from the ".." entry of a directory's first block.
pub(super) fn parent(sb: &Superblock, inode: u64, bytes: &[u8]) -> Result<u64, &'static str> {
    let end = entries_end(bytes)?;
    let dot = entry(sb, bytes, HEAD_BYTES, end)?;
    let dot_dot = entry(sb, bytes, HEAD_BYTES + dot.len, end)?;
    match (dot.used, dot_dot.used) {
        (Some((own, b".")), Some((parent, b".."))) if own == inode => match sb.is_item(parent) {
            true => Ok(parent),
            false => Err("directory's .. names an inode that cannot be a directory"),
        },
        _ => Err("directory does not start with . and .."),
    }
}

/// Puts the entries of a block into `window`. Returns the first rule that was broken.
pub(super) fn entries(sb: &Superblock, bytes: &[u8], window: &mut Window) -> Option<&'static str> {
    let end = match entries_end(bytes) {
        Ok(end) => end,
        Err(broken) => return Some(broken),
    };
    let mut at = HEAD_BYTES;
    let mut rule = None;
    while at < end {
        let entry = match entry(sb, bytes, at, end) {
            Ok(entry) => entry,
            Err(broken) => return rule.or(Some(broken)),
        };
        at += entry.len;
        if let Some((inode, name)) = entry.used.filter(|(_, name)| *name != b"." && *name != b"..") {
            rule = rule.or(put(sb, name, inode, window));
        }
    }
    rule
}

/// Puts one name into `window`, or returns the rule that it breaks.
fn put(sb: &Superblock, name: &[u8], inode: u64, window: &mut Window) -> Option<&'static str> {
    if name.is_empty() {
        return Some("directory entry name is empty");
    }
    if name.iter().any(|&b| b == b'/' || b == 0) || name == b"." || name == b".." {
        return Some("directory entry name holds a slash or a NUL, or stands for a directory");
    }
    if !sb.is_item(inode) {
        return Some("directory entry names an inode that no item can have");
    }
    let name = window.put_bytes(name);
    window.names.push(Name { name, inode });
    None
}
