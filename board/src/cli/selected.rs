//! Paths of a restore: which volumes they are in, and what they name there.
//!
//! | written | means |
//! |---|---|
//! | nothing | everything of every volume |
//! | `docs/plan.txt` | that path from the volume's root |
//! | `'*.conf'` `'/home/*/docs'` | all paths that match, as with `--include` of a policy; only where no path is called so |
//! | `'a\u{1b}b'` `'\xff'` | the name that `ls` and messages show so; only where none is called so |
//!
//! Where a point has several volumes and `--volume` is not given, a path begins with the number of one, as in `ls`.
//!
//! Source: ours.

use std::path::PathBuf;

use windlass_agent::foreign::parse_name;
use windlass_agent::id::VolumeId;
use windlass_agent::log::state::{Point, State};
use windlass_agent::policy::select::Patterns;
use windlass_agent::restore::browse::{self, BrowseFault, components};
use windlass_agent::restore::target::is_safe_name;
use windlass_agent::units::Grouped;
use windlass_hal::volume::ItemKind;

use crate::cli::args::At;
use crate::cli::args::restore::ANYWHERE;
use crate::cli::browse::{VolumePath, volume_paths};
use crate::engine::restore::PointLookup;
use crate::failure::Failure;

/// Most paths that a pattern may stand for: their list is kept in memory, some 100 bytes each.
const MATCHES_MAX: usize = 100_000;

/// What to restore of one volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// The volume.
    pub volume: VolumeId,
    /// Paths as they were written; everything when empty.
    pub paths: Vec<Vec<u8>>,
    /// The folder below the target that it goes to, when the point has several and none was named.
    pub folder: Option<String>,
}

/// Sorts paths by volume.
pub fn parts(state: &State, point: &Point, at: &At, paths: &[PathBuf]) -> Result<Vec<Part>, Failure> {
    let root = [PathBuf::from("/")];
    let mut parts: Vec<Part> = Vec::new();
    for path in if paths.is_empty() { &root[..] } else { paths } {
        for VolumePath { volume, path, prefix } in volume_paths(state, point, at, path)? {
            let part = match parts.iter_mut().find(|part| part.volume == volume) {
                Some(part) => part,
                None => {
                    let folder = (!prefix.is_empty()).then(|| folder_of(state, point, volume));
                    parts.push(Part { volume, paths: Vec::new(), folder });
                    let Some(last) = parts.last_mut() else { continue };
                    last
                }
            };
            part.paths.push(path);
        }
    }
    for part in parts.iter_mut().filter(|part| part.paths.iter().any(Vec::is_empty)) {
        part.paths.clear();
    }
    Ok(parts)
}

/// The folder of a volume: the last part of its name; with its number where another one of the point ends so too, and only that
/// where there is no name that a directory can have.
pub fn folder_of(state: &State, point: &Point, volume: VolumeId) -> String {
    let last = |id: VolumeId| {
        let device = state.volumes.get(&id).map_or("", |volume| volume.device.as_str());
        device.rsplit('/').find(|part| !part.is_empty()).unwrap_or("")
    };
    let name = last(volume);
    let mut all = point.volumes.iter().map(|other| other.volume).chain(point.missing.iter().copied());
    let is_taken = all.any(|other| other != volume && last(other) == name);
    match is_safe_name(name.as_bytes()) && name != "lost+found" {
        false => volume.to_string(),
        true if is_taken => format!("{name}-{volume}"),
        true => name.to_owned(),
    }
}

/// The paths of the point that the written ones name. One that names none stays as it is, so that the restore says so.
pub fn resolve(
    lookup: &mut PointLookup,
    volume: VolumeId,
    paths: Vec<Vec<u8>>,
) -> Result<Vec<Vec<u8>>, Failure> {
    let Some((root, item)) = lookup.root(volume).map_err(Failure::new)? else { return Ok(paths) };
    let mut out = Vec::with_capacity(paths.len());
    for path in paths {
        let mut is_there = |path: &[u8]| match browse::resolve(lookup, root, path) {
            Ok(_) => Ok(true),
            Err(BrowseFault::Rows(fault)) => Err(Failure::new(BrowseFault::Rows(fault))),
            Err(_) => Ok(false),
        };
        if is_there(&path)? {
            out.push(path);
            continue;
        }
        if let Some(shown) = parse_name(&path)
            && is_there(&shown)?
        {
            out.push(shown);
            continue;
        }
        let before = out.len();
        if item.kind == ItemKind::Directory
            && let Some(text) = pattern(&path)
        {
            let patterns = Patterns::new(&[text.to_owned()], &[]).map_err(Failure::usage)?;
            let mut inside: Option<Vec<u8>> = None;
            let found = browse::find(lookup, root, &item, b"", Some(&patterns), &mut |path, lin, found| {
                // What a match holds is restored with it.
                let is_below = |above: &Vec<u8>| {
                    path.strip_prefix(above.as_slice()).is_some_and(|rest| rest.starts_with(b"/"))
                };
                if lin != root && !inside.as_ref().is_some_and(is_below) {
                    inside = (found.kind == ItemKind::Directory).then(|| path.to_vec());
                    out.push(path.to_vec());
                }
                Ok(out.len() - before <= MATCHES_MAX)
            });
            found.map_err(Failure::new)?;
            if out.len() - before > MATCHES_MAX {
                return Err(Failure::usage(format_args!(
                    "{text:?} matches more than {} paths; restore a directory above them",
                    Grouped(MATCHES_MAX as u64)
                )));
            }
        }
        if out.len() == before {
            // A name that was meant in any directory is shown as it was written.
            let name = path.strip_prefix(ANYWHERE.as_bytes()).filter(|name| is_plain(name));
            out.push(name.map_or_else(|| path.clone(), <[u8]>::to_vec));
        }
    }
    Ok(out)
}

/// Whether it is a name, and no path and no pattern.
fn is_plain(name: &[u8]) -> bool {
    !name.iter().any(|byte| b"/*?[{".contains(byte))
}

/// The path as a pattern, if it is one.
fn pattern(path: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(path).ok()?;
    let is_pattern = text.contains(['*', '?', '[', '{']) && components(path).next().is_some();
    is_pattern.then_some(text)
}
