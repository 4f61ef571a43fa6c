//! The time and the sleep that stores, retries and throttles are given.
//!
//! To swap: when `windlass_hal::clock` is merged, implement [`Clock`] for its clock (boot-time nanoseconds, wall time) and
//! drop [`HostClock`]; nothing else in `store/` reads a clock.
//!
//! Invariants: `boot_ns` never goes back. Does not: compare times of two machines. Source: ours.

use std::time::Duration;

/// Time for the store layer. Shared between uplink threads.
pub trait Clock: Send + Sync {
    /// Nanoseconds since some fixed moment of this boot; never goes back.
    fn boot_ns(&self) -> u64;

    /// Seconds since 1970-01-01 UTC by the wall clock: for signatures and messages only, never for a decision.
    fn wall_s(&self) -> i64;

    /// Blocks the calling thread for about `ns` nanoseconds. Only retries and throttles call it.
    fn sleep_ns(&self, ns: u64);
}

/// The machine's own clocks.
#[derive(Debug)]
pub struct HostClock {
    start: std::time::Instant,
}

impl HostClock {
    /// Starts counting now.
    #[allow(clippy::disallowed_methods, reason = "stands in for hal::clock until that is merged")]
    pub fn new() -> HostClock {
        HostClock { start: std::time::Instant::now() }
    }
}

impl Default for HostClock {
    fn default() -> HostClock {
        HostClock::new()
    }
}

impl Clock for HostClock {
    fn boot_ns(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    #[allow(clippy::disallowed_methods, reason = "stands in for hal::clock until that is merged")]
    fn wall_s(&self) -> i64 {
        match std::time::SystemTime::now().duration_since(std::time::SystemTime::UNIX_EPOCH) {
            Ok(since) => i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
            // A clock before 1970 is a dead battery; signatures made with it are refused with a clear message.
            Err(_) => 0,
        }
    }

    fn sleep_ns(&self, ns: u64) {
        std::thread::sleep(Duration::from_nanos(ns));
    }
}
