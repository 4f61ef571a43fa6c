//! What an S3 answer means: status and error code to a fault's kind, the error body, the LIST body.
//!
//! Invariants: an answer that decides nothing is `Unknown` or `Conflict`, never `Exists` or `NotFound`; a 404 counts as
//! absence only when an S3 error body says so, because a proxy in between also says 404. Input from the server is bounded
//! before it comes here and never trusted.
//! Does not: read from the network.
//! Source: `agent/doc/commit-log.md`, Answers to a create; AWS S3 "Error responses", "ListObjectsV2".

use crate::store::http::xml::walk;
use crate::store::{PutMode, StoreFaultKind};

pub use crate::store::http::xml::Malformed;

/// Which call an answer belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// PUT of an object.
    Put(PutMode),
    /// GET of an object.
    Get,
    /// LIST of the bucket, or a question about the bucket.
    Bucket,
    /// DELETE of an object.
    Delete,
    /// DELETE of many objects at once.
    DeleteMany,
}

/// An error body: the server's code and message, empty where they are missing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ErrorBody {
    /// `<Code>`, such as `NoSuchKey`.
    pub code: String,
    /// `<Message>`, for people.
    pub message: String,
    /// `<Region>`, where a request belongs.
    pub region: String,
    /// `<Endpoint>`, where a request belongs.
    pub endpoint: String,
    /// `<ActualObjectSize>` of `InvalidRange`.
    pub object_bytes: Option<u64>,
}

/// One page of a LIST.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// (key, size) in the server's order.
    pub objects: Vec<(String, u64)>,
    /// Whether there are more.
    pub truncated: bool,
    /// Token of the request for the next page.
    pub token: String,
}

/// What an unsuccessful answer means. `code` is the error body's.
pub fn kind(call: Call, status: u16, code: &str) -> StoreFaultKind {
    let create = call == Call::Put(PutMode::CreateOnly);
    // Codes that mean the same under any status.
    match code {
        "NoSuchBucket" => return StoreFaultKind::StoreGone,
        "QuotaExceeded" | "XMinioStorageFull" | "XMinioAdminBucketQuotaExceeded" | "InsufficientCapacity" => {
            return StoreFaultKind::Full;
        }
        "BadDigest" | "XAmzContentSHA256Mismatch" | "XAmzContentChecksumMismatch" | "InvalidDigest" => {
            return StoreFaultKind::Corrupt;
        }
        "RequestTimeout" | "IncompleteBody" | "SlowDown" | "InternalError" | "ServiceUnavailable" => {
            return StoreFaultKind::Unknown;
        }
        "ExpiredToken"
        | "InvalidToken"
        | "InvalidAccessKeyId"
        | "SignatureDoesNotMatch"
        | "RequestTimeTooSkewed" => {
            return StoreFaultKind::Denied;
        }
        "ConditionalRequestConflict" | "OperationAborted" => return StoreFaultKind::Conflict,
        "BlobAlreadyExists" if create => return StoreFaultKind::Exists,
        "NotImplemented" => return StoreFaultKind::Unsupported,
        _ => {}
    }
    match status {
        412 | 304 if create => StoreFaultKind::Exists,
        401 | 403 => StoreFaultKind::Denied,
        404 => match call {
            Call::Put(_) | Call::Bucket => StoreFaultKind::StoreGone,
            Call::DeleteMany => StoreFaultKind::Unsupported,
            Call::Get | Call::Delete if code == "NoSuchKey" => StoreFaultKind::NotFound,
            // No S3 server said that the key is absent.
            Call::Get | Call::Delete => StoreFaultKind::Unknown,
        },
        409 => StoreFaultKind::Conflict,
        408 | 429 => StoreFaultKind::Unknown,
        507 => StoreFaultKind::Full,
        501 => StoreFaultKind::Unsupported,
        400 if create && matches!(code, "InvalidArgument" | "InvalidRequest" | "") => {
            StoreFaultKind::Unsupported
        }
        400 | 405 if call == Call::DeleteMany => StoreFaultKind::Unsupported,
        // A success that is none of this call's, and where a log-in page is: no answer of an S3 server.
        100..=299 | 302 | 303 | 500..=599 => StoreFaultKind::Unknown,
        _ => StoreFaultKind::Rejected,
    }
}

/// Reads an error body; what is not one gives empty fields.
pub fn parse_error(xml: &[u8]) -> ErrorBody {
    let mut found = ErrorBody::default();
    // Half an error body is still worth its half.
    let _ = walk(xml, &mut |path, text| {
        let [.., parent, name] = path else { return };
        let field = match (parent.as_str(), name.as_str()) {
            ("Error", "Code") => &mut found.code,
            ("Error", "Message") => &mut found.message,
            ("Error", "Region") => &mut found.region,
            ("Error", "Endpoint") => &mut found.endpoint,
            ("Error", "ActualObjectSize") => {
                found.object_bytes = text.parse().ok();
                return;
            }
            _ => return,
        };
        text.clone_into(field);
    });
    found
}

/// Reads one page of `ListObjectsV2`.
///
/// # Errors
/// When it is cut short, is not a listing, or has objects without a key or a size.
pub fn parse_list(xml: &[u8]) -> Result<Page, Malformed> {
    let mut page = Page::default();
    let mut whole = false;
    let mut object = (None, None);
    let mut bad = None;
    walk(xml, &mut |path, text| match path {
        [root] => whole = root == "ListBucketResult",
        [_, name] if name == "IsTruncated" => match text.trim() {
            "true" => page.truncated = true,
            "false" => page.truncated = false,
            _ => bad = Some(Malformed("whether there are more keys is neither true nor false")),
        },
        [_, name] if name == "NextContinuationToken" => text.clone_into(&mut page.token),
        [_, name] if name == "Contents" => match (object.0.take(), object.1.take()) {
            (Some(key), Some(size)) => page.objects.push((key, size)),
            _ => bad = Some(Malformed("a listed object has no key or no size")),
        },
        [_, parent, name] if parent == "Contents" && name == "Key" => object.0 = Some(text.to_owned()),
        [_, parent, name] if parent == "Contents" && name == "Size" => object.1 = text.trim().parse().ok(),
        _ => {}
    })?;
    match bad {
        Some(bad) => Err(bad),
        None if !whole => Err(Malformed("not a listing")),
        None if page.truncated && page.token.is_empty() => Err(Malformed("more keys, and no token for them")),
        None => Ok(page),
    }
}

/// What a `DeleteObjects` answer says of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deletion {
    /// The key, with the prefix.
    pub key: String,
    /// The code and the message of an error; `None`: it is gone.
    pub error: Option<(String, String)>,
}

/// The body of `DeleteObjects`. Each key is answered for, deleted or not.
pub fn emit_deletions(keys: &[String]) -> String {
    let mut xml = "<Delete xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">".to_owned();
    for key in keys {
        xml.push_str("<Object><Key>");
        for c in key.chars() {
            match c {
                '&' => xml.push_str("&amp;"),
                '<' => xml.push_str("&lt;"),
                '>' => xml.push_str("&gt;"),
                c => xml.push(c),
            }
        }
        xml.push_str("</Key></Object>");
    }
    xml.push_str("</Delete>");
    xml
}

/// Reads the answer of `DeleteObjects`.
///
/// # Errors
/// When it is cut short, is not such an answer, or names no key.
pub fn parse_deletions(xml: &[u8]) -> Result<Vec<Deletion>, Malformed> {
    let (mut found, mut whole, mut bad) = (Vec::new(), false, None);
    let mut of: (Option<String>, String, String) = Default::default();
    walk(xml, &mut |path, text| match path {
        [root] => whole = root == "DeleteResult",
        [_, name] if name == "Deleted" || name == "Error" => {
            let (key, code, message) = std::mem::take(&mut of);
            let error = (name == "Error").then_some((code, message));
            match key {
                Some(key) => found.push(Deletion { key, error }),
                None => bad = Some(Malformed("a deletion has no key")),
            }
        }
        [_, _, name] if name == "Key" => of.0 = Some(text.to_owned()),
        [_, _, name] if name == "Code" => text.clone_into(&mut of.1),
        [_, _, name] if name == "Message" => text.clone_into(&mut of.2),
        _ => {}
    })?;
    match bad {
        Some(bad) => Err(bad),
        None if !whole => Err(Malformed("not an answer to deletions")),
        None => Ok(found),
    }
}

/// `<Status>` of a `GetBucketVersioning` answer: `Enabled`, `Suspended`, or empty.
pub fn parse_versioning(xml: &[u8]) -> Result<String, Malformed> {
    let mut status = String::new();
    let mut whole = false;
    walk(xml, &mut |path, text| match path {
        // moto calls it `GetBucketVersioningResponse`.
        [root] => whole = root.contains("Versioning"),
        [_, name] if name == "Status" => text.trim().clone_into(&mut status),
        _ => {}
    })?;
    if whole { Ok(status) } else { Err(Malformed("not a versioning answer")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use StoreFaultKind as Kind;

    #[test]
    fn each_key_of_many_deletions_has_its_own_answer() {
        let xml = b"<DeleteResult xmlns=\"x\"><Deleted><Key>p/a</Key></Deleted><Error><Key>p/b&amp;</Key>\
            <Code>AccessDenied</Code><Message>no</Message></Error><Deleted><Key>p/c</Key></Deleted></DeleteResult>";
        let found = parse_deletions(xml).unwrap();
        let error = Some(("AccessDenied".to_owned(), "no".to_owned()));
        let of = |key: &str, error| Deletion { key: key.to_owned(), error };
        assert_eq!(found, [of("p/a", None), of("p/b&", error), of("p/c", None)]);
        assert_eq!(parse_deletions(b"<DeleteResult/>"), Ok(Vec::new()));
        assert!(parse_deletions(b"<ListBucketResult></ListBucketResult>").is_err());
        assert!(parse_deletions(&xml[..xml.len() - 20]).is_err());
        assert!(parse_deletions(b"<DeleteResult><Deleted></Deleted></DeleteResult>").is_err());
        for (status, code) in
            [(405, "MethodNotAllowed"), (400, "MalformedXML"), (404, ""), (501, "NotImplemented")]
        {
            assert_eq!(kind(Call::DeleteMany, status, code), Kind::Unsupported, "{status} {code}");
        }
        assert_eq!(kind(Call::DeleteMany, 503, "SlowDown"), Kind::Unknown);
        assert_eq!(kind(Call::DeleteMany, 403, "AccessDenied"), Kind::Denied);
    }

    #[test]
    fn every_answer_of_the_reference_has_its_kind() {
        let create = Call::Put(PutMode::CreateOnly);
        let replace = Call::Put(PutMode::Replace);
        let table = [
            (create, 412, "PreconditionFailed", Kind::Exists),
            (create, 304, "", Kind::Exists),
            (create, 409, "BlobAlreadyExists", Kind::Exists),
            (create, 409, "ConditionalRequestConflict", Kind::Conflict),
            (create, 409, "OperationAborted", Kind::Conflict),
            (create, 404, "NoSuchBucket", Kind::StoreGone),
            (create, 404, "", Kind::StoreGone),
            (create, 501, "NotImplemented", Kind::Unsupported),
            (create, 400, "InvalidArgument", Kind::Unsupported),
            (replace, 400, "InvalidArgument", Kind::Rejected),
            (create, 500, "InternalError", Kind::Unknown),
            (create, 502, "", Kind::Unknown),
            (create, 503, "SlowDown", Kind::Unknown),
            (create, 429, "", Kind::Unknown),
            (create, 408, "", Kind::Unknown),
            (create, 400, "RequestTimeout", Kind::Unknown),
            (replace, 400, "BadDigest", Kind::Corrupt),
            (replace, 400, "XAmzContentSHA256Mismatch", Kind::Corrupt),
            (replace, 412, "", Kind::Rejected),
            (replace, 403, "QuotaExceeded", Kind::Full),
            (replace, 507, "", Kind::Full),
            (replace, 403, "AccessDenied", Kind::Denied),
            (replace, 401, "", Kind::Denied),
            (replace, 400, "ExpiredToken", Kind::Denied),
            (replace, 403, "RequestTimeTooSkewed", Kind::Denied),
            (replace, 301, "PermanentRedirect", Kind::Rejected),
            (replace, 307, "TemporaryRedirect", Kind::Rejected),
            (replace, 302, "", Kind::Unknown),
            (Call::Get, 204, "", Kind::Unknown),
            (Call::Bucket, 206, "", Kind::Unknown),
            (replace, 400, "AuthorizationHeaderMalformed", Kind::Rejected),
            (replace, 400, "EntityTooLarge", Kind::Rejected),
            (Call::Get, 404, "NoSuchKey", Kind::NotFound),
            (Call::Get, 404, "", Kind::Unknown),
            (Call::Get, 404, "NoSuchBucket", Kind::StoreGone),
            (Call::Get, 403, "AccessDenied", Kind::Denied),
            (Call::Bucket, 404, "", Kind::StoreGone),
            (Call::Delete, 503, "", Kind::Unknown),
        ];
        for (call, status, code, expected) in table {
            assert_eq!(kind(call, status, code), expected, "{call:?} {status} {code}");
        }
    }

    #[test]
    fn an_error_body_is_read_as_far_as_it_goes() {
        let xml = br#"<?xml version="1.0" encoding="UTF-8"?>
            <Error><Code>PermanentRedirect</Code><Message>Use &quot;it&quot; &#x26; go</Message>
            <Endpoint>b.s3.eu-west-1.amazonaws.com</Endpoint><Region>eu-west-1</Region></Error>"#;
        let body = parse_error(xml);
        assert_eq!(body.code, "PermanentRedirect");
        assert_eq!(body.message, "Use \"it\" & go");
        assert_eq!(
            (body.region.as_str(), body.endpoint.as_str()),
            ("eu-west-1", "b.s3.eu-west-1.amazonaws.com")
        );
        assert_eq!(parse_error(&xml[..100]).code, "PermanentRedirect");
        assert_eq!(parse_error(b"<html><body>404</body></html>"), ErrorBody::default());
        assert_eq!(parse_error(b"\xff\xfe"), ErrorBody::default());
    }

    #[test]
    fn a_listing_is_read_whole_or_refused() {
        let xml = br#"<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>b</Name>
            <IsTruncated>true</IsTruncated><NextContinuationToken>a&amp;b</NextContinuationToken>
            <Contents><Key>p/a</Key><Size>3</Size><Owner><ID>x</ID></Owner></Contents>
            <Contents><Size>0</Size><Key>p/b&lt;</Key></Contents></ListBucketResult>"#;
        let page = parse_list(xml).unwrap();
        assert_eq!(page.objects, [("p/a".to_owned(), 3), ("p/b<".to_owned(), 0)]);
        assert!(page.truncated && page.token == "a&b");
        for cut in 0..xml.len() {
            assert!(parse_list(&xml[..cut]).is_err(), "cut at {cut}");
        }
        assert!(
            parse_list(b"<ListBucketResult><Contents><Key>a</Key></Contents></ListBucketResult>").is_err()
        );
        assert!(parse_list(b"<ListBucketResult><IsTruncated>true</IsTruncated></ListBucketResult>").is_err());
        assert!(
            parse_list(b"<ListBucketResult><IsTruncated>perhaps</IsTruncated></ListBucketResult>").is_err()
        );
        assert!(parse_list(b"<html></html>").is_err());
        assert!(parse_list("<a>".repeat(100).as_bytes()).is_err());
        assert_eq!(parse_list(b"<ListBucketResult/>"), Ok(Page::default()));
    }

    #[test]
    fn versioning_is_read() {
        assert_eq!(parse_versioning(b"<VersioningConfiguration/>").unwrap(), "");
        let on = b"<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>";
        assert_eq!(parse_versioning(on).unwrap(), "Enabled");
    }
}
