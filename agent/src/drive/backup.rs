//! A whole backup: begin or go on, volume after volume, end. What a command, a schedule or the coordinator calls.
//!
//! ```text
//!  log state --> goes on with what a killed backup has not done, when every volume is provably as it was; else begins anew, and
//!                what the killed one has stored is compared with what is read, and not stored again
//!  each volume:  each stretch that is not done: a `job`, rows of the last point read beside it
//!  end:          one record makes it a recovery point
//! ```
//!
//! Source: ours; `agent/doc/commit-log.md`, C1 and C5; `agent/doc/architecture.md`, Data path.

use std::fmt;
use std::sync::Arc;

use windlass_hal::clock::Clock;

use crate::coordinator::bounds::refusal;
use crate::drive::commits::Commits;
use crate::drive::job::{self, Assigned, Packing};
use crate::drive::volume::DriveFault;
use crate::format::record::{BackupEnd, BackupStart, BackupVolume, Commit, Record, Totals as PointTotals};
use crate::format::seal::Keys;
use crate::format::slot::Sealer;
use crate::id::{BackupId, Boot, Epoch, KEY_END, KEY_START, NodeId, VolumeId};
use crate::log::fault::LogFault;
use crate::log::session::Session;
use crate::log::state::{Refusal, Running, State};
use crate::pack::proof::Proven;
use crate::table::lost::LostRows;
use crate::worker::backup::{Base, ItemTrouble, Totals};
use crate::worker::base::Earlier;

pub use crate::drive::job::{Machinery, VolumeJob};

/// How to back up.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Policy's name.
    pub policy: String,
    /// Blocks, rows and commits.
    pub job: job::Settings,
    /// Wall clock at the start, for people.
    pub wall_start_ns: i64,
    /// How many include patterns match nothing on any volume: the point lacks what they stand for.
    pub includes_unmatched: u64,
    /// Volumes of the policy that could not be opened, ascending.
    pub missing: Vec<VolumeId>,
    /// A backup that this process began and had the volumes open for ever since: it goes on, whether or not their state proves anything.
    pub own: Option<BackupId>,
}

/// What a backup did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Its number.
    pub backup: BackupId,
    /// Whether it went on where an earlier run had stopped.
    pub resumed: bool,
    /// Bytes that earlier runs had stored and that need not be stored again.
    pub kept_bytes: u64,
    /// Sums over all volumes, of this run.
    pub totals: Totals,
    /// Items with something missing, by volume.
    pub troubles: Vec<ItemTrouble>,
    /// Segments of which rows of the last point could not be read: what they told of was read and stored again.
    pub lost: Vec<LostRows>,
    /// Frames that were opened again before they were sent.
    pub proven: Proven,
}

/// Why a backup ended early.
#[derive(Debug)]
pub enum Fault<F> {
    /// On a volume.
    Volume(VolumeId, job::Fault<F>),
    /// The commit log.
    Log(LogFault),
    /// No threads or no memory.
    Boot(std::io::Error),
    /// No backup or no policy of that name.
    NoPolicy(String),
}

impl<F: fmt::Display> fmt::Display for Fault<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Volume(volume, fault) => write!(f, "volume {volume}: {fault}"),
            Fault::Log(fault) => fault.fmt(f),
            Fault::Boot(error) => write!(f, "cannot start: {error}"),
            Fault::NoPolicy(name) => {
                write!(f, "there is no policy {name}; make one with `windlass policy set {name}`")
            }
        }
    }
}

impl<F> Fault<F> {
    /// Why the log cannot be written any more, when that is what ended the backup.
    pub fn log(&self) -> Option<&LogFault> {
        match self {
            Fault::Log(fault) | Fault::Volume(_, job::Fault::Drive(DriveFault::Log(fault))) => Some(fault),
            Fault::Volume(..) | Fault::Boot(_) | Fault::NoPolicy(_) => None,
        }
    }

    /// Whether somebody asked for the end.
    pub fn is_stop(&self) -> bool {
        matches!(self, Fault::Volume(_, job::Fault::Drive(DriveFault::Stopped)))
    }
}

/// The session, unless its lease was lost or the thread that had it died, and what became of the backup.
pub type Ended<'env, S, F> = (Option<Session<'env, S>>, Result<Report, Fault<F>>);

/// Runs a backup over `session`, and gives the session back. `base` opens the rows of the last point of a volume; `watch` is
/// called often, with the backup's number and the sums so far; `before_end` is called when all is read, and says how many faults the
/// point has besides those of its items.
#[allow(clippy::too_many_arguments, reason = "one call; each part is named where it is made")]
pub fn run<'env, S, B, C>(
    session: Session<'env, S>,
    clock: &'env C,
    keys: &Keys,
    settings: &Settings,
    volumes: &mut [VolumeJob],
    machinery: &mut Machinery<'_>,
    base: &mut dyn FnMut(VolumeId, Earlier, &State) -> Option<B>,
    watch: &mut dyn FnMut(BackupId, &Totals),
    before_end: &mut dyn FnMut() -> u64,
) -> Ended<'env, S, B::Fault>
where
    S: Sealer + Clone + Send + 'env,
    B: Base,
    C: Clock,
{
    let state = session.view().state.clone();
    let writer = (session.epoch(), state.holder.node, state.holder.boot);
    std::thread::scope(|scope| {
        let wake = Arc::clone(&machinery.wake);
        let Some(next) = state.next_backup() else {
            return (Some(session), Err(Fault::Log(LogFault::NotReady)));
        };
        if state.running_of(&settings.policy).is_none()
            && let Some(bound) = refusal(&state)
        {
            let refused = LogFault::Refused { record: 0, why: Refusal::Full(bound) };
            return (Some(session), Err(Fault::Log(refused)));
        }
        let mut state = state;
        let begin = Begin::decide(&state, settings, volumes, next);
        for last in begin.gives_up() {
            let policy = state.running.get(&last).map(|running| running.policy.clone());
            state
                .running
                .retain(|&backup, running| Some(&running.policy) != policy.as_ref() || backup > last);
        }
        let (mut commits, handle) = Commits::start(scope, session, clock, begin.backup, wake);
        let result =
            backup(&mut commits, keys, writer, settings, volumes, machinery, &state, &begin, base, watch)
                .and_then(|report| end(&mut commits, report, before_end(), machinery.reactor.wall_ns()));
        commits.finish();
        let session =
            handle.join().ok().filter(|(_, ended)| ended.as_ref().err().is_none_or(LogFault::is_refusal));
        (session.map(|(session, _)| session), result)
    })
}

/// Makes the backup a point, in the same slot as the faults that it has besides those of its items: no point is without them.
fn end<F>(commits: &mut Commits, report: Report, faults: u64, wall_end_ns: i64) -> Result<Report, Fault<F>> {
    let mut records = Vec::from_iter(with_faults(report.backup, faults));
    records.push(Record::BackupEnded(BackupEnd { backup: report.backup, wall_end_ns }));
    commits.commit(records).map_err(Fault::Log)?;
    Ok(report)
}

/// What gives the point of a backup `count` faults that are not an item's; nothing when there are none.
pub fn with_faults(backup: BackupId, count: u64) -> Option<Record> {
    let totals = PointTotals { faults: count, ..PointTotals::default() };
    (count > 0).then(|| Record::Commit(Commit { backup, totals, ..Commit::default() }))
}

/// How a backup starts.
struct Begin {
    backup: BackupId,
    records: Vec<Record>,
    resume: Option<Running>,
}

impl Begin {
    /// Goes on with the policy's running backup when all volumes are provably as it saw them; else begins another, and keeps the rows of
    /// those before it as long as it can.
    fn decide(state: &State, settings: &Settings, volumes: &[VolumeJob], next: BackupId) -> Begin {
        let found: Vec<BackupVolume> = volumes.iter().map(VolumeJob::found).collect();
        let mut records = Vec::new();
        if let Some((backup, running)) = state.running_of(&settings.policy) {
            let is_proven = settings.own == Some(backup) || found.iter().all(|v| v.state.is_some());
            if running.volumes == found && running.missing == settings.missing && is_proven {
                return Begin { backup, records, resume: Some(running.clone()) };
            }
        }
        let given_up = state.to_give_up(&settings.policy, &|_| false).into_iter();
        records.extend(given_up.map(|backup| Record::BackupAbandoned { backup }));
        records.push(Record::BackupBegun(BackupStart {
            backup: next,
            policy: settings.policy.clone(),
            volumes: found,
            wall_start_ns: settings.wall_start_ns,
            missing: settings.missing.clone(),
        }));
        records.extend(with_faults(next, settings.includes_unmatched));
        Begin { backup: next, records, resume: None }
    }

    /// Unfinished backups that are given up at once, each with those of its policy before it.
    fn gives_up(&self) -> impl Iterator<Item = BackupId> {
        self.records.iter().filter_map(|record| match record {
            Record::BackupAbandoned { backup } => Some(*backup),
            _ => None,
        })
    }
}

#[allow(clippy::too_many_arguments, reason = "one call; each part is named where it is made")]
fn backup<B: Base>(
    commits: &mut Commits,
    keys: &Keys,
    writer: (Epoch, NodeId, Boot),
    settings: &Settings,
    volumes: &mut [VolumeJob],
    machinery: &mut Machinery<'_>,
    state: &State,
    begin: &Begin,
    base: &mut dyn FnMut(VolumeId, Earlier, &State) -> Option<B>,
    watch: &mut dyn FnMut(BackupId, &Totals),
) -> Result<Report, Fault<B::Fault>> {
    if !begin.records.is_empty() {
        commits.commit(begin.records.clone()).map_err(Fault::Log)?;
    }
    let mut packing = Packing::start(keys, writer, &settings.job, machinery).map_err(Fault::Boot)?;
    let stored = |(_, running): (BackupId, &Running)| running.totals.bytes_stored;
    let mut report = Report {
        backup: begin.backup,
        resumed: begin.resume.is_some(),
        kept_bytes: state.unfinished(&settings.policy).map(stored).sum(),
        ..Report::default()
    };
    for volume in volumes {
        commits.set_volume(volume.id);
        let last = state.last_point_of(&settings.policy, volume.id).map(|(_, last)| *last);
        let earlier = Earlier::of(state, &settings.policy, volume.id, begin.backup);
        let gaps = match &begin.resume {
            Some(running) => running.done.gaps(volume.id),
            None => vec![(KEY_START, KEY_END)],
        };
        for (from, to) in gaps {
            let rows = base(volume.id, earlier, state)
                .ok_or_else(|| Fault::Volume(volume.id, job::Fault::Memory))?;
            let assigned = Assigned { backup: begin.backup, from, to, last };
            let before = report.totals.clone();
            let done = job::run(
                volume,
                &assigned,
                &settings.job,
                &mut packing,
                machinery,
                rows,
                commits,
                &mut |totals| watch(begin.backup, &before.plus(totals)),
            )
            .map_err(|fault| Fault::Volume(volume.id, fault))?;
            report.totals = before.plus(&done.totals);
            report.troubles.extend(done.troubles);
            report.lost.extend(done.lost);
        }
    }
    report.proven = packing.proven();
    Ok(report)
}
