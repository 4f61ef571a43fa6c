//! From the blocks of a window of files to fetches: pure.
//!
//! ```text
//!  blocks (any order) --sort by (object, frame)--> frames, each once --merge near ones--> fetches, one ranged GET each
//!
//!  fetch 0: object 3, 1.2 MiB        fetch 1: object 3, 4 MiB
//!  [ frame | frame | gap | frame ]   [ frame | ...
//!     |  \
//!  block  block                      back-references: (file, offset in it, place in the frame, length, digest)
//! ```
//!
//! Small files share frames, and files share blocks: a frame is fetched, opened and decompressed once per window, however many
//! blocks want it.
//!
//! Invariants
//! - Every block is in exactly one frame of the plan, every frame in exactly one fetch; fetches ascend by (object, offset).
//! - A fetch is at most `read_bytes_max` long unless a single frame is longer; gaps inside are at most `gap_bytes_max` each.
//! - Rows are foreign: frames that overlap or disagree about their length are fetched as they are asked for, each by itself;
//!   opening them decides.
//!
//! Does not: fetch, or know files beyond their number. Source: `agent/doc/architecture.md`, Restore.

use std::ops::Range;

use crate::format::row::{Digest, Place};
use crate::id::ObjectId;

/// Gap in bytes up to which two frames of an object are fetched by one GET. At 100 MB/s it costs 2.6 ms, less than a request.
pub const GAP_BYTES_MAX: u32 = 256 << 10;

/// Largest GET in bytes when memory allows it: beyond it a request costs nothing more per byte.
pub const READ_BYTES_MAX: u32 = 4 << 20;

/// One stored block that a file wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WantedBlock {
    /// The caller's number of the file.
    pub file: u32,
    /// Byte offset of the block in the file.
    pub offset: u64,
    /// Range of the caller's list of data runs: which parts of the block are written; empty means all.
    pub runs: (u32, u32),
    /// Where it is stored.
    pub place: Place,
}

/// A block of a planned frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlannedBlock {
    /// The caller's number of the file.
    pub file: u32,
    /// Byte offset of the block in the file.
    pub offset: u64,
    /// As given.
    pub runs: (u32, u32),
    /// Byte offset in the frame's plain contents.
    pub inner_offset: u32,
    /// Bytes.
    pub len: u32,
    /// Of those bytes.
    pub digest: Digest,
}

/// A frame to open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Byte offset in its object.
    pub offset: u32,
    /// Bytes, header and tag included.
    pub bytes: u32,
    /// Range of [`Plan::blocks`].
    pub blocks: Range<u32>,
}

/// A ranged GET.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetch {
    /// The object.
    pub object: ObjectId,
    /// First byte.
    pub offset: u32,
    /// Bytes.
    pub bytes: u32,
    /// Range of [`Plan::frames`].
    pub frames: Range<u32>,
}

/// What to fetch for a window, and which file wants what of it.
#[derive(Debug, Default)]
pub struct Plan {
    /// In the order to fetch.
    pub fetches: Vec<Fetch>,
    /// Frames of the fetches, in their order.
    pub frames: Vec<Frame>,
    /// Blocks of the frames, in their order.
    pub blocks: Vec<PlannedBlock>,
}

/// How near ranges are merged.
#[derive(Clone, Copy, Debug)]
pub struct Merging {
    /// Largest gap in bytes that is fetched along.
    pub gap_bytes_max: u32,
    /// Largest fetch in bytes of more than one frame.
    pub read_bytes_max: u32,
}

impl Default for Merging {
    fn default() -> Merging {
        Merging { gap_bytes_max: GAP_BYTES_MAX, read_bytes_max: READ_BYTES_MAX }
    }
}

impl Plan {
    /// Plans `wanted`, which is left sorted. Linear but for the sort; allocates the plan.
    pub fn new(wanted: &mut [WantedBlock], merging: Merging) -> Plan {
        wanted.sort_unstable_by_key(|b| {
            let place = &b.place;
            (place.object, place.frame_offset, place.frame_bytes, place.inner_offset, b.file, b.offset)
        });
        let mut plan = Plan { blocks: Vec::with_capacity(wanted.len()), ..Plan::default() };
        let mut last: Option<Place> = None;
        for block in wanted.iter() {
            let place = block.place;
            let same = last.is_some_and(|l| {
                (l.object, l.frame_offset, l.frame_bytes)
                    == (place.object, place.frame_offset, place.frame_bytes)
            });
            let at = plan.blocks.len() as u32;
            if !same {
                plan.add_frame(&place, at, merging);
            }
            plan.blocks.push(PlannedBlock {
                file: block.file,
                offset: block.offset,
                runs: block.runs,
                inner_offset: place.inner_offset,
                len: place.len,
                digest: place.digest,
            });
            if let Some(frame) = plan.frames.last_mut() {
                frame.blocks.end = at + 1;
            }
            last = Some(place);
        }
        plan
    }

    fn add_frame(&mut self, place: &Place, block: u32, merging: Merging) {
        let index = self.frames.len() as u32;
        let end = u64::from(place.frame_offset) + u64::from(place.frame_bytes);
        self.frames.push(Frame {
            offset: place.frame_offset,
            bytes: place.frame_bytes,
            blocks: block..block,
        });
        if let Some(fetch) = self.fetches.last_mut() {
            let reached = u64::from(fetch.offset) + u64::from(fetch.bytes);
            let near = u64::from(place.frame_offset) <= reached + u64::from(merging.gap_bytes_max);
            let merged = end.max(reached) - u64::from(fetch.offset);
            if fetch.object == place.object && near && merged <= u64::from(merging.read_bytes_max) {
                fetch.bytes = merged as u32;
                fetch.frames.end = index + 1;
                return;
            }
        }
        self.fetches.push(Fetch {
            object: place.object,
            offset: place.frame_offset,
            bytes: place.frame_bytes,
            frames: index..index + 1,
        });
    }

    /// Frames of a fetch.
    pub fn frames_of(&self, fetch: &Fetch) -> &[Frame] {
        &self.frames[fetch.frames.start as usize..fetch.frames.end as usize]
    }

    /// Blocks of a frame.
    pub fn blocks_of(&self, frame: &Frame) -> &[PlannedBlock] {
        &self.blocks[frame.blocks.start as usize..frame.blocks.end as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{Boot, Epoch, NodeId};

    fn object(count: u32) -> ObjectId {
        ObjectId { epoch: Epoch(1), node: NodeId(0), boot: Boot(9), count }
    }

    fn wanted(file: u32, object_count: u32, frame: (u32, u32), inner: u32) -> WantedBlock {
        let place = Place {
            object: object(object_count),
            frame_offset: frame.0,
            frame_bytes: frame.1,
            inner_offset: inner,
            len: 10,
            digest: [file as u8; 16],
        };
        WantedBlock { file, offset: u64::from(inner), runs: (0, 0), place }
    }

    #[test]
    fn blocks_of_one_frame_share_it_and_near_frames_share_a_fetch() {
        let merging = Merging { gap_bytes_max: 100, read_bytes_max: 1000 };
        let mut list = vec![
            wanted(0, 2, (0, 50), 0),
            wanted(1, 1, (150, 50), 10),
            wanted(2, 1, (0, 50), 0),
            wanted(3, 1, (150, 50), 0),
            wanted(4, 1, (301, 50), 0),
        ];
        let plan = Plan::new(&mut list, merging);
        let fetches: Vec<_> = plan.fetches.iter().map(|f| (f.object.count, f.offset, f.bytes)).collect();
        assert_eq!(fetches, [(1, 0, 200), (1, 301, 50), (2, 0, 50)]);
        assert_eq!(plan.frames.len(), 4);
        let files: Vec<_> = plan.blocks_of(&plan.frames[1]).iter().map(|b| b.file).collect();
        assert_eq!(files, [3, 1]);
    }

    #[test]
    fn a_fetch_stays_within_its_size_unless_one_frame_is_larger() {
        let merging = Merging { gap_bytes_max: 0, read_bytes_max: 100 };
        let mut list = vec![wanted(0, 1, (0, 50), 0), wanted(1, 1, (50, 50), 0), wanted(2, 1, (100, 500), 0)];
        let plan = Plan::new(&mut list, merging);
        let fetches: Vec<_> = plan.fetches.iter().map(|f| (f.offset, f.bytes)).collect();
        assert_eq!(fetches, [(0, 100), (100, 500)]);
        let mut edge = vec![wanted(0, 1, (u32::MAX, u32::MAX), 0), wanted(1, 1, (u32::MAX - 1, u32::MAX), 0)];
        assert_eq!(Plan::new(&mut edge, Merging::default()).fetches.len(), 2);
        assert!(Plan::new(&mut [], Merging::default()).fetches.is_empty());
    }

    /// Random windows over few objects and offsets, so that everything collides: each block exactly once, in a frame that is its
    /// own, in a fetch that covers the frame.
    #[test]
    fn every_block_is_planned_exactly_once_and_covered() {
        let mut seed = 0x9e37_79b9_7f4a_7c15u64;
        let mut draw = move |below: u64| {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            (seed % below) as u32
        };
        for round in 0..500 {
            let merging = Merging { gap_bytes_max: draw(300), read_bytes_max: 1 + draw(2000) };
            let mut list: Vec<_> = (0..draw(60))
                .map(|file| wanted(file, draw(3), (draw(20) * 97, 1 + draw(4) * 60), draw(8) * 10))
                .collect();
            let before = list.clone();
            let plan = Plan::new(&mut list, merging);
            let mut seen = vec![0; before.len()];
            for pair in plan.fetches.windows(2) {
                assert!(
                    (pair[0].object, pair[0].offset) <= (pair[1].object, pair[1].offset),
                    "round {round}"
                );
            }
            let mut frames = 0;
            for fetch in &plan.fetches {
                assert_eq!(fetch.frames.start, frames);
                frames = fetch.frames.end;
                assert!(fetch.bytes <= merging.read_bytes_max || fetch.frames.len() == 1, "round {round}");
                let mut reached = fetch.offset;
                for frame in plan.frames_of(fetch) {
                    assert!(frame.offset <= reached + merging.gap_bytes_max, "round {round}");
                    reached = reached.max(frame.offset + frame.bytes);
                    assert!(frame.offset >= fetch.offset && reached <= fetch.offset + fetch.bytes);
                    for block in plan.blocks_of(frame) {
                        let source = &before[block.file as usize];
                        assert_eq!(source.place.object, fetch.object);
                        assert_eq!(source.place.frame_offset, frame.offset);
                        assert_eq!(source.place.frame_bytes, frame.bytes);
                        assert_eq!(
                            (source.place.inner_offset, source.offset),
                            (block.inner_offset, block.offset)
                        );
                        seen[block.file as usize] += 1;
                    }
                }
                assert_eq!(reached, fetch.offset + fetch.bytes, "a fetch ends with its last frame");
            }
            assert_eq!(frames as usize, plan.frames.len());
            assert!(seen.iter().all(|&n| n == 1), "round {round}: {seen:?}");
            assert!(
                plan.frames
                    .iter()
                    .zip(plan.frames.iter().skip(1))
                    .all(|(a, b)| a.blocks.end == b.blocks.start)
            );
        }
    }
}
