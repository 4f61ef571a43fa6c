//! The command line on a store that has lost something: found, written into the log, stored again from the volume, and shown.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::fs;
use std::path::{Path, PathBuf};

use windlass_tests::appliance::{image_of, plant};
use windlass_tests::cli::Cli;
use windlass_tests::workdir::Workdir;

const IMAGE_BYTES: u64 = 32 << 20;

/// A repository with a point of an ext4 image, as files and as one image.
struct Two {
    work: Workdir,
    cli: Cli,
}

const POLICIES: [&str; 2] = ["files", "whole"];

fn two(name: &str) -> Two {
    let two = none(name);
    two.backup(&POLICIES);
    two
}

/// The same without policies and points.
fn none(name: &str) -> Two {
    let work = Workdir::new(name).unwrap();
    let (tree, image) = (work.dir("tree").unwrap(), work.join("device"));
    plant(&tree, 6, 1).unwrap();
    image_of(&tree, &image, IMAGE_BYTES).unwrap();
    let cli = Cli::new(env!("CARGO_BIN_EXE_windlass-under-test")).with_repository(work.path());
    cli.ok(&["repo", "init"]);
    Two { work, cli }
}

impl Two {
    /// Policies, and a point of each.
    fn backup(&self, policies: &[&str]) {
        for policy in policies {
            let reader = if *policy == "files" { "" } else { "=image" };
            let volume = format!("{}{reader}", self.work.join("device").display());
            self.cli.ok(&["policy", "set", policy, "--volume", &volume]);
            self.cli.ok(&["backup", policy]);
        }
    }
}

/// The largest file below a directory of the repository.
fn largest(work: &Workdir, kind: &str) -> PathBuf {
    fn all(dir: &Path, out: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
            let path = entry.path();
            if path.is_dir() { all(&path, out) } else { out.push(path) }
        }
    }
    let mut found = Vec::new();
    all(&work.join("repository").join(kind), &mut found);
    found.into_iter().max_by_key(|path| fs::metadata(path).unwrap().len()).unwrap()
}

/// States of a policy's points, oldest first.
fn states(cli: &Cli, policy: &str) -> Vec<String> {
    let document = cli.json(&["points", policy]);
    let points = document["points"].as_array().unwrap();
    points.iter().map(|point| point["status"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn what_a_check_found_is_stored_again_by_the_next_backup() {
    let Two { work, cli } = two("cli-check-lost");
    let victim = largest(&work, "obj");
    let aside = work.join("aside");
    fs::rename(&victim, &aside).unwrap();
    for policy in POLICIES {
        let checked = cli.run(&["check", policy]);
        if checked.code == 0 {
            continue;
        }
        assert_eq!(checked.code, 3, "{}", checked.stderr);
        assert!(checked.stdout.contains("the object is missing"), "{}", checked.stdout);
        assert_eq!(states(&cli, policy), ["damaged"]);
        let restored = cli.run(&["restore", policy, "--to", work.join(policy).to_str().unwrap()]);
        assert_eq!(restored.code, 3);
        assert!(restored.stderr.contains("is damaged: something that it needs"), "{}", restored.stderr);
        let again = cli.json(&["backup", policy]);
        assert!(again["bytes_stored_plain"].as_u64().unwrap() > 0, "{again}");
        assert_eq!(states(&cli, policy), ["damaged", "complete"]);
        cli.ok(&["check", policy, "--read-data"]);
        let third = cli.json(&["backup", policy]);
        assert_eq!(third["bytes_stored_plain"], 0, "it is stored again once");
        // The object comes back: a check that reads all of the old point finds it sound.
        fs::rename(&aside, &victim).unwrap();
        let first = cli.json(&["points", policy])["points"][0]["point"].to_string();
        cli.ok(&["check", &format!("{policy}@{first}"), "--read-data"]);
        assert_eq!(states(&cli, policy), ["complete", "complete", "complete"]);
        return;
    }
    unreachable!("neither point needs the largest object");
}

#[test]
fn a_backup_finds_what_is_not_listed_any_more_once_a_day() {
    for policy in POLICIES {
        let one = none("cli-presence");
        one.backup(&[policy]);
        let Two { work, cli } = one;
        fs::remove_file(largest(&work, "obj")).unwrap();
        // The sweep goes on beside the backup, whose point stands on what the last one stands on.
        let swept = cli.run(&["backup", policy, "--json"]);
        assert_eq!(swept.code, 3, "a damaged point is no success: {}", swept.stderr);
        assert!(swept.stderr.contains("1 object of the store is missing or damaged"), "{}", swept.stderr);
        let outcome = swept.documents().pop().unwrap();
        assert_eq!(outcome["damaged"], true, "{outcome}");
        assert_eq!(states(&cli, policy), ["damaged", "damaged"]);
        let again = cli.run(&["backup", policy]);
        assert!(again.code == 0 && !again.stderr.contains("missing"), "not twice a day: {}", again.stderr);
        assert_eq!(states(&cli, policy), ["damaged", "damaged", "complete"]);
        cli.ok(&["check", policy, "--read-data"]);
    }
}

#[test]
fn an_object_that_a_restore_found_cut_short_stays_damaged_though_the_store_lists_it() {
    let one = none("cli-short");
    one.backup(&["files"]);
    let Two { work, cli } = one;
    let victim = largest(&work, "obj");
    fs::OpenOptions::new().write(true).open(&victim).unwrap().set_len(64).unwrap();
    // One object is one fault, with all that needs it.
    let checked = cli.run(&["check", "files", "--json"]).documents().pop().unwrap();
    let (faults, damaged) = (checked["fault_list"].as_array().unwrap(), &checked["items_damaged"]);
    assert!(faults.len() == 1 && faults[0]["path_count"] == *damaged, "{checked}");
    assert!(damaged.as_u64() > Some(1), "{checked}");
    let restored = cli.run(&["restore", "files", "--to", work.join("to").to_str().unwrap()]);
    assert_eq!(restored.code, 3, "{}", restored.stderr);
    assert!(restored.stderr.contains("is cut short"), "{}", restored.stderr);
    assert_eq!(states(&cli, "files"), ["damaged"]);
    // The first sweep is made beside this backup; it stores again what the object held.
    let again = cli.json(&["backup", "files"]);
    assert!(again["bytes_stored_plain"].as_u64().unwrap() > 0, "{again}");
    assert_eq!(states(&cli, "files"), ["damaged", "complete"], "being listed does not make it whole");
    cli.ok(&["check", "files", "--read-data"]);
}

#[test]
fn a_lost_segment_names_the_rebuild_and_its_rows_are_written_anew() {
    let Two { work, cli } = two("cli-segment-lost");
    fs::remove_file(largest(&work, "seg")).unwrap();
    let damaged: Vec<&str> =
        POLICIES.into_iter().filter(|policy| cli.run(&["check", policy]).code != 0).collect();
    let [policy] = damaged[..] else { panic!("one of the two: {damaged:?}") };
    let checked = cli.run(&["check", policy]);
    assert_eq!(checked.code, 3, "{}", checked.stderr);
    assert!(checked.stdout.contains("windlass repo rebuild"), "{}", checked.stdout);
    assert_eq!(states(&cli, policy), ["damaged"]);
    cli.ok(&["backup", policy]);
    assert_eq!(states(&cli, policy), ["damaged", "complete"]);
    cli.ok(&["check", policy, "--read-data"]);
}

#[test]
fn frames_are_opened_again_before_they_are_sent_a_sample_or_all() {
    let Two { work, cli } = two("cli-proofs");
    let count = |document: &serde_json::Value, name: &str| document[name].as_u64().unwrap();
    let none = cli.json(&["backup", "whole"]);
    assert_eq!((count(&none, "frames"), count(&none, "frames_proven")), (0, 0), "nothing is new");
    let image = work.join("device").display().to_string() + "=image";
    for policy in ["all", "some"] {
        cli.ok(&["policy", "set", policy, "--volume", &image]);
    }
    let all = cli.json(&["backup", "all", "--paranoid"]);
    assert!(count(&all, "frames") > 1 && count(&all, "frames") == count(&all, "frames_proven"), "{all}");
    assert!(count(&all, "bytes_proven") > 0, "{all}");
    let some = cli.json(&["backup", "some"]);
    assert_eq!(count(&some, "frames_proven"), count(&some, "frames").div_ceil(64), "{some}");
}

#[test]
fn a_log_without_its_newest_entries_says_which_and_goes_on() {
    let one = none("cli-lost-end");
    one.backup(&["files"]);
    let Two { work, cli } = one;
    let log = work.join("repository/log");
    fs::write(log.join("notes"), "of a person").unwrap();
    let checked = cli.run(&["check", "files", "--read-data"]);
    assert_eq!(checked.code, 0, "{}", checked.stdout);
    assert!(
        checked.stdout.contains("note      log/notes: it has none of the log's names"),
        "{}",
        checked.stdout
    );
    cli.ok(&["backup", "files"]);
    let head = cli.json(&["repo", "info"])["slot"].as_u64().unwrap();
    // The yield and what was before it; and a checkpoint of them, if there is one.
    for slot in head - 2..=head {
        fs::remove_file(log.join(format!("{slot:020}"))).unwrap();
        for entry in fs::read_dir(work.join("repository/ckpt")).unwrap().map(Result::unwrap) {
            if entry.file_name().to_string_lossy().starts_with(&format!("{slot:020}-")) {
                fs::remove_file(entry.path()).unwrap();
            }
        }
    }
    let said = cli.run(&["points", "files"]).stderr;
    let (ends, named) = (format!("ends at entry {}", head - 3), format!("went on to entry {}", head - 1));
    assert!(said.contains(&ends) && said.contains(&named), "{said}");
    let left = states(&cli, "files").len();
    // With the yield, that the lock was let go is lost as well: it is waited out.
    cli.ok(&["backup", "files"]);
    assert_eq!(states(&cli, "files"), vec!["complete"; left + 1]);
    assert_eq!(cli.run(&["points", "files"]).stderr, "");
    cli.ok(&["check", "files", "--read-data"]);
    assert!(cli.json(&["repo", "info"])["slot"].as_u64().unwrap() > head + 1000);
}
