//! Access tokens for Google: from a service account's key, from the metadata server of the machine that this runs on, or none.
//!
//! ```text
//!  service account: base64url({"alg":"RS256","typ":"JWT"}) . base64url({"iss","scope","aud","iat","exp"}) . base64url(signature)
//!                   POST to its token_uri, grant_type=urn:ietf:params:oauth:grant-type:jwt-bearer&assertion=<that>
//!  metadata server: GET /computeMetadata/v1/instance/service-accounts/default/token, Metadata-Flavor: Google
//!  both answer:     {"access_token":"...","expires_in":3599,"token_type":"Bearer"}
//! ```
//!
//! | when | what |
//! |---|---|
//! | no token, or it has ended | all calls wait for one thread that gets a new one |
//! | less than [`RENEW_S`] left | one thread gets a new one; the others go on with the old one, also when the renewal fails |
//! | a renewal failed | the next try at least [`RETRY_S`] later while the old one holds |
//! | Google refuses a token (401) | it is dropped, and the call made once more with a new one |
//!
//! Invariants: a token's end is counted on the boot-time clock. Tokens and keys are wiped when dropped and are in no fault and no `Debug`. A
//! secret goes over plain http to this machine and to the metadata server only. Does not: impersonation, workload identity of other clouds.
//! Source: Google "Using OAuth 2.0 for server to server applications"; "About VM metadata"; RFC 7515, 7523.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::rand::SystemRandom;
use ring::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
use serde::{Deserialize, Deserializer};
use ureq::http::Request;
use ureq::{Agent, SendBody};
use windlass_hal::clock::Clock;
use zeroize::Zeroizing;

use crate::store::http::endpoint::is_loopback;
use crate::store::http::{
    ERROR_BODY_BYTES_MAX, HttpSettings, SIGNED_APART_SECS_MAX, Timeouts, TlsFault, agent, header,
    read_bounded, transport_fault,
};
use crate::store::keyring::{CredentialFault, read_text, variable};
use crate::store::time::parse_date;
use crate::store::{StoreFault, StoreFaultKind};

/// What a token allows: to read and write objects.
const SCOPE: &str = "https://www.googleapis.com/auth/devstorage.read_write";
/// How long a token is asked for, in seconds: the most that Google gives.
const LIFE_S: i64 = 3600;
/// Seconds before its end from which on a token is renewed.
pub const RENEW_S: u64 = 300;
/// Seconds between tries to renew a token that still holds.
pub const RETRY_S: u64 = 10;
/// Longest life in seconds that is believed: a day.
const LIFE_S_MAX: u64 = 86_400;
/// The metadata server, by a name that resolves on Google's machines only.
const METADATA_HOST: &str = "metadata.google.internal";
/// Its path of a token.
const METADATA_PATH: &str = "/computeMetadata/v1/instance/service-accounts/default/token";
/// What a token is got for, in faults.
const VERB: &str = "TOKEN";

const NS_PER_S: u64 = 1_000_000_000;

/// A service account's key file.
#[derive(Deserialize)]
struct KeyFile {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    client_email: String,
    #[serde(default, deserialize_with = "secret")]
    private_key: Zeroizing<String>,
    #[serde(default)]
    private_key_id: String,
    #[serde(default)]
    token_uri: String,
}

/// Who asks.
pub(super) enum Account {
    /// None: an emulator.
    Anonymous,
    /// The account of this machine; where its metadata server is.
    Machine {
        /// `http://host[:port]`.
        origin: String,
    },
    /// A service account.
    Service { email: String, key_id: String, token_uri: String, key: Box<RsaKeyPair> },
}

impl fmt::Debug for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Account::Anonymous => f.write_str("Anonymous"),
            Account::Machine { origin } => write!(f, "Machine({origin})"),
            Account::Service { email, .. } => write!(f, "Service({email})"),
        }
    }
}

impl Account {
    /// From a key file, or `GOOGLE_APPLICATION_CREDENTIALS`; without one the machine's own, or none at an endpoint in clear.
    ///
    /// # Errors
    /// Why there is none.
    pub(super) fn find(key_file: Option<&Path>, is_clear: bool) -> Result<Account, CredentialFault> {
        let named = variable("GOOGLE_APPLICATION_CREDENTIALS").map(PathBuf::from);
        match key_file.map(Path::to_path_buf).or(named) {
            Some(path) => Account::read(&path),
            None if is_clear => Ok(Account::Anonymous),
            None => {
                let host = variable("GCE_METADATA_HOST").unwrap_or_else(|| METADATA_HOST.to_owned());
                let usable = |b: u8| b.is_ascii_alphanumeric() || b".-:[]".contains(&b);
                if !host.bytes().all(usable) {
                    return Err(CredentialFault::Unusable("GCE_METADATA_HOST".into(), "not host[:port]"));
                }
                Ok(Account::Machine { origin: format!("http://{host}") })
            }
        }
    }

    fn read(path: &Path) -> Result<Account, CredentialFault> {
        let bad = |why| CredentialFault::Unusable(path.display().to_string(), why);
        let text = read_text(path)?;
        let file: KeyFile = serde_json::from_str(&text)
            .map_err(|_| bad("not a key file of Google: JSON with a type and a private_key"))?;
        if file.kind != "service_account" {
            return Err(bad("only key files of service accounts are supported (type service_account)"));
        }
        let usable = |text: &str| !text.is_empty() && text.bytes().all(|b| (0x21..0x7f).contains(&b));
        if !usable(&file.client_email) {
            return Err(bad("it has no client_email"));
        }
        let (scheme, rest) = file.token_uri.split_once("://").unwrap_or(("", ""));
        let host = rest.split('/').next().unwrap_or("");
        if !usable(&file.token_uri)
            || host.is_empty()
            || !(scheme == "https" || scheme == "http" && is_loopback(host))
        {
            return Err(bad("its token_uri is not an https:// URL"));
        }
        let der = pem_body(&file.private_key).ok_or_else(|| bad("its private_key is not PKCS#8 in PEM"))?;
        let key = RsaKeyPair::from_pkcs8(&der)
            .map_err(|_| bad("its private_key is not an RSA key of 2048 bits or more"))?;
        Ok(Account::Service {
            email: file.client_email,
            key_id: file.private_key_id,
            token_uri: file.token_uri,
            key: Box::new(key),
        })
    }
}

/// The bytes between the lines of a `PRIVATE KEY` in PEM.
fn pem_body(pem: &str) -> Option<Zeroizing<Vec<u8>>> {
    let (_, rest) = pem.split_once("-----BEGIN PRIVATE KEY-----")?;
    let (body, _) = rest.split_once("-----END PRIVATE KEY-----")?;
    let digits: Zeroizing<String> = Zeroizing::new(body.split_whitespace().collect());
    STANDARD.decode(digits.as_bytes()).ok().map(Zeroizing::new)
}

fn secret<'de, D: Deserializer<'de>>(input: D) -> Result<Zeroizing<String>, D::Error> {
    String::deserialize(input).map(Zeroizing::new)
}

/// What a token server answers.
#[derive(Deserialize)]
struct Granted {
    #[serde(deserialize_with = "secret")]
    access_token: Zeroizing<String>,
    expires_in: u64,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Refused {
    error: String,
    error_description: String,
}

struct Token {
    /// `Bearer ...`.
    header: Zeroizing<String>,
    end_ns: u64,
}

#[derive(Default)]
struct State {
    token: Option<Arc<Token>>,
    /// A renewal that failed is not tried again before this.
    retry_ns: u64,
}

/// Tokens that are kept up to date. Shared between threads.
pub(super) struct Tokens {
    account: Account,
    agent: Agent,
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
    /// Held by the thread that gets a new one.
    getting: Mutex<()>,
}

impl Tokens {
    /// Gets nothing yet.
    pub(super) fn new(
        account: Account,
        ca_file: Option<&Path>,
        clock: Arc<dyn Clock>,
    ) -> Result<Tokens, TlsFault> {
        let tls = matches!(&account, Account::Service { token_uri, .. } if token_uri.starts_with("https:"));
        let timeouts = Timeouts { answer_ms: 10_000, ..Timeouts::DATA };
        let http = HttpSettings { timeouts, connections: 1, tls, ca_file, client: None, address: None };
        Ok(Tokens { account, agent: agent(&http)?, clock, state: Mutex::default(), getting: Mutex::new(()) })
    }

    /// Where tokens are from, for people; `None`: there is no account.
    pub(super) fn from(&self) -> Option<String> {
        match &self.account {
            Account::Anonymous => None,
            Account::Machine { origin } => Some(format!("the metadata server at {origin}")),
            Account::Service { email, .. } => Some(format!("the key of {email}")),
        }
    }

    /// The value of the `Authorization` header; `None`: there is no account, so none is sent.
    pub(super) fn header(&self) -> Result<Option<Zeroizing<String>>, StoreFault> {
        if matches!(self.account, Account::Anonymous) {
            return Ok(None);
        }
        let now_ns = self.now_ns();
        let (held, retry_ns) = {
            let state = self.state();
            (state.token.clone().filter(|token| now_ns < token.end_ns), state.retry_ns)
        };
        let Some(held) = held else {
            // No thread goes on without one. One that waited finds the token that another one got.
            let _getting = self.getting.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(token) = self.state().token.clone().filter(|token| self.now_ns() < token.end_ns) {
                return Ok(Some(token.header.clone()));
            }
            return self.renew().map(|token| Some(token.header.clone()));
        };
        let is_due = now_ns.saturating_add(RENEW_S * NS_PER_S) >= held.end_ns && now_ns >= retry_ns;
        if is_due && let Ok(_getting) = self.getting.try_lock() {
            match self.renew() {
                Ok(token) => return Ok(Some(token.header.clone())),
                Err(fault) => {
                    log::warn!("store: the access token cannot be renewed, and still holds fault={fault}");
                    self.state().retry_ns = self.now_ns().saturating_add(RETRY_S * NS_PER_S);
                }
            }
        }
        Ok(Some(held.header.clone()))
    }

    /// Google does not take this one any more. `false`: there is no other.
    pub(super) fn drop_refused(&self, refused: &str) -> bool {
        let mut state = self.state();
        if state.token.as_ref().is_some_and(|token| token.header.as_str() == refused) {
            state.token = None;
        }
        !matches!(self.account, Account::Anonymous)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now_ns(&self) -> u64 {
        self.clock.now().as_ns()
    }

    fn renew(&self) -> Result<Arc<Token>, StoreFault> {
        let asked_ns = self.now_ns();
        let granted = match &self.account {
            Account::Anonymous => return Err(fault(StoreFaultKind::Denied, "", "no account")),
            Account::Machine { origin } => {
                let builder = Request::builder()
                    .method("GET")
                    .uri(format!("{origin}{METADATA_PATH}"))
                    .header("metadata-flavor", "Google");
                let host = origin.trim_start_matches("http://");
                self.ask(host, builder, None).map_err(|(fault, _)| self.without_account(fault))?
            }
            Account::Service { token_uri, .. } => {
                let wall = self.clock.wall().secs;
                match self.ask_with_key(token_uri, wall) {
                    // A machine whose clock is wrong signs with the server's time.
                    Err((_, Some(theirs))) if theirs.abs_diff(wall) > SIGNED_APART_SECS_MAX => {
                        self.ask_with_key(token_uri, theirs)
                    }
                    other => other,
                }
                .map_err(|(fault, _)| fault)?
            }
        };
        let life_s = granted.expires_in.min(LIFE_S_MAX);
        let token = Arc::new(Token {
            header: Zeroizing::new(format!("Bearer {}", granted.access_token.as_str())),
            end_ns: asked_ns.saturating_add(life_s * NS_PER_S),
        });
        let mut state = self.state();
        state.token = Some(Arc::clone(&token));
        state.retry_ns = 0;
        Ok(token)
    }

    /// What to do where there is no metadata server.
    fn without_account(&self, cause: StoreFault) -> StoreFault {
        let detail = format!(
            "{}; no key file was given, so this machine's metadata server was asked: outside of Google's machines give a service \
             account's key file with --credentials-file",
            cause.detail
        );
        StoreFault { detail, ..cause }
    }

    fn ask_with_key(&self, token_uri: &str, secs: i64) -> Result<Granted, (StoreFault, Option<i64>)> {
        let assertion = self.assertion(secs).map_err(|fault| (fault, None))?;
        let body = Zeroizing::new(format!(
            "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer&assertion={}",
            assertion.as_str()
        ));
        let builder = Request::builder()
            .method("POST")
            .uri(token_uri)
            .header("content-type", "application/x-www-form-urlencoded");
        let host = token_uri.split('/').nth(2).unwrap_or("");
        self.ask(host, builder, Some(&body))
    }

    /// A signed claim of who this is.
    fn assertion(&self, secs: i64) -> Result<Zeroizing<String>, StoreFault> {
        let Account::Service { email, key_id, token_uri, key } = &self.account else {
            return Err(fault(StoreFaultKind::Denied, "", "not a service account"));
        };
        let head = serde_json::json!({ "alg": "RS256", "typ": "JWT", "kid": key_id });
        let claim = serde_json::json!({
            "iss": email, "scope": SCOPE, "aud": token_uri, "iat": secs, "exp": secs.saturating_add(LIFE_S),
        });
        let encoded = |value: &serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let mut text = Zeroizing::new(format!("{}.{}", encoded(&head), encoded(&claim)));
        let mut signature = vec![0; key.public().modulus_len()];
        key.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), text.as_bytes(), &mut signature)
            .map_err(|_| fault(StoreFaultKind::Denied, "", "the service account's key cannot sign"))?;
        text.push('.');
        text.push_str(&URL_SAFE_NO_PAD.encode(signature));
        Ok(text)
    }

    /// One question to a token server; with a fault comes the time that the server said.
    fn ask(
        &self,
        host: &str,
        builder: ureq::http::request::Builder,
        body: Option<&str>,
    ) -> Result<Granted, (StoreFault, Option<i64>)> {
        let unsent = |_| (fault(StoreFaultKind::Rejected, host, "not a URL that can be asked"), None);
        let answered = match body {
            Some(text) => self.agent.run(builder.body(text).map_err(unsent)?),
            None => self.agent.run(builder.body(SendBody::none()).map_err(unsent)?),
        };
        let mut response = answered.map_err(|e| (transport_fault(VERB, host, host, &e), None))?;
        let theirs = header(response.headers(), "date").and_then(parse_date);
        let mut json = Zeroizing::new(Vec::new());
        let read = read_bounded(response.body_mut(), ERROR_BODY_BYTES_MAX, &mut json);
        let status = response.status().as_u16();
        if status == 200 {
            let unfit = |why: String| (fault(StoreFaultKind::Unknown, host, &why), None);
            read.map_err(|cut| unfit(cut.to_string()))?;
            return parse_granted(&json).map_err(|why| unfit(why.to_owned()));
        }
        let refused: Refused = serde_json::from_slice(&json).unwrap_or_default();
        let kind = match status {
            408 | 429 | 500..=599 => StoreFaultKind::Unknown,
            _ => StoreFaultKind::Denied,
        };
        let why = format!("no access token: status {status} {} {}", refused.error, refused.error_description);
        Err((fault(kind, host, why.trim_end()), theirs))
    }
}

fn fault(kind: StoreFaultKind, host: &str, why: &str) -> StoreFault {
    StoreFault::new(kind, VERB, host, why)
}

fn parse_granted(json: &[u8]) -> Result<Granted, &'static str> {
    let granted: Granted = serde_json::from_slice(json).map_err(|_| "not a token")?;
    let usable = |b: u8| (0x21..0x7f).contains(&b);
    if granted.access_token.is_empty() || !granted.access_token.bytes().all(usable) {
        return Err("a token with other characters than a header may have");
    }
    Ok(granted)
}
