//! Stores in this process: conformance, repeats, faults, against a directory, memory, and servers that fail on purpose.
//!
//! | module | what |
//! |---|---|
//! | `client` | repeats, the uplink's threads, the wrapper that injects faults |
//! | `dir` | a directory: races between processes, death within a PUT, full disks |
//! | `fault` | S3 answers that go wrong |
//! | `foreign` | answers of Azure and Google, changed at random |
//! | `token` | access tokens of Google |
//! | `unplugged` | a directory on a disk that goes, and another one in its place |
//!
//! Real servers are in `servers`. Source: ours.

mod client;
mod dir;
mod fault;
mod foreign;
mod token;
mod unplugged;
