//! The log lines of the agent, for a console: a thread asks for them, so that an agent which does not answer stops no console.
//!
//! Invariants: [`LINES_MAX`] lines wait at most, and as many of the past are kept; what comes then is dropped, oldest first. Source: ours.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use crate::control::client::Agent;
use crate::engine::host::HostClock;
use crate::failure::Failure;

/// Lines that are kept: three screens.
const LINES_MAX: usize = 72;
/// Between two questions.
const LOOK: Duration = Duration::from_secs(1);
/// The same while no agent answers.
const LOOK_AGAIN: Duration = Duration::from_secs(3);
/// Stack of the thread, in bytes: it reads JSON.
const STACK_BYTES: usize = 256 << 10;

/// A line, and whether it was said before the console began.
type Line = (String, bool);

/// See the module.
pub struct Follower {
    lines: Receiver<Line>,
    kept: VecDeque<String>,
}

impl Follower {
    /// Begins to ask the agent at a socket.
    pub fn start(socket: Option<&Path>) -> Result<Follower, Failure> {
        let (tell, lines) = sync_channel(LINES_MAX);
        let socket = socket.map(Path::to_owned);
        let thread = std::thread::Builder::new().name("follow".to_owned()).stack_size(STACK_BYTES);
        thread
            .spawn(move || ask(socket.as_ref(), &tell))
            .map_err(|error| Failure::at("cannot start a thread", error))?;
        Ok(Follower { lines, kept: VecDeque::with_capacity(LINES_MAX) })
    }

    /// The next line that is new.
    pub fn next_line(&mut self) -> Option<&str> {
        while let Ok((line, is_old)) = self.lines.try_recv() {
            if self.kept.len() == LINES_MAX {
                self.kept.pop_front();
            }
            self.kept.push_back(line);
            if !is_old {
                return self.kept.back().map(String::as_str);
            }
        }
        None
    }

    /// The last lines, as text.
    pub fn text(&self) -> String {
        if self.kept.is_empty() {
            return "no line is known: no agent answers, or it has said nothing\n".to_owned();
        }
        self.kept.iter().flat_map(|line| [line.as_str(), "\n"]).collect()
    }
}

fn ask(socket: Option<&PathBuf>, tell: &SyncSender<Line>) {
    let (mut after, mut is_old) = (0, true);
    loop {
        let found = Agent::find(socket.map(PathBuf::as_path)).ok().flatten();
        match found.map(|mut agent| agent.lines(after)) {
            Some(Ok((lines, last))) => {
                // An agent that was started again counts from the begin.
                let begins_again = last < after;
                after = if begins_again { 0 } else { last };
                for line in lines {
                    // A console that shows nothing now has what it needs.
                    let _ = tell.try_send((line, is_old));
                }
                is_old = false;
                HostClock.sleep(if begins_again { Duration::ZERO } else { LOOK });
            }
            Some(Err(_)) | None => HostClock.sleep(LOOK_AGAIN),
        }
    }
}
