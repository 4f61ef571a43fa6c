//! What may write to a block device or image file while it is read. A read of such a volume mixes several
//! moments, and no checksum shows it.
//!
//! ```text
//!  image file --> loop devices over it --.
//!                                        v
//!  device --> its partitions, the devices that are made of it (holders in sysfs), loop devices over it, and so on upwards
//!                 each of them:  mounted read-write (any mount namespace that /proc shows)?  swap?  held exclusively (O_EXCL)?
//! ```
//!
//! Fine: nothing, a mount of which the file system itself is read-only, whatever stands on a device that the kernel does not write
//! to (`ro`), and what is below: a snapshot may be read while its origin is written.
//!
//! Invariants: nothing is changed. To ask whether a device is held it is held for a moment, and only when
//! no other sign was found; another process that asks in that moment gets the answer "held", so a caller that
//! would refuse for it asks again.
//!
//! Does not: see programs that write to an image file or device without claiming it.
//! Source: proc_pid_mountinfo(5), proc_swaps(5), open(2) `O_EXCL`, Documentation/ABI/stable/sysfs-block.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::libc;
use nix::sys::stat::{major, makedev, minor};

use super::file::errno_of;
use super::sysfs;

/// Devices that are looked at on the way up; stacks of real machines have a handful of levels, disks up to 256 partitions.
const DEVICES_MAX: usize = 4096;

/// What may write to a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Writer {
    /// What is read.
    path: PathBuf,
    /// What stands on it, or is a part of it, and is written; `None` for itself.
    through: Option<String>,
    kind: WriterKind,
}

/// How it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
enum WriterKind {
    /// Mounted read-write, there; the process whose mount namespace has it, if that is not ours.
    Mounted(String, Option<String>),
    /// Swap space.
    Swap,
    /// Held exclusively; the holder is not visible.
    Held,
}

impl Writer {
    /// Whether asking again may find it gone: it was only held.
    pub fn may_pass(&self) -> bool {
        self.kind == WriterKind::Held
    }
}

impl fmt::Display for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.path.display())?;
        if let Some(through) = &self.through {
            write!(f, "is in use: {through}, which stands on it or is a part of it, ")?;
        }
        match &self.kind {
            WriterKind::Mounted(at, process) => {
                write!(f, "is mounted read-write at {at}")?;
                if let Some(process) = process {
                    write!(f, " (in the mount namespace of process {process})")?;
                }
                f.write_str(
                    ", and what changes while it is read is not fit to be restored; back up a snapshot of it, or unmount it or mount it read-only first",
                )
            }
            WriterKind::Swap => f.write_str("is used as swap space; leave it out, or run `swapoff` first"),
            WriterKind::Held => f.write_str(
                "is held by someone who may write to it (a RAID set, device-mapper, a virtual machine, or a mount that this process cannot see); back up a snapshot of it, or stop its user first (`lsblk` and `fuser -v` show who it is)",
            ),
        }
    }
}

/// Finds what may write to the block device or image file at `path`. If that cannot be found out (no such
/// path, no sysfs, no permission), the answer is `None`. Reads `/proc` and `/sys`; allocates.
pub fn writer(path: &Path) -> Option<Writer> {
    let stat = fs::metadata(path).ok()?;
    let mut search = Search { mounts: mounts(), swaps: swaps(), seen: BTreeSet::new(), loops: loops() };
    let (through, kind) = if stat.file_type().is_block_device() {
        search.device(Device::of(stat.rdev()), Some(path))?
    } else {
        search
            .over(|backing| !backing.is_block() && (backing.dev, backing.ino) == (stat.dev(), stat.ino()))
            .0?
    };
    Some(Writer { path: path.to_owned(), through, kind })
}

/// A device number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Device {
    major: u64,
    minor: u64,
}

impl Device {
    fn of(number: u64) -> Device {
        Device { major: major(number), minor: minor(number) }
    }

    /// `8:1`.
    fn parse(text: &str) -> Option<Device> {
        let (major, minor) = text.trim().split_once(':')?;
        Some(Device { major: major.parse().ok()?, minor: minor.parse().ok()? })
    }

    fn number(self) -> u64 {
        makedev(self.major, self.minor)
    }
}

/// A mounted file system.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Mount {
    device: Device,
    source: String,
    at: String,
    writable: bool,
    /// The process whose namespace has it, if not ours.
    process: Option<String>,
}

/// What a loop device stands on.
struct Backing {
    device: Device,
    /// Zero for a block device.
    dev: u64,
    ino: u64,
    /// Zero for a file.
    rdev: u64,
}

impl Backing {
    fn is_block(&self) -> bool {
        self.rdev != 0
    }
}

/// A writer: through which device, and how.
type Found = (Option<String>, WriterKind);

struct Search {
    mounts: Vec<Mount>,
    swaps: Vec<u64>,
    loops: Vec<Backing>,
    seen: BTreeSet<Device>,
}

impl Search {
    /// A device and all that stands on it. `path`: what it was asked for by, of the first one.
    fn device(&mut self, device: Device, path: Option<&Path>) -> Option<Found> {
        if self.seen.len() >= DEVICES_MAX || !self.seen.insert(device) {
            return None;
        }
        let own = sysfs::BlockNode::find(device.major, device.minor);
        if own.as_ref().is_some_and(sysfs::BlockNode::is_read_only) {
            return None;
        }
        let name = own.as_ref().map(sysfs::BlockNode::path);
        let through = path.is_none().then(|| name.clone().unwrap_or_default());
        let number = device.number();
        let on_it = |mount: &&Mount| mount.device == device || is_device(&mount.source, number);
        let mut mounts = self.mounts.iter().filter(on_it);
        let mut explained = mounts.clone().next().is_some();
        if let Some(mount) = mounts.find(|mount| mount.writable) {
            return Some((through, WriterKind::Mounted(mount.at.clone(), mount.process.clone())));
        }
        if self.swaps.contains(&number) {
            return Some((through, WriterKind::Swap));
        }
        for above in own.map(|own| own.above()).unwrap_or_default() {
            explained = true;
            if let Some(found) = Device::parse(&above).and_then(|above| self.device(above, None)) {
                return Some(found);
            }
        }
        let (found, any) = self.over(|backing| backing.rdev == number);
        explained |= any;
        if found.is_some() {
            return found;
        }
        let node = path.map(Path::to_owned).or_else(|| name.map(PathBuf::from))?;
        (!explained && is_held(&node, number)).then_some((through, WriterKind::Held))
    }

    /// The loop devices that stand on something, and what stands on those; whether there are any.
    fn over(&mut self, on: impl Fn(&Backing) -> bool) -> (Option<Found>, bool) {
        let over: Vec<Device> = self.loops.iter().filter(|b| on(b)).map(|b| b.device).collect();
        let any = !over.is_empty();
        (over.into_iter().find_map(|device| self.device(device, None)), any)
    }
}

/// Whether `path` is the node of a device.
fn is_device(path: &str, number: u64) -> bool {
    path.starts_with("/dev/")
        && fs::metadata(path).is_ok_and(|stat| stat.file_type().is_block_device() && stat.rdev() == number)
}

/// Whether someone has claimed a device. A partition's claim is its disk's too.
fn is_held(node: &Path, number: u64) -> bool {
    // The node may be another device's by now, or nothing.
    if !fs::metadata(node).is_ok_and(|stat| stat.file_type().is_block_device() && stat.rdev() == number) {
        return false;
    }
    let flags = libc::O_EXCL | libc::O_NONBLOCK | libc::O_CLOEXEC;
    let opened = fs::OpenOptions::new().read(true).custom_flags(flags).open(node);
    opened.is_err_and(|error| errno_of(&error) == Errno::EBUSY)
}

/// The mounts of the namespaces of all visible processes.
fn mounts() -> Vec<Mount> {
    let own = fs::read_link("/proc/self/ns/mnt").ok();
    let mut seen = BTreeSet::new();
    let mut mounts = Vec::new();
    let mut take = |process: &str, foreign: bool| {
        let text = fs::read(format!("/proc/{process}/mountinfo")).unwrap_or_default();
        let process = foreign.then_some(process);
        mounts.extend(String::from_utf8_lossy(&text).lines().filter_map(|line| parse(line, process)));
    };
    take("self", false);
    seen.extend(own);
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some(process) = name.to_str().filter(|name| name.bytes().all(|b| b.is_ascii_digit())) else {
            continue;
        };
        // A process that is gone, or not ours to look at, has no answer.
        if let Ok(namespace) = fs::read_link(format!("/proc/{process}/ns/mnt"))
            && seen.insert(namespace)
        {
            take(process, true);
        }
    }
    mounts
}

/// A line of mountinfo: `36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue`.
fn parse(line: &str, process: Option<&str>) -> Option<Mount> {
    let (mount, file_system) = line.split_once(" - ")?;
    let mut mount = mount.split(' ').skip(2);
    let device = Device::parse(mount.next()?)?;
    let at = mount.nth(1)?;
    let mut file_system = file_system.split(' ').skip(1);
    let source = unescape(file_system.next()?);
    // Those of the file system, not of the mount: a read-only mount of one that others write to is no proof.
    let writable = file_system.next()?.split(',').any(|option| option == "rw");
    Some(Mount {
        device,
        source,
        at: unescape(at).escape_debug().to_string(),
        writable,
        process: process.map(str::to_owned),
    })
}

/// What the kernel wrote as `\040`.
fn unescape(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('\\') {
        out.push_str(before);
        let byte = after.get(..3).and_then(|octal| u8::from_str_radix(octal, 8).ok());
        out.push(byte.map_or('\\', char::from));
        rest = if byte.is_some() { after.get(3..).unwrap_or_default() } else { after };
    }
    out + rest
}

/// Device numbers of swap space.
fn swaps() -> Vec<u64> {
    let text = fs::read_to_string("/proc/swaps").unwrap_or_default();
    let paths = text.lines().skip(1).filter_map(|line| line.split_whitespace().next());
    paths
        .filter_map(|path| fs::metadata(unescape(path)).ok())
        .filter(|stat| stat.file_type().is_block_device())
        .map(|stat| stat.rdev())
        .collect()
}

/// Loop devices and what they stand on.
fn loops() -> Vec<Backing> {
    let found = sysfs::loops().into_iter().filter_map(|(number, backing)| {
        let stat = fs::metadata(backing).ok()?;
        let is_block = stat.file_type().is_block_device();
        Some(Backing {
            device: Device::parse(&number)?,
            dev: if is_block { 0 } else { stat.dev() },
            ino: if is_block { 0 } else { stat.ino() },
            rdev: if is_block { stat.rdev() } else { 0 },
        })
    });
    found.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_mounts_are_understood() {
        let line =
            r"36 35 98:0 /mnt1 /mnt\0402 ro,noatime master:1 shared:2 - ext3 /dev/root rw,errors=continue";
        let mount = parse(line, Some("7")).unwrap();
        assert_eq!(mount.device, Device { major: 98, minor: 0 });
        assert_eq!((mount.at.as_str(), mount.source.as_str()), ("/mnt 2", "/dev/root"));
        assert!(mount.writable, "the file system's own word counts");
        assert_eq!(mount.process.as_deref(), Some("7"));
        let line = r"40 35 0:44 / /x\134y rw - btrfs /dev/loop0 ro,space_cache=v2,subvol=/rw";
        let mount = parse(line, None).unwrap();
        assert_eq!((mount.writable, mount.at.as_str()), (false, r"/x\\y"));
        for broken in ["", "36 35 98:0", "36 35 x:0 / / rw - ext4 a rw", "36 35 98:0 / / rw - ext4"] {
            assert_eq!(parse(broken, None), None, "{broken}");
        }
        assert_eq!(unescape(r"a\b\04\"), r"a\b\04\");
    }

    #[test]
    fn what_is_not_there_is_written_by_nobody() {
        assert_eq!(writer(Path::new("/nonexistent")), None);
        assert_eq!(writer(Path::new("/proc/self/maps")), None);
    }
}
