//! Answers as bytes, and refusals as problem documents.
//!
//! Each answer says its length, or that the connection ends with it; that nothing may keep it, guess its type or show it in a frame; and no
//! value of a field has bytes that could begin another field.
//!
//! Invariants: a head has at most [`HEAD_BYTES_MAX`](super::limits::HEAD_BYTES_MAX) bytes as long as its own fields are short, which they are.
//! Does not: compress, or send in chunks. Source: RFC 9110, RFC 9112, RFC 9457.

use serde_json::{Value, json};

use super::code::{self, Code};
use crate::civil::{Date, SECS_PER_DAY};

/// Bytes of a field's value; what is longer is cut.
const VALUE_BYTES_MAX: usize = 512;

/// What a body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Media {
    /// JSON.
    Json,
    /// JSON of a problem.
    Problem,
    /// Metrics for Prometheus.
    Metrics,
    /// Metrics for those who ask for OpenMetrics.
    OpenMetrics,
    /// Events.
    Events,
    /// A page.
    Html,
    /// Its style.
    Css,
}

impl Media {
    fn name(self) -> &'static str {
        match self {
            Media::Json => "application/json",
            Media::Problem => "application/problem+json",
            Media::Metrics => "text/plain; version=0.0.4; charset=utf-8",
            Media::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Media::Events => "text/event-stream",
            Media::Html => "text/html; charset=utf-8",
            Media::Css => "text/css; charset=utf-8",
        }
    }
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// What its body is.
    pub media: Media,
    /// Its own fields: names as they are sent.
    pub fields: Vec<(&'static str, String)>,
    /// Its body.
    pub body: Vec<u8>,
}

/// Statuses that answers have, and what they are called.
const REASONS: [(u16, &str); 27] = [
    (200, "OK"),
    (201, "Created"),
    (202, "Accepted"),
    (204, "No Content"),
    (303, "See Other"),
    (304, "Not Modified"),
    (400, "Bad Request"),
    (401, "Unauthorized"),
    (403, "Forbidden"),
    (404, "Not Found"),
    (405, "Method Not Allowed"),
    (408, "Request Timeout"),
    (409, "Conflict"),
    (412, "Precondition Failed"),
    (413, "Content Too Large"),
    (414, "URI Too Long"),
    (415, "Unsupported Media Type"),
    (417, "Expectation Failed"),
    (422, "Unprocessable Content"),
    (428, "Precondition Required"),
    (431, "Request Header Fields Too Large"),
    (500, "Internal Server Error"),
    (501, "Not Implemented"),
    (502, "Bad Gateway"),
    (503, "Service Unavailable"),
    (504, "Gateway Timeout"),
    (505, "HTTP Version Not Supported"),
];

impl Answer {
    /// With a body.
    #[must_use]
    pub fn new(status: u16, media: Media, body: Vec<u8>) -> Answer {
        Answer { status, media, fields: Vec::new(), body }
    }

    /// A document.
    #[must_use]
    pub fn json(status: u16, document: &Value) -> Answer {
        let mut body = crate::foreign::json(&document.to_string()).into_bytes();
        body.push(b'\n');
        Answer::new(status, Media::Json, body)
    }

    /// A refusal: what is wrong in this case.
    #[must_use]
    pub fn problem(code: Code, detail: &str) -> Answer {
        let document = json!({
            "type": format!("urn:windlass:{code}"),
            "title": code.title,
            "status": code.status,
            "detail": detail,
            "code": code.to_string(),
            "help": code.help,
        });
        let answer = Answer { media: Media::Problem, ..Answer::json(code.status, &document) };
        match code {
            code::BUSY => answer.with("Retry-After", "2"),
            code::NAMELESS => answer.with("WWW-Authenticate", "Bearer realm=\"windlass\""),
            _ => answer,
        }
    }

    /// The same with a field.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Answer {
        self.fields.push((name, value.into()));
        self
    }

    /// Its bytes. `closes`: the connection ends with it. `is_head`: its body is left out. A stream has no length, and ends with the connection.
    #[must_use]
    pub fn emit(&self, wall_secs: i64, is_head: bool, closes: bool) -> Vec<u8> {
        let reason =
            REASONS.iter().find(|(status, _)| *status == self.status).map_or("", |(_, reason)| reason);
        let mut head = format!("HTTP/1.1 {} {reason}\r\n", self.status);
        let mut put = |name: &str, value: &str| {
            let value: String =
                value.chars().filter(|c| matches!(c, ' '..='~')).take(VALUE_BYTES_MAX).collect();
            head.push_str(&format!("{name}: {value}\r\n"));
        };
        put("Date", &http_date(wall_secs));
        if self.status != 204 && self.status != 304 {
            put("Content-Type", self.media.name());
        }
        if self.media != Media::Events && self.status != 204 {
            put("Content-Length", &self.body.len().to_string());
        }
        if closes || self.media == Media::Events {
            put("Connection", "close");
        }
        put("Cache-Control", "no-store");
        put("X-Content-Type-Options", "nosniff");
        self.fields.iter().for_each(|(name, value)| put(name, value));
        head.push_str("\r\n");
        let mut out = head.into_bytes();
        if !is_head {
            out.extend_from_slice(&self.body);
        }
        out
    }
}

/// A time as HTTP writes it, such as `Sun, 06 Nov 1994 08:49:37 GMT`.
#[must_use]
pub fn http_date(secs: i64) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let (days, rest) = (secs.div_euclid(SECS_PER_DAY), secs.rem_euclid(SECS_PER_DAY));
    let date = Date::from_days(days);
    let name =
        |names: &[&'static str], at: i64| usize::try_from(at).ok().and_then(|at| names.get(at).copied());
    let (day, month) = (name(&DAYS, days.rem_euclid(7)), name(&MONTHS, date.month - 1));
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!(
        "{}, {:02} {} {:04} {hour:02}:{minute:02}:{second:02} GMT",
        day.unwrap_or_default(),
        date.day,
        month.unwrap_or_default(),
        date.year
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_these_bytes() {
        let answer = Answer::json(200, &json!({ "a": 1 })).with("ETag", "\"3\"\r\nX: 1");
        let text = String::from_utf8(answer.emit(784_111_777, false, true)).unwrap();
        assert_eq!(
            text,
            "HTTP/1.1 200 OK\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\nContent-Type: application/json\r\nContent-Length: 8\r\n\
             Connection: close\r\nCache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\nETag: \"3\"X: 1\r\n\r\n{\"a\":1}\n"
        );
        let head = String::from_utf8(answer.emit(0, true, false)).unwrap();
        assert!(head.ends_with("\r\n\r\n") && head.contains("Content-Length: 8\r\n"), "{head}");
        assert!(
            head.contains("Date: Thu, 01 Jan 1970 00:00:00 GMT\r\n") && !head.contains("Connection"),
            "{head}"
        );
    }

    #[test]
    fn a_refusal_names_its_code() {
        let answer = Answer::problem(code::BUSY, "eight wait\nalready");
        assert_eq!((answer.status, answer.media), (503, Media::Problem));
        let document: Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!((&document["code"], &document["status"]), (&json!("E1501"), &json!(503)));
        assert_eq!(answer.fields, [("Retry-After", "2".to_owned())]);
        assert!(code::ALL.iter().all(|code| REASONS.iter().any(|(status, _)| *status == code.status)));
    }
}
