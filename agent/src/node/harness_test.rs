//! Nodes over a store in memory and a network that delivers, for tests: simulated time, jobs that only report.

use super::*;

/// What will happen, by (time, order): to which node's which start.
pub(super) type Queue = Rc<RefCell<(BTreeMap<(u64, u64), (usize, u64, Event)>, u64)>>;

pub(super) fn push(queue: &Queue, at: u64, node: usize, boot: u64, event: Event) {
    let mut queue = queue.borrow_mut();
    queue.1 += 1;
    let key = (at, queue.1);
    queue.0.insert(key, (node, boot, event));
}

pub(super) struct Host {
    pub(super) index: usize,
    pub(super) boot: u64,
    pub(super) now: u64,
    pub(super) queue: Queue,
    pub(super) store: Rc<MemoryStore>,
    /// Links that are cut.
    pub(super) cut: Rc<RefCell<BTreeSet<(usize, usize)>>>,
    pub(super) volumes: Vec<String>,
    /// The running job, how far it is, and whether it waits for its commit.
    pub(super) job: Option<(Assignment, Key, bool)>,
    pub(super) count: u32,
    pub(super) step_ms: u64,
    pub(super) piece: u64,
    pub(super) replies: Vec<(u64, Reply)>,
    pub(super) notes: Vec<String>,
    pub(super) read: u64,
    /// How many nodes work on a policy, as it was told.
    pub(super) divided: Vec<(String, u32)>,
    /// Orders to flush.
    pub(super) flushed: u32,
    /// It does none, and its job stands still.
    pub(super) deaf: bool,
    /// Requests to the store.
    pub(super) calls: u64,
    /// What the store answers to all of them.
    pub(super) broken: Option<StoreFaultKind>,
}

impl Host {
    pub(super) fn event(&self, after: u64, event: Event) {
        push(&self.queue, self.now + after, self.index, self.boot, event);
    }

    pub(super) fn step(&mut self) {
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
    pub(super) fn segment(
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
    fn collect(&mut self, order: Order, _: Arc<State>, _: Slot) {
        let result = Ok(Outcome::nothing(&order.step));
        self.event(MS, Event::Collected { number: order.number, result });
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
    fn divide(&mut self, policy: &str, nodes: u32) {
        self.divided.push((policy.to_owned(), nodes));
    }
    fn reply(&mut self, client: u64, reply: Reply) {
        self.replies.push((client, reply));
    }
    fn note(&mut self, note: Note) {
        self.notes.push(format!("{:>7} ms node {}: {note}", self.now / MS, self.index + 1));
    }
}

pub(super) struct Cluster {
    pub(super) nodes: Vec<Option<(Node<PlainForTests>, Host)>>,
    pub(super) volumes: Vec<Vec<String>>,
    pub(super) queue: Queue,
    pub(super) store: Rc<MemoryStore>,
    pub(super) cut: Rc<RefCell<BTreeSet<(usize, usize)>>>,
    pub(super) now: u64,
    pub(super) boots: u64,
    pub(super) step_ms: u64,
    /// Inodes between reports.
    pub(super) piece: u64,
    /// How far all wall clocks are ahead, in nanoseconds.
    pub(super) ahead_ns: i64,
    /// The same of one node more.
    pub(super) node_ahead_ns: BTreeMap<usize, i64>,
    /// The store says what time it is, with each event.
    pub(super) dated: bool,
}

impl Cluster {
    pub(super) fn new(volumes: &[&[&str]]) -> Cluster {
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

    pub(super) fn boot(&mut self, index: usize) {
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
            divided: Vec::new(),
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

    pub(super) fn kill(&mut self, index: usize) {
        self.nodes[index] = None;
        for other in 0..self.nodes.len() {
            push(&self.queue, self.now + MS, other, 0, Event::Down(NodeId(index as u32 + 1)));
        }
    }

    pub(super) fn give(&mut self, index: usize, event: Option<Event>) {
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

    pub(super) fn local(&mut self, index: usize, client: u64, command: Command) {
        self.give(index, Some(Event::Local { client, command }));
    }

    /// One event, or the next deadline.
    pub(super) fn step(&mut self) {
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

    pub(super) fn run_until(&mut self, seconds: u64, what: &str, mut done: impl FnMut(&Cluster) -> bool) {
        let end = self.now + seconds * 1000 * MS;
        let mut steps = 0;
        while !done(self) {
            self.step();
            steps += 1;
            assert!(steps < 1_000_000, "nothing moves: {what}\n{}", self.told().join("\n"));
            assert!(self.now < end, "not in {seconds} s: {what}\n{}", self.told().join("\n"));
        }
    }

    pub(super) fn told(&self) -> Vec<String> {
        let mut told: Vec<String> =
            self.nodes.iter().flatten().flat_map(|(_, host)| host.notes.clone()).collect();
        told.sort();
        told
    }

    pub(super) fn state(&self) -> State {
        let clock = SimClock::default();
        let around = Surroundings { store: &*self.store, clock: &clock };
        open_read(around, [9; 16], PlainForTests, drop).unwrap().state
    }

    pub(super) fn reply_to(&self, client: u64) -> Option<Reply> {
        let mut replies = self.nodes.iter().flatten().flat_map(|(_, host)| host.replies.iter());
        replies.find(|(to, _)| *to == client).map(|(_, reply)| reply.clone())
    }

    pub(super) fn holder(&self) -> Option<usize> {
        self.nodes.iter().position(|node| node.as_ref().is_some_and(|(node, _)| node.coordinates()))
    }

    /// A policy over all volumes that some node has, through node 1.
    pub(super) fn set_policy(&mut self) {
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

    pub(super) fn begin_backup(&mut self, index: usize, client: u64) {
        self.local(index, client, Command::Backup("homes".to_owned()));
        self.run_until(60, "the start of a backup", |cluster| cluster.reply_to(client).is_some());
        assert!(matches!(self.reply_to(client), Some(Reply::Done(Some(_)))), "{:?}", self.reply_to(client));
    }

    pub(super) fn points(&self) -> usize {
        self.state().points.len()
    }

    /// Asks every node for the status each second.
    pub(super) fn poll_status(&mut self, seconds: u64) {
        for _ in 0..seconds {
            for index in 0..self.nodes.len() {
                let client = self.now + index as u64;
                self.local(index, client, Command::Status);
                self.run_until(1, "the status", |cluster| cluster.reply_to(client).is_some());
                assert!(matches!(self.reply_to(client), Some(Reply::Status(_))));
            }
            let next = self.now + 1000 * MS;
            // Of no node: time passes up to there.
            push(&self.queue, next, 0, u64::MAX, Event::Down(NodeId(1)));
            self.run_until(2, "a second", |cluster| cluster.now >= next);
        }
    }

    pub(super) fn run(&mut self, seconds: u64) {
        let until = self.now + seconds * 1000 * MS;
        push(&self.queue, until, 0, u64::MAX, Event::Down(NodeId(1)));
        self.run_until(seconds + 1, "time", |cluster| cluster.now >= until);
    }

    pub(super) fn calls(&self) -> u64 {
        self.nodes.iter().flatten().map(|(_, host)| host.calls).sum()
    }
}
