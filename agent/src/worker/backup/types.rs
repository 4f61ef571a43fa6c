//! What a backup of one volume is given and what it says. Source: ours.

use std::sync::Arc;

use windlass_hal::block::{Fault, Request};
use windlass_hal::volume::{Cursor, Item, Swept, Timestamp, Window};

use crate::format::record::Totals as PointTotals;
use crate::format::row::{ItemRow, LocationRow};
use crate::id::{BackupId, Key, Lin, ObjectId, VolumeId};
use crate::pack::lane::Job;
use crate::pack::object::ObjectBuf;
use crate::pack::reading::Reading;
use crate::table::lost::LostRows;
use crate::table::segment::SegmentMeta;
use crate::worker::batch::Shape;

/// What to back up and how.
#[derive(Clone, Debug)]
pub struct Task {
    /// The volume's number.
    pub volume: VolumeId,
    /// The backup that rows are written under.
    pub backup: BackupId,
    /// Block, row and frame sizes.
    pub shape: Shape,
    /// The device's logical block in bytes.
    pub logical_block_bytes: u32,
    /// The file system's block in bytes: allocation past an item's size is judged by it.
    pub volume_block_bytes: u32,
    /// How the device is read.
    pub reading: Reading,
    /// How far the last point is believed.
    pub trust: Trust,
    /// Change times after this second are not met: a clock was wrong when they were written, and they say nothing of the volume's age.
    pub newest_secs_max: i64,
    /// When this stretch was begun, seconds since 1970: deletions say so.
    pub wall_secs: i64,
    /// First key of the stretch. See [`stretch`](crate::worker::stretch) for where it may be.
    pub from: Key,
    /// First key behind the stretch: what lies there is left alone.
    pub to: Key,
    /// How long blocks may wait in an object that does not fill, in nanoseconds.
    pub flush_interval_ns: u64,
    /// Objects, sent or on their way, after which a commit is due.
    pub commit_objects: usize,
    /// Shortest time between commits that are due because of them, in nanoseconds.
    pub commit_pause_ns: u64,
    /// Time after which a commit is due when there is anything to say, in nanoseconds.
    pub commit_interval_ns: u64,
}

/// How far the last point is believed where its row of an item says what the volume says now. Names, targets, attributes and all else that
/// is in the row are compared and need no trust; what is in blocks is taken for unchanged only when its change time proves it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Trust {
    /// Whether the volume is the one that the last point was made of. Nothing of another one counts as unchanged, however alike it looks.
    pub same_volume: bool,
    /// Whether the volume provably was not written to since the last point.
    pub unwritten: bool,
    /// Files changed before this second were changed a while before the last point's volume was frozen, so that a change since then would
    /// show in their change time. Of later ones that is not known: file systems stamp with a clock that ticks.
    pub settled_before_secs: i64,
    /// When the volume was made.
    pub created: Timestamp,
}

impl Trust {
    /// Whether the contents of a file that looks as in the last point are those of the last point.
    ///
    /// A kernel gives every inode a random generation, so that an equal one stands for the same file, and stamps each change. What a program
    /// wrote into an image has none of its own (ext4), or the very time at which the volume was made (XFS); such programs can be told
    /// which times to write, and then the contents of two images differ where nothing else does. Those files are read each time.
    pub fn holds(&self, item: &Item) -> bool {
        let by_a_kernel = item.generation != 0 && item.btime.is_none_or(|made| made != self.created);
        self.same_volume && by_a_kernel && (self.unwritten || item.ctime.secs < self.settled_before_secs)
    }
}

/// Rows of the last point, read in step with the sweep. `Fault` is whatever keeps the tables from being read.
pub trait Base {
    /// Why rows could not be read.
    type Fault;

    /// Appends the items that the last point has with inodes in `from..to`, ascending.
    fn items(&mut self, from: u64, to: u64, out: &mut Vec<ItemRow>) -> Result<(), Self::Fault>;

    /// Appends the location rows of `item` with bases in `from..=to`, ascending.
    fn locations(
        &mut self,
        item: &ItemRow,
        from: u64,
        to: u64,
        out: &mut Vec<LocationRow>,
    ) -> Result<(), Self::Fault>;

    /// Appends the location rows of an inode with bases in `from..=to`, ascending, that backups of the policy have committed since the last
    /// point and stopped: what was stored already, whatever became of the item since. Blocks are compared by digest.
    fn unfinished(
        &mut self,
        inode: u64,
        from: u64,
        to: u64,
        out: &mut Vec<LocationRow>,
    ) -> Result<(), Self::Fault>;

    /// Segments of which rows could not be read so far, and why: the point counts as not having them.
    fn lost(&self) -> Vec<LostRows> {
        Vec::new()
    }
}

/// What the machine wants done. Each leads to exactly one event, except `Sweep`, `Commit` and `Put`'s own failures, which end
/// the backup in the driver.
#[derive(Debug)]
pub enum Action {
    /// Sweep the volume from the cursor into the window.
    Sweep(Cursor, Window),
    /// Read from the device.
    Read(Request),
    /// Read through the volume: for each segment, the file and its byte. The request comes back as one that was read.
    ReadContents(Request, Vec<(u64, u64)>),
    /// Give to a lane.
    Pack(Job),
    /// Upload an object.
    PutObject(Arc<ObjectBuf>),
    /// Upload a segment.
    PutSegment(Arc<ObjectBuf>),
    /// Commit.
    Commit(Progress),
}

/// What has happened.
#[derive(Debug)]
pub enum Event {
    /// A window was swept.
    Swept(Window, Swept),
    /// A read came back, with faults per segment.
    Read(Request),
    /// A lane is done with a frame.
    Packed(Job),
    /// An object or segment is acknowledged.
    Stored(ObjectId),
    /// The commit is durable.
    Committed,
}

/// What a commit covers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Objects acknowledged since the last commit, with their sizes.
    pub objects: Vec<(ObjectId, u32)>,
    /// Segments written since the last commit.
    pub segments: Vec<SegmentMeta>,
    /// Where the commit before ended.
    pub from: Key,
    /// All rows in `from..to` are in segments of this commit. With neither rows nor items there, it moves all the same.
    pub to: Key,
    /// What was done in `from..to`; bytes stored, objects and segments are those that are named here.
    pub totals: PointTotals,
    /// Items with something missing that were found since the last commit, as many as are kept.
    pub troubles: Vec<ItemTrouble>,
    /// The newest change time met on the volume so far, in seconds.
    pub newest_secs: Option<i64>,
    /// Whether the stretch is done.
    pub last: bool,
}

/// What the backup did so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Items that exist.
    pub items: u64,
    /// Items that are exactly as in the last point.
    pub items_same: u64,
    /// Items that the last point had and that are gone.
    pub items_deleted: u64,
    /// Bytes of the items' contents, holes included.
    pub item_bytes: u64,
    /// Bytes read from the device.
    pub read_bytes: u64,
    /// Read operations on the device.
    pub reads: u64,
    /// Bytes of blocks whose contents were looked at.
    pub block_bytes: u64,
    /// Bytes of blocks that were stored, before compression.
    pub stored_plain_bytes: u64,
    /// Bytes of objects and segments acknowledged.
    pub stored_bytes: u64,
    /// Upload objects acknowledged.
    pub objects: u64,
    /// Segments acknowledged.
    pub segments: u64,
    /// Items with something that could not be read.
    pub fault_count: u64,
}

impl Totals {
    /// Counts the contents of an item. Two sparse files may have all the bytes that a number has: the sum then stays at its largest.
    pub(super) fn add_item_bytes(&mut self, bytes: u64) {
        self.item_bytes = self.item_bytes.saturating_add(bytes);
    }

    /// What was done since `before`, without what was stored: each commit says what it names.
    pub(super) fn since(&self, before: &Totals) -> PointTotals {
        let items = self.items - before.items;
        let looked_at = self.block_bytes - before.block_bytes;
        PointTotals {
            items,
            items_changed: items.saturating_sub(self.items_same - before.items_same),
            items_deleted: self.items_deleted - before.items_deleted,
            bytes_logical: self.item_bytes - before.item_bytes,
            bytes_read: self.read_bytes - before.read_bytes,
            bytes_reused: looked_at.saturating_sub(self.stored_plain_bytes - before.stored_plain_bytes),
            faults: self.fault_count - before.fault_count,
            ..PointTotals::default()
        }
    }

    /// The sum of both, for several volumes.
    pub fn plus(&self, other: &Totals) -> Totals {
        Totals {
            items: self.items + other.items,
            items_same: self.items_same + other.items_same,
            items_deleted: self.items_deleted + other.items_deleted,
            item_bytes: self.item_bytes.saturating_add(other.item_bytes),
            read_bytes: self.read_bytes + other.read_bytes,
            reads: self.reads + other.reads,
            block_bytes: self.block_bytes + other.block_bytes,
            stored_plain_bytes: self.stored_plain_bytes + other.stored_plain_bytes,
            stored_bytes: self.stored_bytes + other.stored_bytes,
            objects: self.objects + other.objects,
            segments: self.segments + other.segments,
            fault_count: self.fault_count + other.fault_count,
        }
    }
}

/// An item that could not be read whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ItemTrouble {
    /// Which.
    pub lin: Lin,
    /// What is missing, in a sentence.
    pub what: String,
}

/// Why the machine cannot go on.
#[derive(Debug)]
pub enum BackupFault<F> {
    /// The device under the volume is gone, or refuses what the machine asked.
    Device(Fault),
    /// The last point's rows could not be read.
    Base(F),
    /// A frame does not give back what was read: this machine changed it on the way. The object that it is in, and where.
    Spoilt(ObjectId, u32),
}
