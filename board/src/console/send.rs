//! A support bundle over the line of a console: made by a command as a process, kept in memory, sent by YMODEM.
//!
//! ```text
//!  Collect: windlass support -  --> bytes --> Send: Sender <--> line
//! ```
//!
//! Invariants: at most [`BUNDLE_BYTES_MAX`] bytes are kept, and only while they are sent. Source: ours; `agent::console::ymodem`.

use std::ffi::OsString;
use std::io::{ErrorKind, PipeReader, Read, pipe};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use windlass_agent::console::ymodem::{Sender, Transfer};
use windlass_agent::units::Human;

use super::child::SELF;
use crate::engine::host;
use crate::failure::Failure;
use crate::logger;

/// Bytes of a bundle that are sent at most: six minutes at 115,200 baud. A larger one is for `support FILE`.
pub const BUNDLE_BYTES_MAX: usize = 4 << 20;
/// The key that ends a transfer: a receiver sends none.
const CTRL_C: u8 = 3;

/// A bundle that is made.
pub struct Collect {
    process: Child,
    pipe: PipeReader,
    bytes: Vec<u8>,
}

impl Collect {
    /// Begins.
    pub fn start(options: &[OsString]) -> Result<Collect, Failure> {
        let failed = |error: std::io::Error| Failure::at("cannot start the command", error);
        let (pipe, writer) = pipe().map_err(failed)?;
        let mut command = Command::new(SELF);
        command.args(options).args(["support", "-"]).env(logger::CONSOLE_VARIABLE, "1");
        command.stdin(Stdio::null()).stdout(writer).stderr(Stdio::null()).process_group(0);
        let process = command.spawn().map_err(failed)?;
        drop(command);
        fcntl(&pipe, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).map_err(|errno| failed(errno.into()))?;
        Ok(Collect { process, pipe, bytes: Vec::new() })
    }

    /// To wait for.
    pub fn pipe(&self) -> BorrowedFd<'_> {
        self.pipe.as_fd()
    }

    /// Takes what is made; the bundle once it is whole, or why there is none.
    pub fn turn(&mut self) -> Option<Result<Vec<u8>, String>> {
        let mut part = [0; 16 << 10];
        loop {
            match self.pipe.read(&mut part) {
                Ok(0) => break,
                Ok(count) if self.bytes.len() + count > BUNDLE_BYTES_MAX => {
                    self.stop();
                    return Some(Err(format!(
                        "the bundle is larger than {} (BUNDLE_BYTES_MAX)",
                        Human(BUNDLE_BYTES_MAX as u64)
                    )));
                }
                Ok(count) => self.bytes.extend_from_slice(&part[..count]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return None,
                Err(_) => break,
            }
        }
        let done = self.process.wait().is_ok_and(|status| status.success());
        let bytes = std::mem::take(&mut self.bytes);
        Some(if done {
            Ok(bytes)
        } else {
            Err("the bundle could not be made; 'support' says why".to_owned())
        })
    }

    /// Ends it.
    pub fn stop(&mut self) {
        // It may have ended by itself; what it did is in its memory alone.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A bundle on its way.
pub struct Sending {
    sender: Sender,
    name: String,
    file: Vec<u8>,
}

impl Sending {
    /// Waits for a receiver.
    pub fn new(file: Vec<u8>, now_ms: u64) -> Sending {
        Sending { sender: Sender::new(now_ms), name: format!("windlass-{}.tar.zst", host::name()), file }
    }

    /// What a person is to do.
    pub fn instruction(&self) -> String {
        format!(
            "{}, {}: start a YMODEM receiver now (rb; in minicom Ctrl-A R); Ctrl-C ends it\n",
            self.name,
            Human(self.file.len() as u64)
        )
    }

    /// Bytes for the line.
    pub fn output(&self) -> &[u8] {
        self.sender.output()
    }

    /// So many of them are sent.
    pub fn sent(&mut self, bytes: usize, now_ms: u64) {
        self.sender.sent(bytes, now_ms);
    }

    /// Bytes from the line.
    pub fn feed(&mut self, bytes: &[u8], now_ms: u64) {
        for &byte in bytes {
            if byte == CTRL_C {
                self.sender.cancel();
            } else {
                self.sender.feed(byte, &self.name, &self.file, now_ms);
            }
        }
    }

    /// A break: no more of it.
    pub fn cancel(&mut self) {
        self.sender.cancel();
    }

    /// Time went by; how it ended, once the line has all that belongs to it, or takes no more.
    pub fn turn(&mut self, now_ms: u64, is_stuck: bool) -> Option<(String, u8)> {
        self.sender.turn(now_ms);
        let is_said = self.output().is_empty() || is_stuck;
        match self.sender.transfer() {
            Transfer::Done if is_said => Some((format!("{} bytes were sent\n", self.file.len()), 0)),
            Transfer::Failed(fault) if is_said => Some((format!("nothing was sent: {fault}\n"), 1)),
            _ => None,
        }
    }
}
