//! `history`: the versions of a path over all points; and `PATH@POINT`, by which other commands are given one of them.
//!
//! Source: ours; `read::history`.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};
use windlass_agent::civil::iso_utc;
use windlass_agent::format::row::ItemAttributes;
use windlass_agent::id::BackupId;
use windlass_agent::log::state::{Point, State};
use windlass_agent::read::history::{self, Entry, What};
use windlass_agent::restore::browse::{self, components};
use windlass_agent::units::{Counted, Grouped};

use crate::cli::args::global::Global;
use crate::cli::args::{At, History};
use crate::cli::browse::{Opened, VolumePath, exact, kind_word, one};
use crate::cli::output::{Align, Output};
use crate::engine::points;
use crate::failure::{Exit, Failure};
use crate::point::{PointRef, Target};
use crate::{site_time, text};

/// `history`.
pub fn run(global: &Global, args: &History, output: &Output) -> Result<Exit, Failure> {
    let opened = Opened::new(global)?;
    let point = points::pick(&opened.state, &args.at.target)?;
    let mut place = one(&opened.state, point, &args.at, &args.path)?;
    let mut found = read(&opened, point, &place)?;
    if found.entries.is_empty()
        && let Some(shown) = text::parse_printable(&place.path)
    {
        let other = VolumePath { path: shown, ..place.clone() };
        let again = read(&opened, point, &other)?;
        if !again.entries.is_empty() {
            (place, found) = (other, again);
        }
    }
    let path = place.shown(&place.path);
    if found.entries.is_empty() {
        return Err(never(&args.at, &place, &path, &found.nearest));
    }
    let changes = changes(&found.entries);
    table(&opened.state, &place, &found.entries, &changes, output);
    if let Some(first) = found.entries.iter().rev().find(|entry| matches!(entry.what, What::Version(_))) {
        let name = &args.at.target.policy;
        output.say(format_args!(
            "restore one with `windlass restore {name} '{}@{}' --to DIR`",
            text::printable(&path),
            first.last
        ));
    }
    let entries: Vec<Value> = found
        .entries
        .iter()
        .zip(&changes)
        .map(|(entry, change)| document(&opened.state, &place, entry, change))
        .collect();
    let mut object = Map::new();
    object.insert("policy".to_owned(), point.policy.as_str().into());
    object.insert("volume".to_owned(), place.volume.0.into());
    text::put_bytes(&mut object, "path", &path);
    object.insert("entries".to_owned(), entries.into());
    output.document(&Value::Object(object));
    Ok(Exit::Done)
}

fn read(opened: &Opened, newest: &Point, place: &VolumePath) -> Result<history::History, Failure> {
    let of = points::with_volume(&opened.state, &newest.policy, place.volume, newest.backup);
    let mut lookup = opened.lookup(newest, place)?;
    let (root, _) = browse::root(&mut lookup, place.volume).map_err(|fault| place.fail(fault))?;
    let parts: Vec<&[u8]> = components(&place.path).collect();
    history::history(&mut lookup, root, &of, &parts).map_err(|fault| place.fail(fault.into()))
}

fn never(at: &At, place: &VolumePath, path: &[u8], nearest: &[Vec<u8>]) -> Failure {
    let what = format!("no point of policy {} has {}", at.target.policy, text::printable(path));
    let names: Vec<String> =
        nearest.iter().map(|path| text::printable(&place.shown(path)).to_string()).collect();
    match names.is_empty() {
        true => Failure::new(format_args!(
            "{what}; `windlass find {} --deleted --name NAME` searches what is gone",
            at.target.policy
        )),
        false => Failure::new(format_args!("{what}; there is {}", names.join(", "))),
    }
}

/// What made each entry differ from the one before.
fn changes(entries: &[Entry]) -> Vec<&'static str> {
    let mut before: Option<&ItemAttributes> = None;
    let mut lin = None;
    let mut out = Vec::new();
    for entry in entries {
        out.push(match &entry.what {
            What::Absent(absent) => {
                before = None;
                if absent.lives_on { "renamed" } else { "deleted" }
            }
            What::Version(version) => {
                let item = &version.item;
                let change = match before {
                    None => "appeared",
                    Some(_) if lin != Some(version.lin) => "replaced",
                    Some(old)
                        if (old.size, old.mtime, old.rows_from)
                            != (item.size, item.mtime, item.rows_from) =>
                    {
                        "contents"
                    }
                    Some(_) => "attributes",
                };
                (before, lin) = (Some(item), Some(version.lin));
                change
            }
        });
    }
    out
}

fn begun(state: &State, point: BackupId) -> Option<i64> {
    state.points.get(&point).map(|point| point.wall_ns.0.div_euclid(1_000_000_000))
}

fn table(state: &State, place: &VolumePath, entries: &[Entry], changes: &[&str], output: &Output) {
    let heads = [
        ("POINTS", Align::Left),
        ("SINCE", Align::Left),
        ("SIZE", Align::Right),
        ("MODIFIED", Align::Left),
        ("ITEM", Align::Right),
        ("CHANGE", Align::Left),
    ];
    let rows = entries.iter().zip(changes).map(|(entry, change)| {
        let points = match entry.points {
            1 => entry.first.to_string(),
            _ => format!("{}..{}", entry.first, entry.last),
        };
        let since = begun(state, entry.first).map(site_time::shown).unwrap_or_default();
        let (size, modified, inode, change) = match &entry.what {
            What::Version(version) => {
                let elsewhere = version
                    .path
                    .as_ref()
                    .map_or(String::new(), |path| format!(", as {}", text::printable(&place.shown(path))));
                let size = Grouped(version.item.size).to_string();
                (
                    size,
                    site_time::shown(version.item.mtime.secs),
                    version.lin.inode,
                    format!("{change}{elsewhere}"),
                )
            }
            What::Absent(absent) => {
                let found = absent
                    .gone
                    .as_ref()
                    .map_or(String::new(), |gone| format!(", missed {}", site_time::shown(gone.found_secs)));
                let size = absent.gone.as_ref().map_or(String::new(), |gone| Grouped(gone.size).to_string());
                (size, String::new(), absent.lin.inode, format!("{change}{found}"))
            }
        };
        vec![points, since, size, modified, inode.to_string(), change]
    });
    output.table(&heads, &rows.collect::<Vec<_>>());
    let versions = entries.iter().filter(|entry| matches!(entry.what, What::Version(_))).count() as u64;
    output.say(format_args!("{}", Counted(versions, "version")));
}

fn document(state: &State, place: &VolumePath, entry: &Entry, change: &str) -> Value {
    let mut object = Map::new();
    let mut put = |key: &str, value: Value| object.insert(key.to_owned(), value);
    put("first_point", entry.first.0.into());
    put("last_point", entry.last.0.into());
    put("points", entry.points.into());
    put("since", begun(state, entry.first).map(iso_utc).into());
    put("change", change.into());
    match &entry.what {
        What::Version(version) => {
            put("present", true.into());
            put("inode", version.lin.inode.into());
            put("generation", version.item.generation.into());
            put("written_by", version.written.0.into());
            put("type", kind_word(version.item.kind).into());
            put("mode", format!("{:04o}", version.item.mode).into());
            put("uid", version.item.uid.into());
            put("gid", version.item.gid.into());
            put("size", version.item.size.into());
            put("mtime", exact(version.item.mtime).into());
            put("ctime", exact(version.item.ctime).into());
            if let Some(path) = &version.path {
                text::put_bytes(&mut object, "path", &place.shown(path));
            }
        }
        What::Absent(absent) => {
            put("present", false.into());
            put("inode", absent.lin.inode.into());
            put("lives_on", absent.lives_on.into());
            put("found", absent.gone.as_ref().map(|gone| iso_utc(gone.found_secs)).into());
        }
    }
    Value::Object(object)
}

/// The path and the point of `PATH@POINT`, with a number for the point.
pub fn versioned(path: &Path) -> Option<(PathBuf, u32)> {
    let bytes = path.as_os_str().as_bytes();
    let at = bytes.iter().rposition(|&b| b == b'@')?;
    let digits = std::str::from_utf8(&bytes[at + 1..]).ok()?;
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    Some((PathBuf::from(OsStr::from_bytes(&bytes[..at])), digits.parse().ok()?))
}

/// Where point `number` of the same policy has a path: under that name, or, where a directory above was called otherwise then, under another.
pub fn at_point<'a>(
    opened: &'a Opened,
    at: &At,
    path: &Path,
    number: u32,
) -> Result<(&'a Point, VolumePath), Failure> {
    let target = |point| Target { policy: at.target.policy.clone(), point };
    let point = points::pick(&opened.state, &target(PointRef::Number(number)))?;
    let mut place = one(&opened.state, point, at, path)?;
    let mut lookup = opened.lookup(point, &place)?;
    if crate::cli::browse::find_item(&mut lookup, &mut place)?.is_ok() {
        return Ok((point, place));
    }
    let newest = points::pick(&opened.state, &target(PointRef::Latest))?;
    let of = VolumePath { volume: place.volume, ..place.clone() };
    if let Some(path) = read(opened, newest, &of)?.at(point.backup).and_then(|version| version.path.clone()) {
        place.path = path;
    }
    Ok((point, place))
}

/// Paths of a restore by the point that they are taken from: `point` for those that it has as they are written, and for those without one.
pub fn by_point<'a>(
    opened: &'a Opened,
    point: &'a Point,
    at: &At,
    paths: &[PathBuf],
) -> Result<Vec<(&'a Point, Vec<PathBuf>)>, Failure> {
    let mut out: Vec<(&Point, Vec<PathBuf>)> = Vec::new();
    for path in paths {
        let (from, path) = match versioned(path) {
            Some((bare, number)) if !is_there(opened, point, at, path)? => {
                let (from, place) = at_point(opened, at, &bare, number)?;
                (from, PathBuf::from(OsStr::from_bytes(&place.shown(&place.path))))
            }
            _ => (point, path.clone()),
        };
        match out.iter_mut().find(|(other, _)| other.backup == from.backup) {
            Some((_, paths)) => paths.push(path),
            None => out.push((from, vec![path])),
        }
    }
    if out.is_empty() {
        out.push((point, Vec::new()));
    }
    Ok(out)
}

fn is_there(opened: &Opened, point: &Point, at: &At, path: &Path) -> Result<bool, Failure> {
    let mut place = one(&opened.state, point, at, path)?;
    let mut lookup = opened.lookup(point, &place)?;
    Ok(crate::cli::browse::find_item(&mut lookup, &mut place)?.is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_a_number_behind_the_last_at() {
        let of = |text: &str| {
            versioned(Path::new(text)).map(|(path, number)| (path.display().to_string(), number))
        };
        assert_eq!(of("/a/b.txt@17"), Some(("/a/b.txt".to_owned(), 17)));
        assert_eq!(of("me@home@3"), Some(("me@home".to_owned(), 3)));
        for text in ["/a/b.txt", "/a@b", "/a@", "/a@3/b", "/a@99999999999"] {
            assert_eq!(of(text), None, "{text}");
        }
    }
}
