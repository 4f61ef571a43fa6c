//! From an open inode to an item of the window.
//!
//! | of the item | from |
//! |---|---|
//! | kind, mode, owner, links, device, size, times | statx |
//! | generation | the handle |
//! | flags | `FS_IOC_GETFLAGS`; of what cannot be opened, as far as statx gives them (append, immutable, nodump, encrypted) |
//! | project id | `FS_IOC_FSGETXATTR`; XFS's own list; of what cannot be opened on ext4 and btrfs: none |
//! | parent, names | getdents; a name's number through its handle where the listing does not have it (btrfs) |
//! | attributes | listxattr and getxattr, through /proc/self/fd for what cannot be opened |
//! | symlink target | readlink |
//! | extents | `FS_IOC_FIEMAP`, neighbours joined |
//!
//! | flags in FIEMAP | delivered as |
//! |---|---|
//! | UNWRITTEN | unwritten |
//! | DATA_INLINE, alone, and the file is small | the contents, as payload |
//! | ENCODED, DATA_INLINE, UNKNOWN, DELALLOC, NOT_ALIGNED; anything on btrfs or on a realtime device | opaque |
//! | DATA_ENCRYPTED | the item is refused (fscrypt), as by the raw reader |
//! | else | data |
//!
//! Invariants: no symlink is followed and no special file is opened: an inode is opened as a path first, and for reading only
//! when it is a regular file or a directory. What one item does not give costs that item.
//!
//! Source: statx(2), xattr(7), Documentation/filesystems/fiemap.rst.

use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::libc;
use rustix::fs::{AtFlags, FileType, RawDir, SeekFrom, Statx, StatxAttributes, StatxFlags, StatxTimestamp};

use super::Family;
use super::order::{Found, identify};
use super::walk::{ENTRIES_BYTES, is_dots};
use crate::linux::fsattr::{self, Fiemap, MappedExtent};
use crate::volume::part::{Mark, Step, bare, xattr_fits};
use crate::volume::{
    Extent, ExtentState, FLAGS_SHOWN, Item, ItemFault, ItemFaultKind, ItemKind, Name, Payload, Timestamp,
    WINDOW_BYTES_MAX, WINDOW_EXTENTS_MAX, WINDOW_NAMES_MAX, Window, Xattr,
};

/// The flag of btrfs that no other file system has.
const NO_COPY_ON_WRITE: u32 = 0x80_0000;

/// Largest contents that are delivered as payload: what an ext4 inode of 64 KiB or a btrfs leaf could hold.
const INLINE_BYTES_MAX: u64 = 64 << 10;
/// Largest list of attribute names, and largest value, that the kernel gives.
const XATTR_BYTES_MAX: usize = 64 << 10;
/// Longest symlink target in bytes.
const TARGET_BYTES_MAX: usize = 4096;
/// `FS_XFLAG_REALTIME`.
const REALTIME: u32 = 1;

/// `FIEMAP_EXTENT_*`.
mod mapped {
    pub(super) const LAST: u32 = 0x1;
    pub(super) const UNKNOWN: u32 = 0x2;
    pub(super) const DELALLOC: u32 = 0x4;
    pub(super) const ENCODED: u32 = 0x8;
    pub(super) const ENCRYPTED: u32 = 0x80;
    pub(super) const NOT_ALIGNED: u32 = 0x100;
    pub(super) const INLINE: u32 = 0x200;
    pub(super) const UNWRITTEN: u32 = 0x800;
    pub(super) const OPAQUE: u32 = UNKNOWN | DELALLOC | ENCODED | NOT_ALIGNED | INLINE | ENCRYPTED;
}

/// What items are made with.
pub(super) struct Maker<'a> {
    pub(super) root: BorrowedFd<'a>,
    pub(super) family: Family,
    pub(super) block_bytes: u64,
    pub(super) buffers: &'a mut Buffers,
}

/// Memory that is used again: 160 KiB.
pub(super) struct Buffers {
    fiemap: Box<Fiemap>,
    entries: Vec<MaybeUninit<u8>>,
    list: Vec<u8>,
    value: Vec<u8>,
}

impl Buffers {
    pub(super) fn new() -> Buffers {
        Buffers {
            fiemap: Fiemap::new(),
            entries: vec![MaybeUninit::uninit(); ENTRIES_BYTES],
            list: vec![0; XATTR_BYTES_MAX],
            value: vec![0; XATTR_BYTES_MAX],
        }
    }
}

/// An item's fault for an error of the system's.
fn fault(errno: Errno, rule: &'static str) -> ItemFault {
    let kind = match errno {
        Errno::EIO | Errno::ENODATA | Errno::EREMOTEIO => ItemFaultKind::Media,
        Errno::EOPNOTSUPP | Errno::ENOKEY | Errno::E2BIG | Errno::EOVERFLOW => ItemFaultKind::Refused,
        _ => ItemFaultKind::Damaged,
    };
    ItemFault { kind, device_offset: 0, rule }
}

fn errno(errno: rustix::io::Errno) -> Errno {
    Errno::from_raw(errno.raw_os_error())
}

fn time(time: StatxTimestamp) -> Timestamp {
    Timestamp { secs: time.tv_sec, nanos: time.tv_nsec.min(999_999_999) }
}

fn kind_of(mode: u16) -> ItemKind {
    match FileType::from_raw_mode(mode.into()) {
        FileType::Directory => ItemKind::Directory,
        FileType::Symlink => ItemKind::Symlink,
        FileType::CharacterDevice => ItemKind::CharDevice,
        FileType::BlockDevice => ItemKind::BlockDevice,
        FileType::Fifo => ItemKind::Fifo,
        FileType::Socket => ItemKind::Socket,
        FileType::RegularFile | FileType::Unknown => ItemKind::File,
    }
}

/// The inode flags that statx gives.
fn flags_of(attributes: StatxAttributes) -> u32 {
    let pairs = [
        (StatxAttributes::IMMUTABLE, 0x10),
        (StatxAttributes::APPEND, 0x20),
        (StatxAttributes::NODUMP, 0x40),
        (StatxAttributes::ENCRYPTED, 0x800),
    ];
    pairs.iter().filter(|(attribute, _)| attributes.contains(*attribute)).map(|(_, flag)| flag).sum()
}

impl Maker<'_> {
    /// Puts an item into `window`, from `within` on.
    pub(super) fn put(&mut self, found: &Found, within: u64, window: &mut Window) -> Step {
        let mark = Mark::of(window);
        let mut item = bare(found.number, window);
        item.part.first = within == 0;
        item.part.from = within;
        let step = match self.describe(found, within, window, &mut item) {
            Ok(step) => step,
            Err(why) => {
                item.fault.get_or_insert(why);
                Step::Done
            }
        };
        mark.finish(step, item, window)
    }

    fn describe(
        &mut self,
        found: &Found,
        within: u64,
        window: &mut Window,
        item: &mut Item,
    ) -> Result<Step, ItemFault> {
        let path = fsattr::open_handle(self.root, &found.handle, libc::O_PATH | libc::O_NOFOLLOW)
            .map_err(|why| fault(why, "the kernel cannot open the inode"))?;
        let mask = StatxFlags::BASIC_STATS | StatxFlags::BTIME;
        let stat = rustix::fs::statx(&path, c"", AtFlags::EMPTY_PATH, mask)
            .map_err(|why| fault(errno(why), "the kernel cannot stat the inode"))?;
        fill(item, &stat);
        let own = match self.family {
            // Opened by any generation.
            Family::Ext4 => fsattr::handle_of(path.as_fd(), c""),
            Family::Xfs | Family::Btrfs => Ok(found.handle),
        };
        let (_, generation) = own
            .and_then(|handle| identify(&handle))
            .map_err(|why| fault(why, "the kernel does not say the inode's generation"))?;
        item.generation = generation;
        item.project = found.project.unwrap_or(0);
        let is_open = matches!(item.kind, ItemKind::File | ItemKind::Directory);
        let mut realtime = false;
        let open = if is_open {
            let fd =
                self.open(found).map_err(|why| fault(why, "the kernel cannot open the inode for reading"))?;
            if let Ok(flags) = fsattr::flags(fd.as_fd()) {
                item.flags = flags & (FLAGS_SHOWN | NO_COPY_ON_WRITE);
            }
            if let Ok((project, hints, xflags)) = fsattr::project(fd.as_fd()) {
                item.project = project;
                item.hints = hints;
                realtime = xflags & REALTIME != 0;
            }
            Some(fd)
        } else {
            None
        };
        if within == 0 {
            let gone = self.xattrs(open.as_ref().unwrap_or(&path), is_open, window);
            item.fault = gone.err();
            item.xattrs.end = window.xattrs.len() as u32;
        }
        let has_contents = is_open || item.kind == ItemKind::Symlink;
        if has_contents && stat.stx_attributes.contains(StatxAttributes::ENCRYPTED) {
            let rule = "encrypted by fscrypt; only ciphertext is on the device";
            return Err(ItemFault { kind: ItemFaultKind::Refused, device_offset: 0, rule });
        }
        match (item.kind, open) {
            (ItemKind::File, Some(fd)) => {
                let verity = stat.stx_attributes.contains(StatxAttributes::VERITY);
                self.contents(fd.as_fd(), within, verity, realtime, window, item)
            }
            (ItemKind::Directory, Some(fd)) => self.names(found, fd.as_fd(), within, window, item),
            (ItemKind::Symlink, _) => self.target(path.as_fd(), window, item),
            _ => Ok(Step::Done),
        }
    }

    /// Opens a regular file or directory for reading.
    pub(super) fn open(&self, found: &Found) -> Result<OwnedFd, Errno> {
        let flags = libc::O_RDONLY | libc::O_NOFOLLOW | libc::O_NOATIME | libc::O_NONBLOCK;
        fsattr::open_handle(self.root, &found.handle, flags)
    }

    /// All extended attributes, ascending by name.
    fn xattrs(&mut self, fd: &OwnedFd, is_open: bool, window: &mut Window) -> Result<(), ItemFault> {
        let by_proc = format!("/proc/self/fd/{}", fd.as_raw_fd());
        let Buffers { list, value, .. } = &mut *self.buffers;
        let listed = match is_open {
            true => rustix::fs::flistxattr(fd, &mut list[..]),
            false => rustix::fs::listxattr(by_proc.as_str(), &mut list[..]),
        };
        let len = match listed.map_err(errno) {
            Ok(len) => len,
            Err(Errno::EOPNOTSUPP) => return Ok(()),
            Err(why) => return Err(fault(why, "the kernel does not list the attributes")),
        };
        let mut names: Vec<&[u8]> = list[..len].split(|&b| b == 0).filter(|name| !name.is_empty()).collect();
        names.sort_unstable();
        let (mut taken, first) = (0, window.xattrs.len());
        let mut broken = Ok(());
        for name in names {
            // XFS shows its access control lists twice.
            if name.starts_with(b"trusted.SGI_ACL_") {
                continue;
            }
            let got = match is_open {
                true => rustix::fs::fgetxattr(fd, name, &mut value[..]),
                false => rustix::fs::getxattr(by_proc.as_str(), name, &mut value[..]),
            };
            let len = match got {
                Ok(len) => len,
                Err(why) => {
                    broken = Err(fault(errno(why), "the kernel does not give an attribute"));
                    continue;
                }
            };
            xattr_fits(window.xattrs.len() - first, taken, name.len() + len, 0)?;
            taken += name.len() + len;
            let name = window.put_bytes(name);
            let value = window.put_bytes(&value[..len]);
            window.xattrs.push(Xattr { name, value });
        }
        broken
    }

    /// A symlink's target.
    fn target(
        &mut self,
        path: BorrowedFd<'_>,
        window: &mut Window,
        item: &mut Item,
    ) -> Result<Step, ItemFault> {
        let len = rustix::fs::readlinkat_raw(path, c"", &mut self.buffers.value[..TARGET_BYTES_MAX])
            .map_err(|why| fault(errno(why), "the kernel does not give the symlink's target"))?;
        item.payload = Payload::Target(window.put_bytes(&self.buffers.value[..len]));
        Ok(Step::Done)
    }

    /// A directory's entries from position `within` on.
    fn names(
        &mut self,
        found: &Found,
        dir: BorrowedFd<'_>,
        within: u64,
        window: &mut Window,
        item: &mut Item,
    ) -> Result<Step, ItemFault> {
        let unreadable = |why| fault(why, "the kernel cannot read the directory");
        let (parent, _) = fsattr::handle_of(dir, c"..").and_then(|h| identify(&h)).map_err(unreadable)?;
        item.parent = parent;
        rustix::fs::seek(dir, SeekFrom::Start(within)).map_err(|why| unreadable(errno(why)))?;
        let subvolume = found.number - identify_low(found.number);
        let (mut next, first) = (within, window.names.len());
        let mut entries = RawDir::new(dir, &mut self.buffers.entries);
        while let Some(entry) = entries.next() {
            let entry = entry.map_err(|why| unreadable(errno(why)))?;
            let name = entry.file_name();
            if is_dots(name) || entry.ino() == 0 {
                next = entry.next_entry_cookie();
                continue;
            }
            let bytes = name.to_bytes();
            if window.names.len() >= WINDOW_NAMES_MAX || window.bytes.len() + bytes.len() > WINDOW_BYTES_MAX {
                if !window.items.is_empty() {
                    return Ok(Step::Full);
                }
                if next > within {
                    return Ok(Step::More(next));
                }
                // Attributes alone may fill a window; positions that do not ascend would never end.
                if window.names.len() > first {
                    return Err(unreadable(Errno::EUCLEAN));
                }
            }
            let inode = match self.family {
                Family::Ext4 | Family::Xfs => Some(entry.ino()),
                Family::Btrfs if entry.file_type() != FileType::Directory => Some(subvolume | entry.ino()),
                Family::Btrfs => below(dir, name).map_err(unreadable)?,
            };
            if let Some(inode) = inode {
                let name = window.put_bytes(bytes);
                window.names.push(Name { name, inode });
            }
            next = entry.next_entry_cookie();
        }
        Ok(Step::Done)
    }

    /// A file's extents from byte `within` on, or its contents when they are in the inode.
    fn contents(
        &mut self,
        fd: BorrowedFd<'_>,
        within: u64,
        verity: bool,
        realtime: bool,
        window: &mut Window,
        item: &mut Item,
    ) -> Result<Step, ItemFault> {
        let block = self.block_bytes;
        // Behind the end of a verity file is its hash tree, which is neither data nor preallocation.
        let end = if verity { item.size.next_multiple_of(block) } else { u64::MAX };
        let addressed = self.family != Family::Btrfs && !realtime;
        let first = window.extents.len();
        let mut from = within;
        loop {
            let unmapped = |why| fault(why, "the kernel does not map the file's extents");
            let mapped = self.buffers.fiemap.map(fd, from).map_err(unmapped)?;
            let Some(last) = mapped.last() else { return Ok(Step::Done) };
            let (reached, is_end) = (last.logical.saturating_add(last.len), last.flags & mapped::LAST != 0);
            if let [only] = mapped
                && only.flags & mapped::INLINE != 0
                && only.logical == 0
                && item.size <= INLINE_BYTES_MAX
            {
                return self.inline(fd, window, item);
            }
            for extent in mapped {
                // Those that lie in one block of the file system, rounded to it, would overlap.
                let low = window.extents[first..].last().map_or(from, |last| last.logical + last.len);
                let Some(extent) = convert(extent, low, end, block, addressed) else { continue };
                if join(&mut window.extents[first..], &extent) {
                    continue;
                }
                if window.extents.len() >= WINDOW_EXTENTS_MAX {
                    return Ok(Step::More(extent.logical));
                }
                window.extents.push(extent);
            }
            if is_end {
                return Ok(Step::Done);
            }
            if reached <= from {
                return Err(unmapped(Errno::EUCLEAN));
            }
            from = reached;
        }
    }

    /// The whole contents as payload.
    fn inline(
        &mut self,
        fd: BorrowedFd<'_>,
        window: &mut Window,
        item: &mut Item,
    ) -> Result<Step, ItemFault> {
        if !window.items.is_empty() && window.bytes.len() + item.size as usize > WINDOW_BYTES_MAX {
            return Ok(Step::Full);
        }
        let start = window.bytes.len();
        let end = start + item.size as usize;
        window.bytes.resize(end, 0);
        if let Err(why) = read_at(fd, 0, &mut window.bytes[start..]) {
            window.bytes.truncate(start);
            return Err(fault(why, "the kernel cannot read the contents"));
        }
        item.payload = Payload::Inline(start as u32..end as u32);
        Ok(Step::Done)
    }
}

/// The bits of a number above these are its subvolume.
fn identify_low(number: u64) -> u64 {
    number & ((1 << super::order::BTRFS_INODE_BITS) - 1)
}

/// The number of a directory below another one of a btrfs; `None` for the empty directory that stands in a snapshot where the
/// origin has another subvolume: it has no inode of its own.
fn below(dir: BorrowedFd<'_>, name: &CStr) -> Result<Option<u64>, Errno> {
    let stat = rustix::fs::statx(dir, name, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::INO).map_err(errno)?;
    if stat.stx_ino == super::order::BTRFS_PLACEHOLDER {
        return Ok(None);
    }
    let (number, _) = identify(&fsattr::handle_of(dir, name)?)?;
    Ok(Some(number))
}

/// Reads from byte `offset` on; what is behind the end is left zero.
pub(super) fn read_at(fd: BorrowedFd<'_>, offset: u64, out: &mut [u8]) -> Result<(), Errno> {
    let mut done = 0;
    while done < out.len() {
        match rustix::io::pread(fd, &mut out[done..], offset + done as u64).map_err(errno) {
            Ok(0) => break,
            Ok(n) => done += n,
            Err(Errno::EINTR) => {}
            Err(why) => return Err(why),
        }
    }
    out[done..].fill(0);
    Ok(())
}

/// An extent as the window holds it: cut to `from..end`, in whole blocks; `None` when nothing is left.
fn convert(mapped: &MappedExtent, from: u64, end: u64, block: u64, addressed: bool) -> Option<Extent> {
    let state = if mapped.flags & mapped::UNWRITTEN != 0 {
        ExtentState::Unwritten
    } else if addressed && mapped.flags & mapped::OPAQUE == 0 {
        ExtentState::Data
    } else {
        ExtentState::Opaque
    };
    let has_address = addressed && mapped.flags & mapped::OPAQUE == 0;
    let cut = from.saturating_sub(mapped.logical);
    let mut logical = mapped.logical.saturating_add(cut);
    let mut to = mapped.logical.saturating_add(mapped.len);
    if !has_address {
        logical = logical / block * block;
        to = to.checked_next_multiple_of(block).unwrap_or(to);
    }
    let logical = logical.max(from);
    let len = to.min(end).checked_sub(logical).filter(|len| *len > 0)?;
    let physical = if has_address { mapped.physical + (logical - mapped.logical) } else { 0 };
    Some(Extent { logical, physical, len, state })
}

/// Makes the last of `extents` longer when `next` goes on where it ends.
fn join(extents: &mut [Extent], next: &Extent) -> bool {
    let Some(last) = extents.last_mut() else { return false };
    let follows = last.logical + last.len == next.logical
        && last.state == next.state
        && (next.physical == 0 && last.physical == 0 || last.physical + last.len == next.physical);
    if follows {
        last.len += next.len;
    }
    follows
}

/// When an inode was made, if the file system keeps it.
pub(super) fn created(inode: BorrowedFd<'_>) -> Option<Timestamp> {
    let stat = rustix::fs::statx(inode, c"", AtFlags::EMPTY_PATH, StatxFlags::BTIME).ok()?;
    (stat.stx_mask & StatxFlags::BTIME.bits() != 0).then(|| time(stat.stx_btime))
}

/// The attributes that statx gives.
fn fill(item: &mut Item, stat: &Statx) {
    item.kind = kind_of(stat.stx_mode);
    item.mode = stat.stx_mode & 0o7777;
    item.uid = stat.stx_uid;
    item.gid = stat.stx_gid;
    item.links = stat.stx_nlink;
    if matches!(item.kind, ItemKind::CharDevice | ItemKind::BlockDevice) {
        item.rdev = (stat.stx_rdev_major, stat.stx_rdev_minor);
    }
    if item.kind != ItemKind::Directory {
        item.size = stat.stx_size;
    }
    item.atime = time(stat.stx_atime);
    item.mtime = time(stat.stx_mtime);
    item.ctime = time(stat.stx_ctime);
    item.btime = (stat.stx_mask & StatxFlags::BTIME.bits() != 0).then(|| time(stat.stx_btime));
    item.flags = flags_of(stat.stx_attributes);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapped(logical: u64, physical: u64, len: u64, flags: u32) -> MappedExtent {
        MappedExtent { logical, physical, len, flags, ..MappedExtent::default() }
    }

    #[test]
    fn extents_are_cut_and_judged() {
        let data = mapped(4096, 1 << 20, 8192, 0);
        let whole = Extent { logical: 4096, physical: 1 << 20, len: 8192, state: ExtentState::Data };
        assert_eq!(convert(&data, 0, u64::MAX, 4096, true), Some(whole));
        let rest = Extent { logical: 8192, physical: (1 << 20) + 4096, len: 4096, state: ExtentState::Data };
        assert_eq!(convert(&data, 8192, u64::MAX, 4096, true), Some(rest));
        assert_eq!(convert(&data, 0, 4096, 4096, true), None);
        let opaque = Extent { logical: 4096, physical: 0, len: 8192, state: ExtentState::Opaque };
        assert_eq!(convert(&data, 0, u64::MAX, 4096, false), Some(opaque));
        for flag in [mapped::UNKNOWN, mapped::DELALLOC, mapped::ENCODED, mapped::NOT_ALIGNED, mapped::INLINE]
        {
            let extent = convert(&mapped(0, 77, 100, flag), 0, u64::MAX, 4096, true);
            assert_eq!(
                extent,
                Some(Extent { logical: 0, physical: 0, len: 4096, state: ExtentState::Opaque })
            );
        }
        let unwritten = convert(&mapped(0, 4096, 4096, mapped::UNWRITTEN), 0, u64::MAX, 4096, true);
        assert_eq!(unwritten.map(|e| (e.state, e.physical)), Some((ExtentState::Unwritten, 4096)));
    }

    #[test]
    fn neighbours_join_only_when_they_follow_each_other_on_the_device() {
        let extent = |logical, physical| Extent { logical, physical, len: 4096, state: ExtentState::Data };
        let mut list = [extent(0, 8192)];
        assert!(!join(&mut list, &extent(4096, 4096)));
        assert!(join(&mut list, &extent(4096, 12288)));
        assert_eq!(list[0].len, 8192);
        let opaque = |logical| Extent { logical, physical: 0, len: 4096, state: ExtentState::Opaque };
        let mut list = [opaque(0)];
        assert!(!join(&mut list, &opaque(8192)));
        assert!(join(&mut list, &opaque(4096)));
    }
}
