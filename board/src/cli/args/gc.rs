//! `gc`. Source: clap.

use clap::Args;

/// `gc`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  windlass gc --dry-run --repo file:///srv/backup --key-file /root/windlass.key
  windlass gc --repo file:///srv/backup --key-file /root/windlass.key

Points expire by `windlass retention run`, by `windlass point expire`, or after a backup by the rules of its policy; this gives back the space \
that only they needed. With `windlass repo set --gc-every 1d` nodes do the same by themselves, when there is something to do. Backups and \
restores go on meanwhile.

An object goes in two steps: first the log says that nothing needs it, and after the undelete window (`windlass repo set --gc-window`, a day \
where nothing was said) it is deleted, by the next run. A restore, a check or a browse that began before is safe for as long as the window, and \
through an agent for as long as it takes.")]
pub struct Gc {
    /// Show what no point needs, and change nothing
    #[arg(short = 'n', long)]
    pub dry_run: bool,
}
