//! Backups that are stopped, and that go on when they are asked for.
//!
//! | stopped by | the log says so | goes on when |
//! |---|---|---|
//! | a command, a bound of the log, [`FAILURES_MAX`](super::jobs) failures | yes | a command or its schedule asks for it; one that failed also when a node comes |
//! | volumes that could not be looked at, a refused end | no | the same, and when another node coordinates |
//!
//! Invariants: who stops a backup is answered when the log has it, so the next coordinator does not go on with it; who asks for it again is
//! answered when the log has that. A node that is there for one backup alone writes no stop into the log.
//! Source: ours; record kind 8 of `format::record`.

use std::collections::BTreeMap;

use super::jobs::{Job, Phase};
use super::{Asker, Coordinator, Now, Pending};
use crate::format::record::Record;
use crate::id::{BackupId, VolumeId};
use crate::work::{Found, Reply};

impl Coordinator {
    /// Stops a backup; what is committed stays, and starting it again goes on there.
    pub(super) fn stop_backup(&mut self, now: Now<'_>, asker: Asker, policy: &str) {
        let Some(job) = self.jobs.get(policy).filter(|job| !job.is_stopped()) else {
            return self.reply(asker, Reply::Refused(format!("no backup of {policy} is running")));
        };
        let ends = |pending: &Pending| matches!(pending, Pending::End { policy: of, .. } if of == policy);
        if self.in_flight.iter().any(ends) {
            let what =
                format!("no backup of {policy} is running: all of it is stored, and it becomes a point");
            return self.reply(asker, Reply::Refused(what));
        }
        let backup = job.backup().or_else(|| Some(now.state.running_of(policy)?.0));
        let begins = |pending: &Pending| matches!(pending, Pending::Begin { policy: of, .. } if of == policy);
        self.queue.retain(|pending| !ends(pending) && !begins(pending));
        let why = format!("the backup of {policy} was stopped on request");
        for waiting in self.stop_job(policy, backup) {
            self.reply(waiting, Reply::Refused("the backup was stopped on request".to_owned()));
        }
        // What is due already is not begun again at once.
        let tried = self.note_try(now, policy, 0, why);
        self.push_stop(Some(asker), policy, backup, tried);
    }

    /// A bound of the log is reached: the backup stops until a command starts it again.
    pub(super) fn stop_full(&mut self, now: Now<'_>, backup: BackupId) {
        let of = self.jobs.iter().find(|(_, job)| job.backup() == Some(backup));
        let Some(policy) = of.map(|(policy, _)| policy.clone()) else {
            return self.revoke_all(Some(backup));
        };
        let what = format!(
            "backup {backup} of {policy} stopped; with room again, `windlass backup {policy}` goes on"
        );
        self.stop_failed(now, &policy, backup, &what);
        if let Some(job) = self.jobs.get_mut(&policy) {
            job.on_request = true;
        }
    }

    /// A backup stops by itself.
    pub(super) fn stop_failed(&mut self, now: Now<'_>, policy: &str, backup: BackupId, why: &str) {
        for waiting in self.stop_job(policy, Some(backup)) {
            self.reply(waiting, Reply::Refused(why.to_owned()));
        }
        if let Some(job) = self.jobs.get_mut(policy) {
            job.on_request = false;
        }
        // What is due already is not begun again at once.
        let tried = self.note_failed_try(now, policy, why);
        if self.settings.errand.is_some() {
            self.queue.push_back(Pending::Own(tried));
        } else {
            self.push_stop(None, policy, Some(backup), tried);
        }
    }

    /// Takes its work back; who waits for it to begin.
    fn stop_job(&mut self, policy: &str, backup: Option<BackupId>) -> Vec<Asker> {
        let waiting = self.jobs.get_mut(policy).map(|job| {
            (job.phase, job.on_request) = (Phase::Stopped, true);
            std::mem::take(&mut job.askers)
        });
        self.revoke_all(backup);
        waiting.unwrap_or_default()
    }

    fn push_stop(&mut self, asker: Option<Asker>, policy: &str, backup: Option<BackupId>, tried: Record) {
        let (policy, records) = (policy.to_owned(), vec![tried]);
        self.queue.push_back(Pending::Stop { asker, policy, backup, records });
    }

    /// The log has it: no node goes on with the backup.
    pub(super) fn stopped(&mut self, asker: Option<Asker>, policy: &str, backup: Option<BackupId>) {
        // It may have begun while that was on its way.
        self.revoke_all(backup);
        let number = backup.map_or_else(String::new, |backup| format!(" backup={backup}"));
        log::info!("backup: stopped policy={policy}{number}");
        asker.into_iter().for_each(|asker| self.reply(asker, Reply::Done(backup)));
    }

    /// A backup of the log goes on with what was found of its volumes; first the log is told, if it was stopped.
    pub(super) fn goes_on(
        &mut self,
        now: Now<'_>,
        policy: &str,
        mut job: Job,
        backup: BackupId,
        found: BTreeMap<VolumeId, Found>,
    ) -> Option<Job> {
        if now.state.running.get(&backup).is_some_and(|running| running.is_stopped) {
            let records = vec![Record::BackupStopped { backup, goes_on: true }];
            self.queue.push_back(Pending::Begin { policy: policy.to_owned(), backup, records });
            job.phase = Phase::Beginning { found };
            return Some(job);
        }
        for asker in std::mem::take(&mut job.askers) {
            self.reply(asker, Reply::Done(Some(backup)));
        }
        job.phase = Phase::Running { backup, found };
        self.turn_running(now, policy, job)
    }
}
