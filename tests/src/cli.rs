//! The command line as a child process: arguments in, exit code and output back.
//!
//! Does not: see the environment of whoever runs the tests. Source: ours.
#![allow(clippy::expect_used, reason = "a harness that cannot start the program has nothing to test")]

use std::ffi::OsStr;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

/// A way to call the program, with options that every call gets through the environment.
#[derive(Clone, Debug)]
pub struct Cli {
    program: String,
    variables: Vec<(String, String)>,
}

/// How a call ended.
#[derive(Clone, Debug)]
pub struct Ended {
    /// The exit code; -1 when a signal ended it.
    pub code: i32,
    /// What it printed.
    pub stdout: String,
    /// What it said.
    pub stderr: String,
}

impl Cli {
    /// For the program at `program` (`env!("CARGO_BIN_EXE_windlass-under-test")`).
    pub fn new(program: &str) -> Cli {
        Cli { program: program.to_owned(), variables: Vec::new() }
    }

    /// With a repository and key file below `dir`.
    pub fn with_repository(&self, dir: &Path) -> Cli {
        let mut cli = self.clone();
        let mut put = |name: &str, value: String| cli.variables.push((name.to_owned(), value));
        put("WINDLASS_REPO", format!("file://{}", dir.join("repository").display()));
        put("WINDLASS_KEY_FILE", dir.join("key").display().to_string());
        cli
    }

    /// With an option that every call gets through the environment.
    pub fn with(mut self, name: &str, value: &str) -> Cli {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// A command with a clean environment and no input.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(arguments.iter().map(OsStr::new)).env_clear().stdin(Stdio::null());
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.env("TMPDIR", std::env::temp_dir());
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Calls it and waits.
    pub fn run(&self, arguments: &[&str]) -> Ended {
        let output = self.command(arguments).output().expect("the program starts");
        Ended {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Calls it and expects exit code 0; what it printed.
    ///
    /// # Panics
    /// On another exit code, with what the program said.
    pub fn ok(&self, arguments: &[&str]) -> String {
        let ended = self.run(arguments);
        assert_eq!(ended.code, 0, "{arguments:?}: {}", ended.stderr);
        ended.stdout
    }

    /// Calls it with `--json` and expects exit code 0; the last document.
    ///
    /// # Panics
    /// On another exit code, or when a line is not JSON.
    pub fn json(&self, arguments: &[&str]) -> Value {
        let ended = self.run(&[arguments, &["--json"]].concat());
        assert_eq!(ended.code, 0, "{arguments:?}: {}", ended.stderr);
        ended.documents().pop().expect("a document")
    }
}

impl Ended {
    /// Every line of stdout as JSON.
    ///
    /// # Panics
    /// When one is not.
    pub fn documents(&self) -> Vec<Value> {
        let parse = |line: &str| {
            serde_json::from_str(line).unwrap_or_else(|why| unreachable!("not a document: {why}: {line}"))
        };
        self.stdout.lines().map(parse).collect()
    }

    /// The one line of stderr that says what failed.
    pub fn failure(&self) -> &str {
        self.stderr.lines().find_map(|line| line.strip_prefix("windlass: ")).unwrap_or("")
    }
}
