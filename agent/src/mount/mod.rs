//! Points as a file system: nodes of a [`layout`] to items, their bytes and attributes.
//!
//! | call | what |
//! |---|---|
//! | [`View::child`], [`View::shown`] | a name to its node; a node's attributes |
//! | [`View::list`] | a directory from a place on; the next call goes on where this one stopped, without reading again |
//! | [`View::read`], [`View::seek`] | bytes of a file, each block verified; where its data and its holes are |
//! | [`View::prime`] | brings a stretch into the cache of frames, before it is asked for |
//!
//! One view serves one call at a time; several of one layout agree on all numbers. Memory of each: [`VIEW_BYTES`].
//!
//! Invariants: nothing is given out that its digest did not verify; what cannot be read is a fault of those bytes, and of nothing else.
//! Does not: follow symlinks, write, start threads, or keep what a garbage collection would delete. Source: ours.

pub mod layout;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::Arc;

use windlass_hal::files::{Attributes, Named, Shown};
use windlass_hal::volume::ItemKind;

use self::layout::{Layout, Place};
use crate::format::row::{ItemAttributes, LocationRow, NameRow, RowPayload, RunKind};
use crate::id::{BackupId, Lin, VolumeId};
use crate::limits::LOCATION_BLOCKS_MAX;
use crate::read::cache::BlockCache;
use crate::read::lookup::Lookup;
use crate::read::range::{self, ReadFault};
use crate::table::lost::known;
use crate::table::read::{Names, TableReader};
use crate::table::source::{Fetch, TableFault};

/// Bytes of a file that one prime brings, and that lie in one view: as much as a fetch reads at once.
pub const STRETCH_BYTES: u64 = 1 << 20;
/// Plain bytes of frames that a view keeps: two stretches, so that the one that is read stays while the next comes.
pub const FRAME_CACHE_BYTES: usize = 3 << 20;
/// What a view takes: caches of the tables and of frames, a fetch, and the names of open directories.
pub const VIEW_BYTES: u64 = 8 << 20;
/// Directories that a view goes on listing without reading them again: some 100 KiB each.
const LISTINGS_MAX: usize = 8;
/// Names of a directory that are taken at once, so that their items are looked up in the order of the tables.
const CHUNK_NAMES: usize = 512;
/// Readers of tables that a view keeps, one per volume.
const VOLUMES_MAX: usize = 2;
/// The name of an image's bytes.
const IMAGE_NAME: &[u8] = b"disk.raw";

/// Why a call has no answer.
#[derive(Debug)]
pub enum ViewFault {
    /// There is no such name, node or attribute.
    NotFound,
    /// It is no directory.
    NotDirectory,
    /// It is no file, or no symlink.
    WrongKind,
    /// There is no byte at or behind that place, or none of that kind.
    PastEnd,
    /// Its number is too large to be shown.
    Number,
    /// Its bytes or rows cannot be read.
    Read(ReadFault),
}

impl fmt::Display for ViewFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ViewFault::NotFound => f.write_str("there is no such thing"),
            ViewFault::NotDirectory => f.write_str("it is not a directory"),
            ViewFault::WrongKind => f.write_str("it is of another type"),
            ViewFault::PastEnd => f.write_str("behind the end"),
            ViewFault::Number => f.write_str("its inode number is too large for a mount of several points"),
            ViewFault::Read(fault) => fault.fmt(f),
        }
    }
}

impl std::error::Error for ViewFault {}

impl From<ReadFault> for ViewFault {
    fn from(fault: ReadFault) -> ViewFault {
        ViewFault::Read(fault)
    }
}

impl From<TableFault> for ViewFault {
    fn from(fault: TableFault) -> ViewFault {
        ViewFault::Read(ReadFault::Rows(fault))
    }
}

/// Makes a reader of a volume's tables; `None` when there is no memory.
pub type Open<F> = Box<dyn Fn(VolumeId) -> Option<TableReader<F>> + Send>;

/// An entry that is ready to be given: name, node, type.
type Entry = (Vec<u8>, u64, ItemKind);

/// A listing that may go on.
struct Listing {
    node: u64,
    /// Place of the first entry that is ready.
    at: u64,
    ready: std::collections::VecDeque<Entry>,
    names: Option<Names>,
    used: u64,
}

/// See the module.
pub struct View<'a, F> {
    layout: Arc<Layout>,
    open: Open<F>,
    lookups: Vec<(VolumeId, Lookup<F>)>,
    blocks: BlockCache<'a>,
    /// Of a tree: the inode of its root, and whether that is an image.
    roots: BTreeMap<usize, (u64, bool)>,
    listings: Vec<Listing>,
    tick: u64,
}

impl<'a, F: Fetch> View<'a, F> {
    /// A view of `layout`.
    pub fn new(layout: Arc<Layout>, open: Open<F>, blocks: BlockCache<'a>) -> View<'a, F> {
        View {
            layout,
            open,
            lookups: Vec::new(),
            blocks,
            roots: BTreeMap::new(),
            listings: Vec::new(),
            tick: 0,
        }
    }

    fn place(&self, node: u64) -> Result<Place, ViewFault> {
        self.layout.place(node).ok_or(ViewFault::NotFound)
    }

    fn node(&self, place: Place) -> Result<u64, ViewFault> {
        self.layout.node(place).ok_or(ViewFault::Number)
    }

    /// The tables of a tree at its point, and its volume.
    fn lookup(&mut self, tree: usize) -> Result<(&mut Lookup<F>, VolumeId), ViewFault> {
        let &(cut, volume) = self.layout.trees().get(tree).ok_or(ViewFault::NotFound)?;
        let at = match self.lookups.iter().position(|(known, _)| *known == volume) {
            Some(at) => at,
            None => {
                let reader = (self.open)(volume).ok_or(ReadFault::Resources("memory"))?;
                if self.lookups.len() >= VOLUMES_MAX {
                    self.lookups.remove(0);
                }
                self.lookups.push((volume, Lookup::new(reader, cut)));
                self.lookups.len() - 1
            }
        };
        let lookup = &mut self.lookups[at].1;
        lookup.set_cut(cut);
        Ok((lookup, volume))
    }

    fn item(&mut self, tree: usize, inode: u64) -> Result<(Lin, ItemAttributes), ViewFault> {
        let (lookup, volume) = self.lookup(tree)?;
        let lin = Lin { volume, inode };
        Ok((lin, lookup.item(lin)?.ok_or(ViewFault::NotFound)?))
    }

    /// The root of a tree, and whether it is an image.
    fn root(&mut self, tree: usize) -> Result<(u64, bool), ViewFault> {
        if let Some(root) = self.roots.get(&tree) {
            return Ok(*root);
        }
        let (lookup, volume) = self.lookup(tree)?;
        let (lin, item) = lookup.root(volume)?.ok_or(ViewFault::NotFound)?;
        let root = (lin.inode, item.kind == ItemKind::Image);
        self.roots.insert(tree, root);
        Ok(root)
    }

    /// An item where a place is one: the root for the top of a tree; `None` for folders.
    fn item_of(&mut self, place: Place) -> Result<Option<(usize, Lin, ItemAttributes)>, ViewFault> {
        let (tree, inode) = match place {
            Place::Folder(_) => return Ok(None),
            Place::Item(tree, inode) => (tree, inode),
            Place::Top(tree) => match self.root(tree)? {
                (_, true) => return Ok(None),
                (inode, false) => (tree, inode),
            },
        };
        let (lin, item) = self.item(tree, inode)?;
        Ok(Some((tree, lin, item)))
    }

    /// The place of an inode: the root of a tree is its top.
    fn place_of(&mut self, tree: usize, inode: u64) -> Result<Place, ViewFault> {
        let is_root = self.root(tree)? == (inode, false);
        Ok(if is_root { Place::Top(tree) } else { Place::Item(tree, inode) })
    }

    fn show(&mut self, node: u64, place: Place) -> Result<Shown, ViewFault> {
        if let Some((_, _, item)) = self.item_of(place)? {
            let links = item.links.max(1);
            return Ok(Shown {
                node,
                generation: item.generation,
                kind: item.kind,
                mode: if item.kind == ItemKind::Image { 0o400 } else { item.mode },
                uid: item.uid,
                gid: item.gid,
                links,
                size: match &item.payload {
                    RowPayload::Target(target) => target.len() as u64,
                    _ => item.size,
                },
                rdev: item.rdev,
                atime: item.atime,
                mtime: item.mtime,
                ctime: item.ctime,
            });
        }
        let folder = match place {
            Place::Folder(at) => Some(self.layout.folder(at).ok_or(ViewFault::NotFound)?),
            _ => None,
        };
        let time = folder.map(|folder| folder.time).unwrap_or_default();
        let kind = folder.map_or(ItemKind::Directory, |folder| folder.kind);
        Ok(Shown {
            node,
            generation: 0,
            kind,
            mode: if kind == ItemKind::Directory { 0o555 } else { 0o777 },
            uid: 0,
            gid: 0,
            links: 1,
            size: folder.map_or(0, |folder| folder.target.len() as u64),
            rdev: (0, 0),
            atime: time,
            mtime: time,
            ctime: time,
        })
    }

    /// What a node is.
    pub fn shown(&mut self, node: u64) -> Result<Shown, ViewFault> {
        let place = self.place(node)?;
        self.show(node, place)
    }

    /// The node that a name means.
    pub fn child(&mut self, dir: u64, name: &[u8]) -> Result<Shown, ViewFault> {
        let place = match self.place(dir)? {
            Place::Folder(at) => {
                let entries = &self.layout.folder(at).ok_or(ViewFault::NotFound)?.entries;
                let found = entries.iter().find(|(known, _)| known == name);
                found.map(|(_, place)| *place).ok_or(ViewFault::NotFound)?
            }
            place => match self.item_of(place)? {
                None => self.image_of(place).filter(|_| name == IMAGE_NAME).ok_or(ViewFault::NotFound)?,
                Some((_, _, item)) if item.kind != ItemKind::Directory => {
                    return Err(ViewFault::NotDirectory);
                }
                Some((tree, lin, item)) => {
                    let (lookup, _) = self.lookup(tree)?;
                    let row = lookup.lookup(lin, &item, name)?.ok_or(ViewFault::NotFound)?;
                    lookup.ahead(Lin { inode: row.inode, ..lin }, false);
                    self.place_of(tree, row.inode)?
                }
            },
        };
        let node = self.node(place)?;
        self.show(node, place)
    }

    /// The file of an image, below its folder.
    fn image_of(&self, place: Place) -> Option<Place> {
        let Place::Top(tree) = place else { return None };
        self.roots.get(&tree).filter(|root| root.1).map(|root| Place::Item(tree, root.0))
    }

    /// Where a symlink points.
    pub fn target(&mut self, node: u64) -> Result<Vec<u8>, ViewFault> {
        let place = self.place(node)?;
        if let Place::Folder(at) = place {
            let folder = self.layout.folder(at).filter(|folder| folder.kind == ItemKind::Symlink);
            return folder.map(|folder| folder.target.clone()).ok_or(ViewFault::WrongKind);
        }
        match self.item_of(place)?.map(|(_, _, item)| item.payload) {
            Some(RowPayload::Target(target)) => Ok(target),
            _ => Err(ViewFault::WrongKind),
        }
    }

    /// The extended attributes of a node.
    pub fn attributes(&mut self, node: u64) -> Result<Attributes, ViewFault> {
        let place = self.place(node)?;
        Ok(self.item_of(place)?.map(|(_, _, item)| item.xattrs).unwrap_or_default())
    }

    /// Calls `each` with entries from the place `from` on, until it returns `false`.
    pub fn list(
        &mut self,
        dir: u64,
        from: u64,
        each: &mut dyn FnMut(Named<'_>) -> bool,
    ) -> Result<(), ViewFault> {
        self.tick += 1;
        let known = self.listings.iter().position(|open| open.node == dir && open.at == from);
        let mut open = match known {
            Some(at) => self.listings.swap_remove(at),
            None => self.begin(dir)?,
        };
        open.used = self.tick;
        let end = loop {
            if open.ready.is_empty() && !self.fill(&mut open)? {
                break true;
            }
            let Some((name, node, kind)) = open.ready.front() else { break true };
            let next = open.at + 1;
            let taken = open.at < from || each(Named { next, node: *node, kind: *kind, name });
            if !taken {
                break false;
            }
            open.ready.pop_front();
            open.at = next;
        };
        if !end {
            if self.listings.len() >= LISTINGS_MAX {
                let oldest = self.listings.iter().enumerate().min_by_key(|(_, open)| open.used);
                let oldest = oldest.map_or(0, |(at, _)| at);
                self.listings.swap_remove(oldest);
            }
            self.listings.push(open);
        }
        Ok(())
    }

    fn begin(&mut self, dir: u64) -> Result<Listing, ViewFault> {
        let place = self.place(dir)?;
        let mut open = Listing { node: dir, at: 0, ready: Default::default(), names: None, used: 0 };
        if let Place::Folder(at) = place {
            let layout = Arc::clone(&self.layout);
            for (name, place) in &layout.folder(at).ok_or(ViewFault::NotFound)?.entries {
                let kind = match place {
                    Place::Folder(at) => layout.folder(*at).map_or(ItemKind::Directory, |folder| folder.kind),
                    _ => ItemKind::Directory,
                };
                open.ready.push_back((name.clone(), self.node(*place)?, kind));
            }
            return Ok(open);
        }
        match self.item_of(place)? {
            Some((_, _, item)) if item.kind != ItemKind::Directory => return Err(ViewFault::NotDirectory),
            Some((tree, lin, item)) => open.names = Some(self.lookup(tree)?.0.names(lin, &item)),
            None => {
                let image = self.image_of(place).ok_or(ViewFault::NotFound)?;
                open.ready.push_back((IMAGE_NAME.to_vec(), self.node(image)?, ItemKind::Image));
            }
        }
        Ok(open)
    }

    /// Takes the next names of a listing; `false` at its end.
    fn fill(&mut self, open: &mut Listing) -> Result<bool, ViewFault> {
        let Some(names) = &mut open.names else { return Ok(false) };
        let tree = match self.layout.place(open.node) {
            Some(Place::Top(tree) | Place::Item(tree, _)) => tree,
            _ => return Ok(false),
        };
        let (lookup, volume) = self.lookup(tree)?;
        let mut rows: Vec<NameRow> = Vec::new();
        while rows.len() < CHUNK_NAMES
            && let Some(row) = lookup.next_name(names)?
        {
            rows.push(row);
        }
        let mut order: Vec<usize> = (0..rows.len()).collect();
        order.sort_unstable_by_key(|&at| rows[at].inode);
        let mut kinds = vec![None; rows.len()];
        for at in order {
            // A name whose item is lost is listed all the same, and says so when it is looked at.
            let item = known(lookup.item(Lin { volume, inode: rows[at].inode }))?;
            kinds[at] = Some(item.ok().flatten().map_or(ItemKind::File, |item| item.kind));
        }
        for (row, kind) in rows.into_iter().zip(kinds) {
            let place = self.place_of(tree, row.inode)?;
            open.ready.push_back((row.name, self.node(place)?, kind.unwrap_or(ItemKind::File)));
        }
        Ok(!open.ready.is_empty())
    }

    fn file(&mut self, node: u64) -> Result<(usize, Lin, ItemAttributes), ViewFault> {
        let place = self.place(node)?;
        let file = self.item_of(place)?.ok_or(ViewFault::WrongKind)?;
        match file.2.kind {
            ItemKind::File | ItemKind::Image => Ok(file),
            _ => Err(ViewFault::WrongKind),
        }
    }

    /// The bytes of a file from `from` on, `len` of them or up to its end.
    pub fn read(&mut self, node: u64, from: u64, len: u32) -> Result<Vec<u8>, ViewFault> {
        let mut out = Vec::with_capacity(len as usize);
        self.copy(node, from, len.into(), &mut out)?;
        Ok(out)
    }

    /// Brings bytes into the cache of frames.
    pub fn prime(&mut self, node: u64, from: u64, len: u64) -> Result<(), ViewFault> {
        self.copy(node, from, len, &mut io::sink())
    }

    fn copy(&mut self, node: u64, from: u64, len: u64, out: &mut dyn io::Write) -> Result<(), ViewFault> {
        let (tree, lin, item) = self.file(node)?;
        let &(cut, _) = self.layout.trees().get(tree).ok_or(ViewFault::NotFound)?;
        let at = self.lookups.iter().position(|(volume, _)| *volume == lin.volume);
        let Some((_, lookup)) = at.and_then(|at| self.lookups.get_mut(at)) else {
            return Err(ViewFault::NotFound);
        };
        lookup.set_cut(cut);
        range::copy(lookup, &mut self.blocks, lin, &item, from..from.saturating_add(len), out)?;
        Ok(())
    }

    /// The first byte at or behind `from` that is in data, or in a hole; the end of a file counts as a hole.
    pub fn seek(&mut self, node: u64, from: u64, data: bool) -> Result<u64, ViewFault> {
        let (tree, lin, item) = self.file(node)?;
        if from >= item.size {
            return Err(ViewFault::PastEnd);
        }
        if matches!(item.payload, RowPayload::Inline(_)) {
            return Ok(if data { from } else { item.size });
        }
        let (lookup, _) = self.lookup(tree)?;
        let mut rows = lookup.locations_from(lin, &item, 0);
        let mut sought = false;
        // Up to here all is data, when that is passed over.
        let mut at = from;
        while let Some(row) = lookup.next_location(&mut rows)? {
            let block_bytes = u64::from(row.block_bytes).max(1);
            let near = (from / block_bytes).saturating_sub(LOCATION_BLOCKS_MAX as u64);
            if !sought && row.base < near {
                sought = true;
                rows = lookup.locations_from(lin, &item, near);
                continue;
            }
            sought = true;
            for (start, end) in data_of(&row, item.size) {
                if end <= at {
                    continue;
                }
                if data {
                    return Ok(start.max(at));
                }
                if start > at {
                    return Ok(at);
                }
                at = end;
            }
        }
        lookup.all_locations(lin, &item)?;
        if data { Err(ViewFault::PastEnd) } else { Ok(at.min(item.size)) }
    }

    /// The point and volume that a node is of, for messages.
    pub fn origin(&self, node: u64) -> Option<(BackupId, VolumeId, u64)> {
        match self.layout.place(node)? {
            Place::Item(tree, inode) => {
                self.layout.trees().get(tree).map(|(cut, volume)| (*cut, *volume, inode))
            }
            _ => None,
        }
    }
}

/// The runs of data of a row, from byte to byte of the item, ascending.
fn data_of(row: &LocationRow, size: u64) -> Vec<(u64, u64)> {
    let start = row.base.saturating_mul(row.block_bytes.into());
    if row.runs.is_empty() {
        let end = start.saturating_add(row.blocks.len() as u64 * u64::from(row.block_bytes));
        return vec![(start, end.min(size))];
    }
    let mut at = start;
    let mut out = Vec::new();
    for &(kind, len) in &row.runs {
        let end = at.saturating_add(len);
        if matches!(kind, RunKind::Data | RunKind::Lost) && at < size {
            out.push((at, end.min(size)));
        }
        at = end;
    }
    out
}
