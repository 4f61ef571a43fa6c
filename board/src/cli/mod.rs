//! The command line: from arguments to calls of the engine, and what is printed.
//!
//! | module | commands |
//! |---|---|
//! | [`repo`] | `repo init`, `probe`, `info` |
//! | [`rebuild`] | `repo rebuild` |
//! | [`key`] | `key list`, `add`, `remove`, `passphrase` |
//! | [`policy`] | `policy set`, `list`, `rename`, `delete` |
//! | [`policy_show`] | `policy show` |
//! | [`backup`] | `backup` |
//! | [`points`] | `points`, and picking one |
//! | [`point`] | `point hold`, `release`, `note`, `tag`, `expire`, `undo` |
//! | [`entries`] | `log` |
//! | [`removal`] | `removal list`, `approve`, `withdraw` |
//! | [`role`] | `role grant`, `list`, `revoke` |
//! | [`gc`] | `gc` |
//! | [`retention`] | `retention run`, `simulate` |
//! | [`browse`] | `ls`, `stat`, `find`, `cat` |
//! | [`history`] | `history`, and `PATH@POINT` |
//! | [`mount`] | `mount` |
//! | [`stats`] | `stats` |
//! | [`diff`] | `point diff` |
//! | [`support`] | `support` |
//! | [`table`] | `table items`, `blocks` |
//! | [`restore`] | `restore` |
//! | [`preview`] | `--dry-run` of `backup` and `restore` |
//! | [`check`] | `check` |
//! | [`volume`] | `volume info` |
//! | [`shell`] | `completions` |
//! | [`status`] | `status`, `stop`, `coordinator move`, `flush` |
//! | [`commands`] | `commands` |
//! | [`board`] | `board new`, `check`, `explain` |
//! | [`pki`] | `pki init`, `issue`, `client` |
//! | [`verify`] | `volume verify`, and the same after a backup |
//! | [`args`] | the grammar: commands, options, values |
//! | [`through`] | the agent of this machine, for the commands that go through it |
//! | [`output`] [`progress`] | documents and text on stdout; bars, plain lines or JSON lines while a job runs |
//! | [`held`] | a hold on the tables while a command reads |
//! | [`damage`] | damage and unknown names, as several commands report them |
//!
//! Where a command runs, and whether it changes something, is in the table of commands (`windlass_agent::work::table`).
//!
//! Each returns how it ended; the line that says why is printed by the caller.

pub mod args;
pub mod backup;
pub mod board;
pub mod browse;
pub mod check;
pub mod commands;
pub mod damage;
pub mod diff;
pub mod entries;
pub mod gc;
pub mod held;
pub mod history;
pub mod key;
pub mod mount;
pub mod output;
pub mod pki;
pub mod point;
pub mod points;
pub mod policy;
pub mod policy_show;
pub mod preview;
pub mod progress;
pub mod rebuild;
pub mod removal;
pub mod repo;
pub mod restore;
pub mod retention;
pub mod role;
pub mod selected;
pub mod shell;
pub mod stats;
pub mod status;
pub mod support;
pub mod table;
pub mod through;
pub mod verify;
pub mod volume;

use windlass_agent::work::entry::Place;

use crate::cli::args::global::Global;
use crate::cli::args::{Command, Parsed};
use crate::cli::output::Output;
use crate::cli::through::Through;
use crate::console;
use crate::demo;
use crate::engine::host;
use crate::failure::{Exit, Failure};
use crate::node;

/// Runs a command; through the agent of this machine if there is one and the command wants it.
pub fn run(parsed: Parsed, output: &Output) -> Result<Exit, Failure> {
    let Parsed { mut global, command, entry } = parsed;
    host::refuse_memory(global.memory.0)?;
    let mut through = match entry.place {
        Place::Here | Place::OnlyAgent | Place::Socket => None,
        Place::ItsRepository if global.repo.is_some() => {
            Through::check(&global)?;
            None
        }
        Place::ItsRepository | Place::Agent => Through::find(&global)?,
    };
    if let Some(through) = &mut through {
        through.identity.fill(&mut global);
    }
    let output = if entry.changes { *output } else { output.of_answer() };
    dispatch(&global, command, through, &output)
}

fn dispatch(
    global: &Global,
    command: Command,
    through: Option<Through>,
    output: &Output,
) -> Result<Exit, Failure> {
    match command {
        Command::Demo(args) => demo::run(global, &args, output),
        Command::Repo(args::repo::Repo::Init(args)) => repo::init(global, &args, output),
        Command::Repo(args::repo::Repo::Probe(args)) => repo::probe(global, &args, output),
        Command::Repo(args::repo::Repo::Info) => repo::info(global, output),
        Command::Repo(args::repo::Repo::Set(args)) => repo::set(global, &args, through, output),
        Command::Repo(args::repo::Repo::Rebuild) => rebuild::run(global, output),
        Command::Key(command) => key::run(global, &command, output),
        Command::Policy(args::policy::Policy::Set(args)) => policy::set(global, &args, through, output),
        Command::Policy(args::policy::Policy::Show { name }) => policy_show::run(global, &name, output),
        Command::Policy(args::policy::Policy::List) => policy::list(global, output),
        Command::Policy(args::policy::Policy::Rename { old, new }) => {
            policy::rename(global, &old, &new, through, output)
        }
        Command::Policy(args::policy::Policy::Delete { name, with_points }) => {
            policy::delete(global, &name, with_points, through, output)
        }
        Command::Backup(args) if args.dry_run => preview::backup(global, &args, through, output),
        Command::Backup(args) => match through {
            Some(through) => through::backup(through, global, &args, output),
            None => backup::run(global, &args, output),
        },
        Command::Points(args) => points::run(global, &args, output),
        Command::Stats(args) => stats::run(global, &args, output),
        Command::Point(args) => point::run(global, args, through, output),
        Command::Removal(args) => removal::run(global, args, through, output),
        Command::Role(args) => role::run(global, args, through, output),
        Command::Log(args) => entries::run(global, &args, output),
        Command::Retention(args::retention::Retention::Run(args)) => {
            retention::run(global, &args, through, output)
        }
        Command::Retention(args::retention::Retention::Simulate(args)) => retention::simulate(&args, output),
        Command::Gc(args) => gc::run(global, &args, through, output),
        Command::Ls(args) => browse::ls(global, &args, output),
        Command::Stat(args) => browse::stat(global, &args, output),
        Command::Find(args) => browse::find(global, &args, output),
        Command::Cat(args) => browse::cat(global, &args, output),
        Command::History(args) => history::run(global, &args, output),
        Command::Mount(args) => mount::run(global, &args, output),
        Command::Table(args) => table::run(global, &args, output),
        Command::Restore(args) => restore::run(global, &args, output),
        Command::Check(args) => check::run(global, &args, output),
        Command::Pki(args::pki::Pki::Init(args)) => pki::init(&args, output),
        Command::Pki(args::pki::Pki::Issue(args)) => pki::issue(&args, output),
        Command::Pki(args::pki::Pki::Client(args)) => pki::client(&args, output),
        Command::Volume(args::Volume::Info { device, reader }) => {
            volume::info(global, &device, reader, output)
        }
        Command::Volume(args::Volume::Verify(args)) => verify::run(global, &args, output),
        Command::Volume(args::Volume::Check { device, reader }) => {
            volume::check(global, &device, reader, output)
        }
        Command::Agent(args) => node::run(global, &args.board),
        Command::Status(args) => status::run(global, &args, output),
        Command::Coordinator(args::Coordinator::Move { node }) => {
            status::move_coordinator(global, node, output)
        }
        Command::Flush => status::flush(global, output),
        Command::Stop { name } => status::stop(global, &name, output),
        Command::Commands => commands::run(output),
        Command::Console(args) => console::run(global, &args, output),
        Command::Support(args) => support::run(global, &args, output),
        Command::Completions(args) => shell::completions(args.shell, output),
        Command::Board(args::Board::Check(args)) => board::check(global, &args.file, output),
        Command::Board(args::Board::New(args)) => board::new(&args.name, output),
        Command::Board(args::Board::Explain(args)) => board::explain(&args.file, output),
    }
}
