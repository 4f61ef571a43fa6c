//! The memory budget, held against what the kernel says of the program.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use windlass_tests::appliance::{image_of, plant};
use windlass_tests::cli::Cli;
use windlass_tests::engines::moto::Moto;
use windlass_tests::engines::skip;
use windlass_tests::workdir::Workdir;

/// Budgets: the least that is accepted, one between, the default.
const BUDGETS_MIB: [u64; 3] = [24, 32, 64];

/// A tree of `dirs` directories with 27 items each as an ext4 image of `bytes`.
fn tree(work: &Workdir, dirs: u64, bytes: u64) -> PathBuf {
    let (tree, image) = (work.dir("tree").unwrap(), work.join("image"));
    plant(&tree, 7, dirs).unwrap();
    image_of(&tree, &image, bytes).unwrap();
    image
}

/// A repository with the policy `p` of `image`.
fn begin(cli: &Cli, image: &Path) {
    cli.ok(&["repo", "init"]);
    cli.ok(&["policy", "set", "p", "--volume", image.to_str().unwrap()]);
}

fn program() -> Cli {
    Cli::new(env!("CARGO_BIN_EXE_windlass-under-test"))
}

/// Runs a command to its end; the greatest `VmHWM` that it says of itself, and that the kernel said of it meanwhile, in bytes.
#[allow(clippy::disallowed_methods, reason = "asks again and again while a process runs")]
fn peak(cli: &Cli, arguments: &[&str]) -> u64 {
    let mut command = cli.command(&[arguments, &["--json"]].concat());
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let status = format!("/proc/{}/status", child.id());
    let mut seen = 0;
    while child.try_wait().unwrap().is_none() {
        let text = fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
        seen = seen.max(kib.unwrap_or(0) << 10);
        std::thread::sleep(Duration::from_millis(2));
    }
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let last: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    let said = last["peak_memory_bytes"].as_u64().unwrap();
    assert!(said > 0, "{arguments:?} says what it took");
    seen.max(said)
}

/// What a build that is not optimised for release has resident on top, in bytes: its code is several times as large.
const UNOPTIMISED_BYTES: u64 = if cfg!(debug_assertions) { 3 << 20 } else { 0 };

/// A backup, one of what did not change, a check of all data and a restore within `mib`.
fn stays_within(cli: &Cli, to: &Path, mib: u64) {
    let (budget, to) = (format!("{mib}MiB"), to.join(format!("restored-{mib}")));
    for command in [
        &["backup", "p"][..],
        &["backup", "p"],
        &["check", "p", "--read-data"],
        &["restore", "p", "--to", to.to_str().unwrap()],
    ] {
        let peak = peak(cli, &[command, &["--memory", &budget]].concat());
        let most = (mib << 20) + UNOPTIMISED_BYTES;
        assert!(peak <= most, "{command:?} --memory {budget}: {} KiB", peak >> 10);
    }
    fs::remove_dir_all(to).unwrap();
}

#[test]
fn the_peak_stays_within_the_budget() {
    let work = Workdir::new("memory-peak").unwrap();
    let image = tree(&work, 40, 160 << 20);
    for mib in BUDGETS_MIB {
        let cli = program().with_repository(&work.dir(&format!("budget-{mib}")).unwrap());
        begin(&cli, &image);
        stays_within(&cli, work.path(), mib);
    }
}

/// A passphrase is made slow to guess by the memory that each guess takes, which is given back before any of the work begins.
#[test]
fn a_passphrase_fits_the_least_budget_too() {
    let work = Workdir::new("memory-passphrase").unwrap();
    let secret = work.join("passphrase");
    fs::write(&secret, "correct horse").unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
    let cli = program()
        .with("WINDLASS_REPO", &format!("file://{}", work.join("repository").display()))
        .with("WINDLASS_PASSPHRASE_FILE", secret.to_str().unwrap());
    begin(&cli, &tree(&work, 4, 32 << 20));
    stays_within(&cli, work.path(), BUDGETS_MIB[0]);
}

#[test]
fn the_peak_stays_within_the_budget_to_s3_over_tls() {
    let name = "the_peak_stays_within_the_budget_to_s3_over_tls";
    let moto = match Moto::start_tls() {
        Ok(moto) => moto,
        Err(reason) => return skip(name, &reason),
    };
    let work = Workdir::new("memory-peak-s3").unwrap();
    let image = tree(&work, 40, 160 << 20);
    moto.make_bucket_tls("memory").unwrap();
    let ca = moto.certificates.as_ref().unwrap().path().join("ca.pem");
    for mib in BUDGETS_MIB {
        let cli = program()
            .with_repository(&work.dir(&format!("budget-{mib}")).unwrap())
            .with("WINDLASS_REPO", &format!("s3://memory/budget-{mib}"))
            .with("WINDLASS_ENDPOINT", &moto.s3.endpoint)
            .with("WINDLASS_CA_FILE", ca.to_str().unwrap())
            .with("AWS_ACCESS_KEY_ID", "testing")
            .with("AWS_SECRET_ACCESS_KEY", "testing");
        begin(&cli, &image);
        stays_within(&cli, work.path(), mib);
    }
}

#[test]
fn less_than_the_least_budget_is_refused_by_all_that_count_on_it() {
    let work = Workdir::new("memory-least").unwrap();
    let cli = program().with_repository(work.path());
    begin(&cli, &tree(&work, 1, 16 << 20));
    cli.ok(&["backup", "p", "--memory", "24MiB"]);
    let to = work.join("to");
    for command in [&["backup", "p"][..], &["check", "p"], &["restore", "p", "--to", to.to_str().unwrap()]] {
        let ended = cli.run(&[command, &["--memory", "23MiB"]].concat());
        assert_eq!(ended.code, 2, "{command:?}: {}", ended.stderr);
        assert!(ended.failure().contains("at least 24 MiB are needed"), "{}", ended.stderr);
    }
    assert!(!to.exists());
}

#[test]
fn a_budget_is_a_bound_and_not_what_is_taken() {
    let work = Workdir::new("memory-bound").unwrap();
    let cli = program().with_repository(work.path());
    begin(&cli, &tree(&work, 8, 64 << 20));
    let done = cli.json(&["backup", "p", "--memory", "1GiB"]);
    let peak = done["peak_memory_bytes"].as_u64().unwrap();
    assert!(peak > 1 << 20 && peak < 256 << 20, "{peak} bytes for a volume of 64 MiB");
}

#[test]
fn a_budget_above_what_there_is_is_refused() {
    let work = Workdir::new("memory-refused").unwrap();
    let cli = program().with_repository(work.path());
    let ended = cli.run(&["backup", "p", "--memory", "1048576GiB"]);
    assert_eq!(ended.code, 2, "{}", ended.stderr);
    assert!(ended.failure().contains("is more than this process may have: there are "), "{}", ended.stderr);
}
