//! `repo rebuild`: the tables anew, from upload objects alone.
//!
//! ```text
//!  LIST obj/ --> those that the log has committed --> their tails --> sorted --> new segments --> one commit: new in, old out
//! ```
//!
//! The commit log must be whole: it says which objects count. Orphans of killed backups are not taken up, nor is what was given up. A
//! backup that is under way is given up too: what it has done so far lies in the segments that nobody trusts any more.
//!
//! Invariants: nothing that exists is changed until the commit; a rebuild that is killed leaves orphans and no harm.
//! Does not: need the old segments, not even to exist. Source: ours; architecture section 4.

use std::cell::{Cell, RefCell};
use std::sync::Arc;

use serde_json::{Value, json};
use windlass_agent::format::record::{Commit, Record};
use windlass_agent::id::{BackupId, Boot, Epoch, NodeId, ObjectId};
use windlass_agent::limits::{REBUILD_FAN_IN, SEGMENT_BYTES_MAX};
use windlass_agent::log::limits::RECORD_SEGMENTS_MAX;
use windlass_agent::log::state::State;
use windlass_agent::progress::{Phase, Progress};
use windlass_agent::restore::lookup::ClientFetch;
use windlass_agent::store::retry::Client;
use windlass_agent::store::{StoreFault, StoreFaultKind};
use windlass_agent::table::rebuild::{RebuildSettings, Rebuilt, rebuild};
use windlass_agent::table::segment::{SegmentMeta, SegmentSink};
use windlass_agent::table::source::{Source, TableLimits};
use windlass_agent::units::Grouped;

use crate::args::global::Global;
use crate::failure::{Exit, Failure};
use crate::output::Output;
use crate::progress::Watcher;
use crate::repository::{LogSession, Repository};
use crate::{host, logger};

/// `repo rebuild`.
pub fn run(global: &Global, output: &Output) -> Result<Exit, Failure> {
    let repository = Repository::open(global)?;
    let job = Arc::new(Progress::new());
    let _watcher = Watcher::start(&job, *output)?;
    let (rebuilt, objects, segments) = repository.with_session(|session| work(&repository, session, &job))?;
    drop(_watcher);
    for (id, fault) in &rebuilt.skipped {
        logger::say(format_args!("not read: {}: {fault}", id.object_key()));
    }
    output.say(format_args!(
        "{} rows of {} objects in {} new segments",
        Grouped(rebuilt.rows),
        Grouped(objects),
        Grouped(segments)
    ));
    let skipped: Vec<Value> = rebuilt
        .skipped
        .iter()
        .map(|(id, fault)| json!({ "object": id.object_key(), "what": fault.to_string() }))
        .collect();
    output.event(
        "done",
        json!({ "rows": rebuilt.rows, "objects": objects, "segments": segments, "not_read": skipped }),
    );
    Ok(if rebuilt.skipped.is_empty() { Exit::Done } else { Exit::Partial })
}

fn work(
    repository: &Repository,
    session: &mut LogSession<'_>,
    job: &Progress,
) -> Result<(Rebuilt, u64, u64), Failure> {
    let client = &repository.opened.client;
    job.enter(Phase::Planning);
    let state = session.view().state.clone();
    let objects = committed_objects(client, &state)?;
    let writer = Writer {
        client,
        epoch: session.epoch(),
        node: state.holder.node,
        boot: host::boot()?,
        next: Cell::new(0),
        session: RefCell::new(session),
    };
    let (mut scratch, mut out) = (Sink::new(&writer, job), Sink::new(&writer, job));
    let fetch = ClientFetch::new(Arc::clone(client));
    let source = Source::new(fetch, &repository.keys, TableLimits::default());
    let mut source = source.ok_or_else(|| Failure::new("no memory for a compression context"))?;
    let given_up: Vec<BackupId> = state.abandoned.iter().chain(state.running.keys()).copied().collect();
    let settings = RebuildSettings {
        given_up: &given_up,
        location_blocks: repository.format.location_blocks,
        zstd_level: 1,
        segment_bytes_max: SEGMENT_BYTES_MAX,
        fan_in: REBUILD_FAN_IN,
    };
    job.items_total.set(objects.len() as u64);
    let rebuilt = rebuild(&mut source, &repository.keys, &objects, &settings, &mut scratch, &mut out)
        .map_err(Failure::new)?;
    job.enter(Phase::Finishing);
    let segments = out.metas;
    commit(&mut writer.session.borrow_mut(), &state, &segments)?;
    for id in &rebuilt.scratch {
        if let Err(fault) = client.delete(&id.segment_key()) {
            log::warn!("rebuild: scratch stays fault={fault}");
        }
    }
    Ok((rebuilt, objects.len() as u64, segments.len() as u64))
}

/// Objects that are there and that the log has committed, ascending.
fn committed_objects(client: &Client, state: &State) -> Result<Vec<ObjectId>, Failure> {
    let mut objects = Vec::new();
    client
        .list("obj/", "", &mut |key, _| {
            let id = key.strip_prefix("obj/").and_then(|name| name.parse::<ObjectId>().ok());
            objects.extend(id.filter(|id| state.live.contains(id)));
            true
        })
        .map_err(Failure::new)?;
    Ok(objects)
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
struct Writer<'a, 's> {
    client: &'a Client,
    epoch: Epoch,
    node: NodeId,
    boot: Boot,
    next: Cell<u32>,
    session: RefCell<&'a mut LogSession<'s>>,
}

struct Sink<'a, 's> {
    writer: &'a Writer<'a, 's>,
    job: &'a Progress,
    body: Vec<u8>,
    metas: Vec<SegmentMeta>,
}

impl<'a, 's> Sink<'a, 's> {
    fn new(writer: &'a Writer<'a, 's>, job: &'a Progress) -> Sink<'a, 's> {
        Sink { writer, job, body: Vec::new(), metas: Vec::new() }
    }
}

impl SegmentSink for Sink<'_, '_> {
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
        let kept = self.writer.session.borrow_mut().poll();
        kept.map(drop)
            .map_err(|fault| StoreFault::new(StoreFaultKind::Rejected, "LEASE", "", fault.to_string()))
    }
}
