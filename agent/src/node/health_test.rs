//! What a status says while no node coordinates.

use std::time::Duration;

use serde_json::{Value, json};

use super::*;
use crate::backplane::reason::Reason;
use crate::coordinator::Contact;
use crate::format::slot::HolderKind;
use crate::log::session::Session;

impl Cluster {
    /// What a node says of the cluster.
    pub(super) fn status(&mut self, index: usize) -> Value {
        let client = self.now + 7 + 1000 * index as u64;
        self.local(index, client, Command::Status);
        self.run_until(1, "the status", |cluster| cluster.reply_to(client).is_some());
        let Some(Reply::Status(json)) = self.reply_to(client) else { panic!("{:?}", self.reply_to(client)) };
        serde_json::from_str(&json).expect("it is JSON")
    }
}

/// Why no node coordinates, as a status says it.
fn why(status: &Value) -> &str {
    assert_eq!(status["coordinator"]["node"], Value::Null, "{status}");
    status["coordinator"]["why"].as_str().unwrap_or("")
}

#[test]
fn the_status_is_for_those_who_have_the_key_or_a_role() {
    let mut cluster = Cluster::new(&[&["a"], &["b"]]);
    let ask = |cluster: &mut Cluster, client: u64, subject: &str| {
        let command = Command::As { subject: subject.to_owned(), command: Box::new(Command::Status) };
        cluster.local(0, client, command);
        cluster.run_until(60, "the status", |cluster| cluster.reply_to(client).is_some());
        cluster.reply_to(client)
    };
    // Also while no node coordinates.
    for client in [11, 13] {
        let own = ask(&mut cluster, client, "uid:0,gid:0,owner");
        assert!(matches!(own, Some(Reply::Status(_))), "{own:?}");
        let other = ask(&mut cluster, client + 1, "uid:7,gid:7");
        assert!(matches!(&other, Some(Reply::Refused(why)) if why.contains("the role viewer")), "{other:?}");
        if client == 11 {
            cluster.set_policy();
        }
    }
}

#[test]
fn an_outage_of_the_store_is_named_with_its_begin_and_its_words() {
    let mut cluster = Cluster::new(&[&["a"], &["b"]]);
    cluster.set_policy();
    let begun = cluster.now as i64;
    let breaks = |cluster: &mut Cluster, kind| {
        cluster.nodes.iter_mut().flatten().for_each(|(_, host)| host.broken = kind);
    };
    breaks(&mut cluster, Some(StoreFaultKind::Unknown));
    cluster.local(0, 2, Command::Backup("homes".to_owned()));
    cluster.run(45);
    for index in 0..2 {
        cluster.nodes[index]
            .as_mut()
            .expect("it lives")
            .0
            .store_said("GET log/1: etcd-1 is silent".to_owned());
        cluster.run(10);
        let status = cluster.status(index);
        assert!(why(&status).contains("no clear answer from the store"), "{status}");
        let since = status["coordinator"]["since_wall_ns"].as_i64().expect("since when");
        assert!(since > begun && since < begun + 30_000 * MS as i64, "{since}");
        assert_eq!(status["store"]["why"].as_str().map(|text| text.is_empty()), Some(false), "{status}");
        // Each is there itself.
        assert_eq!(status["nodes"][0]["node"], json!(index + 1), "{status}");
        assert_eq!(status["nodes"][0]["up"], json!(true), "{status}");
    }
    // A store that says why is believed, also when it says it to a claim only.
    breaks(&mut cluster, Some(StoreFaultKind::Full));
    cluster.run(20);
    assert!(why(&cluster.status(0)).contains("no space left"), "{}", cluster.status(0));
    breaks(&mut cluster, None);
    cluster.run_until(300, "a point", |cluster| cluster.points() == 1);
    assert_ne!(cluster.status(0)["coordinator"]["node"], Value::Null);
}

#[test]
fn a_store_that_fails_is_in_the_status_before_the_lease_runs_out() {
    let mut cluster = Cluster::new(&[&["a"], &["b"]]);
    cluster.set_policy();
    let holder = cluster.holder().expect("a coordinator");
    assert_eq!(cluster.status(holder)["store"], Value::Null);
    let begun = cluster.now as i64;
    for (kind, words) in
        [(StoreFaultKind::Unknown, "no clear answer"), (StoreFaultKind::Full, "no space left")]
    {
        cluster.nodes.iter_mut().flatten().for_each(|(_, host)| host.broken = Some(kind));
        cluster.run(5);
        let status = cluster.status(holder);
        assert_eq!(status["coordinator"]["node"], json!(holder + 1), "{status}");
        assert!(status["store"]["why"].as_str().expect("it is named").contains(words), "{status}");
        let since = status["store"]["since_wall_ns"].as_i64().expect("since when");
        assert!(since >= begun && since < begun + 5_000 * MS as i64, "{since} {begun}");
        // Its peer, which is asked nothing of the store, gets that from it.
        assert_eq!(cluster.status(1 - holder)["store"]["why"], status["store"]["why"]);
    }
    cluster.nodes.iter_mut().flatten().for_each(|(_, host)| host.broken = None);
    cluster.run(5);
    assert_eq!(cluster.status(holder)["store"], Value::Null);
}

#[test]
fn since_when_no_node_coordinates_is_when_that_was_known() {
    // Its own clock is behind the store's by less than counts, and by more.
    for ahead in [0, -20_000 * MS as i64, -3_600_000 * MS as i64] {
        let mut cluster = Cluster::new(&[&["shared"], &["shared"], &["shared"]]);
        cluster.dated = true;
        cluster.set_policy();
        cluster.begin_backup(0, 2);
        let holder = cluster.holder().expect("a coordinator");
        let other = usize::from(holder == 0);
        cluster.node_ahead_ns.insert(other, ahead);
        cluster.run(7);
        let killed = cluster.now as i64 + ahead;
        cluster.kill(holder);
        cluster.run(3);
        let status = cluster.status(other);
        assert!(!why(&status).is_empty());
        let since = status["coordinator"]["since_wall_ns"].as_i64().expect("since when");
        assert!((killed..killed + 1_000 * MS as i64).contains(&since), "{} ms", (since - killed) / MS as i64);
        // What it knows of the backup it read before.
        assert!(status["age_s"].as_u64().is_some_and(|age| age >= 3), "{status}");
    }
}

#[test]
fn a_machine_with_this_nodes_number_that_was_met_is_named_for_a_while() {
    let mut cluster = Cluster::new(&[&["a"], &["b"]]);
    cluster.set_policy();
    let holder = cluster.holder().expect("a coordinator");
    for index in [holder, 1 - holder] {
        let now = cluster.now;
        let node = &mut cluster.nodes[index].as_mut().expect("it lives").0;
        node.meet_namesake(now, "it is at host-9:7400".to_owned());
    }
    cluster.run(3);
    let (own, other) = (cluster.status(holder), cluster.status(1 - holder));
    for text in [&own["nodes"][holder]["why"], &other["here"]["namesake"]] {
        let text = text.as_str().expect("it is named");
        assert!(
            text.contains("another machine has this node's number (it is at host-9:7400, 3 s ago)"),
            "{text}"
        );
    }
    assert_eq!(own["here"], Value::Null);
    cluster.run(900);
    let status = cluster.status(1 - holder);
    assert!(!status.to_string().contains("another machine"), "{status}");
}

#[test]
fn a_node_that_is_cut_off_says_who_works_and_why_it_does_not_reach_it() {
    let mut cluster = Cluster::new(&[&["shared"], &["shared"]]);
    cluster.set_policy();
    cluster.begin_backup(0, 2);
    let holder = cluster.holder().expect("a coordinator");
    let other = 1 - holder;
    let peer = NodeId(holder as u32 + 1);
    cluster.cut.borrow_mut().extend([(holder, other), (other, holder)]);
    push(&cluster.queue, cluster.now + MS, other, 0, Event::Down(peer));
    push(&cluster.queue, cluster.now + MS, holder, 0, Event::Down(NodeId(other as u32 + 1)));
    let contact = Contact {
        up: false,
        since_ns: cluster.now as i64,
        why: Some(Reason::Unreachable),
        twins: None,
        twins_since_ns: None,
        nameless: None,
    };
    cluster.nodes[other].as_mut().expect("it lives").0.set_contact(peer, contact);
    cluster.run(6);
    let status = cluster.status(other);
    let seen = &status["nodes"][holder];
    assert_eq!((&seen["state"], &seen["up"]), (&json!("down"), &json!(false)), "{status}");
    assert_eq!(seen["why"], json!(Reason::Unreachable.to_string()));
    for text in [format!("node {peer}"), Reason::Unreachable.to_string()] {
        assert!(why(&status).contains(&text), "{text}: {status}");
    }
    // It watches the other's beats: that one still runs.
    cluster.step_ms = 3000;
    cluster.run(20);
    let status = cluster.status(other);
    assert!(why(&status).contains("still runs"), "{status}");
}

#[test]
fn another_machine_with_this_nodes_number_is_named() {
    let mut first = Cluster::new(&[&["a"]]);
    first.set_policy();
    let mut second = Cluster::new(&[&["a"]]);
    second.kill(0);
    (second.store, second.boots, second.now) = (Rc::clone(&first.store), 100, first.now);
    second.queue.borrow_mut().0.clear();
    second.boot(0);
    second.run(1);
    second.local(0, 2, Command::Backup("homes".to_owned()));
    // Until it has watched the beats, it may be its own earlier start.
    let mut said = Vec::new();
    for _ in 0..50 {
        first.poll_status(1);
        first.local(0, u64::MAX - first.now, Command::Flush);
        second.run(1);
        if second.holder().is_none() {
            let status = second.status(0);
            said.push(why(&status).to_owned());
        }
    }
    assert!(said.iter().any(|why| why.contains("this node's earlier start")), "{said:?}");
    let last = said.last().expect("it does not hold the lease");
    assert!(last.contains("another machine has this node's number, 1,"), "{said:?}");
    assert!(second.told().iter().any(|line| line.contains("another machine has this node's number")));
}

/// A command's number says nothing: an agent of the same number waits for it by its name, and takes over when it ends.
#[test]
fn a_command_is_named_and_its_clean_end_is_noticed_at_once() {
    for peers in [&[&["a"][..]][..], &[&["a"], &["a"]]] {
        let mut cluster = Cluster::new(peers);
        cluster.set_policy();
        let last = peers.len() - 1;
        cluster.run_until(200, "rest", |cluster| cluster.holder().is_none());
        // The command has the number of the node that seeks.
        let clock = SimClock::default();
        let store = Rc::clone(&cluster.store);
        let around = Surroundings { store: &*store, clock: &clock };
        let me = Author { node: NodeId(last as u32 + 1), boot: Boot(777) };
        let who = Who::new(HolderKind::Command, "box", 7);
        let identity = Identity { cluster: [9; 16], me, who };
        let options = WriterOptions::default();
        let mut session =
            Session::claim(around, None, identity, PlainForTests, options, [5; 32], |_, _| true).unwrap();
        cluster.local(last, 2, Command::Backup("homes".to_owned()));
        let told = "a windlass command on box (pid 7)";
        let mut said = BTreeSet::new();
        for _ in 0..30 {
            cluster.poll_status(1);
            clock.advance(Duration::from_secs(1));
            session.poll().unwrap();
            said.insert(why(&cluster.status(last)).to_owned());
        }
        assert!(said.iter().any(|why| why.contains(told) && why.contains("still runs")), "{said:?}");
        let wrong = |line: &String| line.contains("number") || line.contains("earlier start");
        assert!(!said.iter().any(wrong) && !cluster.told().iter().any(wrong), "{said:?}");
        session.release(None).unwrap();
        let ended = cluster.now;
        cluster.run_until(20, "a coordinator", |cluster| cluster.holder().is_some());
        assert!(cluster.now - ended < 2_000 * MS, "{} ms", (cluster.now - ended) / MS);
        cluster.run_until(60, "a point", |cluster| cluster.points() == 1);
    }
}

#[test]
fn a_backup_that_was_taken_over_is_never_said_not_to_run() {
    let mut cluster = Cluster::new(&[&["a", "shared"], &["b", "shared"], &["shared"]]);
    cluster.set_policy();
    cluster.begin_backup(0, 2);
    let victim = cluster.holder().expect("a coordinator");
    cluster.kill(victim);
    cluster.run_until(60, "another coordinator", |cluster| cluster.holder().is_some());
    let index = cluster.holder().expect("a coordinator");
    let begun = cluster.now;
    while cluster.now < begun + 12_000 * MS {
        let status = cluster.status(index);
        assert_eq!(status["backups"][0]["backup"], json!(1), "{status}");
        assert_eq!(status["queue"], json!([]));
        cluster.step();
    }
}
