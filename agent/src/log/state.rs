//! State: what all records up to a slot amount to.
//!
//! Invariants: a state is a function of the records alone, so every node has the same one at the same slot (I11); epochs never
//! decrease (I2); a name enters the tables once and never comes back after its retirement (C4, G1, G2); every part is bounded
//! by `log::limits`. A record that breaks a rule is refused before it is written, and is a fault when found in the log.
//!
//! Does not: hold rows (segments do), know time, or talk to the store. Source: `agent/doc/commit-log.md`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::access::Access;
use super::damage::Damage;
use super::garbage::Garbage;
use super::guard::Guarded;
use super::limits::{
    ABANDONED_MAX, Bound, CHECKPOINTS_MAX, LEASE_NS_MAX, LEASE_NS_MIN, MARKS_MAX, NAME_RUNS_MAX, PINS_MAX,
    POINTS_MAX, POLICIES_MAX, RETIRED_MAX, RUNNING_MAX, SEGMENTS_MAX, UNFINISHED_MAX, VOLUMES_MAX,
};
use super::names::NameSet;
pub use super::refusal::Refusal;
use super::removals::Removals;
use super::stretches::Stretches;
use crate::format::feature::{FEATURES_MAX, Features};
use crate::format::mark::{Mark, PointMark};
use crate::format::record::{
    BackupEnd, BackupStart, BackupVolume, CheckpointName, Commit, DamageNews, PointStatus, PolicyChange,
    Record, SegmentMeta, Totals, Tried,
};
use crate::format::slot::{Author, SlotHeader};
use crate::id::{BackupId, Epoch, NodeId, ObjectId, Slot, VolumeId};

/// A policy's latest revision.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Policy {
    /// Number of the latest revision, which is also how many there have been.
    pub revision: u32,
    /// Slot that made it.
    pub slot: Slot,
    /// Whether it was removed; its points stay.
    pub removed: bool,
    /// The policy, encoded by `policy`.
    pub body: Arc<[u8]>,
    /// Its volumes now.
    pub volumes: Vec<VolumeId>,
}

/// A volume that was registered once.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Volume {
    /// Its policy.
    pub policy: String,
    /// Its device, as last said.
    pub device: String,
}

/// A backup in progress, or one that stopped and whose rows the next one of its policy looks at: what they name need not be stored
/// again. See [`State::running_of`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Running {
    /// Its policy.
    pub policy: String,
    /// Slot that began it.
    pub slot: Slot,
    /// What it reads.
    pub volumes: Vec<BackupVolume>,
    /// Volumes of its policy that could not be opened.
    pub missing: Vec<VolumeId>,
    /// When it began, wall clock in nanoseconds, for people.
    pub wall_start_ns: i64,
    /// What of its volumes is in committed segments.
    pub done: Stretches,
    /// What its commits say was done.
    pub totals: Totals,
    /// The newest change times that its commits met, in seconds.
    pub newest_secs: BTreeMap<VolumeId, i64>,
    /// It was stopped: no node goes on with it before it is asked for.
    pub is_stopped: bool,
}

impl Running {
    /// Its volumes, with the newest change time met on each so far.
    pub fn with_newest(&self) -> Vec<BackupVolume> {
        let newest = |volume: &BackupVolume| self.newest_secs.get(&volume.volume).copied();
        self.volumes.iter().map(|volume| BackupVolume { newest_secs: newest(volume), ..*volume }).collect()
    }
}

/// A recovery point.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Point {
    /// The backup that made it: the cut.
    pub backup: BackupId,
    /// Its policy.
    pub policy: String,
    /// The volumes in it.
    pub volumes: Vec<BackupVolume>,
    /// Volumes that its policy had and that could not be opened.
    pub missing: Vec<VolumeId>,
    /// When it began and ended, wall clock in nanoseconds, for people.
    pub wall_ns: (i64, i64),
    /// How it went.
    pub status: PointStatus,
    /// What it did.
    pub totals: Totals,
}

/// A reader's hold on the tables as of a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Pin {
    /// Slot of the pin record.
    pub slot: Slot,
    /// Who asked.
    pub node: NodeId,
    /// Last counter.
    pub counter: u64,
}

/// The fold of all records up to a slot.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct State {
    /// Epoch that holds here; 0 before the first.
    pub epoch: Epoch,
    /// Who holds it.
    pub holder: Author,
    /// Set when the holder yielded: to whom, or to anyone.
    pub yielded: Option<Option<NodeId>>,
    /// Policies by name, removed ones included.
    pub policies: BTreeMap<String, Policy>,
    /// Volumes by number.
    pub volumes: BTreeMap<VolumeId, Volume>,
    /// Number of the last backup that began.
    pub last_backup: BackupId,
    /// Backups in progress.
    pub running: BTreeMap<BackupId, Running>,
    /// Recovery points, ascending.
    pub points: Arc<BTreeMap<BackupId, Point>>,
    /// Backups given up, ascending: a reader that reads rows out of upload objects skips theirs.
    pub abandoned: Vec<BackupId>,
    /// Segments of each volume, ascending by (first inode, name).
    pub segments: BTreeMap<VolumeId, Arc<Vec<SegmentMeta>>>,
    /// Names that the tables refer to: objects and segments.
    pub live: Arc<NameSet>,
    /// Names retired: when.
    pub retired: Arc<BTreeMap<ObjectId, Slot>>,
    /// No new name may have this epoch or an older one.
    pub orphan_floor: Epoch,
    /// Pins.
    pub pins: BTreeMap<u64, Pin>,
    /// Committed checkpoints, ascending by slot, the newest few.
    pub checkpoints: Vec<CheckpointName>,
    /// How long a lease lasts, in nanoseconds, where that was said.
    pub lease_ns: Option<u64>,
    /// Policies whose last try is neither a point nor under way: what became of it.
    pub tried: BTreeMap<String, Tried>,
    /// Points of which people say something.
    pub marks: BTreeMap<BackupId, Mark>,
    /// What is known of garbage.
    pub garbage: Garbage,
    /// Features that were raised; unknown ones are none that are incompatible.
    pub features: Features,
    /// What the store has lost of all this.
    pub damage: Arc<Damage>,
    /// Points that stay for some time at least, and those that expired and can be brought back.
    pub guarded: Arc<Guarded>,
    /// Who may do what.
    pub access: Arc<Access>,
    /// Requests that a second subject has not answered.
    pub removals: Arc<Removals>,
}

fn require(holds: bool, why: Refusal) -> Result<(), Refusal> {
    if holds { Ok(()) } else { Err(why) }
}

impl State {
    /// Number that the next backup gets; `None` when all are used up.
    pub fn next_backup(&self) -> Option<BackupId> {
        self.last_backup.0.checked_add(1).map(BackupId)
    }

    /// Number that the next new volume gets; `None` when all are used up.
    pub fn next_volume(&self) -> Option<VolumeId> {
        let last = self.volumes.keys().next_back().map_or(0, |volume| volume.0);
        last.checked_add(1).map(VolumeId)
    }

    /// The latest point of a policy.
    pub fn last_point(&self, policy: &str) -> Option<&Point> {
        self.points.values().rev().find(|point| point.policy == policy)
    }

    /// The latest point of a policy that a volume is in.
    pub fn last_point_of(&self, policy: &str, volume: VolumeId) -> Option<(BackupId, &BackupVolume)> {
        self.points.values().rev().filter(|point| point.policy == policy).find_map(|point| {
            let found = point.volumes.iter().find(|found| found.volume == volume)?;
            Some((point.backup, found))
        })
    }

    /// The running backup of a policy: the last that began. Those before it are given up, but for their rows, when it ends.
    pub fn running_of(&self, policy: &str) -> Option<(BackupId, &Running)> {
        self.unfinished(policy).next_back()
    }

    /// The backups of a policy that began and did not end, ascending.
    pub fn unfinished(&self, policy: &str) -> impl DoubleEndedIterator<Item = (BackupId, &Running)> {
        self.running.iter().filter(move |(_, running)| running.policy == policy).map(|(&id, of)| (id, of))
    }

    /// The running backup of each policy that has one.
    pub fn at_work(&self) -> impl Iterator<Item = (BackupId, &Running)> {
        let is_last =
            |of: &(BackupId, &Running)| self.running_of(&of.1.policy).is_some_and(|last| last.0 == of.0);
        self.running.iter().map(|(&id, running)| (id, running)).filter(is_last)
    }

    /// The unfinished backups that make room when another backup of `policy` begins, each with all of its own policy before it: none while
    /// there is room. Else those of removed policies go, and of all others those that are not the last: nothing is at work on them. When that
    /// is not enough, one that is the last goes too: of `policy` itself, or the oldest of a policy that is not at work.
    pub fn to_give_up(&self, policy: &str, is_at_work: &dyn Fn(&str) -> bool) -> Vec<BackupId> {
        let is_full = self.running.len() >= RUNNING_MAX - UNFINISHED_MAX;
        let policies: BTreeSet<&str> = self.running.values().map(|running| running.policy.as_str()).collect();
        let (mut given_up, mut kept, mut left) = (Vec::new(), Vec::new(), self.running.len());
        for name in policies {
            let all: Vec<BackupId> = self.unfinished(name).map(|(backup, _)| backup).collect();
            let is_removed = self.policies.get(name).is_none_or(|policy| policy.removed);
            let gone = match is_full {
                _ if name == policy && all.len() >= UNFINISHED_MAX => all.len(),
                true if is_removed => all.len(),
                true => all.len().saturating_sub(1),
                false => 0,
            };
            left = left.saturating_sub(gone);
            given_up.extend(gone.checked_sub(1).and_then(|at| all.get(at)));
            if gone < all.len() && (name == policy || !is_at_work(name)) {
                kept.extend(all.last().map(|&last| (name != policy, last)));
            }
        }
        if left >= RUNNING_MAX {
            given_up.extend(kept.iter().min().map(|&(_, last)| last));
        }
        given_up.sort_unstable();
        given_up
    }

    /// Whether a node should go on with a backup: the running one of some policy, unless that was stopped.
    pub fn has_work(&self) -> bool {
        self.at_work().any(|(_, running)| !running.is_stopped)
    }

    /// What a record leaves unfinished that no node goes on with: the record that gives it up, to be written behind it.
    pub fn given_up_with(&self, record: &Record) -> Option<Record> {
        let Record::PolicyRemoved { name, .. } = record else { return None };
        self.running_of(name).map(|(backup, _)| Record::BackupAbandoned { backup })
    }

    /// What the wall clock said when the last backup of a policy began: the last by the log, whatever the clocks say.
    pub fn last_start_ns(&self, policy: &str) -> Option<i64> {
        let point = self.last_point(policy).map(|point| (point.backup, point.wall_ns.0));
        let running = self.running_of(policy).map(|(backup, running)| (backup, running.wall_start_ns));
        point.max(running).map(|(_, wall_ns)| wall_ns)
    }

    /// Retired names that may be deleted: no pin is older than the retirement (G1).
    pub fn deletable(&self) -> impl Iterator<Item = ObjectId> + '_ {
        let oldest = self.oldest_pin();
        self.retired.iter().filter(move |&(_, &slot)| oldest.is_none_or(|pin| pin >= slot)).map(|(&id, _)| id)
    }

    /// Slot of the oldest pin.
    pub fn oldest_pin(&self) -> Option<Slot> {
        self.pins.values().map(|pin| pin.slot).min()
    }

    /// Applies a whole slot. On `Err` (index of the record, why) the state is spoilt: work on a copy.
    pub fn apply_slot(&mut self, header: &SlotHeader, records: &[Record]) -> Result<(), (usize, Refusal)> {
        let begins = matches!(records.first(), Some(Record::EpochBegun { .. }));
        if begins {
            require(header.epoch > self.epoch, Refusal::Epoch).map_err(|why| (0, why))?;
        } else {
            require(self.yielded.is_none(), Refusal::Order).map_err(|why| (0, why))?;
            require(header.epoch == self.epoch && self.epoch.0 > 0, Refusal::Epoch)
                .map_err(|why| (0, why))?;
            require(header.writer == self.holder, Refusal::Writer).map_err(|why| (0, why))?;
        }
        for (index, record) in records.iter().enumerate() {
            self.apply(header, index, record).map_err(|why| (index, why))?;
        }
        Ok(())
    }

    fn apply(&mut self, header: &SlotHeader, index: usize, record: &Record) -> Result<(), Refusal> {
        require(self.yielded.is_none() || index == 0, Refusal::Order)?;
        match record {
            Record::EpochBegun { epoch } => {
                require(index == 0, Refusal::Order)?;
                require(*epoch == header.epoch, Refusal::Epoch)?;
                self.epoch = *epoch;
                self.holder = header.writer;
                self.yielded = None;
            }
            Record::Yield { successor } => self.yielded = Some(*successor),
            Record::PolicyChanged(change) => self.change_policy(header.slot, change)?,
            Record::PolicyRemoved { name, revision } => {
                let policy = self.policies.get_mut(name).ok_or(Refusal::NoPolicy)?;
                require(!policy.removed, Refusal::NoPolicy)?;
                require(policy.revision.checked_add(1) == Some(*revision), Refusal::Revision)?;
                policy.revision = *revision;
                policy.slot = header.slot;
                policy.removed = true;
                self.tried.remove(name);
            }
            Record::BackupBegun(start) => self.begin_backup(header.slot, start)?,
            Record::Commit(commit) => self.commit(header, commit)?,
            Record::BackupEnded(end) => self.end_backup(header.slot, end)?,
            Record::BackupAbandoned { backup } => {
                let running = self.running.get(backup).ok_or(Refusal::Backup)?;
                let policy = running.policy.clone();
                self.give_up(&policy, *backup, header.slot)?;
            }
            Record::BackupStopped { backup, goes_on } => {
                let running = self.running.get_mut(backup).ok_or(Refusal::Backup)?;
                require(running.is_stopped == *goes_on, Refusal::Backup)?;
                running.is_stopped = !*goes_on;
            }
            Record::PointExpired { backup } => {
                require(self.points.contains_key(backup), Refusal::NoPoint)?;
                require(!self.is_held(*backup), Refusal::Held)?;
                require(self.guard_of(*backup).is_none(), Refusal::Guarded)?;
                self.remove_point(*backup);
            }
            Record::PolicyRenamed { from, to, revision } => {
                self.rename_policy(header.slot, from, to, *revision)?
            }
            Record::PointGuarded(news) => self.guard(news)?,
            Record::Access(news) => self.access(news)?,
            Record::Removal(news) => self.removal(header.slot, news)?,
            Record::Retire { objects } => {
                let in_use: BTreeSet<ObjectId> =
                    self.segments.values().flat_map(|list| list.iter().map(|segment| segment.id)).collect();
                for object in objects {
                    require(!in_use.contains(object), Refusal::NotLive)?;
                    self.retire(object, header.slot)?;
                }
            }
            Record::OrphanFloor { epoch } => self.raise_floor(header.slot, *epoch)?,
            Record::Pin { pin, node } => {
                require(!self.pins.contains_key(pin), Refusal::Pin)?;
                require(self.pins.len() < PINS_MAX, Refusal::Full(Bound::Pins))?;
                self.pins.insert(*pin, Pin { slot: header.slot, node: *node, counter: 0 });
            }
            Record::PinRefreshed { pin, counter } => {
                let held = self.pins.get_mut(pin).ok_or(Refusal::Pin)?;
                require(*counter > held.counter, Refusal::Pin)?;
                held.counter = *counter;
            }
            Record::Unpin { pin } => {
                self.pins.remove(pin).ok_or(Refusal::Pin)?;
            }
            Record::Checkpoint(name) => {
                let newest = self.checkpoints.last().map_or(Slot(0), |newest| newest.slot);
                require(name.slot < header.slot && name.slot > newest, Refusal::Checkpoint)?;
                if self.checkpoints.len() == CHECKPOINTS_MAX {
                    self.checkpoints.remove(0);
                }
                self.checkpoints.push(*name);
            }
            Record::Damage(news) => self.add_damage(news),
            Record::Swept(swept) => Arc::make_mut(&mut self.damage).swept(swept),
            Record::PointMarked(mark) => self.mark(mark)?,
            Record::Garbage(news) => self.garbage_news(header, news)?,
            Record::FeaturesRaised(features) => self.raise(features)?,
            Record::BackupTried(tried) => {
                let is_there = self.policies.get(&tried.policy).is_some_and(|policy| !policy.removed);
                require(is_there, Refusal::NoPolicy)?;
                self.tried.insert(tried.policy.clone(), tried.clone());
            }
            Record::LeaseSet { lease_ns } => {
                require((LEASE_NS_MIN..=LEASE_NS_MAX).contains(lease_ns), Refusal::Lease)?;
                self.lease_ns = Some(*lease_ns);
            }
        }
        Ok(())
    }

    /// A backup that runs, or that stopped and whose rows are kept, may have taken over or stored what is bad from now on, from whichever point it
    /// compares each volume with: its point is damaged until a check has looked at all of it. One that begins later knows better.
    pub(super) fn add_damage(&mut self, news: &DamageNews) {
        let (points, running) = (&self.points, &self.running);
        let exists = |point: &BackupId| points.contains_key(point) || running.contains_key(point);
        let damage = Arc::make_mut(&mut self.damage);
        if damage.add(news, &self.live, &exists) {
            damage.points.extend(running.keys());
        }
    }

    /// The points that are damaged no more when only `still` need something lost. A running backup is none of them: its rows are not all there.
    pub fn sound_but(&self, still: &BTreeSet<BackupId>) -> Vec<BackupId> {
        let is_point = |point: &&BackupId| self.points.contains_key(point);
        self.damage.points.difference(still).filter(is_point).copied().collect()
    }

    /// Whether someone holds a point.
    pub fn is_held(&self, backup: BackupId) -> bool {
        self.marks.get(&backup).is_some_and(Mark::is_held)
    }

    fn mark(&mut self, news: &PointMark) -> Result<(), Refusal> {
        require(self.points.contains_key(&news.backup), Refusal::NoPoint)?;
        require(self.leaving(news.backup).is_none(), Refusal::Leaving)?;
        let mut mark = self.marks.get(&news.backup).cloned().unwrap_or_default();
        mark.change(&news.part);
        if mark == Mark::default() {
            self.marks.remove(&news.backup);
            return Ok(());
        }
        let has_room = self.marks.len() < MARKS_MAX || self.marks.contains_key(&news.backup);
        require(has_room, Refusal::Full(Bound::Marks))?;
        self.marks.insert(news.backup, mark);
        Ok(())
    }

    pub(super) fn raise(&mut self, features: &Features) -> Result<(), Refusal> {
        let new = features.keys().filter(|name| !self.features.contains_key(name)).count();
        require(self.features.len() + new <= FEATURES_MAX, Refusal::Full(Bound::Features))?;
        self.features.extend(features);
        Ok(())
    }

    pub(super) fn remove_point(&mut self, backup: BackupId) {
        Arc::make_mut(&mut self.points).remove(&backup);
        self.marks.remove(&backup);
        if !self.guarded.is_empty() {
            Arc::make_mut(&mut self.guarded).forget(&backup);
        }
        self.forget_point(&backup);
    }

    fn forget_point(&mut self, backup: &BackupId) {
        if self.damage.points.contains(backup) {
            Arc::make_mut(&mut self.damage).points.remove(backup);
        }
    }

    fn change_policy(&mut self, slot: Slot, change: &PolicyChange) -> Result<(), Refusal> {
        let before = self.policies.get(&change.name).map_or(0, |policy| policy.revision);
        require(before.checked_add(1) == Some(change.revision), Refusal::Revision)?;
        require(before > 0 || self.policies.len() < POLICIES_MAX, Refusal::Full(Bound::Policies))?;
        let mut volumes: Vec<VolumeId> = Vec::with_capacity(change.volumes.len());
        for (volume, device) in &change.volumes {
            require(!volumes.contains(volume) && volume.0 > 0, Refusal::Volume)?;
            match self.volumes.get_mut(volume) {
                Some(known) => {
                    require(known.policy == change.name, Refusal::Volume)?;
                    known.device.clone_from(device);
                }
                None => {
                    require(self.volumes.len() < VOLUMES_MAX, Refusal::Full(Bound::Volumes))?;
                    require(self.next_volume() == Some(*volume), Refusal::Volume)?;
                    self.volumes
                        .insert(*volume, Volume { policy: change.name.clone(), device: device.clone() });
                }
            }
            volumes.push(*volume);
        }
        let body = Arc::from(change.body.as_slice());
        let policy = Policy { revision: change.revision, slot, removed: false, body, volumes };
        self.policies.insert(change.name.clone(), policy);
        self.tried.remove(&change.name);
        Ok(())
    }

    fn begin_backup(&mut self, slot: Slot, start: &BackupStart) -> Result<(), Refusal> {
        require(self.next_backup() == Some(start.backup), Refusal::Backup)?;
        let policy = self.policies.get(&start.policy).ok_or(Refusal::NoPolicy)?;
        require(!policy.removed, Refusal::NoPolicy)?;
        require(self.unfinished(&start.policy).count() < UNFINISHED_MAX, Refusal::Backup)?;
        require(self.running.len() < RUNNING_MAX, Refusal::Full(Bound::Running))?;
        let ascending = start.volumes.windows(2).all(|pair| pair[0].volume < pair[1].volume);
        let known =
            |volume: &BackupVolume| policy.volumes.contains(&volume.volume) && volume.newest_secs.is_none();
        let known = start.volumes.iter().all(known);
        require(ascending && known && !start.volumes.is_empty(), Refusal::Volume)?;
        let ascending = start.missing.is_sorted_by(|a, b| a < b);
        let is_read = |missing: &VolumeId| start.volumes.iter().any(|volume| volume.volume == *missing);
        let known = |missing: &VolumeId| policy.volumes.contains(missing) && !is_read(missing);
        require(ascending && start.missing.iter().all(known), Refusal::Volume)?;
        self.last_backup = start.backup;
        let running = Running {
            policy: start.policy.clone(),
            slot,
            volumes: start.volumes.clone(),
            missing: start.missing.clone(),
            wall_start_ns: start.wall_start_ns,
            done: Stretches::default(),
            totals: Totals::default(),
            newest_secs: BTreeMap::new(),
            is_stopped: false,
        };
        self.running.insert(start.backup, running);
        Ok(())
    }

    /// Rules C4, G1 and G2 for names; C4 for stretches. Segments of a running backup hold nothing else, so that it can be given up.
    fn commit(&mut self, header: &SlotHeader, commit: &Commit) -> Result<(), Refusal> {
        for id in &commit.removed {
            let found = self.segments.values().position(|list| list.iter().any(|segment| segment.id == *id));
            let volume =
                found.and_then(|at| self.segments.keys().nth(at).copied()).ok_or(Refusal::NotLive)?;
            if let Some(list) = self.segments.get_mut(&volume) {
                Arc::make_mut(list).retain(|segment| segment.id != *id);
                if list.is_empty() {
                    self.segments.remove(&volume);
                }
            }
            self.retire(id, header.slot)?;
        }
        for (id, _) in &commit.objects {
            self.add_name(id, header.epoch)?;
        }
        for segment in &commit.segments {
            let of = commit.backup;
            require(of.0 == 0 || segment.is_only_of(of), Refusal::Segment)?;
            self.add_name(&segment.id, header.epoch)?;
            self.add_segment(segment)?;
        }
        if commit.backup.0 == 0 {
            // Those that enter with segments hold blocks, which rows there refer to (G5).
            if commit.segments.is_empty() {
                self.garbage.carried(&commit.objects);
            }
            let counts = !commit.progress.is_empty()
                || commit.totals != Totals::default()
                || commit.newest_secs.is_some();
            return require(!counts, Refusal::Progress);
        }
        let running = self.running.get_mut(&commit.backup).ok_or(Refusal::Backup)?;
        for stretch in &commit.progress {
            require(running.volumes.iter().any(|volume| volume.volume == stretch.volume), Refusal::Volume)?;
            running.done.add(stretch)?;
            if let Some(secs) = commit.newest_secs {
                let newest = running.newest_secs.entry(stretch.volume).or_insert(secs);
                *newest = secs.max(*newest);
            }
        }
        running.totals = running.totals.plus(&commit.totals);
        Ok(())
    }

    fn add_name(&mut self, id: &ObjectId, epoch: Epoch) -> Result<(), Refusal> {
        require(id.epoch > self.orphan_floor && id.epoch <= epoch, Refusal::Gone)?;
        require(!self.retired.contains_key(id) && !self.garbage.buried.contains(id), Refusal::Gone)?;
        require(!self.live.contains(id), Refusal::Duplicate)?;
        require(self.live.runs() < NAME_RUNS_MAX, Refusal::Full(Bound::NameRuns))?;
        Arc::make_mut(&mut self.live).insert(id);
        Ok(())
    }

    fn add_segment(&mut self, segment: &SegmentMeta) -> Result<(), Refusal> {
        require(
            segment.first_inode <= segment.last_inode && segment.backup_min <= segment.backup_max,
            Refusal::Segment,
        )?;
        require(segment.backup_max <= self.last_backup, Refusal::Segment)?;
        let mut running = self.running.range(segment.backup_min..=segment.backup_max);
        let apart = |(&backup, running): (&BackupId, &Running)| {
            let is_of = |volume: &BackupVolume| volume.volume == segment.volume;
            segment.is_only_of(backup) || !running.volumes.iter().any(is_of)
        };
        require(running.all(apart), Refusal::Segment)?;
        require(self.volumes.contains_key(&segment.volume), Refusal::Volume)?;
        let total: usize = self.segments.values().map(|list| list.len()).sum();
        require(total < SEGMENTS_MAX, Refusal::Full(Bound::Segments))?;
        let list = Arc::make_mut(self.segments.entry(segment.volume).or_default());
        let at =
            list.partition_point(|other| (other.first_inode, other.id) < (segment.first_inode, segment.id));
        list.insert(at, *segment);
        Ok(())
    }

    pub(super) fn retire(&mut self, id: &ObjectId, slot: Slot) -> Result<(), Refusal> {
        require(self.live.contains(id), Refusal::NotLive)?;
        require(self.retired.len() < RETIRED_MAX, Refusal::Full(Bound::Retired))?;
        require(self.live.runs() < NAME_RUNS_MAX, Refusal::Full(Bound::NameRuns))?;
        Arc::make_mut(&mut self.live).remove(id);
        Arc::make_mut(&mut self.retired).insert(*id, slot);
        if self.damage.distrusts(id) {
            Arc::make_mut(&mut self.damage).forget(id);
        }
        Ok(())
    }

    /// Takes a running backup's segments out of the tables: merges keep them apart from all others.
    fn drop_rows(&mut self, backup: BackupId, slot: Slot) -> Result<(), Refusal> {
        let mut gone = Vec::new();
        self.segments.retain(|_, list| {
            gone.extend(list.iter().filter(|segment| segment.is_only_of(backup)).map(|segment| segment.id));
            if list.iter().any(|segment| segment.is_only_of(backup)) {
                Arc::make_mut(list).retain(|segment| !segment.is_only_of(backup));
            }
            !list.is_empty()
        });
        gone.iter().try_for_each(|id| self.retire(id, slot))
    }

    /// Gives up a policy's unfinished backups up to `last`.
    fn give_up(&mut self, policy: &str, last: BackupId, slot: Slot) -> Result<(), Refusal> {
        let given_up: Vec<BackupId> =
            self.unfinished(policy).map(|(backup, _)| backup).filter(|&backup| backup <= last).collect();
        for backup in given_up {
            if let Some(running) = self.running.remove(&backup) {
                self.garbage.backup_over(running.slot, slot);
            }
            require(self.abandoned.len() < ABANDONED_MAX, Refusal::Full(Bound::Abandoned))?;
            self.forget_point(&backup);
            let at = self.abandoned.partition_point(|other| *other < backup);
            self.abandoned.insert(at, backup);
            self.drop_rows(backup, slot)?;
        }
        Ok(())
    }

    fn end_backup(&mut self, slot: Slot, end: &BackupEnd) -> Result<(), Refusal> {
        require(self.points.len() < POINTS_MAX, Refusal::Full(Bound::Points))?;
        let running = self.running.remove(&end.backup).ok_or(Refusal::Backup)?;
        require(!running.is_stopped, Refusal::Backup)?;
        let whole = running.volumes.iter().all(|volume| running.done.is_whole(volume.volume));
        require(whole, Refusal::Gap)?;
        self.garbage.backup_over(running.slot, slot);
        self.give_up(&running.policy, end.backup, slot)?;
        self.tried.remove(&running.policy);
        let status =
            if running.missing.is_empty() { running.totals.status() } else { PointStatus::WithErrors };
        let point = Point {
            backup: end.backup,
            volumes: running.with_newest(),
            policy: running.policy,
            missing: running.missing,
            wall_ns: (running.wall_start_ns, end.wall_end_ns),
            status,
            totals: running.totals,
        };
        Arc::make_mut(&mut self.points).insert(end.backup, point);
        Ok(())
    }

    /// Below the floor nothing new can appear, so retired names there need no entry of their own once no pin holds them:
    /// the scan for orphans finds them.
    fn raise_floor(&mut self, slot: Slot, floor: Epoch) -> Result<(), Refusal> {
        require(floor > self.orphan_floor && floor < self.epoch, Refusal::Floor)?;
        self.orphan_floor = floor;
        self.garbage_floor(slot, floor);
        Ok(())
    }
}

#[cfg(test)]
#[path = "state_test.rs"]
mod tests;
