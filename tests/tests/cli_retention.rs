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
