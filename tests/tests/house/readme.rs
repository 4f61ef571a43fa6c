//! The README's example, run as it stands: what it shows works, and prints what the README says it prints.
//!
//! Needs mke2fs; says `SKIPPED` otherwise. Source: ours.
#![allow(clippy::unwrap_used, reason = "helpers of tests, which say so by failing")]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use windlass_tests::engines::scratch::Scratch;
use windlass_tests::privilege::skip;

/// The README, cut at the lines that open and close the first block of shell.
fn example() -> (String, String) {
    let readme = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md")).unwrap();
    let (script, rest) = readme.split_once("```sh\n").unwrap().1.split_once("```\n").unwrap();
    (script.to_owned(), rest.to_owned())
}

/// A line without its numbers: sizes and times differ from run to run.
fn words(line: &str) -> Vec<String> {
    let words = line.split(|c: char| !c.is_ascii_alphabetic()).filter(|word| !word.is_empty());
    let units = ["s", "ms", "B", "KiB", "MiB", "GiB"];
    words.filter(|word| !units.contains(word)).map(str::to_owned).collect()
}

#[test]
fn the_readme_s_example_does_what_it_says() {
    if !["/usr/sbin/mke2fs", "/sbin/mke2fs"].iter().any(|path| Path::new(path).exists()) {
        return skip("the_readme_s_example_does_what_it_says", "mke2fs is missing");
    }
    let scratch = Scratch::new("readme");
    let programs = scratch.path().join("bin");
    fs::create_dir_all(&programs).unwrap();
    symlink(env!("CARGO_BIN_EXE_windlass-under-test"), programs.join("windlass")).unwrap();
    let (script, says) = example();
    let path = format!("{}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", programs.display());
    let mut shell = Command::new("sh");
    shell.args(["-e", "-c", &script]).env_clear().env("PATH", path).env("TMPDIR", scratch.path());
    let ended = shell.current_dir(scratch.path()).output().unwrap();
    let printed = String::from_utf8_lossy(&ended.stdout).into_owned();
    let complained = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.success(), "{printed}{complained}");
    let shown: Vec<&str> = says
        .lines()
        .skip_while(|line| !line.starts_with("    "))
        .take_while(|line| line.starts_with("    "))
        .collect();
    assert!(shown.len() >= 3, "{shown:?}");
    for line in shown {
        assert!(printed.lines().any(|printed| words(printed) == words(line)), "{line}\nin\n{printed}");
    }
}
