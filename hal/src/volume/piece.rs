//! Inodes of any file system with tables or chunks of them, read in large pieces, two ahead: one is looked at, the next one is here, so
//! that the blocks that it needs can be read, and the device reads the one after.
//!
//! A piece holds as many inodes as fit 512 KiB. The file system lists where they are ([`List`]); those at most 64 KiB apart become
//! one read, and so do the gaps between them.
//!
//! ```text
//!  piece   [ inodes 128..192 ][gap][ inodes 256..288 ]      one read
//!  spans     first, count, at, device   first, count, at, device
//!
//!  now     looked at                     Pieces::seek, Pieces::get
//!  next    in memory, to be planned      Pieces::next_inodes
//!  after   asked of the device
//! ```
//!
//! The bytes in a gap are read with the inodes; [`Pieces::at`] returns them, so that they are not read again
//! (XFS puts directories there).
//!
//! Invariants: what is listed and read ahead is only a hint; when that ends in a fault, it is done again, and the fault reported,
//! when its turn comes. A piece that fails to read is tried again block by block, so a bad sector costs the inodes in
//! it and no others.
//!
//! Source: ours.

use std::ops::Range;

use super::VolumeFault;
use super::cache::GAP_BYTES;
use crate::block::{BlockDevice, Fault, FaultKind};

/// Bytes of a piece, and of the largest read: as much as the kernel takes as one request without a thread of its own.
const PIECE_BYTES: usize = 512 << 10;

/// Inodes in a row, in the piece and on the device.
#[derive(Clone, Copy, Debug)]
struct Span {
    first: u64,
    count: u32,
    at: usize,
    device: u64,
    /// Bit i set = inode `first + i` is free.
    free: u64,
}

/// A stretch of the piece that could not be read.
#[derive(Clone, Copy, Debug)]
struct Bad {
    from: usize,
    to: usize,
    fault: Fault,
}

/// Where a search for an inode ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seek {
    /// This is the next inode that exists, and it is in the piece.
    At(u64),
    /// None up to here; go on from this one.
    Paused(u64),
    /// No inode is left.
    End,
}

/// One inode of the piece.
pub(super) struct Raw<'a> {
    pub(super) bytes: &'a [u8],
    /// Place on the device.
    pub(super) device: u64,
    /// Whether the file system's index of inodes marks it as free.
    pub(super) is_free: bool,
    /// Why the bytes mean nothing, if they do not.
    pub(super) fault: Option<Fault>,
}

/// Knows where inodes are.
pub(super) trait List {
    /// Adds the inodes from `number` on to `spans`, ascending, until one does not fit, none is left, or enough was looked at.
    /// Returns the first number not looked at; `None` when there is none. Without effect when it fails.
    fn list(
        &mut self,
        device: &mut dyn BlockDevice,
        number: u64,
        spans: &mut Spans,
    ) -> Result<Option<u64>, VolumeFault>;
}

/// Where the inodes of a piece are.
#[derive(Debug)]
pub(super) struct Spans {
    inode_bytes: usize,
    spans: Vec<Span>,
    used: usize,
    /// Number that the list was begun at.
    from: u64,
    /// First number not looked at.
    next: Option<u64>,
}

impl Spans {
    fn new(inode_bytes: usize) -> Spans {
        Spans { inode_bytes, spans: Vec::new(), used: 0, from: 0, next: None }
    }

    fn clear(&mut self) {
        self.spans.clear();
        self.used = 0;
        self.next = None;
    }

    /// Makes the list anew.
    fn list(
        &mut self,
        list: &mut dyn List,
        device: &mut dyn BlockDevice,
        number: u64,
    ) -> Result<(), VolumeFault> {
        self.clear();
        self.from = number;
        match list.list(device, number, self) {
            Ok(next) => self.next = next,
            Err(fault) => {
                self.clear();
                return Err(fault);
            }
        }
        Ok(())
    }

    /// Where in the piece inodes at this place of the device go: behind the last ones and the gap, if that is worth reading over.
    fn place(&self, device: u64) -> usize {
        let gap = self.spans.last().and_then(|last| {
            device.checked_sub(last.device + u64::from(last.count) * self.inode_bytes as u64)
        });
        self.used + gap.filter(|&gap| gap <= GAP_BYTES).map_or(0, |gap| gap as usize)
    }

    /// Inodes that still fit, when they are at this place of the device.
    pub(super) fn room(&self, device: u64) -> u32 {
        (PIECE_BYTES.saturating_sub(self.place(device)) / self.inode_bytes) as u32
    }

    /// Adds `count` inodes (at most `room`). Bit i of `free` set = the i-th is free; those from the 65th on never are.
    pub(super) fn push(&mut self, first: u64, count: u32, device: u64, free: u64) {
        let at = self.place(device);
        self.spans.push(Span { first, count, at, device, free });
        self.used = at + count as usize * self.inode_bytes;
    }

    /// The reads: bytes of the piece and where they are on the device. Spans whose distance there is that in the piece are one.
    fn reads(&self) -> impl Iterator<Item = (Range<usize>, u64)> + '_ {
        let mut rest = &self.spans[..];
        std::iter::from_fn(move || {
            let first = *rest.first()?;
            let together =
                |span: &&Span| span.device.wrapping_sub(first.device) == (span.at - first.at) as u64;
            let (now, later) = rest.split_at(rest.iter().take_while(together).count().max(1));
            rest = later;
            let end = now.last().map_or(first.at, |last| last.at + last.count as usize * self.inode_bytes);
            Some((first.at..end, first.device))
        })
    }
}

/// A piece in memory.
struct Piece {
    spans: Spans,
    /// The reads that brought it: their bytes of the piece, and where they are on the device.
    reads: Vec<(Range<usize>, u64)>,
    bytes: Vec<u8>,
    bad: Vec<Bad>,
}

impl Piece {
    fn new(inode_bytes: usize) -> Piece {
        Piece { spans: Spans::new(inode_bytes), reads: Vec::new(), bytes: Vec::new(), bad: Vec::new() }
    }

    /// The inode `number`, if it is in the piece.
    fn get(&self, number: u64) -> Option<Raw<'_>> {
        let inside = |span: &&Span| span.first <= number && number - span.first < u64::from(span.count);
        let span = self.spans.spans.iter().find(inside)?;
        let index = number - span.first;
        let skip = index as usize * self.spans.inode_bytes;
        let at = span.at + skip;
        let end = at + self.spans.inode_bytes;
        let bad = self.bad.iter().find(|bad| bad.from < end && at < bad.to);
        Some(Raw {
            bytes: self.bytes.get(at..end)?,
            device: span.device + skip as u64,
            is_free: is_free(span, index as u32),
            fault: bad.map(|bad| bad.fault),
        })
    }

    /// What is at these bytes of the device, if the piece has it: the gaps between inodes hold other blocks.
    fn at(&self, device: u64, len: usize) -> Option<&[u8]> {
        let holds = |(range, place): &&(Range<usize>, u64)| {
            device.checked_sub(*place).is_some_and(|skip| skip + len as u64 <= range.len() as u64)
        };
        let (range, place) = self.reads.iter().find(holds)?;
        let at = range.start + (device - place) as usize;
        let is_bad = self.bad.iter().any(|bad| bad.from < at + len && at < bad.to);
        self.bytes.get(at..at + len).filter(|_| !is_bad)
    }

    /// The numbers of inodes in use from `number` on.
    fn numbers(&self, number: u64) -> impl Iterator<Item = u64> + '_ {
        self.spans.spans.iter().flat_map(move |span| {
            let skip = number.saturating_sub(span.first).min(u64::from(span.count)) as u32;
            (skip..span.count).filter(|&i| !is_free(span, i)).map(|i| span.first + u64::from(i))
        })
    }

    /// Reads what the spans list. A failure that is not the medium's empties the piece: nothing half read stays behind.
    fn read(&mut self, device: &mut dyn BlockDevice, block_bytes: usize) -> Result<(), VolumeFault> {
        self.bad.clear();
        self.reads.clear();
        self.reads.extend(self.spans.reads());
        self.bytes.resize(self.spans.used, 0);
        let read = self.read_spans(device, block_bytes);
        if read.is_err() {
            self.spans.clear();
            self.reads.clear();
        }
        read
    }

    fn read_spans(&mut self, device: &mut dyn BlockDevice, block_bytes: usize) -> Result<(), VolumeFault> {
        for (range, place) in &self.reads {
            let place = *place;
            let Err(fault) = device.read_at(place, &mut self.bytes[range.clone()]) else { continue };
            if fault.kind != FaultKind::Media {
                return Err(fault.into());
            }
            let mut at = range.start;
            while at < range.end {
                // Up to the next block boundary of the device.
                let place = place + (at - range.start) as u64;
                let step = block_bytes - (place as usize & (block_bytes - 1));
                let to = range.end.min(at + step);
                if let Err(fault) = device.read_at(place, &mut self.bytes[at..to]) {
                    self.bad.push(Bad { from: at, to, fault });
                }
                at = to;
            }
        }
        Ok(())
    }
}

/// The piece at hand, and the two behind it.
pub(super) struct Pieces {
    block_bytes: usize,
    now: Piece,
    next: Piece,
    after: Spans,
    /// Whether `next` is a list that was read, and `after` a list.
    has_next: bool,
    has_after: bool,
    fills: u64,
}

impl Pieces {
    /// Nothing at hand. A read that fails is tried again in steps of `block_bytes`.
    pub(super) fn new(inode_bytes: usize, block_bytes: usize) -> Pieces {
        Pieces {
            block_bytes,
            now: Piece::new(inode_bytes),
            next: Piece::new(inode_bytes),
            after: Spans::new(inode_bytes),
            has_next: false,
            has_after: false,
            fills: 0,
        }
    }

    /// Pieces read so far.
    pub(super) fn fills(&self) -> u64 {
        self.fills
    }

    /// End of the numbers in the piece.
    pub(super) fn end(&self) -> u64 {
        self.now.spans.spans.last().map_or(0, |span| span.first + u64::from(span.count))
    }

    /// Finds the first inode that exists from `number` on.
    pub(super) fn seek(
        &mut self,
        list: &mut dyn List,
        device: &mut dyn BlockDevice,
        number: u64,
    ) -> Result<Seek, VolumeFault> {
        let Spans { spans, next, .. } = &self.now.spans;
        let inside = spans.first().is_some_and(|first| first.first <= number);
        if inside && let Some(span) = spans.iter().find(|span| number < span.first + u64::from(span.count)) {
            return Ok(Seek::At(number.max(span.first)));
        }
        // Behind the piece comes what the list did not look at; numbers between the two do not exist.
        let follows = *next == Some(number) || (!spans.is_empty() && number == self.end());
        let from = match *next {
            Some(next) if follows => next,
            None if follows => return Ok(Seek::End),
            _ => number,
        };
        self.fill(list, device, from)?;
        let Spans { spans, next, .. } = &self.now.spans;
        Ok(match (spans.first(), *next) {
            (Some(span), _) => Seek::At(number.max(span.first)),
            (None, Some(next)) => Seek::Paused(next),
            (None, None) => Seek::End,
        })
    }

    /// The inode `number`, if it is in the piece.
    pub(super) fn get(&self, number: u64) -> Option<Raw<'_>> {
        self.now.get(number)
    }

    /// The numbers of inodes in use in the piece from `number` on.
    pub(super) fn numbers(&self, number: u64) -> impl Iterator<Item = u64> + '_ {
        self.now.numbers(number)
    }

    /// What is at these bytes of the device, if a piece in memory has it.
    pub(super) fn at(&self, device: u64, len: usize) -> Option<&[u8]> {
        let next = self.has_next.then_some(&self.next);
        [Some(&self.now), next].into_iter().flatten().find_map(|piece| piece.at(device, len))
    }

    /// The inodes in use in the next piece, when it is here: numbers and bytes.
    pub(super) fn next_inodes(&self) -> impl Iterator<Item = (u64, Raw<'_>)> + '_ {
        let numbers = self.has_next.then(|| self.next.numbers(0));
        numbers.into_iter().flatten().filter_map(|number| Some((number, self.next.get(number)?)))
    }

    /// Makes the piece that starts with the first inode that exists from `number` on the one at hand, reads the one behind it, and
    /// has the device begin with the one after.
    fn fill(
        &mut self,
        list: &mut dyn List,
        device: &mut dyn BlockDevice,
        number: u64,
    ) -> Result<(), VolumeFault> {
        self.fills += 1;
        if std::mem::take(&mut self.has_next) && self.next.spans.from == number {
            std::mem::swap(&mut self.now, &mut self.next);
        } else {
            self.has_after = false;
            self.now.spans.list(list, device, number)?;
            hint(&self.now.spans, device);
            self.now.read(device, self.block_bytes)?;
        }
        let Some(second) = self.now.spans.next else { return Ok(()) };
        if std::mem::take(&mut self.has_after) && self.after.from == second {
            std::mem::swap(&mut self.next.spans, &mut self.after);
        } else if self.next.spans.list(list, device, second).is_ok() {
            hint(&self.next.spans, device);
        } else {
            return Ok(());
        }
        if let Some(third) = self.next.spans.next {
            self.has_after = self.after.list(list, device, third).is_ok();
            hint(&self.after, device);
        }
        self.has_next = self.next.read(device, self.block_bytes).is_ok();
        Ok(())
    }
}

/// Tells the device that a piece will be asked for.
fn hint(spans: &Spans, device: &mut dyn BlockDevice) {
    let ranges: Vec<_> = spans.reads().map(|(bytes, device)| device..device + bytes.len() as u64).collect();
    // An empty list would say that nothing more comes.
    if !ranges.is_empty() {
        device.read_ahead(&ranges);
    }
}

fn is_free(span: &Span, index: u32) -> bool {
    span.free.checked_shr(index).unwrap_or(0) & 1 != 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::disk::{DiskConfig, Media, MediaConfig};

    /// Bytes of an inode and of a block of the device.
    const UNIT: u64 = 512;
    /// Inodes 0..8 at block 8, and 8..16 at block 24: eight blocks of something else lie between.
    const SPANS: [(u64, u64); 2] = [(0, 8), (8, 24)];

    struct Two;

    impl List for Two {
        fn list(
            &mut self,
            _: &mut dyn BlockDevice,
            number: u64,
            spans: &mut Spans,
        ) -> Result<Option<u64>, VolumeFault> {
            for (first, block) in SPANS.iter().filter(|(first, _)| *first >= number) {
                spans.push(*first, 8, block * UNIT, 0);
            }
            Ok(None)
        }
    }

    /// Pieces over a device each of whose blocks holds its number, but for `bad`.
    fn over(bad: &[u64]) -> Pieces {
        let media = Media::new(MediaConfig {
            name: "pieces".to_owned(),
            size_bytes: 64 * UNIT,
            logical_block_bytes: UNIT as u32,
            can_discard: false,
            seed: 1,
        });
        (0..64).for_each(|block| media.load(block * UNIT, &[block as u8; UNIT as usize]));
        bad.iter().for_each(|block| media.fail(block * UNIT..(block + 1) * UNIT));
        let config = DiskConfig { write: false, queue_depth: 4, latency_steps_max: 0, seed: 1 };
        let mut pieces = Pieces::new(UNIT as usize, UNIT as usize);
        assert_eq!(pieces.seek(&mut Two, &mut media.open(config), 0), Ok(Seek::At(0)));
        pieces
    }

    #[test]
    fn inodes_and_what_lies_between_them_are_one_read() {
        let pieces = over(&[]);
        assert_eq!(pieces.now.reads, [(0..24 * UNIT as usize, 8 * UNIT)]);
        for block in 8..32 {
            assert_eq!(pieces.at(block * UNIT, UNIT as usize), Some(&[block as u8; UNIT as usize][..]));
        }
        assert!(
            pieces.at(7 * UNIT, UNIT as usize).is_none() && pieces.at(31 * UNIT + 1, UNIT as usize).is_none()
        );
        assert_eq!(pieces.numbers(3).collect::<Vec<_>>(), (3..16).collect::<Vec<_>>());
    }

    #[test]
    fn a_bad_block_costs_the_inodes_in_it_or_what_lies_between_and_nothing_else() {
        // One among inodes (number 2), one in the gap.
        let pieces = over(&[10, 20]);
        for number in 0..16 {
            let (first, block) = SPANS[usize::from(number >= 8)];
            let raw = pieces.get(number).unwrap();
            assert_eq!(raw.fault.is_some(), number == 2, "inode {number}");
            assert!(number == 2 || raw.bytes.iter().all(|&byte| u64::from(byte) == block + number - first));
        }
        for block in 8..32 {
            let found = pieces.at(block * UNIT, UNIT as usize);
            assert_eq!(found.is_none(), [10, 20].contains(&block), "block {block}");
        }
        assert!(pieces.at(19 * UNIT, 2 * UNIT as usize).is_none(), "half of it");
    }
}
