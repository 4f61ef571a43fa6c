//! Damaged ext4 volumes: whatever a byte of metadata becomes, the reader neither panics nor hangs, and where metadata has
//! checksums it never delivers something else without saying so.
//!
//! Images of 6 MiB that hold every structure are made by mke2fs; each round changes a few bytes of metadata, sweeps the volume, asks for
//! the used map, and changes them back. Images without checksums stand for damage whose checksums were made good: the reader then
//! believes the bytes, and the rules behind the checksums are what is tested. Seeded; `WINDLASS_MUTATIONS` sets the rounds per image.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::os::unix::fs::{FileExt, symlink};
use std::path::Path;

use support::{Random, Scratch, TestDevice, Tree, collect, has, run, skipped};
use windlass_hal::volume::{ItemKind, detect};

/// Rounds per image unless the environment says otherwise: some seconds in all.
const ROUNDS: u64 = 1200;
/// Reads that no round needs: a sweep of the sound image takes some tens.
const READS_MAX: u64 = 200_000;

/// A small tree with one of everything.
fn populate(root: &Path) {
    for i in 0..40 {
        std::fs::write(root.join(format!("file {i}")), vec![b'a' + (i % 26) as u8; i * 37]).unwrap();
    }
    symlink("s".repeat(20), root.join("fast")).unwrap();
    symlink("s".repeat(100), root.join("slow")).unwrap();
    std::fs::create_dir_all(root.join("a/b/c")).unwrap();
    std::fs::hard_link(root.join("file 3"), root.join("a/b/c/again")).unwrap();
    std::fs::create_dir(root.join("wide")).unwrap();
    for i in 0..150 {
        std::fs::write(root.join(format!("wide/a name that takes some room {i}")), "").unwrap();
    }
    let sparse = std::fs::File::create(root.join("pieces")).unwrap();
    for k in 0..200 {
        sparse.write_all_at(b"piece", k * 16384).unwrap();
    }
    sparse.write_all_at(b"far", 80 << 20).unwrap();
    let attributes = root.join("attributes");
    std::fs::write(&attributes, "x").unwrap();
    let set = |name: &str, value: &str| {
        if has("setfattr") {
            let _ = std::process::Command::new("setfattr")
                .args(["-n", name, "-v", value])
                .arg(&attributes)
                .status();
        }
    };
    set("user.small", "1");
    set("user.middle", &"m".repeat(60));
    set("user.large", &"l".repeat(600));
}

const SETS: &[(&str, &[&str])] = &[
    ("csum", &["-t", "ext4", "-O", "^has_journal", "-b", "1024"]),
    ("csum inline", &["-t", "ext4", "-O", "^has_journal,inline_data,ea_inode", "-b", "1024", "-I", "512"]),
    ("csum 4k meta_bg", &["-t", "ext4", "-O", "^has_journal,meta_bg,^resize_inode,metadata_csum_seed"]),
    ("plain", &["-t", "ext4", "-O", "^has_journal,^metadata_csum,^uninit_bg", "-b", "1024"]),
    (
        "plain inline",
        &["-t", "ext4", "-O", "^has_journal,^metadata_csum,inline_data,ea_inode", "-b", "1024", "-I", "256"],
    ),
    ("gdt_csum", &["-t", "ext4", "-O", "^has_journal,^metadata_csum,uninit_bg", "-b", "1024", "-g", "1024"]),
    ("ext2", &["-t", "ext2", "-b", "1024"]),
    ("bigalloc", &["-t", "ext4", "-O", "^has_journal,^metadata_csum,bigalloc", "-b", "1024", "-C", "4096"]),
];

/// Device bytes that are metadata and worth changing: not zero, or next to one that is not.
fn targets(image: &[u8], tree: &Tree, used: &[std::ops::Range<u64>]) -> Vec<usize> {
    let mut metadata = vec![false; image.len()];
    for range in used {
        metadata[range.start as usize..range.end as usize].fill(true);
    }
    for extent in tree.values().flat_map(|(_, whole)| &whole.extents) {
        metadata[extent.physical as usize..(extent.physical + extent.len) as usize].fill(false);
    }
    // The target of a slow symlink has no checksum; it is data.
    for (_, whole) in tree.values().filter(|(item, _)| item.kind == ItemKind::Symlink) {
        let target = whole.target.as_deref().unwrap_or_default();
        for at in (0..image.len()).step_by(1024) {
            if target.len() >= 60 && image[at..].starts_with(target) {
                metadata[at..at + 1024].fill(false);
            }
        }
    }
    metadata[..1024].fill(false);
    let near = |at: usize| image[at.saturating_sub(3)..image.len().min(at + 4)].iter().any(|&b| b != 0);
    (0..image.len()).filter(|&at| metadata[at] && near(at)).collect()
}

/// Changes some bytes; returns what they were.
fn mutate(image: &mut [u8], targets: &[usize], random: &mut Random) -> Vec<(usize, u8)> {
    let mut undo = Vec::new();
    for _ in 0..1 + random.below(2) {
        let at = targets[random.below(targets.len() as u64) as usize];
        let width = [1, 1, 2, 4][random.below(4) as usize];
        let at = at / width * width;
        let edge =
            [0u32, 1, 2, 0x7FFF_FFFF, 0x8000_0000, u32::MAX, 0xFFFF, 12, 1024][random.below(9) as usize];
        let value = match random.below(4) {
            0 => random.next() as u32,
            1 => edge,
            2 => u32::from(image[at]) ^ 1 << random.below(8),
            _ => u32::from(image[at]).wrapping_add(random.below(3) as u32).wrapping_sub(1),
        };
        for (i, byte) in value.to_le_bytes().into_iter().take(width).enumerate() {
            undo.push((at + i, image[at + i]));
            image[at + i] = byte;
        }
    }
    undo
}

/// Opens and reads everything there is to read. `None` when the volume was refused or given up with a fault.
fn read(device: &mut TestDevice) -> Option<Tree> {
    device.reads_left = READS_MAX;
    let mut volume = detect::open(device).ok()?;
    let tree = collect(device, volume.as_mut()).ok()?;
    let _ = volume.used(device, &mut |_| {}).ok()?;
    Some(tree)
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

fn damage(name: &str, args: &[&str], source: &Path, image: &Path) {
    let _ = std::fs::remove_file(image);
    let mut all = vec!["-q", "-F", "-N", "512", "-m", "0", "-d", source.to_str().unwrap()];
    all.extend_from_slice(args);
    all.extend_from_slice(&[image.to_str().unwrap(), "6M"]);
    run("mke2fs", &all);
    let mut device = TestDevice::memory(std::fs::read(image).unwrap());
    let sound = read(&mut device).unwrap();
    assert!(sound.len() > 190 && sound.values().all(|(_, whole)| whole.fault.is_none()), "{name}");
    let mut used = Vec::new();
    let mut volume = detect::open(&mut device).unwrap();
    volume.used(&mut device, &mut |range| used.push(range)).unwrap();
    let targets = targets(device.memory_mut(), &sound, &used);
    assert!(targets.len() > 10_000, "{name}: {} bytes of metadata", targets.len());
    let rounds = std::env::var("WINDLASS_MUTATIONS").ok().and_then(|n| n.parse().ok()).unwrap_or(ROUNDS);
    let mut seen = 0;
    for seed in 0..rounds {
        let mut random = Random(seed);
        let undo = mutate(device.memory_mut(), &targets, &mut random);
        match read(&mut device) {
            None => seen += 1,
            Some(tree) => {
                seen += u64::from(tree.values().any(|(_, whole)| whole.fault.is_some()));
                if name.starts_with("csum") {
                    compare(&sound, &tree, &format!("{name}, seed {seed}"));
                }
            }
        }
        for (at, byte) in undo.into_iter().rev() {
            device.memory_mut()[at] = byte;
        }
    }
    compare(&sound, &read(&mut device).unwrap(), "as sound as before");
    // Most of what is changed is looked at.
    assert!(seen * 20 > rounds, "{name}: {seen} of {rounds} rounds had a fault");
}

#[test]
fn damaged_metadata_costs_what_it_hits_and_nothing_else() {
    let test = "damaged_metadata_costs_what_it_hits_and_nothing_else";
    if !has("mke2fs") {
        return skipped(test, "no mke2fs");
    }
    let scratch = Scratch::new("damage");
    let source = scratch.join("source");
    std::fs::create_dir(&source).unwrap();
    populate(&source);
    for (name, args) in SETS {
        damage(name, args, &source, &scratch.join("image"));
    }
}

#[test]
fn a_bad_sector_costs_the_items_in_it() {
    let test = "a_bad_sector_costs_the_items_in_it";
    if !has("mke2fs") {
        return skipped(test, "no mke2fs");
    }
    let scratch = Scratch::new("sector");
    let (source, image) = (scratch.join("source"), scratch.join("image"));
    std::fs::create_dir(&source).unwrap();
    populate(&source);
    let (_, args) = SETS[0];
    let mut all = vec!["-q", "-F", "-N", "512", "-d", source.to_str().unwrap()];
    all.extend_from_slice(args);
    all.extend_from_slice(&[image.to_str().unwrap(), "6M"]);
    run("mke2fs", &all);
    let mut device = TestDevice::memory(std::fs::read(&image).unwrap());
    let sound = read(&mut device).unwrap();
    let size = device.memory_mut().len() as u64;
    let (mut whole_volume, mut items) = (0, 0);
    for at in (0..size).step_by(1024) {
        device.bad.clear();
        device.bad.push(at..at + 512);
        match read(&mut device) {
            None => whole_volume += 1,
            Some(tree) => {
                compare(&sound, &tree, &format!("bad sector at {at}"));
                let faults = tree.values().filter(|(_, whole)| whole.fault.is_some()).count();
                assert!(faults <= 8, "bad sector at {at}: {faults} items");
                items += faults;
            }
        }
    }
    // The superblock and one block of descriptors.
    assert_eq!(whole_volume, 2);
    assert!(items > 200, "{items}");
}
