//! Credentials of stores: from a file in INI form or from the environment, kept up to date. Never from the command line, which others can read.
//!
//! ```text
//!  [default]
//!  NAME = value
//! ```
//!
//! Invariants: a file is read again when it changed, at most every [`RELOAD_S`] seconds, so rotated keys are picked up
//! without a restart; a file that cannot be read then leaves the old keys in use.
//! Source: AWS CLI "Configuration and credential file settings".

use std::fmt;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use zeroize::Zeroizing;

/// Seconds between looks at the file's time.
pub const RELOAD_S: u64 = 30;
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
    /// Reads them.
    ///
    /// # Errors
    /// Why there are none.
    fn load(source: &CredentialSource) -> Result<Self, CredentialFault>;
}

/// Credentials that are kept up to date. Shared between threads.
pub struct Keyring<K> {
    source: CredentialSource,
    state: Mutex<State<K>>,
}

struct State<K> {
    keys: Arc<K>,
    /// Of the file when read.
    stamp: Stamp,
    looked_ns: u64,
}

impl<K: Keys> Keyring<K> {
    /// Reads them for the first time.
    ///
    /// # Errors
    /// Why there are none.
    pub fn open(source: CredentialSource, now_ns: u64) -> Result<Keyring<K>, CredentialFault> {
        let stamp = stamp_of(&source);
        let keys = Arc::new(K::load(&source)?);
        Ok(Keyring { source, state: Mutex::new(State { keys, stamp, looked_ns: now_ns }) })
    }

    /// The keys to use now.
    pub fn current(&self, now_ns: u64) -> Arc<K> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if now_ns.saturating_sub(state.looked_ns) >= RELOAD_S * 1_000_000_000 {
            state.looked_ns = now_ns;
            let stamp = stamp_of(&self.source);
            if stamp != state.stamp
                && let Ok(keys) = K::load(&self.source)
            {
                state.keys = Arc::new(keys);
                state.stamp = stamp;
            }
        }
        Arc::clone(&state.keys)
    }
}

fn stamp_of(source: &CredentialSource) -> Stamp {
    match source {
        CredentialSource::Env => Stamp::default(),
        CredentialSource::File { path, .. } => stamp(path),
    }
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
