//! Conformance suites: one per trait, run on every port and every store, so that none drifts.

pub mod block;
pub mod store;
pub mod tree;
pub mod volume;
