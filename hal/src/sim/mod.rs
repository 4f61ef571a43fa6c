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
//! Does not: leave out faults that real hardware has. Source: ours.

pub mod clock;
pub mod disk;
pub mod link;
pub mod prng;
pub mod tree;
