//! `restore`: a point, or paths of it, to a directory; a volume image to a device or file.
//!
//! Source: ours.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use serde_json::{Map, Value, json};
use windlass_agent::id::VolumeId;
use windlass_agent::log::state::{Point, State};
use windlass_agent::progress::{Phase, Progress};
use windlass_agent::restore::device;
use windlass_agent::restore::fault::Reason;
use windlass_agent::restore::file::RestoreOptions;
use windlass_agent::restore::lookup::{ClientFetch, Lookup};
use windlass_agent::restore::target::Existing as AgentExisting;
use windlass_agent::restore::walk::{self, RestoreReport, Root, Source};
use windlass_agent::table::read::TableReader;
use windlass_agent::table::source::TableLimits;
use windlass_agent::units::{Grouped, Human, HumanTime};
use windlass_hal::volume::ItemKind;

use crate::args::global::Global;
use crate::args::{Existing, Restore};
use crate::commands::points;
use crate::damage::{self, Found};
use crate::failure::{Exit, Failure};
use crate::host::{self, HostClock};
use crate::output::Output;
use crate::progress::Watcher;
use crate::repository::Repository;
use crate::{logger, signal, text};

/// `restore`.
pub fn run(global: &Global, args: &Restore, output: &Output) -> Result<Exit, Failure> {
    let repository = Repository::open(global)?;
    let state = repository.view()?.state;
    let (point, volume) = points::pick_volume(&state, &args.at)?;
    damage::warn(&state, point.backup);
    let job = Arc::new(Progress::new());
    signal::watch(&job)?;
    let begun_ns = HostClock.boot_ns();
    let report = {
        let _watcher = Watcher::start(&job, *output)?;
        let paths: Vec<Vec<u8>> =
            args.paths.iter().map(|path| path.as_os_str().as_bytes().to_vec()).collect();
        match (&args.to, &args.to_device) {
            (Some(to), _) => {
                to_directory(global, &repository, &state, point, volume, &paths, to, args.existing, &job)?
            }
            (None, Some(to)) => to_device(global, &repository, &state, point, volume, to, &job)?,
            (None, None) => return Err(Failure::usage("say where to: --to DIR or --to-device DEV")),
        }
    };
    let elapsed_ns = HostClock.boot_ns().saturating_sub(begun_ns);
    tell(point, &report, elapsed_ns, output);
    damage::record(global, &repository, &state, lost(point, &report), &job);
    Ok(if report.fault_count == 0 { Exit::Done } else { Exit::Partial })
}

/// The tables of a volume at a point.
pub fn lookup(
    repository: &Repository,
    state: &State,
    point: &Point,
    volume: VolumeId,
) -> Result<Lookup<ClientFetch>, Failure> {
    let segments = state.segments.get(&volume).map(|list| list.as_slice()).unwrap_or_default();
    let fetch = ClientFetch::new(Arc::clone(&repository.opened.client));
    let reader = TableReader::new(fetch, &repository.keys, TableLimits::default(), segments);
    reader.map(|reader| Lookup::new(reader, point.backup)).ok_or_else(|| Failure::new("out of memory"))
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
    let mut lookup = lookup(repository, state, point, volume)?;
    let root = lookup.root(volume).map_err(Failure::new)?;
    let (lin, item) = root
        .ok_or_else(|| Failure::new(format_args!("point {} has nothing of volume {volume}", point.backup)))?;
    if paths.is_empty() {
        job.items_total.set(point.totals.items);
        job.bytes_total.set(point.totals.bytes_logical);
    }
    let name = if item.kind == ItemKind::Directory { Vec::new() } else { b"image".to_vec() };
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
    };
    host::raise_descriptors();
    job.enter(Phase::Restoring);
    let mut source = Source { lookup, client: &repository.opened.client, keys: &repository.keys };
    let nonce = u64::from_le_bytes(host::random()?);
    let roots = [Root { lin, name }];
    let report = walk::run(&mut source, &roots, paths, to, nonce, options, global.memory.0, job);
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
    let mut lookup = lookup(repository, state, point, volume)?;
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
    let report = device::run(&mut source, lin, to, nonce, global.memory.0, job);
    job.enter(Phase::Done);
    report.map_err(|fault| Failure::at(to.display(), fault))
}

/// What a restore found lost, as far as its report has it.
fn lost(point: &Point, report: &RestoreReport) -> Found {
    let mut found = Found::default();
    for fault in &report.faults {
        match fault.reason {
            Reason::Missing { object, .. } => drop(found.missing.insert(&object)),
            Reason::Damaged { object, .. } => drop(found.damaged.insert(&object)),
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
        "point {}: {} items, {} in {} ({}/s)",
        point.backup,
        Grouped(report.items),
        Human(report.bytes),
        HumanTime(elapsed_ns),
        Human(rate),
    ));
    if report.fault_count > 0 {
        output.say(format_args!(
            "  {} items are not as they were; they are named above",
            Grouped(report.fault_count)
        ));
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
            "elapsed_ns": elapsed_ns,
            "fault_count": report.fault_count,
            "faults": faults,
            "peak_memory_bytes": host::peak_memory_bytes(),
        }),
    );
}
