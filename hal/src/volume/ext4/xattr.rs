//! Extended attributes: in the inode behind its fields, in one block of their own, and values in inodes of their own.
//!
//! ```text
//!  in the inode: 0xEA020000, then entries; value offsets count from the first entry
//!  block:  0  4  magic 0xEA020000      entry: 0  1  length of the name
//!          4  4  users                        1  1  name index (prefix)
//!          8  4  blocks, 1                    2  2  offset of the value
//!          12 4  hash                         4  4  inode of the value, 0 = here
//!          16 4  checksum                     8  4  size of the value
//!          32    entries; value offsets       12 4  hash
//!                count from the block         16    name, padded to a multiple of 4
//!  entries end with 4 zero bytes
//! ```
//!
//! Invariants: an item's attributes ascend by full name and take at most `ITEM_XATTR_BYTES_MAX` bytes of the window; ACL values
//! are in `getxattr` form; a value from another inode matches the checksum that this inode keeps of it.
//!
//! Does not: check the hashes of entries whose value is beside them (they serve sharing, and the block's own checksum covers them), deliver
//! attributes that the kernel hides (system.data, the encryption context). Source: kernel
//! Documentation/filesystems/ext4/attributes.rst, `fs/ext4/xattr.c`.

use super::checksum::crc32c;
use super::field::{slice_at, u8_at, u16_at, u32_at};
use super::inode::{self, Inode, flag};
use super::map::{Io, Map, damaged, map};
use super::superblock::{Superblock, block_checksum};
use super::{acl, group, zone};
use crate::volume::part::{ConvertAcl, put_xattr, settle_xattrs, xattr_fits};
use crate::volume::{ItemFault, Window};

const MAGIC: u32 = 0xEA02_0000;
const BLOCK_HEAD_BYTES: usize = 32;
const ENTRY_BYTES: usize = 16;
const INDEX_SYSTEM: u8 = 7;
const INDEX_ENCRYPTION: u8 = 9;
/// Largest value that the kernel gives back.
const VALUE_BYTES_MAX: u32 = 64 << 10;
/// Runs that the value of an attribute inode may be in: 64 KiB in blocks of 1 KiB.
const VALUE_RUNS_MAX: usize = 64;

/// Prefix of a name index; `None` for an index that Linux does not show.
fn prefix(index: u8) -> Option<&'static [u8]> {
    Some(match index {
        1 => b"user.",
        2 => b"system.posix_acl_access",
        3 => b"system.posix_acl_default",
        4 => b"trusted.",
        6 => b"security.",
        8 => b"system.richacl",
        10 => b"gnu.",
        _ => return None,
    })
}

fn is_acl(index: u8) -> bool {
    index == 2 || index == 3
}

/// One entry.
struct Entry<'a> {
    index: u8,
    name: &'a [u8],
    value_at: usize,
    value_inode: u32,
    value_len: u32,
    hash: u32,
    next: usize,
}

/// The entry at `at` of `area`; `None` at the end of the list.
fn entry(area: &[u8], at: usize) -> Result<Option<Entry<'_>>, &'static str> {
    if at + 4 > area.len() {
        return Err("attribute list has no end");
    }
    if u32_at(area, at) == 0 {
        return Ok(None);
    }
    let name_len = usize::from(u8_at(area, at));
    let Some(name) = slice_at(area, at + ENTRY_BYTES, name_len) else {
        return Err("attribute entry outside its area");
    };
    Ok(Some(Entry {
        index: u8_at(area, at + 1),
        name,
        value_at: usize::from(u16_at(area, at + 2)),
        value_inode: u32_at(area, at + 4),
        value_len: u32_at(area, at + 8),
        hash: u32_at(area, at + 12),
        next: at + (ENTRY_BYTES + name_len).next_multiple_of(4),
    }))
}

/// The area of the attributes in the inode, from the first entry on; `None` when there are none.
fn inside<'a>(inode: &Inode, raw: &'a [u8]) -> Option<&'a [u8]> {
    let area = raw.get(inode.attributes_at?..)?;
    (u32_at(area, 0) == MAGIC).then(|| area.get(4..)).flatten()
}

/// Where the list of entries that starts at `at` ends, its terminator included: values lie behind it.
fn list_end(area: &[u8], mut at: usize) -> Result<usize, &'static str> {
    while let Some(entry) = entry(area, at)? {
        at = entry.next;
    }
    Ok(at + 4)
}

/// The value of an entry, which must lie behind the list and fit with its padding.
fn value_in<'a>(area: &'a [u8], list_end: usize, entry: &Entry<'_>) -> Option<&'a [u8]> {
    let len = entry.value_len as usize;
    let padded = len.checked_next_multiple_of(4)?;
    slice_at(area, entry.value_at, padded).filter(|_| entry.value_at >= list_end)?.get(..len)
}

/// Rule that an inode breaks whose inline data have no attribute.
pub(super) const NO_INLINE_DATA: &str = "inline data without its attribute";

/// The value of system.data: what of an inline file or directory does not fit the inode's 60 bytes.
pub(super) fn inline_data<'a>(inode: &Inode, raw: &'a [u8]) -> Result<&'a [u8], &'static str> {
    let area = inside(inode, raw).ok_or(NO_INLINE_DATA)?;
    let mut at = 0;
    let list_end = list_end(area, at)?;
    while let Some(entry) = entry(area, at)? {
        if entry.index == INDEX_SYSTEM && entry.name == b"data" {
            return match entry.value_len {
                0 => Ok(&[]),
                _ => value_in(area, list_end, &entry)
                    .filter(|_| entry.value_inode == 0)
                    .ok_or("inline data outside the inode"),
            };
        }
        at = entry.next;
    }
    Err(NO_INLINE_DATA)
}

/// Looks inodes up for values that have one: reads the inode `number` into `raw` and returns its place on the device.
pub(super) trait FindInode {
    /// See the trait.
    fn find(&mut self, io: &mut Io<'_>, number: u32, raw: &mut Vec<u8>) -> Result<u64, ItemFault>;
}

/// Collects the attributes of one item.
pub(super) struct Collect<'a, 'b> {
    pub(super) io: &'a mut Io<'b>,
    pub(super) find: &'a mut dyn FindInode,
    pub(super) window: &'a mut Window,
    /// First attribute of the item in the window.
    first: usize,
    taken: usize,
    fault: Option<ItemFault>,
    value: Vec<u8>,
}

/// Appends the attributes of `inode` to `window` and returns the first thing that was wrong. `raw` is the whole inode,
/// `inode_at` its place on the device.
pub(super) fn collect(
    io: &mut Io<'_>,
    find: &mut dyn FindInode,
    inode: &Inode,
    raw: &[u8],
    inode_at: u64,
    window: &mut Window,
) -> Option<ItemFault> {
    let first = window.xattrs.len();
    if inside(inode, raw).is_none() && inode.file_acl == 0 {
        return None;
    }
    let mut all = Collect { io, find, window, first, taken: 0, fault: None, value: Vec::new() };
    if let (Some(area), Some(at)) = (inside(inode, raw), inode.attributes_at) {
        all.area(inode, area, 0, inode_at + at as u64);
    }
    if inode.file_acl != 0 {
        all.block(inode, inode_at);
    }
    let Collect { window, fault, .. } = all;
    let twice = settle_xattrs(window, first, inode_at);
    fault.or(twice)
}

impl Collect<'_, '_> {
    fn blame(&mut self, fault: ItemFault) {
        self.fault.get_or_insert(fault);
    }

    /// The attribute block.
    fn block(&mut self, inode: &Inode, inode_at: u64) {
        let block = inode.file_acl;
        if !self.io.sb.holds(block, 1) {
            return self.blame(damaged(inode_at, "attribute block outside the volume"));
        }
        if self.io.zone.meets(block, 1) {
            return self.blame(damaged(inode_at, zone::RULE));
        }
        let at = self.io.sb.offset(block);
        let sb = self.io.sb;
        let bytes = match self.io.load(block, "attribute block") {
            Ok(bytes) => bytes,
            Err(fault) => return self.blame(fault),
        };
        if let Err(rule) = verify_block(sb, block, bytes) {
            return self.blame(damaged(at, rule));
        }
        let bytes = bytes.to_vec();
        self.area(inode, &bytes, BLOCK_HEAD_BYTES, at);
    }

    /// The entries of `area` from `at` on; `area_at` is the area's place on the device.
    fn area(&mut self, inode: &Inode, area: &[u8], mut at: usize, area_at: u64) {
        // A list without an end is reported where it breaks; no value is behind it.
        let list_end = list_end(area, at).unwrap_or(area.len());
        loop {
            match entry(area, at) {
                Ok(None) => return,
                Err(rule) => return self.blame(damaged(area_at, rule)),
                Ok(Some(entry)) => {
                    if let Err(fault) = self.one(inode, &entry, area, list_end, area_at) {
                        self.blame(fault);
                    }
                    at = entry.next;
                }
            }
        }
    }

    fn one(
        &mut self,
        inode: &Inode,
        entry: &Entry<'_>,
        area: &[u8],
        list_end: usize,
        area_at: u64,
    ) -> Result<(), ItemFault> {
        if entry.index == INDEX_SYSTEM && entry.name == b"data" || entry.index == INDEX_ENCRYPTION {
            return Ok(());
        }
        let bad = |rule| damaged(area_at, rule);
        let prefix = prefix(entry.index).ok_or(bad("attribute with an unknown name index"))?;
        // "user." wants a name behind it; "system.posix_acl_access" is one already.
        if entry.name.is_empty() == prefix.ends_with(b".") || entry.name.contains(&0) {
            return Err(bad("attribute name is malformed"));
        }
        let mut value = std::mem::take(&mut self.value);
        value.clear();
        let done = match entry.value_inode {
            0 if entry.value_len == 0 => Ok(()),
            0 => match value_in(area, list_end, entry) {
                Some(bytes) => {
                    value.extend_from_slice(bytes);
                    Ok(())
                }
                None => Err(bad("attribute value outside its area, or over the entries")),
            },
            _ if !self.io.sb.has_ea_inode() => {
                Err(bad("attribute value in an inode without the ea_inode feature"))
            }
            _ => self.value_from_inode(inode, entry, area_at, &mut value),
        };
        let done = done.and_then(|()| self.deliver(entry, prefix, &value, area_at));
        self.value = value;
        done
    }

    /// Puts one attribute into the window.
    fn deliver(
        &mut self,
        entry: &Entry<'_>,
        prefix: &[u8],
        value: &[u8],
        area_at: u64,
    ) -> Result<(), ItemFault> {
        // An ACL at most doubles.
        let most = prefix.len() + entry.name.len() + 2 * value.len();
        xattr_fits(self.window.xattrs.len() - self.first, self.taken, most, area_at)?;
        let acl = is_acl(entry.index).then_some(acl::convert as ConvertAcl);
        let put = put_xattr(self.window, (prefix, entry.name), value, acl);
        self.taken += put.map_err(|rule| damaged(area_at, rule))?;
        Ok(())
    }

    /// Reads a value from its inode and checks it.
    fn value_from_inode(
        &mut self,
        owner: &Inode,
        entry: &Entry<'_>,
        area_at: u64,
        value: &mut Vec<u8>,
    ) -> Result<(), ItemFault> {
        if entry.value_len > VALUE_BYTES_MAX {
            return Err(damaged(area_at, "attribute value above 64 KiB"));
        }
        let mut raw = Vec::new();
        let at = self.find.find(self.io, entry.value_inode, &mut raw)?;
        if !inode::checksum_holds(self.io.sb, entry.value_inode, &raw) {
            return Err(damaged(at, "attribute inode checksum does not match"));
        }
        let holder = inode::parse(self.io.sb, entry.value_inode, &raw);
        if !holder.has(flag::EA_INODE) || holder.links == 0 || holder.size != u64::from(entry.value_len) {
            return Err(damaged(at, "attribute value in an inode that is not its own"));
        }
        let mut runs = Map::default();
        map(self.io, &holder, at, 0, VALUE_RUNS_MAX, 0, &mut runs);
        if let Some(fault) = runs.fault {
            return Err(fault);
        }
        let len = entry.value_len as usize;
        let block_bytes = self.io.sb.block_bytes();
        for run in &runs.runs {
            for k in 0..run.len {
                let from = (run.logical + k).saturating_mul(block_bytes as u64);
                if from != value.len() as u64 || run.unwritten || value.len() >= len {
                    break;
                }
                let bytes = self.io.load(run.physical + k, "attribute value")?;
                value.extend_from_slice(&bytes[..block_bytes.min(len - value.len())]);
            }
        }
        if value.len() != len {
            return Err(damaged(at, "attribute value has holes"));
        }
        // Old Lustre kept its owner here instead of a checksum.
        let lustre = holder.mtime_raw == owner.number && holder.generation == owner.generation;
        if lustre {
            return Ok(());
        }
        let crc = crc32c(self.io.sb.seed, value);
        if crc != holder.atime_raw {
            return Err(damaged(at, "attribute value checksum does not match"));
        }
        if !entry_hashes(entry.name, crc).contains(&entry.hash) {
            return Err(damaged(area_at, "attribute entry hash does not match"));
        }
        Ok(())
    }
}

/// The hash of an entry whose value is in an inode, over its name and the value's checksum: with the name's bytes unsigned, and
/// signed, as kernels on most machines had it before 6.2.
fn entry_hashes(name: &[u8], crc: u32) -> [u32; 2] {
    let start = |widen: fn(u8) -> u32| {
        name.iter().fold(0u32, |hash, &byte| hash.rotate_left(5) ^ widen(byte)).rotate_left(16) ^ crc
    };
    [start(u32::from), start(|byte| byte as i8 as i32 as u32)]
}

fn verify_block(sb: &Superblock, block: u64, bytes: &[u8]) -> Result<(), &'static str> {
    if u32_at(bytes, 0) != MAGIC || u32_at(bytes, 8) != 1 {
        return Err("attribute block has no magic number");
    }
    if sb.has_metadata_csum() && block_checksum(sb.seed, block, bytes, 16) != u32_at(bytes, 16) {
        return Err("attribute block checksum does not match");
    }
    Ok(())
}

/// Block and place in it of inode `number` (1..=inodes_count) of a group whose table starts at `table`.
pub(super) fn place(sb: &Superblock, table: u64, number: u32) -> (u64, usize) {
    let index = u64::from((number - 1) % sb.inodes_per_group);
    let byte = index * sb.inode_bytes as u64;
    debug_assert!(byte >> sb.block_bits < group::table_blocks(sb));
    (table + (byte >> sb.block_bits), (byte & (sb.block_bytes() as u64 - 1)) as usize)
}
