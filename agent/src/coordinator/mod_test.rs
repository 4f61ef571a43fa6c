//! Submissions, floors, and backups without some of their volumes, over a coordinator alone.

use std::sync::Arc;

use super::status::Here;
use super::*;
use crate::format::record::{BackupVolume, PolicyChange};
use crate::id::{ObjectId, Slot, VolumeId};
use crate::log::state::{Policy, Volume};
use crate::work::{Found, Present};

const ME: NodeId = NodeId(1);

/// Of a node alone.
fn settings() -> Settings {
    Settings {
        me: ME,
        peers: Vec::new(),
        beat_ns: 1,
        rest_ns: 1,
        merges: Bounds::default(),
        room: Room::default(),
        errand: None,
        checks: Checks::default(),
    }
}

/// What is answered to a change of policy `p` to revision 1 and `body`, which the log refuses because it has revision 1 with `x`.
fn answer(body: &[u8]) -> Reply {
    let mut state = State::default();
    let policy =
        Policy { revision: 1, slot: Slot(1), removed: false, body: b"x"[..].into(), volumes: Vec::new() };
    state.policies.insert("p".to_owned(), policy);
    let settings = settings();
    let now = Now { ns: 1, wall_ns: 1, state: &state };
    let mut coordinator = Coordinator::new(settings, Epoch(1), now);
    let change = PolicyChange { name: "p".to_owned(), revision: 1, body: body.to_vec(), volumes: Vec::new() };
    let command = Command::Submit(vec![Record::PolicyChanged(change)]);
    coordinator.handle(now, ME, Message::Request { request: 7, command });
    assert_eq!(coordinator.next_batch(now).map(|batch| batch.len()), Some(1));
    coordinator.refused(now, 0, Refusal::Revision);
    match coordinator.next_out() {
        Some(Out::Send(ME, Message::Reply { request: 7, reply })) => reply,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_submission_that_counts_already_is_done_and_one_that_another_made_is_refused() {
    assert_eq!(answer(b"x"), Reply::Done(None));
    assert_eq!(answer(b"y"), Reply::Refused(Refusal::Revision.to_string()));
}

#[test]
fn names_that_merges_have_retired_make_room_by_a_floor() {
    let mut state = State { epoch: Epoch(3), ..State::default() };
    let name = |count| ObjectId { epoch: Epoch(1), count, ..ObjectId::default() };
    let retired = (0..merges::RETIRED_FLOOR_MIN as u32).map(|count| (name(count), Slot(1)));
    state.retired = Arc::new(retired.collect());
    let settings = Settings { rest_ns: 1 << 40, ..settings() };
    let at = |ns| Now { ns, wall_ns: 1, state: &state };
    let mut coordinator = Coordinator::new(settings, Epoch(3), at(1));
    coordinator.turn(at(2));
    coordinator.turn(at(3));
    let floor = vec![Record::OrphanFloor { epoch: Epoch(2) }];
    assert_eq!(coordinator.next_batch(at(2 * GROUP_NS)), Some(floor), "once");
}

#[test]
fn an_epoch_is_renewed_for_a_floor_and_not_where_deletions_take_what_is_retired() {
    let renewed = |clocks: &[(Slot, i64)]| {
        let mut state = State { epoch: Epoch(3), orphan_floor: Epoch(2), ..State::default() };
        let name = |count| ObjectId { epoch: Epoch(1), count, ..ObjectId::default() };
        let many = merges::RETIRED_BY_MERGES_MAX as u32 / 2;
        state.retired = Arc::new((0..many).map(|count| (name(count), Slot(1))).collect());
        state.garbage.clocks = clocks.to_vec();
        let settings = Settings { rest_ns: 1 << 40, ..settings() };
        let at = |ns| Now { ns, wall_ns: 1, state: &state };
        let mut coordinator = Coordinator::new(settings, Epoch(3), at(1));
        coordinator.turn(at(2));
        std::iter::from_fn(|| coordinator.next_out()).any(|out| matches!(out, Out::Release(Some(ME))))
    };
    assert!(renewed(&[]));
    assert!(!renewed(&[(Slot(1), 1)]), "it would be renewed again and again");
}

/// Policy `p` of as many volumes as `devices`, of which this node opens those that are not `gone`: the answer to the request for its
/// backup, what was begun, and what the status says then.
fn start(devices: &[&str]) -> (Option<Reply>, Vec<Record>, String) {
    let mut state = State::default();
    let ids = (1..).map(VolumeId).take(devices.len());
    let volumes: Vec<VolumeId> = ids.collect();
    let body = b"x"[..].into();
    let policy = Policy { revision: 1, slot: Slot(1), removed: false, body, volumes: volumes.clone() };
    state.policies.insert("p".to_owned(), policy);
    for (&id, &device) in volumes.iter().zip(devices) {
        state.volumes.insert(id, Volume { policy: "p".to_owned(), device: device.to_owned() });
    }
    let settings = settings();
    let at = |ns| Now { ns, wall_ns: 1, state: &state };
    let mut coordinator = Coordinator::new(settings, Epoch(1), at(1));
    let named = devices.iter().map(|&device| device.to_owned()).collect();
    coordinator.handle(
        at(1),
        ME,
        Message::Present(Present { weight: 1, volumes: named, ..Present::default() }),
    );
    let command = Command::Backup("p".to_owned());
    coordinator.handle(at(1), ME, Message::Request { request: 7, command });
    for ns in 2..1000 {
        coordinator.turn(at(ns));
        while let Some(out) = coordinator.next_out() {
            match out {
                Out::Send(ME, Message::Probe { ask, volumes, .. }) => {
                    let (gone, there): (Vec<VolumeId>, _) =
                        volumes.into_iter().partition(|id| state.volumes[id].device == "gone");
                    let failed = gone.into_iter().map(|id| (id, "/dev/x: No such file".to_owned())).collect();
                    let volume = |volume| BackupVolume { volume, ..BackupVolume::default() };
                    let found = there
                        .into_iter()
                        .map(|id| Found { volume: volume(id), ..Found::default() })
                        .collect();
                    coordinator.handle(at(ns), ME, Message::Probed { ask, found, failed });
                }
                Out::Send(ME, Message::Reply { reply, .. }) => {
                    return (
                        Some(reply),
                        Vec::new(),
                        coordinator.status(at(ns), &BTreeMap::new(), &Here::default()),
                    );
                }
                _ => {}
            }
        }
        if let Some(batch) = coordinator.next_batch(at(ns)) {
            return (None, batch, coordinator.status(at(ns), &BTreeMap::new(), &Here::default()));
        }
    }
    (None, Vec::new(), String::new())
}

const WHY: &str = "gone: no node could open it (node 1: /dev/x: No such file)";

#[test]
fn a_volume_that_no_node_can_open_is_refused_with_each_nodes_words() {
    let why = format!("backup of p: {WHY}");
    assert_eq!(start(&["gone"]).0, Some(Reply::Refused(why)));
}

#[test]
fn a_try_that_failed_is_committed_at_once() {
    let state = State::default();
    let now = Now { ns: 1, wall_ns: 1, state: &state };
    let settings = Settings {
        // Without any, nothing waits.
        peers: vec![NodeId(2)],
        ..settings()
    };
    let mut coordinator = Coordinator::new(settings, Epoch(1), now);
    coordinator.try_failed(now, "p", "no reason");
    let batch = coordinator.next_batch(now).unwrap_or_default();
    assert!(matches!(&batch[..], [Record::BackupTried(tried)] if tried.failures == 1), "{batch:?}");
}

#[test]
fn a_policy_is_removed_in_a_batch_of_its_own() {
    let state = State::default();
    let now = Now { ns: 1, wall_ns: 1, state: &state };
    let settings = settings();
    let mut coordinator = Coordinator::new(settings, Epoch(1), now);
    let removal = Record::PolicyRemoved { name: "p".to_owned(), revision: 2 };
    let command = Command::Submit(vec![removal.clone()]);
    coordinator.handle(now, ME, Message::Request { request: 7, command });
    // Said of the policy meanwhile: behind the removal the log refuses it, with all of its batch, and it would be said again.
    coordinator.tried(now, "p", 0, "its schedule counts from now on".to_owned());
    assert_eq!(coordinator.next_batch(now), Some(vec![removal]));
    coordinator.committed(now);
    assert!(matches!(coordinator.next_batch(now).as_deref(), Some([Record::BackupTried(_)])));
}

#[test]
fn volumes_that_can_be_opened_are_backed_up_without_one_that_cannot() {
    let (reply, begun, status) = start(&["gone", "there"]);
    let [Record::BackupBegun(start)] = &begun[..] else { panic!("{reply:?} {begun:?}") };
    let read: Vec<VolumeId> = start.volumes.iter().map(|of| of.volume).collect();
    assert_eq!((&read[..], &start.missing[..]), (&[VolumeId(2)][..], &[VolumeId(1)][..]));
    assert!(status.contains(WHY), "{status}");
}
