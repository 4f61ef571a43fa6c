//! Inodes of any file system with tables or chunks of them, read in large pieces: one is looked at while the device reads the next.
//!
//! A piece holds as many inodes as fit 1 MiB. The file system lists where they are ([`List`]); those at most 64 KiB apart become
//! one read, and so do the gaps between them.
//!
//! ```text
//!  piece   [ inodes 128..192 ][gap][ inodes 256..288 ]      one read
//!  spans     first, count, at, device   first, count, at, device
//! ```
//!
//! Invariants: what is listed ahead is only a hint to the device; when the list ends in a fault, it is made again, and the fault
//! reported, when its turn comes. A piece that fails to read is tried again block by block, so a bad sector costs the inodes in
//! it and no others.
//!
//! Source: ours.

use std::ops::Range;

use super::VolumeFault;
use super::cache::GAP_BYTES;
use crate::block::{BlockDevice, Fault, FaultKind};

/// Bytes of a piece, and of the largest read.
const PIECE_BYTES: usize = 1 << 20;

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
    /// Whether the file system's index of inodes says that it is free.
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

/// The piece at hand, and the next one.
pub(super) struct Pieces {
    block_bytes: usize,
    bytes: Vec<u8>,
    now: Spans,
    later: Spans,
    /// Whether `later` is a list.
    is_ahead: bool,
    bad: Vec<Bad>,
    fills: u64,
}

impl Pieces {
    /// Nothing at hand. A read that fails is tried again in steps of `block_bytes`.
    pub(super) fn new(inode_bytes: usize, block_bytes: usize) -> Pieces {
        Pieces {
            block_bytes,
            bytes: Vec::new(),
            now: Spans::new(inode_bytes),
            later: Spans::new(inode_bytes),
            is_ahead: false,
            bad: Vec::new(),
            fills: 0,
        }
    }

    /// Pieces read so far.
    pub(super) fn fills(&self) -> u64 {
        self.fills
    }

    /// End of the numbers in the piece.
    pub(super) fn end(&self) -> u64 {
        self.now.spans.last().map_or(0, |span| span.first + u64::from(span.count))
    }

    /// Finds the first inode that exists from `number` on.
    pub(super) fn seek(
        &mut self,
        list: &mut dyn List,
        device: &mut dyn BlockDevice,
        number: u64,
    ) -> Result<Seek, VolumeFault> {
        let spans = &self.now.spans;
        let inside = spans.first().is_some_and(|first| first.first <= number);
        if inside && let Some(span) = spans.iter().find(|span| number < span.first + u64::from(span.count)) {
            return Ok(Seek::At(number.max(span.first)));
        }
        // Behind the piece comes what the list did not look at; numbers between the two do not exist.
        let follows = self.now.next == Some(number) || (!spans.is_empty() && number == self.end());
        let from = match self.now.next {
            Some(next) if follows => next,
            None if follows => return Ok(Seek::End),
            _ => number,
        };
        self.fill(list, device, from)?;
        Ok(match (self.now.spans.first(), self.now.next) {
            (Some(span), _) => Seek::At(number.max(span.first)),
            (None, Some(next)) => Seek::Paused(next),
            (None, None) => Seek::End,
        })
    }

    /// The inode `number`, if it is in the piece.
    pub(super) fn get(&self, number: u64) -> Option<Raw<'_>> {
        let inside = |span: &&Span| span.first <= number && number - span.first < u64::from(span.count);
        let span = self.now.spans.iter().find(inside)?;
        let index = number - span.first;
        let skip = index as usize * self.now.inode_bytes;
        let at = span.at + skip;
        let end = at + self.now.inode_bytes;
        let bad = self.bad.iter().find(|bad| bad.from < end && at < bad.to);
        Some(Raw {
            bytes: self.bytes.get(at..end)?,
            device: span.device + skip as u64,
            is_free: is_free(span, index as u32),
            fault: bad.map(|bad| bad.fault),
        })
    }

    /// The numbers of inodes in use in the piece from `number` on.
    pub(super) fn numbers(&self, number: u64) -> impl Iterator<Item = u64> + '_ {
        self.now.spans.iter().flat_map(move |span| {
            let skip = number.saturating_sub(span.first).min(u64::from(span.count)) as u32;
            (skip..span.count).filter(|&i| !is_free(span, i)).map(|i| span.first + u64::from(i))
        })
    }

    /// Reads the piece that starts with the first inode that exists from `number` on, and lists the one behind it.
    fn fill(
        &mut self,
        list: &mut dyn List,
        device: &mut dyn BlockDevice,
        number: u64,
    ) -> Result<(), VolumeFault> {
        self.bad.clear();
        self.fills += 1;
        if std::mem::take(&mut self.is_ahead) && self.later.from == number {
            std::mem::swap(&mut self.now, &mut self.later);
        } else {
            self.now.list(list, device, number)?;
        }
        if let Some(next) = self.now.next {
            self.is_ahead = self.later.list(list, device, next).is_ok();
        }
        hint(&self.now, device);
        self.bytes.resize(self.now.used, 0);
        let read = self.read(device);
        if read.is_err() {
            // Nothing half read stays behind.
            self.now.clear();
        }
        read
    }

    /// Has the device begin with the next piece. Called when the blocks that this one needs are there: they would wait behind it.
    pub(super) fn begin_next(&self, device: &mut dyn BlockDevice) {
        if self.is_ahead {
            hint(&self.later, device);
        }
    }

    fn read(&mut self, device: &mut dyn BlockDevice) -> Result<(), VolumeFault> {
        for (range, place) in self.now.reads() {
            let Err(fault) = device.read_at(place, &mut self.bytes[range.clone()]) else { continue };
            if fault.kind != FaultKind::Media {
                return Err(fault.into());
            }
            let mut at = range.start;
            while at < range.end {
                // Up to the next block boundary of the device.
                let place = place + (at - range.start) as u64;
                let step = self.block_bytes - (place as usize & (self.block_bytes - 1));
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
