//! Rows: one value per row kind of the two cloud tables, and how they order.
//!
//! | row | key | what |
//! |---|---|---|
//! | [`ItemRow`] | LIN, backup | metadata table: attributes, small payloads, extended attributes; or the item's deletion |
//! | [`NameRow`] | LIN of the directory, backup, run, name | metadata table: an entry of a directory |
//! | [`LocationRow`] | LIN, base, backup | block location table: where blocks `base .. base + N` are |
//!
//! Reading at a recovery point P (a cut), for one item:
//! - its item row is the one of the greatest backup <= P; a deletion hides the item;
//! - `rows_from` of that row says since which backup its other rows count: names of a directory are those of backup ==
//!   `rows_from` (a listing is always rewritten whole); locations at each base are those of the greatest backup in `rows_from ..= P`;
//! - bases without a row, and blocks at or past the item's size, are holes.
//!
//! Names are rows of their own because the sweep meets inodes in inode order and names in directory order: no join, no memory
//! that grows with the volume, and hard links need nothing special. A path is walked from the volume's root.
//!
//! A large directory does not fit a window, so its names are sorted within runs: `run` counts the parts of the listing.
//!
//! Does not: encode (see `block`). Source: ours; terms from the architecture, section 2.

use windlass_hal::volume::{ExtentState, ItemKind, Timestamp};

use crate::id::{BackupId, Lin, ObjectId};

/// Bytes of a block digest: keyed BLAKE3, cut to 128 bits. Equality of digests stands for equality of blocks.
pub const DIGEST_BYTES: usize = 16;

/// Digest of a block's plain bytes under the repository's digest key.
pub type Digest = [u8; DIGEST_BYTES];

/// A row of the metadata table that describes an item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ItemRow {
    /// Which item.
    pub lin: Lin,
    /// Which backup wrote this row.
    pub backup: BackupId,
    /// The item, or `None` when it was found deleted by this backup.
    pub item: Option<ItemAttributes>,
}

/// What an item row says of an item that exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ItemAttributes {
    /// What it is.
    pub kind: ItemKind,
    /// Since which backup this item's name and location rows count.
    pub rows_from: BackupId,
    /// Generation of the inode number.
    pub generation: u32,
    /// Permission bits, `0..=0o7777`.
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Hard links.
    pub links: u32,
    /// Device number of a special file: major, minor.
    pub rdev: (u32, u32),
    /// Size in bytes.
    pub size: u64,
    /// End in bytes of space allocated past the size, 0 when none: restore preallocates up to it.
    pub allocated_to: u64,
    /// Times.
    pub atime: Timestamp,
    /// Last change of the contents.
    pub mtime: Timestamp,
    /// Last change of the inode.
    pub ctime: Timestamp,
    /// Creation.
    pub btime: Option<Timestamp>,
    /// `FS_*_FL` flags.
    pub flags: u32,
    /// Project id.
    pub project: u32,
    /// Inode of a directory's parent, 0 otherwise.
    pub parent: u64,
    /// Small contents.
    pub payload: RowPayload,
    /// Extended attributes, ascending by name: (full name, value).
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// What this backup could not read of the item: empty when nothing, else one sentence for people.
    pub fault: String,
}

/// Small contents that live in the item row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RowPayload {
    /// None: contents are in location rows.
    None,
    /// Target of a symlink.
    Target(Vec<u8>),
    /// The whole contents of a file.
    Inline(Vec<u8>),
}

/// A row of the metadata table that names an item: an entry of a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameRow {
    /// The directory.
    pub parent: Lin,
    /// Which backup wrote this listing.
    pub backup: BackupId,
    /// Which part of the listing; names are sorted within a run.
    pub run: u32,
    /// The name, 1..=255 bytes.
    pub name: Vec<u8>,
    /// Inode it names, on the same volume.
    pub inode: u64,
}

/// A row of the block location table: `blocks.len()` consecutive blocks of an item, at most N of the repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocationRow {
    /// Which item.
    pub lin: Lin,
    /// Index of the first block; a multiple of N.
    pub base: u64,
    /// Which backup wrote this row.
    pub backup: BackupId,
    /// Block size in bytes that the indices count in: constant for an item between `rows_from` changes.
    pub block_bytes: u32,
    /// Where each block is.
    pub blocks: Vec<BlockPlace>,
    /// Extent states of the bytes that the row covers, from its first byte on, as (kind, length in bytes); empty when all of
    /// it is data. What the runs do not reach is a hole.
    pub runs: Vec<(RunKind, u64)>,
}

/// State of a run of bytes within a location row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunKind {
    /// Written data.
    Data,
    /// Not allocated; reads as zero.
    Hole,
    /// Allocated and not written; reads as zero.
    Unwritten,
}

impl From<ExtentState> for RunKind {
    fn from(state: ExtentState) -> RunKind {
        match state {
            ExtentState::Data => RunKind::Data,
            ExtentState::Unwritten => RunKind::Unwritten,
        }
    }
}

/// Where one block's bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockPlace {
    /// No data in it at all: hole or unwritten, as the runs say.
    Empty,
    /// All its data is zero bytes; nothing is stored.
    Zero,
    /// The medium did not give it; its bytes are missing from this point.
    Lost,
    /// Stored.
    Stored(Place),
}

/// Where a stored block is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The upload object.
    pub object: ObjectId,
    /// Byte offset of the frame in the object.
    pub frame_offset: u32,
    /// Bytes of the frame in the object, header and tag included.
    pub frame_bytes: u32,
    /// Byte offset of the block in the frame's plain contents.
    pub inner_offset: u32,
    /// Bytes of the block: the block size, or less for the last block of an item.
    pub len: u32,
    /// Digest of those bytes.
    pub digest: Digest,
}
