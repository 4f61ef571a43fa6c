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
//! | `checksum` | the CRC-32 of a body |
//!
//! - A PUT carries its length, `x-amz-checksum-crc32` (CRC-32 of IEEE 802.3, big-endian, base64) that the server verifies,
//!   and `If-None-Match: *` when create-only. Over TLS the payload is unsigned; over plain http its SHA-256 is signed, so
//!   that the server verifies it also where it ignores checksum headers (Ceph RGW 16 does).
//! - Bodies of at least [`EXPECT_BYTES_MIN`] ask for `100-continue`, so that a refusal is an answer and not a broken pipe.
//! - A ranged GET must answer exactly the range asked for; a body shorter than announced is `Unknown`.
//! - Many keys are deleted by `DeleteObjects`, which carries `Content-MD5`; each has its own answer, and one that is not named is `Unknown`.
//! - No redirects, no proxy from the environment, no compression, a timeout on every phase.
//!
//! Invariants: one call is one attempt (a GET of a range past the end may take a second request to learn the size, and the first one of a
//! machine whose clock is wrong a second one, signed with the server's time). Nothing
//! secret is in `describe`, in a fault or in `Debug`.
//! Does not: multipart, ACLs, storage classes, encryption headers.
//! Source: AWS S3 API reference; `agent/doc/commit-log.md`, Answers to a create.

pub mod answer;
pub mod chain;
mod checksum;
pub mod keys;
pub mod metadata;
mod settings;
pub mod sign;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use ureq::Body;
use ureq::http::{HeaderMap, Request, Response};
use windlass_hal::clock::Clock;

use super::http::channel::{Asked, Channel};
use super::http::endpoint::{addresses, parse_endpoint, parse_prefix};
use super::http::list::{self, Listing};
use super::http::md5::md5_base64;
use super::http::read::{Reads, read};
use super::http::{HttpSettings, fit, header, read_bounded, unfit};
use super::keyring::Keyring;
use super::throttle::Throttle;
use super::time::StoreTime;
use super::{
    ByteRange, Deletions, PutMode, Store, StoreFault, StoreFaultKind, Versioning, check_key, check_prefix,
    is_of_lease,
};
use answer::{Call, ErrorBody};
use checksum::crc32_base64;
use sign::{Canonical, Credentials, UNSIGNED_PAYLOAD};

pub use super::http::{
    ASKED_ANSWER_MS_MAX, CA_BUNDLES, ERROR_BODY_BYTES_MAX, EXPECT_BYTES_MIN, LIST_BODY_BYTES_MAX,
    LIST_PAGES_MAX, SIGNED_APART_SECS_MAX, Timeouts, TlsFault,
};
pub use settings::{Addressing, S3OpenFault, S3Settings};

/// Keys in one `DeleteObjects`, which takes 1000: a request's cost shared by so many is nothing, and a server that deletes them one after
/// the other is done within the usual timeout.
pub const DELETE_KEYS_MAX: usize = 256;

/// A prefix of a bucket. Shared between threads; each call uses a connection of its own from the agent's pool.
pub struct S3Store {
    channel: Channel,
    settings: S3Settings,
    keyring: Keyring<Credentials>,
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
        let prefix = parse_prefix(prefix).ok_or_else(|| S3OpenFault::Prefix(prefix.to_owned()))?;
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
            address: settings.address,
        };
        let channel = Channel::open(&http, &host, clock, throttle).map_err(S3OpenFault::Tls)?;
        Ok(S3Store {
            channel,
            settings,
            keyring,
            region,
            tls,
            origin: format!("{}://{host}", if tls { "https" } else { "http" }),
            host,
            bucket_path: sign::encode_path(&bucket_path),
            bucket: bucket.to_owned(),
            prefix,
        })
    }

    /// The same place at one address of the server.
    fn at(&self, address: SocketAddr) -> Result<S3Store, S3OpenFault> {
        let settings = S3Settings { address: Some(address), ..self.settings.clone() };
        let (clock, throttle) = self.channel.shared();
        S3Store::open(&self.bucket, &self.prefix, settings, clock, throttle)
    }

    fn send(&self, request: &Outgoing<'_>) -> Result<Response<Body>, StoreFault> {
        self.channel.signed(|secs| self.send_at(request, secs))
    }

    fn send_at(&self, request: &Outgoing<'_>, secs: i64) -> Result<Response<Body>, StoreFault> {
        let path = format!("{}/{}", self.bucket_path, sign::encode_path(request.object));
        let query = sign::encode_query(request.query);
        let time = sign::amz_time(secs);
        let now_ns = self.channel.clock().now().as_ns();
        let keys = self.keyring.current(now_ns, secs, is_of_lease(request.key));
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
        self.channel.run(&request.asked(), builder)
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
            let ours = sign::amz_time(self.channel.clock().wall().secs);
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
        self.channel.time()
    }

    fn describe(&self) -> String {
        let shown = self.prefix.strip_suffix('/').unwrap_or("");
        let slash = if shown.is_empty() { "" } else { "/" };
        format!("s3://{}{slash}{shown} at {}", self.bucket, self.origin)
    }

    fn put(&self, key: &str, body: &[&[u8]], mode: PutMode) -> Result<(), StoreFault> {
        check_key("PUT", key)?;
        let crc = crc32_base64(body);
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
        self.channel.habits.check_put(&mut response).map_err(|why| unfit("PUT", key, &why))
    }

    fn get(&self, key: &str, range: ByteRange, out: &mut Vec<u8>) -> Result<u64, StoreFault> {
        read(self, key, range, out, false)
    }

    fn get_afresh(&self, key: &str, range: ByteRange, out: &mut Vec<u8>) -> Result<u64, StoreFault> {
        read(self, key, range, out, true)
    }

    fn list(
        &self,
        prefix: &str,
        after: &str,
        each: &mut dyn FnMut(&str, u64) -> bool,
    ) -> Result<(), StoreFault> {
        check_prefix(prefix)?;
        let (full_prefix, full_after) = (self.object(prefix), self.object(after));
        let listing = Listing { root: &self.prefix, prefix, after };
        list::list(&listing, each, &mut |token| {
            let mut query = vec![("list-type", "2"), ("prefix", full_prefix.as_str())];
            if !token.is_empty() {
                query.push(("continuation-token", token));
            } else if !after.is_empty() {
                query.push(("start-after", full_after.as_str()));
            }
            let page = self.page(prefix, &query)?;
            Ok(list::Page { next: page.truncated.then_some(page.token), objects: page.objects })
        })
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

    fn delete_keys_max(&self) -> usize {
        DELETE_KEYS_MAX
    }

    fn delete_all(&self, keys: &[&str]) -> Result<Deletions, StoreFault> {
        keys.iter().try_for_each(|key| check_key("DELETE", key))?;
        let objects: Vec<String> = keys.iter().map(|key| self.object(key)).collect();
        let body = answer::emit_deletions(&objects);
        let md5 = md5_base64(&[body.as_bytes()]);
        let first = keys.first().copied().unwrap_or_default();
        let request = Outgoing {
            call: Call::DeleteMany,
            method: "POST",
            verb: "DELETE",
            query: &[("delete", "")],
            // AWS wants one of its checksums or this one; servers that know one alone know this.
            headers: &[("content-md5", md5.as_str())],
            body: Some(&[body.as_bytes()]),
            answer_bytes_max: LIST_BODY_BYTES_MAX,
            ..Outgoing::get(first, "")
        };
        let mut response = self.send(&request)?;
        if response.status().as_u16() != 200 {
            return Err(self.fault(&request, response));
        }
        let mut xml = Vec::new();
        let unclear = |key: &str, why: String| StoreFault::new(StoreFaultKind::Unknown, "DELETE", key, why);
        read_bounded(response.body_mut(), LIST_BODY_BYTES_MAX, &mut xml)
            .map_err(|cut| unclear(first, cut.to_string()))?;
        let answers = answer::parse_deletions(&xml).map_err(|bad| unclear(first, bad.0.to_owned()))?;
        let answers: BTreeMap<String, Option<(String, String)>> =
            answers.into_iter().map(|of| (of.key, of.error)).collect();
        let fate = |(key, object): (&&str, &String)| match answers.get(object) {
            None => Err(unclear(key, "the answer to many deletions does not name it".to_owned())),
            Some(None) => Ok(()),
            Some(Some((code, _))) if code == "NoSuchKey" => Ok(()),
            Some(Some((code, message))) => {
                let status = if code == "AccessDenied" { 403 } else { 400 };
                let kind = answer::kind(Call::Delete, status, code);
                Err(StoreFault::new(kind, "DELETE", key, format!("{code}: {message}")))
            }
        };
        Ok(keys.iter().zip(&objects).map(fate).collect())
    }

    fn ways(&self) -> Vec<Arc<dyn Store>> {
        let open = |address| -> Option<Arc<dyn Store>> { Some(Arc::new(self.at(address).ok()?)) };
        addresses(&self.host, self.tls).into_iter().filter_map(open).collect()
    }

    fn set_lease_deadline(&self, ms: u64) {
        self.channel.set_lease_deadline(ms);
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

impl Reads for S3Store {
    fn channel(&self) -> &Channel {
        &self.channel
    }

    fn ask(
        &self,
        key: &str,
        range: Option<&str>,
        answer_bytes_max: u64,
        afresh: bool,
    ) -> Result<Response<Body>, StoreFault> {
        let object = self.object(key);
        let asked = match range {
            Some(range) => ("range", range),
            None => ("x-amz-checksum-mode", "ENABLED"),
        };
        let request = Outgoing { headers: &[asked], answer_bytes_max, afresh, ..Outgoing::get(key, &object) };
        self.send(&request)
    }

    fn refusal(&self, key: &str, response: Response<Body>) -> StoreFault {
        self.fault(&Outgoing::get(key, ""), response)
    }

    fn check_whole(&self, headers: &HeaderMap, bytes: &[u8]) -> Result<(), &'static str> {
        // Sent by servers that keep one. A composite value has a dash and is not ours.
        let told = header(headers, "x-amz-checksum-crc32").filter(|value| !value.contains('-'));
        if told.is_some_and(|told| told != crc32_base64(&[bytes])) { Err("CRC-32") } else { Ok(()) }
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

    fn asked(&self) -> Asked<'a> {
        let Outgoing { verb, key, body, answer_bytes_max, afresh, .. } = *self;
        Asked { verb, key, body, answer_bytes_max, afresh }
    }
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
