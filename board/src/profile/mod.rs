//! Board profiles: what one node is and has, as data. TOML, one file per node, units in keys, unknown keys refused.
//!
//! | module | what |
//! |---|---|
//! | this one | the keys, their bounds and defaults |
//! | [`read`] | text to a [`Profile`], or every fault with file:line:column and what to do |
//! | [`check`] | a profile against the machine that it is for: files, devices, certificates, memory |
//! | [`explain`] | a profile as a table, defaults filled in, and the memory sum |
//! | [`shipped`] | the profiles that come with the program |
//!
//! What the command line or the environment says of the repository goes before the profile, as it does everywhere else.
//! Invariants: a [`Profile`] that exists is within all bounds, its names and peers are unique, and its paths are absolute.
//! Does not: hold secrets (only paths of files that do), or open anything.
//! Source: ours; `board/doc/add-a-board.md`.

pub mod check;
pub mod explain;
pub mod read;
#[cfg(test)]
mod read_test;
pub mod shipped;

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::Deserialize;
use windlass_agent::backplane::message::NODE_VOLUMES_MAX;
use windlass_agent::drive::budget::{Budget, MEMORY_BYTES_DEFAULT, TooSmall};
use windlass_agent::id::NodeId;
use windlass_agent::log::lease::Timing;
use windlass_agent::pack::{BLOCK_BYTES_DEFAULT, OBJECT_BYTES_DEFAULT};
use windlass_agent::policy::Reader;

use crate::api::tls::Files;
use crate::control::wire::Identity;
use crate::engine::host;
use crate::engine::settings::Access;
use read::{At, bounded, maybe_bounded};

/// Largest node number: frames carry it in 16 bits.
pub const NODE_MAX: i64 = 65_535;
/// Largest share of the work.
pub const WEIGHT_MAX: i64 = 1000;
/// Peers of a node: a status of 64 nodes fits a reply.
pub const PEERS_MAX: usize = 63;
/// Volumes of a node: what it can name in a frame.
pub const VOLUMES_MAX: usize = NODE_VOLUMES_MAX;
/// Largest profile in bytes; a larger file is something else.
pub const PROFILE_BYTES_MAX: u64 = 256 << 10;
/// Where the agent listens for commands when the profile does not say.
pub const SOCKET_DEFAULT: &str = "/run/windlass/agent.sock";

/// One node.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// Who it is.
    pub node: Node,
    /// Where backups go.
    #[serde(default)]
    pub repository: Repository,
    /// How much memory it may take.
    #[serde(default)]
    pub memory: Memory,
    /// How much of the work it takes, and with how many threads.
    #[serde(default)]
    pub work: Work,
    /// How fast, at most.
    #[serde(default)]
    pub limits: Limits,
    /// How the others reach it; a node without one is a cluster of its own.
    pub backplane: Option<Backplane>,
    /// The other nodes.
    #[serde(default)]
    pub peer: Vec<Peer>,
    /// What it can read.
    #[serde(default)]
    pub volume: Vec<Volume>,
    /// How commands reach it.
    #[serde(default)]
    pub control: Control,
    /// How programs and browsers reach it; without it they do not.
    pub api: Option<Api>,
    /// How nodes agree on who coordinates.
    #[serde(default)]
    pub lease: Lease,
}

/// Who a node is.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Node {
    /// Its number, `0..=65535`, the same as in its certificate; no other node has it.
    #[serde(deserialize_with = "bounded::<_, 0, NODE_MAX>")]
    pub id: u32,
    /// For people.
    pub name: At<String>,
}

/// Where backups go. Each key means what the option of the same name means.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Repository {
    /// `file:///path`, `s3://bucket/prefix`, `az://account/container/prefix` or `gs://bucket/prefix`.
    pub url: Option<At<String>>,
    /// File with the key.
    pub key_file: Option<At<PathBuf>>,
    /// File with a passphrase instead.
    pub passphrase_file: Option<At<PathBuf>>,
    /// Server of the store.
    pub endpoint: Option<String>,
    /// S3 region.
    pub region: Option<String>,
    /// CA certificates of it.
    pub ca_file: Option<At<PathBuf>>,
    /// File with its credentials.
    pub credentials_file: Option<At<PathBuf>>,
    /// Which keys in it.
    pub credentials_profile: Option<String>,
    /// Bucket in the path.
    pub path_style: bool,
}

/// Memory.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Memory {
    /// Everything that the process may take, in MiB.
    pub budget_mib: At<u64>,
    /// Largest block size of the policies that this node works for, in KiB; buffers are made for it at boot.
    pub block_kib_max: At<u64>,
}

impl Default for Memory {
    fn default() -> Memory {
        Memory {
            budget_mib: (MEMORY_BYTES_DEFAULT >> 20).into(),
            block_kib_max: u64::from(BLOCK_BYTES_DEFAULT >> 10).into(),
        }
    }
}

/// Work.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Work {
    /// How much of the work it wants compared with others, `0..=1000`; 0: none, it only coordinates when it must.
    #[serde(deserialize_with = "bounded::<_, 0, WEIGHT_MAX>")]
    pub weight: u32,
    /// Cores that pack, `1..=256`; all when it is not said.
    #[serde(deserialize_with = "maybe_bounded::<_, 1, 256>")]
    pub cores: Option<u32>,
    /// Uploads at once, `1..=64`.
    #[serde(deserialize_with = "bounded::<_, 1, 64>")]
    pub uplinks: u32,
}

impl Default for Work {
    fn default() -> Work {
        Work { weight: 100, cores: None, uplinks: 4 }
    }
}

/// Limits of this node; a policy's own limits hold as well. None when it is not said.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// To the store, in KiB a second: at least [`RATE_BYTES_S_MIN`](crate::cli::args::value::RATE_BYTES_S_MIN).
    #[serde(deserialize_with = "maybe_bounded::<_, 64, { u32::MAX as i64 }>")]
    pub upload_kib_s: Option<u32>,
    /// From the store, in KiB a second; likewise.
    #[serde(deserialize_with = "maybe_bounded::<_, 64, { u32::MAX as i64 }>")]
    pub download_kib_s: Option<u32>,
    /// Operations a second on each device.
    #[serde(deserialize_with = "maybe_bounded::<_, 1, { u32::MAX as i64 }>")]
    pub device_iops: Option<u32>,
}

/// How the others reach this node. `windlass pki` makes the files.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Backplane {
    /// IP address and port.
    pub listen: At<SocketAddr>,
    /// This node's certificate, PEM.
    pub cert_file: At<PathBuf>,
    /// Its private key, PEM.
    pub key_file: At<PathBuf>,
    /// The CA that all nodes' certificates are from, PEM.
    pub ca_file: At<PathBuf>,
}

/// Another node.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Peer {
    /// Its number.
    pub node: At<u32>,
    /// Its IP address and port.
    pub address: At<SocketAddr>,
}

/// Something to read.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Volume {
    /// What policies call it; nodes that see the same device call it the same. The device's path when it is not said.
    pub name: Option<At<String>>,
    /// The block device or image file; use names that stay (/dev/disk/by-id, /dev/mapper).
    pub device: At<PathBuf>,
    /// How to read it, where the policy says `auto`.
    #[serde(default)]
    pub reader: Reader,
    /// What identifies the contents of a frozen device, as the snapshot service names it. Given, the device must not change
    /// while this text stays: an interrupted backup goes on where it was.
    pub snapshot: Option<String>,
}

impl Volume {
    /// What policies call it.
    pub fn title(&self) -> String {
        self.name.as_ref().map_or_else(|| self.device.display().to_string(), |name| name.value.clone())
    }
}

/// How commands reach this node.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Control {
    /// The Unix socket; its directory is made when it is not there.
    pub socket: At<PathBuf>,
    /// A group whose members may connect too, by name or number; what each may do is said by `windlass role`.
    pub group: Option<String>,
}

impl Default for Control {
    fn default() -> Control {
        Control { socket: PathBuf::from(SOCKET_DEFAULT).into(), group: None }
    }
}

/// How programs and browsers reach this node: by TLS with certificates, by a Unix socket, or by both.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Api {
    /// IP address and port for TLS.
    pub listen: Option<At<SocketAddr>>,
    /// The certificate that it shows, PEM.
    pub cert_file: Option<At<PathBuf>>,
    /// Its private key, PEM.
    pub key_file: Option<At<PathBuf>>,
    /// The CA of those who ask, PEM. Who they are is in their certificates; what each may do is said by `windlass role`.
    pub client_ca_file: Option<At<PathBuf>>,
    /// A Unix socket; its directory is made when it is not there.
    pub socket: Option<At<PathBuf>>,
    /// A group whose members may connect to that too, by name or number.
    pub group: Option<String>,
}

impl Api {
    /// The files for TLS, if all are named.
    pub fn tls(&self) -> Option<Files> {
        let path = |file: &Option<At<PathBuf>>| file.as_ref().map(|file| file.value.clone());
        self.listen.as_ref()?;
        Some(Files {
            certificate: path(&self.cert_file)?,
            key: path(&self.key_file)?,
            client_ca: path(&self.client_ca_file)?,
        })
    }
}

/// How nodes agree on who coordinates. Times count as long as the repository says none of its own (`repo set --lease`).
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Lease {
    /// Where the lease is.
    pub store: At<LeasePlace>,
    /// For how long a beat holds, in milliseconds.
    #[serde(deserialize_with = "maybe_bounded::<_, 500, 3_600_000>")]
    pub lease_ms: Option<u32>,
    /// Between beats, in milliseconds; a third of the lease at most.
    pub beat_ms: Option<At<u32>>,
    /// What a node waits on top before it takes over, in milliseconds.
    #[serde(deserialize_with = "maybe_bounded::<_, 0, 3_600_000>")]
    pub margin_ms: Option<u32>,
}

/// Where lease and log are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum LeasePlace {
    /// In the repository's store.
    #[default]
    Repository,
    /// In a store of their own, at this URL: what `--lease-store` says.
    Own(String),
}

impl TryFrom<String> for LeasePlace {
    type Error = &'static str;

    fn try_from(text: String) -> Result<LeasePlace, &'static str> {
        let kind = text.split_once("://").filter(|(_, place)| !place.is_empty()).map(|(kind, _)| kind);
        match (text.as_str(), kind) {
            ("repository", _) => Ok(LeasePlace::Repository),
            (_, Some("etcd" | "etcd+https" | "file")) => Ok(LeasePlace::Own(text)),
            _ => Err("expected \"repository\", or a URL such as \"etcd://127.0.0.1:2379/prefix\""),
        }
    }
}

impl Profile {
    /// Its number.
    pub fn id(&self) -> NodeId {
        NodeId(self.node.id)
    }

    /// Memory budget in bytes.
    pub fn memory_bytes(&self) -> u64 {
        self.memory.budget_mib.value << 20
    }

    /// Largest block in bytes.
    pub fn block_bytes_max(&self) -> u32 {
        u32::try_from(self.memory.block_kib_max.value << 10).unwrap_or(u32::MAX)
    }

    /// Cores that pack.
    pub fn cores(&self) -> usize {
        self.work.cores.map_or_else(host::cores, |cores| cores as usize)
    }

    /// How the memory is divided.
    pub fn budget(&self) -> Result<Budget, TooSmall> {
        let (cores, uplinks) = (self.cores(), self.work.uplinks as usize);
        Budget::plan(self.memory_bytes(), self.block_bytes_max(), OBJECT_BYTES_DEFAULT, cores, uplinks)
    }

    /// Times of the lease.
    pub fn timing(&self) -> Timing {
        let ns = |ms: u32| u64::from(ms) * 1_000_000;
        let usual = Timing::of(self.lease.lease_ms.map_or(Timing::default().lease_ns, ns));
        Timing {
            beat_ns: self.lease.beat_ms.as_ref().map_or(usual.beat_ns, |beat| ns(beat.value)),
            margin_ns: self.lease.margin_ms.map_or(usual.margin_ns, ns),
            ..usual
        }
    }

    /// How this node's repository is reached and opened.
    pub fn access(&self) -> Access {
        let own = &self.repository;
        let path = |path: &Option<At<PathBuf>>| path.as_ref().map(|path| path.value.clone());
        Access {
            url: own.url.as_ref().map(|url| url.value.clone()),
            key_file: path(&own.key_file),
            passphrase_file: path(&own.passphrase_file),
            endpoint: own.endpoint.clone(),
            also_endpoints: Vec::new(),
            region: own.region.clone(),
            ca_file: path(&own.ca_file),
            credentials_file: path(&own.credentials_file),
            credentials_profile: own.credentials_profile.clone(),
            path_style: own.path_style,
            lease_store: match &self.lease.store.value {
                LeasePlace::Repository => None,
                LeasePlace::Own(url) => Some(url.clone()),
            },
            ..Access::default()
        }
    }

    /// What commands are told of this node, whose repository is reached by `access`.
    pub fn identity(&self, access: &Access) -> Identity {
        let path = |path: &Option<PathBuf>| {
            path.as_ref().map(|path| std::path::absolute(path).unwrap_or_else(|_| path.clone()))
        };
        Identity {
            node: self.node.id,
            name: self.node.name.value.clone(),
            repository: access.url.clone().unwrap_or_default(),
            key_file: path(&access.key_file),
            passphrase_file: path(&access.passphrase_file),
            endpoint: access.endpoint.clone(),
            region: access.region.clone(),
            ca_file: path(&access.ca_file),
            credentials_file: path(&access.credentials_file),
            credentials_profile: access.credentials_profile.clone(),
            path_style: access.path_style,
            lease_store: access.lease_store.clone(),
            lease_ca_file: path(&access.lease_ca_file),
            lease_cert_file: path(&access.lease_cert_file),
            lease_cert_key_file: path(&access.lease_cert_key_file),
            volumes: self.volume.iter().map(|volume| (volume.title(), volume.device.value.clone())).collect(),
        }
    }
}
