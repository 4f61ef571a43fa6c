//! A node of the cluster: follower or coordinator, and worker, in one state machine without I/O, clock or threads.
//!
//! ```text
//!                  +---------------- Node -----------------+
//!   frames   --->  |  follower   who coordinates; when to claim   |  ---> Send
//!   answers  --->  |  Writer     lease and commits (log::writer)  |  ---> Call
//!   commands --->  |  Coordinator   while the lease is held       |  ---> Reply
//!   jobs     --->  |  Role       what this node works on          |  ---> Probe, Start, Stop, Committed
//!                  +---------------------------------------+
//! ```
//!
//! | when | a node claims the lease |
//! |---|---|
//! | it has work (a command, a job, a backup that runs in the log) and no node coordinates | at once when the last holder let it go, else by L2 |
//! | the holder was working and is silent for [`SILENT_BEATS`] beats, or its connection broke | by L2 |
//! | a backup is due by schedule, and all nodes rest or none was heard of since this one started | at once, or by L2 |
//! | the holder moved the lease here | at once (L4) |
//!
//! A node without peers hears of no other: it claims as soon as it has work, and looks at the log while it waits by L2, where a holder that
//! lets the lease go says so.
//!
//! With nothing to do the holder lets the lease go and everybody rests; the next who has work takes it.
//!
//! | module | what |
//! |---|---|
//! | this one | the machine: what comes in, and what follows until nothing moves |
//! | `types` | what it is given, told, and says |
//! | `follow` | who coordinates, and when to claim |
//! | `clock` | its wall clock, held against the store's |
//! | `lease` | the lease: claimed, got, given back, lost |
//! | `reading` | the log, read for what waits for it |
//! | `errand` | a node that is there for one backup |
//! | `requests` | commands of people on this machine |
//! | `health` | what it says while no node coordinates |
//!
//! Invariants: messages of an older epoch than the highest seen are dropped and answered with `Fenced`; nothing is assigned or
//! committed when the lease could end before it arrives (L1); a coordinator is gone in the same call in which its lease is.
//! Source: `agent/doc/commit-log.md`; `agent/doc/architecture.md`, Coordination.

mod clock;
mod errand;
mod follow;
mod health;
mod lease;
mod reading;
mod requests;
mod types;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use crate::backplane::message::Message;
use crate::coordinator::calendar::{Calendar, Due};
use crate::coordinator::{self, Coordinator, Errand, Now, access};
use crate::format::slot::Sealer;
use crate::gc::types::{Order, Outcome};
use crate::id::{BackupId, Epoch, NodeId, Slot, VolumeId};
use crate::log::call::{Answer, Call};
use crate::log::fault::LogFault;
use crate::log::lease::Nonces;
use crate::log::replay::{Replay, View};
use crate::log::writer::Writer;
use crate::store::time::StoreTime;
use crate::work::{Assignment, AssignmentId, Command, MergeOrder, Present, Reply};
use crate::worker::role::{self, Role};

use clock::WallClock;
use follow::Follow;
use health::Health;
use requests::Requests;

pub use clock::{APART_NS, apart_text, believed_ns};
pub use types::{Action, Config, Event, Note, Ticket};

/// Beats of silence after which a holder that was working is taken for dead.
pub const SILENT_BEATS: u64 = 3;
/// Probes that wait for the log at most: a coordinator asks for [`PROBES_NODE_MAX`](crate::coordinator::PROBES_NODE_MAX) at a time, and one
/// or two before it may have asked too. More are refused, and the coordinator asks another node. A job or merge is never one of them: the
/// worker's role has one on its way at most.
const PROBES_WAITING_MAX: usize = 64;
const _: () = assert!(4 * crate::coordinator::PROBES_NODE_MAX <= PROBES_WAITING_MAX);
/// Lease times that a holder without any peer waits before it lets go of work that none of the nodes that are up can do: peers may be on their
/// way. It looks at it again after twice as many, then later and later.
const ALONE_LEASES: u64 = 2;

/// Beats of a holder after which it looks whether its own grant is still in the store: one that was emptied behind its back takes commits as
/// before, and no other node could read them.
const GRANT_BEATS: u64 = 3;

/// Something that waits until the log is read far enough.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Waiting {
    Probe { ask: u64, policy: String, volumes: Vec<VolumeId> },
    Start(Assignment),
    Merge(MergeOrder),
}

impl Waiting {
    /// The job or merge that it would start.
    fn job(&self) -> Option<AssignmentId> {
        match self {
            Waiting::Probe { .. } => None,
            Waiting::Start(assignment) => Some(assignment.id),
            Waiting::Merge(order) => Some(order.id),
        }
    }
}

/// The machine. `S` opens the log.
#[derive(Debug)]
pub struct Node<S> {
    config: Config<S>,
    follow: Follow,
    requests: Requests,
    up: BTreeSet<NodeId>,
    view: View,
    reader: Option<(u32, Replay<S>)>,
    /// The first read of the log is over.
    has_read: bool,
    writer: Option<(u32, Writer<S>)>,
    coordinator: Option<Coordinator>,
    releasing: Option<Option<NodeId>>,
    role: Role,
    waiting: VecDeque<Waiting>,
    /// The log must be read up to here before what waits may go on.
    needed: Slot,
    loopback: VecDeque<Message>,
    nonces: Nonces,
    machines: u32,
    announce_ns: u64,
    /// Since when no peer is connected.
    alone_ns: Option<u64>,
    /// Backups that this node let go of, and for what they wait.
    left: BTreeMap<BackupId, String>,
    actions: VecDeque<Action>,
    /// When it was called last, and what its own wall clock said.
    now_ns: u64,
    own_wall_ns: i64,
    /// Schedules in the log: a node must coordinate when the first is due.
    calendar: Calendar,
    due_ns: Option<u64>,
    health: Health,
    wall: WallClock,
    /// What it was started for alone, if it was.
    errand: Option<Errand>,
    /// Who may hold the lease that this node claims, and until when at least it is watched.
    held: Option<(LogFault, u64)>,
    /// When this node looks next whether the grant that it holds is still there, and the look that is under way.
    grant_ns: u64,
    grant_look: Option<(u32, Epoch)>,
    /// The grant that is looked for first after a claim.
    grant_first: Option<Epoch>,
    /// The grant of this epoch was in the store, and is no more: nothing is claimed before it is there again.
    emptied: Option<Epoch>,
    /// When the log is looked at next for whether that one let go. The look may fail, and no node needs to know.
    look_ns: u64,
}

impl<S: Sealer + Clone> Node<S> {
    /// A node that has just started. It reads the log first: a backup may be waiting for a node to go on with it.
    pub fn new(now_ns: u64, config: Config<S>) -> Node<S> {
        let mut ids: Vec<NodeId> = config.peers.iter().copied().chain([config.identity.me.node]).collect();
        ids.sort_unstable();
        let rank = ids.iter().position(|id| *id == config.identity.me.node).unwrap_or(0) as u64;
        let mut node = Node {
            follow: Follow::new(now_ns, rank, config.options.timing.beat_ns),
            requests: Requests::new(config.request_ns, config.identity.me.boot.0),
            up: BTreeSet::new(),
            view: View::default(),
            reader: None,
            has_read: false,
            writer: None,
            coordinator: None,
            releasing: None,
            role: Role::default(),
            waiting: VecDeque::new(),
            needed: Slot(0),
            loopback: VecDeque::new(),
            nonces: Nonces::new(config.seed),
            machines: 0,
            announce_ns: now_ns,
            alone_ns: Some(now_ns),
            left: BTreeMap::new(),
            actions: VecDeque::new(),
            now_ns,
            own_wall_ns: 0,
            calendar: Calendar::default(),
            due_ns: None,
            health: Health::default(),
            wall: WallClock::default(),
            errand: None,
            held: None,
            look_ns: 0,
            grant_ns: 0,
            grant_look: None,
            grant_first: None,
            emptied: None,
            config,
        };
        node.read_log();
        node
    }

    /// This node.
    pub fn me(&self) -> NodeId {
        self.config.identity.me.node
    }

    /// Whether this node holds the lease and has begun its epoch.
    pub fn coordinates(&self) -> bool {
        self.coordinator.is_some()
    }

    /// Highest epoch seen.
    pub fn epoch(&self) -> Epoch {
        self.follow.epoch
    }

    /// The log as this node knows it.
    pub fn view(&self) -> &View {
        match &self.writer {
            Some((_, writer)) if writer.view().head > self.view.head => writer.view(),
            _ => &self.view,
        }
    }

    /// The log as far as this node has written it itself, while it coordinates.
    pub fn held_view(&self) -> Option<&View> {
        let (_, writer) = self.writer.as_ref().filter(|_| self.coordinator.is_some())?;
        Some(writer.view())
    }

    /// Whether it is letting the lease go: it acts on it no more.
    pub fn is_releasing(&self) -> bool {
        self.releasing.is_some()
    }

    /// How many things wait here: orders for the log, commands for a coordinator, and what the coordinator has out and in its queue.
    pub fn waits(&self) -> usize {
        let coordinator = self.coordinator.as_ref().map_or(0, Coordinator::waits);
        self.waiting.len() + self.loopback.len() + self.requests.waits() + coordinator
    }

    /// End of the lease on this node's clock, while it holds one.
    pub fn lease_end_ns(&self) -> Option<u64> {
        self.writer.as_ref().and_then(|(_, writer)| writer.lease_end_ns())
    }

    /// What it has, from now on: a profile was read again. The rate stays as it was measured.
    pub fn set_present(&mut self, present: Present) {
        let Present { rate, uploaded, .. } = self.config.present;
        let before = std::mem::replace(&mut self.config.present, Present { rate, uploaded, ..present });
        let now = &self.config.present;
        if (&before.volumes, before.weight) != (&now.volumes, now.weight) {
            self.has_other_volumes();
        }
    }

    /// How fast it uploads, in bytes a second.
    pub fn set_rate(&mut self, rate: u64) {
        self.config.present.rate = rate;
    }

    /// How many bytes it has sent to the store since it started.
    pub fn set_uploaded(&mut self, bytes: u64) {
        self.config.present.uploaded = bytes;
    }

    /// The store said what time it is. Asked for again with each answer: the last one counts.
    pub fn store_says(&mut self, time: StoreTime) {
        self.wall.hear(time);
    }

    /// What counts as the time, by this node's wall clock and by the store's.
    fn read_clock(&mut self, now_ns: u64, wall_ns: i64) -> i64 {
        self.own_wall_ns = wall_ns;
        let counts = self.wall.read(now_ns, wall_ns);
        if let Some(ahead_ns) = self.wall.news() {
            self.note(Note::Clock(ahead_ns));
        }
        counts
    }

    /// Lets the lease go, if it is held, so that no node has to wait after a clean stop.
    pub fn leave(&mut self, now_ns: u64, wall_ns: i64) {
        let wall_ns = self.read_clock(now_ns, wall_ns);
        if let (Some(coordinator), None) = (&self.coordinator, self.releasing) {
            // With work left, a successor is named, which takes it at once: others would rest.
            let heir = self.up.first().copied().filter(|_| !coordinator.is_idle());
            self.releasing = Some(heir);
        }
        self.follow.away_until_ns = u64::MAX;
        self.role.leave();
        self.settle(now_ns, wall_ns);
    }

    /// Takes an event in. `wall_ns` is this node's wall clock: for people, and for schedules as far as it agrees with the store's.
    pub fn handle(&mut self, now_ns: u64, wall_ns: i64, event: Event) {
        let wall_ns = self.read_clock(now_ns, wall_ns);
        match event {
            Event::Up(node) => self.set_up(now_ns, wall_ns, node, true),
            Event::Down(node) => self.set_up(now_ns, wall_ns, node, false),
            Event::Received { from, epoch, slot, message } => {
                self.received(now_ns, wall_ns, from, (epoch, slot), message);
            }
            Event::Answered(ticket, answer) => self.answered(now_ns, ticket, answer),
            Event::Probed { ask, found, failed } => {
                self.tell_coordinator(Message::Probed { ask, found, failed });
            }
            Event::Progressed { id, progress } => self.role.progressed(id, progress),
            Event::Ended { id, result } => self.role.ended(id, result),
            Event::Merged { id, result } => self.role.merged(id, result),
            Event::Flushed { id } => self.role.flushed(id),
            Event::Collected { number, result } => self.collected(now_ns, wall_ns, number, result),
            Event::Local { client, command } => self.requests.add(now_ns, client, command),
            Event::Left { client } => self.client_left(now_ns, wall_ns, client),
        }
        self.settle(now_ns, wall_ns);
    }

    /// Time passed.
    pub fn wake(&mut self, now_ns: u64, wall_ns: i64) {
        let wall_ns = self.read_clock(now_ns, wall_ns);
        if let Some((_, writer)) = &mut self.writer {
            writer.wake(now_ns);
        }
        if let Some((_, reader)) = &mut self.reader {
            reader.wake(now_ns);
        }
        self.settle(now_ns, wall_ns);
    }

    /// What to do, until there is nothing.
    pub fn next_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When to call `wake` at the latest.
    pub fn deadline(&self) -> Option<u64> {
        let writer = self.writer.as_ref().and_then(|(_, writer)| writer.deadline());
        let reader = self.reader.as_ref().and_then(|(_, reader)| reader.deadline());
        let announce = self.coordinator.is_some().then_some(self.announce_ns);
        let coordinator = self.coordinator.as_ref().filter(|_| self.may_coordinate());
        let coordinator = coordinator.and_then(Coordinator::deadline);
        let seek = if self.writer.is_none() { self.seek_due() } else { None };
        let looks = self.grant_look.is_none() && (announce.is_some() || self.emptied.is_some());
        let grant = looks.then_some(self.grant_ns);
        let own =
            [writer, reader, announce, coordinator, grant, seek, self.look_due(), self.requests.deadline()];
        own.into_iter().flatten().min()
    }

    /// Whether the lease lasts long enough, and is not being let go. What changes that is an answer, or the lease's own deadline.
    fn may_coordinate(&self) -> bool {
        self.releasing.is_none()
            && self.writer.as_ref().is_some_and(|(_, writer)| {
                writer.may_assign(self.now_ns) || !self.config.options.checks.lease()
            })
    }

    fn next_machine(&mut self) -> u32 {
        self.machines += 1;
        self.machines
    }

    fn note(&mut self, note: Note) {
        self.actions.push_back(Action::Note(note));
    }

    /// Sends to a node, which may be this one.
    fn send(&mut self, to: NodeId, message: Message) {
        if to == self.me() {
            self.loopback.push_back(message);
        } else if self.up.contains(&to) {
            // An order is of the lease that it was made under, whatever was heard of since.
            let own = self.writer.as_ref().map(|(_, writer)| writer.epoch());
            let epoch = own.filter(|_| message.is_order()).unwrap_or(self.follow.epoch);
            let slot = self.view().head;
            self.actions.push_back(Action::Send { to, epoch, slot, message });
        }
    }

    /// Who coordinates, if this node is that or is connected with it.
    fn reachable_holder(&self) -> Option<NodeId> {
        self.follow.holder.filter(|holder| *holder == self.me() || self.up.contains(holder))
    }

    /// Sends to the coordinator. What is lost for want of one is sent again when there is one, or asked for again.
    fn tell_coordinator(&mut self, message: Message) {
        if let Some(holder) = self.follow.holder {
            self.send(holder, message);
        }
    }

    fn set_up(&mut self, now_ns: u64, wall_ns: i64, node: NodeId, up: bool) {
        if !self.config.peers.contains(&node) {
            return;
        }
        if up {
            self.up.insert(node)
        } else {
            self.up.remove(&node)
        };
        self.alone_ns = match self.alone_ns {
            _ if !self.up.is_empty() => None,
            since => since.or(Some(now_ns)),
        };
        if up {
            self.follow.connected(now_ns);
        } else {
            self.follow.disconnected(now_ns, node);
            self.requests.disconnected(node);
        }
        if let (Some(coordinator), Some((_, writer))) = (&mut self.coordinator, &self.writer) {
            let now = Now { ns: now_ns, wall_ns, state: &writer.view().state };
            coordinator.set_up(now, node, up);
        }
    }

    fn received(&mut self, now_ns: u64, wall_ns: i64, from: NodeId, at: (Epoch, Slot), message: Message) {
        let (epoch, slot) = at;
        if !self.config.peers.contains(&from) {
            return;
        }
        let is_order = message.is_order();
        if is_order && epoch < self.follow.epoch && self.config.options.checks.fence() {
            return self.send(from, Message::Fenced);
        }
        self.follow.epoch = self.follow.epoch.max(epoch);
        if is_order {
            self.needed = self.needed.max(slot);
        }
        self.deliver(now_ns, wall_ns, from, message);
    }

    /// A message from this node to itself. Its orders are fenced as a peer's are.
    fn deliver_own(&mut self, now_ns: u64, wall_ns: i64, message: Message) {
        let own = self.writer.as_ref().map_or(self.follow.epoch, |(_, writer)| writer.epoch());
        let is_old = message.is_order() && own < self.follow.epoch;
        if !is_old || !self.config.options.checks.fence() {
            let me = self.me();
            self.deliver(now_ns, wall_ns, me, message);
        }
    }

    /// A message that is not fenced, from a peer or from this node itself.
    fn deliver(&mut self, now_ns: u64, wall_ns: i64, from: NodeId, message: Message) {
        match message {
            Message::Announce { resting, successor } => self.announced(now_ns, from, resting, successor),
            Message::Probe { ask, policy, volumes } => self.probe_asked(ask, policy, volumes),
            Message::Assign(_)
            | Message::Merge(_)
            | Message::Accepted { .. }
            | Message::Revoke { .. }
            | Message::Flush { .. } => self.role.handle(message),
            Message::Divide { policy, nodes } => self.actions.push_back(Action::Divide { policy, nodes }),
            Message::Reply { request, reply } => {
                if let Some((client, _)) = self.requests.answered(request) {
                    let here = self.here();
                    let reply = match reply {
                        Reply::Status(status) if from != self.me() && !here.is_well() => {
                            Reply::Status(here.add_to(status))
                        }
                        reply => reply,
                    };
                    self.actions.push_back(Action::Reply { client, reply });
                }
            }
            // Do not send it again now: wait for the next Announce.
            Message::Redirect { .. } => self.follow.renounced(from),
            Message::Request { request, .. } if self.coordinator.is_none() => {
                let holder = self.follow.holder;
                self.send(from, Message::Redirect { request, holder });
            }
            Message::Fenced => {}
            Message::Present(_)
            | Message::Probed { .. }
            | Message::Report(_)
            | Message::Merged { .. }
            | Message::Failed { .. }
            | Message::Flushed { .. }
            | Message::Request { .. } => {
                let here = self.here();
                let Some((_, writer)) = &self.writer else { return };
                let now = Now { ns: now_ns, wall_ns, state: &writer.view().state };
                let Some(coordinator) = &mut self.coordinator else { return };
                coordinator.set_lease_end(writer.lease_end_ns());
                coordinator.set_clock_ahead(self.wall.ahead_ns());
                // A request for the status does not keep the cluster from resting. One that a role does not let is refused like any other.
                if let Message::Request { request, ref command } = message
                    && *command.plain() == Command::Status
                    && access::refusal(now.state, command).is_none()
                {
                    let status = coordinator.status(now, &self.health.contacts, &here);
                    let reply = Reply::Status(access::shown(now.state, command, status));
                    return self.send(from, Message::Reply { request, reply });
                }
                coordinator.handle(now, from, message);
            }
        }
    }

    fn answered(&mut self, now_ns: u64, ticket: Ticket, answer: Answer) {
        self.health.answered(now_ns, ticket, &answer);
        if let Some((_, epoch)) = self.grant_look.take_if(|(machine, _)| *machine == ticket.machine) {
            return self.grant_seen(now_ns, epoch, &answer);
        }
        if let Some((machine, writer)) = &mut self.writer
            && *machine == ticket.machine
        {
            writer.handle(now_ns, ticket.id, answer);
        } else if let Some((machine, reader)) = &mut self.reader
            && *machine == ticket.machine
        {
            reader.handle(now_ns, ticket.id, answer);
        }
    }

    /// Lets everything take effect until nothing moves.
    fn settle(&mut self, now_ns: u64, wall_ns: i64) {
        self.now_ns = now_ns;
        loop {
            self.settle_reader();
            self.settle_look(now_ns);
            self.look_for_grant(now_ns);
            self.settle_writer(now_ns, wall_ns);
            self.settle_coordinator(now_ns, wall_ns);
            // A commit or a release that it has begun goes out now, not with the next event.
            self.settle_writer(now_ns, wall_ns);
            self.settle_role();
            let is_held = self.reachable_holder().is_some();
            self.health.look(now_ns, is_held, self.is_at_rest(now_ns), self.follow.known_ns);
            self.settle_requests(now_ns);
            self.settle_waiting();
            if let Some(message) = self.loopback.pop_front() {
                self.deliver_own(now_ns, wall_ns, message);
                continue;
            }
            self.read_calendar(now_ns, wall_ns);
            if self.writer.is_none() && self.seek_due().is_some_and(|due| due <= now_ns) {
                self.seek();
                continue;
            }
            return;
        }
    }

    /// Whether all nodes rest, as there is nothing to do.
    fn is_at_rest(&self, now_ns: u64) -> bool {
        self.follow.is_resting()
            && self.writer.is_none()
            && !self.requests.need_coordinator()
            && self.due_ns.is_none_or(|due_ns| due_ns > now_ns)
    }

    /// A request to the store, which is answered once.
    fn call(&mut self, ticket: Ticket, call: Call) {
        self.health.asks(self.now_ns, ticket);
        self.actions.push_back(Action::Call(ticket, call));
    }

    /// When the next backup is due, on this node's clock. Asked for while no node coordinates, and not of a log that is being read:
    /// the backup that was due may be in what is still to come.
    fn read_calendar(&mut self, now_ns: u64, wall_ns: i64) {
        let before = self.due_ns.take();
        let is_known = self.has_read && self.reader.is_none();
        let is_asked = self.errand.is_none() && self.follow.holder.is_none();
        if self.writer.is_none() && is_known && is_asked {
            let due = self.calendar.next(&self.view.state, wall_ns, &|_| false);
            let left = |due: Due| u64::try_from(due.wall_ns.saturating_sub(wall_ns)).unwrap_or(0);
            let due_ns = due.map(|due| now_ns.saturating_add(left(due)));
            // What is due since a while is not due from now on: this node's turn after the others would never come.
            let since = before.filter(|&before| before <= now_ns && due_ns == Some(now_ns));
            self.due_ns = since.or(due_ns);
        }
    }

    fn settle_role(&mut self) {
        while let Some(out) = self.role.next_out() {
            match out {
                role::Out::Send(message) => self.tell_coordinator(message),
                role::Out::Start(assignment) => self.waiting.push_back(Waiting::Start(assignment)),
                role::Out::Merge(order) => self.waiting.push_back(Waiting::Merge(order)),
                role::Out::Stop(id) => {
                    let waits = self.waiting.iter().position(|waiting| waiting.job() == Some(id));
                    match waits.and_then(|at| self.waiting.remove(at)) {
                        Some(Waiting::Merge(_)) => self.role.merged(id, Ok(Vec::new())),
                        Some(_) => self.role.ended(id, Ok(())),
                        None => self.actions.push_back(Action::Stop(id)),
                    }
                }
                role::Out::Flush(id) if self.waiting.iter().any(|waiting| waiting.job() == Some(id)) => {
                    self.role.flushed(id);
                }
                role::Out::Flush(id) => self.actions.push_back(Action::Flush(id)),
                role::Out::Committed(id) => self.actions.push_back(Action::Committed(id)),
            }
        }
    }

    fn probe_asked(&mut self, ask: u64, policy: String, volumes: Vec<VolumeId>) {
        if self.waiting.len() < PROBES_WAITING_MAX {
            return self.waiting.push_back(Waiting::Probe { ask, policy, volumes });
        }
        let why = format!("{PROBES_WAITING_MAX} questions wait for this node to read the log; try again");
        let failed = volumes.into_iter().map(|volume| (volume, why.clone())).collect();
        self.tell_coordinator(Message::Probed { ask, found: Vec::new(), failed });
    }

    fn settle_coordinator(&mut self, now_ns: u64, wall_ns: i64) {
        if self.coordinator.is_some() && self.announce_ns <= now_ns {
            self.announce(now_ns);
        }
        self.leave_to_others(now_ns);
        let may_coordinate = self.may_coordinate();
        let Some((_, writer)) = &mut self.writer else { return };
        let Some(coordinator) = &mut self.coordinator else { return };
        if let Some(successor) = self.releasing {
            writer.release(now_ns, successor);
        } else if may_coordinate {
            let now = Now { ns: now_ns, wall_ns, state: &writer.view().state };
            if coordinator.deadline().is_some_and(|due| due <= now_ns) {
                coordinator.turn(now);
            }
            if writer.is_ready()
                && let Some(batch) = coordinator.next_batch(now)
            {
                match writer.commit(now_ns, batch) {
                    Ok(()) => {}
                    Err((LogFault::Refused { record, why }, _)) => {
                        let now = Now { ns: now_ns, wall_ns, state: &writer.view().state };
                        coordinator.refused(now, record, why);
                    }
                    Err(_) => coordinator.put_back(),
                }
            }
        }
        while let Some(out) = self.coordinator.as_mut().and_then(Coordinator::next_out) {
            match out {
                coordinator::Out::Send(to, message) => self.send(to, message),
                coordinator::Out::Collect(order) => self.collect(order),
                coordinator::Out::Release(successor) => self.releasing = Some(successor),
            }
        }
    }

    /// A step of a garbage run, with the log as far as this node has written it.
    fn collect(&mut self, order: Order) {
        let Some((_, writer)) = &self.writer else { return };
        let (state, seen) = (Arc::new(writer.view().state.clone()), writer.view().head);
        self.actions.push_back(Action::Collect { order, state, seen });
    }

    /// Of a coordinator that is gone it is dropped.
    fn collected(&mut self, now_ns: u64, wall_ns: i64, number: u64, result: Result<Outcome, String>) {
        if let (Some((_, writer)), Some(coordinator)) = (&self.writer, &mut self.coordinator) {
            coordinator.collected(Now { ns: now_ns, wall_ns, state: &writer.view().state }, number, result);
        }
    }

    /// A holder that has nothing to do but what none of the nodes that are up can lets the lease go, so that a node that can may have it:
    /// one that this node does not see, or a command with a volume of its own. It looks again later, and when a node comes.
    /// What comes meanwhile, a command or a backup that is due, it does itself.
    fn leave_to_others(&mut self, now_ns: u64) {
        let patience = ALONE_LEASES * self.config.options.timing.lease_ns;
        let is_new = self.alone_ns.is_some_and(|since| now_ns < since.saturating_add(patience));
        if is_new || self.releasing.is_some() || self.role.is_busy() {
            return;
        }
        if let Some(coordinator) = self.coordinator.as_ref().filter(|of| of.waits_for_others()) {
            self.left = coordinator.waiting();
            self.releasing = Some(None);
            let is_cut_off = self.up.is_empty() && !self.config.peers.is_empty();
            self.follow.leave_to_others(now_ns, 2 * patience, is_cut_off);
        }
    }
}

#[cfg(test)]
#[path = "node_test.rs"]
mod tests;

#[cfg(test)]
#[path = "alone_test.rs"]
mod alone_test;

#[cfg(test)]
#[path = "errand_test.rs"]
mod errand_test;
