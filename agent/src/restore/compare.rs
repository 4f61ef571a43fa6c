//! Restoring over what is there: blocks that the target has already are neither fetched nor written.
//!
//! ```text
//!  window of blocks --lanes: read the target, digest--> equal: done         differs: fetched and written
//!  zeros, holes     --lanes: read what is data there--> zero already: done  else: zeros written, or a hole punched
//! ```
//!
//! Used by `--in-place`, and for files that an earlier restore had begun: nothing of either is believed, every byte is compared.
//!
//! Invariants: a block counts as equal only when all of its bytes were read and have its digest; what cannot be read differs.
//! Memory: one window more while it is compared, [`PIECE_BYTES`] for each lane. Source: ours.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use windlass_hal::tree::{Errno, Node};
use windlass_hal::volume::ItemKind;

use super::fault::Reason;
use super::file::{File, Job};
use super::gather::{Gather, runs_of, start_of};
use super::lane::{Hands, Task};
use crate::format::row::{BlockPlace, LocationRow};
use crate::format::seal::Keys;
use crate::read::plan::WantedBlock;

/// Bytes that are read of a target at once: a multiple of what direct reads need, and small enough for the cache of a core.
pub(super) const PIECE_BYTES: usize = 128 << 10;
/// Blocks that a lane compares in one task: 4 MiB of 128 KiB blocks, so that all lanes have some of a window.
const PART_BLOCKS: usize = 32;
/// Bytes of zeros or of a hole in one task: enough for a lane to be busy, and few tasks for a large device.
const ZEROS_PART_BYTES: u64 = 64 << 20;

/// Blocks of a window of which the target may have some.
pub struct Comparing<N> {
    files: Vec<Arc<File<N>>>,
    wanted: Vec<WantedBlock>,
    differs: Vec<AtomicBool>,
    /// Parts that are not compared yet.
    left: Mutex<usize>,
    done: Condvar,
}

impl<N: Node> Comparing<N> {
    /// Has the lanes compare the blocks of a window; those that the target lacks.
    pub(super) fn run(
        files: &[Arc<File<N>>],
        wanted: &[WantedBlock],
        hands: &dyn Hands<N>,
    ) -> Vec<WantedBlock> {
        let parts = wanted.len().div_ceil(PART_BLOCKS);
        let comparing = Arc::new(Comparing {
            files: files.to_vec(),
            wanted: wanted.to_vec(),
            differs: wanted.iter().map(|_| AtomicBool::new(true)).collect(),
            left: Mutex::new(parts),
            done: Condvar::new(),
        });
        for part in 0..parts {
            let first = part * PART_BLOCKS;
            let range = first..(first + PART_BLOCKS).min(wanted.len());
            hands.push(Task::Compare(Arc::clone(&comparing), range));
        }
        hands.make_room();
        let mut left = comparing.left.lock().unwrap_or_else(PoisonError::into_inner);
        while *left > 0 {
            left = comparing.done.wait(left).unwrap_or_else(PoisonError::into_inner);
        }
        drop(left);
        let differs = comparing.differs.iter().map(|differs| differs.load(Ordering::Acquire));
        wanted.iter().zip(differs).filter_map(|(block, differs)| differs.then_some(*block)).collect()
    }

    /// Compares some of the blocks; what is equal is done.
    pub(super) fn part(&self, range: Range<usize>, job: &Job<N>, keys: &Keys, buf: &mut Vec<u8>) {
        for index in range {
            let (Some(block), Some(differs)) = (self.wanted.get(index), self.differs.get(index)) else {
                continue;
            };
            let Some(file) = self.files.get(block.file as usize) else { continue };
            if !file.compares() || job.is_over() || !is_equal(file, block, keys, buf) {
                continue;
            }
            differs.store(false, Ordering::Release);
            job.found(u64::from(block.place.len));
            file.done(job, 1);
        }
        *self.left.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        self.done.notify_all();
    }
}

/// Whether the target has a block.
fn is_equal<N: Node>(file: &File<N>, block: &WantedBlock, keys: &Keys, buf: &mut Vec<u8>) -> bool {
    buf.resize(PIECE_BYTES, 0);
    let mut digester = keys.digester();
    let (mut at, mut left) = (block.offset, block.place.len as usize);
    while left > 0 {
        let piece = &mut buf[..left.min(PIECE_BYTES)];
        if file.read(|node| node.read_at(at, piece)) != Ok(piece.len()) {
            return false;
        }
        digester.update(piece);
        (at, left) = (at + piece.len() as u64, left - piece.len());
    }
    digester.finish() == block.place.digest
}

/// Makes a range of a file that was there read as zero. What does so already is left; where there is a hole and `allocates`, zeros are
/// written.
pub(super) fn zero<N: Node>(
    file: &File<N>,
    job: &Job<N>,
    (from, len): (u64, u64),
    allocates: bool,
    buf: &mut Vec<u8>,
) {
    buf.resize(PIECE_BYTES, 0);
    let (mut at, end) = (from, from.saturating_add(len));
    while at < end && !job.is_over() {
        // What cannot be read is written.
        let data = file.read(|node| node.data_from(at)).unwrap_or(Some(at)).map_or(end, |data| data.min(end));
        if at < data {
            if allocates {
                file.write(job, "write", data - at, |node| node.write_zeros(at, data - at));
            } else {
                job.found(data - at);
            }
            at = data;
            continue;
        }
        let to = end.min((at / PIECE_BYTES as u64 + 1) * PIECE_BYTES as u64);
        let piece = &mut buf[..(to - at) as usize];
        match file.read(|node| node.read_at(at, piece)) {
            Ok(0) if !allocates => return,
            Ok(read) if piece[..read].iter().all(|&byte| byte == 0) && read == piece.len() => {
                job.found(to - at);
            }
            _ => file.write(job, "zero", 0, |node| match node.punch(at, to - at) {
                Err(Errno::OPNOTSUPP | Errno::INVAL | Errno::NOSYS) => node.write_zeros(at, to - at),
                Ok(()) if allocates => node.write_zeros(at, to - at),
                other => other,
            }),
        }
        at = to;
    }
}

/// Ranges without data that wait for the end of a file's rows: when rows turn out to be lost, what is there stays.
const GAPS_MAX: usize = 4096;

/// How far a file that is compared has been planned, and what has no data up to there.
#[derive(Debug, Default)]
pub(super) struct Reached {
    at: u64,
    gaps: Vec<Range<u64>>,
}

impl<N: Node> Gather<'_, N> {
    /// Takes the blocks of a location row of a file that was there. What has no data, up to there, is made to read as zero.
    pub(super) fn row_over(
        &mut self,
        job: &Job<N>,
        file: &Arc<File<N>>,
        row: &LocationRow,
        reached: &mut Reached,
    ) {
        let Some(start) = start_of(job, file, row) else { return };
        let (size, block_bytes) = (file.item.size, u64::from(row.block_bytes));
        for (index, place) in row.blocks.iter().enumerate() {
            let offset = start.saturating_add(index as u64 * block_bytes);
            if offset >= size {
                break;
            }
            let len = block_bytes.min(size - offset);
            match place {
                BlockPlace::Stored(place) if u64::from(place.len) != len || offset < reached.at => {
                    file.damage();
                    job.faults.add(file.path(), Reason::Rows("blocks that overlap, or of another length"));
                }
                BlockPlace::Stored(place) => {
                    self.gap(file, reached, offset);
                    reached.at = offset + len;
                    // Where it differs all of it is written, holes within it too.
                    self.block(file, WantedBlock { file: 0, offset, runs: (0, 0), place: *place });
                }
                // Where runs say what of it is a hole, and of an image, none of it is allocated.
                BlockPlace::Zero
                    if row.runs.is_empty() && offset >= reached.at && file.item.kind == ItemKind::File =>
                {
                    self.gap(file, reached, offset);
                    reached.at = offset + len;
                    self.zeros_over(file, offset..offset + len, true);
                }
                BlockPlace::Zero | BlockPlace::Empty | BlockPlace::Lost => {}
            }
        }
        runs_of(job, file, row, start);
    }

    /// From where the file has been planned to `to` there is no data.
    fn gap(&mut self, file: &Arc<File<N>>, reached: &mut Reached, to: u64) {
        if reached.at < to {
            reached.gaps.push(reached.at..to);
        }
        if reached.gaps.len() >= GAPS_MAX {
            reached.gaps.drain(..).for_each(|gap| self.zeros_over(file, gap, false));
        }
    }

    /// No more rows come, and none is lost: what has no data reads as zero.
    pub(super) fn end_over(&mut self, file: &Arc<File<N>>, mut reached: Reached) {
        self.gap(file, &mut reached, file.item.size);
        reached.gaps.drain(..).for_each(|gap| self.zeros_over(file, gap, false));
    }

    pub(super) fn zeros_over(&mut self, file: &Arc<File<N>>, range: Range<u64>, allocates: bool) {
        let mut at = range.start;
        while at < range.end {
            let len = (range.end - at).min(ZEROS_PART_BYTES);
            file.expect(1);
            self.hands.push(Task::ZeroOver(Arc::clone(file), (at, len), allocates));
            at += len;
        }
    }
}
