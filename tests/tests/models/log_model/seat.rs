//! A writer in a search: with the calls that it has made and nobody has performed, and its place in the hash of a world.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use windlass_agent::format::slot::PlainForTests;
use windlass_agent::log::call::{Call, CallId};
use windlass_agent::log::keys;
use windlass_agent::log::writer::{Writer, WriterOptions};
use windlass_tests::sim::store::{identity, seed};

/// A start of a writer.
#[derive(Clone, Hash)]
pub struct Node {
    pub number: u32,
    pub boot: u64,
    /// Batches committed, over all its starts.
    pub commits: u32,
    pub writer: Writer<PlainForTests>,
    pub open: Vec<Call>,
}

impl Node {
    pub fn new(number: u32, boot: u64, commits: u32, options: WriterOptions) -> Node {
        let writer = Writer::new(identity(number, boot), PlainForTests, options, seed(number, boot));
        Node { number, boot, commits, writer, open: Vec::new() }
    }

    /// The next start.
    pub fn again(&self, options: WriterOptions) -> Node {
        Node::new(self.number, self.boot + 1, self.commits, options)
    }
}

/// Ids beside the calls, out of the hash.
#[derive(Clone)]
pub struct Seat {
    pub node: Arc<Node>,
    pub ids: Vec<CallId>,
    pub print: u64,
}

impl Seat {
    /// A writer's first start.
    pub fn new(number: u32, options: WriterOptions) -> Seat {
        Seat { node: Arc::new(Node::new(number, 1, 0, options)), ids: Vec::new(), print: 0 }
    }
}

pub fn print_of(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// Whether a search follows a call: not past these slots and epochs.
pub fn in_bounds(call: &Call, slots: u64, epochs: u64) -> bool {
    match call {
        Call::Create { key, .. } => match keys::number(key, keys::SLOTS) {
            Some(slot) => slot.0 <= slots,
            None => key[keys::EPOCHS.len()..].parse::<u64>().unwrap() <= epochs,
        },
        _ => true,
    }
}
