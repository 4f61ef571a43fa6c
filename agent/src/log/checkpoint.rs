//! The state as bytes: `ckpt/<slot>-<nonce>`, immutable, written by a lease holder, read at the start of a replay.
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 4 | magic `WLCK` |
//! | 4 | 2 | version: 1, or 2 with features |
//! | 6 | 2 | reserved, 0 |
//! | 8 | 16 | cluster |
//! | 24 | 8 | slot: the state is as of this one |
//! | 32 | 16 | nonce: random; its first 12 bytes are the seal's nonce |
//! | 48 | 32 | digest of that slot |
//! | 80 | 4 | n, length of the body as stored |
//! | 84 | n | body: in version 2 the features (`format::feature`), then the state's parts in the order of `emit_state`, sealed; associated data: bytes 0..80 |
//! | 84 + n | 32 | digest: BLAKE3 of all bytes before it |
//!
//! Invariants: emit and parse are inverse; every count is bounded; a parsed state obeys the order of its lists.
//! Does not: split into parts; a state that does not fit is refused with its size.
//! Source: `agent/doc/commit-log.md`.

use std::sync::Arc;

use super::access::Access;
use super::damage::Damage;
use super::garbage::Garbage;
use super::guard::Guarded;
use super::limits::{
    ABANDONED_MAX, CHECKPOINT_BYTES_MAX, CHECKPOINTS_MAX, DEVICE_BYTES_MAX, MARKS_MAX, PINS_MAX, POINTS_MAX,
    POLICIES_MAX, POLICY_BODY_BYTES_MAX, POLICY_VOLUMES_MAX, RETIRED_MAX, RUNNING_MAX, SEGMENTS_MAX,
    VOLUMES_MAX,
};
use super::removals;
use super::replay::View;
use super::state::{Pin, Point, Policy, Running, State, Volume};
use crate::format::cursor::{Reader, Wire, WireFault, emit_bytes, emit_list};
use crate::format::feature::{self, Features};
use crate::format::mark::{Mark, MarkPart};
use crate::format::record::{BackupVolume, SegmentMeta, Tried, parse_policy_name};
use crate::format::slot::{
    Author, CHECKPOINT_LENGTH_AT, CHECKPOINT_MAGIC, ClusterId, LogDigest, SealBroken, Sealer, check_digest,
    emit_digest, emit_start_of, parse_start_of, seal_nonce,
};
use crate::id::{BackupId, ObjectId, Slot, VolumeId};
use crate::wire_struct;

/// Parts of a mark.
const MARK_PARTS: usize = 3;
const MAGIC: [u8; 4] = CHECKPOINT_MAGIC;
const AAD_BYTES: usize = CHECKPOINT_LENGTH_AT;
const VERSION: u16 = 1;
const VERSION_FEATURES: u16 = 2;
const BODY_AT: usize = AAD_BYTES + 4;

wire_struct!(Author { node: crate::id::NodeId, boot: crate::id::Boot });
wire_struct!(Pin { slot: Slot, node: crate::id::NodeId, counter: u64 });

/// A state and where in the log it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// The repository.
    pub cluster: ClusterId,
    /// The state is as of this slot.
    pub slot: Slot,
    /// Random.
    pub nonce: [u8; 16],
    /// Digest of that slot.
    pub slot_digest: LogDigest,
    /// The state.
    pub state: State,
}

impl Checkpoint {
    /// The digest that a checkpoint gives its slot when there never was one: a log begins anew with it, and nothing of an older one follows.
    pub fn digest_of_beginning(nonce: &[u8; 16]) -> LogDigest {
        *blake3::hash(nonce).as_bytes()
    }

    /// Whether a log begins anew with it.
    pub fn is_beginning(&self) -> bool {
        self.slot_digest == Checkpoint::digest_of_beginning(&self.nonce)
    }

    /// The object's bytes and their digest, or the size in bytes when it is above the bound.
    pub fn emit<S: Sealer>(&self, sealer: &S) -> Result<(Vec<u8>, LogDigest), u64> {
        let mut out = Vec::with_capacity(4096);
        let version = if self.state.features.is_empty() { VERSION } else { VERSION_FEATURES };
        emit_start_of(&mut out, MAGIC, version, &self.cluster);
        self.slot.emit(&mut out);
        self.nonce.emit(&mut out);
        self.slot_digest.emit(&mut out);
        debug_assert_eq!(out.len(), AAD_BYTES);
        let mut body = Vec::with_capacity(4096);
        if version == VERSION_FEATURES {
            feature::emit(&self.state.features, &mut body);
        }
        emit_state(&self.state, &mut body);
        sealer.seal(&out, seal_nonce(&self.nonce), &mut body);
        if body.len() > CHECKPOINT_BYTES_MAX - BODY_AT - 32 {
            return Err(body.len() as u64);
        }
        u32::try_from(body.len()).unwrap_or(u32::MAX).emit(&mut out);
        out.extend_from_slice(&body);
        let digest = emit_digest(&mut out);
        Ok((out, digest))
    }

    /// The log up to its slot, as a replay that begins here takes it.
    pub fn into_view(self) -> View {
        View { head: self.slot, digest: self.slot_digest, state: self.state, ..View::default() }
    }

    /// Inverse of [`Checkpoint::emit`]; returns the object's digest too.
    pub fn parse<S: Sealer>(bytes: &[u8], sealer: &S) -> Result<(Checkpoint, LogDigest), WireFault> {
        if bytes.len() > CHECKPOINT_BYTES_MAX {
            return Err(WireFault::Count(u32::try_from(bytes.len()).unwrap_or(u32::MAX)));
        }
        let (inner, digest) = check_digest(bytes)?;
        let mut reader = Reader::new(inner);
        let (version, cluster) = parse_start_of(&mut reader, MAGIC, VERSION..=VERSION_FEATURES)?;
        let (slot, nonce, slot_digest) = (reader.value()?, reader.value()?, reader.value()?);
        let length: u32 = reader.value()?;
        if usize::try_from(length) != Ok(reader.len()) {
            return Err(WireFault::Short);
        }
        let mut body = inner[BODY_AT..].to_vec();
        sealer
            .open(&inner[..AAD_BYTES], seal_nonce(&nonce), &mut body)
            .map_err(|SealBroken| WireFault::Seal)?;
        let mut fields = Reader::new(&body);
        // Before all else: a feature that is not known says that the rest is not either.
        let features = if version == VERSION { Features::new() } else { feature::parse(&mut fields)? };
        let state = State { features, ..parse_state(&mut fields)? };
        fields.finish()?;
        Ok((Checkpoint { cluster, slot, nonce, slot_digest, state }, digest))
    }
}

fn emit_count(count: usize, out: &mut Vec<u8>) {
    u32::try_from(count).unwrap_or(u32::MAX).emit(out);
}

fn emit_state(state: &State, out: &mut Vec<u8>) {
    state.epoch.emit(out);
    state.holder.emit(out);
    state.yielded.emit(out);
    emit_count(state.policies.len(), out);
    for (name, policy) in &state.policies {
        emit_bytes(out, name.as_bytes());
        policy.revision.emit(out);
        policy.slot.emit(out);
        u8::from(policy.removed).emit(out);
        emit_bytes(out, &policy.body);
        emit_list(out, &policy.volumes);
    }
    emit_count(state.volumes.len(), out);
    for (id, volume) in &state.volumes {
        id.emit(out);
        emit_bytes(out, volume.policy.as_bytes());
        emit_bytes(out, volume.device.as_bytes());
    }
    state.last_backup.emit(out);
    emit_count(state.running.len(), out);
    for (id, running) in &state.running {
        id.emit(out);
        emit_bytes(out, running.policy.as_bytes());
        running.slot.emit(out);
        emit_list(out, &running.with_newest());
        running.wall_start_ns.emit(out);
        running.done.emit(out);
        running.totals.emit(out);
    }
    emit_count(state.points.len(), out);
    for point in state.points.values() {
        point.backup.emit(out);
        emit_bytes(out, point.policy.as_bytes());
        emit_list(out, &point.volumes);
        point.wall_ns.emit(out);
        point.status.emit(out);
        point.totals.emit(out);
    }
    emit_list(out, &state.abandoned);
    emit_count(state.segments.values().map(|list| list.len()).sum(), out);
    for segment in state.segments.values().flat_map(|list| list.iter()) {
        Wire::emit(segment, out);
    }
    state.live.emit(out);
    emit_count(state.retired.len(), out);
    for (id, slot) in state.retired.iter() {
        id.emit(out);
        slot.emit(out);
    }
    state.orphan_floor.emit(out);
    emit_count(state.pins.len(), out);
    for (id, pin) in &state.pins {
        id.emit(out);
        pin.emit(out);
    }
    emit_list(out, &state.checkpoints);
    // Parts of later programs: each is there when it, or one behind it, has something in it.
    let stopped = stopped(state);
    let has_removals = !state.removals.is_empty() || !stopped.is_empty();
    let has_access = !state.access.is_empty() || has_removals;
    let has_guards = !state.guarded.is_empty() || has_access;
    let has_garbage = state.garbage != Garbage::default() || has_guards;
    let (missing, has_marks) = (missing(state), !state.marks.is_empty() || has_garbage);
    let has_lease = has_marks || state.lease_ns.is_some();
    let has_tried = !state.tried.is_empty() || has_lease;
    if *state.damage != Damage::default() || !missing.is_empty() || has_tried {
        state.damage.emit(out);
    }
    if !missing.is_empty() || has_tried {
        emit_list(out, &missing);
    }
    if has_tried {
        emit_count(state.tried.len(), out);
        state.tried.values().for_each(|tried| tried.emit(out));
    }
    if has_lease {
        // 0: not said, and marks follow.
        state.lease_ns.unwrap_or(0).emit(out);
    }
    if has_marks {
        emit_count(state.marks.len(), out);
        for (backup, mark) in &state.marks {
            backup.emit(out);
            emit_count(mark.parts().count(), out);
            mark.parts().for_each(|part| part.emit(out));
        }
    }
    if has_garbage {
        state.garbage.emit(out);
    }
    if has_guards {
        state.guarded.emit(out);
    }
    if has_access {
        emit_count(state.access.news().count(), out);
        state.access.news().for_each(|news| news.emit(out));
    }
    if has_removals {
        removals::emit(&state.removals, out);
    }
    if !stopped.is_empty() {
        emit_list(out, &stopped);
    }
}

/// Backups that were stopped, ascending.
fn stopped(state: &State) -> Vec<BackupId> {
    let stopped = state.running.iter().filter(|(_, running)| running.is_stopped);
    stopped.map(|(&backup, _)| backup).collect()
}

fn parse_stopped(state: &mut State, reader: &mut Reader<'_>) -> Result<(), WireFault> {
    let list: Vec<BackupId> = reader.list(RUNNING_MAX)?;
    for backup in &list {
        state.running.get_mut(backup).ok_or(WireFault::Value)?.is_stopped = true;
    }
    // One encoding: in order, and nothing when there are none.
    if list.is_empty() || stopped(state) != list { Err(WireFault::Value) } else { Ok(()) }
}

/// Backups and points with the volumes that they are without.
fn missing(state: &State) -> Vec<(BackupId, VolumeId)> {
    let running = state.running.iter().map(|(&backup, running)| (backup, &running.missing));
    let points = state.points.iter().map(|(&backup, point)| (backup, &point.missing));
    let each = |(backup, missing): (BackupId, &Vec<VolumeId>)| {
        missing.iter().map(|&volume| (backup, volume)).collect::<Vec<_>>()
    };
    running.chain(points).flat_map(each).collect()
}

fn parse_missing(state: &mut State, reader: &mut Reader<'_>) -> Result<(), WireFault> {
    let missing: Vec<(BackupId, VolumeId)> = reader.list(POINTS_MAX * POLICY_VOLUMES_MAX)?;
    let points = Arc::make_mut(&mut state.points);
    for &(backup, volume) in &missing {
        let running = state.running.get_mut(&backup).map(|running| &mut running.missing);
        let list = running.or(points.get_mut(&backup).map(|point| &mut point.missing));
        list.ok_or(WireFault::Value)?.push(volume);
    }
    // One encoding: in the order in which they are written, and nothing when there are none.
    let is_needless = missing.is_empty() && reader.is_empty();
    if is_needless || self::missing(state) != missing { Err(WireFault::Value) } else { Ok(()) }
}

fn parse_tried(state: &mut State, reader: &mut Reader<'_>) -> Result<(), WireFault> {
    let count = count(reader, POLICIES_MAX)?;
    for _ in 0..count {
        let tried = Tried::parse(reader)?;
        ascending(state.tried.keys().next_back(), &tried.policy)?;
        state.tried.insert(tried.policy.clone(), tried);
    }
    // One encoding: nothing when nothing follows.
    if count == 0 && reader.is_empty() { Err(WireFault::Count(0)) } else { Ok(()) }
}

fn parse_marks(state: &mut State, reader: &mut Reader<'_>) -> Result<(), WireFault> {
    let count = count(reader, MARKS_MAX)?;
    for _ in 0..count {
        let (backup, mut mark): (BackupId, Mark) = (reader.value()?, Mark::default());
        let parts: Vec<MarkPart> = (0..self::count(reader, MARK_PARTS)?)
            .map(|_| MarkPart::parse(reader))
            .collect::<Result<_, _>>()?;
        parts.iter().for_each(|part| mark.change(part));
        // One encoding: the parts that say something, in their order.
        if parts.is_empty() || !mark.parts().eq(parts) {
            return Err(WireFault::Value);
        }
        ascending(state.marks.keys().next_back(), &backup)?;
        state.marks.insert(backup, mark);
    }
    // One encoding: nothing when nothing follows.
    if count == 0 && reader.is_empty() { Err(WireFault::Count(0)) } else { Ok(()) }
}

fn parse_guards(state: &mut State, reader: &mut Reader<'_>) -> Result<(), WireFault> {
    let guarded = Guarded::parse(reader)?;
    let mut all = guarded.guards.keys().chain(guarded.leaving.keys());
    // One encoding, and of points only.
    if guarded.is_empty() && reader.is_empty() || !all.all(|backup| state.points.contains_key(backup)) {
        return Err(WireFault::Value);
    }
    state.guarded = Arc::new(guarded);
    Ok(())
}

fn parse_state(reader: &mut Reader<'_>) -> Result<State, WireFault> {
    let mut state = State {
        epoch: reader.value()?,
        holder: reader.value()?,
        yielded: reader.value()?,
        ..State::default()
    };
    for _ in 0..count(reader, POLICIES_MAX)? {
        let name = parse_policy_name(reader)?;
        let policy = Policy {
            revision: reader.value()?,
            slot: reader.value()?,
            removed: match reader.value::<u8>()? {
                0 => false,
                1 => true,
                _ => return Err(WireFault::Value),
            },
            body: Arc::from(reader.bytes(POLICY_BODY_BYTES_MAX)?),
            volumes: reader.list(POLICY_VOLUMES_MAX)?,
        };
        ascending(state.policies.keys().next_back(), &name)?;
        state.policies.insert(name, policy);
    }
    for _ in 0..count(reader, VOLUMES_MAX)? {
        let id: VolumeId = reader.value()?;
        let volume = Volume { policy: parse_policy_name(reader)?, device: reader.text(DEVICE_BYTES_MAX)? };
        ascending(state.volumes.keys().next_back(), &id)?;
        state.volumes.insert(id, volume);
    }
    state.last_backup = reader.value()?;
    for _ in 0..count(reader, RUNNING_MAX)? {
        let id: BackupId = reader.value()?;
        let (policy, slot) = (parse_policy_name(reader)?, reader.value()?);
        let mut volumes: Vec<BackupVolume> = reader.list(POLICY_VOLUMES_MAX)?;
        let newest = |volume: &mut BackupVolume| Some((volume.volume, volume.newest_secs.take()?));
        let running = Running {
            newest_secs: volumes.iter_mut().filter_map(newest).collect(),
            policy,
            slot,
            volumes,
            missing: Vec::new(),
            wall_start_ns: reader.value()?,
            done: reader.value()?,
            totals: reader.value()?,
            is_stopped: false,
        };
        ascending(state.running.keys().next_back(), &id)?;
        state.running.insert(id, running);
    }
    let points = Arc::make_mut(&mut state.points);
    for _ in 0..count(reader, POINTS_MAX)? {
        let point = Point {
            backup: reader.value()?,
            policy: parse_policy_name(reader)?,
            volumes: reader.list(POLICY_VOLUMES_MAX)?,
            missing: Vec::new(),
            wall_ns: reader.value()?,
            status: reader.value()?,
            totals: reader.value()?,
        };
        ascending(points.keys().next_back(), &point.backup)?;
        points.insert(point.backup, point);
    }
    state.abandoned = reader.list(ABANDONED_MAX)?;
    strictly(&state.abandoned, |backup| *backup)?;
    let segments: Vec<SegmentMeta> = reader.list(SEGMENTS_MAX)?;
    strictly(&segments, |segment| (segment.volume, segment.first_inode, segment.id))?;
    for segment in segments {
        Arc::make_mut(state.segments.entry(segment.volume).or_default()).push(segment);
    }
    state.live = Arc::new(reader.value()?);
    let retired: Vec<(ObjectId, Slot)> = reader.list(RETIRED_MAX)?;
    strictly(&retired, |entry| entry.0)?;
    state.retired = Arc::new(retired.into_iter().collect());
    state.orphan_floor = reader.value()?;
    let pins: Vec<(u64, Pin)> = reader.list(PINS_MAX)?;
    strictly(&pins, |entry| entry.0)?;
    state.pins = pins.into_iter().collect();
    state.checkpoints = reader.list(CHECKPOINTS_MAX)?;
    strictly(&state.checkpoints, |name| name.slot)?;
    // Checkpoints from before there were such things end here, and so do those without damage and missing volumes.
    if !reader.is_empty() {
        state.damage = Arc::new(reader.value()?);
        if reader.is_empty() && *state.damage == Damage::default() {
            return Err(WireFault::Value);
        }
    }
    if !reader.is_empty() {
        parse_missing(&mut state, reader)?;
    }
    if !reader.is_empty() {
        parse_tried(&mut state, reader)?;
    }
    if !reader.is_empty() {
        state.lease_ns = Some(reader.value()?).filter(|&lease_ns| lease_ns > 0);
        if state.lease_ns.is_none() && reader.is_empty() {
            return Err(WireFault::Value);
        }
    }
    if !reader.is_empty() {
        parse_marks(&mut state, reader)?;
    }
    if !reader.is_empty() {
        state.garbage = reader.value()?;
        if state.garbage == Garbage::default() && reader.is_empty() {
            return Err(WireFault::Value);
        }
    }
    if !reader.is_empty() {
        parse_guards(&mut state, reader)?;
    }
    if !reader.is_empty() {
        state.access = Arc::new(Access::parse(reader)?);
        // One encoding: nothing when nothing follows.
        if state.access.is_empty() && reader.is_empty() {
            return Err(WireFault::Value);
        }
    }
    if !reader.is_empty() {
        state.removals = Arc::new(removals::parse(reader)?);
        // The same.
        if state.removals.is_empty() && reader.is_empty() {
            return Err(WireFault::Count(0));
        }
    }
    if !reader.is_empty() {
        parse_stopped(&mut state, reader)?;
    }
    Ok(state)
}

fn count(reader: &mut Reader<'_>, max: usize) -> Result<usize, WireFault> {
    let count: u32 = reader.value()?;
    match usize::try_from(count) {
        Ok(count) if count <= max => Ok(count),
        _ => Err(WireFault::Count(count)),
    }
}

fn ascending<K: Ord>(before: Option<&K>, next: &K) -> Result<(), WireFault> {
    if before.is_none_or(|before| before < next) { Ok(()) } else { Err(WireFault::Value) }
}

fn strictly<T, K: Ord>(list: &[T], key: impl Fn(&T) -> K) -> Result<(), WireFault> {
    if list.windows(2).all(|pair| key(&pair[0]) < key(&pair[1])) { Ok(()) } else { Err(WireFault::Value) }
}
