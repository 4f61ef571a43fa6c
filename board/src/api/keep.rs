//! Requests with an `Idempotency-Key`: the same one sent again is answered as before, and not done twice.
//!
//! Invariants: a key is one subject's, and stands for one request; at most [`KEYS_MAX`] are kept, for [`KEPT_NS`]: the oldest that was answered makes
//! way. One whose answer says that the node had too much to do is forgotten, so that it may be sent again. Kept in memory: an agent that starts
//! again knows none. Source: draft-ietf-httpapi-idempotency-key-header.

use std::collections::BTreeMap;

use windlass_agent::api::answer::Answer;
use windlass_agent::api::code;
use windlass_agent::api::request::Request;

/// Keys that are kept.
const KEYS_MAX: usize = 64;
/// For how long, in nanoseconds.
const KEPT_NS: u64 = 600_000_000_000;
/// Characters of a key.
const KEY_MAX: usize = 128;

/// What is known of a key.
#[derive(Debug)]
struct Kept {
    /// Method, path and body.
    request: (String, Vec<u8>),
    since_ns: u64,
    answer: Option<Answer>,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Keep(BTreeMap<(String, String), Kept>);

/// The key of a request, if it has one.
pub fn key_of(request: &Request) -> Result<Option<&str>, Box<Answer>> {
    match request.field("idempotency-key") {
        Some(key) if key.is_empty() || key.len() > KEY_MAX => {
            Err(Box::new(Answer::problem(code::FIELD, "Idempotency-Key: 1 to 128 characters")))
        }
        key => Ok(key),
    }
}

impl Keep {
    /// A request begins. `Some`: it was answered, or is refused.
    pub fn begin(&mut self, subject: &str, key: &str, request: &Request, now_ns: u64) -> Option<Answer> {
        self.0.retain(|_, kept| kept.answer.is_none() || now_ns.saturating_sub(kept.since_ns) < KEPT_NS);
        let named = (subject.to_owned(), key.to_owned());
        let text = (format!("{} {}", request.method.name(), request.shown()), request.body.clone());
        if let Some(kept) = self.0.get(&named) {
            return Some(match &kept.answer {
                _ if kept.request != text => {
                    Answer::problem(code::KEY_USED, "it stood for another path or body")
                }
                None => Answer::problem(code::KEY_BUSY, "its first request is not answered yet"),
                Some(answer) => answer.clone(),
            });
        }
        if self.0.len() >= KEYS_MAX {
            let answered = self.0.iter().filter(|(_, kept)| kept.answer.is_some());
            let oldest = answered.min_by_key(|(_, kept)| kept.since_ns).map(|(named, _)| named.clone());
            match oldest {
                Some(oldest) => drop(self.0.remove(&oldest)),
                None => {
                    return Some(Answer::problem(
                        code::BUSY,
                        "as many requests with keys as may be are under way",
                    ));
                }
            }
        }
        self.0.insert(named, Kept { request: text, since_ns: now_ns, answer: None });
        None
    }

    /// It was answered.
    pub fn end(&mut self, subject: &str, key: &str, answer: &Answer) {
        let named = (subject.to_owned(), key.to_owned());
        if answer.status == code::BUSY.status {
            self.0.remove(&named);
        } else if let Some(kept) = self.0.get_mut(&named) {
            kept.answer = Some(answer.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use windlass_agent::api::request::parse_head;

    use super::*;

    fn request(path: &str) -> Request {
        let text = format!("POST {path} HTTP/1.1\r\nHost: n\r\n\r\n");
        parse_head(text.as_bytes()).unwrap().unwrap().request
    }

    #[test]
    fn a_key_stands_for_one_request_of_one_subject() {
        let mut keep = Keep::default();
        let code_of = |answer: Option<Answer>| answer.map(|answer| answer.status);
        assert_eq!(keep.begin("a", "k", &request("/x"), 0), None);
        assert_eq!(code_of(keep.begin("a", "k", &request("/x"), 0)), Some(409));
        assert_eq!(code_of(keep.begin("a", "k", &request("/y"), 0)), Some(422));
        assert_eq!(keep.begin("b", "k", &request("/y"), 0), None);
        let done = Answer::json(202, &json!({}));
        keep.end("a", "k", &done);
        assert_eq!(keep.begin("a", "k", &request("/x"), 1), Some(done));
        assert_eq!(keep.begin("a", "k", &request("/x"), KEPT_NS), None, "it is forgotten");
        keep.end("b", "k", &Answer::problem(code::BUSY, ""));
        assert_eq!(keep.begin("b", "k", &request("/y"), 1), None, "it was not done");
        for nth in 0..KEYS_MAX {
            let _ = keep.begin("c", &nth.to_string(), &request("/x"), KEPT_NS);
        }
        assert_eq!(code_of(keep.begin("d", "k", &request("/x"), KEPT_NS)), Some(503));
    }
}
