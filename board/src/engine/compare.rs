//! The raw reader of a volume against the kernel's view of it: all items, or a sample. Source: ours;
//! `windlass_hal::volume::verify` compares.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use windlass_agent::policy::{Policy, Reader, paths};
use windlass_hal::volume::detect;
use windlass_hal::volume::verify::{self, Choice, Difference, Verified};
use windlass_hal::volume::{Volume, VolumeFault};

use crate::engine::host;
use crate::engine::limits::Iops;
use crate::engine::machinery::{open_device, open_mounted, open_volume};
use crate::failure::Failure;
use crate::text;

/// Differences that are named; the rest are counted.
const DIFFERENCES_MAX: usize = 1000;

/// Which items to look at.
#[derive(Clone, Copy, Debug)]
pub enum Pick {
    /// Every item.
    All,
    /// Some, drawn by `seed`.
    Sample {
        /// How many.
        count: usize,
        /// Of the drawing.
        seed: u64,
    },
}

/// What a comparison of one volume found.
#[derive(Clone, Debug, Default)]
pub struct Compared {
    /// The volume's device.
    pub device: PathBuf,
    /// What was compared.
    pub sums: Verified,
    /// Path (or inode number, where no name was found) and what differs there.
    pub differences: Vec<(Vec<u8>, Difference)>,
}

/// Compares as many items of a volume as the policy says; `None` when that is none, the volume has no raw
/// reader, or it cannot be compared here, which is logged.
pub fn sample(
    policy: &Policy,
    device: &Path,
    iops: impl Into<Iops>,
    reader: Reader,
    stop: &AtomicBool,
) -> Result<Option<Compared>, Failure> {
    if policy.verify == 0 || !matches!(reader, Reader::Auto | Reader::Raw | Reader::Ext4) {
        return Ok(None);
    }
    let pick = Pick::Sample { count: policy.verify as usize, seed: seed(None)? };
    let found = compare(device, iops, reader, pick, stop);
    found.map(Some).or_else(|why| {
        log::warn!("verify: volume not compared reason=\"{why}\"");
        Ok(None)
    })
}

/// A difference in a line: where, which field, who says what.
pub fn line(path: &[u8], difference: &Difference) -> String {
    format!(
        "{}: {}: raw reader: {}; kernel: {}",
        text::printable(path),
        difference.field,
        difference.raw,
        difference.mounted
    )
}

/// The seed that was given, or one of the system's.
pub fn seed(given: Option<u64>) -> Result<u64, Failure> {
    given.map_or_else(|| Ok(u64::from_le_bytes(host::random()?)), Ok)
}

/// Compares a volume, until `stop` is set.
///
/// # Errors
/// It cannot be opened, or compared here.
pub fn compare(
    path: &Path,
    iops: impl Into<Iops>,
    reader: Reader,
    pick: Pick,
    stop: &AtomicBool,
) -> Result<Compared, Failure> {
    let fail = |fault| Failure::at(text::printable(path.as_os_str().as_encoded_bytes()), fault);
    let mut device = open_device(path, iops, &[])?;
    if let Err(VolumeFault::NoRawReader(what)) = detect::open(&mut *device) {
        let why =
            format!("this is {what}, which no raw reader reads: there is nothing to compare the kernel with");
        return Err(Failure::at(text::printable(path.as_os_str().as_encoded_bytes()), why));
    }
    let mut raw = open_volume(path, &mut *device, reader)?;
    // The raw reader has refused whatever has a log to replay.
    let mut mounted = open_mounted(path, &mut *device, true).map_err(fail)?;
    let sample = match pick {
        Pick::All => Vec::new(),
        Pick::Sample { count, seed } => verify::sample(&mut *raw, &mut *device, count, seed).map_err(fail)?,
    };
    let choice = match pick {
        Pick::All => Choice::All,
        Pick::Sample { .. } => Choice::Inodes(&sample),
    };
    let mut found = Vec::new();
    let stop = || stop.load(Ordering::Relaxed);
    let sums = verify::verify(&mut *raw, &mut *mounted, &mut *device, choice, &stop, &mut |difference| {
        if found.len() < DIFFERENCES_MAX {
            found.push(difference);
        }
    })
    .map_err(fail)?;
    let differences = with_paths(found, &mut *raw, &mut *mounted, &mut *device);
    Ok(Compared { device: path.to_owned(), sums, differences })
}

/// Finds the paths of what differs: from the raw reader, and what that does not know from the kernel.
fn with_paths(
    found: Vec<Difference>,
    raw: &mut dyn Volume,
    mounted: &mut dyn Volume,
    device: &mut dyn windlass_hal::block::BlockDevice,
) -> Vec<(Vec<u8>, Difference)> {
    let mut inodes: Vec<u64> = found.iter().map(|difference| difference.inode).collect();
    inodes.dedup();
    // Without a path there is still the number.
    let mut known = paths::find(raw, device, inodes.iter().copied()).unwrap_or_default();
    let root = raw.info().root;
    inodes.retain(|inode| *inode != root && !known.contains_key(inode));
    known.extend(paths::find(mounted, device, inodes.into_iter()).unwrap_or_default());
    let name = |inode: u64| match known.get(&inode) {
        Some(path) => [&b"/"[..], path].concat(),
        None if inode == root => b"/".to_vec(),
        None => format!("inode {inode}").into_bytes(),
    };
    found.into_iter().map(|difference| (name(difference.inode), difference)).collect()
}
