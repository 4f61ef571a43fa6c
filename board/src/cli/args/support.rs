//! Grammar of `support`. Source: ours.

use std::path::PathBuf;

use clap::Args;

/// Options of `support`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  windlass support
  windlass support /tmp/bundle.tar
  windlass support - | ssh desk 'cat > bundle.tar.zst'

One file for those who help: versions, configuration, status, the last lines of the agent's log, the commit log's head and last entries, a \
test of the store, volumes, and what the kernel counts. A store or a device that hangs costs its part 20 s and no more. Keys, passphrases and \
credentials are not in it; names of policies and paths that the log's lines speak of are. Look into it with tar.")]
pub struct Support {
    /// Where to write it; '-' is stdout, and a name that ends in .tar is not compressed [default: a name with host and time, here]
    pub file: Option<PathBuf>,
}
