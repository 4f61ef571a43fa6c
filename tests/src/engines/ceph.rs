//! A real S3 engine: Ceph's gateway over an in-memory OSD, two gateways on loopback, started by `tests/engines/ceph-rgw.sh`.
//!
//! Starting takes about half a minute. `WINDLASS_RGW` may name running gateways instead ("http://a http://b", keys AK / SK).
//! Source: ours; docs.ceph.com, "Manual deployment".

use std::net::TcpListener;
use std::path::Path;
use std::process::Command;

use super::s3::S3Engine;
use super::scratch::Scratch;
use crate::turn::{CEPH, Turn};

/// Two gateways of one zone; those that we started end when dropped.
pub struct Ceph {
    /// The first gateway.
    pub a: S3Engine,
    /// The second one.
    pub b: S3Engine,
    started: Option<(Scratch, Turn)>,
}

impl Ceph {
    /// Starts them, or says why not.
    ///
    /// # Errors
    /// The reason, for a skip.
    pub fn start() -> Result<Ceph, String> {
        if let Ok(running) = std::env::var("WINDLASS_RGW") {
            return Ceph::from_endpoints(&running, None);
        }
        for program in ["ceph-mon", "ceph-osd", "ceph-mgr", "radosgw", "radosgw-admin"] {
            if !Path::new("/usr/bin").join(program).exists() {
                return Err(format!("no {program} here"));
            }
        }
        let (scratch, turn) = (Scratch::new("ceph"), CEPH.take());
        let port = free_range().ok_or("no free range of ports")?;
        let output = Command::new("bash")
            .arg(script())
            .arg("up")
            .arg(scratch.path())
            .arg(port.to_string())
            .output()
            .map_err(|e| e.to_string())?;
        if !output.status.success() {
            stop(scratch.path());
            return Err(String::from_utf8_lossy(&output.stderr).into_owned());
        }
        Ceph::from_endpoints(&String::from_utf8_lossy(&output.stdout), Some((scratch, turn)))
    }

    fn from_endpoints(text: &str, started: Option<(Scratch, Turn)>) -> Result<Ceph, String> {
        let mut endpoints = text.split_whitespace();
        let (Some(a), Some(b)) = (endpoints.next(), endpoints.next()) else {
            return Err(format!("two endpoints expected, not {text:?}"));
        };
        let engine = |endpoint: &str| S3Engine::new(endpoint.to_owned(), "AK", "SK");
        Ok(Ceph { a: engine(a), b: engine(b), started })
    }
}

impl Drop for Ceph {
    fn drop(&mut self) {
        if let Some((scratch, _turn)) = &self.started {
            stop(scratch.path());
        }
    }
}

/// First port of a range that looks free, below those that the system gives to outgoing connections: the daemons bind some
/// of theirs late, and a connection of another test must not sit there by then.
fn free_range() -> Option<u16> {
    let start = std::process::id() as u16 % 50;
    (0..50)
        .map(|n| 12_000 + (start + n) % 50 * 400)
        .find(|base| [0, 1, 100, 101, 200].iter().all(|n| TcpListener::bind(("127.0.0.1", base + n)).is_ok()))
}

fn script() -> String {
    concat!(env!("CARGO_MANIFEST_DIR"), "/engines/ceph-rgw.sh").to_owned()
}

fn stop(path: &Path) {
    let _ = Command::new("bash").arg(script()).arg("down").arg(path).output();
}
