//! `volume verify`, and the same after a backup when the policy says so: the raw reader against the kernel.
//!
//! Source: ours; `windlass_hal::volume::verify` compares.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use serde_json::{Map, Value, json};
use windlass_agent::policy::{Policy, Reader};
use windlass_agent::progress::Progress;
use windlass_agent::units::{Counted, Human};
use windlass_hal::volume::verify::{Difference, Verified};

use crate::cli::args::VolumeVerify;
use crate::cli::args::global::Global;
use crate::cli::output::Output;
use crate::engine::compare::{Compared, Pick, compare, line, sample, seed};
use crate::engine::machinery::warn_written;
use crate::failure::{Exit, Failure};
use crate::{signal, text};

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
