//! The thread with the sockets: takes clients, moves their bytes, closes them by rule, hands requests to the lanes and answers back.
//!
//! | rule | what is done |
//! |---|---|
//! | all places taken | the client that has been idle longest makes way; without one the new connection is closed |
//! | an address has as many as one may; too many handshakes | the new connection is closed |
//! | a deadline of `windlass_agent::api::limits` | closed, after 408 where a request had begun |
//! | a lane is full | 503 |
//!
//! Invariants: nothing here waits but the poll; connections that are closed at once cost an accept each, and a bounded number of them a turn.
//! Source: ours; epoll(7).

use std::io::ErrorKind;
use std::net::{IpAddr, TcpListener};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::PeerCredentials;
use nix::unistd::geteuid;
use windlass_agent::api::answer::{Answer, Media};
use windlass_agent::api::body::Given;
use windlass_agent::api::code;
use windlass_agent::api::conn::Now;
use windlass_agent::api::limits::{CONNS_MAX, CONNS_PER_PEER_MAX, EVENT_CLIENTS_MAX, HANDSHAKES_MAX};
use windlass_agent::api::request::Request;
use windlass_agent::api::route::{self, Found};
use windlass_hal::linux::poll::{Poll, Waker};

use super::UnixSocket;
use super::client::{Client, Stream, Turn};
use super::lanes::{ClientId, Done, Job, Lanes, Outcome, Refused, refused};
use super::shared::{Rule, Shared};
use super::tls::Current;
use crate::control::server::peer_names;
use crate::engine::host::HostClock;
use crate::failure::Failure;
use crate::profile::Api as Section;

/// Tokens of the poll.
const TCP_TOKEN: usize = 0;
const UNIX_TOKEN: usize = 1;
const CLIENT_TOKEN: usize = 2;
/// Descriptors reported in one wait.
const EVENTS_MAX: usize = 64;
/// Connections that are taken in one turn, so that those that are served have theirs.
const ACCEPTS_MAX: usize = 32;
/// Longest wait, in nanoseconds.
const WAIT_NS: u64 = 10_000_000_000;
/// After how long of silence a client that follows events hears a comment, in nanoseconds: one that is gone is found out by it.
const SILENCE_NS: u64 = 15_000_000_000;

/// Sockets that listen.
pub struct Listening {
    tcp: Option<TcpListener>,
    unix: Option<UnixSocket>,
    /// Others than root and the agent's user may connect to the Unix socket.
    is_open: bool,
}

impl Listening {
    /// Those of a section.
    ///
    /// # Errors
    /// One cannot be opened.
    pub fn open(section: &Section) -> Result<Listening, Failure> {
        let tcp = section.listen.as_ref().map(|listen| {
            let failed = |error| Failure::at(format_args!("api {}", listen.value), error);
            let listener = TcpListener::bind(listen.value).map_err(failed)?;
            listener.set_nonblocking(true).map_err(failed)?;
            Ok(listener)
        });
        let unix = section.socket.as_ref().map(|path| UnixSocket::open(path, section.group.as_deref()));
        Ok(Listening { tcp: tcp.transpose()?, unix: unix.transpose()?, is_open: section.group.is_some() })
    }
}

/// A client that follows events.
#[derive(Clone, Copy, Debug)]
struct Following {
    client: ClientId,
    next: u64,
    /// It is to be told that it missed some.
    missed: bool,
    told_ns: u64,
}

/// See the module.
pub struct Server {
    poll: Poll,
    listening: Listening,
    current: Current,
    shared: Arc<Shared>,
    places: Vec<Option<(u64, Client)>>,
    generation: u64,
    following: Vec<Following>,
    outcomes: Receiver<Done>,
    done: Sender<Done>,
    /// The listeners have more.
    has_more: [bool; 2],
}

impl Server {
    /// Over sockets that listen.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn new(listening: Listening, current: Current, shared: Arc<Shared>) -> Result<Server, Failure> {
        let failed = |error| Failure::at("cannot wait for clients of the API", error);
        let mut poll = Poll::new(EVENTS_MAX).map_err(failed)?;
        if let Some(tcp) = &listening.tcp {
            poll.add(tcp.as_fd(), TCP_TOKEN).map_err(failed)?;
        }
        if let Some(unix) = &listening.unix {
            poll.add(unix.listener.as_fd(), UNIX_TOKEN).map_err(failed)?;
        }
        let (done, outcomes) = channel();
        let places = (0..CONNS_MAX).map(|_| None).collect();
        let has_more = [listening.tcp.is_some(), listening.unix.is_some()];
        let (generation, following) = (0, Vec::new());
        Ok(Server {
            poll,
            listening,
            current,
            shared,
            places,
            generation,
            following,
            outcomes,
            done,
            has_more,
        })
    }

    /// Wakes it.
    #[must_use]
    pub fn waker(&self) -> Waker {
        self.poll.waker()
    }

    /// Where lanes say what became of requests.
    #[must_use]
    pub fn outcomes(&self) -> Sender<Done> {
        self.done.clone()
    }

    /// Until it is told to stop.
    pub fn run(&mut self, lanes: &Lanes, stop: &AtomicBool) {
        let mut ready = Vec::new();
        while !stop.load(Ordering::Relaxed) {
            let now = now();
            self.has_more[TCP_TOKEN] |= ready.contains(&TCP_TOKEN);
            self.has_more[UNIX_TOKEN] |= ready.contains(&UNIX_TOKEN);
            let mut moved: Vec<usize> =
                ready.iter().filter_map(|token| token.checked_sub(CLIENT_TOKEN)).collect();
            moved.retain(|place| *place < CONNS_MAX);
            moved.extend(self.accept(now));
            moved.extend(self.hear(now));
            moved.extend(self.tell_events(now));
            let due = |place: &usize| self.due(*place).is_some_and(|due| due <= now.ns);
            moved.extend((0..CONNS_MAX).filter(due).collect::<Vec<_>>());
            for place in moved {
                self.serve(place, now, lanes);
            }
            self.wait(&mut ready);
        }
    }

    fn due(&self, place: usize) -> Option<u64> {
        self.places[place].as_ref().and_then(|(_, client)| client.deadline())
    }

    fn wait(&mut self, ready: &mut Vec<usize>) {
        let now_ns = HostClock.boot_ns();
        let silent = self.following.iter().map(|one| one.told_ns.saturating_add(SILENCE_NS));
        let due = (0..CONNS_MAX).filter_map(|place| self.due(place)).chain(silent).min();
        let due = if self.has_more.contains(&true) { 0 } else { due.unwrap_or(u64::MAX) };
        let wait_ns = due.saturating_sub(now_ns).min(WAIT_NS);
        if let Err(error) = self.poll.wait(Some(Duration::from_nanos(wait_ns)), ready) {
            log::warn!("api: poll failed error={error}");
            HostClock.sleep(Duration::from_millis(10));
        }
    }

    /// Takes connections; the places of those that stay.
    fn accept(&mut self, now: Now) -> Vec<usize> {
        let mut places = Vec::new();
        for _ in 0..ACCEPTS_MAX {
            let Some((stream, peer)) = self.next_stream() else { break };
            match self.admit(stream, peer, now) {
                Ok(place) => {
                    self.shared.counts.accepted.fetch_add(1, Ordering::Relaxed);
                    places.push(place);
                }
                Err(rule) => self.shared.counts.closed(rule),
            }
        }
        places
    }

    fn next_stream(&mut self) -> Option<(Stream, Option<IpAddr>)> {
        while let Some(token) = self.has_more.iter().position(|more| *more) {
            let taken = match (token, &self.listening.tcp, &self.listening.unix) {
                (TCP_TOKEN, Some(tcp), _) => tcp.accept().and_then(|(stream, from)| {
                    stream.set_nonblocking(true)?;
                    stream.set_nodelay(true)?;
                    Ok((Stream::Tcp(stream), Some(from.ip())))
                }),
                (UNIX_TOKEN, _, Some(unix)) => unix.listener.accept().and_then(|(stream, _)| {
                    stream.set_nonblocking(true)?;
                    Ok((Stream::Unix(stream), None))
                }),
                _ => {
                    self.has_more[token] = false;
                    continue;
                }
            };
            match taken {
                Ok(taken) => return Some(taken),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // It was gone before it was taken.
                Err(error) if error.kind() == ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    if error.kind() != ErrorKind::WouldBlock {
                        log::warn!("api: accept failed error={error}");
                    }
                    self.has_more[token] = false;
                }
            }
        }
        None
    }

    /// A place for a connection, or the rule that closes it.
    fn admit(&mut self, stream: Stream, peer: Option<IpAddr>, now: Now) -> Result<usize, Rule> {
        let clients = || self.places.iter().flatten().map(|(_, client)| client);
        let (tls, subject) = match &stream {
            Stream::Tcp(_) => {
                if clients().filter(|client| client.peer.is_some() && client.peer == peer).count()
                    >= CONNS_PER_PEER_MAX
                {
                    return Err(Rule::Peer);
                }
                if clients().filter(|client| client.is_handshaking()).count() >= HANDSHAKES_MAX {
                    return Err(Rule::Handshakes);
                }
                (Some(self.current.accept().ok_or(Rule::Tls)?), String::new())
            }
            Stream::Unix(stream) => {
                let credentials = getsockopt(stream, PeerCredentials).map_err(|_| Rule::Refused)?;
                let is_owner = credentials.uid() == 0 || credentials.uid() == geteuid().as_raw();
                if !is_owner && !self.listening.is_open {
                    return Err(Rule::Refused);
                }
                (None, peer_names(stream, geteuid().as_raw()))
            }
        };
        let place = match self.places.iter().position(Option::is_none) {
            Some(place) => place,
            None => {
                let idle =
                    |place: &usize| self.places[*place].as_ref().is_some_and(|(_, client)| client.is_idle());
                let place =
                    (0..CONNS_MAX).filter(idle).min_by_key(|place| self.due(*place)).ok_or(Rule::Full)?;
                self.close(place, Some(Rule::Idle));
                place
            }
        };
        let client = Client::new(stream, tls, subject, peer, now.ns);
        if self.poll.add_both(client.descriptor(), CLIENT_TOKEN + place).is_err() {
            return Err(Rule::Full);
        }
        self.generation += 1;
        self.places[place] = Some((self.generation, client));
        self.shared.counts.connections.fetch_add(1, Ordering::Relaxed);
        Ok(place)
    }

    fn close(&mut self, place: usize, rule: Option<Rule>) {
        let Some((generation, client)) = self.places[place].take() else { return };
        if let Err(error) = self.poll.remove(client.descriptor()) {
            log::debug!("api: error={error}");
        }
        rule.into_iter().for_each(|rule| self.shared.counts.closed(rule));
        self.following.retain(|one| one.client != ClientId { place, generation });
        self.shared.counts.connections.fetch_sub(1, Ordering::Relaxed);
    }

    fn client(&mut self, id: ClientId) -> Option<&mut Client> {
        let (generation, client) = self.places[id.place].as_mut()?;
        (*generation == id.generation).then_some(client)
    }

    /// Gives a client turns until it waits.
    fn serve(&mut self, place: usize, now: Now, lanes: &Lanes) {
        loop {
            let Some((generation, client)) = &mut self.places[place] else { return };
            let id = ClientId { place, generation: *generation };
            match client.turn(now) {
                Turn::Waiting => return,
                Turn::Gone(rule) => return self.close(place, rule),
                Turn::Request(request) => {
                    let subject = client.subject.clone();
                    let answer = match job(id, subject, *request) {
                        Ok(job) => match lanes.give(job) {
                            Ok(()) => continue,
                            Err(_) => Answer::problem(code::BUSY, "as many requests as may wait do"),
                        },
                        Err(answer) => *answer,
                    };
                    self.answer(id, now, &answer);
                }
            }
        }
    }

    fn answer(&mut self, id: ClientId, now: Now, answer: &Answer) {
        self.shared.counts.answered(answer.status);
        if let Some(client) = self.client(id) {
            client.conn.answer(now, answer);
        }
    }

    /// Answers what lanes have done; the places of those who have one.
    fn hear(&mut self, now: Now) -> Vec<usize> {
        let mut places = Vec::new();
        while let Ok((id, outcome)) = self.outcomes.try_recv() {
            match outcome {
                Outcome::Answer(answer) => self.answer(id, now, &answer),
                Outcome::Follow(_) if self.following.len() >= EVENT_CLIENTS_MAX => {
                    self.answer(
                        id,
                        now,
                        &Answer::problem(
                            code::BUSY,
                            "as many as may follow events; ask GET /v1/status now and then",
                        ),
                    );
                }
                Outcome::Follow(after) => {
                    let (next, missed) = self.shared.ring().after(after.as_deref());
                    self.shared.counts.answered(200);
                    if let Some(client) = self.client(id) {
                        client.conn.stream(now, &Answer::new(200, Media::Events, Vec::new()));
                        client.conn.push(now, b"retry: 3000\n\n");
                        self.following.push(Following { client: id, next, missed, told_ns: now.ns });
                    }
                }
            }
            places.push(id.place);
        }
        places
    }

    /// Tells those who follow what is new; their places.
    fn tell_events(&mut self, now: Now) -> Vec<usize> {
        let mut places = Vec::new();
        for mut one in std::mem::take(&mut self.following) {
            let shared = Arc::clone(&self.shared);
            let Some(client) = self.client(one.client) else { continue };
            let ring = shared.ring();
            let before = (one.next, one.missed);
            if one.missed {
                one.missed = !client.conn.push(now, ring.missed(one.next).as_bytes());
            }
            while !one.missed && one.next < ring.next() {
                match ring.get(one.next) {
                    Some(text) if client.conn.push(now, text.as_bytes()) => one.next += 1,
                    // It is too slow: it hears that it missed some when it has room.
                    _ => {
                        shared.counts.missed.fetch_add(ring.next() - one.next, Ordering::Relaxed);
                        (one.next, one.missed) = (ring.next(), true);
                    }
                }
            }
            let is_silent = one.told_ns.saturating_add(SILENCE_NS) <= now.ns;
            if is_silent {
                client.conn.push(now, b":\n\n");
            }
            if is_silent || before != (one.next, one.missed) {
                one.told_ns = now.ns;
                places.push(one.client.place);
            }
            self.following.push(one);
        }
        places
    }
}

fn now() -> Now {
    Now { ns: HostClock.boot_ns(), wall_secs: HostClock.wall_ns().div_euclid(1_000_000_000) }
}

/// What a request asks for, or why it is not done; what needs no lane is judged here.
fn job(client: ClientId, subject: String, request: Request) -> Refused<Job> {
    if subject.is_empty() {
        return refused(code::NAMELESS, "the certificate has no DNS name that can be a subject");
    }
    let (route, named) = match route::find(request.method, &request.path) {
        Found::Route(route, named) => (route, named),
        Found::Nothing => return refused(code::PATH, &request.shown()),
        Found::Method(methods) => {
            let names: Vec<&str> = methods.iter().map(|method| method.name()).collect();
            let answer = Answer::problem(code::METHOD, &request.shown());
            return Err(Box::new(answer.with("Allow", names.join(", "))));
        }
    };
    if !request.method.is_safe() && is_foreign(&request) {
        return refused(code::ORIGIN, request.field("origin").unwrap_or("Sec-Fetch-Site is not same-origin"));
    }
    let (query, body) = (Given::default(), Given::default());
    Ok(Job { client, subject, request, route, named, query, body })
}

/// Whether a browser says that another site's page makes it ask: it shows the certificate of its user all the same.
fn is_foreign(request: &Request) -> bool {
    let site = request.field("sec-fetch-site").is_some_and(|site| !matches!(site, "same-origin" | "none"));
    let own = |origin: &str| origin.split_once("://").map(|(_, host)| host) == request.field("host");
    site || request.field("origin").is_some_and(|origin| !own(origin))
}

#[cfg(test)]
mod tests {
    use windlass_agent::api::request::parse_head;

    use super::*;

    fn asked(line: &str, fields: &str) -> Refused<Job> {
        let text = format!("{line} HTTP/1.1\r\nHost: n:1\r\n{fields}\r\n");
        let request = parse_head(text.as_bytes()).unwrap().unwrap().request;
        job(ClientId { place: 0, generation: 1 }, "cert:a".to_owned(), request)
    }

    #[test]
    fn what_a_page_of_another_site_asks_for_is_refused() {
        let flush = |fields: &str| asked("POST /v1/flush", fields).map(drop).map_err(|answer| answer.status);
        assert_eq!(flush(""), Ok(()));
        assert_eq!(flush("Origin: https://n:1\r\nSec-Fetch-Site: same-origin\r\n"), Ok(()));
        for fields in [
            "Origin: https://evil\r\n",
            "Origin: null\r\n",
            "Sec-Fetch-Site: cross-site\r\n",
            "Sec-Fetch-Site: same-site\r\n",
        ] {
            assert_eq!(flush(fields), Err(403), "{fields}");
        }
        assert!(
            asked("GET /v1/status", "Sec-Fetch-Site: cross-site\r\n").is_ok(),
            "it cannot read the answer"
        );
    }

    #[test]
    fn what_is_not_there_is_said() {
        let status = |line: &str, fields: &str| asked(line, fields).map(drop).map_err(|answer| answer.status);
        assert_eq!(status("GET /v2", ""), Err(404));
        assert_eq!(status("TRACE /v1/status", ""), Err(405));
        let answer = asked("GET /v1/flush", "").map(drop).unwrap_err();
        assert!(answer.fields.contains(&("Allow", "POST".to_owned())));
    }
}
