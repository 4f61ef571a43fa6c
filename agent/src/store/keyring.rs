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
    /// (seconds, nanoseconds, inode, size) of the file when read.
    stamp: (i64, i64, u64, u64),
    looked_ns: u64,
}

impl<K: Keys> Keyring<K> {
    /// Reads them for the first time.
    ///
    /// # Errors
    /// Why there are none.
    pub fn open(source: CredentialSource, now_ns: u64) -> Result<Keyring<K>, CredentialFault> {
        let stamp = stamp(&source);
        let keys = Arc::new(K::load(&source)?);
        Ok(Keyring { source, state: Mutex::new(State { keys, stamp, looked_ns: now_ns }) })
    }

    /// The keys to use now.
    pub fn current(&self, now_ns: u64) -> Arc<K> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if now_ns.saturating_sub(state.looked_ns) >= RELOAD_S * 1_000_000_000 {
            state.looked_ns = now_ns;
            let stamp = stamp(&self.source);
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

fn stamp(source: &CredentialSource) -> (i64, i64, u64, u64) {
    match source {
        CredentialSource::Env => (0, 0, 0, 0),
        CredentialSource::File { path, .. } => std::fs::metadata(path)
            .map_or((0, 0, 0, 0), |meta| (meta.mtime(), meta.mtime_nsec(), meta.ino(), meta.size())),
    }
}

/// An environment variable that has something in it.
pub(super) fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// The text of a file with secrets.
pub(super) fn read_text(path: &Path) -> Result<Zeroizing<String>, CredentialFault> {
    let unreadable =
        |e: std::io::Error| CredentialFault::Unreadable(path.to_path_buf(), e.raw_os_error().unwrap_or(0));
    let mut text = Zeroizing::new(String::new());
    let file = std::fs::File::open(path).map_err(unreadable)?;
    match file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text) {
        Err(e) if e.kind() == std::io::ErrorKind::InvalidData => {
            Err(CredentialFault::NotText(path.to_path_buf()))
        }
        Ok(_) if text.len() as u64 > FILE_BYTES_MAX => Err(CredentialFault::NotText(path.to_path_buf())),
        other => other.map(|_| text).map_err(unreadable),
    }
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
