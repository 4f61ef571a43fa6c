//! What a person sees while a job runs: a bar on a terminal, plain lines elsewhere, JSON lines for programs.
//!
//! | where | what | how often |
//! |---|---|---|
//! | a terminal | one bar on stderr, redrawn | 5 a second |
//! | no terminal (serial console, log file) | a line on stderr, ASCII, at most 79 columns | every 5 s |
//! | a console (`board/src/console`) | the same, each in place of the one before | every second |
//! | `--json` | a line on stdout, `"event":"progress"` | every second |
//!
//! A thread of its own looks at the job's counters; the job never waits for it. Rates are over the last ten seconds; the ETA says
//! nothing until there is a rate to trust. Does not: know what the job does. Source: ours.

use std::collections::VecDeque;
use std::io::IsTerminal;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Value, json};
use windlass_agent::progress::{Phase, Progress, Snapshot};
use windlass_agent::units::{Counted, Grouped, Human};

use crate::cli::output::Output;
use crate::engine::host::HostClock;
use crate::failure::Failure;
use crate::logger;

/// Most columns of a plain line.
pub const PLAIN_COLUMNS_MAX: usize = 79;
/// Over how long rates are taken, in nanoseconds.
const RATE_WINDOW_NS: u64 = 10_000_000_000;
/// Samples kept for that: one at most every 200 ms.
const SAMPLES_MAX: usize = 51;
/// Stack of the thread in bytes.
const STACK_BYTES: usize = 256 << 10;

/// How progress is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Style {
    Bar,
    Plain,
    Json,
}

impl Style {
    fn interval(self) -> Duration {
        match self {
            Style::Bar => Duration::from_millis(200),
            Style::Plain if logger::is_of_console() => Duration::from_secs(1),
            Style::Plain => Duration::from_secs(5),
            Style::Json => Duration::from_secs(1),
        }
    }
}

/// Shows a job's progress until it is dropped.
pub struct Watcher {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    done: AtomicBool,
    lock: Mutex<()>,
    wake: Condvar,
}

impl Shared {
    fn new() -> Shared {
        Shared { done: AtomicBool::new(false), lock: Mutex::new(()), wake: Condvar::new() }
    }
}

impl Watcher {
    /// Starts showing `job`.
    pub fn start(job: &Arc<Progress>, output: Output) -> Result<Watcher, Failure> {
        let style = match (output.is_json(), std::io::stderr().is_terminal()) {
            _ if output.is_quiet() => return Ok(Watcher { shared: Arc::new(Shared::new()), thread: None }),
            (true, _) => Style::Json,
            (false, true) => Style::Bar,
            (false, false) => Style::Plain,
        };
        let shared = Arc::new(Shared::new());
        let (theirs, job) = (Arc::clone(&shared), Arc::clone(job));
        let builder = std::thread::Builder::new().name("progress".to_owned()).stack_size(STACK_BYTES);
        let thread = builder.spawn(move || show(&theirs, &job, style, output));
        let thread = thread.map_err(|error| Failure::at("cannot start a thread", error))?;
        Ok(Watcher { shared, thread: Some(thread) })
    }
}

impl Drop for Watcher {
    /// Takes the bar away and waits for the thread, so that what is printed next stands alone.
    fn drop(&mut self) {
        {
            let _held = self.shared.lock.lock().unwrap_or_else(PoisonError::into_inner);
            self.shared.done.store(true, Ordering::Relaxed);
        }
        self.shared.wake.notify_all();
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has ended the process already.
            let _ = thread.join();
        }
    }
}

fn show(shared: &Shared, job: &Progress, style: Style, output: Output) {
    let mut meter = Meter::new(HostClock.boot_ns());
    let bar = (style == Style::Bar).then(new_bar);
    logger::set_bar(bar.clone());
    let mut held = shared.lock.lock().unwrap_or_else(PoisonError::into_inner);
    while !shared.done.load(Ordering::Relaxed) {
        let waited = shared.wake.wait_timeout(held, style.interval());
        held = waited.unwrap_or_else(PoisonError::into_inner).0;
        if shared.done.load(Ordering::Relaxed) {
            break;
        }
        let seen = meter.look(HostClock.boot_ns(), job.snapshot());
        match (&bar, style) {
            (Some(bar), _) => draw(bar, &seen),
            (None, Style::Json) => output.event("progress", seen.to_json()),
            (None, _) => logger::progress(&seen.plain()),
        }
    }
    logger::set_bar(None);
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
}

fn new_bar() -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(1000), ProgressDrawTarget::stderr());
    // The template is a constant of ours; a wrong one would show the default bar.
    if let Ok(style) = ProgressStyle::with_template("{prefix:<9} [{bar:24}] {msg}") {
        bar.set_style(style.progress_chars("#>."));
    }
    bar
}

fn draw(bar: &ProgressBar, seen: &Seen) {
    bar.set_prefix(seen.now.phase.as_str());
    bar.set_position(seen.permille().unwrap_or(0));
    bar.set_message(seen.details());
}

/// Turns snapshots into rates. Pure: time is an argument.
#[derive(Debug)]
pub struct Meter {
    start_ns: u64,
    /// (when, bytes done, items done), oldest first.
    samples: VecDeque<(u64, u64, u64)>,
}

impl Meter {
    /// Begins at `start_ns`.
    pub fn new(start_ns: u64) -> Meter {
        let mut samples = VecDeque::with_capacity(SAMPLES_MAX);
        samples.push_back((start_ns, 0, 0));
        Meter { start_ns, samples }
    }

    /// Takes a snapshot in.
    pub fn look(&mut self, now_ns: u64, now: Snapshot) -> Seen {
        while self.samples.len() > 1
            && (self.samples.len() >= SAMPLES_MAX || self.samples[1].0 + RATE_WINDOW_NS <= now_ns)
        {
            self.samples.pop_front();
        }
        let (since, bytes, items) = self.samples.front().copied().unwrap_or((now_ns, 0, 0));
        self.samples.push_back((now_ns, now.bytes_done, now.items_done));
        let rate = |from: u64, to: u64| match now_ns.saturating_sub(since) {
            0 => 0,
            span => (u128::from(to.saturating_sub(from)) * 1_000_000_000 / u128::from(span)) as u64,
        };
        Seen {
            now,
            elapsed_ns: now_ns.saturating_sub(self.start_ns),
            bytes_per_s: rate(bytes, now.bytes_done),
            items_per_s: rate(items, now.items_done),
        }
    }
}

/// A snapshot with rates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The snapshot.
    pub now: Snapshot,
    /// Since the start, in nanoseconds.
    pub elapsed_ns: u64,
    /// Bytes a second lately.
    pub bytes_per_s: u64,
    /// Items a second lately.
    pub items_per_s: u64,
}

impl Seen {
    /// How much is done, in thousandths; by bytes, or by items where bytes say nothing. `None` while that is unknown.
    pub fn permille(&self) -> Option<u64> {
        let part = |done: u64, total: u64| {
            (total > 0).then(|| (u128::from(done.min(total)) * 1000 / u128::from(total)) as u64)
        };
        let done = part(self.now.bytes_done, self.now.bytes_total)
            .or(part(self.now.items_done, self.now.items_total));
        // What was read is still to be sent: a backup is not done before it has ended.
        done.map(|permille| if self.now.phase == Phase::BackingUp { permille.min(999) } else { permille })
    }

    /// Seconds left, when there is a rate.
    pub fn eta_s(&self) -> Option<u64> {
        if self.now.bytes_total > 0 && self.now.bytes_done >= self.now.bytes_total {
            // All is read, and it is not known how long the rest takes.
            return None;
        }
        let left = |done: u64, total: u64, rate: u64| {
            (done < total && rate > 0).then(|| total.saturating_sub(done).div_ceil(rate))
        };
        left(self.now.bytes_done, self.now.bytes_total, self.bytes_per_s).or(left(
            self.now.items_done,
            self.now.items_total,
            self.items_per_s,
        ))
    }

    /// `47%  1.21 GiB  345 MiB/s  eta 00:00:14  12,345 items  9 objects  11 PUTs`.
    pub fn details(&self) -> String {
        let mut parts = Vec::with_capacity(8);
        if let Some(permille) = self.permille() {
            parts.push(format!("{:>3}%", permille / 10));
        }
        parts.push(format!("{:>8}", Human(self.now.bytes_done)));
        parts.push(format!("{:>8}/s", Human(self.bytes_per_s)));
        if let Some(eta) = self.eta_s() {
            parts.push(format!("eta {:02}:{:02}:{:02}", eta / 3600, eta / 60 % 60, eta % 60));
        }
        parts.push(Counted(self.now.items_done, "item").to_string());
        for (count, what) in [
            (self.now.objects, "objects"),
            (self.now.puts, "PUTs"),
            (self.now.retries, "retries"),
            (self.now.faults, "FAULTS"),
        ] {
            if count > 0 {
                parts.push(format!("{} {what}", Grouped(count)));
            }
        }
        parts.join("  ")
    }

    /// A line of at most [`PLAIN_COLUMNS_MAX`] columns, ASCII.
    pub fn plain(&self) -> String {
        let mut line = format!("{:<9} {}", self.now.phase.as_str(), self.details());
        while line.len() > PLAIN_COLUMNS_MAX {
            // The last parts matter least, and faults come last on purpose: they are named one by one as well.
            let end = line.rfind("  ").unwrap_or(PLAIN_COLUMNS_MAX);
            line.truncate(end.min(line.len() - 1));
        }
        line
    }

    /// The fields of a progress event.
    pub fn to_json(&self) -> Value {
        let now = &self.now;
        json!({
            "phase": now.phase.as_str(),
            "elapsed_ms": self.elapsed_ns / 1_000_000,
            "items_total": now.items_total,
            "items_done": now.items_done,
            "bytes_total": now.bytes_total,
            "bytes_done": now.bytes_done,
            "bytes_read": now.bytes_read,
            "bytes_packed": now.bytes_packed,
            "bytes_stored": now.bytes_stored,
            "bytes_per_s": self.bytes_per_s,
            "eta_s": self.eta_s(),
            "objects": now.objects,
            "puts": now.puts,
            "gets": now.gets,
            "retries": now.retries,
            "faults": now.faults,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn at(bytes_done: u64) -> Snapshot {
        let phase = Phase::BackingUp;
        Snapshot {
            phase,
            items_total: 10,
            items_done: 5,
            bytes_total: 1000 << 20,
            bytes_done,
            ..Snapshot::default()
        }
    }

    #[test]
    fn rates_are_of_the_last_ten_seconds() {
        let mut meter = Meter::new(0);
        let mut bytes = 0;
        for second in 1..=30 {
            bytes += 10 << 20;
            let seen = meter.look(second * SECOND, at(bytes));
            assert_eq!(seen.bytes_per_s, 10 << 20);
        }
        for second in 31..=45 {
            bytes += 20 << 20;
            meter.look(second * SECOND, at(bytes));
        }
        let seen = meter.look(46 * SECOND, at(bytes + (20 << 20)));
        assert_eq!(seen.bytes_per_s, 20 << 20);
        assert_eq!(seen.permille(), Some(620));
        assert_eq!(seen.eta_s(), Some(19));
    }

    #[test]
    fn nothing_is_said_that_is_not_known() {
        let mut meter = Meter::new(5);
        let seen = meter.look(5, Snapshot::default());
        assert_eq!((seen.permille(), seen.eta_s(), seen.bytes_per_s), (None, None, 0));
        assert!(!seen.plain().contains("eta"));
        // All is read, and some of it is still to be sent.
        let read = meter.look(SECOND, at(1000 << 20));
        assert_eq!((read.permille(), read.plain().contains("100%")), (Some(999), false), "{}", read.plain());
        assert!(!read.plain().contains("eta"), "{}", read.plain());
        let items = Snapshot { items_total: 8, items_done: 2, ..Snapshot::default() };
        assert_eq!(meter.look(SECOND, items).permille(), Some(250));
    }

    #[test]
    fn plain_lines_fit_a_serial_console() {
        let big = Snapshot {
            phase: Phase::Finishing,
            items_total: 0,
            items_done: 123_456_789,
            bytes_total: u64::MAX,
            bytes_done: u64::MAX - 1,
            objects: 9_999_999,
            puts: 9_999_999,
            retries: 1_000_000,
            faults: 1_000_000,
            ..Snapshot::default()
        };
        for snapshot in [Snapshot::default(), at(470 << 20), big] {
            let seen = Meter::new(0).look(3 * SECOND, snapshot);
            let line = seen.plain();
            assert!(line.len() <= PLAIN_COLUMNS_MAX && line.is_ascii(), "{line}");
            assert!(line.starts_with(snapshot.phase.as_str()));
        }
        let line = Meter::new(0).look(2 * SECOND, at(470 << 20)).plain();
        assert_eq!(line, "backup     47%   470 MiB   235 MiB/s  eta 00:00:03  5 items");
    }
}
