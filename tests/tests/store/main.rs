//! Stores: conformance, the probe, faults, against real servers and servers that fail on purpose.
//!
//! | module | what |
//! |---|---|
//! | `client` | repeats, the uplink's threads, the wrapper that injects faults |
//! | `dir` | a directory: races between processes, death within a PUT, full disks |
//! | `etcd` | etcd: restarts, members killed or frozen, TLS |
//! | `fault` | S3 answers that go wrong |
//! | `s3` | moto and Ceph's gateway |
//!
//! Source: ours.

mod client;
mod dir;
mod etcd;
mod fault;
mod s3;
