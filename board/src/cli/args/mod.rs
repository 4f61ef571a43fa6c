//! The command line: what may be written, and the help that teaches it.
//!
//! | module | what |
//! |---|---|
//! | [`global`] | options that every command takes: repository, key, store, limits |
//! | [`console`] | `console` |
//! | [`key`] | `key` |
//! | [`mount`] | `mount` |
//! | [`pki`] | `pki` |
//! | [`point`] | `point` |
//! | [`policy`] | `policy` |
//! | [`repo`] | `repo` |
//! | [`role`] | `role` |
//! | [`rows`] | `table` |
//! | [`retention`] | `retention`, and the rules that `policy set` takes too |
//! | [`shell`] | `completions` |
//! | [`stats`] | `stats` |
//! | [`support`] | `support` |
//! | [`value`] | sizes, durations and volumes as values |
//! | this one | the commands |
//!
//! Secrets are never arguments: keys, passphrases and credentials come from files, the environment's own names for such files,
//! or a prompt. Does not: do anything. Source: clap.

pub mod console;
pub mod gc;
pub mod global;
pub mod key;
pub mod mount;
pub mod pki;
pub mod point;
pub mod policy;
pub mod removal;
pub mod repo;
pub mod restore;
pub mod retention;
pub mod role;
pub mod rows;
pub mod shell;
pub mod stats;
pub mod support;
pub mod value;

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::builder::{Resettable, StyledStr};
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::parser::ValueSource;
use clap::{ArgMatches, Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};

use crate::failure::Exit;
use crate::point::Target;
use global::Global;
use repo::Repo;
use value::Bytes;
use windlass_agent::policy::Reader;
use windlass_agent::work::entry::Entry;
use windlass_agent::work::table;

const AFTER: &str = "\
Start here:
  windlass demo                            see it work, nothing to configure
  windlass volume info /dev/vg0/home       can this device be read?

Then, for real:
  export WINDLASS_REPO=file:///srv/backup WINDLASS_KEY_FILE=/root/windlass.key
  windlass repo init                       and the key file, if there is none
  windlass policy set home --volume /dev/vg0/home-snap --exclude '*.tmp'
  windlass backup home
  windlass ls home /                       look into the newest point
  windlass restore home docs/plan.txt --to /tmp/out

Exit codes: 0 done, 1 failed, 2 usage, 3 done but some items could not be
read or restored, or differ (each is named).";

/// Back up volumes block by block into an object store, and get everything back.
#[derive(Debug, Parser)]
#[command(
    name = "windlass",
    version,
    about = "Back up volumes block by block into an object store, and get everything back",
    after_help = AFTER,
    max_term_width = 100,
    disable_help_subcommand = true,
    arg_required_else_help = true,
    subcommand_required = true
)]
pub struct Cli {
    /// Options of every command.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// `agent`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  windlass board check /etc/windlass/board.toml
  windlass agent --board /etc/windlass/board.toml
  windlass agent --board loopback

SIGTERM stops it cleanly: the lease is let go, running work is kept as far as it was reported. SIGHUP reads the profile again: weight, \
volumes and limits change at once, certificates with the next connection, everything else at the next start.")]
pub struct Agent {
    /// The node's profile: a file, or the name of one that ships (`windlass board explain loopback`)
    #[arg(long, value_name = "PROFILE")]
    pub board: PathBuf,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// See a real file system go to objects and back on this machine, with nothing to configure
    Demo(Demo),
    /// Make, test, describe or rebuild a repository
    #[command(subcommand)]
    Repo(Repo),
    /// List or change the keys and passphrases that open a repository
    #[command(subcommand)]
    Key(key::Key),
    /// Say what to back up and how
    #[command(subcommand)]
    Policy(policy::Policy),
    /// Back up a policy's volumes into a new recovery point
    Backup(Backup),
    /// Stop the running backup of a policy; the next one goes on where it was
    #[command(after_long_help = "\
Example:
  windlass stop home

The cluster of this machine's agent stops it. What was committed stays, and counts when the policy is backed up again. A policy with \
a schedule is started again at its next time.")]
    Stop {
        /// The policy
        name: String,
    },
    /// List the recovery points of a policy
    Points(Points),
    /// Show sizes by policy, point and type of file, and what a point alone holds
    Stats(stats::Stats),
    /// Hold, note, tag or expire one recovery point
    #[command(subcommand)]
    Point(point::Point),
    /// Expire points by the rules of a policy, or see what rules would keep
    #[command(subcommand)]
    Retention(retention::Retention),
    /// Approve what another subject wants to remove
    #[command(subcommand)]
    Removal(removal::Removal),
    /// Say who may do what through an agent
    #[command(subcommand)]
    Role(role::Role),
    /// Show who did what, and when
    Log(role::Log),
    /// Give back the space that no recovery point needs
    Gc(gc::Gc),
    /// List a directory in a recovery point
    Ls(Ls),
    /// Show everything that is known of one path in a recovery point
    Stat(Stat),
    /// Search names in a recovery point
    Find(Find),
    /// Write the contents of a file in a recovery point to stdout
    Cat(Cat),
    /// Show all versions of one path over all recovery points
    History(History),
    /// Show points as a read-only file system
    Mount(mount::Mount),
    /// Print the rows of the two cloud tables that a point goes by
    #[command(subcommand)]
    Table(rows::Table),
    /// Restore a point, or some of its paths, to a directory or a device
    Restore(restore::Restore),
    /// Check that a point can be restored: every reference, or every byte
    Check(Check),
    /// Make keys and certificates for the nodes of a cluster
    #[command(subcommand)]
    Pki(pki::Pki),
    /// Look at a device without a repository
    #[command(subcommand)]
    Volume(Volume),
    /// Run a node of a cluster until a signal stops it
    Agent(Agent),
    /// Show what the cluster does: nodes, coordinator, running backups, last points and errors
    Status(Status),
    /// Say which node coordinates
    #[command(subcommand)]
    Coordinator(Coordinator),
    /// Have all nodes send what they have packed
    #[command(after_long_help = "\
Example:
  windlass flush

Objects that are not full yet are closed and sent, and what was done so far is committed: from then on nothing of it is done again, \
whatever happens to a node. Before a planned stop of nodes or of the network, for example. Running backups go on. It returns when all \
is in the repository, at most two minutes later; asking again does no harm.")]
    Flush,
    /// Look at a node's board profile
    #[command(subcommand)]
    Board(Board),
    /// List all commands: what each does, who may use it, and where it runs
    #[command(after_long_help = "\
Examples:
  windlass commands
  windlass commands --json | jq -r '.commands[] | select(.role==\"viewer\") | .name'

With --json each command has its arguments and the fields of what it prints, for programs that build on it.")]
    Commands,
    /// A shell with all commands, for a terminal or a serial line
    Console(console::Console),
    /// Make one file for those who help: versions, status, log, store and volumes, without secrets
    Support(support::Support),
    /// Print what makes a shell complete commands and options
    Completions(shell::Completions),
}

/// Options of `status`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  windlass status
  windlass status --watch
  windlass status --json | jq .coordinator

The agent of this machine is asked, and asks the coordinator. Lines are at most 79 columns; without a terminal there are no \
escape sequences, so that it can be read on a serial console and in a log.")]
pub struct Status {
    /// Show it again and again, until Ctrl-C
    #[arg(short, long)]
    pub watch: bool,
}

/// `coordinator`.
#[derive(Debug, Subcommand)]
pub enum Coordinator {
    /// Hand the coordinator's work over to a node
    #[command(after_long_help = "\
Example:
  windlass coordinator move 2

Before maintenance of the node that coordinates, for example. Nothing is interrupted: running backups go on under the new \
coordinator.")]
    Move {
        /// The node's number
        #[arg(value_parser = clap::value_parser!(u32).range(0..=65_535))]
        node: u32,
    },
}

/// `board`.
#[derive(Debug, Subcommand)]
pub enum Board {
    /// Check a profile on this machine without starting anything
    #[command(after_long_help = "\
Examples:
  windlass board check /etc/windlass/board.toml
  windlass board check loopback

Each finding is file:line:column, what is wrong and what to do. Exit code 0: the agent would start; 2: it would not.")]
    Check(BoardFile),
    /// Print a profile that comes with the program, as a file to start from
    #[command(after_long_help = "\
Examples:
  windlass board new generic-x86_64 > /etc/windlass/board.toml
  windlass board new loopback

Every setting is there with its meaning; `windlass board check` then says what is still wrong.")]
    New(BoardName),
    /// Print a profile with its defaults filled in, and how the memory adds up
    #[command(after_long_help = "\
Examples:
  windlass board explain /etc/windlass/board.toml
  windlass board explain generic-x86_64")]
    Explain(BoardFile),
}

/// A profile that comes with the program.
#[derive(Debug, Args)]
pub struct BoardName {
    /// generic-x86_64 or loopback
    pub name: String,
}

/// A profile.
#[derive(Debug, Args)]
pub struct BoardFile {
    /// A profile's path, or the name of one that comes with the program: generic-x86_64, loopback
    pub file: PathBuf,
}

/// Options of `demo`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  windlass demo
  windlass demo --size 1GiB --dir /mnt/fast/demo

It copies files of this machine into an ext4 image (mke2fs -d; a small image that is shipped with the program where mke2fs is \
missing), backs the image up into a directory, restores it and compares everything; then the same with a small XFS image that is \
shipped. At last three agents on this machine share a backup; the one that coordinates is killed half way, and another goes on.

It needs no root. What it made stays, so that you can go on with it: up to five times --size, 2.6 GB unless told otherwise, in --dir. \
With --clean nothing stays.")]
pub struct Demo {
    /// Where to work: a directory that does not exist yet or is empty [default: a new one below the temporary directory]
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Take files up to this size in all
    #[arg(long, value_name = "SIZE", default_value = "512MiB")]
    pub size: Bytes,
    /// Take files from here instead of from the system's own directories; may be repeated
    #[arg(long, value_name = "DIR")]
    pub source: Vec<PathBuf>,
    /// Use the image that is shipped with the program
    #[arg(long, conflicts_with_all = ["size", "source"])]
    pub shipped: bool,
    /// Remove everything at the end
    #[arg(long)]
    pub clean: bool,
}

/// Options of `backup`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  windlass backup home
  windlass backup home --memory 24MiB --limit-up 10MiB
  windlass backup home --json | jq -c 'select(.event==\"done\")'
  windlass backup home --no-wait
  windlass backup home --dry-run

The first backup of a volume reads everything, later ones what has changed. A backup that was interrupted, by whatever, goes on \
where it stopped when it is started again on the same unchanged snapshot. Items that cannot be read are named, the rest is \
backed up, and the exit code is 3.

When an agent runs on this machine, its cluster does the backup and this command shows how it goes; Ctrl-C then leaves it running.")]
pub struct Backup {
    /// The policy
    pub name: String,
    /// With an agent: start it and return, it goes on by itself. Without: fail at once when another windlass has locked the repository, like `--wait 0`
    #[arg(long, conflicts_with = "wait")]
    pub no_wait: bool,
    /// Open and compare all that was packed before it is sent, not only a sample: for a machine whose memory or processor is in doubt
    #[arg(long)]
    pub paranoid: bool,
    /// Write nothing: read the volumes' metadata and say how much a backup would read
    #[arg(short = 'n', long, conflicts_with_all = ["no_wait", "paranoid"])]
    pub dry_run: bool,
}

/// Options of `points`.
#[derive(Debug, Args)]
#[command(after_long_help = "Example:\n  windlass points home")]
pub struct Points {
    /// The policy
    pub name: String,
}

/// A point and the volume in it.
#[derive(Debug, Args)]
pub struct At {
    /// The policy, and which of its points: a number, latest, or the newest by a time such as 2026-11-21 or 2026-11-21T03:16
    #[arg(value_name = "NAME[@POINT]")]
    pub target: Target,
    /// Which volume of a policy that has several: its device, or its number as `points --json` prints it
    #[arg(long, value_name = "DEV")]
    pub volume: Option<String>,
}

/// Options of `ls`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  windlass ls home /
  windlass ls home@2026-11-21 /docs -l
  windlass ls home /docs --deleted")]
pub struct Ls {
    /// Where to look.
    #[command(flatten)]
    pub at: At,
    /// Path from the volume's root
    #[arg(default_value = "/")]
    pub path: PathBuf,
    /// Mode, owner, size and time too
    #[arg(short, long)]
    pub long: bool,
    /// List what is not in the directory any more, and the newest point that has it
    #[arg(long)]
    pub deleted: bool,
}

/// Options of `history`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  windlass history home /docs/plan.txt
  windlass history home@2026-11 /docs/plan.txt --json
  windlass restore home /docs/plan.txt@17 --to /tmp/out

All versions of a path over all points of the policy (up to POINT, if one is given). It is followed by name: a file that an editor replaced is \
another item each time, and one history. Where a directory above had another name, the path that the points have is shown. PATH@POINT, with a \
point that has the version, names it to `stat`, `cat` and `restore`; a file that is really called so goes first.")]
pub struct History {
    /// Where to look.
    #[command(flatten)]
    pub at: At,
    /// Path from the volume's root
    pub path: PathBuf,
}

/// Options of `stat`.
#[derive(Debug, Args)]
#[command(after_long_help = "Example:\n  windlass stat home@17 /docs/plan.txt")]
pub struct Stat {
    /// Where to look.
    #[command(flatten)]
    pub at: At,
    /// Path from the volume's root
    pub path: PathBuf,
}

/// Options of `find`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  windlass find home '*.conf'
  windlass find home / --name '*.conf'
  windlass find home@latest /docs --type file --larger 100MiB
  windlass find home --deleted --name '*.xls'")]
pub struct Find {
    /// Where to look.
    #[command(flatten)]
    pub at: At,
    /// Where to begin, from the volume's root; or a pattern, as with --name
    #[arg(default_value = "/")]
    pub path: PathBuf,
    /// Only names that match: '*', '?', '[a-z]', '{a,b}'
    #[arg(long, value_name = "PATTERN")]
    pub name: Option<String>,
    /// Only items of this type
    #[arg(long = "type", value_name = "TYPE")]
    pub kind: Option<Kind>,
    /// Only files larger than this
    #[arg(long, value_name = "SIZE")]
    pub larger: Option<Bytes>,
    /// Search among what is not there any more, and say which is the newest point that has it
    #[arg(long)]
    pub deleted: bool,
}

/// Types of item that `find` tells apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// Regular files
    File,
    /// Directories
    Dir,
    /// Symbolic links
    Link,
    /// Devices, pipes, sockets
    Special,
}

/// Options of `cat`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  windlass cat home@latest /etc/fstab | diff - /etc/fstab
  windlass cat home /etc/fstab@17

PATH@POINT is the path as that point has it (`windlass history` lists the versions), unless a file is called so.")]
pub struct Cat {
    /// Where to look.
    #[command(flatten)]
    pub at: At,
    /// Path from the volume's root
    pub path: PathBuf,
}

/// Options of `check`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  windlass check home
  windlass check home@17 --read-data")]
pub struct Check {
    /// What to check.
    #[command(flatten)]
    pub at: At,
    /// Read and verify every byte too, not only that it is there
    #[arg(long)]
    pub read_data: bool,
}

/// `volume`.
#[derive(Debug, Subcommand)]
pub enum Volume {
    /// What is on a device, and what the reader would refuse and why
    #[command(after_long_help = "\
Example:
  windlass volume info /dev/vg0/home-snap

The device is opened read-only; nothing on it changes.")]
    Info {
        /// A block device or image file
        device: PathBuf,
        /// How to read it: auto, raw, ext4, mounted or image
        #[arg(long, value_name = "READER", default_value_t = Reader::Auto)]
        reader: Reader,
    },
    /// Compare what the raw reader reads of a volume with the file system as the kernel shows it
    #[command(after_long_help = "\
Examples:
  windlass volume verify /dev/vg0/home-snap
  windlass volume verify home.img --all
  windlass volume verify /dev/vg0/home-snap --sample 20000 --seed 7 --json

Two readers, one volume: attributes, names, extents and every byte of the items that are looked at. Each difference is printed with \
path and field. The volume is mounted read-only where nobody else sees it, through a loop device that cannot write if it is a file \
or a device that can be written; nothing on it changes. Needs root. Exit code 0: equal; 1: failed; 3: differences.")]
    Verify(VolumeVerify),
    /// Look for damage: items that cannot be read, blocks with two owners, names that lead nowhere
    #[command(after_long_help = "\
Example:
  windlass volume check /dev/vg0/home-snap

Reads all metadata with the raw reader (or another), some times over, and no contents. Each finding is printed; nothing on the device changes. \
Exit code 0: sound; 1: failed; 3: findings.")]
    Check {
        /// A block device or image file
        device: PathBuf,
        /// How to read it: auto, raw, ext4 or mounted
        #[arg(long, value_name = "READER", default_value_t = Reader::Raw)]
        reader: Reader,
    },
}

/// Options of `volume verify`.
#[derive(Debug, Args)]
pub struct VolumeVerify {
    /// A block device or image file
    pub device: PathBuf,
    /// Look at so many items, drawn at random
    #[arg(long, value_name = "N", default_value_t = 1000, conflicts_with = "all",
        value_parser = clap::value_parser!(u32).range(1..=windlass_hal::volume::verify::SAMPLE_MAX as i64))]
    pub sample: u32,
    /// Look at all items
    #[arg(long)]
    pub all: bool,
    /// Draw the same items again [default: different ones each time, the seed is printed]
    #[arg(long, value_name = "SEED")]
    pub seed: Option<u64>,
}

/// A command line that could be parsed.
#[derive(Debug)]
pub struct Parsed {
    /// Options of every command.
    pub global: Global,
    /// What to do.
    pub command: Command,
    /// What the table of commands says of it.
    pub entry: &'static Entry,
}

/// Parses a command line. A variable of the environment that is set to nothing counts as one that is not set.
pub fn parse(line: &[OsString]) -> Result<Parsed, clap::Error> {
    fn without_empty(command: clap::Command) -> clap::Command {
        let is_empty = |name: &OsStr| std::env::var_os(name).is_some_and(|value| value.is_empty());
        command
            .mut_args(|arg| match arg.get_env() {
                Some(name) if is_empty(name) => arg.env(Resettable::Reset),
                _ => arg,
            })
            .mut_subcommands(without_empty)
    }
    let mut matches = without_empty(Cli::command()).try_get_matches_from(line)?;
    let name = name_of(&matches);
    let entry = table::find(&name).ok_or_else(|| {
        // A test compares grammar and table, so this is not reached.
        let why = format!("{name}: the table of commands does not have it");
        Cli::command().error(ErrorKind::InvalidSubcommand, why)
    })?;
    let source = |id: &str| matches.value_source(id);
    let (key, passphrase) = (source("key_file"), source("passphrase_file"));
    let Cli { mut global, command } =
        Cli::from_arg_matches_mut(&mut matches).map_err(|wrong| wrong.format(&mut Cli::command()))?;
    // What opens the repository is one of the two: an option goes before a variable.
    match (key, passphrase) {
        (Some(ValueSource::EnvVariable), Some(ValueSource::CommandLine)) => global.key_file = None,
        (Some(ValueSource::CommandLine), Some(ValueSource::EnvVariable)) => global.passphrase_file = None,
        _ => {}
    }
    Ok(Parsed { global, command, entry })
}

/// The words of the command, with a space between.
fn name_of(matches: &ArgMatches) -> String {
    let below = std::iter::successors(matches.subcommand(), |(_, below)| below.subcommand());
    below.map(|(word, _)| word).collect::<Vec<_>>().join(" ")
}

/// Prints help, version or what is wrong with the command line `line`, and says how to exit.
pub fn explain(mut wrong: clap::Error, line: &[OsString]) -> ExitCode {
    let asked = !wrong.use_stderr();
    if !asked && wrong.get(ContextKind::Usage).is_some() {
        // clap's own would show options that the environment gave as if they were required.
        wrong.insert(ContextKind::Usage, ContextValue::StyledStr(usage_of(line)));
    }
    // A closed stdout or stderr leaves nobody to tell.
    let _ = wrong.print();
    if asked { Exit::Done.into() } else { Exit::Usage.into() }
}

/// The usage of the command that a line names, as far as it names one.
fn usage_of(line: &[OsString]) -> StyledStr {
    let mut command = Cli::command();
    command.build();
    let mut words = line.iter().skip(1).filter_map(|word| word.to_str());
    while let Some(next) = words.find_map(|word| command.find_subcommand(word).cloned()) {
        command = next;
    }
    command.render_usage()
}

#[cfg(test)]
#[path = "args_test.rs"]
mod tests;
