//! An item over time, and what a directory's listings have lost of it: rows of all backups, where [`lookup`](super::lookup) reads those of one.
//!
//! | call | what | memory |
//! |---|---|---|
//! | [`Past::read`] | an item's versions, newest first, without what can be large | a version each |
//! | [`removed`] | names that older listings of a directory have and newer ones have not | two rows |
//!
//! Rows of versions that no point needs are gone when segments are merged, so what is seen here is what points still hold, and a little more.
//!
//! Invariants: a name is reported once, for the newest listing that had it. Does not: know points. Source: ours; `format::row`.

use std::cmp::Ordering;

use crate::format::key::KeyRef;
use crate::format::row::{Gone, ItemAttributes, NameRow, Row, RowKind, RowPayload};
use crate::id::{BackupId, Lin};
use crate::log::limits::POINTS_MAX;
use crate::table::read::{Names, TableReader};
use crate::table::source::{Fetch, TableFault};

/// Versions of one item at most: one for each point there may be, and as many again that a merge has not met yet. 200 bytes each.
/// Above: [`TableFault::TooManyVersions`].
pub const VERSIONS_MAX: usize = 2 * POINTS_MAX;

/// An item as one backup wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// The backup.
    pub backup: BackupId,
    /// The item, without small contents and extended attributes; `None` when it was found deleted.
    pub item: Option<ItemAttributes>,
    /// What was deleted, where the row says so.
    pub gone: Option<Box<Gone>>,
}

/// The versions of an item, newest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Past {
    /// Each with the backup that wrote it.
    pub versions: Vec<Version>,
}

impl Past {
    /// Reads the versions of `lin` up to a backup.
    pub fn read<F: Fetch>(
        reader: &mut TableReader<F>,
        lin: Lin,
        newest: BackupId,
    ) -> Result<Past, TableFault> {
        let mut rows = reader.rows_of(RowKind::Item, KeyRef::at(lin, 0, newest));
        let mut past = Past::default();
        while rows.peek_lin(reader.source())? == Some(lin) {
            let Some(Row::Item(row)) = rows.next(reader.source())? else { break };
            if past.versions.len() >= VERSIONS_MAX {
                return Err(TableFault::TooManyVersions(lin));
            }
            let version = Version { backup: row.backup, item: row.item.map(light), gone: row.gone };
            past.versions.push(version);
        }
        if let Some(lost) = reader.source().lost_at(RowKind::Item, lin, BackupId(0)..=newest) {
            return Err(TableFault::Lost(lost));
        }
        Ok(past)
    }

    /// The version in force at a cut, a deletion included.
    pub fn at(&self, cut: BackupId) -> Option<&Version> {
        let at = self.versions.partition_point(|version| version.backup > cut);
        self.versions.get(at)
    }

    /// The item at a cut, with the backup that wrote its row.
    pub fn item_at(&self, cut: BackupId) -> Option<(BackupId, &ItemAttributes)> {
        let version = self.at(cut)?;
        Some((version.backup, version.item.as_ref()?))
    }

    /// The backups that wrote its listing, newest first: each is a listing that some version has.
    pub fn listings(&self, newest: BackupId) -> Vec<BackupId> {
        let from = self.versions.partition_point(|version| version.backup > newest);
        let mut out: Vec<BackupId> =
            self.versions[from..].iter().filter_map(|v| v.item.as_ref()).map(|item| item.rows_from).collect();
        out.dedup();
        out
    }
}

/// Takes out of an item what can be large.
fn light(mut item: ItemAttributes) -> ItemAttributes {
    if matches!(item.payload, RowPayload::Inline(_)) {
        item.payload = RowPayload::None;
    }
    item.xattrs = Vec::new();
    item.gaps = Vec::new();
    item
}

/// What [`removed`] calls with the reader, a name, and the backup of the next newer listing; `false` ends it.
pub type EachRemoved<'a, F, E> =
    dyn FnMut(&mut TableReader<F>, NameRow, Option<BackupId>) -> Result<bool, E> + 'a;

/// Calls `each` with the names that an older listing of `dir` has and no newer one of `listings`, newest first, has: the name, and the backup
/// of the next newer listing. `all`: with those of the newest listing too, for a directory that is gone; the backup is then `None`.
/// Listings whose rows a merge has dropped are empty. `false` from `each` ends it.
pub fn removed<F: Fetch, E: From<TableFault>>(
    reader: &mut TableReader<F>,
    dir: Lin,
    listings: &[BackupId],
    all: bool,
    each: &mut EachRemoved<'_, F, E>,
) -> Result<bool, E> {
    if let (Some(&newest), true) = (listings.first(), all) {
        let mut names = reader.names(dir, newest);
        while let Some(row) = names.next(reader)? {
            if !each(reader, row, None)? {
                return Ok(false);
            }
        }
    }
    for (at, pair) in listings.windows(2).enumerate() {
        let (newer, older) = (pair[0], pair[1]);
        let mut lost = Lost::new(reader, dir, newer, older)?;
        while let Some(row) = lost.next(reader)? {
            // It may be in another run of the newer listing, or have come back in one that is newer still.
            let mut is_back = false;
            for &listing in listings[..=at].iter().rev() {
                is_back = is_back || reader.lookup(dir, listing, &row.name)?.is_some();
            }
            if !is_back && !each(reader, row, Some(newer))? {
                return Ok(false);
            }
        }
    }
    Ok(true)
}

/// Names of one listing that are not at the same place of another.
struct Lost {
    newer: Names,
    older: Names,
    ahead: Option<NameRow>,
}

impl Lost {
    fn new<F: Fetch>(
        reader: &mut TableReader<F>,
        dir: Lin,
        newer: BackupId,
        older: BackupId,
    ) -> Result<Lost, TableFault> {
        let (mut newer, older) = (reader.names(dir, newer), reader.names(dir, older));
        let ahead = newer.next(reader)?;
        Ok(Lost { newer, older, ahead })
    }

    fn next<F: Fetch>(&mut self, reader: &mut TableReader<F>) -> Result<Option<NameRow>, TableFault> {
        while let Some(row) = self.older.next(reader)? {
            loop {
                let order = match &self.ahead {
                    None => Ordering::Greater,
                    Some(ahead) => (ahead.run, &ahead.name).cmp(&(row.run, &row.name)),
                };
                match order {
                    Ordering::Less => self.ahead = self.newer.next(reader)?,
                    Ordering::Equal => break,
                    Ordering::Greater => return Ok(Some(row)),
                }
            }
        }
        Ok(None)
    }
}
