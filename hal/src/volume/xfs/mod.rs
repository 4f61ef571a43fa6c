//! XFS version 5, read from the raw device.
//!
//! ```text
//!  superblock ──> group headers ──> inode trees ──> inode chunks ──> inode ──┬─> extent tree ──> runs of blocks
//!  superblock.rs  group.rs          btree.rs        chunks.rs        inode.rs│   map.rs
//!  feature.rs                                                                ├─> attributes  xattr.rs, acl.rs
//!  log.rs, log_items.rs                                                      ├─> directory   dir.rs
//!                                                                            └─> symlink     symlink.rs
//!
//!  item.rs   inode -> item of a window, in parts when it is large             plan.rs    what to read ahead
//!  used.rs   used blocks      inuse.rs  names that lead nowhere               checksum.rs, field.rs
//!  Shared with ext4: ../sweep.rs, ../piece.rs, ../plan.rs, ../cache.rs
//! ```
//!
//! | read | how |
//! |---|---|
//! | blocks 1..64 KiB, sectors, inodes 256..2048, stripes, any number of groups | geometry of `superblock.rs`, `group.rs` |
//! | crc, meta_uuid | checksum, uuid, owner and own address of every structure verified before its bytes are used |
//! | finobt, rmapbt, inobtcount | not needed: the inode trees have all of it |
//! | sparse | holes in chunks are not read |
//! | extents, extent trees, reflink (shared extents), unwritten extents, nrext64, exchange | see `map.rs` |
//! | directories of all forms, ftype, dirents up to 64 KiB blocks | names as stored |
//! | attributes of all forms up to 64 KiB, POSIX ACLs, parent | parent pointers are not attributes, as in the kernel |
//! | bigtime, project ids, flags | see `inode.rs` |
//! | quota, realtime bitmap and summary | their inodes are not items |
//! | realtime files | attributes; contents are [`ItemFaultKind::Refused`](super::ItemFaultKind::Refused) |
//!
//! | refused | why |
//! |---|---|
//! | a log that holds changes | replaying is the kernel's work; see `log.rs` for what a clean and a frozen log are |
//! | an external log | it cannot be seen from here |
//! | format versions below 5, needsrepair, metadir, zoned, unknown incompatible bits, a mkfs not finished | by name |
//! | unknown read-only-compatible bits | not refused: by the format readers may go on; `used` is then `Unknown` |
//!
//! Invariants
//! - Nothing on the device is trusted: no input panics, loops for ever, or makes memory grow. The reader holds at most
//!   2 MiB of cache, 256 KiB of read buffer, 1 MiB of inodes, 512 KiB of the inode trees and some blocks and lists, below 8 MiB with the
//!   2 MiB that a device reads ahead into.
//! - One call of `sweep` does bounded work: so many pieces of inodes (`sweep.rs`), one window.
//! - A sound volume is delivered without a fault; a changed byte of metadata is never delivered without one.
//! - Inodes ascend: group by group, in the order of their inode trees.
//!
//! A broken inode tree or group header ends the sweep with its name, like ext4's group descriptors.
//!
//! What [`VolumeInfo::state`] proves: every unmount and every freeze appends at least one record to the log, which moves its
//! head; so two quiesced volumes with the same head, last record and superblock are the same. A volume that was snapshotted live, without a
//! freeze, is refused when its log holds anything; what that cannot show is a file overwritten in place in the seconds before the
//! snapshot whose new times had not reached the log.
//!
//! [`VolumeInfo::written_secs`] is the newest inode change in the last records of the log, the least of several: XFS keeps no other
//! time of writing. It is not later than the last write, and 0 when these records hold no change.
//!
//! Does not: replay the log, use the superblock's copies, compare link counts, use finobt, rmapbt and refcount trees. Source:
//! kernel Documentation/filesystems/xfs, `fs/xfs/libxfs`.

mod acl;
mod btree;
mod checksum;
mod chunks;
mod dir;
mod feature;
mod field;
mod group;
mod inode;
mod inuse;
mod item;
mod log;
mod log_items;
mod map;
mod plan;
mod superblock;
mod symlink;
mod used;
mod xattr;

use std::ops::Range;

use self::chunks::{Chunks, Trees};
use self::inuse::InUse;
use self::item::{Maker, Spent};
use self::map::{Io, Map};
use self::plan::{Guesser, Lead};
use self::superblock::{SECTOR_BYTES_MIN, Superblock};
use super::cache::Cache;
use super::part::Step;
use super::piece::{Pieces, Seek};
use super::plan::Plan;
use super::sweep::{self, Inodes};
use super::{Cursor, Swept, UsedQuality, Volume, VolumeFault, VolumeInfo, Window};
use crate::block::{BlockDevice, FaultKind};

/// A reader of one XFS volume.
pub struct Xfs {
    info: VolumeInfo,
    sb: Superblock,
    trees: Trees,
    pieces: Pieces,
    /// For items asked for alone, so that these do not disturb a sweep.
    lookup: Trees,
    cache: Cache,
    inuse: InUse,
    plan: Plan<Lead>,
    map: Map,
    spent: Spent,
    raw: Vec<u8>,
}

impl Xfs {
    /// Opens the volume on `device`. Reads and checks the superblock and the end of the log.
    ///
    /// # Errors
    /// [`VolumeFault::Unrecognised`] without the magic number; `Refused`, `Damaged` and `Device` as their docs say.
    pub fn open(device: &mut dyn BlockDevice) -> Result<Xfs, VolumeFault> {
        let size_bytes = device.geometry().size_bytes;
        let mut head = [0; SECTOR_BYTES_MIN];
        if size_bytes < SECTOR_BYTES_MIN as u64 {
            return Err(VolumeFault::Unrecognised(None));
        }
        device.read_at(0, &mut head)?;
        let mut sector = vec![0; superblock::sector_bytes(&head)?];
        if size_bytes < sector.len() as u64 {
            return Err(VolumeFault::Unrecognised(None));
        }
        device.read_at(0, &mut sector)?;
        let (sb, mut info) = Superblock::parse(&sector, size_bytes)?;
        let end = log::check(&sb, &sector, device)?;
        let parts = [checksum::crc32c(0, &sector), end.head.0, end.head.1, end.record];
        let mut state = [0; 16];
        for (place, part) in state.chunks_exact_mut(4).zip(parts) {
            place.copy_from_slice(&part.to_le_bytes());
        }
        info.state = Some(state);
        info.written_secs = end.newest_secs;
        let mut volume = Xfs {
            info,
            cache: Cache::new(sb.block_bits),
            pieces: Pieces::new(sb.inode_bytes(), sb.block_bytes()),
            sb,
            trees: Trees::default(),
            lookup: Trees::default(),
            inuse: InUse::default(),
            plan: Plan::new(),
            map: Map::default(),
            spent: Spent::default(),
            raw: Vec::new(),
        };
        // The superblock does not say when it was made, the root does. A root that cannot be read costs that, here.
        let (mut window, root) = (Window::default(), volume.info.root);
        if volume.item(device, root, 0, &mut window).is_ok() {
            volume.info.created = window.items.first().and_then(|item| item.btime).unwrap_or_default();
        }
        Ok(volume)
    }
}

impl Inodes for Xfs {
    fn seek(&mut self, device: &mut dyn BlockDevice, number: u64) -> Result<Seek, VolumeFault> {
        let Xfs { sb, trees, pieces, cache, .. } = self;
        pieces.seek(&mut Chunks { sb, cache, trees }, device, number)
    }

    fn fills(&self) -> u64 {
        self.pieces.fills()
    }

    fn put(&mut self, device: &mut dyn BlockDevice, number: u64, within: u64, window: &mut Window) -> Step {
        let Xfs { sb, pieces, cache, inuse, plan, map, spent, .. } = self;
        plan.cover(&Guesser(sb), device, cache, pieces, number);
        let Some(raw) = pieces.get(number) else { return Step::Done };
        let mut maker = Maker { io: &mut Io { sb, device, cache }, inuse, map, spent };
        match raw.fault {
            Some(fault) => maker.put_unreadable(number, fault, raw.is_free, window),
            None => maker.put(number, raw.bytes, raw.device, raw.is_free, within, window),
        }
    }
}

impl Volume for Xfs {
    fn info(&self) -> &VolumeInfo {
        &self.info
    }

    fn sweep(
        &mut self,
        device: &mut dyn BlockDevice,
        from: Cursor,
        window: &mut Window,
    ) -> Result<Swept, VolumeFault> {
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
        let Xfs { sb, lookup, cache, inuse, map, spent, raw, .. } = self;
        let Some((is_free, block, byte)) = lookup.find(sb, device, cache, inode)? else {
            return Ok(Swept::Done);
        };
        let read = cache.load(device, block);
        let failed = match read {
            Ok(bytes) => {
                raw.clear();
                raw.extend_from_slice(bytes.get(byte..byte + sb.inode_bytes()).unwrap_or_default());
                None
            }
            Err(fault) if fault.kind == FaultKind::Media => Some(fault),
            Err(fault) => return Err(fault.into()),
        };
        let mut io = Io { sb, device, cache };
        let mut maker = Maker { io: &mut io, inuse, map, spent };
        let step = match failed {
            Some(fault) => maker.put_unreadable(inode, fault, is_free, window),
            None => maker.put(inode, raw, sb.offset(block) + byte as u64, is_free, within, window),
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
        used::used(&mut Io { sb: &self.sb, device, cache: &mut self.cache }, each)
    }

    /// A log with anything to replay and a need for repair are refused at open; every block of version 5 has a checksum.
    fn free_is_sure(&self) -> bool {
        true
    }
}
