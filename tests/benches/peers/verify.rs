//! Whether a restore gave back what was backed up: a fast restore of the wrong bytes is no result.
//!
//! Peers: number of files, bytes, and the content of every twentieth file. Windlass: every byte and attribute.

use std::fs;
use std::path::{Path, PathBuf};

use windlass_tests::error::{Context, Result};
use windlass_tests::tree::{Options, compare};

use crate::peers::Tool;
use crate::setup::count;

/// One file in so many is read on both sides.
const SAMPLE_EVERY: usize = 20;

/// "equal", or what differs.
pub fn restore(tool: Tool, tree: &Path, to: &Path) -> Result<String> {
    let root = locate(tree, to);
    if tool == Tool::Windlass {
        let options = Options { differences_max: 5, ..Options::default() };
        let report = compare(tree, &root, &options)?;
        return Ok(if report.is_equal() {
            "equal, all bytes and attributes".to_owned()
        } else {
            format!("DIFFERENT: {report}")
        });
    }
    let (source, restored) = (count(tree), count(&root));
    if source != restored {
        return Ok(format!(
            "DIFFERENT: {} files of {} bytes, restored {} of {}",
            source.0, source.1, restored.0, restored.1
        ));
    }
    for path in files(tree).into_iter().step_by(SAMPLE_EVERY) {
        let other = root.join(path.strip_prefix(tree).unwrap_or(&path));
        let read = |path: &Path| fs::read(path).context(|| path.display().to_string());
        if read(&path)? != read(&other)? {
            return Ok(format!("DIFFERENT: {}", other.display()));
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
