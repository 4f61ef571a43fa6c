//! Random bytes: from the kernel for keys and identities; from a seed in the simulator (`sim::prng`).
//!
//! Invariants
//! - [`SystemEntropy`] is fit for keys. A failure is reported; no weaker source takes its place.
//!
//! Does not: buffer, or derive.
//!
//! Source: getrandom(2).

use std::fmt;

use nix::errno::Errno;

use crate::linux::sys;

/// The kernel gave no random bytes (a kernel before 3.17, or a seccomp filter).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntropyFault {
    /// The system's error number.
    pub errno: i32,
}

impl fmt::Display for EntropyFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no random bytes from the kernel ({})", Errno::from_raw(self.errno).desc())
    }
}

impl std::error::Error for EntropyFault {}

/// A source of random bytes.
pub trait Entropy: Send {
    /// Fills `out`. On a fault its contents are undefined and must not be used.
    fn fill(&mut self, out: &mut [u8]) -> Result<(), EntropyFault>;
}

/// The kernel's generator.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemEntropy;

impl Entropy for SystemEntropy {
    fn fill(&mut self, out: &mut [u8]) -> Result<(), EntropyFault> {
        sys::random(out).map_err(|errno| EntropyFault { errno: errno as i32 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_fills_differ_and_reach_the_end() {
        let (mut a, mut b) = ([0; 1000], [0; 1000]);
        SystemEntropy.fill(&mut a).unwrap();
        SystemEntropy.fill(&mut b).unwrap();
        assert_ne!(a, b);
        assert!(a[900..].iter().any(|&x| x != 0));
    }
}
