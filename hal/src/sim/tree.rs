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
mod node;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use self::fs::{Body, Fs, Limits, PAGE_BYTES, ROOT};
pub use self::node::SimNode;
use super::prng::Prng;
use crate::tree::{Errno, Opened, Stat};

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
    /// Whether it keeps extended attributes; if not, each call for one says `EOPNOTSUPP`.
    pub has_xattrs: bool,
    /// Whether owners can be set; if not, another owner says `EPERM`.
    pub has_owners: bool,
    /// Longest name in bytes; a longer one says `ENAMETOOLONG`.
    pub name_bytes_max: usize,
    /// Largest file in bytes; what is behind it says `EFBIG`.
    pub file_bytes_max: u64,
    /// Whether names that differ in the case of ASCII letters are the same.
    pub folds_case: bool,
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
            has_xattrs: true,
            has_owners: true,
            name_bytes_max: 255,
            file_bytes_max: u64::MAX,
            folds_case: false,
            flags: u32::MAX,
        }
    }
}

impl Limits {
    fn of(config: &TreeConfig) -> Limits {
        let TreeConfig { name_bytes_max, file_bytes_max, folds_case, .. } = *config;
        Limits { name_bytes_max, file_bytes_max, folds_case }
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
    /// Bytes of writes since the beginning.
    written: u64,
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
        let mut live = Fs::new(config.room_bytes, config.full, UMASK);
        live.limits = Limits::of(&config);
        let state = State {
            prng: Prng::new(config.seed),
            survivor: live.clone(),
            live,
            config,
            changes: 0,
            dirty: BTreeSet::new(),
            calls: 0,
            written: 0,
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
        (state.live.limits, state.survivor.limits) = (Limits::of(&config), Limits::of(&config));
        state.config = config;
    }

    /// Calls so far.
    pub fn calls(&self) -> u64 {
        self.state().calls
    }

    /// Bytes that were written by calls that were carried out, since there is this target.
    pub fn written(&self) -> u64 {
        self.state().written
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
            let (stat, xattrs) = (found.stat(), found.xattrs.clone());
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

    fn may_have_xattrs(&self) -> Result<(), Errno> {
        if self.config.has_xattrs { Ok(()) } else { Err(Errno::OPNOTSUPP) }
    }

    fn may_own(&self, inode: u64, uid: u32, gid: u32) -> Result<(), Errno> {
        let stat = self.live.get(inode)?.stat;
        if self.config.has_owners || (stat.uid, stat.gid) == (uid, gid) { Ok(()) } else { Err(Errno::PERM) }
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
