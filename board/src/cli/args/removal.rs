//! Grammar of `removal`.
//!
//! Source: clap.

use clap::Subcommand;

/// What `removal` does.
#[derive(Debug, Subcommand)]
pub enum Removal {
    /// List what was asked for and waits for a second subject
    #[command(after_long_help = "\
Example:
  windlass removal list

A policy with `--approve-removal` lets points expire, be released, or the policy be weakened or deleted only when a second subject \
approves. The command of the first one asks for that, and ends with exit code 1, as nothing is done yet. What the policy's retention rules \
expire by themselves needs no approval; to change those rules does.")]
    List,
    /// Do what another subject asked for
    #[command(after_long_help = "\
Example:
  windlass removal approve 1207

Only another subject than the one who asked: the user number counts, through an agent and without. It needs the role that the asked-for \
commands need (`windlass role`).")]
    Approve {
        /// The request's number
        number: u64,
    },
    /// Take back a request, or refuse one
    #[command(after_long_help = "Example:\n  windlass removal withdraw 1207")]
    Withdraw {
        /// The request's number
        number: u64,
    },
}
