//! S3 answers that go wrong, each made by a server in this process: how they are classified, and that repeats resolve them or
//! say clearly why not. Nothing sleeps: the client's clock is stepped.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests, and their helpers")]

use std::sync::Arc;
use std::time::Duration;

use windlass_agent::id::Epoch;
use windlass_agent::log::call::{Answer, Call, perform};
use windlass_agent::log::keys;
use windlass_agent::store::probe::{Check, Wrong, probe};
use windlass_agent::store::retry::{Client, RetryPolicy};
use windlass_agent::store::s3::{S3Settings, S3Store, Timeouts};
use windlass_agent::store::throttle::Throttle;
use windlass_agent::store::{ByteRange, PutMode, Store, StoreFault, StoreFaultKind as Kind};
use windlass_hal::clock::{Clock, SystemClock};
use windlass_tests::conformance::store::{Extent, WHOLE, run, run_server};
use windlass_tests::engines::clock::StepClock;
use windlass_tests::engines::faulty::{Fault, Faulty};

/// Short timeouts, so that a slow server is one that takes half a second.
fn store(server: &Faulty) -> Arc<dyn Store> {
    let timeouts = Timeouts { connect_ms: 2_000, answer_ms: 300, body_bytes_s_min: 64 << 20 };
    Arc::new(server.s3.store_with("bucket", S3Settings { timeouts, ..server.s3.settings() }))
}

fn client(server: &Faulty) -> (Client, Arc<StepClock>) {
    let clock = Arc::new(StepClock::default());
    let shared = Arc::clone(&clock) as Arc<dyn Clock>;
    (Client::new(store(server), shared, RetryPolicy::DATA, 7), clock)
}

#[track_caller]
fn kind<T: std::fmt::Debug>(result: Result<T, StoreFault>) -> Kind {
    result.unwrap_err().kind
}

#[test]
fn the_server_itself_conforms_when_it_behaves() {
    let server = Faulty::start();
    let store = store(&server);
    let extent = Extent { long_list_keys: 60, large_bytes: (1 << 20) + 4097, ..Extent::default() };
    run(&store, "conf", extent);
    assert!(server.connections() > 1 && server.connections() < 120, "connections are kept and shared");
    probe(store.as_ref(), &SystemClock, 1).unwrap();
}

#[test]
fn the_suite_forgives_a_server_a_few_lost_answers_and_no_more() {
    let server = Faulty::start();
    let store = store(&server);
    let extent = Extent { long_list_keys: 60, large_bytes: 1 << 20, ..Extent::default() };
    server.plan("PUT", &Fault::LostAnswer, 1);
    server.plan("GET", &Fault::Reset, 2);
    server.plan("DELETE", &Fault::LostAnswer, 1);
    run_server(&store, "conf", extent);
    server.plan("GET", &Fault::Reset, 5);
    let broken = std::thread::spawn(move || run_server(&store, "conf", extent)).join();
    assert!(broken.is_err(), "a server that loses five answers passes");
}

#[test]
fn one_attempt_is_classified() {
    let server = Faulty::start();
    let store = store(&server);
    let put = |mode| store.put("a", &[b"0123456789"], mode);
    let get = |range| store.get("a", range, &mut Vec::new());
    let middle = ByteRange::From { offset: 2, len: 4 };
    put(PutMode::CreateOnly).unwrap();
    let puts = [
        (Fault::LostAnswer, Kind::Unknown),
        (Fault::Reset, Kind::Unknown),
        (Fault::SlowAnswer(500), Kind::Unknown),
        (Fault::Status(500, "InternalError"), Kind::Unknown),
        (Fault::Status(502, ""), Kind::Unknown),
        (Fault::Status(503, "SlowDown"), Kind::Unknown),
        (Fault::Status(429, ""), Kind::Unknown),
        (Fault::Status(409, "ConditionalRequestConflict"), Kind::Conflict),
        (Fault::Status(409, "OperationAborted"), Kind::Conflict),
        (Fault::Status(404, "NoSuchBucket"), Kind::StoreGone),
        (Fault::Status(404, ""), Kind::StoreGone),
        (Fault::Status(403, "AccessDenied"), Kind::Denied),
        (Fault::Status(401, ""), Kind::Denied),
        (Fault::Status(403, "QuotaExceeded"), Kind::Full),
        (Fault::Status(507, ""), Kind::Full),
        (Fault::Status(501, "NotImplemented"), Kind::Unsupported),
        (Fault::Status(400, "EntityTooLarge"), Kind::Rejected),
        (Fault::FlipUp, Kind::Corrupt),
        (Fault::WrongChecksum, Kind::Corrupt),
        (Fault::Portal, Kind::Unknown),
        (Fault::NoEtag, Kind::Unknown),
        (Fault::Status(206, ""), Kind::Unknown),
        (
            Fault::Raw(
                "HTTP/1.1 302 X\r\nLocation: http://login/\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
            ),
            Kind::Unknown,
        ),
        (Fault::Raw("HTTP/1.1 200"), Kind::Unknown),
        (Fault::Raw("nonsense\r\n\r\n"), Kind::Unknown),
        (
            Fault::Raw("HTTP/1.1 301 Moved\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n"),
            Kind::Rejected,
        ),
    ];
    for (fault, expected) in puts {
        server.plan("PUT", &fault, 1);
        assert_eq!(kind(put(PutMode::Replace)), expected, "{fault:?}");
    }
    let gets = [
        (Fault::LostAnswer, WHOLE, Kind::Unknown),
        (Fault::CutBody, WHOLE, Kind::Unknown),
        (Fault::CutBody, middle, Kind::Unknown),
        (Fault::SlowBody(800), WHOLE, Kind::Unknown),
        (Fault::FlipDown, WHOLE, Kind::Corrupt),
        (Fault::WrongRange, middle, Kind::Corrupt),
        (Fault::Portal, ByteRange::From { offset: 0, len: 4 }, Kind::Unknown),
        (Fault::Portal, WHOLE, Kind::Unknown),
        (Fault::NoEtag, WHOLE, Kind::Unknown),
        (Fault::NoEtag, middle, Kind::Unknown),
        (Fault::NoSuchRange, middle, Kind::Unknown),
        (Fault::NoSuchRange, WHOLE, Kind::Unknown),
        (Fault::Status(204, ""), WHOLE, Kind::Unknown),
        (Fault::CutChunks, WHOLE, Kind::Unknown),
        (Fault::Raw("HTTP/1.1 206 X\r\nETag: \"x\"\r\nContent-Length: 4\r\n\r\n2345"), middle, Kind::Unknown),
        (Fault::Raw("HTTP/1.1 200 X\r\nETag: \"x\"\r\nContent-Length: 2\r\n\r\nOK"), middle, Kind::Unknown),
        (Fault::Status(404, ""), WHOLE, Kind::Unknown),
        (Fault::Status(404, "NoSuchKey"), WHOLE, Kind::NotFound),
        (Fault::Status(404, "NoSuchBucket"), middle, Kind::StoreGone),
        (Fault::Status(503, ""), middle, Kind::Unknown),
        (Fault::Status(403, "RequestTimeTooSkewed"), middle, Kind::Denied),
    ];
    for (fault, range, expected) in gets {
        // The call before may have ended with the connection's end, which is not here yet when this one begins.
        let before = get(range).or_else(|_| get(range));
        assert_eq!(before, Ok(10), "before {fault:?}");
        server.plan("GET", &fault, 1);
        assert_eq!(kind(get(range)), expected, "{fault:?} {range:?}");
        assert_eq!(get(range), Ok(10), "the next call is not disturbed by {fault:?}");
    }
    for fault in [Fault::CutBody, Fault::Reset, Fault::Status(503, ""), Fault::Portal] {
        server.plan("GET", &fault, 1);
        assert_eq!(kind(store.list("", "", &mut |_, _| true)), Kind::Unknown, "{fault:?}");
        server.plan("DELETE", &fault, 1);
        if fault != Fault::CutBody {
            assert_eq!(kind(store.delete("none")), Kind::Unknown, "{fault:?}");
        }
        server.clear();
    }
    let moved =
        Fault::Raw("HTTP/1.1 301 X\r\nx-amz-bucket-region: eu-central-1\r\nContent-Length: 0\r\n\r\n");
    server.plan("GET", &moved, 1);
    let fault = get(WHOLE).unwrap_err();
    assert!(fault.kind == Kind::Rejected && fault.detail.contains("region eu-central-1"), "{fault}");
}

/// A server whose clock is a year ahead, and that says so as it refuses.
const SKEWED: Fault = Fault::Raw(
    "HTTP/1.1 403 X\r\nDate: Fri, 01 Jan 2027 01:00:00 GMT\r\nContent-Length: 62\r\n\r\n<Error><Code>RequestTimeTooSkewed</Code><Message/></Error>    ",
);

#[test]
fn what_a_wrong_clock_spoils_is_signed_with_the_servers_time_and_sent_once_more() {
    let server = Faulty::start();
    let clock = Arc::new(StepClock::default());
    let store = server.s3.store_at("bucket", Arc::clone(&clock) as Arc<dyn Clock>);
    store.put("a", &[b"0123456789"], PutMode::CreateOnly).unwrap();
    assert_eq!(store.time(), None, "a server that says no time");
    for verb in ["GET", "PUT", "DELETE"] {
        server.plan(verb, &SKEWED, 1);
    }
    let before = server.requests();
    let mut out = Vec::new();
    assert_eq!(store.get("a", WHOLE, &mut out), Ok(10));
    assert_eq!(server.requests() - before, 2);
    let said = store.time().unwrap();
    assert_eq!((said.wall_ns / 1_000_000_000, said.at_ns), (1_798_765_200, clock.now().as_ns()));
    // From then on requests are signed with that time, and a refusal is one.
    assert_eq!(kind(store.put("a", &[b"x"], PutMode::Replace)), Kind::Denied);
    assert_eq!(kind(store.delete("a")), Kind::Denied);
    assert_eq!(server.requests() - before, 4);
}

#[test]
fn a_listing_that_does_not_fit_is_no_answer_and_names_what_is_wrong() {
    let server = Faulty::start();
    let store = store(&server);
    for n in 0..20 {
        store.put(&format!("obj/{n:02}"), &[b"x"], PutMode::Replace).unwrap();
    }
    for (fault, page, what) in [
        (Fault::NoToken, 2, "no token"),
        (Fault::SameToken, 1, "same token"),
        (Fault::OtherPrefix, 1, "outside of the prefix"),
        (Fault::Unsorted, 0, "ascending"),
        (Fault::Portal, 2, "not a listing"),
        (Fault::CutChunks, 0, ""),
    ] {
        server.plan("GET", &Fault::Fine, page);
        server.plan("GET", &fault, 1);
        let fault = store.list("obj/", "", &mut |_, _| true).unwrap_err();
        assert!(fault.kind == Kind::Unknown && fault.detail.contains(what), "{fault}");
    }
}

#[test]
fn a_store_without_etags_is_one_and_lengths_may_be_told_in_other_ways() {
    let server = Faulty::start();
    let store = store(&server);
    for _ in 0..2 {
        server.plan("PUT", &Fault::NoEtag, 1);
        store.put("a", &[b"0123456789"], PutMode::Replace).unwrap();
        server.plan("GET", &Fault::NoEtag, 1);
        assert_eq!(store.get("a", WHOLE, &mut Vec::new()), Ok(10));
    }
    let ranges = [(WHOLE, "0123456789"), (ByteRange::From { offset: 2, len: 4 }, "2345")];
    for (range, expected) in ranges {
        // Of a whole object that ends with the connection the size is asked for once more, by a range.
        for (fault, times) in [(Fault::Chunked, 1), (Fault::NoLength, 2)] {
            server.plan("GET", &fault, times);
            let mut out = Vec::new();
            assert_eq!(store.get("a", range, &mut out), Ok(10), "{fault:?}");
            assert_eq!(out, expected.as_bytes(), "{fault:?}");
            server.clear();
        }
    }
    for fault in [Fault::Chunked, Fault::NoLength] {
        server.plan("GET", &fault, 2);
        assert_eq!(kind(store.get("a", ByteRange::Whole(9), &mut Vec::new())), Kind::TooLong, "{fault:?}");
        server.clear();
    }
    let bare = Fault::Raw("HTTP/1.1 200 X\r\nETag: \"x\"\r\nConnection: close\r\n\r\n0123456789");
    server.plan("GET", &bare, 2);
    let fault = store.get("a", WHOLE, &mut Vec::new()).unwrap_err();
    assert!(fault.kind == Kind::Unknown && fault.detail.contains("no length"), "{fault}");
}

#[test]
fn what_is_larger_than_its_kind_is_not_read() {
    let server = Faulty::start();
    let (store, (client, _)) = (store(&server), client(&server));
    for key in ["format", "epoch/1", "beat/1", "log/1", "boundary/1", "ckpt/1-0"] {
        server.plan("GET", &Fault::Flood, 2);
        let (answer, fault) = perform(store.as_ref(), &Call::Get { key: key.to_owned() });
        // To the log it is an object that is damaged, and the words say in what way.
        assert_eq!(answer, Answer::Body(Vec::new()), "{key}");
        assert_eq!(fault.unwrap().kind, Kind::TooLong, "{key}");
        let mut out = b"kept".to_vec();
        let fault = client.get(key, ByteRange::Whole(keys::bytes_max(key)), &mut out).unwrap_err();
        assert!(fault.kind == Kind::TooLong && fault.detail.contains("1099511627776 bytes"), "{fault}");
        assert_eq!(out, b"kept");
    }
    // A range is bounded by itself.
    for range in [ByteRange::From { offset: 0, len: 100 }, ByteRange::Last(100)] {
        server.plan("GET", &Fault::Flood, 1);
        assert_eq!(kind(store.get("obj/1", range, &mut Vec::new())), Kind::Unsupported);
    }
    // What the sockets hold; a client that reads would have had gigabytes by now.
    assert!(server.flooded() < 14 * (16 << 20), "{} bytes", server.flooded());
}

#[test]
fn an_unanswered_unique_put_is_resolved_whether_it_was_applied_or_not() {
    let server = Faulty::start();
    let (client, _) = client(&server);
    for (n, fault) in [
        Fault::LostAnswer,
        Fault::Reset,
        Fault::SlowAnswer(500),
        Fault::Status(503, "SlowDown"),
        Fault::Status(409, "ConditionalRequestConflict"),
        Fault::WrongChecksum,
        Fault::FlipUp,
        Fault::Portal,
        Fault::NoEtag,
    ]
    .iter()
    .enumerate()
    {
        let (small, large) = (format!("obj/small/{n}"), format!("obj/large/{n}"));
        let body = vec![n as u8; 3 << 20];
        server.plan("PUT", fault, 3);
        client.put_unique(&small, &[b"mine"]).unwrap();
        server.plan("PUT", fault, 3);
        client.put_unique(&large, &[&body, b"tail"]).unwrap();
        assert_eq!(server.object(&small).unwrap(), b"mine", "{fault:?}");
        assert_eq!(server.object(&large).unwrap().len(), body.len() + 4, "{fault:?}");
        server.clear();
    }
    assert!(client.counts().retries > 20);
}

#[test]
fn a_unique_name_that_holds_other_bytes_is_said_so() {
    let server = Faulty::start();
    let (client, _) = client(&server);
    client.put_unique("obj/a", &[b"theirs"]).unwrap();
    assert_eq!(kind(client.put_unique("obj/a", &[b"ours"])), Kind::Exists);
    // In doubt first: the name must be read back, and its bytes are not ours.
    server.plan("PUT", &Fault::Reset, 1);
    let fault = client.put_unique("obj/a", &[b"ours!!"]).unwrap_err();
    assert!(fault.kind == Kind::Exists && fault.detail.contains("other bytes"), "{fault}");
    assert_eq!(server.object("obj/a").unwrap(), b"theirs");
}

#[test]
fn a_slot_is_tried_once_and_every_answer_is_the_callers() {
    let server = Faulty::start();
    let (client, _) = client(&server);
    server.plan("PUT", &Fault::LostAnswer, 1);
    assert_eq!(kind(client.put_slot("log/1", &[b"mine"])), Kind::Unknown);
    assert_eq!(server.object("log/1").unwrap(), b"mine", "it was applied all the same");
    assert_eq!(kind(client.put_slot("log/1", &[b"mine"])), Kind::Exists);
    server.plan("PUT", &Fault::Status(409, "ConditionalRequestConflict"), 1);
    assert_eq!(kind(client.put_slot("log/2", &[b"mine"])), Kind::Conflict);
    assert_eq!(client.counts().retries, 0);
    assert_eq!(client.counts().put, 3);
}

#[test]
fn reads_and_listings_are_repeated_and_a_listing_goes_on_where_it_was() {
    let server = Faulty::start();
    let (client, _) = client(&server);
    for n in 0..40 {
        client.put_unique(&format!("obj/{n:03}"), &[b"x"]).unwrap();
    }
    for fault in [Fault::CutBody, Fault::FlipDown, Fault::Reset, Fault::Status(500, ""), Fault::SlowBody(800)]
    {
        server.plan("GET", &fault, 2);
        let mut out = b"kept".to_vec();
        assert_eq!(client.get("obj/007", WHOLE, &mut out), Ok(1), "{fault:?}");
        assert_eq!(out, b"keptx", "{fault:?}");
        server.clear();
    }
    // The third and the fifth page are lost.
    for fault in [Fault::Fine, Fault::Fine, Fault::Reset, Fault::Fine, Fault::CutBody] {
        server.plan("GET", &fault, 1);
    }
    let mut seen = Vec::new();
    client
        .list("obj/", "obj/004", &mut |key, _| {
            seen.push(key.to_owned());
            true
        })
        .unwrap();
    let expected: Vec<String> = (5..40).map(|n| format!("obj/{n:03}")).collect();
    assert_eq!(seen, expected, "each key once, in order");
    server.plan("DELETE", &Fault::LostAnswer, 2);
    client.delete("obj/000").unwrap();
    assert!(server.object("obj/000").is_none());
}

#[test]
fn a_storm_ends_in_the_budget_and_says_how_long_it_tried() {
    let server = Faulty::start();
    let (client, clock) = client(&server);
    server.plan("PUT", &Fault::Status(503, "SlowDown"), 10_000);
    let start = clock.now().as_ns();
    let fault = client.put_unique("obj/a", &[b"x"]).unwrap_err();
    let spent_ms = (clock.now().as_ns() - start) / 1_000_000;
    assert_eq!(fault.kind, Kind::Unknown);
    assert!(fault.detail.contains("gave up after") && fault.detail.contains("SlowDown"), "{fault}");
    assert!(
        spent_ms <= RetryPolicy::DATA.budget_ms && spent_ms > RetryPolicy::DATA.budget_ms / 2,
        "{spent_ms}"
    );
    assert!(server.requests() <= RetryPolicy::DATA.attempts_max as usize);
    // A minute of it is ridden out.
    server.clear();
    server.plan("PUT", &Fault::Status(503, "SlowDown"), 10);
    client.put_unique("obj/a", &[b"x"]).unwrap();
}

#[test]
fn refusals_in_the_middle_of_a_run_end_it_at_once() {
    let server = Faulty::start();
    let (client, _) = client(&server);
    client.put_unique("obj/a", &[b"x"]).unwrap();
    let before = client.counts();
    server.denied(true);
    let large = vec![1; 8 << 20];
    assert_eq!(kind(client.put_unique("obj/b", &[&large])), Kind::Denied);
    assert_eq!(kind(client.get("obj/a", WHOLE, &mut Vec::new())), Kind::Denied);
    assert_eq!(kind(client.list("", "", &mut |_, _| true)), Kind::Denied);
    assert_eq!(kind(client.delete("obj/a")), Kind::Denied);
    server.denied(false);
    server.bucket_gone(true);
    assert_eq!(kind(client.put_unique("obj/b", &[&large])), Kind::StoreGone);
    assert_eq!(kind(client.get("obj/a", WHOLE, &mut Vec::new())), Kind::StoreGone);
    assert_eq!(kind(client.list("", "", &mut |_, _| true)), Kind::StoreGone);
    assert_eq!(client.counts().retries, before.retries, "none of these is repeated");
    assert_eq!(client.counts().faults, before.faults + 7);
}

#[test]
fn a_server_that_is_not_there_is_no_answer() {
    let endpoint = format!("http://127.0.0.1:{}", windlass_tests::engines::free_port().unwrap());
    let engine = windlass_tests::engines::s3::S3Engine::new(endpoint, "AK", "SK");
    let fault = engine.store("bucket").get("a", WHOLE, &mut Vec::new()).unwrap_err();
    assert_eq!(fault.kind, Kind::Unknown, "{fault}");
}

#[test]
fn the_probe_refuses_stores_that_ignore_conditions_and_names_versioning() {
    let server = Faulty::start();
    let store = store(&server);
    let clock = SystemClock;
    server.versioning(true);
    let fault = probe(store.as_ref(), &clock, 1).unwrap_err();
    assert!(fault.check == Check::Race && fault.to_string().contains("without versioning"), "{fault}");
    server.versioning(false);
    // One loser of one race gets through.
    for fault in [Fault::Fine, Fault::Fine, Fault::IgnoreCondition] {
        server.plan("PUT", &fault, 1);
    }
    let fault = probe(store.as_ref(), &clock, 2).unwrap_err();
    assert_eq!((fault.check, fault.wrong), (Check::Race, Wrong::Winners(2)));
    // A race with an unanswered create decides nothing and is run again.
    server.plan("PUT", &Fault::LostAnswer, 1);
    assert_eq!(probe(store.as_ref(), &clock, 3).unwrap().races_repeated, 1);
    server.denied(true);
    let fault = probe(store.as_ref(), &clock, 4).unwrap_err();
    assert!(matches!(fault.wrong, Wrong::Fault(f) if f.kind == Kind::Denied));
    server.denied(false);
    let mut left = 0;
    store
        .list("probe/", "", &mut |_, _| {
            left += 1;
            true
        })
        .unwrap();
    assert_eq!(left, 0, "probes clean up");
}

#[test]
fn a_beat_that_is_never_answered_is_given_up_by_the_lease_and_waits_behind_no_limit() {
    let server = Faulty::start();
    let store = server.s3.store("bucket");
    store.set_lease_deadline(200);
    server.plan("PUT", &Fault::SlowAnswer(5_000), 1);
    let begun = SystemClock.now();
    let call = Call::Put { key: keys::beat(Epoch(1)), body: vec![0; 108].into() };
    assert_eq!(perform(&store, &call).0, Answer::Fault(Kind::Unknown));
    let took = SystemClock.now().saturating_since(begun);
    assert!(took < Duration::from_secs(3), "{took:?}");
    // What is no beat has all the time that a slow store needs.
    server.plan("PUT", &Fault::SlowAnswer(400), 1);
    store.put("obj/1", &[b"x"], PutMode::Replace).unwrap();

    let clock = Arc::new(StepClock::default());
    let shared = Arc::clone(&clock) as Arc<dyn Clock>;
    let throttle = Arc::new(Throttle::new(Arc::clone(&shared), 1 << 10, 1 << 10));
    let store = S3Store::open("bucket", "limited", server.s3.settings(), shared, throttle).ok().unwrap();
    let before = clock.now();
    store.put("beat/1", &[&[0; 64 << 10]], PutMode::Replace).unwrap();
    store.get("beat/1", WHOLE, &mut Vec::new()).unwrap();
    assert_eq!(clock.now(), before);
    store.put("obj/1", &[&[0; 64 << 10]], PutMode::Replace).unwrap();
    assert!(clock.now() > before);
}
