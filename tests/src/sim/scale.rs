//! One backup of one large image by many nodes, in simulated time and without faults: how much faster each node makes it, and what
//! it asks of the coordinator.
//!
//! The nodes are the product's machines through the product's loop; what is modelled is what moves bytes:
//!
//! ```text
//!  Start -> open the volume -> objects one after the other through the node's uplink -> after so many objects or so much time
//!        -> segment through the uplink -> Progressed -> (uploads go on) -> Committed -> ... -> last Progressed -> Ended
//! ```
//!
//! | what | here |
//! |---|---|
//! | reading, packing | never slower than the uplink, but for a volume's opening and the first object of an assignment |
//! | uplink | a rate; what is sent waits for what was sent before |
//! | store, peers | a fixed time for each request and frame; objects take time and are not kept, the log is |
//! | rates | told to the coordinator when they have been measured, as nodes do |
//!
//! Does not: crash, lose, or drift (`world` does). Source: ours.

use std::collections::BTreeMap;
use std::sync::Arc;

use windlass_agent::backplane::message::Message;
use windlass_agent::drive::node::{Ports, turn};
use windlass_agent::format::record::{BackupVolume, PolicyChange, Record, Totals};
use windlass_agent::format::slot::PlainForTests;
use windlass_agent::gc::types::Order;
use windlass_agent::id::{Boot, Epoch, NodeId, ObjectId, Slot, VolumeId};
use windlass_agent::id::{KEY_END, Key};
use windlass_agent::log::call::{Answer, Call, perform};
use windlass_agent::log::state::State;
use windlass_agent::log::writer::WriterOptions;
use windlass_agent::node::{Config, Event, Node, Note, Ticket};
use windlass_agent::store::memory::MemoryStore;
use windlass_agent::table::plan::Bounds;
use windlass_agent::table::segment::SegmentMeta;
use windlass_agent::work::{Assignment, AssignmentId, Command, Found, MergeOrder, Present, Reply};
use windlass_agent::worker::backup::Progress;

use super::Verdict;
use super::options::{MS, SECOND};
use super::store::{identity, seed};

/// Bytes of a block: the default of policies.
pub const BLOCK_BYTES: u64 = 128 << 10;
/// Blocks of an object: 64 MiB.
const OBJECT_BLOCKS: u64 = 512;
/// Blocks between cuts.
const GRAIN_BLOCKS: u64 = 1024;
/// Bytes of rows for a block in a segment.
const ROW_BYTES: u64 = 32;
/// Objects after which a node reports, as a board sets it.
const REPORT_OBJECTS: usize = 16;
/// Time after which a node reports, as a board sets it, in nanoseconds.
const REPORT_NS: u64 = 5 * SECOND;
/// Uplink of a node, in bytes a second: a shared 1 Gbit/s line.
pub const RATE: u64 = 100 << 20;
/// Time in which a volume is opened, in nanoseconds.
const OPEN_NS: u64 = 500 * MS;
/// Bytes a second of one node's reading and packing: the first object of an assignment waits for it.
const PACK_RATE: u64 = 800 << 20;
/// A request to the store without much in it, in nanoseconds.
const STORE_NS: u64 = 40 * MS;
/// A frame, in nanoseconds.
const PEER_NS: u64 = MS;
/// Idle time after which the lease is let go.
const REST_NS: u64 = 60 * SECOND;
/// How long a command waits.
const REQUEST_NS: u64 = 600 * SECOND;
/// A backup that takes so many times what its uplinks need will not end.
const PATIENCE: f64 = 20.0;
/// What is allowed for beginning and end besides, in nanoseconds.
const PATIENCE_NS: u64 = 3600 * SECOND;

const DEVICE: &str = "lun0";
const POLICY: &str = "large";
const VOLUME: VolumeId = VolumeId(1);

/// Uplinks of a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rates {
    /// All have [`RATE`].
    Even,
    /// From half of it to one and a half times, by turns.
    Mixed,
}

impl Rates {
    fn of(self, node: usize) -> u64 {
        match self {
            Rates::Even => RATE,
            Rates::Mixed => RATE / 4 * (2 + (node as u64 * 3) % 5),
        }
    }
}

/// What came of a run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Row {
    /// Nodes.
    pub nodes: usize,
    /// Blocks of the image.
    pub blocks: u64,
    /// From the command to the recovery point, in simulated seconds.
    pub seconds: f64,
    /// What the uplinks need for the blocks alone, all busy all the time, over that.
    pub efficiency: f64,
    /// Assignments that were begun.
    pub assignments: u64,
    /// Frames to the coordinator and from it.
    pub frames: u64,
    /// Bytes of their bodies.
    pub frame_bytes: u64,
    /// Requests to the store for the log, of all nodes.
    pub log_calls: u64,
    /// Slots of the log.
    pub slots: u64,
    /// Objects stored.
    pub objects: u64,
    /// Assignments out, reports that wait and reports in flight at the coordinator, at most.
    pub waits_max: usize,
}

enum Happens {
    Event(Box<Event>),
    Wake,
    /// The volume is open and the first object packed.
    Opened(AssignmentId),
    /// An object of so many blocks is stored.
    Stored(AssignmentId, u64),
    /// A segment is stored.
    Indexed(AssignmentId),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Uploading,
    /// A segment is on its way, then the report of what came before it.
    Indexing {
        to: u64,
    },
    Asked,
}

struct Job {
    assignment: Assignment,
    /// Stored up to here, a block.
    at: u64,
    end: u64,
    reported: u64,
    objects: Vec<(ObjectId, u32)>,
    /// Those that the report under way names.
    named: Vec<(ObjectId, u32)>,
    phase: Phase,
    last_report_ns: u64,
}

/// What a node wants of the world, in order.
#[derive(Default)]
struct Wants {
    list: Vec<Want>,
}

enum Want {
    Send(NodeId, Epoch, Slot, Box<Message>),
    Call(Ticket, Call),
    Probe(u64, Vec<VolumeId>),
    Start(Assignment),
    Merge(AssignmentId),
    Stop(AssignmentId),
    Committed(AssignmentId),
    Reply(Reply),
    Note(Note),
}

impl Ports for Wants {
    fn send(&mut self, to: NodeId, epoch: Epoch, slot: Slot, message: &Message) {
        self.list.push(Want::Send(to, epoch, slot, Box::new(message.clone())));
    }
    fn call(&mut self, ticket: Ticket, call: Call) {
        self.list.push(Want::Call(ticket, call));
    }
    fn probe(&mut self, ask: u64, _policy: &str, volumes: Vec<VolumeId>, _state: Arc<State>) {
        self.list.push(Want::Probe(ask, volumes));
    }
    fn start(&mut self, assignment: Assignment, _state: Arc<State>) {
        self.list.push(Want::Start(assignment));
    }
    fn collect(&mut self, _: Order, _: Arc<State>, _: Slot) {}

    fn merge(&mut self, order: MergeOrder, _state: Arc<State>) {
        self.list.push(Want::Merge(order.id));
    }
    fn stop(&mut self, id: AssignmentId) {
        self.list.push(Want::Stop(id));
    }
    fn committed(&mut self, id: AssignmentId) {
        self.list.push(Want::Committed(id));
    }
    fn flush(&mut self, _id: AssignmentId) {}
    fn divide(&mut self, _: &str, _: u32) {}
    fn reply(&mut self, _client: u64, reply: Reply) {
        self.list.push(Want::Reply(reply));
    }
    fn note(&mut self, note: Note) {
        self.list.push(Want::Note(note));
    }
}

struct Seat {
    node: Node<PlainForTests>,
    rate: u64,
    /// When all that was sent is through.
    uplink_free_ns: u64,
    wake_at_ns: u64,
    job: Option<Job>,
    names: u32,
    measured: bool,
}

struct Cluster {
    now: u64,
    queue: BTreeMap<(u64, u64), (usize, Happens)>,
    sequence: u64,
    seats: Vec<Seat>,
    store: MemoryStore,
    found: Found,
    /// Segments stay in the log's table of contents.
    segments: bool,
    /// The command was given.
    begun_ns: Option<u64>,
    row: Row,
}

fn id_of(seat: usize) -> NodeId {
    NodeId(seat as u32 + 1)
}

fn present(seat: usize, rate: u64) -> Present {
    Present {
        boot: Boot(seat as u64 + 1),
        weight: 100,
        lanes: 8,
        rate,
        volumes: vec![DEVICE.to_owned()],
        ..Present::default()
    }
}

fn key(block: u64) -> Key {
    if block == 0 { (0, 0) } else { (1, block) }
}

fn time_of(bytes: u64, rate: u64) -> u64 {
    bytes.saturating_mul(SECOND) / rate
}

/// Runs one backup of `blocks` blocks on `nodes` nodes. `segments`: those of all reports stay in the log's state, as without any merge;
/// else they are sent, and as if merged at once.
///
/// # Errors
/// It does not end, or something goes wrong where nothing should.
pub fn run(nodes: usize, blocks: u64, rates: Rates, segments: bool) -> Verdict<Row> {
    let volume =
        BackupVolume { volume: VOLUME, fs_uuid: [7; 16], state: Some([1; 16]), ..BackupVolume::default() };
    let bytes = blocks * BLOCK_BYTES;
    let found = Found { volume, end: (1, blocks), grain: GRAIN_BLOCKS, items: 1, bytes, ..Found::default() };
    let seats = (0..nodes).map(|seat| start(seat, nodes, rates.of(seat))).collect();
    let mut cluster = Cluster {
        now: 0,
        queue: BTreeMap::new(),
        sequence: 0,
        seats,
        store: MemoryStore::default(),
        found,
        segments,
        begun_ns: None,
        row: Row { nodes, blocks, ..Row::default() },
    };
    let together: u64 = (0..nodes).map(|seat| rates.of(seat)).sum();
    let least_ns = time_of(BLOCK_BYTES, together) as f64 * blocks as f64;
    let until = PATIENCE_NS + (least_ns * PATIENCE) as u64;
    let done_ns = cluster.live(until)?;
    let begun_ns = cluster.begun_ns.unwrap_or_default();
    let mut row = cluster.row;
    row.seconds = (done_ns - begun_ns) as f64 / SECOND as f64;
    row.efficiency = (bytes as f64 / together as f64) / row.seconds;
    Ok(row)
}

fn start(seat: usize, nodes: usize, rate: u64) -> Seat {
    let (number, boot) = (seat as u32 + 1, seat as u64 + 1);
    let config = Config {
        identity: identity(number, boot),
        peers: (0..nodes).filter(|&peer| peer != seat).map(id_of).collect(),
        sealer: PlainForTests,
        options: WriterOptions::default(),
        present: present(seat, 0),
        rest_ns: REST_NS,
        merges: Bounds::default(),
        room: Default::default(),
        request_ns: REQUEST_NS,
        seed: seed(number, boot),
    };
    let node = Node::new(0, config);
    Seat { node, rate, uplink_free_ns: 0, wake_at_ns: u64::MAX, job: None, names: 0, measured: false }
}

impl Cluster {
    fn after(&mut self, pause_ns: u64, seat: usize, happens: Happens) {
        self.sequence += 1;
        self.queue.insert((self.now + pause_ns, self.sequence), (seat, happens));
    }

    fn event(&mut self, pause_ns: u64, seat: usize, event: Event) {
        self.after(pause_ns, seat, Happens::Event(Box::new(event)));
    }

    /// Runs until the point is there; returns when that was.
    fn live(&mut self, until: u64) -> Verdict<u64> {
        for seat in 0..self.seats.len() {
            self.turn(seat, None)?;
            for peer in (0..self.seats.len()).filter(|&peer| peer != seat) {
                self.event(1, seat, Event::Up(id_of(peer)));
            }
        }
        let volumes = vec![(VOLUME, DEVICE.to_owned())];
        let change = PolicyChange { name: POLICY.to_owned(), revision: 1, body: Vec::new(), volumes };
        let command = Command::Submit(vec![Record::PolicyChanged(change)]);
        self.event(SECOND, 0, Event::Local { client: 1, command });
        while let Some(((at, _), (seat, happens))) = self.queue.pop_first() {
            self.now = at;
            if at > until {
                return Err(format!("the backup does not end in {} s", until / SECOND));
            }
            match happens {
                Happens::Event(event) => self.turn(seat, Some(*event))?,
                Happens::Wake => {
                    if self.seats[seat].wake_at_ns <= at {
                        self.seats[seat].wake_at_ns = u64::MAX;
                        self.turn(seat, None)?;
                    }
                }
                Happens::Opened(id) => self.upload(seat, id),
                Happens::Stored(id, blocks) => self.stored(seat, id, blocks),
                Happens::Indexed(id) => self.indexed(seat, id)?,
            }
            let node = &self.seats[seat].node;
            if node.held_view().is_some_and(|view| !view.state.points.is_empty()) {
                self.row.slots = node.view().head.0;
                return Ok(self.now);
            }
        }
        Err("nothing happens any more".to_owned())
    }

    fn turn(&mut self, seat: usize, event: Option<Event>) -> Verdict<()> {
        let mut wants = Wants::default();
        turn(&mut self.seats[seat].node, &mut wants, self.now, self.now as i64, event);
        for want in wants.list {
            self.perform(seat, want)?;
        }
        let of = &mut self.seats[seat];
        if of.node.coordinates() {
            self.row.waits_max = self.row.waits_max.max(of.node.waits());
        }
        if let Some(due) = of.node.deadline().map(|due| due.max(self.now))
            && due < of.wake_at_ns
        {
            of.wake_at_ns = due;
            self.after(due - self.now, seat, Happens::Wake);
        }
        Ok(())
    }

    fn perform(&mut self, seat: usize, want: Want) -> Verdict<()> {
        match want {
            Want::Send(to, epoch, slot, message) => {
                let to = to.0 as usize - 1;
                if self.seats[seat].node.coordinates() || self.seats[to].node.coordinates() {
                    let mut body = Vec::new();
                    message.emit(&mut body);
                    self.row.frames += 1;
                    self.row.frame_bytes += body.len() as u64;
                }
                self.event(
                    PEER_NS,
                    to,
                    Event::Received { from: id_of(seat), epoch, slot, message: *message },
                );
            }
            Want::Call(ticket, call) => {
                self.row.log_calls += 1;
                let (answer, fault) = perform(&self.store, &call);
                if let (Answer::Fault(_), Some(fault)) = (&answer, fault)
                    && !matches!(call, Call::Create { .. })
                {
                    return Err(fault.to_string());
                }
                self.event(STORE_NS, seat, Event::Answered(ticket, answer));
            }
            Want::Probe(ask, volumes) => {
                let found = volumes.iter().map(|_| self.found).collect();
                self.event(OPEN_NS, seat, Event::Probed { ask, found, failed: Vec::new() });
            }
            Want::Start(assignment) => self.begin(seat, assignment),
            Want::Merge(id) => {
                // Idle nodes merge, and here none is idle before the end.
                let result = Err("merges are not modelled".to_owned());
                self.event(OPEN_NS, seat, Event::Merged { id, result });
            }
            Want::Stop(id) => self.end(seat, id),
            Want::Committed(id) => self.counted(seat, id),
            Want::Reply(Reply::Done(None)) => {
                self.begun_ns = Some(self.now);
                self.event(0, seat, Event::Local { client: 2, command: Command::Backup(POLICY.to_owned()) });
            }
            Want::Reply(Reply::Done(_) | Reply::Status(_)) => {}
            Want::Reply(Reply::Refused(why)) => return Err(why),
            Want::Note(Note::Lost(fault) | Note::Warning(fault)) => return Err(fault.to_string()),
            Want::Note(_) => {}
        }
        Ok(())
    }

    fn job(&mut self, seat: usize, id: AssignmentId) -> Option<&mut Job> {
        self.seats[seat].job.as_mut().filter(|job| job.assignment.id == id)
    }

    fn begin(&mut self, seat: usize, assignment: Assignment) {
        let blocks = self.row.blocks;
        let end = if assignment.to == KEY_END { blocks } else { assignment.to.1.min(blocks) };
        let at = assignment.from.1;
        let (objects, named, phase) = (Vec::new(), Vec::new(), Phase::Uploading);
        let job = Job { assignment, at, end, reported: at, objects, named, phase, last_report_ns: self.now };
        self.seats[seat].job = Some(job);
        self.row.assignments += 1;
        let first = time_of(OBJECT_BLOCKS * BLOCK_BYTES, PACK_RATE);
        self.after(OPEN_NS + first, seat, Happens::Opened(assignment.id));
    }

    fn end(&mut self, seat: usize, id: AssignmentId) {
        if self.job(seat, id).is_some() {
            self.seats[seat].job = None;
            self.event(MS, seat, Event::Ended { id, result: Ok(()) });
        }
    }

    /// Sends something; returns how long until the store has it.
    fn send(&mut self, seat: usize, bytes: u64) -> u64 {
        let of = &mut self.seats[seat];
        of.uplink_free_ns = of.uplink_free_ns.max(self.now) + time_of(bytes, of.rate);
        // The next one is on its way while the store's answer to this one is.
        of.uplink_free_ns - self.now
    }

    fn upload(&mut self, seat: usize, id: AssignmentId) {
        let Some(job) = self.job(seat, id) else { return };
        let blocks = OBJECT_BLOCKS.min(job.end - job.at);
        if blocks > 0 {
            let takes = self.send(seat, blocks * BLOCK_BYTES);
            self.after(takes, seat, Happens::Stored(id, blocks));
        } else {
            self.report(seat, id);
        }
    }

    fn stored(&mut self, seat: usize, id: AssignmentId, blocks: u64) {
        let name = self.name(seat, id);
        let Some(job) = self.job(seat, id) else { return };
        job.at += blocks;
        job.objects.push((name, (blocks * BLOCK_BYTES) as u32));
        let more = job.at < job.end;
        self.row.objects += 1;
        if more {
            self.upload(seat, id);
        }
        self.report(seat, id);
    }

    fn name(&mut self, seat: usize, id: AssignmentId) -> ObjectId {
        let of = &mut self.seats[seat];
        of.names += 1;
        ObjectId { epoch: id.epoch, node: id_of(seat), boot: Boot(seat as u64 + 1), count: of.names }
    }

    /// Begins a report when one is due and none is under way.
    fn report(&mut self, seat: usize, id: AssignmentId) {
        let now = self.now;
        let Some(job) = self.job(seat, id) else { return };
        let due = job.objects.len() >= REPORT_OBJECTS
            || now >= job.last_report_ns + REPORT_NS && job.at > job.reported
            || job.at == job.end;
        if job.phase != Phase::Uploading || !due {
            return;
        }
        job.phase = Phase::Indexing { to: job.at };
        job.named = std::mem::take(&mut job.objects);
        let rows = (job.at - job.reported) * ROW_BYTES;
        let takes = self.send(seat, rows) + STORE_NS;
        self.after(takes, seat, Happens::Indexed(id));
    }

    fn indexed(&mut self, seat: usize, id: AssignmentId) -> Verdict<()> {
        let (segment, segments_count) = (self.name(seat, id), self.segments);
        if !std::mem::replace(&mut self.seats[seat].measured, true) {
            let rate = self.seats[seat].rate;
            self.seats[seat].node.set_present(present(seat, rate));
        }
        let Some(job) = self.job(seat, id) else { return Ok(()) };
        let Phase::Indexing { to } = job.phase else { return Ok(()) };
        let last = to == job.end;
        let from =
            if job.reported == job.assignment.from.1 { job.assignment.from } else { key(job.reported) };
        let backup = job.assignment.backup;
        let segment = SegmentMeta {
            id: segment,
            volume: VOLUME,
            backup_min: backup,
            backup_max: backup,
            index_bytes: 1,
            first_inode: from.0,
            last_inode: 1,
            bytes: (to - job.reported) * ROW_BYTES,
            ..SegmentMeta::default()
        };
        let segments = if segments_count { vec![segment] } else { Vec::new() };
        let objects = std::mem::take(&mut job.named);
        let totals =
            Totals { objects: objects.len() as u64, segments: segments.len() as u64, ..Totals::default() };
        let to_key = if last { job.assignment.to } else { key(to) };
        let progress = Progress { from, to: to_key, last, objects, segments, totals, ..Progress::default() };
        job.phase = Phase::Asked;
        job.reported = to;
        self.turn(seat, Some(Event::Progressed { id, progress }))?;
        if last {
            // It does not wait for its last report.
            self.end(seat, id);
        }
        Ok(())
    }

    fn counted(&mut self, seat: usize, id: AssignmentId) {
        let now = self.now;
        let Some(job) = self.job(seat, id) else { return };
        (job.phase, job.last_report_ns) = (Phase::Uploading, now);
        self.report(seat, id);
    }
}
