//! Traces that others paid for: T1 to T4, T8, T9 of `agent/doc/commit-log.md`, Traces, on the real machines.

use windlass_agent::format::record::Record;
use windlass_agent::format::slot::{Claim, PlainForTests, Who};
use windlass_agent::id::{Epoch, NodeId, Slot};
use windlass_agent::log::call::{Answer, Call, CallId};
use windlass_agent::log::fault::LogFault;
use windlass_agent::log::keys;
use windlass_agent::log::replay::{Replay, ReplayOptions};
use windlass_agent::log::writer::{Action, Writer, WriterOptions};
use windlass_agent::store::StoreFaultKind;

use windlass_tests::sim::store::{CLUSTER, Shelf, identity, seed};

const SECOND: u64 = 1_000_000_000;

/// A writer, its open calls, and what it has said.
struct Actor {
    writer: Writer<PlainForTests>,
    open: Vec<(CallId, Call)>,
    said: Vec<Action>,
    now: u64,
    pins: u64,
}

fn small() -> WriterOptions {
    WriterOptions { checkpoint_slots: 2, boundary_lag_slots: 2, ..WriterOptions::default() }
}

impl Actor {
    fn new(node: u32) -> Actor {
        Actor::boot(node, 1)
    }

    fn boot(node: u32, boot: u64) -> Actor {
        let writer = Writer::new(identity(node, boot), PlainForTests, small(), seed(node, boot));
        let pins = u64::from(node) << 32 | boot << 16;
        let mut actor = Actor { writer, open: Vec::new(), said: Vec::new(), now: 0, pins };
        actor.drain();
        actor
    }

    fn drain(&mut self) {
        while let Some(action) = self.writer.next_action() {
            match action {
                Action::Call { id, call } => self.open.push((id, call)),
                other => self.said.push(other),
            }
        }
    }

    fn answer(&mut self, at: usize, answer: Answer) {
        let (id, _) = self.open.remove(at);
        self.writer.handle(self.now, id, answer);
        self.drain();
    }

    /// Performs the open call at an index.
    fn perform(&mut self, shelf: &mut Shelf, at: usize) {
        let answer = shelf.apply(&self.open[at].1).unwrap();
        self.answer(at, answer);
    }

    /// Performs calls, and lets time pass when there are none, until `done` or until the next call is one to stop before.
    fn run(&mut self, shelf: &mut Shelf, stop: impl Fn(&Call) -> bool, done: impl Fn(&Actor) -> bool) {
        for _ in 0..10_000 {
            if done(self) {
                return;
            }
            match self.open.iter().position(|(_, call)| !stop(call)) {
                Some(at) => self.perform(shelf, at),
                None if self.open.is_empty() => {
                    let Some(due) = self.writer.deadline() else { return };
                    self.now = self.now.max(due);
                    self.writer.wake(self.now);
                    self.drain();
                }
                None => return,
            }
        }
        panic!("it does not end: {:?}", self.said.last());
    }

    fn until_ready(&mut self, shelf: &mut Shelf) {
        self.run(shelf, |_| false, |actor| actor.writer.is_ready());
        assert!(self.writer.is_ready(), "{:?}", self.said);
    }

    fn submit(&mut self) {
        self.pins += 1;
        let batch = vec![Record::Pin { pin: self.pins, node: NodeId(1) }];
        self.writer.commit(self.now, batch).unwrap();
        self.drain();
    }

    fn commit(&mut self, shelf: &mut Shelf) -> Slot {
        self.submit();
        self.run(shelf, |_| false, |actor| actor.writer.is_ready() && actor.open.is_empty());
        match self.said.iter().rev().find(|action| matches!(action, Action::Committed { .. })) {
            Some(Action::Committed { slot }) => *slot,
            _ => panic!("{:?}", self.said),
        }
    }

    fn lost(&self) -> Option<LogFault> {
        match self.said.last() {
            Some(Action::Lost(fault)) => Some(*fault),
            _ => None,
        }
    }

    fn at(&self, wanted: impl Fn(&Call) -> bool) -> usize {
        self.open.iter().position(|(_, call)| wanted(call)).unwrap()
    }
}

fn creates_slot(call: &Call) -> bool {
    matches!(call, Call::Create { key, .. } if key.starts_with(keys::SLOTS))
}

fn reads_slot(call: &Call) -> bool {
    matches!(call, Call::Get { key } if key.starts_with(keys::SLOTS))
}

fn reads_beat(call: &Call) -> bool {
    matches!(call, Call::Get { key } if key.starts_with("beat/"))
}

/// A stalls before its create; B takes over, goes on for ten slots, collects the slot that A will create.
fn stalled(shelf: &mut Shelf) -> (Actor, Actor, Slot) {
    let mut a = Actor::new(1);
    a.until_ready(shelf);
    a.commit(shelf);
    a.submit();
    let slot = a.writer.in_flight().unwrap();
    let mut b = Actor::new(2);
    b.until_ready(shelf);
    for _ in 0..10 {
        b.commit(shelf);
    }
    b.run(shelf, |_| false, |actor| actor.open.is_empty());
    assert!(shelf.boundary() > slot && !shelf.objects.contains_key(keys::slot(slot).as_str()));
    (a, b, slot)
}

#[test]
fn t1_a_stalled_create_in_a_collected_slot_is_not_a_commit() {
    let mut shelf = Shelf::default();
    let (mut a, _, slot) = stalled(&mut shelf);
    let create = a.at(creates_slot);
    let before = a.said.len();
    a.perform(&mut shelf, create);
    assert!(shelf.objects.contains_key(keys::slot(slot).as_str()), "the zombie landed");
    a.run(&mut shelf, |_| false, |actor| actor.lost().is_some());
    assert_eq!(a.lost(), Some(LogFault::Fenced { epoch: Epoch(1), unresolved: Some(slot) }));
    assert!(a.said[before..].iter().all(|action| !matches!(action, Action::Committed { .. })));
    assert!(a.open.is_empty() || a.writer.next_action().is_none(), "no call after stepping down");
}

#[test]
fn t1_two_zombies_in_a_row_fool_neither_a_replay_nor_each_other() {
    let mut shelf = Shelf::default();
    let (mut a, mut b, slot) = stalled(&mut shelf);
    // A reader that began before the collection: it has the view up to the slot before the zombie's.
    let early = shelf.fold(Slot(slot.0 - 1)).unwrap();
    let create = a.at(creates_slot);
    a.perform(&mut shelf, create);
    // A second zombie on top of the first, as a writer without the checks would make it.
    let next = shelf.objects.get(keys::slot(slot).as_str()).unwrap().clone();
    shelf.objects.insert(keys::slot(Slot(slot.0 + 1)).as_str().into(), next);
    let mut replay = Replay::from_view(CLUSTER, PlainForTests, ReplayOptions::default(), 9, early);
    while let Some((id, call)) = replay.next_call() {
        let answer = shelf.apply(&call).unwrap();
        replay.handle(0, id, answer);
    }
    let view = replay.into_view();
    assert_eq!(view.head, b.writer.view().head);
    shelf.check_view(&view).unwrap();
    b.now += SECOND;
    b.commit(&mut shelf);
}

#[test]
fn t1_a_crash_in_the_middle_of_deletes_leaves_a_log_that_reads() {
    let mut shelf = Shelf::default();
    let mut a = Actor::new(1);
    a.until_ready(&mut shelf);
    let mut removed = 0;
    for _ in 0..8 {
        a.submit();
        let is_delete = |call: &Call| matches!(call, Call::Delete { .. });
        a.run(&mut shelf, is_delete, |actor| {
            actor.writer.is_ready() && actor.open.iter().all(|(_, call)| is_delete(call))
        });
        // Only the last of the deletes gets through, each time.
        if let Some(at) = a.open.iter().rposition(|(_, call)| is_delete(call)) {
            a.perform(&mut shelf, at);
            removed += 1;
        }
    }
    assert!(removed > 1);
    let mut b = Actor::new(2);
    b.until_ready(&mut shelf);
    assert_eq!(shelf.fold(b.writer.view().head).unwrap(), *b.writer.view());
}

#[test]
fn t2_a_lost_answer_and_then_our_own_412_is_a_commit() {
    let mut shelf = Shelf::default();
    let mut a = Actor::new(1);
    a.until_ready(&mut shelf);
    a.submit();
    let slot = a.writer.in_flight().unwrap();
    let create = a.at(creates_slot);
    let sent = a.open[create].1.clone();
    a.answer(create, Answer::Fault(StoreFaultKind::Unknown));
    let read = a.at(reads_slot);
    a.perform(&mut shelf, read); // absent
    shelf.apply(&sent).unwrap(); // the first attempt lands now
    // After a pause.
    a.run(&mut shelf, creates_slot, |actor| actor.open.iter().any(|(_, call)| creates_slot(call)));
    let again = a.at(creates_slot);
    assert_eq!(a.open[again].1, sent, "the same bytes to the same slot");
    a.perform(&mut shelf, again); // 412
    a.run(&mut shelf, |_| false, |actor| actor.writer.is_ready());
    assert_eq!(a.said.last(), Some(&Action::Committed { slot }));
}

#[test]
fn t3_a_storm_of_409_ends_in_one_commit_or_in_a_lost_lease() {
    let mut shelf = Shelf::default();
    let mut a = Actor::new(1);
    a.until_ready(&mut shelf);
    a.submit();
    let slot = a.writer.in_flight().unwrap();
    for _ in 0..5 {
        a.run(&mut shelf, creates_slot, |actor| actor.open.iter().any(|(_, call)| creates_slot(call)));
        let create = a.at(creates_slot);
        a.answer(create, Answer::Fault(StoreFaultKind::Conflict));
    }
    a.run(&mut shelf, |_| false, |actor| actor.writer.is_ready());
    assert_eq!(a.said.last(), Some(&Action::Committed { slot }));
    a.submit();
    for _ in 0..1000 {
        a.run(&mut shelf, |call| creates_slot(call) || matches!(call, Call::Put { .. }), |_| false);
        if a.lost().is_some() {
            break;
        }
        match a.open.iter().position(|(_, call)| creates_slot(call)) {
            Some(create) => a.answer(create, Answer::Fault(StoreFaultKind::Conflict)),
            None => {
                a.now = a.writer.deadline().unwrap();
                a.writer.wake(a.now);
                a.drain();
            }
        }
    }
    assert!(matches!(a.lost(), Some(LogFault::Expired { unresolved: Some(_), .. })), "{:?}", a.said.last());
}

#[test]
fn t4_a_holder_frozen_for_ten_leases_fails_and_deletes_nothing() {
    let mut shelf = Shelf::default();
    let mut a = Actor::new(1);
    a.until_ready(&mut shelf);
    for _ in 0..4 {
        a.commit(&mut shelf);
    }
    a.submit();
    let mut b = Actor::new(2);
    b.now = SECOND;
    b.until_ready(&mut shelf);
    let taken = b.commit(&mut shelf);
    let before = shelf.objects.clone();
    a.now += 10 * small().timing.lease_ns;
    // Its create had been sent: it finds the slot taken.
    let create = a.at(creates_slot);
    a.perform(&mut shelf, create);
    a.run(&mut shelf, |_| false, |actor| actor.lost().is_some());
    assert!(matches!(a.lost(), Some(LogFault::Fenced { .. } | LogFault::Expired { .. })), "{:?}", a.lost());
    assert!(a.writer.commit(a.now, vec![Record::Unpin { pin: 1 }]).is_err());
    assert_eq!(shelf.objects, before, "it wrote nothing and deleted nothing");
    assert_eq!(b.commit(&mut shelf).0, taken.0 + 1);
}

#[test]
fn t8_no_takeover_before_a_full_interval_between_two_good_reads() {
    let mut shelf = Shelf::default();
    let mut a = Actor::new(1);
    a.until_ready(&mut shelf);
    let mut b = Actor::new(2);
    b.run(&mut shelf, reads_beat, |actor| actor.open.iter().any(|(_, call)| reads_beat(call)));
    let lease = small().timing.lease_ns;
    // Its reads fail for five lease times.
    while b.now < 5 * lease {
        let read = b.at(reads_beat);
        b.answer(read, Answer::Fault(StoreFaultKind::Unknown));
        b.now = b.writer.deadline().unwrap();
        b.writer.wake(b.now);
        b.drain();
    }
    let first_good = b.now;
    let read = b.at(reads_beat);
    b.perform(&mut shelf, read);
    assert!(b.open.is_empty(), "one good read is not enough");
    assert_eq!(b.writer.deadline(), Some(first_good + small().timing.wait_ns()));
    b.writer.wake(first_good + small().timing.wait_ns() - 1);
    b.drain();
    assert!(b.open.is_empty());
    // The holder beats in between: the second read differs, and everything starts over.
    let beat = Claim {
        cluster: CLUSTER,
        epoch: Epoch(1),
        holder: identity(1, 1).me,
        counter: 99,
        nonce: [3; 16],
        slot: Slot(0),
        who: Who::default(),
    };
    let put = Call::Put { key: keys::beat(Epoch(1)), body: beat.emit_beat().into() };
    shelf.apply(&put).unwrap();
    b.now = first_good + small().timing.wait_ns();
    b.writer.wake(b.now);
    b.drain();
    let read = b.at(reads_beat);
    b.perform(&mut shelf, read);
    assert!(b.open.is_empty());
    assert!(matches!(b.said.last(), Some(Action::Wait { held: LogFault::Held { beat: 99, .. }, .. })));
    b.until_ready(&mut shelf);
    assert_eq!(b.writer.epoch(), Epoch(2));
}

#[test]
fn t9_release_and_claim_never_lower_the_epoch() {
    let mut shelf = Shelf::default();
    for round in 1..=6 {
        let node = 1 + (round as u32) % 2;
        let mut actor = Actor::boot(node, round);
        actor.until_ready(&mut shelf);
        assert_eq!((actor.writer.epoch(), actor.now), (Epoch(round), 0), "and nobody waits after a yield");
        actor.commit(&mut shelf);
        assert!(actor.writer.release(actor.now, None));
        actor.drain();
        actor.run(&mut shelf, |_| false, |actor| matches!(actor.said.last(), Some(Action::Released { .. })));
        assert!(!actor.writer.may_assign(actor.now) && actor.writer.lease_end_ns().is_none());
        assert_eq!(shelf.max_epoch(), Epoch(round));
    }
}

#[test]
fn a_yield_to_another_node_is_waited_out_like_a_silent_holder() {
    let mut shelf = Shelf::default();
    let mut a = Actor::new(1);
    a.until_ready(&mut shelf);
    assert!(a.writer.release(0, Some(NodeId(3))));
    a.drain();
    a.run(&mut shelf, |_| false, |actor| matches!(actor.said.last(), Some(Action::Released { .. })));
    let mut b = Actor::new(2);
    b.until_ready(&mut shelf);
    assert!(b.now >= small().timing.wait_ns());
}
