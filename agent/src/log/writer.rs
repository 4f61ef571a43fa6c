//! Writer: claim the lease, begin an epoch, commit batches, keep checkpoints and the boundary, yield.
//!
//! | phase | what | next |
//! |---|---|---|
//! | `Replaying` | reads the log | `Seeking` |
//! | `Seeking` | claims an epoch ([`lease`](super::lease)) | `CatchingUp` |
//! | `CatchingUp` | reads what came since: the old holder's last commits are good | `Beginning`, or `Covering` when the log's end is lost |
//! | `Covering` | stores a checkpoint far behind all that was named: the log goes on behind it | `Beginning` |
//! | `Beginning` | commits "epoch begun" | `Ready`, or `CatchingUp` when the slot was taken by the old holder |
//! | `Ready` | takes a batch, or a release | `Committing`, `Yielding` |
//! | `Committing` | one slot in flight (I3) | `Ready` |
//! | `Yielding` | commits the yield | `Released` |
//! | `Lost` | nothing any more | |
//!
//! A slot in flight goes through these steps (C1), and through nothing else:
//!
//! | step | call | answer -> next |
//! |---|---|---|
//! | `Creating` | create slot n | done -> `Checking`; exists -> `Checking`; no clear answer -> `Resolving`; conflict -> again |
//! | `Resolving` | GET slot n | absent -> `Creating`, same bytes, same slot (C2); present -> as in `Checking` |
//! | `Checking` | GET slot n | ours -> `Fencing`; higher epoch -> fenced; else `CatchingUp` or a fault |
//! | `Fencing` | GET epoch/e+1 | absent -> committed; present -> fenced |
//!
//! Invariants: I3, I6, I7: success is told only after `Fencing`; after `Lost` no call is made. Checkpoints and the boundary follow
//! G3: the boundary is a committed checkpoint at least 256 slots behind the last slot that passed its check; deletes come after it.
//!
//! Does not: decide what to commit, nor collect objects (`gc`). Source: `agent/doc/commit-log.md`, Commit.

mod cover;
mod options;

use std::borrow::Cow;
use std::collections::VecDeque;
use std::iter;

#[cfg(feature = "weaken")]
pub use options::WEAKENED;
pub use options::{Checks, WriterOptions};

use super::call::{Answer, Body, Call, CallId, Calls, backoff_ns};
use super::fault::{LogFault, Place};
use super::housekeeping::{Housekeeping, KeepNews};
use super::keys;
use super::lease::{Identity, Lease, LeaseNews, Nonces, Seek, Timing};
use super::limits::SLOT_RECORDS_MAX;
use super::replay::{Replay, View};
use super::state::Refusal;
use crate::format::cursor::WireFault;
use crate::format::feature;
use crate::format::record::Record;
use crate::format::slot::{Author, LogDigest, Sealer, SlotHeader, carry};
use crate::id::{Epoch, NodeId, Slot};
use crate::store::StoreFaultKind;

/// What the driver is to do or to know.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Perform this call once and hand the answer to `handle` under the same id.
    Call {
        /// Its id.
        id: CallId,
        /// What.
        call: Call,
    },
    /// Another process may hold the lease; nothing to do but to wait until then or to give up.
    Wait {
        /// Who, as a fault to show when the driver gives up.
        held: LogFault,
        /// On this process's clock, nanoseconds.
        until_ns: u64,
    },
    /// The epoch has begun: batches may come.
    Ready {
        /// The epoch.
        epoch: Epoch,
        /// Its first slot.
        slot: Slot,
    },
    /// The batch is durable and counts: exactly one of this or `Lost` follows an accepted batch.
    Committed {
        /// Where.
        slot: Slot,
    },
    /// Yielded: this writer is done.
    Released {
        /// Where.
        slot: Slot,
    },
    /// Stepped down: this writer is done. A new one may be made, with a new seed; it takes a new epoch.
    Lost(LogFault),
    /// Something in the background did not work; commits go on.
    Warning(LogFault),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Phase {
    Replaying,
    Seeking,
    CatchingUp,
    Covering,
    Beginning,
    Ready,
    Committing,
    Yielding,
    Released,
    Lost,
}

/// What a call of the slot in flight is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Step {
    /// A checkpoint of this slot, with this digest for it.
    Covering {
        slot: Slot,
        slot_digest: LogDigest,
    },
    Creating,
    Resolving,
    Checking,
    Fencing,
}

/// The slot in flight.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Flight {
    header: SlotHeader,
    body: Body,
    /// The view once it is committed.
    next: View,
    /// The checkpoint record of our own is among its records.
    with_checkpoint: bool,
    /// What to report unless a higher epoch explains it.
    doubt: Option<LogFault>,
    attempts: u32,
    /// When the create is sent again, after one that decided nothing.
    again_ns: Option<u64>,
}

/// The machine.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Writer<S> {
    identity: Identity,
    sealer: S,
    options: WriterOptions,
    phase: Phase,
    epoch: Epoch,
    view: View,
    replay: Option<Replay<S>>,
    /// The log as it is without its end, while nothing follows yet from what covers that.
    uncovered: Option<View>,
    /// When the log was read last, or written.
    read_ns: Option<u64>,
    /// The log was read for this claim: what it says of the lease is no older.
    has_read: bool,
    lease: Option<Lease>,
    flight: Option<Flight>,
    calls: Calls<Step>,
    keep: Housekeeping,
    nonces: Nonces,
    /// Call ids of parts: the writer 0, housekeeping 1, then a new one for each replay and lease.
    generation: u32,
    actions: VecDeque<Action>,
}

impl<S: Sealer + Clone> Writer<S> {
    /// Starts with a replay. `seed` is random and used for nothing else.
    pub fn new(identity: Identity, sealer: S, options: WriterOptions, seed: [u8; 32]) -> Writer<S> {
        let generation = 2;
        let replay = Replay::from_start(identity.cluster, sealer.clone(), options.replay, generation);
        Writer {
            identity,
            sealer,
            options,
            phase: Phase::Replaying,
            epoch: Epoch(0),
            view: View::default(),
            replay: Some(replay),
            uncovered: None,
            read_ns: None,
            has_read: true,
            lease: None,
            flight: None,
            calls: Calls::new(0),
            keep: Housekeeping::new(identity.cluster, options.checkpoint_slots, options.boundary_lag_slots),
            nonces: Nonces::new(seed),
            generation,
            actions: VecDeque::new(),
        }
    }

    /// The state as of the last slot that counts.
    pub fn view(&self) -> &View {
        &self.view
    }

    /// When its view was all that counts, as far as it knows: it has read the log then, or written.
    pub fn read_ns(&self) -> Option<u64> {
        self.read_ns
    }

    /// The epoch that is held or was held; 0 before.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// End of the lease on this process's clock.
    pub fn lease_end_ns(&self) -> Option<u64> {
        self.lease.as_ref().and_then(Lease::end_ns)
    }

    /// Length of the lease, in nanoseconds.
    pub fn lease_ns(&self) -> u64 {
        self.lease.as_ref().map_or(self.timing().lease_ns, Lease::lease_ns)
    }

    /// Times of the next lease: the repository's, where it says any. What changes under a lease holds from the next one on, because the
    /// grant of this one is what others wait by.
    fn timing(&self) -> Timing {
        let own = self.options.timing;
        self.view.state.lease_ns.filter(|&ns| ns != own.lease_ns).map_or(own, Timing::of)
    }

    /// Whether an assignment may be sent now: the epoch has begun and enough of the lease is left.
    pub fn may_assign(&self, now_ns: u64) -> bool {
        matches!(self.phase, Phase::Ready | Phase::Committing) && self.may_send(now_ns)
    }

    /// Whether `commit` takes a batch now.
    pub fn is_ready(&self) -> bool {
        self.phase == Phase::Ready
    }

    /// The slot in flight, if any.
    pub fn in_flight(&self) -> Option<Slot> {
        self.flight.as_ref().map(|flight| flight.header.slot)
    }

    fn may_send(&self, now_ns: u64) -> bool {
        self.lease.as_ref().is_some_and(|lease| lease.may_send(now_ns))
    }

    /// What the driver is to do next; `None` until something happens.
    pub fn next_action(&mut self) -> Option<Action> {
        if let Some(action) = self.actions.pop_front() {
            return Some(action);
        }
        let call = self
            .lease
            .as_mut()
            .and_then(Lease::next_call)
            .or_else(|| self.replay.as_mut().and_then(Replay::next_call))
            .or_else(|| self.calls.next_call())
            .or_else(|| self.keep.next_call());
        call.map(|(id, call)| Action::Call { id, call })
    }

    /// When `wake` is due.
    pub fn deadline(&self) -> Option<u64> {
        let lease = self.lease.as_ref().and_then(Lease::deadline);
        let replay = self.replay.as_ref().and_then(Replay::deadline);
        let again = self.flight.as_ref().and_then(|flight| flight.again_ns);
        [lease, replay, again, self.calls.deadline(), self.keep.deadline()].into_iter().flatten().min()
    }

    /// Time passed.
    pub fn wake(&mut self, now_ns: u64) {
        if let Some(lease) = &mut self.lease {
            lease.wake(now_ns);
        }
        if let Some(replay) = &mut self.replay {
            replay.wake(now_ns);
        }
        self.calls.wake(now_ns);
        self.keep.wake(now_ns);
        let again = self.flight.as_mut().and_then(|flight| flight.again_ns.take_if(|due| *due <= now_ns));
        if again.is_some() {
            self.create(now_ns);
        }
        self.settle(now_ns);
    }

    /// Takes an answer. An id that is not open is counted and dropped.
    pub fn handle(&mut self, now_ns: u64, id: CallId, answer: Answer) {
        match (id.0 >> 32, &mut self.lease, &mut self.replay) {
            (0, _, _) => self.slot_answered(now_ns, id, answer),
            (1, _, _) => self.keep.handle(now_ns, id, answer),
            (generation, Some(lease), _) if lease.generation() == generation => {
                lease.handle(now_ns, id, answer)
            }
            (_, _, Some(replay)) => replay.handle(now_ns, id, answer),
            (_, _, None) => {}
        }
        self.settle(now_ns);
    }

    /// Commits a batch: exactly one `Committed` or `Lost` follows. Refused batches come back with the reason, and nothing was
    /// written. Cost: a copy of the state's tables of contents, and the encoding.
    pub fn commit(&mut self, now_ns: u64, batch: Vec<Record>) -> Result<(), (LogFault, Vec<Record>)> {
        if self.phase != Phase::Ready {
            return Err((LogFault::NotReady, batch));
        }
        if let Some(record) = batch.iter().position(is_own) {
            return Err((LogFault::Refused { record, why: Refusal::Order }, batch));
        }
        self.wake(now_ns);
        if self.phase != Phase::Ready || !self.may_send(now_ns) {
            return Err((LogFault::NotReady, batch));
        }
        self.launch(now_ns, Phase::Committing, batch)
    }

    /// Ends the lease with a yield record, so that the next holder need not wait. `Released` or `Lost` follows. False when a batch
    /// is in flight or the lease is not held: nothing happens then.
    pub fn release(&mut self, now_ns: u64, successor: Option<NodeId>) -> bool {
        let is_on_its_way = self.phase == Phase::Ready
            && self.may_send(now_ns)
            && self.launch(now_ns, Phase::Yielding, vec![Record::Yield { successor }]).is_ok();
        if let Some(lease) = self.lease.as_mut().filter(|_| is_on_its_way) {
            // So that a store which loses the last of this is found out.
            lease.beat_now(now_ns);
        }
        is_on_its_way
    }

    /// Lets parts' news take effect until there is none.
    fn settle(&mut self, now_ns: u64) {
        while let Some(news) = self.lease.as_mut().and_then(Lease::next_news) {
            match news {
                LeaseNews::Waiting { .. } if !self.has_read => {
                    // The node that took it since may have let it go.
                    let lease = self.lease.take();
                    self.has_read = true;
                    self.read_on(Phase::Replaying, lease.as_ref());
                }
                LeaseNews::Waiting { held, until_ns } => {
                    self.actions.push_back(Action::Wait { held, until_ns });
                }
                LeaseNews::Granted(epoch) => {
                    self.epoch = epoch;
                    let lease = self.lease.take();
                    self.read_on(Phase::CatchingUp, lease.as_ref());
                    self.lease = lease;
                }
                LeaseNews::Lost(fault) => self.lose(fault),
            }
        }
        while let Some(KeepNews::Warning(fault)) = self.keep.next_news() {
            self.actions.push_back(Action::Warning(fault));
        }
        self.replay_settled(now_ns);
    }

    fn replay_settled(&mut self, now_ns: u64) {
        let fault = match self.replay.as_ref().and_then(Replay::result) {
            None => return,
            Some(Err(fault)) => Some(fault),
            Some(Ok(_)) => None,
        };
        let Some(replay) = self.replay.take() else { return };
        if let Some(fault) = fault {
            return self.lose(fault);
        }
        self.keep.saw(replay.boundary(), replay.cover());
        // The end that a view before had lost was told then.
        let is_news =
            |fault: &LogFault| !matches!(fault, LogFault::LostEnd { .. }) || self.view.lost_end.is_none();
        self.actions.extend(replay.warnings().filter(is_news).map(Action::Warning));
        self.view = replay.into_view();
        self.read_ns = Some(now_ns);
        if let Some(end) = self.view.lost_end.filter(|_| self.options.keeps_to_end) {
            // What is written behind it would take the place of what is lost.
            let head = self.view.head;
            return self.lose(LogFault::LostEnd { head, named: end.named, by: end.by });
        }
        match self.phase {
            Phase::Replaying => self.seek(),
            Phase::CatchingUp if self.view.state.epoch > self.epoch => {
                self.lose(LogFault::Fenced { epoch: self.epoch, unresolved: None });
            }
            Phase::CatchingUp => match self.view.lost_end {
                Some(end) => self.cover(end.named),
                None => self.begin(now_ns),
            },
            Phase::Seeking
            | Phase::Covering
            | Phase::Beginning
            | Phase::Ready
            | Phase::Committing
            | Phase::Yielding
            | Phase::Released
            | Phase::Lost => {}
        }
    }

    fn begin(&mut self, now_ns: u64) {
        let begun = vec![Record::EpochBegun { epoch: self.epoch }];
        if let Err((fault, _)) = self.launch(now_ns, Phase::Beginning, begun) {
            self.lose(fault);
        }
    }

    fn next_generation(&mut self) -> u32 {
        self.generation += 1;
        self.generation
    }

    fn seek(&mut self) {
        let keeps = feature::not_to_write(&self.view.state.features);
        if let Some(feature) = self.options.read_only.or(keeps) {
            return self.lose(LogFault::ReadOnly { feature });
        }
        self.phase = Phase::Seeking;
        let state = &self.view.state;
        let yielded = match state.yielded {
            None => false,
            Some(successor) => successor.is_none_or(|node| node == self.identity.me.node),
        };
        let holder = (state.holder != Author::default()).then_some(state.holder);
        let from = Seek { epoch: state.epoch, holder, yielded };
        let generation = self.next_generation();
        let nonces = Nonces::new(self.nonces.seed());
        let mut lease = Lease::seek(self.identity, self.timing(), nonces, generation, from);
        if !self.options.checks.late_answer() {
            lease.let_late_answers_renew();
        }
        self.lease = Some(lease);
    }

    fn lose(&mut self, fault: LogFault) {
        let under_way = self.flight.as_ref().filter(|flight| flight.attempts > 0);
        let unresolved = under_way.map(|flight| flight.header.slot);
        let fault = match fault {
            LogFault::Fenced { epoch, .. } => LogFault::Fenced { epoch, unresolved },
            LogFault::Expired { epoch, .. } => LogFault::Expired { epoch, unresolved },
            other => other,
        };
        self.stop(Phase::Lost);
        self.actions.push_back(Action::Lost(fault));
    }

    /// Makes no more calls.
    fn stop(&mut self, phase: Phase) {
        self.phase = phase;
        self.flight = None;
        self.replay = None;
        self.lease = None;
        self.calls.clear();
        self.keep.stop();
        self.actions.retain(|action| !matches!(action, Action::Call { .. }));
    }

    /// Puts a batch into flight at the slot after the view's head.
    fn launch(
        &mut self,
        now_ns: u64,
        phase: Phase,
        batch: Vec<Record>,
    ) -> Result<(), (LogFault, Vec<Record>)> {
        assert!(self.flight.is_none(), "I3: one slot in flight");
        let header = SlotHeader {
            cluster: self.identity.cluster,
            slot: Slot(self.view.head.0.saturating_add(1)),
            epoch: self.epoch,
            writer: self.identity.me,
            nonce: self.nonces.draw(),
            previous: self.view.digest,
        };
        // A checkpoint of ours rides along when there is room; it is never a reason to refuse the caller's batch.
        if phase != Phase::Beginning
            && batch.len() < SLOT_RECORDS_MAX
            && let Some(name) = self.keep.pending()
        {
            let mut records = Vec::with_capacity(batch.len() + 1);
            records.push(Record::Checkpoint(name));
            records.extend_from_slice(&batch);
            if let Ok(flight) = self.prepare(header, &records, true) {
                self.take_off(now_ns, phase, flight);
                return Ok(());
            }
        }
        match self.prepare(header, &batch, false) {
            Ok(flight) => {
                self.take_off(now_ns, phase, flight);
                Ok(())
            }
            Err(fault) => Err((fault, batch)),
        }
    }

    fn prepare(
        &self,
        header: SlotHeader,
        records: &[Record],
        with_checkpoint: bool,
    ) -> Result<Flight, LogFault> {
        let mut state = self.view.state.clone();
        let needed = feature::needed(records, &state.features);
        let ahead = usize::from(!needed.is_empty());
        let records = match ahead {
            0 => Cow::Borrowed(records),
            _ => iter::once(Record::FeaturesRaised(needed)).chain(records.iter().cloned()).collect(),
        };
        let refused = |(record, why)| LogFault::Refused { record: usize::saturating_sub(record, ahead), why };
        state.apply_slot(&header, &records).map_err(refused)?;
        let (bytes, digest) = header.emit(&records, &self.sealer).map_err(|fault| match fault {
            WireFault::Count(size) => LogFault::TooLarge { size },
            why => LogFault::Format { place: Place::Slot(header.slot), why },
        })?;
        let (last, cover) = (bytes.as_slice().into(), self.view.cover);
        let next = View { head: header.slot, digest, state, last, cover, lost_end: None };
        let body = carry(bytes, &self.view.last).into();
        Ok(Flight { header, body, next, with_checkpoint, doubt: None, attempts: 0, again_ns: None })
    }

    fn take_off(&mut self, now_ns: u64, phase: Phase, flight: Flight) {
        self.phase = phase;
        self.flight = Some(flight);
        self.create(now_ns);
    }

    /// Sends the create, the first time or again with the same bytes, if the lease still allows it (L1).
    fn create(&mut self, now_ns: u64) {
        if !self.may_send(now_ns) {
            return self.lose(LogFault::Expired { epoch: self.epoch, unresolved: None });
        }
        let Some(flight) = &mut self.flight else { return };
        flight.attempts = flight.attempts.saturating_add(1);
        let call = Call::Create { key: keys::slot(flight.header.slot), body: flight.body.clone() };
        self.calls.submit(Step::Creating, call);
    }

    fn slot_answered(&mut self, now_ns: u64, id: CallId, answer: Answer) {
        let Some((step, call)) = self.calls.complete(id) else { return };
        if let Step::Covering { slot, slot_digest } = step {
            return self.covered(now_ns, slot, slot_digest, call, answer);
        }
        let Some(flight) = &self.flight else { return };
        let (slot, attempts) = (flight.header.slot, flight.attempts);
        let read = Call::Get { key: keys::slot(slot) };
        let later = now_ns.saturating_add(backoff_ns(attempts.saturating_sub(1)));
        match (step, answer) {
            (Step::Creating, Answer::Fault(StoreFaultKind::Exists)) if !self.options.checks.exists() => {
                self.flight = None;
                self.lose(LogFault::Fenced { epoch: self.epoch, unresolved: None });
            }
            // C1, C3: whatever the create said, the slot itself tells whose it is.
            (Step::Creating, Answer::Done | Answer::Fault(StoreFaultKind::Exists)) => {
                self.calls.submit(Step::Checking, read);
            }
            // C2.
            (Step::Creating, Answer::Fault(StoreFaultKind::Unknown | StoreFaultKind::Corrupt)) => {
                self.calls.submit(Step::Resolving, read);
            }
            (Step::Creating, Answer::Fault(StoreFaultKind::Conflict)) => {
                // Nothing was decided; pause by way of a read, which parks, and then the same PUT.
                self.calls.park(later, Step::Resolving, read);
            }
            (Step::Creating, Answer::Fault(kind)) => {
                let kind = if kind == StoreFaultKind::NotFound { StoreFaultKind::StoreGone } else { kind };
                self.lose(LogFault::Store { place: Place::Slot(slot), kind });
            }
            (step, Answer::Fault(kind)) => {
                if is_unclear(kind) {
                    // The end of the lease bounds these repeats.
                    let Some(flight) = &mut self.flight else { return };
                    flight.attempts = attempts.saturating_add(1);
                    self.calls.park(later, step, call);
                } else {
                    self.lose(LogFault::Store { place: Place::Slot(slot), kind });
                }
            }
            // The same bytes again (C2), after a pause: a store that answers 503 at once would be asked without one.
            (Step::Resolving, Answer::Absent) => {
                if let Some(flight) = &mut self.flight {
                    flight.again_ns = Some(later);
                }
            }
            (Step::Resolving | Step::Checking, Answer::Body(bytes)) => self.slot_read(&bytes),
            (Step::Checking, Answer::Absent) => {
                // It was there a moment ago: collected, so another node has moved on; or the store lost it.
                self.doubt(LogFault::Store { place: Place::Slot(slot), kind: StoreFaultKind::NotFound });
            }
            (Step::Fencing, Answer::Body(_)) => {
                self.lose(LogFault::Fenced { epoch: self.epoch, unresolved: None });
            }
            (Step::Fencing, Answer::Absent) => self.passed(now_ns),
            (Step::Covering { .. }, _)
            | (Step::Creating, Answer::Body(_) | Answer::Absent | Answer::Keys(_))
            | (_, Answer::Done | Answer::Keys(_)) => {}
        }
    }

    /// Asks for a higher epoch before `fault` is believed.
    fn doubt(&mut self, fault: LogFault) {
        if let Some(flight) = &mut self.flight {
            flight.doubt = Some(fault);
        }
        self.fence();
    }

    fn fence(&mut self) {
        let next = Epoch(self.epoch.0.saturating_add(1));
        self.calls.submit(Step::Fencing, Call::Get { key: keys::epoch(next) });
    }

    fn slot_read(&mut self, bytes: &[u8]) {
        let Some(flight) = &self.flight else { return };
        let slot = flight.header.slot;
        let found = match SlotHeader::parse(bytes) {
            Ok((found, _)) => found,
            Err(why) => return self.doubt(LogFault::Format { place: Place::Slot(slot), why }),
        };
        let mine = found == flight.header || !self.options.checks.nonce();
        if mine {
            if self.options.checks.epoch() {
                self.fence();
            } else {
                self.passed(0);
            }
        } else if found.epoch > self.epoch {
            self.lose(LogFault::Fenced { epoch: self.epoch, unresolved: None });
        } else if self.phase == Phase::Beginning {
            // The old holder was faster: its commit is good. The replay asks the boundary whether this slot counts at all.
            self.read_on(Phase::CatchingUp, None);
        } else {
            self.doubt(LogFault::Author { slot, epoch: found.epoch, holds: self.epoch });
        }
    }

    /// The slot passed its check: it counts.
    fn passed(&mut self, now_ns: u64) {
        let Some(flight) = self.flight.take() else { return };
        if let Some(fault) = flight.doubt {
            return self.lose(fault);
        }
        assert!(flight.next.head.0 == self.view.head.0.saturating_add(1), "I1: no gap");
        assert!(flight.next.state.epoch >= self.view.state.epoch, "I2: epochs never decrease");
        self.view = flight.next;
        self.read_ns = Some(now_ns);
        self.uncovered = None;
        let slot = self.view.head;
        if let Some(lease) = &mut self.lease {
            lease.committed(slot);
        }
        match self.phase {
            Phase::Beginning => {
                self.phase = Phase::Ready;
                self.actions.push_back(Action::Ready { epoch: self.epoch, slot });
            }
            Phase::Committing => {
                self.phase = Phase::Ready;
                self.actions.push_back(Action::Committed { slot });
            }
            Phase::Yielding => {
                self.stop(Phase::Released);
                return self.actions.push_back(Action::Released { slot });
            }
            Phase::Replaying
            | Phase::Seeking
            | Phase::CatchingUp
            | Phase::Covering
            | Phase::Ready
            | Phase::Released
            | Phase::Lost => {}
        }
        let nonce = self.nonces.draw();
        self.keep.committed(now_ns, &self.view, flight.with_checkpoint, nonce, &self.sealer);
    }
}

/// Records that only the writer itself puts into a slot.
fn is_own(record: &Record) -> bool {
    matches!(
        record,
        Record::EpochBegun { .. } | Record::Yield { .. } | Record::Checkpoint(_) | Record::FeaturesRaised(_)
    )
}

/// Whether an answer decides nothing: the call may be repeated.
fn is_unclear(kind: StoreFaultKind) -> bool {
    matches!(kind, StoreFaultKind::Unknown | StoreFaultKind::Conflict | StoreFaultKind::Corrupt)
}
