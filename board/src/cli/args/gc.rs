//! `gc`. Source: clap.

use clap::Args;

use super::value::Bytes;

/// `gc`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  windlass gc --dry-run --repo file:///srv/backup --key-file /root/windlass.key
  windlass gc --repo file:///srv/backup --key-file /root/windlass.key

Points expire by `windlass retention run`, by `windlass point expire`, or after a backup by the rules of its policy; this gives back the space \
that only they needed. With `windlass repo set --gc-every 1d` nodes do the same by themselves, when there is something to do. Backups and \
restores go on meanwhile.

Of an object that is dead to a twelfth or more, what is live moves into a new one, when that gives back 64 KiB at least; then it goes as well. \
`--budget` says how much is moved in this run, `--no-rewrite` that nothing is.

An object goes in two steps: first the log says that nothing needs it, and after the undelete window (`windlass repo set --gc-window`, a day \
where nothing was said) it is deleted, by the next run. A restore, a check or a browse that began before is safe for as long as the window, and \
through an agent for as long as it takes.")]
pub struct Gc {
    /// Show what no point needs, and change nothing
    #[arg(short = 'n', long)]
    pub dry_run: bool,
    /// Bytes of live blocks that may be moved out of objects which are mostly dead [default: 64GiB]
    #[arg(long, value_name = "BYTES", conflicts_with = "no_rewrite")]
    pub budget: Option<Bytes>,
    /// Delete only what is wholly dead, and move nothing
    #[arg(long)]
    pub no_rewrite: bool,
}
