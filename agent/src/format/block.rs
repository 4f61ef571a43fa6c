//! Row blocks: sorted rows of one kind, coded against each other, compressed, sealed. The unit in which tables are read.
//!
//! | offset | bytes | field | meaning |
//! |---|---|---|---|
//! | 0 | 4 | magic | "WLRB" |
//! | 4 | 1 | version | 1 |
//! | 5 | 1 | flags | bit 0: body is zstd; bit 1: sealed, else the tag is a MAC; others zero |
//! | 6 | 1 | kind | 1 item, 2 name, 3 location, 4 entry |
//! | 7 | 1 | reserved | zero |
//! | 8 | 4 | rows | 1.. |
//! | 12 | 4 | raw_len | plain bytes, 1..=[`ROW_BLOCK_BYTES_MAX`] |
//! | 16 | 4 | body_len | bytes of the body: less than raw_len when zstd, else equal |
//! | 20 | body_len | body | location and entry blocks: dictionary (count, 24-byte object ids); then the rows (see `codec`) |
//! | 20 + body_len | 16 | tag | over object id, offset, header and body |
//!
//! Little-endian. Written by packers (tails of objects) and coalescing (segments); read by every look-up.
//! A block closes at [`ROW_BLOCK_BYTES_TARGET`] plain bytes; a row larger than that has a block of its own.
//!
//! Invariants: keys within a block ascend strictly (checked at push and at read); a block is decodable alone.
//! Does not: know its neighbours (see `tail`). Source: ours; prefix coding as in LevelDB's table format, without restarts.

use super::codec::{self, Decoder};
use super::compress::{Compressor, Decompressor};
use super::fault::{FormatFault, FormatFaultKind};
use super::key::RowKey;
use super::row::{Row, RowKind, RowPayload, RowRef};
use super::seal::{FLAG_SEALED, FLAG_ZSTD, ObjectKey, Region, TAG_BYTES, flags};
use super::varint::{self, Reader};
use crate::id::{OBJECT_ID_BYTES, ObjectId};
use crate::limits::{
    ITEM_FAULT_BYTES_MAX, ITEM_GAPS_MAX, ITEM_XATTRS_MAX, LOCATION_BLOCKS_MAX, LOCATION_RUNS_MAX,
    NAME_BYTES_MAX, ROW_BLOCK_BYTES_MAX, ROW_BLOCK_BYTES_TARGET, ROW_BYTES_MAX,
};

/// Bytes before the body.
pub const BLOCK_HEADER_BYTES: usize = 20;
/// Bytes of a row block that are not its body.
pub const BLOCK_OVERHEAD_BYTES: usize = BLOCK_HEADER_BYTES + TAG_BYTES;

const MAGIC: [u8; 4] = *b"WLRB";
const VERSION: u8 = 1;
const WHAT: &str = "row block";

/// Why a row was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowRefused {
    /// The row breaks a limit, which is named; no block takes it.
    TooLarge(&'static str),
}

impl std::fmt::Display for RowRefused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            RowRefused::TooLarge(limit) => write!(f, "row too large: {limit}"),
        }
    }
}

impl std::error::Error for RowRefused {}

/// What became of a pushed row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pushed {
    /// It is in the block.
    Taken,
    /// It is not: finish the block and push it again.
    Full,
}

/// A finished block, as the index describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockInfo {
    /// Kind of its rows.
    pub kind: RowKind,
    /// Key of the first row.
    pub first: RowKey,
    /// Key of the last row.
    pub last: RowKey,
    /// Byte offset in the object or segment.
    pub offset: u64,
    /// Stored bytes, header and tag included.
    pub bytes: u32,
    /// Rows in it.
    pub rows: u32,
}

/// Collects rows of one kind. Reused from block to block; holds about two blocks of memory once warm.
#[derive(Debug)]
pub struct BlockBuilder {
    kind: RowKind,
    body: Vec<u8>,
    pending: Vec<u8>,
    objects: Vec<ObjectId>,
    state: codec::State,
    first: RowKey,
    last: RowKey,
    rows: u32,
}

impl BlockBuilder {
    /// For rows of `kind`.
    pub fn new(kind: RowKind) -> BlockBuilder {
        BlockBuilder {
            kind,
            body: Vec::new(),
            pending: Vec::new(),
            objects: Vec::new(),
            state: codec::State::default(),
            first: RowKey::default(),
            last: RowKey::default(),
            rows: 0,
        }
    }

    /// Rows in the block so far.
    pub fn rows(&self) -> u32 {
        self.rows
    }

    /// Plain bytes so far, dictionary included: an upper bound of what `finish` will write is this and [`BLOCK_OVERHEAD_BYTES`].
    pub fn raw_bytes(&self) -> usize {
        if self.rows == 0 { 0 } else { self.body.len() + self.objects.len() * OBJECT_ID_BYTES + 4 }
    }

    /// Adds a row. Panics when its kind is another's or its key does not ascend within the block.
    pub fn push<'a>(&mut self, row: impl Into<RowRef<'a>>) -> Result<Pushed, RowRefused> {
        let row = row.into();
        assert_eq!(row.kind(), self.kind, "a row block holds one kind");
        let key = row.key();
        assert!(self.rows == 0 || key > self.last.as_ref(), "rows are pushed in order");
        check_limits(row)?;
        let objects_before = self.objects.len();
        let mut state = self.state.clone();
        let last_name: &[u8] = if self.rows == 0 { &[] } else { &self.last.name };
        self.pending.clear();
        codec::encode(row, &mut state, &self.body, last_name, &mut self.objects, &mut self.pending);
        let total = self.body.len() + self.pending.len() + self.objects.len() * OBJECT_ID_BYTES;
        if self.pending.len() > ROW_BYTES_MAX || self.rows == 0 && total > ROW_BLOCK_BYTES_MAX - varint_room()
        {
            self.objects.truncate(objects_before);
            return Err(RowRefused::TooLarge("bytes of a row"));
        }
        if self.rows > 0 && total > ROW_BLOCK_BYTES_TARGET {
            self.objects.truncate(objects_before);
            return Ok(Pushed::Full);
        }
        self.body.extend_from_slice(&self.pending);
        self.state = state;
        self.last.set(key);
        if self.rows == 0 {
            self.first.set(key);
        }
        self.rows += 1;
        Ok(Pushed::Taken)
    }

    /// Replaces the contents of `out` by the finished block and empties the builder. `offset` is where the block will be in
    /// the object or segment of `key`. Panics when there is no row.
    pub fn finish(
        &mut self,
        key: &ObjectKey,
        offset: u64,
        compressor: &mut Compressor,
        out: &mut Vec<u8>,
    ) -> BlockInfo {
        assert!(self.rows > 0, "an empty block is not written");
        self.pending.clear();
        if matches!(self.kind, RowKind::Location | RowKind::Entry) {
            varint::put(&mut self.pending, self.objects.len() as u64);
            for id in &self.objects {
                self.pending.extend_from_slice(&id.to_bytes());
            }
        }
        self.pending.extend_from_slice(&self.body);
        let raw = &self.pending;
        out.clear();
        out.resize(BLOCK_OVERHEAD_BYTES + raw.len(), 0);
        let body = &mut out[BLOCK_HEADER_BYTES..];
        let compressed = compressor.compress(raw, body);
        let body_len = compressed.unwrap_or(raw.len());
        if compressed.is_none() {
            body[..raw.len()].copy_from_slice(raw);
        }
        out.truncate(BLOCK_OVERHEAD_BYTES + body_len);
        let head = Header {
            zstd: compressed.is_some(),
            sealed: key.is_sealed(),
            kind: self.kind,
            rows: self.rows,
            raw_len: raw.len() as u32,
            body_len: body_len as u32,
        }
        .emit();
        out[..BLOCK_HEADER_BYTES].copy_from_slice(&head);
        let tag = key.seal(
            Region::RowBlock,
            offset,
            &head,
            &mut out[BLOCK_HEADER_BYTES..BLOCK_HEADER_BYTES + body_len],
        );
        out[BLOCK_HEADER_BYTES + body_len..].copy_from_slice(&tag);
        let info = BlockInfo {
            kind: self.kind,
            first: std::mem::take(&mut self.first),
            last: self.last.clone(),
            offset,
            bytes: out.len() as u32,
            rows: self.rows,
        };
        self.clear();
        info
    }

    /// Drops what was collected.
    pub fn clear(&mut self) {
        self.body.clear();
        self.objects.clear();
        self.state = codec::State::default();
        self.rows = 0;
        // One huge row must not make the builder huge for good.
        self.body.shrink_to(2 * ROW_BLOCK_BYTES_TARGET);
        self.pending.shrink_to(2 * ROW_BLOCK_BYTES_TARGET);
    }
}

/// Room for the dictionary's count.
const fn varint_room() -> usize {
    4
}

fn check_limits(row: RowRef<'_>) -> Result<(), RowRefused> {
    let check = |good, limit| if good { Ok(()) } else { Err(RowRefused::TooLarge(limit)) };
    match row {
        RowRef::Item(row) => {
            let Some(item) = &row.item else {
                return Ok(());
            };
            let payload = match &item.payload {
                RowPayload::None => 0,
                RowPayload::Target(bytes) | RowPayload::Inline(bytes) => bytes.len(),
            };
            check(item.xattrs.len() <= ITEM_XATTRS_MAX, "number of extended attributes")?;
            check(item.gaps.len() <= ITEM_GAPS_MAX, "number of gaps")?;
            check(item.fault.len() <= ITEM_FAULT_BYTES_MAX, "bytes of a fault")?;
            let bytes: usize = item.xattrs.iter().map(|(name, value)| name.len() + value.len()).sum();
            check(payload + bytes <= ROW_BYTES_MAX, "bytes of a row")
        }
        RowRef::Name(row) => check((1..=NAME_BYTES_MAX).contains(&row.name.len()), "bytes of a name"),
        RowRef::Location(row) => {
            check(row.blocks.len() <= LOCATION_BLOCKS_MAX, "blocks of a location row")?;
            check(row.runs.len() <= LOCATION_RUNS_MAX, "runs of a location row")
        }
        RowRef::Entry(_) => Ok(()),
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Header {
    zstd: bool,
    sealed: bool,
    kind: RowKind,
    rows: u32,
    raw_len: u32,
    body_len: u32,
}

impl Header {
    fn emit(&self) -> [u8; BLOCK_HEADER_BYTES] {
        let mut out = [0; BLOCK_HEADER_BYTES];
        out[..4].copy_from_slice(&MAGIC);
        out[4] = VERSION;
        out[5] = flags(self.zstd, self.sealed);
        out[6] = self.kind as u8;
        out[8..12].copy_from_slice(&self.rows.to_le_bytes());
        out[12..16].copy_from_slice(&self.raw_len.to_le_bytes());
        out[16..].copy_from_slice(&self.body_len.to_le_bytes());
        out
    }

    fn parse(bytes: &[u8]) -> Result<Header, FormatFault> {
        let mut reader = Reader::new(bytes, WHAT);
        if reader.array()? != MAGIC {
            return Err(FormatFault::new(WHAT, FormatFaultKind::NotOurs));
        }
        let version = reader.u8()?;
        if version != VERSION {
            return Err(FormatFault::new(WHAT, FormatFaultKind::Version(version.into())));
        }
        let bits = reader.u8()?;
        let kind = reader.u8()?;
        if bits & !(FLAG_ZSTD | FLAG_SEALED) != 0 || reader.u8()? != 0 {
            return Err(reader.damaged("reserved bits are set"));
        }
        let header = Header {
            zstd: bits & FLAG_ZSTD != 0,
            sealed: bits & FLAG_SEALED != 0,
            kind: RowKind::from_byte(kind).ok_or(reader.damaged("unknown kind of row"))?,
            rows: reader.u32_le()?,
            raw_len: reader.u32_le()?,
            body_len: reader.u32_le()?,
        };
        let fits = if header.zstd {
            header.body_len < header.raw_len && header.body_len > 0
        } else {
            header.body_len == header.raw_len
        };
        if !fits || header.rows == 0 || header.raw_len as usize > ROW_BLOCK_BYTES_MAX {
            return Err(reader.damaged("lengths out of range"));
        }
        Ok(header)
    }
}

/// An authentic block, decompressed: what caches hold.
#[derive(Clone, Debug)]
pub struct RowBlock {
    kind: RowKind,
    rows: u32,
    raw: Vec<u8>,
}

impl RowBlock {
    /// Checks and opens the block that `bytes` holds exactly, in place. `offset` is where it was read from.
    pub fn open(
        bytes: &mut [u8],
        key: &ObjectKey,
        offset: u64,
        decompressor: &mut Decompressor,
    ) -> Result<RowBlock, FormatFault> {
        let header = Header::parse(bytes)?;
        if header.sealed != key.is_sealed() {
            return Err(FormatFault::new(WHAT, FormatFaultKind::Mode));
        }
        let (head, rest) =
            bytes.split_at_mut_checked(BLOCK_HEADER_BYTES).ok_or(FormatFault::truncated(WHAT))?;
        let (body, tag) = rest.split_last_chunk_mut::<TAG_BYTES>().ok_or(FormatFault::truncated(WHAT))?;
        if body.len() != header.body_len as usize {
            return Err(FormatFault::damaged(WHAT, "length of the body"));
        }
        key.open(Region::RowBlock, offset, head, body, tag)?;
        let raw = if header.zstd {
            let mut raw = vec![0; header.raw_len as usize];
            decompressor.decompress(WHAT, body, &mut raw)?;
            raw
        } else {
            body.to_vec()
        };
        Ok(RowBlock { kind: header.kind, rows: header.rows, raw })
    }

    /// For fuzzing and tests: a block of plain bytes that were not authenticated.
    pub fn from_plain(kind: RowKind, rows: u32, raw: Vec<u8>) -> RowBlock {
        RowBlock { kind, rows, raw }
    }

    /// Kind of its rows.
    pub fn kind(&self) -> RowKind {
        self.kind
    }

    /// Number of its rows.
    pub fn rows(&self) -> u32 {
        self.rows
    }

    /// Plain bytes: what it costs in a cache.
    pub fn raw_bytes(&self) -> usize {
        self.raw.len()
    }

    /// A cursor before the first row. Does not borrow the block, so that both can live side by side.
    pub fn cursor(&self) -> Result<BlockCursor, FormatFault> {
        Ok(BlockCursor { decoder: Decoder::new(self.kind, self.rows, &self.raw)? })
    }

    /// All rows, decoded; for tests and small blocks.
    pub fn to_rows(&self) -> Result<Vec<Row>, FormatFault> {
        let mut cursor = self.cursor()?;
        let mut rows = Vec::new();
        while let Some(row) = cursor.next(self)? {
            rows.push(row);
        }
        Ok(rows)
    }
}

/// A place in a row block.
#[derive(Clone, Debug)]
pub struct BlockCursor {
    decoder: Decoder,
}

impl BlockCursor {
    /// The next row of `block`, which must be the block that the cursor is of. `None` after the last, when the block also
    /// ends there. Allocates what the row owns.
    pub fn next(&mut self, block: &RowBlock) -> Result<Option<Row>, FormatFault> {
        self.decoder.next(&block.raw)
    }
}
