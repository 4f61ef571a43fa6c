//! Where credentials come from: a file in AWS's INI form, or the [chain](super::chain). Never the command line, which others can read.
//!
//! ```text
//!  [default]
//!  aws_access_key_id = AKIA...
//!  aws_secret_access_key = ...
//!  aws_session_token = ...        (optional)
//! ```
//!
//! Invariants: secrets are wiped when dropped. Does not: keep them up to date (`store::keyring`).
//! Source: AWS CLI "Configuration and credential file settings".

use std::fmt;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::chain::{Chain, OTHER_WAYS};
use super::sign::Credentials;
use crate::store::keyring::{self, Keys, Loaded, Unread, parse_profile, read_text};

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
    /// An environment variable is missing or empty, and its partner is set.
    NoVariable(&'static str),
    /// What is wrong with a file.
    File(keyring::CredentialFault),
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
            CredentialFault::File(fault) => fault.fmt(f),
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

impl From<keyring::CredentialFault> for CredentialFault {
    fn from(fault: keyring::CredentialFault) -> CredentialFault {
        CredentialFault::File(fault)
    }
}

impl From<Unread> for CredentialFault {
    fn from(unread: Unread) -> CredentialFault {
        CredentialFault::File(unread.into())
    }
}

fn list(passed: &[(String, String)]) -> String {
    passed.iter().map(|(source, why)| format!("{source}: {why}")).collect::<Vec<_>>().join("; ")
}

impl Keys for Credentials {
    type Source = CredentialSource;
    type Fault = CredentialFault;

    fn load(source: &CredentialSource) -> Result<Loaded<Credentials>, CredentialFault> {
        match source {
            CredentialSource::Chain(chain) => chain.load(),
            CredentialSource::File { path, profile } => {
                let keys = match load_file(path, profile)? {
                    Ok(keys) => keys,
                    Err(way) => return Err(CredentialFault::OtherWay(path.clone(), profile.clone(), way)),
                };
                let from = format!("profile [{profile}] of {}", path.display());
                Ok(Loaded::lasting(keys, from, Some(path.clone())))
            }
        }
    }
}

/// Settings of a profile that are keys.
const SETTINGS: [&str; 3] = ["aws_access_key_id", "aws_secret_access_key", "aws_session_token"];

/// The keys of a profile of a file; the inner `Err` is the other way to keys that it has instead.
pub(super) fn load_file(
    path: &Path,
    profile: &str,
) -> Result<Result<Credentials, &'static str>, CredentialFault> {
    let text = read_text(path)?;
    let no_profile = || keyring::CredentialFault::NoProfile(path.to_owned(), profile.to_owned());
    let missing = |name| keyring::CredentialFault::NoSetting(path.to_owned(), profile.to_owned(), name);
    let [id, secret, token] = parse_profile(&text, profile, SETTINGS).ok_or_else(no_profile)?;
    let ways = parse_profile(&text, profile, OTHER_WAYS).ok_or_else(no_profile)?;
    let way = OTHER_WAYS.into_iter().zip(ways).find_map(|(way, value)| value.map(|_| way));
    if let (None, Some(way)) = (id, way) {
        return Ok(Err(way));
    }
    Ok(Ok(Credentials {
        access_key_id: id.ok_or_else(|| missing(SETTINGS[0]))?.to_owned(),
        secret_access_key: Zeroizing::new(secret.ok_or_else(|| missing(SETTINGS[1]))?.to_owned()),
        session_token: token.map(|token| Zeroizing::new(token.to_owned())),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::keyring::{Keyring, RELOAD_S};

    #[test]
    fn a_changed_file_is_read_again_and_a_broken_one_is_not_used() {
        let path = std::env::temp_dir().join(format!("windlass-keys-{}", std::process::id()));
        let write = |id: &str| {
            let text = format!("[default]\naws_access_key_id={id}\naws_secret_access_key=S\n");
            std::fs::write(&path, text).unwrap();
        };
        write("first");
        let source = CredentialSource::File { path: path.clone(), profile: "default".into() };
        let ring = Keyring::<Credentials>::open(source, 0).unwrap();
        write("second!");
        assert_eq!(ring.current(RELOAD_S * 1_000_000_000 - 1, 0, false).access_key_id, "first");
        assert_eq!(ring.current(RELOAD_S * 1_000_000_000, 0, true).access_key_id, "second!");
        std::fs::write(&path, "[default]\n").unwrap();
        assert_eq!(ring.current(2 * RELOAD_S * 1_000_000_000, 0, false).access_key_id, "second!");
        std::fs::remove_file(&path).unwrap();
        let source = CredentialSource::File { path: path.clone(), profile: "default".into() };
        let gone = Keyring::<Credentials>::open(source, 0).err();
        assert!(matches!(gone, Some(CredentialFault::File(keyring::CredentialFault::Unreadable(_, 2)))));
    }
}
