//! Records of the commit log: the contents of a slot's body.
//!
//! A record is `kind` u8, `length` u32, and `length` bytes of fields as [`cursor`](super::cursor) encodes them:
//!
//! | kind | record | fields in order |
//! |---|---|---|
//! | 1 | epoch begun | epoch u64 |
//! | 2 | yield | successor `Option<u32>` |
//! | 3 | policy changed | name text, revision u32, body bytes, list of (volume u32, device text) |
//! | 4 | policy removed, or renamed | name text, revision u32; then its new name text, when it is renamed |
//! | 5 | backup begun | backup u32, policy text, list of [`BackupVolume`], wall start i64; then list of missing volumes u32, unless there are none |
//! | 6 | commit | backup u32, list of (object 24, bytes u64), list of [`SegmentMeta`], list of removed segments, list of [`Stretch`], [`Totals`]; then newest change i64, unless it has none |
//! | 7 | backup ended | backup u32, wall end i64 |
//! | 8 | backup abandoned, stopped, or goes on | backup u32; then u8, unless it is abandoned: 1 stopped, 2 goes on |
//! | 9 | point expired | backup u32 |
//! | 10 | retire | list of objects |
//! | 11 | orphan floor | epoch u64 |
//! | 12 | pin | pin u64, node u32 |
//! | 13 | pin refreshed | pin u64, counter u64 |
//! | 14 | unpin | pin u64 |
//! | 15 | checkpoint | slot u64, nonce 16, digest 32 |
//! | 16 | damage | runs of missing names, of damaged ones, of present ones: list of (first 24, last count u32); list of points u32, of sound points u32 |
//! | 17 | swept | wall clock i64, key text |
//! | 18 | backup tried | policy text, wall clock i64, failures u32, why text |
//! | 20 | point marked | as [`mark`](super::mark) says |
//! | 21 | access: roles, what was refused, who asked | as [`access`](super::access) says |
//! | 22 | point guarded | as [`guard`](super::guard) says |
//! | 23 | garbage | as [`garbage`](super::garbage) says |
//! | 25 | removal: asked for, approved, withdrawn | as [`removal`](super::removal) says |
//! | 26 | features raised | list of features as in [`feature`](super::feature) |
//!
//! A [`BackupVolume`]:
//!
//! | size | field |
//! |---|---|
//! | 4 | volume |
//! | 16 | UUID |
//! | 1 | which of these follow: 1 the state, 2 the basis, 4 the newest change; records of older programs have the first at most |
//! | 16 | state |
//! | 16 + 8 + 16 | basis: identity, size in bytes u64, rules |
//! | 8 | newest change, in seconds i64 |
//!
//! Invariants: one encoding per record; unknown kinds, counts above their bounds and trailing bytes are refused.
//! Does not: judge records against a state (`log::state`), nor seal them (`format::slot`).
//! Source: `agent/doc/commit-log.md`.

use super::access::AccessNews;
use super::cursor::{Reader, Wire, WireFault, emit_bytes, emit_list};
use super::feature::{self, Features};
use super::garbage::GarbageNews;
use super::guard::PointGuard;
use super::mark::PointMark;
use super::removal::RemovalNews;
pub use super::totals::{PointStatus, Totals};
use crate::id::{BackupId, Epoch, Key, NodeId, ObjectId, Slot, VolumeId};
use crate::log::limits::{
    DEVICE_BYTES_MAX, POLICY_BODY_BYTES_MAX, POLICY_NAME_BYTES_MAX, POLICY_VOLUMES_MAX, RECORD_OBJECTS_MAX,
    RECORD_POINTS_MAX, RECORD_RUNS_MAX, RECORD_SEGMENTS_MAX, RECORD_STRETCHES_MAX, SLOT_RECORDS_MAX,
    SWEEP_KEY_BYTES_MAX, TRIED_WHY_BYTES_MAX,
};
use crate::log::names::NameSet;
use crate::table::segment::SEGMENT_META_BYTES;
pub use crate::table::segment::SegmentMeta;
use crate::wire_struct;

/// Kind of a removal's record, which holds others.
pub(super) const REMOVAL_KIND: u8 = 25;

/// One record.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Record {
    /// A new holder: the first record of its first slot.
    EpochBegun {
        /// The new epoch: that of the slot.
        epoch: Epoch,
    },
    /// The holder gives up the lease; it has ended already.
    Yield {
        /// The node that may claim the next epoch without waiting; any node when `None`.
        successor: Option<NodeId>,
    },
    /// A policy made or changed.
    PolicyChanged(PolicyChange),
    /// A policy removed; its points stay.
    PolicyRemoved {
        /// Name of the policy.
        name: String,
        /// The policy's last revision plus 1.
        revision: u32,
    },
    /// A policy has another name from now on, and so have its points; a change of its body follows.
    PolicyRenamed {
        /// Name of the policy until now.
        from: String,
        /// Its name from now on, which no policy has or had.
        to: String,
        /// The policy's last revision plus 1.
        revision: u32,
    },
    /// A backup starts.
    BackupBegun(BackupStart),
    /// Objects and segments become part of the tables.
    Commit(Commit),
    /// A backup is a recovery point now.
    BackupEnded(BackupEnd),
    /// A backup will not be finished: its segments leave the tables and are retired by this record.
    BackupAbandoned {
        /// Number of the backup.
        backup: BackupId,
    },
    /// A backup was stopped, and no node goes on with it before it is asked for; or it goes on.
    BackupStopped {
        /// Number of the backup.
        backup: BackupId,
        /// Whether it goes on.
        goes_on: bool,
    },
    /// A recovery point is gone.
    PointExpired {
        /// The backup that made it.
        backup: BackupId,
    },
    /// Objects that no point needs: they may be deleted when no pin is older (G1).
    Retire {
        /// Names of the objects.
        objects: Vec<ObjectId>,
    },
    /// From here on no commit names an object of this epoch or an older one that is not in the tables (G2).
    OrphanFloor {
        /// The highest epoch that the floor covers.
        epoch: Epoch,
    },
    /// A reader needs the tables as of this slot.
    Pin {
        /// Random number of the pin.
        pin: u64,
        /// Node that asked for it.
        node: NodeId,
    },
    /// The reader is alive.
    PinRefreshed {
        /// Number of the pin.
        pin: u64,
        /// Greater than before.
        counter: u64,
    },
    /// The reader is done, or given up.
    Unpin {
        /// Number of the pin.
        pin: u64,
    },
    /// The state as of an earlier slot is in the store.
    Checkpoint(CheckpointName),
    /// Names that were found missing or damaged in the store, or present again.
    Damage(DamageNews),
    /// Live names were compared with what the store lists, up to a key.
    Swept(Swept),
    /// A backup was tried and did not begin, or did not go on; or its schedule counts from another time.
    BackupTried(Tried),
    /// How long a lease lasts, from the next one on.
    LeaseSet {
        /// Nanoseconds.
        lease_ns: u64,
    },
    /// A point is held, noted or tagged, or no more.
    PointMarked(PointMark),
    /// Roles of a subject, what it was refused, or that it asked for what follows in the slot.
    Access(AccessNews),
    /// A point is guarded, leaves, or is brought back.
    PointGuarded(PointGuard),
    /// Of objects that nothing needs.
    Garbage(GarbageNews),
    /// What a second subject approves.
    Removal(RemovalNews),
    /// What follows needs these features.
    FeaturesRaised(Features),
}

/// What became of the last try to back up a policy, when that is neither a point nor a backup that is under way.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Tried {
    /// Its policy's name.
    pub policy: String,
    /// Wall clock, nanoseconds since 1970 UTC: the schedule goes on from here.
    pub wall_ns: i64,
    /// Failures in a row; 0: nothing failed, and it is due at its next time.
    pub failures: u32,
    /// The reason, as text for people; at most [`TRIED_WHY_BYTES_MAX`] bytes.
    pub why: String,
}

impl Tried {
    /// The same with as much of `why` as fits.
    pub fn new(policy: &str, wall_ns: i64, failures: u32, why: &str) -> Tried {
        let fits = why.floor_char_boundary(TRIED_WHY_BYTES_MAX);
        let why = why.get(..fits).unwrap_or_default().to_owned();
        Tried { policy: policy.to_owned(), wall_ns, failures, why }
    }

    pub(crate) fn emit(&self, out: &mut Vec<u8>) {
        emit_bytes(out, self.policy.as_bytes());
        self.wall_ns.emit(out);
        self.failures.emit(out);
        emit_bytes(out, self.why.as_bytes());
    }

    pub(crate) fn parse(fields: &mut Reader<'_>) -> Result<Tried, WireFault> {
        Ok(Tried {
            policy: parse_policy_name(fields)?,
            wall_ns: fields.value()?,
            failures: fields.value()?,
            why: fields.text(TRIED_WHY_BYTES_MAX)?,
        })
    }
}

/// Objects and segments that were found missing, damaged or present again, and the points that need them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct DamageNews {
    /// Names that the store does not have.
    pub missing: NameSet,
    /// Names whose bytes are not what was written.
    pub damaged: NameSet,
    /// Names that were missing and are there.
    pub present: NameSet,
    /// Points that need one that is missing or damaged.
    pub points: Vec<BackupId>,
    /// Points that need none.
    pub points_sound: Vec<BackupId>,
}

impl DamageNews {
    /// Whether it has no names and no points.
    pub fn is_empty(&self) -> bool {
        *self == DamageNews::default()
    }

    /// The same as records of bounded size, each for a slot of its own.
    pub fn into_records(mut self) -> Vec<Record> {
        fn take<T>(list: &mut Vec<T>) -> Vec<T> {
            list.drain(..list.len().min(RECORD_POINTS_MAX)).collect()
        }
        let mut records = Vec::new();
        while !self.is_empty() {
            records.push(Record::Damage(DamageNews {
                missing: self.missing.take_runs(RECORD_RUNS_MAX),
                damaged: self.damaged.take_runs(RECORD_RUNS_MAX),
                present: self.present.take_runs(RECORD_RUNS_MAX),
                points: take(&mut self.points),
                points_sound: take(&mut self.points_sound),
            }));
        }
        records
    }
}

/// How far a presence sweep has come.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Swept {
    /// Wall clock, nanoseconds since 1970 UTC.
    pub wall_ns: i64,
    /// Key behind which it goes on; empty when it has come to the end.
    pub after: String,
}

/// A policy made or changed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PolicyChange {
    /// Its name, 1..=64 bytes.
    pub name: String,
    /// 1 for a new policy, then one more each time.
    pub revision: u32,
    /// The policy, encoded by `policy`: JSON, at most 16 KiB.
    pub body: Vec<u8>,
    /// Its volumes: (number, device).
    pub volumes: Vec<(VolumeId, String)>,
}

/// A backup starts.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct BackupStart {
    /// Its number: the next one.
    pub backup: BackupId,
    /// Its policy's name.
    pub policy: String,
    /// What it reads.
    pub volumes: Vec<BackupVolume>,
    /// Wall clock, nanoseconds since 1970 UTC, for people only.
    pub wall_start_ns: i64,
    /// Volumes of the policy that could not be opened, ascending: the point will be without them, and lists
    /// them.
    pub missing: Vec<VolumeId>,
}

/// A volume as a backup found it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BackupVolume {
    /// Number of the volume.
    pub volume: VolumeId,
    /// UUID of its file system, zero for an image.
    pub fs_uuid: [u8; 16],
    /// What a later backup compares with: unchanged means that nothing was written in between.
    pub state: Option<[u8; 16]>,
    /// What decides which volume this is and what of it is taken; `None` in the records of older programs.
    pub basis: Option<VolumeBasis>,
    /// The newest change time met on the volume, in seconds: only points have it. Whatever was changed a while before that was changed before
    /// the volume was frozen, and a later change has a later time.
    pub newest_secs: Option<i64>,
}

/// What decides which volume this is and what of it is taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VolumeBasis {
    /// Digest of what distinguishes a file system from another one on the same device: UUID, label, time of
    /// creation, block size.
    pub identity: [u8; 16],
    /// Its size in bytes: one that grew is the same one.
    pub size_bytes: u64,
    /// Digest of the rules by which items of it are taken and cut: selection, reader, sizes of blocks and rows.
    pub rules: [u8; 16],
}
wire_struct!(VolumeBasis { identity: [u8; 16], size_bytes: u64, rules: [u8; 16] });

impl BackupVolume {
    /// Whether this is the volume that `before` was; false if one of them has no basis.
    pub fn is_same_volume(&self, before: &BackupVolume) -> bool {
        let (Some(now), Some(then)) = (&self.basis, &before.basis) else { return false };
        (self.fs_uuid, now.identity) == (before.fs_uuid, then.identity) && now.size_bytes >= then.size_bytes
    }
}

/// Bits of the byte that lists which fields of a volume follow.
mod volume_part {
    pub const STATE: u8 = 1;
    pub const BASIS: u8 = 2;
    pub const NEWEST: u8 = 4;
    pub const ALL: u8 = STATE | BASIS | NEWEST;
}

impl Wire for BackupVolume {
    const BYTES_MIN: usize = 21;

    fn emit(&self, out: &mut Vec<u8>) {
        let parts = [
            (self.state.is_some(), volume_part::STATE),
            (self.basis.is_some(), volume_part::BASIS),
            (self.newest_secs.is_some(), volume_part::NEWEST),
        ];
        self.volume.emit(out);
        self.fs_uuid.emit(out);
        out.push(parts.iter().filter(|(has, _)| *has).map(|(_, part)| part).sum());
        self.state.iter().for_each(|state| state.emit(out));
        self.basis.iter().for_each(|basis| basis.emit(out));
        self.newest_secs.iter().for_each(|secs| secs.emit(out));
    }

    fn parse(reader: &mut Reader<'_>) -> Result<Self, WireFault> {
        let (volume, fs_uuid, parts) = (reader.value()?, reader.value()?, reader.value::<u8>()?);
        if parts & !volume_part::ALL != 0 {
            return Err(WireFault::Value);
        }
        let has = |part| parts & part != 0;
        let state = if has(volume_part::STATE) { Some(reader.value()?) } else { None };
        let basis = if has(volume_part::BASIS) { Some(reader.value()?) } else { None };
        let newest_secs = if has(volume_part::NEWEST) { Some(reader.value()?) } else { None };
        Ok(BackupVolume { volume, fs_uuid, state, basis, newest_secs })
    }
}

/// Objects and segments become part of the tables.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Commit {
    /// The running backup, or 0 for maintenance (a merge of segments).
    pub backup: BackupId,
    /// New upload objects: (name, bytes).
    pub objects: Vec<(ObjectId, u64)>,
    /// New segments.
    pub segments: Vec<SegmentMeta>,
    /// Segments that the new ones replace: retired by this record.
    pub removed: Vec<ObjectId>,
    /// Stretches whose rows are all in committed segments with this record.
    pub progress: Vec<Stretch>,
    /// What was done since the commit before; the sums of all of them become the point's.
    pub totals: Totals,
    /// The newest change time met on the volumes of `progress`, in seconds; the newest of all commits becomes the point's.
    pub newest_secs: Option<i64>,
}

impl Wire for [u32; 4] {
    const BYTES_MIN: usize = 16;
    fn emit(&self, out: &mut Vec<u8>) {
        self.iter().for_each(|value| value.emit(out));
    }
    fn parse(reader: &mut Reader<'_>) -> Result<Self, WireFault> {
        Ok([reader.value()?, reader.value()?, reader.value()?, reader.value()?])
    }
}

impl Wire for SegmentMeta {
    const BYTES_MIN: usize = SEGMENT_META_BYTES;
    fn emit(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&SegmentMeta::emit(self));
    }
    fn parse(reader: &mut Reader<'_>) -> Result<Self, WireFault> {
        let bytes: [u8; SEGMENT_META_BYTES] = reader.value()?;
        SegmentMeta::parse(&bytes).map_err(|_| WireFault::Value)
    }
}

/// A stretch of a volume: what lies in `from..to`, of which there is something (`from < to`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stretch {
    /// Number of the volume.
    pub volume: VolumeId,
    /// First key in it.
    pub from: Key,
    /// First key behind it.
    pub to: Key,
}
wire_struct!(Stretch { volume: VolumeId, from: Key, to: Key });

/// A backup becomes a recovery point: every volume is done from end to end. Totals and faults are in its
/// commits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BackupEnd {
    /// Number of the backup.
    pub backup: BackupId,
    /// Wall clock, nanoseconds since 1970 UTC, for people only.
    pub wall_end_ns: i64,
}
wire_struct!(BackupEnd { backup: BackupId, wall_end_ns: i64 });

/// A checkpoint in the store: `ckpt/<slot>-<nonce>`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CheckpointName {
    /// The state is as of this slot.
    pub slot: Slot,
    /// Tells apart checkpoints of one slot.
    pub nonce: [u8; 16],
    /// BLAKE3 of the object's bytes.
    pub digest: [u8; 32],
}
wire_struct!(CheckpointName { slot: Slot, nonce: [u8; 16], digest: [u8; 32] });

/// Bytes before a record's fields: kind, length.
const RECORD_HEADER_BYTES: usize = 5;

/// A list that stands at the end of the fields, or nothing when it is empty.
fn optional_list<T: Wire>(fields: &mut Reader<'_>, max: usize) -> Result<Vec<T>, WireFault> {
    if fields.is_empty() {
        return Ok(Vec::new());
    }
    let list: Vec<T> = fields.list(max)?;
    if list.is_empty() { Err(WireFault::Count(0)) } else { Ok(list) }
}

impl Record {
    /// Number of the record's kind.
    pub fn kind(&self) -> u8 {
        match self {
            Record::EpochBegun { .. } => 1,
            Record::Yield { .. } => 2,
            Record::PolicyChanged(_) => 3,
            Record::PolicyRemoved { .. } | Record::PolicyRenamed { .. } => 4,
            Record::BackupBegun(_) => 5,
            Record::Commit(_) => 6,
            Record::BackupEnded(_) => 7,
            Record::BackupAbandoned { .. } | Record::BackupStopped { .. } => 8,
            Record::PointExpired { .. } => 9,
            Record::Retire { .. } => 10,
            Record::OrphanFloor { .. } => 11,
            Record::Pin { .. } => 12,
            Record::PinRefreshed { .. } => 13,
            Record::Unpin { .. } => 14,
            Record::Checkpoint(_) => 15,
            Record::Damage(_) => 16,
            Record::Swept(_) => 17,
            Record::BackupTried(_) => 18,
            Record::LeaseSet { .. } => 19,
            Record::PointMarked(_) => 20,
            Record::Access(_) => 21,
            Record::PointGuarded(_) => 22,
            Record::Garbage(_) => 23,
            Record::Removal(_) => REMOVAL_KIND,
            Record::FeaturesRaised(_) => 26,
        }
    }

    /// Appends kind, length and fields.
    pub fn emit(&self, out: &mut Vec<u8>) {
        out.push(self.kind());
        let length_at = out.len();
        0u32.emit(out);
        self.emit_fields(out);
        let length = u32::try_from(out.len() - length_at - 4).unwrap_or(u32::MAX);
        out[length_at..length_at + 4].copy_from_slice(&length.to_le_bytes());
    }

    /// Bytes that [`Record::emit`] appends. Allocates.
    pub fn encoded_len(&self) -> usize {
        let mut out = Vec::new();
        self.emit(&mut out);
        out.len()
    }

    fn emit_fields(&self, out: &mut Vec<u8>) {
        match self {
            Record::EpochBegun { epoch } | Record::OrphanFloor { epoch } => epoch.emit(out),
            Record::Yield { successor } => successor.emit(out),
            Record::PolicyChanged(change) => {
                emit_bytes(out, change.name.as_bytes());
                change.revision.emit(out);
                emit_bytes(out, &change.body);
                u32::try_from(change.volumes.len()).unwrap_or(u32::MAX).emit(out);
                for (volume, device) in &change.volumes {
                    volume.emit(out);
                    emit_bytes(out, device.as_bytes());
                }
            }
            Record::PolicyRemoved { name, revision } => {
                emit_bytes(out, name.as_bytes());
                revision.emit(out);
            }
            Record::PolicyRenamed { from, to, revision } => {
                emit_bytes(out, from.as_bytes());
                revision.emit(out);
                emit_bytes(out, to.as_bytes());
            }
            Record::BackupBegun(start) => {
                start.backup.emit(out);
                emit_bytes(out, start.policy.as_bytes());
                emit_list(out, &start.volumes);
                start.wall_start_ns.emit(out);
                if !start.missing.is_empty() {
                    emit_list(out, &start.missing);
                }
            }
            Record::Commit(commit) => {
                commit.backup.emit(out);
                emit_list(out, &commit.objects);
                emit_list(out, &commit.segments);
                emit_list(out, &commit.removed);
                emit_list(out, &commit.progress);
                commit.totals.emit(out);
                commit.newest_secs.iter().for_each(|secs| secs.emit(out));
            }
            Record::BackupEnded(end) => end.emit(out),
            Record::BackupAbandoned { backup } | Record::PointExpired { backup } => backup.emit(out),
            Record::BackupStopped { backup, goes_on } => {
                backup.emit(out);
                (1 + u8::from(*goes_on)).emit(out);
            }
            Record::Retire { objects } => emit_list(out, objects),
            Record::Pin { pin, node } => {
                pin.emit(out);
                node.emit(out);
            }
            Record::PinRefreshed { pin, counter } => {
                pin.emit(out);
                counter.emit(out);
            }
            Record::Unpin { pin } => pin.emit(out),
            Record::Checkpoint(name) => name.emit(out),
            Record::Damage(news) => {
                news.missing.emit(out);
                news.damaged.emit(out);
                news.present.emit(out);
                emit_list(out, &news.points);
                emit_list(out, &news.points_sound);
            }
            Record::Swept(swept) => {
                swept.wall_ns.emit(out);
                emit_bytes(out, swept.after.as_bytes());
            }
            Record::BackupTried(tried) => tried.emit(out),
            Record::LeaseSet { lease_ns } => lease_ns.emit(out),
            Record::PointMarked(mark) => mark.emit(out),
            Record::Access(news) => news.emit(out),
            Record::PointGuarded(guard) => guard.emit(out),
            Record::Garbage(news) => news.emit(out),
            Record::Removal(news) => news.emit(out),
            Record::FeaturesRaised(features) => feature::emit(features, out),
        }
    }

    /// Takes a record off the front. Refuses unknown kinds, counts above bounds, and fields that do not fill the length.
    pub fn parse(reader: &mut Reader<'_>) -> Result<Record, WireFault> {
        let kind: u8 = reader.value()?;
        let length: u32 = reader.value()?;
        let length = usize::try_from(length).map_err(|_| WireFault::Count(length))?;
        let mut fields = Reader::new(reader.take(length)?);
        let record = Record::parse_fields(kind, &mut fields)?;
        fields.finish()?;
        Ok(record)
    }

    fn parse_fields(kind: u8, fields: &mut Reader<'_>) -> Result<Record, WireFault> {
        Ok(match kind {
            1 => Record::EpochBegun { epoch: fields.value()? },
            2 => Record::Yield { successor: fields.value()? },
            3 => {
                let name = parse_policy_name(fields)?;
                let revision = fields.value()?;
                let body = fields.bytes(POLICY_BODY_BYTES_MAX)?.to_vec();
                let volumes = parse_devices(fields)?;
                Record::PolicyChanged(PolicyChange { name, revision, body, volumes })
            }
            4 => {
                let (name, revision) = (parse_policy_name(fields)?, fields.value()?);
                if fields.is_empty() {
                    return Ok(Record::PolicyRemoved { name, revision });
                }
                Record::PolicyRenamed { from: name, to: parse_policy_name(fields)?, revision }
            }
            5 => Record::BackupBegun(BackupStart {
                backup: fields.value()?,
                policy: parse_policy_name(fields)?,
                volumes: fields.list(POLICY_VOLUMES_MAX)?,
                wall_start_ns: fields.value()?,
                missing: optional_list(fields, POLICY_VOLUMES_MAX)?,
            }),
            6 => Record::Commit(Commit {
                backup: fields.value()?,
                objects: fields.list(RECORD_OBJECTS_MAX)?,
                segments: fields.list(RECORD_SEGMENTS_MAX)?,
                removed: fields.list(RECORD_SEGMENTS_MAX)?,
                progress: fields.list(RECORD_STRETCHES_MAX)?,
                totals: fields.value()?,
                newest_secs: if fields.is_empty() { None } else { Some(fields.value()?) },
            }),
            7 => Record::BackupEnded(fields.value()?),
            8 => {
                let backup = fields.value()?;
                if fields.is_empty() {
                    return Ok(Record::BackupAbandoned { backup });
                }
                match fields.value::<u8>()? {
                    1 => Record::BackupStopped { backup, goes_on: false },
                    2 => Record::BackupStopped { backup, goes_on: true },
                    _ => return Err(WireFault::Value),
                }
            }
            9 => Record::PointExpired { backup: fields.value()? },
            10 => Record::Retire { objects: fields.list(RECORD_OBJECTS_MAX)? },
            11 => Record::OrphanFloor { epoch: fields.value()? },
            12 => Record::Pin { pin: fields.value()?, node: fields.value()? },
            13 => Record::PinRefreshed { pin: fields.value()?, counter: fields.value()? },
            14 => Record::Unpin { pin: fields.value()? },
            15 => Record::Checkpoint(fields.value()?),
            16 => Record::Damage(DamageNews {
                missing: parse_runs(fields)?,
                damaged: parse_runs(fields)?,
                present: parse_runs(fields)?,
                points: fields.list(RECORD_POINTS_MAX)?,
                points_sound: fields.list(RECORD_POINTS_MAX)?,
            }),
            17 => Record::Swept(Swept { wall_ns: fields.value()?, after: fields.text(SWEEP_KEY_BYTES_MAX)? }),
            18 => Record::BackupTried(Tried::parse(fields)?),
            19 => Record::LeaseSet { lease_ns: fields.value()? },
            20 => Record::PointMarked(PointMark::parse(fields)?),
            21 => Record::Access(AccessNews::parse(fields)?),
            22 => Record::PointGuarded(PointGuard::parse(fields)?),
            23 => Record::Garbage(GarbageNews::parse(fields)?),
            REMOVAL_KIND => Record::Removal(RemovalNews::parse(fields)?),
            26 => Record::FeaturesRaised(feature::parse(fields)?),
            _ => return Err(WireFault::Kind(kind)),
        })
    }
}

/// Appends records one after the other.
pub fn emit_records(records: &[Record], out: &mut Vec<u8>) {
    for record in records {
        record.emit(out);
    }
}

/// Parses all records of a slot's body: at least one, at most [`SLOT_RECORDS_MAX`].
pub fn parse_records(body: &[u8]) -> Result<Vec<Record>, WireFault> {
    let mut reader = Reader::new(body);
    let mut records = Vec::with_capacity((body.len() / RECORD_HEADER_BYTES).min(SLOT_RECORDS_MAX));
    while !reader.is_empty() {
        if records.len() == SLOT_RECORDS_MAX {
            return Err(WireFault::Count(u32::try_from(SLOT_RECORDS_MAX + 1).unwrap_or(u32::MAX)));
        }
        records.push(Record::parse(&mut reader)?);
    }
    if records.is_empty() { Err(WireFault::Short) } else { Ok(records) }
}

/// A policy's name: 1..=64 bytes of text without control characters.
pub(crate) fn parse_policy_name(fields: &mut Reader<'_>) -> Result<String, WireFault> {
    let name = fields.text(POLICY_NAME_BYTES_MAX)?;
    if name.is_empty() || name.chars().any(char::is_control) { Err(WireFault::Value) } else { Ok(name) }
}

fn parse_runs(fields: &mut Reader<'_>) -> Result<NameSet, WireFault> {
    let set: NameSet = fields.value()?;
    if set.runs() > RECORD_RUNS_MAX {
        return Err(WireFault::Count(u32::try_from(set.runs()).unwrap_or(u32::MAX)));
    }
    Ok(set)
}

fn parse_devices(fields: &mut Reader<'_>) -> Result<Vec<(VolumeId, String)>, WireFault> {
    let count: u32 = fields.value()?;
    match usize::try_from(count) {
        Ok(len) if len <= POLICY_VOLUMES_MAX => {
            (0..len).map(|_| Ok((fields.value()?, fields.text(DEVICE_BYTES_MAX)?))).collect()
        }
        _ => Err(WireFault::Count(count)),
    }
}

#[cfg(test)]
#[path = "record_test.rs"]
mod tests;
