//! Whether the store answers: who waits for it, since when, and what it said last. After 3 s people are told, with the reason.
//!
//! ```text
//!  a call begins --> waits ------ a clear answer, or bytes move ------> waits from now on, or nobody waits
//!                      |
//!                      |-- 3 s --> one line: `the store does not answer: host name x not found` or `the store answers slowly: ...`
//!                      `-- 30 s, while a repository is opened --> calls are refused, and the command ends with the last reason
//! ```
//!
//! An unclear answer (refused, timed out, cut off) does not end the wait: the calls that repeat it are one wait. Later than at the
//! opening it is the retries' business how long is waited.
//!
//! Invariants: at most one line every [`WORD_EVERY_NS`], however many calls wait. Does not: end a call that is under way; that is the
//! store's timeouts'. Source: ours.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use windlass_agent::store::throttle::Throttle;
use windlass_agent::store::{StoreFault, StoreFaultKind};
use windlass_hal::clock::Clock;

use crate::failure::Failure;
use crate::logger;

/// After how long of silence people are told, in nanoseconds: longer than a store takes that is well, shorter than patience.
pub const WORD_AFTER_NS: u64 = 3 * NS_PER_S;
/// How long a repository's opening waits for a clear answer, in nanoseconds.
pub const OPENING_NS: u64 = 30 * NS_PER_S;
/// Between two lines, in nanoseconds: a store that is slow all day fills no screen.
pub const WORD_EVERY_NS: u64 = 60 * NS_PER_S;
/// Without a call for so long nobody waits any more, in nanoseconds: the longest pause between two attempts is 20 s.
const GAP_NS: u64 = 25 * NS_PER_S;
/// How often the thread looks, in milliseconds.
const LOOK_MS: u64 = 250;
/// Keys of data, behind the verb of a call.
const DATA: [&str; 2] = [" obj/", " seg/"];
/// Stack of the thread in bytes: it formats a line and writes it.
const STACK_BYTES: usize = 128 << 10;
const NS_PER_S: u64 = 1_000_000_000;

/// One call under way; give it back to [`Watch::end`].
#[derive(Debug)]
pub struct Waiting(u64);

#[derive(Default)]
struct State {
    next: u64,
    /// Calls under way, oldest first.
    open: BTreeMap<u64, String>,
    /// When a call ended last.
    ended_ns: u64,
    /// Since when nothing came; `None` when nobody waits.
    since_ns: Option<u64>,
    /// The last unclear answer of this wait.
    fault: Option<StoreFault>,
    /// The last answer, if it was a failure of any kind but that something is there or is not.
    words: Option<StoreFault>,
    /// The last answer about data, if it was such a failure, since when they are, and when it came.
    data: Option<(String, u64, u64)>,
    /// Bytes moved at the last look.
    moved: u64,
    /// When the last line was written, and whether it was about this wait.
    said_ns: Option<u64>,
    said: bool,
}

/// What a store's callers wait for.
pub struct Watch {
    clock: Arc<dyn Clock>,
    throttle: Arc<Throttle>,
    say: fn(&str),
    opening: AtomicUsize,
    state: Mutex<State>,
}

/// While it lives, calls are refused once the store has been silent for [`OPENING_NS`].
pub struct Opening<'a>(&'a Watch);

impl Drop for Opening<'_> {
    fn drop(&mut self) {
        self.0.opening.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Watch {
    /// Over a store that moves its bytes through `throttle`; starts the thread that looks, which ends with the watch.
    ///
    /// # Errors
    /// No thread is left.
    pub fn start(clock: Arc<dyn Clock>, throttle: Arc<Throttle>) -> Result<Arc<Watch>, Failure> {
        let watch = Arc::new(Watch::new(clock, throttle, |line| logger::say(line)));
        let (weak, clock) = (Arc::downgrade(&watch), Arc::clone(&watch.clock));
        let thread = std::thread::Builder::new().name("store-watch".to_owned()).stack_size(STACK_BYTES);
        thread
            .spawn(move || look(&weak, &*clock))
            .map_err(|error| Failure::at("cannot start a thread", error))?;
        Ok(watch)
    }

    fn new(clock: Arc<dyn Clock>, throttle: Arc<Throttle>, say: fn(&str)) -> Watch {
        Watch { clock, throttle, say, opening: AtomicUsize::new(0), state: Mutex::default() }
    }

    /// From now on, and until it is dropped, a repository is opened.
    pub fn opening(&self) -> Opening<'_> {
        self.opening.fetch_add(1, Ordering::Relaxed);
        Opening(self)
    }

    /// The store's own words, if the last answer was a failure.
    pub fn words(&self) -> Option<StoreFault> {
        self.lock().words.clone()
    }

    /// What the store says of uploads and downloads, while its last answer is a failure and they are tried again, and since when they are, on
    /// the boot clock.
    pub fn data_trouble(&self) -> Option<(String, u64)> {
        let state = self.lock();
        let (words, since_ns, last_ns) = state.data.as_ref()?;
        let is_tried = state.open.values().any(|call| is_of_data(call));
        let is_fresh = self.clock.now().as_ns().saturating_sub(*last_ns) <= GAP_NS;
        (is_tried || is_fresh).then(|| (words.clone(), *since_ns))
    }

    /// A call begins.
    ///
    /// # Errors
    /// The store has been silent for too long: the last reason, as one that repeating does not help.
    pub fn begin(&self, verb: &str, key: &str) -> Result<Waiting, StoreFault> {
        let now_ns = self.clock.now().as_ns();
        let mut state = self.lock();
        if state.open.is_empty() && now_ns.saturating_sub(state.ended_ns) > GAP_NS {
            (state.since_ns, state.fault) = (None, None);
        }
        let silent_ns = now_ns.saturating_sub(*state.since_ns.get_or_insert(now_ns));
        if self.opening.load(Ordering::Relaxed) > 0 && silent_ns >= OPENING_NS {
            let last = state.fault.as_ref().map_or("nothing came back", |fault| fault.detail.as_str());
            let detail = format!("no answer for {} s: {last}", silent_ns / NS_PER_S);
            return Err(StoreFault::new(StoreFaultKind::Silent, verb, key, detail));
        }
        let id = state.next;
        state.next += 1;
        state.open.insert(id, format!("{verb} {key}"));
        Ok(Waiting(id))
    }

    /// The call has ended.
    pub fn end(&self, waiting: Waiting, fault: Option<&StoreFault>) {
        let now_ns = self.clock.now().as_ns();
        let mut state = self.lock();
        let call = state.open.remove(&waiting.0).unwrap_or_default();
        state.ended_ns = now_ns;
        let is_failure =
            |fault: &&StoreFault| !matches!(fault.kind, StoreFaultKind::NotFound | StoreFaultKind::Exists);
        state.words = fault.filter(is_failure).cloned();
        if is_of_data(&call) {
            let since_ns = state.data.take().map_or(now_ns, |(_, since_ns, _)| since_ns);
            state.data = state.words.as_ref().map(|fault| (fault.to_string(), since_ns, now_ns));
        }
        match fault {
            Some(fault) if fault.is_transient() => state.fault = Some(fault.clone()),
            Some(_) | None => {
                state.fault = None;
                if state.said {
                    state.said = false;
                    (self.say)("windlass: the store answers again");
                }
                state.since_ns = if state.open.is_empty() { None } else { Some(now_ns) };
            }
        }
        self.word(&mut state, now_ns);
    }

    /// Something came, in the middle of a call.
    pub fn progress(&self) {
        let mut state = self.lock();
        if state.since_ns.is_some() {
            state.since_ns = Some(self.clock.now().as_ns());
        }
    }

    /// Time has passed.
    fn look(&self) {
        let mut state = self.lock();
        // Between two attempts it may be that nobody asks again; while a repository is opened, somebody does.
        if !state.open.is_empty() || self.opening.load(Ordering::Relaxed) > 0 {
            self.word(&mut state, self.clock.now().as_ns());
        }
    }

    /// Tells people, when it is time to.
    fn word(&self, state: &mut State, now_ns: u64) {
        let moved = self.throttle.sent().saturating_add(self.throttle.received());
        if moved != std::mem::replace(&mut state.moved, moved) && state.since_ns.is_some() {
            state.since_ns = Some(now_ns);
        }
        let silent_ns = state.since_ns.map_or(0, |since| now_ns.saturating_sub(since));
        let lately = state.said_ns.is_some_and(|said| now_ns.saturating_sub(said) < WORD_EVERY_NS);
        if silent_ns < WORD_AFTER_NS || lately {
            return;
        }
        let silent_s = silent_ns / NS_PER_S;
        let call = state.open.values().next().map_or("", String::as_str);
        (self.say)(&match &state.fault {
            Some(fault) => format!("windlass: the store does not answer for {silent_s} s: {}", fault.detail),
            None => format!("windlass: the store answers slowly: nothing came for {silent_s} s ({call})"),
        });
        state.said_ns = Some(now_ns);
        state.said = true;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a call, its verb and its key, is for what was backed up.
fn is_of_data(call: &str) -> bool {
    DATA.iter().any(|kind| call.contains(kind))
}

fn look(watch: &Weak<Watch>, clock: &dyn Clock) {
    loop {
        match watch.upgrade() {
            Some(watch) => watch.look(),
            None => return,
        }
        clock.sleep(Duration::from_millis(LOOK_MS));
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use windlass_hal::sim::clock::SimClock;

    use super::*;

    thread_local! {
        static SAID: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
    }

    fn watch() -> (Watch, Arc<SimClock>, Arc<Throttle>) {
        let clock = Arc::new(SimClock::new());
        let shared = Arc::clone(&clock) as Arc<dyn Clock>;
        let throttle = Arc::new(Throttle::new(Arc::clone(&shared), 0, 0));
        let say = |line: &str| SAID.with_borrow_mut(|said| said.push(line.to_owned()));
        (Watch::new(shared, Arc::clone(&throttle), say), clock, throttle)
    }

    fn said() -> Vec<String> {
        SAID.take()
    }

    fn refused() -> StoreFault {
        StoreFault::new(StoreFaultKind::Unknown, "GET", "format", "h:1 refuses the connection")
    }

    #[test]
    fn a_call_that_hangs_is_told_after_three_seconds_and_moving_bytes_are_no_silence() {
        let (watch, clock, throttle) = watch();
        let waiting = watch.begin("GET", "format").unwrap();
        watch.look();
        clock.advance(Duration::from_millis(2_999));
        watch.look();
        assert_eq!(said(), [""; 0]);
        throttle.wait_down(1);
        watch.look();
        clock.advance(Duration::from_millis(2_999));
        watch.look();
        assert_eq!(said(), [""; 0], "a byte came");
        clock.advance(Duration::from_millis(1));
        watch.look();
        watch.look();
        assert_eq!(said(), ["windlass: the store answers slowly: nothing came for 3 s (GET format)"]);
        watch.end(waiting, None);
        assert_eq!(said(), ["windlass: the store answers again"]);
        // Nobody waits, and the next word is due in a minute.
        clock.advance(Duration::from_secs(50));
        watch.look();
        let waiting = watch.begin("GET", "format").unwrap();
        clock.advance(Duration::from_secs(6));
        watch.look();
        assert_eq!(said(), [""; 0]);
        clock.advance(Duration::from_secs(6));
        watch.look();
        assert_eq!(said().len(), 1);
        watch.end(waiting, None);
    }

    #[test]
    fn a_call_that_was_given_up_long_ago_is_no_wait_of_the_next_one() {
        let (watch, clock, _) = watch();
        let waiting = watch.begin("PUT", "beat/1").unwrap();
        watch.end(waiting, Some(&refused()));
        clock.advance(Duration::from_secs(600));
        let _opening = watch.opening();
        let waiting = watch.begin("GET", "format").unwrap();
        watch.look();
        watch.end(waiting, Some(&refused()));
        assert_eq!(said(), [""; 0]);
    }

    #[test]
    fn attempts_that_fail_are_one_wait_and_the_opening_ends_it() {
        let (watch, clock, _) = watch();
        let opening = watch.opening();
        let attempt = || {
            let waiting = watch.begin("GET", "format")?;
            watch.end(waiting, Some(&refused()));
            Ok::<_, StoreFault>(())
        };
        for _ in 0..30 {
            attempt().unwrap();
            clock.advance(Duration::from_secs(1));
        }
        assert_eq!(
            said(),
            ["windlass: the store does not answer for 3 s: h:1 refuses the connection"],
            "once, though 30 attempts failed"
        );
        let fault = attempt().unwrap_err();
        assert!(!fault.is_transient());
        assert_eq!(fault.detail, "no answer for 30 s: h:1 refuses the connection");
        drop(opening);
        attempt().unwrap();
        let waiting = watch.begin("GET", "format").unwrap();
        assert_eq!(watch.data_trouble(), None);
        // A clear answer, even one that nobody likes, ends the wait.
        watch.end(waiting, Some(&StoreFault::new(StoreFaultKind::Denied, "GET", "format", "")));
        assert_eq!(watch.words().unwrap().kind, StoreFaultKind::Denied);
        // Of data it is known by itself, and since when: the log may be in another store.
        for _ in 0..2 {
            let waiting = watch.begin("PUT", "obj/1").unwrap();
            watch.end(waiting, Some(&refused()));
            clock.advance(Duration::from_secs(1));
            let waiting = watch.begin("PUT", "beat/1").unwrap();
            watch.end(waiting, None);
        }
        let (words, since_ns) = watch.data_trouble().unwrap();
        assert!(words.contains("refuses the connection") && since_ns == clock.now().as_ns() - 2 * NS_PER_S);
        clock.advance(Duration::from_secs(60));
        assert_eq!(watch.data_trouble(), None, "it is not tried any more");
        let waiting = watch.begin("PUT", "seg/1").unwrap();
        assert!(watch.data_trouble().is_some(), "it is");
        watch.end(waiting, None);
        assert_eq!(watch.data_trouble(), None);
    }
}
