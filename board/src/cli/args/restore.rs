//! Options of `restore`.
//!
//! Source: ours.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::At;

/// Options of `restore`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  windlass restore home --to /mnt/new
  windlass restore home@2026-11-21 docs/plan.txt photos --to /tmp/out --existing skip
  windlass restore home '*.conf' '/home/*/docs' --to /tmp/out
  windlass restore home --include '*.conf' --exclude '*.bak' --target /tmp/out
  windlass restore luns --to-device /dev/vg0/lun7-new
  windlass restore luns --to-device /dev/vg0/lun7 --in-place
  windlass restore home --to /mnt/new --map-owner 1000:2000 --map-owner :100=:200

A restore to a directory puts each file under its name when it is complete, never before, and follows no symlink. Owners need \
root; everything else is as it was. Without the owner, setuid, setgid and file capabilities are left out. A path that is restored \
keeps its place below DIR, which is made with what is above it. Directories that were there keep their own mode, owner and times, \
unless --existing says to replace. A restore that ended early (stopped, killed, or the target was full) goes on when the same \
command is given again; large files and new image files go on in their middle, each byte compared first. --abandon removes what \
it left for that (DIR/.windlass-restore-...). Of a point with several volumes each goes to a folder of its own below DIR, called as the last part of the volume's \
name (with its number, where two are called so); --volume takes one of them, without a folder.

A path that is not there as it is written may be a pattern ('*.conf' in any directory, '/home/*/docs' from the root), or a name \
as `ls` shows it ('a\\u{1b}b', '\\xff'). What no directory names any more, because one could not be read when it was backed up, goes to \
lost+found below DIR, by inode number. PATH@POINT is a path as that point has it (`windlass history` lists the versions), unless it is called so.

--to-device writes an image back: to a block device that nothing else has open, where it overwrites what is there, or to a \
new file. A larger device works, and what is behind the image stays; a smaller one is refused before anything is written.

--in-place reads what is there, compares it with the point by digest, and fetches and writes only what differs, into the files \
or the device that are there. A file with more names than the point knows is replaced instead. While it runs, a file that is \
written in place is neither old nor new; give the same command again when it ended early.")]
pub struct Restore {
    /// What to restore.
    #[command(flatten)]
    pub at: At,
    /// Paths or patterns from the volume's root; everything when there is none
    pub paths: Vec<PathBuf>,
    /// Restore what matches, as a path does; a name without a slash in any directory
    #[arg(long, value_name = "PATTERN", conflicts_with = "to_device")]
    pub include: Vec<String>,
    /// Leave out what matches, with everything below: '*.tmp' in any directory, '/home/*/cache' from the root
    #[arg(long, value_name = "PATTERN", conflicts_with = "to_device")]
    pub exclude: Vec<String>,
    /// Restore files below this directory
    #[arg(long, visible_alias = "target", value_name = "DIR", required_unless_present = "to_device")]
    pub to: Option<PathBuf>,
    /// Restore a volume image to this device, or to this new file
    #[arg(long, value_name = "DEV", conflicts_with_all = ["to", "paths"])]
    pub to_device: Option<PathBuf>,
    /// What to do with a name that is taken
    #[arg(long, value_name = "HOW", value_enum, default_value_t = Existing::Refuse, conflicts_with = "to_device")]
    pub existing: Existing,
    /// Compare what is there with the point, byte by byte, and write only what differs
    #[arg(long, conflicts_with = "existing")]
    pub in_place: bool,
    /// Another owner: user OLD becomes NEW; UID:GID=UID:GID for both, :GID=:GID for groups; by number, ACLs too
    #[arg(long, value_name = "OLD:NEW", conflicts_with = "to_device")]
    pub map_owner: Vec<String>,
    /// Restore nothing: remove what restores that ended early left below DIR to go on with; what they finished stays
    #[arg(long, conflicts_with_all = ["dry_run", "in_place", "paths", "include", "exclude", "map_owner"])]
    pub abandon: bool,
    /// Write nothing: say how much would be written and fetched, which names are taken, and what would become of each
    #[arg(short = 'n', long, visible_alias = "plan")]
    pub dry_run: bool,
}

/// In front of a name that is meant in any directory.
pub const ANYWHERE: &str = "**/";

impl Restore {
    /// The paths and patterns that are asked for. A pattern that is a name is meant in any directory.
    pub fn wanted(&self) -> Vec<PathBuf> {
        let include = self.include.iter().map(|text| match text.contains(['/', '*', '?', '[', '{']) {
            true => PathBuf::from(text),
            false => PathBuf::from(format!("{ANYWHERE}{text}")),
        });
        self.paths.iter().cloned().chain(include).collect()
    }
}

/// What a restore does with a name that is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Existing {
    /// Leave it, and name it if type, size, time, mode or owner differ (exit 3)
    Refuse,
    /// Leave it
    Skip,
    /// Replace it if type, size, time, mode or owner differ, but no directory that holds something
    Different,
    /// Replace it, be it a directory with all that it holds
    Overwrite,
}
