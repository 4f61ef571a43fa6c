//! What every `Store` must do, as one suite: bytes, ranges, create-only under a race, listing order, faults by kind.
//!
//! Each call of [`run`] works below a prefix of its own and deletes what it wrote. Source: the trait's contract in
//! `agent/src/store/mod.rs`; `agent/doc/commit-log.md`, What a store must do.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a suite: a broken store ends the test")]

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Barrier};

use windlass_agent::store::retry::{Client, RetryPolicy};
use windlass_agent::store::{ByteRange, Deletions, PutMode, Store, StoreFault, StoreFaultKind, over};
use windlass_hal::clock::SystemClock;

/// All of an object, whatever a test has put there.
pub const WHOLE: ByteRange = ByteRange::Whole(256 << 20);

/// How much of the suite a store gets.
#[derive(Clone, Copy, Debug)]
pub struct Extent {
    /// Keys in one long listing.
    pub long_list_keys: usize,
    /// Bytes of the largest body.
    pub large_bytes: usize,
    /// Racing threads.
    pub racers: usize,
    /// Keys raced for.
    pub races: usize,
    /// Whether `obj/` bodies can be read back (not on `null://`).
    pub keeps_bodies: bool,
}

impl Default for Extent {
    fn default() -> Extent {
        Extent {
            long_list_keys: 2100,
            large_bytes: (16 << 20) + 4097,
            racers: 8,
            races: 10,
            keeps_bodies: true,
        }
    }
}

/// Runs everything on `store` below `prefix` (a valid key that nothing else uses).
pub fn run(store: &Arc<dyn Store>, prefix: &str, extent: Extent) {
    let key = |name: &str| format!("{prefix}/{name}");
    bytes_and_ranges(store.as_ref(), &key);
    create_only(store.as_ref(), &key);
    absent_and_deleted(store.as_ref(), &key);
    many_deletions(store, &key);
    names(store.as_ref(), &key);
    listing(store.as_ref(), prefix);
    long_listing(store, prefix, extent.long_list_keys);
    races(store, prefix, extent);
    if extent.keeps_bodies {
        large_body(store.as_ref(), &key("large"), extent.large_bytes);
    }
    let mut left = Vec::new();
    store
        .list(&format!("{prefix}/"), "", &mut |key, _| {
            left.push(key.to_owned());
            true
        })
        .unwrap();
    for key in &left {
        store.delete(key).unwrap();
    }
}

/// The same for a server in a process of its own, which may now and then close a connection instead of answering: [`HICCUPS_MAX`] such calls are
/// made again, as `store::retry` does.
pub fn run_server(store: &Arc<dyn Store>, prefix: &str, extent: Extent) {
    let patient = Patient { behind: Arc::clone(store), hiccups: AtomicU32::new(0) };
    let patient: Arc<dyn Store> = Arc::new(patient);
    run(&patient, prefix, extent);
}

/// Calls without an answer in one run of the suite, of about 6,000: more is a fault of ours or of the server.
const HICCUPS_MAX: u32 = 4;

struct Patient {
    behind: Arc<dyn Store>,
    hiccups: AtomicU32,
}

impl Patient {
    /// Whether to ask again after this answer.
    fn again<T>(&self, answer: &Result<T, StoreFault>) -> bool {
        let Some(fault) = answer.as_ref().err().filter(|fault| fault.kind == StoreFaultKind::Unknown) else {
            return false;
        };
        eprintln!("a call is made again: {fault}");
        self.hiccups.fetch_add(1, Ordering::Relaxed) < HICCUPS_MAX
    }

    fn repeat<T>(&self, mut call: impl FnMut() -> Result<T, StoreFault>) -> Result<T, StoreFault> {
        loop {
            let answer = call();
            if !self.again(&answer) {
                return answer;
            }
        }
    }
}

impl over::Over for Patient {
    fn behind(&self) -> &dyn Store {
        &*self.behind
    }

    fn put(&self, key: &str, body: &[&[u8]], mode: PutMode) -> Result<(), StoreFault> {
        loop {
            let answer = self.behind.put(key, body, mode);
            if !self.again(&answer) {
                return answer;
            }
            // Only what is stored tells whether an unanswered create was applied.
            let mut stored = Vec::new();
            match self.repeat(|| self.behind.get(key, WHOLE, &mut stored)) {
                Ok(_) if stored == body.concat() => return Ok(()),
                Ok(_) if mode == PutMode::Replace => {}
                Ok(_) => return Err(StoreFault::new(StoreFaultKind::Exists, "PUT", key, "read back")),
                Err(fault) if fault.kind == StoreFaultKind::NotFound => {}
                Err(fault) => return Err(fault),
            }
        }
    }

    fn get(&self, key: &str, range: ByteRange, out: &mut Vec<u8>) -> Result<u64, StoreFault> {
        self.repeat(|| self.behind.get(key, range, out))
    }

    fn list(
        &self,
        prefix: &str,
        after: &str,
        each: &mut dyn FnMut(&str, u64) -> bool,
    ) -> Result<(), StoreFault> {
        // What the caller has got already comes once.
        let mut last = after.to_owned();
        self.repeat(|| {
            self.behind.list(prefix, &last.clone(), &mut |key, size| {
                last = key.to_owned();
                each(key, size)
            })
        })
    }

    fn delete(&self, key: &str) -> Result<(), StoreFault> {
        self.repeat(|| self.behind.delete(key))
    }

    fn delete_keys_max(&self) -> usize {
        self.behind.delete_keys_max()
    }

    fn delete_all(&self, keys: &[&str]) -> Result<Deletions, StoreFault> {
        self.repeat(|| self.behind.delete_all(keys))
    }
}

fn kind<T>(result: Result<T, StoreFault>) -> Option<StoreFaultKind> {
    result.err().map(|fault| fault.kind)
}

fn get(store: &dyn Store, key: &str, range: ByteRange) -> (Vec<u8>, u64) {
    let mut out = b"before".to_vec();
    let size = store.get(key, range, &mut out).unwrap();
    assert_eq!(&out[..6], b"before", "GET appends");
    (out.split_off(6), size)
}

/// All keys below `prefix` greater than `after`, with sizes.
pub fn keys(store: &dyn Store, prefix: &str, after: &str) -> Vec<(String, u64)> {
    let mut found = Vec::new();
    store
        .list(prefix, after, &mut |key, size| {
            found.push((key.to_owned(), size));
            true
        })
        .unwrap();
    found
}

fn bytes_and_ranges(store: &dyn Store, key: &dyn Fn(&str) -> String) {
    let a = key("a");
    store.put(&a, &[b"01", b"", b"234", b"56789"], PutMode::Replace).unwrap();
    assert_eq!(get(store, &a, WHOLE), (b"0123456789".to_vec(), 10));
    assert_eq!(get(store, &a, ByteRange::From { offset: 3, len: 4 }), (b"3456".to_vec(), 10));
    assert_eq!(get(store, &a, ByteRange::From { offset: 9, len: 1 }), (b"9".to_vec(), 10));
    assert_eq!(get(store, &a, ByteRange::From { offset: 8, len: 100 }), (b"89".to_vec(), 10));
    assert_eq!(get(store, &a, ByteRange::From { offset: 10, len: 1 }), (Vec::new(), 10));
    assert_eq!(get(store, &a, ByteRange::From { offset: 1000, len: 1 }), (Vec::new(), 10));
    assert_eq!(get(store, &a, ByteRange::Last(4)), (b"6789".to_vec(), 10));
    assert_eq!(get(store, &a, ByteRange::Last(100)), (b"0123456789".to_vec(), 10));
    store.put(&a, &[b"shorter"], PutMode::Replace).unwrap();
    assert_eq!(get(store, &a, WHOLE), (b"shorter".to_vec(), 7));
    assert_eq!(get(store, &a, ByteRange::Whole(7)), (b"shorter".to_vec(), 7));
    let mut out = b"kept".to_vec();
    assert_eq!(kind(store.get(&a, ByteRange::Whole(6), &mut out)), Some(StoreFaultKind::TooLong));
    assert_eq!(out, b"kept", "a larger object is not read");
    let empty = key("empty");
    store.put(&empty, &[], PutMode::Replace).unwrap();
    assert_eq!(get(store, &empty, WHOLE), (Vec::new(), 0));
    assert_eq!(get(store, &empty, ByteRange::Last(5)), (Vec::new(), 0));
    assert_eq!(get(store, &empty, ByteRange::From { offset: 0, len: 5 }), (Vec::new(), 0));
}

fn create_only(store: &dyn Store, key: &dyn Fn(&str) -> String) {
    let a = key("once");
    store.put(&a, &[b"first"], PutMode::CreateOnly).unwrap();
    assert_eq!(kind(store.put(&a, &[b"second"], PutMode::CreateOnly)), Some(StoreFaultKind::Exists));
    assert_eq!(get(store, &a, WHOLE).0, b"first");
    store.delete(&a).unwrap();
    store.put(&a, &[b"third"], PutMode::CreateOnly).unwrap();
    assert_eq!(get(store, &a, WHOLE).0, b"third");
}

fn absent_and_deleted(store: &dyn Store, key: &dyn Fn(&str) -> String) {
    let a = key("absent/deep/down");
    let mut out = b"kept".to_vec();
    for range in [WHOLE, ByteRange::From { offset: 5, len: 5 }, ByteRange::Last(5)] {
        assert_eq!(kind(store.get(&a, range, &mut out)), Some(StoreFaultKind::NotFound));
        assert_eq!(out, b"kept");
    }
    store.delete(&a).unwrap();
    store.put(&a, &[b"x"], PutMode::CreateOnly).unwrap();
    store.delete(&a).unwrap();
    assert_eq!(kind(store.get(&a, WHOLE, &mut out)), Some(StoreFaultKind::NotFound));
    assert_eq!(keys(store, &a, ""), []);
}

/// Many keys at once, by the store's own call or key by key: absent ones are gone, and others stay.
fn many_deletions(store: &Arc<dyn Store>, key: &dyn Fn(&str) -> String) {
    let all: Vec<String> = (0..300).map(|at| key(&format!("many/{at}"))).collect();
    let stays = key("many-stays");
    for at in all.iter().skip(5).step_by(40).chain([&stays]) {
        store.put(at, &[b"x"], PutMode::Replace).unwrap();
    }
    let client = Client::new(Arc::clone(store), Arc::new(SystemClock), RetryPolicy::ONCE, 1);
    let names: Vec<&str> = all.iter().map(String::as_str).collect();
    let answers = client.delete_all(&names);
    assert_eq!(answers, vec![Ok(()); all.len()]);
    let requests = all.len().div_ceil(store.delete_keys_max());
    assert_eq!(client.counts().delete, requests as u64, "the server has the call that the store says it has");
    assert_eq!(keys(store.as_ref(), &key("many"), ""), [(stays.clone(), 1)]);
    assert_eq!(client.delete_all(&[]), []);
    // One that may not be named does not hide what became of the others, whether it is asked for by itself or among them.
    let one = key("many/one");
    store.put(&one, &[b"x"], PutMode::Replace).unwrap();
    let bad = key("many/..");
    let answers = client.delete_all(&[&one, &bad]);
    assert_eq!(answers[0], Ok(()));
    assert_eq!(answers[1].as_ref().err().map(|fault| fault.kind), Some(StoreFaultKind::Rejected));
    assert_eq!(keys(store.as_ref(), &key("many"), ""), [(stays.clone(), 1)]);
    store.delete(&stays).unwrap();
}

fn names(store: &dyn Store, key: &dyn Fn(&str) -> String) {
    for bad in ["", "..", "/x", "x/", "x//y", "X", "x y", ".tmp/x"] {
        let bad = if bad.is_empty() { String::new() } else { key(bad) };
        assert_eq!(kind(store.put(&bad, &[b"x"], PutMode::Replace)), Some(StoreFaultKind::Rejected), "{bad}");
        let mut out = Vec::new();
        assert_eq!(kind(store.get(&bad, WHOLE, &mut out)), Some(StoreFaultKind::Rejected), "{bad}");
        assert_eq!(kind(store.delete(&bad)), Some(StoreFaultKind::Rejected), "{bad}");
    }
    assert_eq!(kind(store.list("a/../", "", &mut |_, _| true)), Some(StoreFaultKind::Rejected));
}

fn listing(store: &dyn Store, prefix: &str) {
    // '-' sorts before '/', digits and letters after it: a walk by components gets this wrong.
    let names = ["a-b/x", "a-b0", "a/0/z", "a/x", "a0/x", "a_", "b", "b-", "ba/x", "c/d/e/f"];
    let base = format!("{prefix}/list");
    let full: Vec<String> = names.iter().map(|name| format!("{base}/{name}")).collect();
    assert!(full.is_sorted());
    for (n, key) in full.iter().enumerate().rev() {
        store.put(key, &[&vec![b'x'; n]], PutMode::Replace).unwrap();
    }
    let all: Vec<(String, u64)> = full.iter().cloned().zip(0..).collect();
    assert_eq!(keys(store, &format!("{base}/"), ""), all);
    for (n, key) in full.iter().enumerate() {
        assert_eq!(keys(store, &format!("{base}/"), key), all[n + 1..], "after {key}");
    }
    assert_eq!(keys(store, &format!("{base}/"), &format!("{base}/a/1")), all[3..]);
    assert_eq!(keys(store, &format!("{base}/"), &format!("{base}/a/")), all[2..]);
    assert_eq!(keys(store, &format!("{base}/"), "zzz"), []);
    assert_eq!(keys(store, &format!("{base}/a"), ""), all[..6]);
    assert_eq!(keys(store, &format!("{base}/a/"), ""), all[2..4]);
    assert_eq!(keys(store, &format!("{base}/a/x"), ""), all[3..4]);
    assert_eq!(keys(store, &format!("{base}/none"), ""), []);
    let mut seen = 0;
    store
        .list(&format!("{base}/"), "", &mut |_, _| {
            seen += 1;
            seen < 3
        })
        .unwrap();
    assert_eq!(seen, 3, "a listing ends when its caller says so");
    store.delete(&full[6]).unwrap();
    assert_eq!(keys(store, &format!("{base}/"), "").len(), names.len() - 1);
}

/// More keys than one page of any store.
fn long_listing(store: &Arc<dyn Store>, prefix: &str, count: usize) {
    let name = |n: usize| format!("{prefix}/long/{:03}/{n:08}", n % 3);
    std::thread::scope(|scope| {
        for lane in 0..4 {
            scope.spawn(move || {
                for n in (lane..count).step_by(4) {
                    store.put(&name(n), &[b"x"], PutMode::CreateOnly).unwrap();
                }
            });
        }
    });
    let mut expected: Vec<(String, u64)> = (0..count).map(|n| (name(n), 1)).collect();
    expected.sort();
    assert!(keys(store.as_ref(), &format!("{prefix}/long/"), "") == expected);
    let middle = &expected[count / 2].0;
    assert!(keys(store.as_ref(), &format!("{prefix}/long/"), middle) == expected[count / 2 + 1..]);
    std::thread::scope(|scope| {
        for lane in 0..4 {
            scope.spawn(move || {
                for n in (lane..count).step_by(4) {
                    store.delete(&name(n)).unwrap();
                }
            });
        }
    });
    assert_eq!(keys(store.as_ref(), &format!("{prefix}/long/"), ""), []);
}

fn races(store: &Arc<dyn Store>, prefix: &str, extent: Extent) {
    for race in 0..extent.races {
        let key = format!("{prefix}/race/{race}");
        let barrier = Barrier::new(extent.racers);
        let winners: Vec<usize> = std::thread::scope(|scope| {
            let racers: Vec<_> = (0..extent.racers)
                .map(|racer| {
                    let (key, barrier) = (&key, &barrier);
                    scope.spawn(move || {
                        let body = format!("racer {racer}");
                        barrier.wait();
                        match store.put(key, &[body.as_bytes()], PutMode::CreateOnly) {
                            Ok(()) => Some(racer),
                            Err(fault) if fault.kind == StoreFaultKind::Exists => None,
                            Err(fault) => unreachable!("{fault}"),
                        }
                    })
                })
                .collect();
            racers.into_iter().filter_map(|racer| racer.join().unwrap()).collect()
        });
        assert_eq!(winners.len(), 1, "winners of {key}: {winners:?}");
        assert_eq!(get(store.as_ref(), &key, WHOLE).0, format!("racer {}", winners[0]).as_bytes());
    }
}

fn large_body(store: &dyn Store, key: &str, bytes: usize) {
    let body: Vec<u8> =
        (0..bytes as u64).map(|n| (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect();
    let (head, rest) = body.split_at(bytes / 3);
    let (middle, tail) = rest.split_at(4096);
    store.put(key, &[head, middle, tail], PutMode::CreateOnly).unwrap();
    let (found, size) = get(store, key, WHOLE);
    assert!(found == body && size == bytes as u64);
    let (piece, size) = get(store, key, ByteRange::From { offset: bytes as u64 / 2, len: 100_000 });
    assert!(piece == body[bytes / 2..bytes / 2 + 100_000] && size == bytes as u64);
    let (piece, _) = get(store, key, ByteRange::Last(70_000));
    assert!(piece == body[bytes - 70_000..]);
}
