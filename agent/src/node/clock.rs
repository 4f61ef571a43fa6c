//! This node's wall clock, held against what the store says: schedules, and the times of points, must not jump when another node takes
//! over whose clock is wrong.
//!
//! ```text
//!               store's time, carried on by boot time
//!   ------------[==============|==============]------------> wall clock of this node
//!                 APART_NS                       in between it is believed; outside, the nearer end counts
//! ```
//!
//! | the store says | what counts |
//! |---|---|
//! | nothing | the node's clock, as it is |
//! | a time that is near | the same |
//! | another time | the store's, and a minute towards the node's: all nodes agree within two |
//!
//! Invariants: no lease and no order of events depends on it (L3); the store's time is only read where a whole hour matters more than a
//! minute. Does not: set a clock. Source: ours.

use crate::store::time::StoreTime;

/// How far the node's clock may be from the store's, in nanoseconds: the shortest period of a schedule, and more than an answer of the
/// store takes.
pub const APART_NS: i64 = 60_000_000_000;
/// Boot time may run so much too fast or too slow, as part of the time since the store was heard: 1 %, as leases assume by default.
const DRIFT_PART: u64 = 100;

/// See the head of this file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct WallClock {
    heard: Option<StoreTime>,
    /// How far the node's clock is ahead of the store's; `None`: they agree, or the store says nothing.
    ahead_ns: Option<i64>,
    /// The same, as it was said last.
    said_ns: Option<i64>,
}

impl WallClock {
    /// The store said a time.
    pub(super) fn hear(&mut self, said: StoreTime) {
        self.heard = Some(said);
    }

    /// What counts as the time, in nanoseconds since 1970, when the node's own clock says `wall_ns`.
    pub(super) fn read(&mut self, now_ns: u64, wall_ns: i64) -> i64 {
        let Some(StoreTime { wall_ns: store_ns, at_ns }) = self.heard else { return wall_ns };
        let since = now_ns.saturating_sub(at_ns);
        let store_ns = store_ns.saturating_add_unsigned(since);
        let apart_ns = APART_NS.saturating_add_unsigned(since / DRIFT_PART);
        let ahead_ns = wall_ns.saturating_sub(store_ns);
        self.ahead_ns = (ahead_ns.unsigned_abs() > apart_ns.unsigned_abs()).then_some(ahead_ns);
        wall_ns.clamp(store_ns.saturating_sub(apart_ns), store_ns.saturating_add(apart_ns))
    }

    /// How far the node's clock is ahead of the store's, in nanoseconds; negative: behind. `None`: they agree, or the store says nothing.
    pub(super) fn ahead_ns(&self) -> Option<i64> {
        self.ahead_ns
    }

    /// Whether there is something new to say of it: that it is wrong, by another amount than was said, or that it is right again.
    pub(super) fn news(&mut self) -> Option<Option<i64>> {
        let is_new = match (self.ahead_ns, self.said_ns) {
            (Some(now), Some(said)) => now.saturating_sub(said).unsigned_abs() > APART_NS.unsigned_abs(),
            (now, said) => now != said,
        };
        is_new.then(|| {
            self.said_ns = self.ahead_ns;
            self.ahead_ns
        })
    }
}

/// What counts as the time where no node runs, in nanoseconds since 1970: the same as in a node. `now_ns` is boot time.
#[must_use]
pub fn believed_ns(now_ns: u64, wall_ns: i64, said: Option<StoreTime>) -> i64 {
    WallClock { heard: said, ..WallClock::default() }.read(now_ns, wall_ns)
}

/// `30 min ahead of`, `2 d behind`: in the largest unit of which there are two.
pub fn apart_text(ahead_ns: i64) -> String {
    let secs = ahead_ns.unsigned_abs() / 1_000_000_000;
    let units = [(86_400, "d"), (3600, "h"), (60, "min"), (1, "s")];
    let (of, unit) = units.into_iter().find(|(of, _)| secs >= 2 * of).unwrap_or((1, "s"));
    let way = if ahead_ns < 0 { "behind" } else { "ahead of" };
    format!("{} {unit} {way}", secs / of)
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: i64 = 1_000_000_000;
    const NOON: i64 = 1_800_000_000 * S;

    fn heard(at_s: u64) -> WallClock {
        let mut clock = WallClock::default();
        clock.hear(StoreTime { wall_ns: NOON, at_ns: at_s * S as u64 });
        clock
    }

    #[test]
    fn a_clock_near_the_stores_is_believed_and_one_far_off_is_not() {
        for (own, counts, ahead) in [
            (0, 0, None),
            (60, 60, None),
            (-60, -60, None),
            (61, 60, Some(61)),
            (1800, 60, Some(1800)),
            (-86_400, -60, Some(-86_400)),
            (366 * 86_400, 60, Some(366 * 86_400)),
        ] {
            let mut clock = heard(5);
            assert_eq!(clock.read(5 * S as u64, NOON + own * S), NOON + counts * S, "{own}");
            assert_eq!(clock.ahead_ns(), ahead.map(|secs| secs * S), "{own}");
        }
        let mut clock = heard(5);
        for wild in [i64::MIN, i64::MAX] {
            let counts = clock.read(5 * S as u64, wild);
            assert!(counts.abs_diff(NOON) <= APART_NS.unsigned_abs() && clock.ahead_ns().is_some());
        }
    }

    #[test]
    fn without_a_store_that_says_a_time_the_nodes_clock_counts() {
        let mut clock = WallClock::default();
        assert_eq!((clock.read(7, NOON), clock.ahead_ns(), clock.news()), (NOON, None, None));
    }

    #[test]
    fn time_goes_on_between_answers_and_a_clock_that_is_set_is_believed_at_once() {
        let mut clock = heard(0);
        let hour = 3600 * S;
        let later = clock.read(hour as u64, NOON + 365 * 24 * hour);
        assert!(later > NOON + hour && later <= NOON + hour + APART_NS + hour / 100, "{later}");
        assert_eq!(clock.read(hour as u64, NOON + hour + 7), NOON + hour + 7);
        assert_eq!(clock.ahead_ns(), None);
    }

    #[test]
    fn what_is_wrong_is_said_once_and_when_it_is_right_again() {
        let mut clock = heard(0);
        clock.read(0, NOON + 1800 * S);
        assert_eq!(clock.news(), Some(Some(1800 * S)));
        clock.read(0, NOON + 1830 * S);
        assert_eq!(clock.news(), None, "by seconds more");
        clock.read(0, NOON + 7200 * S);
        assert_eq!(clock.news(), Some(Some(7200 * S)));
        clock.read(0, NOON);
        assert_eq!((clock.news(), clock.news()), (Some(None), None));
    }

    #[test]
    fn it_reads_well() {
        for (secs, text) in [
            (61, "61 s ahead of"),
            (-119, "119 s behind"),
            (1800, "30 min ahead of"),
            (7200, "2 h ahead of"),
            (-86_400, "24 h behind"),
            (366 * 86_400, "366 d ahead of"),
        ] {
            assert_eq!(apart_text(secs * S), text);
        }
    }
}
