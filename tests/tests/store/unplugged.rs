//! A repository's directory on a disk that can be unplugged: what is written when it goes, and what is written when another one is there.
//!
//! Needs root: mounts, loop devices.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests, and their helpers")]
#![allow(clippy::disallowed_methods, reason = "the test unplugs a disk in the middle of a write")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use windlass_agent::store::dir::DirStore;
use windlass_agent::store::throttle::Throttle;
use windlass_agent::store::{PutMode, Store, StoreFaultKind as Kind};
use windlass_hal::clock::{Clock, SystemClock};
use windlass_tests::conformance::store::keys;
use windlass_tests::engines::scratch::Scratch;
use windlass_tests::engines::skip;
use windlass_tests::image::{Access, Loop, Tmpfs, make_ext4};

fn open(path: &Path, up_bytes_s: u64) -> DirStore {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    DirStore::open(path, 1, Arc::new(Throttle::new(clock, up_bytes_s, 0))).unwrap()
}

/// Everything that a store does, at a disk that is not its own: named, and nothing done.
fn all_are_refused(store: &DirStore) {
    for fault in [
        store.put("log/1", &[b"x"], PutMode::CreateOnly).unwrap_err(),
        store.put("beat/1", &[b"x"], PutMode::Replace).unwrap_err(),
        store.get("log/1", windlass_tests::conformance::store::WHOLE, &mut Vec::new()).unwrap_err(),
        store.list("", "", &mut |_, _| true).unwrap_err(),
        store.delete("log/1").unwrap_err(),
    ] {
        assert_eq!(fault.kind, Kind::StoreGone, "{fault}");
        assert!(fault.to_string().contains("its disk was unmounted, or another one is there"), "{fault}");
    }
}

#[test]
fn a_disk_that_goes_in_the_middle_of_a_write_leaves_nothing_behind() {
    let name = "a_disk_that_goes_in_the_middle_of_a_write_leaves_nothing_behind";
    if !windlass_tests::privilege::is_root() {
        return skip(name, "mounting a tmpfs needs root");
    }
    let scratch = Scratch::new("dir-unplugged");
    let disk = match Tmpfs::mount(scratch.path(), "size=64m") {
        Ok(disk) => disk,
        Err(why) => return skip(name, &why.to_string()),
    };
    // A few seconds for the body: 8 MiB at 4 MiB/s.
    let store = Arc::new(open(disk.dir(), 4 << 20));
    store.put("log/1", &[b"first"], PutMode::CreateOnly).unwrap();
    let writer = Arc::clone(&store);
    let writing = thread::spawn(move || writer.put("obj/1", &[&vec![7; 8 << 20]], PutMode::CreateOnly));
    let temps = disk.dir().join(".tmp");
    let deadline = Instant::now() + Duration::from_secs(60);
    let under_way = || fs::read_dir(&temps).is_ok_and(|mut entries| entries.next().is_some());
    while !under_way() {
        assert!(Instant::now() < deadline, "the write begins");
        thread::sleep(Duration::from_millis(5));
    }
    umount2(disk.dir(), MntFlags::MNT_DETACH).unwrap();
    // Acknowledged or not: what was under way is on the disk that went, and not in its place.
    let _ = writing.join().unwrap();
    assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 0, "the mount point stays empty");
    all_are_refused(&store);
    assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 0, "the mount point stays empty");
    // Another disk at the same path.
    let other = Tmpfs::mount(scratch.path(), "size=4m").unwrap();
    all_are_refused(&store);
    assert_eq!(fs::read_dir(other.dir()).unwrap().count(), 0, "nothing is written to another disk");
    // The first one is gone for good; its guard finds nothing to unmount.
    drop(other);
    std::mem::forget(disk);
}

/// A loop device for this image, at a node that was another image's.
fn attach_at(node: &Path, image: &Path) -> bool {
    Command::new("losetup").arg(node).arg(image).status().is_ok_and(|status| status.success())
}

#[test]
fn another_disk_with_the_same_device_number_is_not_taken_for_the_store() {
    let name = "another_disk_with_the_same_device_number_is_not_taken_for_the_store";
    if !windlass_tests::privilege::is_root() {
        return skip(name, "loop devices need root");
    }
    let scratch = Scratch::new("dir-swapped");
    let place = scratch.path().join("disk");
    fs::create_dir(&place).unwrap();
    let images: Vec<PathBuf> = ["one", "other"].iter().map(|image| scratch.path().join(image)).collect();
    for image in &images {
        if let Err(why) = make_ext4(image, 16 << 20, None, &[]) {
            return skip(name, &why.to_string());
        }
    }
    let device = match Loop::attach(&images[0], Access::ReadWrite) {
        Ok(device) => device,
        Err(why) => return skip(name, &why.to_string()),
    };
    let node = device.device().to_path_buf();
    let plug = || mount(Some(&node), &place, Some("ext4"), MsFlags::empty(), None::<&str>);
    let unplug = || umount2(&place, MntFlags::empty()).unwrap();
    if let Err(why) = plug() {
        return skip(name, &format!("mount: {why}"));
    }
    let store = open(&place, 0);
    store.put("log/1", &[b"first"], PutMode::CreateOnly).unwrap();
    let number = device.number().unwrap();
    unplug();
    drop(device);
    if !attach_at(&node, &images[1]) {
        return skip(name, "another process took the loop device");
    }
    plug().unwrap();
    let seen = fs::metadata(&place).unwrap();
    println!("device {number}, root inode {}", std::os::unix::fs::MetadataExt::ino(&seen));
    all_are_refused(&store);
    let names: Vec<_> = fs::read_dir(&place).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    unplug();
    let detached = Command::new("losetup").arg("--detach").arg(&node).status();
    assert_eq!(names, ["lost+found"], "nothing is written to another disk");
    assert!(detached.is_ok_and(|status| status.success()));
    // Its own disk is known again.
    if attach_at(&node, &images[0]) {
        plug().unwrap();
        let found = keys(&store, "log/", "");
        let put = store.put("log/2", &[b"second"], PutMode::CreateOnly);
        unplug();
        let _ = Command::new("losetup").arg("--detach").arg(&node).status();
        assert_eq!((found, put), (vec![("log/1".to_owned(), 5)], Ok(())));
    }
}
