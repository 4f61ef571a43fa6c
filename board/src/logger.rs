//! The `log` facade on stderr: `warn: device: no direct I/O path=/x`. Errors and warnings always, more with `-v`.
//!
//! While a progress bar is on the screen, lines go above it. Does not: write files, keep history. Source: ours.

use std::fmt;
use std::io::Write;
use std::sync::{Mutex, PoisonError};

use indicatif::ProgressBar;
use log::{Level, LevelFilter, Log, Metadata, Record};
use windlass_agent::foreign;

static BAR: Mutex<Option<ProgressBar>> = Mutex::new(None);
static LOGGER: Stderr = Stderr;

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
            say(foreign::line(&format!("{level}: {}", record.args())));
        }
    }

    fn flush(&self) {}
}

/// Starts logging: warnings, with `verbose` 1 info, 2 debug, 3 everything.
pub fn install(verbose: u8) {
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
