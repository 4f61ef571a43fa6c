//! GETs of an object: the request, whether its answer fits, and the bytes.
//!
//! Source: ours; AWS S3 "GetObject"; RFC 9110 section 14 (ranges).

use ureq::Body;
use ureq::http::{HeaderMap, Response};

use super::channel::Channel;
use super::fit::Habits;
use super::{Cut, body, content_length, header, read_bounded, unfit};
use crate::store::{ByteRange, StoreFault, StoreFaultKind, check_key};

/// How a server is asked for an object.
pub(in crate::store) trait Reads {
    /// What requests go over.
    fn channel(&self) -> &Channel;

    /// A GET of `key` with this `Range`, whose answer has at most so many bytes; `afresh` over a new connection.
    fn ask(
        &self,
        key: &str,
        range: Option<&str>,
        answer_bytes_max: u64,
        afresh: bool,
    ) -> Result<Response<Body>, StoreFault>;

    /// What an unsuccessful answer to a GET of `key` means.
    fn refusal(&self, key: &str, response: Response<Body>) -> StoreFault;

    /// Whether a whole object is what the checksum in its answer says, if it has one.
    ///
    /// # Errors
    /// Which checksum it does not match.
    fn check_whole(&self, headers: &HeaderMap, bytes: &[u8]) -> Result<(), &'static str>;

    /// Whether the server knows `bytes=-n`. Otherwise the size is asked for first.
    fn knows_suffixes(&self) -> bool {
        true
    }
}

/// Reads `range` of `key` into `out`, over a connection of the pool, or `afresh` over a new one.
pub(in crate::store) fn read(
    store: &impl Reads,
    key: &str,
    range: ByteRange,
    out: &mut Vec<u8>,
    afresh: bool,
) -> Result<u64, StoreFault> {
    check_key("GET", key)?;
    let start = out.len();
    let result = ask(store, key, range, out, afresh);
    if result.is_err() {
        out.truncate(start);
    }
    result
}

/// The same; after a fault `out` may keep what came before it.
fn ask(
    store: &impl Reads,
    key: &str,
    range: ByteRange,
    out: &mut Vec<u8>,
    afresh: bool,
) -> Result<u64, StoreFault> {
    let asked = match range {
        ByteRange::Whole(_) => None,
        ByteRange::From { len: 0, .. } | ByteRange::Last(0) => return size_of(store, key),
        ByteRange::From { offset, len } => {
            let last = offset.saturating_add(len.saturating_sub(1));
            Some(format!("bytes={offset}-{last}"))
        }
        ByteRange::Last(_) if !store.knows_suffixes() => {
            let size = size_of(store, key)?;
            return match range.resolve(size) {
                (_, 0) => Ok(size),
                (offset, len) => ask(store, key, ByteRange::From { offset, len }, out, afresh),
            };
        }
        ByteRange::Last(n) => Some(format!("bytes=-{n}")),
    };
    let most = match range {
        ByteRange::Whole(most) => most,
        ByteRange::From { len, .. } | ByteRange::Last(len) => len,
    };
    let response = store.ask(key, asked.as_deref(), most, afresh)?;
    match (response.status().as_u16(), range) {
        // Only a range tells the size then, and without it a body that was cut short would look whole.
        (200, ByteRange::Whole(most)) if most > 0 && ends_with_connection(&response) => {
            drop(response);
            let size = ask(store, key, ByteRange::From { offset: 0, len: most }, out, afresh)?;
            range.check_size(key, size).map(|()| size)
        }
        (206, ByteRange::From { .. } | ByteRange::Last(_)) if !has_bytes(&response) => {
            nothing_there(store, key, range, &response)
        }
        (200 | 206, _) => receive(store, key, range, response, out),
        (416, ByteRange::From { .. } | ByteRange::Last(_)) => nothing_there(store, key, range, &response),
        (416, ByteRange::Whole(_)) => Err(unfit("GET", key, "no range was asked for, and it refuses one")),
        _ => Err(store.refusal(key, response)),
    }
}

/// The server says that the range has nothing in it: the size, when that can be.
fn nothing_there(
    store: &impl Reads,
    key: &str,
    range: ByteRange,
    response: &Response<Body>,
) -> Result<u64, StoreFault> {
    let told = header(response.headers(), "content-range");
    let told = match response.status().as_u16() {
        416 => told.and_then(parse_unsatisfied_range),
        _ => told.and_then(size_in_range),
    };
    let size = told.map_or_else(|| size_of(store, key), Ok)?;
    if range.resolve(size).1 > 0 {
        let detail = format!("the range lies past the end, it says, and the size is {size}");
        return Err(unfit("GET", key, &detail));
    }
    Ok(size)
}

/// Whether an answer brings bytes. Emulators answer a range at the end, or of an empty object, with no bytes instead of 416.
fn has_bytes(response: &Response<Body>) -> bool {
    content_length(response.headers()) != Some(0)
}

/// Size of an object, after a ranged GET whose answer was only that the range lies past its end.
fn size_of(store: &impl Reads, key: &str) -> Result<u64, StoreFault> {
    let mut response = store.ask(key, Some("bytes=0-0"), super::ERROR_BODY_BYTES_MAX, false)?;
    let told_empty =
        header(response.headers(), "content-range").and_then(size_in_range).is_none_or(|size| size == 0);
    let size = match response.status().as_u16() {
        206 if !has_bytes(&response) => told_empty.then_some(0),
        206 => header(response.headers(), "content-range")
            .and_then(parse_content_range)
            .filter(|(first, last, _)| (*first, *last) == (0, 0))
            .map(|(.., size)| size),
        200 => content_length(response.headers()),
        416 => Some(0),
        _ => return Err(store.refusal(key, response)),
    };
    if response.status().as_u16() != 416 {
        store.channel().habits.check_get(response.headers()).map_err(|why| unfit("GET", key, &why))?;
    }
    // Read to the end so that the connection can be used again; one byte at most.
    let _ = read_bounded(response.body_mut(), 1, &mut Vec::new());
    size.ok_or_else(|| unfit("GET", key, "the server did not tell the size"))
}

/// Reads the body of a successful GET into `out`.
fn receive(
    store: &impl Reads,
    key: &str,
    range: ByteRange,
    mut response: Response<Body>,
    out: &mut Vec<u8>,
) -> Result<u64, StoreFault> {
    let channel = store.channel();
    let bad = |kind, detail: &str| StoreFault::new(kind, "GET", key, detail);
    channel.habits.check_get(response.headers()).map_err(|why| unfit("GET", key, &why))?;
    let expected = expected(&channel.habits, key, range, &response)?;
    let start = out.len();
    let (throttle, body) = (channel.limiter(key), response.body_mut());
    let read = match expected {
        Expected::Sized { len, size } => body::read_exactly(body, len, throttle, out).map(|()| size),
        Expected::Chunked { most } => body::read_up_to(body, most, throttle, out),
    };
    let size = read.map_err(|cut| match (cut, expected) {
        (Cut::Long, Expected::Chunked { most }) => {
            bad(StoreFaultKind::TooLong, &format!("more than the {most} bytes that this may have"))
        }
        (Cut::Long, Expected::Sized { .. }) => bad(StoreFaultKind::Corrupt, "more bytes than announced"),
        (Cut::Short(got), Expected::Sized { len, .. }) => {
            bad(StoreFaultKind::Unknown, &format!("the body ended after {got} of {len} bytes"))
        }
        (cut, _) => bad(StoreFaultKind::Unknown, &cut.to_string()),
    })?;
    if matches!(range, ByteRange::Whole(_))
        && let Err(which) = store.check_whole(response.headers(), &out[start..])
    {
        return Err(bad(StoreFaultKind::Corrupt, &format!("the body does not match its {which}")));
    }
    Ok(size)
}

/// How much a body must have.
#[derive(Clone, Copy)]
enum Expected {
    /// Exactly `len` bytes of an object of `size`.
    Sized { len: u64, size: u64 },
    /// The object, which ends where its chunks do.
    Chunked { most: u64 },
}

/// What the headers of a successful GET promise, when that is what was asked for.
fn expected(
    habits: &Habits,
    key: &str,
    range: ByteRange,
    response: &Response<Body>,
) -> Result<Expected, StoreFault> {
    let headers = response.headers();
    let announced = content_length(headers);
    let (len, size) = if response.status().as_u16() == 206 {
        let told = header(headers, "content-range").and_then(parse_content_range);
        let (first, last, size) = told.ok_or_else(|| unfit("GET", key, "a range without Content-Range"))?;
        let (offset, len) = range.resolve(size);
        if first != offset || last + 1 - first != len || announced.is_some_and(|n| n != len) {
            let detail = "another range than asked for";
            return Err(StoreFault::new(StoreFaultKind::Corrupt, "GET", key, detail));
        }
        habits.saw_range();
        (len, size)
    } else {
        let size = match (announced, range) {
            (Some(size), _) => size,
            (None, ByteRange::Whole(most)) if is_chunked(response) => return Ok(Expected::Chunked { most }),
            (None, _) => {
                return Err(unfit("GET", key, "it tells no length (Content-Length, chunks or a range)"));
            }
        };
        if range.resolve(size) != (0, size) {
            let kind = match habits.knows_ranges() {
                true => StoreFaultKind::Unknown,
                false => StoreFaultKind::Unsupported,
            };
            return Err(StoreFault::new(kind, "GET", key, "the server ignores the range that was asked for"));
        }
        (size, size)
    };
    range.check_size(key, size)?;
    Ok(Expected::Sized { len, size })
}

fn is_chunked(response: &Response<Body>) -> bool {
    header(response.headers(), "transfer-encoding")
        .is_some_and(|value| value.to_ascii_lowercase().contains("chunked"))
}

/// Whether only the end of the connection ends the body.
fn ends_with_connection(response: &Response<Body>) -> bool {
    content_length(response.headers()).is_none() && !is_chunked(response)
}

/// (first, last, size) of `bytes 0-9/10`.
pub fn parse_content_range(value: &str) -> Option<(u64, u64, u64)> {
    let (range, size) = value.trim().strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let (first, last, size) = (first.parse().ok()?, last.parse().ok()?, size.parse().ok()?);
    (first <= last && last < size).then_some((first, last, size))
}

/// The size in `bytes 10-9/10`, whatever stands before it.
fn size_in_range(value: &str) -> Option<u64> {
    value.trim().strip_prefix("bytes ")?.rsplit_once('/')?.1.parse().ok()
}

/// The size in `bytes */10`, which comes with a 416.
pub fn parse_unsatisfied_range(value: &str) -> Option<u64> {
    value.trim().strip_prefix("bytes */")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_answers_are_read_or_refused() {
        assert_eq!(parse_content_range("bytes 0-9/10"), Some((0, 9, 10)));
        assert_eq!(parse_content_range("bytes 0-10/10"), None);
        assert_eq!(parse_content_range("bytes 5-4/10"), None);
        assert_eq!(parse_content_range("bytes 0-9/*"), None);
        assert_eq!(parse_unsatisfied_range("bytes */10"), Some(10));
        assert_eq!((size_in_range("bytes 10-9/10"), size_in_range("bytes 0--1/0")), (Some(10), Some(0)));
        assert_eq!(size_in_range("bytes 0-1/*"), None);
    }
}
