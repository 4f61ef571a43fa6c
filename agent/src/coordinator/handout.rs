//! Which node gets which stretch of a running backup next.
//!
//! The free node that holds least comes first, and for it the volume that the fewest nodes can read. Source: ours; `share` has the
//! arithmetic of cuts.

use std::collections::BTreeMap;

use super::jobs::{Job, Look, Phase, looks};
use super::roster::Node;
use super::{Assigned, Coordinator, Now, Pending, share};
use crate::format::record::BackupVolume;
use crate::id::{BackupId, NodeId, VolumeId};
use crate::log::state::Running;
use crate::work::{Assignment, AssignmentId, Found};

impl Coordinator {
    /// Hands out what is left; ends the backup when nothing is.
    pub(super) fn turn_running(&mut self, now: Now<'_>, policy: &str, mut job: Job) -> Option<Job> {
        let Phase::Running { backup, found } = &job.phase else { return Some(job) };
        let backup = *backup;
        let running = now.state.running.get(&backup)?;
        if running.volumes.iter().all(|v| running.done.is_whole(v.volume)) {
            let guard = super::expire::guard(now.state, policy, backup, now.wall_ns);
            let guard = guard.filter(|_| self.settings.checks.guard());
            let end = Pending::End { policy: policy.to_owned(), backup, wall_ns: now.wall_ns, guard };
            self.queue.push_back(end);
            job.phase = Phase::Ending { backup };
            return Some(job);
        }
        if now.ns < self.adopt_until_ns && !self.roster.is_complete() {
            self.wake_at(self.adopt_until_ns);
            return Some(job);
        }
        let is_left = |volume: &&BackupVolume| !running.done.is_whole(volume.volume);
        let is_unread = |volume: &BackupVolume| {
            !found.contains_key(&volume.volume) || self.has_lost_readers(now, backup, volume.volume)
        };
        if running.volumes.iter().filter(is_left).any(is_unread) {
            if now.ns >= job.relook_ns {
                job.begins_anew = job.wanted_again && self.makes_way(now, &job);
                let is_read = |volume| !self.has_lost_readers(now, backup, volume);
                let kept = |(&volume, look): (&VolumeId, &mut Look)| {
                    look.found = found.get(&volume).copied().filter(|_| is_read(volume));
                };
                let mut looks = looks(now.state, policy);
                looks.iter_mut().for_each(kept);
                job.phase = Phase::Probing { looks, since_ns: now.ns };
                self.wake_at(now.ns);
                return Some(job);
            }
            self.wake_at(job.relook_ns);
        }
        if self.is_paused() {
            return Some(job);
        }
        let mut stuck = None;
        while let Some((node, assignment)) =
            self.next_share(now, backup, running, found, &job.bars, &mut stuck)
        {
            self.assign(now, node, assignment);
        }
        if let Some(due) = job.bars.values().copied().filter(|&due| due > now.ns).min() {
            self.wake_at(due);
        }
        match stuck {
            // Nothing proves that a volume is still what it was, and no node worked on it all the time: it begins anew.
            Some(volume) if now.state.running.contains_key(&backup) => {
                let what =
                    format!("volume {volume} may have changed since the backup began: it has to begin anew");
                self.errors.add_of(policy, now.wall_ns, None, what);
                job.phase = Phase::Probing { looks: looks(now.state, policy), since_ns: now.ns };
                self.wake_at(now.ns);
            }
            _ => {}
        }
        Some(job)
    }

    /// Whether no node reads a volume any more, and none that is gone may come back to what it was at.
    pub(super) fn has_lost_readers(&self, now: Now<'_>, backup: BackupId, volume: VolumeId) -> bool {
        let of = |a: &Assigned| a.assignment.backup == backup && a.assignment.volume.volume == volume;
        let device = now.state.volumes.get(&volume).map_or("", |volume| volume.device.as_str());
        !self.assigned.values().any(of) && self.roster.readers(device).next().is_none()
    }

    /// Whether stretches of a volume are handed out to a node now.
    pub(super) fn takes(&self, now: Now<'_>, node: NodeId, backup: BackupId, volume: VolumeId) -> bool {
        let job = self.jobs.values().find(|job| job.backup() == Some(backup));
        let found = job.and_then(Job::found).is_some_and(|found| found.contains_key(&volume));
        let barred = job.and_then(|job| job.bars.get(&(node, volume))).is_some_and(|&due| due > now.ns);
        found && !barred && !self.is_paused()
    }

    /// The next share to hand out, to the node with the least to do. `stuck` is set to a volume that cannot be gone on with.
    pub(super) fn next_share(
        &self,
        now: Now<'_>,
        backup: BackupId,
        running: &Running,
        found: &BTreeMap<VolumeId, Found>,
        bars: &BTreeMap<(NodeId, VolumeId), u64>,
        stuck: &mut Option<VolumeId>,
    ) -> Option<(NodeId, Assignment)> {
        let mut best: Option<((usize, usize, NodeId), Assignment)> = None;
        for volume in &running.volumes {
            let mut taken = self.taken(now, backup, volume.volume);
            let gaps = share::gaps(&mut taken);
            let Some(found) = found.get(&volume.volume).filter(|_| !gaps.is_empty()) else { continue };
            if volume.state.is_none() && !taken.is_empty() {
                *stuck = Some(volume.volume);
                continue;
            }
            let device = now.state.volumes.get(&volume.volume).map_or("", |volume| volume.device.as_str());
            let barred = |node: &NodeId| bars.get(&(*node, volume.volume)).is_some_and(|&due| due > now.ns);
            let readers: Vec<NodeId> = self.roster.readers(device).filter(|node| !barred(node)).collect();
            let speed = |node: &NodeId| self.roster.get(*node).map_or(1, Node::speed);
            let speeds: u64 = readers.iter().map(speed).fold(0, u64::saturating_add);
            let Some(node) =
                readers.iter().filter(|&&node| self.has_room(node)).min_by_key(|&&n| (self.held(n), n))
            else {
                continue;
            };
            let part = if volume.state.is_some() { speed(node) } else { speeds };
            let Some((from, to)) = share::cut(&gaps, found, part, speeds) else { continue };
            // Volumes that few can read go first, so that no node is idle at the end while another has work that only it can do.
            let rank = (self.held(*node), readers.len(), *node);
            if best.as_ref().is_none_or(|(other, _)| rank < *other) {
                let assignment =
                    Assignment { id: AssignmentId::default(), backup, volume: *volume, from, to };
                best = Some((rank, assignment));
            }
        }
        best.map(|((_, _, node), assignment)| (node, assignment))
    }
}
