//! The nodes as the coordinator knows them: who is up, what each can read, how fast each is.
//!
//! Invariants: at most one entry per node; nothing here is durable, and losing it costs one round of announcements.
//! Source: ours.

use std::collections::BTreeMap;

use crate::backplane::reason::Reason;
use crate::id::NodeId;
use crate::work::{AssignmentId, Present};

/// Uplink rate taken for a lane whose node has not measured one, in bytes a second: what a lane packs at zstd level 1 on a slow core.
const LANE_BYTES_PER_SECOND: u64 = 100 << 20;

/// One node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// Whether it is connected, or is this one.
    pub up: bool,
    /// Since when it is up or down, boot time in nanoseconds.
    pub since_ns: u64,
    /// What it said last; `None` when it has not said anything to this coordinator yet.
    pub present: Option<Present>,
}

impl Node {
    /// Whether it can read a volume, and wants to.
    pub fn reads(&self, device: &str) -> bool {
        self.up
            && self.present.as_ref().is_some_and(|p| p.weight > 0 && p.volumes.iter().any(|v| v == device))
    }

    /// How fast it is, in any unit, `1..`: its weight times what it uploads, or times what its lanes could.
    pub fn speed(&self) -> u64 {
        let Some(present) = &self.present else { return 1 };
        let lanes = u64::from(present.lanes.max(1)).saturating_mul(LANE_BYTES_PER_SECOND);
        let rate = if present.rate == 0 { lanes } else { present.rate.min(lanes) };
        (rate >> 10).saturating_mul(u64::from(present.weight)).max(1)
    }
}

/// A connection with a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contact {
    /// Whether it is up.
    pub up: bool,
    /// Since when, in nanoseconds since 1970: up, or not.
    pub since_ns: i64,
    /// Why the last connection or dial ended.
    pub why: Option<Reason>,
    /// Two machines that both say they are this node: where they are.
    pub twins: Option<(String, String)>,
    /// Since when they do, in nanoseconds since 1970.
    pub twins_since_ns: Option<i64>,
    /// From which host the last connection came that ended before it said which node it is, and why: it may have been this one.
    pub nameless: Option<(String, Reason)>,
}

impl Contact {
    /// What is wrong with the peer, if something is. A peer that stopped in an orderly way is well.
    pub fn trouble(&self) -> Option<String> {
        match (&self.twins, self.up, self.why) {
            (Some((one, other)), _, _) => Some(format!(
                "two machines have this number, {one} and {other}; give one of them another number"
            )),
            (None, true, _) | (None, false, Some(Reason::Goodbye)) => None,
            (None, false, Some(why)) => Some(why.to_string()),
            (None, false, None) => {
                let nameless = self.nameless.as_ref().map_or_else(String::new, |(host, why)| {
                    format!("; the last connection that did not say whose it is came from {host}, and ended: {why}")
                });
                Some(format!("not heard of since this node started{nameless}"))
            }
        }
    }

    /// `up`, `stopped` or `down`.
    pub fn state(&self) -> &'static str {
        match (self.up, self.why) {
            (true, _) => "up",
            (false, Some(Reason::Goodbye)) => "stopped",
            (false, _) => "down",
        }
    }
}

/// All nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Roster {
    nodes: BTreeMap<NodeId, Node>,
}

impl Roster {
    /// Nodes that are expected: this one and its peers.
    pub fn new(now_ns: u64, nodes: impl Iterator<Item = NodeId>) -> Roster {
        let fresh = Node { up: false, since_ns: now_ns, present: None };
        Roster { nodes: nodes.map(|node| (node, fresh.clone())).collect() }
    }

    /// All of them, ascending.
    pub fn iter(&self) -> impl Iterator<Item = (NodeId, &Node)> {
        self.nodes.iter().map(|(&id, node)| (id, node))
    }

    /// One of them.
    pub fn get(&self, node: NodeId) -> Option<&Node> {
        self.nodes.get(&node)
    }

    /// A node's connection came or went. Nodes that are not in the profile are not listened to.
    pub fn set_up(&mut self, now_ns: u64, node: NodeId, up: bool) {
        if let Some(node) = self.nodes.get_mut(&node)
            && node.up != up
        {
            (node.up, node.since_ns) = (up, now_ns);
            if !up {
                node.present = None;
            }
        }
    }

    /// What a node said.
    pub fn set_present(&mut self, now_ns: u64, node: NodeId, present: Present) {
        self.set_up(now_ns, node, true);
        if let Some(node) = self.nodes.get_mut(&node) {
            node.present = Some(present);
        }
    }

    /// A node's merge is over: it can take the next before it says so itself.
    pub fn merged(&mut self, node: NodeId, id: AssignmentId) {
        let present = self.nodes.get_mut(&node).and_then(|node| node.present.as_mut());
        present.into_iter().for_each(|present| present.merging = present.merging.filter(|at| *at != id));
    }

    /// Nodes that are up and want work.
    pub fn workers(&self) -> impl Iterator<Item = NodeId> + '_ {
        let works = |node: &Node| node.up && node.present.as_ref().is_some_and(|p| p.weight > 0);
        self.iter().filter(move |(_, node)| works(node)).map(|(id, _)| id)
    }

    /// Nodes that can read a volume.
    pub fn readers<'a>(&'a self, device: &'a str) -> impl Iterator<Item = NodeId> + 'a {
        self.iter().filter(move |(_, node)| node.reads(device)).map(|(id, _)| id)
    }

    /// Whether every node that is up has said what it has, and every expected one is up.
    pub fn is_complete(&self) -> bool {
        self.nodes.values().all(|node| node.up && node.present.is_some())
    }
}
