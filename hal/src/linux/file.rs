//! An open block device or plain file: how it is opened, what it looks like, and its synchronous operations. Both ports
//! ([`super::ring`], [`super::pread`]) stand on it.
//!
//! Invariants
//! - Read access opens read-only, without touching the access time where the kernel lets us (P7). Write access to a block
//!   device is exclusive, so that a mounted one is refused.
//! - Direct I/O wherever the file takes it, proven by one read at open, so that the page cache stays as it was. Where a
//!   file system refuses it, I/O is buffered, [`Source::is_direct`] says so, and what was read is dropped from the cache
//!   again. (Pages that others had cached in that range go too; the kernel cannot tell them apart.)
//! - The type of the path is checked before it is opened (a pipe would block, a tape would rewind) and again after.
//!
//! Does not: queue; know which port uses it.
//!
//! Source: open(2), statx(2) STATX_DIOALIGN, fallocate(2), posix_fadvise(2); `linux/fs.h`.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{self, FallocateFlags, OFlag, PosixFadviseAdvice};
use nix::sys::stat::{Mode, major, minor};
use nix::sys::uio;

use super::fault::{OpenFault, OpenFaultKind};
use super::{sys, sysfs::BlockAttributes};
use crate::block::{DeviceId, Fault, FaultKind, Geometry, Op, Request};
use crate::buf::{Buf, Pool};

/// Smallest logical block, in bytes: what block layers address.
const LOGICAL_BLOCK_BYTES_MIN: u32 = 512;
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
    geometry: Geometry,
    id: DeviceId,
    direct: bool,
    is_block: bool,
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
        Source::describe(file, path, access, is_block, None)
    }

    /// Opens for direct I/O; `None` where the file system refuses that.
    fn open_direct(path: &Path, access: Access, is_block: bool) -> Result<Option<Source>, OpenFault> {
        let file = match open_file(path, access, is_block, OFlag::O_DIRECT) {
            Ok(file) => file,
            Err(Errno::EINVAL) => return Ok(None),
            Err(errno) => return Err(OpenFault::from_errno(errno, path)),
        };
        let Some(unit) = direct_unit(&file, is_block) else { return Ok(None) };
        Source::describe(file, path, access, is_block, Some(unit)).map(Some)
    }

    /// Finds out geometry and identity. `direct_unit`: bytes that direct I/O is aligned to; `None` for buffered I/O.
    fn describe(
        file: File,
        path: &Path,
        access: Access,
        is_block: bool,
        direct_unit: Option<u32>,
    ) -> Result<Source, OpenFault> {
        let stat = file.metadata().map_err(|e| OpenFault::from_errno(errno_of(&e), path))?;
        if stat.file_type().is_block_device() != is_block {
            return Err(OpenFault::new(OpenFaultKind::NotADevice, path));
        }
        let unit = direct_unit.unwrap_or(LOGICAL_BLOCK_BYTES_MIN);
        let (mut geometry, stable) = if is_block {
            describe_block(&file, stat.rdev(), path)?
        } else {
            let stable = format!("file:{}:{}", stat.dev(), stat.ino());
            (file_geometry(stat.size(), stat.blksize(), unit), stable)
        };
        geometry.read_only = access == Access::Read;
        check_units(&geometry, path)?;
        let tail_bytes = geometry.size_bytes % u64::from(geometry.logical_block_bytes);
        if tail_bytes != 0 {
            log::warn!("device: odd tail ignored path={} tail_bytes={tail_bytes}", path.display());
            geometry.size_bytes -= tail_bytes;
        }
        if geometry.size_bytes == 0 {
            return Err(OpenFault::new(OpenFaultKind::Empty, path));
        }
        let id = DeviceId { name: path.display().to_string(), stable };
        Ok(Source { file, geometry, id, direct: direct_unit.is_some(), is_block })
    }

    /// What it looks like.
    pub(super) fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// Who it is.
    pub(super) fn identity(&self) -> &DeviceId {
        &self.id
    }

    /// Whether I/O goes around the page cache.
    pub(super) fn is_direct(&self) -> bool {
        self.direct
    }

    /// Its descriptor.
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// Reads all of `out` at an aligned offset; memory is aligned where direct I/O needs it.
    pub(super) fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), Failure> {
        let mut done = 0;
        while done < out.len() {
            match uio::pread(&self.file, &mut out[done..], file_offset(offset, done)) {
                Ok(n) => done = self.advance(done, n, out.len())?,
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        self.forget_cached(offset, out.len() as u64);
        Ok(())
    }

    /// Writes all of `bytes` at an aligned offset.
    pub(super) fn write(&self, offset: u64, bytes: &[u8]) -> Result<(), Failure> {
        let mut done = 0;
        while done < bytes.len() {
            match uio::pwrite(&self.file, &bytes[done..], file_offset(offset, done)) {
                Ok(n) => done = self.advance(done, n, bytes.len())?,
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }

    /// Where a transfer of `total` bytes goes on after `n` more: direct I/O goes on at a block's start. No whole block
    /// means that the device ends before its size, or refuses to go on.
    pub(super) fn advance(&self, done: usize, n: usize, total: usize) -> Result<usize, Failure> {
        let reached = done + n;
        if reached >= total {
            return Ok(total);
        }
        let unit = self.geometry.logical_block_bytes as usize;
        let next = reached - reached % unit;
        if next > done { Ok(next) } else { Err(Failure { kind: FaultKind::Media, errno: 0 }) }
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
            (false, op) => match self.allocate(clear_mode(op), offset, len) {
                // tmpfs and NFS can only punch; the range reads as zero all the same.
                Err(Errno::EOPNOTSUPP) if op == Op::Zero => {
                    self.allocate(clear_mode(Op::Discard), offset, len)
                }
                other => other,
            },
        };
        done.map_err(Failure::from)
    }

    fn allocate(&self, mode: i32, offset: u64, len: u64) -> Result<(), Errno> {
        let mode = FallocateFlags::from_bits_truncate(mode);
        fcntl::fallocate(&self.file, mode, file_offset(offset, 0), file_offset(len, 0))
    }

    /// Makes everything written durable.
    pub(super) fn flush(&self) -> Result<(), Failure> {
        nix::unistd::fdatasync(&self.file)?;
        self.forget_cached(0, self.geometry.size_bytes);
        Ok(())
    }

    /// After buffered I/O: drops the range from the page cache. A failure costs memory that the kernel takes back itself.
    pub(super) fn forget_cached(&self, offset: u64, len: u64) {
        if !self.direct {
            let advice = PosixFadviseAdvice::POSIX_FADV_DONTNEED;
            let _ = fcntl::posix_fadvise(&self.file, file_offset(offset, 0), file_offset(len, 0), advice);
        }
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
        let unit = u64::from(geometry.logical_block_bytes);
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
fn file_offset(offset: u64, done: usize) -> i64 {
    offset.saturating_add(done as u64).min(i64::MAX as u64) as i64
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

/// Finds the unit that direct I/O needs by reading the first block with it; `None` when no unit works. A medium error or
/// an empty file is an answer too: the request was taken.
fn direct_unit(file: &File, is_block: bool) -> Option<u32> {
    let mut block = Pool::new(1, LOGICAL_BLOCK_BYTES_MAX as usize).take()?;
    let reported = if is_block {
        sys::block_sizes(file.as_fd()).ok().map(|s| s.logical_bytes)
    } else {
        sys::direct_alignment(file.as_fd()).map(|(_, offset)| offset)
    };
    let candidates = match reported {
        Some(0) => return None,
        Some(unit) => [unit.max(LOGICAL_BLOCK_BYTES_MIN), 4096],
        None => [LOGICAL_BLOCK_BYTES_MIN, 4096],
    };
    candidates.into_iter().find(|&unit| {
        block.get_mut(..unit as usize).is_some_and(|b| uio::pread(file, b, 0) != Err(Errno::EINVAL))
    })
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

fn file_geometry(size_bytes: u64, blksize: u64, unit: u32) -> Geometry {
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
