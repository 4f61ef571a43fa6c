//! A small node: the real log writer, and around it as little as makes every rule of the log matter.
//!
//! Each node stores objects and tells whom it believes to be the holder, until it is told that they count, or that they cannot
//! any more. The holder commits them in batches, with the records of backups around them; retires some; deletes what is retired when no pin
//! is older (G1); raises the orphan floor when all nodes have seen its epoch, and then deletes what no table names (G2).
//! Each batch has a pin of its own, by which the log tells whether it counts.
//!
//! Does not: read volumes or write segments. Source: ours; `agent/doc/commit-log.md`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use windlass_agent::format::record::{
    BackupEnd, BackupStart, BackupVolume, Commit, PolicyChange, Record, Stretch,
};
use windlass_agent::format::slot::{LogDigest, PlainForTests};
use windlass_agent::id::{BackupId, Boot, Epoch, NodeId, ObjectId, Slot, VolumeId};
use windlass_agent::log::call::{Answer, Call, CallId};
use windlass_agent::log::fault::LogFault;
use windlass_agent::log::replay::View;
use windlass_agent::log::state::State;
use windlass_agent::log::writer::{Action, Writer};
use windlass_hal::sim::prng::Prng;

use super::options::{Mutation, Options, SECOND};
use super::store::{OBJECTS, Shelf, identity};
use super::{Birth, Fact, Input, Output, Tenant, Verdict};

/// Objects that a node has under way at once.
const UPLOADS_MAX: usize = 4;
/// Objects in a batch at most.
const BATCH_OBJECTS_MAX: usize = 16;
/// Pins that are kept.
const PINS_KEPT: usize = 3;
/// Keys of a sweep for orphans.
const SWEEP_KEYS_MAX: usize = 1024;
/// Deletes that are issued at once.
const DELETES_MAX: usize = 8;
/// Bit of call ids that are not the writer's.
const OWN: u64 = 1 << 63;
/// Where the count of writers of this life stands in a call id.
const WRITER_SHIFT: u32 = 48;

/// What nodes tell each other.
#[derive(Clone, Copy, Debug)]
pub enum Note {
    /// I hold the lease.
    Holder {
        /// Under this epoch.
        epoch: Epoch,
    },
    /// I have seen this epoch: my next objects have it.
    Seen {
        /// Which.
        epoch: Epoch,
    },
    /// This object is in the store.
    Stored {
        /// Which.
        object: ObjectId,
    },
    /// This object is in the tables.
    Counted {
        /// Which.
        object: ObjectId,
    },
    /// This object cannot come into the tables any more.
    Gone {
        /// Which.
        object: ObjectId,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Upload {
    Failed,
    Putting,
    Stored,
}

/// What a call of one's own was for.
#[derive(Clone, Copy, Debug)]
enum Purpose {
    Put(ObjectId),
    Delete(ObjectId),
    Sweep,
}

#[derive(Clone, Debug, Default)]
struct Batch {
    marker: u64,
    objects: Vec<(usize, ObjectId)>,
}

/// The machine.
pub struct Committer {
    node: usize,
    boot: u64,
    options: Options,
    prng: Prng,
    writer: Writer<PlainForTests>,
    /// Writers of this life.
    writers: u64,
    outputs: VecDeque<Output<Note>>,
    calls: BTreeMap<u64, Purpose>,
    next_call: u64,
    names: u32,
    uploads: BTreeMap<ObjectId, Upload>,
    epoch: Epoch,
    holder: Option<usize>,
    // What only the holder has.
    stored: BTreeMap<ObjectId, usize>,
    batch: Option<Batch>,
    seen: Vec<Epoch>,
    committed: Vec<ObjectId>,
    deleted: BTreeSet<ObjectId>,
    swept: Epoch,
    /// Batches to commit right after this one.
    burst: u64,
    releasing: bool,
    finishing: bool,
    /// Batches committed since `finishing`.
    closed: bool,
}

fn writer(node: usize, boot: u64, options: &Options, prng: &mut Prng) -> Writer<PlainForTests> {
    let mut seed = [0; 32];
    for chunk in seed.chunks_mut(8) {
        chunk.copy_from_slice(&prng.next_u64().to_le_bytes()[..chunk.len()]);
    }
    let mut settings = options.writer;
    if options.mutation == Mutation::SkipWait && node % 2 == 1 {
        settings.timing.margin_ns = 0;
        settings.timing.drift_permille = 0;
        settings.timing.lease_ns /= 2;
    }
    Writer::new(identity(node as u32 + 1, boot), PlainForTests, settings, seed)
}

impl Tenant for Committer {
    type Message = Note;
    type Shared = ();
    const RECONNECTS: bool = false;

    fn shared(_options: &Options) {}

    fn died(_shared: &(), _node: usize) {}

    fn finish_bound_ns(options: &Options) -> u64 {
        40 * (options.work_ns + 12 * options.store_latency_ns) + 10 * SECOND
    }

    fn verify(_shared: &(), _shelf: &Shelf, _view: &View) -> Verdict<u64> {
        Ok(0)
    }

    fn unfinished(_view: &View) -> Vec<String> {
        Vec::new()
    }

    fn start(birth: Birth, _shared: &()) -> Committer {
        let Birth { node, boot, mut prng, options, finish, .. } = birth;
        let writer = writer(node, boot, &options, &mut prng);
        let mut committer = Committer {
            node,
            boot,
            options,
            prng,
            writer,
            writers: 0,
            outputs: VecDeque::new(),
            calls: BTreeMap::new(),
            next_call: OWN,
            names: 0,
            uploads: BTreeMap::new(),
            epoch: Epoch(0),
            holder: None,
            stored: BTreeMap::new(),
            batch: None,
            seen: vec![Epoch(0); options.nodes],
            committed: Vec::new(),
            deleted: BTreeSet::new(),
            swept: Epoch(0),
            burst: 0,
            releasing: false,
            finishing: finish,
            closed: false,
        };
        committer.take_actions();
        committer
    }

    fn handle(&mut self, now_ns: u64, input: Input<Note>) -> Verdict<()> {
        match input {
            Input::Answer { id, answer } if id & OWN > 0 => self.answered(id, answer),
            Input::Answer { id, answer } => {
                if id >> WRITER_SHIFT == self.writers {
                    let id = CallId(id & ((1 << WRITER_SHIFT) - 1));
                    self.writer.handle(now_ns, id, answer);
                }
            }
            Input::Frame { from, message } => self.told(from, message),
            Input::Peer { node, up } => {
                if up && self.is_holder() {
                    self.send(node, Note::Holder { epoch: self.epoch });
                }
            }
            Input::Wake => self.writer.wake(now_ns),
            Input::Work => self.work(now_ns)?,
            Input::Finish => self.finishing = true,
            Input::Urge(_) | Input::Change(_) => {}
        }
        self.take_actions();
        if self.burst > 0 && self.writer.is_ready() && self.is_holder() && !self.finishing {
            self.burst -= 1;
            self.commit(now_ns)?;
            self.take_actions();
        }
        Ok(())
    }

    fn next_output(&mut self) -> Option<Output<Note>> {
        self.outputs.pop_front()
    }

    fn deadline(&self) -> Option<u64> {
        self.writer.deadline()
    }

    fn lease_end_ns(&self) -> Option<u64> {
        // Once its yield is under way it acts on the lease no more.
        if self.releasing { None } else { self.writer.lease_end_ns() }
    }

    fn view(&self) -> &View {
        self.writer.view()
    }

    fn is_idle(&self) -> bool {
        self.finishing && self.uploads.is_empty() && self.batch.is_none() && !self.releasing
    }
}

impl Committer {
    fn send(&mut self, to: usize, message: Note) {
        self.outputs.push_back(Output::Send { to, message });
    }

    fn call(&mut self, purpose: Purpose, call: Call) {
        self.next_call += 1;
        self.calls.insert(self.next_call, purpose);
        self.outputs.push_back(Output::Call { id: self.next_call, call });
    }

    fn is_holder(&self) -> bool {
        self.holder == Some(self.node)
    }

    fn state(&self) -> &State {
        &self.writer.view().state
    }

    fn digest(&self) -> LogDigest {
        self.writer.view().digest
    }

    fn saw(&mut self, epoch: Epoch) {
        self.epoch = self.epoch.max(epoch);
    }

    fn take_actions(&mut self) {
        while let Some(action) = self.writer.next_action() {
            match action {
                Action::Call { id, call } => {
                    let id = id.0 | self.writers << WRITER_SHIFT;
                    self.outputs.push_back(Output::Call { id, call });
                }
                Action::Wait { .. } => {}
                Action::Ready { epoch, slot } => self.begun(epoch, slot),
                Action::Committed { slot } => self.counts(slot),
                Action::Released { slot } => {
                    self.outputs.push_back(Output::Fact(Fact::Released { slot, digest: self.digest() }));
                    self.outputs.push_back(Output::Exit);
                }
                Action::Lost(fault) => return self.lost(fault),
                Action::Warning(fault) => self.outputs.push_back(Output::Fact(Fact::Warned { fault })),
            }
        }
    }

    fn begun(&mut self, epoch: Epoch, slot: Slot) {
        self.outputs.push_back(Output::Fact(Fact::Ready { epoch, slot, digest: self.digest() }));
        self.saw(epoch);
        self.holder = Some(self.node);
        self.tell_all();
    }

    fn tell_all(&mut self) {
        let (own, epoch) = (self.node, self.writer.epoch());
        for peer in (0..self.options.nodes).filter(|&peer| peer != own) {
            self.send(peer, Note::Holder { epoch });
        }
    }

    fn lost(&mut self, fault: LogFault) {
        let marker = self.batch.take().map(|batch| batch.marker);
        self.outputs.push_back(Output::Fact(Fact::Lost { fault, marker }));
        if self.prng.one_in(2) {
            return self.outputs.push_back(Output::Exit);
        }
        self.step_down();
    }

    /// The process goes on with a new writer.
    fn step_down(&mut self) {
        self.batch = None;
        self.writers += 1;
        self.writer = writer(self.node, self.boot, &self.options, &mut self.prng);
        self.holder = None;
        self.releasing = false;
        self.stored.clear();
        self.committed.clear();
        self.take_actions();
    }

    /// A batch counts: tells whoever has objects in it, and deletes what may be deleted.
    fn counts(&mut self, slot: Slot) {
        let Some(batch) = self.batch.take() else { return };
        self.closed |= self.finishing;
        let digest = self.digest();
        self.outputs.push_back(Output::Fact(Fact::Committed { slot, digest, marker: batch.marker }));
        for (node, object) in batch.objects {
            self.stored.remove(&object);
            self.committed.push(object);
            self.verdict(node, Note::Counted { object });
        }
        if self.options.mutation != Mutation::DeleteWithoutRetire {
            let due: Vec<ObjectId> = self.state().deletable().collect();
            self.delete(&due);
        }
        let floor = self.state().orphan_floor;
        if floor > self.swept {
            self.swept = floor;
            self.call(Purpose::Sweep, Call::List { prefix: OBJECTS, max: SWEEP_KEYS_MAX });
        }
    }

    fn delete(&mut self, due: &[ObjectId]) {
        for object in due.iter().take(DELETES_MAX) {
            if self.deleted.insert(*object) {
                self.call(Purpose::Delete(*object), Call::Delete { key: object.object_key() });
            }
        }
    }

    fn verdict(&mut self, node: usize, note: Note) {
        if node == self.node { self.told(node, note) } else { self.send(node, note) }
    }

    fn answered(&mut self, id: u64, answer: Answer) {
        let Some(purpose) = self.calls.remove(&id) else { return };
        match (purpose, answer) {
            (Purpose::Put(object), answer) => {
                if let Some(upload) = self.uploads.get_mut(&object)
                    && *upload == Upload::Putting
                {
                    *upload = if answer == Answer::Done { Upload::Stored } else { Upload::Failed };
                }
            }
            (Purpose::Delete(object), Answer::Fault(_)) => drop(self.deleted.remove(&object)),
            (Purpose::Sweep, Answer::Keys(keys)) => self.sweep(&keys),
            // The next floor sweeps again.
            (Purpose::Sweep | Purpose::Delete(_), _) => {}
        }
    }

    /// G2: deletes what no table names, at or below the floor.
    fn sweep(&mut self, keys: &[String]) {
        if !self.is_holder() {
            return;
        }
        let all = self.options.mutation == Mutation::OrphansWithoutFloor;
        let state = self.state();
        let deletable: BTreeSet<ObjectId> = state.deletable().collect();
        let orphans: Vec<ObjectId> = keys
            .iter()
            .filter_map(|key| key.strip_prefix(OBJECTS)?.parse().ok())
            .filter(|id: &ObjectId| (id.epoch <= state.orphan_floor || all) && !state.live.contains(id))
            .filter(|id| !state.retired.contains_key(id) || deletable.contains(id))
            .collect();
        self.delete(&orphans);
    }

    fn told(&mut self, from: usize, note: Note) {
        match note {
            Note::Holder { epoch } if epoch >= self.epoch => {
                if from != self.node && self.writer.lease_end_ns().is_some() && epoch > self.writer.epoch() {
                    // As whole nodes do. A clock that is too slow keeps its lease in this node's eyes, and beats alone do not show that it is over.
                    self.step_down();
                }
                self.saw(epoch);
                self.holder = Some(from);
                self.send(from, Note::Seen { epoch });
            }
            Note::Holder { .. } => {}
            Note::Seen { epoch } => self.seen[from] = self.seen[from].max(epoch),
            Note::Stored { object } => {
                if self.is_holder() && self.stored.len() < 4 * BATCH_OBJECTS_MAX {
                    self.stored.insert(object, from);
                }
            }
            Note::Counted { object } => {
                if self.uploads.remove(&object).is_some() {
                    self.outputs.push_back(Output::Fact(Fact::Counted { object }));
                }
            }
            Note::Gone { object } => drop(self.uploads.remove(&object)),
        }
    }

    fn work(&mut self, now_ns: u64) -> Verdict<()> {
        if self.is_holder() && self.prng.one_in(4) {
            self.tell_all();
        }
        self.upload();
        if !self.writer.is_ready() || !self.is_holder() {
            return Ok(());
        }
        if !self.finishing && self.prng.one_in(32) {
            self.releasing = self.writer.release(now_ns, None);
            if self.releasing {
                return Ok(());
            }
        }
        let wanted = if self.finishing { !self.closed || !self.stored.is_empty() } else { true };
        self.burst = self.prng.below(self.options.burst + 1);
        if wanted { self.commit(now_ns) } else { Ok(()) }
    }

    /// Stores new objects and those that failed, and tells the holder of all that are stored.
    fn upload(&mut self) {
        let (own, options) = (self.node, self.options);
        if !self.finishing && self.uploads.len() < UPLOADS_MAX && self.epoch.0 > 0 && self.prng.one_in(2) {
            let (node, boot) = (NodeId(own as u32 + 1), Boot(self.boot));
            let object = ObjectId { epoch: self.epoch, node, boot, count: self.names };
            self.names += 1;
            self.uploads.insert(object, Upload::Failed);
        }
        let failed: Vec<ObjectId> =
            self.uploads.iter().filter(|(_, upload)| **upload == Upload::Failed).map(|(id, _)| *id).collect();
        for object in failed {
            let early = options.mutation == Mutation::CommitBeforeStored;
            self.uploads.insert(object, if early { Upload::Stored } else { Upload::Putting });
            let body = object.to_bytes().as_slice().into();
            self.call(Purpose::Put(object), Call::Put { key: object.object_key(), body });
        }
        let Some(holder) = self.holder else { return };
        let stored: Vec<ObjectId> =
            self.uploads.iter().filter(|(_, upload)| **upload == Upload::Stored).map(|(id, _)| *id).collect();
        for object in stored {
            self.verdict(holder, Note::Stored { object });
        }
    }

    fn commit(&mut self, now_ns: u64) -> Verdict<()> {
        let marker = self.prng.next_u64() | 1;
        let mut batch = Batch { marker, objects: Vec::new() };
        let mut records = Vec::new();
        let (backup, progress) = self.backup(&mut records);
        self.choose(&mut batch);
        let objects: Vec<(ObjectId, u64)> = batch.objects.iter().map(|(_, id)| (*id, 24)).collect();
        if !objects.is_empty() || !progress.is_empty() {
            records.push(Record::Commit(Commit { backup, objects, progress, ..Commit::default() }));
        }
        self.retire(&mut records);
        let others = (0..self.options.nodes).filter(|&peer| peer != self.node);
        let below = Epoch(self.epoch.0.saturating_sub(1));
        if others.clone().all(|peer| self.seen[peer] >= self.epoch) && below > self.state().orphan_floor {
            records.push(Record::OrphanFloor { epoch: below });
        } else if self.options.mutation == Mutation::OrphansWithoutFloor && self.prng.one_in(4) {
            self.call(Purpose::Sweep, Call::List { prefix: OBJECTS, max: SWEEP_KEYS_MAX });
        }
        let pins: Vec<u64> = self.state().pins.keys().copied().collect();
        let extra = pins.len().saturating_sub(PINS_KEPT);
        records
            .extend(pins.into_iter().take(extra + 1).filter(|_| extra > 0).map(|pin| Record::Unpin { pin }));
        records.push(Record::Pin { pin: marker, node: NodeId(self.node as u32 + 1) });
        match self.writer.commit(now_ns, records) {
            Ok(()) => self.batch = Some(batch),
            Err((LogFault::NotReady, _)) => {}
            Err((fault, _)) => return Err(format!("refused: {fault}")),
        }
        Ok(())
    }

    /// Records that keep a backup running; returns its number, 0 for none, and what of it this batch is to do.
    fn backup(&mut self, records: &mut Vec<Record>) -> (BackupId, Vec<Stretch>) {
        let volume = VolumeId(1);
        let policy = "all".to_owned();
        let state = &self.writer.view().state;
        if state.policies.is_empty() {
            let volumes = vec![(volume, "/dev/sim".to_owned())];
            let change = PolicyChange { name: policy, revision: 1, body: Vec::new(), volumes };
            records.push(Record::PolicyChanged(change));
            return Default::default();
        }
        match (state.running.iter().next(), state.next_backup()) {
            (Some((&backup, running)), _) => {
                let gaps = running.done.gaps(volume);
                let Some(&(from, to)) = gaps.get(self.prng.below(gaps.len() as u64) as usize) else {
                    records.push(Record::BackupEnded(BackupEnd { backup, wall_end_ns: 0 }));
                    return Default::default();
                };
                // All of the gap, or a piece somewhere in it.
                let (mut piece, skip, long) = ((from, to), self.prng.below(8), 1 + self.prng.below(8));
                let (start, end) =
                    ((from.0.saturating_add(skip), 0), (from.0.saturating_add(skip + long), 0));
                if !self.prng.one_in(4) && from <= start && end <= to {
                    piece = (start, end);
                }
                let (from, to) = piece;
                (backup, vec![Stretch { volume, from, to }])
            }
            (None, Some(backup)) => {
                let volumes = vec![BackupVolume { volume, ..BackupVolume::default() }];
                let missing = Vec::new();
                let start = BackupStart { backup, policy, volumes, wall_start_ns: 0, missing };
                records.push(Record::BackupBegun(start));
                (backup, Vec::new())
            }
            (None, None) => Default::default(),
        }
    }

    /// Objects for the batch; answers for those that need none.
    fn choose(&mut self, batch: &mut Batch) {
        let state = &self.writer.view().state;
        let (mut known, mut gone) = (Vec::new(), Vec::new());
        for (object, node) in &self.stored {
            if state.live.contains(object) {
                known.push((*node, *object));
            } else if state.retired.contains_key(object) || object.epoch <= state.orphan_floor {
                gone.push((*node, *object));
            } else if object.epoch <= self.writer.epoch() && batch.objects.len() < BATCH_OBJECTS_MAX {
                batch.objects.push((*node, *object));
            }
        }
        for (node, object) in known {
            self.stored.remove(&object);
            self.verdict(node, Note::Counted { object });
        }
        for (node, object) in gone {
            self.stored.remove(&object);
            self.verdict(node, Note::Gone { object });
        }
    }

    fn retire(&mut self, records: &mut Vec<Record>) {
        if self.committed.len() < 4 || !self.prng.one_in(3) {
            return;
        }
        let objects: Vec<ObjectId> = self.committed.drain(..2).collect();
        let objects: Vec<ObjectId> =
            objects.into_iter().filter(|object| self.state().live.contains(object)).collect();
        if objects.is_empty() {
            return;
        }
        if self.options.mutation == Mutation::DeleteWithoutRetire {
            self.delete(&objects);
        }
        records.push(Record::Retire { objects });
    }
}
