//! `check`: whether a point can be restored: all of its references, and with `--read-data` all of its bytes and the whole log.
//!
//! Exit code 3 when something is damaged; each damage names the object, the frame, and the paths that need it.
//!
//! What is lost goes into the log, so that the next backup stores it again and points that need it are known as damaged; and so does a point
//! that is sound again.
//!
//! Does not: repair, or hold the lease while it reads. Source: ours.

use std::sync::Arc;

use serde_json::{Map, Value, json};
use windlass_agent::id::VolumeId;
use windlass_agent::log::intact::{self, Flaw};
use windlass_agent::log::state::State;
use windlass_agent::progress::{Phase, Progress};
use windlass_agent::restore::check::{self, CheckEnd, CheckFault, CheckOptions, CheckReport};
use windlass_agent::units::{Counted, Grouped, Human, HumanTime};

use crate::cli::args::Check;
use crate::cli::args::global::Global;
use crate::cli::damage::{self, Found};
use crate::cli::held::Held;
use crate::cli::output::Output;
use crate::cli::progress::Watcher;
use crate::engine::host::{self, HostClock};
use crate::engine::machinery::refuse_small;
use crate::engine::points;
use crate::engine::repository::Repository;
use crate::engine::restore::open_lookup;
use crate::engine::unknown::{self, Unknown};
use crate::failure::{Exit, Failure};
use crate::{signal, text};

/// `check`.
pub fn run(global: &Global, args: &Check, output: &Output) -> Result<Exit, Failure> {
    refuse_small(global.memory.0)?;
    let begun_ns = HostClock.boot_ns();
    let job = Arc::new(Progress::new());
    signal::watch(&job)?;
    let repository = Repository::open(global)?;
    let _held = Held::take(global);
    let state = repository.view()?.state;
    let point = points::pick(&state, &args.at.target)?;
    let volumes: Vec<VolumeId> = match &args.at.volume {
        Some(_) => vec![points::pick_volume(&state, &args.at.target, args.at.volume.as_deref())?.1],
        None => point.volumes.iter().map(|volume| volume.volume).collect(),
    };
    let mut lookups = Vec::with_capacity(volumes.len());
    for &volume in &volumes {
        lookups.push((volume, open_lookup(&repository, &state, point, volume)?));
    }
    if volumes.len() == point.volumes.len() {
        job.items_total.set(point.totals.items);
        job.bytes_total.set(point.totals.bytes_logical);
    }
    let options = CheckOptions {
        read_data: args.read_data,
        location_blocks: repository.format.location_blocks,
        memory: global.memory.0,
    };
    let report = {
        let _watcher = Watcher::start(&job, *output)?;
        let client = &repository.opened.client;
        check::run(&mut lookups, client, &repository.keys, options, &job).map_err(|end| match end {
            CheckEnd::Cancelled => Failure::new("stopped; nothing was changed, start the check again"),
            end => Failure::at(format_args!("checking {}@{}", point.policy, point.backup), end),
        })?
    };
    let (mut log_objects, mut log_damaged, mut log_foreign) = (0, Vec::new(), Vec::new());
    let mut unknown = Unknown::default();
    if args.read_data {
        let each = &mut |key: &str, flaw: Flaw| {
            let found = if flaw.is_damage() { &mut log_damaged } else { &mut log_foreign };
            found.push((key.to_owned(), flaw));
        };
        log_objects = intact::check(&repository.opened.client, &repository.format.uuid, each)
            .map_err(|fault| Failure::at("checking the log", fault))?;
        unknown = look_for_unknown(&repository, &state)?;
    }
    let mut log_damaged: Vec<_> =
        log_damaged.into_iter().map(|(key, flaw)| (key, flaw.to_string())).collect();
    if let Some((id, backup)) = unknown.ahead {
        let what = format!(
            "it is of backup {backup}, of which the commit log says nothing: its newest entries are lost, and `windlass repo rebuild` \
             makes points of what there is"
        );
        log_damaged.push((id.object_key(), what));
    }
    job.enter(Phase::Done);
    let elapsed_ns = HostClock.boot_ns().saturating_sub(begun_ns);
    let what = format!("{}@{}", point.policy, point.backup);
    for (key, flaw) in &log_damaged {
        output.say(format_args!("DAMAGED   {key}: {flaw}"));
    }
    for (key, flaw) in &log_foreign {
        output.say(format_args!("note      {}: {flaw}", text::printable(key.as_bytes())));
    }
    if unknown.objects > 0 && unknown.ahead.is_none() {
        output.say(format_args!(
            "note      {} of backups that are under way or were stopped: no entry of the log has them, and nothing depends on them",
            Counted(unknown.objects, "object")
        ));
    }
    if !log_damaged.is_empty() {
        output.say("  nothing of this point depends on that; `windlass repo rebuild` makes the log and the format objects whole again");
    }
    tell(&what, &report, args.read_data, elapsed_ns, output);
    let is_log_whole = log_damaged.is_empty();
    let mut document = to_json(&report);
    document.insert("policy".to_owned(), point.policy.as_str().into());
    document.insert("point".to_owned(), point.backup.0.into());
    document.insert("read_data".to_owned(), args.read_data.into());
    document.insert("log_objects".to_owned(), log_objects.into());
    let log_damaged = log_damaged.iter().map(|(key, what)| json!({ "object": key, "what": what }));
    document.insert("log_damaged".to_owned(), log_damaged.collect::<Vec<_>>().into());
    document.insert("objects_unknown".to_owned(), unknown.objects.into());
    document.insert("peak_memory_bytes".to_owned(), host::peak_memory_bytes().into());
    document.insert("elapsed_ms".to_owned(), (elapsed_ns / 1_000_000).into());
    output.event("done", Value::Object(document));
    let whole = volumes.len() == point.volumes.len();
    let found = Found {
        missing: report.missing.clone(),
        damaged: report.damaged.clone(),
        // Whether a point is sound is known when all of it was read.
        point: (!report.missing.is_empty()
            || !report.damaged.is_empty()
            || whole && args.read_data && report.is_sound())
        .then_some(point.backup),
        made: None,
    };
    damage::record(global, &repository, &state, found, &job);
    let all = args.at.volume.is_some() || !points::warn_missing(&state, point);
    Ok(if report.is_sound() && is_log_whole && all { Exit::Done } else { Exit::Partial })
}

/// Objects that the log does not know. What seems to be of a backup that it knows nothing of may have begun since it was read.
fn look_for_unknown(repository: &Repository, state: &State) -> Result<Unknown, Failure> {
    let failure = |fault| Failure::at("looking for objects that the log does not know", fault);
    let found = unknown::look(repository, state, &mut || Ok(())).map_err(failure)?;
    let Some((_, backup)) = found.ahead else { return Ok(found) };
    let begun = repository.view()?.state.last_backup;
    Ok(Unknown { ahead: found.ahead.filter(|_| backup > begun), ..found })
}

fn tell(what: &str, report: &CheckReport, read_data: bool, elapsed_ns: u64, output: &Output) {
    for fault in &report.faults {
        output.say(format_args!("DAMAGED   {}", one_line(fault)));
    }
    if report.faults_dropped > 0 {
        output.say(format_args!("DAMAGED   and {} more", Grouped(report.faults_dropped)));
    }
    output.say(format_args!(
        "checked {what}: {}, {}, {} in {} of {}, in {}",
        Counted(report.items, "item"),
        Human(report.bytes),
        Counted(report.blocks, "stored block"),
        Grouped(report.objects),
        Counted(report.objects_listed, "object"),
        HumanTime(elapsed_ns),
    ));
    if report.incomplete > 0 {
        output.say(format_args!(
            "  {} could not be read in full by the backup; this is known, and no new damage",
            Counted(report.incomplete, "item")
        ));
    }
    match (report.is_sound(), read_data) {
        (true, true) => {
            output.say(format_args!("  sound: {} read and verified", Human(report.bytes_verified)))
        }
        (true, false) => output.say("  sound: everything is there; --read-data also verifies every byte"),
        (false, _) => {
            output.say(format_args!("  NOT SOUND: {} affected", Counted(report.items_damaged, "item")))
        }
    }
}

fn to_json(report: &CheckReport) -> Map<String, Value> {
    let document = json!({
        "sound": report.is_sound(),
        "items": report.items,
        "bytes": report.bytes,
        "blocks": report.blocks,
        "objects": report.objects,
        "objects_listed": report.objects_listed,
        "bytes_verified": report.bytes_verified,
        "items_incomplete": report.incomplete,
        "items_damaged": report.items_damaged,
        "faults": report.faults.len() as u64 + report.faults_dropped,
        "fault_list": report.faults.iter().map(fault_json).collect::<Vec<_>>(),
    });
    match document {
        Value::Object(document) => document,
        _ => Map::new(),
    }
}

fn fault_json(fault: &CheckFault) -> Value {
    let paths = fault.paths.iter().map(|path| {
        let mut object = Map::new();
        text::put_bytes(&mut object, "path", &[b"/", &path[..]].concat());
        Value::Object(object)
    });
    json!({
        "object": fault.place.map(|(object, _)| object.to_string()),
        "frame_offset": fault.place.map(|(_, offset)| offset),
        "what": fault.what.to_string(),
        "paths": paths.collect::<Vec<_>>(),
        "path_count": fault.path_count,
    })
}

/// A fault for people, on one line.
fn one_line(fault: &CheckFault) -> String {
    fault.to_string().replace(['\n', '\r'], " ")
}
