//! ext4 in special states, made by mke2fs and debugfs without privilege: refused features, encrypted and verity inodes, orphans,
//! values in attribute inodes, and items too large for one window.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use support::{Scratch, TestDevice, Tree, collect, contents, has, paths, run, skipped, unsupported};
use windlass_hal::volume::{
    Cursor, ExtentState, ItemKind, Swept, UsedQuality, Volume, VolumeFault, Window, check, detect, image,
};

fn make(scratch: &Scratch, source: &Path, args: &[&str], size: &str) -> PathBuf {
    let image = scratch.join("image");
    let _ = std::fs::remove_file(&image);
    let mut all = vec!["-q", "-F", "-d", source.to_str().unwrap()];
    all.extend_from_slice(args);
    all.extend_from_slice(&[image.to_str().unwrap(), size]);
    run("mke2fs", &all);
    image
}

fn debugfs(image: &Path, command: &str) {
    let said = run("debugfs", &["-w", "-R", command, image.to_str().unwrap()]);
    assert!(!said.contains("Invalid") && !said.contains("not found"), "{command}: {said}");
}

fn sweep(image: &Path) -> (TestDevice, Tree) {
    let mut device = TestDevice::file(image);
    let mut volume = detect::open(&mut device).unwrap();
    let tree = collect(&mut device, volume.as_mut()).unwrap();
    (device, tree)
}

fn fault(image: &Path) -> VolumeFault {
    detect::open(&mut TestDevice::file(image)).err().expect("the volume is refused")
}

/// A scratch directory with an empty source in it; `None`, said aloud, when the tools are missing.
fn ready(test: &str) -> Option<(Scratch, PathBuf)> {
    if !has("mke2fs") || !has("debugfs") {
        skipped(test, "no mke2fs or debugfs");
        return None;
    }
    let scratch = Scratch::new(test);
    let source = scratch.join("source");
    std::fs::create_dir(&source).unwrap();
    Some((scratch, source))
}

#[test]
fn refusals_name_the_feature_and_the_way_out() {
    let Some((scratch, source)) = ready("refusals_name_the_feature_and_the_way_out") else { return };
    let image = make(&scratch, &source, &["-t", "ext4"], "16M");
    debugfs(&image, "feature needs_recovery");
    let said = fault(&image).to_string();
    assert!(said.contains("needs_recovery") && said.contains("fsfreeze"), "{said}");

    let external = make(&scratch, &source, &["-t", "ext4"], "16M");
    run("mke2fs", &["-q", "-F", "-O", "journal_dev", external.to_str().unwrap()]);
    let said = fault(&external).to_string();
    assert!(said.contains("journal_dev"), "{said}");

    // Unknown bits, on a volume whose superblock has no checksum.
    let args = ["-t", "ext4", "-O", "^metadata_csum"];
    let image = make(&scratch, &source, &args, "16M");
    let mut bytes = std::fs::read(&image).unwrap();
    bytes[1024 + 0x63] = 0x40;
    let said = detect::open(&mut TestDevice::memory(bytes.clone())).err().unwrap().to_string();
    assert!(said.contains("0x40000000"), "{said}");
    bytes[1024 + 0x63] = 0;
    bytes[1024 + 0x67] = 0x40;
    let mut device = TestDevice::memory(bytes.clone());
    let mut volume = detect::open(&mut device).unwrap();
    assert!(volume.info().features.iter().any(|name| name == "ro_compat 0x40000000"));
    assert_eq!(volume.used(&mut device, &mut |_| {}).unwrap(), UsedQuality::Unknown);

    // Larger than the device.
    bytes[1024 + 0x67] = 0;
    bytes.truncate(bytes.len() - 4096);
    let said = detect::open(&mut TestDevice::memory(bytes)).err().unwrap().to_string();
    assert!(said.contains("larger than the device"), "{said}");
}

#[test]
fn inode_flags_decide_what_is_delivered() {
    let Some((scratch, source)) = ready("inode_flags_decide_what_is_delivered") else { return };
    for name in ["secret", "sealed", "orphan", "plain", "flags"] {
        std::fs::write(source.join(name), vec![b'x'; 10_000]).unwrap();
    }
    std::fs::create_dir(source.join("secret dir")).unwrap();
    std::fs::write(source.join("secret dir/inside"), "").unwrap();
    let image = make(&scratch, &source, &["-t", "ext4", "-O", "encrypt,verity", "-b", "4096"], "16M");
    debugfs(&image, "set_inode_field /secret flags 0x80800");
    debugfs(&image, "set_inode_field \"/secret dir\" flags 0x80800");
    debugfs(&image, "set_inode_field /sealed flags 0x180000");
    debugfs(&image, "set_inode_field /sealed size 5000");
    debugfs(&image, "set_inode_field /orphan links_count 0");
    debugfs(&image, "set_inode_field /flags flags 0x80070");
    debugfs(&image, "set_inode_field /flags mtime @-1000000000");
    let (_, tree) = sweep(&image);
    let names = paths(&tree);
    let of = |name: &str| tree.get(&names[format!("./{name}").as_bytes()]);

    for name in ["secret", "secret dir"] {
        let (item, whole) = of(name).unwrap();
        assert!(whole.fault.as_ref().is_some_and(|said| said.contains("encrypted")), "{:?}", whole.fault);
        assert!(whole.extents.is_empty() && whole.names.is_empty());
        assert_ne!(item.mtime.secs, 0);
        assert_eq!(item.flags, 0x800);
    }
    assert_eq!(of("secret").unwrap().0.size, 10_000);
    let (item, whole) = of("sealed").unwrap();
    assert_eq!((item.flags, whole.fault.as_ref()), (0x10_0000, None));
    // Three blocks are there; the third is behind the end, where a verity file keeps its hash tree.
    assert_eq!(whole.extents.iter().map(|extent| extent.len).sum::<u64>(), 8192);
    // In use without links: damage, unless the superblock knows of orphans.
    let fault = of("orphan").unwrap().1.fault.clone().unwrap();
    assert!(fault.contains("inode is in use and has no links"), "{fault}");
    let orphan = names[&b"./orphan"[..]];
    assert_eq!(of("plain").unwrap().1.fault, None);
    assert_eq!(of("flags").unwrap().0.flags, 0x70);
    debugfs(&image, &format!("set_super_value last_orphan {orphan}"));
    assert!(!sweep(&image).1.contains_key(&orphan));
}

#[test]
fn values_in_attribute_inodes_are_read_and_checked() {
    let test = "values_in_attribute_inodes_are_read_and_checked";
    let Some((scratch, _)) = ready(test) else { return };
    // tmpfs takes attributes of 64 KiB, and mke2fs copies them.
    let source = PathBuf::from(format!("/dev/shm/windlass-{}", std::process::id()));
    let _ = std::fs::create_dir(&source);
    let source = Scratch(source);
    if std::fs::write(source.join("file"), "x").is_err() || !has("setfattr") {
        return skipped(test, "no /dev/shm or no setfattr");
    }
    let value: Vec<u8> = (0..30_000u32).map(|i| (i % 251) as u8).collect();
    let text: String = value.iter().map(|byte| format!("{byte:02x}")).collect();
    for (name, value) in [("user.big", format!("0x{text}")), ("user.small", "s".into())] {
        let status = std::process::Command::new("setfattr")
            .args(["-n", name, "-v", &value])
            .arg(source.join("file"))
            .status()
            .unwrap();
        if !status.success() {
            return unsupported(test, "/dev/shm takes no user attributes of 30 KB");
        }
    }
    for block in ["1024", "4096"] {
        let image = make(&scratch, &source.0, &["-t", "ext4", "-O", "ea_inode", "-b", block], "16M");
        let (_, tree) = sweep(&image);
        let (item, whole) = tree.values().find(|(item, _)| item.kind == ItemKind::File).unwrap();
        assert_eq!(whole.fault, None);
        let wanted = vec![(b"user.big".to_vec(), value.clone()), (b"user.small".to_vec(), b"s".to_vec())];
        let lens: Vec<_> = whole.xattrs.iter().map(|(name, value)| (name.len(), value.len())).collect();
        assert!(whole.xattrs == wanted, "{block}: {lens:?}");
        assert_eq!(tree.len(), 3, "root, lost+found, file: the attribute inode is not an item");
        // A byte of the value changes: only that attribute goes, and it is said.
        let mut bytes = std::fs::read(&image).unwrap();
        let at = bytes.windows(500).position(|w| w == &value[..500]).unwrap();
        bytes[at + 7] ^= 1;
        let mut device = TestDevice::memory(bytes);
        let mut volume = detect::open(&mut device).unwrap();
        let tree = collect(&mut device, volume.as_mut()).unwrap();
        let (_, whole) = &tree[&item.inode];
        assert!(whole.fault.as_ref().is_some_and(|said| said.contains("value checksum")));
        assert!(whole.xattrs == wanted[1..], "{block}");
    }
}

#[test]
fn large_items_come_in_parts() {
    let Some((scratch, source)) = ready("large_items_come_in_parts") else { return };
    // Every other block, so no two touch; and names of more than a mebibyte, where the many inserts of mke2fs are cheap.
    let pieces: u64 = 18_000;
    let (fragmented, crowded) = (source.join("fragmented"), source.join("crowded"));
    std::fs::create_dir_all(crowded.join("names")).unwrap();
    std::fs::create_dir(&fragmented).unwrap();
    let file = std::fs::File::create(fragmented.join("pieces")).unwrap();
    for k in 0..pieces {
        file.write_all_at(&(k + 1).to_le_bytes(), k * 8192).unwrap();
    }
    let names_count = 4300;
    for k in 0..names_count {
        std::fs::File::create(crowded.join(format!("names/{k}{}", "n".repeat(247)))).unwrap();
    }
    let image = make(&scratch, &crowded, &["-t", "ext2", "-b", "4096", "-N", "7000"], "100M");
    let (_, tree) = sweep(&image);
    let (_, whole) = &tree[&paths(&tree)[&b"./names"[..]]];
    assert_eq!((whole.fault.as_ref(), whole.names.len()), (None, names_count));
    assert!(whole.parts > 1);
    for (what, kind) in [("extents", "ext4"), ("block map", "ext2")] {
        let image = make(&scratch, &fragmented, &["-t", kind, "-b", "4096"], "128M");
        let (mut device, tree) = sweep(&image);
        let names = paths(&tree);
        let (item, whole) = &tree[&names[&b"./pieces"[..]]];
        assert_eq!(whole.fault, None, "{what}");
        assert!(whole.parts > 1, "{what}: {} parts of {} extents", whole.parts, whole.extents.len());
        let (reads, mib) = (device.reads, device.read_bytes >> 20);
        assert!(
            contents(&mut device, item, whole) == std::fs::read(fragmented.join("pieces")).unwrap(),
            "{what}"
        );
        let mapped: u64 = whole.extents.iter().map(|extent| extent.len).sum();
        assert_eq!(mapped, pieces * 4096, "{what}");
        assert!(whole.extents.iter().all(|extent| extent.state == ExtentState::Data));
        // Each piece is one block and each leaf some hundred: reads are merged, not one per node.
        assert!(reads < 100, "{what}: {reads} reads of {mib} MiB");
    }
}

#[test]
fn an_image_leaves_out_what_the_file_system_does_not_use() {
    let Some((scratch, source)) = ready("an_image_leaves_out_what_the_file_system_does_not_use") else {
        return;
    };
    std::fs::write(source.join("file"), vec![1; 3 << 20]).unwrap();
    let path = make(&scratch, &source, &["-t", "ext4"], "200M");
    let mut device = TestDevice::file(&path);
    let mut volume = detect::open(&mut device).unwrap();
    let mut whole = image::Image::open(&mut device);
    let mut used = image::Image::with_used(&mut device, volume.as_mut()).unwrap();
    let mut window = Window::default();
    assert_eq!(whole.sweep(&mut device, Cursor::default(), &mut window).unwrap(), Swept::Done);
    assert_eq!((window.items.len(), window.extents.len()), (1, 1));
    assert_eq!((window.items[0].kind, window.items[0].size), (ItemKind::Image, 200 << 20));
    assert_eq!((window.extents[0].physical, window.extents[0].len), (0, 200 << 20));
    assert_eq!(used.sweep(&mut device, Cursor::default(), &mut window).unwrap(), Swept::Done);
    let bytes: u64 = window.extents.iter().map(|extent| extent.len).sum();
    assert!(window.extents.len() > 1 && bytes > 3 << 20 && bytes < 100 << 20, "{:?}", window.extents);
    assert_eq!(used.info().state, volume.info().state);
    assert_ne!(whole.info().uuid, [0; 16]);
    // Every block of the file is in.
    let tree = collect(&mut device, volume.as_mut()).unwrap();
    for extent in tree.values().flat_map(|(_, whole)| &whole.extents) {
        let (from, to) = (extent.physical, extent.physical + extent.len);
        assert!(window.extents.iter().any(|used| used.physical <= from && to <= used.physical + used.len));
    }
}

#[test]
fn the_state_changes_with_any_write() {
    let Some((scratch, source)) = ready("the_state_changes_with_any_write") else { return };
    let path = make(&scratch, &source, &["-t", "ext4"], "16M");
    let state = |path: &Path| detect::open(&mut TestDevice::file(path)).unwrap().info().state;
    let before = state(&path);
    assert!(before.is_some());
    assert_eq!(before, state(&path));
    debugfs(&path, "mkdir /new");
    assert_ne!(before, state(&path));
    // A volume without a journal that is not marked clean proves nothing.
    debugfs(&path, "feature -has_journal");
    assert!(state(&path).is_some());
    debugfs(&path, "set_super_value state 0");
    assert_eq!(state(&path), None);
}

#[test]
fn inline_files_may_be_longer_than_an_inode() {
    let Some((scratch, source)) = ready("inline_files_may_be_longer_than_an_inode") else { return };
    // mke2fs writes no block of zeros, so these stay inline whatever their size.
    for (name, len) in
        [("zeros-1", 1u64), ("zeros-60", 60), ("zeros-61", 61), ("zeros-5000", 5000), ("zeros-5m", 5 << 20)]
    {
        std::fs::write(source.join(name), vec![0; len as usize]).unwrap();
    }
    std::fs::File::create(source.join("hole")).unwrap().set_len(1 << 40).unwrap();
    std::fs::write(source.join("head"), b"some bytes").unwrap();
    let image = make(&scratch, &source, &["-t", "ext4", "-O", "inline_data", "-b", "4096"], "16M");
    debugfs(&image, "set_inode_field /head size 100000");
    let (mut device, tree) = sweep(&image);
    let names = paths(&tree);
    for (name, inode) in names.iter().filter(|(name, _)| name.starts_with(b"./zeros")) {
        let (item, whole) = &tree[inode];
        assert_eq!(whole.fault, None, "{}", String::from_utf8_lossy(name));
        let len = source.join(std::str::from_utf8(&name[2..]).unwrap()).metadata().unwrap().len();
        assert_eq!(item.size, len);
        assert_eq!(contents(&mut device, item, whole), vec![0; len as usize]);
    }
    let (item, whole) = &tree[&names[&b"./hole"[..]]];
    assert_eq!((item.size, whole.fault.as_ref(), whole.extents.len()), (1 << 40, None, 0));
    let (item, whole) = &tree[&names[&b"./head"[..]]];
    let read = contents(&mut device, item, whole);
    assert!(read.len() == 100_000 && read.starts_with(b"some bytes\0") && read[10..].iter().all(|&b| b == 0));
}

#[test]
fn a_damaged_superblock_names_its_backup() {
    let Some((scratch, source)) = ready("a_damaged_superblock_names_its_backup") else { return };
    std::fs::write(source.join("file"), "contents").unwrap();
    for (args, size, wanted) in [
        (&["-b", "1024"][..], "20M", "e2fsck -b 8193 -B 1024"),
        (&["-b", "2048"], "40M", "e2fsck -b 16384 -B 2048"),
        (&["-b", "4096"], "200M", "e2fsck -b 32768 -B 4096"),
        (&["-b", "1024", "-O", "sparse_super2,^resize_inode"], "40M", "e2fsck -b 8193 -B 1024"),
        (&["-b", "1024", "-g", "1024"], "20M", "e2fsck -b 1025 -B 1024"),
    ] {
        let args = [&["-t", "ext4"], args].concat();
        let image = make(&scratch, &source, &args, size);
        let sound = std::fs::read(&image).unwrap();
        let mut bytes = sound.clone();
        bytes[1024 + 0x120] ^= 0xFF;
        let said = detect::open(&mut TestDevice::memory(bytes.clone())).err().unwrap().to_string();
        assert!(said.contains("checksum") && said.contains(wanted), "{args:?}: {said}");
        if !args.contains(&"-g") {
            bytes[1024..2048].fill(0);
            let said = detect::open(&mut TestDevice::memory(bytes.clone())).err().unwrap().to_string();
            assert!(said.contains("no magic number") && said.contains(wanted), "{args:?}: {said}");
        }
        // What was named works, and then the volume is read.
        std::fs::write(&image, &bytes).unwrap();
        let [_, option, block, _, block_bytes] = wanted.split(' ').collect::<Vec<_>>()[..] else { panic!() };
        let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
        let repaired = std::process::Command::new("e2fsck")
            .args(["-fy", option, block, "-B", block_bytes])
            .arg(&image)
            .env("PATH", path)
            .output()
            .unwrap();
        assert_eq!(repaired.status.code(), Some(1), "{repaired:?}");
        let (_, tree) = sweep(&image);
        assert!(paths(&tree).contains_key(&b"./file"[..]));
    }
    // Without a backup there is no such way out.
    let image = make(&scratch, &source, &["-t", "ext4", "-b", "1024"], "6M");
    let mut bytes = std::fs::read(&image).unwrap();
    bytes[1024 + 0x120] ^= 0xFF;
    let said = detect::open(&mut TestDevice::memory(bytes)).err().unwrap().to_string();
    assert!(said.contains("checksum") && !said.contains("backup in"), "{said}");
}

/// Everything that a check finds, with little memory and with much: it must be the same.
fn checked(image: &Path) -> Vec<check::Finding> {
    let mut device = TestDevice::file(image);
    let mut volume = detect::open(&mut device).unwrap();
    let mut find = |memory: usize| {
        let mut out = Vec::new();
        check::check(volume.as_mut(), &mut device, memory, &mut |finding| out.push(finding.clone())).unwrap();
        out
    };
    let (little, much) = (find(0), find(16 << 20));
    assert_eq!(little, much);
    much
}

#[test]
fn what_two_items_claim_is_found() {
    let Some((scratch, source)) = ready("what_two_items_claim_is_found") else { return };
    for name in ["one", "two", "three", "four"] {
        std::fs::write(source.join(name), vec![b'x'; 8192]).unwrap();
    }
    let image = make(&scratch, &source, &["-t", "ext2", "-b", "1024"], "600M");
    assert_eq!(checked(&image), []);
    let (_, tree) = sweep(&image);
    let names = paths(&tree);
    let of = |name: &str| names[format!("./{name}").as_bytes()];
    let first = tree[&of("one")].1.extents[0].physical;
    debugfs(&image, &format!("set_inode_field /two block[3] {}", first / 1024 + 2));
    let bytes = first + 2048..first + 3072;
    let mut wanted = vec![
        check::Finding::Shared { inode: of("one"), bytes: bytes.clone() },
        check::Finding::Shared { inode: of("two"), bytes },
    ];
    wanted.sort_by_key(|finding| match finding {
        check::Finding::Shared { inode, .. } => *inode,
        _ => 0,
    });
    assert_eq!(checked(&image), wanted);
    // A block of the inode table: no need to look at other items.
    let said = run("debugfs", &["-R", "imap /three", image.to_str().unwrap()]);
    let block: u64 =
        said.split("at block ").nth(1).unwrap().split([',', ' ']).next().unwrap().parse().unwrap();
    debugfs(&image, &format!("set_inode_field /three block[1] {block}"));
    let (_, tree) = sweep(&image);
    let fault = tree[&of("three")].1.fault.clone().unwrap();
    assert!(fault.contains("the file system's own metadata"), "{fault}");
    assert_eq!(tree.values().filter(|(_, whole)| whole.fault.is_some()).count(), 1);
}

#[test]
fn names_without_items_and_items_without_names_are_found() {
    let test = "names_without_items_and_items_without_names_are_found";
    let Some((scratch, source)) = ready(test) else { return };
    for name in ["kept", "cleared", "freed", "nameless"] {
        std::fs::write(source.join(name), name).unwrap();
    }
    let image = make(&scratch, &source, &["-t", "ext4"], "16M");
    let (_, tree) = sweep(&image);
    let names = paths(&tree);
    let of = |name: &str| names[format!("./{name}").as_bytes()];
    debugfs(&image, "clri /cleared");
    debugfs(&image, "unlink /nameless");
    // In use, and nothing there: an item with a fault, which the name leads to.
    assert_eq!(checked(&image), [check::Finding::Nameless { inode: of("nameless") }]);
    let (_, tree) = sweep(&image);
    let fault = tree[&of("cleared")].1.fault.clone().unwrap();
    assert!(fault.contains("inode is in use and has no links"), "{fault}");
    // With its bit clear too, the sweep sees it, and drops the name.
    debugfs(&image, "clri /freed");
    debugfs(&image, &format!("freei <{}>", of("freed")));
    let (_, tree) = sweep(&image);
    let (_, root) = &tree[&2];
    assert!(root.fault.as_ref().is_some_and(|said| said.contains("names an inode that is free")), "{root:?}");
    let left: Vec<&[u8]> = root.names.iter().map(|(name, _)| &name[..]).collect();
    assert!(left.contains(&&b"kept"[..]) && !left.contains(&&b"freed"[..]), "{left:?}");
    assert_eq!(tree.values().filter(|(_, whole)| whole.fault.is_some()).count(), 2);
}

/// An extent node: entries that fit, depth, and one entry for logical block 0.
fn node(max: u16, depth: u16, block: u32) -> Vec<u8> {
    let mut node = vec![0x0A, 0xF3, 1, 0];
    node.extend_from_slice(&max.to_le_bytes());
    node.extend_from_slice(&depth.to_le_bytes());
    node.extend_from_slice(&[0; 8]);
    if depth == 0 {
        // Of an extent: eight blocks.
        node.extend_from_slice(&[8, 0, 0, 0]);
    }
    node.extend_from_slice(&block.to_le_bytes());
    node.resize(28, 0);
    node
}

#[test]
fn extent_trees_are_five_levels_deep_at_most() {
    let Some((scratch, source)) = ready("extent_trees_are_five_levels_deep_at_most") else { return };
    let data: Vec<u8> = (0..8192u32).map(|i| (i % 241) as u8).collect();
    std::fs::write(source.join("deep"), &data).unwrap();
    std::fs::write(source.join("nodes"), vec![b'n'; 8192]).unwrap();
    let args = ["-t", "ext4", "-b", "1024", "-O", "^metadata_csum,^has_journal"];
    let image = make(&scratch, &source, &args, "16M");
    let (_, tree) = sweep(&image);
    let names = paths(&tree);
    let first = |name: &str| {
        let (_, whole) = &tree[&names[format!("./{name}").as_bytes()]];
        assert_eq!(whole.extents.len(), 1);
        whole.extents[0].physical
    };
    let (deep, nodes) = (first("deep"), first("nodes"));
    let sound = std::fs::read(&image).unwrap();
    // The root of "deep", as it stands in its inode.
    let mut root = vec![0x0A, 0xF3, 1, 0, 4, 0, 0, 0];
    root.extend_from_slice(&[0; 8]);
    root.extend_from_slice(&[8, 0, 0, 0]);
    root.extend_from_slice(&((deep / 1024) as u32).to_le_bytes());
    let root_at = sound.windows(root.len()).position(|bytes| bytes == root).unwrap();
    let read = |depth: u16, self_loop: bool| {
        let mut bytes = sound.clone();
        let place = |k: u16| (nodes / 1024) as u32 + u32::from(k);
        bytes[root_at..root_at + 28].copy_from_slice(&node(4, depth, place(0)));
        for k in 0..depth.min(8) {
            let below = depth - 1 - k;
            let to = if below == 0 { (deep / 1024) as u32 } else { place(if self_loop { 0 } else { k + 1 }) };
            let at = place(k) as usize * 1024;
            bytes[at..at + 28].copy_from_slice(&node(84, below, to));
        }
        let mut device = TestDevice::memory(bytes);
        device.reads_left = 1000;
        let mut volume = detect::open(&mut device).unwrap();
        let tree = collect(&mut device, volume.as_mut()).unwrap();
        let (item, whole) = tree[&names[&b"./deep"[..]]].clone();
        (whole.fault.is_none().then(|| contents(&mut device, &item, &whole)), whole.fault)
    };
    for depth in 1..=5 {
        assert!(read(depth, false).0.is_some_and(|read| read == data), "depth {depth}");
    }
    let (_, fault) = read(6, false);
    assert!(fault.is_some_and(|said| said.contains("deeper than five levels")));
    let (_, fault) = read(3, true);
    assert!(fault.is_some_and(|said| said.contains("wrong depth")));
}
