//! The log: whether it holds changes that are not in their places yet. A volume is read only when it does not.
//!
//! ```text
//!  record: header 512 bytes, one more per 32 KiB of h_size above the first 32 KiB; then h_len bytes of operations
//!  0   4  magic FEEDBABE                       32  4   crc (little-endian; mkfs leaves 0)
//!  4   4  cycle                                36  4   block of the record before
//!  8   4  version, 2                           40  4   operations in it
//!  12  4  h_len                                44  256 first words of the data blocks
//!  16  8  lsn: cycle, block of this record     300 4   format, 1 = little-endian Linux
//!  24  8  tail lsn: what is before it          304 16  uuid of the file system
//!         is in its place                      320 4   h_size
//!
//!  The first word of every other block of the log is the cycle in which it was written, so the head, where the next record
//!  would go, is where the cycle numbers fall:    c c c c c | c-1 c-1 c-1
//! ```
//!
//! | at the head | left by | answer |
//! |---|---|---|
//! | a record of one operation, "unmount" | a clean unmount, mkfs, xfs_repair, xfs_admin | read |
//! | from the tail on nothing but the superblock as it is on the device, its counters aside | xfs_freeze, dmsetup suspend | read |
//! | anything else, or anything that does not add up | a live file system, a crash | refused: dirty |
//!
//! Stricter than the kernel, which may drop a torn record at the head and go on: here a torn record is a
//! dirty log. The superblock that a freeze leaves in the log is compared, not applied: only counters may
//! differ, and no item is read by them.
//!
//! Does not: replay. Source: kernel `fs/xfs/xfs_log_recover.c` (`xlog_find_head`, `xlog_find_tail`, `xlog_cksum`).

use std::ops::Range;

use super::checksum::crc32c;
use super::field::{array_at, le32_at, u32_at, u64_at};
use super::log_items::{Items, newest_change};
use super::superblock::{BASIC_BITS, Superblock};
use crate::block::BlockDevice;
use crate::volume::VolumeFault;

const MAGIC: u32 = 0xFEED_BABE;
const VERSION_2: u32 = 2;
const FORMAT_LINUX_LE: u32 = 1;
const BASIC_BYTES: usize = 1 << BASIC_BITS;
/// Data bytes that one header block describes.
const HEADER_COVERS_BYTES: u32 = 32 << 10;
/// First words that one header block keeps.
const HEADER_WORDS: usize = HEADER_COVERS_BYTES as usize / BASIC_BYTES;
/// Largest record in bytes, without its headers.
const RECORD_BYTES_MAX: u32 = 256 << 10;
/// Blocks of the largest record with its headers, and some.
const RECORD_BLOCKS_MAX: u64 = 1024;
/// Blocks around the head in which writes may have been under way: eight records.
const IN_FLIGHT_BLOCKS: u64 = 4096;
/// Blocks that are looked at in one read.
const STRETCH_BLOCKS: u64 = 512;
/// Places of the log that a search for its head looks at before it waits.
const PROBES: u64 = 16;
/// Most blocks between tail and head of a frozen volume: some records of 256 KiB, each with little in it.
const FROZEN_BLOCKS_MAX: u64 = 16384;
/// Records before the head that are searched for the newest change of an inode.
const HISTORY_RECORDS: u32 = 64;
/// Records with such a change that are enough.
const HISTORY_CHANGES: u32 = 4;
/// Bytes of the header that the checksum covers, and what i386 thinks they are.
const HEADER_SUMMED_BYTES: [usize; 2] = [328, 324];
/// Bytes of a further header that the checksum covers.
const MORE_HEADER_SUMMED_BYTES: usize = 260;
const CHECKSUM_AT: usize = 32;
const WORDS_AT: usize = 44;

/// What is known from a log without changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LogEnd {
    /// Cycle and block at which the next record goes: every record moves it.
    pub(super) head: (u32, u32),
    /// CRC-32C of the last record's header.
    pub(super) record: u32,
    /// Seconds since 1970 of the newest inode changes in the last records, 0 when they hold none.
    pub(super) newest_secs: i64,
}

/// One record, whole.
struct Record {
    at: u64,
    end: u64,
    cycle: u32,
    ops: u32,
    tail: (u32, u32),
    before: u32,
    is_summed: bool,
    header_crc: u32,
    /// Data with the first words put back.
    data: Vec<u8>,
}

/// The log of one volume.
struct Log<'a> {
    sb: &'a Superblock,
    device: &'a mut dyn BlockDevice,
    start: u64,
    blocks: u64,
    buf: Vec<u8>,
}

fn dirty(why: &str) -> VolumeFault {
    VolumeFault::Refused {
        what: format!("xfs with a dirty log ({why})"),
        way_out: "mount and unmount it once, or freeze it with xfs_freeze and back up a snapshot",
    }
}

/// Checks that the log of the volume holds no changes. `superblock` is the superblock's sector.
///
/// # Errors
/// `Refused` when it does, or when it cannot be understood; `Device` when it cannot be read.
pub(super) fn check(
    sb: &Superblock,
    superblock: &[u8],
    device: &mut dyn BlockDevice,
) -> Result<LogEnd, VolumeFault> {
    let (first, blocks) = sb.log;
    let blocks = sb.basic(blocks);
    let mut log = Log { sb, device, start: sb.offset(first), blocks, buf: Vec::new() };
    let (head, cycle, last) = match log.formatted()? {
        Some(only) => (only.end, only.cycle, only),
        None => {
            let (head, cycle) = log.head()?;
            (head, cycle, log.last_record(head)?)
        }
    };
    if last.end != head {
        return Err(dirty("its last record is not whole"));
    }
    let is_unmount = last.ops == 1 && Items::is_unmount(&last.data);
    if !last.is_summed && !is_unmount || last.cycle != cycle {
        return Err(dirty("its last record has no checksum"));
    }
    if !is_unmount {
        log.frozen(&last, head, cycle, superblock)?;
    }
    let newest_secs = log.newest(&last);
    log.device.read_ahead(&[]);
    Ok(LogEnd { head: (cycle, head as u32), record: last.header_crc, newest_secs })
}

impl Log<'_> {
    /// Reads `count` blocks from `at` on (both inside the log) into the buffer.
    fn read(&mut self, at: u64, count: u64) -> Result<(), VolumeFault> {
        self.buf.resize((count as usize) << BASIC_BITS, 0);
        Ok(self.device.read_at(self.start + (at << BASIC_BITS), &mut self.buf)?)
    }

    /// Reads `count` blocks from `at` on and around the end of the log.
    fn read_around(&mut self, at: u64, count: u64) -> Result<Vec<u8>, VolumeFault> {
        let now = count.min(self.blocks - at);
        self.read(at, now)?;
        let mut out = std::mem::take(&mut self.buf);
        if now < count {
            self.read(0, count - now)?;
            out.extend_from_slice(&self.buf);
        }
        Ok(out)
    }

    fn cycle(&mut self, at: u64) -> Result<u32, VolumeFault> {
        self.read(at, 1)?;
        Ok(cycle_of(&self.buf))
    }

    /// The first block whose cycle is `cycle`, when that of block 0 is not and that of the last block is.
    fn first_of(&mut self, cycle: u32) -> Result<u64, VolumeFault> {
        let (mut below, mut found) = (0, self.blocks - 1);
        while found - below > 1 {
            // Where the next steps may look, asked for at once: a wait for each of them is most of what opening costs.
            let parts = PROBES.min(found - below);
            let place = |part| below + (found - below) * part / parts;
            self.announce((1..parts).map(|part| place(part)..place(part) + 1));
            let (mut low, mut high) = (0, parts);
            while high - low > 1 {
                let middle = low + (high - low) / 2;
                match self.cycle(place(middle))? == cycle {
                    true => high = middle,
                    false => low = middle,
                }
            }
            (below, found) = (place(low), place(high));
        }
        self.device.read_ahead(&[]);
        Ok(found)
    }

    /// Tells the device which blocks will be read.
    fn announce(&mut self, blocks: impl Iterator<Item = Range<u64>>) {
        let byte = |at: u64| self.start + (at << BASIC_BITS);
        let ranges: Vec<_> = blocks.map(|range| byte(range.start)..byte(range.end)).collect();
        // An empty list would say that nothing more comes.
        if !ranges.is_empty() {
            self.device.read_ahead(&ranges);
        }
    }

    /// The only record of a log that xfs_repair or xfs_admin has cleared: an unmount at block 0, blocks never written where the rest
    /// of a record of 256 KiB would be, and the cycle before from there on. The first mount writes over all three.
    fn formatted(&mut self) -> Result<Option<Record>, VolumeFault> {
        self.read(0, 3.min(self.blocks))?;
        if self.buf.get(2 * BASIC_BYTES..).is_none_or(|block| cycle_of(block) != 0) {
            return Ok(None);
        }
        self.read(0, (STRETCH_BLOCKS + 1).min(self.blocks))?;
        let cycles: Vec<u32> = self.buf.chunks_exact(BASIC_BYTES).map(cycle_of).collect();
        let (cycle, is_header) = (u32_at(&self.buf, 4), u32_at(&self.buf, 0) == MAGIC);
        let Some(blank) = cycles.get(2..).filter(|_| is_header && cycle > 1) else { return Ok(None) };
        let after = 2 + blank.iter().take_while(|&&cycle| cycle == 0).count();
        let old = cycle - 1;
        if after == 2 || cycles.get(after) != Some(&old) || self.cycle(self.blocks - 1)? != old {
            return Ok(None);
        }
        let record = self.record(0)?;
        if record.end != 2 || record.cycle != cycle || record.ops != 1 || !Items::is_unmount(&record.data) {
            return Ok(None);
        }
        let after = after as u64;
        self.all(after, IN_FLIGHT_BLOCKS.min(self.blocks - after), |cycle| cycle == old)?;
        Ok(Some(record))
    }

    /// Where the next record would go, and the cycle of the one before it.
    fn head(&mut self) -> Result<(u64, u32), VolumeFault> {
        let (first, last) = (self.cycle(0)?, self.cycle(self.blocks - 1)?);
        if first == 0 || (last == 0 && first != 1) {
            return Err(dirty("it starts with no record"));
        }
        let head = if first == last { self.blocks } else { self.first_of(last)? };
        // Several records are written at a time and may end up out of order: no gap before the head, nothing new behind it.
        let before = head.min(IN_FLIGHT_BLOCKS);
        self.all(head - before, before, |cycle| cycle == first)?;
        let behind = (self.blocks - head).min(IN_FLIGHT_BLOCKS);
        self.all(head, behind, |cycle| cycle != first)?;
        if last != 0 && before < IN_FLIGHT_BLOCKS {
            let left = (IN_FLIGHT_BLOCKS - before).min(self.blocks - head);
            self.all(self.blocks - left, left, |cycle| cycle == last)?;
        }
        Ok((head % self.blocks, first))
    }

    /// Whether the cycles of `count` blocks from `at` on are all `sound`.
    fn all(&mut self, mut at: u64, count: u64, sound: impl Fn(u32) -> bool) -> Result<(), VolumeFault> {
        let end = at + count;
        let stretches = (at..end).step_by(STRETCH_BLOCKS as usize);
        self.announce(stretches.map(|at| at..end.min(at + STRETCH_BLOCKS)));
        while at < end {
            let now = STRETCH_BLOCKS.min(end - at);
            self.read(at, now)?;
            if !self.buf.chunks_exact(BASIC_BYTES).all(|block| sound(cycle_of(block))) {
                return Err(dirty("records around its head were not all written"));
            }
            at += now;
        }
        Ok(())
    }

    /// The last record before `head`.
    fn last_record(&mut self, head: u64) -> Result<Record, VolumeFault> {
        let mut end = head;
        let mut left = RECORD_BLOCKS_MAX.min(self.blocks);
        while left > 0 {
            if end == 0 {
                end = self.blocks;
            }
            let now = STRETCH_BLOCKS.min(end).min(left);
            self.read(end - now, now)?;
            let is_header = |block: &[u8]| u32_at(block, 0) == MAGIC;
            if let Some(index) = self.buf.chunks_exact(BASIC_BYTES).rposition(is_header) {
                return self.record(end - now + index as u64);
            }
            end -= now;
            left -= now;
        }
        Err(dirty("there is no record before its head"))
    }

    /// The record at block `at`.
    fn record(&mut self, at: u64) -> Result<Record, VolumeFault> {
        self.read(at, 1)?;
        let header = self.buf.clone();
        let (version, len, size) = (u32_at(&header, 8), u32_at(&header, 12), u32_at(&header, 320));
        let more = match version & VERSION_2 != 0 && size > HEADER_COVERS_BYTES {
            true => u64::from(size.div_ceil(HEADER_COVERS_BYTES) - 1),
            false => 0,
        };
        if u32_at(&header, 0) != MAGIC || len == 0 || len > RECORD_BYTES_MAX || size > RECORD_BYTES_MAX {
            return Err(dirty("a record header makes no sense"));
        }
        if array_at(&header, 304) != Some(self.sb.uuid) {
            return Err(dirty("a record is of another file system"));
        }
        let data_blocks = u64::from(len).div_ceil(BASIC_BYTES as u64);
        let total = 1 + more + data_blocks;
        if total >= self.blocks || u64_at(&header, 16) & 0xFFFF_FFFF != at {
            return Err(dirty("a record header makes no sense"));
        }
        let bytes = self.read_around(at, total)?;
        let (headers, data) = bytes.split_at(((1 + more) as usize) << BASIC_BITS);
        let crc = le32_at(&header, CHECKSUM_AT);
        let sums = HEADER_SUMMED_BYTES
            .map(|summed| sum(headers, summed, data.get(..len as usize).unwrap_or_default()));
        if crc != 0 && !sums.contains(&crc) {
            return Err(dirty("a record's checksum does not match"));
        }
        let mut data = data.to_vec();
        for (index, block) in data.chunks_exact_mut(BASIC_BYTES).enumerate() {
            let words = headers.get((index / HEADER_WORDS) << BASIC_BITS..).unwrap_or_default();
            let words_at = if index < HEADER_WORDS { WORDS_AT } else { 4 };
            let word: [u8; 4] = array_at(words, words_at + index % HEADER_WORDS * 4).unwrap_or_default();
            block[..4].copy_from_slice(&word);
        }
        data.truncate(len as usize);
        let tail = u64_at(&header, 24);
        Ok(Record {
            at,
            end: (at + total) % self.blocks,
            cycle: u32_at(&header, 4),
            ops: u32_at(&header, 40),
            tail: ((tail >> 32) as u32, tail as u32),
            before: u32_at(&header, 36),
            is_summed: crc != 0 && u32_at(&header, 300) == FORMAT_LINUX_LE,
            header_crc: crc32c(0, &header),
            data,
        })
    }

    /// Whether there is nothing between the tail that `last` names and the head but the superblock as it is.
    fn frozen(&mut self, last: &Record, head: u64, cycle: u32, superblock: &[u8]) -> Result<(), VolumeFault> {
        let tail = u64::from(last.tail.1);
        if tail >= self.blocks {
            return Err(dirty("its tail is outside"));
        }
        let mut left = match (head + self.blocks - tail) % self.blocks {
            0 => self.blocks,
            distance => distance,
        };
        if left > FROZEN_BLOCKS_MAX {
            return Err(dirty("it holds changes"));
        }
        let expected = |at: u64| if at < head || head == 0 { cycle } else { cycle.wrapping_sub(1) };
        if last.tail.0 != expected(tail) {
            return Err(dirty("its tail is of another cycle"));
        }
        let mut items = Items::new(superblock);
        let mut at = tail;
        while left > 0 {
            let record = self.record(at)?;
            let len = (record.end + self.blocks - at) % self.blocks;
            if !record.is_summed || record.cycle != expected(at) || len > left {
                return Err(dirty("its records do not follow each other"));
            }
            items.take(&record.data, record.ops).map_err(dirty)?;
            left -= len;
            at = record.end;
        }
        items.finish().map_err(dirty)
    }

    /// The newest inode change in the last records that hold any, in seconds since 1970: the least of several records, so that one
    /// inode with a time in the future does not stand for all. Whatever is odd ends the search.
    fn newest(&mut self, last: &Record) -> i64 {
        let (mut newest, mut found) = (0, 0);
        let mut add = |record: &Record| {
            let change = newest_change(&record.data, record.ops);
            if change > 0 {
                newest = if found == 0 { change } else { change.min(newest) };
                found += 1;
            }
            found == HISTORY_CHANGES
        };
        add(last);
        let (mut at, mut cycle, mut before) = (last.at, last.cycle, u64::from(last.before));
        for _ in 0..HISTORY_RECORDS {
            if before >= self.blocks || before == at {
                break;
            }
            let expected = if before < at { cycle } else { cycle.wrapping_sub(1) };
            match self.record(before) {
                Ok(record) if record.is_summed && record.cycle == expected && record.end == at => {
                    (at, cycle, before) = (record.at, record.cycle, u64::from(record.before));
                    if add(&record) {
                        break;
                    }
                }
                _ => break,
            }
        }
        newest
    }
}

/// The cycle in which a block was written.
fn cycle_of(block: &[u8]) -> u32 {
    match u32_at(block, 0) {
        MAGIC => u32_at(block, 4),
        cycle => cycle,
    }
}

/// Checksum of a record whose header counts with its first `summed` bytes.
fn sum(headers: &[u8], summed: usize, data: &[u8]) -> u32 {
    let mut blocks = headers.chunks_exact(BASIC_BYTES);
    let first = blocks.next().and_then(|block| block.get(..summed)).unwrap_or_default();
    let (head, rest) = first.split_at(CHECKSUM_AT.min(first.len()));
    let mut crc = crc32c(crc32c(0, head), &[0; 4]);
    crc = crc32c(crc, rest.get(4..).unwrap_or_default());
    for block in blocks {
        crc = crc32c(crc, &block[..MORE_HEADER_SUMMED_BYTES]);
    }
    crc32c(crc, data)
}
