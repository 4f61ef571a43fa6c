//! An S3 server for tests, whoever it is: its endpoint and keys, a store on it, and making a bucket.
//! Source: ours.
#![allow(clippy::expect_used, reason = "a harness: a broken engine ends the test")]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::sync::Arc;

use windlass_agent::store::s3::keys::CredentialSource;
use windlass_agent::store::s3::sign::{self, Canonical, Credentials};
use windlass_agent::store::s3::{Addressing, S3Settings, S3Store, Timeouts};
use windlass_agent::store::throttle::Throttle;
use windlass_hal::clock::{Clock, SystemClock};

use super::scratch::Scratch;

/// Where a server is and what opens it.
pub struct S3Engine {
    /// `http://127.0.0.1:port`.
    pub endpoint: String,
    access: &'static str,
    secret: &'static str,
    scratch: Scratch,
}

impl S3Engine {
    /// Of a running server.
    pub fn new(endpoint: String, access: &'static str, secret: &'static str) -> S3Engine {
        S3Engine { endpoint, access, secret, scratch: Scratch::new("s3-keys") }
    }

    /// A credentials file with this secret.
    pub fn keys_file(&self, secret: &str) -> PathBuf {
        // Messages name the file, and no secret.
        let path = self.scratch.path().join(format!("keys-{}", secret.len()));
        let text =
            format!("[default]\naws_access_key_id = {}\naws_secret_access_key = {secret}\n", self.access);
        std::fs::write(&path, text).expect("a keys file");
        path
    }

    /// A credentials file that works.
    pub fn credentials(&self) -> PathBuf {
        self.keys_file(self.secret)
    }

    /// Settings that work.
    pub fn settings(&self) -> S3Settings {
        S3Settings {
            endpoint: Some(self.endpoint.clone()),
            addressing: Addressing::Path,
            credentials: CredentialSource::File {
                path: self.keys_file(self.secret),
                profile: "default".into(),
            },
            timeouts: Timeouts { connect_ms: 5_000, answer_ms: 30_000, body_bytes_s_min: 64 * 1024 },
            connections: 8,
            ..S3Settings::default()
        }
    }

    /// A store with these settings.
    pub fn store_with(&self, bucket: &str, settings: S3Settings) -> S3Store {
        Self::open(bucket, settings, Arc::new(SystemClock))
    }

    /// A store with another clock.
    pub fn store_at(&self, bucket: &str, clock: Arc<dyn Clock>) -> S3Store {
        Self::open(bucket, self.settings(), clock)
    }

    fn open(bucket: &str, settings: S3Settings, clock: Arc<dyn Clock>) -> S3Store {
        let throttle = Arc::new(Throttle::new(Arc::clone(&clock), 0, 0));
        S3Store::open(bucket, "te.st/prefix", settings, clock, throttle).expect("a store")
    }

    /// A store that works.
    pub fn store(&self, bucket: &str) -> S3Store {
        self.store_with(bucket, self.settings())
    }

    /// Makes a bucket, with versioning when asked.
    pub fn make_bucket(&self, bucket: &str, versioning: bool) {
        let made = self.request("PUT", bucket, &[], "");
        assert!(made.starts_with("HTTP/1.1 200"), "making {bucket}: {made}");
        if versioning {
            let xml = "<VersioningConfiguration xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">\
                       <Status>Enabled</Status></VersioningConfiguration>";
            let set = self.request("PUT", bucket, &[("versioning", "")], xml);
            assert!(set.starts_with("HTTP/1.1 200"), "versioning of {bucket}: {set}");
        }
    }

    /// Deletes an empty bucket.
    pub fn remove_bucket(&self, bucket: &str) {
        let removed = self.request("DELETE", bucket, &[], "");
        assert!(removed.starts_with("HTTP/1.1 204"), "removing {bucket}: {removed}");
    }

    /// One signed request by hand, so that buckets do not need the code under test. Returns the whole answer.
    fn request(&self, method: &str, bucket: &str, query: &[(&str, &str)], body: &str) -> String {
        let host = self.endpoint.strip_prefix("http://").expect("plain http");
        let time = sign::amz_time(SystemClock.wall().secs);
        let payload = sign::sha256_hex(&[body.as_bytes()]);
        let headers = [("host", host), ("x-amz-content-sha256", &payload), ("x-amz-date", &time)];
        let (path, query) = (format!("/{bucket}"), sign::encode_query(query));
        let canonical =
            Canonical { method, path: &path, query: &query, headers: &headers, payload: &payload };
        let keys = Credentials {
            access_key_id: self.access.to_owned(),
            secret_access_key: self.secret.to_owned().into(),
            session_token: None,
        };
        let authorization = sign::authorization(&canonical, &keys, "us-east-1", &time);
        let length = body.len();
        let request = format!(
            "{method} {path}?{query} HTTP/1.1\r\nHost: {host}\r\nx-amz-content-sha256: {payload}\r\n\
             x-amz-date: {time}\r\nAuthorization: {authorization}\r\nContent-Length: {length}\r\n\
             Connection: close\r\n\r\n{body}"
        );
        let mut stream = TcpStream::connect(host).expect("the engine answers");
        stream.write_all(request.as_bytes()).expect("sent");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).expect("answered");
        String::from_utf8_lossy(&answer).into_owned()
    }
}
