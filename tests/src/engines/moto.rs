//! moto's S3 server (Python, in memory) on a free port of loopback, or of another address. Needs `moto_server` in the path: `pip install 'moto[server]'`.
//! Source: docs.getmoto.org, "Server mode".
#![allow(clippy::disallowed_methods, reason = "waits for a server to come up")]

use std::fs;
use std::net::{Ipv4Addr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::certificates::certificates;
use super::free_port;
use super::s3::S3Engine;
use super::scratch::Scratch;

/// Makes its conditional requests atomic, as a store's must be.
const SITE: &str = include_str!("moto_site.py");

/// A running server; ends when dropped.
pub struct Moto {
    /// How to reach it.
    pub s3: S3Engine,
    /// Where `ca.pem` is, over TLS.
    pub certificates: Option<Scratch>,
    _site: Scratch,
    child: Child,
}

impl Moto {
    /// Starts it over plain http, or says why not.
    ///
    /// # Errors
    /// The reason, for a skip.
    pub fn start() -> Result<Moto, String> {
        Moto::start_on(Ipv4Addr::LOCALHOST)
    }

    /// The same at another address of this machine.
    ///
    /// # Errors
    /// The reason, for a skip.
    pub fn start_on(host: Ipv4Addr) -> Result<Moto, String> {
        Moto::start_with("http", host, None)
    }

    /// Starts it over TLS, with a CA of its own.
    ///
    /// # Errors
    /// The reason, for a skip.
    pub fn start_tls() -> Result<Moto, String> {
        Moto::start_with("https", Ipv4Addr::LOCALHOST, Some(certificates()?))
    }

    fn start_with(scheme: &str, host: Ipv4Addr, certificates: Option<Scratch>) -> Result<Moto, String> {
        let port = free_port().map_err(|e| e.to_string())?;
        let site = Scratch::new("moto");
        fs::write(site.path().join("sitecustomize.py"), SITE).map_err(|e| e.to_string())?;
        let mut command = Command::new("moto_server");
        command.env("PYTHONPATH", site.path()).args(["-H", &host.to_string(), "-p", &port.to_string()]);
        if let Some(made) = &certificates {
            command.arg("-s").arg("-c").arg(made.path().join("cert.pem"));
            command.arg("-k").arg(made.path().join("key.pem"));
        }
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|e| format!("moto_server: {e}"))?;
        let s3 = S3Engine::new(format!("{scheme}://{host}:{port}"), "testing", "testing");
        let mut moto = Moto { s3, certificates, _site: site, child };
        for _ in 0..300 {
            if TcpStream::connect((host, port)).is_ok() {
                return Ok(moto);
            }
            if let Ok(Some(status)) = moto.child.try_wait() {
                return Err(format!("moto_server ended: {status}"));
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        Err("moto_server did not answer within 30 s".to_owned())
    }

    /// Makes a bucket over TLS, with curl: signatures are not checked here.
    ///
    /// # Errors
    /// What curl says.
    pub fn make_bucket_tls(&self, bucket: &str) -> Result<(), String> {
        let scope = "Credential=testing/20130524/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0";
        let output = Command::new("curl")
            .args(["-skf", "-X", "PUT", "-H", &format!("Authorization: AWS4-HMAC-SHA256 {scope}")])
            .arg(format!("{}/{bucket}", self.s3.endpoint))
            .output()
            .map_err(|e| format!("curl: {e}"))?;
        if output.status.success() { Ok(()) } else { Err(format!("curl: {}", output.status)) }
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
