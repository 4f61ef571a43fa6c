//! The time and the sleep that stores, retries and throttles are given: a narrow view of any hal clock.
//!
//! Every [`windlass_hal::clock::Clock`] is one of these, so the simulator's serves as well as the machine's.
//!
//! Invariants: `boot_ns` never goes back and goes on during a suspend. Does not: compare times of two machines. Source: ours.

use std::time::Duration;

use windlass_hal::clock::SystemClock;

/// Time for the store layer. Shared between uplink threads.
pub trait Clock: Send + Sync {
    /// Nanoseconds since some fixed moment of this boot; never goes back.
    fn boot_ns(&self) -> u64;

    /// Seconds since 1970-01-01 UTC by the wall clock: for signatures and messages only, never for a decision.
    fn wall_s(&self) -> i64;

    /// Blocks the calling thread for about `ns` nanoseconds. Only retries and throttles call it.
    fn sleep_ns(&self, ns: u64);
}

impl<C: windlass_hal::clock::Clock> Clock for C {
    fn boot_ns(&self) -> u64 {
        self.now().as_ns()
    }

    fn wall_s(&self) -> i64 {
        self.wall().secs
    }

    fn sleep_ns(&self, ns: u64) {
        self.sleep(Duration::from_nanos(ns));
    }
}

/// The machine's own clocks.
#[derive(Clone, Copy, Debug, Default)]
pub struct HostClock(SystemClock);

impl HostClock {
    /// They run already.
    pub fn new() -> HostClock {
        HostClock::default()
    }
}

impl Clock for HostClock {
    fn boot_ns(&self) -> u64 {
        self.0.boot_ns()
    }

    fn wall_s(&self) -> i64 {
        self.0.wall_s()
    }

    fn sleep_ns(&self, ns: u64) {
        self.0.sleep_ns(ns);
    }
}
