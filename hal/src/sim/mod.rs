//! The simulated port: the same traits, deterministic from a seed, without a clock, a thread or a system call.
//!
//! | file | what |
//! |---|---|
//! | [`prng`] | the generator that everything here draws from |
//! | [`clock`] | a clock that moves only by a call |
//! | [`disk`] | a disk with latency, reordering, medium errors and power cuts |
//! | [`link`] | byte streams between nodes, cut anywhere, late, and broken on request |
//! | [`tree`] | a target of restores that is full, fails, is killed and loses power |
//!
//! Without the feature `sim` there is only [`prng`], which others draw from too.
//!
//! Does not: leave out faults that real hardware has. Source: ours.

#[cfg(feature = "sim")]
pub mod clock;
#[cfg(feature = "sim")]
pub mod disk;
#[cfg(feature = "sim")]
pub mod link;
pub mod prng;
#[cfg(feature = "sim")]
pub mod tree;
