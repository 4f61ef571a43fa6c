//! The memory budget: one number in, the sizes of all pools out, before anything is allocated (P3).
//!
//! ```text
//!  budget = program + volume + rows and tables + uploads + lanes + frames     + pieces      + a tenth of what is above 24 MiB
//!                                                U each   L each  F x frame     P x 256 KiB
//! ```
//!
//! Objects that do not fit twice (one filling, one on its way) are made smaller: the object size of the policy is what is aimed
//! at, and the budget is what holds. It is a bound: pools take their pages as they are used.
//!
//! Pure. Source: ours; the parts are what the kernel says of a release build (`/proc/PID/smaps`) at the end of backups of 6 thousand
//! and of a million files, to a directory and to S3 over TLS; the memory test holds the sum against `VmHWM`.

use std::fmt;

use crate::pack::object::PIECE_BYTES;
use crate::pack::{OBJECT_BYTES_MIN, frame_buf_bytes};
use crate::units::format_bytes;
use crate::worker::backup::KEEP_PIECES;

/// Budget in bytes when none is given.
pub const MEMORY_BYTES_DEFAULT: u64 = 64 << 20;
/// What the program has resident whatever it does, in bytes: its pages and the C library's (8 MiB), the state of the log, certificates.
const PROGRAM_BYTES: u64 = 9 << 20;
/// What a reader of a volume holds, in bytes: a cache of metadata (2 MiB), what is read ahead (2 MiB), a window of items.
const VOLUME_BYTES: u64 = 4864 << 10;
/// Batches, row builders with their compressors, the table of known blocks, and the caches of the last point's tables, in bytes.
const ROWS_BYTES: u64 = 1792 << 10;
/// What an upload thread holds, in bytes: a TLS connection with its buffers, and the used part of its stack.
const UPLINK_BYTES: u64 = 256 << 10;
/// Upload threads besides those that are planned: the one for what goes first ([`submit_first`](crate::store::uplink::Uplink::submit_first)).
const FIRST_UPLINKS: u64 = 1;
/// What a lane owns besides its two buffers, in bytes: zstd's tables at level 1.
const LANE_BYTES: u64 = 640 << 10;
/// Least bytes of an object under construction that a plan leaves room for. Below the least of a policy: at the least budget more, smaller
/// objects are better than none.
const ROOM_BYTES_MIN: u64 = 2560 << 10;
/// Budget in bytes above which some is left for what grows with threads and pools: allocator arenas, page tables, caches.
const SLACK_FROM_BYTES: u64 = 24 << 20;
/// One part in so many of what is above.
const SLACK_PART: u64 = 10;
/// Frames in work for each lane: one packed, one waiting, and reads in flight behind them.
const FRAMES_PER_LANE: u64 = 6;
/// Fewest frames that keep a lane and the device busy at once.
const FRAMES_PER_LANE_MIN: u64 = 2;

/// Fewest upload threads where memory allows any choice: one sends while another waits for its answer.
const UPLINKS_MIN: u64 = 2;

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
    /// Upload threads.
    pub uplinks: usize,
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

/// A smaller number was meant in another unit.
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
    /// Divides `memory` bytes for `cores` cores and up to `uplinks` upload threads.
    pub fn plan(
        memory: u64,
        block_bytes: u32,
        object_bytes: u32,
        cores: usize,
        uplinks: usize,
    ) -> Result<Budget, TooSmall> {
        let frame = frame_buf_bytes(block_bytes) as u64;
        let lane = LANE_BYTES + 2 * frame;
        let keep = (KEEP_PIECES * PIECE_BYTES) as u64;
        let room = ROOM_BYTES_MIN.max(frame.next_multiple_of(PIECE_BYTES as u64) + PIECE_BYTES as u64);
        let fixed = PROGRAM_BYTES + VOLUME_BYTES + ROWS_BYTES;
        let needed = |lanes: u64, uplinks: u64| {
            let work =
                lanes * (lane + FRAMES_PER_LANE_MIN * frame) + (uplinks + FIRST_UPLINKS) * UPLINK_BYTES;
            fixed + work + room + keep + PIECE_BYTES as u64
        };
        // A lane more is worth more than a connection more.
        let lanes = (1..=cores.max(1) as u64).rev().find(|&lanes| needed(lanes, 1) <= memory);
        let Some(lanes) = lanes else { return Err(TooSmall { given: memory, needed: needed(1, 1) }) };
        let slack = memory.saturating_sub(SLACK_FROM_BYTES) / SLACK_PART;
        let rest = memory - fixed - lanes * lane - slack;
        let frames = (rest / 4 / frame).clamp(lanes * FRAMES_PER_LANE_MIN, lanes * FRAMES_PER_LANE);
        let rest = rest - frames * frame;
        // As many connections as there can be objects on their way.
        let on_their_way = (rest.saturating_sub(keep) / u64::from(object_bytes)).max(UPLINKS_MIN);
        let uplinks = (uplinks.max(1) as u64).min(on_their_way);
        let pieces = (rest - (uplinks + FIRST_UPLINKS) * UPLINK_BYTES) / PIECE_BYTES as u64;
        let for_objects = pieces * PIECE_BYTES as u64 - keep;
        let half = (for_objects / 2).max(u64::from(OBJECT_BYTES_MIN));
        let object_bytes = u64::from(object_bytes).min(half) as u32;
        Ok(Budget {
            frames: frames as usize,
            pieces: pieces as usize,
            object_bytes,
            segment_bytes: (object_bytes / 4).min(4 << 20),
            lanes: lanes as usize,
            uplinks: uplinks as usize,
            known_blocks: if memory >= MEMORY_BYTES_DEFAULT { 1 << 14 } else { 1 << 12 },
        })
    }

    /// What `memory` bytes are divided into, for blocks of up to `block_bytes`; the lines add up to it.
    pub fn sum(&self, memory: u64, block_bytes: u32) -> [Line; 8] {
        let frame = frame_buf_bytes(block_bytes) as u64;
        let lanes = self.lanes as u64;
        let mut lines = [
            Line { what: "program", bytes: PROGRAM_BYTES },
            Line { what: "volume: metadata, reading ahead", bytes: VOLUME_BYTES },
            Line { what: "batches, rows, table caches", bytes: ROWS_BYTES },
            Line {
                what: "upload threads and connections",
                bytes: (self.uplinks as u64 + FIRST_UPLINKS) * UPLINK_BYTES,
            },
            Line { what: "pack lanes", bytes: lanes * (LANE_BYTES + 2 * frame) },
            Line { what: "frames: blocks between device and lane", bytes: self.frames as u64 * frame },
            Line { what: "pieces: objects being filled and sent", bytes: (self.pieces * PIECE_BYTES) as u64 },
            Line { what: "left for what grows with threads and pools", bytes: 0 },
        ];
        let used: u64 = lines.iter().map(|line| line.bytes).sum();
        lines[7].bytes = memory.saturating_sub(used);
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
            Budget::plan(MEMORY_BYTES_DEFAULT, BLOCK_BYTES_DEFAULT, OBJECT_BYTES_DEFAULT, 2, 4).unwrap();
        assert_eq!(budget.lanes, 2);
        assert_eq!(budget.object_bytes, OBJECT_BYTES_DEFAULT);
        assert!(
            budget.pool_bytes(BLOCK_BYTES_DEFAULT) + PROGRAM_BYTES + VOLUME_BYTES + ROWS_BYTES
                <= MEMORY_BYTES_DEFAULT
        );
    }

    #[test]
    fn the_lines_add_up_to_what_was_given() {
        for (mib, cores) in [(24, 1), (64, 2), (65, 3), (4096, 64)] {
            let memory = mib << 20;
            let budget = Budget::plan(memory, BLOCK_BYTES_DEFAULT, OBJECT_BYTES_DEFAULT, cores, 4).unwrap();
            let lines = budget.sum(memory, BLOCK_BYTES_DEFAULT);
            assert_eq!(lines.iter().map(|line| line.bytes).sum::<u64>(), memory);
            assert_eq!(lines[5].bytes + lines[6].bytes, budget.pool_bytes(BLOCK_BYTES_DEFAULT));
        }
    }

    #[test]
    fn a_small_budget_makes_smaller_objects_and_a_smaller_one_is_refused() {
        let budget = Budget::plan(24 << 20, BLOCK_BYTES_DEFAULT, OBJECT_BYTES_DEFAULT, 2, 4).unwrap();
        assert!(budget.object_bytes >= OBJECT_BYTES_MIN && budget.object_bytes < OBJECT_BYTES_DEFAULT);
        let refused = Budget::plan(16 << 20, BLOCK_BYTES_DEFAULT, OBJECT_BYTES_DEFAULT, 2, 4).unwrap_err();
        assert!(Budget::plan(refused.needed, BLOCK_BYTES_DEFAULT, OBJECT_BYTES_DEFAULT, 2, 4).is_ok());
        assert!(Budget::plan(64 << 20, BLOCK_BYTES_MAX, OBJECT_BYTES_DEFAULT, 2, 4).is_ok());
    }
}
