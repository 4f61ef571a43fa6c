//! A real etcd on loopback: one member or a cluster, over http or TLS, that can be killed, frozen and started again.
//! Needs the package etcd-server. Source: etcd 3.4, "Configuration flags".
#![allow(clippy::disallowed_methods, reason = "waits for servers to come up")]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use windlass_agent::store::Store;
use windlass_agent::store::etcd::{EtcdSettings, EtcdStore, Place};

use super::certificates::certificates;
use super::free_port;
use super::scratch::Scratch;

/// How long a cluster may take to elect a leader, in tenths of a second.
const READY_DECISECONDS: usize = 300;

/// A running cluster; ends when dropped.
pub struct Etcd {
    /// Where `ca.pem`, `cert.pem` and `key.pem` are, over TLS.
    pub certificates: Option<Scratch>,
    scratch: Scratch,
    quota_bytes: Option<u64>,
    members: Vec<Member>,
}

struct Member {
    client: u16,
    peer: u16,
    child: Option<Child>,
}

impl Etcd {
    /// A cluster of `members` over plain http, or why not.
    ///
    /// # Errors
    /// The reason, for a skip.
    pub fn start(members: usize) -> Result<Etcd, String> {
        Etcd::start_with(members, None, None)
    }

    /// One member that is full after so many bytes.
    ///
    /// # Errors
    /// The reason, for a skip.
    pub fn start_small(quota_bytes: u64) -> Result<Etcd, String> {
        Etcd::start_with(1, None, Some(quota_bytes))
    }

    /// One member that speaks TLS and wants to see a client's certificate.
    ///
    /// # Errors
    /// The reason, for a skip.
    pub fn start_tls() -> Result<Etcd, String> {
        Etcd::start_with(1, Some(certificates()?), None)
    }

    fn start_with(
        members: usize,
        certificates: Option<Scratch>,
        quota_bytes: Option<u64>,
    ) -> Result<Etcd, String> {
        let port = || free_port().map_err(|e| e.to_string());
        let members: Result<Vec<Member>, String> =
            (0..members).map(|_| Ok(Member { client: port()?, peer: port()?, child: None })).collect();
        let mut etcd = Etcd { certificates, scratch: Scratch::new("etcd"), quota_bytes, members: members? };
        for at in 0..etcd.members.len() {
            etcd.spawn(at)?;
        }
        etcd.wait_until_ready()?;
        Ok(etcd)
    }

    /// `etcd://127.0.0.1:port,.../prefix` of all members.
    #[must_use]
    pub fn url(&self, prefix: &str) -> String {
        let scheme = if self.certificates.is_some() { "etcd+https" } else { "etcd" };
        let hosts: Vec<String> =
            self.members.iter().map(|member| format!("127.0.0.1:{}", member.client)).collect();
        format!("{scheme}://{}/{prefix}", hosts.join(","))
    }

    /// A store below `prefix`.
    ///
    /// # Panics
    /// When the settings are unusable.
    #[must_use]
    pub fn store(&self, prefix: &str) -> Arc<dyn Store> {
        let file = |name: &str| -> Option<PathBuf> { Some(self.certificates.as_ref()?.path().join(name)) };
        let settings = EtcdSettings {
            ca_file: file("ca.pem"),
            client: file("cert.pem").zip(file("key.pem")),
            ..EtcdSettings::default()
        };
        self.store_with(prefix, &settings)
    }

    /// A store below `prefix` with other settings.
    ///
    /// # Panics
    /// When they are unusable.
    #[must_use]
    #[allow(clippy::expect_used, reason = "a harness: a broken engine ends the test")]
    pub fn store_with(&self, prefix: &str, settings: &EtcdSettings) -> Arc<dyn Store> {
        let url = self.url(prefix);
        let (scheme, rest) = url.split_once("://").expect("a URL");
        let place = Place::parse(rest, scheme != "etcd").expect("a place");
        Arc::new(EtcdStore::open(place, settings).expect("certificates"))
    }

    /// Ends a member as a power cut does.
    pub fn kill(&mut self, at: usize) {
        if let Some(mut child) = self.members[at].child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Stops a member's time, or lets it go on: it accepts connections and does not answer. Returns when every thread has stopped.
    pub fn freeze(&self, at: usize, frozen: bool) {
        let Some(child) = &self.members[at].child else { return };
        let signal = if frozen { Signal::SIGSTOP } else { Signal::SIGCONT };
        let _ = kill(Pid::from_raw(child.id() as i32), signal);
        // A thread on another processor goes on for a moment behind the signal, and may answer.
        while frozen && !is_stopped(child.id()) {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Starts a killed member again, with what it has on disk, and waits until the cluster answers.
    ///
    /// # Errors
    /// The reason.
    pub fn restart(&mut self, at: usize) -> Result<(), String> {
        self.spawn(at)?;
        self.wait_until_ready()
    }

    /// Starts a member anew with nothing on disk, and waits until the cluster answers.
    ///
    /// # Errors
    /// The reason.
    pub fn empty(&mut self, at: usize) -> Result<(), String> {
        self.kill(at);
        std::fs::remove_dir_all(self.data(at)).map_err(|e| e.to_string())?;
        self.restart(at)
    }

    /// Keeps a copy of what a member has on disk, for [`Etcd::roll_back`]. The member is started again.
    ///
    /// # Errors
    /// The reason.
    pub fn keep(&mut self, at: usize) -> Result<(), String> {
        self.kill(at);
        copy(&self.data(at), &self.data(at).with_extension("kept"))?;
        self.restart(at)
    }

    /// Starts a member anew with the copy that was kept.
    ///
    /// # Errors
    /// The reason.
    pub fn roll_back(&mut self, at: usize) -> Result<(), String> {
        self.kill(at);
        std::fs::remove_dir_all(self.data(at)).map_err(|e| e.to_string())?;
        copy(&self.data(at).with_extension("kept"), &self.data(at))?;
        self.restart(at)
    }

    fn spawn(&mut self, at: usize) -> Result<(), String> {
        let scheme = if self.certificates.is_some() { "https" } else { "http" };
        let cluster: Vec<String> = self
            .members
            .iter()
            .enumerate()
            .map(|(n, member)| format!("m{n}=http://127.0.0.1:{}", member.peer))
            .collect();
        let (client, peer) = (self.members[at].client, self.members[at].peer);
        let client = format!("{scheme}://127.0.0.1:{client}");
        let peer = format!("http://127.0.0.1:{peer}");
        let mut command = Command::new("etcd");
        command.arg("--name").arg(format!("m{at}")).arg("--data-dir").arg(self.data(at));
        command.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
        command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
        command.args(["--initial-cluster", &cluster.join(","), "--initial-cluster-state", "new"]);
        // The machine may be busy: members that are late must not cost elections all the time.
        command.args(["--heartbeat-interval", "100", "--election-timeout", "1000", "--logger", "zap"]);
        if let Some(bytes) = self.quota_bytes {
            command.args(["--quota-backend-bytes", &bytes.to_string()]);
        }
        if let Some(made) = &self.certificates {
            let file = |name: &str| made.path().join(name);
            command.arg("--cert-file").arg(file("cert.pem")).arg("--key-file").arg(file("key.pem"));
            command.arg("--client-cert-auth").arg("--trusted-ca-file").arg(file("ca.pem"));
        }
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|e| format!("etcd (package etcd-server): {e}"))?;
        self.members[at].child = Some(child);
        Ok(())
    }

    fn data(&self, at: usize) -> PathBuf {
        Path::new(self.scratch.path()).join(format!("m{at}"))
    }

    /// Until every member that runs answers; behind TLS only that it listens can be seen from here.
    fn wait_until_ready(&mut self) -> Result<(), String> {
        let tls = self.certificates.is_some();
        for _ in 0..READY_DECISECONDS {
            let running = || self.members.iter().filter(|member| member.child.is_some());
            if running().all(|member| is_ready(member.client, tls)) {
                return Ok(());
            }
            for member in &mut self.members {
                if let Some(Ok(Some(status))) = member.child.as_mut().map(Child::try_wait) {
                    return Err(format!("etcd ended: {status}"));
                }
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        Err("etcd did not answer within 30 s".to_owned())
    }
}

fn copy(from: &Path, to: &Path) -> Result<(), String> {
    let status = Command::new("cp").arg("-a").arg(from).arg(to).status().map_err(|e| e.to_string())?;
    if status.success() { Ok(()) } else { Err(format!("cp ended: {status}")) }
}

/// Whether all threads of a process are stopped, or gone.
fn is_stopped(process: u32) -> bool {
    let Ok(threads) = std::fs::read_dir(format!("/proc/{process}/task")) else { return true };
    threads.flatten().all(|thread| {
        let stat = std::fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
        // "number (name) state ...": a name may hold anything.
        stat.rsplit_once(')').is_none_or(|(_, rest)| rest.trim_start().starts_with(['T', 't', 'Z', 'X']))
    })
}

/// Whether a member has a leader and answers.
fn is_ready(port: u16, tls: bool) -> bool {
    let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) else { return false };
    if tls {
        return true;
    }
    let _ = stream.set_read_timeout(Some(Duration::from_secs(2)));
    let mut answer = String::new();
    stream.write_all(b"GET /health HTTP/1.0\r\n\r\n").is_ok()
        && stream.read_to_string(&mut answer).is_ok()
        && answer.contains("\"true\"")
}

impl Drop for Etcd {
    fn drop(&mut self) {
        for at in 0..self.members.len() {
            self.kill(at);
        }
    }
}
