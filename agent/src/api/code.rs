//! Codes of refusals: each has one meaning for ever, so that programs and people can look it up.
//!
//! | codes | about |
//! |---|---|
//! | E10xx | what a client sent is no request |
//! | E11xx | who asks |
//! | E12xx | what there is |
//! | E13xx | what a request says |
//! | E14xx | what the cluster says |
//! | E15xx | the node itself |
//!
//! Invariants: a number is used once and keeps its meaning. Does not: say what is wrong in a case: the detail beside it does. Source: ours.

use std::fmt;

/// A code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Code {
    /// Its number.
    pub number: u16,
    /// Status of an answer that has it.
    pub status: u16,
    /// What it means, in a few words.
    pub title: &'static str,
    /// What to do.
    pub help: &'static str,
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "E{:04}", self.number)
    }
}

macro_rules! codes {
    ($($name:ident $number:literal $status:literal $title:literal $help:literal;)*) => {
        $(#[doc = $title] pub const $name: Code =
            Code { number: $number, status: $status, title: $title, help: $help };)*
        /// All of them, ascending.
        pub const ALL: &[Code] = &[$($name),*];
    };
}

codes! {
    SYNTAX 1001 400 "not an HTTP/1.1 request"
        "send what RFC 9112 says: lines end with CR LF, one Host, one Content-Length, no folded fields";
    LINE_LONG 1002 414 "the request line is too long" "shorten path and query to 2 KiB";
    HEAD_LARGE 1003 431 "the head is too large" "send at most 32 fields and 8 KiB of head";
    BODY_LARGE 1004 413 "the body is too large" "send at most 64 KiB";
    CODING 1005 501 "transfer codings are not taken" "send the body with a Content-Length";
    SLOW 1006 408 "the request came too slowly" "send the head within 10 s and the body within 20 s";
    VERSION 1007 505 "not HTTP/1.1" "speak HTTP/1.1";
    EXPECTATION 1008 417 "Expect is not taken" "send the body at once";
    NAMELESS 1101 401 "nothing says who asks" "show a certificate of the API's CA, or connect to its Unix socket";
    ROLE 1102 403 "a role is missing" "an administrator gives it with windlass role grant";
    ORIGIN 1103 403 "the request is from a page of another site" "use the page of this node";
    PATH 1201 404 "there is nothing at this path" "GET /v1/openapi.json lists all paths";
    METHOD 1202 405 "the path does not take this method" "use one that the field Allow names";
    THING 1203 404 "there is no such thing" "list what there is: GET /v1/policies, or the points of a policy";
    MEDIA 1204 415 "the body is not JSON" "send Content-Type: application/json";
    FIELD 1301 422 "a field is wrong" "correct the field that the detail names";
    BARE 1302 428 "If-Match is missing" "read it first, and send its ETag as If-Match, so that no change of others is lost";
    CHANGED 1303 412 "it was changed meanwhile" "read it again, and repeat the change on what it is now";
    KEY_USED 1304 422 "the Idempotency-Key was used for another request" "make a new key for each request";
    KEY_BUSY 1305 409 "a request with this Idempotency-Key is under way" "ask again later with the same key";
    REFUSED 1401 409 "the cluster does not do it" "the detail says why and what to do";
    STORE 1402 502 "the store fails" "see the store in GET /v1/status";
    BUSY 1501 503 "the node has too much to do" "ask again after the time that Retry-After says";
    LATE 1502 504 "there was no answer in time" "GET /v1/status says whether a node coordinates; the command may still be carried out";
    FAILED 1503 500 "the node failed" "see the agent's log";
}

/// The code of a number, as in `E1301`.
#[must_use]
pub fn find(text: &str) -> Option<Code> {
    let number: u16 = text.trim_start_matches(['E', 'e']).parse().ok()?;
    ALL.iter().find(|code| code.number == number).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique_and_found_by_their_text() {
        assert!(ALL.is_sorted_by(|a, b| a.number < b.number));
        for code in ALL {
            assert_eq!(find(&code.to_string()), Some(*code));
            assert!(!code.title.is_empty() && !code.help.is_empty() && (400..600).contains(&code.status));
        }
        assert_eq!((find("E9999"), find("x")), (None, None));
        assert_eq!(FIELD.to_string(), "E1301");
    }
}
