//! Stores against real servers: conformance, the probe, restarts, TLS. Apart from `store`, whose short timeouts want a machine that does not
//! start a Ceph meanwhile.
//!
//! | module | what |
//! |---|---|
//! | `etcd` | etcd: restarts, members killed or frozen, TLS |
//! | `s3` | moto and Ceph's gateway |
//!
//! Source: ours.

mod etcd;
mod s3;
