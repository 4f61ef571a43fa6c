//! What carries out a node's actions in the simulated world, and the job that only stores and reports.
//!
//! ```text
//!  Start -> open (a while) -> read a piece (a while) -> PUT object, PUT segment -> Progressed -> Committed -> next piece ... -> last one -> Ended
//! ```
//!
//! Merges take a while, store what takes the place of the others, and say so; in seeds with data it is the product's own merge.
//!
//! A PUT that fails is repeated with pauses, as the client does, a number of times that the seed decides; then the job fails.
//! Does not: read, pack or seal; an object says instead which stretch of which contents it is of. Source: ours; `drive::job`.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use windlass_agent::format::record::{Commit, Stretch, Totals};
use windlass_agent::id::Key;
use windlass_agent::id::{Boot, Epoch, NodeId, ObjectId, VolumeId};
use windlass_agent::log::call::{Answer, Body, Call};
use windlass_agent::log::state::State;
use windlass_agent::node::{Event, Note, Ticket};
use windlass_agent::table::segment::SegmentMeta;
use windlass_agent::work::{Assignment, AssignmentId, Command, MergeOrder};
use windlass_agent::worker::backup::{Event as Worked, Progress};
use windlass_agent::worker::looks::{Look, Looks};
use windlass_hal::sim::prng::Prng;

use super::super::guards;
use super::super::options::{MS, Mutation, Options, SECOND};
use super::super::pieces::Made;
use super::super::store::OBJECTS;
use super::super::{Fact, Output};
use super::data::{Data, Machinery, Step};
use super::garbage::{Steps, Wish};
use super::plan::{GRAIN, Shared};
use super::{Client, Wire};

mod merges;
mod ports;

/// First pause before a PUT is repeated, in nanoseconds; it doubles.
const PAUSE_NS: u64 = 100 * MS;
/// Longest pause.
const PAUSE_MAX_NS: u64 = 20 * SECOND;

/// Objects, and segments, of a report at most, in seeds with rich reports.
const SEVERAL_MAX: u64 = 4;
/// One report in so many names faults there.
const FAULTY: u64 = 16;

/// What a call was for.
enum Purpose {
    Log(Ticket),
    /// Of a step of a garbage run.
    Step(u64),
    /// Something of the running job.
    Put {
        id: AssignmentId,
        key: String,
        body: Body,
        tries: u32,
    },
}

/// What happens at a time.
pub enum Timer {
    /// To the node.
    Event(Box<Event>),
    /// The job has opened its volume, or read a piece.
    Job(AssignmentId),
    /// The segments to merge are read.
    Merge(AssignmentId),
    /// A volume that is slow to open is open.
    Look,
    /// The machine has read some of its volume.
    Swept(AssignmentId),
    /// A step of a garbage run goes on.
    Step,
    /// A PUT is repeated.
    Again { id: AssignmentId, key: String, body: Body, tries: u32 },
}

#[derive(Debug, PartialEq, Eq)]
enum Phase {
    Opening,
    Reading {
        next: Key,
    },
    Storing {
        left: u32,
        next: Key,
    },
    /// The machine of `data` is at work, and no commit of its is under way.
    Packing,
    Asked {
        /// What was reported, as the log is to have it.
        report: Box<Commit>,
        next: Key,
    },
    /// `Ended` is under way.
    Ending,
}

/// The running job.
struct Job {
    assignment: Assignment,
    disk: usize,
    at: Key,
    phase: Phase,
    progress: Progress,
    /// The log as it was when the job began.
    state: Arc<State>,
    data: Option<Box<Data>>,
    /// When the machine is looked at again.
    look_ns: u64,
    /// It was told to send what it has packed, and has not said that it has.
    flushing: bool,
}

/// The running merge.
struct Merge {
    order: MergeOrder,
    state: Arc<State>,
    /// PUTs that have not been answered.
    left: usize,
    added: Vec<SegmentMeta>,
}

/// The ports of a node.
pub struct Host {
    pub node: usize,
    boot: u64,
    pub options: Options,
    pub prng: Prng,
    pub shared: Shared,
    pub now: u64,
    /// How late it is, in true nanoseconds since the run began.
    pub true_ns: u64,
    /// What is to be opened, one after the other, where that is slow.
    looks: Looks<Arc<State>>,
    opening: Option<Look<Arc<State>>>,
    pub outputs: VecDeque<Output<Wire>>,
    pub notes: Vec<Note>,
    timers: BTreeMap<(u64, u64), Timer>,
    timer: u64,
    calls: BTreeMap<u64, Purpose>,
    next_call: u64,
    names: u32,
    job: Option<Job>,
    /// What is so when the last report of a job counts, which does not wait for it.
    reported: BTreeMap<AssignmentId, Fact>,
    merge: Option<Merge>,
    machinery: Option<Machinery>,
    steps: Steps,
    pub clients: BTreeMap<u64, (Client, Command)>,
    /// Commands refused for now, by a coordinator that is busy or for want of one: given again when the work must be done.
    pub unanswered: Vec<(Client, Command)>,
    pub lease_end_ns: Option<u64>,
    /// Bytes that have left while jobs ran, and when that was last looked at: one a nanosecond.
    uploaded: (u64, u64),
    /// Orders of an older epoch must not lead to any of these.
    pub acted: u32,
    pub fenced: Option<usize>,
    pub fault: Option<String>,
}

impl Host {
    /// Whether policies have rules and guards.
    pub fn has_guards(&self) -> bool {
        guards::is_on(&self.options)
    }

    /// How long a lease lasts, in nanoseconds.
    pub fn lease_ns(&self) -> u64 {
        self.options.writer.timing.lease_ns
    }

    pub fn new(node: usize, boot: u64, options: Options, prng: Prng, shared: Shared, now: u64) -> Host {
        Host {
            node,
            boot,
            options,
            prng,
            steps: Steps::new(&shared, options.mutation, node, boot),
            shared,
            now,
            true_ns: 0,
            looks: Looks::default(),
            opening: None,
            outputs: VecDeque::new(),
            notes: Vec::new(),
            timers: BTreeMap::new(),
            timer: 0,
            calls: BTreeMap::new(),
            next_call: 0,
            names: 0,
            job: None,
            reported: BTreeMap::new(),
            merge: None,
            machinery: None,
            clients: BTreeMap::new(),
            unanswered: Vec::new(),
            lease_end_ns: None,
            uploaded: (0, now),
            acted: 0,
            fenced: None,
            fault: None,
        }
    }

    /// Whether a volume can be opened now.
    fn is_there(&self, disk: usize) -> bool {
        let (options, gone) = (&self.options, self.shared.borrow().gone == Some(disk));
        options.weather.is_there(options.seed, disk, gone, options.storm_ns, self.true_ns)
    }

    /// A worker that takes an order for the volume as it is now, though it has changed since its coordinator looked.
    pub fn take_carelessly(&mut self, order: &mut Assignment, device: Option<&str>) {
        let options = &self.options;
        let may = options.weather.careless && self.true_ns < options.storm_ns && self.prng.one_in(2);
        let ground = self.shared.borrow();
        if let Some(disk) = device.filter(|_| may).and_then(|device| ground.disk_of(device)) {
            order.volume = ground.disks[disk].found(order.volume.volume);
        }
    }

    /// Bytes that have left so far.
    pub fn uploaded(&mut self) -> u64 {
        let (bytes, since) = self.uploaded;
        let more = if self.job.is_some() { self.now.saturating_sub(since) } else { 0 };
        self.uploaded = (bytes + more, self.now);
        bytes + more
    }

    pub fn is_idle(&self) -> bool {
        self.job.is_none()
            && self.merge.is_none()
            && self.clients.is_empty()
            && self.unanswered.is_empty()
            && self.timers.is_empty()
            && self.steps.is_idle()
    }

    pub fn deadline(&self) -> Option<u64> {
        self.timers.keys().next().map(|&(at, _)| at)
    }

    /// Something whose time has come.
    pub fn next_timer(&mut self) -> Option<Timer> {
        let (&key, _) = self.timers.first_key_value().filter(|((at, _), _)| *at <= self.now)?;
        self.timers.remove(&key)
    }

    fn after(&mut self, pause_ns: u64, timer: Timer) {
        self.timer += 1;
        self.timers.insert((self.now + pause_ns, self.timer), timer);
    }

    fn soon(&mut self, most_ns: u64, timer: Timer) {
        let pause = 1 + self.prng.below(most_ns.max(1));
        self.after(pause, timer);
    }

    fn fail(&mut self, why: String) {
        self.fault.get_or_insert(why);
    }

    fn issue(&mut self, purpose: Purpose, call: Call) {
        self.next_call += 1;
        self.calls.insert(self.next_call, purpose);
        self.outputs.push_back(Output::Call { id: self.next_call, call });
    }

    fn put(&mut self, id: AssignmentId, key: String, body: Body, tries: u32) {
        let call = Call::Put { key: key.clone(), body: Arc::clone(&body) };
        self.issue(Purpose::Put { id, key, body, tries }, call);
    }

    /// The store answered; returns what the node is to be told.
    pub fn answered(&mut self, id: u64, answer: Answer) -> Option<Event> {
        match self.calls.remove(&id)? {
            Purpose::Log(ticket) => Some(Event::Answered(ticket, answer)),
            Purpose::Step(number) => {
                let wishes = self.steps.answered(self.now, number, answer);
                self.grant(wishes)
            }
            Purpose::Put { id, key, body, tries } if self.is_merging(id) => {
                self.merge_put(answer, id, key, body, tries)
            }
            Purpose::Put { id, key, body, tries } => {
                let job = self.job.as_mut().filter(|job| job.assignment.id == id)?;
                if job.phase == Phase::Ending {
                    return None;
                }
                if answer == Answer::Done {
                    if let Phase::Storing { left, next } = &mut job.phase {
                        *left -= 1;
                        let next = *next;
                        return if *left == 0 { self.report(next) } else { None };
                    }
                    let data = job.data.as_mut()?;
                    let object: ObjectId = key.get(OBJECTS.len()..)?.parse().ok()?;
                    let told = data.handle(self.now, Worked::Stored(object));
                    self.shared.borrow_mut().bodies.insert(key, body);
                    return told.and_then(|()| self.pump()).unwrap_or_else(|why| self.end_with(why));
                }
                if job.data.is_none() && !matches!(job.phase, Phase::Storing { .. }) {
                    return None;
                }
                let tries = tries + 1;
                if tries >= self.shared.borrow().tries {
                    self.end(Err("the store does not answer".to_owned()));
                } else {
                    let pause = (PAUSE_NS << tries.min(16)).min(PAUSE_MAX_NS);
                    self.soon(pause, Timer::Again { id, key, body, tries });
                }
                None
            }
        }
    }

    pub fn again(&mut self, id: AssignmentId, key: String, body: Body, tries: u32) {
        let storing = |job: &Job| job.assignment.id == id && job.phase != Phase::Ending;
        if self.is_merging(id) || self.job.as_ref().is_some_and(storing) {
            self.put(id, key, body, tries);
        }
    }

    /// A step of a garbage run goes on.
    pub fn step_moves(&mut self) -> Option<Event> {
        let machinery = self.machinery.get_or_insert_with(|| Machinery::new(&self.shared, self.node));
        let wishes = self.steps.moves(self.now, &machinery.names);
        self.grant(wishes)
    }

    /// Does what a step of a garbage run wants; what the node is to hear, if anything.
    fn grant(&mut self, wishes: Vec<Wish>) -> Option<Event> {
        let mut told = None;
        for wish in wishes {
            match wish {
                Wish::Call(number, call) => self.issue(Purpose::Step(number), call),
                Wish::Later => self.soon(2 * SECOND, Timer::Step),
                Wish::Tell(event) => told = Some(*event),
            }
        }
        told
    }

    fn open_next(&mut self) {
        self.opening = self.looks.take();
        if self.opening.is_some() {
            self.after(self.options.weather.slow_open_ns, Timer::Look);
        }
    }

    /// A volume that is slow to open is open.
    pub fn opened(&mut self) -> Option<Event> {
        let Look { ask, volumes, with, .. } = self.opening.take()?;
        let probed = self.looked(ask, volumes, &with);
        self.open_next();
        Some(probed)
    }

    /// What there is to say of volumes.
    fn looked(&mut self, ask: u64, volumes: Vec<VolumeId>, state: &State) -> Event {
        let (mut found, mut failed) = (Vec::new(), Vec::new());
        for volume in volumes {
            let Some(known) = state.volumes.get(&volume) else {
                self.fail(format!("volume {volume} is asked about, and the log was not read so far"));
                continue;
            };
            let ground = self.shared.borrow();
            let own = |disk: &usize| ground.disks[*disk].owners.contains(&self.node) && self.is_there(*disk);
            match ground.disk_of(&known.device).filter(own) {
                Some(disk) => found.push(ground.disks[disk].probed(volume)),
                None => failed.push((volume, "not here".to_owned())),
            }
        }
        Event::Probed { ask, found, failed }
    }

    fn end(&mut self, result: Result<(), String>) {
        let Some(job) = &mut self.job else { return };
        if job.phase == Phase::Ending {
            return;
        }
        job.phase = Phase::Ending;
        let id = job.assignment.id;
        job.data = None;
        self.shared.borrow_mut().reading.remove(&self.node);
        self.soon(SECOND, Timer::Event(Box::new(Event::Ended { id, result })));
    }

    fn end_with(&mut self, why: String) -> Option<Event> {
        self.end(Err(why));
        None
    }

    /// The node is about to be told that its job has ended.
    pub fn ended(&mut self) {
        self.job = None;
    }

    /// A job's time has come: its volume is open, or a piece is read.
    pub fn job_moves(&mut self, id: AssignmentId) -> Option<Event> {
        let is_there = self.job.as_ref().is_some_and(|job| self.is_there(job.disk));
        let job = self.job.as_mut().filter(|job| job.assignment.id == id)?;
        match job.phase {
            Phase::Opening => {
                let volume = job.assignment.volume;
                let ground = self.shared.borrow();
                let same = ground.disks[job.disk].found(volume.volume) == volume;
                drop(ground);
                if !is_there {
                    self.end(Err("no such device".to_owned()));
                } else if same {
                    self.shared.borrow_mut().reading.insert(self.node, job.disk);
                    if self.shared.borrow().data {
                        return self.begin_data();
                    }
                    self.read();
                } else {
                    self.end(Err("the volume has changed".to_owned()));
                }
                None
            }
            Phase::Reading { .. } if !is_there => self.end_with("no such device".to_owned()),
            Phase::Reading { next } => self.store(next),
            Phase::Packing | Phase::Asked { .. } => {
                job.look_ns = u64::MAX;
                self.pump().unwrap_or_else(|why| self.end_with(why))
            }
            Phase::Storing { .. } | Phase::Ending => None,
        }
    }

    /// The machine has read some of its volume.
    pub fn swept(&mut self, id: AssignmentId) -> Option<Event> {
        let job = self.job.as_mut().filter(|job| job.assignment.id == id)?;
        let told = job.data.as_mut()?.swept(self.now);
        told.and_then(|()| self.pump()).unwrap_or_else(|why| self.end_with(why))
    }

    fn begin_data(&mut self) -> Option<Event> {
        let machinery = self.machinery.get_or_insert_with(|| Machinery::new(&self.shared, self.node));
        let job = self.job.as_mut()?;
        let who = (NodeId(self.node as u32 + 1), Boot(self.boot));
        let data = Data::new(self.now, &job.assignment, who, &job.state, job.disk, &self.shared, machinery);
        job.data = data.map(Box::new);
        job.phase = Phase::Packing;
        self.pump().unwrap_or_else(|why| self.end_with(why))
    }

    /// Does what the machine wants; the report that comes of it, if any.
    fn pump(&mut self) -> Result<Option<Event>, String> {
        let Some(job) = self.job.as_mut() else { return Ok(None) };
        let Some(data) = &mut job.data else { return Ok(None) };
        let (id, mut steps, mut event) = (job.assignment.id, Vec::new(), None);
        data.pump(self.now, &mut steps)?;
        let is_done = data.is_done();
        let flushed = job.flushing && !data.is_flushing();
        job.flushing &= !flushed;
        let look = data.deadline().map(|due| due.max(self.now + MS)).filter(|due| *due < job.look_ns);
        job.look_ns = look.unwrap_or(job.look_ns);
        if let Some(due) = look {
            self.after(due - self.now, Timer::Job(id));
        }
        if flushed {
            self.after(0, Timer::Event(Box::new(Event::Flushed { id })));
        }
        for step in steps {
            match step {
                Step::Put(key, body) => self.put(id, key, body, 0),
                Step::Commit(progress) => event = self.commit_data(progress),
                Step::Sweep => {
                    let read_ns = self.shared.borrow().read_ns;
                    self.soon(read_ns, Timer::Swept(id));
                }
            }
        }
        if is_done {
            self.end(Ok(()));
        }
        Ok(event)
    }

    fn commit_data(&mut self, progress: Progress) -> Option<Event> {
        let next = if progress.last { self.job.as_ref()?.assignment.to } else { progress.to };
        self.asked(&progress, next);
        Some(Event::Progressed { id: self.job.as_ref()?.assignment.id, progress })
    }

    /// The job has something to report: it waits for the answer, unless it is the last.
    fn asked(&mut self, progress: &Progress, next: Key) {
        let Some(job) = self.job.as_mut() else { return };
        let report = Box::new(Commit {
            backup: job.assignment.backup,
            objects: progress.objects.iter().map(|&(id, bytes)| (id, u64::from(bytes))).collect(),
            segments: progress.segments.clone(),
            removed: Vec::new(),
            progress: vec![Stretch { volume: job.assignment.volume.volume, from: job.at, to: next }],
            totals: progress.totals,
            newest_secs: progress.newest_secs,
        });
        job.phase = Phase::Asked { report, next };
        if next == job.assignment.to {
            let (id, fact) = (job.assignment.id, self.counts());
            self.reported.extend(fact.map(|fact| (id, fact)));
            self.goes_on();
        }
    }

    /// What the job's report says, taken as read.
    fn counts(&mut self) -> Option<Fact> {
        let job = self.job.as_mut()?;
        let Phase::Asked { report, next } = std::mem::replace(&mut job.phase, Phase::Opening) else {
            return None;
        };
        job.at = next;
        Some(Fact::Accepted { report })
    }

    /// The job's report is not waited for any more.
    fn goes_on(&mut self) {
        let Some(job) = self.job.as_mut() else { return };
        if let Some(data) = &mut job.data {
            job.phase = Phase::Packing;
            let (id, told) = (job.assignment.id, data.handle(self.now, Worked::Committed));
            match told {
                // It goes on by itself, outside of the node's own turn.
                Ok(()) => self.after(0, Timer::Job(id)),
                Err(why) => self.fail(why),
            }
        } else if job.at == job.assignment.to {
            self.end(Ok(()));
        } else {
            self.read();
        }
    }

    fn read(&mut self) {
        let Some(job) = &mut self.job else { return };
        let ground = self.shared.borrow();
        let units = GRAIN * (1 + self.prng.below(ground.piece_grains));
        let (next, last) = ground.disks[job.disk].after(job.at, units);
        let next = if last || next >= job.assignment.to { job.assignment.to } else { next };
        job.phase = Phase::Reading { next };
        let (id, read_ns) = (job.assignment.id, ground.read_ns);
        drop(ground);
        let pause = self.options.slow_uplink_ns + 1 + self.prng.below(read_ns.max(1));
        self.after(pause, Timer::Job(id));
    }

    /// How many of something that there is, if there is any: one, or more in seeds with rich reports.
    fn several(&mut self, some: bool) -> u64 {
        match some {
            true if self.shared.borrow().rich => 1 + self.prng.below(SEVERAL_MAX),
            some => some.into(),
        }
    }

    /// In seeds with rich reports, totals in all their parts, now and then with faults.
    fn more_to_tell(&mut self, progress: &mut Progress) {
        if !self.shared.borrow().rich {
            return;
        }
        let mut some = || self.prng.below(1 << 20);
        progress.totals = Totals {
            items: some(),
            items_changed: some(),
            items_deleted: some(),
            bytes_logical: some(),
            bytes_read: some(),
            bytes_reused: some(),
            bytes_stored: some(),
            objects: progress.objects.len() as u64,
            segments: progress.segments.len() as u64,
            faults: 0,
        };
        progress.totals.faults = if self.prng.one_in(FAULTY) { 1 + self.prng.below(3) } else { 0 };
        progress.newest_secs = self.prng.one_in(2).then(|| self.prng.below(1 << 31) as i64);
    }

    fn name(&mut self, epoch: Epoch) -> ObjectId {
        self.names += 1;
        ObjectId { epoch, node: NodeId(self.node as u32 + 1), boot: Boot(self.boot), count: self.names }
    }

    /// A piece is read: its object and its segment are stored, or there was nothing in it.
    fn store(&mut self, next: Key) -> Option<Event> {
        let job = self.job.as_ref()?;
        let (assignment, from) = (job.assignment, job.at);
        let volume = assignment.volume.volume;
        let version = self.shared.borrow().disks[job.disk].version;
        let mut progress = Progress { from, to: next, last: next == assignment.to, ..Progress::default() };
        let mut puts = Vec::new();
        let (objects, segments) = (!self.prng.one_in(6), self.prng.one_in(2));
        let (objects, segments) = (self.several(objects), self.several(segments));
        for _ in 0..objects {
            let id = self.name(assignment.id.epoch);
            let body = Made { volume, from, to: next, version }.emit();
            progress.objects.push((id, body.len() as u32));
            puts.push((id.object_key(), body));
        }
        for _ in 0..segments {
            let id = self.name(assignment.id.epoch);
            let body = id.to_bytes().to_vec();
            progress.segments.push(SegmentMeta {
                id,
                volume,
                backup_min: assignment.backup,
                backup_max: assignment.backup,
                index_bytes: 1,
                first_inode: from.0,
                last_inode: next.0.max(from.0),
                bytes: 4096,
                ..SegmentMeta::default()
            });
            puts.push((id.segment_key(), body));
        }
        let job = self.job.as_mut()?;
        job.progress = progress;
        job.phase = Phase::Storing { left: puts.len() as u32, next };
        let none = puts.is_empty();
        for (key, body) in puts {
            self.put(assignment.id, key, body.into(), 0);
        }
        let early = self.options.mutation == Mutation::ReportBeforeStored;
        if none || early { self.report(next) } else { None }
    }

    fn report(&mut self, next: Key) -> Option<Event> {
        let job = self.job.as_mut()?;
        let (id, mut progress) = (job.assignment.id, std::mem::take(&mut job.progress));
        progress.totals = Totals { items: 1, objects: progress.objects.len() as u64, ..Totals::default() };
        self.more_to_tell(&mut progress);
        self.asked(&progress, next);
        Some(Event::Progressed { id, progress })
    }
}
