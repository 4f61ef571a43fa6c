//! Where a server of objects is, and which part of it is ours. Source: ours.

use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpStream, ToSocketAddrs};
use std::time::Duration;

use crate::store::KEY_BYTES_MAX;

/// (TLS, `host[:port]`) of an endpoint.
pub(in crate::store) fn parse_endpoint(endpoint: &str) -> Option<(bool, String)> {
    let (tls, rest) = match endpoint.split_once("://")? {
        ("http", rest) => (false, rest),
        ("https", rest) => (true, rest),
        _ => return None,
    };
    let authority = rest.strip_suffix('/').unwrap_or(rest);
    let usable =
        |b: u8| matches!(b, b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'-' | b':' | b'[' | b']');
    if authority.is_empty() || !authority.bytes().all(usable) {
        return None;
    }
    // A default port is not part of the Host header that gets signed.
    let default_port = if tls { ":443" } else { ":80" };
    Some((tls, authority.strip_suffix(default_port).unwrap_or(authority).to_ascii_lowercase()))
}

/// Whether `host[:port]` is this machine: then a secret may go over plain http.
pub(in crate::store) fn is_loopback(authority: &str) -> bool {
    if let Some((inside, _)) = authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        return inside.parse::<Ipv6Addr>().is_ok_and(|address| address.is_loopback());
    }
    let host = authority.split_once(':').map_or(authority, |(host, _)| host);
    host == "localhost"
        || host.parse::<IpAddr>().is_ok_and(|address| address.is_ipv4() && address.is_loopback())
}

/// Addresses of one name that are used at most: each is a way of its own to the store, and a probe races over all of them.
const ADDRESSES_MAX: usize = 8;
/// How long an address may take to accept a connection, in milliseconds, until it counts as none.
const ACCEPT_MS: u64 = 2_000;

/// The addresses that `host[:port]` resolves to and that accept connections, when there are several. Blocks.
pub(in crate::store) fn addresses(host: &str, tls: bool) -> Vec<SocketAddr> {
    let has_port = host.rsplit_once(':').is_some_and(|(_, port)| port.bytes().all(|b| b.is_ascii_digit()));
    let full = if has_port { host.to_owned() } else { format!("{host}:{}", if tls { 443 } else { 80 }) };
    let mut found: Vec<SocketAddr> = full.to_socket_addrs().map(Iterator::collect).unwrap_or_default();
    found.sort_unstable();
    found.dedup();
    found.truncate(ADDRESSES_MAX);
    if found.len() > 1 {
        let wait = Duration::from_millis(ACCEPT_MS);
        found.retain(|address| TcpStream::connect_timeout(address, wait).is_ok());
    }
    if found.len() > 1 { found } else { Vec::new() }
}

/// The prefix of all keys, empty or ending in a slash; `None` when it has other characters than A-Z a-z 0-9 . _ - and single slashes.
pub(in crate::store) fn parse_prefix(prefix: &str) -> Option<String> {
    let whole = prefix.strip_suffix('/').unwrap_or(prefix);
    let usable = |b: u8| matches!(b, b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'-' | b'_');
    let component = |c: &str| !c.is_empty() && c != "." && c != ".." && c.bytes().all(usable);
    if prefix.is_empty() {
        return Some(String::new());
    }
    let fits = whole.len() <= KEY_BYTES_MAX && whole.split('/').all(component);
    fits.then(|| format!("{whole}/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_parsed_or_refused() {
        assert_eq!(parse_endpoint("http://127.0.0.1:9000"), Some((false, "127.0.0.1:9000".into())));
        assert_eq!(parse_endpoint("https://Host.example:443/"), Some((true, "host.example".into())));
        assert_eq!(parse_endpoint("https://[::1]:9000"), Some((true, "[::1]:9000".into())));
        for bad in ["host", "ftp://host", "http://", "http://user@host", "http://host/path", "http://a b"] {
            assert_eq!(parse_endpoint(bad), None, "{bad}");
        }
    }

    #[test]
    fn only_this_machine_is_loopback() {
        for own in ["127.0.0.1", "127.0.0.1:10000", "[::1]:80", "[::1]", "localhost", "localhost:1"] {
            assert!(is_loopback(own), "{own}");
        }
        for other in ["10.0.0.1:80", "127.0.0.1.example", "localhost.example:80", "[::2]", "::1", ""] {
            assert!(!is_loopback(other), "{other}");
        }
    }

    #[test]
    fn a_name_with_one_address_has_no_others() {
        assert_eq!(addresses("127.0.0.1:1", false), []);
        assert_eq!(addresses("no-such-host.invalid", true), []);
    }

    #[test]
    fn prefixes_are_whole_or_refused() {
        assert_eq!(parse_prefix("a/b/"), Some("a/b/".to_owned()));
        assert_eq!(parse_prefix("a"), Some("a/".to_owned()));
        assert_eq!(parse_prefix(""), Some(String::new()));
        for bad in ["a//b", "../b", "a/./b", "a b", "/", "a%2Fb"] {
            assert_eq!(parse_prefix(bad), None, "{bad}");
        }
    }
}
