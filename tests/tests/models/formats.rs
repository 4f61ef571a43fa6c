//! Formats against made-up rows: round trips, order, and every byte flipped.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use windlass_agent::format::block::{BlockBuilder, Pushed, RowBlock};
use windlass_agent::format::compress::{Compressor, Decompressor};
use windlass_agent::format::row::RowKind;
use windlass_agent::format::seal::{Keys, Sealing, Secret};
use windlass_agent::format::tail::{Index, TRAILER_BYTES, TailBuilder, TailHead, TailKind, Trailer};
use windlass_agent::id::{BackupId, ObjectId, VolumeId};
use windlass_tests::prng::Prng;
use windlass_tests::rows;

fn keys(sealing: Sealing) -> Keys {
    Keys::new(&Secret::new([3; 32]), sealing)
}

#[test]
fn rows_of_every_kind_come_back_exactly() {
    let (mut compressor, mut decompressor) = (Compressor::new(3).unwrap(), Decompressor::new().unwrap());
    let key = keys(Sealing::Aes256Gcm).rows(&ObjectId::default());
    for seed in 0..200 {
        let p = &mut Prng::new(seed);
        for kind in RowKind::ALL {
            let count = 1 + p.below(300) as usize;
            let rows = rows::wild(p, kind, count);
            let mut builder = BlockBuilder::new(kind);
            let (mut out, mut back) = (Vec::new(), Vec::new());
            let mut close = |builder: &mut BlockBuilder| {
                let info = builder.finish(&key, 0, &mut compressor, &mut out);
                let block = RowBlock::open(&mut out, &key, 0, &mut decompressor).unwrap();
                let rows = block.to_rows().unwrap();
                assert_eq!(rows[0].as_ref().key(), info.first.as_ref(), "seed {seed}");
                assert_eq!(rows[rows.len() - 1].as_ref().key(), info.last.as_ref(), "seed {seed}");
                assert_eq!(rows.len(), info.rows as usize);
                back.extend(rows);
            };
            for row in &rows {
                if builder.push(row).unwrap() == Pushed::Full {
                    close(&mut builder);
                    assert_eq!(builder.push(row), Ok(Pushed::Taken));
                }
            }
            close(&mut builder);
            assert_eq!(back, rows, "seed {seed}, {kind:?}");
        }
    }
}

fn tail(
    sealing: Sealing,
    seed: u64,
    count: usize,
) -> (Vec<u8>, Trailer, Vec<windlass_agent::format::row::Row>) {
    let p = &mut Prng::new(seed);
    let id = rows::object(p);
    let head = TailHead { kind: TailKind::Object, id, policy: 1, backup: BackupId(900), volume: VolumeId(1) };
    let mut builder = TailBuilder::new(1).unwrap();
    builder.start(head, &keys(sealing));
    let (mut out, mut all) = (vec![0u8; 1000], Vec::new());
    let mut sink = |bytes: &[u8]| out.extend_from_slice(bytes);
    for kind in RowKind::ALL {
        for row in rows::wild(p, kind, count) {
            builder.push(&row, &mut sink).unwrap();
            all.push(row);
        }
    }
    let most = builder.bytes() + builder.pending_bytes_max();
    let trailer = builder.finish(1000, &mut sink);
    assert!(out.len() as u64 - 1000 <= most);
    assert_eq!(trailer.total_bytes(), out.len() as u64);
    (out, trailer, all)
}

/// Reads a whole tail; `None` when anything is refused.
fn read(bytes: &[u8], id: &ObjectId, keys: &Keys) -> Option<Vec<windlass_agent::format::row::Row>> {
    let mut decompressor = Decompressor::new().unwrap();
    let trailer = Trailer::parse(bytes, id, keys).ok()?;
    if trailer.total_bytes() != bytes.len() as u64 {
        return None;
    }
    let at = trailer.index_at() as usize;
    let mut index = bytes.get(at..at + trailer.index_bytes as usize)?.to_vec();
    let index = Index::parse(&mut index, &trailer, keys, &mut decompressor).ok()?;
    let mut rows = Vec::new();
    for kind in RowKind::ALL {
        for info in index.blocks(kind) {
            let at = (trailer.data_bytes + info.offset) as usize;
            let mut block = bytes.get(at..at + info.bytes as usize)?.to_vec();
            let block = RowBlock::open(&mut block, &keys.rows(id), info.offset, &mut decompressor).ok()?;
            rows.extend(block.to_rows().ok()?);
        }
    }
    Some(rows)
}

#[test]
fn tails_come_back_exactly() {
    for seed in 0..20 {
        for sealing in [Sealing::Off, Sealing::Aes256Gcm] {
            let (bytes, trailer, rows) = tail(sealing, seed, 1000);
            assert_eq!(read(&bytes, &trailer.head.id, &keys(sealing)), Some(rows), "seed {seed}");
        }
    }
}

#[test]
fn every_flipped_byte_of_a_tail_is_found() {
    for sealing in [Sealing::Off, Sealing::Aes256Gcm] {
        let (bytes, trailer, _) = tail(sealing, 5, 6);
        for at in 1000..bytes.len() {
            let mut bad = bytes.clone();
            bad[at] ^= 1 << (at % 8);
            assert_eq!(read(&bad, &trailer.head.id, &keys(sealing)), None, "byte {at} of {}", bytes.len());
        }
        for at in bytes.len() - TRAILER_BYTES..bytes.len() {
            assert_eq!(read(&bytes[..at], &trailer.head.id, &keys(sealing)), None);
        }
        assert_eq!(read(&bytes, &ObjectId::default(), &keys(sealing)), None);
    }
}
