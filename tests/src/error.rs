//! The one error of the harness: a sentence for the person who reads a failed test.
//!
//! Nothing matches on it, so it carries text only. Product code must not use it (`CONTRIBUTING.md`, Code).
//! Source: ours.

use std::fmt::{self, Display, Formatter};
use std::process::Command;

/// What went wrong, outermost cause first.
#[derive(Debug)]
pub struct Error(String);

/// What harness functions return.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An error that says `what`.
    pub fn new(what: impl Into<String>) -> Error {
        Error(what.into())
    }
}

impl Display for Error {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Error {}

/// Adds what was being done to any error.
pub trait Context<T> {
    /// Puts `what: ` in front of the cause.
    fn context<S: Display>(self, what: impl FnOnce() -> S) -> Result<T>;
}

impl<T, E: Display> Context<T> for std::result::Result<T, E> {
    fn context<S: Display>(self, what: impl FnOnce() -> S) -> Result<T> {
        self.map_err(|cause| Error(format!("{}: {cause}", what())))
    }
}

/// Runs a command to its end and returns what it printed; a failure carries its last words.
pub fn output(command: &mut Command) -> Result<Vec<u8>> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().context(|| format!("cannot start {name}"))?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    Err(Error(format!("{name}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim())))
}

#[cfg(test)]
mod tests {
    use super::{Command, output};

    #[test]
    fn a_failed_command_carries_its_last_words() {
        let failed =
            output(Command::new("sh").args(["-c", "echo no luck >&2; exit 3"])).unwrap_err().to_string();
        assert!(failed.contains("no luck") && failed.contains('3'), "{failed}");
        assert!(output(&mut Command::new("no-such-program-here")).is_err());
        assert_eq!(output(Command::new("echo").arg("fine")).unwrap(), b"fine\n");
    }
}
