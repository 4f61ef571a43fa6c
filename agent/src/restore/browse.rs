//! Browsing a recovery point: a path to its item, the entries of a directory, a walk, the bytes of a file.
//!
//! | call | what | memory |
//! |---|---|---|
//! | [`root`] | the root item of a volume | a row |
//! | [`resolve`] | the item that a path means; symlinks are not followed | a row |
//! | [`list`] | a directory's entries in the order they are stored, which is by name | a chunk of entries |
//! | [`walk`] | everything below a directory, depth first, a directory before what is in it | a chunk per level |
//! | [`find`] | what of a walk matches | the same |
//! | [`cat`] | a file's bytes, in order | of `read::range` |
//!
//! Invariants: what is missing is an error that says which component or which object; rows are foreign, so nesting has a bound and a
//! directory inside itself is not entered.
//!
//! Does not: follow symlinks, or print. Source: ours; reading rules in `format::row`.

use std::fmt;
use std::io::Write;
use std::ops::Range;

use windlass_hal::volume::ItemKind;

use super::target::is_safe_name;
use super::walk::DEPTH_MAX;
use crate::foreign::name as printable;
use crate::format::row::{ItemAttributes, RowPayload};
use crate::format::seal::Keys;
use crate::id::{BackupId, Lin, VolumeId};
use crate::limits::FRAME_RAW_BYTES_MAX;
use crate::policy::select::{Patterns, Verdict};
use crate::read::cache::BlockCache;
use crate::read::lookup::Lookup;
use crate::read::range::{self, Copied, ReadFault};
use crate::store::retry::Client;
use crate::table::lost::{LostRows, known};
use crate::table::read::Names;
use crate::table::source::{Fetch, TableFault};

/// Directory entries read at once, so that their items are looked up in the order of the tables.
pub const CHUNK_NAMES: usize = 1024;

/// Why something cannot be shown. Paths are from the volume's root, without a slash in front.
#[derive(Debug)]
pub enum BrowseFault {
    /// There is no such name in its directory.
    NotFound {
        /// Path up to and with the name that is not there.
        path: Vec<u8>,
    },
    /// A component on the way, or the thing to be listed, is no directory.
    NotDirectory {
        /// Its path.
        path: Vec<u8>,
        /// What it is.
        kind: ItemKind,
    },
    /// A name is there, and the item that it names has no row: the tables are damaged.
    NoItem {
        /// Its path.
        path: Vec<u8>,
        /// The item.
        lin: Lin,
    },
    /// It has no contents to show.
    NotFile {
        /// What it is.
        kind: ItemKind,
    },
    /// The tables cannot be read.
    Rows(TableFault),
    /// Its bytes cannot be read, or not written.
    Read(ReadFault),
}

impl fmt::Display for BrowseFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |path: &[u8]| format!("/{}", printable(path));
        match self {
            BrowseFault::NotFound { path } => write!(f, "{} is not in this recovery point", shown(path)),
            BrowseFault::NotDirectory { path, kind: ItemKind::Symlink } => {
                write!(f, "{} is a symlink, which is not followed; use the path it points to", shown(path))
            }
            BrowseFault::NotDirectory { path, kind } => {
                write!(f, "{} is {}, not a directory", shown(path), kind_text(*kind))
            }
            BrowseFault::NoItem { path, lin } => {
                write!(f, "{} names item {lin}, which the tables do not have; run a check", shown(path))
            }
            BrowseFault::NotFile { kind } => write!(f, "it is {}, which has no contents", kind_text(*kind)),
            BrowseFault::Rows(fault) => write!(f, "reading the tables: {fault}"),
            BrowseFault::Read(fault) => fault.fmt(f),
        }
    }
}

impl std::error::Error for BrowseFault {}

impl From<TableFault> for BrowseFault {
    fn from(fault: TableFault) -> BrowseFault {
        BrowseFault::Rows(fault)
    }
}

impl From<ReadFault> for BrowseFault {
    fn from(fault: ReadFault) -> BrowseFault {
        match fault {
            ReadFault::Rows(fault) => BrowseFault::Rows(fault),
            other => BrowseFault::Read(other),
        }
    }
}

/// What people call a kind, with its article.
pub fn kind_text(kind: ItemKind) -> &'static str {
    match kind {
        ItemKind::File => "a file",
        ItemKind::Directory => "a directory",
        ItemKind::Symlink => "a symlink",
        ItemKind::CharDevice => "a character device",
        ItemKind::BlockDevice => "a block device",
        ItemKind::Fifo => "a named pipe",
        ItemKind::Socket => "a socket",
        ItemKind::Image => "an image",
    }
}

/// The root item of a volume: its root directory, whatever number the file system gives it, or the image that it is.
pub fn root<F: Fetch>(
    lookup: &mut Lookup<F>,
    volume: VolumeId,
) -> Result<(Lin, ItemAttributes), BrowseFault> {
    lookup.root(volume)?.ok_or(BrowseFault::NoItem { path: Vec::new(), lin: Lin { volume, inode: 0 } })
}

/// The components of a path; empty ones and `.` mean nothing.
pub fn components(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.split(|&b| b == b'/').filter(|part| !matches!(*part, b"" | b"."))
}

/// The item that `path` means, from `root` on. Symlinks are items like others: they are not followed.
pub fn resolve<F: Fetch>(
    lookup: &mut Lookup<F>,
    root: Lin,
    path: &[u8],
) -> Result<(Lin, ItemAttributes), BrowseFault> {
    let mut walked = Vec::new();
    let mut lin = root;
    lookup.ahead(lin, true);
    let mut left = components(path).count();
    let mut item = lookup.item(lin)?.ok_or(BrowseFault::NoItem { path: Vec::new(), lin })?;
    for part in components(path) {
        if item.kind != ItemKind::Directory {
            return Err(BrowseFault::NotDirectory { path: walked, kind: item.kind });
        }
        push_name(&mut walked, part);
        match lookup.lookup(lin, &item, part)? {
            None => return Err(BrowseFault::NotFound { path: walked }),
            Some(row) => lin.inode = row.inode,
        }
        left -= 1;
        lookup.ahead(lin, left > 0);
        match lookup.item(lin)? {
            None => return Err(BrowseFault::NoItem { path: walked, lin }),
            Some(next) => item = next,
        }
    }
    Ok((lin, item))
}

fn push_name(path: &mut Vec<u8>, name: &[u8]) {
    if !path.is_empty() {
        path.push(b'/');
    }
    path.extend_from_slice(name);
}

/// What [`list`] calls with (name, item number, item, if it has a row); `false` ends it.
pub type EachEntry<'a> = dyn FnMut(&[u8], Lin, Option<&ItemAttributes>) -> Result<bool, BrowseFault> + 'a;

/// What [`find`] calls with (path, item number, item); `false` ends it.
pub type EachFound<'a> = dyn FnMut(&[u8], Lin, &ItemAttributes) -> Result<bool, BrowseFault> + 'a;

/// Calls `each` with (name, item number, item) of a directory's entries, until it returns `false`. `None` for an item without a row.
/// Small contents and values of extended attributes are left out of the items.
pub fn list<F: Fetch>(
    lookup: &mut Lookup<F>,
    dir: Lin,
    item: &ItemAttributes,
    each: &mut EachEntry<'_>,
) -> Result<(), BrowseFault> {
    if item.kind != ItemKind::Directory {
        return Err(BrowseFault::NotDirectory { path: Vec::new(), kind: item.kind });
    }
    let mut names = Some(lookup.names(dir, item));
    while names.is_some() {
        let (chunk, lost) = chunk(lookup, &mut names)?;
        let mut order: Vec<usize> = (0..chunk.len()).collect();
        order.sort_by_key(|&at| chunk[at].0);
        let mut items = vec![None; chunk.len()];
        for at in order {
            // An item whose rows are lost still has its name.
            let item = known(lookup.item(Lin { volume: dir.volume, inode: chunk[at].0 }))?;
            items[at] = item.unwrap_or(None).map(lighten);
        }
        for ((inode, name), item) in chunk.iter().zip(&items) {
            if !each(name, Lin { volume: dir.volume, inode: *inode }, item.as_ref())? {
                return Ok(());
            }
        }
        if let Some(lost) = lost {
            return Err(BrowseFault::Rows(TableFault::Lost(lost)));
        }
    }
    Ok(())
}

/// Takes out of an item what can be large and no listing shows.
fn lighten(mut item: ItemAttributes) -> ItemAttributes {
    if matches!(item.payload, RowPayload::Inline(_)) {
        item.payload = RowPayload::None;
    }
    for (_, value) in &mut item.xattrs {
        *value = Vec::new();
    }
    item
}

/// Entries of a listing as (inode, name), and what of it is lost.
type Chunk = (Vec<(u64, Vec<u8>)>, Option<LostRows>);

/// The next entries of a listing; takes the listing away when it is at its end.
fn chunk<F: Fetch>(lookup: &mut Lookup<F>, names: &mut Option<Names>) -> Result<Chunk, TableFault> {
    let mut out = Vec::new();
    if let Some(open) = names {
        while out.len() < CHUNK_NAMES {
            match known(lookup.next_name(open))? {
                Ok(Some(row)) => out.push((row.inode, row.name)),
                Ok(None) => {
                    *names = None;
                    break;
                }
                Err(lost) => {
                    *names = None;
                    return Ok((out, Some(lost)));
                }
            }
        }
    }
    Ok((out, None))
}

/// What a walk meets under a name.
#[derive(Clone, Copy, Debug)]
pub enum Met<'a> {
    /// An item.
    Item(&'a ItemAttributes),
    /// The name leads to an item that has no row.
    NoItem,
    /// Rows of the item, or of its listing, are among those that cannot be read.
    Lost(LostRows),
    /// The name is not one that a directory can hold.
    BadName,
    /// A directory that is inside itself; not entered.
    Loop,
    /// A directory deeper than [`DEPTH_MAX`]; not entered.
    TooDeep,
}

/// One step of a walk.
#[derive(Clone, Copy, Debug)]
pub struct Visit<'a> {
    /// Path from the volume's root, without a slash in front.
    pub path: &'a [u8],
    /// The directory that names it.
    pub dir: Lin,
    /// The item.
    pub lin: Lin,
    /// What it is.
    pub met: Met<'a>,
}

/// A directory that is being walked.
struct Level {
    lin: Lin,
    /// Length of its path.
    path_len: usize,
    names: Option<Names>,
    /// Directories of the last chunk, with the backup whose names count; the next one is last.
    below: Vec<(Vec<u8>, Lin, BackupId)>,
}

/// What a walk calls; `false` ends it.
pub type Visitor<'a, F, E> = dyn FnMut(&mut Lookup<F>, Visit<'_>) -> Result<bool, E> + 'a;

/// Walks what is below directory `dir`, whose path is `path`; `dir` itself is not visited. Entries of a chunk come by inode, as the
/// tables lie. `false` when the visitor ended it.
pub fn walk<F: Fetch, E: From<TableFault>>(
    lookup: &mut Lookup<F>,
    dir: Lin,
    item: &ItemAttributes,
    path: &[u8],
    visit: &mut Visitor<'_, F, E>,
) -> Result<bool, E> {
    let mut path: Vec<u8> = components(path).collect::<Vec<_>>().join(&b'/');
    let names = Some(lookup.names(dir, item));
    let mut levels = vec![Level { lin: dir, path_len: path.len(), names, below: Vec::new() }];
    while let Some(level) = levels.last_mut() {
        path.truncate(level.path_len);
        if let Some((name, lin, rows_from)) = level.below.pop() {
            push_name(&mut path, &name);
            let dir = level.lin;
            let met = if levels.len() >= DEPTH_MAX {
                Met::TooDeep
            } else if levels.iter().any(|above| above.lin == lin) {
                Met::Loop
            } else {
                let names = Some(lookup.reader().names(lin, rows_from));
                levels.push(Level { lin, path_len: path.len(), names, below: Vec::new() });
                continue;
            };
            if !visit(lookup, Visit { path: &path, dir, lin, met })? {
                return Ok(false);
            }
            continue;
        }
        if level.names.is_none() {
            levels.pop();
            continue;
        }
        let (mut entries, lost) = chunk(lookup, &mut level.names)?;
        if let Some(lost) = lost
            && !visit(lookup, Visit { path: &path, dir: level.lin, lin: level.lin, met: Met::Lost(lost) })?
        {
            return Ok(false);
        }
        entries.sort_unstable_by_key(|entry| entry.0);
        for (inode, name) in entries {
            let (dir, lin) = (level.lin, Lin { volume: level.lin.volume, inode });
            path.truncate(level.path_len);
            push_name(&mut path, &name);
            let safe = is_safe_name(&name);
            let item = if safe { known(lookup.item(lin))? } else { Ok(None) };
            let met = match &item {
                Ok(Some(item)) => Met::Item(item),
                Ok(None) if safe => Met::NoItem,
                Ok(None) => Met::BadName,
                Err(lost) => Met::Lost(*lost),
            };
            if !visit(lookup, Visit { path: &path, dir, lin, met })? {
                return Ok(false);
            }
            if let Ok(Some(item)) = item
                && item.kind == ItemKind::Directory
            {
                level.below.push((name, lin, item.rows_from));
            }
        }
        level.below.reverse();
    }
    Ok(true)
}

/// Calls `each` with what is below `dir` (and with `dir` itself) and matches `name`: a pattern of `policy::select`, of the name, or
/// of the path from the volume's root if it has a slash. Damage on the way is left out: a check names it.
pub fn find<F: Fetch>(
    lookup: &mut Lookup<F>,
    dir: Lin,
    item: &ItemAttributes,
    path: &[u8],
    name: Option<&Patterns>,
    each: &mut EachFound<'_>,
) -> Result<(), BrowseFault> {
    let fits = |path: &[u8], item: &ItemAttributes| {
        name.is_none_or(|name| {
            name.judge(Verdict::Outside, path, item.kind == ItemKind::Directory) == Verdict::Taken
        })
    };
    let start: Vec<u8> = components(path).collect::<Vec<_>>().join(&b'/');
    if fits(&start, item) && !each(&start, dir, item)? {
        return Ok(());
    }
    if item.kind != ItemKind::Directory {
        return Ok(());
    }
    walk(lookup, dir, item, &start, &mut |_, visit| match visit.met {
        Met::Item(item) if fits(visit.path, item) => each(visit.path, visit.lin, item),
        _ => Ok(true),
    })?;
    Ok(())
}

/// Writes bytes `range` of a file or image to `out`, in order; the range is cut at the end. Stops at the first byte that cannot be
/// verified.
#[allow(clippy::too_many_arguments, reason = "one call; each part is named where it is made")]
pub fn cat<F: Fetch>(
    lookup: &mut Lookup<F>,
    client: &Client,
    keys: &Keys,
    lin: Lin,
    item: &ItemAttributes,
    range: Range<u64>,
    out: &mut dyn Write,
) -> Result<Copied, BrowseFault> {
    if !matches!(item.kind, ItemKind::File | ItemKind::Image) {
        return Err(BrowseFault::NotFile { kind: item.kind });
    }
    let cache = BlockCache::new(client, keys, FRAME_RAW_BYTES_MAX);
    let mut cache = cache.ok_or(BrowseFault::Read(ReadFault::Resources("memory")))?;
    range::copy(lookup, &mut cache, lin, item, range, out).map_err(BrowseFault::from)
}
