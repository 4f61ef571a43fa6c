//! Expiry: points that no retention rule of their policy keeps leave the log after each backup of it.
//!
//! ```text
//!  backup ended --> judge all points of the policy --> "point expired" records, in batches of EXPIRE_BATCH
//!                      `-- more than half would go: none does, and the status says how to do it on purpose
//! ```
//!
//! Invariants: the newest sound point of a policy stays whatever the rules say, because the next backup is compared with it; a backup that
//! runs is no point and never expires. Does not: free space (what no point needs is retired by merges). Source: ours; `policy::retention`.

use super::{Coordinator, Now, Pending};
use crate::format::record::Record;
use crate::log::state::State;
use crate::policy::Policy;
use crate::policy::retention::{Candidate, Reason, Verdict, judge};

/// Points that expire in one commit: a slot has room for more records, and reports of running backups share it.
pub const EXPIRE_BATCH: usize = 64;

/// Judges the points of a policy, newest first. `now_ns` is the wall clock in nanoseconds since 1970.
#[must_use]
pub fn judge_policy(state: &State, policy: &Policy, now_ns: i64) -> Vec<Verdict> {
    let points: Vec<Candidate<'_>> = state
        .points
        .values()
        .filter(|point| point.policy == policy.name)
        .map(|point| Candidate {
            backup: point.backup,
            wall_ns: point.wall_ns.0,
            tags: state.marks.get(&point.backup).map_or(&[][..], |mark| &mark.tags),
            is_held: state.is_held(point.backup),
            is_damaged: state.damage.points.contains(&point.backup),
        })
        .collect();
    let mut verdicts = judge(&policy.retention, &policy.zone, &points, now_ns);
    let is_sound = |verdict: &Verdict| !state.damage.points.contains(&verdict.backup);
    let newest = verdicts.iter().position(is_sound).unwrap_or(0);
    if let Some(newest) = verdicts.get_mut(newest).filter(|verdict| verdict.expires()) {
        newest.reasons.push(Reason::Base);
    }
    verdicts
}

/// How many points expire, and whether these are more than half of all: that is done only by a command that says the number.
#[must_use]
pub fn expiring(verdicts: &[Verdict]) -> (usize, bool) {
    let expiring = verdicts.iter().filter(|verdict| verdict.expires()).count();
    (expiring, expiring * 2 > verdicts.len())
}

/// The records of what expires, oldest first.
#[must_use]
pub fn records(verdicts: &[Verdict]) -> Vec<Record> {
    let expired = verdicts.iter().rev().filter(|verdict| verdict.expires());
    expired.map(|verdict| Record::PointExpired { backup: verdict.backup }).collect()
}

impl Coordinator {
    /// A backup of the policy has ended: what its rules keep no more expires.
    pub(super) fn expire(&mut self, now: Now<'_>, name: &str) {
        let entry = now.state.policies.get(name).filter(|entry| !entry.removed);
        let Some(policy) = entry.and_then(|entry| Policy::parse(&entry.body).ok()) else { return };
        if policy.retention.is_empty() {
            return;
        }
        let verdicts = judge_policy(now.state, &policy, now.wall_ns);
        let (count, are_many) = expiring(&verdicts);
        if are_many {
            let why = format!(
                "the retention rules of {name} keep {} of {} points; none expires by itself when that is less than half: look at \
                 `windlass retention run {name} --dry-run`",
                verdicts.len() - count,
                verdicts.len()
            );
            self.errors.add(now.wall_ns, None, why);
            return;
        }
        for records in records(&verdicts).chunks(EXPIRE_BATCH) {
            log::info!("retention: expires policy={name} points={}", records.len());
            self.queue.push_back(Pending::Expire(records.to_vec()));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::format::record::{PointStatus, Totals};
    use crate::id::BackupId;
    use crate::log::state::Point;

    const DAY: i64 = 86_400_000_000_000;

    fn state(points: u32) -> State {
        let mut state = State::default();
        for number in 1..=points {
            let begun = i64::from(number) * DAY;
            let point = Point {
                backup: BackupId(number),
                policy: "p".to_owned(),
                volumes: Vec::new(),
                missing: Vec::new(),
                wall_ns: (begun, begun),
                status: PointStatus::Complete,
                totals: Totals::default(),
            };
            Arc::make_mut(&mut state.points).insert(point.backup, point);
        }
        state
    }

    fn policy(rules: &str) -> Policy {
        Policy { retention: serde_json::from_str(rules).unwrap(), ..Policy::new("p", Vec::new()) }
    }

    fn expired(state: &State, rules: &str) -> Vec<u32> {
        let verdicts = judge_policy(state, &policy(rules), 1000 * DAY);
        let backup = |record: Record| match record {
            Record::PointExpired { backup } => backup.0,
            other => panic!("{other:?}"),
        };
        records(&verdicts).into_iter().map(backup).collect()
    }

    #[test]
    fn the_newest_sound_point_stays_whatever_the_rules_say() {
        let mut state = state(4);
        assert_eq!(expired(&state, r#"{"tags": [["none"]]}"#), [1, 2, 3]);
        Arc::make_mut(&mut state.damage).points.insert(BackupId(4));
        assert_eq!(expired(&state, r#"{"tags": [["none"]]}"#), [1, 2, 4]);
        assert_eq!(expired(&state, r#"{"last": 2}"#), [1], "damaged ones are kept beside the sound ones");
    }

    #[test]
    fn points_of_other_policies_are_not_looked_at() {
        let mut state = state(4);
        Arc::make_mut(&mut state.points).get_mut(&BackupId(4)).unwrap().policy = "q".to_owned();
        assert_eq!(expired(&state, r#"{"last": 1}"#), [1, 2]);
    }

    #[test]
    fn more_than_half_is_many() {
        for (points, many) in [(2, false), (3, true)] {
            let verdicts = judge_policy(&state(points), &policy(r#"{"last":1}"#), 9 * DAY);
            assert_eq!(expiring(&verdicts), (points as usize - 1, many));
        }
    }
}
