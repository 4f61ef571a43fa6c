//! The command line without a repository: help, usage failures, exit codes, JSON of failures.

use windlass_tests::cli::{Cli, Ended};
use windlass_tests::engines::scratch::Scratch;

fn cli() -> Cli {
    Cli::new(env!("CARGO_BIN_EXE_windlass-under-test"))
}

fn usage(arguments: &[&str]) -> Ended {
    let ended = cli().run(arguments);
    assert_eq!(ended.code, 2, "{arguments:?}: {}{}", ended.stdout, ended.stderr);
    ended
}

#[test]
fn help_names_every_command_and_fits_a_terminal() {
    let help = cli().ok(&["--help"]);
    for command in [
        "demo",
        "repo",
        "policy",
        "backup",
        "points",
        "retention",
        "ls",
        "stat",
        "find",
        "cat",
        "restore",
        "check",
        "pki",
        "volume",
        "status",
        "coordinator",
        "board",
    ] {
        assert!(help.lines().any(|line| line.trim_start().starts_with(command)), "{command}");
    }
    assert!(help.contains("Exit codes: 0 done, 1 failed, 2 usage, 3 done but"));
    assert!(help.lines().all(|line| line.chars().count() <= 100), "{help}");
}

#[test]
fn every_command_teaches_by_example() {
    for command in [
        &["demo"][..],
        &["repo", "init"],
        &["repo", "probe"],
        &["repo", "info"],
        &["repo", "rebuild"],
        &["policy", "set"],
        &["policy", "show"],
        &["policy", "list"],
        &["policy", "rename"],
        &["policy", "delete"],
        &["role", "grant"],
        &["role", "revoke"],
        &["role", "list"],
        &["log"],
        &["pki", "init"],
        &["pki", "issue"],
        &["backup"],
        &["points"],
        &["point", "hold"],
        &["point", "release"],
        &["point", "note"],
        &["point", "tag"],
        &["point", "expire"],
        &["point", "undo"],
        &["retention", "run"],
        &["retention", "simulate"],
        &["ls"],
        &["stat"],
        &["find"],
        &["cat"],
        &["restore"],
        &["check"],
        &["volume", "info"],
        &["status"],
        &["coordinator", "move"],
        &["flush"],
        &["stop"],
        &["commands"],
        &["board", "check"],
        &["board", "new"],
        &["board", "explain"],
    ] {
        let help = cli().ok(&[command, &["--help"]].concat());
        let example = format!("\n  windlass {}", command.join(" "));
        assert!(help.contains("\nExample") && help.contains(&example), "{command:?}: {help}");
    }
}

#[test]
fn secrets_are_no_options() {
    for command in [&["--help"][..], &["backup", "--help"], &["repo", "init", "--help"]] {
        let help = cli().ok(command);
        for word in ["--key ", "--passphrase ", "--password", "--secret", "--access-key"] {
            assert!(!help.contains(word), "{word}");
        }
    }
    let ended = cli().run(&["--repo", "s3://AK:hunter2@bucket/x", "repo", "info"]);
    assert!(ended.code == 2 && !ended.stderr.contains("hunter2"), "{}", ended.stderr);
}

#[test]
fn what_cannot_be_meant_exits_2_and_says_what_to_write() {
    usage(&[]);
    usage(&["frobnicate"]);
    usage(&["backup"]);
    usage(&["restore", "home"]);
    usage(&["restore", "home", "--to", "/x", "--to-device", "/y"]);
    usage(&["repo", "init", "--location-blocks", "65"]);
    usage(&["backup", "home", "--device-iops-max", "0"]);
    assert!(usage(&["backup", "home", "--memory", "64 parsecs"]).stderr.contains("16MiB"));
    assert!(usage(&["policy", "set", "home", "--flush-interval", "60"]).stderr.contains("60s"));
    assert!(usage(&["policy", "set", "home", "--compression", "zstd:20"]).stderr.contains("zstd:LEVEL"));
    assert!(usage(&["ls", "home@yesterday", "/"]).stderr.contains("2026-11-21"));
    assert!(usage(&["ls", "a b", "/"]).stderr.contains("not a policy name"));
    assert!(usage(&["points", "home"]).failure().contains("WINDLASS_REPO"));
    assert!(usage(&["--repo", "/srv/repo", "repo", "info"]).failure().contains("file:///srv/repo"));
    assert!(usage(&["--repo", "gopher://x", "repo", "info"]).failure().contains("not supported"));
}

#[test]
fn a_usage_shows_what_is_required_and_not_what_the_environment_gave() {
    let scratch = Scratch::new("usage");
    let said = cli().with_repository(scratch.path()).run(&["points"]).stderr;
    assert!(
        said.contains("Usage: windlass points [OPTIONS] <NAME>") && !said.contains("--key-file"),
        "{said}"
    );
    let said = cli().run(&["policy", "set", "x", "--nonsense"]).stderr;
    assert!(said.contains("Usage: windlass policy set [OPTIONS] <NAME>"), "{said}");
}

#[test]
fn failures_are_one_line_on_stderr_and_a_document_with_json() {
    let ended = cli().run(&["--repo", "file:///none/such", "repo", "info", "--json"]);
    assert_eq!(ended.code, 1);
    assert_eq!(ended.stderr.lines().count(), 1, "{}", ended.stderr);
    let document = ended.documents().pop().unwrap();
    assert_eq!(document["exit"], 1);
    assert_eq!(document["error"].as_str().unwrap(), ended.failure());
}

#[test]
fn a_version_is_told() {
    assert!(cli().ok(&["--version"]).starts_with("windlass 0."));
}
