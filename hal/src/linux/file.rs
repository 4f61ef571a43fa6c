//! An open block device or plain file: how it is opened, what it looks like, and its synchronous operations. Both ports
//! ([`super::ring`], [`super::pread`]) stand on it.
//!
//! Invariants
//! - Read access opens read-only, without touching the access time where the kernel lets us (P7). Write access to a block
//!   device is exclusive, so that a mounted one is refused.
//! - Direct I/O wherever the file takes it, proven by one read at open, so that the page cache stays as it
//!   was. What it is aligned to is taken from the first of these that has it: `STATX_DIO_READ_ALIGN`
//!   (reading, kernel 6.14), `STATX_DIOALIGN` (6.1), the sector of the device itself or of the one below the
//!   file system.
//! - What direct I/O cannot take goes through the page cache, on a second descriptor ([`Source::route`]): all
//!   of a file whose file system has none ([`Source::is_direct`] is false), ranges that do not fit its
//!   alignment, and the end of a file or device that is no multiple of it. What was read so is dropped from
//!   the cache again. (Pages that others had cached in that range go too; the kernel cannot tell them apart.)
//! - The type of the path is checked before it is opened (a pipe would block, a tape would rewind) and again after.
//!
//! Does not: queue; know which port uses it.
//!
//! Source: open(2), statx(2) STATX_DIOALIGN and STATX_DIO_READ_ALIGN, fallocate(2), posix_fadvise(2); `linux/fs.h`.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{self, FallocateFlags, OFlag, PosixFadviseAdvice};
use nix::sys::stat::{Mode, major, minor};
use nix::sys::uio;

use super::fault::{OpenFault, OpenFaultKind};
use super::sys::{self, Alignment};
use super::sysfs::BlockAttributes;
use crate::block::{DeviceId, Fault, FaultKind, Geometry, Op, READ_UNIT_BYTES, Request};
use crate::buf::{Buf, Pool};

/// Smallest logical block, in bytes: what block layers address.
const LOGICAL_BLOCK_BYTES_MIN: u32 = READ_UNIT_BYTES;
/// Largest logical block, in bytes: the largest page.
const LOGICAL_BLOCK_BYTES_MAX: u32 = 65536;

/// What a device is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Reading only; nothing about the source changes.
    Read,
    /// Reading and writing; exclusive on a block device.
    Write,
}

/// Whether to go around the page cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caching {
    /// Direct where the file takes it, else buffered.
    Direct,
    /// Buffered even where direct would work: for tests of the fallback.
    Buffered,
}

/// An open device or file.
#[derive(Debug)]
pub(super) struct Source {
    file: File,
    /// Direct I/O on `file` and what it is aligned to; `None` for buffered I/O.
    direct: Option<Alignment>,
    /// The same through the page cache, where `file` is direct.
    beside: Option<File>,
    geometry: Geometry,
    id: DeviceId,
    is_block: bool,
}

/// How the next bytes of a transfer go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Route {
    /// Around the page cache; else on [`Source::buffered_fd`].
    pub(super) direct: bool,
    /// How many bytes at most.
    pub(super) len: usize,
}

impl Source {
    /// Opens `path`. Allocates; a handful of system calls.
    pub(super) fn open(path: &Path, access: Access, caching: Caching) -> Result<Source, OpenFault> {
        let is_block = check_type(path)?;
        if caching == Caching::Direct
            && let Some(source) = Source::open_direct(path, access, is_block)?
        {
            return Ok(source);
        }
        let file =
            open_file(path, access, is_block, OFlag::empty()).map_err(|e| OpenFault::from_errno(e, path))?;
        if caching == Caching::Direct {
            log::warn!("device: no direct I/O, reading through the page cache path={}", path.display());
        }
        Source::describe(file, None, path, access, is_block)
    }

    /// Opens for direct I/O; `None` where the file system has none.
    fn open_direct(path: &Path, access: Access, is_block: bool) -> Result<Option<Source>, OpenFault> {
        let file = match open_file(path, access, is_block, OFlag::O_DIRECT) {
            Ok(file) => file,
            Err(Errno::EINVAL) => return Ok(None),
            Err(errno) => return Err(OpenFault::from_errno(errno, path)),
        };
        let alignment = if is_block { sector(&file) } else { file_alignment(&file, access) };
        let Some(alignment) = alignment.filter(|&alignment| takes_direct(&file, alignment)) else {
            return Ok(None);
        };
        Source::describe(file, Some(alignment), path, access, is_block).map(Some)
    }

    /// Finds out geometry and identity.
    fn describe(
        file: File,
        direct: Option<Alignment>,
        path: &Path,
        access: Access,
        is_block: bool,
    ) -> Result<Source, OpenFault> {
        let stat = file.metadata().map_err(|e| OpenFault::from_errno(errno_of(&e), path))?;
        if stat.file_type().is_block_device() != is_block {
            return Err(OpenFault::new(OpenFaultKind::NotADevice, path));
        }
        let (mut geometry, stable) = if is_block {
            describe_block(&file, stat.rdev(), path)?
        } else {
            let stable = format!("file:{}:{}", stat.dev(), stat.ino());
            (file_geometry(stat.size(), stat.blksize()), stable)
        };
        geometry.read_only = access == Access::Read;
        check_units(&geometry, path)?;
        if geometry.size_bytes == 0 {
            return Err(OpenFault::new(OpenFaultKind::Empty, path));
        }
        let beside = match direct {
            Some(_) => Some(open_beside(&file, access).map_err(|e| OpenFault::from_errno(e, path))?),
            None => None,
        };
        let id = DeviceId { name: path.display().to_string(), stable };
        Ok(Source { file, direct, beside, geometry, id, is_block })
    }

    /// What it looks like.
    pub(super) fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// Who it is.
    pub(super) fn identity(&self) -> &DeviceId {
        &self.id
    }

    /// Whether I/O goes around the page cache, but for what does not fit.
    pub(super) fn is_direct(&self) -> bool {
        self.direct.is_some()
    }

    /// Its descriptor.
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// The descriptor through the page cache.
    pub(super) fn buffered_fd(&self) -> BorrowedFd<'_> {
        self.beside.as_ref().unwrap_or(&self.file).as_fd()
    }

    /// What reads for many callers at once are best aligned to, in bytes: they go around the page cache then.
    pub(super) fn unit_bytes(&self) -> u64 {
        self.direct.map_or(READ_UNIT_BYTES, |alignment| alignment.offset_bytes.max(READ_UNIT_BYTES)).into()
    }

    /// How the next of `len` bytes at `offset` go, from or to memory at the address `memory`. None are left behind the end.
    pub(super) fn route(&self, offset: u64, len: usize, memory: usize) -> Route {
        let shown = self.geometry.shown(offset, len as u64);
        if let Some(Alignment { memory_bytes, offset_bytes }) = self.direct {
            let unit = u64::from(offset_bytes);
            let whole = shown / unit * unit;
            if whole > 0 && offset.is_multiple_of(unit) && memory.is_multiple_of(memory_bytes as usize) {
                return Route { direct: true, len: whole as usize };
            }
        }
        Route { direct: false, len: shown as usize }
    }

    /// Reads all of `out` at any offset, zeros behind the end.
    pub(super) fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), Failure> {
        let shown = self.geometry.shown(offset, out.len() as u64) as usize;
        let (out, behind) = out.split_at_mut(shown);
        behind.fill(0);
        let mut done = 0;
        while done < out.len() {
            let (at, rest) = (offset + done as u64, &mut out[done..]);
            let route = self.route(at, rest.len(), rest.as_ptr().addr());
            match uio::pread(self.on(route), &mut rest[..route.len], file_offset(at)) {
                Ok(n) => {
                    done = self.advance(route, done, n, out.len())?;
                    self.forget_read(route, at);
                }
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }

    /// Writes `bytes` at an aligned offset, without what lies behind the end.
    pub(super) fn write(&self, offset: u64, bytes: &[u8]) -> Result<(), Failure> {
        let bytes = &bytes[..self.geometry.shown(offset, bytes.len() as u64) as usize];
        let mut done = 0;
        while done < bytes.len() {
            let (at, rest) = (offset + done as u64, &bytes[done..]);
            let route = self.route(at, rest.len(), rest.as_ptr().addr());
            match uio::pwrite(self.on(route), &rest[..route.len], file_offset(at)) {
                Ok(n) => done = self.advance(route, done, n, bytes.len())?,
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }

    fn on(&self, route: Route) -> BorrowedFd<'_> {
        if route.direct { self.fd() } else { self.buffered_fd() }
    }

    /// Where a transfer of `total` bytes goes on after `n` more came on `route`: direct I/O goes on at the start of a block. No
    /// progress means that the device ends before its size, or refuses to go on.
    pub(super) fn advance(
        &self,
        route: Route,
        done: usize,
        n: usize,
        total: usize,
    ) -> Result<usize, Failure> {
        if done + n >= total {
            return Ok(total);
        }
        let more = match self.direct {
            Some(alignment) if route.direct => n - n % alignment.offset_bytes as usize,
            _ => n,
        };
        if more > 0 { Ok(done + more) } else { Err(Failure { kind: FaultKind::Media, errno: 0 }) }
    }

    /// Whether it is a block device.
    pub(super) fn is_block(&self) -> bool {
        self.is_block
    }

    /// Carries out a whole `Zero` or `Discard` request, range by range.
    pub(super) fn clear_all(&self, request: &mut Request) {
        for segment in request.segments.iter_mut().filter(|s| s.fault.is_none()) {
            if let Err(failure) = self.clear(request.op, segment.device_offset, segment.len) {
                segment.fail(failure.kind, failure.errno);
            }
        }
    }

    /// Carries out `Zero` or `Discard` of an aligned range.
    pub(super) fn clear(&self, op: Op, offset: u64, len: u64) -> Result<(), Failure> {
        let done = match (self.is_block, op) {
            (true, Op::Zero) => sys::block_zero_out(self.fd(), offset, len),
            (true, _) => sys::block_discard(self.fd(), offset, len),
            (false, op) => {
                let len = self.geometry.shown(offset, len);
                match self.allocate(clear_mode(op), offset, len) {
                    // tmpfs and NFS can only punch; the range reads as zero all the same.
                    Err(Errno::EOPNOTSUPP) if op == Op::Zero => {
                        self.allocate(clear_mode(Op::Discard), offset, len)
                    }
                    other => other,
                }
            }
        };
        done.map_err(Failure::from)
    }

    fn allocate(&self, mode: i32, offset: u64, len: u64) -> Result<(), Errno> {
        let mode = FallocateFlags::from_bits_truncate(mode);
        fcntl::fallocate(&self.file, mode, file_offset(offset), file_offset(len))
    }

    /// Makes everything written durable.
    pub(super) fn flush(&self) -> Result<(), Failure> {
        nix::unistd::fdatasync(&self.file)?;
        self.forget_written();
        Ok(())
    }

    /// After a read on `route` that began at `offset`.
    pub(super) fn forget_read(&self, route: Route, offset: u64) {
        if !route.direct {
            self.forget_cached(offset, route.len as u64);
        }
    }

    /// After a flush: what went through the page cache, of a direct file its end.
    pub(super) fn forget_written(&self) {
        let size = self.geometry.size_bytes;
        let from = if self.is_direct() { size / self.unit_bytes() * self.unit_bytes() } else { 0 };
        self.forget_cached(from, size - from);
    }

    /// Drops the pages of a range from the page cache. A failure costs memory that the kernel takes back itself.
    fn forget_cached(&self, offset: u64, len: u64) {
        // Of a page that the range has a part of the kernel would drop nothing.
        let page = sys::page_bytes();
        let start = offset / page * page;
        let len = (offset + len).next_multiple_of(page) - start;
        let advice = PosixFadviseAdvice::POSIX_FADV_DONTNEED;
        let _ = fcntl::posix_fadvise(self.buffered_fd(), file_offset(start), file_offset(len), advice);
    }
}

/// The fallocate(2) mode for `Zero` and `Discard`. Neither changes the size.
pub(super) fn clear_mode(op: Op) -> i32 {
    let mode = match op {
        Op::Zero => FallocateFlags::FALLOC_FL_ZERO_RANGE,
        _ => FallocateFlags::FALLOC_FL_PUNCH_HOLE,
    };
    (mode | FallocateFlags::FALLOC_FL_KEEP_SIZE).bits()
}

/// Why a synchronous operation failed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Failure {
    pub(super) kind: FaultKind,
    pub(super) errno: i32,
}

impl From<Errno> for Failure {
    fn from(errno: Errno) -> Failure {
        Failure { kind: FaultKind::from_errno(errno as i32), errno: errno as i32 }
    }
}

/// An aligned buffer through which reads at any offset into any memory go.
#[derive(Debug)]
pub(super) struct Bounce {
    buf: Buf,
}

impl Bounce {
    /// Allocates a buffer that takes `bytes` at any offset with any block size in one read. `None` cannot happen: the pool is new.
    pub(super) fn new(bytes: usize) -> Option<Bounce> {
        Some(Bounce { buf: Pool::new(1, bytes + 2 * LOGICAL_BLOCK_BYTES_MAX as usize).take()? })
    }

    /// [`crate::block::BlockDevice::read_at`] for a [`Source`]. One system call for each buffer full.
    pub(super) fn read_at(&mut self, source: &Source, offset: u64, out: &mut [u8]) -> Result<(), Fault> {
        let geometry = source.geometry();
        let whole = Fault { kind: FaultKind::Misuse, device_offset: offset, len: out.len() as u64, errno: 0 };
        if !geometry.contains(offset, out.len() as u64) {
            return Err(whole);
        }
        let unit = source.unit_bytes();
        let (mut at, mut rest) = (offset, out);
        while !rest.is_empty() {
            let skip = at % unit;
            let span = (skip as usize + rest.len()).next_multiple_of(unit as usize).min(self.buf.len());
            let take = rest.len().min(span - skip as usize);
            source.read(at - skip, &mut self.buf[..span]).map_err(|f| Fault {
                kind: f.kind,
                device_offset: at - skip,
                len: span as u64,
                errno: f.errno,
            })?;
            let (head, tail) = rest.split_at_mut(take);
            head.copy_from_slice(&self.buf[skip as usize..skip as usize + take]);
            (at, rest) = (at + take as u64, tail);
        }
        Ok(())
    }
}

/// An offset or length inside a file, which the kernel keeps below 2^63.
fn file_offset(offset: u64) -> i64 {
    offset.min(i64::MAX as u64) as i64
}

/// Whether the path is a block device (true) or a plain file (false); anything else is refused before it is opened.
fn check_type(path: &Path) -> Result<bool, OpenFault> {
    let stat = std::fs::metadata(path).map_err(|e| OpenFault::from_errno(errno_of(&e), path))?;
    let kind = stat.file_type();
    if kind.is_dir() {
        return Err(OpenFault::new(OpenFaultKind::Directory, path));
    }
    if !kind.is_file() && !kind.is_block_device() {
        return Err(OpenFault::new(OpenFaultKind::NotADevice, path));
    }
    Ok(kind.is_block_device())
}

fn open_file(path: &Path, access: Access, is_block: bool, extra: OFlag) -> Result<File, Errno> {
    let flags = extra | OFlag::O_CLOEXEC | OFlag::O_NOCTTY;
    match access {
        Access::Write => {
            let exclusive = if is_block { OFlag::O_EXCL } else { OFlag::empty() };
            open_flags(path, flags | OFlag::O_RDWR | exclusive)
        }
        // O_NOATIME is for the owner; others read with the mount's own rule.
        Access::Read => match open_flags(path, flags | OFlag::O_RDONLY | OFlag::O_NOATIME) {
            Err(Errno::EPERM) => open_flags(path, flags | OFlag::O_RDONLY),
            other => other,
        },
    }
}

fn open_flags(path: &Path, flags: OFlag) -> Result<File, Errno> {
    fcntl::open(path, flags, Mode::empty()).map(File::from)
}

/// The same inode once more, whatever has its name by now, through the page cache. Not exclusive: `file` is.
fn open_beside(file: &File, access: Access) -> Result<File, Errno> {
    let mode = if access == Access::Write { OFlag::O_RDWR } else { OFlag::O_RDONLY };
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    let beside = match open_flags(path.as_ref(), mode | OFlag::O_CLOEXEC | OFlag::O_NOATIME) {
        Err(Errno::EPERM) => open_flags(path.as_ref(), mode | OFlag::O_CLOEXEC),
        other => other,
    }?;
    // Reading ahead would leave pages in the cache that are not dropped again.
    let _ = fcntl::posix_fadvise(&beside, 0, 0, PosixFadviseAdvice::POSIX_FADV_RANDOM);
    Ok(beside)
}

/// Alignment by a block device's sector size.
fn sector(device: &File) -> Option<Alignment> {
    let bytes = sys::block_sizes(device.as_fd()).ok()?.logical_bytes;
    Some(Alignment { memory_bytes: bytes, offset_bytes: bytes })
}

/// What direct I/O on a plain file is aligned to; `None` if it has none, or if the kernel does not report it.
/// btrfs, FUSE and network file systems report nothing and take requests that then go through the page cache,
/// or fail later.
fn file_alignment(file: &File, access: Access) -> Option<Alignment> {
    if let Some(said) = sys::direct_alignment(file.as_fd(), access == Access::Read) {
        return (said.offset_bytes > 0).then_some(said);
    }
    let below = file.metadata().ok()?.dev();
    let bytes = BlockAttributes::find(major(below), minor(below))?.logical_block_bytes()?;
    Some(Alignment { memory_bytes: bytes, offset_bytes: bytes })
}

/// Whether a read of the first unit goes through. A medium error or an empty file is an answer too: the request was taken.
fn takes_direct(file: &File, alignment: Alignment) -> bool {
    let Some(mut block) = Pool::new(1, LOGICAL_BLOCK_BYTES_MAX as usize).take() else { return false };
    block
        .get_mut(..alignment.offset_bytes as usize)
        .is_some_and(|b| uio::pread(file, b, 0) != Err(Errno::EINVAL))
}

fn describe_block(file: &File, rdev: u64, path: &Path) -> Result<(Geometry, String), OpenFault> {
    let sizes = sys::block_sizes(file.as_fd()).map_err(|e| OpenFault::from_errno(e, path))?;
    let attributes = BlockAttributes::find(major(rdev), minor(rdev));
    let geometry = Geometry {
        size_bytes: sizes.size_bytes,
        logical_block_bytes: sizes.logical_bytes,
        physical_block_bytes: sizes.physical_bytes.max(sizes.logical_bytes),
        io_optimal_bytes: sizes.io_optimal_bytes,
        operations_per_sec_max: 0,
        rotational: attributes.as_ref().is_some_and(BlockAttributes::rotational),
        can_discard: attributes.as_ref().is_some_and(BlockAttributes::can_discard),
        read_only: true,
    };
    let stable = attributes.and_then(|a| a.identity()).unwrap_or_else(|| {
        // Nothing on the device itself: the number it was attached with, which at least no other disk of this boot had.
        let sequence = sys::disk_sequence(file.as_fd()).unwrap_or(0);
        format!("dev:{}:{}:{sequence}", major(rdev), minor(rdev))
    });
    Ok((geometry, stable))
}

fn file_geometry(size_bytes: u64, blksize: u64) -> Geometry {
    let unit = LOGICAL_BLOCK_BYTES_MIN;
    let preferred = u32::try_from(blksize).unwrap_or(0);
    let physical = if preferred.is_power_of_two() { preferred.max(unit) } else { unit };
    Geometry {
        size_bytes,
        logical_block_bytes: unit,
        physical_block_bytes: physical,
        io_optimal_bytes: 0,
        operations_per_sec_max: 0,
        rotational: false,
        can_discard: true,
        read_only: true,
    }
}

fn check_units(geometry: &Geometry, path: &Path) -> Result<(), OpenFault> {
    let unit = geometry.logical_block_bytes;
    let fits = unit.is_power_of_two() && (LOGICAL_BLOCK_BYTES_MIN..=LOGICAL_BLOCK_BYTES_MAX).contains(&unit);
    if fits { Ok(()) } else { Err(OpenFault::new(OpenFaultKind::Units, path)) }
}

/// The error number of a std error; EIO for one that did not come from the system.
pub(super) fn errno_of(error: &std::io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(nix::libc::EIO))
}
