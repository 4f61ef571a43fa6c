//! Requests of HTTP/1.1, as strict as a server can be that has no old clients: what two programs could read in two ways is refused.
//!
//! | what | answer |
//! |---|---|
//! | a line that does not end with CR LF, a folded field, a control character, a space before a colon | 400, closed |
//! | no Host, two; Content-Length twice, with a sign or a space; Content-Length and Transfer-Encoding | 400, closed |
//! | Transfer-Encoding | 501, closed |
//! | a target that is no path; a part `.`, `..` or with a NUL; a percent sign without two hex digits | 400, closed |
//! | too long, too many | 414, 431, 413; see [`limits`](super::limits) |
//!
//! Invariants: the bytes of a head are looked at up to [`HEAD_BYTES_MAX`], whatever comes. Does not: know routes, or what a body means.
//! Source: RFC 9110, RFC 9112; httparse.

use std::fmt;

use super::code::{self, Code};
use super::limits::{BODY_BYTES_MAX, FIELDS_MAX, HEAD_BYTES_MAX, LINE_BYTES_MAX, PARTS_MAX, QUERY_MAX};

/// A method that some path takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Method {
    /// Reads.
    Get,
    /// The same, without the body.
    Head,
    /// Does something.
    Post,
    /// Sets something.
    Put,
    /// Removes something.
    Delete,
    /// None of these; no path takes it.
    Other,
}

impl Method {
    fn of(name: &str) -> Method {
        match name {
            "GET" => Method::Get,
            "HEAD" => Method::Head,
            "POST" => Method::Post,
            "PUT" => Method::Put,
            "DELETE" => Method::Delete,
            _ => Method::Other,
        }
    }

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Method::Get => "GET",
            Method::Head => "HEAD",
            Method::Post => "POST",
            Method::Put => "PUT",
            Method::Delete => "DELETE",
            Method::Other => "OTHER",
        }
    }

    /// Whether it changes nothing.
    #[must_use]
    pub fn is_safe(self) -> bool {
        matches!(self, Method::Get | Method::Head)
    }
}

/// Why bytes are no request; the connection is closed after it is said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoRequest {
    /// Which rule.
    pub code: Code,
    /// What exactly.
    pub what: &'static str,
}

impl fmt::Display for NoRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code.title, self.what)
    }
}

impl std::error::Error for NoRequest {}

fn no(code: Code, what: &'static str) -> NoRequest {
    NoRequest { code, what }
}

/// A request. Names of fields are in lower case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// What is to be done with the path.
    pub method: Method,
    /// The path's parts, decoded; `/` has none.
    pub path: Vec<String>,
    /// The query's fields, decoded; each name once.
    pub query: Vec<(String, String)>,
    /// Fields of the head that matter here: name and value, each once.
    pub fields: Vec<(&'static str, String)>,
    /// The body; empty without one.
    pub body: Vec<u8>,
    /// The client wants to ask more.
    pub keeps: bool,
}

impl Request {
    /// A field of the head.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(known, _)| *known == name).map(|(_, value)| value.as_str())
    }

    /// A field of the query.
    #[must_use]
    pub fn asked(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The path as a client may write it, for the log: without the query.
    #[must_use]
    pub fn shown(&self) -> String {
        if self.path.is_empty() {
            "/".to_owned()
        } else {
            self.path.iter().map(|part| format!("/{part}")).collect()
        }
    }
}

/// Fields that are kept. All others are let pass unread. One of these twice is refused.
const KEPT: [&str; 14] = [
    "host",
    "content-length",
    "transfer-encoding",
    "content-type",
    "connection",
    "expect",
    "if-match",
    "if-none-match",
    "idempotency-key",
    "authorization",
    "last-event-id",
    "origin",
    "accept",
    "sec-fetch-site",
];

/// A head, and how many bytes of body follow it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// The request, without its body.
    pub request: Request,
    /// Bytes of the head with its empty line.
    pub head_bytes: usize,
    /// Bytes of the body.
    pub body_bytes: usize,
}

/// Reads a head from the begin of `bytes`. `None`: it is not whole yet.
///
/// # Errors
/// It never will be a request.
pub fn parse_head(bytes: &[u8]) -> Result<Option<Head>, NoRequest> {
    // Bytes beyond the bound are not looked at: what they are cannot make a head of more.
    let seen = &bytes[..bytes.len().min(HEAD_BYTES_MAX)];
    let Some(head_bytes) = end_of_head(seen)? else {
        return if seen.len() >= HEAD_BYTES_MAX {
            Err(no(code::HEAD_LARGE, "it does not end within 8 KiB"))
        } else {
            Ok(None)
        };
    };
    let mut room = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut parsed = httparse::Request::new(&mut room);
    match parsed.parse(&seen[..head_bytes]) {
        Ok(httparse::Status::Complete(len)) if len == head_bytes => {}
        Ok(_) => return Err(no(code::SYNTAX, "the head ends before its empty line")),
        Err(httparse::Error::TooManyHeaders) => return Err(no(code::HEAD_LARGE, "more than 32 fields")),
        Err(httparse::Error::Version) => return Err(no(code::VERSION, "the version is another")),
        Err(_) => return Err(no(code::SYNTAX, "the request line or a field is malformed")),
    }
    if parsed.version != Some(1) {
        return Err(no(code::VERSION, "the version is 1.0"));
    }
    let fields = kept(parsed.headers)?;
    let (path, query) = target(parsed.path.unwrap_or_default())?;
    let mut request = Request {
        method: Method::of(parsed.method.unwrap_or_default()),
        path,
        query,
        fields,
        body: Vec::new(),
        keeps: true,
    };
    let body_bytes = framing(&request)?;
    let says_close = |value: &str| value.split(',').any(|word| word.trim().eq_ignore_ascii_case("close"));
    request.keeps = !request.field("connection").is_some_and(says_close);
    Ok(Some(Head { request, head_bytes, body_bytes }))
}

/// Bytes up to and with the empty line, if it is there. Line ends and folds are judged as they come.
fn end_of_head(bytes: &[u8]) -> Result<Option<usize>, NoRequest> {
    let mut line_from = 0;
    for (at, &byte) in bytes.iter().enumerate() {
        let is_first = line_from == 0;
        if is_first && at - line_from >= LINE_BYTES_MAX {
            return Err(no(code::LINE_LONG, "more than 2 KiB"));
        }
        match byte {
            b'\n' if at == 0 || bytes[at - 1] != b'\r' => {
                return Err(no(code::SYNTAX, "a line ends with LF alone"));
            }
            b'\n' if at - line_from == 1 && is_first => {
                return Err(no(code::SYNTAX, "an empty line comes before the request"));
            }
            b'\n' if at - line_from == 1 => return Ok(Some(at + 1)),
            b'\n' => line_from = at + 1,
            _ if at > 0 && bytes[at - 1] == b'\r' => {
                return Err(no(code::SYNTAX, "a CR that ends no line"));
            }
            b' ' | b'\t' if at == line_from => {
                return Err(no(code::SYNTAX, "a line begins with a space: folded fields are not taken"));
            }
            _ => {}
        }
    }
    Ok(None)
}

/// The fields that matter, each once.
fn kept(headers: &[httparse::Header<'_>]) -> Result<Vec<(&'static str, String)>, NoRequest> {
    let mut fields: Vec<(&'static str, String)> = Vec::new();
    for header in headers {
        let Some(name) = KEPT.into_iter().find(|name| header.name.eq_ignore_ascii_case(name)) else {
            continue;
        };
        if fields.iter().any(|(known, _)| *known == name) {
            return Err(no(code::SYNTAX, "a field that may be there once is there twice"));
        }
        let value = std::str::from_utf8(header.value)
            .ok()
            .filter(|value| value.bytes().all(|byte| byte == b'\t' || (b' '..0x7f).contains(&byte)))
            .ok_or_else(|| no(code::SYNTAX, "a field has characters that are not ASCII"))?;
        fields.push((name, value.to_owned()));
    }
    Ok(fields)
}

/// How many bytes of body follow.
fn framing(request: &Request) -> Result<usize, NoRequest> {
    let host = request.field("host").ok_or_else(|| no(code::SYNTAX, "Host is missing"))?;
    let is_host = |byte: u8| byte.is_ascii_alphanumeric() || b".-_:[]%".contains(&byte);
    if host.is_empty() || !host.bytes().all(is_host) {
        return Err(no(code::SYNTAX, "Host is malformed"));
    }
    let length = request.field("content-length");
    if request.field("transfer-encoding").is_some() {
        return Err(match length {
            Some(_) => no(code::SYNTAX, "Content-Length and Transfer-Encoding together"),
            None => no(code::CODING, "Transfer-Encoding"),
        });
    }
    if request.field("expect").is_some() {
        return Err(no(code::EXPECTATION, "Expect"));
    }
    let Some(length) = length else { return Ok(0) };
    if length.is_empty() || !length.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(no(code::SYNTAX, "Content-Length is no number"));
    }
    match length.parse::<usize>() {
        Ok(length) if length <= BODY_BYTES_MAX => Ok(length),
        _ => Err(no(code::BODY_LARGE, "more than 64 KiB")),
    }
}

type Target = (Vec<String>, Vec<(String, String)>);

/// Parts and query of a target.
fn target(target: &str) -> Result<Target, NoRequest> {
    let rest = target
        .strip_prefix('/')
        .ok_or_else(|| no(code::SYNTAX, "the target is no path that begins with a slash"))?;
    if target.contains('#') {
        return Err(no(code::SYNTAX, "the target has a fragment"));
    }
    let (path, query) = rest.split_once('?').map_or((rest, None), |(path, query)| (path, Some(query)));
    let mut parts = Vec::new();
    // One slash at the end is the same path.
    let path = path.strip_suffix('/').unwrap_or(path);
    for part in path.split('/').filter(|_| !path.is_empty()) {
        let part = decoded(part, false)?;
        if part.is_empty() || part == "." || part == ".." {
            return Err(no(code::SYNTAX, "a part of the path is empty, '.' or '..'"));
        }
        if parts.len() == PARTS_MAX {
            return Err(no(code::LINE_LONG, "the path has more than 16 parts"));
        }
        parts.push(part);
    }
    let mut fields: Vec<(String, String)> = Vec::new();
    for pair in query.into_iter().flat_map(|query| query.split('&')).filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let (name, value) = (decoded(name, true)?, decoded(value, true)?);
        if fields.len() == QUERY_MAX {
            return Err(no(code::LINE_LONG, "the query has more than 16 fields"));
        }
        if fields.iter().any(|(known, _)| *known == name) {
            return Err(no(code::SYNTAX, "a field of the query is there twice"));
        }
        fields.push((name, value));
    }
    Ok((parts, fields))
}

/// Text without its percent signs.
fn decoded(text: &str, plus_is_space: bool) -> Result<String, NoRequest> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'%' => {
                let digit = |byte: Option<u8>| byte.and_then(|byte| char::from(byte).to_digit(16));
                match (digit(bytes.next()), digit(bytes.next())) {
                    (Some(high), Some(low)) => u8::try_from(high * 16 + low).unwrap_or(0),
                    _ => return Err(no(code::SYNTAX, "a percent sign without two hex digits")),
                }
            }
            b'+' if plus_is_space => b' ',
            byte if byte.is_ascii_graphic() => byte,
            _ => return Err(no(code::SYNTAX, "the target has characters that are to be percent-encoded")),
        });
    }
    if out.contains(&0) {
        return Err(no(code::SYNTAX, "the target has a NUL"));
    }
    String::from_utf8(out).map_err(|_| no(code::SYNTAX, "the target is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(text: &str) -> Result<Option<Head>, NoRequest> {
        parse_head(text.as_bytes())
    }

    fn refused(text: &str) -> u16 {
        head(text).expect_err(text).code.status
    }

    #[test]
    fn a_request_is_read_however_far_it_has_come() {
        let text = "POST /v1/policies/a%20b/backup/?x=1+2&y=%26 HTTP/1.1\r\nHost: n:8443\r\nAccept-Language: de\r\n\
                    Content-Length: 2\r\nConnection: foo, Close\r\n\r\n{}GET ";
        let end = text.find("{}").unwrap();
        for cut in 0..end {
            assert_eq!(head(&text[..cut]), Ok(None), "{cut}");
        }
        let Head { request, head_bytes, body_bytes } = head(text).unwrap().unwrap();
        assert_eq!((head_bytes, body_bytes, request.keeps), (end, 2, false));
        assert_eq!(request.method, Method::Post);
        assert_eq!(request.path, ["v1", "policies", "a b", "backup"]);
        assert_eq!(
            (request.asked("x"), request.asked("y"), request.asked("z")),
            (Some("1 2"), Some("&"), None)
        );
        assert_eq!((request.field("host"), request.field("accept-language")), (Some("n:8443"), None));
        assert_eq!(request.shown(), "/v1/policies/a b/backup");
        let plain = head("BREW / HTTP/1.1\r\nHost: n\r\n\r\n").unwrap().unwrap();
        assert_eq!(
            (plain.request.method, plain.request.path.len(), plain.request.keeps),
            (Method::Other, 0, true)
        );
    }

    #[test]
    fn what_two_programs_could_read_in_two_ways_is_refused() {
        let with = |fields: &str| format!("GET / HTTP/1.1\r\nHost: n\r\n{fields}\r\n");
        for (fields, status) in [
            ("Content-Length: 1\r\nContent-Length: 1\r\n", 400),
            ("Content-Length: 1, 1\r\n", 400),
            ("Content-Length: +1\r\n", 400),
            ("Content-Length: -1\r\n", 400),
            ("Content-Length: 1 1\r\n", 400),
            ("Content-Length: \r\n", 400),
            ("Content-Length: 0x1\r\n", 400),
            ("Content-Length: 65537\r\n", 413),
            ("Content-Length: 99999999999999999999999999\r\n", 413),
            ("Transfer-Encoding: chunked\r\n", 501),
            ("Transfer-Encoding: chunked\r\nContent-Length: 1\r\n", 400),
            ("Content-Length: 1\r\nTransfer-Encoding: identity\r\n", 400),
            ("Host: other\r\n", 400),
            ("X: 1\r\n folded\r\n", 400),
            ("X: 1\r\n\tfolded\r\n", 400),
            ("X : 1\r\n", 400),
            ("X: 1\n", 400),
            ("X: 1\rY: 2\r\n", 400),
            ("X: \x01\r\n", 400),
            (": 1\r\n", 400),
            ("Expect: 100-continue\r\n", 417),
            ("If-Match: \u{e4}\r\n", 400),
        ] {
            assert_eq!(refused(&with(fields)), status, "{fields:?}");
        }
        for (line, status) in [
            ("GET / HTTP/1.0", 505),
            ("GET / HTTP/2.0", 505),
            ("GET /", 400),
            ("GET  / HTTP/1.1", 400),
            ("GET http://n/ HTTP/1.1", 400),
            ("GET * HTTP/1.1", 400),
            ("GET /a/../b HTTP/1.1", 400),
            ("GET /a/%2e%2E/b HTTP/1.1", 400),
            ("GET //a HTTP/1.1", 400),
            ("GET /%00 HTTP/1.1", 400),
            ("GET /%zz HTTP/1.1", 400),
            ("GET /%f HTTP/1.1", 400),
            ("GET /%ff HTTP/1.1", 400),
            ("GET /#x HTTP/1.1", 400),
            ("GET /?a=1&a=2 HTTP/1.1", 400),
            ("G\u{e4}T / HTTP/1.1", 400),
            (" GET / HTTP/1.1", 400),
        ] {
            assert_eq!(refused(&format!("{line}\r\nHost: n\r\n\r\n")), status, "{line:?}");
        }
        assert_eq!(refused("GET / HTTP/1.1\r\n\r\n"), 400);
        assert_eq!(refused("GET / HTTP/1.1\r\nHost: \r\n\r\n"), 400);
        assert_eq!(refused("GET / HTTP/1.1\r\nHost: a b\r\n\r\n"), 400);
        assert_eq!(refused("\r\nGET / HTTP/1.1\r\n"), 400);
        assert_eq!(refused("\x16\x03\x01\n"), 400);
    }

    #[test]
    fn bounds_hold_to_the_byte() {
        let line = |extra: usize| {
            format!("GET /{} HTTP/1.1\r\nHost: n\r\n\r\n", "a".repeat(LINE_BYTES_MAX - 16 + extra))
        };
        assert!(head(&line(0)).is_ok_and(|head| head.is_some()));
        assert_eq!(refused(&line(1)), 414);
        let frame = "GET / HTTP/1.1\r\nHost: n\r\nX: \r\n\r\n".len();
        let large =
            |len: usize| format!("GET / HTTP/1.1\r\nHost: n\r\nX: {}\r\n\r\n", "a".repeat(len - frame));
        assert!(head(&large(HEAD_BYTES_MAX)).is_ok_and(|head| head.is_some()));
        assert_eq!(refused(&large(HEAD_BYTES_MAX + 1)), 431);
        let many =
            |count: usize| format!("GET / HTTP/1.1\r\nHost: n\r\n{}\r\n", "X: 1\r\n".repeat(count - 1));
        assert!(head(&many(FIELDS_MAX)).is_ok_and(|head| head.is_some()));
        assert_eq!(refused(&many(FIELDS_MAX + 1)), 431);
        let parts = |count: usize| format!("GET {} HTTP/1.1\r\nHost: n\r\n\r\n", "/a".repeat(count));
        assert!(head(&parts(PARTS_MAX)).is_ok());
        assert_eq!(refused(&parts(PARTS_MAX + 1)), 414);
        let body = |len: usize| format!("PUT /a HTTP/1.1\r\nHost: n\r\nContent-Length: {len}\r\n\r\n");
        assert_eq!(head(&body(BODY_BYTES_MAX)).unwrap().unwrap().body_bytes, BODY_BYTES_MAX);
        assert_eq!(refused(&body(BODY_BYTES_MAX + 1)), 413);
    }
}
