//! A blocking driver of the log for command lines: open to read, claim, commit, release.
//!
//! `Session` gives the writer's calls to [`Hands`], so that neither a call that hangs nor housekeeping delays a beat; without any it performs
//! them one by one on the thread that calls it, a beat that is due first. A caller that runs long between commits calls
//! [`Session::poll`] at or before the deadline that it returned, so that beats go out; a node runs the
//! [`Writer`] itself. What mends a log that cannot be followed holds the lease without it ([`Hold`]).
//!
//! Does not: start threads. Source: ours.

use std::time::Duration;

use windlass_hal::clock::{Clock, Instant};

use super::call::{Answer, Call, CallId, backoff_ns, perform};
use super::fault::{LogFault, Place};
use super::keys;
use super::lease::{Identity, Lease, LeaseNews, Nonces, Seek, Timing};
use super::limits::LEASE_CALLS;
use super::replay::{Replay, ReplayOptions, View};
use super::writer::{Action, Writer, WriterOptions};
use crate::format::record::Record;
use crate::format::slot::{ClusterId, Sealer};
use crate::id::{Epoch, NodeId, Slot};
use crate::store::{Store, StoreFault};

/// What a session needs from outside.
#[derive(Clone, Copy)]
pub struct Surroundings<'a> {
    /// The store, without retries: the machines decide what may be repeated.
    pub store: &'a dyn Store,
    /// The clock.
    pub clock: &'a dyn Clock,
}

/// Performs calls beside the session's thread, each lane ([`Call::lane`]) by itself.
pub trait Hands: Send {
    /// Performs a call, once. `round` comes back with its answer.
    fn submit(&mut self, round: u32, id: CallId, call: Call);
    /// The next answer, if one comes within `patience`.
    fn take(&mut self, patience: Duration) -> Option<Done>;
}

/// A call that [`Hands`] performed.
#[derive(Clone, Debug)]
pub struct Done {
    /// As it was submitted.
    pub round: u32,
    /// Which call.
    pub id: CallId,
    /// What the store said.
    pub answer: Answer,
    /// In its own words, when it failed.
    pub fault: Option<StoreFault>,
}

/// A lease holder that blocks.
pub struct Session<'a, S> {
    around: Surroundings<'a>,
    hands: Option<Box<dyn Hands>>,
    /// Which writer of this session's claim: answers to the calls of an earlier one are dropped.
    round: u32,
    /// Calls that the hands have of this writer.
    open: usize,
    writer: Writer<S>,
    last_store_fault: Option<StoreFault>,
}

/// Longest time between looks at whether a lease that is waited for was let go, in nanoseconds: short for a person, and one or two GETs.
pub const LOOK_NS: u64 = 1_000_000_000;
/// Longest wait for an answer before the writer's own deadlines are looked at again, in nanoseconds.
const NAP_NS: u64 = 250_000_000;
/// For a replay whose calls are performed one by one.
const ONE_BY_ONE: ReplayOptions = ReplayOptions { gets_max: 1, second_list: true, look_beyond: true };
/// Attempts at each of the calls that let a log begin anew, while beats go through: half a minute of pauses.
const ANEW_ATTEMPTS_MAX: u32 = 16;

/// Reads the log, without a lease: the state as of a moment ago. `warn` hears what was lost and found elsewhere. Blocks; one call at a time.
pub fn open_read<S: Sealer>(
    around: Surroundings<'_>,
    cluster: ClusterId,
    sealer: S,
    mut warn: impl FnMut(LogFault),
) -> Result<View, LogFault> {
    read(around, None, Replay::from_start(cluster, sealer, ONE_BY_ONE, 1), &mut warn)
}

/// The same with `hands`, several calls at once, and behind `view`, when the log was read that far before.
pub fn open_read_with<S: Sealer>(
    around: Surroundings<'_>,
    hands: &mut dyn Hands,
    cluster: ClusterId,
    sealer: S,
    view: Option<View>,
    mut warn: impl FnMut(LogFault),
) -> Result<View, LogFault> {
    let options = ReplayOptions::default();
    let replay = match view {
        Some(view) => Replay::from_view(cluster, sealer, options, 1, view),
        None => Replay::from_start(cluster, sealer, options, 1),
    };
    read(around, Some(hands), replay, &mut warn)
}

fn read<S: Sealer>(
    around: Surroundings<'_>,
    mut hands: Option<&mut dyn Hands>,
    mut replay: Replay<S>,
    warn: &mut dyn FnMut(LogFault),
) -> Result<View, LogFault> {
    let mut open = 0usize;
    loop {
        while let Some((id, call)) = replay.next_call() {
            if let Some(hands) = &mut hands {
                hands.submit(0, id, call);
                open += 1;
            } else {
                let (answer, _) = perform(around.store, &call);
                replay.handle(around.clock.now().as_ns(), id, answer);
            }
        }
        match replay.result() {
            Some(Ok(_)) => {
                replay.warnings().for_each(&mut *warn);
                return Ok(replay.into_view());
            }
            Some(Err(fault)) => return Err(fault),
            None => {}
        }
        match (replay.deadline(), &mut hands) {
            (_, Some(hands)) if open > 0 => {
                if let Some(done) = hands.take(Duration::from_nanos(NAP_NS)) {
                    open -= 1;
                    replay.handle(around.clock.now().as_ns(), done.id, done.answer);
                }
            }
            (Some(due), _) => sleep_until(around.clock, due),
            (None, _) => return Err(LogFault::Moving),
        }
        replay.wake(around.clock.now().as_ns());
    }
}

/// How a session begins.
#[derive(Clone, Debug)]
pub struct Start {
    /// Random, and used for nothing else.
    pub seed: [u8; 32],
    /// The log as it was read before, which saves reading it again.
    pub view: Option<View>,
}

impl From<[u8; 32]> for Start {
    fn from(seed: [u8; 32]) -> Start {
        Start { seed, view: None }
    }
}

impl<'a, S: Sealer + Clone> Session<'a, S> {
    /// Claims the lease and begins an epoch. While another holder may be alive, `on_wait` is called at least every [`LOOK_NS`] with what
    /// to show and for how many more nanoseconds the holder's beat is watched at least; it returns whether to go on waiting. When the log
    /// says that the holder let the lease go, it is claimed at once. Without `hands` all calls are performed on this thread.
    ///
    /// Errors: [`LogFault::Held`] when `on_wait` gave up; whatever else the writer reports.
    pub fn claim(
        around: Surroundings<'a>,
        hands: Option<Box<dyn Hands>>,
        identity: Identity,
        sealer: S,
        options: WriterOptions,
        start: impl Into<Start>,
        mut on_wait: impl FnMut(&LogFault, u64) -> bool,
    ) -> Result<Session<'a, S>, LogFault> {
        let mut options = options;
        if hands.is_none() {
            options.replay.gets_max = ONE_BY_ONE.gets_max;
        }
        let Start { seed, view } = start.into();
        let mut nonces = Nonces::new(seed);
        let mut begin = |hands, round, view| {
            let (seed, sealer) = (nonces.seed(), sealer.clone());
            let writer = match view {
                Some(view) => Writer::with_view(identity, sealer, options, seed, view),
                None => Writer::new(identity, sealer, options, seed),
            };
            Session { around, hands, round, open: 0, writer, last_store_fault: None }
        };
        let mut session = begin(hands, 0, view);
        let mut waiting = None;
        loop {
            while let Some(action) = session.writer.next_action() {
                match action {
                    Action::Wait { held, until_ns } => waiting = Some((held, until_ns)),
                    Action::Ready { .. } => return Ok(session),
                    Action::Lost(fault) => return Err(fault),
                    other => session.perform(other),
                }
            }
            let now_ns = around.clock.now().as_ns();
            let Some((held, until_ns)) = waiting.filter(|&(_, until_ns)| now_ns < until_ns) else {
                waiting = None;
                session.sleep()?;
                continue;
            };
            if !on_wait(&held, until_ns - now_ns) {
                return Err(held);
            }
            sleep_until(around.clock, until_ns.min(now_ns.saturating_add(LOOK_NS)));
            session.writer.wake(around.clock.now().as_ns());
            if let Some(view) = session.view_let_go(&held, identity, &sealer) {
                let (hands, round) = (session.hands.take(), session.round + 1);
                (session, waiting) = (begin(hands, round, Some(view)), None);
            }
        }
    }

    /// The log, when it has gone on to where the holder that is waited for, or a later one, let the lease go to `identity` or to anyone. What
    /// cannot be read now is looked at again later.
    fn view_let_go(&self, held: &LogFault, identity: Identity, sealer: &S) -> Option<View> {
        let LogFault::Held { epoch, .. } = held else { return None };
        let view = self.view().clone();
        let replay = Replay::from_view(identity.cluster, sealer.clone(), ONE_BY_ONE, 1, view);
        let view = read(self.around, None, replay, &mut |_| {}).ok()?;
        let successor = view.state.yielded.filter(|_| view.state.epoch >= *epoch)?;
        successor.is_none_or(|node| node == identity.me.node).then_some(view)
    }

    /// The state as of the last slot that counts.
    pub fn view(&self) -> &View {
        self.writer.view()
    }

    /// The epoch that is held.
    pub fn epoch(&self) -> Epoch {
        self.writer.epoch()
    }

    /// What the store said when it last failed, in its own words.
    pub fn last_store_fault(&self) -> Option<&StoreFault> {
        self.last_store_fault.as_ref()
    }

    /// Commits a batch; returns when it counts.
    ///
    /// Errors: `Refused` and `TooLarge` leave the session as it was; anything else ends it, and `Fenced` and `Expired` say whether
    /// the batch's fate is open.
    pub fn commit(&mut self, batch: Vec<Record>) -> Result<Slot, LogFault> {
        self.poll()?;
        let now_ns = self.around.clock.now().as_ns();
        self.writer.commit(now_ns, batch).map_err(|(fault, _)| fault)?;
        self.run_until(|action| match action {
            Action::Committed { slot } => Some(*slot),
            _ => None,
        })
    }

    /// Sends what is due: beats, checkpoints, deletes. Returns when to call again at the latest, on the session's clock. Errors: the
    /// lease is lost.
    pub fn poll(&mut self) -> Result<Option<u64>, LogFault> {
        self.take_answers(Duration::ZERO);
        self.writer.wake(self.around.clock.now().as_ns());
        while let Some(action) = self.writer.next_action() {
            match action {
                Action::Lost(fault) => return Err(fault),
                other => self.perform(other),
            }
        }
        Ok(self.writer.deadline())
    }

    /// Whether an assignment may be made now.
    pub fn may_assign(&self) -> bool {
        self.writer.may_assign(self.around.clock.now().as_ns())
    }

    /// Yields, so that the next claim need not wait. What housekeeping is at has a lease time to end: the rest is the next boundary's.
    pub fn release(mut self, successor: Option<NodeId>) -> Result<Slot, LogFault> {
        self.poll()?;
        let until_ns = self.around.clock.now().as_ns().saturating_add(self.writer.lease_ns());
        while self.open > 0 && self.around.clock.now().as_ns() < until_ns {
            self.take_answers(Duration::from_nanos(NAP_NS));
            self.poll()?;
        }
        if !self.writer.release(self.around.clock.now().as_ns(), successor) {
            return Err(LogFault::NotReady);
        }
        let released = self.run_until(|action| match action {
            Action::Released { slot } => Some(*slot),
            _ => None,
        });
        // The beat that went out with it, before the process ends.
        let until_ns = self.around.clock.now().as_ns().saturating_add(self.writer.lease_ns() / LEASE_CALLS);
        while self.open > 0 && self.around.clock.now().as_ns() < until_ns {
            self.take_answers(Duration::from_nanos(NAP_NS));
        }
        released
    }

    fn run_until(&mut self, done: impl Fn(&Action) -> Option<Slot>) -> Result<Slot, LogFault> {
        loop {
            while let Some(action) = self.writer.next_action() {
                if let Some(slot) = done(&action) {
                    return Ok(slot);
                }
                match action {
                    Action::Lost(fault) => return Err(fault),
                    other => self.perform(other),
                }
            }
            self.sleep()?;
        }
    }

    /// Until an answer comes, or the writer's next deadline.
    fn sleep(&mut self) -> Result<(), LogFault> {
        let (due, now_ns) = (self.writer.deadline(), self.around.clock.now().as_ns());
        match due {
            _ if self.open > 0 => {
                let left_ns = due.map_or(NAP_NS, |due| due.saturating_sub(now_ns).min(NAP_NS));
                self.take_answers(Duration::from_nanos(left_ns));
            }
            Some(due) => sleep_until(self.around.clock, due),
            None => return Err(LogFault::NotReady),
        }
        self.writer.wake(self.around.clock.now().as_ns());
        Ok(())
    }

    /// Takes the answers that are there; the first one is waited for.
    fn take_answers(&mut self, mut patience: Duration) {
        while self.open > 0
            && let Some(done) = self.hands.as_mut().and_then(|hands| hands.take(patience))
        {
            if done.round == self.round {
                self.open -= 1;
                self.answered(done.id, done.answer, done.fault);
            }
            patience = Duration::ZERO;
        }
    }

    /// Hands an answer on. A beat that has become due goes out before whatever follows from it.
    fn answered(&mut self, id: CallId, answer: Answer, fault: Option<StoreFault>) {
        self.last_store_fault = fault.or(self.last_store_fault.take());
        let now_ns = self.around.clock.now().as_ns();
        self.writer.handle(now_ns, id, answer);
        self.writer.wake(now_ns);
    }

    fn perform(&mut self, action: Action) {
        match action {
            Action::Call { id, call } => match &mut self.hands {
                Some(hands) => {
                    hands.submit(self.round, id, call);
                    self.open += 1;
                }
                None => {
                    let (answer, fault) = perform(self.around.store, &call);
                    self.answered(id, answer, fault);
                }
            },
            // Work goes on; the operator should know.
            Action::Warning(fault) => log::warn!("log: {fault}"),
            Action::Wait { .. }
            | Action::Ready { .. }
            | Action::Committed { .. }
            | Action::Released { .. }
            | Action::Lost(_) => {}
        }
    }
}

/// A lease without a log, to mend one. Let go by being dropped: no beat follows.
pub struct Hold<'a> {
    around: Surroundings<'a>,
    lease: Lease,
    epoch: Epoch,
}

impl<'a> Hold<'a> {
    /// Claims the epoch after the highest one. The rest is as in [`Session::claim`].
    pub fn claim(
        around: Surroundings<'a>,
        identity: Identity,
        timing: Timing,
        from: Seek,
        seed: [u8; 32],
        mut on_wait: impl FnMut(&LogFault, u64) -> bool,
    ) -> Result<Hold<'a>, LogFault> {
        let lease = Lease::seek(identity, timing, Nonces::new(seed), 1, from);
        let mut hold = Hold { around, lease, epoch: Epoch(0) };
        loop {
            hold.perform();
            while let Some(news) = hold.lease.next_news() {
                match news {
                    LeaseNews::Waiting { held, until_ns } => {
                        let left = until_ns.saturating_sub(around.clock.now().as_ns());
                        if !on_wait(&held, left) {
                            return Err(held);
                        }
                    }
                    LeaseNews::Granted(epoch) => {
                        hold.epoch = epoch;
                        return Ok(hold);
                    }
                    LeaseNews::Lost(fault) => return Err(fault),
                }
            }
            let Some(due) = hold.lease.deadline() else { return Err(LogFault::NotReady) };
            sleep_until(around.clock, due);
            hold.lease.wake(around.clock.now().as_ns());
        }
    }

    /// The epoch that is held.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Sends a beat that is due. Errors: the lease is lost.
    pub fn poll(&mut self) -> Result<(), LogFault> {
        self.lease.wake(self.around.clock.now().as_ns());
        self.perform();
        match self.lease.next_news() {
            Some(LeaseNews::Lost(fault)) => Err(fault),
            Some(LeaseNews::Waiting { .. } | LeaseNews::Granted(_)) | None => Ok(()),
        }
    }

    /// Whether enough of the lease is left to write something that decides (L1).
    pub fn may_send(&self) -> bool {
        self.lease.may_send(self.around.clock.now().as_ns())
    }

    /// Lets a log begin anew: stores its checkpoint and its boundary. Each attempt goes out with enough of the lease left (L1), and none is
    /// repeated behind it: it would roll back what a later holder committed. When it returns, no node had taken over before the boundary counted.
    ///
    /// Errors: the lease is lost, another node took over, or the store does not answer. The log may begin anew even so; it is read again then.
    pub fn begin_anew(&mut self, beginning: [(String, Vec<u8>); 2]) -> Result<(), LogFault> {
        for (key, body) in beginning {
            let place = match keys::number(&key, keys::BOUNDARIES) {
                Some(slot) => Place::Boundary(slot),
                None => Place::Checkpoint(keys::number(&key, keys::CHECKPOINTS).unwrap_or_default()),
            };
            self.repeat(place, &Call::Put { key, body: body.into() })?;
        }
        let next = Epoch(self.epoch.0.saturating_add(1));
        match self.repeat(Place::Grant(next), &Call::Get { key: keys::epoch(next) })? {
            Answer::Absent => Ok(()),
            _ => Err(LogFault::Fenced { epoch: self.epoch, unresolved: None }),
        }
    }

    /// Performs a call until it has a clear answer, while enough of the lease is left.
    fn repeat(&mut self, place: Place, call: &Call) -> Result<Answer, LogFault> {
        let mut attempt = 0;
        loop {
            self.poll()?;
            if !self.may_send() {
                return Err(LogFault::Expired { epoch: self.epoch, unresolved: None });
            }
            let (answer, fault) = perform(self.around.store, call);
            attempt += 1;
            match (&answer, fault) {
                (Answer::Fault(_), Some(fault)) if fault.is_transient() && attempt < ANEW_ATTEMPTS_MAX => {}
                (Answer::Fault(kind), _) => return Err(LogFault::Store { place, kind: *kind }),
                _ => return Ok(answer),
            }
            let pause = Duration::from_nanos(backoff_ns(attempt));
            self.around.clock.sleep(pause);
        }
    }

    fn perform(&mut self) {
        while let Some((id, call)) = self.lease.next_call() {
            let (answer, _) = perform(self.around.store, &call);
            self.lease.handle(self.around.clock.now().as_ns(), id, answer);
        }
    }
}

/// Blocks until `until_ns` by the clock's time since boot.
fn sleep_until(clock: &dyn Clock, until_ns: u64) {
    clock.sleep(Instant::from_ns(until_ns).saturating_since(clock.now()));
}

#[cfg(test)]
#[path = "session_test.rs"]
mod tests;

#[cfg(test)]
#[path = "opening_test.rs"]
mod opening_tests;

#[cfg(test)]
#[path = "feature_test.rs"]
mod feature_tests;
