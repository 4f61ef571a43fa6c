//! Where an etcd store is: `etcd://host[:port][,host[:port]...]/prefix`, with TLS `etcd+https://...`.
//!
//! Invariants: at least one endpoint and a prefix of at least one character, so that keys of other programs
//! do not collide. Source: ours; 2379 is etcd's port by IANA.

use std::fmt;

/// Most endpoints of one cluster: etcd's own advice is at most 7 members.
pub const ENDPOINTS_MAX: usize = 16;

const PORT: &str = "2379";

/// Endpoints and prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Whether requests go over TLS.
    pub tls: bool,
    /// `host:port`, 1..=[`ENDPOINTS_MAX`].
    pub authorities: Vec<String>,
    /// In front of all keys; ends in a slash.
    base: String,
}

/// What is wrong with a place. `Display` says what to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PlaceFault {
    /// Not `host` or `host:port`.
    Endpoint(String),
    /// More than [`ENDPOINTS_MAX`].
    TooMany,
    /// No prefix, or other characters in it.
    Prefix(String),
}

impl fmt::Display for PlaceFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PlaceFault::Endpoint(text) => {
                write!(f, "endpoint {text:?}: write etcd://host:2379,host2:2379/prefix")
            }
            PlaceFault::TooMany => write!(f, "at most {ENDPOINTS_MAX} endpoints"),
            PlaceFault::Prefix(text) => write!(
                f,
                "prefix {text:?}: write etcd://host:2379/prefix with letters, digits, . _ - and single slashes"
            ),
        }
    }
}

impl Place {
    /// Parses what is behind `etcd://` or `etcd+https://`.
    pub fn parse(rest: &str, tls: bool) -> Result<Place, PlaceFault> {
        let (hosts, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let authorities: Result<Vec<String>, PlaceFault> = hosts.split(',').map(authority).collect();
        let authorities = authorities?;
        if authorities.len() > ENDPOINTS_MAX {
            return Err(PlaceFault::TooMany);
        }
        let whole = prefix.strip_suffix('/').unwrap_or(prefix);
        let usable = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
        let component = |c: &str| !c.is_empty() && c != "." && c != ".." && c.bytes().all(usable);
        if whole.len() > crate::store::KEY_BYTES_MAX || !whole.split('/').all(component) {
            return Err(PlaceFault::Prefix(prefix.to_owned()));
        }
        Ok(Place { tls, authorities, base: format!("{whole}/") })
    }

    /// The key as etcd has it.
    pub(super) fn full(&self, key: &str) -> String {
        format!("{}{key}", self.base)
    }

    /// The key as a store has it; `None` for what no store of ours writes.
    pub(super) fn key<'a>(&self, full: &'a str) -> Option<&'a str> {
        full.strip_prefix(&self.base).filter(|key| crate::store::is_valid_key(key))
    }

    /// First key and the end (exclusive) of all keys that begin with `prefix`.
    pub(super) fn span(&self, prefix: &str) -> (String, String) {
        let first = self.full(prefix);
        let mut end = first.clone();
        // ASCII, so the next character is one byte as well.
        let next = end.pop().map_or('\u{1}', |last| char::from(last as u8 + 1));
        end.push(next);
        (first, end)
    }
}

fn authority(text: &str) -> Result<String, PlaceFault> {
    let fault = || PlaceFault::Endpoint(text.to_owned());
    // The colons of an IPv6 address are in brackets.
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, port),
        _ => (text, PORT),
    };
    let bracketed = host.strip_prefix('[').and_then(|inner| inner.strip_suffix(']'));
    let usable = match bracketed {
        Some(inner) => {
            !inner.is_empty() && inner.bytes().all(|b| b.is_ascii_hexdigit() || b".:".contains(&b))
        }
        None => !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || b".-".contains(&b)),
    };
    let port_usable =
        port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|port| port > 0);
    if usable && port_usable { Ok(format!("{host}:{port}").to_ascii_lowercase()) } else { Err(fault()) }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "etcd+https" } else { "etcd" };
        write!(f, "{scheme}://{}/{}", self.authorities.join(","), self.base.trim_end_matches('/'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_parsed_or_refused() {
        let place = Place::parse("a:2379,B.example,[::1]:1/x/y/", false).unwrap();
        assert_eq!(place.authorities, ["a:2379", "b.example:2379", "[::1]:1"]);
        assert_eq!(place.to_string(), "etcd://a:2379,b.example:2379,[::1]:1/x/y");
        assert_eq!(Place::parse("[fe80::1]/x", true).unwrap().to_string(), "etcd+https://[fe80::1]:2379/x");
        for bad in ["/x", "a,/x", "a:b/x", "a:0/x", "a:70000/x", "user@a/x", "a b/x", "[]/x", "::1/x", "a:/x"]
        {
            assert!(matches!(Place::parse(bad, false), Err(PlaceFault::Endpoint(_))), "{bad}");
        }
        for bad in ["a", "a/", "a//x", "a/x//y", "a/../x", "a/x y", "a/?x"] {
            assert!(matches!(Place::parse(bad, false), Err(PlaceFault::Prefix(_))), "{bad}");
        }
        let many = |n: usize| Place::parse(&format!("{}/x", vec!["a"; n].join(",")), false).is_ok();
        assert!(many(ENDPOINTS_MAX) && !many(ENDPOINTS_MAX + 1));
    }

    #[test]
    fn spans_hold_what_begins_with_the_prefix() {
        let place = Place::parse("a/x", false).unwrap();
        assert_eq!(place.span(""), ("x/".into(), "x0".into()));
        assert_eq!(place.span("log/"), ("x/log/".into(), "x/log0".into()));
        assert_eq!(place.span("log/0z"), ("x/log/0z".into(), "x/log/0{".into()));
        assert_eq!(place.key("x/log/1"), Some("log/1"));
        assert_eq!((place.key("y/log/1"), place.key("x/LOG")), (None, None));
    }
}
