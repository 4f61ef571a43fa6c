//! Counts the requests of a device, and keeps the last of them.
//!
//! Invariants
//! - Memory is bounded: counters, and a ring of as many events as was asked for.
//! - A request is counted when it completes, once, with its faults.
//!
//! Does not: print, or read a clock. Source: ours.

use std::collections::VecDeque;
use std::ops::Range;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::block::{BlockDevice, DeviceId, Fault, Geometry, Op, Request, Wait};

/// What was asked of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// A queued request.
    Queued(Op),
    /// A metadata read.
    ReadAt,
}

/// Counters of one kind of call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Requests completed.
    pub requests: u64,
    /// Their segments; one for each metadata read.
    pub segments: u64,
    /// Bytes that the segments cover, those that failed included.
    pub bytes: u64,
    /// Segments that failed.
    pub faults: u64,
}

/// One completed call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// Place in the order of completion, from 0.
    pub sequence: u64,
    /// What it was.
    pub call: Call,
    /// The request's id, 0 for a metadata read.
    pub id: u64,
    /// Device offset of the first segment, 0 when there is none.
    pub device_offset: u64,
    /// Number of segments.
    pub segments: u32,
    /// Bytes in all segments.
    pub bytes: u64,
    /// Segments that failed.
    pub faults: u32,
}

/// A view of a trace from outside, while the device is at work elsewhere. Cheap to clone.
#[derive(Clone, Debug)]
pub struct TraceView {
    log: Arc<Mutex<Log>>,
}

#[derive(Debug)]
struct Log {
    counts: [Count; CALLS],
    events: VecDeque<Event>,
    events_max: usize,
    sequence: u64,
}

/// Kinds of call.
const CALLS: usize = 6;

fn slot(call: Call) -> usize {
    match call {
        Call::Queued(Op::Read) => 0,
        Call::Queued(Op::Write) => 1,
        Call::Queued(Op::Zero) => 2,
        Call::Queued(Op::Discard) => 3,
        Call::Queued(Op::Flush) => 4,
        Call::ReadAt => 5,
    }
}

impl TraceView {
    fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counters of one kind of call.
    pub fn count(&self, call: Call) -> Count {
        self.log().counts[slot(call)]
    }

    /// The last events, oldest first. Allocates.
    pub fn events(&self) -> Vec<Event> {
        self.log().events.iter().copied().collect()
    }

    fn add(&self, mut event: Event) {
        let mut log = self.log();
        let count = &mut log.counts[slot(event.call)];
        count.requests += 1;
        count.segments += u64::from(event.segments);
        count.bytes += event.bytes;
        count.faults += u64::from(event.faults);
        event.sequence = log.sequence;
        log.sequence += 1;
        if log.events_max == 0 {
            return;
        }
        if log.events.len() == log.events_max {
            log.events.pop_front();
        }
        log.events.push_back(event);
    }
}

/// A device that is watched.
#[derive(Debug)]
pub struct Trace<D> {
    inner: D,
    view: TraceView,
}

impl<D: BlockDevice> Trace<D> {
    /// Wraps a device and remembers the last `events_max` calls. Allocates them now.
    pub fn new(inner: D, events_max: usize) -> Trace<D> {
        let events = VecDeque::with_capacity(events_max);
        let log = Log { counts: [Count::default(); CALLS], events, events_max, sequence: 0 };
        Trace { inner, view: TraceView { log: Arc::new(Mutex::new(log)) } }
    }

    /// The counters and events so far.
    pub fn view(&self) -> TraceView {
        self.view.clone()
    }

    /// The device inside.
    pub fn into_inner(self) -> D {
        self.inner
    }
}

fn event_of(request: &Request) -> Event {
    Event {
        sequence: 0,
        call: Call::Queued(request.op),
        id: request.id,
        device_offset: request.segments.first().map_or(0, |s| s.device_offset),
        segments: request.segments.len() as u32,
        bytes: request.segments.iter().fold(0, |sum, s| sum.saturating_add(s.len)),
        faults: request.segments.iter().filter(|s| s.fault.is_some()).count() as u32,
    }
}

impl<D: BlockDevice> BlockDevice for Trace<D> {
    fn geometry(&self) -> Geometry {
        self.inner.geometry()
    }

    fn identity(&self) -> &DeviceId {
        self.inner.identity()
    }

    fn submit(&mut self, request: Request) -> Result<(), Request> {
        self.inner.submit(request)
    }

    fn complete(&mut self, wait: Wait, done: &mut dyn FnMut(Request)) -> usize {
        let view = &self.view;
        self.inner.complete(wait, &mut |request| {
            view.add(event_of(&request));
            done(request);
        })
    }

    fn in_flight(&self) -> usize {
        self.inner.in_flight()
    }

    fn queue_depth(&self) -> usize {
        self.inner.queue_depth()
    }

    fn event_fd(&self) -> Option<BorrowedFd<'_>> {
        self.inner.event_fd()
    }

    fn read_ahead(&mut self, ranges: &[Range<u64>]) {
        self.inner.read_ahead(ranges)
    }

    fn read_at(&mut self, offset: u64, out: &mut [u8]) -> Result<(), Fault> {
        let result = self.inner.read_at(offset, out);
        self.view.add(Event {
            sequence: 0,
            call: Call::ReadAt,
            id: 0,
            device_offset: offset,
            segments: 1,
            bytes: out.len() as u64,
            faults: u32::from(result.is_err()),
        });
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::Segment;
    use crate::sim::disk::{DiskConfig, Media, MediaConfig};

    #[test]
    fn counts_everything_and_remembers_the_last() {
        let name = String::from("t");
        let media = Media::new(MediaConfig {
            name,
            size_bytes: 1 << 20,
            logical_block_bytes: 512,
            can_discard: true,
            seed: 1,
        });
        let disk = media.open(DiskConfig { write: true, queue_depth: 4, latency_steps_max: 0, seed: 1 });
        let mut trace = Trace::new(disk, 2);
        let view = trace.view();
        let segments = vec![Segment::new(512, 0, 512), Segment::new(1 << 20, 0, 512)];
        trace.submit(Request { id: 9, op: Op::Zero, buf: None, segments }).unwrap();
        trace.complete(Wait::One, &mut |_| {});
        trace.read_at(3, &mut [0; 10]).unwrap();
        trace.read_at(u64::MAX, &mut [0; 10]).unwrap_err();
        let zero = Count { requests: 1, segments: 2, bytes: 1024, faults: 1 };
        assert_eq!(view.count(Call::Queued(Op::Zero)), zero);
        assert_eq!(view.count(Call::ReadAt), Count { requests: 2, segments: 2, bytes: 20, faults: 1 });
        assert_eq!(view.events().iter().map(|e| e.sequence).collect::<Vec<_>>(), [1, 2]);
    }
}
