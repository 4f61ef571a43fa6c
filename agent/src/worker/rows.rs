//! Where rows go: into the segment being written (the cloud tables) and into the tail of an upload object (so that the
//! tables can be rebuilt from objects alone). Both are tails of the same format; see `format::tail`.
//!
//! ```text
//!  row --> segment (pieces)                          uploaded when full or at a commit
//!      `-> tail of the open object (pieces, aside)   appended behind the frames when the object is complete
//! ```
//!
//! Invariants: rows come in key order, so both outputs are sorted. A row's tail is in the same backup as the row, and in an
//! object that is committed with it or before: the tail belongs to the object that was open when the row came, and
//! objects are committed up to that one.
//!
//! Memory: pieces from the placer's pool; the caller has checked that there are enough. Source: ours.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};

use crate::format::row::Row;
use crate::format::tail::{TailBuilder, TailHead, TailKind, Trailer};
use crate::id::{BackupId, ObjectId, VolumeId};
use crate::pack::lane::Shared;
use crate::pack::object::ObjectBuf;
use crate::table::segment::{SegmentMeta, Span};

/// Bytes of a tail at which its object is closed, however few frames it has.
pub const TAIL_BYTES_FULL: u32 = 1 << 20;
/// zstd level of row blocks: digests and numbers gain little from more, and its tables take a tenth of the memory of level 3.
const ROWS_ZSTD_LEVEL: i32 = 1;

/// Both outputs. See the module's text.
pub struct Rows {
    volume: VolumeId,
    backup: BackupId,
    segment_bytes: u32,
    segment: Output,
    tail: Output,
    /// Finished tails of objects that still wait for frames.
    tails: BTreeMap<ObjectId, (TailBuilder, Arc<ObjectBuf>)>,
    spare: Option<TailBuilder>,
}

/// One tail being written.
struct Output {
    builder: TailBuilder,
    /// Pieces that take the tail's bytes, named after what the tail is for.
    buf: Option<Arc<ObjectBuf>>,
    span: Span,
}

impl Output {
    fn new(builder: TailBuilder) -> Output {
        Output { builder, buf: None, span: Span::default() }
    }
}

impl Rows {
    /// Outputs for one volume of one backup; segments are ended at about `segment_bytes`. `None` when there is no memory.
    pub fn new(volume: VolumeId, backup: BackupId, segment_bytes: u32) -> Option<Rows> {
        let builder = || TailBuilder::new(ROWS_ZSTD_LEVEL);
        Some(Rows {
            volume,
            backup,
            segment_bytes,
            segment: Output::new(builder()?),
            tail: Output::new(builder()?),
            tails: BTreeMap::new(),
            spare: None,
        })
    }

    fn head(&self, kind: TailKind, id: ObjectId) -> TailHead {
        TailHead { kind, id, policy: 0, backup: self.backup, volume: self.volume }
    }

    /// Writes a row to both outputs. Refused rows break a format limit; the caller has made sure that none does.
    pub fn push(&mut self, row: &Row, shared: &Shared) -> Result<(), crate::format::block::RowRefused> {
        self.push_segment(row, shared)?;
        self.push_tail(row, shared)
    }

    fn push_segment(&mut self, row: &Row, shared: &Shared) -> Result<(), crate::format::block::RowRefused> {
        let mut placer = shared.placer.lock().unwrap_or_else(PoisonError::into_inner);
        let buf = match self.segment.buf.take() {
            Some(buf) => buf,
            None => {
                let buf = placer.separate();
                let head = self.head(TailKind::Segment, buf.id());
                self.segment.builder.start(head, &shared.keys);
                buf
            }
        };
        let pushed = self.segment.builder.push(row, &mut |bytes| buf.append(bytes, placer.pool()));
        self.segment.buf = Some(buf);
        self.segment.span.add(row.as_ref());
        pushed
    }

    fn push_tail(&mut self, row: &Row, shared: &Shared) -> Result<(), crate::format::block::RowRefused> {
        let mut placer = shared.placer.lock().unwrap_or_else(PoisonError::into_inner);
        let open = placer.open_id();
        if self.tail.buf.as_ref().is_some_and(|buf| buf.id() != open) {
            self.set_aside();
        }
        let buf = match self.tail.buf.take() {
            Some(buf) => buf,
            None => {
                let head = self.head(TailKind::Object, open);
                self.tail.builder.start(head, &shared.keys);
                placer.aside(open)
            }
        };
        let before = buf.len();
        let pushed = self.tail.builder.push(row, &mut |bytes| buf.append(bytes, placer.pool()));
        placer.add_tail(buf.len() - before);
        if buf.len() >= TAIL_BYTES_FULL || self.tail.builder.is_full() {
            placer.close();
        }
        self.tail.buf = Some(buf);
        pushed
    }

    /// Keeps the tail of an object that takes no further rows until its frames are there.
    fn set_aside(&mut self) {
        let Some(buf) = self.tail.buf.take() else { return };
        let next = builder_from(&mut self.spare);
        let builder = std::mem::replace(&mut self.tail.builder, next);
        self.tails.insert(buf.id(), (builder, buf));
    }

    /// Appends the tail to a complete object: its rows, or none, then index and trailer.
    pub fn end_object(&mut self, object: &ObjectBuf, shared: &Shared) -> Trailer {
        if self.tail.buf.as_ref().is_some_and(|buf| buf.id() == object.id()) {
            self.set_aside();
        }
        let placer = shared.placer.lock().unwrap_or_else(PoisonError::into_inner);
        let data_bytes = u64::from(object.len());
        let (mut builder, aside) = match self.tails.remove(&object.id()) {
            Some((builder, aside)) => (builder, Some(aside)),
            None => {
                let mut builder = builder_from(&mut self.spare);
                builder.start(self.head(TailKind::Object, object.id()), &shared.keys);
                (builder, None)
            }
        };
        if let Some(aside) = aside {
            aside.with_parts(|parts| parts.iter().for_each(|part| object.append(part, placer.pool())));
        }
        let trailer = builder.finish(data_bytes, &mut |bytes| object.append(bytes, placer.pool()));
        self.spare = Some(builder);
        trailer
    }

    /// Whether the segment should be ended.
    pub fn is_segment_full(&self) -> bool {
        self.segment.buf.as_ref().is_some_and(|buf| buf.len() >= self.segment_bytes)
            || self.segment.builder.is_full()
    }

    /// Ends the segment, if it has rows.
    pub fn end_segment(&mut self, shared: &Shared) -> Option<(Arc<ObjectBuf>, SegmentMeta)> {
        let buf = self.segment.buf.take()?;
        let placer = shared.placer.lock().unwrap_or_else(PoisonError::into_inner);
        let trailer = self.segment.builder.finish(0, &mut |bytes| buf.append(bytes, placer.pool()));
        let meta = std::mem::take(&mut self.segment.span).meta(buf.id(), self.volume, &trailer)?;
        Some((buf, meta))
    }
}

/// The spare builder, or a new one.
#[allow(clippy::panic, reason = "no memory, in the middle of a backup: as with any other allocation")]
fn builder_from(spare: &mut Option<TailBuilder>) -> TailBuilder {
    match spare.take().or_else(|| TailBuilder::new(ROWS_ZSTD_LEVEL)) {
        Some(builder) => builder,
        None => panic!("no memory for a compression context"),
    }
}
