//! The coordinator: the holder of the lease starts backups, cuts volumes into assignments, commits what workers report, and ends
//! backups. A state machine without I/O, clock or threads.
//!
//! ```text
//!  command, schedule, or a backup that runs in the log
//!     -> Probing    nodes that can read a volume open it and say what it is
//!     -> Beginning  "backup begun" is committed (or an interrupted one goes on, when its volumes are as they were)
//!     -> Running    gaps - what is out = shares -> Assign; Report -> commit -> Accepted; lost and failed ones are handed out again
//!     -> Ending     stretches tile every volume: "backup ended" is committed: a recovery point
//!
//!  tables out of order, a node without work -> Merge; Merged -> commit -> Accepted
//! ```
//!
//! | module | what |
//! |---|---|
//! | this one | messages in, messages and commits out; the queue of what is to be committed |
//! | [`jobs`] | the life of a backup |
//! | [`access`] | who may do what |
//! | [`assign`] | who has what, and what becomes of it |
//! | [`bounds`] | what is done before a bound of the log is reached |
//! | [`expire`] | points that no retention rule keeps |
//! | [`garbage`] | runs that give space back |
//! | `handout` | which node gets which stretch next |
//! | [`flush`] | what is packed is sent on request |
//! | `pending` | what waits for a commit, and what users may submit |
//! | [`merges`] | which segments become fewer, and who does it |
//! | [`share`] | how much of a volume for whom |
//! | [`probes`] | which nodes are looking at volumes |
//! | [`roster`] | the nodes |
//! | [`calendar`] | what is due by schedule |
//! | [`status`] | what people see |
//! | `stop` | backups that are stopped, and go on when they are asked for |
//! | `waits` | backups that wait for volumes, and clients that wait no more |
//!
//! Assignments are not durable, committed stretches are: a new coordinator reads the log, hears from the workers what they are at,
//! adopts it, and goes on. Nothing here decides what counts: the log's state refuses a stretch that is done (C4), so a coordinator
//! that is wrong about its workers costs repeated work only (P5).
//!
//! Invariants: a worker is told "accepted" only after the commit of its report (C1); one batch in flight (I3); memory depends on
//! nodes and assignments, not on items (P3).
//! Source: `agent/doc/commit-log.md`; `agent/doc/architecture.md`, Coordination.

pub mod access;
pub mod approval;
mod assign;
pub mod bounds;
pub mod calendar;
mod divide;
pub mod expire;
mod flush;
mod garbage;
mod handout;
mod jobs;
pub mod merges;
mod pending;
mod probes;
mod roster;
mod share;
pub mod status;
mod stop;
mod waits;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::backplane::message::{Message, NODE_ASSIGNMENTS_MAX};
use crate::format::access::AccessNews;
use crate::format::record::{Record, Tried};
use crate::gc::types::Order;
use crate::id::{BackupId, Epoch, NodeId};
use crate::log::limits::{RUNNING_MAX, SLOT_RECORDS_MAX};
use crate::log::state::{Refusal, State};
use crate::log::writer::Checks;
use crate::table::plan::Bounds;
use crate::work::{AssignmentId, Command, Reply};

use access::Refusals;
use assign::Assigned;
use bounds::Room;
use calendar::{Calendar, Due};
use divide::Divided;
use flush::Flush;
use garbage::Garbage;
use jobs::Job;
use merges::Merges;
use pending::{Pending, is_held, may_be_submitted};
pub use probes::PROBES_NODE_MAX;
use probes::Probes;
pub use roster::Contact;
use roster::Roster;
use status::Errors;

/// How long completions gather before they are committed together, in nanoseconds (C5).
const GROUP_NS: u64 = 1_000_000_000;
/// Bytes of records in one slot, encoded: the slot's 64 KiB less its header, its seal, and a checkpoint record that may ride along.
const GROUP_BYTES_MAX: usize = 56 * 1024;
/// Bits of a question's number that count within an epoch; the epoch is above them.
pub const ASK_BITS: u32 = 32;

/// Answers that are kept for a request that comes again: as many as all nodes have out at once, and a few times more.
const ANSWERED_MAX: usize = 256;

/// Who wants to know: a node, and its number for the request.
pub type Asker = (NodeId, u64);

/// What the node is to do for its coordinator.
#[allow(clippy::large_enum_variant, reason = "taken at once, never stored")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Out {
    /// Send to a node, which may be this one.
    Send(NodeId, Message),
    /// Carry out a step of a garbage run here.
    Collect(Order),
    /// Let the lease go, to a node or to any other.
    Release(Option<NodeId>),
}

/// What is the same for all of a coordinator's time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// This node.
    pub me: NodeId,
    /// Its peers.
    pub peers: Vec<NodeId>,
    /// Between beats, in nanoseconds: nodes are waited for in multiples of it.
    pub beat_ns: u64,
    /// Idle time after which the lease is let go, in nanoseconds.
    pub rest_ns: u64,
    /// When tables are in order.
    pub merges: Bounds,
    /// How near to bounds it lets its state come.
    pub room: Room,
    /// What it is there for alone, if it is.
    pub errand: Option<Errand>,
    /// What may be left out, in tests that must then find a violation.
    pub checks: Checks,
}

/// A node that was started for one backup and ends with it: no schedule is its business, nor what else is unfinished in the log, and it
/// waits for no volume that it cannot open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Errand {
    /// The policy.
    pub policy: String,
    /// A backup that the same process was at under an earlier lease. It had the volumes open ever since: it goes on, whether or not their
    /// state proves anything.
    pub own: Option<BackupId>,
}

/// Time, and the state as of the last commit: what every call is given.
#[derive(Clone, Copy, Debug)]
pub struct Now<'a> {
    /// Boot time in nanoseconds.
    pub ns: u64,
    /// Wall clock in nanoseconds since 1970, for people and schedules: the node's, within bounds of the store's.
    pub wall_ns: i64,
    /// The log.
    pub state: &'a State,
}

/// The machine.
#[derive(Clone, Debug, PartialEq)]
pub struct Coordinator {
    settings: Settings,
    epoch: Epoch,
    roster: Roster,
    jobs: BTreeMap<String, Job>,
    /// Places given in the queue of backups.
    places: u64,
    assigned: BTreeMap<AssignmentId, Assigned>,
    merges: Merges,
    probes: Probes,
    next_number: u32,
    next_ask: u64,
    queue: VecDeque<Pending>,
    in_flight: Vec<Pending>,
    last_commit_ns: u64,
    out: VecDeque<Out>,
    errors: Errors,
    calendar: Calendar,
    /// Workers of the epoch before are waited for until then.
    adopt_until_ns: u64,
    busy_ns: u64,
    /// As of the last turn; see [`Coordinator::waits_for_others`].
    only_waits: bool,
    released: bool,
    /// Backups wait for merges.
    paused: bool,
    /// Live segments from which on they do.
    pause_from: usize,
    /// When it is looked at next whether the floor may be raised.
    floor_look_ns: u64,
    flush: Option<Flush>,
    divided: Divided,
    refusals: Refusals,
    /// Requests that were answered, and how: one that comes again is not carried out again.
    answered: VecDeque<(Asker, Reply)>,
    garbage: Garbage,
    /// Pins in the log: their counter, and since when it is that.
    pins: BTreeMap<u64, (u64, u64)>,
    /// End of the lease, for people.
    lease_end_ns: Option<u64>,
    /// How far this node's clock is ahead of the store's, for people.
    clock_ahead_ns: Option<i64>,
    /// When `turn` has something to do without an event.
    wake_ns: Option<u64>,
}

impl Coordinator {
    /// A coordinator whose epoch has just begun. Backups that run in the log go on.
    pub fn new(settings: Settings, epoch: Epoch, now: Now<'_>) -> Coordinator {
        let nodes = settings.peers.iter().copied().chain([settings.me]);
        let mut coordinator = Coordinator {
            roster: Roster::new(now.ns, nodes),
            epoch,
            jobs: BTreeMap::new(),
            places: 0,
            assigned: BTreeMap::new(),
            merges: Merges::default(),
            probes: Probes::default(),
            next_number: 0,
            // An answer may be to a question of the epoch before.
            next_ask: epoch.0.wrapping_shl(ASK_BITS),
            queue: VecDeque::new(),
            in_flight: Vec::new(),
            last_commit_ns: now.ns,
            out: VecDeque::new(),
            errors: Errors::default(),
            calendar: Calendar::default(),
            adopt_until_ns: now.ns.saturating_add(2 * settings.beat_ns),
            busy_ns: now.ns,
            only_waits: false,
            released: false,
            paused: false,
            pause_from: settings.room.segments,
            floor_look_ns: now.ns,
            flush: None,
            divided: Divided::default(),
            refusals: Refusals::default(),
            answered: VecDeque::new(),
            garbage: Garbage::default(),
            pins: BTreeMap::new(),
            lease_end_ns: None,
            clock_ahead_ns: None,
            wake_ns: Some(now.ns),
            settings,
        };
        for tried in now.state.tried.values() {
            coordinator.errors.add_of(&tried.policy, tried.wall_ns, None, tried.why.clone());
        }
        for (_, running) in now.state.at_work() {
            let errand = coordinator.settings.errand.as_ref();
            // A stopped backup goes on when a user asks for it, at this coordinator or a later one.
            let is_left = running.is_stopped && coordinator.settings.checks.stopped();
            if !is_left && errand.is_none_or(|errand| errand.policy == running.policy) {
                coordinator.start(now, &running.policy, None);
            }
        }
        coordinator
    }

    /// What to do, until there is nothing.
    pub fn next_out(&mut self) -> Option<Out> {
        self.out.pop_front()
    }

    /// When to call `turn` again at the latest.
    pub fn deadline(&self) -> Option<u64> {
        self.wake_ns
    }

    /// Assignments that are out, and commits that wait or are in flight.
    pub fn waits(&self) -> usize {
        self.assigned.len() + self.merges.len() + self.queue.len() + self.in_flight.len()
    }

    /// When the lease ends as far as is known now.
    pub fn set_lease_end(&mut self, ns: Option<u64>) {
        self.lease_end_ns = ns;
    }

    /// How far this node's clock is ahead of the store's, when the two do not agree.
    pub fn set_clock_ahead(&mut self, ns: Option<i64>) {
        self.clock_ahead_ns = ns;
    }

    /// A node's connection came or went.
    pub fn set_up(&mut self, now: Now<'_>, node: NodeId, up: bool) {
        self.only_waits = false;
        self.roster.set_up(now.ns, node, up);
        self.divided.forget(node);
        if up {
            self.send(node, Message::Announce { resting: false, successor: None });
        }
        self.wake_ns = Some(now.ns);
    }

    /// Takes a message that is for the coordinator. Others are not its business.
    pub fn handle(&mut self, now: Now<'_>, from: NodeId, message: Message) {
        self.only_waits = false;
        match message {
            Message::Present(present) => self.present(now, from, present),
            Message::Probed { ask, found, failed } => self.probed(now, from, ask, found, failed),
            Message::Report(report) => self.report(now, from, report),
            Message::Merged { order, added } => self.merged(from, order, added),
            Message::Failed { id, what } => self.failed(now, from, id, &what),
            Message::Flushed { ask } => self.flushed(from, ask),
            Message::Request { request, command } => self.command(now, (from, request), command),
            Message::Announce { .. }
            | Message::Probe { .. }
            | Message::Assign(_)
            | Message::Merge(_)
            | Message::Accepted { .. }
            | Message::Revoke { .. }
            | Message::Flush { .. }
            | Message::Divide { .. }
            | Message::Fenced
            | Message::Reply { .. }
            | Message::Redirect { .. } => {}
        }
        self.wake_ns = Some(now.ns);
    }

    /// Does what time and earlier events ask for.
    pub fn turn(&mut self, now: Now<'_>) {
        self.wake_ns = None;
        if self.released {
            return;
        }
        self.look_after_nodes(now);
        self.turn_bounds(now);
        self.start_what_is_due(now);
        self.turn_jobs(now);
        self.turn_leaving(now);
        self.turn_refusals(now);
        self.turn_pins(now);
        // Merges first: a run that waits for the last of them goes on in the same turn.
        self.turn_merges(now);
        self.turn_garbage(now);
        self.end_pause(now);
        self.turn_flush(now);
        self.turn_divided(now);
        self.only_waits = self.only_waits(now);
        if self.released {
            return;
        }
        if !self.is_idle() {
            self.busy_ns = now.ns;
        } else if now.ns >= self.busy_ns.saturating_add(self.settings.rest_ns) {
            self.release(None);
        } else {
            self.wake_at(self.busy_ns.saturating_add(self.settings.rest_ns));
        }
        if let Some(due) = self.commit_due() {
            self.wake_at(due);
        }
    }

    fn start_what_is_due(&mut self, now: Now<'_>) {
        if self.settings.errand.is_some() {
            return;
        }
        loop {
            let mut calendar = std::mem::take(&mut self.calendar);
            let tried: BTreeSet<&str> = self.pending().filter_map(Pending::tried).collect();
            let goes_on = |job: &Job| !job.is_stopped() && !self.makes_way(now, job);
            let is_busy = |policy: &str| tried.contains(policy) || self.jobs.get(policy).is_some_and(goes_on);
            let next = calendar.next(now.state, now.wall_ns, &is_busy);
            self.calendar = calendar;
            let Some(Due { wall_ns: due, policy, ahead_ns }) = next else { return };
            if due > now.wall_ns {
                let left = u64::try_from(due.saturating_sub(now.wall_ns)).unwrap_or(0);
                return self.wake_at(now.ns.saturating_add(left));
            }
            match ahead_ns {
                Some(ahead_ns) => self.count_from_now(now, &policy, ahead_ns),
                None => self.start(now, &policy, None),
            }
        }
    }

    /// The last start of a policy's backup is ahead of this node's clock by more than the schedule allows.
    fn count_from_now(&mut self, now: Now<'_>, policy: &str, ahead_ns: i64) {
        let seconds = ahead_ns / 1_000_000_000;
        let why = format!(
            "the schedule of {policy} counts from now on: the log has a start of it {seconds} s ahead of the clock of node {}; \
             look at the clocks of all nodes",
            self.settings.me
        );
        log::warn!("schedule: {why}");
        self.tried(now, policy, 0, why);
    }

    /// Notes a try, or a schedule's new time, in the log. One that does not fit the queue is noted when it comes to the same again.
    fn tried(&mut self, now: Now<'_>, policy: &str, failures: u32, why: String) {
        let tried = self.note_try(now, policy, failures, why);
        self.queue.push_back(Pending::Own(tried));
    }

    /// What became of a try: shown, and the record that says it.
    fn note_try(&mut self, now: Now<'_>, policy: &str, failures: u32, why: String) -> Record {
        let tried = Tried::new(policy, now.wall_ns, failures, &why);
        self.errors.add_of(policy, now.wall_ns, Some(self.settings.me), why);
        Record::BackupTried(tried)
    }

    /// The same of a try that failed, with when the next one is due by its schedule.
    fn try_failed(&mut self, now: Now<'_>, policy: &str, why: &str) {
        let tried = self.note_failed_try(now, policy, why);
        self.queue.push_back(Pending::Own(tried));
    }

    fn note_failed_try(&mut self, now: Now<'_>, policy: &str, why: &str) -> Record {
        let failures = now.state.tried.get(policy).map_or(0, |tried| tried.failures).saturating_add(1);
        let minutes = calendar::retry_ns(failures) / 60_000_000_000;
        log::warn!("backup: not done policy={policy} failures={failures} why={why}");
        let again =
            format!("{why} (failure {failures}; if it has a schedule it is tried again {minutes} min later)");
        self.note_try(now, policy, failures, again)
    }

    /// What waits for its commit, and what is being committed.
    fn pending(&self) -> impl Iterator<Item = &Pending> {
        self.queue.iter().chain(&self.in_flight)
    }

    /// Whether it has nothing to do.
    pub fn is_idle(&self) -> bool {
        self.jobs.values().all(Job::is_stopped)
            && self.merges.len() == 0
            && self.queue.is_empty()
            && self.in_flight.is_empty()
            && self.flush.is_none()
            && !self.garbage.is_at_work()
    }

    /// The backup of a policy that it is at, once it has begun or goes on.
    pub fn backup_of(&self, policy: &str) -> Option<BackupId> {
        self.jobs.get(policy).and_then(Job::backup)
    }

    /// What went wrong last.
    pub fn last_error(&self) -> Option<&str> {
        self.errors.last()
    }

    /// Whether nothing goes on, and nothing is due, but what only nodes that are not here can do.
    pub fn waits_for_others(&self) -> bool {
        self.only_waits
    }

    fn wake_at(&mut self, ns: u64) {
        self.wake_ns = Some(self.wake_ns.map_or(ns, |wake| wake.min(ns)));
    }

    fn send(&mut self, to: NodeId, message: Message) {
        self.out.push_back(Out::Send(to, message));
    }

    fn reply(&mut self, (node, request): Asker, reply: Reply) {
        if self.answered.len() == ANSWERED_MAX {
            self.answered.pop_front();
        }
        self.answered.push_back(((node, request), reply.clone()));
        self.send(node, Message::Reply { request, reply });
    }

    fn release(&mut self, successor: Option<NodeId>) {
        self.released = true;
        self.out.push_back(Out::Release(successor));
    }

    fn command(&mut self, now: Now<'_>, asker: Asker, command: Command) {
        // Its answer was lost with a connection, or is on its way: a backup that was stopped meanwhile is not begun again by it.
        if let Some((_, reply)) = self.answered.iter().find(|(of, _)| *of == asker) {
            let reply = reply.clone();
            return self.send(asker.0, Message::Reply { request: asker.1, reply });
        }
        // What is refused does not keep the cluster from resting.
        if let Command::As { subject, command } = command {
            return self.command_as(now, asker, &subject, *command);
        }
        self.busy_ns = now.ns;
        match command {
            Command::Backup(policy) => self.start(now, &policy, Some(asker)),
            Command::Stop(policy) => self.stop_backup(now, asker, &policy),
            // Its node answers that, with what it knows of connections.
            Command::Status => {}
            Command::Move(node) => self.move_to(now, asker, node),
            Command::Flush => self.flush(now, asker),
            Command::Submit(records) => {
                let subject = format!("node:{}", asker.0);
                self.submit(now, asker, &subject, None, records);
            }
            Command::As { .. } => {}
        }
    }

    /// Records are to be committed for a subject; `by` says who asks, where that is to be in the log.
    fn submit(
        &mut self,
        now: Now<'_>,
        asker: Asker,
        subject: &str,
        by: Option<AccessNews>,
        records: Vec<Record>,
    ) {
        if !records.iter().all(may_be_submitted) {
            let why =
                "only changes of policies, points and roles, and damage that was found, may be submitted";
            return self.reply(asker, Reply::Refused(why.to_owned()));
        }
        if self.queue.len() >= self.settings.room.queue {
            return self.reply(asker, Reply::Refused("the coordinator is busy; try again".to_owned()));
        }
        let mut records = match approval::admit(now.state, subject, now.wall_ns, records) {
            Ok(records) => records,
            Err(why) => return self.reply(asker, Reply::Refused(why)),
        };
        // The clock of who asks says nothing.
        if self.settings.checks.date() {
            records.iter_mut().for_each(|record| expire::date(record, now.wall_ns));
        }
        let records = by.map(Record::Access).into_iter().chain(records).collect();
        self.queue.push_back(Pending::Submit(asker, records));
    }

    fn move_to(&mut self, now: Now<'_>, asker: Asker, node: NodeId) {
        if node == self.settings.me {
            return self.reply(asker, Reply::Done(None));
        }
        if self.roster.get(node).is_some_and(|node| node.up) {
            self.flush_and_move(now, asker, node);
        } else {
            self.refuse_move(asker, node);
        }
    }

    fn move_now(&mut self, asker: Asker, node: NodeId) {
        if self.roster.get(node).is_some_and(|node| node.up) {
            self.reply(asker, Reply::Done(None));
            self.release(Some(node));
        } else {
            self.refuse_move(asker, node);
        }
    }

    fn refuse_move(&mut self, asker: Asker, node: NodeId) {
        let why = format!("node {node} is not connected to the coordinator, node {}", self.settings.me);
        self.reply(asker, Reply::Refused(why));
    }

    /// When a batch should be committed: `None` when nothing waits or one is in flight.
    fn commit_due(&self) -> Option<u64> {
        if self.queue.is_empty() || !self.in_flight.is_empty() {
            return None;
        }
        let at_work = self.at_work();
        // A client waits for it: a person, or a worker that has nothing else to do. Without peers there is
        // nothing to gather.
        let hurries = self.settings.peers.is_empty()
            || self.queue.iter().any(|pending| match pending {
                Pending::Report(node, _) => !at_work.contains(node),
                Pending::Merge(..) | Pending::Expire(_) | Pending::Collect(_) => false,
                // A client that got the refusal may ask at once what became of it.
                Pending::Own(record) => matches!(record, Record::BackupTried(_)),
                Pending::Begin { .. } | Pending::End { .. } | Pending::Submit(..) | Pending::Stop { .. } => {
                    true
                }
            });
        Some(if hurries { 0 } else { self.last_commit_ns.saturating_add(GROUP_NS) })
    }

    /// The next batch, when it is time for one. It is in flight until `committed` or `refused`.
    pub fn next_batch(&mut self, now: Now<'_>) -> Option<Vec<Record>> {
        if self.released || self.commit_due().is_none_or(|due| due > now.ns) {
            return None;
        }
        let (mut batch, mut bytes) = (Vec::new(), 0);
        while let Some(pending) = self.queue.front_mut() {
            // What the coordinator says of a policy of the old name, or of one that is removed, would be refused behind it, and said again.
            let is_alone = pending.removes() || pending.renames();
            if is_alone && !batch.is_empty() {
                break;
            }
            if pending.removes() {
                pending.give_up(now.state);
            }
            // Nothing in front of it in the batch may begin or end what it stops.
            if matches!(pending, Pending::Stop { .. }) {
                if !batch.is_empty() {
                    break;
                }
                pending.settle_stop(now.state);
            }
            let is_last = pending.says_who() || pending.asks();
            let records = pending.records();
            let size: usize = records.iter().map(Record::encoded_len).sum();
            let full = bytes + size > GROUP_BYTES_MAX || batch.len() + records.len() >= SLOT_RECORDS_MAX;
            if full && !batch.is_empty() {
                break;
            }
            bytes += size;
            batch.extend(records);
            self.in_flight.extend(self.queue.pop_front());
            // What follows would be said to be asked for by the same, or be a request with the same number.
            if is_alone || is_last {
                break;
            }
        }
        self.last_commit_ns = now.ns;
        Some(batch)
    }

    /// The batch in flight counts.
    pub fn committed(&mut self, now: Now<'_>) {
        for pending in std::mem::take(&mut self.in_flight) {
            match pending {
                Pending::Report(node, report) => self.report_committed(now, node, &report),
                Pending::Merge(node, order, _) => self.merge_committed(node, &order),
                Pending::Begin { policy, backup, .. } => self.begun(now, &policy, backup),
                Pending::End { policy, backup, .. } => self.ended(now, &policy, backup),
                Pending::Submit(asker, records) => {
                    for record in &records {
                        match record {
                            Record::PolicyRemoved { name, .. } => self.policy_removed(name),
                            Record::PolicyRenamed { from, to, .. } => self.policy_renamed(from, to),
                            Record::PointExpired { .. } | Record::PointGuarded(_) => {
                                self.merges.backups_changed()
                            }
                            _ => {}
                        }
                    }
                    self.reply(asker, Reply::Done(None));
                }
                Pending::Stop { asker, policy, backup, .. } => self.stopped(asker, &policy, backup),
                Pending::Own(_) | Pending::Collect(_) => {}
                Pending::Expire(_) => self.merges.backups_changed(),
            }
        }
        self.wake_ns = Some(now.ns);
    }

    /// The batch was refused at a record, before anything was written: that one's owner is told, the others wait for the next batch.
    pub fn refused(&mut self, now: Now<'_>, record: usize, why: Refusal) {
        let mut first = 0;
        let mut again = Vec::new();
        for pending in std::mem::take(&mut self.in_flight) {
            let records = first..first + pending.records().len();
            first = records.end;
            if !records.contains(&record) {
                again.push(pending);
                continue;
            }
            match pending {
                Pending::Report(node, report) => self.report_refused(now, node, &report, why),
                Pending::Merge(node, order, _) => self.merge_refused(now, node, &order, why),
                Pending::Begin { policy, .. } => self.begin_refused(now, &policy, why),
                Pending::End { policy, .. } => self.end_refused(now, &policy, why),
                // Sent again to the coordinator that came next, by a node that was not told.
                Pending::Submit(asker, records)
                    if records.iter().all(|record| is_held(now.state, record)) =>
                {
                    self.reply(asker, Reply::Done(None));
                }
                Pending::Submit(asker, _) => self.reply(asker, Reply::Refused(why.to_string())),
                Pending::Stop { asker, policy, .. } => {
                    let why = format!("the backup of {policy} was not stopped: {why}");
                    asker.into_iter().for_each(|asker| self.reply(asker, Reply::Refused(why.clone())));
                }
                Pending::Own(record) => log::warn!("log: refused record={record:?} why={why}"),
                Pending::Collect(records) => self.collect_refused(&records, why),
                // Removed by a command meanwhile: the next backup looks again.
                Pending::Expire(records) => {
                    log::info!("retention: put off points={} why={why}", records.len())
                }
            }
        }
        again.into_iter().rev().for_each(|pending| self.queue.push_front(pending));
        self.wake_ns = Some(now.ns);
    }

    /// The batch in flight was not taken, for a reason that has nothing to do with it: it comes again.
    pub fn put_back(&mut self) {
        for pending in std::mem::take(&mut self.in_flight).into_iter().rev() {
            self.queue.push_front(pending);
        }
    }
}

#[cfg(test)]
#[path = "mod_test.rs"]
mod tests;
