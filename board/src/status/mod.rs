//! What a cluster is doing: the coordinator's JSON, read leniently, and as text.
//!
//! | module | what |
//! |---|---|
//! | this one | the document's fields; missing ones are empty, unknown ones are left alone (another version may send more) |
//! | [`render`] | the document as text of at most 79 columns, ASCII but for names |
//!
//! Source: ours.

pub mod render;

use serde::{Deserialize, Serialize};

/// A coordinator's word on everything.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Status {
    /// The node that answers.
    pub node: u32,
    /// Who coordinates, as far as that node knows.
    pub coordinator: Option<Coordinator>,
    /// What is wrong with the store, as the node sees it that answers.
    pub store: Option<StoreTrouble>,
    /// How old the numbers of backups and points are, in seconds; `None`: nothing is known of that.
    pub age_s: Option<u64>,
    /// What the node that was asked sees itself, where that is another than the one that answers.
    pub here: Option<Here>,
    /// How many seconds the clock of the node that answers is ahead of the store's, when the two do not agree.
    pub clock_ahead_s: Option<i64>,
    /// All nodes that are known.
    pub nodes: Vec<Node>,
    /// What runs.
    pub backups: Vec<Backup>,
    /// Policies that wait.
    pub queue: Vec<String>,
    /// The garbage run, and what is still to come back.
    pub garbage: Garbage,
    /// The last points, oldest first.
    pub points: Vec<Point>,
    /// The last errors, oldest first.
    pub errors: Vec<Trouble>,
    /// Volumes of the agent that was asked whose device is not there, with its path.
    pub volumes_missing: Vec<String>,
}

/// A store that fails.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct StoreTrouble {
    /// Its own words.
    pub why: String,
    /// Since when, in nanoseconds since 1970.
    pub since_wall_ns: i64,
}

/// What a node sees itself.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Here {
    /// The node.
    pub node: u32,
    /// What is wrong with its store.
    pub store: Option<StoreTrouble>,
    /// Another machine with its number was met.
    pub namesake: Option<String>,
}

/// Who coordinates.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Coordinator {
    /// Its node; `None` while nobody does.
    pub node: Option<u32>,
    /// The lease, or the last one that was.
    pub epoch: u64,
    /// The lease was let go, as there is nothing to do.
    pub resting: bool,
    /// What is left of the lease, in milliseconds.
    pub lease_left_ms: Option<u64>,
    /// Why nobody does; `None`: there is nothing to do, or somebody does.
    pub why: Option<String>,
    /// Since when nobody does, in nanoseconds since 1970.
    pub since_wall_ns: Option<i64>,
}

/// What gives space back.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Garbage {
    /// A run goes on, or is to go on.
    pub is_wanted: bool,
    /// What it does now; `None`: the coordinator is not at it.
    pub phase: Option<String>,
    /// Names that it has deleted.
    pub run_deleted: u64,
    /// Bytes of the objects among them.
    pub run_deleted_bytes: u64,
    /// Bytes of objects that are retired and not deleted yet.
    pub waiting_bytes: u64,
}

/// A node.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Node {
    /// Its number.
    pub node: u32,
    /// Whether it is heard from.
    pub up: bool,
    /// `up`, `stopped` in an orderly way, or `down`.
    pub state: String,
    /// Since when, in nanoseconds since 1970.
    pub since_wall_ns: Option<i64>,
    /// What is wrong with it.
    pub why: Option<String>,
    /// Its share of the work.
    pub weight: u32,
    /// Memory budget in bytes.
    pub memory_bytes: u64,
    /// Pack lanes.
    pub lanes: u32,
    /// Bytes a second that it uploads.
    pub rate: u64,
    /// What it can read.
    pub volumes: Vec<String>,
    /// How much it works on.
    pub assignments: u32,
}

/// A running backup.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Backup {
    /// Its number.
    pub backup: u32,
    /// Of which policy.
    pub policy: String,
    /// It was stopped: nothing goes on before it is asked for.
    pub stopped: bool,
    /// Items dealt with.
    pub items_done: u64,
    /// Items expected; 0 while unknown.
    pub items_total: u64,
    /// Bytes dealt with.
    pub bytes_done: u64,
    /// Bytes expected; 0 while unknown.
    pub bytes_total: u64,
    /// Bytes a second.
    pub rate: u64,
    /// Seconds left.
    pub eta_s: Option<u64>,
    /// Why nothing goes on, and until when; `None`: it goes on.
    pub waits: Option<String>,
    /// Who does what.
    pub assignments: Vec<Assignment>,
}

/// A stretch of a volume that a node works on. Keys are (inode, block).
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Assignment {
    /// Who.
    pub node: u32,
    /// Of which volume.
    pub volume: u32,
    /// From this key.
    pub from: (u64, u64),
    /// Up to this one.
    pub to: (u64, u64),
    /// Up to here it is done.
    pub done: (u64, u64),
}

/// A recovery point.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Point {
    /// Its number.
    pub backup: u32,
    /// Of which policy.
    pub policy: String,
    /// `complete`, or anything else: some items are not whole.
    pub status: String,
    /// Items in it.
    pub items: u64,
    /// Bytes of contents.
    pub bytes: u64,
    /// Faults: items that are not whole, and what else the point lacks.
    pub faults: u64,
    /// Volumes of its policy that it is without: the first few.
    pub volumes_missing: Vec<Volume>,
    /// How many they are.
    pub volumes_missing_count: u64,
    /// When it was complete, nanoseconds since 1970.
    pub wall_end_ns: i64,
}

/// A volume.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub struct Volume {
    /// Its number.
    pub volume: u32,
    /// Its device, as its policy names it; `None` when that is not known.
    pub device: Option<String>,
}

/// Something that went wrong.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Trouble {
    /// When, nanoseconds since 1970.
    pub wall_ns: i64,
    /// Where, if it was one node's.
    pub node: Option<u32>,
    /// Of which policy's backups, if it was of one's.
    pub policy: Option<String>,
    /// What, and what to do.
    pub what: String,
}

impl Status {
    /// Reads the document.
    pub fn parse(json: &str) -> Result<Status, String> {
        serde_json::from_str(json).map_err(|error| format!("a status of another version: {error}"))
    }

    /// Whether a node coordinates.
    pub fn is_held(&self) -> bool {
        self.coordinator.as_ref().is_some_and(|holder| holder.node.is_some())
    }

    /// Whether the node that answers has peers and reaches none of them.
    pub fn is_cut_off(&self) -> bool {
        let mut peers = self.nodes.iter().filter(|node| node.node != self.node).peekable();
        peers.peek().is_some() && peers.all(|node| !node.up)
    }

    /// Why nobody coordinates though somebody should.
    pub fn why_none(&self) -> Option<&str> {
        self.coordinator.as_ref().filter(|holder| holder.node.is_none())?.why.as_deref()
    }

    /// Whether nobody coordinates because there is nothing to do.
    pub fn is_resting(&self) -> bool {
        !self.is_held()
            && self.coordinator.as_ref().is_some_and(|holder| holder.resting && holder.why.is_none())
    }
}
