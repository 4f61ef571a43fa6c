//! Certificates of the API: the node's own, and whom it believes.
//!
//! TLS 1.3 with a certificate on both sides. Who asks is the first DNS name in the client's certificate, as the subject `cert:NAME`; roles are given
//! to it like to a user. The CA of the API may be that of the backplane: a node's certificate is a name without roles here, and a client's is no
//! node there.
//!
//! Does not: check revocation: a client that lost its key loses its roles. Source: rustls 0.23; RFC 9525.

use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};

use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::version::TLS13;
use rustls::{RootCertStore, ServerConfig, ServerConnection};
use webpki::EndEntityCert;
use windlass_agent::format::access::is_subject;

use crate::failure::Failure;

/// Certificates in a chain file at most.
const CHAIN_MAX: usize = 8;
/// Bytes of a file of certificates or of a key at most.
const FILE_BYTES_MAX: u64 = 256 << 10;
/// Bytes of a record's contents: a page is sent in few, and a client's buffers stay small.
const FRAGMENT_BYTES: usize = 4096;

/// The files of a section.
#[derive(Clone, Debug)]
pub struct Files {
    /// The node's certificate, those between it and its CA behind it.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// The CA of those who ask.
    pub client_ca: PathBuf,
}

/// What new connections begin with. Replaced when the profile is read again.
#[derive(Clone, Default)]
pub struct Current(Arc<RwLock<Option<Arc<ServerConfig>>>>);

impl Current {
    /// From now on this.
    pub fn set(&self, config: Arc<ServerConfig>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Some(config);
    }

    /// A new connection's side.
    #[must_use]
    pub fn accept(&self) -> Option<ServerConnection> {
        let config = self.0.read().unwrap_or_else(PoisonError::into_inner).clone()?;
        ServerConnection::new(config).ok()
    }
}

fn read(path: &PathBuf) -> Result<Vec<u8>, Failure> {
    let failed = |error: std::io::Error| Failure::at(path.display(), error);
    if std::fs::metadata(path).map_err(failed)?.len() > FILE_BYTES_MAX {
        return Err(Failure::at(path.display(), "too large for a certificate or a key"));
    }
    std::fs::read(path).map_err(failed)
}

/// What these files make.
///
/// # Errors
/// A file cannot be read or used.
pub fn config(files: &Files) -> Result<Arc<ServerConfig>, Failure> {
    let chain: Vec<CertificateDer<'static>> =
        CertificateDer::pem_slice_iter(&read(&files.certificate)?).flatten().take(CHAIN_MAX + 1).collect();
    if chain.is_empty() || chain.len() > CHAIN_MAX {
        let what = format!("must hold 1 to {CHAIN_MAX} certificates (PEM), the node's own first");
        return Err(Failure::at(files.certificate.display(), what));
    }
    let key = PrivateKeyDer::from_pem_slice(&zeroize::Zeroizing::new(read(&files.key)?))
        .map_err(|_| Failure::at(files.key.display(), "holds no private key (PEM)"))?;
    let mut roots = RootCertStore::empty();
    for root in CertificateDer::pem_slice_iter(&read(&files.client_ca)?).flatten() {
        roots.add(root).map_err(|error| Failure::at(files.client_ca.display(), error))?;
    }
    if roots.is_empty() {
        return Err(Failure::at(
            files.client_ca.display(),
            "holds no certificate (PEM); give the CA of those who ask",
        ));
    }
    let provider = Arc::new(ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
        .build()
        .map_err(|error| Failure::at(files.client_ca.display(), error))?;
    let unusable = |error: rustls::Error| Failure::at(files.certificate.display(), error);
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .map_err(unusable)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .map_err(unusable)?;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_fragment_size = Some(FRAGMENT_BYTES);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// Who is at the other end, once the handshake is done: empty for a certificate whose names are no subject.
#[must_use]
pub fn subject_of(connection: &ServerConnection) -> String {
    let leaf = connection.peer_certificates().and_then(|chain| chain.first());
    let Some(leaf) = leaf else { return String::new() };
    let Ok(parsed) = EndEntityCert::try_from(leaf) else { return String::new() };
    let name = parsed.valid_dns_names().next().unwrap_or_default();
    let subject = format!("cert:{}", name.to_ascii_lowercase());
    if is_subject(&subject) { subject } else { String::new() }
}
