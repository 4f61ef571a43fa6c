//! Whether a restore gave back what was backed up: a fast restore of the wrong bytes is no result.
//!
//! Peers: number of files, bytes, and the content of every twentieth file. Windlass: every byte and attribute.

use std::fmt::Display;
use std::fs;
use std::path::{Path, PathBuf};

use windlass_tests::error::{Context, Error, Result};
use windlass_tests::tree::{Options, compare};

use crate::peers::Tool;
use crate::setup::count;

/// One file in so many is read on both sides.
const SAMPLE_EVERY: usize = 20;

/// What was found equal.
///
/// # Errors
/// What differs, or what could not be read.
pub fn restore(tool: Tool, tree: &Path, to: &Path) -> Result<String> {
    let root = locate(tree, to);
    let differs = |what: &dyn Display| Err(Error::new(format!("the restored tree differs: {what}")));
    if tool == Tool::Windlass {
        let options = Options { differences_max: 5, ..Options::default() };
        let report = compare(tree, &root, &options)?;
        return if report.is_equal() {
            Ok("equal, all bytes and attributes".to_owned())
        } else {
            differs(&report)
        };
    }
    let (source, restored) = (count(tree), count(&root));
    if source != restored {
        return differs(&format!("{source:?} files and bytes, restored {restored:?}"));
    }
    for path in files(tree).into_iter().step_by(SAMPLE_EVERY) {
        let other = root.join(path.strip_prefix(tree).unwrap_or(&path));
        let read = |path: &Path| fs::read(path).context(|| path.display().to_string());
        if read(&path)? != read(&other)? {
            return differs(&other.display());
        }
    }
    Ok("equal: files, bytes, a sample's content".to_owned())
}

/// Where the tree begins: some tools restore the source's whole path.
fn locate(tree: &Path, to: &Path) -> PathBuf {
    let full = to.join(tree.strip_prefix("/").unwrap_or(tree));
    if full.is_dir() { full } else { to.to_path_buf() }
}

fn files(root: &Path) -> Vec<PathBuf> {
    let (mut found, mut pending) = (Vec::new(), vec![root.to_path_buf()]);
    while let Some(dir) = pending.pop() {
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => pending.push(entry.path()),
                Ok(kind) if kind.is_file() => found.push(entry.path()),
                _ => {}
            }
        }
    }
    found.sort();
    found
}
