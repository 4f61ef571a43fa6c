//! The volume suite on every reader: ext4 raw, the whole device as one item, and what the kernel mounts.
#![allow(clippy::unwrap_used, reason = "helpers of tests, which say so by failing")]

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use windlass_hal::linux::{self, Access as DeviceAccess};
use windlass_hal::volume::image::Image;
use windlass_hal::volume::mounted::{Mounted, Recovery};
use windlass_hal::volume::verify::{Choice, verify};
use windlass_hal::volume::{Cursor, Volume, Window, detect};
use windlass_tests::conformance::volume::{Opened, Subject, run};
use windlass_tests::error::output;
use windlass_tests::fixture::Fixture;
use windlass_tests::image::{Access, Kind, Mount, make_empty};
use windlass_tests::privilege::skip;
use windlass_tests::requires_root;
use windlass_tests::workdir::Workdir;

const IMAGE_BYTES: u64 = 512 << 20;
/// Extents of one file: more than two windows hold.
const FRAGMENTS: u64 = 10_000;

fn open(
    image: &Path,
    how: &mut dyn FnMut(&mut dyn windlass_hal::block::BlockDevice) -> Box<dyn Volume>,
) -> Opened {
    let mut device = linux::open(image, DeviceAccess::Read, 4, &[]).unwrap();
    let volume = how(&mut *device);
    Opened { device, volume }
}

fn mounted(image: &Path) -> Opened {
    open(image, &mut |device| Box::new(Mounted::open(image, device, Recovery::Refused).unwrap()))
}

#[test]
fn ext4_raw_and_as_an_image() {
    let test = "ext4_raw_and_as_an_image";
    let work = Workdir::new("volumes").unwrap();
    let image = work.join("image");
    Fixture::image(&image).unwrap().report(test);
    let mut raw = || open(&image, &mut |device| detect::open(device).unwrap());
    run(&mut Subject { name: "ext4 raw", open: &mut raw, is_tree: true });
    let mut whole = || open(&image, &mut |device| Box::new(Image::open(device)));
    run(&mut Subject { name: "image", open: &mut whole, is_tree: false });
    let mut with_map = || {
        open(&image, &mut |device| {
            let mut volume = detect::open(device).unwrap();
            Box::new(Image::with_used(device, &mut *volume).unwrap())
        })
    };
    run(&mut Subject { name: "image with a map", open: &mut with_map, is_tree: false });
}

/// An image of that kind, filled; `None` (loudly) where it cannot be made.
fn filled(test: &str, kind: Kind, work: &Workdir) -> Option<PathBuf> {
    if let Some(why) = kind.missing() {
        skip(test, &why);
        return None;
    }
    let image = work.join("image");
    make_empty(kind, &image, IMAGE_BYTES).unwrap();
    let mount = Mount::image_of(kind, &image, &work.join("mounted"), Access::ReadWrite, None).unwrap();
    Fixture::volume(mount.dir()).unwrap().report(test);
    // Extents for several windows.
    let fragments = File::create(mount.dir().join("fragments")).unwrap();
    for block in (0..2 * FRAGMENTS).step_by(2) {
        fragments.write_all_at(&block.to_le_bytes(), block * 4096).unwrap();
    }
    Some(image)
}

#[test]
fn ext4_mounted_and_the_same_as_raw() {
    let test = "ext4_mounted_and_the_same_as_raw";
    requires_root!(test);
    let work = Workdir::new("volumes").unwrap();
    let Some(image) = filled(test, Kind::Ext4, &work) else { return };
    run(&mut Subject { name: "ext4 mounted", open: &mut || mounted(&image), is_tree: true });
    let mut raw = open(&image, &mut |device| detect::open(device).unwrap());
    let mut kernel = mounted(&image);
    let mut found = Vec::new();
    let sums = verify(
        &mut *raw.volume,
        &mut *kernel.volume,
        &mut *raw.device,
        Choice::All,
        &|| false,
        &mut |difference| found.push(difference),
    );
    assert_eq!(found, []);
    let sums = sums.unwrap();
    assert!(sums.items > 21_000 && sums.bytes > 50 << 20, "{sums:?}");
}

#[test]
fn xfs_mounted() {
    let test = "xfs_mounted";
    requires_root!(test);
    let work = Workdir::new("volumes").unwrap();
    let Some(image) = filled(test, Kind::Xfs, &work) else { return };
    run(&mut Subject { name: "xfs mounted", open: &mut || mounted(&image), is_tree: true });
}

#[test]
fn a_frozen_xfs_is_mounted_only_when_its_log_is_proven() {
    let test = "a_frozen_xfs_is_mounted_only_when_its_log_is_proven";
    requires_root!(test);
    let work = Workdir::new("volumes").unwrap();
    if let Some(why) = Kind::Xfs.missing() {
        return skip(test, &why);
    }
    let (image, snapshot) = (work.join("image"), work.join("snapshot"));
    make_empty(Kind::Xfs, &image, 320 << 20).unwrap();
    {
        let at = work.join("mounted");
        let mount = Mount::image_of(Kind::Xfs, &image, &at, Access::ReadWrite, None).unwrap();
        fs::write(mount.dir().join("file"), vec![1; 5000]).unwrap();
        output(Command::new("fsfreeze").arg("--freeze").arg(&at)).unwrap();
        let copied = fs::copy(&image, &snapshot);
        output(Command::new("fsfreeze").arg("--unfreeze").arg(&at)).unwrap();
        copied.unwrap();
    }
    let open = |recovery| {
        let mut device = linux::open(&snapshot, DeviceAccess::Read, 4, &[]).unwrap();
        Mounted::open(&snapshot, &mut *device, recovery).map(|volume| (device, volume))
    };
    // Freezing leaves a log with the superblock in it, which to the kernel is a log.
    let refused = open(Recovery::Refused).err().unwrap().to_string();
    assert!(refused.contains("log") && refused.contains("writable clone"), "{refused}");
    let (mut device, mut volume) = open(Recovery::ProvenClean).unwrap();
    let mut window = Window::default();
    volume.sweep(&mut *device, Cursor::default(), &mut window).unwrap();
    assert_eq!(window.items.len(), 2);
}

#[test]
fn btrfs_mounted_with_subvolumes() {
    let test = "btrfs_mounted_with_subvolumes";
    requires_root!(test);
    let work = Workdir::new("volumes").unwrap();
    let Some(image) = filled(test, Kind::Btrfs, &work) else { return };
    {
        let at = work.join("mounted");
        let mount = Mount::image_of(Kind::Btrfs, &image, &at, Access::ReadWrite, None).unwrap();
        for words in [
            &["subvolume", "create", "one"][..],
            &["subvolume", "create", "one/below"],
            &["subvolume", "snapshot", "-r", "one", "snapshot"],
            &["subvolume", "create", "gone"],
            &["subvolume", "create", "last"],
            &["subvolume", "delete", "--commit-after", "gone"],
            &["subvolume", "set-default", "one"],
        ] {
            output(Command::new("btrfs").args(words).current_dir(mount.dir())).unwrap();
        }
        fs::write(mount.dir().join("one/below/file"), vec![7; 100_000]).unwrap();
        fs::write(mount.dir().join("last/file"), "last").unwrap();
    }
    run(&mut Subject { name: "btrfs mounted", open: &mut || mounted(&image), is_tree: true });
}
