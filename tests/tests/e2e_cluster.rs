//! A cluster of real agents: one backup over three nodes, and the coordinator killed, frozen, moved, stopped and cut off meanwhile.
//! Each time the backup ends, the log has no commit of an old epoch behind one of a newer, and everything restored is as it was.
//!
//! One test at a time: they measure. Namespaces, etcd and Ceph skip loudly where they are missing.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests, and their helpers")]

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::sys::signal::Signal;
use windlass_board::host::HostClock;
use windlass_tests::cluster::{Cluster, LEASE_MS, Place, Setup, seconds_since};
use windlass_tests::workdir::Workdir;

const PROGRAM: &str = env!("CARGO_BIN_EXE_windlass-under-test");
/// T in seconds.
const LEASE_SECS: f64 = LEASE_MS as f64 / 1000.0;
/// What a machine that others load may add, in seconds.
const SLACK_SECS: f64 = 8.0;

static TURN: Mutex<()> = Mutex::new(());

fn turn() -> MutexGuard<'static, ()> {
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A cluster over a directory, with a backup that runs; nothing else.
fn in_a_directory(work: &Workdir) -> Cluster {
    let place = Place::directory(&work.join("repository"));
    let mut cluster = Cluster::make(PROGRAM, Setup::new(place), None);
    cluster.start();
    cluster
}

#[test]
fn the_coordinator_is_killed_and_the_backup_goes_on() {
    let _turn = turn();
    let work = Workdir::new("e2e-cluster").unwrap();
    let mut cluster = in_a_directory(&work);
    let backup = cluster.begin(2);
    let seen = cluster.middle();
    assert!(seen.busy.len() > 1, "one node does all: {}", seen.status);
    let victim = seen.coordinator;
    let killed_ns = HostClock.boot_ns();
    cluster.kill(victim);
    let from = cluster.log().len() as u64 + 1;
    let next = cluster.next_entry("a commit after the kill", from, |entry| entry.epoch > seen.epoch);
    let (first, percent) = (seconds_since(killed_ns), seen.percent);
    let work = cluster.next_entry("a commit of work", next.slot, |entry| entry.is_work);
    let working = seconds_since(killed_ns);
    println!(
        "node {victim} killed at {percent} %: first commit of node {} after {first:.1} s, of work after {working:.1} s",
        next.node
    );
    assert_ne!(work.node, victim);
    assert!(first <= 2.0 * LEASE_SECS + 2.0 + SLACK_SECS, "{first:.1} s until the next commit");
    cluster.boot(victim);
    cluster.finish(backup);
}

#[test]
fn a_frozen_coordinator_steps_down_when_it_thaws() {
    let _turn = turn();
    let work = Workdir::new("e2e-cluster").unwrap();
    let mut cluster = in_a_directory(&work);
    let backup = cluster.begin(1);
    let seen = cluster.middle();
    let (frozen, old) = (seen.coordinator, seen.epoch);
    let other = cluster.other(frozen);
    let begun_ns = HostClock.boot_ns();
    cluster.signal(frozen, Signal::SIGSTOP);
    let next = cluster.watch("another coordinator", other, |seen| seen.epoch > old);
    println!(
        "node {frozen} frozen: node {} coordinates {:.1} s later",
        next.coordinator,
        seconds_since(begun_ns)
    );
    assert_ne!(next.coordinator, frozen);
    while seconds_since(begun_ns) < 10.0 * LEASE_SECS {
        HostClock.sleep(Duration::from_millis(100));
    }
    let said = cluster.told(frozen).len();
    cluster.signal(frozen, Signal::SIGCONT);
    cluster.wait("the thawed node to step down", |cluster| {
        let told = cluster.told(frozen)[said..].to_owned();
        told.contains("does not coordinate").then_some(())
    });
    cluster.watch("the thawed node to know who coordinates", frozen, |seen| seen.epoch > old);
    cluster.finish(backup);
}

#[test]
fn the_coordinator_moves_and_stops_without_a_wait() {
    let _turn = turn();
    let work = Workdir::new("e2e-cluster").unwrap();
    let mut cluster = in_a_directory(&work);
    let backup = cluster.begin(1);
    let seen = cluster.middle();
    let (first, to) = (seen.coordinator, cluster.other(seen.coordinator));
    let begun_ns = HostClock.boot_ns();
    let moved = cluster.at(first, &["coordinator", "move", &to.to_string()]).output().unwrap();
    assert!(moved.status.success(), "{}", String::from_utf8_lossy(&moved.stderr));
    let next = cluster.watch("the move", to, |seen| seen.epoch > 0 && seen.coordinator == to);
    let taken = seconds_since(begun_ns);
    println!("coordinator moved from node {first} to node {to} in {taken:.1} s");
    assert!(taken < LEASE_SECS, "a move waits for nothing, and took {taken:.1} s");
    // The next one is asked to end while there is work.
    let begun_ns = HostClock.boot_ns();
    let from = cluster.log().len() as u64 + 1;
    cluster.signal(to, Signal::SIGTERM);
    let after = cluster.next_entry("a commit of another", from, |entry| entry.epoch > next.epoch);
    let taken = seconds_since(begun_ns);
    println!("coordinator {to} stopped: node {} committed {taken:.1} s later", after.node);
    assert!(after.node != to && taken < LEASE_SECS, "{taken:.1} s");
    cluster.stop(to);
    cluster.boot(to);
    cluster.finish(backup);
}
