//! Garbage by the command line: what expires gives its space back, and what is kept stays whole, whatever happens to a run.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests, which say so by failing")]
#![allow(clippy::disallowed_methods, reason = "the test chooses moments to kill a process at")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use windlass_tests::cli::Cli;
use windlass_tests::engines::scratch::Scratch;
use windlass_tests::fixture::noise;

/// Bytes of the image: many blocks, few seconds.
const IMAGE_BYTES: usize = 6 << 20;
const BLOCK_BYTES: usize = 64 << 10;

/// Blocks at the beginning that never change: later points share them with the first.
const STABLE_BLOCKS: usize = 12;

/// The image as it is for a backup: all blocks behind the stable ones are new, and some of them zero, so that objects of a point die with it.
fn change(image: &mut [u8], round: u64) {
    for at in STABLE_BLOCKS..IMAGE_BYTES / BLOCK_BYTES {
        let part = &mut image[at * BLOCK_BYTES..(at + 1) * BLOCK_BYTES];
        match (at as u64 + round) % 11 {
            0 => part.fill(0),
            _ => part.copy_from_slice(&noise(round * 1000 + at as u64, BLOCK_BYTES)),
        }
    }
}

/// Three blocks in eleven are new, all over the image: objects of a point die bit by bit.
fn scatter(image: &mut [u8], round: u64) {
    let is_new = |at: u64| (at * at * 7 + round * round * 3 + at * round * 5) % 11 < 3;
    for at in (0..IMAGE_BYTES / BLOCK_BYTES).filter(|at| is_new(*at as u64)) {
        let part = &mut image[at * BLOCK_BYTES..(at + 1) * BLOCK_BYTES];
        part.copy_from_slice(&noise(round * 1000 + at as u64 + 1, BLOCK_BYTES));
    }
}

/// As [`scatter`], of blocks that take a fifth of their length when they are compressed: those at the beginning of a frame look as if they were all
/// of it.
fn scatter_text(image: &mut [u8], round: u64) {
    let is_new = |at: u64| (at * at * 7 + round * round * 3 + at * round * 5) % 11 < 3;
    for at in (0..IMAGE_BYTES / BLOCK_BYTES).filter(|at| is_new(*at as u64)) {
        let part = &mut image[at * BLOCK_BYTES..(at + 1) * BLOCK_BYTES];
        let some = noise(round * 1000 + at as u64 + 1, BLOCK_BYTES / 5);
        part.fill(b' ');
        part[..some.len()].copy_from_slice(&some);
    }
}

struct Repository {
    scratch: Scratch,
    cli: Cli,
    image: PathBuf,
    /// Contents of the image at each point, from point 1 on.
    was: Vec<Vec<u8>>,
}

impl Repository {
    fn new(name: &str) -> Repository {
        let scratch = Scratch::new(name);
        let cli = Cli::new(env!("CARGO_BIN_EXE_windlass-under-test")).with_repository(scratch.path());
        cli.ok(&["repo", "init"]);
        let image = scratch.path().join("image");
        let mut bytes = noise(0, IMAGE_BYTES);
        bytes[BLOCK_BYTES * 3..BLOCK_BYTES * 6].fill(0);
        fs::write(&image, bytes).unwrap();
        let volume = format!("{}=image", image.display());
        cli.ok(&[
            "policy",
            "set",
            "p",
            "--volume",
            &volume,
            "--block-size",
            "64KiB",
            "--object-size",
            "4MiB",
        ]);
        Repository { scratch, cli, image, was: Vec::new() }
    }

    fn backup(&mut self) {
        self.backup_of(change);
    }

    fn backup_of(&mut self, change: fn(&mut [u8], u64)) {
        let round = self.was.len() as u64 + 1;
        let mut bytes = fs::read(&self.image).unwrap();
        change(&mut bytes, round);
        fs::write(&self.image, &bytes).unwrap();
        self.cli.ok(&["backup", "p"]);
        self.was.push(bytes);
    }

    fn expire_but(&self, points: &[usize]) {
        for point in (1..=self.was.len()).filter(|point| !points.contains(point)) {
            let name = format!("p@{point}");
            let listed = self.cli.run(&["points", "p"]);
            if listed.stdout.lines().any(|line| line.split_whitespace().next() == Some(&point.to_string())) {
                self.cli.ok(&["point", "expire", &name]);
            }
        }
    }

    /// Each of these points is what it was, and whole.
    fn expect(&self, points: &[usize]) {
        for point in points {
            let name = format!("p@{point}");
            self.cli.ok(&["check", &name, "--read-data"]);
            let to = self.scratch.path().join(format!("restored-{point}"));
            self.cli.ok(&["restore", &name, "--to-device", to.to_str().unwrap()]);
            assert!(fs::read(&to).unwrap() == self.was[point - 1], "point {point}");
            fs::remove_file(&to).unwrap();
        }
    }

    /// Bytes of blocks that these points need, each once, as nothing here can be compressed.
    fn needed(&self, points: &[usize]) -> u64 {
        let blocks = points.iter().flat_map(|point| self.was[point - 1].chunks(BLOCK_BYTES));
        let all: BTreeSet<&[u8]> = blocks.filter(|block| block.iter().any(|byte| *byte != 0)).collect();
        (all.len() * BLOCK_BYTES) as u64
    }

    /// Bytes below a prefix of the store.
    fn stored(&self, prefix: &str) -> u64 {
        fn walk(dir: &Path) -> u64 {
            let entries = fs::read_dir(dir).map(|all| all.flatten().collect::<Vec<_>>()).unwrap_or_default();
            let size = |entry: &fs::DirEntry| match entry.path().is_dir() {
                true => walk(&entry.path()),
                false => entry.metadata().map_or(0, |meta| meta.len()),
            };
            entries.iter().map(size).sum()
        }
        walk(&self.scratch.path().join("repository").join(prefix))
    }
}

#[test]
fn space_of_expired_points_comes_back_and_kept_points_stay_whole() {
    let mut repository = Repository::new("cli-garbage");
    (0..12).for_each(|_| repository.backup());
    let full = repository.stored("obj");
    let cli = repository.cli.clone();

    // Nothing has expired.
    let dry = cli.json(&["gc", "--dry-run"]);
    assert_eq!((&dry["dead_objects"], &dry["dying_objects"]), (&0.into(), &0.into()), "{dry}");
    repository.expire_but(&[10, 11, 12]);
    let dry = cli.json(&["gc", "--dry-run"]);
    assert!(dry["dying_objects"].as_u64().unwrap() > 3, "{dry}");
    assert_eq!(repository.stored("obj"), full, "a dry run deletes nothing");

    // The window holds everything back.
    let first = cli.json(&["gc"]);
    assert_eq!((&first["deleted_bytes"], &first["faults"]), (&0.into(), &0.into()), "{first}");
    assert!(first["waiting_bytes"].as_u64().unwrap() > 0 && repository.stored("obj") >= full, "{first}");
    repository.expect(&[10, 11, 12]);

    cli.ok(&["repo", "set", "--gc-window", "0s"]);
    let second = cli.json(&["gc"]);
    assert!(second["deleted_bytes"].as_u64().unwrap() > 0, "{second}");
    assert_eq!(second["waiting_bytes"], 0, "{second}");
    let left = repository.stored("obj");
    assert!(left < full / 2, "{left} of {full}");
    repository.expect(&[10, 11, 12]);
    // Rows whose only home was deleted are in the objects that are left.
    cli.ok(&["repo", "rebuild"]);
    repository.expect(&[10, 11, 12]);

    // Backups go on, with what is left of the blocks that they share.
    repository.backup();
    repository.expect(&[10, 12, 13]);
    repository.expire_but(&[13]);
    let third = cli.json(&["gc"]);
    assert!(third["deleted_bytes"].as_u64().unwrap() > 0 && repository.stored("obj") < left, "{third}");
    repository.expect(&[13]);
    cli.ok(&["repo", "rebuild"]);
    repository.expect(&[13]);
    let info = cli.ok(&["repo", "info"]);
    assert!(info.contains("still to come back"), "{info}");
}

#[test]
fn what_is_live_moves_out_of_objects_that_are_mostly_dead() {
    let mut repository = Repository::new("cli-garbage-move");
    (0..10).for_each(|_| repository.backup_of(scatter));
    let cli = repository.cli.clone();
    cli.ok(&["repo", "set", "--gc-window", "0s"]);
    repository.expire_but(&[9, 10]);
    let dry = cli.json(&["gc", "--dry-run"]);
    assert!(dry["sparse_objects"].as_u64().unwrap() > 0, "{dry}");
    let bounded = cli.json(&["gc", "--no-rewrite"]);
    assert_eq!((&bounded["moved_bytes"], &bounded["faults"]), (&0.into(), &0.into()), "{bounded}");
    let live = repository.needed(&[9, 10]);
    let before = repository.stored("obj");
    assert!(before * 10 > live * 11, "{before} bytes for {live}: there is nothing to move");
    repository.expect(&[9, 10]);

    let some = cli.json(&["gc", "--budget", "1MiB"]);
    let moved = some["moved_bytes"].as_u64().unwrap();
    assert!(moved > 0 && moved < live && some["faults"] == 0, "{some}");
    repository.expect(&[9, 10]);
    let done = cli.json(&["gc"]);
    let after = repository.stored("obj");
    println!(
        "{before} bytes of objects before, {after} after moving, for {live} live: {:.3} times",
        after as f64 / live as f64
    );
    assert!(after * 10 <= live * 11, "{after} bytes for {live} live: {done}");
    assert_eq!((&done["waiting_bytes"], &done["kept"]), (&0.into(), &0.into()), "{done}");
    repository.expect(&[9, 10]);
    // Nothing is left to move: rows and objects stay as they are.
    let again = cli.json(&["gc"]);
    assert_eq!((&again["moved_bytes"], &again["deleted_bytes"]), (&0.into(), &0.into()), "{again}");
    cli.ok(&["repo", "rebuild"]);
    repository.expect(&[9, 10]);

    // Backups go on from moved blocks, and those move once more.
    (0..6).for_each(|_| repository.backup_of(scatter));
    repository.expire_but(&[16]);
    let last = cli.json(&["gc"]);
    assert!(last["moved_bytes"].as_u64().unwrap() > 0 && last["faults"] == 0, "{last}");
    let (after, live) = (repository.stored("obj"), repository.needed(&[16]));
    assert!(after * 10 <= live * 11, "{after} bytes for {live} live: {last}");
    repository.expect(&[16]);
    cli.ok(&["repo", "rebuild"]);
    repository.expect(&[16]);
}

#[test]
fn what_moves_of_frames_that_are_compressed_is_weighed_by_their_plain_length() {
    let mut repository = Repository::new("cli-garbage-text");
    (0..10).for_each(|_| repository.backup_of(scatter_text));
    let cli = repository.cli.clone();
    cli.ok(&["repo", "set", "--gc-window", "0s"]);
    repository.expire_but(&[10]);
    let done = cli.json(&["gc"]);
    let after = repository.stored("obj");
    repository.expect(&[10]);
    // What the same point takes where there is nothing else.
    let mut fresh = Repository::new("cli-garbage-text-fresh");
    fs::copy(&repository.image, &fresh.image).unwrap();
    fresh.backup_of(|_, _| {});
    let live = fresh.stored("obj");
    println!("{after} bytes of objects for {live} live: {:.3} times", after as f64 / live as f64);
    assert!(after * 10 <= live * 11, "{after} bytes for {live} live: {done}");
    cli.ok(&["repo", "rebuild"]);
    repository.expect(&[10]);
}

#[test]
fn a_run_that_is_killed_while_it_moves_leaves_all_as_it_was() {
    let mut repository = Repository::new("cli-garbage-move-kill");
    (0..6).for_each(|_| repository.backup_of(scatter));
    let cli = repository.cli.clone();
    cli.ok(&["repo", "set", "--gc-window", "0s", "--lease", "3s"]);
    repository.expire_but(&[5, 6]);
    // From the second on, the lease of the one before is waited out first.
    for millis in [60, 3_100, 3_200, 3_300, 3_450, 3_600] {
        let mut child = cli.command(&["gc"]);
        let mut child = child.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(millis));
        let _ = child.kill();
        child.wait().unwrap();
        repository.expect(&[6]);
    }
    let done = cli.json(&["gc"]);
    assert_eq!((&done["faults"], &done["waiting_bytes"]), (&0.into(), &0.into()), "{done}");
    repository.expect(&[5, 6]);
    cli.ok(&["repo", "rebuild"]);
    repository.expect(&[5, 6]);
}

#[test]
fn a_run_that_is_killed_at_any_moment_harms_nothing_and_the_next_goes_on() {
    let mut repository = Repository::new("cli-garbage-kill");
    (0..6).for_each(|_| repository.backup());
    let cli = repository.cli.clone();
    cli.ok(&["repo", "set", "--gc-window", "0s", "--lease", "3s"]);
    repository.expire_but(&[5, 6]);
    for millis in [20, 60, 120, 200, 350] {
        let mut child = cli.command(&["gc"]);
        let mut child = child.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(millis));
        let _ = child.kill();
        child.wait().unwrap();
    }
    repository.expect(&[5, 6]);
    let done = cli.json(&["gc"]);
    assert_eq!((&done["faults"], &done["waiting_bytes"]), (&0.into(), &0.into()), "{done}");
    repository.expect(&[5, 6]);
    cli.ok(&["repo", "rebuild"]);
    repository.expect(&[5, 6]);
}
