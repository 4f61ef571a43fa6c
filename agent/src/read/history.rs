//! The versions of one path over many points: which points have it, as which item, how large, changed when.
//!
//! A path is followed by *name*: editors replace a file by a rename, so its versions are several items. For each component the directories
//! that it ever was are read over all their versions, and each of their listings is asked for the name: rows are keyed by (LIN, backup) and
//! (LIN of the directory, backup, name), so this is a few places of the tables and not one per point. What is needed next is fetched at
//! once ([`TableReader::ahead`]), so requests come in a few rounds per component.
//!
//! A directory that holds the name in some points and has another path in others (it, or one above it, was renamed) is followed there:
//! the entry then has another path.
//!
//! Memory: 40 bytes per point, a version of each directory and item on the path per point that changed it, an entry per listing of the
//! directories; bounds are [`VERSIONS_MAX`](super::past::VERSIONS_MAX) and `POINTS_MAX`.
//!
//! Does not: follow a file that got another name (it says that the item lives on), or symlinks. Source: ours.

use std::collections::BTreeMap;

use windlass_hal::volume::ItemKind;

use super::lookup::Lookup;
use super::past::Past;
use crate::format::key::KeyRef;
use crate::format::row::{Gone, ItemAttributes, RowKind};
use crate::id::{BackupId, Lin};
use crate::table::read::TableReader;
use crate::table::source::{Ahead, Fetch, TableFault};

/// Names that are proposed where a path never was.
pub const NEAREST_MAX: usize = 5;
/// Edits by which a proposed name differs at most: a third of its bytes, and no more than this.
const EDITS_MAX: usize = 4;
/// Directories above one that are looked at for its path: deeper ones are shown by their number.
const DEPTH_MAX: usize = 256;

/// A run of points in which a path is the same, or is not there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The first of the points.
    pub first: BackupId,
    /// The last of them.
    pub last: BackupId,
    /// How many they are.
    pub points: u32,
    /// What they have.
    pub what: What,
}

/// What a run of points has under a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// A version of it.
    Version(Box<Version>),
    /// Nothing, after points that had it.
    Absent(Absent),
}

/// A version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// Which item.
    pub lin: Lin,
    /// The backup that wrote its row.
    pub written: BackupId,
    /// The path in these points where it is another one, from the volume's root, without a slash in front.
    pub path: Option<Vec<u8>>,
    /// Its attributes, without what can be large.
    pub item: ItemAttributes,
}

/// A path that is not there any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Absent {
    /// The item that it was last.
    pub lin: Lin,
    /// Whether that item lives on under another name.
    pub lives_on: bool,
    /// What its deletion says, where there is one.
    pub gone: Option<Box<Gone>>,
}

/// What is known of a path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// Runs of points, ascending; empty when no point ever had it.
    pub entries: Vec<Entry>,
    /// When it never was: paths that are like it.
    pub nearest: Vec<Vec<u8>>,
}

impl History {
    /// The version that a point has.
    pub fn at(&self, point: BackupId) -> Option<&Version> {
        let entry = self.entries.iter().find(|entry| (entry.first..=entry.last).contains(&point))?;
        match &entry.what {
            What::Version(version) => Some(version),
            What::Absent(_) => None,
        }
    }
}

/// Reads the history of the path that `parts` are the components of, over `points`, which ascend. `lookup` reads the newest of them.
pub fn history<F: Fetch>(
    lookup: &mut Lookup<F>,
    root: Lin,
    points: &[BackupId],
    parts: &[&[u8]],
) -> Result<History, TableFault> {
    let Some(&newest) = points.last() else { return Ok(History::default()) };
    let mut walk = Walk {
        reader: lookup.reader(),
        newest,
        root,
        pasts: BTreeMap::new(),
        named: BTreeMap::new(),
        found: BTreeMap::new(),
    };
    let mut at: Vec<Option<Lin>> = vec![Some(root); points.len()];
    let mut above = at.clone();
    for (depth, part) in parts.iter().enumerate() {
        let below = walk.step(points, &at, part)?;
        if below.iter().all(Option::is_none) && depth + 1 < parts.len() {
            return Ok(History {
                entries: Vec::new(),
                nearest: walk.nearest(points, &at, &parts[..=depth])?,
            });
        }
        above = std::mem::replace(&mut at, below);
    }
    let Some((name, dirs)) = parts.split_last() else {
        // The root itself.
        walk.load(&[root], false)?;
        return walk.entries(points, &at, &BTreeMap::new(), &[]);
    };
    let elsewhere = walk.elsewhere(points, &above, &mut at, name)?;
    if at.iter().all(Option::is_none) {
        let parts = [dirs, &[name]].concat();
        return Ok(History { entries: Vec::new(), nearest: walk.nearest(points, &above, &parts)? });
    }
    walk.load(&distinct(&at), false)?;
    walk.entries(points, &at, &elsewhere, name)
}

/// The items of a level, each once, newest points first.
fn distinct(at: &[Option<Lin>]) -> Vec<Lin> {
    let mut out: Vec<Lin> = Vec::new();
    for lin in at.iter().rev().flatten() {
        // Points that follow each other mostly have the same one.
        if out.last() != Some(lin) && !out.contains(lin) {
            out.push(*lin);
        }
    }
    out
}

/// What was read so far.
struct Walk<'a, F> {
    reader: &'a mut TableReader<F>,
    newest: BackupId,
    root: Lin,
    pasts: BTreeMap<Lin, Past>,
    /// Of a directory and the backup that wrote its listing: the inode that a name means there.
    named: BTreeMap<(Lin, BackupId), Option<u64>>,
    /// Of a directory, the backup that wrote its listing and an inode: its name there.
    found: BTreeMap<(Lin, BackupId, u64), Option<Vec<u8>>>,
}

impl<F: Fetch> Walk<'_, F> {
    /// Reads the versions of items that were not read yet.
    fn load(&mut self, lins: &[Lin], are_directories: bool) -> Result<(), TableFault> {
        let new: Vec<Lin> = lins.iter().copied().filter(|lin| !self.pasts.contains_key(lin)).collect();
        let place = |lin, kind, whole| Ahead { kind, key: KeyRef::at(lin, 0, self.newest), whole };
        let mut places: Vec<Ahead<'_>> = new.iter().map(|&lin| place(lin, RowKind::Item, true)).collect();
        if are_directories {
            places.extend(new.iter().map(|&lin| place(lin, RowKind::Name, false)));
        }
        let mut left = &new[..];
        while !left.is_empty() {
            let here = places.len().saturating_sub(new.len() - left.len());
            let near = self.reader.ahead(&places[places.len() - here..]);
            let (now, later) = left.split_at(near.min(left.len()));
            for &lin in now {
                let past = Past::read(self.reader, lin, self.newest)?;
                self.pasts.insert(lin, past);
            }
            left = later;
        }
        Ok(())
    }

    /// The listing of `dir` that counts in a point; `None` where it is no directory, or not there.
    fn listing(&self, dir: Lin, point: BackupId) -> Option<BackupId> {
        let (_, item) = self.pasts.get(&dir)?.item_at(point)?;
        (item.kind == ItemKind::Directory).then_some(item.rows_from)
    }

    /// Asks listings for a name.
    fn ask(&mut self, listings: &[(Lin, BackupId)], name: &[u8]) -> Result<(), TableFault> {
        let mut new: Vec<(Lin, BackupId)> =
            listings.iter().copied().filter(|listing| !self.named.contains_key(listing)).collect();
        new.sort_unstable_by_key(|&(dir, backup)| (dir, std::cmp::Reverse(backup)));
        new.dedup();
        let place = |&(lin, backup): &(Lin, BackupId)| {
            let key = KeyRef { lin, base: 0, backup, run: 0, name };
            Ahead { kind: RowKind::Name, key, whole: false }
        };
        let places: Vec<Ahead<'_>> = new.iter().map(place).collect();
        let mut at = 0;
        while at < new.len() {
            let near = self.reader.ahead(&places[at..]);
            for &(dir, backup) in &new[at..at + near] {
                let row = self.reader.lookup(dir, backup, name)?;
                if row.is_none()
                    && let Some(lost) = self.reader.source().lost_at(RowKind::Name, dir, backup..=backup)
                {
                    return Err(TableFault::Lost(lost));
                }
                self.named.insert((dir, backup), row.map(|row| row.inode));
            }
            at += near;
        }
        Ok(())
    }

    /// From the directories of each point to what a name means in them.
    fn step(
        &mut self,
        points: &[BackupId],
        at: &[Option<Lin>],
        name: &[u8],
    ) -> Result<Vec<Option<Lin>>, TableFault> {
        self.named.clear();
        self.load(&distinct(at), true)?;
        let of = |walk: &Self, (&point, dir): (&BackupId, &Option<Lin>)| {
            let dir = (*dir)?;
            Some((dir, walk.listing(dir, point)?))
        };
        let listings: Vec<_> = points.iter().zip(at).map(|pair| of(self, pair)).collect();
        self.ask(&listings.iter().flatten().copied().collect::<Vec<_>>(), name)?;
        let inode = |listing: &Option<(Lin, BackupId)>| {
            let listing = (*listing)?;
            let inode = self.named.get(&listing).copied().flatten()?;
            Some(Lin { volume: listing.0.volume, inode })
        };
        Ok(listings.iter().map(inode).collect())
    }

    /// Fills points in which the path leads nowhere from directories that hold the name in other points, and have another path there;
    /// returns those directories.
    fn elsewhere(
        &mut self,
        points: &[BackupId],
        above: &[Option<Lin>],
        at: &mut [Option<Lin>],
        name: &[u8],
    ) -> Result<BTreeMap<BackupId, Lin>, TableFault> {
        let held = above.iter().zip(at.iter()).map(|(dir, found)| found.and(*dir)).collect::<Vec<_>>();
        let mut out = BTreeMap::new();
        for dir in distinct(&held) {
            let open = |(point, found): (&BackupId, &Option<Lin>)| {
                let listing = if found.is_some() { None } else { self.listing(dir, *point) };
                listing.map(|listing| (dir, listing))
            };
            let listings: Vec<_> = points.iter().zip(at.iter()).map(open).collect();
            self.ask(&listings.iter().flatten().copied().collect::<Vec<_>>(), name)?;
            for (index, listing) in listings.iter().enumerate() {
                // Where the path leads to this directory, it was asked already.
                if let Some(listing) = listing
                    && above[index] != Some(dir)
                    && let Some(inode) = self.named.get(listing).copied().flatten()
                {
                    at[index] = Some(Lin { volume: dir.volume, inode });
                    out.insert(points[index], dir);
                }
            }
        }
        Ok(out)
    }

    /// The path of a directory in a point, as far as it is known.
    fn path_of(&mut self, dir: Lin, point: BackupId) -> Result<Vec<u8>, TableFault> {
        let (mut parts, mut at) = (Vec::new(), dir);
        while at != self.root && parts.len() < DEPTH_MAX {
            self.load(&[at], true)?;
            let parent =
                self.pasts.get(&at).and_then(|past| past.item_at(point)).map(|(_, item)| item.parent);
            let parent = Lin { volume: at.volume, inode: parent.unwrap_or(0) };
            self.load(&[parent], true)?;
            let name = match self.listing(parent, point) {
                Some(listing) => self.name_of(parent, listing, at.inode)?,
                None => None,
            };
            let Some(name) = name else {
                parts.push(format!("(directory {})", at.inode).into_bytes());
                break;
            };
            parts.push(name);
            at = parent;
        }
        parts.reverse();
        Ok(parts.join(&b'/'))
    }

    /// The name of an inode in a listing: read from its beginning.
    fn name_of(&mut self, dir: Lin, listing: BackupId, inode: u64) -> Result<Option<Vec<u8>>, TableFault> {
        if let Some(name) = self.found.get(&(dir, listing, inode)) {
            return Ok(name.clone());
        }
        let mut names = self.reader.names(dir, listing);
        let mut name = None;
        while let Some(row) = names.next(self.reader)? {
            if row.inode == inode {
                name = Some(row.name);
                break;
            }
        }
        self.found.insert((dir, listing, inode), name.clone());
        Ok(name)
    }

    /// Puts points that have the same together.
    fn entries(
        &mut self,
        points: &[BackupId],
        at: &[Option<Lin>],
        elsewhere: &BTreeMap<BackupId, Lin>,
        name: &[u8],
    ) -> Result<History, TableFault> {
        let mut entries: Vec<Entry> = Vec::new();
        let mut last_dir = None;
        let mut last_lin = None;
        for (&point, lin) in points.iter().zip(at) {
            let dir = elsewhere.get(&point).copied();
            let found = match lin {
                Some(lin) => {
                    self.pasts.get(lin).and_then(|past| past.item_at(point)).map(|found| (*lin, found))
                }
                None => None,
            };
            let what = match (found, last_lin) {
                (Some((lin, (written, item))), _) => {
                    last_lin = Some(lin);
                    // The same row under the same directory: nothing new.
                    if let Some(Entry { last, points, what: What::Version(before), .. }) = entries.last_mut()
                        && (before.lin, before.written) == (lin, written)
                        && dir == last_dir
                    {
                        *last = point;
                        *points += 1;
                        continue;
                    }
                    let item = item.clone();
                    What::Version(Box::new(Version { lin, written, path: None, item }))
                }
                (None, None) => continue,
                (None, Some(lin)) => {
                    let row = self.pasts.get(&lin).and_then(|past| past.at(point));
                    let lives_on = row.is_some_and(|row| row.item.is_some());
                    let gone = row.and_then(|row| row.gone.clone());
                    What::Absent(Absent { lin, lives_on, gone })
                }
            };
            last_dir = dir;
            match entries.last_mut() {
                Some(entry) if entry.what == what => {
                    entry.last = point;
                    entry.points += 1;
                }
                _ => entries.push(Entry { first: point, last: point, points: 1, what }),
            }
        }
        for entry in &mut entries {
            if let (What::Version(version), Some(&dir)) = (&mut entry.what, elsewhere.get(&entry.first)) {
                let mut path = self.path_of(dir, entry.first)?;
                if !path.is_empty() {
                    path.push(b'/');
                }
                path.extend_from_slice(name);
                version.path = Some(path);
            }
        }
        Ok(History { entries, nearest: Vec::new() })
    }

    /// Names like the last of `parts` in the newest of the directories where it is not.
    fn nearest(
        &mut self,
        points: &[BackupId],
        at: &[Option<Lin>],
        parts: &[&[u8]],
    ) -> Result<Vec<Vec<u8>>, TableFault> {
        let Some((name, above)) = parts.split_last() else { return Ok(Vec::new()) };
        let newest = points.iter().zip(at).rev().find_map(|(&point, dir)| {
            let dir = (*dir)?;
            Some((dir, self.listing(dir, point)?))
        });
        let Some((dir, listing)) = newest else { return Ok(Vec::new()) };
        let mut names = self.reader.names(dir, listing);
        let mut best: Vec<(usize, Vec<u8>)> = Vec::new();
        while let Some(row) = names.next(self.reader)? {
            let edits = edits(name, &row.name);
            if edits > EDITS_MAX.min(name.len().div_ceil(3)) {
                continue;
            }
            let place = best.partition_point(|(other, _)| *other <= edits);
            best.insert(place, (edits, row.name));
            best.truncate(NEAREST_MAX);
        }
        let path = |name: Vec<u8>| above.iter().copied().chain([&name[..]]).collect::<Vec<_>>().join(&b'/');
        Ok(best.into_iter().map(|(_, name)| path(name)).collect())
    }
}

/// Edits that make one name of another: bytes put in, left out or changed. Letters of another case count as the same.
fn edits(a: &[u8], b: &[u8]) -> usize {
    if a.len().abs_diff(b.len()) > EDITS_MAX {
        return EDITS_MAX + 1;
    }
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut corner = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let change = corner + usize::from(!x.eq_ignore_ascii_case(y));
            corner = row[j + 1];
            row[j + 1] = change.min(corner + 1).min(row[j] + 1);
        }
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_as_far_apart_as_edits_make_them() {
        for (a, b, expected) in [
            ("plan.txt", "plan.txt", 0),
            ("plan.txt", "Plan.TXT", 0),
            ("plan.txt", "plans.txt", 1),
            ("plan.txt", "lan.tx", 2),
            ("a", "a-very-long-name", EDITS_MAX + 1),
        ] {
            assert_eq!(edits(a.as_bytes(), b.as_bytes()), expected, "{a} {b}");
        }
    }
}
