//! What one subject asks for and another approves: points that expire, holds that are released, policies that are weakened.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use windlass_tests::cli::Cli;
use windlass_tests::fixture::noise;
use windlass_tests::privilege;
use windlass_tests::workdir::Workdir;

/// A user without any right.
const OTHER: u32 = 65_533;

/// Runs a copy of the program as another user, who may read the key and write to the repository.
fn as_other(work: &Path, arguments: &[&str]) -> Output {
    let opened = Command::new("chmod").args(["-R", "a+rwX"]).arg(work).status();
    assert!(opened.unwrap().success());
    let user = [format!("--reuid={OTHER}"), format!("--regid={OTHER}"), "--clear-groups".to_owned()];
    let mut command = Command::new("setpriv");
    command.args(user).arg(work.join("windlass")).args(arguments).env_clear().current_dir("/");
    command.env("WINDLASS_REPO", format!("file://{}", work.join("repository").display()));
    command.env("WINDLASS_KEY_FILE", work.join("key"));
    command.output().unwrap()
}

/// Numbers and texts of what waits.
fn waiting(cli: &Cli) -> Vec<(u64, String)> {
    let listed = cli.json(&["removal", "list"]);
    let one = |request: &serde_json::Value| {
        assert_eq!(request["subject"], "uid:0");
        (request["request"].as_u64().unwrap(), request["what"].as_str().unwrap().to_owned())
    };
    listed["requests"].as_array().unwrap().iter().map(one).collect()
}

#[test]
fn a_second_subject_approves_what_removes_points_or_lets_them_be_removed() {
    const TEST: &str = "a_second_subject_approves_what_removes_points_or_lets_them_be_removed";
    if !privilege::is_root() {
        return privilege::skip(TEST, "needs root, to act as another user");
    }
    let work = Workdir::new("cli-removal").unwrap();
    let program = env!("CARGO_BIN_EXE_windlass-under-test");
    fs::copy(program, work.join("windlass")).unwrap();
    let cli = Cli::new(program).with_repository(work.path());
    cli.ok(&["repo", "init"]);
    let image = work.join("image");
    let volume = format!("{}=image", image.display());
    fs::write(&image, noise(0, 300_000)).unwrap();
    cli.ok(&["policy", "set", "p", "--volume", &volume, "--approve-removal", "0"]);
    for seed in 1..=3 {
        fs::write(&image, noise(seed, 300_000)).unwrap();
        cli.ok(&["backup", "p"]);
    }
    if !as_other(work.path(), &["removal", "list"]).status.success() {
        return privilege::unsupported(TEST, "another user cannot run the program");
    }
    let points = || cli.json(&["points", "p"])["points"].as_array().unwrap().len();
    let asks = |arguments: &[&str], what: &str| {
        let ended = cli.run(arguments);
        assert!(
            ended.code == 1 && ended.failure().contains("wants a second subject to approve"),
            "{ended:?}"
        );
        let mut all = waiting(&cli);
        assert_eq!(all.len(), 1, "{all:?}");
        let (number, text) = all.remove(0);
        assert!(text.contains(what), "{text}");
        number.to_string()
    };
    let approve = |number: &str| {
        let ended = as_other(work.path(), &["removal", "approve", number]);
        assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
        assert!(waiting(&cli).is_empty());
    };

    // What takes nothing away is done at once, as ever.
    cli.ok(&["point", "hold", "p@1", "--reason", "audit"]);
    cli.ok(&["policy", "set", "p", "--priority", "3"]);
    let number = asks(&["point", "release", "p@1"], "point 1 released");
    assert!(cli.run(&["point", "expire", "p@1"]).failure().contains("held"), "not done yet");
    let own = cli.run(&["removal", "approve", &number]);
    assert!(own.code == 1 && own.failure().contains("another subject has to approve it"), "{own:?}");
    approve(&number);
    assert!(cli.run(&["removal", "approve", &number]).failure().contains("there is no request"));

    let number = asks(&["point", "expire", "p@1"], "point 1 expired");
    assert_eq!(points(), 3);
    approve(&number);
    assert_eq!(points(), 2);

    let number = asks(&["policy", "delete", "p", "--with-points"], "policy p deleted");
    cli.ok(&["removal", "withdraw", &number]);
    assert!(waiting(&cli).is_empty());
    assert_eq!(points(), 2);

    // Rules that expire more are a way around it, and so is another policy in its place.
    let number = asks(&["policy", "set", "p", "--keep-last", "1"], "policy p set");
    cli.ok(&["removal", "withdraw", &number]);
    // Once the rules are approved, what they expire by themselves needs no one.
    let number = asks(&["policy", "set", "p", "--keep-last", "2"], "policy p set");
    approve(&number);
    cli.ok(&["backup", "p"]);
    assert_eq!(points(), 2);

    let number = asks(&["policy", "set", "p", "--no-approve-removal"], "policy p set");
    approve(&number);
    cli.ok(&["policy", "set", "p", "--approve-removal", "1h"]);
    let number = asks(&["point", "expire", "p@3"], "point 3 expired");
    let early = as_other(work.path(), &["removal", "approve", &number]);
    let said = String::from_utf8_lossy(&early.stderr).into_owned();
    assert!(!early.status.success() && said.contains("may be approved in"), "{said}");
    assert!(cli.ok(&["policy", "show", "p"]).contains("a second subject approves, 1h later"));
    let log = cli.ok(&["log"]);
    for line in [
        "asked for a removal, as uid:0: point 1 expired",
        &format!("approved by uid:{OTHER}"),
        "withdrawn by",
    ] {
        assert!(log.contains(line), "{line}: {log}");
    }
}
