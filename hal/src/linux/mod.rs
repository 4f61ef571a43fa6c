//! The Linux port: block devices and plain files over io_uring, or over threads where that is disabled; a poll loop.
//!
//! | file | what |
//! |---|---|
//! | `ahead` | what the ring reads before it is asked for |
//! | `file` | how a device or file is opened and described; synchronous I/O |
//! | [`ring`] | the queue over io_uring |
//! | `outcome` | what a completion of the ring means |
//! | [`pread`] | the same over threads, where io_uring is disabled |
//! | [`fault`] | why a device could not be opened |
//! | [`link`] | connections between nodes over TCP |
//! | [`poll`] | readiness of descriptors, and a waker |
//! | [`fsattr`] | attributes of files by ioctls and handles |
//! | [`tree`] | what a restore makes in a directory |
//! | [`fuse`] | a read-only file system that users of this machine see |
//! | `mount` | a read-only mount without a place |
//! | `writers` | what may write to a volume that is read |
//! | `sysfs`, `sys` | attributes and system calls |
//!
//! Invariants: a source is opened read-only and its page cache stays as it was (P7); a target is opened exclusively.
//!
//! Does not: decide what to read. Source: ours; each file names its own.

use std::path::Path;
use std::sync::Once;

#[cfg(feature = "uring")]
mod ahead;
pub mod fault;
mod file;
pub mod fsattr;
pub mod fuse;
pub mod link;
pub(crate) mod mount;
mod outcome;
pub mod poll;
pub mod pread;
#[cfg(feature = "uring")]
pub mod ring;
pub(crate) mod sys;
mod sysfs;
pub mod tree;
mod writers;

pub use fault::{OpenFault, OpenFaultKind};
pub use file::{Access, Caching};
pub use sys::{peer_groups, share_heap};
pub use writers::{Writer, writer};

/// Whether the kernel refuses all writes to an open block device; `false` for anything else.
pub fn is_read_only(device: std::os::fd::BorrowedFd<'_>) -> bool {
    sys::is_read_only(device).unwrap_or(false)
}

use crate::block::BlockDevice;
use crate::buf::Pool;
use file::{Bounce, Source};
use pread::PreadDevice;
#[cfg(feature = "uring")]
use ring::{Kernel, RingDevice};

/// Most requests in flight; what a caller asks beyond is cut. Slots are named by 16 bits, and no device gains from more.
pub const QUEUE_DEPTH_MAX: usize = 1024;

/// Opens a block device or plain file with up to `depth` requests in flight (at least 1, cut to
/// [`QUEUE_DEPTH_MAX`]). `pools` are those whose buffers will be used, for registration with the kernel; buffers of
/// other pools work too. Allocates; pins the pools' memory.
pub fn open(
    path: &Path,
    access: Access,
    depth: usize,
    pools: &[Pool],
) -> Result<Box<dyn BlockDevice>, OpenFault> {
    let source = Source::open(path, access, Caching::Direct)?;
    open_source(source, depth, pools, path)
}

#[cfg(feature = "uring")]
fn open_source(
    source: Source,
    depth: usize,
    pools: &[Pool],
    path: &Path,
) -> Result<Box<dyn BlockDevice>, OpenFault> {
    match Kernel::new(&source, pools) {
        Ok(kernel) => Ok(Box::new(ring_device(kernel, source, depth, path)?)),
        Err(why) => {
            static WARNED: Once = Once::new();
            WARNED.call_once(|| log::warn!("device: no io_uring, reading with threads reason={why}"));
            Ok(Box::new(pread_device(source, depth, path)?))
        }
    }
}

#[cfg(not(feature = "uring"))]
fn open_source(
    source: Source,
    depth: usize,
    _pools: &[Pool],
    path: &Path,
) -> Result<Box<dyn BlockDevice>, OpenFault> {
    Ok(Box::new(pread_device(source, depth, path)?))
}

/// Opens over threads, even where io_uring works.
pub fn open_pread(
    path: &Path,
    access: Access,
    caching: Caching,
    depth: usize,
) -> Result<PreadDevice, OpenFault> {
    pread_device(Source::open(path, access, caching)?, depth, path)
}

/// Opens over io_uring or not at all.
#[cfg(feature = "uring")]
pub fn open_ring(
    path: &Path,
    access: Access,
    caching: Caching,
    depth: usize,
    pools: &[Pool],
) -> Result<RingDevice, OpenFault> {
    let source = Source::open(path, access, caching)?;
    let kernel = Kernel::new(&source, pools).map_err(|u| OpenFault::queue(u.errno, path))?;
    ring_device(kernel, source, depth, path)
}

#[cfg(feature = "uring")]
fn ring_device(kernel: Kernel, source: Source, depth: usize, path: &Path) -> Result<RingDevice, OpenFault> {
    let bounce = bounce(ring::BOUNCE_BYTES, path)?;
    Ok(RingDevice::new(kernel, source, bounce, depth))
}

fn pread_device(source: Source, depth: usize, path: &Path) -> Result<PreadDevice, OpenFault> {
    let bounce = bounce(pread::BOUNCE_BYTES, path)?;
    PreadDevice::new(source, bounce, depth).map_err(|errno| OpenFault::queue(errno as i32, path))
}

fn bounce(bytes: usize, path: &Path) -> Result<Bounce, OpenFault> {
    Bounce::new(bytes).ok_or_else(|| OpenFault::new(OpenFaultKind::Exhausted, path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(path: &str, access: Access) -> OpenFault {
        open(Path::new(path), access, 1, &[]).err().unwrap()
    }

    #[test]
    fn a_refusal_says_what_where_and_what_to_do() {
        for (path, kind) in [
            ("/nonexistent/disk", OpenFaultKind::NotFound),
            ("/proc", OpenFaultKind::Directory),
            ("/dev/null", OpenFaultKind::NotADevice),
            ("/proc/self/maps", OpenFaultKind::Empty),
        ] {
            let fault = refusal(path, Access::Read);
            assert_eq!(fault.kind, kind, "{path}");
            let text = fault.to_string();
            assert!(text.starts_with(path) && text.contains("; "), "{text}");
        }
    }
}
