//! Connections that came in and have not said which node they are: who gets the buffers of a handshake, who waits, who makes room.
//!
//! ```text
//!  accepted -> waits (no buffers) -> its first bytes are here, and there is a place -> handshake -> hello
//! ```
//!
//! Invariants
//! - A connection that says nothing gets no buffers.
//! - Of [`PENDING_MAX`] places one host has [`PENDING_SOURCE_MAX`] at most, so that what one host does keeps no other out.
//! - Who has shown a certificate of the cluster never makes room, and a connection that is up is none of those that could.
//!
//! Does not: judge certificates. Source: ours.

use std::cmp::Reverse;
use std::time::Duration;

use windlass_hal::clock::Instant;
use windlass_hal::link::{Link, LinkId};

use super::{Conn, Net};
use crate::backplane::reason::Reason;
use crate::backplane::session::HELLO_LIMIT;

/// Connections that were accepted, have their buffers (70 KiB), and have not said hello yet.
pub const PENDING_MAX: usize = 16;
/// Of those, from one host: a quarter is left for all others.
pub const PENDING_SOURCE_MAX: usize = 12;
/// Connections that were accepted and wait for such a place: a descriptor each, so that a process of the usual 1024 has them with as many
/// peers as there may be. One more, and the host with the most of them loses one.
pub const WAITING_MAX: usize = 128;
/// How long a connection waits for a place, or for its own first bytes: who dialled gives up then.
const WAIT_LIMIT: Duration = HELLO_LIMIT;
/// How long a connection without a certificate keeps its place when another waits: a handshake takes milliseconds on a backplane, and some
/// hundreds of them with a loaded CPU at either end.
const YIELD_AFTER: Duration = Duration::from_secs(1);
/// Connections accepted in one turn, so that a flood of them leaves time for those that are up.
pub(super) const ACCEPTS_PER_TURN: usize = 8;

/// A connection without buffers.
pub(super) struct Waiting {
    link: LinkId,
    source: String,
    since: Instant,
    /// Whether it has said something.
    has_bytes: bool,
}

/// A place for a connection.
struct Place {
    /// From when on.
    at: Instant,
    /// Who makes room.
    whose: Option<u64>,
}

impl<L: Link> Net<L> {
    /// Takes connections in, and gives those that have begun to talk their buffers as there are places.
    pub(super) fn accept(&mut self, now: Instant) {
        self.has_more = true;
        for _ in 0..ACCEPTS_PER_TURN {
            let Some(link) = self.link.accept() else {
                self.has_more = false;
                break;
            };
            let source = self.link.source(link);
            self.waiting.push(Waiting { link, source, since: now, has_bytes: false });
        }
        for waiting in &mut self.waiting {
            waiting.has_bytes = waiting.has_bytes || self.link.has_bytes(waiting.link);
        }
        while let Some(at) =
            self.waiting.iter().position(|waiting| waiting.since.saturating_add(WAIT_LIMIT) <= now)
        {
            self.turn_away(at, Reason::HandshakeSlow);
        }
        while let Some((at, whose)) = self.next_admitted(now) {
            if let Some(number) = whose {
                self.end(now, number, Reason::Evicted);
            }
            let Waiting { link, source, .. } = self.waiting.remove(at);
            match self.security.accept() {
                Some(channel) => _ = self.insert(now, link, channel, Err(source)),
                None => {
                    self.count(None, Reason::Tls);
                    self.link.close(link);
                }
            }
        }
        while self.waiting.len() > WAITING_MAX {
            let Some(at) = self.most_waiting() else { return };
            self.turn_away(at, Reason::Evicted);
        }
    }

    /// When [`Net::accept`] has something to do next.
    pub(super) fn accept_due(&self) -> Option<Instant> {
        if self.has_more {
            return Some(Instant::ZERO);
        }
        let due = |waiting: &Waiting| {
            let place = if waiting.has_bytes { self.place(&waiting.source) } else { None };
            place.map(|place| place.at).into_iter().chain([waiting.since.saturating_add(WAIT_LIMIT)])
        };
        self.waiting.iter().flat_map(due).min()
    }

    /// All that wait are sent away: this node stops.
    pub(super) fn accept_no_more(&mut self) {
        self.has_more = false;
        self.waiting.drain(..).for_each(|waiting| self.link.close(waiting.link));
    }

    fn turn_away(&mut self, at: usize, reason: Reason) {
        let waiting = self.waiting.remove(at);
        let address = self.link.describe(waiting.link);
        self.link.close(waiting.link);
        let count = self.count(None, reason);
        super::tell_ended(None, &address, reason, count);
    }

    /// Who is admitted next, and who makes room for it: of those that talk, one of the host that has the fewest places, the oldest.
    fn next_admitted(&self, now: Instant) -> Option<(usize, Option<u64>)> {
        let talking = self.waiting.iter().enumerate().filter(|(_, waiting)| waiting.has_bytes);
        let ready = talking.filter_map(|(at, waiting)| {
            let place = self.place(&waiting.source).filter(|place| place.at <= now)?;
            Some((self.held(&waiting.source), at, place.whose))
        });
        ready.min_by_key(|&(held, at, _)| (held, at)).map(|(_, at, whose)| (at, whose))
    }

    fn pending(&self) -> impl Iterator<Item = &Conn> {
        self.conns.iter().filter(|conn| conn.is_pending())
    }

    fn held(&self, source: &str) -> usize {
        self.pending().filter(|conn| conn.source == source).count()
    }

    /// The next place for a connection of a host. `None`: all that could make room have shown their certificates.
    fn place(&self, source: &str) -> Option<Place> {
        let is_at_its_bound = self.held(source) >= PENDING_SOURCE_MAX;
        if !is_at_its_bound && self.pending().count() < PENDING_MAX {
            return Some(Place { at: Instant::ZERO, whose: None });
        }
        // Its own at its bound; else the host that has the most.
        let may = |conn: &&Conn| !conn.is_certified() && (!is_at_its_bound || conn.source == source);
        let yields = self.pending().filter(may);
        let yields = yields.max_by_key(|conn| (self.held(&conn.source), Reverse(conn.number)))?;
        Some(Place { at: yields.since.saturating_add(YIELD_AFTER), whose: Some(yields.number) })
    }

    /// Of the host that has the most waiting, the oldest that has said nothing, else the oldest.
    fn most_waiting(&self) -> Option<usize> {
        let of = |source: &str| self.waiting.iter().filter(|waiting| waiting.source == source).count();
        let all = self.waiting.iter().enumerate();
        let most = all.max_by_key(|(at, waiting)| (of(&waiting.source), !waiting.has_bytes, Reverse(*at)));
        most.map(|(at, _)| at)
    }
}
