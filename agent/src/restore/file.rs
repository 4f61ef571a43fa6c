//! Files and directories on their way to their names: who has to be waited for, and what happens last.
//!
//! ```text
//!  file       left = 1 (still being planned) + blocks not written yet          0: attributes, then every name
//!  directory  left = 1 (still being walked) + entries that are not there yet   0: attributes; then its parent has one less
//! ```
//!
//! Whoever takes the last count does the rest, on its own thread; counts only fall after they were raised by the walk.
//! Invariants: a file gets its names only when all its blocks are verified and written (unless damaged ones are asked for).
//! Source: ours; order of attributes in `attr`.

use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::fs::{FallocateFlags, Mode};
use rustix::io::Errno;

use super::attr::{self, Known};
use super::fault::{FaultLog, Reason, RestoreFault, is_fatal};
use super::target::{Existing, Inherited, Target, Temp, open_dir};
use crate::format::row::ItemAttributes;
use crate::id::Lin;
use crate::progress::Progress;

/// How to restore.
#[derive(Clone, Copy, Debug)]
pub struct RestoreOptions {
    /// What to do with names that are taken.
    pub existing: Existing,
    /// Give a file its name even when blocks of it are damaged or missing; they are zero then.
    pub keep_damaged: bool,
    /// Make everything durable at the end.
    pub sync: bool,
    /// Whether owners can be set (root); else they are left.
    pub owners: bool,
}

/// What all threads of a restore share.
pub struct Job {
    /// The directory that it goes to; `None` when it goes to a device.
    pub target: Option<Target>,
    /// How.
    pub options: RestoreOptions,
    /// What did not work.
    pub faults: FaultLog,
    /// Counters for whoever watches.
    pub progress: Arc<Progress>,
    /// The first thing that ends the restore.
    pub fatal: Mutex<Option<RestoreFault>>,
}

impl Job {
    /// Notes what ends the restore; the first one counts.
    pub fn fail(&self, fault: RestoreFault) {
        let mut fatal = self.fatal.lock().unwrap_or_else(PoisonError::into_inner);
        fatal.get_or_insert(fault);
    }

    /// Whether the restore should end.
    pub fn is_over(&self) -> bool {
        self.progress.is_stop_requested()
            || self.fatal.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// Reports a failed call on an item, or ends the restore when no other call would do better.
    pub fn system(&self, path: Vec<u8>, call: &'static str, errno: Errno) {
        if is_fatal(errno) {
            self.fail(RestoreFault::Target { call, errno });
        } else {
            self.faults.add(path, Reason::System { call, errno });
        }
    }
}

/// What failed when a directory could not be opened again.
pub(super) const OPEN_AGAIN: &str = "open the directory again";
/// Directories that are opened again together when the walk comes back to one that was closed.
const REOPENED: usize = 256;

/// A directory that is being restored into. It is open, but for one that many open ones are below: that is closed meanwhile, and
/// opened again when the walk comes back to it, or for a moment when a file of it is finished.
#[derive(Debug)]
pub struct Dir {
    /// The directory above; `None` for the target itself.
    pub parent: Option<Arc<Dir>>,
    /// Its name there.
    pub name: Vec<u8>,
    /// `None` while it is closed.
    fd: Mutex<Option<Arc<OwnedFd>>>,
    /// What to set in the end; `None` leaves it as it is.
    pub item: Option<ItemAttributes>,
    /// Whether nothing can be in it yet.
    pub fresh: bool,
    /// What is created in it is known to have; `None` when that is not known.
    pub inherited: Option<Inherited>,
    left: AtomicU64,
}

impl Dir {
    /// A directory that is about to be walked.
    pub fn new(
        parent: Option<Arc<Dir>>,
        name: Vec<u8>,
        fd: OwnedFd,
        item: Option<ItemAttributes>,
        fresh: bool,
        inherited: Option<Inherited>,
    ) -> Arc<Dir> {
        if let Some(parent) = &parent {
            parent.left.fetch_add(1, Ordering::Relaxed);
        }
        let fd = Mutex::new(Some(Arc::new(fd)));
        Arc::new(Dir { parent, name, fd, item, fresh, inherited, left: AtomicU64::new(1) })
    }

    fn slot(&self) -> MutexGuard<'_, Option<Arc<OwnedFd>>> {
        self.fd.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The open directory; one that is closed is opened for the caller alone.
    pub fn fd(&self) -> Result<Arc<OwnedFd>, Errno> {
        if let Some(fd) = &*self.slot() {
            return Ok(Arc::clone(fd));
        }
        let (mut fd, way) = self.way()?;
        for dir in way.into_iter().rev() {
            fd = Arc::new(open_dir(fd.as_fd(), &dir.name)?);
        }
        Ok(fd)
    }

    /// The nearest directory above that is open, and the closed ones from this one up to it.
    fn way(&self) -> Result<(Arc<OwnedFd>, Vec<&Dir>), Errno> {
        let mut way = vec![self];
        let mut at = self;
        loop {
            // The target itself is never closed.
            at = at.parent.as_deref().ok_or(Errno::BADF)?;
            if let Some(fd) = &*at.slot() {
                return Ok((Arc::clone(fd), way));
            }
            way.push(at);
        }
    }

    /// Closes it until somebody needs it.
    pub fn close(&self) {
        self.slot().take();
    }

    /// Opens it again, if it is closed, and with it the last of those above it: the walk is on its way up.
    pub fn reopen(&self) -> Result<(), Errno> {
        if self.slot().is_some() {
            return Ok(());
        }
        let (mut fd, way) = self.way()?;
        for (above, dir) in way.into_iter().enumerate().rev() {
            fd = Arc::new(open_dir(fd.as_fd(), &dir.name)?);
            if above < REOPENED {
                *dir.slot() = Some(Arc::clone(&fd));
            }
        }
        Ok(())
    }

    /// Path of an entry below the target.
    pub fn path_of(&self, name: &[u8]) -> Vec<u8> {
        let mut parts = vec![name];
        let mut at = self;
        while let Some(parent) = &at.parent {
            parts.push(&at.name);
            at = parent;
        }
        parts.reverse();
        parts.retain(|part| !part.is_empty());
        parts.join(&b'/')
    }

    /// One entry is there, or the walk is over. The last one settles the directory, and so on upwards.
    pub fn done(self: &Arc<Dir>, job: &Job) {
        let mut at = Arc::clone(self);
        while at.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            match (&at.item, at.fd()) {
                (Some(item), Ok(fd)) => {
                    let mut report = |reason| job.faults.add(at.path_of(b""), reason);
                    attr::settle(fd.as_fd(), item, Known::NOTHING, job.options.owners, &mut report);
                    attr::set_flags(fd.as_fd(), item, &mut report);
                }
                (Some(_), Err(errno)) => job.system(at.path_of(b""), OPEN_AGAIN, errno),
                (None, _) => {}
            }
            let Some(parent) = &at.parent else { return };
            at = Arc::clone(parent);
        }
    }
}

impl Drop for Dir {
    /// Lets go of those above one by one: each holds the next, and the stack has no room for them all.
    fn drop(&mut self) {
        let mut above = self.parent.take();
        while let Some(dir) = above {
            above = Arc::into_inner(dir).and_then(|mut dir| dir.parent.take());
        }
    }
}

/// A name that a file will get.
#[derive(Clone, Debug)]
pub struct FileName {
    /// Where.
    pub dir: Arc<Dir>,
    /// The name.
    pub name: Vec<u8>,
    /// Whether it may replace what is there.
    pub replace: bool,
}

/// A file that is being restored.
#[derive(Debug)]
pub struct File {
    /// Which item.
    pub lin: Lin,
    /// What to set in the end.
    pub item: ItemAttributes,
    left: AtomicU64,
    /// Whether writing all blocks leaves the file shorter than it is: it ends in a hole.
    needs_length: AtomicBool,
    /// The same inode, opened for direct writes.
    direct: Option<OwnedFd>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    temp: Option<Arc<Temp>>,
    names: Vec<FileName>,
    damaged: bool,
    done: bool,
}

impl State {
    /// Lets go of the file; without a name it vanishes.
    fn close(&mut self, job: &Job) {
        if let (Some(target), Some(temp)) = (&job.target, self.temp.take().and_then(Arc::into_inner)) {
            target.close(temp);
        }
    }
}

impl File {
    /// A file that is about to be planned, with its first name.
    pub fn new(lin: Lin, item: ItemAttributes, name: FileName) -> Arc<File> {
        name.dir.left.fetch_add(1, Ordering::Relaxed);
        let state = State { temp: None, names: vec![name], damaged: false, done: false };
        let needs_length = AtomicBool::new(item.size > 0);
        Arc::new(File {
            lin,
            item,
            left: AtomicU64::new(1),
            needs_length,
            direct: None,
            state: Mutex::new(state),
        })
    }

    /// A device or image file that is open already, perhaps for direct writes too: no name, no attributes.
    pub fn of_device(lin: Lin, item: ItemAttributes, fd: OwnedFd, direct: Option<OwnedFd>) -> Arc<File> {
        let state = State {
            temp: Some(Arc::new(Temp::of_device(fd))),
            names: Vec::new(),
            damaged: false,
            done: false,
        };
        let needs_length = AtomicBool::new(false);
        Arc::new(File { lin, item, left: AtomicU64::new(1), needs_length, direct, state: Mutex::new(state) })
    }

    /// For direct writes, where the target can and should have them.
    pub fn direct(&self) -> Option<&OwnedFd> {
        self.direct.as_ref()
    }

    /// Says that the last byte will be written, so that the length need not be set.
    pub fn ends_in_data(&self) {
        self.needs_length.store(false, Ordering::Relaxed);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Path of its first name.
    pub fn path(&self) -> Vec<u8> {
        self.state().names.first().map_or_else(Vec::new, |n| n.dir.path_of(&n.name))
    }

    /// Adds a name; gives it back when the file is finished already.
    pub fn add_name(&self, name: FileName) -> Result<(), FileName> {
        let mut state = self.state();
        if state.done {
            return Err(name);
        }
        name.dir.left.fetch_add(1, Ordering::Relaxed);
        state.names.push(name);
        Ok(())
    }

    /// Whether it has its names, or will not get them.
    pub fn is_done(&self) -> bool {
        self.state().done
    }

    /// Raises the count of what is left by `blocks`.
    pub fn expect(&self, blocks: u64) {
        self.left.fetch_add(blocks, Ordering::Relaxed);
    }

    /// Marks the file as not whole; `true` when it was whole so far.
    pub fn damage(&self) -> bool {
        !std::mem::replace(&mut self.state().damaged, true)
    }

    /// Creates the file without a name, if it is not there yet; `true` when this call did.
    fn open(&self, state: &mut State, job: &Job) -> Result<bool, Errno> {
        if state.temp.is_some() {
            return Ok(false);
        }
        let Some(first) = state.names.first() else { return Err(Errno::NOENT) };
        // Nobody can open a file without a name, so it may have its mode from the start.
        let mode = Mode::from_raw_mode(u32::from(self.item.mode & 0o777));
        let Some(target) = &job.target else { return Err(Errno::BADF) };
        state.temp = Some(Arc::new(target.create(first.dir.fd()?.as_fd(), mode)?));
        Ok(true)
    }

    /// Runs `write` with the open file. What fails marks the file as damaged.
    pub fn write(&self, job: &Job, call: &'static str, write: impl FnOnce(&OwnedFd) -> Result<(), Errno>) {
        let mut state = self.state();
        if let Err(errno) = self.open(&mut state, job) {
            state.damaged = true;
            drop(state);
            job.system(self.path(), "create the file", errno);
            return;
        }
        let temp = state.temp.clone();
        drop(state);
        if let Some(Err(errno)) = temp.map(|temp| write(&temp.fd)) {
            self.damage();
            job.system(self.path(), call, errno);
        }
    }

    /// Allocates `offset..offset + len` without writing, past the end as well.
    pub fn preallocate(&self, job: &Job, offset: u64, len: u64) {
        self.write(job, "preallocate", |fd| {
            match rustix::fs::fallocate(fd, FallocateFlags::KEEP_SIZE, offset, len) {
                // A file system without preallocation: reads as zero all the same.
                Err(Errno::OPNOTSUPP) => Ok(()),
                other => other,
            }
        });
    }

    /// One block is written, or the planning is over. The last one finishes the file.
    pub fn done(&self, job: &Job, count: u64) {
        if self.left.fetch_sub(count, Ordering::AcqRel) == count {
            self.finish(job);
        }
    }

    /// Length, attributes, names, flags.
    fn finish(&self, job: &Job) {
        let mut state = self.state();
        state.done = true;
        let names = std::mem::take(&mut state.names);
        if let Some(first) = names.first() {
            let path = || first.dir.path_of(&first.name);
            if state.damaged && !job.options.keep_damaged || job.is_over() {
                state.close(job);
            } else {
                state.names = names.clone();
                if let Err(errno) = self.open(&mut state, job) {
                    job.system(path(), "create the file", errno);
                } else if let Some(temp) = &state.temp {
                    self.name(job, temp, &names);
                }
                state.close(job);
                state.names = Vec::new();
            }
        }
        drop(state);
        job.progress.items_done.add(1);
        for name in &names {
            name.dir.done(job);
        }
    }

    fn name(&self, job: &Job, temp: &Temp, names: &[FileName]) {
        let (Some(first), Some(target)) = (names.first(), &job.target) else { return };
        let path = || first.dir.path_of(&first.name);
        let mut report = |reason| job.faults.add(path(), reason);
        if self.needs_length.load(Ordering::Relaxed)
            && let Err(errno) = rustix::fs::ftruncate(&temp.fd, self.item.size)
        {
            job.system(path(), "set the length", errno);
            return;
        }
        // After the length: setting it, even to what it is, frees what is allocated past it.
        for past in past_end(&self.item) {
            let len = past.end - past.start;
            match rustix::fs::fallocate(&temp.fd, FallocateFlags::KEEP_SIZE, past.start, len) {
                Ok(()) => {}
                Err(Errno::OPNOTSUPP) => break,
                Err(errno) => job.system(path(), "preallocate past the end", errno),
            }
        }
        // It was created in the first name's directory.
        let known = first.dir.inherited.map_or(Known::NOTHING, |has| self.known(has));
        if first.dir.inherited.is_none() {
            attr::drop_inherited_acls(&temp.fd);
        }
        attr::settle(temp.fd.as_fd(), &self.item, known, job.options.owners, &mut report);
        let flags = attr::has_flags(&self.item);
        if self.item.links > 1
            && let Err(errno) = target.stash(temp, self.lin.inode, flags)
        {
            job.system(path(), "keep for further names", errno);
        }
        for name in names {
            let linked =
                name.dir.fd().and_then(|dir| target.link(temp, dir.as_fd(), &name.name, name.replace));
            match linked {
                Ok(()) => {}
                Err(Errno::EXIST) => job.faults.add(name.dir.path_of(&name.name), Reason::Exists),
                Err(errno) => job.system(name.dir.path_of(&name.name), "give the file its name", errno),
            }
        }
        if flags && self.item.links <= 1 {
            attr::set_flags(temp.fd.as_fd(), &self.item, &mut report);
        }
    }

    /// What a file has that was just created.
    fn known(&self, has: Inherited) -> Known {
        Known { owner: Some((has.uid, has.gid)), mode: Some(self.item.mode & 0o777 & !has.umask) }
    }
}

/// What is allocated past an item's end: between the gaps.
fn past_end(item: &ItemAttributes) -> impl Iterator<Item = Range<u64>> + '_ {
    let mut at = item.size;
    let ends = item.gaps.iter().copied().chain([(item.allocated_to, u64::MAX)]);
    ends.filter_map(move |(to, next)| {
        let range = at..to;
        at = next;
        (range.start < range.end).then_some(range)
    })
}
