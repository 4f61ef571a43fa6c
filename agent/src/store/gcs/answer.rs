//! What an answer of Google Cloud Storage means: status and words to a fault's kind, and the JSON of errors, objects and listings.
//!
//! | answer | JSON |
//! |---|---|
//! | error | `{"error":{"code":404,"message":"No such object: bucket/name","errors":[{"reason":"notFound"}]}}` |
//! | object | `{"name":"p/a","size":"10","crc32c":"KAwGng==",...}` |
//! | listing | `{"items":[{"name":"p/a","size":"10"}],"nextPageToken":"..."}` |
//!
//! Invariants: an answer that decides nothing is `Unknown` or `Conflict`, never `Exists` or `NotFound`. Input from the server is bounded
//! before it comes here and never trusted; fields that are not known are left out. Does not: read from the network.
//! Source: `agent/doc/commit-log.md`, Answers to a create; Google "HTTP status and error codes for JSON", "Objects: list".

use serde::Deserialize;

use crate::store::{PutMode, StoreFaultKind};

/// Which call an answer belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// Upload of an object.
    Put(PutMode),
    /// Its bytes.
    Get,
    /// LIST of the bucket, or a question about the bucket.
    Bucket,
    /// DELETE of an object.
    Delete,
}

/// What an error body says, empty where it is missing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ErrorBody {
    /// `reason` of the first error, such as `conditionNotMet`.
    pub reason: String,
    /// For people.
    pub message: String,
    /// Whether it has the form of Google's errors. A download's error is plain text.
    pub is_json: bool,
}

/// An object as it was stored.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Stored {
    /// With the prefix.
    pub name: String,
    /// Bytes, as digits.
    pub size: String,
    /// CRC-32C, big-endian, in base64.
    pub crc32c: String,
}

/// One page of a LIST.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// (name, size) in the server's order.
    pub objects: Vec<(String, u64)>,
    /// Token of the next page; empty: this is the last one.
    pub token: String,
}

/// The answer does not fit the request; the text says why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed(pub &'static str);

/// What an unsuccessful answer means.
pub fn kind(call: Call, status: u16, error: &ErrorBody) -> StoreFaultKind {
    let create = call == Call::Put(PutMode::CreateOnly);
    match (status, error.reason.as_str()) {
        (412, _) if create => StoreFaultKind::Exists,
        (_, "retentionPolicyNotMet" | "objectUnderActiveHold") => StoreFaultKind::Denied,
        (_, "quotaExceeded" | "storageQuotaExceeded") if status == 403 => StoreFaultKind::Full,
        (_, "rateLimitExceeded" | "userRateLimitExceeded" | "backendError") => StoreFaultKind::Unknown,
        (401 | 403, _) => StoreFaultKind::Denied,
        (404, _) => match (call, error.message.as_str()) {
            (_, "The specified bucket does not exist.") => StoreFaultKind::StoreGone,
            (Call::Get | Call::Delete, said) if said.starts_with("No such object: ") => {
                StoreFaultKind::NotFound
            }
            (Call::Put(_) | Call::Bucket, _) if error.is_json => StoreFaultKind::StoreGone,
            // The object, the bucket or a proxy: another question says it.
            (Call::Put(_) | Call::Bucket | Call::Get | Call::Delete, _) => StoreFaultKind::Unknown,
        },
        (400, "invalid" | "badRequest" | "invalidArgument") if error.message.contains("hash") => {
            StoreFaultKind::Corrupt
        }
        (400, _) if create && error.message.contains("eneration") => StoreFaultKind::Unsupported,
        (409 | 412, _) => StoreFaultKind::Conflict,
        (408 | 429, _) => StoreFaultKind::Unknown,
        (501, _) => StoreFaultKind::Unsupported,
        (507, _) => StoreFaultKind::Full,
        (100..=299 | 302 | 303 | 500..=599, _) => StoreFaultKind::Unknown,
        _ => StoreFaultKind::Rejected,
    }
}

#[derive(Deserialize)]
struct Errors {
    error: ErrorOf,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ErrorOf {
    message: String,
    errors: Vec<Reason>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Reason {
    reason: String,
}

/// Reads an error body: JSON, or the plain text of a download.
pub fn parse_error(body: &[u8]) -> ErrorBody {
    if let Ok(Errors { error }) = serde_json::from_slice::<Errors>(body) {
        let reason = error.errors.into_iter().next().map(|first| first.reason).unwrap_or_default();
        return ErrorBody { reason, message: error.message, is_json: true };
    }
    let text = str::from_utf8(body).unwrap_or("").trim();
    // A page of HTML is not Google's.
    let message = if text.starts_with('<') { "" } else { text.lines().next().unwrap_or("") };
    ErrorBody { message: message.to_owned(), ..ErrorBody::default() }
}

/// Reads what an upload answers.
///
/// # Errors
/// When it is not an object.
pub fn parse_stored(json: &[u8]) -> Result<Stored, Malformed> {
    let stored: Stored =
        serde_json::from_slice(json).map_err(|_| Malformed("not an object's description"))?;
    if stored.name.is_empty() { Err(Malformed("an object without a name")) } else { Ok(stored) }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Listing {
    #[serde(default)]
    items: Vec<Item>,
    #[serde(default)]
    next_page_token: String,
    /// Says that it is a listing, also when there is nothing in it.
    kind: Option<String>,
}

#[derive(Deserialize)]
struct Item {
    name: String,
    size: String,
}

/// Reads one page of a LIST.
///
/// # Errors
/// When it is cut short, is not a listing, or has objects without a name or a size.
pub fn parse_list(json: &[u8]) -> Result<Page, Malformed> {
    let listing: Listing = serde_json::from_slice(json).map_err(|_| Malformed("not a listing"))?;
    if listing.kind.as_deref() != Some("storage#objects") {
        return Err(Malformed("not a listing"));
    }
    let sized = |item: Item| Some((item.name, item.size.parse().ok()?));
    let objects: Option<Vec<(String, u64)>> = listing.items.into_iter().map(sized).collect();
    let objects = objects.ok_or(Malformed("a listed object has no size"))?;
    Ok(Page { objects, token: listing.next_page_token })
}

#[derive(Deserialize)]
struct Bucket {
    #[serde(default)]
    versioning: Option<Versions>,
}

#[derive(Deserialize)]
struct Versions {
    #[serde(default)]
    enabled: bool,
}

/// Whether a bucket keeps versions, out of its description.
///
/// # Errors
/// When it is not one.
pub fn parse_versioning(json: &[u8]) -> Result<bool, Malformed> {
    let bucket: Bucket = serde_json::from_slice(json).map_err(|_| Malformed("not a bucket's description"))?;
    Ok(bucket.versioning.is_some_and(|versions| versions.enabled))
}

#[cfg(test)]
mod tests {
    use super::*;
    use StoreFaultKind as Kind;

    #[test]
    fn every_answer_of_the_reference_has_its_kind() {
        let create = Call::Put(PutMode::CreateOnly);
        let replace = Call::Put(PutMode::Replace);
        for (call, status, reason, message, expected) in [
            (create, 412, "conditionNotMet", "", Kind::Exists),
            (create, 412, "", "", Kind::Exists),
            (create, 409, "conflict", "", Kind::Conflict),
            (create, 404, "notFound", "The specified bucket does not exist.", Kind::StoreGone),
            (create, 404, "notFound", "Not Found", Kind::StoreGone),
            (create, 429, "rateLimitExceeded", "", Kind::Unknown),
            (create, 503, "backendError", "", Kind::Unknown),
            (create, 501, "", "", Kind::Unsupported),
            (create, 400, "invalid", "ifGenerationMatch is not supported", Kind::Unsupported),
            (replace, 412, "conditionNotMet", "", Kind::Conflict),
            (
                replace,
                400,
                "invalid",
                "Provided CRC32C \"x\" doesn't match calculated CRC32C hash",
                Kind::Corrupt,
            ),
            (replace, 403, "forbidden", "", Kind::Denied),
            (replace, 403, "quotaExceeded", "", Kind::Full),
            (replace, 403, "userRateLimitExceeded", "", Kind::Unknown),
            (replace, 401, "authError", "", Kind::Denied),
            (replace, 403, "retentionPolicyNotMet", "", Kind::Denied),
            (replace, 413, "uploadTooLarge", "", Kind::Rejected),
            (Call::Get, 404, "", "No such object: b/p/a", Kind::NotFound),
            (Call::Get, 404, "", "The specified bucket does not exist.", Kind::StoreGone),
            (Call::Get, 404, "notFound", "Not Found", Kind::Unknown),
            (Call::Delete, 404, "notFound", "No such object: b/p/a", Kind::NotFound),
            (Call::Bucket, 404, "notFound", "Not Found", Kind::StoreGone),
            (Call::Bucket, 204, "", "", Kind::Unknown),
        ] {
            let error =
                ErrorBody { reason: reason.into(), message: message.into(), is_json: !reason.is_empty() };
            assert_eq!(kind(call, status, &error), expected, "{call:?} {status} {reason} {message}");
        }
    }

    #[test]
    fn errors_are_json_or_text() {
        let json = br#"{"error":{"code":412,"message":"Stop","errors":[{"domain":"global","reason":"conditionNotMet","x":[1]}]}}"#;
        let error = parse_error(json);
        assert_eq!(
            (error.reason.as_str(), error.message.as_str(), error.is_json),
            ("conditionNotMet", "Stop", true)
        );
        assert_eq!(parse_error(b"No such object: b/a\n").message, "No such object: b/a");
        assert_eq!(parse_error(b"<html>x</html>"), ErrorBody::default());
        assert_eq!(parse_error(b"\xff"), ErrorBody::default());
    }

    #[test]
    fn a_listing_is_read_whole_or_refused() {
        let json = br#"{"kind":"storage#objects","items":[{"name":"p/a","size":"10","other":{}},{"name":"p/b","size":"0"}],"nextPageToken":"t"}"#;
        let page = parse_list(json).unwrap();
        assert_eq!(page.objects, [("p/a".to_owned(), 10), ("p/b".to_owned(), 0)]);
        assert_eq!(page.token, "t");
        for cut in 0..json.len() {
            assert!(parse_list(&json[..cut]).is_err(), "cut at {cut}");
        }
        assert_eq!(parse_list(br#"{"kind":"storage#objects"}"#), Ok(Page::default()));
        for bad in [
            "{}",
            r#"{"items":[]}"#,
            r#"{"kind":"storage#objects","items":[{"name":"a"}]}"#,
            r#"{"kind":"storage#objects","items":[{"name":"a","size":"-1"}]}"#,
            r#"{"kind":"storage#object"}"#,
        ] {
            assert!(parse_list(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn objects_and_buckets_are_read() {
        let stored = parse_stored(br#"{"name":"p/a","size":"3","crc32c":"x","generation":"1"}"#).unwrap();
        assert_eq!((stored.name.as_str(), stored.size.as_str(), stored.crc32c.as_str()), ("p/a", "3", "x"));
        assert!(parse_stored(b"{}").is_err() && parse_stored(b"ok").is_err());
        assert_eq!(parse_versioning(br#"{"versioning":{"enabled":true}}"#), Ok(true));
        assert_eq!(parse_versioning(br#"{"name":"b"}"#), Ok(false));
        assert!(parse_versioning(b"[1").is_err());
    }
}
