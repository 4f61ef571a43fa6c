//! Progress: what a running backup, restore or check shows to those that watch, and the one thing that the watcher says back: stop.
//!
//! A job holds a `&Progress` (or an `Arc`) and adds to it as it goes; a watcher takes a [`Snapshot`] whenever it likes. Nothing
//! waits for anything: all fields are relaxed atomics, so a snapshot may be a few operations old and its numbers need not belong
//! to the same instant. Totals are estimates until the phase that counts them is over; `0` means "not known yet".
//!
//! Invariants: counters only grow within a job. Does not: know time, print, or hold text. Source: ours; promise P8.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};

/// What a job is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Phase {
    /// Not begun.
    #[default]
    Idle = 0,
    /// Making what the job works on (the demo's files).
    Preparing = 1,
    /// Opening the repository, reading the log, waiting for the lease.
    Opening = 2,
    /// Walking paths to find out what is selected.
    Selecting = 3,
    /// Backup: reading, packing, uploading.
    BackingUp = 4,
    /// Restore or check: reading tables, planning requests.
    Planning = 5,
    /// Restore: fetching and writing data.
    Restoring = 6,
    /// Check: verifying references, and bytes if asked to.
    Checking = 7,
    /// Last commits, attributes, renames.
    Finishing = 8,
    /// Over, well or not.
    Done = 9,
}

impl Phase {
    /// One word for people and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Phase::Idle => "idle",
            Phase::Preparing => "preparing",
            Phase::Opening => "opening",
            Phase::Selecting => "selecting",
            Phase::BackingUp => "backup",
            Phase::Planning => "planning",
            Phase::Restoring => "restore",
            Phase::Checking => "check",
            Phase::Finishing => "finishing",
            Phase::Done => "done",
        }
    }

    fn from_u8(value: u8) -> Phase {
        const ALL: [Phase; 10] = [
            Phase::Idle,
            Phase::Preparing,
            Phase::Opening,
            Phase::Selecting,
            Phase::BackingUp,
            Phase::Planning,
            Phase::Restoring,
            Phase::Checking,
            Phase::Finishing,
            Phase::Done,
        ];
        ALL.get(usize::from(value)).copied().unwrap_or_default()
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A counter that one or more threads add to and others read.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// Replaces: for totals, and for counters that are kept elsewhere and copied here.
    pub fn set(&self, n: u64) {
        self.0.store(n, Ordering::Relaxed);
    }

    /// Reads.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A job's counters. See the module's docs.
#[derive(Debug, Default)]
pub struct Progress {
    phase: AtomicU8,
    stop: AtomicBool,
    /// Items expected, 0 while unknown.
    pub items_total: Counter,
    /// Items dealt with.
    pub items_done: Counter,
    /// Bytes of contents expected, 0 while unknown: what the bar measures.
    pub bytes_total: Counter,
    /// Bytes of contents dealt with, skipped ones (holes, unchanged) included: reaches `bytes_total`.
    pub bytes_done: Counter,
    /// Bytes read: from the device (backup) or from the store (restore, check).
    pub bytes_read: Counter,
    /// Bytes that went through compression and sealing (backup) or came out of it.
    pub bytes_packed: Counter,
    /// Bytes stored: acknowledged by the store (backup) or written to the target (restore).
    pub bytes_stored: Counter,
    /// Upload objects sent or read.
    pub objects: Counter,
    /// Requests to the store that changed it (PUT), repeats included.
    pub puts: Counter,
    /// Requests to the store that only read (GET, LIST), repeats included.
    pub gets: Counter,
    /// Requests that were repeated.
    pub retries: Counter,
    /// Items with a fault so far.
    pub faults: Counter,
}

impl Progress {
    /// All zero, idle, not stopped.
    pub fn new() -> Progress {
        Progress::default()
    }

    /// Enters a phase.
    pub fn enter(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Relaxed);
    }

    /// Asks the job to end soon and cleanly: finish what is in flight, leave nothing half written, return "stopped".
    pub fn request_stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Whether the job was asked to end. Jobs look at it at least once a second.
    pub fn is_stop_requested(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// The flag itself, for drivers that take one.
    pub fn stop_flag(&self) -> &AtomicBool {
        &self.stop
    }

    /// All numbers at about one moment.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            phase: Phase::from_u8(self.phase.load(Ordering::Relaxed)),
            items_total: self.items_total.get(),
            items_done: self.items_done.get(),
            bytes_total: self.bytes_total.get(),
            bytes_done: self.bytes_done.get(),
            bytes_read: self.bytes_read.get(),
            bytes_packed: self.bytes_packed.get(),
            bytes_stored: self.bytes_stored.get(),
            objects: self.objects.get(),
            puts: self.puts.get(),
            gets: self.gets.get(),
            retries: self.retries.get(),
            faults: self.faults.get(),
        }
    }
}

/// The numbers of a [`Progress`] at about one moment; the fields are its fields.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Snapshot {
    pub phase: Phase,
    pub items_total: u64,
    pub items_done: u64,
    pub bytes_total: u64,
    pub bytes_done: u64,
    pub bytes_read: u64,
    pub bytes_packed: u64,
    pub bytes_stored: u64,
    pub objects: u64,
    pub puts: u64,
    pub gets: u64,
    pub retries: u64,
    pub faults: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_shows_what_was_added_and_phases_survive_the_atomic() {
        let progress = Progress::new();
        progress.items_done.add(3);
        progress.items_done.add(4);
        progress.bytes_total.set(9);
        for phase in [Phase::Idle, Phase::BackingUp, Phase::Done] {
            progress.enter(phase);
            assert_eq!(progress.snapshot().phase, phase);
        }
        let expected = Snapshot { phase: Phase::Done, items_done: 7, bytes_total: 9, ..Snapshot::default() };
        assert_eq!(progress.snapshot(), expected);
    }

    #[test]
    fn a_stop_request_is_seen() {
        let progress = Progress::new();
        assert!(!progress.is_stop_requested());
        progress.request_stop();
        assert!(progress.is_stop_requested());
    }
}
