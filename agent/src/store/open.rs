//! From what an operator writes (`file:///srv/repo`, `s3://bucket/prefix`, `null:///tmp/x`) to a store, and a second one for the
//! log (`etcd://host:2379/prefix`, `etcd+https://...`, `file:///srv/log`).
//!
//! Invariants: no secret is accepted in a URL. Does not: create directories or buckets, or send anything. Source: ours.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use windlass_hal::clock::Clock;

use super::azure::{AzureOpenFault, AzureSettings, AzureStore};
use super::dir::DirStore;
use super::etcd::{EtcdSettings, EtcdStore, Place, PlaceFault};
use super::gcs::{GcsOpenFault, GcsSettings, GcsStore};
use super::http::TlsFault;
use super::null::NullStore;
use super::s3::{S3OpenFault, S3Settings, S3Store};
use super::split::SplitStore;
use super::throttle::Throttle;
use super::{Store, StoreFault, StoreFaultKind};

/// What a repository's URL may be, for people.
pub const SCHEMES: &str =
    "file:///path, s3://bucket/prefix, az://account/container/prefix or gs://bucket/prefix";

/// What a store needs besides its URL.
#[derive(Clone)]
pub struct Settings {
    /// Time for signatures, throttles and key reloads.
    pub clock: Arc<dyn Clock>,
    /// Limits shared by all stores that are given the same one.
    pub throttle: Arc<Throttle>,
    /// A random number of this process start (its boot number).
    pub nonce: u64,
    /// For `s3:` URLs.
    pub s3: S3Settings,
    /// For `az:` URLs.
    pub azure: AzureSettings,
    /// For `gs:` URLs.
    pub gcs: GcsSettings,
    /// For `etcd:` URLs.
    pub etcd: EtcdSettings,
}

impl Settings {
    /// No limits, keys from the environment.
    pub fn new(clock: Arc<dyn Clock>, nonce: u64) -> Settings {
        let throttle = Arc::new(Throttle::new(Arc::clone(&clock), 0, 0));
        Settings {
            clock,
            throttle,
            nonce,
            s3: S3Settings::default(),
            azure: AzureSettings::default(),
            gcs: GcsSettings::default(),
            etcd: EtcdSettings::default(),
        }
    }
}

/// Why a URL does not open. `Display` says what to write instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OpenFault {
    /// No `scheme:` in front; perhaps a bare path.
    NoScheme(String),
    /// A scheme that is not one of ours.
    UnknownScheme(String),
    /// `file:` or `null:` without an absolute path behind it.
    BadPath {
        /// Which of the two.
        scheme: &'static str,
        /// What was written.
        url: String,
    },
    /// A user or a password in the URL; not repeated here.
    SecretInUrl,
    /// A directory that cannot be used.
    Dir(StoreFault),
    /// S3 settings that cannot be used.
    S3(S3OpenFault),
    /// Azure settings that cannot be used.
    Azure(AzureOpenFault),
    /// Google settings that cannot be used.
    Gcs(GcsOpenFault),
    /// An `etcd:` URL that cannot be used.
    Etcd(PlaceFault),
    /// Certificates for etcd that cannot be used.
    EtcdTls(TlsFault),
    /// A store for the log only, given for a whole repository.
    LogOnly,
    /// A store that cannot be given for the log alone.
    NotForLog(String),
}

impl fmt::Display for OpenFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OpenFault::NoScheme(url) if url.starts_with('/') => {
                write!(f, "{url:?} is a path; write file://{url}")
            }
            OpenFault::NoScheme(url) => {
                write!(f, "{url:?} is not a store; write {SCHEMES}")
            }
            OpenFault::UnknownScheme(scheme) => {
                write!(f, "{scheme}: is not supported; write {SCHEMES}")
            }
            OpenFault::BadPath { scheme, url } => {
                write!(f, "{url:?}: write {scheme}:// and an absolute path, {scheme}:///srv/repo")
            }
            OpenFault::SecretInUrl => {
                write!(f, "a store's URL has no user or password; give a credentials file instead")
            }
            OpenFault::Dir(fault) if fault.kind == StoreFaultKind::StoreGone => {
                let path = fault.call.split_once(' ').map_or("", |(_, path)| path);
                write!(f, "{path}: {}", fault.detail)
            }
            OpenFault::Dir(fault) => fault.fmt(f),
            OpenFault::S3(fault) => fault.fmt(f),
            OpenFault::Azure(fault) => fault.fmt(f),
            OpenFault::Gcs(fault) => fault.fmt(f),
            OpenFault::Etcd(fault) => fault.fmt(f),
            OpenFault::EtcdTls(fault) => write!(f, "certificates for etcd: {fault}"),
            OpenFault::LogOnly => {
                write!(
                    f,
                    "etcd holds the log only; write --repo s3://bucket/prefix --lease-store etcd://host:2379/prefix"
                )
            }
            OpenFault::NotForLog(url) => {
                write!(f, "{url:?} is not a lease store; write etcd://host:2379/prefix or file:///path")
            }
        }
    }
}

impl std::error::Error for OpenFault {}

/// Opens the store that `url` names. Allocates; directories are touched, servers are not.
///
/// # Errors
/// See [`OpenFault`].
pub fn open(url: &str, settings: &Settings) -> Result<Arc<dyn Store>, OpenFault> {
    let (scheme, rest) = url.split_once(':').ok_or_else(|| OpenFault::NoScheme(url.to_owned()))?;
    if scheme.is_empty() || !scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'+') {
        return Err(OpenFault::NoScheme(url.to_owned()));
    }
    match scheme {
        "file" => Ok(Arc::new(directory("file", url, settings)?)),
        "s3" => {
            if rest.contains('@') {
                return Err(OpenFault::SecretInUrl);
            }
            let rest = rest.strip_prefix("//").unwrap_or("");
            let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
            let (clock, throttle) = (Arc::clone(&settings.clock), Arc::clone(&settings.throttle));
            let store = S3Store::open(bucket, prefix, settings.s3.clone(), clock, throttle);
            Ok(Arc::new(store.map_err(OpenFault::S3)?))
        }
        "az" => {
            if rest.contains(['@', '?']) {
                return Err(OpenFault::SecretInUrl);
            }
            let place = rest.strip_prefix("//").unwrap_or("");
            let (clock, throttle) = (Arc::clone(&settings.clock), Arc::clone(&settings.throttle));
            let store = AzureStore::open(place, &settings.azure, clock, throttle);
            Ok(Arc::new(store.map_err(OpenFault::Azure)?))
        }
        "gs" => {
            if rest.contains(['@', '?']) {
                return Err(OpenFault::SecretInUrl);
            }
            let rest = rest.strip_prefix("//").unwrap_or("");
            let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
            let (clock, throttle) = (Arc::clone(&settings.clock), Arc::clone(&settings.throttle));
            let own = GcsSettings { nonce: settings.nonce, ..settings.gcs.clone() };
            let store = GcsStore::open(bucket, prefix, &own, clock, throttle);
            Ok(Arc::new(store.map_err(OpenFault::Gcs)?))
        }
        "null" => Ok(Arc::new(NullStore::new(directory("null", url, settings)?))),
        "etcd" | "etcd+https" => Err(OpenFault::LogOnly),
        _ => Err(OpenFault::UnknownScheme(scheme.to_owned())),
    }
}

/// Opens the store that `url` names for objects and the one that `log_url` names for the log and the lease. Allocates; directories
/// are touched, servers are not.
///
/// # Errors
/// See [`OpenFault`].
pub fn open_split(url: &str, log_url: &str, settings: &Settings) -> Result<SplitStore, OpenFault> {
    let log: Arc<dyn Store> = match log_url.split_once("://") {
        Some((_, rest)) if rest.contains('@') => return Err(OpenFault::SecretInUrl),
        Some((scheme @ ("etcd" | "etcd+https"), rest)) => {
            let place = Place::parse(rest, scheme != "etcd").map_err(OpenFault::Etcd)?;
            Arc::new(EtcdStore::open(place, &settings.etcd).map_err(OpenFault::EtcdTls)?)
        }
        Some(("file", _)) => Arc::new(directory("file", log_url, settings)?),
        _ => return Err(OpenFault::NotForLog(log_url.to_owned())),
    };
    Ok(SplitStore::new(open(url, settings)?, log))
}

fn directory(scheme: &'static str, url: &str, settings: &Settings) -> Result<DirStore, OpenFault> {
    let path = url.split_once("://").map(|(_, path)| path).filter(|path| path.starts_with('/'));
    let path = path.ok_or_else(|| OpenFault::BadPath { scheme, url: url.to_owned() })?;
    let throttle = Arc::clone(&settings.throttle);
    DirStore::open(Path::new(path), settings.nonce, throttle).map_err(OpenFault::Dir)
}

#[cfg(test)]
mod tests {
    use super::*;
    use windlass_hal::clock::SystemClock;

    #[test]
    fn urls_open_or_say_what_to_write() {
        let settings = Settings::new(Arc::new(SystemClock), 1);
        let fault = |url: &str| open(url, &settings).err().unwrap();
        assert!(open("null:///", &settings).unwrap().describe().contains("drops all data"));
        assert!(open("file:///", &settings).is_ok());
        assert!(fault("/srv/repo").to_string().contains("write file:///srv/repo"));
        assert_eq!(fault("repo"), OpenFault::NoScheme("repo".into()));
        assert_eq!(fault("gopher://x"), OpenFault::UnknownScheme("gopher".into()));
        assert_eq!(fault("file:srv"), OpenFault::BadPath { scheme: "file", url: "file:srv".into() });
        assert!(fault("file://srv/x").to_string().contains("file:///srv/repo"));
        assert_eq!(fault("s3://AK:secret@bucket/x"), OpenFault::SecretInUrl);
        assert!(!fault("s3://AK:secret@bucket/x").to_string().contains("secret@"));
        for with_secret in ["az://account/container?sv=1&sig=secret", "az://key@account/container"] {
            assert_eq!(fault(with_secret), OpenFault::SecretInUrl);
        }
        assert!(matches!(fault("az:"), OpenFault::Azure(AzureOpenFault::Account(_))));
        assert!(matches!(fault("gs:"), OpenFault::Gcs(GcsOpenFault::Bucket(_))));
        assert_eq!(fault("gs://key@bucket/x"), OpenFault::SecretInUrl);
        assert!(fault("null:").to_string().contains("null:///srv/repo"));
        assert!(matches!(fault("s3:"), OpenFault::S3(S3OpenFault::Bucket(_))));
        assert!(
            matches!(fault("file:///none/such"), OpenFault::Dir(f) if f.kind == StoreFaultKind::StoreGone)
        );
    }

    #[test]
    fn stores_of_the_log_open_or_say_what_to_write() {
        let settings = Settings::new(Arc::new(SystemClock), 1);
        let opened = |log: &str| open_split("null:///", log, &settings).map(|split| split.log().describe());
        assert_eq!(opened("etcd://a:2379,b/x"), Ok("etcd://a:2379,b:2379/x".to_owned()));
        assert!(opened("file:///").is_ok());
        assert!(matches!(opened("etcd://a:2379"), Err(OpenFault::Etcd(PlaceFault::Prefix(_)))));
        assert_eq!(opened("etcd://root:pw@a/x"), Err(OpenFault::SecretInUrl));
        for bad in ["s3://bucket/x", "null:///", "etcd:a/x", "/srv/log", "a:2379/x"] {
            assert_eq!(opened(bad), Err(OpenFault::NotForLog(bad.to_owned())), "{bad}");
        }
        assert_eq!(open("etcd://a/x", &settings).err(), Some(OpenFault::LogOnly));
    }
}
