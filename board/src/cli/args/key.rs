//! Grammar of `key`.
//!
//! Source: ours.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// `key`.
#[derive(Debug, Subcommand)]
pub enum Key {
    /// List the keys and passphrases that open the repository
    #[command(after_long_help = "\
Example:
  windlass key list

Each has a number of eight digits. The one that this command used is marked; who holds the others is not known to the repository.")]
    List,
    /// Let one more key file or passphrase open the repository
    #[command(after_long_help = "\
Examples:
  windlass key add --new-key-file /media/safe/windlass.key
  windlass key add --new-passphrase-file /run/keys/phrase
  windlass key add

A key file that does not exist is made. Without an option a passphrase is asked for, twice. Eight keys at most; each opens the whole repository.

No agent changes keys: while one is at work this waits a minute for it, or as --wait says.")]
    Add(NewKey),
    /// Let a key open the repository no more
    #[command(after_long_help = "\
Example:
  windlass key remove 3f1c09aa

`windlass key list` shows the numbers. The key that this command uses itself stays. Data is not encrypted again: who held the key and \
has copied the repository's format object opens that copy.")]
    Remove {
        /// The key's number
        id: String,
    },
    /// Change the passphrase that opens the repository
    #[command(after_long_help = "\
Examples:
  windlass key passphrase
  windlass key passphrase --passphrase-file /run/keys/old --new-passphrase-file /run/keys/new

The old one opens the repository no more, at once. Until the new one is in force the old one is: where the command ended early, \
give it again, and it says which. Other keys stay. Nothing else is written again, however large the repository is.")]
    Passphrase(NewPassphrase),
}

/// Options of `key add`.
#[derive(Debug, Args)]
pub struct NewKey {
    /// A key file; made if it does not exist
    #[arg(long, value_name = "FILE", conflicts_with = "new_passphrase_file")]
    pub new_key_file: Option<PathBuf>,
    /// A file with a passphrase
    #[arg(long, value_name = "FILE")]
    pub new_passphrase_file: Option<PathBuf>,
}

/// Options of `key passphrase`.
#[derive(Debug, Args)]
pub struct NewPassphrase {
    /// A file with the new passphrase
    #[arg(long, value_name = "FILE")]
    pub new_passphrase_file: Option<PathBuf>,
}
