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
//! - offsets and lengths are multiples of the logical block size, and of [`READ_UNIT_BYTES`] for a read (a file system may have
//!   smaller blocks than the device that its image was copied to), and lie inside the device, or the segment fails with
//!   [`FaultKind::Misuse`];
//! - the size is exact: that of a plain file may end inside a unit, and a segment may reach to the end of that unit. What is read
//!   there is zero, what is written there is dropped, the size never changes. A device that gives less than its size is a fault;
//! - a segment that fails leaves its bytes of the buffer undefined and does not touch the others;
//! - a port may hold accepted requests back to start them together, until the next `complete` at the latest: a caller
//!   that is about to sleep on [`BlockDevice::event_fd`] calls `complete(Wait::Poll)` first;
//! - a port opened for reading refuses every other operation with [`FaultKind::ReadOnly`].
//!
//! Does not: cache, retry, merge, or reorder on purpose. Source: ours.

use std::fmt;
use std::ops::Range;
use std::os::fd::BorrowedFd;

use crate::buf::Buf;

/// Most device ranges in one request. 512 KiB of 4 KiB pieces: the worst fragmentation of one packing frame.
pub const SEGMENTS_PER_REQUEST_MAX: usize = 128;

/// What reads are aligned to in bytes, whatever the device's own blocks are: what block layers address.
pub const READ_UNIT_BYTES: u32 = 512;

/// What a device looks like. Constant for as long as it is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Size in bytes, exactly; of a plain file perhaps no multiple of anything.
    pub size_bytes: u64,
    /// Smallest unit that is written, in bytes, a power of two, 512..=65536. Offsets and lengths are multiples of it.
    pub logical_block_bytes: u32,
    /// Unit that the device writes without read-modify-write, in bytes; at least `logical_block_bytes`.
    pub physical_block_bytes: u32,
    /// Preferred request size in bytes, 0 when the device names none.
    pub io_optimal_bytes: u32,
    /// Most operations a second, 0 when no cap is known.
    pub operations_per_sec_max: u32,
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
    /// Everything completed before is durable when this completes; no segments. One that fails comes back with a single
    /// segment that covers the whole device and holds the fault.
    Flush,
}

/// One device range of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Byte offset on the device.
    pub device_offset: u64,
    /// Byte offset in the request's buffer; a multiple of the same unit.
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
    /// Chosen by the caller; returned unchanged.
    pub id: u64,
    /// What to do.
    pub op: Op,
    /// Memory for `Read` and `Write`; `None` for the rest.
    pub buf: Option<Buf>,
    /// The ranges; the vector's capacity travels with the request so that it can be used again.
    pub segments: Vec<Segment>,
}

impl Request {
    /// The first fault of the request, if any of its segments has one.
    pub fn fault(&self) -> Option<Fault> {
        self.segments.iter().find_map(|s| s.fault)
    }

    /// Sets a fault on every segment that has none; a request without segments gets one that covers the device.
    pub fn fail(&mut self, kind: FaultKind, errno: i32, size_bytes: u64) {
        if self.segments.is_empty() {
            self.segments.push(Segment::new(0, 0, size_bytes));
        }
        for segment in self.segments.iter_mut().filter(|s| s.fault.is_none()) {
            segment.fail(kind, errno);
        }
    }
}

impl Segment {
    /// Sets the fault of this range.
    pub fn fail(&mut self, kind: FaultKind, errno: i32) {
        self.fault = Some(Fault { kind, device_offset: self.device_offset, len: self.len, errno });
    }
}

impl Geometry {
    /// Checks a request against the contract, the same way for every port: clears the fault of each segment that may be
    /// tried and sets it on those that may not. Linear in the segments, does not allocate.
    pub fn admit(&self, request: &mut Request) {
        let buf_bytes = request.buf.as_ref().map_or(0, |b| b.len() as u64);
        let refused = self.refuses(request);
        for segment in &mut request.segments {
            segment.fault = None;
            if let Some(kind) = refused.or_else(|| self.misfit(request.op, segment, buf_bytes)) {
                segment.fail(kind, 0);
            }
        }
        if let (Some(kind), Op::Flush) = (refused, request.op) {
            request.fail(kind, 0, self.size_bytes);
        }
    }

    /// What is wrong with a request as a whole.
    fn refuses(&self, request: &Request) -> Option<FaultKind> {
        let needs_buf = matches!(request.op, Op::Read | Op::Write);
        if self.read_only && request.op != Op::Read {
            return Some(FaultKind::ReadOnly);
        }
        if request.segments.len() > SEGMENTS_PER_REQUEST_MAX || (needs_buf && request.buf.is_none()) {
            return Some(FaultKind::Misuse);
        }
        if request.op == Op::Flush && !request.segments.is_empty() {
            return Some(FaultKind::Misuse);
        }
        (request.op == Op::Discard && !self.can_discard).then_some(FaultKind::Unsupported)
    }

    /// What is wrong with one range.
    fn misfit(&self, op: Op, segment: &Segment, buf_bytes: u64) -> Option<FaultKind> {
        let unit = u64::from(self.unit_bytes(op));
        let aligned = segment.device_offset.is_multiple_of(unit) && segment.len.is_multiple_of(unit);
        let end = self.size_bytes.checked_next_multiple_of(unit).unwrap_or(u64::MAX);
        let in_device = segment.device_offset.checked_add(segment.len).is_some_and(|to| to <= end);
        let in_buf = match op {
            Op::Read | Op::Write => {
                let start = u64::from(segment.buf_offset);
                start.is_multiple_of(unit)
                    && start.checked_add(segment.len).is_some_and(|end| end <= buf_bytes)
            }
            Op::Zero | Op::Discard | Op::Flush => true,
        };
        (segment.len == 0 || !aligned || !in_device || !in_buf).then_some(FaultKind::Misuse)
    }

    /// What an operation's offsets and lengths are multiples of.
    fn unit_bytes(&self, op: Op) -> u32 {
        match op {
            Op::Read => READ_UNIT_BYTES,
            Op::Write | Op::Zero | Op::Discard | Op::Flush => self.logical_block_bytes,
        }
    }

    /// How many of `len` bytes at `offset` the device has: less only where they reach past an end inside a unit.
    pub fn shown(&self, offset: u64, len: u64) -> u64 {
        len.min(self.size_bytes.saturating_sub(offset))
    }

    /// For a port, when a read is finished: makes zero what its segments have behind the device's end.
    pub fn clear_behind_end(&self, request: &mut Request) {
        let Request { op: Op::Read, buf: Some(buf), segments, .. } = request else { return };
        for segment in segments.iter().filter(|s| s.fault.is_none()) {
            let (start, len) = (segment.buf_offset as usize, segment.len as usize);
            let shown = self.shown(segment.device_offset, segment.len) as usize;
            if shown < len {
                buf[start + shown..start + len].fill(0);
            }
        }
    }

    /// Whether `len` bytes at `offset` lie inside the device.
    pub fn contains(&self, offset: u64, len: u64) -> bool {
        offset.checked_add(len).is_some_and(|end| end <= self.size_bytes)
    }
}

/// Why a device operation failed: small, copyable, with numbers. `Display` is one sentence for people.
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
    /// Anything else; see the error number.
    Other,
}

impl FaultKind {
    /// The kind of failure that an error number of the system means on a block device.
    pub fn from_errno(errno: i32) -> FaultKind {
        use nix::libc;
        match errno {
            libc::EIO | libc::ENODATA | libc::EILSEQ | libc::EREMOTEIO | libc::EUCLEAN => FaultKind::Media,
            libc::ENODEV | libc::ENXIO | libc::ENOMEDIUM | libc::ESHUTDOWN => FaultKind::Gone,
            libc::ENOSPC | libc::EDQUOT | libc::EFBIG => FaultKind::Full,
            libc::EROFS | libc::EBADF | libc::EPERM => FaultKind::ReadOnly,
            libc::EINVAL | libc::EFAULT => FaultKind::Misuse,
            libc::EOPNOTSUPP | libc::ENOSYS | libc::ENOTTY => FaultKind::Unsupported,
            _ => FaultKind::Other,
        }
    }
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

    /// Says that `read_at` will be asked for these byte ranges soon, in this order; an empty list, that
    /// nothing more will be. A hint, for a device that is not written meanwhile: a port may read them in
    /// parallel into bounded memory of its own, which the empty list frees, or do nothing. It reports
    /// nothing: `read_at` reads a range that failed again, and reports the fault.
    fn read_ahead(&mut self, ranges: &[Range<u64>]) {
        let _ = ranges;
    }
}

/// A boxed device is a device, so that middleware wraps what `linux::open` returns.
impl<D: BlockDevice + ?Sized> BlockDevice for Box<D> {
    fn geometry(&self) -> Geometry {
        (**self).geometry()
    }

    fn identity(&self) -> &DeviceId {
        (**self).identity()
    }

    fn submit(&mut self, request: Request) -> Result<(), Request> {
        (**self).submit(request)
    }

    fn complete(&mut self, wait: Wait, done: &mut dyn FnMut(Request)) -> usize {
        (**self).complete(wait, done)
    }

    fn in_flight(&self) -> usize {
        (**self).in_flight()
    }

    fn queue_depth(&self) -> usize {
        (**self).queue_depth()
    }

    fn event_fd(&self) -> Option<BorrowedFd<'_>> {
        (**self).event_fd()
    }

    fn read_at(&mut self, offset: u64, out: &mut [u8]) -> Result<(), Fault> {
        (**self).read_at(offset, out)
    }

    fn read_ahead(&mut self, ranges: &[Range<u64>]) {
        (**self).read_ahead(ranges)
    }
}
