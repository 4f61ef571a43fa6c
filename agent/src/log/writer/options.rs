//! How a writer behaves, and what tests may leave out. Source: ours.

use crate::format::feature::FeatureName;
use crate::log::lease::Timing;
use crate::log::limits::CHECKPOINT_SLOTS;
use crate::log::replay::ReplayOptions;

/// How a writer behaves. `Default` is what the design says; tests shrink numbers and switch checks off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct WriterOptions {
    /// Times of the lease.
    pub timing: Timing,
    /// How it reads the log.
    pub replay: ReplayOptions,
    /// Slots between checkpoints.
    pub checkpoint_slots: u64,
    /// Slots that the boundary stays behind the last checked one.
    pub boundary_lag_slots: u64,
    /// What may be left out, in tests that must then find a violation.
    pub checks: Checks,
    /// A feature of the repository's description that keeps this program from writing: the lease is not taken.
    pub read_only: Option<FeatureName>,
}

impl Default for WriterOptions {
    fn default() -> WriterOptions {
        WriterOptions {
            timing: Timing::default(),
            replay: ReplayOptions::default(),
            checkpoint_slots: CHECKPOINT_SLOTS,
            boundary_lag_slots: CHECKPOINT_SLOTS,
            checks: Checks::default(),
            read_only: None,
        }
    }
}

/// Checks that a test may switch off to see that it matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Checks {
    /// GET epoch/e+1 after each create.
    pub epoch: bool,
    /// Compare the nonce of a slot that exists already with ours.
    pub nonce: bool,
    /// Read the slot when a create says that it exists. Off: such a batch is taken for one that does not count.
    pub exists: bool,
    /// An answer to a beat at or after the end of the lease does not renew it. Off: it does, and the end waits for it.
    pub late_answer: bool,
    /// The coordinator accepts a report of a stretch that is done only when the tables name its objects.
    pub named: bool,
    /// The coordinator accepts a report after its commit. Off: before.
    pub commit_first: bool,
    /// A node drops orders of an older epoch than the highest seen.
    pub fence: bool,
    /// A coordinator does nothing when the lease could end before it arrives (L1).
    pub lease: bool,
}

impl Default for Checks {
    fn default() -> Checks {
        Checks {
            epoch: true,
            nonce: true,
            exists: true,
            late_answer: true,
            named: true,
            commit_first: true,
            fence: true,
            lease: true,
        }
    }
}
