//! This machine, as the agent is given it: clocks, random numbers, an identity for this start of the process.
//!
//! Invariants: the only place in the package that makes a clock or draws random bytes. Source: ours.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use windlass_agent::format::slot::{HolderKind, Who};
use windlass_agent::id::Boot;
use windlass_agent::units::Human;
use windlass_hal::clock::{Clock, SystemClock};
use windlass_hal::entropy::{Entropy as _, SystemEntropy};

use crate::failure::Failure;

/// Where the kernel gives the host's name.
const HOST_NAME: &str = "/proc/sys/kernel/hostname";

/// Characters of the system's id that a person types: enough to tell the machines of a site apart.
const MACHINE_ID_CHARS: usize = 8;

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

/// What this process says that it is, where it holds a lease.
pub fn who(kind: HolderKind) -> Who {
    let host = fs::read_to_string(HOST_NAME).unwrap_or_default();
    Who::new(kind, host.trim_end(), std::process::id())
}

/// The host's name up to its first dot, as the kernel has it; for people.
pub fn name() -> String {
    let host = fs::read_to_string(HOST_NAME).unwrap_or_default();
    let name = host.trim_end().split('.').next().unwrap_or_default();
    if name.is_empty() { "node".to_owned() } else { name.to_owned() }
}

/// The serial number of this machine as its firmware says it; else the begin of the system's own id. `None` where there is neither.
pub fn serial() -> Option<String> {
    // What boards say that were never given one.
    const NONE: [&str; 6] = [
        "none",
        "default string",
        "not specified",
        "to be filled by o.e.m.",
        "system serial number",
        "unknown",
    ];
    let read = |path: &&str| {
        let text = fs::read_to_string(path).ok()?;
        let text = text.trim_matches(|c: char| c.is_whitespace() || c == '\0').to_owned();
        let is_one = text.chars().any(|c| c.is_alphanumeric() && c != '0')
            && !NONE.contains(&text.to_lowercase().as_str());
        is_one.then_some(text)
    };
    let firmware = ["/sys/class/dmi/id/product_serial", "/sys/firmware/devicetree/base/serial-number"];
    let id = || read(&"/etc/machine-id").map(|id| id.chars().take(MACHINE_ID_CHARS).collect());
    firmware.iter().find_map(read).or_else(id)
}

/// Cores that this process may use, at least 1.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Most memory that this process had resident so far, in bytes: program, stacks, heap and buffers. 0 where the system does not say.
pub fn peak_memory_bytes() -> u64 {
    // Not getrusage: it counts what the parent had before this program was started in its copy.
    kib_of("/proc/self/status", "VmHWM:").unwrap_or(0) << 10
}

/// Memory that this process may have at most: of the machine, or of its control group where that is less, in bytes. `None` where the
/// system does not say.
pub fn memory_bytes() -> Option<u64> {
    let machine = kib_of("/proc/meminfo", "MemTotal:").map(|kib| kib << 10);
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let own = groups.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default();
    let limit = |group: &Path| {
        fs::read_to_string(Path::new("/sys/fs/cgroup").join(group).join("memory.max"))
            .ok()?
            .trim()
            .parse()
            .ok()
    };
    machine.into_iter().chain(Path::new(own).ancestors().filter_map(limit)).min()
}

/// Refuses a memory budget above what there is.
pub fn refuse_memory(budget_bytes: u64) -> Result<(), Failure> {
    match memory_bytes() {
        Some(have) if budget_bytes > have => Err(Failure::usage(format_args!(
            "a memory budget of {} is more than this process may have: there are {} (of the machine, or of the control group it runs in)",
            Human(budget_bytes),
            Human(have)
        ))),
        _ => Ok(()),
    }
}

/// The number in KiB behind `name` in a file of `/proc`.
fn kib_of(file: &str, name: &str) -> Option<u64> {
    let text = fs::read_to_string(file).ok()?;
    let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
    rest.split_ascii_whitespace().next()?.parse().ok()
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
