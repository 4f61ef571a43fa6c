//! `restore`: a point, or paths of it, to a directory; a volume image to a device or file.
//!
//! Source: ours.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Map, Value, json};
use windlass_agent::log::state::Point;
use windlass_agent::policy::select::Patterns;
use windlass_agent::progress::Progress;
use windlass_agent::restore::fault::{FAULTS_MAX, Reason};
use windlass_agent::restore::owners::OwnerMap;
use windlass_agent::restore::parts;
use windlass_agent::restore::target::{Existing as AgentExisting, STAGING_PREFIX};
use windlass_agent::restore::walk::RestoreReport;
use windlass_agent::units::{Counted, Grouped, Human, HumanTime};

use crate::cli::args::global::Global;
use crate::cli::args::restore::{Existing, Restore};
use crate::cli::browse::Opened;
use crate::cli::damage::{self, Found};
use crate::cli::held::Held;
use crate::cli::output::Output;
use crate::cli::progress::Watcher;
use crate::cli::selected::{self, Part};
use crate::cli::{history, preview};
use crate::engine::host::{self, HostClock};
use crate::engine::machinery::refuse_small;
use crate::engine::points;
use crate::engine::restore::{Restoring, open_lookup, protected};
use crate::engine::settings::Access;
use crate::failure::{Exit, Failure};
use crate::{logger, signal, text};

/// `restore`.
pub fn run(global: &Global, args: &Restore, output: &Output) -> Result<Exit, Failure> {
    if args.abandon {
        return abandon(args, output);
    }
    refuse_small(global.memory.0)?;
    let job = Arc::new(Progress::new());
    signal::watch(&job)?;
    let _held = Held::take(global);
    let opened = Opened::new(global)?;
    let Opened { repository, state } = &opened;
    let point = points::pick(state, &args.at.target)?;
    damage::warn(state, point.backup);
    if args.dry_run {
        return preview::restore(&opened, point, args, &job, output);
    }
    let restoring = Restoring {
        repository,
        state,
        point,
        existing: existing(args),
        owner_map: owner_map(&args.map_owner)?,
        protected: protected(&Access::from(global)),
        exclude: excluded(args)?,
        memory_bytes: global.memory.0,
        job: &job,
    };
    let begun_ns = HostClock.boot_ns();
    let mut found = Vec::new();
    let report = {
        let _watcher = Watcher::start(&job, *output)?;
        match (&args.to, &args.to_device) {
            (Some(to), _) => {
                let mut all = RestoreReport::default();
                for (from, paths) in history::by_point(&opened, point, &args.at, &args.wanted())? {
                    let parts = selected::parts(state, from, &args.at, &paths)?;
                    let (owner_map, protected) = (restoring.owner_map.clone(), restoring.protected.clone());
                    let exclude = restoring.exclude.clone();
                    let of = Restoring { point: from, owner_map, protected, exclude, ..restoring };
                    let report = all_parts(&of, parts, to)?;
                    found.push(lost(from, &report));
                    add(&mut all, report);
                }
                all
            }
            (None, Some(to)) => {
                let volume = points::pick_volume(state, &args.at.target, args.at.volume.as_deref())?.1;
                let report = restoring.to_device(volume, to)?;
                found.push(lost(point, &report));
                report
            }
            (None, None) => return Err(Failure::usage("say where to: --to DIR or --to-device DEV")),
        }
    };
    let elapsed_ns = HostClock.boot_ns().saturating_sub(begun_ns);
    tell(point, &report, elapsed_ns, output);
    for found in found {
        damage::record(global, repository, state, found, &job);
    }
    let all = args.at.volume.is_some() || !points::warn_missing(state, point);
    Ok(if report.fault_count == 0 && all { Exit::Done } else { Exit::Partial })
}

/// `--abandon`: what restores left in the target, in folders of volumes below it, or beside a new image file.
fn abandon(args: &Restore, output: &Output) -> Result<Exit, Failure> {
    let dir = match (&args.to, &args.to_device) {
        (Some(to), _) => to.clone(),
        (None, Some(file)) => match file.parent() {
            Some(above) if !above.as_os_str().is_empty() => above.to_owned(),
            _ => PathBuf::from("."),
        },
        (None, None) => return Err(Failure::usage("say where: --to DIR or --to-device FILE")),
    };
    let mut dirs = vec![dir.clone()];
    if args.to.is_some() {
        let entries = std::fs::read_dir(&dir).map_err(|why| Failure::at(dir.display(), why))?;
        let is_dir = |entry: &std::fs::DirEntry| {
            let is_own = entry.file_name().as_encoded_bytes().starts_with(STAGING_PREFIX.as_bytes());
            !is_own && entry.file_type().is_ok_and(|kind| kind.is_dir())
        };
        dirs.extend(entries.filter_map(Result::ok).filter(is_dir).map(|entry| entry.path()));
    }
    let (mut removed, mut left, mut lost_power) = (Vec::new(), Vec::new(), false);
    for dir in dirs {
        let done = parts::abandon(&dir).map_err(|fault| Failure::at(dir.display(), fault))?;
        let full = |name: &String| dir.join(name).display().to_string();
        removed.extend(done.removed.iter().map(full));
        left.extend(done.left.iter().map(full));
        lost_power |= done.lost_power;
    }
    for name in &removed {
        output.say(format_args!("removed {name}"));
    }
    for name in &left {
        logger::say(format_args!("windlass: {name} stays: a restore is using it, or it cannot be removed"));
    }
    if removed.is_empty() && left.is_empty() {
        output.say(format_args!("no restore has left anything in {}", dir.display()));
    }
    if lost_power {
        logger::say(format_args!(
            "windlass: the machine was started again since; files that were finished shortly before may have lost their \
             contents. Restore with --in-place or --existing overwrite to have them compared or written again"
        ));
    }
    output.document(&json!({ "removed": removed, "left": left }));
    Ok(if left.is_empty() { Exit::Done } else { Exit::Partial })
}

/// What becomes of names that are taken.
pub(super) fn existing(args: &Restore) -> AgentExisting {
    match args.existing {
        _ if args.in_place => AgentExisting::InPlace,
        Existing::Refuse => AgentExisting::Refuse,
        Existing::Skip => AgentExisting::Skip,
        Existing::Different => AgentExisting::OverwriteIfDifferent,
        Existing::Overwrite => AgentExisting::Overwrite,
    }
}

/// What `--exclude` leaves out.
pub(super) fn excluded(args: &Restore) -> Result<Patterns, Failure> {
    Patterns::new(&[], &args.exclude).map_err(|fault| Failure::usage(format_args!("--exclude: {fault}")))
}

/// The owners that `--map-owner` asks for.
pub(super) fn owner_map(rules: &[String]) -> Result<OwnerMap, Failure> {
    let mut map = OwnerMap::default();
    for rule in rules {
        map.add(rule).map_err(|fault| Failure::usage(format_args!("--map-owner {rule}: {fault}")))?;
    }
    if !map.is_empty() && !nix::unistd::geteuid().is_root() {
        return Err(Failure::usage("--map-owner needs root: no one else can set owners"));
    }
    Ok(map)
}

/// Restores what was asked for of each volume, one after the other; of several, each to a folder of its own.
fn all_parts(restoring: &Restoring<'_>, parts: Vec<Part>, to: &Path) -> Result<RestoreReport, Failure> {
    let Restoring { repository, state, point, job, .. } = *restoring;
    let mut all = RestoreReport::default();
    if parts.iter().all(|part| part.paths.is_empty()) && restoring.exclude.is_everything() {
        job.items_total.set(point.totals.items);
        job.bytes_total.set(point.totals.bytes_logical);
    }
    for part in parts {
        let mut paths = part.paths;
        if !paths.is_empty() {
            let mut lookup = open_lookup(repository, state, point, part.volume)?;
            paths = selected::resolve(&mut lookup, part.volume, paths)?;
        }
        let folder = part.folder.unwrap_or_default();
        let target = if folder.is_empty() { to.to_owned() } else { to.join(&folder) };
        let report = restoring.to_directory(part.volume, &paths, &target)?;
        let below = folder.as_bytes();
        let mut report = report;
        for fault in &mut report.faults {
            let parts: Vec<&[u8]> =
                [below, &fault.path].into_iter().filter(|part| !part.is_empty()).collect();
            fault.path = parts.join(&b'/');
        }
        add(&mut all, report);
    }
    Ok(all)
}

/// Adds what a part came to; items and bytes are counted for all of them.
fn add(all: &mut RestoreReport, part: RestoreReport) {
    (all.items, all.bytes) = (part.items, part.bytes);
    all.bytes_equal += part.bytes_equal;
    all.resumed += part.resumed;
    all.leftovers.extend(part.leftovers);
    all.fault_count += part.fault_count;
    all.faults.extend(part.faults);
    all.faults.truncate(FAULTS_MAX);
}

/// What a restore found lost, as far as its report has it.
fn lost(point: &Point, report: &RestoreReport) -> Found {
    let mut found = Found::default();
    for fault in &report.faults {
        match fault.reason {
            Reason::Missing { object, .. } => drop(found.missing.insert(&object)),
            Reason::Damaged { object, .. } | Reason::Short { object, .. } => {
                found.damaged.insert(&object);
            }
            Reason::Lost(rows) if rows.what.is_none() => drop(found.missing.insert(&rows.segment)),
            Reason::Lost(rows) => drop(found.damaged.insert(&rows.segment)),
            _ => {}
        }
    }
    found.point = (!found.is_sound()).then_some(point.backup);
    found
}

/// Prints what a restore did, and names what is not as it was.
fn tell(point: &Point, report: &RestoreReport, elapsed_ns: u64, output: &Output) {
    for fault in &report.faults {
        logger::say(format_args!("windlass: {fault}"));
    }
    let more = report.fault_count.saturating_sub(report.faults.len() as u64);
    if more > 0 {
        logger::say(format_args!("windlass: and {} more", Grouped(more)));
    }
    let rate = (u128::from(report.bytes) * 1_000_000_000 / u128::from(elapsed_ns.max(1))) as u64;
    output.say(format_args!(
        "point {}: {}, {} in {} ({}/s)",
        point.backup,
        Counted(report.items, "item"),
        Human(report.bytes),
        HumanTime(elapsed_ns),
        Human(rate),
    ));
    for leftover in &report.leftovers {
        logger::say(format_args!(
            "windlass: what an earlier restore left in {} is not gone on with: {}",
            text::printable(leftover.name.as_bytes()),
            leftover.why
        ));
    }
    if report.resumed > 0 {
        let files = Counted(report.resumed, "file");
        output.say(format_args!("  went on with {files} that an earlier restore had begun"));
    }
    if report.bytes_equal > 0 {
        output.say(format_args!(
            "  {} of it were there already, compared with the point; the rest was written",
            Human(report.bytes_equal)
        ));
    }
    if report.bytes_behind > 0 {
        output.say(format_args!(
            "  the device is {} larger than the image: what is behind it stays as it was; grow the file system to use it",
            Human(report.bytes_behind)
        ));
    }
    let items: BTreeSet<&[u8]> = report.faults.iter().map(|fault| fault.path.as_slice()).collect();
    let count = items.len() as u64;
    match count {
        0 => {}
        1 => output.say("  1 item could not be restored as it was (listed above)"),
        _ => output.say(format_args!(
            "  {}{} items could not be restored as they were (listed above)",
            if more > 0 { "more than " } else { "" },
            Grouped(count)
        )),
    }
    let faults: Vec<Value> = report
        .faults
        .iter()
        .map(|fault| {
            let mut object = Map::new();
            text::put_bytes(&mut object, "path", &fault.path);
            object.insert("what".to_owned(), fault.reason.to_string().into());
            Value::Object(object)
        })
        .collect();
    let leftovers: Vec<Value> = report
        .leftovers
        .iter()
        .map(|leftover| json!({ "path": leftover.name, "what": leftover.why.to_string() }))
        .collect();
    output.event(
        "done",
        json!({
            "point": point.backup.0,
            "items": report.items,
            "bytes": report.bytes,
            "bytes_equal": report.bytes_equal,
            "bytes_behind": report.bytes_behind,
            "files_resumed": report.resumed,
            "leftovers": leftovers,
            "elapsed_ms": elapsed_ns / 1_000_000,
            "items_not_whole": count,
            "faults": report.fault_count,
            "fault_list": faults,
            "peak_memory_bytes": host::peak_memory_bytes(),
        }),
    );
}
