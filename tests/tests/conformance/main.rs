//! Conformance suites of the ports of `hal`, on every implementation and wrapper. Stores have theirs in `store`.
//!
//! | module | what |
//! |---|---|
//! | `block` | block devices |
//! | `tree` | targets of a restore |
//! | `volume` | volume readers |
//!
//! Source: ours.

mod block;
mod tree;
mod volume;
