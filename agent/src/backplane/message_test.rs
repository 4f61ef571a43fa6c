//! Bodies come back as they were, and a node of version 1 gets what it understands.

use super::*;
use crate::format::record::{Record, Totals};
use crate::id::{Boot, KEY_END, ObjectId};

fn every_message() -> Vec<Message> {
    let id = AssignmentId { epoch: Epoch(7), number: 3 };
    let volume = BackupVolume {
        volume: VolumeId(2),
        fs_uuid: [5; 16],
        state: Some([6; 16]),
        ..BackupVolume::default()
    };
    let assignment = Assignment { id, backup: BackupId(9), volume, from: (1, 2), to: KEY_END };
    let object = ObjectId { epoch: Epoch(7), node: NodeId(1), boot: Boot(11), count: 4 };
    let order = MergeOrder { id, volume: VolumeId(2), segments: vec![object; 3] };
    vec![
        Message::Announce { resting: true, successor: Some(NodeId(3)) },
        Message::Present(Present {
            boot: Boot(1),
            weight: 1000,
            memory_bytes: 64 << 20,
            lanes: 2,
            rate: 3,
            volumes: vec!["lun-7".to_owned(), "/dev/sdb".to_owned()],
            held: vec![(assignment, (4, 0))],
            merging: Some(id),
            uploaded: 1 << 40,
        }),
        Message::Probe { ask: 5, policy: "home".to_owned(), volumes: vec![VolumeId(2)] },
        Message::Probed {
            ask: 5,
            found: vec![Found {
                volume,
                end: (100, 0),
                grain: 16,
                items: 90,
                bytes: 1 << 30,
                unmatched: Unmatched::first(67),
                marks: Marks(std::array::from_fn(|at| at as u64)),
            }],
            failed: vec![(VolumeId(3), "no such device".to_owned())],
        },
        Message::Assign(assignment),
        Message::Report(Report {
            assignment,
            sequence: 1,
            from: (1, 2),
            to: (8, 0),
            objects: vec![(object, 4 << 20)],
            segments: vec![SegmentMeta { index_bytes: 64, bytes: 4096, ..SegmentMeta::default() }],
            totals: Totals { items: 7, ..Totals::default() },
            troubles: vec![(5, "12 bytes could not be read".to_owned())],
            newest_secs: Some(-7),
        }),
        Message::Accepted { id, sequence: 1 },
        Message::Revoke { id },
        Message::Failed { id, what: "gone".to_owned() },
        Message::Fenced,
        Message::Request { request: 1, command: Command::Backup("home".to_owned()) },
        Message::Request { request: 2, command: Command::Status },
        Message::Request { request: 3, command: Command::Move(NodeId(2)) },
        Message::Request {
            request: 4,
            command: Command::Submit(vec![Record::PolicyRemoved { name: "home".to_owned(), revision: 2 }]),
        },
        Message::Request { request: 5, command: Command::Stop("home".to_owned()) },
        Message::Request { request: 6, command: Command::Flush },
        Message::Flush { ask: 7 },
        Message::Flushed { ask: 7 },
        Message::Divide { policy: "home".to_owned(), nodes: 3 },
        Message::Reply { request: 1, reply: Reply::Done(Some(BackupId(3))) },
        Message::Reply { request: 2, reply: Reply::Status("{}".to_owned()) },
        Message::Reply { request: 3, reply: Reply::Refused("no".to_owned()) },
        Message::Redirect { request: 4, holder: Some(NodeId(2)) },
        Message::Merge(order.clone()),
        Message::Merged {
            order,
            added: vec![SegmentMeta { index_bytes: 64, bytes: 4096, ..SegmentMeta::default() }],
        },
    ]
}

#[test]
fn every_message_comes_back_as_it_was_and_every_cut_is_refused() {
    for message in every_message() {
        let mut body = Vec::new();
        message.emit(&mut body);
        assert_eq!(Message::parse(message.kind(), &body), Ok(message.clone()));
        assert!(KINDS.contains(&message.kind()));
        // Version 1 ends a field earlier.
        let older = body.len() - message.newer_bytes();
        for cut in (0..body.len()).filter(|cut| *cut != older) {
            assert!(Message::parse(message.kind(), &body[..cut]).is_err(), "{message:?} cut at {cut}");
        }
        body.push(0);
        assert!(Message::parse(message.kind(), &body).is_err(), "{message:?} goes on after its end");
    }
}

#[test]
fn a_node_of_version_1_is_told_what_it_understands() {
    let present = Present { volumes: vec!["lun-7".to_owned()], uploaded: 5, ..Present::default() };
    let (mut old, mut new) = (Vec::new(), Vec::new());
    Message::Present(present.clone()).emit_for(1, &mut old);
    Message::Present(present.clone()).emit_for(2, &mut new);
    assert_eq!(old.len() + UPLOADED_BYTES, new.len());
    let without = Present { uploaded: 0, ..present.clone() };
    assert_eq!(Message::parse(17, &old), Ok(Message::Present(without)));
    assert_eq!(Message::parse(17, &new), Ok(Message::Present(present)));
    let marked = Found { marks: Marks([9; MARKS]), ..Found::default() };
    let probed = |found| Message::Probed { ask: 1, found: vec![found], failed: Vec::new() };
    old.clear();
    probed(marked).emit_for(1, &mut old);
    assert_eq!(Message::parse(19, &old), Ok(probed(Found::default())));
    let newer: Vec<u8> = every_message().iter().filter(|m| m.since() > 1).map(Message::kind).collect();
    assert_eq!(newer, [26, 31, 32, 33]);
}

#[test]
fn long_texts_are_cut_at_a_character() {
    let id = AssignmentId::default();
    let mut body = Vec::new();
    Message::Failed { id, what: "ä".repeat(WHAT_BYTES_MAX) }.emit(&mut body);
    let parsed = Message::parse(24, &body);
    assert_eq!(parsed, Ok(Message::Failed { id, what: "ä".repeat(WHAT_BYTES_MAX / 2) }));
}
