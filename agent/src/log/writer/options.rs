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
    /// The log's end is lost: the lease is not taken before that is there again, or the log is made anew. Else the log goes on behind it, as it
    /// does for a command whose user was told what is lost.
    pub keeps_to_end: bool,
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
            keeps_to_end: false,
            read_only: None,
        }
    }
}

/// What a program says of itself that was built so that its checks can be switched off: the binary that ships is without it.
#[cfg(feature = "weaken")]
pub const WEAKENED: &str = "windlass-agent: built for tests, checks can be switched off";

/// Declares [`Checks`]: fields that tests change with the feature `weaken`, and nothing that could be changed without.
macro_rules! checks {
    ($($(#[doc = $doc:literal])+ $name:ident,)+) => {
        /// Checks that a test may switch off to see that each matters; only in a build with the feature `weaken`.
        #[cfg(feature = "weaken")]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub struct Checks {
            $($(#[doc = $doc])+ pub $name: bool,)+
        }

        /// Checks, all of which are always made: only a build with the feature `weaken` can leave one out.
        #[cfg(not(feature = "weaken"))]
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
        pub struct Checks {}

        #[cfg(feature = "weaken")]
        impl Default for Checks {
            fn default() -> Checks {
                std::hint::black_box(WEAKENED);
                Checks { $($name: true,)+ }
            }
        }

        #[cfg(feature = "weaken")]
        impl Checks {
            $($(#[doc = $doc])+ pub(crate) fn $name(&self) -> bool {
                self.$name
            })+
        }

        #[cfg(not(feature = "weaken"))]
        #[allow(clippy::unused_self, reason = "the same calls as with the feature")]
        impl Checks {
            $($(#[doc = $doc])+ pub(crate) fn $name(&self) -> bool {
                true
            })+
        }
    };
}

checks! {
    /// GET epoch/e+1 after each create.
    epoch,
    /// Compare the nonce of a slot that exists already with ours.
    nonce,
    /// Read the slot when a create says that it exists. Off: such a batch is taken for one that does not count.
    exists,
    /// An answer to a beat at or after the end of the lease does not renew it. Off: it does, and the end waits for it.
    late_answer,
    /// The coordinator accepts a report of a stretch that is done only when the tables name its objects.
    named,
    /// The coordinator accepts a report after its commit. Off: before.
    commit_first,
    /// A node drops orders of an older epoch than the highest seen.
    fence,
    /// A coordinator does nothing when the lease could end before it arrives (L1).
    lease,
    /// A point is guarded as its policy says.
    guard,
    /// A point leaves by the coordinator's clock. Off: by that of who asks.
    date,
    /// A subject gets what its roles let it.
    roles,
    /// A coordinator that takes over leaves alone what was stopped.
    stopped,
}
