//! Options of `stats`.
//!
//! Source: ours.

use clap::Args;

use crate::point::Target;

/// Options of `stats`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  windlass stats
  windlass stats home
  windlass stats home@17 --json

Without a policy: what the log says of each, at once. With one, its tables are read: DATA is what the blocks of a point come to (holes and \
zeros are none), STORED their share of what is stored, compressed and each block once, and ALONE what is stored for no other point: so much \
goes when that point goes (`windlass gc` gives it back when nothing else of its object is needed). The files of the point, the newest or the one that is named, are \
counted by type, by group and by extension.")]
pub struct Stats {
    /// The policy, and the point whose files are counted [default: the newest]; all policies without it
    #[arg(value_name = "NAME[@POINT]")]
    pub target: Option<Target>,
}
