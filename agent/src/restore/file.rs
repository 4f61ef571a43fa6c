//! Files and directories on their way to their names: who has to be waited for, and what happens last.
//!
//! ```text
//!  file       left = 1 (still being planned) + blocks not written yet          0: attributes, then every name
//!  directory  left = 1 (still being walked) + entries that are not there yet   0: attributes; then its parent has one less
//! ```
//!
//! The lane that takes the last count does the rest; counts only fall after they were raised by the walk.
//! Invariants: a file gets its names only when all its blocks are verified and written (unless damaged ones are asked for). What
//! fails on one file is said once for it, each of its names is named, and the others go on; only when the target takes no file
//! at all, the restore ends.
//! Source: ours; order of attributes in `attr`.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use windlass_hal::tree::{Errno, Node};

use super::attr::{self, Known};
pub use super::dir::Dir;
use super::fault::{FaultLog, Feature, Reason, RestoreFault, is_fatal, is_space, is_target_in_doubt};
use super::inode_flags;
use super::owners::OwnerMap;
use super::place::Protected;
use super::target::{Existing, Inherited, Target, Temp};
use crate::format::row::ItemAttributes;
use crate::id::Lin;
use crate::limits::ITEM_GAPS_MAX;
use crate::policy::select::Patterns;
use crate::progress::Progress;

/// Failed writes after which a device is taken to be gone: a disk with a few bad places has fewer.
const DEVICE_FAULTS_MAX: u64 = 64;

/// How to restore.
#[derive(Clone, Debug)]
pub struct RestoreOptions {
    /// What to do with names that are taken.
    pub existing: Existing,
    /// Give a file its name even when blocks of it are damaged or missing; they are zero then.
    pub keep_damaged: bool,
    /// Make everything durable at the end.
    pub sync: bool,
    /// Whether owners can be set (root); else they are left.
    pub owners: bool,
    /// Other owners than the point has.
    pub owner_map: OwnerMap,
    /// The repository's own directories: nothing is restored into them.
    pub repository: Protected,
    /// What these leave out is not restored, with everything below; nothing about it is said.
    pub exclude: Patterns,
}

/// What all threads of a restore share.
pub struct Job<N> {
    /// The directory that it goes to; `None` when it goes to a device.
    pub target: Option<Target<N>>,
    /// How.
    pub options: RestoreOptions,
    /// What did not work.
    pub faults: FaultLog,
    /// Counters for those that watch.
    pub progress: Arc<Progress>,
    /// The first thing that ends the restore.
    pub fatal: Mutex<Option<RestoreFault>>,
    /// Failed writes on a device.
    pub device_faults: AtomicU64,
    /// Bytes that the target had already.
    pub equal: AtomicU64,
}

impl<N: Node> Job<N> {
    /// For a directory, or with `None` for a device.
    pub fn new(target: Option<Target<N>>, options: RestoreOptions, progress: &Arc<Progress>) -> Job<N> {
        Job {
            target,
            options,
            faults: FaultLog::default(),
            progress: Arc::clone(progress),
            fatal: Mutex::new(None),
            device_faults: AtomicU64::new(0),
            equal: AtomicU64::new(0),
        }
    }

    /// Counts bytes that the target has already.
    pub fn found(&self, bytes: u64) {
        self.equal.fetch_add(bytes, Ordering::Relaxed);
        self.progress.bytes_done.add(bytes);
    }

    /// Notes what ends the restore; the first one counts.
    pub fn fail(&self, fault: RestoreFault) {
        let mut fatal = self.fatal.lock().unwrap_or_else(PoisonError::into_inner);
        fatal.get_or_insert(fault);
    }

    /// What ended it early, if something did.
    pub fn ended(&self) -> Result<(), RestoreFault> {
        match self.fatal.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(fault) => Err(fault),
            None if self.progress.is_stop_requested() => Err(RestoreFault::Cancelled),
            None => Ok(()),
        }
    }

    /// Whether the restore should end.
    pub fn is_over(&self) -> bool {
        self.progress.is_stop_requested()
            || self.fatal.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// Reports a failed call on an item whose own space is free again, or ends the restore when no other item would do better.
    pub fn system(&self, path: Vec<u8>, call: &'static str, errno: Errno) {
        if let Some(fault) = self.ends_restore(call, errno) {
            self.fail(fault);
        } else if !self.is_over() {
            self.faults.add(path, Reason::System { call, errno });
        }
    }

    /// What the errno says of the whole target, after asking it.
    fn ends_restore(&self, call: &'static str, errno: Errno) -> Option<RestoreFault> {
        if is_fatal(errno) {
            return Some(RestoreFault::Target { call, errno });
        }
        match &self.target {
            Some(target) if is_target_in_doubt(errno) => target.takes_files().err().map(|errno| {
                if is_space(errno) { RestoreFault::Full(errno) } else { RestoreFault::Target { call, errno } }
            }),
            Some(_) => None,
            // One image on one device or in one new file: only a bad place of a medium leaves the rest to be written.
            None if errno == Errno::IO
                && self.device_faults.fetch_add(1, Ordering::Relaxed) < DEVICE_FAULTS_MAX =>
            {
                None
            }
            None if is_space(errno) => Some(RestoreFault::Full(errno)),
            None => Some(RestoreFault::Target { call, errno }),
        }
    }
}

/// A name that a file will get.
#[derive(Debug)]
pub struct FileName<N> {
    /// Where.
    pub dir: Arc<Dir<N>>,
    /// The name.
    pub name: Vec<u8>,
    /// Whether it may replace what is there.
    pub replace: bool,
    /// Whether it leads to the file already, which is written in place.
    pub there: bool,
}

impl<N> Clone for FileName<N> {
    fn clone(&self) -> FileName<N> {
        let (dir, name) = (Arc::clone(&self.dir), self.name.clone());
        FileName { dir, name, replace: self.replace, there: self.there }
    }
}

/// A file that is being restored.
#[derive(Debug)]
pub struct File<N> {
    /// Which item.
    pub lin: Lin,
    /// What to set in the end.
    pub item: ItemAttributes,
    left: AtomicU64,
    /// Whether writing all blocks leaves the file shorter than it is: it ends in a hole.
    needs_length: AtomicBool,
    /// What a device is called.
    label: Vec<u8>,
    /// Whether some of it may be there: blocks are compared before they are fetched.
    compares: bool,
    state: Mutex<State<N>>,
}

#[derive(Debug)]
struct State<N> {
    temp: Option<Arc<Temp<N>>>,
    names: Vec<FileName<N>>,
    damaged: bool,
    done: bool,
}

impl<N: Node> State<N> {
    /// Lets go of the file; without a name it vanishes.
    fn close(&mut self, job: &Job<N>) {
        if let (Some(target), Some(temp)) = (&job.target, self.temp.take()) {
            target.close(&temp);
        }
    }
}

impl<N: Node> File<N> {
    /// A file that is about to be planned, with its first name.
    pub fn new(lin: Lin, item: ItemAttributes, name: FileName<N>) -> Arc<File<N>> {
        name.dir.left.fetch_add(1, Ordering::Relaxed);
        File::with(lin, item, name, None)
    }

    /// The same of one that is there, whole or in part: its blocks are compared.
    pub fn over(lin: Lin, item: ItemAttributes, name: FileName<N>, temp: Temp<N>) -> Arc<File<N>> {
        name.dir.left.fetch_add(1, Ordering::Relaxed);
        File::with(lin, item, name, Some(Arc::new(temp)))
    }

    fn with(lin: Lin, item: ItemAttributes, name: FileName<N>, temp: Option<Arc<Temp<N>>>) -> Arc<File<N>> {
        let (needs_length, compares) = (AtomicBool::new(item.size > 0), temp.is_some());
        let state = Mutex::new(State { temp, names: vec![name], damaged: false, done: false });
        let left = AtomicU64::new(1);
        Arc::new(File { lin, item, left, needs_length, label: Vec::new(), compares, state })
    }

    /// Whether some of it may be there: blocks are compared before they are fetched.
    pub fn compares(&self) -> bool {
        self.compares
    }

    /// Runs `read` with the open file.
    pub fn read<T>(&self, read: impl FnOnce(&N) -> Result<T, Errno>) -> Result<T, Errno> {
        let temp = self.state().temp.clone();
        read(&temp.ok_or(Errno::BADF)?.node)
    }

    /// A device or image file called `label` that is open already: no name, no attributes. With `compares` some of it may be there.
    pub fn of_device(
        lin: Lin,
        item: ItemAttributes,
        label: Vec<u8>,
        temp: Arc<Temp<N>>,
        compares: bool,
    ) -> Arc<File<N>> {
        let state = State { temp: Some(temp), names: Vec::new(), damaged: false, done: false };
        let needs_length = AtomicBool::new(false);
        let left = AtomicU64::new(1);
        Arc::new(File { lin, item, left, needs_length, label, compares, state: Mutex::new(state) })
    }

    /// Says that the last byte will be written, so that the length need not be set.
    pub fn ends_in_data(&self) {
        self.needs_length.store(false, Ordering::Relaxed);
    }

    fn state(&self) -> MutexGuard<'_, State<N>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Path of its first name.
    pub fn path(&self) -> Vec<u8> {
        self.state().names.first().map_or_else(|| self.label.clone(), |n| n.dir.path_of(&n.name))
    }

    /// Adds a name; gives it back when the file is finished already.
    pub fn add_name(&self, name: FileName<N>) -> Result<(), FileName<N>> {
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
    fn open(&self, state: &mut State<N>, job: &Job<N>) -> Result<bool, Errno> {
        if state.temp.is_some() {
            return Ok(false);
        }
        let Some(first) = state.names.first() else { return Err(Errno::NOENT) };
        // A file without a name cannot be opened by others, so it may have its mode from the start.
        let mode = self.item.mode & 0o777;
        let Some(target) = &job.target else { return Err(Errno::BADF) };
        let dir = first.dir.node()?;
        let temp = Arc::new(target.with_room(0, || target.create(&dir, mode))?);
        target.name_part(&temp, self.lin.inode, self.item.size);
        inode_flags::set_on_new(&temp.node, &self.item, &mut |reason| {
            job.faults.add(first.dir.path_of(&first.name), reason);
        });
        state.temp = Some(temp);
        Ok(true)
    }

    /// Runs `write`, which takes `bytes`, with the open file. What fails marks the file as damaged and is said once; nothing more is
    /// written then, unless damaged files are wanted.
    pub fn write(
        &self,
        job: &Job<N>,
        call: &'static str,
        bytes: u64,
        mut write: impl FnMut(&N) -> Result<(), Errno>,
    ) {
        let mut state = self.state();
        if state.damaged && !job.options.keep_damaged {
            return;
        }
        if let Err(errno) = self.open(&mut state, job) {
            state.damaged = true;
            drop(state);
            job.system(self.path(), "create the file", errno);
            return;
        }
        let Some(temp) = state.temp.clone() else { return };
        drop(state);
        let mut attempt = || temp.write(bytes, &mut write);
        let done = match &job.target {
            Some(target) => target.with_room(temp.taken(), attempt),
            None => attempt(),
        };
        match if temp.gave_way() { Err(Errno::NOSPC) } else { done } {
            Ok(()) => {
                if let Some(target) = &job.target {
                    target.note_large(&temp);
                }
            }
            Err(errno) => {
                let first = self.damage();
                if is_space(errno)
                    && let Some(target) = &job.target
                {
                    target.give_way(&temp);
                }
                if first || job.target.is_none() {
                    job.system(self.path(), call, errno);
                }
            }
        }
    }

    /// Allocates `offset..offset + len` without writing, past the end as well.
    pub fn preallocate(&self, job: &Job<N>, offset: u64, len: u64) {
        self.write(job, "preallocate", len, |file| match file.preallocate(offset, len) {
            // A file system without preallocation: reads as zero all the same.
            Err(Errno::OPNOTSUPP) => Ok(()),
            other => other,
        });
    }

    /// So many blocks are written. The last one finishes the file.
    pub fn done(&self, job: &Job<N>, count: u64) {
        if self.left.fetch_sub(count, Ordering::AcqRel) == count {
            self.finish(job);
        }
    }

    /// The planning is over. `true` when no block is left either: then it is to be finished.
    pub fn is_planned(&self) -> bool {
        self.left.fetch_sub(1, Ordering::AcqRel) == 1
    }

    /// Length, attributes, names, flags.
    pub fn finish(&self, job: &Job<N>) {
        let mut state = self.state();
        state.done = true;
        let names = std::mem::take(&mut state.names);
        if let Some(first) = names.first() {
            let path = || first.dir.path_of(&first.name);
            if job.is_over() {
                // What has a name is there for the next restore.
                state.temp = None;
            } else if state.damaged && !job.options.keep_damaged {
                state.close(job);
                name_the_others(job, &names);
            } else {
                state.names = names.clone();
                if let Err(errno) = self.open(&mut state, job) {
                    job.system(path(), "create the file", errno);
                } else if let Some(temp) = &state.temp {
                    if temp.finish() {
                        self.name(job, temp, &names);
                    } else {
                        job.faults.add(path(), Reason::System { call: "write", errno: Errno::NOSPC });
                        name_the_others(job, &names);
                    }
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

    fn name(&self, job: &Job<N>, temp: &Temp<N>, names: &[FileName<N>]) {
        let (Some(first), Some(target)) = (names.first(), &job.target) else { return };
        let path = || first.dir.path_of(&first.name);
        let mut report = |reason| job.faults.add(path(), reason);
        let needs_length = match self.compares {
            true => !temp.node.stat().is_ok_and(|stat| stat.size == self.item.size),
            false => self.needs_length.load(Ordering::Relaxed),
        };
        if needs_length && let Err(errno) = temp.node.set_len(self.item.size) {
            job.system(path(), "set the length", errno);
            return name_the_others(job, names);
        }
        // After the length: setting it, even to what it is, frees what is allocated past it.
        for past in past_end(&self.item) {
            let len = past.end - past.start;
            match temp.node.preallocate(past.start, len) {
                Ok(()) => {}
                Err(Errno::OPNOTSUPP) => break,
                Err(errno) => {
                    // The contents are whole, so the file is worth having without it.
                    report(Reason::System { call: "preallocate past the end", errno });
                    break;
                }
            }
        }
        if self.item.gaps.len() == ITEM_GAPS_MAX {
            report(Reason::NotKept { what: Feature::Preallocation, items: 1 });
        }
        // It was created in the first name's directory.
        let known = match first.dir.inherited {
            _ if self.compares => Known::of(&temp.node),
            Some(has) => self.known(has),
            None => Known::NOTHING,
        };
        if self.compares {
            attr::drop_others(&temp.node, &self.item, &mut report);
        } else if first.dir.inherited.is_none() {
            attr::drop_inherited_acls(&temp.node);
        }
        attr::settle(&temp.node, &self.item, known, job.options.owners, &mut report);
        let flags = inode_flags::has_late(&self.item);
        if self.item.links > 1
            && let Err(errno) = target.stash(temp, self.lin.inode, flags)
        {
            job.system(path(), "keep for further names", errno);
        }
        for name in names.iter().filter(|name| !name.there) {
            let link = |dir: &N| target.link(temp, dir, &name.name, name.replace);
            let linked = name.dir.node().and_then(|dir| target.with_room(temp.taken(), || link(&dir)));
            match linked {
                Ok(()) => {}
                Err(Errno::EXIST) => job.faults.add(name.dir.path_of(&name.name), Reason::Exists),
                Err(errno) => job.system(name.dir.path_of(&name.name), "give the file its name", errno),
            }
        }
        if flags && self.item.links <= 1 {
            // What is immutable keeps all its names.
            target.close(temp);
            inode_flags::set_at_end(&temp.node, &self.item, &mut report);
        }
    }

    /// What a file has that was just created.
    fn known(&self, has: Inherited) -> Known {
        let mode = Some(self.item.mode & 0o777 & !has.umask);
        Known { owner: Some((has.uid, has.gid)), mode, ..Known::NOTHING }
    }
}

/// Names the further names of a file that was not restored; the first one is named with the reason.
fn name_the_others<N: Node>(job: &Job<N>, names: &[FileName<N>]) {
    let Some((first, others)) = names.split_first() else { return };
    for other in others {
        let first = Reason::OtherName(first.dir.path_of(&first.name));
        job.faults.add(other.dir.path_of(&other.name), first);
    }
}

/// What is allocated past an item's end: between the gaps. A row with as many gaps as it can have knows of no others: what follows
/// the last one may be mostly gap.
fn past_end(item: &ItemAttributes) -> impl Iterator<Item = Range<u64>> + '_ {
    let mut at = item.size;
    let last = (item.gaps.len() < ITEM_GAPS_MAX).then_some((item.allocated_to, u64::MAX));
    let ends = item.gaps.iter().copied().chain(last);
    ends.filter_map(move |(to, next)| {
        let range = at..to;
        at = next;
        (range.start < range.end).then_some(range)
    })
}

#[cfg(test)]
mod tests {
    use windlass_hal::volume::{Hints, Timestamp};

    use super::*;
    use crate::format::row::RowPayload;
    use crate::id::BackupId;

    fn ending(size: u64, gaps: Vec<(u64, u64)>, allocated_to: u64) -> Vec<Range<u64>> {
        let time = Timestamp::default();
        let item = ItemAttributes {
            kind: windlass_hal::volume::ItemKind::File,
            rows_from: BackupId(1),
            generation: 0,
            mode: 0o644,
            uid: 0,
            gid: 0,
            links: 1,
            rdev: (0, 0),
            size,
            allocated_to,
            gaps,
            atime: time,
            mtime: time,
            ctime: time,
            btime: None,
            flags: 0,
            project: 0,
            hints: Hints::NONE,
            parent: 0,
            listing: 0,
            payload: RowPayload::None,
            xattrs: Vec::new(),
            unsure: false,
            fault: String::new(),
        };
        past_end(&item).collect()
    }

    #[test]
    fn only_what_is_known_to_be_allocated_past_the_end_is_allocated_again() {
        assert_eq!(ending(10, vec![], 0), []);
        assert_eq!(ending(10, vec![], 50).first(), Some(&(10..50)));
        assert_eq!(ending(10, vec![(10, 20), (30, 40)], 50), [20..30, 40..50]);
        let gaps = |count: u64| -> Vec<(u64, u64)> { (0..count).map(|n| (2 * n, 2 * n + 1)).collect() };
        let (one_less, most) = (ITEM_GAPS_MAX as u64 - 1, ITEM_GAPS_MAX as u64);
        assert_eq!(ending(0, gaps(one_less), 1 << 60).last(), Some(&(2 * one_less - 1..1 << 60)));
        // As many gaps as a row holds: there may be more, up to the end.
        assert_eq!(ending(0, gaps(most), 1 << 60).last(), Some(&(2 * most - 3..2 * most - 2)));
    }
}
