//! What two points differ in: their trees walked together, by name.
//!
//! | entries | are |
//! |---|---|
//! | of the same name and item | unchanged, or changed in contents, or in attributes alone |
//! | of the same name, another item of the same type | the same: an editor replaced it |
//! | in one point only, of an item that the other point has under another name | renamed, where both names are met |
//! | in one point only | added, removed; of a directory with all that it holds |
//!
//! Memory: a chunk of entries and two streams of names per level, and [`PENDING_MAX`] names whose other half was not met yet; a name that
//! does not fit among them is reported as added or removed. Time: the names and items of both trees.
//!
//! Invariants: each name of each tree is judged once. Does not: compare bytes: equal digests stand for equal blocks. Source: ours.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use windlass_hal::volume::ItemKind;

use super::lookup::Lookup;
use crate::format::row::{BlockPlace, Digest, ItemAttributes, LocationRow, NameRow};
use crate::id::Lin;
use crate::table::read::Names;
use crate::table::source::{Fetch, TableFault};

/// Names of one point that wait for another name of their item: 100 bytes each.
pub const PENDING_MAX: usize = 10_000;
/// Entries of a directory that are judged together, so that their items are looked up in the order of the tables.
const CHUNK_NAMES: usize = 256;
/// Directories inside each other that are entered; what is deeper is not compared.
const DEPTH_MAX: usize = 256;

/// How a name differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Only the second point has it.
    Added,
    /// Only the first point has it.
    Removed,
    /// It holds other bytes, points elsewhere, or is another item of the same type.
    Contents,
    /// It is the same but for owner, mode, times, names, extended attributes or flags.
    Attributes,
    /// It has another name in the second point.
    Renamed,
}

/// A name that differs.
#[derive(Clone, Copy, Debug)]
pub struct Differs<'a> {
    /// How.
    pub change: Change,
    /// Its path, in the second point if that has it, without a slash in front.
    pub path: &'a [u8],
    /// Of what is renamed: its path in the first point.
    pub from: Option<&'a [u8]>,
    /// What the first point has.
    pub old: Option<&'a ItemAttributes>,
    /// What the second point has.
    pub new: Option<&'a ItemAttributes>,
}

/// What [`diff`] calls; `false` ends it.
pub type EachDiffers<'a> = dyn FnMut(Differs<'_>) -> bool + 'a;

/// One of the two points.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Old,
    New,
}

/// A name whose other half was not met yet.
struct Pending {
    side: Side,
    path: Vec<u8>,
    item: ItemAttributes,
}

struct Diff<'a, 'e, F> {
    old: &'a mut Lookup<F>,
    new: &'a mut Lookup<F>,
    pending: BTreeMap<Lin, Pending>,
    each: &'a mut EachDiffers<'e>,
}

/// A name of a chunk: its item in the first and in the second point.
struct Both {
    name: Vec<u8>,
    old: Option<(Lin, ItemAttributes)>,
    new: Option<(Lin, ItemAttributes)>,
}

/// A name of a chunk, and what it names in the first and in the second point.
type Named = (Vec<u8>, Option<Lin>, Option<Lin>);

/// Calls `each` with what differs below two directories, one of each point. `false` when that ended it.
pub fn diff<F: Fetch>(
    old: (&mut Lookup<F>, Lin),
    new: (&mut Lookup<F>, Lin),
    path: &[u8],
    each: &mut EachDiffers<'_>,
) -> Result<bool, TableFault> {
    let mut run = Diff { old: old.0, new: new.0, pending: BTreeMap::new(), each };
    let both = (run.old.item(old.1)?, run.new.item(new.1)?);
    let goes_on = match both {
        (Some(a), Some(b)) => {
            run.both(Both { name: Vec::new(), old: Some((old.1, a)), new: Some((new.1, b)) }, path, 0)?
        }
        _ => true,
    };
    if !goes_on {
        return Ok(false);
    }
    // What found no other half is added or removed after all.
    while let Some((lin, left)) = run.pending.pop_first() {
        if !run.one(left.side, lin, &left.item, &left.path, 0)? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn joined(above: &[u8], name: &[u8]) -> Vec<u8> {
    match (above, name) {
        (above, b"") => above.to_vec(),
        (b"", name) => name.to_vec(),
        (above, name) => [above, name].join(&b'/'),
    }
}

impl<F: Fetch> Diff<'_, '_, F> {
    fn at(&mut self, side: Side) -> &mut Lookup<F> {
        match side {
            Side::Old => self.old,
            Side::New => self.new,
        }
    }

    /// Judges a name that both points have.
    fn both(&mut self, both: Both, above: &[u8], depth: usize) -> Result<bool, TableFault> {
        let (Some((old_lin, old)), Some((new_lin, new))) = (both.old, both.new) else { return Ok(true) };
        let path = joined(above, &both.name);
        if old.kind != new.kind {
            return Ok(self.one(Side::Old, old_lin, &old, &path, depth)?
                && self.one(Side::New, new_lin, &new, &path, depth)?);
        }
        let is_same = old_lin == new_lin && same(&old, &new);
        let change = match old.kind {
            ItemKind::Directory => differs_as_directory(&old, &new).then_some(Change::Attributes),
            _ if is_same => None,
            _ if self.has_other_contents((old_lin, &old), (new_lin, &new))? => Some(Change::Contents),
            _ => Some(Change::Attributes),
        };
        if let Some(change) = change
            && !(self.each)(Differs { change, path: &path, from: None, old: Some(&old), new: Some(&new) })
        {
            return Ok(false);
        }
        if old.kind == ItemKind::Directory && depth < DEPTH_MAX {
            return self.directories((old_lin, &old), (new_lin, &new), &path, depth);
        }
        Ok(true)
    }

    /// Whether two items of one type hold other bytes: by size and by the digests of their blocks.
    fn has_other_contents(
        &mut self,
        (old_lin, old): (Lin, &ItemAttributes),
        (new_lin, new): (Lin, &ItemAttributes),
    ) -> Result<bool, TableFault> {
        if old.size != new.size || old.payload != new.payload || old.rdev != new.rdev {
            return Ok(true);
        }
        let mut rows = (self.old.locations_from(old_lin, old, 0), self.new.locations_from(new_lin, new, 0));
        let mut heads = (self.old.next_location(&mut rows.0)?, self.new.next_location(&mut rows.1)?);
        loop {
            let (a, b) = match (&heads.0, &heads.1) {
                (None, None) => return Ok(false),
                (Some(a), Some(b)) if a.block_bytes != b.block_bytes => return Ok(true),
                (Some(a), Some(b)) if a.base == b.base => (Some(a), Some(b)),
                (Some(a), Some(b)) if a.base > b.base => (None, Some(b)),
                (None, Some(b)) => (None, Some(b)),
                (Some(a), _) => (Some(a), None),
            };
            let blocks = |row: Option<&LocationRow>| row.map_or(0, |row| row.blocks.len());
            let differs = (0..blocks(a).max(blocks(b))).any(|at| {
                let block = |row: Option<&LocationRow>| {
                    row.and_then(|row| row.blocks.get(at)).map_or(Held::Zero, held)
                };
                block(a) != block(b)
            });
            if differs {
                return Ok(true);
            }
            let (is_old, is_new) = (a.is_some(), b.is_some());
            if is_old {
                heads.0 = self.old.next_location(&mut rows.0)?;
            }
            if is_new {
                heads.1 = self.new.next_location(&mut rows.1)?;
            }
        }
    }

    /// Judges a name that only one point has.
    fn one(
        &mut self,
        side: Side,
        lin: Lin,
        item: &ItemAttributes,
        path: &[u8],
        depth: usize,
    ) -> Result<bool, TableFault> {
        let differs = match side {
            Side::Old => Differs { change: Change::Removed, path, from: None, old: Some(item), new: None },
            Side::New => Differs { change: Change::Added, path, from: None, old: None, new: Some(item) },
        };
        if !(self.each)(differs) {
            return Ok(false);
        }
        if item.kind != ItemKind::Directory || depth >= DEPTH_MAX {
            return Ok(true);
        }
        let mut names = self.at(side).names(lin, item);
        loop {
            let rows = take(self.at(side), &mut names)?;
            if rows.is_empty() {
                return Ok(true);
            }
            let list: Vec<_> = rows.iter().map(|row| Lin { inode: row.inode, ..lin }).collect();
            let items = look_up(self.at(side), &list)?;
            for ((row, lin), item) in rows.into_iter().zip(list).zip(items) {
                let Some(item) = item else { continue };
                if !self.alone(side, lin, item, joined(path, &row.name), depth + 1)? {
                    return Ok(false);
                }
            }
        }
    }

    /// A name that only one point has: renamed, if the other point has its item and a name that this one has not.
    fn alone(
        &mut self,
        side: Side,
        lin: Lin,
        item: ItemAttributes,
        path: Vec<u8>,
        depth: usize,
    ) -> Result<bool, TableFault> {
        let other = match side {
            Side::Old => self.new.item(lin)?,
            Side::New => self.old.item(lin)?,
        };
        let is_same = |other: &ItemAttributes| (other.kind, other.generation) == (item.kind, item.generation);
        if !other.as_ref().is_some_and(is_same) {
            return self.one(side, lin, &item, &path, depth);
        }
        match self.pending.remove(&lin) {
            Some(half) if half.side != side => {
                let (from, to) = match side {
                    Side::New => ((half.path, half.item), (path, item)),
                    Side::Old => ((path, item), (half.path, half.item)),
                };
                let renamed = Differs {
                    change: Change::Renamed,
                    path: &to.0,
                    from: Some(&from.0),
                    old: Some(&from.1),
                    new: Some(&to.1),
                };
                if !(self.each)(renamed) {
                    return Ok(false);
                }
                // What changed besides is told under the new name.
                let both = Both { name: Vec::new(), old: Some((lin, from.1)), new: Some((lin, to.1)) };
                let is_directory =
                    both.old.as_ref().is_some_and(|(_, item)| item.kind == ItemKind::Directory);
                if is_directory { self.both(both, &to.0, depth) } else { Ok(true) }
            }
            // A further name on the same side, or no room: it is what it looks like.
            Some(half) => {
                self.pending.insert(lin, half);
                self.one(side, lin, &item, &path, depth)
            }
            None if self.pending.len() >= PENDING_MAX => self.one(side, lin, &item, &path, depth),
            None => {
                self.pending.insert(lin, Pending { side, path, item });
                Ok(true)
            }
        }
    }

    /// Compares what two directories list.
    fn directories(
        &mut self,
        (old, old_item): (Lin, &ItemAttributes),
        (new, new_item): (Lin, &ItemAttributes),
        path: &[u8],
        depth: usize,
    ) -> Result<bool, TableFault> {
        let mut names = (self.old.names(old, old_item), self.new.names(new, new_item));
        let mut heads = (self.old.next_name(&mut names.0)?, self.new.next_name(&mut names.1)?);
        loop {
            let mut chunk: Vec<Named> = Vec::new();
            while chunk.len() < CHUNK_NAMES {
                let order = match (&heads.0, &heads.1) {
                    (None, None) => break,
                    (Some(_), None) => Ordering::Less,
                    (None, Some(_)) => Ordering::Greater,
                    (Some(a), Some(b)) => (a.run, &a.name).cmp(&(b.run, &b.name)),
                };
                let at = |row: NameRow| (row.name, Lin { inode: row.inode, ..old });
                if order == Ordering::Equal {
                    let next = (self.old.next_name(&mut names.0)?, self.new.next_name(&mut names.1)?);
                    if let (Some(a), Some(b)) = std::mem::replace(&mut heads, next) {
                        let (name, a) = at(a);
                        chunk.push((name, Some(a), Some(at(b).1)));
                    }
                } else if order == Ordering::Less {
                    let next = self.old.next_name(&mut names.0)?;
                    let Some((name, lin)) = std::mem::replace(&mut heads.0, next).map(at) else { break };
                    // In another run of a large listing it may be all the same.
                    let other = self.new.lookup(new, new_item, &name)?;
                    chunk.push((name, Some(lin), other.map(|row| at(row).1)));
                } else {
                    let next = self.new.next_name(&mut names.1)?;
                    let Some((name, lin)) = std::mem::replace(&mut heads.1, next).map(at) else { break };
                    if self.old.lookup(old, old_item, &name)?.is_none() {
                        chunk.push((name, None, Some(lin)));
                    }
                }
            }
            if chunk.is_empty() && heads.0.is_none() && heads.1.is_none() {
                return Ok(true);
            }
            for entry in self.items(chunk)? {
                let goes_on = match entry {
                    Both { name, old: Some((lin, item)), new: None } => {
                        self.alone(Side::Old, lin, item, joined(path, &name), depth + 1)?
                    }
                    Both { name, old: None, new: Some((lin, item)) } => {
                        self.alone(Side::New, lin, item, joined(path, &name), depth + 1)?
                    }
                    both => self.both(both, path, depth + 1)?,
                };
                if !goes_on {
                    return Ok(false);
                }
            }
        }
    }

    fn items(&mut self, chunk: Vec<Named>) -> Result<Vec<Both>, TableFault> {
        let lins = |pick: fn(&Named) -> Option<Lin>| {
            chunk.iter().map(|named| pick(named).unwrap_or_default()).collect::<Vec<_>>()
        };
        let (old, new) = (lins(|named| named.1), lins(|named| named.2));
        let (old, new) = (look_up(self.old, &old)?, look_up(self.new, &new)?);
        let mut out = Vec::with_capacity(chunk.len());
        for (((name, a, b), old), new) in chunk.into_iter().zip(old).zip(new) {
            out.push(Both { name, old: a.zip(old), new: b.zip(new) });
        }
        Ok(out)
    }
}

/// The next entries of a listing.
fn take<F: Fetch>(lookup: &mut Lookup<F>, names: &mut Names) -> Result<Vec<NameRow>, TableFault> {
    let mut rows = Vec::new();
    while rows.len() < CHUNK_NAMES
        && let Some(row) = lookup.next_name(names)?
    {
        rows.push(row);
    }
    Ok(rows)
}

/// Items by LIN, looked up in the order of the tables; none for inode 0.
fn look_up<F: Fetch>(
    lookup: &mut Lookup<F>,
    lins: &[Lin],
) -> Result<Vec<Option<ItemAttributes>>, TableFault> {
    let mut order: Vec<usize> = (0..lins.len()).filter(|&at| lins[at].inode != 0).collect();
    order.sort_unstable_by_key(|&at| lins[at]);
    let mut items = vec![None; lins.len()];
    for at in order {
        items[at] = lookup.item(lins[at])?;
    }
    Ok(items)
}

/// What a block holds.
#[derive(PartialEq, Eq)]
enum Held {
    /// Zero bytes, or a hole.
    Zero,
    /// What the medium did not give.
    Lost,
    /// Bytes of this digest.
    Bytes(Digest),
}

fn held(block: &BlockPlace) -> Held {
    match block {
        BlockPlace::Empty | BlockPlace::Zero => Held::Zero,
        BlockPlace::Lost => Held::Lost,
        BlockPlace::Stored(place) => Held::Bytes(place.digest),
    }
}

/// Whether two rows of one item say the same; when it was read last, and how it was stored, does not count. Its change time proves its contents.
fn same(old: &ItemAttributes, new: &ItemAttributes) -> bool {
    let plain = |item: &ItemAttributes| ItemAttributes {
        atime: new.atime,
        rows_from: new.rows_from,
        unsure: false,
        fault: String::new(),
        ..item.clone()
    };
    plain(old) == plain(new)
}

/// Whether a directory differs in more than its times, which its entries change.
fn differs_as_directory(old: &ItemAttributes, new: &ItemAttributes) -> bool {
    (old.mode, old.uid, old.gid, old.flags, old.project)
        != (new.mode, new.uid, new.gid, new.flags, new.project)
        || old.xattrs != new.xattrs
}
