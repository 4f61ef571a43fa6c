//! moto's S3 server (Python, in memory) on a free port of loopback. Needs `moto_server` in the path: pip install 'moto[server]'.
//! Source: docs.getmoto.org, "Server mode".
#![allow(clippy::disallowed_methods, reason = "waits for a server to come up")]

use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::free_port;
use super::s3::S3Engine;

/// A running server; ends when dropped.
pub struct Moto {
    /// How to reach it.
    pub s3: S3Engine,
    child: Child,
}

impl Moto {
    /// Starts it, or says why not.
    ///
    /// # Errors
    /// The reason, for a skip.
    pub fn start() -> Result<Moto, String> {
        let port = free_port().map_err(|e| e.to_string())?;
        let child = Command::new("moto_server")
            .args(["-H", "127.0.0.1", "-p", &port.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|e| format!("moto_server: {e}"))?;
        let mut moto =
            Moto { s3: S3Engine::new(format!("http://127.0.0.1:{port}"), "testing", "testing"), child };
        for _ in 0..300 {
            if TcpStream::connect(("127.0.0.1", port)).is_ok() {
                return Ok(moto);
            }
            if let Ok(Some(status)) = moto.child.try_wait() {
                return Err(format!("moto_server ended: {status}"));
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        Err("moto_server did not answer within 30 s".to_owned())
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
