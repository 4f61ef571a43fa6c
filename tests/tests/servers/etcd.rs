//! etcd as a store: conformance and the probe against a real one, restarts, members that are killed or frozen, a full one, TLS.
//! Skips loudly where etcd is missing.
#![allow(clippy::unwrap_used, reason = "tests, and their helpers")]

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;

use windlass_agent::store::etcd::{ETCD_BODY_BYTES_MAX, EtcdSettings, EtcdStore, Place};
use windlass_agent::store::http::Timeouts;
use windlass_agent::store::probe::{RACES, probe};
use windlass_agent::store::{PutMode, Store, StoreFault, StoreFaultKind as Kind};
use windlass_hal::clock::SystemClock;
use windlass_tests::conformance::store::{Extent, WHOLE, keys, run_server};
use windlass_tests::engines::etcd::Etcd;
use windlass_tests::engines::{free_port, skip};

fn started(name: &str, etcd: Result<Etcd, String>) -> Option<Etcd> {
    etcd.map_err(|reason| skip(name, &reason)).ok()
}

/// Answers are waited for so long, in milliseconds: long for a busy machine, short for a test of silence.
const ANSWER_MS: u64 = 1_500;

fn impatient() -> EtcdSettings {
    let timeouts = Timeouts { answer_ms: ANSWER_MS, ..Timeouts::CONTROL };
    EtcdSettings { timeouts, ..EtcdSettings::default() }
}

fn get(store: &dyn Store, key: &str) -> Result<Vec<u8>, Kind> {
    let mut out = Vec::new();
    store.get(key, WHOLE, &mut out).map_err(|fault| fault.kind)?;
    Ok(out)
}

fn create(store: &dyn Store, key: &str, body: &[u8]) -> Result<(), StoreFault> {
    store.put(key, &[body], PutMode::CreateOnly)
}

#[test]
fn one_member_conforms_and_passes_the_probe() {
    let Some(etcd) = started("one_member_conforms_and_passes_the_probe", Etcd::start(1)) else { return };
    let store = etcd.store("windlass/a");
    let extent =
        Extent { long_list_keys: 700, large_bytes: ETCD_BODY_BYTES_MAX as usize, ..Extent::default() };
    run_server(&store, "conf", extent);
    let report = probe(store.as_ref(), &SystemClock, 1).unwrap();
    assert!(report.races_repeated <= RACES);
    assert_eq!(keys(store.as_ref(), "", ""), [], "everything is cleaned up");
    // A log slot: two copies of 64 KiB. And the bound.
    let slot = vec![7; 64 << 10];
    store.put("log/00000000000000000001", &[&slot, &slot], PutMode::CreateOnly).unwrap();
    assert_eq!(get(store.as_ref(), "log/00000000000000000001").unwrap().len(), 128 << 10);
    let large = vec![0; ETCD_BODY_BYTES_MAX as usize + 1];
    assert_eq!(create(store.as_ref(), "large", &large).unwrap_err().kind, Kind::Rejected);
    // Large values make the pages of a listing shrink, not fail.
    for n in 0..20 {
        store.put(&format!("big/{n:02}"), &[&large[1..]], PutMode::Replace).unwrap();
    }
    assert_eq!(keys(store.as_ref(), "big/", "").len(), 20);
    // Prefixes are apart, also where one begins like the other.
    let other = etcd.store("windlass/a-b");
    create(other.as_ref(), "x", b"other").unwrap();
    assert_eq!(get(store.as_ref(), "x"), Err(Kind::NotFound));
    assert_eq!(keys(other.as_ref(), "", ""), [("x".to_owned(), 5)]);
}

#[test]
fn what_was_acknowledged_survives_a_kill_and_nothing_is_claimed_meanwhile() {
    let name = "what_was_acknowledged_survives_a_kill_and_nothing_is_claimed_meanwhile";
    let Some(mut etcd) = started(name, Etcd::start(1)) else { return };
    let store = etcd.store_with("w", &impatient());
    for round in 0..3 {
        for n in 0..20 {
            create(store.as_ref(), &format!("log/{round}-{n}"), b"kept").unwrap();
        }
        etcd.kill(0);
        let dead = |result: Result<(), StoreFault>| assert_eq!(result.unwrap_err().kind, Kind::Unknown);
        dead(create(store.as_ref(), "log/none", b"x"));
        dead(store.put("beat/1", &[b"x"], PutMode::Replace));
        dead(store.get("log/0-0", WHOLE, &mut Vec::new()).map(drop));
        dead(store.list("log/", "", &mut |_, _| true));
        dead(store.delete("log/0-0"));
        etcd.restart(0).unwrap();
        // The first call may meet a connection of before.
        let listed = (0..10).find_map(|_| {
            let mut count = 0;
            let each = &mut |_: &str, _| {
                count += 1;
                true
            };
            store.list("log/", "", each).ok().map(|()| count)
        });
        assert_eq!(listed, Some(20 * (round + 1)));
        assert_eq!(create(store.as_ref(), "log/0-0", b"x").unwrap_err().kind, Kind::Exists);
    }
    // Frozen: it takes the request and says nothing. Whether it was applied is open, and then it is found out.
    etcd.freeze(0, true);
    assert_eq!(create(store.as_ref(), "log/frozen", b"mine").unwrap_err().kind, Kind::Unknown);
    etcd.freeze(0, false);
    match create(store.as_ref(), "log/frozen", b"mine") {
        Ok(()) => {}
        Err(fault) => assert!(matches!(fault.kind, Kind::Exists | Kind::Unknown), "{fault}"),
    }
    let found = (0..10).find_map(|_| get(store.as_ref(), "log/frozen").ok());
    assert_eq!(found.as_deref(), Some(&b"mine"[..]));
}

#[test]
fn a_cluster_answers_while_it_has_a_majority_and_claims_nothing_without_one() {
    let name = "a_cluster_answers_while_it_has_a_majority_and_claims_nothing_without_one";
    let Some(mut etcd) = started(name, Etcd::start(3)) else { return };
    let store = etcd.store_with("w", &impatient());
    create(store.as_ref(), "log/1", b"x").unwrap();
    etcd.kill(0);
    // The next endpoint in turn; while a new leader is elected there may be no answer.
    let patient = |key: &str| {
        for _ in 0..20 {
            match create(store.as_ref(), key, key.as_bytes()) {
                Ok(()) => return,
                Err(fault) if fault.kind == Kind::Exists => {
                    assert_eq!(get(store.as_ref(), key), Ok(key.as_bytes().to_vec()));
                    return;
                }
                Err(fault) => assert_eq!(fault.kind, Kind::Unknown, "{fault}"),
            }
        }
        unreachable!("no answer of two members of three");
    };
    patient("log/2");
    patient("log/3");
    assert_eq!(get(store.as_ref(), "log/1"), Ok(b"x".to_vec()), "from another member");
    etcd.kill(1);
    for _ in 0..2 {
        assert_eq!(create(store.as_ref(), "log/4", b"x").unwrap_err().kind, Kind::Unknown);
        assert_eq!(get(store.as_ref(), "log/1"), Err(Kind::Unknown), "reads are linearizable");
    }
    etcd.restart(1).unwrap();
    patient("log/5");
    probe(store.as_ref(), &SystemClock, 1).unwrap();
}

#[test]
fn endpoints_of_two_clusters_are_refused() {
    let name = "endpoints_of_two_clusters_are_refused";
    let Some(mut one) = started(name, Etcd::start(1)) else { return };
    let Some(two) = started(name, Etcd::start(1)) else { return };
    let host = |etcd: &Etcd| {
        let url = etcd.url("w");
        url.trim_start_matches("etcd://").trim_end_matches("/w").to_owned()
    };
    let both = format!("{},{}/w", host(&one), host(&two));
    let store = EtcdStore::open(Place::parse(&both, false).unwrap(), &impatient()).unwrap();
    create(&store, "log/1", b"x").unwrap();
    one.kill(0);
    let fault = (0..3).map(|_| create(&store, "log/1", b"y").unwrap_err()).find(|f| f.kind != Kind::Unknown);
    let fault = fault.unwrap();
    assert!(fault.kind == Kind::Rejected && fault.detail.contains("cluster"), "{fault}");
}

#[test]
fn a_full_cluster_is_full_and_can_still_be_read() {
    let Some(etcd) = started("a_full_cluster_is_full_and_can_still_be_read", Etcd::start_small(4 << 20))
    else {
        return;
    };
    let store = etcd.store("w");
    let body = vec![1; 512 << 10];
    // On a slow disk it may be late with an answer; only a refusal counts.
    let mut kept = None;
    let mut refusal = |n| {
        let key = format!("log/{n:02}");
        match create(store.as_ref(), &key, &body) {
            Ok(()) => kept = Some(key),
            Err(fault) if matches!(fault.kind, Kind::Unknown | Kind::Exists) => {}
            Err(fault) => return Some(fault),
        }
        None
    };
    let fault = (0..40).find_map(&mut refusal).unwrap();
    assert!(fault.kind == Kind::Full && fault.detail.contains("compact"), "{fault}");
    let kept = kept.unwrap();
    assert_eq!((0..10).find_map(|_| get(store.as_ref(), &kept).ok()), Some(body));
    store.delete(&kept).unwrap();
}

#[test]
fn an_emptied_one_and_one_that_was_rolled_back_are_told_apart() {
    let name = "an_emptied_one_and_one_that_was_rolled_back_are_told_apart";
    let Some(mut etcd) = started(name, Etcd::start(1)) else { return };
    let fill = |store: &dyn Store, from: u32| {
        // The first call may meet a connection of before.
        let _ = get(store, "log/none");
        (from..from + 20).for_each(|n| create(store, &format!("log/{n:02}"), b"x").unwrap());
    };
    let fault = |store: &dyn Store| {
        let faults = (0..10).filter_map(|_| store.get("log/01", WHOLE, &mut Vec::new()).err());
        faults.into_iter().find(|fault| fault.kind == Kind::Rejected).unwrap()
    };
    let store = etcd.store_with("w", &impatient());
    create(store.as_ref(), "home", b"x").unwrap();
    fill(store.as_ref(), 0);
    etcd.keep(0).unwrap();
    fill(store.as_ref(), 20);
    etcd.roll_back(0).unwrap();
    let rolled_back = fault(store.as_ref());
    assert!(rolled_back.detail.contains("it was rolled back, to an old copy"), "{rolled_back}");
    etcd.empty(0).unwrap();
    // A beat does not make it a log.
    let _ = store.put("beat/1", &[b"x"], PutMode::Replace);
    let emptied = fault(store.as_ref());
    assert!(emptied.detail.contains("it was emptied: its data is lost"), "{emptied}");
}

#[test]
fn tls_with_certificates_of_both_sides() {
    let Some(etcd) = started("tls_with_certificates_of_both_sides", Etcd::start_tls()) else { return };
    let store = etcd.store("w");
    // It listens before it has elected itself.
    let first = (0..20).find(|n| create(store.as_ref(), &format!("log/{n}"), b"x").is_ok());
    assert!(first.is_some());
    let extent = Extent { long_list_keys: 40, large_bytes: 200_000, races: 2, ..Extent::default() };
    run_server(&store, "conf", extent);
    let file = |name: &str| etcd.certificates.as_ref().unwrap().path().join(name);
    let stranger = etcd.store_with("w", &EtcdSettings { ca_file: Some(file("ca.pem")), ..impatient() });
    assert!(create(stranger.as_ref(), "log/x", b"x").is_err(), "without a certificate of its own");
    if std::path::Path::new(windlass_agent::store::http::CA_BUNDLES[0]).exists() {
        let fault = create(etcd.store_with("w", &impatient()).as_ref(), "log/x", b"x").unwrap_err();
        let another = "it is of another CA than those that are trusted here";
        assert!(fault.kind == Kind::Rejected && fault.detail.contains(another), "{fault}");
    }
    assert_eq!(get(store.as_ref(), "log/x"), Err(Kind::NotFound));
}

/// A server that answers each of a few requests with the same bytes.
fn parrot(answer: &'static str) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten().take(8) {
            let mut stream = stream;
            // Read until the body is there: it ends in a brace.
            let (mut request, mut piece) = (Vec::new(), [0; 4096]);
            while !request.ends_with(b"}") {
                match stream.read(&mut piece) {
                    Ok(n) if n > 0 => request.extend_from_slice(&piece[..n]),
                    _ => break,
                }
            }
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    port
}

fn at(ports: &[u16]) -> EtcdStore {
    let hosts: Vec<String> = ports.iter().map(|port| format!("127.0.0.1:{port}")).collect();
    let place = Place::parse(&format!("{}/w", hosts.join(",")), false).unwrap();
    EtcdStore::open(place, &impatient()).unwrap()
}

#[test]
fn answers_that_no_etcd_gives_decide_nothing() {
    // An empty object would read as "exists" and as "absent".
    let unknown = [
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}",
        "HTTP/1.1 200 OK\r\nContent-Length: 6\r\nConnection: close\r\n\r\n<html>",
        "HTTP/1.1 200 OK\r\nContent-Length: 60\r\nConnection: close\r\n\r\n{\"header\":{\"cluster_id\":\"1\",\"revision\":\"1\"}}",
        "HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        "",
    ];
    for answer in unknown {
        let store = at(&[parrot(answer)]);
        assert_eq!(create(&store, "log/1", b"x").unwrap_err().kind, Kind::Unknown, "{answer}");
        assert_eq!(get(&store, "log/1"), Err(Kind::Unknown), "{answer}");
        assert_eq!(store.list("log/", "", &mut |_, _| true).unwrap_err().kind, Kind::Unknown, "{answer}");
        assert_eq!(store.delete("log/1").unwrap_err().kind, Kind::Unknown, "{answer}");
    }
    let old =
        at(&[parrot("HTTP/1.1 404 Not Found\r\nContent-Length: 9\r\nConnection: close\r\n\r\nNot Found")]);
    let fault = create(&old, "log/1", b"x").unwrap_err();
    assert!(fault.kind == Kind::Unsupported && fault.detail.contains("3.4"), "{fault}");
    let away = at(&[parrot(
        "HTTP/1.1 307 Moved\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
    )]);
    assert_eq!(create(&away, "log/1", b"x").unwrap_err().kind, Kind::Rejected);
}

#[test]
fn a_request_that_was_sent_is_not_sent_to_another_endpoint() {
    let won = "HTTP/1.1 200 OK\r\nContent-Length: 61\r\nConnection: close\r\n\r\n{\"header\":{\"cluster_id\":\"1\",\"revision\":\"1\"},\"succeeded\":true}";
    // Nobody listens at the first: the second is asked in the same call.
    let store = at(&[free_port().unwrap(), parrot(won)]);
    create(&store, "log/1", b"x").unwrap();
    // The first takes the request and hangs up: it may have been applied there.
    let store = at(&[parrot(""), parrot(won)]);
    assert_eq!(create(&store, "log/1", b"x").unwrap_err().kind, Kind::Unknown);
    create(&store, "log/1", b"x").unwrap();
    // Nobody anywhere.
    let store = at(&[free_port().unwrap(), free_port().unwrap()]);
    assert_eq!(create(&store, "log/1", b"x").unwrap_err().kind, Kind::Unknown);
}

#[test]
fn shared_between_threads() {
    let Some(etcd) = started("shared_between_threads", Etcd::start(1)) else { return };
    let (one, other): (Arc<dyn Store>, Arc<dyn Store>) = (etcd.store("w"), etcd.store("w"));
    create(one.as_ref(), "log/1", b"x").unwrap();
    assert_eq!(create(other.as_ref(), "log/1", b"y").unwrap_err().kind, Kind::Exists);
    assert_eq!(get(other.as_ref(), "log/1"), Ok(b"x".to_vec()));
}
