//! Rebuild: the tables out of the tails of upload objects alone, when segments or the commit log are lost.
//!
//! ```text
//!  objects --16 at a time--> runs (scratch segments, sorted, with entries) --16 runs at a time--> ... --last--> segments
//! ```
//!
//! The last pass makes location rows of entries. At (item, base), backups ascending:
//! - a location row from a tail stands as it is;
//! - otherwise the backup's entries are laid over the row of the backup before it, when that is of `rows_from` or later and of
//!   the same block size, else over nothing.
//!
//! Objects that no backup wrote hold rows that garbage runs carried on, and entries of blocks that they moved, with the backup whose they were.
//! They are merged apart from the others, and where they have a row it takes the place of others of its key; of several the greatest name counts.
//!
//! Garbage runs move blocks, so a row may say that a block is in an object that is gone. Equal digests are equal blocks: such a block is taken
//! from an object that is there, as any other row or entry of its place says it; which of several makes no difference. That one does is what
//! `gc::rewrite` and `gc::carry` see to.
//!
//! So a writer of tails must write a whole location row when a block became empty or when extent runs
//! changed.
//!
//! Memory: per pass [`REBUILD_FAN_IN`] runs (a row block, a row and a share of the read-ahead each), a segment builder, the
//! list of scratch segments, 24 bytes for each object, and [`REBUILD_GROUP_ROWS_MAX`] rows at most for one base. Time: each pass reads and writes all rows.
//!
//! Does not: find objects (a LIST does), judge which are committed, or delete scratch. Source: external merge sort; rules ours.

use std::collections::{BTreeMap, BTreeSet};

use super::merge::fault_of;
use super::segment::{SegmentMeta, SegmentSink, SegmentWriter};
use super::source::{Fetch, Source, TableFault, TailRef};
use super::stream::Stream;
use crate::format::key::KeyRef;
use crate::format::row::{BlockPlace, Digest, EntryRow, LocationRow, Place, Row, RowKind, RowRef};
use crate::format::seal::Keys;
use crate::id::{BackupId, Lin, ObjectId, VolumeId};
use crate::limits::{REBUILD_FAN_IN, REBUILD_GROUP_ROWS_MAX};
use crate::store::StoreFault;

/// How segments are written by a rebuild.
#[derive(Clone, Copy, Debug)]
pub struct RebuildSettings<'a> {
    /// Backups whose objects' rows are left out, ascending: they were given up.
    pub given_up: &'a [BackupId],
    /// N of the repository.
    pub location_blocks: u8,
    /// Level of compression.
    pub zstd_level: i32,
    /// Largest segment in bytes.
    pub segment_bytes_max: u64,
    /// Runs merged at once, 3..=[`REBUILD_FAN_IN`].
    pub fan_in: usize,
}

/// What a rebuild did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rebuilt {
    /// Rows written to the tables.
    pub rows: u64,
    /// Objects whose tail could not be read, and why. What only they knew is missing.
    pub skipped: Vec<(ObjectId, TableFault)>,
    /// Backups and volumes that the tails which could be read are of, those given up left out.
    pub seen: BTreeSet<(BackupId, VolumeId)>,
    /// Scratch segments written, in order: delete them now.
    pub scratch: Vec<ObjectId>,
}

/// Rebuilds the tables of `objects` into `out`, with intermediate runs in `scratch`. Blocks for as long as it takes.
pub fn rebuild<F: Fetch>(
    source: &mut Source<F>,
    keys: &Keys,
    objects: &[ObjectId],
    settings: &RebuildSettings<'_>,
    scratch: &mut dyn SegmentSink,
    out: &mut dyn SegmentSink,
) -> Result<Rebuilt, TableFault> {
    let fan_in = settings.fan_in.clamp(3, REBUILD_FAN_IN);
    let no_memory = TableFault::Store(StoreFault {
        kind: crate::store::StoreFaultKind::Full,
        call: "rebuild".to_owned(),
        detail: "no memory for a compression context".to_owned(),
    });
    let new_writer = || SegmentWriter::new(settings.zstd_level, settings.segment_bytes_max, keys);
    let mut writer = new_writer().ok_or(no_memory)?;
    let mut done = Rebuilt::default();
    let (mut runs, mut newer): (Vec<Vec<TailRef>>, Vec<TailRef>) = (Vec::new(), Vec::new());
    let mut there = Vec::with_capacity(objects.len());
    for chunk in objects.chunks(fan_in) {
        let mut tails = Vec::with_capacity(chunk.len());
        for id in chunk {
            match source.object(id) {
                Ok((trailer, _)) if settings.given_up.contains(&trailer.head.backup) => there.push(*id),
                Ok((trailer, tail)) => {
                    there.push(*id);
                    done.seen.insert((trailer.head.backup, trailer.head.volume));
                    match trailer.head.backup.0 {
                        0 => newer.push(TailRef { goes_first: true, ..tail }),
                        _ => tails.push(tail),
                    }
                }
                Err(fault) => done.skipped.push((*id, fault)),
            }
        }
        if objects.len() < fan_in {
            runs.push(tails);
        } else {
            runs.push(merge_run(source, tails, &mut writer, scratch, &mut done)?);
        }
    }
    newer.sort_by_key(|tail| tail.id);
    let mut newest: Vec<Vec<TailRef>> = Vec::new();
    for tails in newer.chunks(fan_in) {
        newest.push(match objects.len() < fan_in {
            true => tails.to_vec(),
            false => first(merge_run(source, tails.to_vec(), &mut writer, scratch, &mut done)?),
        });
    }
    // The last pass reads one run of them beside the others.
    for (runs, most) in [(&mut runs, fan_in - 1), (&mut newest, 1)] {
        let goes_first = most == 1;
        while runs.len() > most {
            let mut merged = Vec::new();
            for group in runs.chunks(fan_in) {
                let tails = group.iter().flatten().copied().collect();
                let run = merge_run(source, tails, &mut writer, scratch, &mut done)?;
                merged.push(if goes_first { first(run) } else { run });
            }
            *runs = merged;
        }
    }
    let tails = runs.into_iter().chain(newest).flatten().collect();
    there.sort_unstable();
    Assembly::new(tails, there, settings.location_blocks, writer).run(source, out, &mut done)?;
    Ok(done)
}

fn first(run: Vec<TailRef>) -> Vec<TailRef> {
    run.into_iter().map(|tail| TailRef { goes_first: true, ..tail }).collect()
}

/// Merges tails into one run of scratch segments.
fn merge_run<F: Fetch>(
    source: &mut Source<F>,
    tails: Vec<TailRef>,
    writer: &mut SegmentWriter,
    scratch: &mut dyn SegmentSink,
    done: &mut Rebuilt,
) -> Result<Vec<TailRef>, TableFault> {
    let mut sink = Collect { sink: scratch, metas: Vec::new() };
    let mut streams = streams_of(&tails);
    while let Some((_, at)) = least_of(&mut streams, source)? {
        if let Some(row) = streams[at].next(source)? {
            writer.push(row.as_ref(), &mut sink).map_err(fault_of)?;
        }
    }
    writer.finish(&mut sink).map_err(fault_of)?;
    done.scratch.extend(sink.metas.iter().map(|meta| meta.id));
    Ok(sink.metas.iter().map(TailRef::from).collect())
}

fn streams_of(tails: &[TailRef]) -> [Stream; 4] {
    let from = KeyRef::first_of(Lin::default());
    RowKind::ALL.map(|kind| Stream::new(kind, from, tails.iter().copied()))
}

/// The least LIN of the streams' next rows and the first stream that has it.
fn least_of<F: Fetch>(
    streams: &mut [Stream; 4],
    source: &mut Source<F>,
) -> Result<Option<(Lin, usize)>, TableFault> {
    let mut least: Option<(Lin, usize)> = None;
    for (at, stream) in streams.iter_mut().enumerate() {
        if let Some(lin) = stream.peek_lin(source)?
            && least.is_none_or(|(other, _)| lin < other)
        {
            least = Some((lin, at));
        }
    }
    Ok(least)
}

/// Passes segments on and remembers their entries.
struct Collect<'a> {
    sink: &'a mut dyn SegmentSink,
    metas: Vec<SegmentMeta>,
}

impl SegmentSink for Collect<'_> {
    fn begin(&mut self) -> ObjectId {
        self.sink.begin()
    }

    fn put(&mut self, bytes: &[u8]) {
        self.sink.put(bytes);
    }

    fn end(&mut self, meta: &SegmentMeta) -> Result<(), StoreFault> {
        self.sink.end(meta)?;
        self.metas.push(*meta);
        Ok(())
    }
}

/// The last pass.
struct Assembly {
    streams: [Stream; 4],
    blocks: u64,
    writer: SegmentWriter,
    /// Item rows of the current LIN, newest first: backup and `rows_from`.
    versions: Vec<(BackupId, BackupId)>,
    lin: Option<Lin>,
    /// Objects whose tails could be read, ascending.
    there: Vec<ObjectId>,
}

/// Rows of one backup at one base.
#[derive(Default)]
struct Change {
    whole: Option<LocationRow>,
    entries: Vec<EntryRow>,
}

impl Assembly {
    fn new(
        tails: Vec<TailRef>,
        there: Vec<ObjectId>,
        location_blocks: u8,
        writer: SegmentWriter,
    ) -> Assembly {
        let (streams, blocks) = (streams_of(&tails), location_blocks.max(1).into());
        Assembly { streams, blocks, writer, versions: Vec::new(), lin: None, there }
    }

    fn run<F: Fetch>(
        mut self,
        source: &mut Source<F>,
        out: &mut dyn SegmentSink,
        done: &mut Rebuilt,
    ) -> Result<(), TableFault> {
        while let Some((lin, at)) = least_of(&mut self.streams, source)? {
            if self.lin != Some(lin) {
                self.lin = Some(lin);
                self.versions.clear();
            }
            if at >= RowKind::Location.index() {
                for row in self.base(lin, source)?.iter().rev() {
                    self.writer.push(RowRef::Location(row), out).map_err(fault_of)?;
                    done.rows += 1;
                }
                continue;
            }
            let Some(row) = self.streams[at].next(source)? else {
                continue;
            };
            if let Row::Item(item) = &row {
                let from = item.item.as_ref().map_or(item.backup, |item| item.rows_from);
                self.versions.push((item.backup, from));
            }
            self.writer.push(row.as_ref(), out).map_err(fault_of)?;
            done.rows += 1;
        }
        self.writer.finish(out).map_err(fault_of)
    }

    /// Takes all rows of the next base of `lin` and returns its location rows, backups ascending.
    fn base<F: Fetch>(&mut self, lin: Lin, source: &mut Source<F>) -> Result<Vec<LocationRow>, TableFault> {
        let (location, entry) = (RowKind::Location.index(), RowKind::Entry.index());
        let n = self.blocks;
        let mut base = u64::MAX;
        for at in [location, entry] {
            if let Some(row) = self.streams[at].peek(source)?
                && row.lin() == lin
            {
                base = base.min(row.as_ref().key().base / n * n);
            }
        }
        let mut changes: BTreeMap<BackupId, Change> = BTreeMap::new();
        let mut count = 0;
        for at in [location, entry] {
            loop {
                match self.streams[at].peek(source)? {
                    Some(row) if row.lin() == lin && row.as_ref().key().base / n * n == base => {}
                    _ => break,
                }
                count += 1;
                if count > REBUILD_GROUP_ROWS_MAX {
                    return Err(TableFault::TooManyVersions(lin));
                }
                match self.streams[at].next(source)? {
                    Some(Row::Location(row)) => {
                        let backup = row.backup;
                        changes.entry(backup).or_default().whole = Some(row);
                    }
                    Some(Row::Entry(row)) => {
                        let change = changes.entry(row.backup).or_default();
                        change.entries.push(row);
                    }
                    _ => {}
                }
            }
        }
        let found = self.found(&changes);
        let mut rows: Vec<LocationRow> = Vec::with_capacity(changes.len());
        for (backup, change) in changes {
            let row = match change.whole {
                Some(row) => row,
                None => overlay(lin, base, backup, self.rows_from(backup), rows.last(), &change.entries),
            };
            rows.push(row);
        }
        for block in rows.iter_mut().flat_map(|row| &mut row.blocks) {
            if let BlockPlace::Stored(place) = block
                && self.there.binary_search(&place.object).is_err()
                && let Some(at) = found.get(&(place.digest, place.len))
            {
                *place = *at;
            }
        }
        Ok(rows)
    }

    /// Where blocks of one place are that rows or entries have in objects which are there.
    fn found(&self, changes: &BTreeMap<BackupId, Change>) -> BTreeMap<(Digest, u32), Place> {
        let whole = changes.values().filter_map(|change| change.whole.as_ref()).flat_map(|row| &row.blocks);
        let entries = changes.values().flat_map(|change| &change.entries).map(|entry| &entry.place);
        let stored = whole.chain(entries).filter_map(|block| match block {
            BlockPlace::Stored(place) if self.there.binary_search(&place.object).is_ok() => Some(*place),
            BlockPlace::Stored(_) | BlockPlace::Zero | BlockPlace::Empty | BlockPlace::Lost => None,
        });
        stored.map(|place| ((place.digest, place.len), place)).collect()
    }

    /// `rows_from` of the item row in force at `backup`.
    fn rows_from(&self, backup: BackupId) -> BackupId {
        let version = self.versions.iter().find(|(of, _)| *of <= backup);
        version.map_or(BackupId(0), |(_, rows_from)| *rows_from)
    }
}

fn overlay(
    lin: Lin,
    base: u64,
    backup: BackupId,
    rows_from: BackupId,
    before: Option<&LocationRow>,
    entries: &[EntryRow],
) -> LocationRow {
    let block_bytes = entries.first().map_or(0, |entry| entry.block_bytes);
    let before = before.filter(|row| row.backup >= rows_from && row.block_bytes == block_bytes);
    let mut row = LocationRow {
        lin,
        base,
        backup,
        block_bytes,
        blocks: before.map_or_else(Vec::new, |row| row.blocks.clone()),
        runs: before.map_or_else(Vec::new, |row| row.runs.clone()),
    };
    for entry in entries {
        // Entries were grouped by base, so this is below N.
        let at = entry.block.saturating_sub(base) as usize;
        if row.blocks.len() <= at {
            row.blocks.resize(at + 1, BlockPlace::Empty);
        }
        row.blocks[at] = entry.place;
    }
    row
}
