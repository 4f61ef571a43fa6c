//! One stretch of a volume, from device to store: what a worker is given.
//!
//! ```text
//!  volume, stretch, rows of the last point --+
//!  packing: keys, names, lanes --------------+--> machine + loop (`volume`) --> commits, one after the other, to a `CommitLog`
//!  machinery: pools, uplink, reactor --------+
//! ```
//!
//! A process runs one job after the other on one [`Machinery`]: its counter of names goes on, so that a name
//! is never given twice under one boot number, whatever the epoch. A [`Packing`] is of one backup and one
//! epoch: it remembers where blocks were stored, and a later job may refer to them because the jobs before it
//! were committed. Do not reuse a packing after a failed job: its remembered blocks may be uncommitted. A
//! caller that does not wait for a job's last commit, as a node with peers does, takes a new packing for
//! each job.
//!
//! Does not: choose stretches, or commit. Source: ours; `agent/doc/architecture.md`, Data path.

use std::fmt;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

use windlass_hal::block::BlockDevice;
use windlass_hal::buf::Pool;
use windlass_hal::clock::SystemClock;
use windlass_hal::volume::{Volume, VolumeInfo, VolumeKind};

use crate::drive::budget::Budget;
use crate::drive::lanes::Lanes;
use crate::drive::volume::{self, CommitLog, DriveFault, Parts, Reactor};
use crate::format::record::{BackupVolume, VolumeBasis};
use crate::format::seal::Keys;
use crate::id::{BackupId, Boot, Epoch, Key, NodeId, VolumeId};
use crate::pack::known::Known;
use crate::pack::lane::Shared;
use crate::pack::link::LinkRate;
use crate::pack::object::{NameCounter, PIECE_BYTES, Placer};
use crate::pack::proof::{Proofs, Proven};
use crate::pack::reading::Reading;
use crate::pack::{frame_buf_bytes, frame_bytes};
use crate::policy::Reader;
use crate::policy::select::Patterns;
use crate::store::uplink::Uplink;
use crate::table::lost::LostRows;
use crate::worker::backup::{Backup, Base, ItemTrouble, Task, Totals, Trust};
use crate::worker::batch::Shape;
use crate::worker::stretch;

/// Change times this close to the newest one on a volume do not tell a change before the volume was frozen from one after, in seconds: file
/// systems stamp whole seconds on small inodes, a timer tick otherwise.
const UNSURE_SECS: i64 = 2;

/// A volume to back up, opened.
pub struct VolumeJob {
    /// Its number in the policy.
    pub id: VolumeId,
    /// Where it is.
    pub device: Box<dyn BlockDevice>,
    /// What is on it.
    pub volume: Box<dyn Volume>,
    /// By which rules items of it are taken: see [`Settings::rules`].
    pub rules: [u8; 16],
}

impl VolumeJob {
    /// What the log says of the volume as it is now.
    pub fn found(&self) -> BackupVolume {
        let info = self.volume.info();
        let basis = VolumeBasis { identity: identity(info), size_bytes: info.size_bytes, rules: self.rules };
        BackupVolume {
            volume: self.id,
            fs_uuid: info.uuid,
            state: info.state,
            basis: Some(basis),
            newest_secs: None,
        }
    }

    /// How far what `last` says of the volume is believed now.
    fn trust(&self, last: Option<&BackupVolume>) -> Trust {
        let (info, found) = (self.volume.info(), self.found());
        let same_volume = last.is_some_and(|last| found.is_same_volume(last));
        let newest_secs = last.and_then(|last| last.newest_secs);
        Trust {
            same_volume,
            unwritten: same_volume
                && info.state.is_some()
                && last.is_some_and(|last| last.state == info.state),
            settled_before_secs: newest_secs.map_or(i64::MIN, |secs| secs.saturating_sub(UNSURE_SECS)),
            created: info.created,
        }
    }
}

/// What tells a file system from another one at the same place, but for its UUID and its size, which may grow.
fn identity(info: &VolumeInfo) -> [u8; 16] {
    digest(&[
        &info.created.secs.to_le_bytes(),
        &info.created.nanos.to_le_bytes(),
        &info.block_bytes.to_le_bytes(),
        &info.label,
    ])
}

/// The last part only may be of any length.
fn digest(parts: &[&[u8]]) -> [u8; 16] {
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        hasher.update(part);
    }
    let mut out = [0; 16];
    hasher.finalize_xof().fill(&mut out);
    out
}

/// How blocks are made and stored: the same for all of a backup.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Block size in bytes.
    pub block_bytes: u32,
    /// Blocks per location row.
    pub row_blocks: u32,
    /// zstd level; `None` stores plain.
    pub level: Option<i32>,
    /// How long blocks may wait in an object that does not fill, in nanoseconds.
    pub flush_interval_ns: u64,
    /// Objects, sent or on their way, after which a commit is due.
    pub commit_objects: usize,
    /// Shortest time between commits that are due because of them, in nanoseconds.
    pub commit_pause_ns: u64,
    /// Time after which a commit is due when there is anything to say, in nanoseconds.
    pub commit_interval_ns: u64,
    /// One frame of so many is opened again before it is sent; 1: all.
    pub prove_every: u32,
}

impl Settings {
    /// Digest of the rules by which items of a volume are taken and cut into rows: a backup that was interrupted goes on under the same ones
    /// only.
    pub fn rules(&self, patterns: &Patterns, reader: Reader, all_blocks: bool) -> [u8; 16] {
        let (blocks, rows) = (self.block_bytes.to_le_bytes(), self.row_blocks.to_le_bytes());
        let all_blocks = [u8::from(all_blocks)];
        digest(&[&patterns.identity(), &blocks, &rows, &all_blocks, reader.to_string().as_bytes()])
    }

    /// Sizes of blocks, rows and frames: what a volume is cut by ([`stretch::span`]).
    pub fn shape(&self) -> Shape {
        Shape {
            block_bytes: self.block_bytes,
            row_blocks: self.row_blocks,
            frame_bytes: frame_bytes(self.block_bytes),
        }
    }
}

/// What all backups of a process run on, made at boot from the budget.
pub struct Machinery<'a> {
    /// Frame buffers, registered with the devices.
    pub frames: Pool,
    /// Pieces of objects.
    pub pieces: Pool,
    /// Sizes.
    pub budget: Budget,
    /// Names given so far under this process's boot number.
    pub names: NameCounter,
    /// How fast the store takes objects of this process, as far as it is known.
    pub rate: LinkRate,
    /// Threads that talk to the store; their wake-up reaches `reactor`.
    pub uplink: &'a Uplink,
    /// Wakes the reactor.
    pub wake: Arc<dyn Fn() + Send + Sync>,
    /// Time and waiting.
    pub reactor: &'a mut dyn Reactor,
    /// Set by a signal, or by one that takes a job back.
    pub stop: &'a AtomicBool,
    /// Set by one that wants what is packed to be sent now.
    pub flush: &'a AtomicBool,
}

impl Machinery<'_> {
    /// Buffers for a budget: (frames, pieces). `None` when the system has no such memory.
    pub fn pools(budget: &Budget, block_bytes: u32) -> Option<(Pool, Pool)> {
        let frames = Pool::try_new(budget.frames, frame_buf_bytes(block_bytes))?;
        Some((frames, Pool::try_new(budget.pieces, PIECE_BYTES)?))
    }
}

/// Lanes, open objects, and blocks stored lately. See the module's text.
pub struct Packing {
    shared: Arc<Shared>,
    lanes: Lanes,
    failed: bool,
}

impl Packing {
    /// Starts the lanes. Objects are named after `writer`. Errors: no thread could be started.
    pub fn start(
        keys: &Keys,
        writer: (Epoch, NodeId, Boot),
        settings: &Settings,
        machinery: &Machinery<'_>,
    ) -> std::io::Result<Packing> {
        let budget = &machinery.budget;
        let placer =
            Placer::new(machinery.pieces.clone(), budget.object_bytes, writer, machinery.names.clone());
        let shared = Arc::new(Shared {
            keys: keys.clone(),
            placer: Mutex::new(placer),
            known: Known::new(budget.known_blocks),
            level: settings.level,
            proofs: Proofs::new(settings.prove_every, Arc::new(SystemClock)),
            rate: machinery.rate.clone(),
        });
        let frame_bytes = frame_bytes(settings.block_bytes);
        let lanes = Lanes::start(budget.lanes, &shared, frame_bytes, Arc::clone(&machinery.wake))?;
        Ok(Packing { shared, lanes, failed: false })
    }

    /// Frames that were opened again before they were sent.
    pub fn proven(&self) -> Proven {
        self.shared.proofs.so_far()
    }
}

/// Which stretch, and for which backup.
#[derive(Clone, Copy, Debug)]
pub struct Assigned {
    /// The backup that rows are written under.
    pub backup: BackupId,
    /// First key.
    pub from: Key,
    /// First key behind the stretch.
    pub to: Key,
    /// The volume as the last point of the policy found it; `None` when it is not in one.
    pub last: Option<BackupVolume>,
}

/// What a job did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Done {
    /// Sums.
    pub totals: Totals,
    /// Items with something missing, as many as are kept.
    pub troubles: Vec<ItemTrouble>,
    /// Segments of which rows of the last point could not be read.
    pub lost: Vec<LostRows>,
}

/// Why a job ended early.
#[derive(Debug)]
pub enum Fault<F> {
    /// The loop's.
    Drive(DriveFault<F>),
    /// The stretch is empty, or cut where this volume cannot be ([`stretch::is_sound`]).
    Stretch,
    /// No memory for compression contexts.
    Memory,
}

impl<F: fmt::Display> fmt::Display for Fault<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Drive(fault) => fault.fmt(f),
            Fault::Stretch => f.write_str("the stretch is empty, or cut within a row of its tables"),
            Fault::Memory => f.write_str("no memory for a compression context"),
        }
    }
}

/// Backs up one stretch of `job`'s volume: returns when `log` has answered its last commit. `base` has the rows of the last point; commits go
/// to `log`, which has none under way; `watch` is called often, with the sums so far.
///
/// # Panics
/// When `packing` was used in a job that ended with a fault.
#[allow(clippy::too_many_arguments, reason = "one call; each part is named where it is made")]
pub fn run<B: Base>(
    job: &mut VolumeJob,
    assigned: &Assigned,
    settings: &Settings,
    packing: &mut Packing,
    machinery: &mut Machinery<'_>,
    base: B,
    log: &mut dyn CommitLog,
    watch: &mut dyn FnMut(&Totals),
) -> Result<Done, Fault<B::Fault>> {
    assert!(!packing.failed, "a packing ends with its first fault");
    if !stretch::is_sound(assigned.from, assigned.to, &settings.shape()) {
        return Err(Fault::Stretch);
    }
    let wall_secs = machinery.reactor.wall_ns().div_euclid(1_000_000_000);
    let task = task(job, assigned, settings, machinery.budget.frames, wall_secs);
    let now = machinery.reactor.now_ns();
    let shared = Arc::clone(&packing.shared);
    let machine =
        Backup::new(task, shared, machinery.frames.clone(), base, machinery.budget.segment_bytes, now);
    let Some(mut machine) = machine else { return Err(Fault::Memory) };
    let mut parts = Parts {
        device: &mut *job.device,
        volume: &mut *job.volume,
        lanes: &packing.lanes,
        uplink: machinery.uplink,
        log,
        reactor: machinery.reactor,
        stop: machinery.stop,
        flush: machinery.flush,
    };
    let result = volume::run(&mut machine, &mut parts, &mut |machine| watch(machine.totals()));
    packing.failed = result.is_err();
    result.map_err(Fault::Drive)?;
    Ok(Done { totals: machine.totals().clone(), troubles: machine.troubles().to_vec(), lost: machine.lost() })
}

/// The last second that a change time may carry: what this node's clock says, and the volume's last write where it is exact. What is later was
/// written under a clock that was wrong; believing it would make everything before it look settled.
fn newest_secs_max(info: &VolumeInfo, wall_secs: i64) -> i64 {
    // XFS records no time of writing: that of its last log records may be long before the last change.
    let written = (info.kind != VolumeKind::Xfs && info.written_secs > 0).then_some(info.written_secs);
    written.map_or(wall_secs, |written| written.min(wall_secs))
}

fn task(job: &VolumeJob, assigned: &Assigned, settings: &Settings, frames: usize, wall_secs: i64) -> Task {
    let info = job.volume.info();
    let depth = job.device.queue_depth().min(frames);
    Task {
        volume: job.id,
        backup: assigned.backup,
        shape: settings.shape(),
        logical_block_bytes: job.device.geometry().logical_block_bytes,
        volume_block_bytes: info.block_bytes,
        reading: Reading::of(&job.device.geometry(), depth, info.used_bytes, info.size_bytes),
        trust: job.trust(assigned.last.as_ref()),
        newest_secs_max: newest_secs_max(info, wall_secs),
        wall_secs,
        from: assigned.from,
        to: assigned.to,
        flush_interval_ns: settings.flush_interval_ns,
        commit_objects: settings.commit_objects,
        commit_pause_ns: settings.commit_pause_ns,
        commit_interval_ns: settings.commit_interval_ns,
    }
}
