//! AWS Signature Version 4 for S3: credentials, the canonical request, the signature, and the time in it.
//!
//! ```text
//!  StringToSign = "AWS4-HMAC-SHA256" \n time \n date/region/s3/aws4_request \n hex(sha256(CanonicalRequest))
//!  signature    = hex(hmac(hmac(hmac(hmac(hmac("AWS4"+secret, date), region), "s3"), "aws4_request"), StringToSign))
//! ```
//!
//! Invariants: headers and query are given sorted; what is signed is what is sent. Secrets are wiped when dropped and are
//! not in any `Debug`. Does not: sign bodies in chunks (`aws-chunked`), which several servers reject.
//! Source: AWS "Signature Calculations for the Authorization Header"; the tests are the examples on that page.

use std::fmt;
use std::fmt::Write;

use ring::{digest, hmac};
use zeroize::Zeroizing;

use crate::hex::hex;

pub use crate::store::http::encode::{encode_path, encode_query};

/// Stands for the body's digest where TLS protects it.
pub const UNSIGNED_PAYLOAD: &str = "UNSIGNED-PAYLOAD";

/// An access key. Wiped when dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// Its name, which travels in clear.
    pub access_key_id: String,
    /// The secret, which never travels.
    pub secret_access_key: Zeroizing<String>,
    /// Of temporary credentials; travels as a header.
    pub session_token: Option<Zeroizing<String>>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credentials({})", self.access_key_id)
    }
}

/// What is signed of one request.
pub struct Canonical<'a> {
    /// "GET", "PUT", "DELETE".
    pub method: &'a str,
    /// Path, URI-encoded by [`encode_path`].
    pub path: &'a str,
    /// Query, sorted and encoded by [`encode_query`]; empty when there is none.
    pub query: &'a str,
    /// (lower-case name, trimmed value), sorted by name; `host` and every `x-amz-*` must be there.
    pub headers: &'a [(&'a str, &'a str)],
    /// Hexadecimal SHA-256 of the body, or [`UNSIGNED_PAYLOAD`].
    pub payload: &'a str,
}

/// A time in the form of the signature: `20130524T000000Z`. Times before 1970 are 1970, times after 9999 are
/// refused by servers.
pub fn amz_time(wall_s: i64) -> String {
    crate::civil::iso_utc(wall_s.max(0)).replace(['-', ':'], "")
}

/// The value of the `Authorization` header. `time` is what [`amz_time`] gave and what `x-amz-date` says.
pub fn authorization(request: &Canonical<'_>, keys: &Credentials, region: &str, time: &str) -> String {
    let date = time.get(..8).unwrap_or(time);
    let mut names = String::new();
    let mut canonical = format!("{}\n{}\n{}\n", request.method, request.path, request.query);
    for (name, value) in request.headers {
        let _ = writeln!(canonical, "{name}:{value}");
        if !names.is_empty() {
            names.push(';');
        }
        names.push_str(name);
    }
    let _ = write!(canonical, "\n{names}\n{}", request.payload);
    let scope = format!("{date}/{region}/s3/aws4_request");
    let to_sign = format!("AWS4-HMAC-SHA256\n{time}\n{scope}\n{}", sha256_hex(&[canonical.as_bytes()]));

    let secret = Zeroizing::new(format!("AWS4{}", keys.secret_access_key.as_str()));
    let mut key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    for part in [date, region, "s3", "aws4_request"] {
        key = hmac::Key::new(hmac::HMAC_SHA256, hmac::sign(&key, part.as_bytes()).as_ref());
    }
    let signature = hex(hmac::sign(&key, to_sign.as_bytes()).as_ref());
    let id = &keys.access_key_id;
    format!("AWS4-HMAC-SHA256 Credential={id}/{scope}, SignedHeaders={names}, Signature={signature}")
}

/// Hexadecimal SHA-256 of the concatenated parts.
pub fn sha256_hex(parts: &[&[u8]]) -> String {
    let mut context = digest::Context::new(&digest::SHA256);
    for part in parts {
        context.update(part);
    }
    hex(context.finish().as_ref())
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    const TIME: &str = "20130524T000000Z";

    fn signature(
        method: &str,
        path: &str,
        query: &[(&str, &str)],
        extra: &[(&str, &str)],
        payload: &str,
    ) -> String {
        let keys = Credentials {
            access_key_id: "AKIAIOSFODNN7EXAMPLE".into(),
            secret_access_key: Zeroizing::new("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY".into()),
            session_token: None,
        };
        let mut headers = vec![
            ("host", "examplebucket.s3.amazonaws.com"),
            ("x-amz-content-sha256", payload),
            ("x-amz-date", TIME),
        ];
        headers.extend_from_slice(extra);
        headers.sort();
        let request = Canonical {
            method,
            path: &encode_path(path),
            query: &encode_query(query),
            headers: &headers,
            payload,
        };
        let value = authorization(&request, &keys, "us-east-1", TIME);
        assert!(value.starts_with(
            "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request, SignedHeaders="
        ));
        assert!(!format!("{keys:?}").contains("wJalr"));
        value.rsplit_once("Signature=").unwrap().1.to_owned()
    }

    #[test]
    fn the_published_examples_come_out() {
        assert_eq!(
            signature("GET", "/test.txt", &[], &[("range", "bytes=0-9")], EMPTY),
            "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"
        );
        let put = [("date", "Fri, 24 May 2013 00:00:00 GMT"), ("x-amz-storage-class", "REDUCED_REDUNDANCY")];
        assert_eq!(
            signature("PUT", "/test$file.text", &[], &put, &sha256_hex(&[b"Welcome to ", b"Amazon S3."])),
            "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd"
        );
        assert_eq!(
            signature("GET", "/", &[("lifecycle", "")], &[], EMPTY),
            "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543"
        );
        assert_eq!(
            signature("GET", "/", &[("prefix", "J"), ("max-keys", "2")], &[], EMPTY),
            "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"
        );
        assert_eq!(sha256_hex(&[]), EMPTY);
    }

    #[test]
    fn times_are_civil() {
        assert_eq!(amz_time(1_369_353_600), TIME);
        assert_eq!(amz_time(0), "19700101T000000Z");
        assert_eq!(amz_time(-5), "19700101T000000Z");
        assert_eq!(amz_time(951_782_399), "20000228T235959Z");
        assert_eq!(amz_time(951_782_400), "20000229T000000Z");
        assert_eq!(amz_time(4_107_542_399), "21000228T235959Z");
        assert_eq!(amz_time(4_107_542_400), "21000301T000000Z");
    }
}
