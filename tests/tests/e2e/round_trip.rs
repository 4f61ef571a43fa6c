//! From an ext4 image to objects and back: nothing may differ, whatever the tree holds and however it is stored.
//!
//! Needs root for what only a mounted image can show (`requires_root!`); the rest takes images that `mke2fs -d` made.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use windlass_tests::appliance::{
    Appliance, Setup, Source, dir_store, expect_clean, expect_equal, image_of, plant, whole_seconds,
};
use windlass_tests::error::output;
use windlass_tests::fixture::{Fixture, noise};
use windlass_tests::image::{Access, Mount};
use windlass_tests::requires_root;
use windlass_tests::tree::{Options, compare};
use windlass_tests::workdir::Workdir;

const IMAGE_BYTES: u64 = 64 << 20;
/// What the second backup of an unchanged image may upload: the log and a segment with the few rows that say so.
const UNCHANGED_BYTES_MAX: u64 = 256 << 10;

/// Backs an image up into a new repository and restores it beside.
fn there_and_back(work: &Workdir, name: &str, image: &Path, setup: Setup) -> (Appliance, std::path::PathBuf) {
    let appliance = Appliance::make(dir_store(&work.join(&format!("{name}-store"))).unwrap(), setup).unwrap();
    let source = Source::file_system(image);
    let report = appliance.backup(&source).unwrap();
    assert_eq!((report.totals.fault_count, &report.troubles[..]), (0, &[][..]));
    let restored = work.join(&format!("{name}-restored"));
    expect_clean(&appliance.restore(&source, None, &restored).unwrap()).unwrap();
    (appliance, restored)
}

#[test]
fn every_kind_of_item_and_real_files() {
    let test = "every_kind_of_item_and_real_files";
    requires_root!(test);
    let work = Workdir::new("e2e").unwrap();
    let image = work.join("image");
    Fixture::image(&image).unwrap().report(test);
    let mounted = work.join("mounted");
    {
        let mount = Mount::image(&image, &mounted, Access::ReadWrite).unwrap();
        // Real names, sizes, links and contents: some thousand files.
        let dirs = ["/usr/include/linux", "/usr/share/zoneinfo"];
        for (index, dir) in dirs.iter().filter(|dir| Path::new(dir).exists()).enumerate() {
            let to = mount.dir().join(format!("real-{index}"));
            output(Command::new("cp").arg("-a").arg(dir).arg(to)).unwrap();
        }
    }
    let (appliance, restored) = there_and_back(&work, "sealed", &image, Setup::default());
    let mount = Mount::image(&image, &mounted, Access::ReadOnly).unwrap();
    let same = compare(mount.dir(), &restored, &Options::default()).unwrap();
    assert!(same.differences.is_empty() && same.more == 0, "{same}");
    assert!(same.items > 21_000, "{}", same.items);

    // The unchanged image again: nothing is read, and next to nothing is stored.
    let before = appliance.client().counts().up_bytes;
    let again = appliance.backup(&Source::file_system(&image)).unwrap();
    let uploaded = appliance.client().counts().up_bytes - before;
    // What is too large for one window (the directory of 20,000 names) is not compared, and its rows are stored again.
    assert!(again.totals.items_same + 2 > again.totals.items, "{:?}", again.totals);
    assert_eq!((again.totals.read_bytes, again.totals.stored_plain_bytes), (0, 0), "{:?}", again.totals);
    assert!(uploaded < UNCHANGED_BYTES_MAX, "{uploaded}");
}

#[test]
fn block_sizes_compression_and_sealing() {
    let work = Workdir::new("e2e").unwrap();
    let (tree, image) = (work.dir("tree").unwrap(), work.join("image"));
    plant(&tree, 1, 4).unwrap();
    image_of(&tree, &image, IMAGE_BYTES).unwrap();
    for (block_bytes, level, encrypted) in [
        (4 << 10, Some(1), true),
        (4 << 10, None, false),
        (128 << 10, Some(3), false),
        (128 << 10, None, true),
        (1 << 20, Some(1), true),
        (4 << 20, Some(1), true),
        (4 << 20, None, false),
    ] {
        let memory = if block_bytes > 1 << 20 { 80 << 20 } else { 40 << 20 };
        let setup = Setup { block_bytes, level, encrypted, memory, ..Setup::default() };
        let name = format!("{block_bytes}-{level:?}-{encrypted}");
        let (appliance, restored) = there_and_back(&work, &name, &image, setup);
        expect_equal(&tree, &restored).unwrap_or_else(|why| panic!("{setup:?}: {why}"));
        // The point of the same image once more is as good.
        let source = Source::file_system(&image);
        let again = appliance.backup(&source).unwrap();
        assert_eq!((again.totals.items_same, again.totals.objects), (again.totals.items, 0));
        let twice = work.join(&format!("{name}-twice"));
        expect_clean(&appliance.restore(&source, None, &twice).unwrap()).unwrap();
        expect_equal(&tree, &twice).unwrap();
    }
}

#[test]
fn an_image_volume_comes_back_byte_for_byte() {
    let work = Workdir::new("e2e").unwrap();
    let (tree, image) = (work.dir("tree").unwrap(), work.join("image"));
    plant(&tree, 2, 2).unwrap();
    image_of(&tree, &image, 16 << 20).unwrap();
    let appliance = Appliance::make(dir_store(&work.join("store")).unwrap(), Setup::default()).unwrap();
    let source = Source::image(&image);
    appliance.backup(&source).unwrap();
    let restored = work.join("restored");
    expect_clean(&appliance.restore(&source, None, &restored).unwrap()).unwrap();
    assert!(fs::read(restored.join("image")).unwrap() == fs::read(&image).unwrap());
}

#[test]
fn a_changed_image_and_the_point_before() {
    let work = Workdir::new("e2e").unwrap();
    let (tree, image) = (work.dir("tree").unwrap(), work.join("image"));
    plant(&tree, 3, 3).unwrap();
    image_of(&tree, &image, IMAGE_BYTES).unwrap();
    let (appliance, restored) = there_and_back(&work, "first", &image, Setup::default());
    expect_equal(&tree, &restored).unwrap();
    let first = appliance.last_point().unwrap();
    let old = work.join("old");
    output(Command::new("cp").arg("-a").arg(&tree).arg(&old)).unwrap();

    // Overwritten in the middle, cut, grown, replaced; the image is made anew with the same inode numbers, and its times are whole
    // seconds: a change within the second of the last backup would not show.
    std::thread::sleep(Duration::from_millis(1100));
    let at = |name: &str| tree.join(name);
    let open = |name: &str| fs::File::options().write(true).open(at(name)).unwrap();
    open("dir-00/below/large").write_all_at(&noise(77, 5000), 700_001).unwrap();
    open("dir-00/below/words").set_len(300_000).unwrap();
    open("dir-01/below/large").write_all_at(&noise(78, 300_000), 1_400_000).unwrap();
    open("dir-01/below/sparse").write_all_at(&noise(79, 4096), 128 << 10).unwrap();
    open("dir-01/file-05").set_len(0).unwrap();
    fs::write(at("dir-02/file-06"), noise(80, 200_000)).unwrap();
    fs::write(at("dir-02/file-17"), noise(81, 9)).unwrap();
    whole_seconds(&tree).unwrap();
    image_of(&tree, &image, IMAGE_BYTES).unwrap();

    let source = Source::file_system(&image);
    let report = appliance.backup(&source).unwrap();
    assert_eq!(report.totals.fault_count, 0);
    let (now, before) = (work.join("now"), work.join("before"));
    expect_clean(&appliance.restore(&source, None, &now).unwrap()).unwrap();
    expect_equal(&tree, &now).unwrap();
    expect_clean(&appliance.restore(&source, Some(first), &before).unwrap()).unwrap();
    expect_equal(&old, &before).unwrap();
    // The new point over the old state: what differs is replaced, what is gone from the source stays.
    fs::remove_dir_all(before.join("dir-02")).unwrap();
    expect_clean(&appliance.restore(&source, Some(first), &before).unwrap()).unwrap();
    expect_equal(&old, &before).unwrap();
}

#[test]
fn changes_by_the_kernel() {
    requires_root!("changes_by_the_kernel");
    let work = Workdir::new("e2e").unwrap();
    let (tree, image) = (work.dir("tree").unwrap(), work.join("image"));
    plant(&tree, 4, 3).unwrap();
    image_of(&tree, &image, IMAGE_BYTES).unwrap();
    let (appliance, restored) = there_and_back(&work, "first", &image, Setup::default());
    expect_equal(&tree, &restored).unwrap();
    let (source, mounted) = (Source::file_system(&image), work.join("mounted"));
    for round in 0..3u64 {
        let first = appliance.last_point().unwrap();
        let older = work.join(&format!("older-{round}"));
        expect_clean(&appliance.restore(&source, None, &older).unwrap()).unwrap();
        {
            let mount = Mount::image(&image, &mounted, Access::ReadWrite).unwrap();
            let at = |name: &str| mount.dir().join(name);
            let large = fs::File::options().write(true).open(at("dir-00/below/large")).unwrap();
            large.write_all_at(&noise(round, 4096), 200_000 + round * 300_000).unwrap();
            // A hole is filled, and a tail is cut.
            let sparse = fs::File::options().write(true).open(at("dir-01/below/sparse")).unwrap();
            sparse.write_all_at(&noise(round, 100), 50_000 + round * 40_000).unwrap();
            sparse.set_len(400_000 - round * 50_000).unwrap();
            fs::rename(at(&format!("dir-01/file-{round:02}")), at(&format!("dir-02/new-{round}"))).unwrap();
            fs::remove_file(at(&format!("dir-02/file-{round:02}"))).unwrap();
            // Its inode is free now, and the next file takes it.
            fs::write(at(&format!("dir-02/reused-{round}")), noise(round, 50_000)).unwrap();
            fs::hard_link(at("dir-00/file-05"), at(&format!("dir-00/again-{round}"))).unwrap();
        }
        let report = appliance.backup(&source).unwrap();
        // All of it was written a moment ago, so it is read again; but only what changed is stored.
        assert!(report.totals.stored_plain_bytes < report.totals.item_bytes / 8, "{:?}", report.totals);
        let now = work.join(&format!("now-{round}"));
        expect_clean(&appliance.restore(&source, None, &now).unwrap()).unwrap();
        let mount = Mount::image(&image, &mounted, Access::ReadOnly).unwrap();
        let same = compare(mount.dir(), &now, &Options::default()).unwrap();
        assert!(same.is_equal(), "round {round}: {same}");
        let then = work.join(&format!("then-{round}"));
        expect_clean(&appliance.restore(&source, Some(first), &then).unwrap()).unwrap();
        expect_equal(&older, &then).unwrap();
    }
}
