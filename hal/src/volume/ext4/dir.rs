//! Directories: entries in blocks, or inside the inode. Hashed (htree) directories are read linearly: their leaves are
//! ordinary blocks and their index blocks look like empty ones, so neither hash nor casefold tables matter here.
//!
//! ```text
//!  entry                                       tail of a leaf (metadata_csum), an entry of 12 bytes
//!  0  4  inode, 0 = unused                     0  4  0
//!  4  2  length of the entry, multiple of 4    4  2  12
//!  6  1  length of the name                    6  2  0xDE00 (as name length 0, type 0xDE)
//!  7  1  type; without the filetype feature    8  4  crc32c of the block up to here
//!        the high byte of the name's length
//!  8  n  name
//!
//!  index block: one unused entry over the whole block (the root: ".", then ".." over the rest, then 8 bytes of info),
//!  then limit (2), count (2), entries of 8 bytes; behind `limit` entries 4 reserved bytes and a crc32c.
//!
//!  inline: 4 bytes parent inode, entries up to the end of the inode's 60 bytes; more entries, to its end, in the
//!  value of the attribute system.data.
//! ```
//!
//! Invariants: a name delivered has 1..=255 bytes without '/' and NUL, is neither "." nor "..", and its inode number may be
//! an item's. The entries before a broken one are delivered; the rest of its block is not.
//!
//! Does not: look at the inodes that the entries name, nor at the type byte. Source: kernel
//! Documentation/filesystems/ext4/directory.rst, `ext4_dirblock_csum_verify`, `ext4_dx_csum_verify`.

use super::checksum::crc32c;
use super::field::{slice_at, u8_at, u16_at, u32_at};
use super::inode::{BLOCK_FIELD_BYTES, Inode, flag};
use super::superblock::Superblock;
use crate::volume::{Name, Window};

const HEAD_BYTES: usize = 8;
const ENTRY_BYTES_MIN: usize = 12;
const TAIL_BYTES: usize = 12;
const TAIL_MARK: u16 = 0xDE00;

/// One entry as it stands in a block.
struct Entry<'a> {
    inode: u32,
    len: usize,
    name: &'a [u8],
}

/// Decodes the entry at `at`, which must fit `block`.
fn entry<'a>(sb: &Superblock, block: &'a [u8], at: usize) -> Result<Entry<'a>, &'static str> {
    let raw_len = usize::from(u16_at(block, at + 4));
    let len = if sb.block_bits == 16 {
        match raw_len {
            0 | 0xFFFF => block.len(),
            n => n & 0xFFFC | (n & 3) << 16,
        }
    } else {
        raw_len
    };
    let name_len = match sb.has_filetype() {
        true => usize::from(u8_at(block, at + 6)),
        false => usize::from(u16_at(block, at + 6)),
    };
    if len < ENTRY_BYTES_MIN || len % 4 != 0 || at + len > block.len() {
        return Err("directory entry length out of range");
    }
    let name = slice_at(block, at + HEAD_BYTES, name_len).filter(|_| HEAD_BYTES + name_len <= len);
    let inode = u32_at(block, at);
    match name {
        Some(name) => Ok(Entry { inode, len, name }),
        None if inode == 0 => Ok(Entry { inode, len, name: &[] }),
        None => Err("directory entry name longer than its entry"),
    }
}

/// Whether the directory is hashed and `block` is one of its index blocks.
fn is_index(sb: &Superblock, inode: &Inode, logical: u64, block: &[u8]) -> bool {
    inode.has(flag::INDEX)
        && (logical == 0 || entry(sb, block, 0).is_ok_and(|e| e.inode == 0 && e.len == block.len()))
}

/// Checks the checksum of the directory block `block`, which holds logical block `logical`.
pub(super) fn verify(sb: &Superblock, inode: &Inode, logical: u64, block: &[u8]) -> Result<(), &'static str> {
    if !sb.has_metadata_csum() {
        return Ok(());
    }
    if is_index(sb, inode, logical, block) {
        return verify_index(sb, inode, block);
    }
    let at = block.len() - TAIL_BYTES;
    if u32_at(block, at) != 0
        || usize::from(u16_at(block, at + 4)) != TAIL_BYTES
        || u16_at(block, at + 6) != TAIL_MARK
    {
        return Err("directory block has no checksum tail");
    }
    match crc32c(inode.seed, &block[..at]) == u32_at(block, at + 8) {
        true => Ok(()),
        false => Err("directory block checksum does not match"),
    }
}

fn verify_index(sb: &Superblock, inode: &Inode, block: &[u8]) -> Result<(), &'static str> {
    const ROOT_INFO_BYTES: usize = 8;
    let first = entry(sb, block, 0)?.len;
    let counts_at = if first == block.len() {
        HEAD_BYTES
    } else if first == ENTRY_BYTES_MIN && first + entry(sb, block, first)?.len == block.len() {
        let info_at = 2 * ENTRY_BYTES_MIN;
        if u32_at(block, info_at) != 0 || usize::from(u8_at(block, info_at + 5)) != ROOT_INFO_BYTES {
            return Err("directory index root is malformed");
        }
        info_at + ROOT_INFO_BYTES
    } else {
        return Err("directory index block is malformed");
    };
    let limit = usize::from(u16_at(block, counts_at));
    let count = usize::from(u16_at(block, counts_at + 2));
    let tail_at = counts_at + limit * 8;
    if count > limit || tail_at + 8 > block.len() {
        return Err("directory index claims more entries than fit");
    }
    let crc = crc32c(inode.seed, &block[..counts_at + count * 8]);
    let crc = crc32c(crc, &block[tail_at..tail_at + 4]);
    match crc32c(crc, &[0; 4]) == u32_at(block, tail_at + 4) {
        true => Ok(()),
        false => Err("directory index checksum does not match"),
    }
}

/// The parent, from the ".." entry of a directory's first block.
pub(super) fn parent(sb: &Superblock, block: &[u8]) -> Result<u32, &'static str> {
    let dot = entry(sb, block, 0)?;
    let dot_dot = entry(sb, block, dot.len)?;
    if dot.name != b"." || dot_dot.name != b".." {
        return Err("directory does not start with . and ..");
    }
    match sb.is_ordinary(dot_dot.inode) {
        true => Ok(dot_dot.inode),
        false => Err("directory's .. names an inode that cannot be a directory"),
    }
}

/// Appends the entries of a block (or of an inline region) to `window`. Returns the first rule that was broken.
pub(super) fn entries(sb: &Superblock, block: &[u8], window: &mut Window) -> Option<&'static str> {
    let mut at = 0;
    let mut rule = None;
    while at < block.len() {
        let entry = match entry(sb, block, at) {
            Ok(entry) => entry,
            Err(broken) => return rule.or(Some(broken)),
        };
        at += entry.len;
        if entry.inode == 0 || entry.name == b"." || entry.name == b".." {
            continue;
        }
        if entry.name.is_empty() || entry.name.len() > 255 {
            rule = rule.or(Some("directory entry name is empty or too long"));
        } else if entry.name.iter().any(|&b| b == b'/' || b == 0) {
            rule = rule.or(Some("directory entry name holds a slash or a NUL"));
        } else if !sb.is_ordinary(entry.inode) {
            rule = rule.or(Some("directory entry names an inode that no item can have"));
        } else {
            let name = window.put_bytes(entry.name);
            window.names.push(Name { name, inode: u64::from(entry.inode) });
        }
    }
    rule
}

/// The parent and the regions of entries of an inline directory; `data` is the value of system.data.
pub(super) fn inline_parent(sb: &Superblock, inode: &Inode) -> Result<u32, &'static str> {
    let parent = u32_at(&inode.block, 0);
    match sb.is_ordinary(parent) {
        true => Ok(parent),
        false => Err("directory's .. names an inode that cannot be a directory"),
    }
}

/// Appends the entries of an inline directory.
pub(super) fn inline_entries(
    sb: &Superblock,
    inode: &Inode,
    data: &[u8],
    window: &mut Window,
) -> Option<&'static str> {
    let rule = entries(sb, &inode.block[4..BLOCK_FIELD_BYTES], window);
    rule.or_else(|| entries(sb, data, window))
}
