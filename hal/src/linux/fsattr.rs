//! Attributes of open files that only an ioctl sets: the project id.
//!
//! Invariants: the structure is the kernel's `struct fsxattr`, 28 bytes, read and written whole.
//! Source: include/uapi/linux/fs.h (`FS_IOC_FSGETXATTR`, `FS_IOC_FSSETXATTR`). This file holds `unsafe` (see `lib.rs`).
#![allow(unsafe_code)]

use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;

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

mod call {
    #![allow(missing_docs, reason = "made by the macros")]
    use super::FsXattr;
    nix::ioctl_read!(get, b'X', 31, FsXattr);
    nix::ioctl_write_ptr!(set, b'X', 32, FsXattr);
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
