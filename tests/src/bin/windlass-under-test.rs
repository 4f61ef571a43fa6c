//! The command line, as a program that tests of this package can start. The same code as the binary `windlass`.

use std::process::ExitCode;

fn main() -> ExitCode {
    windlass_board::run(std::env::args_os())
}
