//! GETs of an object: the request, whether its answer fits, and the bytes.
//!
//! Source: ours; AWS S3 "GetObject"; RFC 9110 section 14 (ranges).

use ureq::Body;
use ureq::http::Response;

use super::fit::Habits;
use super::{Outgoing, S3Store, answer, body, content_length, header, unfit};
use crate::store::http::{Cut, read_bounded};
use crate::store::{ByteRange, StoreFault, StoreFaultKind, check_key};

impl S3Store {
    /// Reads `range` of `key` into `out`, over a connection of the pool, or `afresh` over a new one.
    pub(super) fn read(
        &self,
        key: &str,
        range: ByteRange,
        out: &mut Vec<u8>,
        afresh: bool,
    ) -> Result<u64, StoreFault> {
        check_key("GET", key)?;
        let start = out.len();
        let result = self.ask(key, range, out, afresh);
        if result.is_err() {
            out.truncate(start);
        }
        result
    }

    /// The same; after a fault `out` may keep what came before it.
    fn ask(&self, key: &str, range: ByteRange, out: &mut Vec<u8>, afresh: bool) -> Result<u64, StoreFault> {
        let asked = match range {
            ByteRange::Whole(_) => None,
            ByteRange::From { len: 0, .. } | ByteRange::Last(0) => return self.size_of(key),
            ByteRange::From { offset, len } => {
                let last = offset.saturating_add(len.saturating_sub(1));
                Some(format!("bytes={offset}-{last}"))
            }
            ByteRange::Last(n) => Some(format!("bytes=-{n}")),
        };
        let object = self.object(key);
        let headers = match &asked {
            Some(asked) => ("range", asked.as_str()),
            None => ("x-amz-checksum-mode", "ENABLED"),
        };
        let request = Outgoing {
            headers: &[headers],
            answer_bytes_max: match range {
                ByteRange::Whole(most) => most,
                ByteRange::From { len, .. } | ByteRange::Last(len) => len,
            },
            afresh,
            ..Outgoing::get(key, &object)
        };
        let response = self.send(&request)?;
        match (response.status().as_u16(), range) {
            // Only a range tells the size then, and without it a body that was cut short would look whole.
            (200, ByteRange::Whole(most)) if most > 0 && ends_with_connection(&response) => {
                drop(response);
                let size = self.ask(key, ByteRange::From { offset: 0, len: most }, out, afresh)?;
                range.check_size(key, size).map(|()| size)
            }
            (200 | 206, _) => self.receive(key, range, response, out),
            (416, ByteRange::From { .. } | ByteRange::Last(_)) => {
                let told =
                    header(response.headers(), "content-range").and_then(answer::parse_unsatisfied_range);
                let size = told.map_or_else(|| self.size_of(key), Ok)?;
                if range.resolve(size).1 > 0 {
                    let detail = format!("the range lies past the end, it says, and the size is {size}");
                    return Err(unfit("GET", key, &detail));
                }
                Ok(size)
            }
            (416, ByteRange::Whole(_)) => {
                Err(unfit("GET", key, "no range was asked for, and it refuses one"))
            }
            _ => Err(self.fault(&request, response)),
        }
    }

    /// Size of an object, after a ranged GET whose answer was only that the range lies past its end.
    fn size_of(&self, key: &str) -> Result<u64, StoreFault> {
        let object = self.object(key);
        let request = Outgoing { headers: &[("range", "bytes=0-0")], ..Outgoing::get(key, &object) };
        let mut response = self.send(&request)?;
        let size = match response.status().as_u16() {
            206 => header(response.headers(), "content-range")
                .and_then(answer::parse_content_range)
                .filter(|(first, last, _)| (*first, *last) == (0, 0))
                .map(|(.., size)| size),
            200 => content_length(response.headers()),
            416 => Some(0),
            _ => return Err(self.fault(&request, response)),
        };
        if response.status().as_u16() != 416 {
            self.habits.check_get(response.headers()).map_err(|why| unfit("GET", key, &why))?;
        }
        // Read to the end so that the connection can be used again; one byte at most.
        let _ = read_bounded(response.body_mut(), 1, &mut Vec::new());
        size.ok_or_else(|| unfit("GET", key, "the server did not tell the size"))
    }

    /// Reads the body of a successful GET into `out`.
    fn receive(
        &self,
        key: &str,
        range: ByteRange,
        mut response: Response<Body>,
        out: &mut Vec<u8>,
    ) -> Result<u64, StoreFault> {
        let bad = |kind, detail: &str| StoreFault::new(kind, "GET", key, detail);
        self.habits.check_get(response.headers()).map_err(|why| unfit("GET", key, &why))?;
        let expected = expected(&self.habits, key, range, &response)?;
        let start = out.len();
        let (throttle, body) = (self.limiter(key), response.body_mut());
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
        // Sent for whole objects only, and by servers that keep one. A composite value has a dash and is not ours.
        if let Some(told) = header(response.headers(), "x-amz-checksum-crc32").filter(|v| !v.contains('-'))
            && matches!(range, ByteRange::Whole(_))
            && told != body::crc32_base64(&[&out[start..]])
        {
            return Err(bad(StoreFaultKind::Corrupt, "the body does not match its CRC-32"));
        }
        Ok(size)
    }
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
        let told = header(headers, "content-range").and_then(answer::parse_content_range);
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
