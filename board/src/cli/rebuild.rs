//! `repo rebuild`: the tables anew, from upload objects alone; and the commit log, when that is damaged.
//!
//! ```text
//!  log is whole:    LIST obj/ --> those that the log has committed --> their tails --> new segments --> one commit: new in, old out
//!  log is damaged, or an object is of a backup that it has not heard of (`unknown`):
//!                     what is left of it (`log::salvage`) --> those that it does not call dead --> their tails --> new segments
//!                       --> a checkpoint of all that is known, and a boundary: the log goes on behind it
//! ```
//!
//! Orphans of killed backups are not taken up where the log can tell them apart, nor is what was given up. A backup that is under way is given
//! up too: what it has done so far lies in the segments that nobody trusts any more.
//!
//! Invariants: nothing that exists is changed until the commit, or until the boundary is stored; a rebuild that is killed leaves orphans and
//! no harm. Does not: need the old segments, not even to exist.
//! Source: ours; `agent/doc/architecture.md`, Data path.

use std::cell::{Cell, RefCell};
use std::sync::Arc;

use serde_json::{Value, json};
use windlass_agent::format::record::{Commit, Record};
use windlass_agent::format::tail::TailKind;
use windlass_agent::id::{BackupId, Boot, Epoch, NodeId, ObjectId, Slot};
use windlass_agent::limits::{REBUILD_FAN_IN, SEGMENT_BYTES_MAX};
use windlass_agent::log::fault::{LogFault, Place};
use windlass_agent::log::lease::Seek;
use windlass_agent::log::limits::RECORD_SEGMENTS_MAX;
use windlass_agent::log::salvage::{self, Salvage};
use windlass_agent::log::sealer::LogSealer;
use windlass_agent::log::state::State;
use windlass_agent::progress::{Phase, Progress};
use windlass_agent::store::retry::Client;
use windlass_agent::store::{ByteRange, StoreFault, StoreFaultKind};
use windlass_agent::table::rebuild::{RebuildSettings, Rebuilt, rebuild};
use windlass_agent::table::segment::{SegmentMeta, SegmentSink};
use windlass_agent::table::source::{Fetch, Source, TableFault, TableLimits};
use windlass_agent::units::Counted;

use crate::cli::args::global::Global;
use crate::cli::output::Output;
use crate::cli::progress::Watcher;
use crate::engine::damage::points_on;
use crate::engine::host;
use crate::engine::repository::{LogSession, Repository};
use crate::engine::unknown;
use crate::failure::{Exit, Failure};
use crate::logger;

/// What was done.
struct Done {
    rebuilt: Rebuilt,
    objects: u64,
    segments: u64,
    /// What became of the log, when it was damaged.
    log: Option<NewLog>,
}

/// A log that begins anew.
struct NewLog {
    lost: Vec<Place>,
    from_start: bool,
    points: usize,
    /// Points of which nobody knows whether they are complete: number and policy.
    unsure: Vec<(BackupId, String)>,
}

/// `repo rebuild`.
pub fn run(global: &Global, output: &Output) -> Result<Exit, Failure> {
    let repository = Repository::open(global)?;
    let job = Arc::new(Progress::new());
    let watcher = Watcher::start(&job, *output)?;
    for key in repository.mend_format()? {
        output.say(format_args!("made again: {key}"));
    }
    let mut damage = Vec::new();
    let read = repository.read_log(|fault| damage.push(fault));
    damage.extend(read.err());
    let done = match damage
        .iter()
        .find(|fault| !fault.is_damage() && !matches!(fault, LogFault::Mended { .. }))
    {
        Some(fault) => return Err(Failure::at(repository.opened.log_place(), fault)),
        None if damage.is_empty() => {
            match repository.with_session(|session| work(&repository, session, &job))? {
                Ok(done) => done,
                Err((id, backup)) => {
                    output.say(format_args!(
                        "found: {} is of backup {backup}, of which the commit log says nothing: its newest entries are lost",
                        id.object_key()
                    ));
                    renew(&repository, &job, true)?
                }
            }
        }
        None => {
            let is_end_lost = damage.iter().any(|fault| matches!(fault, LogFault::LostEnd { .. }));
            renew(&repository, &job, is_end_lost)?
        }
    };
    drop(watcher);
    for fault in &damage {
        output.say(format_args!("found: {fault}"));
    }
    for (id, fault) in &done.rebuilt.skipped {
        logger::say(format_args!("not read: {}: {}", id.object_key(), skipped_text(fault)));
    }
    output.say(format_args!(
        "{} of {} in {}",
        Counted(done.rebuilt.rows, "row"),
        Counted(done.objects, "object"),
        Counted(done.segments, "new segment")
    ));
    let skipped: Vec<Value> = done
        .rebuilt
        .skipped
        .iter()
        .map(|(id, fault)| json!({ "object": id.object_key(), "what": skipped_text(fault) }))
        .collect();
    let mut document = json!({
        "rows": done.rebuilt.rows,
        "objects": done.objects,
        "segments": done.segments,
        "faults": done.rebuilt.skipped.len(),
        "fault_list": skipped,
    });
    let mut whole = done.rebuilt.skipped.is_empty();
    if let Some(log) = &done.log {
        tell(log, output);
        whole &= log.lost.is_empty() && log.from_start && log.unsure.is_empty();
        document["log"] = json!({
            "points": log.points,
            "lost": log.lost.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "unsure": log.unsure.iter().map(|(backup, _)| backup.0).collect::<Vec<_>>(),
        });
    }
    output.event("done", document);
    Ok(if whole { Exit::Done } else { Exit::Partial })
}

/// Why the tail of an object was not read, and what that means.
fn skipped_text(fault: &TableFault) -> String {
    let what = match fault {
        TableFault::Format { fault, .. } => fault.to_string(),
        TableFault::Store(fault) => fault.to_string(),
        other => other.to_string(),
    };
    format!(
        "{what}; rows that only this object had are missing from the tables, and `windlass check` names what needs it"
    )
}

fn tell(log: &NewLog, output: &Output) {
    output.say(format_args!(
        "the commit log begins anew, with {}",
        Counted(log.points as u64, "recovery point")
    ));
    for place in &log.lost {
        output.say(format_args!("lost: {place}"));
    }
    if !log.from_start {
        output.say(
            "lost: all of the commit log up to its first entry that is left; policies have to be set again, and points whose \
             policy's name is not known any more are those of \"recovered-NUMBER\"",
        );
    }
    for (backup, policy) in &log.unsure {
        output.say(format_args!(
            "not sure: {policy}@{backup}: a part of what the log said of it is lost; see what is there with `windlass \
             check {policy}@{backup}`"
        ));
    }
}

/// `Err`: an object of a backup of which the log knows nothing; nothing was done.
fn work(
    repository: &Repository,
    session: &mut LogSession<'_>,
    job: &Progress,
) -> Result<Result<Done, (ObjectId, BackupId)>, Failure> {
    let state = session.view().state.clone();
    let unknown = unknown::look(repository, &state, &mut || session.poll().map(drop).map_err(lease_fault));
    if let Some(ahead) = unknown.map_err(Failure::new)?.ahead {
        return Ok(Err(ahead));
    }
    let given_up: Vec<BackupId> = state.abandoned.iter().chain(state.running.keys()).copied().collect();
    let (epoch, node) = (session.epoch(), state.holder.node);
    let (made, session) = {
        let keep = RefCell::new(|| session.poll().map(drop).map_err(lease_fault));
        (tables(repository, job, epoch, node, &keep, &given_up, |id| state.live.contains(id))?, session)
    };
    job.enter(Phase::Finishing);
    commit(session, &state, &made.segments)?;
    made.drop_scratch(repository);
    let (objects, segments) = (made.objects.len() as u64, made.segments.len() as u64);
    Ok(Ok(Done { rebuilt: made.rebuilt, objects, segments, log: None }))
}

/// The log begins anew with what is left of it, and with the tables of the objects that it does not call dead.
/// `is_cut`: an object shows that entries behind the last one are lost.
fn renew(repository: &Repository, job: &Progress, is_cut: bool) -> Result<Done, Failure> {
    let client = &repository.opened.client;
    let (cluster, sealer) = (repository.format.uuid, LogSealer::new(&repository.keys));
    let read = |keep: salvage::Keep<'_>| {
        let read = salvage::read(client, &cluster, &sealer, keep);
        read.map_err(|fault| Failure::at("reading the log", fault))
    };
    let before = read(&mut || Ok(()))?;
    let yielded = before.state.yielded == Some(None) && before.state.epoch == before.epoch;
    let (hold, me) = repository.hold(Seek { epoch: before.epoch, holder: None, yielded })?;
    let hold = RefCell::new(hold);
    // Whoever held the lease may have written until now.
    let mut salvage = read(&mut || hold.borrow_mut().poll().map_err(lease_fault))?;
    if is_cut {
        salvage.lost.push(Place::Slot(Slot(salvage.highest.0.saturating_add(1))));
    }
    let epoch = hold.borrow().epoch();
    let keep = RefCell::new(|| hold.borrow_mut().poll().map_err(lease_fault));
    let made = tables(repository, job, epoch, me.node, &keep, &salvage.given_up(), |id| salvage.counts(id))?;
    job.enter(Phase::Finishing);
    let (highest, lost, from_start) = (salvage.highest, salvage.lost.clone(), salvage.from_start);
    let (mut state, unsure) =
        salvage.into_state(epoch, me, &made.objects, &made.rebuilt.seen, &made.segments);
    let mut bad = state.damage.missing.clone();
    bad.add(&state.damage.damaged);
    if !bad.is_empty() {
        let is_bad = |id: &ObjectId| {
            // A lease that is lost meanwhile shows when the log is to begin anew.
            hold.borrow_mut().poll().ok();
            bad.contains(id)
        };
        let points = points_on(repository, &state, &is_bad, job)?;
        Arc::make_mut(&mut state.damage).points.extend(points);
    }
    let points = state.points.len();
    let policy_of = |backup| state.points.get(&backup).map(|point| (backup, point.policy.clone()));
    let unsure = unsure.into_iter().filter_map(policy_of).collect();
    let beginning = Salvage::beginning(cluster, highest, state, host::random()?, &sealer)
        .map_err(|bytes| Failure::new(LogFault::CheckpointTooLarge { bytes }))?;
    hold.borrow_mut().begin_anew(beginning).map_err(Failure::new)?;
    made.drop_scratch(repository);
    let (objects, segments) = (made.objects.len() as u64, made.segments.len() as u64);
    let log = Some(NewLog { lost, from_start, points, unsure });
    Ok(Done { rebuilt: made.rebuilt, objects, segments, log })
}

/// Keeps the lease while something long is done.
type Keep<'k> = RefCell<dyn FnMut() -> Result<(), StoreFault> + 'k>;

/// A lease that was lost, to those who expect only the store to fail.
fn lease_fault(fault: LogFault) -> StoreFault {
    StoreFault::new(StoreFaultKind::Rejected, "LEASE", "", fault.to_string())
}

/// Reads tails and segments, and keeps the lease meanwhile.
struct KeepingFetch<'k> {
    fetch: Arc<Client>,
    keep: &'k Keep<'k>,
}

impl Fetch for KeepingFetch<'_> {
    fn fetch(
        &mut self,
        id: &ObjectId,
        kind: TailKind,
        range: ByteRange,
        afresh: bool,
    ) -> Result<Vec<u8>, StoreFault> {
        self.keep.borrow_mut()()?;
        self.fetch.fetch(id, kind, range, afresh)
    }
}

/// Tables made anew.
struct Tables {
    rebuilt: Rebuilt,
    objects: Vec<ObjectId>,
    segments: Vec<SegmentMeta>,
}

impl Tables {
    fn drop_scratch(&self, repository: &Repository) {
        for id in &self.rebuilt.scratch {
            if let Err(fault) = repository.opened.client.delete(&id.segment_key()) {
                log::warn!("rebuild: scratch stays fault={fault}");
            }
        }
    }
}

fn tables<'k>(
    repository: &Repository,
    job: &Progress,
    epoch: Epoch,
    node: NodeId,
    keep: &'k Keep<'k>,
    given_up: &[BackupId],
    counts: impl Fn(&ObjectId) -> bool,
) -> Result<Tables, Failure> {
    let client = &repository.opened.client;
    job.enter(Phase::Planning);
    let objects = objects_that(client, keep, counts)?;
    let writer = Writer { client, epoch, node, boot: host::boot()?, next: Cell::new(0), keep };
    let (mut scratch, mut out) = (Sink::new(&writer, job), Sink::new(&writer, job));
    let fetch = KeepingFetch { fetch: Arc::clone(client), keep };
    let source = Source::new(fetch, &repository.keys, TableLimits::default());
    let mut source = source.ok_or_else(|| Failure::new("no memory for a compression context"))?;
    let settings = RebuildSettings {
        given_up,
        location_blocks: repository.format.location_blocks,
        zstd_level: 1,
        segment_bytes_max: SEGMENT_BYTES_MAX,
        fan_in: REBUILD_FAN_IN,
    };
    job.items_total.set(objects.len() as u64);
    let rebuilt = rebuild(&mut source, &repository.keys, &objects, &settings, &mut scratch, &mut out)
        .map_err(Failure::new)?;
    let segments = out.metas;
    Ok(Tables { rebuilt, objects, segments })
}

/// Objects that are there and that count, ascending.
fn objects_that(
    client: &Client,
    keep: &Keep<'_>,
    counts: impl Fn(&ObjectId) -> bool,
) -> Result<Vec<ObjectId>, Failure> {
    let (mut objects, mut kept) = (Vec::new(), Ok(()));
    client
        .list("obj/", "", &mut |key, _| {
            let id = key.strip_prefix("obj/").and_then(|name| name.parse::<ObjectId>().ok());
            objects.extend(id.filter(&counts));
            kept = keep.borrow_mut()();
            kept.is_ok()
        })
        .map_err(Failure::new)?;
    kept.map(|()| objects).map_err(Failure::new)
}

/// New segments in, old ones out: in one slot where that fits, else the new ones first, which doubles rows for a moment and loses
/// none. What runs is given up first, and its segments with it.
fn commit(session: &mut LogSession<'_>, state: &State, segments: &[SegmentMeta]) -> Result<(), Failure> {
    let given_up = state.running.keys().map(|&backup| Record::BackupAbandoned { backup });
    let stays = |meta: &&SegmentMeta| !state.running.keys().any(|&backup| meta.is_only_of(backup));
    let old: Vec<ObjectId> =
        state.segments.values().flat_map(|list| list.iter()).filter(stays).map(|meta| meta.id).collect();
    let added = segments
        .chunks(RECORD_SEGMENTS_MAX)
        .map(|chunk| Record::Commit(Commit { segments: chunk.to_vec(), ..Commit::default() }));
    let removed = old
        .chunks(RECORD_SEGMENTS_MAX)
        .map(|chunk| Record::Commit(Commit { removed: chunk.to_vec(), ..Commit::default() }));
    let records: Vec<Record> = given_up.chain(added).chain(removed).collect();
    let parts: Vec<Vec<Record>> = if segments.len().max(old.len()) <= RECORD_SEGMENTS_MAX {
        vec![records]
    } else {
        records.into_iter().map(|record| vec![record]).collect()
    };
    for part in parts.into_iter().filter(|part| !part.is_empty()) {
        session.commit(part).map_err(Failure::new)?;
    }
    Ok(())
}

/// What both sinks share: names, the store, and the lease that has to be kept meanwhile.
struct Writer<'a> {
    client: &'a Client,
    epoch: Epoch,
    node: NodeId,
    boot: Boot,
    next: Cell<u32>,
    keep: &'a Keep<'a>,
}

struct Sink<'a> {
    writer: &'a Writer<'a>,
    job: &'a Progress,
    body: Vec<u8>,
    metas: Vec<SegmentMeta>,
}

impl<'a> Sink<'a> {
    fn new(writer: &'a Writer<'a>, job: &'a Progress) -> Sink<'a> {
        Sink { writer, job, body: Vec::new(), metas: Vec::new() }
    }
}

impl SegmentSink for Sink<'_> {
    fn begin(&mut self) -> ObjectId {
        let count = self.writer.next.get();
        self.writer.next.set(count + 1);
        self.body.clear();
        ObjectId { epoch: self.writer.epoch, node: self.writer.node, boot: self.writer.boot, count }
    }

    fn put(&mut self, bytes: &[u8]) {
        self.body.extend_from_slice(bytes);
    }

    fn end(&mut self, meta: &SegmentMeta) -> Result<(), StoreFault> {
        self.writer.client.put_unique(&meta.id.segment_key(), &[&self.body])?;
        self.job.objects.add(1);
        self.job.bytes_stored.add(self.body.len() as u64);
        self.metas.push(*meta);
        self.writer.keep.borrow_mut()()
    }
}
