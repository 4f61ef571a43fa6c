//! This machine, as the agent is given it: clocks, random numbers, an identity for this start of the process.
//!
//! Invariants: the only place in the package that makes a clock or draws random bytes. Source: ours.

use std::sync::Arc;
use std::time::Duration;

use windlass_agent::id::Boot;
use windlass_hal::clock::{Clock, SystemClock};
use windlass_hal::entropy::{Entropy as _, SystemEntropy};

use crate::failure::Failure;

/// The machine's clock, in the units that commands count in.
#[derive(Clone, Copy, Debug, Default)]
pub struct HostClock;

impl HostClock {
    /// Nanoseconds since boot.
    pub fn boot_ns(&self) -> u64 {
        SystemClock.now().as_ns()
    }

    /// Wall clock, nanoseconds since 1970, for people.
    pub fn wall_ns(&self) -> i64 {
        let wall = SystemClock.wall();
        wall.secs.saturating_mul(1_000_000_000).saturating_add(i64::from(wall.nanos))
    }

    /// Lets time pass.
    pub fn sleep(&self, span: Duration) {
        SystemClock.sleep(span);
    }

    /// Shared, for the store.
    pub fn shared() -> Arc<dyn Clock> {
        Arc::new(SystemClock)
    }
}

/// Random bytes, fit for keys.
pub fn random<const N: usize>() -> Result<[u8; N], Failure> {
    let mut bytes = [0; N];
    SystemEntropy.fill(&mut bytes).map_err(Failure::new)?;
    Ok(bytes)
}

/// A number of this start of the process that no other start has.
pub fn boot() -> Result<Boot, Failure> {
    Ok(Boot(u64::from_le_bytes(random()?)))
}

/// Cores that this process may use, at least 1.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Most memory that this process had resident so far, in bytes.
pub fn peak_memory_bytes() -> u64 {
    use nix::sys::resource::{UsageWho, getrusage};
    let kib = getrusage(UsageWho::RUSAGE_SELF).map_or(0, |usage| usage.max_rss());
    u64::try_from(kib).unwrap_or(0) << 10
}

/// Lets the process open as many files as the system allows: a restore holds one for every file that comes in pieces.
pub fn raise_descriptors() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < hard
        && let Err(errno) = setrlimit(Resource::RLIMIT_NOFILE, hard, hard)
    {
        log::warn!("restore: limit of open files not raised limit={soft} errno={errno}");
    }
}
