//! How a client of the API goes: whole and cut requests, answers, deadlines.

use serde_json::json;

use super::*;
use crate::api::answer::Media;

const GET: &[u8] = b"GET /v1/status HTTP/1.1\r\nHost: n\r\n\r\n";

fn at(secs: u64) -> Now {
    Now { ns: secs * NS_PER_SEC, wall_secs: 0 }
}

fn done() -> Answer {
    Answer::json(200, &json!({}))
}

/// Takes all output, and returns it.
fn take(conn: &mut Conn, now: Now) -> String {
    let text = String::from_utf8(conn.output().to_vec()).unwrap();
    conn.sent(now.ns, text.len());
    text
}

#[test]
fn requests_come_out_whole_however_the_bytes_come_in() {
    let put = b"PUT /a HTTP/1.1\r\nHost: n\r\nContent-Length: 3\r\n\r\nabc";
    for whole in [GET, put] {
        for cut in 0..whole.len() {
            let mut conn = Conn::new(0);
            conn.feed(0, &whole[..cut]);
            assert_eq!(conn.next_request(at(0)), None, "{cut}");
            assert!(conn.wants_input() && conn.output().is_empty());
            conn.feed(0, &whole[cut..]);
            let request = conn.next_request(at(0)).unwrap();
            assert_eq!(request.body.len(), if whole == GET { 0 } else { 3 });
            assert!(conn.is_asked() && !conn.wants_input() && conn.deadline().is_none());
        }
    }
}

#[test]
fn one_request_is_out_at_a_time_and_the_next_waits() {
    let mut conn = Conn::new(0);
    conn.feed(0, &[GET, b"HEAD / HTTP/1.1\r\nHost: n\r\nConnection: close\r\n\r\n"].concat());
    assert!(conn.next_request(at(0)).is_some() && conn.next_request(at(0)).is_none());
    conn.answer(at(0), &done());
    assert!(conn.next_request(at(0)).is_none());
    let text = take(&mut conn, at(0));
    assert!(text.ends_with("{}\n") && !text.contains("Connection: close"), "{text}");
    let head = conn.next_request(at(0)).unwrap();
    assert_eq!(head.method, Method::Head);
    conn.answer(at(0), &done());
    let text = take(&mut conn, at(0));
    assert!(text.ends_with("\r\n\r\n") && text.contains("Connection: close"), "{text}");
    assert!(conn.is_over());
}

#[test]
fn what_is_no_request_is_answered_and_ends_it() {
    let mut conn = Conn::new(0);
    conn.feed(0, b"GET / HTTP/1.1\nHost: n\n\n");
    assert_eq!(conn.next_request(at(0)), None);
    assert_eq!(conn.take_refused(), Some(code::SYNTAX));
    assert!(!conn.wants_input() && !conn.is_over());
    let text = take(&mut conn, at(0));
    assert!(text.starts_with("HTTP/1.1 400 Bad Request\r\n") && text.contains("E1001"), "{text}");
    assert!(conn.is_over());
}

#[test]
fn a_head_or_a_body_that_drips_is_told_and_shut_out() {
    let mut conn = Conn::new(0);
    assert_eq!(conn.deadline(), Some(IDLE_NS));
    for secs in 1..=10 {
        conn.feed(secs * NS_PER_SEC, &GET[secs as usize - 1..secs as usize]);
        assert!(conn.next_request(at(secs)).is_none() && conn.wake(at(secs)).is_none());
    }
    assert_eq!(conn.wake(at(11)), Some(Shut::Refused), "ten seconds from the first byte, not from the last");
    assert!(take(&mut conn, at(11)).contains("408"));
    assert!(conn.is_over());
    let mut conn = Conn::new(0);
    conn.feed(0, b"PUT /a HTTP/1.1\r\nHost: n\r\nContent-Length: 60000\r\n\r\n");
    assert!(conn.next_request(at(0)).is_none());
    assert_eq!(conn.deadline(), Some(BODY_GRACE_NS));
    conn.feed(0, &[b'a'; 10_240]);
    assert!(conn.next_request(at(0)).is_none());
    assert_eq!(conn.deadline(), Some(10 * NS_PER_SEC), "ten KiB pay for ten seconds");
    conn.feed(0, &[b'a'; 40_000]);
    assert!(conn.next_request(at(0)).is_none());
    assert_eq!(conn.deadline(), Some(BODY_NS));
    assert_eq!(conn.wake(at(20)), Some(Shut::Refused));
}

#[test]
fn who_says_nothing_or_takes_nothing_is_shut_out() {
    let mut conn = Conn::new(0);
    assert_eq!(conn.wake(at(29)), None);
    assert_eq!(conn.wake(at(30)), Some(Shut::Idle));
    assert!(conn.is_over() && !conn.wants_input());
    let mut conn = Conn::new(0);
    conn.feed(0, GET);
    assert!(conn.next_request(at(0)).is_some());
    assert_eq!(conn.wake(at(1000)), None, "the node's own time is not the client's");
    conn.answer(at(1000), &done());
    conn.sent(1005 * NS_PER_SEC, 1);
    assert_eq!(conn.wake(at(1014)), None);
    assert_eq!(conn.wake(at(1015)), Some(Shut::Stalled));
    assert!(conn.is_over());
    // A byte now and then is not enough either.
    let mut conn = Conn::new(0);
    conn.feed(0, GET);
    assert!(conn.next_request(at(0)).is_some());
    conn.answer(at(0), &done());
    for secs in 1..60 {
        conn.sent(secs * NS_PER_SEC, 1);
        assert_eq!(conn.wake(at(secs)), None);
    }
    assert_eq!(conn.wake(at(60)), Some(Shut::Stalled));
}

#[test]
fn a_connection_ends_after_its_last_request() {
    let mut conn = Conn::new(0);
    for _ in 1..REQUESTS_PER_CONN_MAX {
        conn.feed(0, GET);
        assert!(conn.next_request(at(0)).unwrap().keeps);
        conn.answer(at(0), &done());
        take(&mut conn, at(0));
    }
    conn.feed(0, GET);
    assert!(!conn.next_request(at(0)).unwrap().keeps);
    conn.answer(at(0), &done());
    assert!(take(&mut conn, at(0)).contains("Connection: close") && conn.is_over());
}

#[test]
fn a_stream_leaves_out_what_a_slow_client_has_no_room_for() {
    let mut conn = Conn::new(0);
    conn.feed(0, GET);
    assert!(conn.next_request(at(0)).is_some());
    conn.stream(at(0), &Answer::new(200, Media::Events, Vec::new()));
    assert!(!take(&mut conn, at(0)).contains("Content-Length") && conn.is_streaming());
    assert_eq!(conn.deadline(), None);
    assert!(conn.push(at(1), &[b'a'; EVENT_QUEUE_BYTES_MAX]) && !conn.push(at(1), b"b"));
    assert_eq!(conn.deadline(), Some(11 * NS_PER_SEC));
    conn.sent(2 * NS_PER_SEC, EVENT_QUEUE_BYTES_MAX);
    assert!(conn.push(at(2), b"b") && take(&mut conn, at(2)) == "b");
    conn.end();
    assert!(conn.is_over() && !conn.push(at(3), b"c"));
}
