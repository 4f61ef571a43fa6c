//! Whether a repository of this machine lies in a volume that is backed up into it: then every backup stores the ones before once more.
//!
//! The volume holds the repository when its file system is the one that the repository's directory is in: the same device, an image file
//! behind a loop device, or the same UUID, which a snapshot has too. What the policy leaves out is no matter.
//!
//! Does not: refuse. A first backup of everything, repository included, can be meant. Source: proc_pid_mountinfo(5).

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use windlass_agent::policy::select::{Patterns, Verdict};
use windlass_hal::linux::fsattr;
use windlass_hal::volume::{VolumeInfo, VolumeKind};

use crate::text;

/// What to tell of the repository at `urls` and the volume at `path`, of which `patterns` are taken; `None` when it is elsewhere.
pub fn warning<'a>(
    urls: impl IntoIterator<Item = &'a str>,
    path: &Path,
    info: &VolumeInfo,
    patterns: &Patterns,
) -> Option<String> {
    let directories =
        urls.into_iter().filter_map(|url| Path::new(url.strip_prefix("file://")?).canonicalize().ok());
    let inside = directories.into_iter().find_map(|dir| {
        let below = if holds(path, info, &dir) { below_root(&dir)? } else { return None };
        (info.kind == VolumeKind::Image || is_taken(patterns, &below)).then_some((dir, below))
    });
    let (dir, below) = inside?;
    let shown = |path: &Path| text::printable(path.as_os_str().as_bytes());
    let hint = match info.kind {
        VolumeKind::Image => String::new(),
        _ => format!("; leave it out with --exclude '/{}/'", shown(&below)),
    };
    Some(format!(
        "{} holds the repository itself ({}): each backup stores what the ones before stored once more{hint}",
        shown(path),
        shown(&dir)
    ))
}

/// Whether a volume is the file system that `dir` is in.
fn holds(path: &Path, info: &VolumeInfo, dir: &Path) -> bool {
    let Ok(stat) = fs::metadata(dir) else { return false };
    let same =
        fs::metadata(path).is_ok_and(|own| own.file_type().is_block_device() && own.rdev() == stat.dev());
    let (major, minor) = (nix::sys::stat::major(stat.dev()), nix::sys::stat::minor(stat.dev()));
    let backing = fs::read_to_string(format!("/sys/dev/block/{major}:{minor}/loop/backing_file"));
    let behind =
        backing.is_ok_and(|file| path.canonicalize().is_ok_and(|own| Path::new(file.trim_end()) == own));
    let uuid = File::open(dir).ok().and_then(|dir| fsattr::file_system_uuid(dir.as_fd()).ok());
    same || behind || uuid.is_some_and(|uuid| uuid != [0; 16] && uuid == info.uuid)
}

/// The path of `dir` from the root of its file system.
fn below_root(dir: &Path) -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    let fields = |line: &str| -> Option<(PathBuf, PathBuf)> {
        let mut fields = line.split(' ').skip(3).map(|field| PathBuf::from(field.replace("\\040", " ")));
        Some((fields.next()?, fields.next()?))
    };
    let above = mounts.lines().filter_map(fields).filter(|(_, point)| dir.starts_with(point));
    // A later mount on the same place hides the one before.
    let (root, point) = above.max_by_key(|(_, point)| point.as_os_str().len())?;
    let below = root.join(dir.strip_prefix(point).ok()?);
    below.strip_prefix("/").ok().map(Path::to_owned)
}

/// Whether a policy's patterns take a directory.
fn is_taken(patterns: &Patterns, path: &Path) -> bool {
    let mut verdict = patterns.of_root();
    let mut at = PathBuf::new();
    for part in path {
        at.push(part);
        verdict = patterns.judge(verdict, at.as_os_str().as_bytes(), true);
    }
    verdict == Verdict::Taken
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_policy_leaves_out_is_not_taken() {
        let taken = |include: &[&str], exclude: &[&str]| {
            let list = |list: &[&str]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
            is_taken(&Patterns::new(&list(include), &list(exclude)).unwrap(), Path::new("srv/backup"))
        };
        assert!(taken(&[], &[]) && taken(&[], &["/srv/other"]) && taken(&["srv"], &[]));
        assert!(!taken(&[], &["/srv/backup/"]) && !taken(&[], &["srv"]) && !taken(&["/home"], &[]));
    }

    #[test]
    fn a_directory_has_a_path_in_its_file_system() {
        assert_eq!(below_root(Path::new("/proc/self")), Some(PathBuf::from("self")));
        assert_eq!(below_root(Path::new("/proc")), Some(PathBuf::new()));
    }
}
