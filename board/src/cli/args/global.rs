//! Options that every command takes.
//!
//! Source: ours; the environment's names are ours but for the credentials themselves (`AWS_ACCESS_KEY_ID`, `AZURE_STORAGE_KEY` and others),
//! which the store reads.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;

use super::value::{Bytes, Duration, Rate};
use crate::engine::settings::Access;
use crate::levels::Levels;

/// Options that every command takes.
#[derive(Clone, Debug, Args)]
pub struct Global {
    /// The repository: file:///path, s3://bucket/prefix, az://account/container/prefix or gs://bucket/prefix
    #[arg(
        long,
        global = true,
        env = "WINDLASS_REPO",
        hide_env_values = true,
        value_name = "URL",
        help_heading = "Repository"
    )]
    pub repo: Option<String>,
    /// Keep log and lock in etcd or a directory, for stores without conditional writes: etcd://host:2379,host2:2379/prefix, with TLS
    /// etcd+https://..., or file:///path [default: in the repository]
    #[arg(
        long,
        global = true,
        env = "WINDLASS_LEASE_STORE",
        hide_env_values = true,
        value_name = "URL",
        help_heading = "Repository",
        hide_short_help = true
    )]
    pub lease_store: Option<String>,
    /// Trust these CA certificates (PEM) for etcd instead of the system's
    #[arg(
        long,
        global = true,
        env = "WINDLASS_LEASE_CA_FILE",
        hide_env_values = true,
        value_name = "FILE",
        help_heading = "Repository",
        hide_short_help = true
    )]
    pub lease_ca_file: Option<PathBuf>,
    /// Certificate (PEM) to show to etcd; needs --lease-cert-key-file
    #[arg(
        long,
        global = true,
        env = "WINDLASS_LEASE_CERT_FILE",
        hide_env_values = true,
        value_name = "FILE",
        help_heading = "Repository",
        hide_short_help = true
    )]
    pub lease_cert_file: Option<PathBuf>,
    /// Private key (PEM) of that certificate
    #[arg(
        long,
        global = true,
        env = "WINDLASS_LEASE_CERT_KEY_FILE",
        hide_env_values = true,
        value_name = "FILE",
        help_heading = "Repository",
        hide_short_help = true
    )]
    pub lease_cert_key_file: Option<PathBuf>,
    /// File with the repository's key
    #[arg(
        long,
        global = true,
        env = "WINDLASS_KEY_FILE",
        hide_env_values = true,
        value_name = "FILE",
        help_heading = "Repository"
    )]
    pub key_file: Option<PathBuf>,
    /// File with the repository's passphrase; without key and passphrase, a terminal is asked
    #[arg(
        long,
        global = true,
        env = "WINDLASS_PASSPHRASE_FILE",
        hide_env_values = true,
        value_name = "FILE",
        help_heading = "Repository",
        hide_short_help = true
    )]
    pub passphrase_file: Option<PathBuf>,

    /// Remember in this directory how far the repository's log has come, and refuse an older or another one
    #[arg(
        long,
        global = true,
        env = "WINDLASS_STATE_DIR",
        hide_env_values = true,
        value_name = "DIR",
        help_heading = "Repository",
        hide_short_help = true
    )]
    pub state_dir: Option<PathBuf>,
    /// The repository was brought back to an older state on purpose, and its log ends at this entry
    #[arg(
        long,
        global = true,
        value_name = "SLOT",
        requires = "state_dir",
        help_heading = "Repository",
        hide_short_help = true
    )]
    pub accept_older: Option<u64>,

    /// Server of the store, https://host or http://host:port [default: AWS, Azure or Google]
    #[arg(
        long,
        global = true,
        env = "WINDLASS_ENDPOINT",
        hide_env_values = true,
        value_name = "URL",
        help_heading = "Store",
        hide_short_help = true
    )]
    pub endpoint: Option<String>,
    /// S3 region [default: AWS_REGION, or us-east-1]
    #[arg(
        long,
        global = true,
        env = "WINDLASS_REGION",
        hide_env_values = true,
        value_name = "NAME",
        help_heading = "Store",
        hide_short_help = true
    )]
    pub region: Option<String>,
    /// Trust these CA certificates (PEM) instead of the system's
    #[arg(
        long,
        global = true,
        env = "WINDLASS_CA_FILE",
        hide_env_values = true,
        value_name = "FILE",
        help_heading = "Store",
        hide_short_help = true
    )]
    pub ca_file: Option<PathBuf>,
    /// File with credentials: for s3: and az: profiles as AWS tools write them, for gs: a service account's JSON [default: for s3: the usual
    /// chain of environment, ~/.aws, role of the container or instance; AZURE_STORAGE_KEY or AZURE_STORAGE_SAS_TOKEN;
    /// GOOGLE_APPLICATION_CREDENTIALS]
    #[arg(
        long,
        global = true,
        env = "WINDLASS_CREDENTIALS_FILE",
        hide_env_values = true,
        value_name = "FILE",
        help_heading = "Store",
        hide_short_help = true
    )]
    pub credentials_file: Option<PathBuf>,
    /// Which keys in that file, or in ~/.aws [default: AWS_PROFILE, or default]
    #[arg(
        long,
        global = true,
        env = "WINDLASS_PROFILE",
        hide_env_values = true,
        value_name = "NAME",
        help_heading = "Store",
        hide_short_help = true
    )]
    pub profile: Option<String>,
    /// Put the bucket into the path, not into the host name
    #[arg(long, global = true, help_heading = "Store", hide_short_help = true)]
    pub path_style: bool,

    /// Memory that a backup or restore may take
    #[arg(
        long,
        global = true,
        env = "WINDLASS_MEMORY",
        hide_env_values = true,
        value_name = "SIZE",
        default_value = "64MiB",
        help_heading = "Limits"
    )]
    pub memory: Bytes,
    /// Most operations a second on each device
    #[arg(long, global = true, value_name = "N", value_parser = clap::value_parser!(u32).range(1..), help_heading = "Limits", hide_short_help = true)]
    pub device_iops_max: Option<u32>,
    /// Most bytes a second to the store, at least 64KiB; 0 is no limit
    #[arg(long, global = true, value_name = "SIZE", help_heading = "Limits", hide_short_help = true)]
    pub limit_up: Option<Rate>,
    /// Most bytes a second from the store, at least 64KiB; 0 is no limit
    #[arg(long, global = true, value_name = "SIZE", help_heading = "Limits", hide_short_help = true)]
    pub limit_down: Option<Rate>,

    /// The agent's socket [default: /run/windlass/agent.sock, if an agent listens there]
    #[arg(
        long,
        global = true,
        env = "WINDLASS_SOCKET",
        hide_env_values = true,
        value_name = "FILE",
        help_heading = "Agent",
        hide_short_help = true
    )]
    pub socket: Option<PathBuf>,
    /// How long to wait for a repository that another windlass has locked; 20s or more also take over from one that died
    /// [default: as long as it works]
    #[arg(long, global = true, value_name = "TIME", help_heading = "Repository", hide_short_help = true)]
    pub wait: Option<Duration>,
    /// Do it in this process, also when an agent runs on this machine
    #[arg(long, global = true, help_heading = "Agent", hide_short_help = true)]
    pub alone: bool,

    /// Print JSON: one document, or a line per event for jobs and listings
    #[arg(long, global = true, help_heading = "Output")]
    pub json: bool,
    /// Show times in UTC, not on the clock of the site (`TZ`, or /etc/localtime)
    #[arg(long, global = true, help_heading = "Output", hide_short_help = true)]
    pub utc: bool,
    /// Show no progress and no summary: what went wrong, and what was asked for (`ls`, `points`, ...), still is
    #[arg(short, long, global = true, conflicts_with = "json", help_heading = "Output")]
    pub quiet: bool,
    /// Say more on stderr: -v what happens, -vv each object, -vvv everything
    #[arg(short, long, global = true, action = clap::ArgAction::Count, help_heading = "Output")]
    pub verbose: u8,
    /// Levels of what is said on stderr, for all or for parts of the program: warn,agent::log=debug
    #[arg(
        long,
        global = true,
        env = "WINDLASS_LOG",
        hide_env_values = true,
        value_name = "LEVELS",
        help_heading = "Output",
        hide_short_help = true
    )]
    pub log: Option<Levels>,
}

impl Global {
    /// These options, as words for this program once more: which repository, how to open and reach it, and which agent.
    pub fn words(&self) -> Vec<OsString> {
        let text = |value: &Option<String>| value.clone().map(OsString::from);
        let path = |value: &Option<PathBuf>| value.clone().map(PathBuf::into_os_string);
        let options = [
            ("--repo", text(&self.repo)),
            ("--lease-store", text(&self.lease_store)),
            ("--lease-ca-file", path(&self.lease_ca_file)),
            ("--lease-cert-file", path(&self.lease_cert_file)),
            ("--lease-cert-key-file", path(&self.lease_cert_key_file)),
            ("--key-file", path(&self.key_file)),
            ("--passphrase-file", path(&self.passphrase_file)),
            ("--state-dir", path(&self.state_dir)),
            ("--endpoint", text(&self.endpoint)),
            ("--region", text(&self.region)),
            ("--ca-file", path(&self.ca_file)),
            ("--credentials-file", path(&self.credentials_file)),
            ("--profile", text(&self.profile)),
            ("--socket", path(&self.socket)),
        ];
        let given = options.into_iter().filter_map(|(name, value)| Some([name.into(), value?]));
        let flags = [("--path-style", self.path_style), ("--alone", self.alone), ("--utc", self.utc)];
        let flags = flags.into_iter().filter(|(_, given)| *given).map(|(name, _)| name.into());
        given.flatten().chain(flags).collect()
    }
}

impl From<&Global> for Access {
    fn from(global: &Global) -> Access {
        let rate = |rate: Option<Rate>| rate.map(|rate| rate.0);
        Access {
            url: global.repo.clone(),
            lease_store: global.lease_store.clone(),
            lease_ca_file: global.lease_ca_file.clone(),
            lease_cert_file: global.lease_cert_file.clone(),
            lease_cert_key_file: global.lease_cert_key_file.clone(),
            key_file: global.key_file.clone(),
            passphrase_file: global.passphrase_file.clone(),
            state_dir: global.state_dir.clone(),
            accept_older: global.accept_older,
            endpoint: global.endpoint.clone(),
            also_endpoints: Vec::new(),
            region: global.region.clone(),
            ca_file: global.ca_file.clone(),
            credentials_file: global.credentials_file.clone(),
            credentials_profile: global.profile.clone(),
            path_style: global.path_style,
            upload: rate(global.limit_up),
            download: rate(global.limit_down),
            wait_ns: global.wait.map(|wait| wait.0.saturating_mul(1_000_000)),
        }
    }
}
