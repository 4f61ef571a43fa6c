//! An agent and its store at boot: a store that ignores conditions is refused before anything is written to the log, one that does not
//! answer is waited for, and a start leaves nothing behind.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests, and their helpers")]

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::Duration;

use windlass_board::engine::host::HostClock;
use windlass_tests::cluster::{Cluster, POLICY, Place, Setup};
use windlass_tests::engines::faulty::{Fault, Faulty};

const PROGRAM: &str = env!("CARGO_BIN_EXE_windlass-under-test");
/// More requests than any of these tests makes.
const ALWAYS: usize = 1 << 20;

/// A cluster of one whose repository is on a server that behaves until told otherwise.
fn alone(server: &Faulty) -> Cluster {
    let place = Place {
        url: "s3://bucket/rack".to_owned(),
        endpoints: vec![server.s3.endpoint.clone()],
        credentials: Some(server.s3.credentials()),
        lease_store: None,
    };
    Cluster::make(PROGRAM, Setup { nodes: 1, ..Setup::new(place) }, None)
}

/// Starts the node and waits until it has ended; what it said. Nothing may be in the log.
fn refused(cluster: &mut Cluster) -> String {
    cluster.boot(1);
    let mut status = None;
    while status.is_none() {
        status = cluster.ended(1);
        assert!(!cluster.told(1).contains("is up"), "it was not refused: {}", cluster.told(1));
        HostClock.sleep(Duration::from_millis(20));
    }
    let told = cluster.told(1);
    assert_eq!(status.unwrap().code(), Some(1), "{told}");
    let written = [cluster.keys("epoch/"), cluster.keys("log/"), cluster.keys("obj/")].concat();
    assert!(written.is_empty(), "{written:?}");
    told
}

#[test]
fn a_store_that_ignores_conditions_is_refused() {
    let server = Faulty::start();
    let mut cluster = alone(&server);
    server.versioning(true);
    let told = refused(&mut cluster);
    println!("{told}");
    assert!(told.contains("concurrent creates of one key have one winner"), "{told}");
    assert!(told.contains("keeps versions"), "what to do: {told}");
    // Only one of the racers' creates slips through: a store that checks, then writes.
    server.versioning(false);
    server.plan("PUT", &Fault::Fine, 1);
    server.plan("PUT", &Fault::IgnoreCondition, 1);
    let told = refused(&mut cluster);
    assert!(told.contains("2 of 8 succeeded"), "{told}");
}

#[test]
fn a_store_that_does_not_answer_is_waited_for() {
    let server = Faulty::start();
    let mut cluster = alone(&server);
    server.plan("", &Fault::Reset, ALWAYS);
    cluster.boot(1);
    cluster
        .wait("the agent to wait", |cluster| cluster.told(1).contains("waiting for the store").then_some(()));
    // Whoever asks is told what it waits for.
    let shown = cluster.at(1, &["status"]).output().unwrap();
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(
        shown.starts_with("COORDINATOR  none since ") && shown.contains("waits for the store: "),
        "{shown}"
    );
    let refused = cluster.at(1, &["backup", POLICY]).output().unwrap();
    let why = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(refused.status.code() == Some(1) && why.contains("try again when it is up"), "{why}");
    // A signal ends it meanwhile.
    assert!(cluster.stop(1) < 5.0);
    let (before, asked) = (cluster.told(1).len(), server.requests());
    cluster.boot(1);
    cluster.wait("the agent to ask", |_| (server.requests() > asked + 2).then_some(()));
    assert!(!cluster.told(1)[before..].contains("is up"));
    server.clear();
    cluster.wait("the agent to be up", |cluster| cluster.told(1)[before..].contains("is up").then_some(()));
    assert!(cluster.keys("probe/").is_empty(), "{:?}", cluster.keys("probe/"));
    cluster.stop(1);
}

#[test]
fn an_outage_of_the_store_is_in_the_status_and_is_what_a_backup_waits_for() {
    let server = Faulty::start();
    let mut cluster = alone(&server);
    cluster.boot(1);
    cluster.wait("the agent to be up", |cluster| cluster.told(1).contains("is up").then_some(()));
    cluster.make_policy(1);
    server.plan("", &Fault::Reset, ALWAYS);
    let shown = cluster.wait("the status to say so", |cluster| {
        let shown = cluster.at(1, &["status"]).output().unwrap();
        let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
        shown.contains("the store: ").then_some(shown)
    });
    println!("{shown}");
    assert!(
        shown.starts_with("COORDINATOR  none since ") && shown.contains(" UTC  (says node 1)"),
        "{shown}"
    );
    assert!(shown.contains("closed the connection"), "the store's words: {shown}");
    assert!(shown.contains("   1  up "), "the node itself: {shown}");
    let mut backup = cluster.at(1, &["backup", POLICY]);
    let mut backup = backup.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(backup.stderr.take().unwrap()).lines();
    let told = lines.find(|line| line.as_ref().is_ok_and(|line| line.contains("waiting")));
    let told = told.unwrap().unwrap();
    assert!(told.contains("the store: ") && told.contains("closed the connection"), "{told}");
    server.clear();
    let rest: Vec<String> = lines.map_while(Result::ok).collect();
    let ended = backup.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(0), "{rest:?}");
    cluster.stop(1);
}
