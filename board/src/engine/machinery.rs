//! What a backup runs on: pools out of one budget, uplink threads, and the reactor that waits for all of them.
//!
//! Invariants: everything has its place before the first byte is read, from the budget; what is taken of it is what is in use (P3).
//! Does not: decide what to back up. Source: `agent/doc/architecture.md`, Threads.

use std::os::fd::BorrowedFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use windlass_agent::drive::budget::Budget;
use windlass_agent::drive::job::Machinery;
use windlass_agent::drive::volume::Reactor;
use windlass_agent::pack::{BLOCK_BYTES_DEFAULT, OBJECT_BYTES_DEFAULT};
use windlass_agent::policy::Reader;
use windlass_agent::units::Human;
use windlass_hal::block::BlockDevice;
use windlass_hal::buf::Pool;
use windlass_hal::clock::SystemClock;
use windlass_hal::linux::poll::{Poll, Waker};
use windlass_hal::linux::{self, Access};
use windlass_hal::volume::detect;
#[cfg(feature = "ext4")]
use windlass_hal::volume::ext4::Ext4;
use windlass_hal::volume::image::Image;
#[cfg(feature = "mounted")]
use windlass_hal::volume::mounted::{Mounted, Recovery};
use windlass_hal::volume::{Volume, VolumeFault};
use windlass_hal::wrap::throttle::{Limits, Throttle};

use crate::engine::host::HostClock;
use crate::engine::limits::Iops;
use crate::failure::Failure;
use crate::{logger, text};

/// Read requests in flight at most; pools are smaller.
const READ_DEPTH: usize = 64;
/// Longest wait in one go where a device has no descriptor to wait for (a throttled one), in nanoseconds.
const BLIND_WAIT_NS: u64 = 500_000;
/// Longest wait in one go in nanoseconds: how soon a request to stop is noticed when nothing else happens.
const WAIT_NS: u64 = 250_000_000;

/// Waits for devices, lanes, uplinks and the log, on one poll.
pub struct HostReactor {
    poll: Poll,
    ready: Vec<usize>,
    /// Whether some device can only be asked, not waited for.
    blind: bool,
    devices: usize,
}

impl HostReactor {
    /// An empty one.
    pub fn new() -> Result<HostReactor, Failure> {
        let poll = Poll::new(16).map_err(|error| Failure::at("cannot make a poll", error))?;
        Ok(HostReactor { poll, ready: Vec::with_capacity(16), blind: false, devices: 0 })
    }

    /// Wakes it from other threads.
    pub fn waker(&self) -> Waker {
        self.poll.waker()
    }

    /// Waits for `device` too, for as long as it lives.
    pub fn add(&mut self, device: &dyn BlockDevice) -> Result<(), Failure> {
        match device.event_fd() {
            Some(fd) => self.watch(fd),
            None => {
                self.blind = true;
                Ok(())
            }
        }
    }

    fn watch(&mut self, fd: BorrowedFd<'_>) -> Result<(), Failure> {
        self.devices += 1;
        self.poll.add(fd, self.devices).map_err(|error| Failure::at("cannot wait for a device", error))
    }
}

impl Reactor for HostReactor {
    fn now_ns(&self) -> u64 {
        HostClock.boot_ns()
    }

    fn wall_ns(&self) -> i64 {
        HostClock.wall_ns()
    }

    fn wait(&mut self, deadline_ns: Option<u64>) {
        let left = deadline_ns.map(|deadline| deadline.saturating_sub(self.now_ns()));
        let longest = if self.blind { BLIND_WAIT_NS } else { WAIT_NS };
        let wait = Duration::from_nanos(left.map_or(longest, |ns| ns.min(longest)));
        if let Err(error) = self.poll.wait(Some(wait), &mut self.ready) {
            // The loop goes on by asking; a poll that never waits again would only cost CPU.
            log::warn!("reactor: poll failed, asking instead error={error}");
            HostClock.sleep(Duration::from_nanos(BLIND_WAIT_NS));
        }
    }
}

/// Pools of a budget, for blocks of up to `block_bytes`: (frames, pieces).
pub fn pools(budget: &Budget, block_bytes: u32) -> Result<(Pool, Pool), Failure> {
    Machinery::pools(budget, block_bytes).ok_or_else(|| {
        let bytes = budget.pool_bytes(block_bytes);
        Failure::new(format_args!(
            "the system does not give {} for buffers; use a smaller --memory, or memory.budget_mib of the board profile",
            Human(bytes)
        ))
    })
}

/// Refuses a memory budget that not even the smallest plan fits: what a backup asks for, a check and a restore ask for too.
pub fn refuse_small(memory_bytes: u64) -> Result<(), Failure> {
    let plan = Budget::plan(memory_bytes, BLOCK_BYTES_DEFAULT, OBJECT_BYTES_DEFAULT, 1, 1);
    plan.map(drop).map_err(Failure::usage)
}

/// Opens a device for reading, slowed down where its operations are limited.
pub fn open_device(
    path: &Path,
    iops: impl Into<Iops>,
    pools: &[Pool],
) -> Result<Box<dyn BlockDevice>, Failure> {
    let iops = iops.into();
    match iops.is_none() {
        true => linux::open(path, Access::Read, READ_DEPTH, pools).map_err(Failure::new),
        false => {
            let caching = linux::Caching::Direct;
            #[cfg(feature = "uring")]
            let device = linux::open_ring(path, Access::Read, caching, READ_DEPTH, pools);
            #[cfg(not(feature = "uring"))]
            let device = linux::open_pread(path, Access::Read, caching, READ_DEPTH);
            let device = device.map_err(Failure::new)?;
            let mut now = iops.now();
            let limits = move || Limits { iops: now().map(u64::from), bytes_per_sec: None };
            Ok(Box::new(Throttle::changing(device, Box::new(limits), Arc::new(SystemClock))))
        }
    }
}

/// Times that a device which is only held is asked about again, and how long apart: others that ask hold it for a moment too.
const HELD_TRIES: u32 = 20;
const HELD_WAIT: Duration = Duration::from_millis(50);

/// Refuses a device or image file that someone may write to while it is read.
pub fn refuse_written(path: &Path) -> Result<(), Failure> {
    for _ in 1..HELD_TRIES {
        match linux::writer(path) {
            None => return Ok(()),
            Some(writer) if !writer.may_pass() => return Err(Failure::new(writer)),
            Some(_) => HostClock.sleep(HELD_WAIT),
        }
    }
    linux::writer(path).map_or(Ok(()), |writer| Err(Failure::new(writer)))
}

/// The same as a warning, for what is looked at and not kept; whether there is one.
pub fn warn_written(path: &Path) -> bool {
    let refused = refuse_written(path);
    if let Err(why) = &refused {
        logger::say(format_args!("windlass: warning: {why}"));
    }
    refused.is_err()
}

/// Opens a whole device as one item, without the free blocks of the file system that alone is on it.
fn open_image(path: &Path, device: &mut dyn BlockDevice) -> Image {
    let known = detect::open_alone(device).and_then(|mut volume| Image::with_used(device, &mut *volume));
    known.unwrap_or_else(|why| {
        log::info!("image: all blocks are read path={} reason=\"{why}\"", path.display());
        Image::open(device)
    })
}

#[cfg(not(all(feature = "ext4", feature = "mounted")))]
fn left_out(reader: &str) -> VolumeFault {
    let what = format!("the reader {reader}, which this build leaves out");
    VolumeFault::Refused { what, way_out: "back the device up as an image, or use a build that has it" }
}

/// Opens a device through the kernel. `is_clean`: its log is known to need no replay.
#[cfg(feature = "mounted")]
pub fn open_mounted(
    path: &Path,
    device: &mut dyn BlockDevice,
    is_clean: bool,
) -> Result<Box<dyn Volume>, VolumeFault> {
    let recovery = if is_clean { Recovery::ProvenClean } else { Recovery::Refused };
    Ok(Box::new(Mounted::open(path, device, recovery)?))
}

/// Opens a device through the kernel: not in this build.
#[cfg(not(feature = "mounted"))]
pub fn open_mounted(_: &Path, _: &mut dyn BlockDevice, _: bool) -> Result<Box<dyn Volume>, VolumeFault> {
    Err(left_out("mounted"))
}

/// Opens what is on a device, as a policy says.
pub fn open_volume(
    path: &Path,
    device: &mut dyn BlockDevice,
    reader: Reader,
) -> Result<Box<dyn Volume>, Failure> {
    let opened: Result<Box<dyn Volume>, VolumeFault> = match reader {
        Reader::Auto | Reader::Raw => detect::open(device),
        #[cfg(feature = "ext4")]
        Reader::Ext4 => Ext4::open(device).map(|volume| -> Box<dyn Volume> { Box::new(volume) }),
        #[cfg(not(feature = "ext4"))]
        Reader::Ext4 => Err(left_out("ext4")),
        Reader::Mounted => open_mounted(path, device, false),
        Reader::Image => Ok(Box::new(open_image(path, device))),
    };
    opened.map_err(|fault| Failure::at(text::printable(path.as_os_str().as_encoded_bytes()), fault))
}
