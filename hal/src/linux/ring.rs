//! Block device over io_uring: one submission entry for each segment, one completion for each request.
//!
//! ```text
//!  submit --> slot (request, open segments) --> backlog --> SQ --enter--> kernel --> CQ --> slot --> finished --> done
//!                                                  ^                                  |
//!                                                  +------ short transfer, rest ------+
//! ```
//!
//! Invariants
//! - Entries pushed and not yet reaped (`in_kernel`) never exceed the completion queue, so it cannot overflow; segments
//!   beyond that wait in the backlog, in order.
//! - Every completion names its slot, the slot's generation and the segment. A slot is reused only when no entry of it is
//!   left, so a mismatch is a bug and aborts.
//! - While an entry is in the kernel its request, and so its buffer, lies in a slot. Nothing makes a reference to a
//!   buffer's bytes in that time; only addresses are computed.
//! - Teardown: submit what is pushed, reap until `in_kernel` is 0, then the fields drop in order of declaration: the
//!   kernel's ring (unmaps, closes, unpins), then slots (buffers return to their pools), then the pools' memory. If the
//!   drain fails, slots and arena are leaked rather than freed under the kernel. File and buffers are unregistered after the drain,
//!   because the kernel takes a closed ring apart later and would keep the device claimed until then.
//!
//! Reading ahead ([`BlockDevice::read_ahead`], `ahead.rs`): entries of their own, into an arena that is no request's. They count as
//! `in_kernel`, not as in flight. `read_at` copies from the arena what is there, waits for what is on its way (requests that finish
//! meanwhile stay until the next `complete`), and reads the rest itself. A device open for writing does not read ahead: what
//! it would keep could be overwritten.
//!
//! When requests start: `submit` enters the kernel at once when it has nothing of ours to do, when [`KICK_ENTRIES`] have
//! gathered, and when the submission queue is full; otherwise the entries wait for company until the next `complete`, which
//! always starts them first, for either `Wait`. So a poll loop calls `complete(Wait::Poll)` once a turn before it sleeps.
//!
//! `Zero` of anything and `Discard` of a plain file are fallocate(2) in the ring; `Discard` of a device is an ioctl inside
//! `submit`, as is what the file system refuses to do in the ring. `Flush` is fdatasync.
//!
//! Does not: retry (beyond EINTR and EAGAIN of an entry that was never tried), merge, or reorder.
//!
//! Source: io_uring(7), io_uring_setup(2), io_uring_enter(2), io_uring_register(2). This file holds `unsafe`.
#![allow(unsafe_code)]

use std::cell::Cell;
use std::collections::VecDeque;
use std::fmt;
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use io_uring::{IoUring, Probe, opcode, squeue, types};
use nix::errno::Errno;
use nix::libc;
use nix::sys::eventfd::{EfdFlags, EventFd};

use super::ahead::{self, Ahead, Found};
use super::file::{Bounce, Route, Source, errno_of};
use super::outcome::{outcome, route};
use crate::block::{BlockDevice, DeviceId, Fault, Geometry, Op, Request, SEGMENTS_PER_REQUEST_MAX, Wait};
use crate::buf::{Buf, Pool};

pub use super::QUEUE_DEPTH_MAX;
/// Submission queue in entries: two full requests, so that one request is one system call.
const SUBMISSION_ENTRIES: u32 = 256;
/// Completion queue in entries, and so the most segments in the kernel: what an NVMe queue takes.
const COMPLETION_ENTRIES: u32 = 1024;
/// Entries that gather before `submit` enters the kernel by itself: a system call costs less than 1/16 of a request.
const KICK_ENTRIES: usize = 16;
/// Most bytes in one entry, below the kernel's own bound of 2 GiB less a page.
const ENTRY_BYTES_MAX: u32 = 1 << 30;
/// Most buffers that the kernel registers for one ring (`IORING_MAX_REG_BUFFERS`).
const REGISTERED_BUFS_MAX: usize = 1 << 14;
/// Times in a row that an entry of a request may come back with EINTR or EAGAIN before it is a fault.
const AGAIN_MAX: u32 = 64;
/// Number of the source's own file among those that the kernel registered.
const FILE: u32 = 0;
/// The same through the page cache.
const BUFFERED_FILE: u32 = 1;
/// Segment number of a flush, which has no segment.
const NO_SEGMENT: u16 = u16::MAX;
/// Slot number of what is read ahead, which has no slot; its segment number is the range's name.
const AHEAD_SLOT: u16 = u16::MAX;
/// Bytes that a synchronous read takes in one system call: what is larger and matters is read ahead.
pub(super) const BOUNCE_BYTES: usize = 256 << 10;

/// The opcodes that the port needs, with the names that messages use.
const OPCODES: [(u8, &str); 6] = [
    (opcode::Read::CODE, "READ"),
    (opcode::Write::CODE, "WRITE"),
    (opcode::ReadFixed::CODE, "READ_FIXED"),
    (opcode::WriteFixed::CODE, "WRITE_FIXED"),
    (opcode::Fsync::CODE, "FSYNC"),
    (opcode::Fallocate::CODE, "FALLOCATE"),
];

const _: () =
    assert!(QUEUE_DEPTH_MAX < AHEAD_SLOT as usize && SEGMENTS_PER_REQUEST_MAX < NO_SEGMENT as usize);
const _: () = assert!(SUBMISSION_ENTRIES <= COMPLETION_ENTRIES);

/// Why this kernel or container has no usable io_uring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unavailable {
    /// The step that failed: a system call or an opcode.
    pub step: &'static str,
    /// The system's error number, 0 for a missing opcode.
    pub errno: i32,
}

impl fmt::Display for Unavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.errno {
            0 => write!(f, "io_uring lacks {}", self.step),
            libc::EPERM => {
                write!(f, "{} not permitted (sysctl kernel.io_uring_disabled, or seccomp)", self.step)
            }
            errno => write!(f, "{} failed: {}", self.step, Errno::from_raw(errno).desc()),
        }
    }
}

fn unavailable(step: &'static str) -> impl Fn(std::io::Error) -> Unavailable {
    move |error| Unavailable { step, errno: errno_of(&error) as i32 }
}

/// What the kernel knows of the port: the ring, the registered file and buffers, the eventfd.
pub(super) struct Kernel {
    ring: IoUring,
    event: EventFd,
    registered: Vec<Registered>,
    capacity: usize,
}

/// A pool whose buffers the kernel has pinned.
struct Registered {
    pool: Pool,
    first: usize,
}

impl Kernel {
    /// Makes a ring for `source` and proves that it can do what the port needs.
    pub(super) fn new(source: &Source, pools: &[Pool]) -> Result<Kernel, Unavailable> {
        let ring = IoUring::builder()
            .setup_clamp()
            .setup_cqsize(COMPLETION_ENTRIES)
            .build(SUBMISSION_ENTRIES)
            .map_err(unavailable("io_uring_setup"))?;
        check_opcodes(&ring)?;
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        let event =
            EventFd::from_flags(flags).map_err(|e| Unavailable { step: "eventfd", errno: e as i32 })?;
        let submitter = ring.submitter();

        let files = [source.fd().as_raw_fd(), source.buffered_fd().as_raw_fd()];
        submitter.register_files(&files).map_err(unavailable("IORING_REGISTER_FILES"))?;
        submitter
            .register_eventfd(event.as_fd().as_raw_fd())
            .map_err(unavailable("IORING_REGISTER_EVENTFD"))?;
        let registered = register_pools(&ring, pools);
        let capacity = ring.params().cq_entries() as usize;
        Ok(Kernel { ring, event, registered, capacity })
    }

    /// The number under which the kernel knows a buffer; `None` for a buffer of another pool.
    fn registered_index(&self, buf: &Buf) -> Option<u16> {
        let of = self.registered.iter().find(|r| r.pool.owns(buf))?;
        u16::try_from(of.first + buf.index() as usize).ok()
    }

    /// Starts what was pushed and waits for `want` completions. Returns whether a further call may succeed:
    /// an interrupted call and a kernel short of memory are hopeful, anything else is a bug in this file.
    fn enter(&self, want: usize) -> Result<(), Errno> {
        match self.ring.submit_and_wait(want) {
            Ok(_) => Ok(()),
            Err(error) => match errno_of(&error) {
                Errno::EINTR | Errno::EAGAIN | Errno::EBUSY => Ok(()),
                errno => Err(errno),
            },
        }
    }
}

impl Kernel {
    /// Gives the file and the buffers back now. The kernel takes a closed ring apart later, in its own time, and until then
    /// the device would stay claimed: opening it again for writing would find it busy.
    fn unregister(&self) {
        let submitter = self.ring.submitter();
        let files = submitter.unregister_files();
        let buffers = if self.registered.is_empty() { Ok(()) } else { submitter.unregister_buffers() };
        if let Err(error) = files.and(buffers) {
            log::debug!("ring: unregister errno={}", errno_of(&error));
        }
    }
}

fn check_opcodes(ring: &IoUring) -> Result<(), Unavailable> {
    let mut probe = Probe::new();
    ring.submitter().register_probe(&mut probe).map_err(unavailable("IORING_REGISTER_PROBE"))?;
    match OPCODES.iter().find(|(code, _)| !probe.is_supported(*code)) {
        Some((_, name)) => Err(Unavailable { step: name, errno: 0 }),
        None => Ok(()),
    }
}

/// Registers the pools that fit; none when the kernel refuses (RLIMIT_MEMLOCK), which costs throughput and nothing else.
fn register_pools(ring: &IoUring, pools: &[Pool]) -> Vec<Registered> {
    let mut vectors: Vec<libc::iovec> = Vec::new();
    let mut registered = Vec::with_capacity(pools.len());
    for pool in pools {
        if vectors.len() + pool.count() > REGISTERED_BUFS_MAX {
            log::info!("ring: pool not registered, too many buffers count={}", pool.count());
            continue;
        }
        registered.push(Registered { pool: pool.clone(), first: vectors.len() });
        vectors.extend((0..pool.count()).map(|i| {
            let (base, len) = pool.raw_part(i);
            libc::iovec { iov_base: base.cast(), iov_len: len }
        }));
    }
    if vectors.is_empty() {
        return Vec::new();
    }
    // SAFETY: each vector describes a buffer of a pool that `registered` keeps alive for as long as the ring (declared
    // after it); the kernel pins the pages now and touches them only for entries that `RingDevice` pushes.
    match unsafe { ring.submitter().register_buffers(&vectors) } {
        Ok(()) => registered,
        Err(error) => {
            log::info!("ring: buffers not registered, going on without errno={}", errno_of(&error));
            Vec::new()
        }
    }
}

/// A request in flight.
struct Slot {
    request: Option<Request>,
    /// Counts the uses of the slot, so that a completion cannot be taken for another request's.
    generation: u32,
    /// Segments (or the flush) that are not settled yet.
    open: usize,
    /// Entries in a row that came back untried.
    again: u32,
    /// Bytes transferred of each segment.
    done: Vec<u32>,
}

/// One segment of a slot, as it travels through the queues.
#[derive(Clone, Copy)]
struct Piece {
    slot: u16,
    segment: u16,
}

/// A block device behind an io_uring. See the module.
pub struct RingDevice {
    kernel: Kernel,
    slots: Vec<Slot>,
    /// What is read ahead into; there from the first hint to the empty one.
    arena: Option<Buf>,
    ahead: Ahead,
    source: Source,
    bounce: Bounce,
    free: Vec<u16>,
    backlog: VecDeque<Piece>,
    finished: VecDeque<Request>,
    harvest: Vec<(u64, i32)>,
    /// Entries pushed and not reaped.
    in_kernel: usize,
    /// Most bytes in one entry: [`ENTRY_BYTES_MAX`], less in tests so that transfers come out short.
    entry_bytes_max: u32,
    /// Whether the eventfd is polled, so that `complete` must empty it.
    watched: Cell<bool>,
}

impl RingDevice {
    /// Puts a ring and an open device together. Allocates everything that the device will ever need.
    pub(super) fn new(kernel: Kernel, source: Source, bounce: Bounce, depth: usize) -> RingDevice {
        let depth = depth.clamp(1, QUEUE_DEPTH_MAX);
        let slot = || Slot {
            request: None,
            generation: 0,
            open: 0,
            again: 0,
            done: vec![0; SEGMENTS_PER_REQUEST_MAX],
        };
        RingDevice {
            slots: (0..depth).map(|_| slot()).collect(),
            arena: None,
            ahead: Ahead::new(),
            free: (0..depth as u16).rev().collect(),
            backlog: VecDeque::with_capacity(depth * SEGMENTS_PER_REQUEST_MAX),
            finished: VecDeque::with_capacity(depth),
            harvest: Vec::with_capacity(kernel.capacity),
            in_kernel: 0,
            entry_bytes_max: ENTRY_BYTES_MAX,
            watched: Cell::new(false),
            kernel,
            source,
            bounce,
        }
    }

    /// Whether I/O goes around the page cache.
    pub fn is_direct(&self) -> bool {
        self.source.is_direct()
    }

    /// Pools whose buffers the kernel has pinned.
    pub fn registered_pools(&self) -> usize {
        self.kernel.registered.len()
    }

    /// Takes a request in: it is finished at once when there is nothing for the kernel to do, else its segments queue up.
    fn accept(&mut self, mut request: Request) {
        self.source.geometry().admit(&mut request);
        if request.op == Op::Discard && self.source.is_block() {
            self.source.clear_all(&mut request);
            return self.finish_at_once(request);
        }
        let todo = match request.op {
            Op::Flush => usize::from(request.segments.is_empty()),
            _ => request.segments.iter().filter(|s| s.fault.is_none()).count(),
        };
        if todo == 0 {
            return self.finish_at_once(request);
        }
        let Some(index) = self.free.pop() else {
            panic!("ring: submit checked that a slot is free");
        };
        let flush = request.op == Op::Flush;
        let slot = &mut self.slots[index as usize];
        slot.open = todo;
        slot.again = 0;
        slot.done.fill(0);
        if flush {
            self.backlog.push_back(Piece { slot: index, segment: NO_SEGMENT });
        }
        for (n, _) in request.segments.iter().enumerate().filter(|(_, s)| s.fault.is_none()) {
            self.backlog.push_back(Piece { slot: index, segment: n as u16 });
        }
        slot.request = Some(request);
    }

    /// Finishes a request that never was in the kernel, and wakes the poll that waits for completions.
    fn finish_at_once(&mut self, request: Request) {
        self.finished.push_back(request);
        // Fails only when the counter is full, and then the descriptor is readable already.
        let _ = self.kernel.event.write(1);
    }

    /// Moves the backlog into the submission queue as far as the queues allow.
    fn push_backlog(&mut self) {
        while self.in_kernel < self.kernel.capacity
            && let Some(&piece) = self.backlog.front()
        {
            if self.kernel.ring.submission().is_full() {
                self.enter(0);
                if self.kernel.ring.submission().is_full() {
                    return;
                }
            }
            let Some(entry) = self.entry(piece) else { return };
            // SAFETY: `entry` refers to the registered file and to memory of a buffer in a slot. The slot keeps it until
            // the entry's completion was reaped (`settle`), and `drop` reaps before it frees.
            let pushed = unsafe { self.kernel.ring.submission().push(&entry) };
            assert!(pushed.is_ok(), "the submission queue had room");
            self.backlog.pop_front();
            self.in_kernel += 1;
        }
    }

    /// Enters the kernel. An error other than a passing one means that the ring itself is broken; a repeat
    /// does not help.
    fn enter(&self, want: usize) {
        if let Err(errno) = self.kernel.enter(want) {
            panic!("ring: io_uring_enter failed: {errno}");
        }
    }

    /// Builds the entry for a piece, from where its segment stands.
    fn entry(&self, piece: Piece) -> Option<squeue::Entry> {
        let slot = &self.slots[piece.slot as usize];
        let request = slot.request.as_ref()?;
        let file = types::Fixed(FILE);
        let entry = match request.segments.get(piece.segment as usize) {
            None => opcode::Fsync::new(file).flags(types::FsyncFlags::DATASYNC).build(),
            Some(segment) if matches!(request.op, Op::Read | Op::Write) => {
                let done = slot.done[piece.segment as usize];
                let buf = request.buf.as_ref()?;
                let route = route(&self.source, segment, buf, done);
                let at = segment.buf_offset as usize + done as usize;
                let len = route.len.min(self.entry_bytes_max as usize) as u32;
                let file = types::Fixed(if route.direct { FILE } else { BUFFERED_FILE });
                self.transfer(request.op, file, buf, at, len, segment.device_offset + u64::from(done))
            }
            Some(segment) => {
                opcode::Fallocate::new(file, self.source.geometry().shown(segment.device_offset, segment.len))
                    .offset(segment.device_offset)
                    .mode(super::file::clear_mode(request.op))
                    .build()
            }
        };
        let name = u64::from(slot.generation) << 32 | u64::from(piece.slot) << 16 | u64::from(piece.segment);
        Some(entry.user_data(name))
    }

    /// The entry that moves `len` bytes between the device at `offset` and the buffer at `at`.
    fn transfer(
        &self,
        op: Op,
        file: types::Fixed,
        buf: &Buf,
        at: usize,
        len: u32,
        offset: u64,
    ) -> squeue::Entry {
        let address = buf.address().wrapping_add(at);
        match (op, self.kernel.registered_index(buf)) {
            (Op::Read, Some(index)) => {
                opcode::ReadFixed::new(file, address, len, index).offset(offset).build()
            }
            (Op::Read, None) => opcode::Read::new(file, address, len).offset(offset).build(),
            (_, Some(index)) => opcode::WriteFixed::new(file, address, len, index).offset(offset).build(),
            (_, None) => opcode::Write::new(file, address, len).offset(offset).build(),
        }
    }

    /// Takes every completion that is there.
    fn reap(&mut self) {
        let mut harvest = std::mem::take(&mut self.harvest);
        harvest.clear();
        harvest.extend(self.kernel.ring.completion().map(|c| (c.user_data(), c.result())));
        for &(name, result) in &harvest {
            self.settle(name, result);
        }
        self.harvest = harvest;
    }

    /// One completion: the rest of a short transfer goes back to the queue, anything else settles its segment.
    fn settle(&mut self, name: u64, result: i32) {
        let piece = Piece { slot: (name >> 16) as u16, segment: name as u16 };
        if piece.slot == AHEAD_SLOT {
            return self.settle_ahead(piece.segment, result);
        }
        let slot = &mut self.slots[piece.slot as usize];
        assert!(slot.generation == (name >> 32) as u32, "a completion belongs to a request in flight");
        let Some(request) = slot.request.as_mut() else {
            panic!("ring: completion of an empty slot");
        };
        assert!(self.in_kernel > 0, "a completion belongs to an entry in the kernel");
        self.in_kernel -= 1;
        let untried = result == -libc::EAGAIN || result == -libc::EINTR;
        slot.again = if untried { slot.again + 1 } else { 0 };
        if untried && slot.again <= AGAIN_MAX {
            self.backlog.push_front(piece);
            return;
        }
        let segment = piece.segment as usize;
        match outcome(&self.source, request, segment, slot.done.get_mut(segment), result) {
            Ok(true) => {}
            Ok(false) => return self.backlog.push_front(piece),
            Err(failure) => match request.segments.get_mut(segment) {
                Some(segment) => segment.fail(failure.kind, failure.errno),
                None => request.fail(failure.kind, failure.errno, self.source.geometry().size_bytes),
            },
        }
        slot.open -= 1;
        if slot.open == 0 {
            slot.generation = slot.generation.wrapping_add(1);
            self.source.geometry().clear_behind_end(request);
            self.finished.extend(slot.request.take());
            self.free.push(piece.slot);
        }
    }

    /// A completion of what is read ahead. One that failed or was short is dropped: `read_at` then reads the
    /// range itself.
    fn settle_ahead(&mut self, name: u16, result: i32) {
        assert!(self.in_kernel > 0, "a completion belongs to an entry in the kernel");
        self.in_kernel -= 1;
        if let Some((offset, len)) = self.ahead.len_of(name) {
            self.ahead.settle(name, usize::try_from(result) == Ok(len));
            self.source.forget_read(Route { direct: self.source.is_direct(), len }, offset);
        }
    }

    /// Starts reading a range, rounded to whole blocks, unless some of it is here, it is not on the device, or there is no room.
    fn start_ahead(&mut self, range: &Range<u64>) {
        let geometry = self.source.geometry();
        let unit = self.source.unit_bytes();
        let end = range.end.checked_next_multiple_of(unit).filter(|&end| end <= geometry.size_bytes);
        let Some(end) = end else { return };
        if self.in_kernel == self.kernel.capacity || self.kernel.ring.submission().is_full() {
            return;
        }
        let Some(address) = self.arena.as_ref().map(Buf::address) else { return };
        let range = range.start / unit * unit..end;
        let Some((name, at)) = self.ahead.admit(&range) else { return };
        let len = (range.end - range.start) as u32;
        let entry = opcode::Read::new(types::Fixed(FILE), address.wrapping_add(at), len)
            .offset(range.start)
            .build()
            .user_data(u64::from(AHEAD_SLOT) << 16 | u64::from(name));
        // SAFETY: `entry` refers to the registered file and to memory of the arena, of which `ahead` gave these units to this entry
        // alone until its completion was reaped. The arena stays until then: `end_ahead` and `drop` reap before they free it.
        let pushed = unsafe { self.kernel.ring.submission().push(&entry) };
        assert!(pushed.is_ok(), "the submission queue had room");
        self.in_kernel += 1;
    }

    /// Waits for what is on its way and gives the memory back.
    fn end_ahead(&mut self) {
        while self.ahead.flies() {
            self.enter(1);
            self.reap();
        }
        self.ahead = Ahead::new();
        self.arena = None;
    }

    /// Copies `out.len()` bytes of the arena from byte `at` on, where a range is that was read.
    fn copy_ahead(&self, at: usize, out: &mut [u8]) {
        let Some(arena) = &self.arena else { return };
        assert!(at + out.len() <= ahead::ARENA_BYTES, "a range lies in the arena");
        // SAFETY: the source lies inside the arena (asserted), in units of a range that was read to its end, so the kernel does not
        // write there; `out` is exclusive and elsewhere. No reference is made to the arena, parts of which may be in the kernel.
        unsafe {
            std::ptr::copy_nonoverlapping(arena.address().wrapping_add(at), out.as_mut_ptr(), out.len())
        }
    }

    /// The fewest completions that can finish a request: waiting for less would only wake us for nothing.
    fn completions_to_finish(&self) -> usize {
        let fewest = self.slots.iter().map(|s| s.open).filter(|&open| open > 0).min();
        fewest.unwrap_or(1).min(self.in_kernel)
    }

    /// Empties the eventfd, before the queues are read: what comes later makes it readable again.
    fn clear_event(&self) {
        if self.watched.get() {
            let _ = self.kernel.event.read();
        }
    }
}

impl BlockDevice for RingDevice {
    fn geometry(&self) -> Geometry {
        self.source.geometry()
    }

    fn identity(&self) -> &DeviceId {
        self.source.identity()
    }

    fn submit(&mut self, request: Request) -> Result<(), Request> {
        if self.in_flight() == self.slots.len() {
            return Err(request);
        }
        self.accept(request);
        self.push_backlog();
        let waiting = self.kernel.ring.submission().len();
        if waiting >= KICK_ENTRIES || (waiting > 0 && waiting == self.in_kernel) {
            self.enter(0);
        }
        Ok(())
    }

    fn complete(&mut self, wait: Wait, done: &mut dyn FnMut(Request)) -> usize {
        self.clear_event();
        loop {
            self.reap();
            self.push_backlog();
            let block = wait == Wait::One && self.finished.is_empty() && self.in_flight() > 0;
            if block || !self.kernel.ring.submission().is_empty() {
                self.enter(if block { self.completions_to_finish() } else { 0 });
            }
            if !block {
                break;
            }
        }
        let mut count = 0;
        while let Some(request) = self.finished.pop_front() {
            count += 1;
            done(request);
        }
        count
    }

    fn in_flight(&self) -> usize {
        self.slots.len() - self.free.len() + self.finished.len()
    }

    fn queue_depth(&self) -> usize {
        self.slots.len()
    }

    fn event_fd(&self) -> Option<BorrowedFd<'_>> {
        self.watched.set(true);
        Some(self.kernel.event.as_fd())
    }

    fn read_at(&mut self, offset: u64, out: &mut [u8]) -> Result<(), Fault> {
        self.ahead.ask();
        if self.ahead.is_empty() || !self.source.geometry().contains(offset, out.len() as u64) {
            return self.bounce.read_at(&self.source, offset, out);
        }
        let (mut place, mut rest) = (offset, out);
        while !rest.is_empty() {
            let taken = match self.ahead.find(place, rest.len()) {
                Found::Nowhere(len) => {
                    self.bounce.read_at(&self.source, place, &mut rest[..len])?;
                    len
                }
                Found::Flying(_) => {
                    self.enter(1);
                    self.reap();
                    0
                }
                Found::Here { name, at, len } => {
                    self.copy_ahead(at, &mut rest[..len]);
                    self.ahead.took(name, place + len as u64);
                    len
                }
            };
            place += taken as u64;
            rest = &mut rest[taken..];
        }
        Ok(())
    }

    fn read_ahead(&mut self, ranges: &[Range<u64>]) {
        if ranges.is_empty() {
            return self.end_ahead();
        }
        if !self.source.geometry().read_only {
            return;
        }
        if self.arena.is_none() {
            self.arena = Pool::new(1, ahead::ARENA_BYTES).take();
        }
        ranges.iter().for_each(|range| self.start_ahead(range));
        if !self.kernel.ring.submission().is_empty() {
            self.enter(0);
        }
    }
}

impl Drop for RingDevice {
    fn drop(&mut self) {
        self.backlog.clear();
        while self.in_kernel > 0 {
            if self.kernel.enter(1).is_err() {
                // The kernel may still write into these buffers; memory that is lost is better than memory that lies.
                std::mem::forget(std::mem::take(&mut self.slots));
                std::mem::forget(self.arena.take());
                return;
            }
            self.reap();
            self.backlog.clear();
        }
        self.kernel.unregister();
    }
}

impl fmt::Debug for RingDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, in_flight, depth) = (&self.source.identity().name, self.in_flight(), self.slots.len());
        write!(f, "RingDevice({name}, {in_flight} of {depth} in flight, {} entries)", self.in_kernel)
    }
}

#[cfg(test)]
#[path = "ring_test.rs"]
mod tests;
