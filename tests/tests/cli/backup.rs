//! The command line's backups: volumes in any order or missing, a repository that another one works on, and signals.
#![allow(clippy::disallowed_methods, reason = "the test waits for other processes, with a deadline")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests, which say so by failing")]

use std::fs;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use windlass_tests::cli::Cli;
use windlass_tests::engines::faulty::{Fault, Faulty};
use windlass_tests::engines::scratch::Scratch;
use windlass_tests::fixture::noise;

/// Longest wait for another process to get somewhere.
const PATIENCE: Duration = Duration::from_secs(120);

fn cli(scratch: &Scratch) -> Cli {
    let cli = Cli::new(env!("CARGO_BIN_EXE_windlass-under-test")).with_repository(scratch.path());
    cli.ok(&["repo", "init"]);
    cli
}

/// An image file of noise: what `policy set` takes for it.
fn image(scratch: &Scratch, name: &str, seed: u64, bytes: usize) -> String {
    let path = scratch.path().join(name);
    fs::write(&path, noise(seed, bytes)).unwrap();
    format!("{}=image", path.display())
}

fn set(cli: &Cli, policy: &str, volumes: &[&String]) {
    let options = volumes.iter().flat_map(|volume| ["--volume", volume.as_str()]);
    cli.ok(&["policy", "set", policy].into_iter().chain(options).collect::<Vec<_>>());
}

fn start(cli: &Cli, arguments: &[&str]) -> Child {
    cli.command(arguments).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Waits until something is below a directory of the repository.
fn wait_for(scratch: &Scratch, dir: &str) {
    let (dir, begun) = (scratch.path().join("repository").join(dir), Instant::now());
    let is_there = |dir: &Path| fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_some());
    while !is_there(&dir) {
        assert!(begun.elapsed() < PATIENCE, "nothing in {}", dir.display());
        std::thread::yield_now();
    }
}

#[test]
fn volumes_may_be_listed_in_any_order_and_others_put_before_them() {
    let scratch = Scratch::new("cli-order");
    let cli = cli(&scratch);
    let [a, b] = [("a", 1), ("b", 2)].map(|(name, seed)| image(&scratch, name, seed, 300_000));
    set(&cli, "p", &[&b]);
    assert_eq!(cli.json(&["backup", "p"])["items"], 1);
    set(&cli, "p", &[&a, &b]);
    assert_eq!(cli.json(&["backup", "p"])["items"], 2);
    set(&cli, "p", &[&b, &a]);
    assert_eq!(cli.json(&["backup", "p"])["items"], 2);
}

#[test]
fn a_missing_volume_is_named_and_the_others_get_their_point() {
    let scratch = Scratch::new("cli-missing");
    let cli = cli(&scratch);
    let [a, b] = [("a", 1), ("b", 2)].map(|(name, seed)| image(&scratch, name, seed, 3_000_000));
    set(&cli, "p", &[&a, &b]);
    cli.ok(&["backup", "p"]);
    let (there, away) = (scratch.path().join("b"), scratch.path().join("away"));
    fs::rename(&there, &away).unwrap();
    image(&scratch, "a", 3, 3_000_000);

    let ended = cli.run(&["backup", "p", "--json"]);
    assert_eq!(ended.code, 3, "{}", ended.stderr);
    let done = ended.documents().pop().unwrap();
    assert_eq!(done["volumes_missing"][0]["device"], there.display().to_string());
    assert_eq!((&done["items"], &done["faults"]), (&1.into(), &0.into()));
    assert!(
        ended.failure().contains("/b") && ended.failure().contains("without this volume"),
        "{}",
        ended.stderr
    );
    let points = cli.json(&["points", "p"]);
    let point = |at: usize| &points["points"][at];
    assert_eq!((&point(0)["status"], &point(1)["status"]), (&"complete".into(), &"with_errors".into()));
    assert_eq!(point(1)["volumes_missing"][0]["device"], there.display().to_string());
    assert!(cli.ok(&["points", "p"]).contains("1 volume missing"));

    // A restore says where it is, and the point before still has it.
    let to = scratch.path().join("to").display().to_string();
    let device = there.display().to_string();
    let refused = cli.run(&["restore", "p@2", "--volume", &device, "--to", &to]);
    assert!(refused.code != 0 && refused.failure().contains("point 1 has it"), "{}", refused.stderr);
    // Nor does all of it pass for whole; what there is goes where it would with all volumes.
    let part = scratch.path().join("part");
    for command in [&["check", "p@2"][..], &["restore", "p@2", "--to", part.to_str().unwrap()]] {
        let ended = cli.run(command);
        assert!(ended.code == 3 && ended.stderr.contains("; point 1 has it"), "{}", ended.stderr);
    }
    let folders: Vec<_> = fs::read_dir(&part).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(folders.len() == 1 && folders[0].join("image").exists(), "{folders:?}");
    cli.ok(&["restore", "p@1", "--volume", &device, "--to", &to]);
    assert!(fs::read(scratch.path().join("to/image")).unwrap() == noise(2, 3_000_000));

    // Back again, it is compared with the point that has it.
    fs::rename(&away, &there).unwrap();
    let done = cli.json(&["backup", "p"]);
    assert_eq!(
        (&done["items"], &done["bytes_stored_plain"]),
        (&2.into(), &0.into()),
        "nothing is stored again"
    );
    assert_eq!(cli.json(&["points", "p"])["points"][2]["status"], "complete");

    fs::remove_file(&there).unwrap();
    fs::remove_file(scratch.path().join("a")).unwrap();
    let ended = cli.run(&["backup", "p"]);
    assert_eq!(ended.code, 1);
    assert!(ended.failure().contains("no volume of p can be opened"), "{}", ended.stderr);
}

#[test]
fn a_second_backup_goes_on_when_the_first_is_done() {
    let scratch = Scratch::new("cli-second");
    let cli = cli(&scratch);
    let [a, b] = [("a", 1, 60_000_000), ("b", 2, 300_000)]
        .map(|(name, seed, bytes)| image(&scratch, name, seed, bytes));
    set(&cli, "long", &[&a]);
    set(&cli, "short", &[&b]);
    let first = start(&cli, &["backup", "long", "--limit-up", "10MiB"]);
    wait_for(&scratch, "obj");
    let second = cli.run(&["backup", "short"]);
    assert_eq!(second.code, 0, "{}", second.stderr);
    assert!(
        second.stderr.contains("the repository is in use by a windlass command on "),
        "{}",
        second.stderr
    );
    let first = first.wait_with_output().unwrap();
    assert!(first.status.success(), "{}", String::from_utf8_lossy(&first.stderr));
}

#[test]
fn a_backup_waits_for_the_lock_no_longer_than_it_is_told_to() {
    let scratch = Scratch::new("cli-no-wait");
    let cli = cli(&scratch);
    let [a, b] = [("a", 1, 120_000_000), ("b", 2, 300_000)]
        .map(|(name, seed, bytes)| image(&scratch, name, seed, bytes));
    set(&cli, "long", &[&a]);
    set(&cli, "short", &[&b]);
    let first = start(&cli, &["backup", "long", "--limit-up", "1MiB"]);
    wait_for(&scratch, "obj");
    for (wait, at_least_s) in [(&["--no-wait"][..], 0), (&["--wait", "0"], 0), (&["--wait", "2s"], 2)] {
        let begun = Instant::now();
        let refused = cli.run(&[&["backup", "short"], wait].concat());
        assert!(refused.code != 0, "{wait:?}: {}", refused.stderr);
        assert!(
            refused.failure().contains("in use by a windlass command on "),
            "{wait:?}: {}",
            refused.stderr
        );
        // Whether the holder lives would take 16 s to find out.
        let took = begun.elapsed().as_secs();
        assert!((at_least_s..at_least_s + 8).contains(&took), "{wait:?}: {took} s");
    }
    kill(Pid::from_raw(first.id().try_into().unwrap()), Signal::SIGINT).unwrap();
    first.wait_with_output().unwrap();
}

#[test]
fn a_signal_ends_a_backup_with_its_number_and_says_what_is_kept() {
    for (signal, code) in [(Signal::SIGINT, 130), (Signal::SIGTERM, 143)] {
        let scratch = Scratch::new("cli-signal");
        let cli = cli(&scratch);
        let a = image(&scratch, "a", 1, 60_000_000);
        set(&cli, "p", &[&a]);
        let child = start(&cli, &["backup", "p", "--limit-up", "4MiB"]);
        wait_for(&scratch, "obj");
        kill(Pid::from_raw(child.id().try_into().unwrap()), signal).unwrap();
        let ended = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&ended.stderr);
        assert_eq!(ended.status.code(), Some(code), "{said}");
        assert!(said.contains("backup of p stopped; "), "{said}");
        let info = cli.json(&["repo", "info"]);
        assert_eq!(info["unfinished"], 1);
        assert!(cli.ok(&["repo", "info"]).contains("unfinished  backup 1 of p, "));
        // Nobody goes on with the backup of a policy that is removed.
        assert!(cli.ok(&["policy", "remove", "p"]).contains("its backup 1 had not ended and is given up"));
        assert_eq!(cli.json(&["repo", "info"])["unfinished"], 0);
    }
}

/// More requests than the test makes.
const ALWAYS: usize = 1 << 20;
/// The store is away for longer than a lease lasts, which is 15 s.
const AWAY: Duration = Duration::from_secs(20);

#[test]
fn a_store_that_is_away_for_longer_than_a_lease_does_not_end_a_backup() {
    let (scratch, server) = (Scratch::new("cli-away"), Faulty::start());
    let cli = Cli::new(env!("CARGO_BIN_EXE_windlass-under-test"))
        .with_repository(scratch.path())
        .with("WINDLASS_REPO", "s3://bucket/away")
        .with("WINDLASS_ENDPOINT", &server.s3.endpoint)
        .with("WINDLASS_CREDENTIALS_FILE", server.s3.credentials().to_str().unwrap());
    cli.ok(&["repo", "init", "--path-style"]);
    // Nothing proves of an image that it is as it was: it goes on because the same process had it open.
    let [a, b] = [("a", 1), ("b", 2)].map(|(name, seed)| image(&scratch, name, seed, 24_000_000));
    cli.ok(&["policy", "set", "p", "--path-style", "--volume", &a, "--volume", &b]);
    let child = start(&cli, &["backup", "p", "--path-style", "--limit-up", "4MiB"]);
    // The first of three objects or more is there.
    let begun = Instant::now();
    while server.stored("/obj/") == 0 {
        assert!(begun.elapsed() < PATIENCE, "{} requests", server.requests());
        std::thread::yield_now();
    }
    server.plan("", &Fault::Reset, ALWAYS);
    std::thread::sleep(AWAY);
    server.clear();
    let ended = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.success(), "{said}");
    assert!(said.contains("ran out") && said.contains("trying to get it back"), "{said}");
    let points = cli.json(&["points", "p", "--path-style"]);
    assert_eq!(points["points"].as_array().unwrap().len(), 1, "{points}");
    assert_eq!(points["points"][0]["status"], "complete");
    assert_eq!(cli.json(&["repo", "info", "--path-style"])["unfinished"], 0);
    cli.ok(&["check", "p", "--path-style", "--read-data"]);
}

#[test]
fn a_backup_takes_up_what_a_killed_one_has_left_of_its_policy_only() {
    let scratch = Scratch::new("cli-left");
    let cli = cli(&scratch);
    let [a, b] = [("a", 1, 40_000_000), ("b", 2, 300_000)]
        .map(|(name, seed, bytes)| image(&scratch, name, seed, bytes));
    set(&cli, "long", &[&a]);
    set(&cli, "short", &[&b]);
    let child = start(&cli, &["backup", "long", "--limit-up", "4MiB"]);
    // Behind what the policies wrote: the epoch, the backup, and what is kept of it.
    let (log, before, begun) = (scratch.path().join("repository/log"), 6, Instant::now());
    while fs::read_dir(&log).unwrap().count() < before + 3 {
        assert!(begun.elapsed() < PATIENCE, "{} slots", fs::read_dir(&log).unwrap().count());
        std::thread::yield_now();
    }
    kill(Pid::from_raw(child.id().try_into().unwrap()), Signal::SIGINT).unwrap();
    child.wait_with_output().unwrap();
    cli.ok(&["backup", "short"]);
    assert_eq!(cli.json(&["repo", "info"])["unfinished"], 1, "the other one is left alone");
    let done = cli.json(&["backup", "long"]);
    assert!(done["bytes_kept"].as_u64() > Some(0), "{done}");
    assert!(done["bytes_stored_plain"].as_u64() < Some(40_000_000), "{done}");
    assert_eq!(cli.json(&["repo", "info"])["unfinished"], 0);
}

/// Bytes of all upload objects of the repository that are stored.
fn stored_bytes(dir: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(dir) else { return 0 };
    // An entry may go while it is looked at.
    let size = |entry: fs::DirEntry| match entry.metadata() {
        Ok(meta) if meta.is_dir() => stored_bytes(&entry.path()),
        Ok(meta) => meta.len(),
        Err(_) => 0,
    };
    entries.map(|entry| size(entry.unwrap())).sum()
}

/// What is stored again after a kill is what five seconds of a slow uplink carry, and the object on its way: of an image too, which is one
/// item.
#[test]
fn a_kill_costs_five_seconds_of_a_slow_uplink() {
    const RATE: u64 = 2 << 20;
    const LEN: u64 = 40 << 20;
    let scratch = Scratch::new("cli-slow");
    let cli = cli(&scratch);
    let a = image(&scratch, "a", 3, LEN as usize);
    set(&cli, "p", &[&a]);
    let objects = scratch.path().join("repository/obj");
    let mut backup = start(&cli, &["backup", "p", "--limit-up", "2MiB"]);
    let begun = Instant::now();
    while stored_bytes(&objects) < 7 * RATE {
        assert!(begun.elapsed() < PATIENCE && backup.try_wait().unwrap().is_none());
        std::thread::sleep(Duration::from_millis(20));
    }
    backup.kill().unwrap();
    backup.wait().unwrap();
    let stored = stored_bytes(&objects);
    let said = cli.json(&["backup", "p"]);
    let again = stored_bytes(&objects).saturating_sub(LEN);
    println!("{stored} bytes stored, {again} of them again; {said}");
    assert!(again <= 6 * RATE, "{again} of {stored} bytes are stored again");
    assert!(said["bytes_kept"].as_u64().unwrap() > 0, "{said}");
}
