//! Conformance suites of the ports of `hal`, on every implementation and wrapper. Stores have theirs in `store`.
//!
//! | module | what |
//! |---|---|
//! | `block` | block devices |
//! | `serial` | serial lines, on pseudo terminals |
//! | `tree` | targets of a restore |
//! | `volume` | volume readers |
//!
//! Source: ours.

mod block;
mod serial;
mod tree;
mod volume;
