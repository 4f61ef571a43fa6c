//! Formats and tables: bytes and speed on made-up rows, fixed seeds. Run: cargo bench -p windlass-tests --bench formats
//!
//! Back of the envelope: sealing a 128 KiB frame is one pass of AES-GCM (5 GB/s and more on one core), a digest one of BLAKE3
//! (2 to 6 GB/s with AVX2 or AVX-512); a location row of ten blocks is 160 bytes of digest and about 3 a block of frame length; an
//! item row is dominated by four times with nanoseconds (about 30 bytes) and the generation (4).

//! Rates are per second of this thread's CPU time, which a busy machine disturbs less than the wall clock.

#![allow(clippy::unwrap_used, reason = "a bench may die")]

use windlass_agent::format::block::{BlockBuilder, Pushed, RowBlock};
use windlass_agent::format::compress::{Compressor, Decompressor};
use windlass_agent::format::frame::{self, FRAME_HEADER_BYTES, FRAME_OVERHEAD_BYTES};
use windlass_agent::format::row::{Row, RowKind};
use windlass_agent::format::seal::{Keys, Sealing, Secret};
use windlass_agent::id::{BackupId, Lin, ObjectId, VolumeId};
use windlass_agent::limits::SEGMENT_BYTES_MAX;
use windlass_agent::table::read::TableReader;
use windlass_agent::table::segment::SegmentWriter;
use windlass_agent::table::source::TableLimits;
use windlass_tests::history::Memory;
use windlass_tests::prng::Prng;
use windlass_tests::rows;

const ROWS: usize = 100_000;
const BLOCK: usize = 128 << 10;

fn main() {
    let keys = Keys::new(&Secret::new([1; 32]), Sealing::Aes256Gcm);
    seals();
    let p = &mut Prng::new(1);
    let items: Vec<Row> = rows::plain_items(p, ROWS, 3).into_iter().map(Row::Item).collect();
    let names: Vec<Row> = rows::plain_names(p, ROWS, 3).into_iter().map(Row::Name).collect();
    let locations: Vec<Row> = rows::plain_locations(p, ROWS, 3).into_iter().map(Row::Location).collect();
    for (what, rows) in [("item", &items), ("name", &names), ("location", &locations)] {
        blocks(what, rows, &keys);
    }
    reads(&items, &keys);
}

/// CPU time of this thread so far.
fn cpu_seconds() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    text.split_whitespace().next().unwrap().parse::<f64>().unwrap() / 1e9
}

fn per_second(count: usize, start: f64) -> f64 {
    count as f64 / (cpu_seconds() - start)
}

fn seals() {
    for sealing in [Sealing::Off, Sealing::Aes256Gcm] {
        let keys = Keys::new(&Secret::new([1; 32]), sealing);
        let key = keys.object(&ObjectId::default());
        let mut buffer = vec![7u8; BLOCK + FRAME_OVERHEAD_BYTES];
        let rounds = 8000;
        let start = cpu_seconds();
        for at in 0..rounds {
            frame::seal(&mut buffer, BLOCK, BLOCK, false, &key, at as u64);
        }
        let seal = per_second(rounds * BLOCK, start) / 1e9;
        let start = cpu_seconds();
        for _ in 0..rounds {
            // Opening decrypts in place, so what is opened is sealed again first; the seal's time is taken off.
            frame::seal(&mut buffer, BLOCK, BLOCK, false, &key, 0);
            frame::open(&mut buffer, &key, 0).unwrap();
        }
        let both = per_second(rounds * BLOCK, start) / 1e9;
        println!("{sealing:?}: frame seal {seal:.2} GB/s, seal and open {both:.2} GB/s (128 KiB)");
        let start = cpu_seconds();
        let mut sum = 0u8;
        for _ in 0..rounds {
            sum ^= keys.digest(&buffer[FRAME_HEADER_BYTES..FRAME_HEADER_BYTES + BLOCK])[0];
        }
        println!("{sealing:?}: digest {:.2} GB/s (128 KiB) [{sum}]", per_second(rounds * BLOCK, start) / 1e9);
    }
}

fn blocks(what: &str, rows: &[Row], keys: &Keys) {
    let (mut compressor, mut decompressor) = (Compressor::new(1).unwrap(), Decompressor::new().unwrap());
    let key = keys.rows(&ObjectId::default());
    let mut builder = BlockBuilder::new(rows[0].as_ref().kind());
    let (mut out, mut stored, mut raw) = (Vec::new(), Vec::new(), 0);
    let start = cpu_seconds();
    for row in rows {
        if builder.push(row).unwrap() == Pushed::Full {
            raw += builder.raw_bytes();
            builder.finish(&key, 0, &mut compressor, &mut out);
            stored.push(out.clone());
            builder.push(row).unwrap();
        }
    }
    raw += builder.raw_bytes();
    builder.finish(&key, 0, &mut compressor, &mut out);
    stored.push(out);
    let encode = per_second(rows.len(), start);
    let bytes: usize = stored.iter().map(Vec::len).sum();
    let start = cpu_seconds();
    let mut back = 0;
    for block in &mut stored {
        let block = RowBlock::open(block, &key, 0, &mut decompressor).unwrap();
        let mut cursor = block.cursor().unwrap();
        while cursor.next(&block).unwrap().is_some() {
            back += 1;
        }
    }
    assert_eq!(back, rows.len());
    let decode = per_second(rows.len(), start);
    let per_row = |bytes: usize| bytes as f64 / rows.len() as f64;
    println!(
        "{what}: {:.1} bytes a row stored ({:.1} plain), encode {:.2} M rows/s, decode {:.2} M rows/s, {} blocks",
        per_row(bytes),
        per_row(raw),
        encode / 1e6,
        decode / 1e6,
        stored.len()
    );
}

fn reads(items: &[Row], keys: &Keys) {
    let memory = Memory::default();
    let mut writer = SegmentWriter::new(1, SEGMENT_BYTES_MAX, keys).unwrap();
    let start = cpu_seconds();
    let metas = memory.put_segments(items, &mut writer).unwrap();
    println!("segment: {:.2} M item rows/s written", per_second(items.len(), start) / 1e6);
    let mut reader = TableReader::new(memory.clone(), keys, TableLimits::default(), &metas).unwrap();
    let start = cpu_seconds();
    let mut stream = reader.items(VolumeId(1), 0, BackupId(9));
    let mut count = 0;
    while stream.next(&mut reader).unwrap().is_some() {
        count += 1;
    }
    println!(
        "stream: {:.2} M items/s, {:?} GETs and bytes",
        per_second(count, start) / 1e6,
        memory.fetches()
    );
    let p = &mut Prng::new(2);
    let lookups = 20_000;
    let before = memory.fetches();
    let start = cpu_seconds();
    for _ in 0..lookups {
        let lin = Lin { volume: VolumeId(1), inode: 12 + p.below(items.len() as u64) };
        assert!(reader.item(lin, BackupId(9)).unwrap().is_some());
    }
    println!(
        "item: {:.0} random look-ups/s over {} rows, {} GETs",
        per_second(lookups, start),
        items.len(),
        memory.fetches().0 - before.0
    );
    assert_eq!(items[0].as_ref().kind(), RowKind::Item);
}
