//! Threads that ask the store for the commit log: beats, claims and commits never wait behind bulk uploads, nor behind each other.
//!
//! Each call is performed once; the node's machines decide what is repeated (commit-log C2). Source: architecture section 3.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};

use windlass_agent::log::call::{Call, perform};
use windlass_agent::node::{Event, Ticket};
use windlass_agent::store::Store;

use super::post::Post;
use crate::failure::Failure;

/// Threads: a beat, a commit and a read of the log at once, and one to spare for housekeeping.
const THREADS: usize = 4;
/// Stack of each, in bytes: TLS and HTTP, as in the uplink's.
const STACK_BYTES: usize = 512 << 10;

/// The reactor's end. The threads end when it is dropped, each after its call.
pub struct Calls {
    ask: Sender<(Ticket, Call)>,
}

impl Calls {
    /// Starts the threads.
    pub fn start(store: &Arc<dyn Store>, post: &Post) -> Result<Calls, Failure> {
        let (ask, asked) = channel();
        let asked = Arc::new(Mutex::new(asked));
        for number in 0..THREADS {
            let (asked, store, post) = (Arc::clone(&asked), Arc::clone(store), post.clone());
            std::thread::Builder::new()
                .name(format!("log-{number}"))
                .stack_size(STACK_BYTES)
                .spawn(move || serve(&asked, &*store, &post))
                .map_err(|error| Failure::at("cannot start a thread", error))?;
        }
        Ok(Calls { ask })
    }

    /// Performs a call; its answer comes by post. The machines keep a bounded number of calls open.
    pub fn submit(&self, ticket: Ticket, call: Call) {
        // The threads live as long as this end does.
        let _ = self.ask.send((ticket, call));
    }
}

fn serve(asked: &Mutex<Receiver<(Ticket, Call)>>, store: &dyn Store, post: &Post) {
    loop {
        let next = asked.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok((ticket, call)) = next else { return };
        let (answer, fault) = perform(store, &call);
        if let Some(fault) = fault {
            log::debug!("log: {fault}");
        }
        post.event(Event::Answered(ticket, answer));
    }
}
