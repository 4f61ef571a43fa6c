//! XFS as the kernel sees it: a volume is made and filled by the kernel, then mounted read-only, and every inode, name,
//! attribute, extent and byte that it shows must be what the reader finds.
//!
//! Needs root, mkfs.xfs, python3 and loop devices; says `SKIPPED` otherwise. Only ordinary options of mkfs.xfs, and only finished, clean
//! images are mounted.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::path::Path;

use support::kernel::{Mounted, compare};
use support::xfs::make;
use support::{Scratch, TestDevice, Tree, collect, has, is_root, paths_from, run, skipped, unsupported};
use windlass_hal::volume::{UsedQuality, Volume, VolumeFault, VolumeInfo, detect};

/// Name, size, mkfs.xfs arguments. The first is filled with more than the others.
const SETS: &[(&str, &str, &str)] = &[
    ("default", "1500M", ""),
    ("1k blocks", "600M", "-b size=1k"),
    ("2k blocks", "600M", "-b size=2k"),
    ("1k blocks, 2k directories", "600M", "-b size=1k -n size=4k"),
    ("16k blocks", "1500M", "-b size=16k"),
    ("64k blocks", "2000M", "-b size=64k"),
    ("64k directories", "600M", "-n size=64k"),
    ("1k blocks, 64k directories", "600M", "-b size=1k -n size=64k"),
    ("8k directories", "600M", "-n size=8k"),
    ("inodes 1k", "600M", "-i size=1024"),
    ("inodes 2k", "600M", "-i size=2048"),
    ("1k blocks, inodes 512", "600M", "-b size=1k -i size=512"),
    ("2k blocks, inodes 1k", "600M", "-b size=2k -i size=1024"),
    ("sectors of 4k", "600M", "-s size=4096"),
    ("sectors of 512", "600M", "-s size=512"),
    ("no finobt", "600M", "-m finobt=0"),
    ("no reflink", "600M", "-m reflink=0"),
    ("no sparse inodes", "600M", "-i sparse=0"),
    ("no bigtime", "600M", "-m bigtime=0"),
    ("no inobtcount", "600M", "-m inobtcount=0"),
    (
        "nothing that can be left out",
        "600M",
        "-m finobt=0,reflink=0,bigtime=0,inobtcount=0,rmapbt=0 -i sparse=0",
    ),
    ("rmapbt", "600M", "-m rmapbt=1"),
    ("nrext64", "600M", "-i nrext64=1"),
    ("nrext64, rmapbt, 1k blocks", "600M", "-i nrext64=1 -m rmapbt=1 -b size=1k"),
    ("two groups", "600M", "-d agcount=2"),
    ("many groups", "1500M", "-d agcount=14"),
    ("stripe", "600M", "-d su=64k,sw=4"),
    ("log stripe", "600M", "-l su=256k"),
    ("log stripe 32k, log sectors 4k", "600M", "-l su=32k,sectsize=4096 -s size=512"),
    ("large log", "1500M", "-l size=300m"),
    ("case folded", "600M", "-n version=ci"),
    ("parent pointers", "600M", "-n parent=1"),
    ("exchange range", "600M", "-i exchange=1"),
];

fn ready(test: &str) -> Option<Scratch> {
    if !is_root() {
        skipped(test, "not root");
        return None;
    }
    for program in ["mkfs.xfs", "xfs_db", "python3", "mount", "chattr", "tar", "fallocate"] {
        if !has(program) {
            skipped(test, &format!("no {program}"));
            return None;
        }
    }
    let scratch = Scratch::new(test);
    std::fs::create_dir(scratch.join("mnt")).unwrap();
    Some(scratch)
}

fn script(name: &str, args: &[&str]) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support").join(name);
    let all: Vec<&str> = std::iter::once(path.to_str().unwrap()).chain(args.iter().copied()).collect();
    run("python3", &all);
}

/// What the used map must say: free blocks as the group headers count them, and nothing of any item free.
fn compare_used(image: &Path, volume: &mut dyn Volume, device: &mut TestDevice, tree: &Tree, what: &str) {
    let info = volume.info().clone();
    let mut used = Vec::new();
    assert_eq!(volume.used(device, &mut |range| used.push(range)).unwrap(), UsedQuality::Exact, "{what}");
    assert!(used.windows(2).all(|w| w[0].end < w[1].start), "{what}: ascending and disjoint");
    let bytes: u64 =
        used.iter().map(|range| range.end.min(info.size_bytes) - range.start.min(info.size_bytes)).sum();
    let groups = run("xfs_db", &["-r", "-c", "sb 0", "-c", "p agcount", image.to_str().unwrap()]);
    let groups: u32 = groups.trim().rsplit(' ').next().unwrap().parse().unwrap();
    let mut args = vec!["-r".to_owned()];
    for group in 0..groups {
        args.extend(["-c".to_owned(), format!("agf {group}"), "-c".to_owned(), "p freeblks".to_owned()]);
    }
    args.push(image.to_str().unwrap().to_owned());
    let said = run("xfs_db", &args.iter().map(String::as_str).collect::<Vec<_>>());
    let free: u64 = said.lines().map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum();
    assert_eq!(info.size_bytes - bytes, free * u64::from(info.block_bytes), "{what}: free bytes");
    for extent in tree.values().flat_map(|(_, whole)| &whole.extents) {
        let at = used.partition_point(|range| range.end <= extent.physical);
        assert!(
            used[at].start <= extent.physical && extent.physical + extent.len <= used[at].end,
            "{what}: {extent:?}"
        );
    }
}

#[test]
fn the_kernel_and_the_reader_see_the_same() {
    let test = "xfs_the_kernel_and_the_reader_see_the_same";
    let Some(scratch) = ready(test) else { return };
    let (image, at, listing) = (scratch.join("image"), scratch.join("mnt"), scratch.join("listing"));
    let only = std::env::var("WINDLASS_SET").ok();
    let mut compared = 0;
    for (index, (name, size, args)) in SETS.iter().enumerate() {
        if only.as_ref().is_some_and(|only| only != name) {
            continue;
        }
        if let Err(reason) = make(&image, size, args, None) {
            unsupported(test, &format!("{name}: {reason}"));
            continue;
        }
        let (many, files, attributes, entries) = match index {
            0 => ("20000", "3000", "3000", "100000"),
            _ => ("1000", "150", "600", "6000"),
        };
        match Mounted::new(&image, &at, "loop") {
            Ok(_mounted) => {
                script("populate.py", &[at.to_str().unwrap(), many, files]);
                script("populate_xfs.py", &[at.to_str().unwrap(), attributes, entries]);
            }
            Err(reason) => {
                unsupported(test, &format!("{name}: mount: {reason}"));
                continue;
            }
        }
        let mounted = Mounted::new(&image, &at, "ro,norecovery,loop").unwrap();
        script("oracle.py", &[at.to_str().unwrap(), listing.to_str().unwrap()]);
        drop(mounted);
        let mut device = TestDevice::file(&image);
        let mut volume = detect::open(&mut device).unwrap_or_else(|fault| panic!("{name}: {fault}"));
        let tree = collect(&mut device, volume.as_mut()).unwrap();
        assert!(tree.len() > 1500, "{name}: {} items", tree.len());
        compare(&std::fs::read_to_string(&listing).unwrap(), &tree, &mut device, name);
        compare_used(&image, volume.as_mut(), &mut device, &tree, name);
        let names = paths_from(&tree, volume.info().root);
        let of = |path: &str| &tree[&names[path.as_bytes()]];
        if index == 0 {
            assert!(of("./xfs/most").1.parts > 1, "a directory in parts");
            assert!(of("./x/fragments").1.parts > 1, "a file in parts");
        }
        compared += 1;
    }
    assert!(only.is_some() || compared >= 25, "{compared} option sets");
}

/// Opens a copy of what the kernel has written so far, which is in the file below the loop device.
fn read_copy(image: &Path, copy: &Path) -> Result<(VolumeInfo, Tree, TestDevice), VolumeFault> {
    std::fs::copy(image, copy).unwrap();
    let mut device = TestDevice::file(copy);
    let mut volume = detect::open(&mut device)?;
    let tree = collect(&mut device, volume.as_mut()).unwrap();
    assert!(tree.values().all(|(_, whole)| whole.fault.is_none()));
    Ok((volume.info().clone(), tree, device))
}

#[test]
fn a_frozen_volume_is_read_and_a_live_one_refused() {
    let test = "xfs_a_frozen_volume_is_read_and_a_live_one_refused";
    let Some(scratch) = ready(test) else { return };
    if !has("xfs_freeze") {
        return skipped(test, "no xfs_freeze");
    }
    let (image, copy, at) = (scratch.join("image"), scratch.join("copy"), scratch.join("mnt"));
    // Small logs, so that records go around their end.
    for (size, args) in [
        ("64m", ""),
        ("160m", "-l su=256k"),
        ("64m", "-b size=1k"),
        ("64m", "-l su=32k,sectsize=4096 -s size=512"),
    ] {
        make(&image, size, args, None).unwrap();
        let mount = at.to_str().unwrap().to_owned();
        let mounted = match Mounted::new(&image, &at, "loop") {
            Ok(mounted) => mounted,
            Err(reason) => return unsupported(test, &format!("mount: {reason}")),
        };
        let frozen = || {
            run("xfs_freeze", &["-f", &mount]);
            let found = read_copy(&image, &copy);
            run("xfs_freeze", &["-u", &mount]);
            found.unwrap_or_else(|fault| panic!("{args}: {fault}"))
        };
        let mut states = Vec::new();
        let rounds = 12;
        for round in 0..rounds {
            for k in 0..60 {
                std::fs::write(at.join(format!("{round}-{k}")), vec![1; k * 50]).unwrap();
                if k % 5 == 0 {
                    std::fs::File::open(at.join(format!("{round}-{k}"))).unwrap().sync_all().unwrap();
                }
            }
            let open = std::fs::File::create(at.join("unlinked")).unwrap();
            std::fs::remove_file(at.join("unlinked")).unwrap();
            open.sync_all().unwrap();
            let said = read_copy(&image, &copy).err().map(|fault| fault.to_string()).unwrap_or_default();
            assert!(said.contains("dirty log") && said.contains("xfs_freeze"), "{args}: {said}");
            let (info, tree, _) = frozen();
            let names = paths_from(&tree, info.root);
            assert!(names.contains_key(format!("./{round}-59").as_bytes()), "{args}: {round}");
            assert_eq!((names.len(), tree.len()), (1 + 60 * (round + 1), 1 + 60 * (round + 1)), "{args}");
            let newest = std::fs::metadata(at.join(format!("{round}-59"))).unwrap();
            let newest = std::os::unix::fs::MetadataExt::ctime(&newest);
            assert!(
                (newest - 5..=newest).contains(&info.written_secs),
                "{args}: {} {newest}",
                info.written_secs
            );
            states.push(info.state);
            drop(open);
            // Nothing is written between two freezes but what they write themselves.
            states.push(frozen().0.state);
        }
        drop(mounted);
        let unmounted = || read_copy(&image, &copy).unwrap().0.state;
        states.push(unmounted());
        assert_eq!(states.last().unwrap(), &unmounted());
        drop(Mounted::new(&image, &at, "loop").unwrap());
        states.push(unmounted());
        let distinct: std::collections::BTreeSet<_> = states.iter().flatten().collect();
        assert_eq!(distinct.len(), 2 * rounds + 2, "{args}: every freeze and every unmount shows");
    }
}

#[test]
fn volumes_with_a_history_are_read() {
    let test = "xfs_volumes_with_a_history_are_read";
    let Some(scratch) = ready(test) else { return };
    let (image, copy, at) = (scratch.join("image"), scratch.join("copy"), scratch.join("mnt"));
    let listing = scratch.join("listing");
    let same = |what: &str, mut found: (VolumeInfo, Tree, TestDevice)| {
        let mounted = Mounted::new(&image, &at, "ro,norecovery,loop").unwrap();
        script("oracle.py", &[at.to_str().unwrap(), listing.to_str().unwrap()]);
        drop(mounted);
        compare(&std::fs::read_to_string(&listing).unwrap(), &found.1, &mut found.2, what);
    };

    // Free space in pieces of 16 KiB: chunks of inodes get holes.
    make(&image, "64m", "-d agcount=1", None).unwrap();
    match Mounted::new(&image, &at, "loop") {
        Ok(_mounted) => script("fragment.py", &[at.to_str().unwrap()]),
        Err(reason) => return unsupported(test, &format!("mount: {reason}")),
    }
    let bytes = std::fs::read(&image).unwrap();
    let leaves = bytes.chunks_exact(4096).filter(|block| block.starts_with(b"IAB3\0\0"));
    let sparse = leaves.filter(|leaf| {
        let entries = usize::from(u16::from_be_bytes([leaf[6], leaf[7]]));
        leaf[56..].chunks_exact(16).take(entries).any(|record| record[4..6] != [0, 0])
    });
    assert!(sparse.count() > 0, "no chunk with holes");
    same("sparse chunks", read_copy(&image, &copy).unwrap());

    // Quota inodes are in use, have a link, and are no items.
    make(&image, "64m", "", None).unwrap();
    if let Ok(mounted) = Mounted::new(&image, &at, "loop,usrquota,grpquota,prjquota") {
        std::fs::write(at.join("file"), "x").unwrap();
        drop(mounted);
        let found = read_copy(&image, &copy).unwrap();
        assert_eq!(found.0.inodes_used, 2 + 2 + 3, "root, file, bitmap, summary, three quotas");
        same("quota", found);
    } else {
        unsupported(test, "quota: mount");
    }

    // A new uuid after the fact: metadata keeps the old one.
    if has("xfs_admin") {
        let before = read_copy(&image, &copy).unwrap().0;
        run("xfs_admin", &["-U", "generate", "-L", "renamed", image.to_str().unwrap()]);
        let found = read_copy(&image, &copy).unwrap();
        assert!(found.0.uuid != before.uuid && found.0.label == b"renamed" && found.0.state != before.state);
        assert!(found.0.features.iter().any(|name| name == "meta_uuid"));
        same("meta_uuid", found);
    }

    // Grown: a last group that is shorter than the others.
    make(&image, "64m", "", None).unwrap();
    if has("xfs_growfs") {
        std::fs::File::options().write(true).open(&image).unwrap().set_len(107 << 20).unwrap();
        let mounted = Mounted::new(&image, &at, "loop").unwrap();
        run("xfs_growfs", &[at.to_str().unwrap()]);
        for k in 0..3000 {
            std::fs::write(at.join(format!("{k}")), vec![3; 20_000]).unwrap();
        }
        drop(mounted);
        let found = read_copy(&image, &copy).unwrap();
        assert_eq!(found.0.size_bytes, 107 << 20);
        same("grown", found);
    }
}
