//! Options of `repo`.
//!
//! Source: clap; ours.

use clap::{Args, Subcommand};
use windlass_agent::limits::{LOCATION_BLOCKS_DEFAULT, LOCATION_BLOCKS_MAX};

use super::value::Duration;

/// `repo`.
#[derive(Debug, Subcommand)]
pub enum Repo {
    /// Make a repository in an empty place of a store
    #[command(after_long_help = "\
Examples:
  windlass repo init --repo file:///srv/backup --key-file /root/windlass.key
  windlass repo init --repo s3://bucket/node7 --endpoint https://rgw.example:7480 --key-file /root/windlass.key
  windlass repo init --repo s3://bucket/node7 --endpoint https://garage.example --lease-store etcd://a:2379,b:2379/node7 \
    --key-file /root/windlass.key

A store that ignores conditions fails the probe. With --lease-store the log and the lease live in etcd, every later command needs \
the option as well, and etcd's data is as precious as the objects: without it the repository cannot be opened.

The key file is made (32 random bytes, readable by its owner only) when it does not exist. Keep a copy of it elsewhere: without \
it nobody can read the repository, and nobody can help.")]
    Init(RepoInit),
    /// Test whether a store does what a repository needs
    #[command(after_long_help = "\
Example:
  windlass repo probe --repo s3://bucket/node7 --endpoint http://127.0.0.1:7480

It writes, races, lists and deletes a few small objects below probe/, and says which rule the store breaks, if any. With \
--lease-store, that store is tested for the log, and the other one for what objects need. Writes race over all addresses that the \
name of the server resolves to, and over the servers of --also-endpoint.")]
    Probe(RepoProbe),
    /// Describe a repository: where, how locked, policies, points, segments
    #[command(
        after_long_help = "Example:\n  windlass repo info --repo file:///srv/backup --key-file /root/windlass.key --json"
    )]
    Info,
    /// Change what all users of a repository go by
    #[command(after_long_help = "\
Example:
  windlass repo set --lease 60s --repo file:///srv/backup --key-file /root/windlass.key
  windlass repo set --gc-every 1d --gc-window 3d --repo file:///srv/backup --key-file /root/windlass.key

--lease says how long the lock holds after the last sign of its holder's life: 3s to 1h, 15s where nothing was said. What dies is taken over \
from after that time; what cannot reach the store for that time has lost the lock. A longer one suits slow or shaky links. The change counts \
when the lock is taken next, and before what board profiles say.

\
--gc-every says how often nodes give space back by themselves when there is something to give back; never where nothing was said, and with 0s. \
--gc-window says how long a name that nothing needs is kept before it is deleted: what reads without an agent is safe for so long. 1d where \
nothing was said; 0s deletes at once, and a restore that runs may find its data gone.")]
    Set(RepoSet),
    /// Build the tables anew from upload objects alone, and the commit log from what is left of it when it is damaged
    #[command(after_long_help = "\
Example:
  windlass repo rebuild --repo file:///srv/backup --key-file /root/windlass.key

For a repository whose segments or commit log were lost or damaged: every upload object carries the rows of what is in it, and most \
of the log lies somewhere twice. What could not be brought back is named.")]
    Rebuild,
}

/// Options of `repo set`.
#[derive(Debug, Args)]
pub struct RepoSet {
    /// How long the lock holds without a sign of life, such as 60s
    #[arg(long, value_name = "TIME")]
    pub lease: Option<Duration>,
    /// How often nodes give space back by themselves, such as 1d; 0s: never
    #[arg(long, value_name = "TIME")]
    pub gc_every: Option<Duration>,
    /// How long what nothing needs is kept before it is deleted, such as 1d
    #[arg(long, value_name = "TIME")]
    pub gc_window: Option<Duration>,
}

/// Options of `repo init`.
#[derive(Debug, Args)]
pub struct RepoInit {
    /// Store everything readable to whoever can read the store (checksums only, no encryption)
    #[arg(long)]
    pub no_encryption: bool,
    /// Blocks per row of the block location table, 1 to 64; fixed for the repository's life
    #[arg(long, value_name = "N", default_value_t = LOCATION_BLOCKS_DEFAULT,
        value_parser = clap::value_parser!(u8).range(1..=LOCATION_BLOCKS_MAX as i64))]
    pub location_blocks: u8,
    /// Make it beside other things that are there already
    #[arg(long)]
    pub force: bool,
    /// Race over this server of the same store too when it is tested, besides --endpoint; may be given several times
    #[arg(long, value_name = "URL")]
    pub also_endpoint: Vec<String>,
}

/// Options of `repo probe`.
#[derive(Debug, Args)]
pub struct RepoProbe {
    /// Race over this server of the same store too, besides --endpoint; may be given several times
    #[arg(long, value_name = "URL")]
    pub also_endpoint: Vec<String>,
}
