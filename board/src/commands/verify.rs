//! `volume verify`, and the same after a backup when the policy says so: the raw reader against the kernel.
//!
//! Source: ours; `windlass_hal::volume::verify` compares.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Map, Value, json};
use windlass_agent::policy::{Policy, Reader, paths};
use windlass_agent::progress::Progress;
use windlass_agent::units::{Counted, Human};
use windlass_hal::volume::detect;
use windlass_hal::volume::mounted::{Mounted, Recovery};
use windlass_hal::volume::verify::{self, Choice, Difference, Verified};
use windlass_hal::volume::{Volume, VolumeFault};

use crate::args::VolumeVerify;
use crate::args::global::Global;
use crate::failure::{Exit, Failure};
use crate::machinery::{open_device, open_volume, warn_written};
use crate::output::Output;
use crate::{host, signal, text};

/// Differences that are named; the rest are counted.
const DIFFERENCES_MAX: usize = 1000;

/// Which items to look at.
#[derive(Clone, Copy, Debug)]
enum Pick {
    All,
    Sample { count: usize, seed: u64 },
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

/// `volume verify`.
pub fn run(global: &Global, args: &VolumeVerify, output: &Output) -> Result<Exit, Failure> {
    let job = Arc::new(Progress::new());
    signal::watch(&job)?;
    let pick = match args.all {
        true => Pick::All,
        false => Pick::Sample { count: args.sample as usize, seed: seed(args.seed)? },
    };
    warn_written(&args.device);
    let found = compare(&args.device, global.device_iops_max, Reader::Auto, pick, job.stop_flag())?;
    for (path, difference) in &found.differences {
        output.say(line(path, difference));
        output.event("difference", to_json(path, difference));
    }
    let stopped = job.stop_flag().load(Ordering::Relaxed);
    let Verified { items, bytes, differences, items_different } = found.sums;
    output.say(format_args!(
        "{}{} and {} of contents compared{}: {}",
        if stopped { "stopped; " } else { "" },
        Counted(items, "item"),
        Human(bytes),
        match pick {
            Pick::All => String::new(),
            Pick::Sample { seed, .. } => format!(" (seed {seed})"),
        },
        match differences {
            0 => "the raw reader and the kernel say the same".to_owned(),
            n => format!("{} in {}", Counted(n, "difference"), Counted(items_different, "item")),
        }
    ));
    let exit = match (differences, stopped) {
        (0, false) => Exit::Done,
        (0, true) => Exit::Failed,
        _ => Exit::Partial,
    };
    output.event(
        "done",
        json!({
            "device": args.device.display().to_string(),
            "items": items,
            "bytes": bytes,
            "differences": differences,
            "items_different": items_different,
            "stopped": stopped,
            "seed": match pick { Pick::All => Value::Null, Pick::Sample { seed, .. } => seed.into() },
        }),
    );
    Ok(exit)
}

/// After a backup: compares a sample of each volume that has a raw reader. A volume that cannot be compared here is named.
pub fn after_backup(global: &Global, policy: &Policy, job: &Progress) -> Result<Vec<Compared>, Failure> {
    let mut all = Vec::new();
    for volume in &policy.volumes {
        let iops = global.device_iops_max.or(policy.limits.device_iops);
        all.extend(sample(policy, Path::new(&volume.device), iops, volume.reader, job.stop_flag())?);
    }
    Ok(all)
}

/// Compares as many items of a volume as the policy says; `None` when that is none, the volume has no raw reader, or it cannot be
/// compared here, which is logged.
pub fn sample(
    policy: &Policy,
    device: &Path,
    iops: Option<u32>,
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

/// The same for programs.
pub fn to_json(path: &[u8], difference: &Difference) -> Value {
    let mut object = Map::new();
    text::put_bytes(&mut object, "path", path);
    object.insert("inode".to_owned(), difference.inode.into());
    object.insert("field".to_owned(), difference.field.into());
    object.insert("raw".to_owned(), difference.raw.as_str().into());
    object.insert("mounted".to_owned(), difference.mounted.as_str().into());
    Value::Object(object)
}

fn seed(given: Option<u64>) -> Result<u64, Failure> {
    given.map_or_else(|| Ok(u64::from_le_bytes(host::random()?)), Ok)
}

fn compare(
    path: &Path,
    iops: Option<u32>,
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
    let mut mounted = Mounted::open(path, &mut *device, Recovery::ProvenClean).map_err(fail)?;
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
    let sums = verify::verify(&mut *raw, &mut mounted, &mut *device, choice, &stop, &mut |difference| {
        if found.len() < DIFFERENCES_MAX {
            found.push(difference);
        }
    })
    .map_err(fail)?;
    let differences = with_paths(found, &mut *raw, &mut mounted, &mut *device);
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
