//! A node that is there for one backup, in the process of a command: no peers, no schedules, nothing of other
//! policies. And what a node without peers does while it waits for a lease: no node tells it that the lease
//! was let go, so it looks. So does a node with peers while a command holds it, which sends no message. Source: ours.

use std::collections::VecDeque;

use super::{Config, Node};
use crate::coordinator::{Coordinator, Errand};
use crate::format::slot::Sealer;
use crate::log::fault::LogFault;
use crate::log::replay::View;

/// Time between looks at the log while a lease is waited for that another node may hold, in nanoseconds:
/// short for a person, and one or two GETs. For a node without peers, and for a lease that a command has: an
/// announcement says it of all others.
pub(super) const LOOK_NS: u64 = 1_000_000_000;

impl<S: Sealer + Clone> Node<S> {
    /// A node without peers for the one backup of `policy` that it will be told to begin; `view` is the log
    /// as of a moment ago. It goes on with what is unfinished of that policy, and of no other, and knows no
    /// schedules.
    pub fn for_backup(now_ns: u64, config: Config<S>, policy: &str, view: View) -> Node<S> {
        let mut node = Node::new(now_ns, config);
        // What it would read is known already.
        (node.reader, node.actions) = (None, VecDeque::new());
        node.errand = Some(Errand { policy: policy.to_owned(), own: None });
        node.take_view(view, Some(now_ns));
        node
    }

    /// A node without peers for one run of garbage, which is asked for by a command. It begins no backups and goes on with none.
    pub fn for_garbage(now_ns: u64, config: Config<S>, view: View) -> Node<S> {
        // No policy has this name.
        Node::for_backup(now_ns, config, "", view)
    }

    /// Whether it coordinates and nothing is left to do: no backup, no merge, no commit, no command.
    pub fn is_idle(&self) -> bool {
        let is_idle = |coordinator: &Coordinator| {
            coordinator.is_idle() && coordinator.deadline().is_none_or(|due| due > self.now_ns)
        };
        self.coordinator.as_ref().is_some_and(is_idle)
            && !self.role.is_busy()
            && self.waiting.is_empty()
            && self.loopback.is_empty()
            && self.requests.waits() == 0
    }

    /// Who may hold the lease that this node claims, and until when on its clock that one is watched at
    /// least.
    pub fn waits_for(&self) -> Option<(LogFault, u64)> {
        self.held
    }

    /// What went wrong last under the lease that this node holds.
    pub fn last_error(&self) -> Option<&str> {
        self.coordinator.as_ref().and_then(Coordinator::last_error)
    }

    /// Whether it looks at the log for the end of a lease that it waits for: no node would tell it.
    pub(super) fn looks(&self) -> bool {
        let held = self.held.map(|(held, _)| held);
        held.is_some_and(|held| self.config.peers.is_empty() || held.is_of_command())
    }

    /// When it looks next; not any more when the holder was watched for long enough, and the lease may be
    /// this node's already.
    pub(super) fn look_due(&self) -> Option<u64> {
        let (_, until_ns) = self.held.filter(|_| self.looks())?;
        let looks_again = self.look_ns < until_ns && self.now_ns < until_ns;
        (self.reader.is_none() && looks_again).then_some(self.look_ns)
    }

    /// Claims at once when the log says that the lease was let go, to this node or to anyone.
    pub(super) fn settle_look(&mut self, now_ns: u64) {
        let held = self.held.filter(|&(_, until_ns)| self.looks() && now_ns < until_ns);
        let Some((LogFault::Held { epoch, .. }, _)) = held else { return };
        let (state, me) = (&self.view.state, self.me());
        let is_free = state.yielded.is_some_and(|to| to.is_none_or(|node| node == me));
        if state.epoch >= epoch && is_free {
            self.held = None;
            self.seek();
        } else if self.look_due().is_some_and(|due| due <= now_ns) {
            self.look_ns = now_ns.saturating_add(LOOK_NS);
            self.read_log();
        }
    }
}
