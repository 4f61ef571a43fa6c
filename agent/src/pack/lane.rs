//! A pack lane: what is done with one frame between the device and its upload object. The only CPU-heavy code.
//!
//! ```text
//!  frame buffer -> gather if scattered -> per block: zero? known? unchanged? -> compress -> reserve -> seal -> copy
//! ```
//!
//! - A block of zeros becomes a row without bytes; a block equal to the last point's, or to one stored lately, becomes a row
//!   that points there. What is left is moved together and packed.
//! - Compression is skipped where a sample of the frame looks random, and undone where it does not pay: such a frame is
//!   sealed in the buffer it was read into.
//! - A lane never waits: room for its worst case was promised before it got the job (see `object`).
//!
//! One lane per core; a lane owns its contexts and scratch, so lanes share only the placer, the known blocks and the keys.
//! - A sample of frames is read back out of its object, opened and compared before it is sent: see `proof`.
//!
//! Does not: read, or decide anything. Source: ours.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use windlass_hal::buf::Buf;

use crate::format::compress::{Compressor, Decompressor};
use crate::format::frame::{self, FRAME_HEADER_BYTES, FRAME_OVERHEAD_BYTES};
use crate::format::row::{BlockPlace, Place};
use crate::format::seal::{Keys, ObjectKey, TAG_BYTES};
use crate::id::ObjectId;
use crate::pack::known::Known;
use crate::pack::link::LinkRate;
use crate::pack::object::{Placer, Slot};
use crate::pack::proof::Proofs;
use crate::pack::{FRAME_BACK_BYTES, FRAME_FRONT_BYTES};

/// One block of a frame.
#[derive(Clone, Debug)]
pub struct JobBlock {
    /// Tag of the caller, by which it finds what the outcome belongs to.
    pub outcome: u32,
    /// Bytes of the block.
    pub len: u32,
    /// Its pieces: range of `Job::pieces`.
    pub pieces: Range<u32>,
    /// Where the last point has this block, if it has it: kept when the digest is equal.
    pub base: Option<Place>,
    /// Set by the reader when the medium did not give some of it; set to the outcome by the lane.
    pub place: BlockPlace,
}

/// Where a run of a block's bytes lies in the frame buffer.
#[derive(Clone, Copy, Debug)]
pub struct JobPiece {
    /// First byte within the block.
    pub within: u32,
    /// Bytes; may reach past the block's end.
    pub len: u32,
    /// First byte within the frame's plain bytes.
    pub at: u32,
}

/// One frame to pack, and afterwards the outcome. Its memory is used again for the next frame.
#[derive(Debug)]
pub struct Job {
    /// Caller's name for the frame.
    pub tag: u64,
    /// What was read: plain bytes start at [`FRAME_FRONT_BYTES`].
    pub buf: Buf,
    /// Blocks, ascending by their place in the buffer when `packed`.
    pub blocks: Vec<JobBlock>,
    /// Pieces of all blocks.
    pub pieces: Vec<JobPiece>,
    /// Plain bytes in use.
    pub bytes: u32,
    /// Whether each block is one piece and they ascend: see `plan`.
    pub packed: bool,
    /// Filled by the lane: what it did.
    pub outcome: Outcome,
}

/// What a lane did with a frame, for counters and for the object's completion.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// The object that the frame went to, and the frame's bytes there; `None` when nothing was left to store.
    pub stored: Option<(ObjectId, u32)>,
    /// Bytes of blocks that were digested.
    pub digested_bytes: u64,
    /// Bytes of blocks that were stored, before compression.
    pub stored_plain_bytes: u64,
    /// Bytes of zero blocks.
    pub zero_bytes: u64,
    /// Bytes of blocks found in the last point or among the known ones.
    pub known_bytes: u64,
    /// The frame was opened again and does not give back what was read: where it is.
    pub spoilt: Option<(ObjectId, u32)>,
}

/// What all lanes of a backup share.
#[derive(Debug)]
pub struct Shared {
    /// Keys of the repository.
    pub keys: Keys,
    /// Where frames go.
    pub placer: Mutex<Placer>,
    /// Blocks stored lately.
    pub known: Known,
    /// zstd level, or `None` to store plain.
    pub level: Option<i32>,
    /// Which frames are opened again before they are sent.
    pub proofs: Proofs,
    /// How fast the store takes objects.
    pub rate: LinkRate,
}

/// One lane's own state: contexts and scratch, allocated once.
pub struct Lane {
    shared: Arc<Shared>,
    compressor: Option<Compressor>,
    /// Compressed frames are made here: header, body, tag.
    packed: Vec<u8>,
    /// Scattered blocks are gathered here, with the same front and back as a frame buffer.
    gathered: Vec<u8>,
    /// First byte of each block of the job in the plain bytes.
    starts: Vec<u32>,
    key: Option<(ObjectId, ObjectKey)>,
    /// Made for the first frame that is opened again.
    decompressor: Option<Decompressor>,
}

/// Bytes sampled to see whether a frame looks random.
const SAMPLE_BYTES: usize = 4096;
/// Runs that the sample is taken in.
const SAMPLE_RUNS: usize = 64;
/// A frame shorter than this is compressed without asking.
const SAMPLE_FRAME_BYTES_MIN: usize = 32 << 10;
/// Sum of squared byte counts below which a sample looks random: uniform bytes give n^2/256 + n = 69,632 with a standard
/// deviation near 370; English text gives over 1,000,000, machine code over 300,000.
const SAMPLE_SQUARES_MAX: u64 = 73_000;

impl Lane {
    /// A lane for frames of at most `frame_bytes` plain bytes.
    pub fn new(shared: Arc<Shared>, frame_bytes: usize) -> Lane {
        let compressor = shared.level.and_then(Compressor::new);
        Lane {
            packed: vec![0; if compressor.is_some() { frame_bytes + FRAME_OVERHEAD_BYTES } else { 0 }],
            gathered: Vec::new(),
            starts: Vec::new(),
            key: None,
            decompressor: None,
            compressor,
            shared,
        }
    }

    /// Packs one frame: fills in each block's place and the job's outcome.
    pub fn run(&mut self, job: &mut Job) {
        job.outcome = Outcome::default();
        let mut gathered = std::mem::take(&mut self.gathered);
        let plain: &mut [u8] = if job.packed {
            self.starts.clear();
            self.starts.extend(job.blocks.iter().map(|b| job.pieces[b.pieces.start as usize].at));
            &mut job.buf
        } else {
            gathered.resize(job.buf.len(), 0);
            self.gather(job, &mut gathered[FRAME_FRONT_BYTES..]);
            &mut gathered
        };
        let body = &mut plain[FRAME_FRONT_BYTES..];
        for index in 0..job.blocks.len() {
            let start = self.starts[index] as usize;
            let block = &mut job.blocks[index];
            let bytes = &body[start..start + block.len as usize];
            block.place = self.judge(block, bytes, &mut job.outcome);
        }
        let used = self.tighten(&mut job.blocks, body);
        if used > 0 {
            self.store(&mut job.blocks, plain, used, &mut job.outcome);
        }
        self.gathered = gathered;
    }

    /// Copies scattered blocks behind each other; what no piece covers is a hole inside a block and becomes zero.
    fn gather(&mut self, job: &Job, out: &mut [u8]) {
        self.starts.clear();
        let mut at = 0usize;
        for block in &job.blocks {
            self.starts.push(at as u32);
            let to = &mut out[at..at + block.len as usize];
            let mut reached = 0usize;
            for piece in &job.pieces[block.pieces.start as usize..block.pieces.end as usize] {
                let within = (piece.within as usize).min(to.len());
                let end = (within + piece.len as usize).min(to.len());
                if within > reached {
                    to[reached..within].fill(0);
                }
                let from = FRAME_FRONT_BYTES + piece.at as usize;
                to[within..end].copy_from_slice(&job.buf[from..from + end - within]);
                reached = reached.max(end);
            }
            to[reached..].fill(0);
            at += block.len as usize;
        }
    }

    /// Decides what becomes of one block; `Stored` with an unset object means that its bytes have to be stored.
    fn judge(&self, block: &JobBlock, bytes: &[u8], outcome: &mut Outcome) -> BlockPlace {
        if block.place == BlockPlace::Lost {
            return BlockPlace::Lost;
        }
        if is_zero(bytes) {
            outcome.zero_bytes += u64::from(block.len);
            return BlockPlace::Zero;
        }
        let digest = self.shared.keys.digest(bytes);
        outcome.digested_bytes += u64::from(block.len);
        let base = block.base.filter(|base| base.digest == digest && base.len == block.len);
        if let Some(place) = base.or_else(|| self.shared.known.find(&digest, block.len)) {
            outcome.known_bytes += u64::from(block.len);
            return BlockPlace::Stored(place);
        }
        let unset = ObjectId::default();
        BlockPlace::Stored(Place {
            object: unset,
            frame_offset: 0,
            frame_bytes: 0,
            inner_offset: 0,
            len: block.len,
            digest,
        })
    }

    /// Moves the blocks to be stored together where others fell out or no compressor would swallow the slack, and zeroes
    /// the slack that stays. Returns the plain bytes in use.
    fn tighten(&mut self, blocks: &mut [JobBlock], body: &mut [u8]) -> usize {
        let mut tight = self.compressor.is_none();
        let mut used = 0usize;
        for (block, start) in blocks.iter_mut().zip(&mut self.starts) {
            if !to_be_stored(&block.place) {
                tight = true;
                continue;
            }
            let from = *start as usize;
            if tight && from != used {
                body.copy_within(from..from + block.len as usize, used);
                *start = used as u32;
            } else {
                body[used..from].fill(0);
            }
            used = *start as usize + block.len as usize;
        }
        used
    }

    /// Compresses, seals and places the first `used` plain bytes, and notes the place of each block.
    fn store(&mut self, blocks: &mut [JobBlock], plain: &mut [u8], used: usize, outcome: &mut Outcome) {
        let body = &plain[FRAME_FRONT_BYTES..FRAME_FRONT_BYTES + used];
        let compressed = match &mut self.compressor {
            Some(compressor) if !looks_random(body) => {
                compressor.compress(body, &mut self.packed[FRAME_HEADER_BYTES..][..used])
            }
            _ => None,
        };
        let body_bytes = compressed.unwrap_or(used);
        let total = body_bytes + FRAME_OVERHEAD_BYTES;
        let count = blocks.iter().filter(|b| to_be_stored(&b.place)).count() as u32;
        let slot =
            self.shared.placer.lock().unwrap_or_else(PoisonError::into_inner).reserve(total as u32, count);
        let id = slot.object.id();
        let key = match self.key.take() {
            Some((of, key)) if of == id => key,
            _ => self.shared.keys.object(&id),
        };
        let sealed = match compressed {
            Some(_) => &mut self.packed[..total],
            None => &mut plain[FRAME_FRONT_BYTES - FRAME_HEADER_BYTES..][..total],
        };
        frame::seal(sealed, body_bytes, used, compressed.is_some(), &key, u64::from(slot.offset));
        slot.fill(sealed);
        self.key = Some((id, key));
        outcome.stored = Some((id, total as u32));
        for (block, &start) in blocks.iter_mut().zip(&self.starts) {
            if let BlockPlace::Stored(place) = &mut block.place
                && place.frame_bytes == 0
            {
                place.object = id;
                place.frame_offset = slot.offset;
                place.frame_bytes = total as u32;
                place.inner_offset = start;
                outcome.stored_plain_bytes += u64::from(place.len);
                self.shared.known.put(*place);
            }
        }
        let shared = Arc::clone(&self.shared);
        let holds = shared.proofs.of(used, || self.holds(blocks, plain, &slot, compressed.is_some()));
        if holds == Some(false) {
            outcome.spoilt = Some((id, slot.offset));
        }
    }

    /// Reads a frame back as it will be sent, and opens it: whether its blocks have their digests. `plain` is used for that.
    fn holds(&mut self, blocks: &[JobBlock], plain: &mut [u8], slot: &Slot, compressed: bool) -> bool {
        let Some((_, key)) = &self.key else { return false };
        let offset = u64::from(slot.offset);
        let front = FRAME_FRONT_BYTES - FRAME_HEADER_BYTES;
        let body = if compressed {
            if self.decompressor.is_none() {
                self.decompressor = Decompressor::new();
            }
            // Without memory for a context nothing is known of the frame.
            let Some(decompressor) = &mut self.decompressor else { return true };
            let sealed = &mut self.packed[..slot.len as usize];
            slot.read(sealed);
            let Ok(opened) = frame::open(sealed, key, offset) else { return false };
            let Some(out) = plain.get_mut(FRAME_FRONT_BYTES..FRAME_FRONT_BYTES + opened.raw_len) else {
                return false;
            };
            if opened.plain(decompressor, out).is_err() {
                return false;
            }
            &*out
        } else {
            let sealed = &mut plain[front..][..slot.len as usize];
            slot.read(sealed);
            let Ok(opened) = frame::open(sealed, key, offset) else { return false };
            opened.body
        };
        let of_frame = |block: &JobBlock| match block.place {
            BlockPlace::Stored(place)
                if (place.object, place.frame_offset) == (slot.object.id(), slot.offset) =>
            {
                Some(place)
            }
            _ => None,
        };
        blocks.iter().filter_map(of_frame).all(|place| {
            let from = place.inner_offset as usize;
            let bytes = body.get(from..from + place.len as usize);
            bytes.is_some_and(|bytes| self.shared.keys.digest(bytes) == place.digest)
        })
    }
}

/// Whether the block's bytes still need a place: a frame has at least its header, so zero bytes mean none yet.
fn to_be_stored(place: &BlockPlace) -> bool {
    matches!(place, BlockPlace::Stored(place) if place.frame_bytes == 0)
}

/// Whether all bytes are zero. Most blocks differ in the first few.
fn is_zero(bytes: &[u8]) -> bool {
    let head = bytes.len().min(16);
    bytes[..head].iter().all(|&b| b == 0) && bytes.iter().fold(0, |acc, &b| acc | b) == 0
}

/// Whether a sample of the bytes has the flat histogram of compressed or encrypted data.
fn looks_random(bytes: &[u8]) -> bool {
    if bytes.len() < SAMPLE_FRAME_BYTES_MIN {
        return false;
    }
    let mut counts = [0u32; 256];
    let run = SAMPLE_BYTES / SAMPLE_RUNS;
    let step = (bytes.len() - run) / (SAMPLE_RUNS - 1);
    for index in 0..SAMPLE_RUNS {
        for &byte in &bytes[index * step..index * step + run] {
            counts[usize::from(byte)] += 1;
        }
    }
    counts.iter().map(|&n| u64::from(n) * u64::from(n)).sum::<u64>() < SAMPLE_SQUARES_MAX
}

const _: () = assert!(FRAME_HEADER_BYTES <= FRAME_FRONT_BYTES && TAG_BYTES <= FRAME_BACK_BYTES);

#[cfg(test)]
#[path = "lane_test.rs"]
mod tests;
