//! What log records hold: operations of transactions, whose first one names an item and the others are its pieces.
//!
//! ```text
//!  operation: 0 4 transaction, 4 4 length, 8 1 client, 9 1 flags, 10 2 unused; then the bytes
//!  flags: 1 start, 2 commit, 4 goes on in the next record, 8 came from the one before, 16 ends there, 32 unmount
//!
//!  transaction: start (no bytes); header "TRAN", type, tid, items (16 bytes); items; commit (no bytes)
//!
//!  buffer item (type 0x123C, little-endian like all that follows the header)
//!  0 2 type, 2 2 operations of the item, 4 2 flags, 6 2 length in blocks of 512, 8 8 place in blocks of 512,
//!  16 4 words in the map, 20 the map: one bit per 128 bytes of the buffer; then one operation per run of set bits
//!
//!  inode item (type 0x123B): its second operation is the inode's core in the byte order of the machine
//! ```
//!
//! Source: kernel `fs/xfs/libxfs/xfs_log_format.h`, `xfs_buf_item.c`.

use super::field::{le16_at, le32_at, le64_at, slice_at, u8_at, u32_at};
use super::inode::{big_time, flag2};
use super::superblock::{CHECKSUM_AT, FIELDS_END};

const OP_BYTES: usize = 12;
const OP_START: u8 = 1;
const OP_COMMIT: u8 = 2;
const OP_SPLIT: u8 = 4 | 8 | 16;
const OP_UNMOUNT: u8 = 32;
const TRANSACTION_MAGIC: u32 = 0x5452_414E;
const TRANSACTION_BYTES: usize = 16;
const BUFFER_ITEM: u16 = 0x123C;
const BUFFER_CANCELLED: u16 = 2;
/// Bytes of a buffer that one bit of the map stands for.
const CHUNK_BYTES: usize = 128;
/// Fields of the superblock that may differ from the device: counters, its checksum, its own place in the log.
const VOLATILE: [std::ops::Range<usize>; 3] = [128..160, CHECKSUM_AT..CHECKSUM_AT + 4, 240..248];
const INODE_MAGIC: u16 = 0x494E;
const INODE_CORE_BYTES: usize = 176;

/// One operation.
struct Op<'a> {
    flags: u8,
    transaction: u32,
    bytes: &'a [u8],
}

/// The operations of a record.
struct Ops<'a> {
    data: &'a [u8],
    left: u32,
}

impl<'a> Iterator for Ops<'a> {
    type Item = Result<Op<'a>, &'static str>;

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let data = self.data;
        let len = u32_at(data, 4) as usize;
        let Some(bytes) = slice_at(data, OP_BYTES, len).filter(|_| data.len() >= OP_BYTES) else {
            self.left = 0;
            return Some(Err("a record ends within an operation"));
        };
        self.data = data.get(OP_BYTES + len..).unwrap_or_default();
        Some(Ok(Op { flags: u8_at(data, 9), transaction: u32_at(data, 0), bytes }))
    }
}

/// What the transaction being read waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Wants {
    Start,
    Header,
    Item,
    /// Pieces of the superblock, as (byte, length), last one first.
    Pieces(Vec<(usize, usize)>),
}

/// A check that records hold nothing but the superblock as it is.
pub(super) struct Items<'a> {
    superblock: &'a [u8],
    wants: Wants,
    transaction: u32,
}

impl<'a> Items<'a> {
    /// For the superblock in the sector `superblock`.
    pub(super) fn new(superblock: &'a [u8]) -> Items<'a> {
        Items { superblock, wants: Wants::Start, transaction: 0 }
    }

    /// Whether the first operation is an unmount.
    pub(super) fn is_unmount(data: &[u8]) -> bool {
        u8_at(data, 9) & OP_UNMOUNT != 0
    }

    /// Checks the `ops` operations of a record.
    pub(super) fn take(&mut self, data: &[u8], ops: u32) -> Result<(), &'static str> {
        for op in (Ops { data, left: ops }) {
            self.one(&op?)?;
        }
        Ok(())
    }

    /// Checks that no transaction is open.
    pub(super) fn finish(&self) -> Result<(), &'static str> {
        match self.wants {
            Wants::Start => Ok(()),
            _ => Err("its last transaction is not whole"),
        }
    }

    fn one(&mut self, op: &Op<'_>) -> Result<(), &'static str> {
        let foreign = op.transaction != self.transaction && self.wants != Wants::Start;
        if op.flags & OP_SPLIT != 0 || foreign {
            return Err("it holds changes");
        }
        self.wants = match &mut self.wants {
            Wants::Start if op.flags & OP_UNMOUNT != 0 => Wants::Start,
            Wants::Start if op.flags == OP_START && op.bytes.is_empty() => {
                self.transaction = op.transaction;
                Wants::Header
            }
            Wants::Header
                if op.bytes.len() == TRANSACTION_BYTES && le32_at(op.bytes, 0) == TRANSACTION_MAGIC =>
            {
                Wants::Item
            }
            Wants::Item if op.flags == OP_COMMIT && op.bytes.is_empty() => Wants::Start,
            Wants::Item if op.flags == 0 => pieces(op.bytes).ok_or("it holds changes")?,
            Wants::Pieces(left) => {
                let (at, len) = left.pop().ok_or("it holds changes")?;
                if op.bytes.len() != len || !same(self.superblock, op.bytes, at) {
                    return Err("it holds another superblock");
                }
                if left.is_empty() { Wants::Item } else { return Ok(()) }
            }
            _ => return Err("it holds changes"),
        };
        Ok(())
    }
}

/// The pieces that a buffer item announces, when its buffer is the superblock.
fn pieces(item: &[u8]) -> Option<Wants> {
    let is_superblock = le16_at(item, 0) == BUFFER_ITEM
        && le16_at(item, 4) & BUFFER_CANCELLED == 0
        && le64_at(item, 8) == 0
        && item.len() >= 20;
    let words = le32_at(item, 16) as usize;
    let bytes = usize::from(le16_at(item, 6)) << 9;
    let map = slice_at(item, 20, words.checked_mul(4)?).filter(|_| is_superblock)?;
    let mut out: Vec<(usize, usize)> = Vec::new();
    for chunk in (0..map.len() * 8).filter(|bit| map[bit / 8] >> (bit % 8) & 1 != 0) {
        let at = chunk * CHUNK_BYTES;
        if at + CHUNK_BYTES > bytes {
            return None;
        }
        match out.last_mut() {
            Some((from, len)) if *from + *len == at => *len += CHUNK_BYTES,
            _ => out.push((at, CHUNK_BYTES)),
        }
    }
    out.reverse();
    let announced = usize::from(le16_at(item, 2)) == out.len() + 1;
    (announced && !out.is_empty()).then_some(Wants::Pieces(out))
}

/// Whether `bytes`, logged for byte `at` of the superblock's sector, equal it, counters aside.
fn same(superblock: &[u8], bytes: &[u8], at: usize) -> bool {
    bytes.iter().zip(at..).all(|(&byte, at)| {
        superblock.get(at) == Some(&byte)
            || VOLATILE.iter().any(|range| range.contains(&at))
            || at >= FIELDS_END
    })
}

/// The newest inode change in a record, in seconds since 1970; 0 when it holds none.
pub(super) fn newest_change(data: &[u8], ops: u32) -> i64 {
    let cores = (Ops { data, left: ops }).map_while(Result::ok).filter(|op| {
        op.flags & OP_SPLIT == 0
            && op.bytes.len() == INODE_CORE_BYTES
            && le16_at(op.bytes, 0) == INODE_MAGIC
            && u8_at(op.bytes, 4) == 3
    });
    let changes = cores.map(|op| match le64_at(op.bytes, 120) & flag2::BIGTIME {
        0 => i64::from(le32_at(op.bytes, 48) as i32),
        _ => big_time(le64_at(op.bytes, 48)).secs,
    });
    changes.max().unwrap_or(0).max(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn op(out: &mut Vec<u8>, flags: u8, bytes: &[u8]) {
        out.extend_from_slice(&7u32.to_be_bytes());
        out.extend_from_slice(&(bytes.len() as u32).to_be_bytes());
        out.extend_from_slice(&[0x69, flags, 0, 0]);
        out.extend_from_slice(bytes);
    }

    /// A transaction with one buffer item at `place`, whose pieces are `superblock[128..384]`.
    fn transaction(place: u64, superblock: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        op(&mut out, OP_START, &[]);
        let mut header = TRANSACTION_MAGIC.to_le_bytes().to_vec();
        header.extend_from_slice(&[40, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0]);
        op(&mut out, 0, &header);
        let mut item = vec![0x3C, 0x12, 2, 0, 0, 0, 1, 0];
        item.extend_from_slice(&place.to_le_bytes());
        item.extend_from_slice(&[1, 0, 0, 0, 0b110, 0, 0, 0]);
        op(&mut out, 0, &item);
        op(&mut out, 0, &superblock[128..384]);
        op(&mut out, OP_COMMIT, &[]);
        out
    }

    #[test]
    fn only_the_superblock_as_it_is_passes() {
        let superblock: Vec<u8> = (0..512u32).map(|i| i as u8).collect();
        let check = |data: &[u8], ops| {
            let mut items = Items::new(&superblock);
            items.take(data, ops).and_then(|()| items.finish())
        };
        let sound = transaction(0, &superblock);
        assert_eq!(check(&sound, 5), Ok(()));
        assert!(check(&sound, 4).is_err(), "no commit");
        assert!(check(&sound, 6).is_err(), "an operation too many");
        assert!(check(&transaction(8, &superblock), 5).is_err(), "another buffer");
        let mut counters = superblock.clone();
        counters[150] ^= 1;
        assert_eq!(check(&transaction(0, &counters), 5), Ok(()));
        counters[164] ^= 1;
        assert!(check(&transaction(0, &counters), 5).is_err());
        let mut split = sound.clone();
        split[OP_BYTES + 9] = 4;
        assert!(check(&split, 5).is_err());
        let twice = [sound.clone(), sound].concat();
        assert_eq!(check(&twice, 10), Ok(()));
    }

    #[test]
    fn changes_of_inodes_are_found() {
        let mut core = vec![0; INODE_CORE_BYTES];
        core[..2].copy_from_slice(&INODE_MAGIC.to_le_bytes());
        core[4] = 3;
        core[48..52].copy_from_slice(&1_700_000_000u32.to_le_bytes());
        let mut data = Vec::new();
        op(&mut data, 0, &core);
        assert_eq!(newest_change(&data, 1), 1_700_000_000);
        core[120] = 8;
        core[48..56].copy_from_slice(&((1_700_000_001u64 + (1 << 31)) * 1_000_000_000).to_le_bytes());
        op(&mut data, 0, &core);
        assert_eq!(newest_change(&data, 2), 1_700_000_001);
        assert_eq!(newest_change(&data, 0), 0);
    }
}
