//! The loop that backs up one stretch of a volume: feeds the machine with events, does what it asks for, waits when there is nothing.
//!
//! ```text
//!            +-- Sweep ---> volume (at once); so is ReadContents, what only the volume can read
//!  machine --+-- Read ----> device queue --+
//!   ^        +-- Pack ----> lanes ---------+--> events --> machine
//!   |        +-- Put -----> uplink --------+
//!   |        `-- Commit --> commit log ----+
//!   `---------------- deadline ------------'
//! ```
//!
//! Invariants: one event at a time, actions drained to none before waiting; when the loop ends early, every request has come
//! back from the device (its answers would be taken for those of the next machine's requests); what the uplink still has
//! comes back to the next caller, who passes over it.
//! Source: ours; `agent/doc/architecture.md`, Machines and drivers.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use windlass_hal::block::{BlockDevice, Request, Wait};
use windlass_hal::volume::{Volume, VolumeFault};

use crate::drive::lanes::Lanes;
use crate::id::ObjectId;
use crate::log::fault::LogFault;
use crate::pack::object::ObjectBuf;
use crate::store::StoreFault;
use crate::store::uplink::{Answer, Body, Job, PutHow, Uplink};
use crate::worker::backup::{Action, Backup, BackupFault, Base, Event, Progress};

/// What the loop waits on, and the time.
pub trait Reactor {
    /// Boot time in nanoseconds.
    fn now_ns(&self) -> u64;
    /// Wall clock in nanoseconds since 1970, for people.
    fn wall_ns(&self) -> i64;
    /// Returns when the device, a lane, the uplink or the log has something, or at `deadline_ns`; or earlier, for nothing.
    fn wait(&mut self, deadline_ns: Option<u64>);
}

/// Where commits go: one at a time.
pub trait CommitLog {
    /// Begins a commit; its answer comes from `take_done`.
    fn begin(&mut self, progress: Progress);
    /// The answer to the commit that was begun, once. That of a stretch's last may come before it counts, when the log keeps it until it does.
    fn take_done(&mut self) -> Option<Result<(), LogFault>>;
    /// What was packed when a flush was asked for is committed.
    fn flushed(&mut self) {}
}

/// Why a volume's backup ended early.
#[derive(Debug)]
pub enum DriveFault<F> {
    /// The volume cannot be read.
    Volume(VolumeFault),
    /// The device is gone.
    Device(windlass_hal::block::Fault),
    /// An object or segment could not be stored.
    Store(StoreFault),
    /// The commit log refused, or the lease is lost.
    Log(LogFault),
    /// The last point's tables could not be read.
    Base(F),
    /// A frame does not give back what was read.
    Spoilt(ObjectId, u32),
    /// A stop was asked for.
    Stopped,
}

impl<F: fmt::Display> fmt::Display for DriveFault<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DriveFault::Volume(fault) => fault.fmt(f),
            DriveFault::Device(fault) => fault.fmt(f),
            DriveFault::Store(fault) => fault.fmt(f),
            DriveFault::Log(fault) => fault.fmt(f),
            DriveFault::Base(fault) => write!(f, "the last point's tables: {fault}"),
            DriveFault::Spoilt(object, offset) => write!(
                f,
                "data that was packed does not open as what was read (object {object}, byte {offset}); it was not sent. \
                 This machine's memory or processor changes data: test its memory before the next backup"
            ),
            DriveFault::Stopped => f.write_str("stopped on request; what is stored is kept for the next run"),
        }
    }
}

impl<F> From<BackupFault<F>> for DriveFault<F> {
    fn from(fault: BackupFault<F>) -> DriveFault<F> {
        match fault {
            BackupFault::Device(fault) => DriveFault::Device(fault),
            BackupFault::Base(fault) => DriveFault::Base(fault),
            BackupFault::Spoilt(object, offset) => DriveFault::Spoilt(object, offset),
        }
    }
}

impl Body for ObjectBuf {
    fn with_parts(&self, f: &mut dyn FnMut(&[&[u8]])) {
        ObjectBuf::with_parts(self, f);
    }
}

/// The parts that one volume's backup runs on.
pub struct Parts<'a> {
    /// Where the volume is.
    pub device: &'a mut dyn BlockDevice,
    /// What is on it.
    pub volume: &'a mut dyn Volume,
    /// Pack lanes.
    pub lanes: &'a Lanes,
    /// Threads that talk to the store.
    pub uplink: &'a Uplink,
    /// The commit log.
    pub log: &'a mut dyn CommitLog,
    /// Time and waiting.
    pub reactor: &'a mut dyn Reactor,
    /// Set by a signal: end soon.
    pub stop: &'a AtomicBool,
    /// Set by one that wants what is packed to be sent; taken when it is begun, and [`CommitLog::flushed`] follows.
    pub flush: &'a AtomicBool,
}

/// Runs the machine to its end. `watch` is called after every round, for progress.
pub fn run<B: Base>(
    machine: &mut Backup<B>,
    parts: &mut Parts<'_>,
    watch: &mut dyn FnMut(&Backup<B>),
) -> Result<(), DriveFault<B::Fault>> {
    let result = turn(machine, parts, watch);
    while parts.device.in_flight() > 0 {
        parts.device.complete(Wait::One, &mut drop);
    }
    result
}

fn turn<B: Base>(
    machine: &mut Backup<B>,
    parts: &mut Parts<'_>,
    watch: &mut dyn FnMut(&Backup<B>),
) -> Result<(), DriveFault<B::Fault>> {
    let mut puts: Vec<Arc<ObjectBuf>> = Vec::new();
    let mut flushing = false;
    while !machine.is_done() {
        if parts.stop.load(Ordering::Relaxed) {
            return Err(DriveFault::Stopped);
        }
        if parts.flush.swap(false, Ordering::Relaxed) {
            machine.flush();
            flushing = true;
        }
        let now = parts.reactor.now_ns();
        while let Some(action) = machine.next_action(now)? {
            perform(machine, parts, action, &mut puts)?;
        }
        let moved = collect(machine, parts, &mut puts)?;
        watch(machine);
        if flushing && !machine.is_flushing() {
            flushing = false;
            parts.log.flushed();
        }
        if !moved && !machine.is_done() {
            parts.reactor.wait(machine.deadline());
        }
    }
    Ok(())
}

fn perform<B: Base>(
    machine: &mut Backup<B>,
    parts: &mut Parts<'_>,
    action: Action,
    puts: &mut Vec<Arc<ObjectBuf>>,
) -> Result<(), DriveFault<B::Fault>> {
    match action {
        Action::Sweep(cursor, mut window) => {
            let swept = parts.volume.sweep(parts.device, cursor, &mut window).map_err(DriveFault::Volume)?;
            let now = parts.reactor.now_ns();
            machine.handle(now, Event::Swept(window, swept))?;
        }
        Action::Read(request) => {
            let refused = parts.device.submit(request);
            assert!(refused.is_ok(), "the machine keeps to the device's queue depth");
        }
        Action::ReadContents(mut request, places) => {
            read_contents(parts, &mut request, &places);
            let now = parts.reactor.now_ns();
            machine.handle(now, Event::Read(request))?;
        }
        Action::Pack(job) => parts.lanes.submit(job),
        Action::PutObject(object) => {
            let refused = parts.uplink.submit(put(object.id().object_key(), object, puts));
            assert!(refused.is_ok(), "the uplink takes as many objects as the piece pool can hold");
        }
        Action::PutSegment(segment) => {
            // Before objects: it names some that are stored, and those that follow are not in it.
            let refused = parts.uplink.submit_first(put(segment.id().segment_key(), segment, puts));
            assert!(refused.is_ok(), "the uplink takes as many segments as the piece pool can hold");
        }
        Action::Commit(progress) => parts.log.begin(progress),
    }
    Ok(())
}

/// Fills a request with bytes of files, as the volume gives them.
fn read_contents(parts: &mut Parts<'_>, request: &mut Request, places: &[(u64, u64)]) {
    let Some(buf) = &mut request.buf else { return };
    for (segment, &(inode, offset)) in request.segments.iter_mut().zip(places) {
        let start = segment.buf_offset as usize;
        let out = &mut buf[start..start + segment.len as usize];
        segment.fault = None;
        if let Err(fault) = parts.volume.read_at(parts.device, inode, offset, out) {
            segment.fail(fault.kind, fault.errno);
        }
    }
}

/// What the uplink does with an object. Its `tag` is its count: unique in a process.
fn put(key: String, object: Arc<ObjectBuf>, puts: &mut Vec<Arc<ObjectBuf>>) -> Job {
    let tag = u64::from(object.id().count);
    puts.push(Arc::clone(&object));
    Job::Put { tag, key, how: PutHow::Unique, body: object }
}

/// Takes in what has come; whether anything had.
fn collect<B: Base>(
    machine: &mut Backup<B>,
    parts: &mut Parts<'_>,
    puts: &mut Vec<Arc<ObjectBuf>>,
) -> Result<bool, DriveFault<B::Fault>> {
    let now = parts.reactor.now_ns();
    let mut moved = false;
    let mut failed = None;
    parts.device.complete(Wait::Poll, &mut |request| {
        moved = true;
        if let Err(fault) = machine.handle(now, Event::Read(request)) {
            failed = Some(fault);
        }
    });
    if let Some(fault) = failed {
        return Err(fault.into());
    }
    while let Some(job) = parts.lanes.take_done() {
        moved = true;
        machine.handle(now, Event::Packed(job))?;
    }
    while let Some(done) = parts.uplink.take_done() {
        moved = true;
        let Answer::Put { result, body } = done.answer else { continue };
        drop(body);
        let Some(at) = puts.iter().position(|o| u64::from(o.id().count) == done.tag) else { continue };
        result.map_err(DriveFault::Store)?;
        let id = puts.swap_remove(at).id();
        machine.handle(now, Event::Stored(id))?;
    }
    if let Some(result) = parts.log.take_done() {
        moved = true;
        result.map_err(DriveFault::Log)?;
        machine.handle(now, Event::Committed)?;
    }
    Ok(moved)
}
