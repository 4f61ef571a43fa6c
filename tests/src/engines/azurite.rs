//! Azurite, Microsoft's emulator of Azure Blob storage, in memory on a free port of loopback. Needs `azurite-blob` in the path:
//! `npm install azurite@3.37.0`. Source: its README.
#![allow(clippy::disallowed_methods, reason = "waits for a server to come up")]
#![allow(clippy::expect_used, reason = "a harness: a broken engine ends the test")]

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use windlass_agent::store::azure::sign::{self, Canonical};
use windlass_agent::store::azure::{AzureSettings, AzureStore, VERSION};
use windlass_agent::store::http::Timeouts;
use windlass_agent::store::keyring::CredentialSource;
use windlass_agent::store::throttle::Throttle;
use windlass_hal::clock::{Clock, SystemClock};

use super::free_port;
use super::scratch::Scratch;

/// The account that every Azurite has.
pub const ACCOUNT: &str = "devstoreaccount1";
/// Its key, which is public.
pub const KEY: &str =
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

/// A running server; ends when dropped.
pub struct Azurite {
    /// `http://127.0.0.1:port`.
    pub endpoint: String,
    scratch: Scratch,
    child: Child,
}

impl Azurite {
    /// Starts it, or says why not.
    ///
    /// # Errors
    /// The reason, for a skip.
    pub fn start() -> Result<Azurite, String> {
        let port = free_port().map_err(|e| e.to_string())?;
        let scratch = Scratch::new("azurite");
        let child = Command::new("azurite-blob")
            .args(["--blobHost", "127.0.0.1", "--blobPort", &port.to_string()])
            .args(["--inMemoryPersistence", "--disableTelemetry", "--silent"])
            .current_dir(scratch.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|e| format!("azurite-blob: {e}"))?;
        let mut azurite = Azurite { endpoint: format!("http://127.0.0.1:{port}"), scratch, child };
        for _ in 0..600 {
            if TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok() {
                return Ok(azurite);
            }
            if let Ok(Some(status)) = azurite.child.try_wait() {
                return Err(format!("azurite-blob ended: {status}"));
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        Err("azurite-blob did not answer within 60 s".to_owned())
    }

    /// A credentials file with this line in it.
    pub fn keys_file(&self, name: &str, line: &str) -> PathBuf {
        let path = self.scratch.path().join(name);
        fs::write(&path, format!("[default]\n{line}\n")).expect("a keys file");
        path
    }

    /// A credentials file with the account's key.
    pub fn credentials(&self) -> PathBuf {
        self.keys_file("keys", &format!("azure_storage_key = {KEY}"))
    }

    /// A store below `container/te.st/prefix`, with the credentials in a file.
    pub fn store_with(&self, container: &str, credentials: PathBuf, clock: Arc<dyn Clock>) -> AzureStore {
        let settings = AzureSettings {
            endpoint: Some(self.endpoint.clone()),
            credentials: CredentialSource::File { path: credentials, profile: "default".into() },
            timeouts: Timeouts { connect_ms: 5_000, answer_ms: 30_000, body_bytes_s_min: 64 * 1024 },
            ..AzureSettings::default()
        };
        let throttle = Arc::new(Throttle::new(Arc::clone(&clock), 0, 0));
        let place = format!("{ACCOUNT}/{container}/te.st/prefix");
        AzureStore::open(&place, &settings, clock, throttle).expect("a store")
    }

    /// A store that works.
    pub fn store(&self, container: &str) -> AzureStore {
        self.store_with(container, self.credentials(), Arc::new(SystemClock))
    }

    /// Makes a container.
    pub fn make_container(&self, container: &str) {
        let path = format!("/{ACCOUNT}/{container}");
        let made = self.request("PUT", &path, &[("restype", "container")], &[]);
        assert!(made.starts_with("HTTP/1.1 201"), "making {container}: {made}");
    }

    /// Puts a blob into another tier.
    pub fn set_tier(&self, container: &str, blob: &str, tier: &str) {
        let path = format!("/{ACCOUNT}/{container}/{blob}");
        let set = self.request("PUT", &path, &[("comp", "tier")], &[("x-ms-access-tier", tier)]);
        assert!(set.starts_with("HTTP/1.1 20"), "tier of {blob}: {set}");
    }

    /// One signed request by hand. Returns the whole answer.
    fn request(&self, method: &str, path: &str, query: &[(&str, &str)], more: &[(&str, &str)]) -> String {
        let host = self.endpoint.strip_prefix("http://").expect("plain http");
        let date =
            Command::new("date").args(["-u", "+%a, %d %b %Y %H:%M:%S GMT"]).env("LC_ALL", "C").output();
        let date = String::from_utf8_lossy(&date.expect("date").stdout).trim().to_owned();
        let mut headers = vec![("x-ms-date", date.as_str()), ("x-ms-version", VERSION)];
        headers.extend_from_slice(more);
        let resource = format!("/{ACCOUNT}{path}");
        let canonical = Canonical { method, length: 0, headers: &headers, resource: &resource, query };
        let key = decode_base64(KEY);
        let authorization = sign::authorization(&canonical, ACCOUNT, &key);
        let query: Vec<String> = query.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let mut request = format!("{method} {path}?{} HTTP/1.1\r\nHost: {host}\r\n", query.join("&"));
        for (name, value) in &headers {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        request.push_str(&format!(
            "Authorization: {authorization}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        ));
        let mut stream = TcpStream::connect(host).expect("the engine answers");
        stream.write_all(request.as_bytes()).expect("sent");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).expect("answered");
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// A shared access signature for a container, until a time such as `2030-01-01T00:00:00Z`: made with openssl, apart from our own code.
    ///
    /// # Errors
    /// The reason, for a skip.
    pub fn sas(&self, container: &str, until: &str) -> Result<String, String> {
        let text = format!("rwdlc\n\n{until}\n/blob/{ACCOUNT}/{container}\n\n\n\n{VERSION}\nc\n\n\n\n\n\n");
        let key: String = decode_base64(KEY).iter().map(|byte| format!("{byte:02x}")).collect();
        let script = "printf '%s' \"$1\" | openssl dgst -sha256 -mac HMAC -macopt hexkey:$2 -binary | base64";
        let made = Command::new("bash").args(["-c", script, "sas", &text, &key]).output();
        let made = made.map_err(|e| format!("openssl: {e}"))?;
        let signature = String::from_utf8_lossy(&made.stdout).trim().to_owned();
        if !made.status.success() || signature.is_empty() {
            return Err(format!("openssl: {}", String::from_utf8_lossy(&made.stderr)));
        }
        let encoded = signature.replace('+', "%2B").replace('/', "%2F").replace('=', "%3D");
        Ok(format!("sv={VERSION}&sr=c&sp=rwdlc&se={}&sig={encoded}", until.replace(':', "%3A")))
    }
}

impl Drop for Azurite {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn decode_base64(text: &str) -> Vec<u8> {
    let digits: Vec<char> = ('A'..='Z').chain('a'..='z').chain('0'..='9').chain(['+', '/']).collect();
    let values: Vec<u32> =
        text.chars().filter_map(|c| digits.iter().position(|d| *d == c)).map(|at| at as u32).collect();
    let mut bytes = Vec::new();
    for group in values.chunks(4) {
        let word = group.iter().fold(0, |word, value| word << 6 | value) << (6 * (4 - group.len()));
        bytes.extend_from_slice(&word.to_be_bytes()[1..group.len()]);
    }
    bytes
}
