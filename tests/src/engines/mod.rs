//! What tests run against: scratch directories, store servers on loopback.
//!
//! An engine that this machine lacks skips loudly: the test prints `SKIPPED: name: reason` and passes.

pub mod scratch;
