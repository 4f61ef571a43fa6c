//! `ls`, `stat`, `find`, `cat`.
//!
//! `stat`, `cat` and `restore` take `PATH@POINT` for a path as another point has it, if there is no such name; see [`history`](super::history).
//!
//! Paths are from the volume's root. Where a point has several volumes and `--volume` is not given, the first component is the
//! volume's number, as `points --json` prints it; `/` is then the list of volumes.
//!
//! With `--json`: `ls` and `find` print a line per item (`"event":"entry"`) and a last one (`"event":"done"`), because a directory can be
//! larger than memory; `stat` prints one document; `cat` writes bytes and takes no `--json`.
//!
//! Does not: follow symlinks, or take the lease. Source: ours.

use std::io::{self, BufWriter, Write};
use std::path::Path;

use serde_json::{Map, Value, json};
use windlass_agent::format::row::{ItemAttributes, RowPayload};
use windlass_agent::id::Lin;
use windlass_agent::log::state::{Point, State};
use windlass_agent::policy::select::{Patterns, Verdict};
use windlass_agent::read::range::ReadFault;
use windlass_agent::restore::browse::{self, BrowseFault};
use windlass_agent::restore::deleted::{Deleted, deleted};
use windlass_agent::units::{Counted, Grouped, Human};
use windlass_hal::volume::ItemKind;

use crate::cli::args::global::Global;
use crate::cli::args::{At, Cat, Find, Kind, Ls, Stat};
use crate::cli::output::Output;
use crate::cli::{damage, history};
use crate::engine::browse::{self as engine, fields};
pub use crate::engine::browse::{VolumePath, exact, find_item};
use crate::engine::points;
use crate::engine::repository::Repository;
use crate::engine::restore::{PointLookup, open_lookup};
use crate::failure::{Exit, Failure};
pub use crate::text::kind_word;
use crate::{logger, site_time, text};
use windlass_agent::civil::iso_utc;

/// Bytes that are gathered before they are written to stdout.
const OUT_BYTES: usize = 64 << 10;

/// The volumes and paths that a path means: one, or, for `/` of a point with several volumes, all of them.
pub fn volume_paths(state: &State, point: &Point, at: &At, path: &Path) -> Result<Vec<VolumePath>, Failure> {
    engine::volume_paths(state, point, &at.target, at.volume.as_deref(), path)
}

/// What all these commands begin with.
pub struct Opened {
    /// The repository.
    pub repository: Repository,
    /// What its log says.
    pub state: State,
}

impl Opened {
    /// Opens the repository and reads its log.
    pub fn new(global: &Global) -> Result<Opened, Failure> {
        let repository = Repository::open(global)?;
        let state = repository.view()?.state;
        Ok(Opened { repository, state })
    }

    /// Opens the tables for a path.
    pub fn lookup(&self, point: &Point, place: &VolumePath) -> Result<PointLookup, Failure> {
        open_lookup(&self.repository, &self.state, point, place.volume)
    }
}

/// The item that a path means. A path that is not there as it was written is taken as `ls` and messages show it, too.
fn resolve(lookup: &mut PointLookup, place: &mut VolumePath) -> Result<(Lin, ItemAttributes), Failure> {
    match find_item(lookup, place)? {
        Ok(found) => Ok(found),
        Err(fault) => Err(place.fail(fault)),
    }
}

/// An item that a command line names: the point it is taken from, and where it is there.
struct Located<'a> {
    point: &'a Point,
    place: VolumePath,
    lookup: PointLookup,
    lin: Lin,
    item: ItemAttributes,
}

/// The one item that a path means in a point; or, where it is called `PATH@POINT` and there is no such name, in another one.
fn locate<'a>(opened: &'a Opened, at: &At, path: &Path) -> Result<Located<'a>, Failure> {
    let point = points::pick(&opened.state, &at.target)?;
    damage::warn(&opened.state, point.backup);
    let mut place = one(&opened.state, point, at, path)?;
    let mut lookup = opened.lookup(point, &place)?;
    let fault = match find_item(&mut lookup, &mut place)? {
        Ok((lin, item)) => return Ok(Located { point, place, lookup, lin, item }),
        Err(fault) => fault,
    };
    let Some((path, number)) = history::versioned(path) else { return Err(place.fail(fault)) };
    let (point, mut place) = history::at_point(opened, at, &path, number)?;
    let mut lookup = opened.lookup(point, &place)?;
    let (lin, item) = resolve(&mut lookup, &mut place)?;
    Ok(Located { point, place, lookup, lin, item })
}

/// The one place that a path means, for commands that take one item.
pub fn one(state: &State, point: &Point, at: &At, path: &Path) -> Result<VolumePath, Failure> {
    engine::one(state, point, &at.target, at.volume.as_deref(), path)
}

/// `ls`.
pub fn ls(global: &Global, args: &Ls, output: &Output) -> Result<Exit, Failure> {
    let opened = Opened::new(global)?;
    let point = points::pick(&opened.state, &args.at.target)?;
    damage::warn(&opened.state, point.backup);
    let places = volume_paths(&opened.state, point, &args.at, &args.path)?;
    let mut entries = 0u64;
    let mut missing = 0u64;
    let several = places.len() > 1;
    for mut place in places {
        let mut lookup = opened.lookup(point, &place)?;
        let (lin, item) = resolve(&mut lookup, &mut place)?;
        if several || item.kind != ItemKind::Directory {
            entries += 1;
            let shown = place.shown(&place.path);
            let name = if several { &place.prefix } else { &shown };
            line(output, name, lin, Some(&item), args.long);
            continue;
        }
        if args.deleted {
            entries +=
                show_deleted(&opened.state, point, &place, &mut lookup, (lin, &item), false, &mut |found| {
                    deleted_line(output, &place, found, false, args.long);
                    true
                })?;
            continue;
        }
        let listed = browse::list(&mut lookup, lin, &item, &mut |name, lin, item| {
            entries += 1;
            missing += u64::from(item.is_none());
            line(output, name, lin, item, args.long);
            Ok(true)
        });
        listed.map_err(|fault| place.fail(fault))?;
    }
    output.event(
        "done",
        json!({ "point": point.backup.0, "entries": entries, "entries_without_item": missing }),
    );
    if missing > 0 {
        logger::say(format_args!(
            "windlass: {} without an item in the tables; run `windlass check {}@{}`",
            Counted(missing, "name"),
            point.policy,
            point.backup
        ));
        return Ok(Exit::Partial);
    }
    Ok(Exit::Done)
}

/// What is gone from a directory, or from below it; how many `each` said counts.
fn show_deleted(
    state: &State,
    point: &Point,
    place: &VolumePath,
    lookup: &mut PointLookup,
    dir: (Lin, &ItemAttributes),
    below: bool,
    each: &mut dyn FnMut(&Deleted<'_>) -> bool,
) -> Result<u64, Failure> {
    let of = points::with_volume(state, &point.policy, place.volume, point.backup);
    let mut count = 0;
    let done = deleted(lookup, dir, &place.path, &of, below, &mut |found| {
        count += u64::from(each(found));
        Ok(true)
    });
    done.map(|()| count).map_err(|fault| place.fail(fault))
}

/// Prints what is gone; by its path, or by its name.
fn deleted_line(output: &Output, place: &VolumePath, found: &Deleted<'_>, by_path: bool, long: bool) {
    let path = place.shown(found.path);
    if output.is_json() {
        let mut object = Map::new();
        text::put_bytes(&mut object, "path", &path);
        let mut put = |key: &str, value: Value| object.insert(key.to_owned(), value);
        put("volume", found.lin.volume.0.into());
        put("inode", found.lin.inode.into());
        put("type", found.kind.map(kind_word).into());
        put("size", found.size.into());
        put("mtime", exact(found.mtime).into());
        put("last_point", found.last.0.into());
        put("missed_by", found.missed_by.0.into());
        put("found", found.found_secs.map(iso_utc).into());
        put("lives_on", found.lives_on.into());
        output.event("deleted", Value::Object(object));
        return;
    }
    let name = if by_path { &path[..] } else { found.path.rsplit(|&b| b == b'/').next().unwrap_or_default() };
    let what = if found.lives_on { "renamed" } else { "deleted" };
    let slash = if found.kind == Some(ItemKind::Directory) { "/" } else { "" };
    let when =
        found.found_secs.map(|secs| format!(", missed {}", site_time::shown(secs))).unwrap_or_default();
    let shown = text::printable(name);
    let details = if long {
        let letter = found.kind.map_or('?', letter);
        format!("{letter} {:>14} {} ", Grouped(found.size), site_time::shown(found.mtime.secs))
    } else {
        String::new()
    };
    output.say(format_args!("{details}{shown}{slash} ({what}; last in point {}{when})", found.last));
}

/// Prints an entry.
fn line(output: &Output, name: &[u8], lin: Lin, item: Option<&ItemAttributes>, long: bool) {
    if output.is_json() {
        let object = engine::entry(name, lin, item);
        output.event("entry", Value::Object(object));
        return;
    }
    let shown = text::printable(name);
    match item {
        Some(item) if long => output.say(format_args!(
            "{}{} {:>3} {:>5} {:>5} {:>14} {} {shown}{}",
            letter(item.kind),
            text::permissions(item.mode),
            item.links,
            item.uid,
            item.gid,
            size(item),
            site_time::shown(item.mtime.secs),
            arrow(item),
        )),
        None if long => output.say(format_args!("?????????? (no row for item {lin}) {shown}")),
        Some(item) if item.kind == ItemKind::Directory => output.say(format_args!("{shown}/")),
        _ => output.say(shown),
    }
}

fn size(item: &ItemAttributes) -> String {
    match item.kind {
        ItemKind::CharDevice | ItemKind::BlockDevice => format!("{}, {}", item.rdev.0, item.rdev.1),
        _ => Grouped(item.size).to_string(),
    }
}

fn arrow(item: &ItemAttributes) -> String {
    match &item.payload {
        RowPayload::Target(target) => format!(" -> {}", text::printable(target)),
        _ => String::new(),
    }
}

fn letter(kind: ItemKind) -> char {
    match kind {
        ItemKind::File | ItemKind::Image => '-',
        ItemKind::Directory => 'd',
        ItemKind::Symlink => 'l',
        ItemKind::CharDevice => 'c',
        ItemKind::BlockDevice => 'b',
        ItemKind::Fifo => 'p',
        ItemKind::Socket => 's',
    }
}

/// `stat`.
pub fn stat(global: &Global, args: &Stat, output: &Output) -> Result<Exit, Failure> {
    let opened = Opened::new(global)?;
    let Located { point, place, lin, item, .. } = locate(&opened, &args.at, &args.path)?;
    let path = place.shown(&place.path);
    let mut times = vec![("accessed", item.atime), ("modified", item.mtime), ("changed", item.ctime)];
    times.extend(item.btime.map(|time| ("created", time)));
    output.say(format_args!("path      {}{}", text::printable(&path), arrow(&item)));
    output.say(format_args!("type      {}", kind_word(item.kind)));
    output.say(format_args!("size      {} ({} bytes)", Human(item.size), Grouped(item.size)));
    output.say(format_args!("mode      {:04o} {}", item.mode, text::permissions(item.mode)));
    output.say(format_args!("owner     {}:{}", item.uid, item.gid));
    output.say(format_args!("links     {}", item.links));
    output.say(format_args!(
        "inode     {} of volume {}, generation {}",
        lin.inode, lin.volume, item.generation
    ));
    if matches!(item.kind, ItemKind::CharDevice | ItemKind::BlockDevice) {
        output.say(format_args!("device    {}, {}", item.rdev.0, item.rdev.1));
    }
    for (what, time) in &times {
        output.say(format_args!("{what:<9} {}", exact(*time)));
    }
    for (name, value) in &item.xattrs {
        output.say(format_args!("attribute {} ({} bytes)", text::printable(name), value.len()));
    }
    if !item.fault.is_empty() {
        output.say(format_args!("incomplete since its backup: {}", text::printable(item.fault.as_bytes())));
    }
    output.document(&engine::stat_document(point, &path, lin, &item));
    Ok(Exit::Done)
}

/// `find`.
pub fn find(global: &Global, args: &Find, output: &Output) -> Result<Exit, Failure> {
    let pattern = args.name.as_ref().map(|name| Patterns::new(std::slice::from_ref(name), &[]));
    let mut pattern = pattern.transpose().map_err(Failure::usage)?;
    let opened = Opened::new(global)?;
    let point = points::pick(&opened.state, &args.at.target)?;
    damage::warn(&opened.state, point.backup);
    let mut found = 0u64;
    for mut place in volume_paths(&opened.state, point, &args.at, &args.path)? {
        let mut lookup = opened.lookup(point, &place)?;
        let (lin, item) = match find_item(&mut lookup, &mut place)? {
            Ok(found) => found,
            // `find home '*.conf'`, as other programs have it.
            Err(fault) => {
                let Some(text) = as_pattern(args, &place) else { return Err(place.fail(fault)) };
                pattern = Some(Patterns::new(&[text], &[]).map_err(Failure::usage)?);
                place.path.clear();
                resolve(&mut lookup, &mut place)?
            }
        };
        if args.deleted {
            found +=
                show_deleted(&opened.state, point, &place, &mut lookup, (lin, &item), true, &mut |gone| {
                    let is_dir = gone.kind == Some(ItemKind::Directory);
                    let is_named = pattern.as_ref().is_none_or(|pattern| {
                        pattern.judge(Verdict::Outside, gone.path, is_dir) == Verdict::Taken
                    });
                    let shows = is_named
                        && has_kind(args, gone.kind)
                        && args.larger.is_none_or(|least| gone.size > least.0);
                    if shows {
                        deleted_line(output, &place, gone, true, false);
                    }
                    shows
                })?;
            continue;
        }
        let walked =
            browse::find(&mut lookup, lin, &item, &place.path, pattern.as_ref(), &mut |path, lin, item| {
                if fits(args, item) {
                    found += 1;
                    let path = place.shown(path);
                    output.say(text::printable(&path));
                    if output.is_json() {
                        let mut object = fields(lin, item);
                        text::put_bytes(&mut object, "path", &path);
                        output.event("entry", Value::Object(object));
                    }
                }
                Ok(true)
            });
        walked.map_err(|fault| place.fail(fault))?;
    }
    output.event("done", json!({ "point": point.backup.0, "entries": found }));
    Ok(Exit::Done)
}

/// A path that is nowhere, as a pattern, if it can be one and no other is given.
fn as_pattern(args: &Find, place: &VolumePath) -> Option<String> {
    let text = std::str::from_utf8(&place.path).ok()?;
    let is_one = args.name.is_none() && text.contains(['*', '?', '[', '{']);
    let from_root = args.path.has_root() || text.contains('/');
    is_one.then(|| format!("{}{text}", if from_root { "/" } else { "" }))
}

fn fits(args: &Find, item: &ItemAttributes) -> bool {
    let is_file = matches!(item.kind, ItemKind::File | ItemKind::Image);
    has_kind(args, Some(item.kind)) && args.larger.is_none_or(|larger| is_file && item.size > larger.0)
}

fn has_kind(args: &Find, kind: Option<ItemKind>) -> bool {
    match (args.kind, kind) {
        (None, _) => true,
        (_, None) => false,
        (Some(Kind::File), Some(kind)) => matches!(kind, ItemKind::File | ItemKind::Image),
        (Some(Kind::Dir), Some(kind)) => kind == ItemKind::Directory,
        (Some(Kind::Link), Some(kind)) => kind == ItemKind::Symlink,
        (Some(Kind::Special), Some(kind)) => {
            matches!(kind, ItemKind::CharDevice | ItemKind::BlockDevice | ItemKind::Fifo | ItemKind::Socket)
        }
    }
}

/// `cat`. A reader that went away is no failure.
pub fn cat(global: &Global, args: &Cat, output: &Output) -> Result<Exit, Failure> {
    if output.is_json() {
        return Err(Failure::usage("cat writes the file's bytes; leave --json out, or use stat"));
    }
    let opened = Opened::new(global)?;
    let Located { place, mut lookup, lin, item, .. } = locate(&opened, &args.at, &args.path)?;
    let (client, keys) = (&opened.repository.opened.client, &opened.repository.keys);
    let mut out = BufWriter::with_capacity(OUT_BYTES, io::stdout().lock());
    let written = browse::cat(&mut lookup, client, keys, lin, &item, 0..u64::MAX, &mut out);
    let flushed = out.flush();
    let shown = || text::printable(&place.shown(&place.path));
    let report = match (written, flushed) {
        (Err(BrowseFault::Read(ReadFault::Output(error))), _) | (Ok(_), Err(error)) => {
            return match error.kind() {
                io::ErrorKind::BrokenPipe => Ok(Exit::Done),
                _ => Err(Failure::at("standard output", error)),
            };
        }
        (Err(fault), _) => return Err(Failure::at(shown(), fault)),
        (Ok(report), Ok(())) => report,
    };
    if report.lost == 0 && item.fault.is_empty() {
        return Ok(Exit::Done);
    }
    let why = if item.fault.is_empty() { "the medium did not give all of it" } else { &item.fault };
    logger::say(format_args!(
        "windlass: {}: incomplete since its backup, {} bytes are zero instead: {}",
        shown(),
        Grouped(report.lost),
        text::printable(why.as_bytes())
    ));
    Ok(Exit::Partial)
}
