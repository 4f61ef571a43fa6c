//! Bits that flipped in the store, and sectors that cannot be read: named, and the rest comes back.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests, and their helpers")]
#![allow(clippy::single_range_in_vec_init, reason = "a list of one bad range")]

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use windlass_agent::format::record::{DamageNews, PointStatus, Record};
use windlass_agent::id::ObjectId;
use windlass_agent::log::names::NameSet;
use windlass_agent::restore::fault::Reason;
use windlass_agent::restore::walk::RestoreReport;
use windlass_tests::appliance::{
    Appliance, Setup, Source, dir_store, expect_clean, expect_equal, image_of, plant,
};
use windlass_tests::store_fault::FlippingStore;
use windlass_tests::tree::{Options, compare};
use windlass_tests::workdir::Workdir;

/// Every file below `dir`, with its size.
fn files(dir: &Path, out: &mut Vec<(PathBuf, u64)>) {
    for entry in fs::read_dir(dir).into_iter().flatten().map(Result::unwrap) {
        if entry.file_type().unwrap().is_dir() {
            files(&entry.path(), out);
        } else {
            out.push((entry.path(), entry.metadata().unwrap().len()));
        }
    }
    out.sort();
}

fn flip(path: &Path, at: u64) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at as usize] ^= 0x10;
    fs::write(path, bytes).unwrap();
}

/// The paths that a report names, other names of the same file with them.
fn named(report: &RestoreReport) -> BTreeSet<Vec<u8>> {
    report.faults.iter().map(|fault| fault.path.clone()).collect()
}

#[test]
fn one_bit_in_each_kind_of_object() {
    let work = Workdir::new("e2e-flip").unwrap();
    let (tree, image, store) = (work.dir("tree").unwrap(), work.join("image"), work.join("store"));
    plant(&tree, 1, 3).unwrap();
    image_of(&tree, &image, 32 << 20).unwrap();
    let source = Source::file_system(&image);
    for encrypted in [true, false] {
        let store = store.with_extension(encrypted.to_string());
        let setup = Setup { encrypted, ..Setup::default() };
        let appliance = Appliance::make(dir_store(&store).unwrap(), setup).unwrap();
        appliance.backup(&source).unwrap();
        let list = |name: &str| {
            let mut found = Vec::new();
            files(&store.join(name), &mut found);
            assert!(!found.is_empty(), "no {name}");
            found
        };
        // In frames: those files and no others are named and missing, all else is as it was.
        for (index, (object, size)) in list("obj").iter().enumerate() {
            for (part, at) in [("first", 100), ("middle", size / 2)] {
                flip(object, at);
                let to = work.join(&format!("frame-{encrypted}-{index}-{part}"));
                let report = appliance.restore(&source, None, &to).unwrap();
                let damaged = |fault: &windlass_agent::restore::fault::ItemFault| {
                    matches!(fault.reason, Reason::Damaged { .. } | Reason::OtherName(_))
                };
                assert!(report.faults.iter().all(damaged), "{:?}", report.faults);
                // All names of a damaged file are missing; the report has one of them.
                let mut skip = named(&report);
                assert!(!skip.is_empty(), "{} at {at}: nobody noticed", object.display());
                for name in skip.clone() {
                    let there = tree.join(std::ffi::OsStr::from_bytes(&name));
                    let ino = |path: &Path| {
                        use std::os::unix::fs::MetadataExt;
                        fs::symlink_metadata(path).map(|m| m.ino()).unwrap_or(0)
                    };
                    let mut all = Vec::new();
                    files(&tree, &mut all);
                    let twins = all.iter().filter(|(path, _)| ino(path) == ino(&there));
                    skip.extend(
                        twins.map(|(path, _)| {
                            path.strip_prefix(&tree).unwrap().as_os_str().as_bytes().to_vec()
                        }),
                    );
                }
                for name in &skip {
                    assert!(
                        !to.join(std::ffi::OsStr::from_bytes(name)).exists(),
                        "a damaged file has a name"
                    );
                }
                let options = Options {
                    root: false,
                    skip: skip.into_iter().chain([b"lost+found".to_vec()]).collect(),
                    ..Options::default()
                };
                let same = compare(&tree, &to, &options).unwrap();
                assert!(same.is_equal() && same.items > 20, "{same}");
                flip(object, at);
                expect_clean(&appliance.restore(&source, None, &to).unwrap()).unwrap();
                expect_equal(&tree, &to).unwrap();
            }
        }
        // Elsewhere: it is refused, or it is read around; never a wrong tree without a word.
        for kind in ["obj", "seg", "log", "format", "epoch"] {
            let mut found = Vec::new();
            if store.join(kind).is_file() {
                found.push((store.join(kind), fs::metadata(store.join(kind)).unwrap().len()));
            } else {
                files(&store.join(kind), &mut found);
            }
            println!("{kind}: {} objects", found.len());
            for (index, (path, size)) in found.iter().enumerate() {
                for at in [size / 3, size - 9, size - 1] {
                    flip(path, at);
                    let to = work.join(&format!("{encrypted}-{kind}-{index}-{at}"));
                    let opened = Appliance::open(dir_store(&store).unwrap(), setup);
                    match opened.and_then(|fresh| fresh.restore(&source, None, &to)) {
                        Ok(report) if report.fault_count == 0 => {
                            expect_equal(&tree, &to).unwrap();
                        }
                        // Of these there is a second copy.
                        other if !matches!(kind, "obj" | "seg") => panic!("{kind} {at}/{size}: {other:?}"),
                        Err(why) if kind == "seg" => {
                            assert!(why.to_string().contains("windlass repo rebuild"), "{why}");
                        }
                        Ok(report) => println!("{kind} {at}/{size}: {} faults", report.fault_count),
                        Err(why) => println!("{kind} {at}/{size}: {why}"),
                    }
                    flip(path, at);
                }
            }
        }
    }
}

#[test]
fn a_read_that_came_damaged_is_asked_for_again_before_it_is_damage() {
    let work = Workdir::new("e2e-flip").unwrap();
    let (tree, image) = (work.dir("tree").unwrap(), work.join("image"));
    plant(&tree, 4, 2).unwrap();
    image_of(&tree, &image, 32 << 20).unwrap();
    for (name, source) in [("files", Source::file_system(&image)), ("image", Source::image(&image))] {
        let store = dir_store(&work.join(&format!("{name}-store"))).unwrap();
        let appliance = Appliance::make(Arc::new(FlippingStore(store)), Setup::default()).unwrap();
        appliance.backup(&source).unwrap();
        let again = appliance.backup(&source).unwrap();
        assert_eq!(again.totals.stored_plain_bytes, 0, "the last point's tables were read");
        let to = work.join(&format!("to-{name}"));
        expect_clean(&appliance.restore(&source, None, &to).unwrap()).unwrap();
    }
}

/// What a check would write into the log of an object or segment that is missing, or damaged.
fn found(appliance: &Appliance, path: &Path, store: &Path, missing: bool) -> Record {
    let name = path.strip_prefix(store).unwrap().to_str().unwrap();
    let id: ObjectId = name.split_once('/').unwrap().1.parse().unwrap();
    let mut names = NameSet::default();
    assert!(names.insert(&id));
    let (missing, damaged) = if missing { (names, NameSet::default()) } else { (NameSet::default(), names) };
    let points = vec![appliance.last_point().unwrap()];
    Record::Damage(DamageNews { missing, damaged, points, ..DamageNews::default() })
}

#[test]
fn the_next_backup_stores_again_what_the_store_has_lost() {
    let work = Workdir::new("e2e-lost").unwrap();
    let (tree, image) = (work.dir("tree").unwrap(), work.join("device"));
    plant(&tree, 5, 2).unwrap();
    image_of(&tree, &image, 32 << 20).unwrap();
    for (name, source) in [("files", Source::file_system(&image)), ("image", Source::image(&image))] {
        for (how, kind, missing) in [
            ("gone", "obj", true),
            ("flipped", "obj", false),
            ("no-segment", "seg", true),
            ("segment", "seg", false),
        ] {
            let store = work.join(&format!("{name}-{how}-store"));
            let appliance = Appliance::make(dir_store(&store).unwrap(), Setup::default()).unwrap();
            appliance.backup(&source).unwrap();
            let mut objects = Vec::new();
            files(&store.join(kind), &mut objects);
            let (victim, size) = objects.swap_remove(0);
            // Of a segment the trailer: a backup need not read more of it.
            let at = if kind == "seg" { size - 9 } else { size / 2 };
            if missing {
                fs::remove_file(&victim).unwrap()
            } else {
                flip(&victim, at)
            }
            // Segments are found out by the backup itself; of objects somebody has to tell.
            if kind == "obj" {
                let unaware = appliance.backup(&source).unwrap();
                assert_eq!(unaware.totals.stored_plain_bytes, 0, "as before: nothing said that it is lost");
                appliance.commit(vec![found(&appliance, &victim, &store, missing)]).unwrap();
            }
            let again = appliance.backup(&source).unwrap();
            assert_eq!(again.lost.is_empty(), kind == "obj", "{name} {how}: {:?}", again.lost);
            assert!(again.totals.stored_plain_bytes > 0, "{name} {how}: nothing was stored again");
            let to = work.join(&format!("{name}-{how}"));
            expect_clean(&appliance.restore(&source, None, &to).unwrap()).unwrap();
            if name == "files" {
                expect_equal(&tree, &to).unwrap();
            } else {
                assert!(fs::read(to.join("image")).unwrap() == fs::read(&image).unwrap());
            }
            // Once: what was stored again is trusted, and of a lost object only what was in it.
            let all = appliance.backup(&source).unwrap();
            if kind == "obj" {
                assert_eq!(all.totals.stored_plain_bytes, 0, "{name} {how}");
                let state = appliance.view().unwrap().state;
                assert!(
                    !state.damage.points.contains(&all.backup)
                        && !state.damage.points.contains(&again.backup)
                );
                assert!(
                    state.damage.is_any() && state.damage.points.len() == 1,
                    "the old point stays damaged"
                );
            }
        }
    }
}

#[test]
fn sectors_that_cannot_be_read() {
    let work = Workdir::new("e2e-media").unwrap();
    let (tree, image) = (work.dir("tree").unwrap(), work.join("image"));
    plant(&tree, 2, 2).unwrap();
    image_of(&tree, &image, 32 << 20).unwrap();
    // Where the file's bytes are on the device: its noise is nowhere else.
    let (bytes, device) = (fs::read(tree.join("dir-01/below/large")).unwrap(), fs::read(&image).unwrap());
    let find = |from: usize| {
        let want = &bytes[from..from + 4096];
        (0..device.len()).step_by(4096).find(|&at| &device[at..at + 4096] == want).unwrap() as u64
    };
    let block = 100 * 4096;
    let at = find(block);
    let source = Source::file_system(&image).with_bad(&[at + 512..at + 1024]);
    let appliance = Appliance::make(dir_store(&work.join("store")).unwrap(), Setup::default()).unwrap();
    let report = appliance.backup(&source).unwrap();
    assert_eq!(report.totals.fault_count, 1, "{:?}", report.troubles);
    println!("{:?}", report.troubles);
    let view = appliance.view().unwrap();
    assert_eq!(view.state.points[&report.backup].status, PointStatus::WithErrors);

    let to = work.join("to");
    let restored = appliance.restore_with(&source, None, &to, true).unwrap();
    let said: Vec<String> = restored.faults.iter().map(ToString::to_string).collect();
    println!("{said:?}");
    assert_eq!(named(&restored), BTreeSet::from([b"dir-01/below/large".to_vec()]), "{said:?}");
    let mut expected = bytes.clone();
    expected[block..block + 4096].fill(0);
    assert!(fs::read(to.join("dir-01/below/large")).unwrap() == expected, "more or less is lost than 4 KiB");
    let skip = vec![b"dir-01/below/large".to_vec(), b"lost+found".to_vec()];
    let same = compare(&tree, &to, &Options { root: false, skip, ..Options::default() }).unwrap();
    assert!(same.is_equal(), "{same}");

    // The disk is repaired: the next backup reads the file again and has all of it.
    let healthy = Source::file_system(&image);
    assert_eq!(appliance.backup(&healthy).unwrap().totals.fault_count, 0);
    let healed = work.join("healed");
    expect_clean(&appliance.restore(&healthy, None, &healed).unwrap()).unwrap();
    expect_equal(&tree, &healed).unwrap();
}

#[test]
fn metadata_that_cannot_be_read() {
    let work = Workdir::new("e2e-media").unwrap();
    let (tree, image) = (work.dir("tree").unwrap(), work.join("image"));
    plant(&tree, 3, 2).unwrap();
    image_of(&tree, &image, 32 << 20).unwrap();
    let device = fs::read(&image).unwrap();
    // A directory's block: it holds this name, and the one beside it.
    let has = |name: &[u8], block: &[u8]| block.windows(name.len()).any(|part| part == name);
    let at = (0..device.len()).step_by(4096).find(|&at| {
        let block = &device[at..at + 4096];
        has(b"words", block) && has(b"sparse", block) && has(b"symlink", block)
    });
    let at = at.unwrap() as u64;
    let source = Source::file_system(&image).with_bad(&[at..at + 4096]);
    let appliance = Appliance::make(dir_store(&work.join("store")).unwrap(), Setup::default()).unwrap();
    let report = appliance.backup(&source).unwrap();
    println!("{:?}", report.troubles);
    assert!(report.totals.fault_count > 0);
    let view = appliance.view().unwrap();
    assert_eq!(view.state.points[&report.backup].status, PointStatus::WithErrors);
    let to = work.join("to");
    let restored = appliance.restore_with(&source, None, &to, true).unwrap();
    println!("{:?}", restored.faults.iter().map(ToString::to_string).collect::<Vec<_>>());
    assert!(restored.fault_count > 0);
    // What the unreadable block listed is gone with it; everything else is there.
    let lost: Vec<Vec<u8>> = ["dir-00/below", "dir-01/below"]
        .iter()
        .filter(|dir| !to.join(dir).join("large").exists())
        .map(|dir| dir.as_bytes().to_vec())
        .collect();
    assert_eq!(lost.len(), 1);
    let lost_dir = String::from_utf8(lost[0].clone()).unwrap();
    let twin = lost_dir.replace("below", "file-03").into_bytes();
    let skip = vec![lost[0].clone(), twin, b"lost+found".to_vec()];
    let same = compare(&tree, &to, &Options { root: false, skip, ..Options::default() }).unwrap();
    assert!(same.is_equal(), "{same}");
}
