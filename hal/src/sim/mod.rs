//! The simulated port: the same traits, deterministic from a seed, without a clock, a thread or a system call.
//!
//! | file | what |
//! |---|---|
//! | [`prng`] | the generator that everything here draws from |
//! | [`clock`] | a clock that moves when it is told to |
//! | [`disk`] | a disk with latency, reordering, medium errors and power cuts |
//! | [`link`] | byte streams between nodes, cut anywhere, late, and broken on request |
//!
//! Does not: be kinder than the real thing. Source: ours.

pub mod clock;
pub mod disk;
pub mod link;
pub mod prng;
