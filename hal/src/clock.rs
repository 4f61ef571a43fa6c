//! Time: the only place that reads a clock. Everything else takes the time as an argument.
//!
//! Invariants
//! - [`Instant`] counts since boot and goes on while the machine sleeps (CLOCK_BOOTTIME), so that a lease that ran out
//!   during a suspend has run out. It never goes back.
//! - Wall time is for people and for file attributes; nothing is decided by it, because an operator may set it.
//!
//! Does not: keep timers.
//!
//! Source: clock_gettime(2).

use std::fmt;
use std::time::Duration;

use crate::linux::sys;
use crate::volume::Timestamp;

/// Nanoseconds in a second.
const NS_PER_SEC: u64 = 1_000_000_000;

/// A moment since boot, in nanoseconds (584 years fit).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(u64);

impl Instant {
    /// The moment of boot.
    pub const ZERO: Instant = Instant(0);

    /// From nanoseconds since boot.
    pub const fn from_ns(ns: u64) -> Instant {
        Instant(ns)
    }

    /// Nanoseconds since boot.
    pub const fn as_ns(self) -> u64 {
        self.0
    }

    /// Later by `span`; `None` beyond the end of time.
    pub fn checked_add(self, span: Duration) -> Option<Instant> {
        let ns = u64::try_from(span.as_nanos()).ok()?;
        self.0.checked_add(ns).map(Instant)
    }

    /// Later by `span`, or the end of time: right for deadlines.
    pub fn saturating_add(self, span: Duration) -> Instant {
        self.checked_add(span).unwrap_or(Instant(u64::MAX))
    }

    /// Time since `earlier`; `None` when that is later than this.
    pub fn checked_since(self, earlier: Instant) -> Option<Duration> {
        self.0.checked_sub(earlier.0).map(Duration::from_nanos)
    }

    /// Time since `earlier`, zero when that is later than this.
    pub fn saturating_since(self, earlier: Instant) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl fmt::Display for Instant {
    /// Seconds since boot with milliseconds, as the kernel's log has them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:03}", self.0 / NS_PER_SEC, self.0 % NS_PER_SEC / 1_000_000)
    }
}

/// Tells the time, and lets it pass. Shared by threads.
pub trait Clock: Send + Sync {
    /// Time since boot.
    fn now(&self) -> Instant;

    /// Time of day, UTC.
    fn wall(&self) -> Timestamp;

    /// Lets `span` pass: blocks the thread, or moves a simulated clock. For emulation and back-off on threads that may wait.
    fn sleep(&self, span: Duration);
}

/// The machine's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Instant {
        let (secs, nanos) = sys::clock(sys::ClockId::Boot);
        Instant((secs as u64).saturating_mul(NS_PER_SEC).saturating_add(u64::from(nanos)))
    }

    fn wall(&self) -> Timestamp {
        let (secs, nanos) = sys::clock(sys::ClockId::Wall);
        Timestamp { secs, nanos }
    }

    fn sleep(&self, span: Duration) {
        std::thread::sleep(span);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_is_checked_at_both_ends() {
        let end = Instant::from_ns(u64::MAX);
        assert_eq!(end.checked_add(Duration::from_nanos(0)), Some(end));
        assert_eq!(end.checked_add(Duration::from_nanos(1)), None);
        assert_eq!(end.saturating_add(Duration::MAX), end);
        let (early, late) = (Instant::from_ns(5), Instant::from_ns(7));
        assert_eq!(late.checked_since(early), Some(Duration::from_nanos(2)));
        assert_eq!(early.checked_since(late), None);
        assert_eq!(early.saturating_since(late), Duration::ZERO);
        assert_eq!(Instant::from_ns(61_002_900_000).to_string(), "61.002");
    }

    #[test]
    fn the_machine_was_booted_before_today_and_time_passes() {
        let before = SystemClock.now();
        assert!(before > Instant::ZERO && SystemClock.now() >= before);
        assert!(SystemClock.wall().secs > 1_700_000_000);
    }
}
