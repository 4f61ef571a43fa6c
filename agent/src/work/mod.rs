//! Values that travel: between the nodes of a cluster, and between a node and the faces through which people and programs reach it.
//!
//! | module | what |
//! |---|---|
//! | this one | work of a cluster ([`Assignment`], [`Report`], [`MergeOrder`], [`Present`], [`Found`]) and requests of its coordinator ([`Command`], [`Reply`]) |
//! | [`table`] | every command: name, arguments, role, help, replies; [`entry`] has what an entry says |
//! | [`request`] | a [`Command`] as a name and named values, as the table has them, and back |
//!
//! Invariants: plain data. Does not: encode (`backplane::message` does for nodes, `board/src/control/wire.rs` for the socket), judge, or do
//! anything. Source: ours.

pub mod entry;
pub mod request;
pub mod table;

use crate::format::record::{BackupVolume, Record, SegmentMeta, Totals};
use crate::id::{BackupId, Boot, Epoch, Key, NodeId, ObjectId, VolumeId};
use crate::policy::select::Unmatched;
use crate::worker::density::Marks;

/// Names an assignment: never used twice, as epochs are not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AssignmentId {
    /// Epoch of the coordinator that made it.
    pub epoch: Epoch,
    /// Counter within that epoch: `1..`.
    pub number: u32,
}

/// A stretch of a volume for one worker to read, pack, upload and report.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Assignment {
    /// Its name.
    pub id: AssignmentId,
    /// The running backup: policy and the rest are in the log.
    pub backup: BackupId,
    /// The volume, as the backup found it: when it is no longer so, the assignment fails.
    pub volume: BackupVolume,
    /// First key.
    pub from: Key,
    /// First key that is not in it.
    pub to: Key,
}

/// Segments of a volume to make fewer of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MergeOrder {
    /// Its name.
    pub id: AssignmentId,
    /// The volume.
    pub volume: VolumeId,
    /// Which, `2..=`[`GROUP_MAX`](crate::table::plan::GROUP_MAX).
    pub segments: Vec<ObjectId>,
}

/// What a node is and has: sent after each announcement of a new epoch, and then with every beat.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Present {
    /// Which start of the node.
    pub boot: Boot,
    /// How much of the work it wants compared with others, `0..=1000`; 0: none.
    pub weight: u32,
    /// Bytes of memory budget.
    pub memory_bytes: u64,
    /// Pack lanes.
    pub lanes: u32,
    /// Bytes a second that it uploads at present.
    pub rate: u64,
    /// Volumes that it can read: names or paths of its board profile.
    pub volumes: Vec<String>,
    /// Assignments that it works on, with the key up to which they are reported.
    pub held: Vec<(Assignment, Key)>,
    /// The merge that it works on, or has done and not been told that it counts.
    pub merging: Option<AssignmentId>,
    /// Bytes that it has sent to the store since it started: as long as they grow it gets on, however slow its uplink is. 0 from a node
    /// that speaks version 1.
    pub uploaded: u64,
}

/// A volume as a node found it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// What the log will say of it.
    pub volume: BackupVolume,
    /// Key past its last item: it is cut in proportion.
    pub end: Key,
    /// The distance of cuts: a multiple of this many inodes, or of blocks when it is an image (`end.0 == 1`).
    pub grain: u64,
    /// Items, as it counts them; for progress.
    pub items: u64,
    /// Bytes in use; for progress.
    pub bytes: u64,
    /// Include patterns of the policy that match nothing on it.
    pub unmatched: Unmatched,
    /// Where its bytes lie. Not among the fields of a `Found` on the wire: the message has them behind all else, from version 2 on.
    pub marks: Marks,
}

/// Work that is in the store: it counts when the coordinator has committed it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Of which assignment.
    pub assignment: Assignment,
    /// Counts reports of an assignment from 1; the same one may come more than once.
    pub sequence: u32,
    /// The stretch that it covers: from the end of the one before.
    pub from: Key,
    /// To here.
    pub to: Key,
    /// Objects acknowledged by the store.
    pub objects: Vec<(ObjectId, u64)>,
    /// Segments acknowledged by the store.
    pub segments: Vec<SegmentMeta>,
    /// What was done since the report before.
    pub totals: Totals,
    /// Items with something missing: inode, and what.
    pub troubles: Vec<(u64, String)>,
    /// The newest change time met on the volume so far, in seconds.
    pub newest_secs: Option<i64>,
}

/// A request of the coordinator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Start a backup of this policy, or say which one runs.
    Backup(String),
    /// Everything that there is to know, as JSON.
    Status,
    /// Move the coordinator to this node.
    Move(NodeId),
    /// Commit these records: changes of policies.
    Submit(Vec<Record>),
    /// Stop the running backup of this policy; it goes on where it was when started again.
    Stop(String),
    /// Have all nodes send what they have packed, and commit it.
    Flush,
    /// The same, of a subject: what is asked for counts if a role allows it, and the log says who asked.
    As {
        /// Who: `uid:1000` or `gid:100`, with commas between where one has several.
        subject: String,
        /// What.
        command: Box<Command>,
    },
}

/// The answer to a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// Done; when a backup was started, which.
    Done(Option<BackupId>),
    /// JSON.
    Status(String),
    /// Not done: why, and what to do.
    Refused(String),
}

impl Command {
    /// Whether its answer waits for other nodes: the coordinator has bounds of its own for that.
    pub fn may_take_long(&self) -> bool {
        matches!(self.plain(), Command::Backup(_) | Command::Flush | Command::Move(_))
    }

    /// What is asked for, without who asks.
    #[must_use]
    pub fn plain(&self) -> &Command {
        match self {
            Command::As { command, .. } => command.plain(),
            other => other,
        }
    }
}
