//! The job that really backs up: the product's machine over a small volume on the simulated disk; lanes and reads run inline.
//!
//! | action of the machine | here |
//! |---|---|
//! | sweep | after a while, then at once: reading takes time in which anything may happen |
//! | read, pack | at once, on the simulated disk and in a lane of this node |
//! | put, commit | by the host, through the simulated store and the node |
//!
//! Rows of the last point are read from what the store has acknowledged, without faults. At the end of a run every point is
//! read back through the product's tables and compared byte for byte (I8). Source: ours; `drive::volume`, `drive::job`.

use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::{Arc, Mutex};

use windlass_agent::format::seal::{Keys, Sealing, Secret};
use windlass_agent::format::tail::TailKind;
use windlass_agent::gc::mark;
use windlass_agent::id::{BackupId, Boot, Epoch, NodeId, ObjectId};
use windlass_agent::log::call::Body;
use windlass_agent::log::replay::View;
use windlass_agent::log::state::State;
use windlass_agent::pack::known::Known;
use windlass_agent::pack::lane::{Lane, Shared as Packing};
use windlass_agent::pack::link::LinkRate;
use windlass_agent::pack::object::{NameCounter, ObjectBuf, PIECE_BYTES, Placer};
use windlass_agent::pack::proof::Proofs;
use windlass_agent::pack::reading::Reading;
use windlass_agent::pack::{frame_buf_bytes, frame_bytes};
use windlass_agent::read::lookup::Lookup;
use windlass_agent::restore::browse::cat;
use windlass_agent::store::memory::MemoryStore;
use windlass_agent::store::retry::{Client, RetryPolicy};
use windlass_agent::store::{ByteRange, PutMode, Store, StoreFault, StoreFaultKind};
use windlass_agent::table::read::TableReader;
use windlass_agent::table::rebuild::{RebuildSettings, rebuild};
use windlass_agent::table::segment::{SegmentMeta, SegmentSink};
use windlass_agent::table::source::{Fetch, Source, TableFault, TableLimits};
use windlass_agent::work::{Assignment, MergeOrder};
use windlass_agent::worker::backup::{Action, Backup, BackupFault, Event, Progress, Task, Trust};
use windlass_agent::worker::base::{Earlier, PointRows};
use windlass_agent::worker::batch::Shape;
use windlass_agent::worker::merge;
use windlass_hal::block::{BlockDevice, Request, Wait};
use windlass_hal::buf::Pool;
use windlass_hal::sim::clock::SimClock;
use windlass_hal::sim::disk::{Disk, DiskConfig, Media, MediaConfig};
use windlass_hal::volume::image::Image;
use windlass_hal::volume::{Cursor, Volume, Window};

use super::super::options::SECOND;
use super::super::pieces::state_of;
use super::super::store::Shelf;
use super::super::{Tenant, Verdict};
use super::Member;
use super::losses::{nothing_stays_for_nothing, unreported};
use super::plan::{BLOCK_BYTES, ROW_BLOCKS, Shared};

const FRAMES: usize = 2;
const PIECES: usize = 24;
const OBJECT_BYTES: u32 = 1 << 20;
const SEGMENT_BYTES: u32 = 256 << 10;
const KNOWN_BLOCKS: usize = 256;

pub fn keys() -> Keys {
    Keys::new(&Secret::new([3; 32]), Sealing::Off)
}

fn shape() -> Shape {
    Shape { block_bytes: BLOCK_BYTES, row_blocks: ROW_BLOCKS, frame_bytes: frame_bytes(BLOCK_BYTES) }
}

/// Reads what the store has acknowledged.
pub struct Acknowledged(pub Shared);

impl Acknowledged {
    pub fn of(shared: &Shared) -> Acknowledged {
        Acknowledged(Rc::clone(shared))
    }
}

impl Fetch for Acknowledged {
    fn fetch(
        &mut self,
        id: &ObjectId,
        kind: TailKind,
        range: ByteRange,
        _: bool,
    ) -> Result<Vec<u8>, StoreFault> {
        let key = if kind == TailKind::Object { id.object_key() } else { id.segment_key() };
        let ground = self.0.borrow();
        let Some(body) = ground.bodies.get(&key) else {
            return Err(StoreFault::new(StoreFaultKind::NotFound, "GET", &key, "it was never acknowledged"));
        };
        let (offset, len) = range.resolve(body.len() as u64);
        Ok(body[offset as usize..(offset + len) as usize].to_vec())
    }
}

/// What a life of a node has for all its jobs.
pub struct Machinery {
    frames: Pool,
    pieces: Pool,
    pub names: NameCounter,
}

impl Machinery {
    pub fn new(shared: &Shared, node: usize) -> Machinery {
        let mut ground = shared.borrow_mut();
        let pools = || (Pool::new(FRAMES, frame_buf_bytes(BLOCK_BYTES)), Pool::new(PIECES, PIECE_BYTES));
        let (frames, pieces) = ground.pools.entry(node).or_insert_with(pools).clone();
        Machinery { frames, pieces, names: NameCounter::default() }
    }

    /// Open objects and known blocks of one job.
    fn packing(&self, epoch: Epoch, node: NodeId, boot: Boot) -> Arc<Packing> {
        let placer = Placer::new(self.pieces.clone(), OBJECT_BYTES, (epoch, node, boot), self.names.clone());
        Arc::new(Packing {
            keys: keys(),
            placer: Mutex::new(placer),
            known: Known::new(KNOWN_BLOCKS),
            level: None,
            proofs: Proofs::new(1, Arc::new(SimClock::new())),
            rate: LinkRate::default(),
        })
    }
}

/// What the host is to do for the machine.
pub enum Step {
    Put(String, Body),
    Commit(Progress),
    /// Come back when the volume has been read so far.
    Sweep,
}

/// A machine at work.
pub struct Data {
    machine: Backup<PointRows<Acknowledged>>,
    disk: Disk,
    volume: Image,
    lane: Lane,
    sweep: Option<(Cursor, Window)>,
}

fn open(bytes: &[u8]) -> Disk {
    let media = Media::new(MediaConfig {
        name: "vol".to_owned(),
        size_bytes: bytes.len() as u64,
        logical_block_bytes: 512,
        can_discard: false,
        seed: 1,
    });
    media.load(0, bytes);
    media.open(DiskConfig { write: false, queue_depth: 2, latency_steps_max: 3, seed: 1 })
}

impl Data {
    /// A machine for an assignment, over the volume as it is now. `None` when there is no memory.
    pub fn new(
        now_ns: u64,
        assignment: &Assignment,
        who: (NodeId, Boot),
        state: &State,
        disk: usize,
        shared: &Shared,
        machinery: &Machinery,
    ) -> Option<Data> {
        let mut device = open(shared.borrow().disks[disk].bytes());
        let volume = Image::open(&mut device);
        let id = assignment.volume.volume;
        let policy = state.running.get(&assignment.backup).map(|running| running.policy.as_str());
        let policy = policy.unwrap_or_default();
        let last = state.last_point_of(policy, id).map(|(_, last)| *last);
        let segments = state.segments.get(&id).map(|list| list.as_slice()).unwrap_or_default();
        let fetch = Acknowledged(Rc::clone(shared));
        let reader = TableReader::new(fetch, &keys(), TableLimits::default(), segments)?;
        let earlier = Earlier::of(state, policy, id, assignment.backup);
        let base = PointRows::new(reader, id, earlier, &state.damage).without(&state.garbage.condemned);
        let packing = machinery.packing(assignment.id.epoch, who.0, who.1);
        let task = Task {
            volume: id,
            backup: assignment.backup,
            shape: shape(),
            logical_block_bytes: device.geometry().logical_block_bytes,
            volume_block_bytes: volume.info().block_bytes,
            reading: Reading::of(
                &device.geometry(),
                FRAMES.min(device.queue_depth()),
                volume.info().used_bytes,
                volume.info().size_bytes,
            ),
            trust: Trust {
                same_volume: true,
                unwritten: assignment.volume.state.is_some()
                    && last.is_some_and(|last| last.state == assignment.volume.state),
                ..Trust::default()
            },
            newest_secs_max: i64::MAX,
            wall_secs: 0,
            from: assignment.from,
            to: assignment.to,
            flush_interval_ns: 2 * SECOND,
            commit_objects: 1,
            commit_pause_ns: 0,
            commit_interval_ns: 3 * SECOND,
        };
        let lane = Lane::new(Arc::clone(&packing), frame_bytes(BLOCK_BYTES));
        let frames = machinery.frames.clone();
        let machine = Backup::new(task, packing, frames, base, SEGMENT_BYTES, now_ns)?;
        Some(Data { machine, disk: device, volume, lane, sweep: None })
    }

    pub fn is_done(&self) -> bool {
        self.machine.is_done()
    }

    pub fn flush(&mut self) {
        self.machine.flush();
    }

    pub fn is_flushing(&self) -> bool {
        self.machine.is_flushing()
    }

    pub fn deadline(&self) -> Option<u64> {
        self.machine.deadline()
    }

    /// The time that a sweep takes is over.
    pub fn swept(&mut self, now_ns: u64) -> Result<(), String> {
        let Some((cursor, mut window)) = self.sweep.take() else { return Ok(()) };
        let swept =
            self.volume.sweep(&mut self.disk, cursor, &mut window).map_err(|fault| fault.to_string())?;
        self.handle(now_ns, Event::Swept(window, swept))
    }

    pub fn handle(&mut self, now_ns: u64, event: Event) -> Result<(), String> {
        self.machine.handle(now_ns, event).map_err(|fault| text(&fault))
    }

    /// Everything that the machine wants now.
    pub fn pump(&mut self, now_ns: u64, steps: &mut Vec<Step>) -> Result<(), String> {
        loop {
            match self.machine.next_action(now_ns).map_err(|fault| text(&fault))? {
                None => return Ok(()),
                Some(Action::Sweep(cursor, window)) => {
                    self.sweep = Some((cursor, window));
                    steps.push(Step::Sweep);
                }
                Some(Action::Read(request)) => self.read(now_ns, request)?,
                Some(Action::ReadContents(..)) => return Err("an image has no files to read".to_owned()),
                Some(Action::Pack(mut job)) => {
                    self.lane.run(&mut job);
                    self.handle(now_ns, Event::Packed(job))?;
                }
                Some(Action::PutObject(object)) => steps.push(put(object.id().object_key(), &object)),
                Some(Action::PutSegment(segment)) => steps.push(put(segment.id().segment_key(), &segment)),
                Some(Action::Commit(progress)) => steps.push(Step::Commit(progress)),
            }
        }
    }

    fn read(&mut self, now_ns: u64, request: Request) -> Result<(), String> {
        if self.disk.submit(request).is_err() {
            return Err("the machine exceeds the device's queue depth".to_owned());
        }
        let mut done = Vec::new();
        while self.disk.in_flight() > 0 {
            self.disk.complete(Wait::One, &mut |request| done.push(request));
        }
        done.into_iter().try_for_each(|request| self.handle(now_ns, Event::Read(request)))
    }
}

/// Segments in memory, one after the other.
struct Shelved {
    names: NameCounter,
    writer: (Epoch, NodeId, Boot),
    body: Vec<u8>,
    made: Vec<(SegmentMeta, Vec<u8>)>,
}

impl SegmentSink for Shelved {
    fn begin(&mut self) -> ObjectId {
        let (epoch, node, boot) = self.writer;
        ObjectId { epoch, node, boot, count: self.names.take() }
    }

    fn put(&mut self, bytes: &[u8]) {
        self.body.extend_from_slice(bytes);
    }

    fn end(&mut self, meta: &SegmentMeta) -> Result<(), StoreFault> {
        self.made.push((*meta, std::mem::take(&mut self.body)));
        Ok(())
    }
}

/// Merges segments; what takes their place is to be stored. Names are counted together with those of jobs.
pub fn merge(
    shared: &Shared,
    state: &State,
    order: &MergeOrder,
    writer: (Epoch, NodeId, Boot),
    machinery: &Machinery,
) -> Result<Vec<(SegmentMeta, Vec<u8>)>, String> {
    let mut sink = Shelved { names: machinery.names.clone(), writer, body: Vec::new(), made: Vec::new() };
    let fetch = Acknowledged(Rc::clone(shared));
    merge::run(fetch, &keys(), state, order, &mut sink, &|| false).map_err(|fault| fault.to_string())?;
    Ok(sink.made)
}

fn text(fault: &BackupFault<TableFault>) -> String {
    match fault {
        BackupFault::Device(fault) => fault.to_string(),
        BackupFault::Base(fault) => fault.to_string(),
        BackupFault::Spoilt(object, offset) => format!("a frame was spoilt: {object}, byte {offset}"),
    }
}

fn put(key: String, object: &ObjectBuf) -> Step {
    let body: Vec<u8> = object.with_parts(|parts| parts.concat());
    Step::Put(key, body.into())
}

/// Segments in a store, one after the other.
struct Stored<'a> {
    client: &'a Client,
    shelved: Shelved,
}

impl SegmentSink for Stored<'_> {
    fn begin(&mut self) -> ObjectId {
        self.shelved.begin()
    }

    fn put(&mut self, bytes: &[u8]) {
        self.shelved.put(bytes);
    }

    fn end(&mut self, meta: &SegmentMeta) -> Result<(), StoreFault> {
        self.client.put_unique(&meta.id.segment_key(), &[&self.shelved.body])?;
        self.shelved.end(meta)
    }
}

/// Tables made anew from the objects in the store.
fn rebuilt(client: &Arc<Client>, state: &State) -> Verdict<State> {
    let objects: Vec<ObjectId> = mark::objects(state).names().collect();
    let given_up: Vec<BackupId> = state.abandoned.iter().chain(state.running.keys()).copied().collect();
    let names = NameCounter::default();
    let writer = (Epoch(u64::MAX), NodeId(0), Boot(0));
    let shelved = || Shelved { names: names.clone(), writer, body: Vec::new(), made: Vec::new() };
    let sink = || Stored { client, shelved: shelved() };
    let (mut scratch, mut out) = (sink(), sink());
    let mut source = Source::new(Arc::clone(client), &keys(), TableLimits::default())
        .ok_or_else(|| "no memory".to_owned())?;
    let settings = RebuildSettings {
        given_up: &given_up,
        location_blocks: ROW_BLOCKS as u8,
        zstd_level: 1,
        segment_bytes_max: u64::from(SEGMENT_BYTES),
        fan_in: 16,
    };
    let done = rebuild(&mut source, &keys(), &objects, &settings, &mut scratch, &mut out)
        .map_err(|fault| format!("I8: the tables cannot be made anew: {fault}"))?;
    if let Some((id, why)) = done.skipped.first() {
        return Err(format!("I8: the tail of {id} cannot be read: {why}"));
    }
    let mut state = state.clone();
    state.segments.clear();
    for (meta, _) in out.shelved.made {
        Arc::make_mut(state.segments.entry(meta.volume).or_default()).push(meta);
    }
    Ok(state)
}

/// I8: reads every point back; where garbage is treated, also by tables that are made anew from objects.
///
/// # Errors
/// One is not what the volume was.
pub fn verify(shared: &Shared, shelf: &Shelf, view: &View) -> Verdict<u64> {
    let store = MemoryStore::default();
    let lost: BTreeSet<String> = shared.borrow().lost.iter().map(ObjectId::object_key).collect();
    for (key, body) in shelf.objects.iter().filter(|(key, _)| !lost.contains(&***key)) {
        let put = store.put(key, &[body], PutMode::Replace);
        put.map_err(|fault| format!("I8: {fault}"))?;
    }
    let client = Client::new(Arc::new(store), Arc::new(SimClock::new()), RetryPolicy::ONCE, 1);
    let client = Arc::new(client);
    let bytes = verify_points(shared, &client, &view.state)?;
    if view.state.garbage.settings.is_some() {
        let state = rebuilt(&client, &view.state)?;
        verify_points(shared, &client, &state).map_err(|why| format!("{why}, by tables made anew"))?;
        if Member::unfinished(view).is_empty() && shared.borrow().lost.is_empty() {
            nothing_stays_for_nothing(shared, &view.state)?;
        }
    }
    Ok(bytes)
}

fn verify_points(shared: &Shared, client: &Arc<Client>, of: &State) -> Verdict<u64> {
    let ground = shared.borrow();
    let unreported = !unreported(&ground, of).is_empty();
    let mut bytes = 0;
    for point in of.points.values() {
        for volume in &point.volumes {
            let device = of.volumes.get(&volume.volume).map_or("", |volume| volume.device.as_str());
            let Some(disk) = ground.disk_of(device) else { continue };
            let what = format!("I8: volume {} at point {}", volume.volume, point.backup);
            let segments = of.segments.get(&volume.volume).map(|list| list.as_slice());
            let fetch = Arc::clone(client);
            let reader =
                TableReader::new(fetch, &keys(), TableLimits::default(), segments.unwrap_or_default())
                    .ok_or_else(|| "no memory".to_owned())?;
            let mut lookup = Lookup::new(reader, point.backup);
            let root = lookup.root(volume.volume).map_err(|fault| format!("{what}: {fault}"))?;
            let (lin, item) = root.ok_or_else(|| format!("{what}: the tables do not have it"))?;
            let mut out = Vec::new();
            let read = cat(&mut lookup, client, &keys(), lin, &item, 0..u64::MAX, &mut out);
            match read {
                Ok(_) => {}
                // Named as damaged, or what is lost was not found yet.
                Err(_) if unreported || of.damage.points.contains(&point.backup) => continue,
                Err(fault) => return Err(format!("{what}: {fault}")),
            }
            let mut versions = ground.disks[disk].history.iter().enumerate();
            let fits =
                |version: usize| volume.state.is_none_or(|state| state == state_of(version as u64 + 1));
            if !versions.any(|(version, was)| fits(version) && *was == out) {
                return Err(format!("{what} is not what it was"));
            }
            bytes += out.len() as u64;
        }
    }
    Ok(bytes)
}
