//! `completions`: the grammar for shells. Manual pages are made where the program is built (`tests/src/bin/manual.rs`): what makes them would
//! add 88 KiB to the binary.
//!
//! Source: ours; `clap_complete`.

use clap::CommandFactory;

use crate::cli::args::Cli;
use crate::cli::args::shell::Shell;
use crate::cli::output::Output;
use crate::failure::{Exit, Failure};

/// The name that people type.
const NAME: &str = "windlass";

/// `completions`.
pub fn completions(shell: Shell, output: &Output) -> Result<Exit, Failure> {
    if output.is_json() {
        return Err(Failure::usage("completions prints a script; leave --json out"));
    }
    let shell = match shell {
        Shell::Bash => clap_complete::Shell::Bash,
        Shell::Zsh => clap_complete::Shell::Zsh,
        Shell::Fish => clap_complete::Shell::Fish,
    };
    // Into memory first: what writes it ends the process where a reader goes away early.
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), NAME, &mut script);
    output.text(&String::from_utf8_lossy(&script));
    Ok(Exit::Done)
}
