//! The demo's cluster: three agents as processes, a backup that is split over them, the coordinator killed half way with -9.
//!
//! ```text
//!  node 1: own-1, shared --+
//!  node 2: own-2, shared --+-- backplane (TLS, loopback) -- one backup --> repository
//!  node 3: own-3, shared --+
//!          kill -9 the coordinator -> another takes the lease -> the dead node boots again -> the backup ends -> restored, compared
//! ```
//!
//! Source: ours.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command as Process, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use windlass_agent::format::record::{PolicyChange, Record};
use windlass_agent::id::{BackupId, NodeId, VolumeId};
use windlass_agent::log::state::State;
use windlass_agent::policy::{Policy, PolicyVolume, Reader};
use windlass_agent::work::{Command, Reply};

use crate::authority::Authority;
use crate::control::client::Agent;
use crate::engine::host::HostClock;
use crate::failure::Failure;

/// The cluster's policy.
pub const POLICY: &str = "demo-cluster";
/// Nodes.
const NODES: u32 = 3;
/// The volume that all of them see.
const SHARED: &str = "shared";
/// How long anything may take, in nanoseconds, before the demo gives up: a slow machine needs some of it.
const PATIENCE_NS: u64 = 180_000_000_000;
/// Between looks, in milliseconds.
const LOOK_MS: u64 = 200;
/// Seconds that the backup should take at least, so that there is a middle to kill somebody in.
const MIDDLE_SECS: u64 = 12;
/// Slowest upload that is asked for, in KiB a second.
const UPLOAD_KIB_MIN: u64 = 256;
/// The lease, in milliseconds: short, for one machine.
const LEASE_MS: u32 = 3000;

/// Agents that end when this does.
pub struct Cluster {
    dir: PathBuf,
    agents: BTreeMap<u32, Child>,
    /// Name and image of every volume.
    pub volumes: Vec<(String, PathBuf)>,
}

/// What a look at the status tells.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Who coordinates.
    pub coordinator: Option<u32>,
    /// Under which epoch.
    pub epoch: u64,
    /// Share of the running backup, in percent; `None` when none runs.
    pub percent: Option<u64>,
    /// Assignments that each node has.
    pub work: Vec<(u32, u64)>,
}

impl Cluster {
    /// Writes certificates and profiles. `own` are the images of the nodes' own volumes.
    pub fn make(
        dir: &Path,
        repository: &str,
        key: &Path,
        shared: &Path,
        own: Vec<PathBuf>,
    ) -> Result<Cluster, Failure> {
        fs::create_dir_all(dir).map_err(|error| Failure::at(dir.display(), error))?;
        let now_secs = HostClock.wall_ns() / 1_000_000_000;
        let (authority, ca) = Authority::make(now_secs, 2)?;
        let write = |name: String, text: &str| {
            let path = dir.join(name);
            fs::write(&path, text).map_err(|error| Failure::at(path.display(), error))
        };
        write("ca.crt".to_owned(), &ca.certificate)?;
        let ports = free_ports()?;
        let bytes = |path: &Path| {
            fs::metadata(path).map_or(0, |meta| std::os::unix::fs::MetadataExt::blocks(&meta) * 512)
        };
        let all: u64 = own.iter().map(|path| bytes(path)).sum::<u64>() + bytes(shared);
        // Half of it is left after compression, and each node takes a part.
        let upload = (all / 2 / u64::from(NODES) / MIDDLE_SECS / 1024).max(UPLOAD_KIB_MIN);
        for node in 1..=NODES {
            let issued = authority.issue(NodeId(node), None, now_secs, 2)?;
            write(format!("node-{node}.crt"), &issued.certificate)?;
            write(format!("node-{node}.key"), &issued.key)?;
            let own = &own[node as usize - 1];
            let text = profile(
                node,
                &ports,
                dir,
                repository,
                key,
                upload,
                &[(format!("own-{node}"), own), (SHARED.to_owned(), shared)],
            );
            write(format!("node-{node}.toml"), &text)?;
        }
        let mut volumes: Vec<(String, PathBuf)> =
            own.into_iter().enumerate().map(|(i, path)| (format!("own-{}", i + 1), path)).collect();
        volumes.push((SHARED.to_owned(), shared.to_owned()));
        Ok(Cluster { dir: dir.to_owned(), agents: BTreeMap::new(), volumes })
    }

    /// Starts all nodes and waits until they see each other.
    pub fn start(&mut self) -> Result<(), Failure> {
        (1..=NODES).try_for_each(|node| self.boot(node))?;
        wait_for("the nodes to see each other", || {
            let told = fs::read_to_string(self.log(1)).unwrap_or_default();
            Ok((2..=NODES).all(|node| told.contains(&format!("node {node} is connected"))).then_some(()))
        })
    }

    /// Starts a node.
    pub fn boot(&mut self, node: u32) -> Result<(), Failure> {
        let program =
            std::env::current_exe().map_err(|error| Failure::at("cannot find this program", error))?;
        let log = self.log(node);
        let file = File::options().create(true).append(true).open(&log);
        let file = file.map_err(|error| Failure::at(log.display(), error))?;
        let child = Process::new(&program)
            .arg("agent")
            .arg("--board")
            .arg(self.dir.join(format!("node-{node}.toml")))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(file)
            .spawn()
            .map_err(|error| Failure::at(program.display(), error))?;
        self.agents.insert(node, child);
        Ok(())
    }

    fn log(&self, node: u32) -> PathBuf {
        self.dir.join(format!("node-{node}.log"))
    }

    /// Ends a node without a word, as a power cut would.
    pub fn kill(&mut self, node: u32) {
        if let Some(mut child) = self.agents.remove(&node) {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Asks a node that runs, other than `not`.
    fn ask(&self, not: Option<u32>, command: Command) -> Result<Reply, Failure> {
        let node = self.agents.keys().find(|&&node| Some(node) != not);
        let node = node.ok_or_else(|| Failure::new("no agent runs"))?;
        let socket = self.dir.join(format!("node-{node}.sock"));
        Agent::required(Some(&socket))?.command(command)
    }

    /// Makes the policy and starts its backup.
    pub fn begin(&self, state: &State) -> Result<BackupId, Failure> {
        let first = state.next_volume().map_or(1, |volume| volume.0);
        let named: Vec<(VolumeId, String)> =
            self.volumes.iter().zip(first..).map(|((name, _), id)| (VolumeId(id), name.clone())).collect();
        let volumes = named
            .iter()
            .map(|(_, name)| PolicyVolume { device: name.clone(), reader: Reader::Auto })
            .collect();
        let change = PolicyChange {
            name: POLICY.to_owned(),
            revision: 1,
            body: Policy::new(POLICY, volumes).emit().map_err(Failure::new)?,
            volumes: named,
        };
        self.ask(None, Command::Submit(vec![Record::PolicyChanged(change)]))?;
        match self.ask(None, Command::Backup(POLICY.to_owned()))? {
            Reply::Done(Some(backup)) => Ok(backup),
            other => Err(Failure::new(format_args!("the cluster answered {other:?} to a backup"))),
        }
    }

    /// What the cluster is doing, as a node other than `not` sees it.
    pub fn look(&self, not: Option<u32>) -> Result<Seen, Failure> {
        let Reply::Status(json) = self.ask(not, Command::Status)? else {
            return Err(Failure::new("the cluster answered something else to a status"));
        };
        let status: Value = serde_json::from_str(&json).map_err(|error| Failure::at("status", error))?;
        let number = |value: &Value| value.as_u64().unwrap_or(0);
        let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
        let running = list(&status["backups"]).into_iter().find(|backup| backup["policy"] == POLICY);
        let percent = |b: &Value| number(&b["bytes_done"]) * 100 / number(&b["bytes_total"]).max(1);
        Ok(Seen {
            coordinator: status["coordinator"]["node"].as_u64().and_then(|node| u32::try_from(node).ok()),
            epoch: number(&status["coordinator"]["epoch"]),
            percent: running.as_ref().map(percent),
            work: list(&status["nodes"])
                .iter()
                .map(|node| (u32::try_from(number(&node["node"])).unwrap_or(0), number(&node["assignments"])))
                .collect(),
        })
    }

    /// Looks again and again until `done` says so.
    pub fn watch(
        &self,
        what: &str,
        not: Option<u32>,
        mut done: impl FnMut(&Seen) -> bool,
    ) -> Result<Seen, Failure> {
        wait_for(what, || {
            // A node that waits for a coordinator may refuse for a moment.
            Ok(self.look(not).ok().filter(|seen| done(seen)))
        })
    }

    /// Stops all nodes as a service manager would.
    pub fn stop(&mut self) {
        for child in self.agents.values() {
            let _ = kill(Pid::from_raw(child.id() as i32), Signal::SIGTERM);
        }
        let _ = wait_for("the nodes to stop", || {
            let mut all = true;
            for child in self.agents.values_mut() {
                all &= matches!(child.try_wait(), Ok(Some(_)) | Err(_));
            }
            Ok(all.then_some(()))
        });
        (1..=NODES).for_each(|node| self.kill(node));
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        (1..=NODES).for_each(|node| self.kill(node));
    }
}

/// Looks until there is an answer, or patience ends.
pub fn wait_for<T>(what: &str, mut look: impl FnMut() -> Result<Option<T>, Failure>) -> Result<T, Failure> {
    let end = HostClock.boot_ns().saturating_add(PATIENCE_NS);
    loop {
        if let Some(found) = look()? {
            return Ok(found);
        }
        if HostClock.boot_ns() > end {
            return Err(Failure::new(format_args!(
                "waited {} s in vain for {what}",
                PATIENCE_NS / 1_000_000_000
            )));
        }
        HostClock.sleep(Duration::from_millis(LOOK_MS));
    }
}

/// Ports that nobody has at the moment, one for each node.
fn free_ports() -> Result<Vec<u16>, Failure> {
    let failed = |error| Failure::at("127.0.0.1", error);
    let open: Vec<TcpListener> =
        (0..NODES).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<Result<_, _>>().map_err(failed)?;
    open.iter()
        .map(|listener| listener.local_addr().map(|address| address.port()))
        .collect::<Result<_, _>>()
        .map_err(failed)
}

/// A node's board profile.
fn profile(
    node: u32,
    ports: &[u16],
    dir: &Path,
    repository: &str,
    key: &Path,
    upload_kib_s: u64,
    volumes: &[(String, &Path)],
) -> String {
    // A basic string: the paths are ours, or escaped as JSON is, which TOML shares.
    let quoted = |path: &Path| Value::from(path.display().to_string()).to_string();
    let file = |ending: &str| quoted(&dir.join(format!("node-{node}.{ending}")));
    let mut text = format!(
        "[node]\nid = {node}\nname = \"demo-{node}\"\n\n[repository]\nurl = {}\nkey_file = {}\n\n\
         [memory]\nbudget_mib = 48\n\n[work]\ncores = 1\nuplinks = 2\n\n[limits]\nupload_kib_s = {upload_kib_s}\n\n\
         [backplane]\nlisten = \"127.0.0.1:{}\"\ncert_file = {}\nkey_file = {}\nca_file = {}\n\n\
         [control]\nsocket = {}\n\n[lease]\nlease_ms = {LEASE_MS}\n",
        Value::from(repository),
        quoted(key),
        ports[node as usize - 1],
        file("crt"),
        file("key"),
        quoted(&dir.join("ca.crt")),
        file("sock"),
    );
    for (peer, port) in (1..=NODES).zip(ports).filter(|(peer, _)| *peer != node) {
        let _ = write!(text, "\n[[peer]]\nnode = {peer}\naddress = \"127.0.0.1:{port}\"\n");
    }
    for (name, device) in volumes {
        let _ = write!(text, "\n[[volume]]\nname = \"{name}\"\ndevice = {}\n", quoted(device));
    }
    text
}
