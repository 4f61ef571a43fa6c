//! Where credentials come from: a file in AWS's INI form, or the [chain](super::chain). Never the command line, which others can read.
//!
//! ```text
//!  [default]
//!  aws_access_key_id = AKIA...
//!  aws_secret_access_key = ...
//!  aws_session_token = ...        (optional)
//! ```
//!
//! Invariants: a file is read again when it changed, at most every [`RELOAD_S`] seconds, so rotated keys are picked up
//! without a restart; a file that cannot be read then leaves the old keys in use. Keys that end are asked for again [`RENEW_BEFORE_S`]
//! seconds before, by one thread at a time while the others use the old ones, and never by a call of the lease, whose deadline is
//! short. Secrets are wiped when dropped. Source: AWS CLI "Configuration and credential file settings".

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use zeroize::Zeroizing;

use super::chain::{Chain, OTHER_WAYS};
use super::sign::Credentials;
use crate::civil::iso_utc;
pub use crate::store::keyring::{FILE_BYTES_MAX, RELOAD_S};
use crate::store::keyring::{Stamp, Unread, read_text, stamp};

/// Seconds before their end that temporary keys are asked for again: services have new ones five minutes before at the latest.
pub const RENEW_BEFORE_S: i64 = 300;

/// Where to look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CredentialSource {
    /// The usual chain: environment, shared files, roles.
    Chain(Chain),
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
    /// The profile names a way to keys that this program does not go.
    OtherWay(PathBuf, String, &'static str),
    /// The profile that was named has keys in none of these.
    NoKeysOf(String, Vec<(String, String)>),
    /// A role that is named gives no keys: which, and why.
    Role(&'static str, String),
    /// No source has any: each, and why.
    Nowhere(Vec<(String, String)>),
}

impl fmt::Display for CredentialFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CredentialFault::NoVariable(name) => {
                write!(f, "the environment: {name} is not set, and its partner is; set both, or none")
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
            CredentialFault::OtherWay(path, profile, way) => write!(
                f,
                "{}: profile [{profile}] gets its keys by {way}, which windlass does not do; put keys into a profile, or have AWS's \
                 program put them into the environment with `eval \"$(aws configure export-credentials --profile {profile} \
                 --format env)\"`, and leave --profile, AWS_PROFILE and --credentials-file out",
                path.display()
            ),
            CredentialFault::NoKeysOf(profile, passed) => {
                write!(f, "profile [{profile}] has no keys: {}", list(passed))
            }
            CredentialFault::Role(which, why) => write!(f, "{which}: {why}"),
            CredentialFault::Nowhere(passed) => {
                write!(
                    f,
                    "none were found; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or give a credentials file ({})",
                    list(passed)
                )
            }
        }
    }
}

impl std::error::Error for CredentialFault {}

impl From<Unread> for CredentialFault {
    fn from(unread: Unread) -> CredentialFault {
        match unread.code {
            Some(code) => CredentialFault::Unreadable(unread.path, code),
            None => CredentialFault::NotText(unread.path),
        }
    }
}

fn list(passed: &[(String, String)]) -> String {
    passed.iter().map(|(source, why)| format!("{source}: {why}")).collect::<Vec<_>>().join("; ")
}

/// Credentials, and where they are from.
#[derive(Debug)]
pub(super) struct Loaded {
    keys: Credentials,
    from: String,
    /// The file that is looked at for newer ones.
    watched: Option<CredentialSource>,
    /// When they end, in seconds since 1970.
    until: Option<i64>,
}

impl Loaded {
    /// Keys without an end.
    pub(super) fn lasting(keys: Credentials, from: String, watched: Option<CredentialSource>) -> Loaded {
        Loaded { keys, from, watched, until: None }
    }

    /// Keys that may end.
    pub(super) fn until(keys: Credentials, from: String, until: Option<i64>) -> Loaded {
        Loaded { keys, from, watched: None, until }
    }
}

/// Credentials that are kept up to date. Shared between threads.
pub struct Keyring {
    source: CredentialSource,
    state: Mutex<State>,
}

struct State {
    keys: Arc<Credentials>,
    from: String,
    watched: Option<CredentialSource>,
    until: Option<i64>,
    /// Of the file when read.
    stamp: Stamp,
    looked_ns: u64,
    /// A thread is asking for newer ones.
    is_renewing: bool,
    /// Why the last renewal failed.
    fault: Option<String>,
}

impl State {
    fn new(loaded: Loaded, now_ns: u64) -> State {
        let Loaded { keys, from, watched, until } = loaded;
        let stamp = stamp_of(watched.as_ref());
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

impl Keyring {
    /// Reads them for the first time. That may ask a service beside this machine, for some seconds at most.
    pub fn open(source: CredentialSource, now_ns: u64) -> Result<Keyring, CredentialFault> {
        let state = State::new(load(&source)?, now_ns);
        Ok(Keyring { source, state: Mutex::new(state) })
    }

    /// The keys to use now; `wall_secs` are seconds since 1970, `hurried` a call that must not wait for others.
    pub fn current(&self, now_ns: u64, wall_secs: i64, hurried: bool) -> Arc<Credentials> {
        let mut state = self.lock();
        if state.is_due(now_ns, wall_secs, hurried) {
            state.is_renewing = true;
            state.looked_ns = now_ns;
            drop(state);
            let loaded = load(&self.source);
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
            if stamp_of(state.watched.as_ref()) != state.stamp
                && let Ok(loaded) = load(&self.source)
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

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn stamp_of(watched: Option<&CredentialSource>) -> Stamp {
    match watched {
        Some(CredentialSource::File { path, .. }) => stamp(path),
        _ => Stamp::default(),
    }
}

fn load(source: &CredentialSource) -> Result<Loaded, CredentialFault> {
    match source {
        CredentialSource::Chain(chain) => chain.load(),
        CredentialSource::File { path, profile } => {
            let keys = match load_file(path, profile, &OTHER_WAYS)? {
                Ok(keys) => keys,
                Err(way) => return Err(CredentialFault::OtherWay(path.clone(), profile.clone(), way)),
            };
            let from = format!("profile [{profile}] of {}", path.display());
            Ok(Loaded::lasting(keys, from, Some(source.clone())))
        }
    }
}

/// The keys of a profile of a file; the inner `Err` is the setting of `others` that it has instead of keys.
pub(super) fn load_file(
    path: &Path,
    profile: &str,
    others: &[&'static str],
) -> Result<Result<Credentials, &'static str>, CredentialFault> {
    let text = read_text(path)?;
    let missing = |name| CredentialFault::NoSetting(path.to_owned(), profile.to_owned(), name);
    let (found, way) = parse_profile(&text, profile, others)
        .ok_or_else(|| CredentialFault::NoProfile(path.to_owned(), profile.to_owned()))?;
    let [id, secret, token] = found;
    if let (None, Some(way)) = (id, way) {
        return Ok(Err(way));
    }
    Ok(Ok(Credentials {
        access_key_id: id.ok_or_else(|| missing("aws_access_key_id"))?.to_owned(),
        secret_access_key: Zeroizing::new(secret.ok_or_else(|| missing("aws_secret_access_key"))?.to_owned()),
        session_token: token.map(|token| Zeroizing::new(token.to_owned())),
    }))
}

/// (id, secret, token) of a profile, and which of `others` it has; `None` when there is no such profile.
type Profile<'a> = ([Option<&'a str>; 3], Option<&'static str>);

fn parse_profile<'a>(text: &'a str, profile: &str, others: &[&'static str]) -> Option<Profile<'a>> {
    let mut way = None;
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
                name => way = way.or(others.iter().find(|other| **other == name).copied()),
            }
        }
    }
    found.map(|found| (found, way))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn profiles_are_found_by_name() {
        let text = "# keys\n[default]\naws_access_key_id = A\naws_secret_access_key=S=/+\n\n[ other ]\n\
                    region = x\naws_access_key_id=B\naws_secret_access_key = \n[profile third]\naws_session_token=T\n";
        let found = |profile| parse_profile(text, profile, &["region"]);
        assert_eq!(found("default"), Some(([Some("A"), Some("S=/+"), None], None)));
        assert_eq!(found("other"), Some(([Some("B"), None, None], Some("region"))));
        assert_eq!(found("third"), Some(([None, None, Some("T")], None)));
        assert_eq!(found("none"), None);
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
        assert_eq!(ring.current(RELOAD_S * 1_000_000_000 - 1, 0, false).access_key_id, "first");
        assert_eq!(ring.current(RELOAD_S * 1_000_000_000, 0, true).access_key_id, "second!");
        std::fs::write(&path, "[default]\n").unwrap();
        assert_eq!(ring.current(2 * RELOAD_S * 1_000_000_000, 0, false).access_key_id, "second!");
        std::fs::remove_file(&path).unwrap();
        let source = CredentialSource::File { path: path.clone(), profile: "default".into() };
        assert!(matches!(Keyring::open(source, 0), Err(CredentialFault::Unreadable(_, 2))));
    }
}
