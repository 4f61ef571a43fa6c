//! Rows that cannot be read: of which segment, and where they would be.
//!
//! A reader that tolerates damage goes on behind it, and reports for each item whether rows of it may be
//! lost: if the newest row of an item is older than what was lost there, the item is not known, even if older
//! rows of it can be read. A row block takes its stretch of keys along, an index or a missing segment all
//! that it covers.
//!
//! Invariants: nothing is taken for absent, or for in force, that a lost row could contradict. Bound: [`LOST_ROWS_MAX`]; past it the next damage
//! ends the reading, as without tolerance.
//! Does not: read. Source: ours.

use std::fmt;
use std::ops::RangeInclusive;

use super::source::{BlockAt, TableFault, TailRef};
use crate::format::fault::FormatFault;
use crate::format::row::RowKind;
use crate::format::tail::Index;
use crate::id::{BackupId, Lin, ObjectId};
use crate::store::StoreFaultKind;

/// Stretches of lost rows that a reader remembers: 128 bytes each.
pub const LOST_ROWS_MAX: usize = 1024;

/// The segment in which rows are lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LostRows {
    /// Name of the segment.
    pub segment: ObjectId,
    /// What is wrong with it; `None`: the store does not have it.
    pub what: Option<FormatFault>,
}

/// Where its lost rows would be.
#[derive(Clone, Copy, Debug)]
struct Stretch {
    rows: LostRows,
    /// Byte offset of the row block; `None`: all of the segment.
    block: Option<u64>,
    /// Of which kind; `None`: of all.
    kind: Option<RowKind>,
    first: Lin,
    last: Lin,
    backups: (BackupId, BackupId),
}

impl fmt::Display for LostRows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.what {
            None => write!(f, "its rows may be in segment {}, which is missing", self.segment)?,
            Some(what) => {
                write!(f, "its rows may be in segment {}, which is damaged ({what})", self.segment)?
            }
        }
        f.write_str("; `windlass repo rebuild` makes the tables anew from the objects")
    }
}

/// Tells rows that are lost from what keeps a reader from going on.
pub fn known<T>(read: Result<T, TableFault>) -> Result<Result<T, LostRows>, TableFault> {
    match read {
        Ok(value) => Ok(Ok(value)),
        Err(TableFault::Lost(lost)) => Ok(Err(lost)),
        Err(fault) => Err(fault),
    }
}

/// What a tolerant reader has come upon so far.
#[derive(Debug, Default)]
pub(super) struct Losses {
    list: Vec<Stretch>,
}

impl Losses {
    /// Takes in that a tail, or a row block of it, cannot be read. `index` is the tail's, when it is about a block. The fault comes back when it
    /// is no damage, or one too many.
    pub(super) fn add(
        &mut self,
        tail: &TailRef,
        block: Option<(&BlockAt, &Index)>,
        fault: TableFault,
    ) -> Result<(), TableFault> {
        let what = match &fault {
            TableFault::Format { fault, .. } => Some(*fault),
            TableFault::Store(fault) if fault.kind == StoreFaultKind::NotFound => None,
            _ => return Err(fault),
        };
        if self.list.len() >= LOST_ROWS_MAX {
            return Err(fault);
        }
        let mut lost = Stretch {
            rows: LostRows { segment: tail.id, what },
            block: None,
            kind: None,
            first: tail.first,
            last: tail.last,
            backups: (tail.backup_min, tail.backup_max),
        };
        if let (Some((at, index)), true) = (block, what.is_some()) {
            let Some(info) = index.blocks(at.kind).iter().find(|info| info.offset == at.offset) else {
                return Err(fault);
            };
            (lost.block, lost.kind) = (Some(at.offset), Some(at.kind));
            (lost.first, lost.last) = (info.first.lin, info.last.lin);
        }
        self.list.push(lost);
        Ok(())
    }

    /// Counts a whole tail as lost, whatever can still be read of it.
    pub(super) fn distrust(&mut self, tail: &TailRef) {
        let fault = crate::store::StoreFault::new(StoreFaultKind::NotFound, "GET", "", "");
        // Full: it is found out when it is read.
        let _ = self.add(tail, None, TableFault::Store(fault));
    }

    /// Whether a tail, or this row block of it, is known to be lost.
    pub(super) fn has(&self, tail: &ObjectId, block: Option<u64>) -> bool {
        self.list
            .iter()
            .any(|lost| lost.rows.segment == *tail && (lost.block.is_none() || lost.block == block))
    }

    /// Lost rows that an item may have among those of these backups.
    pub(super) fn at(&self, kind: RowKind, lin: Lin, backups: RangeInclusive<BackupId>) -> Option<LostRows> {
        let may_be = |lost: &&Stretch| {
            lost.kind.is_none_or(|of| of == kind)
                && (lost.first..=lost.last).contains(&lin)
                && !backups.is_empty()
                && lost.backups.0 <= *backups.end()
                && lost.backups.1 >= *backups.start()
        };
        self.list.iter().find(may_be).map(|lost| lost.rows)
    }

    /// All of them.
    pub(super) fn all(&self) -> impl Iterator<Item = LostRows> + '_ {
        self.list.iter().map(|lost| lost.rows)
    }
}
