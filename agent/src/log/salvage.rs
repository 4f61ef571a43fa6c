//! Salvage: what a damaged log still says, and a log that begins anew behind it.
//!
//! ```text
//!  newest checkpoint that can be read --> slots behind it that can be read --> objects' tails --> a checkpoint and a boundary
//! ```
//!
//! Where the log is whole its rules hold record by record (`State::apply_slot`). Behind a gap they cannot: what a record refers to may
//! have been said in a slot that is lost. There each record is taken for what it says itself, and what it leaves open is filled
//! from the tails of upload objects, which name their backup and volume. A backup of which a part may be missing becomes a point
//! "with errors": it is not reported as complete.
//!
//! The new log begins at a slot above all that were ever seen, with distance enough ([`DISTANCE_SLOTS`]) that no writer can be about to
//! create it: a late create of anyone lands at or below the new boundary, which is never read. One PUT, that of the boundary, makes
//! the change; before it nothing that exists is touched, and the lease is held until then.
//!
//! Invariants: nothing is deleted (I6); what is reported lost is named. Does not: make segments (`table::rebuild`), or hold the
//! lease ([`Hold`](super::session::Hold)). Source: ours.

use std::collections::BTreeSet;
use std::collections::btree_map::{BTreeMap, Entry};
use std::sync::Arc;

use super::checkpoint::Checkpoint;
use super::damage::Damage;
use super::fault::Place;
use super::garbage::Garbage;
use super::keys;
use super::limits::{CHECKPOINT_SLOTS, DAMAGED_RUNS_MAX};
use super::names::NameSet;
use super::replay::{View, apply_slot};
use super::state::{Point, Policy, Running, State, Volume};
use super::stretches::Stretches;
use crate::format::copies;
use crate::format::cursor::WireFault;
use crate::format::garbage::GarbageNews;
use crate::format::guard::GuardPart;
use crate::format::mark::Mark;
use crate::format::record::{BackupVolume, CheckpointName, Commit, PointStatus, Record, SegmentMeta, Totals};
use crate::format::slot::{
    Author, ClusterId, LOG_MAGIC, Sealer, SlotContents, SlotHeader, carried, emit_boundary, own_part, whole,
};
use crate::id::{BackupId, Epoch, ObjectId, Slot, VolumeId};
use crate::store::retry::Client;
use crate::store::{ByteRange, StoreFault, StoreFaultKind};

/// Slots between the last one that was seen and the first of the new log. A writer that had stalled is at most so many slots further than what
/// is left of the log: the last checkpoint and boundary would be gone with them otherwise.
pub const DISTANCE_SLOTS: u64 = 4 * CHECKPOINT_SLOTS;

/// What could be read of a damaged log.
#[derive(Clone, Debug, Default)]
pub struct Salvage {
    /// What it amounts to.
    pub state: State,
    /// Highest slot that anything speaks of.
    pub highest: Slot,
    /// Highest epoch that was granted.
    pub epoch: Epoch,
    /// What cannot be read and is nowhere else. Empty does not mean that nothing is: the end of a log can be lost without a trace.
    pub lost: Vec<Place>,
    /// Slots read, from their own place or from another.
    pub slots: u64,
    /// Points of which a part of the log is lost.
    pub unsure: BTreeSet<BackupId>,
    /// Whether a checkpoint was found to begin with, or all slots from the first on.
    pub from_start: bool,
}

/// Called between two calls to the store by what makes many: it keeps a lease, and its error ends the work.
pub type Keep<'k> = &'k mut dyn FnMut() -> Result<(), StoreFault>;

/// Reads what is left of the log. Only what the store says when it cannot list or read is an error, or what `keep` says.
pub fn read<S: Sealer>(
    client: &Client,
    cluster: &ClusterId,
    sealer: &S,
    keep: Keep<'_>,
) -> Result<Salvage, StoreFault> {
    let mut salvage = Salvage::default();
    let mut view = newest_checkpoint(client, cluster, sealer, keep, &mut salvage)?.unwrap_or_default();
    for key in list(client, keys::BOUNDARIES, keep)? {
        salvage.highest = salvage.highest.max(keys::number(&key, keys::BOUNDARIES).unwrap_or_default());
    }
    for key in list(client, keys::EPOCHS, keep)? {
        salvage.epoch = salvage.epoch.max(Epoch(keys::number(&key, keys::EPOCHS).unwrap_or_default().0));
    }
    let base = view.head;
    let (slots, damaged) = slots_above(client, base, keep, &mut salvage)?;
    salvage.from_start = view.head.0 > 0 || slots.contains_key(&Slot(1));
    for (&slot, bytes) in &slots {
        let mut next = view.clone();
        if apply_slot(&mut next, bytes, cluster, sealer).is_ok() {
            view = next;
        } else {
            let digest = view.digest;
            let missing = view.head.0.saturating_add(1)..slot.0;
            salvage.lost.extend(missing.take(LOST_MAX).map(|slot| Place::Slot(Slot(slot))));
            view.digest = [0; 32];
            match SlotContents::parse(bytes, sealer) {
                Ok(contents) if contents.header.cluster == *cluster => {
                    // Another than the one that it follows is there, or none.
                    let before = Place::Slot(Slot(slot.0.saturating_sub(1).max(base.0 + 1)));
                    if contents.header.previous != digest && !salvage.lost.contains(&before) {
                        salvage.lost.push(before);
                    }
                    take(&mut view.state, &contents, &mut salvage.unsure);
                    view.digest = contents.digest;
                }
                // A newer program's says what this one cannot take over.
                Err(why) if why.is_newer() => return Err(newer(slot, why)),
                _ => salvage.lost.push(Place::Slot(slot)),
            }
            view.head = slot;
        }
        salvage.slots += 1;
    }
    salvage.lost.extend(damaged.into_iter().filter(|slot| *slot > view.head).map(Place::Slot));
    salvage.highest = salvage.highest.max(view.head);
    salvage.epoch = salvage.epoch.max(view.state.epoch);
    salvage.state = view.state;
    Ok(salvage)
}

fn newer(slot: Slot, why: WireFault) -> StoreFault {
    let detail = format!("it was written by a newer windlass: {why}; nothing was changed");
    StoreFault::new(StoreFaultKind::Unsupported, "GET", &keys::slot(slot), detail)
}

/// Lost slots that are named one by one.
const LOST_MAX: usize = 64;

fn list(client: &Client, prefix: &str, keep: Keep<'_>) -> Result<Vec<String>, StoreFault> {
    let (mut found, mut kept) = (Vec::new(), Ok(()));
    client.list(prefix, "", &mut |key, _| {
        found.push(key.to_owned());
        kept = keep();
        kept.is_ok()
    })?;
    kept.map(|()| found)
}

/// The whole copy of an object of the log; `None` when it is gone or has none.
fn fetch(client: &Client, key: &str, keep: Keep<'_>) -> Result<Option<Vec<u8>>, StoreFault> {
    keep()?;
    let mut stored = Vec::new();
    match client.get(key, ByteRange::Whole(keys::bytes_max(key)), &mut stored) {
        Ok(_) => Ok(copies::pick(&stored, LOG_MAGIC, whole).map(<[u8]>::to_vec)),
        Err(fault) if matches!(fault.kind, StoreFaultKind::NotFound | StoreFaultKind::TooLong) => Ok(None),
        Err(fault) => Err(fault),
    }
}

fn newest_checkpoint<S: Sealer>(
    client: &Client,
    cluster: &ClusterId,
    sealer: &S,
    keep: Keep<'_>,
    salvage: &mut Salvage,
) -> Result<Option<View>, StoreFault> {
    let names = list(client, keys::CHECKPOINTS, keep)?;
    for key in names.iter().rev() {
        let Some((slot, nonce)) = keys::checkpoint_name(key) else { continue };
        salvage.highest = salvage.highest.max(slot);
        let bytes = fetch(client, key, keep)?;
        match bytes.map(|bytes| Checkpoint::parse(&bytes, sealer)) {
            Some(Ok((checkpoint, _)))
                if checkpoint.cluster == *cluster && (checkpoint.slot, checkpoint.nonce) == (slot, nonce) =>
            {
                return Ok(Some(checkpoint.into_view()));
            }
            _ => salvage.lost.push(Place::Checkpoint(slot)),
        }
    }
    Ok(None)
}

/// Slots by number, and the numbers of those that are there and cannot be read.
type Slots = (BTreeMap<Slot, Vec<u8>>, BTreeSet<Slot>);

/// Slots above `base`, from their own place or from the slot behind it; and those that are there and cannot be read. A create that came
/// late may have landed where a slot was lost: the slot behind that one names which it follows.
fn slots_above(
    client: &Client,
    base: Slot,
    keep: Keep<'_>,
    salvage: &mut Salvage,
) -> Result<Slots, StoreFault> {
    let (mut slots, mut damaged) = (BTreeMap::<Slot, Vec<u8>>::new(), BTreeSet::new());
    let mut others = BTreeMap::new();
    for key in list(client, keys::SLOTS, keep)? {
        let Some(slot) = keys::number(&key, keys::SLOTS) else { continue };
        salvage.highest = salvage.highest.max(slot);
        if slot <= base {
            continue;
        }
        let Some(bytes) = fetch(client, &key, keep)? else {
            damaged.insert(slot);
            continue;
        };
        let before = Slot(slot.0.saturating_sub(1));
        if let Some(before_bytes) = carried(&bytes).filter(|_| before > base) {
            damaged.remove(&before);
            match slots.entry(before) {
                Entry::Occupied(stored) if stored.get() == before_bytes => {}
                Entry::Occupied(_) => drop(others.insert(before, before_bytes.to_vec())),
                Entry::Vacant(place) => drop(place.insert(before_bytes.to_vec())),
            }
        }
        slots.insert(slot, own_part(&bytes).map_or_else(|_| bytes.clone(), <[u8]>::to_vec));
    }
    // The last ones first: what a slot follows is known once it is certain itself.
    for (slot, other) in others.into_iter().rev() {
        let header = |bytes: &Vec<u8>| SlotHeader::parse(bytes).ok();
        let digest = |bytes: &Vec<u8>| header(bytes).map(|(_, digest)| digest);
        let previous = slots.get(&Slot(slot.0 + 1)).and_then(header).map(|(behind, _)| behind.previous);
        if previous.is_some() && digest(&other) == previous && slots.get(&slot).and_then(digest) != previous {
            slots.insert(slot, other);
        }
    }
    Ok((slots, damaged))
}

/// Takes a slot behind a gap for what it says itself.
fn take(state: &mut State, contents: &SlotContents, unsure: &mut BTreeSet<BackupId>) {
    let header = &contents.header;
    state.epoch = state.epoch.max(header.epoch);
    state.holder = header.writer;
    state.yielded = None;
    for record in &contents.records {
        match record {
            Record::EpochBegun { .. } | Record::Checkpoint(_) => {}
            Record::Yield { successor } => state.yielded = Some(*successor),
            Record::PolicyChanged(change) => {
                for (volume, device) in &change.volumes {
                    let volume_of = Volume { policy: change.name.clone(), device: device.clone() };
                    state.volumes.insert(*volume, volume_of);
                }
                let volumes = change.volumes.iter().map(|(volume, _)| *volume).collect();
                let body = Arc::from(change.body.as_slice());
                let policy =
                    Policy { revision: change.revision, slot: header.slot, removed: false, body, volumes };
                state.policies.insert(change.name.clone(), policy);
            }
            Record::PolicyRemoved { name, revision } => {
                if let Some(policy) = state.policies.get_mut(name) {
                    policy.revision = *revision;
                    policy.removed = true;
                }
            }
            Record::BackupBegun(start) => {
                state.last_backup = state.last_backup.max(start.backup);
                let running = Running {
                    volumes: start.volumes.clone(),
                    missing: start.missing.clone(),
                    wall_start_ns: start.wall_start_ns,
                    ..running_from(start.policy.clone(), header.slot)
                };
                state.running.insert(start.backup, running);
            }
            Record::Commit(commit) => take_commit(state, header.slot, commit),
            Record::BackupEnded(end) => {
                if let Some(running) = state.running.remove(&end.backup) {
                    give_up(state, &running.policy, end.backup);
                    let point = point_of(end.backup, running, end.wall_end_ns);
                    unsure.insert(end.backup);
                    Arc::make_mut(&mut state.points).insert(end.backup, point);
                }
            }
            Record::BackupAbandoned { backup } => {
                if let Some(running) = state.running.remove(backup) {
                    give_up(state, &running.policy, *backup);
                }
                abandon(state, *backup);
            }
            // Behind a gap nothing says whether it was asked for since.
            Record::BackupStopped { .. } => {}
            Record::PointExpired { backup } => {
                Arc::make_mut(&mut state.points).remove(backup);
                state.marks.remove(backup);
            }
            // Also when its own point is said in a slot that is lost: then no policy has the old name.
            Record::PolicyRenamed { from, to, revision } => {
                let _ = state.rename_policy(header.slot, from, to, *revision);
            }
            // Kept also without its point, as a mark is; and what stays too long is no loss.
            Record::PointGuarded(news) => match news.part {
                GuardPart::Guard(guard) => Arc::make_mut(&mut state.guarded).add(news.backup, guard),
                GuardPart::Leave { .. } | GuardPart::Undo => drop(state.guard(news)),
            },
            Record::Access(news) => drop(state.access(news)),
            Record::Removal(news) => drop(state.removal(header.slot, news)),
            // Kept also without its point, which another slot may bring back: a hold counts.
            Record::PointMarked(mark) => {
                let marks = state.marks.entry(mark.backup).or_default();
                marks.change(&mark.part);
            }
            Record::Retire { objects } => retire(state, header.slot, objects),
            Record::Garbage(GarbageNews::Retired { objects, .. }) => {
                let names: Vec<ObjectId> = objects.iter().map(|object| object.0).collect();
                retire(state, header.slot, &names);
            }
            Record::Garbage(GarbageNews::Settings(settings)) => state.garbage.settings = Some(*settings),
            // Which objects nothing refers to is found out anew.
            Record::Garbage(_) => {}
            Record::OrphanFloor { epoch } => state.orphan_floor = state.orphan_floor.max(*epoch),
            Record::Damage(news) => state.add_damage(news),
            // What is there and what is not is found out anew; what could not begin is tried anew.
            Record::Swept(_) | Record::BackupTried(_) => {}
            Record::LeaseSet { lease_ns } => state.lease_ns = Some(*lease_ns),
            Record::FeaturesRaised(features) => state.features.extend(features),
            // Readers of the old tables: they go with the old log.
            Record::Pin { .. } | Record::PinRefreshed { .. } | Record::Unpin { .. } => {}
        }
    }
}

/// Gives up a policy's unfinished backups before `last`, as the end of that one does (`State::running_of`). Those whose policy is not known
/// stay: nothing proves that they are of the same one.
fn give_up(state: &mut State, policy: &str, last: BackupId) {
    let given_up: Vec<BackupId> =
        state.unfinished(policy).map(|(backup, _)| backup).filter(|&backup| backup < last).collect();
    for backup in given_up.into_iter().filter(|_| !policy.is_empty()) {
        state.running.remove(&backup);
        abandon(state, backup);
    }
}

fn abandon(state: &mut State, backup: BackupId) {
    if let Err(at) = state.abandoned.binary_search(&backup) {
        state.abandoned.insert(at, backup);
    }
}

/// A backup of which nothing else is known.
fn running_from(policy: String, slot: Slot) -> Running {
    Running {
        policy,
        slot,
        volumes: Vec::new(),
        missing: Vec::new(),
        wall_start_ns: 0,
        done: Stretches::default(),
        totals: Totals::default(),
        newest_secs: BTreeMap::new(),
        is_stopped: false,
    }
}

fn take_commit(state: &mut State, slot: Slot, commit: &Commit) {
    retire(state, slot, &commit.removed);
    for segment in &commit.segments {
        let list = Arc::make_mut(state.segments.entry(segment.volume).or_default());
        let key = |of: &SegmentMeta| (of.first_inode, of.id);
        if let Err(at) = list.binary_search_by_key(&key(segment), key) {
            list.insert(at, *segment);
        }
    }
    let names = commit.objects.iter().map(|(id, _)| *id);
    let live = Arc::make_mut(&mut state.live);
    names.chain(commit.segments.iter().map(|segment| segment.id)).for_each(|id| {
        live.insert(&id);
    });
    if commit.backup.0 == 0 {
        return;
    }
    let volumes: BTreeSet<VolumeId> = commit.segments.iter().map(|segment| segment.volume).collect();
    let policy = || volumes.iter().find_map(|volume| state.volumes.get(volume)).map(|of| of.policy.clone());
    let running = match state.running.get_mut(&commit.backup) {
        Some(running) => running,
        // Its beginning is lost.
        None => {
            let running = running_from(policy().unwrap_or_default(), slot);
            state.running.entry(commit.backup).or_insert(running)
        }
    };
    for volume in volumes {
        add_volume(&mut running.volumes, volume);
    }
    for stretch in &commit.progress {
        if let Some(secs) = commit.newest_secs {
            let newest = running.newest_secs.entry(stretch.volume).or_insert(secs);
            *newest = secs.max(*newest);
        }
        // One that overlaps was counted before.
        let _ = running.done.add(stretch);
    }
    running.totals = running.totals.plus(&commit.totals);
    state.last_backup = state.last_backup.max(commit.backup);
}

fn retire(state: &mut State, slot: Slot, names: &[ObjectId]) {
    for id in names {
        Arc::make_mut(&mut state.live).remove(id);
        Arc::make_mut(&mut state.retired).insert(*id, slot);
    }
}

fn add_volume(volumes: &mut Vec<BackupVolume>, volume: VolumeId) {
    if let Err(at) = volumes.binary_search_by_key(&volume, |known| known.volume) {
        volumes.insert(at, BackupVolume { volume, ..BackupVolume::default() });
    }
}

/// The point that a backup became; with errors when the log does not show that all of it was done.
fn point_of(backup: BackupId, running: Running, wall_end_ns: i64) -> Point {
    let whole = !running.volumes.is_empty()
        && running.volumes.iter().all(|volume| running.done.is_whole(volume.volume));
    let mut totals = running.totals;
    totals.faults = totals.faults.saturating_add(u64::from(!whole));
    let status = if running.missing.is_empty() { totals.status() } else { PointStatus::WithErrors };
    Point {
        backup,
        volumes: running.with_newest(),
        missing: running.missing,
        policy: running.policy,
        wall_ns: (running.wall_start_ns, wall_end_ns),
        status,
        totals,
    }
}

impl Salvage {
    /// Whether nothing that the log once said can be missing, but for what was lost at its end without a trace.
    pub fn is_whole(&self) -> bool {
        self.lost.iter().all(|place| matches!(place, Place::Checkpoint(_))) && self.from_start
    }

    /// Whether the rows of an upload object count: those that the log has committed, and, when a part of the log is lost, those
    /// of which it does not say that they are dead.
    pub fn counts(&self, id: &ObjectId) -> bool {
        self.state.live.contains(id) || !self.is_whole() && !self.state.retired.contains_key(id)
    }

    /// Backups whose rows do not count, ascending.
    pub fn given_up(&self) -> Vec<BackupId> {
        let running = self.state.running.iter().filter(|(_, running)| !self.may_have_ended(running));
        let mut all: Vec<BackupId> =
            self.state.abandoned.iter().chain(running.map(|(id, _)| id)).copied().collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    fn may_have_ended(&self, running: &Running) -> bool {
        !self.is_whole()
            || !running.volumes.is_empty()
                && running.volumes.iter().all(|volume| running.done.is_whole(volume.volume))
    }

    /// The state of the new log, made by `holder` in `epoch`, which is over with it: the next one need not wait. `tails` are the
    /// backups and volumes that the objects which count name. Returns as well the points of which it is not known whether they are complete.
    pub fn into_state(
        self,
        epoch: Epoch,
        holder: Author,
        objects: &[ObjectId],
        tails: &BTreeSet<(BackupId, VolumeId)>,
        segments: &[SegmentMeta],
    ) -> (State, BTreeSet<BackupId>) {
        let given_up = self.given_up();
        let (mut state, mut unsure) = (self.state, self.unsure);
        // What may be gone follows from all that was in the log: it is found out anew.
        state.garbage = Garbage { settings: state.garbage.settings, ..Garbage::default() };
        let mut points = Arc::unwrap_or_clone(std::mem::take(&mut state.points));
        for (backup, running) in std::mem::take(&mut state.running) {
            if given_up.binary_search(&backup).is_err() {
                let wall_ns = running.wall_start_ns;
                points.insert(backup, point_of(backup, running, wall_ns));
                unsure.insert(backup);
            }
        }
        for &(backup, volume) in tails {
            state.last_backup = state.last_backup.max(backup);
            if given_up.binary_search(&backup).is_ok() || backup.0 == 0 || volume.0 == 0 {
                continue;
            }
            let policy = policy_of(&mut state.volumes, volume);
            let point = points.entry(backup).or_insert_with(|| {
                unsure.insert(backup);
                point_of(backup, running_from(policy, Slot(0)), 0)
            });
            if unsure.contains(&backup) {
                add_volume(&mut point.volumes, volume);
            }
        }
        points.retain(|_, point| !point.volumes.is_empty());
        unsure.retain(|backup| points.contains_key(backup));
        for point in points.values_mut() {
            if point.policy.is_empty() {
                point.policy = policy_of(&mut state.volumes, point.volumes[0].volume);
            }
        }
        add_policies(&mut state, &points);
        // Objects that the tables referred to and that are gone: a backup that takes their blocks for stored would make a point that needs them.
        let mut missing = Arc::unwrap_or_clone(std::mem::take(&mut state.live));
        let old_segments = state.segments.values().flat_map(|list| list.iter());
        missing.subtract(&names_of(old_segments.map(|segment| &segment.id)));
        let mut live = names_of(objects.iter());
        missing.subtract(&live);
        live.add(&missing);
        let damaged = state.damage.damaged.and(&live);
        missing.shrink(DAMAGED_RUNS_MAX);
        let of_points =
            state.damage.points.iter().filter(|point| points.contains_key(point)).copied().collect();
        state.damage = Arc::new(Damage { missing, damaged, points: of_points, ..Damage::default() });
        state.marks.retain(|backup, mark| points.contains_key(backup) && *mark != Mark::default());
        Arc::make_mut(&mut state.guarded).keep(|backup| points.contains_key(backup));
        state.points = Arc::new(points);
        live.add(&names_of(segments.iter().map(|segment| &segment.id)));
        state.live = Arc::new(live);
        state.segments.clear();
        for segment in segments {
            Arc::make_mut(state.segments.entry(segment.volume).or_default()).push(*segment);
        }
        for list in state.segments.values_mut() {
            Arc::make_mut(list).sort_unstable_by_key(|segment| (segment.first_inode, segment.id));
        }
        (state.epoch, state.holder, state.yielded) = (epoch, holder, Some(None));
        state.abandoned = given_up;
        state.pins.clear();
        state.checkpoints.clear();
        (state, unsure)
    }

    /// The new log's first checkpoint and the boundary that names it: (key, bytes) of both, to be stored in this order, as two copies
    /// each. `Err`: the checkpoint's size in bytes, above the bound.
    pub fn beginning<S: Sealer>(
        cluster: ClusterId,
        highest: Slot,
        state: State,
        nonce: [u8; 16],
        sealer: &S,
    ) -> Result<[(String, Vec<u8>); 2], u64> {
        let slot = Slot(highest.0.saturating_add(DISTANCE_SLOTS));
        let slot_digest = Checkpoint::digest_of_beginning(&nonce);
        let (body, digest) = Checkpoint { cluster, slot, nonce, slot_digest, state }.emit(sealer)?;
        let name = CheckpointName { slot, nonce, digest };
        let pointer = emit_boundary(&cluster, &name);
        Ok([(keys::checkpoint(slot, &nonce), body), (keys::boundary(slot), pointer)])
    }
}

fn names_of<'a>(ids: impl Iterator<Item = &'a ObjectId>) -> NameSet {
    let mut names = NameSet::default();
    for id in ids {
        names.insert(id);
    }
    names
}

/// The policy of a volume. Names of policies and devices are in the log only, so one that is lost gets a name of its own.
fn policy_of(volumes: &mut BTreeMap<VolumeId, Volume>, volume: VolumeId) -> String {
    let known = volumes.entry(volume).or_insert_with(|| Volume {
        policy: format!("recovered-{}", volume.0),
        device: "unknown: its name was in the part of the log that is lost".to_owned(),
    });
    known.policy.clone()
}

/// Policies whose points came back and who did not themselves: as removed ones, whose points stay.
fn add_policies(state: &mut State, points: &BTreeMap<BackupId, Point>) {
    for point in points.values() {
        for volume in &point.volumes {
            policy_of(&mut state.volumes, volume.volume);
        }
        state.policies.entry(point.policy.clone()).or_insert_with(|| Policy {
            revision: 1,
            slot: Slot(0),
            removed: true,
            body: Arc::from(&b"{}"[..]),
            volumes: point.volumes.iter().map(|volume| volume.volume).collect(),
        });
    }
}

#[cfg(test)]
#[path = "salvage_test.rs"]
mod tests;
