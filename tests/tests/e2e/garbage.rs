//! Garbage in real deployments: runs through agents, with repositories in a directory and in S3, and beside a backup that is frozen meanwhile.
//!
//! Whatever happens, what is kept restores byte for byte, also by tables that are made anew from objects. moto skips loudly where it is missing.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests, and their helpers")]

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use windlass_board::engine::host::HostClock;
use windlass_tests::cli::Cli;
use windlass_tests::cluster::{Cluster, POLICY, Place, SHARED, Setup, seconds_since};
use windlass_tests::engines::moto::Moto;
use windlass_tests::fixture::noise;
use windlass_tests::privilege::skip;
use windlass_tests::turn::{CLUSTERS, Turn};
use windlass_tests::workdir::Workdir;

const PROGRAM: &str = env!("CARGO_BIN_EXE_windlass-under-test");
const BLOCK_BYTES: usize = 64 << 10;
/// Blocks of the image.
const BLOCKS: usize = 128;
/// Blocks at the beginning that never change: later points share them with the first.
const STABLE_BLOCKS: usize = 12;
/// How long anything may take, in seconds.
const PATIENCE_SECS: f64 = 120.0;
/// The longest that a frozen backup is waited for, between looks.
const LOOK: Duration = Duration::from_millis(50);

/// What the image is at a point.
fn contents(round: u64) -> Vec<u8> {
    let mut bytes = noise(0, BLOCKS * BLOCK_BYTES);
    for at in STABLE_BLOCKS..BLOCKS {
        let part = &mut bytes[at * BLOCK_BYTES..(at + 1) * BLOCK_BYTES];
        part.copy_from_slice(&noise(round * 1000 + at as u64, BLOCK_BYTES));
    }
    bytes
}

/// Changes the image in place: agents have its device open.
fn change(image: &Path, round: u64) {
    let file = fs::File::options().write(true).open(image).unwrap();
    file.write_all_at(&contents(round), 0).unwrap();
    file.sync_all().unwrap();
}

fn in_moto(moto: &Moto) -> Place {
    moto.s3.make_bucket("garbage", false);
    Place {
        url: "s3://garbage/rack".to_owned(),
        endpoints: vec![moto.s3.endpoint.clone()],
        credentials: Some(moto.s3.credentials()),
        lease_store: None,
    }
}

fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begun = HostClock.boot_ns();
    while seconds_since(begun) < PATIENCE_SECS {
        if let Some(found) = look() {
            return found;
        }
        HostClock.sleep(LOOK);
    }
    panic!("waited {PATIENCE_SECS} s in vain for {what}");
}

/// What a command prints at a node's socket. It must succeed, at last: a node that is asked to try again does.
fn says(cluster: &Cluster, node: u32, arguments: &[&str]) -> String {
    until("an answer", || {
        let ended = cluster.at(node, arguments).output().unwrap();
        let (said, told) = (String::from_utf8_lossy(&ended.stdout), String::from_utf8_lossy(&ended.stderr));
        let is_over = ended.status.success() || !told.contains("try again");
        assert!(ended.status.success() || !is_over, "{arguments:?}: {said}{told}\n{}", cluster.told(node));
        is_over.then(|| said.into_owned())
    })
}

/// Two agents; points expire, and runs are wanted at either; kept points are restored through both.
fn through_agents(place: Place) {
    let bytes = (BLOCKS * BLOCK_BYTES) as u64;
    let setup = Setup { nodes: 2, image_bytes: bytes, upload_kib_s: 1 << 20, ..Setup::new(place) };
    let mut cluster = Cluster::make(PROGRAM, setup, None);
    cluster.start();
    let volume = ["--volume", SHARED, "--block-size", "64KiB", "--object-size", "4MiB"];
    says(&cluster, 1, &[&["policy", "set", POLICY][..], &volume].concat());
    for round in 1..=5u64 {
        change(cluster.image(SHARED), round);
        says(&cluster, 1 + round as u32 % 2, &["backup", POLICY]);
    }
    let full = cluster.keys("obj/").len();
    for point in 1..=3 {
        says(&cluster, 1, &["point", "expire", &format!("{POLICY}@{point}")]);
    }
    let json = |cluster: &Cluster, node| -> Value {
        let text = says(cluster, node, &["gc", "--json"]);
        serde_json::from_str(text.lines().last().unwrap()).unwrap()
    };
    let held = json(&cluster, 2);
    assert_eq!((&held["deleted_bytes"], &held["faults"]), (&0.into(), &0.into()), "{held}");
    assert!(held["waiting_bytes"].as_u64().unwrap() > 0, "the window holds it back: {held}");
    says(&cluster, 1, &["repo", "set", "--gc-window", "0s"]);
    let done = json(&cluster, 1);
    assert!(done["deleted_bytes"].as_u64().unwrap() > 0 && done["faults"] == 0, "{done}");
    let left = cluster.keys("obj/").len();
    println!("{full} objects, {left} after a run: {done}");
    assert!(left < full, "{left} of {full}");
    for (node, point) in [(1, 4), (2, 5)] {
        restores(&cluster, node, point);
    }
    // Another node coordinates and goes on.
    let seen = cluster.watch("a coordinator", 1, |_| true);
    cluster.kill(seen.coordinator);
    let survivor = cluster.other(seen.coordinator);
    says(&cluster, survivor, &["point", "expire", &format!("{POLICY}@4")]);
    let done = json(&cluster, survivor);
    assert!(done["deleted_bytes"].as_u64().unwrap() > 0 && done["faults"] == 0, "{done}");
    restores(&cluster, survivor, 5);
    cluster.check_log();
}

fn restores(cluster: &Cluster, node: u32, point: u64) {
    let to = cluster.image(SHARED).with_file_name(format!("restored-{node}-{point}"));
    let name = format!("{POLICY}@{point}");
    says(cluster, node, &["restore", &name, "--to-device", to.to_str().unwrap()]);
    assert!(fs::read(&to).unwrap() == contents(point), "point {point} through node {node}");
    fs::remove_file(&to).unwrap();
}

#[test]
fn agents_give_space_back_in_a_directory() {
    let work = Workdir::new("e2e-garbage").unwrap();
    through_agents(Place::directory(&work.join("repository")));
}

#[test]
fn agents_give_space_back_in_s3() {
    let name = "agents_give_space_back_in_s3";
    let Ok(moto) = Moto::start().map_err(|why| skip(name, &why)) else { return };
    through_agents(in_moto(&moto));
}

/// A repository without agents.
struct Alone {
    cli: Cli,
    work: Workdir,
    image: PathBuf,
    /// An option that only S3 needs.
    more: Option<&'static str>,
    _turn: Turn,
}

impl Alone {
    fn new(moto: Option<&Moto>) -> Alone {
        let turn = CLUSTERS.take();
        let work = Workdir::new("e2e-garbage").unwrap();
        let mut cli = Cli::new(PROGRAM).with_repository(work.path());
        if let Some(moto) = moto {
            let place = in_moto(moto);
            cli = cli.with("WINDLASS_REPO", &place.url).with("WINDLASS_ENDPOINT", &place.endpoints[0]);
            cli = cli.with("WINDLASS_CREDENTIALS_FILE", place.credentials.unwrap().to_str().unwrap());
        }
        let image = work.join("image");
        fs::write(&image, contents(1)).unwrap();
        let volume = format!("{}=image", image.display());
        let shape = ["--block-size", "64KiB", "--object-size", "4MiB"];
        let of = Alone { cli, work, image, more: moto.map(|_| "--path-style"), _turn: turn };
        of.ok(&["repo", "init"]);
        of.ok(&[&["policy", "set", "p", "--volume", &volume][..], &shape].concat());
        of.ok(&["repo", "set", "--lease", "3s", "--gc-window", "0s"]);
        of
    }

    fn all<'a>(&self, arguments: &[&'a str]) -> Vec<&'a str> {
        arguments.iter().copied().chain(self.more).collect()
    }

    fn ok(&self, arguments: &[&str]) -> String {
        self.cli.ok(&self.all(arguments))
    }

    fn json(&self, arguments: &[&str]) -> Value {
        self.cli.json(&self.all(arguments))
    }

    fn backup(&self, round: u64) {
        change(&self.image, round);
        self.ok(&["backup", "p"]);
    }

    /// A backup in the middle: some of it is committed.
    fn begin(&self, round: u64) -> Child {
        change(&self.image, round);
        let before = self.segments();
        let mut child = self.cli.command(&self.all(&["backup", "p", "--limit-up", "1MiB"]));
        let child = child.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        until("the middle of the backup", || (self.segments() > before).then_some(()));
        child
    }

    fn segments(&self) -> u64 {
        self.json(&["repo", "info"])["segments"].as_u64().unwrap()
    }

    fn expect(&self, point: u64, round: u64, when: &str) {
        let to = self.work.join(&format!("restored-{point}-{when}"));
        self.ok(&["restore", &format!("p@{point}"), "--to-device", to.to_str().unwrap()]);
        assert!(fs::read(&to).unwrap() == contents(round), "point {point} {when}");
    }
}

/// A backup is frozen in the middle; meanwhile others expire points, give the space back, restore and back up; then it thaws.
fn frozen(of: &Alone) {
    (1..=4).for_each(|round| of.backup(round));
    let mut child = of.begin(5);
    let process = Pid::from_raw(child.id() as i32);
    kill(process, Signal::SIGSTOP).unwrap();
    // The first of them waits out the lease of the frozen one.
    of.ok(&["point", "expire", "p@1"]);
    of.ok(&["point", "expire", "p@2"]);
    std::thread::scope(|scope| {
        let restore = scope.spawn(|| of.expect(4, 4, "meanwhile"));
        let done = of.json(&["gc"]);
        println!("beside a frozen backup: {done}");
        assert_eq!(done["faults"], 0, "{done}");
        restore.join().unwrap();
    });
    kill(process, Signal::SIGCONT).unwrap();
    let ended = until("the thawed backup", || child.try_wait().unwrap());
    println!("the thawed backup ended with {ended}");
    of.expect(3, 3, "thawed");
    of.ok(&["backup", "p"]);
    let listed = of.json(&["points", "p"]);
    let newest =
        listed["points"].as_array().unwrap().iter().filter_map(|p| p["point"].as_u64()).max().unwrap();
    of.expect(newest, 5, "after");
    of.ok(&["point", "expire", "p@3"]);
    let done = of.json(&["gc"]);
    println!("after it: {done}");
    assert!(done["deleted_bytes"].as_u64().unwrap() > 0 && done["faults"] == 0, "{done}");
    assert_eq!((&done["waiting_bytes"], &done["condemned"]), (&0.into(), &0.into()), "{done}");
    of.expect(4, 4, "kept");
    of.expect(newest, 5, "kept");
    of.ok(&["check", "p", "--read-data"]);
    of.ok(&["repo", "rebuild"]);
    of.expect(4, 4, "rebuilt");
    of.expect(newest, 5, "rebuilt");
}

#[test]
fn a_backup_is_frozen_while_space_comes_back_in_a_directory() {
    frozen(&Alone::new(None));
}

#[test]
fn a_backup_is_frozen_while_space_comes_back_in_s3() {
    let name = "a_backup_is_frozen_while_space_comes_back_in_s3";
    let Ok(moto) = Moto::start().map_err(|why| skip(name, &why)) else { return };
    frozen(&Alone::new(Some(&moto)));
}
