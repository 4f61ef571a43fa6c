//! One client of the API, without I/O: bytes in, requests out, answers in, bytes out.
//!
//! ```text
//!              +------------------------- answered, and it may ask more --------------------------+
//!              v                                                                                  |
//!  Idle --> Head --> Body --> Asked --answer--> Answering --------------------------------------> +--> over
//!    |       |        |         `----stream---> Streaming --> over
//!    `-------+--------+-- too slow, too large, no request --> Answering its refusal --> over
//! ```
//!
//! Deadlines are absolute: a byte now and then does not move them. Only a stall is counted from the last byte.
//!
//! Invariants: one request is out at a time; what is kept of the input is a head and a body at their bounds and one read; after
//! [`Conn::is_over`] nothing is taken and nothing is left to send. Source: RFC 9112; ours.

use super::answer::Answer;
use super::code::{self, Code};
use super::limits::{
    ANSWER_NS, BODY_BYTES_MAX, BODY_BYTES_S_MIN, BODY_GRACE_NS, BODY_NS, EVENT_QUEUE_BYTES_MAX,
    HEAD_BYTES_MAX, HEAD_NS, IDLE_NS, REQUESTS_PER_CONN_MAX, STALL_NS,
};
use super::request::{Method, Request, parse_head};

const NS_PER_SEC: u64 = 1_000_000_000;

/// The time: of a clock that never goes back, and of the day.
#[derive(Clone, Copy, Debug, Default)]
pub struct Now {
    /// Nanoseconds since some moment.
    pub ns: u64,
    /// Seconds since 1970, for the field Date.
    pub wall_secs: i64,
}

/// Why a client is shut out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Shut {
    /// It asked nothing for too long.
    Idle,
    /// It took nothing of its answer for too long, or not all of it.
    Stalled,
    /// What it sent is no request, or came too slowly: it is told, then shut out.
    Refused,
}

#[derive(Debug)]
enum Phase {
    /// Nothing has come since then.
    Idle(u64),
    /// A head began to come then.
    Head(u64),
    /// A body of so many bytes began to come then.
    Body(Box<Request>, usize, u64),
    /// A request is out.
    Asked { is_head: bool, keeps: bool },
    /// An answer goes out since then; the connection stays after it.
    Answering { since_ns: u64, keeps: bool },
    /// Events go out until one side has enough.
    Streaming,
    /// Nothing more is said.
    Over,
}

/// See the module.
#[derive(Debug)]
pub struct Conn {
    phase: Phase,
    input: Vec<u8>,
    output: Vec<u8>,
    /// Bytes of the output that are sent.
    sent: usize,
    /// When something was sent last.
    moved_ns: u64,
    requests: u32,
    /// The client says no more.
    is_deaf: bool,
    refused: Option<Code>,
}

impl Conn {
    /// One that begins now.
    #[must_use]
    pub fn new(now_ns: u64) -> Conn {
        Conn {
            phase: Phase::Idle(now_ns),
            input: Vec::new(),
            output: Vec::new(),
            sent: 0,
            moved_ns: now_ns,
            requests: 0,
            is_deaf: false,
            refused: None,
        }
    }

    /// Whether bytes are wanted now.
    #[must_use]
    pub fn wants_input(&self) -> bool {
        matches!(self.phase, Phase::Idle(_) | Phase::Head(_) | Phase::Body(..))
            && self.output.is_empty()
            && !self.is_deaf
            && self.input.len() < HEAD_BYTES_MAX + BODY_BYTES_MAX
    }

    /// Takes bytes.
    pub fn feed(&mut self, now_ns: u64, bytes: &[u8]) {
        if let (Phase::Idle(_), false) = (&self.phase, bytes.is_empty()) {
            self.phase = Phase::Head(now_ns);
        }
        self.input.extend_from_slice(bytes);
    }

    /// The client says no more, or is gone: what it asked for before is answered.
    pub fn end(&mut self) {
        self.is_deaf = true;
        if let Phase::Idle(_) | Phase::Head(_) | Phase::Body(..) | Phase::Streaming = self.phase {
            self.phase = Phase::Over;
        }
    }

    /// The next request, if it is whole and none is out.
    pub fn next_request(&mut self, now: Now) -> Option<Request> {
        if let Phase::Head(_) = self.phase {
            match parse_head(&self.input) {
                Ok(None) => return None,
                Ok(Some(head)) => {
                    self.input.drain(..head.head_bytes);
                    self.phase = Phase::Body(Box::new(head.request), head.body_bytes, now.ns);
                }
                Err(no) => {
                    self.refuse(now, no.code, no.what);
                    return None;
                }
            }
        }
        let Phase::Body(request, bytes, _) = &mut self.phase else { return None };
        if self.input.len() < *bytes {
            return None;
        }
        let rest = self.input.split_off(*bytes);
        let mut request = Request { body: std::mem::replace(&mut self.input, rest), ..(**request).clone() };
        self.requests += 1;
        request.keeps &= self.requests < REQUESTS_PER_CONN_MAX;
        self.phase = Phase::Asked { is_head: request.method == Method::Head, keeps: request.keeps };
        Some(request)
    }

    /// Whether a request is out.
    #[must_use]
    pub fn is_asked(&self) -> bool {
        matches!(self.phase, Phase::Asked { .. })
    }

    /// Whether it follows events.
    #[must_use]
    pub fn is_streaming(&self) -> bool {
        matches!(self.phase, Phase::Streaming)
    }

    /// Whether it asks for nothing at present: its place can be given to another.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        matches!(self.phase, Phase::Idle(_)) && self.output.is_empty()
    }

    /// Answers the request that is out.
    pub fn answer(&mut self, now: Now, answer: &Answer) {
        if let Phase::Asked { is_head, keeps } = self.phase {
            let keeps = keeps && !self.is_deaf;
            self.put(now, &answer.emit(now.wall_secs, is_head, !keeps));
            self.phase = Phase::Answering { since_ns: now.ns, keeps };
        }
    }

    /// Answers it with a stream, which [`Conn::push`] feeds.
    pub fn stream(&mut self, now: Now, answer: &Answer) {
        if self.is_asked() {
            self.put(now, &answer.emit(now.wall_secs, false, true));
            self.phase = Phase::Streaming;
        }
    }

    /// Adds to a stream; `false`: the client is too slow, so this is left out.
    pub fn push(&mut self, now: Now, bytes: &[u8]) -> bool {
        let waits = self.output.len() - self.sent;
        let fits = self.is_streaming() && waits + bytes.len() <= EVENT_QUEUE_BYTES_MAX;
        if fits {
            self.put(now, bytes);
        }
        fits
    }

    /// Says why nothing more is taken.
    pub fn refuse(&mut self, now: Now, code: Code, what: &str) {
        let answer = Answer::problem(code, what);
        self.put(now, &answer.emit(now.wall_secs, false, true));
        self.refused = Some(code);
        self.input = Vec::new();
        self.phase = Phase::Answering { since_ns: now.ns, keeps: false };
    }

    /// With which code it was refused, once.
    pub fn take_refused(&mut self) -> Option<Code> {
        self.refused.take()
    }

    fn put(&mut self, now: Now, bytes: &[u8]) {
        if self.sent == self.output.len() {
            (self.output, self.sent) = (Vec::new(), 0);
            self.moved_ns = now.ns;
        }
        self.output.extend_from_slice(bytes);
    }

    /// What is to be sent.
    #[must_use]
    pub fn output(&self) -> &[u8] {
        self.output.get(self.sent..).unwrap_or_default()
    }

    /// So many bytes of it are sent.
    pub fn sent(&mut self, now_ns: u64, bytes: usize) {
        self.sent += bytes;
        self.moved_ns = now_ns;
        if self.sent < self.output.len() {
            return;
        }
        (self.output, self.sent) = (Vec::new(), 0);
        if let Phase::Answering { keeps, .. } = self.phase {
            self.phase = match (keeps, self.input.is_empty()) {
                (false, _) => Phase::Over,
                (true, true) => Phase::Idle(now_ns),
                // It has said more meanwhile.
                (true, false) => Phase::Head(now_ns),
            };
            if self.input.is_empty() {
                self.input = Vec::new();
            }
        }
    }

    /// Whether all is said.
    #[must_use]
    pub fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Over) && self.output.is_empty()
    }

    /// When [`Conn::wake`] is to be called at the latest; `None` while a request is out.
    #[must_use]
    pub fn deadline(&self) -> Option<u64> {
        let stall = (!self.output.is_empty()).then(|| self.moved_ns.saturating_add(STALL_NS));
        let phase = match &self.phase {
            Phase::Idle(since) => Some(since.saturating_add(IDLE_NS)),
            Phase::Head(since) => Some(since.saturating_add(HEAD_NS)),
            Phase::Body(_, bytes, since) => Some(self.body_due(*bytes, *since)),
            Phase::Answering { since_ns, .. } => Some(since_ns.saturating_add(ANSWER_NS)),
            Phase::Asked { .. } | Phase::Streaming => None,
            Phase::Over => Some(0),
        };
        [stall, phase].into_iter().flatten().min()
    }

    /// When a body must be whole, or have so much more that its rate is enough.
    fn body_due(&self, bytes: usize, since: u64) -> u64 {
        let come = self.input.len().min(bytes) as u64;
        let paid_ns = come.saturating_mul(NS_PER_SEC) / BODY_BYTES_S_MIN;
        since.saturating_add(paid_ns.clamp(BODY_GRACE_NS, BODY_NS))
    }

    /// Time has passed. `Some`: why it is shut out; what there is to send is sent first, unless it stalls.
    pub fn wake(&mut self, now: Now) -> Option<Shut> {
        if self.deadline().is_none_or(|due| due > now.ns) {
            return None;
        }
        match self.phase {
            Phase::Head(_) => {
                self.refuse(now, code::SLOW, "the head did not come within 10 s");
                Some(Shut::Refused)
            }
            Phase::Body(..) => {
                self.refuse(now, code::SLOW, "the body came slower than 1 KiB/s, or took more than 20 s");
                Some(Shut::Refused)
            }
            Phase::Over if self.output.is_empty() => None,
            Phase::Idle(_) if self.output.is_empty() => {
                self.phase = Phase::Over;
                Some(Shut::Idle)
            }
            _ => {
                (self.phase, self.output, self.sent) = (Phase::Over, Vec::new(), 0);
                Some(Shut::Stalled)
            }
        }
    }
}

#[cfg(test)]
#[path = "conn_test.rs"]
mod tests;
