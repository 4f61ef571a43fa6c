//! What a shell and `man` are given.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::process::Command;

use windlass_agent::work::entry::Place;
use windlass_agent::work::table;
use windlass_tests::cli::Cli;
use windlass_tests::workdir::Workdir;

fn program() -> Cli {
    Cli::new(env!("CARGO_BIN_EXE_windlass-under-test"))
}

#[test]
fn a_shell_completes_what_the_program_takes() {
    let cli = program();
    let bash = cli.ok(&["completions", "bash"]);
    let script = format!(
        "{bash}\nCOMP_WORDS=(windlass policy s); COMP_CWORD=2; COMPREPLY=(); _windlass windlass s policy; echo \"${{COMPREPLY[@]}}\"\n\
         COMP_WORDS=(windlass restore --map); COMP_CWORD=2; COMPREPLY=(); _windlass windlass --map restore; echo \"${{COMPREPLY[@]}}\"\n"
    );
    let work = Workdir::new("cli-completions").unwrap();
    fs::write(work.join("script"), script).unwrap();
    let shell = Command::new("bash").arg("--norc").arg(work.join("script")).output().unwrap();
    let said = String::from_utf8_lossy(&shell.stdout).into_owned();
    assert!(shell.status.success(), "{}", String::from_utf8_lossy(&shell.stderr));
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines[0].split(' ').collect::<std::collections::BTreeSet<_>>(), ["set", "show"].into());
    assert_eq!(lines[1], "--map-owner");
    assert!(cli.ok(&["completions", "zsh"]).starts_with("#compdef windlass"));
    assert!(cli.ok(&["completions", "fish"]).contains("complete -c windlass"));
    assert_eq!(cli.run(&["completions", "tcsh"]).code, 2);
    assert_eq!(cli.run(&["completions", "bash", "--json"]).code, 2);
}

#[test]
fn every_command_has_a_manual_page() {
    let work = Workdir::new("cli-man").unwrap();
    let dir = work.join("man/man1");
    let made = Command::new(env!("CARGO_BIN_EXE_manual")).arg(&dir).output().unwrap();
    let pages: usize = String::from_utf8_lossy(&made.stdout).split(' ').next().unwrap().parse().unwrap();
    assert_eq!(fs::read_dir(&dir).unwrap().count(), pages);
    for entry in table::all().filter(|entry| entry.place != Place::Socket) {
        let name = format!("windlass-{}.1", entry.name.replace(' ', "-"));
        assert!(dir.join(&name).exists(), "{name}");
    }
    let page = |name: &str| fs::read_to_string(dir.join(name)).unwrap();
    assert!(page("windlass.1").starts_with(".ie") || page("windlass.1").contains(".TH windlass 1"));
    let set = page("windlass-policy-set.1");
    for text in [".TH windlass-policy-set 1", "keep\\-daily", "windlass policy set"] {
        assert!(set.contains(text), "{text}: {set}");
    }
    assert!(dir.join("windlass-key-passphrase.1").exists());
}
