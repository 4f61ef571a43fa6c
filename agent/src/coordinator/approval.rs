//! What a second subject has to approve, where a policy asks for that (`safety.approval`), and whether one may.
//!
//! | record | needs approval |
//! |---|---|
//! | a point expires | yes; not when the rules of its policy expire it, which is the coordinator's own |
//! | a held point is released | yes |
//! | a policy is deleted | yes |
//! | a policy is changed | when its retention, or what keeps its points (`safety`), is another afterwards |
//!
//! The policy that counts is the last one of that name, also when it was deleted. A request holds such records; another subject than the one
//! who asked approves it, not before its time, and they are committed with the approval in one slot. Who asked may withdraw it, and so may
//! everyone who could approve it.
//!
//! This program holds a command line that has the key and no agent to the same. A user who has the key can write a program that does not:
//! see `board/doc/security.md`.
//!
//! Invariants: a function of the log, the subject, the time and the records. Does not: know roles (`access`). Source: ours.

use super::expire;
use crate::format::guard::GuardPart;
use crate::format::mark::MarkPart;
use crate::format::record::Record;
use crate::format::removal::{Asked, RemovalNews};
use crate::id::BackupId;
use crate::log::state::State;
use crate::policy::Policy;

fn body(state: &State, policy: &str) -> Option<Policy> {
    Policy::parse(&state.policies.get(policy)?.body).ok()
}

/// The policy that a record is about, and what it needs by that: a delay in milliseconds.
fn of_record(state: &State, record: &Record) -> Option<(String, u64)> {
    let of_policy = |name: &str| Some((name.to_owned(), body(state, name)?.safety.approval?));
    let of_point = |backup: BackupId| of_policy(&state.points.get(&backup)?.policy);
    match record {
        Record::PointExpired { backup } => of_point(*backup),
        Record::PointGuarded(news) => match news.part {
            // Who expires it again removes it for good.
            GuardPart::Leave { .. } => of_point(news.backup),
            GuardPart::Guard(_) | GuardPart::Undo => None,
        },
        Record::PointMarked(news) => match &news.part {
            MarkPart::Hold(why) if why.is_empty() && state.is_held(news.backup) => of_point(news.backup),
            MarkPart::Hold(_) | MarkPart::Note(_) | MarkPart::Tags(_) => None,
        },
        Record::PolicyRemoved { name, .. } => of_policy(name),
        Record::PolicyChanged(change) => {
            let (before, after) = (body(state, &change.name)?, Policy::parse(&change.body).ok());
            let is_kept = after.is_some_and(|after| {
                (&after.retention, &after.safety) == (&before.retention, &before.safety)
            });
            if is_kept { None } else { of_policy(&change.name) }
        }
        _ => None,
    }
}

/// The first policy that wants records approved, and the longest time that any of them wants to pass before, in milliseconds.
#[must_use]
pub fn needed(state: &State, records: &[Record]) -> Option<(String, u64)> {
    let mut all = records.iter().filter_map(|record| of_record(state, record)).peekable();
    let policy = all.peek()?.0.clone();
    Some((policy, all.map(|(_, delay_ms)| delay_ms).max().unwrap_or(0)))
}

/// A request for records, by a subject at a time.
#[must_use]
pub fn ask(subject: &str, wall_ns: i64, delay_ms: u64, records: Vec<Record>) -> Asked {
    let delay_ns = i64::try_from(delay_ms.saturating_mul(1_000_000)).unwrap_or(i64::MAX);
    let not_before_ns = wall_ns.saturating_add(delay_ns);
    Asked { subject: subject.to_owned(), wall_ns, not_before_ns, records }
}

/// What is committed when `subject` submits records: the same, or with those that a request asked for behind its approval.
///
/// # Errors
/// They need approval, or this subject may not give it now: what to do.
pub fn admit(
    state: &State,
    subject: &str,
    wall_ns: i64,
    records: Vec<Record>,
) -> Result<Vec<Record>, String> {
    if let Some((policy, _)) = needed(state, &records) {
        return Err(format!(
            "policy {policy} wants a second subject to approve this; ask for it with the same command by a windlass of this version, and \
             `windlass removal list` shows it"
        ));
    }
    let mut out = Vec::with_capacity(records.len());
    for record in records {
        match record {
            Record::Removal(RemovalNews::Asked(asked)) => {
                let Some((_, delay_ms)) = needed(state, &asked.records) else {
                    return Err("nothing of this needs approval any more; give the command again".to_owned());
                };
                // The time and the subject are those of who commits it.
                let asked = ask(subject, wall_ns, delay_ms, asked.records);
                out.push(Record::Removal(RemovalNews::Asked(Box::new(asked))));
            }
            Record::Removal(RemovalNews::Approved { request, .. }) => {
                let asked = state.removals.get(&request).ok_or_else(|| no_request(request.0))?;
                if asked.subject == subject {
                    return Err(format!(
                        "{subject} asked for request {request}: another subject has to approve it"
                    ));
                }
                if wall_ns < asked.not_before_ns {
                    let left_s = asked.not_before_ns.saturating_sub(wall_ns) / 1_000_000_000 + 1;
                    return Err(format!(
                        "request {request} may be approved in {left_s} s; its policy wants so much time"
                    ));
                }
                out.push(Record::Removal(RemovalNews::Approved { request, subject: subject.to_owned() }));
                let mut records = asked.records.clone();
                records.iter_mut().for_each(|record| expire::date(record, wall_ns));
                out.extend(records);
            }
            Record::Removal(RemovalNews::Withdrawn { request, .. }) => {
                state.removals.get(&request).ok_or_else(|| no_request(request.0))?;
                out.push(Record::Removal(RemovalNews::Withdrawn { request, subject: subject.to_owned() }));
            }
            other => out.push(other),
        }
    }
    Ok(out)
}

fn no_request(number: u64) -> String {
    format!("there is no request {number}; `windlass removal list` has those that wait")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::format::guard::PointGuard;
    use crate::format::mark::PointMark;
    use crate::format::record::{PointStatus, PolicyChange, Totals};
    use crate::id::Slot;
    use crate::log::state;
    use crate::policy::{PolicyVolume, Reader};

    const MINUTE_MS: u64 = 60_000;

    fn policy(approval: Option<u64>) -> Policy {
        let volume = PolicyVolume { device: "/dev/x".to_owned(), reader: Reader::Auto };
        let mut policy = Policy::new("p", vec![volume]);
        policy.safety.approval = approval;
        policy
    }

    /// A policy with a point that is held.
    fn state_of(policy: &Policy) -> State {
        let mut state = State::default();
        let body = policy.emit().unwrap().into();
        let entry = state::Policy { revision: 1, slot: Slot(1), removed: false, body, volumes: Vec::new() };
        state.policies.insert("p".to_owned(), entry);
        let point = state::Point {
            backup: BackupId(1),
            policy: "p".to_owned(),
            volumes: Vec::new(),
            missing: Vec::new(),
            wall_ns: (0, 0),
            status: PointStatus::Complete,
            totals: Totals::default(),
        };
        Arc::make_mut(&mut state.points).insert(BackupId(1), point);
        state.marks.entry(BackupId(1)).or_default().change(&MarkPart::Hold("why".to_owned()));
        state
    }

    fn changed(policy: &Policy) -> Record {
        let body = policy.emit().unwrap();
        Record::PolicyChanged(PolicyChange { name: "p".to_owned(), revision: 2, body, volumes: Vec::new() })
    }

    fn mark(part: MarkPart) -> Record {
        Record::PointMarked(PointMark { backup: BackupId(1), part })
    }

    #[test]
    fn what_removes_or_lets_remove_needs_approval_where_the_policy_says_so() {
        let own = policy(Some(MINUTE_MS));
        let state = state_of(&own);
        let leave = |part| Record::PointGuarded(PointGuard { backup: BackupId(1), part });
        let mut kept_less = own.clone();
        kept_less.retention.last = crate::policy::retention::Count::Newest(1);
        let other_volumes = Policy { priority: 5, ..own.clone() };
        for (record, needs) in [
            (Record::PointExpired { backup: BackupId(1) }, true),
            (Record::PointExpired { backup: BackupId(2) }, false),
            (leave(GuardPart::Leave { wall_ns: 1 }), true),
            (leave(GuardPart::Undo), false),
            (mark(MarkPart::Hold(String::new())), true),
            (mark(MarkPart::Hold("longer".to_owned())), false),
            (mark(MarkPart::Note(String::new())), false),
            (Record::PolicyRemoved { name: "p".to_owned(), revision: 2 }, true),
            (changed(&policy(None)), true),
            (changed(&policy(Some(0))), true),
            (changed(&kept_less), true),
            (changed(&other_volumes), false),
        ] {
            let found = needed(&state, std::slice::from_ref(&record));
            assert_eq!(found, needs.then(|| ("p".to_owned(), MINUTE_MS)), "{record:?}");
            assert!(needed(&state_of(&policy(None)), &[record]).is_none());
        }
    }

    #[test]
    fn another_subject_approves_and_not_before_the_time_is_there() {
        const NS: i64 = 60_000_000_000;
        let mut state = state_of(&policy(Some(MINUTE_MS)));
        let expire = || vec![Record::PointExpired { backup: BackupId(1) }];
        let refused = admit(&state, "uid:1", 5, expire()).unwrap_err();
        assert!(refused.contains("policy p wants a second subject"), "{refused}");
        // What a client says of subject and times does not count.
        let asked = Asked { subject: "uid:2".to_owned(), wall_ns: 0, not_before_ns: 0, records: expire() };
        let asked =
            admit(&state, "uid:1", 5, vec![Record::Removal(RemovalNews::Asked(Box::new(asked)))]).unwrap();
        let [Record::Removal(RemovalNews::Asked(asked))] = &asked[..] else { panic!("{asked:?}") };
        assert_eq!((&asked.subject[..], asked.wall_ns, asked.not_before_ns), ("uid:1", 5, 5 + NS));
        Arc::make_mut(&mut state.removals).insert(Slot(7), Asked::clone(asked));
        let approve = |request: u64| {
            vec![Record::Removal(RemovalNews::Approved {
                request: Slot(request),
                subject: "uid:9".to_owned(),
            })]
        };
        for (subject, at_ns, request, why) in [
            ("uid:1", 5 + NS, 7, "another subject has to approve"),
            ("uid:2", 4 + NS, 7, "may be approved in 1 s"),
            ("uid:2", 5 + NS, 8, "there is no request 8"),
        ] {
            let said = admit(&state, subject, at_ns, approve(request)).unwrap_err();
            assert!(said.contains(why), "{said}");
        }
        let done = admit(&state, "uid:2", 5 + NS, approve(7)).unwrap();
        let approved = RemovalNews::Approved { request: Slot(7), subject: "uid:2".to_owned() };
        assert_eq!(done, [vec![Record::Removal(approved)], expire()].concat());
        let other = vec![mark(MarkPart::Note("n".to_owned()))];
        assert_eq!(admit(&state, "uid:1", 5, other.clone()), Ok(other));
    }
}
