//! The bytes of an item, from one offset to another, in order.
//!
//! Invariants: nothing is given out that its digest did not verify; it ends at the first byte that cannot be. Rows are foreign: lengths
//! and order are judged first. Memory: a row, and what the [`BlockCache`] keeps. Source: ours.

use std::fmt;
use std::io::{self, Read, Write};
use std::ops::Range;

use super::cache::{BlockCache, BlockFault};
use super::decode::Unread;
use super::lookup::Lookup;
use crate::format::row::{BlockPlace, ItemAttributes, LocationRow, Place, RowPayload, RunKind};
use crate::id::{Lin, ObjectId};
use crate::limits::LOCATION_BLOCKS_MAX;
use crate::store::StoreFault;
use crate::table::source::{Fetch, TableFault};

/// Zero bytes written in one call.
const ZEROS_BYTES: usize = 64 << 10;
static ZEROS: [u8; ZEROS_BYTES] = [0; ZEROS_BYTES];

/// Why bytes of an item cannot be read.
#[derive(Debug)]
pub enum ReadFault {
    /// Rows contradict each other; which rule.
    Contradiction(&'static str),
    /// A block is lost or damaged.
    Unread {
        /// In which object.
        object: ObjectId,
        /// Offset of the frame in the object.
        frame_offset: u32,
        /// First byte of the block in the item.
        offset: u64,
        /// Why.
        what: Unread,
    },
    /// The tables cannot be read.
    Rows(TableFault),
    /// The store does not answer.
    Store(StoreFault),
    /// The output cannot be written to.
    Output(io::Error),
    /// No memory for the work.
    Resources(&'static str),
}

impl fmt::Display for ReadFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReadFault::Contradiction(rule) => write!(f, "the tables contradict themselves: {rule}"),
            ReadFault::Unread { object, frame_offset, offset, what: Unread::Damaged(what) } => {
                write!(f, "bytes from {offset} on are damaged (object {object}, byte {frame_offset}): {what}")
            }
            ReadFault::Unread { object, frame_offset, offset, .. } => write!(
                f,
                "bytes from {offset} on are missing: object {object} is gone or cut short (byte {frame_offset})"
            ),
            ReadFault::Rows(fault) => write!(f, "reading the tables: {fault}"),
            ReadFault::Store(fault) => write!(f, "reading the store: {fault}"),
            ReadFault::Output(error) => write!(f, "writing: {error}"),
            ReadFault::Resources(what) => write!(f, "not enough {what}"),
        }
    }
}

impl std::error::Error for ReadFault {}

impl From<TableFault> for ReadFault {
    fn from(fault: TableFault) -> ReadFault {
        ReadFault::Rows(fault)
    }
}

/// What [`copy`] wrote.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Copied {
    /// Bytes written.
    pub bytes: u64,
    /// Bytes of them that are zero because the medium did not give them when they were backed up.
    pub lost: u64,
}

/// Writes bytes `range` of a file or image to `out`, in order; the range is cut at the end. Stops at the first byte that cannot be
/// verified.
pub fn copy<F: Fetch>(
    lookup: &mut Lookup<F>,
    cache: &mut BlockCache<'_>,
    lin: Lin,
    item: &ItemAttributes,
    range: Range<u64>,
    out: &mut dyn Write,
) -> Result<Copied, ReadFault> {
    let end = range.end.min(item.size);
    let range = range.start.min(end)..end;
    if let RowPayload::Inline(bytes) = &item.payload {
        let stored = bytes.len() as u64;
        if stored > item.size {
            return Err(ReadFault::Contradiction("small contents longer than the item"));
        }
        let part = range.start.min(stored) as usize..range.end.min(stored) as usize;
        out.write_all(&bytes[part.clone()]).map_err(ReadFault::Output)?;
        let zeros = (range.end - range.start) - part.len() as u64;
        io::copy(&mut io::repeat(0).take(zeros), out).map_err(ReadFault::Output)?;
        return Ok(Copied { bytes: range.end - range.start, lost: 0 });
    }
    let at = range.start;
    let mut copy = Copy { cache, out, range, at, copied: Copied::default() };
    copy.rows(lookup, lin, item)?;
    Ok(copy.copied)
}

/// An item on its way to an output.
struct Copy<'c, 'a> {
    cache: &'c mut BlockCache<'a>,
    out: &'c mut dyn Write,
    range: Range<u64>,
    /// Next byte to write.
    at: u64,
    copied: Copied,
}

impl Copy<'_, '_> {
    fn rows<F: Fetch>(
        &mut self,
        lookup: &mut Lookup<F>,
        lin: Lin,
        item: &ItemAttributes,
    ) -> Result<(), ReadFault> {
        let mut rows = lookup.locations_from(lin, item, 0);
        let mut sought = false;
        while self.at < self.range.end
            && let Some(row) = lookup.next_location(&mut rows)?
        {
            let block_bytes = u64::from(row.block_bytes);
            if block_bytes == 0 {
                return Err(ReadFault::Contradiction("blocks of no bytes"));
            }
            // The row with the first wanted block begins at most a row's length before it.
            let near = (self.range.start / block_bytes).saturating_sub(LOCATION_BLOCKS_MAX as u64);
            if !sought && row.base < near {
                rows = lookup.locations_from(lin, item, near);
            } else {
                self.row(&row, item.size)?;
            }
            sought = true;
        }
        // What lies before the end of the range may have been among rows that are lost: nothing tells a hole from it.
        lookup.all_locations(lin, item)?;
        self.zeros(self.range.end)
    }

    fn row(&mut self, row: &LocationRow, size: u64) -> Result<(), ReadFault> {
        let block_bytes = u64::from(row.block_bytes);
        let past = ReadFault::Contradiction("a location past the end of all numbers");
        let Some(start) = row.base.checked_mul(block_bytes) else { return Err(past) };
        self.count_lost(row, start);
        for (index, place) in row.blocks.iter().enumerate() {
            let offset = start.saturating_add(index as u64 * block_bytes);
            if offset >= self.range.end {
                break;
            }
            let BlockPlace::Stored(place) = place else { continue };
            let len = block_bytes.min(size - offset);
            if u64::from(place.len) != len {
                return Err(ReadFault::Contradiction("a block of another length than the item has there"));
            }
            if offset + len <= self.at {
                continue;
            }
            self.zeros(offset)?;
            if self.at > self.range.start.max(offset) {
                return Err(ReadFault::Contradiction("blocks that overlap"));
            }
            let block = self.cache.block(place, &row.blocks[index + 1..]);
            let block = block.map_err(|fault| unread(place, offset, fault))?;
            let (from, to) = (self.at - offset, (self.range.end - offset).min(len));
            self.out.write_all(&block[from as usize..to as usize]).map_err(ReadFault::Output)?;
            self.copied.bytes += to - from;
            self.at = offset + to;
        }
        Ok(())
    }

    /// Writes zeros up to `to`: holes and zero blocks.
    fn zeros(&mut self, to: u64) -> Result<(), ReadFault> {
        while self.at < to {
            let len = (to - self.at).min(ZEROS_BYTES as u64);
            self.out.write_all(&ZEROS[..len as usize]).map_err(ReadFault::Output)?;
            self.copied.bytes += len;
            self.at += len;
        }
        Ok(())
    }

    fn count_lost(&mut self, row: &LocationRow, start: u64) {
        let wanted = self.range.clone();
        let mut lost = |from: u64, len: u64| {
            let to = from.saturating_add(len).min(wanted.end);
            self.copied.lost += to.saturating_sub(from.max(wanted.start));
        };
        let mut at = start;
        for &(kind, len) in &row.runs {
            if kind == RunKind::Lost {
                lost(at, len);
            }
            at = at.saturating_add(len);
        }
        if row.runs.is_empty() {
            let block_bytes = u64::from(row.block_bytes);
            for (index, place) in row.blocks.iter().enumerate() {
                if *place == BlockPlace::Lost {
                    lost(start.saturating_add(index as u64 * block_bytes), block_bytes);
                }
            }
        }
    }
}

fn unread(place: &Place, offset: u64, fault: BlockFault) -> ReadFault {
    match fault {
        BlockFault::Unread(what) => {
            ReadFault::Unread { object: place.object, frame_offset: place.frame_offset, offset, what }
        }
        BlockFault::Store(fault) => ReadFault::Store(fault),
    }
}
