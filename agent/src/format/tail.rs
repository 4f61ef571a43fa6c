//! Tails: the end of every upload object, and the whole of every segment. What is in it, found from its last bytes.
//!
//! ```text
//!  upload object   [frame][frame] ... [frame] | [row block] ... [row block][index][trailer]
//!  segment                                    | [row block] ... [row block][index][trailer]
//!                                             '- tail start = data_bytes: offsets within a tail count from here,
//!                                                so row blocks can be sealed while frames are still being added
//! ```
//!
//! Trailer, the last 128 bytes:
//!
//! | offset | bytes | field | meaning |
//! |---|---|---|---|
//! | 0 | 8 | magic | "WLTRAIL1" |
//! | 8 | 2 | version | 1 |
//! | 10 | 1 | kind | 1 upload object, 2 segment |
//! | 11 | 1 | flags | bit 1: sealed, else the tag is a MAC; others zero |
//! | 12 | 4 | policy | policy number, 0 when of several |
//! | 16 | 24 | object id | its own name |
//! | 40 | 4 | backup | the backup that wrote it, 0 when of several |
//! | 44 | 4 | volume | the volume that its rows are of, 0 when of several |
//! | 48 | 8 | data_bytes | bytes of frames before the tail; 0 in a segment |
//! | 56 | 8 | index_offset | of the index, from the start of the tail |
//! | 64 | 4 | index_bytes | bytes of the index |
//! | 68 | 4 | blocks | number of row blocks |
//! | 72 | 16 | rows | 4 bytes each: item, name, location, entry rows |
//! | 88 | 20 | reserved | zero |
//! | 108 | 4 | crc | CRC-32 (IEEE) of bytes 0..108: distinguishes damage from a wrong key, and needs no key |
//! | 112 | 16 | tag | over object id and bytes 0..112, with the row key |
//!
//! Index:
//!
//! | offset | bytes | field | meaning |
//! |---|---|---|---|
//! | 0 | 4 | magic | "WLIX" |
//! | 4 | 1 | version | 1 |
//! | 5 | 1 | flags | bit 0: body is zstd; bit 1: sealed; others zero |
//! | 6 | 2 | reserved | zero |
//! | 8 | 4 | blocks | number of entries, 0.. |
//! | 12 | 4 | raw_len | plain bytes, 0..=[`INDEX_BYTES_MAX`] |
//! | 16 | 4 | body_len | bytes of the body |
//! | 20 | body_len | body | per row block, in file order: kind 1, stored bytes v, rows v, first key, last key (see `key`) |
//! | 20 + body_len | 16 | tag | over object id, offset, header and body, with the row key |
//!
//! Rows are in the tail of the object that was open when they came: entries of blocks mostly in that of the block's own object, or of a later
//! one. Where a garbage run moved blocks (backup 0), the tail has an entry for each of them, of the first backup whose row has it there.
//!
//! Row blocks lie back to back from the start of the tail, so offsets are sums; the sum must be index_offset.
//! Written by packers and coalescing; read by look-ups, rebuilds, garbage accounting. Little-endian.
//!
//! Invariants: per kind, keys ascend strictly over the whole tail (checked when written and when read).
//! Does not: hold frames, or know segments' neighbours (see `table`). Source: ours.

use super::block::{BLOCK_OVERHEAD_BYTES, BlockBuilder, BlockInfo, Pushed, RowRefused};
use super::compress::{Compressor, Decompressor};
use super::fault::{FormatFault, FormatFaultKind};
use super::key::{KEY_BYTES_MAX, KeyRef, RowKey};
use super::row::{ROW_KINDS, RowKind, RowRef};
use super::seal::{FLAG_SEALED, FLAG_ZSTD, Keys, ObjectKey, Region, TAG_BYTES, flags};
use super::varint::{self, Reader};
use crate::id::{BackupId, ObjectId, VolumeId};
use crate::limits::{INDEX_BYTES_MAX, ROW_BLOCK_BYTES_MAX};

/// Bytes of a trailer: fetch this many from the end.
pub const TRAILER_BYTES: usize = 128;
/// Bytes of an index before its body.
pub const INDEX_HEADER_BYTES: usize = 20;
/// Most bytes of a stored index.
pub const INDEX_STORED_BYTES_MAX: usize = INDEX_BYTES_MAX + INDEX_HEADER_BYTES + TAG_BYTES;

const TRAILER_MAGIC: [u8; 8] = *b"WLTRAIL1";
const INDEX_MAGIC: [u8; 4] = *b"WLIX";
const VERSION: u16 = 1;
const TRAILER_WHAT: &str = "trailer";
const INDEX_WHAT: &str = "index";
const CRC_AT: usize = 108;
const TAG_AT: usize = 112;
/// Most bytes of an index entry: kind, bytes, rows, two keys.
const INDEX_ENTRY_BYTES_MAX: usize = 1 + 5 + 5 + 2 * KEY_BYTES_MAX;
/// Plain index bytes at which a tail is full: what is pending (a block per kind) always fits above it.
const INDEX_BYTES_FULL: usize = INDEX_BYTES_MAX / 2;

const _: () = assert!(INDEX_BYTES_FULL + 2 * ROW_KINDS * INDEX_ENTRY_BYTES_MAX <= INDEX_BYTES_MAX);

/// What a tail is the end of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum TailKind {
    /// An upload object (`obj/`).
    Object = 1,
    /// A table segment (`seg/`).
    Segment = 2,
}

/// What a tail belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TailHead {
    /// Upload object or segment.
    pub kind: TailKind,
    /// Name of the object or segment.
    pub id: ObjectId,
    /// Policy number, 0 when of several.
    pub policy: u32,
    /// The backup that wrote it, 0 when of several.
    pub backup: BackupId,
    /// The volume that its rows are of, 0 when of several.
    pub volume: VolumeId,
}

/// The last 128 bytes of an object or segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trailer {
    /// The object or segment that it ends.
    pub head: TailHead,
    /// Bytes before the tail.
    pub data_bytes: u64,
    /// Offset of the index from the start of the tail.
    pub index_offset: u64,
    /// Bytes of the index.
    pub index_bytes: u32,
    /// Number of row blocks.
    pub blocks: u32,
    /// Rows by [`RowKind::index`].
    pub rows: [u32; ROW_KINDS],
}

impl Trailer {
    /// Bytes of the whole object or segment.
    pub fn total_bytes(&self) -> u64 {
        // Each part is bounded by `check`, so the sum is far from overflow.
        self.data_bytes + self.index_offset + u64::from(self.index_bytes) + TRAILER_BYTES as u64
    }

    /// Byte offset of the index in the object.
    pub fn index_at(&self) -> u64 {
        self.data_bytes + self.index_offset
    }

    /// Its bytes, authenticated with the row key of its own id.
    pub fn emit(&self, key: &ObjectKey) -> [u8; TRAILER_BYTES] {
        let mut out = [0; TRAILER_BYTES];
        out[..8].copy_from_slice(&TRAILER_MAGIC);
        out[8..10].copy_from_slice(&VERSION.to_le_bytes());
        out[10] = self.head.kind as u8;
        out[11] = flags(false, key.is_sealed());
        out[12..16].copy_from_slice(&self.head.policy.to_le_bytes());
        out[16..40].copy_from_slice(&self.head.id.to_bytes());
        out[40..44].copy_from_slice(&self.head.backup.0.to_le_bytes());
        out[44..48].copy_from_slice(&self.head.volume.0.to_le_bytes());
        out[48..56].copy_from_slice(&self.data_bytes.to_le_bytes());
        out[56..64].copy_from_slice(&self.index_offset.to_le_bytes());
        out[64..68].copy_from_slice(&self.index_bytes.to_le_bytes());
        out[68..72].copy_from_slice(&self.blocks.to_le_bytes());
        for (at, rows) in (72..).step_by(4).zip(self.rows) {
            out[at..at + 4].copy_from_slice(&rows.to_le_bytes());
        }
        let crc = crc32fast::hash(&out[..CRC_AT]);
        out[CRC_AT..TAG_AT].copy_from_slice(&crc.to_le_bytes());
        let tag = key.seal(Region::Trailer, 0, &out[..TAG_AT], &mut []);
        out[TAG_AT..].copy_from_slice(&tag);
        out
    }

    /// Reads the trailer from the last bytes of an object (at least 128; more are ignored in front). Checks the CRC and every
    /// rule, not the tag: [`Trailer::parse`] does both. For tools without keys.
    pub fn parse_unsealed(end: &[u8]) -> Result<(Trailer, bool), FormatFault> {
        let bytes = end.last_chunk::<TRAILER_BYTES>().ok_or(FormatFault::truncated(TRAILER_WHAT))?;
        let mut r = Reader::new(bytes, TRAILER_WHAT);
        if r.array()? != TRAILER_MAGIC {
            return Err(FormatFault::new(TRAILER_WHAT, FormatFaultKind::NotOurs));
        }
        let version = r.u16_le()?;
        if version != VERSION {
            return Err(FormatFault::new(TRAILER_WHAT, FormatFaultKind::Version(version)));
        }
        if bytes[CRC_AT..TAG_AT] != crc32fast::hash(&bytes[..CRC_AT]).to_le_bytes() {
            return Err(r.damaged("checksum"));
        }
        let kind = match r.u8()? {
            1 => TailKind::Object,
            2 => TailKind::Segment,
            _ => return Err(r.damaged("unknown kind")),
        };
        let bits = r.u8()?;
        if bits & !FLAG_SEALED != 0 {
            return Err(r.damaged("reserved bits are set"));
        }
        let policy = r.u32_le()?;
        let id = ObjectId::from_bytes(&r.array()?);
        let backup = BackupId(r.u32_le()?);
        let volume = VolumeId(r.u32_le()?);
        let trailer = Trailer {
            head: TailHead { kind, id, policy, backup, volume },
            data_bytes: r.u64_le()?,
            index_offset: r.u64_le()?,
            index_bytes: r.u32_le()?,
            blocks: r.u32_le()?,
            rows: [r.u32_le()?, r.u32_le()?, r.u32_le()?, r.u32_le()?],
        };
        if r.array()? != [0u8; 20] {
            return Err(r.damaged("reserved bytes are set"));
        }
        let parts_max = u64::MAX / 4;
        if trailer.data_bytes > parts_max
            || trailer.index_offset > parts_max
            || kind == TailKind::Segment && trailer.data_bytes != 0
            || trailer.index_bytes as usize > INDEX_STORED_BYTES_MAX
        {
            return Err(r.damaged("offsets out of range"));
        }
        Ok((trailer, bits & FLAG_SEALED != 0))
    }

    /// Reads and authenticates the trailer from the last bytes of the object `id` (at least 128).
    pub fn parse(end: &[u8], id: &ObjectId, keys: &Keys) -> Result<Trailer, FormatFault> {
        let (trailer, sealed) = Trailer::parse_unsealed(end)?;
        let key = keys.rows(id);
        if sealed != key.is_sealed() {
            return Err(FormatFault::new(TRAILER_WHAT, FormatFaultKind::Mode));
        }
        if trailer.head.id != *id {
            return Err(FormatFault::damaged(TRAILER_WHAT, "it is another object's"));
        }
        let bytes = end.last_chunk::<TRAILER_BYTES>().ok_or(FormatFault::truncated(TRAILER_WHAT))?;
        let (head, tag) =
            bytes.split_last_chunk::<TAG_BYTES>().ok_or(FormatFault::truncated(TRAILER_WHAT))?;
        key.open(Region::Trailer, 0, head, &mut [], tag)?;
        Ok(trailer)
    }
}

/// Builds tails, one after another, keeping its buffers. Holds about two row blocks of memory per kind in use, the index
/// (at most [`INDEX_BYTES_MAX`]) and a compression context.
pub struct TailBuilder {
    compressor: Compressor,
    builders: [BlockBuilder; ROW_KINDS],
    last: [Option<RowKey>; ROW_KINDS],
    started: Option<(TailHead, ObjectKey)>,
    index: Vec<u8>,
    blocks: u32,
    offset: u64,
    rows: [u32; ROW_KINDS],
    scratch: Vec<u8>,
}

impl TailBuilder {
    /// `None` when there is no memory for the compression context.
    pub fn new(zstd_level: i32) -> Option<TailBuilder> {
        Some(TailBuilder {
            compressor: Compressor::new(zstd_level)?,
            builders: RowKind::ALL.map(BlockBuilder::new),
            last: Default::default(),
            started: None,
            index: Vec::new(),
            blocks: 0,
            offset: 0,
            rows: [0; ROW_KINDS],
            scratch: Vec::new(),
        })
    }

    /// Begins a tail; drops one that was not finished.
    pub fn start(&mut self, head: TailHead, keys: &Keys) {
        let key = keys.rows(&head.id);
        self.started = Some((head, key));
        self.builders.iter_mut().for_each(BlockBuilder::clear);
        self.last = Default::default();
        self.index.clear();
        self.blocks = 0;
        self.offset = 0;
        self.rows = [0; ROW_KINDS];
    }

    /// Whether a tail is begun.
    pub fn is_started(&self) -> bool {
        self.started.is_some()
    }

    /// Bytes given to the sink so far.
    pub fn bytes(&self) -> u64 {
        self.offset
    }

    /// Rows taken so far, by [`RowKind::index`].
    pub fn rows(&self) -> [u32; ROW_KINDS] {
        self.rows
    }

    /// Most bytes that `finish` would give to the sink now, beyond [`TailBuilder::bytes`]: pending rows, index, trailer.
    pub fn pending_bytes_max(&self) -> u64 {
        let mut pending = self.index.len() + INDEX_HEADER_BYTES + TAG_BYTES + TRAILER_BYTES;
        for builder in &self.builders {
            if builder.rows() > 0 {
                pending += builder.raw_bytes() + BLOCK_OVERHEAD_BYTES + INDEX_ENTRY_BYTES_MAX;
            }
        }
        pending as u64
    }

    /// Most bytes that the finished tail would have with `row` in it: what a writer of fixed size asks before `push`.
    pub fn bytes_max_with(&self, row: RowRef<'_>) -> u64 {
        let more = row.bytes_max() + BLOCK_OVERHEAD_BYTES + INDEX_ENTRY_BYTES_MAX;
        self.offset + self.pending_bytes_max() + more as u64
    }

    /// Whether the index is as large as it should get: finish, or rows may not fit (`push` panics at twice that).
    pub fn is_full(&self) -> bool {
        self.index.len() >= INDEX_BYTES_FULL
    }

    /// Adds a row; when its block is full, the block is sealed and given to `sink` first. Rows of one kind must come in key
    /// order; kinds may interleave. Panics when no tail is begun, or on another order.
    pub fn push<'a>(
        &mut self,
        row: impl Into<RowRef<'a>>,
        sink: &mut dyn FnMut(&[u8]),
    ) -> Result<(), RowRefused> {
        let row = row.into();
        let kind = row.kind().index();
        if self.builders[kind].rows() == 0
            && let Some(last) = &self.last[kind]
        {
            assert!(row.key() > last.as_ref(), "rows of a tail are pushed in order");
        }
        if self.builders[kind].push(row)? == Pushed::Full {
            self.flush(kind, sink);
            let pushed = self.builders[kind].push(row)?;
            assert_eq!(pushed, Pushed::Taken, "an empty block takes any row within limits");
        }
        self.rows[kind] += 1;
        Ok(())
    }

    /// Seals what is pending, then index and trailer, all given to `sink`. `data_bytes` is what precedes the tail in the
    /// object (0 for a segment). Panics when no tail is begun.
    pub fn finish(&mut self, data_bytes: u64, sink: &mut dyn FnMut(&[u8])) -> Trailer {
        for kind in 0..ROW_KINDS {
            if self.builders[kind].rows() > 0 {
                self.flush(kind, sink);
            }
        }
        let Some((head, key)) = self.started.take() else {
            unreachable!("a tail is started before it is finished");
        };
        let raw = &self.index;
        let out = &mut self.scratch;
        out.clear();
        out.resize(INDEX_HEADER_BYTES + raw.len() + TAG_BYTES, 0);
        let compressed = self.compressor.compress(raw, &mut out[INDEX_HEADER_BYTES..]);
        let len = compressed.unwrap_or(raw.len());
        if compressed.is_none() {
            out[INDEX_HEADER_BYTES..INDEX_HEADER_BYTES + len].copy_from_slice(raw);
        }
        out.truncate(INDEX_HEADER_BYTES + len + TAG_BYTES);
        let (header, rest) = out.split_at_mut(INDEX_HEADER_BYTES);
        let (body, tag) = rest.split_at_mut(len);
        header[..4].copy_from_slice(&INDEX_MAGIC);
        header[4] = VERSION as u8;
        header[5] = flags(compressed.is_some(), key.is_sealed());
        header[8..12].copy_from_slice(&self.blocks.to_le_bytes());
        header[12..16].copy_from_slice(&(raw.len() as u32).to_le_bytes());
        header[16..].copy_from_slice(&(len as u32).to_le_bytes());
        tag.copy_from_slice(&key.seal(Region::Index, self.offset, header, body));
        sink(out);
        let trailer = Trailer {
            head,
            data_bytes,
            index_offset: self.offset,
            index_bytes: out.len() as u32,
            blocks: self.blocks,
            rows: self.rows,
        };
        sink(&trailer.emit(&key));
        trailer
    }

    fn flush(&mut self, kind: usize, sink: &mut dyn FnMut(&[u8])) {
        let Some((_, key)) = &self.started else {
            unreachable!("a tail is started before rows are pushed");
        };
        let info = self.builders[kind].finish(key, self.offset, &mut self.compressor, &mut self.scratch);
        sink(&self.scratch);
        self.offset += u64::from(info.bytes);
        self.blocks += 1;
        self.index.push(info.kind as u8);
        varint::put(&mut self.index, info.bytes.into());
        varint::put(&mut self.index, info.rows.into());
        info.first.emit(&mut self.index);
        info.last.emit(&mut self.index);
        assert!(self.index.len() <= INDEX_BYTES_MAX, "a full tail is finished");
        self.last[kind] = Some(info.last);
    }
}

/// The index of a tail, in memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Index {
    blocks: [Vec<BlockInfo>; ROW_KINDS],
    memory_bytes: usize,
}

impl Index {
    /// Checks and reads the index of `trailer`, which `bytes` hold exactly; opens it in place.
    pub fn parse(
        bytes: &mut [u8],
        trailer: &Trailer,
        keys: &Keys,
        decompressor: &mut Decompressor,
    ) -> Result<Index, FormatFault> {
        let cut = FormatFault::truncated(INDEX_WHAT);
        let (header, rest) = bytes.split_at_mut_checked(INDEX_HEADER_BYTES).ok_or(cut)?;
        let mut r = Reader::new(header, INDEX_WHAT);
        if r.array()? != INDEX_MAGIC {
            return Err(FormatFault::new(INDEX_WHAT, FormatFaultKind::NotOurs));
        }
        let version = r.u8()?.into();
        if version != VERSION {
            return Err(FormatFault::new(INDEX_WHAT, FormatFaultKind::Version(version)));
        }
        let bits = r.u8()?;
        if bits & !(FLAG_ZSTD | FLAG_SEALED) != 0 || r.u16_le()? != 0 {
            return Err(r.damaged("reserved bits are set"));
        }
        let key = keys.rows(&trailer.head.id);
        if (bits & FLAG_SEALED != 0) != key.is_sealed() {
            return Err(FormatFault::new(INDEX_WHAT, FormatFaultKind::Mode));
        }
        let (blocks, raw_len, body_len) = (r.u32_le()?, r.u32_le()? as usize, r.u32_le()? as usize);
        let (body, tag) = rest.split_last_chunk_mut::<TAG_BYTES>().ok_or(cut)?;
        let zstd = bits & FLAG_ZSTD != 0;
        if raw_len > INDEX_BYTES_MAX
            || body.len() != body_len
            || blocks != trailer.blocks
            || if zstd { body_len >= raw_len } else { body_len != raw_len }
        {
            return Err(FormatFault::damaged(INDEX_WHAT, "lengths out of range"));
        }
        key.open(Region::Index, trailer.index_offset, header, body, tag)?;
        if zstd {
            let mut raw = vec![0; raw_len];
            decompressor.decompress(INDEX_WHAT, body, &mut raw)?;
            return Index::parse_plain(&raw, trailer);
        }
        Index::parse_plain(body, trailer)
    }

    /// Reads the plain body of an index; for fuzzing, and by `parse`.
    pub fn parse_plain(raw: &[u8], trailer: &Trailer) -> Result<Index, FormatFault> {
        let mut r = Reader::new(raw, INDEX_WHAT);
        let mut index = Index { blocks: Default::default(), memory_bytes: size_of::<Index>() };
        let mut offset = 0u64;
        let mut rows = [0u32; ROW_KINDS];
        for _ in 0..trailer.blocks {
            let kind = RowKind::from_byte(r.u8()?).ok_or(r.damaged("unknown kind of row"))?;
            let info = BlockInfo {
                kind,
                bytes: r.u32()?,
                rows: r.u32()?,
                first: RowKey::parse(&mut r)?,
                last: RowKey::parse(&mut r)?,
                offset,
            };
            offset = offset.checked_add(info.bytes.into()).ok_or(r.damaged("offsets past their range"))?;
            let total = &mut rows[kind.index()];
            *total = total.checked_add(info.rows).ok_or(r.damaged("rows past their range"))?;
            let blocks = &mut index.blocks[kind.index()];
            if info.bytes as usize > ROW_BLOCK_BYTES_MAX + BLOCK_OVERHEAD_BYTES || info.rows == 0 {
                return Err(r.damaged("size of a row block out of range"));
            }
            if info.first.as_ref() > info.last.as_ref()
                || blocks.last().is_some_and(|before| before.last.as_ref() >= info.first.as_ref())
            {
                return Err(r.damaged("keys are not in order"));
            }
            index.memory_bytes += size_of::<BlockInfo>() + info.first.name.len() + info.last.name.len();
            blocks.push(info);
        }
        if !r.is_empty() || offset != trailer.index_offset || rows != trailer.rows {
            return Err(r.damaged("totals differ from the trailer"));
        }
        Ok(index)
    }

    /// Row blocks of `kind`, ascending by key.
    pub fn blocks(&self, kind: RowKind) -> &[BlockInfo] {
        &self.blocks[kind.index()]
    }

    /// Position in [`Index::blocks`] of the first block that may hold a key at or after `key`; the number of blocks if none.
    pub fn seek(&self, kind: RowKind, key: KeyRef<'_>) -> usize {
        self.blocks(kind).partition_point(|block| block.last.as_ref() < key)
    }

    /// About what it holds, in bytes.
    pub fn memory_bytes(&self) -> usize {
        self.memory_bytes
    }
}
