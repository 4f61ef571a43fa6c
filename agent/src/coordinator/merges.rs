//! Merges of segments: what is next, who does it, and what becomes of it. Source: ours.
//!
//! | event | what follows |
//! |---|---|
//! | a volume's tables are out of order, and a node has nothing else to do | the order goes to that node |
//! | segments that take the place of others are in the store | committed: all of the others leave the tables with the same record, then accepted |
//! | one of the others is not in the tables any more | refused by the log; the worker drops what it made |
//! | node gone for two beats, or twice silent about it | forgotten; planned anew |
//! | a node cannot, or it was in vain | planned anew, [`TRIES_MAX`] times for a volume |
//!
//! An order is not durable and need not be: the next coordinator plans anew, and what a worker made under the coordinator before
//! counts if all that it replaces is still there.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Coordinator, Now, Pending};
use crate::backplane::message::Message;
use crate::format::record::{Commit, Record};
use crate::id::{Epoch, NodeId, VolumeId};
use crate::log::limits::RETIRED_MAX;
use crate::log::state::{Refusal, State};
use crate::table::plan::{self, Bounds, GROUP_MAX};
use crate::table::segment::SegmentMeta;
use crate::work::{AssignmentId, MergeOrder};

/// Failures after which a volume's segments are left as they are, for this epoch.
const TRIES_MAX: u32 = 3;
/// Times that a node may not say that it merges: one such message may have crossed the order.
const MISSES_MAX: u8 = 2;
/// Retired names up to which more may be retired by merges: backups that are given up need room too.
pub const RETIRED_BY_MERGES_MAX: usize = RETIRED_MAX / 2;
/// Retired names from which on there is a warning: half of what merges may retire.
pub const RETIRED_WARN_MIN: usize = RETIRED_BY_MERGES_MAX / 2;
/// Retired names of epochs that are over, from which on a floor is raised: two or three large backups, so that small ones write no record
/// for it.
pub const RETIRED_FLOOR_MIN: usize = 1024;

/// Whether a merge may retire as many names as it takes.
pub(super) fn has_room(state: &State) -> bool {
    state.retired.len() + GROUP_MAX <= RETIRED_BY_MERGES_MAX
}

/// The next merge of a volume, `id` left open; `None` when its tables are in order, or too much waits to be deleted.
pub fn next(state: &State, volume: VolumeId, bounds: Bounds) -> Option<MergeOrder> {
    if !has_room(state) {
        return None;
    }
    let is_running = |backup| state.running.contains_key(&backup);
    let segments = plan::pick(state.segments.get(&volume)?, bounds, &is_running)?;
    Some(MergeOrder { id: AssignmentId::default(), volume, segments })
}

/// The orphan floor that makes room for further merges; `None` when fewer than `least` names are to be forgotten, or it must wait.
/// `nothing_older`: no node can report a name of an epoch before this one any more.
///
/// From then on no name of an epoch before this one may enter the tables (G2). The holder of the lease has names given of its
/// own epoch only. A worker of a coordinator before it could still report older ones, but reports count for backups that have begun and not
/// ended only, and while there is one the floor stays, unless its coordinator knows better; a merge of such a worker is refused, and what it
/// made dropped.
pub fn floor(state: &State, least: usize, nothing_older: bool) -> Option<Record> {
    let epoch = Epoch(state.epoch.0.checked_sub(1)?);
    let old = state.deletable().filter(|id| id.epoch <= epoch).count();
    let may = (nothing_older || state.running.is_empty()) && epoch > state.orphan_floor;
    (may && old >= least).then_some(Record::OrphanFloor { epoch })
}

/// What makes a merge count: all that went in leaves the tables as what came out enters them.
pub fn record(order: &MergeOrder, added: Vec<SegmentMeta>) -> Record {
    Record::Commit(Commit { segments: added, removed: order.segments.clone(), ..Commit::default() })
}

/// An order that is out.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Out {
    id: AssignmentId,
    volume: VolumeId,
    misses: u8,
}

/// Orders that are out, one for a node and one for a volume, and what was looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Merges {
    out: BTreeMap<NodeId, Out>,
    failures: BTreeMap<VolumeId, u32>,
    /// Lists that are in order, as long as no backup begins or ends.
    in_order: BTreeMap<VolumeId, Arc<Vec<SegmentMeta>>>,
    /// Once for each coordinator.
    has_warned: bool,
}

impl Merges {
    pub(super) fn len(&self) -> usize {
        self.out.len()
    }

    pub(super) fn has(&self, node: NodeId) -> bool {
        self.out.contains_key(&node)
    }

    /// Those with a merge.
    pub(super) fn nodes(&self) -> impl Iterator<Item = NodeId> {
        self.out.keys().copied()
    }

    fn has_volume(&self, volume: VolumeId) -> bool {
        self.out.values().any(|out| out.volume == volume)
    }

    fn take(&mut self, node: NodeId, id: AssignmentId) -> Option<Out> {
        self.out.get(&node).is_some_and(|out| out.id == id).then(|| self.out.remove(&node)).flatten()
    }

    /// What a node says that it merges.
    pub(super) fn present(&mut self, node: NodeId, merging: Option<AssignmentId>) {
        let Some(out) = self.out.get_mut(&node) else { return };
        out.misses = if merging == Some(out.id) { 0 } else { out.misses.saturating_add(1) };
        if out.misses >= MISSES_MAX {
            self.out.remove(&node);
        }
    }

    /// Nodes that are gone have nothing any more.
    pub(super) fn forget(&mut self, is_gone: impl Fn(NodeId) -> bool) {
        self.out.retain(|&node, _| !is_gone(node));
    }

    /// A backup has begun, was given up, or has ended: what may be merged with what is another question now.
    pub(super) fn backups_changed(&mut self) {
        self.in_order.clear();
    }

    /// Whether no merge of a volume is out, and not too many have failed.
    pub(super) fn may_try(&self, volume: VolumeId) -> bool {
        !self.has_volume(volume) && self.failures.get(&volume).copied().unwrap_or(0) < TRIES_MAX
    }

    /// The next merge of a volume that no node works on.
    pub(super) fn plan(&mut self, state: &State, volume: VolumeId, bounds: Bounds) -> Option<MergeOrder> {
        let list = state.segments.get(&volume)?;
        let same = |seen: &Arc<Vec<SegmentMeta>>| Arc::ptr_eq(seen, list);
        let tried = self.failures.get(&volume).copied().unwrap_or(0);
        if self.has_volume(volume) || tried >= TRIES_MAX || self.in_order.get(&volume).is_some_and(same) {
            return None;
        }
        // That there is no room says nothing of the tables.
        if !has_room(state) {
            return None;
        }
        let order = next(state, volume, bounds);
        if order.is_none() {
            self.in_order.insert(volume, Arc::clone(list));
        }
        order
    }
}

impl Coordinator {
    /// Says once when there is little room for further merges, and nothing that this coordinator can do makes more.
    pub(super) fn warn_of_retired(&mut self, now: Now<'_>) {
        let retired = now.state.retired.len();
        if retired < RETIRED_WARN_MIN || self.merges.has_warned {
            return;
        }
        self.merges.has_warned = true;
        let what = format!(
            "the log keeps {retired} retired names; from {RETIRED_BY_MERGES_MAX} on (RETIRED_BY_MERGES_MAX) \
             tables are not merged any more. They go when all nodes work under one epoch or no backup is under way, \
             and no reader holds them: end, or remove, what never ends"
        );
        log::warn!("log: {what}");
        self.errors.add(now.wall_ns, None, what);
    }

    /// Gives merges to nodes that have nothing else to do.
    pub(super) fn turn_merges(&mut self, now: Now<'_>) {
        if self.garbage.is_moving() {
            return;
        }
        // A node may still be at what the coordinator before has ordered.
        let merges = |node: &NodeId| {
            let present = self.roster.get(*node).and_then(|node| node.present.as_ref());
            present.is_some_and(|present| present.merging.is_some())
        };
        let is_free = |node: &NodeId| self.held(*node) == 0 && !merges(node);
        let mut free: Vec<NodeId> = self.roster.workers().filter(is_free).collect();
        let pending = self.pending();
        let ended: Vec<VolumeId> = pending
            .filter_map(|pending| match pending {
                Pending::Merge(_, order, _) => Some(order.volume),
                _ => None,
            })
            .collect();
        for &volume in now.state.segments.keys() {
            let Some(&node) = free.last() else { return };
            if ended.contains(&volume) {
                continue;
            }
            let planned = self.merges.plan(now.state, volume, self.settings.merges);
            let purges = planned.is_none() && self.merges.may_try(volume);
            let planned = planned.or_else(|| purges.then(|| self.garbage.purge(now.state, volume)).flatten());
            if let Some(mut order) = planned {
                free.pop();
                order.id = self.next_id();
                self.merges.out.insert(node, Out { id: order.id, volume, misses: 0 });
                self.send(node, Message::Merge(order));
            }
        }
    }

    /// A worker has merged, under this coordinator or the one before.
    pub(super) fn merged(&mut self, from: NodeId, order: MergeOrder, added: Vec<SegmentMeta>) {
        let twice = |p: &Pending| matches!(p, Pending::Merge(_, known, _) if known.id == order.id);
        if self.queue.len() < self.settings.room.queue && !self.pending().any(twice) {
            self.queue.push_back(Pending::Merge(from, order, added));
        }
    }

    pub(super) fn merge_committed(&mut self, node: NodeId, order: &MergeOrder) {
        self.merges.take(node, order.id);
        self.roster.merged(node, order.id);
        self.merges.failures.remove(&order.volume);
        self.send(node, Message::Accepted { id: order.id, sequence: 0 });
    }

    /// Another merge was first, or the backup was given up. Or it came twice.
    pub(super) fn merge_refused(&mut self, now: Now<'_>, node: NodeId, order: &MergeOrder, why: Refusal) {
        if self.merges.take(node, order.id).is_some() {
            self.merge_was_in_vain(now, node, order.volume, &why.to_string());
        }
        self.send(node, Message::Revoke { id: order.id });
    }

    /// Whether it was a merge that failed.
    pub(super) fn merge_failed(&mut self, now: Now<'_>, from: NodeId, id: AssignmentId, what: &str) -> bool {
        let Some(out) = self.merges.take(from, id) else { return false };
        self.merge_was_in_vain(now, from, out.volume, what);
        true
    }

    fn merge_was_in_vain(&mut self, now: Now<'_>, node: NodeId, volume: VolumeId, what: &str) {
        *self.merges.failures.entry(volume).or_default() += 1;
        self.garbage.purge_failed(volume);
        self.errors.add(
            now.wall_ns,
            Some(node),
            format!("tables of volume {volume} were not merged: {what}"),
        );
    }
}
