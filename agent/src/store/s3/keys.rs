//! Where credentials come from: a file in AWS's INI form, or the environment. Never the command line, which others can read.
//!
//! ```text
//!  [default]
//!  aws_access_key_id = AKIA...
//!  aws_secret_access_key = ...
//!  aws_session_token = ...        (optional)
//! ```
//!
//! Invariants: a file is read again when it changed, at most every [`RELOAD_S`] seconds, so rotated keys are picked up
//! without a restart; a file that cannot be read then leaves the old keys in use. Secrets are wiped when dropped.
//! Does not: ask instance metadata services. Source: AWS CLI "Configuration and credential file settings".

use std::fmt;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use zeroize::Zeroizing;

use super::sign::Credentials;

/// Seconds between looks at the file's time.
pub const RELOAD_S: u64 = 30;
/// Largest credentials file in bytes.
pub const FILE_BYTES_MAX: u64 = 64 * 1024;

/// Where to look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CredentialSource {
    /// `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_SESSION_TOKEN`.
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
        }
    }
}

impl std::error::Error for CredentialFault {}

/// Credentials that are kept up to date. Shared between threads.
pub struct Keyring {
    source: CredentialSource,
    state: Mutex<State>,
}

struct State {
    keys: Arc<Credentials>,
    /// (seconds, nanoseconds, inode, size) of the file when read.
    stamp: (i64, i64, u64, u64),
    looked_ns: u64,
}

impl Keyring {
    /// Reads them for the first time.
    pub fn open(source: CredentialSource, now_ns: u64) -> Result<Keyring, CredentialFault> {
        let stamp = stamp(&source);
        let keys = Arc::new(load(&source)?);
        Ok(Keyring { source, state: Mutex::new(State { keys, stamp, looked_ns: now_ns }) })
    }

    /// The keys to use now.
    pub fn current(&self, now_ns: u64) -> Arc<Credentials> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if now_ns.saturating_sub(state.looked_ns) >= RELOAD_S * 1_000_000_000 {
            state.looked_ns = now_ns;
            let stamp = stamp(&self.source);
            if stamp != state.stamp
                && let Ok(keys) = load(&self.source)
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

fn load(source: &CredentialSource) -> Result<Credentials, CredentialFault> {
    match source {
        CredentialSource::Env => {
            let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
            let need = |name| variable(name).ok_or(CredentialFault::NoVariable(name));
            Ok(Credentials {
                access_key_id: need("AWS_ACCESS_KEY_ID")?,
                secret_access_key: Zeroizing::new(need("AWS_SECRET_ACCESS_KEY")?),
                session_token: variable("AWS_SESSION_TOKEN").map(Zeroizing::new),
            })
        }
        CredentialSource::File { path, profile } => {
            let unreadable =
                |e: std::io::Error| CredentialFault::Unreadable(path.clone(), e.raw_os_error().unwrap_or(0));
            let mut text = Zeroizing::new(String::new());
            let file = std::fs::File::open(path).map_err(unreadable)?;
            match file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text) {
                Err(e) if e.kind() == std::io::ErrorKind::InvalidData => {
                    return Err(CredentialFault::NotText(path.clone()));
                }
                Ok(_) if text.len() as u64 > FILE_BYTES_MAX => {
                    return Err(CredentialFault::NotText(path.clone()));
                }
                other => other.map_err(unreadable)?,
            };
            let missing = |name| CredentialFault::NoSetting(path.clone(), profile.clone(), name);
            let found = parse_profile(&text, profile)
                .ok_or_else(|| CredentialFault::NoProfile(path.clone(), profile.clone()))?;
            let [id, secret, token] = found;
            Ok(Credentials {
                access_key_id: id.ok_or_else(|| missing("aws_access_key_id"))?.to_owned(),
                secret_access_key: Zeroizing::new(
                    secret.ok_or_else(|| missing("aws_secret_access_key"))?.to_owned(),
                ),
                session_token: token.map(|token| Zeroizing::new(token.to_owned())),
            })
        }
    }
}

/// (id, secret, token) of a profile; `None` when there is no such profile.
fn parse_profile<'a>(text: &'a str, profile: &str) -> Option<[Option<&'a str>; 3]> {
    let mut found: Option<[Option<&str>; 3]> = None;
    let mut inside = false;
    for line in text.lines().map(str::trim).filter(|line| !line.starts_with(['#', ';'])) {
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            let name = name.trim();
            inside = name == profile || name.strip_prefix("profile ").is_some_and(|n| n.trim() == profile);
            if inside {
                found.get_or_insert_default();
            }
        } else if inside
            && let Some((name, value)) = line.split_once('=')
            && let Some(found) = &mut found
            && !value.trim().is_empty()
        {
            let value = Some(value.trim());
            match name.trim() {
                "aws_access_key_id" => found[0] = value,
                "aws_secret_access_key" => found[1] = value,
                "aws_session_token" => found[2] = value,
                _ => {}
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn profiles_are_found_by_name() {
        let text = "# keys\n[default]\naws_access_key_id = A\naws_secret_access_key=S=/+\n\n[ other ]\n\
                    region = x\naws_access_key_id=B\naws_secret_access_key = \n[profile third]\naws_session_token=T\n";
        assert_eq!(parse_profile(text, "default"), Some([Some("A"), Some("S=/+"), None]));
        assert_eq!(parse_profile(text, "other"), Some([Some("B"), None, None]));
        assert_eq!(parse_profile(text, "third"), Some([None, None, Some("T")]));
        assert_eq!(parse_profile(text, "none"), None);
    }

    #[test]
    fn a_changed_file_is_read_again_and_a_broken_one_is_not_used() {
        let path = std::env::temp_dir().join(format!("windlass-keys-{}", std::process::id()));
        let write = |id: &str| {
            let text = format!("[default]\naws_access_key_id={id}\naws_secret_access_key=S\n");
            std::fs::write(&path, text).unwrap();
        };
        write("first");
        let source = CredentialSource::File { path: path.clone(), profile: "default".into() };
        let ring = Keyring::open(source, 0).unwrap();
        write("second!");
        assert_eq!(ring.current(RELOAD_S * 1_000_000_000 - 1).access_key_id, "first");
        assert_eq!(ring.current(RELOAD_S * 1_000_000_000).access_key_id, "second!");
        std::fs::write(&path, "[default]\n").unwrap();
        assert_eq!(ring.current(2 * RELOAD_S * 1_000_000_000).access_key_id, "second!");
        std::fs::remove_file(&path).unwrap();
        let source = CredentialSource::File { path: path.clone(), profile: "default".into() };
        assert!(matches!(Keyring::open(source, 0), Err(CredentialFault::Unreadable(_, 2))));
    }
}
