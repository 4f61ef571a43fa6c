//! The life of a backup at the coordinator. See the picture in the folder's own text. Source: ours.
//!
//! | phase | waits for | next |
//! |---|---|---|
//! | `Queued` | its turn: at most [`RUNNING_MAX`] backups go on at once, and who asked first begins first | `Probing` |
//! | `Probing` | every volume looked at by a node that can read it | `Beginning`, `Running`, or refused |
//! | `Beginning` | the commit of "backup begun" | `Running` |
//! | `Running` | reports, until the stretches tile every volume | `Ending`; `Probing` again when nodes fail |
//! | `Ending` | the commit of "backup ended" | gone: a recovery point |
//! | `Stopped` | a command that starts it again | `Queued` |

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use super::probes::PROBES_NODE_MAX;
use super::{Asker, Assigned, Coordinator, Now, Pending, RUNNING_MAX, bounds, share};
use crate::backplane::message::Message;
use crate::format::access::AccessNews;
use crate::format::record::{BackupStart, BackupVolume, Commit, PointStatus, Record, Totals};
use crate::id::{BackupId, NodeId, VolumeId};
use crate::log::state::{Refusal, Running, State};
use crate::policy::Policy;
use crate::policy::select::unmatched_include;
use crate::work::{AssignmentId, Found, Reply};

/// How long a node may take to open a volume, in nanoseconds: a sweep that finds the paths of a policy is part of it. A node opens one after
/// the other, so the time counts from its last answer.
const PROBE_NS: u64 = 120_000_000_000;
/// Failures without any progress after which a backup is given up until a command starts it again.
const FAILURES_MAX: u32 = 6;
/// For how long a node that failed is passed over for the volume, in nanoseconds; it doubles with each failure.
const BAR_NS: u64 = 5_000_000_000;
/// After this time, volumes of a running backup that no node could open are looked at again, in nanoseconds: what kept a node from it
/// may be over, and no node may come to say so.
pub(super) const RELOOK_NS: u64 = 60_000_000_000;

/// A volume being looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Look {
    /// Who was asked, under which number, and when.
    pub(super) asked: Option<(NodeId, u64, u64)>,
    pub(super) tried: Vec<NodeId>,
    pub(super) found: Option<Found>,
    /// What nodes said that could not open it.
    pub(super) refused: Vec<(NodeId, String)>,
    pub(super) failed: Option<String>,
}

impl Look {
    /// Why no node can read the volume: each node that was asked, and its words.
    fn no_reader(&self, device: &str) -> String {
        let why = self.tried.iter().map(|node| {
            let said = self.refused.iter().rev().find(|(of, _)| of == node);
            format!("node {node}: {}", said.map_or("no answer", |(_, what)| what.as_str()))
        });
        format!("{device}: no node could open it ({})", why.collect::<Vec<_>>().join("; "))
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Queued,
    Probing { looks: BTreeMap<VolumeId, Look>, since_ns: u64 },
    Beginning { found: BTreeMap<VolumeId, Found> },
    Running { backup: BackupId, found: BTreeMap<VolumeId, Found> },
    Ending { backup: BackupId },
    Stopped,
}

/// A backup that was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Job {
    pub(super) phase: Phase,
    /// Its place in the queue: of those with the highest priority, who asked first has the smallest.
    pub(super) place: (Reverse<i8>, u64),
    pub(super) askers: Vec<Asker>,
    /// Who asked for it first, where that is to be in the log.
    pub(super) by: Option<AccessNews>,
    /// Clients asked for it, and nothing else.
    pub(super) is_asked_for: bool,
    /// Failures since the last progress.
    failures: u32,
    /// Stopped by a command: only a command starts it again.
    pub(super) on_request: bool,
    /// Nodes passed over for a volume until then.
    pub(super) bars: BTreeMap<(NodeId, VolumeId), u64>,
    /// When volumes that no node could open are looked at again.
    pub(super) relook_ns: u64,
    /// Since when it goes on without volumes of its backup that no node can open.
    pub(super) without_since_ns: Option<u64>,
    /// What nodes said of those volumes.
    pub(super) without_why: String,
    /// It was wanted again while nothing of it went on: it does not wait for such volumes for ever.
    pub(super) wanted_again: bool,
    /// Another backup begins, without them.
    pub(super) begins_anew: bool,
}

impl Job {
    pub(super) fn is_stopped(&self) -> bool {
        self.phase == Phase::Stopped
    }

    pub(super) fn is_queued(&self) -> bool {
        self.phase == Phase::Queued
    }

    /// Whether it takes one of the places of backups that go on at once.
    pub(super) fn is_at_work(&self) -> bool {
        !self.is_stopped() && !self.is_queued()
    }

    /// Its place among those whose backup has not begun.
    pub(super) fn place(&self) -> (Reverse<i8>, u64) {
        self.place
    }

    /// Its backup, once it runs.
    pub(super) fn backup(&self) -> Option<BackupId> {
        match self.phase {
            Phase::Running { backup, .. } | Phase::Ending { backup } => Some(backup),
            Phase::Queued | Phase::Probing { .. } | Phase::Beginning { .. } | Phase::Stopped => None,
        }
    }

    /// What is known of its volumes.
    pub(super) fn found(&self) -> Option<&BTreeMap<VolumeId, Found>> {
        match &self.phase {
            Phase::Running { found, .. } => Some(found),
            Phase::Queued
            | Phase::Probing { .. }
            | Phase::Beginning { .. }
            | Phase::Ending { .. }
            | Phase::Stopped => None,
        }
    }
}

/// What gives the point of a backup `count` faults that are not an item's; nothing when there are none.
fn with_faults(backup: BackupId, count: u64) -> Option<Record> {
    let totals = Totals { faults: count, ..Totals::default() };
    (count > 0).then(|| Record::Commit(Commit { backup, totals, ..Commit::default() }))
}

pub(super) fn looks(state: &State, policy: &str) -> BTreeMap<VolumeId, Look> {
    let volumes = state.policies.get(policy).map(|policy| policy.volumes.as_slice()).unwrap_or_default();
    volumes.iter().map(|&volume| (volume, Look::default())).collect()
}

impl Coordinator {
    /// Starts a backup, or joins the one that runs.
    ///
    /// One that has waited for a while for volumes that no node can open makes way for one without them: the others need a point too.
    pub(super) fn start(&mut self, now: Now<'_>, policy: &str, asker: Option<Asker>) {
        if now.state.policies.get(policy).is_none_or(|policy| policy.removed) {
            let why = format!("there is no policy {policy}; make one with `windlass policy set {policy}`");
            return asker.into_iter().for_each(|asker| self.reply(asker, Reply::Refused(why.clone())));
        }
        let makes_way = self.jobs.get(policy).is_some_and(|job| self.makes_way(now, job));
        if let Some(job) = self.jobs.get_mut(policy).filter(|job| !job.is_stopped()) {
            if makes_way {
                job.askers.extend(asker);
                job.begins_anew = true;
                job.phase = Phase::Probing { looks: looks(now.state, policy), since_ns: now.ns };
                return;
            }
            let is_unsure = job.backup().is_none() || job.without_since_ns.is_some();
            job.wanted_again |= asker.is_some() && is_unsure && now.state.running_of(policy).is_some();
            match job.backup() {
                None => job.askers.extend(asker),
                Some(backup) => {
                    asker.into_iter().for_each(|asker| self.reply(asker, Reply::Done(Some(backup))));
                }
            }
            return;
        }
        let job = Job {
            phase: Phase::Queued,
            place: self.next_place(now.state, policy),
            by: None,
            is_asked_for: asker.is_some(),
            askers: asker.into_iter().collect(),
            failures: 0,
            on_request: false,
            bars: BTreeMap::new(),
            relook_ns: 0,
            without_since_ns: None,
            without_why: String::new(),
            wanted_again: false,
            begins_anew: false,
        };
        self.jobs.insert(policy.to_owned(), job);
    }

    pub(super) fn next_place(&mut self, state: &State, policy: &str) -> (Reverse<i8>, u64) {
        self.places += 1;
        let entry = state.policies.get(policy);
        let priority =
            entry.and_then(|entry| Policy::parse(&entry.body).ok()).map_or(0, |policy| policy.priority);
        (Reverse(priority), self.places)
    }

    /// Lets those begin whose turn it is. A client whose backup has to wait gets that as its reply: the backup stays in the queue.
    fn admit(&mut self, now: Now<'_>) {
        loop {
            let queued = self.jobs.iter().filter(|(_, job)| job.is_queued());
            let Some(next) = queued.min_by_key(|(_, job)| job.place).map(|(policy, _)| policy.clone()) else {
                return;
            };
            let at_work = self.jobs.values().filter(|job| job.is_at_work()).count();
            if at_work >= RUNNING_MAX && !self.make_way(now) {
                break;
            }
            if let Some(job) = self.jobs.get_mut(&next) {
                job.phase = Phase::Probing { looks: looks(now.state, &next), since_ns: now.ns };
            }
        }
        let queued = self.jobs.values_mut().filter(|job| job.is_queued());
        let told: Vec<Asker> = queued.flat_map(|job| std::mem::take(&mut job.askers)).collect();
        told.into_iter().for_each(|asker| self.reply(asker, Reply::Done(None)));
    }

    pub(super) fn revoke_all(&mut self, backup: Option<BackupId>) {
        let of = |a: &&Assigned| Some(a.assignment.backup) == backup;
        let out: Vec<(NodeId, AssignmentId)> =
            self.assigned.values().filter(of).map(|a| (a.node, a.assignment.id)).collect();
        for (node, id) in out {
            self.revoke(node, id);
        }
    }

    /// Moves every backup on.
    pub(super) fn turn_jobs(&mut self, now: Now<'_>) {
        self.admit(now);
        let asked = self.jobs.values().filter_map(|job| match &job.phase {
            Phase::Probing { looks, .. } => Some(looks.values()),
            _ => None,
        });
        let asked: Vec<NodeId> =
            asked.flatten().filter_map(|look| look.asked.map(|(node, ..)| node)).collect();
        self.probes.begin(asked.into_iter());
        // By priority; then who asked first is served first: what is due again meanwhile comes behind all others.
        let mut policies: Vec<((Reverse<i8>, u64), String)> =
            self.jobs.iter().map(|(policy, job)| (job.place, policy.clone())).collect();
        policies.sort_unstable();
        for (_, policy) in policies {
            let Some(mut job) = self.jobs.remove(&policy) else { continue };
            let goes_on = match &mut job.phase {
                Phase::Probing { looks, since_ns } => {
                    let since_ns = *since_ns;
                    let mut looks = std::mem::take(looks);
                    self.turn_probing(now, &policy, job, &mut looks, since_ns)
                }
                Phase::Running { .. } => self.turn_running(now, &policy, job),
                Phase::Queued | Phase::Beginning { .. } | Phase::Ending { .. } | Phase::Stopped => Some(job),
            };
            if let Some(job) = goes_on {
                self.jobs.insert(policy, job);
            }
        }
    }

    /// Asks nodes about volumes; decides when all have an answer.
    fn turn_probing(
        &mut self,
        now: Now<'_>,
        policy: &str,
        mut job: Job,
        looks: &mut BTreeMap<VolumeId, Look>,
        since_ns: u64,
    ) -> Option<Job> {
        let patience = now.ns < self.adopt_until_ns.max(since_ns.saturating_add(2 * self.settings.beat_ns))
            && !self.roster.is_complete();
        for (&volume, look) in looks.iter_mut() {
            if look.found.is_some() || look.failed.is_some() {
                continue;
            }
            if let Some((node, _, asked_ns)) = look.asked {
                let gone = self.roster.get(node).is_none_or(|node| !node.up);
                let due = asked_ns.max(self.probes.heard_ns(node)).saturating_add(PROBE_NS);
                if !gone && now.ns < due {
                    self.wake_at(due);
                    continue;
                }
                if !gone {
                    self.probes.is_silent(node, now.ns.saturating_add(PROBE_NS));
                }
                look.tried.push(node);
                look.asked = None;
            }
            let device = now.state.volumes.get(&volume).map_or("", |volume| volume.device.as_str());
            let silent = self.roster.readers(device).filter(|&node| self.probes.silent_at(node, now.ns));
            let silent: Vec<NodeId> = silent.filter(|node| !look.tried.contains(node)).collect();
            look.tried.extend(silent);
            let readers = self.roster.readers(device).filter(|node| !look.tried.contains(node));
            match readers.min_by_key(|&node| (self.probes.out(node), self.held(node), node)) {
                // The next answer makes room.
                Some(node) if self.probes.out(node) >= PROBES_NODE_MAX => {}
                Some(node) => {
                    self.probes.asked(node);
                    self.next_ask += 1;
                    look.asked = Some((node, self.next_ask, now.ns));
                    let (ask, policy) = (self.next_ask, policy.to_owned());
                    self.send(node, Message::Probe { ask, policy, volumes: vec![volume] });
                }
                None if patience => {
                    self.wake_at(self.adopt_until_ns.max(since_ns.saturating_add(2 * self.settings.beat_ns)));
                }
                None if look.tried.is_empty() => {
                    look.failed = Some(format!(
                        "no node that is up has a volume {device:?} in its board profile (or their weight is 0)"
                    ));
                }
                None => look.failed = Some(look.no_reader(device)),
            }
        }
        let open = looks.values().any(|look| look.found.is_none() && look.failed.is_none());
        if let Phase::Probing { looks: kept, .. } = &mut job.phase {
            *kept = std::mem::take(looks);
        }
        if open || patience && now.ns < self.adopt_until_ns {
            return Some(job);
        }
        self.decide(now, policy, job)
    }

    /// All volumes were looked at: begin with those that can be read, go on, or give up.
    fn decide(&mut self, now: Now<'_>, policy: &str, mut job: Job) -> Option<Job> {
        let Phase::Probing { looks, .. } = &job.phase else { return Some(job) };
        // Of the policy as it is by now: a volume that came meanwhile is read too, or named as missing.
        if self.pending().any(|pending| pending.changes(policy) || pending.stops(policy)) {
            return Some(job);
        }
        let known = now.state.policies.get(policy);
        if known
            .is_some_and(|known| !known.volumes.iter().collect::<BTreeSet<_>>().into_iter().eq(looks.keys()))
        {
            job.phase = Phase::Probing { looks: self::looks(now.state, policy), since_ns: now.ns };
            self.wake_at(now.ns);
            return Some(job);
        }
        let found: BTreeMap<VolumeId, Found> =
            looks.iter().filter_map(|(&volume, look)| Some((volume, look.found?))).collect();
        let failed = looks.iter().filter_map(|(&volume, look)| Some((volume, look.failed.clone()?)));
        let (missing, why): (Vec<VolumeId>, Vec<String>) = failed.unzip();
        let why = why.join("; ");
        let begins_anew = std::mem::take(&mut job.begins_anew);
        job.wanted_again &= !begins_anew;
        if missing.is_empty() {
            (job.without_since_ns, job.wanted_again) = (None, false);
        } else {
            let waits = |of: &(BackupId, &Running)| self.has_to_wait(now, of.0, of.1, &found, &missing);
            if let Some((backup, _)) = now.state.running_of(policy).filter(|of| !begins_anew && waits(of)) {
                return self.go_on_without(now, policy, job, backup, found, &why);
            }
            if found.is_empty() {
                return self.give_up(now, policy, job, &why);
            }
        }
        if now.state.running_of(policy).is_none()
            && let Some(why) = bounds::refusal(now.state)
        {
            return self.give_up(now, policy, job, &why.to_string());
        }
        let volumes: Vec<BackupVolume> = found.values().map(|found| found.volume).collect();
        let Some(next) = now.state.next_backup() else {
            return self.give_up(now, policy, job, "all backup numbers are used up");
        };
        let mut records = Vec::new();
        if let Some((backup, running)) = now.state.running_of(policy) {
            if self.may_go_on(now, backup, running, &volumes, &missing) {
                return self.goes_on(now, policy, job, backup, found);
            }
            // Its rows stay for the new one to look at, so that nothing is stored twice.
            self.revoke_all(Some(backup));
        }
        // One number for one backup: the next begins when this one has.
        if self.pending().any(|pending| matches!(pending, Pending::Begin { .. })) {
            job.begins_anew = begins_anew;
            return Some(job);
        }
        let is_at_work = |name: &str| self.jobs.get(name).is_some_and(Job::is_at_work);
        let given_up = now.state.to_give_up(policy, &is_at_work).into_iter();
        records.extend(given_up.map(|backup| Record::BackupAbandoned { backup }));
        let start = BackupStart {
            backup: next,
            policy: policy.to_owned(),
            volumes,
            wall_start_ns: now.wall_ns,
            missing,
        };
        if !start.missing.is_empty() {
            let what = format!("backup {next} of {policy} will be without these volumes: {why}");
            self.errors.add_of(policy, now.wall_ns, None, what);
        }
        records.push(Record::BackupBegun(start));
        records.extend(with_faults(next, self.name_unmatched(now, policy, &found)));
        let records = job.by.take().map(Record::Access).into_iter().chain(records).collect();
        self.queue.push_back(Pending::Begin { policy: policy.to_owned(), backup: next, records });
        job.phase = Phase::Beginning { found };
        Some(job)
    }

    /// Names the include patterns that match nothing on any volume; how many they are.
    fn name_unmatched(&mut self, now: Now<'_>, policy: &str, found: &BTreeMap<VolumeId, Found>) -> u64 {
        let common = found.values().map(|found| found.unmatched).reduce(|one, other| one.of_both(&other));
        let Some(common) = common else { return 0 };
        let body = now.state.policies.get(policy).and_then(|policy| Policy::parse(&policy.body).ok());
        let include = body.map(|policy| policy.include).unwrap_or_default();
        let mut count = 0;
        for text in common.places().filter_map(|at| include.get(at)) {
            count += 1;
            let what = format!("backup of {policy}: {}", unmatched_include(text));
            self.errors.add_of(policy, now.wall_ns, None, what);
        }
        count
    }

    /// A volume of a running backup cannot be read now: it goes on with the others and waits for a node that can.
    fn go_on_without(
        &mut self,
        now: Now<'_>,
        policy: &str,
        mut job: Job,
        backup: BackupId,
        found: BTreeMap<VolumeId, Found>,
        why: &str,
    ) -> Option<Job> {
        log::warn!("backup: waits for a reader policy={policy} backup={backup} reason=\"{why}\"");
        let way_out = format!("`windlass stop {policy}` leaves it to a command that can read the volume");
        job.without_why = format!("{why}; {way_out}");
        self.errors.add_of(
            policy,
            now.wall_ns,
            None,
            format!("backup of {policy} waits: {}", job.without_why),
        );
        job.relook_ns = now.ns.saturating_add(RELOOK_NS);
        job.without_since_ns.get_or_insert(now.ns);
        self.goes_on(now, policy, job, backup, found)
    }

    /// A node has come: what could not be done without it is looked at again.
    pub(super) fn revive(&mut self, now: Now<'_>) {
        for (policy, job) in &mut self.jobs {
            let wanting = match &job.phase {
                Phase::Stopped => !job.on_request && now.state.running_of(policy).is_some(),
                Phase::Running { backup, found } => {
                    let running = now.state.running.get(backup);
                    running.is_some_and(|r| r.volumes.iter().any(|v| !found.contains_key(&v.volume)))
                }
                Phase::Queued | Phase::Probing { .. } | Phase::Beginning { .. } | Phase::Ending { .. } => {
                    false
                }
            };
            if wanting {
                job.failures = 0;
                job.phase = Phase::Probing { looks: looks(now.state, policy), since_ns: now.ns };
            }
        }
    }

    /// A backup goes on when its volumes are provably as they were; one whose state nothing proves, only when none of it was read, or all of
    /// it is done, or a worker has been at it all the time.
    fn may_go_on(
        &self,
        now: Now<'_>,
        backup: BackupId,
        running: &Running,
        found: &[BackupVolume],
        missing: &[VolumeId],
    ) -> bool {
        let as_it_was = |volume: &BackupVolume| self.is_as_it_was(now, backup, volume);
        running.volumes == found && running.missing == missing && found.iter().all(as_it_was)
    }

    fn is_as_it_was(&self, now: Now<'_>, backup: BackupId, volume: &BackupVolume) -> bool {
        let own = self.settings.errand.as_ref().and_then(|errand| errand.own);
        let mut taken = self.taken(now, backup, volume.volume);
        let is_proven = volume.state.is_some() || own == Some(backup);
        is_proven || taken.is_empty() || share::gaps(&mut taken).is_empty()
    }

    /// A running backup waits for a volume that it reads and that is missing now, when it may go on with all the others.
    fn has_to_wait(
        &self,
        now: Now<'_>,
        backup: BackupId,
        running: &Running,
        found: &BTreeMap<VolumeId, Found>,
        missing: &[VolumeId],
    ) -> bool {
        let same =
            |of: &Found| running.volumes.contains(&of.volume) && self.is_as_it_was(now, backup, &of.volume);
        // No other node will come to read it.
        self.settings.errand.is_none()
            && running.volumes.iter().any(|of| missing.contains(&of.volume))
            && found.values().all(same)
    }

    fn give_up(&mut self, now: Now<'_>, policy: &str, mut job: Job, why: &str) -> Option<Job> {
        let what = format!("backup of {policy}: {why}");
        self.try_failed(now, policy, &what);
        for asker in std::mem::take(&mut job.askers) {
            self.reply(asker, Reply::Refused(what.clone()));
        }
        let runs = now.state.running_of(policy).is_some();
        job.phase = Phase::Stopped;
        runs.then_some(job)
    }

    pub(super) fn begun(&mut self, now: Now<'_>, policy: &str, backup: BackupId) {
        log::info!("backup: begun policy={policy} point={backup}");
        self.merges.backups_changed();
        self.wake_at(now.ns);
        // One that was stopped meanwhile, and asked for again, is looked at again.
        let Some(job) = self.jobs.get_mut(policy) else { return };
        let Phase::Beginning { found } = &mut job.phase else { return };
        job.phase = Phase::Running { backup, found: std::mem::take(found) };
        let askers = std::mem::take(&mut job.askers);
        askers.into_iter().for_each(|asker| self.reply(asker, Reply::Done(Some(backup))));
    }

    pub(super) fn begin_refused(&mut self, now: Now<'_>, policy: &str, why: Refusal) {
        if let Some(mut job) = self.jobs.remove(policy) {
            // Another one ended meanwhile, and gave up what was to be given up.
            if why == Refusal::Backup {
                job.phase = Phase::Probing { looks: looks(now.state, policy), since_ns: now.ns };
                self.jobs.insert(policy.to_owned(), job);
                return;
            }
            let kept = self.give_up(now, policy, job, &why.to_string());
            kept.into_iter().for_each(|job| drop(self.jobs.insert(policy.to_owned(), job)));
        }
    }

    pub(super) fn ended(&mut self, now: Now<'_>, policy: &str, backup: BackupId) {
        if let Some(point) = now.state.points.get(&backup) {
            log::info!(
                "backup: ended policy={policy} point={backup} items={} bytes={} faults={} seconds={}",
                point.totals.items,
                point.totals.bytes_logical,
                point.totals.faults,
                point.wall_ns.1.saturating_sub(point.wall_ns.0) / 1_000_000_000
            );
            if point.status == PointStatus::Complete {
                self.errors.over(policy);
            }
        }
        self.merges.backups_changed();
        if self.jobs.get(policy).is_some_and(|job| job.backup() == Some(backup)) {
            self.jobs.remove(policy);
        }
        self.expire(now, policy);
    }

    /// Its policy was removed, and what was unfinished of it given up.
    pub(super) fn policy_removed(&mut self, policy: &str) {
        let Some(job) = self.jobs.remove(policy) else { return };
        if let Some(backup) = job.backup() {
            log::warn!(
                "backup: ended without a point policy={policy} backup={backup} reason=\"its policy was removed while it ran\""
            );
        }
        self.revoke_all(job.backup());
        for asker in job.askers {
            self.reply(asker, Reply::Refused(format!("policy {policy} was removed")));
        }
    }

    pub(super) fn end_refused(&mut self, now: Now<'_>, policy: &str, why: Refusal) {
        self.try_failed(now, policy, &format!("the end of the backup of {policy} was refused: {why}"));
        if let Some(job) = self.jobs.get_mut(policy) {
            job.phase = Phase::Stopped;
        }
    }

    /// A node's answer about volumes.
    pub(super) fn probed(
        &mut self,
        now: Now<'_>,
        from: NodeId,
        ask: u64,
        found: Vec<Found>,
        failed: Vec<(VolumeId, String)>,
    ) {
        let mut notes = Vec::new();
        self.probes.heard(from, now.ns);
        for (policy, job) in &mut self.jobs {
            let Phase::Probing { looks, .. } = &mut job.phase else { continue };
            for (volume, look) in looks {
                if look.asked.is_none_or(|(node, asked, _)| (node, asked) != (from, ask)) {
                    continue;
                }
                look.asked = None;
                look.tried.push(from);
                look.found = found.iter().find(|found| found.volume.volume == *volume).copied();
                let refused = failed.iter().filter(|(of, _)| of == volume);
                look.refused.extend(refused.map(|(_, what)| (from, what.clone())));
                let said = failed.iter().filter(|(of, _)| of == volume);
                notes.extend(said.map(|(_, what)| (policy.clone(), what.clone())));
            }
        }
        for (policy, what) in notes {
            self.errors.add_of(&policy, now.wall_ns, Some(from), what);
        }
    }

    /// A report was committed: failures before it do not count any more.
    pub(super) fn job_advanced(&mut self, backup: BackupId) {
        if let Some(job) = self.jobs.values_mut().find(|job| job.backup() == Some(backup)) {
            job.failures = 0;
        }
    }

    /// A worker could not do an assignment: it is passed over for a while, and the volumes are looked at again when no node works on
    /// them: one that has changed needs a new backup.
    pub(super) fn job_failed(
        &mut self,
        now: Now<'_>,
        backup: BackupId,
        volume: VolumeId,
        node: NodeId,
        what: &str,
    ) {
        let idle = !self.assigned.values().any(|a| a.assignment.backup == backup);
        let Some((policy, job)) = self.jobs.iter_mut().find(|(_, job)| job.backup() == Some(backup)) else {
            return;
        };
        job.failures += 1;
        let bar = BAR_NS << job.failures.min(FAILURES_MAX);
        job.bars.insert((node, volume), now.ns.saturating_add(bar));
        if job.failures >= FAILURES_MAX {
            let what = format!(
                "backup {backup} of {policy} stopped after {FAILURES_MAX} failures, the last: node {node}: {what}; \
                 `windlass backup {policy}` goes on"
            );
            let policy = policy.clone();
            self.stop_failed(now, &policy, backup, &what);
        } else if idle {
            job.phase = Phase::Probing { looks: looks(now.state, policy), since_ns: now.ns };
        }
    }
}
