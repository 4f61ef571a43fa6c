//! Nodes over a store in memory, a network that delivers, and jobs that only report: the protocol alone, without data.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use std::sync::Arc;

use super::*;
use crate::drive::node::{Ports, turn};
use crate::format::record::{BackupVolume, PolicyChange, Record, Totals};
use crate::format::slot::{Author, PlainForTests, Who};
use crate::id::Key;
use crate::id::{BackupId, Boot, ObjectId};
use crate::log::call::{Call, perform};
use crate::log::lease::Identity;
use crate::log::limits::RUNNING_MAX;
use crate::log::session::{Surroundings, open_read};
use crate::log::state::State;
use crate::log::writer::WriterOptions;
use crate::policy::retention::{Count, Retention};
use crate::policy::schedule::Schedule;
use crate::policy::{Policy, PolicyVolume, Reader};
use crate::store::StoreFaultKind;
use crate::store::memory::MemoryStore;
use crate::table::plan::Bounds;
use crate::table::segment::SegmentMeta;
use crate::work::{AssignmentId, Command, Found, Reply};
use crate::worker::backup::Progress;
use windlass_hal::sim::clock::SimClock;

const MS: u64 = 1_000_000;
const INODES: u64 = 4096;

/// What will happen, by (time, order): to which node's which start.
type Queue = Rc<RefCell<(BTreeMap<(u64, u64), (usize, u64, Event)>, u64)>>;

fn push(queue: &Queue, at: u64, node: usize, boot: u64, event: Event) {
    let mut queue = queue.borrow_mut();
    queue.1 += 1;
    let key = (at, queue.1);
    queue.0.insert(key, (node, boot, event));
}

struct Host {
    index: usize,
    boot: u64,
    now: u64,
    queue: Queue,
    store: Rc<MemoryStore>,
    /// Links that are cut.
    cut: Rc<RefCell<BTreeSet<(usize, usize)>>>,
    volumes: Vec<String>,
    /// The running job, how far it is, and whether it waits for its commit.
    job: Option<(Assignment, Key, bool)>,
    count: u32,
    step_ms: u64,
    piece: u64,
    replies: Vec<(u64, Reply)>,
    notes: Vec<String>,
    read: u64,
    /// Orders to flush.
    flushed: u32,
    /// It does none, and its job stands still.
    deaf: bool,
    /// Requests to the store.
    calls: u64,
    /// What the store answers to all of them.
    broken: Option<StoreFaultKind>,
}

impl Host {
    fn event(&self, after: u64, event: Event) {
        push(&self.queue, self.now + after, self.index, self.boot, event);
    }

    fn step(&mut self) {
        let Some((job, at, _)) = self.job else { return };
        if self.deaf {
            return;
        }
        let next = (at.0.max(1).saturating_add(self.piece).min(job.to.0), 0);
        let last = next == job.to || next.0 >= INODES;
        let next = if last { job.to } else { next };
        self.count += 1;
        self.read += self.piece;
        let object = ObjectId {
            epoch: job.id.epoch,
            node: NodeId(self.index as u32 + 1),
            boot: Boot(self.boot),
            count: self.count,
        };
        let segment = self.segment(job.volume.volume, (job.backup, job.backup), (at.0, next.0));
        let progress = Progress {
            objects: vec![(object, 4096)],
            segments: vec![segment],
            from: at,
            to: next,
            last,
            totals: Totals { items: self.piece, bytes_logical: self.piece, ..Totals::default() },
            ..Progress::default()
        };
        self.job = Some((job, next, true));
        self.event(self.step_ms * MS, Event::Progressed { id: job.id, progress });
    }
}

impl Host {
    fn segment(
        &mut self,
        volume: VolumeId,
        backups: (BackupId, BackupId),
        inodes: (u64, u64),
    ) -> SegmentMeta {
        self.count += 1;
        SegmentMeta {
            id: ObjectId {
                epoch: Epoch(1),
                node: NodeId(self.index as u32 + 1),
                boot: Boot(self.boot),
                count: self.count,
            },
            volume,
            backup_min: backups.0,
            backup_max: backups.1,
            index_bytes: 1,
            first_inode: inodes.0,
            last_inode: inodes.1,
            bytes: 4096,
            ..SegmentMeta::default()
        }
    }
}

impl Ports for Host {
    fn send(&mut self, to: NodeId, epoch: Epoch, slot: Slot, message: &Message) {
        let peer = to.0 as usize - 1;
        if !self.cut.borrow().contains(&(self.index, peer)) {
            let from = NodeId(self.index as u32 + 1);
            let event = Event::Received { from, epoch, slot, message: message.clone() };
            push(&self.queue, self.now + MS, peer, 0, event);
        }
    }
    fn call(&mut self, ticket: Ticket, call: Call) {
        self.calls += 1;
        let answer = match self.broken {
            Some(kind) => Answer::Fault(kind),
            None => perform(&*self.store, &call).0,
        };
        self.event(5 * MS, Event::Answered(ticket, answer));
    }
    fn probe(&mut self, ask: u64, _policy: &str, volumes: Vec<VolumeId>, state: Arc<State>) {
        let (mut found, mut failed) = (Vec::new(), Vec::new());
        for volume in volumes {
            if self.volumes.contains(&state.volumes[&volume].device) {
                let volume = BackupVolume {
                    volume,
                    fs_uuid: [1; 16],
                    state: Some([2; 16]),
                    ..BackupVolume::default()
                };
                found.push(Found {
                    volume,
                    end: (INODES, 0),
                    grain: 64,
                    items: INODES,
                    bytes: INODES,
                    ..Found::default()
                });
            } else {
                failed.push((volume, "not here".to_owned()));
            }
        }
        self.event(10 * MS, Event::Probed { ask, found, failed });
    }
    fn start(&mut self, assignment: Assignment, state: Arc<State>) {
        assert!(self.job.is_none(), "one job at a time");
        assert!(state.running.contains_key(&assignment.backup), "the log was not read far enough");
        self.job = Some((assignment, assignment.from, false));
        self.step();
    }
    fn merge(&mut self, order: MergeOrder, state: Arc<State>) {
        assert!(self.job.is_none(), "one job at a time");
        let of = |id: &ObjectId| {
            state.segments[&order.volume].iter().find(|s| s.id == *id).expect("it is in the tables")
        };
        let group: Vec<&SegmentMeta> = order.segments.iter().map(of).collect();
        let backups = (group.iter().map(|s| s.backup_min).min(), group.iter().map(|s| s.backup_max).max());
        let inodes = (group.iter().map(|s| s.first_inode).min(), group.iter().map(|s| s.last_inode).max());
        let backups = (backups.0.unwrap_or_default(), backups.1.unwrap_or_default());
        let inodes = (inodes.0.unwrap_or_default(), inodes.1.unwrap_or_default());
        let added = self.segment(order.volume, backups, inodes);
        self.event(self.step_ms * MS, Event::Merged { id: order.id, result: Ok(vec![added]) });
    }
    fn stop(&mut self, id: AssignmentId) {
        self.job = None;
        self.event(MS, Event::Ended { id, result: Ok(()) });
    }
    fn committed(&mut self, id: AssignmentId) {
        let Some((job, at, true)) = self.job else { panic!("nothing to commit") };
        assert_eq!(job.id, id);
        if at == job.to {
            self.job = None;
            self.event(MS, Event::Ended { id, result: Ok(()) });
        } else {
            self.step();
        }
    }
    fn flush(&mut self, id: AssignmentId) {
        self.flushed += 1;
        if !self.deaf {
            self.event(MS, Event::Flushed { id });
        }
    }
    fn reply(&mut self, client: u64, reply: Reply) {
        self.replies.push((client, reply));
    }
    fn note(&mut self, note: Note) {
        self.notes.push(format!("{:>7} ms node {}: {note}", self.now / MS, self.index + 1));
    }
}

struct Cluster {
    nodes: Vec<Option<(Node<PlainForTests>, Host)>>,
    volumes: Vec<Vec<String>>,
    queue: Queue,
    store: Rc<MemoryStore>,
    cut: Rc<RefCell<BTreeSet<(usize, usize)>>>,
    now: u64,
    boots: u64,
    step_ms: u64,
    /// Inodes between reports.
    piece: u64,
    /// How far all wall clocks are ahead, in nanoseconds.
    ahead_ns: i64,
    /// The same of one node more.
    node_ahead_ns: BTreeMap<usize, i64>,
    /// The store says what time it is, with each event.
    dated: bool,
}

impl Cluster {
    fn new(volumes: &[&[&str]]) -> Cluster {
        let volumes: Vec<Vec<String>> =
            volumes.iter().map(|list| list.iter().map(|v| (*v).to_owned()).collect()).collect();
        let mut cluster = Cluster {
            nodes: volumes.iter().map(|_| None).collect(),
            volumes,
            queue: Queue::default(),
            store: Rc::new(MemoryStore::default()),
            cut: Rc::default(),
            now: 0,
            boots: 0,
            step_ms: 300,
            piece: 64,
            ahead_ns: 0,
            node_ahead_ns: BTreeMap::new(),
            dated: false,
        };
        (0..cluster.nodes.len()).for_each(|index| cluster.boot(index));
        cluster
    }

    fn boot(&mut self, index: usize) {
        self.boots += 1;
        let all = (0..self.nodes.len()).map(|i| NodeId(i as u32 + 1));
        let me = Author { node: NodeId(index as u32 + 1), boot: Boot(self.boots) };
        let config = Config {
            identity: Identity { cluster: [9; 16], me, who: Who::default() },
            peers: all.filter(|node| *node != me.node).collect(),
            sealer: PlainForTests,
            options: WriterOptions::default(),
            present: Present {
                boot: me.boot,
                weight: 100,
                lanes: 2,
                volumes: self.volumes[index].clone(),
                ..Present::default()
            },
            rest_ns: 60_000 * MS,
            merges: Bounds { run: 4, ..Bounds::default() },
            room: Default::default(),
            request_ns: 120_000 * MS,
            seed: [self.boots as u8; 32],
        };
        let host = Host {
            index,
            boot: self.boots,
            now: self.now,
            queue: Rc::clone(&self.queue),
            store: Rc::clone(&self.store),
            cut: Rc::clone(&self.cut),
            volumes: self.volumes[index].clone(),
            job: None,
            count: 0,
            step_ms: self.step_ms,
            piece: self.piece,
            replies: Vec::new(),
            notes: Vec::new(),
            read: 0,
            flushed: 0,
            deaf: false,
            calls: 0,
            broken: None,
        };
        self.nodes[index] = Some((Node::new(self.now, config), host));
        for other in (0..self.nodes.len()).filter(|&other| other != index) {
            if self.nodes[other].is_some() {
                push(&self.queue, self.now + MS, other, 0, Event::Up(me.node));
                push(&self.queue, self.now + MS, index, 0, Event::Up(NodeId(other as u32 + 1)));
            }
        }
        self.give(index, None);
    }

    fn kill(&mut self, index: usize) {
        self.nodes[index] = None;
        for other in 0..self.nodes.len() {
            push(&self.queue, self.now + MS, other, 0, Event::Down(NodeId(index as u32 + 1)));
        }
    }

    fn give(&mut self, index: usize, event: Option<Event>) {
        let now = self.now;
        if let Some((node, host)) = &mut self.nodes[index] {
            host.now = now;
            if self.dated {
                node.store_says(StoreTime { wall_ns: now as i64 + self.ahead_ns, at_ns: now });
            }
            let ahead_ns = self.ahead_ns + self.node_ahead_ns.get(&index).copied().unwrap_or(0);
            turn(node, host, now, now as i64 + ahead_ns, event);
        }
    }

    fn local(&mut self, index: usize, client: u64, command: Command) {
        self.give(index, Some(Event::Local { client, command }));
    }

    /// One event, or the next deadline.
    fn step(&mut self) {
        let event = self.queue.borrow().0.keys().next().copied();
        let deadline = (0..self.nodes.len())
            .filter_map(|index| Some((self.nodes[index].as_ref()?.0.deadline()?, index)))
            .min();
        match (event, deadline) {
            (Some(key), due) if due.is_none_or(|(due, _)| key.0 <= due) => {
                let Some((index, boot, event)) = self.queue.borrow_mut().0.remove(&key) else { return };
                self.now = self.now.max(key.0);
                let same = self.nodes[index].as_ref().is_some_and(|(_, host)| boot == 0 || host.boot == boot);
                if same {
                    self.give(index, Some(event));
                }
            }
            (_, Some((due, index))) => {
                self.now = self.now.max(due);
                self.give(index, None);
            }
            (None | Some(_), None) => self.now += 1000 * MS,
        }
    }

    fn run_until(&mut self, seconds: u64, what: &str, mut done: impl FnMut(&Cluster) -> bool) {
        let end = self.now + seconds * 1000 * MS;
        let mut steps = 0;
        while !done(self) {
            self.step();
            steps += 1;
            assert!(steps < 1_000_000, "nothing moves: {what}\n{}", self.told().join("\n"));
            assert!(self.now < end, "not in {seconds} s: {what}\n{}", self.told().join("\n"));
        }
    }

    fn told(&self) -> Vec<String> {
        let mut told: Vec<String> =
            self.nodes.iter().flatten().flat_map(|(_, host)| host.notes.clone()).collect();
        told.sort();
        told
    }

    fn state(&self) -> State {
        let clock = SimClock::default();
        let around = Surroundings { store: &*self.store, clock: &clock };
        open_read(around, [9; 16], PlainForTests, drop).unwrap().state
    }

    fn reply_to(&self, client: u64) -> Option<Reply> {
        let mut replies = self.nodes.iter().flatten().flat_map(|(_, host)| host.replies.iter());
        replies.find(|(to, _)| *to == client).map(|(_, reply)| reply.clone())
    }

    fn holder(&self) -> Option<usize> {
        self.nodes.iter().position(|node| node.as_ref().is_some_and(|(node, _)| node.coordinates()))
    }

    /// A policy over all volumes that some node has, through node 1.
    fn set_policy(&mut self) {
        let all: BTreeSet<String> = self.volumes.iter().flatten().cloned().collect();
        let volumes = all.into_iter().enumerate().map(|(i, device)| (VolumeId(i as u32 + 1), device));
        let change = PolicyChange {
            name: "homes".to_owned(),
            revision: 1,
            body: b"{}".to_vec(),
            volumes: volumes.collect(),
        };
        self.local(0, 1, Command::Submit(vec![Record::PolicyChanged(change)]));
        self.run_until(60, "a policy", |cluster| cluster.reply_to(1).is_some());
        assert_eq!(self.reply_to(1), Some(Reply::Done(None)));
    }

    fn begin_backup(&mut self, index: usize, client: u64) {
        self.local(index, client, Command::Backup("homes".to_owned()));
        self.run_until(60, "the start of a backup", |cluster| cluster.reply_to(client).is_some());
        assert!(matches!(self.reply_to(client), Some(Reply::Done(Some(_)))), "{:?}", self.reply_to(client));
    }

    fn points(&self) -> usize {
        self.state().points.len()
    }

    /// Asks every node for the status each second.
    fn poll_status(&mut self, seconds: u64) {
        for _ in 0..seconds {
            for index in 0..self.nodes.len() {
                let client = self.now + index as u64;
                self.local(index, client, Command::Status);
                self.run_until(1, "the status", |cluster| cluster.reply_to(client).is_some());
                assert!(matches!(self.reply_to(client), Some(Reply::Status(_))));
            }
            let next = self.now + 1000 * MS;
            // Nobody's: time passes up to there.
            push(&self.queue, next, 0, u64::MAX, Event::Down(NodeId(1)));
            self.run_until(2, "a second", |cluster| cluster.now >= next);
        }
    }

    fn run(&mut self, seconds: u64) {
        let until = self.now + seconds * 1000 * MS;
        push(&self.queue, until, 0, u64::MAX, Event::Down(NodeId(1)));
        self.run_until(seconds + 1, "time", |cluster| cluster.now >= until);
    }

    fn calls(&self) -> u64 {
        self.nodes.iter().flatten().map(|(_, host)| host.calls).sum()
    }
}

#[test]
fn three_nodes_share_a_backup_and_rest() {
    let mut cluster = Cluster::new(&[&["a", "shared"], &["b", "shared"], &["shared"]]);
    cluster.set_policy();
    cluster.begin_backup(2, 2);
    cluster.run_until(300, "a point", |cluster| cluster.points() == 1);
    for (_, host) in cluster.nodes.iter().flatten() {
        assert!(host.read > 1000, "node {} read {} of {}", host.index + 1, host.read, 3 * INODES);
    }
    cluster.run_until(120, "rest", |cluster| cluster.holder().is_none());
    let state = cluster.state();
    let counts: Vec<usize> = state.segments.values().map(|list| list.len()).collect();
    assert!(counts.iter().all(|&count| (1..4).contains(&count)), "tables in order at rest: {counts:?}");
    assert!(state.retired.len() as u64 > INODES / 64, "workers made one with each report");
    let epochs = state.epoch;
    // Rested: whoever has work next takes it, without a wait.
    let before = cluster.now;
    cluster.begin_backup(1, 3);
    assert!(cluster.now - before < 5_000 * MS, "{} ms", (cluster.now - before) / MS);
    assert_eq!(cluster.state().epoch.0, epochs.0 + 1);
    cluster.run_until(300, "a second point", |cluster| cluster.points() == 2);
}

#[test]
fn an_idle_cluster_rests_while_its_status_is_asked_for() {
    let mut cluster = Cluster::new(&[&["a"], &["b"]]);
    cluster.set_policy();
    cluster.poll_status(70);
    assert_eq!(cluster.holder(), None, "{:?}", cluster.told());
    let calls = cluster.calls();
    cluster.poll_status(120);
    assert_eq!((cluster.holder(), cluster.calls()), (None, calls), "{:?}", cluster.told());
}

#[test]
fn a_killed_coordinator_is_followed_and_the_backup_ends() {
    let mut cluster = Cluster::new(&[&["a", "shared"], &["b", "shared"], &["shared"]]);
    cluster.set_policy();
    cluster.begin_backup(0, 2);
    cluster.run_until(60, "some of it", |cluster| {
        cluster.state().running.values().any(|running| running.totals.items > 1000)
    });
    let victim = cluster.holder().expect("a coordinator");
    let lost = cluster.now;
    let head = cluster.state().epoch;
    cluster.kill(victim);
    cluster.run_until(60, "another coordinator", |cluster| cluster.state().epoch > head);
    let timing = WriterOptions::default().timing;
    assert!(cluster.now - lost < 2 * timing.lease_ns + 2000 * MS, "{} ms", (cluster.now - lost) / MS);
    cluster.run_until(60, "commits", |cluster| {
        cluster.state().running.values().any(|running| running.totals.items > 2000)
    });
    cluster.boot(victim);
    cluster.run_until(300, "a point", |cluster| cluster.points() == 1);
    let items = cluster.state().points[&BackupId(1)].totals.items;
    assert!(items >= 3 * INODES, "{items}");
}

#[test]
fn a_moved_lease_needs_no_wait_and_work_goes_on() {
    let mut cluster = Cluster::new(&[&["a"], &["b"], &["c"]]);
    cluster.set_policy();
    cluster.begin_backup(0, 2);
    let from = cluster.holder().expect("a coordinator");
    let to = (from + 1) % 3;
    cluster.local(from, 3, Command::Move(NodeId(to as u32 + 1)));
    let before = cluster.now;
    cluster.run_until(10, "the move", |cluster| cluster.holder() == Some(to));
    assert!(cluster.now - before < 1500 * MS, "{} ms", (cluster.now - before) / MS);
    cluster.run_until(300, "a point", |cluster| cluster.points() == 1);
}

#[test]
fn a_flush_reaches_every_worker_once_and_comes_before_a_move_of_the_lease() {
    let mut cluster = Cluster::new(&[&["a"], &["b"], &["c"]]);
    cluster.set_policy();
    cluster.begin_backup(0, 2);
    cluster
        .run_until(60, "work", |cluster| cluster.nodes.iter().flatten().all(|(_, host)| host.job.is_some()));
    let flushed = |cluster: &Cluster| -> Vec<u32> {
        cluster.nodes.iter().flatten().map(|(_, host)| host.flushed).collect()
    };
    cluster.local(1, 3, Command::Flush);
    cluster.run_until(10, "the answer", |cluster| cluster.reply_to(3).is_some());
    assert_eq!((cluster.reply_to(3), flushed(&cluster)), (Some(Reply::Done(None)), vec![1, 1, 1]));
    let from = cluster.holder().expect("a coordinator");
    let to = (from + 1) % 3;
    cluster.local(from, 4, Command::Move(NodeId(to as u32 + 1)));
    cluster.run_until(10, "the move", |cluster| cluster.holder() == Some(to));
    assert_eq!((cluster.reply_to(4), flushed(&cluster)), (Some(Reply::Done(None)), vec![2, 2, 2]));
    cluster.run_until(300, "a point", |cluster| cluster.points() == 1);
    // With nothing at work it is done at once.
    cluster.local(0, 5, Command::Flush);
    cluster.run_until(60, "the answer", |cluster| cluster.reply_to(5).is_some());
    assert_eq!((cluster.reply_to(5), flushed(&cluster)), (Some(Reply::Done(None)), vec![2, 2, 2]));
}

#[test]
fn a_flush_that_a_node_cannot_do_in_time_says_which() {
    let mut cluster = Cluster::new(&[&["a"], &["b"]]);
    cluster.set_policy();
    cluster.begin_backup(0, 2);
    cluster
        .run_until(60, "work", |cluster| cluster.nodes.iter().flatten().all(|(_, host)| host.job.is_some()));
    cluster.nodes[1].as_mut().expect("it lives").1.deaf = true;
    cluster.local(0, 3, Command::Flush);
    cluster.run_until(130, "the answer", |cluster| cluster.reply_to(3).is_some());
    assert!(
        matches!(cluster.reply_to(3), Some(Reply::Refused(why)) if why.starts_with("node 2 did not answer"))
    );
}

#[test]
fn a_cut_off_coordinator_neither_commits_twice_nor_stops_the_others() {
    let mut cluster = Cluster::new(&[&["shared"], &["shared"], &["shared"]]);
    cluster.set_policy();
    cluster.begin_backup(0, 2);
    let holder = cluster.holder().expect("a coordinator");
    for other in (0..3).filter(|&other| other != holder) {
        cluster.cut.borrow_mut().extend([(holder, other), (other, holder)]);
        push(&cluster.queue, cluster.now + MS, other, 0, Event::Down(NodeId(holder as u32 + 1)));
        push(&cluster.queue, cluster.now + MS, holder, 0, Event::Down(NodeId(other as u32 + 1)));
    }
    cluster.run_until(600, "a point", |cluster| cluster.points() == 1);
}

/// An hour of two nodes with a policy that is due each ten minutes.
fn an_hour_by_schedule(retention: Retention) -> Cluster {
    let mut cluster = Cluster::new(&[&["a"], &["b"]]);
    let volumes = ["a", "b"].map(|device| PolicyVolume { device: device.to_owned(), reader: Reader::Auto });
    let mut policy = Policy { retention, ..Policy::new("homes", volumes.to_vec()) };
    policy.schedule = Some(Schedule { every: 600_000, at: None, since: None });
    let change = PolicyChange {
        name: "homes".to_owned(),
        revision: 1,
        body: policy.emit().unwrap(),
        volumes: vec![(VolumeId(1), "a".to_owned()), (VolumeId(2), "b".to_owned())],
    };
    cluster.local(0, 1, Command::Submit(vec![Record::PolicyChanged(change)]));
    cluster.run_until(4000, "an hour", |cluster| cluster.now > 3_590_000 * MS);
    assert_eq!(cluster.holder(), None);
    cluster
}

#[test]
fn backups_come_by_schedule_once_each_and_nobody_holds_the_lease_in_between() {
    let cluster = an_hour_by_schedule(Retention::default());
    let state = cluster.state();
    // One at once, and one at each multiple of ten minutes before the hour.
    assert_eq!(state.points.len(), 6, "{}", cluster.told().join("\n"));
    assert!(state.epoch.0 <= 7, "the lease went round {} times\n{}", state.epoch, cluster.told().join("\n"));
}

#[test]
fn each_backup_expires_what_the_rules_of_its_policy_keep_no_more() {
    let cluster = an_hour_by_schedule(Retention { last: Count::Newest(2), ..Retention::default() });
    let state = cluster.state();
    let left: Vec<u32> = state.points.keys().map(|backup| backup.0).collect();
    assert_eq!(left, [5, 6], "{}", cluster.told().join("\n"));
    assert_eq!(state.last_backup.0, 6);
}

/// Sets as many policies as there are volumes, each over one of them.
fn one_policy_each(cluster: &mut Cluster, schedule: Option<Schedule>) -> Vec<String> {
    let devices: BTreeSet<String> = cluster.volumes.iter().flatten().cloned().collect();
    let named = |device: &String| {
        let volume = PolicyVolume { device: device.clone(), reader: Reader::Auto };
        Policy { schedule, ..Policy::new(device, vec![volume]) }
    };
    let policies: Vec<Policy> = devices.iter().map(named).collect();
    let changes = policies.iter().zip(1..).map(|(policy, volume)| {
        let volumes = vec![(VolumeId(volume), policy.name.clone())];
        let (name, body) = (policy.name.clone(), policy.emit().unwrap());
        Record::PolicyChanged(PolicyChange { name, revision: 1, body, volumes })
    });
    cluster.local(0, 1, Command::Submit(changes.collect()));
    cluster.run_until(60, "policies", |cluster| cluster.reply_to(1).is_some());
    assert_eq!(cluster.reply_to(1), Some(Reply::Done(None)));
    devices.into_iter().collect()
}

/// As the node that knows most sees it.
fn points_of(cluster: &Cluster, policies: &[String]) -> Vec<usize> {
    let views = cluster.nodes.iter().flatten().map(|(node, _)| node.view());
    let Some(view) = views.max_by_key(|view| view.head) else { return Vec::new() };
    let of = |name: &String| view.state.points.values().filter(|point| point.policy == *name).count();
    policies.iter().map(of).collect()
}

/// Points of six policies after six minutes, each due every minute, by nodes that report so many inodes at a time.
fn six_every_minute(piece: u64) -> Vec<usize> {
    let all = ["a", "b", "c", "d", "e", "f"];
    let mut cluster = Cluster::new(&[&all, &all]);
    cluster.piece = piece;
    (0..2).for_each(|index| cluster.boot(index));
    let schedule = Schedule { every: 60_000, at: None, since: None };
    let policies = one_policy_each(&mut cluster, Some(schedule));
    cluster.run_until(400, "six minutes", |cluster| cluster.now > 358_000 * MS);
    points_of(&cluster, &policies)
}

#[test]
fn policies_that_are_due_at_one_moment_get_equally_many_points() {
    // By nodes that have time for it, and by nodes that have not.
    for (piece, least) in [(INODES, 4), (64, 1)] {
        let points = six_every_minute(piece);
        let (fewest, most) = (points.iter().min().copied(), points.iter().max().copied());
        let even = fewest.zip(most).is_some_and(|(fewest, most)| fewest >= least && most - fewest <= 1);
        assert!(even, "{points:?}");
    }
}

#[test]
fn more_clients_than_backups_may_run_all_get_their_point() {
    let names: Vec<String> = (0..RUNNING_MAX + 4).map(|number| format!("v{number:02}")).collect();
    let all: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut cluster = Cluster::new(&[&all, &all]);
    cluster.piece = INODES;
    (0..2).for_each(|index| cluster.boot(index));
    let policies = one_policy_each(&mut cluster, None);
    for (client, policy) in (100..).zip(&policies) {
        cluster.local(client as usize % 2, client, Command::Backup(policy.clone()));
    }
    let clients = 100..100 + policies.len() as u64;
    cluster.run_until(60, "answers", |c| clients.clone().all(|client| c.reply_to(client).is_some()));
    let begun: Vec<Option<BackupId>> = clients
        .filter_map(|client| match cluster.reply_to(client) {
            Some(Reply::Done(begun)) => Some(begun),
            _ => None,
        })
        .collect();
    assert_eq!(begun.len(), policies.len(), "none is refused");
    assert_eq!(begun.iter().flatten().collect::<BTreeSet<_>>().len(), RUNNING_MAX, "{begun:?}");
    cluster.run_until(900, "their points", |cluster| points_of(cluster, &policies).iter().all(|&n| n == 1));
}

/// A backup under way over volumes of both nodes, and one of which dies for good; what is left to read.
fn one_of_two_dies(victim_coordinates: bool) -> Cluster {
    let mut cluster = Cluster::new(&[&["shared"], &["shared"]]);
    let schedule = Schedule { every: 600_000, at: None, since: None };
    one_policy_each(&mut cluster, Some(schedule));
    cluster.run_until(60, "some of it", |cluster| {
        cluster.state().running.values().any(|running| running.totals.items > 500)
    });
    let holder = cluster.holder().expect("a coordinator");
    cluster.kill(if victim_coordinates { holder } else { 1 - holder });
    cluster
}

#[test]
fn a_cluster_of_two_of_which_one_died_works_for_good() {
    for victim_coordinates in [false, true] {
        let mut cluster = one_of_two_dies(victim_coordinates);
        let (died, lease) = (cluster.now, WriterOptions::default().timing.lease_ns);
        let items = |cluster: &Cluster| cluster.state().running.values().map(|r| r.totals.items).sum::<u64>();
        let before = items(&cluster);
        cluster.run_until(60, "work", |cluster| items(cluster) > before + 100 || cluster.points() == 1);
        assert!(cluster.now - died < 2 * lease + 5_000 * MS, "{} ms", (cluster.now - died) / MS);
        cluster.run_until(300, "the point", |cluster| cluster.points() == 1);
        let left = usize::from(cluster.nodes[0].is_none());
        // Hours later, after as many pauses: commands and schedules.
        cluster.run_until(7200, "two hours", |cluster| cluster.now > 7_190_000 * MS);
        assert!(cluster.points() >= 12, "{} points\n{}", cluster.points(), cluster.told().join("\n"));
        let before = cluster.now;
        cluster.local(left, 9, Command::Backup("shared".to_owned()));
        cluster.run_until(60, "an answer", |cluster| cluster.reply_to(9).is_some());
        assert!(matches!(cluster.reply_to(9), Some(Reply::Done(Some(_)))), "{:?}", cluster.reply_to(9));
        assert!(cluster.now - before < 2 * lease, "{} ms", (cluster.now - before) / MS);
    }
}

#[test]
fn a_node_that_boots_alone_goes_on_with_what_it_can_read_and_rests_beside_the_rest() {
    let mut cluster = Cluster::new(&[&["shared"], &["shared", "b"]]);
    cluster.set_policy();
    cluster.begin_backup(0, 2);
    cluster.run_until(60, "some of it", |cluster| {
        cluster.state().running.values().any(|running| running.totals.items > 500)
    });
    // A power failure of both; one comes back.
    cluster.kill(0);
    cluster.kill(1);
    cluster.boot(0);
    let whole = |cluster: &Cluster| {
        let state = cluster.state();
        let shared = state.volumes.iter().find(|(_, volume)| volume.device == "shared").map(|(id, _)| *id);
        state.running.values().any(|running| shared.is_some_and(|id| running.done.is_whole(id)))
    };
    cluster.run_until(200, "all that it can read", whole);
    cluster.run_until(60, "rest beside what only the other can do", |cluster| cluster.holder().is_none());
    let epoch = cluster.state().epoch.0;
    let until = cluster.now + 6 * 3_600_000 * MS;
    cluster.run_until(8 * 3600, "six hours", |cluster| cluster.now >= until);
    let looks = cluster.state().epoch.0 - epoch;
    assert!((6..=16).contains(&looks), "it looks again now and then: {looks} times");
    let before = cluster.now;
    cluster.boot(1);
    cluster.run_until(200, "the point", |cluster| cluster.points() == 1);
    assert!(cluster.now - before < 120_000 * MS, "{} ms", (cluster.now - before) / MS);
}

#[test]
fn schedules_go_on_after_all_nodes_were_off() {
    for (nodes, at_rest) in [(1, true), (1, false), (2, true), (2, false)] {
        let all: [&[&str]; 2] = [&["a"], &["a"]];
        let mut cluster = Cluster::new(&all[..nodes]);
        cluster.piece = INODES;
        (0..nodes).for_each(|index| cluster.boot(index));
        one_policy_each(&mut cluster, Some(Schedule { every: 600_000, at: None, since: None }));
        cluster.run_until(900, "a point", |cluster| cluster.points() > 0);
        if at_rest {
            cluster.run_until(300, "rest", |cluster| cluster.holder().is_none());
        }
        (0..nodes).for_each(|index| cluster.kill(index));
        (0..nodes).for_each(|index| cluster.boot(index));
        let (before, end) = (cluster.points(), cluster.now + 3_600_000 * MS);
        cluster.run_until(4300, "an hour", |cluster| cluster.now >= end);
        let points = cluster.points() - before;
        assert!((5..=8).contains(&points), "{points} of {nodes}\n{}", cluster.told().join("\n"));
    }
}

/// Sets a policy over all volumes, due every so many milliseconds.
fn one_policy_of_all(cluster: &mut Cluster, every: u64) {
    let all: BTreeSet<String> = cluster.volumes.iter().flatten().cloned().collect();
    let volume = |device: &String| PolicyVolume { device: device.clone(), reader: Reader::Auto };
    let schedule = Some(Schedule { every, at: None, since: None });
    let body = Policy { schedule, ..Policy::new("homes", all.iter().map(volume).collect()) }.emit().unwrap();
    let volumes = all.into_iter().zip(1..).map(|(device, id)| (VolumeId(id), device)).collect();
    let change = PolicyChange { name: "homes".to_owned(), revision: 1, body, volumes };
    cluster.local(0, 1, Command::Submit(vec![Record::PolicyChanged(change)]));
    cluster.run_until(60, "a policy", |cluster| cluster.reply_to(1) == Some(Reply::Done(None)));
}

#[test]
fn a_volume_of_a_node_that_died_keeps_no_points_from_the_other_volumes() {
    for peers in [2, 3] {
        let all: [&[&str]; 3] = [&["a"], &["b"], &[]];
        let mut cluster = Cluster::new(&all[..peers]);
        one_policy_of_all(&mut cluster, 600_000);
        cluster.run_until(60, "some of it", |cluster| {
            cluster.state().running.values().any(|running| running.totals.items > 500)
        });
        assert_eq!(cluster.points(), 0);
        cluster.kill(1);
        let (before, end) = (cluster.state().epoch.0, cluster.now + 3_600_000 * MS);
        cluster.run_until(4300, "an hour", |cluster| cluster.now >= end);
        let state = cluster.state();
        let told = cluster.told().join("\n");
        assert!(state.points.len() >= 5, "{} points of {peers}\n{told}", state.points.len());
        let b = state.volumes.iter().find(|(_, volume)| volume.device == "b").map(|(id, _)| *id);
        assert!(state.points.values().all(|point| point.missing.iter().copied().eq(b)), "all say so");
        assert!(state.epoch.0 - before <= 16, "{} epochs of {peers}\n{told}", state.epoch.0 - before);
        // Back again, the volume is in the next point.
        cluster.boot(1);
        let whole = |cluster: &Cluster| {
            let points =
                cluster.nodes.iter().flatten().flat_map(|(node, _)| node.view().state.points.values());
            points.into_iter().any(|point| point.missing.is_empty())
        };
        cluster.run_until(1300, "a whole point", whole);
    }
}

#[test]
fn whoever_asks_again_gets_a_point_without_the_volume_that_nobody_can_open() {
    let mut cluster = Cluster::new(&[&["a"], &["b"]]);
    cluster.set_policy();
    cluster.begin_backup(0, 2);
    cluster.run_until(60, "some of it", |cluster| {
        cluster.state().running.values().any(|running| running.totals.items > 500)
    });
    cluster.kill(1);
    let a_is_done = |cluster: &Cluster| {
        let running = cluster.state().running.into_values().next();
        running.is_some_and(|running| running.done.is_whole(VolumeId(1)))
    };
    cluster.run_until(200, "all that it can read", a_is_done);
    // At once the backup that waits is the answer: the node may be starting.
    cluster.begin_backup(0, 3);
    let (mut client, until) = (4, cluster.now + 400_000 * MS);
    while cluster.points() == 0 && cluster.now < until {
        cluster.begin_backup(0, client);
        client += 1;
        let next = cluster.now + 20_000 * MS;
        cluster.run_until(30, "a while", |cluster| cluster.now >= next);
    }
    let state = cluster.state();
    assert_eq!(state.points.values().map(|point| point.missing.clone()).collect::<Vec<_>>(), [[VolumeId(2)]]);
}

#[test]
fn a_backup_that_cannot_begin_is_tried_again_later_and_later_and_the_cluster_rests() {
    let mut cluster = Cluster::new(&[&["a"], &["b"]]);
    let volume = PolicyVolume { device: "gone".to_owned(), reader: Reader::Auto };
    let schedule = Some(Schedule { every: 60_000, at: None, since: None });
    let body = Policy { schedule, ..Policy::new("homes", vec![volume]) }.emit().unwrap();
    let volumes = vec![(VolumeId(1), "gone".to_owned())];
    let change = PolicyChange { name: "homes".to_owned(), revision: 1, body, volumes };
    cluster.local(0, 1, Command::Submit(vec![Record::PolicyChanged(change)]));
    cluster.run_until(6 * 3600, "five hours", |cluster| cluster.now > 5 * 3_600_000 * MS);
    let state = cluster.state();
    // After 1, 2, 4, 8, 16, 32 minutes, and each hour.
    assert!((8..=13).contains(&state.epoch.0), "{} epochs\n{}", state.epoch, cluster.told().join("\n"));
    let tried = &state.tried["homes"];
    assert!(tried.failures > 6 && tried.why.contains("\"gone\" in its board profile"), "{tried:?}");
    assert_eq!(cluster.holder(), None);
    cluster.local(1, 2, Command::Status);
    cluster.run_until(60, "an answer", |cluster| cluster.reply_to(2).is_some());
    assert!(matches!(cluster.reply_to(2), Some(Reply::Status(json)) if json.contains("tried again 60 min")));
    // Somebody has it: it begins at the next try, and is tried as planned from then on.
    cluster.volumes[1].push("gone".to_owned());
    cluster.kill(1);
    cluster.boot(1);
    cluster.run_until(4000, "a point", |cluster| cluster.points() > 0);
    assert!(cluster.state().tried.is_empty());
}

#[test]
fn clocks_that_are_wrong_neither_stop_a_schedule_nor_repeat_it() {
    const DAY: i64 = 86_400_000_000_000;
    for wrong in [30 * 60_000_000_000, DAY, 366 * DAY, -30 * 60_000_000_000, -366 * DAY] {
        let mut cluster = Cluster::new(&[&["a"], &["a"]]);
        cluster.piece = INODES;
        cluster.ahead_ns = 1000 * DAY;
        (0..2).for_each(|index| cluster.boot(index));
        one_policy_each(&mut cluster, Some(Schedule { every: 600_000, at: None, since: None }));
        let hour = |hours: u64| move |cluster: &Cluster| cluster.now >= hours * 3_600_000 * MS;
        for (hours, ahead) in (1..).zip([wrong, 0, wrong, 0]) {
            cluster.run_until(8000, "an hour", hour(hours));
            cluster.ahead_ns = 1000 * DAY + ahead;
        }
        cluster.run_until(8000, "the last hour", hour(5));
        let points = cluster.points();
        assert!(
            (22..=36).contains(&points),
            "{points} in five hours, {wrong}\n{}",
            cluster.told().join("\n")
        );
    }
}

#[test]
fn a_policy_that_is_removed_leaves_no_backup_behind() {
    let mut cluster = Cluster::new(&[&["a", "shared"], &["b", "shared"]]);
    cluster.set_policy();
    cluster.begin_backup(0, 2);
    cluster.run_until(60, "some of it", |cluster| {
        cluster.state().running.values().any(|running| running.totals.items > 500)
    });
    let removal = Record::PolicyRemoved { name: "homes".to_owned(), revision: 2 };
    cluster.local(1, 3, Command::Submit(vec![removal]));
    cluster.run_until(60, "the removal", |cluster| cluster.reply_to(3).is_some());
    assert_eq!(cluster.reply_to(3), Some(Reply::Done(None)));
    assert_eq!((cluster.state().running.len(), cluster.points()), (0, 0));
    cluster.run_until(120, "rest", |cluster| cluster.holder().is_none());
    assert!(cluster.nodes.iter().flatten().all(|(_, host)| host.job.is_none()), "nobody works on it");
    assert_eq!(cluster.points(), 0);
}

#[test]
fn a_command_that_nobody_can_do_is_refused_with_a_reason() {
    let mut cluster = Cluster::new(&[&["a"], &["b"]]);
    cluster.local(0, 1, Command::Backup("nothing".to_owned()));
    cluster.run_until(60, "an answer", |cluster| cluster.reply_to(1).is_some());
    assert!(matches!(cluster.reply_to(1), Some(Reply::Refused(why)) if why.contains("policy set nothing")));
    cluster.local(0, 2, Command::Status);
    cluster.run_until(60, "an answer", |cluster| cluster.reply_to(2).is_some());
    assert!(matches!(cluster.reply_to(2), Some(Reply::Status(json)) if json.contains("\"coordinator\"")));
}

#[test]
fn a_job_that_waits_for_the_log_has_it_read_at_once() {
    let me = Author { node: NodeId(1), boot: Boot(1) };
    let config = Config {
        identity: Identity { cluster: [9; 16], me, who: Who::default() },
        peers: vec![NodeId(2)],
        sealer: PlainForTests,
        options: WriterOptions::default(),
        present: Present::default(),
        merges: Bounds { run: 4, ..Bounds::default() },
        room: Default::default(),
        rest_ns: 60_000 * MS,
        request_ns: 120_000 * MS,
        seed: [1; 32],
    };
    let (mut node, store) = (Node::new(0, config), MemoryStore::default());
    let calls = |node: &mut Node<PlainForTests>| -> Vec<_> {
        let actions = std::iter::from_fn(|| node.next_action());
        actions
            .filter_map(
                |action| if let Action::Call(ticket, call) = action { Some((ticket, call)) } else { None },
            )
            .collect()
    };
    // The first read of the log, which is empty.
    node.wake(0, 0);
    loop {
        let asked = calls(&mut node);
        if asked.is_empty() {
            break;
        }
        for (ticket, call) in asked {
            node.handle(0, 0, Event::Answered(ticket, perform(&store, &call).0));
        }
    }
    let id = AssignmentId { epoch: Epoch(1), number: 1 };
    let message = Message::Assign(Assignment { id, to: (64, 0), ..Assignment::default() });
    node.handle(0, 0, Event::Received { from: NodeId(2), epoch: Epoch(1), slot: Slot(3), message });
    let asked = calls(&mut node);
    assert!(
        matches!(&asked[..], [(_, Call::Last { .. }), ..]),
        "it would wait for whatever comes next: {asked:?}"
    );
}

#[path = "health_test.rs"]
mod health_test;

#[path = "clock_test.rs"]
mod clock_test;
