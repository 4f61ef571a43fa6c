//! Retries, the uplink's threads and the fault-injecting wrapper, over a store in memory. Time is stepped; nothing sleeps but
//! the uplink's own waiting.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests, and their helpers")]

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use windlass_agent::store::memory::MemoryStore;
use windlass_agent::store::null::NullStore;
use windlass_agent::store::probe::probe;
use windlass_agent::store::retry::{Client, RetryPolicy};
use windlass_agent::store::uplink::{Answer, Done, Got, Job, Landing, PutHow, Uplink, UplinkSettings};
use windlass_agent::store::{ByteRange, Deletions, PutMode, Store, StoreFault, StoreFaultKind as Kind, over};
use windlass_hal::buf::Pool;
use windlass_hal::clock::Clock;
use windlass_tests::conformance::store::{Extent, WHOLE, run};
use windlass_tests::engines::clock::StepClock;
use windlass_tests::store_fault::{FaultPlan, FaultStore};

fn memory() -> Arc<dyn Store> {
    Arc::new(MemoryStore::default())
}

fn client(store: Arc<dyn Store>, policy: RetryPolicy) -> Client {
    Client::new(store, Arc::new(StepClock::default()), policy, 3)
}

fn rough(seed: u64) -> FaultPlan {
    FaultPlan {
        seed,
        lost_answer_permille: 200,
        lost_call_permille: 200,
        conflict_permille: 100,
        cut_permille: 100,
        list_cut_permille: 500,
        delay_ns_max: 1_000_000,
        ..FaultPlan::default()
    }
}

#[test]
fn memory_and_null_conform() {
    let extent = Extent { large_bytes: 1 << 20, ..Extent::default() };
    run(&memory(), "conf", extent);
    let null: Arc<dyn Store> = Arc::new(NullStore::new(MemoryStore::default()));
    run(&null, "obj/conf", Extent { keeps_bodies: false, ..extent });
    probe(null.as_ref(), &StepClock::default(), 1).unwrap();
}

#[test]
fn a_rough_store_looks_smooth_through_the_client() {
    for seed in 0..50 {
        let inner = memory();
        let rough =
            Arc::new(FaultStore::new(Arc::clone(&inner), Arc::new(StepClock::default()), rough(seed)));
        let client = client(Arc::clone(&rough) as Arc<dyn Store>, RetryPolicy::DATA);
        let mut out = Vec::new();
        for n in 0..20u8 {
            let key = format!("obj/{n:02}");
            client.put_unique(&key, &[&[n; 100], &[n; 1000]]).unwrap();
            out.clear();
            assert_eq!(client.get(&key, ByteRange::Last(50), &mut out), Ok(1100));
            assert_eq!(out, [n; 50]);
        }
        let mut keys = Vec::new();
        client
            .list("obj/", "", &mut |key, _| {
                keys.push(key.to_owned());
                true
            })
            .unwrap();
        assert!(keys.len() == 20 && keys.is_sorted(), "seed {seed}");
        for key in &keys {
            client.delete(key).unwrap();
        }
        assert_eq!(inner.get(&keys[0], WHOLE, &mut out).unwrap_err().kind, Kind::NotFound);
        let (injected, retries) = (rough.injected(), client.counts().retries);
        assert!(injected >= 8 && retries >= 8, "seed {seed}: {injected} faults, {retries} retries");
    }
}

#[test]
fn the_same_seed_meets_the_same_faults() {
    let trace = |seed| {
        let store = FaultStore::new(memory(), Arc::new(StepClock::default()), rough(seed));
        let put = |n| store.put(&format!("k{n}"), &[b"x"], PutMode::Replace).map_err(|fault| fault.kind);
        (0..200).map(put).collect::<Vec<_>>()
    };
    assert_eq!(trace(1), trace(1));
    assert_ne!(trace(1), trace(2));
}

#[test]
fn full_and_denied_come_when_planned_and_end_the_call() {
    let clock: Arc<dyn Clock> = Arc::new(StepClock::default());
    let plan = FaultPlan { full_after_bytes: 100, ..FaultPlan::default() };
    let store = Arc::new(FaultStore::new(memory(), clock, plan));
    let client = client(Arc::clone(&store) as Arc<dyn Store>, RetryPolicy::DATA);
    client.put_unique("a", &[&[0; 100]]).unwrap();
    assert_eq!(client.put_unique("b", &[&[0; 1]]).unwrap_err().kind, Kind::Full);
    store.set(FaultPlan { denied_after_calls: 2, ..FaultPlan::default() });
    client.put_unique("b", &[b"x"]).unwrap();
    client.put_unique("c", &[b"x"]).unwrap();
    assert_eq!(client.put_unique("d", &[b"x"]).unwrap_err().kind, Kind::Denied);
    assert_eq!(client.counts().retries, 0);
    store.switch_off(true);
    client.put_unique("d", &[b"x"]).unwrap();
}

#[test]
fn counters_count_every_attempt() {
    let client = client(memory(), RetryPolicy::DATA);
    client.put_unique("a", &[&[0; 10], &[0; 5]]).unwrap();
    client.get("a", ByteRange::Last(4), &mut Vec::new()).unwrap();
    let _ = client.get("none", WHOLE, &mut Vec::new());
    client.list("", "", &mut |_, _| true).unwrap();
    client.delete("a").unwrap();
    let counts = client.counts();
    assert_eq!((counts.put, counts.get, counts.list, counts.delete), (1, 2, 1, 1));
    assert_eq!((counts.up_bytes, counts.down_bytes), (15, 4));
    assert_eq!((counts.retries, counts.faults, counts.requests()), (0, 0, 5));
}

/// Wake-ups as a loop would see them.
#[derive(Default)]
struct Bell {
    rung: Mutex<usize>,
    heard: Condvar,
}

fn bell() -> (Arc<Bell>, Arc<dyn Fn() + Send + Sync>) {
    let bell = Arc::new(Bell::default());
    let ring = Arc::clone(&bell);
    let wake = Arc::new(move || {
        *ring.rung.lock().unwrap() += 1;
        ring.heard.notify_all();
    });
    (bell, wake)
}

fn put(tag: u64, key: &str, body: &[u8]) -> Job {
    Job::Put { tag, key: key.to_owned(), how: PutHow::Unique, body: Arc::new(body.to_vec()) }
}

fn wait(uplink: &Uplink) -> Done {
    uplink.wait_done(Duration::from_secs(30)).expect("a completion")
}

#[test]
fn every_accepted_job_is_answered_once_and_the_bell_rings_for_each() {
    let (bell, wake) = bell();
    let store = FaultStore::new(memory(), Arc::new(StepClock::default()), rough(9));
    let client = Arc::new(client(Arc::new(store), RetryPolicy::DATA));
    let uplink = Uplink::start(client, UplinkSettings::default(), wake).unwrap();
    let mut answered = BTreeSet::new();
    let mut refused = 0;
    let mut take = |done: Done| {
        assert!(matches!(&done.answer, Answer::Put { result: Ok(()), .. }), "{done:?}");
        assert!(answered.insert(done.tag), "{} twice", done.tag);
    };
    for tag in 0..1000 {
        let mut job = put(tag, &format!("obj/{tag}"), &[1; 100]);
        while let Err(back) = uplink.submit(job) {
            refused += 1;
            assert!(uplink.in_flight() <= UplinkSettings::default().in_flight_max);
            job = back;
            take(wait(&uplink));
        }
    }
    while uplink.in_flight() > 0 {
        take(wait(&uplink));
    }
    assert_eq!(answered.len(), 1000);
    assert!(refused > 0, "the queue is bounded");
    assert!(uplink.take_done().is_none() && uplink.room() == 16);
    assert!(uplink.shutdown(false).is_empty());
    assert_eq!(*bell.rung.lock().unwrap(), 1000);
}

#[test]
fn gets_land_in_buffers_and_vectors_and_failures_give_them_back() {
    let store = memory();
    let body: Vec<u8> = (0..10_000u32).map(|n| n as u8).collect();
    store.put("a", &[&body], PutMode::Replace).unwrap();
    let client = Arc::new(client(store, RetryPolicy::DATA));
    let uplink =
        Uplink::start(client, UplinkSettings { threads: 1, ..UplinkSettings::default() }, bell().1).unwrap();
    let pool = Pool::new(1, 8192);
    let get = |key: &str, range, into| {
        let job = Job::Get { tag: 5, key: key.to_owned(), range, into };
        assert!(uplink.submit(job).is_ok());
        match wait(&uplink) {
            Done { tag: 5, answer: Answer::Get { into, result } } => (into, result),
            other => panic!("{other:?}"),
        }
    };
    let buf = |range| match get("a", range, Landing::Buf(pool.take().unwrap())) {
        (Landing::Buf(buf), result) => (buf, result),
        (other, _) => panic!("{other:?}"),
    };
    let (bytes, result) = buf(ByteRange::From { offset: 100, len: 8192 });
    assert_eq!(result, Ok(Got { len: 8192, object_bytes: 10_000 }));
    assert!(bytes[..] == body[100..8292]);
    drop(bytes);
    let (bytes, result) = buf(ByteRange::Last(10));
    assert_eq!(result, Ok(Got { len: 10, object_bytes: 10_000 }));
    assert!(bytes[..10] == body[9_990..]);
    drop(bytes);
    for too_large in [WHOLE, ByteRange::Last(8193), ByteRange::From { offset: 0, len: 8193 }] {
        assert_eq!(buf(too_large).1.unwrap_err().kind, Kind::Rejected, "{too_large:?}");
    }
    assert_eq!(pool.free(), 1);
    let (into, result) = get("none", WHOLE, Landing::Vec(b"kept".to_vec()));
    assert_eq!(result.unwrap_err().kind, Kind::NotFound);
    assert!(matches!(into, Landing::Vec(kept) if kept == b"kept"));
    let (into, result) = get("a", WHOLE, Landing::Vec(b"kept".to_vec()));
    assert_eq!(result, Ok(Got { len: 10_000, object_bytes: 10_000 }));
    assert!(matches!(into, Landing::Vec(all) if all[4..] == body[..]));
}

#[test]
fn lists_are_limited_and_deletes_happen() {
    let store = memory();
    for n in 0..10 {
        store.put(&format!("k/{n}"), &[b"x"], PutMode::Replace).unwrap();
    }
    let client = Arc::new(client(store, RetryPolicy::DATA));
    let uplink =
        Uplink::start(client, UplinkSettings { threads: 1, ..UplinkSettings::default() }, bell().1).unwrap();
    let list = |after: &str, limit| {
        let job = Job::List { tag: 1, prefix: "k/".into(), after: after.into(), limit };
        assert!(uplink.submit(job).is_ok());
        match wait(&uplink).answer {
            Answer::List { result } => result.unwrap().into_iter().map(|(key, _)| key).collect::<Vec<_>>(),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(list("", 3), ["k/0", "k/1", "k/2"]);
    assert_eq!(list("k/7", 3), ["k/8", "k/9"]);
    assert_eq!(list("", 0), Vec::<String>::new());
    assert!(uplink.submit(Job::Delete { tag: 2, key: "k/8".into() }).is_ok());
    assert!(matches!(wait(&uplink).answer, Answer::Delete { result: Ok(()) }));
    assert_eq!(list("k/7", 3), ["k/9"]);
}

/// A store whose PUTs wait until they are let go.
struct Gate {
    inner: Arc<dyn Store>,
    open: Mutex<bool>,
    moved: Condvar,
    waiting: AtomicUsize,
}

impl over::Over for Gate {
    fn behind(&self) -> &dyn Store {
        &*self.inner
    }

    fn describe(&self) -> String {
        "gate".into()
    }

    fn put(&self, key: &str, body: &[&[u8]], mode: PutMode) -> Result<(), StoreFault> {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        self.moved.notify_all();
        drop(self.moved.wait_while(self.open.lock().unwrap(), |open| !*open).unwrap());
        self.inner.put(key, body, mode)
    }
}

#[test]
fn shutdown_finishes_what_is_under_way_and_refuses_the_rest() {
    let gate = Arc::new(Gate {
        inner: memory(),
        open: Mutex::new(false),
        moved: Condvar::new(),
        waiting: AtomicUsize::new(0),
    });
    let client = Arc::new(client(Arc::clone(&gate) as Arc<dyn Store>, RetryPolicy::DATA));
    let settings = UplinkSettings { threads: 2, in_flight_max: 5, ..UplinkSettings::default() };
    let uplink = Uplink::start(client, settings, bell().1).unwrap();
    for tag in 0..5 {
        assert!(uplink.submit(put(tag, &format!("k/{tag}"), b"x")).is_ok());
    }
    assert!(uplink.submit(put(5, "k/5", b"x")).is_err());
    let guard = gate.open.lock().unwrap();
    drop(gate.moved.wait_while(guard, |_| gate.waiting.load(Ordering::SeqCst) < 2).unwrap());
    let opener = Arc::clone(&gate);
    // Opens once shutdown has begun, or a little before; both orders are right.
    let thread = std::thread::spawn(move || {
        *opener.open.lock().unwrap() = true;
        opener.moved.notify_all();
    });
    let mut done = uplink.shutdown(true);
    thread.join().unwrap();
    done.sort_by_key(|done| done.tag);
    assert_eq!(done.iter().map(|done| done.tag).collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
    let ok = |done: &&Done| matches!(done.answer, Answer::Put { result: Ok(()), .. });
    assert!(done.iter().filter(ok).count() >= 2);
    for done in done.iter().filter(|done| !ok(done)) {
        assert!(
            matches!(&done.answer, Answer::Put { result: Err(f), .. } if f.kind == Kind::Rejected),
            "{done:?}"
        );
    }
}

/// A store that deletes up to three keys at once: of its first answers one says nothing clear of a key, one nothing at all.
struct Three {
    inner: Arc<dyn Store>,
    asked: AtomicUsize,
    /// The server has no such request after all.
    has_none: bool,
}

impl over::Over for Three {
    fn behind(&self) -> &dyn Store {
        &*self.inner
    }

    fn delete_keys_max(&self) -> usize {
        3
    }

    fn delete_all(&self, keys: &[&str]) -> Result<Deletions, StoreFault> {
        let fault = |kind| StoreFault::new(kind, "DELETE", keys[0], "as the test says");
        match self.asked.fetch_add(1, Ordering::SeqCst) {
            _ if self.has_none => return Err(fault(Kind::Unsupported)),
            0 => return Err(fault(Kind::Unknown)),
            _ => {}
        }
        assert!((2..=3).contains(&keys.len()), "{keys:?}");
        let fate = |key: &&str| match *key {
            "k/1" => Err(fault(Kind::Unknown)),
            "k/4" => Err(fault(Kind::Denied)),
            key => self.inner.delete(key),
        };
        Ok(keys.iter().map(fate).collect())
    }
}

#[test]
fn many_keys_are_deleted_with_few_requests_and_each_has_its_own_answer() {
    for (has_none, requests) in [(false, 5), (true, 8)] {
        let three = Arc::new(Three { inner: memory(), asked: AtomicUsize::new(0), has_none });
        let client = client(Arc::clone(&three) as Arc<dyn Store>, RetryPolicy::DATA);
        let keys: Vec<String> = (0..7).map(|at| format!("k/{at}")).collect();
        for key in &keys {
            client.put_unique(key, &[b"x"]).unwrap();
        }
        let names: Vec<&str> = keys.iter().map(String::as_str).collect();
        let answers = client.delete_all(&names);
        let refused: Vec<usize> = (0..7).filter(|at| answers[*at].is_err()).collect();
        assert_eq!(refused, if has_none { vec![] } else { vec![4] });
        let mut left = Vec::new();
        let mut each = |key: &str, _| {
            left.push(key.to_owned());
            true
        };
        client.list("k/", "", &mut each).unwrap();
        assert_eq!(left, if has_none { vec![] } else { vec!["k/4"] });
        // Twice the first three, the next three, the last one alone, and what was not clear. Or: once, and then each by itself.
        assert_eq!(client.counts().delete, requests);
        assert_eq!(three.asked.load(Ordering::SeqCst), if has_none { 1 } else { 3 });
    }
}

#[test]
fn stop_ends_a_pause_in_the_middle() {
    let plan = FaultPlan { lost_call_permille: 1000, ..FaultPlan::default() };
    let store = Arc::new(FaultStore::new(memory(), Arc::new(StepClock::default()), plan));
    let client = client(store, RetryPolicy::DATA);
    client.stop();
    let fault = client.get("a", WHOLE, &mut Vec::new()).unwrap_err();
    assert_eq!((fault.kind, client.counts().get), (Kind::Unknown, 1));
}
