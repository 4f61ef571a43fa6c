//! `backup`: a policy's volumes into a new point.
//!
//! ```text
//!  policy --> budget --> pools --> devices, volumes (through its patterns) --> engine::backup --> report
//! ```
//!
//! Source: ours.

use std::fmt;
use std::sync::Arc;

use serde_json::{Map, Value, json};
use windlass_agent::drive::job::VolumeJob;
use windlass_agent::log::fault::LogFault;
use windlass_agent::log::state::State;
use windlass_agent::policy::Policy;
use windlass_agent::policy::paths;
use windlass_agent::policy::select::unmatched_include;
use windlass_agent::progress::{Phase, Progress};
use windlass_agent::store::retry::Client;
use windlass_agent::units::{Counted, Grouped, Human, HumanTime};
use windlass_agent::worker::backup::Totals;
use windlass_hal::volume::{Volume, VolumeKind};

use crate::cli::args::Backup;
use crate::cli::args::global::Global;
use crate::cli::args::value::Rate;
use crate::cli::damage::{self, Found};
use crate::cli::output::Output;
use crate::cli::progress::Watcher;
use crate::cli::verify;
use crate::cli::{policy, repo};
use crate::engine::backup::{self as engine, Fault, Listener, Report};
use crate::engine::compare::{Compared, line};
use crate::engine::host::{self, HostClock};
use crate::engine::kept::Kept;
use crate::engine::limits::StoreLimits;
use crate::engine::machinery::pools;
use crate::engine::repository::{NODE, Repository, Waiting};
use crate::engine::requests::Requests;
use crate::engine::settings::Settings;
use crate::engine::watch::Opening;
use crate::engine::worker::Work;
use crate::failure::{Exit, Failure};
use crate::{logger, signal, text};

/// What a backup did, with what only the board knows.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What the agent says.
    pub report: Report,
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
        let nothing_named =
            self.unmatched.is_empty() && self.report.in_use.is_empty() && self.missing.is_empty();
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
    let view = repository.view()?;
    let policy = policy::required(&view.state, name)?;
    let mut settings =
        Settings::of_policy(&policy, global.memory.0, host::cores()).map_err(Failure::usage)?;
    if paranoid {
        settings.prove_every = 1;
    }
    let target = repository.target();
    let pools = pools(&settings.budget, settings.block_bytes_max)?;
    let iops = global.device_iops_max.or(policy.limits.device_iops);
    let urls: Vec<&str> = global.repo.iter().chain(&global.lease_store).map(String::as_str).collect();
    let shape = settings.job(&target, &policy);
    let volumes = Kept::open(&policy, &view.state, &shape, iops, pools.0.clone(), &urls, job)?;
    for warning in volumes.warnings() {
        logger::say(format_args!("windlass: {warning}"));
    }
    for missing in volumes.missing() {
        logger::say(format_args!("windlass: {}; the point will be without this volume", missing.why));
    }
    let sweeping = damage::begin_sweep(repository, &view.state, job);
    log::info!("backup: begun policy={name}");
    let volumes = Arc::new(volumes);
    let (given, shown) = (|rate: Option<Rate>| rate.map(|rate| rate.0), Arc::clone(job));
    let client = Arc::clone(&target.client);
    let work = Work {
        limits: Arc::new(StoreLimits::of_command(
            Arc::clone(&target.throttle),
            given(global.limit_up),
            given(global.limit_down),
        )),
        target,
        volumes: Arc::<Kept>::clone(&volumes),
        settings,
        author: (NODE, host::boot()?),
        pools,
        has_peers: false,
        upkeep: None,
        watch: Arc::new(move |totals| show(&shown, totals, &client)),
    };
    job.enter(Phase::Opening);
    let ended = engine::run(work, view, name, job, &mut Teller::new(repository))?;
    repository.keep_view(&ended.view);
    let state = ended.view.state;
    let report = ended.result.map_err(|fault| ended_early(repository, &fault, &policy, &state))?;
    if let Some(warning) = repo::retired_warning(state.retired.len()) {
        logger::say(format_args!("windlass: {warning}"));
    }
    let mut damaged = report.damaged;
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
    let missing = volumes.missing().iter().map(|of| (of.device.clone(), of.why.clone())).collect();
    let unmatched = volumes.unmatched().to_vec();
    let mut open = volumes.at_rest();
    let not_whole = name_troubles(&report, open.values_mut().map(|opened| &mut opened.job));
    let free_bytes = open.values().map(|opened| free_bytes(&*opened.job.volume)).sum();
    drop(open);
    let outcome = Outcome {
        report,
        elapsed_ns,
        requests: store.take(),
        not_whole,
        compared,
        free_bytes,
        unmatched,
        missing,
        damaged,
    };
    Ok((policy, outcome))
}

/// Tells a person how it goes, and how long to wait.
struct Teller<'a> {
    waiting: Waiting,
    waiting_again: Waiting,
    opening: Option<Opening<'a>>,
}

impl Teller<'_> {
    fn new(repository: &Repository) -> Teller<'_> {
        Teller {
            waiting: repository.waiting(),
            waiting_again: repository.waiting_again(),
            opening: Some(repository.opened.store.watch().opening()),
        }
    }
}

impl Listener for Teller<'_> {
    fn is_held(&mut self, held: &LogFault, left_ns: u64, again: bool) -> bool {
        let waiting = if again { &mut self.waiting_again } else { &mut self.waiting };
        waiting.goes_on(HostClock.boot_ns(), held, left_ns)
    }

    fn has_begun(&mut self) {
        self.opening = None;
    }

    fn hears(&mut self, line: fmt::Arguments<'_>) {
        logger::say(format_args!("windlass: {line}"));
    }
}

/// Why a backup ended early, and what of it is kept.
fn ended_early(repository: &Repository, fault: &Fault, policy: &Policy, state: &State) -> Failure {
    let kept = match engine::kept_bytes(state, &policy.name) {
        0 => "nothing had been stored yet that the next run could use".to_owned(),
        kept => format!("{} are kept for the next run", Human(kept)),
    };
    match fault {
        Fault::Stopped => Failure::new(format_args!("backup of {} stopped; {kept}", policy.name)),
        Fault::Log(fault) => repository.not_claimed(fault),
        Fault::Refused(why) => Failure::new(why),
        Fault::Job(..) => Failure::new(format_args!("{fault}; {kept}")),
    }
}

/// Finds the paths of items that are not whole.
fn name_troubles<'a>(
    report: &Report,
    volumes: impl Iterator<Item = &'a mut VolumeJob>,
) -> Vec<(Vec<u8>, String)> {
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
    for why in &outcome.report.in_use {
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
    if outcome.report.merged.removed > 0 {
        output.say(format_args!(
            "  {} segments of the tables became {}",
            Grouped(outcome.report.merged.removed),
            Grouped(outcome.report.merged.added)
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
    for (path, what) in &outcome.not_whole {
        output.say(format_args!("  not whole: {}: {what}", text::printable(path)));
    }
    if totals.fault_count > 0 {
        output.say(format_args!("  {} could not be read in full", Counted(totals.fault_count, "item")));
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
            output.say(format_args!("  differs: {}", line(path, difference)));
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
        "segments_merged": outcome.report.merged.removed,
        "requests": outcome.requests.to_json(),
        "peak_memory_bytes": host::peak_memory_bytes(),
        "faults": totals.fault_count,
        "fault_list": not_whole,
        "includes_unmatched": outcome.unmatched,
        "compared": compared,
        "in_use": outcome.report.in_use,
        "damaged": outcome.damaged,
    })
}
