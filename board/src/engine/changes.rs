//! Changes of the log that people ask for, as plans: from the log's state to records, and what they come to. Who commits them is
//! [`commit`](super::commit)'s.
//!
//! | plan | command |
//! |---|---|
//! | [`set`] [`delete`] | `policy set`, `delete` |
//! | [`point`] | `point hold`, `release`, `note`, `tag`, `expire`, `undo` |
//! | [`retention`] | `retention run` |
//! | [`roles`] | `role grant`, `revoke` |
//!
//! Invariants: a plan that refuses makes no record. Does not: commit, or print. Source: ours.

use windlass_agent::coordinator::expire::{self, expiring, judge_policy};
use windlass_agent::format::access::{AccessNews, GRANTS_MAX, Grant};
use windlass_agent::format::guard::{GuardPart, PointGuard};
use windlass_agent::format::mark::{MARK_TEXT_BYTES_MAX, MarkPart, PointMark};
use windlass_agent::format::record::Record;
use windlass_agent::id::BackupId;
use windlass_agent::log::state::State;
use windlass_agent::policy::Policy;
use windlass_agent::policy::retention::{Retention, Verdict};

use super::points;
use super::policy::{change, check_block_size, existing, longer_guards, required};
use crate::failure::Failure;
use crate::point::Target;

/// Records, and what they come to.
pub type Planned<T> = Result<(Vec<Record>, T), Failure>;

/// A policy is as this says; its revision then.
pub fn set(state: &State, policy: &Policy) -> Planned<u32> {
    let before = existing(state, &policy.name)?;
    check_block_size(state, before.as_ref(), policy)?;
    let change = change(state, policy)?;
    let revision = change.revision;
    let guards = longer_guards(state, policy);
    Ok((std::iter::once(Record::PolicyChanged(change)).chain(guards).collect(), revision))
}

/// What a policy that goes leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deleted {
    /// Points that it had.
    pub points: usize,
    /// Its backup that had not ended.
    pub given_up: Option<u32>,
}

/// A policy goes; `with_points`: and all of its points.
pub fn delete(state: &State, name: &str, with_points: bool, now_ns: i64) -> Planned<Deleted> {
    let is_removed = state.policies.get(name).is_some_and(|entry| entry.removed);
    let all = state.points.values().filter(|point| point.policy == name).map(|point| point.backup);
    let all: Vec<BackupId> = all.filter(|&backup| state.leaving(backup).is_none()).collect();
    let given_up = state.running_of(name).map(|(backup, _)| backup.0);
    // What a policy that was removed before has left.
    let only_points = with_points && is_removed && !all.is_empty();
    if !only_points {
        required(state, name)?;
    }
    let mut records = Vec::new();
    if with_points {
        for &backup in &all {
            points::may_expire(state, name, backup, now_ns)?;
        }
        records.extend(all.iter().map(|&backup| expire::leave(state, backup, now_ns)));
    }
    // The policy goes last: what is refused in between leaves one that can be deleted again.
    if !only_points {
        let revision = state.policies.get(name).map_or(0, |entry| entry.revision) + 1;
        records.push(Record::PolicyRemoved { name: name.to_owned(), revision });
    }
    Ok((records, Deleted { points: all.len(), given_up }))
}

/// What becomes of a point.
#[derive(Clone, Debug)]
pub enum PointChange {
    /// Something is said of it.
    Mark(MarkPart),
    /// It expires.
    Expire,
    /// It is back.
    Undo,
}

impl PointChange {
    /// It is held.
    pub fn hold(reason: String) -> Result<PointChange, Failure> {
        if reason.trim().is_empty() {
            return Err(Failure::usage("--reason: say why, for those who find it later"));
        }
        Ok(PointChange::Mark(MarkPart::Hold(text(reason)?)))
    }

    /// It is released.
    pub fn release() -> PointChange {
        PointChange::Mark(MarkPart::Hold(String::new()))
    }

    /// It has a note.
    pub fn note(note: String) -> Result<PointChange, Failure> {
        Ok(PointChange::Mark(MarkPart::Note(text(note)?)))
    }

    /// It has these tags.
    pub fn tags(tags: Vec<String>) -> Result<PointChange, Failure> {
        MarkPart::tags(tags).map(PointChange::Mark).ok_or_else(|| {
            Failure::usage(
                "a point has at most 16 tags of 1 to 64 letters, digits, '.', '_', '-', ':' or '=' each",
            )
        })
    }
}

fn text(text: String) -> Result<String, Failure> {
    if text.len() > MARK_TEXT_BYTES_MAX {
        return Err(Failure::usage(format_args!(
            "the text has {} bytes; at most {MARK_TEXT_BYTES_MAX} fit",
            text.len()
        )));
    }
    Ok(text)
}

/// A point changes; which one it is, and until when it can be brought back if it expires now.
pub fn point(
    state: &State,
    target: &Target,
    change: PointChange,
    now_ns: i64,
) -> Planned<(BackupId, Option<i64>)> {
    let name = &target.policy;
    if let PointChange::Undo = change {
        let backup = points::pick_leaving(state, target)?;
        let record = Record::PointGuarded(PointGuard { backup, part: GuardPart::Undo });
        return Ok((vec![record], (backup, None)));
    }
    let backup = points::pick(state, target)?.backup;
    let (record, until_ns) = match change {
        PointChange::Mark(part) => (Record::PointMarked(PointMark { backup, part }), None),
        PointChange::Expire | PointChange::Undo => {
            points::may_expire(state, name, backup, now_ns)?;
            let undo_ns = state.guard_of(backup).map_or(0, |guard| guard.undo_ns);
            let until_ns = now_ns.saturating_add(i64::try_from(undo_ns).unwrap_or(i64::MAX));
            (expire::leave(state, backup, now_ns), (undo_ns > 0).then_some(until_ns))
        }
    };
    Ok((vec![record], (backup, until_ns)))
}

/// A policy's rules, and what they say of each of its points, newest first.
pub fn judged(state: &State, name: &str, now_ns: i64) -> Result<(Retention, Vec<Verdict>), Failure> {
    let policy = required(state, name)?;
    let verdicts = judge_policy(state, &policy, now_ns);
    Ok((policy.retention, verdicts))
}

/// Points that no rule keeps expire, if `said` is how many these are; it may be left out where they are not more than half.
pub fn retention(
    state: &State,
    name: &str,
    said: Option<usize>,
    now_ns: i64,
) -> Planned<(Retention, Vec<Verdict>)> {
    let (rules, verdicts) = judged(state, name, now_ns)?;
    let (count, are_many) = expiring(&verdicts);
    if (are_many || said.is_some()) && said != Some(count) {
        return Err(Failure::usage(format_args!(
            "{count} of {} points of {name} would expire; look at them with `windlass retention run {name} --dry-run`, then say \
             --yes-expire {count}",
            verdicts.len()
        )));
    }
    Ok((expire::records(state, &verdicts, now_ns), (rules, verdicts)))
}

/// A subject has these roles, in place of those that it had.
pub fn roles(subject: &str, mut grants: Vec<Grant>) -> Planned<Vec<Grant>> {
    grants.sort();
    grants.dedup();
    if grants.len() > GRANTS_MAX {
        return Err(Failure::usage(format_args!(
            "a subject has at most {GRANTS_MAX} roles; give some for all policies"
        )));
    }
    let news = AccessNews::Roles { subject: subject.to_owned(), grants: grants.clone() };
    Ok((vec![Record::Access(news)], grants))
}
