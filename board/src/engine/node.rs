//! A node with what carries its actions out: threads for the log, for jobs and for looks at volumes, and a
//! backplane if there are peers. Who owns it waits for whatever it likes, and gives it turns.
//!
//! ```text
//!   owner: turn, command, leave ---> Node ---> Send ---------> backplane
//!     ^                               ^   `--> Call ---------> log threads --+
//!     `--- news, notes, replies       |   `--> Probe, Start -> job, look ----+
//!                                     `------- post <------------------------+
//! ```
//!
//! Invariants: nothing here waits. Source: `agent/doc/architecture.md`, Threads.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::mpsc::Receiver;

use windlass_agent::backplane::message::Message;
use windlass_agent::backplane::net::Net;
use windlass_agent::coordinator::Contact;
use windlass_agent::drive::node::{Ports, turn};
use windlass_agent::format::slot::{Author, HolderKind};
use windlass_agent::gc::types::Order;
use windlass_agent::id::{Epoch, NodeId, Slot, VolumeId};
use windlass_agent::log::call::{Call, Lane};
use windlass_agent::log::lease::{Identity, Timing};
use windlass_agent::log::sealer::LogSealer;
use windlass_agent::log::state::State;
use windlass_agent::log::writer::WriterOptions;
use windlass_agent::node::{Config, Event, Node, Note, Ticket};
use windlass_agent::store::throttle::Throttle;
use windlass_agent::store::{Store, StoreFault};
use windlass_agent::table::plan::Bounds;
use windlass_agent::work::{Assignment, AssignmentId, Command, MergeOrder, Present, Reply};
use windlass_agent::worker::rate::Rate;
use windlass_hal::clock::Instant;
use windlass_hal::linux::link::TcpLink;

use super::desk::Seen;
use super::post::{Letter, Post, Stretch};
use super::repository::Repository;
use super::worker::{Work, Worker};
use crate::engine::calls::Calls;
use crate::engine::host::{self, HostClock};
use crate::engine::limits::StoreLimits;
use crate::failure::Failure;
use crate::signal::Wish;

/// Idle time after which the coordinator lets the lease go, in nanoseconds: an idle cluster asks the store
/// for nothing.
const REST_NS: u64 = 60_000_000_000;

/// How the node of `work`, in a process of `kind`, is set up. `request_ns`: how long a command waits for a
/// coordinator.
///
/// # Errors
/// The system gives no random bytes.
pub fn config(
    work: &Work,
    kind: HolderKind,
    peers: Vec<NodeId>,
    present: Present,
    request_ns: u64,
) -> Result<Config<LogSealer>, Failure> {
    let (node, boot) = work.author;
    let timing = work.settings.timing;
    Ok(Config {
        identity: Identity { cluster: work.target.cluster, me: Author { node, boot }, who: host::who(kind) },
        peers,
        sealer: LogSealer::new(&work.target.keys),
        options: WriterOptions { timing, read_only: work.target.read_only, ..WriterOptions::default() },
        present,
        rest_ns: REST_NS,
        merges: Bounds::default(),
        room: Default::default(),
        request_ns,
        seed: host::random()?,
    })
}

/// What its owner should know.
#[derive(Debug)]
pub enum News {
    /// A signal.
    Wish(Wish),
    /// What a job did that has ended well.
    Done(Box<Stretch>),
    /// A job on a volume has ended, with the reason when it was not done and nobody took it back.
    Ended(VolumeId, Result<(), String>),
    /// A merge has ended: segments that are no more, and those that took their place; or why not.
    Merged(Result<(u64, u64), String>),
}

/// The job or merge that runs.
#[derive(Clone, Copy, Debug)]
struct Running {
    id: AssignmentId,
    volume: VolumeId,
    /// Of a merge, how many segments go in.
    segments: u64,
    /// It was taken back.
    taken_back: bool,
}

/// What carries the node's actions out.
struct Host {
    net: Option<Net<TcpLink>>,
    calls: Calls<Ticket>,
    worker: Worker,
    limits: Arc<StoreLimits>,
    running: Option<Running>,
    /// Calls that nobody waits for, and that are not answered.
    keeping: BTreeSet<Ticket>,
    replies: VecDeque<(u64, Reply)>,
    notes: VecDeque<Note>,
    /// Requests to the store for log and lease so far.
    calls_made: u64,
}

impl Host {
    fn is_at(&self, id: AssignmentId) -> bool {
        self.running.is_some_and(|running| running.id == id)
    }

    /// What an event says that the owner should know.
    fn hear(&mut self, event: &Event) -> Option<News> {
        match event {
            Event::Ended { id, result } => {
                let running = self.running.take_if(|running| running.id == *id)?;
                let result = if running.taken_back { Ok(()) } else { result.clone() };
                log::info!("job: ended");
                Some(News::Ended(running.volume, result))
            }
            Event::Merged { id, result } => {
                let running = self.running.take_if(|running| running.id == *id)?;
                let result = result.as_ref().map(|added| (running.segments, added.len() as u64));
                if let Ok((_, added)) = result {
                    log::info!("merge: ended segments={added}");
                }
                Some(News::Merged(result.map_err(Clone::clone)))
            }
            _ => None,
        }
    }

    fn begins(&mut self, id: AssignmentId, volume: VolumeId, segments: u64) {
        self.running = Some(Running { id, volume, segments, taken_back: false });
    }
}

impl Ports for Host {
    fn send(&mut self, to: NodeId, epoch: Epoch, slot: Slot, message: &Message) {
        let now = Instant::from_ns(HostClock.boot_ns());
        if let Some(net) = &mut self.net
            && let Err(why) = net.send(now, to, epoch, slot, message)
        {
            // With the connection that broke both ends know that it was not.
            log::warn!("backplane: not sent to={to} kind={} why={why:?}", message.kind());
        }
    }

    fn call(&mut self, ticket: Ticket, call: Call) {
        self.calls_made += 1;
        if call.lane() == Lane::Keep {
            self.keeping.insert(ticket);
        }
        self.calls.submit(ticket, call);
    }

    fn probe(&mut self, ask: u64, policy: &str, volumes: Vec<VolumeId>, state: Arc<State>) {
        self.worker.look(ask, policy, volumes, state);
    }

    fn start(&mut self, assignment: Assignment, state: Arc<State>) {
        log::info!(
            "job: begins backup={} volume={} from={:?} to={:?}",
            assignment.backup,
            assignment.volume.volume,
            assignment.from,
            assignment.to
        );
        self.begins(assignment.id, assignment.volume.volume, 0);
        self.worker.run(assignment, state);
    }

    fn merge(&mut self, order: MergeOrder, state: Arc<State>) {
        log::info!("merge: begins volume={} segments={}", order.volume, order.segments.len());
        self.begins(order.id, order.volume, order.segments.len() as u64);
        self.worker.merge(order, state);
    }

    fn collect(&mut self, order: Order, state: Arc<State>, seen: Slot) {
        self.worker.collect(order, state, seen);
    }

    fn stop(&mut self, id: AssignmentId) {
        if let Some(running) = self.running.as_mut().filter(|running| running.id == id) {
            running.taken_back = true;
            self.worker.stop();
        }
    }

    fn committed(&mut self, id: AssignmentId) {
        if self.is_at(id) {
            self.worker.committed();
        }
    }

    fn flush(&mut self, id: AssignmentId) {
        if self.is_at(id) {
            self.worker.flush();
        }
    }

    fn divide(&mut self, policy: &str, nodes: u32) {
        log::info!("limits: divided policy={policy} nodes={nodes}");
        self.limits.divide(policy, nodes);
    }

    fn reply(&mut self, client: u64, reply: Reply) {
        self.replies.push_back((client, reply));
    }

    fn note(&mut self, note: Note) {
        self.notes.push_back(note);
    }
}

/// See the module.
pub struct Engine {
    node: Node<LogSealer>,
    host: Host,
    letters: Receiver<Letter>,
    /// What the store said, while its last answer to a call of the log is a failure.
    words: Option<String>,
    rate: Rate,
    throttle: Arc<Throttle>,
    /// For what time it says that it is.
    store: Arc<dyn Store>,
    /// Of an agent: how its store answers.
    repository: Option<Arc<Repository>>,
    timing: Timing,
}

impl Engine {
    /// Starts the threads of a node. `post` is the other end of `letters`.
    ///
    /// # Errors
    /// No thread is left.
    pub fn start(
        node: Node<LogSealer>,
        work: Work,
        net: Option<Net<TcpLink>>,
        post: &Post,
        letters: Receiver<Letter>,
    ) -> Result<Engine, Failure> {
        let answered = post.clone();
        let tell = move |ticket, answer, fault: Option<StoreFault>| {
            let words = fault.map(|fault| fault.to_string());
            words.iter().for_each(|words| log::debug!("log: {words}"));
            answered.send(Letter::Answer(ticket, answer, words));
        };
        let (throttle, settings) = (Arc::clone(&work.target.throttle), work.settings);
        let store = Arc::clone(&work.target.store);
        let repository = work.upkeep.clone();
        let host = Host {
            net,
            calls: Calls::start(&work.target.store, settings.log_threads, tell)?,
            limits: Arc::clone(&work.limits),
            worker: Worker::start(work, post)?,
            running: None,
            keeping: BTreeSet::new(),
            replies: VecDeque::new(),
            notes: VecDeque::new(),
            calls_made: 0,
        };
        let (words, rate) = (None, Rate::default());
        let timing = settings.timing;
        Ok(Engine { node, host, letters, words, rate, throttle, store, repository, timing })
    }

    /// The machine.
    pub fn node(&self) -> &Node<LogSealer> {
        &self.node
    }

    /// What it knows; its state only if that is not as of this epoch and slot.
    pub fn seen(&self, have: (Epoch, Slot)) -> Seen {
        let view = self.node.view();
        let at = (view.state.epoch, view.head);
        let state = (at != have).then(|| Arc::new(view.state.clone()));
        Seen { at, state, coordinates: self.node.coordinates(), waits: self.node.waits() }
    }

    /// The backplane, if there is one.
    pub fn net(&mut self) -> Option<&mut Net<TcpLink>> {
        self.host.net.as_mut()
    }

    /// Gives the node an event, or the time alone, and carries out what follows.
    pub fn turn(&mut self, event: Option<Event>) {
        // Limits may be others from a time of the day on; an event does not wait for that.
        if event.is_none() {
            self.host.limits.turn();
        }
        turn(&mut self.node, &mut self.host, HostClock.boot_ns(), HostClock.wall_ns(), event);
    }

    /// Gives the node a command of somebody on this machine; a reply with that number follows.
    pub fn command(&mut self, client: u64, command: Command) {
        self.turn(Some(Event::Local { client, command }));
    }

    /// Who gave a command does not wait for its reply any more.
    pub fn client_left(&mut self, client: u64) {
        self.turn(Some(Event::Left { client }));
    }

    /// Takes in what threads say, until there is something that its owner should know.
    pub fn hear(&mut self) -> Option<News> {
        while let Ok(letter) = self.letters.try_recv() {
            match letter {
                Letter::Wish(wish) => return Some(News::Wish(wish)),
                Letter::Done(done) => return Some(News::Done(done)),
                Letter::Answer(ticket, answer, words) => {
                    self.host.keeping.remove(&ticket);
                    self.words.clone_from(&words);
                    words.into_iter().for_each(|words| self.node.store_said(words));
                    self.store.time().into_iter().for_each(|time| self.node.store_says(time));
                    self.turn(Some(Event::Answered(ticket, answer)));
                }
                Letter::Event(event) => {
                    let news = self.host.hear(&event);
                    self.turn(Some(event));
                    if news.is_some() {
                        return news;
                    }
                }
            }
        }
        None
    }

    /// The next answer to a command.
    pub fn next_reply(&mut self) -> Option<(u64, Reply)> {
        self.host.replies.pop_front()
    }

    /// What an operator should know.
    pub fn next_note(&mut self) -> Option<Note> {
        self.host.notes.pop_front()
    }

    /// When the node wants its next turn.
    pub fn deadline(&self) -> Option<u64> {
        let net = self.host.net.as_ref().and_then(Net::deadline).map(Instant::as_ns);
        [self.node.deadline(), net].into_iter().flatten().min()
    }

    /// What the store said, while its last answer to a call of the log is a failure.
    pub fn words(&self) -> Option<&str> {
        self.words.as_deref()
    }

    /// What is known of the connection to a peer.
    pub fn set_contact(&mut self, peer: NodeId, contact: Contact) {
        self.node.set_contact(peer, contact);
    }

    /// Another machine with this node's number was met.
    pub fn meet_namesake(&mut self, at: Instant, place: String) {
        self.node.meet_namesake(at.as_ns(), place);
    }

    /// What the node has, from now on.
    pub fn set_present(&mut self, present: Present) {
        self.node.set_present(present);
    }

    /// In each turn: how fast this node uploads, for its share of the work, and whether the store takes it.
    pub fn tell_rate(&mut self) {
        if let Some(repository) = &self.repository {
            self.node.set_data_trouble(repository.opened.store.watch().data_trouble());
        }
        let (sent, busy) = (self.throttle.sent(), self.is_working());
        self.node.set_uploaded(sent);
        if let Some(rate) = self.rate.look(HostClock.boot_ns(), self.timing.beat_ns, sent, busy) {
            self.node.set_rate(rate);
        }
    }

    /// Whether a job or a merge runs.
    pub fn is_working(&self) -> bool {
        self.host.running.is_some()
    }

    /// Whether checkpoints or deletes of the log are under way: nobody waits for them, but who ends with them
    /// begun never gets them done.
    pub fn is_keeping(&self) -> bool {
        !self.host.keeping.is_empty()
    }

    /// Length of a lease, in nanoseconds.
    pub fn lease_ns(&self) -> u64 {
        self.timing.lease_ns
    }

    /// Requests to the store for log and lease so far.
    pub fn calls_made(&self) -> u64 {
        self.host.calls_made
    }

    /// Lets the lease go, and ends what runs: until neither is left, turns are to go on.
    pub fn leave(&mut self) {
        self.node.leave(HostClock.boot_ns(), HostClock.wall_ns());
        self.host.worker.stop();
        self.turn(None);
    }

    /// Whether the lease is let go and nothing runs.
    pub fn has_left(&self) -> bool {
        !self.node.coordinates() && !self.is_working()
    }

    /// Ends the threads of jobs and looks, each after what it is at.
    pub fn end(self) {
        drop(self.letters);
        self.host.worker.end();
    }
}
