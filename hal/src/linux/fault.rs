//! Why a device cannot be opened: what, where, and what to do.
//!
//! Invariants
//! - One kind for each thing that an operator does differently.
//!
//! Does not: describe failures of an open device; that is [`crate::block::Fault`].
//!
//! Source: open(2), statx(2), io_uring_setup(2).

use std::fmt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;

/// Why [`super::open`] refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenFault {
    /// What kind of failure.
    pub kind: OpenFaultKind,
    /// The path that was to be opened.
    pub path: PathBuf,
    /// The system's error number, 0 when none.
    pub errno: i32,
}

/// The kinds of failure to open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenFaultKind {
    /// No such path.
    NotFound,
    /// The process may not open it so.
    Permission,
    /// Write access, and someone else holds it: a mount, a RAID set, device-mapper, swap.
    Busy,
    /// Write access to what is read-only.
    ReadOnly,
    /// A directory.
    Directory,
    /// A socket, pipe or character device.
    NotADevice,
    /// It holds not even one logical block.
    Empty,
    /// Its units are outside what the hal supports (logical block 512..=65536, a power of two).
    Units,
    /// The device node exists and the device does not.
    Gone,
    /// The process has no descriptors or memory left for it.
    Exhausted,
    /// The kernel's queue (io_uring, eventfd, threads) cannot be made.
    Queue,
    /// Anything else; see the error number.
    Other,
}

impl OpenFault {
    /// A fault without an error number.
    pub(super) fn new(kind: OpenFaultKind, path: &Path) -> OpenFault {
        OpenFault { kind, path: path.to_path_buf(), errno: 0 }
    }

    /// The fault that an error number of open(2) or an ioctl means.
    pub(super) fn from_errno(errno: Errno, path: &Path) -> OpenFault {
        let kind = match errno {
            Errno::ENOENT | Errno::ENOTDIR => OpenFaultKind::NotFound,
            Errno::EACCES | Errno::EPERM => OpenFaultKind::Permission,
            Errno::EBUSY | Errno::ETXTBSY => OpenFaultKind::Busy,
            Errno::EROFS => OpenFaultKind::ReadOnly,
            Errno::EISDIR => OpenFaultKind::Directory,
            Errno::ENXIO | Errno::ENODEV | Errno::ENOMEDIUM => OpenFaultKind::Gone,
            Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM => OpenFaultKind::Exhausted,
            _ => OpenFaultKind::Other,
        };
        OpenFault { kind, path: path.to_path_buf(), errno: errno as i32 }
    }

    /// A failure to make the queue behind the device.
    pub(super) fn queue(errno: i32, path: &Path) -> OpenFault {
        OpenFault { kind: OpenFaultKind::Queue, path: path.to_path_buf(), errno }
    }
}

impl OpenFaultKind {
    /// What it is, and what to do about it.
    fn sentences(self) -> (&'static str, &'static str) {
        match self {
            OpenFaultKind::NotFound => ("does not exist", "check the path; list devices with `lsblk -p`"),
            OpenFaultKind::Permission => {
                ("may not be opened by this user", "run as root or join the device's group (usually `disk`)")
            }
            OpenFaultKind::Busy => (
                "is in use (mounted, or part of a RAID set, a device-mapper device or swap)",
                "unmount or stop its user first; `lsblk` and `fuser -vm` show who it is",
            ),
            OpenFaultKind::ReadOnly => ("is read-only", "choose another target or make it writable"),
            OpenFaultKind::Directory => ("is a directory", "name a block device or an image file"),
            OpenFaultKind::NotADevice => {
                ("is neither a block device nor a plain file", "name a block device or an image file")
            }
            OpenFaultKind::Empty => (
                "holds less than one block",
                "check that the medium is present, or give the file its size first",
            ),
            OpenFaultKind::Units => {
                ("has a block size that is not a power of two in 512..=65536 bytes", "it cannot be used")
            }
            OpenFaultKind::Gone => ("has no device behind it", "check its cable and `dmesg`"),
            OpenFaultKind::Exhausted => (
                "cannot be opened: the process ran out of descriptors or memory",
                "raise `ulimit -n` or free memory",
            ),
            OpenFaultKind::Queue => (
                "cannot be queued to: the kernel refused an I/O queue",
                "see `sysctl kernel.io_uring_disabled` and `ulimit -l`",
            ),
            OpenFaultKind::Other => ("cannot be opened", "see `dmesg`"),
        }
    }
}

impl fmt::Display for OpenFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (what, way_out) = self.kind.sentences();
        write!(f, "{} {what}", self.path.display())?;
        if self.errno != 0 {
            write!(f, " ({})", Errno::from_raw(self.errno).desc())?;
        }
        write!(f, "; {way_out}")
    }
}

impl std::error::Error for OpenFault {}
