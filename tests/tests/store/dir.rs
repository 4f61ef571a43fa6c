//! The directory store: conformance, races between processes, death in the middle of a PUT, full and vanished disks.
//!
//! Other processes are the program `dir-writer`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests, and their helpers")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use windlass_agent::store::dir::{DirStore, LIST_BATCH_NAMES};
use windlass_agent::store::probe::probe;
use windlass_agent::store::throttle::Throttle;
use windlass_agent::store::{PutMode, Store, StoreFault, StoreFaultKind as Kind};
use windlass_hal::buf::Pool;
use windlass_hal::clock::{Clock, Instant, SystemClock};
use windlass_hal::volume::Timestamp;
use windlass_tests::conformance::store::{Extent, WHOLE, keys, run};
use windlass_tests::engines::clock::StepClock;
use windlass_tests::engines::scratch::Scratch;
use windlass_tests::engines::skip;
use windlass_tests::image::Tmpfs;

fn open(path: &Path) -> Result<DirStore, StoreFault> {
    open_with(path, Arc::new(SystemClock), 0)
}

fn open_with(path: &Path, clock: Arc<dyn Clock>, up_bytes_s: u64) -> Result<DirStore, StoreFault> {
    DirStore::open(path, u64::from(std::process::id()), Arc::new(Throttle::new(clock, up_bytes_s, 0)))
}

/// Keys that processes race for.
const RACES: u32 = 200;

/// Starts another process that writes into the store `path`/repo: see `dir-writer`.
fn spawn(path: &Path, role: &[&str]) -> Child {
    Command::new(env!("CARGO_BIN_EXE_dir-writer")).arg(path).args(role).spawn().unwrap()
}

/// Whether a body is one that `dir-writer die` put, all of it.
fn is_whole(body: &[u8]) -> bool {
    body.len() >= 8
        && u64::from_le_bytes(body[..8].try_into().unwrap()) == body.len() as u64
        && body[8..].windows(2).all(|pair| pair[0] == pair[1])
}

fn temps(repo: &Path) -> Vec<PathBuf> {
    match fs::read_dir(repo.join(".tmp")) {
        Ok(entries) => entries.map(|entry| entry.unwrap().path()).collect(),
        Err(_) => Vec::new(),
    }
}

#[test]
fn a_directory_says_the_time_of_what_it_stored() {
    let scratch = Scratch::new("dir-time");
    let store = open(scratch.path()).unwrap();
    assert_eq!(store.time(), None);
    store.put("empty", &[], PutMode::Replace).unwrap();
    assert_eq!(store.time(), None, "a file that nothing was written to may be older");
    let before = SystemClock.now().as_ns();
    store.put("a", &[b"body"], PutMode::CreateOnly).unwrap();
    let said = store.time().unwrap();
    assert!(said.at_ns >= before && said.at_ns <= SystemClock.now().as_ns());
    // A local directory has this machine's clock; an hour for one that is set while the test runs.
    assert!((said.wall_ns / 1_000_000_000).abs_diff(SystemClock.wall().secs) < 3600);
}

fn get(store: &dyn Store, key: &str) -> Result<Vec<u8>, Kind> {
    let mut out = Vec::new();
    store.get(key, WHOLE, &mut out).map_err(|fault| fault.kind)?;
    Ok(out)
}

#[test]
fn a_directory_conforms() {
    let scratch = Scratch::new("dir-conform");
    let store: Arc<dyn Store> = Arc::new(open(scratch.path()).unwrap());
    run(&store, "conf", Extent::default());
    probe(store.as_ref(), &SystemClock, 1).unwrap();
    assert!(temps(scratch.path()).is_empty());
}

#[test]
fn aligned_and_odd_bodies_are_stored_whole_either_way() {
    let scratch = Scratch::new("dir-direct");
    let pool = Pool::new(1, 4 << 20);
    let mut buf = pool.take().unwrap();
    for (n, byte) in buf.iter_mut().enumerate() {
        *byte = (n.wrapping_mul(2_654_435_761) >> 16) as u8;
    }
    for direct in [true, false] {
        let mut store = open(scratch.path()).unwrap();
        store.set_direct(direct);
        let splits: [&[usize]; 5] =
            [&[], &[4096], &[1], &[4096, 4097, 8192], &[1 << 20, (1 << 20) + 512, 2 << 20]];
        for end in [4 << 20, (4 << 20) - 1, (4 << 20) - 4096, (1 << 20) + 1, 1 << 20, (1 << 20) - 1] {
            for split in splits {
                let mut parts = Vec::new();
                let mut at = 0;
                for &cut in split.iter().chain([&end]) {
                    parts.push(&buf[at..cut.min(end).max(at)]);
                    at = cut.min(end).max(at);
                }
                store.put("a", &parts, PutMode::Replace).unwrap();
                assert!(get(&store, "a").unwrap() == buf[..end], "{direct} {end} {split:?}");
            }
        }
    }
}

#[test]
fn creates_race_between_processes_and_one_wins() {
    let scratch = Scratch::new("dir-race");
    fs::create_dir(scratch.path().join("repo")).unwrap();
    let mut children: Vec<Child> =
        (0..4).map(|_| spawn(scratch.path(), &["race", &RACES.to_string()])).collect();
    fs::write(scratch.path().join("go"), "").unwrap();
    let mut wins = 0;
    for child in &mut children {
        assert!(child.wait().unwrap().success());
        let path = scratch.path().join(format!("wins-{}", child.id()));
        wins += fs::read_to_string(path).unwrap().parse::<u32>().unwrap();
    }
    assert_eq!(wins, RACES);
    let store = open(&scratch.path().join("repo")).unwrap();
    for n in 0..RACES {
        let winner = String::from_utf8(get(&store, &format!("race/{n}")).unwrap()).unwrap();
        assert!(children.iter().any(|child| child.id().to_string() == winner), "{winner}");
    }
}

#[test]
fn a_killed_writer_leaves_whole_objects_and_its_temporary_files_go_with_the_next_open() {
    let scratch = Scratch::new("dir-kill");
    let repo = scratch.path().join("repo");
    fs::create_dir(&repo).unwrap();
    fs::write(scratch.path().join("go"), "").unwrap();
    let mut interrupted = 0;
    let mut objects = 0;
    for round in 0..12u64 {
        let mut child = spawn(scratch.path(), &["die"]);
        // Kill it at different points of its work: after so many objects of its own, and a little more.
        let dir = repo.join(format!("obj/{}", child.id()));
        while fs::read_dir(&dir).map_or(0, Iterator::count) < 2 + round as usize {
            std::thread::yield_now();
        }
        for _ in 0..round * 20_000 {
            std::hint::spin_loop();
        }
        child.kill().unwrap();
        child.wait().unwrap();
        interrupted += temps(&repo).len();
        let store = open(&repo).unwrap();
        assert!(temps(&repo).is_empty(), "the dead writer's temporary files are gone");
        let listed = keys(&store, "", "");
        objects = listed.len();
        for (key, size) in listed {
            let body = get(&store, &key).unwrap();
            assert!(is_whole(&body) && body.len() as u64 == size, "{key} is half written");
        }
    }
    assert!(objects > 24);
    println!("killed 12 writers, {interrupted} in the middle of a body, {objects} whole objects");
}

/// A clock whose sleepers wait for a gate: a throttled writer stands still in the middle of its body.
#[derive(Default)]
struct GateClock {
    open: Mutex<bool>,
    moved: Condvar,
    sleepers: AtomicUsize,
    ended: AtomicBool,
}

impl Clock for GateClock {
    fn now(&self) -> Instant {
        Instant::from_ns(1_000_000_000)
    }
    fn wall(&self) -> Timestamp {
        Timestamp { secs: 0, nanos: 0 }
    }
    fn sleep(&self, _: Duration) {
        self.sleepers.fetch_add(1, Ordering::SeqCst);
        let mut open = self.open.lock().unwrap();
        self.moved.notify_all();
        while !*open {
            open = self.moved.wait(open).unwrap();
        }
    }
}

#[test]
fn the_temporary_file_of_a_live_writer_is_not_cleaned_away() {
    let scratch = Scratch::new("dir-live");
    let clock = Arc::new(GateClock::default());
    let slow = open_with(scratch.path(), Arc::clone(&clock) as Arc<dyn Clock>, 1000).unwrap();
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let result = slow.put("a", &[&[7; 5000]], PutMode::CreateOnly);
            clock.ended.store(true, Ordering::SeqCst);
            result
        });
        let waits = |_: &mut bool| clock.sleepers.load(Ordering::SeqCst) == 0;
        drop(clock.moved.wait_while(clock.open.lock().unwrap(), waits).unwrap());
        // Looked at now and judged below: a panic here would leave the writer standing at the gate for ever.
        let before = temps(scratch.path()).len();
        let other = open(scratch.path());
        let after = temps(scratch.path());
        let seen = other.as_ref().map_or(Err(Kind::StoreGone), |other| get(other, "a"));
        // On a share without working locks it may vanish all the same; then nothing is published.
        let removed = after.iter().map(fs::remove_file).all(|result| result.is_ok());
        let ended = clock.ended.load(Ordering::SeqCst);
        *clock.open.lock().unwrap() = true;
        clock.moved.notify_all();
        let written = writer.join().unwrap();
        assert_eq!((before, after.len()), (1, 1), "its writer holds the lock");
        assert_eq!(seen, Err(Kind::NotFound), "nothing under the final name yet");
        assert!(removed && !ended);
        assert_eq!(written.unwrap_err().kind, Kind::Unknown);
        assert_eq!(get(&other.unwrap(), "a"), Err(Kind::NotFound));
    });
    slow.put("a", &[&[7; 5000]], PutMode::CreateOnly).unwrap();
    assert_eq!(get(&slow, "a"), Ok(vec![7; 5000]));
}

#[test]
fn a_vanished_root_is_gone_and_not_made_again() {
    let scratch = Scratch::new("dir-gone");
    let repo = scratch.path().join("repo");
    assert_eq!(open(&repo).err().unwrap().kind, Kind::StoreGone);
    assert!(!repo.exists(), "opening makes nothing");
    fs::create_dir(&repo).unwrap();
    let store = open(&repo).unwrap();
    store.put("a", &[b"x"], PutMode::Replace).unwrap();
    let all_gone = || {
        assert_eq!(store.put("b", &[b"x"], PutMode::CreateOnly).unwrap_err().kind, Kind::StoreGone);
        assert_eq!(get(&store, "a"), Err(Kind::StoreGone));
        assert_eq!(store.list("", "", &mut |_, _| true).unwrap_err().kind, Kind::StoreGone);
        assert_eq!(store.delete("a").unwrap_err().kind, Kind::StoreGone);
    };
    fs::rename(&repo, scratch.path().join("away")).unwrap();
    all_gone();
    fs::create_dir(&repo).unwrap();
    all_gone();
    assert_eq!(fs::read_dir(&repo).unwrap().count(), 0, "nothing was written into the other directory");
}

#[test]
fn what_is_not_ours_is_neither_listed_nor_in_the_way() {
    let scratch = Scratch::new("dir-foreign");
    let store = open(scratch.path()).unwrap();
    store.put("obj/a", &[b"x"], PutMode::Replace).unwrap();
    fs::create_dir(scratch.path().join("lost+found")).unwrap();
    fs::write(scratch.path().join("README"), "x").unwrap();
    fs::write(scratch.path().join("obj/.nfs0001"), "x").unwrap();
    std::os::unix::fs::symlink(scratch.path(), scratch.path().join("obj/loop")).unwrap();
    std::os::unix::fs::symlink("/none", scratch.path().join("obj/dangling")).unwrap();
    nix::unistd::mkfifo(&scratch.path().join("obj/fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let found: Vec<String> = keys(&store, "obj/", "").into_iter().map(|(key, _)| key).collect();
    assert!(found.contains(&"obj/a".to_owned()) && found.iter().all(|key| key.ends_with("/a")), "{found:?}");
    assert_eq!(get(&store, "obj"), Err(Kind::NotFound), "a directory is no object");
    assert_eq!(get(&store, "obj/fifo"), Err(Kind::NotFound), "and reading does not hang");
    assert_eq!(get(&store, "obj/a/b"), Err(Kind::NotFound));
    assert_eq!(store.put("obj/a/b", &[b"x"], PutMode::Replace).unwrap_err().kind, Kind::Rejected);
    assert_eq!(store.put("obj", &[b"x"], PutMode::Replace).unwrap_err().kind, Kind::Rejected);
    assert!(temps(scratch.path()).is_empty());
}

#[test]
fn a_directory_larger_than_a_batch_is_listed_in_order() {
    let scratch = Scratch::new("dir-batch");
    let store = open(scratch.path()).unwrap();
    fs::create_dir(scratch.path().join("k")).unwrap();
    let count = LIST_BATCH_NAMES + 1000;
    for n in 0..count {
        fs::File::create(scratch.path().join(format!("k/{:08x}", (n as u32).reverse_bits()))).unwrap();
    }
    let listed = keys(&store, "k/", "");
    assert!(listed.len() == count && listed.is_sorted());
    assert!(listed.windows(2).all(|pair| pair[0] < pair[1]));
}

/// A directory for one test, and a tmpfs over it. What is dropped first comes last.
fn tmpfs(name: &str, options: &str) -> Option<(Scratch, Tmpfs)> {
    if !windlass_tests::privilege::is_root() {
        skip(name, "mounting a tmpfs needs root");
        return None;
    }
    let scratch = Scratch::new(name);
    match Tmpfs::mount(scratch.path(), options) {
        Ok(tmpfs) => Some((scratch, tmpfs)),
        Err(why) => {
            skip(name, &why.to_string());
            None
        }
    }
}

#[test]
fn a_full_disk_is_full_and_keeps_what_it_has() {
    for options in ["size=4m", "size=64m,nr_inodes=8"] {
        let Some((_scratch, tmpfs)) = tmpfs("dir-full", options) else { return };
        let store = open(tmpfs.dir()).unwrap();
        store.put("a", &[b"kept"], PutMode::CreateOnly).unwrap();
        let body = vec![1; 3 << 20];
        let fault = (0..20).find_map(|n| store.put(&format!("b/{n}"), &[&body], PutMode::CreateOnly).err());
        assert_eq!(fault.unwrap().kind, Kind::Full, "{options}");
        assert_eq!(get(&store, "a"), Ok(b"kept".to_vec()));
        assert!(temps(tmpfs.dir()).is_empty(), "the failed body's space is free again");
        for (key, size) in keys(&store, "", "") {
            assert_eq!(get(&store, &key).unwrap().len() as u64, size);
            assert!(size == 4 || size == 3 << 20);
        }
        store.delete("b/0").unwrap();
        store.put("c", &[b"fits"], PutMode::CreateOnly).unwrap();
    }
}

#[test]
fn a_read_only_disk_is_called_so_and_an_unmounted_one_is_gone() {
    let Some((_scratch, tmpfs)) = tmpfs("dir-ro", "size=4m") else { return };
    let store = open(tmpfs.dir()).unwrap();
    store.put("a", &[b"x"], PutMode::Replace).unwrap();
    let flags = MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
    mount(None::<&str>, tmpfs.dir(), None::<&str>, flags, None::<&str>).unwrap();
    assert_eq!(store.put("b", &[b"x"], PutMode::Replace).unwrap_err().kind, Kind::ReadOnly);
    assert_eq!(store.delete("a").unwrap_err().kind, Kind::ReadOnly);
    assert_eq!(get(&store, "a"), Ok(b"x".to_vec()));
    umount2(tmpfs.dir(), MntFlags::empty()).unwrap();
    assert_eq!(store.put("b", &[b"x"], PutMode::Replace).unwrap_err().kind, Kind::StoreGone);
    assert_eq!(fs::read_dir(tmpfs.dir()).unwrap().count(), 0, "nothing is written into the mount point");
}

#[test]
fn a_beat_does_not_wait_behind_the_rate_limit_of_data() {
    let scratch = Scratch::new("store-dir-limit");
    let clock = Arc::new(StepClock::default());
    let begun = clock.now();
    let store = open_with(scratch.path(), Arc::clone(&clock) as Arc<dyn Clock>, 1 << 10).unwrap();
    for key in ["beat/1", "epoch/1", "log/1", "boundary/1"] {
        store.put(key, &[&[0; 64 << 10]], PutMode::Replace).unwrap();
        get(&store, key).unwrap();
    }
    assert_eq!(clock.now(), begun);
    store.put("obj/1", &[&[0; 64 << 10]], PutMode::Replace).unwrap();
    assert!(clock.now().saturating_since(begun) > Duration::from_secs(60));
}
