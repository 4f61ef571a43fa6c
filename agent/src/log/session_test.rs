//! Sessions over a store in memory and a clock that jumps.

use std::sync::Mutex;

use windlass_hal::sim::clock::SimClock;

use super::super::keys;
use super::*;
use crate::format::record::{PolicyChange, Record};
use crate::format::slot::{Author, Claim, PlainForTests, SlotHeader, Who, own_part};
use crate::id::{Boot, VolumeId};
use crate::log::call::{Call, Lane};
use crate::log::fault::Place;
use crate::store::memory::MemoryStore;
use crate::store::{ByteRange, PutMode, StoreFaultKind, over};

pub(super) fn who(node: u32) -> Identity {
    Identity {
        cluster: [9; 16],
        me: Author { node: NodeId(node), boot: Boot(u64::from(node) + 100) },
        who: Who::default(),
    }
}

pub(super) fn policy(revision: u32) -> Record {
    Record::PolicyChanged(PolicyChange {
        name: "homes".into(),
        revision,
        body: b"{}".to_vec(),
        volumes: vec![(VolumeId(1), "/dev/vg/homes".into())],
    })
}

pub(super) fn claim<'a>(
    store: &'a MemoryStore,
    clock: &'a SimClock,
    node: u32,
    options: WriterOptions,
    patient: bool,
) -> Result<Session<'a, PlainForTests>, LogFault> {
    let around = Surroundings { store, clock };
    Session::claim(around, None, who(node), PlainForTests, options, [node as u8; 32], |_, _| patient)
}

#[test]
fn claim_commit_release_and_read_back() {
    let (store, clock) = (MemoryStore::default(), SimClock::default());
    let around = Surroundings { store: &store, clock: &clock };
    let mut session = claim(&store, &clock, 1, WriterOptions::default(), false).unwrap();
    assert_eq!(session.commit(vec![policy(1)]), Ok(Slot(2)));
    assert_eq!(session.commit(vec![policy(2), policy(3)]), Ok(Slot(3)));
    assert!(matches!(session.commit(vec![policy(9)]), Err(LogFault::Refused { record: 0, .. })));
    assert_eq!(session.release(None), Ok(Slot(4)));
    assert_eq!(clock.now().as_ns(), 0, "nobody else: nothing to wait for");

    let view = open_read(around, [9; 16], PlainForTests, drop).unwrap();
    assert_eq!((view.head, view.state.policies["homes"].revision), (Slot(4), 3));
    assert!(matches!(open_read(around, [8; 16], PlainForTests, drop), Err(LogFault::Format { .. })));

    let session = claim(&store, &clock, 2, WriterOptions::default(), false).unwrap();
    assert_eq!((session.epoch(), clock.now().as_ns()), (Epoch(2), 0), "a yield needs no wait");
}

#[test]
fn a_silent_holder_is_waited_for_and_a_live_one_is_named() {
    let (store, clock) = (MemoryStore::default(), SimClock::default());
    let first = claim(&store, &clock, 1, WriterOptions::default(), false).unwrap();
    let Err(fault) = claim(&store, &clock, 2, WriterOptions::default(), false) else { panic!("claimed") };
    assert!(fault.to_string().contains("node 1"), "{fault}");
    drop(first);
    let before = clock.now().as_ns();
    let second = claim(&store, &clock, 2, WriterOptions::default(), true).unwrap();
    assert_eq!(second.epoch(), Epoch(2));
    assert!(clock.now().as_ns() - before >= WriterOptions::default().timing.wait_ns());
}

#[test]
fn a_lease_that_is_let_go_is_claimed_at_once_however_long_its_holder_lived() {
    let (store, clock) = (MemoryStore::default(), SimClock::default());
    let mut first = Some(claim(&store, &clock, 1, WriterOptions::default(), false).unwrap());
    let around = Surroundings { store: &store, clock: &clock };
    let (mut looks, mut let_go_ns) = (0, 0);
    // Beats and commits for a minute, then the holder lets go.
    let on_wait = |held: &LogFault, left_ns: u64| {
        looks += 1;
        assert!(matches!(held, LogFault::Held { epoch: Epoch(1), .. }) && left_ns > 0);
        if clock.now().as_ns() < 60_000_000_000 {
            first.as_mut().unwrap().commit(vec![policy(looks)]).unwrap();
        } else if let Some(first) = first.take() {
            first.release(None).unwrap();
            let_go_ns = clock.now().as_ns();
        }
        true
    };
    let options = WriterOptions::default();
    let second = Session::claim(around, None, who(2), PlainForTests, options, [2; 32], on_wait).unwrap();
    assert_eq!(second.epoch(), Epoch(2));
    let waited_ns = clock.now().as_ns() - let_go_ns;
    assert!(waited_ns <= LOOK_NS && looks > 30, "{waited_ns} ns after {looks} looks");
}

#[test]
fn a_holder_that_died_before_its_first_slot_is_waited_for_once() {
    let (store, clock) = (MemoryStore::default(), SimClock::default());
    claim(&store, &clock, 1, WriterOptions::default(), false).unwrap().release(None).unwrap();
    // The log ends with a yield; the grant that follows it is all that its holder left.
    let claim_of = |node: u32| Claim {
        cluster: [9; 16],
        epoch: Epoch(2),
        holder: who(node).me,
        counter: 0,
        nonce: [3; 16],
        slot: Slot(0),
        who: Who::default(),
    };
    store.put(&keys::epoch(Epoch(2)), &[&claim_of(3).emit_grant()], PutMode::CreateOnly).unwrap();
    let second = claim(&store, &clock, 2, WriterOptions::default(), true).unwrap();
    assert_eq!(second.epoch(), Epoch(3));
    let wait_ns = WriterOptions::default().timing.wait_ns();
    assert!((wait_ns..2 * wait_ns).contains(&clock.now().as_ns()), "{:?}", clock.now());
}

#[test]
fn a_lease_let_go_to_another_node_is_not_taken_from_it() {
    let (store, clock) = (MemoryStore::default(), SimClock::default());
    let mut first = Some(claim(&store, &clock, 1, WriterOptions::default(), false).unwrap());
    let around = Surroundings { store: &store, clock: &clock };
    let on_wait = |_: &LogFault, _| {
        first.take().map(|first| first.release(Some(NodeId(3))).unwrap());
        true
    };
    let options = WriterOptions::default();
    Session::claim(around, None, who(2), PlainForTests, options, [2; 32], on_wait).unwrap();
    assert!(clock.now().as_ns() >= options.timing.wait_ns(), "node 3 had its time to take it");
}

#[test]
fn beats_go_out_by_poll_and_a_missed_lease_is_noticed() {
    let (store, clock) = (MemoryStore::default(), SimClock::default());
    let mut session = claim(&store, &clock, 1, WriterOptions::default(), false).unwrap();
    for _ in 0..20 {
        let due = session.poll().unwrap().unwrap();
        sleep_until(&clock, due);
    }
    assert!(clock.now().as_ns() > 60_000_000_000);
    session.commit(vec![policy(1)]).unwrap();
    sleep_until(&clock, clock.now().as_ns() + 16_000_000_000);
    assert!(matches!(session.commit(vec![policy(2)]), Err(LogFault::Expired { unresolved: None, .. })));
}

#[test]
fn old_slots_go_behind_a_checkpoint_and_nothing_is_forgotten() {
    let (store, clock) = (MemoryStore::default(), SimClock::default());
    let options = WriterOptions { checkpoint_slots: 4, boundary_lag_slots: 4, ..WriterOptions::default() };
    let mut session = claim(&store, &clock, 1, options, false).unwrap();
    for revision in 1..=40 {
        session.commit(vec![policy(revision)]).unwrap();
    }
    session.poll().unwrap();
    let kept = session.view().clone();
    assert_eq!(session.release(None), Ok(Slot(42)));
    let count = |prefix: &str| {
        let mut found = 0;
        let each = &mut |_: &str, _| {
            found += 1;
            true
        };
        store.list(prefix, "", each).unwrap();
        found
    };
    assert!(count("log/") < 16, "{}", count("log/"));
    assert_eq!(count("boundary/"), 1);
    assert!(count("ckpt/") <= 4, "{}", count("ckpt/"));
    let view =
        open_read(Surroundings { store: &store, clock: &clock }, [9; 16], PlainForTests, drop).unwrap();
    assert_eq!(view.head, Slot(42));
    assert_eq!(view.state.policies, kept.state.policies);
}

pub(super) fn keys_of(store: &MemoryStore) -> Vec<(String, Vec<u8>)> {
    let mut keys = Vec::new();
    let each = &mut |key: &str, _| {
        keys.push((key.to_owned(), Vec::new()));
        true
    };
    store.list("", "", each).unwrap();
    for (key, body) in &mut keys {
        store.get(key, ByteRange::Whole(1 << 20), body).unwrap();
    }
    keys
}

pub(super) fn copy_of(objects: &[(String, Vec<u8>)]) -> MemoryStore {
    let store = MemoryStore::default();
    for (key, body) in objects {
        store.put(key, &[body], PutMode::Replace).unwrap();
    }
    store
}

/// A log whose slots are `2..=slots` policies and a yield; the newest checkpoint is of `slots` or the one before.
pub(super) fn log_of(slots: u32, options: WriterOptions) -> (Vec<(String, Vec<u8>)>, View) {
    let (store, clock) = (MemoryStore::default(), SimClock::default());
    let mut session = claim(&store, &clock, 1, options, false).unwrap();
    for revision in 1..slots {
        session.commit(vec![policy(revision)]).unwrap();
    }
    session.poll().unwrap();
    session.release(None).unwrap();
    let view = open_read(Surroundings { store: &store, clock: &clock }, [9; 16], PlainForTests, drop);
    (keys_of(&store), view.unwrap())
}

pub(super) fn read(store: &MemoryStore) -> (Result<View, LogFault>, Vec<LogFault>) {
    let (clock, mut warnings) = (SimClock::default(), Vec::new());
    let around = Surroundings { store, clock: &clock };
    let view = open_read(around, [9; 16], PlainForTests, |fault| warnings.push(fault));
    (view, warnings)
}

/// It can be neither read nor claimed, and an attempt leaves it as it was.
pub(super) fn is_refused(store: &MemoryStore, place: &str) {
    let (before, fault) = (keys_of(store), read(store).0.unwrap_err());
    assert!(fault.to_string().contains(place), "{place}: {fault}");
    assert!(fault.is_damage() != fault.is_newer(), "{place}: {fault}");
    let clock = SimClock::default();
    assert_eq!(claim(store, &clock, 2, WriterOptions::default(), true).err(), Some(fault));
    assert_eq!(keys_of(store), before, "nothing was written");
}

#[test]
fn any_one_slot_that_is_lost_or_cut_is_read_from_the_one_behind_it() {
    let (objects, whole) = log_of(5, WriterOptions::default());
    for slot in 1..=5 {
        let key = keys::slot(Slot(slot));
        let body = objects.iter().find(|(other, _)| *other == key).unwrap().1.clone();
        for cut in [None, Some(0), Some(1), Some(body.len() / 4), Some(body.len() * 19 / 20)] {
            let store = copy_of(&objects);
            match cut {
                None => store.delete(&key).unwrap(),
                Some(cut) => store.put(&key, &[&body[..cut]], PutMode::Replace).unwrap(),
            }
            let (view, warnings) = read(&store);
            assert_eq!(view.as_ref(), Ok(&whole), "slot {slot} cut at {cut:?}");
            let copy_is_left = cut.is_some_and(|cut| cut >= own_part(&body).unwrap().len());
            let mended = LogFault::Mended { place: Place::Slot(Slot(slot)) };
            assert_eq!(warnings, if copy_is_left { vec![] } else { vec![mended] }, "slot {slot}, {cut:?}");
            let clock = SimClock::default();
            let mut session = claim(&store, &clock, 2, WriterOptions::default(), true).unwrap();
            session.commit(vec![policy(5)]).unwrap();
            session.release(None).unwrap();
            assert_eq!(read(&store).0.unwrap().head, Slot(9), "the log goes on behind slot {slot}");
        }
    }
}

#[test]
fn what_is_lost_for_good_is_refused_by_name_and_nothing_is_written() {
    let (objects, whole) = log_of(6, WriterOptions::default());
    assert_eq!(whole.head, Slot(7));
    let store = copy_of(&objects);
    for slot in [3, 4] {
        store.delete(&keys::slot(Slot(slot))).unwrap();
    }
    is_refused(&store, "entry 3: it is missing");
    // What a newer program wrote is no damage that may be passed over.
    let store = copy_of(&objects);
    let mut newer = objects.iter().find(|(key, _)| *key == keys::slot(Slot(7))).unwrap().1.clone();
    let own = own_part(&newer).unwrap().len();
    newer.truncate(own - 32);
    newer[4] = 9;
    let digest = *blake3::hash(&newer).as_bytes();
    newer.extend_from_slice(&digest);
    store.put(&keys::slot(Slot(7)), &[&newer, &newer], PutMode::Replace).unwrap();
    is_refused(&store, "log slot 7 was written by a newer windlass: version 9 is unknown");
    let store = MemoryStore::default();
    store.put("obj/00000000000000000001-x", &[b"x"], PutMode::Replace).unwrap();
    is_refused(&store, "the commit log is gone");
    assert_eq!(read(&MemoryStore::default()).0, Ok(View::default()), "a new repository is no damage");
}

#[test]
fn a_checkpoint_covers_what_is_lost_before_it() {
    let options = WriterOptions { checkpoint_slots: 4, boundary_lag_slots: 4, ..WriterOptions::default() };
    let (objects, whole) = log_of(23, options);
    let last_of = |prefix: &str| {
        let key = objects.iter().rev().find(|(key, _)| key.starts_with(prefix)).unwrap().0.clone();
        (keys::number(&key, prefix).unwrap(), key)
    };
    let (boundary, boundary_key) = last_of(keys::BOUNDARIES);
    let (covered, _) = last_of(keys::CHECKPOINTS);
    assert!(covered.0 > boundary.0 + 3 && whole.head > covered, "{boundary} {covered}");

    // Slots in a row, up to the checkpoint's own.
    let store = copy_of(&objects);
    for slot in boundary.0 + 2..=covered.0 {
        store.delete(&keys::slot(Slot(slot))).unwrap();
    }
    let mended = |place| vec![LogFault::Mended { place }];
    let same = |view: Result<View, LogFault>| view.map(|view| (view.head, view.digest, view.state));
    let expected = Ok((whole.head, whole.digest, whole.state.clone()));
    let (view, warnings) = read(&store);
    assert_eq!((same(view), warnings), (expected.clone(), mended(Place::Slot(covered))));

    // The boundary: no node needs it who finds a newer checkpoint.
    let store = copy_of(&objects);
    store.delete(&boundary_key).unwrap();
    let (view, warnings) = read(&store);
    assert_eq!((same(view), warnings), (expected.clone(), vec![]));
    for (key, _) in objects.iter().filter(|(key, _)| key.starts_with(keys::CHECKPOINTS)) {
        store.delete(key).unwrap();
    }
    is_refused(&store, "entry 1: it is missing");

    // All checkpoints but the one that the boundary names, and then what the boundary says, too.
    let store = copy_of(&objects);
    for (key, _) in objects.iter().filter(|(key, _)| key.starts_with(keys::CHECKPOINTS)) {
        if keys::number(key, keys::CHECKPOINTS) != Some(boundary) {
            store.put(key, &[b"cut"], PutMode::Replace).unwrap();
        }
    }
    let (view, warnings) = read(&store);
    assert_eq!((same(view), &warnings[..1]), (expected.clone(), &mended(Place::Checkpoint(covered))[..]));
    for (key, _) in objects.iter().filter(|(key, _)| key.starts_with(keys::CHECKPOINTS)) {
        if keys::number(key, keys::CHECKPOINTS) != Some(boundary) {
            store.delete(key).unwrap();
        }
    }
    store.put(&boundary_key, &[b"cut"], PutMode::Replace).unwrap();
    let (view, warnings) = read(&store);
    assert_eq!((same(view), warnings), (expected, vec![]));

    // All slots and the boundary: the checkpoint is the end of the log then, and the beat knows of a later one.
    let store = copy_of(&objects);
    for (key, _) in objects.iter().filter(|(key, _)| key.starts_with("log/") || key.starts_with("boundary/"))
    {
        store.delete(key).unwrap();
    }
    let (view, mut warnings) = read(&store);
    let named = Slot(whole.head.0 - 1);
    assert_eq!(warnings.pop(), Some(LogFault::LostEnd { head: covered, named, by: Place::Beat(Epoch(1)) }));
    assert_eq!((view.unwrap().head, warnings), (covered, mended(Place::Slot(covered))));
}

#[test]
fn a_slot_that_a_list_does_not_show_is_asked_for_before_it_is_lost() {
    let (objects, whole) = log_of(4, WriterOptions::default());
    let (store, clock) = (copy_of(&objects), SimClock::default());
    store.delete(&keys::slot(Slot(whole.head.0 - 1))).unwrap();
    let mut replay = Replay::from_start([9; 16], PlainForTests, ReplayOptions::default(), 1);
    while replay.result().is_none() {
        while let Some((id, call)) = replay.next_call() {
            // A LIST of a directory may show a file, and not the one that was made before it a moment ago.
            let answer = perform(&store, &call).0;
            if matches!(call, Call::Above { .. }) {
                objects.iter().for_each(|(key, body)| store.put(key, &[body], PutMode::Replace).unwrap());
            }
            replay.handle(clock.now().as_ns(), id, answer);
        }
    }
    assert_eq!((replay.warnings().next(), replay.result()), (None, Some(Ok(&whole))));
}

#[test]
fn a_late_create_where_a_slot_was_lost_fools_nobody() {
    let (objects, whole) = log_of(6, WriterOptions::default());
    let body = |slot| objects.iter().find(|(key, _)| *key == keys::slot(Slot(slot))).unwrap().1.as_slice();
    for lost in 2..=5 {
        let (before, _) = SlotHeader::parse(own_part(body(lost)).unwrap()).unwrap();
        // What a writer that had stalled wanted to write there: it follows from the slot before, and is not what was written.
        let header = SlotHeader { nonce: [1; 16], ..before };
        let (zombie, _) = header.emit(&[Record::Pin { pin: 7, node: NodeId(1) }], &PlainForTests).unwrap();
        let store = copy_of(&objects);
        store.put(&keys::slot(Slot(lost)), &[&zombie, &zombie], PutMode::Replace).unwrap();
        let mended = LogFault::Mended { place: Place::Slot(Slot(lost)) };
        assert_eq!(read(&store), (Ok(whole.clone()), vec![mended]), "slot {lost}");
    }
}

/// A store whose link goes down with the first boundary that is sent: no PUT has an answer from then on, after two seconds each.
struct GoesDown<'a> {
    inner: MemoryStore,
    clock: &'a SimClock,
    /// When boundaries were sent.
    sent_ns: Mutex<Vec<u64>>,
}

impl over::Over for GoesDown<'_> {
    fn behind(&self) -> &dyn Store {
        &self.inner
    }

    fn put(&self, key: &str, body: &[&[u8]], mode: PutMode) -> Result<(), StoreFault> {
        let mut sent_ns = self.sent_ns.lock().unwrap();
        if key.starts_with(keys::BOUNDARIES) {
            sent_ns.push(self.clock.now().as_ns());
        }
        if sent_ns.is_empty() {
            return self.inner.put(key, body, mode);
        }
        self.clock.sleep(Duration::from_secs(2));
        Err(StoreFault::new(StoreFaultKind::Unknown, "PUT", key, "no route"))
    }
}

/// With much of the lease to be left, so that attempts would fall into what must be left.
fn hold_timing() -> Timing {
    Timing { send_budget_ns: 10_000_000_000, ..Timing::default() }
}

fn hold<'a>(store: &'a dyn Store, clock: &'a SimClock) -> Hold<'a> {
    let from = Seek { epoch: Epoch(0), holder: None, yielded: true };
    Hold::claim(Surroundings { store, clock }, who(1), hold_timing(), from, [1; 32], |_, _| true).unwrap()
}

#[test]
fn a_log_that_begins_anew_sends_nothing_behind_its_lease_and_gives_way_to_a_later_holder() {
    let beginning = || [(keys::checkpoint(Slot(9), &[1; 16]), vec![1]), (keys::boundary(Slot(9)), vec![2])];
    let (store, clock) = (MemoryStore::default(), SimClock::default());
    assert_eq!(hold(&store, &clock).begin_anew(beginning()), Ok(()));
    assert!(beginning().iter().all(|(key, _)| keys_of(&store).iter().any(|(stored, _)| stored == key)));

    let store = MemoryStore::default();
    let mut held = hold(&store, &clock);
    store.put(&keys::epoch(Epoch(2)), &[b"another's"], PutMode::CreateOnly).unwrap();
    assert_eq!(held.begin_anew(beginning()), Err(LogFault::Fenced { epoch: Epoch(1), unresolved: None }));

    let store = GoesDown { inner: MemoryStore::default(), clock: &clock, sent_ns: Mutex::default() };
    let mut held = hold(&store, &clock);
    let timing = hold_timing();
    let last_ns = clock.now().as_ns() + timing.lease_ns - timing.send_budget_ns;
    assert_eq!(held.begin_anew(beginning()), Err(LogFault::Expired { epoch: Epoch(1), unresolved: None }));
    let sent_ns = store.sent_ns.lock().unwrap();
    assert!(sent_ns.len() > 1 && sent_ns.iter().all(|&sent_ns| sent_ns < last_ns), "{sent_ns:?} {last_ns}");
}

/// A store that takes half a second for each call, and counts deletes.
struct Slow<'a> {
    inner: MemoryStore,
    clock: &'a SimClock,
    deletes: Mutex<u64>,
}

impl Slow<'_> {
    fn pass(&self) {
        self.clock.advance(Duration::from_millis(512));
    }
}

impl Store for Slow<'_> {
    fn describe(&self) -> String {
        self.inner.describe()
    }

    fn put(&self, key: &str, body: &[&[u8]], mode: PutMode) -> Result<(), StoreFault> {
        self.pass();
        self.inner.put(key, body, mode)
    }

    fn get(&self, key: &str, range: ByteRange, out: &mut Vec<u8>) -> Result<u64, StoreFault> {
        self.pass();
        self.inner.get(key, range, out)
    }

    fn list(
        &self,
        prefix: &str,
        after: &str,
        each: &mut dyn FnMut(&str, u64) -> bool,
    ) -> Result<(), StoreFault> {
        self.pass();
        self.inner.list(prefix, after, each)
    }

    fn delete(&self, key: &str) -> Result<(), StoreFault> {
        self.pass();
        *self.deletes.lock().unwrap() += 1;
        self.inner.delete(key)
    }
}

#[test]
fn ten_thousand_commits_over_a_slow_link_keep_the_lease_though_old_slots_are_deleted_one_by_one() {
    let clock = SimClock::default();
    let store = Slow { inner: MemoryStore::default(), clock: &clock, deletes: Mutex::default() };
    let around = Surroundings { store: &store, clock: &clock };
    let options = WriterOptions::default();
    let mut session =
        Session::claim(around, None, who(1), PlainForTests, options, [1; 32], |_, _| true).unwrap();
    for revision in 1..=10_000 {
        let result = session.commit(vec![policy(revision)]);
        assert!(result.is_ok(), "commit {revision}: {result:?}");
    }
    let deletes = *store.deletes.lock().unwrap();
    assert!(deletes > 9_000, "{deletes}");
}

/// Hands that are done with a call of the log or the lease at once, and with none of housekeeping's.
struct Stuck<'a>(&'a MemoryStore, Vec<Done>);

impl Hands for Stuck<'_> {
    fn submit(&mut self, round: u32, id: CallId, call: Call) {
        if call.lane() != Lane::Keep {
            let (answer, fault) = perform(self.0, &call);
            self.1.push(Done { round, id, answer, fault });
        }
    }

    fn take(&mut self, _: Duration) -> Option<Done> {
        self.1.pop()
    }
}

#[test]
fn housekeeping_that_is_never_answered_is_in_nobodys_way() {
    // The hands outlive nothing that they borrow.
    let store: &'static MemoryStore = Box::leak(Box::default());
    let clock = SimClock::default();
    let options = WriterOptions { checkpoint_slots: 4, boundary_lag_slots: 4, ..WriterOptions::default() };
    let around = Surroundings { store, clock: &clock };
    let hands: Box<dyn Hands> = Box::new(Stuck(store, Vec::new()));
    let mut session =
        Session::claim(around, Some(hands), who(1), PlainForTests, options, [1; 32], |_, _| true).unwrap();
    for revision in 1..=100 {
        session.commit(vec![policy(revision)]).unwrap();
        clock.advance(Duration::from_secs(3));
        session.poll().unwrap();
    }
    assert_eq!(session.view().head, Slot(101));
}

#[test]
fn a_store_that_answers_503_at_once_is_not_asked_without_a_pause() {
    let store = MemoryStore::default();
    let mut writer = Writer::new(who(1), PlainForTests, WriterOptions::default(), [3; 32]);
    let (mut now, mut creates, mut calls) = (10_000_000_000, 0, 0);
    let end = now + 10_000_000_000;
    while now < end {
        while let Some(action) = writer.next_action() {
            let Action::Call { id, call } = action else { continue };
            calls += 1;
            let is_slot = matches!(&call, Call::Create { key, .. } if key.starts_with("log/"));
            creates += usize::from(is_slot);
            let answer =
                if is_slot { Answer::Fault(StoreFaultKind::Unknown) } else { perform(&store, &call).0 };
            writer.handle(now, id, answer);
            assert!(calls < 100, "{creates} creates after {} ms", (now + 10_000_000_000 - end) / 1_000_000);
        }
        now = writer.deadline().map_or(end, |due| due.max(now + 1));
        writer.wake(now);
    }
    assert!((4..20).contains(&creates), "{creates}");
}
