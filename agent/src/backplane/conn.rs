//! One connection of a node: a link, a channel and a session, and the buffers between them.
//!
//! ```text
//!   link (bytes) -> tls_in -> channel (TLS) -> plain -> session
//!   link (bytes) <- tls_out <- channel (TLS) <- session
//! ```
//!
//! Invariants: buffers have fixed sizes; what is read in one turn is bounded. Does not: decide which connection is the right one.
//! Source: ours.

use std::sync::Arc;

use windlass_hal::clock::Instant;
use windlass_hal::link::{Link, LinkFault, LinkId, Transfer};

use super::fifo::Fifo;
use super::reason::Reason;
use super::session::{Identity, Local, Session};
use super::tls::{Channel, PLAIN_BYTES_MAX, RECORD_BYTES_MAX, SEALED_BYTES};
use crate::id::NodeId;

/// Bytes read from one connection in one turn.
pub(super) const TURN_BYTES_MAX: usize = 256 << 10;

/// See the head of this file.
pub(super) struct Conn {
    /// Counts connections; never used twice.
    pub(super) number: u64,
    pub(super) link: LinkId,
    /// Whom this node dialled.
    pub(super) to: Option<NodeId>,
    /// Where it came from; empty where this node dialled.
    pub(super) source: String,
    /// Who it turned out to be.
    pub(super) node: Option<NodeId>,
    pub(super) since: Instant,
    channel: Box<dyn Channel>,
    tls_in: Fifo,
    tls_out: Fifo,
    plain: Fifo,
    pub(super) session: Option<Session>,
    /// Bytes that may still be read in this turn.
    pub(super) budget: usize,
    /// Whether anything was ever read: else it was never reached.
    pub(super) reached: bool,
}

impl Conn {
    /// One that begins at `now`. `with`: whom this node dialled, or where it came from. Allocates its buffers but the session's.
    pub(super) fn new(
        now: Instant,
        number: u64,
        link: LinkId,
        channel: Box<dyn Channel>,
        with: Result<NodeId, String>,
    ) -> Conn {
        let (to, source) = match with {
            Ok(node) => (Some(node), String::new()),
            Err(source) => (None, source),
        };
        Conn {
            number,
            link,
            to,
            source,
            node: None,
            since: now,
            channel,
            tls_in: Fifo::new(RECORD_BYTES_MAX),
            tls_out: Fifo::new(SEALED_BYTES),
            plain: Fifo::new(PLAIN_BYTES_MAX),
            session: None,
            budget: TURN_BYTES_MAX,
            reached: false,
        }
    }

    /// Whether it came from elsewhere and has not said which node it is.
    pub(super) fn is_pending(&self) -> bool {
        self.to.is_none() && self.node.is_none()
    }

    /// Whether the other end has shown a certificate of this cluster.
    pub(super) fn is_certified(&self) -> bool {
        self.session.is_some()
    }

    /// Moves bytes once through every stage. `Ok(false)`: nothing moved. Errors: why the connection is over.
    pub(super) fn step<L: Link>(
        &mut self,
        now: Instant,
        link: &mut L,
        local: &Local,
        dialers: &Arc<[NodeId]>,
    ) -> Result<bool, Reason> {
        let mut moved = self.flush(link)?;
        // What came before a fault or an end still counts.
        let turned = self.turn_channel();
        if self.session.is_none() && self.channel.is_open() {
            let identity = self.channel.identity().ok_or(Reason::CertificateMissing)?;
            let caller = Caller { identity, to: self.to, dialers: Arc::clone(dialers) };
            self.session = Some(Session::new(self.since, local.clone(), self.to, Box::new(caller)));
            moved = true;
        }
        if let Some(session) = &mut self.session {
            let count = session.feed(now, self.plain.bytes());
            self.plain.consume(count);
            moved |= count > 0;
            if session.is_down() {
                return Ok(false);
            }
        }
        moved |= turned?;
        Ok(moved | self.fill(link)?)
    }

    /// Ciphertext from the peer.
    fn fill<L: Link>(&mut self, link: &mut L) -> Result<bool, Reason> {
        if self.tls_in.room() == 0 || self.budget == 0 {
            return Ok(false);
        }
        match link.read(self.link, self.tls_in.space()) {
            Ok(Transfer::Bytes(count)) => {
                self.tls_in.filled(count);
                self.budget = self.budget.saturating_sub(count);
                self.reached = true;
                Ok(true)
            }
            Ok(Transfer::NotNow) => Ok(false),
            Ok(Transfer::Ended) => Err(Reason::Closed),
            Err(fault) => Err(self.fault(fault)),
        }
    }

    fn fault(&self, fault: LinkFault) -> Reason {
        log::debug!("backplane: link fault={fault}");
        if self.to.is_some() && !self.reached { Reason::Unreachable } else { Reason::Link }
    }

    /// Ciphertext to the peer.
    fn flush<L: Link>(&mut self, link: &mut L) -> Result<bool, Reason> {
        let mut moved = false;
        while !self.tls_out.is_empty() {
            match link.write(self.link, self.tls_out.bytes()) {
                Ok(Transfer::Bytes(count)) => self.tls_out.consume(count),
                Ok(Transfer::NotNow | Transfer::Ended) => break,
                Err(fault) => return Err(self.fault(fault)),
            }
            moved = true;
        }
        Ok(moved)
    }

    fn turn_channel(&mut self) -> Result<bool, Reason> {
        let outgoing = match &mut self.session {
            Some(session) => session.outgoing(),
            None => &[],
        };
        let before = (self.tls_in.len(), self.tls_out.len(), self.plain.len());
        let sealed = self.channel.turn(&mut self.tls_in, &mut self.plain, outgoing, &mut self.tls_out)?;
        if let Some(session) = &mut self.session {
            session.sent(sealed);
        }
        Ok(sealed > 0 || before != (self.tls_in.len(), self.tls_out.len(), self.plain.len()))
    }

    /// A goodbye, the end of the encryption, or the alert that its fault left behind; as much of it as goes at once.
    pub(super) fn last_words<L: Link>(&mut self, link: &mut L, reason: Reason) {
        if let Some(session) = &mut self.session {
            session.close(reason);
            // The rest of a frame, and the goodbye.
            while self.flush(link).is_ok() && self.turn_channel().unwrap_or(false) {}
        }
        if self.channel.is_open() {
            self.channel.close(&mut self.tls_in, &mut self.tls_out);
        }
        let _ = self.flush(link);
    }
}

/// A peer's certificate, and who may be at the other end.
struct Caller {
    identity: Box<dyn Identity>,
    to: Option<NodeId>,
    dialers: Arc<[NodeId]>,
}

impl Identity for Caller {
    fn check(&self, node: NodeId) -> Result<(), Reason> {
        self.identity.check(node)?;
        let listed = self.to == Some(node) || (self.to.is_none() && self.dialers.contains(&node));
        if listed { Ok(()) } else { Err(Reason::Stranger) }
    }
}
