//! Flush: every worker sends what it has packed, in objects that need not be full, and what it has done is committed.
//!
//! | event | what follows |
//! |---|---|
//! | a request comes, or the lease is to move | `Flush` to each node that works; again with each beat until it has answered |
//! | `Flushed`, or the node is gone | not waited for any more |
//! | nothing is waited for | the client gets its reply; the lease moves |
//! | [`FLUSH_NS`] have passed, or a beat before a move | those that are late are named; the lease moves all the same |
//!
//! Order and answer may be lost or come twice: the number says which order an answer is of, and a worker that has nothing open says so at once.
//!
//! Source: ours.

use std::collections::BTreeSet;

use super::{Asker, Coordinator, Now};
use crate::backplane::message::Message;
use crate::id::NodeId;
use crate::work::Reply;

/// How long a flush is waited for, in nanoseconds: some objects over a slow uplink. Before the lease moves it is a beat: nothing is lost
/// without, so it must not hold the move up.
const FLUSH_NS: u64 = 120_000_000_000;

/// One that is under way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Flush {
    ask: u64,
    askers: Vec<Asker>,
    /// Who has not answered.
    waiting: BTreeSet<NodeId>,
    due_ns: u64,
    /// When the order is sent again.
    again_ns: u64,
    /// To whom the lease moves then, and who asked for that.
    then: Option<(Asker, NodeId)>,
}

impl Coordinator {
    /// A flush is asked for. One that is under way begins anew: more was packed since.
    pub(super) fn flush(&mut self, now: Now<'_>, asker: Asker) {
        self.begin_flush(now, FLUSH_NS).askers.push(asker);
    }

    /// Moves the lease once what is packed is sent.
    pub(super) fn flush_and_move(&mut self, now: Now<'_>, asker: Asker, to: NodeId) {
        let before = self.begin_flush(now, self.settings.beat_ns).then.replace((asker, to));
        if let Some((asker, to)) = before {
            let why = format!("somebody else moves the lease; it does not go to node {to}");
            self.reply(asker, Reply::Refused(why));
        }
    }

    fn begin_flush(&mut self, now: Now<'_>, patience_ns: u64) -> &mut Flush {
        self.next_ask += 1;
        let before = self.flush.take();
        let due_ns = now.ns.saturating_add(patience_ns);
        let (askers, then) = before.map_or((Vec::new(), None), |before| (before.askers, before.then));
        let fresh =
            Flush { ask: self.next_ask, askers, waiting: self.at_work(), due_ns, again_ns: now.ns, then };
        self.flush.insert(fresh)
    }

    /// A node says that what it had packed counts.
    pub(super) fn flushed(&mut self, from: NodeId, ask: u64) {
        if let Some(flush) = self.flush.as_mut().filter(|flush| flush.ask == ask) {
            flush.waiting.remove(&from);
        }
    }

    /// Sends the order again, or ends it.
    pub(super) fn turn_flush(&mut self, now: Now<'_>) {
        let Some(mut flush) = self.flush.take() else { return };
        flush.waiting.retain(|&node| self.roster.get(node).is_some_and(|node| node.up));
        if now.ns < flush.due_ns && !flush.waiting.is_empty() {
            if now.ns >= flush.again_ns {
                flush.again_ns = now.ns.saturating_add(self.settings.beat_ns);
                for &node in &flush.waiting {
                    self.send(node, Message::Flush { ask: flush.ask });
                }
            }
            self.wake_at(flush.again_ns.min(flush.due_ns));
            self.flush = Some(flush);
            return;
        }
        let late: Vec<String> = flush.waiting.iter().map(NodeId::to_string).collect();
        let reply = if late.is_empty() {
            Reply::Done(None)
        } else {
            Reply::Refused(format!(
                "node {} did not answer in time; what is packed is sent as usual, when objects are full or by the policy's flush \
                 interval; `windlass status` shows the nodes, try again",
                late.join(", node ")
            ))
        };
        for asker in flush.askers {
            self.reply(asker, reply.clone());
        }
        if let Some((asker, to)) = flush.then {
            self.move_now(asker, to);
        }
    }
}
