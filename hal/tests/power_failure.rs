//! What a power failure leaves. Random workloads (storm.py) run on a dozen disks of a guest until it loses its power,
//! longer than the guest's kernel waits with its own commits.
//!
//! Each volume is refused by name, with the way out. After the way out (the kernel replays the log, or e2fsck does) every inode, name,
//! attribute, extent and byte is what the guest's kernel finds. An XFS whose log says nothing, because nothing of the storm got that far
//! (it waits 30 seconds when nobody synchronises), may be read at once: then it is what the kernel finds after a replay.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;

use support::guest::{Guest, kept, listed};
use support::kernel::{Differences, differences};
use support::{Scratch, TestDevice, make_ext4, run, sound, xfs};
use windlass_hal::volume::{VolumeFault, detect};

/// Seconds for one boot of the guest.
const BOOT_SECONDS: u32 = 400;
/// How long the storm rages once it has made something: longer than the five seconds between ext4's own commits.
const STORM_MILLISECONDS: u32 = 9000;

/// Items that a volume holds on the average, at least: a storm that got nothing to its disk shows nothing.
const ITEMS_MIN: usize = 75;

/// mke2fs arguments. Each has a journal.
const EXT4: [&[&str]; 13] = [
    &[],
    &["-b", "1024"],
    &["-t", "ext3"],
    &["-t", "ext3", "-b", "1024"],
    &["-O", "inline_data"],
    &["-O", "inline_data,ea_inode", "-b", "1024", "-I", "512"],
    &["-O", "bigalloc", "-C", "16384"],
    &["-O", "quota,project"],
    &["-O", "^metadata_csum,uninit_bg"],
    &["-O", "orphan_file"],
    &["-O", "meta_bg,^resize_inode", "-b", "1024"],
    &["-J", "size=4"],
    &["-O", "large_dir,metadata_csum_seed", "-b", "2048"],
];

/// mkfs.xfs arguments.
const XFS: [&str; 12] = [
    "",
    "-b size=1k",
    "-b size=2k",
    "-b size=1k -n size=8k",
    "-i size=1024",
    "-m rmapbt=1",
    "-m reflink=0,finobt=0,inobtcount=0",
    "-m bigtime=0",
    "-i sparse=0",
    "-i nrext64=1",
    "-d agcount=8 -m rmapbt=1",
    "-l su=32k",
];

/// Keeps the images of a test that panics, and says where.
struct Evidence<'a>(&'a Scratch, &'a str);

impl Drop for Evidence<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let to = kept().join(self.1);
            let _ = std::fs::remove_dir_all(&to);
            let copied = Command::new("cp").args(["-r", "--sparse=always"]).arg(&self.0.0).arg(&to).status();
            eprintln!("images: {} ({copied:?})", to.display());
        }
    }
}

/// A copy of a disk, without what was never written.
fn copy(disk: &Path, to: &Path) {
    run("cp", &["--sparse=always", disk.to_str().unwrap(), to.to_str().unwrap()]);
}

/// Runs a storm on each of `disks`, which hold empty file systems.
fn storm(guest: &Guest, scratch: &Scratch, disks: &[PathBuf]) -> String {
    let mut job = String::new();
    for n in 0..disks.len() {
        job += &format!("storm {n} {n}\n");
    }
    job += &format!("kill {STORM_MILLISECONDS}\n");
    guest.boot(&scratch.0, &job, disks, BOOT_SECONDS)
}

/// What is said of a volume that is not read: why not, and the way out. `None`: it is read.
fn refusal(disk: &Path, said: &str) -> Option<(String, &'static str)> {
    match detect::open(&mut TestDevice::file(disk)) {
        Err(VolumeFault::Refused { what, way_out }) => Some((what, way_out)),
        Err(other) => panic!("{}: {other}: {said}", disk.display()),
        Ok(_) => None,
    }
}

/// Compares volumes with what the guest found: (image, listed as). Returns how many items they hold.
fn compare(scratch: &Scratch, names: &[(String, String)], said: &str) -> usize {
    let (mut items, mut wrong) = (0, Vec::new());
    for (name, listed_as) in names {
        match listed(scratch, listed_as) {
            Ok(listing) => {
                let (mut device, tree) = sound(&scratch.join(name), name);
                let found = differences(&listing, &tree, &mut device);
                if found != Differences::default() {
                    wrong.push(format!("{name}: differs: {found:?}"));
                }
                items += tree.len();
            }
            Err(why) => wrong.push(why),
        }
    }
    assert!(wrong.is_empty(), "{}\n{said}", wrong.join("\n"));
    assert!(
        items >= names.len() * ITEMS_MIN,
        "{items} items in {} volumes: the storms did nothing",
        names.len()
    );
    items
}

/// Replays the journal and clears orphans, as a boot does.
fn e2fsck(image: &Path) {
    let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
    let output = Command::new("e2fsck").arg("-p").arg(image).env("PATH", path).output().unwrap();
    // 1: it did something.
    let code = output.status.code().unwrap_or(i32::MAX);
    assert!(code <= 1, "e2fsck -p ends with {code}: {}", String::from_utf8_lossy(&output.stdout));
}

#[test]
fn ext4_is_refused_and_equal_after_either_way_out() {
    let test = "ext4_is_refused_and_equal_after_either_way_out";
    let Some(guest) = Guest::or_skip(test, &["mke2fs", "e2fsck"]) else { return };
    let scratch = Scratch::new("power-ext4");
    let _evidence = Evidence(&scratch, "power-ext4");
    let mut disks = Vec::new();
    for (n, args) in EXT4.iter().enumerate() {
        let disk = scratch.join(&format!("cut{n}"));
        make_ext4(&disk, args, "40M");
        disks.push(disk);
    }
    let said = storm(guest, &scratch, &disks);
    let (mut job, mut names) = (String::new(), Vec::new());
    for (n, disk) in disks.iter().enumerate() {
        let Some((what, way_out)) = refusal(disk, &said) else {
            panic!("{n}: read although its journal holds changes: {said}");
        };
        assert!(what.contains("needs_recovery") && way_out.contains("mount"), "{what}; {way_out}");
        copy(disk, &scratch.join(&format!("replayed{n}")));
        let repaired = scratch.join(&format!("repaired{n}"));
        copy(disk, &repaired);
        e2fsck(&repaired);
        job += &format!("replay replayed{n}\nwalk repaired{n}\n");
        names.extend([format!("replayed{n}"), format!("repaired{n}")].map(|name| (name.clone(), name)));
    }
    let said = guest.boot(&scratch.0, &job, &[], BOOT_SECONDS);
    let items = compare(&scratch, &names, &said);
    eprintln!("{} storms, {items} items equal after replay and after e2fsck", disks.len());
}

#[test]
fn xfs_is_refused_and_equal_after_the_kernel_replayed_its_log() {
    let test = "xfs_is_refused_and_equal_after_the_kernel_replayed_its_log";
    let Some(guest) = Guest::or_skip(test, &["mkfs.xfs"]) else { return };
    let scratch = Scratch::new("power-xfs");
    let _evidence = Evidence(&scratch, "power-xfs");
    let mut disks = Vec::new();
    for args in XFS {
        let disk = scratch.join(&format!("cut{}", disks.len()));
        match xfs::make(&disk, "160M", args, None) {
            Ok(()) => disks.push(disk),
            Err(why) => eprintln!("{args}: not known here: {why}"),
        }
    }
    let said = storm(guest, &scratch, &disks);
    let (mut job, mut names) = (String::new(), Vec::new());
    let mut refused = 0;
    for (n, disk) in disks.iter().enumerate() {
        let name = format!("replayed{n}");
        if let Some((what, way_out)) = refusal(disk, &said) {
            assert!(what.contains("dirty log") && way_out.contains("mount"), "{what}; {way_out}");
            refused += 1;
        } else {
            names.push((format!("cut{n}"), name.clone()));
        }
        copy(disk, &scratch.join(&name));
        job += &format!("replay {name}\n");
        names.push((name.clone(), name));
    }
    assert!(refused > 0, "no storm reached a log: {said}");
    let said = guest.boot(&scratch.0, &job, &[], BOOT_SECONDS);
    let items = compare(&scratch, &names, &said);
    eprintln!("{} storms, {refused} refused, {items} items equal", disks.len());
}
