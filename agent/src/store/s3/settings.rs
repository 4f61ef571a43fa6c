//! Settings of an S3 store, and why they are refused. Source: ours.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use super::chain::Chain;
use super::keys::{CredentialFault, CredentialSource};
use crate::store::http::{Timeouts, TlsFault};

/// How the bucket is named in a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Addressing {
    /// Virtual host on AWS, path everywhere else.
    #[default]
    Auto,
    /// `https://host/bucket/key`.
    Path,
    /// `https://bucket.host/key`.
    VirtualHost,
}

/// Everything about an S3 store that is not in its URL.
#[derive(Clone, Debug)]
pub struct S3Settings {
    /// `http://host:port` or `https://host`; `None` is AWS in `region`.
    pub endpoint: Option<String>,
    /// `us-east-1` when `None`, which most compatible servers accept.
    pub region: Option<String>,
    /// Path or virtual host.
    pub addressing: Addressing,
    /// CA certificates in PEM instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// Where the keys are.
    pub credentials: CredentialSource,
    /// How long to wait.
    pub timeouts: Timeouts,
    /// Idle connections kept; at least the number of threads that share the store.
    pub connections: usize,
    /// The one address of the server to connect to, for a probe of each; `None`: whichever its name resolves to.
    pub address: Option<SocketAddr>,
}

impl Default for S3Settings {
    fn default() -> S3Settings {
        S3Settings {
            endpoint: None,
            region: None,
            addressing: Addressing::Auto,
            ca_file: None,
            credentials: CredentialSource::Chain(Chain::default()),
            timeouts: Timeouts::DATA,
            connections: 8,
            address: None,
        }
    }
}

/// Why an S3 store cannot be opened. `Display` says what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum S3OpenFault {
    /// Not `http://host[:port]` or `https://host[:port]`.
    Endpoint(String),
    /// Not a bucket name (3 to 63 of a-z 0-9 . - _).
    Bucket(String),
    /// The prefix has other characters than A-Z a-z 0-9 . _ - and single slashes.
    Prefix(String),
    /// No credentials.
    Credentials(CredentialFault),
    /// CA certificates that cannot be used.
    Tls(TlsFault),
}

impl fmt::Display for S3OpenFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            S3OpenFault::Endpoint(url) => {
                write!(f, "endpoint {url:?}: expected http://host[:port] or https://host[:port]")
            }
            S3OpenFault::Bucket(name) => write!(f, "{name:?} is not a bucket name"),
            S3OpenFault::Prefix(prefix) => {
                write!(f, "prefix {prefix:?}: only letters, digits, . _ - and single slashes")
            }
            S3OpenFault::Credentials(fault) => write!(f, "credentials: {fault}"),
            S3OpenFault::Tls(fault) => write!(f, "CA file: {fault}"),
        }
    }
}

impl std::error::Error for S3OpenFault {}
