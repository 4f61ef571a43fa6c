//! A support bundle of a real agent: what is in it, and that no secret of the fixture is. Unpacked by tar and zstd of the system, or as the
//! plain tar that it also may be.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests, and their helpers")]

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use windlass_tests::cluster::{Cluster, Place, Setup};
use windlass_tests::line::Line;
use windlass_tests::privilege::skip;
use windlass_tests::workdir::Workdir;

const PROGRAM: &str = env!("CARGO_BIN_EXE_windlass-under-test");
/// A variable that is called so, and what is in it.
const VARIABLE: (&str, &str) = ("AWS_SECRET_ACCESS_KEY", "s3cret/of+the0fixture");

fn cluster(repository: &Path) -> Cluster {
    fs::create_dir(repository).unwrap();
    let setup =
        Setup { nodes: 1, upload_kib_s: 65_536, shared_dirs: 1, ..Setup::new(Place::directory(repository)) };
    let mut cluster = Cluster::make(PROGRAM, setup, None);
    cluster.start();
    cluster.make_policy(1);
    cluster
}

/// Whether bytes have a text in them.
fn has(bytes: &[u8], text: &[u8]) -> bool {
    bytes.windows(text.len()).any(|window| window == text)
}

#[test]
fn a_bundle_says_how_things_are_and_no_secret() {
    let work = Workdir::new("support").unwrap();
    let mut cluster = cluster(&work.join("repository"));
    let file = work.join("bundle.tar");
    let mut command = cluster.at(1, &["support", "--json"]);
    command.arg(&file).env(VARIABLE.0, VARIABLE.1);
    let ended = command.output().unwrap();
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    let said: serde_json::Value = serde_json::from_slice(&ended.stdout).unwrap();
    let bytes = fs::read(&file).unwrap();
    assert_eq!(said["bytes"], bytes.len());
    let key = fs::read_to_string(cluster.file("key")).unwrap();
    // The key is its first line; the others say of which repository it is.
    let key = key.lines().next().unwrap();
    assert!(key.len() >= 64);
    for secret in [key, VARIABLE.1] {
        assert!(!has(&bytes, secret.as_bytes()), "a secret is in the bundle");
    }
    let unpacked = work.join("unpacked");
    fs::create_dir(&unpacked).unwrap();
    let tar = Command::new("tar").arg("-xf").arg(&file).arg("-C").arg(&unpacked).status();
    assert!(tar.unwrap().success());
    let part = |name: &str| fs::read_to_string(unpacked.join("windlass-support").join(name)).unwrap();
    let names: Vec<&str> =
        said["parts"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
    for name in ["status.json", "repository.json", "policies.json", "log.json", "probe.json"] {
        assert!(names.contains(&name), "{names:?}");
        let text = part(name);
        let document: serde_json::Value = serde_json::from_str(text.lines().last().unwrap())
            .unwrap_or_else(|why| panic!("{name}: {why}: {text}"));
        assert!(document.get("error").is_none(), "{name}: {text}");
    }
    assert!(part("lines.txt").contains("node 1 is up"), "{}", part("lines.txt"));
    assert!(part("version.txt").contains("windlass ") && part("memory.txt").contains("MemTotal"));
    assert!(part("configuration.json").contains("\"volumes\""));
    assert!(part("volume-0.json").contains("\"size_bytes\""), "{}", part("volume-0.json"));
    cluster.stop(1);
    // Without an agent it is a bundle too, and says so.
    let file = work.join("alone.tar");
    let ended = cluster.at(1, &["support"]).arg(&file).output().unwrap();
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    assert!(has(&fs::read(&file).unwrap(), b"no agent answers at this socket"));
}

#[test]
fn a_bundle_comes_home_over_a_line() {
    const TEST: &str = "a_bundle_comes_home_over_a_line";
    if Command::new("rb").arg("--version").output().is_err()
        || Command::new("zstd").arg("-V").output().is_err()
    {
        return skip(TEST, "rb (package lrzsz) or zstd is missing");
    }
    let work = Workdir::new("support").unwrap();
    let mut cluster = cluster(&work.join("repository"));
    let path = work.join("line");
    let mut line = Line::new(&path);
    let mut console =
        cluster.at(1, &["console", "--no-flow", "--tty"]).arg(&path).stdin(Stdio::null()).spawn().unwrap();
    line.expect("> ");
    line.send(b"term script\rsend\r");
    line.expect("start a YMODEM receiver now");
    line.expect("\n");
    let home = work.join("home");
    fs::create_dir(&home).unwrap();
    let mut receiver = Command::new("rb");
    let mut receiver =
        receiver.current_dir(&home).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let (mut to, mut from) = (receiver.stdin.take().unwrap(), receiver.stdout.take().unwrap());
    let mut answers = line.sender();
    let relay = std::thread::spawn(move || drop(std::io::copy(&mut from, &mut answers)));
    let mut last = Vec::new();
    while !has(&last, b"bytes were sent\r\nOK\r\n") {
        if line.take() {
            let bytes = std::mem::take(&mut line.heard);
            // A receiver that has all of it is gone, and what the console says then is not for it.
            let _ = to.write_all(&bytes);
            last.extend_from_slice(&bytes);
            last.drain(..last.len().saturating_sub(64));
        }
    }
    drop(to);
    assert!(receiver.wait().unwrap().success());
    relay.join().unwrap();
    let bundle = fs::read_dir(&home).unwrap().next().unwrap().unwrap().path();
    let tar = Command::new("zstd").args(["-dc"]).arg(&bundle).output().unwrap();
    assert!(
        tar.status.success() && has(&tar.stdout, b"windlass-support/status.json"),
        "{}",
        bundle.display()
    );
    let _ = console.kill();
    let _ = console.wait();
    cluster.stop(1);
}
