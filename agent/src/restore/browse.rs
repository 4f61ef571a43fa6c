//! Browsing a recovery point: a path to its item, the entries of a directory, a walk, the bytes of a file.
//!
//! | call | what | memory |
//! |---|---|---|
//! | [`root`] | the root item of a volume | a row |
//! | [`resolve`] | the item that a path means; symlinks are not followed | a row |
//! | [`list`] | a directory's entries in the order they are stored, which is by name | a chunk of entries |
//! | [`walk`] | everything below a directory, depth first, a directory before what is in it | a chunk per level |
//! | [`find`] | what of a walk matches | the same |
//! | [`cat`] | a file's bytes, in order | a fetch and a frame |
//!
//! Invariants: nothing is written to an output that its digest did not verify; what is missing is an error that says which component
//! or which object; rows are foreign, so nesting has a bound and a directory inside itself is not entered.
//!
//! Does not: follow symlinks, cache beyond the last fetch and frame, or print. Source: ours; reading rules in `format::row`.

use std::fmt;
use std::io::{self, Read, Write};
use std::ops::Range;

use windlass_hal::volume::ItemKind;

use super::lookup::Lookup;
use super::plan::{GAP_BYTES_MAX, READ_BYTES_MAX};
use super::target::is_safe_name;
use super::walk::DEPTH_MAX;
use crate::foreign::name as printable;
use crate::format::compress::Decompressor;
use crate::format::fault::FormatFault;
use crate::format::frame;
use crate::format::row::{BlockPlace, ItemAttributes, LocationRow, Place, RowPayload, RunKind};
use crate::format::seal::{Keys, ObjectKey};
use crate::id::{BackupId, Lin, ObjectId, VolumeId};
use crate::limits::LOCATION_BLOCKS_MAX;
use crate::policy::select::{Patterns, Verdict};
use crate::store::retry::Client;
use crate::store::{ByteRange, StoreFault, StoreFaultKind};
use crate::table::lost::{LostRows, known};
use crate::table::read::Names;
use crate::table::source::{Fetch, TableFault};

/// Directory entries read at once, so that their items are looked up in the order of the tables.
pub const CHUNK_NAMES: usize = 1024;
/// Zero bytes written in one call.
const ZEROS_BYTES: usize = 64 << 10;
static ZEROS: [u8; ZEROS_BYTES] = [0; ZEROS_BYTES];

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
    /// Rows contradict each other; which rule.
    Contradiction(&'static str),
    /// Stored bytes are damaged.
    Damaged {
        /// In which object.
        object: ObjectId,
        /// Offset of the frame in the object.
        frame_offset: u32,
        /// First byte of the block in the item.
        offset: u64,
        /// What the check said.
        what: FormatFault,
    },
    /// An object is gone or shorter than its rows say.
    Missing {
        /// Which.
        object: ObjectId,
        /// Offset of the frame in the object.
        frame_offset: u32,
        /// First byte of the block in the item.
        offset: u64,
    },
    /// The tables cannot be read.
    Rows(TableFault),
    /// The store does not answer.
    Store(StoreFault),
    /// The output cannot be written to.
    Output(io::Error),
    /// No memory for the work.
    Resources(&'static str),
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
            BrowseFault::Contradiction(rule) => write!(f, "the tables contradict themselves: {rule}"),
            BrowseFault::Damaged { object, frame_offset, offset, what } => {
                write!(f, "bytes from {offset} on are damaged (object {object}, byte {frame_offset}): {what}")
            }
            BrowseFault::Missing { object, frame_offset, offset } => write!(
                f,
                "bytes from {offset} on are missing: object {object} is gone or cut short (byte {frame_offset})"
            ),
            BrowseFault::Rows(fault) => write!(f, "reading the tables: {fault}"),
            BrowseFault::Store(fault) => write!(f, "reading the store: {fault}"),
            BrowseFault::Output(error) => write!(f, "writing: {error}"),
            BrowseFault::Resources(what) => write!(f, "not enough {what}"),
        }
    }
}

impl std::error::Error for BrowseFault {}

impl From<TableFault> for BrowseFault {
    fn from(fault: TableFault) -> BrowseFault {
        BrowseFault::Rows(fault)
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
            let met = if levels.len() >= DEPTH_MAX {
                Met::TooDeep
            } else if levels.iter().any(|above| above.lin == lin) {
                Met::Loop
            } else {
                let names = Some(lookup.reader().names(lin, rows_from));
                levels.push(Level { lin, path_len: path.len(), names, below: Vec::new() });
                continue;
            };
            if !visit(lookup, Visit { path: &path, lin, met })? {
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
            && !visit(lookup, Visit { path: &path, lin: level.lin, met: Met::Lost(lost) })?
        {
            return Ok(false);
        }
        entries.sort_unstable_by_key(|entry| entry.0);
        for (inode, name) in entries {
            let lin = Lin { volume: level.lin.volume, inode };
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
            if !visit(lookup, Visit { path: &path, lin, met })? {
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

/// What [`cat`] wrote.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CatReport {
    /// Bytes written.
    pub bytes: u64,
    /// Bytes of them that are zero because the medium did not give them when they were backed up.
    pub lost: u64,
}

/// Opens frames, keeping buffers and the last object's key.
pub(super) struct Decoder<'a> {
    keys: &'a Keys,
    decompressor: Decompressor,
    plain: Vec<u8>,
    key: Option<(ObjectId, ObjectKey)>,
}

impl<'a> Decoder<'a> {
    /// `None` when there is no memory.
    pub(super) fn new(keys: &'a Keys) -> Option<Decoder<'a>> {
        Some(Decoder { keys, decompressor: Decompressor::new()?, plain: Vec::new(), key: None })
    }

    /// Opens a frame in place; its plain bytes are [`Decoder::block`]'s until the next.
    pub(super) fn open(
        &mut self,
        object: &ObjectId,
        offset: u32,
        bytes: &mut [u8],
    ) -> Result<(), FormatFault> {
        let key = match self.key.take() {
            Some((of, key)) if of == *object => key,
            _ => self.keys.object(object),
        };
        self.plain.clear();
        let opened = frame::open(bytes, &key, offset.into());
        self.key = Some((*object, key));
        let opened = opened?;
        self.plain.resize(opened.raw_len, 0);
        opened.plain(&mut self.decompressor, &mut self.plain)
    }

    /// A block of the last frame, verified.
    pub(super) fn block(&self, from: u32, len: u32, digest: &[u8; 16]) -> Result<&[u8], FormatFault> {
        let from = from as usize;
        let bytes = self.plain.get(from..from.saturating_add(len as usize));
        let bytes = bytes.ok_or(FormatFault::damaged("block", "not within its frame"))?;
        if self.keys.digest(bytes) == *digest {
            Ok(bytes)
        } else {
            Err(FormatFault::damaged("block", "digest differs"))
        }
    }
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
) -> Result<CatReport, BrowseFault> {
    if !matches!(item.kind, ItemKind::File | ItemKind::Image) {
        return Err(BrowseFault::NotFile { kind: item.kind });
    }
    let end = range.end.min(item.size);
    let range = range.start.min(end)..end;
    if let RowPayload::Inline(bytes) = &item.payload {
        let stored = bytes.len() as u64;
        if stored > item.size {
            return Err(BrowseFault::Contradiction("small contents longer than the item"));
        }
        let part = range.start.min(stored) as usize..range.end.min(stored) as usize;
        out.write_all(&bytes[part.clone()]).map_err(BrowseFault::Output)?;
        let zeros = (range.end - range.start) - part.len() as u64;
        io::copy(&mut io::repeat(0).take(zeros), out).map_err(BrowseFault::Output)?;
        return Ok(CatReport { bytes: range.end - range.start, lost: 0 });
    }
    let decoder = Decoder::new(keys).ok_or(BrowseFault::Resources("memory"))?;
    let report = CatReport::default();
    let at = range.start;
    let mut cat = Cat { client, decoder, fetched: None, frame: None, out, range, at, report };
    cat.rows(lookup, lin, item)?;
    Ok(cat.report)
}

/// A file on its way to an output.
struct Cat<'a> {
    client: &'a Client,
    decoder: Decoder<'a>,
    /// The last bytes that were fetched: object, offset, bytes. A frame is opened in place, once.
    fetched: Option<(ObjectId, u64, Vec<u8>)>,
    /// Which frame the decoder has.
    frame: Option<(ObjectId, u32, u32)>,
    out: &'a mut dyn Write,
    range: Range<u64>,
    /// Next byte to write.
    at: u64,
    report: CatReport,
}

impl Cat<'_> {
    fn rows<F: Fetch>(
        &mut self,
        lookup: &mut Lookup<F>,
        lin: Lin,
        item: &ItemAttributes,
    ) -> Result<(), BrowseFault> {
        let mut rows = lookup.locations_from(lin, item, 0);
        let mut sought = false;
        while self.at < self.range.end
            && let Some(row) = lookup.next_location(&mut rows)?
        {
            let block_bytes = u64::from(row.block_bytes);
            if block_bytes == 0 {
                return Err(BrowseFault::Contradiction("blocks of no bytes"));
            }
            // The row with the first wanted block begins at most a row's length before it.
            let near = (self.range.start / block_bytes).saturating_sub(LOCATION_BLOCKS_MAX as u64);
            if !sought && row.base < near {
                rows = lookup.locations_from(lin, item, near);
            } else {
                self.row(&row, item.size)?;
            }
            sought = true;
        }
        // What lies before the end of the range may have been among rows that are lost: nothing tells a hole from it.
        lookup.all_locations(lin, item)?;
        self.zeros(self.range.end)
    }

    fn row(&mut self, row: &LocationRow, size: u64) -> Result<(), BrowseFault> {
        let block_bytes = u64::from(row.block_bytes);
        let past = BrowseFault::Contradiction("a location past the end of all numbers");
        let Some(start) = row.base.checked_mul(block_bytes) else { return Err(past) };
        self.count_lost(row, start);
        for (index, place) in row.blocks.iter().enumerate() {
            let offset = start.saturating_add(index as u64 * block_bytes);
            if offset >= self.range.end {
                break;
            }
            let BlockPlace::Stored(place) = place else { continue };
            let len = block_bytes.min(size - offset);
            if u64::from(place.len) != len {
                return Err(BrowseFault::Contradiction("a block of another length than the item has there"));
            }
            if offset + len <= self.at {
                continue;
            }
            self.zeros(offset)?;
            if self.at > self.range.start.max(offset) {
                return Err(BrowseFault::Contradiction("blocks that overlap"));
            }
            self.load(place, offset, &row.blocks[index + 1..])?;
            let bytes = self.decoder.block(place.inner_offset, place.len, &place.digest);
            let bytes = bytes.map_err(|what| damaged(place, offset, what))?;
            let (from, to) = (self.at - offset, (self.range.end - offset).min(len));
            self.out.write_all(&bytes[from as usize..to as usize]).map_err(BrowseFault::Output)?;
            self.report.bytes += to - from;
            self.at = offset + to;
        }
        Ok(())
    }

    /// Writes zeros up to `to`: holes and zero blocks.
    fn zeros(&mut self, to: u64) -> Result<(), BrowseFault> {
        while self.at < to {
            let len = (to - self.at).min(ZEROS_BYTES as u64);
            self.out.write_all(&ZEROS[..len as usize]).map_err(BrowseFault::Output)?;
            self.report.bytes += len;
            self.at += len;
        }
        Ok(())
    }

    fn count_lost(&mut self, row: &LocationRow, start: u64) {
        let wanted = self.range.clone();
        let mut lost = |from: u64, len: u64| {
            let to = from.saturating_add(len).min(wanted.end);
            self.report.lost += to.saturating_sub(from.max(wanted.start));
        };
        let mut at = start;
        for &(kind, len) in &row.runs {
            if kind == RunKind::Lost {
                lost(at, len);
            }
            at = at.saturating_add(len);
        }
        if row.runs.is_empty() {
            let block_bytes = u64::from(row.block_bytes);
            for (index, place) in row.blocks.iter().enumerate() {
                if *place == BlockPlace::Lost {
                    lost(start.saturating_add(index as u64 * block_bytes), block_bytes);
                }
            }
        }
    }

    /// Makes the decoder have the frame of a block. A fetch takes the frames of the next blocks along where they lie near.
    fn load(&mut self, place: &Place, offset: u64, next: &[BlockPlace]) -> Result<(), BrowseFault> {
        let frame = (place.object, place.frame_offset, place.frame_bytes);
        if self.frame == Some(frame) {
            return Ok(());
        }
        self.frame = None;
        let (from, len) = (u64::from(place.frame_offset), u64::from(place.frame_bytes));
        let has = |(object, at, bytes): &(ObjectId, u64, Vec<u8>)| {
            *object == place.object && *at <= from && from + len <= *at + bytes.len() as u64
        };
        if !self.fetched.as_ref().is_some_and(has) {
            self.fetch(place, next)?;
        }
        if let Some((_, at, bytes)) = self.fetched.as_mut().filter(|fetched| has(fetched)) {
            let from = (from - *at) as usize;
            // Opening in place spoils the bytes: a copy, so that a frame that comes again in the same fetch can be opened again.
            let mut bytes = bytes[from..from + len as usize].to_vec();
            if self.decoder.open(&place.object, place.frame_offset, &mut bytes).is_ok()
                && self.decoder.block(place.inner_offset, place.len, &place.digest).is_ok()
            {
                self.frame = Some(frame);
                return Ok(());
            }
        }
        // Once more, from another connection, before it counts as damage.
        let mut bytes = Vec::new();
        let range = ByteRange::From { offset: from, len: len.max(1) };
        let missing = BrowseFault::Missing { object: place.object, frame_offset: place.frame_offset, offset };
        match self.client.get_afresh(&place.object.object_key(), range, &mut bytes) {
            Err(fault) if fault.kind == StoreFaultKind::NotFound => return Err(missing),
            other => other.map_err(BrowseFault::Store)?,
        };
        if (bytes.len() as u64) < len {
            return Err(missing);
        }
        self.decoder
            .open(&place.object, place.frame_offset, &mut bytes)
            .map_err(|what| damaged(place, offset, what))?;
        self.frame = Some(frame);
        Ok(())
    }

    /// Fetches the frame of a block, and those of the next ones; nothing when the object is missing.
    fn fetch(&mut self, place: &Place, next: &[BlockPlace]) -> Result<(), BrowseFault> {
        let from = u64::from(place.frame_offset);
        let mut end = from + u64::from(place.frame_bytes);
        for other in next {
            let BlockPlace::Stored(other) = other else { continue };
            let other_from = u64::from(other.frame_offset);
            let reach = other_from + u64::from(other.frame_bytes);
            let near = other_from >= from && other_from <= end + u64::from(GAP_BYTES_MAX);
            if other.object != place.object || !near || reach - from > u64::from(READ_BYTES_MAX) {
                break;
            }
            end = end.max(reach);
        }
        let mut bytes = self.fetched.take().map(|(_, _, bytes)| bytes).unwrap_or_default();
        bytes.clear();
        let range = ByteRange::From { offset: from, len: (end - from).max(1) };
        match self.client.get(&place.object.object_key(), range, &mut bytes) {
            Ok(_) => {
                self.fetched = Some((place.object, from, bytes));
                Ok(())
            }
            Err(fault) if fault.kind == StoreFaultKind::NotFound => Ok(()),
            Err(fault) => Err(BrowseFault::Store(fault)),
        }
    }
}

fn damaged(place: &Place, offset: u64, what: FormatFault) -> BrowseFault {
    BrowseFault::Damaged { object: place.object, frame_offset: place.frame_offset, offset, what }
}
