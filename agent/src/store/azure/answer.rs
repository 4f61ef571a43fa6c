//! What an answer of Azure Blob means: status and error code to a fault's kind, the error body, the LIST body.
//!
//! Invariants: an answer that decides nothing is `Unknown` or `Conflict`, never `Exists` or `NotFound`; a 404 counts as absence only
//! when Azure's code says so, because a proxy in between also says 404. Input from the server is bounded before it comes here and never
//! trusted. Does not: read from the network.
//! Source: `agent/doc/commit-log.md`, Answers to a create; Microsoft "Blob Storage error codes", "List Blobs".

use crate::store::http::xml::{Malformed, walk};
use crate::store::{PutMode, StoreFaultKind};

/// Which call an answer belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// PUT of a blob.
    Put(PutMode),
    /// GET of a blob.
    Get,
    /// LIST of the container.
    List,
    /// DELETE of a blob.
    Delete,
}

/// An error body, empty where parts are missing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ErrorBody {
    /// `<Code>`, such as `BlobNotFound`.
    pub code: String,
    /// `<Message>`, for people, without the lines of request and time.
    pub message: String,
    /// `<AuthenticationErrorDetail>`.
    pub detail: String,
}

/// One page of a LIST.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// (name, size) in the server's order.
    pub blobs: Vec<(String, u64)>,
    /// The first one that is in the tier `Archive`, and cannot be read until it is rehydrated.
    pub archived: Option<String>,
    /// Marker of the next page; empty: this is the last one.
    pub marker: String,
}

/// What an unsuccessful answer means. `code` is the header's, or the error body's.
pub fn kind(call: Call, status: u16, code: &str) -> StoreFaultKind {
    let create = call == Call::Put(PutMode::CreateOnly);
    match code {
        "BlobAlreadyExists" if create => return StoreFaultKind::Exists,
        // The condition of a create is the only one that is ever sent.
        "ConditionNotMet" | "TargetConditionNotMet" if create => return StoreFaultKind::Exists,
        "BlobNotFound" if matches!(call, Call::Get | Call::Delete) => return StoreFaultKind::NotFound,
        "ContainerNotFound" | "ContainerBeingDeleted" | "ContainerDisabled" => {
            return StoreFaultKind::StoreGone;
        }
        "Md5Mismatch" | "Crc64Mismatch" => return StoreFaultKind::Corrupt,
        "ServerBusy" | "InternalError" | "OperationTimedOut" => return StoreFaultKind::Unknown,
        "AuthenticationFailed"
        | "AuthorizationFailure"
        | "AuthorizationPermissionMismatch"
        | "InsufficientAccountPermissions"
        | "AccountIsDisabled"
        | "NoAuthenticationInformation"
        | "BlobImmutableDueToPolicy"
        | "KeyBasedAuthenticationNotPermitted" => return StoreFaultKind::Denied,
        // Decided by a lease that another one has on the blob: it does not say that ours exists.
        "LeaseIdMissing" | "LeaseIdMismatchWithBlobOperation" => return StoreFaultKind::Rejected,
        "BlobArchived" | "BlobBeingRehydrated" => return StoreFaultKind::Rejected,
        "UnsupportedHeader" | "ConditionHeadersNotSupported" if create => return StoreFaultKind::Unsupported,
        _ => {}
    }
    match status {
        401 | 403 => StoreFaultKind::Denied,
        404 => match call {
            Call::Put(_) | Call::List if !code.is_empty() => StoreFaultKind::StoreGone,
            // Nothing in it is Azure's.
            Call::Put(_) | Call::List | Call::Get | Call::Delete => StoreFaultKind::Unknown,
        },
        409 | 412 => StoreFaultKind::Conflict,
        408 | 429 => StoreFaultKind::Unknown,
        507 => StoreFaultKind::Full,
        501 => StoreFaultKind::Unsupported,
        400 if create && matches!(code, "InvalidHeaderValue" | "InvalidInput" | "") => {
            StoreFaultKind::Unsupported
        }
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
            ("Error", "AuthenticationErrorDetail") => &mut found.detail,
            _ => return,
        };
        text.trim().lines().next().unwrap_or("").clone_into(field);
    });
    found
}

/// Reads one page of `List Blobs`.
///
/// # Errors
/// When it is cut short, is not a listing, or has blobs without a name or a size.
pub fn parse_list(xml: &[u8]) -> Result<Page, Malformed> {
    let mut page = Page::default();
    let (mut whole, mut has_end) = (false, false);
    let (mut name, mut size, mut archived) = (None, None, false);
    let mut bad = None;
    walk(xml, &mut |path, text| {
        let parts: Vec<&str> = path.iter().map(String::as_str).collect();
        match parts[..] {
            [root] => whole = root == "EnumerationResults",
            [_, "NextMarker"] => {
                text.clone_into(&mut page.marker);
                has_end = true;
            }
            [_, "Blobs", "Blob", "Name"] => name = Some(text.to_owned()),
            [_, "Blobs", "Blob", "Properties", "Content-Length"] => size = text.trim().parse().ok(),
            [_, "Blobs", "Blob", "Properties", "AccessTier"] => archived = text.trim() == "Archive",
            [_, "Blobs", "Blob"] => {
                match (name.take(), size.take()) {
                    (Some(name), Some(size)) => {
                        if archived && page.archived.is_none() {
                            page.archived = Some(name.clone());
                        }
                        page.blobs.push((name, size));
                    }
                    _ => bad = Some(Malformed("a listed blob has no name or no size")),
                }
                archived = false;
            }
            _ => {}
        }
    })?;
    match bad {
        Some(bad) => Err(bad),
        None if !whole => Err(Malformed("not a listing")),
        None if !has_end => Err(Malformed("it does not say whether there are more")),
        None => Ok(page),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use StoreFaultKind as Kind;

    #[test]
    fn every_answer_of_the_reference_has_its_kind() {
        let create = Call::Put(PutMode::CreateOnly);
        let replace = Call::Put(PutMode::Replace);
        for (call, status, code, expected) in [
            (create, 409, "BlobAlreadyExists", Kind::Exists),
            (create, 412, "ConditionNotMet", Kind::Exists),
            (create, 412, "LeaseIdMissing", Kind::Rejected),
            (create, 412, "", Kind::Conflict),
            (create, 409, "", Kind::Conflict),
            (create, 409, "ContainerBeingDeleted", Kind::StoreGone),
            (create, 404, "ContainerNotFound", Kind::StoreGone),
            (create, 404, "ResourceNotFound", Kind::StoreGone),
            (create, 404, "", Kind::Unknown),
            (create, 400, "InvalidHeaderValue", Kind::Unsupported),
            (create, 400, "UnsupportedHeader", Kind::Unsupported),
            (create, 501, "", Kind::Unsupported),
            (create, 503, "ServerBusy", Kind::Unknown),
            (create, 500, "OperationTimedOut", Kind::Unknown),
            (create, 429, "", Kind::Unknown),
            (replace, 409, "BlobAlreadyExists", Kind::Conflict),
            (replace, 400, "Md5Mismatch", Kind::Corrupt),
            (replace, 400, "InvalidHeaderValue", Kind::Rejected),
            (replace, 403, "AuthenticationFailed", Kind::Denied),
            (replace, 403, "", Kind::Denied),
            (replace, 409, "BlobImmutableDueToPolicy", Kind::Denied),
            (replace, 413, "RequestBodyTooLarge", Kind::Rejected),
            (Call::Get, 404, "BlobNotFound", Kind::NotFound),
            (Call::Get, 404, "", Kind::Unknown),
            (Call::Get, 404, "ContainerNotFound", Kind::StoreGone),
            (Call::Get, 409, "BlobArchived", Kind::Rejected),
            (Call::Get, 204, "", Kind::Unknown),
            (Call::Delete, 404, "BlobNotFound", Kind::NotFound),
            (Call::List, 404, "ContainerNotFound", Kind::StoreGone),
            (Call::List, 302, "", Kind::Unknown),
        ] {
            assert_eq!(kind(call, status, code), expected, "{call:?} {status} {code}");
        }
    }

    #[test]
    fn an_error_body_is_read_as_far_as_it_goes() {
        let xml = b"<?xml version=\"1.0\"?>\n<Error><Code>AuthenticationFailed</Code><Message>Server failed.\nRequestId:1\nTime:2</Message>\
                    <AuthenticationErrorDetail>Request date header too old</AuthenticationErrorDetail></Error>";
        let body = parse_error(xml);
        assert_eq!((body.code.as_str(), body.message.as_str()), ("AuthenticationFailed", "Server failed."));
        assert_eq!(body.detail, "Request date header too old");
        assert_eq!(parse_error(&xml[..70]).code, "AuthenticationFailed");
        assert_eq!(parse_error(b"<html>404</html>"), ErrorBody::default());
    }

    #[test]
    fn a_listing_is_read_whole_or_refused() {
        let xml = "\u{feff}<?xml version=\"1.0\" encoding=\"utf-8\"?><EnumerationResults ContainerName=\"c\"><Prefix>p/</Prefix><Blobs>\
                   <Blob><Name>p/a</Name><Properties><Content-Length>10</Content-Length><AccessTier>Hot</AccessTier></Properties></Blob>\
                   <Blob><Name>p/b</Name><Properties><AccessTier>Archive</AccessTier><Content-Length>0</Content-Length></Properties></Blob>\
                   </Blobs><NextMarker>2!72!a</NextMarker></EnumerationResults>"
            .as_bytes();
        let page = parse_list(xml).unwrap();
        assert_eq!(page.blobs, [("p/a".to_owned(), 10), ("p/b".to_owned(), 0)]);
        assert_eq!((page.marker.as_str(), page.archived.as_deref()), ("2!72!a", Some("p/b")));
        for cut in 0..xml.len() {
            assert!(parse_list(&xml[..cut]).is_err(), "cut at {cut}");
        }
        assert_eq!(
            parse_list(b"<EnumerationResults><Blobs/><NextMarker/></EnumerationResults>"),
            Ok(Page::default())
        );
        for bad in [
            "<EnumerationResults><Blobs/></EnumerationResults>",
            "<EnumerationResults><Blobs><Blob><Name>a</Name></Blob></Blobs><NextMarker/></EnumerationResults>",
            "<html></html>",
        ] {
            assert!(parse_list(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
