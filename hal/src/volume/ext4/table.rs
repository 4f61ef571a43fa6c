//! Inode tables, read in large pieces.
//!
//! A piece holds the touched inodes of as many groups as fit 1 MiB. Tables of neighbouring groups (flex_bg puts 16 side by
//! side) become one read where the untouched inodes between them are few.
//!
//! ```text
//!  piece   [ group 3: inodes 1..5000 ][gap][ group 4: inodes 1..900 ]      one read
//!  spans     first, count, at, device        first, count, at, device
//! ```
//!
//! Invariants: inodes that a group's descriptor calls untouched are never read. A piece that fails to read is tried again
//! block by block, so a bad sector costs the inodes in it and no others.
//!
//! Source: ours.

use super::group::Groups;
use super::superblock::Superblock;
use crate::block::{BlockDevice, Fault, FaultKind};
use crate::volume::VolumeFault;
use crate::volume::cache::{GAP_BYTES, READ_BYTES};

/// Groups looked at in one go when they hold nothing.
const GROUPS_PER_LOOK_MAX: u32 = 1024;

/// Inodes in a row, in the piece and on the device.
#[derive(Clone, Copy, Debug)]
struct Span {
    first: u32,
    count: u32,
    at: usize,
    device: u64,
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
    /// This is the next touched inode, and it is in the piece.
    At(u32),
    /// None up to here; go on from this one.
    Paused(u32),
    /// No inode is left.
    End,
}

/// The piece at hand.
pub(super) struct Tables {
    piece: Vec<u8>,
    spans: Vec<Span>,
    bad: Vec<Bad>,
    fills: u64,
}

/// One inode of the piece.
pub(super) struct Raw<'a> {
    pub(super) bytes: &'a [u8],
    /// Place on the device.
    pub(super) device: u64,
    /// Why the bytes mean nothing, if they do not.
    pub(super) fault: Option<Fault>,
}

impl Tables {
    /// Nothing at hand.
    pub(super) fn new() -> Tables {
        Tables { piece: Vec::new(), spans: Vec::new(), bad: Vec::new(), fills: 0 }
    }

    /// Pieces read so far.
    pub(super) fn fills(&self) -> u64 {
        self.fills
    }

    /// End of the numbers in the piece.
    pub(super) fn end(&self) -> u32 {
        self.spans.last().map_or(0, |span| span.first + span.count)
    }

    /// Finds the first touched inode from `number` on.
    pub(super) fn seek(
        &mut self,
        sb: &Superblock,
        groups: &mut Groups,
        device: &mut dyn BlockDevice,
        number: u32,
    ) -> Result<Seek, VolumeFault> {
        if number > sb.inodes_count {
            return Ok(Seek::End);
        }
        let inside = self.spans.first().is_some_and(|first| first.first <= number);
        if inside && let Some(span) = self.spans.iter().find(|span| number < span.first + span.count) {
            return Ok(Seek::At(number.max(span.first)));
        }
        let next = self.fill(sb, groups, device, number)?;
        Ok(match self.spans.first() {
            Some(span) => Seek::At(span.first),
            None if next > u64::from(sb.inodes_count) => Seek::End,
            None => Seek::Paused(next as u32),
        })
    }

    /// The inode `number`, if it is in the piece.
    pub(super) fn get(&self, sb: &Superblock, number: u32) -> Option<Raw<'_>> {
        let span = self.spans.iter().find(|span| span.first <= number && number < span.first + span.count)?;
        let skip = (number - span.first) as usize * sb.inode_bytes;
        let at = span.at + skip;
        let end = at + sb.inode_bytes;
        let bad = self.bad.iter().find(|bad| bad.from < end && at < bad.to);
        Some(Raw {
            bytes: self.piece.get(at..end)?,
            device: span.device + skip as u64,
            fault: bad.map(|bad| bad.fault),
        })
    }

    /// The numbers in the piece from `number` on.
    pub(super) fn numbers(&self, number: u32) -> impl Iterator<Item = u32> + '_ {
        self.spans.iter().flat_map(move |span| span.first.max(number)..span.first + span.count)
    }

    /// Reads the piece that starts with the first touched inode from `number` on. Returns the first number not looked at.
    fn fill(
        &mut self,
        sb: &Superblock,
        groups: &mut Groups,
        device: &mut dyn BlockDevice,
        number: u32,
    ) -> Result<u64, VolumeFault> {
        self.spans.clear();
        self.bad.clear();
        self.fills += 1;
        let per_group = sb.inodes_per_group;
        let mut next = u64::from(number);
        let mut used = 0;
        for _ in 0..GROUPS_PER_LOOK_MAX {
            if next > u64::from(sb.inodes_count) {
                break;
            }
            let index = (next - 1) as u32 % per_group;
            let group = groups.get(sb, device, (next - 1) as u32 / per_group)?;
            let group_end = next + u64::from(per_group - index);
            if index >= group.inodes_touched {
                next = group_end;
                continue;
            }
            let place = sb.offset(group.inode_table) + u64::from(index) * sb.inode_bytes as u64;
            let gap = self.gap_before(sb, place).filter(|gap| used + gap + sb.inode_bytes <= READ_BYTES);
            let at = used + gap.unwrap_or(0);
            let room = READ_BYTES.saturating_sub(at) / sb.inode_bytes;
            let count = (group.inodes_touched - index).min(room as u32);
            if count == 0 {
                break;
            }
            self.spans.push(Span { first: next as u32, count, at, device: place });
            used = at + count as usize * sb.inode_bytes;
            if index + count < group.inodes_touched {
                next += u64::from(count);
                break;
            }
            next = group_end;
        }
        self.piece.resize(used, 0);
        self.read(sb, device)?;
        Ok(next)
    }

    /// Bytes between the last span and `place`, when they are worth reading over.
    fn gap_before(&self, sb: &Superblock, place: u64) -> Option<usize> {
        let last = self.spans.last()?;
        let end = last.device + u64::from(last.count) * sb.inode_bytes as u64;
        place.checked_sub(end).filter(|&gap| gap <= GAP_BYTES).map(|gap| gap as usize)
    }

    /// Reads the spans: those whose distance on the device is that in the piece in one go.
    fn read(&mut self, sb: &Superblock, device: &mut dyn BlockDevice) -> Result<(), VolumeFault> {
        let mut i = 0;
        while let Some(&first) = self.spans.get(i) {
            let together =
                |span: &&Span| span.device.wrapping_sub(first.device) == (span.at - first.at) as u64;
            let run = self.spans[i..].iter().take_while(together).count().max(1);
            i += run;
            let last = self.spans[i - 1];
            let end = last.at + last.count as usize * sb.inode_bytes;
            let Err(fault) = device.read_at(first.device, &mut self.piece[first.at..end]) else { continue };
            if fault.kind != FaultKind::Media {
                return Err(fault.into());
            }
            let mut at = first.at;
            while at < end {
                // Up to the next block boundary of the device.
                let place = first.device + (at - first.at) as u64;
                let step = sb.block_bytes() - (place as usize & (sb.block_bytes() - 1));
                let to = end.min(at + step);
                if let Err(fault) = device.read_at(place, &mut self.piece[at..to]) {
                    self.bad.push(Bad { from: at, to, fault });
                }
                at = to;
            }
        }
        Ok(())
    }
}
