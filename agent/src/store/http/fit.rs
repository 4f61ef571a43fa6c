//! Whether an answer that claims success fits the question. One that does not is no answer of the store: a log-in page, a proxy's
//! error document, another server behind the same name. It decides nothing, so the call is `Unknown`, asked again, and in the end named.
//!
//! | question | what fits |
//! |---|---|
//! | PUT | no body; an ETag, once this store has sent one; the CRC-32 that was sent, if the answer has one |
//! | GET | no page of HTML; an ETag, once this store has sent one; the length, and exactly the range that was asked for |
//! | LIST | a whole listing; keys below the prefix, ascending over all pages; another token for each page |
//! | DELETE | no body |
//!
//! What a store has sent once is remembered for as long as the process runs, and not longer: the first answers that a writer gets are
//! those of the probe or of the lease, which are read back whatever was answered.
//!
//! Does not: decide what an unsuccessful answer means (`answer`). Source: ours; RFC 9110 (ETag, 206, 416).

use std::sync::atomic::{AtomicBool, Ordering};

use ureq::Body;
use ureq::http::{HeaderMap, Response};

use super::{ERROR_BODY_BYTES_MAX, header, read_bounded};

/// Bytes of an answer that does not fit that are shown to people.
const SHOWN_BYTES_MAX: usize = 80;

/// What this store's answers have had so far.
#[derive(Debug, Default)]
pub struct Habits {
    put_etag: AtomicBool,
    get_etag: AtomicBool,
    ranges: AtomicBool,
}

impl Habits {
    /// Whether this fits a PUT that the store calls done.
    ///
    /// # Errors
    /// In what way it does not.
    pub fn check_put(&self, response: &mut Response<Body>) -> Result<(), String> {
        check_etag(&self.put_etag, response.headers())?;
        check_empty(response)
    }

    /// Whether these headers fit a GET that brings bytes.
    ///
    /// # Errors
    /// In what way they do not.
    pub fn check_get(&self, headers: &HeaderMap) -> Result<(), String> {
        let kind = header(headers, "content-type").unwrap_or("");
        if kind.trim_start().to_ascii_lowercase().starts_with("text/html") {
            return Err("a page of HTML came instead of an object".to_owned());
        }
        check_etag(&self.get_etag, headers)
    }

    /// The store has sent a range as it was asked for.
    pub fn saw_range(&self) {
        self.ranges.store(true, Ordering::Relaxed);
    }

    /// Whether it has ever done so.
    pub fn knows_ranges(&self) -> bool {
        self.ranges.load(Ordering::Relaxed)
    }
}

fn check_etag(seen: &AtomicBool, headers: &HeaderMap) -> Result<(), String> {
    if headers.contains_key("etag") {
        seen.store(true, Ordering::Relaxed);
        return Ok(());
    }
    if seen.load(Ordering::Relaxed) {
        return Err("it has no ETag, which all answers of this store had before".to_owned());
    }
    Ok(())
}

/// Whether there is no body. Reads it, so that the connection can be used again.
///
/// # Errors
/// What came instead.
pub fn check_empty(response: &mut Response<Body>) -> Result<(), String> {
    let mut body = Vec::new();
    let read = read_bounded(response.body_mut(), ERROR_BODY_BYTES_MAX, &mut body);
    if !body.is_empty() {
        let begins = String::from_utf8_lossy(&body[..body.len().min(SHOWN_BYTES_MAX)]).into_owned();
        return Err(format!("it has a body where none belongs, which begins with {}", begins.trim()));
    }
    read.map_err(|cut| cut.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_store_has_sent_once_it_must_send_again() {
        let habits = Habits::default();
        let (mut tagged, mut page) = (HeaderMap::new(), HeaderMap::new());
        tagged.insert("etag", "\"x\"".parse().unwrap());
        page.insert("content-type", "Text/HTML; charset=utf-8".parse().unwrap());
        assert_eq!(habits.check_get(&HeaderMap::new()), Ok(()), "a store without ETags");
        assert_eq!(habits.check_get(&tagged), Ok(()));
        assert!(habits.check_get(&HeaderMap::new()).is_err());
        assert!(habits.check_get(&page).is_err());
        page.insert("etag", "\"x\"".parse().unwrap());
        assert!(habits.check_get(&page).is_err(), "a page is none of our objects, whatever it says besides");
    }
}
