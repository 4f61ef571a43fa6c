//! Connections between nodes over TCP: a listener and a table of connections on the reactor's poll.
//!
//! Invariants
//! - Sockets are registered once, for reading and writing, edge-triggered; what the poll reported is
//!   remembered until a call finds nothing left, so a reactor may ask every connection in every turn at the
//!   price of a comparison.
//! - Host names are looked up by a thread of their own, one after the other: a name server that does not
//!   answer delays only connections to host names.
//!
//! Does not: keep time; the caller ends an attempt by closing it. Source: tcp(7), mio.

use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, ToSocketAddrs as _};
use std::os::fd::AsFd as _;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use mio::net::{TcpListener, TcpStream};

use super::poll::{Poll, Registrar, Waker};
use crate::link::{Link, LinkFault, LinkId, Transfer};

/// Addresses of one host name that are tried: IPv4 and IPv6 of two networks.
const ADDRESSES_MAX: usize = 4;
/// Names that wait for their look-up at most; beyond it the dial fails and is tried again.
const LOOKUPS_MAX: usize = 64;
/// Reads of 4 KiB that are thrown away at most when a connection is closed.
const LINGER_READS: usize = 16;
/// Stack of the thread that looks up names: what the C library's resolver needs with its modules, and room.
const LOOKUP_STACK_BYTES: usize = 256 << 10;

/// How far a connection is.
enum State {
    /// Its name is being looked up.
    Resolving,
    /// A socket that may not be connected yet, and the addresses to try after it.
    Connecting(TcpStream, Vec<SocketAddr>),
    /// Connected.
    Open(TcpStream),
    /// It could not be made.
    Failed(LinkFault),
}

struct Conn {
    generation: u64,
    state: State,
    readable: bool,
    writable: bool,
}

/// What the thread is asked and what it answers.
type Ask = (LinkId, String);
type Answer = (LinkId, Vec<SocketAddr>);

struct Resolver {
    asks: SyncSender<Ask>,
    answers: Receiver<Answer>,
}

/// The TCP port.
pub struct TcpLink {
    registrar: Registrar,
    waker: Waker,
    first_token: usize,
    listener: Option<TcpListener>,
    /// Whether the listener may have connections.
    acceptable: bool,
    conns: Vec<Option<Conn>>,
    generation: u64,
    resolver: Option<Resolver>,
}

impl TcpLink {
    /// A port for up to `conns_max` connections on `poll`, whose tokens `first_token..=first_token + conns_max` are its own.
    pub fn new(poll: &Poll, first_token: usize, conns_max: usize) -> io::Result<TcpLink> {
        Ok(TcpLink {
            registrar: poll.registrar()?,
            waker: poll.waker(),
            first_token,
            listener: None,
            acceptable: false,
            conns: (0..conns_max).map(|_| None).collect(),
            generation: 0,
            resolver: None,
        })
    }

    /// Listens at `HOST:PORT` or `IP:PORT` (port 0: any free one) and returns the address. Looks names up here and now.
    pub fn listen(&mut self, address: &str) -> Result<SocketAddr, LinkFault> {
        let mut fault = LinkFault::Name;
        for address in address.to_socket_addrs().map_err(|_| LinkFault::Name)?.take(ADDRESSES_MAX) {
            match self.listen_at(address) {
                Ok(local) => return Ok(local),
                Err(error) => fault = fault_of(&error),
            }
        }
        Err(fault)
    }

    fn listen_at(&mut self, address: SocketAddr) -> io::Result<SocketAddr> {
        let listener = TcpListener::bind(address)?;
        let local = listener.local_addr()?;
        self.registrar.add_both(listener.as_fd(), self.first_token)?;
        if let Some(old) = self.listener.replace(listener) {
            let _ = self.registrar.remove(old.as_fd());
        }
        self.acceptable = true;
        Ok(local)
    }

    fn insert(&mut self, state: State) -> Result<LinkId, LinkFault> {
        let slot = self.conns.iter().position(Option::is_none).ok_or(LinkFault::Full)?;
        self.generation += 1;
        let generation = self.generation;
        self.conns[slot] = Some(Conn { generation, state, readable: true, writable: true });
        Ok(LinkId { slot, generation })
    }

    fn token(&self, slot: usize) -> usize {
        self.first_token + 1 + slot
    }

    /// The first of these addresses that a socket can be made for.
    fn dial(&self, slot: usize, addresses: Vec<SocketAddr>) -> State {
        let mut fault = LinkFault::Name;
        for (index, &address) in addresses.iter().enumerate() {
            let dialled = TcpStream::connect(address).and_then(|stream| {
                self.registrar.add_both(stream.as_fd(), self.token(slot))?;
                Ok(stream)
            });
            match dialled {
                Ok(stream) => return State::Connecting(stream, addresses[index + 1..].to_vec()),
                Err(error) => fault = fault_of(&error),
            }
        }
        State::Failed(fault)
    }

    /// Sockets for the names that were looked up.
    fn collect(&mut self) {
        while let Some(resolver) = &self.resolver
            && let Ok((id, addresses)) = resolver.answers.try_recv()
        {
            if self.find(id).is_ok_and(|conn| matches!(conn.state, State::Resolving)) {
                let state = self.dial(id.slot, addresses);
                if let Ok(conn) = self.find(id) {
                    conn.state = state;
                }
            }
        }
    }

    fn find(&mut self, id: LinkId) -> Result<&mut Conn, LinkFault> {
        let conn = self.conns.get_mut(id.slot).and_then(Option::as_mut);
        conn.filter(|conn| conn.generation == id.generation).ok_or(LinkFault::Closed)
    }

    /// Gets a connection as far as it can get; true when it is open.
    fn advance(&mut self, id: LinkId) -> Result<bool, LinkFault> {
        if matches!(self.find(id)?.state, State::Resolving) {
            self.collect();
        }
        let conn = self.find(id)?;
        match &mut conn.state {
            State::Open(_) => return Ok(true),
            State::Failed(fault) => return Err(*fault),
            State::Resolving => return Ok(false),
            State::Connecting(..) if !conn.writable => return Ok(false),
            State::Connecting(..) => {}
        }
        let State::Connecting(stream, rest) = std::mem::replace(&mut conn.state, State::Resolving) else {
            return Ok(false);
        };
        // connect(2) says: writable, then SO_ERROR tells how it went. Without a peer it is still under way.
        let error = match stream.take_error() {
            Ok(None) => stream.peer_addr().err(),
            Ok(Some(error)) | Err(error) => Some(error),
        };
        match error {
            None => {
                let _ = stream.set_nodelay(true);
                conn.state = State::Open(stream);
                (conn.readable, conn.writable) = (true, true);
                Ok(true)
            }
            Some(error) if error.kind() == io::ErrorKind::NotConnected => {
                conn.writable = false;
                conn.state = State::Connecting(stream, rest);
                Ok(false)
            }
            Some(error) => {
                let _ = self.registrar.remove(stream.as_fd());
                drop(stream);
                let state =
                    if rest.is_empty() { State::Failed(fault_of(&error)) } else { self.dial(id.slot, rest) };
                self.find(id)?.state = state;
                Ok(false)
            }
        }
    }

    fn lookup(&mut self, id: LinkId, address: &str) -> Result<(), LinkFault> {
        if self.resolver.is_none() {
            self.resolver = Some(Resolver::start(self.waker.clone()).map_err(|error| fault_of(&error))?);
        }
        let resolver = self.resolver.as_ref().ok_or(LinkFault::Name)?;
        resolver.asks.try_send((id, address.to_owned())).map_err(|_| LinkFault::Full)
    }
}

impl Link for TcpLink {
    fn ready(&mut self, token: usize) {
        match token.checked_sub(self.first_token) {
            Some(0) => self.acceptable = true,
            Some(n) if n <= self.conns.len() => {
                if let Some(conn) = &mut self.conns[n - 1] {
                    (conn.readable, conn.writable) = (true, true);
                }
            }
            Some(_) | None => {}
        }
    }

    fn connect(&mut self, address: &str) -> Result<LinkId, LinkFault> {
        let id = self.insert(State::Resolving)?;
        if let Ok(address) = address.parse::<SocketAddr>() {
            let state = self.dial(id.slot, vec![address]);
            self.find(id)?.state = state;
        } else if let Err(fault) = self.lookup(id, address) {
            self.close(id);
            return Err(fault);
        }
        Ok(id)
    }

    fn accept(&mut self) -> Option<LinkId> {
        while self.acceptable {
            let accepted = self.listener.as_ref()?.accept();
            match accepted {
                Ok((stream, _)) => {
                    let _ = stream.set_nodelay(true);
                    // One for which there is no place is dropped, which closes it.
                    let Ok(id) = self.insert(State::Resolving) else {
                        continue;
                    };
                    if let Err(error) = self.registrar.add_both(stream.as_fd(), self.token(id.slot)) {
                        log::warn!("link: connection dropped error={error}");
                        self.conns[id.slot] = None;
                        continue;
                    }
                    if let Ok(conn) = self.find(id) {
                        conn.state = State::Open(stream);
                    }
                    return Some(id);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.acceptable = false,
                // The peer gave up before it was its turn.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                // No descriptors, most likely: those that wait are asked again in the next turn.
                Err(error) => {
                    log::debug!("link: nothing accepted error={error}");
                    return None;
                }
            }
        }
        None
    }

    fn read(&mut self, id: LinkId, into: &mut [u8]) -> Result<Transfer, LinkFault> {
        if !self.advance(id)? {
            return Ok(Transfer::NotNow);
        }
        let conn = self.find(id)?;
        let State::Open(stream) = &mut conn.state else {
            return Ok(Transfer::NotNow);
        };
        while conn.readable && !into.is_empty() {
            match stream.read(into) {
                Ok(0) => return Ok(Transfer::Ended),
                Ok(count) => return Ok(Transfer::Bytes(count)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => conn.readable = false,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(fault_of(&error)),
            }
        }
        Ok(Transfer::NotNow)
    }

    fn write(&mut self, id: LinkId, bytes: &[u8]) -> Result<Transfer, LinkFault> {
        if !self.advance(id)? {
            return Ok(Transfer::NotNow);
        }
        let conn = self.find(id)?;
        let State::Open(stream) = &mut conn.state else {
            return Ok(Transfer::NotNow);
        };
        while conn.writable && !bytes.is_empty() {
            match stream.write(bytes) {
                Ok(0) => conn.writable = false,
                Ok(count) => return Ok(Transfer::Bytes(count)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => conn.writable = false,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(fault_of(&error)),
            }
        }
        Ok(Transfer::NotNow)
    }

    fn close(&mut self, id: LinkId) {
        if self.find(id).is_err() {
            return;
        }
        match self.conns[id.slot].take().map(|conn| conn.state) {
            Some(State::Open(mut stream)) => {
                let _ = self.registrar.remove(stream.as_fd());
                // tcp(7): closing with bytes unread resets the connection, and the peer may lose the last that was written.
                let _ = stream.shutdown(std::net::Shutdown::Write);
                let mut rest = [0; 4096];
                for _ in 0..LINGER_READS {
                    if !matches!(stream.read(&mut rest), Ok(1..)) {
                        break;
                    }
                }
            }
            Some(State::Connecting(stream, _)) => {
                let _ = self.registrar.remove(stream.as_fd());
            }
            Some(State::Resolving | State::Failed(_)) | None => {}
        }
    }

    fn describe(&self, id: LinkId) -> String {
        let conn = self.conns.get(id.slot).and_then(Option::as_ref);
        match conn.filter(|conn| conn.generation == id.generation).map(|conn| &conn.state) {
            Some(State::Open(stream) | State::Connecting(stream, _)) => {
                stream.peer_addr().map_or_else(|_| "not connected".to_owned(), |address| address.to_string())
            }
            Some(State::Resolving | State::Failed(_)) | None => "not connected".to_owned(),
        }
    }

    fn has_bytes(&mut self, id: LinkId) -> bool {
        match self.advance(id) {
            Ok(true) => {}
            Ok(false) => return false,
            Err(_) => return true,
        }
        let Ok(conn) = self.find(id) else { return true };
        let State::Open(stream) = &conn.state else { return false };
        if !conn.readable {
            return false;
        }
        match stream.peek(&mut [0]) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                conn.readable = false;
                false
            }
            Ok(_) | Err(_) => true,
        }
    }

    fn source(&self, id: LinkId) -> String {
        match self.conns.get(id.slot).and_then(Option::as_ref).map(|conn| &conn.state) {
            Some(State::Open(stream)) => {
                stream.peer_addr().map_or_else(|_| String::new(), |at| host_of(at.ip()))
            }
            Some(_) | None => String::new(),
        }
    }
}

/// The address, or the /64 that it is in.
fn host_of(address: IpAddr) -> String {
    match address.to_canonical() {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).to_string(),
    }
}

impl Resolver {
    fn start(waker: Waker) -> io::Result<Resolver> {
        let (asks, asked) = sync_channel::<Ask>(LOOKUPS_MAX);
        let (answer, answers) = sync_channel::<Answer>(LOOKUPS_MAX);
        // It ends when the port is dropped; one that sits in a look-up ends after it.
        std::thread::Builder::new().name("lookup".to_owned()).stack_size(LOOKUP_STACK_BYTES).spawn(
            move || {
                for (id, name) in asked {
                    let found = name.to_socket_addrs().map(|all| all.take(ADDRESSES_MAX).collect());
                    if answer.send((id, found.unwrap_or_default())).is_err() {
                        return;
                    }
                    waker.wake();
                }
            },
        )?;
        Ok(Resolver { asks, answers })
    }
}

fn fault_of(error: &io::Error) -> LinkFault {
    LinkFault::Errno(error.raw_os_error().unwrap_or(nix::errno::Errno::EIO as i32))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Asks until something comes of it.
    fn settle<T>(poll: &mut Poll, link: &mut TcpLink, mut ask: impl FnMut(&mut TcpLink) -> Option<T>) -> T {
        let mut ready = Vec::new();
        for _ in 0..1000 {
            if let Some(settled) = ask(link) {
                return settled;
            }
            poll.wait(Some(Duration::from_millis(10)), &mut ready).unwrap();
            ready.iter().for_each(|&token| link.ready(token));
        }
        panic!("nothing came of it");
    }

    fn port(conns_max: usize) -> (Poll, TcpLink, SocketAddr) {
        let poll = Poll::new(8).unwrap();
        let mut link = TcpLink::new(&poll, 10, conns_max).unwrap();
        let address = link.listen("127.0.0.1:0").unwrap();
        (poll, link, address)
    }

    #[test]
    fn bytes_and_the_end_arrive_and_names_are_looked_up() {
        let (mut poll, mut link, address) = port(4);
        let dialled = link.connect(&format!("localhost:{}", address.port())).unwrap();
        let accepted = settle(&mut poll, &mut link, |link| {
            let _ = link.write(dialled, &[]).unwrap();
            link.accept()
        });
        assert_eq!(link.read(accepted, &mut [0; 4]), Ok(Transfer::NotNow));
        let wrote = settle(&mut poll, &mut link, |link| match link.write(dialled, b"over").unwrap() {
            Transfer::Bytes(count) => Some(count),
            Transfer::NotNow | Transfer::Ended => None,
        });
        assert_eq!(wrote, 4);
        let mut bytes = [0; 9];
        let read = settle(&mut poll, &mut link, |link| match link.read(accepted, &mut bytes).unwrap() {
            Transfer::NotNow => None,
            came => Some(came),
        });
        assert_eq!((read, &bytes[..4]), (Transfer::Bytes(4), &b"over"[..]));
        assert_eq!(link.describe(dialled), address.to_string());
        link.close(dialled);
        let end = settle(&mut poll, &mut link, |link| match link.read(accepted, &mut bytes).unwrap() {
            Transfer::NotNow => None,
            came => Some(came),
        });
        assert_eq!(end, Transfer::Ended);
        assert_eq!(link.read(dialled, &mut bytes), Err(LinkFault::Closed));
        assert_eq!(link.describe(dialled), "not connected");
    }

    #[test]
    fn bytes_are_seen_before_they_are_read_and_hosts_are_told_apart() {
        let (mut poll, mut link, address) = port(4);
        let dialled = link.connect(&address.to_string()).unwrap();
        let accepted = settle(&mut poll, &mut link, |link| {
            let _ = link.write(dialled, &[]).unwrap();
            link.accept()
        });
        assert!(!link.has_bytes(accepted));
        settle(&mut poll, &mut link, |link| match link.write(dialled, b"over").unwrap() {
            Transfer::Bytes(4) => Some(()),
            _ => None,
        });
        settle(&mut poll, &mut link, |link| link.has_bytes(accepted).then_some(()));
        let mut bytes = [0; 9];
        assert_eq!(link.read(accepted, &mut bytes), Ok(Transfer::Bytes(4)), "nothing was taken");
        assert_eq!(link.read(accepted, &mut bytes), Ok(Transfer::NotNow));
        assert!(!link.has_bytes(accepted));
        link.close(dialled);
        settle(&mut poll, &mut link, |link| link.has_bytes(accepted).then_some(()));
        assert_eq!(link.source(accepted), "127.0.0.1");
        for (address, host) in [
            ("10.0.0.7", "10.0.0.7"),
            ("::ffff:10.0.0.7", "10.0.0.7"),
            ("2001:db8:0:7:1:2:3:4", "2001:db8:0:7::"),
            ("::1", "::"),
        ] {
            assert_eq!(host_of(address.parse().unwrap()), host);
        }
    }

    #[test]
    fn what_cannot_be_connected_says_why() {
        let (mut poll, mut link, _) = port(4);
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        for (address, want) in [
            (free.to_string(), LinkFault::Errno(nix::errno::Errno::ECONNREFUSED as i32)),
            ("no address at all".to_owned(), LinkFault::Name),
        ] {
            let id = link.connect(&address).unwrap();
            let fault = settle(&mut poll, &mut link, |link| link.read(id, &mut [0]).err());
            assert_eq!(fault, want, "{address}");
            link.close(id);
        }
        assert_eq!(link.listen("no address at all"), Err(LinkFault::Name));
    }

    #[test]
    fn places_are_bounded_and_used_again_under_another_name() {
        let (mut poll, mut link, address) = port(1);
        let first = link.connect(&address.to_string()).unwrap();
        assert_eq!(link.connect(&address.to_string()), Err(LinkFault::Full));
        // There is no place for the other end, so it is dropped, which the first one sees.
        let end = settle(&mut poll, &mut link, |link| {
            assert_eq!(link.accept(), None);
            match link.read(first, &mut [0]) {
                Ok(Transfer::NotNow) => None,
                came => Some(came),
            }
        });
        assert!(matches!(end, Ok(Transfer::Ended) | Err(LinkFault::Errno(_))), "{end:?}");
        link.close(first);
        let second = link.connect(&address.to_string()).unwrap();
        assert!(second.slot == first.slot && second != first);
        assert_eq!(link.write(first, b"x"), Err(LinkFault::Closed));
    }
}
