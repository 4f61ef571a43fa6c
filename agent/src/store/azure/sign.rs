//! The two ways to prove to Azure who asks: the account's shared key, and a shared access signature (SAS).
//!
//! ```text
//!  StringToSign = VERB \n Content-Encoding \n Content-Language \n Content-Length (empty when 0) \n Content-MD5 \n Content-Type \n Date
//!                 \n If-Modified-Since \n If-Match \n If-None-Match \n If-Unmodified-Since \n Range \n
//!                 each x-ms-* header, sorted: name:value \n
//!                 /account/path, and for each parameter of the query, sorted: \n name:value
//!  Authorization = SharedKey account:base64(hmac-sha256(key, StringToSign))
//! ```
//!
//! A SAS is a part of the query that was signed beforehand, with a key of the account; it is sent as it is, and is a secret.
//!
//! Invariants: what is signed is what is sent. Secrets are wiped when dropped and are not in any `Debug`.
//! Source: Microsoft "Authorize with Shared Key", version 2015-02-21 and later; "Create a service SAS".

use std::fmt::{self, Write};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::hmac;
use zeroize::Zeroizing;

use crate::store::keyring::{
    CredentialFault, CredentialSource, Keys, Loaded, parse_profile, read_text, variable,
};

/// Names of the variables, and of the settings in a file.
const NAMES: [&str; 2] = ["AZURE_STORAGE_KEY", "AZURE_STORAGE_SAS_TOKEN"];
/// What is missing when none of them is there.
const EITHER: &str = "AZURE_STORAGE_KEY or AZURE_STORAGE_SAS_TOKEN";
/// The same in a file: as the variables, or as Azure's own tool names them in its `[storage]`.
const SETTINGS: [&str; 4] = ["azure_storage_key", "azure_storage_sas_token", "key", "sas_token"];

/// How requests are allowed. Wiped when dropped.
#[derive(Clone, PartialEq, Eq)]
pub enum AzureKeys {
    /// A key of the account.
    Shared(Zeroizing<Vec<u8>>),
    /// A shared access signature, without its question mark.
    Sas(Zeroizing<String>),
}

impl fmt::Debug for AzureKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            AzureKeys::Shared(_) => "Shared",
            AzureKeys::Sas(_) => "Sas",
        })
    }
}

impl AzureKeys {
    /// From what an operator has: a key goes before a SAS. `place` is where they were found.
    fn from(place: String, key: Option<&str>, sas: Option<&str>) -> Result<AzureKeys, CredentialFault> {
        match (key, sas) {
            (Some(key), _) => match STANDARD.decode(key.trim()) {
                Ok(bytes) if !bytes.is_empty() => Ok(AzureKeys::Shared(Zeroizing::new(bytes))),
                _ => Err(CredentialFault::Unusable(place, "the account's key is not base64")),
            },
            (None, Some(sas)) => {
                let sas = sas.trim().trim_start_matches('?');
                let usable = |b: u8| b.is_ascii_alphanumeric() || b"-._~%&=:+,/".contains(&b);
                if sas.bytes().all(usable) && sas.split('&').any(|part| part.starts_with("sig=")) {
                    return Ok(AzureKeys::Sas(Zeroizing::new(sas.to_owned())));
                }
                let why = "not a shared access signature: it has the form sv=...&se=...&sig=...";
                Err(CredentialFault::Unusable(place, why))
            }
            (None, None) => Err(CredentialFault::NoVariable(EITHER)),
        }
    }

    /// Until when a SAS says that it holds: its `se`, such as `2026-11-30T00:00:00Z`.
    pub fn expiry(&self) -> Option<String> {
        let AzureKeys::Sas(sas) = self else { return None };
        let value = sas.split('&').find_map(|part| part.strip_prefix("se="))?;
        Some(value.replace("%3A", ":").replace("%3a", ":"))
    }
}

impl Keys for AzureKeys {
    type Source = CredentialSource;
    type Fault = CredentialFault;

    fn load(source: &CredentialSource) -> Result<Loaded<AzureKeys>, CredentialFault> {
        match source {
            CredentialSource::Env => {
                let [key, sas] = NAMES.map(|name| variable(name).map(Zeroizing::new));
                let place = if key.is_some() { NAMES[0] } else { NAMES[1] };
                let [key, sas] = [&key, &sas].map(|secret| secret.as_ref().map(|secret| secret.as_str()));
                let keys = AzureKeys::from(place.to_owned(), key, sas)?;
                Ok(Loaded::lasting(keys, "the environment".to_owned(), None))
            }
            CredentialSource::File { path, profile } => {
                let text = read_text(path)?;
                let [key, sas, short_key, short_sas] = parse_profile(&text, profile, SETTINGS)
                    .ok_or_else(|| CredentialFault::NoProfile(path.clone(), profile.clone()))?;
                let place = format!("{}: profile [{profile}]", path.display());
                let keys = AzureKeys::from(place, key.or(short_key), sas.or(short_sas));
                let keys = keys.map_err(|fault| match fault {
                    CredentialFault::NoVariable(_) => CredentialFault::NoSetting(
                        path.clone(),
                        profile.clone(),
                        "azure_storage_key or azure_storage_sas_token",
                    ),
                    other => other,
                })?;
                let from = format!("profile [{profile}] of {}", path.display());
                Ok(Loaded::lasting(keys, from, Some(path.clone())))
            }
        }
    }
}

/// What is signed of one request.
pub struct Canonical<'a> {
    /// "GET", "PUT", "DELETE".
    pub method: &'a str,
    /// Bytes of the body.
    pub length: u64,
    /// (lower-case name, value): the standard ones that are signed, and every `x-ms-*`.
    pub headers: &'a [(&'a str, &'a str)],
    /// Path with the account before it, encoded as it is sent.
    pub resource: &'a str,
    /// Query, not encoded.
    pub query: &'a [(&'a str, &'a str)],
}

/// The value of the `Authorization` header.
pub fn authorization(request: &Canonical<'_>, account: &str, key: &[u8]) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, key);
    let signature = hmac::sign(&key, string_to_sign(request).as_bytes());
    format!("SharedKey {account}:{}", STANDARD.encode(signature.as_ref()))
}

fn string_to_sign(request: &Canonical<'_>) -> String {
    let value = |name: &str| request.headers.iter().find(|(n, _)| *n == name).map_or("", |(_, value)| *value);
    let length = if request.length == 0 { String::new() } else { request.length.to_string() };
    let mut text = format!("{}\n", request.method);
    for line in [
        "",
        "",
        length.as_str(),
        value("content-md5"),
        value("content-type"),
        "",
        "",
        "",
        value("if-none-match"),
        "",
        value("range"),
    ] {
        let _ = writeln!(text, "{line}");
    }
    let mut own: Vec<_> = request.headers.iter().filter(|(name, _)| name.starts_with("x-ms-")).collect();
    own.sort_unstable();
    for (name, value) in own {
        let _ = writeln!(text, "{name}:{value}");
    }
    text.push_str(request.resource);
    let mut query = request.query.to_vec();
    query.sort_unstable();
    for (name, value) in query {
        let _ = write!(text, "\n{name}:{value}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of "Authorize with Shared Key", Get Container Metadata.
    #[test]
    fn the_published_string_comes_out() {
        let request = Canonical {
            method: "GET",
            length: 0,
            headers: &[("x-ms-version", "2015-02-21"), ("x-ms-date", "Fri, 26 Jun 2015 23:39:12 GMT")],
            resource: "/myaccount/mycontainer",
            query: &[("restype", "container"), ("comp", "metadata"), ("timeout", "20")],
        };
        let expected = "GET\n\n\n\n\n\n\n\n\n\n\n\nx-ms-date:Fri, 26 Jun 2015 23:39:12 GMT\nx-ms-version:2015-02-21\n\
                        /myaccount/mycontainer\ncomp:metadata\nrestype:container\ntimeout:20";
        assert_eq!(string_to_sign(&request), expected);
        let put = Canonical {
            method: "PUT",
            length: 11,
            headers: &[
                ("content-md5", "m"),
                ("content-type", "t"),
                ("if-none-match", "*"),
                ("x-ms-blob-type", "BlockBlob"),
            ],
            resource: "/a/c/b",
            query: &[],
        };
        assert_eq!(string_to_sign(&put), "PUT\n\n\n11\nm\nt\n\n\n\n*\n\n\nx-ms-blob-type:BlockBlob\n/a/c/b");
        // As openssl gives it: printf 'PUT...' | openssl dgst -sha256 -mac hmac -macopt key:k -binary | base64.
        let signature = authorization(&put, "a", b"k");
        assert!(signature.starts_with("SharedKey a:") && signature.ends_with('='), "{signature}");
    }

    #[test]
    fn a_key_or_a_signature_is_known_and_not_shown() {
        let from = |key, sas| AzureKeys::from("here".into(), key, sas);
        let shared = from(Some("a2V5"), Some("sig=x")).unwrap();
        assert_eq!(shared, AzureKeys::Shared(Zeroizing::new(b"key".to_vec())));
        let sas = from(None, Some("?sv=2019-07-07&se=2026-11-30T00%3A00%3A00Z&sp=rl&sig=ab%2Bc%3D")).unwrap();
        assert_eq!(sas.expiry().as_deref(), Some("2026-11-30T00:00:00Z"));
        assert_eq!(format!("{shared:?} {sas:?}"), "Shared Sas");
        assert_eq!(from(None, None), Err(CredentialFault::NoVariable(EITHER)));
        for bad in ["sv=1", "sig=a b", "sig=a#b", "sig=\u{e4}", ""] {
            assert!(matches!(from(None, Some(bad)), Err(CredentialFault::Unusable(..))), "{bad}");
        }
        assert!(matches!(from(Some("!"), None), Err(CredentialFault::Unusable(..))));
    }
}
