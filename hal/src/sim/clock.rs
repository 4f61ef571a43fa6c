//! A clock that moves only by a call.
//!
//! Invariants
//! - Time since boot never goes back. Wall time moves along with it and may be set to anything, as an operator would.
//! - Clones are the same clock.
//!
//! Does not: read the machine's clock; `sleep` moves it and returns at once.
//!
//! Source: ours.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::clock::{Clock, Instant};
use crate::volume::Timestamp;

/// Nanoseconds in a second.
const NS_PER_SEC: i128 = 1_000_000_000;

/// A settable clock. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct SimClock {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    now: Instant,
    /// Wall time less time since boot, in nanoseconds.
    wall_offset_ns: i128,
}

impl SimClock {
    /// At boot, with wall time 1970.
    pub fn new() -> SimClock {
        SimClock::default()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets `span` pass.
    pub fn advance(&self, span: Duration) {
        let mut state = self.state();
        state.now = state.now.saturating_add(span);
    }

    /// Sets the time of day; time since boot is not touched.
    pub fn set_wall(&self, wall: Timestamp) {
        let mut state = self.state();
        let ns = i128::from(wall.secs) * NS_PER_SEC + i128::from(wall.nanos);
        state.wall_offset_ns = ns - i128::from(state.now.as_ns());
    }
}

impl Clock for SimClock {
    fn now(&self) -> Instant {
        self.state().now
    }

    fn wall(&self) -> Timestamp {
        let state = self.state();
        let ns = i128::from(state.now.as_ns()) + state.wall_offset_ns;
        Timestamp { secs: ns.div_euclid(NS_PER_SEC) as i64, nanos: ns.rem_euclid(NS_PER_SEC) as u32 }
    }

    fn sleep(&self, span: Duration) {
        self.advance(span);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wall_time_moves_along_and_may_lie_before_1970() {
        let clock = SimClock::new();
        clock.advance(Duration::from_secs(10));
        clock.set_wall(Timestamp { secs: -2, nanos: 500_000_000 });
        clock.clone().sleep(Duration::from_millis(700));
        assert_eq!(clock.wall(), Timestamp { secs: -1, nanos: 200_000_000 });
        assert_eq!(clock.now(), Instant::from_ns(10_700_000_000));
    }
}
