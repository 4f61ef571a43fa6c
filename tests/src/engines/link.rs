//! A slow link: a TCP proxy on loopback that holds back each byte for a while, both ways, and can lose all connections.
//!
//! ```text
//!  client --> proxy: read, note when --> wait until then + delay --> write --> server
//!         <-- the same, the other way <--
//! ```
//!
//! Bytes that are under way count as sent: the rate is not limited, only the time. Threads end with their connections, and the proxy
//! with the process. Source: ours.
#![allow(clippy::disallowed_methods, reason = "a link is a matter of time")]

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Bytes that are read at once.
const PIECE_BYTES: usize = 16 << 10;

/// A link to one server.
#[derive(Clone, Debug)]
pub struct SlowLink {
    address: SocketAddrV4,
    open: Arc<Mutex<Vec<TcpStream>>>,
}

impl SlowLink {
    /// Listens on loopback and passes connections on to `server`, each byte `delay` later.
    ///
    /// # Errors
    /// No port is free.
    pub fn to(server: SocketAddrV4, delay: Duration) -> io::Result<SlowLink> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let SocketAddr::V4(address) = listener.local_addr()? else {
            return Err(io::Error::other("an address of IPv4 was asked for"));
        };
        let open = Arc::new(Mutex::new(Vec::new()));
        let link = SlowLink { address, open: Arc::clone(&open) };
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect(server) else { continue };
                let mut all = open.lock().unwrap_or_else(PoisonError::into_inner);
                let ends = [&client, &server].map(TcpStream::try_clone);
                all.extend(ends.into_iter().flatten());
                drop(all);
                if let (Ok(from_client), Ok(from_server)) = (client.try_clone(), server.try_clone()) {
                    pass_on(from_client, server, delay);
                    pass_on(from_server, client, delay);
                }
            }
        });
        Ok(link)
    }

    /// Where clients connect to.
    #[must_use]
    pub fn address(&self) -> SocketAddrV4 {
        self.address
    }

    /// Ends all connections of now; how many there were.
    pub fn lose(&self) -> usize {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let lost = open.drain(..).filter(|end| end.shutdown(Shutdown::Both).is_ok()).count();
        lost / 2
    }
}

/// One way of a connection.
fn pass_on(mut from: TcpStream, to: TcpStream, delay: Duration) {
    let (sender, pieces) = channel();
    thread::spawn(move || write_later(&pieces, to));
    thread::spawn(move || {
        let mut piece = vec![0; PIECE_BYTES];
        while let Ok(length @ 1..) = from.read(&mut piece) {
            let bytes = piece.get(..length).unwrap_or_default().to_vec();
            if sender.send((Instant::now() + delay, bytes)).is_err() {
                break;
            }
        }
    });
}

fn write_later(pieces: &Receiver<(Instant, Vec<u8>)>, mut to: TcpStream) {
    for (due, bytes) in pieces {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        if to.write_all(&bytes).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_whole_and_later_and_connections_get_lost() {
        let server = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let SocketAddr::V4(address) = server.local_addr().unwrap() else { panic!("no IPv4") };
        let link = SlowLink::to(address, Duration::from_millis(60)).unwrap();
        let echo = thread::spawn(move || {
            let (mut stream, _) = server.accept().unwrap();
            let mut got = vec![0; 100_000];
            stream.read_exact(&mut got).unwrap();
            stream.write_all(&got).unwrap();
            // Until the link is lost.
            assert!(matches!(stream.read(&mut got), Ok(0) | Err(_)));
        });
        let begun = Instant::now();
        let mut client = TcpStream::connect(link.address()).unwrap();
        let sent: Vec<u8> = (0..100_000u32).map(|n| (n % 251) as u8).collect();
        client.write_all(&sent).unwrap();
        let mut back = vec![0; sent.len()];
        client.read_exact(&mut back).unwrap();
        assert!(begun.elapsed() >= Duration::from_millis(120));
        assert_eq!(back, sent);
        assert_eq!(link.lose(), 1);
        assert!(matches!(client.read(&mut back), Ok(0) | Err(_)));
        echo.join().unwrap();
    }
}
