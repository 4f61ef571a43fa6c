//! `restore`: a point, or paths of it, to a directory; a volume image to a device or file.
//!
//! Source: ours.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use serde_json::{Map, Value, json};
use windlass_agent::id::{Lin, VolumeId};
use windlass_agent::log::state::{Point, State};
use windlass_agent::progress::{Phase, Progress};
use windlass_agent::restore::device;
use windlass_agent::restore::fault::{FAULTS_MAX, Reason};
use windlass_agent::restore::file::RestoreOptions;
use windlass_agent::restore::place::Protected;
use windlass_agent::restore::target::Existing as AgentExisting;
use windlass_agent::restore::walk::{self, RestoreReport, Root, Source, Work};
use windlass_agent::units::{Counted, Grouped, Human, HumanTime};
use windlass_hal::volume::ItemKind;

use crate::cli::args::global::Global;
use crate::cli::args::{Existing, Restore};
use crate::cli::browse::open_lookup;
use crate::cli::damage::{self, Found};
use crate::cli::output::Output;
use crate::cli::preview;
use crate::cli::progress::Watcher;
use crate::cli::selected::{self, Part};
use crate::engine::host::{self, HostClock};
use crate::engine::machinery::refuse_small;
use crate::engine::points;
use crate::engine::repository::Repository;
use crate::failure::{Exit, Failure};
use crate::{logger, signal, text};

/// `restore`.
pub fn run(global: &Global, args: &Restore, output: &Output) -> Result<Exit, Failure> {
    refuse_small(global.memory.0)?;
    let job = Arc::new(Progress::new());
    signal::watch(&job)?;
    let repository = Repository::open(global)?;
    let state = repository.view()?.state;
    let point = points::pick(&state, &args.at.target)?;
    damage::warn(&state, point.backup);
    if args.dry_run {
        return preview::restore(&repository, &state, point, args, &job, output);
    }
    let begun_ns = HostClock.boot_ns();
    let report = {
        let _watcher = Watcher::start(&job, *output)?;
        match (&args.to, &args.to_device) {
            (Some(to), _) => {
                let parts = selected::parts(&state, point, &args.at, &args.paths)?;
                all_parts(global, &repository, &state, point, parts, to, args.existing, &job)?
            }
            (None, Some(to)) => {
                let (point, volume) =
                    points::pick_volume(&state, &args.at.target, args.at.volume.as_deref())?;
                to_device(global, &repository, &state, point, volume, to, &job)?
            }
            (None, None) => return Err(Failure::usage("say where to: --to DIR or --to-device DEV")),
        }
    };
    let elapsed_ns = HostClock.boot_ns().saturating_sub(begun_ns);
    tell(point, &report, elapsed_ns, output);
    damage::record(global, &repository, &state, lost(point, &report), &job);
    let all = args.at.volume.is_some() || !points::warn_missing(&state, point);
    Ok(if report.fault_count == 0 && all { Exit::Done } else { Exit::Partial })
}

/// Restores what was asked for of each volume, one after the other; of several, each to a folder of its own.
#[allow(clippy::too_many_arguments, reason = "one call; each part is named where it is made")]
fn all_parts(
    global: &Global,
    repository: &Repository,
    state: &State,
    point: &Point,
    parts: Vec<Part>,
    to: &Path,
    existing: Existing,
    job: &Arc<Progress>,
) -> Result<RestoreReport, Failure> {
    let mut all = RestoreReport::default();
    if parts.iter().all(|part| part.paths.is_empty()) {
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
        let report =
            to_directory(global, repository, state, point, part.volume, &paths, &target, existing, job)?;
        // Counted for all of them.
        (all.items, all.bytes) = (report.items, report.bytes);
        all.fault_count += report.fault_count;
        let below = folder.as_bytes();
        all.faults.extend(report.faults.into_iter().map(|mut fault| {
            let parts: Vec<&[u8]> =
                [below, &fault.path].into_iter().filter(|part| !part.is_empty()).collect();
            fault.path = parts.join(&b'/');
            fault
        }));
    }
    all.faults.truncate(FAULTS_MAX);
    Ok(all)
}

/// The directories of this machine that the repository is in.
fn protected(global: &Global) -> Protected {
    let urls = global.repo.iter().chain(&global.lease_store);
    Protected::of(urls.filter_map(|url| url.strip_prefix("file://")).map(Path::new))
}

/// Restores a volume's tree, or paths of it, into a directory. An image becomes the file `image` in it.
#[allow(clippy::too_many_arguments, reason = "one call; each part is named where it is made")]
pub fn to_directory(
    global: &Global,
    repository: &Repository,
    state: &State,
    point: &Point,
    volume: VolumeId,
    paths: &[Vec<u8>],
    to: &Path,
    existing: Existing,
    job: &Arc<Progress>,
) -> Result<RestoreReport, Failure> {
    job.enter(Phase::Planning);
    let mut lookup = open_lookup(repository, state, point, volume)?;
    let root = lookup.root(volume).map_err(Failure::new)?;
    if paths.is_empty() && point.volumes.len() == 1 {
        job.items_total.set(point.totals.items);
        job.bytes_total.set(point.totals.bytes_logical);
    }
    // A root that could not be read: what it held is restored without it.
    let lin = root.as_ref().map_or(Lin { volume, inode: 0 }, |(lin, _)| *lin);
    let is_image = root.is_some_and(|(_, item)| item.kind != ItemKind::Directory);
    let name = if is_image { b"image".to_vec() } else { Vec::new() };
    let options = RestoreOptions {
        existing: match existing {
            Existing::Refuse => AgentExisting::Refuse,
            Existing::Skip => AgentExisting::Skip,
            Existing::Different => AgentExisting::OverwriteIfDifferent,
            Existing::Overwrite => AgentExisting::Overwrite,
        },
        keep_damaged: false,
        sync: true,
        owners: nix::unistd::geteuid().is_root(),
        repository: protected(global),
    };
    host::raise_descriptors();
    job.enter(Phase::Restoring);
    let mut source = Source { lookup, client: &repository.opened.client, keys: &repository.keys };
    let nonce = u64::from_le_bytes(host::random()?);
    let roots = [Root { lin, name }];
    let work = Work { roots: &roots, selection: paths, options, nonce, progress: job };
    let report = walk::run(&mut source, &work, to, global.memory.0);
    job.enter(Phase::Done);
    report.map_err(|fault| Failure::at(to.display(), fault))
}

fn to_device(
    global: &Global,
    repository: &Repository,
    state: &State,
    point: &Point,
    volume: VolumeId,
    to: &Path,
    job: &Arc<Progress>,
) -> Result<RestoreReport, Failure> {
    job.enter(Phase::Planning);
    let mut lookup = open_lookup(repository, state, point, volume)?;
    let root = lookup.root(volume).map_err(Failure::new)?;
    let image = root.filter(|(_, item)| item.kind == ItemKind::Image);
    let Some((lin, item)) = image else {
        return Err(Failure::usage("this volume was backed up as files; restore it with --to DIR"));
    };
    job.items_total.set(1);
    job.bytes_total.set(item.size);
    job.enter(Phase::Restoring);
    let mut source = Source { lookup, client: &repository.opened.client, keys: &repository.keys };
    let nonce = u64::from_le_bytes(host::random()?);
    let report = device::run(&mut source, lin, to, &protected(global), nonce, global.memory.0, job);
    job.enter(Phase::Done);
    report.map_err(|fault| Failure::at(to.display(), fault))
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
    output.event(
        "done",
        json!({
            "point": point.backup.0,
            "items": report.items,
            "bytes": report.bytes,
            "elapsed_ms": elapsed_ns / 1_000_000,
            "items_not_whole": count,
            "faults": report.fault_count,
            "fault_list": faults,
            "peak_memory_bytes": host::peak_memory_bytes(),
        }),
    );
}
