//! A read-only file system shown through FUSE: the only user of the crate `fuser`, without libfuse.
//!
//! Root mounts by mount(2); others by `fusermount3`, which must be installed. The kernel may cache all that it was told: nothing changes.
//! Requests are answered by [`THREADS`] threads.
//!
//! Ends when it is unmounted, by [`Mounted::end`] or by umount(8). A mount point in use is detached: no new path leads there, and what is open gets
//! errors as soon as the process ends. When the process is killed, the mount point stays and answers `ENOTCONN` until `umount`.
//!
//! Invariants: nothing can be written, no device of the mount is one, no set-user-id counts. Does not: choose what is shown.
//! Source: fuse(4), the kernel's `include/uapi/linux/fuse.h`; fuser 0.18.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use fuser::{
    Config, FileAttr, FileHandle, FileType, Filesystem, Generation, INodeNo, InitFlags, KernelConfig,
    LockOwner, MountOption, OpenFlags, ReplyAttr, ReplyData, ReplyDirectory, ReplyEntry, ReplyLseek,
    ReplyXattr, Request, SessionACL,
};

use crate::files::{Errno, Files, Shown};
use crate::volume::{ItemKind, Timestamp};

/// Threads that answer requests: reads wait for a store, so there are more than cores.
pub const THREADS: usize = 8;
/// How long the kernel may believe what it was told: nothing changes while it is mounted.
const TTL: Duration = Duration::from_secs(24 * 3600);
/// Bytes that a file's size is rounded to for its allocation: what is allocated is not known.
const SECTOR_BYTES: u64 = 512;
/// What `stat` says of the best size of a read, in bytes.
const BLOCK_BYTES: u32 = 128 << 10;

/// Who may look, and how it is called.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What `mount` prints as the source.
    pub source: String,
    /// Other users may look too; the kernel then checks owners, modes and ACLs for them. Root, or `user_allow_other` in `/etc/fuse.conf`.
    pub others: bool,
}

/// A mount.
#[derive(Debug)]
pub struct Mounted {
    session: Option<fuser::BackgroundSession>,
    at: PathBuf,
}

/// Shows `files` at the directory `at`.
pub fn mount(files: impl Files, at: &Path, settings: &Settings) -> io::Result<Mounted> {
    let at = at.canonicalize()?;
    let mut config = Config::default();
    config.mount_options = vec![
        MountOption::RO,
        MountOption::NoSuid,
        MountOption::NoDev,
        MountOption::NoAtime,
        MountOption::FSName(settings.source.clone()),
        MountOption::Subtype("windlass".to_owned()),
    ];
    config.acl = SessionACL::Owner;
    if settings.others {
        config.mount_options.push(MountOption::DefaultPermissions);
        config.acl = SessionACL::All;
    }
    config.n_threads = Some(THREADS);
    config.clone_fd = true;
    let session = fuser::Session::new(Shim { files, others: settings.others }, &at, &config)?;
    Ok(Mounted { session: Some(session.spawn()?), at })
}

impl Mounted {
    /// Whether it was unmounted.
    pub fn is_over(&self) -> bool {
        self.session.as_ref().is_none_or(|session| session.guard.is_finished())
    }

    /// Unmounts it; a mount point that is in use is detached. Returns whether it was in use.
    pub fn end(mut self) -> io::Result<bool> {
        let Some(session) = self.session.take() else { return Ok(false) };
        if session.guard.is_finished() {
            return session.join().map(|()| false);
        }
        match session.umount_and_join() {
            Ok(()) => Ok(false),
            Err(error) if error.raw_os_error() == Some(Errno::BUSY.raw_os_error()) => {
                // Its threads go on for what is open, until the process ends.
                rustix::mount::unmount(&self.at, rustix::mount::UnmountFlags::DETACH)?;
                Ok(true)
            }
            Err(error) => Err(error),
        }
    }
}

/// From the kernel's requests to [`Files`].
struct Shim<F> {
    files: F,
    others: bool,
}

fn errno(error: Errno) -> fuser::Errno {
    fuser::Errno::from_i32(error.raw_os_error())
}

fn time(time: Timestamp) -> SystemTime {
    let nanos = Duration::from_nanos(time.nanos.into());
    let secs = Duration::from_secs(time.secs.unsigned_abs());
    let whole = match time.secs < 0 {
        true => SystemTime::UNIX_EPOCH.checked_sub(secs),
        false => SystemTime::UNIX_EPOCH.checked_add(secs),
    };
    whole.and_then(|whole| whole.checked_add(nanos)).unwrap_or(SystemTime::UNIX_EPOCH)
}

fn file_type(kind: ItemKind) -> FileType {
    match kind {
        ItemKind::File | ItemKind::Image => FileType::RegularFile,
        ItemKind::Directory => FileType::Directory,
        ItemKind::Symlink => FileType::Symlink,
        ItemKind::CharDevice => FileType::CharDevice,
        ItemKind::BlockDevice => FileType::BlockDevice,
        ItemKind::Fifo => FileType::NamedPipe,
        ItemKind::Socket => FileType::Socket,
    }
}

fn attr(shown: &Shown) -> FileAttr {
    let (major, minor) = shown.rdev;
    FileAttr {
        ino: INodeNo(shown.node),
        size: shown.size,
        blocks: shown.size.div_ceil(SECTOR_BYTES),
        atime: time(shown.atime),
        mtime: time(shown.mtime),
        ctime: time(shown.ctime),
        crtime: time(shown.ctime),
        kind: file_type(shown.kind),
        perm: shown.mode,
        nlink: shown.links,
        uid: shown.uid,
        gid: shown.gid,
        // As the kernel's new_encode_dev.
        rdev: (minor & 0xff) | (major << 8) | ((minor & !0xff) << 12),
        blksize: BLOCK_BYTES,
        flags: 0,
    }
}

impl<F: Files> Filesystem for Shim<F> {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        // What the kernel does not have is done without.
        let _ = config.add_capabilities(
            InitFlags::FUSE_PARALLEL_DIROPS | InitFlags::FUSE_CACHE_SYMLINKS | InitFlags::FUSE_ASYNC_READ,
        );
        if self.others {
            let _ = config.add_capabilities(InitFlags::FUSE_POSIX_ACL);
        }
        Ok(())
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match self.files.child(parent.0, name.as_bytes()) {
            Ok(shown) => reply.entry(&TTL, &attr(&shown), Generation(shown.generation.into())),
            Err(error) => reply.error(errno(error)),
        }
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.files.shown(ino.0) {
            Ok(shown) => reply.attr(&TTL, &attr(&shown)),
            Err(error) => reply.error(errno(error)),
        }
    }

    fn readlink(&self, _: &Request, ino: INodeNo, reply: ReplyData) {
        match self.files.target(ino.0) {
            Ok(target) => reply.data(&target),
            Err(error) => reply.error(errno(error)),
        }
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: fuser::ReplyOpen) {
        reply.opened(FileHandle(0), fuser::FopenFlags::FOPEN_KEEP_CACHE);
    }

    fn read(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        match self.files.read(ino.0, offset, size) {
            Ok(bytes) => reply.data(&bytes),
            Err(error) => reply.error(errno(error)),
        }
    }

    fn readdir(&self, _: &Request, ino: INodeNo, _: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let listed = self.files.list(ino.0, offset, &mut |named| {
            let name: OsString = OsString::from_vec(named.name.to_vec());
            !reply.add(INodeNo(named.node), named.next, file_type(named.kind), &name)
        });
        match listed {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(errno(error)),
        }
    }

    fn getxattr(&self, _: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        let found = self.files.attributes(ino.0).and_then(|all| {
            let one = all.into_iter().find(|(known, _)| known == name.as_bytes());
            one.map(|(_, value)| value).ok_or(Errno::NODATA)
        });
        answer(found, size, reply);
    }

    fn listxattr(&self, _: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        let names = self.files.attributes(ino.0).map(|all| {
            all.into_iter().fold(Vec::new(), |mut names, (name, _)| {
                names.extend_from_slice(&name);
                names.push(0);
                names
            })
        });
        answer(names, size, reply);
    }

    fn lseek(&self, _: &Request, ino: INodeNo, _: FileHandle, offset: i64, whence: i32, reply: ReplyLseek) {
        const SEEK_DATA: i32 = 3;
        const SEEK_HOLE: i32 = 4;
        let found = match (u64::try_from(offset), whence) {
            (Ok(from), SEEK_DATA | SEEK_HOLE) => self.files.seek(ino.0, from, whence == SEEK_DATA),
            (Err(_), _) => Err(Errno::NXIO),
            _ => Err(Errno::INVAL),
        };
        match found.and_then(|at| i64::try_from(at).map_err(|_| Errno::OVERFLOW)) {
            Ok(at) => reply.offset(at),
            Err(error) => reply.error(errno(error)),
        }
    }
}

/// A value of an extended attribute, or its size for those who ask with no room.
fn answer(value: Result<Vec<u8>, Errno>, size: u32, reply: ReplyXattr) {
    match value {
        Err(error) => reply.error(errno(error)),
        Ok(value) if size == 0 => reply.size(value.len() as u32),
        Ok(value) if value.len() > size as usize => reply.error(errno(Errno::RANGE)),
        Ok(value) => reply.data(&value),
    }
}
