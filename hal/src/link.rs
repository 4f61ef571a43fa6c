//! The network of the backplane: byte streams between nodes.
//!
//! Invariants
//! - No call waits. A call that would have to wait returns [`Transfer::NotNow`], and the reactor is woken
//!   when it can go on.
//! - A connection is named by a [`LinkId`], which is never used twice: calls about one that was closed are [`LinkFault::Closed`].
//! - The number of connections is bounded by the port; beyond it `connect` refuses and connections that come in are dropped.
//!
//! Does not: encrypt, frame, or authenticate the other end. Source: ours.

use std::fmt;

use nix::errno::Errno;

/// Names a connection of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId {
    /// Place in the port's table.
    pub slot: usize,
    /// Counts the connections of the port.
    pub generation: u64,
}

/// What came of a read or a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transfer {
    /// So many bytes, at least 1.
    Bytes(usize),
    /// Nothing at present; also while the connection is being made.
    NotNow,
    /// The other end sends no more. Reads only.
    Ended,
}

/// Why a connection cannot be made or used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LinkFault {
    /// The system's error number.
    Errno(i32),
    /// The address's host name is not known, or it is no address.
    Name,
    /// All places for connections are taken.
    Full,
    /// The connection was closed on this side.
    Closed,
}

impl fmt::Display for LinkFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LinkFault::Errno(errno) => f.write_str(Errno::from_raw(*errno).desc()),
            LinkFault::Name => f.write_str("the host name is not known; write HOST:PORT or IP:PORT"),
            LinkFault::Full => f.write_str("all places for connections are taken"),
            LinkFault::Closed => f.write_str("the connection was closed"),
        }
    }
}

impl std::error::Error for LinkFault {}

/// A listener and connections.
pub trait Link {
    /// The reactor's poll reported `token`. Tokens of others are ignored.
    fn ready(&mut self, token: usize);

    /// Begins to make a connection to `HOST:PORT` or `IP:PORT`. A failure is reported by the first read or
    /// write.
    fn connect(&mut self, address: &str) -> Result<LinkId, LinkFault>;

    /// The next incoming connection; `None` if there is none at present.
    fn accept(&mut self) -> Option<LinkId>;

    /// Reads the bytes that have arrived.
    fn read(&mut self, id: LinkId, into: &mut [u8]) -> Result<Transfer, LinkFault>;

    /// Writes as many bytes as can be sent now.
    fn write(&mut self, id: LinkId, bytes: &[u8]) -> Result<Transfer, LinkFault>;

    /// Ends a connection. Bytes written before are still sent if possible.
    fn close(&mut self, id: LinkId);

    /// Address of the other end, for messages.
    fn describe(&self, id: LinkId) -> String;

    /// Whether [`Link::read`] would say something now: bytes, an end, or a fault. Takes nothing.
    fn has_bytes(&mut self, id: LinkId) -> bool;

    /// Where a connection comes from, without its port: what bounds count by. An IPv6 host has a /64 of its own at least, so addresses of
    /// one are the same.
    fn source(&self, id: LinkId) -> String;
}
