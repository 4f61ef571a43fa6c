//! A directory for one test, removed when dropped, whatever odd things were restored into it.
//!
//! Differs from a plain temporary directory in that removal clears immutable and append-only flags first and copes
//! with directories without write permission. Source: ours.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::fs::{IFlags, ioctl_getflags, ioctl_setflags};

use crate::error::{Context, Result};

static COUNT: AtomicU32 = AtomicU32::new(0);

/// An empty directory below `WINDLASS_SCRATCH`, or below the system's temporary directory.
#[derive(Debug)]
pub struct Workdir(PathBuf);

impl Workdir {
    /// Makes it; `name` is for people.
    pub fn new(name: &str) -> Result<Workdir> {
        let base = std::env::var_os("WINDLASS_SCRATCH").map_or_else(std::env::temp_dir, PathBuf::from);
        Workdir::below(&base, name)
    }

    /// Makes it below a directory of the caller's.
    pub fn below(base: &Path, name: &str) -> Result<Workdir> {
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = base.join(format!("windlass-{name}-{}-{count}", std::process::id()));
        // Left by a process that was killed and had the same number.
        remove_tree(&path);
        fs::create_dir_all(&path).context(|| format!("make {}", path.display()))?;
        Ok(Workdir(path))
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// A name inside it; nothing is created.
    #[must_use]
    pub fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// A new directory inside it.
    pub fn dir(&self, name: &str) -> Result<PathBuf> {
        let path = self.0.join(name);
        fs::create_dir_all(&path).context(|| format!("make {}", path.display()))?;
        Ok(path)
    }
}

impl Drop for Workdir {
    fn drop(&mut self) {
        remove_tree(&self.0);
    }
}

/// Removes a tree as well as it can be removed; what cannot be is left. Never crosses a symlink.
pub fn remove_tree(root: &Path) {
    if fs::remove_dir_all(root).is_err() {
        unlock(root);
        let _ = fs::remove_dir_all(root);
    }
}

/// Takes away what keeps files from being removed: flags, and directories that may not be written.
fn unlock(root: &Path) {
    let mut pending = vec![root.to_path_buf()];
    while let Some(path) = pending.pop() {
        let Ok(metadata) = fs::symlink_metadata(&path) else { continue };
        if metadata.is_dir() || metadata.is_file() {
            clear_flags(&path);
        }
        if metadata.is_dir() {
            let _ = fs::set_permissions(&path, fs::Permissions::from_mode(0o700));
            pending.extend(fs::read_dir(&path).into_iter().flatten().flatten().map(|entry| entry.path()));
        }
    }
}

fn clear_flags(path: &Path) {
    let Ok(file) = File::open(path) else { return };
    let Ok(flags) = ioctl_getflags(&file) else { return };
    let locks = IFlags::IMMUTABLE | IFlags::APPEND;
    if flags.intersects(locks) {
        let _ = ioctl_setflags(&file, flags - locks);
    }
}

#[cfg(test)]
mod tests {
    use super::{File, IFlags, PermissionsExt, Workdir, fs, ioctl_getflags, ioctl_setflags};

    #[test]
    fn is_gone_after_use_even_when_locked() {
        let work = Workdir::new("workdir").unwrap();
        let (path, locked) = (work.path().to_path_buf(), work.dir("locked").unwrap());
        fs::write(locked.join("file"), "kept").unwrap();
        fs::set_permissions(&locked, fs::Permissions::from_mode(0o000)).unwrap();
        drop(work);
        assert!(!path.exists());
    }

    #[test]
    fn is_gone_after_use_even_with_immutable_files() {
        crate::requires_root!("workdir::is_gone_after_use_even_with_immutable_files");
        let work = Workdir::new("workdir").unwrap();
        let (path, name) = (work.path().to_path_buf(), work.join("file"));
        fs::write(&name, "kept").unwrap();
        let file = File::open(&name).unwrap();
        match ioctl_getflags(&file).and_then(|flags| ioctl_setflags(&file, flags | IFlags::IMMUTABLE)) {
            Ok(()) => assert!(fs::remove_file(&name).is_err()),
            Err(why) => {
                return crate::privilege::unsupported("workdir with immutable files", &why.to_string());
            }
        }
        drop(work);
        assert!(!path.exists());
    }
}
