//! The walk of a restore: from roots and selected paths to directories, files and windows of blocks.
//!
//! Depth first, one directory per level (the last [`OPEN_LEVELS_MAX`] of them open), entries in chunks sorted by inode (that is how the tables lie). Files gather in a
//! window; a full window is planned and handed to the lanes; at most [`WINDOWS_MAX`](super::gather::WINDOWS_MAX) are alive.
//!
//! Invariants: memory is bounded by chunk, depth and windows; a directory's attributes are set after its last entry (`file`);
//! rows are foreign: names and layouts are judged before anything is made of them. Source: ours.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, PoisonError};

use rustix::fs::{AtFlags, FileType, Mode};
use rustix::io::Errno;
use windlass_hal::volume::ItemKind;

use super::attr::{self, Known};
use super::fault::{ItemFault, Reason, RestoreFault};
use super::file::{Dir, File, FileName, Job, OPEN_AGAIN, RestoreOptions};
use super::gather::Gather;
use super::inode_flags;
use super::lane::{self, Gate, Queue, Task};
use super::names::Names as OtherNames;
use super::place::DirId;
use super::remove::is_empty;
use super::target::{Existing, Target, is_safe_name, open_dir};
use crate::format::row::{ItemAttributes, RowPayload};
use crate::format::seal::Keys;
use crate::id::Lin;
use crate::progress::Progress;
use crate::read::lookup::Lookup;
use crate::read::plan::{Merging, WantedBlock};
use crate::store::retry::Client;
use crate::table::lost::known;
use crate::table::read::Names;
use crate::table::source::Fetch;

/// Directory entries read at once.
const CHUNK_NAMES: usize = 1024;
/// Deepest nesting that is followed: 16 MiB of levels. No path leads there any more, each directory is opened from the one above.
pub const DEPTH_MAX: usize = 16_384;
/// Levels whose directories are open, the last ones: a process may have few descriptors, and files need some.
const OPEN_LEVELS_MAX: usize = 512;
/// Bytes of one lane: a fetch, a frame's plain bytes, contexts.
const LANE_OVERHEAD_BYTES: u64 = 2 << 20;
/// Bytes that the walk, the tables and the program need.
const BASE_BYTES: u64 = 14 << 20;
/// Most lanes: beyond it no store answered faster.
const LANES_MAX: u64 = 8;

/// A tree to restore.
#[derive(Clone, Debug)]
pub struct Root {
    /// Its root item; inode 0 when the point has none, because it could not be read.
    pub lin: Lin,
    /// Name below the target, or empty for the target itself (then it must be a directory).
    pub name: Vec<u8>,
}

/// Where a restore reads.
pub struct Source<'a, F> {
    /// The tables at the point.
    pub lookup: Lookup<F>,
    /// The store.
    pub client: &'a Client,
    /// Keys of the repository.
    pub keys: &'a Keys,
}

/// What a restore did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RestoreReport {
    /// Items restored or tried.
    pub items: u64,
    /// Bytes written.
    pub bytes: u64,
    /// What is not as the point has it, by path; at most [`super::fault::FAULTS_MAX`].
    pub faults: Vec<ItemFault>,
    /// How many there were in all.
    pub fault_count: u64,
}

/// Lanes and their largest fetch in bytes for a memory budget.
pub fn lanes_for(memory: u64) -> (usize, u32) {
    let rest = memory.saturating_sub(BASE_BYTES);
    for fetch in [4 << 20, 2 << 20, 1 << 20u64] {
        let lanes = rest / (fetch + LANE_OVERHEAD_BYTES);
        if lanes >= 4 {
            return (lanes.min(LANES_MAX) as usize, fetch as u32);
        }
    }
    ((rest / ((1 << 20) + LANE_OVERHEAD_BYTES)).max(1) as usize, 1 << 20)
}

/// Restores `roots`, or of them the selected paths (components below the root's name), into the directory `target`. `nonce` is
/// random; `memory` is the budget in bytes. Errors end the restore; what belongs to one item is in the report.
#[allow(clippy::too_many_arguments, reason = "one call; each part is named where it is made")]
pub fn run<F: Fetch>(
    source: &mut Source<'_, F>,
    roots: &[Root],
    selection: &[Vec<u8>],
    target: &Path,
    nonce: u64,
    options: RestoreOptions,
    memory: u64,
    progress: &Arc<Progress>,
) -> Result<RestoreReport, RestoreFault> {
    options.repository.look(target)?;
    let job = Job::new(Some(Target::open(target, nonce)?), options, progress);
    let Some(target) = &job.target else { return Err(RestoreFault::Resources("target")) };
    let queue = Queue::default();
    let (lanes, read_bytes_max) = lanes_for(memory);
    let merging = Merging { read_bytes_max, ..Merging::default() };
    let mut names = OtherNames::default();
    let walked = std::thread::scope(|scope| {
        lane::start(scope, lanes, &job, source.client, source.keys, &queue)?;
        let gate = Arc::new(Gate::default());
        let mut walk = Walk {
            lookup: &mut source.lookup,
            job: &job,
            target,
            queue: &queue,
            gate,
            merging,
            files: Vec::new(),
            wanted: Vec::new(),
            runs: Vec::new(),
            links: BTreeMap::new(),
            names: &mut names,
            is_damaged: false,
        };
        let walked = walk.roots(roots, selection);
        walk.send_window();
        queue.close();
        walked
    });
    walked?;
    if let Some(fault) = job.fatal.lock().unwrap_or_else(PoisonError::into_inner).take() {
        return Err(fault);
    }
    if progress.is_stop_requested() {
        return Err(RestoreFault::Cancelled);
    }
    names.unite(&job, target);
    finish(&job, target, &mut source.lookup, roots, selection)?;
    let (faults, fault_count) = job.faults.take();
    let snapshot = progress.snapshot();
    Ok(RestoreReport { items: snapshot.items_done, bytes: snapshot.bytes_done, faults, fault_count })
}

/// Flags of files with several names, the staging directory, durability.
fn finish<F: Fetch>(
    job: &Job,
    target: &Target,
    lookup: &mut Lookup<F>,
    roots: &[Root],
    selection: &[Vec<u8>],
) -> Result<(), RestoreFault> {
    let cleared = target.clear_staging(&mut |inode, fd| {
        for root in roots {
            if let Ok(Some(item)) = lookup.item(Lin { volume: root.lin.volume, inode })
                && inode_flags::has_late(&item)
            {
                inode_flags::set_at_end(fd, &item, &mut |reason| {
                    job.faults.add(inode.to_string().into_bytes(), reason)
                });
                return;
            }
        }
    });
    let left =
        cleared.map_err(|errno| RestoreFault::Target { call: "remove the staging directory", errno })?;
    if let Some(left) = left {
        job.faults.add(Vec::new(), Reason::NotRemoved(left));
    }
    // Removing the staging directory changed the time of the root. What cannot be set was reported when it was set first.
    for root in roots.iter().filter(|root| root.name.is_empty()) {
        if let Ok(Some(item)) = lookup.item(root.lin)
            && item.kind == ItemKind::Directory
            && settles_root(job, target, &item, is_whole(selection))
        {
            let fd = target.root()?;
            attr::settle(fd.as_fd(), &item, Known::of(fd.as_fd()), job.options.owners, &mut |_| {});
        }
    }
    if job.options.sync {
        target.sync().map_err(|errno| RestoreFault::Target { call: "sync", errno })?;
    }
    Ok(())
}

/// Whether the selection asks for everything: it is empty, or names a root itself.
fn is_whole(selection: &[Vec<u8>]) -> bool {
    selection.is_empty() || selection.iter().any(|path| components(path).is_empty())
}

/// Whether the target gets the attributes of the root item. A directory that was in use keeps its own, and one that only some
/// paths are restored to; an empty one may be a new file system, whose root is restored too.
fn settles_root(job: &Job, target: &Target, item: &ItemAttributes, whole: bool) -> bool {
    let before = target.before();
    if before.has_owner_and_mode(item, job.options.owners) && before.mtime == Some(item.mtime) {
        return true;
    }
    let changes = job.options.existing.replaces() || target.was_resumed();
    target.was_made() || whole && (target.was_empty() || changes)
}

/// What of a directory is wanted: everything, or the paths that remain below it.
pub(super) type Wanted = Option<Vec<Vec<Vec<u8>>>>;

/// A directory being walked.
struct Level {
    dir: Arc<Dir>,
    lin: Lin,
    names: Option<Names>,
    /// Entries asked for by name instead of `names`.
    chosen: Vec<(Vec<u8>, Wanted)>,
    /// Directories of the last chunk, still to be entered; the next one is last.
    below: Vec<(Vec<u8>, Lin, ItemAttributes, Wanted)>,
    item: ItemAttributes,
}

pub(super) struct Walk<'a, F> {
    pub(super) lookup: &'a mut Lookup<F>,
    pub(super) job: &'a Job,
    target: &'a Target,
    queue: &'a Queue,
    gate: Arc<Gate>,
    merging: Merging,
    files: Vec<Arc<File>>,
    wanted: Vec<WantedBlock>,
    runs: Vec<(u64, u64)>,
    /// Files with several names that are not finished yet.
    links: BTreeMap<Lin, Arc<File>>,
    names: &'a mut OtherNames,
    /// Whether something could not be read when it was backed up: what it named may have no other name.
    is_damaged: bool,
}

impl<F: Fetch> Walk<'_, F> {
    fn roots(&mut self, roots: &[Root], selection: &[Vec<u8>]) -> Result<(), RestoreFault> {
        let fd = self.target.root()?;
        let (fresh, inherited) = (self.target.was_empty(), self.target.inherited());
        let top = Dir::new(None, Vec::new(), fd, None, fresh, inherited);
        for root in roots {
            let item = match known(self.lookup.item(root.lin))? {
                Ok(Some(item)) => item,
                Ok(None) => {
                    self.is_damaged = true;
                    let reason = if root.lin.inode == 0 { Reason::NoRoot } else { Reason::NoItem(root.lin) };
                    self.job.faults.add(root.name.clone(), reason);
                    continue;
                }
                Err(lost) => {
                    self.job.faults.add(root.name.clone(), Reason::Lost(lost));
                    continue;
                }
            };
            let paths: Vec<_> = selection.iter().map(|path| components(path)).collect();
            let wanted = (!is_whole(selection)).then_some(paths);
            if item.kind != ItemKind::Directory {
                self.entry(&top, &root.name, root.lin, item, None, &mut Vec::new())?;
            } else if root.name.is_empty() {
                if !item.fault.is_empty() {
                    self.is_damaged = true;
                    self.job.faults.add(Vec::new(), Reason::Backup(item.fault.clone()));
                }
                let settles = settles_root(self.job, self.target, &item, wanted.is_none());
                let settled = settles.then(|| item.clone());
                let fd = self.target.root()?;
                if fresh && settled.is_some() {
                    let mut report = |reason| self.job.faults.add(Vec::new(), reason);
                    inode_flags::set_on_new(fd.as_fd(), &item, &mut report);
                }
                let dir = Dir::new(Some(Arc::clone(&top)), Vec::new(), fd, settled, fresh, inherited);
                self.tree(dir, root.lin, item, wanted)?;
            } else if let Some(dir) = self.enter(&top, &root.name, &item, wanted.is_none()) {
                self.tree(dir, root.lin, item, wanted)?;
            }
        }
        if self.is_damaged && is_whole(selection) && !self.job.is_over() {
            for root in roots {
                self.orphans(&top, root.lin)?;
            }
        }
        top.done(self.job);
        Ok(())
    }

    fn level(&mut self, dir: Arc<Dir>, lin: Lin, item: ItemAttributes, wanted: Wanted) -> Level {
        let mut level = Level { dir, lin, names: None, chosen: Vec::new(), below: Vec::new(), item };
        match wanted {
            Some(paths) if paths.iter().all(|path| !path.is_empty()) => level.chosen = by_first(paths),
            _ => level.names = Some(self.lookup.names(lin, &level.item)),
        }
        level
    }

    pub(super) fn tree(
        &mut self,
        dir: Arc<Dir>,
        lin: Lin,
        item: ItemAttributes,
        wanted: Wanted,
    ) -> Result<(), RestoreFault> {
        let mut levels = vec![self.level(dir, lin, item, wanted)];
        while let Some(level) = levels.last_mut() {
            if self.job.is_over() {
                break;
            }
            if let Err(errno) = level.dir.reopen() {
                self.job.system(level.dir.path_of(b""), OPEN_AGAIN, errno);
                levels.pop();
                continue;
            }
            if let Some((name, lin, item, wanted)) = level.below.pop() {
                let dir = Arc::clone(&level.dir);
                if levels.len() >= DEPTH_MAX {
                    self.job.faults.add(dir.path_of(&name), Reason::TooDeep);
                } else if let Some(dir) = self.enter(&dir, &name, &item, wanted.is_none()) {
                    let next = self.level(dir, lin, item, wanted);
                    levels.push(next);
                    // The first one has no name to be opened by.
                    if let Some(far) = levels.len().checked_sub(OPEN_LEVELS_MAX).filter(|&far| far > 0) {
                        levels[far].dir.close();
                    }
                }
            } else if !self.chunk(level)? {
                level.dir.done(self.job);
                levels.pop();
            }
        }
        // Ended early: what is there of the levels above is theirs, so that going on later finds them as they should be.
        for level in levels.iter().rev().filter(|level| level.dir.fresh) {
            if let (Some(item), Ok(fd)) = (&level.dir.item, level.dir.fd()) {
                attr::settle(fd.as_fd(), item, Known::NOTHING, self.job.options.owners, &mut |_| {});
            }
        }
        Ok(())
    }

    /// Handles the next entries of a directory; `false` when there are none left.
    fn chunk(&mut self, level: &mut Level) -> Result<bool, RestoreFault> {
        let mut entries: Vec<(u64, Vec<u8>, Wanted)> = Vec::new();
        for (name, wanted) in level.chosen.drain(..) {
            match known(self.lookup.lookup(level.lin, &level.item, &name))? {
                Ok(Some(row)) => entries.push((row.inode, name, wanted)),
                Ok(None) => self.job.faults.add(level.dir.path_of(&name), Reason::NotFound),
                Err(lost) => self.job.faults.add(level.dir.path_of(&name), Reason::Lost(lost)),
            }
        }
        if let Some(names) = &mut level.names {
            while entries.len() < CHUNK_NAMES {
                match known(self.lookup.next_name(names))? {
                    Ok(Some(row)) => entries.push((row.inode, row.name, None)),
                    Ok(None) => {
                        // A level that waits for those below it keeps no rows.
                        level.names = None;
                        break;
                    }
                    // Said once, at the end of what is left of the listing.
                    Err(lost) => self.job.faults.add(level.dir.path_of(b""), Reason::Lost(lost)),
                }
            }
        }
        if entries.is_empty() {
            return Ok(false);
        }
        entries.sort_unstable_by_key(|entry| entry.0);
        for (inode, name, wanted) in entries {
            let lin = Lin { volume: level.lin.volume, inode };
            if !is_safe_name(&name) {
                self.job.faults.add(level.dir.path_of(&name), Reason::BadName);
                continue;
            }
            match known(self.lookup.item(lin))? {
                Ok(Some(item)) => self.entry(&level.dir, &name, lin, item, wanted, &mut level.below)?,
                Ok(None) => {
                    self.is_damaged = true;
                    self.job.faults.add(level.dir.path_of(&name), Reason::NoItem(lin));
                }
                Err(lost) => self.job.faults.add(level.dir.path_of(&name), Reason::Lost(lost)),
            }
        }
        level.below.reverse();
        Ok(true)
    }

    /// One entry: a directory is put off, anything else is made or planned now.
    pub(super) fn entry(
        &mut self,
        dir: &Arc<Dir>,
        name: &[u8],
        lin: Lin,
        item: ItemAttributes,
        wanted: Wanted,
        below: &mut Vec<(Vec<u8>, Lin, ItemAttributes, Wanted)>,
    ) -> Result<(), RestoreFault> {
        if !item.fault.is_empty() {
            self.is_damaged = true;
            self.job.faults.add(dir.path_of(name), Reason::Backup(item.fault.clone()));
        }
        if item.kind == ItemKind::Directory {
            below.push((name.to_vec(), lin, item, wanted));
            return Ok(());
        }
        if wanted.is_some_and(|paths| paths.iter().all(|path| !path.is_empty())) {
            let reason = match item.payload {
                RowPayload::Target(target) if item.kind == ItemKind::Symlink => {
                    Reason::ThroughSymlink(target)
                }
                _ => Reason::NotADirectory,
            };
            self.job.faults.add(dir.path_of(name), reason);
            return Ok(());
        }
        let Some(replace) = self.admit(dir, name, lin, &item) else { return Ok(()) };
        let name = FileName { dir: Arc::clone(dir), name: name.to_vec(), replace };
        match item.kind {
            ItemKind::File | ItemKind::Image => self.file(lin, item, name),
            _ => {
                self.special(lin, &item, &name);
                self.job.progress.items_done.add(1);
                Ok(())
            }
        }
    }

    /// Whether to restore a name, and if so whether it may replace what is there.
    fn admit(&mut self, dir: &Dir, name: &[u8], lin: Lin, item: &ItemAttributes) -> Option<bool> {
        if dir.fresh {
            return Some(false);
        }
        let have = match dir.fd().and_then(|dir| rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)) {
            Err(Errno::NOENT) => return Some(false),
            Err(errno) => {
                self.job.system(dir.path_of(name), "look at what is there", errno);
                return None;
            }
            Ok(have) => have,
        };
        if FileType::from_raw_mode(have.st_mode) == FileType::Directory {
            let reason = self.keeps_directory(dir, name, (have.st_dev, have.st_ino));
            return match reason {
                Some(reason) => {
                    self.job.faults.add(dir.path_of(name), reason);
                    None
                }
                None => Some(true),
            };
        }
        let same = have.st_mode == raw_mode(item)
            && (!self.job.options.owners || (have.st_uid, have.st_gid) == (item.uid, item.gid))
            && (item.kind != ItemKind::File || have.st_size as u64 == item.size)
            && (have.st_mtime, have.st_mtime_nsec as u32) == (item.mtime.secs, item.mtime.nanos);
        let existing = self.job.options.existing;
        if existing == Existing::Skip {
            if same && item.links > 1 {
                self.names.keep(self.job, self.target, dir, name, lin.inode);
            }
            return None;
        }
        if existing == Existing::Overwrite {
            // What is there is not trusted, whatever it looks like: no other name is to be linked to it either.
            return Some(true);
        }
        let replaces = existing.replaces() || same && self.target.was_resumed();
        let fits = same && !(item.links > 1 && self.is_torn(dir, name, lin, item, have.st_ino));
        if fits {
            return None;
        }
        if !replaces {
            self.job.faults.add(dir.path_of(name), Reason::Exists);
        }
        replaces.then_some(true)
    }

    /// Why a directory, `id`, that is in the place of something else is left there.
    fn keeps_directory(&self, dir: &Dir, name: &[u8], id: DirId) -> Option<Reason> {
        let options = &self.job.options;
        match options.existing {
            Existing::Refuse | Existing::Skip => Some(Reason::InTheWay),
            _ if options.repository.is_needed(id) => Some(Reason::TheRepository),
            Existing::Overwrite => None,
            Existing::OverwriteIfDifferent => {
                let opened = dir.fd().and_then(|dir| open_dir(dir.as_fd(), name));
                let empty = opened.and_then(|fd| is_empty(fd.as_fd()));
                (!empty.unwrap_or(false)).then_some(Reason::FullDirectory)
            }
        }
    }

    /// Whether a name that is there, and looks as it should, is not the same file as the item's other names: a restore that was
    /// killed between two of them leaves it so. The first name that is met becomes the one to link to.
    fn is_torn(&self, dir: &Dir, name: &[u8], lin: Lin, item: &ItemAttributes, have: u64) -> bool {
        if self.links.get(&lin).is_some_and(|file| !file.is_done()) {
            return true;
        }
        let Ok(dir) = dir.fd() else { return false };
        let known = self.target.adopt(dir.as_fd(), name, lin.inode, inode_flags::has_late(item));
        known.is_some_and(|inode| inode != have)
    }

    /// Makes or opens a directory; `whole` when everything in it is wanted. One that is there keeps its attributes unless it is
    /// wanted itself and may be replaced.
    pub(super) fn enter(
        &mut self,
        parent: &Arc<Dir>,
        name: &[u8],
        item: &ItemAttributes,
        whole: bool,
    ) -> Option<Arc<Dir>> {
        let made = parent.fd().and_then(|parent| self.make_or_open(parent.as_fd(), name));
        self.job.progress.items_done.add(1);
        match made {
            Ok((fresh, fd)) => {
                if !fresh && self.is_repository(fd.as_fd()) {
                    self.job.faults.add(parent.path_of(name), Reason::TheRepository);
                    return None;
                }
                let inherited = if fresh { parent.inherited } else { None };
                if fresh && inherited.is_none() {
                    attr::drop_inherited_acls(&fd);
                }
                if fresh {
                    let mut report = |reason| self.job.faults.add(parent.path_of(name), reason);
                    inode_flags::set_on_new(fd.as_fd(), item, &mut report);
                }
                let replaces = whole && self.job.options.existing.replaces();
                let settled = fresh || replaces || self.is_restored(Known::of(fd.as_fd()), item, whole);
                let item = settled.then(|| item.clone());
                Some(Dir::new(Some(Arc::clone(parent)), name.to_vec(), fd, item, fresh, inherited))
            }
            Err(Errno::NOTDIR | Errno::LOOP) => {
                self.job.faults.add(parent.path_of(name), Reason::InTheWay);
                None
            }
            Err(errno) => {
                self.job.system(parent.path_of(name), "make the directory", errno);
                None
            }
        }
    }

    /// Makes the directory `name`, also in the place of something else when that is to be replaced, or opens it; whether it is new.
    pub(super) fn make_or_open(&self, parent: BorrowedFd<'_>, name: &[u8]) -> Result<(bool, OwnedFd), Errno> {
        let make = || rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(0o700));
        let fresh = match self.target.with_room(0, make) {
            Err(Errno::EXIST) => false,
            other => other.map(|()| true)?,
        };
        match open_dir(parent, name) {
            Err(Errno::NOTDIR | Errno::LOOP) if self.job.options.existing.replaces() => {
                self.target.with_room(0, || self.target.replace_by_directory(parent, name))?;
                Ok((true, open_dir(parent, name)?))
            }
            opened => Ok((fresh, opened?)),
        }
    }

    /// Whether an open directory is the repository's.
    fn is_repository(&self, fd: BorrowedFd<'_>) -> bool {
        let own = |stat: rustix::fs::Stat| self.job.options.repository.is_own((stat.st_dev, stat.st_ino));
        rustix::fs::fstat(fd).is_ok_and(own)
    }

    /// Whether a directory that was there is as the item says, so that it is to be so when something was added; or the work of a restore
    /// that ended early: then its time may differ, or it is as it was made.
    fn is_restored(&self, known: Known, item: &ItemAttributes, whole: bool) -> bool {
        let as_item = known.has_owner_and_mode(item, self.job.options.owners);
        if !(whole && self.target.was_resumed()) {
            return as_item && known.mtime == Some(item.mtime);
        }
        let own = rustix::process::geteuid().as_raw();
        as_item || known.mode == Some(0o700) && known.owner.is_some_and(|(uid, _)| uid == own)
    }

    /// A symlink or special file: made beside, dressed, moved to its name.
    fn special(&mut self, lin: Lin, item: &ItemAttributes, name: &FileName) {
        let path = || name.dir.path_of(&name.name);
        let dir = match name.dir.fd() {
            Ok(dir) => dir,
            Err(errno) => return self.job.system(path(), OPEN_AGAIN, errno),
        };
        if item.links > 1 {
            if self.names.link_kept(self.job, self.target, lin.inode, name) {
                return;
            }
            match self.target.link_stashed(lin.inode, false, dir.as_fd(), &name.name, name.replace) {
                Ok(true) => return,
                Ok(false) => {}
                Err(errno) => return self.job.system(path(), "link to its other name", errno),
            }
        }
        let staging = self.target.staging();
        let temp = self.target.temp_name();
        let made = match (&item.payload, item.kind) {
            (RowPayload::Target(target), ItemKind::Symlink) => {
                let make = || rustix::fs::symlinkat(target.as_slice(), staging, temp.as_str());
                self.target.with_room(0, make)
            }
            (_, ItemKind::Symlink) => {
                self.job.faults.add(path(), Reason::Rows("a symlink without a target"));
                return;
            }
            _ => {
                let kind = FileType::from_raw_mode(raw_mode(item));
                let device = rustix::fs::makedev(item.rdev.0, item.rdev.1);
                let mode = Mode::from_raw_mode(0o600);
                let make = || rustix::fs::mknodat(staging, temp.as_str(), kind, mode, device);
                self.target.with_room(0, make)
            }
        };
        if let Err(errno) = made {
            self.job.system(path(), "make the item", errno);
            return;
        }
        attr::settle_name(staging, &temp, item, self.job.options.owners, &mut |reason| {
            self.job.faults.add(path(), reason)
        });
        if item.links > 1
            && let Err(errno) = self.target.stash_made(&temp, lin.inode)
        {
            self.job.system(path(), "keep for further names", errno);
        }
        match self.target.rename(&temp, dir.as_fd(), &name.name, name.replace) {
            Ok(()) => {}
            Err(Errno::EXIST) => self.job.faults.add(path(), Reason::Exists),
            Err(errno) => self.job.system(path(), "give the item its name", errno),
        }
    }

    /// A file: another name of one that is there, or blocks to be fetched.
    fn file(&mut self, lin: Lin, item: ItemAttributes, name: FileName) -> Result<(), RestoreFault> {
        let mut name = name;
        if item.links > 1 {
            if self.names.link_kept(self.job, self.target, lin.inode, &name) {
                self.job.progress.items_done.add(1);
                return Ok(());
            }
            if let Some(known) = self.links.get(&lin) {
                match known.add_name(name) {
                    Ok(()) => return Ok(()),
                    Err(back) => name = back,
                }
            }
            let flags = inode_flags::has_late(&item);
            let linked = name.dir.fd().and_then(|dir| {
                self.target.link_stashed(lin.inode, flags, dir.as_fd(), &name.name, name.replace)
            });
            match linked {
                Ok(true) => {
                    self.job.progress.items_done.add(1);
                    return Ok(());
                }
                Ok(false) => {}
                Err(errno) => {
                    self.job.system(name.dir.path_of(&name.name), "link to its other name", errno);
                    return Ok(());
                }
            }
        }
        let several = item.links > 1;
        let file = File::new(lin, item, name);
        if several {
            self.links.insert(lin, Arc::clone(&file));
        }
        let planned = self.plan(&file);
        self.queue.push(Task::Finish(file));
        planned
    }

    /// Takes a file's blocks into the window.
    fn plan(&mut self, file: &Arc<File>) -> Result<(), RestoreFault> {
        if let RowPayload::Inline(bytes) = &file.item.payload {
            // Shorter contents end in zeros: the length is set when the file is finished.
            if bytes.len() as u64 == file.item.size {
                file.ends_in_data();
            }
            file.write(self.job, "write", bytes.len() as u64, |fd| match rustix::io::pwrite(fd, bytes, 0) {
                Ok(n) if n == bytes.len() => Ok(()),
                Ok(_) => Err(Errno::IO),
                Err(errno) => Err(errno),
            });
            self.job.progress.bytes_done.add(bytes.len() as u64);
            return Ok(());
        }
        let (lookup, job, queue) = (&mut *self.lookup, self.job, self.queue);
        let mut window = Gather {
            files: &mut self.files,
            wanted: &mut self.wanted,
            runs: &mut self.runs,
            gate: &self.gate,
            merging: self.merging,
            queue,
        };
        let read = lookup.locations(file.lin, &file.item, &mut |row| {
            window.row(job, file, &row);
            Ok(())
        });
        if let Err(lost) = known(read)?
            && file.damage()
        {
            job.faults.add(file.path(), Reason::Lost(lost));
        }
        self.links.retain(|_, file| !file.is_done());
        Ok(())
    }

    fn send_window(&mut self) {
        let mut window = Gather {
            files: &mut self.files,
            wanted: &mut self.wanted,
            runs: &mut self.runs,
            gate: &self.gate,
            merging: self.merging,
            queue: self.queue,
        };
        window.send();
    }
}

fn raw_mode(item: &ItemAttributes) -> u32 {
    let kind = match item.kind {
        ItemKind::File | ItemKind::Image => FileType::RegularFile,
        ItemKind::Directory => FileType::Directory,
        ItemKind::Symlink => FileType::Symlink,
        ItemKind::CharDevice => FileType::CharacterDevice,
        ItemKind::BlockDevice => FileType::BlockDevice,
        ItemKind::Fifo => FileType::Fifo,
        ItemKind::Socket => FileType::Socket,
    };
    kind.as_raw_mode() | u32::from(item.mode)
}

fn components(path: &[u8]) -> Vec<Vec<u8>> {
    path.split(|&b| b == b'/').filter(|part| !part.is_empty()).map(<[u8]>::to_vec).collect()
}

/// Groups paths by their first component; a path that ends there wants everything below.
fn by_first(mut paths: Vec<Vec<Vec<u8>>>) -> Vec<(Vec<u8>, Wanted)> {
    paths.sort();
    let mut out: Vec<(Vec<u8>, Wanted)> = Vec::new();
    for mut path in paths {
        let first = path.remove(0);
        match out.last_mut() {
            Some((name, wanted)) if *name == first => match wanted {
                Some(rest) if !path.is_empty() => rest.push(path),
                _ => *wanted = None,
            },
            _ => out.push((first, (!path.is_empty()).then(|| vec![path]))),
        }
    }
    out
}
