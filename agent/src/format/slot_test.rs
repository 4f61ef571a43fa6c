//! Slots come back as they were, and what is not one is refused.

use super::*;

fn header() -> SlotHeader {
    SlotHeader {
        cluster: [1; 16],
        slot: Slot(2),
        epoch: Epoch(3),
        writer: Author { node: NodeId(4), boot: Boot(5) },
        nonce: [6; 16],
        previous: [7; 32],
    }
}

#[test]
fn every_changed_byte_of_a_slot_is_refused() {
    let (bytes, digest) = header().emit(&[Record::Unpin { pin: 9 }], &PlainForTests).unwrap();
    let slot = SlotContents::parse(&bytes, &PlainForTests).unwrap();
    assert_eq!((slot.header, slot.digest), (header(), digest));
    for at in 0..bytes.len() {
        let mut bad = bytes.clone();
        bad[at] ^= 1;
        assert!(SlotContents::parse(&bad, &PlainForTests).is_err(), "byte {at}");
        assert!(SlotContents::parse(&bytes[..at], &PlainForTests).is_err(), "cut at {at}");
    }
}

#[test]
fn unknown_versions_and_lengths_are_refused_even_with_a_right_digest() {
    let redo = |change: &dyn Fn(&mut Vec<u8>)| {
        let (mut bytes, _) = header().emit(&[Record::Unpin { pin: 9 }], &PlainForTests).unwrap();
        bytes.truncate(bytes.len() - 32);
        change(&mut bytes);
        emit_digest(&mut bytes);
        SlotContents::parse(&bytes, &PlainForTests).unwrap_err()
    };
    assert_eq!(redo(&|bytes| bytes[4] = 2), WireFault::Version(2));
    assert_eq!(redo(&|bytes| bytes[6] = 1), WireFault::Value);
    assert_eq!(redo(&|bytes| bytes[44] = 1), WireFault::Value);
    assert_eq!(redo(&|bytes| bytes[104] += 1), WireFault::Short);
    assert_eq!(redo(&|bytes| bytes[108] = 200), WireFault::Kind(200));
    assert_eq!(redo(&|bytes| bytes.push(0)), WireFault::Digest);
}

#[test]
fn a_slot_of_exactly_64_kib_is_the_largest() {
    let records = |body: usize| {
        let change = |body| {
            Record::PolicyChanged(super::super::record::PolicyChange {
                name: "p".into(),
                revision: 1,
                body: vec![0; body],
                volumes: Vec::new(),
            })
        };
        vec![change(16_000), change(16_000), change(16_000), change(body)]
    };
    let rest = SLOT_BYTES_MAX - SLOT_OVERHEAD_BYTES - 48_000 - 4 * (5 + 5 + 4 + 4 + 4);
    let (bytes, _) = header().emit(&records(rest), &PlainForTests).unwrap();
    assert_eq!(bytes.len(), SLOT_BYTES_MAX);
    assert!(header().emit(&records(rest + 1), &PlainForTests).is_err());
}

#[test]
fn a_slot_carries_the_one_before_it_where_both_fit() {
    let slot = |number, filler: usize| {
        let change = |body| {
            Record::PolicyChanged(super::super::record::PolicyChange {
                name: "p".into(),
                revision: 1,
                body: vec![0; body],
                volumes: Vec::new(),
            })
        };
        let records = [change(filler / 2), change(filler - filler / 2)];
        SlotHeader { slot: Slot(number), ..header() }.emit(&records, &PlainForTests).unwrap().0
    };
    let (before, own) = (slot(1, 100), slot(2, 0));
    let both = carry(own.clone(), &before);
    assert_eq!((own_part(&both), carried(&both)), (Ok(&own[..]), Some(&before[..])));
    assert_eq!(SlotContents::parse(&both, &PlainForTests), SlotContents::parse(&own, &PlainForTests));
    assert_eq!((whole(&both), whole(&own)), (Some(both.len()), Some(own.len())));
    // The copy behind a slot that carries nothing is not what it carries.
    assert_eq!(whole(&[&own[..], &own[..]].concat()), Some(own.len()));
    assert_eq!(carried(&carry(own.clone(), &slot(3, 0))), None);
    for at in own.len()..both.len() {
        let mut bad = both.clone();
        bad[at] ^= 1;
        assert_eq!((carried(&bad), carried(&both[..at]), whole(&bad)), (None, None, Some(own.len())), "{at}");
    }
    let large = slot(1, 30_000);
    let room = SLOT_BYTES_MAX - large.len();
    let fits = slot(2, room - own.len());
    assert_eq!(carry(fits.clone(), &large).len(), SLOT_BYTES_MAX);
    assert_eq!(carry(slot(2, room - own.len() + 1), &large).len(), fits.len() + 1);
}

#[test]
fn every_object_of_the_log_says_how_long_it_is() {
    let claim = Claim {
        cluster: [1; 16],
        epoch: Epoch(2),
        holder: header().writer,
        counter: 3,
        nonce: [4; 16],
        slot: Slot(0),
        who: Who::default(),
    };
    let name = CheckpointName { slot: Slot(1), nonce: [2; 16], digest: [3; 32] };
    let checkpoint = crate::log::checkpoint::Checkpoint {
        cluster: [1; 16],
        slot: Slot(2),
        nonce: [3; 16],
        slot_digest: [4; 32],
        state: crate::log::state::State::default(),
    };
    let objects = [
        claim.emit_grant(),
        Claim { who: Who::new(HolderKind::Agent, "a", 1), ..claim }.emit_grant(),
        claim.emit_beat(),
        emit_boundary(&[9; 16], &name),
        checkpoint.emit(&PlainForTests).unwrap().0,
        header().emit(&[Record::Unpin { pin: 9 }], &PlainForTests).unwrap().0,
    ];
    for object in objects {
        let stored = [&object[..], &object[..]].concat();
        assert_eq!(whole(&stored), Some(object.len()));
        for cut in 0..object.len() {
            assert_eq!(whole(&object[..cut]), None);
        }
    }
}

#[test]
fn grants_beats_and_boundaries_are_not_taken_for_each_other() {
    let claim = Claim {
        cluster: [1; 16],
        epoch: Epoch(2),
        holder: header().writer,
        counter: 3,
        nonce: [4; 16],
        slot: Slot(0),
        who: Who::default(),
    };
    assert_eq!(Claim::parse_grant(&claim.emit_grant()), Ok(claim));
    assert_eq!(Claim::parse_beat(&claim.emit_beat()), Ok(claim));
    assert_eq!(Claim::parse_beat(&claim.emit_grant()), Err(WireFault::Magic));
    let name = CheckpointName { slot: Slot(1), nonce: [2; 16], digest: [3; 32] };
    assert_eq!(parse_boundary(&emit_boundary(&[9; 16], &name)), Ok(([9; 16], name)));
}
#[test]
fn a_grant_says_what_its_holder_is_and_an_older_one_does_not() {
    let old = Claim {
        cluster: [1; 16],
        epoch: Epoch(2),
        holder: header().writer,
        counter: 3,
        nonce: [4; 16],
        slot: Slot(0),
        who: Who::default(),
    };
    let new = Claim { who: Who::new(HolderKind::Command, "box\u{7}", 513), ..old };
    let mut bytes = old.emit_grant();
    assert_eq!((bytes.len(), bytes[VERSION_AT]), (CLAIM_BYTES, 1), "as it was before");
    bytes.truncate(CLAIM_BYTES - DIGEST_BYTES);
    bytes[VERSION_AT] = 2;
    bytes.extend_from_slice(&[1, 0, 0, 0, 1, 2, 0, 0, b'b', b'o', b'x', 7]);
    bytes.resize(GRANT_BYTES - DIGEST_BYTES, 0);
    emit_digest(&mut bytes);
    assert_eq!(new.emit_grant(), bytes);
    assert_eq!(Claim::parse_grant(&bytes), Ok(new));
    assert_eq!(new.who.to_string(), "a windlass command on box\\u{7} (pid 513)");
    for (at, byte) in [(72, 3), (72, 0), (111, 1)] {
        let mut bad = bytes[..GRANT_BYTES - DIGEST_BYTES].to_vec();
        bad[at] = byte;
        emit_digest(&mut bad);
        assert_eq!(Claim::parse_grant(&bad), Err(WireFault::Value), "{at}");
    }
    assert_eq!(Who::new(HolderKind::Agent, &"h".repeat(99), 1).to_string().len(), 12 + HOST_BYTES + 8);
}
