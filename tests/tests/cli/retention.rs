//! Retention by the command line: rules in a policy, what they keep and why, and points that go on purpose.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests, which say so by failing")]

use std::fs;

use windlass_tests::cli::Cli;
use windlass_tests::engines::scratch::Scratch;
use windlass_tests::fixture::noise;

/// A repository with a policy of one small image, and so many points, each of other contents.
fn repository(scratch: &Scratch, points: u64) -> Cli {
    let cli = Cli::new(env!("CARGO_BIN_EXE_windlass-under-test")).with_repository(scratch.path());
    cli.ok(&["repo", "init"]);
    let image = scratch.path().join("image");
    fs::write(&image, noise(0, 300_000)).unwrap();
    cli.ok(&["policy", "set", "p", "--volume", &format!("{}=image", image.display())]);
    for seed in 1..=points {
        fs::write(&image, noise(seed, 300_000)).unwrap();
        cli.ok(&["backup", "p"]);
    }
    cli
}

/// Numbers of the points, ascending.
fn points(cli: &Cli) -> Vec<u64> {
    let listed = cli.json(&["points", "p"]);
    listed["points"].as_array().unwrap().iter().map(|point| point["point"].as_u64().unwrap()).collect()
}

#[test]
fn a_policy_that_was_deleted_is_not_said_to_wait_for_its_first_backup() {
    let scratch = Scratch::new("cli-retention-deleted");
    let cli = repository(&scratch, 0);
    assert!(cli.ok(&["points", "p"]).contains("make one with `windlass backup p`"));
    cli.ok(&["policy", "delete", "p"]);
    let said = cli.ok(&["points", "p"]);
    assert!(said.contains("policy p was deleted") && !said.contains("windlass backup"), "{said}");
    let failed = cli.run(&["ls", "p"]);
    assert!(failed.failure().contains("policy p was deleted"), "{failed:?}");
}

#[test]
fn rules_say_why_each_point_stays_and_what_goes_restores_no_more() {
    let scratch = Scratch::new("cli-retention");
    let cli = repository(&scratch, 5);
    // Without a rule all stay, and nothing says otherwise.
    assert!(cli.ok(&["retention", "run", "p"]).contains("no retention rule"));
    assert!(!cli.ok(&["points", "p"]).contains("KEPT BY"));
    assert_eq!(points(&cli), [1, 2, 3, 4, 5]);

    cli.ok(&["policy", "set", "p", "--keep-last", "2", "--keep-at-least", "1"]);
    let table = cli.ok(&["points", "p"]);
    assert!(table.contains("KEPT BY") && table.contains("- expires with the next backup"), "{table}");
    assert!(table.contains("last, at least"), "{table}");
    let dry = cli.json(&["retention", "run", "p", "--dry-run"]);
    assert_eq!((&dry["expired"], &dry["dry_run"]), (&3.into(), &true.into()));
    assert_eq!(points(&cli), [1, 2, 3, 4, 5], "a dry run expires nothing");

    // More than half: only with the number, and only with the right one.
    for arguments in [&["retention", "run", "p"][..], &["retention", "run", "p", "--yes-expire", "2"]] {
        let ended = cli.run(arguments);
        assert_eq!(ended.code, 2, "{}", ended.stderr);
        assert!(ended.failure().contains("--yes-expire 3"), "{}", ended.stderr);
    }
    assert_eq!(points(&cli), [1, 2, 3, 4, 5]);
    let done = cli.json(&["retention", "run", "p", "--yes-expire", "3"]);
    assert_eq!(done["expired"], 3);
    assert_eq!(points(&cli), [4, 5]);

    // What is left is whole, and the next backup reads no more than what changed.
    for point in ["p@4", "p@5"] {
        cli.ok(&["check", point, "--read-data"]);
    }
    let out = scratch.path().join("out");
    cli.ok(&["restore", "p@4", "--to-device", out.to_str().unwrap()]);
    assert_eq!(fs::read(&out).unwrap(), noise(4, 300_000));
    let gone = cli.run(&["restore", "p@2", "--to-device", out.to_str().unwrap()]);
    assert!(gone.code == 1 && gone.failure().contains("no point 2"), "{}", gone.stderr);
    let next = cli.json(&["backup", "p"]);
    assert_eq!((&next["items"], &next["bytes_stored_plain"]), (&1.into(), &0.into()), "{next}");
    // A backup names what its rules let expire.
    assert_eq!(next["expired"], serde_json::json!([4]), "{next}");
    let said = cli.ok(&["backup", "p"]);
    assert!(said.contains("by the rules of the policy point 5 expired"), "{said}");

    // Nothing to do is no commit and no failure.
    cli.ok(&["policy", "set", "p", "--no-keep"]);
    assert!(cli.ok(&["retention", "run", "p"]).contains("no retention rule"));
}

#[test]
fn a_simulation_needs_no_repository() {
    let cli = Cli::new(env!("CARGO_BIN_EXE_windlass-under-test"));
    let rules = ["--keep-last", "4", "--keep-daily", "7", "--keep-monthly", "12"];
    let simulated =
        cli.json(&[&["retention", "simulate", "--every", "6h", "--for", "2y"][..], &rules].concat());
    let backups = simulated["backups"].as_i64().unwrap();
    assert!((2920..=2924).contains(&backups), "{backups}");
    // Four of the last day, one of each of the six days before, one of each of the eleven months before; some are the same.
    let left = simulated["points"].as_array().unwrap().len();
    assert!((4 + 6 + 10..=4 + 6 + 11).contains(&left), "{left}");
    assert!(simulated["most"].as_u64().unwrap() <= 23);

    for (arguments, says) in [
        (&["--every", "1s", "--for", "1d"][..], "at least 1m"),
        (&["--every", "1m", "--for", "5y"], "longer --every"),
        (&["--every", "1m", "--for", "1mo"], "more than 4096 points stay"),
        (&["--every", "1h", "--for", "1m"], "1y2mo3d4h"),
    ] {
        let ended = cli.run(&[&["retention", "simulate"], arguments].concat());
        assert_eq!(ended.code, 2, "{}", ended.stderr);
        assert!(ended.stderr.contains(says), "{}", ended.stderr);
    }
    let refused = cli.run(&["policy", "set", "p", "--keep-daily", "seven"]);
    assert!(refused.code == 2 && refused.stderr.contains("or all"), "{}", refused.stderr);
}

#[test]
fn a_held_point_stays_until_it_is_released_and_tags_and_notes_are_shown() {
    let scratch = Scratch::new("cli-marks");
    let cli = repository(&scratch, 3);
    let long = "x".repeat(257);
    for (arguments, says) in [
        (&["point", "hold", "p@1", "--reason", " "][..], "say why"),
        (&["point", "note", "p@1", &long], "257 bytes"),
        (&["point", "tag", "p@1", "a b"], "1 to 64 letters"),
        (&["point", "tag", "p@9", "a"], "no point 9"),
    ] {
        let ended = cli.run(arguments);
        assert!(ended.code != 0 && ended.stderr.contains(says), "{arguments:?}: {}", ended.stderr);
    }
    cli.ok(&["point", "hold", "p@1", "--reason", "audit, until March"]);
    cli.ok(&["point", "note", "p@2", "before the upgrade"]);
    cli.ok(&["point", "tag", "p@2", "release", "a=1", "release"]);
    let table = cli.ok(&["points", "p"]);
    for text in ["SAID OF IT", "held: audit, until March", "before the upgrade; [a=1, release]"] {
        assert!(table.contains(text), "{table}");
    }
    // Neither a command nor a rule takes it; a rule that names a tag keeps the other one.
    let refused = cli.run(&["point", "expire", "p@1"]);
    assert!(
        refused.code == 1 && refused.failure().contains("held (audit, until March)"),
        "{}",
        refused.stderr
    );
    cli.ok(&["policy", "set", "p", "--keep-last", "1", "--keep-tag", "release,a=1"]);
    let judged = cli.json(&["retention", "run", "p", "--dry-run"]);
    let kept: Vec<&serde_json::Value> =
        judged["points"].as_array().unwrap().iter().map(|point| &point["kept_by"][0]).collect();
    assert_eq!(kept, ["last", "tags release,a=1", "held"], "{judged}");

    // Each part is changed by itself, and goes with nothing in its place.
    cli.ok(&["point", "release", "p@1"]);
    cli.ok(&["point", "tag", "p@2"]);
    let listed = cli.json(&["points", "p"]);
    let mark = |at: usize| &listed["points"][at]["mark"];
    assert_eq!(mark(0), &serde_json::json!({ "hold": null, "note": null, "tags": [] }));
    assert_eq!(mark(1), &serde_json::json!({ "hold": null, "note": "before the upgrade", "tags": [] }));
    // By number alone: a time, also one in the future, means the newest point by then.
    for unnamed in ["p", "p@latest", "p@2999-01-01"] {
        let refused = cli.run(&["point", "expire", unnamed]);
        assert!(refused.code == 2 && refused.stderr.contains("as in p@17"), "{}", refused.stderr);
    }
    assert_eq!(points(&cli), [1, 2, 3]);
    cli.ok(&["point", "expire", "p@1"]);
    assert_eq!(points(&cli), [2, 3]);
    let again = cli.run(&["point", "expire", "p@1"]);
    assert!(again.code == 1 && again.failure().contains("no point 1"), "{}", again.stderr);

    // What was said survives a log that is made anew.
    cli.ok(&["point", "hold", "p@2", "--reason", "x"]);
    let log = scratch.path().join("repository/log");
    let last = fs::read_dir(&log).unwrap().map(|entry| entry.unwrap().path()).max().unwrap();
    fs::remove_file(last).unwrap();
    cli.run(&["repo", "rebuild"]);
    let note = cli.json(&["points", "p"])["points"][0]["mark"]["note"].clone();
    assert_eq!(note, "before the upgrade");
}

#[test]
fn a_minimum_age_holds_against_commands_and_an_expired_point_comes_back() {
    let scratch = Scratch::new("cli-guards");
    let cli = repository(&scratch, 2);
    cli.ok(&["policy", "set", "p", "--min-age", "30d"]);
    // The age counts for points that are there, and asking for less changes nothing for them.
    cli.ok(&["policy", "set", "p", "--min-age", "0"]);
    for arguments in [&["point", "expire", "p@1"][..], &["policy", "delete", "p", "--with-points"]] {
        let ended = cli.run(arguments);
        assert!(ended.code == 1 && ended.failure().contains("minimum age"), "{}", ended.stderr);
    }
    cli.ok(&["policy", "set", "p", "--keep-last", "1"]);
    assert!(cli.ok(&["points", "p"]).contains("minimum age until"));
    assert_eq!(cli.json(&["retention", "run", "p"])["expired"], 0);

    // A point that is made now has no minimum age, and a window to be brought back.
    cli.ok(&["policy", "set", "p", "--no-keep", "--undo", "7d"]);
    fs::write(scratch.path().join("image"), noise(3, 300_000)).unwrap();
    cli.ok(&["backup", "p"]);
    assert!(cli.ok(&["point", "expire", "p@3"]).contains("windlass point undo p@3"));
    assert_eq!(points(&cli), [1, 2]);
    let listed = cli.json(&["points", "p"]);
    assert_eq!(listed["expired"][0]["point"], 3);
    let gone = cli.run(&["ls", "p@3"]);
    assert!(gone.code == 1 && gone.failure().contains("point undo p@3"), "{}", gone.stderr);
    cli.ok(&["point", "undo", "p@3"]);
    assert_eq!(points(&cli), [1, 2, 3]);
    cli.ok(&["check", "p@3", "--read-data"]);
    let again = cli.run(&["point", "undo", "p@3"]);
    assert!(again.code == 1 && again.failure().contains("has not expired"), "{}", again.stderr);
}

#[test]
fn a_policy_that_is_renamed_keeps_its_points_and_goes_on() {
    let scratch = Scratch::new("cli-rename");
    let cli = repository(&scratch, 2);
    cli.ok(&["policy", "rename", "p", "q"]);
    let taken = cli.run(&["policy", "rename", "q", "q"]);
    assert!(taken.code == 1 && taken.failure().contains("take another one"), "{}", taken.stderr);
    assert!(cli.run(&["points", "p"]).failure().contains("there is q"));
    let next = cli.json(&["backup", "q"]);
    assert_eq!(
        (&next["bytes_stored_plain"], &next["point"]),
        (&0.into(), &3.into()),
        "nothing is stored again"
    );
    for point in ["q@1", "q@2", "q@3"] {
        cli.ok(&["check", point, "--read-data"]);
    }
    // The old name is free.
    let image = scratch.path().join("image");
    cli.ok(&["policy", "set", "p", "--volume", &format!("{}=image", image.display())]);
    cli.ok(&["backup", "p"]);
    cli.ok(&["point", "hold", "q@2", "--reason", "test"]);
    let held = cli.run(&["policy", "delete", "q", "--with-points"]);
    assert!(held.code == 1 && held.failure().contains("is held (test)"), "{}", held.stderr);
    cli.ok(&["point", "release", "q@2"]);
    let deleted = cli.json(&["policy", "delete", "q", "--with-points"]);
    assert_eq!((&deleted["points"], &deleted["expired"]), (&0.into(), &3.into()));
    cli.ok(&["check", "p@4", "--read-data"]);
}

#[test]
fn the_log_says_who_did_what_and_one_administrator_stays() {
    let scratch = Scratch::new("cli-log");
    let cli = repository(&scratch, 2);
    let uid = format!("uid:{}", nix::unistd::geteuid().as_raw());
    // The first role is an administrator's.
    let early = cli.run(&["role", "grant", "uid:7", "operator"]);
    assert!(early.code == 1 && early.failure().contains("administrator of all policies"), "{}", early.stderr);
    let unknown = cli.run(&["role", "grant", "root", "operator"]);
    assert!(unknown.code == 2 && unknown.failure().contains("uid:N or gid:N"), "{}", unknown.stderr);
    cli.ok(&["role", "grant", "uid:8", "administrator"]);
    cli.ok(&["role", "grant", "uid:7", "operator", "--policy", "p"]);
    let last = cli.run(&["role", "revoke", "uid:8"]);
    assert!(last.code == 1 && last.failure().contains("administrator of all policies"), "{}", last.stderr);
    cli.ok(&["point", "hold", "p@1", "--reason", "audit"]);
    cli.ok(&["policy", "rename", "p", "q"]);
    let roles = cli.json(&["role", "list"]);
    assert_eq!(roles["subjects"][0]["roles"][0]["policy"], "q", "roles go with the policy: {roles}");

    let said = cli.json(&["log"]);
    let entries = said["entries"].as_array().unwrap();
    let of =
        |what: &str| entries.iter().find(|entry| entry["what"] == what).unwrap_or_else(|| panic!("{said}"));
    assert_eq!(of("policy set")["subject"], serde_json::Value::Null, "no subject had a role then");
    let held = of("point hold");
    assert_eq!((&held["subject"], &held["point"]), (&uid.as_str().into(), &1.into()), "{held}");
    assert_eq!(held["text"], "point 1 held: audit");
    assert!(held["time"].is_string() && of("policy rename")["policy"] == "q");
    let ended =
        entries.iter().filter(|entry| entry["text"].as_str().unwrap().contains("ended, and is point"));
    assert_eq!(ended.count(), 2);
    // Oldest first, and never without an order of times.
    let times: Vec<&str> = entries.iter().filter_map(|entry| entry["not_before"].as_str()).collect();
    assert!(times.len() > 3 && entries.iter().map(|entry| entry["entry"].as_u64()).is_sorted());
    assert!(entries.iter().all(|entry| entry["what"] != "lease"), "{said}");
    assert!(cli.ok(&["log", "--all"]).contains("coordinates no more"));
    assert_eq!(of("role grant")["subject"], uid.as_str(), "also of the first role: {said}");
    let short = cli.json(&["log", "--last", "2", "--policy", "q"]);
    assert_eq!(short["entries"].as_array().unwrap().len(), 2);
    assert!(short["left_out"].as_u64().unwrap() > 0);
    assert!(cli.ok(&["log"]).contains(&format!("{uid}  point 1 held: audit")));
}

#[test]
fn a_policy_that_was_removed_may_go_with_its_points_later() {
    let scratch = Scratch::new("cli-delete");
    let cli = repository(&scratch, 2);
    cli.ok(&["policy", "remove", "p"]);
    assert_eq!(points(&cli), [1, 2]);
    let deleted = cli.json(&["policy", "delete", "p", "--with-points"]);
    assert_eq!((&deleted["points"], &deleted["expired"]), (&0.into(), &2.into()));
    let again = cli.run(&["policy", "delete", "p", "--with-points"]);
    assert!(again.code == 1 && again.failure().contains("no policy"), "{}", again.stderr);
}
