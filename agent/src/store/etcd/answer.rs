//! Answers of etcd's JSON gateway: their bodies, and what an unsuccessful one means.
//!
//! The gateway writes 64-bit numbers as strings, bytes in base64, and leaves out every field that is zero, false or empty: a
//! transaction that lost has no `succeeded`, an absent key no `kvs`. So an empty object would mean "exists already" to one call
//! and "no such key" to another, and nothing counts without the header that every answer of a real etcd has.
//!
//! Invariants: an answer that decides nothing is `Unknown`, never `Exists` or `NotFound`. Input is bounded before it comes here.
//! Does not: read from the network. Source: etcd 3.4 `rpc.proto`; its answers on loopback; gRPC's status codes.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;
use serde::de::{Deserializer, Error};

use crate::store::StoreFaultKind;

/// What every answer begins with.
#[derive(Debug, Deserialize, PartialEq, Eq)]
pub struct Header {
    /// Which cluster answers; never 0.
    #[serde(deserialize_with = "number")]
    pub cluster_id: u64,
    /// The store's revision; never 0.
    #[serde(deserialize_with = "number")]
    pub revision: u64,
}

/// Of a put, a transaction or a delete.
#[derive(Debug, Deserialize)]
pub struct Done {
    /// See [`Header`].
    pub header: Header,
    /// Whether a transaction's comparison held.
    #[serde(default)]
    pub succeeded: bool,
}

/// Of a range.
#[derive(Debug, Deserialize)]
pub struct Range {
    /// See [`Header`].
    pub header: Header,
    /// Keys and values, ascending by key.
    #[serde(default)]
    pub kvs: Vec<Pair>,
    /// Whether there are more than the limit.
    #[serde(default)]
    pub more: bool,
    /// Keys in the whole range, whatever the limit.
    #[serde(default, deserialize_with = "number")]
    pub count: u64,
}

/// A key and its value.
#[derive(Debug, Deserialize)]
pub struct Pair {
    /// The whole key.
    #[serde(default, deserialize_with = "bytes")]
    pub key: Vec<u8>,
    /// Value of the key.
    #[serde(default, deserialize_with = "bytes")]
    pub value: Vec<u8>,
}

/// Of a call that failed.
#[derive(Debug, Default, Deserialize)]
pub struct Failed {
    /// gRPC's status code.
    #[serde(default)]
    pub code: u32,
    /// In words.
    #[serde(default)]
    pub message: String,
}

impl Header {
    /// Whether an etcd wrote it.
    pub fn is_real(&self) -> bool {
        self.cluster_id != 0 && self.revision != 0
    }
}

impl Range {
    /// Whether the parts of the answer agree: a count without keys, keys without a count, or more keys and none that they come after
    /// is a damaged one.
    pub fn is_whole(&self) -> bool {
        let keys = self.kvs.len() as u64;
        (keys == 0) == (self.count == 0) && self.count >= keys && self.more == (self.count > keys)
    }
}

/// What an unsuccessful answer means: `status` is HTTP's, `failed` what its body said, if that was etcd's.
pub fn kind(status: u16, failed: &Failed) -> StoreFaultKind {
    match failed.code {
        0 => kind_of_status(status),
        // InvalidArgument, which is also what a cluster with passwords says to a caller without one.
        3 if failed.message.contains("user name is empty") => StoreFaultKind::Denied,
        8 if failed.message.contains("space exceeded") => StoreFaultKind::Full,
        // PermissionDenied, Unauthenticated.
        7 | 16 => StoreFaultKind::Denied,
        // Unimplemented.
        12 => StoreFaultKind::Unsupported,
        // InvalidArgument, NotFound, AlreadyExists, FailedPrecondition, OutOfRange: the call itself is wrong.
        3 | 5 | 6 | 9 | 11 => StoreFaultKind::Rejected,
        // Cancelled, DeadlineExceeded, Unavailable and others: it may have been applied.
        _ => StoreFaultKind::Unknown,
    }
}

/// Without etcd's own words: a proxy, a server of another kind, or an etcd before 3.4.
fn kind_of_status(status: u16) -> StoreFaultKind {
    match status {
        401 | 403 => StoreFaultKind::Denied,
        404 | 405 | 501 => StoreFaultKind::Unsupported,
        300..=407 | 409..=428 | 430..=499 => StoreFaultKind::Rejected,
        _ => StoreFaultKind::Unknown,
    }
}

/// Base64 of the concatenation of `parts`, appended to `out`.
pub fn encode(parts: &[&[u8]], out: &mut String) {
    let mut whole = Vec::new();
    let joined = match parts {
        [one] => one,
        parts => {
            whole.extend(parts.iter().flat_map(|part| part.iter()));
            whole.as_slice()
        }
    };
    BASE64_STANDARD.encode_string(joined, out);
}

fn number<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    String::deserialize(from)?.parse().map_err(D::Error::custom)
}

fn bytes<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
    BASE64_STANDARD.decode(String::deserialize(from)?).map_err(D::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str =
        r#""header":{"cluster_id":"324952591200643719","member_id":"33","revision":"2","raft_term":"2"}"#;

    #[test]
    fn answers_of_a_real_server_are_read() {
        let won: Done = serde_json::from_str(&format!(
            r#"{{{HEADER},"succeeded":true,"responses":[{{"response_put":{{"header":{{"revision":"2"}}}}}}]}}"#
        ))
        .unwrap();
        assert!(won.succeeded && won.header.is_real() && won.header.cluster_id == 324_952_591_200_643_719);
        let lost: Done = serde_json::from_str(&format!("{{{HEADER}}}")).unwrap();
        assert!(!lost.succeeded);
        let found: Range = serde_json::from_str(&format!(
            r#"{{{HEADER},"kvs":[{{"key":"YS9i","create_revision":"2","version":"1","value":"aGVsbG8="}}],"count":"1"}}"#
        ))
        .unwrap();
        assert_eq!((&found.kvs[0].key[..], &found.kvs[0].value[..]), (&b"a/b"[..], &b"hello"[..]));
        assert!(found.is_whole() && !found.more);
        let absent: Range = serde_json::from_str(&format!("{{{HEADER}}}")).unwrap();
        assert!(absent.is_whole() && absent.kvs.is_empty());
        let emptied: Range =
            serde_json::from_str(&format!(r#"{{{HEADER},"kvs":[{{"key":"YS9i"}}],"count":"1"}}"#)).unwrap();
        assert!(emptied.kvs[0].value.is_empty());
    }

    #[test]
    fn what_no_etcd_would_say_does_not_count() {
        for body in ["", "{}", "null", r#"{"header":{}}"#, r#"{"header":{"cluster_id":"1"}}"#, "<html>"] {
            assert!(serde_json::from_str::<Done>(body).is_err(), "{body}");
            assert!(serde_json::from_str::<Range>(body).is_err(), "{body}");
        }
        let zero: Done = serde_json::from_str(r#"{"header":{"cluster_id":"0","revision":"1"}}"#).unwrap();
        assert!(!zero.header.is_real());
        let torn: Range = serde_json::from_str(&format!(r#"{{{HEADER},"count":"1"}}"#)).unwrap();
        assert!(!torn.is_whole());
        assert!(
            serde_json::from_str::<Range>(&format!(r#"{{{HEADER},"kvs":[{{"key":"YS9"}}]}}"#)).is_err(),
            "base64 without its padding"
        );
    }

    #[test]
    fn failures_are_told_apart() {
        use StoreFaultKind as Kind;
        let of = |status, code, message: &str| kind(status, &Failed { code, message: message.to_owned() });
        assert_eq!(of(429, 8, "etcdserver: mvcc: database space exceeded"), Kind::Full);
        assert_eq!(of(429, 8, "etcdserver: too many requests"), Kind::Unknown);
        assert_eq!(of(503, 14, "etcdserver: request timed out"), Kind::Unknown);
        assert_eq!(of(504, 4, "context deadline exceeded"), Kind::Unknown);
        assert_eq!(of(400, 3, "etcdserver: request is too large"), Kind::Rejected);
        assert_eq!(of(400, 3, "etcdserver: user name is empty"), Kind::Denied);
        assert_eq!(of(403, 7, "etcdserver: permission denied"), Kind::Denied);
        assert_eq!(of(401, 16, "etcdserver: invalid auth token"), Kind::Denied);
        assert_eq!(of(501, 12, "unknown method"), Kind::Unsupported);
        assert_eq!(of(404, 0, ""), Kind::Unsupported);
        assert_eq!(of(302, 0, ""), Kind::Rejected);
        for status in [500, 502, 503, 504, 429, 408] {
            assert_eq!(of(status, 0, ""), Kind::Unknown, "{status}");
        }
    }

    #[test]
    fn parts_are_joined_before_they_are_encoded() {
        let mut out = String::from("\"");
        encode(&[b"h", b"", b"ello"], &mut out);
        assert_eq!(out, "\"aGVsbG8=");
    }
}
