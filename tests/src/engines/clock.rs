//! A clock for tests in which sleeping takes no time: it moves the clock instead. Source: ours.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use windlass_hal::clock::{Clock, Instant};
use windlass_hal::volume::Timestamp;

/// Starts at one hour; wall time is 2026-01-01 plus the same.
#[derive(Debug)]
pub struct StepClock(AtomicU64);

impl Default for StepClock {
    fn default() -> StepClock {
        StepClock(AtomicU64::new(3_600_000_000_000))
    }
}

impl StepClock {
    /// Moves it forward.
    pub fn advance_ns(&self, ns: u64) {
        self.0.fetch_add(ns, Ordering::SeqCst);
    }
}

impl Clock for StepClock {
    fn now(&self) -> Instant {
        Instant::from_ns(self.0.load(Ordering::SeqCst))
    }

    fn wall(&self) -> Timestamp {
        Timestamp { secs: 1_767_225_600 + (self.now().as_ns() / 1_000_000_000) as i64, nanos: 0 }
    }

    fn sleep(&self, span: Duration) {
        self.advance_ns(span.as_nanos() as u64);
    }
}
