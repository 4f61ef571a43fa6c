//! Replay: from the boundary and its checkpoint to the head of the log.
//!
//! b = highest of LIST boundary/; load its checkpoint; GET b+1 ... until 404, verifying digests and epochs; LIST boundary/ again;
//! when it moved past where this replay began, start over: a slot at or below the boundary may have been collected, and a stalled
//! writer's late create may sit in it and look plausible. So nothing that was read counts until the second LIST, and a slot
//! that does not verify is a fault only when the boundary has not moved either.
//!
//! | phase | waits for | next |
//! |---|---|---|
//! | `Boundary` | LIST boundary/ | `Pointer`, or `Slots` from 1 when there is none |
//! | `Pointer` | GET boundary/b | `Loading` |
//! | `Loading` | GET ckpt/... | `Slots` |
//! | `Slots` | GETs of slots, up to 8 at once | `Confirm` at the first 404 or the first slot that does not verify |
//! | `Confirm` | LIST boundary/ | `Done`, or `Boundary` when it moved |
//!
//! Invariants: I1, I2, I11. Does not: write anything. Source: commit-log design "Replay"; the coordination reference 3.2, 3.4.

use super::call::{Answer, Call, CallId, Calls, backoff_ns};
use super::checkpoint::Checkpoint;
use super::fault::{LogFault, Place};
use super::keys;
use super::limits::{REPLAY_FAULTS_MAX, REPLAY_GETS_MAX};
use super::state::State;
use crate::format::cursor::WireFault;
use crate::format::record::CheckpointName;
use crate::format::slot::{ClusterId, LogDigest, Sealer, SlotContents, parse_boundary};
use crate::id::Slot;
use crate::store::StoreFaultKind;

/// Times that a replay starts over because the boundary moved, before it gives up.
const RESTARTS_MAX: u32 = 16;

/// A verified prefix of the log.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct View {
    /// Its last slot; 0 for an empty log.
    pub head: Slot,
    /// Digest of that slot, zero for an empty log.
    pub digest: LogDigest,
    /// The fold of all records up to it.
    pub state: State,
}

/// What a replay may leave out or how it behaves, for tests that show why it must not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ReplayOptions {
    /// GETs in flight, `1..=8`.
    pub gets_max: usize,
    /// LIST boundary/ again at the end. Off only in tests that must then find a violation.
    pub second_list: bool,
}

impl Default for ReplayOptions {
    fn default() -> ReplayOptions {
        ReplayOptions { gets_max: REPLAY_GETS_MAX, second_list: true }
    }
}

/// What a call is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum For {
    Boundary,
    Pointer,
    Checkpoint,
    Slot(Slot),
    Confirm,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Phase {
    Boundary,
    Pointer(Slot),
    Loading(CheckpointName),
    Slots,
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
        self.phase = Phase::Boundary;
        self.calls.submit(For::Boundary, Call::Last { prefix: keys::BOUNDARIES });
    }

    fn read_slots(&mut self, view: View) {
        self.base = view.head;
        self.ask = Slot(view.head.0.saturating_add(1));
        self.view = view;
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

    /// The view when it is done, or the fault; `None` while it runs.
    pub fn result(&self) -> Option<Result<&View, LogFault>> {
        match self.phase {
            Phase::Done(None) => Some(Ok(&self.view)),
            Phase::Done(Some(fault)) => Some(Err(fault)),
            Phase::Boundary | Phase::Pointer(_) | Phase::Loading(_) | Phase::Slots | Phase::Confirm(_) => {
                None
            }
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
            (For::Confirm, Answer::Keys(keys)) => {
                let boundary = last_number(&keys).unwrap_or(Slot(0));
                self.boundary = boundary;
                match self.phase {
                    Phase::Confirm(_) if boundary > self.base => self.restart(),
                    Phase::Confirm(fault) => self.finish(fault),
                    Phase::Boundary
                    | Phase::Pointer(_)
                    | Phase::Loading(_)
                    | Phase::Slots
                    | Phase::Done(_) => {}
                }
            }
            // A driver that answers with the wrong sort of answer is a bug of ours.
            (
                For::Boundary | For::Confirm,
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
            For::Boundary | For::Confirm => Place::Boundary(Slot(0)),
            For::Pointer => Place::Boundary(self.base),
            For::Checkpoint => Place::Checkpoint(self.base),
            For::Slot(slot) => Place::Slot(slot),
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
                return self.confirm(Some(LogFault::Store { place, kind: StoreFaultKind::NotFound }));
            }
        };
        match parsed {
            Ok((cluster, _)) if cluster != self.cluster => {
                self.confirm(Some(LogFault::Format { place, why: WireFault::Cluster }));
            }
            Ok((_, name)) if name.slot != slot => {
                self.confirm(Some(LogFault::Format { place, why: WireFault::Value }));
            }
            Ok((_, name)) => {
                self.phase = Phase::Loading(name);
                let key = keys::checkpoint(name.slot, &name.nonce);
                self.calls.submit(For::Checkpoint, Call::Get { key });
            }
            Err(why) => self.confirm(Some(LogFault::Format { place, why })),
        }
    }

    fn checkpoint_read(&mut self, answer: Answer) {
        let Phase::Loading(name) = self.phase else { return };
        let place = Place::Checkpoint(name.slot);
        let parsed = match answer {
            Answer::Body(bytes) => Checkpoint::parse(&bytes, &self.sealer),
            Answer::Absent | Answer::Done | Answer::Keys(_) | Answer::Fault(_) => {
                return self.confirm(Some(LogFault::Store { place, kind: StoreFaultKind::NotFound }));
            }
        };
        match parsed {
            Ok((checkpoint, _)) if checkpoint.cluster != self.cluster => {
                self.confirm(Some(LogFault::Format { place, why: WireFault::Cluster }));
            }
            Ok((checkpoint, digest))
                if (checkpoint.slot, checkpoint.nonce, digest) != (name.slot, name.nonce, name.digest) =>
            {
                self.confirm(Some(LogFault::Format { place, why: WireFault::Digest }));
            }
            Ok((checkpoint, _)) => self.read_slots(View {
                head: checkpoint.slot,
                digest: checkpoint.slot_digest,
                state: checkpoint.state,
            }),
            Err(why) => self.confirm(Some(LogFault::Format { place, why })),
        }
    }

    fn apply_in_order(&mut self) {
        loop {
            let next = Slot(self.view.head.0.saturating_add(1));
            let Some(at) = self.early.iter().position(|(slot, _)| *slot == next) else { break };
            match self.early.swap_remove(at).1 {
                Answer::Body(bytes) => {
                    if let Err(fault) = apply_slot(&mut self.view, &bytes, &self.cluster, &self.sealer) {
                        return self.confirm(Some(fault));
                    }
                    self.window = self.window.saturating_mul(2).min(self.options.gets_max);
                }
                Answer::Absent | Answer::Done | Answer::Keys(_) | Answer::Fault(_) => {
                    return self.confirm(None);
                }
            }
        }
        self.ask_more();
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
    view.state
        .apply_slot(header, &contents.records)
        .map_err(|(_, why)| LogFault::Inconsistent { slot, why })?;
    view.head = slot;
    view.digest = contents.digest;
    Ok(())
}
