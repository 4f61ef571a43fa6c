use super::*;
use crate::format::record::{BackupStart, Commit, PolicyChange, Record};
use crate::format::slot::Author;
use crate::id::{BackupId, Boot, NodeId, VolumeId};
use crate::log::state::Refusal;

const WALL_NS: i64 = 1_000;

struct Log {
    state: State,
    slot: u64,
}

impl Log {
    fn new() -> Log {
        let mut log = Log { state: State::default(), slot: 0 };
        log.write(&[Record::EpochBegun { epoch: Epoch(2) }]).unwrap();
        let volumes = vec![(VolumeId(1), "lun".to_owned())];
        let change = PolicyChange { name: "p".to_owned(), revision: 1, body: b"{}".to_vec(), volumes };
        log.write(&[Record::PolicyChanged(change)]).unwrap();
        log
    }

    /// The slot that it was, or why it was refused.
    fn write(&mut self, records: &[Record]) -> Result<Slot, Refusal> {
        let slot = Slot(self.slot + 1);
        let header = SlotHeader {
            cluster: [1; 16],
            slot,
            epoch: Epoch(2),
            writer: Author { node: NodeId(1), boot: Boot(1) },
            nonce: [0; 16],
            previous: [0; 32],
        };
        let mut next = self.state.clone();
        next.apply_slot(&header, records).map_err(|(_, why)| why)?;
        (self.state, self.slot) = (next, slot.0);
        Ok(slot)
    }

    fn news(&mut self, news: GarbageNews) -> Result<Slot, Refusal> {
        self.write(&[Record::Garbage(news)])
    }

    fn store(&mut self, counts: &[u32]) {
        let objects = counts.iter().map(|&count| (id(count), 10)).collect();
        self.write(&[Record::Commit(Commit { objects, ..Commit::default() })]).unwrap();
    }

    fn begin(&mut self, backup: u32) -> Slot {
        let volume = crate::format::record::BackupVolume { volume: VolumeId(1), ..Default::default() };
        let start = BackupStart {
            backup: BackupId(backup),
            policy: "p".to_owned(),
            volumes: vec![volume],
            wall_start_ns: 0,
            missing: Vec::new(),
        };
        self.write(&[Record::BackupBegun(start)]).unwrap()
    }

    fn abandon(&mut self, backup: u32) -> Slot {
        self.write(&[Record::BackupAbandoned { backup: BackupId(backup) }]).unwrap()
    }

    fn retire(&mut self, seen: Slot, count: u32) -> Result<Slot, Refusal> {
        self.news(GarbageNews::Retired { seen, objects: vec![(id(count), 10)] })
    }
}

fn id(count: u32) -> ObjectId {
    ObjectId { epoch: Epoch(2), node: NodeId(1), boot: Boot(1), count }
}

#[test]
fn a_name_goes_only_when_all_who_may_refer_to_it_were_over_at_the_look() {
    let mut log = Log::new();
    log.store(&[1, 2]);
    assert_eq!(log.retire(Slot(log.slot), 1), Err(Refusal::NotLive), "no backup was warned");
    log.begin(1);
    let condemned = log.news(GarbageNews::Condemned(vec![id(1), id(2)])).unwrap();
    assert!(!log.state.may_refer(&id(1)) && log.state.live.contains(&id(1)));
    assert_eq!(log.retire(condemned, 1), Err(Refusal::Referred), "a backup runs that began before");
    let over = log.abandon(1);
    assert_eq!(log.retire(condemned, 1), Err(Refusal::Referred), "it may have referred to it since the look");
    assert_eq!(log.retire(Slot(over.0 + 9), 1), Err(Refusal::Referred), "a look in times to come");
    // One that begins later knows that it must not.
    log.begin(2);
    assert!(log.retire(over, 1).is_ok());
    assert_eq!(log.retire(over, 1), Err(Refusal::NotLive));
    assert_eq!(log.news(GarbageNews::Spared(vec![id(2)])).map(drop), Ok(()));
    assert!(log.state.may_refer(&id(2)) && log.state.garbage.over.is_empty());
    assert_eq!(log.state.garbage.waiting_bytes(), 10);
}

#[test]
fn a_retired_name_waits_for_pins_and_for_the_window_and_never_comes_back() {
    let mut log = Log::new();
    log.store(&[1]);
    log.news(GarbageNews::Settings(Settings { window_ns: 100, every_ns: 0 })).unwrap();
    log.write(&[Record::Pin { pin: 7, node: NodeId(1) }]).unwrap();
    let condemned = log.news(GarbageNews::Condemned(vec![id(1)])).unwrap();
    log.retire(condemned, 1).unwrap();
    assert_eq!(log.state.deletable_at(i64::MAX).count(), 0, "no clock was read, and there is a pin");
    log.news(GarbageNews::Clock(WALL_NS)).unwrap();
    assert_eq!(log.news(GarbageNews::Deleted(vec![id(1)])), Err(Refusal::Pin));
    log.write(&[Record::Unpin { pin: 7 }]).unwrap();
    assert_eq!(log.state.deletable_at(WALL_NS + 99).count(), 0);
    assert_eq!(log.state.deletable_at(WALL_NS - 1000).count(), 0, "the clock went back");
    assert_eq!(log.state.deletable_at(WALL_NS + 100).collect::<Vec<_>>(), [id(1)]);
    log.news(GarbageNews::Deleted(vec![id(1)])).unwrap();
    assert!(log.state.retired.is_empty() && log.state.garbage.objects.is_empty());
    let again = Commit { objects: vec![(id(1), 10)], ..Commit::default() };
    assert_eq!(log.write(&[Record::Commit(again)]), Err(Refusal::Gone));
}

#[test]
fn what_a_running_backup_may_read_still_waits_for_its_end() {
    let mut log = Log::new();
    log.store(&[1, 2]);
    log.news(GarbageNews::Settings(Settings { window_ns: 0, every_ns: 0 })).unwrap();
    let condemned = log.news(GarbageNews::Condemned(vec![id(1)])).unwrap();
    log.begin(1);
    log.retire(condemned, 1).unwrap();
    assert_eq!(log.state.deletable_at(0).count(), 0, "it began before the retirement");
    log.abandon(1);
    log.begin(2);
    assert_eq!(
        log.state.deletable_at(0).collect::<Vec<_>>(),
        [id(1)],
        "one that began behind it never saw it"
    );
}

#[test]
fn orphans_wait_for_the_floor_and_for_the_window_behind_it() {
    let mut log = Log::new();
    let old = ObjectId { epoch: Epoch(1), ..id(5) };
    assert!(!log.state.is_orphan(&old, i64::MAX));
    log.news(GarbageNews::Settings(Settings { window_ns: 100, every_ns: 0 })).unwrap();
    log.news(GarbageNews::Clock(0)).unwrap();
    assert!(!log.state.is_orphan(&old, i64::MAX), "there is no floor");
    log.write(&[Record::OrphanFloor { epoch: Epoch(1) }]).unwrap();
    assert!(!log.state.is_orphan(&old, i64::MAX), "no clock was read since the floor");
    log.news(GarbageNews::Clock(50)).unwrap();
    assert!(!log.state.is_orphan(&old, 149) && log.state.is_orphan(&old, 150));
    assert!(!log.state.is_orphan(&id(5), i64::MAX), "it may be on its way into the tables");
}

#[test]
fn what_went_since_the_last_run_is_noticed() {
    let mut log = Log::new();
    assert!(!log.state.may_have_garbage());
    log.begin(1);
    assert!(!log.state.may_have_garbage(), "it runs");
    log.abandon(1);
    assert!(log.state.may_have_garbage());
    let done = log.state.garbage_done(0);
    log.news(GarbageNews::Done(done)).unwrap();
    assert!(!log.state.may_have_garbage());
    log.begin(2);
    let done = log.state.garbage_done(0);
    log.news(GarbageNews::Done(done)).unwrap();
    assert!(!log.state.may_have_garbage());
    log.abandon(2);
    assert!(log.state.may_have_garbage());
}

#[test]
fn all_of_it_is_in_a_checkpoint() {
    let mut log = Log::new();
    log.store(&[1, 2, 3]);
    log.begin(1);
    log.news(GarbageNews::Clock(3)).unwrap();
    log.news(GarbageNews::Condemned(vec![id(1), id(2), id(3)])).unwrap();
    let over = log.abandon(1);
    log.retire(over, 1).unwrap();
    log.retire(over, 2).unwrap();
    log.news(GarbageNews::Settings(Settings { window_ns: 0, every_ns: 1 })).unwrap();
    log.news(GarbageNews::Deleted(vec![id(1)])).unwrap();
    log.news(GarbageNews::Wanted(Wanted::default())).unwrap();
    let (mut bytes, garbage) = (Vec::new(), &log.state.garbage);
    garbage.emit(&mut bytes);
    assert_eq!(Garbage::parse(&mut Reader::new(&bytes)).as_ref(), Ok(garbage));
    assert!(!garbage.over.is_empty() && !garbage.buried.is_empty() && !garbage.objects.is_empty());
}

#[test]
fn objects_that_enter_with_segments_hold_blocks_and_are_no_carriers() {
    let mut log = Log::new();
    let segment =
        crate::format::record::SegmentMeta { id: id(50), volume: VolumeId(1), ..Default::default() };
    let moved = Commit { objects: vec![(id(2), 10)], segments: vec![segment], ..Commit::default() };
    let rows = Commit { objects: vec![(id(3), 10)], ..Commit::default() };
    log.write(&[Record::Commit(moved), Record::Commit(rows)]).unwrap();
    assert_eq!(log.state.garbage.carriers.names().collect::<Vec<_>>(), [id(3)]);
    assert!(log.state.live.contains(&id(2)));
}

#[test]
fn a_budget_and_what_was_moved_are_in_checkpoints_and_those_of_before_have_neither() {
    let mut log = Log::new();
    let back = |log: &Log| {
        let mut bytes = Vec::new();
        log.state.garbage.emit(&mut bytes);
        let mut reader = Reader::new(&bytes);
        assert_eq!(Garbage::parse(&mut reader).as_ref(), Ok(&log.state.garbage));
        assert!(reader.is_empty());
        bytes.len()
    };
    log.news(GarbageNews::Wanted(Wanted::default())).unwrap();
    let before = back(&log);
    log.news(GarbageNews::WantedWith(Wanted::default(), 5)).unwrap();
    assert_eq!((back(&log), log.state.garbage.budget_bytes), (before + 8, Some(5)));
    log.news(GarbageNews::DoneWith(Done::default(), Moves { bytes: 1, objects: 2 })).unwrap();
    back(&log);
    assert_eq!((log.state.garbage.wanted, log.state.garbage.budget_bytes), (None, None));
    log.news(GarbageNews::Done(Done::default())).unwrap();
    back(&log);
    assert_eq!(log.state.garbage.moves, None);
}
