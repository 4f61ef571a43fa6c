//! Inodes: chunks of 64 that the inode tree of each group lists, read in large pieces.
//!
//! ```text
//!  record of the inode tree
//!  0  4  first inode in the group, a multiple of 64 where a block holds no more
//!  4  2  holes: bit i set = inodes 4i..4i+4 do not exist     without the sparse feature: 4 4 free inodes
//!  6  1  inodes that exist
//!  7  1  free inodes
//!  8  8  bit i set = inode i is free (or does not exist)
//! ```
//!
//! A piece holds the inodes of as many chunks as fit 1 MiB: chunks of a group mostly lie near each other, and those at most
//! 64 KiB apart become one read.
//!
//! ```text
//!  piece   [ chunk: inodes 128..192 ][gap][ chunk: 256..288 ]      one read
//!  spans     first, count, at, device       first, count, at, device
//! ```
//!
//! Invariants: a chunk in which every inode is free, and holes, are never read. A piece that fails to read is tried again block by
//! block, so a bad sector costs the inodes in it and no others. A broken tree ends the sweep with its name: like ext4's group
//! descriptors it is the spine, and nobody could say what is missing.
//!
//! Source: kernel `fs/xfs/libxfs/xfs_format.h` (`xfs_inobt_rec`), `xfs_inobt_check_irec`.

use super::btree::{self, INODES, Leaf};
use super::field::{u8_at, u16_at, u32_at, u64_at};
use super::group::{self, Root};
use super::superblock::Superblock;
use crate::block::{BlockDevice, Fault, FaultKind};
use crate::volume::VolumeFault;
use crate::volume::cache::{Cache, GAP_BYTES, READ_BYTES};

const RECORD_BYTES: usize = 16;
/// Inodes in a chunk.
const CHUNK_INODES: u32 = 64;
/// Inodes that one bit of the mask of holes stands for.
const HOLE_INODES: u32 = 4;
/// Groups and leaves looked at in one go when they hold nothing.
const LOOKS_MAX: u32 = 1024;

/// One record, checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Chunk {
    first: u32,
    holes: u16,
    free: u64,
}

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
    /// Whether the inode tree says that it is free.
    pub(super) is_free: bool,
    /// Why the bytes mean nothing, if they do not.
    pub(super) fault: Option<Fault>,
}

/// The piece at hand.
pub(super) struct Chunks {
    piece: Vec<u8>,
    spans: Vec<Span>,
    bad: Vec<Bad>,
    fills: u64,
    root: Option<Root>,
    leaf: Leaf,
    /// First number that the last fill did not look at, if any is left.
    next: Option<u64>,
    /// Inodes of the group at hand that its leaves hold so far, when they were all looked at.
    seen: Option<u64>,
}

impl Chunk {
    /// Decodes and checks a record of `group`.
    fn parse(sb: &Superblock, group: u32, record: &[u8]) -> Result<Chunk, &'static str> {
        let (first, free) = (u32_at(record, 0), u64_at(record, 8));
        let (holes, count, free_count) = match sb.has_sparse_inodes() {
            true => (u16_at(record, 4), u32::from(u8_at(record, 6)), u32::from(u8_at(record, 7))),
            false => (0, CHUNK_INODES, u32_at(record, 4)),
        };
        let exists = !hole_inodes(holes);
        if !first.is_multiple_of(CHUNK_INODES.min(1 << sb.inodes_per_block_bits)) {
            return Err("has a chunk that starts within a block");
        }
        if count != exists.count_ones() || free_count != (free & exists).count_ones() {
            return Err("has a chunk whose counts do not match");
        }
        let last = u64::from(first) + u64::from(CHUNK_INODES - 1);
        let inside = |index: u64| sb.inode_place(group, index).is_some();
        // A sparse chunk may reach behind the end of the group with its holes.
        if !inside(u64::from(first)) && holes & 1 == 0 || !inside(last) && holes >> 15 == 0 {
            return Err("has a chunk outside the group");
        }
        Ok(Chunk { first, holes, free })
    }

    /// The rows of inodes that exist and are not all free: (index of the first, count).
    fn rows(self) -> impl Iterator<Item = (u32, u32)> {
        let exists = !hole_inodes(self.holes);
        let mut at = 0;
        std::iter::from_fn(move || {
            while at < CHUNK_INODES {
                let rest = exists >> at;
                if rest & 1 == 0 {
                    at += rest.trailing_zeros().min(CHUNK_INODES - at);
                    continue;
                }
                let count = rest.trailing_ones().min(CHUNK_INODES - at);
                let row = (at, count);
                at += count;
                if self.free_of(row) != mask(count) {
                    return Some(row);
                }
            }
            None
        })
    }

    /// Free bits of a row, the first inode's lowest.
    fn free_of(self, (index, count): (u32, u32)) -> u64 {
        self.free >> index & mask(count)
    }
}

/// `count` (1..=64) low bits.
fn mask(count: u32) -> u64 {
    u64::MAX >> (CHUNK_INODES - count.clamp(1, CHUNK_INODES))
}

/// The inodes that a mask of holes stands for.
fn hole_inodes(holes: u16) -> u64 {
    (0..16).filter(|bit| holes >> bit & 1 != 0).map(|bit| 0xFu64 << (bit * HOLE_INODES)).sum()
}

impl Chunks {
    /// Nothing at hand.
    pub(super) fn new() -> Chunks {
        Chunks {
            piece: Vec::new(),
            spans: Vec::new(),
            bad: Vec::new(),
            fills: 0,
            root: None,
            leaf: Leaf::default(),
            next: None,
            seen: None,
        }
    }

    /// Pieces read so far.
    pub(super) fn fills(&self) -> u64 {
        self.fills
    }

    /// End of the numbers in the piece.
    pub(super) fn end(&self) -> u64 {
        self.spans.last().map_or(0, |span| span.first + u64::from(span.count))
    }

    /// Finds the first inode that exists from `number` on.
    pub(super) fn seek(
        &mut self,
        sb: &Superblock,
        device: &mut dyn BlockDevice,
        cache: &mut Cache,
        number: u64,
    ) -> Result<Seek, VolumeFault> {
        let inside = self.spans.first().is_some_and(|first| first.first <= number);
        if inside
            && let Some(span) = self.spans.iter().find(|span| number < span.first + u64::from(span.count))
        {
            return Ok(Seek::At(number.max(span.first)));
        }
        // Behind the piece comes what the fill did not look at; numbers between the two do not exist.
        let follows = self.next == Some(number) || (!self.spans.is_empty() && number == self.end());
        let from = match self.next {
            Some(next) if follows => next,
            None if follows => return Ok(Seek::End),
            _ => {
                self.seen = None;
                number
            }
        };
        self.next = match self.fill(sb, device, cache, from) {
            Ok(next) => next,
            Err(fault) => {
                // Nothing half filled stays behind.
                self.spans.clear();
                self.next = None;
                return Err(fault);
            }
        };
        Ok(match (self.spans.first(), self.next) {
            (Some(span), _) => Seek::At(number.max(span.first)),
            (None, Some(next)) => Seek::Paused(next),
            (None, None) => Seek::End,
        })
    }

    /// The inode `number`, if it is in the piece.
    pub(super) fn get(&self, sb: &Superblock, number: u64) -> Option<Raw<'_>> {
        let inside = |span: &&Span| span.first <= number && number - span.first < u64::from(span.count);
        let span = self.spans.iter().find(inside)?;
        let index = number - span.first;
        let skip = (index as usize) << sb.inode_bits;
        let at = span.at + skip;
        let end = at + sb.inode_bytes();
        let bad = self.bad.iter().find(|bad| bad.from < end && at < bad.to);
        Some(Raw {
            bytes: self.piece.get(at..end)?,
            device: span.device + skip as u64,
            is_free: span.free >> index & 1 != 0,
            fault: bad.map(|bad| bad.fault),
        })
    }

    /// The numbers of inodes in use in the piece from `number` on.
    pub(super) fn numbers(&self, number: u64) -> impl Iterator<Item = u64> + '_ {
        self.spans.iter().flat_map(move |span| {
            let used = (0..span.count).filter(|i| span.free >> i & 1 == 0);
            used.map(|i| span.first + u64::from(i)).filter(move |&found| found >= number)
        })
    }

    /// Reads the piece that starts with the first inode that exists from `number` on. Returns the first number not looked at;
    /// `None` when there is none.
    fn fill(
        &mut self,
        sb: &Superblock,
        device: &mut dyn BlockDevice,
        cache: &mut Cache,
        number: u64,
    ) -> Result<Option<u64>, VolumeFault> {
        self.spans.clear();
        self.bad.clear();
        self.fills += 1;
        let mut next = Some(number);
        let mut used = 0;
        'look: for _ in 0..LOOKS_MAX {
            let Some((group, index)) = next.map(|next| sb.split_inode(next)) else { break };
            let Some(group) = u32::try_from(group).ok().filter(|&group| group < sb.groups) else {
                next = None;
                break;
            };
            if index == 0 {
                self.seen = Some(0);
            }
            let after = self.load(sb, device, cache, group, index as u32)?;
            let (mut end, mut inodes) = (0, 0);
            for record in self.leaf.records.chunks_exact(RECORD_BYTES) {
                let chunk = Chunk::parse(sb, group, record).map_err(|rule| self.damaged(group, rule))?;
                if u64::from(chunk.first) < end {
                    return Err(self.damaged(group, "has chunks that overlap"));
                }
                end = u64::from(chunk.first) + u64::from(CHUNK_INODES);
                inodes += u64::from((!hole_inodes(chunk.holes)).count_ones());
                for row in chunk.rows() {
                    let first = u64::from(chunk.first + row.0);
                    if first + u64::from(row.1) <= index {
                        continue;
                    }
                    let Some((block, byte)) = sb.inode_place(group, first) else {
                        return Err(self.damaged(group, "has a chunk outside the group"));
                    };
                    let place = sb.offset(block) + byte as u64;
                    let len = (row.1 as usize) << sb.inode_bits;
                    let gap = self.gap_before(sb, place).filter(|gap| used + gap + len <= READ_BYTES);
                    let at = used + gap.unwrap_or(0);
                    if at + len > READ_BYTES {
                        next = Some(sb.inode_number(group, first));
                        break 'look;
                    }
                    let free = chunk.free_of(row);
                    let first = sb.inode_number(group, first);
                    self.spans.push(Span { first, count: row.1, at, device: place, free });
                    used = at + len;
                }
            }
            self.seen = self.seen.map(|seen| seen + inodes);
            if after.is_none()
                && let (Some(seen), Some(root)) = (self.seen.take(), self.root)
                && seen != u64::from(root.total)
            {
                return Err(self.damaged(group, "does not hold the inodes that its header counts"));
            }
            next = match after {
                Some(index) => Some(sb.inode_number(group, u64::from(index))),
                None if group + 1 < sb.groups => Some(sb.inode_number(group + 1, 0)),
                None => None,
            };
        }
        self.piece.resize(used, 0);
        self.read(sb, device)?;
        Ok(next)
    }

    /// Makes the leaf that answers for `index` of `group` the one at hand. Returns where the next one starts.
    fn load(
        &mut self,
        sb: &Superblock,
        device: &mut dyn BlockDevice,
        cache: &mut Cache,
        group: u32,
        index: u32,
    ) -> Result<Option<u32>, VolumeFault> {
        let root = match self.root {
            Some(root) if root.group == group => root,
            _ => group::inodes(sb, device, group)?,
        };
        self.root = Some(root);
        btree::leaf(sb, device, cache, INODES, &root, index, &mut self.leaf)?;
        Ok(self.leaf.next)
    }

    /// Finds inode `number` alone: whether it is free, its block, and its byte in it. `None` when it does not exist.
    pub(super) fn find(
        &mut self,
        sb: &Superblock,
        device: &mut dyn BlockDevice,
        cache: &mut Cache,
        number: u64,
    ) -> Result<Option<(bool, u64, usize)>, VolumeFault> {
        let (group, index) = sb.split_inode(number);
        let Some(group) = u32::try_from(group).ok().filter(|&group| group < sb.groups) else {
            return Ok(None);
        };
        self.load(sb, device, cache, group, index as u32)?;
        let holds = |record: &&[u8]| {
            let first = u64::from(u32_at(record, 0));
            first <= index && index - first < u64::from(CHUNK_INODES)
        };
        let Some(record) = self.leaf.records.chunks_exact(RECORD_BYTES).find(holds) else { return Ok(None) };
        let chunk = Chunk::parse(sb, group, record).map_err(|rule| self.damaged(group, rule))?;
        let bit = 1u64 << (index - u64::from(chunk.first));
        if hole_inodes(chunk.holes) & bit != 0 {
            return Ok(None);
        }
        Ok(sb.inode_place(group, index).map(|(block, byte)| (chunk.free & bit != 0, block, byte)))
    }

    fn damaged(&self, group: u32, rule: &str) -> VolumeFault {
        VolumeFault::Damaged {
            what: format!("xfs group {group}: inode tree {rule}"),
            device_offset: self.leaf.device,
        }
    }

    /// Bytes between the last span and `place`, when they are worth reading over.
    fn gap_before(&self, sb: &Superblock, place: u64) -> Option<usize> {
        let last = self.spans.last()?;
        let end = last.device + (u64::from(last.count) << sb.inode_bits);
        place.checked_sub(end).filter(|&gap| gap <= GAP_BYTES).map(|gap| gap as usize)
    }

    /// Reads the spans: those whose distance on the device is that in the piece in one go.
    fn read(&mut self, sb: &Superblock, device: &mut dyn BlockDevice) -> Result<(), VolumeFault> {
        let mut i = 0;
        while let Some(&first) = self.spans.get(i) {
            let together =
                |span: &&Span| span.device.wrapping_sub(first.device) == (span.at - first.at) as u64;
            i += self.spans[i..].iter().take_while(together).count().max(1);
            let last = self.spans[i - 1];
            let end = last.at + ((last.count as usize) << sb.inode_bits);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_leave_holes_and_free_ones_out() {
        let rows = |holes, free| Chunk { first: 0, holes, free }.rows().collect::<Vec<_>>();
        assert_eq!(rows(0, 0), [(0, 64)]);
        assert_eq!(rows(0, u64::MAX), []);
        assert_eq!(rows(0, u64::MAX >> 1), [(0, 64)]);
        assert_eq!(rows(0xFF00, 0), [(0, 32)]);
        assert_eq!(rows(0x00FF, 0), [(32, 32)]);
        assert_eq!(rows(0x0FF0, 0xFFFF), [(48, 16)]);
        assert_eq!(rows(0xFFFF, 0), []);
    }
}
