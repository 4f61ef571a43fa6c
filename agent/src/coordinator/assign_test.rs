//! Reports of what is done: who may be told that his objects count.

use std::sync::Arc;

use super::super::{GROUP_NS, Out, Settings};
use super::*;
use crate::format::record::{BackupVolume, Record, Stretch};
use crate::id::{Epoch, ObjectId};
use crate::log::state::{self, Running};
use crate::log::stretches::Stretches;
use crate::work::Found;

const BACKUP: BackupId = BackupId(1);
const WORKER: NodeId = NodeId(2);

fn object(count: u32) -> ObjectId {
    ObjectId { epoch: Epoch(1), node: WORKER, count, ..ObjectId::default() }
}

/// A backup of which the first ten inodes are done, with object 1.
fn state() -> State {
    let volume = BackupVolume { volume: VolumeId(1), ..BackupVolume::default() };
    let mut done = Stretches::default();
    done.add(&Stretch { volume: VolumeId(1), from: (0, 0), to: (10, 0) }).unwrap();
    let running = Running {
        policy: "p".to_owned(),
        slot: crate::id::Slot(1),
        volumes: vec![volume],
        missing: Vec::new(),
        wall_start_ns: 0,
        done,
        totals: Default::default(),
        newest_secs: Default::default(),
        is_stopped: false,
    };
    let mut state = State::default();
    state.running.insert(BACKUP, running);
    Arc::make_mut(&mut state.live).insert(&object(1));
    state
}

fn coordinator(state: &State) -> Coordinator {
    let now = Now { ns: 1, wall_ns: 1, state };
    let settings = Settings {
        me: NodeId(1),
        peers: vec![WORKER],
        beat_ns: 1000,
        rest_ns: 1000,
        merges: Default::default(),
        room: Default::default(),
        errand: None,
        checks: Default::default(),
    };
    Coordinator::new(settings, Epoch(1), now)
}

/// All of the backup, and a report of what is done, naming an object.
fn report(state: &State, count: u32) -> Report {
    let assignment = Assignment {
        id: AssignmentId { epoch: Epoch(1), number: 7 },
        backup: BACKUP,
        volume: state.running[&BACKUP].volumes[0],
        from: (0, 0),
        to: (20, 0),
    };
    let objects = vec![(object(count), 1)];
    Report { assignment, sequence: 1, from: (0, 0), to: (10, 0), objects, ..Report::default() }
}

fn answers(count: u32) -> Vec<Message> {
    let state = state();
    let mut coordinator = coordinator(&state);
    let now = Now { ns: 1, wall_ns: 1, state: &state };
    coordinator.report(now, WORKER, report(&state, count));
    sent(&mut coordinator)
}

fn sent(coordinator: &mut Coordinator) -> Vec<Message> {
    let outs = std::iter::from_fn(|| coordinator.next_out());
    outs.filter_map(|out| if let Out::Send(_, message) = out { Some(message) } else { None }).collect()
}

#[test]
fn a_report_that_came_twice_is_accepted_and_one_of_a_stretch_that_another_did_is_not() {
    let id = AssignmentId { epoch: Epoch(1), number: 7 };
    assert_eq!(answers(1), [Message::Accepted { id, sequence: 1 }]);
    assert_eq!(answers(2), [Message::Revoke { id }], "no table names object 2");
}

#[test]
fn a_worker_that_was_not_told_of_its_last_commit_keeps_its_work() {
    let state = state();
    let mut coordinator = coordinator(&state);
    let now = Now { ns: 1, wall_ns: 1, state: &state };
    let report = report(&state, 1);
    let id = report.assignment.id;
    let present = Present { weight: 1, held: vec![(report.assignment, (0, 0))], ..Present::default() };
    coordinator.present(now, WORKER, present);
    coordinator.report(now, WORKER, report);
    assert_eq!(sent(&mut coordinator), [Message::Accepted { id, sequence: 1 }], "and nothing is revoked");
    assert_eq!(coordinator.assigned[&id].done, (10, 0));
}

#[test]
fn nodes_are_told_by_how_many_they_divide_the_limits_of_a_policy() {
    let state = state();
    let mut coordinator = coordinator(&state);
    let now = Now { ns: 1, wall_ns: 1, state: &state };
    let told = |coordinator: &mut Coordinator| {
        coordinator.turn_divided(now);
        let outs = std::iter::from_fn(|| coordinator.next_out());
        let divided = outs.filter_map(|out| match out {
            Out::Send(node, Message::Divide { policy, nodes }) if policy == "p" => Some((node.0, nodes)),
            _ => None,
        });
        divided.collect::<Vec<_>>()
    };
    let assignment = report(&state, 1).assignment;
    let to_do = |from: u64| Assignment { from: (from, 0), to: (from + 10, 0), ..assignment };
    coordinator.assign(now, WORKER, to_do(10));
    assert_eq!(told(&mut coordinator), [(2, 1)], "it may have been told another number before");
    coordinator.assign(now, NodeId(1), to_do(20));
    assert_eq!(told(&mut coordinator), [(1, 2), (2, 2)]);
    coordinator.assign(now, WORKER, to_do(30));
    assert_eq!(told(&mut coordinator), []);
    coordinator.assigned.retain(|_, assigned| assigned.node == WORKER);
    assert_eq!(told(&mut coordinator), [(2, 1)]);
    // A connection that broke may have lost it.
    coordinator.set_up(now, WORKER, false);
    assert_eq!(told(&mut coordinator), [(2, 1)]);
}

#[test]
fn last_reports_gather_while_their_workers_go_on() {
    let state = state();
    let mut coordinator = coordinator(&state);
    let now = Now { ns: 1, wall_ns: 1, state: &state };
    let volume = state.running[&BACKUP].volumes[0];
    for from in [10, 20] {
        let (from, to) = ((from, 0), (from + 10, 0));
        coordinator.assign(
            now,
            WORKER,
            Assignment { backup: BACKUP, volume, from, to, ..Assignment::default() },
        );
    }
    assert!(!coordinator.has_room(WORKER), "one that it works on, and the next");
    let given: Vec<Assignment> = coordinator.assigned.values().map(|a| a.assignment).collect();
    let last = |assignment: Assignment| {
        let Assignment { from, to, .. } = assignment;
        Report { assignment, sequence: 1, from, to, ..Report::default() }
    };
    coordinator.report(now, WORKER, last(given[0]));
    assert!(coordinator.has_room(WORKER));
    assert_eq!(coordinator.commit_due(), Some(1 + GROUP_NS), "others may come into the same slot");
    coordinator.report(now, WORKER, last(given[1]));
    assert_eq!(coordinator.commit_due(), Some(0), "a worker waits");
    assert_eq!(coordinator.next_batch(now).map(|batch| batch.len()), Some(2));
}

#[test]
fn work_on_another_state_of_the_volume_is_taken_back() {
    let state = state();
    let mut coordinator = coordinator(&state);
    let now = Now { ns: 1, wall_ns: 1, state: &state };
    let mut report = report(&state, 2);
    (report.from, report.to) = ((10, 0), (20, 0));
    report.assignment.volume.state = Some([1; 16]);
    let (id, held) = (report.assignment.id, vec![(report.assignment, (10, 0))]);
    coordinator.report(now, WORKER, report);
    assert_eq!(sent(&mut coordinator), [Message::Revoke { id }], "it would come into the point");
    coordinator.present(now, WORKER, Present { weight: 1, held, ..Present::default() });
    assert_eq!(sent(&mut coordinator), [Message::Revoke { id }], "nor is it adopted");
}

/// A coordinator of a state with a volume's name, and what it handed out: the rest of the backup.
fn handed_out(state: &mut State, to: NodeId) -> (Coordinator, AssignmentId) {
    let volume = crate::log::state::Volume { policy: "p".to_owned(), device: "v".to_owned() };
    state.volumes.insert(VolumeId(1), volume);
    let mut coordinator = coordinator(state);
    let now = Now { ns: 1, wall_ns: 1, state };
    for node in [NodeId(1), WORKER] {
        coordinator.set_up(now, node, true);
        let volumes = vec!["v".to_owned()];
        coordinator.present(now, node, Present { weight: 1, volumes, ..Present::default() });
    }
    let volume = state.running[&BACKUP].volumes[0];
    let (from, to_key) = ((10, 0), (20, 0));
    let rest = Assignment { backup: BACKUP, volume, from, to: to_key, ..Assignment::default() };
    coordinator.assign(now, to, rest);
    sent(&mut coordinator);
    let id = *coordinator.assigned.keys().next().unwrap();
    (coordinator, id)
}

#[test]
fn a_node_whose_work_another_did_is_told() {
    let mut state = state();
    let (mut coordinator, id) = handed_out(&mut state, NodeId(1));
    let now = Now { ns: 1, wall_ns: 1, state: &state };
    let report = Report { from: (10, 0), to: (20, 0), ..report(&state, 2) };
    let accepted = Message::Accepted { id: report.assignment.id, sequence: 1 };
    coordinator.report_committed(now, WORKER, &report);
    assert_eq!(sent(&mut coordinator), [accepted, Message::Revoke { id }]);
}

#[test]
fn a_node_that_says_that_it_holds_what_another_has_is_told() {
    let mut state = state();
    let (mut coordinator, _) = handed_out(&mut state, NodeId(1));
    let now = Now { ns: 1, wall_ns: 1, state: &state };
    let assignment = report(&state, 2).assignment;
    let held = vec![(assignment, (10, 0))];
    coordinator.present(now, WORKER, Present { weight: 1, held, ..Present::default() });
    assert_eq!(sent(&mut coordinator), [Message::Revoke { id: assignment.id }]);
}

#[test]
fn a_slow_node_is_told_that_its_work_goes_to_another() {
    let mut state = state();
    let (mut coordinator, id) = handed_out(&mut state, WORKER);
    let now = Now { ns: SLOW_NS, wall_ns: 1, state: &state };
    coordinator.look_after_nodes(now);
    assert_eq!(sent(&mut coordinator), []);
    coordinator.look_after_nodes(Now { ns: SLOW_NS + 1, ..now });
    assert_eq!(sent(&mut coordinator), [Message::Revoke { id }]);
}

/// Whether a takeover goes on with a backup of two volumes, of which the second proves nothing of its state and is done up to `done`.
fn goes_on(done: u64) -> bool {
    let (mut state, me) = (state(), NodeId(1));
    let volume = |id, state| BackupVolume { volume: VolumeId(id), state, ..BackupVolume::default() };
    let volumes = vec![volume(1, Some([1; 16])), volume(2, None)];
    for (id, device) in [(1, "proven"), (2, "unproven")] {
        let policy = "p".to_owned();
        state.volumes.insert(VolumeId(id), state::Volume { policy, device: device.to_owned() });
    }
    let policy = state::Policy {
        revision: 1,
        slot: crate::id::Slot(1),
        removed: false,
        body: b"x"[..].into(),
        volumes: vec![VolumeId(1), VolumeId(2)],
    };
    state.policies.insert("p".to_owned(), policy);
    (state.epoch, state.last_backup) = (Epoch(1), BACKUP);
    let running = state.running.get_mut(&BACKUP).unwrap();
    running.volumes.clone_from(&volumes);
    if done > 0 {
        running.done.add(&Stretch { volume: VolumeId(2), from: (0, 0), to: (done, 0) }).unwrap();
    }
    let mut coordinator = coordinator(&state);
    let at = |ns| Now { ns, wall_ns: 1, state: &state };
    let devices = vec!["proven".to_owned(), "unproven".to_owned()];
    let present = Present { weight: 1, volumes: devices, ..Present::default() };
    coordinator.handle(at(1), me, Message::Present(present));
    for ns in (2..20_000).step_by(100) {
        coordinator.turn(at(ns));
        for message in sent(&mut coordinator) {
            match message {
                Message::Probe { ask, volumes: asked, .. } => {
                    let found = volumes.iter().filter(|volume| asked.contains(&volume.volume));
                    let found =
                        found.map(|&volume| Found { volume, end: (64, 0), grain: 1, ..Found::default() });
                    let found = found.collect();
                    coordinator.handle(at(ns), me, Message::Probed { ask, found, failed: Vec::new() });
                }
                Message::Assign(assignment) => {
                    assert_eq!(assignment.backup, BACKUP);
                    return true;
                }
                _ => {}
            }
        }
        if let Some(batch) = coordinator.next_batch(at(ns)) {
            assert!(matches!(batch[..], [Record::BackupBegun(_)]), "{batch:?}");
            return false;
        }
    }
    panic!("nothing is done");
}

#[test]
fn a_takeover_goes_on_with_a_volume_without_proof_of_which_nothing_was_read() {
    assert!(goes_on(0));
    assert!(!goes_on(10), "somebody may have changed it");
}
