//! Answers of Azure and Google as anyone may send them: whole ones, with bytes changed, cut and repeated. Nothing panics, and what is taken for
//! a listing has no more in it than was said.
#![allow(clippy::unwrap_used, reason = "tests, and their helpers")]

use windlass_agent::store::azure::answer as azure;
use windlass_agent::store::gcs::answer as gcs;
use windlass_tests::prng::Prng;

/// Changed copies of each answer.
const COPIES: u64 = 20_000;

const AZURE: &[&str] = &[
    "\u{feff}<?xml version=\"1.0\" encoding=\"utf-8\"?><EnumerationResults ServiceEndpoint=\"http://a\" ContainerName=\"c\">\
     <Prefix>p/</Prefix><Blobs><Blob><Name>p/a&amp;b</Name><Properties><Content-Length>10</Content-Length><AccessTier>Archive</AccessTier>\
     </Properties></Blob><Blob><Name>p/c</Name><Properties><Content-Length>18446744073709551615</Content-Length></Properties></Blob></Blobs>\
     <NextMarker>2!72!x</NextMarker></EnumerationResults>",
    "<?xml version=\"1.0\"?><Error><Code>AuthenticationFailed</Code><Message>Server failed.\nTime:1</Message>\
     <AuthenticationErrorDetail>old</AuthenticationErrorDetail></Error>",
];
const GCS: &[&str] = &[
    r#"{"kind":"storage#objects","nextPageToken":"t","items":[{"name":"p/a","size":"10"},{"name":"p/\u00e4","size":"18446744073709551615"}]}"#,
    r#"{"error":{"code":412,"message":"Stop","errors":[{"domain":"global","reason":"conditionNotMet"}]}}"#,
    r#"{"name":"p/a","size":"3","crc32c":"KAwGng==","generation":"1"}"#,
    r#"{"versioning":{"enabled":true}}"#,
];

fn changed(p: &mut Prng, seed: &[u8]) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    for _ in 0..1 + p.below(4) {
        let at = p.below(bytes.len().max(1) as u64) as usize;
        match p.below(5) {
            0 if !bytes.is_empty() => bytes[at] ^= 1 << p.below(8),
            1 if !bytes.is_empty() => bytes[at] = b"<>&\"{}[],:/\0\xff9"[p.below(14) as usize],
            2 => bytes.truncate(at),
            3 => {
                let from = p.below(at as u64 + 1) as usize;
                let part = bytes[from..at].to_vec();
                bytes.splice(at..at, part);
            }
            _ => drop(bytes.drain(p.below(at as u64 + 1) as usize..at)),
        }
    }
    bytes
}

fn check(bytes: &[u8]) {
    let count = |what: &[u8]| bytes.windows(what.len()).filter(|window| *window == what).count();
    let _ = azure::parse_error(bytes);
    if let Ok(page) = azure::parse_list(bytes) {
        assert!(page.blobs.len() <= count(b"<Blob"), "{}", String::from_utf8_lossy(bytes));
        assert!(count(b"NextMarker") > 0 && count(b"EnumerationResults") > 0);
    }
    let _ = (gcs::parse_error(bytes), gcs::parse_stored(bytes), gcs::parse_versioning(bytes));
    if let Ok(page) = gcs::parse_list(bytes) {
        assert!(page.objects.len() <= count(b"{") && count(b"storage#objects") + count(b"\\u") > 0);
    }
}

#[test]
fn changed_answers_break_nothing() {
    for (index, seed) in AZURE.iter().chain(GCS).enumerate() {
        check(seed.as_bytes());
        let p = &mut Prng::new(index as u64);
        for _ in 0..COPIES {
            check(&changed(p, seed.as_bytes()));
        }
    }
    let page = azure::parse_list(AZURE[0].as_bytes()).unwrap();
    assert_eq!(
        (page.blobs.len(), page.archived.as_deref(), page.marker.as_str()),
        (2, Some("p/a&b"), "2!72!x")
    );
    assert_eq!(gcs::parse_list(GCS[0].as_bytes()).unwrap().objects.len(), 2);
}
