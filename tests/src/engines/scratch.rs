//! A directory for one test, removed when dropped: a [`Workdir`] for harnesses that have nothing to say without one. Source: ours.
#![allow(clippy::expect_used, reason = "a harness without a scratch directory has nothing to test")]

use std::path::Path;

use crate::workdir::Workdir;

/// An empty directory below the system's temporary directory, or below `WINDLASS_SCRATCH`.
#[derive(Debug)]
pub struct Scratch(Workdir);

impl Scratch {
    /// Makes it; `name` is for people.
    ///
    /// # Panics
    /// When it cannot be made.
    pub fn new(name: &str) -> Scratch {
        Scratch(Workdir::new(name).expect("a scratch directory"))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.0.path()
    }
}
