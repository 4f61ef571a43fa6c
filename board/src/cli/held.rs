//! A hold on the tables for commands that read for long: a pin in the commit log, by the agent of this machine.
//!
//! While it is there, nothing that was retired since is deleted (`agent/doc/commit-log.md`, G1). Without an agent nothing writes it: then the
//! undelete window of the repository is what a reader has. Does not: hold points; those that expire meanwhile are still read.
//! Source: ours.

use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use windlass_agent::format::record::Record;
use windlass_agent::id::NodeId;
use windlass_agent::work::Command;

use crate::cli::args::global::Global;
use crate::cli::through::Through;
use crate::engine::host;
use crate::failure::Failure;

/// Between two refreshments: a coordinator gives a pin up after four times as long.
const REFRESH: Duration = Duration::from_secs(300);

/// A pin, for as long as it lives.
pub struct Held {
    end: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Held {
    /// Takes a pin through the agent here, before the log is read. `None` without an agent of this repository, or when it does not take it: the
    /// command goes on, within the window.
    pub fn take(global: &Global) -> Option<Held> {
        Through::find(global).ok().flatten()?;
        let pin = u64::from_le_bytes(host::random::<8>().ok()?);
        let global = global.clone();
        // A connection of its own each time: the agent may have been started again.
        let submit = move |record| match Through::find(&global)? {
            Some(mut through) => through.agent.command(Command::Submit(vec![record])).map(drop),
            None => Err(Failure::new("no agent listens")),
        };
        if let Err(why) = submit(Record::Pin { pin, node: NodeId(0) }) {
            log::warn!("hold: the agent takes no pin, the undelete window has to do why=\"{why}\"");
            return None;
        }
        let (end, ended) = channel::<()>();
        let body = move || {
            let mut counter = 0;
            while ended.recv_timeout(REFRESH) == Err(RecvTimeoutError::Timeout) {
                counter += 1;
                if let Err(why) = submit(Record::PinRefreshed { pin, counter }) {
                    log::warn!("hold: the pin was not refreshed why=\"{why}\"");
                }
            }
            if let Err(why) = submit(Record::Unpin { pin }) {
                log::warn!("hold: the pin stays until it is given up why=\"{why}\"");
            }
        };
        let thread = std::thread::Builder::new().name("hold".to_owned()).spawn(body).ok()?;
        Some(Held { end: Some(end), thread: Some(thread) })
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        drop(self.end.take());
        // It sends one more record; what panicked has ended the process already.
        self.thread.take().map(JoinHandle::join);
    }
}
