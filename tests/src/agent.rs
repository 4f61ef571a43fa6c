//! An agent that is none: the control socket of a real one, with answers that a test writes.
//!
//! It runs the product's own server on a thread, so that what is tested is the protocol, the socket and the commands.
//! Source: ours.
#![allow(clippy::expect_used, reason = "a harness that cannot start has nothing to test")]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use windlass_board::control::server::{ClientId, Served, Server};
use windlass_board::control::wire::{Answer, Request};
use windlass_hal::clock::{Clock, SystemClock};

/// How often the sockets are looked at.
const TURN: Duration = Duration::from_millis(5);

/// Stops when dropped.
pub struct FakeAgent {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    path: PathBuf,
}

impl FakeAgent {
    /// Listens at `path` and answers with `answer`; `None` hangs up without an answer.
    pub fn start(
        path: &Path,
        mut answer: impl FnMut(&Request) -> Option<Answer> + Send + 'static,
    ) -> FakeAgent {
        let mut server = Server::open(path).expect("the socket is free");
        let stop = Arc::new(AtomicBool::new(false));
        let asked = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut clients: Vec<ClientId> = Vec::new();
            while !asked.load(Ordering::Relaxed) {
                while let Some(client) = server.accept(SystemClock.now().as_ns()) {
                    clients.push(client);
                }
                clients.retain(|&client| serve(&mut server, client, &mut answer));
                SystemClock.sleep(TURN);
            }
        });
        FakeAgent { stop, thread: Some(thread), path: path.to_owned() }
    }

    /// Where it listens.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

fn serve(server: &mut Server, client: ClientId, answer: &mut impl FnMut(&Request) -> Option<Answer>) -> bool {
    loop {
        match server.serve(client, SystemClock.now().as_ns()) {
            Served::Request(request) => match answer(&request) {
                Some(answer) => server.answer(client, &answer),
                None => break,
            },
            Served::Waiting => return true,
            Served::Over => break,
        }
    }
    server.close(client);
    false
}

impl Drop for FakeAgent {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
