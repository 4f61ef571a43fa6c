//! One client: its socket, its TLS if it came by TCP, and its conversation. Nothing here waits.
//!
//! Bytes are read only while the conversation wants some, so a client that asks faster than it is answered is held back by TCP.
//!
//! Invariants: after [`Turn::Gone`] nothing is done any more. A client that was refused may send a little more before it is closed, or it would lose
//! the refusal. Source: ours; rustls 0.23.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Shutdown, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use rustls::ServerConnection;
use windlass_agent::api::conn::{Conn, Now, Shut};
use windlass_agent::api::limits::{HANDSHAKE_NS, LINGER_BYTES_MAX, LINGER_NS, STALL_NS};
use windlass_agent::api::request::Request;

use super::shared::Rule;
use super::tls;

/// Bytes read in one go.
const READ_BYTES: usize = 4096;
/// Bytes of answers that TLS may hold for a slow client.
const TLS_BUFFER_BYTES: usize = 16 << 10;

/// Its socket.
pub enum Stream {
    /// From elsewhere.
    Tcp(TcpStream),
    /// From this machine.
    Unix(UnixStream),
}

impl Stream {
    fn shutdown_write(&self) {
        // One that is gone needs no end.
        let _ = match self {
            Stream::Tcp(stream) => stream.shutdown(Shutdown::Write),
            Stream::Unix(stream) => stream.shutdown(Shutdown::Write),
        };
    }

    /// Its descriptor.
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        match self {
            Stream::Tcp(stream) => stream.as_fd(),
            Stream::Unix(stream) => stream.as_fd(),
        }
    }
}

impl Read for Stream {
    fn read(&mut self, bytes: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Stream::Tcp(stream) => stream.read(bytes),
            Stream::Unix(stream) => stream.read(bytes),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        match self {
            Stream::Tcp(stream) => stream.write(bytes),
            Stream::Unix(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// What a turn brought.
pub enum Turn {
    /// It asks this.
    Request(Box<Request>),
    /// Nothing to do until it is ready again, or its deadline.
    Waiting,
    /// It is over; why, if a rule closed it.
    Gone(Option<Rule>),
}

/// What reading brought.
enum Came {
    Something,
    Nothing,
    End,
    Broken(Option<Rule>),
}

/// See the module.
pub struct Client {
    stream: Stream,
    tls: Option<Box<ServerConnection>>,
    /// Its conversation.
    pub conn: Conn,
    /// Who it is: names with commas between; empty until that is known.
    pub subject: String,
    /// Where it is.
    pub peer: Option<IpAddr>,
    opened_ns: u64,
    /// Nothing more is said: since when, and how much came since.
    over: Option<(u64, usize)>,
    /// The socket's own side is closed.
    is_shut: bool,
    /// The rule that shut it out, if one did.
    rule: Option<Rule>,
}

impl Client {
    /// Over a socket that does not block.
    pub fn new(
        stream: Stream,
        tls: Option<ServerConnection>,
        subject: String,
        peer: Option<IpAddr>,
        now_ns: u64,
    ) -> Client {
        let mut tls = tls.map(Box::new);
        if let Some(tls) = &mut tls {
            tls.set_buffer_limit(Some(TLS_BUFFER_BYTES));
        }
        let conn = Conn::new(now_ns);
        Client { stream, tls, conn, subject, peer, opened_ns: now_ns, over: None, is_shut: false, rule: None }
    }

    /// Its descriptor.
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.stream.descriptor()
    }

    /// Whether its handshake is not done.
    pub fn is_handshaking(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.is_handshaking())
    }

    /// Whether it asks nothing, and its place may be given away.
    pub fn is_idle(&self) -> bool {
        self.conn.is_idle() && !self.is_handshaking()
    }

    /// When it is to have a turn at the latest.
    pub fn deadline(&self) -> Option<u64> {
        if let Some((since_ns, _)) = self.over {
            let patience = if self.is_shut { LINGER_NS } else { STALL_NS };
            return Some(since_ns.saturating_add(patience));
        }
        if self.is_handshaking() {
            return Some(self.opened_ns.saturating_add(HANDSHAKE_NS));
        }
        self.conn.deadline()
    }

    /// Moves bytes both ways until a request is there or nothing moves.
    pub fn turn(&mut self, now: Now) -> Turn {
        if self.deadline().is_some_and(|due| due <= now.ns) {
            if self.over.is_some() {
                return Turn::Gone(self.rule);
            }
            if self.is_handshaking() {
                return Turn::Gone(Some(Rule::HandshakeSlow));
            }
            match self.conn.wake(now) {
                Some(Shut::Idle) => self.rule = Some(Rule::Idle),
                Some(Shut::Stalled) => return Turn::Gone(Some(Rule::Stalled)),
                Some(Shut::Refused) | None => {}
            }
        }
        loop {
            if self.flush(now).is_err() {
                return Turn::Gone(self.rule);
            }
            if self.over.is_some() {
                return self.linger(now);
            }
            if let Some(request) = self.conn.next_request(now) {
                return Turn::Request(Box::new(request));
            }
            if self.conn.take_refused().is_some() {
                self.rule = Some(Rule::Refused);
                continue;
            }
            if self.conn.is_over() {
                self.over = Some((now.ns, 0));
                continue;
            }
            if !self.wants_bytes() {
                return Turn::Waiting;
            }
            match self.fill(now) {
                Came::Something => {}
                Came::Nothing => return Turn::Waiting,
                Came::End => {
                    self.conn.end();
                    if self.conn.is_over() || self.is_handshaking() {
                        return Turn::Gone(self.rule);
                    }
                }
                Came::Broken(rule) => return Turn::Gone(rule.or(self.rule)),
            }
        }
    }

    fn wants_bytes(&self) -> bool {
        self.is_handshaking() || self.conn.wants_input() || self.conn.is_streaming()
    }

    /// Sends what there is to send, as far as it is taken.
    fn flush(&mut self, now: Now) -> Result<(), ()> {
        let Some(tls) = &mut self.tls else {
            while !self.conn.output().is_empty() {
                match self.stream.write(self.conn.output()) {
                    Ok(count) => self.conn.sent(now.ns, count),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    Err(_) => return Err(()),
                }
            }
            return Ok(());
        };
        loop {
            let mut moved = false;
            if !tls.is_handshaking() && !self.conn.output().is_empty() {
                let count = tls.writer().write(self.conn.output()).map_err(drop)?;
                if count > 0 {
                    self.conn.sent(now.ns, count);
                    moved = true;
                }
            }
            while tls.wants_write() {
                match tls.write_tls(&mut self.stream) {
                    Ok(0) => return Err(()),
                    Ok(_) => moved = true,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    Err(_) => return Err(()),
                }
            }
            if !moved {
                return Ok(());
            }
        }
    }

    /// Takes what came.
    fn fill(&mut self, now: Now) -> Came {
        let mut bytes = [0; READ_BYTES];
        let Some(tls) = &mut self.tls else {
            return loop {
                match self.stream.read(&mut bytes) {
                    Ok(0) => break Came::End,
                    Ok(count) => {
                        if !self.conn.is_streaming() {
                            self.conn.feed(now.ns, &bytes[..count]);
                        }
                        break Came::Something;
                    }
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break Came::Nothing,
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    Err(_) => break Came::Broken(None),
                }
            };
        };
        // What was opened before comes first.
        match tls.reader().read(&mut bytes) {
            Ok(0) => return Came::End,
            Ok(count) => {
                if !self.conn.is_streaming() {
                    self.conn.feed(now.ns, &bytes[..count]);
                }
                return Came::Something;
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(_) => return Came::End,
        }
        match tls.read_tls(&mut self.stream) {
            Ok(0) => return Came::End,
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Came::Nothing,
            Err(error) if error.kind() == ErrorKind::Interrupted => return Came::Something,
            Err(_) => return Came::Broken(None),
        }
        let was_handshaking = tls.is_handshaking();
        if tls.process_new_packets().is_err() {
            // It is told why, if it takes that at once.
            let _ = tls.write_tls(&mut self.stream);
            return Came::Broken(Some(Rule::Tls));
        }
        if was_handshaking && !tls.is_handshaking() {
            self.subject = tls::subject_of(tls);
            self.conn = Conn::new(now.ns);
        }
        Came::Something
    }

    /// After the last answer: says that it is the last, and lets the client say a little more.
    fn linger(&mut self, now: Now) -> Turn {
        if !self.is_shut {
            if let Some(tls) = &mut self.tls {
                tls.send_close_notify();
                while tls.wants_write() {
                    match tls.write_tls(&mut self.stream) {
                        Ok(0) => return Turn::Gone(self.rule),
                        Ok(_) => {}
                        Err(error) if error.kind() == ErrorKind::WouldBlock => return Turn::Waiting,
                        Err(_) => return Turn::Gone(self.rule),
                    }
                }
            }
            self.stream.shutdown_write();
            self.is_shut = true;
            self.over = Some((now.ns, 0));
        }
        let mut bytes = [0; READ_BYTES];
        loop {
            let Some((_, came)) = &mut self.over else { return Turn::Gone(self.rule) };
            match self.stream.read(&mut bytes) {
                Ok(0) => return Turn::Gone(self.rule),
                Ok(count) => {
                    *came += count;
                    if *came > LINGER_BYTES_MAX {
                        return Turn::Gone(self.rule);
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Turn::Waiting,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Turn::Gone(self.rule),
            }
        }
    }
}
