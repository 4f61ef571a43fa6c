//! Leases of several holders over one store in memory, with a clock that steps.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use windlass_hal::sim::clock::SimClock;

use super::*;
use crate::format::record::Record;
use crate::format::slot::PlainForTests;
use crate::id::{Boot, NodeId};
use crate::log::call::perform;
use crate::log::limits::LEASE_NS_MIN;
use crate::log::session::{Session, Surroundings};
use crate::log::state::Refusal;
use crate::log::writer::{Action, Writer, WriterOptions};
use crate::store::memory::MemoryStore;
use crate::store::{PutMode, Store, StoreFault, over};

const SECOND: u64 = 1_000_000_000;
/// Between two looks of a writer at the clock, in nanoseconds.
const STEP: u64 = SECOND / 10;

fn identity(node: u32) -> Identity {
    Identity {
        cluster: [9; 16],
        me: Author { node: NodeId(node), boot: Boot(u64::from(node)) },
        who: Who::default(),
    }
}

fn writer(node: u32, seconds: u64) -> Writer<PlainForTests> {
    let options = WriterOptions { timing: Timing::of(seconds * SECOND), ..WriterOptions::default() };
    Writer::new(identity(node), PlainForTests, options, [node as u8; 32])
}

/// What a writer wants at a time; whether it has lost the lease.
fn run(writer: &mut Writer<PlainForTests>, store: &MemoryStore, now_ns: u64) -> bool {
    let mut lost = false;
    writer.wake(now_ns);
    while let Some(action) = writer.next_action() {
        match action {
            Action::Call { id, call } => writer.handle(now_ns, id, perform(store, &call).0),
            Action::Lost(_) => lost = true,
            _ => {}
        }
    }
    lost
}

fn holds(writer: &Writer<PlainForTests>, now_ns: u64) -> bool {
    writer.lease_end_ns().is_some_and(|end_ns| end_ns > now_ns)
}

#[test]
fn holders_with_different_lengths_never_hold_at_once() {
    for (first, second) in [(90, 15), (15, 90), (15, 15)] {
        let store = MemoryStore::default();
        let (mut a, mut b) = (writer(1, first), writer(2, second));
        let (mut died_ns, mut taken_ns) = (None, None);
        for now_ns in (0..900 * SECOND).step_by(STEP as usize) {
            // The first one dies after five minutes; what it holds ends by itself.
            if now_ns < 300 * SECOND {
                run(&mut a, &store, now_ns);
            } else {
                died_ns = died_ns.or(Some(now_ns));
            }
            if now_ns > 2 * SECOND {
                run(&mut b, &store, now_ns);
            }
            assert!(!(holds(&a, now_ns) && holds(&b, now_ns)), "{first} s, {second} s: both at {now_ns} ns");
            taken_ns = taken_ns.or(holds(&b, now_ns).then_some(now_ns));
        }
        let (died_ns, taken_ns) = (died_ns.unwrap(), taken_ns.unwrap());
        let longest = Timing::of(first.max(second) * SECOND).wait_ns();
        assert!(
            (died_ns..=died_ns + 2 * longest).contains(&taken_ns),
            "{first} s, {second} s: {taken_ns} ns"
        );
    }
}

#[test]
fn ones_own_grant_is_not_waited_out() {
    let store = MemoryStore::default();
    let mut first = writer(1, 15);
    // The grant is created; neither its answer nor that of any question about it arrives before the lease is over.
    for now_ns in (0..20 * SECOND).step_by(STEP as usize) {
        first.wake(now_ns);
        while let Some(action) = first.next_action() {
            let Action::Call { id, call } = action else { continue };
            let about_grant = matches!(&call, Call::Get { key } | Call::Create { key, .. } if *key == keys::epoch(Epoch(1)));
            let answer = perform(&store, &call).0;
            let is_lost = about_grant && answer != Answer::Absent;
            first.handle(now_ns, id, if is_lost { Answer::Fault(StoreFaultKind::Unknown) } else { answer });
        }
    }
    assert_eq!(first.epoch(), Epoch(0));
    let now_ns = 20 * SECOND;
    let mut again = writer(1, 15);
    run(&mut again, &store, now_ns);
    assert!(again.is_ready() && again.epoch() == Epoch(2), "the same process waits for itself");
    // Another process does not know that.
    let mut other = writer(2, 15);
    run(&mut other, &store, now_ns);
    assert!(!other.is_ready() && other.epoch() == Epoch(0));
}

/// A store in memory that keeps what it was told of deadlines.
#[derive(Default)]
struct Deadlines(MemoryStore, Mutex<Vec<u64>>);

impl over::Over for Deadlines {
    fn behind(&self) -> &dyn Store {
        &self.0
    }

    fn set_lease_deadline(&self, ms: u64) {
        self.1.lock().unwrap().push(ms);
    }
}

#[test]
fn the_repositorys_length_holds_from_the_next_lease_on() {
    let (store, clock) = (Deadlines::default(), SimClock::default());
    let around = Surroundings { store: &store, clock: &clock };
    let claim = |seconds: u64| {
        let options = WriterOptions { timing: Timing::of(seconds * SECOND), ..WriterOptions::default() };
        Session::claim(around, None, identity(1), PlainForTests, options, [1; 32], |_, _| true).unwrap()
    };
    let grant = |epoch| {
        let (answer, _) = perform(&store, &Call::Get { key: keys::epoch(Epoch(epoch)) });
        let Answer::Body(bytes) = answer else { panic!("{answer:?}") };
        Claim::parse_grant(&bytes).unwrap().counter / SECOND
    };
    let mut first = claim(20);
    for bad in [0, LEASE_NS_MIN - 1, LEASE_NS_MAX + 1] {
        let why = first.commit(vec![Record::LeaseSet { lease_ns: bad }]);
        assert_eq!(why, Err(LogFault::Refused { record: 0, why: Refusal::Lease }));
    }
    first.commit(vec![Record::LeaseSet { lease_ns: 60 * SECOND }]).unwrap();
    // Enough for a checkpoint, which is then all that the next one reads of it.
    for pin in 0..8 {
        first.commit(vec![Record::Pin { pin, node: NodeId(1) }]).unwrap();
    }
    first.release(None).unwrap();
    let second = claim(20);
    assert_eq!(second.view().state.lease_ns, Some(60 * SECOND));
    second.release(None).unwrap();
    assert_eq!((grant(1), grant(2)), (20, 60));
    assert_eq!(
        *store.1.lock().unwrap(),
        [5_000, 5_000, 15_000, 15_000],
        "a quarter, for each call of the lease"
    );
}

/// A store in memory that ignores conditions when it is told to.
#[derive(Default)]
struct Forgetful(MemoryStore, AtomicBool);

impl over::Over for Forgetful {
    fn behind(&self) -> &dyn Store {
        &self.0
    }

    fn put(&self, key: &str, body: &[&[u8]], mode: PutMode) -> Result<(), StoreFault> {
        let mode = if self.1.load(Ordering::Relaxed) { PutMode::Replace } else { mode };
        self.0.put(key, body, mode)
    }
}

#[test]
fn a_store_that_stops_honouring_conditions_is_named_before_anything_is_written() {
    let (store, clock) = (Forgetful::default(), SimClock::default());
    let around = Surroundings { store: &store, clock: &clock };
    let claim = || {
        let options = WriterOptions::default();
        Session::claim(around, None, identity(1), PlainForTests, options, [1; 32], |_, _| true)
    };
    let mut session = claim().unwrap();
    session.commit(vec![Record::Pin { pin: 1, node: NodeId(1) }]).unwrap();
    session.release(None).unwrap();
    store.1.store(true, Ordering::Relaxed);
    let all = || {
        let mut keys = Vec::new();
        store
            .0
            .list("log/", "", &mut |key, _| {
                keys.push(key.to_owned());
                true
            })
            .unwrap();
        keys
    };
    let before = all();
    let fault = claim().err().unwrap();
    assert_eq!(fault, LogFault::Unconditional { epoch: Epoch(2) });
    assert!(!fault.is_transient() && fault.to_string().contains("no longer honours conditional writes"));
    assert_eq!(all(), before);
    // A store that was put right is written to again, under the next epoch.
    store.1.store(false, Ordering::Relaxed);
    assert_eq!(claim().unwrap().view().state.epoch, Epoch(3));
}
