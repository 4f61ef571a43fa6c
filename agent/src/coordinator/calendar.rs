//! Which policy's backup is due next, by the schedules in the log and by what ran. Source: ours; `policy::schedule`.
//!
//! | the log says of the policy | due |
//! |---|---|
//! | its last backup began at L | at the schedule's next time after L |
//! | L is more than a period ahead | its time is set, now: a record with the time of now, from which the schedule goes on |
//! | its schedule holds since a time more than [`SINCE_AHEAD_NS_MAX`] ahead | the same: its user's clock is wrong, or was |
//! | the last try failed for the n-th time | [`RETRY_NS_MIN`] * 2^(n-1) after it, at most [`RETRY_NS_MAX`] |
//! | nothing | as `policy::schedule` says |
//! | any of these, and the policy has a window that is closed then | when that opens |
//!
//! Invariants: a function of the log and the clock alone, so that a takeover tries nothing anew that was tried a moment ago.

use std::collections::BTreeMap;

use crate::log::state::State;
use crate::policy::Policy;
use crate::policy::schedule::{Schedule, is_ahead, next_due};

/// A backup that could not begin, or gave up, is tried again after this time, in nanoseconds; it doubles with each failure.
pub const RETRY_NS_MIN: i64 = 60_000_000_000;
/// Longest time until such a backup is tried again, in nanoseconds: an hour, so that the cluster rests in between.
pub const RETRY_NS_MAX: i64 = 3_600_000_000_000;

/// A schedule was set at a time that is further ahead than this, in nanoseconds: what is due until then would be skipped, up to two periods
/// of it. Clocks within a minute of the store's are believed, so two nodes' may be two minutes apart.
pub const SINCE_AHEAD_NS_MAX: i64 = 120_000_000_000;

/// Something that is due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Due {
    /// When, in nanoseconds since 1970; in the past or now: it is due.
    pub wall_ns: i64,
    /// Of which policy.
    pub policy: String,
    /// Not a backup: the policy's last start is this far ahead, in nanoseconds, and its schedule must be given another time.
    pub ahead_ns: Option<i64>,
}

/// Schedules as last read from the log.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Calendar {
    /// By policy: the revision that was read, and what it says.
    read: BTreeMap<String, (u32, Option<Policy>)>,
}

/// After how many nanoseconds a try is made again that has failed so often.
pub fn retry_ns(failures: u32) -> i64 {
    RETRY_NS_MIN.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(RETRY_NS_MAX)
}

/// When a policy is due, and how far ahead its last start is if that is too far.
fn due(state: &State, name: &str, policy: &Policy, schedule: &Schedule, wall_ns: i64) -> (i64, Option<i64>) {
    let since = schedule.since.map(|secs| secs.saturating_mul(1_000_000_000));
    let start = state.last_start_ns(name).max(since);
    let tried = state.tried.get(name);
    if let Some(since) = since.filter(|&since| since > wall_ns.saturating_add(SINCE_AHEAD_NS_MAX))
        && tried.is_none()
    {
        return (wall_ns, Some(since.saturating_sub(wall_ns)));
    }
    let last = tried.map(|tried| tried.wall_ns).or(start);
    if let Some(last) = last.filter(|&last| is_ahead(policy, last, wall_ns)) {
        return (wall_ns, Some(last.saturating_sub(wall_ns)));
    }
    match tried {
        // From a clock that was ahead by less than that: it is not waited for.
        Some(tried) if tried.failures > 0 => {
            let pause = retry_ns(tried.failures);
            let again_ns = tried.wall_ns.min(wall_ns.saturating_add(RETRY_NS_MIN)).saturating_add(pause);
            (schedule.open_from(&policy.zone, again_ns, wall_ns), None)
        }
        Some(tried) => {
            let from =
                Policy { schedule: Some(Schedule { since: None, ..schedule.clone() }), ..policy.clone() };
            // Its time was set by a clock that is behind the one by which the last backup began: that one is not repeated.
            let began = state.last_start_ns(name).filter(|&last| !is_ahead(policy, last, tried.wall_ns));
            (next_due(&from, began.max(Some(tried.wall_ns)), wall_ns).unwrap_or(wall_ns), None)
        }
        None => (next_due(policy, state.last_start_ns(name), wall_ns).unwrap_or(wall_ns), None),
    }
}

impl Calendar {
    /// What is due first. Policies of which `is_busy` says that something is under way are left out: what was due meanwhile is due when that
    /// has ended, once.
    pub fn next(&mut self, state: &State, wall_ns: i64, is_busy: &dyn Fn(&str) -> bool) -> Option<Due> {
        self.read.retain(|name, _| state.policies.contains_key(name));
        let mut first: Option<Due> = None;
        for (name, entry) in state.policies.iter().filter(|(name, entry)| !entry.removed && !is_busy(name)) {
            let read = self.read.entry(name.clone()).or_default();
            if read.0 != entry.revision {
                *read = (entry.revision, Policy::parse(&entry.body).ok());
            }
            let Some(policy) = &read.1 else { continue };
            let Some(schedule) = &policy.schedule else { continue };
            let (due_ns, ahead_ns) = due(state, name, policy, schedule, wall_ns);
            if first.as_ref().is_none_or(|earliest| due_ns < earliest.wall_ns) {
                first = Some(Due { wall_ns: due_ns, policy: name.clone(), ahead_ns });
            }
        }
        first
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::format::record::Tried;
    use crate::id::{BackupId, Slot};
    use crate::log::state;
    use crate::policy::{PolicyVolume, Reader};

    const HOUR_NS: i64 = 3_600_000_000_000;
    const YEAR_NS: i64 = 366 * 24 * HOUR_NS;

    fn with_policy(every_ms: Option<u64>) -> State {
        let mut policy =
            Policy::new("home", vec![PolicyVolume { device: "/dev/x".into(), reader: Reader::Auto }]);
        policy.schedule = every_ms.map(Schedule::every);
        let body = Arc::from(policy.emit().unwrap().as_slice());
        let entry = state::Policy { revision: 1, slot: Slot(2), removed: false, body, volumes: Vec::new() };
        State { policies: [("home".to_owned(), entry)].into(), ..State::default() }
    }

    fn next(state: &State, wall_ns: i64) -> Option<(i64, Option<i64>)> {
        Calendar::default().next(state, wall_ns, &|_| false).map(|due| (due.wall_ns, due.ahead_ns))
    }

    fn begin_at(state: &mut State, wall_start_ns: i64) {
        let running = state::Running {
            policy: "home".to_owned(),
            slot: Slot(3),
            volumes: Vec::new(),
            missing: Vec::new(),
            wall_start_ns,
            done: Default::default(),
            totals: Default::default(),
            newest_secs: Default::default(),
            is_stopped: false,
        };
        state.running.insert(BackupId(1), running);
    }

    fn try_at(state: &mut State, wall_ns: i64, failures: u32) {
        state.tried.insert("home".to_owned(), Tried::new("home", wall_ns, failures, "why"));
    }

    #[test]
    fn a_backup_is_due_once_and_then_at_its_next_time() {
        let mut state = with_policy(Some(6 * 3_600_000));
        let now = 7 * HOUR_NS;
        assert_eq!(next(&state, now), Some((now, None)));
        assert_eq!(Calendar::default().next(&state, now, &|name| name == "home"), None, "one is under way");
        try_at(&mut state, now, 0);
        assert_eq!(next(&state, now), Some((12 * HOUR_NS, None)));
    }

    #[test]
    fn what_failed_is_tried_again_later_and_later_and_each_hour_at_least() {
        let mut state = with_policy(Some(60_000));
        let now = 7 * HOUR_NS;
        for (failures, minutes) in [(1, 1), (2, 2), (3, 4), (7, 60), (u32::MAX, 60)] {
            try_at(&mut state, now, failures);
            assert_eq!(next(&state, now + 1), Some((now + minutes * 60_000_000_000, None)));
        }
    }

    #[test]
    fn a_start_far_ahead_stops_no_schedule_and_makes_nothing_due_at_once() {
        for every_ms in [60_000, 86_400_000] {
            let mut state = with_policy(Some(every_ms));
            let every = every_ms as i64 * 1_000_000;
            let now = 20_000 * 24 * HOUR_NS + HOUR_NS;
            try_at(&mut state, now + YEAR_NS, 3);
            assert_eq!(next(&state, now), Some((now, Some(YEAR_NS))), "its time is set");
            // And the schedule goes on from there, also by clocks that are behind.
            try_at(&mut state, now, 0);
            let due = next(&state, now + 1).unwrap().0;
            assert!(due > now && due <= now + every, "{due}");
            assert!(next(&state, now - every / 2).unwrap().0 <= now + every);
            assert_eq!(next(&state, now - YEAR_NS), Some((now - YEAR_NS, Some(YEAR_NS))));
        }
    }

    #[test]
    fn a_schedule_set_by_a_clock_that_is_ahead_skips_nothing() {
        let now = 20_000 * 24 * HOUR_NS + HOUR_NS / 2;
        let set_at = |ahead_ns: i64| {
            let mut state = with_policy(Some(3_600_000));
            let mut policy = Policy::parse(&state.policies["home"].body).unwrap();
            policy.schedule.as_mut().unwrap().since = Some((now + ahead_ns) / 1_000_000_000);
            state.policies.get_mut("home").unwrap().body = Arc::from(policy.emit().unwrap().as_slice());
            state
        };
        let hour = now + HOUR_NS / 2;
        let minute = HOUR_NS / 60;
        assert_eq!(next(&set_at(minute), now), Some((hour, None)), "clocks differ by so much");
        // Nothing at half an hour ahead is further than a period, and yet the next full hour would be skipped.
        for ahead_ns in [minute * 40, minute * 90] {
            let mut state = set_at(ahead_ns);
            assert_eq!(next(&state, now), Some((now, Some(ahead_ns))), "its time is set");
            try_at(&mut state, now, 0);
            assert_eq!(next(&state, now + minute), Some((hour, None)));
            // One that began by a clock two minutes ahead of this one is not repeated.
            begin_at(&mut state, hour);
            try_at(&mut state, hour - 2 * minute, 0);
            assert_eq!(next(&state, hour - minute), Some((hour + HOUR_NS, None)));
        }
    }

    #[test]
    fn without_a_schedule_nothing_is_due_and_a_changed_policy_is_read_again() {
        let mut calendar = Calendar::default();
        assert_eq!(calendar.next(&with_policy(None), HOUR_NS, &|_| false), None);
        let mut changed = with_policy(Some(3_600_000));
        changed.policies.get_mut("home").unwrap().revision = 2;
        assert!(calendar.next(&changed, HOUR_NS, &|_| false).is_some());
        changed.policies.get_mut("home").unwrap().removed = true;
        assert_eq!(calendar.next(&changed, HOUR_NS, &|_| false), None);
    }
}
