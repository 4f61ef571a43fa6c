//! `policy set`, `list`, `rename`, `delete`.
//!
//! A policy is changed by a record of the commit log, so two people who change it at once cannot both win unseen. Source: ours.

use std::fs;
use std::io::Read;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use serde_json::json;
use windlass_agent::log::limits::POLICY_BODY_BYTES_MAX;
use windlass_agent::policy::retention::Retention;
use windlass_agent::policy::schedule::Schedule;
use windlass_agent::policy::{NotAReader, Policy, PolicyVolume, check_name};
use windlass_agent::units::{Counted, format_bytes};

use crate::cli::args::global::Global;
use crate::cli::args::policy::PolicySet;
use crate::cli::args::value::{VolumeSpec, said};
use crate::cli::output::{Align, Output};
use crate::cli::through::{Through, submit};
use crate::engine::host::HostClock;
use crate::engine::policy::{existing, renaming, to_json};
use crate::engine::repository::Repository;
use crate::engine::{changes, documents};
use crate::failure::{Exit, Failure};
use crate::{site_time, text};

/// A day in milliseconds.
const DAY_MS: u64 = 86_400_000;

/// `policy set`.
pub fn set(
    global: &Global,
    args: &PolicySet,
    through: Option<Through>,
    output: &Output,
) -> Result<Exit, Failure> {
    check_name(&args.name).map_err(Failure::usage)?;
    let from = args.from.as_ref().map(|path| read(path, &args.name)).transpose()?;
    let devices = through.as_ref().map(|through| through.identity.volumes.clone());
    let (policy, revision) = submit(global, through, |state, _| {
        let before = existing(state, &args.name)?;
        let start =
            from.clone().or_else(|| before.clone()).unwrap_or_else(|| Policy::new(&args.name, Vec::new()));
        let policy = apply(start, args, global, devices.as_deref())?;
        let (records, revision) = changes::set(state, &policy)?;
        Ok((records, (policy, revision)))
    })?;
    output.say(format_args!("policy {} set, revision {revision}: {}", policy.name, volumes_text(&policy)));
    if policy.schedule.is_some() && devices.is_none() {
        output.say("  no agent was asked: schedules are kept by `windlass agent`, and without one nothing starts this policy");
    }
    output.document(&json!({ "policy": to_json(&policy), "revision": revision }));
    Ok(Exit::Done)
}

fn volumes_text(policy: &Policy) -> String {
    policy.volumes.iter().map(|volume| volume.device.as_str()).collect::<Vec<_>>().join(", ")
}

/// A file about a policy, `-` for stdin. What is longer than a policy can be is cut, and then refused as one.
fn read_file(path: &Path) -> Result<Vec<u8>, Failure> {
    let failed = |error: std::io::Error| Failure::at(path.display(), error);
    let source: Box<dyn Read> = if path.as_os_str() == "-" {
        Box::new(std::io::stdin())
    } else {
        Box::new(fs::File::open(path).map_err(failed)?)
    };
    let mut bytes = Vec::new();
    source.take(POLICY_BODY_BYTES_MAX as u64 + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() > POLICY_BODY_BYTES_MAX {
        return Err(Failure::at(
            path.display(),
            format_args!(
                "more than a policy can hold, which is {}",
                format_bytes(POLICY_BODY_BYTES_MAX as u64)
            ),
        ));
    }
    Ok(bytes)
}

fn read(path: &Path, name: &str) -> Result<Policy, Failure> {
    let policy = Policy::parse(&read_file(path)?).map_err(|fault| Failure::at(path.display(), fault))?;
    if policy.name != name {
        return Err(Failure::usage(format_args!(
            "{}: it is about policy {}, the command about {name}",
            path.display(),
            policy.name
        )));
    }
    Ok(policy)
}

fn apply(
    mut policy: Policy,
    args: &PolicySet,
    global: &Global,
    devices: Option<&[(String, PathBuf)]>,
) -> Result<Policy, Failure> {
    if !args.volume.is_empty() {
        policy.volumes = args.volume.iter().map(|spec| volume(spec, devices)).collect::<Result<_, _>>()?;
    }
    if !args.include.is_empty() || args.no_include {
        policy.include.clone_from(&args.include);
    }
    if !args.exclude.is_empty() || !args.exclude_file.is_empty() || args.no_exclude {
        policy.exclude.clone_from(&args.exclude);
        for path in &args.exclude_file {
            let text = String::from_utf8(read_file(path)?)
                .map_err(|_| Failure::usage(format_args!("{}: patterns must be UTF-8", path.display())))?;
            let lines =
                text.lines().map(str::trim_end).filter(|line| !line.is_empty() && !line.starts_with('#'));
            policy.exclude.extend(lines.map(str::to_owned));
        }
    }
    let put = |field: &mut u64, value: Option<u64>| *field = value.unwrap_or(*field);
    put(&mut policy.block_size, args.block_size.map(|size| size.0));
    put(&mut policy.object_size, args.object_size.map(|size| size.0));
    put(&mut policy.flush_interval, args.flush_interval.map(|time| time.0));
    policy.compression = args.compression.unwrap_or(policy.compression);
    policy.verify = args.verify.unwrap_or(policy.verify);
    policy.all_blocks = args.all_blocks || policy.all_blocks && !args.no_all_blocks;
    policy.schedule = schedule(policy.schedule.take(), args)?;
    policy.zone = said(args.zone.as_deref(), "--zone")?.unwrap_or(policy.zone);
    if args.no_keep {
        policy.retention = Retention::default();
    }
    args.keep.apply(&mut policy.retention);
    put(&mut policy.safety.min_age, args.min_age.map(|time| time.0));
    put(&mut policy.safety.undo, args.undo.map(|time| time.0));
    policy.priority = said(args.priority.as_deref(), "--priority")?.unwrap_or(policy.priority);
    policy.limits.upload = global.limit_up.map(|size| size.0).or(policy.limits.upload);
    policy.limits.download = global.limit_down.map(|size| size.0).or(policy.limits.download);
    if args.approve_removal.is_some() || args.no_approve_removal {
        policy.safety.approval = args.approve_removal.map(|time| time.0);
    }
    if !args.limit.is_empty() || args.no_limit {
        let hours = args.limit.iter().filter_map(|text| said(Some(text), "--limit").transpose());
        policy.limits.hours = hours.collect::<Result<_, _>>()?;
    }
    policy.limits.device_iops = global.device_iops_max.or(policy.limits.device_iops);
    Ok(policy)
}

/// `--at` alone is daily; `--every` alone leaves the time of the day as it was where that still makes sense.
fn schedule(before: Option<Schedule>, args: &PolicySet) -> Result<Option<Schedule>, Failure> {
    if args.no_schedule {
        return Ok(None);
    }
    let window = said(args.window.as_deref(), "--window")?;
    let window = window.or(before.as_ref().and_then(|before| before.window)).filter(|_| !args.no_window);
    // Times before it was set were not missed.
    let since = Some(HostClock.wall_ns() / 1_000_000_000);
    let set = match (&args.cron, args.every, args.at) {
        (Some(cron), ..) => Schedule { cron: said(Some(cron), "--cron")?, ..Schedule::default() },
        (None, None, Some(at)) => Schedule { at: Some(at), ..Schedule::every(DAY_MS) },
        (None, Some(every), at) => {
            let kept = before.and_then(|before| before.at).filter(|_| every.0.is_multiple_of(DAY_MS));
            Schedule { at: at.or(kept), ..Schedule::every(every.0) }
        }
        (None, None, None) => match before {
            Some(before) => return Ok(Some(Schedule { window, ..before })),
            None if args.window.is_some() => {
                return Err(Failure::usage(
                    "--window is part of a schedule; give it with --every, --at or --cron",
                ));
            }
            None => return Ok(None),
        },
    };
    Ok(Some(Schedule { window, since, ..set }))
}

/// A volume of a board profile is known by its name there, so that other nodes find it too. Any other path is kept as it was
/// written, made absolute: links such as /dev/disk/by-id are what stays the same.
fn volume(spec: &VolumeSpec, devices: Option<&[(String, PathBuf)]>) -> Result<PolicyVolume, Failure> {
    let mut all = devices.unwrap_or_default().iter();
    if let Some((name, _)) =
        all.find(|(name, path)| *name == spec.device || path.as_os_str() == &*spec.device)
    {
        return Ok(PolicyVolume { device: name.clone(), reader: spec.reader });
    }
    // A bare name is that of a volume of some node, not of a file where the command happens to run.
    if !spec.device.contains('/') {
        if devices.is_none() {
            return Err(Failure::usage(format_args!(
                "{0}: without a slash this is the name of a volume in a board profile, which only an agent knows; start \
                 `windlass agent`, or write ./{0} for a file of that name here",
                spec.device
            )));
        }
        return Ok(PolicyVolume { device: spec.device.clone(), reader: spec.reader });
    }
    let path = std::path::absolute(&spec.device).map_err(|error| Failure::at(&spec.device, error))?;
    check_place(spec, &path)?;
    let device = path.into_os_string().into_string();
    let device =
        device.map_err(|_| Failure::usage(format_args!("{}: a device's path must be UTF-8", spec.device)))?;
    Ok(PolicyVolume { device, reader: spec.reader })
}

/// Refuses what can never be read as a volume. What is not there yet may be plugged in later.
fn check_place(spec: &VolumeSpec, path: &Path) -> Result<(), Failure> {
    let found = match fs::metadata(path) {
        Ok(found) => found.file_type(),
        Err(_) => {
            let last = spec.device.rsplit('/').next().unwrap_or_default();
            if let Some((_, reader)) = last.rsplit_once('=') {
                return Err(Failure::usage(format_args!(
                    "{}: there is no such device, and {reader:?} is {NotAReader}",
                    spec.device
                )));
            }
            log::warn!("policy: no such device yet path={}", path.display());
            return Ok(());
        }
    };
    if found.is_file() || found.is_block_device() {
        return Ok(());
    }
    let what = if found.is_dir() { "a directory" } else { "neither a block device nor a file" };
    Err(Failure::usage(format_args!(
        "{}: this is {what}; name the block device that the file system is on, or an image file",
        spec.device
    )))
}

/// `policy list`.
pub fn list(global: &Global, output: &Output) -> Result<Exit, Failure> {
    let repository = Repository::open(global)?;
    let state = repository.view()?.state;
    let mut rows = Vec::new();
    for (name, entry) in &state.policies {
        let points = documents::count(&state, name);
        let Some(policy) = existing(&state, name)? else {
            // Its points can be listed and restored by this name.
            if points > 0 {
                let removed = "(removed, its points stay)".to_owned();
                rows.push(vec![
                    name.clone(),
                    entry.revision.to_string(),
                    points.to_string(),
                    "-".to_owned(),
                    removed,
                ]);
            }
            continue;
        };
        let schedule =
            policy.schedule.as_ref().map_or_else(|| "-".to_owned(), |schedule| schedule.to_string());
        let schedule = if policy.zone.is_utc() { schedule } else { format!("{schedule} {}", policy.zone) };
        rows.push(vec![
            name.clone(),
            entry.revision.to_string(),
            points.to_string(),
            schedule,
            volumes_text(&policy),
        ]);
    }
    if rows.is_empty() {
        output.say("there is no policy yet; make one with `windlass policy set NAME --volume DEV`");
    } else {
        let heads = [
            ("NAME", Align::Left),
            ("REVISION", Align::Right),
            ("POINTS", Align::Right),
            ("SCHEDULE", Align::Left),
            ("VOLUMES", Align::Left),
        ];
        output.table(&heads, &rows);
    }
    // What failed, until a backup of the policy does not.
    for tried in state.tried.values() {
        let when = site_time::shown(tried.wall_ns.div_euclid(1_000_000_000));
        output.say(format_args!("{}, {when}: {}", tried.policy, text::printable(tried.why.as_bytes())));
    }
    output.document(&documents::policies(&state)?);
    Ok(Exit::Done)
}

/// `policy rename`.
pub fn rename(
    global: &Global,
    old: &str,
    new: &str,
    through: Option<Through>,
    output: &Output,
) -> Result<Exit, Failure> {
    let points =
        submit(global, through, |state, _| Ok((renaming(state, old, new)?, documents::count(state, old))))?;
    let points_text = Counted(points as u64, "point");
    output.say(format_args!("policy {old} is called {new} now, with its {points_text}"));
    output.document(&json!({ "renamed": old, "policy": new, "points": points }));
    Ok(Exit::Done)
}

/// `policy delete`.
pub fn delete(
    global: &Global,
    name: &str,
    with_points: bool,
    through: Option<Through>,
    output: &Output,
) -> Result<Exit, Failure> {
    let gone = submit(global, through, |state, now_ns| changes::delete(state, name, with_points, now_ns))?;
    let (points, unfinished) = (gone.points, gone.given_up);
    let expired = if with_points { points } else { 0 };
    output.say(match points {
        0 => format!("policy {name} removed; it has no points"),
        _ if with_points => format!("policy {name} removed; {} expired", Counted(points as u64, "point")),
        1 => format!("policy {name} removed; its 1 point stays"),
        _ => format!("policy {name} removed; its {} stay", Counted(points as u64, "point")),
    });
    if let Some(backup) = unfinished {
        output.say(format_args!("its backup {backup} had not ended and is given up"));
    }
    output.document(
        &json!({ "removed": name, "points": points - expired, "expired": expired, "given_up": unfinished }),
    );
    Ok(Exit::Done)
}
