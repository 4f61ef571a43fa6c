//! Replay: from the newest checkpoint to the head of the log.
//!
//! c = the newest checkpoint that the log follows from; LIST log/ from c on; GET c+1 ... as listed, verifying digests and epochs; LIST
//! boundary/: when it moved past where this replay began, start over: a slot at or below the boundary may have been collected, and a
//! stalled writer's late create may sit in it and look plausible. So nothing that was read counts until that LIST, and a slot that does
//! not verify is a fault only when the boundary has not moved either.
//!
//! A checkpoint that no record names is as good as one that the boundary names: it is written only after its slot has passed its check.
//! That it is this log's is proven by its slot's digest: in the slot itself, or in the one behind it, which follows from it. A log that
//! begins anew has a checkpoint of a slot that never was: that counts when the boundary names it, or when a slot follows from it.
//!
//! Slots are created one after the other, each after the one before it was read back, so the last slot that a LIST shows is the head, and
//! one below it that a GET does not find then was lost. It is read from where it lies a second time: in the slot behind it, or, with all
//! before it, in a checkpoint. Where it lies nowhere else the log is refused by name, before anything is written. The log may have grown
//! since it was listed, so what lies above a lost slot is listed again first, once for each.
//!
//! | phase | waits for | next |
//! |---|---|---|
//! | `Newest` | LIST ckpt/, and beside it LIST beat/, GET beat/... | `Trying` the newest one, `Boundary` when there is none |
//! | `Trying` | GET ckpt/... | `Ahead`; the next one, or `Boundary`, when it cannot be used |
//! | `Boundary` | LIST boundary/ | `Trying` one above it; `Pointer`; `Ahead` from 1 when there is none |
//! | `Pointer` | GET boundary/b | `Loading`; `Moved` when it cannot be used |
//! | `Loading` | GET ckpt/... | `Ahead`; `Moved` when it cannot be used |
//! | `Ahead` | the beat; LIST log/ behind the head, from a checkpoint's own slot on | `Slots`; `Confirm` when nothing is there, `Empty` when that is all |
//! | `Own` | GET of a checkpoint's own slot, the last one | `Confirm`; as in `Trying` when it is another one |
//! | `Slots` | GETs of slots, up to 8 at once | `Confirm` at the last one listed, `Ahead` when there may be more; `Again` at an unreadable one; `Moved` at one that is not there or does not follow |
//! | `Again` | GET of it once more | `Ahead` when it can be read now, else `Moved` |
//! | `Moved` | LIST boundary/ | start over when it moved; `Above` for a slot, else `Newest` for one that covers it |
//! | `Above` | LIST log/ behind it, again | `Carried` when the slot behind it is there, `Confirm` when it is cut and the last one, else `Newest` |
//! | `Carried` | GET of the slot behind it | `Ahead` when that carries it, else as `Moved` |
//! | `Empty` | LIST obj/, seg/ | `Confirm` when all are empty, else `Again` |
//! | `Confirm` | LIST boundary/ | `Done`, or `Newest` when it moved |
//!
//! Where a slot was lost, a stalled writer's late create may land and look plausible; but what follows does not follow from it. The
//! slot behind it carries the right one, so the replay starts over and takes that.
//!
//! What is lost at the end of the log leaves no trace in it, but in the beat of the newest epoch, which names the last slot that its holder
//! knew to count, and which is read before the log; and a last slot that is cut names itself. The view is good without it, and says so.
//! What nothing names only the memory of what was seen tells.
//!
//! Invariants: I1, I2, I11. Does not: write anything. Source: `agent/doc/commit-log.md`, Replay.

mod cover;
mod lost;

use super::call::{Answer, Call, CallId, Calls, backoff_ns};
use super::fault::{LogFault, Place};
use super::keys;
use super::limits::{REPLAY_FAULTS_MAX, REPLAY_GETS_MAX, REPLAY_KEYS_MAX};
pub use super::view::{Cover, View, apply_slot};
use super::view::{LostEnd, apply_verified, verify_slot};
use crate::format::cursor::WireFault;
use crate::format::record::CheckpointName;
use crate::format::slot::{Claim, ClusterId, LogDigest, Sealer, carried};
use crate::id::{Epoch, Slot};
use crate::store::StoreFaultKind;

/// Times that a replay starts over because the boundary moved, before it gives up.
const RESTARTS_MAX: u32 = 16;

/// What a replay may leave out or how it behaves, for tests that show why it must not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ReplayOptions {
    /// GETs in flight, `1..=8`.
    pub gets_max: usize,
    /// LIST boundary/ at the end. Off only in tests that must then find a violation.
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
    Newest,
    Beats,
    Beat,
    Checkpoint,
    Boundary,
    Pointer,
    Named,
    Ahead,
    Own,
    Slot(Slot),
    Again,
    Moved,
    Above,
    Behind,
    Empty,
    Confirm,
}

/// A slot that is not to be had under its own name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Lost {
    slot: Slot,
    /// What to say when it is nowhere else; `None`: that it is missing.
    fault: Option<LogFault>,
    /// Digest of what was read where it ought to be, when that is cut and the last slot that the LIST has shown.
    last: Option<LogDigest>,
}

impl Lost {
    fn fault(&self) -> LogFault {
        let place = Place::Slot(self.slot);
        self.fault.unwrap_or(LogFault::Store { place, kind: StoreFaultKind::NotFound })
    }

    /// What was not to be had.
    fn place(&self) -> Place {
        match self.fault {
            Some(LogFault::Format { place, .. } | LogFault::Store { place, .. }) => place,
            _ => Place::Slot(self.slot),
        }
    }
}

/// A checkpoint's slot and nonce.
type Name = (Slot, [u8; 16]);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Phase {
    /// A checkpoint is to be found: with a lost slot, one of it or of a later one.
    Newest(Option<Lost>),
    Trying(Name, Option<Lost>),
    Boundary,
    Pointer(Slot),
    Loading(CheckpointName),
    Ahead,
    Own,
    Slots,
    Again(Lost),
    Moved(Lost),
    Above(Lost),
    Carried(Lost),
    /// The first slot is missing: of `TABLES`, so many were looked into.
    Empty(usize),
    /// The end of what could be read, and what was wrong there.
    Confirm(Option<LogFault>),
    Done(Option<LogFault>),
}

/// What a view that is a checkpoint still has to show.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Unproven {
    /// Its slot never was: only a slot behind it proves it.
    is_beginning: bool,
    /// Its slot is not listed, though later ones are.
    is_gone: bool,
    /// It was looked for because this slot was lost.
    lost: Option<Lost>,
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
    /// The highest boundary that a LIST has shown, when one was asked for.
    boundary: Option<Slot>,
    view: View,
    /// The view is a checkpoint, and nothing has shown yet that it is this log's.
    unproven: Option<Unproven>,
    /// Checkpoints to be tried, ascending.
    covers: Vec<Name>,
    /// A LIST has shown a checkpoint.
    has_covers: bool,
    /// Slots that the last LIST has shown, ascending.
    listed: Vec<Slot>,
    /// Slots that arrived before their turn.
    early: Vec<(Slot, Answer)>,
    /// The next slot to ask for.
    ask: Slot,
    faults: u32,
    restarts: u32,
    /// A slot from which the one behind it does not follow, though that carries another which fits.
    distrusted: Option<Slot>,
    /// What was not to be had under its own name, and was found elsewhere.
    mended: Vec<Place>,
    /// The highest slot that anything says was there.
    end: Option<LostEnd>,
}

impl<S: Sealer> Replay<S> {
    /// A replay of all that counts. `generation` makes its call ids its own.
    pub fn from_start(cluster: ClusterId, sealer: S, options: ReplayOptions, generation: u32) -> Replay<S> {
        let mut replay = Replay::new(cluster, sealer, options, generation);
        replay.start();
        replay
    }

    /// A replay of what came after `view`; starts over from a checkpoint when the boundary has moved past the view.
    pub fn from_view(
        cluster: ClusterId,
        sealer: S,
        options: ReplayOptions,
        generation: u32,
        view: View,
    ) -> Replay<S> {
        let mut replay = Replay::new(cluster, sealer, options, generation);
        replay.end = view.lost_end;
        replay.read_from(view);
        replay
    }

    /// The beat of an epoch, read before this replay began, named a slot: a log that ends before it has lost its end.
    pub fn heard(&mut self, epoch: Epoch, named: Slot) {
        self.went_to(Some(LostEnd { named, by: Place::Beat(epoch) }));
    }

    fn new(cluster: ClusterId, sealer: S, options: ReplayOptions, generation: u32) -> Replay<S> {
        Replay {
            cluster,
            sealer,
            options,
            calls: Calls::new(generation),
            phase: Phase::Boundary,
            base: Slot(0),
            boundary: None,
            view: View::default(),
            unproven: None,
            covers: Vec::new(),
            has_covers: false,
            listed: Vec::new(),
            early: Vec::new(),
            ask: Slot(1),
            faults: 0,
            restarts: 0,
            distrusted: None,
            mended: Vec::new(),
            end: None,
        }
    }

    fn start(&mut self) {
        (self.unproven, self.end) = (None, None);
        self.mended.clear();
        self.look_for_covers(None);
        self.calls.submit(For::Beats, Call::Last { prefix: keys::BEATS, max: 1 });
    }

    fn clear(&mut self) {
        self.calls.clear();
        self.early.clear();
        self.listed.clear();
    }

    fn read_from(&mut self, view: View) {
        self.base = view.head;
        self.view = view;
        self.unproven = None;
        self.go_on();
    }

    /// Looks for slots behind the view.
    fn go_on(&mut self) {
        self.phase = Phase::Ahead;
        // What a beat names is in the log by now, if it is not lost.
        if self.calls.has(For::Beats) || self.calls.has(For::Beat) {
            return;
        }
        self.clear();
        let after = match self.unproven {
            // Its own slot, too.
            Some(_) => Slot(self.view.head.0.saturating_sub(1)),
            None => self.view.head,
        };
        let call = Call::Above { prefix: keys::SLOTS, after: keys::slot(after), max: REPLAY_KEYS_MAX };
        self.calls.submit(For::Ahead, call);
    }

    fn ask_more(&mut self) {
        let last = self.listed.last().copied().unwrap_or_default();
        while self.calls.len() + self.early.len() < self.options.gets_max && self.ask <= last {
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
        self.boundary.unwrap_or_default()
    }

    /// The newest checkpoint that it read, or that the view which it began with lies behind.
    pub fn cover(&self) -> Cover {
        self.view.cover
    }

    /// What was lost or damaged, in words for people: what was found elsewhere, and what was not.
    pub fn warnings(&self) -> impl Iterator<Item = LogFault> {
        let (head, end) = (self.view.head, self.view.lost_end);
        let lost = end.map(|LostEnd { named, by }| LogFault::LostEnd { head, named, by });
        self.mended.iter().map(|&place| LogFault::Mended { place }).chain(lost)
    }

    /// The view when it is done, or the fault; `None` while it runs.
    pub fn result(&self) -> Option<Result<&View, LogFault>> {
        match self.phase {
            Phase::Done(None) => Some(Ok(&self.view)),
            Phase::Done(Some(fault)) => Some(Err(fault)),
            Phase::Newest(_)
            | Phase::Trying(..)
            | Phase::Boundary
            | Phase::Pointer(_)
            | Phase::Loading(_)
            | Phase::Ahead
            | Phase::Own
            | Phase::Slots
            | Phase::Again(_)
            | Phase::Moved(_)
            | Phase::Above(_)
            | Phase::Carried(_)
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
            (For::Newest, Answer::Keys(keys)) => self.looked_for_covers(&keys),
            (For::Beats, Answer::Keys(keys)) => match keys.last() {
                Some(key) => self.calls.submit(For::Beat, Call::Get { key: key.clone() }),
                None => self.beat_read(None),
            },
            (For::Beat, Answer::Body(bytes)) => self.beat_read(Claim::parse_beat(&bytes).ok()),
            (For::Beat, _) => self.beat_read(None),
            (For::Checkpoint, answer) => self.cover_read(answer),
            (For::Boundary, Answer::Keys(keys)) => {
                self.boundary = Some(last_number(&keys));
                self.try_next(None);
            }
            (For::Pointer, answer) => self.pointer_read(answer),
            (For::Named, answer) => self.named_read(answer),
            (For::Ahead, Answer::Keys(keys)) => self.looked_ahead(&keys),
            (For::Own, answer) => self.own_read(answer),
            (For::Slot(slot), answer) => {
                self.early.push((slot, answer));
                self.apply_in_order();
            }
            (For::Again, answer) => self.read_again(answer),
            (For::Moved, Answer::Keys(keys)) => self.looked_for_boundary(last_number(&keys)),
            (For::Above, Answer::Keys(keys)) => self.looked_above(&keys),
            (For::Behind, answer) => self.read_behind(answer),
            (For::Empty, Answer::Keys(keys)) => self.looked_for_tables(!keys.is_empty()),
            (For::Confirm, Answer::Keys(keys)) => {
                let boundary = last_number(&keys);
                self.boundary = Some(boundary);
                if let Phase::Confirm(fault) = self.phase {
                    // Slots up to the boundary may be gone.
                    self.mended.retain(|place| !matches!(place, Place::Slot(slot) if *slot <= boundary));
                    if boundary > self.base { self.restart() } else { self.finish(fault) }
                }
            }
            // A driver that answers with the wrong sort of answer is a bug of ours.
            (
                For::Newest
                | For::Beats
                | For::Boundary
                | For::Ahead
                | For::Moved
                | For::Above
                | For::Empty
                | For::Confirm,
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
            For::Beats | For::Beat => Place::Beat(Epoch(0)),
            For::Pointer => Place::Boundary(self.boundary()),
            For::Named => Place::Checkpoint(self.boundary()),
            For::Newest | For::Checkpoint => match self.phase {
                Phase::Trying((slot, _), _) => Place::Checkpoint(slot),
                _ => Place::Checkpoint(self.view.head),
            },
            For::Slot(slot) => Place::Slot(slot),
            For::Own => Place::Slot(self.view.head),
            For::Ahead | For::Again | For::Above | For::Behind | For::Empty => Place::Slot(self.next_slot()),
        };
        self.finish(Some(LogFault::Store { place, kind }));
    }

    fn next_slot(&self) -> Slot {
        Slot(self.view.head.0.saturating_add(1))
    }

    fn restart(&mut self) {
        self.restarts = self.restarts.saturating_add(1);
        if self.restarts > RESTARTS_MAX { self.finish(Some(LogFault::Moving)) } else { self.start() }
    }

    fn finish(&mut self, fault: Option<LogFault>) {
        self.clear();
        self.view.lost_end = self.end.filter(|end| end.named > self.view.head);
        self.phase = Phase::Done(fault);
    }

    /// Ends reading: whatever was found counts only if the boundary is not past where this began.
    fn confirm(&mut self, fault: Option<LogFault>) {
        self.clear();
        if self.options.second_list {
            self.phase = Phase::Confirm(fault);
            self.calls.submit(For::Confirm, Call::Last { prefix: keys::BOUNDARIES, max: 1 });
        } else {
            self.finish(fault);
        }
    }

    fn beat_read(&mut self, beat: Option<Claim>) {
        let beat = beat.filter(|beat| beat.cluster == self.cluster);
        self.went_to(beat.map(|beat| LostEnd { named: beat.slot, by: Place::Beat(beat.epoch) }));
        if self.phase == Phase::Ahead {
            self.go_on();
        }
    }

    fn went_to(&mut self, end: Option<LostEnd>) {
        self.end = self.end.into_iter().chain(end).max_by_key(|end| end.named);
    }

    fn looked_ahead(&mut self, keys: &[String]) {
        self.listed = keys.iter().filter_map(|key| keys::number(key, keys::SLOTS)).collect();
        let last = self.listed.last().copied();
        self.ask = self.next_slot();
        let is_gone = self.listed.first() != Some(&self.view.head);
        if let Some(unproven) = &mut self.unproven {
            unproven.is_gone = is_gone && !unproven.is_beginning;
        }
        match (self.unproven, last) {
            // The slot behind its own proves a checkpoint as well.
            (Some(_), Some(last)) if last > self.view.head => {
                self.phase = Phase::Slots;
                self.ask_more();
            }
            (Some(_), Some(_)) => {
                self.read_own();
            }
            (Some(unproven), None) => self.alone(unproven),
            (None, Some(_)) => {
                self.phase = Phase::Slots;
                self.ask_more();
            }
            (None, None) if self.view.head > Slot(0) => self.confirm(None),
            (None, None) if self.has_covers => {
                let lost = Lost { slot: Slot(1), fault: None, last: None };
                self.ask_whether_moved(lost);
            }
            (None, None) => {
                self.phase = Phase::Empty(0);
                self.look_for_tables(0);
            }
        }
    }

    fn apply_in_order(&mut self) {
        loop {
            let next = self.next_slot();
            let Some(at) = self.early.iter().position(|(slot, _)| *slot == next) else { break };
            let answer = self.early.swap_remove(at).1;
            let is_last = self.listed.last() == Some(&next);
            let mut lost = Lost { slot: next, fault: None, last: None };
            let fault = match answer {
                Answer::Body(_) if self.distrusted == Some(next) => {
                    lost.fault = Some(LogFault::Chain { slot: next });
                    return self.ask_whether_moved(lost);
                }
                Answer::Body(bytes) => match self.apply(&bytes) {
                    Ok(()) => {
                        self.proven();
                        continue;
                    }
                    Err(fault) if fault.is_newer() => return self.confirm(Some(fault)),
                    Err(fault) if is_cut(&fault) && is_last => {
                        lost.last = Some(*blake3::hash(&bytes).as_bytes());
                        Some(fault)
                    }
                    // A late create of another writer may have landed where a slot was lost.
                    Err(LogFault::Chain { .. })
                        if carried(&bytes).is_some()
                            && self.unproven.is_none()
                            && self.distrusted != Some(self.view.head) =>
                    {
                        self.distrusted = Some(self.view.head);
                        return self.restart();
                    }
                    Err(fault) => Some(fault),
                },
                Answer::Absent | Answer::Done | Answer::Keys(_) | Answer::Fault(_) => None,
            };
            lost.fault = fault;
            return match (self.unproven, fault) {
                (_, Some(_)) if lost.last.is_some() => self.read_once_more(lost),
                // What is behind it is another log's, or cannot say whose it is.
                (Some(unproven), _) => self.cannot_use(unproven.lost),
                (None, None) if !self.options.look_beyond => self.confirm(None),
                (None, Some(LogFault::Format { .. })) => self.read_once_more(lost),
                // It is not there, or it is whole and not what follows: reading it again changes nothing.
                (None, _) => self.ask_whether_moved(lost),
            };
        }
        match self.listed.last() {
            Some(last) if *last <= self.view.head => {
                if self.listed.len() < REPLAY_KEYS_MAX {
                    self.confirm(None)
                } else {
                    self.go_on()
                }
            }
            _ => self.ask_more(),
        }
    }

    /// Applies the next slot, or leaves the view as it was.
    fn apply(&mut self, bytes: &[u8]) -> Result<(), LogFault> {
        let contents = verify_slot(&self.view, bytes, &self.cluster, &self.sealer)?;
        apply_verified(&mut self.view, contents, bytes)
    }
}

fn last_number(keys: &[String]) -> Slot {
    keys.iter().filter_map(|key| keys::number(key, keys::BOUNDARIES)).max().unwrap_or_default()
}

/// Whether a slot is not all there: what a power failure leaves of it, and not what a newer program writes.
fn is_cut(fault: &LogFault) -> bool {
    matches!(fault, LogFault::Format { why: WireFault::Short | WireFault::Magic | WireFault::Digest, .. })
}
