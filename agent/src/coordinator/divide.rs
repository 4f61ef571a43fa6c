//! How many nodes work on the backup of a policy: they divide its limits.
//!
//! | when | what follows |
//! |---|---|
//! | a node has work of a policy, and was not told, or told another number | `Divide` to it |
//! | a node has none of it any more, or its connection broke | what it was told is forgotten: it is told again with its next work |
//!
//! A node that does not know takes all. Invariants: nothing is said without peers, and no number twice. Does not: know the limits.
//! Source: ours.

use std::collections::{BTreeMap, BTreeSet};

use super::{Coordinator, Now};
use crate::backplane::message::Message;
use crate::id::NodeId;

/// What nodes were told, by node and policy.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Divided(BTreeMap<(NodeId, String), u32>);

impl Divided {
    /// A node may not know any more what it was told.
    pub(super) fn forget(&mut self, node: NodeId) {
        self.0.retain(|(told, _), _| *told != node);
    }
}

impl Coordinator {
    /// Tells those whose part is another.
    pub(super) fn turn_divided(&mut self, now: Now<'_>) {
        if self.settings.peers.is_empty() {
            return;
        }
        let mut at_work: BTreeMap<&str, BTreeSet<NodeId>> = BTreeMap::new();
        for assigned in self.assigned.values() {
            if let Some(running) = now.state.running.get(&assigned.assignment.backup) {
                at_work.entry(&running.policy).or_default().insert(assigned.node);
            }
        }
        let parts = at_work.iter().flat_map(|(policy, nodes)| {
            let count = u32::try_from(nodes.len()).unwrap_or(u32::MAX);
            nodes.iter().map(move |&node| ((node, (*policy).to_owned()), count))
        });
        let parts: BTreeMap<(NodeId, String), u32> = parts.collect();
        let told = std::mem::replace(&mut self.divided.0, parts.clone());
        for ((node, policy), nodes) in parts {
            if told.get(&(node, policy.clone())) != Some(&nodes) {
                self.send(node, Message::Divide { policy, nodes });
            }
        }
    }
}
