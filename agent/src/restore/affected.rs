//! Which points need something that the store has lost: one pass over a volume's tables, without reading any object.
//!
//! ```text
//!  item rows      each item's versions: alive or not, and since which backup its rows count
//!  location rows  of each place its versions, newest first; one that names a lost object is seen by the cuts from its backup on
//!                 up to the next version's, as far as the item lives there and counts rows that old
//! ```
//!
//! A segment that is lost itself may have had rows of every item and backup that it covers: every point from its first backup on counts.
//!
//! Invariants: a point that needs a lost object is named; one that is named needs it, or a lost segment may have had rows of it.
//! Memory: the versions of one item. Source: ours; reading rules in `format::row`.

use std::collections::BTreeSet;

use crate::format::key::KeyRef;
use crate::format::row::{BlockPlace, LocationRow, Row, RowKind};
use crate::id::{BackupId, Lin, ObjectId, VolumeId};
use crate::table::read::TableReader;
use crate::table::segment::SegmentMeta;
use crate::table::source::{Fetch, TableFault};
use crate::table::stream::Stream;

/// The points among `cuts` (ascending: those that have the volume) that need an object or a segment that `is_lost` names. `reader` reads
/// `segments`, all of the volume's. `stop` is asked now and then; what was found until then is returned.
pub fn points<F: Fetch>(
    mut reader: TableReader<F>,
    volume: VolumeId,
    segments: &[SegmentMeta],
    cuts: &[BackupId],
    is_lost: &dyn Fn(&ObjectId) -> bool,
    stop: &dyn Fn() -> bool,
) -> Result<BTreeSet<BackupId>, TableFault> {
    reader.tolerate(is_lost);
    let from = KeyRef::first_of(Lin { volume, inode: 0 });
    let mut survey = Survey {
        items: reader.rows(RowKind::Item, from),
        reader,
        cuts,
        versions: Vec::new(),
        found: vec![false; cuts.len()],
    };
    survey.lost_segments(segments, is_lost);
    let mut locations = survey.reader.rows(RowKind::Location, from);
    // The place that the row before was of, and its backup: older rows of that place are seen below it only.
    let mut newer: Option<(Lin, u64, BackupId)> = None;
    while !stop() && survey.found.contains(&false) {
        let Some(row) = locations.next(survey.reader.source())? else { break };
        let Row::Location(row) = row else { continue };
        if newer.is_none_or(|(lin, ..)| lin != row.lin) {
            survey.reach(row.lin)?;
        }
        let before = newer.filter(|(lin, base, _)| (*lin, *base) == (row.lin, row.base)).map(|newer| newer.2);
        newer = Some((row.lin, row.base, row.backup));
        if needs(&row, is_lost) {
            survey.seen(row.backup, before);
        }
    }
    // What the log does not know of yet.
    let lost: Vec<ObjectId> = survey.reader.source().lost().map(|lost| lost.segment).collect();
    survey.lost_segments(segments, &|id| lost.contains(id));
    Ok(cuts.iter().zip(survey.found).filter_map(|(&cut, found)| found.then_some(cut)).collect())
}

/// Whether a block of the row is in a lost object.
fn needs(row: &LocationRow, is_lost: &dyn Fn(&ObjectId) -> bool) -> bool {
    row.blocks.iter().any(|block| matches!(block, BlockPlace::Stored(place) if is_lost(&place.object)))
}

struct Survey<'a, F> {
    reader: TableReader<F>,
    items: Stream,
    cuts: &'a [BackupId],
    /// Of the current item, newest first: the backup, and since when its rows count, if it lives.
    versions: Vec<(BackupId, Option<BackupId>)>,
    /// For each cut.
    found: Vec<bool>,
}

impl<F: Fetch> Survey<'_, F> {
    fn lost_segments(&mut self, segments: &[SegmentMeta], is_lost: &dyn Fn(&ObjectId) -> bool) {
        for segment in segments.iter().filter(|segment| is_lost(&segment.id)) {
            for (cut, found) in self.cuts.iter().zip(&mut self.found) {
                *found |= *cut >= segment.backup_min;
            }
        }
    }

    /// Collects the versions of an item; items come in order.
    fn reach(&mut self, lin: Lin) -> Result<(), TableFault> {
        self.versions.clear();
        let source = self.reader.source();
        while let Some(next) = self.items.peek_lin(source)?.filter(|next| *next <= lin) {
            let Some(Row::Item(row)) = self.items.next(source)? else { continue };
            if next == lin {
                self.versions.push((row.backup, row.item.map(|item| item.rows_from)));
            }
        }
        Ok(())
    }

    /// A lost row of `backup`, hidden from the cut of a newer one on.
    fn seen(&mut self, backup: BackupId, newer: Option<BackupId>) {
        for (&cut, found) in self.cuts.iter().zip(&mut self.found) {
            if cut < backup || newer.is_some_and(|newer| cut >= newer) {
                continue;
            }
            let version = self.versions.iter().find(|version| version.0 <= cut);
            *found |= version.is_some_and(|(_, rows_from)| rows_from.is_some_and(|from| from <= backup));
        }
    }
}
