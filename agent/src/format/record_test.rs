//! Records: round trips of random ones, bounds, and the golden slot, which a script wrote from the tables alone.

use super::*;
use crate::format::guard::{Guard, GuardPart};
use crate::format::slot::{PlainForTests, SlotContents, carried, carry};
use crate::format::tail::INDEX_STORED_BYTES_MAX;
use crate::id::Boot;

struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        self.0 ^ self.0 >> 29
    }

    fn bytes<const N: usize>(&mut self) -> [u8; N] {
        std::array::from_fn(|_| self.next() as u8)
    }

    fn name(&mut self) -> ObjectId {
        ObjectId::from_bytes(&self.bytes())
    }

    fn names(&mut self) -> NameSet {
        let mut set = NameSet::default();
        for _ in 0..self.next() % 9 {
            let first = self.name();
            for more in 0..self.next() % 3 {
                set.insert(&ObjectId { count: first.count.saturating_add(more as u32), ..first });
            }
        }
        set
    }

    fn list<T>(&mut self, max: u64, mut make: impl FnMut(&mut Rng) -> T) -> Vec<T> {
        (0..self.next() % max).map(|_| make(self)).collect()
    }

    fn text(&mut self, max: u64) -> String {
        (0..1 + self.next() % max).map(|_| char::from(b'a' + (self.next() % 26) as u8)).collect()
    }
}

fn segment(rng: &mut Rng) -> SegmentMeta {
    let (backup, inode) = (rng.next() as u32 >> 1, rng.next() >> 1);
    SegmentMeta {
        id: rng.name(),
        volume: VolumeId(rng.next() as u32),
        backup_min: BackupId(backup),
        backup_max: BackupId(backup + (rng.next() as u32 >> 1)),
        index_bytes: rng.next() as u32 % (INDEX_STORED_BYTES_MAX as u32 + 1),
        first_inode: inode,
        last_inode: inode + (rng.next() >> 1),
        bytes: (1 << 40) + (rng.next() >> 1),
        rows: [rng.next() as u32; 4],
        first_base: rng.next() >> 1,
        end_base: u64::MAX - (rng.next() >> 2),
    }
}

fn totals(rng: &mut Rng) -> Totals {
    Totals {
        items: rng.next(),
        items_changed: rng.next(),
        items_deleted: rng.next(),
        bytes_logical: rng.next(),
        bytes_read: rng.next(),
        bytes_reused: rng.next(),
        bytes_stored: rng.next(),
        objects: rng.next(),
        segments: rng.next(),
        faults: rng.next(),
    }
}

fn record(rng: &mut Rng, kind: u8) -> Record {
    let backup = BackupId(rng.next() as u32);
    match kind {
        1 => Record::EpochBegun { epoch: Epoch(rng.next()) },
        2 => Record::Yield { successor: (rng.next() & 64 == 0).then(|| NodeId(rng.next() as u32)) },
        3 => Record::PolicyChanged(PolicyChange {
            name: rng.text(64),
            revision: rng.next() as u32,
            body: rng.list(500, |rng| rng.next() as u8),
            volumes: rng.list(5, |rng| (VolumeId(rng.next() as u32), rng.text(80))),
        }),
        4 => Record::PolicyRemoved { name: rng.text(64), revision: rng.next() as u32 },
        5 => Record::BackupBegun(BackupStart {
            backup,
            policy: rng.text(64),
            volumes: rng.list(64, |rng| BackupVolume {
                volume: VolumeId(rng.next() as u32),
                fs_uuid: rng.bytes(),
                state: (rng.next() & 64 == 0).then(|| rng.bytes()),
                basis: (rng.next() & 64 == 0).then(|| VolumeBasis {
                    identity: rng.bytes(),
                    size_bytes: rng.next(),
                    rules: rng.bytes(),
                }),
                newest_secs: (rng.next() & 64 == 0).then(|| rng.next() as i64),
            }),
            wall_start_ns: rng.next() as i64,
            missing: rng.list(3, |rng| VolumeId(rng.next() as u32)),
        }),
        6 => Record::Commit(Commit {
            backup,
            objects: rng.list(40, |rng| (rng.name(), rng.next())),
            segments: rng.list(40, segment),
            removed: rng.list(40, Rng::name),
            progress: rng.list(10, |rng| Stretch {
                volume: VolumeId(rng.next() as u32),
                from: (rng.next(), rng.next()),
                to: (rng.next(), rng.next()),
            }),
            totals: totals(rng),
            newest_secs: (rng.next() & 64 == 0).then(|| rng.next() as i64),
        }),
        7 => Record::BackupEnded(BackupEnd { backup, wall_end_ns: rng.next() as i64 }),
        8 => match rng.next() % 3 {
            0 => Record::BackupAbandoned { backup },
            which => Record::BackupStopped { backup, goes_on: which == 2 },
        },
        9 => Record::PointExpired { backup },
        10 => Record::Retire { objects: rng.list(40, Rng::name) },
        11 => Record::OrphanFloor { epoch: Epoch(rng.next()) },
        12 => Record::Pin { pin: rng.next(), node: NodeId(rng.next() as u32) },
        13 => Record::PinRefreshed { pin: rng.next(), counter: rng.next() },
        14 => Record::Unpin { pin: rng.next() },
        16 => Record::Damage(DamageNews {
            missing: rng.names(),
            damaged: rng.names(),
            present: rng.names(),
            points: rng.list(9, |rng| BackupId(rng.next() as u32)),
            points_sound: rng.list(9, |rng| BackupId(rng.next() as u32)),
        }),
        17 => {
            Record::Swept(Swept { wall_ns: rng.next() as i64, after: rng.text(SWEEP_KEY_BYTES_MAX as u64) })
        }
        18 => Record::BackupTried(Tried {
            policy: rng.text(64),
            wall_ns: rng.next() as i64,
            failures: rng.next() as u32,
            why: rng.text(TRIED_WHY_BYTES_MAX as u64),
        }),
        19 => Record::LeaseSet { lease_ns: rng.next() },
        22 => Record::PointGuarded(PointGuard {
            backup,
            part: match rng.next() % 3 {
                0 => GuardPart::Guard(Guard { until_ns: rng.next() as i64, undo_ns: rng.next() }),
                1 => GuardPart::Leave { wall_ns: rng.next() as i64 },
                _ => GuardPart::Undo,
            },
        }),
        _ => Record::Checkpoint(CheckpointName {
            slot: Slot(rng.next()),
            nonce: rng.bytes(),
            digest: rng.bytes(),
        }),
    }
}

#[test]
fn random_records_round_trip_and_their_cuts_are_refused() {
    let mut rng = Rng(1);
    for round in 0..600 {
        let kind = if round % 20 == 19 { 22 } else { 1 + (round % 20) as u8 };
        let record = record(&mut rng, kind);
        assert_eq!(record.kind(), kind);
        let mut bytes = Vec::new();
        record.emit(&mut bytes);
        assert_eq!(bytes.len(), record.encoded_len());
        assert_eq!(parse_records(&bytes).as_deref(), Ok(std::slice::from_ref(&record)));
        for cut in (0..bytes.len()).step_by(1 + bytes.len() / 40) {
            assert!(parse_records(&bytes[..cut]).is_err(), "{record:?} cut at {cut}");
        }
    }
}

#[test]
fn what_parses_from_changed_bytes_encodes_to_the_same_bytes() {
    let mut rng = Rng(2);
    let mut parsed = 0;
    for round in 0..60_000u64 {
        let mut bytes = Vec::new();
        record(&mut rng, 1 + (round % 17) as u8).emit(&mut bytes);
        let at = rng.next() as usize % bytes.len();
        bytes[at] = rng.next() as u8;
        if let Ok(records) = parse_records(&bytes) {
            parsed += 1;
            let mut again = Vec::new();
            emit_records(&records, &mut again);
            assert_eq!(again, bytes, "one encoding per record");
        }
    }
    assert!(parsed > 10_000);
}

#[test]
fn counts_at_their_bounds_pass_and_one_more_is_refused() {
    let retire = |count: usize| {
        let mut bytes = Vec::new();
        Record::Retire { objects: vec![ObjectId::default(); count] }.emit(&mut bytes);
        parse_records(&bytes)
    };
    assert!(retire(RECORD_OBJECTS_MAX).is_ok());
    assert_eq!(retire(RECORD_OBJECTS_MAX + 1), Err(WireFault::Count(RECORD_OBJECTS_MAX as u32 + 1)));
    let policy = |body: usize, name: &str| {
        let change =
            PolicyChange { name: name.into(), revision: 1, body: vec![0; body], volumes: Vec::new() };
        let mut bytes = Vec::new();
        Record::PolicyChanged(change).emit(&mut bytes);
        parse_records(&bytes)
    };
    assert!(policy(POLICY_BODY_BYTES_MAX, "p").is_ok());
    assert!(policy(POLICY_BODY_BYTES_MAX + 1, "p").is_err());
    assert!(policy(1, "").is_err() && policy(1, "a\nb").is_err() && policy(1, &"n".repeat(65)).is_err());
    let mut many = Vec::new();
    emit_records(&vec![Record::Unpin { pin: 1 }; SLOT_RECORDS_MAX], &mut many);
    assert!(parse_records(&many).is_ok());
    Record::Unpin { pin: 1 }.emit(&mut many);
    assert!(parse_records(&many).is_err());
    assert_eq!(parse_records(&[]), Err(WireFault::Short));
    assert_eq!(parse_records(&[99, 0, 0, 0, 0]), Err(WireFault::Kind(99)));
    let damage = |runs: u32| {
        let mut news = DamageNews::default();
        for at in 0..runs {
            news.missing.insert(&ObjectId { count: 2 * at, ..ObjectId::default() });
        }
        let mut bytes = Vec::new();
        Record::Damage(news).emit(&mut bytes);
        parse_records(&bytes)
    };
    assert!(damage(RECORD_RUNS_MAX as u32).is_ok());
    assert_eq!(damage(RECORD_RUNS_MAX as u32 + 1), Err(WireFault::Count(RECORD_RUNS_MAX as u32 + 1)));
    assert_eq!(parse_records(&[14, 9, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0]), Err(WireFault::Trailing));
}

#[test]
fn the_golden_slot_parses_and_is_emitted_byte_for_byte() {
    let golden = include_bytes!("../../../tests/golden/log_slot_v1.bin");
    let contents = SlotContents::parse(golden, &PlainForTests).unwrap();
    let kinds: Vec<u8> = contents.records.iter().map(Record::kind).collect();
    assert_eq!(kinds, [1, 3, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 4, 2, 2]);
    assert_eq!((contents.header.slot, contents.header.epoch), (Slot(300), Epoch(3)));
    assert_eq!(contents.header.writer.boot, Boot(5));
    let Record::BackupBegun(start) = &contents.records[2] else { panic!("not a start") };
    assert_eq!((start.volumes[0].state, start.volumes[1].state), (Some([0xBB; 16]), None));
    let Record::Commit(commit) = &contents.records[3] else { panic!("not a commit") };
    assert_eq!((commit.segments[0].last_inode, commit.segments[0].rows), (900, [11, 12, 13, 0]));
    assert_eq!(commit.progress, [Stretch { volume: VolumeId(1), from: (2, 0), to: (901, 3) }]);
    assert_eq!((commit.totals.items, commit.totals.faults), (100, 109));
    let Record::BackupEnded(end) = &contents.records[4] else { panic!("not an end") };
    assert_eq!((end.backup, end.wall_end_ns), (BackupId(1), -1));
    let (bytes, digest) = contents.header.emit(&contents.records, &PlainForTests).unwrap();
    assert_eq!(bytes, golden);
    assert_eq!(digest, contents.digest);
}

#[test]
fn a_lease_is_these_bytes() {
    let mut bytes = Vec::new();
    Record::LeaseSet { lease_ns: 60_000_000_000 }.emit(&mut bytes);
    assert_eq!(bytes, [19, 8, 0, 0, 0, 0, 0x58, 0x47, 0xf8, 13, 0, 0, 0]);
}

#[test]
fn a_stop_is_these_bytes_and_one_without_its_last_gives_a_backup_up() {
    let emitted = |record: Record| {
        let mut bytes = Vec::new();
        record.emit(&mut bytes);
        bytes
    };
    let backup = BackupId(9);
    assert_eq!(emitted(Record::BackupStopped { backup, goes_on: false }), [8, 5, 0, 0, 0, 9, 0, 0, 0, 1]);
    assert_eq!(emitted(Record::BackupStopped { backup, goes_on: true }), [8, 5, 0, 0, 0, 9, 0, 0, 0, 2]);
    assert_eq!(emitted(Record::BackupAbandoned { backup }), [8, 4, 0, 0, 0, 9, 0, 0, 0]);
    for other in [0, 3] {
        let bytes = [8, 5, 0, 0, 0, 9, 0, 0, 0, other];
        assert_eq!(Record::parse(&mut Reader::new(&bytes)), Err(WireFault::Value));
    }
}

#[test]
fn a_try_is_these_bytes_and_what_is_too_long_of_it_is_cut_off() {
    let mut bytes = Vec::new();
    Record::BackupTried(Tried::new("p", 5, 2, "no")).emit(&mut bytes);
    let golden = [
        18, 23, 0, 0, 0, // kind, length
        1, 0, 0, 0, b'p', 5, 0, 0, 0, 0, 0, 0, 0, // policy, wall clock
        2, 0, 0, 0, 2, 0, 0, 0, b'n', b'o', // failures, why
    ];
    assert_eq!(bytes, golden);
    let long = Tried::new("p", 0, 1, &"é".repeat(TRIED_WHY_BYTES_MAX));
    assert_eq!(long.why.len(), TRIED_WHY_BYTES_MAX);
    let odd = Tried::new("p", 0, 1, &format!("x{}", "é".repeat(TRIED_WHY_BYTES_MAX)));
    assert_eq!(odd.why.len(), TRIED_WHY_BYTES_MAX - 1, "characters stay whole");
}

#[test]
fn the_golden_slot_of_damage_parses_and_is_emitted_byte_for_byte() {
    let golden = include_bytes!("../../../tests/golden/log_slot_damage_v1.bin");
    let contents = SlotContents::parse(golden, &PlainForTests).unwrap();
    let [Record::Damage(news), Record::Swept(on), Record::Swept(end)] = &contents.records[..] else {
        panic!("not the three records")
    };
    let id = |count| ObjectId { epoch: Epoch(3), node: NodeId(4), boot: Boot(5), count };
    assert!(news.missing.names().eq([id(1), id(2), id(3), id(9)]));
    assert!(news.damaged.names().eq([id(6)]) && news.present.is_empty());
    assert_eq!(
        (&news.points[..], &news.points_sound[..]),
        (&[BackupId(1), BackupId(2)][..], &[BackupId(7)][..])
    );
    assert_eq!((on.wall_ns, on.after.as_str(), end.after.as_str()), (5, "seg/1", ""));
    assert_eq!(contents.header.emit(&contents.records, &PlainForTests).unwrap().0, golden);
}

#[test]
fn the_golden_slot_with_what_records_were_given_since_parses_and_is_emitted_byte_for_byte() {
    let golden = include_bytes!("../../../tests/golden/log_slot_basis_v1.bin");
    let contents = SlotContents::parse(golden, &PlainForTests).unwrap();
    let [Record::BackupBegun(start), Record::Commit(commit)] = &contents.records[..] else { panic!() };
    let basis = VolumeBasis { identity: [0xDD; 16], size_bytes: 1 << 40, rules: [0xEE; 16] };
    let volume = |volume, uuid, state, basis, newest_secs| BackupVolume {
        volume: VolumeId(volume),
        fs_uuid: [uuid; 16],
        state,
        basis,
        newest_secs,
    };
    let expected = [
        volume(1, 0xAA, Some([0xBB; 16]), Some(basis), None),
        volume(2, 0xCC, None, Some(basis), None),
        volume(3, 0xCC, None, None, Some(-2)),
    ];
    assert_eq!(start.volumes, expected);
    assert_eq!((commit.totals.faults, commit.newest_secs), (109, Some(1_700_000_001)));
    assert_eq!(contents.header.emit(&contents.records, &PlainForTests).unwrap().0, golden);
}

#[test]
fn the_golden_slot_with_missing_volumes_parses_and_is_emitted_byte_for_byte() {
    let golden = include_bytes!("../../../tests/golden/log_slot_missing_v1.bin");
    let contents = SlotContents::parse(golden, &PlainForTests).unwrap();
    let [Record::BackupBegun(start)] = &contents.records[..] else { panic!("not the record") };
    assert_eq!((start.volumes.len(), &start.missing[..]), (1, &[VolumeId(2), VolumeId(9)][..]));
    assert_eq!(contents.header.emit(&contents.records, &PlainForTests).unwrap().0, golden);
}

#[test]
fn a_volume_is_the_same_only_when_both_say_what_they_are_and_it_did_not_shrink() {
    let basis = VolumeBasis { identity: [1; 16], size_bytes: 100, rules: [2; 16] };
    let volume = BackupVolume { fs_uuid: [3; 16], basis: Some(basis), ..BackupVolume::default() };
    let with = |change: &dyn Fn(&mut BackupVolume)| {
        let mut other = volume;
        change(&mut other);
        other
    };
    let basis_with = |identity, size_bytes, rules| {
        with(&|v| v.basis = Some(VolumeBasis { identity: [identity; 16], size_bytes, rules: [rules; 16] }))
    };
    for (now, same) in [
        (volume, true),
        (with(&|v| v.state = Some([9; 16])), true),
        (basis_with(1, 101, 2), true),
        (basis_with(1, 99, 2), false),
        (basis_with(1, 100, 9), true),
        (basis_with(9, 100, 2), false),
        (with(&|v| v.fs_uuid = [9; 16]), false),
        (with(&|v| v.basis = None), false),
    ] {
        assert_eq!(now.is_same_volume(&volume), same, "{now:?}");
    }
    let unknown = with(&|v| v.basis = None);
    assert!(!volume.is_same_volume(&unknown) && !unknown.is_same_volume(&unknown));
}

#[test]
fn the_golden_slot_that_carries_another_is_put_together_byte_for_byte() {
    let golden = include_bytes!("../../../tests/golden/log_slot_carrying.bin");
    let before = include_bytes!("../../../tests/golden/log_slot_v1.bin");
    let contents = SlotContents::parse(golden, &PlainForTests).unwrap();
    assert_eq!((contents.header.slot, &contents.records[..]), (Slot(301), &[Record::Unpin { pin: 9 }][..]));
    assert_eq!(contents.header.previous, before[before.len() - 32..]);
    assert_eq!(carried(golden), Some(&before[..]));
    let (own, _) = contents.header.emit(&contents.records, &PlainForTests).unwrap();
    assert_eq!(carry(own, before), golden);
}
