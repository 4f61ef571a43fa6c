//! What an engine is told of itself: sizes, times, how often it commits. A board profile says it for the
//! agent, a policy and the command line for a command that acts alone.
//!
//! Source: ours.

use std::path::PathBuf;
use std::sync::Arc;

use windlass_agent::drive::budget::{Budget, TooSmall};
use windlass_agent::drive::job;
use windlass_agent::format::feature::FeatureName;
use windlass_agent::format::seal::Keys;
use windlass_agent::format::slot::ClusterId;
use windlass_agent::log::lease::Timing;
use windlass_agent::pack::OBJECT_BYTES_DEFAULT;
use windlass_agent::pack::proof::PROVE_EVERY;
use windlass_agent::policy::{Compression, Policy};
use windlass_agent::store::Store;
use windlass_agent::store::retry::Client;
use windlass_agent::store::throttle::Throttle;
use windlass_agent::store::uplink::UplinkSettings;
use windlass_agent::worker::backup::{COMMIT_INTERVAL_NS, COMMIT_OBJECTS, COMMIT_PAUSE_NS};

/// Objects after which a worker of a cluster reports: what another node has to do again when this one dies,
/// on a fast uplink.
const REPORT_OBJECTS: usize = 16;
/// Time after which it reports what it has, in nanoseconds: the same on a slow one, where an object that
/// takes longer is reported by itself. Each report costs the coordinator about a millisecond of a core and
/// the tables a segment, so not after each object.
const REPORT_NS: u64 = 5_000_000_000;
/// Threads of an agent for commits and reads of the log: slots are read side by side.
const AGENT_LOG_THREADS: usize = 4;
/// The same of a command, whose budget may be small.
const COMMAND_LOG_THREADS: usize = 1;

/// Which repository, how to reach and open it, and how long to wait for it. A profile and a command line are
/// both made into it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Access {
    /// `file:///path`, `s3://bucket/prefix`, `az://account/container/prefix` or `gs://bucket/prefix`.
    pub url: Option<String>,
    /// Where log and lease are, when they are elsewhere.
    pub lease_store: Option<String>,
    /// CA certificates (PEM) for etcd.
    pub lease_ca_file: Option<PathBuf>,
    /// Certificate (PEM) to show to etcd.
    pub lease_cert_file: Option<PathBuf>,
    /// Its private key (PEM).
    pub lease_cert_key_file: Option<PathBuf>,
    /// File with the repository's key.
    pub key_file: Option<PathBuf>,
    /// File with its passphrase.
    pub passphrase_file: Option<PathBuf>,
    /// Directory to remember in how far the log has come.
    pub state_dir: Option<PathBuf>,
    /// The last entry of a log that is older than that on purpose.
    pub accept_older: Option<u64>,
    /// Server of the store.
    pub endpoint: Option<String>,
    /// Further servers of the same store, for a probe to race over.
    pub also_endpoints: Vec<String>,
    /// S3 region.
    pub region: Option<String>,
    /// CA certificates (PEM) for it.
    pub ca_file: Option<PathBuf>,
    /// File with its credentials.
    pub credentials_file: Option<PathBuf>,
    /// Which keys in that file.
    pub credentials_profile: Option<String>,
    /// Whether the bucket is in the path, not in the host name.
    pub path_style: bool,
    /// Most bytes a second to the store; 0 or nothing: no limit.
    pub upload: Option<u64>,
    /// The same from the store.
    pub download: Option<u64>,
    /// How long to wait for a lease that somebody else has, in nanoseconds; `None`: as long as its holder works.
    pub wait_ns: Option<u64>,
}

impl Access {
    /// What this one does not say is as `other` says. Of key file and passphrase file one rules the other out.
    pub fn or(mut self, other: Access) -> Access {
        if self.key_file.is_none() && self.passphrase_file.is_none() {
            (self.key_file, self.passphrase_file) = (other.key_file, other.passphrase_file);
        }
        Access {
            url: self.url.or(other.url),
            lease_store: self.lease_store.or(other.lease_store),
            lease_ca_file: self.lease_ca_file.or(other.lease_ca_file),
            lease_cert_file: self.lease_cert_file.or(other.lease_cert_file),
            lease_cert_key_file: self.lease_cert_key_file.or(other.lease_cert_key_file),
            key_file: self.key_file,
            passphrase_file: self.passphrase_file,
            state_dir: self.state_dir.or(other.state_dir),
            accept_older: self.accept_older.or(other.accept_older),
            endpoint: self.endpoint.or(other.endpoint),
            also_endpoints: if self.also_endpoints.is_empty() {
                other.also_endpoints
            } else {
                self.also_endpoints
            },
            region: self.region.or(other.region),
            ca_file: self.ca_file.or(other.ca_file),
            credentials_file: self.credentials_file.or(other.credentials_file),
            credentials_profile: self.credentials_profile.or(other.credentials_profile),
            path_style: self.path_style || other.path_style,
            upload: self.upload.or(other.upload),
            download: self.download.or(other.download),
            wait_ns: self.wait_ns.or(other.wait_ns),
        }
    }
}

impl From<&Access> for Access {
    fn from(access: &Access) -> Access {
        access.clone()
    }
}

/// A repository as an engine uses it: opened, and nothing of how. Cloning is cheap.
#[derive(Clone)]
pub struct Target {
    /// The store without repeats: the log's machines decide themselves what is repeated.
    pub store: Arc<dyn Store>,
    /// The same with repeats, for data.
    pub client: Arc<Client>,
    /// Its limits.
    pub throttle: Arc<Throttle>,
    /// Its keys.
    pub keys: Keys,
    /// Its number.
    pub cluster: ClusterId,
    /// A feature of the repository that keeps this program from writing.
    pub read_only: Option<FeatureName>,
    /// Blocks per location row.
    pub row_blocks: u32,
}

/// How often a job wants what it did committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Objects, sent or on their way, after which it does.
    pub objects: usize,
    /// Shortest time between commits that are due because of them, in nanoseconds.
    pub pause_ns: u64,
    /// Time after which it does when there is anything to say, in nanoseconds.
    pub interval_ns: u64,
    /// Longest time that blocks may wait in an object that does not fill, in nanoseconds, whatever a policy
    /// says.
    pub flush_ns_max: u64,
}

impl Pace {
    /// For one process that commits for itself.
    pub const ALONE: Pace = Pace {
        objects: COMMIT_OBJECTS,
        pause_ns: COMMIT_PAUSE_NS,
        interval_ns: COMMIT_INTERVAL_NS,
        flush_ns_max: u64::MAX,
    };
    /// For a worker that reports to a coordinator.
    pub const CLUSTER: Pace = Pace { objects: REPORT_OBJECTS, interval_ns: REPORT_NS, ..Pace::ALONE };
}

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Sizes of all pools.
    pub budget: Budget,
    /// Largest block that the pools are made for, in bytes.
    pub block_bytes_max: u32,
    /// Times of the lease.
    pub timing: Timing,
    /// How often jobs commit.
    pub pace: Pace,
    /// One frame of so many is opened again before it is sent; 1: all.
    pub prove_every: u32,
    /// Threads for commits and reads of the log.
    pub log_threads: usize,
}

impl Settings {
    /// Of an agent with a budget for blocks of up to `block_bytes_max`.
    pub fn of_agent(budget: Budget, block_bytes_max: u32, timing: Timing) -> Settings {
        Settings {
            budget,
            block_bytes_max,
            timing,
            pace: Pace::CLUSTER,
            prove_every: PROVE_EVERY,
            log_threads: AGENT_LOG_THREADS,
        }
    }

    /// Of a process that backs `policy` up within `memory` bytes, on so many cores.
    ///
    /// # Errors
    /// The memory is too small.
    pub fn of_policy(policy: &Policy, memory: u64, cores: usize) -> Result<Settings, TooSmall> {
        let block_bytes_max = u32::try_from(policy.block_size).unwrap_or(u32::MAX);
        let object_bytes = u32::try_from(policy.object_size).unwrap_or(OBJECT_BYTES_DEFAULT);
        Settings::of_memory(memory, block_bytes_max, object_bytes, cores)
    }

    /// Of a process without a policy: for blocks of up to `block_bytes_max` bytes, objects of `object_bytes`.
    ///
    /// # Errors
    /// The memory is too small.
    pub fn of_memory(
        memory: u64,
        block_bytes_max: u32,
        object_bytes: u32,
        cores: usize,
    ) -> Result<Settings, TooSmall> {
        let uplinks = UplinkSettings::default().threads;
        Ok(Settings {
            budget: Budget::plan(memory, block_bytes_max, object_bytes, cores, uplinks)?,
            block_bytes_max,
            timing: Timing::default(),
            pace: Pace::ALONE,
            prove_every: PROVE_EVERY,
            log_threads: COMMAND_LOG_THREADS,
        })
    }

    /// How a policy's blocks are made and stored.
    pub fn job(&self, target: &Target, policy: &Policy) -> job::Settings {
        let level = match policy.compression {
            Compression::None => None,
            Compression::Zstd(level) => Some(level.into()),
        };
        job::Settings {
            block_bytes: u32::try_from(policy.block_size).unwrap_or(u32::MAX),
            row_blocks: target.row_blocks,
            level,
            flush_interval_ns: policy.flush_interval.saturating_mul(1_000_000).min(self.pace.flush_ns_max),
            commit_objects: self.pace.objects,
            commit_pause_ns: self.pace.pause_ns,
            commit_interval_ns: self.pace.interval_ns,
            prove_every: self.prove_every,
        }
    }
}
