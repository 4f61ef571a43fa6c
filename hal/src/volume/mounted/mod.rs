//! Volumes that the kernel reads: the device is mounted read-only, and items are read one by one. The
//! fallback where no raw reader exists, and the reader to compare with where one does ([`super::verify`]).
//!
//! | file system | order, by | contents | a log to replay is refused by |
//! |---|---|---|---|
//! | ext2, ext3, ext4 | one walk over the names, a bit for each inode | raw, by FIEMAP | its feature bit, before the mount |
//! | XFS | bulkstat | raw, by FIEMAP | the kernel: it may not write, and reports that |
//! | btrfs, one device, all subvolumes | tree search for inode items | through the kernel | its superblock, before the mount |
//!
//! Others are refused by name. They could be mounted as well, but neither their order nor their handles are known here.
//!
//! How the promises are kept
//! - The mount (`linux/mount.rs`) is visible to no other process, uses a device that the kernel itself
//!   refuses to write, and ends when the volume is dropped or the process is killed. Nothing is recovered,
//!   nothing on the source changes (P7).
//! - Sweeps go in ascending order of numbers, as the trait demands. A walk is not in that order, and sorting its result takes memory
//!   that grows with the volume. What was weighed:
//!
//!   | order from | memory | cost | taken |
//!   |---|---|---|---|
//!   | a list that the file system keeps (bulkstat, inode items) | a buffer | reads the inode index, in order | XFS, btrfs |
//!   | a walk, a bit for each inode number, items opened by number | 16 MiB, and a walk for each 128 Mi numbers | readdir of all directories | ext4 |
//!   | a walk, 16 bytes for each inode, sorted | grows; needs a limit that refuses | readdir | no |
//!   | a walk, sorted runs spilled to disk | bounded | needs a writable place on a node that may have none | no |
//!   | GETFSMAP | bounded | order of the device, not of inodes; owners with rmapbt only | no |
//!
//! - Items are opened by handle, from their number (`order.rs`): no paths, so no path changes meaning and no symlink is followed.
//!   A hard-linked inode is one item; its names come with the directories that hold them, as from the raw readers.
//! - Data that lies on the device as it is comes as extents, and is read raw, in physical order. What does
//!   not is [`ExtentState::Opaque`](super::ExtentState::Opaque) and read by [`Volume::read_at`]; its pages
//!   are dropped from the page cache.
//!
//! Memory: 16 MiB of bits, a stack of at most 16 MiB and, with inline_data, 20 MiB of parents (ext4); below 1 MiB else.
//!
//! Does not: mount damaged superblocks, guest images inside of files, or anything that was not asked for: the
//! kernel's parsers check less than ours, so a policy must name this reader. Deliver the empty directory that
//! a btrfs snapshot has in place of a subvolume below it; `nodatacow` and properties of btrfs other than as
//! attributes; used-block maps.
//!
//! | file | what |
//! |---|---|
//! | `probe` | what is on the device, and whether it may be mounted |
//! | `order`, `walk` | numbers and handles, ascending |
//! | `item` | from an inode to an item |
//!
//! Source: ours.

mod item;
mod order;
mod probe;
mod walk;

use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};

use self::item::{Buffers, Maker};
use self::order::Order;
use super::part::Step;
use super::{Cursor, Swept, Timestamp, UsedQuality, Volume, VolumeFault, VolumeInfo, Window};
use crate::block::{BlockDevice, Fault, FaultKind};
use crate::linux::mount::{Detached, MountFault};

/// Which file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    Ext4,
    Xfs,
    Btrfs,
}

impl Family {
    /// Its name in mount(8).
    fn name(self) -> &'static str {
        match self {
            Family::Ext4 => "ext4",
            Family::Xfs => "xfs",
            Family::Btrfs => "btrfs",
        }
    }
}

/// What is known of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recovery {
    /// No recovery: a log with anything to replay is refused.
    Refused,
    /// A raw reader has proven that replaying would change nothing (a frozen XFS has a log with its superblock in it, which only
    /// such a reader tells from a dirty one): mounted as it is.
    ProvenClean,
}

/// A volume read through the kernel.
pub struct Mounted {
    info: VolumeInfo,
    family: Family,
    mount: Detached,
    order: Order,
    buffers: Buffers,
    /// The file that was read last.
    open: Option<(u64, OwnedFd)>,
}

impl Mounted {
    /// Mounts what is on `path`, which `device` is opened on. Needs root. Reads all inodes of an XFS once, to know when it was
    /// written last.
    ///
    /// # Errors
    /// [`VolumeFault::Unrecognised`] when it is no file system of the module's table; `Refused` without root, with a log to replay, and
    /// for whatever the kernel refuses; `Damaged` when the superblock's checksum is wrong; `Device`.
    pub fn open(
        path: &Path,
        device: &mut dyn BlockDevice,
        recovery: Recovery,
    ) -> Result<Mounted, VolumeFault> {
        let probed = match probe::probe(device, recovery) {
            Err(VolumeFault::Unrecognised(None)) => return Err(super::detect::recognise(device)?),
            other => other?,
        };
        let family = probed.family;
        let mount = Detached::mount(path, family.name(), &probed.options)
            .map_err(|fault| mount_fault(family, &fault))?;
        let mut info = probed.info;
        info.size_bytes = device.geometry().size_bytes;
        let broken = |errno: Errno| VolumeFault::Damaged {
            what: format!("{} as the kernel mounts it: {}", family.name(), errno.desc()),
            device_offset: 0,
        };
        let root = mount.root();
        let handle = crate::linux::fsattr::handle_of(root, c"").map_err(broken)?;
        (info.root, _) = order::identify(&handle).map_err(broken)?;
        if let Ok(stat) = rustix::fs::fstatvfs(root) {
            info.block_bytes = if info.block_bytes == 0 { stat.f_bsize as u32 } else { info.block_bytes };
            info.used_bytes = stat.f_blocks.saturating_sub(stat.f_bfree).saturating_mul(stat.f_frsize);
        }
        if info.created == Timestamp::default() {
            info.created = item::created(root).unwrap_or_default();
        }
        match family {
            Family::Ext4 => {}
            Family::Xfs => (info.inodes_used, info.written_secs) = order::xfs_sums(root).map_err(broken)?,
            Family::Btrfs => info.written_secs = order::btrfs_latest(root).map_err(broken)?,
        }
        info.features.push(format!("mounted: {}", options_text(&probed.options)));
        let has_inline = info.features.iter().any(|name| name == "inline_data");
        let order = Order::new(family, info.inode_max, has_inline);
        Ok(Mounted { info, family, mount, order, buffers: Buffers::new(), open: None })
    }

    fn maker(&mut self) -> (Maker<'_>, &mut Order) {
        let maker = Maker {
            root: self.mount.root(),
            family: self.family,
            block_bytes: u64::from(self.info.block_bytes.max(1)),
            buffers: &mut self.buffers,
        };
        (maker, &mut self.order)
    }

    fn order_fault(&self, errno: Errno) -> VolumeFault {
        let what = match errno {
            Errno::E2BIG => "a tree of more waiting directories than the reader's bound of 1048576",
            Errno::ENOSPC => {
                "an ext4 with inline_data and more directories than the reader's bound of 1048576"
            }
            Errno::EOVERFLOW => "a btrfs with more than 2^40 inodes in a subvolume or 2^23 subvolumes",
            other => {
                return VolumeFault::Damaged {
                    what: format!(
                        "{}: the kernel does not list the inodes: {}",
                        self.family.name(),
                        other.desc()
                    ),
                    device_offset: 0,
                };
            }
        };
        VolumeFault::Refused { what: what.to_owned(), way_out: "back it up as an image" }
    }
}

fn options_text(options: &probe::Options) -> String {
    let one = |(name, value): &(&str, Option<&str>)| match value {
        Some(value) => format!("{name}={value}"),
        None => (*name).to_owned(),
    };
    std::iter::once("ro".to_owned()).chain(options.iter().map(one)).collect::<Vec<_>>().join(",")
}

/// What a failed mount means.
fn mount_fault(family: Family, fault: &MountFault) -> VolumeFault {
    let name = family.name();
    let said = if fault.said.is_empty() { String::new() } else { format!(" ({})", fault.said) };
    let refused = |what: String, way_out| VolumeFault::Refused { what, way_out };
    match fault.errno {
        Errno::EPERM | Errno::EACCES => refused(
            format!("mounting {name} without root ({}: {})", fault.step, fault.errno.desc()),
            "run as root (CAP_SYS_ADMIN and CAP_DAC_READ_SEARCH), or back it up as an image",
        ),
        Errno::ENODEV if fault.step == "fsopen" => {
            refused(format!("this kernel has no {name}"), "load its module, or back it up as an image")
        }
        Errno::ENOSYS => refused("this kernel is older than 5.2".to_owned(), "back it up as an image"),
        Errno::EROFS if fault.step == "mount" => {
            refused(format!("{name} log: it holds changes{said}"), probe::LOG_WAY_OUT)
        }
        errno => refused(
            format!("{name}: {}: {}{said}", fault.step, errno.desc()),
            "see the kernel's log; back it up as an image, or mount and unmount a writable clone",
        ),
    }
}

impl Volume for Mounted {
    fn info(&self) -> &VolumeInfo {
        &self.info
    }

    fn sweep(
        &mut self,
        _device: &mut dyn BlockDevice,
        from: Cursor,
        window: &mut Window,
    ) -> Result<Swept, VolumeFault> {
        window.clear();
        let (mut maker, order) = self.maker();
        let (mut next, mut within) = (from.inode, from.within);
        let failed = loop {
            let found = match order.next(maker.root, next) {
                Ok(Some(found)) => found,
                Ok(None) => return Ok(Swept::Done),
                Err(errno) => break errno,
            };
            if found.number != next {
                within = 0;
            }
            let here = Cursor { inode: found.number, within };
            if window.is_full() {
                return Ok(Swept::More(here));
            }
            match maker.put(&found, within, window) {
                Step::Done => (next, within) = (found.number + 1, 0),
                Step::Full => return Ok(Swept::More(here)),
                Step::More(within) => return Ok(Swept::More(Cursor { inode: found.number, within })),
            }
        };
        Err(self.order_fault(failed))
    }

    fn item(
        &mut self,
        _device: &mut dyn BlockDevice,
        inode: u64,
        within: u64,
        window: &mut Window,
    ) -> Result<Swept, VolumeFault> {
        window.clear();
        let (mut maker, order) = self.maker();
        let found = match order.find(maker.root, inode) {
            Ok(Some(found)) => found,
            Ok(None) => return Ok(Swept::Done),
            Err(errno) => return Err(self.order_fault(errno)),
        };
        Ok(match maker.put(&found, within, window) {
            Step::More(within) => Swept::More(Cursor { inode, within }),
            Step::Done | Step::Full => Swept::Done,
        })
    }

    /// Always `Unknown`: the kernel has no map for all of these file systems, and the raw readers have their
    /// own.
    fn used(
        &mut self,
        device: &mut dyn BlockDevice,
        each: &mut dyn FnMut(Range<u64>),
    ) -> Result<UsedQuality, VolumeFault> {
        each(0..device.geometry().size_bytes);
        Ok(UsedQuality::Unknown)
    }

    fn read_at(
        &mut self,
        _device: &mut dyn BlockDevice,
        inode: u64,
        offset: u64,
        out: &mut [u8],
    ) -> Result<(), Fault> {
        let len = out.len() as u64;
        let fault = |errno: Errno| Fault {
            kind: match FaultKind::from_errno(errno as i32) {
                FaultKind::Gone => FaultKind::Gone,
                // Whatever else the kernel says is about this file, not about the device.
                _ => FaultKind::Media,
            },
            device_offset: offset,
            len,
            errno: errno as i32,
        };
        if self.open.as_ref().is_none_or(|(open, _)| *open != inode) {
            if let Some((_, before)) = self.open.take() {
                forget(&before);
            }
            let (maker, order) = self.maker();
            let found = order.find(maker.root, inode).map_err(fault)?.ok_or(fault(Errno::ESTALE))?;
            let file = maker.open(&found).map_err(fault)?;
            self.open = Some((inode, file));
        }
        let Some((_, file)) = &self.open else { return Err(fault(Errno::ESTALE)) };
        item::read_at(file.as_fd(), offset, out).map_err(fault)
    }
}

/// The page cache need not keep what was read.
fn forget(file: &OwnedFd) {
    // Advice: nothing is lost when it is not taken.
    let _ = posix_fadvise(file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED);
}
