//! The usual chain of AWS programs: where credentials come from when no file of them is named.
//!
//! | order | source | is asked when |
//! |---|---|---|
//! | 1 | the environment: `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_SESSION_TOKEN` | one of the first two is set |
//! | 2 | `~/.aws/credentials`, or `AWS_SHARED_CREDENTIALS_FILE` | it has the profile: `--profile`, else `AWS_PROFILE`, else `default` |
//! | 3 | `~/.aws/config`, or `AWS_CONFIG_FILE` | the same |
//! | 4 | the role of a container: `AWS_CONTAINER_CREDENTIALS_RELATIVE_URI`, else `..._FULL_URI` | one of them is set |
//! | 5 | the role of an EC2 instance (IMDSv2) | `AWS_EC2_METADATA_DISABLED` is not `true` |
//!
//! Invariants: a source that is there and broken ends the chain with a fault that names it, so that a mistake does not make the program use
//! other keys; one that is not there is passed over, and named when there is none at all. Nothing secret is in `Debug`.
//! Does not: web identities, single sign-on, roles that a profile names, or programs that print keys: such a profile is refused by name.
//! Source: AWS SDKs and Tools Reference Guide, "Standardized credential providers".

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::keys::{CredentialFault, load_file};
use super::metadata;
use super::sign::Credentials;
use crate::store::keyring::{self, Loaded};

/// What the chain reads of the environment.
const VARIABLES: [&str; 14] = [
    "HOME",
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_PROFILE",
    "AWS_SHARED_CREDENTIALS_FILE",
    "AWS_CONFIG_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
    "AWS_EC2_METADATA_DISABLED",
    "AWS_EC2_METADATA_SERVICE_ENDPOINT",
    "AWS_REGION",
];
/// Settings of a profile that name another way to keys than keys.
pub(super) const OTHER_WAYS: [&str; 5] =
    ["role_arn", "sso_session", "sso_start_url", "credential_process", "web_identity_token_file"];

/// What the chain goes by.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Chain {
    variables: BTreeMap<&'static str, Zeroizing<String>>,
    profile: Option<String>,
}

impl fmt::Debug for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.variables.keys().collect();
        f.debug_struct("Chain").field("variables", &names).field("profile", &self.profile).finish()
    }
}

impl Chain {
    /// Of what `read` says of the environment; a variable that is empty counts as not set. `profile` goes before `AWS_PROFILE`.
    pub fn new(profile: Option<String>, read: impl Fn(&str) -> Option<String>) -> Chain {
        let read =
            |name: &'static str| Some((name, Zeroizing::new(read(name).filter(|text| !text.is_empty())?)));
        Chain { variables: VARIABLES.into_iter().filter_map(read).collect(), profile }
    }

    pub(super) fn variable(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(|value| value.as_str())
    }

    /// The region that the environment names.
    #[must_use]
    pub fn region(&self) -> Option<&str> {
        self.variable("AWS_REGION")
    }

    fn profile(&self) -> &str {
        self.profile.as_deref().or(self.variable("AWS_PROFILE")).unwrap_or("default")
    }

    fn file(&self, variable: &str, name: &str) -> Option<PathBuf> {
        let named = self.variable(variable).map(PathBuf::from);
        named.or_else(|| Some(Path::new(self.variable("HOME")?).join(".aws").join(name)))
    }

    /// Asks the sources in their order.
    pub(super) fn load(&self) -> Result<Loaded<Credentials>, CredentialFault> {
        let mut passed = Vec::new();
        // A profile that the command line names goes before the environment, as with AWS's own program.
        if self.profile.is_none()
            && let Some(found) = self.environment(&mut passed)?
        {
            return Ok(found);
        }
        for (variable, name) in
            [("AWS_SHARED_CREDENTIALS_FILE", "credentials"), ("AWS_CONFIG_FILE", "config")]
        {
            if let Some(found) = self.shared(variable, name, &mut passed)? {
                return Ok(found);
            }
        }
        if let Some(profile) = self.profile.as_deref().or(self.variable("AWS_PROFILE")) {
            // A profile that was named is meant.
            passed.retain(|(source, _)| source.contains('/'));
            return Err(CredentialFault::NoKeysOf(profile.to_owned(), passed));
        }
        match metadata::container(self)? {
            Some(found) => return Ok(found),
            None => passed.push((
                "container role".to_owned(),
                "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI and ..._FULL_URI are not set".to_owned(),
            )),
        }
        match metadata::instance(self) {
            Ok(found) => Ok(found),
            Err(why) => {
                passed.push(("instance role".to_owned(), why));
                Err(CredentialFault::Nowhere(passed))
            }
        }
    }

    fn environment(
        &self,
        passed: &mut Vec<(String, String)>,
    ) -> Result<Option<Loaded<Credentials>>, CredentialFault> {
        let (id, secret) = (self.variable("AWS_ACCESS_KEY_ID"), self.variable("AWS_SECRET_ACCESS_KEY"));
        let (id, secret) = match (id, secret) {
            (Some(id), Some(secret)) => (id, secret),
            (Some(_), None) => return Err(CredentialFault::NoVariable("AWS_SECRET_ACCESS_KEY")),
            (None, Some(_)) => return Err(CredentialFault::NoVariable("AWS_ACCESS_KEY_ID")),
            (None, None) => {
                passed.push(("environment".to_owned(), "AWS_ACCESS_KEY_ID is not set".to_owned()));
                return Ok(None);
            }
        };
        let keys = Credentials {
            access_key_id: id.to_owned(),
            secret_access_key: Zeroizing::new(secret.to_owned()),
            session_token: self.variable("AWS_SESSION_TOKEN").map(|token| Zeroizing::new(token.to_owned())),
        };
        Ok(Some(Loaded::lasting(keys, "the environment".to_owned(), None)))
    }

    fn shared(
        &self,
        variable: &str,
        name: &str,
        passed: &mut Vec<(String, String)>,
    ) -> Result<Option<Loaded<Credentials>>, CredentialFault> {
        let Some(path) = self.file(variable, name) else {
            passed.push((format!("~/.aws/{name}"), "HOME is not set".to_owned()));
            return Ok(None);
        };
        let profile = self.profile().to_owned();
        let shown = path.display().to_string();
        let refused = |way| CredentialFault::OtherWay(path.clone(), profile.clone(), way);
        match load_file(&path, &profile) {
            Ok(Ok(keys)) => {
                Ok(Some(Loaded::lasting(keys, format!("profile [{profile}] of {shown}"), Some(path.clone()))))
            }
            Ok(Err(way)) => Err(refused(way)),
            Err(CredentialFault::File(keyring::CredentialFault::Unreadable(_, 2))) => {
                passed.push((shown, "no such file".to_owned()));
                Ok(None)
            }
            Err(CredentialFault::File(keyring::CredentialFault::NoProfile(..))) => {
                passed.push((shown, format!("no profile [{profile}]")));
                Ok(None)
            }
            // A profile of the configuration may say a region only.
            Err(CredentialFault::File(keyring::CredentialFault::NoSetting(_, _, "aws_access_key_id"))) => {
                passed.push((shown, format!("profile [{profile}] has no keys")));
                Ok(None)
            }
            Err(fault) => Err(fault),
        }
    }
}
