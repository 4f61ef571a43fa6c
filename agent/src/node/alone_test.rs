//! One real node over a store in memory; a test is its peers, its users and its jobs.

use std::collections::VecDeque;

use super::*;
use crate::coordinator::PROBES_NODE_MAX;
use crate::coordinator::bounds::Room;
use crate::format::record::{BackupVolume, PolicyChange, Record};
use crate::format::slot::{Author, PlainForTests, Who};
use crate::gc::types::{Marked, Step};
use crate::id::{Boot, ObjectId};
use crate::log::call::perform;
use crate::log::lease::Identity;
use crate::log::writer::WriterOptions;
use crate::store::memory::MemoryStore;
use crate::table::plan::Bounds;
use crate::table::segment::SegmentMeta;
use crate::work::{Assignment, AssignmentId, Command, Found, MergeOrder, Reply, Report};

pub const S: u64 = 1_000_000_000;
pub const PEER: NodeId = NodeId(2);
/// A user who waits for a backup.
pub const ASKER: u64 = 99;

/// The node, number 1, and what it wants done.
pub struct Alone {
    pub node: Node<PlainForTests>,
    store: MemoryStore,
    pub now: u64,
    calls: VecDeque<(Ticket, crate::log::call::Call)>,
    pub out: Vec<Action>,
    /// What looks through the tables find, in turn; then nothing.
    pub marks: VecDeque<Marked>,
}

pub fn names(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("v{number}")).collect()
}

/// What a node says that has opened a volume.
pub fn found(volume: VolumeId, end: u64) -> Found {
    let volume = BackupVolume { volume, fs_uuid: [1; 16], state: Some([1; 16]), ..BackupVolume::default() };
    Found { volume, end: (end, 0), grain: 64, items: 1, bytes: 1, ..Found::default() }
}

fn config(boot: Boot, peers: &[NodeId], volumes: Vec<String>, room: Room) -> Config<PlainForTests> {
    Config {
        identity: Identity { cluster: [9; 16], me: Author { node: NodeId(1), boot }, who: Who::default() },
        peers: peers.to_vec(),
        sealer: PlainForTests,
        options: WriterOptions::default(),
        present: Present { boot, weight: 1, lanes: 1, volumes, ..Present::default() },
        rest_ns: 600 * S,
        merges: Bounds::default(),
        room,
        request_ns: 60 * S,
        seed: [boot.0 as u8; 32],
    }
}

impl Alone {
    pub fn new(peers: &[NodeId], volumes: Vec<String>) -> Alone {
        Alone::with_room(peers, volumes, Room::default())
    }

    /// The same repository, and a node that has come to it for one backup of `policy`. What the one before has under way is not answered.
    pub fn errand(&mut self, volumes: Vec<String>, policy: &str) -> Node<PlainForTests> {
        let view = self.node.view().clone();
        let errand =
            Node::for_backup(self.now, config(Boot(79), &[], volumes, Room::default()), policy, view);
        self.calls.clear();
        std::mem::replace(&mut self.node, errand)
    }

    fn with_room(peers: &[NodeId], volumes: Vec<String>, room: Room) -> Alone {
        let config = config(Boot(78), peers, volumes, room);
        Alone {
            node: Node::new(S, config),
            store: MemoryStore::default(),
            now: 2 * S,
            calls: VecDeque::new(),
            out: Vec::new(),
            marks: VecDeque::new(),
        }
    }

    /// One that coordinates, with policies of so many volumes each, numbered on.
    pub fn lead(peers: &[NodeId], volumes: Vec<String>, policies: &[(&str, usize)]) -> Alone {
        Alone::new(peers, volumes).leads(peers, policies)
    }

    /// One of a single volume, with little room.
    fn lead_in(room: Room) -> Alone {
        Alone::with_room(&[], names(1), room).leads(&[], &[("p", 1)])
    }

    fn leads(self, peers: &[NodeId], policies: &[(&str, usize)]) -> Alone {
        let mut alone = self;
        alone.run();
        for &peer in peers {
            alone.handle(Event::Up(peer));
        }
        let mut next = 0;
        for &(name, count) in policies {
            let numbered = names(count).into_iter().map(|device| {
                next += 1;
                (VolumeId(next), device)
            });
            let change = PolicyChange {
                name: name.to_owned(),
                revision: 1,
                body: vec![1],
                volumes: numbered.collect(),
            };
            alone.ask(u64::from(next), Command::Submit(vec![Record::PolicyChanged(change)]));
            alone.pass(30 * S);
        }
        assert!(alone.node.coordinates());
        alone.out.clear();
        alone
    }

    fn collect(&mut self) {
        while let Some(action) = self.node.next_action() {
            match action {
                Action::Collect { order, .. } => {
                    let marked =
                        matches!(order.step, Step::Mark { .. }).then(|| self.marks.pop_front()).flatten();
                    let result = Ok(marked.map_or_else(|| Outcome::nothing(&order.step), Outcome::Marked));
                    let event = Event::Collected { number: order.number, result };
                    self.node.handle(self.now, self.now as i64, event);
                }
                Action::Call(ticket, call) => self.calls.push_back((ticket, call)),
                other => self.out.push(other),
            }
        }
    }

    /// The store answers until nothing moves.
    pub fn run(&mut self) {
        self.collect();
        while let Some((ticket, call)) = self.calls.pop_front() {
            let (answer, _) = perform(&self.store, &call);
            self.node.handle(self.now, self.now as i64, Event::Answered(ticket, answer));
            self.collect();
        }
    }

    /// An event, and all that follows at once but for the store's answers.
    pub fn tell(&mut self, event: Event) {
        self.node.handle(self.now, self.now as i64, event);
        self.collect();
    }

    pub fn handle(&mut self, event: Event) {
        self.tell(event);
        self.run();
    }

    pub fn ask(&mut self, client: u64, command: Command) {
        self.handle(Event::Local { client, command });
    }

    pub fn peer(&mut self, epoch: Epoch, message: Message) {
        self.handle(Event::Received { from: PEER, epoch, slot: Slot(0), message });
    }

    /// Lets time pass.
    pub fn pass(&mut self, ns: u64) {
        let until = self.now + ns;
        while self.now < until {
            self.run();
            let due = self.node.deadline().filter(|&due| due <= until);
            self.now = due.map_or(until, |due| due.max(self.now + S / 1000));
            self.node.wake(self.now, self.now as i64);
        }
        self.run();
    }

    pub fn take(&mut self) -> Vec<Action> {
        std::mem::take(&mut self.out)
    }
}

/// What was asked of the peer's volumes.
fn probes(actions: &[Action]) -> Vec<(u64, VolumeId)> {
    let of = |action: &Action| match action {
        Action::Send { to: PEER, message: Message::Probe { ask, volumes, .. }, .. } => {
            Some((*ask, volumes[0]))
        }
        Action::Probe { ask, volumes, .. } => Some((*ask, volumes[0])),
        _ => None,
    };
    actions.iter().filter_map(of).collect()
}

pub fn reply_to(actions: &[Action], client: u64) -> Option<Reply> {
    actions.iter().find_map(|action| match action {
        Action::Reply { client: to, reply } if *to == client => Some(reply.clone()),
        _ => None,
    })
}

#[test]
fn an_assignment_is_not_lost_behind_questions_and_a_question_too_many_is_refused() {
    let mut alone = Alone::new(&[PEER], names(1));
    let say = |message| Event::Received { from: PEER, epoch: Epoch(1), slot: Slot(0), message };
    alone.tell(Event::Up(PEER));
    alone.tell(say(Message::Announce { resting: false, successor: None }));
    // The log has not answered yet.
    let most = PROBES_WAITING_MAX as u64;
    for ask in 0..=most {
        alone.tell(say(Message::Probe { ask, policy: "p".to_owned(), volumes: vec![VolumeId(1)] }));
    }
    let id = AssignmentId { epoch: Epoch(1), number: 1 };
    alone.tell(say(Message::Assign(Assignment { id, to: (10, 0), ..Assignment::default() })));
    let refused = |action: &Action| matches!(action, Action::Send { message: Message::Probed { ask, failed, .. }, .. } if *ask == most && failed.len() == 1);
    assert_eq!(alone.out.iter().filter(|action| refused(action)).count(), 1);
    alone.run();
    let starts = |action: &&Action| matches!(action, Action::Start { assignment, .. } if assignment.id == id);
    assert_eq!((probes(&alone.out).len(), alone.out.iter().filter(starts).count()), (most as usize, 1));
}

#[test]
fn a_report_that_was_not_accepted_is_sent_again() {
    let mut alone = Alone::new(&[PEER], names(1));
    alone.run();
    alone.handle(Event::Up(PEER));
    let announce = Message::Announce { resting: false, successor: None };
    alone.peer(Epoch(1), announce.clone());
    let id = AssignmentId { epoch: Epoch(1), number: 1 };
    alone.peer(Epoch(1), Message::Assign(Assignment { id, to: (10, 0), ..Assignment::default() }));
    let progress = crate::worker::backup::Progress { to: (5, 0), ..Default::default() };
    alone.handle(Event::Progressed { id, progress });
    let reports = |actions: Vec<Action>| {
        let is = |a: &&Action| matches!(a, Action::Send { message: Message::Report(_), .. });
        actions.iter().filter(is).count()
    };
    assert_eq!(reports(alone.take()), 1);
    // The coordinator's queue was full, which it need not say.
    for beat in 1..=4 {
        alone.pass(4 * S);
        alone.peer(Epoch(1), announce.clone());
        assert_eq!(reports(alone.take()), usize::from(beat % 2 == 0), "beat {beat}");
    }
    alone.peer(Epoch(1), Message::Accepted { id, sequence: 1 });
    (0..4).for_each(|_| alone.peer(Epoch(1), announce.clone()));
    assert_eq!(reports(alone.take()), 0);
}

#[test]
fn a_node_has_few_questions_at_once_and_all_volumes_are_looked_at() {
    let mut alone = Alone::lead(&[PEER], Vec::new(), &[("p", 64), ("q", 64)]);
    let present = Present { boot: Boot(1), weight: 1, lanes: 1, volumes: names(64), ..Present::default() };
    alone.peer(Epoch(1), Message::Present(present.clone()));
    alone.take();
    alone.ask(ASKER, Command::Backup("p".to_owned()));
    alone.ask(ASKER + 1, Command::Backup("q".to_owned()));
    let mut open: VecDeque<(u64, VolumeId)> = VecDeque::new();
    let mut seen = 0;
    loop {
        let new = probes(&alone.take());
        seen += new.len();
        open.extend(new);
        assert!(open.len() <= PROBES_NODE_MAX, "{}", open.len());
        let Some((ask, volume)) = open.pop_front() else { break };
        alone.peer(Epoch(1), Message::Probed { ask, found: vec![found(volume, 64)], failed: vec![] });
    }
    assert_eq!(seen, 128);
}

#[test]
fn a_policy_of_many_volumes_that_open_slowly_is_begun() {
    let mut alone = Alone::lead(&[], names(40), &[("p", 40)]);
    alone.ask(ASKER, Command::Backup("p".to_owned()));
    let mut open: VecDeque<(u64, VolumeId)> = VecDeque::new();
    for _ in 0..60 {
        alone.pass(5 * S);
        let actions = alone.take();
        open.extend(probes(&actions));
        if let Some(reply) = reply_to(&actions, ASKER) {
            assert!(matches!(reply, Reply::Done(Some(_))), "{reply:?}");
            return;
        }
        if let Some((ask, volume)) = open.pop_front() {
            alone.handle(Event::Probed { ask, found: vec![found(volume, 1000)], failed: vec![] });
        }
    }
    panic!("no answer; {} volumes wait", open.len());
}

#[test]
fn a_node_that_hangs_in_a_device_is_not_asked_about_one_volume_after_the_other() {
    let mut alone = Alone::lead(&[], names(40), &[("p", 40)]);
    alone.ask(ASKER, Command::Backup("p".to_owned()));
    alone.pass(125 * S);
    let actions = alone.take();
    assert_eq!(probes(&actions).len(), PROBES_NODE_MAX);
    assert!(
        matches!(reply_to(&actions, ASKER), Some(Reply::Refused(why)) if why.contains("node 1: no answer")),
        "{:?}",
        reply_to(&actions, ASKER)
    );
}

#[test]
fn orders_are_of_the_lease_that_they_were_made_under() {
    let mut alone = Alone::lead(&[PEER], names(1), &[("p", 1)]);
    assert_eq!(alone.node.epoch(), Epoch(1));
    let present =
        Present { boot: Boot(1), weight: 1, lanes: 1, volumes: vec!["v0".to_owned()], ..Present::default() };
    // It says so of a later epoch; whether that is so, the log will tell.
    alone.peer(Epoch(2), Message::Present(present));
    alone.take();
    alone.ask(ASKER, Command::Backup("p".to_owned()));
    alone.pass(10 * S);
    let mut orders = 0;
    for action in alone.take() {
        match action {
            Action::Send { epoch, message, .. } if message.is_order() => {
                assert_eq!(epoch, Epoch(1), "{message:?}");
                orders += 1;
            }
            Action::Probe { .. } | Action::Start { .. } => panic!("it obeys itself: {action:?}"),
            _ => {}
        }
    }
    assert!(orders > 0);
}

/// A volume that both nodes can read, whose job reports first after `first_report_s`; the peer says in its beats that it sends bytes, or not.
/// How often the work was handed out until the point is there, within hours.
fn slow_uplinks(first_report_s: u64, sends: bool) -> Option<usize> {
    let mut alone = Alone::lead(&[PEER], names(1), &[("p", 1)]);
    let mut uploaded = 0;
    let present = |held: &Option<(Assignment, u64)>, uploaded| Present {
        boot: Boot(1),
        weight: 1,
        lanes: 1,
        volumes: names(1),
        held: held.iter().map(|(a, _)| (*a, a.from)).collect(),
        uploaded,
        ..Present::default()
    };
    let mut mine: Option<(Assignment, u64)> = None;
    let mut theirs = None;
    alone.peer(Epoch(1), Message::Present(present(&theirs, 0)));
    alone.ask(ASKER, Command::Backup("p".to_owned()));
    let (mut given, end) = (0, alone.now + 4 * 3600 * S);
    while alone.now < end {
        for action in alone.take() {
            match action {
                Action::Probe { ask, volumes, .. } => {
                    let mut found = found(volumes[0], 64);
                    // Nothing proves it unchanged: one node reads all of it.
                    found.volume.state = None;
                    alone.handle(Event::Probed { ask, found: vec![found], failed: vec![] });
                }
                Action::Send { message: Message::Probe { ask, volumes, .. }, .. } => {
                    let mut found = found(volumes[0], 64);
                    found.volume.state = None;
                    alone.peer(Epoch(1), Message::Probed { ask, found: vec![found], failed: vec![] });
                }
                Action::Start { assignment, .. } => {
                    given += 1;
                    mine = Some((assignment, alone.now + first_report_s * S));
                }
                Action::Stop(id) => {
                    mine = None;
                    alone.handle(Event::Ended { id, result: Ok(()) });
                }
                Action::Send { message: Message::Assign(assignment), .. } => {
                    given += 1;
                    theirs = Some((assignment, alone.now + first_report_s * S));
                }
                Action::Send { message: Message::Revoke { .. }, .. } => theirs = None,
                Action::Send { message: Message::Announce { .. }, .. } => {
                    uploaded += u64::from(sends) << 20;
                    alone.node.set_uploaded(uploaded);
                    alone.peer(Epoch(1), Message::Present(present(&theirs, uploaded)));
                }
                _ => {}
            }
        }
        if let Some((a, _)) = mine.take_if(|(_, due)| *due <= alone.now) {
            let progress =
                crate::worker::backup::Progress { from: a.from, to: a.to, last: true, ..Default::default() };
            alone.handle(Event::Progressed { id: a.id, progress });
            alone.handle(Event::Ended { id: a.id, result: Ok(()) });
        }
        if let Some((a, _)) = theirs.take_if(|(_, due)| *due <= alone.now) {
            let report = Report { assignment: a, sequence: 1, from: a.from, to: a.to, ..Report::default() };
            alone.peer(Epoch(1), Message::Report(report));
        }
        if !alone.node.view().state.points.is_empty() {
            return Some(given);
        }
        alone.pass(S);
    }
    None
}

#[test]
fn work_stays_with_a_node_whose_uplink_is_slow_and_leaves_one_that_does_nothing() {
    assert_eq!(slow_uplinks(100, false), Some(1));
    assert_eq!(slow_uplinks(2000, true), Some(1));
    assert_eq!(slow_uplinks(400, false), None, "neither sends anything: it goes from one to the other");
}

/// Bounds that a test comes near to.
const LITTLE: Room = Room { queue: 64, segments: 1024, retired_old: 64, retired_own: 512 };

/// Segments of a report.
pub fn segments(count: &mut u32, a: &Assignment, from: u64, number: u64) -> Vec<SegmentMeta> {
    let segment = |at| {
        *count += 1;
        SegmentMeta {
            id: ObjectId { epoch: a.id.epoch, node: NodeId(1), boot: Boot(78), count: *count },
            volume: a.volume.volume,
            backup_min: a.backup,
            backup_max: a.backup,
            index_bytes: 1,
            first_inode: from + at,
            last_inode: from + at,
            bytes: 4096,
            ..SegmentMeta::default()
        }
    };
    (0..number).map(segment).collect()
}

/// What takes the place of segments.
pub fn merged(count: &mut u32, order: &MergeOrder, state: &crate::log::state::State) -> SegmentMeta {
    let list = &state.segments[&order.volume];
    let group: Vec<&SegmentMeta> = list.iter().filter(|s| order.segments.contains(&s.id)).collect();
    *count += 1;
    SegmentMeta {
        id: ObjectId { epoch: order.id.epoch, node: NodeId(1), boot: Boot(78), count: *count },
        first_inode: group.iter().map(|s| s.first_inode).min().unwrap_or(0),
        last_inode: group.iter().map(|s| s.last_inode).max().unwrap_or(0),
        backup_min: group.iter().map(|s| s.backup_min).min().unwrap_or_default(),
        backup_max: group.iter().map(|s| s.backup_max).max().unwrap_or_default(),
        bytes: 2 << 20,
        ..*group[0]
    }
}

#[test]
fn a_backup_of_more_segments_than_there_may_be_waits_for_merges_and_ends() {
    let mut alone = Alone::lead_in(LITTLE);
    alone.ask(ASKER, Command::Backup("p".to_owned()));
    let (mut count, mut at, mut most, mut merges) = (0, 0, 0, 0);
    let mut job: Option<Assignment> = None;
    // Some times as many as may be live.
    let end = 8 * LITTLE.segments as u64;
    for _ in 0..1000 {
        for action in alone.take() {
            match action {
                Action::Probe { ask, volumes, .. } => {
                    alone.handle(Event::Probed { ask, found: vec![found(volumes[0], end)], failed: vec![] });
                }
                Action::Start { assignment, .. } => (job, at) = (Some(assignment), assignment.from.0),
                Action::Stop(id) => {
                    job = None;
                    alone.handle(Event::Ended { id, result: Ok(()) });
                }
                Action::Merge { order, state } => {
                    merges += 1;
                    let added = merged(&mut count, &order, &state);
                    alone.handle(Event::Merged { id: order.id, result: Ok(vec![added]) });
                }
                _ => {}
            }
        }
        if let Some(a) = job {
            let segments = segments(&mut count, &a, at, 128);
            let last = at + 128 >= end;
            let (from, to) = ((at, 0), (at + 128, 0));
            let progress = crate::worker::backup::Progress { segments, from, to, last, ..Default::default() };
            alone.handle(Event::Progressed { id: a.id, progress });
            at += 128;
            if last {
                job = None;
                alone.handle(Event::Ended { id: a.id, result: Ok(()) });
            }
        }
        alone.pass(2 * S);
        let state = &alone.node.view().state;
        most = most.max(state.segments.values().map(|list| list.len()).sum());
        if !state.points.is_empty() {
            assert!(most < LITTLE.segments * 3 / 2 && merges > 10, "{most} segments, {merges} merges");
            assert!(state.retired.len() < LITTLE.retired_own * 3, "{}", state.retired.len());
            return;
        }
    }
    panic!("it does not end: {most} segments at most, {merges} merges");
}

#[test]
fn merges_go_on_for_ever_under_one_holder() {
    let mut alone = Alone::lead_in(LITTLE);
    let (mut count, mut retired) = (0, 0);
    for round in 0..40u64 {
        alone.ask(ASKER + round, Command::Backup("p".to_owned()));
        for _ in 0..60 {
            for action in alone.take() {
                match action {
                    Action::Probe { ask, volumes, .. } => {
                        alone.handle(Event::Probed {
                            ask,
                            found: vec![found(volumes[0], 64)],
                            failed: vec![],
                        });
                    }
                    Action::Start { assignment: a, .. } => {
                        let segments = segments(&mut count, &a, 0, 128);
                        let progress = crate::worker::backup::Progress {
                            segments,
                            from: a.from,
                            to: a.to,
                            last: true,
                            ..Default::default()
                        };
                        alone.handle(Event::Progressed { id: a.id, progress });
                        alone.handle(Event::Ended { id: a.id, result: Ok(()) });
                    }
                    Action::Merge { order, state } => {
                        let added = merged(&mut count, &order, &state);
                        alone.handle(Event::Merged { id: order.id, result: Ok(vec![added]) });
                    }
                    _ => {}
                }
            }
            alone.pass(S);
            if alone.node.view().state.points.len() as u64 > round
                && alone.out.is_empty()
                && alone.node.waits() == 0
            {
                break;
            }
        }
        let state = &alone.node.view().state;
        assert_eq!(state.points.len() as u64, round + 1, "the backup does not end");
        let live: usize = state.segments.values().map(|list| list.len()).sum();
        assert!(live < 400, "{live} segments after {round} backups: nothing merges");
        retired = retired.max(state.retired.len());
    }
    assert!((LITTLE.retired_own..LITTLE.retired_own * 3).contains(&retired), "{retired}");
    assert!(alone.node.epoch().0 > 3, "{}", alone.node.epoch());
}

#[test]
fn the_status_says_what_is_left_of_the_lease() {
    let mut alone = Alone::lead(&[], names(1), &[("p", 1)]);
    alone.ask(ASKER, Command::Status);
    let Some(Reply::Status(json)) = reply_to(&alone.take(), ASKER) else { panic!("no status") };
    let status: serde_json::Value = serde_json::from_str(&json).unwrap();
    let left = status["coordinator"]["lease_left_ms"].as_u64().unwrap();
    assert!((1..=15_000).contains(&left), "{left} ms");
}

#[test]
fn a_volume_that_comes_while_others_are_looked_at_is_in_the_backup() {
    let mut alone = Alone::lead(&[], names(2), &[("p", 1)]);
    alone.ask(ASKER, Command::Backup("p".to_owned()));
    alone.pass(S);
    let asked = probes(&alone.take());
    assert_eq!(asked.len(), 1);
    let volumes = [1, 2].map(|id| (VolumeId(id), format!("v{}", id - 1))).to_vec();
    let change = PolicyChange { name: "p".to_owned(), revision: 2, body: vec![2], volumes };
    alone.ask(2, Command::Submit(vec![Record::PolicyChanged(change)]));
    let answer = |alone: &mut Alone, asked: Vec<(u64, VolumeId)>| {
        for (ask, volume) in asked {
            alone.handle(Event::Probed { ask, found: vec![found(volume, 64)], failed: vec![] });
        }
    };
    answer(&mut alone, asked);
    alone.pass(2 * S);
    for _ in 0..4 {
        let asked = probes(&alone.take());
        answer(&mut alone, asked);
        alone.pass(2 * S);
    }
    let state = &alone.node.view().state;
    let read: Vec<VolumeId> =
        state.running.values().flat_map(|of| of.volumes.iter().map(|volume| volume.volume)).collect();
    assert_eq!(read, [VolumeId(1), VolumeId(2)]);
}
