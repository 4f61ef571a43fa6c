//! `volume verify`: the raw reader against the kernel.
//!
//! Source: ours; `windlass_hal::volume::verify` compares.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use serde_json::{Value, json};
use windlass_agent::policy::Reader;
use windlass_agent::progress::Progress;
use windlass_agent::units::{Counted, Human};
use windlass_hal::volume::verify::Verified;

use crate::cli::args::VolumeVerify;
use crate::cli::args::global::Global;
use crate::cli::output::Output;
use crate::engine::compare::{Pick, compare, line, seed};
use crate::engine::machinery::warn_written;
use crate::failure::{Exit, Failure};
use crate::{outcome, signal};

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
        output.event("difference", outcome::difference(path, difference));
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
