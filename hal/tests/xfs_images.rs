//! XFS images made by mkfs.xfs with many option sets, no privilege needed: what the reader finds must be what was put in, and
//! what is refused is refused by name.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};

use support::xfs::{make, set_attribute};
use support::xfs_seal::seal_at;
use support::{
    Random, Scratch, TestDevice, Tree, absorb, collect, contents, has, paths_from, skipped, unsupported,
};
use windlass_hal::volume::{ItemKind, Swept, UsedQuality, Window, detect, image};

/// Fills `root` with files of many kinds, the same for the same `seed`.
fn populate(root: &Path, files: u64, seed: u64) {
    let mut random = Random(seed);
    for i in 0..files {
        let dir = root.join(format!("d{}", i % 7)).join(format!("e{}", i % 3));
        std::fs::create_dir_all(&dir).unwrap();
        let len = [0, random.below(60), 60 + random.below(90), random.below(5000), random.below(70_000)]
            [i as usize % 5];
        let bytes: Vec<u8> = (0..len).map(|_| random.next() as u8).collect();
        std::fs::write(dir.join(format!("file-{i}-{}", "x".repeat(random.below(80) as usize))), bytes)
            .unwrap();
    }
    // Longer ones mkfs.xfs writes without their headers, which the kernel refuses too.
    for len in [1, 5, 59, 300, 335, 336] {
        symlink("l".repeat(len), root.join(format!("link-{len}"))).unwrap();
    }
    std::fs::write(root.join(OsStr::from_bytes(b"not-\xff-utf-8-\x01")), "odd").unwrap();
    for n in [0, 1, 5, 20, 60, 150, 600] {
        let dir = root.join(format!("many-{n}"));
        std::fs::create_dir(&dir).unwrap();
        for i in 0..n {
            std::fs::write(dir.join(format!("name-number-{i}-of-a-directory")), "").unwrap();
        }
    }
}

fn walk(path: &Path, name: Vec<u8>, out: &mut BTreeMap<Vec<u8>, ()>) {
    if path.symlink_metadata().unwrap().is_dir() {
        for entry in path.read_dir().unwrap() {
            let entry = entry.unwrap();
            let full = [&name, &b"/"[..], entry.file_name().as_bytes()].concat();
            walk(&entry.path(), full, out);
        }
    }
    out.insert(name, ());
}

/// Compares the volume in `image` with the tree below `source`.
fn compare(image: &Path, source: &Path, what: &str) {
    let mut device = TestDevice::file(image);
    let mut volume = detect::open(&mut device).unwrap_or_else(|fault| panic!("{what}: {fault}"));
    let tree = collect(&mut device, volume.as_mut()).unwrap();
    for (inode, (_, whole)) in &tree {
        assert_eq!(whole.fault, None, "{what}: inode {inode}");
    }
    let root = volume.info().root;
    let found = paths_from(&tree, root);
    assert_eq!(found.len(), tree.len(), "{what}: no item without a name");
    assert_eq!(volume.info().inodes_used, tree.len() as u64 + 2, "{what}: with bitmap and summary");
    let mut wanted = BTreeMap::new();
    walk(source, b".".to_vec(), &mut wanted);
    assert!(found.keys().eq(wanted.keys()), "{what}: names");
    for (path, inode) in &found {
        let (item, whole) = &tree[inode];
        let source_path = source.join(OsStr::from_bytes(path));
        let meta = std::fs::symlink_metadata(&source_path).unwrap();
        let shown = String::from_utf8_lossy(path);
        assert_eq!(u32::from(item.mode) & 0o777, meta.mode() & 0o777, "{what}: {shown}");
        assert_eq!((item.uid, item.gid), (meta.uid(), meta.gid()), "{what}: {shown}");
        match item.kind {
            ItemKind::File => {
                let wanted = std::fs::read(&source_path).unwrap();
                assert!(contents(&mut device, item, whole) == wanted, "{what}: {shown}");
            }
            ItemKind::Symlink => {
                let target = std::fs::read_link(&source_path).unwrap();
                assert_eq!(whole.target.as_deref(), Some(target.as_os_str().as_bytes()), "{what}: {shown}");
            }
            ItemKind::Directory => {
                let parent = path.iter().rposition(|&b| b == b'/').map_or(root, |at| found[&path[..at]]);
                assert_eq!(item.parent, parent, "{what}: {shown}");
            }
            other => panic!("{what}: {other:?}"),
        }
    }
    // One by one, items are what the sweep delivered.
    let mut window = Window::default();
    for (inode, (_, whole)) in tree.iter().step_by(37) {
        let mut alone = Tree::new();
        assert_eq!(volume.item(&mut device, *inode, 0, &mut window).unwrap(), Swept::Done);
        absorb(&mut alone, &window, &window.items[0], &mut None);
        assert_eq!(&alone[inode].1, whole, "{what}: item {inode} alone");
    }
    for none in [0, root + 1, root + 2, volume.info().inode_max, u64::MAX] {
        assert_eq!(volume.item(&mut device, none, 0, &mut window).unwrap(), Swept::Done);
        assert!(window.items.is_empty(), "{what}: item {none}");
    }
    let mut free = volume.info().size_bytes;
    let quality = volume.used(&mut device, &mut |range| free -= range.end - range.start).unwrap();
    assert_eq!(quality, UsedQuality::Exact, "{what}");
    // The superblock counts the blocks that groups keep in stock as free too.
    let counted = volume.info().size_bytes - volume.info().used_bytes;
    assert!(free <= counted && counted - free < 4 << 20, "{what}: {free} of {counted} bytes are free");
}

/// Name, size, mkfs.xfs arguments.
const SETS: &[(&str, &str, &str)] = &[
    ("default", "160m", ""),
    ("1k", "160m", "-b size=1k"),
    ("2k", "160m", "-b size=2k"),
    ("16k", "128m", "-b size=16k"),
    ("64k", "256m", "-b size=64k"),
    ("1k, directories of 64k", "160m", "-b size=1k -n size=64k"),
    ("directories of 16k", "160m", "-n size=16k"),
    ("inodes of 1k", "160m", "-i size=1024"),
    ("inodes of 2k", "160m", "-i size=2048"),
    ("1k, inodes of 512", "160m", "-b size=1k -i size=512"),
    ("sectors of 4k", "160m", "-s size=4096"),
    ("sectors of 2k", "160m", "-s size=2048"),
    ("nothing that can be left out", "160m", "-m finobt=0,reflink=0,bigtime=0,inobtcount=0 -i sparse=0"),
    ("rmapbt", "160m", "-m rmapbt=1"),
    ("nrext64", "160m", "-i nrext64=1"),
    ("no bigtime", "160m", "-m bigtime=0"),
    ("one group", "160m", "-d agcount=1"),
    ("many groups", "640m", "-d agsize=16m"),
    ("log stripe", "128m", "-l su=128k"),
    ("log stripe, log sectors of 4k", "160m", "-l su=32k,sectsize=4096 -s size=512"),
    ("stripe", "128m", "-d su=64k,sw=2"),
    ("case folded", "160m", "-n version=ci"),
    ("realtime section", "160m", "-r extsize=64k"),
    ("parent pointers", "160m", "-n parent=1"),
    ("exchange range", "160m", "-i exchange=1"),
];

/// A scratch directory with an empty source in it; `None`, said aloud, when the tools are missing.
fn ready(test: &str) -> Option<(Scratch, PathBuf, PathBuf)> {
    if !has("mkfs.xfs") || !has("xfs_db") {
        skipped(test, "no mkfs.xfs or xfs_db");
        return None;
    }
    let scratch = Scratch::new(test);
    let (source, image) = (scratch.join("source"), scratch.join("image"));
    std::fs::create_dir(&source).unwrap();
    Some((scratch, source, image))
}

#[test]
fn images_of_many_kinds_hold_what_was_put_in() {
    let test = "xfs_images_of_many_kinds_hold_what_was_put_in";
    let Some((_scratch, source, image)) = ready(test) else { return };
    populate(&source, 200, 1);
    for (name, size, args) in SETS {
        match make(&image, size, args, Some(&source)) {
            Ok(()) => compare(&image, &source, name),
            Err(reason) => unsupported(test, &format!("{name}: {reason}")),
        }
    }
}

#[test]
fn attributes_of_all_forms_are_read() {
    let Some((_scratch, source, image)) = ready("xfs_attributes_of_all_forms_are_read") else { return };
    for name in ["few", "some", "many"] {
        std::fs::write(source.join(name), "").unwrap();
    }
    for args in ["", "-b size=1k"] {
        make(&image, "64m", args, Some(&source)).unwrap();
        let read = || {
            let mut device = TestDevice::file(&image);
            let mut volume = detect::open(&mut device).unwrap();
            let tree = collect(&mut device, volume.as_mut()).unwrap();
            (paths_from(&tree, volume.info().root), tree)
        };
        let names = read().0;
        let mut wanted = BTreeMap::new();
        for (file, count, step) in [("few", 2, 10), ("some", 9, 190), ("many", 60, 900)] {
            for k in 0..count {
                let (space, prefix) = [("-u", "user"), ("-r", "trusted"), ("-s", "security")][k % 3];
                let (name, len) = (format!("attribute-{k}"), 1 + k * step % 4000);
                set_attribute(&image, names[format!("./{file}").as_bytes()], space, &name, len);
                let full = format!("{prefix}.{name}").into_bytes();
                wanted.entry(file).or_insert_with(Vec::new).push((full, vec![b'v'; len]));
            }
        }
        let (_, tree) = read();
        for (file, mut wanted) in wanted {
            wanted.sort();
            let whole = &tree[&names[format!("./{file}").as_bytes()]].1;
            assert_eq!(whole.fault, None, "{args} {file}");
            let lens: Vec<_> = whole
                .xattrs
                .iter()
                .map(|(name, value)| (String::from_utf8_lossy(name), value.len()))
                .collect();
            assert!(whole.xattrs == wanted, "{args} {file}: {lens:?}");
        }
    }
}

#[test]
fn refusals_name_the_feature_and_the_way_out() {
    let Some((_scratch, source, path)) = ready("xfs_refusals_name_the_feature_and_the_way_out") else {
        return;
    };
    std::fs::write(source.join("file"), vec![7; 3 << 20]).unwrap();
    make(&path, "64m", "-d agcount=2", Some(&source)).unwrap();
    let sound = std::fs::read(&path).unwrap();
    let with = |changes: &[(usize, &[u8])]| {
        let mut bytes = sound.clone();
        for (at, change) in changes {
            bytes[*at..at + change.len()].copy_from_slice(change);
        }
        seal_at(&mut bytes, 0, 4096, 512);
        bytes
    };
    let said = |bytes: Vec<u8>| detect::open(&mut TestDevice::memory(bytes)).err().unwrap().to_string();
    for (changes, wanted) in [
        (&[(219, &[0x1B][..])][..], "needsrepair"),
        (&[(218, &[1][..])], "metadir"),
        (&[(216, &[0x40][..])], "incompat 0x40000000"),
        (&[(126, &[1][..])], "mkfs"),
        (&[(48, &[0; 8][..])], "external log"),
        (&[(101, &[0xA4][..])], "version 4"),
        (&[(20, &[1][..]), (8, &[1][..])], "damaged"),
    ] {
        let said = said(with(changes));
        assert!(said.contains(wanted) && (said.contains("image") || said.contains("mount")), "{said}");
    }
    // A feature that readers need not know.
    let mut device = TestDevice::memory(with(&[(212, &[0x40])]));
    let mut volume = detect::open(&mut device).unwrap();
    assert!(volume.info().features.iter().any(|name| name == "ro_compat 0x40000000"));
    assert_eq!(volume.used(&mut device, &mut |_| {}).unwrap(), UsedQuality::Unknown);
    let tree = collect(&mut device, volume.as_mut()).unwrap();
    assert_eq!(tree.len(), 2);
    // Shorter than it says.
    let mut short = sound.clone();
    short.truncate(short.len() - 4096);
    assert!(said(short).contains("larger than the device"));
    // An image of it leaves out what is free, and holds every block of the file.
    let mut device = TestDevice::memory(sound);
    let mut volume = detect::open(&mut device).unwrap();
    let names = volume.info().features.join(" ");
    assert!(names.starts_with("crc ") && names.contains("ftype"), "{names}");
    let mut window = Window::default();
    let tree = collect(&mut device, volume.as_mut()).unwrap();
    let mut used = image::Image::with_used(&mut device, volume.as_mut()).unwrap();
    let cursor = windlass_hal::volume::Cursor::default();
    let swept = windlass_hal::volume::Volume::sweep(&mut used, &mut device, cursor, &mut window);
    assert_eq!(swept.unwrap(), Swept::Done);
    let bytes: u64 = window.extents.iter().map(|extent| extent.len).sum();
    assert!(bytes > 3 << 20 && bytes < 40 << 20, "{bytes}");
    for extent in tree.values().flat_map(|(_, whole)| &whole.extents) {
        let (from, to) = (extent.physical, extent.physical + extent.len);
        assert!(window.extents.iter().any(|used| used.physical <= from && to <= used.physical + used.len));
    }
}

#[test]
fn inode_states_decide_what_is_delivered() {
    let Some((_scratch, source, path)) = ready("xfs_inode_states_decide_what_is_delivered") else { return };
    for name in ["realtime", "unlinked", "quota", "plain", "free"] {
        std::fs::write(source.join(name), vec![b'x'; 10_000]).unwrap();
    }
    make(&path, "64m", "-d agcount=2", Some(&source)).unwrap();
    let open = |path: &Path| {
        let mut device = TestDevice::file(path);
        let mut volume = detect::open(&mut device).unwrap();
        let tree = collect(&mut device, volume.as_mut()).unwrap();
        (paths_from(&tree, volume.info().root), tree)
    };
    let names = open(&path).0;
    let inode = |name: &str| names[format!("./{name}").as_bytes()];
    let change = |place: &str, field: &str| {
        support::run("xfs_db", &["-x", "-c", place, "-c", &format!("write {field}"), path.to_str().unwrap()]);
    };
    change(&format!("inode {}", inode("realtime")), "core.realtime 1");
    change(&format!("inode {}", inode("unlinked")), "core.nlinkv2 0");
    change("sb 0", &format!("uquotino {}", inode("quota")));
    let (_, tree) = open(&path);
    let fault = |name: &str| tree.get(&inode(name)).map(|(_, whole)| whole.fault.clone().unwrap_or_default());
    assert!(fault("realtime").unwrap().contains("not read: realtime file"));
    assert!(tree[&inode("realtime")].1.extents.is_empty());
    // In use, and on no list of unlinked inodes: its names lead to it, its bytes are kept.
    assert!(fault("unlinked").unwrap().contains("has no links"));
    assert_eq!(fault("quota"), None);
    assert_eq!(fault("plain").unwrap(), "");
    // The name of what is no item is named.
    let root = tree.first_key_value().unwrap().1;
    assert!(root.1.fault.as_ref().unwrap().contains("no item can have"), "{:?}", root.1.fault);

    // An inode that the tree calls free although it is in use.
    let (free, mut bytes) = (inode("free"), std::fs::read(&path).unwrap());
    let tree_at = (0..bytes.len()).step_by(4096).find(|&at| bytes[at..].starts_with(b"IAB3")).unwrap();
    let bit = free % 64;
    bytes[tree_at + 56 + 8 + 7 - bit as usize / 8] |= 1 << (bit % 8);
    bytes[tree_at + 56 + 7] += 1;
    seal_at(&mut bytes, tree_at, 4096, 512);
    let mut device = TestDevice::memory(bytes);
    let mut volume = detect::open(&mut device).unwrap();
    let tree = collect(&mut device, volume.as_mut()).unwrap();
    assert!(tree[&free].1.fault.as_ref().unwrap().contains("says that it is free"));
}
