//! A command that a console carries out: this program once more, with what it prints coming back through a pipe.
//!
//! Standard output and standard error share the pipe, so lines come in the order in which they were printed. A line that begins with CR says
//! how a command goes (`logger::progress`). The command has no terminal to ask at, and its own process group: Ctrl-C at the console's terminal
//! reaches the console alone, which sends SIGINT.
//!
//! Invariants: reading waits never; bytes that the console does not take stay here, and the command waits. Source: pipe(7).

use std::ffi::OsString;
use std::io::{ErrorKind, PipeReader, Read, pipe};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child as Process, Command, Stdio};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use windlass_agent::console::shell::Shell;

use crate::failure::Failure;
use crate::logger;

/// The program that runs, also when its file was replaced meanwhile.
pub(super) const SELF: &str = "/proc/self/exe";
/// Bytes read at once.
const READ_BYTES: usize = 1024;
/// Bytes of a line that says how a command goes; more is cut.
const PROGRESS_BYTES: usize = 160;
/// Stack of a thread that waits, in bytes.
const STACK_BYTES: usize = 64 << 10;
/// Exit code of what a signal ended, as a shell has it.
const CODE_OF_SIGNALS: i32 = 128;

/// See the module.
pub struct Child {
    process: Process,
    pipe: PipeReader,
    bytes: [u8; READ_BYTES],
    from: usize,
    to: usize,
    ended: bool,
    at_line: bool,
    progress: Option<Vec<u8>>,
}

impl Child {
    /// Starts a command.
    pub fn start<'a>(words: impl Iterator<Item = &'a str>, options: &[OsString]) -> Result<Child, Failure> {
        let failed = |error: std::io::Error| Failure::at("cannot start the command", error);
        let (pipe, writer) = pipe().map_err(failed)?;
        let mut command = Command::new(SELF);
        command.args(options).args(words);
        command.env(logger::CONSOLE_VARIABLE, "1").stdin(Stdio::null());
        command.stdout(writer.try_clone().map_err(failed)?).stderr(writer).process_group(0);
        let process = command.spawn().map_err(failed)?;
        // The writer is with the command: the pipe ends when that ends.
        drop(command);
        fcntl(&pipe, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).map_err(|errno| failed(errno.into()))?;
        let progress = None;
        Ok(Child {
            process,
            pipe,
            bytes: [0; READ_BYTES],
            from: 0,
            to: 0,
            ended: false,
            at_line: true,
            progress,
        })
    }

    /// To wait for, while there is room for what it prints.
    pub fn pipe(&self) -> Option<BorrowedFd<'_>> {
        (self.from == self.to && !self.ended).then(|| self.pipe.as_fd())
    }

    /// Asks it to end.
    pub fn interrupt(&self) {
        if let Ok(pid) = i32::try_from(self.process.id()) {
            // It may have ended by itself.
            let _ = kill(Pid::from_raw(pid), Signal::SIGINT);
        }
    }

    /// Moves what it printed to the console; its exit code once it ended and all of that was taken.
    pub fn turn(&mut self, shell: &mut Shell, now_ms: u64) -> Option<u8> {
        loop {
            if !self.give(shell, now_ms) {
                return None;
            }
            if self.ended {
                let status = self.process.wait().ok();
                let code = status.and_then(|status| {
                    use std::os::unix::process::ExitStatusExt;
                    status.code().or_else(|| status.signal().map(|signal| CODE_OF_SIGNALS + signal))
                });
                return Some(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1));
            }
            match self.pipe.read(&mut self.bytes) {
                Ok(0) => self.ended = true,
                Ok(count) => (self.from, self.to) = (0, count),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return None,
                Err(_) => self.ended = true,
            }
        }
    }

    /// Gives what was read; whether all of it was taken.
    fn give(&mut self, shell: &mut Shell, now_ms: u64) -> bool {
        while self.from < self.to {
            let rest = &self.bytes[self.from..self.to];
            let end = rest.iter().position(|&byte| byte == b'\n');
            if let Some(line) = &mut self.progress {
                let part = &rest[..end.unwrap_or(rest.len())];
                line.extend_from_slice(&part[..part.len().min(PROGRESS_BYTES - line.len())]);
                self.from += end.map_or(rest.len(), |end| end + 1);
                if end.is_some() {
                    shell.progress(&String::from_utf8_lossy(line), now_ms);
                    self.progress = None;
                }
            } else if self.at_line && rest.first() == Some(&b'\r') {
                self.progress = Some(Vec::with_capacity(PROGRESS_BYTES));
                self.from += 1;
            } else {
                let line = &rest[..end.map_or(rest.len(), |end| end + 1)];
                let taken = shell.reply(line, now_ms);
                if taken == 0 {
                    return false;
                }
                self.at_line = line[..taken].ends_with(b"\n");
                self.from += taken;
            }
        }
        true
    }
}

/// A command whose line is gone is asked to end, and waited for by a thread: the next session does not wait for it.
pub fn let_go(mut child: Box<Child>) {
    child.interrupt();
    let thread = std::thread::Builder::new().name("reaper".to_owned()).stack_size(STACK_BYTES);
    // Without a thread it stays in the table of processes until the console ends.
    let _ = thread.spawn(move || child.process.wait());
}
