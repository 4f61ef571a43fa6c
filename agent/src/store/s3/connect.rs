//! How an S3 store connects: the HTTP agent with its timeouts, TLS and CA certificates, and what it means when no answer came.
//!
//! Source: ours; ureq's and rustls' documentation.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ureq::Agent;
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, TlsProvider, parse_pem};

use super::settings::{S3OpenFault, S3Settings};
use crate::store::{StoreFault, StoreFaultKind};

/// Where systems keep their CA certificates, in the order they are tried.
pub const CA_BUNDLES: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// The agent that requests are sent with.
pub(super) fn agent(settings: &S3Settings, tls: bool) -> Result<Agent, S3OpenFault> {
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
        .https_only(tls)
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
        .max_idle_connections(settings.connections)
        .max_idle_connections_per_host(settings.connections)
        .max_idle_age(Duration::from_secs(15));
    if tls {
        let tls_config = TlsConfig::builder()
            .provider(TlsProvider::Rustls)
            .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .root_certs(RootCerts::Specific(Arc::new(certificates(settings)?)))
            .build();
        config = config.tls_config(tls_config);
    }
    Ok(config.build().new_agent())
}

fn certificates(settings: &S3Settings) -> Result<Vec<Certificate<'static>>, S3OpenFault> {
    let (path, pem) = match &settings.ca_file {
        Some(path) => {
            let pem = std::fs::read(path)
                .map_err(|e| S3OpenFault::CaUnreadable(path.clone(), e.raw_os_error().unwrap_or(0)))?;
            (path.clone(), pem)
        }
        None => CA_BUNDLES
            .iter()
            .find_map(|path| Some((PathBuf::from(path), std::fs::read(path).ok()?)))
            .ok_or(S3OpenFault::CaMissing)?,
    };
    // A bundle may hold what this parser does not know; what it does know must be at least one certificate.
    let found: Vec<Certificate<'static>> = parse_pem(&pem)
        .filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(certificate),
            _ => None,
        })
        .collect();
    if found.is_empty() { Err(S3OpenFault::CaEmpty(path)) } else { Ok(found) }
}

/// No answer came. Whether the request was applied is open, unless it cannot have left this machine.
pub(super) fn transport_fault(verb: &str, key: &str, error: &ureq::Error) -> StoreFault {
    let tls = match error {
        ureq::Error::Rustls(e) => Some(e),
        ureq::Error::Io(e) => e.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()),
        _ => None,
    };
    let (kind, why) = match (error, tls) {
        // Another certificate will not come by repeating, and nothing was sent.
        (_, Some(e @ rustls::Error::InvalidCertificate(_))) => {
            (StoreFaultKind::Rejected, format!("the server's certificate: {e}; give its CA file"))
        }
        (ureq::Error::BadUri(_) | ureq::Error::Http(_) | ureq::Error::RequireHttpsOnly(_), _) => {
            (StoreFaultKind::Rejected, error.to_string())
        }
        (ureq::Error::HostNotFound, _) => (StoreFaultKind::Unknown, "the host name is not known".to_owned()),
        _ => (StoreFaultKind::Unknown, error.to_string()),
    };
    StoreFault::new(kind, verb, key, why)
}
