//! A target in memory that is as unkind as a real one: no room, calls that fail, a file system that breaks, a process that is killed at any
//! call, and a power failure that takes what was not synced.
//!
//! ```text
//!  SimTree --open--> SimNode ...         kill        names and contents stay, what has no name is gone, handles are dead
//!     '-- look                           power cut   names: those of some moment since the last sync; pages since then: kept, torn or gone
//! ```
//!
//! Invariants
//! - Everything is drawn from the seed: the same calls give the same answers.
//! - A journal keeps the order of names and attributes: what a power cut leaves of them is what was there at one moment since the last
//!   sync. Contents are in no order with them: each page that was not synced survives by lot, and without it the file is shorter, or reads
//!   as zero there (as ext4 and XFS leave it).
//! - From the call of [`TreeConfig::stop_at`] on nothing is done any more, and every call fails with `ESHUTDOWN`.
//!
//! Does not: check permissions (its user is root), keep time, or store anything outside memory. Source: ours.

mod fs;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use self::fs::{Body, Fs, PAGE_BYTES, ROOT};
use super::prng::Prng;
use crate::tree::{Errno, Node, Opened, Stat, Taken};
use crate::volume::{Hints, ItemKind, Timestamp};

/// What a target is to be like.
#[derive(Clone, Debug)]
pub struct TreeConfig {
    /// Seed of everything by lot.
    pub seed: u64,
    /// Room for inodes (256 bytes each) and pages.
    pub room_bytes: u64,
    /// What a call without room says: `ENOSPC`, `EDQUOT`.
    pub full: Errno,
    /// Calls of a thousand that fail with `EIO`.
    pub fault_permille: u32,
    /// From this call on all fail with that; with `EROFS` only those that change something.
    pub broken_from: Option<(u64, Errno)>,
    /// The process is killed at this call, the first being 1.
    pub stop_at: Option<u64>,
    /// Whether there are files without names.
    pub has_unnamed: bool,
    /// Whether a rename can refuse and exchange.
    pub has_rename_flags: bool,
    /// `FS_*_FL` flags that it takes; 0 is a file system without flags, and without project ids and hints.
    pub flags: u32,
}

impl Default for TreeConfig {
    /// Without faults and with all there is.
    fn default() -> TreeConfig {
        TreeConfig {
            seed: 0,
            room_bytes: u64::MAX,
            full: Errno::NOSPC,
            fault_permille: 0,
            broken_from: None,
            stop_at: None,
            has_unnamed: true,
            has_rename_flags: true,
            flags: u32::MAX,
        }
    }
}

/// File mode creation mask of the simulated process.
const UMASK: u16 = 0o022;

/// What a target has under a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// What it is.
    pub stat: Stat,
    /// A file's bytes, a symlink's target.
    pub contents: Vec<u8>,
    /// Device number.
    pub device: (u32, u32),
    /// Extended attributes.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// `FS_*_FL`.
    pub flags: u32,
    /// Project id.
    pub project: u32,
}

/// A target. Clones are the same one, which outlives the handles.
#[derive(Clone)]
pub struct SimTree {
    state: Arc<Mutex<State>>,
}

struct State {
    config: TreeConfig,
    prng: Prng,
    live: Fs,
    /// What a power cut would leave, but for pages.
    survivor: Fs,
    /// Changes since the last sync.
    changes: u64,
    /// Pages that were written and not synced since.
    dirty: BTreeSet<(u64, u64)>,
    calls: u64,
    /// Counts kills and power cuts; a handle of an earlier life is dead.
    life: u64,
    boot: u32,
    next_handle: u64,
    /// How often an inode is open.
    open: BTreeMap<u64, u64>,
    /// Which handle has an inode locked.
    locks: BTreeMap<u64, u64>,
}

impl SimTree {
    /// An empty directory.
    pub fn new(config: TreeConfig) -> SimTree {
        let live = Fs::new(config.room_bytes, config.full, UMASK);
        let state = State {
            prng: Prng::new(config.seed),
            survivor: live.clone(),
            live,
            config,
            changes: 0,
            dirty: BTreeSet::new(),
            calls: 0,
            life: 0,
            boot: 1,
            next_handle: 0,
            open: BTreeMap::new(),
            locks: BTreeMap::new(),
        };
        SimTree { state: Arc::new(Mutex::new(state)) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens it, as a process that begins.
    pub fn open(&self) -> Opened<SimNode> {
        let mut state = self.state();
        let boot = state.boot;
        let root = state.handle(&self.state, ROOT);
        Opened { root, made: false, umask: Some(UMASK), boot }
    }

    /// Another behaviour from now on; calls are counted anew.
    pub fn set(&self, config: TreeConfig) {
        let mut state = self.state();
        state.calls = 0;
        (state.live.room, state.live.full) = (config.room_bytes, config.full);
        (state.survivor.room, state.survivor.full) = (config.room_bytes, config.full);
        state.config = config;
    }

    /// Calls so far.
    pub fn calls(&self) -> u64 {
        self.state().calls
    }

    /// Ends the process.
    pub fn kill(&self) {
        let mut state = self.state();
        state.end();
        state.live.free_nameless();
    }

    /// Cuts the power, and starts the machine again.
    pub fn power_cut(&self) {
        let mut guard = self.state();
        let state = &mut *guard;
        state.end();
        state.boot += 1;
        let mut fs = state.survivor.clone();
        fs.free_nameless();
        let dirty = std::mem::take(&mut state.dirty);
        let inodes: BTreeSet<u64> = dirty.iter().map(|(inode, _)| *inode).collect();
        for inode in inodes {
            let pages = dirty.range((inode, 0)..=(inode, u64::MAX)).map(|(_, page)| *page);
            lose(&mut fs, inode, &pages.collect::<Vec<_>>(), &mut state.prng);
        }
        state.live = fs.clone();
        state.survivor = fs;
        state.changes = 0;
    }

    /// Everything below `path` (components joined by slashes; empty for all), by path, without faults. Not what is below `skip`: names
    /// that begin so.
    pub fn look(&self, skip: &[u8]) -> BTreeMap<Vec<u8>, Found> {
        let state = self.state();
        let mut out = BTreeMap::new();
        let mut left = vec![(Vec::new(), ROOT)];
        while let Some((path, inode)) = left.pop() {
            let Ok(found) = state.live.get(inode) else { continue };
            let (mut contents, mut device) = (Vec::new(), (0, 0));
            match &found.body {
                Body::File(_) => contents = state.live.contents(inode),
                Body::Symlink(target) => contents.clone_from(target),
                Body::Special(number) => device = *number,
                Body::Directory(entries) => {
                    for (name, below) in
                        entries.iter().filter(|(name, _)| !name.starts_with(skip) || skip.is_empty())
                    {
                        let parts: Vec<&[u8]> =
                            [&path[..], name].into_iter().filter(|part| !part.is_empty()).collect();
                        left.push((parts.join(&b'/'), *below));
                    }
                }
            }
            let (stat, xattrs) = (found.stat, found.xattrs.clone());
            let (flags, project) = (found.flags, found.project);
            out.insert(path, Found { stat, contents, device, xattrs, flags, project });
        }
        out
    }
}

/// Takes from a file what did not reach the medium: each of the pages stays, is torn, or is gone.
fn lose(fs: &mut Fs, inode: u64, dirty: &[u64], prng: &mut Prng) {
    let keeps_length = prng.one_in(2);
    let Ok(found) = fs.change(inode) else { return };
    let Body::File(pages) = &mut found.body else { return };
    let mut lost = 0;
    for number in dirty {
        let Some(page) = pages.get_mut(number) else { continue };
        match prng.below(4) {
            0 => {}
            1 => {
                if let Some(bytes) = page {
                    let mut torn = bytes.to_vec();
                    torn[prng.below(PAGE_BYTES) as usize..].fill(0);
                    *page = Some(torn.into());
                }
            }
            _ => {
                pages.remove(number);
                lost += PAGE_BYTES;
            }
        }
    }
    if !keeps_length && !found.is_length_set {
        let end = pages.keys().next_back().map_or(0, |last| (last + 1) * PAGE_BYTES);
        found.stat.size = found.stat.size.min(end);
    }
    fs.used -= lost;
}

impl State {
    fn handle(&mut self, tree: &Arc<Mutex<State>>, inode: u64) -> SimNode {
        self.next_handle += 1;
        *self.open.entry(inode).or_default() += 1;
        SimNode { tree: Arc::clone(tree), inode, handle: self.next_handle, life: self.life }
    }

    /// The process is gone.
    fn end(&mut self) {
        self.life += 1;
        self.open.clear();
        self.locks.clear();
    }

    /// Frees an inode that has neither a name nor a handle.
    fn let_go(&mut self, inode: u64) {
        if !self.open.contains_key(&inode) && self.live.get(inode).is_ok_and(|found| found.links == 0) {
            self.live.free(inode);
        }
    }

    /// Whether a call is carried out.
    fn enter(&mut self, life: u64, changes: bool) -> Result<(), Errno> {
        self.calls += 1;
        if life != self.life || self.config.stop_at.is_some_and(|at| self.calls >= at) {
            return Err(Errno::SHUTDOWN);
        }
        if let Some((from, errno)) = self.config.broken_from
            && self.calls >= from
            && (changes || errno != Errno::ROFS)
        {
            return Err(errno);
        }
        if self.prng.below(1000) < u64::from(self.config.fault_permille) {
            return Err(Errno::IO);
        }
        Ok(())
    }

    /// A change was made: what a power cut would leave is the state after any of those since the last sync, or before them.
    fn changed(&mut self) {
        self.changes += 1;
        if self.prng.one_in(self.changes + 1) {
            self.survivor = self.live.clone();
        }
    }

    fn synced(&mut self) {
        self.survivor = self.live.clone();
        self.changes = 0;
    }
}

/// An open directory or file of a [`SimTree`].
pub struct SimNode {
    tree: Arc<Mutex<State>>,
    inode: u64,
    handle: u64,
    life: u64,
}

impl std::fmt::Debug for SimNode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "inode {}", self.inode)
    }
}

impl Drop for SimNode {
    fn drop(&mut self) {
        let mut state = self.state();
        if state.life != self.life {
            return;
        }
        if state.locks.get(&self.inode) == Some(&self.handle) {
            state.locks.remove(&self.inode);
        }
        let left = state.open.get(&self.inode).map_or(0, |count| count - 1);
        if left > 0 {
            state.open.insert(self.inode, left);
        } else {
            state.open.remove(&self.inode);
            state.let_go(self.inode);
        }
    }
}

impl SimNode {
    fn state(&self) -> MutexGuard<'_, State> {
        self.tree.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A call that only looks.
    fn read<T>(&self, look: impl FnOnce(&State) -> Result<T, Errno>) -> Result<T, Errno> {
        let mut state = self.state();
        state.enter(self.life, false)?;
        look(&state)
    }

    /// A call that changes names or attributes.
    fn write<T>(&self, change: impl FnOnce(&mut State) -> Result<T, Errno>) -> Result<T, Errno> {
        let mut state = self.state();
        state.enter(self.life, true)?;
        let done = change(&mut state)?;
        state.changed();
        Ok(done)
    }

    fn open(&self, name: &[u8], directory: bool) -> Result<SimNode, Errno> {
        let mut state = self.state();
        state.enter(self.life, false)?;
        let inode = state.live.lookup(self.inode, name)?;
        match (state.live.get(inode)?.stat.kind, directory) {
            (ItemKind::Symlink, _) => Err(Errno::LOOP),
            (kind, true) if kind != ItemKind::Directory => Err(Errno::NOTDIR),
            _ => Ok(state.handle(&self.tree, inode)),
        }
    }

    fn put(&self, offset: u64, len: u64, bytes: Option<&[u8]>) -> Result<(), Errno> {
        let mut state = self.state();
        if let Err(errno) = state.enter(self.life, true) {
            // Killed in the middle of it.
            if let (Errno::SHUTDOWN, Some(bytes), true) = (errno, bytes, self.life == state.life) {
                let part = state.prng.below(len + 1);
                let _ = state.live.put(self.inode, offset, part, Some(bytes), &mut Vec::new());
            }
            return Err(errno);
        }
        let mut written = Vec::new();
        let done = state.live.put(self.inode, offset, len, bytes, &mut written);
        state.dirty.extend(written.into_iter().map(|page| (self.inode, page)));
        state.changed();
        done
    }
}

impl Node for SimNode {
    fn open_dir(&self, name: &[u8]) -> Result<SimNode, Errno> {
        self.open(name, true)
    }

    fn open_file(&self, name: &[u8]) -> Result<SimNode, Errno> {
        self.open(name, false)
    }

    fn make_dir(&self, name: &[u8], mode: u16) -> Result<(), Errno> {
        let made = (Body::Directory(BTreeMap::new()), ItemKind::Directory, mode);
        self.write(|state| state.live.make_named(self.inode, name, made).map(drop))
    }

    fn create(&self, name: &[u8], mode: u16) -> Result<SimNode, Errno> {
        let made = (Body::File(BTreeMap::new()), ItemKind::File, mode);
        self.write(|state| {
            let inode = state.live.make_named(self.inode, name, made)?;
            Ok(state.handle(&self.tree, inode))
        })
    }

    fn create_unnamed(&self, mode: u16) -> Result<SimNode, Errno> {
        self.write(|state| {
            if !state.config.has_unnamed {
                return Err(Errno::OPNOTSUPP);
            }
            let inode =
                state.live.make(Some(self.inode), Body::File(BTreeMap::new()), ItemKind::File, mode)?;
            Ok(state.handle(&self.tree, inode))
        })
    }

    fn symlink(&self, name: &[u8], target: &[u8]) -> Result<(), Errno> {
        let made = (Body::Symlink(target.to_vec()), ItemKind::Symlink, 0o777);
        self.write(|state| state.live.make_named(self.inode, name, made).map(drop))
    }

    fn make_special(&self, name: &[u8], kind: ItemKind, device: (u32, u32)) -> Result<(), Errno> {
        let device = match kind {
            ItemKind::CharDevice | ItemKind::BlockDevice => device,
            ItemKind::Fifo | ItemKind::Socket => (0, 0),
            ItemKind::File | ItemKind::Image | ItemKind::Directory | ItemKind::Symlink => {
                return Err(Errno::INVAL);
            }
        };
        let made = (Body::Special(device), kind, 0o600);
        self.write(|state| state.live.make_named(self.inode, name, made).map(drop))
    }

    fn link(&self, dir: &SimNode, name: &[u8]) -> Result<(), Errno> {
        self.write(|state| state.live.link(self.inode, dir.inode, name))
    }

    fn link_name(&self, name: &[u8], dir: &SimNode, new: &[u8]) -> Result<(), Errno> {
        self.write(|state| {
            let inode = state.live.lookup(self.inode, name)?;
            state.live.link(inode, dir.inode, new)
        })
    }

    fn rename(&self, name: &[u8], dir: &SimNode, new: &[u8], taken: Taken) -> Result<(), Errno> {
        self.write(|state| {
            if taken != Taken::Replace && !state.config.has_rename_flags {
                return Err(Errno::INVAL);
            }
            if let Some(replaced) = state.live.rename((self.inode, name), (dir.inode, new), taken)? {
                state.let_go(replaced);
            }
            Ok(())
        })
    }

    fn remove(&self, name: &[u8]) -> Result<(), Errno> {
        self.write(|state| {
            let inode = state.live.unlink(self.inode, name, false)?;
            state.let_go(inode);
            Ok(())
        })
    }

    fn remove_dir(&self, name: &[u8]) -> Result<(), Errno> {
        self.write(|state| {
            let inode = state.live.unlink(self.inode, name, true)?;
            state.let_go(inode);
            Ok(())
        })
    }

    fn names(&self, each: &mut dyn FnMut(&[u8])) -> Result<(), Errno> {
        let mut names = self.read(|state| state.live.names(self.inode))?;
        let mut state = self.state();
        state.prng.shuffle(&mut names);
        drop(state);
        names.iter().for_each(|name| each(name));
        Ok(())
    }

    fn lock(&self) -> Result<(), Errno> {
        let mut state = self.state();
        state.enter(self.life, false)?;
        match state.locks.get(&self.inode) {
            Some(&handle) if handle != self.handle => Err(Errno::AGAIN),
            _ => {
                state.locks.insert(self.inode, self.handle);
                Ok(())
            }
        }
    }

    fn stat(&self) -> Result<Stat, Errno> {
        self.read(|state| state.live.get(self.inode).map(|inode| inode.stat))
    }

    fn stat_name(&self, name: &[u8]) -> Result<Stat, Errno> {
        self.read(|state| {
            let inode = state.live.lookup(self.inode, name)?;
            state.live.get(inode).map(|inode| inode.stat)
        })
    }

    fn set_owner(&self, uid: u32, gid: u32) -> Result<(), Errno> {
        self.write(|state| state.live.set_owner(self.inode, uid, gid))
    }

    fn set_mode(&self, mode: u16) -> Result<(), Errno> {
        self.write(|state| {
            state.live.change(self.inode)?.stat.mode = mode & 0o7777;
            Ok(())
        })
    }

    fn set_times(&self, atime: Timestamp, mtime: Timestamp) -> Result<(), Errno> {
        self.write(|state| {
            let stat = &mut state.live.change(self.inode)?.stat;
            (stat.atime, stat.mtime) = (atime, mtime);
            Ok(())
        })
    }

    fn xattr(&self, name: &[u8], value: &mut [u8]) -> Result<usize, Errno> {
        self.read(|state| {
            let have = state.live.get(self.inode)?.xattrs.get(name).ok_or(Errno::NODATA)?;
            value.get_mut(..have.len()).ok_or(Errno::RANGE)?.copy_from_slice(have);
            Ok(have.len())
        })
    }

    fn set_xattr(&self, name: &[u8], value: &[u8]) -> Result<(), Errno> {
        self.write(|state| {
            state.live.change(self.inode)?.xattrs.insert(name.to_vec(), value.to_vec());
            Ok(())
        })
    }

    fn remove_xattr(&self, name: &[u8]) -> Result<(), Errno> {
        self.write(|state| {
            let removed = state.live.change(self.inode)?.xattrs.remove(name);
            // As Linux since 6.2 has it.
            let is_acl = name.starts_with(b"system.posix_acl_");
            if removed.is_some() || is_acl { Ok(()) } else { Err(Errno::NODATA) }
        })
    }

    fn set_owner_of(&self, name: &[u8], uid: u32, gid: u32) -> Result<(), Errno> {
        self.write(|state| {
            let inode = state.live.lookup(self.inode, name)?;
            state.live.set_owner(inode, uid, gid)
        })
    }

    fn set_mode_of(&self, name: &[u8], mode: u16) -> Result<(), Errno> {
        self.write(|state| {
            let inode = state.live.lookup(self.inode, name)?;
            state.live.change(inode)?.stat.mode = mode & 0o7777;
            Ok(())
        })
    }

    fn set_times_of(&self, name: &[u8], atime: Timestamp, mtime: Timestamp) -> Result<(), Errno> {
        self.write(|state| {
            let inode = state.live.lookup(self.inode, name)?;
            let stat = &mut state.live.change(inode)?.stat;
            (stat.atime, stat.mtime) = (atime, mtime);
            Ok(())
        })
    }

    fn set_xattr_of(&self, name: &[u8], key: &[u8], value: &[u8]) -> Result<(), Errno> {
        self.write(|state| {
            let inode = state.live.lookup(self.inode, name)?;
            state.live.change(inode)?.xattrs.insert(key.to_vec(), value.to_vec());
            Ok(())
        })
    }

    fn set_project(&self, project: u32) -> Result<(), Errno> {
        self.write(|state| {
            if state.config.flags == 0 {
                return Err(Errno::OPNOTSUPP);
            }
            state.live.change(self.inode)?.project = project;
            Ok(())
        })
    }

    fn flags(&self) -> Result<u32, Errno> {
        self.read(|state| match state.config.flags {
            0 => Err(Errno::NOTTY),
            _ => state.live.get(self.inode).map(|inode| inode.flags),
        })
    }

    fn set_flags(&self, flags: u32) -> Result<(), Errno> {
        self.write(|state| {
            if flags & !state.config.flags != 0 {
                return Err(Errno::OPNOTSUPP);
            }
            // A lock keeps no flag from being changed.
            let inode = state.live.inodes.get_mut(&self.inode).ok_or(Errno::STALE)?;
            inode.flags = flags;
            Ok(())
        })
    }

    fn set_hints(&self, hints: Hints) -> Result<Hints, Errno> {
        self.write(|state| {
            if state.config.flags == 0 {
                return Err(Errno::NOTTY);
            }
            let have = &mut state.live.change(self.inode)?.hints;
            have.flags |= hints.flags;
            if hints.flags & Hints::EXTENT_SIZE != 0 {
                have.extent_bytes = hints.extent_bytes;
            }
            if hints.flags & Hints::COW_EXTENT_SIZE != 0 {
                have.cow_extent_bytes = hints.cow_extent_bytes;
            }
            Ok(*have)
        })
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), Errno> {
        self.put(offset, bytes.len() as u64, Some(bytes))
    }

    fn write_zeros(&self, offset: u64, len: u64) -> Result<(), Errno> {
        let zeros = vec![0; len as usize];
        self.put(offset, len, Some(&zeros))
    }

    fn clear(&self, _: u64, _: u64) -> Result<(), Errno> {
        self.write(|_| Err(Errno::OPNOTSUPP))
    }

    fn preallocate(&self, offset: u64, len: u64) -> Result<(), Errno> {
        self.put(offset, len, None)
    }

    fn set_len(&self, len: u64) -> Result<(), Errno> {
        self.write(|state| state.live.set_len(self.inode, len))
    }

    fn sync(&self) -> Result<(), Errno> {
        let mut state = self.state();
        state.enter(self.life, true)?;
        let synced: Vec<(u64, u64)> =
            state.dirty.range((self.inode, 0)..=(self.inode, u64::MAX)).copied().collect();
        for page in synced {
            state.dirty.remove(&page);
        }
        // The journal goes out up to here.
        state.synced();
        Ok(())
    }

    fn sync_all(&self) -> Result<(), Errno> {
        let mut state = self.state();
        state.enter(self.life, true)?;
        state.dirty.clear();
        state.synced();
        Ok(())
    }
}
