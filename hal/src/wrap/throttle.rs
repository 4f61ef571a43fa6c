//! Makes a device as slow as one with so many operations and bytes a second: a token bucket over virtual time.
//!
//! The rule: a segment costs one operation for each MiB that it starts (1 B and 1 MiB cost one, 1 MiB + 1 B cost two), as
//! block layers and cloud volumes count; a flush, an empty request and a `read_at` of nothing cost one. A request takes the
//! longer of `operations / iops` and `bytes / bytes_per_sec`; requests take their time one after another. A range of
//! `Zero` or `Discard` costs one operation and no bytes.
//!
//! Invariants
//! - Requests go to the device at once and are held back when they come out, so the device's queue fills as a slow one's
//!   would: `queue_depth` counts those held back too.
//! - A device that was idle saves up at most [`BURST`], which also pays for sleeping too long.
//!
//! Does not: read a clock of its own: time comes from the [`Clock`] passed in, and `complete(Wait::One)` and
//! `read_at` let it pass ([`Clock::sleep`] blocks on the machine's clock and returns at once on a simulated
//! one). It has no descriptor to poll: a poll loop calls `complete(Wait::Poll)` at the time of
//! [`Throttle::next_due`]. For benches and tests. Source: ours.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use crate::block::{BlockDevice, DeviceId, Fault, Geometry, Op, Request, Wait};
use crate::clock::{Clock, Instant};

/// Time that an idle device saves up: covers the slack of a sleep, and no more.
pub const BURST: Duration = Duration::from_millis(1);
/// Bytes that one operation moves at most.
const OPERATION_BYTES: u64 = 1 << 20;
const NS_PER_SEC: u128 = 1_000_000_000;

/// How fast a device is. `None` sets no bound; a bound of 0 counts as 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Operations a second.
    pub iops: Option<u64>,
    /// Bytes a second.
    pub bytes_per_sec: Option<u64>,
}

impl Limits {
    /// Time that so much work takes.
    fn cost(&self, operations: u64, bytes: u64) -> Duration {
        let time = |work: u64, rate: Option<u64>| match rate {
            Some(rate) => (u128::from(work) * NS_PER_SEC).div_ceil(u128::from(rate.max(1))),
            None => 0,
        };
        let ns = time(operations, self.iops).max(time(bytes, self.bytes_per_sec));
        Duration::from_nanos(u64::try_from(ns).unwrap_or(u64::MAX))
    }
}

/// Limits that may be others from call to call.
pub type Changing = Box<dyn FnMut() -> Limits + Send>;

/// A device slowed down.
pub struct Throttle<D> {
    inner: D,
    limits: Limits,
    changing: Option<Changing>,
    clock: Arc<dyn Clock>,
    /// When the work accepted so far is done.
    busy_until: Instant,
    /// Requests inside the device: their ids and when they may come out.
    inside: Vec<(u64, Instant)>,
    /// Requests that the device has finished.
    held: Vec<(Instant, Request)>,
}

impl<D: BlockDevice> Throttle<D> {
    /// Wraps a device.
    pub fn new(inner: D, limits: Limits, clock: Arc<dyn Clock>) -> Throttle<D> {
        let busy_until = clock.now();
        Throttle { inner, limits, changing: None, clock, busy_until, inside: Vec::new(), held: Vec::new() }
    }

    /// The same with limits that are asked for with each request. What the device is described with is as it is now.
    pub fn changing(inner: D, mut changing: Changing, clock: Arc<dyn Clock>) -> Throttle<D> {
        let limits = changing();
        Throttle { changing: Some(changing), ..Throttle::new(inner, limits, clock) }
    }

    /// When the next of the finished requests may come out; `None` when none is held back.
    pub fn next_due(&self) -> Option<Instant> {
        self.held.iter().map(|(due, _)| *due).min()
    }

    /// The device inside.
    pub fn into_inner(self) -> D {
        self.inner
    }

    /// Takes the time for so much work; returns when it is done.
    fn charge(&mut self, operations: u64, bytes: u64) -> Instant {
        self.limits = self.changing.as_mut().map_or(self.limits, |changing| changing());
        let saved = self.clock.now().as_ns().saturating_sub(BURST.as_nanos() as u64);
        let start = self.busy_until.max(Instant::from_ns(saved));
        self.busy_until = start.saturating_add(self.limits.cost(operations, bytes));
        self.busy_until
    }

    /// Takes from the device what it has finished.
    fn collect(&mut self, wait: Wait) {
        let (inside, held) = (&mut self.inside, &mut self.held);
        self.inner.complete(wait, &mut |request| {
            let due = match inside.iter().position(|(id, _)| *id == request.id) {
                Some(at) => inside.remove(at).1,
                None => Instant::ZERO,
            };
            held.push((due, request));
        });
    }

    /// Lets out what is due.
    fn release(&mut self, done: &mut dyn FnMut(Request)) -> usize {
        let now = self.clock.now();
        self.held.sort_by_key(|(due, _)| *due);
        let count = self.held.partition_point(|(due, _)| *due <= now);
        self.held.drain(..count).for_each(|(_, request)| done(request));
        count
    }
}

/// Operations and bytes of a request.
fn work_of(request: &Request) -> (u64, u64) {
    let segments = request.segments.iter();
    match request.op {
        Op::Read | Op::Write => {
            let bytes = segments.clone().fold(0u64, |sum, s| sum.saturating_add(s.len));
            (segments.map(|s| operations(s.len)).sum::<u64>().max(1), bytes)
        }
        Op::Zero | Op::Discard | Op::Flush => (segments.count().max(1) as u64, 0),
    }
}

fn operations(len: u64) -> u64 {
    len.div_ceil(OPERATION_BYTES).max(1)
}

impl<D: BlockDevice> BlockDevice for Throttle<D> {
    fn geometry(&self) -> Geometry {
        let operations_per_sec_max =
            self.limits.iops.map_or(0, |iops| u32::try_from(iops.max(1)).unwrap_or(u32::MAX));
        Geometry { operations_per_sec_max, ..self.inner.geometry() }
    }

    fn identity(&self) -> &DeviceId {
        self.inner.identity()
    }

    fn submit(&mut self, request: Request) -> Result<(), Request> {
        if self.in_flight() >= self.queue_depth() {
            return Err(request);
        }
        let (id, (operations, bytes)) = (request.id, work_of(&request));
        self.inner.submit(request)?;
        let due = self.charge(operations, bytes);
        self.inside.push((id, due));
        Ok(())
    }

    fn complete(&mut self, wait: Wait, done: &mut dyn FnMut(Request)) -> usize {
        loop {
            self.collect(Wait::Poll);
            let count = self.release(done);
            if count > 0 || wait == Wait::Poll || self.in_flight() == 0 {
                return count;
            }
            match self.next_due() {
                Some(due) => self.clock.sleep(due.saturating_since(self.clock.now())),
                None => self.collect(Wait::One),
            }
        }
    }

    fn in_flight(&self) -> usize {
        self.inner.in_flight() + self.held.len()
    }

    fn queue_depth(&self) -> usize {
        self.inner.queue_depth()
    }

    fn read_ahead(&mut self, ranges: &[Range<u64>]) {
        self.inner.read_ahead(ranges)
    }

    fn read_at(&mut self, offset: u64, out: &mut [u8]) -> Result<(), Fault> {
        let due = self.charge(operations(out.len() as u64), out.len() as u64);
        self.inner.read_at(offset, out)?;
        self.clock.sleep(due.saturating_since(self.clock.now()));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::Segment;
    use crate::buf::Pool;
    use crate::sim::clock::SimClock;
    use crate::sim::disk::{Disk, DiskConfig, Media, MediaConfig};

    fn throttled(limits: Limits) -> (Throttle<Disk>, SimClock) {
        let name = String::from("t");
        let media = Media::new(MediaConfig {
            name,
            size_bytes: 8 << 20,
            logical_block_bytes: 512,
            can_discard: true,
            seed: 1,
        });
        let disk = media.open(DiskConfig { write: false, queue_depth: 8, latency_steps_max: 3, seed: 1 });
        let clock = SimClock::new();
        clock.advance(Duration::from_secs(1));
        (Throttle::new(disk, limits, Arc::new(clock.clone())), clock)
    }

    /// Reads `count` requests of these segments with a full queue; returns the time it took.
    fn time(limits: Limits, count: u64, segments: &[Segment]) -> Duration {
        let (mut device, clock) = throttled(limits);
        let pool = Pool::new(8, 2 << 20);
        let (mut sent, mut back) = (0, 0);
        while back < count {
            while sent < count && device.in_flight() < device.queue_depth() {
                let request =
                    Request { id: sent, op: Op::Read, buf: pool.take(), segments: segments.to_vec() };
                device.submit(request).unwrap();
                sent += 1;
            }
            back += device.complete(Wait::One, &mut |r| assert_eq!(r.fault(), None)) as u64;
        }
        clock.now().saturating_since(Instant::from_ns(1_000_000_000))
    }

    #[test]
    fn operations_are_segments_by_the_mib_started() {
        let limits = Limits { iops: Some(1000), bytes_per_sec: None };
        let mib = 1 << 20;
        assert_eq!(time(limits, 100, &[Segment::new(0, 0, 512)]), Duration::from_millis(100));
        assert_eq!(time(limits, 100, &[Segment::new(0, 0, mib)]), Duration::from_millis(100));
        assert_eq!(time(limits, 100, &[Segment::new(0, 0, mib + 512)]), Duration::from_millis(200));
        assert_eq!(time(limits, 50, &[Segment::new(0, 0, 512); 4]), Duration::from_millis(200));
    }

    #[test]
    fn bytes_count_when_they_take_longer() {
        let limits = Limits { iops: Some(1_000_000), bytes_per_sec: Some(1 << 20) };
        assert_eq!(time(limits, 4, &[Segment::new(0, 0, 512 << 10)]), Duration::from_secs(2));
    }

    #[test]
    fn nothing_comes_out_before_its_time_and_read_at_pays_too() {
        let (mut device, clock) = throttled(Limits { iops: Some(10), bytes_per_sec: None });
        device.read_at(5, &mut [0; 9]).unwrap();
        assert_eq!(clock.now(), Instant::from_ns(1_100_000_000));
        let buf = Pool::new(1, 4096).take();
        device.submit(Request { id: 1, op: Op::Read, buf, segments: vec![Segment::new(0, 0, 512)] }).unwrap();
        for _ in 0..10 {
            assert_eq!(device.complete(Wait::Poll, &mut |_| {}), 0);
        }
        assert_eq!(device.next_due(), Some(Instant::from_ns(1_200_000_000)));
        clock.advance(Duration::from_millis(100));
        assert_eq!(device.complete(Wait::Poll, &mut |_| {}), 1);
    }

    #[test]
    fn limits_may_change_between_requests() {
        let iops = Arc::new(std::sync::atomic::AtomicU64::new(10));
        let (device, clock) = throttled(Limits::default());
        let now = Arc::clone(&iops);
        let changing = Box::new(move || {
            let iops = now.load(std::sync::atomic::Ordering::Relaxed);
            Limits { iops: (iops > 0).then_some(iops), bytes_per_sec: None }
        });
        let mut device = Throttle::changing(device.into_inner(), changing, Arc::new(clock.clone()));
        let mut took = |iops_now: u64| {
            iops.store(iops_now, std::sync::atomic::Ordering::Relaxed);
            let before = clock.now();
            device.read_at(0, &mut [0]).unwrap();
            clock.now().saturating_since(before).as_millis()
        };
        assert_eq!([took(10), took(100), took(0), took(10)], [100, 10, 0, 100]);
    }

    #[test]
    fn idle_time_is_saved_up_to_the_burst_only() {
        let (mut device, clock) = throttled(Limits { iops: Some(1000), bytes_per_sec: None });
        clock.advance(Duration::from_secs(60));
        let before = clock.now();
        (0..10).for_each(|_| device.read_at(0, &mut [0]).unwrap());
        assert_eq!(clock.now().saturating_since(before), Duration::from_millis(9));
    }
}
