//! One tail (of a segment or an upload object) as a source of rows: how indexes and row blocks get from the store into memory.
//!
//! Costs: an index is one GET (with the trailer), then cached; a row block is one GET, then cached, unless a stream reads ahead.
//! Memory: the two caches, whose bounds are in [`TableLimits`], and what streams hold.
//!
//! Invariants: nothing is returned that did not authenticate under the name it was asked for. What does not, or is not there, is asked for once
//! more over another connection before that counts as damage.
//! Does not: merge (see `stream`), retry (the [`Fetch`] does). Source: ours.

use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Arc;

use super::cache::Cache;
use super::lost::{Losses, LostRows};
use super::segment::SegmentMeta;
use crate::format::block::{BlockInfo, RowBlock};
use crate::format::compress::Decompressor;
use crate::format::fault::FormatFault;
use crate::format::key::KeyRef;
use crate::format::row::{Row, RowKind};
use crate::format::seal::Keys;
use crate::format::tail::{Index, TRAILER_BYTES, TailKind, Trailer};
use crate::id::{BackupId, Lin, ObjectId, VolumeId};
use crate::limits::{
    READ_AHEAD_BYTES, READ_BLOCK_CACHE_BYTES, READ_INDEX_CACHE_BYTES, READ_SOURCES_MAX,
    ROW_BLOCK_BYTES_TARGET,
};
use crate::store::retry::Client;
use crate::store::{ByteRange, StoreFault, StoreFaultKind};

/// Reads ranges of segments and upload objects; blocks, and has done its own retries.
pub trait Fetch {
    /// The bytes of `range`, exactly as many as it says ([`ByteRange::Last`]: or all, when there are fewer). `afresh`: over a connection
    /// that was not used before, where there are connections.
    fn fetch(
        &mut self,
        id: &ObjectId,
        kind: TailKind,
        range: ByteRange,
        afresh: bool,
    ) -> Result<Vec<u8>, StoreFault>;

    /// The bytes of each range, as [`Fetch::fetch`] gives them; at once, where that can be done.
    fn fetch_all(&mut self, wanted: &[Wanted]) -> Vec<Result<Vec<u8>, StoreFault>> {
        wanted.iter().map(|one| self.fetch(&one.id, one.kind, one.range, false)).collect()
    }
}

/// A range of a segment or an upload object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Its name.
    pub id: ObjectId,
    /// What it is.
    pub kind: TailKind,
    /// Which bytes.
    pub range: ByteRange,
}

impl Fetch for Arc<Client> {
    fn fetch(
        &mut self,
        id: &ObjectId,
        kind: TailKind,
        range: ByteRange,
        afresh: bool,
    ) -> Result<Vec<u8>, StoreFault> {
        let key = match kind {
            TailKind::Object => id.object_key(),
            TailKind::Segment => id.segment_key(),
        };
        let mut out = Vec::new();
        match afresh {
            true => self.get_afresh(&key, range, &mut out)?,
            false => self.get(&key, range, &mut out)?,
        };
        Ok(out)
    }
}

/// Why a table could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TableFault {
    /// The store failed.
    Store(StoreFault),
    /// What the store gave is not what was written.
    Format {
        /// Which segment or object.
        id: ObjectId,
        /// What is wrong.
        fault: FormatFault,
    },
    /// Rows that were asked for are among those that cannot be read; of readers that tolerate that.
    Lost(LostRows),
    /// More segments overlap at one place than may be open at once: coalesce first.
    TooManySegments(usize),
    /// More versions of one place than a rebuild holds.
    TooManyVersions(Lin),
    /// A row could not be written.
    Write(crate::format::block::RowRefused),
}

impl fmt::Display for TableFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TableFault::Store(fault) if fault.kind == StoreFaultKind::NotFound => {
                write!(f, "{fault}; `windlass repo rebuild` makes the tables anew from the objects")
            }
            TableFault::Store(fault) => fault.fmt(f),
            TableFault::Format { id, fault } => {
                write!(
                    f,
                    "segment {id}: {fault}; `windlass repo rebuild` makes the tables anew from the objects"
                )
            }
            TableFault::Lost(lost) => lost.fmt(f),
            TableFault::TooManySegments(count) => {
                write!(f, "{count} segments overlap; coalesce the tables first")
            }
            TableFault::TooManyVersions(lin) => write!(f, "item {lin} has too many versions to rebuild"),
            TableFault::Write(fault) => fault.fmt(f),
        }
    }
}

impl std::error::Error for TableFault {}

impl From<StoreFault> for TableFault {
    fn from(fault: StoreFault) -> TableFault {
        TableFault::Store(fault)
    }
}

/// Actual bounds of a reader, at or below those of `limits`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableLimits {
    /// Bytes of cached indexes.
    pub index_cache_bytes: usize,
    /// Bytes of cached plain row blocks.
    pub block_cache_bytes: usize,
    /// Bytes that one stream fetches ahead, over all its sources.
    pub ahead_bytes: usize,
    /// Segments that one stream holds open.
    pub sources: usize,
}

impl Default for TableLimits {
    fn default() -> TableLimits {
        TableLimits {
            index_cache_bytes: READ_INDEX_CACHE_BYTES,
            block_cache_bytes: READ_BLOCK_CACHE_BYTES,
            ahead_bytes: READ_AHEAD_BYTES,
            sources: READ_SOURCES_MAX,
        }
    }
}

/// Where a tail is, and which LINs and backups it may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TailRef {
    /// Segment or upload object.
    pub kind: TailKind,
    /// Name of the segment or object.
    pub id: ObjectId,
    /// Byte offset of the tail.
    pub data_bytes: u64,
    /// Byte offset of the index.
    pub index_at: u64,
    /// Bytes of the index.
    pub index_bytes: u32,
    /// Least LIN of its rows.
    pub first: Lin,
    /// Greatest LIN of its rows.
    pub last: Lin,
    /// Least backup of its rows; 0 when unknown.
    pub backup_min: BackupId,
    /// Greatest backup of its rows.
    pub backup_max: BackupId,
    /// Rows by kind.
    pub rows: [u32; crate::format::row::ROW_KINDS],
    /// No location row of `first` has a lesser base.
    pub first_base: u64,
    /// All location rows of `last` have lesser bases.
    pub end_base: u64,
    /// Its rows take the place of others with the same key; of several such tails that of the greatest name does.
    pub goes_first: bool,
}

impl TailRef {
    /// Place before its first row of a kind: LIN and base.
    pub fn begin(&self, kind: RowKind) -> (Lin, u64) {
        (self.first, if kind == RowKind::Location { self.first_base } else { 0 })
    }

    /// Place past its last row of a kind: LIN and base.
    pub fn end(&self, kind: RowKind) -> (Lin, u64) {
        (self.last, if kind == RowKind::Location { self.end_base } else { u64::MAX })
    }
}

impl From<&SegmentMeta> for TailRef {
    fn from(meta: &SegmentMeta) -> TailRef {
        let lin = |inode| Lin { volume: meta.volume, inode };
        TailRef {
            kind: TailKind::Segment,
            id: meta.id,
            data_bytes: 0,
            // `SegmentMeta::parse` has checked that this does not underflow; a wrong value fails to authenticate.
            index_at: meta.bytes.saturating_sub(u64::from(meta.index_bytes) + TRAILER_BYTES as u64),
            index_bytes: meta.index_bytes,
            first: lin(meta.first_inode),
            last: lin(meta.last_inode),
            backup_min: meta.backup_min,
            backup_max: meta.backup_max,
            rows: meta.rows,
            first_base: meta.first_base,
            end_base: meta.end_base_or_max(),
            goes_first: false,
        }
    }
}

/// Indexes that are fetched ahead of their reading at once: as many segments as lie over one place before merges begin, four times over.
/// Further ones are fetched when they are read.
pub const AHEAD_INDEXES_MAX: usize = 48;
/// The same of row blocks: half of what the cache holds.
pub const AHEAD_BLOCKS_MAX: usize = READ_BLOCK_CACHE_BYTES / ROW_BLOCK_BYTES_TARGET / 2;

/// Bytes at the end of an object that hold most tails whole: entries of its blocks, some KiB, up to 1 MiB where files are small.
pub const TAIL_BYTES_AHEAD: u64 = 64 << 10;

/// The tail of an upload object, of whose rows nothing is known.
fn unbounded(id: &ObjectId, trailer: &Trailer) -> TailRef {
    TailRef {
        kind: TailKind::Object,
        id: *id,
        data_bytes: trailer.data_bytes,
        index_at: trailer.index_at(),
        index_bytes: trailer.index_bytes,
        first: Lin::default(),
        last: Lin { volume: VolumeId(u32::MAX), inode: u64::MAX },
        backup_min: BackupId(0),
        backup_max: BackupId(u32::MAX),
        rows: trailer.rows,
        first_base: 0,
        end_base: u64::MAX,
        goes_first: false,
    }
}

/// Rows that are about to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ahead<'a> {
    /// Their kind.
    pub kind: RowKind,
    /// Key of the first.
    pub key: KeyRef<'a>,
    /// All of that LIN, and not only what is near the key.
    pub whole: bool,
}

/// Where the index of a tail is, with the trailer behind it.
fn index_range(tail: &TailRef) -> ByteRange {
    ByteRange::From { offset: tail.index_at, len: u64::from(tail.index_bytes) + TRAILER_BYTES as u64 }
}

/// Where a row block is: what a stream remembers of an index, 24 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockAt {
    /// Kind of its rows.
    pub kind: RowKind,
    /// Byte offset in the tail.
    pub offset: u64,
    /// Length in bytes as stored.
    pub bytes: u32,
    /// Rows in it.
    pub rows: u32,
}

impl From<&BlockInfo> for BlockAt {
    fn from(info: &BlockInfo) -> BlockAt {
        BlockAt { kind: info.kind, offset: info.offset, bytes: info.bytes, rows: info.rows }
    }
}

/// Reads indexes and row blocks through bounded caches.
pub struct Source<F> {
    fetch: F,
    keys: Keys,
    decompressor: Decompressor,
    indexes: Cache<ObjectId, Index>,
    blocks: Cache<(ObjectId, u64), RowBlock>,
    limits: TableLimits,
    /// What could not be read, for readers that go on behind it.
    losses: Option<Losses>,
}

impl<F: Fetch> Source<F> {
    /// `None` when there is no memory for the decompression context.
    pub fn new(fetch: F, keys: &Keys, limits: TableLimits) -> Option<Source<F>> {
        Some(Source {
            fetch,
            keys: keys.clone(),
            decompressor: Decompressor::new()?,
            indexes: Cache::new(limits.index_cache_bytes),
            blocks: Cache::new(limits.block_cache_bytes),
            limits,
            losses: None,
        })
    }

    /// Goes on behind what cannot be read, from now on: see [`lost`](super::lost).
    pub fn tolerate(&mut self) {
        self.losses.get_or_insert_default();
    }

    /// Counts a tail as lost, whatever can still be read of it. Only for readers that tolerate that.
    pub(super) fn distrust(&mut self, tail: &TailRef) {
        if let Some(losses) = &mut self.losses {
            losses.distrust(tail);
        }
    }

    /// What could not be read so far.
    pub fn lost(&self) -> impl Iterator<Item = LostRows> + '_ {
        self.losses.iter().flat_map(Losses::all)
    }

    /// Lost rows that an item may have, of a kind, among those of these backups.
    pub fn lost_at(&self, kind: RowKind, lin: Lin, backups: RangeInclusive<BackupId>) -> Option<LostRows> {
        self.losses.as_ref()?.at(kind, lin, backups)
    }

    /// Whether a tail, or this row block of it, is known to be lost.
    pub(super) fn is_lost(&self, tail: &TailRef, block: Option<&BlockAt>) -> bool {
        self.losses.as_ref().is_some_and(|losses| losses.has(&tail.id, block.map(|block| block.offset)))
    }

    /// Passes over a tail or a row block that cannot be read; the fault comes back when that may not be.
    pub(super) fn lose(
        &mut self,
        tail: &TailRef,
        block: Option<&BlockAt>,
        fault: TableFault,
    ) -> Result<(), TableFault> {
        if self.losses.is_none() {
            return Err(fault);
        }
        let index = match block {
            Some(_) => Some(self.index(tail)?),
            None => None,
        };
        match &mut self.losses {
            Some(losses) => losses.add(tail, block.zip(index.as_deref()), fault),
            None => Err(fault),
        }
    }

    /// Fetches a range and opens it. What is not there or does not open is fetched once more, from another connection: only then it is damage.
    fn fetch_and_open<T>(
        &mut self,
        id: &ObjectId,
        kind: TailKind,
        range: ByteRange,
        mut open: impl FnMut(&mut Source<F>, &mut [u8]) -> Result<T, FormatFault>,
    ) -> Result<T, TableFault> {
        let first = self.fetch.fetch(id, kind, range, false);
        let missing = |fault: &StoreFault| fault.kind == StoreFaultKind::NotFound;
        match first {
            Ok(mut bytes) => {
                if let Ok(opened) = open(self, &mut bytes) {
                    return Ok(opened);
                }
            }
            Err(fault) if missing(&fault) => {}
            Err(fault) => return Err(fault.into()),
        }
        let mut bytes = self.fetch.fetch(id, kind, range, true)?;
        open(self, &mut bytes).map_err(|fault| TableFault::Format { id: *id, fault })
    }

    /// Its bounds.
    pub fn limits(&self) -> &TableLimits {
        &self.limits
    }

    /// Bytes in both caches now.
    pub fn cached_bytes(&self) -> usize {
        self.indexes.bytes() + self.blocks.bytes()
    }

    /// Drops what is cached.
    pub fn forget(&mut self) {
        self.indexes.clear();
        self.blocks.clear();
    }

    /// The index of a tail: one GET unless cached.
    pub fn index(&mut self, tail: &TailRef) -> Result<Arc<Index>, TableFault> {
        if let Some(index) = self.indexes.get(&tail.id) {
            return Ok(index);
        }
        let range = index_range(tail);
        let index =
            self.fetch_and_open(&tail.id, tail.kind, range, |source, bytes| source.open_index(tail, bytes))?;
        let index = Arc::new(index);
        self.indexes.put(tail.id, Arc::clone(&index), index.memory_bytes());
        Ok(index)
    }

    fn open_index(&mut self, tail: &TailRef, bytes: &mut [u8]) -> Result<Index, FormatFault> {
        let trailer = Trailer::parse(bytes, &tail.id, &self.keys)?;
        if trailer.head.kind != tail.kind
            || trailer.data_bytes != tail.data_bytes
            || trailer.index_at() != tail.index_at
            || bytes.len() as u64 != u64::from(tail.index_bytes) + TRAILER_BYTES as u64
        {
            return Err(FormatFault::damaged("trailer", "it contradicts the commit log"));
        }
        let body = &mut bytes[..tail.index_bytes as usize];
        Index::parse(body, &trailer, &self.keys, &mut self.decompressor)
    }

    /// Brings the indexes of these tails, and then the row blocks that their places need, into the caches: two rounds of requests at most,
    /// with up to [`AHEAD_INDEXES_MAX`] and [`AHEAD_BLOCKS_MAX`]. Returns how many places, from the first on, need no further request. What does
    /// not come or open is left to the read that needs it.
    pub(super) fn ahead(&mut self, places: &[(TailRef, Ahead<'_>)]) -> usize {
        let mut tails: Vec<TailRef> = Vec::new();
        for (tail, _) in places {
            let is_new =
                self.indexes.get(&tail.id).is_none() && !tails.iter().any(|other| other.id == tail.id);
            if is_new && tails.len() < AHEAD_INDEXES_MAX && !self.is_lost(tail, None) {
                tails.push(*tail);
            }
        }
        let want = |tail: &TailRef, range| Wanted { id: tail.id, kind: tail.kind, range };
        let wanted: Vec<Wanted> = tails.iter().map(|tail| want(tail, index_range(tail))).collect();
        for (tail, came) in tails.iter().zip(self.all(&wanted)) {
            let Ok(mut bytes) = came else { continue };
            if let Ok(index) = self.open_index(tail, &mut bytes) {
                let index = Arc::new(index);
                self.indexes.put(tail.id, Arc::clone(&index), index.memory_bytes());
            }
        }
        let mut blocks: Vec<(TailRef, BlockAt)> = Vec::new();
        let mut done = 0;
        'places: for (tail, place) in places {
            if let Some(index) = self.indexes.get(&tail.id) {
                let from = index.seek(place.kind, place.key);
                let is_of = |info: &&BlockInfo| place.whole && info.first.lin <= place.key.lin;
                let rest = index.blocks(place.kind).iter().skip(from + 1).take_while(is_of);
                for info in index.blocks(place.kind).get(from).into_iter().chain(rest).map(BlockAt::from) {
                    let is_new = self.blocks.get(&(tail.id, info.offset)).is_none()
                        && !blocks.iter().any(|(other, at)| other.id == tail.id && at.offset == info.offset);
                    if is_new && !self.is_lost(tail, Some(&info)) {
                        if blocks.len() >= AHEAD_BLOCKS_MAX {
                            break 'places;
                        }
                        blocks.push((*tail, info));
                    }
                }
            }
            done += 1;
        }
        let block_range = |(tail, info): &(TailRef, BlockAt)| {
            want(tail, ByteRange::From { offset: tail.data_bytes + info.offset, len: info.bytes.into() })
        };
        let wanted: Vec<Wanted> = blocks.iter().map(block_range).collect();
        for ((tail, info), came) in blocks.iter().zip(self.all(&wanted)) {
            let Ok(mut bytes) = came else { continue };
            if let Ok(block) = self.open(tail, info, &mut bytes) {
                let block = Arc::new(block);
                self.blocks.put((tail.id, info.offset), Arc::clone(&block), block.raw_bytes());
            }
        }
        done
    }

    /// A row block that is in the cache.
    pub(super) fn cached(&mut self, tail: &TailRef, info: &BlockAt) -> Option<Arc<RowBlock>> {
        self.blocks.get(&(tail.id, info.offset))
    }

    /// One round of requests; none for nothing.
    fn all(&mut self, wanted: &[Wanted]) -> Vec<Result<Vec<u8>, StoreFault>> {
        if wanted.is_empty() { Vec::new() } else { self.fetch.fetch_all(wanted) }
    }

    /// Finds the tail of upload object `id`, of which only the name is known: two GETs.
    pub fn object(&mut self, id: &ObjectId) -> Result<(Trailer, TailRef), TableFault> {
        let (trailer, _) = self.object_end(id, TRAILER_BYTES as u64)?;
        let mut tail = unbounded(id, &trailer);
        self.bound(&mut tail)?;
        Ok((trailer, tail))
    }

    /// The same for one who reads all rows next: one GET, unless the tail is longer than [`TAIL_BYTES_AHEAD`]. What came of it is kept as far as
    /// the caches take it.
    pub fn object_whole(&mut self, id: &ObjectId) -> Result<(Trailer, TailRef), TableFault> {
        let (trailer, mut end) = self.object_end(id, TAIL_BYTES_AHEAD)?;
        let mut tail = unbounded(id, &trailer);
        let index_at = end.len().checked_sub(tail.index_bytes as usize + TRAILER_BYTES);
        // An index that does not open is read again when it is used.
        if let Some(at) = index_at
            && let Ok(index) = self.open_index(&tail, &mut end[at..].to_vec())
        {
            let index = Arc::new(index);
            self.indexes.put(*id, Arc::clone(&index), index.memory_bytes());
            let begin = trailer.total_bytes().saturating_sub(end.len() as u64);
            for info in RowKind::ALL.iter().flat_map(|kind| index.blocks(*kind)).map(BlockAt::from) {
                let at = (tail.data_bytes + info.offset).checked_sub(begin).map(|at| at as usize);
                let bytes = at.and_then(|at| end.get_mut(at..at + info.bytes as usize));
                if let Some(Ok(block)) = bytes.map(|bytes| self.open(&tail, &info, bytes)) {
                    let block = Arc::new(block);
                    self.blocks.put((*id, info.offset), Arc::clone(&block), block.raw_bytes());
                }
            }
        }
        self.bound(&mut tail)?;
        Ok((trailer, tail))
    }

    /// The trailer of an upload object, and its last bytes.
    fn object_end(&mut self, id: &ObjectId, bytes: u64) -> Result<(Trailer, Vec<u8>), TableFault> {
        self.fetch_and_open(id, TailKind::Object, ByteRange::Last(bytes), |source, bytes| {
            let trailer = Trailer::parse(bytes, id, &source.keys)?;
            match trailer.head.kind {
                TailKind::Object => Ok((trailer, bytes.to_vec())),
                TailKind::Segment => Err(FormatFault::damaged("trailer", "it is a segment's")),
            }
        })
    }

    /// Finds the first and the last LIN of a tail in its index.
    fn bound(&mut self, tail: &mut TailRef) -> Result<(), TableFault> {
        let index = self.index(tail)?;
        let ends = RowKind::ALL.map(|kind| {
            let blocks = index.blocks(kind);
            (blocks.first().map(|block| block.first.lin), blocks.last().map(|block| block.last.lin))
        });
        tail.first = ends.iter().filter_map(|end| end.0).min().unwrap_or(tail.last);
        tail.last = ends.iter().filter_map(|end| end.1).max().unwrap_or(tail.last);
        Ok(())
    }

    /// A row block: one GET unless cached.
    pub fn block(&mut self, tail: &TailRef, info: &BlockAt) -> Result<Arc<RowBlock>, TableFault> {
        if let Some(block) = self.blocks.get(&(tail.id, info.offset)) {
            return Ok(block);
        }
        let range = ByteRange::From { offset: tail.data_bytes + info.offset, len: info.bytes.into() };
        let block =
            self.fetch_and_open(&tail.id, tail.kind, range, |source, bytes| source.open(tail, info, bytes))?;
        let block = Arc::new(block);
        self.blocks.put((tail.id, info.offset), Arc::clone(&block), block.raw_bytes());
        Ok(block)
    }

    /// Bytes of a stretch of row blocks, for streams: one GET, not cached.
    pub(super) fn stretch(&mut self, tail: &TailRef, offset: u64, len: u64) -> Result<Vec<u8>, TableFault> {
        let range = ByteRange::From { offset: tail.data_bytes + offset, len };
        Ok(self.fetch.fetch(&tail.id, tail.kind, range, false)?)
    }

    /// Opens the row block that `bytes` hold.
    pub(super) fn open(
        &mut self,
        tail: &TailRef,
        info: &BlockAt,
        bytes: &mut [u8],
    ) -> Result<RowBlock, FormatFault> {
        let key = self.keys.rows(&tail.id);
        let block = RowBlock::open(bytes, &key, info.offset, &mut self.decompressor)?;
        if block.kind() != info.kind || block.rows() != info.rows {
            return Err(FormatFault::damaged("row block", "it contradicts the index"));
        }
        Ok(block)
    }

    /// The first row of `kind` at or after `key` in one tail: at most one index and one row block.
    pub fn first_row(
        &mut self,
        tail: &TailRef,
        kind: RowKind,
        key: KeyRef<'_>,
    ) -> Result<Option<Row>, TableFault> {
        if self.is_lost(tail, None) {
            return Ok(None);
        }
        let index = match self.index(tail) {
            Ok(index) => index,
            Err(fault) => return self.lose(tail, None, fault).map(|()| None),
        };
        let Some(info) = index.blocks(kind).get(index.seek(kind, key)).map(BlockAt::from) else {
            return Ok(None);
        };
        if self.is_lost(tail, Some(&info)) {
            return Ok(None);
        }
        let block = match self.block(tail, &info) {
            Ok(block) => block,
            Err(fault) => return self.lose(tail, Some(&info), fault).map(|()| None),
        };
        let bad = |fault| TableFault::Format { id: tail.id, fault };
        let mut cursor = block.cursor().map_err(bad)?;
        while let Some(row) = cursor.next(&block).map_err(bad)? {
            if row.as_ref().key() >= key {
                return Ok(Some(row));
            }
        }
        Err(bad(FormatFault::damaged("row block", "it ends before the index says")))
    }
}
