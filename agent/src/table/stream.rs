//! Rows of one kind out of many tails, in one order: a merge that opens a tail only when its stretch of keys begins.
//!
//! Memory: per open tail one plain row block, one row, 24 bytes per row block to come, and its share of the read-ahead; a long run of segments that do not
//! overlap is one open tail (two at the seams). Time: a comparison per open tail and row; GETs start with one row block, through
//! the cache, and double up to the read-ahead.
//!
//! Invariants: keys ascend strictly, whatever the store gives (else a fault ends the stream); of equal keys the row of the greatest object id that goes first is given, or else of the least, and the others are dropped.
//! Does not: apply the reading rules (see `read`). Source: ours.

use std::cmp::{Ordering, Reverse};
use std::sync::Arc;

use super::source::{BlockAt, Fetch, Source, TableFault, TailRef};
use crate::format::block::{BlockCursor, RowBlock};
use crate::format::fault::FormatFault;
use crate::format::key::{KeyRef, RowKey};
use crate::format::row::{Row, RowKind};
use crate::id::{Lin, ObjectId};
use crate::limits::READ_GAP_BYTES;
use crate::store::StoreFaultKind;

/// An ordered stream of rows of one kind. The source is lent to each call, so that look-ups can go on in between. After a
/// fault the same call may be repeated: nothing was lost.
pub struct Stream {
    kind: RowKind,
    from: RowKey,
    /// Tails not yet open, the next one last.
    waiting: Vec<TailRef>,
    open: Vec<Open>,
    last: Option<RowKey>,
    /// The tail that the last row came from.
    last_tail: ObjectId,
    merge_duplicates: bool,
}

struct Open {
    tail: TailRef,
    /// Row blocks after the current one, the next one last: the index need not stay in memory.
    blocks: Vec<BlockAt>,
    block: Option<(Arc<RowBlock>, BlockCursor)>,
    head: Option<Row>,
    ahead: Vec<u8>,
    ahead_at: u64,
    ahead_len: u64,
}

impl Stream {
    /// Rows of `kind` at or after `from` (in tails that may hold such) out of `tails`.
    pub fn new(kind: RowKind, from: KeyRef<'_>, tails: impl IntoIterator<Item = TailRef>) -> Stream {
        let is_ahead = |tail: &TailRef| tail.rows[kind.index()] > 0 && tail.end(kind) > (from.lin, from.base);
        let mut waiting: Vec<TailRef> = tails.into_iter().filter(is_ahead).collect();
        waiting.sort_by_key(|tail| Reverse((tail.begin(kind), tail.id)));
        Stream {
            kind,
            from: from.to_owned(),
            waiting,
            open: Vec::new(),
            last: None,
            last_tail: ObjectId::default(),
            merge_duplicates: true,
        }
    }

    /// Gives rows of equal keys one after another instead of the first of them.
    pub fn keep_duplicates(mut self) -> Stream {
        self.merge_duplicates = false;
        self
    }

    /// The LIN of the next row, without taking it.
    pub fn peek_lin<F: Fetch>(&mut self, source: &mut Source<F>) -> Result<Option<Lin>, TableFault> {
        let at = self.settle(source)?;
        Ok(at.and_then(|at| self.open[at].head.as_ref()).map(Row::lin))
    }

    /// The next row, without taking it.
    pub fn peek<F: Fetch>(&mut self, source: &mut Source<F>) -> Result<Option<&Row>, TableFault> {
        let at = self.settle(source)?;
        Ok(at.and_then(|at| self.open[at].head.as_ref()))
    }

    /// The next row; `None` after the last.
    pub fn next<F: Fetch>(&mut self, source: &mut Source<F>) -> Result<Option<Row>, TableFault> {
        let Some(at) = self.settle(source)? else {
            return Ok(None);
        };
        let Some(row) = self.open[at].head.take() else {
            return Ok(None);
        };
        self.last_tail = self.open[at].tail.id;
        match &mut self.last {
            Some(last) => last.set(row.as_ref().key()),
            none => *none = Some(row.as_ref().key().to_owned()),
        }
        Ok(Some(row))
    }

    /// The tail that the row which was taken last came from.
    pub fn last_tail(&self) -> ObjectId {
        self.last_tail
    }

    /// Fills the heads, opens what is due, drops what is done and duplicates; returns which open tail has the next row.
    fn settle<F: Fetch>(&mut self, source: &mut Source<F>) -> Result<Option<usize>, TableFault> {
        loop {
            let share = source.limits().ahead_bytes / self.open.len().max(1);
            let mut at = 0;
            while at < self.open.len() {
                if self.open[at].head.is_none() && !self.open[at].advance(share, source)? {
                    self.open.swap_remove(at);
                } else {
                    at += 1;
                }
            }
            let least = self.least();
            let head = least.and_then(|at| self.open[at].head.as_ref()).map(|row| row.as_ref().key());
            let due = self
                .waiting
                .last()
                .is_some_and(|tail| head.is_none_or(|head| tail.begin(self.kind) <= (head.lin, head.base)));
            if due {
                if self.open.len() >= source.limits().sources {
                    return Err(TableFault::TooManySegments(self.open.len() + 1));
                }
                if let Some(tail) = self.waiting.last().copied() {
                    let open = match source.is_lost(&tail, None) {
                        true => None,
                        false => Open::new(tail, self.kind, self.from.as_ref(), source)?,
                    };
                    self.waiting.pop();
                    self.open.extend(open);
                }
                continue;
            }
            let Some(at) = least else {
                return Ok(None);
            };
            let head = self.open[at].head.as_ref().map(|row| row.as_ref().key());
            match head.cmp(&self.last.as_ref().map(RowKey::as_ref)) {
                Ordering::Equal if self.merge_duplicates => self.open[at].head = None,
                Ordering::Equal | Ordering::Greater => return Ok(Some(at)),
                // A tail whose blocks differ from its index, or which begins before the key in the log:
                // merges and rebuilds rely on the order.
                Ordering::Less => {
                    let fault = FormatFault::damaged("row block", "rows are not in order");
                    return Err(TableFault::Format { id: self.open[at].tail.id, fault });
                }
            }
        }
    }

    /// The open tail whose head comes first; of equal keys that of the greatest object id that goes first, or else of the least.
    fn least(&self) -> Option<usize> {
        let keyed = self.open.iter().enumerate().filter_map(|(at, open)| {
            let key = open.head.as_ref()?.as_ref().key();
            let (first, id) = (open.tail.goes_first, open.tail.id);
            let newest = first.then_some(Reverse(id));
            Some((key, Reverse(first), newest, id, at))
        });
        keyed.min().map(|(.., at)| at)
    }
}

impl Open {
    /// Opens a tail at the first row at or after `from`; `None` when there is none.
    fn new<F: Fetch>(
        tail: TailRef,
        kind: RowKind,
        from: KeyRef<'_>,
        source: &mut Source<F>,
    ) -> Result<Option<Open>, TableFault> {
        let index = match source.index(&tail) {
            Ok(index) => index,
            Err(fault) => return source.lose(&tail, None, fault).map(|()| None),
        };
        let blocks =
            index.blocks(kind).iter().skip(index.seek(kind, from)).rev().map(BlockAt::from).collect();
        drop(index);
        let mut open =
            Open { tail, blocks, block: None, head: None, ahead: Vec::new(), ahead_at: 0, ahead_len: 0 };
        while open.advance(0, source)? {
            if open.head.as_ref().is_some_and(|row| row.as_ref().key() >= from) {
                return Ok(Some(open));
            }
        }
        Ok(None)
    }

    /// Takes the next row into `head`; `false` after the last. `share` is the most to read ahead.
    fn advance<F: Fetch>(&mut self, share: usize, source: &mut Source<F>) -> Result<bool, TableFault> {
        loop {
            if let Some((block, cursor)) = &mut self.block {
                let id = self.tail.id;
                let row = cursor.next(block).map_err(|fault| TableFault::Format { id, fault })?;
                if row.is_some() {
                    self.head = row;
                    return Ok(true);
                }
                self.block = None;
            }
            let Some(info) = self.blocks.last().copied() else {
                self.head = None;
                return Ok(false);
            };
            let known = source.is_lost(&self.tail, Some(&info));
            let block = if known { None } else { self.read(info, share, source)? };
            let Some(block) = block else {
                // Lost: on to the next one.
                self.blocks.pop();
                continue;
            };
            let id = self.tail.id;
            let cursor = block.cursor().map_err(|fault| TableFault::Format { id, fault })?;
            self.block = Some((block, cursor));
            self.blocks.pop();
        }
    }
}

impl Open {
    /// The next row block; `None` when it cannot be read and the reader tolerates that.
    fn read<F: Fetch>(
        &mut self,
        info: BlockAt,
        share: usize,
        source: &mut Source<F>,
    ) -> Result<Option<Arc<RowBlock>>, TableFault> {
        let len = u64::from(info.bytes);
        if self.ahead_len > 0
            && let Some(block) = source.cached(&self.tail, &info)
        {
            return Ok(Some(block));
        }
        if self.ahead_len > 0 {
            let have = self.ahead_at..self.ahead_at + self.ahead.len() as u64;
            if info.offset < have.start || info.offset + len > have.end {
                let want = self.ahead_len.min(share as u64);
                let stretch = stretch_of(self.blocks.iter().rev(), want);
                self.ahead = match source.stretch(&self.tail, info.offset, stretch) {
                    Err(TableFault::Store(fault)) if fault.kind == StoreFaultKind::NotFound => Vec::new(),
                    other => other?,
                };
                self.ahead_at = info.offset;
                self.ahead_len = self.ahead_len.saturating_mul(2);
            }
            let at = (info.offset - self.ahead_at) as usize;
            let bytes = self.ahead.get_mut(at..at + len as usize).unwrap_or_default();
            if let Ok(block) = source.open(&self.tail, &info, bytes) {
                return Ok(Some(Arc::new(block)));
            }
        } else {
            self.ahead_len = 2 * len;
        }
        // The first one, through the cache; or one that did not open, which is read again by itself before it is damage.
        match source.block(&self.tail, &info) {
            Ok(block) => Ok(Some(block)),
            Err(fault) => source.lose(&self.tail, Some(&info), fault).map(|()| None),
        }
    }
}

/// Bytes from the first of `blocks` that are worth one request: as many blocks as lie near each other and within `want`, at
/// least one.
fn stretch_of<'a>(mut blocks: impl Iterator<Item = &'a BlockAt>, want: u64) -> u64 {
    let Some(first) = blocks.next() else {
        return 0;
    };
    let mut end = first.offset + u64::from(first.bytes);
    for block in blocks {
        let block_end = block.offset + u64::from(block.bytes);
        if block.offset - end > READ_GAP_BYTES || block_end - first.offset > want {
            break;
        }
        end = block_end;
    }
    end - first.offset
}
