//! Assignments: who works on what, what becomes of reports, and when a stretch is handed out again. Source: ours.
//!
//! | event | what follows |
//! |---|---|
//! | report of a stretch that is free | committed, then accepted; when it is an assignment's last, the node has room for another at once |
//! | report of a stretch that is done | accepted at once when the tables name its objects (it came twice); else revoked (C4) |
//! | node gone for two beats, or twice silent about an assignment | the stretch is free again |
//! | worker says that it cannot | the node is passed over for that volume for a while |
//! | no report and no byte sent for [`SLOW_NS`] while another node could | revoked and handed to the other |
//! | a node has nothing to do, and another has a stretch that it has not begun | that is revoked and handed to the first |

use std::collections::BTreeSet;

use super::{Coordinator, NODE_ASSIGNMENTS_MAX, Now, Pending, share};
use crate::backplane::message::Message;
use crate::id::Key;
use crate::id::{BackupId, NodeId, VolumeId};
use crate::log::state::{Refusal, State};
use crate::work::{Assignment, AssignmentId, Present, Report};

/// Assignments that a node has at once: the one that it works on, and the next, so that it never waits.
const HELD_TARGET: usize = 2;
/// Time without a report, or a byte that went to the store, after which an assignment is given to another node that has nothing to do, in nanoseconds: many times the
/// interval at which a worker reports.
const SLOW_NS: u64 = 180_000_000_000;
/// Times that a node may leave an assignment out of what it holds: one such message may have crossed the assignment.
const MISSES_MAX: u8 = 2;

/// Assignments that a node has at most, those among them that wait for the commit of their last report: the worker has places for two more,
/// which it may still be giving up.
const HELD_MAX: usize = NODE_ASSIGNMENTS_MAX - HELD_TARGET;

const _: () = assert!(HELD_TARGET <= HELD_MAX);

/// An assignment that is out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Assigned {
    pub node: NodeId,
    pub assignment: Assignment,
    /// Accepted up to here.
    pub done: Key,
    /// Its last report is here, and waits for its commit: the worker is at something else.
    pub reported: bool,
    /// Last sign of progress, boot time in nanoseconds.
    pub last_ns: u64,
    misses: u8,
}

impl Assigned {
    fn new(now: Now<'_>, node: NodeId, assignment: Assignment, done: Key) -> Assigned {
        Assigned { node, assignment, done, reported: false, last_ns: now.ns, misses: 0 }
    }
}

/// Whether the tables name all that a report does.
fn is_named(state: &State, report: &Report) -> bool {
    let mut objects = report.objects.iter().map(|(id, _)| id);
    // Segments may have been merged since.
    let mut segments = report.segments.iter().map(|segment| &segment.id);
    objects.all(|id| state.live.contains(id))
        && segments.all(|id| state.live.contains(id) || state.retired.contains_key(id))
}

impl Coordinator {
    /// Stretches of a volume that are out or wait for their commit.
    pub(super) fn taken(&self, now: Now<'_>, backup: BackupId, volume: VolumeId) -> Vec<(Key, Key)> {
        let done = now.state.running.get(&backup).map(|running| running.done.of(volume)).unwrap_or_default();
        let of = |a: &&Assigned| a.assignment.backup == backup && a.assignment.volume.volume == volume;
        let out = self.assigned.values().filter(of).map(|a| (a.assignment.from, a.assignment.to));
        let waiting = self.pending().filter_map(|pending| match pending {
            Pending::Report(_, report) => {
                let a = &report.assignment;
                (a.backup == backup && a.volume.volume == volume).then_some((report.from, report.to))
            }
            _ => None,
        });
        done.iter().map(|done| (done.from, done.to)).chain(out).chain(waiting).collect()
    }

    /// How many assignments a node has to work on.
    pub(super) fn held(&self, node: NodeId) -> usize {
        let works = |a: &&Assigned| a.node == node && !a.reported;
        self.assigned.values().filter(works).count() + usize::from(self.merges.has(node))
    }

    /// How many it has, those among them that wait for the commit of their last report.
    pub(super) fn held_or_reported(&self, node: NodeId) -> usize {
        self.assigned.values().filter(|a| a.node == node).count() + usize::from(self.merges.has(node))
    }

    /// Nodes that [`Coordinator::held`] is not 0 of.
    pub(super) fn at_work(&self) -> BTreeSet<NodeId> {
        let assigned = self.assigned.values().filter(|a| !a.reported).map(|a| a.node);
        assigned.chain(self.merges.nodes()).collect()
    }

    /// Whether a node could take one more.
    pub(super) fn has_room(&self, node: NodeId) -> bool {
        self.held(node) < HELD_TARGET && self.held_or_reported(node) < HELD_MAX
    }

    pub(super) fn next_id(&mut self) -> AssignmentId {
        self.next_number = self.next_number.saturating_add(1);
        AssignmentId { epoch: self.epoch, number: self.next_number }
    }

    /// Hands a stretch out.
    pub(super) fn assign(&mut self, now: Now<'_>, node: NodeId, mut assignment: Assignment) {
        assignment.id = self.next_id();
        let assigned = Assigned::new(now, node, assignment, assignment.from);
        self.assigned.insert(assignment.id, assigned);
        self.send(node, Message::Assign(assignment));
    }

    /// A node says what it is and has: what it holds from an earlier coordinator is adopted when no other node has it.
    pub(super) fn present(&mut self, now: Now<'_>, from: NodeId, present: Present) {
        for assigned in self.assigned.values_mut().filter(|a| a.node == from) {
            let held = present.held.iter().any(|(held, _)| held.id == assigned.assignment.id);
            assigned.misses = if held { 0 } else { assigned.misses.saturating_add(1) };
        }
        self.assigned.retain(|_, a| a.node != from || a.misses < MISSES_MAX);
        for (held, reported) in &present.held {
            if self.assigned.get(&held.id).is_none_or(|known| known.node != from) {
                self.adopt(now, from, *held, *reported);
            }
        }
        self.merges.present(from, present.merging);
        let before = self.roster.get(from).and_then(|node| node.present.as_ref());
        if before.is_some_and(|before| before.boot == present.boot && before.uploaded < present.uploaded) {
            // Its reports are far apart when its uplink is slow.
            self.assigned.values_mut().filter(|a| a.node == from).for_each(|a| a.last_ns = now.ns);
        }
        let is_new = self.roster.get(from).is_some_and(|node| node.present.is_none());
        self.roster.set_present(now.ns, from, present);
        if is_new {
            self.revive(now);
        }
    }

    fn adopt(&mut self, now: Now<'_>, node: NodeId, held: Assignment, reported: Key) {
        let running = now.state.running.get(&held.backup);
        let is_ours =
            running.is_some_and(|running| !running.is_stopped && running.volumes.contains(&held.volume));
        let from = held.from.max(reported);
        // Its last report may have been committed without its being told: the report comes again, and says whose work that is.
        let done = running.map(|running| running.done.of(held.volume.volume)).unwrap_or_default();
        let covering = done.iter().find(|done| done.from <= from && from < done.to);
        let left = (covering.map_or(from, |done| done.to), held.to);
        let taken = self.taken(now, held.backup, held.volume.volume);
        let is_free = !taken.iter().any(|&other| share::overlap(left, other));
        if is_ours && left.0 < left.1 && is_free {
            let assigned = Assigned::new(now, node, held, left.0);
            self.assigned.insert(held.id, assigned);
        } else if left.0 < left.1 && !self.has_report_of(held.id) {
            self.send(node, Message::Revoke { id: held.id });
        }
    }

    fn has_report_of(&self, id: AssignmentId) -> bool {
        let of = |p: &Pending| matches!(p, Pending::Report(_, report) if report.assignment.id == id);
        self.pending().any(of)
    }

    /// A worker has something in the store.
    pub(super) fn report(&mut self, now: Now<'_>, from: NodeId, report: Report) {
        let (assignment, id) = (report.assignment, report.assignment.id);
        let twice = |p: &Pending| matches!(p, Pending::Report(_, r) if r.assignment.id == id && r.sequence == report.sequence);
        if self.pending().any(twice) || self.queue.len() >= self.settings.room.queue {
            return;
        }
        let Some(running) = now.state.running.get(&assignment.backup) else {
            return self.revoke(from, id);
        };
        let volume = assignment.volume.volume;
        let done = running.done.of(volume);
        let is_done = done.iter().any(|done| done.from <= report.from && report.to <= done.to);
        // Another's work there is no commit of these objects: the worker's later rows would refer to what no table names.
        if is_done && (is_named(now.state, &report) || !self.settings.checks.named()) {
            self.send(from, Message::Accepted { id, sequence: report.sequence });
            return self.advance(now, from, &report);
        }
        let free = !done.iter().any(|done| share::overlap((report.from, report.to), (done.from, done.to)));
        let in_order = report.from < report.to && report.to <= assignment.to;
        if !free || !in_order || !running.volumes.contains(&assignment.volume) {
            return self.revoke(from, id);
        }
        if !self.settings.checks.commit_first() {
            self.send(from, Message::Accepted { id, sequence: report.sequence });
        }
        if let Some(assigned) = self.assigned.get_mut(&id) {
            assigned.reported = report.to == assigned.assignment.to;
        }
        self.queue.push_back(Pending::Report(from, report));
    }

    pub(super) fn report_committed(&mut self, now: Now<'_>, node: NodeId, report: &Report) {
        self.send(node, Message::Accepted { id: report.assignment.id, sequence: report.sequence });
        self.advance(now, node, report);
        self.show_troubles(now, node, report);
    }

    /// What was read with something missing, by its volume's name as people know it.
    fn show_troubles(&mut self, now: Now<'_>, node: NodeId, report: &Report) {
        let id = report.assignment.volume.volume;
        let volume = now.state.volumes.get(&id).map_or_else(|| id.to_string(), |known| known.device.clone());
        let running = now.state.running.get(&report.assignment.backup);
        let policy = running.map_or("", |running| running.policy.as_str());
        for (inode, what) in &report.troubles {
            let what = format!("volume {volume} inode {inode}: {what}");
            self.errors.add_of(policy, now.wall_ns, Some(node), what);
        }
        let more = report.totals.faults.saturating_sub(report.troubles.len() as u64);
        if more > 0 && !report.troubles.is_empty() {
            let what = format!("volume {volume}: {more} more items are not whole; a restore names them");
            self.errors.add_of(policy, now.wall_ns, Some(node), what);
        }
    }

    pub(super) fn report_refused(&mut self, now: Now<'_>, node: NodeId, report: &Report, why: Refusal) {
        let what = format!("a report of backup {} was refused: {why}", report.assignment.backup);
        self.errors.add(now.wall_ns, Some(node), what);
        self.revoke(node, report.assignment.id);
        if matches!(why, Refusal::Full(_)) {
            // It would be uploaded again and again.
            self.stop_full(now, report.assignment.backup);
        }
    }

    /// Moves an assignment's mark; it is gone when all of it is done. Others whose stretch this was are revoked.
    fn advance(&mut self, now: Now<'_>, node: NodeId, report: &Report) {
        let id = report.assignment.id;
        if let Some(assigned) = self.assigned.get_mut(&id) {
            assigned.done = assigned.done.max(report.to);
            assigned.last_ns = now.ns;
            if report.to == assigned.assignment.to {
                self.assigned.remove(&id);
            }
        }
        let volume = report.assignment.volume.volume;
        let lost = |a: &Assigned| {
            let same =
                a.assignment.backup == report.assignment.backup && a.assignment.volume.volume == volume;
            same && (a.assignment.id, a.node) != (id, node)
                && share::overlap((a.done, a.assignment.to), (report.from, report.to))
        };
        let lost: Vec<_> =
            self.assigned.values().filter(|a| lost(a)).map(|a| (a.node, a.assignment.id)).collect();
        for (node, id) in lost {
            self.revoke(node, id);
        }
        self.job_advanced(report.assignment.backup);
    }

    /// Takes an assignment back, whether it is known or not.
    pub(super) fn revoke(&mut self, node: NodeId, id: AssignmentId) {
        if self.assigned.get(&id).is_some_and(|a| a.node == node) {
            self.assigned.remove(&id);
        }
        self.send(node, Message::Revoke { id });
    }

    /// A worker could not do it.
    pub(super) fn failed(&mut self, now: Now<'_>, from: NodeId, id: AssignmentId, what: &str) {
        if self.merge_failed(now, from, id, what) {
            return;
        }
        if self.assigned.get(&id).is_none_or(|a| a.node != from) {
            return;
        }
        let Some(assigned) = self.assigned.remove(&id) else { return };
        let assignment = assigned.assignment;
        match now.state.running.get(&assignment.backup) {
            Some(running) => {
                self.errors.add_of(&running.policy, now.wall_ns, Some(from), what.to_owned());
            }
            None => self.errors.add(now.wall_ns, Some(from), what.to_owned()),
        }
        self.job_failed(now, assignment.backup, assignment.volume.volume, from, what);
    }

    /// Frees what gone nodes had, and what a slow node has while another could do it.
    pub(super) fn look_after_nodes(&mut self, now: Now<'_>) {
        let grace = 2 * self.settings.beat_ns;
        let mut lost = Vec::new();
        let mut wake: Option<u64> = None;
        for assigned in self.assigned.values() {
            let (node, assignment) = (self.roster.get(assigned.node), &assigned.assignment);
            let due = match node {
                Some(node) if node.up => assigned.last_ns.saturating_add(SLOW_NS),
                Some(node) => node.since_ns.saturating_add(grace),
                None => now.ns,
            };
            let up = node.is_some_and(|node| node.up);
            if due > now.ns {
                wake = Some(wake.map_or(due, |wake| wake.min(due)));
            } else if !up || self.is_wanted_elsewhere(now, assigned) {
                lost.push((assigned.node, assignment.id));
            }
        }
        for (node, id) in lost {
            self.revoke(node, id);
        }
        if let Some((node, id)) = self.queued_elsewhere(now) {
            self.revoke(node, id);
        }
        let gone =
            |node| self.roster.get(node).is_none_or(|n| !n.up && n.since_ns.saturating_add(grace) <= now.ns);
        self.merges.forget(gone);
        if let Some(wake) = wake {
            self.wake_at(wake);
        }
    }

    /// A stretch that its node has not begun, while another node could read it and has nothing: it is what is left at the end.
    fn queued_elsewhere(&self, now: Now<'_>) -> Option<(NodeId, AssignmentId)> {
        if self.assigned.len() < 2 || now.ns < self.adopt_until_ns {
            return None;
        }
        let works: Vec<&Assigned> = self.assigned.values().filter(|a| !a.reported).collect();
        let is_queued = |a: &&&Assigned| {
            let earlier = |b: &&&Assigned| b.node == a.node && b.assignment.id < a.assignment.id;
            a.done == a.assignment.from && works.iter().any(|b| earlier(&b))
        };
        let queued = works.iter().filter(is_queued).find(|a| self.has_idle_reader(now, a))?;
        Some((queued.node, queued.assignment.id))
    }

    /// Whether a node without work could do it, and finds nothing else to do.
    fn has_idle_reader(&self, now: Now<'_>, assigned: &Assigned) -> bool {
        let (backup, volume) = (assigned.assignment.backup, assigned.assignment.volume.volume);
        let all_out = share::gaps(&mut self.taken(now, backup, volume)).is_empty();
        let device = now.state.volumes.get(&volume).map_or("", |volume| volume.device.as_str());
        let is_idle = |&node: &NodeId| {
            node != assigned.node
                && self.held(node) == 0
                && self.has_room(node)
                && self.takes(now, node, backup, volume)
        };
        all_out && self.roster.readers(device).any(|node| is_idle(&node))
    }

    fn is_wanted_elsewhere(&self, now: Now<'_>, assigned: &Assigned) -> bool {
        let volume = assigned.assignment.volume.volume;
        let Some(volume) = now.state.volumes.get(&volume) else { return false };
        self.roster.readers(&volume.device).any(|node| node != assigned.node && self.held(node) == 0)
    }
}

#[cfg(test)]
#[path = "assign_test.rs"]
mod tests;
