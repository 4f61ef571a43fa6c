//! How stores that are servers are reached: the HTTP agent with its timeouts, TLS, certificates, and what servers of objects have in common.
//!
//! | module | what |
//! |---|---|
//! | `channel` | one request: deadlines, throttle, the server's clock |
//! | `body` | streaming parts out, reading bodies in, through the throttle |
//! | `read` | GETs of an object, whole or in part |
//! | `list` | a LIST over all its pages |
//! | `fit` | whether an answer that claims success fits the question |
//! | `endpoint` | where a server is, and which part of it is ours |
//! | [`encode`] | paths and queries of a request |
//! | [`xml`] | XML of servers, with bounds |
//! | `fault` | what it means when no answer came |
//!
//! Invariants: no redirects, no proxy from the environment, no compression, a timeout on every phase.
//! Source: ours; ureq's and rustls' documentation.

pub(super) mod body;
pub(super) mod channel;
pub mod encode;
pub(super) mod endpoint;
mod fault;
pub(super) mod fit;
pub(super) mod list;
pub(super) mod md5;
pub(super) mod read;
pub mod xml;

use std::fmt;
use std::io::{self, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ureq::config::Config;
use ureq::http::{HeaderMap, Uri};
use ureq::tls::{Certificate, ClientCert, PemItem, PrivateKey, RootCerts, TlsConfig, TlsProvider, parse_pem};
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{DefaultConnector, NextTimeout};
use ureq::{Agent, Body};

pub(super) use fault::{transport_fault, unfit, was_not_sent};

/// Where systems keep their CA certificates, in the order they are tried.
pub const CA_BUNDLES: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

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

/// Bytes that a connection gathers before it sends, and reads in one go: four TLS records. There is a pair for each connection.
const BUFFER_BYTES: usize = 64 << 10;

/// How long each phase may take. A body gets `answer_ms` and the time that it needs at the slowest rate, and may stall for
/// `answer_ms` at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// Name resolution, and separately connecting with the TLS handshake, in milliseconds.
    pub connect_ms: u64,
    /// From the end of the request to the answer's headers, in milliseconds.
    pub answer_ms: u64,
    /// Slowest rate in bytes per second that is waited for.
    pub body_bytes_s_min: u64,
}

impl Timeouts {
    /// For data.
    pub const DATA: Timeouts =
        Timeouts { connect_ms: 10_000, answer_ms: 60_000, body_bytes_s_min: 64 * 1024 };
    /// For the commit log and beats: their bodies are small and their deadlines short.
    pub const CONTROL: Timeouts =
        Timeouts { connect_ms: 2_000, answer_ms: 3_000, body_bytes_s_min: 64 * 1024 };
}

/// What an agent is made from.
#[derive(Clone, Copy, Debug)]
pub(super) struct HttpSettings<'a> {
    /// How long to wait.
    pub(super) timeouts: Timeouts,
    /// Idle connections kept.
    pub(super) connections: usize,
    /// Whether to use TLS only.
    pub(super) tls: bool,
    /// CA certificates in PEM instead of the system's.
    pub(super) ca_file: Option<&'a Path>,
    /// A certificate chain and its key, both in PEM, for servers that ask for one.
    pub(super) client: Option<(&'a Path, &'a Path)>,
    /// The one address to connect to, whatever the name resolves to.
    pub(super) address: Option<SocketAddr>,
}

/// Certificates that cannot be used. `Display` says what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TlsFault {
    /// A file that cannot be read; the system's error number.
    Unreadable(PathBuf, i32),
    /// The file has no certificate in PEM.
    NoCertificate(PathBuf),
    /// The file has no private key in PEM.
    NoKey(PathBuf),
    /// No CA file was given, and the system has none of [`CA_BUNDLES`].
    CaMissing,
}

impl fmt::Display for TlsFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TlsFault::Unreadable(path, code) => {
                write!(f, "{}: {}", path.display(), nix::errno::Errno::from_raw(*code).desc())
            }
            TlsFault::NoCertificate(path) => write!(f, "{}: no certificate in PEM", path.display()),
            TlsFault::NoKey(path) => write!(f, "{}: no private key in PEM", path.display()),
            TlsFault::CaMissing => write!(f, "this system has no CA certificates; give a CA file"),
        }
    }
}

impl std::error::Error for TlsFault {}

/// The agent that requests are sent with.
pub(super) fn agent(settings: &HttpSettings<'_>) -> Result<Agent, TlsFault> {
    let timeouts = settings.timeouts;
    let answer = Duration::from_millis(timeouts.answer_ms);
    let connect = Duration::from_millis(timeouts.connect_ms);
    let mut config = Agent::config_builder()
        .http_status_as_error(false)
        .proxy(None)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .accept("")
        .accept_encoding("")
        .user_agent("windlass")
        .https_only(settings.tls)
        .timeout_resolve(Some(connect))
        .timeout_connect(Some(connect))
        .timeout_send_request(Some(answer))
        .timeout_await_100(Some(Duration::from_millis(500)))
        .timeout_send_body(Some(answer))
        .timeout_recv_response(Some(answer))
        .timeout_recv_body(Some(answer))
        // A connection that stalls is given up long before a large body's whole time has passed.
        .timeout_per_read(Some(answer))
        .timeout_per_write(Some(answer))
        .input_buffer_size(BUFFER_BYTES)
        .output_buffer_size(BUFFER_BYTES)
        .max_idle_connections(settings.connections)
        .max_idle_connections_per_host(settings.connections)
        .max_idle_age(Duration::from_secs(15));
    if settings.tls {
        let tls_config = TlsConfig::builder()
            .provider(TlsProvider::Rustls)
            .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .root_certs(RootCerts::Specific(Arc::new(authorities(settings.ca_file)?)))
            .client_cert(settings.client.map(client_certificate).transpose()?)
            .build();
        config = config.tls_config(tls_config);
    }
    Ok(match settings.address {
        None => config.build().new_agent(),
        Some(address) => Agent::with_parts(config.build(), DefaultConnector::default(), Pinned(address)),
    })
}

/// Knows one address for every name.
#[derive(Debug)]
struct Pinned(SocketAddr);

impl Resolver for Pinned {
    fn resolve(&self, _: &Uri, _: &Config, _: NextTimeout) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let mut addresses = self.empty();
        addresses.push(self.0);
        Ok(addresses)
    }
}

fn read(path: &Path) -> Result<Vec<u8>, TlsFault> {
    std::fs::read(path).map_err(|e| TlsFault::Unreadable(path.to_path_buf(), e.raw_os_error().unwrap_or(0)))
}

/// The certificates of a PEM file. It may hold what this parser does not know; what it does know must be at least one.
fn certificates(path: &Path, pem: &[u8]) -> Result<Vec<Certificate<'static>>, TlsFault> {
    let found: Vec<Certificate<'static>> = parse_pem(pem)
        .filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(certificate),
            _ => None,
        })
        .collect();
    if found.is_empty() { Err(TlsFault::NoCertificate(path.to_path_buf())) } else { Ok(found) }
}

fn authorities(ca_file: Option<&Path>) -> Result<Vec<Certificate<'static>>, TlsFault> {
    if let Some(path) = ca_file {
        return certificates(path, &read(path)?);
    }
    let system = CA_BUNDLES.iter().find_map(|path| Some((Path::new(path), std::fs::read(path).ok()?)));
    let (path, pem) = system.ok_or(TlsFault::CaMissing)?;
    certificates(path, &pem)
}

fn client_certificate((chain, key): (&Path, &Path)) -> Result<ClientCert, TlsFault> {
    let chain = certificates(chain, &read(chain)?)?;
    let private = PrivateKey::from_pem(&read(key)?).map_err(|_| TlsFault::NoKey(key.to_path_buf()))?;
    Ok(ClientCert::new_with_certs(&chain, private))
}

/// How a body differs from what was announced.
#[derive(Debug)]
pub(super) enum Cut {
    /// It ended after this many bytes.
    Short(u64),
    /// It goes on.
    Long,
    /// The connection broke, or a timeout passed.
    Broken(io::Error),
}

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cut::Short(bytes) => write!(f, "the body ended after {bytes} bytes"),
            Cut::Long => write!(f, "the body is longer than expected"),
            Cut::Broken(e) => write!(f, "the body broke off: {e}"),
        }
    }
}

/// Appends the whole body when it has at most `limit` bytes.
pub(super) fn read_bounded(body: &mut Body, limit: u64, out: &mut Vec<u8>) -> Result<(), Cut> {
    let mut limited = body.as_reader().take(limit + 1);
    limited.read_to_end(out).map_err(Cut::Broken)?;
    if out.len() as u64 > limit { Err(Cut::Long) } else { Ok(()) }
}

/// The value of a header, when it is text.
pub(super) fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// From the header, because the body's own idea of its length is `None` when that is zero.
pub(super) fn content_length(headers: &HeaderMap) -> Option<u64> {
    header(headers, "content-length")?.trim().parse().ok()
}
