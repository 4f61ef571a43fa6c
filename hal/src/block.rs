//! The block device: what every port supplies for a raw disk, a partition, a snapshot device, or a plain file.
//!
//! Shape: requests with owned buffers go in ([`BlockDevice::submit`]), each comes back exactly once
//! ([`BlockDevice::complete`]). A request covers up to [`SEGMENTS_PER_REQUEST_MAX`] device ranges that land in one
//! buffer, so one completion answers for one packing frame however its blocks are scattered.
//!
//! ```text
//!  Request { id, op, buf, segments: [ {device_offset, buf_offset, len, fault}, ... ] }
//!                 |                        |
//!                 |                        +-- filled in by the port: None, or what went wrong with this range
//!                 +-- moves to the port and comes back with the completion
//! ```
//!
//! Contract, checked by the conformance suite on every port:
//! - accepted means exactly one completion follows, in any order; refused means the request comes back at once;
//! - offsets and lengths are multiples of the logical block size and lie inside the device, or the segment fails with
//!   [`FaultKind::Misuse`]; a short read at the device's end is a fault, never silent zeros;
//! - a segment that fails leaves its bytes of the buffer undefined and does not touch the others;
//! - a port opened for reading refuses every other operation with [`FaultKind::ReadOnly`].
//!
//! Does not: cache, retry, merge, or reorder on purpose. Source: ours.

use std::fmt;
use std::os::fd::BorrowedFd;

use crate::buf::Buf;

/// Most device ranges in one request. 512 KiB of 4 KiB pieces: the worst fragmentation of one packing frame.
pub const SEGMENTS_PER_REQUEST_MAX: usize = 128;

/// What a device looks like. Constant for as long as it is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Size in bytes; a multiple of `logical_block_bytes` (a plain file's odd tail is rounded down and reported).
    pub size_bytes: u64,
    /// Smallest addressable unit in bytes, a power of two, 512..=65536. Offsets and lengths are multiples of it.
    pub logical_block_bytes: u32,
    /// Unit that the device writes without read-modify-write, in bytes; at least `logical_block_bytes`.
    pub physical_block_bytes: u32,
    /// Preferred request size in bytes, 0 when the device names none.
    pub io_optimal_bytes: u32,
    /// Whether seeks cost (a spinning disk).
    pub rotational: bool,
    /// Whether [`Op::Discard`] does something.
    pub can_discard: bool,
    /// Whether writes are refused.
    pub read_only: bool,
}

/// Stable identity of a device: not a path alone, so that a cable swapped is a device that is noticed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceId {
    /// What a person calls it, for messages: the path it was opened by.
    pub name: String,
    /// The identity itself, such as `wwid:naa.5000c500`, `dm:LVM-abc`, `file:<dev>:<ino>`.
    pub stable: String,
}

/// What a request does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// Device to buffer.
    Read,
    /// Buffer to device.
    Write,
    /// Make the ranges read as zero; the buffer is not used.
    Zero,
    /// Tell the device that the ranges' contents do not matter any more; the buffer is not used.
    Discard,
    /// Everything completed before is durable when this completes; no segments.
    Flush,
}

/// One device range of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Byte offset on the device.
    pub device_offset: u64,
    /// Byte offset in the request's buffer; a multiple of the logical block size.
    pub buf_offset: u32,
    /// Length in bytes, at least one logical block. For `Zero` and `Discard`, in logical blocks' bytes as well.
    pub len: u64,
    /// On completion: what went wrong with this range, if anything. Ignored on submission.
    pub fault: Option<Fault>,
}

impl Segment {
    /// A range that has not been tried yet.
    pub fn new(device_offset: u64, buf_offset: u32, len: u64) -> Segment {
        Segment { device_offset, buf_offset, len, fault: None }
    }
}

/// One operation on up to [`SEGMENTS_PER_REQUEST_MAX`] ranges; travels to the port and back.
#[derive(Debug)]
pub struct Request {
    /// The caller's name for it; comes back unchanged.
    pub id: u64,
    /// What to do.
    pub op: Op,
    /// Memory for `Read` and `Write`; `None` for the rest.
    pub buf: Option<Buf>,
    /// The ranges; the vector's capacity travels with the request so that it can be used again.
    pub segments: Vec<Segment>,
}

/// Why a device operation failed: small, copyable, with numbers. `Display` says what to make of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// What kind of failure.
    pub kind: FaultKind,
    /// First byte on the device that the failed operation covered.
    pub device_offset: u64,
    /// Bytes that the failed operation covered.
    pub len: u64,
    /// The system's error number, 0 when none.
    pub errno: i32,
}

/// The kinds of device failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// The medium could not deliver or keep the bytes (EIO, ENODATA, EILSEQ, EREMOTEIO).
    Media,
    /// The device went away (ENODEV, ENXIO) or cannot be opened.
    Gone,
    /// The device is full (a plain file or a thin volume: ENOSPC, EDQUOT).
    Full,
    /// The port was opened for reading only.
    ReadOnly,
    /// The request broke the contract: misaligned, out of range, too many segments, no buffer.
    Misuse,
    /// The operation is not supported by this device.
    Unsupported,
    /// Anything else; the error number says what.
    Other,
}

impl Fault {
    /// Whether trying the same operation again may succeed.
    pub fn is_transient(&self) -> bool {
        matches!(self.kind, FaultKind::Other)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.kind {
            FaultKind::Media => "medium error",
            FaultKind::Gone => "device is gone",
            FaultKind::Full => "no space left on the device",
            FaultKind::ReadOnly => "device was opened for reading only",
            FaultKind::Misuse => "request does not fit the device",
            FaultKind::Unsupported => "operation not supported by the device",
            FaultKind::Other => "device error",
        };
        write!(f, "{what} at byte {} length {}", self.device_offset, self.len)?;
        if self.errno != 0 {
            write!(f, " ({})", nix::errno::Errno::from_raw(self.errno).desc())?;
        }
        Ok(())
    }
}

impl std::error::Error for Fault {}

/// How long [`BlockDevice::complete`] may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Take what is there.
    Poll,
    /// Block until at least one completion is there, unless nothing is in flight.
    One,
}

/// A device that is read (and, for a restore, written) by queued requests. One owner; ports may use threads inside.
pub trait BlockDevice: Send {
    /// Size and units.
    fn geometry(&self) -> Geometry;

    /// Who it is.
    fn identity(&self) -> &DeviceId;

    /// Queues a request. `Err` gives it back untouched when `queue_depth` requests are in flight already.
    fn submit(&mut self, request: Request) -> Result<(), Request>;

    /// Hands finished requests to `done`, in any order. Returns how many.
    fn complete(&mut self, wait: Wait, done: &mut dyn FnMut(Request)) -> usize;

    /// Requests accepted and not yet handed back.
    fn in_flight(&self) -> usize;

    /// Most requests in flight, at least 1.
    fn queue_depth(&self) -> usize;

    /// A descriptor that becomes readable when completions wait, for a poll loop; `None` where the port has none and
    /// its completions are ready whenever `complete` is called (the simulator).
    fn event_fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// Reads `out.len()` bytes at any `offset`, aligned or not, and waits: for metadata. Must work while requests are
    /// in flight, and neither counts against the queue depth nor completes any of them.
    fn read_at(&mut self, offset: u64, out: &mut [u8]) -> Result<(), Fault>;
}
