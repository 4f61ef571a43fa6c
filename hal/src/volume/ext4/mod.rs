//! ext2, ext3 and ext4, read from the raw device.
//!
//! ```text
//!  superblock ──> group descriptors ──> inode tables ──> inode ──┬─> extent tree / block map ──> runs of blocks
//!  superblock.rs  group.rs              table.rs         inode.rs├─> attributes  xattr.rs, acl.rs
//!  feature.rs                                                    └─> directory   dir.rs
//!
//!  item.rs   inode -> item of a window, in parts when it is large         plan.rs    what to read ahead
//!  map.rs    runs of an inode (extent.rs, indirect.rs)
//!  bitmap.rs used blocks       zone.rs  the file system's own blocks        backup.rs  a lost superblock
//!  inuse.rs  names that lead nowhere                                    checksum.rs, field.rs
//!  Shared with XFS: ../sweep.rs, ../piece.rs, ../plan.rs, ../cache.rs
//! ```
//!
//! | read | how |
//! |---|---|
//! | blocks 1..64 KiB, bigalloc, flex_bg, meta_bg, 64bit, sparse_super(2), uninit groups | geometry of `superblock.rs`, `group.rs` |
//! | metadata_csum, metadata_csum_seed, uninit_bg (gdt_csum) | every checksum verified before its bytes are used |
//! | extent, block maps, huge_file, large_file, large_dir, dir_index, dir_nlink, casefold | names as stored |
//! | inline_data, ext_attr, ea_inode, extra_isize, project, POSIX ACLs | see `xattr.rs` |
//! | encrypt | attributes; contents and names are [`ItemFaultKind::Refused`](super::ItemFaultKind::Refused) |
//! | verity | contents; the hash tree behind the end is not delivered, the flag is |
//! | quota, orphan_file, resize_inode, has_journal, mmp | their inodes are not items |
//!
//! | refused | why |
//! |---|---|
//! | needs_recovery | the journal holds changes; replaying is the kernel's work |
//! | journal_dev, compression, dirdata, unknown incompatible bits | by name or hex value |
//! | unknown read-only-compatible bits | not refused: by the format readers may go on; `used` is then `Unknown` |
//!
//! Invariants
//! - Nothing on the device is trusted: no input panics, loops for ever, or makes memory grow. The reader holds at most
//!   2 MiB of cache, 256 KiB of read buffer, 1 MiB of inode table, 512 KiB of bitmaps, 512 KiB of what the file system keeps for
//!   itself, 64 KiB of descriptors and some lists, below 8 MiB with the 2 MiB that a device reads ahead into.
//! - One call of `sweep` does bounded work: so many pieces of inode table (`sweep.rs`), one window.
//! - A sound volume is delivered without a fault; on a volume with metadata_csum, a changed byte of checksummed metadata is
//!   never delivered without one.
//!
//! Does not: replay the journal, read from backup superblocks (a damaged primary is refused, and the fault names the backup that is
//! sound), compare link counts, detect blocks that two items share (both then read the same bytes;
//! [`check`](crate::volume::check) finds them). A volume without a journal that was not cleanly unmounted
//! is read: its checksums and rules are checked, and [`VolumeInfo::state`] is `None`.
//!
//! Source: kernel Documentation/filesystems/ext4 (all sections), `fs/ext4`, e2fsprogs `lib/ext2fs`.

mod acl;
mod backup;
mod bitmap;
mod checksum;
mod dir;
mod extent;
mod feature;
mod field;
mod group;
mod indirect;
mod inode;
mod inuse;
mod item;
mod map;
mod plan;
mod superblock;
mod table;
mod xattr;
mod zone;

use std::ops::Range;

use self::group::Groups;
use self::inuse::InUse;
use self::item::{Finder, Maker, Spent};
use self::map::{Io, Map};
use self::plan::{Guesser, Lead};
use self::superblock::Superblock;
use self::table::Tables;
use self::xattr::FindInode;
use self::zone::Zone;
use super::cache::Cache;
use super::part::Step;
use super::piece::{Pieces, Seek};
use super::plan::Plan;
use super::sweep::{self, Inodes};
use super::{Cursor, Swept, UsedQuality, Volume, VolumeFault, VolumeInfo, Window};
use crate::block::BlockDevice;

/// A reader of one ext2, ext3 or ext4 volume.
pub struct Ext4 {
    info: VolumeInfo,
    sb: Superblock,
    groups: Groups,
    pieces: Pieces,
    cache: Cache,
    zone: Zone,
    inuse: InUse,
    plan: Plan<Lead>,
    map: Map,
    spent: Spent,
    raw: Vec<u8>,
}

impl Ext4 {
    /// Whether `head`, the first bytes of a device, carries the ext4 magic number.
    pub fn recognises(head: &[u8]) -> bool {
        head.get(superblock::OFFSET as usize..).is_some_and(Superblock::recognises)
    }

    /// For a device on which nothing is recognised: whether a backup superblock shows that an ext4 was here,
    /// as the fault to report.
    pub fn lost(device: &mut dyn BlockDevice) -> Option<VolumeFault> {
        backup::lost(device)
    }

    /// Opens the volume on `device`. Reads and checks the superblock and, for the zone, the group descriptors (512 KiB per TiB).
    ///
    /// # Errors
    /// [`VolumeFault::Unrecognised`] without the magic number; `Refused`, `Damaged` and `Device` as their docs say.
    pub fn open(device: &mut dyn BlockDevice) -> Result<Ext4, VolumeFault> {
        let size_bytes = device.geometry().size_bytes;
        let mut raw = [0; superblock::BYTES];
        if size_bytes < superblock::OFFSET + superblock::BYTES as u64 {
            return Err(VolumeFault::Unrecognised(None));
        }
        device.read_at(superblock::OFFSET, &mut raw)?;
        let (sb, info) =
            Superblock::parse(&raw, size_bytes).map_err(|fault| backup::with_way_out(device, &raw, fault))?;
        let mut groups = Groups::new();
        groups.get(&sb, device, 0)?;
        let mut cache = Cache::new(sb.block_bits);
        let mut zone = Zone::build(&sb, &mut groups, device);
        let journal = item::journal(&mut Io { sb: &sb, device, cache: &mut cache, zone: &zone }, &mut groups);
        journal.into_iter().for_each(|blocks| zone.add(blocks));
        zone.settle();
        Ok(Ext4 {
            info,
            cache,
            zone,
            inuse: InUse::default(),
            pieces: Pieces::new(sb.inode_bytes, sb.block_bytes()),
            sb,
            groups,
            plan: Plan::new(),
            map: Map::default(),
            spent: Spent::default(),
            raw: Vec::new(),
        })
    }
}

impl Inodes for Ext4 {
    fn seek(&mut self, device: &mut dyn BlockDevice, number: u64) -> Result<Seek, VolumeFault> {
        let Ext4 { sb, groups, pieces, .. } = self;
        pieces.seek(&mut Tables { sb, groups }, device, number)
    }

    fn fills(&self) -> u64 {
        self.pieces.fills()
    }

    fn put(&mut self, device: &mut dyn BlockDevice, number: u64, within: u64, window: &mut Window) -> Step {
        let Ext4 { sb, groups, pieces, cache, zone, inuse, plan, map, spent, .. } = self;
        plan.cover(&Guesser(sb), device, cache, pieces, number);
        // Numbers of ext4 have 32 bits.
        let (Some(raw), Ok(number)) = (pieces.get(number), u32::try_from(number)) else { return Step::Done };
        let mut maker = Maker { io: &mut Io { sb, device, cache, zone }, groups, inuse, map, spent };
        match raw.fault {
            Some(fault) => maker.put_unreadable(number, fault, window),
            None => maker.put(number, raw.bytes, raw.device, within, window),
        }
    }
}

impl Volume for Ext4 {
    fn info(&self) -> &VolumeInfo {
        &self.info
    }

    fn sweep(
        &mut self,
        device: &mut dyn BlockDevice,
        from: Cursor,
        window: &mut Window,
    ) -> Result<Swept, VolumeFault> {
        let from = Cursor { inode: from.inode.max(1), ..from };
        sweep::sweep(self, device, from, window)
    }

    fn item(
        &mut self,
        device: &mut dyn BlockDevice,
        inode: u64,
        within: u64,
        window: &mut Window,
    ) -> Result<Swept, VolumeFault> {
        window.clear();
        let Ext4 { sb, groups, cache, zone, inuse, map, spent, raw, .. } = self;
        let number = match u32::try_from(inode) {
            Ok(number) if (1..=sb.inodes_count).contains(&number) => number,
            _ => return Ok(Swept::Done),
        };
        let group = groups.get(sb, device, (number - 1) / sb.inodes_per_group)?;
        if (number - 1) % sb.inodes_per_group >= group.inodes_touched {
            return Ok(Swept::Done);
        }
        let (block, _) = xattr::place(sb, group.inode_table, number);
        let read = cache.load(device, block).err();
        let mut io = Io { sb, device, cache, zone };
        let found = Finder(groups).find(&mut io, number, raw);
        let mut maker = Maker { io: &mut io, groups, inuse, map, spent };
        let step = match (found, read) {
            (Ok(at), _) => maker.put(number, raw, at, within, window),
            (Err(_), Some(fault)) => maker.put_unreadable(number, fault, window),
            (Err(_), None) => Step::Done,
        };
        Ok(match step {
            Step::More(within) => Swept::More(Cursor { inode, within }),
            Step::Done | Step::Full => Swept::Done,
        })
    }

    fn used(
        &mut self,
        device: &mut dyn BlockDevice,
        each: &mut dyn FnMut(Range<u64>),
    ) -> Result<UsedQuality, VolumeFault> {
        let mut io = Io { sb: &self.sb, device, cache: &mut self.cache, zone: &self.zone };
        bitmap::used(&mut io, &mut self.groups, each)
    }

    fn free_is_sure(&self) -> bool {
        self.sb.has_metadata_csum() && self.sb.was_clean
    }
}
