//! Readiness of descriptors: a thin wrapper over mio with borrowed descriptors and a waker for other threads.
//!
//! Invariants
//! - Edge-triggered: a descriptor is reported when it becomes ready, once. The caller then drains it (reads,
//!   writes, accepts or completes until nothing is left). Readiness is a hint and may be false.
//! - A descriptor is named by the caller's token; [`WAKER_TOKEN`] is the waker's.
//!
//! Does not: own descriptors, keep timers, or dispatch.
//!
//! Source: mio, epoll(7).

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Events, Interest, Token};

/// The token that [`Poll::wait`] reports after a [`Waker::wake`].
pub const WAKER_TOKEN: usize = usize::MAX - 1;

/// A set of descriptors to wait for.
#[derive(Debug)]
pub struct Poll {
    poll: mio::Poll,
    events: Events,
    waker: Waker,
}

/// Wakes a [`Poll`] from any thread. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Waker {
    inner: Arc<mio::Waker>,
}

impl Waker {
    /// Makes the poll return, now or at its next wait. Wakes that come together are one. A failure means that the counter is
    /// full, which is a wake already.
    pub fn wake(&self) {
        if let Err(error) = self.inner.wake() {
            log::debug!("poll: waker error={error}");
        }
    }
}

/// Adds descriptors to a [`Poll`] and takes them out, from where the poll itself is not at hand.
#[derive(Debug)]
pub struct Registrar {
    registry: mio::Registry,
}

impl Registrar {
    /// Watches `fd` for reading and writing. The caller removes it before it closes the descriptor.
    pub fn add_both(&self, fd: BorrowedFd<'_>, token: usize) -> io::Result<()> {
        register(&self.registry, fd, token, Interest::READABLE | Interest::WRITABLE)
    }

    /// Stops watching `fd`.
    pub fn remove(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        self.registry.deregister(&mut SourceFd(&fd.as_raw_fd()))
    }
}

fn register(
    registry: &mio::Registry,
    fd: BorrowedFd<'_>,
    token: usize,
    interest: Interest,
) -> io::Result<()> {
    if token == WAKER_TOKEN {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    registry.register(&mut SourceFd(&fd.as_raw_fd()), Token(token), interest)
}

impl Poll {
    /// Makes one that reports up to `events_max` descriptors in one wait. Allocates.
    pub fn new(events_max: usize) -> io::Result<Poll> {
        let poll = mio::Poll::new()?;
        let waker = Waker { inner: Arc::new(mio::Waker::new(poll.registry(), Token(WAKER_TOKEN))?) };
        Ok(Poll { poll, events: Events::with_capacity(events_max), waker })
    }

    /// A handle that wakes this poll.
    pub fn waker(&self) -> Waker {
        self.waker.clone()
    }

    /// Watches `fd` for reading. The caller removes it before it closes the descriptor. One that is ready already is
    /// reported at the next wait.
    pub fn add(&mut self, fd: BorrowedFd<'_>, token: usize) -> io::Result<()> {
        register(self.poll.registry(), fd, token, Interest::READABLE)
    }

    /// Watches `fd` for reading and writing.
    pub fn add_both(&mut self, fd: BorrowedFd<'_>, token: usize) -> io::Result<()> {
        register(self.poll.registry(), fd, token, Interest::READABLE | Interest::WRITABLE)
    }

    /// A handle that adds and removes descriptors.
    pub fn registrar(&self) -> io::Result<Registrar> {
        Ok(Registrar { registry: self.poll.registry().try_clone()? })
    }

    /// Stops watching `fd`.
    pub fn remove(&mut self, fd: BorrowedFd<'_>) -> io::Result<()> {
        self.poll.registry().deregister(&mut SourceFd(&fd.as_raw_fd()))
    }

    /// Waits until a descriptor is ready, a waker wakes, or `timeout` passes (`None`: for ever); replaces `ready` by the
    /// tokens. A signal ends the wait with no token, and so does io_uring when it completes work of this thread: the caller
    /// then looks at its rings as after any other wake.
    pub fn wait(&mut self, timeout: Option<Duration>, ready: &mut Vec<usize>) -> io::Result<()> {
        ready.clear();
        match self.poll.poll(&mut self.events, timeout) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            Err(error) => return Err(error),
        }
        ready.extend(self.events.iter().map(|e| e.token().0));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_waker_wakes_from_another_thread_and_a_timeout_brings_nothing() {
        let mut poll = Poll::new(4).unwrap();
        let mut ready = vec![1];
        poll.wait(Some(Duration::ZERO), &mut ready).unwrap();
        assert!(ready.is_empty());
        let waker = poll.waker();
        std::thread::spawn(move || waker.wake()).join().unwrap();
        poll.wait(None, &mut ready).unwrap();
        assert_eq!(ready, [WAKER_TOKEN]);
    }

    #[test]
    fn the_wakers_token_is_refused() {
        let mut poll = Poll::new(4).unwrap();
        let (reader, _writer) = io::pipe().unwrap();
        let fd = std::os::fd::AsFd::as_fd(&reader);
        assert!(poll.add(fd, WAKER_TOKEN).is_err());
        poll.add(fd, 3).unwrap();
        poll.remove(fd).unwrap();
    }
}
