//! Azure Blob storage (`az://account/container/prefix`): block blobs by single requests, over ureq and rustls with ring.
//!
//! | module | what |
//! |---|---|
//! | [`sign`] | shared key, shared access signatures |
//! | [`answer`] | what answers mean |
//! | `settings` | how a store is opened, and which settings are refused |
//!
//! | call | request |
//! |---|---|
//! | `put` | Put Blob: `x-ms-blob-type: BlockBlob`, `Content-MD5`, which the server verifies, `If-None-Match: *` when create-only |
//! | `get` | Get Blob with `Range`; the last bytes after a request for the size, as Azure knows no `bytes=-n` |
//! | `list` | List Blobs, page by page; pages before the key to begin behind are read and left out, as Azure knows no such start |
//! | `delete` | Delete Blob |
//!
//! Invariants: one call is one attempt (a GET of the last bytes takes two requests, and the first one of a machine whose clock is wrong a
//! second one, signed with the server's time). Nothing secret is in `describe`, in a fault or in `Debug`.
//! Does not: append and page blobs, snapshots, Entra ID. Source: Microsoft "Blob Storage REST API", version [`VERSION`];
//! `agent/doc/commit-log.md`, Answers to a create.

pub mod answer;
mod settings;
pub mod sign;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ureq::Body;
use ureq::http::{HeaderMap, Request, Response};
use windlass_hal::clock::Clock;

use super::http::channel::{Asked, Channel};
use super::http::encode::{encode_path, encode_query};
use super::http::endpoint::{addresses, is_loopback, parse_endpoint, parse_prefix};
use super::http::list::{self, Listing};
use super::http::md5::md5_base64;
use super::http::read::{Reads, read};
use super::http::{
    ERROR_BODY_BYTES_MAX, HttpSettings, LIST_BODY_BYTES_MAX, SIGNED_APART_SECS_MAX, fit, header,
    read_bounded, unfit,
};
use super::keyring::Keyring;
use super::throttle::Throttle;
use super::time::{StoreTime, http_date};
use super::{
    ByteRange, PutMode, Store, StoreFault, StoreFaultKind, Versioning, body_bytes, check_key, check_prefix,
    is_of_lease,
};
use answer::{Call, ErrorBody};
use sign::{AzureKeys, Canonical};

pub use settings::{AzureOpenFault, AzureSettings};

/// The version of the service that is spoken: the newest that Azure Stack Hub knows too. It takes blobs of 256 MiB in one request.
pub const VERSION: &str = "2019-07-07";
/// Blobs on a page of a LIST: some 700 bytes each, so that a page stays below the bound of an answer.
const LIST_PAGE: &str = "2000";

/// A prefix of a container. Shared between threads; each call uses a connection of its own from the agent's pool.
pub struct AzureStore {
    channel: Channel,
    settings: AzureSettings,
    keyring: Keyring<AzureKeys>,
    account: String,
    /// Of the origin.
    host: String,
    tls: bool,
    container: String,
    /// `https://host[:port]` that requests go to.
    origin: String,
    /// Path of the container: `/container`, or `/account/container`.
    path: String,
    /// Prefix of all keys: empty or ending in a slash.
    prefix: String,
    /// Whether an archived blob was named already.
    named_archived: AtomicBool,
}

impl AzureStore {
    /// Prepares a store; nothing is sent yet. `place` is `account/container/prefix`.
    ///
    /// # Errors
    /// What is wrong with the place or the settings.
    pub fn open(
        place: &str,
        settings: &AzureSettings,
        clock: Arc<dyn Clock>,
        throttle: Arc<Throttle>,
    ) -> Result<AzureStore, AzureOpenFault> {
        let (account, rest) = place.split_once('/').unwrap_or((place, ""));
        let (container, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        if !settings::is_account(account) {
            return Err(AzureOpenFault::Account(account.to_owned()));
        }
        if !settings::is_container(container) {
            return Err(AzureOpenFault::Container(container.to_owned()));
        }
        let prefix = parse_prefix(prefix).ok_or_else(|| AzureOpenFault::Prefix(prefix.to_owned()))?;
        let endpoint =
            settings.endpoint.clone().unwrap_or_else(|| format!("https://{account}.blob.core.windows.net"));
        let (tls, host) = parse_endpoint(&endpoint).ok_or(AzureOpenFault::Endpoint(endpoint))?;
        let is_own = host.strip_prefix(account).is_some_and(|rest| rest.starts_with('.'));
        let keyring: Keyring<AzureKeys> = Keyring::open(settings.credentials.clone(), clock.now().as_ns())
            .map_err(AzureOpenFault::Credentials)?;
        let in_query =
            matches!(*keyring.current(clock.now().as_ns(), clock.wall().secs, false), AzureKeys::Sas(_));
        if in_query && !tls && !is_loopback(&host) {
            return Err(AzureOpenFault::Clear(host));
        }
        let http = HttpSettings {
            timeouts: settings.timeouts,
            connections: settings.connections,
            tls,
            ca_file: settings.ca_file.as_deref(),
            client: None,
            address: settings.address,
        };
        Ok(AzureStore {
            channel: Channel::open(&http, &host, clock, throttle).map_err(AzureOpenFault::Tls)?,
            settings: settings.clone(),
            tls,
            keyring,
            origin: format!("{}://{host}", if tls { "https" } else { "http" }),
            path: if is_own { format!("/{container}") } else { format!("/{account}/{container}") },
            account: account.to_owned(),
            container: container.to_owned(),
            prefix,
            host,
            named_archived: AtomicBool::new(false),
        })
    }

    /// The same place at one address of the server.
    fn at(&self, address: SocketAddr) -> Result<AzureStore, AzureOpenFault> {
        let settings = AzureSettings { address: Some(address), ..self.settings.clone() };
        let (clock, throttle) = self.channel.shared();
        let place = format!("{}/{}/{}", self.account, self.container, self.prefix);
        AzureStore::open(&place, &settings, clock, throttle)
    }

    fn keys(&self, wall_secs: i64, hurried: bool) -> Arc<AzureKeys> {
        self.keyring.current(self.channel.clock().now().as_ns(), wall_secs, hurried)
    }

    fn send(&self, request: &Outgoing<'_>) -> Result<Response<Body>, StoreFault> {
        self.channel.signed(|secs| self.send_at(request, secs))
    }

    fn send_at(&self, request: &Outgoing<'_>, secs: i64) -> Result<Response<Body>, StoreFault> {
        let path = match request.object {
            "" => self.path.clone(),
            object => format!("{}/{}", self.path, encode_path(object)),
        };
        let mut query = encode_query(request.query);
        let (date, length) = (http_date(secs), request.body.map_or(0, body_bytes));
        let mut headers = vec![("x-ms-version", VERSION), ("x-ms-date", date.as_str())];
        headers.extend_from_slice(request.headers);
        let mut builder = Request::builder().method(request.method);
        match &*self.keys(secs, is_of_lease(request.key)) {
            AzureKeys::Shared(key) => {
                let canonical = Canonical {
                    method: request.method,
                    length,
                    headers: &headers,
                    resource: &format!("/{}{path}", self.account),
                    query: request.query,
                };
                builder =
                    builder.header("authorization", sign::authorization(&canonical, &self.account, key));
            }
            AzureKeys::Sas(sas) => {
                query.push_str(if query.is_empty() { "" } else { "&" });
                query.push_str(sas);
            }
        }
        let separator = if query.is_empty() { "" } else { "?" };
        builder = builder.uri(format!("{}{path}{separator}{query}", self.origin));
        for (name, value) in headers {
            builder = builder.header(name, value);
        }
        let Outgoing { verb, key, body, answer_bytes_max, afresh, .. } = *request;
        self.channel.run(&Asked { verb, key, body, answer_bytes_max, afresh }, builder)
    }

    /// Reads an unsuccessful answer's body and makes a fault of it.
    fn fault(&self, request: &Outgoing<'_>, mut response: Response<Body>) -> StoreFault {
        let mut xml = Vec::new();
        // What cannot be read of an error body is not missed: status and header decide.
        let _ = read_bounded(response.body_mut(), ERROR_BODY_BYTES_MAX, &mut xml);
        let mut error = answer::parse_error(&xml);
        if let Some(code) = header(response.headers(), "x-ms-error-code") {
            code.clone_into(&mut error.code);
        }
        let status = response.status().as_u16();
        let kind = answer::kind(request.call, status, &error.code);
        StoreFault::new(kind, request.verb, request.key, self.detail(kind, status, &error))
    }

    fn detail(&self, kind: StoreFaultKind, status: u16, error: &ErrorBody) -> String {
        let mut said = format!("status {status}");
        for (before, part) in [(" ", &error.code), (": ", &error.message), ("; ", &error.detail)] {
            if !part.is_empty() {
                said.push_str(before);
                said.push_str(part);
            }
        }
        if matches!(error.code.as_str(), "BlobArchived" | "BlobBeingRehydrated") {
            return format!("it is in the archive tier: rehydrate it, or copy it to another tier; {said}");
        }
        if kind != StoreFaultKind::Denied {
            return said;
        }
        let (ours, theirs) = (self.channel.clock().wall().secs, self.channel.server_secs());
        if theirs.is_some_and(|theirs| theirs.abs_diff(ours) > SIGNED_APART_SECS_MAX) {
            let theirs = http_date(theirs.unwrap_or(ours));
            return format!(
                "this machine's clock says {}, the server's {theirs}: set the clock; {said}",
                http_date(ours)
            );
        }
        let keys = self.keys(ours, true);
        match (error.code.as_str(), keys.expiry()) {
            ("", _) => {
                format!("{said}, and not in the way of Azure: perhaps a proxy or a firewall in between")
            }
            (_, Some(until)) if *until < *crate::civil::iso_utc(theirs.unwrap_or(ours)) => {
                format!("the shared access signature ended at {until}: put a new one in its place; {said}")
            }
            ("BlobImmutableDueToPolicy", _) => format!("a policy of the container keeps it; {said}"),
            _ => format!("{said}; check the credentials and their permissions"),
        }
    }

    fn object(&self, key: &str) -> String {
        format!("{}{key}", self.prefix)
    }

    fn page(&self, prefix: &str, query: &[(&str, &str)]) -> Result<answer::Page, StoreFault> {
        let request = Outgoing {
            call: Call::List,
            verb: "LIST",
            query,
            answer_bytes_max: LIST_BODY_BYTES_MAX,
            ..Outgoing::get(prefix, "")
        };
        let mut response = self.send(&request)?;
        if response.status().as_u16() != 200 {
            return Err(self.fault(&request, response));
        }
        let mut xml = Vec::new();
        let bad = |why: String| StoreFault::new(StoreFaultKind::Unknown, "LIST", prefix, why);
        read_bounded(response.body_mut(), LIST_BODY_BYTES_MAX, &mut xml)
            .map_err(|cut| bad(cut.to_string()))?;
        answer::parse_list(&xml).map_err(|malformed| bad(format!("bad answer: {}", malformed.0)))
    }
}

impl Store for AzureStore {
    fn credentials(&self) -> Option<String> {
        Some(self.keyring.said())
    }

    fn time(&self) -> Option<StoreTime> {
        self.channel.time()
    }

    fn describe(&self) -> String {
        let shown = self.prefix.strip_suffix('/').unwrap_or("");
        let slash = if shown.is_empty() { "" } else { "/" };
        format!("az://{}/{}{slash}{shown} at {}", self.account, self.container, self.origin)
    }

    fn put(&self, key: &str, body: &[&[u8]], mode: PutMode) -> Result<(), StoreFault> {
        check_key("PUT", key)?;
        let md5 = md5_base64(body);
        let headers = [
            ("content-md5", md5.as_str()),
            ("content-type", "application/octet-stream"),
            ("x-ms-blob-type", "BlockBlob"),
            ("if-none-match", "*"),
        ];
        let object = self.object(key);
        let request = Outgoing {
            call: Call::Put(mode),
            method: "PUT",
            verb: "PUT",
            headers: &headers[..if mode == PutMode::CreateOnly { 4 } else { 3 }],
            body: Some(body),
            ..Outgoing::get(key, &object)
        };
        let mut response = self.send(&request)?;
        if response.status().as_u16() != 201 {
            return Err(self.fault(&request, response));
        }
        if let Some(told) = header(response.headers(), "content-md5")
            && told != md5
        {
            let detail = format!("the server stored MD5 {told}, {md5} was sent");
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
        let full_prefix = self.object(prefix);
        let listing = Listing { root: &self.prefix, prefix, after };
        list::list(&listing, each, &mut |marker| {
            let mut query = vec![("restype", "container"), ("comp", "list"), ("maxresults", LIST_PAGE)];
            if !full_prefix.is_empty() {
                query.push(("prefix", full_prefix.as_str()));
            }
            if !marker.is_empty() {
                query.push(("marker", marker));
            }
            let page = self.page(prefix, &query)?;
            if let Some(name) = page.archived
                && !self.named_archived.swap(true, Ordering::Relaxed)
            {
                log::warn!(
                    "store: blobs are in the archive tier, and cannot be read before they are rehydrated name={name}"
                );
            }
            let next = if page.marker.is_empty() { None } else { Some(page.marker) };
            Ok(list::Page { objects: page.blobs, next })
        })
    }

    fn delete(&self, key: &str) -> Result<(), StoreFault> {
        check_key("DELETE", key)?;
        let object = self.object(key);
        let request =
            Outgoing { call: Call::Delete, method: "DELETE", verb: "DELETE", ..Outgoing::get(key, &object) };
        let mut response = self.send(&request)?;
        if response.status().as_u16() == 202 {
            return fit::check_empty(&mut response).map_err(|why| unfit("DELETE", key, &why));
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

    /// Only the account's management says it.
    fn versioning(&self) -> Result<Versioning, StoreFault> {
        Ok(Versioning::NotTold)
    }
}

impl Reads for AzureStore {
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
        let (object, range) = (self.object(key), range.map(|range| ("range", range)));
        let headers = range.as_slice();
        self.send(&Outgoing { headers, answer_bytes_max, afresh, ..Outgoing::get(key, &object) })
    }

    fn refusal(&self, key: &str, response: Response<Body>) -> StoreFault {
        self.fault(&Outgoing::get(key, ""), response)
    }

    fn check_whole(&self, headers: &HeaderMap, bytes: &[u8]) -> Result<(), &'static str> {
        let told = header(headers, "content-md5");
        if told.is_some_and(|told| told != md5_base64(&[bytes])) { Err("MD5") } else { Ok(()) }
    }

    fn knows_suffixes(&self) -> bool {
        false
    }
}

/// One request before it is signed.
struct Outgoing<'a> {
    call: Call,
    method: &'a str,
    /// As it appears in a fault.
    verb: &'a str,
    key: &'a str,
    /// Prefix and key; empty for the container.
    object: &'a str,
    query: &'a [(&'a str, &'a str)],
    /// More headers, lower case.
    headers: &'a [(&'a str, &'a str)],
    body: Option<&'a [&'a [u8]]>,
    answer_bytes_max: u64,
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

#[cfg(test)]
mod tests {
    use windlass_hal::clock::SystemClock;

    use super::*;
    use crate::store::keyring::CredentialSource;

    fn open(place: &str, keys: &str, endpoint: Option<&str>) -> Result<AzureStore, AzureOpenFault> {
        let path = std::env::temp_dir().join(format!("windlass-az-{}-{}", std::process::id(), keys.len()));
        std::fs::write(&path, format!("[default]\n{keys}\n")).unwrap();
        let settings = AzureSettings {
            credentials: CredentialSource::File { path, profile: "default".into() },
            endpoint: endpoint.map(str::to_owned),
            ..AzureSettings::default()
        };
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let throttle = Arc::new(Throttle::new(Arc::clone(&clock), 0, 0));
        AzureStore::open(place, &settings, clock, throttle)
    }

    #[test]
    fn places_are_checked_at_open_and_nothing_secret_is_shown() {
        let key = "azure_storage_key = c2VjcmV0";
        let own = open("acc/con/a/b/", key, Some("https://acc.blob.azs.example")).ok().unwrap();
        assert_eq!(own.describe(), "az://acc/con/a/b at https://acc.blob.azs.example");
        assert_eq!(own.path, "/con");
        let other = open("acc/con", key, Some("http://127.0.0.1:10000")).ok().unwrap();
        assert_eq!((other.path.as_str(), other.prefix.as_str()), ("/acc/con", ""));
        assert!(matches!(open("Acc/con", key, None), Err(AzureOpenFault::Account(_))));
        assert!(matches!(open("acc", key, None), Err(AzureOpenFault::Container(_))));
        assert!(matches!(open("acc/a--b", key, None), Err(AzureOpenFault::Container(_))));
        assert!(matches!(open("acc/con/a//b", key, None), Err(AzureOpenFault::Prefix(_))));
        assert!(matches!(open("acc/con", key, Some("host")), Err(AzureOpenFault::Endpoint(_))));
        let none = open("acc/con", "x = y", None).err().unwrap();
        assert!(none.to_string().contains("has no azure_storage_key or azure_storage_sas_token"), "{none}");
        let sas = "azure_storage_sas_token = sv=1&sig=hidden";
        assert!(open("acc/con", sas, Some("http://localhost:1")).is_ok());
        let clear = open("acc/con", sas, Some("http://10.1.2.3:1")).err().unwrap();
        assert!(matches!(clear, AzureOpenFault::Clear(_)) && !clear.to_string().contains("hidden"));
    }
}
