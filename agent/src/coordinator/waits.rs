//! Backups that wait for volumes that none of the nodes that are up can open, and clients that do not wait any more. Source: ours.

use std::collections::BTreeMap;

use super::jobs::{Job, Phase, RELOOK_NS};
use super::{Asker, Coordinator, Now, Pending};
use crate::format::record::BackupVolume;
use crate::id::BackupId;
use crate::log::state::State;

impl Coordinator {
    /// A client does not wait for its command any more: what has not begun, and no other client asked for, is not done.
    pub fn client_left(&mut self, now: Now<'_>, asker: Asker) {
        self.queue.retain(|pending| !matches!(pending, Pending::Submit(of, _) if *of == asker));
        self.leave_queue(now, asker);
        self.wake_ns = Some(now.ns);
    }

    /// A client that waits for the begin of a backup does so no more. What no other asked for, and is not in the log, does not begin.
    pub(super) fn leave_queue(&mut self, now: Now<'_>, asker: Asker) {
        let mut left = Vec::new();
        let begins = |pending: &Pending, name: &str| matches!(pending, Pending::Begin { policy, .. } if policy == name);
        for (policy, job) in &mut self.jobs {
            let before = job.askers.len();
            job.askers.retain(|of| *of != asker);
            let has_begun = now.state.running_of(policy).is_some()
                || match job.phase {
                    Phase::Queued | Phase::Probing { .. } => false,
                    Phase::Beginning { .. } => self.in_flight.iter().any(|pending| begins(pending, policy)),
                    Phase::Running { .. } | Phase::Ending { .. } | Phase::Stopped => true,
                };
            if job.askers.len() < before && job.askers.is_empty() && job.is_asked_for && !has_begun {
                left.push(policy.clone());
            }
        }
        for policy in left {
            log::info!(
                "backup: not begun policy={policy} reason=\"who asked for it does not wait any more\""
            );
            self.queue.retain(|pending| !begins(pending, &policy));
            self.jobs.remove(&policy);
        }
    }

    /// A backup that no node works on, because no node could open what is left of it for a while, goes to the end of the queue.
    pub(super) fn make_way(&mut self, now: Now<'_>) -> bool {
        let waits = |job: &Job| job.relook_ns <= now.ns && self.waits_for_volumes(now.state, job);
        let waiting = self.jobs.iter().filter(|(_, job)| waits(job));
        let first = waiting.min_by_key(|(_, job)| job.place).map(|(policy, _)| policy.clone());
        let Some(first) = first else { return false };
        let place = self.next_place(now.state, &first);
        let Some(job) = self.jobs.get_mut(&first) else { return false };
        (job.phase, job.place) = (Phase::Queued, place);
        true
    }

    /// Whether all that is left of a backup is on volumes that no node could open.
    fn waits_for_volumes(&self, state: &State, job: &Job) -> bool {
        let Phase::Running { backup, found } = &job.phase else { return false };
        let Some(running) = state.running.get(backup) else { return false };
        let is_done = |volume: &BackupVolume| running.done.is_whole(volume.volume);
        let mut left = running.volumes.iter().filter(|volume| !is_done(volume)).peekable();
        let is_out = self.assigned.values().any(|a| a.assignment.backup == *backup);
        !is_out && left.peek().is_some() && left.all(|volume| !found.contains_key(&volume.volume))
    }

    /// Whether a backup makes way for another one of its policy, when that is wanted: all that is left of it is on volumes that no node
    /// could open, and they were looked at again.
    pub(super) fn makes_way(&self, now: Now<'_>, job: &Job) -> bool {
        let waited = job.without_since_ns.is_some_and(|since| since.saturating_add(RELOOK_NS) <= now.ns);
        waited && self.waits_for_volumes(now.state, job)
    }

    /// Whether nothing goes on (no garbage run, no merge) but waits for volumes that none of the nodes that are up can open, and nothing that is due would be begun
    /// without them: that is so at the end of a turn.
    pub(super) fn only_waits(&self, now: Now<'_>) -> bool {
        let mut active = self.jobs.values().filter(|job| !job.is_stopped()).peekable();
        active.peek().is_some()
            && active.all(|job| self.makes_way(now, job))
            && self.merges.len() == 0
            && self.queue.is_empty()
            && self.in_flight.is_empty()
            && self.flush.is_none()
            && !self.garbage.is_at_work()
    }

    /// For what a backup of `job` waits, and when it is looked at again.
    pub(super) fn waits_text(&self, now: Now<'_>, job: &Job) -> Option<String> {
        let left_s = job.relook_ns.saturating_sub(now.ns).div_ceil(1_000_000_000);
        let waits = job.without_since_ns.is_some() && matches!(job.phase, Phase::Running { .. });
        waits.then(|| format!("waits, and is looked at again in {left_s} s: {}", job.without_why))
    }

    /// Backups that wait for volumes that none of the nodes that are up can open, and what those said.
    pub fn waiting(&self) -> BTreeMap<BackupId, String> {
        let waits = self.jobs.values().filter(|job| job.without_since_ns.is_some());
        waits.filter_map(|job| Some((job.backup()?, job.without_why.clone()))).collect()
    }
}
