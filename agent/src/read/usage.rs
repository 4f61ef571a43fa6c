//! What the points of a policy hold of a volume, and what each alone holds: one pass over the item and location rows of the volume.
//!
//! ```text
//!  rows of one place of an item, newest first      backup 9 ####     6 ##..     2 ##..
//!  points                                          9 10              6 7        3 5
//!  a block at the same place in 6 and in 2 is one block, of the points 3 to 7; one that only point 9 sees is of that point alone
//! ```
//!
//! | counted | is |
//! |---|---|
//! | data | plain bytes of blocks that have any; holes, zero blocks and what rows hold themselves are none |
//! | stored | the block's share of its frame, by plain bytes, among the blocks that points need |
//! | alone | data: blocks that no other point needs; stored: whole frames that no other point needs |
//!
//! A frame holds blocks of several items, which lie near each other in the tables: the last [`FRAMES_MAX`] frames are kept, and a frame that
//! is met again after that (a block that was stored once for places far apart) counts once more.
//!
//! Memory: two streams, the versions of one item, and [`FRAMES_MAX`] frames. Time: all rows of the volume.
//!
//! Invariants: what is stored of the points adds up: the stored bytes of a frame are shared out to the last byte.
//! Does not: know other policies; each volume is of one. Source: ours; reading rules in `format::row`.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;

use windlass_hal::volume::ItemKind;

use crate::format::key::KeyRef;
use crate::format::row::{BlockPlace, LocationRow, Place, Row, RowKind, RowPayload};
use crate::id::{BackupId, Lin, ObjectId, VolumeId};
use crate::table::read::TableReader;
use crate::table::source::{Fetch, TableFault};
use crate::table::stream::Stream;

/// Frames whose blocks are being gathered: some 200 bytes each. Enough for the items that one backup packs side by side.
pub const FRAMES_MAX: usize = 4096;

/// Items of one type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OfKind {
    /// The type.
    pub kind: ItemKind,
    /// How many there are.
    pub items: u64,
    /// Their sizes, in bytes.
    pub bytes: u64,
}

/// What one point holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OfPoint {
    /// Plain bytes of its blocks.
    pub data: u64,
    /// Their share of what is stored, in bytes.
    pub stored: u64,
    /// Plain bytes of blocks that no other point needs.
    pub alone_data: u64,
    /// Frames that no other point needs: what goes when the point goes, in bytes.
    pub alone_stored: u64,
}

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// What each point holds.
    pub points: BTreeMap<BackupId, OfPoint>,
    /// Plain bytes of all blocks that a point needs, each once.
    pub data: u64,
    /// What is stored for them, in bytes.
    pub stored: u64,
    /// Items of the point that is looked at, by type; types without items are left out.
    pub kinds: Vec<OfKind>,
    /// Bytes of its small files that the tables hold themselves.
    pub in_rows: u64,
}

impl Usage {
    fn add_item(&mut self, kind: ItemKind, size: u64) {
        match self.kinds.iter_mut().find(|of| of.kind == kind) {
            Some(of) => {
                of.items += 1;
                of.bytes = of.bytes.saturating_add(size);
            }
            None => self.kinds.push(OfKind { kind, items: 1, bytes: size }),
        }
    }
}

/// A version of an item, and the points that see it.
struct Span {
    points: Range<usize>,
    rows_from: BackupId,
    size: u64,
}

/// A block, and the points that see it: `..` into the list of points.
#[derive(Clone)]
struct Seen {
    place: Place,
    points: Range<usize>,
}

/// Blocks of one frame: plain bytes by the points that see them.
#[derive(Default)]
struct Frame {
    bytes: u64,
    plain: BTreeMap<(usize, usize), u64>,
}

/// What is known so far of all points: each number is added where its points begin and taken away where they end.
struct Tally<'a> {
    points: &'a [BackupId],
    data: Vec<u64>,
    stored: Vec<u64>,
    alone: Vec<(u64, u64)>,
    frames: BTreeMap<(ObjectId, u32), Frame>,
    order: VecDeque<(ObjectId, u32)>,
    total: (u64, u64),
}

impl<'a> Tally<'a> {
    fn new(points: &'a [BackupId]) -> Tally<'a> {
        let steps = vec![0; points.len() + 1];
        Tally {
            points,
            data: steps.clone(),
            stored: steps,
            alone: vec![(0, 0); points.len()],
            frames: BTreeMap::new(),
            order: VecDeque::new(),
            total: (0, 0),
        }
    }

    /// Counts a block that has all its points.
    fn add(&mut self, seen: Seen) {
        let key = (seen.place.object, seen.place.frame_offset);
        if !self.frames.contains_key(&key) {
            if self.order.len() >= FRAMES_MAX
                && let Some(old) = self.order.pop_front()
                && let Some(frame) = self.frames.remove(&old)
            {
                self.close(&frame);
            }
            self.order.push_back(key);
        }
        let frame = self.frames.entry(key).or_default();
        frame.bytes = seen.place.frame_bytes.into();
        *frame.plain.entry((seen.points.start, seen.points.end)).or_default() += u64::from(seen.place.len);
    }

    /// Shares a frame out.
    fn close(&mut self, frame: &Frame) {
        let whole: u64 = frame.plain.values().sum();
        let mut before = 0u64;
        for (&(first, end), &plain) in &frame.plain {
            let share = |upto: u64| {
                let part = u128::from(frame.bytes) * u128::from(upto) / u128::from(whole.max(1));
                u64::try_from(part).unwrap_or(u64::MAX)
            };
            let stored = share(before + plain) - share(before);
            before += plain;
            for (steps, by) in [(&mut self.data, plain), (&mut self.stored, stored)] {
                steps[first] = steps[first].wrapping_add(by);
                steps[end] = steps[end].wrapping_sub(by);
            }
            if end - first == 1 {
                self.alone[first].0 += plain;
                if frame.plain.len() == 1 {
                    self.alone[first].1 += frame.bytes;
                }
            }
            self.total = (self.total.0 + plain, self.total.1 + stored);
        }
    }

    fn finish(mut self, usage: &mut Usage) {
        for frame in std::mem::take(&mut self.frames).into_values() {
            self.close(&frame);
        }
        let (mut data, mut stored) = (0u64, 0u64);
        for (at, &point) in self.points.iter().enumerate() {
            data = data.wrapping_add(self.data[at]);
            stored = stored.wrapping_add(self.stored[at]);
            let of = usage.points.entry(point).or_default();
            of.data += data;
            of.stored += stored;
            of.alone_data += self.alone[at].0;
            of.alone_stored += self.alone[at].1;
        }
        usage.data += self.total.0;
        usage.stored += self.total.1;
    }
}

/// Adds what `points`, the points that have the volume, ascending, hold of it; items are counted of the point `at`.
///
/// # Errors
/// The tables cannot be read, or rows of them are lost: nothing is counted on doubt.
pub fn usage<F: Fetch>(
    reader: &mut TableReader<F>,
    volume: VolumeId,
    points: &[BackupId],
    at: BackupId,
    usage: &mut Usage,
) -> Result<(), TableFault> {
    let from = KeyRef::first_of(Lin { volume, inode: 0 });
    let mut items = reader.rows(RowKind::Item, from);
    let mut locations = reader.rows(RowKind::Location, from);
    let mut tally = Tally::new(points);
    while let Some(lin) = items.peek_lin(reader.source())?.filter(|lin| lin.volume == volume) {
        let spans = versions(reader, &mut items, lin, points, at, usage)?;
        places(reader, &mut locations, lin, &spans, &mut tally)?;
    }
    tally.finish(usage);
    match reader.lost().next() {
        Some(lost) => Err(TableFault::Lost(lost)),
        None => Ok(()),
    }
}

/// The versions of an item that a point sees.
fn versions<F: Fetch>(
    reader: &mut TableReader<F>,
    items: &mut Stream,
    lin: Lin,
    points: &[BackupId],
    at: BackupId,
    usage: &mut Usage,
) -> Result<Vec<Span>, TableFault> {
    let (mut spans, mut end, mut is_met) = (Vec::new(), points.len(), false);
    while items.peek_lin(reader.source())? == Some(lin) {
        let Some(Row::Item(row)) = items.next(reader.source())? else { break };
        if !is_met && row.backup <= at {
            is_met = true;
            if let Some(item) = &row.item {
                usage.add_item(item.kind, item.size);
                if let RowPayload::Inline(bytes) = &item.payload {
                    usage.in_rows += bytes.len() as u64;
                }
            }
        }
        let first = points[..end].partition_point(|&point| point < row.backup);
        if let Some(item) = row.item.filter(|_| first < end) {
            spans.push(Span { points: first..end, rows_from: item.rows_from, size: item.size });
        }
        end = first;
    }
    Ok(spans)
}

/// Counts the blocks of an item.
fn places<F: Fetch>(
    reader: &mut TableReader<F>,
    locations: &mut Stream,
    lin: Lin,
    spans: &[Span],
    tally: &mut Tally<'_>,
) -> Result<(), TableFault> {
    while locations.peek_lin(reader.source())?.is_some_and(|next| next < lin) {
        locations.next(reader.source())?;
    }
    let (mut base, mut end) = (None, 0);
    let mut open: Vec<Option<Seen>> = Vec::new();
    while locations.peek_lin(reader.source())? == Some(lin) {
        let Some(Row::Location(row)) = locations.next(reader.source())? else { break };
        if base != Some(row.base) {
            open.drain(..).flatten().for_each(|seen| tally.add(seen));
            (base, end) = (Some(row.base), tally.points.len());
        }
        let first = tally.points[..end].partition_point(|&point| point < row.backup);
        for span in spans.iter().filter(|span| span.rows_from <= row.backup) {
            let points = span.points.start.max(first)..span.points.end.min(end);
            if !points.is_empty() {
                see(&row, span, &points, &mut open, tally);
            }
        }
        end = first;
    }
    open.drain(..).flatten().for_each(|seen| tally.add(seen));
    Ok(())
}

/// Adds the points of a row to its blocks; a block that is another one than in newer rows begins anew.
fn see(
    row: &LocationRow,
    span: &Span,
    points: &Range<usize>,
    open: &mut Vec<Option<Seen>>,
    tally: &mut Tally<'_>,
) {
    if open.len() < row.blocks.len() {
        open.resize(row.blocks.len(), None);
    }
    for (at, block) in (0u64..).zip(&row.blocks) {
        let begins = row.base.saturating_add(at).saturating_mul(row.block_bytes.into());
        let BlockPlace::Stored(place) = block else { continue };
        if begins >= span.size {
            continue;
        }
        let known = &mut open[at as usize];
        match known {
            Some(seen) if seen.place == *place && seen.points.start == points.end => {
                seen.points.start = points.start;
            }
            _ => {
                let before = known.replace(Seen { place: *place, points: points.clone() });
                before.into_iter().for_each(|seen| tally.add(seen));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::row::DIGEST_BYTES;

    fn place(frame_offset: u32, frame_bytes: u32, len: u32) -> Place {
        let object = ObjectId::default();
        Place { object, frame_offset, frame_bytes, inner_offset: 0, len, digest: [1; DIGEST_BYTES] }
    }

    #[test]
    fn a_frame_is_shared_out_to_the_last_byte() {
        let points = [BackupId(1), BackupId(4), BackupId(6)];
        let mut tally = Tally::new(&points);
        // One frame of 100 bytes: a block that all points see, and two that one point each does.
        for (points, len) in [(0..3, 4096), (0..1, 4096), (2..3, 100)] {
            tally.add(Seen { place: place(0, 100, len), points });
        }
        tally.add(Seen { place: place(100, 50, 10), points: 1..3 });
        let mut usage = Usage::default();
        tally.finish(&mut usage);
        let of = |point: u32| usage.points[&BackupId(point)];
        assert_eq!((usage.data, usage.stored), (4096 + 4096 + 100 + 10, 150));
        assert_eq!((of(1).data, of(4).data, of(6).data), (8192, 4106, 4206));
        assert_eq!((of(1).alone_data, of(4).alone_data, of(6).alone_data), (4096, 0, 100));
        assert_eq!((of(1).stored, of(4).stored, of(6).stored), (98, 99, 101), "shares of what is shared");
        assert_eq!((of(1).alone_stored, of(6).alone_stored), (0, 0), "the frame stays for the others");
        // More frames than are kept: nothing is lost.
        let mut tally = Tally::new(&points);
        for at in 0..FRAMES_MAX as u32 + 10 {
            tally.add(Seen { place: place(at * 10, 7, 10), points: 1..2 });
        }
        assert_eq!(tally.frames.len(), FRAMES_MAX);
        let mut usage = Usage::default();
        tally.finish(&mut usage);
        assert_eq!(usage.points[&BackupId(4)].alone_stored, 7 * (FRAMES_MAX as u64 + 10));
    }
}
