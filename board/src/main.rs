//! The binary `windlass`: see the library for everything.

use std::process::ExitCode;

fn main() -> ExitCode {
    windlass_board::run(std::env::args_os())
}
