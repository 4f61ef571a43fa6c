//! What is not there any more, and which point still has it: names that older listings have and the newest has not.
//!
//! Below a directory that is there, its listings are compared with each other ([`past::removed`]); what a deleted directory held is all
//! that its last listing had. A name is given once, for the newest listing that had it. Only names that a point still has are given.
//!
//! Memory: of a walk, and the versions of one item. Does not: find what was deleted before the oldest point. Source: ours.

use windlass_hal::volume::{ItemKind, Timestamp};

use super::browse::{self, BrowseFault, Met, components};
use crate::format::row::{ItemAttributes, NameRow};
use crate::id::{BackupId, Lin};
use crate::read::lookup::Lookup;
use crate::read::past::{self, Past};
use crate::table::read::TableReader;
use crate::table::source::Fetch;

/// Directories inside each other, all of them deleted, that are entered: each takes a kilobyte of stack and a stream of names. What is deeper is
/// not shown; a search at an older point shows it.
const GONE_DEPTH_MAX: usize = 256;

/// A name that is not there any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deleted<'a> {
    /// Its path from the volume's root, without a slash in front.
    pub path: &'a [u8],
    /// The directory that named it.
    pub dir: Lin,
    /// The item it named.
    pub lin: Lin,
    /// What that was, as far as rows say so.
    pub kind: Option<ItemKind>,
    /// Size in bytes, when it was seen last.
    pub size: u64,
    /// Last change of its contents.
    pub mtime: Timestamp,
    /// The newest point that has it.
    pub last: BackupId,
    /// The backup that missed it.
    pub missed_by: BackupId,
    /// When that began to look, where the deletion says so, seconds since 1970.
    pub found_secs: Option<i64>,
    /// Whether the item is still there under another name: it was renamed, or had several.
    pub lives_on: bool,
}

/// What [`deleted`] calls; `false` ends it.
pub type EachDeleted<'a> = dyn FnMut(&Deleted<'_>) -> Result<bool, BrowseFault> + 'a;

/// Calls `each` with what is gone from directory `dir`, whose path is `path`, by the point that `lookup` reads: of the directory alone, or of
/// all that is and was below it. `points` are those of the policy that have the volume, ascending.
pub fn deleted<F: Fetch>(
    lookup: &mut Lookup<F>,
    (dir, item): (Lin, &ItemAttributes),
    path: &[u8],
    points: &[BackupId],
    below: bool,
    each: &mut EachDeleted<'_>,
) -> Result<(), BrowseFault> {
    if item.kind != ItemKind::Directory {
        return Err(BrowseFault::NotDirectory { path: path.to_vec(), kind: item.kind });
    }
    let path: Vec<u8> = components(path).collect::<Vec<_>>().join(&b'/');
    let mut search = Search { cut: lookup.cut(), points, below, each };
    if !search.of(lookup.reader(), dir, &path, None, 0)? || !below {
        return Ok(());
    }
    browse::walk(lookup, dir, item, &path, &mut |lookup, visit| match visit.met {
        Met::Item(item) if item.kind == ItemKind::Directory => {
            search.of(lookup.reader(), visit.lin, visit.path, None, 0)
        }
        _ => Ok(true),
    })?;
    Ok(())
}

struct Search<'a, 'e> {
    cut: BackupId,
    points: &'a [BackupId],
    below: bool,
    each: &'a mut EachDeleted<'e>,
}

impl Search<'_, '_> {
    /// What is gone from one directory; all that it last had when it is gone itself, missed by that backup.
    fn of<F: Fetch>(
        &mut self,
        reader: &mut TableReader<F>,
        dir: Lin,
        path: &[u8],
        missed_by: Option<BackupId>,
        depth: usize,
    ) -> Result<bool, BrowseFault> {
        let newest = missed_by.map_or(self.cut, |missed| BackupId(missed.0.saturating_sub(1)));
        let listings = Past::read(reader, dir, newest)?.listings(newest);
        past::removed(reader, dir, &listings, missed_by.is_some(), &mut |reader, row, newer| {
            let Some(missed_by) = newer.or(missed_by) else { return Ok(true) };
            self.name(reader, path, &row, missed_by, depth)
        })
    }

    fn name<F: Fetch>(
        &mut self,
        reader: &mut TableReader<F>,
        above: &[u8],
        row: &NameRow,
        missed_by: BackupId,
        depth: usize,
    ) -> Result<bool, BrowseFault> {
        let has = self.points.iter().rev().find(|&&point| point < missed_by);
        let Some(&last) = has.filter(|&&point| point >= row.backup) else { return Ok(true) };
        let lin = Lin { inode: row.inode, ..row.parent };
        let past = Past::read(reader, lin, self.cut)?;
        let before = past.item_at(last).map(|(_, item)| item);
        let now = past.at(self.cut);
        let is_same = |now: &ItemAttributes| {
            before.is_none_or(|then| (then.kind, then.generation) == (now.kind, now.generation))
        };
        let lives_on = now.and_then(|now| now.item.as_ref()).is_some_and(is_same);
        // The deletion of this item, and not of one that had its number later.
        let deletion = past.versions.iter().rev().find(|row| row.item.is_none() && row.backup > last);
        let gone = deletion.filter(|_| !lives_on).and_then(|row| row.gone.as_deref());
        let path = match above {
            b"" => row.name.clone(),
            above => [above, &row.name].join(&b'/'),
        };
        let kind = before.map(|item| item.kind).or(gone.map(|gone| gone.kind));
        let found = Deleted {
            path: &path,
            dir: row.parent,
            lin,
            kind,
            size: before.map(|item| item.size).or(gone.map(|gone| gone.size)).unwrap_or_default(),
            mtime: before.map(|item| item.mtime).or(gone.map(|gone| gone.mtime)).unwrap_or_default(),
            last,
            missed_by,
            found_secs: gone.map(|gone| gone.found_secs),
            lives_on,
        };
        if !(self.each)(&found)? {
            return Ok(false);
        }
        let enters = self.below && kind == Some(ItemKind::Directory) && !lives_on && depth < GONE_DEPTH_MAX;
        if enters { self.of(reader, lin, &path, Some(missed_by), depth + 1) } else { Ok(true) }
    }
}
