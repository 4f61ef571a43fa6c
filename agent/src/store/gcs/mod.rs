//! Google Cloud Storage (`gs://bucket/prefix`) by its JSON API, over ureq and rustls with ring.
//!
//! | module | what |
//! |---|---|
//! | [`answer`] | what answers mean |
//! | [`token`] | access tokens, renewed before they end |
//! | `settings` | how a store is opened, and which settings are refused |
//!
//! | call | request |
//! |---|---|
//! | `put` | an upload in two parts, name with CRC-32C and bytes, which the server verifies; `ifGenerationMatch=0` when create-only |
//! | `get` | the object with `alt=media` and `Range` |
//! | `list` | pages from `startOffset` on |
//! | `delete` | DELETE of the object |
//!
//! Uploads in one part (`uploadType=media`) and the XML API are not used: servers were seen to ignore the condition there, or to refuse it.
//! A 404 whose words do not say what is missing is followed by a LIST of that one name: the bucket answers, so it is the object that is
//! absent.
//!
//! Invariants: one call is one attempt (a token that is refused is replaced, and the call made once more; nothing was applied then). Nothing
//! secret is in `describe`, in a fault or in `Debug`. Does not: resumable uploads, storage classes, customer keys.
//! Source: Google "Cloud Storage JSON API"; `agent/doc/commit-log.md`, Answers to a create.

pub mod answer;
mod settings;
pub mod token;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ureq::Body;
use ureq::http::{HeaderMap, Request, Response};
use windlass_hal::clock::Clock;
use zeroize::Zeroizing;

use super::http::channel::{Asked, Channel};
use super::http::encode::{encode_component, encode_query};
use super::http::endpoint::{addresses, is_loopback, parse_endpoint, parse_prefix};
use super::http::list::{self, Listing};
use super::http::read::{Reads, read};
use super::http::{Cut, ERROR_BODY_BYTES_MAX, HttpSettings, LIST_BODY_BYTES_MAX, read_bounded, unfit};
use super::throttle::Throttle;
use super::time::StoreTime;
use super::{
    ByteRange, PutMode, Store, StoreFault, StoreFaultKind, Versioning, body_bytes, check_key, check_prefix,
};
use answer::{Call, ErrorBody};
use token::{Account, Tokens};

pub use settings::{GcsOpenFault, GcsSettings};

/// Where Google's own servers are.
const GOOGLE: &str = "https://storage.googleapis.com";
/// Names on a page of a LIST: the most that Google gives.
const LIST_PAGE: &str = "1000";

/// A prefix of a bucket. Shared between threads; each call uses a connection of its own from the agent's pool.
pub struct GcsStore {
    channel: Channel,
    settings: GcsSettings,
    tokens: Tokens,
    bucket: String,
    /// Of the origin.
    host: String,
    tls: bool,
    /// `https://host[:port]` that requests go to.
    origin: String,
    /// Prefix of all keys: empty or ending in a slash.
    prefix: String,
    nonce: u64,
    /// Uploads so far: no two have the same line between their parts.
    uploads: AtomicU64,
}

impl GcsStore {
    /// Prepares a store; nothing is sent yet.
    ///
    /// # Errors
    /// What is wrong with the settings.
    pub fn open(
        bucket: &str,
        prefix: &str,
        settings: &GcsSettings,
        clock: Arc<dyn Clock>,
        throttle: Arc<Throttle>,
    ) -> Result<GcsStore, GcsOpenFault> {
        let usable = |b: u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' | b'_');
        if !(3..=222).contains(&bucket.len()) || !bucket.bytes().all(usable) {
            return Err(GcsOpenFault::Bucket(bucket.to_owned()));
        }
        let prefix = parse_prefix(prefix).ok_or_else(|| GcsOpenFault::Prefix(prefix.to_owned()))?;
        let endpoint = settings.endpoint.as_deref().unwrap_or(GOOGLE);
        let (tls, host) =
            parse_endpoint(endpoint).ok_or_else(|| GcsOpenFault::Endpoint(endpoint.to_owned()))?;
        let account = Account::find(settings.key_file.as_deref(), !tls).map_err(GcsOpenFault::Credentials)?;
        if !tls && !matches!(account, Account::Anonymous) && !is_loopback(&host) {
            return Err(GcsOpenFault::Clear(host));
        }
        let http = HttpSettings {
            timeouts: settings.timeouts,
            connections: settings.connections,
            tls,
            ca_file: settings.ca_file.as_deref(),
            client: None,
            address: settings.address,
        };
        let tokens = Tokens::new(account, settings.ca_file.as_deref(), Arc::clone(&clock));
        Ok(GcsStore {
            tokens: tokens.map_err(GcsOpenFault::Tls)?,
            channel: Channel::open(&http, &host, clock, throttle).map_err(GcsOpenFault::Tls)?,
            bucket: bucket.to_owned(),
            origin: format!("{}://{host}", if tls { "https" } else { "http" }),
            prefix,
            host,
            tls,
            settings: settings.clone(),
            nonce: settings.nonce,
            uploads: AtomicU64::new(0),
        })
    }

    /// The same place at one address of the server.
    fn at(&self, address: SocketAddr) -> Result<GcsStore, GcsOpenFault> {
        // Another line between parts than this one's.
        let nonce = self.nonce.wrapping_add(u64::from(address.port())).rotate_left(17);
        let settings = GcsSettings { address: Some(address), nonce, ..self.settings.clone() };
        let (clock, throttle) = self.channel.shared();
        GcsStore::open(&self.bucket, &self.prefix, &settings, clock, throttle)
    }

    /// Sends one request. A token that is refused is replaced once.
    fn send(&self, request: &Outgoing<'_>) -> Result<Response<Body>, StoreFault> {
        let token = self.tokens.header().map_err(|fault| self.unauthorized(request, fault))?;
        let response = self.send_with(request, token.as_ref())?;
        let Some(refused) = token.filter(|_| response.status().as_u16() == 401) else { return Ok(response) };
        self.tokens.drop_refused(&refused);
        drop(response);
        let token = self.tokens.header().map_err(|fault| self.unauthorized(request, fault))?;
        self.send_with(request, token.as_ref())
    }

    /// A call that was not made, as there is no token for it.
    fn unauthorized(&self, request: &Outgoing<'_>, fault: StoreFault) -> StoreFault {
        StoreFault { call: format!("{} {}", request.verb, request.key), ..fault }
    }

    fn send_with(
        &self,
        request: &Outgoing<'_>,
        token: Option<&Zeroizing<String>>,
    ) -> Result<Response<Body>, StoreFault> {
        let query = encode_query(request.query);
        let separator = if query.is_empty() { "" } else { "?" };
        let mut builder = Request::builder()
            .method(request.method)
            .uri(format!("{}{}{separator}{query}", self.origin, request.path));
        for (name, value) in request.headers {
            builder = builder.header(*name, *value);
        }
        if let Some(token) = token {
            builder = builder.header("authorization", token.as_str());
        }
        let Outgoing { verb, key, body, answer_bytes_max, afresh, .. } = *request;
        self.channel.run(&Asked { verb, key, body, answer_bytes_max, afresh }, builder)
    }

    /// Reads an unsuccessful answer's body and makes a fault of it.
    fn fault(&self, request: &Outgoing<'_>, mut response: Response<Body>) -> StoreFault {
        let mut body = Vec::new();
        // What cannot be read of an error body is not missed: the status decides.
        let _ = read_bounded(response.body_mut(), ERROR_BODY_BYTES_MAX, &mut body);
        let error = answer::parse_error(&body);
        let status = response.status().as_u16();
        let kind = answer::kind(request.call, status, &error);
        if status == 404
            && kind == StoreFaultKind::Unknown
            && matches!(request.call, Call::Get | Call::Delete)
        {
            return self.why_not_found(request, &error);
        }
        StoreFault::new(kind, request.verb, request.key, detail(kind, status, &error))
    }

    /// A 404 that does not say what is missing.
    fn why_not_found(&self, request: &Outgoing<'_>, error: &ErrorBody) -> StoreFault {
        let (verb, key, object) = (request.verb, request.key, self.object(request.key));
        match self.page(key, &[("prefix", &object), ("maxResults", "1"), ("fields", LISTED_FIELDS)]) {
            Ok(page) if page.objects.iter().all(|(name, _)| *name != object) => {
                StoreFault::new(StoreFaultKind::NotFound, verb, key, "")
            }
            Ok(_) => {
                let detail = format!("{}, and a listing has it", detail(StoreFaultKind::Unknown, 404, error));
                StoreFault::new(StoreFaultKind::Unknown, verb, key, detail)
            }
            Err(fault) => StoreFault { call: format!("{verb} {key}"), ..fault },
        }
    }

    fn object(&self, key: &str) -> String {
        format!("{}{key}", self.prefix)
    }

    fn bucket_path(&self) -> String {
        format!("/storage/v1/b/{}", encode_component(&self.bucket))
    }

    fn object_path(&self, key: &str) -> String {
        format!("{}/o/{}", self.bucket_path(), encode_component(&self.object(key)))
    }

    /// One page of a listing; `key` is for faults and deadlines.
    fn page(&self, key: &str, query: &[(&str, &str)]) -> Result<answer::Page, StoreFault> {
        let json = self.ask_bucket("LIST", key, &format!("{}/o", self.bucket_path()), query)?;
        answer::parse_list(&json).map_err(|malformed| {
            StoreFault::new(StoreFaultKind::Unknown, "LIST", key, format!("bad answer: {}", malformed.0))
        })
    }

    fn ask_bucket(
        &self,
        verb: &str,
        key: &str,
        path: &str,
        query: &[(&str, &str)],
    ) -> Result<Vec<u8>, StoreFault> {
        let request = Outgoing {
            call: Call::Bucket,
            verb,
            query,
            answer_bytes_max: LIST_BODY_BYTES_MAX,
            ..Outgoing::get(key, path)
        };
        let mut response = self.send(&request)?;
        if response.status().as_u16() != 200 {
            return Err(self.fault(&request, response));
        }
        let mut json = Vec::new();
        match read_bounded(response.body_mut(), LIST_BODY_BYTES_MAX, &mut json) {
            Ok(()) => Ok(json),
            Err(cut) => Err(StoreFault::new(StoreFaultKind::Unknown, verb, key, cut.to_string())),
        }
    }

    /// A line that no body has in it but by a chance of 1 in 2^128: it is drawn anew for each upload.
    fn boundary(&self) -> String {
        let count = self.uploads.fetch_add(1, Ordering::Relaxed);
        let mut hasher = blake3::Hasher::new_derive_key("windlass gcs multipart boundary v1");
        hasher.update(&self.nonce.to_le_bytes()).update(&count.to_le_bytes());
        hasher.finalize().to_hex().as_str()[..32].to_owned()
    }

    /// Whether what was stored is what was sent.
    fn check_stored(&self, key: &str, bytes: u64, crc: &str, json: &[u8]) -> Result<(), StoreFault> {
        let stored = answer::parse_stored(json).map_err(|malformed| unfit("PUT", key, malformed.0))?;
        if stored.name != self.object(key) || stored.size.parse() != Ok(bytes) {
            return Err(unfit("PUT", key, "another object or size than was sent"));
        }
        if !stored.crc32c.is_empty() && stored.crc32c != crc {
            let detail = format!("the server stored CRC-32C {}, {crc} was sent", stored.crc32c);
            return Err(StoreFault::new(StoreFaultKind::Corrupt, "PUT", key, detail));
        }
        Ok(())
    }
}

/// What is asked for of each object in a listing.
const LISTED_FIELDS: &str = "kind,nextPageToken,items(name,size)";

impl Store for GcsStore {
    fn credentials(&self) -> Option<String> {
        self.tokens.from()
    }

    fn time(&self) -> Option<StoreTime> {
        self.channel.time()
    }

    fn describe(&self) -> String {
        let shown = self.prefix.strip_suffix('/').unwrap_or("");
        let slash = if shown.is_empty() { "" } else { "/" };
        format!("gs://{}{slash}{shown} at {}", self.bucket, self.origin)
    }

    fn put(&self, key: &str, body: &[&[u8]], mode: PutMode) -> Result<(), StoreFault> {
        check_key("PUT", key)?;
        let (crc, boundary) = (crc32c_base64(body), self.boundary());
        let described = serde_json::json!({ "name": self.object(key), "crc32c": crc });
        let head = format!(
            "--{boundary}\r\nContent-Type: application/json; charset=UTF-8\r\n\r\n{described}\r\n\
             --{boundary}\r\nContent-Type: application/octet-stream\r\n\r\n"
        );
        let tail = format!("\r\n--{boundary}--\r\n");
        let mut parts = vec![head.as_bytes()];
        parts.extend_from_slice(body);
        parts.push(tail.as_bytes());
        let query = [("uploadType", "multipart"), ("fields", "name,size,crc32c"), ("ifGenerationMatch", "0")];
        let kind = format!("multipart/related; boundary={boundary}");
        let path = format!("/upload{}/o", self.bucket_path());
        let request = Outgoing {
            call: Call::Put(mode),
            method: "POST",
            verb: "PUT",
            query: &query[..if mode == PutMode::CreateOnly { 3 } else { 2 }],
            headers: &[("content-type", kind.as_str())],
            body: Some(&parts),
            ..Outgoing::get(key, &path)
        };
        let mut response = self.send(&request)?;
        if response.status().as_u16() != 200 {
            return Err(self.fault(&request, response));
        }
        let mut json = Vec::new();
        read_bounded(response.body_mut(), ERROR_BODY_BYTES_MAX, &mut json)
            .map_err(|cut: Cut| StoreFault::new(StoreFaultKind::Unknown, "PUT", key, cut.to_string()))?;
        self.check_stored(key, body_bytes(body), &crc, &json)
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
            let mut query =
                vec![("prefix", full_prefix.as_str()), ("maxResults", LIST_PAGE), ("fields", LISTED_FIELDS)];
            if !after.is_empty() {
                query.push(("startOffset", full_after.as_str()));
            }
            if !token.is_empty() {
                query.push(("pageToken", token));
            }
            let page = self.page(prefix, &query)?;
            let next = if page.token.is_empty() { None } else { Some(page.token) };
            Ok(list::Page { objects: page.objects, next })
        })
    }

    fn delete(&self, key: &str) -> Result<(), StoreFault> {
        check_key("DELETE", key)?;
        let path = self.object_path(key);
        let request =
            Outgoing { call: Call::Delete, method: "DELETE", verb: "DELETE", ..Outgoing::get(key, &path) };
        let mut response = self.send(&request)?;
        if matches!(response.status().as_u16(), 200 | 204) {
            let mut body = Vec::new();
            let read = read_bounded(response.body_mut(), ERROR_BODY_BYTES_MAX, &mut body);
            read.map_err(|cut| unfit("DELETE", key, &cut.to_string()))?;
            // An emulator says so that it has nothing to say.
            return match body.trim_ascii() {
                b"" | b"null" => Ok(()),
                _ => Err(unfit("DELETE", key, "it has a body where none belongs")),
            };
        }
        match self.fault(&request, response) {
            fault if fault.kind == StoreFaultKind::NotFound => Ok(()),
            fault => Err(fault),
        }
    }

    fn ways(&self) -> Vec<Arc<dyn Store>> {
        let open = |address| -> Option<Arc<dyn Store>> { Some(Arc::new(self.at(address).ok()?)) };
        addresses(&self.host, self.tls).into_iter().filter_map(open).collect()
    }

    fn set_lease_deadline(&self, ms: u64) {
        self.channel.set_lease_deadline(ms);
    }

    fn versioning(&self) -> Result<Versioning, StoreFault> {
        match self.ask_bucket("VERSIONING", "", &self.bucket_path(), &[("fields", "versioning")]) {
            Ok(json) => Ok(match answer::parse_versioning(&json) {
                Ok(true) => Versioning::On,
                Ok(false) => Versioning::Off,
                Err(_) => Versioning::NotTold,
            }),
            // An account without this permission can still write.
            Err(fault) if matches!(fault.kind, StoreFaultKind::Denied | StoreFaultKind::Unsupported) => {
                Ok(Versioning::NotTold)
            }
            Err(fault) => Err(fault),
        }
    }
}

impl Reads for GcsStore {
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
        let (path, range) = (self.object_path(key), range.map(|range| ("range", range)));
        let (query, headers) = (&[("alt", "media")], range.as_slice());
        self.send(&Outgoing { query, headers, answer_bytes_max, afresh, ..Outgoing::get(key, &path) })
    }

    fn refusal(&self, key: &str, response: Response<Body>) -> StoreFault {
        self.fault(&Outgoing::get(key, ""), response)
    }

    fn check_whole(&self, headers: &HeaderMap, bytes: &[u8]) -> Result<(), &'static str> {
        let all = headers.get_all("x-goog-hash");
        let mut told = all.iter().filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
        match told.find_map(|part| part.trim().strip_prefix("crc32c=")) {
            Some(crc) if crc != crc32c_base64(&[bytes]) => Err("CRC-32C"),
            _ => Ok(()),
        }
    }
}

/// CRC-32C of the parts, big-endian, in base64.
fn crc32c_base64(parts: &[&[u8]]) -> String {
    let crc = parts.iter().fold(0, |crc, part| crc32c::crc32c_append(crc, part));
    STANDARD.encode(crc.to_be_bytes())
}

/// What an answer says, for people.
fn detail(kind: StoreFaultKind, status: u16, error: &ErrorBody) -> String {
    let mut said = format!("status {status}");
    for (before, part) in [(" ", &error.reason), (": ", &error.message)] {
        if !part.is_empty() {
            said.push_str(before);
            said.push_str(part);
        }
    }
    match (kind, error.is_json) {
        (StoreFaultKind::Denied, true) => format!("{said}; check the credentials and their permissions"),
        (StoreFaultKind::Denied, false) if error.message.is_empty() => {
            format!("{said}, and not in the way of Google: perhaps a proxy or a firewall in between")
        }
        _ => said,
    }
}

/// One request before it is sent.
struct Outgoing<'a> {
    call: Call,
    method: &'a str,
    /// As it appears in a fault.
    verb: &'a str,
    key: &'a str,
    /// Encoded.
    path: &'a str,
    query: &'a [(&'a str, &'a str)],
    headers: &'a [(&'a str, &'a str)],
    body: Option<&'a [&'a [u8]]>,
    answer_bytes_max: u64,
    afresh: bool,
}

impl<'a> Outgoing<'a> {
    fn get(key: &'a str, path: &'a str) -> Outgoing<'a> {
        Outgoing {
            call: Call::Get,
            method: "GET",
            verb: "GET",
            key,
            path,
            query: &[],
            headers: &[],
            body: None,
            answer_bytes_max: ERROR_BODY_BYTES_MAX,
            afresh: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use windlass_hal::clock::SystemClock;

    use super::*;
    use crate::store::keyring::CredentialFault;

    fn open(bucket: &str, prefix: &str, change: &dyn Fn(&mut GcsSettings)) -> Result<GcsStore, GcsOpenFault> {
        let mut settings =
            GcsSettings { endpoint: Some("http://127.0.0.1:1".into()), nonce: 7, ..GcsSettings::default() };
        change(&mut settings);
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let throttle = Arc::new(Throttle::new(Arc::clone(&clock), 0, 0));
        GcsStore::open(bucket, prefix, &settings, clock, throttle)
    }

    #[test]
    fn settings_are_checked_at_open() {
        let store = open("bucket", "a/b/", &|_| {}).ok().unwrap();
        assert_eq!(store.describe(), "gs://bucket/a/b at http://127.0.0.1:1");
        assert_eq!(store.object_path("x/y"), "/storage/v1/b/bucket/o/a%2Fb%2Fx%2Fy");
        assert!(matches!(open("b", "", &|_| {}), Err(GcsOpenFault::Bucket(_))));
        assert!(matches!(open("Bucket", "", &|_| {}), Err(GcsOpenFault::Bucket(_))));
        assert!(matches!(open("bucket", "a//b", &|_| {}), Err(GcsOpenFault::Prefix(_))));
        let endpoint = |s: &mut GcsSettings| s.endpoint = Some("host".into());
        assert!(matches!(open("bucket", "", &endpoint), Err(GcsOpenFault::Endpoint(_))));
        let file = |s: &mut GcsSettings| s.key_file = Some("/none/such".into());
        let gone = open("bucket", "", &file).err();
        assert!(matches!(gone, Some(GcsOpenFault::Credentials(CredentialFault::Unreadable(_, 2)))));
    }

    #[test]
    fn no_two_uploads_share_a_boundary_and_sums_are_googles() {
        let store = open("bucket", "", &|_| {}).ok().unwrap();
        let first = store.boundary();
        assert!(first.len() == 32 && first != store.boundary());
        assert_eq!(crc32c_base64(&[b"0123", b"456789"]), "KAwGng==");
        assert_eq!(crc32c_base64(&[]), "AAAAAA==");
    }
}
