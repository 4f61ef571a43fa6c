//! One connection between two nodes, above its encryption: plain bytes in, plain bytes out.
//!
//! ```text
//!  node that dials                         node that accepts
//!    hello (version range, boot, credits, name) ->
//!                                       <- hello               from here on both are up
//!    messages, as many as the peer granted <-> messages
//!    ping every 2 s -> <- pong             <- ping every 2 s, pong ->
//!    credit (more messages may come) <-> credit
//!    goodbye (why) <-> goodbye             the last frame, if there is time for one
//! ```
//!
//! | kind | body |
//! |---|---|
//! | hello | lowest version u8, highest version u8, boot u64, credits u32, name text |
//! | ping, pong | nothing; the header's cookie is the ping's number |
//! | credit | how many more u32 |
//! | goodbye | reason u8 |
//!
//! Invariants
//! - Frames are put together in one buffer of [`FRAME_BYTES_MAX`]; nothing is allocated on the peer's word before a frame is whole
//!   and its checksums match, and then no more than the frame's size in proportion.
//! - At most one message waits for the caller: until it is taken no bytes are, and the peer feels it through TCP.
//! - What waits to be sent is bounded ([`QUEUE_FRAMES_MAX`], [`QUEUE_BYTES_MAX`]); beyond it `send` refuses.
//! - Any fault ends the session for good, with a [`Reason`].
//!
//! Does not: encrypt, dial, or judge epochs (it carries them).
//! Source: `agent/doc/architecture.md`, Backplane.

use std::collections::VecDeque;
use std::time::Duration;

use heapless::Deque;
use windlass_hal::clock::Instant;

use super::header::{
    Expected, FRAME_BYTES_MAX, HEADER_BYTES, Header, KIND_CREDIT, KIND_GOODBYE, KIND_HELLO, KIND_PING,
    KIND_PONG,
};
use super::hello::{CREDITS, CREDITS_MAX, Hello};
use super::message::{BODY_BYTES_MAX, Message};
use super::reason::Reason;
use crate::format::cursor::{Reader, Wire};
use crate::format::slot::ClusterId;
use crate::id::{Boot, Epoch, NodeId, Slot};

/// Versions of the protocol that this program speaks: lowest, highest.
pub const PROTOCOLS: (u8, u8) = (1, 4);
/// The version in the header of a hello and a goodbye: their form is the same in all versions.
const PROTO_HELLO: u8 = 1;
/// Time from the connection's begin to the peer's hello: several round trips around the world, and a slow CPU's signatures.
pub const HELLO_LIMIT: Duration = Duration::from_secs(5);
/// Time between pings.
pub const PING_INTERVAL: Duration = Duration::from_secs(2);
/// Time without a whole frame, or without the answer to a ping, after which the peer is dead. Three pings.
pub const DEAD_AFTER: Duration = Duration::from_secs(6);
/// Messages taken after which credits are given back: a frame for eight.
const CREDITS_BATCH: u32 = 8;
/// Messages that wait to be sent at most.
pub const QUEUE_FRAMES_MAX: usize = 64;
/// Bytes of them, so that a peer that takes nothing costs no more than this.
pub const QUEUE_BYTES_MAX: usize = 512 << 10;
/// Pings of the peer that wait for their pong at most: it sends one in two seconds and gives up after six.
const PONGS_MAX: usize = 8;
/// Pings of ours without a pong at most; the first is too old before the fourth is sent.
const PINGS_MAX: usize = 8;
const _: () = assert!(QUEUE_BYTES_MAX >= FRAME_BYTES_MAX);
const _: () = assert!(PING_INTERVAL.as_nanos() * (PINGS_MAX as u128) > DEAD_AFTER.as_nanos());

/// Who this node is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Local {
    /// The repository that the cluster works for.
    pub cluster: ClusterId,
    /// This node, at most [`NODE_ID_MAX`](super::header::NODE_ID_MAX).
    pub node: NodeId,
    /// This start of it.
    pub boot: Boot,
    /// What people call it; at most [`NAME_BYTES_MAX`](super::hello::NAME_BYTES_MAX) bytes, more are cut.
    pub name: String,
    /// Versions that it speaks; [`PROTOCOLS`] but in tests.
    pub protocols: (u8, u8),
}

/// Who is at the other end, as its hello says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Which node; its certificate says the same.
    pub node: NodeId,
    /// Which start of it.
    pub boot: Boot,
    /// What people call it.
    pub name: String,
    /// The version that both speak.
    pub proto: u8,
}

/// Says whether the peer's certificate is that of a node that may connect. `Err`: why not.
pub trait Identity {
    /// See above.
    fn check(&self, node: NodeId) -> Result<(), Reason>;
}

impl<F: Fn(NodeId) -> Result<(), Reason>> Identity for F {
    fn check(&self, node: NodeId) -> Result<(), Reason> {
        self(node)
    }
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::large_enum_variant, reason = "taken one at a time, and at once")]
pub enum Event {
    /// Both hellos were exchanged.
    Up(Peer),
    /// A message came.
    Message {
        /// The sender's epoch.
        epoch: Epoch,
        /// The last slot that it has applied.
        log_slot: Slot,
        /// What it says.
        message: Message,
    },
    /// The session is over. The last event.
    Down(Reason),
}

/// Why a message was not taken. It did not and will not go out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendFault {
    /// The peer is not connected.
    Down,
    /// Too much waits already: try again later.
    Full,
    /// It does not fit a frame.
    TooLarge,
    /// The peer's program is older than the message.
    Version,
}

/// Whether frames may come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Nothing but a hello, or a goodbye.
    Hello,
    /// Everything but a hello.
    Up { proto: u8 },
    /// Nothing.
    Down,
}

/// A message that waits to be sent: 80 bytes for the header, then the body.
struct Queued {
    kind: u8,
    epoch: Epoch,
    log_slot: Slot,
    frame: Vec<u8>,
}

/// A connection. See the head of this file.
pub struct Session {
    local: Local,
    identity: Box<dyn Identity>,
    /// The other end: known from the start where this node dials, else from the hello.
    peer: Option<NodeId>,
    state: State,
    /// Events for the caller; a message only when there is no other.
    up: Option<Peer>,
    message: Option<(Epoch, Slot, Message)>,
    down: Option<Reason>,

    assembly: Box<[u8]>,
    filled: usize,
    /// The header of the frame that is coming in, judged.
    incoming: Option<Header>,
    next_in: u64,
    /// Messages that the peer may still send, and those taken since credits were last given.
    granted: u32,
    taken: u32,

    out: Vec<u8>,
    out_at: usize,
    next_out: u64,
    /// Messages that this end may still send.
    credits: u32,
    queue: VecDeque<Queued>,
    queue_bytes: usize,
    hello_due: bool,
    goodbye_due: Option<Reason>,
    pongs_due: Deque<u64, PONGS_MAX>,
    ping_due: bool,

    started: Instant,
    heard: Instant,
    ping_at: Instant,
    pings: Deque<(u64, Instant), PINGS_MAX>,
    ping_number: u64,
    round_trip: Option<Duration>,
}

impl Session {
    /// A connection that began at `started`. `to`: whom this node dialled; `None` when it was dialled. `identity` judges the
    /// node that the peer says it is. Allocates a frame's buffer.
    pub fn new(started: Instant, local: Local, to: Option<NodeId>, identity: Box<dyn Identity>) -> Session {
        Session {
            local,
            identity,
            peer: to,
            state: State::Hello,
            up: None,
            message: None,
            down: None,
            assembly: vec![0; FRAME_BYTES_MAX].into_boxed_slice(),
            filled: 0,
            incoming: None,
            next_in: 1,
            granted: CREDITS,
            taken: 0,
            out: Vec::new(),
            out_at: 0,
            next_out: 1,
            credits: 0,
            queue: VecDeque::new(),
            queue_bytes: 0,
            hello_due: to.is_some(),
            goodbye_due: None,
            pongs_due: Deque::new(),
            ping_due: false,
            started,
            heard: started,
            ping_at: started,
            pings: Deque::new(),
            ping_number: 0,
            round_trip: None,
        }
    }

    /// Takes bytes that came; returns how many. Fewer than all: there is an event to take first, or the session is over.
    pub fn feed(&mut self, now: Instant, bytes: &[u8]) -> usize {
        let mut rest = bytes;
        while !rest.is_empty() && self.message.is_none() && self.state != State::Down {
            let want = HEADER_BYTES + self.incoming.map_or(0, |header| header.body_len);
            let count = rest.len().min(want - self.filled);
            self.assembly[self.filled..self.filled + count].copy_from_slice(&rest[..count]);
            self.filled += count;
            rest = &rest[count..];
            if self.filled == want
                && let Err(reason) = self.advance(now)
            {
                self.end(reason, true);
            }
        }
        bytes.len() - rest.len()
    }

    /// A header or a whole frame is there.
    fn advance(&mut self, now: Instant) -> Result<(), Reason> {
        let header = match self.incoming {
            Some(header) => header,
            None => {
                let header = self.judge_header()?;
                self.incoming = Some(header);
                header
            }
        };
        if self.filled < HEADER_BYTES + header.body_len {
            return Ok(());
        }
        header.check_body(&self.assembly[HEADER_BYTES..self.filled])?;
        self.next_in += 1;
        self.heard = now;
        let filled = std::mem::take(&mut self.filled);
        self.incoming = None;
        self.take_frame(now, &header, filled)
    }

    fn judge_header(&mut self) -> Result<Header, Reason> {
        let mut bytes = [0; HEADER_BYTES];
        bytes.copy_from_slice(&self.assembly[..HEADER_BYTES]);
        let protos = match self.state {
            State::Up { proto } => proto.min(PROTO_HELLO)..=proto,
            State::Hello | State::Down => PROTO_HELLO..=PROTO_HELLO,
        };
        let header = Header::parse(&bytes, protos)?;
        let own_form = header.kind == KIND_HELLO || header.kind == KIND_GOODBYE;
        if let State::Up { proto } = self.state
            && header.proto != if own_form { PROTO_HELLO } else { proto }
        {
            return Err(Reason::Proto);
        }
        let expected = Expected {
            cluster: &self.local.cluster,
            dst: self.local.node,
            src: self.peer,
            seq: self.next_in,
        };
        let identity = &self.identity;
        let judged = header.check(&expected, |node| identity.check(node));
        if self.peer.is_none() {
            // Whom a goodbye goes to: who it says it is, right or wrong.
            self.peer = Some(header.src);
        }
        judged.map(|()| header)
    }

    fn take_frame(&mut self, now: Instant, header: &Header, filled: usize) -> Result<(), Reason> {
        let body = HEADER_BYTES..filled;
        match (self.state, header.kind) {
            (State::Hello, KIND_HELLO) => self.take_hello(now, header, body),
            (State::Hello | State::Up { .. }, KIND_GOODBYE) => {
                let number = one::<u8>(&self.assembly[body])?;
                let reason = match Reason::from_number(number) {
                    Some(Reason::Stopped) => Reason::Goodbye,
                    // This process has one connection with the peer: the newer one is another's.
                    Some(Reason::Replaced) => Reason::Displaced,
                    // True at both ends.
                    Some(reason @ (Reason::Cluster | Reason::Version)) => reason,
                    Some(Reason::Stranger) => Reason::Unlisted,
                    Some(Reason::Source) => Reason::NameThere,
                    Some(_) | None => Reason::Refused,
                };
                self.end(reason, false);
                Ok(())
            }
            (State::Up { .. }, KIND_PING) => {
                nothing(&self.assembly[body])?;
                self.pongs_due.push_back(header.cookie).map_err(|_| Reason::Flood)
            }
            (State::Up { .. }, KIND_PONG) => {
                nothing(&self.assembly[body])?;
                match self.pings.pop_front() {
                    Some((number, at)) if number == header.cookie => {
                        self.round_trip = Some(now.saturating_since(at));
                        Ok(())
                    }
                    _ => Err(Reason::Order),
                }
            }
            (State::Up { .. }, KIND_CREDIT) => {
                let more = one::<u32>(&self.assembly[body])?;
                let credits = self.credits.checked_add(more).filter(|&n| more > 0 && n <= CREDITS_MAX);
                self.credits = credits.ok_or(Reason::Credit)?;
                Ok(())
            }
            (State::Up { .. }, kind) if kind > KIND_GOODBYE => {
                self.granted = self.granted.checked_sub(1).ok_or(Reason::Credit)?;
                let message = Message::parse(kind, &self.assembly[body]).map_err(|_| Reason::Body)?;
                self.message = Some((header.epoch, header.log_slot, message));
                Ok(())
            }
            (State::Hello | State::Up { .. } | State::Down, _) => Err(Reason::Order),
        }
    }

    fn take_hello(
        &mut self,
        now: Instant,
        header: &Header,
        body: std::ops::Range<usize>,
    ) -> Result<(), Reason> {
        let hello = Hello::parse(&self.assembly[body]).map_err(|_| Reason::Body)?;
        let (low, high) = self.local.protocols;
        let proto = high.min(hello.protocols.1);
        if proto < low.max(hello.protocols.0) {
            return Err(Reason::Version);
        }
        // The one that was dialled says hello in turn; the other one did so first.
        self.hello_due |= self.next_out == 1;
        self.credits = hello.credits;
        self.state = State::Up { proto };
        self.ping_at = now.saturating_add(PING_INTERVAL);
        self.up = Some(Peer { node: header.src, boot: hello.boot, name: hello.name, proto });
        Ok(())
    }

    /// Takes a message to be sent. `epoch`: the highest that this node knows; `log_slot`: the last slot that it has applied.
    pub fn send(&mut self, epoch: Epoch, log_slot: Slot, message: &Message) -> Result<(), SendFault> {
        let State::Up { proto } = self.state else { return Err(SendFault::Down) };
        if message.since() > proto {
            return Err(SendFault::Version);
        }
        if self.queue.len() >= QUEUE_FRAMES_MAX {
            return Err(SendFault::Full);
        }
        let mut frame = vec![0; HEADER_BYTES];
        message.emit_for(proto, &mut frame);
        if frame.len() > FRAME_BYTES_MAX {
            return Err(SendFault::TooLarge);
        }
        if self.queue_bytes + frame.len() > QUEUE_BYTES_MAX {
            return Err(SendFault::Full);
        }
        self.queue_bytes += frame.len();
        self.queue.push_back(Queued { kind: message.kind(), epoch, log_slot, frame });
        Ok(())
    }

    /// Bytes that are to go out; empty when there is nothing. Say how many went with [`Session::sent`].
    pub fn outgoing(&mut self) -> &[u8] {
        if self.out_at == self.out.len() {
            self.out = Vec::new();
            self.out_at = 0;
            self.stage();
        }
        &self.out[self.out_at..]
    }

    /// The first `count` bytes of what [`Session::outgoing`] returned are on their way.
    pub fn sent(&mut self, count: usize) {
        self.out_at = self.out_at.saturating_add(count).min(self.out.len());
    }

    /// Makes the next frame, the session's own before messages.
    fn stage(&mut self) {
        if let Some(reason) = self.goodbye_due.take() {
            return self.stage_own(KIND_GOODBYE, 0, &[reason as u8]);
        }
        if self.state == State::Down {
            return;
        }
        if std::mem::take(&mut self.hello_due) {
            let mut body = Vec::new();
            Hello::of(&self.local).emit(&mut body);
            self.stage_own(KIND_HELLO, 0, &body);
        } else if let Some(number) = self.pongs_due.pop_front() {
            self.stage_own(KIND_PONG, number, &[]);
        } else if std::mem::take(&mut self.ping_due) {
            self.stage_own(KIND_PING, self.ping_number, &[]);
        } else if self.taken >= CREDITS_BATCH {
            let more = std::mem::take(&mut self.taken);
            self.granted += more;
            self.stage_own(KIND_CREDIT, 0, &more.to_le_bytes());
        } else if self.credits > 0
            && let Some(queued) = self.queue.pop_front()
        {
            self.credits -= 1;
            self.queue_bytes -= queued.frame.len();
            self.stage_frame(queued.kind, 0, queued.epoch, queued.log_slot, queued.frame);
        }
    }

    fn stage_own(&mut self, kind: u8, cookie: u64, body: &[u8]) {
        let mut frame = vec![0; HEADER_BYTES];
        frame.extend_from_slice(body);
        self.stage_frame(kind, cookie, Epoch(0), Slot(0), frame);
    }

    fn stage_frame(&mut self, kind: u8, cookie: u64, epoch: Epoch, log_slot: Slot, mut frame: Vec<u8>) {
        let proto = match self.state {
            State::Up { proto } if kind != KIND_HELLO && kind != KIND_GOODBYE => proto,
            State::Hello | State::Up { .. } | State::Down => PROTO_HELLO,
        };
        let header = Header {
            proto,
            kind,
            body_len: frame.len() - HEADER_BYTES,
            body_crc: crc32c::crc32c(&frame[HEADER_BYTES..]),
            src: self.local.node,
            dst: self.peer.unwrap_or(NodeId(u32::MAX)),
            cluster: self.local.cluster,
            epoch,
            seq: self.next_out,
            cookie,
            log_slot,
        };
        frame[..HEADER_BYTES].copy_from_slice(&header.emit());
        self.next_out += 1;
        self.out = frame;
    }

    /// The next event. After `Down` there is none.
    pub fn next_event(&mut self) -> Option<Event> {
        if let Some(peer) = self.up.take() {
            return Some(Event::Up(peer));
        }
        if let Some((epoch, log_slot, message)) = self.message.take() {
            self.taken += 1;
            return Some(Event::Message { epoch, log_slot, message });
        }
        self.down.take().map(Event::Down)
    }

    /// Ends the session from this side, with a goodbye that says why.
    pub fn close(&mut self, reason: Reason) {
        self.end(reason, true);
    }

    fn end(&mut self, reason: Reason, goodbye: bool) {
        if self.state == State::Down {
            return;
        }
        // Who has not shown what it is gets no answer. One that has not been answered yet learns why.
        let answered = self.peer.is_some() && reason != Reason::Magic && reason != Reason::HeaderCrc;
        self.goodbye_due = (goodbye && answered).then_some(reason);
        self.state = State::Down;
        self.down = Some(reason);
        self.queue.clear();
        self.queue_bytes = 0;
    }

    /// When [`Session::wake`] has something to do next. `None` once the session is over.
    pub fn deadline(&self) -> Option<Instant> {
        match self.state {
            State::Hello => Some(self.started.saturating_add(HELLO_LIMIT)),
            State::Up { .. } => {
                let pong = self.pings.front().map(|&(_, at)| at.saturating_add(DEAD_AFTER));
                let heard = self.heard_limit();
                [Some(self.ping_at), pong, heard].into_iter().flatten().min()
            }
            State::Down => None,
        }
    }

    /// While a message waits for the caller nothing is read, so nothing can be heard.
    fn heard_limit(&self) -> Option<Instant> {
        self.message.is_none().then(|| self.heard.saturating_add(DEAD_AFTER))
    }

    /// Looks at the clock: pings, and ends the session when the peer was silent for too long. Feed what came before this, so
    /// that a node that was frozen does not take its peers for dead.
    pub fn wake(&mut self, now: Instant) {
        match self.state {
            State::Hello => {
                if now >= self.started.saturating_add(HELLO_LIMIT) {
                    self.end(Reason::HandshakeSlow, true);
                }
            }
            State::Up { .. } => {
                let unanswered =
                    self.pings.front().is_some_and(|&(_, at)| now >= at.saturating_add(DEAD_AFTER));
                let unheard = self.heard_limit().is_some_and(|limit| now >= limit);
                if unheard && self.filled > 0 {
                    self.end(Reason::FrameSlow, true);
                } else if unheard || (unanswered && self.message.is_none()) {
                    self.end(Reason::Silent, true);
                } else if now >= self.ping_at {
                    self.ping_at = now.saturating_add(PING_INTERVAL);
                    // One that has not even gone out is not followed by another.
                    if !self.ping_due && self.pings.push_back((self.ping_number + 1, now)).is_ok() {
                        self.ping_number += 1;
                        self.ping_due = true;
                    }
                }
            }
            State::Down => {}
        }
    }

    /// Time that the last answered ping took.
    pub fn round_trip(&self) -> Option<Duration> {
        self.round_trip
    }

    /// Whether the session is over.
    pub fn is_down(&self) -> bool {
        self.state == State::Down
    }

    /// Whether a message waits for the caller.
    pub fn has_message(&self) -> bool {
        self.message.is_some()
    }
}

/// A body that is one value.
fn one<T: Wire>(body: &[u8]) -> Result<T, Reason> {
    let mut reader = Reader::new(body);
    let value = reader.value().map_err(|_| Reason::Body)?;
    reader.finish().map_err(|_| Reason::Body)?;
    Ok(value)
}

fn nothing(body: &[u8]) -> Result<(), Reason> {
    if body.is_empty() { Ok(()) } else { Err(Reason::Body) }
}

const _: () = assert!(BODY_BYTES_MAX + HEADER_BYTES == FRAME_BYTES_MAX);

#[cfg(test)]
#[path = "session_test.rs"]
mod tests;
