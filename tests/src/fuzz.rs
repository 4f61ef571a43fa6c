//! What the fuzz targets do with their bytes. The bodies live here, so that `tests/corpus.rs` replays committed corpora on the
//! stable compiler, and `fuzz/fuzz_targets/<name>.rs` is one line each.
//!
//! A new target: a function here, a row in [`TARGETS`], a file in `fuzz/fuzz_targets`, a `[[bin]]` in `fuzz/Cargo.toml`, seeds in
//! `fuzz/corpus/<name>`.
//!
//! Tags would stop a fuzzer at the door, so each body also goes in behind it: checksums are repaired, bytes are sealed first.

use windlass_agent::format::block::{BlockBuilder, RowBlock};
use windlass_agent::format::compress::{Compressor, Decompressor};
use windlass_agent::format::frame::{self, FRAME_HEADER_BYTES, FRAME_OVERHEAD_BYTES, FrameHeader};
use windlass_agent::format::repo::RepoFormat;
use windlass_agent::format::row::RowKind;
use windlass_agent::format::seal::{Keys, Region, Sealing, Secret};
use windlass_agent::format::tail::{Index, TRAILER_BYTES, Trailer};
use windlass_agent::id::ObjectId;
use windlass_agent::table::segment::SegmentMeta;

/// A fuzz target: its name and what it does. It panics when a property is broken.
pub type Target = (&'static str, fn(&[u8]));

/// All targets, by the name of their corpus.
pub const TARGETS: &[Target] = &[
    ("format_repo", format_repo),
    ("frame", frame),
    ("row_block", row_block),
    ("tail", tail),
    ("segment_meta", segment_meta),
    // ext4, log_record: go here.
];

/// A `format` object that parses emits the same bytes.
pub fn format_repo(data: &[u8]) {
    let mut bytes = data.to_vec();
    let _ = RepoFormat::parse(&bytes);
    if let Some((body, crc)) = bytes.split_last_chunk_mut::<4>() {
        *crc = crc32(body);
    }
    if let Ok(format) = RepoFormat::parse(&bytes) {
        assert_eq!(format.emit(), bytes);
    }
}

/// A frame whose tag is made to match is opened and decompressed, or refused.
pub fn frame(data: &[u8]) {
    let key = Keys::new(&Secret::new([1; 32]), Sealing::Off).object(&ObjectId::default());
    let mut bytes = data.to_vec();
    let _ = frame::open(&mut bytes, &key, 0);
    if let Ok(header) = FrameHeader::parse(data)
        && header.raw_len < 1 << 20
        && data.len() >= header.frame_bytes()
    {
        assert_eq!(header.emit(), data[..FRAME_HEADER_BYTES]);
        bytes.copy_from_slice(data);
        let len = header.frame_bytes() - FRAME_OVERHEAD_BYTES;
        let (head, rest) = bytes.split_at_mut(FRAME_HEADER_BYTES);
        let tag = key.seal(Region::Frame, 0, head, &mut rest[..len]);
        rest[len..len + tag.len()].copy_from_slice(&tag);
        if let (Ok(opened), Some(mut decompressor)) = (frame::open(&mut bytes, &key, 0), Decompressor::new())
        {
            let mut plain = vec![0; opened.raw_len];
            let _ = opened.plain(&mut decompressor, &mut plain);
        }
    }
}

/// Rows that decode (first byte: kind, second: rows) come back from a new block of them.
pub fn row_block(data: &[u8]) {
    let [kind, rows, raw @ ..] = data else {
        return;
    };
    let Some(kind) = RowKind::from_byte(*kind) else {
        return;
    };
    let Ok(rows) = RowBlock::from_plain(kind, (*rows).into(), raw.to_vec()).to_rows() else {
        return;
    };
    let mut builder = BlockBuilder::new(kind);
    let mut taken = Vec::new();
    for row in rows {
        if builder.push(&row).is_ok_and(|pushed| pushed == windlass_agent::format::block::Pushed::Taken) {
            taken.push(row);
        }
    }
    let key = Keys::new(&Secret::new([1; 32]), Sealing::Off).rows(&ObjectId::default());
    let (Some(mut compressor), Some(mut decompressor)) = (Compressor::new(1), Decompressor::new()) else {
        return;
    };
    if !taken.is_empty() {
        let mut out = Vec::new();
        builder.finish(&key, 0, &mut compressor, &mut out);
        let back = RowBlock::open(&mut out, &key, 0, &mut decompressor).and_then(|block| block.to_rows());
        assert_eq!(back, Ok(taken));
    }
}

/// A trailer (the last 128 bytes) and a plain index before it; checksums and totals are made to match.
pub fn tail(data: &[u8]) {
    let mut bytes = data.to_vec();
    if let Some(end) = bytes.last_chunk_mut::<TRAILER_BYTES>() {
        let crc = crc32(&end[..108]);
        end[108..112].copy_from_slice(&crc);
    }
    let Ok((mut trailer, _)) = Trailer::parse_unsealed(&bytes) else {
        return;
    };
    let keys = Keys::new(&Secret::new([1; 32]), Sealing::Off);
    let emitted = trailer.emit(&keys.rows(&trailer.head.id));
    assert_eq!(Trailer::parse(&emitted, &trailer.head.id, &keys), Ok(trailer));
    let raw = &bytes[..bytes.len() - TRAILER_BYTES];
    trailer.blocks = raw.first().copied().unwrap_or(0).into();
    let _ = Index::parse_plain(raw.get(1..).unwrap_or_default(), &trailer);
}

/// A segment's entry that parses emits the same bytes.
pub fn segment_meta(data: &[u8]) {
    if let Ok(meta) = SegmentMeta::parse(data) {
        assert_eq!(data[..meta.emit().len()], meta.emit());
    }
}

/// CRC-32 (IEEE), bit by bit: the harness's own.
fn crc32(bytes: &[u8]) -> [u8; 4] {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ if crc & 1 == 1 { 0xedb8_8320 } else { 0 };
        }
    }
    (!crc).to_le_bytes()
}
