//! What a store must prove before it is written to (C6): that a create-only PUT has one winner, and that a write
//! is seen at once.
//!
//! | check | what |
//! |---|---|
//! | `Versioning` | asks; a refusal of the next checks names it when the bucket keeps versions |
//! | `Race` | [`RACERS`] concurrent creates on each of [`RACES`] keys: exactly one success, the rest `Exists`, the winner's bytes stay |
//! | `CreateOnExisting` | fails with `Exists` and changes nothing |
//! | `Overwrite` | a plain PUT is seen by the next GET, whole, ranged and from the end |
//! | `Listing` | a LIST sees all keys just written, ascending, and none just deleted |
//! | `Delete` | a GET after it answers `NotFound` |
//!
//! A store whose log is elsewhere (`split`) needs no conditions: [`probe_plain`] leaves out `Race` and `CreateOnExisting`.
//!
//! Each racer is a thread with a call of its own under way, hence a connection of its own. Racers go in turn over all ways to the store: the
//! addresses that the name of its server resolves to ([`Store::ways`]), and the further servers that were named. What one way has written,
//! the others must see. An answer that decides nothing (409, 5xx) makes a race be run again under another name; 400 and 501 refuse the store.
//!
//! Invariants: uses keys that begin with `probe/<nonce>-` only and deletes them, whatever came out. Does not: prove anything for all
//! time; it is run at every start as a writer ([`probe_again`]: about 60 round trips, nothing left behind).
//! Source: `agent/doc/commit-log.md`, C6 and What stores get wrong.

use std::fmt;
use std::sync::{Arc, Barrier, Mutex, PoisonError};

use windlass_hal::clock::Clock;

use super::{ByteRange, PutMode, Store, StoreFault, StoreFaultKind, Versioning};

/// Concurrent creates on one key.
pub const RACERS: usize = 8;
/// Keys raced for.
pub const RACES: usize = 5;
/// Names tried for one race whose outcome an unanswered request left open.
pub const RACE_ATTEMPTS_MAX: usize = 3;

/// All of an object that the probe has written: they have at most 100 bytes.
const WHOLE: ByteRange = ByteRange::Whole(4096);

/// Names that a LIST must give in this order: with a folder among them.
const LISTED: [&str; 4] = ["a-", "a/b", "a0", "b"];
/// The same without one: a directory would keep the folder.
const LISTED_FLAT: [&str; 4] = ["a-", "a0", "a_b", "b"];

/// One thing that is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Check {
    /// Whether the bucket keeps versions.
    Versioning,
    /// Concurrent creates have one winner.
    Race,
    /// Create on an existing key.
    CreateOnExisting,
    /// Replace, then read.
    Overwrite,
    /// List after writes and deletes.
    Listing,
    /// Read after a delete.
    Delete,
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Check::Versioning => "bucket versioning",
            Check::Race => "concurrent creates of one key have one winner",
            Check::CreateOnExisting => "a create of an existing key fails",
            Check::Overwrite => "a read sees the last write",
            Check::Listing => "a listing sees the last writes",
            Check::Delete => "a read after a delete finds nothing",
        })
    }
}

/// What the store did instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wrong {
    /// Creates of one key that succeeded.
    Winners(usize),
    /// The key holds other bytes than the successful create's.
    LoserOverwrote,
    /// A create of an existing key succeeded: conditions are ignored.
    CreateIgnored,
    /// A GET returned other bytes than were written.
    StaleRead,
    /// A LIST lacked keys, had too many, or was out of order: (expected, found).
    Listed(usize, usize),
    /// A deleted key was still there.
    NotDeleted,
    /// A request failed in a way that has nothing to do with the check.
    Fault(StoreFault),
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Wrong::Winners(n) => write!(f, "{n} of {RACERS} succeeded"),
            Wrong::LoserOverwrote => write!(f, "a refused create changed the object"),
            Wrong::CreateIgnored => write!(f, "it succeeded; the store ignores If-None-Match"),
            Wrong::StaleRead => write!(f, "it saw other bytes"),
            Wrong::Listed(expected, found) => {
                write!(f, "{found} keys listed, {expected} expected in ascending order")
            }
            Wrong::NotDeleted => write!(f, "the object is still there"),
            Wrong::Fault(fault) => fault.fmt(f),
        }
    }
}

/// The store must not be written to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeFault {
    /// Which check failed.
    pub check: Check,
    /// How it failed.
    pub wrong: Wrong,
    /// Whether the bucket keeps versions, which is a likely reason.
    pub versioning: Versioning,
    /// Ways to the store that were raced over: several that do not agree are another.
    pub ways: usize,
}

impl fmt::Display for ProbeFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the store fails the check \"{}\": {}", self.check, self.wrong)?;
        if matches!(self.versioning, Versioning::On | Versioning::Suspended)
            && !matches!(self.wrong, Wrong::Fault(_))
        {
            write!(f, "; the bucket keeps versions, under which some servers ignore conditions: use a new")?;
            write!(f, " bucket without versioning")?;
        }
        if self.ways > 1 && !matches!(self.wrong, Wrong::Fault(_)) {
            write!(f, "; {} addresses or servers were asked, which may not agree: name one", self.ways)?;
        }
        Ok(())
    }
}

impl std::error::Error for ProbeFault {}

impl ProbeFault {
    /// Whether the store only lacks what a log store of its own would give.
    pub fn is_about_conditions(&self) -> bool {
        match &self.wrong {
            Wrong::Winners(_) | Wrong::LoserOverwrote | Wrong::CreateIgnored => true,
            Wrong::Fault(fault) => {
                fault.kind == StoreFaultKind::Unsupported
                    && matches!(self.check, Check::Race | Check::CreateOnExisting)
            }
            Wrong::StaleRead | Wrong::Listed(..) | Wrong::NotDeleted => false,
        }
    }
}

/// What a passed probe saw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Checks in the order they ran, and the time each took in nanoseconds.
    pub checks: Vec<(Check, u64)>,
    /// Whether the bucket keeps versions. Conditions work here nevertheless, but deletes free no space.
    pub versioning: Versioning,
    /// Races that were run again under another name because a request went unanswered.
    pub races_repeated: usize,
    /// Ways to the store that were raced over: addresses and named servers; 1 when there was one.
    pub ways: usize,
}

/// Runs all checks. `nonce` is a random number; two probes with the same one disturb each other.
///
/// # Errors
/// The first check that fails. Its keys are deleted as far as the store allows.
pub fn probe(store: &dyn Store, clock: &dyn Clock, nonce: u64) -> Result<Report, ProbeFault> {
    probe_over(store, &[], clock, nonce)
}

/// The same over further servers of the same store.
///
/// # Errors
/// The first check that fails. Its keys are deleted as far as the store allows.
pub fn probe_over(
    store: &dyn Store,
    others: &[Arc<dyn Store>],
    clock: &dyn Clock,
    nonce: u64,
) -> Result<Report, ProbeFault> {
    probe_for(store, others, clock, nonce, PutMode::CreateOnly, &LISTED)
}

/// The same at each start of a process that writes, and without a trace: the order of names in folders was seen to when the repository was
/// made.
///
/// # Errors
/// The first check that fails. Its keys are deleted as far as the store allows.
pub fn probe_again(store: &dyn Store, clock: &dyn Clock, nonce: u64) -> Result<Report, ProbeFault> {
    probe_for(store, &[], clock, nonce, PutMode::CreateOnly, &LISTED_FLAT)
}

/// Runs the checks that need no condition: for a store of objects whose log is elsewhere.
///
/// # Errors
/// The first check that fails. Its keys are deleted as far as the store allows.
pub fn probe_plain(store: &dyn Store, clock: &dyn Clock, nonce: u64) -> Result<Report, ProbeFault> {
    probe_for(store, &[], clock, nonce, PutMode::Replace, &LISTED_FLAT)
}

fn probe_for(
    store: &dyn Store,
    others: &[Arc<dyn Store>],
    clock: &dyn Clock,
    nonce: u64,
    create: PutMode,
    listed: &[&str],
) -> Result<Report, ProbeFault> {
    let base = format!("probe/{nonce:016x}");
    let mut ways = store.ways();
    ways.extend(others.iter().cloned());
    let probe = Probe { store, ways, create, base, listed, repeated: Mutex::new(0) };
    let result = probe.run(clock);
    probe.clean();
    result
}

struct Probe<'a> {
    store: &'a dyn Store,
    /// Besides that.
    ways: Vec<Arc<dyn Store>>,
    /// How objects are created that are not there: with the condition, unless the store is not asked for any.
    create: PutMode,
    base: String,
    listed: &'a [&'a str],
    repeated: Mutex<usize>,
}

impl Probe<'_> {
    fn run(&self, clock: &dyn Clock) -> Result<Report, ProbeFault> {
        let mut checks = Vec::new();
        let mut versioning = Versioning::NotTold;
        let mut start = clock.now().as_ns();
        let mut timed = |check, wrong: Result<(), Wrong>, versioning| match wrong {
            Ok(()) => {
                let end = clock.now().as_ns();
                checks.push((check, end.saturating_sub(start)));
                start = end;
                Ok(())
            }
            Err(wrong) => Err(ProbeFault { check, wrong, versioning, ways: self.ways.len().max(1) }),
        };
        let told = self.store.versioning().map(|told| versioning = told).map_err(Wrong::Fault);
        timed(Check::Versioning, told, versioning)?;
        if self.create == PutMode::CreateOnly {
            timed(Check::Race, (0..RACES).try_for_each(|n| self.race(n)), versioning)?;
            timed(Check::CreateOnExisting, self.create_on_existing(), versioning)?;
        }
        timed(Check::Overwrite, self.overwrite(), versioning)?;
        timed(Check::Listing, self.listing(), versioning)?;
        timed(Check::Delete, self.delete(), versioning)?;
        let races_repeated = *self.repeated.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(Report { checks, versioning, races_repeated, ways: self.ways.len().max(1) })
    }

    fn race(&self, number: usize) -> Result<(), Wrong> {
        let mut last = Wrong::Winners(0);
        for attempt in 0..RACE_ATTEMPTS_MAX {
            let key = format!("{}-race-{number}-{attempt}", self.base);
            let mut winners = Vec::new();
            let mut open = None;
            for (racer, outcome) in self.race_once(&key).into_iter().enumerate() {
                match outcome {
                    Ok(()) => winners.push(racer),
                    Err(fault) if fault.kind == StoreFaultKind::Exists => {}
                    Err(fault) if fault.is_transient() => open = Some(fault),
                    Err(fault) => return Err(Wrong::Fault(fault)),
                }
            }
            match (winners.as_slice(), open) {
                (&[winner], None) => {
                    for way in 0..self.ways.len().max(1) {
                        if self.read_by(way, &key, WHOLE)? != racer_body(winner) {
                            return Err(Wrong::LoserOverwrote);
                        }
                    }
                    return Ok(());
                }
                (winners, _) if winners.len() > 1 => return Err(Wrong::Winners(winners.len())),
                (_, Some(fault)) => last = Wrong::Fault(fault),
                (_, None) => last = Wrong::Winners(0),
            }
            *self.repeated.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        }
        Err(last)
    }

    fn race_once(&self, key: &str) -> Vec<Result<(), StoreFault>> {
        let barrier = Barrier::new(RACERS);
        std::thread::scope(|scope| {
            let racers: Vec<_> = (0..RACERS)
                .map(|racer| {
                    let barrier = &barrier;
                    scope.spawn(move || {
                        let body = racer_body(racer);
                        barrier.wait();
                        self.way(racer).put(key, &[&body], PutMode::CreateOnly)
                    })
                })
                .collect();
            let lost = || StoreFault::new(StoreFaultKind::Unknown, "PUT", key, "a racing thread ended");
            racers.into_iter().map(|racer| racer.join().unwrap_or_else(|_| Err(lost()))).collect()
        })
    }

    fn create_on_existing(&self) -> Result<(), Wrong> {
        let key = format!("{}-existing", self.base);
        self.put(&key, b"first", PutMode::CreateOnly)?;
        for way in 0..self.ways.len().max(1) {
            match self.way(way).put(&key, &[b"second"], PutMode::CreateOnly) {
                Ok(()) => return Err(Wrong::CreateIgnored),
                Err(fault) if fault.kind == StoreFaultKind::Exists => {}
                Err(fault) => return Err(Wrong::Fault(fault)),
            }
        }
        if self.read(&key, WHOLE)? == b"first" { Ok(()) } else { Err(Wrong::LoserOverwrote) }
    }

    fn overwrite(&self) -> Result<(), Wrong> {
        let key = format!("{}-overwrite", self.base);
        for round in 0..4u8 {
            let body = [b'0' + round; 100];
            self.put(&key, &body, PutMode::Replace)?;
            // Each round another way reads what the first one wrote.
            let way = usize::from(round);
            let ranged = self.read_by(way, &key, ByteRange::From { offset: 10, len: 20 })?;
            let tail = self.read_by(way, &key, ByteRange::Last(30))?;
            if self.read_by(way, &key, WHOLE)? != body || ranged != body[10..30] || tail != body[70..] {
                return Err(Wrong::StaleRead);
            }
        }
        Ok(())
    }

    fn listing(&self) -> Result<(), Wrong> {
        let prefix = format!("{}-list-", self.base);
        let mut expected: Vec<String> = Vec::new();
        for name in self.listed {
            expected.push(format!("{prefix}{name}"));
            self.put(expected.last().map_or("", String::as_str), b"x", self.create)?;
            self.expect_list(&prefix, &expected)?;
        }
        while let Some(key) = expected.pop() {
            self.store.delete(&key).map_err(Wrong::Fault)?;
            self.expect_list(&prefix, &expected)?;
        }
        Ok(())
    }

    fn delete(&self) -> Result<(), Wrong> {
        let key = format!("{}-delete", self.base);
        self.put(&key, b"x", self.create)?;
        self.store.delete(&key).map_err(Wrong::Fault)?;
        match self.store.get(&key, WHOLE, &mut Vec::new()) {
            Err(fault) if fault.kind == StoreFaultKind::NotFound => Ok(()),
            Err(fault) => Err(Wrong::Fault(fault)),
            Ok(_) => Err(Wrong::NotDeleted),
        }
    }

    fn put(&self, key: &str, body: &[u8], mode: PutMode) -> Result<(), Wrong> {
        self.store.put(key, &[body], mode).map_err(Wrong::Fault)
    }

    /// One of the ways, in turn.
    fn way(&self, number: usize) -> &dyn Store {
        match self.ways.len() {
            0 => self.store,
            ways => &*self.ways[number % ways],
        }
    }

    fn read(&self, key: &str, range: ByteRange) -> Result<Vec<u8>, Wrong> {
        let mut out = Vec::new();
        self.store.get(key, range, &mut out).map_err(Wrong::Fault)?;
        Ok(out)
    }

    fn read_by(&self, way: usize, key: &str, range: ByteRange) -> Result<Vec<u8>, Wrong> {
        let mut out = Vec::new();
        self.way(way).get(key, range, &mut out).map_err(Wrong::Fault)?;
        Ok(out)
    }

    fn expect_list(&self, prefix: &str, expected: &[String]) -> Result<(), Wrong> {
        let mut found = Vec::new();
        let limit = expected.len() + 1;
        let listed = self.store.list(prefix, "", &mut |key, _| {
            found.push(key.to_owned());
            found.len() < limit
        });
        listed.map_err(Wrong::Fault)?;
        if found == expected { Ok(()) } else { Err(Wrong::Listed(expected.len(), found.len())) }
    }

    /// Best effort: what is left is small and below `probe/`.
    fn clean(&self) {
        let mut left = Vec::new();
        let limit = RACES * RACE_ATTEMPTS_MAX + 16;
        let _ = self.store.list(&format!("{}-", self.base), "", &mut |key, _| {
            left.push(key.to_owned());
            left.len() < limit
        });
        for key in left {
            let _ = self.store.delete(&key);
        }
    }
}

fn racer_body(racer: usize) -> Vec<u8> {
    format!("racer {racer}").into_bytes()
}

#[cfg(test)]
mod tests {
    use windlass_hal::clock::SystemClock;

    use super::*;
    use crate::store::memory::MemoryStore;

    #[test]
    fn servers_that_do_not_agree_are_found_and_ones_that_do_pass() {
        let (one, other): (Arc<dyn Store>, Arc<dyn Store>) =
            (Arc::new(MemoryStore::default()), Arc::new(MemoryStore::default()));
        // Each is a store as it should be; together they are two.
        for alone in [&one, &other] {
            assert_eq!(probe(&**alone, &SystemClock, 1).unwrap().ways, 1);
        }
        let both = [Arc::clone(&one), other];
        let fault = probe_over(&*one, &both, &SystemClock, 2).unwrap_err();
        assert_eq!((fault.check, fault.wrong.clone()), (Check::Race, Wrong::Winners(2)));
        assert!(fault.to_string().contains("2 addresses or servers were asked"), "{fault}");
        let twice = [Arc::clone(&one), Arc::clone(&one)];
        assert_eq!(probe_over(&*one, &twice, &SystemClock, 3).unwrap().ways, 2);
    }
}
