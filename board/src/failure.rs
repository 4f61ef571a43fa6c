//! Failures as people see them: one line that says what, where, and what to do; and the exit codes.
//!
//! | code | meaning |
//! |---|---|
//! | 0 | done |
//! | 1 | failed; the line on stderr says why |
//! | 2 | the command line cannot be meant |
//! | 3 | done, but some items or volumes could not be read or restored, or two readers differ about them; each was named |
//! | 130, 143 | stopped by Ctrl-C, by SIGTERM: 128 and the signal's number |
//!
//! Source: ours.

use std::fmt;
use std::process::ExitCode;

use windlass_agent::foreign;

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Everything was done.
    Done,
    /// Nothing, or not all, was done.
    Failed,
    /// The command line cannot be meant.
    Usage,
    /// Done, but for items that were named.
    Partial,
}

impl Exit {
    /// The number.
    pub fn code(self) -> u8 {
        match self {
            Exit::Done => 0,
            Exit::Failed => 1,
            Exit::Usage => 2,
            Exit::Partial => 3,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit.code())
    }
}

/// Why a command ended early. Always one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// [`Exit::Failed`] or [`Exit::Usage`].
    pub exit: Exit,
    message: String,
}

impl Failure {
    /// What went wrong, where, and what to do, in one line; line ends within are made spaces.
    pub fn new(message: impl fmt::Display) -> Failure {
        let message = foreign::line(&message.to_string().replace(['\n', '\r'], " "));
        Failure { exit: Exit::Failed, message }
    }

    /// The same for a command line that cannot be meant.
    pub fn usage(message: impl fmt::Display) -> Failure {
        Failure { exit: Exit::Usage, ..Failure::new(message) }
    }

    /// Says where: `place: message`.
    pub fn at(place: impl fmt::Display, message: impl fmt::Display) -> Failure {
        Failure::new(format_args!("{place}: {message}"))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_one_line() {
        assert_eq!(Failure::at("/dev/sda", "gone\nreally").to_string(), "/dev/sda: gone really");
        assert_eq!(Failure::new("\x1b[2J\u{202e}x").to_string(), "\\u{1b}[2J\\u{202e}x");
        assert_eq!(Failure::usage("x").exit.code(), 2);
    }
}
