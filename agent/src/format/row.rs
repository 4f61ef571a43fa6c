//! Rows: one value per row kind of the two cloud tables, and how they order.
//!
//! | row | key | what |
//! |---|---|---|
//! | [`ItemRow`] | LIN, backup | metadata table: attributes, small payloads, extended attributes; or the item's deletion and what it was |
//! | [`NameRow`] | LIN of the directory, backup, run, name | metadata table: an entry of a directory |
//! | [`LocationRow`] | LIN, base, backup | block location table: where blocks `base .. base + N` are |
//! | [`EntryRow`] | LIN, block, backup | tails of upload objects only: where one block is; a rebuild makes location rows of them |
//!
//! Reading at a recovery point P (a cut), for one item:
//! - its item row is the one of the greatest backup <= P; a deletion hides the item;
//! - `rows_from` of that row is the first backup whose other rows count: names of a directory are those of
//!   backup == `rows_from` (a listing is always rewritten whole); locations at each base are those of the
//!   greatest backup in `rows_from ..= P`;
//! - bases without a row, and blocks at or past the item's size, are holes.
//!
//! Names are rows of their own because the sweep meets inodes in inode order and names in directory order: no join, no memory
//! that grows with the volume, and hard links need nothing special. A path is walked from the volume's root.
//!
//! A large directory does not fit a window, so its names are sorted within runs: `run` counts the parts of the listing.
//!
//! Does not: encode (see `block`), or order (see `key`). Source: ours; terms: `agent/doc/glossary.md`.

use windlass_hal::volume::{ExtentState, Hints, ItemKind, Timestamp};

use super::key::KeyRef;
use crate::id::{BackupId, Lin, ObjectId};

/// Bytes of a block digest: keyed BLAKE3, cut to 128 bits. Equality of digests stands for equality of blocks.
pub const DIGEST_BYTES: usize = 16;

/// Digest of a block's plain bytes under the repository's digest key.
pub type Digest = [u8; DIGEST_BYTES];

/// A row of the metadata table that describes an item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ItemRow {
    /// Volume and inode number of the item.
    pub lin: Lin,
    /// The backup that wrote this row.
    pub backup: BackupId,
    /// The item, or `None` when it was found deleted by this backup.
    pub item: Option<ItemAttributes>,
    /// Of a deletion: what was deleted. `None` for an item that is there, and for a deletion that an older program wrote.
    pub gone: Option<Box<Gone>>,
}

/// What a deletion keeps of the item: types 4 (deleted file) and 5 (deleted directory) of the metadata table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gone {
    /// Type of the item.
    pub kind: ItemKind,
    /// Permission bits, `0..=0o7777`.
    pub mode: u16,
    /// User id of the owner.
    pub uid: u32,
    /// Group id of the owner.
    pub gid: u32,
    /// Size in bytes.
    pub size: u64,
    /// Last change of the contents.
    pub mtime: Timestamp,
    /// Inode of a directory's last parent, 0 otherwise: only listings name files, and there may be several.
    pub parent: u64,
    /// When the backup that missed it began to look, seconds since 1970.
    pub found_secs: i64,
}

impl Gone {
    /// What a deletion keeps of `item`, which was missed at `found_secs`.
    pub fn of(item: &ItemAttributes, found_secs: i64) -> Gone {
        Gone {
            kind: item.kind,
            mode: item.mode,
            uid: item.uid,
            gid: item.gid,
            size: item.size,
            mtime: item.mtime,
            parent: item.parent,
            found_secs,
        }
    }
}

/// The attributes of an item that exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ItemAttributes {
    /// Type of the item.
    pub kind: ItemKind,
    /// The first backup whose name and location rows of this item count.
    pub rows_from: BackupId,
    /// Generation of the inode number.
    pub generation: u32,
    /// Permission bits, `0..=0o7777`.
    pub mode: u16,
    /// User id of the owner.
    pub uid: u32,
    /// Group id of the owner.
    pub gid: u32,
    /// Number of hard links.
    pub links: u32,
    /// Device number of a special file: major, minor.
    pub rdev: (u32, u32),
    /// Size in bytes.
    pub size: u64,
    /// End in bytes of space allocated past the size, 0 when none: restore preallocates up to it.
    pub allocated_to: u64,
    /// Bytes between the size and `allocated_to` that are not allocated, as (first, one past the last): ascending, apart, none
    /// empty, at most `ITEM_GAPS_MAX`.
    pub gaps: Vec<(u64, u64)>,
    /// Last access.
    pub atime: Timestamp,
    /// Last change of the contents.
    pub mtime: Timestamp,
    /// Last change of the inode.
    pub ctime: Timestamp,
    /// Creation, if the file system keeps it.
    pub btime: Option<Timestamp>,
    /// `FS_*_FL` flags.
    pub flags: u32,
    /// Project id.
    pub project: u32,
    /// Allocation hints of XFS.
    pub hints: Hints,
    /// Inode of a directory's parent, 0 otherwise.
    pub parent: u64,
    /// Digest of the names that a directory's listing holds and of what they name, 0 when there is none to compare with: other items, a
    /// listing that came in parts, and rows of older programs.
    pub listing: u64,
    /// Contents that are stored in the row.
    pub payload: RowPayload,
    /// Extended attributes, ascending by name: (full name, value).
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Whether the backup that wrote this row could not prove that it read the item's contents unchanged: the
    /// next backup reads the item again even if its attributes are equal.
    pub unsure: bool,
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
    /// The contents of a file, at most as long as the item; what is behind them, up to its size, is zero.
    Inline(Vec<u8>),
}

/// A row of the metadata table that names an item: an entry of a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameRow {
    /// Volume and inode number of the directory.
    pub parent: Lin,
    /// The backup that wrote this listing.
    pub backup: BackupId,
    /// Number of the part of the listing; names are sorted within a part.
    pub run: u32,
    /// The name, 1..=255 bytes.
    pub name: Vec<u8>,
    /// Inode it names, on the same volume.
    pub inode: u64,
}

/// A row of the block location table: `blocks.len()` consecutive blocks of an item, at most N of the repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocationRow {
    /// Volume and inode number of the item.
    pub lin: Lin,
    /// Index of the first block; a multiple of N.
    pub base: u64,
    /// The backup that wrote this row.
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
    /// Data that the medium did not give; stored as zero.
    Lost,
}

impl From<ExtentState> for RunKind {
    fn from(state: ExtentState) -> RunKind {
        match state {
            ExtentState::Data | ExtentState::Opaque => RunKind::Data,
            ExtentState::Unwritten => RunKind::Unwritten,
        }
    }
}

/// Where one block's bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockPlace {
    /// No data in it: a hole or unwritten, by the runs.
    Empty,
    /// All its data is zero bytes; nothing is stored.
    Zero,
    /// The medium gave none of its data; nothing is stored. (A block of which some is missing is stored with zeros there,
    /// and the row's runs mark the place.)
    Lost,
    /// Stored in an upload object.
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

/// A row of an upload object's tail: one block that this object holds, or that has nothing to hold. An object's blocks do not
/// line up with rows of N, and it must be readable without the tables.
///
/// A rebuild lays the entries of a backup over the location row of the backup before it (while `rows_from` allows). A location
/// row with extent runs, or whose blocks became empty, must be in a tail as a whole [`LocationRow`], which overrides that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntryRow {
    /// Volume and inode number of the item.
    pub lin: Lin,
    /// Index of the block.
    pub block: u64,
    /// The backup that wrote it.
    pub backup: BackupId,
    /// Block size in bytes that the index counts in.
    pub block_bytes: u32,
    /// Where it is.
    pub place: BlockPlace,
}

/// The kinds of rows. A row block holds one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum RowKind {
    /// [`ItemRow`].
    Item = 1,
    /// [`NameRow`].
    Name = 2,
    /// [`LocationRow`].
    Location = 3,
    /// [`EntryRow`].
    Entry = 4,
}

/// Number of row kinds: arrays by kind are indexed by [`RowKind::index`].
pub const ROW_KINDS: usize = 4;

impl RowKind {
    /// All kinds, in the order of [`RowKind::index`].
    pub const ALL: [RowKind; ROW_KINDS] = [RowKind::Item, RowKind::Name, RowKind::Location, RowKind::Entry];

    /// Position in arrays by kind, `0..ROW_KINDS`.
    pub fn index(self) -> usize {
        self as usize - 1
    }

    /// Inverse of `kind as u8`.
    pub fn from_byte(byte: u8) -> Option<RowKind> {
        RowKind::ALL.into_iter().find(|&kind| kind as u8 == byte)
    }
}

/// A row of any kind.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(
    clippy::large_enum_variant,
    reason = "few rows are held at a time, and most are of the large variant"
)]
pub enum Row {
    /// Of the metadata table.
    Item(ItemRow),
    /// Of the metadata table.
    Name(NameRow),
    /// Of the block location table.
    Location(LocationRow),
    /// Of an object's tail.
    Entry(EntryRow),
}

/// A borrowed row of any kind: what builders take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowRef<'a> {
    /// Of the metadata table.
    Item(&'a ItemRow),
    /// Of the metadata table.
    Name(&'a NameRow),
    /// Of the block location table.
    Location(&'a LocationRow),
    /// Of an object's tail.
    Entry(&'a EntryRow),
}

impl Row {
    /// Borrows it.
    pub fn as_ref(&self) -> RowRef<'_> {
        match self {
            Row::Item(row) => RowRef::Item(row),
            Row::Name(row) => RowRef::Name(row),
            Row::Location(row) => RowRef::Location(row),
            Row::Entry(row) => RowRef::Entry(row),
        }
    }

    /// Its item, or the directory for a name.
    pub fn lin(&self) -> Lin {
        self.as_ref().lin()
    }

    /// Which backup wrote it.
    pub fn backup(&self) -> BackupId {
        self.as_ref().key().backup
    }
}

impl<'a> RowRef<'a> {
    /// Its kind.
    pub fn kind(&self) -> RowKind {
        match self {
            RowRef::Item(_) => RowKind::Item,
            RowRef::Name(_) => RowKind::Name,
            RowRef::Location(_) => RowKind::Location,
            RowRef::Entry(_) => RowKind::Entry,
        }
    }

    /// Its item, or the directory for a name.
    pub fn lin(&self) -> Lin {
        self.key().lin
    }

    /// More bytes than its encoding can take in a block, dictionary included.
    pub fn bytes_max(&self) -> usize {
        match self {
            RowRef::Item(row) => row.item.as_ref().map_or(128, |item| {
                let payload = match &item.payload {
                    RowPayload::None => 0,
                    RowPayload::Target(bytes) | RowPayload::Inline(bytes) => bytes.len(),
                };
                let xattrs: usize =
                    item.xattrs.iter().map(|(name, value)| name.len() + value.len() + 20).sum();
                256 + payload + xattrs + item.fault.len()
            }),
            RowRef::Name(row) => 64 + row.name.len(),
            RowRef::Location(row) => 128 + row.blocks.len() * 72 + row.runs.len() * 12,
            RowRef::Entry(_) => 128,
        }
    }

    /// Its key: unique among rows of its kind.
    pub fn key(&self) -> KeyRef<'a> {
        let plain = |lin, base, backup| KeyRef { lin, base, backup, run: 0, name: &[] };
        match self {
            RowRef::Item(row) => plain(row.lin, 0, row.backup),
            RowRef::Name(row) => {
                KeyRef { lin: row.parent, base: 0, backup: row.backup, run: row.run, name: &row.name }
            }
            RowRef::Location(row) => plain(row.lin, row.base, row.backup),
            RowRef::Entry(row) => plain(row.lin, row.block, row.backup),
        }
    }
}

impl<'a> From<&'a Row> for RowRef<'a> {
    fn from(row: &'a Row) -> RowRef<'a> {
        row.as_ref()
    }
}

impl<'a> From<&'a ItemRow> for RowRef<'a> {
    fn from(row: &'a ItemRow) -> RowRef<'a> {
        RowRef::Item(row)
    }
}

impl<'a> From<&'a NameRow> for RowRef<'a> {
    fn from(row: &'a NameRow) -> RowRef<'a> {
        RowRef::Name(row)
    }
}

impl<'a> From<&'a LocationRow> for RowRef<'a> {
    fn from(row: &'a LocationRow) -> RowRef<'a> {
        RowRef::Location(row)
    }
}

impl<'a> From<&'a EntryRow> for RowRef<'a> {
    fn from(row: &'a EntryRow) -> RowRef<'a> {
        RowRef::Entry(row)
    }
}
