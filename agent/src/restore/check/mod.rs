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

mod findings;
mod objects;

use std::fmt;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use windlass_hal::volume::ItemKind;

pub use self::findings::{CheckFault, FAULT_PATHS_MAX, Wrong};
use self::findings::{Findings, Subject, subject};
pub use self::objects::{OBJECTS_MAX, Objects};
use super::browse::{self, BrowseFault, Met};
use super::gather::{WINDOW_BLOCKS_MAX, WINDOW_FILES_MAX};
use super::walk::lanes_for;
use crate::format::row::{BlockPlace, ItemAttributes, LocationRow, Place, RowPayload, RunKind};
use crate::format::seal::Keys;
use crate::id::{Lin, ObjectId, VolumeId};
use crate::log::names::NameSet;
use crate::policy::inodes::InodeSet;
use crate::progress::{Phase, Progress};
use crate::read::decode::Unread;
use crate::read::fetch::{Blocks, Fetcher};
use crate::read::lookup::Lookup;
use crate::read::plan::{Frame, Merging, Plan, PlannedBlock, WantedBlock};
use crate::store::StoreFault;
use crate::store::retry::Client;
use crate::table::lost::known;
use crate::table::source::{Fetch, TableFault};

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
    /// What is wrong; at most `FAULTS_MAX`.
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
    /// A stop was asked for.
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
        let Some(mut fetcher) = Fetcher::new(self.client, self.keys, self.progress) else {
            return self.fail(CheckEnd::Resources("memory"));
        };
        while let Some(fetch) = self.plan.fetches.get(self.next.fetch_add(1, Ordering::Relaxed)) {
            let mut verify = Verify { reading: self, object: fetch.object };
            if verify.is_over() {
                return;
            }
            fetcher.run(self.plan, fetch, &mut verify);
        }
    }

    fn fail(&self, end: CheckEnd) {
        self.end.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(end);
    }
}

/// Counts the blocks of a fetch that hold, and finds the others.
struct Verify<'r, 'a> {
    reading: &'r Reading<'a>,
    object: ObjectId,
}

impl Blocks for Verify<'_, '_> {
    fn is_over(&self) -> bool {
        let end = &self.reading.end;
        self.reading.progress.is_stop_requested()
            || end.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    fn block(&mut self, frame: &Frame, block: &PlannedBlock, bytes: Result<&[u8], Unread>) {
        let reading = self.reading;
        reading.progress.bytes_done.add(block.len.into());
        match bytes {
            Ok(bytes) => drop(reading.verified.fetch_add(bytes.len() as u64, Ordering::Relaxed)),
            Err(unread) => {
                if let (Some(wrong), Some(subject)) =
                    (Wrong::of(unread), reading.subjects.get(block.file as usize))
                {
                    let place = Some((self.object, frame.offset));
                    reading.findings.add(subject, place, wrong, reading.progress);
                }
            }
        }
    }

    fn fail(&mut self, fault: StoreFault) {
        self.reading.fail(CheckEnd::Store(fault));
    }
}
