//! Object stores that get conditions wrong: refused by the probe, and good enough with the log in a store of its own, which is a
//! real etcd where there is one (it says so loudly where not) and a directory everywhere.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests, and their helpers")]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use windlass_agent::log::lease::Timing;
use windlass_agent::store::Store;
use windlass_agent::store::probe::{probe, probe_plain};
use windlass_agent::store::retry::RetryPolicy;
use windlass_agent::store::split::{LOG_KEYS, SplitStore};
use windlass_hal::clock::SystemClock;
use windlass_tests::appliance::{
    Appliance, Setup, Source, dir_store, expect_clean, expect_equal, image_of, plant,
};
use windlass_tests::cli::Cli;
use windlass_tests::conformance::store::{Extent, keys, run};
use windlass_tests::engines::etcd::Etcd;
use windlass_tests::engines::faulty::Faulty;
use windlass_tests::engines::skip;
use windlass_tests::store_fault::{Careless, CarelessStore, FaultPlan, FaultStore};
use windlass_tests::workdir::Workdir;

fn etcd(name: &str) -> Option<Etcd> {
    Etcd::start(1).map_err(|reason| skip(name, &reason)).ok()
}

fn careless(path: &Path, how: Careless) -> Arc<dyn Store> {
    Arc::new(CarelessStore::new(dir_store(path).unwrap(), Arc::new(SystemClock), how))
}

fn split(objects: Arc<dyn Store>, log: Arc<dyn Store>) -> Arc<dyn Store> {
    Arc::new(SplitStore::new(objects, log))
}

fn planted(work: &Workdir, seed: u64) -> (PathBuf, Source) {
    let (tree, image) = (work.dir("tree").unwrap(), work.join("image"));
    plant(&tree, seed, 3).unwrap();
    image_of(&tree, &image, 32 << 20).unwrap();
    (tree, Source::file_system(&image))
}

#[test]
fn careless_stores_are_refused_and_pass_with_the_log_elsewhere() {
    let work = Workdir::new("careless").unwrap();
    for (nonce, how) in [(1, Careless::Ignores), (2, Careless::Races), (3, Careless::Refuses)] {
        let objects = careless(&work.join("objects"), how);
        let fault = probe(&*objects, &SystemClock, nonce).unwrap_err();
        assert!(fault.is_about_conditions(), "{how:?}: {fault}");
        probe_plain(&*objects, &SystemClock, nonce).unwrap();
        let log = dir_store(&work.join("log")).unwrap();
        let both = split(Arc::clone(&objects), Arc::clone(&log));
        probe(&*both, &SystemClock, nonce).unwrap();
        for store in [&objects, &log] {
            assert_eq!(keys(&**store, "", ""), [], "{how:?}: probes clean up");
        }
        // All that a store must do, for keys of the log.
        run(
            &both,
            "log/conf",
            Extent { long_list_keys: 50, large_bytes: 200_000, races: 3, ..Extent::default() },
        );
    }
}

#[test]
fn a_backup_with_its_log_in_etcd_comes_back() {
    let name = "a_backup_with_its_log_in_etcd_comes_back";
    let Some(mut etcd) = etcd(name) else { return };
    let work = Workdir::new("e2e-etcd").unwrap();
    let (tree, source) = planted(&work, 1);
    let objects = careless(&work.join("objects"), Careless::Ignores);
    let storm = FaultPlan {
        seed: 1,
        lost_answer_permille: 100,
        lost_call_permille: 50,
        conflict_permille: 50,
        ..FaultPlan::default()
    };
    let log = Arc::new(FaultStore::new(etcd.store("e2e"), Arc::new(SystemClock), storm));
    let shared: Arc<dyn Store> = Arc::<FaultStore>::clone(&log);
    let retry = RetryPolicy { budget_ms: 2_000, ..Setup::default().retry };
    let setup = Setup { timing: Timing::default(), retry, ..Setup::default() };
    let appliance = Appliance::make(split(Arc::clone(&objects), shared), setup).unwrap();
    appliance.backup(&source).unwrap();
    let again = appliance.backup(&source).unwrap();
    assert_eq!(again.totals.items_same, again.totals.items);
    assert!(log.injected() > 0, "the storm met the log");
    log.switch_off(true);
    let restored = work.join("restored");
    expect_clean(&appliance.restore(&source, None, &restored).unwrap()).unwrap();
    expect_equal(&tree, &restored).unwrap();
    // The log is in etcd and nowhere else.
    let of_log = |key: &str| LOG_KEYS.iter().any(|known| key.starts_with(known));
    assert!(keys(&*objects, "", "").iter().all(|(key, _)| !of_log(key)));
    assert!(keys(&*etcd.store("e2e"), "log/", "").len() > 4);
    // Without etcd nothing is done, in words; with it everything goes on.
    etcd.kill(0);
    let why = appliance.backup(&source).unwrap_err().to_string();
    println!("etcd is down: {why}");
    etcd.restart(0).unwrap();
    appliance.backup(&source).unwrap();
    let restored = work.join("again");
    expect_clean(&appliance.restore(&source, None, &restored).unwrap()).unwrap();
    expect_equal(&tree, &restored).unwrap();
}

/// The whole way on the command line, with a server that ignores conditions and the log at `lease`.
fn on_the_command_line(lease: &str, other: &str) {
    let work = Workdir::new("cli-lease").unwrap();
    let (tree, _) = planted(&work, 2);
    let server = Faulty::start();
    server.versioning(true);
    let credentials = server.s3.keys_file("SK").display().to_string();
    let (key, image) = (work.join("key").display().to_string(), work.join("image").display().to_string());
    let common = [
        "--repo",
        "s3://bucket/rack7",
        "--endpoint",
        &server.s3.endpoint,
        "--path-style",
        "--credentials-file",
        &credentials,
        "--key-file",
        &key,
    ];
    let cli = Cli::new(env!("CARGO_BIN_EXE_windlass-under-test"));
    let cli_with = |options: &[&str], more: &[&str]| cli.run(&[&common[..], options, more].concat());
    let bare = |more: &[&str]| cli_with(&[], more);
    let leased = |more: &[&str]| cli_with(&["--lease-store", lease], more);
    let done = |more: &[&str]| {
        let ended = leased(&[more, &["--json"]].concat());
        assert_eq!(ended.code, 0, "{more:?}: {}", ended.stderr);
        ended.documents().pop().unwrap()
    };

    // Alone it is refused, and the way out is named.
    for command in [["repo", "probe"], ["repo", "init"]] {
        let refused = bare(&command);
        assert!(refused.code == 1 && refused.stderr.contains("see --lease-store"), "{}", refused.stderr);
    }
    assert_eq!(done(&["repo", "probe"])["ok"], true);
    let made = done(&["repo", "init"]);
    done(&["policy", "set", "docs", "--volume", &image]);
    done(&["backup", "docs"]);
    let out = work.join("out");
    done(&["restore", "docs", "--to", out.to_str().unwrap()]);
    expect_equal(&tree, &out).unwrap();
    done(&["check", "docs", "--read-data"]);
    let info = done(&["repo", "info"]);
    assert_eq!((&info["repository"], &info["points"]), (&made["repository"], &1.into()));
    assert!(info["log_store"].as_str().unwrap().contains(lease.split_once("://").unwrap().1), "{info}");

    // A process without the option does not begin a second log, nor does one that looks elsewhere.
    for command in [&["backup", "docs"][..], &["points", "docs"], &["repo", "info"]] {
        let refused = bare(command);
        assert!(
            refused.code == 2 && refused.failure().contains("WINDLASS_LEASE_STORE"),
            "{}",
            refused.stderr
        );
        let lost = cli_with(&["--lease-store", other], command);
        assert!(lost.code == 1 && lost.failure().contains("there is no log of"), "{}", lost.stderr);
    }
    let again = leased(&["repo", "init"]);
    assert!(again.code == 1 && again.failure().contains("a repository already"), "{}", again.stderr);

    // Two repositories do not share a log, and one that has its own is not given another.
    let second = format!("file://{}", work.join("second").display());
    let (second_key, third_key) = (format!("{key}-2"), format!("{key}-3"));
    let local = ["--repo", &second, "--key-file", &second_key];
    let run = |more: &[&str]| cli.run(&[&local[..], more].concat());
    let taken = run(&["--lease-store", lease, "repo", "init"]);
    assert!(
        taken.code == 1 && taken.failure().contains("the log of a repository already"),
        "{}",
        taken.stderr
    );
    assert_eq!(run(&["--lease-store", other, "repo", "init"]).code, 0);
    let crossed = run(&["--lease-store", lease, "repo", "info"]);
    assert!(crossed.code == 1 && crossed.failure().contains("the log of repository"), "{}", crossed.stderr);
    let third = format!("file://{}", work.join("third").display());
    cli.ok(&["--repo", &third, "--key-file", &third_key, "repo", "init"]);
    let needless =
        cli.run(&["--repo", &third, "--key-file", &third_key, "--lease-store", lease, "repo", "info"]);
    assert!(
        needless.code == 2 && needless.failure().contains("leave --lease-store out"),
        "{}",
        needless.stderr
    );
    assert_eq!(cli_with(&["--lease-store", "s3://x/y"], &["repo", "info"]).code, 2);
}

#[test]
fn a_repository_remembers_its_lease_store() {
    let work = Workdir::new("cli-lease-dirs").unwrap();
    let url = |name: &str| {
        let path = work.join(name);
        fs::create_dir(&path).unwrap();
        format!("file://{}", path.display())
    };
    on_the_command_line(&url("log"), &url("other"));
}

#[test]
fn a_repository_remembers_its_etcd() {
    let Some(etcd) = etcd("a_repository_remembers_its_etcd") else { return };
    on_the_command_line(&etcd.url("rack/7"), &etcd.url("rack/8"));
}
