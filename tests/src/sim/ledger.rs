//! The books: what the records of the log amount to, kept a second time and by plainer means, and held against the product's own fold.
//!
//! The oracle's model of the log is the product's `State`: what that forgets, the model forgets too. These books share only the records
//! with it.
//!
//! | rule | when it is checked |
//! |---|---|
//! | P1 | a backup begins: its policy is there, and it reads each volume of it, or names it as missing |
//! | P1 | points change, and at the end: each is as its backup began and as its commits add up: policy, volumes, missing ones, status, totals |
//! | C1 | a worker is told "accepted": the log has its report, all of it: objects with sizes, segments, totals, newest change |
//! | C4 | a merge: rows of a running backup are merged with rows of the same only |
//! | G1 | segments or points go, and at the end: the tables name what was added and not removed: merged segments and rows of abandoned backups are retired |
//! | G2 | at the end: what the store holds is in the tables, or may be deleted by a record that exists or by one that may be written |
//!
//! Does not: know epochs, slots or pins (`check` does). Source: ours.

use std::collections::{BTreeMap, BTreeSet};

use windlass_agent::format::garbage::GarbageNews;
use windlass_agent::format::record::{BackupVolume, Commit, PointStatus, Record, Totals};
use windlass_agent::id::{BackupId, Key, ObjectId, VolumeId};
use windlass_agent::log::state::State;
use windlass_agent::table::segment::SegmentMeta;

use super::Verdict;
use super::guards::Guards;
use super::store::{OBJECTS, SEGMENTS, Shelf};

/// A backup that began, and its point if it ended.
#[derive(Clone, Debug)]
struct Entry {
    policy: String,
    volumes: Vec<BackupVolume>,
    missing: Vec<VolumeId>,
    totals: Totals,
    newest: BTreeMap<VolumeId, i64>,
}

/// See the module's text.
#[derive(Debug, Default)]
pub struct Ledger {
    /// Volumes of each policy now.
    policies: BTreeMap<String, BTreeSet<VolumeId>>,
    running: BTreeMap<BackupId, Entry>,
    points: BTreeMap<BackupId, Entry>,
    /// What keeps points, and their way out.
    guards: Guards,
    /// Names of upload objects in the tables.
    objects: BTreeSet<ObjectId>,
    /// Segments in the tables.
    segments: BTreeMap<ObjectId, SegmentMeta>,
    /// Reports by backup, volume and first key.
    commits: BTreeMap<(BackupId, VolumeId, Key), Commit>,
}

impl Ledger {
    /// A record is in the log. Returns whether something left the books or a point came: then they are worth a comparison.
    ///
    /// # Errors
    /// It breaks a rule.
    pub fn record(&mut self, record: &Record) -> Verdict<bool> {
        let gone = self.guards.record(record)?;
        gone.into_iter().for_each(|backup| drop(self.points.remove(&backup)));
        match record {
            Record::PolicyRemoved { name, .. } => drop(self.policies.remove(name)),
            Record::PolicyChanged(change) => {
                let volumes = change.volumes.iter().map(|(volume, _)| *volume).collect();
                self.policies.insert(change.name.clone(), volumes);
            }
            Record::BackupBegun(start) => {
                let read = start.volumes.iter().map(|volume| volume.volume);
                let named: BTreeSet<VolumeId> = read.chain(start.missing.iter().copied()).collect();
                let wanted = self.policies.get(&start.policy);
                if wanted != Some(&named) {
                    let what = (start.backup, &start.policy);
                    return Err(format!("P1: backup {what:?} is of {named:?}, and the policy of {wanted:?}"));
                }
                let entry = Entry {
                    policy: start.policy.clone(),
                    volumes: start.volumes.clone(),
                    missing: start.missing.clone(),
                    totals: Totals::default(),
                    newest: BTreeMap::new(),
                };
                self.running.insert(start.backup, entry);
            }
            Record::Commit(commit) => {
                self.commit(commit)?;
                return Ok(!commit.removed.is_empty());
            }
            Record::BackupEnded(end) => {
                if let Some(entry) = self.running.remove(&end.backup) {
                    self.give_up(&entry.policy, end.backup);
                    self.points.insert(end.backup, entry);
                }
                return Ok(true);
            }
            Record::BackupAbandoned { backup } => {
                if let Some(policy) = self.running.get(backup).map(|entry| entry.policy.clone()) {
                    self.give_up(&policy, *backup);
                }
                return Ok(true);
            }
            Record::PolicyRenamed { from, to, .. } => {
                if let Some(volumes) = self.policies.remove(from) {
                    self.policies.insert(to.clone(), volumes);
                }
                let all = self.running.values_mut().chain(self.points.values_mut());
                all.filter(|entry| entry.policy == *from).for_each(|entry| entry.policy.clone_from(to));
                return Ok(true);
            }
            Record::Garbage(GarbageNews::Retired { objects, .. }) => {
                self.objects.retain(|id| !objects.iter().any(|gone| gone.0 == *id));
            }
            Record::Retire { objects } => self.objects.retain(|id| !objects.contains(id)),
            Record::EpochBegun { .. }
            | Record::Yield { .. }
            | Record::OrphanFloor { .. }
            | Record::Pin { .. }
            | Record::PinRefreshed { .. }
            | Record::Unpin { .. }
            | Record::Checkpoint(_)
            | Record::Damage(_)
            | Record::Swept(_)
            | Record::BackupTried(_)
            | Record::BackupStopped { .. }
            | Record::LeaseSet { .. }
            | Record::FeaturesRaised(_)
            | Record::PointMarked(_)
            | Record::Access(_)
            | Record::Removal(_)
            | Record::PointExpired { .. }
            | Record::PointGuarded(_)
            | Record::Garbage(_) => {}
        }
        Ok(false)
    }

    fn commit(&mut self, commit: &Commit) -> Verdict<()> {
        let gone: Vec<SegmentMeta> =
            commit.removed.iter().filter_map(|id| self.segments.remove(id)).collect();
        let of_running = |segment: &SegmentMeta| {
            let runs = self.running.range(segment.backup_min..=segment.backup_max);
            runs.filter(|(_, entry)| entry.volumes.iter().any(|v| v.volume == segment.volume)).count() > 0
        };
        if let Some(mixed) = gone.iter().find(|segment| of_running(segment))
            && gone.iter().chain(&commit.segments).any(|segment| !segment.is_only_of(mixed.backup_min))
        {
            return Err(format!("C4: {} of a backup that runs is merged with rows of others", mixed.id));
        }
        self.objects.extend(commit.objects.iter().map(|(id, _)| *id));
        self.segments.extend(commit.segments.iter().map(|segment| (segment.id, *segment)));
        let Some(entry) = self.running.get_mut(&commit.backup) else { return Ok(()) };
        entry.totals = sum(&entry.totals, &commit.totals);
        for stretch in &commit.progress {
            if let Some(secs) = commit.newest_secs {
                let newest = entry.newest.entry(stretch.volume).or_insert(secs);
                *newest = secs.max(*newest);
            }
            self.commits.insert((commit.backup, stretch.volume, stretch.from), commit.clone());
        }
        Ok(())
    }

    /// Rows of a policy's unfinished backups up to `last` leave the tables.
    fn give_up(&mut self, policy: &str, last: BackupId) {
        let given_up = |backup: &BackupId, entry: &Entry| *backup <= last && entry.policy == policy;
        let segments = &mut self.segments;
        self.running.retain(|backup, entry| {
            let gone = given_up(backup, entry);
            if gone {
                segments.retain(|_, segment| !segment.is_only_of(*backup));
            }
            !gone
        });
    }

    /// A worker is told that its report counts: `told` is what it had reported.
    ///
    /// # Errors
    /// The log has something else in its place.
    pub fn accepted(&self, told: &Commit) -> Verdict<()> {
        // One that names nothing of its own may be of a stretch that another node did.
        let Some(stretch) =
            told.progress.first().filter(|_| !told.objects.is_empty() || !told.segments.is_empty())
        else {
            return Ok(());
        };
        let found = self.commits.get(&(told.backup, stretch.volume, stretch.from));
        if found == Some(told) {
            return Ok(());
        }
        Err(format!("C1: a report is accepted, and the log has something else: {told:?}, {found:?}"))
    }

    /// Whether a backup ended and its point has not gone.
    pub fn has_point(&self, backup: BackupId) -> bool {
        self.points.contains_key(&backup)
    }

    /// A slot is read to its end.
    ///
    /// # Errors
    /// Something that belongs into it is missing.
    pub fn end_slot(&mut self) -> Verdict<()> {
        self.guards.end_slot()
    }

    /// The product's fold says what the books say.
    ///
    /// # Errors
    /// It does not.
    pub fn compare(&self, state: &State) -> Verdict<()> {
        if let Some(backup) = state.points.keys().find(|backup| !self.points.contains_key(backup)) {
            return Err(format!("P2: point {backup} is there, and has expired"));
        }
        for (backup, entry) in &self.points {
            let Some(point) = state.points.get(backup) else {
                return Err(format!("P2: backup {backup} ended, and there is no point"));
            };
            let fine = entry.missing.is_empty() && entry.totals.faults == 0;
            let status = if fine { PointStatus::Complete } else { PointStatus::WithErrors };
            let newest = |volume: &BackupVolume| entry.newest.get(&volume.volume).copied();
            let volumes: Vec<BackupVolume> =
                entry.volumes.iter().map(|v| BackupVolume { newest_secs: newest(v), ..*v }).collect();
            let same = point.policy == entry.policy
                && point.volumes == volumes
                && point.missing == entry.missing
                && point.totals == entry.totals
                && point.status == status;
            if !same {
                return Err(format!(
                    "P1: {point:?} is not what its commits add up to: {entry:?}, {status:?}"
                ));
            }
        }
        let tables: BTreeMap<ObjectId, SegmentMeta> = state
            .segments
            .iter()
            .flat_map(|(volume, list)| list.iter().filter(move |segment| segment.volume == *volume))
            .map(|segment| (segment.id, *segment))
            .collect();
        if tables != self.segments {
            let id = self.segments.keys().find(|id| !tables.contains_key(*id));
            let id = id.or_else(|| tables.keys().find(|id| !self.segments.contains_key(*id)));
            return Err(format!("G1: the tables and the books differ in segment {id:?}"));
        }
        let live: BTreeSet<ObjectId> = state.live.names().collect();
        let booked: BTreeSet<ObjectId> = self.objects.iter().chain(self.segments.keys()).copied().collect();
        match live.symmetric_difference(&booked).next() {
            None => Ok(()),
            Some(id) => Err(format!("G1: {id} is live in one of tables and books, and not in the other")),
        }
    }

    /// The run is over, and nobody is at work: nothing in the store is there for ever without being of use.
    ///
    /// # Errors
    /// Something is.
    pub fn finish(&self, shelf: &Shelf, state: &State) -> Verdict<()> {
        self.compare(state)?;
        for (prefix, is_live) in [
            (OBJECTS, &(|id: &ObjectId| self.objects.contains(id)) as &dyn Fn(&ObjectId) -> bool),
            (SEGMENTS, &|id: &ObjectId| self.segments.contains_key(id)),
        ] {
            for key in shelf.below(prefix) {
                let id: ObjectId =
                    key[prefix.len()..].parse().map_err(|()| format!("a strange name: {key}"))?;
                let may_go = state.retired.contains_key(&id) || id.epoch <= state.epoch;
                if !is_live(&id) && (!may_go || state.live.contains(&id)) {
                    return Err(format!("G2: {key} is in the store, of no use, and nothing will delete it"));
                }
            }
        }
        Ok(())
    }
}

/// Field by field, so that one that the product forgets is noticed.
fn sum(a: &Totals, b: &Totals) -> Totals {
    Totals {
        items: a.items + b.items,
        items_changed: a.items_changed + b.items_changed,
        items_deleted: a.items_deleted + b.items_deleted,
        bytes_logical: a.bytes_logical + b.bytes_logical,
        bytes_read: a.bytes_read + b.bytes_read,
        bytes_reused: a.bytes_reused + b.bytes_reused,
        bytes_stored: a.bytes_stored + b.bytes_stored,
        objects: a.objects + b.objects,
        segments: a.segments + b.segments,
        faults: a.faults + b.faults,
    }
}
