//! All connections of a node: who dials, who is up, what came, and why connections ended.
//!
//! ```text
//!   link (bytes) -> tls_in -> channel (TLS) -> plain -> session -> events of this file
//!   link (bytes) <- tls_out <- channel (TLS) <- session <- send
//! ```
//!
//! Of two nodes the one with the lower id dials, so there is one connection between them. When it is lost on one side only, the lower
//! one dials again while the other still holds the old connection: the newer one wins as soon as its hello is good, because only
//! the holder of that node's key can have made it. Dials are repeated with a growing pause and jitter; the pause shrinks again only
//! after a connection that lasted, so two machines with one identity cannot keep each other and everybody busy.
//!
//! Invariants
//! - What a peer does ends its own connection at most: bytes are taken from each in turn, [`TURN_BYTES_MAX`](super::conn) at a time, and each has its
//!   own buffers of fixed size.
//! - Connections that have not said hello are bounded ([`PENDING_MAX`], [`WAITING_MAX`]), also by host: see [`incoming`].
//! - `Up` and `Down` of a node alternate, `Up` first; messages lie between them.
//!
//! Does not: know what messages mean, or read a clock. Source: `agent/doc/architecture.md`, Backplane.

mod incoming;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use windlass_hal::clock::Instant;
use windlass_hal::link::{Link, LinkId};
use windlass_hal::sim::prng::splitmix64;

use super::conn::{Conn, TURN_BYTES_MAX};
use super::header::NODE_ID_MAX;
use super::message::Message;
use super::reason::{Counters, Reason};
use super::session::{Event as SessionEvent, HELLO_LIMIT, Local, SendFault, Session};
use super::tls::{Channel, Security};
use crate::id::{Boot, Epoch, NodeId, Slot};

use incoming::{ACCEPTS_PER_TURN, Waiting};
pub use incoming::{PENDING_MAX, PENDING_SOURCE_MAX, WAITING_MAX};

/// First pause before a dial is repeated, and the longest: a node that comes back is found within seconds.
const BACKOFF_MIN: Duration = Duration::from_millis(250);
const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// How long a connection must last for the pause to start small again.
const LASTED: Duration = Duration::from_secs(10);
/// After this time without either of two machines of one number taking the other's place, one of them is gone: they do that within seconds of
/// each other, after pauses of [`BACKOFF_MAX`] at most.
const TWINS: Duration = Duration::from_secs(60);
/// Nodes of a cluster at most, this one aside.
pub const PEERS_MAX: usize = 255;

/// Places for connections that a port needs for so many peers: one that is up and one that replaces it, those without a hello, and those
/// that wait with what comes in one turn.
pub const fn conns_max(peers: usize) -> usize {
    2 * peers + PENDING_MAX + WAITING_MAX + ACCEPTS_PER_TURN
}

/// What a node is told about the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetConfig {
    /// Who this node is.
    pub local: Local,
    /// The other nodes and where they listen: `HOST:PORT`, `IP:PORT` or `[IPv6]:PORT`.
    pub peers: Vec<(NodeId, String)>,
    /// Seed of the jitter: random, or fixed in tests.
    pub seed: u64,
}

/// Why a configuration cannot be meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NetFault {
    /// This node's or a peer's id is above [`NODE_ID_MAX`].
    NodeId(NodeId),
    /// A node is named twice, or this node among its peers.
    Twice(NodeId),
    /// More than [`PEERS_MAX`] peers.
    Peers(usize),
}

impl std::fmt::Display for NetFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            NetFault::NodeId(node) => {
                write!(f, "node id {node} is above {NODE_ID_MAX}; give the node a smaller one")
            }
            NetFault::Twice(node) => write!(f, "node {node} is named twice; each node has an id of its own"),
            NetFault::Peers(count) => {
                write!(f, "{count} peers are more than {PEERS_MAX}; make the cluster smaller")
            }
        }
    }
}

impl std::error::Error for NetFault {}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::large_enum_variant, reason = "taken one at a time, and at once")]
pub enum Event {
    /// A node is connected and may be sent messages.
    Up {
        /// Which one.
        node: NodeId,
        /// Which start of it.
        boot: Boot,
    },
    /// A message came.
    Message {
        /// From whom.
        from: NodeId,
        /// The sender's epoch.
        epoch: Epoch,
        /// The last slot that it has applied.
        log_slot: Slot,
        /// What it says.
        message: Message,
    },
    /// A node is no longer connected. What was sent and not answered may or may not have arrived.
    Down {
        /// Which one.
        node: NodeId,
        /// Why.
        reason: Reason,
    },
}

/// A peer as people want to see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerStatus<'a> {
    /// Which one.
    pub node: NodeId,
    /// Where it listens.
    pub address: &'a str,
    /// Its name as it says itself; empty until it was up once.
    pub name: &'a str,
    /// Whether it is connected.
    pub up: bool,
    /// Time that the last ping took.
    pub round_trip: Option<Duration>,
    /// Why its last connection or dial ended.
    pub last: Option<Reason>,
    /// Two machines that both say they are this node: their addresses.
    pub twins: Option<&'a (String, String)>,
    /// Since when they do.
    pub twins_since: Option<Instant>,
}

struct Peer {
    node: NodeId,
    address: String,
    name: String,
    /// The connection that is up.
    up: Option<u64>,
    up_since: Instant,
    /// The connection that this node is making.
    dialling: Option<u64>,
    dial_at: Instant,
    backoff: Duration,
    last: Option<Reason>,
    /// Which start of it is up, and which was before that, with their addresses.
    boots: [Option<(Boot, String)>; 2],
    twins: Option<(String, String)>,
    /// Since when there are two, and when one took the other's place last.
    twins_at: (Instant, Instant),
}

impl Peer {
    /// Why its last connection or dial ended. That a node which stopped in an orderly way is not reached is no news: it stays one that stopped
    /// until it is seen again.
    fn ended(&mut self, reason: Reason) {
        let is_stopped = self.up.is_none() && self.last == Some(Reason::Goodbye);
        if !is_stopped || reason != Reason::Unreachable {
            self.last = Some(reason);
        }
    }

    /// A start of the node is up. One that comes back after another was up is a second machine: a start that has ended never comes back.
    fn has_start(&mut self, now: Instant, boot: Boot, address: String) {
        let is = |known: &Option<(Boot, String)>| known.as_ref().is_some_and(|(of, _)| *of == boot);
        if is(&self.boots[0]) {
            return;
        }
        let comes_back = is(&self.boots[1]);
        self.boots = [Some((boot, address.clone())), self.boots[0].take()];
        let other = self.boots[1].as_ref().map_or("", |(_, address)| address.as_str());
        self.twins_at.1 = now;
        if !comes_back {
            // One that was restarted, until the other start is heard of again.
            self.twins = None;
        } else if self.twins.is_none() {
            let node = self.node;
            log::error!(
                "backplane: two machines say that they are node {node}: {other} and {address}; give one of the two another number, and a \
                 certificate for it"
            );
            self.twins = Some((other.to_owned(), address));
            self.twins_at.0 = now;
        }
    }
}

/// The backplane of a node. See [the module's](super) text for how it is used.
pub struct Net<L> {
    link: L,
    security: Box<dyn Security>,
    local: Local,
    peers: Vec<Peer>,
    /// Those that dial this node.
    dialers: Arc<[NodeId]>,
    conns: Vec<Conn>,
    /// Connections that came in and have no buffers yet, the oldest first.
    waiting: Vec<Waiting>,
    /// More may have come in than one turn takes.
    has_more: bool,
    next_number: u64,
    events: VecDeque<Event>,
    /// Which connection is asked first for a message.
    turn: usize,
    counters: Counters,
    jitter: u64,
    /// Where the last connection came from that ended before it said which node it is, and why it ended.
    nameless: Option<(String, Reason)>,
    /// When another machine with this node's number was met last, and where.
    namesake: Option<(Instant, String)>,
    /// What [`Net::peers`], [`Net::nameless`] or [`Net::namesake`] says is not what it was.
    changed: bool,
    stopped: bool,
}

impl<L: Link> Net<L> {
    /// With a port that listens already and has [`conns_max`] places. Nothing happens before the first [`Net::turn`].
    pub fn new(link: L, security: Box<dyn Security>, config: NetConfig) -> Result<Net<L>, NetFault> {
        let NetConfig { local, peers, seed } = config;
        if peers.len() > PEERS_MAX {
            return Err(NetFault::Peers(peers.len()));
        }
        let mut ids: Vec<NodeId> = peers.iter().map(|(node, _)| *node).chain([local.node]).collect();
        ids.sort_unstable();
        if let Some(&node) = ids.iter().find(|node| node.0 > NODE_ID_MAX) {
            return Err(NetFault::NodeId(node));
        }
        if let Some(pair) = ids.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(NetFault::Twice(pair[0]));
        }
        let dialers = ids.iter().copied().filter(|&node| node < local.node).collect();
        let peer = |(node, address)| Peer {
            node,
            address,
            name: String::new(),
            up: None,
            up_since: Instant::ZERO,
            dialling: None,
            dial_at: Instant::ZERO,
            backoff: BACKOFF_MIN,
            last: None,
            boots: [None, None],
            twins: None,
            twins_at: (Instant::ZERO, Instant::ZERO),
        };
        Ok(Net {
            link,
            security,
            local,
            peers: peers.into_iter().map(peer).collect(),
            dialers,
            conns: Vec::new(),
            waiting: Vec::new(),
            has_more: false,
            next_number: 0,
            events: VecDeque::new(),
            turn: 0,
            counters: Counters::default(),
            jitter: seed,
            nameless: None,
            namesake: None,
            changed: true,
            stopped: false,
        })
    }

    /// Certificates and keys for connections from now on; those that are up stay.
    pub fn set_security(&mut self, security: Box<dyn Security>) {
        self.security = security;
    }

    /// Does what there is to do: `ready` are the tokens that the reactor's poll reported, those of others included. Call it after
    /// every wait, then take the events.
    pub fn turn(&mut self, now: Instant, ready: &[usize]) {
        for &token in ready {
            self.link.ready(token);
        }
        for conn in &mut self.conns {
            conn.budget = TURN_BYTES_MAX;
        }
        if !self.stopped {
            self.accept(now);
            self.dial(now);
        }
        for number in self.numbers() {
            self.pump(now, number);
        }
        for peer in &mut self.peers {
            if now.saturating_since(peer.twins_at.1) >= TWINS && peer.twins.take().is_some() {
                self.changed = true;
            }
        }
        // What came was heard first: a node that was frozen does not take everybody for dead.
        for number in self.numbers() {
            self.wake(now, number);
        }
    }

    fn numbers(&self) -> Vec<u64> {
        self.conns.iter().map(|conn| conn.number).collect()
    }

    fn dial(&mut self, now: Instant) {
        for index in 0..self.peers.len() {
            let peer = &self.peers[index];
            if peer.node < self.local.node
                || peer.up.is_some()
                || peer.dialling.is_some()
                || now < peer.dial_at
            {
                continue;
            }
            let node = peer.node;
            let dialled = match self.security.dial(node) {
                Some(channel) => self.link.connect(&peer.address).map(|link| (link, channel)).ok(),
                None => None,
            };
            match dialled {
                Some((link, channel)) => {
                    let number = self.insert(now, link, channel, Ok(node));
                    self.peers[index].dialling = Some(number);
                }
                None => {
                    self.count(Some(node), Reason::Unreachable);
                    self.back_off(now, index, Reason::Unreachable);
                }
            }
        }
    }

    fn insert(
        &mut self,
        now: Instant,
        link: LinkId,
        channel: Box<dyn Channel>,
        with: Result<NodeId, String>,
    ) -> u64 {
        let number = self.next_number;
        self.next_number += 1;
        self.conns.push(Conn::new(now, number, link, channel, with));
        number
    }

    /// Moves bytes of one connection as far as they go, and takes note of what its session says but messages.
    fn pump(&mut self, now: Instant, number: u64) {
        let Some(index) = self.conns.iter().position(|conn| conn.number == number) else {
            return;
        };
        let conn = &mut self.conns[index];
        let ended = loop {
            match conn.step(now, &mut self.link, &self.local, &self.dialers) {
                Ok(true) => {}
                Ok(false) => break None,
                Err(reason) => break Some(reason),
            }
        };
        self.note(now, number);
        if let Some(reason) = ended {
            self.end(now, number, reason);
        }
    }

    /// Takes the session's `Up` and `Down`.
    fn note(&mut self, now: Instant, number: u64) {
        while let Some(conn) = self.conns.iter_mut().find(|conn| conn.number == number)
            && let Some(session) = &mut conn.session
        {
            if session.has_message() && conn.node.is_some() && !session.is_down() {
                return;
            }
            match session.next_event() {
                Some(SessionEvent::Up(peer)) => {
                    conn.node = Some(peer.node);
                    self.up(now, number, peer.node, peer.boot, peer.name);
                }
                // The last message of a session that is over.
                Some(SessionEvent::Message { epoch, log_slot, message }) => {
                    if let Some(from) = conn.node {
                        self.events.push_back(Event::Message { from, epoch, log_slot, message });
                    }
                }
                Some(SessionEvent::Down(reason)) => return self.end(now, number, reason),
                None => return,
            }
        }
    }

    fn up(&mut self, now: Instant, number: u64, node: NodeId, boot: Boot, name: String) {
        let Some(index) = self.peers.iter().position(|peer| peer.node == node) else {
            return self.end(now, number, Reason::Stranger);
        };
        if let Some(old) = self.peers[index].up {
            self.end(now, old, Reason::Replaced);
        }
        let peer = &mut self.peers[index];
        if peer.dialling == Some(number) {
            peer.dialling = None;
        }
        peer.up = Some(number);
        peer.up_since = now;
        let conn = self.conns.iter().find(|conn| conn.number == number);
        let address = conn.map_or_else(String::new, |conn| self.link.describe(conn.link));
        peer.has_start(now, boot, address);
        self.changed = true;
        log::info!("backplane: up node={node} name={name}");
        peer.name = name;
        self.events.push_back(Event::Up { node, boot });
    }

    /// Ends a connection: the peer is told why if it can be told at once.
    fn end(&mut self, now: Instant, number: u64, reason: Reason) {
        let Some(index) = self.conns.iter().position(|conn| conn.number == number) else {
            return;
        };
        let mut conn = self.conns.swap_remove(index);
        conn.last_words(&mut self.link, reason);
        let address = self.link.describe(conn.link);
        self.link.close(conn.link);
        let node = conn.node.or(conn.to);
        let count = self.count(node, reason);
        tell_ended(node, &address, reason, count);
        if node.is_none() {
            self.ended_nameless(conn.source.clone(), reason);
        }
        self.meet_namesake(now, node, &address, reason);
        let Some(peer) = self.peers.iter().position(|peer| Some(peer.node) == node) else {
            return;
        };
        if self.peers[peer].up == Some(number) {
            if let Some(from) = node
                && let Some(SessionEvent::Message { epoch, log_slot, message }) =
                    conn.session.as_mut().and_then(Session::next_event)
            {
                self.events.push_back(Event::Message { from, epoch, log_slot, message });
            }
            let lasted = now.saturating_since(self.peers[peer].up_since) >= LASTED;
            self.peers[peer].up = None;
            self.changed = true;
            if lasted {
                self.peers[peer].backoff = BACKOFF_MIN;
            }
            self.events.push_back(Event::Down { node: self.peers[peer].node, reason });
            self.back_off(now, peer, reason);
        } else if self.peers[peer].dialling == Some(number) {
            self.peers[peer].dialling = None;
            self.back_off(now, peer, reason);
        }
    }

    /// Another machine with this node's number is at the other end, or took this node's place there.
    fn meet_namesake(&mut self, now: Instant, node: Option<NodeId>, address: &str, reason: Reason) {
        let place = match (reason, node) {
            (Reason::Namesake, _) => format!("it is at {address}"),
            (Reason::Displaced, Some(node)) => format!("it took this node's place at node {node}"),
            _ => return,
        };
        self.changed = true;
        self.namesake = Some((now, place));
    }

    /// The next dial: after the pause and up to a quarter more, and the pause after that is twice as long.
    fn back_off(&mut self, now: Instant, peer: usize, reason: Reason) {
        let peer = &mut self.peers[peer];
        peer.ended(reason);
        let extra = splitmix64(&mut self.jitter) % 256;
        peer.dial_at = now.saturating_add(peer.backoff + peer.backoff / 1024 * extra as u32);
        peer.backoff = (peer.backoff * 2).min(BACKOFF_MAX);
    }

    fn count(&mut self, node: Option<NodeId>, reason: Reason) -> u64 {
        if let Some(peer) = self.peers.iter_mut().find(|peer| Some(peer.node) == node) {
            let before = peer.last;
            peer.ended(reason);
            self.changed |= peer.last != before;
        }
        self.counters.count(reason)
    }

    fn wake(&mut self, now: Instant, number: u64) {
        let Some(conn) = self.conns.iter_mut().find(|conn| conn.number == number) else {
            return;
        };
        match &mut conn.session {
            Some(session) => {
                if session.deadline().is_none_or(|deadline| now < deadline) {
                    return;
                }
                session.wake(now);
                self.pump(now, number);
            }
            None if now >= conn.since.saturating_add(HELLO_LIMIT) => {
                let never = conn.to.is_some() && !conn.reached;
                self.end(now, number, if never { Reason::Unreachable } else { Reason::HandshakeSlow });
            }
            None => {}
        }
    }

    /// Sends a message to a node. `epoch`: the highest that this node knows; `log_slot`: the last slot that it has applied. It
    /// goes out at once as far as it can. Errors: [`SendFault`]; the message was not taken then.
    pub fn send(
        &mut self,
        now: Instant,
        to: NodeId,
        epoch: Epoch,
        log_slot: Slot,
        message: &Message,
    ) -> Result<(), SendFault> {
        let number = self.peers.iter().find(|peer| peer.node == to).and_then(|peer| peer.up);
        let conn = self.conns.iter_mut().find(|conn| Some(conn.number) == number).ok_or(SendFault::Down)?;
        let session = conn.session.as_mut().ok_or(SendFault::Down)?;
        let result = session.send(epoch, log_slot, message);
        if result == Err(SendFault::Full) {
            // What is not sent must not be missed quietly: both ends know how to go on when a connection was lost.
            session.close(Reason::Congested);
        }
        let number = conn.number;
        self.pump(now, number);
        result
    }

    /// The next event, from each connection in turn. A caller that takes a bounded number goes on in its next turn;
    /// [`Net::deadline`] is at once while there are more.
    pub fn next_event(&mut self, now: Instant) -> Option<Event> {
        if let Some(event) = self.events.pop_front() {
            return Some(event);
        }
        for _ in 0..self.conns.len() {
            self.turn = (self.turn + 1) % self.conns.len();
            let conn = &mut self.conns[self.turn];
            let (number, node) = (conn.number, conn.node);
            if let Some(from) = node
                && let Some(session) = &mut conn.session
                && session.has_message()
                && let Some(SessionEvent::Message { epoch, log_slot, message }) = session.next_event()
            {
                // The next one may be in the buffers already.
                self.pump(now, number);
                return Some(Event::Message { from, epoch, log_slot, message });
            }
        }
        None
    }

    /// When [`Net::turn`] is to be called at the latest; [`Instant::ZERO`]: at once, there is more to do or to take.
    pub fn deadline(&self) -> Option<Instant> {
        let waits = |conn: &Conn| conn.budget == 0 || conn.session.as_ref().is_some_and(Session::has_message);
        if !self.events.is_empty() || self.conns.iter().any(waits) {
            return Some(Instant::ZERO);
        }
        let conns = self.conns.iter().filter_map(|conn| match &conn.session {
            Some(session) => session.deadline(),
            None => Some(conn.since.saturating_add(HELLO_LIMIT)),
        });
        let dials = self.peers.iter().filter(|peer| {
            !self.stopped && peer.node > self.local.node && peer.up.is_none() && peer.dialling.is_none()
        });
        conns.chain(dials.map(|peer| peer.dial_at)).chain(self.accept_due()).min()
    }

    /// Says goodbye to all and ends all connections; no more are made. The `Down`s can be taken as events.
    pub fn stop(&mut self, now: Instant) {
        self.stopped = true;
        self.accept_no_more();
        for number in self.numbers() {
            self.end(now, number, Reason::Stopped);
        }
    }

    /// How many connections and dials ended, by reason.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    fn ended_nameless(&mut self, source: String, reason: Reason) {
        // Of the one peer that would come from there, and is not up, it is known whose it was.
        let comes = |peer: &&mut Peer| {
            peer.up.is_none() && peer.node < self.local.node && host(&peer.address) == source
        };
        let mut from_there: Vec<&mut Peer> = self.peers.iter_mut().filter(comes).collect();
        if let [peer] = &mut from_there[..] {
            peer.ended(reason);
        }
        let ended = Some((source, reason));
        self.changed |= self.nameless != ended;
        self.nameless = ended;
    }

    /// From which host the last connection came that ended before it said which node it is, and why it ended.
    pub fn nameless(&self) -> Option<&(String, Reason)> {
        self.nameless.as_ref()
    }

    /// When another machine with this node's number was met last, and where.
    pub fn namesake(&self) -> Option<&(Instant, String)> {
        self.namesake.as_ref()
    }

    /// Whether [`Net::peers`], [`Net::nameless`] or [`Net::namesake`] says something else since this was asked last.
    pub fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    /// All peers, as the configuration orders them.
    pub fn peers(&self) -> impl Iterator<Item = PeerStatus<'_>> {
        self.peers.iter().map(|peer| {
            let conn = self.conns.iter().find(|conn| Some(conn.number) == peer.up);
            PeerStatus {
                node: peer.node,
                address: &peer.address,
                name: &peer.name,
                up: peer.up.is_some(),
                round_trip: conn.and_then(|conn| conn.session.as_ref()).and_then(Session::round_trip),
                last: peer.last,
                twins: peer.twins.as_ref(),
                twins_since: peer.twins.as_ref().map(|_| peer.twins_at.0),
            }
        })
    }

    /// Connections that have buffers, those without a hello included.
    pub fn connections(&self) -> usize {
        self.conns.len()
    }

    /// Connections that came in and wait for theirs.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }
}

/// The host of an address, as a link names where connections come from.
fn host(address: &str) -> &str {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}

/// Everything that is new, and then ever more rarely.
fn tell_ended(node: Option<NodeId>, address: &str, reason: Reason, count: u64) {
    if !count.is_power_of_two() || matches!(reason, Reason::Stopped | Reason::Goodbye) {
        return;
    }
    let whose = match node {
        Some(node) => format!("connection with node {node} ({address}) ended"),
        None => format!("incoming connection ({address}) ended before it said which node it is"),
    };
    let times = if count == 1 { String::new() } else { format!(" ({count} times)") };
    log::warn!("backplane: {whose}: {reason}{times} reason={}", reason.name());
}

#[cfg(test)]
#[path = "net_test.rs"]
mod tests;
