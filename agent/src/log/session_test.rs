//! Sessions over a store in memory and a clock that jumps.

use windlass_hal::sim::clock::SimClock;

use super::*;
use crate::format::record::{PolicyChange, Record};
use crate::format::slot::{Author, PlainForTests};
use crate::id::{Boot, VolumeId};
use crate::store::memory::MemoryStore;

fn who(node: u32) -> Identity {
    Identity { cluster: [9; 16], me: Author { node: NodeId(node), boot: Boot(u64::from(node) + 100) } }
}

fn policy(revision: u32) -> Record {
    Record::PolicyChanged(PolicyChange {
        name: "homes".into(),
        revision,
        body: b"{}".to_vec(),
        volumes: vec![(VolumeId(1), "/dev/vg/homes".into())],
    })
}

fn claim<'a>(
    store: &'a MemoryStore,
    clock: &'a SimClock,
    node: u32,
    options: WriterOptions,
    patient: bool,
) -> Result<Session<'a, PlainForTests>, LogFault> {
    let around = Surroundings { store, clock };
    Session::claim(around, who(node), PlainForTests, options, [node as u8; 32], |_, _| patient)
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

    let view = open_read(around, [9; 16], PlainForTests).unwrap();
    assert_eq!((view.head, view.state.policies["homes"].revision), (Slot(4), 3));
    assert!(matches!(open_read(around, [8; 16], PlainForTests), Err(LogFault::Format { .. })));

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
    let view = open_read(Surroundings { store: &store, clock: &clock }, [9; 16], PlainForTests).unwrap();
    assert_eq!(view.head, Slot(42));
    assert_eq!(view.state.policies, kept.state.policies);
}
