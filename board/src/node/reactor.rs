//! The agent's loop: waits for backplane, control socket and threads, gives the node what has happened, and carries out what it says.
//!
//! Invariants: nothing here waits but the poll; the service manager's watchdog is fed after a full turn only. Source: ours.

use std::collections::BTreeMap;
use std::sync::mpsc::Receiver;
use std::time::Duration;

use windlass_agent::backplane::net;
use windlass_agent::backplane::tls::Tls;
use windlass_agent::coordinator::Contact;
use windlass_agent::log::fault::LogFault;
use windlass_agent::node::{Event, Note};
use windlass_agent::units::HumanTime;
use windlass_agent::work::Command;
use windlass_agent::work::Present;
use windlass_hal::clock::Instant;
use windlass_hal::linux::poll::Poll;

use crate::control::server::{CLIENTS_MAX, ClientId, Served, Server};
use crate::control::wire::{Answer, Identity, Request};
use crate::engine::desk::{Ask, Tell, Told, Wanted};
use crate::engine::host::HostClock;
use crate::engine::node::{Engine, News};
use crate::failure::Failure;
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
/// How long the store fails before the log says so, in nanoseconds: one failure by itself is repeated, and no news.
const FAILS_NS: u64 = 1_000_000_000;
/// After this time a peer that was never heard of is named in the log, in nanoseconds: nodes find each other within seconds.
const MISSING_NS: u64 = 30_000_000_000;
/// How long a clean stop waits for the lease to be let go and the job to end, in nanoseconds.
const LEAVE_NS: u64 = 10_000_000_000;

/// The loop.
pub struct Reactor {
    poll: Poll,
    server: Server,
    engine: Engine,
    identity: Identity,
    clients: BTreeMap<u64, ClientId>,
    /// What threads of this process ask, and who of them waits for which answer.
    desk: Receiver<Wanted>,
    tells: BTreeMap<u64, Tell>,
    next_client: u64,
    status: String,
    /// It was said that the store fails.
    fails: bool,
    /// When peers that were never heard of are named; `None`: they were.
    missing_due_ns: Option<u64>,
}

impl Reactor {
    /// Over an engine that was started.
    pub fn new(
        mut poll: Poll,
        server: Server,
        engine: Engine,
        identity: Identity,
        desk: Receiver<Wanted>,
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
        let (clients, tells, next_client, status) = (BTreeMap::new(), BTreeMap::new(), 0, String::new());
        let missing_due_ns = Some(HostClock.boot_ns().saturating_add(MISSING_NS));
        let fails = false;
        Ok(Reactor {
            poll,
            server,
            engine,
            identity,
            clients,
            desk,
            tells,
            next_client,
            status,
            fails,
            missing_due_ns,
        })
    }

    /// Runs until a signal says otherwise. `reload` reads the profile again.
    pub fn run(&mut self, notify: &mut Notify, reload: &dyn Fn() -> Result<(Present, Option<Tls>), Failure>) {
        let mut ready = Vec::new();
        let mut leaving = None;
        loop {
            let now = HostClock.boot_ns();
            self.engine.turn(None);
            self.hear_backplane(&ready);
            self.hear_commands(&ready);
            self.hear_desk();
            if let Some(wish) = self.hear_threads() {
                match wish {
                    Wish::Reload => match reload() {
                        Ok((present, tls)) => {
                            logger::say(
                                "windlass: the profile was read again: weight, volumes, certificates and the limits of uploads and \
                                 downloads hold from now on, device_iops from the next backup on, the rest after a restart",
                            );
                            self.engine.set_present(present);
                            if let (Some(net), Some(tls)) = (self.engine.net(), tls) {
                                net.set_security(Box::new(tls));
                            }
                        }
                        Err(failure) => {
                            logger::say(format_args!("windlass: the profile stays as it was: {failure}"))
                        }
                    },
                    Wish::Stop => {
                        notify.stopping();
                        self.engine.leave();
                        leaving = leaving.or(Some(now.saturating_add(LEAVE_NS)));
                    }
                }
            }
            self.engine.tell_rate();
            self.tell_notes();
            self.tell_store();
            self.tell_missing(now);
            self.answer();
            notify.status(&self.status);
            notify.alive(HostClock.boot_ns());
            if leaving.is_some_and(|until| now >= until || self.engine.has_left()) {
                break;
            }
            self.wait(notify, leaving, &mut ready);
        }
        if let Some(net) = self.engine.net() {
            net.stop(Instant::from_ns(HostClock.boot_ns()));
        }
        log::info!("log: calls={}", self.engine.calls_made());
        logger::say("windlass: stopped");
    }

    /// What an operator should know.
    fn tell_notes(&mut self) {
        while let Some(note) = self.engine.next_note() {
            let of_store = matches!(
                note,
                Note::Lost(LogFault::Store { .. } | LogFault::Expired { .. })
                    | Note::Waiting(LogFault::Store { .. })
                    | Note::Warning(LogFault::Store { .. })
            );
            let words = self.engine.words().filter(|_| of_store);
            let words = words.map_or_else(String::new, |words| format!(" ({words})"));
            self.status = format!("{note}{words}");
            logger::say_rarely_as(&without_numbers(&self.status), &format!("windlass: {}", self.status));
        }
    }

    /// Says that the store fails, and that it does no more.
    fn tell_store(&mut self) {
        match self.engine.node().store_trouble() {
            Some((words, since_ns)) if !self.fails => {
                let since = HostClock.boot_ns().saturating_sub(since_ns);
                if since >= FAILS_NS {
                    self.fails = true;
                    let line = format!("windlass: the store fails for {}: {words}", HumanTime(since));
                    logger::say_rarely_as(&without_numbers(&line), &line);
                }
            }
            None if std::mem::take(&mut self.fails) => {
                logger::say_rarely("windlass: the store answers as it should again");
            }
            Some(_) | None => {}
        }
    }

    /// Names peers that were never heard of: one of them may coordinate, and this node would wait without a word.
    fn tell_missing(&mut self, now: u64) {
        if self.missing_due_ns.take_if(|due| *due <= now).is_none() {
            return;
        }
        let Some(net) = self.engine.net() else { return };
        for peer in net.peers().filter(|peer| !peer.up && peer.name.is_empty()) {
            let why = peer.last.map_or_else(String::new, |why| format!(": {why}"));
            logger::say(format_args!(
                "windlass: node {} ({}) was not heard of for {} s{why}; work that it coordinates does not reach this node",
                peer.node,
                peer.address,
                MISSING_NS / 1_000_000_000
            ));
        }
    }

    fn wait(&mut self, notify: &Notify, leaving: Option<u64>, ready: &mut Vec<usize>) {
        let now = HostClock.boot_ns();
        let due = [self.engine.deadline(), notify.feed_at(), leaving, Some(now.saturating_add(WAIT_NS))];
        let due = due.into_iter().flatten().min().unwrap_or(now);
        if let Err(error) = self.poll.wait(Some(Duration::from_nanos(due.saturating_sub(now))), ready) {
            log::warn!("reactor: poll failed error={error}");
            HostClock.sleep(Duration::from_millis(10));
        }
    }

    fn hear_backplane(&mut self, ready: &[usize]) {
        let now = Instant::from_ns(HostClock.boot_ns());
        if let Some(net) = self.engine.net() {
            net.turn(now, ready);
        }
        while let Some(event) = self.engine.net().and_then(|net| net.next_event(now)) {
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
            self.engine.turn(Some(event));
        }
        if let Some(net) = self.engine.net()
            && net.take_changed()
        {
            let since_ns = HostClock.wall_ns();
            let contacts = net.peers().map(|peer| {
                let (twins, nameless) = (peer.twins.cloned(), net.nameless().cloned());
                let twins_since = peer.twins_since.map(|at| now.saturating_since(at).as_nanos() as u64);
                let twins_since_ns = twins_since.map(|ago_ns| since_ns.saturating_sub_unsigned(ago_ns));
                let (up, why) = (peer.up, peer.last);
                let contact = Contact { up, since_ns, why, twins, twins_since_ns, nameless };
                (peer.node, contact)
            });
            let contacts: Vec<_> = contacts.collect();
            let namesake = net.namesake().cloned();
            contacts.into_iter().for_each(|(node, contact)| self.engine.set_contact(node, contact));
            namesake.into_iter().for_each(|(at, place)| self.engine.meet_namesake(at, place));
        }
    }

    /// What threads say; a signal ends the round.
    fn hear_threads(&mut self) -> Option<Wish> {
        while let Some(news) = self.engine.hear() {
            match news {
                News::Wish(wish) => return Some(wish),
                News::Ended(_, Err(why)) => {
                    logger::say_rarely(format_args!("windlass: a job ended early: {why}"));
                }
                News::Merged(Err(why)) => {
                    logger::say(format_args!("windlass: tables were not merged: {why}"));
                }
                News::Ended(_, Ok(())) | News::Merged(Ok(_)) | News::Done(_) => {}
            }
        }
        None
    }

    fn hear_commands(&mut self, ready: &[usize]) {
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
                self.serve(client);
            }
        }
        while let Some(client) = self.server.expire(now) {
            self.forget(client);
        }
    }

    fn serve(&mut self, client: ClientId) {
        loop {
            let now = HostClock.boot_ns();
            match self.server.serve(client, now) {
                Served::Waiting => return,
                Served::Over => return self.forget(client),
                Served::Request(Request::Identify) => {
                    self.server.answer(client, &Answer::Identity(Box::new(self.identity.clone())));
                }
                Served::Request(Request::Lines(after)) => {
                    let answer = self.server.lines_for(client, after);
                    self.server.answer(client, &answer);
                }
                Served::Request(Request::Command(command)) => {
                    self.next_client += 1;
                    self.clients.insert(self.next_client, client);
                    let subject = self.server.subject_of(client);
                    self.engine
                        .command(self.next_client, Command::As { subject, command: Box::new(command) });
                }
            }
        }
    }

    /// What threads of this process ask: never more than wait at their desk.
    fn hear_desk(&mut self) {
        while let Ok(Wanted { ask, tell }) = self.desk.try_recv() {
            match ask {
                Ask::Look(have) => tell(Told::Seen(Box::new(self.engine.seen(have)))),
                Ask::Command(subject, command) => {
                    self.next_client += 1;
                    self.tells.insert(self.next_client, tell);
                    let command = Command::As { subject, command: Box::new(command) };
                    self.engine.command(self.next_client, command);
                }
            }
        }
    }

    /// Answers commands; a client that was answered may have said more meanwhile.
    fn answer(&mut self) {
        while let Some((number, reply)) = self.engine.next_reply() {
            if let Some(client) = self.clients.remove(&number) {
                self.server.answer(client, &Answer::Reply(reply));
                self.serve(client);
            } else if let Some(tell) = self.tells.remove(&number) {
                tell(Told::Reply(reply));
            }
        }
    }

    fn forget(&mut self, client: ClientId) {
        if let Some(fd) = self.server.descriptor(client)
            && let Err(error) = self.poll.remove(fd)
        {
            log::debug!("control: error={error}");
        }
        self.server.close(client);
        let left: Vec<u64> =
            self.clients.iter().filter(|(_, other)| **other == client).map(|(number, _)| *number).collect();
        for number in left {
            self.clients.remove(&number);
            self.engine.client_left(number);
        }
    }
}
