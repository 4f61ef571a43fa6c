//! Checking a recovery point: every name has its item, every row fits its item, every reference its object; and with
//! `read_data` every byte its digest.
//!
//! ```text
//!  LIST obj/ once --> Objects (sorted, 8 bytes an object)
//!                        |
//!  walk of the tree --> rows of each item --> references --(read_data)--> window --> plan --> threads: GET, open, verify
//! ```
//!
//! What is found is a list of [`CheckFault`]s by place: one damaged frame is one fault, with the paths that need it. Whatever is not as it was
//! written is read once more, over another connection, before it counts.
//!
//! Invariants: memory is the objects' list (at most [`OBJECTS_MAX`]), a window, a fetch and a frame per thread, and a bounded list of
//! faults, whatever is checked. No request per file; a window's frames are fetched once.
//!
//! Does not: repair, take a lease, or look at what no point refers to. Rows that cannot be read cost their items. Source: ours.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use windlass_hal::volume::ItemKind;

use super::browse::{self, BrowseFault, Decoder, Met};
use super::fault::{FAULT_PATH_BYTES_MAX, FAULTS_MAX};
use super::gather::{WINDOW_BLOCKS_MAX, WINDOW_FILES_MAX};
use super::lookup::Lookup;
use super::plan::{Fetch as PlannedFetch, Frame, Merging, Plan, WantedBlock};
use super::walk::lanes_for;
use crate::foreign::name as printable;
use crate::format::fault::FormatFault;
use crate::format::row::{BlockPlace, ItemAttributes, LocationRow, Place, RowPayload, RunKind};
use crate::format::seal::Keys;
use crate::id::{Boot, Epoch, Lin, NodeId, ObjectId, VolumeId};
use crate::log::limits::DAMAGED_RUNS_MAX;
use crate::log::names::NameSet;
use crate::policy::inodes::InodeSet;
use crate::progress::{Phase, Progress};
use crate::store::retry::Client;
use crate::store::{ByteRange, StoreFault, StoreFaultKind};
use crate::table::lost::{LostRows, known};
use crate::table::source::{Fetch, TableFault};

/// Most upload objects that a check takes on: 32 MiB of list. At 64 MiB an object that is 256 TiB.
pub const OBJECTS_MAX: usize = 4_000_000;
/// Most paths that one fault names; more are counted.
pub const FAULT_PATHS_MAX: usize = 8;
/// Where the faults of an object as a whole are collected: no frame begins there.
const WHOLE: u32 = u32::MAX;
/// Stack of a reading thread in bytes.
const STACK_BYTES: usize = 256 << 10;

/// What to check.
#[derive(Clone, Copy, Debug)]
pub struct CheckOptions {
    /// Whether to fetch and verify all data too.
    pub read_data: bool,
    /// Blocks per location row of the repository.
    pub location_blocks: u8,
    /// Memory budget in bytes: how many threads read.
    pub memory: u64,
}

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrong {
    /// A name leads to an item that has no row.
    NoItem(Lin),
    /// The name is not one that a directory can hold.
    BadName,
    /// A directory is inside itself.
    Loop,
    /// Directories nest deeper than is followed; what is below was not checked.
    TooDeep,
    /// The item's rows contradict each other; which rule.
    Rows(&'static str),
    /// Rows of the item, or of its listing, are among those that cannot be read.
    Lost(LostRows),
    /// The object is not in the store.
    Missing,
    /// The object ends before the frame does.
    Short {
        /// Bytes that it should have at least.
        need: u64,
        /// Bytes that it has, when known.
        have: u64,
    },
    /// The frame, or a block in it, is damaged.
    Damaged(FormatFault),
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Wrong::NoItem(lin) => write!(f, "no row for item {lin}"),
            Wrong::BadName => f.write_str("the name is not one that a directory can hold"),
            Wrong::Loop => f.write_str("the directory is inside itself"),
            Wrong::TooDeep => f.write_str("directories nest too deep here; what is below was not checked"),
            Wrong::Rows(rule) => write!(f, "the tables contradict themselves: {rule}"),
            Wrong::Lost(lost) => lost.fmt(f),
            Wrong::Missing => f.write_str("the object is missing"),
            Wrong::Short { need, have } => {
                write!(f, "the object is cut short: it has {have} bytes and needs {need}")
            }
            Wrong::Damaged(what) => what.fmt(f),
        }
    }
}

/// One thing that is wrong, and who is affected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckFault {
    /// Object and frame offset, when it is about stored data. Of a missing object the first frame that was asked for.
    pub place: Option<(ObjectId, u32)>,
    /// What is wrong.
    pub what: Wrong,
    /// Paths that need it, from the volume's root; at most [`FAULT_PATHS_MAX`].
    pub paths: Vec<Vec<u8>>,
    /// How many there are in all.
    pub path_count: u64,
}

impl fmt::Display for CheckFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some((object, offset)) = self.place {
            write!(f, "object {object}, byte {offset}: ")?;
        }
        write!(f, "{}", self.what)?;
        for (index, path) in self.paths.iter().enumerate() {
            let lead = if index == 0 { "; affects " } else { ", " };
            write!(f, "{lead}/{}", printable(path))?;
        }
        match self.path_count.saturating_sub(self.paths.len() as u64) {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

/// What a check found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckReport {
    /// Items looked at; one with several names counts once.
    pub items: u64,
    /// Their sizes, in bytes.
    pub bytes: u64,
    /// Stored blocks that they refer to.
    pub blocks: u64,
    /// Objects that they refer to.
    pub objects: u64,
    /// Objects in the store, of all points.
    pub objects_listed: u64,
    /// Bytes of blocks that were read and verified.
    pub bytes_verified: u64,
    /// Items that the backup itself could not read whole: known, and no damage of the repository.
    pub incomplete: u64,
    /// Items (or names) with a fault.
    pub items_damaged: u64,
    /// What is wrong; at most [`FAULTS_MAX`].
    pub faults: Vec<CheckFault>,
    /// Faults that did not fit in the list.
    pub faults_dropped: u64,
    /// Objects and segments that are missing, in the list or not.
    pub missing: NameSet,
    /// Objects and segments that are cut short or damaged.
    pub damaged: NameSet,
}

impl CheckReport {
    /// Whether everything is as it should be.
    pub fn is_sound(&self) -> bool {
        self.items_damaged == 0 && self.faults.is_empty() && self.faults_dropped == 0
    }
}

/// Why a check ended early.
#[derive(Debug)]
pub enum CheckEnd {
    /// The tables cannot be read.
    Rows(TableFault),
    /// The store does not answer.
    Store(StoreFault),
    /// The volume's root has no row.
    NoRoot(VolumeId),
    /// More than [`OBJECTS_MAX`] objects.
    TooManyObjects,
    /// No memory or threads for the work.
    Resources(&'static str),
    /// Somebody asked to stop.
    Cancelled,
}

impl fmt::Display for CheckEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CheckEnd::Rows(fault) => write!(f, "reading the tables: {fault}"),
            CheckEnd::Store(fault) => write!(f, "reading the store: {fault}"),
            CheckEnd::NoRoot(volume) => {
                write!(
                    f,
                    "volume {volume} has no root item in this point; rebuild the tables from the objects"
                )
            }
            CheckEnd::TooManyObjects => {
                write!(
                    f,
                    "the repository has more than {OBJECTS_MAX} objects, which a check does not hold in memory"
                )
            }
            CheckEnd::Resources(what) => write!(f, "not enough {what}"),
            CheckEnd::Cancelled => f.write_str("cancelled"),
        }
    }
}

impl std::error::Error for CheckEnd {}

impl From<TableFault> for CheckEnd {
    fn from(fault: TableFault) -> CheckEnd {
        CheckEnd::Rows(fault)
    }
}

/// Who wrote an object.
type Writer = (Epoch, NodeId, Boot);

/// Which upload objects there are, and how long they are.
#[derive(Debug, Default)]
pub struct Objects {
    /// Writers with the first of their objects, ascending.
    writers: Vec<(Writer, usize)>,
    /// Count and size, ascending within a writer. Sizes that do not fit are as good as the largest: offsets have 32 bits too.
    sizes: Vec<(u32, u32)>,
    /// A bit per object: referred to.
    used: Vec<u64>,
}

impl Objects {
    /// Lists the store: one LIST, of many pages when there are many objects.
    pub fn list(client: &Client, progress: &Progress) -> Result<Objects, CheckEnd> {
        let mut objects = Objects::default();
        let mut end = None;
        let listed = client.list("obj/", "", &mut |key, size| {
            if progress.is_stop_requested() {
                end = Some(CheckEnd::Cancelled);
            } else if objects.sizes.len() >= OBJECTS_MAX {
                end = Some(CheckEnd::TooManyObjects);
            } else if let Some(id) = key.strip_prefix("obj/").and_then(|name| name.parse().ok()) {
                objects.push(id, size);
            }
            end.is_none()
        });
        if let Some(end) = end {
            return Err(end);
        }
        listed.map_err(CheckEnd::Store)?;
        objects.finish();
        Ok(objects)
    }

    fn push(&mut self, id: ObjectId, size: u64) {
        let writer = (id.epoch, id.node, id.boot);
        if self.writers.last().is_none_or(|(last, _)| *last != writer) {
            self.writers.push((writer, self.sizes.len()));
        }
        self.sizes.push((id.count, u32::try_from(size).unwrap_or(u32::MAX)));
    }

    /// Keys of one writer come together; past eight digits they no longer come by number.
    fn finish(&mut self) {
        for at in 0..self.writers.len() {
            let range = self.range(at);
            self.sizes[range].sort_unstable();
        }
        self.used = vec![0; self.sizes.len().div_ceil(64)];
    }

    fn range(&self, writer: usize) -> std::ops::Range<usize> {
        let end = self.writers.get(writer + 1).map_or(self.sizes.len(), |next| next.1);
        self.writers[writer].1..end
    }

    fn place(&self, id: &ObjectId) -> Option<usize> {
        let writer = (id.epoch, id.node, id.boot);
        let at = self.writers.binary_search_by(|(have, _)| have.cmp(&writer)).ok()?;
        let range = self.range(at);
        let first = range.start;
        self.sizes[range].binary_search_by_key(&id.count, |entry| entry.0).ok().map(|at| first + at)
    }

    /// Bytes of an object, if there is one. It counts as referred to from now on.
    pub fn refer(&mut self, id: &ObjectId) -> Option<u64> {
        let at = self.place(id)?;
        self.used[at / 64] |= 1 << (at % 64);
        Some(self.sizes[at].1.into())
    }

    /// How many there are.
    pub fn len(&self) -> u64 {
        self.sizes.len() as u64
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.sizes.is_empty()
    }

    /// How many were referred to.
    pub fn referred(&self) -> u64 {
        self.used.iter().map(|word| u64::from(word.count_ones())).sum()
    }
}

/// An item that is being checked.
#[derive(Debug)]
struct Subject {
    path: Vec<u8>,
    damaged: AtomicBool,
}

/// What faults are collected by: where, or whose. A missing or cut object is one fault, whatever is asked of it; so is a segment with lost rows.
type FaultKey = (Option<(ObjectId, u32)>, Vec<u8>);

/// Faults as they are found, by any thread.
#[derive(Default)]
struct Findings {
    /// Each with the path that was counted last.
    faults: Mutex<BTreeMap<FaultKey, (CheckFault, Vec<u8>)>>,
    dropped: AtomicU64,
    items_damaged: AtomicU64,
    /// Names that are missing, and damaged.
    lost: Mutex<(NameSet, NameSet)>,
}

impl Findings {
    /// Keeps the name of an object or segment that is not whole.
    fn lose(&self, place: Option<(ObjectId, u32)>, what: Wrong) {
        let (id, missing) = match (place, what) {
            (Some((object, _)), Wrong::Missing) => (object, true),
            (Some((object, _)), Wrong::Short { .. } | Wrong::Damaged(_)) => (object, false),
            (_, Wrong::Lost(lost)) => (lost.segment, lost.what.is_none()),
            _ => return,
        };
        let mut lost = self.lost.lock().unwrap_or_else(PoisonError::into_inner);
        let set = if missing { &mut lost.0 } else { &mut lost.1 };
        set.insert(&id);
        set.shrink(DAMAGED_RUNS_MAX);
    }

    fn add(&self, subject: &Subject, place: Option<(ObjectId, u32)>, what: Wrong, progress: &Progress) {
        let first = !subject.damaged.swap(true, Ordering::Relaxed);
        if first {
            self.items_damaged.fetch_add(1, Ordering::Relaxed);
            progress.faults.add(1);
        }
        self.lose(place, what);
        let path = subject.path.clone();
        let key = match (place, what) {
            (Some((object, _)), Wrong::Missing | Wrong::Short { .. }) => (Some((object, WHOLE)), Vec::new()),
            // One fault a segment, which no object has the name of.
            (_, Wrong::Lost(lost)) => (Some((lost.segment, WHOLE)), Vec::new()),
            (Some(place), _) => (Some(place), Vec::new()),
            (None, _) => (None, path.clone()),
        };
        let mut faults = self.faults.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, last)) = faults.get_mut(&key) {
            if let (Wrong::Short { need, .. }, Wrong::Short { need: more, .. }) = (&mut known.what, what) {
                *need = more.max(*need);
            }
            // Blocks of one item come one after another.
            if *last != path && !known.paths.contains(&path) {
                known.path_count += 1;
                if known.paths.len() < FAULT_PATHS_MAX {
                    known.paths.push(path.clone());
                }
            }
            *last = path;
        } else if faults.len() < FAULTS_MAX {
            let fault = CheckFault { place, what, paths: vec![path.clone()], path_count: 1 };
            faults.insert(key, (fault, path));
        } else {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Checks volumes, each with what reads it at the point. Where there are several, paths begin with the volume's number. Errors end
/// the check; what belongs to items is in the report.
pub fn run<F: Fetch>(
    lookups: &mut [(VolumeId, Lookup<F>)],
    client: &Client,
    keys: &Keys,
    options: CheckOptions,
    progress: &Progress,
) -> Result<CheckReport, CheckEnd> {
    progress.enter(Phase::Planning);
    let objects = Objects::list(client, progress)?;
    progress.enter(Phase::Checking);
    let (threads, read_bytes_max) = lanes_for(options.memory);
    let mut check = Check {
        client,
        keys,
        options,
        progress,
        objects,
        findings: Findings::default(),
        report: CheckReport::default(),
        threads,
        merging: Merging { read_bytes_max, ..Merging::default() },
        seen: InodeSet::new(),
        subjects: Vec::new(),
        wanted: Vec::new(),
        verified: AtomicU64::new(0),
    };
    let several = lookups.len() > 1;
    for (volume, lookup) in lookups {
        check.volume(lookup, *volume, several)?;
    }
    check.read_window()?;
    progress.enter(Phase::Finishing);
    let Check { mut report, findings, objects, verified, .. } = check;
    report.objects = objects.referred();
    report.objects_listed = objects.len();
    report.bytes_verified = verified.into_inner();
    report.items_damaged = findings.items_damaged.into_inner();
    report.faults_dropped = findings.dropped.into_inner();
    (report.missing, report.damaged) = findings.lost.into_inner().unwrap_or_else(PoisonError::into_inner);
    let faults = findings.faults.into_inner().unwrap_or_else(PoisonError::into_inner);
    report.faults = faults.into_values().map(|(fault, _)| fault).collect();
    Ok(report)
}

struct Check<'a> {
    client: &'a Client,
    keys: &'a Keys,
    options: CheckOptions,
    progress: &'a Progress,
    objects: Objects,
    findings: Findings,
    report: CheckReport,
    threads: usize,
    merging: Merging,
    /// Items with several names that were checked. Full: such an item may be checked again.
    seen: InodeSet,
    subjects: Vec<Arc<Subject>>,
    wanted: Vec<WantedBlock>,
    verified: AtomicU64,
}

impl Check<'_> {
    fn volume<F: Fetch>(
        &mut self,
        lookup: &mut Lookup<F>,
        volume: VolumeId,
        several: bool,
    ) -> Result<(), CheckEnd> {
        self.seen = InodeSet::new();
        let start = if several { volume.to_string().into_bytes() } else { Vec::new() };
        let (root, item) = match browse::root(lookup, volume) {
            Ok(root) => root,
            Err(BrowseFault::Rows(TableFault::Lost(lost))) => {
                self.wrong(&start, Wrong::Lost(lost));
                return Ok(());
            }
            Err(BrowseFault::Rows(fault)) => return Err(CheckEnd::Rows(fault)),
            Err(_) => return Err(CheckEnd::NoRoot(volume)),
        };
        self.item(lookup, root, &item, &start)?;
        if item.kind != ItemKind::Directory {
            return Ok(());
        }
        browse::walk(lookup, root, &item, &start, &mut |lookup, visit| {
            let wrong = match visit.met {
                Met::Item(item) => {
                    self.item(lookup, visit.lin, item, visit.path)?;
                    return Ok(true);
                }
                Met::NoItem => Wrong::NoItem(visit.lin),
                Met::Lost(lost) => Wrong::Lost(lost),
                Met::BadName => Wrong::BadName,
                Met::Loop => Wrong::Loop,
                Met::TooDeep => Wrong::TooDeep,
            };
            self.findings.add(&subject(visit.path), None, wrong, self.progress);
            Ok::<bool, CheckEnd>(true)
        })?;
        Ok(())
    }

    fn item<F: Fetch>(
        &mut self,
        lookup: &mut Lookup<F>,
        lin: Lin,
        item: &ItemAttributes,
        path: &[u8],
    ) -> Result<(), CheckEnd> {
        if self.progress.is_stop_requested() {
            return Err(CheckEnd::Cancelled);
        }
        if item.kind != ItemKind::Directory && item.links > 1 && self.seen.insert(lin.inode) == Ok(false) {
            return Ok(());
        }
        self.report.items += 1;
        self.progress.items_done.add(1);
        self.report.incomplete += u64::from(!item.fault.is_empty());
        let rows = |rule| Wrong::Rows(rule);
        match (&item.payload, item.kind) {
            (RowPayload::Target(_), ItemKind::Symlink) => {}
            (_, ItemKind::Symlink) => {
                self.wrong(path, rows("a symlink without a target"));
            }
            (RowPayload::Inline(bytes), ItemKind::File | ItemKind::Image) => {
                self.report.bytes = self.report.bytes.saturating_add(item.size);
                self.progress.bytes_done.add(item.size);
                if bytes.len() as u64 > item.size {
                    self.wrong(path, rows("small contents longer than the item"));
                }
            }
            (RowPayload::None, ItemKind::File | ItemKind::Image) => self.file(lookup, lin, item, path)?,
            (RowPayload::None, _) => {}
            _ => self.wrong(path, rows("contents of something that has none")),
        }
        Ok(())
    }

    fn wrong(&self, path: &[u8], wrong: Wrong) {
        self.findings.add(&subject(path), None, wrong, self.progress);
    }

    /// All location rows of a file.
    fn file<F: Fetch>(
        &mut self,
        lookup: &mut Lookup<F>,
        lin: Lin,
        item: &ItemAttributes,
        path: &[u8],
    ) -> Result<(), CheckEnd> {
        self.report.bytes = self.report.bytes.saturating_add(item.size);
        let mut file = FileState {
            subject: Arc::new(subject(path)),
            reached: 0,
            block_bytes: 0,
            planned: 0,
            is_incomplete: !item.fault.is_empty(),
        };
        let mut end = None;
        let result = lookup.locations(lin, item, &mut |row| {
            if self.progress.is_stop_requested() {
                end = Some(CheckEnd::Cancelled);
            } else if let Err(fault) = self.row(&mut file, item, &row) {
                end = Some(fault);
            }
            match end {
                None => Ok(()),
                // Only ends the reading; `end` says why.
                Some(_) => Err(TableFault::TooManyVersions(lin)),
            }
        });
        if let Some(end) = end {
            return Err(end);
        }
        if let Err(lost) = known(result)? {
            self.findings.add(&file.subject, None, Wrong::Lost(lost), self.progress);
        }
        // Blocks that are to be read count when they are.
        self.progress.bytes_done.add(item.size.saturating_sub(file.planned));
        Ok(())
    }

    fn row(
        &mut self,
        file: &mut FileState,
        item: &ItemAttributes,
        row: &LocationRow,
    ) -> Result<(), CheckEnd> {
        let block_bytes = u64::from(row.block_bytes);
        let per_row = u64::from(self.options.location_blocks);
        let start = row.base.checked_mul(block_bytes);
        let rule = match start {
            _ if block_bytes == 0 => Some("blocks of no bytes"),
            None => Some("a location past the end of all numbers"),
            _ if file.block_bytes != 0 && file.block_bytes != block_bytes => Some("blocks of two sizes"),
            _ if per_row > 0 && !row.base.is_multiple_of(per_row) => Some("a row that begins off its place"),
            _ if per_row > 0 && row.blocks.len() as u64 > per_row => Some("a row with too many blocks"),
            _ if row.base < file.reached => Some("rows that overlap"),
            _ => None,
        };
        let (None, Some(start)) = (rule, start) else {
            let rule = rule.unwrap_or("a location past the end of all numbers");
            self.findings.add(&file.subject, None, Wrong::Rows(rule), self.progress);
            return Ok(());
        };
        file.block_bytes = block_bytes;
        file.reached = row.base.saturating_add(row.blocks.len() as u64);
        if row.runs.iter().try_fold(start, |at, run| at.checked_add(run.1)).is_none() {
            self.findings.add(
                &file.subject,
                None,
                Wrong::Rows("runs past the end of all numbers"),
                self.progress,
            );
        }
        // An item's row names what it lacks, unless a worker that had another stretch of it found out.
        if !file.is_incomplete && row.runs.iter().any(|run| run.0 == RunKind::Lost) {
            file.is_incomplete = true;
            self.report.incomplete += 1;
        }
        for (index, place) in row.blocks.iter().enumerate() {
            let offset = start.saturating_add(index as u64 * block_bytes);
            if offset >= item.size {
                break;
            }
            if let BlockPlace::Stored(place) = place {
                self.block(file, place, offset, block_bytes.min(item.size - offset))?;
            }
        }
        Ok(())
    }

    fn block(&mut self, file: &mut FileState, place: &Place, offset: u64, len: u64) -> Result<(), CheckEnd> {
        self.report.blocks += 1;
        let at = Some((place.object, place.frame_offset));
        if u64::from(place.len) != len {
            let rule = Wrong::Rows("a block of another length than the item has there");
            self.findings.add(&file.subject, None, rule, self.progress);
            return Ok(());
        }
        let need = u64::from(place.frame_offset) + u64::from(place.frame_bytes);
        match self.objects.refer(&place.object) {
            None => self.findings.add(&file.subject, at, Wrong::Missing, self.progress),
            Some(have) if have < need => {
                self.findings.add(&file.subject, at, Wrong::Short { need, have }, self.progress);
            }
            Some(_) if self.options.read_data => {
                file.planned += len;
                return self.want(file, place, offset);
            }
            Some(_) => {}
        }
        Ok(())
    }

    fn want(&mut self, file: &FileState, place: &Place, offset: u64) -> Result<(), CheckEnd> {
        if !self.subjects.last().is_some_and(|last| Arc::ptr_eq(last, &file.subject)) {
            self.subjects.push(Arc::clone(&file.subject));
        }
        let number = self.subjects.len() as u32 - 1;
        self.wanted.push(WantedBlock { file: number, offset, runs: (0, 0), place: *place });
        if self.wanted.len() >= WINDOW_BLOCKS_MAX || self.subjects.len() >= WINDOW_FILES_MAX {
            return self.read_window();
        }
        Ok(())
    }

    /// Fetches and verifies what was gathered.
    fn read_window(&mut self) -> Result<(), CheckEnd> {
        if self.wanted.is_empty() {
            return Ok(());
        }
        let plan = Plan::new(&mut self.wanted, self.merging);
        self.wanted.clear();
        let subjects = std::mem::take(&mut self.subjects);
        let reading = Reading {
            client: self.client,
            keys: self.keys,
            progress: self.progress,
            findings: &self.findings,
            verified: &self.verified,
            plan: &plan,
            subjects: &subjects,
            next: AtomicUsize::new(0),
            end: Mutex::new(None),
        };
        let threads = self.threads.min(plan.fetches.len());
        std::thread::scope(|scope| {
            // This thread reads too, so that a machine without threads to give still gets there.
            for _ in 1..threads {
                let builder = std::thread::Builder::new().stack_size(STACK_BYTES);
                if builder.spawn_scoped(scope, || reading.work()).is_err() {
                    break;
                }
            }
            reading.work();
        });
        match reading.end.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some(end) => Err(end),
            None if self.progress.is_stop_requested() => Err(CheckEnd::Cancelled),
            None => Ok(()),
        }
    }
}

/// Of a path that is longer than a fault shows its end: windows hold a thousand of them.
fn subject(path: &[u8]) -> Subject {
    let path = path[path.len().saturating_sub(FAULT_PATH_BYTES_MAX)..].to_vec();
    Subject { path, damaged: AtomicBool::new(false) }
}

/// What is known of a file between its rows.
struct FileState {
    subject: Arc<Subject>,
    /// Index past the last block of the rows so far.
    reached: u64,
    /// Block size of the rows so far, or 0.
    block_bytes: u64,
    /// Bytes that are in windows.
    planned: u64,
    /// Whether it counts as not read whole by the backup.
    is_incomplete: bool,
}

/// A window that is being read.
struct Reading<'a> {
    client: &'a Client,
    keys: &'a Keys,
    progress: &'a Progress,
    findings: &'a Findings,
    verified: &'a AtomicU64,
    plan: &'a Plan,
    subjects: &'a [Arc<Subject>],
    next: AtomicUsize,
    end: Mutex<Option<CheckEnd>>,
}

impl Reading<'_> {
    fn work(&self) {
        let Some(mut decoder) = Decoder::new(self.keys) else {
            return self.fail(CheckEnd::Resources("memory"));
        };
        let mut bytes = Vec::new();
        while let Some(fetch) = self.plan.fetches.get(self.next.fetch_add(1, Ordering::Relaxed)) {
            if self.progress.is_stop_requested() || self.is_over() {
                return;
            }
            self.fetch(&mut decoder, fetch, &mut bytes);
        }
    }

    fn is_over(&self) -> bool {
        self.end.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    fn fail(&self, end: CheckEnd) {
        self.end.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(end);
    }

    fn fetch(&self, decoder: &mut Decoder<'_>, fetch: &PlannedFetch, bytes: &mut Vec<u8>) {
        bytes.clear();
        let Some(mut have) = self.get(fetch, (fetch.offset, fetch.bytes), false, bytes) else { return };
        if have.is_none() {
            let Some(again) = self.get(fetch, (fetch.offset, fetch.bytes), true, bytes) else { return };
            have = again;
        }
        for frame in self.plan.frames_of(fetch) {
            let from = (frame.offset - fetch.offset) as usize;
            let part = bytes.get_mut(from..from.saturating_add(frame.bytes as usize));
            let sound = part.is_some_and(|part| {
                // Rows are foreign, and frames of a plan may overlap; opening is in place.
                let opened = if self.is_alone(fetch, frame) {
                    decoder.open(&fetch.object, frame.offset, part)
                } else {
                    decoder.open(&fetch.object, frame.offset, &mut part.to_vec())
                };
                opened.is_ok() && self.blocks(decoder, fetch, frame, false)
            });
            if have.is_none() {
                self.wrong(fetch, frame, Wrong::Missing);
            } else if !sound {
                self.once_more(decoder, fetch, frame);
            }
            let wanted: u64 = self.plan.blocks_of(frame).iter().map(|block| u64::from(block.len)).sum();
            self.progress.bytes_done.add(wanted);
        }
    }

    /// Reads a range of an object: its size, or `None` inside when it is missing; `None` when the check ends.
    fn get(
        &self,
        fetch: &PlannedFetch,
        (offset, len): (u32, u32),
        afresh: bool,
        out: &mut Vec<u8>,
    ) -> Option<Option<u64>> {
        let range = ByteRange::From { offset: offset.into(), len: u64::from(len).max(1) };
        let key = fetch.object.object_key();
        self.progress.gets.add(1);
        let got = match afresh {
            true => self.client.get_afresh(&key, range, out),
            false => self.client.get(&key, range, out),
        };
        self.progress.bytes_read.add(out.len() as u64);
        match got {
            Ok(have) => Some(Some(have)),
            Err(fault) if fault.kind == StoreFaultKind::NotFound => Some(None),
            Err(fault) => {
                self.fail(CheckEnd::Store(fault));
                None
            }
        }
    }

    /// Reads a frame once more, from another connection: what is wrong with it now is damage.
    fn once_more(&self, decoder: &mut Decoder<'_>, fetch: &PlannedFetch, frame: &Frame) {
        let mut bytes = Vec::new();
        let Some(have) = self.get(fetch, (frame.offset, frame.bytes), true, &mut bytes) else { return };
        let need = u64::from(frame.offset) + u64::from(frame.bytes);
        match have {
            None => self.wrong(fetch, frame, Wrong::Missing),
            Some(have) if bytes.len() < frame.bytes as usize => {
                self.wrong(fetch, frame, Wrong::Short { need, have });
            }
            Some(_) => match decoder.open(&fetch.object, frame.offset, &mut bytes) {
                Ok(()) => {
                    self.blocks(decoder, fetch, frame, true);
                }
                Err(what) => self.wrong(fetch, frame, Wrong::Damaged(what)),
            },
        }
    }

    /// Whether a frame overlaps no other of its fetch.
    fn is_alone(&self, fetch: &PlannedFetch, frame: &Frame) -> bool {
        let end = |frame: &Frame| u64::from(frame.offset) + u64::from(frame.bytes);
        self.plan.frames_of(fetch).iter().all(|other| {
            std::ptr::eq(other, frame)
                || end(other) <= u64::from(frame.offset)
                || end(frame) <= u64::from(other.offset)
        })
    }

    /// Verifies the blocks of the decoder's frame; whether all hold. Unless it is the `last` time, they count only then.
    fn blocks(&self, decoder: &Decoder<'_>, fetch: &PlannedFetch, frame: &Frame, last: bool) -> bool {
        let (mut verified, mut all) = (0, true);
        for block in self.plan.blocks_of(frame) {
            match decoder.block(block.inner_offset, block.len, &block.digest) {
                Ok(bytes) => verified += bytes.len() as u64,
                Err(_) if !last => return false,
                Err(what) => {
                    all = false;
                    self.found(block.file, fetch, frame, Wrong::Damaged(what));
                }
            }
        }
        self.verified.fetch_add(verified, Ordering::Relaxed);
        self.progress.bytes_packed.add(verified);
        all
    }

    fn wrong(&self, fetch: &PlannedFetch, frame: &Frame, what: Wrong) {
        for block in self.plan.blocks_of(frame) {
            self.found(block.file, fetch, frame, what);
        }
    }

    fn found(&self, file: u32, fetch: &PlannedFetch, frame: &Frame, what: Wrong) {
        let place = Some((fetch.object, frame.offset));
        if let Some(subject) = self.subjects.get(file as usize) {
            self.findings.add(subject, place, what, self.progress);
        }
    }
}
