//! The loop of a node: events in, actions out to whatever carries them out: the real ports or the simulated world.
//!
//! ```text
//!   ports.wait(deadline) -> event -> Node -> actions -> ports
//! ```
//!
//! Invariants: actions are drained to none after each event, in order.
//! Source: ours; `agent/doc/architecture.md`, Machines and drivers.

use std::sync::Arc;

use crate::backplane::message::Message;
use crate::format::slot::Sealer;
use crate::gc::types::Order;
use crate::id::{Epoch, NodeId, Slot, VolumeId};
use crate::log::call::Call;
use crate::log::state::State;
use crate::node::{Action, Event, Node, Note, Ticket};
use crate::work::{Assignment, AssignmentId, MergeOrder, Reply};

/// What carries a node's actions out. None of these waits; what they lead to comes back as events.
pub trait Ports {
    /// Send to a peer, or drop when it is not connected.
    fn send(&mut self, to: NodeId, epoch: Epoch, slot: Slot, message: &Message);
    /// Perform a call of the log on the store, once.
    fn call(&mut self, ticket: Ticket, call: Call);
    /// Look at volumes of a policy.
    fn probe(&mut self, ask: u64, policy: &str, volumes: Vec<VolumeId>, state: Arc<State>);
    /// Run a job.
    fn start(&mut self, assignment: Assignment, state: Arc<State>);
    /// Merge segments.
    fn merge(&mut self, order: MergeOrder, state: Arc<State>);
    /// Carry out a step of a garbage run; `state` is as of `seen`.
    fn collect(&mut self, order: Order, state: Arc<State>, seen: Slot);
    /// End the running job or merge soon.
    fn stop(&mut self, id: AssignmentId);
    /// What the running job wanted committed is.
    fn committed(&mut self, id: AssignmentId);
    /// The running job is to send what it has packed.
    fn flush(&mut self, id: AssignmentId);
    /// So many nodes work on a policy, and divide its limits.
    fn divide(&mut self, policy: &str, nodes: u32);
    /// Answer a request from this machine.
    fn reply(&mut self, client: u64, reply: Reply);
    /// Tell the operator.
    fn note(&mut self, note: Note);
}

/// Gives an event (or the time alone) to the node and carries out what follows.
pub fn turn<S: Sealer + Clone, P: Ports>(
    node: &mut Node<S>,
    ports: &mut P,
    now_ns: u64,
    wall_ns: i64,
    event: Option<Event>,
) {
    match event {
        Some(event) => node.handle(now_ns, wall_ns, event),
        None => node.wake(now_ns, wall_ns),
    }
    while let Some(action) = node.next_action() {
        match action {
            Action::Send { to, epoch, slot, message } => ports.send(to, epoch, slot, &message),
            Action::Call(ticket, call) => ports.call(ticket, call),
            Action::Probe { ask, policy, volumes, state } => ports.probe(ask, &policy, volumes, state),
            Action::Start { assignment, state } => ports.start(assignment, state),
            Action::Merge { order, state } => ports.merge(order, state),
            Action::Collect { order, state, seen } => ports.collect(order, state, seen),
            Action::Stop(id) => ports.stop(id),
            Action::Committed(id) => ports.committed(id),
            Action::Flush(id) => ports.flush(id),
            Action::Divide { policy, nodes } => ports.divide(&policy, nodes),
            Action::Reply { client, reply } => ports.reply(client, reply),
            Action::Note(note) => ports.note(note),
        }
    }
}
