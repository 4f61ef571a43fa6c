//! How stores that are servers are reached: the HTTP agent with its timeouts, TLS, certificates, and what it means when no
//! answer came.
//!
//! Invariants: no redirects, no proxy from the environment, no compression, a timeout on every phase.
//! Source: ours; ureq's and rustls' documentation.

use std::fmt;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ureq::tls::{Certificate, ClientCert, PemItem, PrivateKey, RootCerts, TlsConfig, TlsProvider, parse_pem};
use ureq::{Agent, Body, Timeout};

use super::{StoreFault, StoreFaultKind};

/// Where systems keep their CA certificates, in the order they are tried.
pub const CA_BUNDLES: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

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
    Ok(config.build().new_agent())
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

/// Whether an error means that nothing was sent: another server may be asked the same.
pub(super) fn was_not_sent(error: &ureq::Error) -> bool {
    match error {
        ureq::Error::HostNotFound | ureq::Error::ConnectionFailed => true,
        ureq::Error::Timeout(phase) => matches!(phase, Timeout::Resolve | Timeout::Connect),
        ureq::Error::Io(e) => matches!(
            e.kind(),
            io::ErrorKind::ConnectionRefused
                | io::ErrorKind::HostUnreachable
                | io::ErrorKind::NetworkUnreachable
        ),
        _ => false,
    }
}

/// No answer came from `authority` (`host:port`). Whether the request was applied is open, unless it cannot have left this machine.
pub(super) fn transport_fault(verb: &str, key: &str, authority: &str, error: &ureq::Error) -> StoreFault {
    let tls = match error {
        ureq::Error::Rustls(e) => Some(e),
        ureq::Error::Io(e) => e.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()),
        _ => None,
    };
    let (kind, why) = match (error, tls) {
        // Another certificate will not come by repeating, and nothing was sent.
        (_, Some(e @ rustls::Error::InvalidCertificate(_))) => (
            StoreFaultKind::Rejected,
            format!("the certificate of {authority} is not accepted: {e}; give its CA file"),
        ),
        (_, Some(e)) => (StoreFaultKind::Unknown, format!("TLS with {authority} fails: {e}")),
        (ureq::Error::BadUri(_) | ureq::Error::Http(_) | ureq::Error::RequireHttpsOnly(_), _) => {
            (StoreFaultKind::Rejected, error.to_string())
        }
        _ => (StoreFaultKind::Unknown, unanswered(authority, error)),
    };
    StoreFault::new(kind, verb, key, why)
}

/// Why no answer came, in a few words for people.
fn unanswered(authority: &str, error: &ureq::Error) -> String {
    let host = authority.rsplit_once(':').map_or(authority, |(host, _)| host);
    let no_way = |why: String| format!("cannot reach the store: {why}");
    match error {
        ureq::Error::HostNotFound => no_way(format!("host name {host} not found")),
        ureq::Error::ConnectionFailed => no_way(format!("{authority} accepts no connection")),
        ureq::Error::Timeout(Timeout::Resolve) => {
            no_way(format!("no name server told the address of {host} in time"))
        }
        ureq::Error::Timeout(Timeout::Connect) => {
            no_way(format!("{authority} accepts no connection in time"))
        }
        ureq::Error::Timeout(_) => format!("{authority} gave no answer in time ({error})"),
        ureq::Error::Io(e) => match e.kind() {
            io::ErrorKind::ConnectionRefused => no_way(format!("connection refused by {authority}")),
            io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => {
                no_way(format!("no route to {authority}"))
            }
            io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::UnexpectedEof => format!("{authority} closed the connection before it answered"),
            // The resolver's failures have no kind of their own.
            _ if e.to_string().starts_with("failed to lookup address") => {
                no_way(format!("host name {host} not found"))
            }
            _ => format!("the connection to {authority} failed: {e}"),
        },
        _ => error.to_string(),
    }
}
