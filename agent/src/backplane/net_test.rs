//! Nodes on a simulated network without encryption: who dials, what a lost connection does, and what a bad peer cannot do.

use std::collections::BTreeMap;

use windlass_hal::sim::link::{SimLink, SimNet};

use super::*;
use crate::backplane::session::PROTOCOLS;
use crate::backplane::tls::PlainForTests;

/// Time of a turn in ms.
const STEP_MS: u64 = 20;

struct World {
    net: SimNet,
    now: Instant,
    nodes: BTreeMap<u32, Net<SimLink>>,
    seen: BTreeMap<u32, Vec<Event>>,
    seed: u64,
}

fn local(node: u32, boot: u64) -> Local {
    Local {
        cluster: *b"cluster of tests",
        node: NodeId(node),
        boot: Boot(boot),
        name: format!("n{node}"),
        protocols: PROTOCOLS,
    }
}

impl World {
    fn new(ids: &[u32], seed: u64) -> World {
        let mut world = World {
            net: SimNet::default(),
            now: Instant::from_ns(1_000_000_000),
            nodes: BTreeMap::new(),
            seen: BTreeMap::new(),
            seed,
        };
        for &id in ids {
            world.start(id, ids, 1);
        }
        world
    }

    fn start(&mut self, id: u32, ids: &[u32], boot: u64) {
        let peers = ids.iter().filter(|&&peer| peer != id);
        let config = NetConfig {
            local: local(id, boot),
            peers: peers.map(|&peer| (NodeId(peer), peer.to_string())).collect(),
            seed: self.seed ^ u64::from(id),
        };
        let port = self.net.port(&id.to_string(), self.seed.wrapping_mul(31) + u64::from(id));
        self.nodes.insert(id, Net::new(port, Box::new(PlainForTests), config).unwrap());
        self.seen.insert(id, Vec::new());
    }

    fn run(&mut self, ms: u64) {
        for _ in 0..ms.div_ceil(STEP_MS) {
            self.now = self.now.saturating_add(Duration::from_millis(STEP_MS));
            for (id, node) in &mut self.nodes {
                node.turn(self.now, &[]);
                while let Some(event) = node.next_event(self.now) {
                    self.seen.entry(*id).or_default().push(event);
                }
            }
        }
    }

    fn send(&mut self, from: u32, to: u32) -> Result<(), SendFault> {
        let (now, node) = (self.now, self.nodes.get_mut(&from).unwrap());
        node.send(now, NodeId(to), Epoch(1), Slot(2), &Message::Announce { resting: true, successor: None })
    }

    fn take(&mut self, id: u32) -> Vec<Event> {
        std::mem::take(self.seen.get_mut(&id).unwrap())
    }

    /// Which peers a node sees, by their `Up`s and `Down`s, checked to alternate.
    fn ups(&self, id: u32) -> Vec<u32> {
        let mut up = Vec::new();
        for event in &self.seen[&id] {
            match event {
                Event::Up { node, .. } => {
                    assert!(!up.contains(&node.0), "up twice");
                    up.push(node.0);
                }
                Event::Down { node, .. } => {
                    assert!(up.contains(&node.0), "down and never up");
                    up.retain(|other| *other != node.0);
                }
                Event::Message { from, .. } => assert!(up.contains(&from.0), "a message of nobody"),
            }
        }
        up.sort_unstable();
        up
    }
}

fn down(events: &[Event]) -> Vec<(u32, Reason)> {
    let one = |event: &Event| match event {
        Event::Down { node, reason } => Some((node.0, *reason)),
        Event::Up { .. } | Event::Message { .. } => None,
    };
    events.iter().filter_map(one).collect()
}

#[test]
fn all_meet_and_every_message_arrives_once_in_order() {
    for seed in 0..20 {
        let mut world = World::new(&[1, 2, 3], seed);
        world.run(2000);
        for id in 1..=3 {
            let others: Vec<u32> = (1..=3).filter(|other| *other != id).collect();
            assert_eq!(world.ups(id), others, "seed {seed}");
            assert_eq!(world.nodes[&id].connections(), 2);
            world.take(id);
        }
        for n in 0..40 {
            let now = world.now;
            let message = Message::Failed { id: Default::default(), what: n.to_string() };
            world.nodes.get_mut(&1).unwrap().send(now, NodeId(3), Epoch(n), Slot(n), &message).unwrap();
        }
        world.run(2000);
        let epochs: Vec<u64> = world
            .take(3)
            .iter()
            .map(|event| match event {
                Event::Message { from: NodeId(1), epoch, log_slot, .. } if epoch.0 == log_slot.0 => epoch.0,
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(epochs, (0..40).collect::<Vec<_>>(), "seed {seed}");
        assert_eq!(world.take(2), []);
    }
}

#[test]
fn a_reset_is_told_at_once_and_mended_within_a_second() {
    let mut world = World::new(&[1, 2, 3], 7);
    world.run(2000);
    (1..=3).for_each(|id| _ = world.take(id));
    world.net.reset("1", "2");
    assert_eq!(world.send(1, 2), Ok(()), "not known yet");
    world.run(200);
    assert_eq!(down(&world.seen[&1]), [(2, Reason::Link)]);
    assert_eq!(down(&world.seen[&2]), [(1, Reason::Link)]);
    assert_eq!(world.send(1, 2), Err(SendFault::Down));
    world.run(1000);
    assert!(matches!(world.seen[&1].last(), Some(Event::Up { node: NodeId(2), .. })));
    assert_eq!(world.take(3), [], "who is not concerned notices nothing");
    assert_eq!(world.send(1, 2), Ok(()));
}

#[test]
fn a_cut_is_noticed_on_both_sides_and_heals() {
    let mut world = World::new(&[1, 2, 3], 8);
    world.run(2000);
    world.net.cut("1", "3");
    world.run(9000);
    assert_eq!(down(&world.seen[&1]), [(3, Reason::Silent)]);
    assert_eq!(down(&world.seen[&3]), [(1, Reason::Silent)]);
    assert_eq!((world.ups(1), world.ups(2), world.ups(3)), (vec![2], vec![1, 3], vec![2]));
    world.run(30_000);
    world.net.heal();
    world.run(8000);
    assert_eq!((world.ups(1), world.ups(2), world.ups(3)), (vec![2, 3], vec![1, 3], vec![1, 2]));
    assert!((1..=3).all(|id| world.nodes[&id].connections() == 2), "old ones are gone");
}

#[test]
fn a_node_that_comes_back_replaces_its_old_connection() {
    let mut world = World::new(&[1, 2], 9);
    world.run(2000);
    world.take(2);
    // It dies without a word, and starts again before anybody noticed.
    let dead = world.nodes.remove(&1);
    world.start(1, &[1, 2], 77);
    world.run(1000);
    assert_eq!(
        world.take(2),
        [
            Event::Down { node: NodeId(1), reason: Reason::Replaced },
            Event::Up { node: NodeId(1), boot: Boot(77) }
        ]
    );
    assert_eq!(world.nodes[&2].counters().of(Reason::Replaced), 1);
    drop(dead);
}

#[test]
fn two_machines_with_one_number_are_named_on_all_sides_and_a_restart_is_none() {
    let mut world = World::new(&[1, 2], 14);
    world.run(2000);
    let twins = |world: &World| world.nodes[&2].peers().next().and_then(|peer| peer.twins.cloned());
    // It starts again, twice.
    for boot in [2, 3] {
        world.nodes.remove(&1);
        world.start(1, &[1, 2], boot);
        world.run(12_000);
        assert_eq!((world.ups(2), twins(&world)), (vec![1], None));
    }
    // A second machine has been given its number.
    let config =
        NetConfig { local: local(1, 77), peers: vec![(NodeId(2), "2".to_owned())], seed: world.seed ^ 77 };
    let port = world.net.port("other", 77);
    world.nodes.insert(77, Net::new(port, Box::new(PlainForTests), config).unwrap());
    world.run(12_000);
    let named = twins(&world).expect("node 2 has seen both");
    assert!([("1", "other"), ("other", "1")].contains(&(named.0.as_str(), named.1.as_str())), "{named:?}");
    for id in [1, 77] {
        assert!(world.nodes[&id].counters().of(Reason::Displaced) > 0, "{id}");
        // Both know of each other, up or not.
        let met = world.nodes[&id].namesake().expect("they were told");
        assert!(met.1.contains("took this node's place at node 2"), "{met:?}");
    }
    assert_eq!(world.nodes[&2].namesake(), None);
    // One of them is switched off: the other is the node.
    world.nodes.remove(&77);
    world.start(1, &[1, 2], 4);
    world.run(12_000);
    assert_eq!((world.ups(2), twins(&world)), (vec![1], None));
}

#[test]
fn stopping_says_goodbye() {
    let mut world = World::new(&[1, 2], 10);
    world.run(2000);
    let now = world.now;
    world.nodes.get_mut(&1).unwrap().stop(now);
    world.run(500);
    assert_eq!(down(&world.seen[&1]), [(2, Reason::Stopped)]);
    // The simulated wire may have no room at that moment; then it is an end like any other.
    assert!(matches!(down(&world.seen[&2])[..], [(1, Reason::Goodbye | Reason::Closed)]));
    assert_eq!(world.nodes[&1].connections(), 0);
}

#[test]
fn a_node_that_stopped_stays_one_until_it_is_seen_again() {
    let mut world = World::new(&[1, 2], 10);
    world.run(2000);
    let now = world.now;
    // The one that is dialled stops: the dials that follow find nothing there.
    world.nodes.get_mut(&2).unwrap().stop(now);
    world.run(500);
    world.nodes.remove(&2);
    let last = |world: &World| world.nodes[&1].peers().next().unwrap().last;
    if last(&world) != Some(Reason::Goodbye) {
        // The simulated wire had no room for it.
        return;
    }
    let before = world.nodes[&1].counters().of(Reason::Unreachable);
    world.net = SimNet::default();
    world.run(30_000);
    assert!(
        world.nodes[&1].counters().of(Reason::Unreachable) + world.nodes[&1].counters().of(Reason::Link)
            > before
    );
    assert_eq!(last(&world), Some(Reason::Goodbye));
}

#[test]
fn connections_without_a_hello_are_bounded_and_closed_and_the_others_go_on() {
    let mut world = World::new(&[1, 2], 11);
    world.run(2000);
    world.take(2);
    // A stranger that opens connections, says nothing or nonsense, and never goes away.
    let mut stranger = world.net.port("stranger", 1);
    for n in 0..100 {
        let id = stranger.connect("2").unwrap();
        if n % 2 == 0 {
            let _ = stranger
                .write(id, b"GET / HTTP/1.1\r\nHost: backup\r\nAccept: everything, and more of that\r\n\r\n");
            let _ = stranger.write(id, &[b'x'; 200]);
        }
        world.run(STEP_MS);
        assert!(world.nodes[&2].connections() <= PENDING_SOURCE_MAX + 1, "{n}");
    }
    assert!(world.nodes[&2].waiting() >= 50, "who says nothing gets no buffers");
    for _ in 0..WAITING_MAX {
        stranger.connect("2").unwrap();
        world.run(STEP_MS);
        assert!(world.nodes[&2].waiting() <= WAITING_MAX);
    }
    // Up to five seconds without a place, and as long with one.
    world.run(11_000);
    assert_eq!((world.nodes[&2].connections(), world.nodes[&2].waiting()), (1, 0));
    let counters = world.nodes[&2].counters();
    assert!(counters.of(Reason::Magic) > 0 && counters.of(Reason::Evicted) > 0);
    assert!(counters.of(Reason::HandshakeSlow) > 0);
    assert_eq!(world.take(2), [], "nobody who is up noticed");
    assert_eq!(world.send(1, 2), Ok(()));
    world.run(500);
    assert!(matches!(world.take(2)[..], [Event::Message { from: NodeId(1), .. }]));
}

#[test]
fn who_is_not_listed_is_refused() {
    let mut world = World::new(&[], 12);
    world.start(2, &[0, 2], 1);
    world.start(1, &[1, 2], 1);
    world.run(3000);
    assert!(world.nodes[&2].counters().of(Reason::Stranger) > 0);
    assert_eq!((world.ups(1), world.ups(2)), (vec![], vec![]));
    assert_eq!(world.nodes[&2].nameless(), Some(&("1".to_owned(), Reason::Stranger)));
    let last = world.nodes[&1].peers().next().unwrap().last;
    assert!(last.is_some(), "it is told that it was refused, or finds the connection closed");
}

#[test]
fn dials_that_fail_become_rarer() {
    let mut world = World::new(&[1, 2], 13);
    world.nodes.remove(&2);
    world.net = SimNet::default();
    world.start(1, &[1, 2], 1);
    world.run(60_000);
    let failed =
        world.nodes[&1].counters().of(Reason::Unreachable) + world.nodes[&1].counters().of(Reason::Link);
    assert!((10..=20).contains(&failed), "{failed}");
    assert!(world.nodes[&1].deadline().unwrap() <= world.now.saturating_add(BACKOFF_MAX * 2));
}

#[test]
fn configurations_that_cannot_be_meant_are_refused() {
    let refusal = |node: u32, peers: &[u32]| {
        let peers = peers.iter().map(|&id| (NodeId(id), String::new())).collect();
        let config = NetConfig { local: local(node, 1), peers, seed: 0 };
        Net::new(SimNet::default().port("x", 0), Box::new(PlainForTests), config).err()
    };
    assert_eq!(refusal(1, &[2, 3]), None);
    assert_eq!(refusal(1, &[2, 1]), Some(NetFault::Twice(NodeId(1))));
    assert_eq!(refusal(1, &[2, 2]), Some(NetFault::Twice(NodeId(2))));
    assert_eq!(refusal(1, &[70_000]), Some(NetFault::NodeId(NodeId(70_000))));
    assert_eq!(refusal(1, &(2..300).collect::<Vec<_>>()), Some(NetFault::Peers(298)));
}
