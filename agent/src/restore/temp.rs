//! A file on its way to its name, or one that was there and is written in place.
//!
//! | made by | name | gives way to others | when the restore ends early |
//! |---|---|---|---|
//! | this restore | none, or one in the staging directory | when it is large | is gone, but for a large one ([`parts`](super::parts)) |
//! | another process ([`Temp::of_existing`]), or a device | its own | never | has what was written so far |
//!
//! Invariants: what gives way gives all its room back, once, and is not written to afterwards. Source: ours; `target`.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};

use windlass_hal::tree::{Errno, Node};

/// A file without its final name.
#[derive(Debug)]
pub struct Temp<N> {
    /// Open for writing.
    pub node: N,
    /// Its name in the staging directory, where the file system knows no unnamed files.
    name: Mutex<Option<String>>,
    /// Whether it is another's, or a device: nothing of it is freed.
    is_kept: bool,
    /// Bytes written or allocated so far.
    taken: AtomicU64,
    /// Whether it is one of those that may give way.
    pub(super) is_listed: AtomicBool,
    /// One of [`phase`].
    phase: AtomicU8,
    /// Held for reading by a thread that writes a block, so that giving way waits for them: what they write then would stay.
    writers: RwLock<()>,
}

/// What becomes of an unfinished file. It leaves [`WRITING`](phase::WRITING) once.
mod phase {
    /// Blocks are still being written.
    pub(super) const WRITING: u8 = 0;
    /// It is about to get its name.
    pub(super) const FINISHING: u8 = 1;
    /// It gave its room to others.
    pub(super) const GAVE_WAY: u8 = 2;
}

impl<N: Node> Temp<N> {
    pub(super) fn new(node: N, name: Option<String>) -> Temp<N> {
        Temp {
            node,
            name: Mutex::new(name),
            is_kept: false,
            taken: AtomicU64::new(0),
            is_listed: AtomicBool::new(false),
            phase: AtomicU8::new(phase::WRITING),
            writers: RwLock::new(()),
        }
    }

    /// An open device, or a file that was there and has its names.
    pub fn of_existing(node: N) -> Temp<N> {
        Temp { is_kept: true, ..Temp::new(node, None) }
    }

    /// A file that an earlier restore had begun, called `name` in the staging directory, of `taken` bytes.
    pub(super) fn of_part(node: N, name: String, taken: u64) -> Temp<N> {
        Temp { taken: AtomicU64::new(taken), ..Temp::new(node, Some(name)) }
    }

    pub(super) fn name(&self) -> MutexGuard<'_, Option<String>> {
        self.name.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it may be finished: from now on it gives no way. `false` when it did already.
    pub fn finish(&self) -> bool {
        self.leave(phase::FINISHING)
    }

    /// Runs `write`, which takes `bytes`, unless the file gave way: then `ECANCELED`.
    pub fn write(&self, bytes: u64, write: impl FnOnce(&N) -> Result<(), Errno>) -> Result<(), Errno> {
        let _writing = self.writers.read().unwrap_or_else(PoisonError::into_inner);
        if self.gave_way() {
            return Err(Errno::CANCELED);
        }
        write(&self.node)?;
        self.taken.fetch_add(bytes, Ordering::Relaxed);
        Ok(())
    }

    /// Frees what it takes, or waits until another thread has: it will not be restored. `false` when it is being finished.
    pub(super) fn give_way(&self) -> bool {
        if self.is_kept {
            return false;
        }
        let _nobody_writes = self.writers.write().unwrap_or_else(PoisonError::into_inner);
        if self.leave(phase::GAVE_WAY) {
            // Fails on what is no plain file, which never gives way.
            let _ = self.node.set_len(0);
            self.taken.store(0, Ordering::Relaxed);
        }
        self.gave_way()
    }

    /// Bytes written or allocated so far.
    pub fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }

    /// Whether it gave its room to others, so that it will not be restored.
    pub fn gave_way(&self) -> bool {
        self.phase.load(Ordering::Acquire) == phase::GAVE_WAY
    }

    fn leave(&self, to: u8) -> bool {
        let left = self.phase.compare_exchange(phase::WRITING, to, Ordering::AcqRel, Ordering::Acquire);
        left.is_ok()
    }
}
