//! Paths and queries of a request, percent-encoded: only unreserved bytes stay. Source: RFC 3986, 2.3.

use std::fmt::Write;

/// URI-encodes a path; slashes stay.
pub fn encode_path(path: &str) -> String {
    encode(path, true)
}

/// Sorts and URI-encodes a query: `a=b&c=`.
pub fn encode_query(pairs: &[(&str, &str)]) -> String {
    let mut encoded: Vec<(String, String)> =
        pairs.iter().map(|(name, value)| (encode(name, false), encode(value, false))).collect();
    encoded.sort();
    let joined: Vec<String> = encoded.into_iter().map(|(name, value)| format!("{name}={value}")).collect();
    joined.join("&")
}

/// URI-encodes a text that is one component of a path, or a name or value of a query.
pub fn encode_component(text: &str) -> String {
    encode(text, false)
}

fn encode(text: &str, keep_slash: bool) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            b'/' if keep_slash => out.push('/'),
            _ => {
                let _ = write!(out, "%{byte:02X}");
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encoding_leaves_only_the_unreserved() {
        assert_eq!(encode_path("/a b/ü~+"), "/a%20b/%C3%BC~%2B");
        assert_eq!(encode_query(&[("b", "/="), ("a", "")]), "a=&b=%2F%3D");
    }
}
