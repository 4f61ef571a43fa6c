//! What a node is given, what it is told, and what it says. Source: ours.

use std::fmt;
use std::sync::Arc;

use crate::backplane::message::Message;
use crate::coordinator::bounds::Room;
use crate::gc::types::{Order, Outcome};
use crate::id::{Epoch, NodeId, Slot, VolumeId};
use crate::log::call::{Answer, Call, CallId};
use crate::log::fault::LogFault;
use crate::log::lease::Identity;
use crate::log::state::State;
use crate::log::writer::WriterOptions;
use crate::table::plan::Bounds;
use crate::table::segment::SegmentMeta;
use crate::work::{Assignment, AssignmentId, Command, Found, MergeOrder, Present, Reply};
use crate::worker::backup::Progress;

use super::clock::apart_text;

/// Names a call of one of the node's machines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket {
    pub(super) machine: u32,
    pub(super) id: CallId,
}

/// How a node is set up.
#[derive(Clone, Debug)]
pub struct Config<S> {
    /// Repository, node, and this start of it.
    pub identity: Identity,
    /// The other nodes.
    pub peers: Vec<NodeId>,
    /// Opens the log.
    pub sealer: S,
    /// Times of the lease, and bounds of the log.
    pub options: WriterOptions,
    /// What it has: weight, memory, lanes, volumes.
    pub present: Present,
    /// Idle time after which the lease is let go, in nanoseconds.
    pub rest_ns: u64,
    /// When tables are in order.
    pub merges: Bounds,
    /// How near to bounds it lets its state come while it coordinates.
    pub room: Room,
    /// How long a command waits for a coordinator, in nanoseconds.
    pub request_ns: u64,
    /// Random, and used for nothing else.
    pub seed: [u8; 32],
}

/// What has happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A peer is connected.
    Up(NodeId),
    /// It is not any more.
    Down(NodeId),
    /// A peer said something. Its connection is up.
    Received {
        /// Who.
        from: NodeId,
        /// Its highest epoch.
        epoch: Epoch,
        /// The last slot that it has applied.
        slot: Slot,
        /// What.
        message: Message,
    },
    /// The store answered.
    Answered(Ticket, Answer),
    /// Volumes were looked at.
    Probed {
        /// Of the question.
        ask: u64,
        /// Those that can be read.
        found: Vec<Found>,
        /// Those that cannot, and why.
        failed: Vec<(VolumeId, String)>,
    },
    /// The running job has something in the store that it wants committed.
    Progressed {
        /// Which job.
        id: AssignmentId,
        /// What, since the last time.
        progress: Progress,
    },
    /// The running job has ended: done, stopped, or why it could not.
    Ended {
        /// Which job.
        id: AssignmentId,
        /// How.
        result: Result<(), String>,
    },
    /// A merge has ended: the segments that are now in the store, or why not.
    Merged {
        /// Which.
        id: AssignmentId,
        /// How.
        result: Result<Vec<SegmentMeta>, String>,
    },
    /// A step of a garbage run has ended.
    Collected {
        /// Which.
        number: u64,
        /// How.
        result: Result<Outcome, String>,
    },
    /// The running job has sent what it had packed when `Action::Flush` came, and it counts.
    Flushed {
        /// Which.
        id: AssignmentId,
    },
    /// Who gave a command on this machine does not wait for its answer any more.
    Left {
        /// As it was given.
        client: u64,
    },
    /// A request from this machine.
    Local {
        /// Comes back in the reply.
        client: u64,
        /// What.
        command: Command,
    },
}

/// What is to be done.
#[allow(clippy::large_enum_variant, reason = "taken at once, never stored")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Send to a peer; dropped when it is not connected.
    Send {
        /// Whom.
        to: NodeId,
        /// For the header: the highest epoch seen.
        epoch: Epoch,
        /// For the header: the last slot applied.
        slot: Slot,
        /// What.
        message: Message,
    },
    /// Perform a call once, one after the other in this order or side by side.
    Call(Ticket, Call),
    /// Look at volumes of a policy; `Event::Probed` follows.
    Probe {
        /// Comes back.
        ask: u64,
        /// The policy.
        policy: String,
        /// Its volumes.
        volumes: Vec<VolumeId>,
        /// The log, with policy and volumes in it.
        state: Arc<State>,
    },
    /// Run a job; `Event::Ended` follows, whatever happens. None other runs.
    Start {
        /// What.
        assignment: Assignment,
        /// The log, with its policy and the last point's tables.
        state: Arc<State>,
    },
    /// Merge segments; `Event::Merged` follows, whatever happens. No job runs.
    Merge {
        /// What.
        order: MergeOrder,
        /// The log, with the segments in it.
        state: Arc<State>,
    },
    /// Carry out a step of a garbage run, beside jobs and merges; `Event::Collected` follows. One after the other.
    Collect {
        /// What.
        order: Order,
        /// The log.
        state: Arc<State>,
        /// The slot that it is as of.
        seen: Slot,
    },
    /// End the running job or merge soon.
    Stop(AssignmentId),
    /// What the running job wanted committed is.
    Committed(AssignmentId),
    /// Have the running job send what it has packed; `Event::Flushed` or `Event::Ended` follows.
    Flush(AssignmentId),
    /// So many nodes, this one among them, work on a policy: they divide its limits.
    Divide {
        /// Its name.
        policy: String,
        /// How many.
        nodes: u32,
    },
    /// Answer a request from this machine.
    Reply {
        /// Whom.
        client: u64,
        /// What.
        reply: Reply,
    },
    /// For the log.
    Note(Note),
}

/// What an operator should know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// Claims the lease.
    Seeking,
    /// Another node may hold it.
    Waiting(LogFault),
    /// Another machine holds it under this node's number.
    SameNumber(LogFault),
    /// Coordinates.
    Coordinates(Epoch),
    /// Another node coordinates.
    Follows(NodeId, Epoch),
    /// Let the lease go.
    Released,
    /// Does not hold the lease any more, or could not get it.
    Lost(LogFault),
    /// Something in the background did not work.
    Warning(LogFault),
    /// Its clock is so many nanoseconds ahead of the store's, or behind when negative; `None`: they agree again.
    Clock(Option<i64>),
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Note::Seeking => f.write_str("there is work and no coordinator: claiming the lease"),
            Note::Waiting(held) => write!(f, "waiting: {held}"),
            Note::SameNumber(held) => write!(
                f,
                "another machine has this node's number; give one of the two another, and a certificate for it: {held}"
            ),
            Note::Coordinates(epoch) => write!(f, "this node coordinates, epoch {epoch}"),
            Note::Follows(node, epoch) => write!(f, "node {node} coordinates, epoch {epoch}"),
            Note::Released => f.write_str("this node let the lease go"),
            Note::Lost(fault) => write!(f, "this node does not coordinate: {fault}"),
            Note::Warning(fault) => write!(f, "{fault}"),
            Note::Clock(None) => f.write_str("this node's clock agrees with the store's again"),
            Note::Clock(Some(ahead_ns)) => write!(
                f,
                "this node's clock is {} the store's; schedules and the times of points go by the store's: set the clock that is wrong",
                apart_text(*ahead_ns)
            ),
        }
    }
}
