//! Openings: how many requests they take, where they begin, and what becomes of an end that is lost.

use std::sync::Mutex;

use windlass_hal::sim::clock::SimClock;

use super::super::keys;
use super::tests::{claim, copy_of, keys_of, log_of, policy, read, who};
use super::*;
use crate::format::slot::{Claim, PlainForTests, Who, own_part};
use crate::log::salvage::{DISTANCE_SLOTS, Salvage};
use crate::log::state::State;
use crate::store::memory::MemoryStore;
use crate::store::{ByteRange, PutMode, over};

/// A store in memory that counts what it is asked.
#[derive(Default)]
struct Counted {
    inner: MemoryStore,
    calls: Mutex<Vec<String>>,
}

impl Counted {
    fn said(&self, what: &str, key: &str) {
        self.calls.lock().unwrap().push(format!("{what} {key}"));
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.calls.lock().unwrap())
    }
}

impl over::Over for Counted {
    fn behind(&self) -> &dyn Store {
        &self.inner
    }

    fn put(&self, key: &str, body: &[&[u8]], mode: PutMode) -> Result<(), StoreFault> {
        self.said("PUT", key);
        self.inner.put(key, body, mode)
    }

    fn get(&self, key: &str, range: ByteRange, out: &mut Vec<u8>) -> Result<u64, StoreFault> {
        self.said("GET", key);
        self.inner.get(key, range, out)
    }

    fn list(
        &self,
        prefix: &str,
        after: &str,
        each: &mut dyn FnMut(&str, u64) -> bool,
    ) -> Result<(), StoreFault> {
        self.said("LIST", prefix);
        self.inner.list(prefix, after, each)
    }
}

#[test]
fn opening_takes_few_requests_whatever_the_logs_age() {
    let (store, clock) = (Counted::default(), SimClock::default());
    let around = Surroundings { store: &store, clock: &clock };
    let (mut revision, mut most, mut written) = (0, 0, 0);
    for round in 1..=150u64 {
        let options = WriterOptions::default();
        let mut session =
            Session::claim(around, None, who(1), PlainForTests, options, [1; 32], |_, _| true).unwrap();
        for _ in 0..round % 7 {
            revision += 1;
            session.commit(vec![policy(revision)]).unwrap();
        }
        let (head, state) = (session.release(None).unwrap(), revision);
        written += store.take().iter().filter(|call| call.starts_with("PUT ckpt/")).count() as u64;
        let view = open_read(around, [9; 16], PlainForTests, |fault| panic!("{fault}")).unwrap();
        assert_eq!(view.head, head);
        assert_eq!(view.state.policies.get("homes").map_or(0, |policy| policy.revision), state);
        let asked = store.take();
        most = most.max(asked.len());
        let slots = asked.iter().filter(|call| call.starts_with("GET log/")).count();
        assert!(asked.len() <= 6 + slots && slots <= 8, "slot {head}: {asked:?}");
        if round == 150 {
            assert!(head.0 > 700 && written <= head.0 / 8, "{written} checkpoints for {head} slots");
        }
    }
    assert_eq!(most, 14, "it reads what it need not");
}

#[test]
fn a_claim_behind_a_view_reads_only_what_came_since() {
    let (store, clock) = (Counted::default(), SimClock::default());
    let around = Surroundings { store: &store, clock: &clock };
    let claim = |node, start: Start| {
        let options = WriterOptions::default();
        Session::claim(around, None, who(node), PlainForTests, options, start, |_, _| false)
    };
    let mut first = claim(1, [1; 32].into()).unwrap();
    for revision in 1..=20 {
        first.commit(vec![policy(revision)]).unwrap();
    }
    first.release(None).unwrap();
    let view = open_read(around, [9; 16], PlainForTests, drop).unwrap();
    store.take();
    let mut second = claim(2, Start { seed: [2; 32], view: Some(view.clone()) }).unwrap();
    let asked = store.take();
    let reads = asked.iter().filter(|call| !call.starts_with("PUT")).count();
    // epoch/2, and again once it is made; slots and boundary since; the slot itself, and epoch/3.
    assert!(reads == 6 && !asked.iter().any(|call| call.contains("ckpt/")), "{asked:?}");
    second.commit(vec![policy(21)]).unwrap();
    second.release(None).unwrap();
    // Another node has had the lease since, and has let it go: that needs no wait.
    let third = claim(3, Start { seed: [3; 32], view: Some(view) }).unwrap();
    assert_eq!((third.epoch(), third.view().state.policies["homes"].revision), (Epoch(3), 21));
}

#[test]
fn a_log_that_was_to_begin_anew_and_did_not_goes_on_as_it_was() {
    let (objects, whole) = log_of(20, WriterOptions::default());
    let store = copy_of(&objects);
    let state = State { epoch: Epoch(2), yielded: Some(None), ..whole.state.clone() };
    let [checkpoint, boundary] =
        Salvage::beginning([9; 16], whole.head, state, [5; 16], &PlainForTests).unwrap();
    store.put(&checkpoint.0, &[&checkpoint.1, &checkpoint.1], PutMode::Replace).unwrap();
    assert_eq!(read(&store), (Ok(whole.clone()), vec![]));
    store.put(&boundary.0, &[&boundary.1, &boundary.1], PutMode::Replace).unwrap();
    let (view, warnings) = read(&store);
    let first = Slot(whole.head.0 + DISTANCE_SLOTS);
    assert_eq!((view.unwrap().head, warnings), (first, vec![]));
    store.put(&boundary.0, &[b"cut"], PutMode::Replace).unwrap();
    let (view, warnings) = read(&store);
    assert_eq!(
        (view.unwrap().head, warnings),
        (first, vec![LogFault::Mended { place: Place::Boundary(first) }])
    );
    store.put(&keys::epoch(Epoch(2)), &[b"the rebuild's"], PutMode::CreateOnly).unwrap();
    let clock = SimClock::default();
    let mut session = claim(&store, &clock, 2, WriterOptions::default(), false).unwrap();
    session.commit(vec![policy(20)]).unwrap();
    assert_eq!(read(&store).0.unwrap(), *session.view(), "a slot follows from it");
}

/// Takes the last `count` slots of a log away.
fn without_end(objects: &[(String, Vec<u8>)], head: Slot, count: u64) -> MemoryStore {
    let store = copy_of(objects);
    (0..count).for_each(|back| store.delete(&keys::slot(Slot(head.0 - back))).unwrap());
    store
}

#[test]
fn an_end_that_is_lost_is_told_by_number_and_the_log_goes_on_behind_it() {
    // Its last beat names the slot before the yield.
    let (objects, whole) = log_of(7, WriterOptions::default());
    assert_eq!(whole.head, Slot(8));
    let by = Place::Beat(Epoch(1));
    for count in 1..=4 {
        let store = without_end(&objects, whole.head, count);
        let (view, warnings) = read(&store);
        let (view, head) = (view.unwrap(), Slot(8 - count));
        assert_eq!(view.head, head);
        let lost = LogFault::LostEnd { head, named: Slot(7), by };
        assert_eq!(warnings, if count == 1 { vec![] } else { vec![lost] }, "the yield alone is no loss");
        assert!(
            lost.is_damage()
                && lost.to_string().contains(&format!("ends at entry {head}, and the beat of epoch 1"))
        );
        let clock = SimClock::default();
        let mut session = claim(&store, &clock, 2, WriterOptions::default(), true).unwrap();
        let revision = view.state.policies["homes"].revision + 1;
        session.commit(vec![policy(revision)]).unwrap();
        session.release(None).unwrap();
        let (after, warnings) = read(&store);
        let after = after.unwrap();
        assert_eq!((after.state.policies["homes"].revision, warnings), (revision, vec![]));
        let covered = if count == 1 { head.0 } else { 7 + DISTANCE_SLOTS };
        assert_eq!(after.head.0, covered + 3, "begun, policy, yield");
        // A process that had read the end before it was lost goes on, too.
        let around = Surroundings { store: &store, clock: &clock };
        let replay = Replay::from_view([9; 16], PlainForTests, ONE_BY_ONE, 1, whole.clone());
        let followed = super::read(around, None, replay, &mut |_| {}).unwrap();
        assert_eq!(followed, after, "{count}");
    }
}

#[test]
fn a_last_slot_that_is_cut_refuses_nobody() {
    for slots in [5, 7, 8, 9] {
        let (objects, whole) = log_of(slots, WriterOptions::default());
        let last = objects.iter().find(|(key, _)| *key == keys::slot(whole.head)).unwrap().1.clone();
        for cut in [0, 1, 100, own_part(&last).unwrap().len() - 1] {
            let store = copy_of(&objects);
            store.put(&keys::slot(whole.head), &[&last[..cut]], PutMode::Replace).unwrap();
            let (view, warnings) = read(&store);
            let (head, named) = (Slot(whole.head.0 - 1), whole.head);
            assert_eq!(view.unwrap().head, head, "cut at {cut}");
            assert_eq!(warnings, [LogFault::LostEnd { head, named, by: Place::Slot(named) }]);
            assert!(warnings[0].to_string().contains(&format!("entry {named} is cut")));
            let clock = SimClock::default();
            let mut session = claim(&store, &clock, 2, WriterOptions::default(), true).unwrap();
            session.commit(vec![policy(slots)]).unwrap();
            assert_eq!(session.view().head.0, named.0 + DISTANCE_SLOTS + 2);
            assert_eq!(read(&store), (Ok(session.view().clone()), vec![]));
        }
    }
}

#[test]
fn a_slot_that_is_lost_once_the_log_has_grown_is_read_from_the_one_behind() {
    let (objects, whole) = log_of(7, WriterOptions::default());
    let clock = SimClock::default();
    for head in 2..whole.head.0 {
        let body = |slot| objects.iter().find(|(key, _)| *key == keys::slot(slot)).unwrap().1.as_slice();
        let last = body(Slot(head));
        for cut in [None, Some(0), Some(36), Some(own_part(last).unwrap().len() - 1)] {
            let store = without_end(&objects, whole.head, whole.head.0 - head);
            // No checkpoint helps.
            keys_of(&store).iter().filter(|(key, _)| key.starts_with(keys::CHECKPOINTS)).for_each(
                |(key, _)| {
                    store.delete(key).unwrap();
                },
            );
            let mut replay = Replay::from_view([9; 16], PlainForTests, ONE_BY_ONE, 1, View::default());
            while let Some((id, call)) = replay.next_call() {
                let answer = perform(&store, &call).0;
                // The last one that the LIST has shown is lost, when the one behind it is there.
                if matches!(call, Call::Above { .. }) && replay.reached() == Slot(0) {
                    let (lost, behind) = (keys::slot(Slot(head)), Slot(head + 1));
                    store.put(&keys::slot(behind), &[body(behind)], PutMode::Replace).unwrap();
                    match cut {
                        None => store.delete(&lost).unwrap(),
                        Some(cut) => store.put(&lost, &[&last[..cut]], PutMode::Replace).unwrap(),
                    }
                }
                replay.handle(clock.now().as_ns(), id, answer);
            }
            let warnings: Vec<LogFault> = replay.warnings().collect();
            let reached = replay.result().map(|read| read.map(|view| view.head));
            let mended = LogFault::Mended { place: Place::Slot(Slot(head)) };
            assert_eq!((reached, warnings), (Some(Ok(Slot(head + 1))), vec![mended]), "{head} {cut:?}");
        }
    }
}

#[test]
fn two_that_cover_a_lost_end_at_once_agree_on_one() {
    let (objects, whole) = log_of(7, WriterOptions::default());
    let store = without_end(&objects, whole.head, 3);
    let clock = SimClock::default();
    // A checkpoint of one that died before its first slot, and one that came late, of an epoch that is over.
    let state = State { epoch: Epoch(1), ..read(&store).0.unwrap().state };
    for nonce in [[0; 16], [255; 16]] {
        let at = Slot(7 + DISTANCE_SLOTS - DISTANCE_SLOTS);
        let [(key, body), _] = Salvage::beginning([9; 16], at, state.clone(), nonce, &PlainForTests).unwrap();
        store.put(&key, &[&body, &body], PutMode::Replace).unwrap();
    }
    assert_eq!(read(&store).0.unwrap().head, Slot(5), "nothing follows from them");
    let mut session = claim(&store, &clock, 2, WriterOptions::default(), true).unwrap();
    session.commit(vec![policy(5)]).unwrap();
    assert_eq!(session.view().head.0, 7 + DISTANCE_SLOTS + 2);
    assert_eq!(read(&store), (Ok(session.view().clone()), vec![]));
}

#[test]
fn a_beat_of_an_earlier_version_names_no_slot() {
    let beat = Claim {
        cluster: [9; 16],
        epoch: Epoch(1),
        holder: who(1).me,
        counter: 7,
        nonce: [3; 16],
        slot: Slot(40),
        who: Who::default(),
    };
    let new = beat.emit_beat();
    assert_eq!(Claim::parse_beat(&new), Ok(beat));
    // The same without its slot, and version 1.
    let mut old = new[..72].to_vec();
    old[4] = 1;
    let digest = *blake3::hash(&old).as_bytes();
    old.extend_from_slice(&digest);
    assert_eq!(Claim::parse_beat(&old), Ok(Claim { slot: Slot(0), ..beat }));
    let (objects, whole) = log_of(3, WriterOptions::default());
    let store = copy_of(&objects);
    store.put(&keys::beat(Epoch(1)), &[&old, &old], PutMode::Replace).unwrap();
    assert_eq!(read(&store), (Ok(whole), vec![]));
}

#[test]
fn names_that_are_none_of_the_logs_are_passed_over() {
    let (objects, whole) = log_of(20, WriterOptions::default());
    let store = copy_of(&objects);
    for key in [
        "log/00000000000000000005-bak",
        "log/z",
        "boundary/z",
        "ckpt/z",
        "beat/z",
        "ckpt/00000000000000000099-z",
    ] {
        store.put(key, &[b"x"], PutMode::Replace).unwrap();
    }
    assert_eq!(read(&store), (Ok(whole), vec![]));
    assert_eq!(keys_of(&store).len(), objects.len() + 6);
}
