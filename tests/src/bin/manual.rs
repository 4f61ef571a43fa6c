//! Writes the manual pages of the program, one for each command: what `--help` says, as `man` shows it.
//!
//!     cargo run --release -p windlass-tests --bin manual -- DIR
//!
//! Apart from the program, because what makes pages would add 88 KiB to it. Source: ours; `clap_mangen`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Command, CommandFactory};
use windlass_board::cli::args::Cli;

/// The program's name.
const NAME: &str = "windlass";

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let (Some(directory), None) = (arguments.next().map(PathBuf::from), arguments.next()) else {
        eprintln!("usage: manual DIR");
        return ExitCode::from(2);
    };
    let mut command = Cli::command();
    command.build();
    let pages = fs::create_dir_all(&directory).and_then(|()| write(&command, NAME, &directory));
    match pages {
        Ok(pages) => {
            println!("{pages} pages in {}", directory.display());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{}: {error}", directory.display());
            ExitCode::FAILURE
        }
    }
}

/// The page of a command, and those of what is below it; how many.
fn write(command: &Command, name: &str, directory: &Path) -> Result<usize, io::Error> {
    let mut pages = 1;
    for below in command.get_subcommands().filter(|below| !below.is_hide_set()) {
        pages += write(below, &format!("{name}-{}", below.get_name()), directory)?;
    }
    let mut page = Vec::new();
    clap_mangen::Man::new(command.clone()).render(&mut page)?;
    fs::write(directory.join(format!("{name}.1")), page)?;
    Ok(pages)
}
