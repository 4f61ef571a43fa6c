//! The walk of a restore: from roots and selected paths to directories, files and windows of blocks.
//!
//! Depth first, one directory per level (the last [`OPEN_LEVELS_MAX`] of them open), entries in chunks sorted by inode (that is how the tables lie). Files gather in a
//! window; a full window is planned and handed to the lanes; at most [`WINDOWS_MAX`](super::gather::WINDOWS_MAX) are alive.
//!
//! Invariants: memory is bounded by chunk, depth and windows; a directory's attributes are set after its last entry (`file`);
//! rows are foreign: names and layouts are judged before anything is made of them. Source: ours.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use windlass_hal::tree::{Node, Opened};
use windlass_hal::volume::ItemKind;

use super::admit::{Way, settles_root};
use super::attr::{self, Known};
use super::dir::{Dir, OPEN_AGAIN};
use super::fault::{ItemFault, Reason, RestoreFault};
use super::file::{File, FileName, Job, RestoreOptions};
use super::gather::Gather;
use super::inode_flags;
use super::lane::{self, Crew};
use super::names::Names as OtherNames;
use super::parts::{Claim, Leftover};
use super::state::Unfinished;
use super::target::{Target, is_safe_name};
use super::temp::Temp;
use crate::format::row::{ItemAttributes, RowPayload};
use crate::format::seal::Keys;
use crate::id::{Lin, VolumeId};
use crate::policy::select::Verdict;
use crate::progress::Progress;
use crate::read::lookup::Lookup;
use crate::read::plan::Merging;
use crate::store::retry::Client;
use crate::table::lost::{LostRows, known};
use crate::table::read::Names;
use crate::table::source::{Fetch, TableFault};

/// Directory entries read at once.
const CHUNK_NAMES: usize = 1024;
/// Names of one directory that are told apart on a target that ignores case: 8 MiB of digests.
pub const FOLDED_NAMES_MAX: usize = 1 << 18;
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
    /// Bytes of contents, written or there already.
    pub bytes: u64,
    /// Bytes of them that the target had already, compared byte by byte.
    pub bytes_equal: u64,
    /// What is behind the image on a larger device, in bytes.
    pub bytes_behind: u64,
    /// Files that an earlier restore had begun, and that this one went on with.
    pub resumed: u64,
    /// Earlier restores whose state was ignored.
    pub leftovers: Vec<Leftover>,
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

/// What is restored, and how.
pub struct Work<'a> {
    /// The trees.
    pub roots: &'a [Root],
    /// Of them the selected paths (components below the root's name); empty for everything.
    pub selection: &'a [Vec<u8>],
    /// How.
    pub options: RestoreOptions,
    /// Random.
    pub nonce: u64,
    /// For those that watch.
    pub progress: &'a Arc<Progress>,
}

impl Work<'_> {
    /// What tells this restore from another one.
    fn claim<'k, F: Fetch>(&self, source: &Source<'k, F>) -> Claim<'k> {
        let volume = self.roots.first().map_or(VolumeId(0), |root| root.lin.volume);
        let owners = self.options.owner_map.canonical();
        let roots = self.roots.iter().map(|root| root.name.as_slice());
        let paths = self.selection.iter().map(Vec::as_slice);
        let exclude = self.options.exclude.identity();
        let exclude = Some(&exclude[..]).filter(|_| !self.options.exclude.is_everything());
        let parts = std::iter::once(owners.as_bytes()).chain(roots).chain(paths).chain(exclude);
        let unfinished = Unfinished::new(volume, source.lookup.point(), parts, source.keys);
        Claim { unfinished, keys: source.keys }
    }
}

/// Restores `work` into the directory `target`, which is made when it is not there; `memory` is the budget in bytes. Errors end the
/// restore; what belongs to one item is in the report.
pub fn run<F: Fetch>(
    source: &mut Source<'_, F>,
    work: &Work<'_>,
    target: &Path,
    memory: u64,
) -> Result<RestoreReport, RestoreFault> {
    work.options.repository.look(target)?;
    let (lanes, read_bytes_max) = lanes_for(memory);
    let merging = Merging { read_bytes_max, ..Merging::default() };
    let target = Target::open(target, work.nonce, work.claim(source))?;
    restore(source, work, target, Crew::Lanes(lanes), merging)
}

/// Restores `work` into an open directory of any port. Unfinished files of `part_bytes_min` bytes are kept when it ends early.
/// Errors: as of [`run`].
pub fn run_in<F: Fetch, N: Node>(
    source: &mut Source<'_, F>,
    work: &Work<'_>,
    target: Opened<N>,
    crew: Crew<'_>,
    merging: Merging,
    part_bytes_min: u64,
) -> Result<RestoreReport, RestoreFault> {
    let target = Target::new(target, work.nonce, work.claim(source), part_bytes_min)?;
    restore(source, work, target, crew, merging)
}

fn restore<F: Fetch, N: Node>(
    source: &mut Source<'_, F>,
    work: &Work<'_>,
    target: Target<N>,
    crew: Crew<'_>,
    merging: Merging,
) -> Result<RestoreReport, RestoreFault> {
    let job = Job::new(Some(target), work.options.clone(), work.progress);
    let Some(target) = &job.target else { return Err(RestoreFault::Resources("target")) };
    let mut names = OtherNames::default();
    let Source { lookup, client, keys } = source;
    lane::with(crew, &job, (client, keys), |hands| {
        let mut walk = Walk {
            lookup,
            job: &job,
            target,
            window: Gather::new(hands, merging),
            links: BTreeMap::new(),
            names: &mut names,
            is_damaged: false,
        };
        let walked = walk.roots(work.roots, work.selection);
        walk.window.send();
        walked
    })?;
    job.ended()?;
    names.unite(&job, target);
    finish(&job, target, &mut source.lookup, work)?;
    job.ended()?;
    let (faults, fault_count) = job.faults.take();
    let snapshot = work.progress.snapshot();
    Ok(RestoreReport {
        items: snapshot.items_done,
        bytes: snapshot.bytes_done,
        bytes_equal: job.equal.load(Ordering::Relaxed),
        bytes_behind: 0,
        resumed: target.resumed_parts(),
        leftovers: target.leftovers().to_vec(),
        faults,
        fault_count,
    })
}

/// Flags of files with several names, the staging directory, durability.
fn finish<F: Fetch, N: Node>(
    job: &Job<N>,
    target: &Target<N>,
    lookup: &mut Lookup<F>,
    work: &Work<'_>,
) -> Result<(), RestoreFault> {
    let sync = || match job.options.sync {
        true => target.sync().map_err(|errno| RestoreFault::Target { call: "sync", errno }),
        false => Ok(()),
    };
    // Before the staging directory goes: without it the next restore believes what is there.
    sync()?;
    // What could not be written again may still be torn: the next restore is to know.
    let stays = target.has_lost_power() && !job.faults.is_empty();
    let cleared = target.clear_staging(stays, &mut |inode, node| {
        for root in work.roots {
            if let Ok(Some(item)) = lookup.item(Lin { volume: root.lin.volume, inode })
                && inode_flags::has_late(&item)
            {
                inode_flags::set_at_end(node, &item, &mut |reason| {
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
    // Removing the staging directory changed the time of the root.
    for root in work.roots.iter().filter(|root| root.name.is_empty()) {
        if let Ok(Some(mut item)) = lookup.item(root.lin)
            && item.kind == ItemKind::Directory
            && {
                job.options.owner_map.apply(&mut item);
                settles_root(job, target, &item, is_whole(work.selection))
            }
        {
            let node = target.root();
            attr::settle(&*node, &item, Known::of(&*node), job.options.owners, &mut |reason| {
                job.faults.add_new(Vec::new(), reason);
            });
        }
    }
    sync()
}

/// Whether the selection asks for everything: it is empty, or names a root itself.
fn is_whole(selection: &[Vec<u8>]) -> bool {
    selection.is_empty() || selection.iter().any(|path| components(path).is_empty())
}

/// What of a directory is wanted: everything, or the paths that remain below it.
pub(super) type Wanted = Option<Vec<Vec<Vec<u8>>>>;

/// A directory being walked.
struct Level<N> {
    dir: Arc<Dir<N>>,
    lin: Lin,
    names: Option<Names>,
    /// Entries asked for by name instead of `names`.
    chosen: Vec<(Vec<u8>, Wanted)>,
    /// Directories of the last chunk, still to be entered; the next one is last.
    below: Vec<(Vec<u8>, Lin, ItemAttributes, Wanted)>,
    item: ItemAttributes,
    /// Digests of its names in one case, where the target ignores it.
    folded: BTreeSet<u64>,
}

pub(super) struct Walk<'a, F, N: Node> {
    pub(super) lookup: &'a mut Lookup<F>,
    pub(super) job: &'a Job<N>,
    pub(super) target: &'a Target<N>,
    pub(super) window: Gather<'a, N>,
    /// Files with several names that are not finished yet.
    pub(super) links: BTreeMap<Lin, Arc<File<N>>>,
    pub(super) names: &'a mut OtherNames,
    /// Whether something could not be read when it was backed up: what it named may have no other name.
    is_damaged: bool,
}

impl<F: Fetch, N: Node> Walk<'_, F, N> {
    fn roots(&mut self, roots: &[Root], selection: &[Vec<u8>]) -> Result<(), RestoreFault> {
        let node = self.target.root();
        let (fresh, inherited) = (self.target.was_empty(), self.target.inherited());
        let top = Dir::new(None, Vec::new(), node, None, fresh, inherited);
        for root in roots {
            let item = match self.item(root.lin)? {
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
                let node = self.target.root();
                if fresh && settled.is_some() {
                    let mut report = |reason| self.job.faults.add(Vec::new(), reason);
                    inode_flags::set_on_new(&*node, &item, &mut report);
                }
                let dir = Dir::new(Some(Arc::clone(&top)), Vec::new(), node, settled, fresh, inherited);
                self.tree(dir, root.lin, item, wanted)?;
            } else if let Some(dir) = self.enter(&top, &root.name, &item, wanted.is_none()) {
                self.tree(dir, root.lin, item, wanted)?;
            }
        }
        // What patterns leave out has no name here, and is not lost.
        let is_whole = is_whole(selection) && self.job.options.exclude.is_everything();
        if self.is_damaged && is_whole && !self.job.is_over() {
            for root in roots {
                self.orphans(&top, root.lin)?;
            }
        }
        top.done(self.job);
        Ok(())
    }

    /// An item with the owners that it is to have.
    pub(super) fn item(&mut self, lin: Lin) -> Result<Result<Option<ItemAttributes>, LostRows>, TableFault> {
        let mut read = known(self.lookup.item(lin))?;
        if let Ok(Some(item)) = &mut read {
            self.job.options.owner_map.apply(item);
        }
        Ok(read)
    }

    fn level(&mut self, dir: Arc<Dir<N>>, lin: Lin, item: ItemAttributes, wanted: Wanted) -> Level<N> {
        let mut level = Level {
            dir,
            lin,
            names: None,
            chosen: Vec::new(),
            below: Vec::new(),
            item,
            folded: BTreeSet::new(),
        };
        match wanted {
            Some(paths) if paths.iter().all(|path| !path.is_empty()) => level.chosen = by_first(paths),
            _ => level.names = Some(self.lookup.names(lin, &level.item)),
        }
        level
    }

    pub(super) fn tree(
        &mut self,
        dir: Arc<Dir<N>>,
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
            if let (Some(item), Ok(node)) = (&level.dir.item, level.dir.node()) {
                attr::settle(&*node, item, Known::NOTHING, self.job.options.owners, &mut |_| {});
            }
        }
        Ok(())
    }

    /// Handles the next entries of a directory; `false` when there are none left.
    fn chunk(&mut self, level: &mut Level<N>) -> Result<bool, RestoreFault> {
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
            if self.target.folds_case {
                let is_full = level.folded.len() >= FOLDED_NAMES_MAX;
                if is_full || !level.folded.insert(folded(&name)) {
                    let reason = if is_full { Reason::TooManyNames } else { Reason::SameName };
                    self.job.faults.add(level.dir.path_of(&name), reason);
                    continue;
                }
            }
            match self.item(lin)? {
                Ok(Some(item)) if self.is_excluded(&level.dir, &name, &item) => {}
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

    /// Whether the patterns leave an entry out.
    fn is_excluded(&self, dir: &Dir<N>, name: &[u8], item: &ItemAttributes) -> bool {
        let patterns = &self.job.options.exclude;
        let is_directory = item.kind == ItemKind::Directory;
        !patterns.is_everything()
            && patterns.judge(Verdict::Taken, &dir.path_of(name), is_directory) == Verdict::Excluded
    }

    /// One entry: a directory is put off, anything else is made or planned now.
    pub(super) fn entry(
        &mut self,
        dir: &Arc<Dir<N>>,
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
        let Some(way) = self.admit(dir, name, lin, &item) else { return Ok(()) };
        let replace = matches!(way, Way::Make { replace: true });
        let there = matches!(way, Way::Into(_));
        let name = FileName { dir: Arc::clone(dir), name: name.to_vec(), replace, there };
        if let Way::Into(node) = way {
            return self.over(lin, item, name, Temp::of_existing(node));
        }
        match item.kind {
            ItemKind::File | ItemKind::Image => self.file(lin, item, name),
            _ => {
                self.special(lin, &item, &name);
                self.job.progress.items_done.add(1);
                Ok(())
            }
        }
    }
}

/// A digest of a name without its case; bytes that are no text stay as they are.
fn folded(name: &[u8]) -> u64 {
    let lower = match str::from_utf8(name) {
        Ok(text) => text.to_lowercase().into_bytes(),
        Err(_) => name.to_ascii_lowercase(),
    };
    let mut start = [0; 8];
    start.copy_from_slice(&blake3::hash(&lower).as_bytes()[..8]);
    u64::from_le_bytes(start)
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
