//! A directory as a target: its root, its staging directory, and how a finished file gets its name.
//!
//! ```text
//!  target/                               root: every other path is reached from its descriptor, one component at a time
//!    .windlass-restore-0123456789abcdef/ staging: locked (flock) for as long as the restore lives
//!      41234                             a file with more names to come: linked from here
//!      41235f                            the same, with flags to be set at the end
//!      t17                               a symlink, special file or replacement on its way to its name
//! ```
//!
//! Invariants
//! - A name that a user sees is whole: data goes to an unnamed file (`O_TMPFILE`), which is linked when it is complete. Unnamed
//!   files vanish with the process. Measured on ext4, 60,000 files, 2 threads: 1.29 s and 2.3 s CPU, against 1.42 s and 2.6 s
//!   for a temporary name and a rename (1.05 s for writing under the final name, which a kill -9 would leave half-written).
//! - What a killed restore left is in its staging directory, which nobody has locked any more; the next restore removes it.
//! - No symlink is ever followed below the root: `openat2` with `RESOLVE_BENEATH`, single components, `O_NOFOLLOW`.
//!
//! Does not: survive a hostile process that renames directories under it while it runs: descriptors then still lead to the
//! directories that it made. Source: blocks reference E; peers reference 5.

use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rustix::fs::{AtFlags, Dir as Listing, FlockOperation, Mode, OFlags, RenameFlags, ResolveFlags};
use rustix::io::Errno;

use super::attr;
use super::fault::RestoreFault;

/// What the staging directory's name starts with; 16 hex digits follow.
pub const STAGING_PREFIX: &str = ".windlass-restore-";

/// What to do with a name that is taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Existing {
    /// Leave it, and report the item.
    #[default]
    Refuse,
    /// Leave it, silently.
    Skip,
    /// Leave it when type, size, mtime, mode and owner are those of the item; else replace it.
    OverwriteIfDifferent,
    /// Replace it.
    Overwrite,
}

impl Existing {
    /// Whether what is there may be changed.
    pub fn replaces(self) -> bool {
        matches!(self, Existing::OverwriteIfDifferent | Existing::Overwrite)
    }
}

/// An open target directory.
#[derive(Debug)]
pub struct Target {
    root: OwnedFd,
    staging: OwnedFd,
    staging_name: String,
    /// Whether nothing was in it but what a fresh file system has.
    empty: bool,
    /// Whether this restore made it.
    made: bool,
    inherited: Option<Inherited>,
    temps: AtomicU64,
    named_temps: AtomicBool,
    link_by_proc: AtomicBool,
}

/// What a file has that is created in a directory without a default ACL.
#[derive(Clone, Copy, Debug)]
pub struct Inherited {
    /// User.
    pub uid: u32,
    /// Group: the process's, or that of a directory with the setgid bit.
    pub gid: u32,
    /// File mode creation mask.
    pub umask: u16,
}

/// A file without its final name.
#[derive(Debug)]
pub struct Temp {
    /// Open for writing.
    pub fd: OwnedFd,
    /// Its name in the staging directory, where the file system knows no unnamed files.
    name: Option<String>,
}

impl Temp {
    /// An open device, which needs no name.
    pub fn of_device(fd: OwnedFd) -> Temp {
        Temp { fd, name: None }
    }
}

impl Target {
    /// Opens `path`, which must be there: the first half of [`Target::open`].
    pub fn open_existing(path: &Path, nonce: u64) -> Result<Target, RestoreFault> {
        Target::open_as(path, nonce, false)
    }

    /// Opens `path`, making it when it is not there (its parent must be), and clears what earlier restores left. `nonce` is
    /// random: it names the staging directory.
    pub fn open(path: &Path, nonce: u64) -> Result<Target, RestoreFault> {
        let made = match rustix::fs::mkdir(path, Mode::from_raw_mode(0o700)) {
            Ok(()) => true,
            Err(Errno::EXIST) => false,
            Err(errno) => return Err(RestoreFault::Target { call: "create the directory", errno }),
        };
        Target::open_as(path, nonce, made)
    }

    fn open_as(path: &Path, nonce: u64, made: bool) -> Result<Target, RestoreFault> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(path, flags, Mode::empty())
            .map_err(|errno| RestoreFault::Target { call: "open the directory", errno })?;
        let empty = clear_leftovers(root.as_fd())
            .map_err(|errno| RestoreFault::Target { call: "read the directory", errno })?;
        let staging_name = format!("{STAGING_PREFIX}{nonce:016x}");
        let staging = rustix::fs::mkdirat(&root, staging_name.as_str(), Mode::from_raw_mode(0o700))
            .and_then(|()| open_dir(root.as_fd(), staging_name.as_bytes()))
            .and_then(|fd| rustix::fs::flock(&fd, FlockOperation::NonBlockingLockExclusive).map(|()| fd))
            .map_err(|errno| RestoreFault::Target { call: "make the staging directory", errno })?;
        let inherited = if attr::drop_inherited_acls(&staging) { None } else { Inherited::of(&staging) };
        Ok(Target {
            root,
            staging,
            staging_name,
            empty,
            made,
            inherited,
            temps: AtomicU64::new(0),
            named_temps: AtomicBool::new(false),
            link_by_proc: AtomicBool::new(false),
        })
    }

    /// A second descriptor of the root.
    pub fn root(&self) -> Result<OwnedFd, RestoreFault> {
        self.root.try_clone().map_err(|_| RestoreFault::Resources("file descriptors"))
    }

    /// The staging directory.
    pub fn staging(&self) -> BorrowedFd<'_> {
        self.staging.as_fd()
    }

    /// Whether nothing was there before.
    pub fn was_empty(&self) -> bool {
        self.empty
    }

    /// Whether the root was not there before.
    pub fn was_made(&self) -> bool {
        self.made
    }

    /// What is created in the root, and in new directories below it, is known to have; `None` when it has a default ACL.
    pub fn inherited(&self) -> Option<Inherited> {
        self.inherited
    }

    /// A new name in the staging directory.
    pub fn temp_name(&self) -> String {
        format!("t{}", self.temps.fetch_add(1, Ordering::Relaxed))
    }

    /// Opens a new file in the file system of `dir`, for writing and reading, without a name.
    pub fn create(&self, dir: BorrowedFd<'_>, mode: Mode) -> Result<Temp, Errno> {
        let flags = OFlags::RDWR | OFlags::CLOEXEC;
        if !self.named_temps.load(Ordering::Relaxed) {
            match rustix::fs::openat(dir, c".", flags | OFlags::TMPFILE, mode) {
                Ok(fd) => return Ok(Temp { fd, name: None }),
                Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::NOSYS) => {
                    self.named_temps.store(true, Ordering::Relaxed);
                }
                Err(errno) => return Err(errno),
            }
        }
        let name = self.temp_name();
        let fd =
            rustix::fs::openat(&self.staging, name.as_str(), flags | OFlags::CREATE | OFlags::EXCL, mode)?;
        Ok(Temp { fd, name: Some(name) })
    }

    /// Gives an unfinished or finished file another name. `replace` allows that the name is taken.
    pub fn link(&self, temp: &Temp, dir: BorrowedFd<'_>, name: &[u8], replace: bool) -> Result<(), Errno> {
        match self.link_new(temp, dir, name) {
            Err(Errno::EXIST) if replace => {}
            other => return other,
        }
        let between = self.temp_name();
        self.link_new(temp, self.staging.as_fd(), between.as_bytes())?;
        self.rename(&between, dir, name, true)
    }

    fn link_new(&self, temp: &Temp, dir: BorrowedFd<'_>, name: &[u8]) -> Result<(), Errno> {
        if let Some(temp_name) = &temp.name {
            return rustix::fs::linkat(&self.staging, temp_name.as_str(), dir, name, AtFlags::empty());
        }
        if !self.link_by_proc.load(Ordering::Relaxed) {
            match rustix::fs::linkat(&temp.fd, c"", dir, name, AtFlags::EMPTY_PATH) {
                // Without CAP_DAC_READ_SEARCH, before Linux 6.10.
                Err(Errno::NOENT) => self.link_by_proc.store(true, Ordering::Relaxed),
                other => return other,
            }
        }
        let path = format!("/proc/self/fd/{}", temp.fd.as_raw_fd());
        rustix::fs::linkat(rustix::fs::CWD, path, dir, name, AtFlags::SYMLINK_FOLLOW)
    }

    /// Ends with a file, whether it got a name or not.
    pub fn close(&self, temp: Temp) {
        if let Some(name) = temp.name {
            // What stays is a leftover, which the next restore clears.
            let _ = rustix::fs::unlinkat(&self.staging, name, AtFlags::empty());
        }
    }

    /// Moves `from` out of the staging directory to its name.
    pub fn rename(&self, from: &str, dir: BorrowedFd<'_>, name: &[u8], replace: bool) -> Result<(), Errno> {
        let flags = if replace { RenameFlags::empty() } else { RenameFlags::NOREPLACE };
        let moved = match rustix::fs::renameat_with(&self.staging, from, dir, name, flags) {
            // A file system without NOREPLACE: look first. Only this restore writes here.
            Err(Errno::INVAL) if !replace => match rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
                Err(Errno::NOENT) => rustix::fs::renameat(&self.staging, from, dir, name),
                Ok(_) => Err(Errno::EXIST),
                Err(errno) => Err(errno),
            },
            other => other,
        };
        if moved.is_err() {
            let _ = rustix::fs::unlinkat(&self.staging, from, AtFlags::empty());
        }
        moved
    }

    /// Keeps a file in the staging directory, so that later names of it can be linked.
    pub fn stash(&self, temp: &Temp, inode: u64, flags_pending: bool) -> Result<(), Errno> {
        match self.link_new(temp, self.staging.as_fd(), stash_name(inode, flags_pending).as_bytes()) {
            Err(Errno::EXIST) => Ok(()),
            other => other,
        }
    }

    /// The same for an item that was made in the staging directory under the name `temp`.
    pub fn stash_made(&self, temp: &str, inode: u64) -> Result<(), Errno> {
        let staging = &self.staging;
        match rustix::fs::linkat(staging, temp, staging, stash_name(inode, false), AtFlags::empty()) {
            Err(Errno::EXIST) => Ok(()),
            other => other,
        }
    }

    /// Keeps a file that was there already, unless one is kept for the item; then returns the inode number of that one. A file
    /// that cannot be linked (it is immutable) is left as it is.
    pub fn adopt(&self, dir: BorrowedFd<'_>, name: &[u8], inode: u64, flags_pending: bool) -> Option<u64> {
        let stashed = stash_name(inode, flags_pending);
        match rustix::fs::linkat(dir, name, &self.staging, stashed.as_str(), AtFlags::empty()) {
            Err(Errno::EXIST) => {
                let kept = rustix::fs::statat(&self.staging, stashed.as_str(), AtFlags::SYMLINK_NOFOLLOW);
                kept.ok().map(|kept| kept.st_ino)
            }
            _ => None,
        }
    }

    /// Gives a stashed file another name; `Ok(false)` when it is not stashed.
    pub fn link_stashed(
        &self,
        inode: u64,
        flags_pending: bool,
        dir: BorrowedFd<'_>,
        name: &[u8],
        replace: bool,
    ) -> Result<bool, Errno> {
        let stashed = stash_name(inode, flags_pending);
        match rustix::fs::linkat(&self.staging, stashed.as_str(), dir, name, AtFlags::empty()) {
            Ok(()) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(Errno::EXIST) if replace => {
                let between = self.temp_name();
                match rustix::fs::linkat(
                    &self.staging,
                    stashed.as_str(),
                    &self.staging,
                    between.as_str(),
                    AtFlags::empty(),
                ) {
                    Err(Errno::NOENT) => Ok(false),
                    other => other.and_then(|()| self.rename(&between, dir, name, true)).map(|()| true),
                }
            }
            Err(errno) => Err(errno),
        }
    }

    /// Takes every stashed file out of the staging directory, calls `flagged` with those whose flags are pending, and removes
    /// the directory. The lock ends with the target.
    pub fn clear_staging(&self, flagged: &mut dyn FnMut(u64, BorrowedFd<'_>)) -> Result<(), Errno> {
        each_name(self.staging.as_fd(), &mut |name| {
            let text = name.to_str().unwrap_or("");
            let pending = text.strip_suffix('f').and_then(|digits| digits.parse::<u64>().ok());
            let file = match pending {
                Some(_) => {
                    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
                    rustix::fs::openat(&self.staging, name, flags, Mode::empty()).ok()
                }
                None => None,
            };
            // A name that cannot be removed keeps the directory, and the next restore tries again.
            let _ = rustix::fs::unlinkat(&self.staging, name, AtFlags::empty());
            if let (Some(inode), Some(file)) = (pending, file) {
                flagged(inode, file.as_fd());
            }
        })?;
        rustix::fs::unlinkat(&self.root, self.staging_name.as_str(), AtFlags::REMOVEDIR)
    }

    /// Makes everything durable.
    pub fn sync(&self) -> Result<(), Errno> {
        rustix::fs::syncfs(&self.root)
    }
}

fn stash_name(inode: u64, flags_pending: bool) -> String {
    if flags_pending { format!("{inode}f") } else { format!("{inode}") }
}

impl Inherited {
    /// What `made`, just created, says about whatever is created beside it.
    fn of(made: &OwnedFd) -> Option<Inherited> {
        let stat = rustix::fs::fstat(made).ok()?;
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let umask = status.lines().find_map(|line| line.strip_prefix("Umask:"))?;
        let umask = u16::from_str_radix(umask.trim(), 8).ok()?;
        Some(Inherited { uid: stat.st_uid, gid: stat.st_gid, umask })
    }
}

/// Opens the directory `name` in `dir`, never through a symlink.
pub fn open_dir(dir: BorrowedFd<'_>, name: &[u8]) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    match rustix::fs::openat2(dir, name, flags, Mode::empty(), resolve) {
        // Before Linux 5.6. One component that is not ".." cannot leave its directory, and O_NOFOLLOW covers the rest.
        Err(Errno::NOSYS) => rustix::fs::openat(dir, name, flags, Mode::empty()),
        other => other,
    }
}

/// Whether `name` may name an entry: the rows are not believed.
pub fn is_safe_name(name: &[u8]) -> bool {
    !name.is_empty()
        && name.len() <= crate::limits::NAME_BYTES_MAX
        && name != b"."
        && name != b".."
        && !name.iter().any(|&b| b == b'/' || b == 0)
}

fn each_name(dir: BorrowedFd<'_>, each: &mut dyn FnMut(&CStr)) -> Result<(), Errno> {
    for entry in Listing::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        if name != c"." && name != c".." {
            each(name);
        }
    }
    Ok(())
}

/// Removes staging directories that nobody holds; returns whether nothing else is there but `lost+found`.
fn clear_leftovers(root: BorrowedFd<'_>) -> Result<bool, Errno> {
    let mut empty = true;
    let mut left = Vec::new();
    each_name(root, &mut |name| {
        let digits = name.to_bytes().strip_prefix(STAGING_PREFIX.as_bytes());
        let ours = digits.is_some_and(|d| d.len() == 16 && d.iter().all(u8::is_ascii_hexdigit));
        if ours {
            left.push(name.to_owned());
        } else if name != c"lost+found" {
            empty = false;
        }
    })?;
    for name in left {
        let Ok(dir) = open_dir(root, name.to_bytes()) else { continue };
        if rustix::fs::flock(&dir, FlockOperation::NonBlockingLockExclusive).is_err() {
            continue;
        }
        // Only plain entries are made in there; anything else makes the removal fail and stays for its owner.
        each_name(dir.as_fd(), &mut |entry| {
            let _ = rustix::fs::unlinkat(&dir, entry, AtFlags::empty());
        })?;
        let _ = rustix::fs::unlinkat(root, name, AtFlags::REMOVEDIR);
    }
    Ok(empty)
}
