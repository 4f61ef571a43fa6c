//! One session of a console: the loop between a line, the shell and the command that runs.
//!
//! ```text
//!  poll: the line has bytes, takes bytes; the command printed something; time
//! ```
//!
//! Invariants: nothing here waits for anything but `poll`; what the line does not take for [`STUCK_MS`] is dropped and counted. A session that
//! ends interrupts the command that runs. Source: poll(2).

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use windlass_agent::console::shell::{Action, Config, Shell};
use windlass_hal::serial::{Heard, READ_BYTES, Tty};

use super::Options;
use super::child::{self, Child};
use super::follow::Follower;
use super::send::{Collect, Sending};
use crate::engine::host::HostClock;
use crate::failure::Failure;

/// For how long a line may take nothing, in milliseconds: somebody pressed Ctrl-S and left, or the terminal is off.
const STUCK_MS: u64 = 30_000;
/// Between two looks at the clock and the log, in milliseconds.
const TURN_MS: u16 = 250;
/// Bytes written at once: a terminal of the process may wait for the last ones.
const WRITE_BYTES: usize = 256;

/// How a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// Every command ended well.
    Done,
    /// One did not.
    Failed,
}

enum Task {
    Child(Box<Child>),
    /// Text of the console's own, how much of it was taken, and the exit code behind it; or a bundle to be sent behind it.
    Text(String, usize, u8, Option<Box<Sending>>),
    /// A bundle is made.
    Collect(Box<Collect>),
    /// The line belongs to a transfer.
    Send(Box<Sending>),
}

/// See the module.
pub struct Seat<'a> {
    tty: Tty,
    shell: Box<Shell>,
    options: &'a Options,
    follower: &'a mut Follower,
    task: Option<Task>,
    /// Nothing more comes from the line.
    ended: bool,
    left: Option<Left>,
    /// When the line took something last.
    moved_ms: u64,
    /// It took nothing for too long.
    is_stuck: bool,
}

fn now_ms() -> u64 {
    HostClock.boot_ns() / 1_000_000
}

impl<'a> Seat<'a> {
    /// Over a line.
    pub fn new(tty: Tty, config: &Config<'_>, options: &'a Options, follower: &'a mut Follower) -> Seat<'a> {
        let shell = Box::new(Shell::new(config));
        let (task, left) = (None, None);
        Seat { tty, shell, options, follower, task, ended: false, left, moved_ms: now_ms(), is_stuck: false }
    }

    /// Says who this is.
    pub fn say(&mut self, line: &str) {
        self.shell.say(line, now_ms());
    }

    /// Until the person leaves or the line hangs up.
    ///
    /// # Errors
    /// The line fails.
    pub fn serve(mut self) -> Result<Left, Failure> {
        let failed = |error: std::io::Error| Failure::at("the line", error);
        self.shell.turn(now_ms());
        loop {
            self.write().map_err(failed)?;
            if let Some(left) = self.left {
                return Ok(left);
            }
            self.wait();
            self.read().map_err(failed)?;
            self.act();
            if matches!(self.task, Some(Task::Send(_))) {
                // Nothing else goes over the line meanwhile.
                continue;
            }
            while let Some(line) = self.follower.next_line() {
                self.shell.log(line, now_ms());
            }
            self.shell.turn(now_ms());
        }
    }

    fn wait(&self) {
        let mut polled = Vec::with_capacity(3);
        if !self.ended {
            polled.push(PollFd::new(self.tty.input(), PollFlags::POLLIN));
        }
        let sends = matches!(&self.task, Some(Task::Send(sending)) if !sending.output().is_empty());
        if sends || !self.shell.output().is_empty() {
            polled.push(PollFd::new(self.tty.output(), PollFlags::POLLOUT));
        }
        if let Some(Task::Collect(collect)) = &self.task {
            polled.push(PollFd::new(collect.pipe(), PollFlags::POLLIN));
        }
        if let Some(Task::Child(child)) = &self.task
            && let Some(pipe) = child.pipe()
        {
            polled.push(PollFd::new(pipe, PollFlags::POLLIN));
        }
        // A failure is a signal, which the next turn looks for.
        let _ = poll(&mut polled, PollTimeout::from(TURN_MS));
    }

    fn write(&mut self) -> std::io::Result<()> {
        loop {
            let of_shell = !self.shell.output().is_empty();
            let output = match &self.task {
                Some(Task::Send(sending)) if !of_shell => sending.output(),
                _ => self.shell.output(),
            };
            if output.is_empty() {
                self.moved_ms = now_ms();
                return Ok(());
            }
            let mut polled = [PollFd::new(self.tty.output(), PollFlags::POLLOUT)];
            let ready = poll(&mut polled, PollTimeout::ZERO).is_ok_and(|count| count > 0);
            let part = output[..output.len().min(WRITE_BYTES)].to_vec();
            let count = if ready { self.tty.write(&part)? } else { 0 };
            if count == 0 {
                if now_ms().saturating_sub(self.moved_ms) > STUCK_MS {
                    self.moved_ms = now_ms();
                    self.is_stuck = true;
                    if of_shell {
                        self.shell.give_up();
                    }
                }
                return Ok(());
            }
            (self.moved_ms, self.is_stuck) = (now_ms(), false);
            match &mut self.task {
                Some(Task::Send(sending)) if !of_shell => sending.sent(count, now_ms()),
                _ => self.shell.sent(count, now_ms()),
            }
        }
    }

    fn read(&mut self) -> std::io::Result<()> {
        if self.ended {
            return Ok(());
        }
        let mut polled = [PollFd::new(self.tty.input(), PollFlags::POLLIN)];
        if !poll(&mut polled, PollTimeout::ZERO).is_ok_and(|count| count > 0) {
            return Ok(());
        }
        let mut bytes = [0; READ_BYTES];
        match self.tty.read(&mut bytes)? {
            Heard::Bytes(count) => match &mut self.task {
                Some(Task::Send(sending)) => sending.feed(&bytes[..count], now_ms()),
                _ => self.shell.feed(&bytes[..count], now_ms()),
            },
            Heard::Nothing => {}
            Heard::Break => {
                if let Some(Task::Send(sending)) = &mut self.task {
                    sending.cancel();
                }
                self.shell.reset(now_ms());
            }
            Heard::HungUp if self.tty.is_terminal() => self.leave(),
            Heard::HungUp => self.ended = true,
        }
        Ok(())
    }

    /// Carries out what the shell wants, and moves what a command prints.
    fn act(&mut self) {
        loop {
            self.go_on();
            let Some(action) = self.shell.next_action() else { break };
            match action {
                Action::Run => match Child::start(self.shell.call().words(), &self.options.words) {
                    Ok(child) => self.task = Some(Task::Child(Box::new(child))),
                    Err(failure) => self.task = Some(Task::Text(format!("{failure}\n"), 0, 1, None)),
                },
                Action::Own("send") => match Collect::start(&self.options.words) {
                    Ok(collect) => self.task = Some(Task::Collect(Box::new(collect))),
                    Err(failure) => self.task = Some(Task::Text(format!("{failure}\n"), 0, 1, None)),
                },
                Action::Own(_) => self.task = Some(Task::Text(self.follower.text(), 0, 0, None)),
                Action::Interrupt => match &mut self.task {
                    Some(Task::Child(child)) => child.interrupt(),
                    Some(Task::Collect(collect)) => collect.stop(),
                    Some(Task::Text(..) | Task::Send(_)) | None => {}
                },
                Action::Close => self.leave(),
            }
        }
        // A script may end before its last command does.
        if self.ended && self.task.is_none() && self.shell.is_idle() {
            self.leave();
        }
    }

    /// Goes on with what is under way.
    fn go_on(&mut self) {
        let (shell, now) = (&mut *self.shell, now_ms());
        let code = match &mut self.task {
            Some(Task::Child(child)) => child.turn(shell, now),
            Some(Task::Text(text, at, code, sending)) => {
                *at += shell.reply(&text.as_bytes()[*at..], now);
                let code = (*at == text.len()).then_some(*code);
                if code.is_some()
                    && let Some(sending) = sending.take()
                {
                    self.task = Some(Task::Send(sending));
                    return;
                }
                code
            }
            Some(Task::Collect(collect)) => match collect.turn() {
                Some(Ok(file)) => {
                    let sending = Box::new(Sending::new(file, now));
                    self.task = Some(Task::Text(sending.instruction(), 0, 0, Some(sending)));
                    return self.go_on();
                }
                Some(Err(why)) => {
                    self.task = Some(Task::Text(format!("{why}\n"), 0, 1, None));
                    return self.go_on();
                }
                None => None,
            },
            Some(Task::Send(sending)) => match sending.turn(now, self.is_stuck) {
                Some((text, code)) => {
                    self.task = Some(Task::Text(text, 0, code, None));
                    return self.go_on();
                }
                None => None,
            },
            None => None,
        };
        if let Some(code) = code {
            self.task = None;
            self.shell.done(code, now);
        }
    }

    fn leave(&mut self) {
        self.left = Some(if self.shell.has_failed() { Left::Failed } else { Left::Done });
    }
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        match self.task.take() {
            Some(Task::Child(child)) => child::let_go(child),
            Some(Task::Collect(mut collect)) => collect.stop(),
            Some(Task::Text(..) | Task::Send(_)) | None => {}
        }
    }
}
