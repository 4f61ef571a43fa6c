//! S3 and compatible servers (`s3://bucket/prefix`): single-shot requests, signed with SigV4, over ureq and rustls with ring.
//!
//! | module | what |
//! |---|---|
//! | [`sign`] | SigV4 |
//! | [`answer`] | what answers mean |
//! | [`keys`] | where credentials come from, and newer ones |
//! | [`chain`] | the usual chain of sources |
//! | [`metadata`] | credentials of a container's or an instance's role |
//! | `settings` | how a store is opened, and which settings are refused |
//! | `fit` | whether an answer that claims success fits the question |
//! | `read` | GETs of an object |
//! | `body` | streaming parts out, reading bodies in, through the throttle |
//!
//! - A PUT carries its length, `x-amz-checksum-crc32` (CRC-32 of IEEE 802.3, big-endian, base64) that the server verifies,
//!   and `If-None-Match: *` when create-only. Over TLS the payload is unsigned; over plain http its SHA-256 is signed, so
//!   that the server verifies it also where it ignores checksum headers (Ceph RGW 16 does).
//! - Bodies of at least [`EXPECT_BYTES_MIN`] ask for `100-continue`, so that a refusal is an answer and not a broken pipe.
//! - A ranged GET must answer exactly the range asked for; a body shorter than announced is `Unknown`.
//! - No redirects, no proxy from the environment, no compression, a timeout on every phase.
//!
//! Invariants: one call is one attempt (a GET of a range past the end may take a second request to learn the size, and the first one of a
//! machine whose clock is wrong a second one, signed with the server's time). Nothing
//! secret is in `describe`, in a fault or in `Debug`.
//! Does not: multipart, ACLs, storage classes, encryption headers.
//! Source: AWS S3 API reference; `agent/doc/commit-log.md`, Answers to a create.

pub mod answer;
mod body;
pub mod chain;
mod fit;
pub mod keys;
pub mod metadata;
mod read;
mod settings;
pub mod sign;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ureq::http::{HeaderMap, Request, Response};
use ureq::{Agent, AsSendBody, Body, SendBody};
use windlass_hal::clock::Clock;

use super::http::{HttpSettings, agent, read_bounded, transport_fault};
use super::throttle::Throttle;
use super::time::{Heard, StoreTime, parse_date};
use super::{
    ByteRange, LEASE_CALL_MS, PutMode, Store, StoreFault, StoreFaultKind, Versioning, body_bytes, check_key,
    check_prefix, is_metadata, is_of_lease, is_urgent,
};
use answer::{Call, ErrorBody};
use body::Parts;
use fit::Habits;
use keys::Keyring;
use settings::parse_endpoint;
use sign::{Canonical, UNSIGNED_PAYLOAD};

pub use super::http::{CA_BUNDLES, Timeouts, TlsFault};
pub use settings::{Addressing, S3OpenFault, S3Settings};

/// Bodies of at least this many bytes wait for `100 Continue` before they are sent.
pub const EXPECT_BYTES_MIN: u64 = 1 << 20;
/// Longest wait for an answer to a request without a body, and for the next bytes of that answer, in milliseconds: a store that stalls in
/// the middle of a body costs this and is asked again. As long as a repository's opening waits in all.
pub const ASKED_ANSWER_MS_MAX: u64 = 30_000;
/// How far this machine's clock may be from the server's, in seconds, until requests are signed with the server's: a third of the 15 minutes
/// from which on servers refuse them.
pub const SIGNED_APART_SECS_MAX: u64 = 300;
/// Largest LIST answer in bytes that is read: 1000 keys of 1024 bytes, thrice escaped.
pub const LIST_BODY_BYTES_MAX: u64 = 8 << 20;
/// Largest error body in bytes that is read.
pub const ERROR_BODY_BYTES_MAX: u64 = 64 * 1024;
/// Pages of one LIST at most: ten million keys. A server that never ends is not followed.
pub const LIST_PAGES_MAX: u64 = 10_000;

/// A prefix of a bucket. Shared between threads; each call uses a connection of its own from the agent's pool.
pub struct S3Store {
    agent: Agent,
    clock: Arc<dyn Clock>,
    throttle: Arc<Throttle>,
    /// For what no limit applies to.
    unlimited: Throttle,
    /// For metadata.
    first: Throttle,
    /// How long a call of the lease may take, in milliseconds.
    lease_call_ms: AtomicU64,
    keyring: Keyring,
    habits: Habits,
    heard: Heard,
    settings: S3Settings,
    region: String,
    tls: bool,
    /// `https://host[:port]` that requests go to, and the `Host` header.
    origin: String,
    host: String,
    /// Path of the bucket, encoded: `/bucket` or empty.
    bucket_path: String,
    bucket: String,
    /// Prefix of all keys: empty or ending in a slash.
    prefix: String,
}

impl S3Store {
    /// Prepares a store; nothing is sent to it yet. Where credentials are those of a role, the service that has them is asked.
    ///
    /// # Errors
    /// What is wrong with the settings.
    pub fn open(
        bucket: &str,
        prefix: &str,
        settings: S3Settings,
        clock: Arc<dyn Clock>,
        throttle: Arc<Throttle>,
    ) -> Result<S3Store, S3OpenFault> {
        let bucket_byte = |b: u8| matches!(b, b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'-' | b'_');
        if !(3..=63).contains(&bucket.len()) || !bucket.bytes().all(bucket_byte) {
            return Err(S3OpenFault::Bucket(bucket.to_owned()));
        }
        let whole = prefix.strip_suffix('/').unwrap_or(prefix);
        let component = |c: &str| !c.is_empty() && c != "." && c != ".." && c.bytes().all(bucket_byte);
        let usable = whole.len() <= super::KEY_BYTES_MAX && whole.split('/').all(component);
        if !whole.is_empty() && !usable {
            return Err(S3OpenFault::Prefix(prefix.to_owned()));
        }
        let region = settings.region.clone().unwrap_or_else(|| "us-east-1".to_owned());
        let endpoint =
            settings.endpoint.clone().unwrap_or_else(|| format!("https://s3.{region}.amazonaws.com"));
        let (tls, authority) = parse_endpoint(&endpoint).ok_or(S3OpenFault::Endpoint(endpoint.clone()))?;
        let virtual_host = match settings.addressing {
            Addressing::Path => false,
            Addressing::VirtualHost => true,
            // A dot in the bucket's name breaks the wildcard in the server's certificate.
            Addressing::Auto => settings.endpoint.is_none() && !bucket.contains('.'),
        };
        let host = if virtual_host { format!("{bucket}.{authority}") } else { authority };
        let bucket_path = if virtual_host { String::new() } else { format!("/{bucket}") };
        let keyring = Keyring::open(settings.credentials.clone(), clock.now().as_ns())
            .map_err(S3OpenFault::Credentials)?;
        let http = HttpSettings {
            timeouts: settings.timeouts,
            connections: settings.connections,
            tls,
            ca_file: settings.ca_file.as_deref(),
            client: None,
        };
        let agent = agent(&http).map_err(S3OpenFault::Tls)?;
        Ok(S3Store {
            agent,
            clock,
            unlimited: throttle.unlimited(),
            first: throttle.first(),
            lease_call_ms: AtomicU64::new(LEASE_CALL_MS),
            throttle,
            keyring,
            habits: Habits::default(),
            heard: Heard::default(),
            region,
            tls,
            origin: format!("{}://{host}", if tls { "https" } else { "http" }),
            host,
            bucket_path: sign::encode_path(&bucket_path),
            bucket: bucket.to_owned(),
            prefix: if whole.is_empty() { String::new() } else { format!("{whole}/") },
            settings,
        })
    }

    /// Sends one request and returns whatever came back; an `Err` is an answer that did not come. One that was refused unread, as this
    /// machine's clock is wrong, is signed with the server's time and sent again.
    fn send(&self, request: &Outgoing<'_>) -> Result<Response<Body>, StoreFault> {
        let secs = self.sign_secs();
        let response = self.send_at(request, secs)?;
        let (status, theirs) = (response.status().as_u16(), self.sign_secs());
        if status != 403 || theirs.abs_diff(secs) <= SIGNED_APART_SECS_MAX {
            return Ok(response);
        }
        drop(response);
        self.send_at(request, theirs)
    }

    /// The time to sign with: this machine's, or the server's when the two are so far apart that it would refuse the other one.
    fn sign_secs(&self) -> i64 {
        let ours = self.clock.wall().secs;
        let Some(StoreTime { wall_ns, at_ns }) = self.heard.last() else { return ours };
        let since = self.clock.now().as_ns().saturating_sub(at_ns);
        let theirs = wall_ns.saturating_add_unsigned(since) / 1_000_000_000;
        if ours.abs_diff(theirs) > SIGNED_APART_SECS_MAX { theirs } else { ours }
    }

    fn send_at(&self, request: &Outgoing<'_>, secs: i64) -> Result<Response<Body>, StoreFault> {
        let path = format!("{}/{}", self.bucket_path, sign::encode_path(request.object));
        let query = sign::encode_query(request.query);
        let time = sign::amz_time(secs);
        let keys = self.keyring.current(self.clock.now().as_ns(), secs, is_of_lease(request.key));
        let payload = match request.body {
            Some(_) if self.tls => UNSIGNED_PAYLOAD.to_owned(),
            Some(parts) => sign::sha256_hex(parts),
            None => sign::sha256_hex(&[]),
        };
        let mut signed = vec![
            ("host", self.host.as_str()),
            ("x-amz-content-sha256", payload.as_str()),
            ("x-amz-date", time.as_str()),
        ];
        if let Some(token) = &keys.session_token {
            signed.push(("x-amz-security-token", token.as_str()));
        }
        signed.extend_from_slice(request.headers);
        signed.sort_unstable();
        let canonical = Canonical {
            method: request.method,
            path: &path,
            query: &query,
            headers: &signed,
            payload: &payload,
        };
        let authorization = sign::authorization(&canonical, &keys, &self.region, &time);
        let separator = if query.is_empty() { "" } else { "?" };
        let mut builder = Request::builder()
            .method(request.method)
            .uri(format!("{}{path}{separator}{query}", self.origin))
            .header("authorization", authorization);
        for (name, value) in signed {
            builder = builder.header(name, value);
        }
        if let Some(body) = request.body {
            builder = builder.header("content-length", body_bytes(body));
            if body_bytes(body) >= EXPECT_BYTES_MIN {
                builder = builder.header("expect", "100-continue");
            }
        }
        match request.body {
            Some(body) => {
                let mut parts = Parts::new(body, self.limiter(request.key));
                self.run(request, builder.body(SendBody::from_reader(&mut parts)))
            }
            None => self.run(request, builder.body(SendBody::none())),
        }
    }

    fn run(
        &self,
        request: &Outgoing<'_>,
        built: Result<Request<impl AsSendBody>, ureq::http::Error>,
    ) -> Result<Response<Body>, StoreFault> {
        let built = built.map_err(|e| {
            StoreFault::new(StoreFaultKind::Rejected, request.verb, request.key, e.to_string())
        })?;
        let (up_bytes_s, down_bytes_s) = self.limiter(request.key).rates();
        let up = self.body_timeout(request.body.map_or(0, body_bytes), up_bytes_s);
        let down = self.body_timeout(request.answer_bytes_max, down_bytes_s);
        let mut configured =
            self.agent.configure_request(built).timeout_send_body(Some(up)).timeout_recv_body(Some(down));
        if request.body.is_none() {
            // Nothing is in the sockets' buffers that would have to arrive first.
            let answer = Duration::from_millis(self.settings.timeouts.answer_ms.min(ASKED_ANSWER_MS_MAX));
            configured = configured.timeout_recv_response(Some(answer)).timeout_per_read(Some(answer));
        }
        if is_of_lease(request.key) {
            let whole = Duration::from_millis(self.lease_call_ms.load(Ordering::Relaxed));
            configured = configured.timeout_global(Some(whole));
        }
        if request.afresh {
            // No connection of the pool is that young.
            configured = configured.max_idle_age(Duration::ZERO);
        }
        let configured = configured.build();
        let answered = self.agent.run(configured);
        let response = answered.map_err(|e| transport_fault(request.verb, request.key, &self.host, &e))?;
        // An answer with an age comes out of a cache in between, and its date with it.
        if let (None, Some(date)) = (header(response.headers(), "age"), header(response.headers(), "date")) {
            parse_date(date).into_iter().for_each(|secs| self.heard.hear(&*self.clock, secs, 0));
        }
        Ok(response)
    }

    fn limiter(&self, key: &str) -> &Throttle {
        match key {
            key if is_urgent(key) => &self.unlimited,
            key if is_metadata(key) => &self.first,
            _ => &self.throttle,
        }
    }

    /// Time for a body of `bytes` at the slowest rate, or at the throttle's when all connections share it.
    fn body_timeout(&self, bytes: u64, throttle_bytes_s: u64) -> Duration {
        let floor_ms = bytes.saturating_mul(1000) / self.settings.timeouts.body_bytes_s_min.max(1);
        let shared = bytes.saturating_mul(self.settings.connections.max(1) as u64);
        let throttled_ms = shared.saturating_mul(1000).checked_div(throttle_bytes_s).unwrap_or(0);
        Duration::from_millis(self.settings.timeouts.answer_ms.saturating_add(floor_ms.max(throttled_ms)))
    }

    /// Reads an unsuccessful answer's body and makes a fault of it.
    fn fault(&self, request: &Outgoing<'_>, mut response: Response<Body>) -> StoreFault {
        let mut xml = Vec::new();
        // What cannot be read of an error body is not missed: the status decides.
        let _ = read_bounded(response.body_mut(), ERROR_BODY_BYTES_MAX, &mut xml);
        let error = answer::parse_error(&xml);
        let status = response.status().as_u16();
        let kind = answer::kind(request.call, status, &error.code);
        let detail = self.detail(kind, status, &error, response.headers());
        StoreFault::new(kind, request.verb, request.key, detail)
    }

    fn detail(&self, kind: StoreFaultKind, status: u16, error: &ErrorBody, headers: &HeaderMap) -> String {
        let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("");
        let said = match (error.code.as_str(), error.message.as_str()) {
            ("", _) => format!("status {status}"),
            (code, "") => format!("status {status} {code}"),
            (code, message) => format!("status {status} {code}: {message}"),
        };
        if matches!(kind, StoreFaultKind::Denied) && error.code != "RequestTimeTooSkewed" {
            return match error.code.as_str() {
                "" => format!("{said}, and not in the way of S3: perhaps a proxy or a firewall in between"),
                _ => format!(
                    "{said}; check the credentials (from {}) and their permissions",
                    self.keyring.said()
                ),
            };
        }
        if error.code == "RequestTimeTooSkewed" {
            let ours = sign::amz_time(self.clock.wall().secs);
            return format!(
                "this machine's clock says {ours}, the server's {}: set the clock; {said}",
                header("date")
            );
        }
        let region = match error.region.as_str() {
            "" => header("x-amz-bucket-region"),
            region => region,
        };
        if !region.is_empty() && region != self.region {
            return format!("the bucket is in region {region}, not {}; {said}", self.region);
        }
        if matches!(status, 301 | 302 | 307 | 308) {
            let to = if error.endpoint.is_empty() { header("location") } else { &error.endpoint };
            return format!("the server points to {to}; redirects are not followed; {said}");
        }
        said
    }

    fn object(&self, key: &str) -> String {
        format!("{}{key}", self.prefix)
    }

    /// One page; returns whether and how to go on.
    fn page(&self, prefix: &str, query: &[(&str, &str)]) -> Result<answer::Page, StoreFault> {
        let xml = self.bucket("LIST", prefix, query)?;
        answer::parse_list(&xml).map_err(|malformed| {
            StoreFault::new(StoreFaultKind::Unknown, "LIST", prefix, format!("bad answer: {}", malformed.0))
        })
    }

    /// Asks the bucket something and reads the XML that comes back.
    fn bucket(&self, verb: &str, key: &str, query: &[(&str, &str)]) -> Result<Vec<u8>, StoreFault> {
        let request = Outgoing {
            call: Call::Bucket,
            verb,
            query,
            answer_bytes_max: LIST_BODY_BYTES_MAX,
            ..Outgoing::get(key, "")
        };
        let mut response = self.send(&request)?;
        if response.status().as_u16() != 200 {
            return Err(self.fault(&request, response));
        }
        let mut xml = Vec::new();
        match read_bounded(response.body_mut(), LIST_BODY_BYTES_MAX, &mut xml) {
            Ok(()) => Ok(xml),
            Err(cut) => Err(StoreFault::new(StoreFaultKind::Unknown, verb, key, cut.to_string())),
        }
    }
}

impl Store for S3Store {
    fn credentials(&self) -> Option<String> {
        Some(self.keyring.said())
    }

    fn time(&self) -> Option<StoreTime> {
        self.heard.last()
    }

    fn describe(&self) -> String {
        let shown = self.prefix.strip_suffix('/').unwrap_or("");
        let slash = if shown.is_empty() { "" } else { "/" };
        format!("s3://{}{slash}{shown} at {}", self.bucket, self.origin)
    }

    fn put(&self, key: &str, body: &[&[u8]], mode: PutMode) -> Result<(), StoreFault> {
        check_key("PUT", key)?;
        let crc = body::crc32_base64(body);
        let headers = [("x-amz-checksum-crc32", crc.as_str()), ("if-none-match", "*")];
        let request = Outgoing {
            call: Call::Put(mode),
            method: "PUT",
            verb: "PUT",
            key,
            object: &self.object(key),
            query: &[],
            headers: &headers[..if mode == PutMode::CreateOnly { 2 } else { 1 }],
            body: Some(body),
            answer_bytes_max: ERROR_BODY_BYTES_MAX,
            afresh: false,
        };
        let mut response = self.send(&request)?;
        if !matches!(response.status().as_u16(), 200 | 201 | 204) {
            return Err(self.fault(&request, response));
        }
        if let Some(told) = header(response.headers(), "x-amz-checksum-crc32")
            && told != crc
        {
            let detail = format!("the server stored CRC-32 {told}, {crc} was sent");
            return Err(StoreFault::new(StoreFaultKind::Corrupt, "PUT", key, detail));
        }
        self.habits.check_put(&mut response).map_err(|why| unfit("PUT", key, &why))
    }

    fn get(&self, key: &str, range: ByteRange, out: &mut Vec<u8>) -> Result<u64, StoreFault> {
        self.read(key, range, out, false)
    }

    fn get_afresh(&self, key: &str, range: ByteRange, out: &mut Vec<u8>) -> Result<u64, StoreFault> {
        self.read(key, range, out, true)
    }

    fn list(
        &self,
        prefix: &str,
        after: &str,
        each: &mut dyn FnMut(&str, u64) -> bool,
    ) -> Result<(), StoreFault> {
        check_prefix(prefix)?;
        let full_prefix = self.object(prefix);
        let full_after = self.object(after);
        let mut token = String::new();
        let mut last = String::new();
        for _ in 0..LIST_PAGES_MAX {
            let mut query = vec![("list-type", "2"), ("prefix", full_prefix.as_str())];
            if !token.is_empty() {
                query.push(("continuation-token", token.as_str()));
            } else if !after.is_empty() {
                query.push(("start-after", full_after.as_str()));
            }
            let page = self.page(prefix, &query)?;
            for (full, size) in page.objects {
                if full <= last {
                    return Err(unfit("LIST", prefix, "keys are not listed in ascending order"));
                }
                let Some(key) = full.strip_prefix(&self.prefix).filter(|key| key.starts_with(prefix)) else {
                    return Err(unfit("LIST", prefix, "it lists keys outside of the prefix"));
                };
                // Others' objects below the prefix have other names than ours; some servers ignore start-after.
                if super::is_valid_key(key) && key > after && !each(key, size) {
                    return Ok(());
                }
                last = full;
            }
            if !page.truncated {
                return Ok(());
            }
            if page.token == token {
                return Err(unfit("LIST", prefix, "the next page has the same token as this one"));
            }
            token = page.token;
        }
        Err(StoreFault::new(StoreFaultKind::Rejected, "LIST", prefix, "the listing does not end"))
    }

    fn delete(&self, key: &str) -> Result<(), StoreFault> {
        check_key("DELETE", key)?;
        let object = self.object(key);
        let request =
            Outgoing { call: Call::Delete, method: "DELETE", verb: "DELETE", ..Outgoing::get(key, &object) };
        let mut response = self.send(&request)?;
        if matches!(response.status().as_u16(), 200 | 202 | 204) {
            return fit::check_empty(&mut response).map_err(|why| unfit("DELETE", key, &why));
        }
        match self.fault(&request, response) {
            fault if fault.kind == StoreFaultKind::NotFound => Ok(()),
            fault => Err(fault),
        }
    }

    fn set_lease_deadline(&self, ms: u64) {
        self.lease_call_ms.store(ms, Ordering::Relaxed);
    }

    fn versioning(&self) -> Result<Versioning, StoreFault> {
        let xml = match self.bucket("VERSIONING", "", &[("versioning", "")]) {
            Ok(xml) => xml,
            // A key pair without this permission, or a server without this call, can still be written to.
            Err(fault) if matches!(fault.kind, StoreFaultKind::Denied | StoreFaultKind::Unsupported) => {
                return Ok(Versioning::NotTold);
            }
            Err(fault) => return Err(fault),
        };
        match answer::parse_versioning(&xml).as_deref() {
            Ok("Enabled") => Ok(Versioning::On),
            Ok("Suspended") => Ok(Versioning::Suspended),
            Ok("") => Ok(Versioning::Off),
            Ok(_) | Err(_) => Ok(Versioning::NotTold),
        }
    }
}

/// One request before it is signed.
struct Outgoing<'a> {
    call: Call,
    method: &'a str,
    /// As it appears in a fault.
    verb: &'a str,
    key: &'a str,
    /// Prefix and key; empty for the bucket.
    object: &'a str,
    query: &'a [(&'a str, &'a str)],
    /// More headers, lower case; signed.
    headers: &'a [(&'a str, &'a str)],
    body: Option<&'a [&'a [u8]]>,
    /// For the timeout.
    answer_bytes_max: u64,
    /// Over a connection that was not used before.
    afresh: bool,
}

impl<'a> Outgoing<'a> {
    fn get(key: &'a str, object: &'a str) -> Outgoing<'a> {
        Outgoing {
            call: Call::Get,
            method: "GET",
            verb: "GET",
            key,
            object,
            query: &[],
            headers: &[],
            body: None,
            answer_bytes_max: ERROR_BODY_BYTES_MAX,
            afresh: false,
        }
    }
}

/// An answer that is none.
fn unfit(verb: &str, key: &str, why: &str) -> StoreFault {
    let detail = format!("the answer does not fit the question: {why}");
    StoreFault::new(StoreFaultKind::Unknown, verb, key, detail)
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// From the header, because the body's own idea of its length is `None` when that is zero.
fn content_length(headers: &HeaderMap) -> Option<u64> {
    header(headers, "content-length")?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use windlass_hal::clock::SystemClock;

    use super::keys::CredentialSource;
    use super::*;

    #[test]
    fn settings_are_checked_at_open_and_nothing_secret_is_shown() {
        let path = std::env::temp_dir().join(format!("windlass-s3-{}", std::process::id()));
        std::fs::write(&path, "[default]\naws_access_key_id=A\naws_secret_access_key=hidden\n").unwrap();
        let open = |bucket: &str, prefix: &str, change: &dyn Fn(&mut S3Settings)| {
            let mut settings = S3Settings {
                credentials: CredentialSource::File { path: path.clone(), profile: "default".into() },
                endpoint: Some("http://127.0.0.1:1".into()),
                ..S3Settings::default()
            };
            change(&mut settings);
            let clock: Arc<dyn Clock> = Arc::new(SystemClock);
            let throttle = Arc::new(Throttle::new(Arc::clone(&clock), 0, 0));
            S3Store::open(bucket, prefix, settings, clock, throttle)
        };
        let store = open("bucket", "a/b/", &|_| {}).ok().unwrap();
        assert_eq!(store.describe(), "s3://bucket/a/b at http://127.0.0.1:1");
        let aws = |s: &mut S3Settings| {
            s.endpoint = None;
            s.region = Some("eu-west-1".into());
        };
        assert_eq!(
            open("bucket", "", &aws).ok().unwrap().describe(),
            "s3://bucket at https://bucket.s3.eu-west-1.amazonaws.com"
        );
        assert_eq!(
            open("buck.et", "", &aws).ok().unwrap().describe(),
            "s3://buck.et at https://s3.eu-west-1.amazonaws.com"
        );
        let refused = |bucket, prefix, change: &dyn Fn(&mut S3Settings)| open(bucket, prefix, change).err();
        assert!(matches!(refused("b", "", &|_| {}), Some(S3OpenFault::Bucket(_))));
        assert!(matches!(refused("bucket", "a//b", &|_| {}), Some(S3OpenFault::Prefix(_))));
        assert!(matches!(refused("bucket", "../b", &|_| {}), Some(S3OpenFault::Prefix(_))));
        let no_ca = |s: &mut S3Settings| {
            s.endpoint = Some("https://h".into());
            s.ca_file = Some("/none".into());
        };
        assert!(matches!(refused("bucket", "", &no_ca), Some(S3OpenFault::Tls(TlsFault::Unreadable(_, 2)))));
        let bad_ca = |s: &mut S3Settings| {
            s.endpoint = Some("https://h".into());
            s.ca_file = Some(path.clone());
        };
        assert!(matches!(refused("bucket", "", &bad_ca), Some(S3OpenFault::Tls(TlsFault::NoCertificate(_)))));
        std::fs::remove_file(&path).unwrap();
        let gone = refused("bucket", "", &|_| {}).unwrap().to_string();
        assert!(gone.contains("No such file"), "{gone}");
    }
}
