//! Credentials of stores: from a file in INI form or from the environment, kept up to date. Never from the command line, which others can read.
//!
//! ```text
//!  [default]
//!  NAME = value
//! ```
//!
//! Invariants: a file is read again when it changed, at most every [`RELOAD_S`] seconds, so rotated keys are picked up
//! without a restart; a file that cannot be read then leaves the old keys in use. Keys that end are asked for again [`RENEW_BEFORE_S`]
//! seconds before, by one thread at a time while the others use the old ones, and never by a call of the lease, whose deadline is
//! short. Does not: know where a store's keys may be ([`Keys`]). Source: AWS CLI "Configuration and credential file settings".

use std::fmt;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use zeroize::Zeroizing;

use crate::civil::iso_utc;

/// Seconds between looks at the file's time.
pub const RELOAD_S: u64 = 30;
/// Seconds before their end that temporary keys are asked for again: services have new ones five minutes before at the latest.
pub const RENEW_BEFORE_S: i64 = 300;
/// Largest credentials file in bytes.
pub const FILE_BYTES_MAX: u64 = 64 * 1024;

/// Where to look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CredentialSource {
    /// The variables that the store's own tools know.
    Env,
    /// A file and the profile in it.
    File {
        /// Path of the file.
        path: PathBuf,
        /// `default` when the operator names none.
        profile: String,
    },
}

/// Why there are no credentials. `Display` says what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CredentialFault {
    /// An environment variable is missing or empty.
    NoVariable(&'static str),
    /// The file cannot be read; the system's error number.
    Unreadable(PathBuf, i32),
    /// The file is not text, or larger than [`FILE_BYTES_MAX`].
    NotText(PathBuf),
    /// The file has no such profile.
    NoProfile(PathBuf, String),
    /// The profile lacks this setting.
    NoSetting(PathBuf, String, &'static str),
    /// What is there cannot be used: where, and why, without the secret.
    Unusable(String, &'static str),
}

impl fmt::Display for CredentialFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CredentialFault::NoVariable(name) => {
                write!(f, "{name} is not set; set it or give a credentials file")
            }
            CredentialFault::Unreadable(path, code) => {
                write!(f, "{}: {}", path.display(), nix::errno::Errno::from_raw(*code).desc())
            }
            CredentialFault::NotText(path) => write!(f, "{}: not a credentials file", path.display()),
            CredentialFault::NoProfile(path, profile) => {
                write!(f, "{}: no profile [{profile}]", path.display())
            }
            CredentialFault::NoSetting(path, profile, name) => {
                write!(f, "{}: profile [{profile}] has no {name}", path.display())
            }
            CredentialFault::Unusable(place, why) => write!(f, "{place}: {why}"),
        }
    }
}

impl std::error::Error for CredentialFault {}

/// A store's credentials in the form that it uses them in.
pub trait Keys: Sized {
    /// Where they may be.
    type Source;
    /// Why there are none.
    type Fault: fmt::Display;

    /// Reads them. That may ask a service beside this machine, for some seconds at most.
    ///
    /// # Errors
    /// Why there are none.
    fn load(source: &Self::Source) -> Result<Loaded<Self>, Self::Fault>;
}

/// Credentials, and where they are from.
#[derive(Debug)]
pub struct Loaded<K> {
    /// The credentials.
    pub keys: K,
    /// Where they are from, for people.
    pub from: String,
    /// The file that is looked at for newer ones.
    pub watched: Option<PathBuf>,
    /// When they end, in seconds since 1970.
    pub until: Option<i64>,
}

impl<K> Loaded<K> {
    /// Keys without an end.
    pub(super) fn lasting(keys: K, from: String, watched: Option<PathBuf>) -> Loaded<K> {
        Loaded { keys, from, watched, until: None }
    }
}

/// Credentials that are kept up to date. Shared between threads.
pub struct Keyring<K: Keys> {
    source: K::Source,
    state: Mutex<State<K>>,
}

struct State<K> {
    keys: Arc<K>,
    from: String,
    watched: Option<PathBuf>,
    until: Option<i64>,
    /// Of the file when read.
    stamp: Stamp,
    looked_ns: u64,
    /// A thread is asking for newer ones.
    is_renewing: bool,
    /// Why the last renewal failed.
    fault: Option<String>,
}

impl<K> State<K> {
    fn new(loaded: Loaded<K>, now_ns: u64) -> State<K> {
        let Loaded { keys, from, watched, until } = loaded;
        let stamp = stamp_of(watched.as_deref());
        let keys = Arc::new(keys);
        State { keys, from, watched, until, stamp, looked_ns: now_ns, is_renewing: false, fault: None }
    }

    /// Whether newer keys are to be asked for now. `hurried`: only when there is no other way.
    fn is_due(&self, now_ns: u64, wall_secs: i64, hurried: bool) -> bool {
        if self.is_renewing || now_ns.saturating_sub(self.looked_ns) < RELOAD_S * 1_000_000_000 {
            return false;
        }
        let before = if hurried { 0 } else { RENEW_BEFORE_S };
        self.until.is_some_and(|until| wall_secs.saturating_add(before) >= until)
    }
}

impl<K: Keys> Keyring<K> {
    /// Reads them for the first time.
    ///
    /// # Errors
    /// Why there are none.
    pub fn open(source: K::Source, now_ns: u64) -> Result<Keyring<K>, K::Fault> {
        let state = State::new(K::load(&source)?, now_ns);
        Ok(Keyring { source, state: Mutex::new(state) })
    }

    /// The keys to use now; `wall_secs` are seconds since 1970, `hurried` a call that must not wait for others.
    pub fn current(&self, now_ns: u64, wall_secs: i64, hurried: bool) -> Arc<K> {
        let mut state = self.lock();
        if state.is_due(now_ns, wall_secs, hurried) {
            state.is_renewing = true;
            state.looked_ns = now_ns;
            drop(state);
            let loaded = K::load(&self.source);
            state = self.lock();
            match loaded {
                Ok(loaded) => *state = State::new(loaded, now_ns),
                Err(fault) => {
                    log::warn!("credentials: the old ones are used on, no newer ones came fault={fault}");
                    state.is_renewing = false;
                    state.fault = Some(fault.to_string());
                }
            }
        } else if state.watched.is_some()
            && now_ns.saturating_sub(state.looked_ns) >= RELOAD_S * 1_000_000_000
        {
            state.looked_ns = now_ns;
            if stamp_of(state.watched.as_deref()) != state.stamp
                && let Ok(loaded) = K::load(&self.source)
            {
                *state = State::new(loaded, now_ns);
            }
        }
        Arc::clone(&state.keys)
    }

    /// Where the keys are from, for people: the source, until when they are valid, and why there are no newer ones.
    pub fn said(&self) -> String {
        let state = self.lock();
        let until = state.until.map(|until| format!(", valid until {}", iso_utc(until))).unwrap_or_default();
        let fault =
            state.fault.as_ref().map(|why| format!("; no newer ones came: {why}")).unwrap_or_default();
        format!("{}{until}{fault}", state.from)
    }

    fn lock(&self) -> MutexGuard<'_, State<K>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn stamp_of(watched: Option<&Path>) -> Stamp {
    watched.map_or(Stamp::default(), stamp)
}

/// (seconds, nanoseconds, inode, size) of a file: it is read again when they change.
pub(super) type Stamp = (i64, i64, u64, u64);

/// That of a file; zeros of one that cannot be looked at.
pub(super) fn stamp(path: &Path) -> Stamp {
    std::fs::metadata(path)
        .map_or(Stamp::default(), |meta| (meta.mtime(), meta.mtime_nsec(), meta.ino(), meta.size()))
}

/// An environment variable that has something in it.
pub(super) fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// A file with secrets that cannot be read.
pub(super) struct Unread {
    pub(super) path: PathBuf,
    /// The system's error number; `None`: it is not text, or larger than [`FILE_BYTES_MAX`].
    pub(super) code: Option<i32>,
}

impl From<Unread> for CredentialFault {
    fn from(unread: Unread) -> CredentialFault {
        match unread.code {
            Some(code) => CredentialFault::Unreadable(unread.path, code),
            None => CredentialFault::NotText(unread.path),
        }
    }
}

/// The text of a file with secrets.
pub(super) fn read_text(path: &Path) -> Result<Zeroizing<String>, Unread> {
    let unread = |code| Unread { path: path.to_owned(), code };
    let failed = |e: std::io::Error| match e.kind() {
        std::io::ErrorKind::InvalidData => unread(None),
        _ => unread(Some(e.raw_os_error().unwrap_or(0))),
    };
    let mut text = Zeroizing::new(String::new());
    let file = std::fs::File::open(path).map_err(failed)?;
    file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text).map_err(failed)?;
    if text.len() as u64 > FILE_BYTES_MAX { Err(unread(None)) } else { Ok(text) }
}

/// The settings `names` of a profile; `None` when there is no such profile.
pub(super) fn parse_profile<'a, const N: usize>(
    text: &'a str,
    profile: &str,
    names: [&str; N],
) -> Option<[Option<&'a str>; N]> {
    let mut found: Option<[Option<&str>; N]> = None;
    let mut inside = false;
    for line in text.lines().map(str::trim).filter(|line| !line.starts_with(['#', ';'])) {
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            let name = name.trim();
            inside = name == profile || name.strip_prefix("profile ").is_some_and(|n| n.trim() == profile);
            if inside {
                found.get_or_insert([None; N]);
            }
        } else if inside
            && let Some((name, value)) = line.split_once('=')
            && let Some(found) = &mut found
            && !value.trim().is_empty()
            && let Some(at) = names.iter().position(|known| *known == name.trim())
        {
            found[at] = Some(value.trim());
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn profiles_are_found_by_name() {
        let text = "# keys\n[default]\nid = A\nsecret=S=/+\n\n[ other ]\n\
                    region = x\nid=B\nsecret = \n[profile third]\ntoken=T\n";
        let parse = |profile| parse_profile(text, profile, ["id", "secret", "token"]);
        assert_eq!(parse("default"), Some([Some("A"), Some("S=/+"), None]));
        assert_eq!(parse("other"), Some([Some("B"), None, None]));
        assert_eq!(parse("third"), Some([None, None, Some("T")]));
        assert_eq!(parse("none"), None);
    }
}
