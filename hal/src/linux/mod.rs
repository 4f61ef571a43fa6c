//! The Linux port: block devices and plain files over io_uring, or over threads where that is disabled; a poll loop.
//!
//! | file | what |
//! |---|---|
//! | `file` | how a device or file is opened and described; synchronous I/O |
//! | [`ring`] | the queue over io_uring |
//! | [`fault`] | why a device could not be opened |
//! | [`poll`] | readiness of descriptors, and a waker |
//! | `sysfs`, `sys` | attributes and system calls |
//!
//! Invariants: a source is opened read-only and its page cache stays as it was (P7); a target is opened exclusively.
//!
//! Does not: decide what to read. Source: ours; each file names its own.

use std::path::Path;

pub mod fault;
mod file;
pub mod poll;
pub mod ring;
pub(crate) mod sys;
mod sysfs;

pub use fault::{OpenFault, OpenFaultKind};
pub use file::{Access, Caching};

use crate::block::BlockDevice;
use crate::buf::Pool;
use file::{Bounce, Source};
use ring::{Kernel, RingDevice};

/// Opens a block device or plain file with up to `depth` requests in flight (at least 1, cut to
/// [`ring::QUEUE_DEPTH_MAX`]). `pools` are those whose buffers will be used, for registration with the kernel; buffers of
/// other pools work too. Allocates; pins the pools' memory.
pub fn open(
    path: &Path,
    access: Access,
    depth: usize,
    pools: &[Pool],
) -> Result<Box<dyn BlockDevice>, OpenFault> {
    Ok(Box::new(open_ring(path, access, Caching::Direct, depth, pools)?))
}

/// Opens over io_uring or not at all.
pub fn open_ring(
    path: &Path,
    access: Access,
    caching: Caching,
    depth: usize,
    pools: &[Pool],
) -> Result<RingDevice, OpenFault> {
    let source = Source::open(path, access, caching)?;
    let kernel = Kernel::new(&source, pools).map_err(|u| OpenFault::queue(u.errno, path))?;
    let bounce = Bounce::new().ok_or_else(|| OpenFault::new(OpenFaultKind::Exhausted, path))?;
    Ok(RingDevice::new(kernel, source, bounce, depth))
}
