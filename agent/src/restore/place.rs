//! Looking at a target before anything is made of it: what is surely not what was meant is refused.
//!
//! | target | why it is refused |
//! |---|---|
//! | a symlink that leads nowhere | everything would be restored, and then have no place |
//! | a new name in the directory of the device nodes | a misspelt device; what is written there is lost with the next boot |
//! | the repository's directory, or one in it | a restore would change what it reads |
//!
//! Source: ours; proc_pid_mountinfo(5).

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::fault::RestoreFault;

/// A directory by device and inode number.
pub type DirId = (u64, u64);

/// Device and inode number of a directory, if it is there.
pub fn id_of(path: &Path) -> Option<DirId> {
    std::fs::metadata(path).ok().map(|stat| (stat.dev(), stat.ino()))
}

/// Refuses `path` when it cannot be what was meant; it may not exist.
pub(super) fn look(path: &Path) -> Result<(), RestoreFault> {
    if std::fs::metadata(path).is_ok() {
        return Ok(());
    }
    if std::fs::symlink_metadata(path).is_ok_and(|stat| stat.file_type().is_symlink()) {
        return Err(RestoreFault::DanglingLink);
    }
    match nearest(path) {
        Some(above) if holds_devices(&above) => Err(RestoreFault::NoSuchDevice),
        _ => Ok(()),
    }
}

/// Directories of the repository that is restored from, where it is on this machine.
#[derive(Clone, Debug, Default)]
pub struct Protected {
    own: Vec<DirId>,
    above: Vec<DirId>,
}

impl Protected {
    /// For the directories of a repository: its objects', and its log's if that is another one.
    pub fn of<'a>(directories: impl IntoIterator<Item = &'a Path>) -> Protected {
        let mut protected = Protected::default();
        for path in directories.into_iter().filter_map(|path| path.canonicalize().ok()) {
            protected.own.extend(id_of(&path));
            protected.above.extend(path.ancestors().skip(1).filter_map(id_of));
        }
        protected
    }

    /// Whether it is one of the repository's: nothing is restored into it.
    pub(super) fn is_own(&self, id: DirId) -> bool {
        self.own.contains(&id)
    }

    /// Whether it is, or holds one: then it is not removed.
    pub(super) fn is_needed(&self, id: DirId) -> bool {
        self.is_own(id) || self.above.contains(&id)
    }

    /// Refuses `path` when it is one of the repository's directories or lies in one.
    pub(super) fn look(&self, path: &Path) -> Result<(), RestoreFault> {
        let above = nearest(path);
        let mut all = above.iter().flat_map(|path| path.ancestors()).filter_map(id_of);
        match !self.own.is_empty() && all.any(|id| self.is_own(id)) {
            true => Err(RestoreFault::TheRepository),
            false => Ok(()),
        }
    }
}

/// `path` itself, or what of it is there, without symlinks.
fn nearest(path: &Path) -> Option<PathBuf> {
    let path = std::path::absolute(path).ok()?;
    path.ancestors().find_map(|above| above.canonicalize().ok())
}

/// Whether a directory is one of device nodes: `/dev`, not what is mounted below it, or any devtmpfs.
fn holds_devices(dir: &Path) -> bool {
    let Some((device, _)) = id_of(dir) else { return false };
    if dir.starts_with("/dev") && id_of(Path::new("/dev")).is_some_and(|(dev, _)| dev == device) {
        return true;
    }
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let number = format!("{}:{}", rustix::fs::major(device), rustix::fs::minor(device));
    mounts.lines().any(|line| {
        let (head, tail) = line.split_once(" - ").unwrap_or((line, ""));
        head.split(' ').nth(2) == Some(&number) && tail.starts_with("devtmpfs ")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_names_among_device_nodes_are_refused() {
        let refused = |path: &str| matches!(look(Path::new(path)), Err(RestoreFault::NoSuchDevice));
        assert!(refused("/dev/no-such-device") && refused("/dev/no-such-directory/device"));
        assert!(refused("/dev/../dev/no-such-device"));
        assert!(!refused("/dev/null") && !refused("/no-such-file") && !refused("no-such-file"));
    }

    #[test]
    fn the_repository_and_what_is_in_it_are_found() {
        let here = std::env::current_dir().unwrap();
        let protected = Protected::of([here.as_path(), Path::new("/no-such-directory")]);
        let inside = |path: &Path| protected.look(path).is_err();
        assert!(inside(Path::new(".")) && inside(&here.join("src")) && inside(Path::new("new/below")));
        assert!(!inside(here.parent().unwrap()) && !inside(Path::new("/new")));
        assert!(protected.is_needed(id_of(here.parent().unwrap()).unwrap()));
        assert!(!protected.is_own(id_of(here.parent().unwrap()).unwrap()));
        assert!(Protected::default().look(&here).is_ok());
    }
}
