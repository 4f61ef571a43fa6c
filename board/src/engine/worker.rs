//! Threads that touch volumes: one runs the node's jobs, one looks at volumes for the coordinator. Neither
//! ever delays the reactor: a sweep waits for the device, and the lease must not wait for a sweep. The
//! presence sweep of the store has a thread of its own for as long as it takes: neither the end of a job, nor
//! a stop, nor the next job waits for it.
//!
//! ```text
//!  reactor -- Start --> job thread: device + volume --> drive::job --> objects --> uplink threads
//!        `-- Merge --> job thread: segments --> drive::merge --> segments
//!     ^  `-- Committed, Stop --^        |
//!     `----- Progressed, Ended ---------+
//! ```
//!
//! Invariants: one job at a time; buffers have their place once, from the profile's budget; names of objects
//! are counted on from job to job. Source: `agent/doc/architecture.md`, Threads.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, TryRecvError, channel, sync_channel};
use std::thread::JoinHandle;

use windlass_agent::drive::collect::Collector;
use windlass_agent::drive::job::{self, Assigned, Done, Machinery, Packing};
use windlass_agent::drive::merge::Merger;
use windlass_agent::drive::volume::CommitLog;
use windlass_agent::format::record::{BackupVolume, Record};
use windlass_agent::gc::types::Order;
use windlass_agent::id::{BackupId, Boot, Epoch, Key, Lin, NodeId, Slot, VolumeId};
use windlass_agent::log::fault::LogFault;
use windlass_agent::log::state::State;
use windlass_agent::node::Event;
use windlass_agent::pack::link::LinkRate;
use windlass_agent::pack::object::NameCounter;
use windlass_agent::policy::Policy;
use windlass_agent::progress::Progress as Shown;
use windlass_agent::store::retry::Client;
use windlass_agent::store::uplink::{Uplink, UplinkSettings};
use windlass_agent::table::lost::LostRows;
use windlass_agent::table::read::TableReader;
use windlass_agent::table::source::TableLimits;
use windlass_agent::work::{Assignment, AssignmentId, Command, MergeOrder};
use windlass_agent::worker::backup::{ItemTrouble, Progress, Totals};
use windlass_agent::worker::base::{Earlier, PointRows};
use windlass_agent::worker::density;
use windlass_agent::worker::looks::{Look, Looks};
use windlass_hal::buf::Pool;
use windlass_hal::volume::verify::Verified;

use super::damage::Found;
use super::limits::StoreLimits;
use super::post::{JobWaker, Letter, Post, Stretch};
use super::settings::{Settings as EngineSettings, Target};
use super::volumes::{Opened, Volumes};
use super::{compare, damage};
use crate::engine::machinery::{HostReactor, refuse_written};
use crate::engine::repository::Repository;
use crate::failure::Failure;

/// Client of commands whose answer nobody waits for: those of the control socket count from 1.
const NOBODY: u64 = u64::MAX;

/// What both threads need.
#[derive(Clone)]
pub struct Work {
    /// Where backups go.
    pub target: Target,
    /// What may be opened.
    pub volumes: Arc<dyn Volumes>,
    /// Sizes and times.
    pub settings: EngineSettings,
    /// Of the traffic with the store.
    pub limits: Arc<StoreLimits>,
    /// This node and this start of it: in the names of objects.
    pub author: (NodeId, Boot),
    /// Frame buffers and pieces of objects, of the settings' budget.
    pub pools: (Pool, Pool),
    /// Whether there are nodes to split volumes with.
    pub has_peers: bool,
    /// What jobs look after beside their stretches: what the store lists, what the kernel says of a volume,
    /// rows that were lost. `None` when whoever the node belongs to does.
    pub upkeep: Option<Arc<Repository>>,
    /// Hears often what all jobs of a backup have done so far.
    pub watch: Arc<dyn Fn(&Totals) + Send + Sync>,
}

/// The reactor's end.
pub struct Worker {
    jobs: Sender<(Task, Arc<State>)>,
    looks: Sender<Look<Arc<State>>>,
    steps: Sender<(Order, Arc<State>, Slot)>,
    acks: SyncSender<()>,
    stop: Arc<AtomicBool>,
    /// Ends the step of a garbage run.
    leave: Arc<AtomicBool>,
    flush: Arc<AtomicBool>,
    waker: JobWaker,
    threads: [JoinHandle<()>; 3],
}

/// What the job thread does.
enum Task {
    Stretch(Assignment),
    Merge(MergeOrder),
}

impl Worker {
    /// Makes pools and threads.
    pub fn start(work: Work, post: &Post) -> Result<Worker, Failure> {
        let (jobs, to_do) = channel();
        let (looks, to_look) = channel();
        let (steps, to_collect) = channel();
        let leave = Arc::new(AtomicBool::new(false));
        // A job has one commit out at most.
        let (acks, acked) = sync_channel(1);
        let (stop, flush) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let waker = JobWaker::default();
        let looker = Looker { work: work.clone(), post: post.clone() };
        let (target, author) = (work.target.clone(), work.author);
        let runner = Runner::new(work, post.clone(), acked, (&stop, &flush), &waker)?;
        let collector = Collector {
            client: target.client,
            keys: target.keys,
            names: runner.merger.names.clone(),
            author,
            row_blocks: target.row_blocks,
        };
        let collects = (post.clone(), Arc::clone(&leave));
        let spawn = |name: &str, body: Box<dyn FnOnce() + Send>| {
            let thread = std::thread::Builder::new().name(name.to_owned());
            thread.spawn(body).map_err(|error| Failure::at("cannot start a thread", error))
        };
        let threads = [
            spawn("job", Box::new(move || runner.serve(&to_do)))?,
            spawn("look", Box::new(move || looker.serve(&to_look)))?,
            spawn("garbage", Box::new(move || collect(&collector, &collects, &to_collect)))?,
        ];
        Ok(Worker { jobs, looks, steps, acks, stop, leave, flush, waker, threads })
    }

    /// Ends the threads, each after what it is at, and waits for them.
    pub fn end(self) {
        self.stop();
        self.leave.store(true, Ordering::Relaxed);
        let Worker { jobs, looks, steps, acks, threads, .. } = self;
        drop((jobs, looks, steps, acks));
        // One that panicked has ended the process already.
        threads.into_iter().for_each(|thread| drop(thread.join()));
    }

    /// Runs a job; the one before has ended.
    pub fn run(&self, assignment: Assignment, state: Arc<State>) {
        self.begin(Task::Stretch(assignment), state);
    }

    /// Merges segments; no job runs.
    pub fn merge(&self, order: MergeOrder, state: Arc<State>) {
        self.begin(Task::Merge(order), state);
    }

    /// Carries out a step of a garbage run, beside jobs, after those before it.
    pub fn collect(&self, order: Order, state: Arc<State>, seen: Slot) {
        let _ = self.steps.send((order, state, seen));
    }

    fn begin(&self, task: Task, state: Arc<State>) {
        self.stop.store(false, Ordering::Relaxed);
        self.flush.store(false, Ordering::Relaxed);
        // The threads live as long as this end does.
        let _ = self.jobs.send((task, state));
    }

    /// Ends the running job or merge soon.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
        self.waker.wake();
    }

    /// Has the running job send what it has packed.
    pub fn flush(&self) {
        self.flush.store(true, Ordering::Relaxed);
        self.waker.wake();
    }

    /// The job's commit counts.
    pub fn committed(&self) {
        // Full: the job has ended meanwhile and never took the one before; the next job empties it.
        let _ = self.acks.try_send(());
        self.waker.wake();
    }

    /// Looks at volumes.
    pub fn look(&self, ask: u64, policy: &str, volumes: Vec<VolumeId>, state: Arc<State>) {
        let _ = self.looks.send(Look { ask, policy: policy.to_owned(), volumes, with: state });
    }
}

/// The thread of garbage runs: one step after the other.
fn collect(
    collector: &Collector,
    (post, leave): &(Post, Arc<AtomicBool>),
    steps: &Receiver<(Order, Arc<State>, Slot)>,
) {
    while let Ok((order, state, seen)) = steps.recv() {
        let done = collector.run(&order, (&state, seen), leave);
        let result = done.map_err(|fault| fault.to_string());
        post.event(Event::Collected { number: order.number, result });
    }
}

/// Threads that upload what is in `pieces`.
fn start_uplink(
    client: &Arc<Client>,
    pieces: &Pool,
    threads: usize,
    wake: Arc<dyn Fn() + Send + Sync>,
) -> Result<Uplink, Failure> {
    // As many jobs as there can be objects, which are at least a piece each.
    let in_flight_max = pieces.count();
    let settings = UplinkSettings { in_flight_max, threads, ..UplinkSettings::default() };
    Uplink::start(Arc::clone(client), settings, wake)
        .map_err(|error| Failure::at("cannot start the uplink threads", error))
}

/// Rows of a volume that a backup looks at; `None` when there is no memory for a context of some hundred KiB.
fn point_rows(
    target: &Target,
    volume: VolumeId,
    earlier: Earlier,
    state: &State,
) -> Option<PointRows<Arc<Client>>> {
    let segments = state.segments.get(&volume).map(|list| list.as_slice()).unwrap_or_default();
    let fetch = Arc::clone(&target.client);
    let reader = TableReader::new(fetch, &target.keys, TableLimits::default(), segments)?;
    Some(PointRows::new(reader, volume, earlier, &state.damage).without(&state.garbage.condemned))
}

/// The policy of a state.
fn policy(state: &State, name: &str) -> Result<Policy, Failure> {
    let entry = state.policies.get(name).ok_or_else(|| Failure::at(name, "there is no such policy"))?;
    Policy::parse(&entry.body).map_err(|fault| Failure::at(name, fault))
}

/// What of a volume as this node opened it is not what the backup began with, and what to do.
fn differs(begun: &BackupVolume, here: &BackupVolume) -> String {
    let size = |of: &BackupVolume| of.basis.map(|basis| basis.size_bytes);
    let rules = |of: &BackupVolume| of.basis.map(|basis| basis.rules);
    let what = if begun.fs_uuid != here.fs_uuid {
        "another volume: its UUID differs".to_owned()
    } else if size(begun) != size(here) {
        let bytes = |of| size(of).unwrap_or(0);
        format!("another copy: it has {} bytes, not {}", bytes(here), bytes(begun))
    } else if rules(begun) != rules(here) {
        "read in another way: the reader in this node's board profile differs, or the policy was changed"
            .to_owned()
    } else {
        "not what the backup began with: it was written to since, or is a copy with another snapshot text or other bytes (a sample of \
         its blocks is compared)"
            .to_owned()
    };
    format!(
        "what this node has there is {what}; give all nodes that name volume {} the same frozen copy, or take it out of this node's board \
         profile",
        here.volume
    )
}

/// Refuses a policy whose blocks no buffer of this node takes: here and now, not after a job has failed.
fn check_blocks(policy: &Policy, block_bytes_max: u32) -> Result<(), Failure> {
    if policy.block_size <= u64::from(block_bytes_max) {
        return Ok(());
    }
    Err(Failure::at(
        &policy.name,
        format_args!(
            "blocks of {} KiB are larger than this node's buffers of {} KiB; raise memory.block_kib_max in its board profile",
            policy.block_size >> 10,
            block_bytes_max >> 10
        ),
    ))
}

struct Looker {
    work: Work,
    post: Post,
}

impl Looker {
    fn serve(&self, looks: &Receiver<Look<Arc<State>>>) {
        let work = &self.work;
        let mut waiting = Looks::default();
        loop {
            if waiting.is_empty() {
                let Ok(look) = looks.recv() else { return };
                waiting.add(look);
            }
            // What came while the last one was opened may make others useless.
            loop {
                match looks.try_recv() {
                    Ok(look) => waiting.add(look),
                    Err(TryRecvError::Empty) => break,
                    Err(TryRecvError::Disconnected) => return,
                }
            }
            let Some(look) = waiting.take() else { continue };
            let (mut found, mut failed) = (Vec::new(), Vec::new());
            for &volume in &look.volumes {
                let opened = policy(&look.with, &look.policy).and_then(|policy| {
                    check_blocks(&policy, work.settings.block_bytes_max)?;
                    let settings = work.settings.job(&work.target, &policy);
                    work.volumes.open(volume, &look.with, &policy, &settings, &[])
                });
                match opened {
                    Ok(mut opened) => {
                        // Without others nobody takes a share of it.
                        if work.has_peers {
                            look_through(volume, &mut opened);
                        }
                        found.push(opened.found);
                        work.volumes.close(opened);
                    }
                    Err(failure) => failed.push((volume, failure.to_string())),
                }
            }
            self.post.event(Event::Probed { ask: look.ask, found, failed });
        }
    }
}

/// Finds out where the bytes of a volume lie.
fn look_through(id: VolumeId, opened: &mut Opened) {
    let job = &mut opened.job;
    match density::look(&mut *job.volume, &mut *job.device) {
        Ok(marks) => opened.found.marks = marks,
        // It is cut by inode numbers; the job will meet the fault, and name it.
        Err(fault) => log::warn!("volume: not looked through volume={id} fault={fault}"),
    }
}

/// Where a job's commits go: to the coordinator, through the reactor. The last one is kept there until it
/// counts; with other nodes to gather commits of, the job does not wait for it.
struct Reports<'a> {
    id: AssignmentId,
    post: &'a Post,
    acked: &'a Receiver<()>,
    waits_for_last: bool,
    /// Whether the last one was begun, and is not waited for.
    last: bool,
    /// Why the volume is not trusted: somebody has put it to use.
    in_use: Option<String>,
    /// What the two readers of the volume say differently: told with the first report.
    differing: Vec<ItemTrouble>,
    /// The volume, its device, and the item that stands for it: asked about once more with the last report.
    lin: Lin,
    device: &'a Path,
}

impl CommitLog for Reports<'_> {
    fn begin(&mut self, mut progress: Progress) {
        progress.totals.faults += self.differing.len() as u64;
        progress.troubles.splice(..0, self.differing.drain(..));
        if progress.last
            && let Err(why) = refuse_written(self.device)
        {
            log::error!(
                "job: volume was put to use while it was read volume={} reason=\"{why}\"",
                self.lin.volume
            );
            progress.totals.faults += 1;
            progress.troubles.insert(0, ItemTrouble { lin: self.lin, what: why.to_string() });
            self.in_use = Some(why.to_string());
        }
        self.last = progress.last && !self.waits_for_last;
        self.post.event(Event::Progressed { id: self.id, progress });
    }

    fn take_done(&mut self) -> Option<Result<(), LogFault>> {
        if std::mem::take(&mut self.last) {
            return Some(Ok(()));
        }
        match self.acked.try_recv() {
            Ok(()) => Some(Ok(())),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => Some(Err(LogFault::NotReady)),
        }
    }

    fn flushed(&mut self) {
        self.post.event(Event::Flushed { id: self.id });
    }
}

struct Runner {
    work: Work,
    post: Post,
    acked: Receiver<()>,
    stop: Arc<AtomicBool>,
    flush: Arc<AtomicBool>,
    waker: JobWaker,
    /// With the pieces and the names of all jobs.
    merger: Merger,
    uplink: Uplink,
    rate: LinkRate,
    /// Of the job before, when it ended well and its last commit counts: what it stored may be referred to.
    packing: Option<(BackupId, Epoch, Packing)>,
    /// What the jobs before have done of a backup.
    earlier: (BackupId, Totals),
    sweep: Beside,
}

/// What is done beside the jobs, one at a time.
#[derive(Default)]
struct Beside(Option<JoinHandle<()>>);

impl Beside {
    /// Begins `work`, unless what was begun before is still at it.
    fn begin(&mut self, work: impl FnOnce() + Send + 'static) {
        if self.0.as_ref().is_none_or(JoinHandle::is_finished) {
            // Without a thread to give, the next backup does it.
            self.0 = std::thread::Builder::new().name("presence".to_owned()).spawn(work).ok();
        }
    }
}

impl Runner {
    fn new(
        work: Work,
        post: Post,
        acked: Receiver<()>,
        (stop, flush): (&Arc<AtomicBool>, &Arc<AtomicBool>),
        waker: &JobWaker,
    ) -> Result<Runner, Failure> {
        let (target, pieces) = (&work.target, &work.pools.1);
        let uplink = start_uplink(&target.client, pieces, work.settings.budget.uplinks, waker.as_fn())?;
        let merger = Merger {
            client: Arc::clone(&target.client),
            keys: target.keys.clone(),
            pieces: pieces.clone(),
            names: NameCounter::default(),
            author: work.author,
        };
        Ok(Runner {
            work,
            post,
            acked,
            stop: Arc::clone(stop),
            flush: Arc::clone(flush),
            waker: waker.clone(),
            merger,
            uplink,
            rate: LinkRate::default(),
            packing: None,
            earlier: (BackupId(0), Totals::default()),
            sweep: Beside::default(),
        })
    }

    fn serve(mut self, jobs: &Receiver<(Task, Arc<State>)>) {
        while let Ok((task, state)) = jobs.recv() {
            let assignment = match task {
                Task::Stretch(assignment) => assignment,
                Task::Merge(order) => {
                    // It takes the place of what jobs work on.
                    self.packing = None;
                    let merged = self.merger.run(order.id.epoch, &state, &order, &self.stop);
                    let (id, result) = (order.id, merged.map_err(|fault| fault.to_string()));
                    self.post.event(Event::Merged { id, result });
                    continue;
                }
            };
            // What the job before did not wait for.
            while self.acked.try_recv().is_ok() {}
            let result = self.run(&assignment, &state).map_err(|failure| failure.to_string());
            self.waker.set(None);
            self.post.event(Event::Ended { id: assignment.id, result });
        }
    }

    fn run(&mut self, assignment: &Assignment, state: &State) -> Result<(), Failure> {
        let volume = assignment.volume.volume;
        let running = state
            .running
            .get(&assignment.backup)
            .ok_or_else(|| Failure::new(format_args!("backup {} is not running", assignment.backup)))?;
        let policy = policy(state, &running.policy)?;
        let settings = self.work.settings.job(&self.work.target, &policy);
        check_blocks(&policy, self.work.settings.block_bytes_max)?;
        self.work.limits.set_policy(&policy);
        let pools = std::slice::from_ref(&self.work.pools.0);
        let mut opened = self.work.volumes.open(volume, state, &policy, &settings, pools)?;
        if opened.found.volume != assignment.volume {
            return Err(Failure::at(
                opened.device.display(),
                differs(&assignment.volume, &opened.found.volume),
            ));
        }
        let mut reactor = HostReactor::new()?;
        reactor.add(&*opened.job.device)?;
        self.waker.set(Some(reactor.waker()));
        let last = state.last_point_of(&policy.name, volume).map(|(_, last)| *last);
        let earlier = Earlier::of(state, &policy.name, volume, assignment.backup);
        let base = point_rows(&self.work.target, volume, earlier, state)
            .ok_or_else(|| Failure::new("no memory for a compression context"))?;
        let (node, boot) = self.work.author;
        let mut machinery = Machinery {
            frames: self.work.pools.0.clone(),
            pieces: self.work.pools.1.clone(),
            budget: self.work.settings.budget,
            names: self.merger.names.clone(),
            rate: self.rate.clone(),
            uplink: &self.uplink,
            wake: self.waker.as_fn(),
            reactor: &mut reactor,
            stop: &self.stop,
            flush: &self.flush,
        };
        let writer = (assignment.id.epoch, node, boot);
        let epoch = assignment.id.epoch;
        let same = |before: &(BackupId, Epoch, Packing)| (before.0, before.1) == (assignment.backup, epoch);
        let mut packing = match self.packing.take().filter(same) {
            Some((_, _, packing)) => packing,
            None => Packing::start(&self.work.target.keys, writer, &settings, &machinery)
                .map_err(|error| Failure::at("cannot start the pack lanes", error))?,
        };
        let proven = packing.proven();
        let stretch = Assigned { backup: assignment.backup, from: assignment.from, to: assignment.to, last };
        // Once for each backup of the volume: by whoever reads its beginning.
        let differing = if self.work.upkeep.is_some() && assignment.from == Key::default() {
            self.differing(volume, &opened, &policy)?
        } else {
            Vec::new()
        };
        let mut reports = Reports {
            id: assignment.id,
            post: &self.post,
            acked: &self.acked,
            waits_for_last: !self.work.has_peers,
            last: false,
            in_use: None,
            differing,
            lin: Lin { volume, inode: opened.job.volume.info().root },
            device: &opened.device,
        };
        // By whoever reads the beginning of a volume, when it is time: the log keeps when that was.
        if let Some(repository) = &self.work.upkeep
            && assignment.from == Key::default()
            && damage::is_sweep_due(state)
        {
            let (repository, state, post) = (Arc::clone(repository), state.clone(), self.post.clone());
            self.sweep.begin(move || sweep(&repository, &state, &post));
        }
        let earlier = match &self.earlier {
            (backup, totals) if *backup == assignment.backup => totals.clone(),
            _ => Totals::default(),
        };
        let watch = Arc::clone(&self.work.watch);
        let done = job::run(
            &mut opened.job,
            &stretch,
            &settings,
            &mut packing,
            &mut machinery,
            base,
            &mut reports,
            &mut |totals| watch(&earlier.plus(totals)),
        );
        let in_use = reports.in_use.take();
        let done = done.map_err(Failure::new)?;
        self.earlier = (assignment.backup, earlier.plus(&done.totals));
        self.work.volumes.close(opened);
        if let Some(repository) = &self.work.upkeep {
            self.look_after(repository, volume, state, &done)?;
        }
        let proven = packing.proven().since(&proven);
        if !self.work.has_peers {
            self.packing = Some((assignment.backup, epoch, packing));
        }
        self.post.send(Letter::Done(Box::new(Stretch { volume, done, proven, in_use })));
        Ok(())
    }

    /// Says what an agent's log is to have of a stretch.
    fn look_after(
        &self,
        repository: &Repository,
        volume: VolumeId,
        state: &State,
        done: &Done,
    ) -> Result<(), Failure> {
        if !done.lost.is_empty() {
            self.tell_lost(repository, state, &done.lost)?;
        }
        for trouble in &done.troubles {
            log::warn!(
                "job: an item is not whole volume={volume} inode={} what={}",
                trouble.lin.inode,
                trouble.what
            );
        }
        Ok(())
    }

    /// Tells the coordinator which segments could not be read: what they told of was stored again.
    fn tell_lost(&self, repository: &Repository, state: &State, lost: &[LostRows]) -> Result<(), Failure> {
        for rows in lost {
            log::error!("job: rows of the last point were stored anew: {rows}");
        }
        let found = Found::of_segments(lost);
        submit(&self.post, damage::records(repository, state, found, &Shown::new())?);
        Ok(())
    }

    /// What the kernel says differently of a sample of the volume, if the policy wants one: each item once.
    fn differing(&self, id: VolumeId, opened: &Opened, policy: &Policy) -> Result<Vec<ItemTrouble>, Failure> {
        let Opened { device, reader, iops, .. } = opened;
        let Some(found) = compare::sample(policy, device, iops.clone(), *reader, &self.stop)? else {
            return Ok(Vec::new());
        };
        let Verified { items, bytes, differences, .. } = found.sums;
        log::info!("verify: compared volume={id} items={items} bytes={bytes} differences={differences}");
        let mut troubles: Vec<ItemTrouble> = Vec::new();
        for (path, difference) in &found.differences {
            let what = compare::line(path, difference);
            log::error!("verify: differs volume={id} inode={} what=\"{what}\"", difference.inode);
            let lin = Lin { volume: id, inode: difference.inode };
            if troubles.last().is_none_or(|last| last.lin != lin) {
                troubles.push(ItemTrouble { lin, what });
            }
        }
        Ok(troubles)
    }
}

/// Sweeps, and tells the coordinator what was found, of the points that there are by then. What goes wrong is
/// left for the next one.
fn sweep(repository: &Repository, state: &State, post: &Post) {
    let progress = Shown::new();
    let found = damage::sweep(&repository.opened.client, state, &progress).map_err(Failure::new);
    let records = found.and_then(|found| {
        let state = repository.view()?.state;
        damage::sweep_records(repository, &state, found, &progress)
    });
    match records {
        Ok((news, records)) => {
            let lost = news.missing.len();
            log::info!(
                "presence: compared with what the store lists missing={lost} present={}",
                news.present.len()
            );
            submit(post, records);
        }
        Err(why) => log::warn!("presence: not compared with what the store lists why=\"{why}\""),
    }
}

fn submit(post: &Post, records: Vec<Record>) {
    for record in records {
        let command = Command::Submit(vec![record]);
        post.event(Event::Local { client: NOBODY, command });
    }
}

#[cfg(test)]
#[path = "worker_test.rs"]
mod tests;
