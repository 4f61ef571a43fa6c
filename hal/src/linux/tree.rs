//! The Linux port of [`tree`](crate::tree): open descriptors, and calls relative to them.
//!
//! | call | how |
//! |---|---|
//! | open a directory | openat2 with `RESOLVE_BENEATH`, one component, `O_NOFOLLOW` |
//! | a file without a name | `O_TMPFILE`; its name by linkat with `AT_EMPTY_PATH`, or through `/proc/self/fd` without the right to that |
//! | writes to what can be written directly ([`LinuxNode::directly`]) | `O_DIRECT`, whole blocks of [`DIRECT_ALIGN_BYTES`]; the rest through the page cache |
//!
//! Source: open(2), openat2(2), linkat(2); `agent/doc/architecture.md`, Restore (measured).

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{
    AtFlags, Dir, FallocateFlags, FileType, FlockOperation, Gid, IFlags, Mode, OFlags, RenameFlags,
    ResolveFlags, Timespec, Timestamps, Uid, XattrFlags,
};
use rustix::io::Errno;

use super::fsattr;
use crate::buf::{BUF_ALIGN_BYTES, Pool};
use crate::tree::{Node, Opened, Stat, Taken};
use crate::volume::{Hints, ItemKind, Timestamp};

/// Zero bytes written in one call.
const ZEROS_BYTES: usize = 64 << 10;
static ZEROS: [u8; ZEROS_BYTES] = [0; ZEROS_BYTES];
/// What address, offset and length of a direct write are multiples of: no logical block is larger.
pub const DIRECT_ALIGN_BYTES: usize = BUF_ALIGN_BYTES;
/// Bytes of one direct write: the copy stays in the cache of the core, and the device has enough to do.
const DIRECT_BYTES: usize = 256 << 10;

/// Room for the names of all extended attributes of a file: the kernel's own bound (`XATTR_LIST_MAX`).
const XATTR_NAMES_BYTES: usize = 64 << 10;

/// An open directory, file or device.
#[derive(Debug)]
pub struct LinuxNode {
    fd: OwnedFd,
    direct: Option<Direct>,
}

/// The same inode once more, for direct writes.
struct Direct {
    fd: OwnedFd,
    /// Aligned memory, one buffer for each writer.
    pool: Pool,
}

impl std::fmt::Debug for Direct {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.fd.fmt(f)
    }
}

impl From<OwnedFd> for LinuxNode {
    fn from(fd: OwnedFd) -> LinuxNode {
        LinuxNode { fd, direct: None }
    }
}

impl AsFd for LinuxNode {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Opens the directory `path`, and makes it and what is above it when `make` says so and it is not there.
///
/// # Errors
/// The call that failed, for people, and why.
pub fn open(path: &Path, make: bool) -> Result<Opened<LinuxNode>, (&'static str, Errno)> {
    let made = match make {
        true => make_directories(path).map_err(|errno| ("create the directory", errno))?,
        false => false,
    };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(path, flags, Mode::empty());
    let root = root.map_err(|errno| ("open the directory", errno))?.into();
    Ok(Opened { root, made, umask: umask(), boot: boot() })
}

/// Attributes of `path` itself, without following it when it is a symlink. Errors: `ENOENT`.
pub fn look(path: &Path) -> Result<Stat, Errno> {
    rustix::fs::lstat(path).map(stat)
}

/// Makes `path` and what is missing above it; whether it was not there. Nothing is made below a file.
fn make_directories(path: &Path) -> Result<bool, Errno> {
    match rustix::fs::mkdir(path, Mode::from_raw_mode(0o700)) {
        Ok(()) => Ok(true),
        Err(Errno::EXIST) => Ok(false),
        Err(Errno::NOENT) => {
            let above = path.parent().filter(|above| !above.as_os_str().is_empty()).ok_or(Errno::NOENT)?;
            // As people's own mkdir -p does: what is above is no secret, what is restored has its own mode.
            std::fs::create_dir_all(above).map_err(|why| Errno::from_io_error(&why).unwrap_or(Errno::IO))?;
            rustix::fs::mkdir(path, Mode::from_raw_mode(0o700)).map(|()| true)
        }
        Err(errno) => Err(errno),
    }
}

/// The process's file mode creation mask.
fn umask() -> Option<u16> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let umask = status.lines().find_map(|line| line.strip_prefix("Umask:"))?;
    u16::from_str_radix(umask.trim(), 8).ok()
}

/// A number of this start of the machine.
fn boot() -> u32 {
    let id = std::fs::read("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    crc32c::crc32c(&id).max(1)
}

impl LinuxNode {
    /// Writes of this open device or file go past the page cache from now on, where they can (not on tmpfs): for what is larger than memory
    /// and is not read again soon. `writers`: threads that write at once.
    #[must_use]
    pub fn directly(mut self, writers: usize) -> LinuxNode {
        // The same inode once more, whatever has its name by now.
        let again = format!("/proc/self/fd/{}", self.fd.as_raw_fd());
        let flags = OFlags::RDWR | OFlags::DIRECT | OFlags::CLOEXEC;
        if let Ok(fd) = rustix::fs::open(again, flags, Mode::empty()) {
            self.direct = Some(Direct { fd, pool: Pool::new(writers, DIRECT_BYTES) });
        }
        self
    }

    /// Bytes of a device.
    pub fn device_bytes(&self) -> Result<u64, Errno> {
        rustix::fs::seek(&self.fd, rustix::fs::SeekFrom::End(0))
    }

    /// Lets go of what the page cache has of it. A hint only.
    pub fn forget(&self) {
        let _ = rustix::fs::fadvise(&self.fd, 0, None, rustix::fs::Advice::DontNeed);
    }
}

/// Owner and group as the calls take them.
fn owner(uid: u32, gid: u32) -> (Option<Uid>, Option<Gid>) {
    (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))
}

fn bits(mode: u16) -> Mode {
    Mode::from_raw_mode(u32::from(mode & 0o7777))
}

fn times(atime: Timestamp, mtime: Timestamp) -> Timestamps {
    Timestamps { last_access: timespec(atime), last_modification: timespec(mtime) }
}

/// Nanoseconds are cut to their range: the kernel gives larger values a meaning of their own.
fn timespec(time: Timestamp) -> Timespec {
    Timespec { tv_sec: time.secs, tv_nsec: i64::from(time.nanos.min(999_999_999)) }
}

fn errno(errno: nix::errno::Errno) -> Errno {
    Errno::from_raw_os_error(errno as i32)
}

#[allow(clippy::unnecessary_cast, reason = "narrower on other processors")]
fn stat(have: rustix::fs::Stat) -> Stat {
    let kind = match FileType::from_raw_mode(have.st_mode) {
        FileType::Directory => ItemKind::Directory,
        FileType::Symlink => ItemKind::Symlink,
        FileType::CharacterDevice => ItemKind::CharDevice,
        FileType::BlockDevice => ItemKind::BlockDevice,
        FileType::Fifo => ItemKind::Fifo,
        FileType::Socket => ItemKind::Socket,
        FileType::RegularFile | FileType::Unknown => ItemKind::File,
    };
    Stat {
        kind,
        mode: (have.st_mode & 0o7777) as u16,
        uid: have.st_uid,
        gid: have.st_gid,
        size: have.st_size as u64,
        atime: Timestamp { secs: have.st_atime, nanos: have.st_atime_nsec as u32 },
        mtime: Timestamp { secs: have.st_mtime, nanos: have.st_mtime_nsec as u32 },
        device: have.st_dev,
        inode: have.st_ino,
        links: have.st_nlink as u64,
    }
}

fn write_all(fd: &OwnedFd, mut offset: u64, mut bytes: &[u8]) -> Result<(), Errno> {
    while !bytes.is_empty() {
        match rustix::io::pwrite(fd, bytes, offset) {
            Ok(0) => return Err(Errno::IO),
            Ok(n) => {
                bytes = &bytes[n..];
                offset += n as u64;
            }
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// Fills `bytes` from `offset` on, up to the end of the file.
fn read_all(fd: &OwnedFd, offset: u64, bytes: &mut [u8]) -> Result<usize, Errno> {
    let mut done = 0;
    while done < bytes.len() {
        match rustix::io::pread(fd, &mut bytes[done..], offset + done as u64) {
            Ok(0) => break,
            Ok(n) => done += n,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(done)
}

impl Direct {
    /// Whether all of a range can be read directly.
    fn fits(&self, offset: u64, len: usize) -> bool {
        offset.is_multiple_of(DIRECT_ALIGN_BYTES as u64) && len.is_multiple_of(DIRECT_ALIGN_BYTES)
    }

    /// Reads a range that [`Direct::fits`], up to the end of the file.
    fn read(&self, offset: u64, bytes: &mut [u8]) -> Result<usize, Errno> {
        let mut buf = self.pool.take().ok_or(Errno::NOMEM)?;
        let mut done = 0;
        for piece in bytes.chunks_mut(DIRECT_BYTES) {
            let read = read_all(&self.fd, offset + done as u64, &mut buf[..piece.len()])?;
            piece[..read].copy_from_slice(&buf[..read]);
            done += read;
            if read < piece.len() {
                break;
            }
        }
        Ok(done)
    }

    /// Writes what can be written directly; returns how many bytes of the front that was.
    fn write(&self, offset: u64, bytes: &[u8]) -> Result<usize, Errno> {
        let fits = offset.is_multiple_of(DIRECT_ALIGN_BYTES as u64);
        let whole = if fits { bytes.len() - bytes.len() % DIRECT_ALIGN_BYTES } else { 0 };
        let mut buf = self.pool.take().ok_or(Errno::NOMEM)?;
        for (index, piece) in bytes[..whole].chunks(DIRECT_BYTES).enumerate() {
            buf[..piece.len()].copy_from_slice(piece);
            write_all(&self.fd, offset + (index * DIRECT_BYTES) as u64, &buf[..piece.len()])?;
        }
        Ok(whole)
    }
}

/// Whether names are given through `/proc`: without CAP_DAC_READ_SEARCH, before Linux 6.10.
static LINK_BY_PROC: AtomicBool = AtomicBool::new(false);

impl Node for LinuxNode {
    fn open_dir(&self, name: &[u8]) -> Result<LinuxNode, Errno> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        let fd = match rustix::fs::openat2(&self.fd, name, flags, Mode::empty(), resolve) {
            // Before Linux 5.6. One component that is not ".." cannot leave its directory, and O_NOFOLLOW covers the rest.
            Err(Errno::NOSYS) => rustix::fs::openat(&self.fd, name, flags, Mode::empty()),
            other => other,
        };
        fd.map(LinuxNode::from)
    }

    fn open_file(&self, name: &[u8]) -> Result<LinuxNode, Errno> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        rustix::fs::openat(&self.fd, name, flags, Mode::empty()).map(LinuxNode::from)
    }

    fn open_to_write(&self, name: &[u8]) -> Result<LinuxNode, Errno> {
        let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        rustix::fs::openat(&self.fd, name, flags, Mode::empty()).map(LinuxNode::from)
    }

    fn make_dir(&self, name: &[u8], mode: u16) -> Result<(), Errno> {
        rustix::fs::mkdirat(&self.fd, name, bits(mode))
    }

    fn create(&self, name: &[u8], mode: u16) -> Result<LinuxNode, Errno> {
        let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::CREATE | OFlags::EXCL;
        rustix::fs::openat(&self.fd, name, flags, bits(mode)).map(LinuxNode::from)
    }

    fn create_unnamed(&self, mode: u16) -> Result<LinuxNode, Errno> {
        let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::TMPFILE;
        rustix::fs::openat(&self.fd, c".", flags, bits(mode)).map(LinuxNode::from)
    }

    fn symlink(&self, name: &[u8], target: &[u8]) -> Result<(), Errno> {
        rustix::fs::symlinkat(target, &self.fd, name)
    }

    fn make_special(&self, name: &[u8], kind: ItemKind, device: (u32, u32)) -> Result<(), Errno> {
        let kind = match kind {
            ItemKind::CharDevice => FileType::CharacterDevice,
            ItemKind::BlockDevice => FileType::BlockDevice,
            ItemKind::Fifo => FileType::Fifo,
            ItemKind::Socket => FileType::Socket,
            ItemKind::File | ItemKind::Image | ItemKind::Directory | ItemKind::Symlink => {
                return Err(Errno::INVAL);
            }
        };
        let device = rustix::fs::makedev(device.0, device.1);
        rustix::fs::mknodat(&self.fd, name, kind, Mode::from_raw_mode(0o600), device)
    }

    fn link(&self, dir: &LinuxNode, name: &[u8]) -> Result<(), Errno> {
        if !LINK_BY_PROC.load(Ordering::Relaxed) {
            match rustix::fs::linkat(&self.fd, c"", &dir.fd, name, AtFlags::EMPTY_PATH) {
                Err(Errno::NOENT) => LINK_BY_PROC.store(true, Ordering::Relaxed),
                other => return other,
            }
        }
        let path = format!("/proc/self/fd/{}", self.fd.as_raw_fd());
        rustix::fs::linkat(rustix::fs::CWD, path, &dir.fd, name, AtFlags::SYMLINK_FOLLOW)
    }

    fn link_name(&self, name: &[u8], dir: &LinuxNode, new: &[u8]) -> Result<(), Errno> {
        rustix::fs::linkat(&self.fd, name, &dir.fd, new, AtFlags::empty())
    }

    fn rename(&self, name: &[u8], dir: &LinuxNode, new: &[u8], taken: Taken) -> Result<(), Errno> {
        let flags = match taken {
            Taken::Refuse => RenameFlags::NOREPLACE,
            Taken::Replace => RenameFlags::empty(),
            Taken::Exchange => RenameFlags::EXCHANGE,
        };
        rustix::fs::renameat_with(&self.fd, name, &dir.fd, new, flags)
    }

    fn remove(&self, name: &[u8]) -> Result<(), Errno> {
        rustix::fs::unlinkat(&self.fd, name, AtFlags::empty())
    }

    fn remove_dir(&self, name: &[u8]) -> Result<(), Errno> {
        rustix::fs::unlinkat(&self.fd, name, AtFlags::REMOVEDIR)
    }

    fn names(&self, each: &mut dyn FnMut(&[u8])) -> Result<(), Errno> {
        for entry in Dir::read_from(&self.fd)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                each(name);
            }
        }
        Ok(())
    }

    fn lock(&self) -> Result<(), Errno> {
        rustix::fs::flock(&self.fd, FlockOperation::NonBlockingLockExclusive)
    }

    fn stat(&self) -> Result<Stat, Errno> {
        rustix::fs::fstat(&self.fd).map(stat)
    }

    fn stat_name(&self, name: &[u8]) -> Result<Stat, Errno> {
        rustix::fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW).map(stat)
    }

    fn set_owner(&self, uid: u32, gid: u32) -> Result<(), Errno> {
        let (uid, gid) = owner(uid, gid);
        rustix::fs::fchown(&self.fd, uid, gid)
    }

    fn set_mode(&self, mode: u16) -> Result<(), Errno> {
        rustix::fs::fchmod(&self.fd, bits(mode))
    }

    fn set_times(&self, atime: Timestamp, mtime: Timestamp) -> Result<(), Errno> {
        rustix::fs::futimens(&self.fd, &times(atime, mtime))
    }

    fn xattr(&self, name: &[u8], value: &mut [u8]) -> Result<usize, Errno> {
        rustix::fs::fgetxattr(&self.fd, name, value)
    }

    fn set_xattr(&self, name: &[u8], value: &[u8]) -> Result<(), Errno> {
        rustix::fs::fsetxattr(&self.fd, name, value, XattrFlags::empty())
    }

    fn xattr_names(&self, each: &mut dyn FnMut(&[u8])) -> Result<(), Errno> {
        let mut list = vec![0; XATTR_NAMES_BYTES];
        let len = rustix::fs::flistxattr(&self.fd, &mut list)?;
        list[..len].split(|&byte| byte == 0).filter(|name| !name.is_empty()).for_each(each);
        Ok(())
    }

    fn remove_xattr(&self, name: &[u8]) -> Result<(), Errno> {
        rustix::fs::fremovexattr(&self.fd, name)
    }

    fn set_owner_of(&self, name: &[u8], uid: u32, gid: u32) -> Result<(), Errno> {
        let (uid, gid) = owner(uid, gid);
        rustix::fs::chownat(&self.fd, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)
    }

    fn set_mode_of(&self, name: &[u8], mode: u16) -> Result<(), Errno> {
        rustix::fs::chmodat(&self.fd, name, bits(mode), AtFlags::empty())
    }

    fn set_times_of(&self, name: &[u8], atime: Timestamp, mtime: Timestamp) -> Result<(), Errno> {
        rustix::fs::utimensat(&self.fd, name, &times(atime, mtime), AtFlags::SYMLINK_NOFOLLOW)
    }

    fn set_xattr_of(&self, name: &[u8], key: &[u8], value: &[u8]) -> Result<(), Errno> {
        let mut path = format!("/proc/self/fd/{}/", self.fd.as_raw_fd()).into_bytes();
        path.extend_from_slice(name);
        rustix::fs::lsetxattr(path, key, value, XattrFlags::empty())
    }

    fn set_project(&self, project: u32) -> Result<(), Errno> {
        fsattr::set_project(self.fd.as_fd(), project).map_err(errno)
    }

    fn flags(&self) -> Result<u32, Errno> {
        rustix::fs::ioctl_getflags(&self.fd).map(|flags| flags.bits())
    }

    fn set_flags(&self, flags: u32) -> Result<(), Errno> {
        rustix::fs::ioctl_setflags(&self.fd, IFlags::from_bits_retain(flags))
    }

    fn set_hints(&self, hints: Hints) -> Result<Hints, Errno> {
        fsattr::set_hints(self.fd.as_fd(), hints).map_err(errno)
    }

    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> Result<usize, Errno> {
        match &self.direct {
            Some(direct) if direct.fits(offset, bytes.len()) => direct.read(offset, bytes),
            _ => read_all(&self.fd, offset, bytes),
        }
    }

    fn data_from(&self, offset: u64) -> Result<Option<u64>, Errno> {
        match rustix::fs::seek(&self.fd, rustix::fs::SeekFrom::Data(offset)) {
            Ok(at) => Ok(Some(at)),
            Err(Errno::NXIO) => Ok(None),
            // A file system that does not know its holes.
            Err(Errno::INVAL | Errno::OPNOTSUPP) => Ok(Some(offset)),
            Err(errno) => Err(errno),
        }
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), Errno> {
        let direct = match &self.direct {
            Some(direct) => direct.write(offset, bytes)?,
            None => 0,
        };
        write_all(&self.fd, offset + direct as u64, &bytes[direct..])
    }

    fn write_zeros(&self, offset: u64, len: u64) -> Result<(), Errno> {
        let mut at = 0;
        while at < len {
            let n = (len - at).min(ZEROS_BYTES as u64);
            write_all(&self.fd, offset + at, &ZEROS[..n as usize])?;
            at += n;
        }
        Ok(())
    }

    fn clear(&self, offset: u64, len: u64) -> Result<(), Errno> {
        let flags = FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE;
        rustix::fs::fallocate(&self.fd, flags, offset, len)
    }

    fn punch(&self, offset: u64, len: u64) -> Result<(), Errno> {
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        rustix::fs::fallocate(&self.fd, flags, offset, len)
    }

    fn preallocate(&self, offset: u64, len: u64) -> Result<(), Errno> {
        rustix::fs::fallocate(&self.fd, FallocateFlags::KEEP_SIZE, offset, len)
    }

    fn set_len(&self, len: u64) -> Result<(), Errno> {
        rustix::fs::ftruncate(&self.fd, len)
    }

    fn sync(&self) -> Result<(), Errno> {
        rustix::fs::fsync(&self.fd)
    }

    fn sync_all(&self) -> Result<(), Errno> {
        rustix::fs::syncfs(&self.fd)
    }
}
