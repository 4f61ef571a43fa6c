//! A backup without an agent: a policy's volumes into a new point, by a cluster of one in this process.
//!
//! ```text
//!  policy --> budget --> pools --> devices, volumes (through its patterns) --> engine::backup --> outcome
//! ```
//!
//! Does not: show progress or print the outcome. Source: ours.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use windlass_agent::coordinator::merges::{RETIRED_BY_MERGES_MAX, RETIRED_WARN_MIN};
use windlass_agent::drive::job::VolumeJob;
use windlass_agent::id::BackupId;
use windlass_agent::log::fault::LogFault;
use windlass_agent::log::state::{Point, State};
use windlass_agent::policy::Policy;
use windlass_agent::policy::paths;
use windlass_agent::progress::{Phase, Progress};
use windlass_agent::store::retry::Client;
use windlass_agent::units::{Grouped, Human};
use windlass_agent::worker::backup::Totals;
use windlass_hal::volume::{Volume, VolumeKind};

use crate::engine::backup::{self as engine, Fault, Listener, Report};
use crate::engine::compare::{Compared, sample};
use crate::engine::damage::{self, Commit, Found};
use crate::engine::host::{self, HostClock};
use crate::engine::kept::Kept;
use crate::engine::limits::{Iops, StoreLimits};
use crate::engine::machinery::pools;
use crate::engine::policy;
use crate::engine::repository::{NODE, Repository};
use crate::engine::requests::Requests;
use crate::engine::settings::{Access, Settings};
use crate::engine::waiting::Waiting;
use crate::engine::watch::Opening;
use crate::engine::worker::Work;
use crate::failure::{Exit, Failure};
use crate::logger;

/// What a backup is given besides the repository and the policy.
#[derive(Clone, Debug)]
pub struct Alone {
    /// Where the repository is, and the limits of the link to it.
    pub access: Access,
    /// Memory that it may take, in bytes.
    pub memory_bytes: u64,
    /// Most operations a second on each device, in place of the policy's.
    pub device_iops_max: Option<u32>,
    /// Open every frame again before it is sent.
    pub paranoid: bool,
}

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
    /// Points of the policy that its rules let expire.
    pub expired: Vec<BackupId>,
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

/// Backs a policy up. Everything that can be refused is refused before the lease is
/// taken; the lease is given back at the end, however it went, so that whoever comes next need not wait.
pub fn run_policy(
    setup: &Alone,
    repository: &Repository,
    name: &str,
    commit: &mut Commit<'_>,
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
        Settings::of_policy(&policy, setup.memory_bytes, host::cores()).map_err(Failure::usage)?;
    if setup.paranoid {
        settings.prove_every = 1;
    }
    let target = repository.target();
    let pools = pools(&settings.budget, settings.block_bytes_max)?;
    let iops = Iops::of_command(setup.device_iops_max, &policy);
    let urls: Vec<&str> =
        setup.access.url.iter().chain(&setup.access.lease_store).map(String::as_str).collect();
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
    let shown = Arc::clone(job);
    let client = Arc::clone(&target.client);
    let work = Work {
        limits: Arc::new(StoreLimits::of_command(
            Arc::clone(&target.throttle),
            setup.access.upload,
            setup.access.download,
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
    let is_own = |(backup, point): &(&BackupId, &Point)| {
        point.policy == name && view.state.leaving(**backup).is_none()
    };
    let before: Vec<BackupId> = view.state.points.iter().filter(is_own).map(|(backup, _)| *backup).collect();
    let ended = engine::run(work, view, name, job, &mut Teller::new(repository))?;
    repository.keep_view(&ended.view);
    let state = ended.view.state;
    let report = ended.result.map_err(|fault| ended_early(repository, &fault, &policy, &state))?;
    if let Some(warning) = retired_warning(state.retired.len()) {
        logger::say(format_args!("windlass: {warning}"));
    }
    let expired = before
        .into_iter()
        .filter(|&backup| !state.points.contains_key(&backup) || state.leaving(backup).is_some())
        .collect();
    let mut damaged = report.damaged;
    let mut is_told = !report.lost.is_empty();
    if is_told {
        // What was missing as a whole was known to be from its first row on.
        let knew = !report.resumed && report.lost.iter().all(|lost| lost.what.is_none());
        let found = Found { made: knew.then_some(report.backup), ..Found::of_segments(&report.lost) };
        damage::record(commit, repository, &repository.view()?.state, found, job);
    }
    if let Some(sweeping) = sweeping {
        damage::end_sweep(commit, repository, sweeping, job);
        is_told = true;
    }
    // Read again only by a backup that may have been told of damage: any other one saves the requests.
    if is_told {
        damaged = repository.view()?.state.damage.points.contains(&report.backup);
    }
    let compared = after_backup(setup, &policy, job)?;
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
        expired,
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

/// After a backup: compares a sample of each volume that has a raw reader. A volume that cannot be compared here is named.
fn after_backup(setup: &Alone, policy: &Policy, job: &Progress) -> Result<Vec<Compared>, Failure> {
    let mut all = Vec::new();
    for volume in &policy.volumes {
        let iops = Iops::of_command(setup.device_iops_max, policy);
        all.extend(sample(policy, Path::new(&volume.device), iops, volume.reader, job.stop_flag())?);
    }
    Ok(all)
}

/// What to do before merges have to stop, when half of what they may leave is there.
pub fn retired_warning(retired: usize) -> Option<String> {
    (retired >= RETIRED_WARN_MIN).then(|| {
        format!(
            "the log keeps {} retired names; from {} on (RETIRED_BY_MERGES_MAX) the tables are not merged any more, and reads \
             slow down and fail. A backup without an agent makes room when no other backup is unfinished and no restore runs \
             (`windlass repo info` shows both numbers)",
            Grouped(retired as u64),
            Grouped(RETIRED_BY_MERGES_MAX as u64)
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_merges_leave_are_warned_of_long_before_merges_stop() {
        assert_eq!(retired_warning(RETIRED_BY_MERGES_MAX / 2 - 1), None);
        let warning = retired_warning(RETIRED_BY_MERGES_MAX / 2).unwrap();
        assert!(warning.contains("16,384") && warning.contains("32,768"), "{warning}");
    }
}
