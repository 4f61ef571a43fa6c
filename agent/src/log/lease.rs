//! The lease: claim an epoch, keep it with beats, know when it is lost.
//!
//! | phase | waits for | next |
//! |---|---|---|
//! | `Probing` | GET epoch/e+1 ... until 404 | `Watching`, or `Claiming` when no other process can hold a lease |
//! | `Watching` | GET epoch/e, when it was not read; GET beat/e (first look) | `Waiting` |
//! | `Waiting` | own timer, started when the answer came | `Confirming` |
//! | `Confirming` | GET beat/e, sent after the timer | `Claiming` when unchanged, `Waiting` when changed |
//! | `Claiming` | create epoch/e+1 | `Reading` back, or `Probing` when another was first |
//! | `Reading` | GET epoch/e+1 | `Proving` when the nonce is ours, `Probing` when not |
//! | `Proving` | create epoch/e+1 again, the same bytes | `Holding` when it exists; `Lost` when it was created: the store ignores conditions |
//! | `Holding` | beats every 4 s | `Lost` at the end of the lease |
//!
//! No other process can hold one when there was no epoch, when the highest one's holder has let it go, or when that holder is this process itself: one
//! of its leases is over when it seeks the next, and what it sent under that one is fenced by the new epoch like anyone's.
//!
//! Rules: L1 the lease runs from before the grant or beat was sent; a late answer does not renew. L2 a candidate waits a full
//! interval between two good reads of the same beat: by its own length of the lease or by the grant's, whichever is longer. L3 no
//! machine compares another's clock with its own. A create without an answer is read and sent again with the same bytes (C2). C6: each
//! grant proves that the store still honours conditions.
//! Invariant: I9. Does not: know slots. Source: `agent/doc/commit-log.md`, Lease.

use std::collections::VecDeque;

use super::call::{Answer, Body, Call, CallId, Calls, backoff_ns};
use super::fault::{LogFault, Place};
use super::keys;
use super::limits::LEASE_NS_MAX;
use crate::format::slot::{Author, Claim, ClusterId, Who};
use crate::id::{Epoch, Slot};
use crate::store::StoreFaultKind;

/// Times of the lease. Holders with different ones get along: a grant says how long its holder's beats hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Timing {
    /// T, in nanoseconds: for how long a beat holds.
    pub lease_ns: u64,
    /// Between beats, in nanoseconds.
    pub beat_ns: u64,
    /// r, in parts per thousand: how wrong the rate of a clock may be.
    pub drift_permille: u64,
    /// What a candidate waits on top, in nanoseconds.
    pub margin_ns: u64,
    /// What must be left of the lease when a commit is sent, in nanoseconds.
    pub send_budget_ns: u64,
}

impl Default for Timing {
    fn default() -> Timing {
        let second = 1_000_000_000;
        Timing {
            lease_ns: 15 * second,
            beat_ns: 4 * second,
            drift_permille: 10,
            margin_ns: second,
            send_budget_ns: 3 * second,
        }
    }
}

impl Timing {
    /// For a lease of this length: the other times keep their proportion to it. What is left for a commit is no longer than usual.
    pub fn of(lease_ns: u64) -> Timing {
        let usual = Timing::default();
        let scaled =
            |part: u64| (u128::from(part) * u128::from(lease_ns) / u128::from(usual.lease_ns)) as u64;
        Timing {
            lease_ns,
            beat_ns: scaled(usual.beat_ns),
            drift_permille: usual.drift_permille,
            margin_ns: scaled(usual.margin_ns),
            send_budget_ns: scaled(usual.send_budget_ns).min(usual.send_budget_ns),
        }
    }

    /// What a candidate waits between two reads for a holder with the same times: T (1 + r) / (1 - r) + margin, rounded up.
    pub fn wait_ns(&self) -> u64 {
        self.wait_for_ns(0)
    }

    /// What a candidate waits for a holder whose beats hold for `granted_ns`.
    pub fn wait_for_ns(&self, granted_ns: u64) -> u64 {
        let drift = self.drift_permille.min(900);
        // What no holder can have asked for is none of ours.
        let lease_ns = self.lease_ns.max(granted_ns.min(LEASE_NS_MAX));
        let scaled = lease_ns.saturating_mul(1000 + drift).div_ceil(1000 - drift);
        scaled.saturating_add(self.margin_ns)
    }
}

/// Which repository, and which process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Identity {
    /// The repository.
    pub cluster: ClusterId,
    /// This start of this node.
    pub me: Author,
    /// What it is, for people.
    pub who: Who,
}

/// What the log says of the lease before a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Seek {
    /// Highest epoch in the log.
    pub epoch: Epoch,
    /// Its holder.
    pub holder: Option<Author>,
    /// Whether it made way for this process: then there is nothing to wait for (L4).
    pub yielded: bool,
}

/// What the lease tells its owner.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum LeaseNews {
    /// Another node may hold the lease; this process watches.
    Waiting {
        /// Whose.
        held: LogFault,
        /// Until when, at least, on this process's clock.
        until_ns: u64,
    },
    /// The epoch is ours.
    Granted(Epoch),
    /// It is not, or no longer.
    Lost(LogFault),
}

/// What a call is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum For {
    Probe(Epoch),
    Grant,
    Look,
    Claim,
    ReadBack,
    Prove,
    Beat { sent_ns: u64 },
}

/// A beat as an observer sees it: absent counts as a value.
type Seen = Option<Vec<u8>>;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Phase {
    Probing,
    Watching,
    Waiting { seen: Seen, until_ns: u64 },
    Confirming { seen: Seen },
    Claiming(Grant),
    Reading(Grant),
    Proving(Grant),
    Holding { epoch: Epoch, end_ns: u64, next_beat_ns: u64 },
    Lost,
}

/// A grant being created.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Grant {
    epoch: Epoch,
    nonce: [u8; 16],
    body: Body,
    /// Before the first attempt was sent.
    sent_ns: u64,
    attempts: u32,
}

/// Random numbers of a process: BLAKE3 of a random seed and a counter.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Nonces {
    seed: [u8; 32],
    count: u64,
}

impl Nonces {
    /// From a seed that is random and used once.
    pub fn new(seed: [u8; 32]) -> Nonces {
        Nonces { seed, count: 0 }
    }

    /// The next one.
    pub fn draw(&mut self) -> [u8; 16] {
        let mut nonce = [0; 16];
        nonce.copy_from_slice(&blake3::keyed_hash(&self.seed, &self.count.to_le_bytes()).as_bytes()[..16]);
        self.count += 1;
        nonce
    }

    /// A seed for a stream of its own.
    pub fn seed(&mut self) -> [u8; 32] {
        let mut seed = [0; 32];
        seed[..16].copy_from_slice(&self.draw());
        seed[16..].copy_from_slice(&self.draw());
        seed
    }
}

/// The machine.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Lease {
    identity: Identity,
    timing: Timing,
    calls: Calls<For>,
    nonces: Nonces,
    phase: Phase,
    news: VecDeque<LeaseNews>,
    /// Highest epoch known to exist.
    highest: Epoch,
    /// Its holder, when its grant was read or the log says who.
    holder: Option<Author>,
    /// What it says that it is, when its grant was read.
    who: Who,
    /// For how long its holder's beats hold, in nanoseconds, when its grant was read.
    granted_ns: Option<u64>,
    /// This epoch's holder has said that it is done, and that we may follow.
    free: Epoch,
    watching_since_ns: Option<u64>,
    faults: u32,
    beats: u64,
    /// The last slot that its owner knows to count, for beats to name.
    committed: Slot,
    named: Option<(Epoch, Slot)>,
    /// L1's second sentence is off: see `let_late_answers_renew`.
    late_renews: bool,
}

impl Lease {
    /// Starts to claim the epoch after the highest that `from` or the store knows. `generation` makes its call ids its own.
    pub fn seek(identity: Identity, timing: Timing, nonces: Nonces, generation: u32, from: Seek) -> Lease {
        let Seek { epoch, holder, yielded } = from;
        let mut lease = Lease {
            identity,
            timing,
            calls: Calls::new(generation),
            nonces,
            phase: Phase::Probing,
            news: VecDeque::new(),
            highest: epoch,
            holder,
            who: Who::default(),
            granted_ns: None,
            free: if yielded { epoch } else { Epoch(0) },
            watching_since_ns: None,
            faults: 0,
            beats: 0,
            committed: Slot(0),
            named: None,
            late_renews: false,
        };
        lease.probe();
        lease
    }

    /// Breaks L1: the end of the lease waits for a beat that is under way, and its answer renews whenever it comes. For tests that
    /// must then find two holders.
    pub fn let_late_answers_renew(&mut self) {
        self.late_renews = true;
    }

    /// Whether a commit or an assignment may be sent now: L1.
    pub fn may_send(&self, now_ns: u64) -> bool {
        match &self.phase {
            Phase::Holding { end_ns, .. } => now_ns.saturating_add(self.timing.send_budget_ns) < *end_ns,
            Phase::Probing
            | Phase::Watching
            | Phase::Waiting { .. }
            | Phase::Confirming { .. }
            | Phase::Claiming(_)
            | Phase::Reading(_)
            | Phase::Proving(_)
            | Phase::Lost => false,
        }
    }

    /// Its length, in nanoseconds, as the grant says it.
    pub fn lease_ns(&self) -> u64 {
        self.timing.lease_ns
    }

    /// End of the lease on this process's clock, while it holds one.
    pub fn end_ns(&self) -> Option<u64> {
        match &self.phase {
            Phase::Holding { end_ns, .. } => Some(*end_ns),
            Phase::Probing
            | Phase::Watching
            | Phase::Waiting { .. }
            | Phase::Confirming { .. }
            | Phase::Claiming(_)
            | Phase::Reading(_)
            | Phase::Proving(_)
            | Phase::Lost => None,
        }
    }

    /// The next call for the driver.
    pub fn next_call(&mut self) -> Option<(CallId, Call)> {
        self.calls.next_call()
    }

    /// What happened since.
    pub fn next_news(&mut self) -> Option<LeaseNews> {
        self.news.pop_front()
    }

    /// When `wake` is due.
    pub fn deadline(&self) -> Option<u64> {
        let own = match &self.phase {
            Phase::Waiting { until_ns, .. } => Some(*until_ns),
            Phase::Holding { .. } if self.beat_open() && self.late_renews => None,
            Phase::Holding { end_ns, .. } if self.beat_open() => Some(*end_ns),
            Phase::Holding { end_ns, next_beat_ns, .. } => Some(*end_ns.min(next_beat_ns)),
            Phase::Probing
            | Phase::Watching
            | Phase::Confirming { .. }
            | Phase::Claiming(_)
            | Phase::Reading(_)
            | Phase::Proving(_)
            | Phase::Lost => None,
        };
        own.into_iter().chain(self.calls.deadline()).min()
    }

    /// Stops for good: no more beats, and nothing that is under way counts.
    pub fn stop(&mut self) {
        self.calls.clear();
        self.phase = Phase::Lost;
    }

    /// Time passed.
    pub fn wake(&mut self, now_ns: u64) {
        self.calls.wake(now_ns);
        let waits_for_answer = self.late_renews && self.beat_open();
        match &mut self.phase {
            Phase::Waiting { seen, until_ns } if now_ns >= *until_ns => {
                self.phase = Phase::Confirming { seen: seen.take() };
                self.look();
            }
            Phase::Holding { epoch, end_ns, .. } if now_ns >= *end_ns && !waits_for_answer => {
                let epoch = *epoch;
                self.lose(LogFault::Expired { epoch, unresolved: None });
            }
            Phase::Holding { next_beat_ns, .. } if now_ns >= *next_beat_ns => self.beat(now_ns),
            Phase::Probing
            | Phase::Watching
            | Phase::Waiting { .. }
            | Phase::Confirming { .. }
            | Phase::Claiming(_)
            | Phase::Reading(_)
            | Phase::Proving(_)
            | Phase::Holding { .. }
            | Phase::Lost => {}
        }
    }

    /// Takes an answer.
    pub fn handle(&mut self, now_ns: u64, id: CallId, answer: Answer) {
        let Some((tag, call)) = self.calls.complete(id) else { return };
        match tag {
            For::Beat { sent_ns } => return self.beat_answered(now_ns, sent_ns, answer),
            For::Claim => return self.claim_answered(now_ns, answer),
            For::Prove => return self.proved(now_ns, call, answer),
            For::Probe(_) | For::Grant | For::Look | For::ReadBack => {}
        }
        if let Answer::Fault(kind) = answer {
            self.faults = self.faults.saturating_add(1);
            let transient =
                matches!(kind, StoreFaultKind::Unknown | StoreFaultKind::Conflict | StoreFaultKind::Corrupt);
            if transient {
                self.calls.park(now_ns.saturating_add(backoff_ns(self.faults - 1)), tag, call);
            } else {
                self.lose(LogFault::Store { place: self.place(tag), kind });
            }
            return;
        }
        self.faults = 0;
        let body = match answer {
            Answer::Body(bytes) => Some(bytes),
            Answer::Absent | Answer::Done | Answer::Keys(_) | Answer::Fault(_) => None,
        };
        match tag {
            For::Probe(epoch) => self.probed(now_ns, epoch, body),
            For::Grant => {
                // The log says who as well.
                let known = self.holder;
                self.read_grant(body.as_deref());
                self.holder = self.holder.or(known);
                self.look();
            }
            For::Look => self.looked(now_ns, body),
            For::ReadBack => self.read_back(now_ns, body),
            For::Beat { .. } | For::Claim | For::Prove => {}
        }
    }

    fn place(&self, tag: For) -> Place {
        match tag {
            For::Probe(epoch) => Place::Grant(epoch),
            For::Claim | For::ReadBack => Place::Grant(Epoch(self.highest.0.saturating_add(1))),
            For::Grant | For::Prove => Place::Grant(self.highest),
            For::Look | For::Beat { .. } => Place::Beat(self.highest),
        }
    }

    fn lose(&mut self, fault: LogFault) {
        self.stop();
        self.news.push_back(LeaseNews::Lost(fault));
    }

    fn probe(&mut self) {
        self.phase = Phase::Probing;
        let next = Epoch(self.highest.0.saturating_add(1));
        self.calls.submit(For::Probe(next), Call::Get { key: keys::epoch(next) });
    }

    fn probed(&mut self, now_ns: u64, epoch: Epoch, body: Option<Vec<u8>>) {
        match body {
            Some(bytes) => {
                self.highest = epoch;
                self.read_grant(Some(&bytes));
                self.probe();
            }
            None if self.highest.0 == 0
                || self.free == self.highest
                || self.holder == Some(self.identity.me) =>
            {
                self.claim(now_ns);
            }
            None => {
                self.phase = Phase::Watching;
                match self.granted_ns {
                    Some(_) => self.look(),
                    None => self.calls.submit(For::Grant, Call::Get { key: keys::epoch(self.highest) }),
                }
            }
        }
    }

    /// Takes in the highest epoch's grant. One that cannot be read is as long as ours.
    fn read_grant(&mut self, body: Option<&[u8]>) {
        let grant = body.and_then(|bytes| Claim::parse_grant(bytes).ok());
        self.holder = grant.map(|grant| grant.holder);
        self.who = grant.map(|grant| grant.who).unwrap_or_default();
        self.granted_ns = Some(grant.map_or(0, |grant| grant.counter));
    }

    fn look(&mut self) {
        self.calls.submit(For::Look, Call::Get { key: keys::beat(self.highest) });
    }

    fn looked(&mut self, now_ns: u64, body: Seen) {
        match &self.phase {
            Phase::Confirming { seen } if *seen == body => self.claim(now_ns),
            Phase::Watching | Phase::Confirming { .. } => self.wait(now_ns, body),
            Phase::Probing
            | Phase::Waiting { .. }
            | Phase::Claiming(_)
            | Phase::Reading(_)
            | Phase::Proving(_)
            | Phase::Holding { .. }
            | Phase::Lost => {}
        }
    }

    /// L2: the timer starts when the answer arrives.
    fn wait(&mut self, now_ns: u64, seen: Seen) {
        let until_ns = now_ns.saturating_add(self.timing.wait_for_ns(self.granted_ns.unwrap_or(0)));
        let since = *self.watching_since_ns.get_or_insert(now_ns);
        let beat = seen.as_deref().and_then(|bytes| Claim::parse_beat(bytes).ok());
        // What it says counts until a holder knows more: also for who reads the first beats of this one.
        self.named =
            beat.filter(|beat| beat.slot > Slot(0)).map(|beat| (self.highest, beat.slot)).or(self.named);
        self.committed = self.committed.max(self.named.map_or(Slot(0), |(_, slot)| slot));
        let held = LogFault::Held {
            epoch: self.highest,
            holder: beat.map(|beat| beat.holder).or(self.holder),
            who: self.who,
            beat: beat.map_or(0, |beat| beat.counter),
            watched_ns: now_ns.saturating_sub(since),
        };
        self.news.push_back(LeaseNews::Waiting { held, until_ns });
        self.phase = Phase::Waiting { seen, until_ns };
    }

    fn claim(&mut self, now_ns: u64) {
        let epoch = Epoch(self.highest.0.saturating_add(1));
        let nonce = self.nonces.draw();
        let claim = Claim {
            cluster: self.identity.cluster,
            epoch,
            holder: self.identity.me,
            counter: self.timing.lease_ns,
            nonce,
            slot: Slot(0),
            who: self.identity.who,
        };
        let body: Body = claim.emit_grant().into();
        let grant = Grant { epoch, nonce, body: body.clone(), sent_ns: now_ns, attempts: 0 };
        self.phase = Phase::Claiming(grant);
        self.calls.submit(For::Claim, Call::Create { key: keys::epoch(epoch), body });
    }

    fn claim_answered(&mut self, now_ns: u64, answer: Answer) {
        let Phase::Claiming(grant) = &mut self.phase else { return };
        grant.attempts = grant.attempts.saturating_add(1);
        let grant = grant.clone();
        let key = keys::epoch(grant.epoch);
        match answer {
            // Decided, or undecided: either way the object itself says whose it is (C2, C3).
            Answer::Done | Answer::Fault(StoreFaultKind::Exists) => {
                self.calls.submit(For::ReadBack, Call::Get { key });
                self.phase = Phase::Reading(grant);
            }
            Answer::Fault(StoreFaultKind::Unknown | StoreFaultKind::Corrupt) => {
                let due = now_ns.saturating_add(backoff_ns(grant.attempts - 1));
                self.calls.park(due, For::ReadBack, Call::Get { key });
                self.phase = Phase::Reading(grant);
            }
            Answer::Fault(StoreFaultKind::Conflict) => {
                let due = now_ns.saturating_add(backoff_ns(grant.attempts - 1));
                self.calls.park(due, For::Claim, Call::Create { key, body: grant.body });
            }
            Answer::Fault(kind) => {
                let kind = if kind == StoreFaultKind::NotFound { StoreFaultKind::StoreGone } else { kind };
                self.lose(LogFault::Store { place: Place::Grant(grant.epoch), kind });
            }
            Answer::Body(_) | Answer::Absent | Answer::Keys(_) => {}
        }
    }

    fn read_back(&mut self, now_ns: u64, body: Option<Vec<u8>>) {
        let Phase::Reading(grant) = &self.phase else { return };
        let grant = grant.clone();
        let Some(bytes) = body else {
            // Not there: the same bytes again, to the same key.
            let body = grant.body.clone();
            let key = keys::epoch(grant.epoch);
            self.phase = Phase::Claiming(grant);
            return self.calls.submit(For::Claim, Call::Create { key, body });
        };
        if Claim::parse_grant(&bytes).is_ok_and(|claim| claim.nonce == grant.nonce) {
            self.highest = grant.epoch;
            if now_ns >= self.end_of(&grant) {
                return self.lose(LogFault::Expired { epoch: grant.epoch, unresolved: None });
            }
            // It is there, so it cannot be created.
            let call = Call::Create { key: keys::epoch(grant.epoch), body: grant.body.clone() };
            self.phase = Phase::Proving(Grant { attempts: 0, ..grant });
            self.calls.submit(For::Prove, call);
        } else {
            self.highest = grant.epoch;
            self.read_grant(Some(&bytes));
            self.probe();
        }
    }

    fn end_of(&self, grant: &Grant) -> u64 {
        grant.sent_ns.saturating_add(self.timing.lease_ns)
    }

    /// C6: the grant, which is there, was to be created once more.
    fn proved(&mut self, now_ns: u64, call: Call, answer: Answer) {
        let Phase::Proving(grant) = &mut self.phase else { return };
        grant.attempts = grant.attempts.saturating_add(1);
        let grant = grant.clone();
        let end_ns = self.end_of(&grant);
        if now_ns >= end_ns {
            return self.lose(LogFault::Expired { epoch: grant.epoch, unresolved: None });
        }
        match answer {
            Answer::Fault(StoreFaultKind::Exists) => {
                // Until then the grant holds.
                let next_beat_ns = grant.sent_ns.saturating_add(self.timing.beat_ns).max(now_ns);
                self.phase = Phase::Holding { epoch: grant.epoch, end_ns, next_beat_ns };
                self.news.push_back(LeaseNews::Granted(grant.epoch));
            }
            Answer::Done => self.lose(LogFault::Unconditional { epoch: grant.epoch }),
            Answer::Fault(StoreFaultKind::Unknown | StoreFaultKind::Conflict | StoreFaultKind::Corrupt) => {
                let due = now_ns.saturating_add(backoff_ns(grant.attempts - 1)).min(end_ns);
                self.calls.park(due, For::Prove, call);
            }
            Answer::Fault(kind) => self.lose(LogFault::Store { place: Place::Grant(grant.epoch), kind }),
            Answer::Body(_) | Answer::Absent | Answer::Keys(_) => {}
        }
    }

    /// The log counts up to `slot`: the next beat says so.
    pub fn committed(&mut self, slot: Slot) {
        self.committed = slot;
    }

    /// Sends a beat now, unless one is under way: what follows may be the last of this holder.
    pub fn beat_now(&mut self, now_ns: u64) {
        self.beat(now_ns);
    }

    fn beat_open(&self) -> bool {
        !self.calls.is_empty()
    }

    fn beat(&mut self, now_ns: u64) {
        if self.beat_open() {
            return;
        }
        let Phase::Holding { epoch, next_beat_ns, .. } = &mut self.phase else { return };
        *next_beat_ns = now_ns.saturating_add(self.timing.beat_ns);
        self.beats += 1;
        let beat = Claim {
            cluster: self.identity.cluster,
            epoch: *epoch,
            holder: self.identity.me,
            counter: self.beats,
            nonce: self.nonces.draw(),
            slot: self.committed,
            who: Who::default(),
        };
        let call = Call::Put { key: keys::beat(*epoch), body: beat.emit_beat().into() };
        self.calls.submit(For::Beat { sent_ns: now_ns }, call);
    }

    fn beat_answered(&mut self, now_ns: u64, sent_ns: u64, answer: Answer) {
        let Phase::Holding { epoch, end_ns, next_beat_ns } = &mut self.phase else { return };
        if now_ns >= *end_ns && !self.late_renews {
            let epoch = *epoch;
            return self.lose(LogFault::Expired { epoch, unresolved: None });
        }
        match answer {
            Answer::Done => *end_ns = (*end_ns).max(sent_ns.saturating_add(self.timing.lease_ns)),
            // The next beat replaces this one, so there is nothing to resolve; it goes out sooner.
            Answer::Fault(_) | Answer::Body(_) | Answer::Absent | Answer::Keys(_) => {
                *next_beat_ns = (*next_beat_ns).min(now_ns.saturating_add(backoff_ns(2)));
            }
        }
    }

    /// The high half of its call ids.
    pub fn generation(&self) -> u64 {
        self.calls.generation()
    }

    /// The last slot that the beat of a holder before this one named, and that one's epoch, when one was met on the way to the lease.
    pub fn named(&self) -> Option<(Epoch, Slot)> {
        self.named
    }

    /// Highest epoch known to exist.
    pub fn highest(&self) -> Epoch {
        self.highest
    }
}

#[cfg(test)]
#[path = "lease_test.rs"]
mod tests;
