//! `backup`: a policy's volumes into a new point.
//!
//! ```text
//!  policy --> devices, volumes (through its patterns) --> budget --> pools, uplink, reactor --> drive::backup --> report
//! ```
//!
//! Source: ours.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use serde_json::{Map, Value, json};
use windlass_agent::drive::backup::{self as drive, Machinery, Report, VolumeJob};
use windlass_agent::drive::budget::Budget;
use windlass_agent::drive::job;
use windlass_agent::drive::merge::{self, Merged, Merger};
use windlass_agent::id::VolumeId;
use windlass_agent::log::fault::LogFault;
use windlass_agent::log::state::State;
use windlass_agent::pack::OBJECT_BYTES_DEFAULT;
use windlass_agent::pack::object::NameCounter;
use windlass_agent::policy::Policy;
use windlass_agent::policy::paths;
use windlass_agent::policy::select::{Unmatched, unmatched_include};
use windlass_agent::progress::{Phase, Progress};
use windlass_agent::store::retry::Client;
use windlass_agent::store::uplink::UplinkSettings;
use windlass_agent::units::{Counted, Grouped, Human, HumanTime};
use windlass_agent::worker::backup::Totals;
use windlass_hal::buf::Pool;
use windlass_hal::volume::{Volume, VolumeKind};

use crate::args::Backup;
use crate::args::global::Global;
use crate::commands::verify::{self, Compared};
use crate::commands::{policy, repo};
use crate::damage::{self, Found};
use crate::engine::volumes::{Selectable, open_selected};
use crate::engine::worker::{job_settings, point_rows, start_uplink};
use crate::failure::{Exit, Failure};
use crate::host::{self, HostClock};
use crate::machinery::{HostReactor, pools, refuse_written};
use crate::output::Output;
use crate::progress::Watcher;
use crate::repository::{self, LogSession, Repository};
use crate::requests::Requests;
use crate::{logger, signal, text, within};

/// What a backup did, with what only the board knows.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What the agent says.
    pub report: Report,
    /// What was done to keep the tables in order.
    pub merged: Merged,
    /// How long it took, in nanoseconds.
    pub elapsed_ns: u64,
    /// What was asked of the store.
    pub requests: Requests,
    /// Items that are not whole: path (or number, where no name was found), and what is missing.
    pub not_whole: Vec<(Vec<u8>, String)>,
    /// What the policy had compared with the kernel's view.
    pub compared: Vec<Compared>,
    /// Free bytes of images that are not in the point.
    pub free_bytes: u64,
    /// Volumes that someone could write to when all was read, though nobody could when it began.
    pub in_use: Vec<String>,
    /// Include patterns that match nothing on any volume.
    pub unmatched: Vec<String>,
    /// Volumes that the point is without: device, and why it could not be opened.
    pub missing: Vec<(String, String)>,
    /// Whether the point is known to need something that the store has lost: it was begun before that was noticed.
    pub damaged: bool,
}

impl Outcome {
    /// How the command ends.
    pub fn exit(&self) -> Exit {
        let differs = self.compared.iter().any(|compared| compared.sums.differences > 0);
        let nothing_named = self.unmatched.is_empty() && self.in_use.is_empty() && self.missing.is_empty();
        let whole = self.report.totals.fault_count == 0 && nothing_named && !self.damaged;
        if whole && !differs { Exit::Done } else { Exit::Partial }
    }
}

/// `backup`.
pub fn run(global: &Global, args: &Backup, output: &Output) -> Result<Exit, Failure> {
    let job = Arc::new(Progress::new());
    signal::watch(&job)?;
    let mut repository = Repository::open(global)?;
    if args.no_wait {
        repository.wait_for_lock(Some(0));
    }
    let (policy, outcome) = {
        let _watcher = Watcher::start(&job, *output)?;
        run_policy(global, &repository, &args.name, args.paranoid, &job)?
    };
    tell(&policy, &outcome, output);
    output.event("done", to_json(&policy, &outcome));
    Ok(outcome.exit())
}

/// Backs a policy up; `paranoid` opens every frame again before it is sent. Everything that can be refused is refused before the lease is
/// taken; the lease is given back at the end, however it went, so that whoever comes next need not wait.
pub fn run_policy(
    global: &Global,
    repository: &Repository,
    name: &str,
    paranoid: bool,
    job: &Arc<Progress>,
) -> Result<(Policy, Outcome), Failure> {
    let store = &repository.opened.store;
    let begun_ns = HostClock.boot_ns();
    // What it took to open the repository is not the backup's.
    store.take();
    job.enter(Phase::Opening);
    let state = repository.view()?.state;
    let policy = policy::required(&state, name)?;
    apply_limits(global, repository, &policy);
    let uplinks = UplinkSettings::default().threads;
    let (block_bytes, object_bytes) = (policy.block_size as u32, object_bytes(&policy));
    let budget = Budget::plan(global.memory.0, block_bytes, object_bytes, host::cores(), uplinks)
        .map_err(Failure::usage)?;
    let (frames, pieces) = pools(&budget, block_bytes)?;
    let mut settings = settings(repository, &policy);
    if paranoid {
        settings.job.prove_every = 1;
    }
    let pools = std::slice::from_ref(&frames);
    let (mut volumes, missing, unmatched) = open_volumes(global, &state, &policy, &settings.job, pools, job)?;
    let unmatched: Vec<String> =
        unmatched.places().filter_map(|at| policy.include.get(at).cloned()).collect();
    settings.includes_unmatched = unmatched.len() as u64;
    let mut reactor = HostReactor::new()?;
    for volume in &volumes {
        reactor.add(&*volume.device)?;
    }
    let waker = reactor.waker();
    let wake: Arc<dyn Fn() + Send + Sync> = Arc::new(move || waker.wake());
    let uplink = start_uplink(&repository.opened.client, &pieces, budget.uplinks, Arc::clone(&wake))?;
    job.enter(Phase::Opening);
    let session = repository.claim()?;
    let revision = |state: &State| state.policies.get(name).map(|entry| (entry.revision, entry.removed));
    if revision(&session.view().state) != revision(&state) {
        repository::release(session);
        return Err(Failure::new(format_args!(
            "policy {name} was changed while the backup began; start it again"
        )));
    }
    let mut machinery = Machinery {
        frames,
        pieces,
        budget,
        names: NameCounter::default(),
        uplink: &uplink,
        wake,
        reactor: &mut reactor,
        stop: job.stop_flag(),
        flush: &NO_FLUSH,
    };
    let sweeping = damage::begin_sweep(repository, &session.view().state, job);
    log::info!("backup: begun policy={name}");
    settings.missing = missing.iter().map(|missing| missing.id).collect();
    let is_read = |device: &str| missing.iter().all(|missing| missing.device != device);
    let devices = policy.volumes.iter().map(|volume| volume.device.as_str());
    let read: Vec<&Path> = devices.filter(|device| is_read(device)).map(Path::new).collect();
    let mut in_use: Vec<String> = Vec::new();
    let (mut session, mut begun) = (session, None);
    let (session, result) = loop {
        job.enter(Phase::BackingUp);
        settings.own = begun;
        let (kept, result) = drive::run(
            session,
            repository.clock(),
            &repository.keys,
            &settings,
            &mut volumes,
            &mut machinery,
            &mut |volume, earlier, state| point_rows(repository, volume, earlier, state),
            &mut |begun_as, totals| {
                begun = Some(begun_as);
                show(job, totals, &repository.opened.client);
            },
            &mut || {
                in_use =
                    read.iter().filter_map(|path| Some(refuse_written(path).err()?.to_string())).collect();
                in_use.len() as u64
            },
        );
        match &result {
            // The lock is lost, or what was written under it is not known to count.
            Err(fault)
                if kept.is_none()
                    && !job.is_stop_requested()
                    && fault.log().is_some_and(LogFault::is_transient) =>
            {
                logger::say(format_args!("windlass: {fault}; trying to get it back"));
                job.enter(Phase::Opening);
                session = repository.claim_again(job.stop_flag())?;
            }
            _ => break (kept, result),
        }
    };
    job.enter(Phase::Finishing);
    let (names, pieces) = (machinery.names.clone(), machinery.pieces.clone());
    let (session, merged) = match (session, &result) {
        (Some(session), Ok(_)) => keep_order(repository, session, names, pieces, job),
        (session, _) => (session, Merged::default()),
    };
    let kept = session.as_ref().map_or(0, |session| stored_of(&session.view().state, name));
    let mut damaged = match (&session, &result) {
        (Some(session), Ok(report)) => session.view().state.damage.points.contains(&report.backup),
        _ => false,
    };
    if let Some(session) = session {
        repository::release(session);
    }
    let report = result.map_err(|fault| ended_early(&fault, &policy, kept))?;
    let mut is_told = !report.lost.is_empty();
    if is_told {
        // What was missing as a whole was known to be from its first row on.
        let knew = !report.resumed && report.lost.iter().all(|lost| lost.what.is_none());
        let found = Found { made: knew.then_some(report.backup), ..Found::of_segments(&report.lost) };
        damage::record(global, repository, &repository.view()?.state, found, job);
    }
    if let Some(sweeping) = sweeping {
        damage::end_sweep(global, repository, sweeping, job);
        is_told = true;
    }
    // Read again only by a backup that may have been told of damage: any other one saves the requests.
    if is_told {
        damaged = repository.view()?.state.damage.points.contains(&report.backup);
    }
    let compared = verify::after_backup(global, &policy, job)?;
    job.enter(Phase::Done);
    let elapsed_ns = HostClock.boot_ns().saturating_sub(begun_ns);
    log::info!(
        "backup: ended policy={name} point={} items={} bytes={} faults={} seconds={}",
        report.backup,
        report.totals.items,
        report.totals.item_bytes,
        report.totals.fault_count,
        elapsed_ns / 1_000_000_000
    );
    let not_whole = name_troubles(&report, &mut volumes);
    let free_bytes = volumes.iter().map(|job| free_bytes(&*job.volume)).sum();
    let missing = missing.into_iter().map(|missing| (missing.device, missing.why)).collect();
    let outcome = Outcome {
        report,
        elapsed_ns,
        requests: store.take(),
        not_whole,
        compared,
        merged,
        free_bytes,
        in_use,
        unmatched,
        missing,
        damaged,
    };
    Ok((policy, outcome))
}

/// Bytes that unfinished backups of a policy have stored.
fn stored_of(state: &State, policy: &str) -> u64 {
    state.unfinished(policy).map(|(_, running)| running.totals.bytes_stored).sum()
}

/// Why a backup ended early, and what of it is kept.
fn ended_early<F: std::fmt::Display>(fault: &drive::Fault<F>, policy: &Policy, kept_bytes: u64) -> Failure {
    let kept = match kept_bytes {
        0 => "nothing had been stored yet that the next run could use".to_owned(),
        kept => format!("{} are kept for the next run", Human(kept)),
    };
    match fault.is_stop() {
        true => Failure::new(format_args!("backup of {} stopped; {kept}", policy.name)),
        false => Failure::new(format_args!("{fault}; {kept}")),
    }
}

/// Merges segments where too many lie over one place. What does not work is said and left for the next time: the point is made.
fn keep_order<'env>(
    repository: &'env Repository,
    session: LogSession<'env>,
    names: NameCounter,
    pieces: Pool,
    job: &Progress,
) -> (Option<LogSession<'env>>, Merged) {
    let holder = session.view().state.holder;
    let merger = Merger {
        client: Arc::clone(&repository.opened.client),
        keys: repository.keys.clone(),
        pieces,
        names,
        author: (holder.node, holder.boot),
    };
    let (session, merged, result) = merge::in_order(session, repository.clock(), &merger, job.stop_flag());
    if let Err(why) = result {
        logger::say(format_args!("windlass: tables were not merged: {why}"));
    }
    let retired = session.as_ref().map_or(0, |session| session.view().state.retired.len());
    if let Some(warning) = repo::retired_warning(retired) {
        logger::say(format_args!("windlass: {warning}"));
    }
    (session, merged)
}

/// Finds the paths of items that are not whole.
fn name_troubles(report: &Report, volumes: &mut [VolumeJob]) -> Vec<(Vec<u8>, String)> {
    let mut named = Vec::with_capacity(report.troubles.len());
    for job in volumes {
        let of_volume = || report.troubles.iter().filter(|trouble| trouble.lin.volume == job.id);
        if of_volume().next().is_none() {
            continue;
        }
        let inodes: Vec<u64> = of_volume().map(|trouble| trouble.lin.inode).collect();
        // A volume that cannot be swept any more still has numbers.
        let paths = paths::find(&mut *job.volume, &mut *job.device, inodes.into_iter()).unwrap_or_default();
        named.extend(of_volume().map(|trouble| {
            let path = paths.get(&trouble.lin.inode).map(|path| [&b"/"[..], path].concat());
            let name = path.unwrap_or_else(|| format!("inode {}", trouble.lin).into_bytes());
            (name, trouble.what.clone())
        }));
    }
    named
}

/// What an image leaves out.
fn free_bytes(volume: &dyn Volume) -> u64 {
    let info = volume.info();
    if info.kind == VolumeKind::Image { info.size_bytes.saturating_sub(info.used_bytes) } else { 0 }
}

fn object_bytes(policy: &Policy) -> u32 {
    u32::try_from(policy.object_size).unwrap_or(OBJECT_BYTES_DEFAULT)
}

fn settings(repository: &Repository, policy: &Policy) -> drive::Settings {
    drive::Settings {
        policy: policy.name.clone(),
        job: job_settings(repository, policy),
        wall_start_ns: HostClock.wall_ns(),
        includes_unmatched: 0,
        missing: Vec::new(),
        own: None,
    }
}

/// Limits of the command line go before those of the policy.
fn apply_limits(global: &Global, repository: &Repository, policy: &Policy) {
    let pick = |given: Option<crate::args::value::Rate>, kept: Option<u64>| given.map(|rate| rate.0).or(kept);
    let (up, down) =
        (pick(global.limit_up, policy.limits.upload), pick(global.limit_down, policy.limits.download));
    repository.opened.throttle.set(up.unwrap_or(0), down.unwrap_or(0));
}

/// A volume that could not be opened.
struct Missing {
    id: VolumeId,
    device: String,
    why: String,
}

/// Opens the volumes of a policy, ascending by number. What cannot be opened is named, and the others are backed up; when nothing can be
/// opened, there is nothing to do. Says which include patterns match nothing on any.
fn open_volumes(
    global: &Global,
    state: &State,
    policy: &Policy,
    settings: &job::Settings,
    pools: &[Pool],
    job: &Progress,
) -> Result<(Vec<VolumeJob>, Vec<Missing>, Unmatched), Failure> {
    let patterns = policy.patterns().map_err(Failure::new)?;
    let iops = global.device_iops_max.or(policy.limits.device_iops);
    let mut jobs = Vec::with_capacity(policy.volumes.len());
    let mut missing: Vec<Missing> = Vec::new();
    let (mut bytes, mut all) = (0u64, true);
    let mut unmatched = Unmatched::first(policy.include.len());
    for wanted in &policy.volumes {
        let path = PathBuf::from(&wanted.device);
        if !path.is_absolute() {
            return Err(Failure::at(
                &wanted.device,
                "a volume of a board profile, which an agent knows; start `windlass agent` and leave out --alone",
            ));
        }
        let id = volume_id(state, policy, &wanted.device)?;
        let opened = match open_selected(&path, wanted.reader, iops, pools, policy, None, job) {
            Ok(opened) => opened,
            Err(failure) if job.is_stop_requested() || policy.volumes.len() == 1 => return Err(failure),
            Err(failure) => {
                missing.push(Missing { id, device: wanted.device.clone(), why: failure.to_string() });
                continue;
            }
        };
        let urls = global.repo.iter().chain(&global.lease_store).map(String::as_str);
        if let Some(warning) = within::warning(urls, &path, opened.volume.info(), &patterns) {
            logger::say(format_args!("windlass: {warning}"));
        }
        job.items_total.add(opened.items);
        // How many bytes a selection has is not known: the bar goes by items.
        all &= opened.whole;
        bytes = bytes.saturating_add(opened.volume.info().used_bytes);
        unmatched = unmatched.of_both(&opened.unmatched);
        let rules = settings.rules(&patterns, wanted.reader, policy.all_blocks);
        let Selectable { device, volume, .. } = opened;
        jobs.push(VolumeJob { id, device, volume, rules });
    }
    jobs.sort_by_key(|job| job.id);
    missing.sort_by_key(|missing| missing.id);
    if jobs.is_empty() {
        let all: Vec<&str> = missing.iter().map(|missing| missing.why.as_str()).collect();
        return Err(Failure::new(format_args!(
            "no volume of {} can be opened: {}",
            policy.name,
            all.join("; ")
        )));
    }
    for missing in &missing {
        logger::say(format_args!("windlass: {}; the point will be without this volume", missing.why));
    }
    job.bytes_total.set(if all { bytes } else { 0 });
    Ok((jobs, missing, unmatched))
}

fn volume_id(state: &State, policy: &Policy, device: &str) -> Result<VolumeId, Failure> {
    let mut known = state.volumes.iter();
    let found = known.find(|(_, volume)| volume.policy == policy.name && volume.device == device);
    found.map(|(id, _)| *id).ok_or_else(|| {
        Failure::at(device, format_args!("not registered; run `windlass policy set {}` again", policy.name))
    })
}

/// Nobody asks a process that acts alone to send what it has packed.
static NO_FLUSH: AtomicBool = AtomicBool::new(false);

/// Copies the worker's sums to where people look.
fn show(job: &Progress, totals: &Totals, client: &Client) {
    job.items_done.set(totals.items);
    job.bytes_done.set(totals.item_bytes);
    job.bytes_read.set(totals.read_bytes);
    job.bytes_packed.set(totals.block_bytes);
    job.bytes_stored.set(totals.stored_bytes);
    job.objects.set(totals.objects);
    job.faults.set(totals.fault_count);
    let counts = client.counts();
    job.puts.set(counts.put);
    job.gets.set(counts.get);
    job.retries.set(counts.retries);
}

/// PUT requests for a TiB of contents at the rate of `puts` for `bytes`.
pub fn puts_per_tib(puts: u64, bytes: u64) -> u64 {
    if bytes == 0 {
        0
    } else {
        u64::try_from(u128::from(puts) * (1 << 40) / u128::from(bytes)).unwrap_or(u64::MAX)
    }
}

fn per_second(bytes: u64, ns: u64) -> u64 {
    (u128::from(bytes) * 1_000_000_000 / u128::from(ns.max(1))) as u64
}

/// Prints what a backup did.
pub fn tell(policy: &Policy, outcome: &Outcome, output: &Output) {
    let totals = &outcome.report.totals;
    output.say(format_args!(
        "point {} of {}: {}, {} in {} ({}/s){}",
        outcome.report.backup,
        policy.name,
        Counted(totals.items, "item"),
        Human(totals.item_bytes),
        HumanTime(outcome.elapsed_ns),
        Human(per_second(totals.item_bytes, outcome.elapsed_ns)),
        match outcome.report.kept_bytes {
            0 => String::new(),
            kept => format!(", with {} that an unfinished run had stored", Human(kept)),
        },
    ));
    output.say(format_args!(
        "  {} new or changed, {} unchanged, {} deleted; read {}, stored {} in {} and {}, {}",
        Grouped(totals.items.saturating_sub(totals.items_same)),
        Grouped(totals.items_same),
        Grouped(totals.items_deleted),
        Human(totals.read_bytes),
        Human(totals.stored_bytes),
        Counted(totals.objects, "object"),
        Counted(totals.segments, "segment"),
        Counted(outcome.requests.puts(), "PUT"),
    ));
    for why in &outcome.in_use {
        output.say(format_args!(
            "  put to use while it was read, so do not trust this point, make another: {why}"
        ));
    }
    if outcome.free_bytes > 0 {
        output.say(format_args!(
            "  {} of free space are left out and restore as zeros; --all-blocks of `policy set` keeps them",
            Human(outcome.free_bytes)
        ));
    }
    if outcome.merged.removed > 0 {
        output.say(format_args!(
            "  {} segments of the tables became {}",
            Grouped(outcome.merged.removed),
            Grouped(outcome.merged.added)
        ));
    }
    let proven = &outcome.report.proven;
    if proven.frames > 0 {
        output.say(format_args!(
            "  {} of {} frames were opened again and compared before they were sent, in {} on the lanes",
            Grouped(proven.frames),
            Grouped(proven.of),
            HumanTime(proven.ns),
        ));
    }
    if totals.fault_count > 0 {
        output.say(format_args!(
            "  {} could not be read in full (named above)",
            Counted(totals.fault_count, "item")
        ));
    }
    for text in &outcome.unmatched {
        output.say(format_args!("  {}", unmatched_include(text)));
    }
    for (device, _) in &outcome.missing {
        let device = text::printable(device.as_bytes());
        output.say(format_args!("  without {device}, which could not be opened; see above"));
    }
    if outcome.damaged {
        output.say(format_args!("  {DAMAGED}"));
    }
    tell_compared(outcome, output);
}

/// What is said of a new point that needs something lost.
pub const DAMAGED: &str = "this point is damaged: something that it needs is missing from the store, or was changed there, and \
                           that was noticed after the backup began; make another one, which stores it again";

/// Prints what the comparison with the kernel found.
fn tell_compared(outcome: &Outcome, output: &Output) {
    for compared in &outcome.compared {
        for (path, difference) in &compared.differences {
            output.say(format_args!("  differs: {}", verify::line(path, difference)));
            output.event("difference", verify::to_json(path, difference));
        }
        output.say(format_args!(
            "  {} of {} compared with the file system as the kernel shows it: {}",
            Counted(compared.sums.items, "item"),
            text::printable(compared.device.as_os_str().as_encoded_bytes()),
            Counted(compared.sums.differences, "difference"),
        ));
    }
}

/// The fields of the last event.
pub fn to_json(policy: &Policy, outcome: &Outcome) -> Value {
    let (report, totals) = (&outcome.report, &outcome.report.totals);
    let not_whole: Vec<Value> = outcome
        .not_whole
        .iter()
        .map(|(path, what)| {
            let mut object = Map::new();
            text::put_bytes(&mut object, "path", path);
            object.insert("what".to_owned(), what.as_str().into());
            Value::Object(object)
        })
        .collect();
    let compared: Vec<Value> = outcome
        .compared
        .iter()
        .map(|compared| {
            json!({
                "device": compared.device.display().to_string(),
                "items": compared.sums.items,
                "bytes": compared.sums.bytes,
                "differences": compared.sums.differences,
            })
        })
        .collect();
    json!({
        "policy": policy.name,
        "point": report.backup.0,
        "resumed": report.resumed,
        "bytes_kept": report.kept_bytes,
        "volumes_missing": outcome.missing.iter().map(|(device, why)| json!({ "device": device, "what": why })).collect::<Vec<_>>(),
        "elapsed_ms": outcome.elapsed_ns / 1_000_000,
        "items": totals.items,
        "items_same": totals.items_same,
        "items_deleted": totals.items_deleted,
        "bytes": totals.item_bytes,
        "bytes_read": totals.read_bytes,
        "bytes_free": outcome.free_bytes,
        "reads": totals.reads,
        "bytes_stored_plain": totals.stored_plain_bytes,
        "bytes_stored": totals.stored_bytes,
        "frames": report.proven.of,
        "frames_proven": report.proven.frames,
        "bytes_proven": report.proven.bytes,
        "proven_ms": report.proven.ns / 1_000_000,
        "objects": totals.objects,
        "segments": totals.segments,
        "segments_merged": outcome.merged.removed,
        "requests": outcome.requests.to_json(),
        "peak_memory_bytes": host::peak_memory_bytes(),
        "faults": totals.fault_count,
        "fault_list": not_whole,
        "includes_unmatched": outcome.unmatched,
        "compared": compared,
        "in_use": outcome.in_use,
        "damaged": outcome.damaged,
    })
}
