//! Expiry: points that no retention rule of their policy keeps leave the log after each backup of it.
//!
//! ```text
//!  backup ended --> judge all points of the policy --> "point expired" records, in batches of EXPIRE_BATCH
//!                      `-- more than half would go: none does, and the status says how to do it on purpose
//! ```
//!
//! A point that is guarded (`log::guard`) leaves: it stays in the log until its time to be brought back is over, which is looked at in every
//! turn.
//!
//! Invariants: the newest sound point of a policy stays whatever the rules say, because the next backup is compared with it; a backup that
//! runs is no point and never expires. Does not: free space (what no point needs is retired by merges). Source: ours; `policy::retention`.

use std::collections::BTreeSet;

use super::{Coordinator, Now, Pending};
use crate::format::guard::{Guard, GuardPart, PointGuard};
use crate::format::record::Record;
use crate::id::BackupId;
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
        .filter(|point| point.policy == policy.name && state.leaving(point.backup).is_none())
        .map(|point| Candidate {
            backup: point.backup,
            wall_ns: point.wall_ns.0,
            tags: state.marks.get(&point.backup).map_or(&[][..], |mark| &mark.tags),
            is_held: state.is_held(point.backup),
            is_damaged: state.damage.points.contains(&point.backup),
        })
        .collect();
    let mut verdicts = judge(&policy.retention, &policy.zone, &points, now_ns);
    for verdict in &mut verdicts {
        let made_ns = state.points.get(&verdict.backup).map_or(verdict.wall_ns, |point| point.wall_ns.1);
        let guard =
            state.guard_of(verdict.backup).unwrap_or_default().or_longer(policy.safety.guard(made_ns));
        if guard.until_ns > now_ns && !policy.retention.is_empty() {
            verdict.reasons.push(Reason::Young(guard.until_ns));
        }
    }
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
pub fn records(state: &State, verdicts: &[Verdict], wall_ns: i64) -> Vec<Record> {
    let expired = verdicts.iter().rev().filter(|verdict| verdict.expires());
    expired.map(|verdict| leave(state, verdict.backup, wall_ns)).collect()
}

/// The record by which a point expires now.
#[must_use]
pub fn leave(state: &State, backup: BackupId, wall_ns: i64) -> Record {
    match state.guard_of(backup) {
        Some(_) => Record::PointGuarded(PointGuard { backup, part: GuardPart::Leave { wall_ns } }),
        None => Record::PointExpired { backup },
    }
}

/// What guards the point that a backup becomes when it ends now; `None`: its policy asks for nothing.
#[must_use]
pub fn guard(state: &State, policy: &str, backup: BackupId, wall_ns: i64) -> Option<PointGuard> {
    let entry = state.policies.get(policy)?;
    let guard = Policy::parse(&entry.body).ok()?.safety.guard(wall_ns);
    (guard != Guard::default()).then_some(PointGuard { backup, part: GuardPart::Guard(guard) })
}

/// A time in a record is the clock's of who commits it.
pub(super) fn date(record: &mut Record, now_ns: i64) {
    if let Record::PointGuarded(PointGuard { part: GuardPart::Leave { wall_ns }, .. }) = record {
        *wall_ns = now_ns;
    }
}

impl Coordinator {
    /// Points whose time to be brought back is over go.
    pub(super) fn turn_leaving(&mut self, now: Now<'_>) {
        // One that was given a longer minimum age meanwhile waits for that too.
        let until_ns = |backup: BackupId| now.state.guard_of(backup).map_or(0, |guard| guard.until_ns);
        // What a user asked of it comes first: both in one commit would be refused, again and again.
        let asked: BTreeSet<BackupId> = self.pending().flat_map(Pending::guards).collect();
        let is_over = |&(&backup, &end_ns): &(&BackupId, &i64)| {
            end_ns.max(until_ns(backup)) <= now.wall_ns && !asked.contains(&backup)
        };
        let over = now.state.guarded.leaving.iter().filter(is_over);
        let mut over = over.map(|(&backup, _)| leave(now.state, backup, now.wall_ns)).peekable();
        if over.peek().is_none() || self.pending().any(|pending| matches!(pending, Pending::Expire(_))) {
            return;
        }
        let records: Vec<Record> = over.take(EXPIRE_BATCH).collect();
        log::info!("retention: gone points={}", records.len());
        self.queue.push_back(Pending::Expire(records));
    }

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
        let ahead: Vec<String> = verdicts
            .iter()
            .filter(|verdict| verdict.reasons.contains(&Reason::Ahead))
            .map(|verdict| verdict.backup.to_string())
            .collect();
        if !ahead.is_empty() {
            let why = format!(
                "points of {name} are ahead of the clock, stay, and count in no rule: {}; look at the clocks of all nodes",
                ahead.join(", ")
            );
            self.errors.add(now.wall_ns, None, why);
        }
        for records in records(now.state, &verdicts, now.wall_ns).chunks(EXPIRE_BATCH) {
            log::info!("retention: expires policy={name} points={}", records.len());
            self.queue.push_back(Pending::Expire(records.to_vec()));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::backplane::message::Message;
    use crate::format::record::{PointStatus, Totals};
    use crate::format::slot::{ClusterId, SlotHeader};
    use crate::id::{Epoch, NodeId, Slot};
    use crate::log::state::Point;
    use crate::policy::Safety;
    use crate::work::Command;

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
        records(state, &verdicts, 1000 * DAY).into_iter().map(backup).collect()
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
    fn a_young_point_stays_whatever_a_policy_says_now() {
        let mut state = state(4);
        let until = |backup, until_ns| {
            let guard = Guard { until_ns, undo_ns: 5 };
            Record::PointGuarded(PointGuard { backup, part: GuardPart::Guard(guard) })
        };
        let records = [until(BackupId(1), 1001 * DAY), until(BackupId(2), 1000 * DAY)];
        state.epoch = Epoch(1);
        let header = SlotHeader {
            cluster: ClusterId::default(),
            slot: Slot(1),
            epoch: state.epoch,
            writer: state.holder,
            nonce: [0; 16],
            previous: [0; 32],
        };
        state.apply_slot(&header, &records).unwrap();
        let policy = policy(r#"{"last": 1}"#);
        let verdicts = judge_policy(&state, &policy, 1000 * DAY);
        assert_eq!(verdicts[3].reasons, [Reason::Young(1001 * DAY)]);
        let gone = self::records(&state, &verdicts, 1000 * DAY);
        let leaves = PointGuard { backup: BackupId(2), part: GuardPart::Leave { wall_ns: 1000 * DAY } };
        assert_eq!(gone, [Record::PointGuarded(leaves), Record::PointExpired { backup: BackupId(3) }]);
        state.apply_slot(&header, &gone).unwrap();
        assert_eq!(judge_policy(&state, &policy, 1000 * DAY).len(), 2, "one that leaves is not judged");
        // The policy asks for more than it did: that counts for all.
        let raised = Policy { safety: Safety { min_age: 2000 * 86_400_000, ..Safety::default() }, ..policy };
        assert!(judge_policy(&state, &raised, 1000 * DAY).iter().all(|verdict| !verdict.expires()));
    }

    #[test]
    fn a_point_that_a_user_asks_to_leave_is_not_asked_for_twice() {
        let mut state = state(3);
        let guarded = Arc::make_mut(&mut state.guarded);
        guarded.guards.insert(BackupId(1), Guard { until_ns: 0, undo_ns: 1 });
        guarded.leaving.insert(BackupId(1), 2);
        let settings = crate::coordinator::Settings {
            me: NodeId(1),
            peers: Vec::new(),
            beat_ns: 1,
            rest_ns: u64::MAX,
            merges: crate::table::plan::Bounds::default(),
            room: crate::coordinator::bounds::Room::default(),
            errand: None,
            checks: crate::log::writer::Checks::default(),
        };
        let leaves = |wall_ns| {
            let part = GuardPart::Leave { wall_ns };
            Record::PointGuarded(PointGuard { backup: BackupId(1), part })
        };
        let at = |ns| Now { ns, wall_ns: 9, state: &state };
        for (asks, committed) in [(false, 1), (true, 1)] {
            let mut coordinator = Coordinator::new(settings.clone(), Epoch(1), at(1));
            if asks {
                let command = Command::Submit(vec![leaves(3)]);
                coordinator.handle(at(2), NodeId(2), Message::Request { request: 7, command });
            }
            coordinator.turn(at(3));
            let batch = coordinator.next_batch(at(4)).unwrap_or_default();
            assert_eq!(batch, vec![leaves(9); committed], "asks={asks}");
        }
    }

    #[test]
    fn more_than_half_is_many() {
        for (points, many) in [(2, false), (3, true)] {
            let verdicts = judge_policy(&state(points), &policy(r#"{"last":1}"#), 9 * DAY);
            assert_eq!(expiring(&verdicts), (points as usize - 1, many));
        }
    }
}
