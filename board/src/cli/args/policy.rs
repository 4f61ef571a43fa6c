//! `policy`: what is backed up and how. Source: clap.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use windlass_agent::policy::Compression;
use windlass_agent::policy::schedule::TimeOfDay;

use super::retention;
use super::value::{Bytes, Duration, VolumeSpec};

/// `policy`.
#[derive(Debug, Subcommand)]
pub enum Policy {
    /// Make a policy, or change what is given of one
    #[command(after_long_help = "\
Examples:
  windlass policy set home --volume /dev/vg0/home-snap --exclude '*.tmp' --exclude /scratch/
  windlass policy set luns --volume /dev/vg0/lun7=image --block-size 1MiB --compression none
  windlass policy set pool --volume /dev/vg0/pool-snap=mounted
  windlass policy set home --limit-up 20MiB --flush-interval 5m --verify 200
  windlass policy set home --every 6h
  windlass policy set home --at 02:30
  windlass policy set home --cron '30 2 * * mon-fri' --zone Europe/Berlin
  windlass policy set home --every 1h --window 22:00-06:00
  windlass policy set home --limit '08:00-18:00 20MiB/s' --limit '22:00-06:00 up 0 iops 2000'
  windlass policy set home --from home.json

Readers: auto and raw read ext2, ext3, ext4 and XFS from the device itself; mounted reads those and btrfs through a read-only \
mount that nobody else sees (needs root); image takes the whole device as one item, without what a clean ext4 or XFS on it calls \
free, which restores as zeros (--all-blocks keeps it).

Patterns: a name ('*.tmp') matches in any directory; with a slash in front or inside ('/var/cache', 'home/*/tmp') a path from \
the volume's root; with a slash at the end directories only. What an --exclude matches is left out with everything below. With \
any --include, only what one of them matches is taken, with everything below.

Limits: --limit-up, --limit-down and --device-iops-max become part of the policy, and --limit says others for parts of the day. They are \
those of all nodes together: the nodes that work on a backup divide them evenly. A node's own limits, in its board profile, hold as well.

Schedules: at the end of summer time a time that the zone's clock shows twice is due once, at the first; at its beginning one that the clock \
skips is due at the end of what it skips. Backups that were missed, because no node was up, are made up for by one.")]
    Set(Box<PolicySet>),
    /// Explain a policy: what counts, where it comes from, and when its next backups are; with --json as `policy set --from` takes it
    #[command(
        after_long_help = "Examples:\n  windlass policy show home\n  windlass policy show home --json > home.json"
    )]
    Show {
        /// The policy.
        name: String,
    },
    /// List all policies
    #[command(after_long_help = "Example:\n  windlass policy list --json")]
    List,
    /// Give a policy another name; its points, schedule and unfinished backup go with it
    #[command(after_long_help = "Example:\n  windlass policy rename home homes")]
    Rename {
        /// The policy.
        old: String,
        /// Its new name, which no policy has or had
        new: String,
    },
    /// Remove a policy; its points stay and can be restored, unless --with-points is given
    #[command(
        visible_alias = "remove",
        after_long_help = "Examples:\n  windlass policy delete home\n  windlass policy delete scratch --with-points"
    )]
    Delete {
        /// The policy.
        name: String,
        /// Expire its points too: all of them, so none may be held, or younger than its minimum age
        #[arg(long)]
        with_points: bool,
    },
}

/// Options of `policy set`.
#[derive(Debug, Args)]
pub struct PolicySet {
    /// The policy: 1 to 64 letters, digits, '.', '_' or '-'
    pub name: String,
    /// A block device or image file, and how to read it (=auto, =raw, =ext4, =mounted or =image); may be repeated; replaces those
    /// before
    #[arg(long, value_name = "DEV[=READER]")]
    pub volume: Vec<VolumeSpec>,
    /// Take only what matches; may be repeated; replaces those before
    #[arg(long, value_name = "PATTERN")]
    pub include: Vec<String>,
    /// Leave out what matches; may be repeated; replaces those before
    #[arg(long, value_name = "PATTERN")]
    pub exclude: Vec<String>,
    /// Leave out what the lines of this file match, besides --exclude ('-' is stdin); empty lines and those with # in front say nothing
    #[arg(long, value_name = "FILE", conflicts_with = "no_exclude")]
    pub exclude_file: Vec<PathBuf>,
    /// Remove all include patterns
    #[arg(long, conflicts_with = "include")]
    pub no_include: bool,
    /// Remove all exclude patterns
    #[arg(long, conflicts_with = "exclude")]
    pub no_exclude: bool,
    /// Unit in which changes are found, a power of two from 4KiB to 4MiB [default: 128KiB]
    #[arg(long, value_name = "SIZE")]
    pub block_size: Option<Bytes>,
    /// Size of an upload object, 4MiB to 256MiB [default: 16MiB]
    #[arg(long, value_name = "SIZE")]
    pub object_size: Option<Bytes>,
    /// How long data may wait for its object to fill [default: 60s]
    #[arg(long, value_name = "TIME")]
    pub flush_interval: Option<Duration>,
    /// none, or zstd:LEVEL with a level from 1 to 19 [default: zstd:1]
    #[arg(long, value_name = "HOW")]
    pub compression: Option<Compression>,
    /// After each backup, compare N random items with the file system as the kernel shows it; 0 for none (needs root)
    #[arg(long, value_name = "N")]
    pub verify: Option<u32>,
    /// Store free blocks of images too, for forensic use; else what a clean ext4 or XFS calls free restores as zeros
    #[arg(long)]
    pub all_blocks: bool,
    /// Leave free blocks of images out again
    #[arg(long, conflicts_with = "all_blocks")]
    pub no_all_blocks: bool,
    /// Back up at multiples of this time, 1m to 366d: 6h is 00:00, 06:00 and so on in UTC, whole days are at midnight in the policy's zone
    #[arg(long, value_name = "TIME")]
    pub every: Option<Duration>,
    /// Back up at this time of the day in the policy's zone; without --every each day, otherwise that must be whole days
    #[arg(long, value_name = "HH:MM")]
    pub at: Option<TimeOfDay>,
    /// Back up at the minutes that these five fields name in the policy's zone: minute, hour, day of the month, month, day of the week
    #[arg(long, value_name = "FIELDS", conflicts_with_all = ["every", "at"])]
    pub cron: Option<String>,
    /// Begin backups by schedule only in this part of the day, in the policy's zone; what is due outside of it waits until it opens
    #[arg(long, value_name = "HH:MM-HH:MM")]
    pub window: Option<String>,
    /// Begin them at any time of the day again
    #[arg(long, conflicts_with = "window")]
    pub no_window: bool,
    /// On whose clock the schedule is, and days, weeks and so on of retention rules are: an IANA name such as Europe/Berlin [default: UTC]
    #[arg(long, value_name = "ZONE")]
    pub zone: Option<String>,
    /// Remove the schedule: back up only when somebody asks for it
    #[arg(long, conflicts_with_all = ["every", "at", "cron", "window"])]
    pub no_schedule: bool,
    /// Read the whole policy from a JSON file ('-' is stdin) first
    #[arg(long, value_name = "FILE")]
    pub from: Option<PathBuf>,
    /// Which points stay.
    #[command(flatten)]
    pub keep: retention::Keep,
    /// No rule and no command expires a point before it is so old; 0 for none. Less than before counts for points that are made later
    #[arg(long, value_name = "TIME")]
    pub min_age: Option<Duration>,
    /// For so long after a point expired `point undo` brings it back, and its space is not used again; 0 for not at all. Likewise
    #[arg(long, value_name = "TIME")]
    pub undo: Option<Duration>,
    /// A second subject must approve what removes points, or lets them be removed, so long after it was asked for at the earliest; 0 for at
    /// once (`windlass removal`)
    #[arg(long, value_name = "TIME")]
    pub approve_removal: Option<Duration>,
    /// Let one subject alone remove points; where a second one is needed, that is asked for too
    #[arg(long, conflicts_with = "approve_removal")]
    pub no_approve_removal: bool,
    /// Limits in a part of each day, in the policy's zone, in place of the general ones: '08:00-18:00 20MiB/s' for uploads, or up, down and
    /// iops, 0 for none; of several at a time the lowest; may be repeated; replaces those before
    #[arg(long, value_name = "HOURS")]
    pub limit: Vec<String>,
    /// Remove all limits by the time of day
    #[arg(long, conflicts_with = "limit")]
    pub no_limit: bool,
    /// Of backups that wait for their turn, those of the highest priority begin first: -100 to 100 [default: 0]
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    pub priority: Option<String>,
    /// Remove all retention rules: all points stay
    #[arg(long)]
    pub no_keep: bool,
}
