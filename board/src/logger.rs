//! The `log` facade on stderr: `warn: device: no direct I/O path=/x`. Errors and warnings always, more with `-v`. Where stderr is no
//! terminal a line begins with the time, `2026-11-21T03:16:00Z warn: ...`, unless a journal puts its own there.
//!
//! While a progress bar is on the screen, lines go above it. Does not: write files, keep history. Source: ours.

use std::fmt;
use std::io::{IsTerminal, Write};
use std::sync::{Mutex, OnceLock, PoisonError};

use indicatif::ProgressBar;
use log::{Level, LevelFilter, Log, Metadata, Record};
use windlass_agent::foreign;

use crate::calendar::iso_utc;
use crate::host::HostClock;

static BAR: Mutex<Option<ProgressBar>> = Mutex::new(None);
static LOGGER: Stderr = Stderr;
/// Whether lines begin with the time.
static DATED: OnceLock<bool> = OnceLock::new();

struct Stderr;

impl Log for Stderr {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        // Crates of others speak up only when everything is asked for.
        metadata.target().starts_with("windlass") || log::max_level() >= LevelFilter::Trace
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            let level = match record.level() {
                Level::Error => "error",
                Level::Warn => "warn",
                Level::Info => "info",
                Level::Debug => "debug",
                Level::Trace => "trace",
            };
            // A record is a line, whatever the text of others in it says.
            let dated = DATED.get().is_some_and(|&dated| dated);
            let secs = HostClock.wall_ns().div_euclid(1_000_000_000);
            let time = if dated { format!("{} ", iso_utc(secs)) } else { String::new() };
            say(foreign::line(&format!("{time}{level}: {}", record.args())));
        }
    }

    fn flush(&self) {}
}

/// Starts logging: warnings, with `verbose` 1 info (what a `service` begins with), 2 debug, 3 everything.
pub fn install(verbose: u8, service: bool) {
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
    // Fails only when a logger is set already: a second run in one process, which keeps the first.
    let _ = log::set_logger(&LOGGER);
    log::set_max_level(level);
}

/// Puts a bar on the screen, or takes it away.
pub fn set_bar(bar: Option<ProgressBar>) {
    *BAR.lock().unwrap_or_else(PoisonError::into_inner) = bar;
}

/// A line on stderr, above the bar if there is one; nothing in it drives the terminal. Nothing can be done about a stderr that is gone.
pub fn say(line: impl fmt::Display) {
    let bar = BAR.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let line = foreign::harmless(&line.to_string());
    let write = || drop(writeln!(std::io::stderr().lock(), "{line}"));
    match bar {
        Some(bar) => bar.suspend(write),
        None => write(),
    }
}
