//! Repositories that earlier builds made, in `golden/repositories`: this build opens them, lists and restores every point, and goes on in
//! them. See `golden/repositories/make.sh` for what they hold. Needs tar and gzip. Source: ours.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests, which say so by failing")]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use windlass_tests::cli::Cli;
use windlass_tests::error::output;
use windlass_tests::fixture::noise;
use windlass_tests::privilege::is_root;
use windlass_tests::workdir::Workdir;

/// Sets of repositories: names that `make.sh` was given.
const SETS: [&str; 1] = ["first"];
const PASSPHRASE: &str = "golden";

/// Where a restored tree came from: repository, point, volume.
type From = (String, String, String);

fn golden() -> String {
    format!("{}/golden/repositories", env!("CARGO_MANIFEST_DIR"))
}

/// A repository of a set, unpacked, and the command line for it.
fn unpack(set: &str, kind: &str) -> (Workdir, Cli) {
    let work = Workdir::new("golden-repository").unwrap();
    let archive = format!("{}/{set}-{kind}.tar.gz", golden());
    output(Command::new("tar").args(["-xzf", &archive, "-C"]).arg(work.path())).unwrap();
    let passphrase = work.join("passphrase");
    fs::write(&passphrase, PASSPHRASE).unwrap();
    fs::set_permissions(&passphrase, fs::Permissions::from_mode(0o600)).unwrap();
    let url = format!("file://{}", work.join(kind).display());
    let mut cli = Cli::new(env!("CARGO_BIN_EXE_windlass-under-test")).with("WINDLASS_REPO", &url);
    if kind == "sealed" {
        cli = cli.with("WINDLASS_PASSPHRASE_FILE", passphrase.to_str().unwrap());
    }
    (work, cli)
}

/// What each point of a set restores to: digests by path, `-` for an image.
fn sums(set: &str) -> BTreeMap<From, BTreeMap<String, String>> {
    let mut all: BTreeMap<From, BTreeMap<String, String>> = BTreeMap::new();
    for line in fs::read_to_string(format!("{}/{set}.sums", golden())).unwrap().lines() {
        let [repository, point, volume, digest, path] = line
            .split_whitespace()
            .collect::<Vec<&str>>()
            .try_into()
            .unwrap_or_else(|parts| panic!("a line of five words, not {parts:?}"));
        let from = [repository, point, volume].map(str::to_owned);
        all.entry(from.into()).or_default().insert(path.to_owned(), digest.to_owned());
    }
    all
}

fn sha256(command: &mut Command) -> BTreeMap<String, String> {
    let text = String::from_utf8(output(command).unwrap()).unwrap();
    let lines = text.lines().map(|line| line.split_once("  ").unwrap());
    lines.map(|(digest, path)| (path.to_owned(), digest.to_owned())).collect()
}

/// Restores each point of a repository and compares with what the build that made it had restored.
fn restores_as_then(cli: &Cli, work: &Workdir, set: &str, kind: &str, when: &str) {
    let to = work.join(when);
    let mut points = 0;
    for ((_, point, volume), expected) in sums(set).into_iter().filter(|((of, ..), _)| of == kind) {
        let name = to.join(format!("{point}-{volume}"));
        fs::create_dir_all(&to).unwrap();
        let target = name.to_str().unwrap();
        let found = if volume == "-" {
            cli.ok(&["restore", &point, "--to-device", target]);
            let digest = sha256(Command::new("sha256sum").arg(&name)).into_values().next().unwrap();
            BTreeMap::from([("-".to_owned(), digest)])
        } else {
            let ended = cli.run(&["restore", &point, "--volume", &volume, "--to", target]);
            // Owners can be given by root only; one item of the first point could not be read.
            assert!([0, 3].contains(&ended.code), "{point}: {}", ended.stderr);
            assert!(ended.code == 0 || !is_root() || point == "files@1", "{point}: {}", ended.stderr);
            let find = r#"find . \( -type f -o -type l \) -print0 | xargs -0 sha256sum"#;
            sha256(Command::new("sh").args(["-c", find]).current_dir(&name))
        };
        assert_eq!(found, expected, "{set} {kind} {point} {volume} {when}");
        points += 1;
    }
    assert!(points > 1, "{points} points of {set} {kind}");
}

fn points(cli: &Cli, policy: &str) -> Vec<(u64, String)> {
    let document = cli.json(&["points", policy]);
    let point = |point: &serde_json::Value| {
        (point["point"].as_u64().unwrap(), point["status"].as_str().unwrap().to_owned())
    };
    document["points"].as_array().unwrap().iter().map(point).collect()
}

fn expect(cli: &Cli, policy: &str, expected: &[(u64, &str)]) {
    let expected: Vec<(u64, String)> =
        expected.iter().map(|(at, state)| (*at, (*state).to_owned())).collect();
    assert_eq!(points(cli, policy), expected, "{policy}");
}

/// A new version of the image that the policy `whole` takes.
fn image(cli: &Cli, at: &Path, seed: u64) {
    fs::write(at, noise(seed, 30_000)).unwrap();
    cli.ok(&["policy", "set", "whole", "--volume", &format!("{}=image", at.display())]);
}

#[test]
fn what_earlier_builds_made_is_listed_restored_and_gone_on_with() {
    for set in SETS {
        let (work, cli) = unpack(set, "clear");
        expect(&cli, "files", &[(1, "with_errors"), (3, "complete")]);
        expect(&cli, "whole", &[(5, "complete"), (6, "complete")]);
        let marked = cli.json(&["points", "files"]);
        let mark = |at: usize| &marked["points"][at]["mark"];
        assert_eq!(mark(0)["hold"], "audit, until March");
        assert_eq!(mark(0)["note"], "before the upgrade");
        assert_eq!(mark(1)["tags"], serde_json::json!(["kept", "year:2026"]));
        let listed = cli.ok(&["ls", "files@1", "/docs", "--volume", "2"]);
        assert!(listed.contains("again") && !listed.contains("draft.tmp"), "{listed}");
        restores_as_then(&cli, &work, set, "clear", "first");

        // On from there: new points, marks, a point that goes, and the old ones as they were.
        image(&cli, &work.join("whole"), 1);
        cli.ok(&["backup", "whole"]);
        cli.ok(&["point", "release", "files@1"]);
        cli.ok(&["point", "hold", "whole@6", "--reason", "the last of the earlier build"]);
        cli.ok(&["check", "whole@6", "--read-data"]);
        for seed in 2..5 {
            image(&cli, &work.join("whole"), seed);
            cli.ok(&["backup", "whole"]);
        }
        let kept: Vec<u64> = points(&cli, "whole").into_iter().map(|(point, _)| point).collect();
        assert!(kept.contains(&6) && !kept.contains(&5), "held, and past the last three: {kept:?}");
        restores_as_then(&cli, &work, set, "clear", "again");
        // What expired gives its space back; what is kept stays as it was, also by tables that are made anew.
        cli.ok(&["repo", "set", "--gc-window", "0s"]);
        let done = cli.json(&["gc"]);
        assert_eq!(
            (&done["faults"], &done["kept"], &done["waiting_bytes"]),
            (&0.into(), &0.into(), &0.into())
        );
        assert!(done["deleted"].as_u64().unwrap() > 0, "{done}");
        restores_as_then(&cli, &work, set, "clear", "collected");
        cli.ok(&["repo", "rebuild"]);
        restores_as_then(&cli, &work, set, "clear", "rebuilt");
        cli.ok(&["gc"]);
        restores_as_then(&cli, &work, set, "clear", "rebuilt-collected");
    }
}

#[test]
fn a_sealed_repository_of_an_earlier_build_opens_with_its_passphrase() {
    for set in SETS {
        let (work, cli) = unpack(set, "sealed");
        expect(&cli, "whole", &[(2, "complete")]);
        restores_as_then(&cli, &work, set, "sealed", "first");
        image(&cli, &work.join("whole"), 1);
        cli.ok(&["backup", "whole"]);
        restores_as_then(&cli, &work, set, "sealed", "again");
        let none = Cli::new(env!("CARGO_BIN_EXE_windlass-under-test"));
        let url = format!("file://{}", work.join("sealed").display());
        assert_ne!(none.with("WINDLASS_REPO", &url).run(&["points", "whole"]).code, 0);
    }
}

#[test]
fn damage_that_an_earlier_build_found_is_still_known_and_mended() {
    for set in SETS {
        let (work, cli) = unpack(set, "damaged");
        expect(&cli, "whole", &[(5, "damaged"), (6, "damaged")]);
        let to = work.join("to");
        assert_eq!(cli.run(&["restore", "whole@6", "--to-device", to.to_str().unwrap()]).code, 3);
        image(&cli, &work.join("whole"), 1);
        cli.ok(&["backup", "whole"]);
        assert_eq!(points(&cli, "whole").pop().unwrap().1, "complete");
        cli.ok(&["check", "whole", "--read-data"]);
    }
}
