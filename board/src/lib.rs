//! Windlass for an appliance: the composition of hardware and agent, and the command line.
//!
//! | module | what |
//! |---|---|
//! | [`args`] | what may be written on the command line |
//! | [`commands`] | one module per command: from arguments to calls of the agent, and what is printed |
//! | [`demo`] | the main job on this machine, with nothing to configure |
//! | [`agent`] | a node of a cluster, for good |
//! | [`engine`] | the composition of hardware and agent that a node runs on |
//! | [`repository`] | store, keys and log state, opened in one place |
//! | [`calls`] | threads that ask the store for the commit log |
//! | [`profile`] | board profiles: what a node is and has, as data |
//! | [`control`] | commands to the agent that runs on this machine, over a Unix socket |
//! | [`status`] | what a cluster is doing, as text |
//! | [`notify`] | what the service manager is told |
//! | [`authority`] | a small CA for the backplane |
//! | [`machinery`] | pools, uplinks and the reactor that a backup runs on |
//! | [`progress`] | bars, plain lines or JSON lines while a job runs |
//! | [`output`] [`text`] | documents and text on stdout; names made fit for a terminal |
//! | [`failure`] | what went wrong, where, what to do; and the exit code |
//! | [`point`] | `NAME@POINT` |
//! | [`logger`] [`signal`] [`prompt`] [`host`] | stderr, Ctrl-C, passphrases, clocks and random numbers |
//!
//! What `--json` prints is said in `doc/json.md`.
//!
//! Does not: decide anything about data. Everything here calls the agent and shows what it says.

pub mod agent;
pub mod args;
pub mod authority;
pub mod calls;
pub mod commands;
pub mod control;
pub mod damage;
pub mod demo;
pub mod durable;
pub mod engine;
pub mod failure;
pub mod host;
pub mod levels;
pub mod logger;
pub mod machinery;
pub mod memory;
pub mod notify;
pub mod output;
pub mod place;
pub mod point;
pub mod profile;
pub mod progress;
pub mod prompt;
pub mod repeats;
pub mod repository;
pub mod requests;
pub mod signal;
pub mod status;
pub mod text;
pub mod unknown;
pub mod unlock;
pub mod watch;
pub mod within;

use std::ffi::OsString;
use std::process::ExitCode;

/// Runs a command line, with the program's name first. Prints, and returns the exit code.
pub fn run(line: impl IntoIterator<Item = OsString>) -> ExitCode {
    // Before any thread: the memory budget counts on it.
    windlass_hal::linux::share_heap();
    let line: Vec<OsString> = line.into_iter().collect();
    let cli = match args::parse(&line) {
        Ok(cli) => cli,
        Err(wrong) => return args::explain(wrong, &line),
    };
    let service = matches!(cli.command, args::Command::Agent(_));
    logger::install(cli.global.verbose, cli.global.log.as_ref(), service);
    let output = output::Output::new(cli.global.json, cli.global.quiet);
    let code = match commands::run(&cli.global, cli.command, &output) {
        Ok(code) => signal::exit_code(code),
        Err(failure) => signal::exit_code(output.fail(&failure)),
    };
    log::logger().flush();
    code
}
