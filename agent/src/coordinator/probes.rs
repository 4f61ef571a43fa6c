//! Which nodes are looking at volumes for the coordinator: how many questions each has, and which have stopped answering.
//!
//! A node opens volumes one after the other, so a question waits for those before it: a node is given a few at a time, and the time of each
//! counts from the node's last answer. One that was silent for all of that time is not asked again for as long: it hangs in a device, and
//! what waits behind would be refused one by one.
//!
//! Source: ours.

use std::collections::BTreeMap;

use crate::id::NodeId;

/// Questions that a node has at once: one that it works on, and some so that it need not wait for the next. Others wait here.
pub const PROBES_NODE_MAX: usize = 8;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Looker {
    out: usize,
    heard_ns: u64,
    silent_until_ns: u64,
}

/// All nodes that were asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Probes(BTreeMap<NodeId, Looker>);

impl Probes {
    fn of(&self, node: NodeId) -> Looker {
        self.0.get(&node).copied().unwrap_or_default()
    }

    /// Counts anew: each of `asked` has a question.
    pub(super) fn begin(&mut self, asked: impl Iterator<Item = NodeId>) {
        self.0.values_mut().for_each(|looker| looker.out = 0);
        asked.for_each(|node| self.asked(node));
    }

    /// One more.
    pub(super) fn asked(&mut self, node: NodeId) {
        self.0.entry(node).or_default().out += 1;
    }

    /// How many questions a node has.
    pub(super) fn out(&self, node: NodeId) -> usize {
        self.of(node).out
    }

    /// A node answered.
    pub(super) fn heard(&mut self, node: NodeId, now_ns: u64) {
        let looker = self.0.entry(node).or_default();
        (looker.heard_ns, looker.silent_until_ns) = (now_ns, 0);
    }

    /// When a node answered last; 0: never.
    pub(super) fn heard_ns(&self, node: NodeId) -> u64 {
        self.of(node).heard_ns
    }

    /// A question was not answered in time.
    pub(super) fn is_silent(&mut self, node: NodeId, until_ns: u64) {
        self.0.entry(node).or_default().silent_until_ns = until_ns;
    }

    /// Whether a node hangs, as far as anybody knows.
    pub(super) fn silent_at(&self, node: NodeId, now_ns: u64) -> bool {
        self.of(node).silent_until_ns > now_ns
    }
}
