//! A directory as a store (`file:///srv/repo`): a local disk, a mounted share, a USB drive.
//!
//! A key is a path below the root. A PUT writes a temporary file in `.tmp/`, fsyncs it, gives it its final name by link(2)
//! (create-only: exactly one of several processes wins; renameat2(2) without replacing on file systems without links) or rename(2)
//! (replace), and fsyncs the directory. So a final name
//! never refers to a half-written body, whenever the process or the machine dies, and an acknowledged PUT is durable.
//!
//! Invariants
//! - A name of a temporary file is never used twice. Its writer holds an flock on it for as long as it lives; [`DirStore::open`]
//!   removes only those whose lock it can take, which means that their writer is dead. Where a share has no working locks
//!   the worst case is that a live writer finds its temporary file gone: its link fails, nothing is published, it repeats.
//! - Every directory that this process puts something into has been fsynced into its parent, up to the root,
//!   even if another process made it.
//! - Every call opens the root by its path and compares its identity with that at the start: when a disk was unmounted
//!   below us, the empty mount point is not taken for the store, and neither is another disk that came to the same place and device number.
//! - A walk holds at most [`LIST_BATCH_NAMES`] names per level; a larger directory is read again for the next batch.
//!
//! Large bodies go around the page cache (`O_DIRECT`) as far as their parts are aligned; what went through it is dropped
//! after the fsync. The appliance's cache stays as it was.
//!
//! Does not: remove empty directories (a racing PUT would lose its parent); allow a key that is a directory of another key.
//! Source: ours; open(2), link(2), flock(2).

use std::collections::{BTreeSet, BinaryHeap};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use nix::dir::{Dir, Type};
use nix::errno::Errno;
use nix::fcntl::{
    AtFlags, FcntlArg, OFlag, PosixFadviseAdvice, RenameFlags, fcntl, openat, posix_fadvise, renameat,
    renameat2,
};
use nix::sys::stat::{Mode, SFlag, fstatat, mkdirat};
use nix::unistd::{UnlinkatFlags, fsync, linkat, unlinkat};
use rustix::fs::{AtFlags as AtFlagsOfStatx, StatxFlags, statx};

use super::throttle::Throttle;
use super::time::{Heard, StoreTime};
use super::{
    ByteRange, KEY_DEPTH_MAX, PutMode, Store, StoreFault, StoreFaultKind, body_bytes, check_key,
    check_prefix, is_metadata, is_urgent,
};

/// Names of one directory that a walk holds at a time: 5 MiB at 80 bytes each. A directory with more is read once per batch.
pub const LIST_BATCH_NAMES: usize = 65_536;
/// Bodies of at least this many bytes go around the page cache where they are aligned.
pub const DIRECT_BYTES_MIN: u64 = 1 << 20;

const TEMP: &str = ".tmp";
/// Alignment that `O_DIRECT` is given: memory, offset and length. Every sector size divides it.
const DIRECT_ALIGN_BYTES: usize = 4096;
/// Bytes per write or read call; also what a throttle is asked for at once.
const PIECE_BYTES: usize = 1 << 20;
/// Attempts at a name for a temporary file; each differs in its counter.
const TEMP_ATTEMPTS_MAX: u32 = 8;
/// Stale temporary files removed by one open; the rest waits for the next.
const TEMP_CLEAN_MAX: usize = 4096;
/// Directories remembered as durable; on overflow all are forgotten and fsynced again.
const DURABLE_DIRS_MAX: usize = 1024;
const FILE_MODE: Mode = Mode::from_bits_truncate(0o600);
const DIR_MODE: Mode = Mode::from_bits_truncate(0o700);
const DIR_FLAGS: OFlag = OFlag::O_RDONLY.union(OFlag::O_DIRECTORY).union(OFlag::O_CLOEXEC);

/// A directory tree, shared between threads and with other processes.
pub struct DirStore {
    path: PathBuf,
    /// Of the root when it was opened.
    identity: Identity,
    throttle: Arc<Throttle>,
    /// For what no limit applies to.
    unlimited: Throttle,
    /// For metadata.
    first: Throttle,
    direct: bool,
    temp_nonce: u64,
    temp_count: AtomicU64,
    durable: Mutex<BTreeSet<String>>,
    heard: Heard,
}

impl DirStore {
    /// Opens the directory `path`, which must exist, and removes temporary files of dead writers. `nonce` is a random
    /// number of this process start (its boot number); it keeps names of temporary files apart.
    ///
    /// # Errors
    /// `StoreGone` when there is no such directory, `Denied`, `Full`, or another fault of the system.
    pub fn open(path: &Path, nonce: u64, throttle: Arc<Throttle>) -> Result<DirStore, StoreFault> {
        let verb = "OPEN";
        let name = path.display().to_string();
        let root = open_path(path).map_err(|e| match e {
            Errno::ENOENT => StoreFault::new(
                StoreFaultKind::StoreGone,
                verb,
                &name,
                "this directory does not exist; create it first",
            ),
            Errno::ENOTDIR => {
                StoreFault::new(StoreFaultKind::StoreGone, verb, &name, "this is not a directory")
            }
            e => fault(verb, &name, e),
        })?;
        let identity = identity(&root).map_err(|e| fault(verb, &name, e))?;
        let store = DirStore {
            path: path.to_owned(),
            identity,
            unlimited: throttle.unlimited(),
            first: throttle.first(),
            throttle,
            direct: true,
            temp_nonce: nonce,
            temp_count: AtomicU64::new(0),
            durable: Mutex::new(BTreeSet::new()),
            heard: Heard::default(),
        };
        store.clean_temps(&root).map_err(|e| fault(verb, &name, e))?;
        Ok(store)
    }

    /// Whether large bodies go around the page cache (the default). For measuring.
    pub fn set_direct(&mut self, direct: bool) {
        self.direct = direct;
    }

    fn root(&self, verb: &str, key: &str) -> Result<OwnedFd, StoreFault> {
        let gone = |detail| StoreFault::new(StoreFaultKind::StoreGone, verb, key, detail);
        let root = open_path(&self.path).map_err(|e| match e {
            Errno::ENOENT | Errno::ENOTDIR => gone(format!("{} is gone", self.path.display())),
            e => fault(verb, key, e),
        })?;
        if identity(&root).map_err(|e| fault(verb, key, e))? != self.identity {
            let path = self.path.display();
            return Err(gone(format!(
                "{path} is another directory than at the start: its disk was unmounted, or another one is there; bring it back"
            )));
        }
        Ok(root)
    }

    /// Opens the directory that holds `key`, making what is missing, and makes sure that it survives a power cut.
    fn parent(&self, root: &OwnedFd, dir: &str) -> Result<OwnedFd, Errno> {
        if dir.is_empty() {
            return openat(root, ".", DIR_FLAGS, Mode::empty());
        }
        if self.durable.lock().unwrap_or_else(PoisonError::into_inner).contains(dir) {
            match openat(root, dir, DIR_FLAGS, Mode::empty()) {
                // Another process removed it; make it again below.
                Err(Errno::ENOENT) => {}
                other => return other,
            }
        }
        let mut at = openat(root, ".", DIR_FLAGS, Mode::empty())?;
        for component in dir.split('/') {
            match mkdirat(&at, component, DIR_MODE) {
                Ok(()) | Err(Errno::EEXIST) => {}
                Err(e) => return Err(e),
            }
            // Also when another process made it: that one may not have come to its fsync yet.
            sync_directory(&at)?;
            at = openat(&at, component, DIR_FLAGS, Mode::empty())?;
        }
        let mut durable = self.durable.lock().unwrap_or_else(PoisonError::into_inner);
        if durable.len() >= DURABLE_DIRS_MAX {
            durable.clear();
        }
        durable.insert(dir.to_owned());
        Ok(at)
    }

    /// Makes a temporary file and locks it. Returns its name below the root.
    fn temp(&self, root: &OwnedFd) -> Result<(File, String), Errno> {
        let flags = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
        for _ in 0..TEMP_ATTEMPTS_MAX {
            let count = self.temp_count.fetch_add(1, Ordering::Relaxed);
            let name = format!("{TEMP}/{:08x}-{:016x}-{count}", std::process::id(), self.temp_nonce);
            let file = match openat(root, name.as_str(), flags, FILE_MODE) {
                Ok(fd) => File::from(fd),
                Err(Errno::EEXIST) => continue,
                Err(Errno::ENOENT) => {
                    match mkdirat(root, TEMP, DIR_MODE) {
                        Ok(()) | Err(Errno::EEXIST) => continue,
                        Err(e) => return Err(e),
                    };
                }
                Err(e) => return Err(e),
            };
            // A cleaner may have come between: then the lock is taken, or the name is gone already.
            let locked = file.try_lock().is_ok();
            if locked && file.metadata().map_err(|e| errno(&e))?.nlink() > 0 {
                return Ok((file, name));
            }
        }
        Err(Errno::EAGAIN)
    }

    fn clean_temps(&self, root: &OwnedFd) -> Result<(), Errno> {
        let mut dir = match Dir::openat(root, TEMP, DIR_FLAGS, Mode::empty()) {
            Ok(dir) => dir,
            Err(Errno::ENOENT) => return Ok(()),
            Err(e) => return Err(e),
        };
        let mut names = Vec::new();
        for entry in dir.iter() {
            let entry = entry?;
            if entry.file_name().to_bytes().first() != Some(&b'.') && names.len() < TEMP_CLEAN_MAX {
                names.push(entry.file_name().to_owned());
            }
        }
        for name in names {
            let flags = OFlag::O_RDWR | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
            let Ok(fd) = openat(&dir, name.as_c_str(), flags, Mode::empty()) else { continue };
            let file = File::from(fd);
            if file.try_lock().is_ok() {
                // Failure leaves it for the next open; it costs space only.
                let _ = unlinkat(&dir, name.as_c_str(), UnlinkatFlags::NoRemoveDir);
            }
        }
        Ok(())
    }

    /// Writes and publishes one body. The temporary name is gone afterwards, whatever happens.
    fn put_body(&self, root: &OwnedFd, key: &str, body: &[&[u8]], mode: PutMode) -> Result<(), Errno> {
        let (dir, leaf) = key.rsplit_once('/').unwrap_or(("", key));
        let parent = self.parent(root, dir)?;
        if mode == PutMode::CreateOnly && fstatat(&parent, leaf, AtFlags::AT_SYMLINK_NOFOLLOW).is_ok() {
            // Spares the body; the link below is what decides.
            return Err(Errno::EEXIST);
        }
        let (file, temp) = self.temp(root)?;
        let published = self.write_durably(&file, body, self.limiter(key)).and_then(|()| match mode {
            PutMode::CreateOnly => publish_once(&file, root, &temp, &parent, leaf),
            PutMode::Replace => renameat(root, temp.as_str(), &parent, leaf),
        });
        if published.is_err() || mode == PutMode::CreateOnly {
            // Failure leaves a file that the next open removes.
            let _ = unlinkat(root, temp.as_str(), UnlinkatFlags::NoRemoveDir);
        }
        published?;
        sync_directory(&parent)
    }

    fn limiter(&self, key: &str) -> &Throttle {
        match key {
            key if is_urgent(key) => &self.unlimited,
            key if is_metadata(key) => &self.first,
            _ => &self.throttle,
        }
    }

    fn write_durably(&self, file: &File, body: &[&[u8]], throttle: &Throttle) -> Result<(), Errno> {
        let large = body_bytes(body) >= DIRECT_BYTES_MIN;
        let mut writer = Writer { file, offset: 0, direct: false, may_direct: self.direct && large };
        for part in body {
            let mut rest = *part;
            while !rest.is_empty() {
                let (piece, after) = rest.split_at(rest.len().min(PIECE_BYTES));
                throttle.wait_up(piece.len() as u64);
                writer.write(piece)?;
                rest = after;
            }
        }
        file.sync_all().map_err(|e| errno(&e))?;
        let metadata = file.metadata().map_err(|e| errno(&e))?;
        // A share that has lost a write may only now know it.
        if metadata.len() != body_bytes(body) {
            return Err(Errno::EIO);
        }
        // Of the last byte, which may have waited for the limit; never of an empty body, which may be as old as its file.
        if body_bytes(body) > 0 {
            let nanos = u32::try_from(metadata.mtime_nsec()).unwrap_or(0);
            self.heard.hear(self.throttle.clock(), metadata.mtime(), nanos);
        }
        if large {
            // What did go through the page cache is clean now; advice that is not taken does no harm.
            let _ = posix_fadvise(file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED);
        }
        Ok(())
    }

    fn read(&self, file: &File, key: &str, range: ByteRange, out: &mut Vec<u8>) -> Result<u64, StoreFault> {
        let meta = file.metadata().map_err(|e| fault("GET", key, errno(&e)))?;
        if !meta.is_file() {
            return Err(StoreFault::new(StoreFaultKind::NotFound, "GET", key, "not a file"));
        }
        range.check_size(key, meta.len())?;
        let (mut offset, mut left) = range.resolve(meta.len());
        while left > 0 {
            let start = out.len();
            let piece = left.min(PIECE_BYTES as u64) as usize;
            self.limiter(key).wait_down(piece as u64);
            out.resize(start + piece, 0);
            file.read_exact_at(&mut out[start..], offset).map_err(|e| match e.kind() {
                io::ErrorKind::UnexpectedEof => {
                    StoreFault::new(StoreFaultKind::Unknown, "GET", key, "the file became shorter")
                }
                _ => fault("GET", key, errno(&e)),
            })?;
            offset += piece as u64;
            left -= piece as u64;
        }
        Ok(meta.len())
    }
}

impl Store for DirStore {
    fn describe(&self) -> String {
        format!("file://{}", self.path.display())
    }

    fn time(&self) -> Option<StoreTime> {
        self.heard.last()
    }

    fn put(&self, key: &str, body: &[&[u8]], mode: PutMode) -> Result<(), StoreFault> {
        check_key("PUT", key)?;
        let root = self.root("PUT", key)?;
        self.put_body(&root, key, body, mode).map_err(|e| match e {
            Errno::EEXIST if mode == PutMode::CreateOnly => {
                StoreFault::new(StoreFaultKind::Exists, "PUT", key, "")
            }
            Errno::EOPNOTSUPP if mode == PutMode::CreateOnly => StoreFault::new(
                StoreFaultKind::Unsupported,
                "PUT",
                key,
                "this file system has neither hard links nor a rename that replaces nothing, so two writers could both win; keep the \
                 log elsewhere (--lease-store), or use another file system",
            ),
            // The parent or the temporary file vanished below us; nothing was published.
            Errno::ENOENT => StoreFault::new(StoreFaultKind::Unknown, "PUT", key, "a directory vanished"),
            e => fault("PUT", key, e),
        })
    }

    fn get(&self, key: &str, range: ByteRange, out: &mut Vec<u8>) -> Result<u64, StoreFault> {
        check_key("GET", key)?;
        let root = self.root("GET", key)?;
        let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
        let file = match openat(&root, key, flags, Mode::empty()) {
            Ok(fd) => File::from(fd),
            Err(Errno::ENOENT | Errno::ENOTDIR) => {
                return Err(StoreFault::new(StoreFaultKind::NotFound, "GET", key, ""));
            }
            Err(e) => return Err(fault("GET", key, e)),
        };
        let start = out.len();
        let result = self.read(&file, key, range, out);
        if result.is_err() {
            out.truncate(start);
        }
        result
    }

    fn list(
        &self,
        prefix: &str,
        after: &str,
        each: &mut dyn FnMut(&str, u64) -> bool,
    ) -> Result<(), StoreFault> {
        check_prefix(prefix)?;
        let root = self.root("LIST", prefix)?;
        let dir = prefix.rsplit_once('/').map_or("", |(dir, _)| dir);
        let mut walk = Walk { root: &root, prefix, after, each };
        walk.descend(dir).map(drop).map_err(|e| fault("LIST", prefix, e))
    }

    fn delete(&self, key: &str) -> Result<(), StoreFault> {
        check_key("DELETE", key)?;
        let root = self.root("DELETE", key)?;
        match unlinkat(&root, key, UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT | Errno::ENOTDIR) => Ok(()),
            Err(e) => Err(fault("DELETE", key, e)),
        }
    }
}

/// Gives the temporary file its final name unless that exists: by a link, or where the file system has none (exFAT, some shares) by a
/// rename that replaces nothing. Both are decided by the file system in one step, so of several processes one wins. A file system with
/// neither is `ENOTSUP`.
fn publish_once(file: &File, root: &OwnedFd, temp: &str, parent: &OwnedFd, leaf: &str) -> Result<(), Errno> {
    match linkat(root, temp, parent, leaf, AtFlags::empty()) {
        // A share may repeat a link whose answer was lost and report that the name exists; then the file has two links, and the name is ours.
        Err(Errno::EEXIST) if file.metadata().is_ok_and(|meta| meta.nlink() == 2) => return Ok(()),
        Err(Errno::EPERM | Errno::ENOSYS | Errno::EOPNOTSUPP | Errno::EMLINK) => {}
        other => return other,
    }
    match renameat2(root, temp, parent, leaf, RenameFlags::RENAME_NOREPLACE) {
        // The same of a rename that was repeated: the name has our bytes when our file has left its temporary name.
        Err(Errno::ENOENT | Errno::EEXIST) if is_at(file, parent, leaf) => Ok(()),
        Err(Errno::EINVAL | Errno::ENOSYS | Errno::EOPNOTSUPP) => Err(Errno::EOPNOTSUPP),
        other => other,
    }
}

/// Whether `leaf` is this file.
fn is_at(file: &File, parent: &OwnedFd, leaf: &str) -> bool {
    let (Ok(meta), Ok(stat)) = (file.metadata(), fstatat(parent, leaf, AtFlags::AT_SYMLINK_NOFOLLOW)) else {
        return false;
    };
    (meta.dev(), meta.ino()) == (stat.st_dev, stat.st_ino)
}

/// Makes what was named in a directory durable. Some shares have no such call for directories; there the name went to the server when it
/// was made.
fn sync_directory(directory: &OwnedFd) -> Result<(), Errno> {
    match fsync(directory) {
        Err(Errno::EINVAL | Errno::EOPNOTSUPP) => Ok(()),
        other => other,
    }
}

/// Writes in sequence, around the page cache wherever memory, offset and length are aligned.
struct Writer<'a> {
    file: &'a File,
    offset: u64,
    direct: bool,
    may_direct: bool,
}

impl Writer<'_> {
    fn write(&mut self, piece: &[u8]) -> Result<(), Errno> {
        let aligned = |n: usize| n.is_multiple_of(DIRECT_ALIGN_BYTES);
        let whole = piece.len() / DIRECT_ALIGN_BYTES * DIRECT_ALIGN_BYTES;
        let offset_aligned = self.offset.is_multiple_of(DIRECT_ALIGN_BYTES as u64);
        let direct = self.may_direct && offset_aligned && aligned(piece.as_ptr().addr()) && whole > 0;
        let (head, tail) = piece.split_at(if direct { whole } else { 0 });
        self.plain(head, true)?;
        self.plain(tail, false)
    }

    fn plain(&mut self, bytes: &[u8], direct: bool) -> Result<(), Errno> {
        if bytes.is_empty() {
            return Ok(());
        }
        if direct != self.direct {
            let flags = if direct { OFlag::O_DIRECT } else { OFlag::empty() };
            match fcntl(self.file, FcntlArg::F_SETFL(flags)) {
                Ok(_) => self.direct = direct,
                // A file system without direct I/O: stay with the page cache.
                Err(_) => self.may_direct = false,
            }
        }
        let mut file = self.file;
        match file.write_all(bytes) {
            // Some file systems accept the flag and refuse the write. Write the piece again, from its start.
            Err(e) if self.direct && errno(&e) == Errno::EINVAL => {
                self.may_direct = false;
                fcntl(self.file, FcntlArg::F_SETFL(OFlag::empty()))?;
                self.direct = false;
                self.file.write_all_at(bytes, self.offset).map_err(|e| errno(&e))?;
                io::Seek::seek(&mut file, io::SeekFrom::Start(self.offset + bytes.len() as u64))
                    .map_err(|e| errno(&e))?;
            }
            other => other.map_err(|e| errno(&e))?,
        }
        self.offset += bytes.len() as u64;
        Ok(())
    }
}

/// A walk in the order of whole keys: a directory sorts as its name and a slash.
struct Walk<'a> {
    root: &'a OwnedFd,
    prefix: &'a str,
    after: &'a str,
    each: &'a mut dyn FnMut(&str, u64) -> bool,
}

impl Walk<'_> {
    /// Visits everything below `dir` ("" is the root). Returns false when the caller has had enough.
    fn descend(&mut self, dir: &str) -> Result<bool, Errno> {
        let mut last = String::new();
        loop {
            let batch = self.batch(dir, &last)?;
            let full = batch.len() == LIST_BATCH_NAMES;
            for path in batch {
                let go_on = match path.strip_suffix('/') {
                    Some(below) => self.descend(below)?,
                    None => self.visit(&path)?,
                };
                if !go_on {
                    return Ok(false);
                }
                last = path;
            }
            if !full {
                return Ok(true);
            }
        }
    }

    fn visit(&mut self, key: &str) -> Result<bool, Errno> {
        match fstatat(self.root, key, AtFlags::empty()) {
            Ok(stat) => Ok((self.each)(key, u64::try_from(stat.st_size).unwrap_or(0))),
            // Deleted since the directory was read.
            Err(Errno::ENOENT) => Ok(true),
            Err(e) => Err(e),
        }
    }

    /// The smallest paths of `dir` greater than `last` that can lead to a wanted key, ascending; at most one batch.
    fn batch(&self, dir: &str, last: &str) -> Result<Vec<String>, Errno> {
        let at = if dir.is_empty() { "." } else { dir };
        let mut handle = match Dir::openat(self.root, at, DIR_FLAGS, Mode::empty()) {
            Ok(handle) => handle,
            Err(Errno::ENOENT | Errno::ENOTDIR) => return Ok(Vec::new()),
            Err(e) => return Err(e),
        };
        // Largest on top, so that it can make room.
        let mut kept = BinaryHeap::new();
        for entry in handle.iter() {
            let entry = entry?;
            let Ok(name) = entry.file_name().to_str() else { continue };
            if !name.bytes().all(super::is_key_byte) {
                continue;
            }
            let mut path = if dir.is_empty() { name.to_owned() } else { format!("{dir}/{name}") };
            let kind = match entry.file_type() {
                Some(Type::Directory) => Type::Directory,
                Some(Type::File) => Type::File,
                _ => match self.kind(&path)? {
                    Some(kind) => kind,
                    None => continue,
                },
            };
            if kind == Type::Directory {
                path.push('/');
            }
            if path.as_str() <= last || !self.wanted(&path) {
                continue;
            }
            kept.push(path);
            if kept.len() > LIST_BATCH_NAMES {
                kept.pop();
            }
        }
        Ok(kept.into_sorted_vec())
    }

    /// Kind of an entry whose kind the directory does not have; `None` for what is neither or is gone.
    fn kind(&self, path: &str) -> Result<Option<Type>, Errno> {
        match fstatat(self.root, path, AtFlags::empty()) {
            Ok(stat) => match SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT {
                SFlag::S_IFDIR => Ok(Some(Type::Directory)),
                SFlag::S_IFREG => Ok(Some(Type::File)),
                _ => Ok(None),
            },
            Err(Errno::ENOENT | Errno::ELOOP) => Ok(None),
            Err(e) => Err(e),
        }
    }

    fn wanted(&self, path: &str) -> bool {
        if path.ends_with('/') {
            if path.matches('/').count() >= KEY_DEPTH_MAX {
                return false;
            }
            let on_the_way = path.starts_with(self.prefix) || self.prefix.starts_with(path);
            on_the_way && (path > self.after || self.after.starts_with(path))
        } else {
            path.starts_with(self.prefix) && path > self.after
        }
    }
}

fn open_path(path: &Path) -> Result<OwnedFd, Errno> {
    let flags = (OFlag::O_DIRECTORY | OFlag::O_CLOEXEC).bits();
    OpenOptions::new().read(true).custom_flags(flags).open(path).map(OwnedFd::from).map_err(|e| errno(&e))
}

/// Which directory the root is. Device and inode are not enough: a disk that is plugged in after another has often its device number, and
/// roots of file systems have the same inode.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Identity {
    device: u64,
    inode: u64,
    /// What the file system says that it is: made from its UUID on ext4 and btrfs, from the device elsewhere.
    file_system: u64,
    /// When the directory was made, where the file system knows it.
    born: Option<(i64, u32)>,
}

fn identity(root: &OwnedFd) -> Result<Identity, Errno> {
    let stat = nix::sys::stat::fstat(root.as_fd())?;
    let file_system = nix::sys::statvfs::fstatvfs(root)?.filesystem_id();
    let born = statx(root, "", AtFlagsOfStatx::EMPTY_PATH, StatxFlags::BTIME)
        .ok()
        .filter(|found| found.stx_mask & StatxFlags::BTIME.bits() != 0)
        .map(|found| (found.stx_btime.tv_sec, found.stx_btime.tv_nsec));
    Ok(Identity { device: stat.st_dev, inode: stat.st_ino, file_system, born })
}

fn errno(error: &io::Error) -> Errno {
    match error.raw_os_error() {
        Some(code) => Errno::from_raw(code),
        // `write_all` of zero progress; no system call gave a number.
        None => Errno::EIO,
    }
}

/// What an error number means. A failed fsync or a share's lost answer leaves open whether the call was applied.
fn fault(verb: &str, key: &str, e: Errno) -> StoreFault {
    let kind = match e {
        Errno::ENOSPC | Errno::EDQUOT => StoreFaultKind::Full,
        Errno::EACCES | Errno::EPERM => StoreFaultKind::Denied,
        Errno::EROFS => StoreFaultKind::ReadOnly,
        Errno::ENAMETOOLONG | Errno::ENOTDIR | Errno::EISDIR | Errno::ELOOP | Errno::EXDEV => {
            StoreFaultKind::Rejected
        }
        Errno::EFBIG | Errno::EMLINK | Errno::EINVAL => StoreFaultKind::Rejected,
        Errno::EOPNOTSUPP | Errno::ENOSYS => StoreFaultKind::Unsupported,
        Errno::ENODEV | Errno::ENXIO => StoreFaultKind::StoreGone,
        _ => StoreFaultKind::Unknown,
    };
    match kind {
        StoreFaultKind::Denied => {
            let detail = format!("{}; check who may use the directory, and its mode", e.desc());
            StoreFault::new(kind, verb, key, detail)
        }
        StoreFaultKind::ReadOnly => StoreFault::new(kind, verb, key, ""),
        _ => StoreFault::new(kind, verb, key, e.desc()),
    }
}
