//! Conformance: one suite for each hal trait, run on every port, so that the simulator cannot drift from the real thing.

pub mod block;
