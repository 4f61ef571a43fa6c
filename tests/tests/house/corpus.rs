//! Committed corpora through the fuzz targets on the stable compiler, as they are and with bytes changed.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use windlass_tests::fuzz::TARGETS;
use windlass_tests::prng::Prng;

/// Changed copies of each seed at most.
const MUTATIONS: u64 = 3000;
/// Changed copies of all seeds of a target, and the bytes that those of one seed take: many or large seeds have fewer each.
const MUTATIONS_PER_TARGET: u64 = 24_000;
const MUTATED_BYTES: u64 = 32 << 20;

#[test]
fn corpora_break_no_property() {
    for (name, target) in TARGETS {
        let folder = format!("{}/fuzz/corpus/{name}", env!("CARGO_MANIFEST_DIR"));
        let mut files: Vec<_> =
            std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        assert!(!files.is_empty(), "{folder} has seeds");
        for (index, file) in files.iter().enumerate() {
            let seed = std::fs::read(file).unwrap();
            target(&seed);
            let p = &mut Prng::new(index as u64);
            let share = MUTATIONS_PER_TARGET / files.len() as u64;
            for _ in 0..MUTATIONS.min(share).min(MUTATED_BYTES / seed.len() as u64) {
                let mut bytes = seed.clone();
                for _ in 0..1 + p.below(4) {
                    let at = p.below(bytes.len() as u64) as usize;
                    match p.below(4) {
                        0 => bytes[at] ^= 1 << p.below(8),
                        1 => bytes[at] = p.next_u64() as u8,
                        2 => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][p.below(5) as usize],
                        _ if bytes.len() > 1 => bytes.truncate(
                            bytes.len() - 1 - p.below(at.min(8) as u64) as usize % (bytes.len() - 1),
                        ),
                        _ => {}
                    }
                }
                target(&bytes);
            }
        }
    }
}
