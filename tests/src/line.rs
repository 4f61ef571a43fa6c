//! A line to a terminal, as a test holds its other end: a pseudo terminal of the kernel.
//!
//! Invariants: nothing here waits without a bound. Source: pty(7).
#![allow(clippy::expect_used, reason = "a harness that cannot start has nothing to test")]

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{OpenOptionsExt, symlink};
use std::path::Path;
use std::time::Duration;

use nix::fcntl::OFlag;
use nix::libc::O_NOCTTY;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::pty::{grantpt, posix_openpt, ptsname_r, unlockpt};
use windlass_hal::clock::{Clock, SystemClock};

/// For how long something is waited for, in nanoseconds.
const PATIENCE_NS: u64 = 60_000_000_000;

/// See the module.
#[derive(Debug)]
pub struct Line {
    master: File,
    /// Kept open, so that the line hangs up only when all of this is dropped.
    _other: File,
    /// All that came.
    pub heard: Vec<u8>,
}

impl Line {
    /// Makes one; `path` leads to it as long as it lives.
    pub fn new(path: &Path) -> Line {
        // Programs that other tests start must not have it: it hangs up when this test closes it.
        let master =
            posix_openpt(OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC).expect("pseudo terminals");
        grantpt(&master).and_then(|()| unlockpt(&master)).expect("its other end");
        let name = ptsname_r(&master).expect("it has a name");
        let other =
            File::options().read(true).write(true).custom_flags(O_NOCTTY).open(&name).expect("its other end");
        // A line that was there before is gone.
        let _ = std::fs::remove_file(path);
        symlink(name, path).expect("a link");
        Line { master: File::from(OwnedFd::from(master)), _other: other, heard: Vec::new() }
    }

    /// The other end's descriptor.
    pub fn other(&self) -> &File {
        &self._other
    }

    /// Sends bytes.
    pub fn send(&mut self, bytes: &[u8]) {
        self.master.write_all(bytes).expect("the line takes it");
    }

    /// To send from another thread.
    pub fn sender(&self) -> File {
        self.master.try_clone().expect("a descriptor")
    }

    /// Takes what comes within a moment; whether something came.
    pub fn take(&mut self) -> bool {
        let mut polled = [PollFd::new(self.master.as_fd(), PollFlags::POLLIN)];
        if !poll(&mut polled, PollTimeout::from(50_u16)).is_ok_and(|count| count > 0) {
            return false;
        }
        let mut bytes = [0; 4096];
        match self.master.read(&mut bytes) {
            Ok(count) => {
                self.heard.extend_from_slice(&bytes[..count]);
                count > 0
            }
            // Nobody has the other end open.
            Err(_) => {
                SystemClock.sleep(Duration::from_millis(10));
                false
            }
        }
    }

    /// What came, as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.heard).into_owned()
    }

    /// Waits until this came after all that was asked for before; takes it away with what was before it.
    ///
    /// # Panics
    /// When it does not come.
    pub fn expect(&mut self, what: &str) -> String {
        let until = SystemClock.now().as_ns() + PATIENCE_NS;
        loop {
            let text = self.text();
            if let Some(at) = text.find(what) {
                let before = text[..at].to_owned();
                self.heard = text.as_bytes()[at + what.len()..].to_vec();
                return before;
            }
            assert!(SystemClock.now().as_ns() < until, "{what:?} does not come: {text:?}");
            self.take();
        }
    }
}
