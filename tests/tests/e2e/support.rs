//! A support bundle of a real agent: what is in it, and that no secret of the fixture is. Unpacked by tar and zstd of the system, or as the
//! plain tar that it also may be.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests, and their helpers")]

use std::fs;
use std::path::Path;
use std::process::Command;

use windlass_tests::cluster::{Cluster, Place, Setup};
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
