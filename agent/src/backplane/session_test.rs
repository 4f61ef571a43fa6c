//! Two sessions over pipes in memory, and peers that do not keep to the rules.

use super::*;
use crate::backplane::header::NODE_ID_MAX;
use crate::work::{AssignmentId, Reply};

const CLUSTER: ClusterId = *b"cluster of tests";

fn at(ms: u64) -> Instant {
    Instant::from_ns(ms * 1_000_000)
}

fn local(node: u32) -> Local {
    Local {
        cluster: CLUSTER,
        node: NodeId(node),
        boot: Boot(u64::from(node) + 100),
        name: format!("n{node}"),
        protocols: PROTOCOLS,
    }
}

fn anyone() -> Box<dyn Identity> {
    Box::new(|_: NodeId| Ok(()))
}

/// Node 1 dials node 2.
fn pair() -> (Session, Session) {
    (Session::new(at(0), local(1), Some(NodeId(2)), anyone()), Session::new(at(0), local(2), None, anyone()))
}

/// What one has to say, all of it.
fn drain(from: &mut Session) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let piece = from.outgoing().to_vec();
        if piece.is_empty() {
            return bytes;
        }
        from.sent(piece.len());
        bytes.extend(piece);
    }
}

/// Carries everything in both directions, in pieces of `step` bytes, and collects what the ends say.
fn carry(now: Instant, a: &mut Session, b: &mut Session, step: usize) -> (Vec<Event>, Vec<Event>) {
    let (mut of_a, mut of_b) = (Vec::new(), Vec::new());
    loop {
        let (to_b, to_a) = (drain(a), drain(b));
        if to_a.is_empty() && to_b.is_empty() {
            return (of_a, of_b);
        }
        for (bytes, end, events) in [(to_b, &mut *b, &mut of_b), (to_a, &mut *a, &mut of_a)] {
            for piece in bytes.chunks(step) {
                let mut rest = piece;
                while !rest.is_empty() && !end.is_down() {
                    rest = &rest[end.feed(now, rest)..];
                    events.extend(std::iter::from_fn(|| end.next_event()));
                }
            }
        }
    }
}

fn up() -> (Session, Session) {
    let (mut a, mut b) = pair();
    let (of_a, of_b) = carry(at(0), &mut a, &mut b, usize::MAX);
    assert!(matches!((&of_a[..], &of_b[..]), ([Event::Up(_)], [Event::Up(_)])));
    (a, b)
}

fn said<'a>(events: &'a [Event]) -> Vec<&'a Message> {
    let message = |event: &'a Event| match event {
        Event::Up(_) | Event::Down(_) => None,
        Event::Message { message, .. } => Some(message),
    };
    events.iter().filter_map(message).collect()
}

fn failed(what: &str) -> Message {
    Message::Failed { id: AssignmentId::default(), what: what.to_owned() }
}

/// Why `end` is down after these bytes.
fn refusal(end: &mut Session, bytes: &[u8]) -> Option<Reason> {
    end.feed(at(0), bytes);
    std::iter::from_fn(|| end.next_event()).find_map(|event| match event {
        Event::Down(reason) => Some(reason),
        Event::Up(_) | Event::Message { .. } => None,
    })
}

#[test]
fn hellos_and_messages_arrive_however_they_are_cut() {
    for step in [1, 2, 3, 79, 80, 81, 160, 4096, usize::MAX] {
        let (mut a, mut b) = pair();
        let (of_a, of_b) = carry(at(0), &mut a, &mut b, step);
        let peer = |node: u32| Peer {
            node: NodeId(node),
            boot: Boot(u64::from(node) + 100),
            name: format!("n{node}"),
            proto: PROTOCOLS.1,
        };
        assert_eq!((of_a, of_b), (vec![Event::Up(peer(2))], vec![Event::Up(peer(1))]));
        let large = Message::Reply { request: 1, reply: Reply::Status("x".repeat(60 << 10)) };
        for message in [&failed("1"), &large, &Message::Fenced] {
            a.send(Epoch(7), Slot(8), message).unwrap();
        }
        let (_, of_b) = carry(at(0), &mut a, &mut b, step);
        assert_eq!(said(&of_b), [&failed("1"), &large, &Message::Fenced], "step {step}");
        assert!(matches!(of_b[0], Event::Message { epoch: Epoch(7), log_slot: Slot(8), .. }));
    }
}

#[test]
fn a_message_that_was_not_taken_stops_the_bytes_behind_it() {
    let (mut a, mut b) = up();
    a.send(Epoch(1), Slot(1), &failed("1")).unwrap();
    a.send(Epoch(1), Slot(1), &failed("2")).unwrap();
    let bytes = drain(&mut a);
    let taken = b.feed(at(0), &bytes);
    assert!(taken < bytes.len() && b.has_message());
    assert_eq!(b.feed(at(0), &bytes[taken..]), 0);
    // No peer is dead because its message was not taken.
    b.wake(at(9000));
    assert!(matches!(b.next_event(), Some(Event::Message { .. })));
    assert_eq!(b.feed(at(9000), &bytes[taken..]), bytes.len() - taken);
    assert!(matches!(b.next_event(), Some(Event::Message { .. })));
}

#[test]
fn no_more_is_sent_than_was_granted_and_the_queue_is_bounded() {
    let (mut a, mut b) = up();
    let mut sent = 0;
    let full = loop {
        match a.send(Epoch(1), Slot(1), &Message::Fenced) {
            Ok(()) => sent += 1,
            Err(fault) => break fault,
        }
    };
    assert_eq!((sent, full), (QUEUE_FRAMES_MAX, SendFault::Full));
    assert_eq!(drain(&mut a).len(), CREDITS as usize * HEADER_BYTES, "as many as were granted");
    // All of them arrive where messages are taken; the rest follows.
    let (mut a, mut b2) = up();
    for _ in 0..QUEUE_FRAMES_MAX {
        a.send(Epoch(1), Slot(1), &Message::Fenced).unwrap();
    }
    assert_eq!(said(&carry(at(0), &mut a, &mut b2, 1000).1).len(), QUEUE_FRAMES_MAX);
    // A long queue is bounded by its bytes.
    let large = Message::Reply { request: 1, reply: Reply::Status("x".repeat(60 << 10)) };
    let fits = std::iter::from_fn(|| b.send(Epoch(1), Slot(1), &large).ok()).count();
    assert_eq!(fits, QUEUE_BYTES_MAX / (HEADER_BYTES + 8 + 1 + 4 + (60 << 10)));
}

#[test]
fn who_sends_without_credit_is_closed() {
    let (mut a, mut b) = up();
    for _ in 0..CREDITS {
        a.send(Epoch(1), Slot(1), &Message::Fenced).unwrap();
    }
    let mut bytes = drain(&mut a);
    a.credits = 1;
    a.send(Epoch(1), Slot(1), &Message::Fenced).unwrap();
    bytes.extend(drain(&mut a));
    let mut rest = &bytes[..];
    while !rest.is_empty() && !b.is_down() {
        rest = &rest[b.feed(at(0), rest)..];
        // Taken, but the credits were not given back yet.
        let _ = b.message.take();
    }
    assert_eq!(b.next_event(), Some(Event::Down(Reason::Credit)));
}

#[test]
fn pings_are_answered_and_a_silent_peer_is_dead_after_six_seconds() {
    let (mut a, mut b) = up();
    for second in (2..20).step_by(2) {
        a.wake(at(second * 1000));
        b.wake(at(second * 1000));
        assert_eq!(carry(at(second * 1000 + 5), &mut a, &mut b, 7), (vec![], vec![]));
    }
    assert_eq!(a.round_trip(), Some(Duration::from_millis(5)));
    // From here on nothing arrives.
    let last = 18_005;
    for ms in (last..last + 6000).step_by(500) {
        a.wake(at(ms));
        assert_eq!(a.next_event(), None, "{ms}");
        assert!(a.deadline().is_some_and(|due| due > at(ms)));
    }
    assert!(a.deadline().unwrap() <= at(last + 6000));
    a.wake(at(last + 6000));
    assert_eq!((a.next_event(), a.deadline()), (Some(Event::Down(Reason::Silent)), None));
}

#[test]
fn a_peer_that_talks_and_never_answers_pings_is_dead_too() {
    let (mut a, mut b) = up();
    for ms in (2000..8000).step_by(500) {
        a.wake(at(ms));
        drain(&mut a);
        b.send(Epoch(1), Slot(1), &Message::Fenced).unwrap();
        let bytes = drain(&mut b);
        a.feed(at(ms), &bytes);
        assert!(matches!(a.next_event(), Some(Event::Message { .. })), "{ms}");
    }
    a.wake(at(8000));
    assert_eq!(a.next_event(), Some(Event::Down(Reason::Silent)));
}

#[test]
fn slow_peers_are_closed() {
    // A hello that trickles.
    let (mut a, mut b) = pair();
    let hello = drain(&mut a);
    for (n, byte) in hello.iter().enumerate().take(48) {
        b.feed(at(n as u64 * 100), std::slice::from_ref(byte));
        b.wake(at(n as u64 * 100));
    }
    assert_eq!(b.next_event(), None);
    assert_eq!(b.deadline(), Some(at(5000)));
    b.wake(at(5000));
    assert_eq!(b.next_event(), Some(Event::Down(Reason::HandshakeSlow)));
    // A frame that trickles.
    let (mut a, mut b) = up();
    a.send(Epoch(1), Slot(1), &failed("slow")).unwrap();
    let bytes = drain(&mut a);
    for (n, byte) in bytes.iter().enumerate().take(60) {
        b.feed(at(n as u64 * 100), std::slice::from_ref(byte));
        b.wake(at(n as u64 * 100));
    }
    assert_eq!(b.next_event(), None);
    b.wake(at(6000));
    assert_eq!(b.next_event(), Some(Event::Down(Reason::FrameSlow)));
}

#[test]
fn replayed_reordered_and_missing_frames_are_refused() {
    let frames = |a: &mut Session| {
        let mut one = |what: &str| {
            a.send(Epoch(1), Slot(1), &failed(what)).unwrap();
            drain(a)
        };
        (one("1"), one("2"))
    };
    for (order, reason) in [("11", true), ("2", true), ("21", true), ("12", false)] {
        let (mut a, mut b) = up();
        let (first, second) = frames(&mut a);
        let mut seen = None;
        for c in order.chars() {
            seen = seen.or(refusal(&mut b, if c == '1' { &first } else { &second }));
        }
        assert_eq!(seen, reason.then_some(Reason::Sequence), "{order}");
    }
    // A whole connection played again to a new session ends at its second frame at the latest: the first frame is good, as it
    // was, and that it comes from who it says is for the layer below to know.
    let (mut a, mut b) = pair();
    let hello = drain(&mut a);
    assert_eq!(refusal(&mut b, &[hello.clone(), hello].concat()), Some(Reason::Sequence));
}

#[test]
fn every_flipped_bit_of_a_hello_and_of_a_message_ends_the_session() {
    let (mut a, _) = pair();
    let hello = drain(&mut a);
    for bit in 0..hello.len() * 8 {
        let mut bytes = hello.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let want = match bit / 8 {
            0..4 => Reason::Magic,
            4..80 => Reason::HeaderCrc,
            _ => Reason::BodyCrc,
        };
        assert_eq!(refusal(&mut pair().1, &bytes), Some(want), "bit {bit}");
    }
    let (mut a, _) = up();
    a.send(Epoch(1), Slot(1), &failed("1")).unwrap();
    let frame = drain(&mut a);
    for bit in 0..frame.len() * 8 {
        let mut bytes = frame.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert!(refusal(&mut up().1, &bytes).is_some(), "bit {bit}");
    }
}

/// A frame made by hand, with good checksums.
fn frame(kind: u8, seq: u64, body: &[u8]) -> Vec<u8> {
    let header = Header {
        proto: 1,
        kind,
        body_len: body.len(),
        body_crc: crc32c::crc32c(body),
        src: NodeId(1),
        dst: NodeId(2),
        cluster: CLUSTER,
        epoch: Epoch(0),
        seq,
        cookie: 0,
        log_slot: Slot(0),
    };
    [&header.emit()[..], body].concat()
}

#[test]
fn frames_with_good_checksums_and_bad_contents_are_refused_by_reason() {
    let mut hello = Vec::new();
    // Frames made by hand are of version 1.
    Hello::of(&Local { protocols: (1, 1), ..local(1) }).emit(&mut hello);
    let too_new = [&[PROTOCOLS.1 + 1, 9][..], &hello[2..]].concat();
    let greedy = [&hello[..10], &(CREDITS_MAX + 1).to_le_bytes(), &hello[14..]].concat();
    let rude = [&hello[..14], &[2, 0, 0, 0], b"\x1b["].concat();
    for (kind, body, reason) in [
        (KIND_PING, &[][..], Reason::Order),
        (25, &[], Reason::Order),
        (KIND_HELLO, &[], Reason::Body),
        (KIND_HELLO, &hello[..hello.len() - 1], Reason::Body),
        (KIND_HELLO, &too_new, Reason::Version),
        (KIND_HELLO, &greedy, Reason::Body),
        (KIND_HELLO, &rude, Reason::Body),
        (KIND_GOODBYE, &[18], Reason::Refused),
        (KIND_GOODBYE, &[7], Reason::Cluster),
        (KIND_GOODBYE, &[9], Reason::NameThere),
        (KIND_GOODBYE, &[30], Reason::Unlisted),
        (KIND_GOODBYE, &[Reason::Stopped as u8], Reason::Goodbye),
        (KIND_GOODBYE, &[], Reason::Body),
    ] {
        assert_eq!(refusal(&mut pair().1, &frame(kind, 1, body)), Some(reason), "{kind} {body:?}");
    }
    for (kind, body, reason) in [
        (KIND_HELLO, &hello[..], Reason::Order),
        (KIND_PING, &[0], Reason::Body),
        (KIND_PONG, &[], Reason::Order),
        (KIND_CREDIT, &[0, 0, 0, 0], Reason::Credit),
        (KIND_CREDIT, &[255, 255, 255, 255], Reason::Credit),
        (KIND_CREDIT, &[1, 0, 0], Reason::Body),
        (25, &[0], Reason::Body),
        (24, &[1], Reason::Body),
        (21, &[255; 300], Reason::Body),
    ] {
        let mut b = pair().1;
        assert_eq!(refusal(&mut b, &frame(KIND_HELLO, 1, &hello)), None);
        assert_eq!(refusal(&mut b, &frame(kind, 2, body)), Some(reason), "{kind} {body:?}");
    }
}

#[test]
fn a_flood_of_pings_is_refused_when_their_answers_are_not_taken() {
    let mut hello = Vec::new();
    Hello::of(&Local { protocols: (1, 1), ..local(1) }).emit(&mut hello);
    let mut b = pair().1;
    assert_eq!(refusal(&mut b, &frame(KIND_HELLO, 1, &hello)), None);
    for n in 0..PONGS_MAX as u64 {
        assert_eq!(refusal(&mut b, &frame(KIND_PING, 2 + n, &[])), None);
    }
    assert_eq!(refusal(&mut b, &frame(KIND_PING, 2 + PONGS_MAX as u64, &[])), Some(Reason::Flood));
}

#[test]
fn versions_are_negotiated_and_the_refused_one_hears_why() {
    for (ours, theirs, want) in [
        ((1, 1), (1, 3), Some(1)),
        ((1, 3), (2, 5), Some(3)),
        ((2, 3), (1, 2), Some(2)),
        ((1, 1), (2, 3), None),
        ((3, 4), (1, 2), None),
    ] {
        let mut a = Session::new(at(0), Local { protocols: ours, ..local(1) }, Some(NodeId(2)), anyone());
        let mut b = Session::new(at(0), Local { protocols: theirs, ..local(2) }, None, anyone());
        let (of_a, of_b) = carry(at(0), &mut a, &mut b, 50);
        let proto = |event: &Event| if let Event::Up(peer) = event { Some(peer.proto) } else { None };
        assert_eq!(of_b.iter().find_map(proto), want);
        assert_eq!(of_a.iter().find_map(proto), want);
        if want.is_none() {
            assert_eq!(
                (of_a, of_b),
                (vec![Event::Down(Reason::Version)], vec![Event::Down(Reason::Version)])
            );
        } else {
            a.send(Epoch(1), Slot(1), &Message::Fenced).unwrap();
            a.wake(at(2000));
            assert_eq!(said(&carry(at(2000), &mut a, &mut b, 50).1), [&Message::Fenced]);
            assert!(!a.is_down() && !b.is_down());
        }
    }
}

#[test]
fn another_cluster_another_node_and_a_false_name_are_refused() {
    let refused = |a: Local, to: u32, identity: Box<dyn Identity>| {
        let mut a = Session::new(at(0), a, Some(NodeId(to)), anyone());
        let mut b = Session::new(at(0), local(2), None, identity);
        let (of_a, of_b) = carry(at(0), &mut a, &mut b, 50);
        assert!(matches!(of_a[..], [Event::Down(_)]) || of_a.is_empty());
        of_b
    };
    let down = |reason| vec![Event::Down(reason)];
    let other = Local { cluster: [0; 16], ..local(1) };
    assert_eq!(refused(other, 2, anyone()), down(Reason::Cluster));
    assert_eq!(refused(local(1), 3, anyone()), down(Reason::Destination));
    let not_one: Box<dyn Identity> =
        Box::new(|id: NodeId| if id.0 == 9 { Ok(()) } else { Err(Reason::Source) });
    assert_eq!(refused(local(1), 2, not_one), down(Reason::Source));
    let far = Local { node: NodeId(NODE_ID_MAX + 2), ..local(1) };
    let none: Box<dyn Identity> = Box::new(|_: NodeId| Err(Reason::Stranger));
    assert_eq!(refused(far, 2, none), down(Reason::Stranger));
    // The one that dials compares too.
    let mut a = Session::new(at(0), local(1), Some(NodeId(2)), anyone());
    let mut c = Session::new(at(0), local(3), None, anyone());
    drain(&mut a);
    c.peer = Some(NodeId(1));
    c.hello_due = true;
    assert_eq!(refusal(&mut a, &drain(&mut c)), Some(Reason::Source));
}

#[test]
fn a_goodbye_is_the_last_word() {
    let (mut a, mut b) = up();
    a.send(Epoch(1), Slot(1), &Message::Fenced).unwrap();
    a.close(Reason::Stopped);
    assert_eq!(a.send(Epoch(1), Slot(1), &Message::Fenced), Err(SendFault::Down));
    let (of_a, of_b) = carry(at(0), &mut a, &mut b, 9);
    assert_eq!((of_a, of_b), (vec![], vec![Event::Down(Reason::Goodbye)]));
    assert_eq!(a.next_event(), Some(Event::Down(Reason::Stopped)));
    assert_eq!((a.next_event(), b.next_event(), drain(&mut b).len()), (None, None, 0));
}
