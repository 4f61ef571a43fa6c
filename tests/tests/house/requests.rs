//! What commands ask of the store, request by request, and that it does not grow with a repository's age.
//!
//! `golden/requests.txt` is the table. A change that saves requests changes it; one that costs some says so there. Beats are not counted:
//! they depend on how long a command takes.
#![allow(clippy::unwrap_used, reason = "helpers of tests, which say so by failing")]

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use windlass_tests::cli::Cli;
use windlass_tests::engines::scratch::Scratch;

/// Requests of an opening at most: the `format` object, checkpoints, slots, boundary.
const OPENING_MAX: usize = 20;

/// An ext4 image with a small file; `None` (loudly) where mke2fs is missing.
fn image(scratch: &Scratch) -> Option<PathBuf> {
    let tree = scratch.path().join("tree");
    fs::create_dir_all(tree.join("docs")).unwrap();
    fs::write(tree.join("docs/a.txt"), vec![1; 20_000]).unwrap();
    let image = scratch.path().join("image");
    fs::File::create(&image).unwrap().set_len(8 << 20).unwrap();
    let mut make = Command::new("/usr/sbin/mke2fs");
    make.args(["-q", "-F", "-t", "ext4", "-d"]).args([&tree, &image]);
    if !make.status().is_ok_and(|status| status.success()) {
        eprintln!("SKIPPED: mke2fs is missing or failed");
        return None;
    }
    Some(image)
}

/// Requests of a command: verb and key.
fn requests(cli: &Cli, arguments: &[&str]) -> Vec<(String, String)> {
    let ended = cli.run(&[arguments, &["-vv"]].concat());
    assert_eq!(ended.code, 0, "{arguments:?}: {}", ended.stderr);
    let lines = ended.stderr.lines().filter_map(|line| line.split_once("debug: store: "));
    let asked = lines.filter_map(|(_, request)| request.split_once(' '));
    asked.map(|(verb, key)| (verb.to_owned(), key.to_owned())).collect()
}

fn line(table: &mut String, what: &str, asked: &[(String, String)]) {
    let of = |verb: &str| {
        asked.iter().filter(|(of, key)| of == verb && !(of == "PUT" && key.starts_with("beat/"))).count()
    };
    let [list, get, put, delete] = ["LIST", "GET", "PUT", "DELETE"].map(of);
    writeln!(table, "{what:<24} {list:>4} {get:>4} {put:>4} {delete:>6}").unwrap();
}

/// Of a command that only reads the log: all that it asks.
fn opens_in_few(asked: &[(String, String)]) {
    assert!(asked.len() <= OPENING_MAX, "{} requests: {asked:?}", asked.len());
}

#[test]
fn commands_ask_the_store_for_no_more_than_the_table_says() {
    let scratch = Scratch::new("cli-requests");
    let Some(image) = image(&scratch) else { return };
    let cli = Cli::new(env!("CARGO_BIN_EXE_windlass-under-test")).with_repository(scratch.path());
    cli.ok(&["repo", "init"]);
    cli.ok(&["policy", "set", "a", "--volume", image.to_str().unwrap()]);
    let mut table = format!("{:<24} {:>4} {:>4} {:>4} {:>6}\n", "command", "LIST", "GET", "PUT", "DELETE");
    for backup in 1..=201 {
        let asked = requests(&cli, &["backup", "a"]);
        if ![1, 2, 24, 201].contains(&backup) {
            continue;
        }
        line(&mut table, &format!("backup {backup}"), &asked);
        let points = requests(&cli, &["points", "a"]);
        line(&mut table, &format!("points, of {backup}"), &points);
        opens_in_few(&points);
        line(&mut table, "ls", &requests(&cli, &["ls", "a", "/docs"]));
        line(&mut table, "cat", &requests(&cli, &["cat", "a", "/docs/a.txt"]));
    }
    let golden = include_str!("../../golden/requests.txt");
    assert!(table == golden, "golden/requests.txt says\n{golden}and it was\n{table}");
}
