//! `role`, who may do what; `log`, who did it. Source: clap.

use clap::{Args, Subcommand};
use windlass_agent::format::access::is_subject;
use windlass_agent::work::entry::Role as One;

/// What `role` does.
#[derive(Debug, Subcommand)]
pub enum Role {
    /// Give a subject roles, besides those that it has
    #[command(after_long_help = "\
Examples:
  windlass role grant uid:0 administrator
  windlass role grant uid:1000 operator --policy home
  windlass role grant gid:34 operator installer

A subject is cert:NAME, by a certificate at the API, uid:N, a user, or gid:N, a group that a command runs with, the first or a further one (thirty at least count), as the \
agent's socket sees who connects; `group` of [control] in the board profile says which group may connect. Each role sees the status, of \
the policies that it is for, and a viewer no more; an operator starts and stops backups, holds, notes and brings back points; a restorer holds what a restore reads while it goes on; an \
installer makes, changes and removes policies; an administrator does all that, expires points, releases holds and gives roles. Without \
--policy a role is for all policies. One subject is always an administrator of all of them.

Roles count for commands that go through an agent. Who has the repository's key is an administrator: root, the user that the agent \
runs as, and each command line with --key-file and no agent.")]
    Grant(Grant),
    /// List subjects with their roles, and what was refused
    #[command(after_long_help = "Example:\n  windlass role list --json")]
    List,
    /// Take roles from a subject: those that are named, or all
    #[command(
        after_long_help = "Examples:\n  windlass role revoke uid:1000\n  windlass role revoke uid:1000 operator --policy home"
    )]
    Revoke(Revoke),
}

/// Options of `role grant`.
#[derive(Debug, Args)]
pub struct Grant {
    /// uid:N, gid:N or cert:NAME
    pub subject: String,
    /// viewer, operator, restorer, installer, administrator
    #[arg(required = true, value_name = "ROLE")]
    pub roles: Vec<String>,
    /// For this policy only; may be repeated
    #[arg(long, value_name = "NAME")]
    pub policy: Vec<String>,
}

/// Options of `role revoke`.
#[derive(Debug, Args)]
pub struct Revoke {
    /// uid:N, gid:N or cert:NAME
    pub subject: String,
    /// Only these roles
    #[arg(value_name = "ROLE")]
    pub roles: Vec<String>,
    /// Only those for this policy; may be repeated
    #[arg(long, value_name = "NAME")]
    pub policy: Vec<String>,
}

/// Options of `log`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  windlass log
  windlass log --policy home --last 1000
  windlass log --json

What people asked for and what the coordinator did by itself, as the commit log says it, oldest first. NODE wrote it; WHO asked for it, by user and \
group number, where subjects have roles (`windlass role`); a line without one is the coordinator's own, or of a time without roles. What was \
refused is there too. --policy follows a policy through its names, and has what became of points that are gone. The log reaches back some hundred entries at least; what is older is deleted, so copy it elsewhere (--json) where it has to \
be kept.")]
pub struct Log {
    /// Only the newest N lines [default: 100]
    #[arg(long, value_name = "N", default_value_t = 100, hide_default_value = true)]
    pub last: u32,
    /// Also which node began and ceased to coordinate
    #[arg(long)]
    pub all: bool,
    /// Only what is about this policy and its points, also under an earlier name
    #[arg(long, value_name = "NAME")]
    pub policy: Option<String>,
}

/// Roles by their names.
///
/// # Errors
/// One is none.
pub fn roles(names: &[String]) -> Result<Vec<One>, String> {
    let role = |name: &String| One::of_name(name).ok_or_else(|| format!("{name:?} is not a role; {ROLES}"));
    names.iter().map(role).collect()
}

/// A subject as it is written.
///
/// # Errors
/// It is none.
pub fn subject(text: &str) -> Result<&str, &'static str> {
    is_subject(text)
        .then_some(text)
        .ok_or("a subject is uid:N or gid:N with a number (`id -u NAME` prints a user's), or cert:NAME with the name in a certificate")
}

const ROLES: &str = "write viewer, operator, restorer, installer or administrator";
