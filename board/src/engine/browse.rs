//! Names and attributes in a point: where a path leads, and what is there, as documents for programs.
//!
//! Paths are from the volume's root. Where a point has several volumes and none is named, the first component is the volume's number; `/` is then
//! the list of volumes.
//!
//! Does not: follow symlinks, read contents, or print. Source: ours; `windlass_agent::restore::browse`.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use serde_json::{Map, Value, json};
use windlass_agent::civil::iso_utc;
use windlass_agent::format::row::{ItemAttributes, RowPayload};
use windlass_agent::id::{Lin, VolumeId};
use windlass_agent::log::state::{Point, State};
use windlass_agent::restore::browse::{self, BrowseFault, components};
use windlass_hal::volume::{ItemKind, Timestamp};

use super::points;
use super::repository::Repository;
use super::restore::{PointLookup, open_lookup};
use crate::failure::Failure;
use crate::point::Target;
use crate::text::{self, kind_word};

/// Entries of a directory in one document.
const ENTRIES_MAX: u64 = 1000;

/// Where a path leads: which volume, and the path within it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumePath {
    /// The volume.
    pub volume: VolumeId,
    /// Path from its root, without a slash in front.
    pub path: Vec<u8>,
    /// What comes before it when it is shown: empty, or the volume's number.
    pub prefix: Vec<u8>,
}

impl VolumePath {
    /// How a path of this volume is shown.
    pub fn shown(&self, path: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(path.len() + self.prefix.len() + 2);
        for part in [&self.prefix[..], path] {
            if !part.is_empty() {
                out.push(b'/');
                out.extend_from_slice(part);
            }
        }
        if out.is_empty() {
            out.push(b'/');
        }
        out
    }

    /// A fault of this volume.
    pub fn fail(&self, fault: BrowseFault) -> Failure {
        match &self.prefix[..] {
            b"" => Failure::new(fault),
            prefix => Failure::at(format_args!("volume {}", text::printable(prefix)), fault),
        }
    }
}

/// The volumes and paths that a path means: one, or, for `/` of a point with several volumes, all of them.
pub fn volume_paths(
    state: &State,
    point: &Point,
    target: &Target,
    volume: Option<&str>,
    path: &Path,
) -> Result<Vec<VolumePath>, Failure> {
    let parts: Vec<&[u8]> = components(path.as_os_str().as_bytes()).collect();
    if volume.is_some() || points::has_one_volume(point) {
        let (_, volume) = points::pick_volume(state, target, volume)?;
        return Ok(vec![VolumePath { volume, path: parts.join(&b'/'), prefix: Vec::new() }]);
    }
    let of = |volume: VolumeId, path: &[&[u8]]| VolumePath {
        volume,
        path: path.join(&b'/'),
        prefix: volume.to_string().into_bytes(),
    };
    let Some((first, rest)) = parts.split_first() else {
        return Ok(point.volumes.iter().map(|volume| of(volume.volume, &[])).collect());
    };
    let mut volumes = point.volumes.iter().map(|volume| volume.volume);
    match volumes.find(|volume| volume.to_string().as_bytes() == *first) {
        Some(volume) => Ok(vec![of(volume, rest)]),
        None => Err(several(state, point)),
    }
}

/// The one place that a path means, for what takes one item.
pub fn one(
    state: &State,
    point: &Point,
    target: &Target,
    volume: Option<&str>,
    path: &Path,
) -> Result<VolumePath, Failure> {
    let mut places = volume_paths(state, point, target, volume, path)?;
    match (places.pop(), places.is_empty()) {
        (Some(place), true) => Ok(place),
        _ => Err(several(state, point)),
    }
}

fn several(state: &State, point: &Point) -> Failure {
    Failure::usage(format_args!(
        "point {} has several volumes; begin the path with the number of one, or give --volume: {}",
        point.backup,
        points::volume_list(state, point)
    ))
}

/// The item that a path means; what is not there comes as a fault of its own. A path that is not there as it was written is taken as `ls` and
/// messages show it, too.
pub fn find_item(
    lookup: &mut PointLookup,
    place: &mut VolumePath,
) -> Result<Result<(Lin, ItemAttributes), BrowseFault>, Failure> {
    let (root, _) = browse::root(lookup, place.volume).map_err(|fault| place.fail(fault))?;
    match browse::resolve(lookup, root, &place.path) {
        Ok(found) => Ok(Ok(found)),
        Err(fault) => {
            let shown = text::parse_printable(&place.path);
            let again = shown.and_then(|path| Some((browse::resolve(lookup, root, &path).ok()?, path)));
            let Some((found, path)) = again else { return Ok(Err(fault)) };
            place.path = path;
            Ok(Ok(found))
        }
    }
}

/// A file's time, to the nanosecond.
pub fn exact(time: Timestamp) -> String {
    let whole = iso_utc(time.secs);
    format!("{}.{:09}Z", whole.trim_end_matches('Z'), time.nanos)
}

/// What is said of an item for programs.
pub fn fields(lin: Lin, item: &ItemAttributes) -> Map<String, Value> {
    let mut object = Map::new();
    let mut put = |key: &str, value: Value| object.insert(key.to_owned(), value);
    put("type", kind_word(item.kind).into());
    put("volume", lin.volume.0.into());
    put("inode", lin.inode.into());
    put("mode", format!("{:04o}", item.mode).into());
    put("uid", item.uid.into());
    put("gid", item.gid.into());
    put("links", item.links.into());
    put("size", item.size.into());
    put("mtime", exact(item.mtime).into());
    if matches!(item.kind, ItemKind::CharDevice | ItemKind::BlockDevice) {
        put("rdev", json!([item.rdev.0, item.rdev.1]));
    }
    if !item.fault.is_empty() {
        put("incomplete", item.fault.as_str().into());
    }
    if let RowPayload::Target(target) = &item.payload {
        text::put_bytes(&mut object, "target", target);
    }
    object
}

/// An entry of a directory: its name, and what is said of its item.
pub fn entry(name: &[u8], lin: Lin, item: Option<&ItemAttributes>) -> Map<String, Value> {
    let mut object = item.map(|item| fields(lin, item)).unwrap_or_default();
    text::put_bytes(&mut object, "name", name);
    object.insert("inode".to_owned(), lin.inode.into());
    object.insert("missing".to_owned(), item.is_none().into());
    object
}

/// Everything that is known of an item.
pub fn stat_document(point: &Point, path: &[u8], lin: Lin, item: &ItemAttributes) -> Value {
    let mut object = fields(lin, item);
    text::put_bytes(&mut object, "path", path);
    let times = [
        ("atime", Some(item.atime)),
        ("mtime", Some(item.mtime)),
        ("ctime", Some(item.ctime)),
        ("btime", item.btime),
    ];
    for (field, time) in times.into_iter().filter_map(|(field, time)| Some((field, time?))) {
        object.insert(field.to_owned(), exact(time).into());
    }
    let xattrs = item.xattrs.iter().map(|(name, value)| {
        let mut object = Map::new();
        text::put_bytes(&mut object, "name", name);
        object.insert("value_hex".to_owned(), text::hex(value).into());
        Value::Object(object)
    });
    object.insert("xattrs".to_owned(), xattrs.collect());
    object.insert("flags".to_owned(), item.flags.into());
    object.insert("project".to_owned(), item.project.into());
    let hints = item.hints;
    object.insert(
        "hints".to_owned(),
        json!({ "flags": hints.flags, "extent_bytes": hints.extent_bytes, "cow_extent_bytes": hints.cow_extent_bytes }),
    );
    object.insert("generation".to_owned(), item.generation.into());
    object.insert("allocated_to".to_owned(), item.allocated_to.into());
    object.insert("point".to_owned(), point.backup.0.into());
    Value::Object(object)
}

/// A volume that is named, and a path.
pub type Place<'a> = (Option<&'a str>, &'a Path);

/// What is known of one path.
pub fn stat(
    repository: &Repository,
    state: &State,
    target: &Target,
    (volume, path): Place<'_>,
) -> Result<Value, Failure> {
    let point = points::pick(state, target)?;
    let mut place = one(state, point, target, volume, path)?;
    let mut lookup = open_lookup(repository, state, point, place.volume)?;
    let (lin, item) = find_item(&mut lookup, &mut place)?.map_err(|fault| place.fail(fault))?;
    Ok(stat_document(point, &place.shown(&place.path), lin, &item))
}

/// Entries of a directory, by name, from the `from`-th on; `next` is where the rest begins, or null. What is in a point never changes, so
/// numbers of entries do not either.
pub fn list(
    repository: &Repository,
    state: &State,
    target: &Target,
    (volume, path): Place<'_>,
    from: u64,
) -> Result<Value, Failure> {
    let point = points::pick(state, target)?;
    let mut places = volume_paths(state, point, target, volume, path)?;
    let mut entries = Vec::new();
    let (mut seen, mut next) = (0u64, Value::Null);
    let shown = match places.as_mut_slice() {
        [place] => {
            let mut lookup = open_lookup(repository, state, point, place.volume)?;
            let (lin, item) = find_item(&mut lookup, place)?.map_err(|fault| place.fail(fault))?;
            let listed = browse::list(&mut lookup, lin, &item, &mut |name, lin, item| {
                seen += 1;
                if seen > from.saturating_add(ENTRIES_MAX) {
                    next = (seen - 1).into();
                    return Ok(false);
                }
                if seen > from {
                    entries.push(Value::Object(entry(name, lin, item)));
                }
                Ok(true)
            });
            listed.map_err(|fault| place.fail(fault))?;
            place.shown(&place.path)
        }
        several => {
            for place in several {
                let mut lookup = open_lookup(repository, state, point, place.volume)?;
                let (lin, item) = find_item(&mut lookup, place)?.map_err(|fault| place.fail(fault))?;
                entries.push(Value::Object(entry(&place.prefix, lin, Some(&item))));
            }
            b"/".to_vec()
        }
    };
    let mut object = Map::new();
    object.insert("policy".to_owned(), point.policy.as_str().into());
    object.insert("point".to_owned(), point.backup.0.into());
    text::put_bytes(&mut object, "path", &shown);
    object.insert("entries".to_owned(), entries.into());
    object.insert("next".to_owned(), next);
    Ok(Value::Object(object))
}
