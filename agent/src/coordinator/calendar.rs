//! Which policy's backup is due next, by the schedules in the log. Source: ours; `policy::schedule`.

use std::collections::BTreeMap;

use crate::log::state::State;
use crate::policy::Policy;
use crate::policy::schedule::next_due;

/// Schedules as last read from the log, and what was tried.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Calendar {
    /// By policy: the revision that was read, and what it says.
    read: BTreeMap<String, (u32, Option<Policy>)>,
    /// When a backup was last tried, wall clock: one that could not begin is due again at its next time, not at once.
    tried: BTreeMap<String, i64>,
}

impl Calendar {
    /// The earliest time at which a backup is due, and of which policy; in the past or now: it is due. Nanoseconds since 1970. Policies of
    /// which `is_busy` says that a backup is under way are left out: what was due meanwhile is due when it has ended, once.
    pub fn next(
        &mut self,
        state: &State,
        wall_ns: i64,
        is_busy: &dyn Fn(&str) -> bool,
    ) -> Option<(i64, String)> {
        self.read.retain(|name, _| state.policies.contains_key(name));
        let mut first: Option<(i64, String)> = None;
        for (name, entry) in state.policies.iter().filter(|(name, entry)| !entry.removed && !is_busy(name)) {
            let read = self.read.entry(name.clone()).or_default();
            if read.0 != entry.revision {
                *read = (entry.revision, Policy::parse(&entry.body).ok());
            }
            let Some(policy) = read.1.as_ref().filter(|policy| policy.schedule.is_some()) else { continue };
            let point = state.last_point(name).map(|point| point.wall_ns.0);
            let running = state.running_of(name).map(|(_, running)| running.wall_start_ns);
            let tried = self.tried.get(name).copied();
            let last = [point, running, tried].into_iter().flatten().max();
            let Some(due) = next_due(policy, last, wall_ns) else { continue };
            if first.as_ref().is_none_or(|(earliest, _)| due < *earliest) {
                first = Some((due, name.clone()));
            }
        }
        first
    }

    /// A backup was asked for.
    pub fn tried(&mut self, policy: &str, wall_ns: i64) {
        self.tried.insert(policy.to_owned(), wall_ns);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::id::Slot;
    use crate::log::state;
    use crate::policy::schedule::Schedule;
    use crate::policy::{PolicyVolume, Reader};

    const HOUR_NS: i64 = 3_600_000_000_000;

    fn with_policy(every_hours: Option<u64>) -> State {
        let mut policy =
            Policy::new("home", vec![PolicyVolume { device: "/dev/x".into(), reader: Reader::Auto }]);
        policy.schedule =
            every_hours.map(|hours| Schedule { every: hours * 3_600_000, at: None, since: None });
        let body = Arc::from(policy.emit().unwrap().as_slice());
        let entry = state::Policy { revision: 1, slot: Slot(2), removed: false, body, volumes: Vec::new() };
        State { policies: [("home".to_owned(), entry)].into(), ..State::default() }
    }

    #[test]
    fn a_backup_is_due_once_and_then_at_its_next_time() {
        let mut calendar = Calendar::default();
        let state = with_policy(Some(6));
        let now = 7 * HOUR_NS;
        assert!(
            calendar.next(&state, now, &|_| false).is_some_and(|(due, name)| due <= now && name == "home")
        );
        assert_eq!(calendar.next(&state, now, &|name| name == "home"), None, "one is under way");
        calendar.tried("home", now);
        assert_eq!(calendar.next(&state, now, &|_| false), Some((12 * HOUR_NS, "home".to_owned())));
    }

    #[test]
    fn without_a_schedule_nothing_is_due_and_a_changed_policy_is_read_again() {
        let mut calendar = Calendar::default();
        assert_eq!(calendar.next(&with_policy(None), HOUR_NS, &|_| false), None);
        let mut changed = with_policy(Some(1));
        changed.policies.get_mut("home").unwrap().revision = 2;
        assert!(calendar.next(&changed, HOUR_NS, &|_| false).is_some());
        changed.policies.get_mut("home").unwrap().removed = true;
        assert_eq!(calendar.next(&changed, HOUR_NS, &|_| false), None);
    }
}
