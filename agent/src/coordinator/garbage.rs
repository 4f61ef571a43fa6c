//! Runs of garbage: what comes next, and what becomes of it. This coordinator's own node carries the steps out, one at a time, beside whatever
//! else it does; merges go to any node.
//!
//! ```text
//!  wanted --> clock --> Delete --> Carry --> Mark --rows that no point needs--> Purge (merges) --> Mark
//!                          ^         ^         |--objects of which little is live--> Move --> Mark
//!                          ^         ^         '--> condemned --.
//!                          |         '-------------------------'
//!                          '-- more rounds while there is something --> floor --> Orphans --> ended
//! ```
//!
//! | event | what follows |
//! |---|---|
//! | a command, or the time between runs is over and points went | a run is wanted: that is in the log, so the next coordinator goes on with it |
//! | condemned objects that a running backup may refer to | they wait; the run ends without them |
//! | the store puts a deletion off | counted; it comes again with the next run |
//! | a step fails | it comes again, [`FAULTS_MAX`] times; then the run ends with what it has |
//!
//! Every step can be repeated: what was committed is not done again, and what was not has changed nothing but orphans.
//!
//! Does not: judge what may be retired or deleted, which the log's state does (G1, G2, G4). Source: ours; `agent/doc/commit-log.md`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::{Coordinator, Now, Out, Pending, merges};
use crate::format::garbage::{Done, GarbageNews, Moves, Wanted};
use crate::format::record::{Commit, Record};
use crate::format::tail::TailKind;
use crate::gc::rewrite::{MOVE_HOMES_MAX, MOVE_OBJECTS_MAX};
use crate::gc::sweep::DELETE_NAMES_MAX;
use crate::gc::types::{Carried, Deleted, Marked, Move, Moved, Order, Outcome, Sparse, Step, Swept};
use crate::id::{ObjectId, VolumeId};
use crate::log::limits::{CONDEMNED_MAX, RECORD_OBJECTS_MAX};
use crate::log::state::{Refusal, State};
use crate::table::plan;
use crate::work::{AssignmentId, MergeOrder};

/// Steps that may fail in one run.
const FAULTS_MAX: u64 = 3;
/// Times that a run looks through the tables: each time it finds some thousand dead objects.
const ROUNDS_MAX: u32 = 64;
/// Condemned objects that are looked at in one step: what a record holds.
const CARRY_NAMES_MAX: usize = RECORD_OBJECTS_MAX;
/// How long a run waits for nodes to merge, in nanoseconds, while they have other work.
const PURGE_NS: u64 = 600_000_000_000;
/// Between two sweeps for orphans, in nanoseconds: a week. They are rare: what dead writers left.
const ORPHANS_EVERY_NS: i64 = 7 * 24 * 3600 * 1_000_000_000;
/// How long a pin may go without being refreshed, in nanoseconds: its reader has died, or was cut off for so long. Readers refresh it four times
/// as often; one that thaws later has the undelete window still.
const PIN_NS: u64 = 1_200_000_000_000;
/// Plain bytes that a run moves which nodes begin by themselves: some hours on a slow link.
const MOVE_BYTES_MAX: u64 = 64 << 30;
/// Requests for objects that a run makes to move what is live: as many as 64 GiB take in objects of the usual size.
const MOVE_REQUESTS_MAX: u64 = 1 << 16;
/// Retired names from which on a run is worth it without anything else: some dozens of merges.
const RETIRED_RUN_MIN: usize = 256;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    #[default]
    Rest,
    Delete,
    Carry,
    Mark,
    /// Until then.
    Purge(u64),
    /// Until then, for merges to end.
    Move(u64),
    Floor,
    Orphans,
    End,
}

impl Phase {
    fn text(self) -> &'static str {
        match self {
            Phase::Rest => "rests",
            Phase::Delete => "deletes what was retired",
            Phase::Carry => "looks at objects for the last time",
            Phase::Mark => "looks through the tables",
            Phase::Purge(_) => "rids the tables of rows",
            Phase::Move(_) => "moves what is live out of objects that are mostly dead",
            Phase::Floor | Phase::Orphans => "looks for orphans",
            Phase::End => "ends",
        }
    }
}

/// The run that is under way, if one is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Garbage {
    phase: Phase,
    /// The step that is out.
    out: Option<u64>,
    steps: u64,
    rounds: u32,
    /// Sums of this run.
    done: Done,
    /// Whether merges have rid the tables of what they could.
    is_purged: bool,
    /// What is to be moved, and whether that was done.
    moves: VecDeque<Move>,
    /// The part of it that is out.
    moving: Option<Move>,
    is_moved: bool,
    /// What was moved, and the requests that it took.
    moved: Moves,
    moved_requests: u64,
    /// Segments with rows that no point needs.
    idle: BTreeMap<VolumeId, Vec<ObjectId>>,
    /// Names whose deletion was put off, or that are kept: not tried again by this run.
    passed: BTreeSet<ObjectId>,
    /// Key behind which the sweep for orphans goes on; `None` before it began.
    after: Option<String>,
}

impl Garbage {
    /// Whether a run goes on.
    pub(super) fn is_at_work(&self) -> bool {
        self.phase != Phase::Rest
    }

    /// What it does, for people.
    pub(super) fn text(&self) -> &'static str {
        self.phase.text()
    }

    /// Sums so far.
    pub(super) fn done(&self) -> &Done {
        &self.done
    }

    /// Whether it changes segments itself: merges of them would only be in vain.
    pub(super) fn is_moving(&self) -> bool {
        matches!(self.phase, Phase::Move(_))
    }

    /// What was moved so far.
    pub(super) fn moved(&self) -> &Moves {
        &self.moved
    }

    /// The next merge of a volume that rids it of rows which no point needs.
    pub(super) fn purge(&mut self, state: &State, volume: VolumeId) -> Option<MergeOrder> {
        let targets = self.idle.get(&volume)?;
        let is_running = |backup| state.running.contains_key(&backup);
        let list = state.segments.get(&volume).map(|list| list.as_slice()).unwrap_or_default();
        let segments = plan::purge(list, targets, &is_running);
        let Some(segments) = segments.filter(|_| merges::has_room(state)) else {
            self.idle.remove(&volume);
            return None;
        };
        Some(MergeOrder { id: AssignmentId::default(), volume, segments })
    }

    /// A purge of a volume came to nothing: the rest of it waits for the next run.
    pub(super) fn purge_failed(&mut self, volume: VolumeId) {
        self.idle.remove(&volume);
    }

    fn fault(&mut self) {
        self.done.faults += 1;
        if self.done.faults >= FAULTS_MAX {
            self.phase = Phase::End;
        }
    }
}

/// Sparse objects in steps: of one volume each, and no more than a step may have.
fn moves_of(sparse: &[Sparse]) -> VecDeque<Move> {
    let mut moves: VecDeque<(Move, u64)> = VecDeque::new();
    for object in sparse {
        let blocks = u64::from(object.blocks);
        let fits = |(of, used): &&mut (Move, u64)| {
            of.volume == object.volume
                && of.names.len() < MOVE_OBJECTS_MAX
                && *used + blocks <= MOVE_HOMES_MAX as u64
        };
        match moves.iter_mut().find(fits) {
            Some((of, used)) => {
                of.names.push(object.id);
                *used += blocks;
            }
            None => {
                let of = Move { volume: object.volume, names: vec![object.id], ..Move::default() };
                moves.push_back((of, blocks));
            }
        }
    }
    moves.into_iter().map(|of| of.0).collect()
}

impl Coordinator {
    /// Frees pins whose readers have not refreshed them for a while, by this node's clock alone.
    pub(super) fn turn_pins(&mut self, now: Now<'_>) {
        let pins = &now.state.pins;
        self.pins.retain(|pin, _| pins.contains_key(pin));
        for (&pin, held) in pins {
            let seen = self.pins.entry(pin).or_insert((held.counter, now.ns));
            if seen.0 != held.counter {
                *seen = (held.counter, now.ns);
            }
        }
        let due = |since: u64| since.saturating_add(PIN_NS);
        let stale: Vec<u64> =
            self.pins.iter().filter(|(_, seen)| due(seen.1) <= now.ns).map(|(pin, _)| *pin).collect();
        for pin in stale {
            log::warn!("garbage: a pin is given up, its reader has not refreshed it pin={pin:016x}");
            // Until the record counts it is not asked for again.
            self.pins.insert(pin, (0, now.ns));
            self.queue.push_back(Pending::Own(Record::Unpin { pin }));
        }
        if let Some(next) = self.pins.values().map(|seen| due(seen.1)).min() {
            self.wake_at(next);
        }
    }

    /// Goes on with a run that is wanted, or wants one when it is time.
    pub(super) fn turn_garbage(&mut self, now: Now<'_>) {
        let is_news = |record: &Record| matches!(record, Record::Garbage(_) | Record::OrphanFloor { .. });
        let waits = self.pending().any(|pending| match pending {
            Pending::Own(record) => is_news(record),
            Pending::Collect(_) => true,
            _ => false,
        });
        if waits || self.garbage.out.is_some() {
            return;
        }
        if now.state.garbage.wanted.is_none() {
            self.garbage = Garbage::default();
            if self.is_garbage_due(now) {
                let wanted = Wanted { wall_ns: now.wall_ns };
                self.queue.push_back(Pending::Own(Record::Garbage(GarbageNews::Wanted(wanted))));
            }
            return;
        }
        // Each phase either has something out, or moves on to a later one.
        for _ in 0..16 {
            let before = self.garbage.phase;
            self.garbage_phase(now);
            if self.garbage.phase == before {
                return;
            }
        }
    }

    /// Whether nodes begin a run by themselves.
    fn is_garbage_due(&self, now: Now<'_>) -> bool {
        let garbage = &now.state.garbage;
        let every_ns = i64::try_from(garbage.settings().every_ns).unwrap_or(i64::MAX);
        let since = garbage.done.map(|done| now.wall_ns.saturating_sub(done.wall_ns));
        // A clock that went back must not keep runs from being made.
        let is_time = every_ns > 0 && since.is_none_or(|since| !(0..every_ns).contains(&since));
        is_time
            && (now.state.may_have_garbage()
                || now.state.retired.len() >= RETIRED_RUN_MIN
                || now.state.deletable_at(now.wall_ns).next().is_some()
                || garbage.condemned.values().any(|&since| now.state.is_quiet(since)))
    }

    fn garbage_phase(&mut self, now: Now<'_>) {
        let state = now.state;
        match self.garbage.phase {
            Phase::Rest => {
                self.garbage.phase = Phase::Delete;
                self.own(GarbageNews::Clock(now.wall_ns));
            }
            Phase::Delete => {
                let names = state.deletable_at(now.wall_ns).filter(|id| !self.garbage.passed.contains(id));
                let kind = |id: &ObjectId| match state.garbage.objects.contains_key(id) {
                    true => TailKind::Object,
                    false => TailKind::Segment,
                };
                let names: Vec<_> = names.take(DELETE_NAMES_MAX).map(|id| (id, kind(&id))).collect();
                match names.is_empty() {
                    true => self.garbage.phase = Phase::Carry,
                    false => self.step(now, Step::Delete(names)),
                }
            }
            Phase::Carry => {
                let condemned = state.garbage.condemned.iter();
                let may = |id: &ObjectId, since| state.is_quiet(since) && !self.garbage.passed.contains(id);
                let names = condemned.filter(|&(id, &since)| may(id, since)).map(|(id, _)| *id);
                let names: Vec<_> = names.take(CARRY_NAMES_MAX).collect();
                if !names.is_empty() {
                    self.step(now, Step::Carry(names));
                } else if self.garbage.rounds < ROUNDS_MAX {
                    self.garbage.phase = Phase::Mark;
                } else {
                    self.garbage.phase = Phase::Floor;
                }
            }
            Phase::Mark => {
                let sizes = state.garbage.budget_bytes != Some(0) && !self.garbage.is_moved;
                self.step(now, Step::Mark { sizes });
            }
            Phase::Purge(until_ns) => {
                if self.garbage.idle.is_empty() && self.merges.len() == 0 || now.ns >= until_ns {
                    (self.garbage.idle, self.garbage.is_purged) = (BTreeMap::new(), true);
                    self.garbage.phase = Phase::Mark;
                } else {
                    self.wake_at(until_ns);
                }
            }
            Phase::Move(until_ns) => self.garbage_move(now, until_ns),
            Phase::Floor => self.garbage_floor(now),
            Phase::Orphans => {
                let after = self.garbage.after.clone().unwrap_or_default();
                self.step(now, Step::Orphans { after });
            }
            Phase::End => {
                let sums = self.garbage.done;
                let ended = state.garbage_done(now.wall_ns);
                let done = Done {
                    wall_ns: ended.wall_ns,
                    backups: ended.backups,
                    last_backup: ended.last_backup,
                    waiting: state.garbage.condemned.len() as u64,
                    ..sums
                };
                log::info!(
                    "garbage: ended deleted={} bytes={} later={} waiting={} faults={}",
                    done.deleted,
                    done.deleted_bytes,
                    done.later,
                    done.waiting,
                    done.faults
                );
                let moved = self.garbage.moved;
                self.own(match moved == Moves::default() {
                    true => GarbageNews::Done(done),
                    false => GarbageNews::DoneWith(done, moved),
                });
            }
        }
    }

    /// Orphans are looked for once a week; a floor goes before that, so that those of this week are orphans the next time.
    fn garbage_floor(&mut self, now: Now<'_>) {
        let swept_ns = now.state.garbage.done.map_or(0, |done| done.swept_ns);
        self.garbage.done.swept_ns = swept_ns;
        let since = now.wall_ns.saturating_sub(swept_ns);
        if swept_ns != 0 && (0..ORPHANS_EVERY_NS).contains(&since) {
            self.garbage.phase = Phase::End;
            return;
        }
        self.garbage.phase = Phase::Orphans;
        let nothing_older = self.has_nothing_older(now);
        if let Some(record) = merges::floor(now.state, 0, nothing_older) {
            self.queue.push_back(Pending::Own(record));
        }
    }

    fn own(&mut self, news: GarbageNews) {
        self.queue.push_back(Pending::Own(Record::Garbage(news)));
    }

    fn step(&mut self, now: Now<'_>, step: Step) {
        self.garbage.steps += 1;
        let number = self.epoch.0.wrapping_shl(super::ASK_BITS) + self.garbage.steps;
        self.garbage.out = Some(number);
        self.out.push_back(Out::Collect(Order { number, epoch: self.epoch, wall_ns: now.wall_ns, step }));
    }

    /// A step has ended.
    pub fn collected(&mut self, now: Now<'_>, number: u64, result: Result<Outcome, String>) {
        if self.garbage.out.take_if(|out| *out == number).is_none() {
            return;
        }
        let moving = self.garbage.moving.take();
        self.wake_ns = Some(now.ns);
        match result {
            Err(why) => {
                self.errors.add(now.wall_ns, Some(self.settings.me), format!("garbage: {why}"));
                log::warn!("garbage: a step failed why=\"{why}\"");
                self.garbage.fault();
            }
            Ok(Outcome::Deleted(deleted)) => self.garbage_deleted(now, deleted),
            Ok(Outcome::Carried(carried)) => self.garbage_carried(now, carried),
            Ok(Outcome::Marked(marked)) => self.garbage_marked(now, marked),
            Ok(Outcome::Moved(moved)) => self.garbage_moved(moving, moved),
            Ok(Outcome::Swept(swept)) => self.garbage_swept(now, swept),
        }
    }

    fn garbage_deleted(&mut self, now: Now<'_>, deleted: Deleted) {
        let Deleted { gone, later, why } = deleted;
        if let Some(why) = why {
            log::info!("garbage: deletions were put off count={} why=\"{why}\"", later.len());
        }
        self.garbage.done.later += later.len() as u64;
        self.garbage.passed.extend(later);
        // A pin that came meanwhile, or a floor: those are looked at again.
        let still: BTreeSet<ObjectId> =
            gone.into_iter().filter(|id| now.state.retired.contains_key(id)).collect();
        // Ascending, as the record must be.
        let still: Vec<ObjectId> = still.into_iter().collect();
        if still.is_empty() {
            return;
        }
        let bytes = still.iter().filter_map(|id| now.state.garbage.objects.get(id)).sum::<u64>();
        self.garbage.done.deleted += still.len() as u64;
        self.garbage.done.deleted_bytes += bytes;
        for names in still.chunks(RECORD_OBJECTS_MAX) {
            let news = GarbageNews::Deleted(names.to_vec());
            self.queue.push_back(Pending::Collect(vec![Record::Garbage(news)]));
        }
    }

    fn garbage_carried(&mut self, now: Now<'_>, carried: Carried) {
        let Carried { seen, retired, spared, kept, objects, rows } = carried;
        for (id, why) in &kept {
            let what = format!("garbage: {} stays, although nothing refers to it: {why}", id.object_key());
            log::warn!("{what}");
            self.errors.add(now.wall_ns, Some(self.settings.me), what);
        }
        log::info!("garbage: looked objects={} spared={} rows={rows}", retired.len(), spared.len());
        self.garbage.done.kept += kept.len() as u64;
        self.garbage.passed.extend(kept.into_iter().map(|kept| kept.0));
        self.garbage.passed.extend(retired.iter().map(|object| object.0).chain(spared.iter().copied()));
        let mut records = Vec::new();
        if !objects.is_empty() {
            records.push(Record::Commit(Commit { objects, ..Commit::default() }));
        }
        if !spared.is_empty() {
            records.push(Record::Garbage(GarbageNews::Spared(spared)));
        }
        if !retired.is_empty() {
            for object in &retired {
                self.garbage.passed.remove(&object.0);
            }
            records.push(Record::Garbage(GarbageNews::Retired { seen, objects: retired }));
        }
        if !records.is_empty() {
            self.queue.push_back(Pending::Collect(records));
            // What has no window to wait for goes at once.
            self.garbage.phase = Phase::Delete;
        }
    }

    fn garbage_marked(&mut self, now: Now<'_>, marked: Marked) {
        self.garbage.rounds += 1;
        self.garbage.done.objects = marked.objects;
        self.garbage.done.live_bytes = marked.live_bytes;
        log::info!(
            "garbage: marked objects={} dead={} dying={} sparse={} rows={} idle={}",
            marked.objects,
            marked.dead_count,
            marked.dying_count,
            marked.sparse.len(),
            marked.rows,
            marked.rows_idle
        );
        let is_worth = marked.dying_count > 0
            || marked.named_bytes > marked.live_bytes
            || marked.rows_idle > marked.rows / 2;
        if !self.garbage.is_purged && is_worth && !marked.idle.is_empty() {
            self.garbage.idle = marked.idle.into_iter().collect();
            self.garbage.phase = Phase::Purge(now.ns.saturating_add(PURGE_NS));
            return;
        }
        let may_move = now.state.garbage.budget_bytes != Some(0) && !self.garbage.is_moved;
        if may_move && !marked.sparse.is_empty() {
            self.garbage.moves = moves_of(&marked.sparse);
            self.garbage.phase = Phase::Move(now.ns.saturating_add(PURGE_NS));
            return;
        }
        let condemned = &now.state.garbage.condemned;
        let room = CONDEMNED_MAX.saturating_sub(condemned.len());
        let may = |id: &&ObjectId| now.state.may_refer(id) && !self.garbage.passed.contains(*id);
        let dead: Vec<ObjectId> = marked.dead.iter().filter(may).copied().take(room).collect();
        if dead.is_empty() {
            // What merges have retired meanwhile goes too, when there is no window to wait for.
            self.garbage.rounds = ROUNDS_MAX;
            self.garbage.phase = Phase::Delete;
            return;
        }
        for names in dead.chunks(RECORD_OBJECTS_MAX) {
            let news = GarbageNews::Condemned(names.to_vec());
            self.queue.push_back(Pending::Collect(vec![Record::Garbage(news)]));
        }
        self.garbage.phase = Phase::Carry;
        if marked.dead_count as usize <= dead.len() {
            // Nothing is left to be found.
            self.garbage.rounds = ROUNDS_MAX;
        }
    }

    /// The next step of moving, once no merge is out.
    fn garbage_move(&mut self, now: Now<'_>, until_ns: u64) {
        let is_merging = self.merges.len() > 0 && now.ns < until_ns;
        if is_merging {
            return self.wake_at(until_ns);
        }
        let left =
            now.state.garbage.budget_bytes.unwrap_or(MOVE_BYTES_MAX).saturating_sub(self.garbage.moved.bytes);
        let has_room = merges::has_room(now.state) && self.garbage.moved_requests < MOVE_REQUESTS_MAX;
        match self.garbage.moves.pop_front().filter(|_| left > 0 && has_room) {
            Some(order) => {
                let order = Move { bytes_max: left, ..order };
                self.garbage.moving = Some(order.clone());
                self.step(now, Step::Move(order));
            }
            None => {
                (self.garbage.moves, self.garbage.is_moved) = (VecDeque::new(), true);
                self.garbage.phase = Phase::Mark;
            }
        }
    }

    /// What rows say of moved blocks counts with this commit; the old objects are found dead by the next look.
    fn garbage_moved(&mut self, order: Option<Move>, moved: Moved) {
        let Moved { names, after, removed, added, objects, kept, later, bytes, requests } = moved;
        for (id, why) in &kept {
            log::warn!("garbage: {} is left as it is: {why}", id.object_key());
        }
        self.garbage.done.kept += kept.len() as u64;
        log::info!("garbage: moved bytes={bytes} objects={} into={}", names.len(), objects.len());
        self.garbage.moved.bytes += bytes;
        self.garbage.moved_requests += requests;
        if let Some(order) = order {
            if order.after.is_none() {
                self.garbage.moved.objects += names.len() as u64;
            }
            if !later.is_empty() && later.len() < order.names.len() {
                self.garbage.moves.push_front(Move { names: later, after: None, ..order.clone() });
            }
            if after.is_some() && !names.is_empty() {
                self.garbage.moves.push_front(Move { names, after, ..order });
            }
        }
        if removed.is_empty() {
            return;
        }
        let commit = Commit { objects, segments: added, removed, ..Commit::default() };
        self.queue.push_back(Pending::Collect(vec![Record::Commit(commit)]));
    }

    fn garbage_swept(&mut self, now: Now<'_>, swept: Swept) {
        let Swept { gone, gone_bytes, later, why, after } = swept;
        self.garbage.done.deleted += gone;
        self.garbage.done.deleted_bytes += gone_bytes;
        self.garbage.done.later += later;
        if let Some(why) = why {
            log::warn!("garbage: orphans were kept count={later} why=\"{why}\"");
            self.errors.add(now.wall_ns, Some(self.settings.me), format!("garbage: {why}"));
        }
        if after.is_empty() {
            self.garbage.done.swept_ns = now.wall_ns;
            self.garbage.phase = Phase::End;
        }
        self.garbage.after = Some(after);
    }

    /// The log did not take it: something has changed since the look.
    pub(super) fn collect_refused(&mut self, records: &[Record], why: Refusal) {
        log::info!("garbage: put off records={} why={why}", records.len());
        self.garbage.fault();
    }
}
