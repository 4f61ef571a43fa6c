//! The backplane over real sockets and real certificates: three nodes on loopback, and those who should not get in.
//!
//! Time of the nodes is the machine's with an offset, so that limits pass without waiting for them.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream};
use std::os::fd::AsRawFd as _;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, SockaddrIn};
use windlass_agent::backplane::message::Message;
use windlass_agent::backplane::net::{
    Event, Net, NetConfig, PENDING_MAX, PENDING_SOURCE_MAX, WAITING_MAX, conns_max,
};
use windlass_agent::backplane::reason::Reason;
use windlass_agent::backplane::session::{Local, PROTOCOLS, SendFault};
use windlass_agent::backplane::tls::{Pem, Tls, TlsFault};
use windlass_agent::id::{Boot, Epoch, NodeId, Slot};
use windlass_board::authority::{Authority, Issued};
use windlass_hal::clock::{Clock, Instant, SystemClock};
use windlass_hal::linux::link::TcpLink;
use windlass_hal::linux::poll::Poll;
use windlass_hal::sim::clock::SimClock;

const CLUSTER: [u8; 16] = *b"cluster of tests";
const DAY_SECS: i64 = 24 * 3600;
/// Real time that anything may take; a loaded machine is slow.
const PATIENCE: Duration = Duration::from_secs(60);
/// First token of the link on a poll that others could be on too.
const TOKEN: usize = 100;

struct Node {
    poll: Poll,
    ready: Vec<usize>,
    net: Net<TcpLink>,
    seen: Vec<Event>,
    address: SocketAddr,
}

struct World {
    authority: Authority,
    ca: String,
    nodes: BTreeMap<u32, Node>,
    offset: Duration,
}

fn now_secs() -> i64 {
    SystemClock.wall().secs
}

/// A link that listens, on a poll of its own.
fn listen(peers: usize) -> (Poll, TcpLink, SocketAddr) {
    let poll = Poll::new(64).unwrap();
    let mut link = TcpLink::new(&poll, TOKEN, conns_max(peers)).unwrap();
    let address = link.listen("127.0.0.1:0").unwrap();
    (poll, link, address)
}

fn tls(node: u32, ca: &str, issued: &Issued, clock: Arc<dyn Clock>) -> Result<Tls, TlsFault> {
    let pem =
        Pem { ca: ca.as_bytes(), certificate: issued.certificate.as_bytes(), key: issued.key.as_bytes() };
    Tls::new(NodeId(node), pem, clock)
}

fn local(node: u32) -> Local {
    Local {
        cluster: CLUSTER,
        node: NodeId(node),
        boot: Boot(u64::from(node) + 7),
        name: format!("host-{node}"),
        protocols: PROTOCOLS,
    }
}

impl World {
    /// Nodes 1 to 3, which know of a node 0 that listens nowhere.
    fn new() -> World {
        let (authority, ca) = Authority::make(now_secs(), 30).unwrap();
        let mut world =
            World { authority, ca: ca.certificate, nodes: BTreeMap::new(), offset: Duration::ZERO };
        let mut links: Vec<_> = (1..=3).map(|id| (id, listen(3))).collect();
        let addresses: Vec<(u32, SocketAddr)> = links.iter().map(|(id, link)| (*id, link.2)).collect();
        for (id, link) in links.drain(..) {
            // One is reached by name.
            let mut peers: Vec<_> = addresses
                .iter()
                .filter(|(peer, _)| *peer != id)
                .map(|(peer, at)| {
                    let host = if *peer == 3 { "localhost".to_owned() } else { at.ip().to_string() };
                    (NodeId(*peer), format!("{host}:{}", at.port()))
                })
                .collect();
            peers.push((NodeId(0), "127.0.0.1:9".to_owned()));
            let issued = world.issue(id);
            let tls = tls(id, &world.ca, &issued, Arc::new(SystemClock)).unwrap();
            world.insert(id, link, tls, local(id), peers);
        }
        world
    }

    /// Certificates were made three weeks ago, so that a clock that is late takes them too.
    fn issue(&self, node: u32) -> Issued {
        self.authority.issue(NodeId(node), None, now_secs() - 21 * DAY_SECS, 60).unwrap()
    }

    fn insert(
        &mut self,
        key: u32,
        (poll, link, address): (Poll, TcpLink, SocketAddr),
        tls: Tls,
        local: Local,
        peers: Vec<(NodeId, String)>,
    ) {
        let net = Net::new(link, Box::new(tls), NetConfig { local, peers, seed: key.into() }).unwrap();
        self.nodes.insert(key, Node { poll, ready: Vec::new(), net, seen: Vec::new(), address });
    }

    fn now(&self) -> Instant {
        SystemClock.now().saturating_add(self.offset)
    }

    fn turn(&mut self) {
        self.turn_of(|_| true);
    }

    fn turn_of(&mut self, takes_part: impl Fn(u32) -> bool) {
        let now = self.now();
        for (_, node) in self.nodes.iter_mut().filter(|(id, _)| takes_part(**id)) {
            node.poll.wait(Some(Duration::from_micros(200)), &mut node.ready).unwrap();
            node.net.turn(now, &node.ready);
            while let Some(event) = node.net.next_event(now) {
                node.seen.push(event);
            }
        }
    }

    /// Turns until something holds.
    fn until(&mut self, what: &str, mut holds: impl FnMut(&World) -> bool) {
        let end = SystemClock.now().saturating_add(PATIENCE);
        while !holds(self) {
            assert!(SystemClock.now() < end, "{what}: {:?}", self.report());
            self.turn();
        }
    }

    fn report(&self) -> Vec<(u32, Vec<(Reason, u64)>)> {
        self.nodes.iter().map(|(id, node)| (*id, node.net.counters().iter().collect())).collect()
    }

    fn all_up(&mut self) {
        self.until("all meet", |world| {
            (1..=3).all(|id| world.nodes[&id].net.peers().filter(|peer| peer.up).count() == 2)
        });
    }

    fn send(&mut self, from: u32, to: u32, message: &Message) -> Result<(), SendFault> {
        let now = self.now();
        self.nodes.get_mut(&from).unwrap().net.send(now, NodeId(to), Epoch(3), Slot(4), message)
    }

    /// Every good node sends to every other, and nobody lost anybody.
    fn exchange(&mut self) {
        for node in self.nodes.values_mut() {
            assert!(!node.seen.iter().any(|event| matches!(event, Event::Down { .. })), "{:?}", node.seen);
            node.seen.clear();
        }
        for (from, to) in [(1, 2), (1, 3), (2, 1), (2, 3), (3, 1), (3, 2)] {
            let message = Message::Failed { id: Default::default(), what: format!("{from} to {to}") };
            self.send(from, to, &message).unwrap();
        }
        self.until("messages arrive", |world| (1..=3).all(|id| world.nodes[&id].seen.len() >= 2));
        for (id, node) in self.nodes.iter().filter(|(id, _)| (1..=3).contains(*id)) {
            for event in &node.seen {
                let Event::Message { from, epoch: Epoch(3), log_slot: Slot(4), message } = event else {
                    panic!("{event:?}");
                };
                let what = format!("{from} to {id}");
                assert_eq!(*message, Message::Failed { id: Default::default(), what });
            }
        }
    }

    /// Somebody with these papers dials node 2 and says that it is node 0; node 2 must refuse for `reason`.
    fn intrude(&mut self, tls: Tls, local: Local, reason: Reason) {
        let before = self.nodes[&2].net.counters().of(reason);
        let peers = vec![(NodeId(2), self.nodes[&2].address.to_string())];
        self.insert(0, listen(1), tls, local, peers);
        self.until(&format!("refused for {reason:?}"), |world| {
            world.nodes[&2].net.counters().of(reason) > before
                && world.nodes[&0].net.counters().iter().next().is_some()
        });
        let intruder = self.nodes.remove(&0).unwrap();
        assert!(!intruder.seen.iter().any(|event| matches!(event, Event::Message { .. })));
        self.exchange();
    }
}

#[test]
fn three_nodes_meet_and_the_loss_of_one_is_told() {
    let mut world = World::new();
    world.all_up();
    for id in 1..=3 {
        let names: Vec<&str> = world.nodes[&id].net.peers().map(|peer| peer.name).collect();
        assert!(names.iter().filter(|name| name.starts_with("host-")).count() == 2, "{names:?}");
    }
    world.exchange();
    // Large messages, as many as may wait: they arrive, in order.
    let large =
        Message::Reply { request: 1, reply: windlass_agent::work::Reply::Status("x".repeat(60 << 10)) };
    for round in 1..=25 {
        (0..4).for_each(|_| assert_eq!(world.send(1, 2, &large), Ok(())));
        world.until("large messages arrive", |world| world.nodes[&2].seen.len() >= 2 + 4 * round);
    }
    // More than may wait: what was refused is not missed quietly, the connection begins anew.
    while world.send(1, 2, &large) == Ok(()) {}
    world.until("both are told", |world| {
        let down = |id: u32, of: u32| {
            let is = |event: &Event| matches!(event, Event::Down { node, .. } if *node == NodeId(of));
            world.nodes[&id].seen.iter().any(is)
        };
        down(1, 2) && down(2, 1)
    });
    let congested = world.nodes[&1].net.counters().of(Reason::Congested);
    assert_eq!(congested, 1);
    world.all_up();
    world.nodes.values_mut().for_each(|node| node.seen.clear());
    // Time passes: pings keep everybody up.
    for _ in 0..40 {
        world.offset += Duration::from_millis(500);
        for _ in 0..3 {
            world.turn();
        }
    }
    world.exchange();
    assert!(world.nodes[&1].net.peers().any(|peer| peer.round_trip.is_some()));
    // One stops, one dies.
    let now = world.now();
    world.nodes.get_mut(&3).unwrap().net.stop(now);
    world.nodes.remove(&3);
    world.until("the others hear of it", |world| {
        let down = Event::Down { node: NodeId(3), reason: Reason::Goodbye };
        (1..=2).all(|id| world.nodes[&id].seen.contains(&down))
    });
    drop(world.nodes.remove(&2));
    world.until("its death is noticed", |world| {
        world.nodes[&1].seen.iter().any(|event| {
            matches!(event, Event::Down { node: NodeId(2), reason: Reason::Closed | Reason::Link })
        })
    });
    assert_eq!(world.send(1, 2, &Message::Fenced), Err(SendFault::Down));
    world.until("dials fail", |world| world.nodes[&1].net.counters().of(Reason::Unreachable) > 1);
    let last = |of| world.nodes[&1].net.peers().find(|peer| peer.node == NodeId(of)).unwrap().last;
    assert_eq!((last(3), last(2)), (Some(Reason::Goodbye), Some(Reason::Unreachable)));
}

#[test]
fn those_who_should_not_get_in_do_not_and_the_others_go_on() {
    let mut world = World::new();
    world.all_up();
    world.exchange();
    let system: Arc<dyn Clock> = Arc::new(SystemClock);

    // Certificates of another CA: the intruder itself trusts both.
    let (other, other_ca) = Authority::make(now_secs(), 30).unwrap();
    let both = format!("{}{}", world.ca, other_ca.certificate);
    let papers = other.issue(NodeId(0), None, now_secs(), 30).unwrap();
    world.intrude(tls(0, &both, &papers, Arc::clone(&system)).unwrap(), local(0), Reason::Authority);

    // The certificate of node 9, by one that says it is node 0.
    let papers = world.issue(9);
    world.intrude(tls(9, &world.ca, &papers, Arc::clone(&system)).unwrap(), local(0), Reason::Source);

    // A node of the CA that nobody listed.
    let papers = world.issue(9);
    let unlisted = tls(9, &world.ca, &papers, Arc::clone(&system)).unwrap();
    // It has the higher id, so it would be dialled; it dials all the same.
    let before = world.nodes[&2].net.counters().of(Reason::Source);
    world.intrude(unlisted, local(0), Reason::Source);
    assert!(world.nodes[&2].net.counters().of(Reason::Source) > before);

    // Another repository.
    let papers = world.issue(0);
    let elsewhere = Local { cluster: [9; 16], ..local(0) };
    world.intrude(tls(0, &world.ca, &papers, Arc::clone(&system)).unwrap(), elsewhere, Reason::Cluster);

    // No version in common.
    let newer = Local { protocols: (PROTOCOLS.1 + 1, 9), ..local(0) };
    world.intrude(tls(0, &world.ca, &papers, Arc::clone(&system)).unwrap(), newer, Reason::Version);

    // An expired certificate; its owner's clock is ten days late.
    let papers = world.authority.issue(NodeId(0), None, now_secs() - 12 * DAY_SECS, 5).unwrap();
    let late = SimClock::new();
    late.set_wall(windlass_hal::volume::Timestamp { secs: now_secs() - 10 * DAY_SECS, nanos: 0 });
    world.intrude(tls(0, &world.ca, &papers, Arc::new(late)).unwrap(), local(0), Reason::Expired);
}

#[test]
fn a_dialler_notices_who_is_at_the_other_end() {
    let mut world = World::new();
    world.all_up();
    // Node 3's address where node 2 should be.
    let papers = world.issue(0);
    let peers = vec![(NodeId(2), world.nodes[&3].address.to_string())];
    let papers = tls(0, &world.ca, &papers, Arc::new(SystemClock)).unwrap();
    world.insert(0, listen(1), papers, local(0), peers);
    world.until("the name does not fit", |world| {
        world.nodes[&0].net.counters().of(Reason::CertificateName) > 0
            && world.nodes[&3].net.counters().of(Reason::NameThere) > 0
    });
    // Node 0 where node 2 should be: its own number.
    world.nodes.remove(&0);
    let papers = world.issue(0);
    let twin = listen(1);
    let peers = vec![(NodeId(2), twin.2.to_string())];
    let papers = tls(0, &world.ca, &papers, Arc::new(SystemClock)).unwrap();
    world.insert(0, listen(1), papers.clone(), local(0), peers);
    world.insert(10, twin, papers, local(0), vec![(NodeId(2), "127.0.0.1:9".to_owned())]);
    world.until("it is its own number", |world| world.nodes[&0].net.counters().of(Reason::Namesake) > 0);
    let met = world.nodes[&0].net.namesake().cloned();
    assert!(met.is_some_and(|(_, place)| place.contains("127.0.0.1")));
    world.nodes.remove(&10);
    // A server of another CA.
    world.nodes.remove(&0);
    let (other, other_ca) = Authority::make(now_secs(), 30).unwrap();
    let papers = other.issue(NodeId(0), None, now_secs(), 30).unwrap();
    let papers = tls(0, &other_ca.certificate, &papers, Arc::new(SystemClock)).unwrap();
    let peers = vec![(NodeId(2), world.nodes[&2].address.to_string())];
    world.insert(0, listen(1), papers, local(0), peers);
    world.until("the CA does not fit", |world| {
        world.nodes[&0].net.counters().of(Reason::Authority) > 0
            && world.nodes[&2].net.counters().of(Reason::AuthorityThere) > 0
    });
    world.nodes.remove(&0);
    world.exchange();
}

/// A connection from an address of this machine, which talks as `n` says: nothing, another protocol, or the head of a TLS record whose rest
/// never comes.
fn stranger(from: Ipv4Addr, to: SocketAddr, n: usize) -> TcpStream {
    let socket = socket::socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
    socket::bind(socket.as_raw_fd(), &SockaddrIn::from(SocketAddrV4::new(from, 0))).unwrap();
    let SocketAddr::V4(to) = to else { panic!("{to}") };
    socket::connect(socket.as_raw_fd(), &SockaddrIn::from(to)).unwrap();
    let mut stream = TcpStream::from(socket);
    let _ = stream.write_all(match n % 3 {
        0 => &[],
        1 => b"GET / HTTP/1.1\r\nHost: backup\r\n\r\n",
        _ => &[22, 3, 1, 0x40, 0],
    });
    stream.set_nonblocking(true).unwrap();
    stream
}

/// Connections that are made again as soon as they are closed.
struct Strangers {
    from: Ipv4Addr,
    to: SocketAddr,
    kind: usize,
    held: Vec<TcpStream>,
}

/// Connections made between two turns of the nodes: more would wait for the kernel's own queue.
const AT_ONCE: usize = 8;
/// Turns of the others for one of the node that comes back.
const SLOWER: usize = 16;

impl Strangers {
    fn new(from: Ipv4Addr, to: SocketAddr, kind: usize, count: usize, world: &mut World) -> Strangers {
        let held = (0..count).map(|n| {
            if n % AT_ONCE == 0 {
                world.turn();
            }
            stranger(from, to, kind)
        });
        Strangers { from, to, kind, held: held.collect() }
    }

    fn come_again(&mut self) {
        let mut made = 0;
        for stream in &mut self.held {
            let gone = match stream.read(&mut [0; 64]) {
                Err(error) => error.kind() != ErrorKind::WouldBlock,
                Ok(count) => count == 0,
            };
            if gone && made < AT_ONCE {
                made += 1;
                *stream = stranger(self.from, self.to, self.kind);
            }
        }
    }
}

const NEAR: Ipv4Addr = Ipv4Addr::LOCALHOST;
const FAR: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// Node 1, which is met from [`NEAR`], loses its connection to node 2 while strangers hold node 2's door.
fn meets_again(mut strangers: Vec<Strangers>, world: &mut World) {
    let back = |world: &World| world.nodes[&2].net.peers().any(|peer| peer.node == NodeId(1) && peer.up);
    let end = SystemClock.now().saturating_add(PATIENCE);
    world.until("strangers wait", |world| {
        world.nodes[&2].net.connections() + world.nodes[&2].net.waiting() > PENDING_MAX
    });
    // It starts again.
    drop(world.nodes.remove(&1));
    world.until("its death is noticed", |world| !back(world));
    let papers = world.issue(1);
    let papers = tls(1, &world.ca, &papers, Arc::new(SystemClock)).unwrap();
    let peers = vec![(NodeId(2), world.nodes[&2].address.to_string())];
    world.insert(1, listen(1), papers, local(1), peers);
    while !back(world) {
        assert!(SystemClock.now() < end, "{:?}", world.report());
        world.turn();
        // It is slow, as one with a loaded CPU is.
        for _ in 0..SLOWER {
            strangers.iter_mut().for_each(Strangers::come_again);
            world.turn_of(|id| id != 1);
        }
        let net = &world.nodes[&2].net;
        assert!(net.connections() <= 2 + PENDING_MAX && net.waiting() <= WAITING_MAX);
    }
    let third = world.nodes[&2].net.peers().any(|peer| peer.node == NodeId(3) && peer.up);
    assert!(third, "who was up stayed up");
    assert!(!world.nodes[&2].seen.iter().any(|event| matches!(event, Event::Down { node: NodeId(3), .. })));
}

#[test]
fn a_node_is_met_while_idle_connections_of_its_own_host_come_again_and_again() {
    for count in [64, 256] {
        let mut world = World::new();
        world.all_up();
        let strangers = Strangers::new(NEAR, world.nodes[&2].address, 0, count, &mut world);
        meets_again(vec![strangers], &mut world);
    }
}

#[test]
fn a_node_is_met_while_half_handshakes_of_another_host_come_again_and_again() {
    for count in [64, 256] {
        let mut world = World::new();
        world.all_up();
        let to = world.nodes[&2].address;
        let strangers = [0, 2].map(|kind| Strangers::new(FAR, to, kind, count / 2, &mut world));
        meets_again(strangers.into(), &mut world);
        assert!(world.nodes[&2].net.connections() <= 2 + PENDING_SOURCE_MAX);
    }
}

#[test]
fn connections_that_never_finish_their_handshake_harm_nobody() {
    let mut world = World::new();
    world.all_up();
    let address = world.nodes[&2].address;
    let mut held = Vec::new();
    for n in 0..3 * PENDING_MAX {
        held.push(stranger(FAR, address, n));
        world.turn();
        assert!(world.nodes[&2].net.connections() <= 2 + PENDING_SOURCE_MAX);
    }
    world.until("all were accepted", |world| world.nodes[&2].net.counters().of(Reason::Tls) >= 1);
    world.exchange();
    for _ in 0..12 {
        world.offset += Duration::from_millis(500);
        world.turn();
        world.turn();
    }
    world.until("they are gone", |world| {
        world.nodes[&2].net.connections() == 2 && world.nodes[&2].net.waiting() == 0
    });
    let counters = world.nodes[&2].net.counters();
    assert!(counters.of(Reason::HandshakeSlow) > 0 && counters.of(Reason::Evicted) > 0, "{counters:?}");
    world.exchange();
}

#[test]
fn papers_that_peers_would_refuse_are_refused_at_home() {
    let (authority, ca) = Authority::make(now_secs(), 30).unwrap();
    let (_, other_ca) = Authority::make(now_secs(), 30).unwrap();
    let good = authority.issue(NodeId(1), None, now_secs(), 30).unwrap();
    let clock = || -> Arc<dyn Clock> { Arc::new(SystemClock) };
    let refusal = |node, ca: &str, papers: &Issued| tls(node, ca, papers, clock()).err();
    assert_eq!(refusal(1, &ca.certificate, &good), None);
    assert_eq!(refusal(2, &ca.certificate, &good), Some(TlsFault::OtherNode(NodeId(2))));
    assert_eq!(refusal(1, &other_ca.certificate, &good), Some(TlsFault::Refused(Reason::Authority)));
    assert_eq!(refusal(1, "", &good), Some(TlsFault::CaEmpty));
    let old = authority.issue(NodeId(1), None, now_secs() - 40 * DAY_SECS, 30).unwrap();
    assert_eq!(refusal(1, &ca.certificate, &old), Some(TlsFault::Refused(Reason::Expired)));
    let early = authority.issue(NodeId(1), None, now_secs() + 3 * DAY_SECS, 30).unwrap();
    assert_eq!(refusal(1, &ca.certificate, &early), Some(TlsFault::Refused(Reason::NotYetValid)));
    let mixed = Issued {
        certificate: good.certificate.clone(),
        key: authority.issue(NodeId(1), None, now_secs(), 30).unwrap().key,
    };
    assert!(matches!(refusal(1, &ca.certificate, &mixed), Some(TlsFault::Unusable(_))));
    let swapped = Issued { certificate: good.key.to_string(), key: good.key.clone() };
    assert_eq!(refusal(1, &ca.certificate, &swapped), Some(TlsFault::CertificateEmpty));
    let swapped = Issued { certificate: good.certificate.clone(), key: good.certificate.clone().into() };
    assert_eq!(refusal(1, &ca.certificate, &swapped), Some(TlsFault::KeyEmpty));
    // A new certificate for the same key, as a renewal makes it.
    let renewed = authority.issue(NodeId(1), Some(&good.key), now_secs(), 30).unwrap();
    assert_eq!(renewed.key, good.key);
    assert_eq!(refusal(1, &ca.certificate, &renewed), None);
}
