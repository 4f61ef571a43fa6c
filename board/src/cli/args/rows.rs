//! `table`. Source: clap.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::cli::args::At;

/// `table`.
#[derive(Debug, Subcommand)]
pub enum Table {
    /// Print the metadata table as a point has it: a row per name, and the deletions since
    #[command(after_long_help = "\
Examples:
  windlass table items home > items.csv
  windlass table items home@17 /docs --json

Columns: policy, LIN (volume:inode), path, snapshot (the point that wrote the row), time of the row, permissions, type, group, user, time of \
the contents, size, LIN of the directory. Types: 1 file, 2 alternate data stream, 3 directory, 4 deleted file, 5 deleted directory, 6 symlink, \
7 character device, 8 block device, 9 pipe, 10 socket. CSV, or with --json a line per row.")]
    Items(Of),
    /// Print the block location table as a point has it: where each block of each file is
    #[command(after_long_help = "\
Example:
  windlass table blocks home@17 /docs/plan.txt

Columns: LIN, base (number of the first block), and for each block of the row the object that has it, the offset in the object of the frame in \
which it is sealed, and its size. A block without an object is zero, or a hole. CSV, or with --json a line per row.")]
    Blocks(Of),
}

/// Which rows.
#[derive(Debug, Args)]
pub struct Of {
    /// Where to look.
    #[command(flatten)]
    pub at: At,
    /// Path from the volume's root
    #[arg(default_value = "/")]
    pub path: PathBuf,
    /// Lines of comma-separated values; so it is without --json
    #[arg(long)]
    pub csv: bool,
    /// Leave deletions out
    #[arg(long)]
    pub without_deleted: bool,
}
