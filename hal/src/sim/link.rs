//! Byte streams between simulated nodes: cut anywhere, delivered late, and broken on request.
//!
//! Invariants
//! - Bytes of a connection arrive in order and once, as TCP promises, in pieces of any size from 1 and after any number of turns.
//! - What is written and not yet read is bounded ([`PIPE_BYTES_MAX`]): a peer that does not read blocks its writer.
//! - The same seed and calls give the same pieces.
//!
//! Does not: keep time. Source: ours.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::prng::Prng;
use crate::link::{Link, LinkFault, LinkId, Transfer};

/// Bytes in one direction of a connection at most, so that tests meet writers that must wait.
const PIPE_BYTES_MAX: usize = 8 << 10;

/// One direction.
#[derive(Default)]
struct Pipe {
    bytes: VecDeque<u8>,
    ended: bool,
}

/// A connection: towards the one that accepts, and back.
struct Wire {
    ends: [String; 2],
    pipes: [Pipe; 2],
    broken: bool,
}

#[derive(Default)]
struct Net {
    wires: BTreeMap<u64, Wire>,
    next: u64,
    /// Connections that wait to be accepted, by address.
    waiting: BTreeMap<String, VecDeque<u64>>,
    /// Pairs of addresses between which nothing gets through.
    cut: Vec<(String, String)>,
}

/// The network that ports are on. Clones are the same network.
#[derive(Clone, Default)]
pub struct SimNet {
    net: Arc<Mutex<Net>>,
}

impl SimNet {
    fn net(&self) -> MutexGuard<'_, Net> {
        self.net.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The port of a node with this address; it accepts connections to it. Pieces are cut by `seed`.
    pub fn port(&self, address: &str, seed: u64) -> SimLink {
        self.net().waiting.insert(address.to_owned(), VecDeque::new());
        let (address, prng) = (address.to_owned(), Prng::new(seed));
        SimLink { net: self.clone(), address, prng, ends: BTreeMap::new(), generation: 0 }
    }

    /// From now on holds back all bytes between two nodes, in both directions; neither end gets an error.
    pub fn cut(&self, a: &str, b: &str) {
        self.net().cut.push((a.to_owned(), b.to_owned()));
    }

    /// Lets everything through again; what was written meanwhile arrives.
    pub fn heal(&self) {
        self.net().cut.clear();
    }

    /// Breaks all connections between two nodes: reads and writes at both ends then fail.
    pub fn reset(&self, a: &str, b: &str) {
        for wire in self.net().wires.values_mut() {
            wire.broken |= is_pair(&wire.ends, a, b);
        }
    }
}

fn is_pair(ends: &[String; 2], a: &str, b: &str) -> bool {
    (ends[0] == a && ends[1] == b) || (ends[0] == b && ends[1] == a)
}

impl Net {
    fn is_cut(&self, ends: &[String; 2]) -> bool {
        self.cut.iter().any(|(a, b)| is_pair(ends, a, b))
    }
}

/// A node's port.
pub struct SimLink {
    net: SimNet,
    address: String,
    prng: Prng,
    /// By generation: the wire, and whether this node accepted it.
    ends: BTreeMap<u64, (u64, bool)>,
    generation: u64,
}

impl SimLink {
    fn insert(&mut self, wire: u64, accepted: bool) -> LinkId {
        self.generation += 1;
        self.ends.insert(self.generation, (wire, accepted));
        LinkId { slot: 0, generation: self.generation }
    }

    fn end(&self, id: LinkId) -> Result<(u64, usize), LinkFault> {
        let &(wire, accepted) = self.ends.get(&id.generation).ok_or(LinkFault::Closed)?;
        Ok((wire, usize::from(accepted)))
    }
}

impl Link for SimLink {
    fn ready(&mut self, _token: usize) {}

    fn connect(&mut self, address: &str) -> Result<LinkId, LinkFault> {
        let mut net = self.net.net();
        let number = net.next;
        net.next += 1;
        let ends = [self.address.clone(), address.to_owned()];
        let reached = match net.waiting.get_mut(address) {
            Some(waiting) => {
                waiting.push_back(number);
                true
            }
            None => false,
        };
        net.wires.insert(number, Wire { ends, pipes: Default::default(), broken: !reached });
        drop(net);
        Ok(self.insert(number, false))
    }

    fn accept(&mut self) -> Option<LinkId> {
        let mut net = self.net.net();
        let number = *net.waiting.get(&self.address)?.front()?;
        if net.wires.get(&number).is_some_and(|wire| net.is_cut(&wire.ends)) {
            return None;
        }
        net.waiting.get_mut(&self.address)?.pop_front();
        drop(net);
        Some(self.insert(number, true))
    }

    fn read(&mut self, id: LinkId, into: &mut [u8]) -> Result<Transfer, LinkFault> {
        let (number, side) = self.end(id)?;
        let mut net = self.net.net();
        let wire = net.wires.get(&number).ok_or(LinkFault::Closed)?;
        if wire.broken {
            return Err(LinkFault::Errno(nix::errno::Errno::ECONNRESET as i32));
        }
        if net.is_cut(&wire.ends) || self.prng.one_in(4) {
            return Ok(Transfer::NotNow);
        }
        let wire = net.wires.get_mut(&number).ok_or(LinkFault::Closed)?;
        let pipe = &mut wire.pipes[1 - side];
        if pipe.bytes.is_empty() {
            return Ok(if pipe.ended { Transfer::Ended } else { Transfer::NotNow });
        }
        let most = pipe.bytes.len().min(into.len());
        let count = 1 + self.prng.below(most as u64) as usize;
        for (to, from) in into.iter_mut().zip(pipe.bytes.drain(..count.min(most))) {
            *to = from;
        }
        Ok(if most == 0 { Transfer::NotNow } else { Transfer::Bytes(count) })
    }

    fn write(&mut self, id: LinkId, bytes: &[u8]) -> Result<Transfer, LinkFault> {
        let (number, side) = self.end(id)?;
        let mut net = self.net.net();
        let wire = net.wires.get_mut(&number).ok_or(LinkFault::Closed)?;
        if wire.broken || wire.pipes[1 - side].ended {
            return Err(LinkFault::Errno(nix::errno::Errno::EPIPE as i32));
        }
        let pipe = &mut wire.pipes[side];
        let most = bytes.len().min(PIPE_BYTES_MAX - pipe.bytes.len());
        if most == 0 || self.prng.one_in(4) {
            return Ok(Transfer::NotNow);
        }
        let count = 1 + self.prng.below(most as u64) as usize;
        pipe.bytes.extend(&bytes[..count]);
        Ok(Transfer::Bytes(count))
    }

    fn close(&mut self, id: LinkId) {
        if let Ok((number, side)) = self.end(id)
            && let Some(wire) = self.net.net().wires.get_mut(&number)
        {
            wire.pipes[side].ended = true;
        }
        self.ends.remove(&id.generation);
    }

    fn describe(&self, id: LinkId) -> String {
        let end = self.end(id).ok();
        let other =
            end.and_then(|(number, side)| Some(self.net.net().wires.get(&number)?.ends[1 - side].clone()));
        other.unwrap_or_else(|| "not connected".to_owned())
    }

    fn has_bytes(&mut self, id: LinkId) -> bool {
        let Ok((number, side)) = self.end(id) else { return true };
        let net = self.net.net();
        let Some(wire) = net.wires.get(&number) else { return true };
        let pipe = &wire.pipes[1 - side];
        wire.broken || (!net.is_cut(&wire.ends) && (pipe.ended || !pipe.bytes.is_empty()))
    }

    fn source(&self, id: LinkId) -> String {
        self.describe(id)
    }
}
