//! A whole backup: begin or go on, volume after volume, end. What a command, a schedule or the coordinator calls.
//!
//! ```text
//!  log state --> goes on where a killed backup stopped, when every volume is provably as it was; else begins anew
//!  each volume:  machine + loop (`volume`), rows of the last point read beside it
//!  end:          one record makes it a recovery point
//! ```
//!
//! Source: ours; commit-log C1, C5; architecture section 4.

use std::fmt;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

use windlass_hal::block::BlockDevice;
use windlass_hal::buf::Pool;
use windlass_hal::clock::Clock;
use windlass_hal::volume::{Timestamp, Volume};

use crate::drive::budget::Budget;
use crate::drive::commits::Commits;
use crate::drive::lanes::Lanes;
use crate::drive::volume::{self, DriveFault, Parts, Reactor};
use crate::format::record::{
    BackupEnd, BackupStart, BackupVolume, Commit, PointStatus, Record, Totals as PointTotals,
};
use crate::format::seal::Keys;
use crate::format::slot::Sealer;
use crate::id::{BackupId, Boot, Epoch, NodeId, VolumeId};
use crate::log::fault::LogFault;
use crate::log::session::Session;
use crate::log::state::{Point, Running, State};
use crate::pack::known::Known;
use crate::pack::lane::Shared;
use crate::pack::object::{PIECE_BYTES, Placer};
use crate::pack::{frame_buf_bytes, frame_bytes};
use crate::store::uplink::Uplink;
use crate::worker::backup::{Backup, Base, ItemTrouble, Task, Totals};
use crate::worker::batch::Shape;

/// Change times this close to a volume's last write do not tell a change before it from one after: whole seconds on small
/// inodes, a timer tick otherwise.
const UNSURE_SECS: i64 = 2;

/// A volume to back up, opened.
pub struct VolumeJob {
    /// Its number in the policy.
    pub id: VolumeId,
    /// Where it is.
    pub device: Box<dyn BlockDevice>,
    /// What is on it.
    pub volume: Box<dyn Volume>,
}

/// How to back up.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Policy's name.
    pub policy: String,
    /// Block size in bytes.
    pub block_bytes: u32,
    /// Blocks per location row.
    pub row_blocks: u32,
    /// zstd level; `None` stores plain.
    pub level: Option<i32>,
    /// How long blocks may wait in an object that does not fill, in nanoseconds.
    pub flush_interval_ns: u64,
    /// Wall clock at the start, for people.
    pub wall_start_ns: i64,
}

/// What all backups of a process run on, made at boot from the budget.
pub struct Machinery<'a> {
    /// Frame buffers, registered with the devices.
    pub frames: Pool,
    /// Pieces of objects.
    pub pieces: Pool,
    /// Sizes.
    pub budget: Budget,
    /// Threads that talk to the store; their wake-up reaches `reactor`.
    pub uplink: &'a Uplink,
    /// Wakes the reactor.
    pub wake: Arc<dyn Fn() + Send + Sync>,
    /// Time and waiting.
    pub reactor: &'a mut dyn Reactor,
    /// Set by a signal.
    pub stop: &'a AtomicBool,
}

impl Machinery<'_> {
    /// Buffers for a budget: (frames, pieces).
    pub fn pools(budget: &Budget, block_bytes: u32) -> (Pool, Pool) {
        (Pool::new(budget.frames, frame_buf_bytes(block_bytes)), Pool::new(budget.pieces, PIECE_BYTES))
    }
}

/// What a backup did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Its number.
    pub backup: BackupId,
    /// Whether it went on where an earlier run had stopped.
    pub resumed: bool,
    /// Sums over all volumes, of this run.
    pub totals: Totals,
    /// Items with something missing, by volume.
    pub troubles: Vec<ItemTrouble>,
}

/// Why a backup ended early.
#[derive(Debug)]
pub enum Fault<F> {
    /// On a volume.
    Volume(VolumeId, DriveFault<F>),
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

/// The session, unless the thread that had it died, and what became of the backup.
pub type Ended<'env, S, F> = (Option<Session<'env, S>>, Result<Report, Fault<F>>);

/// Runs a backup over `session`, and gives the session back. `base` opens the rows of the last point of a volume; `watch` is
/// called often, with the sums so far.
#[allow(clippy::too_many_arguments, reason = "one call; each part is named where it is made")]
pub fn run<'env, S, B, C>(
    session: Session<'env, S>,
    clock: &'env C,
    keys: &Keys,
    settings: &Settings,
    volumes: &mut [VolumeJob],
    machinery: &mut Machinery<'_>,
    base: &mut dyn FnMut(VolumeId, Option<BackupId>, &State) -> B,
    watch: &mut dyn FnMut(&Totals),
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
        let begin = Begin::decide(&state, settings, volumes, next);
        let (mut commits, handle) = Commits::start(scope, session, clock, begin.backup, wake);
        let result =
            backup(&mut commits, keys, writer, settings, volumes, machinery, &state, &begin, base, watch);
        commits.finish();
        let session = handle.join().ok().map(|(session, _)| session);
        (session, result)
    })
}

/// How a backup starts.
struct Begin {
    backup: BackupId,
    records: Vec<Record>,
    resume: Option<Running>,
}

impl Begin {
    /// Goes on with the policy's running backup when all volumes are provably as it saw them; else gives it up.
    fn decide(state: &State, settings: &Settings, volumes: &[VolumeJob], next: BackupId) -> Begin {
        let found: Vec<BackupVolume> = volumes
            .iter()
            .map(|v| BackupVolume {
                volume: v.id,
                fs_uuid: v.volume.info().uuid,
                state: v.volume.info().state,
            })
            .collect();
        let mut records = Vec::new();
        if let Some((backup, running)) = state.running_of(&settings.policy) {
            if running.volumes == found && found.iter().all(|v| v.state.is_some()) {
                return Begin { backup, records, resume: Some(running.clone()) };
            }
            let of =
                |s: &&crate::table::segment::SegmentMeta| s.backup_min == backup && s.backup_max == backup;
            let removed =
                state.segments.values().flat_map(|list| list.iter()).filter(of).map(|s| s.id).collect();
            records.push(Record::Commit(Commit { removed, ..Commit::default() }));
            records.push(Record::BackupAbandoned { backup });
        }
        records.push(Record::BackupBegun(BackupStart {
            backup: next,
            policy: settings.policy.clone(),
            volumes: found,
            wall_start_ns: settings.wall_start_ns,
        }));
        Begin { backup: next, records, resume: None }
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
    base: &mut dyn FnMut(VolumeId, Option<BackupId>, &State) -> B,
    watch: &mut dyn FnMut(&Totals),
) -> Result<Report, Fault<B::Fault>> {
    if !begin.records.is_empty() {
        commits.commit(begin.records.clone()).map_err(Fault::Log)?;
    }
    let shared = Arc::new(Shared {
        keys: keys.clone(),
        placer: Mutex::new(Placer::new(machinery.pieces.clone(), machinery.budget.object_bytes, writer)),
        known: Known::new(machinery.budget.known_blocks),
        level: settings.level,
    });
    let lanes = Lanes::start(
        machinery.budget.lanes,
        &shared,
        frame_bytes(settings.block_bytes),
        Arc::clone(&machinery.wake),
    )
    .map_err(Fault::Boot)?;
    let last_point = state.last_point(&settings.policy);
    let mut report = Report { backup: begin.backup, resumed: begin.resume.is_some(), ..Report::default() };
    for job in volumes {
        commits.set_volume(job.id);
        let resume = begin
            .resume
            .iter()
            .flat_map(|running| &running.progress)
            .find(|p| p.volume == job.id)
            .map_or((0, 0), |p| (p.inode, p.block));
        if resume.0 == u64::MAX {
            continue;
        }
        let had = last_point.filter(|p| p.volumes.iter().any(|v| v.volume == job.id));
        let rows = base(job.id, had.map(|p| p.backup), state);
        let task = Task {
            volume: job.id,
            backup: begin.backup,
            shape: Shape {
                block_bytes: settings.block_bytes,
                row_blocks: settings.row_blocks,
                frame_bytes: frame_bytes(settings.block_bytes),
            },
            logical_block_bytes: job.device.geometry().logical_block_bytes,
            volume_block_bytes: job.volume.info().block_bytes,
            read_depth: job.device.queue_depth().min(machinery.budget.frames),
            unwritten: had.is_some_and(|p| is_unwritten(p, job)),
            unsure_from: Timestamp {
                secs: job.volume.info().written_secs.saturating_sub(UNSURE_SECS),
                nanos: 0,
            },
            resume,
            flush_interval_ns: settings.flush_interval_ns,
        };
        let now = machinery.reactor.now_ns();
        let segment_bytes = machinery.budget.segment_bytes;
        let machine =
            Backup::new(task, Arc::clone(&shared), machinery.frames.clone(), rows, segment_bytes, now);
        let Some(mut machine) = machine else {
            return Err(Fault::Boot(std::io::ErrorKind::OutOfMemory.into()));
        };
        let before = report.totals.clone();
        let mut parts = Parts {
            device: &mut *job.device,
            volume: &mut *job.volume,
            lanes: &lanes,
            uplink: machinery.uplink,
            log: commits,
            reactor: machinery.reactor,
            stop: machinery.stop,
        };
        let done =
            volume::run(&mut machine, &mut parts, &mut |machine| watch(&before.plus(machine.totals())));
        report.totals = before.plus(machine.totals());
        report.troubles.extend_from_slice(machine.troubles());
        done.map_err(|fault| Fault::Volume(job.id, fault))?;
    }
    let end = end_record(&report, machinery.reactor.wall_ns());
    commits.commit(vec![end]).map_err(Fault::Log)?;
    Ok(report)
}

/// Whether nothing was written to a volume since a point, by the volume's own account.
fn is_unwritten(point: &Point, job: &VolumeJob) -> bool {
    let info = job.volume.info();
    let known = point.volumes.iter().find(|v| v.volume == job.id);
    info.state.is_some() && known.is_some_and(|v| v.fs_uuid == info.uuid && v.state == info.state)
}

fn end_record(report: &Report, wall_end_ns: i64) -> Record {
    let totals = &report.totals;
    let status = if totals.fault_count == 0 { PointStatus::Complete } else { PointStatus::WithErrors };
    Record::BackupEnded(BackupEnd {
        backup: report.backup,
        totals: PointTotals {
            items: totals.items,
            items_changed: totals.items - totals.items_same,
            items_deleted: totals.items_deleted,
            bytes_logical: totals.item_bytes,
            bytes_read: totals.read_bytes,
            bytes_reused: totals.block_bytes.saturating_sub(totals.stored_plain_bytes),
            bytes_stored: totals.stored_bytes,
            objects: totals.objects,
            segments: totals.segments,
            faults: totals.fault_count,
        },
        status,
        wall_end_ns,
    })
}
