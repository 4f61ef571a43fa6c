//! Volumes: the contents of a block device. A reader turns raw device bytes into items, names and extents; it
//! never writes and never trusts what it reads. All but [`mounted`] do without the kernel's help.
//!
//! The one call that matters is [`Volume::sweep`]: it fills a [`Window`] with the items of the next stretch
//! of inodes, in ascending inode order, with their extents, names (of directories), extended attributes and
//! small payloads, and returns where to go on. Windows have fixed capacities, so memory does not depend on
//! the volume (P3); an item too large for one window (a file with a million extents, a directory with a
//! million names) is delivered in parts.
//!
//! ```text
//!  Window   items    [Item]       ascending by inode; an item's `extents`, `names`, `xattrs` are index ranges into:
//!           extents  [Extent]     ascending by logical offset within an item; what no extent covers is a hole
//!           names    [Name]       entries of a directory, in on-disk order, without "." and ".."
//!           xattrs   [Xattr]      ascending by name within an item
//!           bytes    [u8]         names, targets, inline data and xattr values; everything else holds ranges into it
//! ```
//!
//! Errors come in two sizes. A [`VolumeFault`] ends the sweep: the volume is refused by name, or the metadata
//! that all items depend on (superblock, group descriptors, inode index) cannot be read. An [`ItemFault`]
//! belongs to one item: it costs that item, or part of it, never the rest, and is delivered as part of the
//! window.
//!
//! Data is read by the caller, from extents, in physical order. Only what has no address ([`ExtentState::Opaque`]) is asked of the
//! volume, by [`Volume::read_at`].
//!
//! ```text
//!  ext4, xfs     the raw readers          over   sweep -> piece (inodes, the next ones read ahead), plan -> cache (blocks)
//!  mounted       through the kernel              detect    which reader; image    the whole device as one item
//!  verify        raw against mounted             check     damage, blocks with two owners
//! ```
//!
//! Does not: decide what to back up, sort by address.
//! Source: ours; each reader names its own.

mod cache;
pub mod check;
pub mod detect;
#[cfg(feature = "ext4")]
pub mod ext4;
mod features;
pub mod image;
#[cfg(feature = "mounted")]
pub mod mounted;
mod part;
mod piece;
mod plan;
mod ranges;
mod sweep;
pub mod verify;
#[cfg(feature = "xfs")]
pub mod xfs;

use std::fmt;
use std::ops::Range;

use crate::block::{BlockDevice, Fault, FaultKind};

/// Most items in a window. With the other limits it keeps a window near 1 MiB whatever the volume holds.
pub const WINDOW_ITEMS_MAX: usize = 2048;
/// Most extents in a window (32 bytes each).
pub const WINDOW_EXTENTS_MAX: usize = 4096;
/// Most directory entries in a window.
pub const WINDOW_NAMES_MAX: usize = 8192;
/// Most bytes of names, symlink targets, inline data and extended attributes in a window, beyond which it closes. One item's
/// attributes are never split, so a window may overrun by [`ITEM_XATTR_BYTES_MAX`].
pub const WINDOW_BYTES_MAX: usize = 256 << 10;
/// Most bytes of extended attributes (names and values) taken from one item; an item with more is faulted by name.
pub const ITEM_XATTR_BYTES_MAX: usize = 512 << 10;
/// Most extended attributes taken from one item, which then has 512 KiB of them at the smallest useful size. An item with more (XFS
/// sets no bound) keeps these and is faulted by name.
pub const ITEM_XATTRS_MAX: usize = 16384;

/// Kinds of file system that a reader exists for or that is recognised in order to refuse it well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VolumeKind {
    /// ext2, ext3, ext4.
    Ext4,
    /// XFS version 5.
    Xfs,
    /// The whole device as one item.
    Image,
    /// A snapshot that the kernel mounted.
    Mounted,
}

impl fmt::Display for VolumeKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            VolumeKind::Ext4 => "ext4",
            VolumeKind::Xfs => "xfs",
            VolumeKind::Image => "image",
            VolumeKind::Mounted => "mounted",
        })
    }
}

/// What a reader found when it opened the volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeInfo {
    /// The reader that opened it.
    pub kind: VolumeKind,
    /// The file system's own identity; for an image a digest-like value of the device identity.
    pub uuid: [u8; 16],
    /// Label, as bytes; empty when none.
    pub label: Vec<u8>,
    /// File-system block size in bytes; the logical block size for an image.
    pub block_bytes: u32,
    /// Size of the file system in bytes.
    pub size_bytes: u64,
    /// Bytes in use, as the superblock counts them; the size for an image.
    pub used_bytes: u64,
    /// Highest inode number there may be.
    pub inode_max: u64,
    /// Inodes in use, as the superblock counts them: for progress only.
    pub inodes_used: u64,
    /// The root directory's inode number; for an image, the item itself.
    pub root: u64,
    /// A value that changes whenever the volume was written to since, or `None` when nothing on the device proves that. Two
    /// sweeps with the same value saw the same volume, so an interrupted backup may go on where it stopped.
    pub state: Option<[u8; 16]>,
    /// Seconds since 1970 of the last write that the volume records, 0 when it records none.
    pub written_secs: i64,
    /// When the volume was made, by its own metadata; 1970 if that is not recorded.
    pub created: Timestamp,
    /// Features found, by the names that the file system's own tools print.
    pub features: Vec<String>,
}

/// A point in time: seconds since 1970 (negative before) and nanoseconds `0..1_000_000_000`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp {
    /// Whole seconds since 1970-01-01 00:00:00 UTC.
    pub secs: i64,
    /// Nanoseconds to add.
    pub nanos: u32,
}

/// What an item is, by the type bits of its mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ItemKind {
    /// Regular file.
    File,
    /// Directory.
    Directory,
    /// Symbolic link; the target is the payload.
    Symlink,
    /// Character device; `rdev` says which.
    CharDevice,
    /// Block device; `rdev` says which.
    BlockDevice,
    /// Named pipe.
    Fifo,
    /// Socket.
    Socket,
    /// A whole volume as one item.
    Image,
}

/// Hints of an inode on XFS that `FS_IOC_FSGETXATTR` gives and `FS_IOC_GETFLAGS` does not: how to allocate,
/// and what a directory may hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hints {
    /// `FS_XFLAG_*` bits, of those in [`Hints::FLAGS`].
    pub flags: u32,
    /// Extent size hint in bytes, where `flags` has [`Hints::EXTENT_SIZE`]; else 0.
    pub extent_bytes: u64,
    /// Extent size hint of copies on write in bytes, where `flags` has [`Hints::COW_EXTENT_SIZE`]; else 0.
    pub cow_extent_bytes: u64,
}

impl Hints {
    /// No hints.
    pub const NONE: Hints = Hints { flags: 0, extent_bytes: 0, cow_extent_bytes: 0 };
    /// `FS_XFLAG_RTINHERIT`: new files of the directory lie on the realtime device.
    pub const REALTIME_INHERIT: u32 = 0x100;
    /// `FS_XFLAG_NOSYMLINKS`: no symlinks can be made in the directory.
    pub const NO_SYMLINKS: u32 = 0x400;
    /// `FS_XFLAG_EXTSIZE` of a file and `FS_XFLAG_EXTSZINHERIT` of a directory: there is an extent size hint.
    pub const EXTENT_SIZE: u32 = 0x800 | 0x1000;
    /// `FS_XFLAG_NODEFRAG`: the file is not defragmented.
    pub const NO_DEFRAGMENT: u32 = 0x2000;
    /// `FS_XFLAG_FILESTREAM`: files of the directory share an allocation group.
    pub const FILE_STREAM: u32 = 0x4000;
    /// `FS_XFLAG_COWEXTSIZE`: there is an extent size hint for copies on write.
    pub const COW_EXTENT_SIZE: u32 = 0x1_0000;
    /// All flags that are kept; `FS_IOC_GETFLAGS` gives the others, or they are internal to the file system.
    pub const FLAGS: u32 = Hints::REALTIME_INHERIT
        | Hints::NO_SYMLINKS
        | Hints::EXTENT_SIZE
        | Hints::NO_DEFRAGMENT
        | Hints::FILE_STREAM
        | Hints::COW_EXTENT_SIZE;

    /// The hints that a reader found: flags that are not kept are dropped, and so are sizes that no flag puts in force.
    pub fn of(flags: u32, extent_bytes: u64, cow_extent_bytes: u64) -> Hints {
        let when = |flag: u32, bytes: u64| if flags & flag != 0 { bytes } else { 0 };
        Hints {
            flags: flags & Hints::FLAGS,
            extent_bytes: when(Hints::EXTENT_SIZE, extent_bytes),
            cow_extent_bytes: when(Hints::COW_EXTENT_SIZE, cow_extent_bytes),
        }
    }
}

/// One item, or one part of a large one.
#[derive(Clone, Debug)]
pub struct Item {
    /// Inode number.
    pub inode: u64,
    /// Generation of the inode number: differs when the number is reused.
    pub generation: u32,
    /// Type of the item.
    pub kind: ItemKind,
    /// Permission bits, `0..=0o7777`.
    pub mode: u16,
    /// User id of the owner.
    pub uid: u32,
    /// Group id of the owner.
    pub gid: u32,
    /// Number of hard links.
    pub links: u32,
    /// Device number of a special file as (major, minor); zero otherwise.
    pub rdev: (u32, u32),
    /// Size in bytes (a directory's is 0: it means nothing elsewhere).
    pub size: u64,
    /// Last access.
    pub atime: Timestamp,
    /// Last change of the contents.
    pub mtime: Timestamp,
    /// Last change of the inode.
    pub ctime: Timestamp,
    /// Creation, when the file system keeps it.
    pub btime: Option<Timestamp>,
    /// `FS_*_FL` flags as `FS_IOC_GETFLAGS` shows them (immutable, append, nodump, ...), without those that only describe layout.
    pub flags: u32,
    /// Project id, 0 when none.
    pub project: u32,
    /// What else XFS keeps of an inode; nothing elsewhere.
    pub hints: Hints,
    /// The parent of a directory, from its ".." entry; 0 when unknown or not a directory.
    pub parent: u64,
    /// Symlink target, or the contents of a file small enough to live in its inode: a range of `Window::bytes`.
    pub payload: Payload,
    /// Range of `Window::extents`.
    pub extents: Range<u32>,
    /// Range of `Window::names`.
    pub names: Range<u32>,
    /// Range of `Window::xattrs`.
    pub xattrs: Range<u32>,
    /// Which part of the item this is.
    pub part: Part,
    /// What could not be read or is refused, if anything.
    pub fault: Option<ItemFault>,
}

/// Which part of an item a window holds. A small item has one part that is `first` and `last`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Whether the item starts here. Attributes are the same in every part; xattrs and payload are in the first only.
    pub first: bool,
    /// Whether the item ends here.
    pub last: bool,
    /// First logical byte that this part covers (files); extents outside `from..to` are in other parts.
    pub from: u64,
    /// End of the logical bytes that this part covers; `u64::MAX` in the last part.
    pub to: u64,
}

impl Part {
    /// The only part of an item.
    pub const WHOLE: Part = Part { first: true, last: true, from: 0, to: u64::MAX };
}

/// Where an item's contents are when not in extents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Payload {
    /// In extents, or nowhere.
    None,
    /// A symlink's target: range of `Window::bytes`.
    Target(Range<u32>),
    /// A file's contents: range of `Window::bytes`, at most the item's size. What is behind it, up to the size, reads as zero.
    Inline(Range<u32>),
}

/// State of an extent. A hole is where no extent is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ExtentState {
    /// Holds data.
    Data,
    /// Allocated, reads as zero.
    Unwritten,
    /// Holds data that is not on the device as it is (compressed, packed, addressed through maps of the file system's own):
    /// `physical` is 0 and means nothing; [`Volume::read_at`] gives the bytes.
    Opaque,
}

/// A contiguous run on the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// First byte in the item.
    pub logical: u64,
    /// First byte on the device.
    pub physical: u64,
    /// Length in bytes, a multiple of the file system's block size (it may reach past the item's size).
    pub len: u64,
    /// Data, unwritten, or opaque.
    pub state: ExtentState,
}

/// A directory entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    /// The name: range of `Window::bytes`, 1..=255 bytes, no '/' and no NUL.
    pub name: Range<u32>,
    /// Inode it names.
    pub inode: u64,
}

/// An extended attribute, with its full name as `listxattr` prints it ("user.x", "security.capability",
/// "system.posix_acl_access"); ACL values in the form of the `getxattr` call (version 2), not the on-disk one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Xattr {
    /// Name: range of `Window::bytes`.
    pub name: Range<u32>,
    /// Value: range of `Window::bytes`.
    pub value: Range<u32>,
}

/// A fault of one item. `Display` is one sentence without the path; the caller knows the path or finds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ItemFault {
    /// The kind of fault.
    pub kind: ItemFaultKind,
    /// Device byte offset of the metadata that showed it, 0 when none.
    pub device_offset: u64,
    /// Which rule was broken or which feature is not read, in the file system's own terms.
    pub rule: &'static str,
}

/// The kinds of item failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ItemFaultKind {
    /// Metadata of the item could not be read from the medium.
    Media,
    /// Metadata of the item contradicts itself or its checksum.
    Damaged,
    /// The item uses something that the reader refuses (encryption, ...): attributes are good, contents are not taken.
    Refused,
}

impl fmt::Display for ItemFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            ItemFaultKind::Media => "metadata unreadable",
            ItemFaultKind::Damaged => "metadata damaged",
            ItemFaultKind::Refused => "not read",
        };
        write!(f, "{kind}: {}", self.rule)?;
        if self.device_offset != 0 {
            write!(f, " (device byte {})", self.device_offset)?;
        }
        Ok(())
    }
}

/// Why a volume cannot be read at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VolumeFault {
    /// The device failed under the volume's spine.
    Device(Fault),
    /// No file system that a reader exists for; what was recognised, if anything ("btrfs", "LVM2 physical volume").
    Unrecognised(Option<&'static str>),
    /// A file system that only the kernel reads, by name ("a btrfs file system").
    NoRawReader(&'static str),
    /// Needs something that the reader refuses, by name, and what to do about it.
    Refused {
        /// The feature or state, as the file system's own tools name it.
        what: String,
        /// The way out, as an instruction.
        way_out: &'static str,
    },
    /// The spine contradicts itself or its checksum.
    Damaged {
        /// Which structure, which rule.
        what: String,
        /// Where on the device, in bytes.
        device_offset: u64,
    },
}

impl fmt::Display for VolumeFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            VolumeFault::Device(fault) => fault.fmt(f),
            VolumeFault::Unrecognised(None) => f.write_str("no known file system; back it up as an image"),
            VolumeFault::Unrecognised(Some(what)) => write!(f, "this is {what}; back it up as an image"),
            VolumeFault::NoRawReader(what) => write!(
                f,
                "this is {what}, which only the kernel reads; choose the reader mounted (needs root), or back it up as an image"
            ),
            VolumeFault::Refused { what, way_out } => write!(f, "refused: {what}; {way_out}"),
            VolumeFault::Damaged { what, device_offset } => {
                write!(
                    f,
                    "damaged: {what} (device byte {device_offset}); repair it, or back it up as an image"
                )
            }
        }
    }
}

impl std::error::Error for VolumeFault {}

impl From<Fault> for VolumeFault {
    fn from(fault: Fault) -> VolumeFault {
        VolumeFault::Device(fault)
    }
}

/// Where a sweep goes on: opaque to callers except for its order and for `inode`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cursor {
    /// Next inode to look at; every inode below was delivered whole.
    pub inode: u64,
    /// Where in that inode, in the reader's own terms (a logical byte, a directory block); 0 is its start.
    pub within: u64,
}

/// A bounded stretch of a volume. Reused from call to call; see the module's table.
#[derive(Debug, Default)]
pub struct Window {
    /// Items, ascending by inode.
    pub items: Vec<Item>,
    /// Extents of all items.
    pub extents: Vec<Extent>,
    /// Directory entries of all items.
    pub names: Vec<Name>,
    /// Extended attributes of all items.
    pub xattrs: Vec<Xattr>,
    /// Bytes that the others refer to.
    pub bytes: Vec<u8>,
}

impl Window {
    /// Empties it and keeps its memory.
    pub fn clear(&mut self) {
        self.items.clear();
        self.extents.clear();
        self.names.clear();
        self.xattrs.clear();
        self.bytes.clear();
    }

    /// Whether another item should go to the next window.
    pub fn is_full(&self) -> bool {
        self.items.len() >= WINDOW_ITEMS_MAX
            || self.extents.len() >= WINDOW_EXTENTS_MAX
            || self.names.len() >= WINDOW_NAMES_MAX
            || self.bytes.len() >= WINDOW_BYTES_MAX
    }

    /// Appends bytes and returns where they are.
    pub fn put_bytes(&mut self, bytes: &[u8]) -> Range<u32> {
        let start = self.bytes.len() as u32;
        self.bytes.extend_from_slice(bytes);
        start..self.bytes.len() as u32
    }

    /// The bytes of a range.
    pub fn get(&self, range: &Range<u32>) -> &[u8] {
        &self.bytes[range.start as usize..range.end as usize]
    }
}

/// The inode flags that belong to a file and not to its layout, as `FS_IOC_GETFLAGS` numbers them: secrm, unrm, compr, sync,
/// immutable, append, nodump, noatime, nocompr, encrypt, journal_data, notail, dirsync, topdir, verity, dax, projinherit, casefold.
pub const FLAGS_SHOWN: u32 = 0x6213_CCFF;

/// Whether the sweep is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Swept {
    /// The window is full (or as full as the reader likes); go on at the cursor.
    More(Cursor),
    /// No inode is left.
    Done,
}

/// How good a used-block map is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UsedQuality {
    /// Exactly what is in use.
    Exact,
    /// Everything in use, and perhaps more.
    Superset,
    /// Nothing is known; the whole device was reported.
    Unknown,
}

/// A reader over one immutable volume. The device is lent to each call, so that one owner can also read data from it.
pub trait Volume: Send {
    /// What was found when it was opened.
    fn info(&self) -> &VolumeInfo;

    /// Clears `window` and fills it from `from` on (`Cursor::default()` starts). A window may come back empty with `More`.
    fn sweep(
        &mut self,
        device: &mut dyn BlockDevice,
        from: Cursor,
        window: &mut Window,
    ) -> Result<Swept, VolumeFault>;

    /// Delivers the item `inode` alone, as `sweep` would, from `within` on; `window` stays empty when no such item exists.
    fn item(
        &mut self,
        device: &mut dyn BlockDevice,
        inode: u64,
        within: u64,
        window: &mut Window,
    ) -> Result<Swept, VolumeFault>;

    /// Calls `each` with the byte ranges of the device that are in use, ascending and disjoint.
    fn used(
        &mut self,
        device: &mut dyn BlockDevice,
        each: &mut dyn FnMut(Range<u64>),
    ) -> Result<UsedQuality, VolumeFault>;

    /// Whether the ranges that [`Volume::used`] leaves out are certainly free: the file system was unmounted
    /// cleanly, and checksums protect the metadata that calls its blocks free.
    fn free_is_sure(&self) -> bool {
        false
    }

    /// Fills `out` with the bytes of the file `inode` from byte `offset` on; zeros behind its end. For what is
    /// [`ExtentState::Opaque`]; waits. A fault's `device_offset` is the byte of the file. Readers that deliver nothing opaque
    /// refuse it as unsupported.
    fn read_at(
        &mut self,
        device: &mut dyn BlockDevice,
        inode: u64,
        offset: u64,
        out: &mut [u8],
    ) -> Result<(), Fault> {
        let _ = (device, inode);
        Err(Fault { kind: FaultKind::Unsupported, device_offset: offset, len: out.len() as u64, errno: 0 })
    }
}
