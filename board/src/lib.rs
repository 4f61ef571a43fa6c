//! Windlass for an appliance: the composition of hardware and agent, and the command line.
//!
//! | module | what |
//! |---|---|
//! | [`cli`] | the command line: grammar, one module per command, bars and documents on stdout |
//! | [`node`] | the daemon: a node of a cluster, until it is stopped |
//! | [`api`] | what programs and browsers ask the daemon, over TLS or a Unix socket |
//! | [`console`] | a shell at a terminal or a serial line |
//! | [`control`] | commands to the daemon of this machine, over a Unix socket |
//! | [`status`] | what a cluster is doing, as text |
//! | [`demo`] | the main job on this machine, with nothing to configure |
//! | [`engine`] | the composition of hardware and agent under all of these |
//! | [`profile`] | board profiles: what a node is and has, as data |
//! | [`notify`] | what the service manager is told |
//! | [`authority`] | a small CA for the backplane |
//! | [`failure`] | what went wrong, where, what to do; and the exit code |
//! | [`outcome`] | what a backup did, as text and documents |
//! | [`point`] | `NAME@POINT` |
//! | [`schema`] | the fields of what `--json` prints |
//! | [`text`] | names made fit for a terminal |
//! | [`unlock`] | which keys open a repository |
//! | [`logger`] [`levels`] [`repeats`] [`recent`] | the log on stderr, and its last lines |
//! | [`site_time`] | times on the clock of the site |
//! | [`signal`] [`prompt`] | Ctrl-C, passphrases |
//!
//! What `--json` prints is in `board/doc/json.md`.
//!
//! Does not: decide anything about data. Everything here calls the agent and shows what it says.

pub mod api;
pub mod authority;
pub mod cli;
pub mod console;
pub mod control;
pub mod demo;
pub mod engine;
pub mod failure;
pub mod levels;
pub mod logger;
pub mod node;
pub mod notify;
pub mod outcome;
pub mod point;
pub mod profile;
pub mod prompt;
pub mod recent;
pub mod repeats;
pub mod schema;
pub mod signal;
pub mod site_time;
pub mod status;
pub mod text;
pub mod unlock;

use std::ffi::OsString;
use std::process::ExitCode;

use crate::cli::args;
use crate::cli::output::Output;

/// Runs a command line, with the program's name first. Prints, and returns the exit code.
pub fn run(line: impl IntoIterator<Item = OsString>) -> ExitCode {
    // Before any thread: the memory budget counts on it.
    windlass_hal::linux::share_heap();
    let line: Vec<OsString> = line.into_iter().collect();
    let parsed = match args::parse(&line) {
        Ok(parsed) => parsed,
        Err(wrong) => return args::explain(wrong, &line),
    };
    let service = matches!(parsed.command, args::Command::Agent(_));
    logger::install(parsed.global.verbose, parsed.global.log.as_ref(), service);
    if parsed.global.utc {
        site_time::use_utc();
    }
    let output = Output::new(parsed.global.json, parsed.global.quiet);
    let code = match cli::run(parsed, &output) {
        Ok(code) => signal::exit_code(code),
        Err(failure) => signal::exit_code(output.fail(&failure)),
    };
    log::logger().flush();
    code
}
