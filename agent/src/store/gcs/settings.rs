//! Settings of a Google store, and why they are refused. Source: Google "Bucket naming requirements".

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use crate::store::http::{Timeouts, TlsFault};
use crate::store::keyring::CredentialFault;

/// Everything about a Google store that is not in its URL.
#[derive(Clone, Debug)]
pub struct GcsSettings {
    /// `http://host:port` or `https://host`; `None`: Google. In clear and without a key file no token is sent, for emulators.
    pub endpoint: Option<String>,
    /// CA certificates in PEM instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// Key file of a service account, in JSON. `None`: the one that `GOOGLE_APPLICATION_CREDENTIALS` names, or the machine's own account.
    pub key_file: Option<PathBuf>,
    /// How long to wait.
    pub timeouts: Timeouts,
    /// Idle connections kept; at least the number of threads that share the store.
    pub connections: usize,
    /// The one address of the server to connect to, for a probe of each; `None`: whichever its name resolves to.
    pub address: Option<SocketAddr>,
    /// A random number of this process start, for the lines between parts of an upload.
    pub nonce: u64,
}

impl Default for GcsSettings {
    fn default() -> GcsSettings {
        GcsSettings {
            endpoint: None,
            ca_file: None,
            key_file: None,
            timeouts: Timeouts::DATA,
            connections: 8,
            address: None,
            nonce: 0,
        }
    }
}

/// Why a Google store cannot be opened. `Display` says what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GcsOpenFault {
    /// Not `http://host[:port]` or `https://host[:port]`.
    Endpoint(String),
    /// Not a bucket name (3 to 222 of a-z 0-9 . - _).
    Bucket(String),
    /// The prefix has other characters than A-Z a-z 0-9 . _ - and single slashes.
    Prefix(String),
    /// Tokens would go in clear to another machine.
    Clear(String),
    /// No credentials.
    Credentials(CredentialFault),
    /// CA certificates that cannot be used.
    Tls(TlsFault),
}

impl fmt::Display for GcsOpenFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            GcsOpenFault::Endpoint(url) => {
                write!(f, "endpoint {url:?}: expected http://host[:port] or https://host[:port]")
            }
            GcsOpenFault::Bucket(name) => {
                write!(f, "{name:?} is not a bucket name; write gs://bucket/prefix")
            }
            GcsOpenFault::Prefix(prefix) => {
                write!(f, "prefix {prefix:?}: only letters, digits, . _ - and single slashes")
            }
            GcsOpenFault::Clear(host) => {
                write!(f, "access tokens would go in clear to {host}: use https://, or give no credentials")
            }
            GcsOpenFault::Credentials(fault) => write!(f, "credentials: {fault}"),
            GcsOpenFault::Tls(fault) => write!(f, "CA file: {fault}"),
        }
    }
}

impl std::error::Error for GcsOpenFault {}
