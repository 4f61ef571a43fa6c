//! Stores against real servers: conformance, the probe, restarts, TLS. Apart from `store`, whose short timeouts want a machine that does not
//! start a Ceph meanwhile.
//!
//! | module | what |
//! |---|---|
//! | `azure` | Azurite |
//! | `etcd` | etcd: restarts, members killed or frozen, TLS |
//! | `gcs` | fake-gcs-server, and an emulator that must be refused |
//! | `s3` | moto and Ceph's gateway |
//!
//! Source: ours.

mod azure;
mod etcd;
mod gcs;
mod s3;
