//! `pki`: the files of a small CA, and what happens to those that are there.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;

use windlass_agent::backplane::tls::{Pem, Tls, TlsFault};
use windlass_agent::id::NodeId;
use windlass_hal::clock::SystemClock;
use windlass_tests::cli::Cli;
use windlass_tests::workdir::Workdir;

fn cli() -> Cli {
    Cli::new(env!("CARGO_BIN_EXE_windlass-under-test"))
}

fn use_files(dir: &Path, node: u32) -> Option<TlsFault> {
    let read = |name: &str| fs::read(dir.join(name)).unwrap();
    let (ca, certificate, key) =
        (read("ca.crt"), read(&format!("node-{node}.crt")), read(&format!("node-{node}.key")));
    let pem = Pem { ca: &ca, certificate: &certificate, key: &key };
    Tls::new(NodeId(node), pem, Arc::new(SystemClock)).err()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn a_ca_and_its_nodes_are_made_and_nothing_is_written_over() {
    let work = Workdir::new("pki").unwrap();
    let dir = work.path().join("ca");
    let at = dir.to_str().unwrap();
    let ended = cli().run(&["pki", "issue", "--dir", at, "--node", "1"]);
    assert!(ended.code == 1 && ended.failure().contains("windlass pki init"), "{}", ended.stderr);

    let text = cli().ok(&["pki", "init", "--dir", at]);
    assert!(text.contains(&format!("next: windlass pki issue --dir {at} --node 1")), "{text}");
    assert_eq!((mode(&dir), mode(&dir.join("ca.key"))), (0o700, 0o600));
    let ended = cli().run(&["pki", "init", "--dir", at]);
    assert!(ended.code == 1 && ended.failure().contains("there is a CA already"), "{}", ended.stderr);

    for node in ["1", "65534"] {
        let made = cli().json(&["pki", "issue", "--dir", at, "--node", node]);
        assert_eq!(made["node"].to_string(), node);
        assert_eq!(mode(&dir.join(format!("node-{node}.key"))), 0o600);
        assert_eq!(use_files(&dir, node.parse().unwrap()), None);
    }
    let ended = cli().run(&["pki", "issue", "--dir", at, "--node", "1"]);
    assert!(ended.code == 1 && ended.failure().contains("--renew"), "{}", ended.stderr);
    assert_eq!(cli().run(&["pki", "issue", "--dir", at, "--node", "65535"]).code, 2);

    let files = || (fs::read(dir.join("node-1.crt")).unwrap(), fs::read(dir.join("node-1.key")).unwrap());
    let before = files();
    cli().ok(&["pki", "issue", "--dir", at, "--node", "1", "--renew", "--days", "9"]);
    let after = files();
    assert!(before.0 != after.0 && before.1 == after.1, "a new certificate for the same key");
    assert_eq!(use_files(&dir, 1), None);
    let ended = cli().run(&["pki", "issue", "--dir", at, "--node", "2", "--renew"]);
    assert!(ended.code == 1 && ended.failure().contains("node-2.key"), "{}", ended.stderr);
}

#[test]
fn a_key_of_another_ca_is_noticed_before_anything_is_written() {
    let work = Workdir::new("pki").unwrap();
    let dirs = [work.path().join("a"), work.path().join("b")];
    for dir in &dirs {
        cli().ok(&["pki", "init", "--dir", dir.to_str().unwrap()]);
    }
    fs::copy(dirs[1].join("ca.key"), dirs[0].join("ca.key")).unwrap();
    let ended = cli().run(&["pki", "issue", "--dir", dirs[0].to_str().unwrap(), "--node", "1"]);
    assert!(ended.code == 1 && ended.failure().contains("not of this CA"), "{}", ended.stderr);
    assert!(!dirs[0].join("node-1.key").exists() && !dirs[0].join("node-1.crt").exists());
}
