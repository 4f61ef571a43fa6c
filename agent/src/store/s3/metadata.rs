//! Credentials of a role, from the service beside the machine: a container's, or an EC2 instance's (IMDSv2).
//!
//! ```text
//!  instance   PUT /latest/api/token                                    -> a token, for the next two requests
//!             GET /latest/meta-data/iam/security-credentials/          -> the role's name
//!             GET /latest/meta-data/iam/security-credentials/ROLE      -> keys, and until when they are valid
//!  container  GET the URI that the environment names, with the token that it names
//! ```
//!
//! Invariants: the token comes first, and without one nothing is asked: version 1 of the service is not used. Each phase of a request has
//! [`ANSWER_MS`]; [`ATTEMPTS`] of each. A URI of a container is followed without TLS only to this machine and to the addresses that AWS
//! documents, because a token goes there. No proxy.
//! Source: AWS, "Use IMDSv2", "Container credential provider".

use std::time::Duration;

use serde::Deserialize;
use ureq::http::Request;
use ureq::{Agent, SendBody};
use zeroize::{Zeroize, Zeroizing};

use super::chain::Chain;
use super::keys::CredentialFault;
use super::sign::Credentials;
use crate::civil::{Date, SECS_PER_DAY, days_in_month};
use crate::store::http::{HttpSettings, Timeouts, agent, read_bounded};
use crate::store::keyring::Loaded;

/// Longest wait for a connection, and for an answer, in milliseconds: the service is one hop away.
pub const ANSWER_MS: u64 = 1_000;
/// How often a request is sent that nothing answers.
pub const ATTEMPTS: u32 = 2;
/// Largest answer in bytes.
const BODY_BYTES_MAX: u64 = 64 << 10;
/// Largest token file in bytes.
const TOKEN_BYTES_MAX: u64 = 16 << 10;
/// How long a token of the instance's service is to last, in seconds: it is used at once and forgotten.
const TOKEN_S: &str = "60";
const INSTANCE: &str = "http://169.254.169.254";
const CONTAINER: &str = "http://169.254.170.2";
/// Hosts that a container's URI may name without TLS: this machine, ECS, EKS.
const PLAIN_HOSTS: [&str; 5] = ["localhost", "[::1]", "169.254.170.2", "169.254.170.23", "[fd00:ec2::23]"];

/// What both services say.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    code: Option<String>,
    message: Option<String>,
    access_key_id: Option<String>,
    secret_access_key: Option<String>,
    token: Option<String>,
    expiration: Option<String>,
}

/// One service, and how to ask it.
struct Service {
    agent: Agent,
}

impl Service {
    fn new(url: &str) -> Result<Service, String> {
        let timeouts = Timeouts { connect_ms: ANSWER_MS, answer_ms: ANSWER_MS, body_bytes_s_min: 64 * 1024 };
        let tls = url.starts_with("https://");
        let settings =
            HttpSettings { timeouts, connections: 1, tls, ca_file: None, client: None, address: None };
        Ok(Service { agent: agent(&settings).map_err(|fault| fault.to_string())? })
    }

    /// Status and body; asked again where nothing came.
    fn ask(
        &self,
        method: &str,
        url: &str,
        header: Option<(&str, &str)>,
    ) -> Result<(u16, Zeroizing<Vec<u8>>), String> {
        let mut why = String::new();
        for _ in 0..ATTEMPTS {
            let mut request = Request::builder().method(method).uri(url);
            if let Some((name, value)) = header {
                request = request.header(name, value);
            }
            if method == "PUT" {
                request = request.header("content-length", 0);
            }
            let request = request.body(SendBody::none()).map_err(|error| format!("{url}: {error}"))?;
            let whole = Duration::from_millis(2 * ANSWER_MS);
            let request = self.agent.configure_request(request).timeout_global(Some(whole)).build();
            let mut body = Zeroizing::new(Vec::new());
            match self.agent.run(request) {
                Ok(mut response) => {
                    let status = response.status().as_u16();
                    match read_bounded(response.body_mut(), BODY_BYTES_MAX, &mut body) {
                        Ok(()) if status < 500 => return Ok((status, body)),
                        Ok(()) => why = format!("{url} answers {status}"),
                        Err(cut) => why = format!("{url}: {cut}"),
                    }
                }
                Err(error) => why = format!("{url}: {error}"),
            }
        }
        Err(why)
    }
}

/// Keys of a container's role; `None` where the environment names none.
pub(super) fn container(chain: &Chain) -> Result<Option<Loaded<Credentials>>, CredentialFault> {
    let relative = chain.variable("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI");
    let full = chain.variable("AWS_CONTAINER_CREDENTIALS_FULL_URI");
    let url = match (relative, full) {
        (Some(path), _) => format!("{CONTAINER}/{}", path.trim_start_matches('/')),
        (None, Some(url)) => url.to_owned(),
        (None, None) => return Ok(None),
    };
    let failed = |why: String| CredentialFault::Role("container role", why);
    if !may_be_asked(&url) {
        return Err(failed(format!("{url}: only https, this machine and AWS's own addresses are asked")));
    }
    let token = container_token(chain).map_err(failed)?;
    let service = Service::new(&url).map_err(failed)?;
    let header = token.as_ref().map(|token| ("authorization", token.as_str()));
    let (status, body) = service.ask("GET", &url, header).map_err(failed)?;
    if status != 200 {
        let hint = if matches!(status, 401 | 403) { "; check the authorization token" } else { "" };
        return Err(failed(format!("{url} answers {status}{hint}")));
    }
    let host = url.split('/').nth(2).unwrap_or_default().to_owned();
    parse(&body, format!("the container's role (from {host})")).map(Some).map_err(failed)
}

fn container_token(chain: &Chain) -> Result<Option<Zeroizing<String>>, String> {
    let token = match chain.variable("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE") {
        Some(path) => {
            let size = std::fs::metadata(path).map_err(|error| format!("{path}: {error}"))?.len();
            if size > TOKEN_BYTES_MAX {
                return Err(format!("{path}: too large for a token"));
            }
            Zeroizing::new(std::fs::read_to_string(path).map_err(|error| format!("{path}: {error}"))?)
        }
        None => match chain.variable("AWS_CONTAINER_AUTHORIZATION_TOKEN") {
            Some(token) => Zeroizing::new(token.to_owned()),
            None => return Ok(None),
        },
    };
    let token = Zeroizing::new(token.trim().to_owned());
    if token.bytes().any(|byte| byte.is_ascii_control()) {
        return Err("the authorization token has control characters".to_owned());
    }
    Ok(Some(token))
}

/// Whether a token may go there.
fn may_be_asked(url: &str) -> bool {
    let Some((scheme, rest)) = url.split_once("://") else { return false };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = match authority.strip_prefix('[') {
        Some(_) => authority.split_inclusive(']').next().unwrap_or_default(),
        None => authority.split(':').next().unwrap_or_default(),
    };
    let is_own = host.parse::<std::net::Ipv4Addr>().is_ok_and(|address| address.is_loopback());
    !host.is_empty()
        && !authority.contains('@')
        && (scheme == "https" || scheme == "http" && (is_own || PLAIN_HOSTS.contains(&host)))
}

/// Keys of the instance's role.
pub(super) fn instance(chain: &Chain) -> Result<Loaded<Credentials>, String> {
    if chain.variable("AWS_EC2_METADATA_DISABLED").is_some_and(|text| text.eq_ignore_ascii_case("true")) {
        return Err("AWS_EC2_METADATA_DISABLED is true".to_owned());
    }
    let named = chain.variable("AWS_EC2_METADATA_SERVICE_ENDPOINT").unwrap_or(INSTANCE);
    let base = named.trim_end_matches('/');
    let service = Service::new(base)?;
    let wanted = ("x-aws-ec2-metadata-token-ttl-seconds", TOKEN_S);
    let (status, token) = service.ask("PUT", &format!("{base}/latest/api/token"), Some(wanted)).map_err(|why| {
        format!("{why}: this is no EC2 instance, or it is a container in one whose hop limit for metadata is 1: set it to 2")
    })?;
    let token = match (status, std::str::from_utf8(&token)) {
        (200, Ok(token)) if !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic()) => token,
        (403, _) => return Err("the instance's metadata service is switched off".to_owned()),
        (status, _) => return Err(format!("{base} gives no token (it answers {status}); IMDSv2 is needed")),
    };
    let header = Some(("x-aws-ec2-metadata-token", token));
    let list = format!("{base}/latest/meta-data/iam/security-credentials/");
    let (status, roles) = service.ask("GET", &list, header)?;
    let role = String::from_utf8_lossy(&roles).lines().next().unwrap_or_default().trim().to_owned();
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"+=,.@_-".contains(&byte);
    match status {
        404 => return Err("the instance has no role; give it an instance profile".to_owned()),
        200 if !role.is_empty() && role.bytes().all(is_name) => {}
        200 => return Err(format!("{list} names no role")),
        status => return Err(format!("{list} answers {status}")),
    }
    let (status, body) = service.ask("GET", &format!("{list}{role}"), header)?;
    if status != 200 {
        return Err(format!("{list}{role} answers {status}"));
    }
    parse(&body, format!("instance role {role}"))
}

/// Keys of an answer, with who has given them.
fn parse(body: &[u8], from: String) -> Result<Loaded<Credentials>, String> {
    let mut answer: Answer = serde_json::from_slice(body)
        .map_err(|error| format!("{from}: the answer is not its JSON ({error})"))?;
    if let Some(code) = answer.code.as_deref().filter(|code| *code != "Success") {
        return Err(format!("{from}: {code}: {}", answer.message.unwrap_or_default()));
    }
    let (Some(id), Some(secret)) = (answer.access_key_id.take(), answer.secret_access_key.take()) else {
        answer.token.zeroize();
        return Err(format!("{from}: the answer has no keys"));
    };
    let until = match &answer.expiration {
        None => None,
        Some(text) => {
            let until = parse_utc(text);
            Some(until.ok_or_else(|| format!("{from}: valid until {text:?}, which is no time in UTC"))?)
        }
    };
    let keys = Credentials {
        access_key_id: id,
        secret_access_key: Zeroizing::new(secret),
        session_token: answer.token.take().map(Zeroizing::new),
    };
    Ok(Loaded { keys, from, watched: None, until })
}

/// Seconds since 1970 of `2026-11-21T03:16:09Z`, perhaps with a fraction.
fn parse_utc(text: &str) -> Option<i64> {
    let whole = text.strip_suffix('Z')?;
    let whole = whole.split_once('.').map_or(whole, |(whole, _)| whole);
    let (date, time) = whole.split_once('T')?;
    let numbers = |text: &str, by: char| -> Option<[i64; 3]> {
        let numbers: Option<Vec<i64>> = text.split(by).map(|part| part.parse().ok()).collect();
        numbers?.try_into().ok()
    };
    let ([year, month, day], [hour, minute, second]) = (numbers(date, '-')?, numbers(time, ':')?);
    let days = days_in_month(u32::try_from(year).ok()?, u32::try_from(month).ok()?);
    let is_one = (1970..=9999).contains(&year)
        && (1..=12).contains(&month)
        && (1..=i64::from(days)).contains(&day)
        && (0..24).contains(&hour)
        && (0..60).contains(&minute)
        && (0..=60).contains(&second);
    is_one.then(|| Date { year, month, day }.days() * SECS_PER_DAY + hour * 3600 + minute * 60 + second)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_go_to_this_machine_and_to_aws_only() {
        for good in [
            "https://anywhere.example/x",
            "http://127.0.0.1:80/x",
            "http://127.9.0.1",
            "http://[::1]:8080/x",
            "http://localhost/x",
            "http://169.254.170.23/v1/credentials",
            "http://[fd00:ec2::23]/v1",
        ] {
            assert!(may_be_asked(good), "{good}");
        }
        for bad in [
            "http://example.com/x",
            "http://127.0.0.1.example.com/",
            "http://127.0.0.1@example.com/",
            "http://169.254.169.254/",
            "ftp://127.0.0.1/",
            "127.0.0.1",
            "http://",
        ] {
            assert!(!may_be_asked(bad), "{bad}");
        }
    }

    #[test]
    fn times_of_answers_are_read_or_refused() {
        assert_eq!(parse_utc("2026-11-21T03:16:42Z"), Some(1_795_231_002));
        assert_eq!(parse_utc("2026-11-21T03:16:42.123Z"), Some(1_795_231_002));
        for bad in
            ["", "2026-11-21T03:16:42", "2026-11-21T03:16:42+01:00", "2026-02-29T00:00:00Z", "2026-11-21"]
        {
            assert_eq!(parse_utc(bad), None, "{bad}");
        }
        let answer = |body: &str| parse(body.as_bytes(), "x".to_owned());
        assert!(answer("{}").is_err() && answer("<html>").is_err());
        let fault = answer(r#"{"Code":"AssumeRoleUnauthorizedAccess","Message":"no"}"#).err().unwrap();
        assert!(fault.contains("AssumeRoleUnauthorizedAccess: no"), "{fault}");
    }
}
