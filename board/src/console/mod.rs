//! The console: a shell at a terminal or a serial line, over the machine of `windlass_agent::console`.
//!
//! ```text
//!  line (hal::serial) <--> Seat: poll --> Shell --Run--> this program once more, with the words of the command --> its output, in pages
//!                            ^-- log lines: a thread that asks the agent
//! ```
//!
//! | module | what |
//! |---|---|
//! | this one | `console`: the terminal of the process, or a serial line for good |
//! | [`seat`] | one session: the loop between the line, the shell and the command that runs |
//! | [`send`] | a support bundle over the line |
//! | [`child`] | a command as a process |
//! | [`follow`] | the log lines of the agent |
//!
//! A command is a process of its own: it is the command line's, with its roles and texts, and what it waits for or runs out of does not touch
//! the console. Invariants: a session takes its memory when it begins, but for the process of a command; the loop waits for nothing but its
//! descriptors. Does not: decide anything. Source: ours.

pub mod child;
pub mod follow;
pub mod seat;
pub mod send;

use std::path::Path;
use std::time::Duration;

use windlass_agent::console::screen::Mode;
use windlass_agent::console::shell::Config;
use windlass_agent::work::entry::Role;
use windlass_hal::serial::{Baud, Settings, Tty};

use crate::cli::args::console::Console as Args;
use crate::cli::args::global::Global;
use crate::cli::output::Output;
use crate::engine::host::{self, HostClock};
use crate::failure::{Exit, Failure};
use crate::logger;
use follow::Follower;
use seat::{Left, Seat};

/// Between two attempts to open a line that is not there, such as an adapter that was pulled out.
const AGAIN: Duration = Duration::from_millis(500);

/// What every command of a console is started with.
#[derive(Clone, Debug)]
pub struct Options {
    words: Vec<std::ffi::OsString>,
}

impl Options {
    fn of(global: &Global) -> Options {
        Options { words: global.words() }
    }
}

/// `console`.
pub fn run(global: &Global, args: &Args, output: &Output) -> Result<Exit, Failure> {
    if output.is_json() {
        return Err(Failure::usage("a console has no documents; give --json to a command in it"));
    }
    let serial = args.serial.clone().or_else(host::serial).unwrap_or_default();
    let name = host::name();
    let prompt = format!("{name}> ");
    let options = Options::of(global);
    let mut follower = Follower::start(global.socket.as_deref())?;
    match &args.tty {
        None => {
            let tty = Tty::of_process().map_err(|error| Failure::at("the terminal", error))?;
            let role = args.role.map_or(Role::Administrator, |named| named.role());
            let mode = if tty.is_terminal() { None } else { Some(Mode::Script) };
            let config = Config { prompt: &prompt, serial: &serial, role, mode, size: None };
            let mut seat = Seat::new(tty, &config, &options, &mut follower);
            if mode.is_none() {
                seat.say(&banner(&name, &serial, role));
            }
            match seat.serve()? {
                Left::Failed if mode.is_some() => Ok(Exit::Failed),
                Left::Failed | Left::Done => Ok(Exit::Done),
            }
        }
        Some(path) => {
            let baud = args.baud.map(|rate| {
                Baud::of(rate)
                    .ok_or_else(|| Failure::usage(format_args!("--baud {rate}: ports have no such speed")))
            });
            let settings = Settings { baud: baud.transpose()?, flow: !args.no_flow, modem: args.modem };
            let role = args.role.map_or(Role::Viewer, |named| named.role());
            let config = Config { prompt: &prompt, serial: &serial, role, mode: None, size: None };
            let banner = banner(&name, &serial, role);
            serve_line(path, &settings, &config, &banner, &options, &mut follower)
        }
    }
}

/// Who this is.
fn banner(name: &str, serial: &str, role: Role) -> String {
    let serial = if serial.is_empty() { "none" } else { serial };
    format!(
        "windlass {}  node={name}  serial={serial}  role={role}  ('help', Tab and '?' help)",
        env!("CARGO_PKG_VERSION")
    )
}

/// Serves a line until the process is ended: whoever leaves or hangs up is followed by the next one.
fn serve_line(
    path: &Path,
    settings: &Settings,
    config: &Config<'_>,
    banner: &str,
    options: &Options,
    follower: &mut Follower,
) -> Result<Exit, Failure> {
    let mut opened = false;
    loop {
        match Tty::open(path, settings) {
            Ok(tty) => {
                opened = true;
                let mut seat = Seat::new(tty, config, options, follower);
                seat.say(banner);
                if let Err(failure) = seat.serve() {
                    logger::say_rarely(format_args!("windlass: console: {failure}"));
                    HostClock.sleep(AGAIN);
                }
            }
            // A line that never was there is a wrong name, or the wrong machine for it.
            Err(error) if !opened => return Err(cannot_open(path, &error)),
            Err(_) => HostClock.sleep(AGAIN),
        }
    }
}

fn cannot_open(path: &Path, error: &std::io::Error) -> Failure {
    let why = match error.raw_os_error() {
        Some(nix::libc::EIO) => "there is no hardware behind this port".to_owned(),
        Some(nix::libc::ENOTTY) => "this is no serial line".to_owned(),
        _ => error.to_string(),
    };
    Failure::at(path.display(), why)
}
