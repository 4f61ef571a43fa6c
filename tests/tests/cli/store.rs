//! Stores that are not there, cannot be written, or say what they should not: what a command says, and how soon.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests, and their helpers")]
#![allow(clippy::disallowed_methods, reason = "the test waits for another process, with a deadline")]

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use windlass_tests::cli::{Cli, Ended};
use windlass_tests::engines::faulty::{Fault, Faulty};
use windlass_tests::engines::scratch::Scratch;
use windlass_tests::engines::{free_port, skip};
use windlass_tests::error::{Result, output};
use windlass_tests::fixture::noise;
use windlass_tests::image::{Access, Loop, Tmpfs};

/// Longest wait for another process to get somewhere.
const PATIENCE: Duration = Duration::from_secs(120);

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

/// An exFAT volume of 64 MiB, mounted by exfat-fuse: it has no hard links, and no rename that replaces nothing.
struct Exfat {
    dir: PathBuf,
    /// Detached after the volume is unmounted.
    _device: Loop,
}

impl Exfat {
    fn mount(scratch: &Path) -> Result<Exfat> {
        let (image, dir) = (scratch.join("exfat.img"), scratch.join("exfat"));
        fs::File::create(&image).unwrap().set_len(64 << 20).unwrap();
        fs::create_dir(&dir).unwrap();
        output(Command::new("mkfs.exfat").arg(&image))?;
        let device = Loop::attach(&image, Access::ReadWrite)?;
        output(Command::new("mount.exfat-fuse").arg(device.device()).arg(&dir))?;
        Ok(Exfat { dir, _device: device })
    }
}

impl Drop for Exfat {
    fn drop(&mut self) {
        let _ = umount2(&self.dir, MntFlags::empty()).or_else(|_| umount2(&self.dir, MntFlags::MNT_DETACH));
    }
}

#[test]
fn a_repository_on_exfat_is_refused_by_name_and_holds_with_its_log_elsewhere() {
    let name = "a_repository_on_exfat_is_refused_by_name_and_holds_with_its_log_elsewhere";
    windlass_tests::requires_root!(name);
    let path = std::env::var_os("PATH").unwrap_or_default();
    for program in ["mkfs.exfat", "mount.exfat-fuse"] {
        if !std::env::split_paths(&path).any(|dir| dir.join(program).exists()) {
            return skip(name, &format!("no {program}"));
        }
    }
    let scratch = Scratch::new("cli-store-exfat");
    let volume = match Exfat::mount(scratch.path()) {
        Ok(volume) => volume,
        Err(why) => return windlass_tests::privilege::unsupported(name, &why.to_string()),
    };
    assert!(
        fs::write(volume.dir.join("a"), "").is_ok()
            && fs::hard_link(volume.dir.join("a"), volume.dir.join("b")).is_err()
    );
    let (repository, log) = (volume.dir.join("repository"), scratch.path().join("log"));
    fs::create_dir(&repository).unwrap();
    fs::create_dir(&log).unwrap();
    let cli = cli(&scratch).with("WINDLASS_REPO", &format!("file://{}", repository.display()));
    let refused = cli.run(&["repo", "init"]);
    assert_eq!(refused.code, 1, "{refused:?}");
    let said = refused.failure();
    assert!(said.contains("neither hard links nor a rename") && said.contains("--lease-store"), "{said}");

    let cli = cli.with("WINDLASS_LEASE_STORE", &format!("file://{}", log.display()));
    cli.ok(&["repo", "init"]);
    cli.ok(&["repo", "probe"]);
    let device = scratch.path().join("image");
    let write = |seed| fs::write(&device, noise(seed, 20 << 20)).unwrap();
    write(1);
    cli.ok(&["policy", "set", "a", "--volume", &format!("{}=image", device.display())]);
    cli.ok(&["backup", "a"]);
    // Killed when it has put something: the next finishes.
    write(2);
    let objects = || fs::read_dir(repository.join("obj")).map_or(0, Iterator::count);
    let (before, begun) = (objects(), Instant::now());
    let mut child =
        cli.command(&["backup", "a"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    while objects() == before && begun.elapsed() < PATIENCE {
        std::thread::yield_now();
    }
    child.kill().unwrap();
    if child.wait().unwrap().success() {
        eprintln!("it was over before it was killed: nothing is shown of a backup that stopped");
    }
    assert!(objects() > before, "it put nothing");
    cli.ok(&["backup", "a"]);
    for (point, seed) in [("a@1", 1), ("a", 2)] {
        cli.ok(&["check", point]);
        let to = scratch.path().join(format!("restored-{seed}"));
        cli.ok(&["restore", point, "--to", to.to_str().unwrap()]);
        assert!(fs::read(to.join("image")).unwrap() == noise(seed, 20 << 20), "{point}");
    }
    assert_eq!(
        fs::read_dir(repository.join(".tmp")).unwrap().count(),
        0,
        "what the killed one left is removed"
    );
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
