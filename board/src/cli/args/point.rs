//! `point`: what people say of a point, and points that go on purpose. Source: clap.

use clap::{Args, Subcommand};

use crate::point::{Named, Target};

/// What `point` does.
#[derive(Debug, Subcommand)]
pub enum Point {
    /// Hold a point: no rule and no command expires it until it is released
    #[command(
        after_long_help = "Example:\n  windlass point hold home@17 --reason 'before the upgrade, until March'"
    )]
    Hold(Hold),
    /// Release a held point: rules count for it again
    #[command(after_long_help = "Example:\n  windlass point release home@17")]
    Release(One),
    /// Give a point a note, or none
    #[command(
        after_long_help = "Examples:\n  windlass point note home@17 'the last one with version 4'\n  windlass point note home@17 ''"
    )]
    Note(Note),
    /// Give a point tags in place of those that it has; without any it has none
    #[command(after_long_help = "\
Example:
  windlass point tag home@17 release audit=2026
  windlass policy set home --keep-tag release        and rules keep it")]
    Tag(Tag),
    /// Show what two points differ in: names, contents, attributes
    #[command(after_long_help = "\
Examples:
  windlass point diff home@16 home@17
  windlass point diff home@2026-11-20 home --json | jq 'select(.change == \"removed\")'

'+' is only in the second point, '-' only in the first, M has other contents, U other attributes alone, R another name. Both trees are read, \
and no contents.")]
    Diff(Diff),
    /// Expire a point, whatever the rules say
    #[command(after_long_help = "Example:\n  windlass point expire home@17")]
    Expire(Expire),
    /// Bring back a point that expired, as long as its policy's `--undo` says
    #[command(after_long_help = "Example:\n  windlass point undo home@17")]
    Undo(Expire),
}

/// Options of `point expire` and `point undo`.
#[derive(Debug, Args)]
pub struct Expire {
    /// The point: the policy's name and the point's number, as in home@17
    #[arg(value_name = "NAME@POINT")]
    pub target: Named,
}

/// Options of `point diff`.
#[derive(Debug, Args)]
pub struct Diff {
    /// The first point
    #[arg(value_name = "NAME@POINT")]
    pub old: Target,
    /// The second point
    #[arg(value_name = "NAME[@POINT]")]
    pub new: Target,
}

/// A point.
#[derive(Debug, Args)]
pub struct One {
    /// The point: the policy's name and the point's number or time, as in home@17
    #[arg(value_name = "NAME@POINT")]
    pub target: Target,
}

/// Options of `point hold`.
#[derive(Debug, Args)]
pub struct Hold {
    /// The point.
    #[command(flatten)]
    pub point: One,
    /// Why, for those who find it later; at most 256 bytes
    #[arg(long, value_name = "TEXT")]
    pub reason: String,
}

/// Options of `point note`.
#[derive(Debug, Args)]
pub struct Note {
    /// The point.
    #[command(flatten)]
    pub point: One,
    /// The note, at most 256 bytes; empty for none
    #[arg(value_name = "TEXT")]
    pub text: String,
}

/// Options of `point tag`.
#[derive(Debug, Args)]
pub struct Tag {
    /// The point.
    #[command(flatten)]
    pub point: One,
    /// Tags: 1 to 64 letters, digits, '.', '_', '-', ':' or '=' each, at most 16
    #[arg(value_name = "TAG")]
    pub tags: Vec<String>,
}
