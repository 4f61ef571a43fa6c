//! Frames through one lane, and back out of the object.

use windlass_hal::buf::Pool;
use windlass_hal::clock::SystemClock;

use super::*;
use crate::format::compress::Decompressor;
use crate::format::seal::{Sealing, Secret};
use crate::id::{Boot, Epoch, NodeId};
use crate::pack::object::{NameCounter, PIECE_BYTES};

const PLAIN_BYTES: usize = 64 << 10;

fn shared(level: Option<i32>) -> Arc<Shared> {
    let writer = (Epoch(1), NodeId(2), Boot(3));
    Arc::new(Shared {
        keys: Keys::new(&Secret::new([7; 32]), Sealing::Aes256Gcm),
        placer: Mutex::new(Placer::new(Pool::new(16, PIECE_BYTES), 4 << 20, writer, NameCounter::default())),
        known: Known::new(64),
        level,
        proofs: Proofs::new(1, Arc::new(SystemClock)),
        rate: LinkRate::default(),
    })
}

/// A frame whose buffer holds 0xEE but for `blocks`: lists of (within, at, bytes), and the block's length.
/// Length of a block, and its pieces: where in the block, where in the buffer, which bytes.
type Made<'a> = (u32, &'a [(u32, u32, &'a [u8])]);

fn job(packed: bool, blocks: &[Made<'_>]) -> Job {
    let pool = Pool::new(1, FRAME_FRONT_BYTES + PLAIN_BYTES + FRAME_BACK_BYTES);
    let mut buf = pool.take().unwrap();
    buf.fill(0xee);
    let mut job = Job {
        tag: 5,
        buf,
        blocks: Vec::new(),
        pieces: Vec::new(),
        bytes: PLAIN_BYTES as u32,
        packed,
        outcome: Outcome::default(),
    };
    for (index, (len, pieces)) in blocks.iter().enumerate() {
        let start = job.pieces.len() as u32;
        for &(within, at, bytes) in *pieces {
            job.buf[FRAME_FRONT_BYTES + at as usize..][..bytes.len()].copy_from_slice(bytes);
            job.pieces.push(JobPiece { within, len: bytes.len() as u32, at });
        }
        job.blocks.push(JobBlock {
            outcome: index as u32,
            len: *len,
            pieces: start..job.pieces.len() as u32,
            base: None,
            place: BlockPlace::Empty,
        });
    }
    job
}

fn text(seed: u8, len: usize) -> Vec<u8> {
    (0..len).map(|i| if i % 7 == 0 { seed } else { b'a' + (i % 5) as u8 }).collect()
}

fn noise(len: usize) -> Vec<u8> {
    let mut prng = windlass_hal::sim::prng::Prng::new(1);
    (0..len).map(|_| prng.next_u64() as u8).collect()
}

fn stored(place: &BlockPlace) -> Place {
    match place {
        BlockPlace::Stored(place) => *place,
        other => panic!("not stored: {other:?}"),
    }
}

/// The plain bytes of a place's frame, and whether it was compressed.
fn frame_of(shared: &Shared, place: &Place) -> (Vec<u8>, bool) {
    let object = Arc::clone(shared.placer.lock().unwrap().open().unwrap());
    assert_eq!(object.id(), place.object);
    let mut bytes = object.with_parts(|parts| parts.concat());
    let frame = &mut bytes[place.frame_offset as usize..][..place.frame_bytes as usize];
    let key = shared.keys.object(&place.object);
    let opened = frame::open(frame, &key, u64::from(place.frame_offset)).unwrap();
    let mut plain = vec![0; opened.raw_len];
    opened.plain(&mut Decompressor::new().unwrap(), &mut plain).unwrap();
    (plain, opened.zstd)
}

fn block_of<'a>(plain: &'a [u8], place: &Place) -> &'a [u8] {
    &plain[place.inner_offset as usize..][..place.len as usize]
}

#[test]
fn zeros_and_lost_blocks_take_no_room() {
    let shared = shared(Some(1));
    let mut job = job(true, &[(4096, &[(0, 0, &[0; 4096])]), (100, &[(0, 4096, &text(1, 100))])]);
    job.blocks[1].place = BlockPlace::Lost;
    Lane::new(Arc::clone(&shared), PLAIN_BYTES).run(&mut job);
    assert_eq!((job.blocks[0].place, job.blocks[1].place), (BlockPlace::Zero, BlockPlace::Lost));
    assert_eq!(job.outcome, Outcome { zero_bytes: 4096, ..Outcome::default() });
    assert!(shared.placer.lock().unwrap().open().is_none());
}

#[test]
fn a_block_is_stored_once_and_comes_back() {
    let shared = shared(Some(1));
    let mut lane = Lane::new(Arc::clone(&shared), PLAIN_BYTES);
    let (one, two) = (text(1, 4096), text(2, 4096));
    let mut first = job(true, &[(4096, &[(0, 0, &one)]), (4096, &[(0, 4096, &two)])]);
    lane.run(&mut first);
    let places = [stored(&first.blocks[0].place), stored(&first.blocks[1].place)];
    let (plain, zstd) = frame_of(&shared, &places[0]);
    assert!(zstd && block_of(&plain, &places[0]) == one && block_of(&plain, &places[1]) == two);
    assert_eq!((first.outcome.digested_bytes, first.outcome.stored_plain_bytes), (8192, 8192));
    assert_eq!(first.outcome.stored, Some((places[0].object, places[0].frame_bytes)));
    let mut again = job(true, &[(4096, &[(0, 0, &two)])]);
    lane.run(&mut again);
    assert_eq!(stored(&again.blocks[0].place), places[1]);
    assert_eq!((again.outcome.known_bytes, again.outcome.stored), (4096, None));
}

#[test]
fn a_block_equal_to_the_last_points_stays_there() {
    let shared = shared(Some(1));
    let one = text(1, 4096);
    let base = Place {
        object: ObjectId { epoch: Epoch(9), ..ObjectId::default() },
        frame_offset: 10,
        frame_bytes: 20,
        inner_offset: 30,
        len: 4096,
        digest: shared.keys.digest(&one),
    };
    let mut job = job(true, &[(4096, &[(0, 0, &one)]), (4096, &[(0, 4096, &text(2, 4096))])]);
    job.blocks.iter_mut().for_each(|block| block.base = Some(base));
    Lane::new(Arc::clone(&shared), PLAIN_BYTES).run(&mut job);
    assert_eq!(stored(&job.blocks[0].place), base);
    assert_eq!((job.outcome.known_bytes, job.outcome.stored_plain_bytes), (4096, 4096));
    let other = stored(&job.blocks[1].place);
    assert_eq!(other.inner_offset, 0, "the kept block left no gap");
    assert_eq!(block_of(&frame_of(&shared, &other).0, &other), text(2, 4096));
}

#[test]
fn noise_is_stored_as_it_is() {
    // The sample sees it in a large frame; a small one is compressed in vain.
    for len in [PLAIN_BYTES, 4096] {
        let shared = shared(Some(1));
        let noise = noise(len);
        let mut job = job(true, &[(len as u32, &[(0, 0, &noise)])]);
        Lane::new(Arc::clone(&shared), PLAIN_BYTES).run(&mut job);
        let place = stored(&job.blocks[0].place);
        assert_eq!(place.frame_bytes as usize, len + FRAME_OVERHEAD_BYTES);
        assert_eq!(frame_of(&shared, &place), (noise, false));
    }
}

#[test]
fn scattered_blocks_are_gathered_and_holes_within_are_zero() {
    for level in [None, Some(1)] {
        let shared = shared(level);
        let (head, tail, other) = (text(1, 1000), text(2, 1096), text(3, 2000));
        let pieces: [(u32, u32, &[u8]); 2] = [(0, 8192, &head), (3000, 0, &tail)];
        let mut job = job(false, &[(4096, &pieces), (1500, &[(0, 4096, &other)])]);
        Lane::new(Arc::clone(&shared), PLAIN_BYTES).run(&mut job);
        let (one, two) = (stored(&job.blocks[0].place), stored(&job.blocks[1].place));
        let (plain, _) = frame_of(&shared, &one);
        assert_eq!(block_of(&plain, &one), [&head[..], &[0; 2000], &tail].concat());
        assert_eq!(block_of(&plain, &two), &other[..1500], "what lies past the end is not the item's");
        assert_eq!(plain.len(), 4096 + 1500);
    }
}

#[test]
fn slack_is_zeroed_or_closed() {
    for (level, at) in [(Some(1), 4096), (None, 1000)] {
        let shared = shared(level);
        let (one, two) = (text(1, 4096), text(2, 4096));
        let mut job = job(true, &[(1000, &[(0, 0, &one)]), (4096, &[(0, 4096, &two)])]);
        Lane::new(Arc::clone(&shared), PLAIN_BYTES).run(&mut job);
        let (first, second) = (stored(&job.blocks[0].place), stored(&job.blocks[1].place));
        let (plain, _) = frame_of(&shared, &first);
        assert_eq!((first.inner_offset, second.inner_offset, plain.len()), (0, at, at as usize + 4096));
        assert_eq!((block_of(&plain, &first), block_of(&plain, &second)), (&one[..1000], &two[..]));
        assert!(plain[1000..at as usize].iter().all(|&b| b == 0), "another file's bytes are not stored");
    }
}

#[test]
fn a_frame_that_was_spoilt_after_its_digest_is_found_before_it_is_sent() {
    for (level, bytes) in [(Some(1), text(1, 9000)), (Some(1), noise(40_000)), (None, text(2, 9000))] {
        let shared = shared(level);
        let mut lane = Lane::new(Arc::clone(&shared), PLAIN_BYTES);
        let mut job = job(true, &[(bytes.len() as u32, &[(0, 0, &bytes)])]);
        lane.run(&mut job);
        assert_eq!(job.outcome.spoilt, None);
        let proven = shared.proofs.so_far();
        assert_eq!((proven.of, proven.frames, proven.bytes), (1, 1, bytes.len() as u64));
        // As it was stored, with one bit of its object changed, and with a block that was another one when it was digested.
        let place = stored(&job.blocks[0].place);
        let object = Arc::clone(shared.placer.lock().unwrap().open().unwrap());
        let slot = Slot { object, offset: place.frame_offset, len: place.frame_bytes };
        let zstd = frame_of(&shared, &place).1;
        let mut plain = vec![0; FRAME_FRONT_BYTES + PLAIN_BYTES + FRAME_BACK_BYTES];
        assert!(lane.holds(&job.blocks, &mut plain, &slot, zstd));
        let mut was = vec![0; place.frame_bytes as usize];
        slot.read(&mut was);
        for at in [0, was.len() / 2, was.len() - 1] {
            let mut spoilt = was.clone();
            spoilt[at] ^= 1;
            slot.fill(&spoilt);
            assert!(!lane.holds(&job.blocks, &mut plain, &slot, zstd), "byte {at}");
        }
        slot.fill(&was);
        let mut other = job.blocks.clone();
        if let BlockPlace::Stored(place) = &mut other[0].place {
            place.digest[3] ^= 1;
        }
        assert!(
            !lane.holds(&other, &mut plain, &slot, zstd) && lane.holds(&job.blocks, &mut plain, &slot, zstd)
        );
    }
}

#[test]
fn one_frame_of_so_many_is_opened_again() {
    let proofs = Proofs::new(4, Arc::new(SystemClock));
    let due: Vec<bool> = (0..9).map(|_| proofs.of(10, || ()).is_some()).collect();
    assert_eq!(due, [true, false, false, false, true, false, false, false, true]);
    assert_eq!((proofs.so_far().of, proofs.so_far().frames, proofs.so_far().bytes), (9, 3, 30));
}
