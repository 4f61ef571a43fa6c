//! The management API and the page, as a face: sockets, TLS, threads, and what is answered.
//!
//! ```text
//!  TCP + TLS --.              .-- quick: what the node knows ------.
//!              +-- server --> |                                    | --> answers
//!  Unix -------'   (1 thread) '-- slow: commands, log, files (3) --'
//!                                        `--> desk --> the agent's reactor
//! ```
//!
//! | module | what |
//! |---|---|
//! | [`server`] | the thread with the sockets: takes clients, closes them by rule, hands requests on |
//! | [`client`] | one client: its socket, its TLS, its [`Conn`](windlass_agent::api::conn::Conn) |
//! | [`tls`] | certificates, and who shows one |
//! | [`lanes`] | the threads that carry requests out |
//! | [`shared`] | what they share: what the node knows, counters, events, keys of requests |
//! | [`read`] | answers to questions |
//! | [`change`] | commands and changes |
//! | [`events`] | what happened, in a ring |
//! | [`keep`] | requests with a key, which are not done twice |
//! | [`page`] | the page for people |
//!
//! Invariants: off unless the profile has `[api]`; the data path and the reactor wait for nothing here; what clients may cost is bounded by
//! `windlass_agent::api::limits`. Who asks is known from a certificate of the API's CA or from the kernel, and a role of the log decides.
//! Does not: parse HTTP, or know which command a path means (`windlass_agent::api`). Source: `board/doc/api.md`.

pub mod change;
pub mod client;
pub mod events;
pub mod keep;
pub mod lanes;
pub mod page;
pub mod read;
pub mod server;
pub mod shared;
pub mod tls;

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use windlass_hal::linux::poll::Waker;

use crate::control::server::give_to;
use crate::failure::Failure;
use crate::profile::Api as Section;
use lanes::Lanes;
use server::{Listening, Server};
use shared::Shared;
use tls::Current;

/// Stack of the thread with the sockets, in bytes: TLS handshakes, and room.
const STACK_BYTES: usize = 512 << 10;

/// The API of an agent. Ends when dropped.
pub struct Api {
    stop: Arc<AtomicBool>,
    waker: Waker,
    thread: Option<JoinHandle<()>>,
}

/// Opens the sockets of a section: a path or an address that cannot be listened on is found before the agent is up.
///
/// # Errors
/// A socket cannot be opened, or a certificate cannot be used.
pub fn open(section: &Section) -> Result<(Listening, Current), Failure> {
    let current = Current::default();
    if let Some(files) = section.tls() {
        current.set(tls::config(&files)?);
    }
    Ok((Listening::open(section)?, current))
}

impl Api {
    /// Starts its threads.
    ///
    /// # Errors
    /// No thread or descriptor is left.
    pub fn start(listening: Listening, current: Current, shared: Arc<Shared>) -> Result<Api, Failure> {
        let stop = Arc::new(AtomicBool::new(false));
        let mut server = Server::new(listening, current, Arc::clone(&shared))?;
        let waker = server.waker();
        let lanes = Lanes::start(shared, server.outcomes(), waker.clone())?;
        let stopped = Arc::clone(&stop);
        let builder = std::thread::Builder::new().name("api".to_owned()).stack_size(STACK_BYTES);
        let thread = builder
            .spawn(move || server.run(&lanes, &stopped))
            .map_err(|error| Failure::at("cannot start a thread", error))?;
        Ok(Api { stop, waker, thread: Some(thread) })
    }
}

impl Drop for Api {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.waker.wake();
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has nothing left to end.
            let _ = thread.join();
        }
    }
}

/// A Unix socket that is removed when dropped.
pub struct UnixSocket {
    /// It listens.
    pub listener: UnixListener,
    path: PathBuf,
}

impl UnixSocket {
    /// Listens at a path, for root and the agent's user, and for a group where one is named. A socket that no one listens on is taken over.
    ///
    /// # Errors
    /// Another one listens there, or it is no socket.
    pub fn open(path: &Path, group: Option<&str>) -> Result<UnixSocket, Failure> {
        let failed = |error: std::io::Error| Failure::at(path.display(), error);
        if let Some(above) = path.parent() {
            fs::create_dir_all(above).map_err(|error| Failure::at(above.display(), error))?;
        }
        match UnixStream::connect(path) {
            Ok(_) => {
                return Err(Failure::at(path.display(), "something listens here already; name another path"));
            }
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
                if !fs::symlink_metadata(path).map_err(failed)?.file_type().is_socket() {
                    return Err(Failure::at(
                        path.display(),
                        "this is no socket, and is left alone; name another path",
                    ));
                }
                fs::remove_file(path).map_err(failed)?;
            }
            Err(_) => {}
        }
        let listener = UnixListener::bind(path).map_err(failed)?;
        let mode = if group.is_some() { 0o660 } else { 0o600 };
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(failed)?;
        if let Some(name) = group {
            give_to(path, name)?;
        }
        listener.set_nonblocking(true).map_err(failed)?;
        Ok(UnixSocket { listener, path: path.to_owned() })
    }
}

impl Drop for UnixSocket {
    fn drop(&mut self) {
        // One that stays is taken over by the next agent.
        let _ = fs::remove_file(&self.path);
    }
}
