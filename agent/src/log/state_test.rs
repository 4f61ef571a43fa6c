//! The rules of the fold, record by record, and checkpoints of states that have everything in them.

use super::super::checkpoint::Checkpoint;
use super::*;
use crate::coordinator::merges;
use crate::format::cursor::WireFault;
use crate::format::mark::{MarkPart, PointMark};
use crate::format::record::{Stretch, Swept, Tried};
use crate::format::slot::PlainForTests;
use crate::id::{Boot, KEY_END, KEY_START, Key};
use crate::log::limits::UNFINISHED_MAX;
use crate::log::names::NameSet;

fn header(slot: u64, epoch: u64) -> SlotHeader {
    let writer = Author { node: NodeId(1), boot: Boot(epoch) };
    SlotHeader {
        cluster: [1; 16],
        slot: Slot(slot),
        epoch: Epoch(epoch),
        writer,
        nonce: [0; 16],
        previous: [0; 32],
    }
}

/// Applies to a copy, so that a refusal leaves the state as it was.
fn put(state: &mut State, slot: u64, records: &[Record]) -> Result<(), Refusal> {
    let mut next = state.clone();
    next.apply_slot(&header(slot, state.epoch.0), records).map_err(|(_, why)| why)?;
    *state = next;
    Ok(())
}

fn begin(state: &mut State, slot: u64, epoch: u64) -> Result<(), Refusal> {
    let record = Record::EpochBegun { epoch: Epoch(epoch) };
    state.apply_slot(&header(slot, epoch), &[record]).map_err(|(_, why)| why)
}

fn name(epoch: u64, count: u32) -> ObjectId {
    ObjectId { epoch: Epoch(epoch), node: NodeId(1), boot: Boot(epoch), count }
}

fn policy(revision: u32, volumes: &[u32]) -> Record {
    Record::PolicyChanged(PolicyChange {
        name: "homes".into(),
        revision,
        body: vec![b'{', b'}'],
        volumes: volumes.iter().map(|&volume| (VolumeId(volume), format!("/dev/{volume}"))).collect(),
    })
}

fn start(backup: u32) -> Record {
    let volume = BackupVolume {
        volume: VolumeId(1),
        fs_uuid: [2; 16],
        state: Some([3; 16]),
        ..BackupVolume::default()
    };
    Record::BackupBegun(BackupStart {
        backup: BackupId(backup),
        policy: "homes".into(),
        volumes: vec![volume],
        wall_start_ns: 5,
        missing: Vec::new(),
    })
}

fn commit(backup: u32, objects: &[ObjectId], segments: &[ObjectId], removed: &[ObjectId]) -> Record {
    let meta = |&id: &ObjectId| SegmentMeta {
        id,
        volume: VolumeId(1),
        first_inode: u64::from(id.count),
        last_inode: u64::from(id.count) + 9,
        backup_min: BackupId(backup.max(1)),
        backup_max: BackupId(backup.max(1)),
        index_bytes: 1,
        bytes: 1000,
        ..SegmentMeta::default()
    };
    Record::Commit(Commit {
        backup: BackupId(backup),
        objects: objects.iter().map(|&id| (id, 10)).collect(),
        segments: segments.iter().map(meta).collect(),
        removed: removed.to_vec(),
        progress: Vec::new(),
        ..Commit::default()
    })
}

fn done(backup: u32, volume: u32, from: Key, to: Key) -> Record {
    let progress = vec![Stretch { volume: VolumeId(volume), from, to }];
    let totals = Totals { items: 3, bytes_stored: 100, ..Totals::default() };
    Record::Commit(Commit { backup: BackupId(backup), progress, totals, ..Commit::default() })
}

fn all_done(backup: u32) -> Record {
    done(backup, 1, KEY_START, KEY_END)
}

fn end(backup: u32) -> Record {
    Record::BackupEnded(BackupEnd { backup: BackupId(backup), wall_end_ns: 6 })
}

/// Epoch 1, policy with volumes 1 and 2, backup 1 running.
fn running() -> State {
    let mut state = State::default();
    begin(&mut state, 1, 1).unwrap();
    put(&mut state, 2, &[policy(1, &[1, 2]), start(1)]).unwrap();
    state
}

#[test]
fn a_slot_needs_the_epoch_and_the_writer_that_hold() {
    let mut state = State::default();
    assert_eq!(put(&mut state, 1, &[policy(1, &[1])]), Err(Refusal::Epoch));
    begin(&mut state, 1, 3).unwrap();
    assert_eq!(begin(&mut state.clone(), 2, 3), Err(Refusal::Epoch));
    assert_eq!(begin(&mut state.clone(), 2, 2), Err(Refusal::Epoch));
    let mut other = header(2, 3);
    other.writer.boot = Boot(99);
    assert_eq!(state.clone().apply_slot(&other, &[policy(1, &[1])]), Err((0, Refusal::Writer)));
    let late = [policy(1, &[1]), Record::EpochBegun { epoch: Epoch(3) }];
    assert_eq!(put(&mut state, 2, &late), Err(Refusal::Order));
    put(&mut state, 2, &[policy(1, &[1]), Record::Yield { successor: None }]).unwrap();
    assert_eq!(put(&mut state, 3, &[policy(2, &[1])]), Err(Refusal::Order));
    begin(&mut state, 3, 4).unwrap();
    assert_eq!(state.yielded, None);
    let after = [Record::Yield { successor: None }, policy(2, &[1])];
    assert_eq!(put(&mut state, 4, &after), Err(Refusal::Order));
}

#[test]
fn policies_count_revisions_and_keep_their_volumes() {
    let mut state = running();
    assert_eq!(put(&mut state, 3, &[policy(3, &[1])]), Err(Refusal::Revision));
    assert_eq!(put(&mut state, 3, &[policy(2, &[1, 1])]), Err(Refusal::Volume));
    assert_eq!(put(&mut state, 3, &[policy(2, &[1, 4])]), Err(Refusal::Volume), "3 is next");
    put(&mut state, 3, &[policy(2, &[1, 3])]).unwrap();
    assert_eq!((state.volumes.len(), state.next_volume()), (3, Some(VolumeId(4))));
    let mine = Record::PolicyChanged(PolicyChange {
        name: "mail".into(),
        revision: 1,
        body: Vec::new(),
        volumes: vec![(VolumeId(1), "/dev/1".into())],
    });
    assert_eq!(put(&mut state, 4, &[mine]), Err(Refusal::Volume));
    put(&mut state, 4, &[Record::PolicyRemoved { name: "homes".into(), revision: 3 }]).unwrap();
    put(&mut state, 5, &[Record::BackupAbandoned { backup: BackupId(1) }]).unwrap();
    assert_eq!(put(&mut state, 6, &[start(2)]), Err(Refusal::NoPolicy));
    put(&mut state, 6, &[policy(4, &[1]), start(2)]).unwrap();
}

#[test]
fn a_backup_that_is_given_up_leaves_the_tables() {
    let mut state = running();
    put(&mut state, 3, &[commit(1, &[name(1, 0)], &[name(1, 1)], &[]), all_done(1), end(1), start(2)])
        .unwrap();
    put(&mut state, 4, &[commit(2, &[name(1, 2)], &[name(1, 3), name(1, 4)], &[])]).unwrap();
    put(&mut state, 5, &[Record::BackupAbandoned { backup: BackupId(2) }]).unwrap();
    let left: Vec<ObjectId> = state.segments.values().flat_map(|list| list.iter()).map(|s| s.id).collect();
    assert_eq!(left, [name(1, 1)]);
    let retired: Vec<_> = state.retired.iter().map(|(&id, &slot)| (id, slot)).collect();
    assert_eq!(retired, [(name(1, 3), Slot(5)), (name(1, 4), Slot(5))]);
    assert!(state.live.contains(&name(1, 2)), "its objects are for whoever collects garbage");
}

#[test]
fn segments_of_a_running_backup_are_of_nothing_else() {
    let mut state = running();
    put(&mut state, 3, &[commit(1, &[], &[name(1, 1)], &[]), all_done(1), end(1), start(2)]).unwrap();
    put(&mut state, 4, &[commit(2, &[], &[name(1, 2), name(1, 3)], &[])]).unwrap();
    let merged = |min, max| {
        let Record::Commit(mut record) = commit(0, &[], &[name(1, 9)], &[name(1, 2), name(1, 3)]) else {
            panic!()
        };
        (record.segments[0].backup_min, record.segments[0].backup_max) = (BackupId(min), BackupId(max));
        Record::Commit(record)
    };
    assert_eq!(
        put(&mut state.clone(), 5, &[merged(1, 2)]),
        Err(Refusal::Segment),
        "it could not be given up any more"
    );
    put(&mut state.clone(), 5, &[merged(2, 2)]).unwrap();
    let mut elsewhere = state.clone();
    elsewhere.running.get_mut(&BackupId(2)).unwrap().volumes[0].volume = VolumeId(2);
    put(&mut elsewhere, 5, &[merged(1, 2)]).unwrap();
    put(&mut state, 5, &[all_done(2), end(2)]).unwrap();
    put(&mut state, 6, &[merged(1, 2)]).unwrap();
    assert_eq!(put(&mut state, 7, &[start(3), commit(3, &[], &[name(1, 10)], &[])]), Ok(()));
    let Record::Commit(mut old) = commit(3, &[], &[name(1, 11)], &[]) else { panic!() };
    old.segments[0].backup_min = BackupId(2);
    assert_eq!(put(&mut state, 8, &[Record::Commit(old)]), Err(Refusal::Segment));
}

#[test]
fn a_backup_runs_once_and_becomes_a_point() {
    let mut state = running();
    assert_eq!(put(&mut state, 3, &[start(3)]), Err(Refusal::Backup), "not the next number");
    assert_eq!(put(&mut state, 3, &[end(2)]), Err(Refusal::Backup));
    let rows = commit(1, &[name(1, 0), name(1, 1)], &[name(1, 2)], &[]);
    put(&mut state, 3, &[rows, all_done(1), end(1)]).unwrap();
    assert_eq!(put(&mut state, 4, &[end(1)]), Err(Refusal::Backup));
    assert_eq!(put(&mut state, 4, &[commit(1, &[], &[], &[])]), Err(Refusal::Backup));
    assert_eq!(put(&mut state, 4, &[start(1)]), Err(Refusal::Backup), "numbers are not used twice");
    assert_eq!(state.last_point("homes").map(|point| point.backup), Some(BackupId(1)));
    put(&mut state, 4, &[Record::PointExpired { backup: BackupId(1) }]).unwrap();
    assert_eq!(put(&mut state, 5, &[Record::PointExpired { backup: BackupId(1) }]), Err(Refusal::NoPoint));
}

#[test]
fn stretches_are_done_once_and_a_point_needs_all_of_them() {
    let mut state = State::default();
    begin(&mut state, 1, 1).unwrap();
    let volume = |volume| BackupVolume { volume: VolumeId(volume), ..BackupVolume::default() };
    let both = Record::BackupBegun(BackupStart {
        backup: BackupId(1),
        policy: "homes".into(),
        volumes: vec![volume(1), volume(2)],
        wall_start_ns: 5,
        missing: Vec::new(),
    });
    put(&mut state, 2, &[policy(1, &[1, 2, 3]), both]).unwrap();
    put(&mut state, 3, &[done(1, 1, (10, 5), (20, 0)), done(1, 2, KEY_START, KEY_END)]).unwrap();
    assert_eq!(put(&mut state, 4, &[done(1, 1, (10, 5), (20, 0))]), Err(Refusal::Progress), "once more");
    assert_eq!(put(&mut state, 4, &[done(1, 1, (10, 4), (10, 6))]), Err(Refusal::Progress));
    assert_eq!(put(&mut state, 4, &[done(1, 3, (1, 0), (2, 0))]), Err(Refusal::Volume));
    assert_eq!(put(&mut state, 4, &[done(0, 1, (1, 0), (2, 0))]), Err(Refusal::Progress), "of no backup");
    assert_eq!(put(&mut state, 4, &[end(1)]), Err(Refusal::Gap));
    put(&mut state, 4, &[done(1, 1, KEY_START, (10, 5))]).unwrap();
    assert_eq!(put(&mut state, 5, &[end(1)]), Err(Refusal::Gap), "the end is open");
    assert_eq!(put(&mut state, 5, &[done(1, 1, (20, 1), KEY_END), end(1)]), Err(Refusal::Gap));
    put(&mut state, 5, &[done(1, 1, (20, 1), KEY_END)]).unwrap();
    assert_eq!(put(&mut state, 6, &[end(1)]), Err(Refusal::Gap), "one block is missing");
    assert_eq!(state.running[&BackupId(1)].done.gaps(VolumeId(1)), [((20, 0), (20, 1))]);
    put(&mut state, 6, &[done(1, 1, (20, 0), (20, 1)), end(1)]).unwrap();
    let point = &state.points[&BackupId(1)];
    assert_eq!((point.totals.items, point.totals.bytes_stored), (15, 500), "the sums of five commits");
    assert_eq!(point.status, PointStatus::Complete);
}

#[test]
fn one_fault_in_any_commit_marks_the_point() {
    let mut state = running();
    let totals = Totals { faults: 1, items: u64::MAX, ..Totals::default() };
    let fault = Record::Commit(Commit { backup: BackupId(1), totals, ..Commit::default() });
    put(&mut state, 3, &[fault, all_done(1), end(1)]).unwrap();
    let point = &state.points[&BackupId(1)];
    assert_eq!((point.status, point.totals.items), (PointStatus::WithErrors, u64::MAX));
}

#[test]
fn a_name_comes_once_and_never_back() {
    let mut state = running();
    put(&mut state, 3, &[commit(1, &[name(1, 0)], &[name(1, 1)], &[])]).unwrap();
    assert_eq!(put(&mut state, 4, &[commit(1, &[name(1, 0)], &[], &[])]), Err(Refusal::Duplicate));
    assert_eq!(put(&mut state, 4, &[commit(1, &[], &[name(1, 1)], &[])]), Err(Refusal::Duplicate));
    assert_eq!(
        put(&mut state, 4, &[commit(1, &[name(2, 0)], &[], &[])]),
        Err(Refusal::Gone),
        "of the future"
    );
    let in_use = Record::Retire { objects: vec![name(1, 1)] };
    assert_eq!(put(&mut state, 4, &[in_use]), Err(Refusal::NotLive), "a segment in use");
    put(&mut state, 4, &[Record::Pin { pin: 7, node: NodeId(1) }]).unwrap();
    put(&mut state, 5, &[commit(0, &[], &[name(1, 2)], &[name(1, 1)])]).unwrap();
    assert_eq!(put(&mut state, 6, &[commit(0, &[], &[], &[name(1, 1)])]), Err(Refusal::NotLive));
    assert_eq!(put(&mut state, 6, &[commit(1, &[], &[name(1, 1)], &[])]), Err(Refusal::Gone));
    assert_eq!(state.deletable().count(), 0, "the pin is older");
    put(&mut state, 6, &[Record::Pin { pin: 8, node: NodeId(1) }, Record::Unpin { pin: 7 }]).unwrap();
    assert_eq!(state.deletable().collect::<Vec<_>>(), [name(1, 1)]);
}

#[test]
fn the_floor_shuts_old_epochs_out() {
    let mut state = running();
    put(&mut state, 3, &[commit(1, &[name(1, 0)], &[], &[])]).unwrap();
    assert_eq!(put(&mut state, 4, &[Record::OrphanFloor { epoch: Epoch(1) }]), Err(Refusal::Floor));
    begin(&mut state, 4, 2).unwrap();
    put(&mut state, 5, &[commit(1, &[name(1, 1)], &[], &[])]).unwrap();
    put(&mut state, 6, &[Record::Pin { pin: 7, node: NodeId(1) }]).unwrap();
    put(&mut state, 7, &[Record::Retire { objects: vec![name(1, 0)] }]).unwrap();
    put(&mut state, 8, &[Record::OrphanFloor { epoch: Epoch(1) }]).unwrap();
    assert_eq!(put(&mut state, 9, &[commit(1, &[name(1, 2)], &[], &[])]), Err(Refusal::Gone));
    assert!(state.live.contains(&name(1, 1)), "what is in the tables stays");
    assert_eq!(state.retired.len(), 1, "the pin is older");
    put(&mut state, 9, &[commit(1, &[name(2, 0)], &[], &[])]).unwrap();
}

#[test]
fn a_floor_now_and_then_keeps_room_for_merges_for_years() {
    let mut state = running();
    put(&mut state, 3, &[all_done(1), end(1)]).unwrap();
    let retire = |state: &mut State, count| {
        let epoch = state.epoch.0;
        let retired = Arc::make_mut(&mut state.retired);
        retired.extend((0..count).map(|count| (name(epoch, count), Slot(3))));
    };
    let (mut most, mut floors) = (0, 0);
    for day in 2..1000 {
        // A backup that makes 400 segments, which are all merged.
        retire(&mut state, 400);
        begin(&mut state, 2 * day, day).unwrap();
        if let Some(floor) = merges::floor(&state, merges::RETIRED_FLOOR_MIN, false) {
            put(&mut state, 2 * day + 1, &[floor]).unwrap();
            floors += 1;
        }
        most = most.max(state.retired.len());
    }
    assert!(
        most < 2 * merges::RETIRED_FLOOR_MIN,
        "{most} retired names, of {}",
        merges::RETIRED_BY_MERGES_MAX
    );
    assert!(floors < 400, "not at every backup: {floors}");

    retire(&mut state, 2000);
    assert_eq!(merges::floor(&state, merges::RETIRED_FLOOR_MIN, false), None, "names of this epoch");
    begin(&mut state, 2000, 1000).unwrap();
    let floor = Some(Record::OrphanFloor { epoch: Epoch(999) });
    assert_eq!(merges::floor(&state, merges::RETIRED_FLOOR_MIN, false), floor);
    let mut pinned = state.clone();
    pinned.pins.insert(7, Pin { slot: Slot(2), node: NodeId(1), counter: 0 });
    assert_eq!(merges::floor(&pinned, merges::RETIRED_FLOOR_MIN, false), None, "a pin is older");
    put(&mut state, 2001, &[start(2)]).unwrap();
    assert_eq!(
        merges::floor(&state, merges::RETIRED_FLOOR_MIN, false),
        None,
        "another worker may still report for it"
    );
    assert_eq!(
        merges::floor(&state, merges::RETIRED_FLOOR_MIN, true),
        floor,
        "all are known to work under this epoch"
    );
    put(&mut state, 2002, &[all_done(2), end(2)]).unwrap();
    assert_eq!(merges::floor(&state, merges::RETIRED_FLOOR_MIN, false), floor);
}

fn names(of: &[ObjectId]) -> NameSet {
    let mut set = NameSet::default();
    of.iter().for_each(|id| assert!(set.insert(id)));
    set
}

/// Point 1 with two objects and a segment, backup 2 running.
fn with_point() -> State {
    let mut state = running();
    let stored = commit(1, &[name(1, 0), name(1, 1)], &[name(1, 2)], &[]);
    put(&mut state, 3, &[stored, all_done(1), end(1), start(2)]).unwrap();
    state
}

#[test]
fn damage_is_kept_for_what_is_live_and_leaves_with_it() {
    let mut state = with_point();
    let news = DamageNews {
        missing: names(&[name(1, 0), name(1, 2), name(1, 77)]),
        damaged: names(&[name(1, 1)]),
        points: vec![BackupId(1), BackupId(9)],
        ..DamageNews::default()
    };
    put(&mut state, 4, &[Record::Damage(news)]).unwrap();
    let damage = &state.damage;
    assert_eq!(
        (&damage.missing, &damage.damaged),
        (&names(&[name(1, 0), name(1, 2)]), &names(&[name(1, 1)]))
    );
    assert!(
        damage.distrusts(&name(1, 0)) && damage.distrusts(&name(1, 1)) && !damage.distrusts(&name(1, 77))
    );
    let both = [BackupId(1), BackupId(2)];
    assert!(damage.points.iter().eq(&both), "backup 2 began without knowing");
    let again = DamageNews { present: names(&[name(1, 0), name(1, 1)]), ..DamageNews::default() };
    put(&mut state, 5, &[Record::Damage(again)]).unwrap();
    assert!(
        !state.damage.distrusts(&name(1, 0)) && state.damage.distrusts(&name(1, 1)),
        "damaged bytes stay so"
    );
    put(&mut state, 6, &[commit(0, &[], &[], &[name(1, 2)]), Record::Retire { objects: vec![name(1, 1)] }])
        .unwrap();
    assert!(!state.damage.is_any());
    put(&mut state, 7, &[Record::BackupAbandoned { backup: BackupId(2) }, start(3)]).unwrap();
    assert!(state.damage.points.iter().eq(&[BackupId(1)]), "backup 3 began later and knows better");
    put(&mut state, 8, &[Record::PointExpired { backup: BackupId(1) }]).unwrap();
    assert_eq!(*state.damage, Damage::default());
}

#[test]
fn damage_that_is_found_while_a_backup_is_under_way_reaches_its_point() {
    let missing =
        |count| Record::Damage(DamageNews { missing: names(&[name(1, count)]), ..DamageNews::default() });
    // What backup 1 stored before it was killed, when no point needs it yet.
    let mut state = running();
    put(&mut state, 3, &[commit(1, &[name(1, 0)], &[name(1, 1)], &[]), missing(77)]).unwrap();
    assert!(state.damage.points.is_empty(), "that name is not one of the tables'");
    put(&mut state, 4, &[missing(0), start(2)]).unwrap();
    assert!(state.damage.points.iter().eq(&[BackupId(1)]), "backup 2 knows");
    assert_eq!(state.sound_but(&BTreeSet::new()), [], "not all rows of a backup under way are there");
    put(&mut state, 5, &[all_done(1), end(1)]).unwrap();
    assert_eq!(state.sound_but(&BTreeSet::new()), [BackupId(1)]);
    // A point that is found to need what is known to be bad: backup 2 had no reason to look at its places.
    let sound = DamageNews { points_sound: vec![BackupId(1)], ..DamageNews::default() };
    put(&mut state, 6, &[Record::Damage(sound)]).unwrap();
    assert!(state.damage.points.is_empty());
    let again = DamageNews { points: vec![BackupId(1)], ..DamageNews::default() };
    put(&mut state, 7, &[Record::Damage(again)]).unwrap();
    assert!(state.damage.points.iter().eq(&[BackupId(1), BackupId(2)]));
    let expired = Record::PointExpired { backup: BackupId(1) };
    put(&mut state, 8, &[all_done(2), end(2), expired]).unwrap();
    assert!(state.damage.points.iter().eq(&[BackupId(2)]), "a point that ends goes on being damaged");
}

/// A state as a checkpoint gives it back.
fn through_a_checkpoint(state: &State) -> State {
    let checkpoint = Checkpoint {
        cluster: [1; 16],
        slot: Slot(4),
        nonce: [8; 16],
        slot_digest: [9; 32],
        state: state.clone(),
    };
    let (bytes, _) = checkpoint.emit(&PlainForTests).unwrap();
    Checkpoint::parse(&bytes, &PlainForTests).unwrap().0.state
}

#[test]
fn a_held_point_does_not_expire_and_marks_are_in_checkpoints() {
    let mut state = with_point();
    let mark = |backup, part| Record::PointMarked(PointMark { backup: BackupId(backup), part });
    let hold = |why: &str| mark(1, MarkPart::Hold(why.to_owned()));
    let expired = Record::PointExpired { backup: BackupId(1) };
    assert_eq!(put(&mut state, 4, &[mark(9, MarkPart::Note("x".to_owned()))]), Err(Refusal::NoPoint));
    let tags = MarkPart::tags(["release".to_owned()]).unwrap();
    put(&mut state, 4, &[hold("audit"), mark(1, tags)]).unwrap();
    assert_eq!(put(&mut state, 5, std::slice::from_ref(&expired)), Err(Refusal::Held));
    assert_eq!(through_a_checkpoint(&state), state);
    put(&mut state, 5, &[hold("")]).unwrap();
    assert_eq!(through_a_checkpoint(&state), state);
    assert_eq!(state.marks[&BackupId(1)].tags, ["release"]);
    put(&mut state, 6, &[expired]).unwrap();
    assert!(state.marks.is_empty());
    assert_eq!(through_a_checkpoint(&state), state);
}

#[test]
fn a_try_counts_until_the_next_point_and_is_in_checkpoints() {
    let mut state = with_point();
    let tried = |failures| Record::BackupTried(Tried::new("homes", 7, failures, "no node could open it"));
    let nowhere = Record::BackupTried(Tried::new("nowhere", 7, 1, ""));
    assert_eq!(put(&mut state, 4, &[nowhere]), Err(Refusal::NoPolicy));
    put(&mut state, 4, &[tried(1), tried(2)]).unwrap();
    assert_eq!(state.tried["homes"].failures, 2);
    let made = |state: State| Checkpoint {
        cluster: [1; 16],
        slot: Slot(4),
        nonce: [8; 16],
        slot_digest: [9; 32],
        state,
    };
    let checkpoint = made(state.clone());
    let (bytes, digest) = checkpoint.emit(&PlainForTests).unwrap();
    assert_eq!(Checkpoint::parse(&bytes, &PlainForTests), Ok((checkpoint, digest)));
    put(&mut state, 5, &[Record::BackupAbandoned { backup: BackupId(2) }, start(3)]).unwrap();
    assert_eq!(state.tried["homes"].failures, 2, "a begin is no success");
    put(&mut state, 6, &[all_done(3), end(3)]).unwrap();
    assert!(state.tried.is_empty());
}

#[test]
fn a_backup_that_was_stopped_is_no_work_and_no_point_until_it_goes_on() {
    let mut state = with_point();
    let stop = |goes_on| Record::BackupStopped { backup: BackupId(2), goes_on };
    assert!(state.has_work());
    assert_eq!(put(&mut state, 4, &[stop(true)]), Err(Refusal::Backup), "it was not stopped");
    put(&mut state, 4, &[stop(false)]).unwrap();
    assert_eq!((state.has_work(), through_a_checkpoint(&state) == state), (false, true));
    assert_eq!(put(&mut state, 5, &[stop(false)]), Err(Refusal::Backup), "twice");
    put(&mut state, 5, &[all_done(2)]).unwrap();
    assert_eq!(put(&mut state, 6, &[end(2)]), Err(Refusal::Backup));
    put(&mut state, 6, &[stop(true)]).unwrap();
    assert_eq!((state.has_work(), through_a_checkpoint(&state) == state), (true, true));
    put(&mut state, 7, &[end(2)]).unwrap();
    assert!(state.points.contains_key(&BackupId(2)));
    assert_eq!(put(&mut state, 8, &[stop(false)]), Err(Refusal::Backup), "it is a point");
}

#[test]
fn damage_and_sweeps_are_in_checkpoints() {
    let mut state = with_point();
    let news =
        DamageNews { missing: names(&[name(1, 0)]), points: vec![BackupId(1)], ..DamageNews::default() };
    let swept = |wall_ns, after: &str| Record::Swept(Swept { wall_ns, after: after.to_owned() });
    put(&mut state, 4, &[Record::Damage(news), swept(9, ""), swept(11, "obj/1")]).unwrap();
    assert_eq!((state.damage.swept_ns, state.damage.sweep_after.as_str()), (9, "obj/1"));
    let checkpoint =
        Checkpoint { cluster: [1; 16], slot: Slot(4), nonce: [8; 16], slot_digest: [9; 32], state };
    let (bytes, digest) = checkpoint.emit(&PlainForTests).unwrap();
    assert_eq!(Checkpoint::parse(&bytes, &PlainForTests), Ok((checkpoint, digest)));
}

#[test]
fn checkpoints_round_trip_and_every_changed_byte_is_refused() {
    let mut state = running();
    put(
        &mut state,
        3,
        &[commit(1, &[name(1, 0)], &[name(1, 1), name(1, 9)], &[]), done(1, 1, KEY_START, (4, 2))],
    )
    .unwrap();
    put(
        &mut state,
        4,
        &[
            done(1, 1, (4, 2), KEY_END),
            end(1),
            start(2),
            Record::BackupAbandoned { backup: BackupId(2) },
            start(3),
            done(3, 1, (7, 0), (9, 0)),
            done(3, 1, (5, 0), (6, 3)),
        ],
    )
    .unwrap();
    put(
        &mut state,
        5,
        &[Record::Pin { pin: 7, node: NodeId(1) }, Record::Retire { objects: vec![name(1, 0)] }],
    )
    .unwrap();
    let named = crate::format::record::CheckpointName { slot: Slot(5), nonce: [4; 16], digest: [5; 32] };
    put(&mut state, 6, &[Record::Checkpoint(named)]).unwrap();
    assert_eq!(put(&mut state, 7, &[Record::Checkpoint(named)]), Err(Refusal::Checkpoint));
    put(&mut state, 7, &[Record::Yield { successor: Some(NodeId(3)) }]).unwrap();
    let checkpoint =
        Checkpoint { cluster: [1; 16], slot: Slot(7), nonce: [8; 16], slot_digest: [9; 32], state };
    let (bytes, digest) = checkpoint.emit(&PlainForTests).unwrap();
    assert_eq!(Checkpoint::parse(&bytes, &PlainForTests), Ok((checkpoint, digest)));
    for at in 0..bytes.len() {
        let mut bad = bytes.clone();
        bad[at] ^= 4;
        assert_eq!(Checkpoint::parse(&bad, &PlainForTests), Err(WireFault::Digest));
        assert!(Checkpoint::parse(&bytes[..at], &PlainForTests).is_err());
        // With a right digest a wrong field must be refused or mean something else, and never panic.
        bad.truncate(bad.len() - 32);
        crate::format::slot::emit_digest(&mut bad);
        if let Ok((other, _)) = Checkpoint::parse(&bad, &PlainForTests) {
            assert_eq!(other.emit(&PlainForTests).map(|(bytes, _)| bytes), Ok(bad), "byte {at}");
        }
    }
}

#[test]
fn the_newest_change_of_all_commits_is_the_points_and_goes_through_checkpoints() {
    let through = |state: &State| {
        let checkpoint = Checkpoint {
            cluster: [1; 16],
            slot: Slot(9),
            nonce: [2; 16],
            slot_digest: [3; 32],
            state: state.clone(),
        };
        let (bytes, _) = checkpoint.emit(&PlainForTests).unwrap();
        Checkpoint::parse(&bytes, &PlainForTests).unwrap().0.state
    };
    let part = |from, to, newest_secs| {
        let Record::Commit(commit) = done(1, 1, from, to) else { panic!() };
        Record::Commit(Commit { newest_secs, ..commit })
    };
    let mut state = running();
    put(&mut state, 3, &[part(KEY_START, (5, 0), Some(70)), part((5, 0), (9, 0), Some(90))]).unwrap();
    assert_eq!(state.running[&BackupId(1)].volumes[0].newest_secs, None, "it is as it was found");
    let mut state = through(&state);
    assert_eq!(state.running[&BackupId(1)].newest_secs, [(VolumeId(1), 90)].into());
    put(&mut state, 4, &[part((9, 0), (20, 0), Some(80)), part((20, 0), KEY_END, None), end(1)]).unwrap();
    assert_eq!(state.points[&BackupId(1)].volumes[0].newest_secs, Some(90));
    assert_eq!(through(&state), state);
}

#[test]
fn a_point_names_the_volumes_that_it_is_without() {
    let mut state = State::default();
    begin(&mut state, 1, 1).unwrap();
    let without = |missing: &[u32]| {
        Record::BackupBegun(BackupStart {
            backup: BackupId(1),
            policy: "homes".into(),
            volumes: vec![BackupVolume { volume: VolumeId(1), ..BackupVolume::default() }],
            wall_start_ns: 5,
            missing: missing.iter().map(|&volume| VolumeId(volume)).collect(),
        })
    };
    put(&mut state, 2, &[policy(1, &[1, 2, 3])]).unwrap();
    for wrong in [&[1][..], &[4], &[3, 2], &[2, 2]] {
        assert_eq!(put(&mut state, 3, &[without(wrong)]), Err(Refusal::Volume), "{wrong:?}");
    }
    put(&mut state, 3, &[without(&[2, 3]), done(1, 1, KEY_START, KEY_END)]).unwrap();
    let kept = state.clone();
    put(&mut state, 4, &[end(1)]).unwrap();
    let point = &state.points[&BackupId(1)];
    assert_eq!(
        (point.missing.as_slice(), point.status),
        (&[VolumeId(2), VolumeId(3)][..], PointStatus::WithErrors)
    );
    assert_eq!(state.last_point_of("homes", VolumeId(1)).map(|(backup, _)| backup), Some(BackupId(1)));
    assert_eq!(state.last_point_of("homes", VolumeId(2)), None);
    // Both a running backup and a point go through a checkpoint.
    for state in [kept, state] {
        let checkpoint =
            Checkpoint { cluster: [1; 16], slot: Slot(4), nonce: [2; 16], slot_digest: [3; 32], state };
        let (bytes, _) = checkpoint.emit(&PlainForTests).unwrap();
        assert_eq!(Checkpoint::parse(&bytes, &PlainForTests).unwrap().0, checkpoint);
    }
}

#[test]
fn rows_of_a_backup_that_stopped_stay_until_the_next_one_ends() {
    let mut state = State::default();
    begin(&mut state, 1, 1).unwrap();
    put(&mut state, 2, &[policy(1, &[1]), start(1)]).unwrap();
    put(&mut state, 3, &[commit(1, &[name(1, 1)], &[name(1, 2)], &[])]).unwrap();
    put(&mut state, 4, &[start(2)]).unwrap();
    put(&mut state, 5, &[commit(2, &[name(1, 3)], &[name(1, 4)], &[])]).unwrap();
    assert_eq!(
        state.running_of("homes").map(|(backup, _)| backup),
        Some(BackupId(2)),
        "the last one is at work"
    );
    assert_eq!(state.at_work().map(|(backup, _)| backup).collect::<Vec<_>>(), [BackupId(2)]);
    assert_eq!(state.segments[&VolumeId(1)].len(), 2, "the rows of both are there");
    put(&mut state, 6, &[done(2, 1, KEY_START, KEY_END), end(2)]).unwrap();
    assert_eq!(state.abandoned, [BackupId(1)]);
    assert!(state.running.is_empty() && state.retired.contains_key(&name(1, 2)));
    let left: Vec<ObjectId> = state.segments[&VolumeId(1)].iter().map(|segment| segment.id).collect();
    assert_eq!(left, [name(1, 4)], "only the point's rows are left");
    assert!(state.live.contains(&name(1, 1)), "what the second one refers to stays");

    // As many as are kept, and all of them go when the last one is given up.
    for backup in 3..3 + UNFINISHED_MAX as u32 {
        put(&mut state, u64::from(backup) + 4, &[start(backup)]).unwrap();
    }
    let (next, last) = (3 + UNFINISHED_MAX as u32, 2 + UNFINISHED_MAX as u32);
    assert_eq!(state.to_give_up("homes", &|_| true), [BackupId(last)]);
    assert_eq!(put(&mut state, 20, &[start(next)]), Err(Refusal::Backup));
    put(&mut state, 20, &[Record::BackupAbandoned { backup: BackupId(last) }, start(next)]).unwrap();
    assert_eq!(state.running.len(), 1);
}

#[test]
fn unfinished_backups_make_room_for_those_of_other_policies() {
    let mut state = State::default();
    begin(&mut state, 1, 1).unwrap();
    let (names, mut slot) = (["a", "b", "c", "d", "e"], 2);
    let policy = |name: &str, volume| {
        let volumes = vec![(VolumeId(volume), "/dev/x".to_owned())];
        Record::PolicyChanged(PolicyChange { name: name.into(), revision: 1, body: b"{}".to_vec(), volumes })
    };
    let policies: Vec<Record> = names.iter().zip(1..).map(|(name, volume)| policy(name, volume)).collect();
    put(&mut state, slot, &policies).unwrap();
    let start = |state: &State, name: &str| {
        let Record::BackupBegun(mut start) = start(state.last_backup.0 + 1) else { unreachable!() };
        start.policy = name.into();
        start.volumes[0].volume = state.policies[name].volumes[0];
        Record::BackupBegun(start)
    };
    // Four policies with four each: the table is full.
    for name in &names[..4] {
        for _ in 0..UNFINISHED_MAX {
            slot += 1;
            let record = start(&state, name);
            put(&mut state, slot, &[record]).unwrap();
        }
    }
    assert_eq!(put(&mut state.clone(), slot + 1, &[start(&state, "e")]), Err(Refusal::Full(Bound::Running)));
    let given_up = state.to_give_up("e", &|_| true);
    assert_eq!(given_up, [3, 7, 11, 15].map(BackupId), "all but the last of each");
    let mut records: Vec<Record> =
        given_up.iter().map(|&backup| Record::BackupAbandoned { backup }).collect();
    records.push(start(&state, "e"));
    put(&mut state, slot + 1, &records).unwrap();
    assert_eq!(state.running.keys().copied().collect::<Vec<_>>(), [4, 8, 12, 16, 17].map(BackupId));
    assert_eq!(state.to_give_up("e", &|_| true), []);
    // Sixteen policies with one each: of those that no node works on, the oldest makes room; of its own, the one before.
    let mut crowd = state.clone();
    crowd.running = (1..=RUNNING_MAX as u32)
        .map(|backup| {
            let policy = format!("p{backup}");
            let entry = crowd.policies["a"].clone();
            crowd.policies.insert(policy.clone(), entry);
            (BackupId(backup), Running { policy, ..crowd.running[&BackupId(17)].clone() })
        })
        .collect();
    assert_eq!(crowd.to_give_up("e", &|name| name != "p5" && name != "p9"), [BackupId(5)]);
    assert_eq!(crowd.to_give_up("p9", &|name| name != "p5"), [BackupId(9)]);
    assert_eq!(crowd.to_give_up("e", &|_| true), []);
    // What a removal leaves is given up with it.
    let removal = Record::PolicyRemoved { name: "a".into(), revision: 2 };
    let given_up = state.given_up_with(&removal).unwrap();
    put(&mut state, slot + 2, &[removal, given_up]).unwrap();
    assert!(state.unfinished("a").next().is_none());
}
