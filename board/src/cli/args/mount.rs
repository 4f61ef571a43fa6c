//! `mount`. Source: clap.

use std::path::PathBuf;
use std::str::FromStr;

use clap::Args;

use crate::point::{Target, TargetFault};

/// Options of `mount`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  windlass mount home /mnt/points
  windlass mount home@17 /mnt/then
  windlass mount luns@latest /mnt/disks

Without a point DIR has all of them: points/NUMBER, times/TIME and latest. With one, DIR is its volume; of a point with several volumes each \
is a folder. An image is the file disk.raw. Everything is read-only and as it was: owners, modes, times, links, extended attributes, ACLs, holes.

It stays until Ctrl-C, SIGTERM or `umount DIR`, and ends with exit code 0. After kill -9 the directory answers \"not connected\" until `umount DIR`. \
What is damaged gives an I/O error for that part of that file, and a line here. --memory bounds what it keeps.")]
pub struct Mount {
    /// The policy, and one of its points; all of them without @POINT
    #[arg(value_name = "NAME[@POINT]")]
    pub target: Shown,
    /// An existing directory
    #[arg(value_name = "DIR")]
    pub directory: PathBuf,
    /// Let other users look too, with the owners, modes and ACLs that files have
    #[arg(long)]
    pub allow_other: bool,
}

/// One point of a policy, or all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// The policy and the point; the newest for all.
    pub target: Target,
    /// Whether no point was named.
    pub all: bool,
}

impl FromStr for Shown {
    type Err = TargetFault;

    fn from_str(text: &str) -> Result<Shown, TargetFault> {
        Ok(Shown { target: text.parse()?, all: !text.contains('@') })
    }
}
