//! A directory for one test, removed when dropped. Source: ours.
#![allow(clippy::expect_used, reason = "a harness without a scratch directory has nothing to test")]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

static COUNT: AtomicU32 = AtomicU32::new(0);

/// An empty directory below the system's temporary directory, or below `WINDLASS_SCRATCH`.
pub struct Scratch(PathBuf);

impl Scratch {
    /// Makes it; `name` is for people.
    pub fn new(name: &str) -> Scratch {
        let base = std::env::var_os("WINDLASS_SCRATCH").map_or_else(std::env::temp_dir, PathBuf::from);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = base.join(format!("windlass-{name}-{}-{count}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).expect("a scratch directory");
        Scratch(path)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
