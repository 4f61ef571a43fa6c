//! Coalescing: k segments become fewer, without the row versions that no cut needs.
//!
//! A cut is a live recovery point. The newest rows are always kept, for backups to come. With c the cuts:
//! - an item row of backup b is needed when a cut lies in `[b, next newer row of the item)`;
//! - a location row likewise with the next newer row of its base, unless the item rows at those cuts have a
//!   `rows_from` past b;
//! - a listing of backup b is needed when the item row at some cut has `rows_from` = b;
//! - a deletion is needed while an older row of the item is kept.
//!
//! The last two need all rows of the item, so they hold for [`Scope::Full`] only. In [`Scope::Part`] a row goes only when the
//! rows at hand prove it useless, which rests on `rows_from` never falling from one backup to the next.
//!
//! Memory: three streams, a segment builder, 4 bytes per cut, and 12 bytes per version of one item. Time: linear in the rows.
//!
//! [`judge`] says the same of each row and writes nothing: garbage is counted with it.
//!
//! Does not: choose segments, commit the change or delete the old ones. Source: leveled compaction; the rules are ours.

use super::segment::{SegmentSink, SegmentWriter, WriteFault};
use super::source::{Fetch, Source, TableFault, TailRef};
use super::stream::Stream;
use crate::format::key::{BACKUP_NEWEST, KeyRef, RowKey};
use crate::format::row::{Row, RowKind};
use crate::id::{BackupId, Lin, ObjectId};

/// Whether the segments at hand are all that hold rows of their LINs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// All of them.
    Full,
    /// Some of them.
    Part,
}

/// What a step did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// There is more.
    More,
    /// Everything is written.
    Done,
}

/// An item row seen, and for how long it was the item's newest.
#[derive(Clone, Copy, Debug)]
struct Version {
    backup: BackupId,
    /// Backup of the next newer row.
    until: Option<BackupId>,
    /// `None` for a deletion.
    rows_from: Option<BackupId>,
}

const KINDS: [RowKind; 3] = [RowKind::Item, RowKind::Name, RowKind::Location];

/// Which rows are needed; it sees all rows in their order.
struct Judge {
    /// Ascending, the last is [`BACKUP_NEWEST`].
    cuts: Vec<BackupId>,
    scope: Scope,
    lin: Option<Lin>,
    versions: Vec<Version>,
    /// Place of the last location row: base and backup.
    location: Option<(u64, BackupId)>,
}

/// A coalescing run.
pub struct Coalesce {
    streams: [Stream; 3],
    judge: Judge,
    writer: SegmentWriter,
    deletions: Vec<Row>,
    rows_in: u64,
    rows_out: u64,
}

/// The stream whose next row is of the least item; of equal ones the first, so that an item's own rows come before its others.
fn least<F: Fetch>(
    streams: &mut [Stream; 3],
    source: &mut Source<F>,
) -> Result<Option<(Lin, usize)>, TableFault> {
    let mut next: Option<(Lin, usize)> = None;
    for (at, stream) in streams.iter_mut().enumerate() {
        let Some(lin) = stream.peek_lin(source)? else {
            continue;
        };
        if next.is_none_or(|(least, _)| lin < least) {
            next = Some((lin, at));
        }
    }
    Ok(next)
}

/// Tells `on` of each row of `segments`, which are all of a volume, the segment that has it, and whether a merge of all of them for `cuts`
/// would keep it. Of rows with one key the first is kept. Writes nothing. `stop` is asked every some thousand rows: `Ok(false)` when it ended
/// early.
pub fn judge<F: Fetch>(
    segments: impl IntoIterator<Item = TailRef> + Clone,
    cuts: &[BackupId],
    source: &mut Source<F>,
    stop: &dyn Fn() -> bool,
    on: &mut dyn FnMut(&Row, ObjectId, bool),
) -> Result<bool, TableFault> {
    let from = KeyRef::first_of(Lin::default());
    let mut streams = KINDS.map(|kind| Stream::new(kind, from, segments.clone()).keep_duplicates());
    let mut judge = Judge::new(cuts, Scope::Full);
    let mut last: [Option<RowKey>; 3] = Default::default();
    let mut rows = 0u64;
    while let Some((lin, at)) = least(&mut streams, source)? {
        judge.enter(lin);
        let Some(row) = streams[at].next(source)? else { continue };
        let key = row.as_ref().key();
        let again = last[at].as_ref().is_some_and(|last| last.as_ref() == key);
        last[at] = Some(key.to_owned());
        let keep = !again && judge.needs(&row);
        on(&row, streams[at].last_tail(), keep);
        rows += 1;
        if rows.is_multiple_of(STOP_ROWS) && stop() {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Rows between two looks at whether to stop.
const STOP_ROWS: u64 = 4096;

impl Coalesce {
    /// Coalesces `segments` for the live recovery points `cuts`, any order. A backup that is
    /// running needs no cut.
    pub fn new(
        segments: impl IntoIterator<Item = TailRef> + Clone,
        cuts: &[BackupId],
        scope: Scope,
        writer: SegmentWriter,
    ) -> Coalesce {
        let from = KeyRef::first_of(Lin::default());
        Coalesce {
            streams: KINDS.map(|kind| Stream::new(kind, from, segments.clone())),
            judge: Judge::new(cuts, scope),
            writer,
            deletions: Vec::new(),
            rows_in: 0,
            rows_out: 0,
        }
    }

    /// Rows read and rows written so far.
    pub fn rows(&self) -> (u64, u64) {
        (self.rows_in, self.rows_out)
    }

    /// Handles up to `budget` rows. After a fault the run is over: start another.
    pub fn step<F: Fetch>(
        &mut self,
        source: &mut Source<F>,
        sink: &mut dyn SegmentSink,
        budget: u32,
    ) -> Result<Progress, TableFault> {
        self.step_with(source, sink, budget, &mut |_| Ok(()))
    }

    /// The same; `on` has each row before it is written, and may change what it says, but not its key.
    pub fn step_with<F: Fetch>(
        &mut self,
        source: &mut Source<F>,
        sink: &mut dyn SegmentSink,
        budget: u32,
        on: &mut dyn FnMut(&mut Row) -> Result<(), TableFault>,
    ) -> Result<Progress, TableFault> {
        for _ in 0..budget {
            let Some((lin, at)) = least(&mut self.streams, source)? else {
                self.writer.finish(sink).map_err(fault_of)?;
                return Ok(Progress::Done);
            };
            if self.judge.enter(lin) {
                self.deletions.clear();
            }
            if let Some(row) = self.streams[at].next(source)? {
                self.rows_in += 1;
                self.take(row, sink, on)?;
            }
        }
        Ok(Progress::More)
    }

    fn take(
        &mut self,
        mut row: Row,
        sink: &mut dyn SegmentSink,
        on: &mut dyn FnMut(&mut Row) -> Result<(), TableFault>,
    ) -> Result<(), TableFault> {
        if !self.judge.needs(&row) {
            return Ok(());
        }
        if let Row::Item(item) = &row {
            if item.item.is_none() && self.judge.scope == Scope::Full {
                self.deletions.push(row);
                return Ok(());
            }
            for deletion in std::mem::take(&mut self.deletions) {
                self.write(&deletion, sink)?;
            }
        }
        on(&mut row)?;
        self.write(&row, sink)
    }

    fn write(&mut self, row: &Row, sink: &mut dyn SegmentSink) -> Result<(), TableFault> {
        self.rows_out += 1;
        self.writer.push(row.as_ref(), sink).map_err(fault_of)
    }
}

impl Judge {
    /// See [`Coalesce::new`].
    fn new(cuts: &[BackupId], scope: Scope) -> Judge {
        let mut cuts = cuts.to_vec();
        cuts.push(BACKUP_NEWEST);
        cuts.sort();
        Judge { cuts, scope, lin: None, versions: Vec::new(), location: None }
    }

    /// The next row is of this item; whether it is another one than before.
    fn enter(&mut self, lin: Lin) -> bool {
        if self.lin == Some(lin) {
            return false;
        }
        self.lin = Some(lin);
        self.versions.clear();
        self.location = None;
        true
    }

    /// Whether a row is needed; a deletion is while an older row of its item is.
    fn needs(&mut self, row: &Row) -> bool {
        match row {
            Row::Item(item) => {
                let version = Version {
                    backup: item.backup,
                    until: self.versions.last().map(|newer| newer.backup),
                    rows_from: item.item.as_ref().map(|item| item.rows_from),
                };
                self.versions.push(version);
                self.has_cut(version.backup, version.until)
            }
            Row::Name(name) => self.needs_listing(name.backup),
            Row::Location(location) => {
                let newer =
                    self.location.filter(|(base, _)| *base == location.base).map(|(_, backup)| backup);
                self.location = Some((location.base, location.backup));
                self.needs_location(location.backup, newer)
            }
            Row::Entry(_) => true,
        }
    }

    /// Whether a cut lies in `[from, until)`.
    fn has_cut(&self, from: BackupId, until: Option<BackupId>) -> bool {
        let first = self.cuts.partition_point(|cut| *cut < from);
        self.cuts.get(first).is_some_and(|cut| until.is_none_or(|until| *cut < until))
    }

    fn needs_listing(&self, backup: BackupId) -> bool {
        match self.scope {
            Scope::Full => self.versions.iter().any(|version| {
                version.rows_from == Some(backup) && self.has_cut(version.backup, version.until)
            }),
            Scope::Part => !self.is_outdated(backup),
        }
    }

    fn needs_location(&self, backup: BackupId, newer: Option<BackupId>) -> bool {
        if !self.has_cut(backup, newer) {
            return false;
        }
        match self.scope {
            Scope::Full => self.versions.iter().any(|version| {
                let until = match (version.until, newer) {
                    (Some(a), Some(b)) => Some(a.min(b)),
                    (a, b) => a.or(b),
                };
                version.rows_from.is_some_and(|from| from <= backup)
                    && self.has_cut(version.backup.max(backup), until)
            }),
            Scope::Part => !self.is_outdated(backup),
        }
    }

    /// Whether at every cut from `backup` on the item's `rows_from` is past `backup`, or the item was deleted since: proven by
    /// one row seen that the first such cut already has, because `rows_from` never falls.
    fn is_outdated(&self, backup: BackupId) -> bool {
        let first = self.cuts.partition_point(|cut| *cut < backup);
        let Some(cut) = self.cuts.get(first) else {
            return false;
        };
        self.versions
            .iter()
            .any(|version| version.backup <= *cut && version.rows_from.unwrap_or(version.backup) > backup)
    }
}

pub(super) fn fault_of(fault: WriteFault) -> TableFault {
    match fault {
        WriteFault::Store(fault) => TableFault::Store(fault),
        WriteFault::Row(fault) => TableFault::Write(fault),
    }
}
