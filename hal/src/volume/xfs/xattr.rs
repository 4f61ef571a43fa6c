//! Extended attributes: in the inode, or in blocks of the attribute fork, with large values in blocks of their own.
//!
//! ```text
//!  in the inode (short form)        leaf "3BEE" at 8                 local: 0 2 length of the value
//!  0  2  bytes in all               56  2  entries                          2 1 length of the name
//!  2  1  entries                    80     entries:                         3   name, value
//!  entry:                                  0  4  hash                remote: 0 4 block of the value
//!  0  1  length of the name                4  2  place of name              4 4 length of the value
//!  1  1  length of the value               6  1  flags                      8 1 length of the name
//!  2  1  flags                                                              9   name
//!  3     name, value                node "3EBE" at 8
//!                                   56  2  entries, 58 2 level
//!  flags: 1 local, 2 trusted,       64     entries: 4 hash, 4 block
//!  4 security, 8 parent pointer,
//!  128 not finished                 leaf and node start with: 0 4 next block, 4 4 block before, 8 2 magic, 12 4 crc,
//!                                   16 8 address in basic blocks, 24 8 lsn, 32 16 uuid, 48 8 inode
//!
//!  block of a value: 0 4 magic "XARM", 4 4 offset in the value, 8 4 bytes, 12 4 crc, 16 16 uuid, 32 8 inode,
//!  40 8 address in basic blocks, 48 8 lsn, 56 bytes
//! ```
//!
//! Invariants: an item's attributes ascend by full name and take at most `ITEM_XATTR_BYTES_MAX` bytes of the window; ACL values
//! are in `getxattr` form; leaves are visited at most once each, in the order of their hashes.
//!
//! Does not: deliver parent pointers and attributes that are not finished, which the kernel hides too, nor the ACLs' second
//! names (trusted.SGI_ACL_FILE). Source: kernel `fs/xfs/libxfs/xfs_da_format.h`, `xfs_attr_leaf.c`, `xfs_attr_remote.c`,
//! `fs/xfs/xfs_xattr.c`.

use super::field::{array_at, slice_at, u8_at, u16_at, u32_at, u64_at};
use super::inode::{Format, Inode};
use super::map::{Io, Map, Owner, damaged, map};
use super::superblock::Superblock;
use super::{acl, checksum};
use crate::volume::part::{ConvertAcl, put_xattr, settle_xattrs, xattr_fits};
use crate::volume::{ItemFault, Window};

const LEAF_MAGIC: u16 = 0x3BEE;
const NODE_MAGIC: u16 = 0x3EBE;
const VALUE_MAGIC: &[u8; 4] = b"XARM";
const LEAF_HEAD_BYTES: usize = 80;
const NODE_HEAD_BYTES: usize = 64;
const ENTRY_BYTES: usize = 8;
const VALUE_HEAD_BYTES: usize = 56;
const SHORT_HEAD_BYTES: usize = 4;
const LEVELS_MAX: u16 = 5;
/// Largest value in bytes.
const VALUE_BYTES_MAX: usize = 64 << 10;
/// Runs that an attribute fork may have here: values above the bound of an item would need more.
const RUNS_MAX: usize = 4096;

const LOCAL: u8 = 0x1;
const TRUSTED: u8 = 0x2;
const SECURITY: u8 = 0x4;
const PARENT: u8 = 0x8;
const UNFINISHED: u8 = 0x80;

/// Collects the attributes of one item.
struct Collect<'a, 'b> {
    io: &'a mut Io<'b>,
    inode: &'a Inode,
    map: &'a mut Map,
    window: &'a mut Window,
    /// First attribute of the item in the window.
    first: usize,
    taken: usize,
    fault: Option<ItemFault>,
    value: Vec<u8>,
    wanted: Vec<u64>,
}

/// Appends the attributes of `inode` to `window` and returns the first thing that was wrong. `raw` is the whole inode, `at` its
/// place on the device.
pub(super) fn collect(
    io: &mut Io<'_>,
    inode: &Inode,
    raw: &[u8],
    at: u64,
    map: &mut Map,
    window: &mut Window,
) -> Option<ItemFault> {
    let fork = inode.attributes?;
    let first = window.xattrs.len();
    let mut all = Collect {
        io,
        inode,
        map,
        window,
        first,
        taken: 0,
        fault: None,
        value: Vec::new(),
        wanted: Vec::new(),
    };
    match fork.format {
        Format::Local => all.short(fork.bytes(raw), at),
        _ if fork.extents == 0 => {}
        _ => all.tree(&Owner { inode: inode.number, at, raw, fork, merge: true }),
    }
    let Collect { window, fault, .. } = all;
    let twice = settle_xattrs(window, first, at);
    fault.or(twice)
}

/// Where a value is.
enum Place<'a> {
    Here(&'a [u8]),
    /// First block of the fork, length.
    Blocks(u32, usize),
}

impl Collect<'_, '_> {
    fn blame(&mut self, fault: ItemFault) {
        self.fault.get_or_insert(fault);
    }

    /// Attributes in the inode.
    fn short(&mut self, bytes: &[u8], at: u64) {
        let total = usize::from(u16_at(bytes, 0));
        let Some(bytes) = bytes.get(..total).filter(|_| total >= SHORT_HEAD_BYTES) else {
            return self.blame(damaged(at, "attributes outside the inode"));
        };
        let mut next = SHORT_HEAD_BYTES;
        for _ in 0..u8_at(bytes, 2) {
            let (name_len, value_len) =
                (usize::from(u8_at(bytes, next)), usize::from(u8_at(bytes, next + 1)));
            let flags = u8_at(bytes, next + 2);
            let name = slice_at(bytes, next + 3, name_len);
            let value = slice_at(bytes, next + 3 + name_len, value_len);
            let (Some(name), Some(value)) = (name, value) else {
                return self.blame(damaged(at, "attribute outside the inode"));
            };
            if let Err(fault) = self.one(flags | LOCAL, name, &Place::Here(value), at) {
                self.blame(fault);
            }
            next += 3 + name_len + value_len;
        }
        if next != total {
            self.blame(damaged(at, "attributes in the inode have another size than they say"));
        }
    }

    /// Attributes in blocks: down to the first leaf, then from leaf to leaf.
    fn tree(&mut self, owner: &Owner<'_>) {
        map(self.io, owner, 0, RUNS_MAX, Some(0), self.map);
        if let Some(fault) = self.map.fault.take() {
            self.blame(fault);
        }
        if self.map.next.is_some() {
            self.blame(damaged(owner.at, "attributes take more than the reader's bound of 512 KiB"));
        }
        let blocks: u64 = self.map.runs.iter().map(|run| run.len).sum();
        let (mut block, mut before, mut level) = (0, None, None);
        // The order of hashes: a leaf's first is not below the last of the leaf before.
        let mut hash = 0;
        for _ in 0..blocks {
            let (at, bytes) = match self.block(block, owner.at) {
                Ok(found) => found,
                Err(fault) => return self.blame(fault),
            };
            if before.is_none() && u16_at(&bytes, 8) == NODE_MAGIC {
                let below = u16_at(&bytes, 58);
                let falls = level.map_or((1..=LEVELS_MAX).contains(&below), |level| below + 1 == level);
                if !falls || u16_at(&bytes, 56) == 0 {
                    return self.blame(damaged(at, "attribute node at the wrong level"));
                }
                level = Some(below);
                block = u32_at(&bytes, NODE_HEAD_BYTES + 4);
                continue;
            }
            let leaf =
                u16_at(&bytes, 8) == LEAF_MAGIC && (before.is_some() || level.is_none_or(|level| level == 1));
            if !leaf || u32_at(&bytes, 4) != before.unwrap_or(0) {
                return self.blame(damaged(at, "attribute leaf is not where it belongs"));
            }
            if !self.leaf(&bytes, at, &mut hash) {
                return;
            }
            before = Some(block);
            block = u32_at(&bytes, 0);
            if block == 0 {
                return;
            }
        }
        self.blame(damaged(owner.at, "attribute leaves go on without end"));
    }

    /// The entries of a leaf. `false` when the rest of the leaves is not worth looking at.
    fn leaf(&mut self, bytes: &[u8], at: u64, hash: &mut u32) -> bool {
        let entries = usize::from(u16_at(bytes, 56));
        if LEAF_HEAD_BYTES + entries * ENTRY_BYTES > bytes.len() {
            self.blame(damaged(at, "attribute leaf claims more entries than fit"));
            return false;
        }
        for i in 0..entries {
            let entry = LEAF_HEAD_BYTES + i * ENTRY_BYTES;
            if u32_at(bytes, entry) < *hash {
                self.blame(damaged(at, "attribute leaves are out of order"));
                return false;
            }
            *hash = u32_at(bytes, entry);
            let (place, flags) = (usize::from(u16_at(bytes, entry + 4)), u8_at(bytes, entry + 6));
            let found = match flags & LOCAL {
                0 => {
                    let len = u32_at(bytes, place + 4) as usize;
                    let name = slice_at(bytes, place + 9, usize::from(u8_at(bytes, place + 8)));
                    name.map(|name| (name, Place::Blocks(u32_at(bytes, place), len)))
                }
                _ => {
                    let name_len = usize::from(u8_at(bytes, place + 2));
                    let value = slice_at(bytes, place + 3 + name_len, usize::from(u16_at(bytes, place)));
                    slice_at(bytes, place + 3, name_len).zip(value.map(Place::Here))
                }
            };
            let done = match found {
                _ if place < LEAF_HEAD_BYTES + entries * ENTRY_BYTES => {
                    Err(damaged(at, "attribute outside its leaf"))
                }
                Some((name, value)) => self.one(flags, name, &value, at),
                None => Err(damaged(at, "attribute outside its leaf")),
            };
            if let Err(fault) = done {
                self.blame(fault);
            }
        }
        true
    }

    /// Puts one attribute into the window.
    fn one(&mut self, flags: u8, name: &[u8], value: &Place<'_>, at: u64) -> Result<(), ItemFault> {
        let bad = |rule| Err(damaged(at, rule));
        let known = LOCAL
            | TRUSTED
            | SECURITY
            | UNFINISHED
            | if self.io.sb.has_parent_pointers() { PARENT } else { 0 };
        if flags & !known != 0 || (flags & (TRUSTED | SECURITY | PARENT)).count_ones() > 1 {
            return bad("attribute in an unknown name space");
        }
        if flags & (PARENT | UNFINISHED) != 0 {
            return Ok(());
        }
        if name.is_empty() || name.contains(&0) {
            return bad("attribute name is malformed");
        }
        let (prefix, rest, is_acl): (&[u8], &[u8], bool) = match flags & (TRUSTED | SECURITY) {
            TRUSTED if name == b"SGI_ACL_FILE" => (b"system.", b"posix_acl_access", true),
            TRUSTED if name == b"SGI_ACL_DEFAULT" => (b"system.", b"posix_acl_default", true),
            TRUSTED => (b"trusted.", name, false),
            SECURITY => (b"security.", name, false),
            _ => (b"user.", name, false),
        };
        let len = match value {
            Place::Here(value) => value.len(),
            Place::Blocks(_, len) => *len,
        };
        if len > VALUE_BYTES_MAX {
            return bad("attribute value above 64 KiB");
        }
        let more = prefix.len() + rest.len() + len;
        xattr_fits(self.window.xattrs.len() - self.first, self.taken, more, at)?;
        let mut bytes = std::mem::take(&mut self.value);
        bytes.clear();
        let read = match value {
            Place::Here(value) => {
                bytes.extend_from_slice(value);
                Ok(())
            }
            Place::Blocks(block, len) => self.remote(*block, *len, at, &mut bytes),
        };
        let done = read.and_then(|()| {
            let acl = is_acl.then_some(acl::convert as ConvertAcl);
            let put = put_xattr(self.window, (prefix, rest), &bytes, acl);
            self.taken += put.map_err(|rule| damaged(at, rule))?;
            Ok(())
        });
        self.value = bytes;
        done
    }

    /// Reads a value of `len` bytes from its blocks and checks them.
    fn remote(&mut self, first: u32, len: usize, at: u64, value: &mut Vec<u8>) -> Result<(), ItemFault> {
        let sb = self.io.sb;
        let most = sb.block_bytes() - VALUE_HEAD_BYTES;
        for i in 0..len.div_ceil(most) as u64 {
            let logical = u64::from(first) + i;
            let Some(block) = self.physical(logical) else {
                return Err(damaged(at, "attribute value in a hole"));
            };
            if !self.io.cache.has(block) {
                let left = (len - value.len()).div_ceil(most) as u64;
                let mut wanted = std::mem::take(&mut self.wanted);
                wanted.clear();
                wanted.extend((logical..logical + left).map_while(|k| self.physical(k)));
                self.wanted = wanted;
                self.io.cache.prefetch(self.io.device, &mut self.wanted);
            }
            let now = most.min(len - value.len());
            let bytes = self.io.load(block, "attribute value")?;
            let offset = sb.offset(block);
            if !bytes.starts_with(VALUE_MAGIC) || !checksum::holds(bytes, 12) {
                return Err(damaged(offset, "attribute value checksum does not match"));
            }
            if u32_at(bytes, 4) as usize != value.len()
                || u32_at(bytes, 8) as usize != now
                || !belongs(sb, self.inode.number, block, bytes, [16, 32, 40])
            {
                return Err(damaged(offset, "attribute value belongs elsewhere"));
            }
            value.extend_from_slice(slice_at(bytes, VALUE_HEAD_BYTES, now).unwrap_or_default());
        }
        Ok(())
    }

    /// The linear block of logical block `logical` of the fork.
    fn physical(&self, logical: u64) -> Option<u64> {
        let after = self.map.runs.partition_point(|run| run.logical <= logical);
        let run = self.map.runs.get(after.checked_sub(1)?)?;
        let skip = logical - run.logical;
        (skip < run.len && !run.unwritten).then_some(run.physical + skip)
    }

    /// Block `logical` of the fork, a leaf or a node, checked, and its place on the device.
    fn block(&mut self, logical: u32, at: u64) -> Result<(u64, Vec<u8>), ItemFault> {
        let Some(block) = self.physical(u64::from(logical)) else {
            return Err(damaged(at, "attribute block in a hole"));
        };
        let sb = self.io.sb;
        let at = sb.offset(block);
        let bytes = self.io.load(block, "attribute block")?;
        if !matches!(u16_at(bytes, 8), LEAF_MAGIC | NODE_MAGIC) {
            return Err(damaged(at, "attribute block has no magic number"));
        }
        if !checksum::holds(bytes, 12) {
            return Err(damaged(at, "attribute block checksum does not match"));
        }
        match belongs(sb, self.inode.number, block, bytes, [32, 48, 16]) {
            true => Ok((at, bytes.to_vec())),
            false => Err(damaged(at, "attribute block belongs elsewhere")),
        }
    }
}

/// Whether a block carries the uuid, its owner and its own address at these three places.
pub(super) fn belongs(sb: &Superblock, inode: u64, block: u64, bytes: &[u8], places: [usize; 3]) -> bool {
    let [uuid, owner, address] = places;
    array_at(bytes, uuid) == Some(sb.meta_uuid)
        && u64_at(bytes, owner) == inode
        && u64_at(bytes, address) == sb.basic(block)
}
