//! Settings of an Azure store, and why they are refused. Source: Microsoft "Naming and referencing containers, blobs, and metadata".

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use crate::store::http::{Timeouts, TlsFault};
use crate::store::keyring::{CredentialFault, CredentialSource};

/// Everything about an Azure store that is not in its URL.
#[derive(Clone, Debug)]
pub struct AzureSettings {
    /// `http://host:port` or `https://host`. A host that begins with the account's name is the account's own; every other one gets the
    /// account as the first part of the path. `None`: `https://ACCOUNT.blob.core.windows.net`.
    pub endpoint: Option<String>,
    /// CA certificates in PEM instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// Where the key or the shared access signature is.
    pub credentials: CredentialSource,
    /// How long to wait.
    pub timeouts: Timeouts,
    /// Idle connections kept; at least the number of threads that share the store.
    pub connections: usize,
    /// The one address of the server to connect to, for a probe of each; `None`: whichever its name resolves to.
    pub address: Option<SocketAddr>,
}

impl Default for AzureSettings {
    fn default() -> AzureSettings {
        AzureSettings {
            endpoint: None,
            ca_file: None,
            credentials: CredentialSource::Env,
            timeouts: Timeouts::DATA,
            connections: 8,
            address: None,
        }
    }
}

/// Why an Azure store cannot be opened. `Display` says what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AzureOpenFault {
    /// Not `http://host[:port]` or `https://host[:port]`.
    Endpoint(String),
    /// Not the name of an account (3 to 24 of a-z 0-9).
    Account(String),
    /// Not the name of a container (3 to 63 of a-z 0-9 and single -).
    Container(String),
    /// The prefix has other characters than A-Z a-z 0-9 . _ - and single slashes.
    Prefix(String),
    /// A shared access signature would go in clear to another machine.
    Clear(String),
    /// No credentials.
    Credentials(CredentialFault),
    /// CA certificates that cannot be used.
    Tls(TlsFault),
}

impl fmt::Display for AzureOpenFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AzureOpenFault::Endpoint(url) => {
                write!(f, "endpoint {url:?}: expected http://host[:port] or https://host[:port]")
            }
            AzureOpenFault::Account(name) => {
                write!(f, "{name:?} is not the name of an account; write az://account/container/prefix")
            }
            AzureOpenFault::Container(name) => {
                write!(f, "{name:?} is not the name of a container; write az://account/container/prefix")
            }
            AzureOpenFault::Prefix(prefix) => {
                write!(f, "prefix {prefix:?}: only letters, digits, . _ - and single slashes")
            }
            AzureOpenFault::Clear(host) => {
                write!(f, "a shared access signature would go in clear to {host}: use https://")
            }
            AzureOpenFault::Credentials(fault) => write!(f, "credentials: {fault}"),
            AzureOpenFault::Tls(fault) => write!(f, "CA file: {fault}"),
        }
    }
}

impl std::error::Error for AzureOpenFault {}

pub(super) fn is_account(name: &str) -> bool {
    (3..=24).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
}

pub(super) fn is_container(name: &str) -> bool {
    let own = ["$root", "$web"].contains(&name);
    let usable =
        |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    own || (3..=63).contains(&name.len()) && name.split('-').all(usable)
}
