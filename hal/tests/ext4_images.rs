//! ext4 images made by mke2fs with many option sets, no privilege needed: what the reader finds must be what was put in, and what
//! debugfs says about it.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use support::{Random, Scratch, TestDevice, collect, contents, has, paths, run, skipped};
use windlass_hal::block::BlockDevice;
use windlass_hal::volume::{ItemKind, detect};

/// Fills `root` with files of many kinds, the same for the same `seed`.
fn populate(root: &Path, files: u64, seed: u64) {
    let mut random = Random(seed);
    for i in 0..files {
        let dir = root.join(format!("d{}", i % 7)).join(format!("e{}", i % 3));
        std::fs::create_dir_all(&dir).unwrap();
        let len = match i % 6 {
            0 => 0,
            1 => random.below(60),
            2 => 60 + random.below(90),
            3 => random.below(5000),
            4 => random.below(70_000),
            _ => random.below(300),
        };
        let bytes: Vec<u8> = (0..len).map(|_| random.next() as u8).collect();
        let path = dir.join(format!("file {i} {}", "x".repeat(random.below(80) as usize)));
        std::fs::write(&path, bytes).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600 + (i as u32 % 0o100))).unwrap();
    }
    std::fs::hard_link(
        root.join("d1/e1/").read_dir().unwrap().next().unwrap().unwrap().path(),
        root.join("hard"),
    )
    .unwrap();
    symlink("short", root.join("short link")).unwrap();
    symlink("l".repeat(59), root.join("59 link")).unwrap();
    symlink("l".repeat(60), root.join("60 link")).unwrap();
    symlink("l".repeat(900), root.join("long link")).unwrap();
    std::fs::write(root.join(OsStr::from_bytes(b"not \xff utf-8 \x01")), "odd").unwrap();
    // Sparse, with data at the start, in the middle and at the end.
    let sparse = std::fs::File::create(root.join("sparse")).unwrap();
    sparse.set_len(5_000_001).unwrap();
    for at in [0, 1_000_000, 2_345_678, 5_000_000] {
        std::os::unix::fs::FileExt::write_all_at(&sparse, b"!", at).unwrap();
    }
    std::fs::create_dir(root.join("many")).unwrap();
    for i in 0..files * 2 {
        std::fs::write(root.join(format!("many/name number {i} of a directory")), "").unwrap();
    }
}

/// Compares the volume in `image` with the tree below `source`.
fn compare(image: &Path, source: &Path, what: &str) {
    let mut device = TestDevice::file(image);
    let mut volume = detect::open(&mut device).unwrap_or_else(|fault| panic!("{what}: {fault}"));
    let tree = collect(&mut device, volume.as_mut()).unwrap();
    for (inode, (_, whole)) in &tree {
        assert_eq!(whole.fault, None, "{what}: inode {inode}");
    }
    let mut found = paths(&tree);
    let reachable: std::collections::BTreeSet<u64> = found.values().copied().collect();
    assert!(tree.keys().all(|inode| reachable.contains(inode)), "{what}: no item without a name");
    let mut wanted = BTreeMap::new();
    walk(source, b".".to_vec(), &mut wanted);
    let lost = found.remove(&b"./lost+found"[..]);
    assert!(lost.is_some());
    let names = |map: &BTreeMap<Vec<u8>, _>| map.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&found), wanted.keys().cloned().collect::<Vec<_>>(), "{what}: names");
    for (path, inode) in &found {
        let (item, whole) = &tree[inode];
        let source_path = source.join(OsStr::from_bytes(path));
        let meta = std::fs::symlink_metadata(&source_path).unwrap();
        let shown = String::from_utf8_lossy(path);
        assert_eq!(u32::from(item.mode), meta.mode() & 0o7777, "{what}: {shown}");
        // mke2fs of some versions keeps the root directory's own times.
        if path != b"." {
            assert_eq!(item.mtime.secs, meta.mtime(), "{what}: {shown}");
        }
        match item.kind {
            ItemKind::File => {
                assert_eq!(item.size, meta.len(), "{what}: {shown}");
                assert_eq!(
                    contents(&mut device, item, whole),
                    std::fs::read(&source_path).unwrap(),
                    "{what}: {shown}"
                );
                assert_eq!(u64::from(item.links), meta.nlink(), "{what}: {shown}");
            }
            ItemKind::Symlink => {
                let target = std::fs::read_link(&source_path).unwrap();
                assert_eq!(whole.target.as_deref(), Some(target.as_os_str().as_bytes()), "{what}: {shown}");
            }
            ItemKind::Directory => {
                let parent = path.iter().rposition(|&b| b == b'/').map_or(2, |at| found[&path[..at]]);
                assert_eq!(item.parent, parent, "{what}: {shown}");
            }
            other => panic!("{what}: {other:?}"),
        }
    }
    // One by one, items are what the sweep delivered.
    let mut window = windlass_hal::volume::Window::default();
    for (inode, (_, whole)) in tree.iter().step_by(37) {
        let mut alone = support::Tree::new();
        let (mut within, mut open) = (0, None);
        loop {
            let swept = volume.item(&mut device, *inode, within, &mut window).unwrap();
            support::absorb(&mut alone, &window, &window.items[0], &mut open);
            match swept {
                windlass_hal::volume::Swept::Done => break,
                windlass_hal::volume::Swept::More(cursor) => within = cursor.within,
            }
        }
        assert_eq!(alone[inode].1.extents, whole.extents, "{what}: item {inode} alone");
        assert_eq!(alone[inode].1.names, whole.names, "{what}: item {inode} alone");
    }
    compare_used(image, &mut device, volume.as_mut(), what);
}

fn walk(path: &Path, name: Vec<u8>, out: &mut BTreeMap<Vec<u8>, ()>) {
    if path.symlink_metadata().unwrap().is_dir() {
        for entry in path.read_dir().unwrap() {
            let entry = entry.unwrap();
            let mut full = name.clone();
            full.push(b'/');
            full.extend_from_slice(entry.file_name().as_bytes());
            walk(&entry.path(), full, out);
        }
    }
    out.insert(name, ());
}

/// Compares `used` with the free blocks that dumpe2fs lists.
fn compare_used(
    image: &Path,
    device: &mut TestDevice,
    volume: &mut dyn windlass_hal::volume::Volume,
    what: &str,
) {
    let block = u64::from(volume.info().block_bytes);
    let mut used = Vec::new();
    let quality = volume.used(device, &mut |range| used.push(range)).unwrap();
    assert_eq!(quality, windlass_hal::volume::UsedQuality::Exact, "{what}");
    assert!(used.windows(2).all(|w| w[0].end < w[1].start), "{what}: ascending and disjoint");
    let mut free: Vec<std::ops::Range<u64>> = Vec::new();
    let mut cluster = block;
    for line in run("dumpe2fs", &[image.to_str().unwrap()]).lines() {
        if let Some(size) = line.strip_prefix("Cluster size:") {
            cluster = size.trim().parse().unwrap();
        }
        let Some(list) = line.strip_prefix("  Free blocks: ") else { continue };
        for part in list.split(", ").filter(|part| !part.is_empty()) {
            let (from, to) = part.split_once('-').unwrap_or((part, part));
            // With clusters, dumpe2fs names the first block of the last one.
            let end = to.parse::<u64>().unwrap() * block + cluster;
            let range = from.parse::<u64>().unwrap() * block..end;
            match free.last_mut() {
                Some(last) if last.end == range.start => last.end = range.end,
                _ => free.push(range),
            }
        }
    }
    let mut wanted = Vec::new();
    let mut at = 0;
    for range in &free {
        if at < range.start {
            wanted.push(at..range.start);
        }
        at = range.end;
    }
    let size = device.geometry().size_bytes;
    if at < size {
        wanted.push(at..size);
    }
    assert_eq!(used, wanted, "{what}: used blocks");
}

/// Name, size, mke2fs arguments.
const SETS: &[(&str, &str, &[&str])] = &[
    ("default", "64M", &[]),
    ("1k", "40M", &["-b", "1024"]),
    ("2k", "48M", &["-b", "2048", "-O", "^flex_bg"]),
    ("64k", "256M", &["-b", "65536"]),
    ("ext2", "48M", &["-t", "ext2"]),
    ("ext2 1k", "40M", &["-t", "ext2", "-b", "1024"]),
    ("ext3", "64M", &["-t", "ext3"]),
    ("ext2 rev 0", "40M", &["-t", "ext2", "-r", "0", "-b", "1024"]),
    ("no 64bit", "64M", &["-O", "^64bit"]),
    ("gdt_csum", "64M", &["-O", "^metadata_csum,uninit_bg"]),
    ("gdt_csum 32", "64M", &["-O", "^metadata_csum,^64bit,uninit_bg"]),
    ("no csum", "64M", &["-O", "^metadata_csum,^uninit_bg"]),
    ("csum seed", "64M", &["-O", "metadata_csum_seed"]),
    ("inline", "64M", &["-O", "inline_data"]),
    ("inline 1k inodes", "64M", &["-O", "inline_data", "-I", "1024"]),
    ("inodes 128", "64M", &["-I", "128"]),
    ("inodes 512", "64M", &["-I", "512"]),
    ("meta_bg", "200M", &["-O", "meta_bg,^resize_inode", "-b", "1024"]),
    ("meta_bg 4k", "64M", &["-O", "meta_bg,^resize_inode"]),
    ("meta_bg no csum", "200M", &["-O", "meta_bg,^resize_inode,^metadata_csum,^64bit", "-b", "1024"]),
    ("sparse_super2", "200M", &["-O", "sparse_super2,^resize_inode", "-b", "1024"]),
    ("no sparse_super", "200M", &["-O", "^sparse_super,^resize_inode", "-b", "1024"]),
    ("bigalloc", "128M", &["-O", "bigalloc", "-C", "65536"]),
    ("bigalloc 1k", "128M", &["-O", "bigalloc", "-b", "1024", "-C", "16384"]),
    ("ea_inode large_dir", "64M", &["-O", "ea_inode,large_dir"]),
    ("quota project", "64M", &["-O", "quota,project", "-E", "quotatype=usrquota:grpquota:prjquota"]),
    ("casefold encrypt verity", "64M", &["-O", "casefold,encrypt,verity"]),
    ("orphan_file", "64M", &["-O", "orphan_file"]),
    ("no extents", "64M", &["-O", "^extent,^64bit,^metadata_csum"]),
    ("no filetype", "64M", &["-O", "^filetype"]),
    ("no dir_index", "64M", &["-O", "^dir_index,^has_journal"]),
    ("mmp stable_inodes", "64M", &["-O", "mmp,stable_inodes"]),
    ("small groups", "64M", &["-b", "1024", "-g", "1024", "-G", "4"]),
];

#[test]
fn images_of_many_kinds_hold_what_was_put_in() {
    let test = "images_of_many_kinds_hold_what_was_put_in";
    if !has("mke2fs") {
        return skipped(test, "no mke2fs");
    }
    let scratch = Scratch::new("images");
    let source = scratch.join("source");
    std::fs::create_dir(&source).unwrap();
    populate(&source, 400, 1);
    for (name, size, args) in SETS {
        let image = scratch.join("image");
        let _ = std::fs::remove_file(&image);
        let source = source.to_str().unwrap();
        let mut all = vec!["-q", "-F", "-N", "4000", "-d", source];
        if !args.contains(&"-t") {
            all.extend_from_slice(&["-t", "ext4"]);
        }
        all.extend_from_slice(args);
        all.extend_from_slice(&[image.to_str().unwrap(), size]);
        run("mke2fs", &all);
        compare(&image, Path::new(source), name);
    }
}
