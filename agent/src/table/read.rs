//! Reading the tables at a cut: the rules of `format::row`, over any number of segments.
//!
//! | call | what | cost |
//! |---|---|---|
//! | [`TableReader::item`] | an item's row at a cut | an index and a row block per segment that covers the LIN, cached |
//! | [`TableReader::lookup`] | a name in a directory | the same, per run of the listing |
//! | [`TableReader::names`] | a directory's listing, in (run, name) order | streaming |
//! | [`TableReader::locations`] | an item's location rows from a base on | streaming |
//! | [`TableReader::items`] | all live items in LIN order | streaming |
//! | [`TableReader::ahead`] | what reads at several places need, fetched at once | two rounds of requests |
//! | [`TableReader::rows`] | all rows of a kind, every version | streaming |
//!
//! Streams are lent the reader at each call, so several can run with look-ups between them. Memory is bounded by
//! [`TableLimits`] whatever the tables hold.
//!
//! Does not: know which segments there are (the commit log does) or which cuts are points. Source: ours.

use super::lost::LostRows;
use super::segment::SegmentMeta;
use super::source::{Ahead, Fetch, Source, TableFault, TableLimits, TailRef};
use super::stream::Stream;
use crate::format::key::{BACKUP_NEWEST, KeyRef};
use crate::format::row::{ItemRow, LocationRow, NameRow, Row, RowKind, RowRef};
use crate::format::seal::Keys;
use crate::id::{BackupId, Lin, ObjectId, VolumeId};

/// Inodes past a key at which a segment may begin and still be fetched ahead: a volume's root is the first of its items, and its number is
/// not known before.
const AHEAD_INODES: u64 = 256;

/// A reader over a set of segments.
pub struct TableReader<F> {
    source: Source<F>,
    tails: Vec<TailRef>,
}

impl<F: Fetch> TableReader<F> {
    /// A reader of `segments`. `None` when there is no memory.
    pub fn new(
        fetch: F,
        keys: &Keys,
        limits: TableLimits,
        segments: &[SegmentMeta],
    ) -> Option<TableReader<F>> {
        let source = Source::new(fetch, keys, limits)?;
        Some(TableReader { source, tails: segments.iter().map(TailRef::from).collect() })
    }

    /// Goes on behind segments and row blocks that cannot be read; what asks for rows that may be among them gets [`TableFault::Lost`]. Segments
    /// that `distrusted` names count as lost from the start.
    pub fn tolerate(&mut self, distrusted: &dyn Fn(&ObjectId) -> bool) {
        self.source.tolerate();
        self.tails.iter().filter(|tail| distrusted(&tail.id)).for_each(|tail| self.source.distrust(tail));
    }

    /// What could not be read so far.
    pub fn lost(&self) -> impl Iterator<Item = LostRows> + '_ {
        self.source.lost()
    }

    /// What it reads through.
    pub fn source(&mut self) -> &mut Source<F> {
        &mut self.source
    }

    /// The item row in force at `cut`, a deletion included; `None` when the item was never seen.
    pub fn item_version(&mut self, lin: Lin, cut: BackupId) -> Result<Option<ItemRow>, TableFault> {
        match self.first_row(RowKind::Item, KeyRef::at(lin, 0, cut), cut)? {
            Some(Row::Item(row)) if row.lin == lin => Ok(Some(row)),
            _ => Ok(None),
        }
    }

    /// The item at `cut`; `None` when there is none.
    pub fn item(&mut self, lin: Lin, cut: BackupId) -> Result<Option<ItemRow>, TableFault> {
        Ok(self.item_version(lin, cut)?.filter(|row| row.item.is_some()))
    }

    /// The entry `name` of a directory whose item row has this `rows_from`.
    pub fn lookup(
        &mut self,
        directory: Lin,
        rows_from: BackupId,
        name: &[u8],
    ) -> Result<Option<NameRow>, TableFault> {
        let mut run = 0;
        loop {
            let key = KeyRef { lin: directory, base: 0, backup: rows_from, run, name };
            let Some(Row::Name(row)) = self.first_row(RowKind::Name, key, rows_from)? else {
                return Ok(None);
            };
            if row.parent != directory || row.backup != rows_from {
                return Ok(None);
            }
            if row.name == name {
                return Ok(Some(row));
            }
            // Either the run has only greater names, or the row is of a later run: look there, unless it begins past the name.
            run = if row.run == run || row.name.as_slice() > name {
                let Some(next) = row.run.checked_add(1) else {
                    return Ok(None);
                };
                next
            } else {
                row.run
            };
        }
    }

    /// The listing of a directory whose item row has this `rows_from`, in (run, name) order.
    pub fn names(&self, directory: Lin, rows_from: BackupId) -> Names {
        let from = KeyRef { lin: directory, base: 0, backup: rows_from, run: 0, name: &[] };
        let tails = self
            .tails
            .iter()
            .filter(|tail| tail.first <= directory && directory <= tail.last && tail.backup_min <= rows_from);
        Names { stream: Stream::new(RowKind::Name, from, tails.copied()), directory, rows_from, done: false }
    }

    /// The location rows in force at `cut` of an item whose item row has this `rows_from`, from the row that
    /// begins at or after `from_base` on.
    pub fn locations(&self, lin: Lin, from_base: u64, rows_from: BackupId, cut: BackupId) -> Locations {
        let from = KeyRef::at(lin, from_base, BACKUP_NEWEST);
        let tails =
            self.tails.iter().filter(|tail| tail.first <= lin && lin <= tail.last && tail.backup_min <= cut);
        let stream = Stream::new(RowKind::Location, from, tails.copied());
        Locations { stream, lin, rows_from, cut, done: None }
    }

    /// All live items of `volume` at `cut`, in LIN order from `from_inode` on.
    pub fn items(&self, volume: VolumeId, from_inode: u64, cut: BackupId) -> Items {
        let from = KeyRef::first_of(Lin { volume, inode: from_inode });
        let tails = self.tails.iter().filter(|tail| tail.first.volume == volume && tail.backup_min <= cut);
        Items { stream: Stream::new(RowKind::Item, from, tails.copied()), cut, done: None }
    }

    /// All rows of `kind` at or after `from`, every version, newest first at each place.
    pub fn rows(&self, kind: RowKind, from: KeyRef<'_>) -> Stream {
        Stream::new(kind, from, self.tails.iter().copied())
    }

    /// The same of one LIN, at or after `from`, and perhaps some of those behind it: only segments that may have rows of it are opened.
    pub fn rows_of(&self, kind: RowKind, from: KeyRef<'_>) -> Stream {
        let has = |tail: &&TailRef| tail.first <= from.lin && from.lin <= tail.last;
        Stream::new(kind, from, self.tails.iter().filter(has).copied())
    }

    /// Brings what reads of these rows need into the caches, in two rounds of requests. Returns for how many, from the first on, that was
    /// enough; at least one. A hint: what does not come is left to the reads.
    pub fn ahead(&mut self, places: &[Ahead<'_>]) -> usize {
        let (mut wanted, mut ends) = (Vec::new(), Vec::new());
        for &place in places {
            let lin = place.key.lin;
            let near = Lin { inode: lin.inode.saturating_add(AHEAD_INODES), ..lin };
            let holds =
                |tail: &&TailRef| tail.first <= near && tail.last >= lin && tail.rows[place.kind.index()] > 0;
            wanted.extend(self.tails.iter().filter(holds).map(|&tail| (tail, place)));
            ends.push(wanted.len());
        }
        let done = self.source.ahead(&wanted);
        ends.partition_point(|&end| end <= done).max(1)
    }

    /// The first row at or after `key` in the segments that may hold its LIN and backups up to `cut`.
    fn first_row(
        &mut self,
        kind: RowKind,
        key: KeyRef<'_>,
        cut: BackupId,
    ) -> Result<Option<Row>, TableFault> {
        let mut best: Option<Row> = None;
        for at in 0..self.tails.len() {
            let tail = self.tails[at];
            if tail.first > key.lin
                || tail.last < key.lin
                || tail.backup_min > cut
                || tail.rows[kind.index()] == 0
            {
                continue;
            }
            if let Some(row) = self.source.first_row(&tail, kind, key)?
                && best.as_ref().is_none_or(|best| row.as_ref().key() < best.as_ref().key())
            {
                best = Some(row);
            }
        }
        Ok(best)
    }
}

/// A directory's listing.
pub struct Names {
    stream: Stream,
    directory: Lin,
    rows_from: BackupId,
    done: bool,
}

impl Names {
    /// The next entry. Lost entries are reported once, at the end.
    pub fn next<F: Fetch>(&mut self, reader: &mut TableReader<F>) -> Result<Option<NameRow>, TableFault> {
        if self.done {
            return Ok(None);
        }
        match self.stream.next(&mut reader.source)? {
            Some(Row::Name(row)) if row.parent == self.directory && row.backup == self.rows_from => {
                Ok(Some(row))
            }
            _ => {
                self.done = true;
                let of = self.rows_from..=self.rows_from;
                match reader.source.lost_at(RowKind::Name, self.directory, of) {
                    Some(lost) => Err(TableFault::Lost(lost)),
                    None => Ok(None),
                }
            }
        }
    }
}

/// An item's location rows.
pub struct Locations {
    stream: Stream,
    lin: Lin,
    rows_from: BackupId,
    cut: BackupId,
    /// Base for which the row in force was given, or `u64::MAX` and past the item at the end.
    done: Option<u64>,
}

impl Locations {
    /// The next row, ascending by base. Lost rows are reported at the end.
    pub fn next<F: Fetch>(&mut self, reader: &mut TableReader<F>) -> Result<Option<LocationRow>, TableFault> {
        loop {
            match self.stream.peek(&mut reader.source)?.map(Row::as_ref) {
                Some(RowRef::Location(row)) if row.lin == self.lin => {}
                _ => {
                    let of = self.rows_from..=self.cut;
                    let lost = reader.source.lost_at(RowKind::Location, self.lin, of);
                    return lost.map_or(Ok(None), |lost| Err(TableFault::Lost(lost)));
                }
            }
            let Some(Row::Location(row)) = self.stream.next(&mut reader.source)? else {
                return Ok(None);
            };
            let counts = (self.rows_from..=self.cut).contains(&row.backup);
            if counts && self.done != Some(row.base) {
                self.done = Some(row.base);
                return Ok(Some(row));
            }
        }
    }
}

/// A stream of the items that live at a cut, in LIN order.
pub struct Items {
    stream: Stream,
    cut: BackupId,
    done: Option<Lin>,
}

impl Items {
    /// The next item that lives at the cut.
    pub fn next<F: Fetch>(&mut self, reader: &mut TableReader<F>) -> Result<Option<ItemRow>, TableFault> {
        loop {
            let Some(Row::Item(row)) = self.stream.next(&mut reader.source)? else {
                return Ok(None);
            };
            if row.backup <= self.cut && self.done != Some(row.lin) {
                self.done = Some(row.lin);
                if row.item.is_some() {
                    return Ok(Some(row));
                }
            }
        }
    }
}
