//! SIGKILL at many moments of a backup and of a restore: the next run completes, and no file under its final name is half.
//!
//! The process that dies is this test binary again, as [`child`]: it kills itself at a chosen call to the store, or is killed
//! by the clock. Leases are two seconds here, so what comes next waits that long, and cases run beside each other.
#![allow(clippy::disallowed_methods, reason = "the test chooses moments to kill a process at")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests, and their helpers")]

use std::env;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use windlass_agent::store::Store;
use windlass_board::engine::host::HostClock;
use windlass_hal::clock::SystemClock;
use windlass_tests::appliance::{
    Appliance, Setup, Source, dir_store, expect_clean, expect_equal, image_of, plant,
};
use windlass_tests::error::output;
use windlass_tests::fixture::noise;
use windlass_tests::kill_store::KillStore;
use windlass_tests::store_fault::{FaultPlan, FaultStore};
use windlass_tests::workdir::Workdir;

const ROLE: &str = "WINDLASS_E2E_CHILD";
/// The test below that is the child.
const CHILD: &str = "crash::child";
const SIGKILL: i32 = 9;

/// Many commits and small objects: whatever is due every minute is due every 10 ms.
fn setup() -> Setup {
    let minute = 60_000_000_000;
    Setup { speed: 6_000, flush_interval_ns: minute / 2, block_bytes: 16 << 10, ..Setup::default() }
}

/// Not a test by itself: what the other tests start and kill.
#[test]
fn child() {
    let Ok(role) = env::var(ROLE) else { return };
    let path = |name: &str| PathBuf::from(env::var_os(name).unwrap());
    let number = |name: &str| env::var(name).unwrap().parse::<u64>().unwrap();
    let store = dir_store(&path("STORE")).unwrap();
    let source = match role.as_str() {
        "backup-image" => Source::image(&path("IMAGE")),
        _ => Source::file_system(&path("IMAGE")),
    };
    if role != "restore" {
        let store: Arc<dyn Store> =
            Arc::new(KillStore::new(store, number("AT"), number("WRITES") == 1, number("AFTER") == 1));
        Appliance::open(store, setup()).unwrap().backup(&source).unwrap();
    } else {
        // Slow enough that there are many moments.
        let plan = FaultPlan { delay_ns_max: 25_000_000, ..FaultPlan::default() };
        let store: Arc<dyn Store> = Arc::new(FaultStore::new(store, std::sync::Arc::new(SystemClock), plan));
        let one_lane = Setup { memory: 17 << 20, ..setup() };
        Appliance::open(store, one_lane).unwrap().restore(&source, None, &path("TO")).unwrap();
    }
}

fn start(role: &str, vars: &[(&str, &Path)], numbers: &[(&str, u64)]) -> Child {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args([CHILD, "--exact"]).env(ROLE, role).stdout(Stdio::null()).stderr(Stdio::null());
    command.envs(vars.iter().map(|(name, path)| (name, path.as_os_str())));
    command.envs(numbers.iter().map(|(name, number)| (name, number.to_string())));
    command.spawn().unwrap()
}

/// Runs `cases` on some threads: most of their time they wait for a lease.
fn side_by_side(cases: u64, case: impl Fn(u64) + Sync) {
    let next = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::SeqCst);
                    if at >= cases {
                        return;
                    }
                    case(at);
                }
            });
        }
    });
}

#[test]
fn a_backup_killed_at_any_call_is_completed_by_the_next() {
    const CASES: u64 = 12;
    let work = Workdir::new("e2e-crash").unwrap();
    let (tree, image) = (work.dir("tree").unwrap(), work.join("image"));
    plant(&tree, 1, 4).unwrap();
    image_of(&tree, &image, 32 << 20).unwrap();
    let source = Source::file_system(&image);

    // How many calls there are when nothing happens, and how much is read.
    let whole = dir_store(&work.join("whole")).unwrap();
    Appliance::make(Arc::clone(&whole), setup()).unwrap();
    let counting = Arc::new(KillStore::new(whole, u64::MAX, true, false));
    let shared: Arc<dyn Store> = Arc::<KillStore>::clone(&counting);
    let full = Appliance::open(shared, setup()).unwrap().backup(&source).unwrap();
    let calls = u64::MAX - counting.left();
    assert!(calls > 12, "{calls}: too few commits for this test to mean anything");

    let (killed, resumed, less) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    side_by_side(CASES, |case| {
        let store = work.join(&format!("store-{case}"));
        Appliance::make(dir_store(&store).unwrap(), setup()).unwrap();
        // The first and the last calls, and those between; every fourth case dies twice.
        let at = calls * case / (CASES - 1);
        for round in 0..1 + u64::from(case % 4 == 3) {
            let numbers = [("AT", at.saturating_sub(round * 3)), ("WRITES", 1), ("AFTER", case % 2)];
            let status = start("backup", &[("IMAGE", &image), ("STORE", &store)], &numbers).wait().unwrap();
            assert!(status.success() || status.signal() == Some(SIGKILL), "case {case}: {status}");
            killed.fetch_add(u64::from(status.signal() == Some(SIGKILL)), Ordering::SeqCst);
        }
        let appliance = Appliance::open(dir_store(&store).unwrap(), setup()).unwrap();
        let report = appliance.backup(&source).unwrap_or_else(|why| panic!("case {case} at {at}: {why}"));
        assert_eq!(report.totals.fault_count, 0, "case {case}");
        // Never more than everything, and less when something was committed.
        assert!(report.totals.read_bytes <= full.totals.read_bytes, "case {case}: {:?}", report.totals);
        resumed.fetch_add(u64::from(report.resumed), Ordering::SeqCst);
        less.fetch_add(u64::from(report.totals.read_bytes < full.totals.read_bytes), Ordering::SeqCst);
        let restored = work.join(&format!("restored-{case}"));
        expect_clean(&appliance.restore(&source, None, &restored).unwrap()).unwrap();
        expect_equal(&tree, &restored).unwrap_or_else(|why| panic!("case {case} at {at}: {why}"));
        // The one after looks once more at a file that a kill cut in two, and stores none of it; the next finds everything as it was.
        let again = appliance.backup(&source).unwrap().totals;
        assert!(
            again.items - again.items_same <= 1 && again.stored_plain_bytes == 0,
            "case {case}: {again:?}"
        );
        let again = appliance.backup(&source).unwrap().totals;
        assert_eq!(again.items_same, again.items, "case {case}: {again:?}");
    });
    let [killed, resumed, less] = [killed, resumed, less].map(AtomicU64::into_inner);
    println!("{calls} calls; {killed} kills, {resumed} backups resumed, {less} read less than everything");
    assert!(killed >= CASES / 2 && resumed > 0 && less > 0, "{killed} {resumed} {less}");
}

/// Sizes and numbers of the files of a tree.
fn many_files(tree: &Path, count: usize, bytes: usize) {
    for at in 0..count {
        let dir = tree.join(format!("{:03}", at / 500));
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join(format!("{at:05}")), noise(at as u64 + 1, bytes)).unwrap();
    }
}

/// Compares the contents of all files; returns how many there are.
fn equal_files(source: &Path, restored: &Path) -> u64 {
    let each = |entry: fs::DirEntry| {
        let other = restored.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => equal_files(&entry.path(), &other),
            false => {
                assert!(fs::read(entry.path()).unwrap() == fs::read(&other).unwrap(), "{}", other.display());
                1
            }
        }
    };
    fs::read_dir(source).unwrap().map(|entry| each(entry.unwrap())).sum()
}

/// Bytes of all upload objects below a store's directory.
fn object_bytes(dir: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(dir) else { return 0 };
    let size = |entry: fs::DirEntry| match entry.file_type().unwrap().is_dir() {
        true => object_bytes(&entry.path()),
        false => entry.metadata().unwrap().len(),
    };
    entries.map(|entry| size(entry.unwrap())).sum()
}

/// Large files, small files, and an image, whose state nothing proves: 128 MiB of each are 32 objects and a few. Each dies twice.
#[test]
fn a_kill_costs_sixteen_objects_at_most() {
    const KILLS: [u64; 2] = [14, 30];
    let work = Workdir::new("e2e-crash").unwrap();
    let trees = [(128, 1 << 20), (6_400, 20_000)].map(|(count, bytes)| {
        let (tree, image) = (work.join(&format!("tree-{count}")), work.join(&format!("image-{count}")));
        many_files(&tree, count, bytes);
        image_of(&tree, &image, 256 << 20).unwrap();
        (tree, image)
    });
    let plain = work.join("plain");
    fs::write(&plain, noise(7, 128 << 20)).unwrap();
    side_by_side(3, |case| {
        let (role, image) = match trees.get(case as usize) {
            Some((_, image)) => ("backup", image),
            None => ("backup-image", &plain),
        };
        let source = if role == "backup" { Source::file_system(image) } else { Source::image(image) };
        let (whole, store) = (work.join(&format!("whole-{case}")), work.join(&format!("store-{case}")));
        Appliance::make(dir_store(&whole).unwrap(), setup()).unwrap().backup(&source).unwrap();
        let once = object_bytes(&whole.join("obj"));
        Appliance::make(dir_store(&store).unwrap(), setup()).unwrap();
        for at in KILLS {
            let numbers = [("AT", at), ("WRITES", 1), ("AFTER", at % 2)];
            let status = start(role, &[("IMAGE", image), ("STORE", &store)], &numbers).wait().unwrap();
            assert_eq!(status.signal(), Some(SIGKILL), "case {case} at {at}");
        }
        let appliance = Appliance::open(dir_store(&store).unwrap(), setup()).unwrap();
        let report = appliance.backup(&source).unwrap();
        let more = object_bytes(&store.join("obj")) - once;
        let lost = 16 * u64::from(setup().object_bytes) * KILLS.len() as u64;
        println!("case {case}: {once} bytes at once, {more} more with {} kills; {report:?}", KILLS.len());
        assert!(more <= lost / 2 && report.kept_bytes > 0, "case {case}: {more} of {once}");
        assert_eq!(report.totals.fault_count, 0);
        let restored = work.join(&format!("restored-{case}"));
        expect_clean(&appliance.restore(&source, None, &restored).unwrap()).unwrap();
        match trees.get(case as usize) {
            Some((tree, _)) => assert_eq!(equal_files(tree, &restored), [128, 6_400][case as usize]),
            None => {
                let file = fs::read_dir(&restored).unwrap().next().unwrap().unwrap().path();
                assert!(fs::read(file).unwrap() == fs::read(&plain).unwrap());
            }
        }
        let state = appliance.view().unwrap().state;
        assert!(state.running.is_empty() && state.points.len() == 1, "what stopped is given up");
    });
}

/// The run that goes on has nothing to store and no begin to commit: it must not wait for anything.
#[test]
fn a_backup_of_an_unchanged_volume_killed_at_its_begin() {
    let work = Workdir::new("e2e-crash").unwrap();
    let (tree, image) = (work.dir("tree").unwrap(), work.join("image"));
    plant(&tree, 4, 1).unwrap();
    image_of(&tree, &image, 16 << 20).unwrap();
    let source = Source::file_system(&image);
    side_by_side(6, |case| {
        let store = work.join(&format!("store-{case}"));
        let appliance = Appliance::make(dir_store(&store).unwrap(), setup()).unwrap();
        appliance.backup(&source).unwrap();
        let numbers = [("AT", case), ("WRITES", 1), ("AFTER", 1)];
        start("backup", &[("IMAGE", &image), ("STORE", &store)], &numbers).wait().unwrap();
        let report = appliance.backup(&source).unwrap_or_else(|why| panic!("case {case}: {why}"));
        assert_eq!(report.totals.stored_plain_bytes, 0, "case {case}");
        let restored = work.join(&format!("restored-{case}"));
        expect_clean(&appliance.restore(&source, None, &restored).unwrap()).unwrap();
        expect_equal(&tree, &restored).unwrap_or_else(|why| panic!("case {case}: {why}"));
    });
}

#[test]
fn a_backup_killed_by_the_clock_is_completed_by_the_next() {
    const CASES: u64 = 4;
    let work = Workdir::new("e2e-crash").unwrap();
    let (tree, image) = (work.dir("tree").unwrap(), work.join("image"));
    plant(&tree, 2, 4).unwrap();
    image_of(&tree, &image, 32 << 20).unwrap();
    let source = Source::file_system(&image);
    side_by_side(CASES, |case| {
        let store = work.join(&format!("store-{case}"));
        Appliance::make(dir_store(&store).unwrap(), setup()).unwrap();
        let never = [("AT", u64::MAX), ("WRITES", 1), ("AFTER", 0)];
        let mut backup = start("backup", &[("IMAGE", &image), ("STORE", &store)], &never);
        std::thread::sleep(Duration::from_millis(30 + case * 110));
        backup.kill().unwrap();
        backup.wait().unwrap();
        let appliance = Appliance::open(dir_store(&store).unwrap(), setup()).unwrap();
        appliance.backup(&source).unwrap_or_else(|why| panic!("case {case}: {why}"));
        let restored = work.join(&format!("restored-{case}"));
        expect_clean(&appliance.restore(&source, None, &restored).unwrap()).unwrap();
        expect_equal(&tree, &restored).unwrap_or_else(|why| panic!("case {case}: {why}"));
    });
}

/// Compares every regular file below `dir` that has its final name with the source; returns how many there are.
fn finished_files_are_whole(source: &Path, dir: &Path) -> u64 {
    let mut whole = 0;
    let Ok(entries) = fs::read_dir(dir) else { return 0 };
    for entry in entries.map(Result::unwrap) {
        let name = entry.file_name();
        if name.to_string_lossy().starts_with(".windlass-restore-") {
            continue;
        }
        let (here, there) = (entry.path(), source.join(&name));
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            whole += finished_files_are_whole(&there, &here);
        } else if kind.is_file() {
            assert!(fs::read(&here).unwrap() == fs::read(&there).unwrap(), "half: {}", here.display());
            assert_eq!(
                here.metadata().unwrap().modified().unwrap(),
                there.metadata().unwrap().modified().unwrap()
            );
            whole += 1;
        }
    }
    whole
}

#[test]
fn a_restore_killed_at_any_moment_leaves_no_half_file() {
    const CASES: u32 = 8;
    let work = Workdir::new("e2e-crash").unwrap();
    let (tree, image, store) = (work.dir("tree").unwrap(), work.join("image"), work.join("store"));
    plant(&tree, 3, 6).unwrap();
    image_of(&tree, &image, 32 << 20).unwrap();
    let source = Source::file_system(&image);
    let appliance = Appliance::make(dir_store(&store).unwrap(), setup()).unwrap();
    appliance.backup(&source).unwrap();
    let vars = |to: &Path| start("restore", &[("IMAGE", &image), ("STORE", &store), ("TO", to)], &[]);
    let begun_ns = HostClock.boot_ns();
    let whole = work.join("whole");
    assert!(vars(&whole).wait().unwrap().success());
    let takes = Duration::from_nanos(HostClock.boot_ns() - begun_ns);
    expect_equal(&tree, &whole).unwrap();
    let mut between = 0;
    for case in 0..CASES {
        let to = work.join(&format!("to-{case}"));
        let mut restore = vars(&to);
        // Little has a name in the first half.
        std::thread::sleep(takes / 2 + takes / 2 * case / CASES);
        restore.kill().unwrap();
        restore.wait().unwrap();
        let files = finished_files_are_whole(&tree, &to);
        between += u64::from(files > 0 && files < 6 * 24);
        expect_clean(&appliance.restore(&source, None, &to).unwrap()).unwrap();
        expect_equal(&tree, &to).unwrap_or_else(|why| panic!("case {case}, {files} files: {why}"));
    }
    // A name that is missing, and one that is a file of its own, become links again.
    let name = |name: &str| whole.join(name);
    fs::remove_file(name("dir-00/below/link")).unwrap();
    fs::remove_file(name("dir-01/file-03")).unwrap();
    for torn in ["dir-02/file-03", "dir-03/below/link"] {
        fs::rename(name(torn), name("other")).unwrap();
        output(Command::new("cp").arg("-a").arg(name("other")).arg(name(torn))).unwrap();
        fs::remove_file(name("other")).unwrap();
    }
    expect_clean(&appliance.restore(&source, None, &whole).unwrap()).unwrap();
    expect_equal(&tree, &whole).unwrap();
    println!("{takes:?} each; {between} of {CASES} kills with some files there");
    assert!(between > 0);
}
