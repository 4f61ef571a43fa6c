//! Stores that are not there, cannot be written, or say what they should not: what a command says, and how soon.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests, and their helpers")]

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use nix::mount::{MsFlags, mount};
use windlass_tests::cli::{Cli, Ended};
use windlass_tests::engines::faulty::{Fault, Faulty};
use windlass_tests::engines::scratch::Scratch;
use windlass_tests::engines::{free_port, skip};
use windlass_tests::image::Tmpfs;

fn cli(scratch: &Scratch) -> Cli {
    Cli::new(env!("CARGO_BIN_EXE_windlass-under-test")).with_repository(scratch.path())
}

/// A command against an S3 server at `endpoint`.
fn s3(cli: &Cli, endpoint: &str, arguments: &[&str]) -> Command {
    let mut command = cli.command(&[&["--path-style", "--endpoint", endpoint], arguments].concat());
    command.env("WINDLASS_REPO", "s3://bucket/x");
    command.env("AWS_ACCESS_KEY_ID", "AK").env("AWS_SECRET_ACCESS_KEY", "SK");
    command
}

fn end(mut command: Command) -> Ended {
    let output = command.output().unwrap();
    Ended {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

#[test]
fn a_store_that_is_not_there_is_told_with_the_reason_while_the_command_still_tries() {
    let scratch = Scratch::new("cli-store-none");
    let refused = format!("127.0.0.1:{}", free_port().unwrap());
    let hangs = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    for (host, reason) in [
        (refused.clone(), format!("connection refused by {refused}")),
        ("no-such-host.invalid".to_owned(), "host name no-such-host.invalid not found".to_owned()),
        (hangs.local_addr().unwrap().to_string(), "the store answers slowly".to_owned()),
    ] {
        let mut command = s3(&cli(&scratch), &format!("http://{host}"), &["repo", "info"]);
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut said = String::new();
        BufReader::new(child.stderr.take().unwrap()).read_line(&mut said).unwrap();
        // Not its end: it goes on for half a minute.
        assert!(child.try_wait().unwrap().is_none(), "{said}");
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(said.contains(&reason) && said.contains(" 3 s"), "{said}");
    }
}

#[test]
fn words_of_a_server_do_not_drive_the_terminal() {
    let scratch = Scratch::new("cli-store-words");
    let server = Faulty::start();
    let said =
        "<Error><Code>EntityTooLarge</Code><Message>\u{1b}[2J\u{9b}1m\u{202e}go\naway</Message></Error>";
    let answer = format!("HTTP/1.1 400 X\r\nContent-Length: {}\r\n\r\n{said}", said.len());
    let fault = Fault::Raw(answer.leak());
    for options in [&["repo", "info"][..], &["repo", "info", "--json"], &["-vvv", "repo", "probe"]] {
        server.plan("", &fault, 8);
        let ended = end(s3(&cli(&scratch), &server.s3.endpoint, options));
        server.clear();
        assert_eq!(ended.code, 1, "{ended:?}");
        assert!(
            ended.stderr.contains("\\u{1b}[2J") && ended.stderr.contains("go\\naway"),
            "{}",
            ended.stderr
        );
        let all = format!("{}{}", ended.stdout, ended.stderr);
        assert!(!all.contains(['\u{1b}', '\u{9b}', '\u{202e}']), "{all:?}");
    }
}

#[test]
fn a_directory_that_is_missing_or_read_only_is_called_so() {
    let name = "a_directory_that_is_missing_or_read_only_is_called_so";
    let scratch = Scratch::new("cli-store-ro");
    let cli = cli(&scratch);
    let none = cli.run(&["--repo", "file:///no/such/place", "points", "a"]);
    assert!(
        none.failure().contains("/no/such/place: this directory does not exist; create it first"),
        "{none:?}"
    );
    if !windlass_tests::privilege::is_root() {
        return skip(name, "mounting a tmpfs needs root");
    }
    let disk = scratch.path().join("repository");
    std::fs::create_dir(&disk).unwrap();
    let tmpfs = match Tmpfs::mount(&disk, "size=4m") {
        Ok(tmpfs) => tmpfs,
        Err(why) => return skip(name, &why.to_string()),
    };
    cli.ok(&["repo", "init"]);
    let flags = MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
    mount(None::<&str>, tmpfs.dir(), None::<&str>, flags, None::<&str>).unwrap();
    cli.ok(&["repo", "info"]);
    let ended = cli.run(&["policy", "set", "a", "--volume", "/dev/none=image"]);
    let said = ended.failure();
    assert!(said.contains("cannot write to the repository: read-only file system"), "{ended:?}");
    assert!(!said.contains("credentials"), "{said}");
}

/// The program under strace, which answers some of its system calls with an error in the kernel's place.
fn injected(cli: &Cli, faults: &[&str], arguments: &[&str]) -> Command {
    let plain = cli.command(arguments);
    let mut command = Command::new("strace");
    command.args(["-f", "-o", "/dev/null", "-e", "trace=linkat,renameat2"]);
    for fault in faults {
        command.args(["-e", &format!("inject={fault}")]);
    }
    command.arg(plain.get_program()).args(plain.get_args()).env_clear().stdin(Stdio::null());
    command.envs(plain.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command
}

#[test]
fn a_file_system_without_hard_links_holds_a_repository_and_one_without_either_is_named() {
    let name = "a_file_system_without_hard_links_holds_a_repository_and_one_without_either_is_named";
    if !Command::new("strace").args(["-o", "/dev/null", "true"]).status().is_ok_and(|status| status.success())
    {
        return skip(name, "strace is missing, or may not trace");
    }
    // What exFAT, FAT and some shares say to link(2).
    const NO_LINKS: &str = "linkat:error=EPERM";
    let scratch = Scratch::new("cli-store-links");
    let cli = cli(&scratch);
    let set = ["policy", "set", "a", "--volume", "/dev/none=image"];
    for arguments in [&["repo", "init"][..], &["repo", "probe"], &set, &["points", "a"]] {
        let ended = end(injected(&cli, &[NO_LINKS], arguments));
        assert_eq!(ended.code, 0, "{arguments:?}: {ended:?}");
    }
    assert!(
        cli.ok(&["policy", "show", "a"]).contains("image"),
        "with links and without it is one repository"
    );
    let neither = [NO_LINKS, "renameat2:error=EINVAL"];
    for arguments in [&["repo", "probe"][..], &set] {
        let ended = end(injected(&cli, &neither, arguments));
        assert_eq!(ended.code, 1, "{ended:?}");
        let said = ended.failure();
        assert!(said.contains("neither hard links nor a rename") && said.contains("--lease-store"), "{said}");
    }
}

#[test]
fn a_limit_below_the_lowest_is_refused_and_zero_is_none() {
    let scratch = Scratch::new("cli-store-limit");
    let cli = cli(&scratch);
    cli.ok(&["repo", "init", "--limit-up", "0"]);
    for option in ["--limit-up", "--limit-down"] {
        let ended = cli.run(&["repo", "info", option, "1"]);
        assert_eq!(ended.code, 2);
        assert!(ended.stderr.contains("at least 64KiB, or 0 for no limit"), "{}", ended.stderr);
        cli.ok(&["repo", "info", option, "64KiB"]);
    }
}
