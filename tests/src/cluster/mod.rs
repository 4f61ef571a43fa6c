//! A cluster of real `windlass agent` processes: profiles, certificates and volumes made, agents started, killed, frozen, thawed.
//!
//! ```text
//!  node n: own-n (a device of its own), shared (all see it) --+-- backplane (TLS) -- one backup --> the repository at a [`Place`]
//!  test:   control sockets (Unix), status as JSON ------------+
//!          the log, slot by slot, and every volume restored and compared <------------------------'
//! ```
//!
//! Agents end when the cluster is dropped, however the test ends. Source: ours.
#![allow(clippy::expect_used, clippy::panic, reason = "a harness: what is broken here ends the test")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command as Process, ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use windlass_agent::backplane::message::{Command, Reply};
use windlass_agent::format::record::{PolicyChange, Record};
use windlass_agent::format::slot::{SlotContents, SlotHeader};
use windlass_agent::id::{BackupId, NodeId, ObjectId, Slot, VolumeId};
use windlass_agent::log::call::{Answer, Call, perform};
use windlass_agent::log::keys;
use windlass_agent::log::sealer::LogSealer;
use windlass_agent::log::state::Point;
use windlass_agent::policy::{Policy, PolicyVolume, Reader};
use windlass_agent::store::Store;
use windlass_board::args::global::Global;
use windlass_board::args::value::Bytes;
use windlass_board::authority::Authority;
use windlass_board::control::client::Agent;
use windlass_board::host::HostClock;
use windlass_board::repository::Repository;

use crate::appliance::{expect_equal, image_of, plant};
use crate::cli::Cli;
use crate::netns::Networks;
use crate::prng::Prng;
use crate::workdir::Workdir;

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
/// Where nodes listen that have a network of their own.
const PORT: u16 = 7400;
/// How often a slot is read before the store counts as gone.
const READS_MAX: u32 = 5;
/// Bytes of a volume's image; what is not used is a hole.
const IMAGE_BYTES: u64 = 48 << 20;
/// Bytes of a plain image that are made and compared at once; such an image is a multiple of it.
const PIECE_BYTES: usize = 1 << 20;

/// Where the repository is, and how it is reached.
#[derive(Clone, Debug)]
pub struct Place {
    /// `file:///path` or `s3://bucket/prefix`.
    pub url: String,
    /// S3 servers; node n uses the n-th, round and round. This process uses the first.
    pub endpoints: Vec<String>,
    /// S3 keys.
    pub credentials: Option<PathBuf>,
    /// A store of its own for the log.
    pub lease_store: Option<String>,
}

impl Place {
    /// A directory.
    pub fn directory(path: &Path) -> Place {
        let url = format!("file://{}", path.display());
        Place { url, endpoints: Vec::new(), credentials: None, lease_store: None }
    }

    fn global(&self, key: &Path) -> Global {
        Global {
            repo: Some(self.url.clone()),
            lease_store: self.lease_store.clone(),
            lease_ca_file: None,
            lease_cert_file: None,
            lease_cert_key_file: None,
            key_file: Some(key.to_owned()),
            passphrase_file: None,
            endpoint: self.endpoints.first().cloned(),
            region: None,
            ca_file: None,
            credentials_file: self.credentials.clone(),
            profile: None,
            path_style: !self.endpoints.is_empty(),
            memory: Bytes(48 << 20),
            device_iops_max: None,
            limit_up: None,
            limit_down: None,
            socket: None,
            alone: true,
            json: false,
            verbose: 0,
        }
    }

    /// The same for the command line.
    fn arguments(&self, key: &Path) -> Vec<String> {
        let mut all = vec!["--alone".to_owned()];
        let mut put = |name: &str, value: Option<String>| {
            all.extend(value.into_iter().flat_map(|value| [name.to_owned(), value]));
        };
        put("--repo", Some(self.url.clone()));
        put("--key-file", Some(key.display().to_string()));
        put("--endpoint", self.endpoints.first().cloned());
        put("--credentials-file", self.credentials.as_ref().map(|path| path.display().to_string()));
        put("--lease-store", self.lease_store.clone());
        if !self.endpoints.is_empty() {
            all.push("--path-style".to_owned());
        }
        all
    }
}

/// How a cluster is made.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Its repository.
    pub place: Place,
    /// Nodes, numbered from 1.
    pub nodes: u32,
    /// Upload of each node, in KiB a second: gives a backup a middle.
    pub upload_kib_s: u32,
    /// Size of a node's own volume, in directories of [`plant`] (about 2.6 MiB, half of it incompressible).
    pub own_dirs: u64,
    /// Size of the shared volume, in the same.
    pub shared_dirs: u64,
    /// Bytes of the shared volume as a plain image of random bytes, and the only volume there is; 0: it has a file system.
    pub image_bytes: u64,
    /// T and the time between beats, in milliseconds.
    pub lease_ms: (u32, u32),
    /// Where images go; a directory for tests when it is not said.
    pub scratch: Option<PathBuf>,
}

impl Setup {
    /// Three nodes, and a backup of about 10 seconds at least.
    pub fn new(place: Place) -> Setup {
        Setup {
            place,
            nodes: 3,
            upload_kib_s: 600,
            own_dirs: 1,
            shared_dirs: 6,
            image_bytes: 0,
            lease_ms: (LEASE_MS, BEAT_MS),
            scratch: None,
        }
    }
}

struct Volume {
    name: String,
    tree: PathBuf,
    image: PathBuf,
}

impl Volume {
    /// Whether it has no file system: it is its own content.
    fn is_plain(&self) -> bool {
        self.tree == self.image
    }
}

/// A slot of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its place.
    pub slot: u64,
    /// Under which epoch it was written.
    pub epoch: u64,
    /// By which node.
    pub node: u32,
    /// Something was committed, other than that an epoch begins or ends.
    pub is_work: bool,
}

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
    agents: BTreeMap<u32, Child>,
    volumes: Vec<Volume>,
    repository: Repository,
    work: Workdir,
    made_ns: u64,
}

impl Cluster {
    /// Makes repository, volumes, certificates and profiles. `program` is the command line under test; the nodes are on loopback, or
    /// each in a network of its own.
    pub fn make(program: &str, setup: Setup, networks: Option<Networks>) -> Cluster {
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
        let cluster =
            Cluster { cli, setup, networks, agents: BTreeMap::new(), volumes, repository, work, made_ns };
        cluster.write_profiles();
        cluster
    }

    fn write_profiles(&self) {
        let write =
            |name: String, text: &str| fs::write(self.work.join(&name), text).expect("a file is written");
        let now_secs = HostClock.wall_ns() / 1_000_000_000;
        let (authority, ca) = Authority::make(now_secs, 2).expect("a CA");
        write("ca.crt".to_owned(), &ca.certificate);
        let addresses = self.addresses();
        for node in 1..=self.setup.nodes {
            let issued = authority.issue(NodeId(node), None, now_secs, 2).expect("a certificate");
            write(format!("node-{node}.crt"), &issued.certificate);
            write(format!("node-{node}.key"), &issued.key);
            write(format!("node-{node}.toml"), &self.profile(node, &addresses));
        }
    }

    /// Where the nodes listen: ports that were free a moment ago, all different.
    fn addresses(&self) -> Vec<SocketAddrV4> {
        if let Some(networks) = &self.networks {
            return self.nodes().map(|node| SocketAddrV4::new(networks.address(node), PORT)).collect();
        }
        let open = |_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let open: Vec<TcpListener> = self.nodes().map(open).collect();
        let port = |listener: &TcpListener| listener.local_addr().expect("an address").port();
        open.iter().map(|listener| SocketAddrV4::new(Ipv4Addr::LOCALHOST, port(listener))).collect()
    }

    fn profile(&self, node: u32, addresses: &[SocketAddrV4]) -> String {
        let own = |ending: &str| quoted(&self.work.join(&format!("node-{node}.{ending}")));
        let place = &self.setup.place;
        let mut text = format!(
            "[node]\nid = {node}\nname = \"node-{node}\"\n\n[repository]\nurl = {}\nkey_file = {}\n",
            Value::from(place.url.clone()),
            quoted(&self.work.join("key")),
        );
        if !place.endpoints.is_empty() {
            let endpoint = &place.endpoints[(node as usize - 1) % place.endpoints.len()];
            let _ = writeln!(text, "endpoint = {}\npath_style = true", Value::from(endpoint.clone()));
        }
        if let Some(file) = &place.credentials {
            let _ = writeln!(text, "credentials_file = {}", quoted(file));
        }
        let _ = write!(
            text,
            "\n[memory]\nbudget_mib = 48\n\n[work]\ncores = 1\nuplinks = 2\n\n[limits]\nupload_kib_s = {}\n\n\
             [backplane]\nlisten = \"{}\"\ncert_file = {}\nkey_file = {}\nca_file = {}\n\n\
             [control]\nsocket = {}\n\n[lease]\nlease_ms = {}\nbeat_ms = {}\n",
            self.setup.upload_kib_s,
            addresses[node as usize - 1],
            own("crt"),
            own("key"),
            quoted(&self.work.join("ca.crt")),
            own("sock"),
            self.setup.lease_ms.0,
            self.setup.lease_ms.1,
        );
        for (peer, address) in (1..).zip(addresses).filter(|(peer, _)| *peer != node) {
            let _ = write!(text, "\n[[peer]]\nnode = {peer}\naddress = \"{address}\"\n");
        }
        let mine = format!("own-{node}");
        for volume in self.volumes.iter().filter(|volume| volume.name == mine || volume.name == SHARED) {
            let _ = write!(
                text,
                "\n[[volume]]\nname = \"{}\"\ndevice = {}\nreader = \"{}\"\nsnapshot = \"frozen\"\n",
                volume.name,
                quoted(&volume.image),
                if volume.is_plain() { "image" } else { "auto" },
            );
        }
        text
    }

    /// A volume's image.
    pub fn image(&self, name: &str) -> &Path {
        &self.volumes.iter().find(|volume| volume.name == name).expect("a volume of this name").image
    }

    /// Objects in the store that no commit names, by the node that made them: work that was done and did not count.
    pub fn lost_objects(&self) -> BTreeMap<u32, usize> {
        let live = self.repository.view().expect("the log can be read").state.live;
        let mut lost = BTreeMap::new();
        for key in self.keys("obj/") {
            let id: ObjectId = key.trim_start_matches("obj/").parse().expect("an object's name");
            if !live.contains(&id) {
                *lost.entry(id.node.0).or_default() += 1;
            }
        }
        lost
    }

    /// All nodes.
    pub fn nodes(&self) -> std::ops::RangeInclusive<u32> {
        1..=self.setup.nodes
    }

    /// The networks between them.
    pub fn networks(&self) -> &Networks {
        self.networks.as_ref().expect("nodes have networks of their own")
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

    fn log_path(&self, node: u32) -> PathBuf {
        self.work.join(&format!("node-{node}.log"))
    }

    /// What a node has said.
    pub fn told(&self, node: u32) -> String {
        fs::read_to_string(self.log_path(node)).unwrap_or_default()
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

    /// Keys in the store that begin so.
    pub fn keys(&self, prefix: &str) -> Vec<String> {
        let mut keys = Vec::new();
        let mut take = |key: &str, _| {
            keys.push(key.to_owned());
            true
        };
        self.repository.opened.store.list(prefix, "", &mut take).expect("keys are listed");
        keys
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

    /// Makes the policy over all volumes.
    pub fn make_policy(&self, node: u32) {
        let named: Vec<(VolumeId, String)> =
            (1..).map(VolumeId).zip(self.volumes.iter().map(|volume| volume.name.clone())).collect();
        let volumes = named
            .iter()
            .map(|(_, name)| PolicyVolume { device: name.clone(), reader: Reader::Auto })
            .collect();
        let body = Policy::new(POLICY, volumes).emit().expect("a policy");
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

    /// A slot of the log, as it is in the store; `None` while there is none.
    pub fn entry(&self, slot: u64) -> Option<Entry> {
        let key = keys::slot(Slot(slot));
        let read = || perform(&*self.repository.opened.store, &Call::Get { key: key.clone() });
        let bytes = (0..READS_MAX).find_map(|_| match read() {
            (Answer::Body(bytes), _) => Some(Some(bytes)),
            (Answer::Absent, _) => Some(None),
            _ => None,
        });
        let bytes = bytes.unwrap_or_else(|| panic!("slot {slot} cannot be read"))?;
        let contents = SlotContents::parse(&bytes, &LogSealer::new(&self.repository.keys));
        let SlotContents { header, records, .. } = contents.expect("a slot is whole");
        let is_lease = |record: &Record| matches!(record, Record::EpochBegun { .. } | Record::Yield { .. });
        let is_work = !records.iter().all(is_lease);
        let SlotHeader { epoch, writer, .. } = header;
        Some(Entry { slot, epoch: epoch.0, node: writer.node.0, is_work })
    }

    /// The whole log. These tests are too short for a checkpoint to cut it.
    pub fn log(&self) -> Vec<Entry> {
        (1..).map_while(|slot| self.entry(slot)).collect()
    }

    /// Waits for the first slot from `from` on that fits.
    pub fn next_entry(&self, what: &str, from: u64, fits: impl Fn(&Entry) -> bool) -> Entry {
        let mut at = from;
        self.wait(what, |cluster| {
            while let Some(entry) = cluster.entry(at) {
                if fits(&entry) {
                    return Some(entry);
                }
                at += 1;
            }
            None
        })
    }

    /// Waits for the point of a backup.
    pub fn point(&self, backup: BackupId) -> Point {
        self.wait("the end of the backup", |cluster| {
            let view = cluster.repository.view().expect("the log can be read");
            view.state.points.get(&backup).cloned()
        })
    }

    /// Waits for the point of a backup, and checks everything: log and restored volumes. Ends the agents.
    pub fn finish(mut self, backup: BackupId) {
        self.point(backup);
        println!("{:.1} s after it was made, the cluster has its point", seconds_since(self.made_ns));
        self.check_log();
        let running: Vec<u32> = self.agents.keys().copied().collect();
        for node in running {
            self.stop(node);
        }
        self.check_log();
        self.check_restore(backup);
        println!("{:.1} s after it was made, all is compared", seconds_since(self.made_ns));
    }

    /// Epochs never go back, each has one writer, and every slot follows from the one before (which the log's reader checks).
    pub fn check_log(&self) {
        let log = self.log();
        for pair in log.windows(2) {
            assert!(pair[0].epoch <= pair[1].epoch, "an old epoch committed: {pair:?}");
            assert!(pair[0].epoch < pair[1].epoch || pair[0].node == pair[1].node, "two writers: {pair:?}");
        }
        self.repository.view().expect("the log can be replayed");
    }

    fn check_restore(&self, backup: BackupId) {
        for volume in &self.volumes {
            let to = self.work.join(&format!("restored-{}", volume.name));
            let (target, to_text) = (format!("{POLICY}@{}", backup.0), to.display().to_string());
            let mut arguments = self.setup.place.arguments(&self.work.join("key"));
            let more = ["restore", &target, "--volume", &volume.name, "--to", &to_text];
            arguments.extend(more.map(str::to_owned));
            self.cli.ok(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
            if volume.is_plain() {
                assert!(same_bytes(&volume.image, &to.join("image")), "{}: other bytes", volume.name);
            } else {
                expect_equal(&volume.tree, &to).unwrap_or_else(|why| panic!("{}: {why}", volume.name));
            }
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // A frozen process is killed as well.
        self.nodes().for_each(|node| self.kill(node));
    }
}

/// Seconds since a time of the boot clock, in nanoseconds.
pub fn seconds_since(begun_ns: u64) -> f64 {
    HostClock.boot_ns().saturating_sub(begun_ns) as f64 / 1e9
}

/// TOML's basic strings are JSON's, for what paths hold here.
fn quoted(path: &Path) -> Value {
    Value::from(path.display().to_string())
}

fn volume(work: &Workdir, name: &str, seed: u64, dirs: u64) -> Volume {
    let tree = work.dir(&format!("{name}-tree")).expect("a directory");
    let image = work.join(&format!("{name}.img"));
    plant(&tree, seed, dirs).expect("a tree");
    image_of(&tree, &image, IMAGE_BYTES).expect("an image");
    Volume { name: name.to_owned(), tree, image }
}

fn random_image(work: &Workdir, name: &str, seed: u64, bytes: u64) -> Volume {
    let image = work.join(&format!("{name}.img"));
    let mut file = File::create(&image).expect("an image");
    let mut random = Prng::new(seed);
    for _ in 0..bytes / PIECE_BYTES as u64 {
        file.write_all(&random.bytes(PIECE_BYTES)).expect("an image is written");
    }
    file.sync_all().expect("an image is written");
    Volume { name: name.to_owned(), tree: image.clone(), image }
}

fn same_bytes(a: &Path, b: &Path) -> bool {
    let open = |path: &Path| File::open(path).expect("a file");
    let (mut a, mut b) = (open(a), open(b));
    let (mut left, mut right) = (vec![0; PIECE_BYTES], vec![0; PIECE_BYTES]);
    loop {
        let got = a.read(&mut left).expect("a file is read");
        if got == 0 {
            return b.read(&mut right).expect("a file is read") == 0;
        }
        if b.read_exact(&mut right[..got]).is_err() || left[..got] != right[..got] {
            return false;
        }
    }
}
