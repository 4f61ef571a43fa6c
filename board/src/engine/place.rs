//! The place of a repository: what lies there, its `format` objects, its log's home.
//!
//! Invariants: a new repository wants an empty place, or one whose other contents were named; what is left of a repository is never taken for
//! an empty place. Does not: open keys (`unlock`), or follow the log. Source: ours.

use std::fmt;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use windlass_agent::format::fault::FormatFaultKind;
use windlass_agent::format::home::{self, HOME_BYTES, HOME_KEY};
use windlass_agent::format::repo::{REPO_FORMAT_COPY_KEY, REPO_FORMAT_KEY, RepoFormat};
use windlass_agent::limits::{REPO_FORMAT_BYTES_MAX, STORE_IDENTITY_BYTES_MAX};
use windlass_agent::log::keys;
use windlass_agent::store::retry::RetryPolicy;
use windlass_agent::store::{ByteRange, Store, StoreFault, StoreFaultKind};

use crate::engine::repository::Opened;
use crate::failure::Failure;
use crate::{logger, text};

/// How the first questions to a repository's store are repeated: [`OPENING_NS`](crate::engine::watch::OPENING_NS) in all.
const OPENING: RetryPolicy =
    RetryPolicy { backoff_min_ms: 100, backoff_max_ms: 3_000, budget_ms: 30_000, attempts_max: 64 };
/// What lies in a directory without meaning anything: a store's temporary files, and those of a new file system.
const NOTHING: [&str; 2] = [".tmp", "lost+found"];
/// Names that are told of what is in the way of a new repository.
const NAMED_MAX: usize = 5;
/// What a repository consists of besides its `format` object.
const PARTS: [&str; 6] = [keys::SLOTS, keys::EPOCHS, keys::BOUNDARIES, keys::CHECKPOINTS, "obj/", "seg/"];

/// Directories made for a repository, which go again when none comes to be.
#[derive(Default)]
pub(crate) struct MadeDirectories(Vec<PathBuf>);

impl MadeDirectories {
    pub fn make(&mut self, path: &Path) -> Result<(), Failure> {
        let missing = path.ancestors().take_while(|path| path.symlink_metadata().is_err());
        self.0.extend(missing.map(Path::to_path_buf));
        fs::create_dir_all(path).map_err(|error| Failure::at(path.display(), error))
    }

    pub fn keep(&mut self) {
        self.0.clear();
    }
}

impl Drop for MadeDirectories {
    fn drop(&mut self) {
        for path in &self.0 {
            // What a store has left of its own is empty; anything else stays, and its directory with it.
            let _ = fs::remove_dir(path.join(NOTHING[0]));
            let _ = fs::remove_dir(path);
        }
    }
}

/// The directory of a store that is one.
pub(crate) fn directory_of(url: &str) -> Option<&Path> {
    match url.split_once("://") {
        Some(("file" | "null", path)) => Some(Path::new(path)).filter(|path| path.is_absolute()),
        _ => None,
    }
}

/// Removes the directories that a probe has made and emptied. One that another probe uses is not empty, and stays.
pub(crate) fn remove_probe_directories(url: &str) {
    let Some(probe) = directory_of(url).map(|path| path.join("probe")) else { return };
    for entry in fs::read_dir(&probe).into_iter().flatten().flatten() {
        let _ = fs::remove_dir(entry.path());
    }
    let _ = fs::remove_dir(&probe);
}

/// `Err`: the failure, and whether the repository may have come to be.
pub(crate) fn store_format(opened: &Opened, format: &RepoFormat) -> Result<(), (Failure, bool)> {
    let body = format.emit();
    if opened.split.is_some() {
        // First, so that a repository that can be seen has its log's home.
        opened.client.put_unique(HOME_KEY, &[&home::emit(&format.uuid)]).map_err(|fault| {
            match fault.kind {
                StoreFaultKind::Exists => (home_taken(opened), false),
                _ => (Failure::new(fault), false),
            }
        })?;
    }
    opened.client.put_unique(REPO_FORMAT_KEY, &[&body, &body]).map_err(|fault| match fault.kind {
        StoreFaultKind::Exists => (occupied(opened), false),
        _ => {
            let may_exist = fault.is_transient();
            (Failure::new(fault), may_exist)
        }
    })?;
    // The first one decided whose the place is: a copy that lies there already is nobody's.
    opened
        .client
        .put_replace(REPO_FORMAT_COPY_KEY, &[&body, &body])
        .map_err(|fault| (Failure::new(fault), true))
}

/// Why a call to the store at `place` failed. That nothing came back is said without the name of the object that was asked for.
pub(crate) fn store_failure(place: impl fmt::Display, fault: &StoreFault) -> Failure {
    match fault.kind {
        StoreFaultKind::ReadOnly => {
            Failure::at(place, "cannot write to the repository: read-only file system")
        }
        _ if fault.is_transient() && !fault.detail.is_empty() => Failure::at(place, &fault.detail),
        _ => Failure::at(place, fault),
    }
}

/// A format object, and which of its two places has none that can be read.
pub(crate) struct Found {
    pub format: RepoFormat,
    pub mend: Option<&'static str>,
}

pub(crate) fn read_format(opened: &Opened) -> Result<Found, Failure> {
    let place = || opened.store.describe();
    let read = |key| {
        let mut bytes = Vec::new();
        let range = ByteRange::From { offset: 0, len: 2 * REPO_FORMAT_BYTES_MAX as u64 + 1 };
        match opened.client.with_policy(OPENING).get(key, range, &mut bytes) {
            Ok(_) => Ok(Some(bytes)),
            Err(fault) if fault.kind == StoreFaultKind::NotFound => Ok(None),
            Err(fault) => Err(store_failure(place(), &fault)),
        }
    };
    let first = read(REPO_FORMAT_KEY)?.map(|bytes| RepoFormat::parse_stored(&bytes));
    let fault = match first {
        Some(Ok(format)) => return Ok(Found { format, mend: None }),
        // A newer windlass's is not damage.
        Some(Err(fault))
            if matches!(fault.kind, FormatFaultKind::Version(_) | FormatFaultKind::Feature(_)) =>
        {
            return Err(Failure::at(place(), fault));
        }
        Some(Err(fault)) => Some(fault),
        None => None,
    };
    if let Some(Ok(format)) = read(REPO_FORMAT_COPY_KEY)?.map(|bytes| RepoFormat::parse_stored(&bytes)) {
        return Ok(Found { format, mend: Some(REPO_FORMAT_KEY) });
    }
    if let Some(fault) = fault {
        return Err(Failure::at(place(), fault));
    }
    let parts = parts_of_a_repository(opened)?;
    Err(if parts.is_empty() {
        nothing_at(opened)
    } else {
        Failure::at(
            place(),
            format_args!(
                "{} without {REPO_FORMAT_KEY} and {REPO_FORMAT_COPY_KEY}: {FORMAT_IS_LOST}",
                parts.join(", ")
            ),
        )
    })
}

/// No repository is here. An empty directory may be where its file system should be mounted: then nothing is to be made in it.
fn nothing_at(opened: &Opened) -> Failure {
    let dir = opened.urls.first().and_then(|url| directory_of(url));
    let empty = dir.filter(|dir| is_bare(dir));
    let advice = match empty {
        Some(dir) => match place_in_fstab(&fs::read_to_string(FSTAB).unwrap_or_default(), dir) {
            Some(place) if !is_mounted(&place) => {
                let place = text::printable(place.as_os_str().as_bytes());
                format!("{place} is in {FSTAB} and not mounted: mount it")
            }
            _ => "the directory is empty: if the repository is on a file system of its own, mount that; else check the URL, or make \
                  one with `windlass repo init`"
                .to_owned(),
        },
        None => "check the URL, or make one with `windlass repo init`".to_owned(),
    };
    Failure::at(opened.store.describe(), format_args!("there is no repository here; {advice}"))
}

/// Where an administrator says what is to be mounted.
const FSTAB: &str = "/etc/fstab";

/// Whether a directory has nothing in it but what a new file system and an opened store have.
fn is_bare(dir: &Path) -> bool {
    let Ok(mut entries) = fs::read_dir(dir) else { return false };
    entries.all(|entry| entry.is_ok_and(|entry| NOTHING.iter().any(|name| entry.file_name() == *name)))
}

/// Where `fstab` has a file system for `dir`: there or above it, the nearest, the root's aside.
fn place_in_fstab(fstab: &str, dir: &Path) -> Option<PathBuf> {
    let lines = fstab.lines().map(str::trim_start).filter(|line| !line.starts_with('#'));
    // A blank within a name is written so.
    let places =
        lines.filter_map(|line| line.split_whitespace().nth(1)).map(|place| place.replace("\\040", " "));
    let above = |place: &PathBuf| place.is_absolute() && place.parent().is_some() && dir.starts_with(place);
    places.map(PathBuf::from).filter(above).max_by_key(|place| place.components().count())
}

/// Whether a file system begins at `place`.
fn is_mounted(place: &Path) -> bool {
    let device = |path: &Path| path.metadata().map(|meta| meta.dev()).ok();
    place.parent().is_some_and(|parent| device(parent) != device(place))
}

/// What to do about a repository whose `format` objects are both gone.
const FORMAT_IS_LOST: &str = "a repository has lost its format objects, and with them its master key, which the key file or passphrase opens; \
                              bring one of them back from a copy of the store";

/// The key has opened it, so it is what it says. That it cannot be written is no reason not to read.
pub(crate) fn mend_format(opened: &Opened, format: &RepoFormat, key: &str) {
    let body = format.emit();
    match opened.client.put_replace(key, &[&body, &body]) {
        Ok(()) => logger::say(format_args!(
            "windlass: {key} was missing or damaged, and is made again from its copy"
        )),
        Err(fault) => {
            log::warn!("repository: {key} is missing or damaged, and cannot be made again fault={fault}")
        }
    }
}

/// Which parts of a repository are here: their directories' names.
fn parts_of_a_repository(opened: &Opened) -> Result<Vec<&'static str>, Failure> {
    let mut parts = Vec::new();
    for part in PARTS {
        let mut any = false;
        let listed = opened.client.with_policy(OPENING).list(part, "", &mut |_, _| {
            any = true;
            false
        });
        listed.map_err(|fault| store_failure(opened.store.describe(), &fault))?;
        parts.extend(any.then_some(part));
    }
    Ok(parts)
}

/// Cut for the format object: it is for people there.
pub(crate) fn identity(mut place: String) -> String {
    place.truncate(place.floor_char_boundary(STORE_IDENTITY_BYTES_MAX));
    place
}

/// Refuses a repository whose log is not where this command would look for it: it would begin a second one.
pub(crate) fn check_home(opened: &Opened, format: &RepoFormat) -> Result<(), Failure> {
    let place = opened.objects_place();
    let split = match (&opened.split, format.lease_store.as_str()) {
        (None, "") => return Ok(()),
        (None, known) => {
            return Err(Failure::usage(format_args!(
                "{place}: this repository keeps its log in a lease store ({known} when it was made); give \
                 --lease-store URL or set WINDLASS_LEASE_STORE"
            )));
        }
        (Some(_), "") => {
            return Err(Failure::usage(format_args!(
                "{place}: this repository keeps its log in its own store; leave --lease-store out"
            )));
        }
        (Some(split), _) => split,
    };
    let (log, mut bytes) = (split.log().describe(), Vec::new());
    let range = ByteRange::From { offset: 0, len: HOME_BYTES as u64 + 1 };
    opened.client.with_policy(OPENING).get(HOME_KEY, range, &mut bytes).map_err(|fault| match fault.kind {
        StoreFaultKind::NotFound => Failure::at(
            &log,
            format_args!(
                "there is no log of {place} here; check --lease-store (it was {} when the repository was made), or \
                 bring its data back: without it the repository cannot be opened",
                format.lease_store
            ),
        ),
        _ => store_failure(&log, &fault),
    })?;
    match home::parse(&bytes) {
        Ok(uuid) if uuid == format.uuid => Ok(()),
        Ok(uuid) => Err(Failure::at(
            &log,
            format_args!(
                "this is the log of repository {}, not of {} at {place}; check --lease-store",
                text::uuid(&uuid),
                text::uuid(&format.uuid)
            ),
        )),
        Err(fault) => Err(Failure::at(&log, fault)),
    }
}

fn home_taken(opened: &Opened) -> Failure {
    Failure::at(
        opened.log_place(),
        "there is the log of a repository already; choose another prefix for --lease-store",
    )
}

/// Refuses a place where anything is already, before a probe writes to it. Other things may be there when a person says so; a
/// repository, or what is left of one, may not.
pub(crate) fn refuse_occupied(opened: &Opened, url: &str, force: bool) -> Result<(), Failure> {
    let client = opened.client.with_policy(OPENING);
    let _opening = opened.store.watch().opening();
    let taken = |key| match client.get(key, ByteRange::Last(1), &mut Vec::new()) {
        Ok(_) => Ok(true),
        Err(fault) if fault.kind == StoreFaultKind::NotFound => Ok(false),
        Err(fault) => Err(store_failure(opened.store.describe(), &fault)),
    };
    if taken(REPO_FORMAT_KEY)? || taken(REPO_FORMAT_COPY_KEY)? {
        return Err(occupied(opened));
    }
    if opened.split.is_some() && taken(HOME_KEY)? {
        return Err(home_taken(opened));
    }
    let parts = parts_of_a_repository(opened)?;
    if !parts.is_empty() {
        return Err(Failure::at(
            opened.store.describe(),
            format_args!(
                "{} are there: {FORMAT_IS_LOST}, or choose another path or prefix",
                parts.join(", ")
            ),
        ));
    }
    let others = others_at(opened, url)?;
    if force || others.is_empty() {
        return Ok(());
    }
    let more = if others.len() > NAMED_MAX { " and more" } else { "" };
    let named: Vec<String> =
        others.iter().take(NAMED_MAX).map(|name| text::printable(name.as_bytes())).collect();
    Err(Failure::at(
        opened.objects_place(),
        format_args!(
            "this place is not empty ({}{more}); choose another path or prefix, or say --force to make the repository beside them",
            named.join(", ")
        ),
    ))
}

/// Names at the place of a repository, one more than are told at most.
fn others_at(opened: &Opened, url: &str) -> Result<Vec<String>, Failure> {
    let mut names = Vec::new();
    if let Some(path) = directory_of(url) {
        for entry in fs::read_dir(path).map_err(|error| Failure::at(path.display(), error))? {
            let name = entry.map_err(|error| Failure::at(path.display(), error))?.file_name();
            let name = name.to_string_lossy().into_owned();
            // Versions before this one left the folder of a probe.
            if !NOTHING.contains(&name.as_str()) && name != "probe" {
                names.push(name);
            }
        }
        names.sort_unstable();
        names.truncate(NAMED_MAX + 1);
    } else {
        let listed = opened.client.list("", "", &mut |key, _| {
            if !key.starts_with("probe/") {
                names.push(key.to_owned());
            }
            names.len() <= NAMED_MAX
        });
        listed.map_err(|fault| Failure::at(opened.objects_place(), fault))?;
    }
    Ok(names)
}

fn occupied(opened: &Opened) -> Failure {
    Failure::at(
        opened.objects_place(),
        "there is a repository already; use it, or choose another path or prefix",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_of_fstab_is_known_and_one_beside_it_is_not() {
        let fstab =
            "# /srv/x\nUUID=1 / ext4 rw 0 1\n  /dev/sdb1\t/srv/back\\040up xfs noauto\n\nnone swap swap sw\n";
        let place = Some(PathBuf::from("/srv/back up"));
        for (dir, there) in
            [("/srv/back up", &place), ("/srv/back up/repo", &place), ("/srv/back", &None), ("/srv/x", &None)]
        {
            assert_eq!(&place_in_fstab(fstab, Path::new(dir)), there, "{dir}");
        }
        assert!(is_mounted(Path::new("/proc")) && !is_mounted(Path::new("/proc/self")));
    }
}
