//! The `log` facade on stderr: `warn: device: no direct I/O path=/x`. Errors and warnings always, more with `-v`. Where stderr is no
//! terminal a line begins with the time, `2026-11-21T03:16:00Z warn: ...`, unless a journal puts its own there.
//!
//! While a progress bar is on the screen, lines go above it. A daemon hands its lines to a thread ([`never_wait`]), because its lease must not
//! wait for whoever reads stderr: [`LINES_MAX`] lines wait at most, what comes then is dropped, and how many were is the next line.
//!
//! Does not: write files, keep history. Source: ours.

use std::fmt;
use std::io::{IsTerminal, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use indicatif::ProgressBar;
use log::{Level, LevelFilter, Log, Metadata, Record};
use windlass_agent::civil::iso_utc;
use windlass_agent::foreign;

use crate::engine::host::HostClock;
use crate::failure::Failure;
use crate::levels::Levels;
use crate::recent;
use crate::repeats::Repeats;

/// The variable of the environment by which a console tells a command that it is one of its own.
pub const CONSOLE_VARIABLE: &str = "WINDLASS_CONSOLE";
/// Lines that wait for whoever reads stderr: some minutes of a daemon in trouble, below 256 KiB with lines of the usual length.
const LINES_MAX: usize = 1024;
/// How long the end of a daemon waits until its last lines are read, in nanoseconds.
const LAST_LINES_NS: u64 = 1_000_000_000;
/// Between looks at whether they are.
const LOOK: Duration = Duration::from_millis(5);
/// Stack of the thread, in bytes: it prints.
const STACK_BYTES: usize = 64 << 10;

static BAR: Mutex<Option<ProgressBar>> = Mutex::new(None);
static LOGGER: Stderr = Stderr;
/// Which lines are said.
static LEVELS: OnceLock<Levels> = OnceLock::new();
/// Whether this is a service: its lines go on for months.
static SERVICE: OnceLock<bool> = OnceLock::new();
/// Lines that a service has said.
static REPEATS: Mutex<Option<Repeats>> = Mutex::new(None);
/// Whether lines begin with the time.
static DATED: OnceLock<bool> = OnceLock::new();
/// Where lines go instead of stderr.
static LINES: OnceLock<Arc<Lines>> = OnceLock::new();

struct Stderr;

impl Log for Stderr {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        LEVELS.get().is_none_or(|levels| metadata.level() <= levels.of(metadata.target()))
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            let text = record.args().to_string();
            // What goes well is said as often as it does.
            let more = if record.level() <= Level::Warn { again(&text) } else { Some(String::new()) };
            let Some(more) = more else { return };
            let level = match record.level() {
                Level::Error => "error",
                Level::Warn => "warn",
                Level::Info => "info",
                Level::Debug => "debug",
                Level::Trace => "trace",
            };
            // A record is a line, whatever the text of others in it says.
            put(&foreign::line(&format!("{}{level}: {text}{more}", time())));
        }
    }

    fn flush(&self) {
        let until_ns = HostClock.boot_ns().saturating_add(LAST_LINES_NS);
        while LINES.get().is_some_and(|lines| !lines.are_printed()) && HostClock.boot_ns() < until_ns {
            HostClock.sleep(LOOK);
        }
    }
}

/// Starts logging: warnings, with `verbose` 1 info (what a `service` begins with), 2 debug, 3 everything; `levels` say otherwise for all or
/// some of the program. A service says what repeats ever more rarely.
pub fn install(verbose: u8, levels: Option<&Levels>, service: bool) {
    // systemd says by this variable that stderr is its journal, which knows the time of each line.
    let dated = !std::io::stderr().is_terminal() && std::env::var_os("JOURNAL_STREAM").is_none();
    let _ = DATED.set(dated);
    let verbose = verbose.max(u8::from(service));
    let level = match verbose {
        0 => LevelFilter::Warn,
        1 => LevelFilter::Info,
        2 => LevelFilter::Debug,
        _ => LevelFilter::Trace,
    };
    let levels = levels.cloned().unwrap_or_default().or(level);
    // Fails only when a logger is set already: a second run in one process, which keeps the first.
    let _ = log::set_logger(&LOGGER);
    log::set_max_level(levels.max());
    let _ = LEVELS.set(levels);
    let _ = SERVICE.set(service);
    if service {
        REPEATS.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_default();
    }
}

/// What to say behind a line that may have come before; `None`: nothing, it was said a moment ago.
fn again(line: &str) -> Option<String> {
    let mut repeats = REPEATS.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(repeats) = &mut *repeats else { return Some(String::new()) };
    Some(match repeats.admit(HostClock.boot_ns(), line)? {
        0 => String::new(),
        held => format!(" ({held} more like this since it was said last)"),
    })
}

/// A line as [`say`] says it, ever more rarely when it repeats.
pub fn say_rarely(line: impl fmt::Display) {
    let line = line.to_string();
    say_rarely_as(&line, &line);
}

/// The same of lines that differ and are of one `kind`.
pub fn say_rarely_as(kind: &str, line: &str) {
    if let Some(more) = again(kind) {
        say(format_args!("{line}{more}"));
    }
}

/// Whether this is a command that a console carries out: it has no terminal to ask at.
pub fn is_of_console() -> bool {
    std::env::var_os(CONSOLE_VARIABLE).is_some()
}

/// A line that says how a job goes; for a console it is marked as one that the next replaces.
pub fn progress(line: &str) {
    if is_of_console() { print(&format!("\r{}", foreign::line(line))) } else { say(line) }
}

/// Puts a bar on the screen, or takes it away.
pub fn set_bar(bar: Option<ProgressBar>) {
    *BAR.lock().unwrap_or_else(PoisonError::into_inner) = bar;
}

/// From now on no line waits for whoever reads stderr: a thread prints them. Call once, after signals are blocked, and [`Log::flush`] at the
/// end.
///
/// # Errors
/// The thread cannot be started; lines are printed as before.
pub fn never_wait() -> Result<(), Failure> {
    let (lines, waiting) = Lines::new();
    let kept = Arc::clone(&lines);
    std::thread::Builder::new()
        .name("stderr".to_owned())
        .stack_size(STACK_BYTES)
        .spawn(move || lines.print_all(&waiting, print))
        .map_err(|error| Failure::at("cannot start a thread", error))?;
    // A second daemon in one process keeps the first one's thread.
    let _ = LINES.set(kept);
    Ok(())
}

/// Lines on their way to the thread that prints them.
struct Lines {
    queue: SyncSender<String>,
    /// In the queue, or being printed.
    waiting: AtomicU64,
    /// Dropped, and not told of yet.
    dropped: AtomicU64,
}

impl Lines {
    fn new() -> (Arc<Lines>, Receiver<String>) {
        let (queue, lines) = sync_channel(LINES_MAX);
        let (waiting, dropped) = (AtomicU64::new(0), AtomicU64::new(0));
        (Arc::new(Lines { queue, waiting, dropped }), lines)
    }

    fn say(&self, line: String) {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        if self.queue.try_send(line).is_err() {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn are_printed(&self) -> bool {
        self.waiting.load(Ordering::Acquire) == 0
    }

    fn print_all(&self, lines: &Receiver<String>, print: impl Fn(&str)) {
        while let Ok(line) = lines.recv() {
            print(&line);
            let dropped = self.dropped.swap(0, Ordering::Relaxed);
            if dropped > 0 {
                print(&format!(
                    "windlass: {dropped} lines of the log are missing here: stderr was not read, and {LINES_MAX} lines wait at most"
                ));
            }
            self.waiting.fetch_sub(1, Ordering::Release);
        }
    }
}

fn print(line: &str) {
    drop(writeln!(std::io::stderr().lock(), "{line}"));
}

/// What a line begins with: the time, where nobody else puts it there.
fn time() -> String {
    let dated = DATED.get().is_some_and(|&dated| dated);
    let secs = HostClock.wall_ns().div_euclid(1_000_000_000);
    if dated { format!("{} ", iso_utc(secs)) } else { String::new() }
}

/// A line on stderr, above the bar if there is one; nothing in it drives the terminal. A service's begins with the time, as the log's lines do.
/// Nothing can be done about a stderr that is gone.
pub fn say(line: impl fmt::Display) {
    let time = if SERVICE.get().is_some_and(|&service| service) { time() } else { String::new() };
    put(&format!("{time}{line}"));
}

fn put(line: &str) {
    let line = foreign::harmless(line);
    if SERVICE.get().is_some_and(|&service| service) {
        recent::note(&line);
    }
    if let Some(lines) = LINES.get() {
        return lines.say(line);
    }
    let bar = BAR.lock().unwrap_or_else(PoisonError::into_inner).clone();
    match bar {
        Some(bar) => bar.suspend(|| print(&line)),
        None => print(&line),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_nobody_reads_are_dropped_and_counted() {
        let (lines, waiting) = Lines::new();
        let (begun, has_begun) = sync_channel(0);
        let (read, is_read) = sync_channel::<()>(0);
        let (printed, told) = std::sync::mpsc::channel();
        let printer = Arc::clone(&lines);
        // The first line is printed only when somebody reads it.
        std::thread::spawn(move || {
            printer.print_all(&waiting, |line| {
                if line == "first" {
                    let _ = begun.send(());
                    let _ = is_read.recv();
                }
                let _ = printed.send(line.to_owned());
            });
        });
        lines.say("first".to_owned());
        has_begun.recv().expect("the thread prints");
        (0..LINES_MAX + 5).for_each(|number| lines.say(number.to_string()));
        assert!(!lines.are_printed());
        read.send(()).expect("the thread prints");
        let next = || told.recv().expect("a line");
        assert_eq!(next(), "first");
        assert!(next().starts_with("windlass: 5 lines of the log are missing here"));
        (0..LINES_MAX).for_each(|number| assert_eq!(next(), number.to_string()));
    }
}
