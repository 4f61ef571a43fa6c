//! What real agents say of themselves: of their store, of nodes that are gone or should not be there, and to commands that wait.
//!
//! etcd skips loudly where it is missing.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests, and their helpers")]

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStderr, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use windlass_agent::id::NodeId;
use windlass_agent::store::{PutMode, StoreFaultKind};
use windlass_board::authority::Authority;
use windlass_board::engine::host::HostClock;
use windlass_tests::cluster::{Cluster, POLICY, Place, SHARED, Setup};
use windlass_tests::engines::etcd::Etcd;
use windlass_tests::engines::faulty::{Fault, Faulty};
use windlass_tests::engines::skip;
use windlass_tests::workdir::Workdir;

const PROGRAM: &str = env!("CARGO_BIN_EXE_windlass-under-test");
/// More requests than any of these tests makes.
const ALWAYS: usize = 1 << 20;

/// So many nodes over a directory.
fn in_a_directory(work: &Workdir, nodes: u32) -> Cluster {
    let place = Place::directory(&work.join("repository"));
    Cluster::make(PROGRAM, Setup { nodes, ..Setup::new(place) }, None)
}

/// One node over a server that behaves until it is planned otherwise.
fn over_a_server(server: &Faulty, lease_ms: (u32, u32)) -> Cluster {
    let place = Place {
        url: "s3://bucket/rack".to_owned(),
        endpoints: vec![server.s3.endpoint.clone()],
        credentials: Some(server.s3.credentials()),
        lease_store: None,
    };
    Cluster::make(PROGRAM, Setup { nodes: 1, lease_ms, ..Setup::new(place) }, None)
}

/// A command that goes on, and its lines as they come.
struct Talk {
    child: Child,
    lines: std::io::Lines<BufReader<ChildStderr>>,
    said: Vec<String>,
}

impl Talk {
    fn start(mut command: Command) -> Talk {
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        Talk { child, lines, said: Vec::new() }
    }

    /// Reads until a line has the text.
    fn until(&mut self, text: &str) -> String {
        while let Some(Ok(line)) = self.lines.next() {
            self.said.push(line.clone());
            if line.contains(text) {
                return line;
            }
        }
        panic!("it never says {text:?}: {:#?}", self.said);
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id() as i32), signal).unwrap();
    }

    /// Its exit code, and all that it said.
    fn end(mut self) -> (Option<i32>, String) {
        self.said.extend(self.lines.map_while(Result::ok));
        (self.child.wait().unwrap().code(), self.said.join("\n"))
    }
}

fn output(mut command: Command) -> (Option<i32>, String) {
    let ended = command.output().unwrap();
    let text = String::from_utf8_lossy(&ended.stdout).into_owned() + &String::from_utf8_lossy(&ended.stderr);
    (ended.status.code(), text)
}

fn expect_done(command: Command) {
    let (code, text) = output(command);
    assert_eq!(code, Some(0), "{text}");
}

fn is_up(cluster: &Cluster, node: u32) {
    let up = format!("node {node} is up");
    cluster.wait("the node to be up", |cluster| cluster.told(node).contains(&up).then_some(()));
}

/// What a node's status says at a place, once it says something that has the text.
fn says(cluster: &Cluster, node: u32, place: &str, text: &str) -> String {
    cluster.wait(&format!("node {node} to say {text:?} at {place}"), |cluster| {
        let seen = cluster.look(node)?;
        let said = seen.status.pointer(place).and_then(Value::as_str).unwrap_or_default();
        said.contains(text).then(|| said.to_owned())
    })
}

#[test]
fn agents_let_go_of_a_backup_that_none_of_them_can_read_and_a_command_with_the_volume_ends_it() {
    let work = Workdir::new("said-far").unwrap();
    let mut cluster = in_a_directory(&work, 2);
    // By its path, which is none of the names in the profiles.
    let image = cluster.image(SHARED).display().to_string();
    expect_done(cluster.alone(&["policy", "set", "far", "--volume", &image]));
    let mut first = cluster.alone(&["--limit-up", "200K", "backup", "far"]);
    let mut first = first.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    cluster.wait("its begin", |cluster| (!cluster.state().running.is_empty()).then_some(()));
    first.kill().unwrap();
    first.wait().unwrap();
    cluster.start();
    says(&cluster, 1, "/backups/0/waits", "is looked at again in ");
    let said = says(&cluster, 2, "/backups/0/waits", "no node that is up has a volume");
    println!("{said}");
    expect_done(cluster.alone(&["backup", "far"]));
    assert!(!cluster.state().points.is_empty());
    for node in [1, 2] {
        cluster.stop(node);
    }
}

#[test]
fn a_command_that_waits_says_why_and_is_not_carried_out_when_its_client_leaves() {
    let server = Faulty::start();
    let mut cluster = over_a_server(&server, (3000, 800));
    cluster.boot(1);
    is_up(&cluster, 1);
    cluster.make_policy(1);
    server.plan("", &Fault::Reset, ALWAYS);
    says(&cluster, 1, "/coordinator/why", "the store: ");
    for signal in [Signal::SIGKILL, Signal::SIGINT] {
        let mut backup = Talk::start(cluster.at(1, &["backup", POLICY]));
        let line = backup.until("waiting for a coordinator: ");
        assert!(line.contains("the store: ") && line.contains("closed the connection"), "{line}");
        let before = cluster.told(1).len();
        backup.signal(signal);
        let left = "a client left; its command is not carried out";
        cluster.wait("the agent to notice", |cluster| cluster.told(1)[before..].contains(left).then_some(()));
        let (code, said) = backup.end();
        assert!(signal == Signal::SIGKILL || code == Some(130), "{code:?} {said}");
        assert!(signal == Signal::SIGKILL || said.contains("the agent takes the command back"), "{said}");
    }
    server.clear();
    // Whatever waited is carried out before this.
    expect_done(cluster.at(1, &["flush"]));
    let state = cluster.state();
    assert!(state.running.is_empty() && state.points.is_empty(), "{:?}", state.running);
    cluster.stop(1);
}

#[test]
fn a_client_says_at_once_that_its_agent_ended_and_what_becomes_of_the_backup() {
    let work = Workdir::new("said-ended").unwrap();
    let mut cluster = in_a_directory(&work, 2);
    cluster.start();
    cluster.make_policy(2);
    let mut backup = Talk::start(cluster.at(1, &["backup", POLICY]));
    let runs = |cluster: &Cluster| Some(!cluster.look(1)?.status["backups"].as_array()?.is_empty());
    cluster.wait("the backup", |cluster| runs(cluster)?.then_some(()));
    cluster.middle();
    cluster.kill(1);
    let line = backup.until("the agent of this node ended");
    assert!(line.contains("goes on at node 2") && line.contains("start `windlass agent`"), "{line}");
    cluster.boot(1);
    backup.until("the agent of this node runs again");
    let (code, said) = backup.end();
    assert_eq!(code, Some(0), "{said}");
    assert!(!said.contains("Broken pipe"), "{said}");
    for node in [1, 2] {
        cluster.stop(node);
    }
}

#[test]
fn a_store_that_fails_is_in_the_status_while_the_lease_lasts() {
    let server = Faulty::start();
    // Long enough for a loaded machine to look meanwhile.
    let mut cluster = over_a_server(&server, (120_000, 2000));
    cluster.boot(1);
    is_up(&cluster, 1);
    cluster.make_policy(1);
    assert_eq!(cluster.look(1).unwrap().status["store"], Value::Null);
    server.plan("", &Fault::Reset, ALWAYS);
    says(&cluster, 1, "/store/why", "closed the connection");
    let seen = cluster.look(1).unwrap();
    assert_eq!(seen.coordinator, 1, "{}", seen.status);
    let (_, text) = output(cluster.at(1, &["status"]));
    assert!(text.contains("the store fails node 1 since "), "{text}");
    server.clear();
    cluster.wait("the end of it", |cluster| cluster.look(1)?.status["store"].is_null().then_some(()));
    cluster.stop(1);
}

#[test]
fn a_clean_stop_stays_one() {
    let work = Workdir::new("said-stop").unwrap();
    let mut cluster = in_a_directory(&work, 2);
    cluster.start();
    cluster.stop(2);
    let state = |cluster: &Cluster| cluster.look(1).unwrap().status["nodes"][1]["state"].clone();
    cluster.wait("the stop", |cluster| (state(cluster) == "stopped").then_some(()));
    // It is dialled again and again, in vain.
    cluster.wait("dials", |cluster| cluster.told(1).contains("cannot be reached (4 times)").then_some(()));
    assert_eq!(state(&cluster), "stopped");
    let (_, text) = output(cluster.at(1, &["status"]));
    assert!(text.contains("   2  stopped ") && !text.contains("DOWN"), "{text}");
    cluster.boot(2);
    cluster.wait("its return", |cluster| (state(cluster) == "up").then_some(()));
    cluster.kill(2);
    cluster.wait("its death", |cluster| (state(cluster) == "down").then_some(()));
    cluster.stop(1);
}

#[test]
fn a_machine_of_the_same_number_and_one_of_another_ca_are_named_at_both_ends() {
    let work = Workdir::new("said-twins").unwrap();
    let mut cluster = in_a_directory(&work, 2);
    cluster.start();
    // A copy of node 1's profile, at another address.
    let text = fs::read_to_string(cluster.file("node-1.toml")).unwrap();
    let listen = text.lines().find(|line| line.starts_with("listen")).unwrap().to_owned();
    let copy = text.replace(&listen, "listen = \"127.0.0.1:0\"").replace("node-1.sock", "node-9.sock");
    fs::write(cluster.file("node-9.toml"), copy).unwrap();
    cluster.boot(9);
    for node in [1, 9] {
        let met = "another machine has this node's number (it took this node's place at node 2";
        cluster.wait("it to be named", |cluster| {
            cluster.look(node)?.status.to_string().contains(met).then_some(())
        });
    }
    says(&cluster, 2, "/nodes/0/why", "two machines have this number");
    cluster.stop(9);
    // Node 2 with papers of a CA of its own.
    cluster.stop(2);
    let now_secs = HostClock.wall_ns() / 1_000_000_000;
    let (authority, ca) = Authority::make(now_secs, 2).unwrap();
    let issued = authority.issue(NodeId(2), None, now_secs, 2).unwrap();
    fs::write(cluster.file("node-2.crt"), issued.certificate).unwrap();
    fs::write(cluster.file("node-2.key"), issued.key).unwrap();
    fs::write(cluster.file("ca-2.crt"), ca.certificate).unwrap();
    let text = fs::read_to_string(cluster.file("node-2.toml")).unwrap();
    fs::write(cluster.file("node-2.toml"), text.replace("/ca.crt\"", "/ca-2.crt\"")).unwrap();
    cluster.boot(2);
    says(&cluster, 1, "/nodes/1/why", "the peer's certificate is of another CA");
    says(&cluster, 2, "/nodes/0/why", "refused this node's certificate: it is of another CA");
    for node in [1, 2] {
        cluster.stop(node);
    }
}

/// One node with its log in an etcd, which coordinates.
fn with_etcd(work: &Workdir, etcd: &Etcd) -> Cluster {
    let place = Place { lease_store: Some(etcd.url("rack/7")), ..Place::directory(&work.join("repository")) };
    let mut cluster = Cluster::make(PROGRAM, Setup { nodes: 1, ..Setup::new(place) }, None);
    cluster.boot(1);
    is_up(&cluster, 1);
    cluster.make_policy(1);
    cluster
}

/// Status, log and a command all say it.
fn all_say(cluster: &Cluster, texts: &[&str]) {
    let has_all = |said: &str| texts.iter().all(|text| said.contains(text));
    let shown = cluster.wait("the status to say it", |cluster| {
        let (_, text) = output(cluster.at(1, &["status"]));
        let joined = text.split_whitespace().collect::<Vec<_>>().join(" ");
        has_all(&joined).then_some(joined)
    });
    println!("status: {shown}");
    cluster.wait("the log to say it", |cluster| has_all(&cluster.told(1)).then_some(()));
    let mut backup = Talk::start(cluster.at(1, &["backup", POLICY]));
    let line = backup.until(texts[0]);
    println!("backup: {line}");
    assert!(has_all(&line), "{line}");
    backup.signal(Signal::SIGKILL);
    backup.end();
}

#[test]
fn an_etcd_that_was_emptied_is_named() {
    let started = Etcd::start(1).map_err(|why| skip("an_etcd_that_was_emptied_is_named", &why));
    let Ok(mut etcd) = started else { return };
    let work = Workdir::new("said-etcd").unwrap();
    let cluster = with_etcd(&work, &etcd);
    etcd.empty(0).unwrap();
    all_say(&cluster, &["it was emptied: its data is lost"]);
}

#[test]
fn an_etcd_that_was_rolled_back_is_named() {
    let started = Etcd::start(1).map_err(|why| skip("an_etcd_that_was_rolled_back_is_named", &why));
    let Ok(mut etcd) = started else { return };
    let work = Workdir::new("said-etcd").unwrap();
    let cluster = with_etcd(&work, &etcd);
    etcd.keep(0).unwrap();
    // Something that the copy does not have.
    expect_done(cluster.at(1, &["backup", POLICY, "--no-wait"]));
    etcd.roll_back(0).unwrap();
    all_say(&cluster, &["it was rolled back, to an old copy of its data"]);
}

#[test]
fn an_etcd_that_is_full_is_named() {
    let started = Etcd::start_small(4 << 20).map_err(|why| skip("an_etcd_that_is_full_is_named", &why));
    let Ok(etcd) = started else { return };
    let work = Workdir::new("said-etcd").unwrap();
    let cluster = with_etcd(&work, &etcd);
    let (store, body) = (etcd.store("other"), vec![1; 512 << 10]);
    let mut is_full = |n: u32| {
        let put = store.put(&format!("fill/{n:02}"), &[&body], PutMode::CreateOnly);
        put.is_err_and(|fault| fault.kind == StoreFaultKind::Full)
    };
    assert!((0..60).any(&mut is_full), "it is full");
    all_say(&cluster, &["no space left in the store", "compact and defragment it"]);
}

#[test]
fn a_log_whose_keys_were_deleted_under_its_holder_is_named_before_much_is_lost() {
    let work = Workdir::new("said-deleted").unwrap();
    let mut cluster = in_a_directory(&work, 1);
    cluster.boot(1);
    is_up(&cluster, 1);
    cluster.make_policy(1);
    for kind in ["epoch", "log", "beat", "ckpt"] {
        let _ = fs::remove_dir_all(work.join("repository").join(kind));
    }
    cluster.wait("the log to say it", |cluster| {
        cluster.told(1).contains("the store of the log was emptied").then_some(())
    });
    cluster.wait("no coordinator", |cluster| (cluster.look(1)?.coordinator == 0).then_some(()));
    cluster.stop(1);
}
