//! The backplane: what nodes say to each other, and how it is carried.
//!
//! | module | what |
//! |---|---|
//! | [`message`] | bodies of frames |
//! | [`header`] | 80 bytes in front of each body, and the order in which they are checked |
//! | [`hello`] | the first frame each way |
//! | [`session`] | one connection above its encryption: hello, credits, pings, frames |
//! | [`tls`] | its encryption and who is at the other end |
//! | `conn` | a link, a channel and a session together |
//! | [`net`] | all connections of a node |
//! | [`reason`] | why connections end, and how often |
//! | [`fifo`] | buffers of fixed size between these |
//!
//! How a reactor uses it:
//!
//! ```text
//! let mut link = TcpLink::new(&poll, TOKEN, conns_max(peers.len()))?;     // hal::linux::link, on the reactor's poll
//! link.listen("10.0.0.1:7600")?;
//! let tls = Tls::new(node, Pem { ca, certificate, key }, clock)?;
//! let mut net = Net::new(link, Box::new(tls), NetConfig { local, peers, seed })?;
//! loop {
//!     poll.wait(until the nearest deadline, net.deadline() among them, &mut ready);
//!     net.turn(now, &ready);
//!     while let Some(event) = net.next_event(now) { .. }                  // Up, Message, Down; a bounded number at a time
//!     net.send(now, to, epoch, log_slot, &message)                        // goes out at once as far as it can
//! }
//! net.stop(now);
//! ```
//!
//! Memory: about 134 KiB for each connection (records 18 in and 36 out, plain 16, a frame 64), 70 before its hello, and what waits to be
//! sent, at most 512. Control only: data goes from worker to store, never through here.
//! Source: `agent/doc/architecture.md`, Backplane.

mod conn;
pub mod fifo;
pub mod header;
pub mod hello;
pub mod message;
pub mod net;
pub mod reason;
pub mod session;
pub mod tls;
