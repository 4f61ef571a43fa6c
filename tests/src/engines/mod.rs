//! What tests run against: scratch directories, store servers on loopback, a server that misbehaves on purpose.
//!
//! An engine that this machine lacks skips loudly: the test prints `SKIPPED: name: reason` and passes. With
//! `WINDLASS_NO_SKIP` set it fails instead, so that a release run cannot pass by skipping.

pub mod azurite;
pub mod ceph;
pub mod certificates;
pub mod clock;
pub mod etcd;
pub mod faulty;
pub mod gcs;
pub mod link;
pub mod moto;
pub mod s3;
pub mod scratch;

pub use crate::privilege::skip;

/// A port of loopback that was free a moment ago.
pub fn free_port() -> std::io::Result<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
