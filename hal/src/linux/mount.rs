//! A read-only mount that no other process sees and that ends with this one.
//!
//! ```text
//!  image file, or a device that may be written ──> loop device, read-only, gone with its last user ──┐
//!  device that the kernel holds read-only (BLKROGET) ──────────────────────────────────────────────┴─> fsopen, fsconfig,
//!                                                                                                       fsmount ─> descriptor
//! ```
//!
//! The mount is made with the calls of kernel 5.2 and never attached anywhere: it is in an anonymous
//! namespace of its own, is reached through its descriptor only, propagates nowhere, and ends when the
//! descriptor is closed, also when the process is killed. A thread with `unshare(CLONE_NEWNS)` would give the
//! reader the same, with a thread, a path and something to clean up.
//!
//! Invariants (P7): what is mounted is a block device that the kernel itself refuses to write: a `ro` mount alone would still
//! let a journal be replayed. The backing of a loop device is open for reading only.
//!
//! Does not: know file systems; options are the caller's. Source: fsopen(2), fsmount(2), loop(4).

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::libc;
use rustix::fs::{Mode, OFlags};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};

use super::sys;

/// Tries to get a loop device: between asking for a free one and taking it another process may take it.
const LOOP_TRIES: u32 = 16;
/// Bytes of one line of the kernel's about a mount.
const KERNEL_LINE_BYTES: usize = 1024;
/// Lines of the kernel's about a mount that are kept.
const KERNEL_LINES_MAX: usize = 4;

/// Why there is no mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MountFault {
    /// Which step: "open", "loop device", "fsopen", "mount", ...
    pub(crate) step: &'static str,
    /// The system's error.
    pub(crate) errno: Errno,
    /// Message of the kernel, in one line; often empty.
    pub(crate) said: String,
}

impl MountFault {
    fn new(step: &'static str, errno: Errno) -> MountFault {
        MountFault { step, errno, said: String::new() }
    }
}

fn errno(errno: rustix::io::Errno) -> Errno {
    Errno::from_raw(errno.raw_os_error())
}

fn errno_of(error: &std::io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO))
}

/// A mounted file system that has no place in the tree.
#[derive(Debug)]
pub(crate) struct Detached {
    root: OwnedFd,
    _mount: OwnedFd,
}

impl Detached {
    /// Mounts what is on `source`, a block device or image file, as file system `kind` with `options` (a flag without a value).
    /// Needs CAP_SYS_ADMIN.
    pub(crate) fn mount(
        source: &Path,
        kind: &str,
        options: &[(&str, Option<&str>)],
    ) -> Result<Detached, MountFault> {
        let step = |step| move |why| MountFault::new(step, errno(why));
        let (device, _held) = read_only_device(source)?;
        let context = rustix::mount::fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC).map_err(step("fsopen"))?;
        rustix::mount::fsconfig_set_string(&context, "source", device.as_path())
            .map_err(step("mount source"))?;
        rustix::mount::fsconfig_set_flag(&context, "ro").map_err(step("mount option ro"))?;
        for (name, value) in options {
            let set = match value {
                Some(value) => rustix::mount::fsconfig_set_string(&context, *name, *value),
                None => rustix::mount::fsconfig_set_flag(&context, *name),
            };
            set.map_err(|why| MountFault {
                said: (*name).to_owned(),
                ..MountFault::new("mount option", errno(why))
            })?;
        }
        if let Err(why) = rustix::mount::fsconfig_create(&context) {
            return Err(MountFault { said: said(context.as_fd()), ..MountFault::new("mount", errno(why)) });
        }
        let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY
            | MountAttrFlags::MOUNT_ATTR_NOSUID
            | MountAttrFlags::MOUNT_ATTR_NODEV
            | MountAttrFlags::MOUNT_ATTR_NOEXEC
            | MountAttrFlags::MOUNT_ATTR_NOATIME;
        let mount = rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
            .map_err(step("fsmount"))?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::openat(&mount, ".", flags, Mode::empty()).map_err(step("open the root"))?;
        Ok(Detached { root, _mount: mount })
    }

    /// Its root directory, open for reading.
    pub(crate) fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }
}

/// What the kernel logged about a mount: lines such as "e xfs: log recovery required".
fn said(context: BorrowedFd<'_>) -> String {
    let mut lines = Vec::new();
    let mut line = [0; KERNEL_LINE_BYTES];
    while lines.len() < KERNEL_LINES_MAX
        && let Ok(n) = rustix::io::read(context, &mut line)
        && n > 0
    {
        let text = String::from_utf8_lossy(&line[..n]);
        let text = text.trim();
        lines.push(text.get(2..).filter(|_| text.is_char_boundary(2)).unwrap_or(text).to_owned());
    }
    lines.join("; ").replace(|c: char| c.is_control(), " ")
}

/// A block device over `source` that the kernel refuses to write, and what keeps it there until it is mounted.
fn read_only_device(source: &Path) -> Result<(PathBuf, File), MountFault> {
    // The type first: a pipe would block.
    let kind = source.metadata().map_err(|why| MountFault::new("open", errno_of(&why)))?.file_type();
    if !kind.is_file() && !kind.is_block_device() {
        return Err(MountFault::new("open", Errno::ENOTBLK));
    }
    let backing = File::options()
        .read(true)
        .custom_flags(libc::O_CLOEXEC)
        .open(source)
        .map_err(|why| MountFault::new("open", errno_of(&why)))?;
    if kind.is_block_device()
        && sys::is_read_only(backing.as_fd()).map_err(|why| MountFault::new("open", why))?
    {
        return Ok((source.to_owned(), backing));
    }
    let fault = |why| MountFault::new("loop device", why);
    let control = File::options()
        .read(true)
        .write(true)
        .open("/dev/loop-control")
        .map_err(|why| fault(errno_of(&why)))?;
    let mut last = Errno::EBUSY;
    for _ in 0..LOOP_TRIES {
        let number = sys::loop_free(control.as_fd()).map_err(fault)?;
        let path = PathBuf::from(format!("/dev/loop{number}"));
        let device = File::options().read(true).open(&path).map_err(|why| fault(errno_of(&why)))?;
        let attach = |direct| sys::loop_attach(device.as_fd(), backing.as_fd(), direct);
        match attach(true).or_else(|why| if why == Errno::EINVAL { attach(false) } else { Err(why) }) {
            Ok(()) => return Ok((path, device)),
            Err(Errno::EBUSY) => last = Errno::EBUSY,
            Err(why) => return Err(fault(why)),
        }
    }
    Err(fault(last))
}
