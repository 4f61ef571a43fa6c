//! Segments: immutable sorted runs of table rows, and the entry of each in the commit log.
//!
//! A segment is a tail and nothing else (`format::tail`). Rows of the three tables interleave by LIN, so a segment covers one
//! stretch of LINs of one volume in all of them. [`SegmentMeta`] is its entry in a commit record:
//!
//! | offset | bytes | field | meaning |
//! |---|---|---|---|
//! | 0 | 24 | id | its name |
//! | 24 | 4 | volume | volume of all its rows |
//! | 28 | 4 | backup_min | least backup of its rows |
//! | 32 | 4 | backup_max | greatest backup of its rows |
//! | 36 | 4 | index_bytes | bytes of its index, which ends 128 bytes before its end |
//! | 40 | 8 | first_inode | least inode of its rows |
//! | 48 | 8 | last_inode | greatest |
//! | 56 | 8 | bytes | whole segment |
//! | 64 | 16 | rows | 4 bytes each: item, name, location, entry rows |
//! | 80 | 8 | first_base | no location row of `first_inode` has a lesser base |
//! | 88 | 8 | end_base | all location rows of `last_inode` have lesser bases; 0: no bound |
//!
//! Little-endian; inside a log record, which has magic, version and tag. With it a reader fetches index and trailer in one GET, and
//! opens of the many segments of one large file only those that it comes to.
//!
//! Invariants: per kind, rows ascend strictly; a finished segment has at least one row and at most the bytes it was given.
//! Does not: upload, or decide which rows (see `merge`). Source: ours.

use crate::format::block::{Pushed, RowRefused};
use crate::format::fault::FormatFault;
use crate::format::row::{ROW_KINDS, RowRef};
use crate::format::seal::Keys;
use crate::format::tail::{INDEX_STORED_BYTES_MAX, TRAILER_BYTES, TailBuilder, TailHead, TailKind, Trailer};
use crate::format::varint::Reader;
use crate::id::{BackupId, Lin, ObjectId, VolumeId};
use crate::store::StoreFault;

/// Bytes of a [`SegmentMeta`].
pub const SEGMENT_META_BYTES: usize = 96;

const WHAT: &str = "segment entry";

/// The entry of a segment in the commit log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentMeta {
    /// Name of the segment.
    pub id: ObjectId,
    /// Volume of all its rows.
    pub volume: VolumeId,
    /// Least backup of its rows.
    pub backup_min: BackupId,
    /// Greatest backup of its rows.
    pub backup_max: BackupId,
    /// Bytes of its index.
    pub index_bytes: u32,
    /// Least inode of its rows.
    pub first_inode: u64,
    /// Greatest inode of its rows.
    pub last_inode: u64,
    /// Bytes of the whole segment.
    pub bytes: u64,
    /// Rows by [`RowKind::index`](crate::format::row::RowKind::index).
    pub rows: [u32; ROW_KINDS],
    /// No location row of `first_inode` has a lesser base.
    pub first_base: u64,
    /// All location rows of `last_inode` have lesser bases; 0: no bound.
    pub end_base: u64,
}

impl SegmentMeta {
    /// The entry as bytes; see the table in the module header.
    pub fn emit(&self) -> [u8; SEGMENT_META_BYTES] {
        let mut out = [0; SEGMENT_META_BYTES];
        out[..24].copy_from_slice(&self.id.to_bytes());
        out[24..28].copy_from_slice(&self.volume.0.to_le_bytes());
        out[28..32].copy_from_slice(&self.backup_min.0.to_le_bytes());
        out[32..36].copy_from_slice(&self.backup_max.0.to_le_bytes());
        out[36..40].copy_from_slice(&self.index_bytes.to_le_bytes());
        out[40..48].copy_from_slice(&self.first_inode.to_le_bytes());
        out[48..56].copy_from_slice(&self.last_inode.to_le_bytes());
        out[56..64].copy_from_slice(&self.bytes.to_le_bytes());
        for (at, rows) in (64..).step_by(4).zip(self.rows) {
            out[at..at + 4].copy_from_slice(&rows.to_le_bytes());
        }
        out[80..88].copy_from_slice(&self.first_base.to_le_bytes());
        out[88..96].copy_from_slice(&self.end_base.to_le_bytes());
        out
    }

    /// Inverse of [`SegmentMeta::emit`], from the front of `bytes`.
    pub fn parse(bytes: &[u8]) -> Result<SegmentMeta, FormatFault> {
        let mut r = Reader::new(bytes, WHAT);
        let meta = SegmentMeta {
            id: ObjectId::from_bytes(&r.array()?),
            volume: VolumeId(r.u32_le()?),
            backup_min: BackupId(r.u32_le()?),
            backup_max: BackupId(r.u32_le()?),
            index_bytes: r.u32_le()?,
            first_inode: r.u64_le()?,
            last_inode: r.u64_le()?,
            bytes: r.u64_le()?,
            rows: [r.u32_le()?, r.u32_le()?, r.u32_le()?, r.u32_le()?],
            first_base: r.u64_le()?,
            end_base: r.u64_le()?,
        };
        let end = u64::from(meta.index_bytes) + TRAILER_BYTES as u64;
        if meta.bytes < end
            || meta.index_bytes as usize > INDEX_STORED_BYTES_MAX
            || meta.first_inode > meta.last_inode
            || meta.backup_min > meta.backup_max
            || meta.first_inode == meta.last_inode && meta.first_base >= meta.end_base_or_max()
        {
            return Err(r.damaged("fields contradict each other"));
        }
        Ok(meta)
    }

    /// Whether all its rows are of one backup, this one.
    pub fn is_only_of(&self, backup: BackupId) -> bool {
        self.backup_min == backup && self.backup_max == backup
    }

    /// Base past its location rows of `last_inode`.
    pub fn end_base_or_max(&self) -> u64 {
        if self.end_base == 0 { u64::MAX } else { self.end_base }
    }

    /// Whether it may hold rows of `lin`.
    pub fn covers(&self, lin: Lin) -> bool {
        self.volume == lin.volume && (self.first_inode..=self.last_inode).contains(&lin.inode)
    }
}

/// What of the key space a segment's rows take, as they are added.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// Least and greatest inode and backup.
    rows: Option<(u64, u64, BackupId, BackupId)>,
    /// First location row's inode and base, and the last one's.
    locations: Option<((u64, u64), (u64, u64))>,
}

impl Span {
    /// Adds a row: rows of a kind come in key order.
    pub fn add(&mut self, row: RowRef<'_>) {
        let key = row.key();
        let inode = key.lin.inode;
        let (first, last, min, max) = self.rows.unwrap_or((inode, inode, key.backup, key.backup));
        self.rows = Some((first.min(inode), last.max(inode), min.min(key.backup), max.max(key.backup)));
        if matches!(row, RowRef::Location(_)) {
            let at = (inode, key.base);
            self.locations = Some((self.locations.map_or(at, |(first, _)| first), at));
        }
    }

    /// The entry in the commit log of the segment with these rows and this trailer; `None` without rows.
    pub fn meta(&self, id: ObjectId, volume: VolumeId, trailer: &Trailer) -> Option<SegmentMeta> {
        let (first_inode, last_inode, backup_min, backup_max) = self.rows?;
        let of = |at: Option<(u64, u64)>, inode| at.filter(|at| at.0 == inode).map(|at| at.1);
        let first_base = of(self.locations.map(|ends| ends.0), first_inode).unwrap_or(0);
        let end_base =
            of(self.locations.map(|ends| ends.1), last_inode).map_or(0, |base| base.saturating_add(1));
        Some(SegmentMeta {
            id,
            volume,
            backup_min,
            backup_max,
            index_bytes: trailer.index_bytes,
            first_inode,
            last_inode,
            bytes: trailer.total_bytes(),
            rows: trailer.rows,
            first_base,
            end_base,
        })
    }
}

/// Builds one segment at a time, keeping its buffers. Memory: that of a [`TailBuilder`].
pub struct SegmentBuilder {
    tail: TailBuilder,
    bytes_max: u64,
    id: ObjectId,
    volume: VolumeId,
    span: Span,
}

impl SegmentBuilder {
    /// Segments of at most `bytes_max` bytes ([`SEGMENT_BYTES_MAX`](crate::limits::SEGMENT_BYTES_MAX) but in tests), rows
    /// compressed at `zstd_level`. `None` when there is no memory.
    pub fn new(zstd_level: i32, bytes_max: u64) -> Option<SegmentBuilder> {
        let tail = TailBuilder::new(zstd_level)?;
        Some(SegmentBuilder {
            tail,
            bytes_max,
            id: ObjectId::default(),
            volume: VolumeId(0),
            span: Span::default(),
        })
    }

    /// Begins a segment, dropping one that was not finished. `policy` and `backup` are 0 when of several.
    pub fn start(&mut self, id: ObjectId, volume: VolumeId, policy: u32, backup: BackupId, keys: &Keys) {
        self.id = id;
        self.volume = volume;
        self.span = Span::default();
        self.tail.start(TailHead { kind: TailKind::Segment, id, policy, backup, volume }, keys);
    }

    /// Whether a segment is begun.
    pub fn is_started(&self) -> bool {
        self.tail.is_started()
    }

    /// Whether it has no row yet.
    pub fn is_empty(&self) -> bool {
        self.span == Span::default()
    }

    /// The volume of the segment begun.
    pub fn volume(&self) -> VolumeId {
        self.volume
    }

    /// Adds a row, unless the segment could then grow past its bound: [`Pushed::Full`] means finish it and push again. Sealed
    /// row blocks go to `sink` as they fill. Panics on a row of another volume or out of order.
    pub fn push<'a>(
        &mut self,
        row: impl Into<RowRef<'a>>,
        sink: &mut dyn FnMut(&[u8]),
    ) -> Result<Pushed, RowRefused> {
        let row = row.into();
        assert_eq!(row.lin().volume, self.volume, "a segment is of one volume");
        if self.tail.is_full() || (!self.is_empty() && self.tail.bytes_max_with(row) > self.bytes_max) {
            return Ok(Pushed::Full);
        }
        self.tail.push(row, sink)?;
        self.span.add(row);
        Ok(Pushed::Taken)
    }

    /// Ends the segment: what is pending, index and trailer go to `sink`. `None` when it has no row, and then nothing was
    /// written.
    pub fn finish(&mut self, sink: &mut dyn FnMut(&[u8])) -> Option<SegmentMeta> {
        if self.is_empty() {
            return None;
        }
        let span = std::mem::take(&mut self.span);
        let trailer: Trailer = self.tail.finish(0, sink);
        span.meta(self.id, self.volume, &trailer)
    }
}

/// Where finished segments go; the uploader implements it.
pub trait SegmentSink {
    /// A new segment begins; its name.
    fn begin(&mut self) -> ObjectId;

    /// Its next bytes.
    fn put(&mut self, bytes: &[u8]);

    /// It ends; it must be stored when this returns `Ok`.
    fn end(&mut self, meta: &SegmentMeta) -> Result<(), StoreFault>;
}

/// Why rows were not written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WriteFault {
    /// The sink failed.
    Store(StoreFault),
    /// A row breaks a limit.
    Row(RowRefused),
}

/// Writes a long sequence of rows as segments, beginning a new one when one is full or the volume changes.
pub struct SegmentWriter {
    builder: SegmentBuilder,
    keys: Keys,
}

impl SegmentWriter {
    /// See [`SegmentBuilder::new`].
    pub fn new(zstd_level: i32, bytes_max: u64, keys: &Keys) -> Option<SegmentWriter> {
        Some(SegmentWriter { builder: SegmentBuilder::new(zstd_level, bytes_max)?, keys: keys.clone() })
    }

    /// Adds a row; LINs must not descend.
    pub fn push(&mut self, row: RowRef<'_>, sink: &mut dyn SegmentSink) -> Result<(), WriteFault> {
        let volume = row.lin().volume;
        if self.builder.is_started() && self.builder.volume() != volume {
            self.finish(sink)?;
        }
        loop {
            if !self.builder.is_started() {
                self.builder.start(sink.begin(), volume, 0, BackupId(0), &self.keys);
            }
            let pushed = self.builder.push(row, &mut |bytes| sink.put(bytes));
            match pushed.map_err(WriteFault::Row)? {
                Pushed::Taken => return Ok(()),
                Pushed::Full => self.finish(sink)?,
            }
        }
    }

    /// Ends the segment begun, if any.
    pub fn finish(&mut self, sink: &mut dyn SegmentSink) -> Result<(), WriteFault> {
        match self.builder.finish(&mut |bytes| sink.put(bytes)) {
            Some(meta) => sink.end(&meta).map_err(WriteFault::Store),
            None => Ok(()),
        }
    }
}
