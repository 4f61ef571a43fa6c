//! What real agents leave alone when they take over: a backup that was stopped, and a log whose end is lost.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests, and their helpers")]

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;
use serde_json::Value;
use windlass_tests::cluster::{Cluster, POLICY, Place, Setup};
use windlass_tests::workdir::Workdir;

const PROGRAM: &str = env!("CARGO_BIN_EXE_windlass-under-test");

fn in_a_directory(work: &Workdir, nodes: u32) -> Cluster {
    let place = Place::directory(&work.join("repository"));
    Cluster::make(PROGRAM, Setup { nodes, ..Setup::new(place) }, None)
}

fn expect_done(mut command: Command) {
    let ended = command.output().unwrap();
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
}

#[test]
fn a_backup_that_was_stopped_goes_on_when_it_is_asked_for_and_not_with_the_next_coordinator() {
    let work = Workdir::new("over-stop").unwrap();
    let mut cluster = in_a_directory(&work, 2);
    cluster.start();
    cluster.make_policy(1);
    let mut client = cluster.at(1, &["backup", POLICY]);
    let client = client.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    cluster.wait("the backup", |cluster| (!cluster.state().running.is_empty()).then_some(()));
    let seen = cluster.middle();
    let (holder, other) = (seen.coordinator, cluster.other(seen.coordinator));
    let number = seen.status["backups"][0]["backup"].clone();
    expect_done(cluster.at(other, &["stop", POLICY]));
    cluster.kill(holder);
    let told = client.wait_with_output().unwrap();
    let told = String::from_utf8_lossy(&told.stderr);
    assert!(
        holder == 1 || told.contains("the backup was stopped") || told.contains("was stopped on request"),
        "{told}"
    );
    // It takes the lease for this, and has nothing else to do.
    expect_done(cluster.at(other, &["flush"]));
    let seen = cluster.watch("the next coordinator", other, |seen| seen.coordinator == other);
    let backup = &seen.status["backups"][0];
    assert_eq!((&backup["backup"], &backup["stopped"]), (&number, &Value::Bool(true)), "{}", seen.status);
    let state = cluster.state();
    assert!(state.points.is_empty() && state.running.values().all(|running| running.is_stopped));
    cluster.boot(holder);
    expect_done(cluster.at(other, &["backup", POLICY]));
    let state = cluster.state();
    assert!(state.points.keys().any(|point| number == point.0), "{:?}", state.points.keys());
    for node in [1, 2] {
        cluster.stop(node);
    }
}

/// The newest beat.
fn beat(repository: &Path) -> Vec<u8> {
    let beats = fs::read_dir(repository.join("beat")).unwrap().map(|entry| entry.unwrap().path());
    fs::read(beats.max().unwrap()).unwrap_or_default()
}

#[test]
fn agents_write_nothing_behind_an_end_that_is_lost_and_go_on_when_it_is_back() {
    let work = Workdir::new("over-end").unwrap();
    let repository = work.join("repository");
    let mut cluster = in_a_directory(&work, 2);
    cluster.start();
    cluster.begin(1);
    let holder = cluster.middle().coordinator;
    let other = cluster.other(holder);
    // It has read the log up to here at most.
    cluster.signal(other, Signal::SIGSTOP);
    for more in ["a", "b", "c", "d"] {
        expect_done(cluster.at(holder, &["policy", "set", more, "--volume", "shared"]));
    }
    // The first beat after that may have been under way.
    for _ in 0..2 {
        let before = beat(&repository);
        cluster.wait("a beat that names it", |_| (beat(&repository) != before).then_some(()));
    }
    cluster.kill(holder);
    fs::rename(repository.join("log"), repository.join("was")).unwrap();
    fs::create_dir(repository.join("log")).unwrap();
    cluster.signal(other, Signal::SIGCONT);
    cluster.boot(holder);
    let lost = "the commit log ends at entry ";
    for node in [other, holder] {
        cluster.wait("the log to say it", |cluster| cluster.told(node).contains(lost).then_some(()));
        cluster.wait("the status to say it", |cluster| {
            let seen = cluster.look(node)?;
            seen.status["coordinator"]["why"].as_str().is_some_and(|why| why.contains(lost)).then_some(())
        });
    }
    assert_eq!(fs::read_dir(repository.join("log")).unwrap().count(), 0, "nothing was written");
    for entry in fs::read_dir(repository.join("was")).unwrap().map(Result::unwrap) {
        fs::rename(entry.path(), repository.join("log").join(entry.file_name())).unwrap();
    }
    cluster.watch("a coordinator", other, |_| true);
    cluster.wait("the point", |cluster| (!cluster.state().points.is_empty()).then_some(()));
    for node in [1, 2] {
        cluster.stop(node);
    }
}
