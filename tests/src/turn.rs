//! Turns for tests that need much of the machine: the tests of one binary run side by side on all cores, and some would not fit
//! into memory together, or would starve each other.
//!
//! A turn is taken by its holder (`Ceph`, `Cluster`) and given back when that is dropped. Whoever needs both takes Ceph's first.
//! Cargo runs one test binary after the other, so a process is all that has to agree. Source: ours.

use std::sync::{Condvar, Mutex, PoisonError};

/// Ceph: about 1 GiB with its gateways, half a minute of two cores to start.
pub static CEPH: Turns = Turns::new(1);
/// Clusters of agents as processes: up to 8 each, with leases that run out when they get no processor for seconds.
pub static CLUSTERS: Turns = Turns::new(4);

/// So many at once.
#[derive(Debug)]
pub struct Turns {
    free: Mutex<usize>,
    freed: Condvar,
}

/// One of them, until it is dropped.
#[derive(Debug)]
pub struct Turn(&'static Turns);

impl Turns {
    const fn new(count: usize) -> Turns {
        Turns { free: Mutex::new(count), freed: Condvar::new() }
    }

    /// Waits for one. A test that failed while it held one has given it back.
    #[must_use]
    pub fn take(&'static self) -> Turn {
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let wait = self.freed.wait_while(free, |free| *free == 0);
        *wait.unwrap_or_else(PoisonError::into_inner) -= 1;
        Turn(self)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        *self.0.free.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.0.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::Turns;

    #[test]
    fn no_more_at_once_than_there_are_turns() {
        static TURNS: Turns = Turns::new(2);
        let (now, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        let _turn = TURNS.take();
                        most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                        std::thread::yield_now();
                        now.fetch_sub(1, Ordering::SeqCst);
                    }
                });
            }
        });
        assert!(most.into_inner() <= 2);
    }
}
