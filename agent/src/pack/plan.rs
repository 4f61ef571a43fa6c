//! The planner: blocks of a stretch of items, in logical order, to frames of sorted, merged reads with back-references.
//!
//! Input: blocks, each with the pieces of extents that hold its data. Output: blocks sorted by the device address of their
//! first piece and cut into frames, and for each frame the device ranges that fill one buffer:
//!
//! ```text
//!  device   ....[ a ][ b ]..gap..[ c ]...............[ d ]....      one frame: two reads (a..c with the gap, d)
//!  buffer   [ a ][ b ][gap][ c ][ d ]                               a piece knows its offset in the buffer
//! ```
//!
//! Rules
//! - ranges no farther apart than the plan's gap ([`super::reading`] chooses it) are read as one: a second request costs more;
//! - the sum of a frame's ranges is at most its plain size, and so is the sum of its blocks, so a block always fits, and a frame has at most
//!   [`SEGMENTS_PER_REQUEST_MAX`] ranges, unless one block alone needs more (then the block is read in several requests);
//! - a frame is `packed` when each of its blocks lies whole in the buffer and the slack between neighbours is under
//!   [`SLACK_BYTES_MAX`]: then it is compressed where it lies; else the lane copies its blocks together first.
//!
//! Pure: no I/O, no clock. Memory: 40 bytes a block, 32 a piece, in vectors that are used again.
//! Source: ours; gap and order are measured by `tests/benches/volumes`.

use std::ops::Range;

use windlass_hal::block::{SEGMENTS_PER_REQUEST_MAX, Segment};

use super::reading::GAP_BYTES;

/// Unused bytes tolerated behind a block inside a frame that is compressed in place; they are zeroed first.
pub const SLACK_BYTES_MAX: u32 = 64 << 10;
/// Most blocks planned at once. 4096 blocks of 128 KiB are 512 MiB: enough to sort, 400 KiB to remember.
pub const PLAN_BLOCKS_MAX: usize = 4096;
/// Most pieces planned at once.
pub const PLAN_PIECES_MAX: usize = 8192;

/// A block that has data on the device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlanBlock {
    /// Caller's index of the item.
    pub item: u32,
    /// Index of the block in the item.
    pub block: u64,
    /// Bytes of the block that belong to the item.
    pub len: u32,
    /// Its pieces: range of `Plan::pieces`.
    pub pieces: Range<u32>,
    /// Tag of the caller, by which it finds what the outcome belongs to.
    pub outcome: u32,
}

/// A run of a block's bytes on the device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlanPiece {
    /// First byte on the device.
    pub physical: u64,
    /// First byte within the block.
    pub within: u32,
    /// Bytes, rounded up to the file system's block: the last piece of an item may reach past `PlanBlock::len`.
    pub len: u32,
    /// Where the planner put it: byte offset in the frame's plain bytes.
    pub at: u32,
}

/// One frame: what is read into one buffer and packed together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlanFrame {
    /// Its blocks: range of `Plan::blocks`, which are sorted by now.
    pub blocks: Range<u32>,
    /// Its reads: range of `Plan::reads`.
    pub reads: Range<u32>,
    /// Plain bytes used in the buffer.
    pub bytes: u32,
    /// Whether it can be compressed where it lies.
    pub packed: bool,
}

/// Blocks, pieces, and what the planner made of them. Reused from batch to batch.
#[derive(Debug)]
pub struct Plan {
    /// Largest gap on the device that is read over, in bytes.
    pub gap_bytes: u64,
    /// Blocks; after [`Plan::arrange`], in physical order.
    pub blocks: Vec<PlanBlock>,
    /// Pieces of all blocks; those of one block are neighbours, ascending by `within`.
    pub pieces: Vec<PlanPiece>,
    /// Frames in the order in which they should be read.
    pub frames: Vec<PlanFrame>,
    /// Device ranges of all frames; buffer offsets count from the start of the frame's plain bytes.
    pub reads: Vec<Segment>,
    /// Bytes of all pieces.
    pub bytes: u64,
    /// Bytes at which the plan is full, though there is room for more blocks.
    pub bytes_max: u64,
}

impl Default for Plan {
    fn default() -> Plan {
        Plan::new(GAP_BYTES)
    }
}

impl Plan {
    /// An empty plan that reads over gaps of up to `gap_bytes`.
    pub fn new(gap_bytes: u64) -> Plan {
        Plan {
            gap_bytes,
            blocks: Vec::new(),
            pieces: Vec::new(),
            frames: Vec::new(),
            reads: Vec::new(),
            bytes: 0,
            bytes_max: u64::MAX,
        }
    }

    /// Empties it and keeps its memory.
    pub fn clear(&mut self) {
        self.blocks.clear();
        self.pieces.clear();
        self.frames.clear();
        self.reads.clear();
        self.bytes = 0;
    }

    /// Whether no further block may be added.
    pub fn is_full(&self) -> bool {
        self.blocks.len() >= PLAN_BLOCKS_MAX
            || self.pieces.len() >= PLAN_PIECES_MAX
            || self.bytes >= self.bytes_max
    }

    /// Sorts the blocks by device address and cuts them into frames of at most `frame_bytes` plain bytes.
    ///
    /// # Panics
    /// When a block alone is larger than `frame_bytes`: the caller chose both.
    pub fn arrange(&mut self, frame_bytes: usize) {
        let pieces = &self.pieces;
        self.blocks.sort_unstable_by_key(|b| (pieces[b.pieces.start as usize].physical, b.outcome));
        let mut frame = OpenFrame { gap_bytes: self.gap_bytes, ..OpenFrame::default() };
        for index in 0..self.blocks.len() {
            let range = self.blocks[index].pieces.clone();
            let pieces = &mut self.pieces[range.start as usize..range.end as usize];
            let mark = frame.mark(&self.reads);
            if !frame.add(pieces, self.blocks[index].len, &mut self.reads, frame_bytes) {
                frame.undo(mark, &mut self.reads);
                self.frames.extend(frame.close(index as u32, self.reads.len() as u32));
                let fits = frame.add(pieces, self.blocks[index].len, &mut self.reads, frame_bytes);
                assert!(fits, "a block fits an empty frame");
            }
        }
        self.frames.extend(frame.close(self.blocks.len() as u32, self.reads.len() as u32));
    }
}

/// The frame being filled.
#[derive(Default)]
struct OpenFrame {
    gap_bytes: u64,
    first_block: u32,
    first_read: u32,
    bytes: u32,
    /// Sum of the blocks' lengths, holes inside them included: what gathering them takes.
    plain: u32,
    /// End of the last block's own bytes, to judge slack; `None` when a block was scattered.
    packed_to: Option<u32>,
    any: bool,
}

/// What `undo` needs.
struct Mark {
    reads: usize,
    last_len: Option<u64>,
    bytes: u32,
    plain: u32,
    packed_to: Option<u32>,
    any: bool,
}

impl OpenFrame {
    fn mark(&self, reads: &[Segment]) -> Mark {
        let last_len = (reads.len() > self.first_read as usize).then(|| reads[reads.len() - 1].len);
        let OpenFrame { bytes, plain, packed_to, any, .. } = *self;
        Mark { reads: reads.len(), last_len, bytes, plain, packed_to, any }
    }

    fn undo(&mut self, mark: Mark, reads: &mut Vec<Segment>) {
        reads.truncate(mark.reads);
        if let (Some(len), Some(last)) = (mark.last_len, reads.last_mut()) {
            last.len = len;
        }
        (self.bytes, self.plain) = (mark.bytes, mark.plain);
        (self.packed_to, self.any) = (mark.packed_to, mark.any);
    }

    /// Adds a block; `false` (with `reads` to be undone) when it does not fit. An empty frame takes any block.
    fn add(
        &mut self,
        pieces: &mut [PlanPiece],
        len: u32,
        reads: &mut Vec<Segment>,
        frame_bytes: usize,
    ) -> bool {
        let alone = !self.any;
        self.plain += len;
        if !alone && self.plain as usize > frame_bytes {
            return false;
        }
        for piece in pieces.iter_mut() {
            piece.at = self.place(piece, reads);
            if !alone
                && (self.bytes as usize > frame_bytes
                    || reads.len() - self.first_read as usize > SEGMENTS_PER_REQUEST_MAX)
            {
                return false;
            }
        }
        assert!(self.bytes as usize <= frame_bytes, "pieces of one block are at most a block");
        let whole = pieces.len() == 1 && pieces[0].within == 0 && pieces[0].len >= len;
        let start = pieces[0].at;
        self.packed_to = match self.packed_to {
            _ if !whole => None,
            None if alone => Some(start + len),
            Some(to) if start >= to && start - to < SLACK_BYTES_MAX => Some(start + len),
            _ => None,
        };
        self.any = true;
        true
    }

    /// Puts one piece into the buffer: behind the last range when it is near, else as a range of its own.
    fn place(&mut self, piece: &PlanPiece, reads: &mut Vec<Segment>) -> u32 {
        if reads.len() > self.first_read as usize {
            let last_index = reads.len() - 1;
            let last = &mut reads[last_index];
            let end = last.device_offset + last.len;
            if piece.physical >= end && piece.physical - end <= self.gap_bytes && self.any {
                let grow = piece.physical - end + u64::from(piece.len);
                let at = last.buf_offset + (piece.physical - last.device_offset) as u32;
                last.len += grow;
                self.bytes += grow as u32;
                return at;
            }
            if piece.physical == end {
                let at = last.buf_offset + last.len as u32;
                last.len += u64::from(piece.len);
                self.bytes += piece.len;
                return at;
            }
        }
        let at = self.bytes;
        reads.push(Segment::new(piece.physical, at, u64::from(piece.len)));
        self.bytes += piece.len;
        at
    }

    fn close(&mut self, next_block: u32, next_read: u32) -> Option<PlanFrame> {
        let frame = self.any.then(|| PlanFrame {
            blocks: self.first_block..next_block,
            reads: self.first_read..next_read,
            bytes: self.bytes,
            packed: self.packed_to.is_some(),
        });
        let gap_bytes = self.gap_bytes;
        *self =
            OpenFrame { gap_bytes, first_block: next_block, first_read: next_read, ..OpenFrame::default() };
        frame
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Adds a block of the given (physical, within, len) pieces.
    fn push(plan: &mut Plan, outcome: u32, len: u32, pieces: &[(u64, u32, u32)]) {
        let start = plan.pieces.len() as u32;
        plan.pieces.extend(pieces.iter().map(|&(physical, within, len)| PlanPiece {
            physical,
            within,
            len,
            at: 0,
        }));
        let pieces = start..plan.pieces.len() as u32;
        plan.blocks.push(PlanBlock { item: 0, block: u64::from(outcome), len, pieces, outcome });
    }

    #[test]
    fn neighbours_in_any_order_become_one_read() {
        let mut plan = Plan::default();
        push(&mut plan, 0, 4096, &[(8192, 0, 4096)]);
        push(&mut plan, 1, 100, &[(0, 0, 4096)]);
        push(&mut plan, 2, 4096, &[(4096, 0, 4096)]);
        plan.arrange(1 << 19);
        assert_eq!(plan.reads, [Segment::new(0, 0, 12288)]);
        assert_eq!(plan.frames, [PlanFrame { blocks: 0..3, reads: 0..1, bytes: 12288, packed: true }]);
        assert_eq!(plan.blocks.iter().map(|b| b.outcome).collect::<Vec<_>>(), [1, 2, 0]);
    }

    #[test]
    fn a_gap_is_read_over_up_to_its_limit() {
        for (gap, reads) in [(40_960, 1), (45_056, 2)] {
            let mut plan = Plan::new(40_960);
            push(&mut plan, 0, 4096, &[(0, 0, 4096)]);
            push(&mut plan, 1, 4096, &[(4096 + gap, 0, 4096)]);
            plan.arrange(1 << 19);
            assert_eq!(plan.reads.len(), reads, "gap {gap}");
            assert_eq!(plan.frames.len(), 1);
        }
    }

    #[test]
    fn a_frame_ends_where_the_next_block_would_not_fit() {
        let mut plan = Plan::default();
        for block in 0..5 {
            push(&mut plan, block, 131072, &[(u64::from(block) * 131072, 0, 131072)]);
        }
        plan.arrange(1 << 19);
        assert_eq!(plan.frames.len(), 2);
        assert_eq!(plan.frames[0].bytes, 1 << 19);
        assert_eq!(plan.frames[1], PlanFrame { blocks: 4..5, reads: 1..2, bytes: 131072, packed: true });
        assert_eq!(plan.reads[1], Segment::new(4 * 131072, 0, 131072));
    }

    #[test]
    fn scattered_blocks_are_not_packed_and_every_piece_keeps_its_bytes() {
        let mut plan = Plan::default();
        push(&mut plan, 0, 12288, &[(1 << 20, 0, 4096), (9 << 20, 8192, 4096)]);
        push(&mut plan, 1, 4096, &[(5 << 20, 0, 4096)]);
        plan.arrange(1 << 19);
        assert!(!plan.frames[0].packed);
        assert_eq!(plan.pieces.iter().map(|p| p.at).collect::<Vec<_>>(), [0, 4096, 8192]);
        assert_eq!(plan.reads.len(), 3);
    }

    #[test]
    fn any_plan_reads_each_piece_exactly_where_it_says() {
        let mut random = 0x9E37_79B9_7F4A_7C15u64;
        let mut draw = |n: u64| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random % n
        };
        for _ in 0..200 {
            let mut plan = Plan::default();
            for outcome in 0..draw(300) as u32 {
                let count = 1 + draw(4) as u32;
                let pieces: Vec<_> = (0..count)
                    .map(|i| (draw(1 << 14) * 4096, i * 32768, 4096 * (1 + draw(8) as u32)))
                    .collect();
                push(&mut plan, outcome, 131072, &pieces);
            }
            let blocks = plan.blocks.len();
            plan.arrange(1 << 19);
            assert_eq!(plan.frames.iter().map(|f| f.blocks.len()).sum::<usize>(), blocks);
            for frame in &plan.frames {
                let reads = &plan.reads[frame.reads.start as usize..frame.reads.end as usize];
                let blocks = &plan.blocks[frame.blocks.start as usize..frame.blocks.end as usize];
                assert!(blocks.iter().map(|b| b.len).sum::<u32>() <= 1 << 19);
                assert!(frame.bytes <= 1 << 19 && reads.len() <= SEGMENTS_PER_REQUEST_MAX);
                assert_eq!(reads.iter().map(|r| r.len).sum::<u64>(), u64::from(frame.bytes));
                for block in &plan.blocks[frame.blocks.start as usize..frame.blocks.end as usize] {
                    for piece in &plan.pieces[block.pieces.start as usize..block.pieces.end as usize] {
                        let read = reads.iter().rfind(|r| {
                            r.buf_offset <= piece.at && piece.at + piece.len <= r.buf_offset + r.len as u32
                        });
                        let read = read.expect("some read covers the piece");
                        assert_eq!(
                            read.device_offset + u64::from(piece.at - read.buf_offset),
                            piece.physical
                        );
                    }
                }
            }
        }
    }
}
