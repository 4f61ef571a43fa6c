//! Whether policies are protected: when each had its last good point, and whether the next is late.
//!
//! A point is good when it is complete: no item, no volume missing, and nothing of it lost since. A policy with a schedule is late when the backup
//! that was due after the last good point has not ended in a good one within [`GRACE_NS`] and twice the time that the last one took.
//!
//! Invariants: a function of the log and the time. Does not: know why a backup did not happen; a policy's last try says it. Source: ours.

use crate::format::record::PointStatus;
use crate::id::BackupId;
use crate::log::state::{Point, State};
use crate::policy::Policy;
use crate::policy::schedule::next_due;

/// How long after its time a backup may begin and be no news, in nanoseconds: nodes start again, a coordinator changes.
const GRACE_NS: i64 = 600_000_000_000;

/// How a policy is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protection {
    /// It has no good point at all, and was to have one.
    Never,
    /// A good point was due and is not there.
    Late,
    /// The newest point is not whole, or something of it was lost.
    Flawed,
    /// It has no schedule and no point: nothing is expected of it.
    Unused,
    /// All is as its schedule says; without a schedule: it has a good point.
    Good,
}

impl Protection {
    /// Its name, for programs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Protection::Never => "never",
            Protection::Late => "late",
            Protection::Flawed => "flawed",
            Protection::Unused => "unused",
            Protection::Good => "good",
        }
    }

    /// Whether an operator should look at it.
    #[must_use]
    pub fn is_bad(self) -> bool {
        matches!(self, Protection::Never | Protection::Late | Protection::Flawed)
    }
}

/// A policy's points, as far as its health goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// Its name.
    pub policy: String,
    /// How it is.
    pub protection: Protection,
    /// Its newest good point: which, and when it began and ended, in nanoseconds since 1970.
    pub good: Option<(BackupId, i64, i64)>,
    /// Its newest point of any kind: bytes of contents, bytes that it stored, items with something missing.
    pub newest: Option<(u64, u64, u64)>,
    /// When the backup after the last good point was or is due, in nanoseconds since 1970; `None` without a schedule.
    pub due_ns: Option<i64>,
    /// Points that it has.
    pub points: u64,
}

fn is_good(state: &State, point: &Point) -> bool {
    point.status == PointStatus::Complete
        && point.missing.is_empty()
        && !state.damage.points.contains(&point.backup)
}

/// The health of all policies that were not removed, worst first, then by the age of their last good point.
#[must_use]
pub fn health(state: &State, now_ns: i64) -> Vec<Health> {
    let known = state.policies.iter().filter(|(_, entry)| !entry.removed);
    let mut all: Vec<Health> = known
        .map(|(name, entry)| {
            let policy = Policy::parse(&entry.body).ok();
            let points = || {
                state
                    .points
                    .values()
                    .filter(|point| point.policy == *name && state.leaving(point.backup).is_none())
            };
            let good = points().rfind(|point| is_good(state, point));
            let good = good.map(|point| (point.backup, point.wall_ns.0, point.wall_ns.1));
            let newest = points().next_back();
            let due_ns = policy.and_then(|policy| next_due(&policy, good.map(|good| good.1), now_ns));
            let took_ns = good.map_or(0, |(_, begun, ended)| ended.saturating_sub(begun).max(0));
            let late_ns =
                due_ns.map(|due| due.saturating_add(GRACE_NS).saturating_add(took_ns.saturating_mul(2)));
            let protection = match (good, late_ns.is_some_and(|late| late < now_ns)) {
                (Some(_), true) => Protection::Late,
                (None, true) => Protection::Never,
                (good, false) => match newest {
                    Some(point) if !is_good(state, point) => Protection::Flawed,
                    Some(_) => Protection::Good,
                    // Its first backup is not due yet.
                    None if due_ns.is_some() || good.is_some() => Protection::Good,
                    None => Protection::Unused,
                },
            };
            let newest = newest.map(|point| {
                let totals = &point.totals;
                (
                    totals.bytes_logical,
                    totals.bytes_stored,
                    totals.faults.saturating_add(point.missing.len() as u64),
                )
            });
            Health { policy: name.clone(), protection, good, newest, due_ns, points: points().count() as u64 }
        })
        .collect();
    all.sort_by(|a, b| {
        let order = |health: &Health| (health.protection, health.good.map_or(0, |good| good.2));
        order(a).cmp(&order(b)).then_with(|| a.policy.cmp(&b.policy))
    });
    all
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::log::state;
    use crate::policy::schedule::Schedule;
    use crate::policy::{PolicyVolume, Reader};

    const HOUR_NS: i64 = 3_600_000_000_000;

    fn with(state: &mut State, name: &str, schedule: Option<Schedule>) {
        let volume = PolicyVolume { device: "/dev/a".to_owned(), reader: Reader::Auto };
        let policy = Policy { schedule, ..Policy::new(name, vec![volume]) };
        let body: Arc<[u8]> = policy.emit().unwrap().into();
        let entry =
            state::Policy { revision: 1, slot: Default::default(), removed: false, body, volumes: vec![] };
        state.policies.insert(name.to_owned(), entry);
    }

    fn point(state: &mut State, number: u32, policy: &str, hours: i64, status: PointStatus) {
        let at = hours * HOUR_NS;
        let backup = BackupId(number);
        let point = Point {
            backup,
            policy: policy.to_owned(),
            volumes: vec![],
            missing: vec![],
            wall_ns: (at, at + HOUR_NS / 60),
            status,
            totals: Default::default(),
        };
        Arc::make_mut(&mut state.points).insert(backup, point);
    }

    #[test]
    fn a_policy_is_late_when_the_backup_that_was_due_made_no_good_point() {
        let mut state = State::default();
        let daily = || Some(Schedule { since: Some(0), ..Schedule::every(24 * 3_600_000) });
        with(&mut state, "daily", daily());
        with(&mut state, "request", None);
        with(&mut state, "unused", None);
        point(&mut state, 1, "daily", 1000, PointStatus::Complete);
        point(&mut state, 2, "request", 1000, PointStatus::Complete);
        let at = |state: &State, hours: i64| -> Vec<(String, Protection)> {
            health(state, hours * HOUR_NS).into_iter().map(|one| (one.policy, one.protection)).collect()
        };
        let of = |all: &[(String, Protection)], name: &str| all.iter().find(|one| one.0 == name).unwrap().1;
        let soon = at(&state, 1001);
        assert_eq!((of(&soon, "daily"), of(&soon, "request")), (Protection::Good, Protection::Good));
        assert_eq!(of(&soon, "unused"), Protection::Unused);
        let later = at(&state, 1050);
        assert_eq!(later[0], ("daily".to_owned(), Protection::Late), "the worst is first");
        assert_eq!(of(&later, "request"), Protection::Good, "nothing says that it should have another");
        // One that is not whole is no good one.
        point(&mut state, 3, "daily", 1049, PointStatus::WithErrors);
        assert_eq!(of(&at(&state, 1050), "daily"), Protection::Late);
        point(&mut state, 4, "daily", 1049, PointStatus::Complete);
        point(&mut state, 5, "daily", 1050, PointStatus::WithErrors);
        assert_eq!(of(&at(&state, 1051), "daily"), Protection::Flawed);
        with(&mut state, "never", daily());
        assert_eq!(at(&state, 1050)[0], ("never".to_owned(), Protection::Never));
    }
}
