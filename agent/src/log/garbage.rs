//! What the log knows of garbage: which objects nothing may refer to anew, which are gone for good, and when.
//!
//! ```text
//!  live --Condemned c--> condemned --Retired(seen)--> retired --window, pins--> DELETE --Deleted--> buried
//!            ^              | every backup that began before c is over at `seen`
//!            '---Spared-----'
//! ```
//!
//! Why a retired object is needed by nothing (G4): a backup that begins after c refers to no condemned name, whatever rows it reads
//! ([`State::may_refer`]); those that began before c were over when the tables were looked through, so no row came after that look; and
//! merges only carry rows on. The state refuses a retirement that does not fit this.
//!
//! | bound | at it |
//! |---|---|
//! | [`CONDEMNED_MAX`] condemned names | [`Refusal::Full`](super::state::Refusal::Full); the rest waits for the next run |
//! | [`CLOCKS_MAX`] clocks | every second one goes: names wait somewhat longer |
//! | [`OVER_MAX`] ends of backups since names were condemned | retirements need a newer look |
//! | [`BURIED_RUNS_MAX`] runs of buried names | deletions are not noted until a floor has passed them |
//!
//! Does not: know rows or bytes in the store. Source: `agent/doc/commit-log.md`, Garbage.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::limits::{BURIED_RUNS_MAX, Bound, CLOCKS_MAX, CONDEMNED_MAX, OVER_MAX, RETIRED_KEPT_MAX};
use super::names::NameSet;
use super::state::{Refusal, State};
use crate::format::cursor::{Reader, Wire, WireFault, emit_list};
use crate::format::garbage::{Done, GarbageNews, Moves, Settings, Wanted};
use crate::format::slot::SlotHeader;
use crate::id::{Epoch, ObjectId, Slot};

/// How long a retired name is kept at least where nothing else was said, in nanoseconds: a day. What reads without a pin began before a
/// night's work ends, and has ended a day later.
pub const WINDOW_NS: u64 = 24 * 3600 * 1_000_000_000;
/// Between runs that nodes begin by themselves where nothing else was said, in nanoseconds; 0: they begin none. What deletes is asked for.
pub const EVERY_NS: u64 = 0;

/// The part of a [`State`] that garbage is about.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Garbage {
    /// Objects that nothing may refer to anew: since when.
    pub condemned: Arc<BTreeMap<ObjectId, Slot>>,
    /// Retired upload objects that are not deleted yet: their bytes. The other retired names are segments.
    pub objects: Arc<BTreeMap<ObjectId, u64>>,
    /// Names that were deleted, of epochs above the floor: they never come back.
    pub buried: Arc<NameSet>,
    /// Objects that hold nothing but rows which were carried on: no row refers to them, and they are needed.
    pub carriers: Arc<NameSet>,
    /// What wall clocks said at slots, ascending.
    pub clocks: Vec<(Slot, i64)>,
    /// Backups that ended while names were condemned: (slot that began it, slot that ended it).
    pub over: Vec<(Slot, Slot)>,
    /// Ends of backups up to this slot are not all in `over`.
    pub over_before: Slot,
    /// Slot of the last orphan floor.
    pub floor_slot: Slot,
    /// How garbage is treated, where that was said.
    pub settings: Option<Settings>,
    /// A run that was asked for and has not ended.
    pub wanted: Option<Wanted>,
    /// Bytes that it may move, where that was said.
    pub budget_bytes: Option<u64>,
    /// The last run.
    pub done: Option<Done>,
    /// What it moved, if anything.
    pub moves: Option<Moves>,
}

fn require(holds: bool, why: Refusal) -> Result<(), Refusal> {
    if holds { Ok(()) } else { Err(why) }
}

impl Garbage {
    /// How garbage is treated.
    pub fn settings(&self) -> Settings {
        self.settings.unwrap_or(Settings { window_ns: WINDOW_NS, every_ns: EVERY_NS })
    }

    /// Whether a clock had been read at or behind `slot` so long ago that the window has passed. A clock that went back makes it wait.
    pub fn has_passed(&self, slot: Slot, wall_ns: i64) -> bool {
        let window_ns = i64::try_from(self.settings().window_ns).unwrap_or(i64::MAX);
        if window_ns == 0 {
            return true;
        }
        let since = self.clocks.iter().find(|(of, _)| *of >= slot);
        since.is_some_and(|&(_, then_ns)| wall_ns.saturating_sub(then_ns) >= window_ns)
    }

    /// Bytes of objects that are retired and not deleted.
    pub fn waiting_bytes(&self) -> u64 {
        self.objects.values().sum()
    }

    /// Whether the log has anything of it: what older programs wrote has not.
    fn is_in_use(&self) -> bool {
        !self.clocks.is_empty()
    }

    fn add_clock(&mut self, slot: Slot, wall_ns: i64) {
        if self.clocks.len() >= CLOCKS_MAX {
            let mut at = 0;
            self.clocks.retain(|_| {
                at += 1;
                at % 2 == 0
            });
        }
        self.clocks.push((slot, wall_ns));
    }

    /// A backup that began at slot `began` is over, at slot `slot`.
    pub(super) fn backup_over(&mut self, began: Slot, slot: Slot) {
        if self.condemned.is_empty() {
            return;
        }
        if self.over.len() >= OVER_MAX {
            let (_, ended) = self.over.remove(0);
            self.over_before = self.over_before.max(ended);
        }
        self.over.push((began, slot));
    }

    /// Objects that no backup stored entered the tables.
    pub(super) fn carried(&mut self, objects: &[(ObjectId, u64)]) {
        if !objects.is_empty() {
            let carriers = Arc::make_mut(&mut self.carriers);
            for (id, _) in objects {
                carriers.insert(id);
            }
        }
    }

    fn want(&mut self, wanted: Wanted, budget_bytes: Option<u64>) -> Result<(), Refusal> {
        (self.wanted, self.budget_bytes) = (Some(wanted), budget_bytes);
        Ok(())
    }

    fn ended(&mut self, done: Done, moves: Option<Moves>) -> Result<(), Refusal> {
        (self.wanted, self.budget_bytes) = (None, None);
        (self.done, self.moves) = (Some(done), moves);
        Ok(())
    }

    fn release(&mut self, id: &ObjectId) -> Result<Slot, Refusal> {
        let since = Arc::make_mut(&mut self.condemned).remove(id).ok_or(Refusal::NotLive)?;
        if self.condemned.is_empty() {
            (self.over, self.over_before) = (Vec::new(), Slot(0));
        }
        Ok(since)
    }
}

impl State {
    /// Whether a backup may refer to a stored block of an object that it has not stored itself.
    pub fn may_refer(&self, id: &ObjectId) -> bool {
        self.live.contains(id) && !self.garbage.condemned.contains_key(id)
    }

    /// Whether all backups that may refer to names condemned at slot `since` are over.
    pub fn is_quiet(&self, since: Slot) -> bool {
        self.running.values().all(|running| running.slot > since)
    }

    /// Names that may be deleted now: no pin is older than the retirement (G1), no backup that runs began before it and reads them still, and
    /// the window has passed. Ascending.
    pub fn deletable_at(&self, wall_ns: i64) -> impl Iterator<Item = ObjectId> + '_ {
        let begun = self.running.values().map(|running| running.slot).min();
        let oldest = self.oldest_pin().into_iter().chain(begun).min();
        let may =
            move |slot: Slot| oldest.is_none_or(|pin| pin >= slot) && self.garbage.has_passed(slot, wall_ns);
        self.retired.iter().filter(move |&(_, &slot)| may(slot)).map(|(&id, _)| id)
    }

    /// Whether a name that the store lists is an orphan which may be deleted (G2): no record can name it any more, and readers of what
    /// the log said before the floor have had their window.
    pub fn is_orphan(&self, id: &ObjectId, wall_ns: i64) -> bool {
        let first = self.garbage.clocks.first().map_or(Slot(u64::MAX), |clock| clock.0);
        let since = self.garbage.floor_slot.max(first);
        id.epoch <= self.orphan_floor
            && !self.live.contains(id)
            && !self.retired.contains_key(id)
            && self.oldest_pin().is_none_or(|pin| pin >= since)
            && self.garbage.has_passed(since, wall_ns)
    }

    /// Whether points or backups went since the last run, so that there may be garbage.
    pub fn may_have_garbage(&self) -> bool {
        let done = self.garbage.done.unwrap_or_default();
        let old = ..=done.last_backup;
        let then = self.points.range(old).count() + self.running.range(old).count();
        let now = self.points.len() + self.running.len() - then;
        then < done.backups as usize || now < self.last_backup.0.saturating_sub(done.last_backup.0) as usize
    }

    /// What a run that ends now says of the log.
    pub fn garbage_done(&self, wall_ns: i64) -> Done {
        let count = |len: usize| u32::try_from(len).unwrap_or(u32::MAX);
        Done {
            wall_ns,
            backups: count(self.points.len() + self.running.len()),
            last_backup: self.last_backup,
            ..Done::default()
        }
    }

    pub(super) fn garbage_news(&mut self, header: &SlotHeader, news: &GarbageNews) -> Result<(), Refusal> {
        match news {
            GarbageNews::Condemned(names) => self.condemn(header.slot, names),
            GarbageNews::Spared(names) => names.iter().try_for_each(|id| self.garbage.release(id).map(drop)),
            GarbageNews::Retired { seen, objects } => self.retire_condemned(header.slot, *seen, objects),
            GarbageNews::Deleted(names) => self.bury(names),
            GarbageNews::Clock(wall_ns) => {
                self.garbage.add_clock(header.slot, *wall_ns);
                Ok(())
            }
            GarbageNews::Settings(settings) => {
                self.garbage.settings = Some(*settings);
                Ok(())
            }
            GarbageNews::Wanted(wanted) => self.garbage.want(*wanted, None),
            GarbageNews::WantedWith(wanted, budget_bytes) => self.garbage.want(*wanted, Some(*budget_bytes)),
            GarbageNews::Done(done) => self.garbage.ended(*done, None),
            GarbageNews::DoneWith(done, moves) => self.garbage.ended(*done, Some(*moves)),
        }
    }

    fn condemn(&mut self, slot: Slot, names: &[ObjectId]) -> Result<(), Refusal> {
        let is_segment =
            |id: &ObjectId| self.segments.values().any(|list| list.iter().any(|segment| segment.id == *id));
        for id in names {
            require(self.live.contains(id) && !is_segment(id), Refusal::NotLive)?;
            require(!self.garbage.condemned.contains_key(id), Refusal::Duplicate)?;
        }
        let condemned = Arc::make_mut(&mut self.garbage.condemned);
        require(condemned.len() + names.len() <= CONDEMNED_MAX, Refusal::Full(Bound::Condemned))?;
        condemned.extend(names.iter().map(|id| (*id, slot)));
        Ok(())
    }

    /// Rule G4.
    fn retire_condemned(
        &mut self,
        slot: Slot,
        seen: Slot,
        objects: &[(ObjectId, u64)],
    ) -> Result<(), Refusal> {
        require(seen < slot && self.garbage.over_before <= seen, Refusal::Referred)?;
        for (id, bytes) in objects {
            let since = *self.garbage.condemned.get(id).ok_or(Refusal::NotLive)?;
            let came_late = |&(began, ended): &(Slot, Slot)| began <= since && ended > seen;
            let is_quiet = since <= seen && self.is_quiet(since) && !self.garbage.over.iter().any(came_late);
            require(is_quiet, Refusal::Referred)?;
            self.retire(id, slot)?;
            Arc::make_mut(&mut self.garbage.objects).insert(*id, *bytes);
            if self.garbage.carriers.contains(id) {
                Arc::make_mut(&mut self.garbage.carriers).remove(id);
            }
        }
        objects.iter().try_for_each(|(id, _)| self.garbage.release(id).map(drop))
    }

    /// G1: what is gone was retired, and no pin is older.
    fn bury(&mut self, names: &[ObjectId]) -> Result<(), Refusal> {
        let oldest = self.oldest_pin();
        for id in names {
            let slot = *self.retired.get(id).ok_or(Refusal::NotLive)?;
            require(oldest.is_none_or(|pin| pin >= slot), Refusal::Pin)?;
            Arc::make_mut(&mut self.retired).remove(id);
            if self.garbage.objects.contains_key(id) {
                Arc::make_mut(&mut self.garbage.objects).remove(id);
            }
            if id.epoch > self.orphan_floor {
                require(self.garbage.buried.runs() < BURIED_RUNS_MAX, Refusal::Full(Bound::Buried))?;
                Arc::make_mut(&mut self.garbage.buried).insert(id);
            }
        }
        Ok(())
    }

    /// Whether a floor would leave all retired names their entries, so that they are deleted in their time.
    pub fn keeps_retired(&self) -> bool {
        self.garbage.is_in_use() && self.retired.len() <= RETIRED_KEPT_MAX
    }

    /// After a floor was raised: which retired names keep their entries, so that they are deleted in their time. Older programs knew no
    /// deletions, and dropped all that no pin held.
    pub(super) fn garbage_floor(&mut self, slot: Slot, floor: Epoch) {
        let oldest = self.oldest_pin();
        if !self.keeps_retired() {
            Arc::make_mut(&mut self.retired)
                .retain(|id, slot| id.epoch > floor || oldest.is_some_and(|pin| pin < *slot));
            let retired = &self.retired;
            if self.garbage.objects.keys().any(|id| !retired.contains_key(id)) {
                Arc::make_mut(&mut self.garbage.objects).retain(|id, _| retired.contains_key(id));
            }
        }
        if self.garbage.is_in_use() {
            self.garbage.floor_slot = slot;
        }
        if !self.garbage.buried.is_empty() {
            Arc::make_mut(&mut self.garbage.buried).retain_above(floor);
        }
    }
}

impl Wire for Garbage {
    const BYTES_MIN: usize = 1;

    fn emit(&self, out: &mut Vec<u8>) {
        emit_list(out, &self.condemned.iter().map(|(id, slot)| (*id, *slot)).collect::<Vec<_>>());
        emit_list(out, &self.objects.iter().map(|(id, bytes)| (*id, *bytes)).collect::<Vec<_>>());
        self.buried.emit(out);
        self.carriers.emit(out);
        emit_list(out, &self.clocks);
        emit_list(out, &self.over);
        self.over_before.emit(out);
        self.floor_slot.emit(out);
        self.settings.emit(out);
        emit_with(self.wanted.as_ref(), self.budget_bytes.as_ref(), out);
        emit_with(self.done.as_ref(), self.moves.as_ref(), out);
    }

    fn parse(reader: &mut Reader<'_>) -> Result<Self, WireFault> {
        fn map<V>(list: Vec<(ObjectId, V)>) -> Result<Arc<BTreeMap<ObjectId, V>>, WireFault> {
            let ascends = list.windows(2).all(|pair| pair[0].0 < pair[1].0);
            if ascends { Ok(Arc::new(list.into_iter().collect())) } else { Err(WireFault::Value) }
        }
        let mut garbage = Garbage {
            condemned: map(reader.list(CONDEMNED_MAX)?)?,
            objects: map(reader.list(super::limits::RETIRED_MAX)?)?,
            buried: Arc::new(reader.value()?),
            carriers: Arc::new(reader.value()?),
            clocks: reader.list(CLOCKS_MAX)?,
            over: reader.list(OVER_MAX)?,
            over_before: reader.value()?,
            floor_slot: reader.value()?,
            settings: reader.value()?,
            ..Garbage::default()
        };
        (garbage.wanted, garbage.budget_bytes) = parse_with(reader)?;
        (garbage.done, garbage.moves) = parse_with(reader)?;
        Ok(garbage)
    }
}

/// A value that may be there (1), with another that may be there too (2): checkpoints of programs that knew no second have none.
fn emit_with<A: Wire, B: Wire>(first: Option<&A>, second: Option<&B>, out: &mut Vec<u8>) {
    let Some(first) = first else { return out.push(0) };
    out.push(if second.is_some() { 2 } else { 1 });
    first.emit(out);
    if let Some(second) = second {
        second.emit(out);
    }
}

fn parse_with<A: Wire, B: Wire>(reader: &mut Reader<'_>) -> Result<(Option<A>, Option<B>), WireFault> {
    Ok(match reader.value::<u8>()? {
        0 => (None, None),
        1 => (Some(reader.value()?), None),
        2 => (Some(reader.value()?), Some(reader.value()?)),
        _ => return Err(WireFault::Value),
    })
}

#[cfg(test)]
#[path = "garbage_test.rs"]
mod tests;
