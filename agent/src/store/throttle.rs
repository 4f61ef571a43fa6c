//! Bandwidth limits up and down, shared by all calls of a store.
//!
//! A token bucket kept as a debt: a caller takes its bytes at once and sleeps until the bucket would have held them, so
//! callers are served in the order they came and none starves. The bucket holds [`BURST_MS`] of bytes at most.
//!
//! Metadata goes first ([`Throttle::first`]): its bytes are paid for out of the same bucket, and wait behind each other only.
//! So data gets what metadata leaves, and what names stored data never waits for more of it.
//!
//! Invariants: over any interval of t seconds at most rate * (t + burst) bytes pass, plus one piece per caller, plus what
//! metadata found spoken for by data when it came. Rates may be changed at any time; 0 means no limit. Does not: read a
//! clock (it is given one). Source: ours.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use windlass_hal::clock::Clock;

/// What the bucket holds when full, as time at the full rate.
pub const BURST_MS: u64 = 100;
/// Largest piece in bytes that a caller should take at once, so that slow rates stay smooth.
pub const PIECE_BYTES_MAX: usize = 64 * 1024;

const NS_PER_S: u64 = 1_000_000_000;

/// One direction: a rate, and the moment until which its bytes are spoken for.
#[derive(Debug, Default)]
struct Lane {
    rate_bytes_s: AtomicU64,
    /// Until when the bytes of all are spoken for, and those of metadata alone.
    busy_until_ns: Mutex<(u64, u64)>,
}

impl Lane {
    /// Takes `bytes` and returns how long to wait before moving them, in nanoseconds.
    fn take(&self, now_ns: u64, bytes: u64, first: bool) -> u64 {
        let rate = self.rate_bytes_s.load(Ordering::Relaxed);
        if rate == 0 {
            return 0;
        }
        let cost_ns = u128::from(bytes) * u128::from(NS_PER_S) / u128::from(rate);
        let cost_ns = u64::try_from(cost_ns).unwrap_or(u64::MAX);
        let mut until = self.busy_until_ns.lock().unwrap_or_else(PoisonError::into_inner);
        let floor = now_ns.saturating_sub(BURST_MS * 1_000_000);
        until.0 = until.0.max(floor).saturating_add(cost_ns);
        if !first {
            return until.0.saturating_sub(now_ns);
        }
        until.1 = until.1.max(floor).saturating_add(cost_ns);
        until.1.saturating_sub(now_ns)
    }
}

/// Both directions, and what was counted.
#[derive(Debug, Default)]
struct Lanes {
    up: Lane,
    down: Lane,
    sent: AtomicU64,
    received: AtomicU64,
}

/// Limits on what is sent and received. Shared by reference; cheap when no limit is set.
pub struct Throttle {
    clock: Arc<dyn Clock>,
    lanes: Arc<Lanes>,
    first: bool,
}

impl Throttle {
    /// Limits in bytes per second; 0 is no limit.
    pub fn new(clock: Arc<dyn Clock>, up_bytes_s: u64, down_bytes_s: u64) -> Throttle {
        let throttle = Throttle { clock, lanes: Arc::default(), first: false };
        throttle.set(up_bytes_s, down_bytes_s);
        throttle
    }

    /// Without limits, and with the same clock.
    pub fn unlimited(&self) -> Throttle {
        Throttle::new(Arc::clone(&self.clock), 0, 0)
    }

    /// The clock that it waits by.
    pub(super) fn clock(&self) -> &dyn Clock {
        &*self.clock
    }

    /// The same limits and counts, for metadata: it waits for no data, and data waits for it.
    pub fn first(&self) -> Throttle {
        Throttle { clock: Arc::clone(&self.clock), lanes: Arc::clone(&self.lanes), first: true }
    }

    /// Changes the limits for every byte from now on.
    pub fn set(&self, up_bytes_s: u64, down_bytes_s: u64) {
        self.lanes.up.rate_bytes_s.store(up_bytes_s, Ordering::Relaxed);
        self.lanes.down.rate_bytes_s.store(down_bytes_s, Ordering::Relaxed);
    }

    /// Limits now, (up, down) in bytes per second; 0 is no limit.
    pub fn rates(&self) -> (u64, u64) {
        (
            self.lanes.up.rate_bytes_s.load(Ordering::Relaxed),
            self.lanes.down.rate_bytes_s.load(Ordering::Relaxed),
        )
    }

    /// Blocks until `bytes` more may be sent.
    pub fn wait_up(&self, bytes: u64) {
        self.wait(&self.lanes.up, bytes);
        self.lanes.sent.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Bytes that were let through to the store so far.
    pub fn sent(&self) -> u64 {
        self.lanes.sent.load(Ordering::Relaxed)
    }

    /// Bytes that were let through from the store so far.
    pub fn received(&self) -> u64 {
        self.lanes.received.load(Ordering::Relaxed)
    }

    /// Blocks until `bytes` more may be received (or, when they are here already, until they are paid for).
    pub fn wait_down(&self, bytes: u64) {
        self.wait(&self.lanes.down, bytes);
        self.lanes.received.fetch_add(bytes, Ordering::Relaxed);
    }

    fn wait(&self, lane: &Lane, bytes: u64) {
        if lane.rate_bytes_s.load(Ordering::Relaxed) == 0 {
            return;
        }
        let wait_ns = lane.take(self.clock.now().as_ns(), bytes, self.first);
        if wait_ns > 0 {
            self.clock.sleep(Duration::from_nanos(wait_ns));
        }
    }
}

#[cfg(test)]
mod tests {
    use windlass_hal::sim::clock::SimClock;

    use super::*;

    #[test]
    fn a_rate_is_kept_over_time_and_the_burst_is_bounded() {
        let clock = Arc::new(SimClock::new());
        clock.advance(Duration::from_secs(10));
        let throttle = Throttle::new(Arc::clone(&clock) as Arc<dyn Clock>, 1_000_000, 0);
        for _ in 0..100 {
            throttle.wait_up(100_000);
        }
        // 10 MB at 1 MB/s is 10 s, less the burst of 100 ms that had gathered.
        assert_eq!(clock.now().as_ns(), 20 * NS_PER_S - BURST_MS * 1_000_000);
        assert_eq!(throttle.sent(), 10_000_000);
        throttle.wait_down(u64::MAX);
        throttle.set(0, 0);
        throttle.wait_up(u64::MAX);
        assert_eq!(clock.now().as_ns(), 20 * NS_PER_S - BURST_MS * 1_000_000, "no limit, no wait");
    }

    #[test]
    fn callers_wait_behind_each_other() {
        let lane = Lane { rate_bytes_s: AtomicU64::new(1000), ..Lane::default() };
        let first = lane.take(NS_PER_S, 1000, false);
        let second = lane.take(NS_PER_S, 1000, false);
        assert_eq!(second, first + NS_PER_S);
    }
    #[test]
    fn metadata_waits_for_metadata_alone_and_data_for_both() {
        let lane = Lane { rate_bytes_s: AtomicU64::new(1000), ..Lane::default() };
        let now = 10 * NS_PER_S;
        let burst = BURST_MS * 1_000_000;
        assert_eq!(lane.take(now, 5000, false), 5 * NS_PER_S - burst);
        assert_eq!(lane.take(now, 500, true), NS_PER_S / 2 - burst, "not behind five seconds of data");
        assert_eq!(lane.take(now, 500, true), NS_PER_S - burst);
        assert_eq!(lane.take(now, 1000, false), 7 * NS_PER_S - burst, "it is paid for");
    }
}
