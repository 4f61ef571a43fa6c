//! ext4 as the kernel sees it: a volume is made and filled by the kernel, then mounted read-only, and every inode, name,
//! attribute, extent and byte that it shows must be what the reader finds.
//!
//! Needs root, mke2fs, python3 and loop devices; says `SKIPPED` otherwise. Only features that mke2fs sets by default (or that are older)
//! are mounted, and only finished, clean images.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::path::Path;

use support::kernel::{Mounted, compare};
use support::{Scratch, TestDevice, collect, has, is_root, run, skipped, unsupported};
use windlass_hal::volume::detect;

/// Name, size, mke2fs arguments, entries of the large directory.
const SETS: &[(&str, &str, &[&str], &str)] = &[
    ("default", "600M", &["-t", "ext4"], "20000"),
    ("1k blocks", "400M", &["-t", "ext4", "-b", "1024"], "5000"),
    ("ext3", "500M", &["-t", "ext3", "-b", "4096"], "3000"),
    ("ext2 1k", "400M", &["-t", "ext2", "-b", "1024"], "2000"),
    ("project quota", "500M", &["-t", "ext4", "-O", "quota,project", "-E", "quotatype=prjquota"], "1000"),
];

#[test]
fn the_kernel_and_the_reader_see_the_same() {
    let test = "the_kernel_and_the_reader_see_the_same";
    if !is_root() {
        return skipped(test, "not root");
    }
    for program in ["mke2fs", "python3", "mount", "chattr", "tar"] {
        if !has(program) {
            return skipped(test, &format!("no {program}"));
        }
    }
    let scratch = Scratch::new("kernel");
    let support = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support");
    let (image, at, listing) = (scratch.join("image"), scratch.join("mnt"), scratch.join("listing"));
    std::fs::create_dir(&at).unwrap();
    for (name, size, args, entries) in SETS {
        let _ = std::fs::remove_file(&image);
        let mut all = vec!["-q", "-F", "-N", "20000"];
        all.extend_from_slice(args);
        all.extend_from_slice(&[image.to_str().unwrap(), size]);
        run("mke2fs", &all);
        match Mounted::new(&image, &at, "loop,user_xattr,acl") {
            Ok(_mounted) => {
                let script = support.join("populate.py");
                run("python3", &[script.to_str().unwrap(), at.to_str().unwrap(), entries]);
            }
            Err(reason) => return unsupported(test, &format!("mount: {reason}")),
        }
        let options = if name.starts_with("ext2") { "ro,loop" } else { "ro,noload,loop" };
        let mounted = Mounted::new(&image, &at, options).unwrap();
        let oracle = support.join("oracle.py");
        run("python3", &[oracle.to_str().unwrap(), at.to_str().unwrap(), listing.to_str().unwrap()]);
        drop(mounted);
        let mut device = TestDevice::file(&image);
        let mut volume = detect::open(&mut device).unwrap();
        let tree = collect(&mut device, volume.as_mut()).unwrap();
        assert!(tree.len() > 3000, "{name}: {} items", tree.len());
        compare(&std::fs::read_to_string(&listing).unwrap(), &tree, &mut device, name);
    }
}

#[test]
fn a_directory_may_fill_its_volume() {
    let test = "a_directory_may_fill_its_volume";
    if !is_root() || !has("mke2fs") || !has("mount") {
        return skipped(test, "not root, or no mke2fs or mount");
    }
    let scratch = Scratch::new("full");
    let (image, at) = (scratch.join("image"), scratch.join("mnt"));
    std::fs::create_dir(&at).unwrap();
    let args = ["-q", "-F", "-t", "ext4", "-O", "^has_journal", "-b", "1024", "-m", "0", "-N", "64"];
    run("mke2fs", &[&args[..], &[image.to_str().unwrap(), "5M"]].concat());
    let mut links: u64 = 0;
    match Mounted::new(&image, &at, "loop") {
        Ok(_mounted) => {
            std::fs::create_dir(at.join("d")).unwrap();
            std::fs::write(at.join("f"), "").unwrap();
            while std::fs::hard_link(at.join("f"), at.join(format!("d/{links}{}", "n".repeat(240)))).is_ok() {
                links += 1;
            }
        }
        Err(reason) => return unsupported(test, &format!("mount: {reason}")),
    }
    let mut device = TestDevice::file(&image);
    let mut volume = detect::open(&mut device).unwrap();
    let tree = collect(&mut device, volume.as_mut()).unwrap();
    let (_, whole) = tree.values().find(|(_, whole)| whole.names.len() > 3).unwrap();
    assert_eq!(whole.fault, None);
    assert_eq!(whole.names.len() as u64, links);
    assert!(whole.parts >= 3, "{links} names in {} parts", whole.parts);
}
