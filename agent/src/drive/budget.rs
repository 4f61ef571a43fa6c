//! The memory budget: one number in, the sizes of all pools out, before anything is allocated (P3).
//!
//! ```text
//!  budget = program and stacks + windows, batches, rows + lanes + frames + pieces
//!           BASE_BYTES           ROWS_BYTES              LANE    F x frame  P x 256 KiB
//! ```
//!
//! Objects that do not fit twice (one filling, one on its way) are made smaller: the object size of the policy is what is aimed
//! at, and the budget is what holds. Pure. Source: ours; the sums are measured by the footprint test.

use std::fmt;

use crate::pack::object::PIECE_BYTES;
use crate::pack::{OBJECT_BYTES_MIN, frame_buf_bytes};
use crate::units::format_bytes;
use crate::worker::backup::KEEP_PIECES;

/// Budget in bytes when none is given.
pub const MEMORY_BYTES_DEFAULT: u64 = 64 << 20;
/// What the program needs before it does anything, in bytes: its pages, the allocator's slack, stacks, TLS.
const BASE_BYTES: u64 = 8 << 20;
/// Windows, batches, row builders, and the table reader's caches, in bytes.
const ROWS_BYTES: u64 = 6 << 20;
/// What a lane owns besides its scratch, in bytes: zstd's tables at level 1.
const LANE_BYTES: u64 = 1 << 20;
/// Budget in bytes above which some is left for what grows with threads and pools: allocator arenas, page tables, caches.
const SLACK_FROM_BYTES: u64 = 24 << 20;
/// One part in so many of what is above.
const SLACK_PART: u64 = 10;
/// Frames in work for each lane: one packed, one waiting, and reads in flight behind them.
const FRAMES_PER_LANE: u64 = 6;
/// Fewest frames that keep a lane and the device busy at once.
const FRAMES_PER_LANE_MIN: u64 = 2;

/// Sizes of all pools.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Frame buffers.
    pub frames: usize,
    /// Pieces of objects.
    pub pieces: usize,
    /// Largest upload object in bytes.
    pub object_bytes: u32,
    /// Segment size in bytes.
    pub segment_bytes: u32,
    /// Pack lanes.
    pub lanes: usize,
    /// Entries in the table of known blocks.
    pub known_blocks: usize,
}

/// A part of a budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line {
    /// What it is for.
    pub what: &'static str,
    /// How much of it.
    pub bytes: u64,
}

/// A budget that cannot hold the least that is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooSmall {
    /// What was given, in bytes.
    pub given: u64,
    /// What is needed at least, in bytes.
    pub needed: u64,
}

/// Below this, whoever wrote the number meant another unit.
const BYTES_MEANT_MIN: u64 = 1 << 20;

impl fmt::Display for TooSmall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "a memory budget of {} is too small: with this block size at least {} MiB are needed",
            format_bytes(self.given),
            self.needed.div_ceil(1 << 20)
        )?;
        match self.given {
            bytes if bytes < BYTES_MEANT_MIN => {
                write!(f, "; a number without a unit is bytes, write {bytes}MiB")
            }
            _ => Ok(()),
        }
    }
}

impl std::error::Error for TooSmall {}

impl Budget {
    /// Divides `memory` bytes for `cores` cores.
    pub fn plan(memory: u64, block_bytes: u32, object_bytes: u32, cores: usize) -> Result<Budget, TooSmall> {
        let frame = frame_buf_bytes(block_bytes) as u64;
        let lane = LANE_BYTES + 2 * frame;
        let keep = (KEEP_PIECES * PIECE_BYTES) as u64;
        let least = u64::from(OBJECT_BYTES_MIN) + keep + PIECE_BYTES as u64;
        let needed =
            |lanes: u64| BASE_BYTES + ROWS_BYTES + lanes * (lane + FRAMES_PER_LANE_MIN * frame) + least;
        let lanes = (1..=cores.max(1) as u64).rev().find(|&lanes| needed(lanes) <= memory);
        let Some(lanes) = lanes else { return Err(TooSmall { given: memory, needed: needed(1) }) };
        let slack = memory.saturating_sub(SLACK_FROM_BYTES) / SLACK_PART;
        let rest = memory - BASE_BYTES - ROWS_BYTES - lanes * lane - slack;
        let frames = (rest / 4 / frame).clamp(lanes * FRAMES_PER_LANE_MIN, lanes * FRAMES_PER_LANE);
        let pieces = (rest - frames * frame) / PIECE_BYTES as u64;
        let for_objects = pieces * PIECE_BYTES as u64 - keep;
        let half = (for_objects / 2).max(u64::from(OBJECT_BYTES_MIN));
        let object_bytes = u64::from(object_bytes).min(half) as u32;
        Ok(Budget {
            frames: frames as usize,
            pieces: pieces as usize,
            object_bytes,
            segment_bytes: (object_bytes / 4).min(4 << 20),
            lanes: lanes as usize,
            known_blocks: if memory >= MEMORY_BYTES_DEFAULT { 1 << 14 } else { 1 << 12 },
        })
    }

    /// What `memory` bytes are divided into, for blocks of up to `block_bytes`; the lines add up to it.
    pub fn sum(&self, memory: u64, block_bytes: u32) -> [Line; 6] {
        let frame = frame_buf_bytes(block_bytes) as u64;
        let lanes = self.lanes as u64;
        let mut lines = [
            Line { what: "program, stacks, TLS", bytes: BASE_BYTES },
            Line { what: "windows, batches, rows, table caches", bytes: ROWS_BYTES },
            Line { what: "pack lanes", bytes: lanes * (LANE_BYTES + 2 * frame) },
            Line { what: "frames: blocks between device and lane", bytes: self.frames as u64 * frame },
            Line { what: "pieces: objects being filled and sent", bytes: (self.pieces * PIECE_BYTES) as u64 },
            Line { what: "left for what grows with threads and pools", bytes: 0 },
        ];
        let used: u64 = lines.iter().map(|line| line.bytes).sum();
        lines[5].bytes = memory.saturating_sub(used);
        lines
    }

    /// What the pools will take, in bytes.
    pub fn pool_bytes(&self, block_bytes: u32) -> u64 {
        (self.frames * frame_buf_bytes(block_bytes) + self.pieces * PIECE_BYTES) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pack::{BLOCK_BYTES_DEFAULT, BLOCK_BYTES_MAX, OBJECT_BYTES_DEFAULT};

    #[test]
    fn the_default_holds_two_whole_objects() {
        let budget =
            Budget::plan(MEMORY_BYTES_DEFAULT, BLOCK_BYTES_DEFAULT, OBJECT_BYTES_DEFAULT, 2).unwrap();
        assert_eq!(budget.lanes, 2);
        assert_eq!(budget.object_bytes, OBJECT_BYTES_DEFAULT);
        assert!(budget.pool_bytes(BLOCK_BYTES_DEFAULT) + BASE_BYTES + ROWS_BYTES <= MEMORY_BYTES_DEFAULT);
    }

    #[test]
    fn the_lines_add_up_to_what_was_given() {
        for (mib, cores) in [(24, 1), (64, 2), (65, 3), (4096, 64)] {
            let memory = mib << 20;
            let budget = Budget::plan(memory, BLOCK_BYTES_DEFAULT, OBJECT_BYTES_DEFAULT, cores).unwrap();
            let lines = budget.sum(memory, BLOCK_BYTES_DEFAULT);
            assert_eq!(lines.iter().map(|line| line.bytes).sum::<u64>(), memory);
            assert_eq!(lines[3].bytes + lines[4].bytes, budget.pool_bytes(BLOCK_BYTES_DEFAULT));
        }
    }

    #[test]
    fn a_small_budget_makes_smaller_objects_and_a_smaller_one_is_refused() {
        let budget = Budget::plan(24 << 20, BLOCK_BYTES_DEFAULT, OBJECT_BYTES_DEFAULT, 2).unwrap();
        assert!(budget.object_bytes >= OBJECT_BYTES_MIN && budget.object_bytes < OBJECT_BYTES_DEFAULT);
        let refused = Budget::plan(16 << 20, BLOCK_BYTES_DEFAULT, OBJECT_BYTES_DEFAULT, 2).unwrap_err();
        assert!(Budget::plan(refused.needed, BLOCK_BYTES_DEFAULT, OBJECT_BYTES_DEFAULT, 2).is_ok());
        assert!(Budget::plan(64 << 20, BLOCK_BYTES_MAX, OBJECT_BYTES_DEFAULT, 2).is_ok());
    }
}
