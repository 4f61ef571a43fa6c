//! What threads of this process ask of the agent's reactor: commands of subjects, and what the node knows.
//!
//! ```text
//!  a thread --Wanted--> (at most WANTED_MAX wait) --> reactor --> Node
//!           <--Told--------------------------------'
//! ```
//!
//! Invariants: the reactor never waits for a thread; a thread waits for as long as it says, and what it asked for may then still be done.
//! Source: ours.

use std::fmt;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use windlass_agent::format::record::Record;
use windlass_agent::id::{Epoch, Slot};
use windlass_agent::log::state::State;
use windlass_agent::work::{Command, Reply};
use windlass_hal::linux::poll::Waker;

use super::commit::Coordinator;
use crate::failure::Failure;

/// What waits for the reactor at most: more than there are threads that ask.
const WANTED_MAX: usize = 32;
/// How long a command may take, as at the control socket: a coordinator that died is replaced within two lease times.
pub const COMMAND_PATIENCE: Duration = Duration::from_secs(90);

/// What is asked.
#[derive(Debug)]
pub enum Ask {
    /// A command of a subject.
    Command(String, Command),
    /// What the node knows; its state only if it is not as of this epoch and slot.
    Look((Epoch, Slot)),
}

/// What is told.
#[derive(Debug)]
pub enum Told {
    /// The answer to a command.
    Reply(Reply),
    /// What the node knows.
    Seen(Box<Seen>),
}

/// What a node knows.
#[derive(Debug)]
pub struct Seen {
    /// As of which epoch and slot.
    pub at: (Epoch, Slot),
    /// The log's state, if the asker has another.
    pub state: Option<Arc<State>>,
    /// It holds the lease.
    pub coordinates: bool,
    /// What waits in its queues.
    pub waits: usize,
}

/// Told once, on the reactor's thread.
pub type Tell = Box<dyn FnOnce(Told) + Send>;

/// A question, and who is told.
pub struct Wanted {
    /// What is asked.
    pub ask: Ask,
    /// Who is told.
    pub tell: Tell,
}

impl fmt::Debug for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.ask.fmt(f)
    }
}

/// The threads' end. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Desk {
    sender: SyncSender<Wanted>,
    waker: Waker,
}

/// Why nothing was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Untold {
    /// Too much waits for the reactor.
    Busy,
    /// Nothing came in time.
    Late,
}

impl Desk {
    /// Both ends of a new one; `waker` wakes the reactor.
    pub fn new(waker: Waker) -> (Desk, Receiver<Wanted>) {
        let (sender, receiver) = sync_channel(WANTED_MAX);
        (Desk { sender, waker }, receiver)
    }

    /// Asks, and waits for the answer.
    ///
    /// # Errors
    /// There is no room for the question, or no answer in time.
    pub fn ask(&self, ask: Ask, patience: Duration) -> Result<Told, Untold> {
        let (tell, told) = sync_channel(1);
        // Whoever asked may have given up.
        let tell: Tell = Box::new(move |answer| drop(tell.try_send(answer)));
        self.sender.try_send(Wanted { ask, tell }).map_err(|_| Untold::Busy)?;
        self.waker.wake();
        told.recv_timeout(patience).map_err(|_| Untold::Late)
    }

    /// Gives a command of a subject to the coordinator.
    ///
    /// # Errors
    /// As [`Desk::ask`].
    pub fn command(&self, subject: &str, command: Command, patience: Duration) -> Result<Reply, Untold> {
        match self.ask(Ask::Command(subject.to_owned(), command), patience)? {
            Told::Reply(reply) => Ok(reply),
            Told::Seen(_) => Err(Untold::Late),
        }
    }
}

/// Commits records for a subject.
pub struct Submitter<'a> {
    /// Where it asks.
    pub desk: &'a Desk,
    /// For whom.
    pub subject: &'a str,
    /// Why nothing was told, if that is why it failed.
    pub untold: Option<Untold>,
}

impl Coordinator for Submitter<'_> {
    fn submit(&mut self, records: Vec<Record>) -> Result<(), Failure> {
        match self.desk.command(self.subject, Command::Submit(records), COMMAND_PATIENCE) {
            Ok(Reply::Done(_) | Reply::Status(_)) => Ok(()),
            Ok(Reply::Refused(why)) => Err(Failure::new(why)),
            Err(untold) => {
                self.untold = Some(untold);
                Err(Failure::new("the node did not answer; whether the change was made is not known"))
            }
        }
    }
}
