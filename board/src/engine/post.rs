//! How the agent's threads tell its reactor what has happened. Source: ours.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use windlass_agent::drive::job::Done;
use windlass_agent::id::VolumeId;
use windlass_agent::log::call::Answer;
use windlass_agent::node;
use windlass_agent::pack::proof::Proven;
use windlass_hal::linux::poll::Waker;

use crate::signal::Wish;

/// What waits for the reactor at most. Threads that have more to say wait: the reactor is never far behind.
const POST_MAX: usize = 256;

/// What the reactor is told.
#[allow(clippy::large_enum_variant, reason = "nearly all are events")]
#[derive(Debug)]
pub enum Letter {
    /// For the node.
    Event(node::Event),
    /// The store's answer to a call of the node, and what it said when that is a failure.
    Answer(node::Ticket, Answer, Option<String>),
    /// What a job did that has ended well, before the event that says so.
    Done(Box<Stretch>),
    /// A signal.
    Wish(Wish),
}

/// What was done of a stretch, for whoever shows it.
#[derive(Clone, Debug)]
pub struct Stretch {
    /// Of which volume.
    pub volume: VolumeId,
    /// Sums, items that are not whole, rows that were lost.
    pub done: Done,
    /// Frames that were opened again before they were sent.
    pub proven: Proven,
    /// Who could write to the volume when all was read, though nobody could when it was opened.
    pub in_use: Option<String>,
}

/// The threads' end. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Post {
    sender: SyncSender<Letter>,
    waker: Waker,
}

impl Post {
    /// Both ends of a new one; `waker` wakes the reactor.
    pub fn new(waker: Waker) -> (Post, Receiver<Letter>) {
        let (sender, receiver) = sync_channel(POST_MAX);
        (Post { sender, waker }, receiver)
    }

    /// Says something. When the reactor is gone the process is about to end, and nobody listens.
    pub fn send(&self, letter: Letter) {
        if self.sender.send(letter).is_ok() {
            self.waker.wake();
        }
    }

    /// Says what has happened.
    pub fn event(&self, event: node::Event) {
        self.send(Letter::Event(event));
    }
}

/// Wakes whatever loop runs a job at present. The uplink and the lanes outlive jobs, and each job has a
/// reactor of its own.
#[derive(Clone, Debug, Default)]
pub struct JobWaker(Arc<Mutex<Option<Waker>>>);

impl JobWaker {
    /// From now on this one is woken.
    pub fn set(&self, waker: Option<Waker>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = waker;
    }

    /// Wakes it, if a job runs.
    pub fn wake(&self) {
        if let Some(waker) = &*self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            waker.wake();
        }
    }

    /// The same as a function.
    pub fn as_fn(&self) -> Arc<dyn Fn() + Send + Sync> {
        let own = self.clone();
        Arc::new(move || own.wake())
    }
}
