//! One real node over a store in memory; a test is its peers, its users and its jobs.

use std::collections::VecDeque;

use super::*;
use crate::backplane::message::{Assignment, AssignmentId, Command, Found, Reply};
use crate::coordinator::{PROBES_NODE_MAX, QUEUE_MAX};
use crate::format::record::{BackupVolume, PolicyChange, Record};
use crate::format::slot::{Author, PlainForTests};
use crate::id::Boot;
use crate::log::call::perform;
use crate::log::lease::Identity;
use crate::log::writer::WriterOptions;
use crate::store::memory::MemoryStore;
use crate::table::plan::Bounds;

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
}

pub fn names(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("v{number}")).collect()
}

/// What a node says that has opened a volume.
pub fn found(volume: VolumeId, end: u64) -> Found {
    let volume = BackupVolume { volume, fs_uuid: [1; 16], state: Some([1; 16]), ..BackupVolume::default() };
    Found { volume, end: (end, 0), grain: 64, items: 1, bytes: 1, ..Found::default() }
}

impl Alone {
    pub fn new(peers: &[NodeId], volumes: Vec<String>) -> Alone {
        let me = Author { node: NodeId(1), boot: Boot(78) };
        let config = Config {
            identity: Identity { cluster: [9; 16], me },
            peers: peers.to_vec(),
            sealer: PlainForTests,
            options: WriterOptions::default(),
            present: Present { boot: me.boot, weight: 1, lanes: 1, volumes, ..Present::default() },
            rest_ns: 600 * S,
            merges: Bounds::default(),
            queue_max: QUEUE_MAX,
            request_ns: 600 * S,
            seed: [9; 32],
        };
        Alone {
            node: Node::new(S, config),
            store: MemoryStore::default(),
            now: 2 * S,
            calls: VecDeque::new(),
            out: Vec::new(),
        }
    }

    /// One that coordinates, with policies of so many volumes each, numbered on.
    pub fn lead(peers: &[NodeId], volumes: Vec<String>, policies: &[(&str, usize)]) -> Alone {
        let mut alone = Alone::new(peers, volumes);
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

fn reply_to(actions: &[Action], client: u64) -> Option<Reply> {
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
