//! A cluster of real `windlass agent` processes: profiles, certificates and volumes made, agents started, killed, frozen, thawed.
//!
//! ```text
//!  node n: own-n (a device of its own), shared (all see it) --+-- backplane (TLS) -- one backup --> the repository at a [`Place`]
//!  test:   control sockets (Unix), status as JSON ------------+
//!          the log, slot by slot, and every volume restored and compared <------------------------'
//! ```
//!
//! | module | what |
//! |---|---|
//! | here | agents started, stopped, killed, asked |
//! | `setup` | repository, volumes, certificates, profiles |
//! | `check` | the log, the objects, the points, all compared |
//!
//! Agents end when the cluster is dropped, however the test ends. Source: ours.
#![allow(clippy::expect_used, clippy::panic, reason = "a harness: what is broken here ends the test")]

mod check;
mod setup;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command as Process, ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use windlass_agent::format::record::{PolicyChange, Record};
use windlass_agent::id::{BackupId, VolumeId};
use windlass_agent::log::state::State;
use windlass_agent::policy::{Policy, PolicyVolume, Reader};
use windlass_agent::work::{Command, Reply};
use windlass_board::control::client::Agent;
use windlass_board::engine::host::HostClock;
use windlass_board::engine::repository::Repository;

pub use check::Entry;
pub use setup::{Place, Setup};

use crate::cli::Cli;
use crate::engines::link::SlowLink;
use crate::netns::Networks;
use crate::turn::{CLUSTERS, Turn};
use crate::workdir::Workdir;
use setup::{Volume, random_image, volume};

/// The one policy.
pub const POLICY: &str = "cluster";
/// The volume that all nodes see.
pub const SHARED: &str = "shared";
/// T, in milliseconds: short, so that tests end.
pub const LEASE_MS: u32 = 3000;
/// Between beats, in milliseconds.
pub const BEAT_MS: u32 = 800;
/// How long anything may take, in seconds: several times what a loaded machine needs.
const PATIENCE_SECS: u64 = 120;
/// Between looks, in milliseconds.
const LOOK_MS: u64 = 50;

/// What a look at the status tells.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Who coordinates; 0: nobody.
    pub coordinator: u32,
    /// The highest epoch that the node knows.
    pub epoch: u64,
    /// Done of the running backup, in percent; 100 when none runs.
    pub percent: u64,
    /// Nodes that have assignments.
    pub busy: Vec<u32>,
    /// All of it.
    pub status: Value,
}

/// Agents, and all that they need.
pub struct Cluster {
    cli: Cli,
    setup: Setup,
    networks: Option<Networks>,
    links: Vec<SlowLink>,
    agents: BTreeMap<u32, Child>,
    volumes: Vec<Volume>,
    repository: Repository,
    work: Workdir,
    made_ns: u64,
    _turn: Turn,
}

impl Cluster {
    /// Makes repository, volumes, certificates and profiles. `program` is the command line under test; the nodes are on loopback, or
    /// each in a network of its own.
    pub fn make(program: &str, setup: Setup, networks: Option<Networks>) -> Cluster {
        let turn = CLUSTERS.take();
        let made_ns = HostClock.boot_ns();
        let work = match &setup.scratch {
            None => Workdir::new("cluster"),
            Some(base) => Workdir::below(base, "cluster"),
        };
        let work = work.expect("a scratch directory");
        let cli = Cli::new(program);
        let key = work.join("key");
        let mut arguments = setup.place.arguments(&key);
        arguments.extend(["repo".to_owned(), "init".to_owned()]);
        cli.ok(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
        let repository = Repository::open(&setup.place.global(&key)).expect("the repository opens");
        let own = |node| volume(&work, &format!("own-{node}"), u64::from(node), setup.own_dirs);
        let volumes = match setup.image_bytes {
            0 => {
                let shared = volume(&work, SHARED, 77, setup.shared_dirs);
                (1..=setup.nodes).map(own).chain([shared]).collect()
            }
            bytes => vec![random_image(&work, SHARED, 77, bytes)],
        };
        let (agents, links) = (BTreeMap::new(), Vec::new());
        let mut cluster =
            Cluster { cli, setup, networks, links, agents, volumes, repository, work, made_ns, _turn: turn };
        cluster.links = cluster.write_profiles();
        cluster
    }

    /// A volume's image.
    pub fn image(&self, name: &str) -> &Path {
        &self.volumes.iter().find(|volume| volume.name == name).expect("a volume of this name").image
    }

    /// All nodes.
    pub fn nodes(&self) -> std::ops::RangeInclusive<u32> {
        1..=self.setup.nodes
    }

    /// The networks between them.
    pub fn networks(&self) -> &Networks {
        self.networks.as_ref().expect("nodes have networks of their own")
    }

    /// Loses all connections between nodes on slow links.
    pub fn lose_connections(&self) {
        let lost: usize = self.links.iter().map(SlowLink::lose).sum();
        assert!(lost > 0, "no node was connected");
    }

    /// Starts all nodes and waits until the first sees the others.
    pub fn start(&mut self) {
        self.nodes().for_each(|node| self.boot(node));
        self.wait("the nodes to see each other", |cluster| {
            let told = cluster.told(1);
            let up = told.contains("node 1 is up");
            let seen = |node| told.contains(&format!("node {node} is connected"));
            (up && (2..=cluster.setup.nodes).all(seen)).then_some(())
        });
    }

    /// Starts a node.
    pub fn boot(&mut self, node: u32) {
        let log = File::options().create(true).append(true).open(self.log_path(node)).expect("a log file");
        let profile = self.work.join(&format!("node-{node}.toml")).display().to_string();
        let agent = self.cli.command(&["-v", "agent", "--board", &profile]);
        let mut command = match &self.networks {
            Some(networks) => networks.inside(node, &agent),
            None => agent,
        };
        if let Some(store) = &self.setup.place.lease_store {
            command.env("WINDLASS_LEASE_STORE", store);
        }
        let child =
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().expect("an agent starts");
        self.agents.insert(node, child);
    }

    /// Where a node's stderr goes.
    pub fn log_path(&self, node: u32) -> PathBuf {
        self.work.join(&format!("node-{node}.log"))
    }

    /// What a node has said, if that goes into a file.
    pub fn told(&self, node: u32) -> String {
        let path = self.log_path(node);
        if path.is_file() { fs::read_to_string(path).unwrap_or_default() } else { String::new() }
    }

    /// Ends a node without a word, as a power cut does.
    pub fn kill(&mut self, node: u32) {
        if let Some(mut child) = self.agents.remove(&node) {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// A node's process.
    pub fn process(&self, node: u32) -> u32 {
        self.agents.get(&node).expect("the node runs").id()
    }

    /// How a node ended by itself; `None` while it runs.
    pub fn ended(&mut self, node: u32) -> Option<ExitStatus> {
        let status = self.agents.get_mut(&node)?.try_wait().expect("a child can be asked");
        if status.is_some() {
            self.agents.remove(&node);
        }
        status
    }

    /// Sends a signal to a node.
    pub fn signal(&self, node: u32, signal: Signal) {
        let child = self.agents.get(&node).expect("the node runs");
        kill(Pid::from_raw(child.id() as i32), signal).expect("a signal is sent");
    }

    /// Asks a node to stop, and waits until it has; how long that took, in seconds. It must not fail.
    pub fn stop(&mut self, node: u32) -> f64 {
        self.signal(node, Signal::SIGTERM);
        self.stopped(node)
    }

    /// Waits until a node that was asked to stop has; for how long, in seconds. A second signal would end it at once.
    pub fn stopped(&mut self, node: u32) -> f64 {
        let begun = HostClock.boot_ns();
        let mut child = self.agents.remove(&node).expect("the node runs");
        let status = self.wait("a node to stop", |_| match child.try_wait() {
            Ok(Some(status)) => Some(status),
            _ if seconds_since(begun) > 30.0 => {
                let _ = child.kill();
                child.wait().ok()
            }
            _ => None,
        });
        assert!(status.success(), "node {node} stopped with {status}: {}", self.told(node));
        seconds_since(begun)
    }

    /// A node's control socket.
    pub fn socket(&self, node: u32) -> PathBuf {
        self.work.join(&format!("node-{node}.sock"))
    }

    /// Calls the command line at a node's socket.
    pub fn at(&self, node: u32, arguments: &[&str]) -> Process {
        let socket = self.socket(node).display().to_string();
        self.cli.command(&[&["--socket", &socket], arguments].concat())
    }

    /// Calls the command line at the repository itself, without an agent.
    pub fn alone(&self, arguments: &[&str]) -> Process {
        let place = self.setup.place.arguments(&self.work.join("key"));
        let all: Vec<&str> = place.iter().map(String::as_str).chain(arguments.iter().copied()).collect();
        self.cli.command(&all)
    }

    /// What the log says.
    pub fn state(&self) -> State {
        self.repository.view().expect("the log can be read").state
    }

    /// A file of the cluster: profiles (`node-1.toml`), certificates.
    pub fn file(&self, name: &str) -> PathBuf {
        self.work.join(name)
    }

    /// Makes the policy over all volumes.
    pub fn make_policy(&self, node: u32) {
        let named: Vec<(VolumeId, String)> =
            (1..).map(VolumeId).zip(self.volumes.iter().map(|volume| volume.name.clone())).collect();
        let volumes = named
            .iter()
            .map(|(_, name)| PolicyVolume { device: name.clone(), reader: Reader::Auto })
            .collect();
        let policy = Policy { verify: self.setup.verify, ..Policy::new(POLICY, volumes) };
        let body = policy.emit().expect("a policy");
        let change = PolicyChange { name: POLICY.to_owned(), revision: 1, body, volumes: named };
        self.command(node, Command::Submit(vec![Record::PolicyChanged(change)])).expect("a policy is taken");
    }

    /// Makes the policy and starts its backup.
    pub fn begin(&self, node: u32) -> BackupId {
        self.make_policy(node);
        match self.command(node, Command::Backup(POLICY.to_owned())) {
            Ok(Reply::Done(Some(backup))) => backup,
            other => panic!("the cluster answered {other:?} to a backup"),
        }
    }

    fn command(&self, node: u32, command: Command) -> Result<Reply, String> {
        let mut agent = Agent::required(Some(&self.socket(node))).map_err(|why| why.to_string())?;
        agent.command(command).map_err(|why| why.to_string())
    }

    /// What the cluster does, as a node sees it; `None` while it cannot say.
    pub fn look(&self, node: u32) -> Option<Seen> {
        let Ok(Reply::Status(json)) = self.command(node, Command::Status) else { return None };
        let status: Value = serde_json::from_str(&json).expect("a status is JSON");
        let number = |value: &Value| value.as_u64().unwrap_or(0);
        let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
        let running = list(&status["backups"]).into_iter().find(|backup| backup["policy"] == POLICY);
        let percent = |b: &Value| number(&b["bytes_done"]) * 100 / number(&b["bytes_total"]).max(1);
        let busy = |node: &Value| (number(&node["assignments"]) > 0).then(|| number(&node["node"]) as u32);
        Some(Seen {
            coordinator: number(&status["coordinator"]["node"]) as u32,
            epoch: number(&status["coordinator"]["epoch"]),
            percent: running.as_ref().map_or(100, percent),
            busy: list(&status["nodes"]).iter().filter_map(busy).collect(),
            status,
        })
    }

    /// Looks through a node until it coordinates or knows who does, and `done` says so.
    pub fn watch(&mut self, what: &str, node: u32, mut done: impl FnMut(&Seen) -> bool) -> Seen {
        self.wait(what, |cluster| cluster.look(node).filter(|seen| seen.coordinator > 0 && done(seen)))
    }

    /// Waits for the middle of the backup.
    pub fn middle(&mut self) -> Seen {
        let seen = self.watch("the middle of the backup", 1, |seen| seen.percent >= 15);
        assert!(seen.percent < 90, "the backup is over too soon for this test: {}", seen.status);
        seen
    }

    /// Any node but one.
    pub fn other(&self, node: u32) -> u32 {
        self.nodes().find(|other| *other != node).expect("another node")
    }

    /// Looks until there is an answer.
    ///
    /// # Panics
    /// When patience ends, with the last words of all nodes.
    pub fn wait<T>(&self, what: &str, mut look: impl FnMut(&Cluster) -> Option<T>) -> T {
        let begun = HostClock.boot_ns();
        while seconds_since(begun) < PATIENCE_SECS as f64 {
            if let Some(found) = look(self) {
                return found;
            }
            HostClock.sleep(Duration::from_millis(LOOK_MS));
        }
        panic!("waited {PATIENCE_SECS} s in vain for {what}\n{}", self.last_words());
    }

    fn last_words(&self) -> String {
        let mut text = String::new();
        for node in self.nodes() {
            let told = self.told(node);
            let lines: Vec<&str> = told.lines().collect();
            let last = lines[lines.len().saturating_sub(40)..].join("\n  ");
            let _ = writeln!(text, "node {node}:\n  {last}");
        }
        let log = self.log();
        let _ = writeln!(text, "log: {:?}", &log[log.len().saturating_sub(12)..]);
        text
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // A frozen process is killed as well.
        let running: Vec<u32> = self.agents.keys().copied().collect();
        running.into_iter().for_each(|node| self.kill(node));
    }
}

/// Seconds since a time of the boot clock, in nanoseconds.
pub fn seconds_since(begun_ns: u64) -> f64 {
    HostClock.boot_ns().saturating_sub(begun_ns) as f64 / 1e9
}
