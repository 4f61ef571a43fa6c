//! System calls that nix has no safe form of: block-device and loop ioctls, direct-I/O alignment, clocks, random bytes,
//! the groups of who connected, the allocator's settings.
//!
//! Invariants
//! - Every function here is safe to call with any argument: descriptors are borrowed, memory is a local or a slice.
//! - Nothing is interpreted: the callers give numbers their meaning.
//!
//! Does not: retry (except `random`, whose contract is to fill), log, or keep state.
//!
//! Source: Linux uapi `linux/fs.h`, `linux/loop.h`, `linux/stat.h`; clock_gettime(2), getrandom(2), socket(7), mallopt(3). This file holds `unsafe`.
#![allow(unsafe_code)]

use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;
use nix::libc;

/// Largest block in bytes that the shared heap serves: a frame's buffers and zstd's tables are above it, rows and names below.
#[cfg(target_env = "gnu")]
const HEAP_BLOCK_BYTES_MAX: libc::c_int = 256 << 10;
/// Free bytes at the top of the heap that are kept for what comes next.
#[cfg(target_env = "gnu")]
const HEAP_SPARE_BYTES: libc::c_int = 256 << 10;

#[allow(missing_docs)]
mod raw {
    //! The ioctls of `linux/fs.h`, as nix spells them.
    nix::ioctl_read!(blk_get_size64, 0x12, 114, u64);
    nix::ioctl_read_bad!(blk_get_logical, nix::request_code_none!(0x12, 104), nix::libc::c_int);
    nix::ioctl_read_bad!(blk_get_physical, nix::request_code_none!(0x12, 123), nix::libc::c_uint);
    nix::ioctl_read_bad!(blk_get_io_optimal, nix::request_code_none!(0x12, 121), nix::libc::c_uint);
    nix::ioctl_read!(blk_get_diskseq, 0x12, 128, u64);
    nix::ioctl_write_ptr_bad!(blk_discard, nix::request_code_none!(0x12, 119), [u64; 2]);
    nix::ioctl_write_ptr_bad!(blk_zero_out, nix::request_code_none!(0x12, 127), [u64; 2]);
    nix::ioctl_read_bad!(blk_get_read_only, nix::request_code_none!(0x12, 94), nix::libc::c_int);
    nix::ioctl_none_bad!(loop_get_free, 0x4C82);
    nix::ioctl_write_ptr_bad!(loop_configure, 0x4C0A, super::LoopConfig);
}

/// `struct loop_config` with its `struct loop_info64`.
#[repr(C)]
struct LoopConfig {
    fd: u32,
    block_bytes: u32,
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    size_limit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_bytes: u32,
    flags: u32,
    names: [u8; 160],
    init: [u64; 2],
    reserved: [u64; 8],
}

const _: () = assert!(size_of::<LoopConfig>() == 304);

/// Sizes that a block device reports, in bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct BlockSizes {
    pub(super) size_bytes: u64,
    pub(super) logical_bytes: u32,
    pub(super) physical_bytes: u32,
    pub(super) io_optimal_bytes: u32,
}

/// BLKGETSIZE64, BLKSSZGET, BLKPBSZGET, BLKIOOPT.
pub(super) fn block_sizes(fd: BorrowedFd<'_>) -> Result<BlockSizes, Errno> {
    let raw_fd = fd.as_raw_fd();
    let (mut size, mut logical, mut physical, mut optimal) = (0u64, 0 as libc::c_int, 0u32, 0u32);
    // SAFETY: each call writes one integer of the type that the kernel documents into a live local; the descriptor is
    // borrowed and so open. On a descriptor that is no block device they fail with ENOTTY and write nothing.
    unsafe {
        raw::blk_get_size64(raw_fd, &mut size)?;
        raw::blk_get_logical(raw_fd, &mut logical)?;
        raw::blk_get_physical(raw_fd, &mut physical)?;
        raw::blk_get_io_optimal(raw_fd, &mut optimal)?;
    }
    let logical_bytes = u32::try_from(logical).map_err(|_| Errno::EINVAL)?;
    Ok(BlockSizes { size_bytes: size, logical_bytes, physical_bytes: physical, io_optimal_bytes: optimal })
}

/// BLKGETDISKSEQ: a number that no other disk of this boot had (kernel 5.15).
pub(super) fn disk_sequence(fd: BorrowedFd<'_>) -> Result<u64, Errno> {
    let mut sequence = 0u64;
    // SAFETY: writes one u64 into a live local; the descriptor is borrowed and so open.
    unsafe { raw::blk_get_diskseq(fd.as_raw_fd(), &mut sequence)? };
    Ok(sequence)
}

/// BLKDISCARD of `len` bytes at `offset`.
pub(super) fn block_discard(fd: BorrowedFd<'_>, offset: u64, len: u64) -> Result<(), Errno> {
    // SAFETY: the kernel reads two u64 from a live local; the descriptor is borrowed and so open.
    unsafe { raw::blk_discard(fd.as_raw_fd(), &[offset, len])? };
    Ok(())
}

/// BLKZEROOUT of `len` bytes at `offset`; the kernel writes zeros where the device has no command for it.
pub(super) fn block_zero_out(fd: BorrowedFd<'_>, offset: u64, len: u64) -> Result<(), Errno> {
    // SAFETY: the kernel reads two u64 from a live local; the descriptor is borrowed and so open.
    unsafe { raw::blk_zero_out(fd.as_raw_fd(), &[offset, len])? };
    Ok(())
}

/// BLKROGET: whether the kernel refuses all writes to a block device.
pub(super) fn is_read_only(fd: BorrowedFd<'_>) -> Result<bool, Errno> {
    let mut read_only: libc::c_int = 0;
    // SAFETY: writes one int into a live local; the descriptor is borrowed and so open.
    unsafe { raw::blk_get_read_only(fd.as_raw_fd(), &mut read_only)? };
    Ok(read_only != 0)
}

/// LOOP_CTL_GET_FREE: the number of an unused loop device; one is made if there is none. Another process may
/// take it first.
pub(super) fn loop_free(control: BorrowedFd<'_>) -> Result<u32, Errno> {
    // SAFETY: the call takes no argument; the descriptor is borrowed and so open.
    let number = unsafe { raw::loop_get_free(control.as_raw_fd())? };
    u32::try_from(number).map_err(|_| Errno::EINVAL)
}

/// LOOP_CONFIGURE (kernel 5.8) of the loop device `device` over `backing`: read-only, and detached by the kernel when the last
/// descriptor and mount of it are gone. `direct`: around the page cache of what is below.
pub(super) fn loop_attach(
    device: BorrowedFd<'_>,
    backing: BorrowedFd<'_>,
    direct: bool,
) -> Result<(), Errno> {
    const READ_ONLY: u32 = 1;
    const AUTOCLEAR: u32 = 4;
    const DIRECT_IO: u32 = 16;
    let config = LoopConfig {
        fd: backing.as_raw_fd() as u32,
        block_bytes: 0,
        device: 0,
        inode: 0,
        rdevice: 0,
        offset: 0,
        size_limit: 0,
        number: 0,
        encrypt_type: 0,
        encrypt_key_bytes: 0,
        flags: READ_ONLY | AUTOCLEAR | if direct { DIRECT_IO } else { 0 },
        names: [0; 160],
        init: [0; 2],
        reserved: [0; 8],
    };
    // SAFETY: the kernel reads a live structure of the size that it documents; both descriptors are borrowed and so open.
    unsafe { raw::loop_configure(device.as_raw_fd(), &config)? };
    Ok(())
}

/// Bytes of a page of memory.
pub(super) fn page_bytes() -> u64 {
    // SAFETY: takes a number and returns one.
    let bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    u64::try_from(bytes).unwrap_or(4096)
}

/// What direct I/O is aligned to, in bytes. An offset of 0 means that there is none.
#[derive(Clone, Copy, Debug)]
pub(super) struct Alignment {
    pub(super) memory_bytes: u32,
    pub(super) offset_bytes: u32,
}

/// Alignment of direct I/O on a file, or of `reads` of it alone, by statx: a file that shares blocks is read
/// in smaller units than it is written. `None` if the kernel (before 6.1) or the file system does not report
/// it.
pub(super) fn direct_alignment(fd: BorrowedFd<'_>, reads: bool) -> Option<Alignment> {
    let mut stat = MaybeUninit::<libc::statx>::zeroed();
    let wanted = libc::STATX_DIOALIGN | libc::STATX_DIO_READ_ALIGN;
    // SAFETY: the path is an empty NUL-terminated string, which AT_EMPTY_PATH allows; the buffer is a whole statx.
    let rc =
        unsafe { libc::statx(fd.as_raw_fd(), c"".as_ptr(), libc::AT_EMPTY_PATH, wanted, stat.as_mut_ptr()) };
    // SAFETY: statx is plain integers, for which the zeroes of `zeroed` are valid even if the call wrote nothing.
    let stat = unsafe { stat.assume_init() };
    if rc != 0 || stat.stx_mask & libc::STATX_DIOALIGN == 0 {
        return None;
    }
    let reads =
        reads && stat.stx_mask & libc::STATX_DIO_READ_ALIGN != 0 && stat.stx_dio_read_offset_align != 0;
    let offset_bytes = if reads { stat.stx_dio_read_offset_align } else { stat.stx_dio_offset_align };
    Some(Alignment { memory_bytes: stat.stx_dio_mem_align.max(1), offset_bytes })
}

/// The clocks that `crate::clock` reads.
#[derive(Clone, Copy, Debug)]
pub(crate) enum ClockId {
    /// CLOCK_BOOTTIME.
    Boot,
    /// CLOCK_REALTIME.
    Wall,
}

/// Reads a clock: seconds and nanoseconds.
pub(crate) fn clock(id: ClockId) -> (i64, u32) {
    let id = match id {
        ClockId::Boot => libc::CLOCK_BOOTTIME,
        ClockId::Wall => libc::CLOCK_REALTIME,
    };
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: writes one timespec into a live local.
    let rc = unsafe { libc::clock_gettime(id, &mut now) };
    assert!(rc == 0, "CLOCK_BOOTTIME and CLOCK_REALTIME exist on every kernel since 2.6.39");
    (now.tv_sec, now.tv_nsec as u32)
}

/// SO_PEERGROUPS: the supplementary groups of who connected, as they were then (kernel 4.13). `Err`: no socket of this machine, or more
/// than `most`.
pub fn peer_groups(socket: BorrowedFd<'_>, most: usize) -> Result<Vec<u32>, Errno> {
    let mut groups: Vec<libc::gid_t> = vec![0; most];
    let mut bytes = libc::socklen_t::try_from(size_of_val(&groups[..])).map_err(|_| Errno::EINVAL)?;
    // SAFETY: the kernel writes at most `bytes` bytes, which are those of a live vector, and the length that it has written into a live
    // local; the descriptor is borrowed and so open.
    let rc = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERGROUPS,
            groups.as_mut_ptr().cast(),
            &mut bytes,
        )
    };
    Errno::result(rc)?;
    groups.truncate(bytes as usize / size_of::<libc::gid_t>());
    Ok(groups)
}

/// Fills `out` with getrandom(2). Blocks only until the kernel's generator is seeded, once after boot.
pub(crate) fn random(out: &mut [u8]) -> Result<(), Errno> {
    let mut done = 0;
    while done < out.len() {
        let rest = &mut out[done..];
        // SAFETY: the pointer and length are those of a live slice of bytes.
        let n = unsafe { libc::getrandom(rest.as_mut_ptr().cast(), rest.len(), 0) };
        match Errno::result(n) {
            Ok(n) => done += n as usize,
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// Has the C library's allocator keep one heap for all threads and give large blocks a mapping of their own, which goes back to the
/// machine when they are freed. Otherwise every thread that allocates gets a heap of its own, and each keeps what it once needed.
/// Best called before the first thread is started; does nothing where the C library has no such settings.
pub fn share_heap() {
    #[cfg(target_env = "gnu")]
    for (what, value) in [
        (libc::M_ARENA_MAX, 1),
        (libc::M_MMAP_THRESHOLD, HEAP_BLOCK_BYTES_MAX),
        (libc::M_TRIM_THRESHOLD, HEAP_SPARE_BYTES),
    ] {
        // What is refused stays as it is: more memory, no fault.
        // SAFETY: mallopt(3) takes two numbers, locks the allocator's state, and refuses what it does not know.
        let _ = unsafe { libc::mallopt(what, value) };
    }
}
