//! Attributes of files that only an ioctl or a handle gives: project ids, flags, extents, handles, and two
//! file systems' inode lists.
//!
//! | call | of | gives |
//! |---|---|---|
//! | `FS_IOC_FSGETXATTR`, `FS_IOC_FSSETXATTR` | an open file | project id, hints, and whether it lies on a realtime device |
//! | `FS_IOC_GETFLAGS` | an open file | `FS_*_FL` |
//! | `FS_IOC_GETFSUUID` | any open file or directory | its file system's UUID |
//! | `FS_IOC_FIEMAP` | an open file | extents |
//! | name_to_handle_at, open_by_handle_at | any item | its handle, and back |
//! | `XFS_IOC_BULKSTAT` | an XFS | inodes, ascending |
//! | `BTRFS_IOC_TREE_SEARCH_V2` | a btrfs | items of a tree, ascending by key |
//!
//! Invariants: every structure has the kernel's size, asserted here; descriptors are borrowed; memory is a local, a box or a
//! vector that outlives the call. Nothing is interpreted beyond the structure.
//! Source: include/uapi/linux/{fs,fiemap,btrfs,btrfs_tree}.h, fs/xfs/libxfs/xfs_fs.h, open_by_handle_at(2). This file holds
//! `unsafe` (see `lib.rs`).
#![allow(unsafe_code)]

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::errno::Errno;
use nix::libc;

use crate::volume::Hints;

/// Extents that one FIEMAP call returns.
pub(crate) const FIEMAP_EXTENTS: usize = 256;
/// Inodes that one BULKSTAT call returns: 48 KiB.
const BULK_INODES: usize = 256;
/// Bytes that one tree search returns.
const SEARCH_BYTES: usize = 64 << 10;
/// Bytes of a file handle that are kept: btrfs without a parent has 20, the longest of those used here.
pub(crate) const HANDLE_BYTES_MAX: usize = 24;
/// Bytes of a file handle that the kernel may return (`MAX_HANDLE_SZ`).
const HANDLE_BYTES_KERNEL: usize = 128;

/// `struct fsxattr`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct FsXattr {
    xflags: u32,
    extent_bytes: u32,
    extents: u32,
    project: u32,
    cow_extent_bytes: u32,
    pad: [u8; 8],
}

const _: () = assert!(size_of::<FsXattr>() == 28);

/// `struct fsuuid2`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct FsUuid {
    len: u8,
    uuid: [u8; 16],
}

const _: () = assert!(size_of::<FsUuid>() == 17);

impl FsXattr {
    fn hints(&self) -> Hints {
        Hints::of(self.xflags, self.extent_bytes.into(), self.cow_extent_bytes.into())
    }
}

/// `struct fiemap_extent`.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct MappedExtent {
    pub(crate) logical: u64,
    pub(crate) physical: u64,
    pub(crate) len: u64,
    pub(crate) reserved64: [u64; 2],
    pub(crate) flags: u32,
    pub(crate) reserved: [u32; 3],
}

/// `struct fiemap` with room for extents.
#[repr(C)]
pub(crate) struct Fiemap {
    start: u64,
    length: u64,
    flags: u32,
    mapped: u32,
    count: u32,
    reserved: u32,
    extents: [MappedExtent; FIEMAP_EXTENTS],
}

/// Bytes of `struct fiemap` without extents, which the request's number encodes.
const FIEMAP_HEAD_BYTES: usize = 32;
const _: () = assert!(size_of::<MappedExtent>() == 56);
const _: () = assert!(size_of::<Fiemap>() == FIEMAP_HEAD_BYTES + 56 * FIEMAP_EXTENTS);

/// `struct xfs_bulkstat`, with what is not used left unnamed.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct BulkInode {
    pub(crate) inode: u64,
    size: u64,
    blocks: u64,
    pub(crate) xflags: u64,
    atime: i64,
    mtime: i64,
    pub(crate) ctime_secs: i64,
    btime: i64,
    pub(crate) generation: u32,
    uid: u32,
    gid: u32,
    pub(crate) project: u32,
    nanos_and_units: [u32; 8],
    pub(crate) links: u32,
    extents: u32,
    attr_extents: u32,
    halves: [u16; 6],
    extents64: u64,
    pad: [u64; 6],
}

/// `struct xfs_bulkstat_req` with room for inodes.
#[repr(C)]
struct BulkRequest {
    inode: u64,
    flags: u32,
    room: u32,
    count: u32,
    group: u32,
    reserved: [u64; 5],
    inodes: [BulkInode; BULK_INODES],
}

/// Bytes of `struct xfs_bulk_ireq`.
const BULK_HEAD_BYTES: usize = 64;
const _: () = assert!(size_of::<BulkInode>() == 192);
const _: () = assert!(size_of::<BulkRequest>() == BULK_HEAD_BYTES + 192 * BULK_INODES);

/// What to search a btrfs tree for: keys from `from` to `to`, and of those the ones of type `kind`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Search {
    /// Tree id: 1 is the tree of trees.
    pub(crate) tree: u64,
    /// First object id.
    pub(crate) from: u64,
    /// Last object id.
    pub(crate) to: u64,
    /// Item type.
    pub(crate) kind: u8,
}

/// `struct btrfs_ioctl_search_args_v2` with room for items.
#[repr(C)]
struct SearchRequest {
    tree: u64,
    object_min: u64,
    object_max: u64,
    offset_min: u64,
    offset_max: u64,
    transaction_min: u64,
    transaction_max: u64,
    kind_min: u32,
    kind_max: u32,
    items: u32,
    unused: u32,
    reserved: [u64; 4],
    bytes: u64,
    buf: [u8; SEARCH_BYTES],
}

/// Bytes of the arguments without the buffer.
const SEARCH_HEAD_BYTES: usize = 112;
/// Bytes of `struct btrfs_ioctl_search_header`.
const SEARCH_ITEM_BYTES: usize = 32;
const _: () = assert!(size_of::<SearchRequest>() == SEARCH_HEAD_BYTES + SEARCH_BYTES);

mod call {
    #![allow(missing_docs, reason = "made by the macros")]
    use super::{
        BULK_HEAD_BYTES, BulkRequest, FIEMAP_HEAD_BYTES, Fiemap, FsUuid, FsXattr, SEARCH_HEAD_BYTES,
        SearchRequest,
    };
    nix::ioctl_read!(get, b'X', 31, FsXattr);
    nix::ioctl_read!(uuid, 0x15, 0, FsUuid);
    nix::ioctl_write_ptr!(set, b'X', 32, FsXattr);
    // The number says long, the kernel writes an int.
    nix::ioctl_read_bad!(
        flags,
        nix::request_code_read!(b'f', 1, size_of::<nix::libc::c_long>()),
        nix::libc::c_int
    );
    nix::ioctl_readwrite_bad!(fiemap, nix::request_code_readwrite!(b'f', 11, FIEMAP_HEAD_BYTES), Fiemap);
    nix::ioctl_read_bad!(bulkstat, nix::request_code_read!(b'X', 127, BULK_HEAD_BYTES), BulkRequest);
    nix::ioctl_readwrite_bad!(
        search,
        nix::request_code_readwrite!(0x94, 17, SEARCH_HEAD_BYTES),
        SearchRequest
    );
}

/// Sets the project id of an open file or directory. Errors: EOPNOTSUPP or ENOTTY where the file system has none.
pub fn set_project(fd: BorrowedFd<'_>, project: u32) -> Result<(), Errno> {
    let mut have = FsXattr::default();
    // SAFETY: the descriptor is open, and the pointer is to a live structure of the size that the request's number encodes.
    unsafe { call::get(fd.as_raw_fd(), &mut have) }?;
    have.project = project;
    // SAFETY: as above; the kernel only reads it.
    unsafe { call::set(fd.as_raw_fd(), &have) }.map(drop)
}

/// Adds `hints` to those of an open file or directory, and returns what of them it has then: a file system that knows none takes
/// them without a word. Errors: EOPNOTSUPP or ENOTTY where the file system has no such attributes; EINVAL for a hint that does not
/// fit it, or for an extent size of a file that has extents.
pub fn set_hints(fd: BorrowedFd<'_>, hints: Hints) -> Result<Hints, Errno> {
    let mut have = FsXattr::default();
    // SAFETY: the descriptor is open, and the pointer is to a live structure of the size that the request's number encodes.
    unsafe { call::get(fd.as_raw_fd(), &mut have) }?;
    have.xflags |= hints.flags;
    if hints.flags & Hints::EXTENT_SIZE != 0 {
        have.extent_bytes = u32::try_from(hints.extent_bytes).map_err(|_| Errno::EINVAL)?;
    }
    if hints.flags & Hints::COW_EXTENT_SIZE != 0 {
        have.cow_extent_bytes = u32::try_from(hints.cow_extent_bytes).map_err(|_| Errno::EINVAL)?;
    }
    // SAFETY: as above; the kernel only reads it.
    unsafe { call::set(fd.as_raw_fd(), &have) }?;
    // SAFETY: as for the first call.
    unsafe { call::get(fd.as_raw_fd(), &mut have) }?;
    Ok(have.hints())
}

/// Project id, hints and `FS_XFLAG_*` of an open file or directory.
pub(crate) fn project(fd: BorrowedFd<'_>) -> Result<(u32, Hints, u32), Errno> {
    let mut have = FsXattr::default();
    // SAFETY: the descriptor is open, and the pointer is to a live structure of the size that the request's number encodes.
    unsafe { call::get(fd.as_raw_fd(), &mut have) }?;
    Ok((have.project, have.hints(), have.xflags))
}

/// UUID of the file system that an open file or directory is in. Errors: ENOTTY where it has none, or before Linux 6.9.
pub fn file_system_uuid(fd: BorrowedFd<'_>) -> Result<[u8; 16], Errno> {
    let mut have = FsUuid::default();
    // SAFETY: the descriptor is open, and the pointer is to a live structure of the size that the request's number encodes.
    unsafe { call::uuid(fd.as_raw_fd(), &mut have) }?;
    if usize::from(have.len) == have.uuid.len() { Ok(have.uuid) } else { Err(Errno::ENOTTY) }
}

/// `FS_*_FL` of an open file or directory.
pub(crate) fn flags(fd: BorrowedFd<'_>) -> Result<u32, Errno> {
    let mut have: libc::c_int = 0;
    // SAFETY: the descriptor is open; the kernel writes an int into a live one (`ioctl_getflags` of every file system).
    unsafe { call::flags(fd.as_raw_fd(), &mut have) }?;
    Ok(have as u32)
}

impl Fiemap {
    /// Room for [`FIEMAP_EXTENTS`] extents (14 KiB).
    pub(crate) fn new() -> Box<Fiemap> {
        Box::new(Fiemap {
            start: 0,
            length: 0,
            flags: 0,
            mapped: 0,
            count: 0,
            reserved: 0,
            extents: [MappedExtent::default(); FIEMAP_EXTENTS],
        })
    }

    /// The extents of an open file that end behind byte `start`, ascending: as many as there is room for.
    pub(crate) fn map(&mut self, fd: BorrowedFd<'_>, start: u64) -> Result<&[MappedExtent], Errno> {
        self.start = start;
        self.length = u64::MAX - start;
        self.flags = 0;
        self.mapped = 0;
        self.count = FIEMAP_EXTENTS as u32;
        // SAFETY: the descriptor is open; the structure is live and has room for the `count` extents that it names.
        unsafe { call::fiemap(fd.as_raw_fd(), self) }?;
        Ok(&self.extents[..(self.mapped as usize).min(FIEMAP_EXTENTS)])
    }
}

/// A file handle: what names an inode of a mounted file system without a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Handle {
    /// The file system's type of handle.
    pub(crate) kind: i32,
    bytes: [u8; HANDLE_BYTES_MAX],
    len: usize,
}

/// `struct file_handle` with room.
#[repr(C)]
struct RawHandle {
    len: u32,
    kind: i32,
    bytes: [u8; HANDLE_BYTES_KERNEL],
}

impl Handle {
    /// A handle of `kind` with `parts` one behind the other, at most [`HANDLE_BYTES_MAX`] bytes in all.
    pub(crate) fn new(kind: i32, parts: &[&[u8]]) -> Handle {
        let mut handle = Handle { kind, bytes: [0; HANDLE_BYTES_MAX], len: 0 };
        for part in parts {
            handle.bytes[handle.len..handle.len + part.len()].copy_from_slice(part);
            handle.len += part.len();
        }
        handle
    }

    /// Its bytes.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// The handle of `name` in the directory `dir`, or of `dir` itself when the name is empty. No symlink is followed. Errors:
/// EOPNOTSUPP where the file system has no handles; EOVERFLOW when it is longer than [`HANDLE_BYTES_MAX`].
pub(crate) fn handle_of(dir: BorrowedFd<'_>, name: &std::ffi::CStr) -> Result<Handle, Errno> {
    let mut raw = RawHandle { len: HANDLE_BYTES_KERNEL as u32, kind: 0, bytes: [0; HANDLE_BYTES_KERNEL] };
    let mut mount_id: libc::c_int = 0;
    let flags = if name.is_empty() { libc::AT_EMPTY_PATH } else { 0 };
    // SAFETY: the name ends with NUL; the structure is live and has the room that its `len` names; the mount id is a live int.
    let rc = unsafe {
        libc::syscall(
            libc::SYS_name_to_handle_at,
            dir.as_raw_fd(),
            name.as_ptr(),
            &mut raw as *mut RawHandle,
            &mut mount_id as *mut libc::c_int,
            flags,
        )
    };
    Errno::result(rc)?;
    match raw.bytes.get(..raw.len as usize) {
        Some(bytes) if bytes.len() <= HANDLE_BYTES_MAX => Ok(Handle::new(raw.kind, &[bytes])),
        _ => Err(Errno::EOVERFLOW),
    }
}

/// Opens the inode that a handle names, on the file system of `mount` (an open directory of it), with open(2)'s `flags`.
/// Errors: ESTALE when there is no such inode; EPERM without CAP_DAC_READ_SEARCH.
pub(crate) fn open_handle(
    mount: BorrowedFd<'_>,
    handle: &Handle,
    flags: libc::c_int,
) -> Result<OwnedFd, Errno> {
    let mut raw = RawHandle { len: handle.len as u32, kind: handle.kind, bytes: [0; HANDLE_BYTES_KERNEL] };
    raw.bytes[..handle.len].copy_from_slice(handle.bytes());
    // SAFETY: the structure is live and holds the bytes that its `len` names; the kernel only reads it.
    let rc = unsafe {
        libc::syscall(
            libc::SYS_open_by_handle_at,
            mount.as_raw_fd(),
            &raw as *const RawHandle,
            flags | libc::O_CLOEXEC,
        )
    };
    let fd = Errno::result(rc)? as libc::c_int;
    // SAFETY: the call returned a new descriptor, which has no other owner.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Appends to `out` the next inodes of an XFS from number `from` on, ascending, at most `most` (and a call's worth); returns
/// whether the list ended. Errors: EPERM without CAP_SYS_ADMIN.
pub(crate) fn xfs_inodes(
    root: BorrowedFd<'_>,
    from: u64,
    most: usize,
    out: &mut Vec<BulkInode>,
) -> Result<bool, Errno> {
    let mut request = Box::new(BulkRequest {
        inode: from,
        flags: 0,
        room: most.min(BULK_INODES) as u32,
        count: 0,
        group: 0,
        reserved: [0; 5],
        inodes: [BulkInode::default(); BULK_INODES],
    });
    // SAFETY: the descriptor is open; the structure is live and has room for the `room` inodes that it names.
    unsafe { call::bulkstat(root.as_raw_fd(), &mut *request) }?;
    let count = (request.count as usize).min(BULK_INODES);
    out.extend_from_slice(&request.inodes[..count]);
    Ok(count == 0)
}

/// Calls `each` with object id, offset and contents of the next items that `search` describes, ascending, at most `most` (and
/// what fits a call's buffer); returns whether there was none. Errors: EPERM without CAP_SYS_ADMIN; ENOENT without such a tree.
pub(crate) fn btrfs_items(
    root: BorrowedFd<'_>,
    search: &Search,
    most: u32,
    each: &mut dyn FnMut(u64, u64, &[u8]),
) -> Result<bool, Errno> {
    let mut request = Box::new(SearchRequest {
        tree: search.tree,
        object_min: search.from,
        object_max: search.to,
        offset_min: 0,
        offset_max: u64::MAX,
        transaction_min: 0,
        transaction_max: u64::MAX,
        kind_min: search.kind.into(),
        kind_max: search.kind.into(),
        items: most,
        unused: 0,
        reserved: [0; 4],
        bytes: SEARCH_BYTES as u64,
        buf: [0; SEARCH_BYTES],
    });
    // SAFETY: the descriptor is open; the structure is live and its buffer has the room that `bytes` names.
    unsafe { call::search(root.as_raw_fd(), &mut *request) }?;
    let mut rest = &request.buf[..];
    let number = |head: &[u8], at: usize| {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&head[at..at + 8]);
        u64::from_ne_bytes(bytes)
    };
    for _ in 0..request.items {
        let Some((head, after)) = rest.split_at_checked(SEARCH_ITEM_BYTES) else { break };
        let len = u32::from_ne_bytes([head[28], head[29], head[30], head[31]]) as usize;
        let Some((item, after)) = after.split_at_checked(len) else { break };
        each(number(head, 8), number(head, 16), item);
        rest = after;
    }
    Ok(request.items == 0)
}
