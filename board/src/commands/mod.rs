//! The commands: from arguments to calls of the agent, and what is printed.
//!
//! | module | commands |
//! |---|---|
//! | [`repo`] | `repo init`, `probe`, `info` |
//! | [`rebuild`] | `repo rebuild` |
//! | [`policy`] | `policy set`, `show`, `list`, `remove` |
//! | [`backup`] | `backup` |
//! | [`points`] | `points`, and picking one |
//! | [`browse`] | `ls`, `stat`, `find`, `cat` |
//! | [`restore`] | `restore` |
//! | [`check`] | `check` |
//! | [`volume`] | `volume info` |
//! | [`pki`] | `pki init`, `issue` |
//! | [`verify`] | `volume verify`, and the same after a backup |
//!
//! Each returns how it ended; the line that says why is printed by the caller.

pub mod backup;
pub mod browse;
pub mod check;
pub mod pki;
pub mod points;
pub mod policy;
pub mod rebuild;
pub mod repo;
pub mod restore;
pub mod verify;
pub mod volume;

use crate::args::global::Global;
use crate::args::{self, Command};
use crate::demo;
use crate::failure::{Exit, Failure};
use crate::output::Output;

/// Runs a command.
pub fn run(global: &Global, command: Command, output: &Output) -> Result<Exit, Failure> {
    match command {
        Command::Demo(args) => demo::run(global, &args, output),
        Command::Repo(args::Repo::Init(args)) => repo::init(global, &args, output),
        Command::Repo(args::Repo::Probe) => repo::probe(global, output),
        Command::Repo(args::Repo::Info) => repo::info(global, output),
        Command::Repo(args::Repo::Rebuild) => rebuild::run(global, output),
        Command::Policy(args::Policy::Set(args)) => policy::set(global, &args, output),
        Command::Policy(args::Policy::Show { name }) => policy::show(global, &name, output),
        Command::Policy(args::Policy::List) => policy::list(global, output),
        Command::Policy(args::Policy::Remove { name }) => policy::remove(global, &name, output),
        Command::Backup(args) => backup::run(global, &args, output),
        Command::Points(args) => points::run(global, &args, output),
        Command::Ls(args) => browse::ls(global, &args, output),
        Command::Stat(args) => browse::stat(global, &args, output),
        Command::Find(args) => browse::find(global, &args, output),
        Command::Cat(args) => browse::cat(global, &args, output),
        Command::Restore(args) => restore::run(global, &args, output),
        Command::Check(args) => check::run(global, &args, output),
        Command::Pki(args::pki::Pki::Init(args)) => pki::init(&args, output),
        Command::Pki(args::pki::Pki::Issue(args)) => pki::issue(&args, output),
        Command::Volume(args::Volume::Info { device, reader }) => {
            volume::info(global, &device, reader, output)
        }
        Command::Volume(args::Volume::Verify(args)) => verify::run(global, &args, output),
        Command::Volume(args::Volume::Check { device }) => volume::check(global, &device, output),
    }
}
