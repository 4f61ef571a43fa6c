//! Block device over a few threads and pread(2)/pwrite(2): for kernels and containers where io_uring is disabled.
//!
//! Invariants
//! - A request is in exactly one place: the queue, one thread, or the finished list. All three hold owned requests, so the
//!   type system proves what the ring has to promise.
//! - A request's segments are done by one thread, in order; requests run beside each other.
//! - Teardown: the queue is emptied (buffers return to their pools), threads finish what they hold and are joined, then the
//!   file closes.
//!
//! Does not: read ahead; start threads after it is made. A queue depth beyond [`THREADS_MAX`] queues, and keeps no more in the device.
//!
//! Source: pread(2), eventfd(2).

use std::cell::Cell;
use std::collections::VecDeque;
use std::fmt;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use nix::errno::Errno;
use nix::sys::eventfd::{EfdFlags, EventFd};

use super::QUEUE_DEPTH_MAX;
use super::file::{Bounce, Failure, Source, errno_of};
use crate::block::{BlockDevice, DeviceId, Fault, Geometry, Op, Request, Segment, Wait};

/// Most threads of one device: enough to fill a SATA disk or a virtual one; faster ones deserve the ring.
pub const THREADS_MAX: usize = 16;
/// Bytes that a synchronous read takes in one system call: a piece of inodes, since this port does not read ahead.
pub(super) const BOUNCE_BYTES: usize = 1 << 20;
/// Stack of a thread in bytes: they call the kernel and little else.
const STACK_BYTES: usize = 128 << 10;

/// What the owner and the threads share.
struct Shared {
    source: Source,
    event: EventFd,
    state: Mutex<State>,
    /// Signalled when the queue grows or closes.
    work: Condvar,
    /// Signalled when the finished list grows.
    ready: Condvar,
}

struct State {
    queue: VecDeque<Request>,
    finished: VecDeque<Request>,
    closing: bool,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The life of a thread.
    fn work(&self) {
        while let Some(mut request) = self.next() {
            perform(&self.source, &mut request);
            self.state().finished.push_back(request);
            self.ready.notify_one();
            // Fails only when the counter is full, and then the descriptor is readable already.
            let _ = self.event.write(1);
        }
    }

    /// Waits for a request; `None` when the device closes.
    fn next(&self) -> Option<Request> {
        let mut state = self.state();
        while state.queue.is_empty() && !state.closing {
            state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.queue.pop_front()
    }
}

/// Carries out a request that was admitted.
fn perform(source: &Source, request: &mut Request) {
    if request.op == Op::Flush {
        if request.segments.is_empty()
            && let Err(failure) = source.flush()
        {
            request.fail(failure.kind, failure.errno, source.geometry().size_bytes);
        }
        return;
    }
    let Request { op, buf, segments, .. } = request;
    for segment in segments.iter_mut().filter(|s| s.fault.is_none()) {
        if let Err(failure) = perform_segment(source, *op, buf.as_deref_mut(), segment) {
            segment.fail(failure.kind, failure.errno);
        }
    }
}

fn perform_segment(
    source: &Source,
    op: Op,
    buf: Option<&mut [u8]>,
    segment: &Segment,
) -> Result<(), Failure> {
    let start = segment.buf_offset as usize;
    match (op, buf.and_then(|b| b.get_mut(start..start + segment.len as usize))) {
        (Op::Read, Some(bytes)) => source.read(segment.device_offset, bytes),
        (Op::Write, Some(bytes)) => source.write(segment.device_offset, bytes),
        (Op::Zero | Op::Discard, _) => source.clear(op, segment.device_offset, segment.len),
        // Admission refuses a transfer without a buffer that holds it.
        (Op::Read | Op::Write | Op::Flush, _) => Err(Failure::from(Errno::EINVAL)),
    }
}

/// A block device behind threads. See the module.
pub struct PreadDevice {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    bounce: Bounce,
    depth: usize,
    in_flight: usize,
    /// Takes turns with the shared list of finished requests, so that completing allocates nothing.
    spare: VecDeque<Request>,
    /// Whether the eventfd is polled, so that `complete` must empty it.
    watched: Cell<bool>,
}

impl PreadDevice {
    /// Starts the threads for an open device. Fails when the system has no thread or descriptor left.
    pub(super) fn new(source: Source, bounce: Bounce, depth: usize) -> Result<PreadDevice, Errno> {
        let depth = depth.clamp(1, QUEUE_DEPTH_MAX);
        let event = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        let queue = VecDeque::with_capacity(depth);
        let state = State { finished: VecDeque::with_capacity(depth), queue, closing: false };
        let (work, ready) = (Condvar::new(), Condvar::new());
        let shared = Arc::new(Shared { source, event, state: Mutex::new(state), work, ready });
        // Made before its threads, so that a failure half-way joins those that run.
        let (threads, spare) = (Vec::with_capacity(THREADS_MAX), VecDeque::with_capacity(depth));
        let watched = Cell::new(false);
        let mut device = PreadDevice { shared, threads, bounce, depth, in_flight: 0, spare, watched };
        for n in 0..depth.min(THREADS_MAX) {
            let shared = Arc::clone(&device.shared);
            let thread = thread::Builder::new().name(format!("pread-{n}")).stack_size(STACK_BYTES);
            device.threads.push(thread.spawn(move || shared.work()).map_err(|e| errno_of(&e))?);
        }
        Ok(device)
    }

    /// Whether I/O goes around the page cache.
    pub fn is_direct(&self) -> bool {
        self.shared.source.is_direct()
    }

    /// Moves what is finished to `spare`, after waiting for it if asked to.
    fn take_finished(&mut self, wait: Wait) {
        let mut state = self.shared.state();
        while wait == Wait::One && state.finished.is_empty() && self.in_flight > 0 {
            state = self.shared.ready.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        std::mem::swap(&mut state.finished, &mut self.spare);
    }
}

impl BlockDevice for PreadDevice {
    fn geometry(&self) -> Geometry {
        self.shared.source.geometry()
    }

    fn identity(&self) -> &DeviceId {
        self.shared.source.identity()
    }

    fn submit(&mut self, mut request: Request) -> Result<(), Request> {
        if self.in_flight == self.depth {
            return Err(request);
        }
        self.in_flight += 1;
        self.geometry().admit(&mut request);
        self.shared.state().queue.push_back(request);
        self.shared.work.notify_one();
        Ok(())
    }

    fn complete(&mut self, wait: Wait, done: &mut dyn FnMut(Request)) -> usize {
        if self.watched.get() {
            let _ = self.shared.event.read();
        }
        self.take_finished(wait);
        let count = self.spare.len();
        self.in_flight -= count;
        self.spare.drain(..).for_each(done);
        count
    }

    fn in_flight(&self) -> usize {
        self.in_flight
    }

    fn queue_depth(&self) -> usize {
        self.depth
    }

    fn event_fd(&self) -> Option<BorrowedFd<'_>> {
        self.watched.set(true);
        Some(self.shared.event.as_fd())
    }

    fn read_at(&mut self, offset: u64, out: &mut [u8]) -> Result<(), Fault> {
        self.bounce.read_at(&self.shared.source, offset, out)
    }
}

impl Drop for PreadDevice {
    fn drop(&mut self) {
        let mut state = self.shared.state();
        state.closing = true;
        state.queue.clear();
        drop(state);
        self.shared.work.notify_all();
        for thread in self.threads.drain(..) {
            // A thread that panicked has reported it; there is nothing left to do about it here.
            let _ = thread.join();
        }
    }
}

impl fmt::Debug for PreadDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, threads) = (&self.identity().name, self.threads.len());
        write!(f, "PreadDevice({name}, {} of {} in flight, {threads} threads)", self.in_flight, self.depth)
    }
}
