//! What waits for a commit, and what follows from it; and which records users may submit.
//!
//! Invariants: a batch has whole entries only; one that removes or renames a policy begins a batch. Does not: decide when there is a
//! commit (`coordinator`). Source: ours.

use super::{Asker, Coordinator, merges};
use crate::format::access::AccessNews;
use crate::format::garbage::GarbageNews;
use crate::format::guard::{GuardPart, PointGuard};
use crate::format::record::{BackupEnd, Commit, Record, Stretch};
use crate::format::removal::RemovalNews;
use crate::id::{BackupId, NodeId};
use crate::log::state::State;
use crate::table::segment::SegmentMeta;
use crate::work::{MergeOrder, Report};

/// Something to be committed, and what follows from it.
#[allow(clippy::large_enum_variant, reason = "nearly all are reports")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Pending {
    Report(NodeId, Report),
    Merge(NodeId, MergeOrder, Vec<SegmentMeta>),
    Begin {
        policy: String,
        backup: BackupId,
        records: Vec<Record>,
    },
    End {
        policy: String,
        backup: BackupId,
        wall_ns: i64,
        guard: Option<PointGuard>,
    },
    Submit(Asker, Vec<Record>),
    /// A backup stops until it is asked for: what the log is told, and who asked, if anybody did.
    Stop {
        asker: Option<Asker>,
        policy: String,
        backup: Option<BackupId>,
        records: Vec<Record>,
    },
    /// Of the coordinator's own: nothing waits for it.
    Own(Record),
    /// Points that no rule keeps.
    Expire(Vec<Record>),
    /// What a step of a garbage run found.
    Collect(Vec<Record>),
}

impl Pending {
    /// The policy of which it says how a try went.
    pub(super) fn tried(&self) -> Option<&str> {
        match self {
            Pending::Own(Record::BackupTried(tried)) => Some(&tried.policy),
            Pending::Stop { policy, .. } => Some(policy),
            _ => None,
        }
    }

    /// Whether it stops the policy's backup: what is wanted of it is decided behind that.
    pub(super) fn stops(&self, of: &str) -> bool {
        matches!(self, Pending::Stop { policy, .. } if policy == of)
    }

    /// A stop is about the backup that the log has by now: it may have begun, or be over, since that was asked for.
    pub(super) fn settle_stop(&mut self, state: &State) {
        let Pending::Stop { policy, backup, records, .. } = self else { return };
        records.retain(|record| matches!(record, Record::BackupTried(_)));
        let running = state.running_of(policy);
        // What was given up meanwhile, as with other volumes of its policy, is not said to be stopped.
        *backup = running.map(|(running, _)| running);
        if let Some((running, of)) = running {
            let stop = (!of.is_stopped).then_some(Record::BackupStopped { backup: running, goes_on: false });
            records.splice(0..0, stop);
        }
    }

    /// Whether it changes a policy.
    pub(super) fn changes(&self, policy: &str) -> bool {
        let is_change =
            |record: &Record| matches!(record, Record::PolicyChanged(change) if change.name == policy);
        matches!(self, Pending::Submit(_, records) if records.iter().any(is_change))
    }

    /// Whether it removes a policy: then it is a batch of its own, so that what it leaves unfinished is as the state says.
    pub(super) fn removes(&self) -> bool {
        let is_removal = |record: &Record| matches!(record, Record::PolicyRemoved { .. });
        matches!(self, Pending::Submit(_, records) if records.iter().any(is_removal))
    }

    /// The points that it guards, lets leave or brings back.
    pub(super) fn guards(&self) -> Vec<BackupId> {
        let of = |record: &Record| match record {
            Record::PointGuarded(news) => Some(news.backup),
            _ => None,
        };
        match self {
            Pending::Submit(_, records) | Pending::Expire(records) => records.iter().filter_map(of).collect(),
            _ => Vec::new(),
        }
    }

    /// Whether it says who asked for what follows in the slot.
    pub(super) fn says_who(&self) -> bool {
        let is_by = |records: &[Record]| matches!(records, [Record::Access(AccessNews::By { .. }), ..]);
        matches!(self, Pending::Submit(_, records) | Pending::Begin { records, .. } if is_by(records))
    }

    /// Whether it asks for a removal: a slot has one such request, which has its number.
    pub(super) fn asks(&self) -> bool {
        let is_ask = |record: &Record| matches!(record, Record::Removal(RemovalNews::Asked(_)));
        matches!(self, Pending::Submit(_, records) if records.iter().any(is_ask))
    }

    /// Whether it renames a policy: then it is a batch of its own, and what waits is about the new name.
    pub(super) fn renames(&self) -> bool {
        let is_renaming = |record: &Record| matches!(record, Record::PolicyRenamed { .. });
        matches!(self, Pending::Submit(_, records) if records.iter().any(is_renaming))
    }

    /// It is about a policy of another name.
    pub(super) fn rename(&mut self, from: &str, to: &str) {
        let rename = |name: &mut String| {
            if name == from {
                to.clone_into(name);
            }
        };
        match self {
            Pending::Begin { policy, records, .. } => {
                rename(policy);
                for record in records {
                    if let Record::BackupBegun(start) = record {
                        rename(&mut start.policy);
                    }
                }
            }
            Pending::End { policy, .. } => rename(policy),
            Pending::Stop { policy, records, .. } => {
                rename(policy);
                for record in records {
                    if let Record::BackupTried(tried) = record {
                        rename(&mut tried.policy);
                    }
                }
            }
            Pending::Own(Record::BackupTried(tried)) => rename(&mut tried.policy),
            Pending::Report(..)
            | Pending::Merge(..)
            | Pending::Submit(..)
            | Pending::Own(_)
            | Pending::Expire(_)
            | Pending::Collect(_) => {}
        }
    }

    /// Adds what it leaves unfinished and gives up, as of `state`, in place of what an earlier attempt has added.
    pub(super) fn give_up(&mut self, state: &State) {
        let Pending::Submit(_, records) = self else { return };
        records.retain(|record| !matches!(record, Record::BackupAbandoned { .. }));
        let given_up: Vec<Record> = records.iter().filter_map(|record| state.given_up_with(record)).collect();
        records.extend(given_up);
    }

    /// Its records, as of now.
    pub(super) fn records(&self) -> Vec<Record> {
        match self {
            Pending::Report(_, report) => vec![Record::Commit(Commit {
                backup: report.assignment.backup,
                objects: report.objects.clone(),
                segments: report.segments.clone(),
                removed: Vec::new(),
                progress: vec![Stretch {
                    volume: report.assignment.volume.volume,
                    from: report.from,
                    to: report.to,
                }],
                totals: report.totals,
                newest_secs: report.newest_secs,
            })],
            Pending::Merge(_, order, added) => vec![merges::record(order, added.clone())],
            Pending::Begin { records, .. }
            | Pending::Stop { records, .. }
            | Pending::Submit(_, records)
            | Pending::Expire(records)
            | Pending::Collect(records) => records.clone(),
            Pending::Own(record) => vec![record.clone()],
            Pending::End { backup, wall_ns, guard, .. } => {
                let end = Record::BackupEnded(BackupEnd { backup: *backup, wall_end_ns: *wall_ns });
                std::iter::once(end).chain(guard.map(Record::PointGuarded)).collect()
            }
        }
    }
}

impl Coordinator {
    /// A policy has another name: what goes on of it goes on.
    pub(super) fn policy_renamed(&mut self, from: &str, to: &str) {
        if let Some(job) = self.jobs.remove(from) {
            self.jobs.insert(to.to_owned(), job);
        }
        self.queue.iter_mut().for_each(|pending| pending.rename(from, to));
    }
}

/// Whether a change of a policy is what the state says of it already.
pub(super) fn is_held(state: &State, record: &Record) -> bool {
    let is = |name: &str, revision, removed| {
        state.policies.get(name).filter(|policy| (policy.revision, policy.removed) == (revision, removed))
    };
    match record {
        Record::PolicyChanged(change) => is(&change.name, change.revision, false).is_some_and(|policy| {
            *policy.body == *change.body && policy.volumes.iter().eq(change.volumes.iter().map(|(id, _)| id))
        }),
        Record::PolicyRemoved { name, revision } => is(name, *revision, true).is_some(),
        Record::PolicyRenamed { from, to, revision } => {
            !state.policies.contains_key(from)
                && state.policies.get(to).is_some_and(|policy| policy.revision >= *revision)
        }
        Record::Access(AccessNews::By { .. }) => true,
        Record::Access(AccessNews::Roles { subject, grants }) => {
            state.access.roles.get(subject).map_or(&[][..], Vec::as_slice) == grants
        }
        Record::PointGuarded(news) => match news.part {
            GuardPart::Guard(guard) => {
                state.guard_of(news.backup).is_some_and(|before| before.or_longer(guard) == before)
            }
            GuardPart::Leave { .. } => {
                news.backup <= state.last_backup
                    && (!state.points.contains_key(&news.backup) || state.leaving(news.backup).is_some())
            }
            GuardPart::Undo => {
                state.points.contains_key(&news.backup) && state.leaving(news.backup).is_none()
            }
        },
        Record::PointMarked(news) => {
            let before = state.marks.get(&news.backup).cloned().unwrap_or_default();
            let mut after = before.clone();
            after.change(&news.part);
            state.points.contains_key(&news.backup) && before == after
        }
        Record::PointExpired { backup } => *backup <= state.last_backup && !state.points.contains_key(backup),
        _ => false,
    }
}

/// What may come from the outside.
pub(super) fn may_be_submitted(record: &Record) -> bool {
    if let Record::Removal(RemovalNews::Asked(asked)) = record {
        return asked.records.iter().all(may_be_submitted);
    }
    matches!(
        record,
        Record::PolicyChanged(_)
            | Record::PolicyRemoved { .. }
            | Record::Damage(_)
            | Record::Swept(_)
            | Record::PointExpired { .. }
            | Record::LeaseSet { .. }
            | Record::PointMarked(_)
            | Record::PointGuarded(_)
            | Record::PolicyRenamed { .. }
            | Record::Access(AccessNews::Roles { .. })
            | Record::Removal(_)
            | Record::Pin { .. }
            | Record::PinRefreshed { .. }
            | Record::Unpin { .. }
            | Record::Garbage(
                GarbageNews::Wanted(_) | GarbageNews::WantedWith(..) | GarbageNews::Settings(_),
            )
    )
}
