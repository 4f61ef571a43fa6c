//! A cluster of real agents: one backup over three nodes, and the coordinator killed, frozen, moved, stopped and cut off meanwhile.
//! Each time the backup ends, the log has no commit of an old epoch behind one of a newer, and everything restored is as it was.
//!
//! Namespaces, moto, etcd and Ceph skip loudly where they are missing.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests, and their helpers")]

use std::fs;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use windlass_agent::id::BackupId;
use windlass_board::engine::host::HostClock;
use windlass_tests::cluster::{Cluster, LEASE_MS, POLICY, Place, SHARED, Setup, seconds_since};
use windlass_tests::engines::ceph::Ceph;
use windlass_tests::engines::etcd::Etcd;
use windlass_tests::engines::moto::Moto;
use windlass_tests::netns::Networks;
use windlass_tests::privilege::{is_root, skip};
use windlass_tests::workdir::Workdir;

const PROGRAM: &str = env!("CARGO_BIN_EXE_windlass-under-test");
/// T in seconds.
const LEASE_SECS: f64 = LEASE_MS as f64 / 1000.0;
/// What a machine that others load may add, in seconds.
const SLACK_SECS: f64 = 8.0;

/// A cluster over a directory, with a backup that runs; nothing else.
fn in_a_directory(work: &Workdir) -> Cluster {
    let place = Place::directory(&work.join("repository"));
    let mut cluster = Cluster::make(PROGRAM, Setup::new(place), None);
    cluster.start();
    cluster
}

/// Kills the coordinator in the middle of a backup, starts it again when another has taken over, and checks everything.
fn kill_the_coordinator(mut cluster: Cluster) {
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
    cluster.point(backup);
    nothing_is_done_twice(&cluster, victim, 1);
    cluster.boot(victim);
    cluster.finish(backup);
}

/// What was stored for nothing: of the victim, objects that no report named yet, `most` of them; of the others, nothing, and no job ended
/// early.
fn nothing_is_done_twice(cluster: &Cluster, victim: u32, most: usize) {
    let lost = cluster.lost_objects();
    println!("objects that do not count, by node: {lost:?}");
    for node in cluster.nodes() {
        let most = if node == victim { most } else { 0 };
        let of = lost.get(&node).copied().unwrap_or(0);
        assert!(of <= most, "node {node} stored {of} objects for nothing");
        let told = cluster.told(node);
        assert!(
            node == victim || !told.contains("a job ended early"),
            "node {node} read something again: {told}"
        );
    }
}

#[test]
fn the_coordinator_is_killed_and_the_backup_goes_on() {
    let work = Workdir::new("e2e-cluster").unwrap();
    kill_the_coordinator(in_a_directory(&work));
}

#[test]
fn a_killed_node_loses_what_it_had_not_reported_and_no_other_loses_anything() {
    let work = Workdir::new("e2e-cluster").unwrap();
    let place = Place::directory(&work.join("repository"));
    // Objects of some 12 MiB, of which a node stores one in 3 s.
    let setup = Setup { upload_kib_s: 4 << 10, image_bytes: 160 << 20, ..Setup::new(place) };
    let mut cluster = Cluster::make(PROGRAM, setup, None);
    cluster.start();
    let backup = cluster.begin(1);
    // An image's bytes are counted with its end, so the log tells how far it is.
    let begun = cluster.log().len() as u64;
    let victim = cluster.next_entry("three commits", begun + 3, |entry| entry.is_work).node;
    cluster.kill(victim);
    cluster.point(backup);
    // A report is due after 5 s and takes what is whole by then.
    nothing_is_done_twice(&cluster, victim, 2);
    cluster.finish(backup);
}

#[test]
fn the_coordinator_is_killed_with_the_log_in_etcd_and_objects_in_ceph() {
    let name = "the_coordinator_is_killed_with_the_log_in_etcd_and_objects_in_ceph";
    let skipped = |reason: String| skip(name, &reason);
    let Ok(etcd) = Etcd::start(1).map_err(skipped) else { return };
    let Ok(ceph) = Ceph::start().map_err(skipped) else { return };
    ceph.a.make_bucket("cluster", false);
    let place = Place {
        url: "s3://cluster/rack".to_owned(),
        endpoints: vec![ceph.a.endpoint.clone(), ceph.b.endpoint.clone()],
        credentials: Some(ceph.a.credentials()),
        lease_store: Some(etcd.url("rack")),
    };
    let mut cluster = Cluster::make(PROGRAM, Setup::new(place), None);
    cluster.start();
    kill_the_coordinator(cluster);
}

/// What a command says at a node's agent. It must succeed.
fn says(cluster: &Cluster, node: u32, arguments: &[&str]) -> String {
    let ended = cluster.at(node, arguments).output().unwrap();
    let (said, told) = (String::from_utf8_lossy(&ended.stdout), String::from_utf8_lossy(&ended.stderr));
    assert!(ended.status.success(), "{arguments:?}: {said}{told}\n{}", cluster.told(node));
    said.into_owned()
}

#[test]
fn of_two_nodes_one_is_killed_and_the_other_backs_up_by_command_and_by_schedule() {
    let work = Workdir::new("e2e-cluster").unwrap();
    let setup = Setup { nodes: 2, ..Setup::new(Place::directory(&work.join("repository"))) };
    let mut cluster = Cluster::make(PROGRAM, setup, None);
    cluster.start();
    says(&cluster, 1, &["policy", "set", POLICY, "--volume", SHARED, "--every", "1m"]);
    says(&cluster, 2, &["backup", POLICY]);
    let victim = cluster.watch("a coordinator", 1, |_| true).coordinator;
    let survivor = cluster.other(victim);
    cluster.kill(victim);
    let killed_ns = HostClock.boot_ns();
    let shown = cluster.wait("the status to say so", |cluster| {
        let shown = says(cluster, survivor, &["status"]);
        shown.contains("COORDINATOR  none since").then_some(shown)
    });
    println!("{shown}");
    let gone = |line: &str| line.starts_with(&format!("   {victim}  DOWN"));
    assert!(shown.contains(&format!("node {victim} held the repository's lock")), "{shown}");
    assert!(
        shown.lines().any(gone) && shown.contains("        since "),
        "who is gone, and since when: {shown}"
    );
    says(&cluster, survivor, &["backup", POLICY, "--no-wait"]);
    let begun = seconds_since(killed_ns);
    println!("node {victim} killed: a backup began {begun:.1} s later");
    assert!(begun <= 2.0 * LEASE_SECS + 2.0 + SLACK_SECS, "{begun:.1} s until a backup began");
    let points = |cluster: &Cluster| {
        let seen = cluster.look(survivor);
        seen.map_or(0, |seen| seen.status["points"].as_array().map_or(0, Vec::len))
    };
    cluster.wait("a point by command", |cluster| (points(cluster) >= 2).then_some(()));
    let before = points(&cluster);
    cluster.wait("a point by schedule", |cluster| (points(cluster) > before).then_some(()));
    // It comes back, and takes its share of what is read in full.
    let told = cluster.told(victim).len();
    cluster.boot(victim);
    cluster.wait("the nodes to see each other", |cluster| {
        cluster.told(victim)[told..].contains(&format!("node {survivor} is connected")).then_some(())
    });
    says(&cluster, survivor, &["policy", "set", "again", "--volume", SHARED]);
    says(&cluster, survivor, &["backup", "again"]);
    assert!(cluster.told(victim)[told..].contains("job: begins"), "{}", cluster.told(victim));
    cluster.check_log();
}

#[test]
fn a_backup_through_an_agent_shows_who_works_and_prints_its_point() {
    let work = Workdir::new("e2e-cluster").unwrap();
    let cluster = in_a_directory(&work);
    cluster.make_policy(3);
    let mut command = cluster.at(3, &["backup", POLICY]);
    let running = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let busy = |status: &serde_json::Value| {
        let nodes = status["nodes"].as_array().cloned().unwrap_or_default();
        nodes.iter().filter(|node| node["assignments"].as_u64() > Some(0)).count()
    };
    let several = cluster.wait("several nodes at work", |cluster| {
        let told = cluster.at(1, &["status", "--json"]).output().unwrap();
        assert!(told.status.success(), "{}", String::from_utf8_lossy(&told.stderr));
        let status = serde_json::from_slice(&told.stdout).unwrap();
        Some(busy(&status)).filter(|busy| *busy > 1)
    });
    let ended = running.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&ended.stdout).into_owned();
    println!("{several} nodes at work; {said}");
    assert_eq!(ended.status.code(), Some(0), "{}", String::from_utf8_lossy(&ended.stderr));
    let point = said.strip_prefix("point ").and_then(|rest| rest.split(' ').next()?.parse().ok());
    let point = point.unwrap_or_else(|| panic!("no point in {said:?}"));
    cluster.finish(BackupId(point));
}

/// A directory of an image whose block does not fit its checksum any more: it holds these names.
fn damage_a_directory(image: &Path) {
    let mut device = fs::read(image).unwrap();
    let has = |block: &[u8], name: &[u8]| block.windows(name.len()).any(|part| part == name);
    let names: [&[u8]; 3] = [b"words", b"sparse", b"symlink"];
    let at = (0..device.len()).step_by(4096).find(|&at| {
        let block = &device[at..at + 4096];
        names.iter().all(|name| has(block, name))
    });
    let at = at.unwrap();
    device[at + 4000] ^= 1;
    fs::write(image, device).unwrap();
}

#[test]
fn nodes_far_apart_back_up_move_and_fail_over() {
    let work = Workdir::new("e2e-cluster").unwrap();
    let place = Place::directory(&work.join("repository"));
    let mut cluster = Cluster::make(PROGRAM, Setup { link_ms: 100, ..Setup::new(place) }, None);
    cluster.start();
    let backup = cluster.begin(2);
    let seen = cluster.middle();
    cluster.lose_connections();
    let to = cluster.other(seen.coordinator);
    cluster.wait("a move to a node that is connected again", |cluster| {
        let moved = cluster.at(seen.coordinator, &["coordinator", "move", &to.to_string()]).output().unwrap();
        moved.status.success().then_some(())
    });
    let moved = cluster.watch("the move", to, |now| now.epoch > seen.epoch && now.coordinator == to);
    cluster.lose_connections();
    let killed_ns = HostClock.boot_ns();
    cluster.kill(to);
    let from = cluster.log().len() as u64 + 1;
    let next = cluster.next_entry("a commit after the kill", from, |entry| entry.epoch > moved.epoch);
    let first = seconds_since(killed_ns);
    println!("moved to node {to} and killed: node {} committed {first:.1} s later", next.node);
    assert!(first <= 2.0 * LEASE_SECS + 2.0 + SLACK_SECS, "{first:.1} s until the next commit");
    cluster.boot(to);
    cluster.finish(backup);
}

#[test]
fn an_item_that_is_not_whole_is_seen_in_the_status() {
    let work = Workdir::new("e2e-cluster").unwrap();
    let place = Place::directory(&work.join("repository"));
    let setup = Setup { nodes: 2, upload_kib_s: 1 << 20, shared_dirs: 2, ..Setup::new(place) };
    let mut cluster = Cluster::make(PROGRAM, setup, None);
    damage_a_directory(cluster.image(SHARED));
    cluster.start();
    let backup = cluster.begin(2);
    let point = cluster.point(backup);
    assert!(point.totals.faults > 0, "{:?}", point.totals);
    let seen = cluster.look(1).unwrap();
    let errors = seen.status["errors"].as_array().cloned().unwrap_or_default();
    let told = errors
        .iter()
        .find(|error| error["what"].as_str().is_some_and(|what| what.starts_with("volume shared inode ")));
    let told = told.unwrap_or_else(|| panic!("no item is named: {}", seen.status));
    assert!(matches!(told["node"].as_u64(), Some(1 | 2)), "{told}");
    let shown = cluster.at(2, &["status"]).output().unwrap();
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    println!("{shown}");
    assert!(shown.contains("volume shared inode ") && shown.contains("PARTIAL"), "{shown}");
}

#[test]
fn an_agent_whose_stderr_is_not_read_works_and_stops() {
    let work = Workdir::new("cluster-unread").unwrap();
    let place = Place::directory(&work.join("repository"));
    let mut cluster = Cluster::make(PROGRAM, Setup { nodes: 1, ..Setup::new(place) }, None);
    let pipe = cluster.log_path(1);
    mkfifo(&pipe, Mode::S_IRWXU).unwrap();
    let flags = OFlag::O_NONBLOCK.bits();
    let reader = fs::File::options().read(true).custom_flags(flags).open(&pipe).unwrap();
    // Full after some thirty lines.
    fcntl(&reader, FcntlArg::F_SETPIPE_SZ(4096)).unwrap();
    cluster.boot(1);
    cluster.wait("an answer", |cluster| cluster.look(1));
    for _ in 0..100 {
        cluster.signal(1, Signal::SIGHUP);
        HostClock.sleep(Duration::from_millis(20));
    }
    assert!(cluster.look(1).is_some(), "it answers");
    assert!(cluster.stop(1) < 5.0, "a signal ends it though nobody reads");
}

#[test]
fn certificates_of_another_authority_are_taken_while_agents_run() {
    let work = Workdir::new("e2e-cluster").unwrap();
    let mut cluster = in_a_directory(&work);
    let ca = cluster.renew_certificates();
    for node in [2, 3] {
        cluster.signal(node, Signal::SIGHUP);
        cluster.wait("the profile to be read", |cluster| {
            cluster.told(node).contains("was read again").then_some(())
        });
    }
    // From here on the old certificates are worth nothing to node 1.
    cluster.stop(1);
    cluster.trust(&ca);
    let met = |cluster: &Cluster| {
        let told = cluster.told(1);
        [2, 3].map(|node| told.matches(&format!("node {node} is connected")).count())
    };
    let before = met(&cluster);
    cluster.boot(1);
    cluster.wait("node 1 to see the others with their new certificates", |cluster| {
        met(cluster).iter().zip(before).all(|(met, before)| *met > before).then_some(())
    });
}

#[test]
fn the_first_worker_of_a_volume_compares_its_readers() {
    if !is_root() {
        skip("the_first_worker_of_a_volume_compares_its_readers", "needs root, to mount");
        return;
    }
    let work = Workdir::new("e2e-cluster").unwrap();
    let place = Place::directory(&work.join("repository"));
    let setup = Setup { nodes: 2, upload_kib_s: 1 << 20, shared_dirs: 2, verify: 100, ..Setup::new(place) };
    let mut cluster = Cluster::make(PROGRAM, setup, None);
    cluster.start();
    let backup = cluster.begin(1);
    let point = cluster.point(backup);
    assert_eq!(point.totals.faults, 0);
    let told: String = cluster.nodes().map(|node| cluster.told(node)).collect();
    let compared: Vec<&str> = told.lines().filter(|line| line.contains("verify: compared volume=")).collect();
    println!("{}", compared.join("\n"));
    assert_eq!(compared.len(), 3, "each of three volumes once: {compared:?}");
    assert!(compared.iter().all(|line| line.ends_with(" differences=0")), "{compared:?}");
    assert!(!compared.iter().any(|line| line.contains(" items=0 ")), "{compared:?}");
    cluster.finish(backup);
}

#[test]
fn a_frozen_coordinator_steps_down_when_it_thaws() {
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
    let taken = cluster.stopped(to);
    assert!(taken < LEASE_SECS, "a node that leaves begins nothing new, and took {taken:.1} s");
    cluster.boot(to);
    let flushed = cluster.at(first, &["flush"]).output().unwrap();
    assert!(flushed.status.success(), "{}", String::from_utf8_lossy(&flushed.stderr));
    cluster.finish(backup);
}

/// A cluster over a directory that all nodes see, each in a network of its own.
fn apart(name: &str, work: &Workdir) -> Option<Cluster> {
    let networks = match Networks::make(3) {
        Ok(networks) => networks,
        Err(why) => {
            skip(name, &why.to_string());
            return None;
        }
    };
    let place = Place::directory(&work.join("repository"));
    let mut cluster = Cluster::make(PROGRAM, Setup::new(place), Some(networks));
    cluster.start();
    Some(cluster)
}

/// The holder is cut off by `how` for three lease times, and then no more.
fn cut_off(cluster: &mut Cluster, how: &str, cut: impl Fn(&Cluster, u32, bool)) {
    let seen = cluster.middle();
    let holder = seen.coordinator;
    let begun_ns = HostClock.boot_ns();
    let from = cluster.log().len() as u64;
    let said = cluster.told(holder).len();
    cut(cluster, holder, true);
    cluster.wait("the holder to miss its peers", |cluster| {
        let told = cluster.told(holder)[said..].to_owned();
        (told.matches(" is gone").count() >= 2).then_some(())
    });
    while seconds_since(begun_ns) < 3.0 * LEASE_SECS {
        HostClock.sleep(Duration::from_millis(100));
    }
    let during = cluster.log().split_off(from as usize);
    let epoch = during.last().map_or(seen.epoch, |entry| entry.epoch);
    let by: Vec<u32> = during.iter().map(|entry| entry.node).collect();
    println!("{how}: node {holder} held epoch {}, now {epoch}; commits meanwhile by {by:?}", seen.epoch);
    cut(cluster, holder, false);
}

#[test]
fn the_holder_is_cut_off_from_its_peers() {
    let work = Workdir::new("e2e-cluster").unwrap();
    let Some(mut cluster) = apart("the_holder_is_cut_off_from_its_peers", &work) else { return };
    let backup = cluster.begin(1);
    cut_off(&mut cluster, "cut off, both ways", |cluster, node, is_cut| {
        cluster.networks().cut(node, is_cut).unwrap();
    });
    cluster.finish(backup);
}

#[test]
fn nobody_hears_the_holder() {
    let work = Workdir::new("e2e-cluster").unwrap();
    let Some(mut cluster) = apart("nobody_hears_the_holder", &work) else { return };
    let backup = cluster.begin(1);
    cut_off(&mut cluster, "heard by nobody, hears all", |cluster, node, is_cut| {
        let networks = cluster.networks();
        let others: Vec<_> = cluster.nodes().filter(|other| *other != node).collect();
        let others: Vec<_> = others.into_iter().map(|other| networks.address(other)).collect();
        networks.deafen(node, &others, is_cut).unwrap();
    });
    cluster.finish(backup);
}

#[test]
fn the_holder_is_cut_off_from_the_store() {
    let name = "the_holder_is_cut_off_from_the_store";
    let Ok(networks) = Networks::make(3).map_err(|why| skip(name, &why.to_string())) else { return };
    let Ok(moto) = Moto::start_on(networks.hub()).map_err(|why| skip(name, &why)) else { return };
    moto.s3.make_bucket("cluster", false);
    let place = Place {
        url: "s3://cluster/rack".to_owned(),
        endpoints: vec![moto.s3.endpoint.clone()],
        credentials: Some(moto.s3.credentials()),
        lease_store: None,
    };
    let mut cluster = Cluster::make(PROGRAM, Setup::new(place), Some(networks));
    cluster.start();
    let backup = cluster.begin(1);
    cluster.middle();
    let store = |cluster: &Cluster, node: u32, is_cut: bool| {
        let networks = cluster.networks();
        networks.deafen(node, &[networks.hub()], is_cut).unwrap();
    };
    taken_over(&cluster, "cut off from the store only", store);
    let all = |cluster: &Cluster, node: u32, is_cut: bool| cluster.networks().cut(node, is_cut).unwrap();
    taken_over(&cluster, "cut off from store and peers", all);
    cluster.finish(backup);
}

/// Cuts the holder off by `how` until another commits.
fn taken_over(cluster: &Cluster, how: &str, cut: impl Fn(&Cluster, u32, bool)) {
    let last = cluster.log().pop().unwrap();
    let begun_ns = HostClock.boot_ns();
    cut(cluster, last.node, true);
    let next = cluster.next_entry(how, last.slot + 1, |entry| entry.epoch > last.epoch);
    println!("node {} {how}: node {} committed {:.1} s later", last.node, next.node, seconds_since(begun_ns));
    assert_ne!(next.node, last.node);
    cut(cluster, last.node, false);
}
