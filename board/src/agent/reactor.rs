//! The agent's loop: waits for backplane, control socket and threads, gives the node what has happened, and carries out what it says.
//!
//! Invariants: nothing here waits but the poll; the service manager's watchdog is fed after a full turn only. Source: ours.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::Duration;

use windlass_agent::backplane::message::{Assignment, AssignmentId, MergeOrder, Message, Present, Reply};
use windlass_agent::backplane::net::{self, Net};
use windlass_agent::backplane::tls::Tls;
use windlass_agent::coordinator::Contact;
use windlass_agent::drive::node::{Ports, turn};
use windlass_agent::id::{Epoch, NodeId, Slot, VolumeId};
use windlass_agent::log::call::Call;
use windlass_agent::log::fault::LogFault;
use windlass_agent::log::sealer::LogSealer;
use windlass_agent::log::state::State;
use windlass_agent::node::{Event, Node, Note, Ticket};
use windlass_agent::store::throttle::Throttle;
use windlass_agent::worker::rate::Rate;
use windlass_hal::clock::Instant;
use windlass_hal::linux::link::TcpLink;
use windlass_hal::linux::poll::Poll;

use crate::calls::Calls;
use crate::control::server::{CLIENTS_MAX, ClientId, Served, Server};
use crate::control::wire::{Answer, Identity, Request};
use crate::engine::post::Letter;
use crate::engine::worker::Worker;
use crate::failure::Failure;
use crate::host::HostClock;
use crate::logger;
use crate::notify::Notify;
use crate::repeats::without_numbers;
use crate::signal::Wish;

/// Token of the control socket's listener; its clients follow.
const CONTROL_TOKEN: usize = 0;
/// First token of the backplane.
pub const NET_TOKEN: usize = 1 + CLIENTS_MAX;
/// Longest wait, in nanoseconds: idle clients are looked for at least this often.
const WAIT_NS: u64 = 10_000_000_000;
/// How long a clean stop waits for the lease to be let go and the job to end, in nanoseconds.
const LEAVE_NS: u64 = 10_000_000_000;

/// What carries the node's actions out.
struct Host {
    net: Option<Net<TcpLink>>,
    calls: Calls<Ticket>,
    worker: Worker,
    /// The job or merge that runs.
    job: Option<AssignmentId>,
    clients: BTreeMap<u64, ClientId>,
    next_client: u64,
    replies: Vec<(ClientId, Answer)>,
    status: String,
    /// What the store said, while its last answer is a failure.
    words: Option<String>,
    /// Requests to the store for log and lease so far.
    calls_made: u64,
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
        self.job = Some(assignment.id);
        self.worker.run(assignment, state);
    }

    fn merge(&mut self, order: MergeOrder, state: Arc<State>) {
        log::info!("merge: begins volume={} segments={}", order.volume, order.segments.len());
        self.job = Some(order.id);
        self.worker.merge(order, state);
    }

    fn stop(&mut self, id: AssignmentId) {
        if self.job == Some(id) {
            self.worker.stop();
        }
    }

    fn committed(&mut self, id: AssignmentId) {
        if self.job == Some(id) {
            self.worker.committed();
        }
    }

    fn flush(&mut self, id: AssignmentId) {
        if self.job == Some(id) {
            self.worker.flush();
        }
    }

    fn reply(&mut self, client: u64, reply: Reply) {
        if let Some(client) = self.clients.remove(&client) {
            self.replies.push((client, Answer::Reply(reply)));
        }
    }

    fn note(&mut self, note: Note) {
        let of_store = matches!(
            note,
            Note::Lost(LogFault::Store { .. })
                | Note::Waiting(LogFault::Store { .. })
                | Note::Warning(LogFault::Store { .. })
        );
        let words = self.words.as_ref().filter(|_| of_store);
        let words = words.map_or_else(String::new, |words| format!(" ({words})"));
        self.status = format!("{note}{words}");
        logger::say_rarely_as(&without_numbers(&self.status), &format!("windlass: {}", self.status));
    }
}

/// The loop.
pub struct Reactor {
    poll: Poll,
    letters: Receiver<Letter>,
    server: Server,
    host: Host,
    identity: Identity,
    beat_ns: u64,
    rate: Rate,
    throttle: Arc<Throttle>,
}

impl Reactor {
    /// Over ports that were made.
    #[allow(clippy::too_many_arguments, reason = "one call; each part is named where it is made")]
    pub fn new(
        mut poll: Poll,
        letters: Receiver<Letter>,
        net: Option<Net<TcpLink>>,
        server: Server,
        calls: Calls<Ticket>,
        worker: Worker,
        identity: Identity,
        beat_ns: u64,
        throttle: Arc<Throttle>,
    ) -> Result<Reactor, Failure> {
        poll.add(server.listener(), CONTROL_TOKEN)
            .map_err(|error| Failure::at("cannot wait for commands", error))?;
        // Those who came while the agent was booting.
        for place in 0..CLIENTS_MAX {
            if let Some(fd) = server.at(place).and_then(|client| server.descriptor(client)) {
                poll.add_both(fd, CONTROL_TOKEN + 1 + place)
                    .map_err(|error| Failure::at("cannot wait for a client", error))?;
            }
        }
        let host = Host {
            net,
            calls,
            worker,
            job: None,
            clients: BTreeMap::new(),
            next_client: 0,
            replies: Vec::new(),
            status: String::new(),
            words: None,
            calls_made: 0,
        };
        Ok(Reactor { poll, letters, server, host, identity, beat_ns, rate: Rate::default(), throttle })
    }

    /// Runs until a signal says otherwise. `reload` reads the profile again.
    pub fn run(
        &mut self,
        mut node: Node<LogSealer>,
        notify: &mut Notify,
        reload: &dyn Fn() -> Result<(Present, Option<Tls>), Failure>,
    ) {
        let mut ready = Vec::new();
        let mut leaving = None;
        loop {
            let now = HostClock.boot_ns();
            turn(&mut node, &mut self.host, now, HostClock.wall_ns(), None);
            self.hear_backplane(&mut node, &ready);
            self.hear_commands(&mut node, &ready);
            if let Some(wish) = self.hear_threads(&mut node) {
                match wish {
                    Wish::Reload => match reload() {
                        Ok((present, tls)) => {
                            logger::say(
                                "windlass: the profile was read again: weight, volumes, certificates and the limits of uploads and \
                                 downloads hold from now on, device_iops from the next backup on, the rest after a restart",
                            );
                            node.set_present(present);
                            if let (Some(net), Some(tls)) = (&mut self.host.net, tls) {
                                net.set_security(Box::new(tls));
                            }
                        }
                        Err(failure) => {
                            logger::say(format_args!("windlass: the profile stays as it was: {failure}"))
                        }
                    },
                    Wish::Stop => {
                        notify.stopping();
                        node.leave(now, HostClock.wall_ns());
                        self.host.worker.stop();
                        leaving = leaving.or(Some(now.saturating_add(LEAVE_NS)));
                    }
                }
            }
            self.tell_rate(&mut node);
            self.answer(&mut node);
            notify.status(&self.host.status);
            notify.alive(HostClock.boot_ns());
            if leaving.is_some_and(|until| now >= until || (!node.coordinates() && self.host.job.is_none())) {
                break;
            }
            self.wait(&node, notify, leaving, &mut ready);
        }
        if let Some(net) = &mut self.host.net {
            net.stop(Instant::from_ns(HostClock.boot_ns()));
        }
        log::info!("log: calls={}", self.host.calls_made);
        logger::say("windlass: stopped");
    }

    fn wait(
        &mut self,
        node: &Node<LogSealer>,
        notify: &Notify,
        leaving: Option<u64>,
        ready: &mut Vec<usize>,
    ) {
        let now = HostClock.boot_ns();
        let net = self.host.net.as_ref().and_then(Net::deadline).map(Instant::as_ns);
        let due = [node.deadline(), net, notify.feed_at(), leaving, Some(now.saturating_add(WAIT_NS))];
        let due = due.into_iter().flatten().min().unwrap_or(now);
        if let Err(error) = self.poll.wait(Some(Duration::from_nanos(due.saturating_sub(now))), ready) {
            log::warn!("reactor: poll failed error={error}");
            HostClock.sleep(Duration::from_millis(10));
        }
    }

    fn hear_backplane(&mut self, node: &mut Node<LogSealer>, ready: &[usize]) {
        let now_ns = HostClock.boot_ns();
        let now = Instant::from_ns(now_ns);
        if let Some(net) = &mut self.host.net {
            net.turn(now, ready);
        }
        while let Some(event) = self.host.net.as_mut().and_then(|net| net.next_event(now)) {
            let event = match event {
                net::Event::Up { node, .. } => {
                    logger::say_rarely(format_args!("windlass: node {node} is connected"));
                    Event::Up(node)
                }
                net::Event::Down { node, reason } => {
                    logger::say_rarely(format_args!("windlass: node {node} is gone: {reason}"));
                    Event::Down(node)
                }
                net::Event::Message { from, epoch, log_slot, message } => {
                    Event::Received { from, epoch, slot: log_slot, message }
                }
            };
            turn(node, &mut self.host, now_ns, HostClock.wall_ns(), Some(event));
        }
        if let Some(net) = &mut self.host.net
            && net.take_changed()
        {
            let since_ns = HostClock.wall_ns();
            for peer in net.peers() {
                let (twins, nameless) = (peer.twins.cloned(), net.nameless().cloned());
                let contact = Contact { up: peer.up, since_ns, why: peer.last, twins, nameless };
                node.set_contact(peer.node, contact);
            }
        }
    }

    /// What threads say; a signal ends the round.
    fn hear_threads(&mut self, node: &mut Node<LogSealer>) -> Option<Wish> {
        while let Ok(letter) = self.letters.try_recv() {
            match letter {
                Letter::Wish(wish) => return Some(wish),
                Letter::Answer(ticket, answer, words) => {
                    self.host.words.clone_from(&words);
                    words.into_iter().for_each(|words| node.store_said(words));
                    let event = Event::Answered(ticket, answer);
                    turn(node, &mut self.host, HostClock.boot_ns(), HostClock.wall_ns(), Some(event));
                }
                Letter::Event(event) => {
                    if let Event::Ended { id, result } = &event {
                        self.host.job = self.host.job.filter(|job| job != id);
                        match result {
                            Ok(()) => log::info!("job: ended"),
                            Err(why) => {
                                logger::say_rarely(format_args!("windlass: a job ended early: {why}"))
                            }
                        }
                    }
                    if let Event::Merged { id, result } = &event {
                        self.host.job = self.host.job.filter(|job| job != id);
                        match result {
                            Ok(added) => log::info!("merge: ended segments={}", added.len()),
                            Err(why) => logger::say(format_args!("windlass: tables were not merged: {why}")),
                        }
                    }
                    turn(node, &mut self.host, HostClock.boot_ns(), HostClock.wall_ns(), Some(event));
                }
            }
        }
        None
    }

    fn hear_commands(&mut self, node: &mut Node<LogSealer>, ready: &[usize]) {
        let now = HostClock.boot_ns();
        while let Some(client) = self.server.accept(now) {
            let fd = self.server.descriptor(client);
            let added = fd.map(|fd| self.poll.add_both(fd, CONTROL_TOKEN + 1 + client.place));
            if let Some(Err(error)) = added {
                log::warn!("control: cannot wait for a client error={error}");
                self.server.close(client);
            }
        }
        let places = ready.iter().filter(|token| (CONTROL_TOKEN + 1..NET_TOKEN).contains(token));
        for place in places.map(|token| token - CONTROL_TOKEN - 1).collect::<Vec<_>>() {
            if let Some(client) = self.server.at(place) {
                self.serve(node, client);
            }
        }
        while let Some(client) = self.server.expire(now) {
            self.forget(client);
        }
    }

    fn serve(&mut self, node: &mut Node<LogSealer>, client: ClientId) {
        loop {
            let now = HostClock.boot_ns();
            match self.server.serve(client, now) {
                Served::Waiting => return,
                Served::Over => return self.forget(client),
                Served::Request(Request::Identify) => {
                    self.server.answer(client, &Answer::Identity(Box::new(self.identity.clone())));
                }
                Served::Request(Request::Command(command)) => {
                    self.host.next_client += 1;
                    let number = self.host.next_client;
                    self.host.clients.insert(number, client);
                    let event = Event::Local { client: number, command };
                    turn(node, &mut self.host, now, HostClock.wall_ns(), Some(event));
                }
            }
        }
    }

    /// Answers commands; a client that was answered may have said more meanwhile.
    fn answer(&mut self, node: &mut Node<LogSealer>) {
        while let Some((client, answer)) = self.host.replies.pop() {
            self.server.answer(client, &answer);
            self.serve(node, client);
        }
    }

    fn forget(&mut self, client: ClientId) {
        if let Some(fd) = self.server.descriptor(client)
            && let Err(error) = self.poll.remove(fd)
        {
            log::debug!("control: error={error}");
        }
        self.server.close(client);
        self.host.clients.retain(|_, other| *other != client);
    }

    /// Every beat: how fast this node uploads, for its share of the work.
    fn tell_rate(&mut self, node: &mut Node<LogSealer>) {
        node.set_uploaded(self.throttle.sent());
        let busy = self.host.job.is_some();
        if let Some(rate) = self.rate.look(HostClock.boot_ns(), self.beat_ns, self.throttle.sent(), busy) {
            node.set_rate(rate);
        }
    }
}
