//! Grammar of `completions`.
//!
//! Source: ours.

use clap::{Args, ValueEnum};

/// Options of `completions`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  windlass completions bash > /etc/bash_completion.d/windlass
  windlass completions zsh > /usr/local/share/zsh/site-functions/_windlass
  windlass completions fish > ~/.config/fish/completions/windlass.fish")]
pub struct Completions {
    /// The shell
    pub shell: Shell,
}

/// Shells that can be taught.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Shell {
    /// Bash
    Bash,
    /// Zsh
    Zsh,
    /// Fish
    Fish,
}
