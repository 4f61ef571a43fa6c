//! Roles at the control socket of a real agent: another user may do what a role says, and no more; and the log says who did it.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests, and their helpers")]

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use windlass_tests::cluster::{Cluster, POLICY, Place, Setup};
use windlass_tests::workdir::Workdir;

const PROGRAM: &str = env!("CARGO_BIN_EXE_windlass-under-test");
/// A user and a group without any right.
const OTHER: u32 = 65_534;

/// Calls a copy of the program as another user, who can open no file of the cluster but its socket.
fn as_other(cluster: &Cluster, copy: &Path, arguments: &[&str]) -> std::io::Result<Output> {
    let mut command = Command::new(copy);
    command.arg("--socket").arg(cluster.socket(1)).args(arguments).stdin(Stdio::null());
    command.uid(OTHER).gid(OTHER).current_dir("/").output()
}

fn as_owner(cluster: &Cluster, arguments: &[&str]) -> String {
    let ended = cluster.at(1, arguments).output().unwrap();
    assert!(ended.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&ended.stderr));
    String::from_utf8(ended.stdout).unwrap()
}

#[test]
fn another_user_may_do_what_a_role_says_and_the_log_says_who_did_it() {
    const TEST: &str = "another_user_may_do_what_a_role_says_and_the_log_says_who_did_it";
    if !windlass_tests::privilege::is_root() {
        return windlass_tests::privilege::skip(TEST, "needs root, to act as another user");
    }
    let store = Workdir::new("roles").unwrap();
    let repository = store.path().join("repository");
    std::fs::create_dir(&repository).unwrap();
    let setup = Setup {
        nodes: 1,
        upload_kib_s: 65_536,
        shared_dirs: 1,
        group: Some(OTHER),
        ..Setup::new(Place::directory(&repository))
    };
    let mut cluster = Cluster::make(PROGRAM, setup, None);
    // The build's own directory may be closed to others.
    let copy = store.path().join("windlass");
    std::fs::copy(PROGRAM, &copy).unwrap();
    cluster.start();
    cluster.make_policy(1);
    let refused = match as_other(&cluster, &copy, &["backup", POLICY, "--no-wait"]) {
        Ok(ended) => ended,
        Err(why) => {
            let why = format!("another user cannot run the program: {why}");
            return windlass_tests::privilege::unsupported(TEST, &why);
        }
    };
    let why = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(refused.status.code() == Some(1), "{why}");
    assert!(
        why.contains(&format!("`windlass role grant uid:{OTHER} viewer`")),
        "it looks at the status first: {why}"
    );
    let stopped = as_other(&cluster, &copy, &["stop", POLICY]).unwrap();
    let why = String::from_utf8_lossy(&stopped.stderr).into_owned();
    assert!(why.contains(&format!("windlass role grant uid:{OTHER} operator --policy {POLICY}")), "{why}");

    let subject = format!("uid:{OTHER}");
    as_owner(&cluster, &["role", "grant", "uid:0", "administrator"]);
    as_owner(&cluster, &["role", "grant", &subject, "operator", "--policy", POLICY]);
    let begun = as_other(&cluster, &copy, &["backup", POLICY, "--no-wait"]).unwrap();
    assert!(begun.status.success(), "{}", String::from_utf8_lossy(&begun.stderr));
    let moved = as_other(&cluster, &copy, &["flush"]).unwrap();
    let why = String::from_utf8_lossy(&moved.stderr).into_owned();
    assert!(
        !moved.status.success() && why.contains("needs the role operator;"),
        "for all, not for one: {why}"
    );

    // A further group counts as well: only the kernel's word for it does.
    let by_group = |groups: &str, arguments: &[&str]| {
        let mut command = Command::new("setpriv");
        let (user, group) = (format!("--reuid={}", OTHER - 1), format!("--regid={OTHER}"));
        command.args([user, group, format!("--groups={groups}")]).arg(&copy);
        command.arg("--socket").arg(cluster.socket(1)).args(arguments).stdin(Stdio::null());
        command.current_dir("/").output().unwrap()
    };
    as_owner(&cluster, &["role", "grant", "gid:4242", "operator", "--policy", POLICY]);
    let refused = by_group("27", &["status"]);
    assert!(!refused.status.success(), "{}", String::from_utf8_lossy(&refused.stdout));
    let let_in = by_group("27,4242", &["status"]);
    assert!(let_in.status.success(), "{}", String::from_utf8_lossy(&let_in.stderr));

    // Who asked for the backup is in the log.
    as_owner(&cluster, &["backup", POLICY]);
    let said = as_owner(&cluster, &["log", "--policy", POLICY, "--json"]);
    let said: serde_json::Value = serde_json::from_str(&said).unwrap();
    let is_begin =
        |entry: &&serde_json::Value| entry["text"].as_str().is_some_and(|text| text.ends_with(" began"));
    let begin = said["entries"].as_array().unwrap().iter().find(is_begin).unwrap();
    assert_eq!(begin["subject"], subject.as_str(), "{begin}");

    // The first refusal is in the log at once, and the change of roles says who made it.
    let said: serde_json::Value = serde_json::from_str(&as_owner(&cluster, &["log", "--json"])).unwrap();
    let entries = said["entries"].as_array().unwrap();
    let refused = entries.iter().find(|entry| entry["what"] == "refused").unwrap_or_else(|| panic!("{said}"));
    assert!(refused["text"].as_str().unwrap().starts_with(&format!("{subject} was refused ")), "{refused}");
    let granted = entries.iter().rfind(|entry| entry["what"] == "role grant").unwrap();
    assert_eq!((&granted["subject"], &granted["asked_at"]), (&"uid:0".into(), &1.into()), "{granted}");
    cluster.stop(1);
}
