//! The README's example, and the year of the operator's manual, run as they stand: what they show works, and prints what is said.
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

#[test]
fn the_year_in_ten_commands_is_one_that_works() {
    if !["/usr/sbin/mke2fs", "/sbin/mke2fs"].iter().any(|path| Path::new(path).exists()) {
        return skip("the_year_in_ten_commands_is_one_that_works", "mke2fs is missing");
    }
    let scratch = Scratch::new("year");
    let programs = scratch.path().join("bin");
    fs::create_dir_all(&programs).unwrap();
    symlink(env!("CARGO_BIN_EXE_windlass-under-test"), programs.join("windlass")).unwrap();
    let manual = Path::new(env!("CARGO_MANIFEST_DIR")).join("../board/doc/operate.md");
    let manual = fs::read_to_string(manual).unwrap();
    let year = manual.split_once("## A year of a repository, in ten commands\n").unwrap().1;
    let year = year.split_once("```sh\n").unwrap().1.split_once("```\n").unwrap().0;
    let commands: Vec<&str> = year.lines().collect();
    assert!(commands.len() == 10 && commands.iter().all(|line| line.starts_with("windlass ")), "{year}");
    // The volume and the variables of the README's example.
    let (example, _) = example();
    let setup = example.split("windlass ").next().unwrap().replace("cd \"$(mktemp -d)\"\n", "");
    let setup = setup.replace("mkdir repository && ", "mkdir repository\n");
    let ends = "test \"$(cat back/letters/bob.txt)\" = 'Dear Bob'\nWINDLASS_KEY_FILE=\"$PWD/safe.key\" windlass points home\n";
    let path = format!("{}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", programs.display());
    let mut shell = Command::new("sh");
    shell.args(["-e", "-c", &format!("{setup}{year}{ends}")]).env_clear().env("PATH", path);
    let ended = shell.env("TMPDIR", scratch.path()).current_dir(scratch.path()).output().unwrap();
    let printed = String::from_utf8_lossy(&ended.stdout).into_owned();
    assert!(ended.status.success(), "{printed}{}", String::from_utf8_lossy(&ended.stderr));
    for says in ["opens the repository too now", "appeared", "ALONE", "sound:", "held: audit"] {
        assert!(printed.contains(says), "{says}: {printed}");
    }
}
