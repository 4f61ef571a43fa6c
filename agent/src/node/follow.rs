//! Who coordinates, as a node knows it from announcements, and when it should claim the lease itself. Source: ours.

use super::{Node, SILENT_BEATS};
use crate::format::slot::Sealer;
use crate::id::{Epoch, NodeId};

/// Longest pause between looks at a backup that none of the nodes that are up can go on with, in nanoseconds: five minutes. What kept one of them
/// from a volume may be over, and no node may come to say so. Each look is an epoch, and holds the lease for a minute or so. A node that
/// comes, or gets other volumes, ends the pause.
const LOOK_AGAIN_NS_MAX: u64 = 300_000_000_000;
/// The same of a node that sees none of its peers: an hour. They may have the volume, and be at it.
const LOOK_AGAIN_CUT_OFF_NS_MAX: u64 = 3_600_000_000_000;

/// What is known of the coordinator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Follow {
    /// Highest epoch seen, from anyone.
    pub epoch: Epoch,
    /// Who announced the highest epoch, and has not let it go.
    pub holder: Option<NodeId>,
    /// No claim before this time.
    pub away_until_ns: u64,
    /// Backups that run in the log are looked at again then: this node let go of them, because none of the nodes that are up can do them.
    pub again_ns: Option<u64>,
    /// How often it did that since a peer came.
    pub let_go: u32,
    /// The epoch under which this node has told the coordinator all that it holds.
    greeted: Option<(NodeId, Epoch)>,
    heard_ns: u64,
    /// When a node was known last to coordinate, for people.
    pub known_ns: u64,
    /// The lease was let go: no node needs to claim it without work.
    resting: bool,
    /// This node was asked to take it.
    asked: bool,
    /// Nodes that see the same silence claim one after the other: this node's place among them times a fraction of a beat.
    turn_ns: u64,
    beat_ns: u64,
}

impl Follow {
    pub(super) fn new(now_ns: u64, rank: u64, beat_ns: u64) -> Follow {
        Follow {
            epoch: Epoch(0),
            holder: None,
            away_until_ns: 0,
            again_ns: None,
            let_go: 0,
            greeted: None,
            heard_ns: now_ns,
            known_ns: now_ns,
            resting: false,
            asked: false,
            turn_ns: rank.saturating_mul(beat_ns / 8),
            beat_ns,
        }
    }

    pub(super) fn is_resting(&self) -> bool {
        self.resting
    }

    /// A connection broke. When it was the holder's, its silence has begun long ago: a broken connection is a quick sign of death.
    pub(super) fn disconnected(&mut self, now_ns: u64, node: NodeId) {
        if self.holder == Some(node) {
            let silence = (SILENT_BEATS - 1).saturating_mul(self.beat_ns);
            self.heard_ns = self.heard_ns.min(now_ns.saturating_sub(silence));
            self.known_ns = now_ns;
        }
        self.greeted = self.greeted.filter(|(holder, _)| *holder != node);
    }

    /// A peer has come: it may be able to do what was left.
    pub(super) fn connected(&mut self, now_ns: u64) {
        self.let_go = 0;
        self.again_ns = self.again_ns.map(|_| now_ns);
    }

    /// Nothing is left here but what only others can do. It is looked at again later and later: each look is an epoch.
    pub(super) fn leave_to_others(&mut self, now_ns: u64, first_ns: u64, is_cut_off: bool) {
        let most_ns = if is_cut_off { LOOK_AGAIN_CUT_OFF_NS_MAX } else { LOOK_AGAIN_NS_MAX };
        let pause = first_ns.saturating_mul(1 << self.let_go.min(16)).min(most_ns.max(first_ns));
        self.let_go = self.let_go.saturating_add(1);
        self.again_ns = Some(now_ns.saturating_add(pause));
    }

    /// A node says itself that it does not coordinate. Its silence began when it was heard last.
    pub(super) fn renounced(&mut self, node: NodeId) {
        self.holder = self.holder.filter(|holder| *holder != node);
        self.greeted = self.greeted.filter(|(holder, _)| *holder != node);
    }

    /// This node let the lease go.
    pub(super) fn rest(&mut self, now_ns: u64, successor: Option<NodeId>) {
        self.holder = None;
        (self.heard_ns, self.known_ns) = (now_ns, now_ns);
        self.resting = successor.is_none();
    }

    /// This node takes the lease next: at once.
    pub(super) fn take_next(&mut self) {
        (self.asked, self.away_until_ns) = (true, 0);
    }

    /// This node is not the coordinator any more, or did not become it.
    pub(super) fn stepped_down(&mut self, now_ns: u64, me: NodeId) {
        if self.holder == Some(me) {
            self.holder = None;
            (self.heard_ns, self.known_ns) = (now_ns, now_ns);
        }
        self.greeted = self.greeted.filter(|(holder, _)| *holder != me);
        self.away_until_ns = self.away_until_ns.max(now_ns.saturating_add(self.beat_ns));
    }
}

impl<S: Sealer + Clone> Node<S> {
    /// When this node should claim the lease: `None` as long as it has no reason to.
    pub(super) fn seek_due(&self) -> Option<u64> {
        let follow = &self.follow;
        if follow.holder == Some(self.me()) || !self.has_read || self.emptied.is_some() {
            return None;
        }
        let turn_ns = follow.turn_ns;
        let silence = follow.heard_ns.saturating_add(SILENT_BEATS.saturating_mul(follow.beat_ns));
        let has_work = self.role.is_busy() || self.requests.need_coordinator();
        let due = if follow.asked {
            0
        } else if follow.resting {
            let work = has_work.then_some(follow.heard_ns);
            work.into_iter().chain(self.due_ns).chain(follow.again_ns).min()?.saturating_add(turn_ns)
        } else if self.config.peers.is_empty() && (has_work || self.errand.is_some() && self.has_unfinished())
        {
            // No other would be heard: the holder of the lease is watched before it is taken.
            0
        } else if follow.holder.is_some() || has_work || self.has_unfinished() {
            // A node was working here, or should be: by its silence, one after the other.
            silence.saturating_add(turn_ns)
        } else {
            // No node was heard of since this one started. What is due by schedule is due all the same.
            silence.max(self.due_ns?).saturating_add(turn_ns)
        };
        Some(due.max(follow.away_until_ns))
    }

    /// This node has other volumes from now on, perhaps one that a backup waits for of which every node has let go.
    pub(super) fn has_other_volumes(&mut self) {
        if self.follow.is_resting() && self.has_unfinished() {
            self.follow.again_ns = Some(self.now_ns);
        }
    }

    /// Whether the log has a backup that a node should go on with.
    fn has_unfinished(&self) -> bool {
        let state = &self.view().state;
        match &self.errand {
            Some(errand) => state.running_of(&errand.policy).is_some(),
            None => state.has_work(),
        }
    }

    pub(super) fn announced(&mut self, now_ns: u64, from: NodeId, resting: bool, successor: Option<NodeId>) {
        let me = self.me();
        (self.follow.heard_ns, self.follow.known_ns) = (now_ns, now_ns);
        self.follow.asked = false;
        self.health.is_well();
        if from != me && self.writer.is_some() {
            // Another node's epoch is the highest: this node's own claim, or its own epoch, is over.
            let own = self.writer.as_ref().map_or(Epoch(0), |(_, writer)| writer.epoch());
            if self.coordinator.is_none() || own < self.follow.epoch {
                self.step_down(now_ns);
            }
        }
        if resting {
            self.follow.rest(now_ns, successor);
            self.follow.asked = successor == Some(me);
            if self.follow.asked {
                self.follow.away_until_ns = 0;
            }
            self.follow.greeted = None;
            // What it did last is to be known here: schedules, and backups that did not end.
            self.read_log();
            return;
        }
        self.follow.resting = false;
        if from != me {
            self.follow.again_ns = None;
        }
        if self.follow.holder != Some(from) {
            self.follow.holder = Some(from);
            if from != me {
                self.note(super::Note::Follows(from, self.follow.epoch));
            }
        }
        let present = self.config.present.clone();
        let greeting = (from, self.follow.epoch);
        if self.follow.greeted == Some(greeting) {
            self.role.beat(present);
        } else {
            self.follow.greeted = Some(greeting);
            self.role.greet(present);
        }
    }
}
