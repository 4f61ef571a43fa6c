//! Replay: from the boundary and its checkpoint to the head of the log.
//!
//! b = highest of LIST boundary/; load its checkpoint; GET b+1 ... until 404, verifying digests and epochs; LIST boundary/ again;
//! when it moved past where this replay began, start over: a slot at or below the boundary may have been collected, and a stalled
//! writer's late create may sit in it and look plausible. So nothing that was read counts until the second LIST, and a slot
//! that does not verify is a fault only when the boundary has not moved either.
//!
//! The first 404 is the head only when LIST log/ shows nothing above it. Slots are created one after the other, each after the one
//! before it was read back, so a slot above a missing one, which is asked for once more because it may have come since, proves that
//! one was lost. It is then read from where it lies a second time: in the slot behind it, or, with all before it, in a
//! checkpoint. Where it lies nowhere else the log is refused by name, before anything is written.
//!
//! | phase | waits for | next |
//! |---|---|---|
//! | `Boundary` | LIST boundary/ | `Pointer`, or `Slots` from 1 when there is none |
//! | `Pointer` | GET boundary/b | `Loading`; `Moved` when it cannot be used |
//! | `Loading` | GET ckpt/... | `Slots`; `Moved` when it cannot be used |
//! | `Slots` | GETs of slots, up to 8 at once | `Beyond` at the first 404 or unreadable slot; `Moved` at one that does not follow |
//! | `Beyond` | LIST log/ above it | `Confirm` when nothing is there and it was a 404; `Empty` when that was the first; else `Again` |
//! | `Again` | GET of it once more | `Slots` when it can be read now, else `Moved` |
//! | `Moved` | LIST boundary/ | `Boundary` when it moved; `Carried` when the slot behind it is there, else `Covering` |
//! | `Carried` | GET of the slot behind it | `Slots` when that carries it, else `Covering` |
//! | `Covering` | LIST ckpt/, GET of the last one | `Slots` behind it when it is of this slot or a later one, else `Confirm` |
//! | `Empty` | LIST ckpt/, obj/, seg/ | `Confirm` when all are empty, else `Again` |
//! | `Confirm` | LIST boundary/ | `Done`, or `Boundary` when it moved |
//!
//! Where a slot was lost, a stalled writer's late create may land and look plausible; but what follows does not follow from it. The
//! slot behind it carries the right one, so the replay starts over and takes that.
//!
//! A checkpoint that no record names is as good as one that the boundary names: it is written only after its slot has passed its check.
//! What is lost at the end of the log leaves no trace in it; see `log::salvage` and the memory of what was seen.
//!
//! Invariants: I1, I2, I11. Does not: write anything. Source: commit-log design "Replay"; the coordination reference 3.2, 3.4.

use std::hash::{Hash, Hasher};

use super::call::{Answer, Body, Call, CallId, Calls, backoff_ns};
use super::checkpoint::Checkpoint;
use super::fault::{LogFault, Place};
use super::keys;
use super::limits::{REPLAY_FAULTS_MAX, REPLAY_GETS_MAX};
use super::state::State;
use crate::format::cursor::WireFault;
use crate::format::record::CheckpointName;
use crate::format::slot::{ClusterId, LogDigest, Sealer, SlotContents, carried, own_part, parse_boundary};
use crate::id::Slot;
use crate::store::StoreFaultKind;

/// Times that a replay starts over because the boundary moved, before it gives up.
const RESTARTS_MAX: u32 = 16;

/// What objects and segments begin with: there is none before the log has a slot.
const TABLES: [&str; 2] = ["obj/", "seg/"];

/// A verified prefix of the log. Two are equal when they say the same: what the slot itself looks like follows from its digest.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// Its last slot; 0 for an empty log.
    pub head: Slot,
    /// Digest of that slot, zero for an empty log.
    pub digest: LogDigest,
    /// The fold of all records up to it.
    pub state: State,
    /// The slot itself, for the next one to carry; nothing when only a checkpoint of it was read.
    pub last: Body,
}

impl PartialEq for View {
    fn eq(&self, other: &View) -> bool {
        (self.head, self.digest, &self.state) == (other.head, other.digest, &other.state)
    }
}

impl Eq for View {}

impl Hash for View {
    fn hash<H: Hasher>(&self, into: &mut H) {
        (self.head, self.digest, &self.state).hash(into);
    }
}

/// What a replay may leave out or how it behaves, for tests that show why it must not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ReplayOptions {
    /// GETs in flight, `1..=8`.
    pub gets_max: usize,
    /// LIST boundary/ again at the end. Off only in tests that must then find a violation.
    pub second_list: bool,
    /// Look for slots above the first one that is not there. Off only in tests that must then find a violation.
    pub look_beyond: bool,
}

impl Default for ReplayOptions {
    fn default() -> ReplayOptions {
        ReplayOptions { gets_max: REPLAY_GETS_MAX, second_list: true, look_beyond: true }
    }
}

/// What a call is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum For {
    Boundary,
    Pointer,
    Checkpoint,
    Slot(Slot),
    Above,
    Again,
    Moved,
    Behind,
    Covering,
    Cover,
    Empty,
    Confirm,
}

/// A slot that is not to be had under its own name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Lost {
    slot: Slot,
    /// The first slot above it that a LIST has shown.
    above: Option<Slot>,
    /// What to say when it is nowhere else; `None`: it may be no more than the end of the log.
    fault: Option<LogFault>,
}

impl Lost {
    fn fault(&self) -> LogFault {
        let place = Place::Slot(self.slot);
        self.fault.unwrap_or(LogFault::Store { place, kind: StoreFaultKind::NotFound })
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Phase {
    Boundary,
    Pointer(Slot),
    Loading(CheckpointName),
    Slots,
    Beyond(Lost),
    Again(Lost),
    Moved(Lost),
    Carried(Lost),
    /// A checkpoint of the slot, or of a later one, is to be found.
    Covering(Lost, Option<(Slot, [u8; 16])>),
    /// The first slot is missing: of [`TABLES`], so many were looked into.
    Empty(usize),
    /// The end of what could be read, and what was wrong there.
    Confirm(Option<LogFault>),
    Done(Option<LogFault>),
}

/// The machine. `handle` takes answers, `next_call` gives calls, `wake` follows `deadline`; `result` tells when it is done.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Replay<S> {
    cluster: ClusterId,
    sealer: S,
    options: ReplayOptions,
    calls: Calls<For>,
    phase: Phase,
    /// Slots above this one were read by this replay.
    base: Slot,
    boundary: Slot,
    view: View,
    /// Slots that arrived before their turn.
    early: Vec<(Slot, Answer)>,
    /// GETs to keep in flight: doubles while slots are found.
    window: usize,
    /// The next slot to ask for.
    ask: Slot,
    faults: u32,
    restarts: u32,
    /// A slot from which the one behind it does not follow, though that carries another which fits.
    distrusted: Option<Slot>,
    /// What was not to be had under its own name, and was found elsewhere.
    mended: Vec<Place>,
}

impl<S: Sealer> Replay<S> {
    /// A replay from the boundary. `generation` makes its call ids its own.
    pub fn from_boundary(
        cluster: ClusterId,
        sealer: S,
        options: ReplayOptions,
        generation: u32,
    ) -> Replay<S> {
        let mut replay = Replay {
            cluster,
            sealer,
            options,
            calls: Calls::new(generation),
            phase: Phase::Boundary,
            base: Slot(0),
            boundary: Slot(0),
            view: View::default(),
            early: Vec::new(),
            window: 1,
            ask: Slot(1),
            faults: 0,
            restarts: 0,
            distrusted: None,
            mended: Vec::new(),
        };
        replay.start();
        replay
    }

    /// A replay of what came after `view`; falls back to the boundary when that has moved past the view.
    pub fn from_view(
        cluster: ClusterId,
        sealer: S,
        options: ReplayOptions,
        generation: u32,
        view: View,
    ) -> Replay<S> {
        let mut replay = Replay::from_boundary(cluster, sealer, options, generation);
        replay.calls.clear();
        replay.read_slots(view);
        replay
    }

    fn start(&mut self) {
        self.calls.clear();
        self.early.clear();
        self.mended.clear();
        self.phase = Phase::Boundary;
        self.calls.submit(For::Boundary, Call::Last { prefix: keys::BOUNDARIES });
    }

    fn read_slots(&mut self, view: View) {
        self.base = view.head;
        self.view = view;
        self.go_on();
    }

    fn go_on(&mut self) {
        self.ask = Slot(self.view.head.0.saturating_add(1));
        self.window = 1;
        self.phase = Phase::Slots;
        self.ask_more();
    }

    fn ask_more(&mut self) {
        while self.calls.len() + self.early.len() < self.window {
            self.calls.submit(For::Slot(self.ask), Call::Get { key: keys::slot(self.ask) });
            self.ask.0 = self.ask.0.saturating_add(1);
        }
    }

    /// The next call for the driver.
    pub fn next_call(&mut self) -> Option<(CallId, Call)> {
        self.calls.next_call()
    }

    /// When `wake` is due.
    pub fn deadline(&self) -> Option<u64> {
        self.calls.deadline()
    }

    /// Repeats what was waiting for its time.
    pub fn wake(&mut self, now_ns: u64) {
        self.calls.wake(now_ns);
    }

    /// Last slot read so far: for progress displays.
    pub fn reached(&self) -> Slot {
        self.view.head
    }

    /// The highest boundary that a LIST has shown.
    pub fn boundary(&self) -> Slot {
        self.boundary
    }

    /// What was lost or damaged, and was found elsewhere: nothing is missing, and `repo rebuild` makes it whole.
    pub fn mended(&self) -> &[Place] {
        &self.mended
    }

    /// The view when it is done, or the fault; `None` while it runs.
    pub fn result(&self) -> Option<Result<&View, LogFault>> {
        match self.phase {
            Phase::Done(None) => Some(Ok(&self.view)),
            Phase::Done(Some(fault)) => Some(Err(fault)),
            Phase::Boundary
            | Phase::Pointer(_)
            | Phase::Loading(_)
            | Phase::Slots
            | Phase::Beyond(_)
            | Phase::Again(_)
            | Phase::Moved(_)
            | Phase::Carried(_)
            | Phase::Covering(..)
            | Phase::Empty(_)
            | Phase::Confirm(_) => None,
        }
    }

    /// Takes the view out of a finished replay.
    pub fn into_view(self) -> View {
        self.view
    }

    /// Takes an answer.
    pub fn handle(&mut self, now_ns: u64, id: CallId, answer: Answer) {
        let Some((tag, call)) = self.calls.complete(id) else { return };
        if let Answer::Fault(kind) = answer {
            return self.call_failed(now_ns, tag, call, kind);
        }
        self.faults = 0;
        match (tag, answer) {
            (For::Boundary, Answer::Keys(keys)) => match last_number(&keys) {
                None => self.read_slots(View::default()),
                Some(slot) => {
                    self.boundary = slot;
                    self.phase = Phase::Pointer(slot);
                    self.calls.submit(For::Pointer, Call::Get { key: keys::boundary(slot) });
                }
            },
            (For::Pointer, answer) => self.pointer_read(answer),
            (For::Checkpoint, answer) => self.checkpoint_read(answer),
            (For::Slot(slot), answer) => {
                self.early.push((slot, answer));
                self.apply_in_order();
            }
            (For::Above, Answer::Keys(keys)) => self.looked_beyond(keys.first()),
            (For::Again, answer) => self.read_again(answer),
            (For::Moved, Answer::Keys(keys)) => self.looked_for_boundary(&keys),
            (For::Behind, answer) => self.read_behind(answer),
            (For::Covering, Answer::Keys(keys)) => self.looked_for_cover(keys.first()),
            (For::Cover, answer) => self.cover_read(answer),
            (For::Empty, Answer::Keys(keys)) => self.looked_for_tables(keys.first()),
            (For::Confirm, Answer::Keys(keys)) => {
                let boundary = last_number(&keys).unwrap_or(Slot(0));
                self.boundary = boundary;
                if let Phase::Confirm(fault) = self.phase {
                    if boundary > self.base { self.restart() } else { self.finish(fault) }
                }
            }
            // A driver that answers with the wrong sort of answer is a bug of ours.
            (
                For::Boundary | For::Above | For::Moved | For::Covering | For::Empty | For::Confirm,
                Answer::Done | Answer::Body(_) | Answer::Absent | Answer::Fault(_),
            ) => {
                assert!(matches!(call, Call::Get { .. }), "a LIST was answered with something else");
            }
        }
    }

    fn call_failed(&mut self, now_ns: u64, tag: For, call: Call, kind: StoreFaultKind) {
        self.faults = self.faults.saturating_add(1);
        let transient =
            matches!(kind, StoreFaultKind::Unknown | StoreFaultKind::Conflict | StoreFaultKind::Corrupt);
        if transient && self.faults <= REPLAY_FAULTS_MAX {
            self.calls.park(now_ns.saturating_add(backoff_ns(self.faults - 1)), tag, call);
            return;
        }
        let place = match tag {
            For::Boundary | For::Moved | For::Confirm => Place::Boundary(Slot(0)),
            For::Pointer => Place::Boundary(self.boundary),
            For::Checkpoint => Place::Checkpoint(self.boundary),
            For::Slot(slot) => Place::Slot(slot),
            For::Above | For::Again | For::Behind | For::Empty => {
                Place::Slot(Slot(self.view.head.0.saturating_add(1)))
            }
            For::Covering | For::Cover => Place::Checkpoint(self.view.head),
        };
        self.finish(Some(LogFault::Store { place, kind }));
    }

    fn restart(&mut self) {
        self.restarts = self.restarts.saturating_add(1);
        if self.restarts > RESTARTS_MAX { self.finish(Some(LogFault::Moving)) } else { self.start() }
    }

    fn finish(&mut self, fault: Option<LogFault>) {
        self.calls.clear();
        self.early.clear();
        self.phase = Phase::Done(fault);
    }

    /// Ends reading: whatever was found counts only if the boundary is still where it was.
    fn confirm(&mut self, fault: Option<LogFault>) {
        self.calls.clear();
        self.early.clear();
        if self.options.second_list {
            self.phase = Phase::Confirm(fault);
            self.calls.submit(For::Confirm, Call::Last { prefix: keys::BOUNDARIES });
        } else {
            self.finish(fault);
        }
    }

    fn pointer_read(&mut self, answer: Answer) {
        let Phase::Pointer(slot) = self.phase else { return };
        let place = Place::Boundary(slot);
        self.base = slot;
        let parsed = match answer {
            Answer::Body(bytes) => parse_boundary(&bytes),
            Answer::Absent | Answer::Done | Answer::Keys(_) | Answer::Fault(_) => {
                let fault = LogFault::Store { place, kind: StoreFaultKind::NotFound };
                return self.look_for_boundary(Lost { slot, above: None, fault: Some(fault) });
            }
        };
        let why = match parsed {
            // Not damage: another repository's log is here.
            Ok((cluster, _)) if cluster != self.cluster => {
                return self.confirm(Some(LogFault::Format { place, why: WireFault::Cluster }));
            }
            Ok((_, name)) if name.slot != slot => WireFault::Value,
            Ok((_, name)) => {
                self.phase = Phase::Loading(name);
                let key = keys::checkpoint(name.slot, &name.nonce);
                return self.calls.submit(For::Checkpoint, Call::Get { key });
            }
            Err(why) => why,
        };
        self.look_for_boundary(Lost { slot, above: None, fault: Some(LogFault::Format { place, why }) });
    }

    fn checkpoint_read(&mut self, answer: Answer) {
        let Phase::Loading(name) = self.phase else { return };
        match self.checkpoint_in(answer, name.slot, &name.nonce) {
            Ok((view, digest)) if digest == name.digest => self.read_slots(view),
            Ok(_) => {
                let place = Place::Checkpoint(name.slot);
                let fault = Some(LogFault::Format { place, why: WireFault::Digest });
                self.look_for_boundary(Lost { slot: name.slot, above: None, fault });
            }
            Err(fault) => self.look_for_boundary(Lost { slot: name.slot, above: None, fault: Some(fault) }),
        }
    }

    /// The view that a checkpoint gives, and the checkpoint's digest.
    fn checkpoint_in(
        &self,
        answer: Answer,
        slot: Slot,
        nonce: &[u8; 16],
    ) -> Result<(View, LogDigest), LogFault> {
        let place = Place::Checkpoint(slot);
        let parsed = match answer {
            Answer::Body(bytes) => Checkpoint::parse(&bytes, &self.sealer),
            Answer::Absent | Answer::Done | Answer::Keys(_) | Answer::Fault(_) => {
                return Err(LogFault::Store { place, kind: StoreFaultKind::NotFound });
            }
        };
        match parsed {
            Ok((checkpoint, _)) if checkpoint.cluster != self.cluster => {
                Err(LogFault::Format { place, why: WireFault::Cluster })
            }
            Ok((checkpoint, _)) if (checkpoint.slot, &checkpoint.nonce) != (slot, nonce) => {
                Err(LogFault::Format { place, why: WireFault::Value })
            }
            Ok((checkpoint, digest)) => Ok((checkpoint.into_view(), digest)),
            Err(why) => Err(LogFault::Format { place, why }),
        }
    }

    fn apply_in_order(&mut self) {
        loop {
            let next = Slot(self.view.head.0.saturating_add(1));
            let Some(at) = self.early.iter().position(|(slot, _)| *slot == next) else { break };
            let (answer, nothing) =
                (self.early.swap_remove(at).1, Lost { slot: next, above: None, fault: None });
            match answer {
                Answer::Body(_) if self.distrusted == Some(next) => {
                    return self.look_beyond(Lost { fault: Some(LogFault::Chain { slot: next }), ..nothing });
                }
                Answer::Body(bytes) => match self.apply(&bytes) {
                    Ok(()) => self.window = self.window.saturating_mul(2).min(self.options.gets_max),
                    Err(fault @ LogFault::Format { .. }) if self.options.look_beyond => {
                        return self.look_beyond(Lost { fault: Some(fault), ..nothing });
                    }
                    // A late create of another writer may have landed where a slot was lost.
                    Err(LogFault::Chain { .. })
                        if carried(&bytes).is_some() && self.distrusted != Some(self.view.head) =>
                    {
                        self.distrusted = Some(self.view.head);
                        return self.restart();
                    }
                    // Whole, and not what follows: reading it again changes nothing.
                    Err(fault) => return self.look_for_boundary(Lost { fault: Some(fault), ..nothing }),
                },
                Answer::Absent | Answer::Done | Answer::Keys(_) | Answer::Fault(_) => {
                    return if self.options.look_beyond {
                        self.look_beyond(nothing)
                    } else {
                        self.confirm(None)
                    };
                }
            }
        }
        self.ask_more();
    }

    /// Applies the next slot, or leaves the view as it was.
    fn apply(&mut self, bytes: &[u8]) -> Result<(), LogFault> {
        let contents = verify_slot(&self.view, bytes, &self.cluster, &self.sealer)?;
        apply_verified(&mut self.view, contents, bytes)
    }

    /// A slot is not there, or cannot be read: is there one above it?
    fn look_beyond(&mut self, lost: Lost) {
        self.calls.clear();
        self.early.clear();
        let after = keys::slot(lost.slot);
        self.phase = Phase::Beyond(lost);
        self.calls.submit(For::Above, Call::Above { prefix: keys::SLOTS, after });
    }

    fn looked_beyond(&mut self, key: Option<&String>) {
        let Phase::Beyond(mut lost) = self.phase else { return };
        lost.above = key.and_then(|key| keys::number(key, keys::SLOTS));
        if lost.above.is_some() || lost.fault.is_some() {
            self.phase = Phase::Again(lost);
            return self.calls.submit(For::Again, Call::Get { key: keys::slot(lost.slot) });
        }
        if lost.slot == Slot(1) {
            self.phase = Phase::Empty(0);
            self.calls.submit(For::Empty, Call::Above { prefix: keys::CHECKPOINTS, after: String::new() });
        } else {
            self.confirm(None);
        }
    }

    fn read_again(&mut self, answer: Answer) {
        let Phase::Again(mut lost) = self.phase else { return };
        match answer {
            Answer::Body(_) if self.distrusted == Some(lost.slot) => {}
            Answer::Body(bytes) => match self.apply(&bytes) {
                Ok(()) => return self.go_on(),
                Err(fault) => lost.fault = Some(fault),
            },
            Answer::Absent | Answer::Done | Answer::Keys(_) | Answer::Fault(_)
                if lost.fault == Some(LogFault::Gone) => {}
            // It was there, and is gone: the boundary will tell.
            Answer::Absent | Answer::Done | Answer::Keys(_) | Answer::Fault(_) => lost.fault = None,
        }
        self.look_for_boundary(lost);
    }

    /// A slot at or below the boundary may be gone, or be another's: then nothing is wrong.
    fn look_for_boundary(&mut self, lost: Lost) {
        self.calls.clear();
        self.early.clear();
        self.phase = Phase::Moved(lost);
        self.calls.submit(For::Moved, Call::Last { prefix: keys::BOUNDARIES });
    }

    fn looked_for_boundary(&mut self, keys: &[String]) {
        let Phase::Moved(lost) = self.phase else { return };
        let behind = Slot(lost.slot.0.saturating_add(1));
        if last_number(keys).is_some_and(|boundary| boundary > self.base) {
            self.restart();
        } else if lost.above == Some(behind) && !matches!(lost.fault, Some(LogFault::Inconsistent { .. })) {
            self.phase = Phase::Carried(lost);
            self.calls.submit(For::Behind, Call::Get { key: keys::slot(behind) });
        } else {
            self.cover(lost);
        }
    }

    fn read_behind(&mut self, answer: Answer) {
        let Phase::Carried(lost) = self.phase else { return };
        let slot = match &answer {
            Answer::Body(bytes) => carried(bytes),
            Answer::Absent | Answer::Done | Answer::Keys(_) | Answer::Fault(_) => None,
        };
        if slot.is_some_and(|slot| self.apply(slot).is_ok()) {
            self.mended.push(Place::Slot(lost.slot));
            self.go_on();
        } else {
            self.cover(lost);
        }
    }

    /// A checkpoint of the lost slot or of a later one says all that it and those before it said.
    fn cover(&mut self, lost: Lost) {
        self.phase = Phase::Covering(lost, None);
        self.calls.submit(For::Covering, Call::Last { prefix: keys::CHECKPOINTS });
    }

    fn looked_for_cover(&mut self, key: Option<&String>) {
        let Phase::Covering(lost, _) = self.phase else { return };
        let name = key.and_then(|key| keys::checkpoint_name(key)).filter(|(slot, _)| *slot >= lost.slot);
        match name {
            Some((slot, nonce)) => {
                self.phase = Phase::Covering(lost, name);
                self.calls.submit(For::Cover, Call::Get { key: keys::checkpoint(slot, &nonce) });
            }
            None => self.confirm(Some(lost.fault())),
        }
    }

    fn cover_read(&mut self, answer: Answer) {
        let Phase::Covering(lost, Some((slot, nonce))) = self.phase else { return };
        match self.checkpoint_in(answer, slot, &nonce) {
            Ok((view, _)) => {
                self.mended.push(match lost.fault {
                    Some(LogFault::Format { place, .. } | LogFault::Store { place, .. }) => place,
                    _ => Place::Slot(lost.slot),
                });
                self.read_slots(view);
            }
            Err(_) => self.confirm(Some(lost.fault())),
        }
    }

    /// A log without its first slot is a new one only when nothing has ever been written beside it.
    fn looked_for_tables(&mut self, key: Option<&String>) {
        let Phase::Empty(asked) = self.phase else { return };
        match key {
            // Somebody may have begun since: the slot is asked for once more before anything is said.
            Some(key) => {
                let fault = (!key.starts_with(keys::CHECKPOINTS)).then_some(LogFault::Gone);
                self.phase = Phase::Again(Lost { slot: Slot(1), above: None, fault });
                self.calls.submit(For::Again, Call::Get { key: keys::slot(Slot(1)) });
            }
            None => match TABLES.get(asked) {
                Some(prefix) => {
                    self.phase = Phase::Empty(asked + 1);
                    self.calls.submit(For::Empty, Call::Above { prefix, after: String::new() });
                }
                None => self.confirm(None),
            },
        }
    }
}

fn last_number(keys: &[String]) -> Option<Slot> {
    keys.iter().filter_map(|key| keys::number(key, keys::BOUNDARIES)).max()
}

/// Verifies that `bytes` are the slot after the view's head, and applies them. On `Err` the view may be spoilt.
pub fn apply_slot<S: Sealer>(
    view: &mut View,
    bytes: &[u8],
    cluster: &ClusterId,
    sealer: &S,
) -> Result<(), LogFault> {
    let contents = verify_slot(view, bytes, cluster, sealer)?;
    apply_verified(view, contents, bytes)
}

/// Whether `bytes` are a slot that follows from the view's head.
fn verify_slot<S: Sealer>(
    view: &View,
    bytes: &[u8],
    cluster: &ClusterId,
    sealer: &S,
) -> Result<SlotContents, LogFault> {
    let slot = Slot(view.head.0.saturating_add(1));
    let format = |why| LogFault::Format { place: Place::Slot(slot), why };
    let contents = SlotContents::parse(bytes, sealer).map_err(format)?;
    let header = &contents.header;
    if header.cluster != *cluster {
        return Err(format(WireFault::Cluster));
    }
    if header.slot != slot || header.previous != view.digest {
        return Err(LogFault::Chain { slot });
    }
    if header.epoch < view.state.epoch {
        return Err(LogFault::Author { slot, epoch: header.epoch, holds: view.state.epoch });
    }
    Ok(contents)
}

fn apply_verified(view: &mut View, contents: SlotContents, bytes: &[u8]) -> Result<(), LogFault> {
    let slot = contents.header.slot;
    view.state
        .apply_slot(&contents.header, &contents.records)
        .map_err(|(_, why)| LogFault::Inconsistent { slot, why })?;
    view.head = slot;
    view.digest = contents.digest;
    view.last = own_part(bytes).unwrap_or(bytes).into();
    Ok(())
}
