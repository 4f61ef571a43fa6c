//! Damaged XFS volumes: whatever a byte of metadata becomes, the reader neither panics nor hangs, and never delivers something else
//! without saying so.
//!
//! Each round changes a few bytes of metadata in memory, sweeps the volume, asks for the used map, and changes them back. In half
//! of the rounds the checksums are made good again: the reader then believes the bytes, and the rules behind the checksums are what is
//! tested. Images are made by mkfs.xfs and xfs_db; as root also one that the kernel fills, with structures that these do not
//! make. Damaged bytes never leave memory. Seeded; `WINDLASS_MUTATIONS` sets the rounds per image.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::os::unix::fs::symlink;
use std::path::Path;

use support::kernel::Mounted;
use support::xfs::{make, set_attribute};
use support::xfs_seal::seal_at;
use support::{
    Random, Scratch, TestDevice, Tree, collect, has, is_root, paths_from, run, skipped, unsupported,
};
use windlass_hal::volume::detect;

/// Rounds per image unless the environment says otherwise: some seconds in all.
const ROUNDS: u64 = 1000;
/// Reads that no round needs: a sweep of the sound image takes some hundred.
const READS_MAX: u64 = 100_000;
/// Bytes around a change that are put back: what its checksum may be in.
const AROUND_BYTES: usize = 4096;

struct Image {
    name: String,
    bytes: Vec<u8>,
    block_bytes: usize,
    sound: Tree,
    targets: Vec<usize>,
}

/// Opens and reads everything there is to read. `None` when the volume was refused or given up with a fault.
fn read(device: &mut TestDevice) -> Option<Tree> {
    device.reads_left = READS_MAX;
    let mut volume = detect::open(device).ok()?;
    let tree = collect(device, volume.as_mut()).ok()?;
    let mut end = 0;
    let _ = volume.used(device, &mut |range| {
        assert!(range.start >= end && range.start < range.end, "ascending and disjoint");
        end = range.end;
    });
    Some(tree)
}

impl Image {
    fn new(name: &str, path: &Path) -> Image {
        let bytes = std::fs::read(path).unwrap();
        let mut device = TestDevice::memory(bytes.clone());
        let mut volume = detect::open(&mut device).unwrap();
        let block_bytes = volume.info().block_bytes as usize;
        let mut metadata = vec![false; bytes.len()];
        volume
            .used(&mut device, &mut |range| metadata[range.start as usize..range.end as usize].fill(true))
            .unwrap();
        let sound = read(&mut device).unwrap();
        assert!(sound.values().all(|(_, whole)| whole.fault.is_none()), "{name}");
        for extent in sound.values().flat_map(|(_, whole)| &whole.extents) {
            metadata[extent.physical as usize..(extent.physical + extent.len) as usize].fill(false);
        }
        // The log is large and mostly old: one byte of it in a hundred is enough.
        let log = log_of(&bytes);
        let near = |at: usize| bytes[at.saturating_sub(3)..bytes.len().min(at + 4)].iter().any(|&b| b != 0);
        let targets: Vec<usize> = (0..bytes.len())
            .filter(|&at| metadata[at] && near(at) && (!log.contains(&at) || at % 100 == 0))
            .collect();
        assert!(targets.len() > 10_000, "{name}: {} bytes of metadata", targets.len());
        Image { name: name.into(), bytes, block_bytes, sound, targets }
    }

    /// Changes some bytes of `image`; returns where.
    fn mutate(&self, image: &mut [u8], random: &mut Random, sealed: bool) -> Vec<usize> {
        let mut places = Vec::new();
        for _ in 0..1 + random.below(2) {
            let at = self.targets[random.below(self.targets.len() as u64) as usize];
            let width = [1, 1, 2, 4, 8][random.below(5) as usize];
            let at = at / width * width;
            let edge = [0u64, 1, 2, 0x7FFF_FFFF, 1 << 31, u64::MAX, 0xFFFF, 12, 1 << 52, 1 << 63]
                [random.below(10) as usize];
            let old = image[at + width - 1];
            let value = match random.below(4) {
                0 => random.next(),
                1 => edge,
                2 => u64::from(old) ^ 1 << random.below(8),
                _ => u64::from(old).wrapping_add(random.below(3)).wrapping_sub(1),
            };
            image[at..at + width].copy_from_slice(&value.to_be_bytes()[8 - width..]);
            if sealed {
                seal_at(image, at, self.block_bytes, 512);
            }
            places.push(at);
        }
        places
    }
}

/// Bytes of the log.
fn log_of(bytes: &[u8]) -> std::ops::Range<usize> {
    let number = |at: usize, len: usize| bytes[at..at + len].iter().fold(0, |n, &b| n << 8 | usize::from(b));
    let (start, blocks, bits) = (number(48, 8), number(96, 4), number(124, 1));
    let first = (start >> bits) * number(84, 4) + (start & ((1 << bits) - 1));
    first * number(4, 4)..(first + blocks) * number(4, 4)
}

/// Fails when the damaged volume differs from the sound one in an item that has no fault.
fn compare(sound: &Tree, damaged: &Tree, round: &str) {
    for (inode, (_, whole)) in sound {
        let (_, now) = damaged.get(inode).unwrap_or_else(|| panic!("{round}: inode {inode} went silently"));
        assert!(now.fault.is_some() || now == whole, "{round}: inode {inode} differs: {now:?} was {whole:?}");
    }
    for (inode, (_, whole)) in damaged {
        assert!(sound.contains_key(inode) || whole.fault.is_some(), "{round}: inode {inode} appeared");
    }
}

/// The images to damage, and a scratch directory that they need no more.
fn images(test: &str) -> Vec<Image> {
    if !has("mkfs.xfs") || !has("xfs_db") {
        skipped(test, "no mkfs.xfs or xfs_db");
        return Vec::new();
    }
    let scratch = Scratch::new(test);
    let (source, path, at) = (scratch.join("source"), scratch.join("image"), scratch.join("mnt"));
    std::fs::create_dir(&source).unwrap();
    std::fs::create_dir(&at).unwrap();
    for n in [2, 30, 400] {
        std::fs::create_dir(source.join(format!("dir-{n}"))).unwrap();
        for i in 0..n {
            std::fs::write(
                source.join(format!("dir-{n}/a-name-that-takes-some-room-{i}")),
                vec![b'a'; i % 9 * 30],
            )
            .unwrap();
        }
    }
    symlink("t".repeat(100), source.join("link")).unwrap();
    for name in ["one", "two", "three"] {
        std::fs::write(source.join(name), name).unwrap();
    }
    let mut out = Vec::new();
    for (name, args) in [
        ("4k", ""),
        ("1k, rmapbt, nrext64", "-b size=1k -m rmapbt=1 -i nrext64=1"),
        ("old", "-m bigtime=0,reflink=0 -i sparse=0"),
    ] {
        make(&path, "48m", args, Some(&source)).unwrap();
        let mut device = TestDevice::file(&path);
        let mut volume = detect::open(&mut device).unwrap();
        let names = paths_from(&collect(&mut device, volume.as_mut()).unwrap(), volume.info().root);
        for (file, count, len) in [("one", 2, 10), ("two", 8, 500), ("three", 4, 3000)] {
            for k in 0..count {
                set_attribute(
                    &path,
                    names[format!("./{file}").as_bytes()],
                    ["-u", "-r", "-s"][k % 3],
                    &format!("a{k}"),
                    len + k,
                );
            }
        }
        out.push(Image::new(name, &path));
    }
    if !is_root() || !has("python3") {
        skipped(test, "the image that the kernel fills: not root, or no python3");
        return out;
    }
    for (name, args) in [("kernel", ""), ("kernel, 1k", "-b size=1k")] {
        make(&path, "64m", args, None).unwrap();
        match Mounted::new(&path, &at, "loop") {
            Ok(_mounted) => {
                let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/populate_small.py");
                run("python3", &[script.to_str().unwrap(), at.to_str().unwrap()]);
            }
            Err(reason) => {
                unsupported(test, &format!("the image that the kernel fills: mount: {reason}"));
                break;
            }
        }
        out.push(Image::new(name, &path));
    }
    out
}

#[test]
fn damaged_metadata_costs_what_it_hits_and_nothing_else() {
    let rounds = std::env::var("WINDLASS_MUTATIONS").ok().and_then(|n| n.parse().ok()).unwrap_or(ROUNDS);
    for image in images("xfs_damaged_metadata_costs_what_it_hits_and_nothing_else") {
        let mut device = TestDevice::memory(image.bytes.clone());
        let mut seen = 0;
        for seed in 0..rounds {
            let round = format!("{}, seed {seed}", image.name);
            let sealed = seed % 2 == 1;
            let places = image.mutate(device.memory_mut(), &mut Random(seed), sealed);
            match read(&mut device) {
                None => seen += 1,
                Some(tree) => {
                    seen += u64::from(tree.values().any(|(_, whole)| whole.fault.is_some()));
                    if !sealed {
                        compare(&image.sound, &tree, &round);
                    }
                }
            }
            for at in places {
                let from = at / AROUND_BYTES * AROUND_BYTES;
                device.memory_mut()[from..from + AROUND_BYTES]
                    .copy_from_slice(&image.bytes[from..from + AROUND_BYTES]);
            }
        }
        compare(&image.sound, &read(&mut device).unwrap(), "as sound as before");
        assert!(seen * 10 > rounds, "{}: {seen} of {rounds} rounds had a fault", image.name);
    }
}

#[test]
fn a_bad_sector_costs_the_items_in_it() {
    for image in images("xfs_a_bad_sector_costs_the_items_in_it") {
        let mut device = TestDevice::memory(image.bytes.clone());
        let (mut whole_volume, mut items) = (0, 0);
        let mut blocks: Vec<usize> = image.targets.iter().map(|at| at / image.block_bytes).collect();
        blocks.dedup();
        for block in blocks {
            let at = (block * image.block_bytes) as u64;
            device.bad.clear();
            device.bad.push(at..at + 512);
            match read(&mut device) {
                None => whole_volume += 1,
                Some(tree) => {
                    compare(&image.sound, &tree, &format!("{}: bad sector at {at}", image.name));
                    let faults = tree.values().filter(|(_, whole)| whole.fault.is_some()).count();
                    assert!(faults <= 8, "{}: bad sector at {at}: {faults} items", image.name);
                    items += faults;
                }
            }
        }
        // Superblock, group headers, inode trees, and the end of the log.
        assert!((3..6000).contains(&whole_volume) && items > 50, "{}: {whole_volume} {items}", image.name);
    }
}
