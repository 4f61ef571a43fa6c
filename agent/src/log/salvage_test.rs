//! What is left of a log of which a slot was taken away, or replaced.

use windlass_hal::sim::clock::SimClock;

use super::*;
use crate::format::record::{BackupEnd, BackupStart, DamageNews, PolicyChange};
use crate::format::slot::{PlainForTests, carry};
use crate::id::{Boot, NodeId};
use crate::store::memory::MemoryStore;
use crate::store::retry::RetryPolicy;
use crate::store::{PutMode, Store};

const CLUSTER: ClusterId = [9; 16];

fn author(node: u32) -> Author {
    Author { node: NodeId(node), boot: Boot(100) }
}

/// A log as a holder writes it, slot by slot.
#[derive(Default)]
struct Written {
    slots: Vec<(Vec<u8>, [u8; 32])>,
}

impl Written {
    /// The next slot's own part and its digest.
    fn make(&self, epoch: u64, records: &[Record]) -> (Vec<u8>, [u8; 32]) {
        let header = SlotHeader {
            cluster: CLUSTER,
            slot: Slot(self.slots.len() as u64 + 1),
            epoch: Epoch(epoch),
            writer: author(u32::try_from(epoch).unwrap()),
            nonce: [epoch as u8; 16],
            previous: self.slots.last().map_or([0; 32], |(_, digest)| *digest),
        };
        header.emit(records, &PlainForTests).unwrap()
    }

    fn add(&mut self, epoch: u64, records: &[Record]) {
        self.slots.push(self.make(epoch, records));
    }

    /// Stores all slots but `lost` ones, which `carries` says whether the next one carries, and salvages them.
    fn salvage(&self, lost: u64, instead: Option<&[u8]>, carries: bool) -> Salvage {
        let store = MemoryStore::default();
        for (at, (own, _)) in self.slots.iter().enumerate() {
            let slot = at as u64 + 1;
            let body = match at.checked_sub(1).filter(|_| carries || slot != lost + 1) {
                Some(before) => carry(own.clone(), &self.slots[before].0),
                None => own.clone(),
            };
            let body = if slot == lost { instead.map(<[u8]>::to_vec) } else { Some(body) };
            if let Some(body) = body {
                store.put(&keys::slot(Slot(slot)), &[&body, &body], PutMode::CreateOnly).unwrap();
            }
        }
        read(&client(store), &CLUSTER, &PlainForTests, &mut || Ok(())).unwrap()
    }
}

fn client(store: MemoryStore) -> Client {
    Client::new(Arc::new(store), Arc::new(SimClock::default()), RetryPolicy::ONCE, 1)
}

fn policy(name: &str, volume: u32) -> Record {
    Record::PolicyChanged(PolicyChange {
        name: name.into(),
        revision: 1,
        body: b"{}".to_vec(),
        volumes: vec![(VolumeId(volume), format!("/dev/vg/{name}"))],
    })
}

fn begin(backup: u32, policy: &str, volume: u32) -> Record {
    Record::BackupBegun(BackupStart {
        backup: BackupId(backup),
        policy: policy.into(),
        volumes: vec![BackupVolume { volume: VolumeId(volume), ..BackupVolume::default() }],
        wall_start_ns: 1,
        missing: Vec::new(),
    })
}

fn id(count: u32) -> ObjectId {
    ObjectId { epoch: Epoch(1), node: NodeId(1), boot: Boot(100), count }
}

fn segment(id: ObjectId) -> SegmentMeta {
    SegmentMeta {
        id,
        volume: VolumeId(1),
        backup_min: BackupId(1),
        backup_max: BackupId(1),
        index_bytes: 1,
        first_inode: 1,
        last_inode: 2,
        bytes: 1 << 16,
        rows: [1; 4],
        first_base: 0,
        end_base: 1,
    }
}

fn commit(objects: &[u32], segments: &[u32]) -> Record {
    Record::Commit(Commit {
        backup: BackupId(1),
        objects: objects.iter().map(|&count| (id(count), 1)).collect(),
        segments: segments.iter().map(|&count| segment(id(count))).collect(),
        ..Commit::default()
    })
}

/// Two policies, two unfinished backups of the first one and one of the other; a lost slot.
fn unfinished() -> Written {
    let mut log = Written::default();
    log.add(1, &[Record::EpochBegun { epoch: Epoch(1) }, policy("homes", 1), policy("mail", 2)]);
    log.add(1, &[begin(1, "homes", 1)]);
    log.add(1, &[begin(2, "mail", 2)]);
    log.add(1, &[begin(3, "homes", 1)]);
    log.add(1, &[commit(&[1], &[])]);
    log
}

#[test]
fn the_end_of_a_backup_behind_a_gap_gives_up_those_before_it() {
    let ends = [
        (Record::BackupEnded(BackupEnd { backup: BackupId(3), wall_end_ns: 2 }), vec![BackupId(1)]),
        (Record::BackupAbandoned { backup: BackupId(3) }, vec![BackupId(1), BackupId(3)]),
    ];
    for (end, given_up) in ends {
        let mut log = unfinished();
        log.add(1, std::slice::from_ref(&end));
        let salvage = log.salvage(5, None, false);
        assert_eq!(salvage.lost, [Place::Slot(Slot(5))]);
        assert_eq!(salvage.given_up(), given_up, "{end:?}");
        assert_eq!(salvage.state.running.keys().collect::<Vec<_>>(), [&BackupId(2)]);
    }
}

#[test]
fn a_late_create_in_a_lost_slots_place_does_not_stand_for_it() {
    let mut log = Written::default();
    log.add(1, &[Record::EpochBegun { epoch: Epoch(1) }]);
    let (late, _) = log.make(1, &[policy("late", 1)]);
    log.add(2, &[Record::EpochBegun { epoch: Epoch(2) }, policy("homes", 1)]);
    log.add(2, &[begin(1, "homes", 1)]);
    log.add(2, &[begin(2, "homes", 1)]);

    let salvage = log.salvage(2, Some(&late), true);
    assert_eq!(salvage.state.policies.keys().collect::<Vec<_>>(), ["homes"]);
    assert!(salvage.is_whole() && salvage.state.holder == author(2), "{salvage:?}");

    let salvage = log.salvage(2, Some(&late), false);
    assert_eq!(
        salvage.lost,
        [Place::Slot(Slot(2))],
        "nothing says what it was, and nobody is told that all is there"
    );
    assert!(!salvage.is_whole());
}

#[test]
fn objects_that_are_gone_are_known_as_missing_in_the_new_log() {
    let mut log = Written::default();
    log.add(1, &[Record::EpochBegun { epoch: Epoch(1) }, policy("homes", 1)]);
    log.add(1, &[begin(1, "homes", 1)]);
    log.add(1, &[commit(&[1, 2, 3], &[4])]);
    log.add(1, &[commit(&[5], &[6])]);
    let bad = |damaged: &[u32], missing: &[u32]| {
        let set = |of: &[u32]| names_of(of.iter().map(|&count| id(count)).collect::<Vec<_>>().iter());
        Record::Damage(DamageNews { damaged: set(damaged), missing: set(missing), ..DamageNews::default() })
    };
    log.add(1, &[commit(&[7, 8], &[9]), bad(&[3, 4], &[1])]);
    let salvage = log.salvage(4, None, false);
    let new = ObjectId { epoch: Epoch(2), ..id(0) };
    // 2 and 8 are not listed. 1 is there again. 5 was in the lost slot, and there.
    let listed = [1, 3, 5, 7].map(id);
    let (state, _) = salvage.into_state(Epoch(2), author(2), &listed, &BTreeSet::new(), &[segment(new)]);
    assert_eq!(state.damage.missing.names().collect::<Vec<_>>(), [2, 8].map(id));
    assert_eq!(state.damage.damaged.names().collect::<Vec<_>>(), [id(3)]);
    let live = [1, 2, 3, 5, 7, 8].map(id).into_iter().chain([new]);
    assert_eq!(state.live.names().collect::<Vec<_>>(), live.collect::<Vec<_>>(), "no old segment is in it");
}

#[test]
fn the_lease_is_kept_between_any_two_objects_and_its_end_ends_the_reading() {
    const SLOTS: u64 = 20;
    let client = client(MemoryStore::default());
    let mut log = Written::default();
    for slot in 1..=SLOTS {
        log.add(slot, &[Record::EpochBegun { epoch: Epoch(slot) }]);
        let own = &log.slots[log.slots.len() - 1].0;
        client.put_slot(&keys::slot(Slot(slot)), &[own, own]).unwrap();
    }
    let (mut gets, mut longest) = (0, 0);
    let mut keep = || {
        let now = client.counts().get;
        (longest, gets) = (longest.max(now - gets), now);
        Ok(())
    };
    let salvage = read(&client, &CLUSTER, &PlainForTests, &mut keep).unwrap();
    assert_eq!(
        (salvage.slots, gets, longest),
        (SLOTS, SLOTS - 1, 1),
        "no two GETs without a look at the lease"
    );

    let ended = StoreFault::new(StoreFaultKind::Rejected, "LEASE", "", "it ran out");
    let mut left = SLOTS + 5;
    let mut keep = || {
        left -= 1;
        if left > 0 { Ok(()) } else { Err(ended.clone()) }
    };
    assert_eq!(read(&client, &CLUSTER, &PlainForTests, &mut keep).err(), Some(ended.clone()));
    assert_eq!(list(&client, keys::SLOTS, &mut || Err(ended.clone())), Err(ended.clone()));
}
