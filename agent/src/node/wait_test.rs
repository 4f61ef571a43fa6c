//! A backup whose volume none of the nodes that are up has: they let go of the lease, so that a command with the volume can have it.

use serde_json::Value;

use super::*;
use crate::log::session::Session;
use crate::store::Store as _;

const HOUR: u64 = 3_600_000 * MS;

/// Nodes without the volume of a backup that has begun; the one that had it, the last, is gone.
fn left_alone(volumes: &[&[&str]]) -> Cluster {
    let last = volumes.len() - 1;
    let mut cluster = Cluster::new(volumes);
    cluster.set_policy();
    cluster.begin_backup(0, 2);
    cluster.run_until(60, "some of it", |cluster| {
        cluster.state().running.values().any(|running| running.totals.items > 500)
    });
    cluster.kill(last);
    cluster
}

fn waits(status: &Value) -> &str {
    status["backups"][0]["waits"].as_str().unwrap_or_default()
}

#[test]
fn nodes_that_see_each_other_let_go_of_a_backup_that_none_of_them_can_read() {
    let mut cluster = left_alone(&[&[], &[], &["c"]]);
    let begun = cluster.now;
    cluster.run_until(60, "a coordinator", |cluster| cluster.holder().is_some());
    cluster.run(20);
    let holder = cluster.holder().expect("it waits for nodes that may be on their way");
    let status = cluster.status(holder);
    assert!(waits(&status).contains("looked at again in ") && waits(&status).contains("\"c\""), "{status}");
    cluster.run_until(150, "rest beside it", |cluster| cluster.holder().is_none());
    assert!(cluster.now - begun < 150_000 * MS, "{} ms", (cluster.now - begun) / MS);
    cluster.run(1);
    let (own, other) = (cluster.status(holder), cluster.status(1 - holder));
    assert!(waits(&own).contains("looked at again in ") && waits(&own).contains("\"c\""), "{own}");
    assert!(waits(&other).contains("no node works on it"), "{other}");

    // A process with the volume has the lease at once.
    let clock = SimClock::default();
    let store = Rc::clone(&cluster.store);
    let around = Surroundings { store: &*store, clock: &clock };
    let me = Author { node: NodeId(0), boot: Boot(777) };
    let identity = Identity { cluster: [9; 16], me, who: Who::default() };
    let options = WriterOptions::default();
    let claimed = Session::claim(around, None, identity, PlainForTests, options, [5; 32], |_, _| false);
    claimed.expect("no node holds it").release(None).unwrap();

    // They look again now and then, and a node that comes with the volume goes on at once.
    let (epoch, until) = (cluster.state().epoch.0, cluster.now + 2 * HOUR);
    cluster.run_until(3 * 3600, "two hours", |cluster| cluster.now >= until);
    let looks = cluster.state().epoch.0 - epoch;
    assert!((15..=40).contains(&looks), "it looks again now and then: {looks} times");
    cluster.run_until(600, "a pause", |cluster| cluster.holder().is_none());
    let before = cluster.now;
    cluster.boot(2);
    cluster.run_until(200, "the point", |cluster| cluster.points() == 1);
    assert!(cluster.now - before < 60_000 * MS, "{} ms", (cluster.now - before) / MS);
}

#[test]
fn a_node_without_peers_lets_go_too_and_looks_at_once_when_it_gets_the_volume() {
    let mut cluster = left_alone(&[&["c"]]);
    cluster.volumes[0].clear();
    cluster.boot(0);
    cluster.run_until(60, "a coordinator", |cluster| cluster.holder().is_some());
    cluster.run_until(150, "rest beside it", |cluster| cluster.holder().is_none());
    cluster.run(3);
    assert_eq!(cluster.holder(), None);
    let (node, host) = cluster.nodes[0].as_mut().expect("it lives");
    host.volumes = vec!["c".to_owned()];
    let present =
        Present { boot: Boot(2), weight: 100, lanes: 2, volumes: vec!["c".to_owned()], ..Present::default() };
    node.set_present(present);
    let before = cluster.now;
    cluster.give(0, None);
    cluster.run_until(100, "the point", |cluster| cluster.points() == 1);
    assert!(cluster.now - before < 40_000 * MS, "{} ms", (cluster.now - before) / MS);
}

#[test]
fn a_command_whose_client_left_is_not_carried_out() {
    let policy = |name: &str| {
        // The next number, of those that count.
        let number = VolumeId((name.len() as u32 - 1).max(1));
        let change = PolicyChange {
            name: name.to_owned(),
            revision: 1,
            body: b"{}".to_vec(),
            volumes: vec![(number, "a".to_owned())],
        };
        Command::Submit(vec![Record::PolicyChanged(change)])
    };
    let breaks = |cluster: &mut Cluster, kind| {
        cluster.nodes.iter_mut().flatten().for_each(|(_, host)| host.broken = kind);
    };
    // No node coordinates.
    let mut cluster = Cluster::new(&[&["a"], &["a"]]);
    breaks(&mut cluster, Some(StoreFaultKind::Unknown));
    cluster.local(0, 5, policy("a"));
    cluster.local(0, 6, Command::Backup("a".to_owned()));
    cluster.run(20);
    cluster.give(0, Some(Event::Left { client: 5 }));
    cluster.give(0, Some(Event::Left { client: 6 }));
    breaks(&mut cluster, None);
    cluster.local(0, 7, policy("bb"));
    cluster.run_until(100, "an answer", |cluster| cluster.reply_to(7).is_some());
    assert_eq!(cluster.state().policies.keys().collect::<Vec<_>>(), ["bb"]);
    assert_eq!((cluster.reply_to(5), cluster.reply_to(6)), (None, None));

    // This node coordinates, and its store has just failed: what is not on its way is taken back.
    let holder = cluster.holder().expect("a coordinator");
    breaks(&mut cluster, Some(StoreFaultKind::Unknown));
    cluster.local(holder, 8, policy("ccc"));
    cluster.local(holder, 9, policy("dddd"));
    cluster.local(holder, 10, Command::Backup("bb".to_owned()));
    cluster.run(2);
    cluster.give(holder, Some(Event::Left { client: 9 }));
    cluster.give(holder, Some(Event::Left { client: 10 }));
    breaks(&mut cluster, None);
    cluster.run_until(60, "an answer", |cluster| cluster.reply_to(8).is_some());
    cluster.run(30);
    let state = cluster.state();
    assert_eq!(state.policies.keys().collect::<Vec<_>>(), ["bb", "ccc"]);
    assert!(state.running.is_empty() && state.points.is_empty(), "{:?}", state.running);
}

#[test]
fn a_holder_notices_that_the_store_was_emptied_behind_its_back() {
    let mut cluster = Cluster::new(&[&["a"]]);
    cluster.set_policy();
    cluster.begin_backup(0, 2);
    assert_eq!(cluster.holder(), Some(0));
    let mut keys = Vec::new();
    cluster
        .store
        .list("", "", &mut |key, _| {
            keys.push(key.to_owned());
            true
        })
        .unwrap();
    keys.iter().for_each(|key| cluster.store.delete(key).unwrap());
    let begun = cluster.now;
    cluster.run_until(30, "it to step down", |cluster| cluster.holder().is_none());
    assert!(cluster.now - begun < 15_000 * MS, "{} ms", (cluster.now - begun) / MS);
    assert!(cluster.told().iter().any(|line| line.contains("the store of the log was emptied")));
    // It does not go on in what is no log, whatever is asked for.
    cluster.local(0, 3, Command::Backup("homes".to_owned()));
    cluster.run_until(130, "an answer", |cluster| cluster.reply_to(3).is_some());
    assert!(matches!(cluster.reply_to(3), Some(Reply::Refused(why)) if why.contains("was emptied")));
    let status = cluster.status(0);
    assert!(status["coordinator"]["why"].as_str().is_some_and(|why| why.contains("was emptied")), "{status}");
}
