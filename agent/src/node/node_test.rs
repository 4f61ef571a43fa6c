//! Nodes over a store in memory, a network that delivers, and jobs that only report: the protocol alone, without data.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use std::sync::Arc;

use super::*;
use crate::drive::node::{Ports, turn};
use crate::format::record::{BackupVolume, PolicyChange, Record, Totals};
use crate::format::slot::{Author, PlainForTests, Who};
use crate::id::Key;
use crate::id::{BackupId, Boot, ObjectId};
use crate::log::call::{Call, perform};
use crate::log::lease::Identity;
use crate::log::limits::RUNNING_MAX;
use crate::log::session::{Surroundings, open_read};
use crate::log::state::State;
use crate::log::writer::WriterOptions;
use crate::policy::retention::{Count, Retention};
use crate::policy::schedule::Schedule;
use crate::policy::{Policy, PolicyVolume, Reader};
use crate::store::StoreFaultKind;
use crate::store::memory::MemoryStore;
use crate::table::plan::Bounds;
use crate::table::segment::SegmentMeta;
use crate::work::{AssignmentId, Command, Found, Reply};
use crate::worker::backup::Progress;
use windlass_hal::sim::clock::SimClock;

const MS: u64 = 1_000_000;
const INODES: u64 = 4096;

#[path = "harness_test.rs"]
mod harness;

use harness::{Cluster, push};

#[test]
fn three_nodes_share_a_backup_and_rest() {
    let mut cluster = Cluster::new(&[&["a", "shared"], &["b", "shared"], &["shared"]]);
    cluster.set_policy();
    cluster.begin_backup(2, 2);
    cluster.run_until(300, "a point", |cluster| cluster.points() == 1);
    for (_, host) in cluster.nodes.iter().flatten() {
        assert!(host.read > 1000, "node {} read {} of {}", host.index + 1, host.read, 3 * INODES);
        let told: Vec<u32> = host.divided.iter().map(|(_, nodes)| *nodes).collect();
        assert!(told.contains(&3), "they divide the limits of the policy by three: {told:?}");
        assert!(told.windows(2).all(|two| two[0] != two[1]), "no number twice: {told:?}");
    }
    cluster.run_until(120, "rest", |cluster| cluster.holder().is_none());
    let state = cluster.state();
    let counts: Vec<usize> = state.segments.values().map(|list| list.len()).collect();
    assert!(counts.iter().all(|&count| (1..4).contains(&count)), "tables in order at rest: {counts:?}");
    assert!(state.retired.len() as u64 > INODES / 64, "workers made one with each report");
    let epochs = state.epoch;
    // Rested: the node that has work next takes it, without a wait.
    let before = cluster.now;
    cluster.begin_backup(1, 3);
    assert!(cluster.now - before < 5_000 * MS, "{} ms", (cluster.now - before) / MS);
    assert_eq!(cluster.state().epoch.0, epochs.0 + 1);
    cluster.run_until(300, "a second point", |cluster| cluster.points() == 2);
}

#[test]
fn an_idle_cluster_rests_while_its_status_is_asked_for() {
    let mut cluster = Cluster::new(&[&["a"], &["b"]]);
    cluster.set_policy();
    cluster.poll_status(70);
    assert_eq!(cluster.holder(), None, "{:?}", cluster.told());
    let calls = cluster.calls();
    cluster.poll_status(120);
    assert_eq!((cluster.holder(), cluster.calls()), (None, calls), "{:?}", cluster.told());
}

#[test]
fn a_killed_coordinator_is_followed_and_the_backup_ends() {
    let mut cluster = Cluster::new(&[&["a", "shared"], &["b", "shared"], &["shared"]]);
    cluster.set_policy();
    cluster.begin_backup(0, 2);
    cluster.run_until(60, "some of it", |cluster| {
        cluster.state().running.values().any(|running| running.totals.items > 1000)
    });
    let victim = cluster.holder().expect("a coordinator");
    let lost = cluster.now;
    let head = cluster.state().epoch;
    cluster.kill(victim);
    cluster.run_until(60, "another coordinator", |cluster| cluster.state().epoch > head);
    let timing = WriterOptions::default().timing;
    assert!(cluster.now - lost < 2 * timing.lease_ns + 2000 * MS, "{} ms", (cluster.now - lost) / MS);
    cluster.run_until(60, "commits", |cluster| {
        cluster.state().running.values().any(|running| running.totals.items > 2000)
    });
    cluster.boot(victim);
    cluster.run_until(300, "a point", |cluster| cluster.points() == 1);
    let items = cluster.state().points[&BackupId(1)].totals.items;
    assert!(items >= 3 * INODES, "{items}");
}

#[test]
fn a_moved_lease_needs_no_wait_and_work_goes_on() {
    let mut cluster = Cluster::new(&[&["a"], &["b"], &["c"]]);
    cluster.set_policy();
    cluster.begin_backup(0, 2);
    let from = cluster.holder().expect("a coordinator");
    let to = (from + 1) % 3;
    cluster.local(from, 3, Command::Move(NodeId(to as u32 + 1)));
    let before = cluster.now;
    cluster.run_until(10, "the move", |cluster| cluster.holder() == Some(to));
    assert!(cluster.now - before < 1500 * MS, "{} ms", (cluster.now - before) / MS);
    cluster.run_until(300, "a point", |cluster| cluster.points() == 1);
}

#[test]
fn a_flush_reaches_every_worker_once_and_comes_before_a_move_of_the_lease() {
    let mut cluster = Cluster::new(&[&["a"], &["b"], &["c"]]);
    cluster.set_policy();
    cluster.begin_backup(0, 2);
    cluster
        .run_until(60, "work", |cluster| cluster.nodes.iter().flatten().all(|(_, host)| host.job.is_some()));
    let flushed = |cluster: &Cluster| -> Vec<u32> {
        cluster.nodes.iter().flatten().map(|(_, host)| host.flushed).collect()
    };
    cluster.local(1, 3, Command::Flush);
    cluster.run_until(10, "the answer", |cluster| cluster.reply_to(3).is_some());
    assert_eq!((cluster.reply_to(3), flushed(&cluster)), (Some(Reply::Done(None)), vec![1, 1, 1]));
    let from = cluster.holder().expect("a coordinator");
    let to = (from + 1) % 3;
    cluster.local(from, 4, Command::Move(NodeId(to as u32 + 1)));
    cluster.run_until(10, "the move", |cluster| cluster.holder() == Some(to));
    assert_eq!((cluster.reply_to(4), flushed(&cluster)), (Some(Reply::Done(None)), vec![2, 2, 2]));
    cluster.run_until(300, "a point", |cluster| cluster.points() == 1);
    // With nothing at work it is done at once.
    cluster.local(0, 5, Command::Flush);
    cluster.run_until(60, "the answer", |cluster| cluster.reply_to(5).is_some());
    assert_eq!((cluster.reply_to(5), flushed(&cluster)), (Some(Reply::Done(None)), vec![2, 2, 2]));
}

#[test]
fn a_flush_that_a_node_cannot_do_in_time_says_which() {
    let mut cluster = Cluster::new(&[&["a"], &["b"]]);
    cluster.set_policy();
    cluster.begin_backup(0, 2);
    cluster
        .run_until(60, "work", |cluster| cluster.nodes.iter().flatten().all(|(_, host)| host.job.is_some()));
    cluster.nodes[1].as_mut().expect("it lives").1.deaf = true;
    cluster.local(0, 3, Command::Flush);
    cluster.run_until(130, "the answer", |cluster| cluster.reply_to(3).is_some());
    assert!(
        matches!(cluster.reply_to(3), Some(Reply::Refused(why)) if why.starts_with("node 2 did not answer"))
    );
}

#[test]
fn a_cut_off_coordinator_neither_commits_twice_nor_stops_the_others() {
    let mut cluster = Cluster::new(&[&["shared"], &["shared"], &["shared"]]);
    cluster.set_policy();
    cluster.begin_backup(0, 2);
    let holder = cluster.holder().expect("a coordinator");
    for other in (0..3).filter(|&other| other != holder) {
        cluster.cut.borrow_mut().extend([(holder, other), (other, holder)]);
        push(&cluster.queue, cluster.now + MS, other, 0, Event::Down(NodeId(holder as u32 + 1)));
        push(&cluster.queue, cluster.now + MS, holder, 0, Event::Down(NodeId(other as u32 + 1)));
    }
    cluster.run_until(600, "a point", |cluster| cluster.points() == 1);
}

/// An hour of two nodes with a policy that is due each ten minutes.
fn an_hour_by_schedule(retention: Retention) -> Cluster {
    let mut cluster = Cluster::new(&[&["a"], &["b"]]);
    let volumes = ["a", "b"].map(|device| PolicyVolume { device: device.to_owned(), reader: Reader::Auto });
    let mut policy = Policy { retention, ..Policy::new("homes", volumes.to_vec()) };
    policy.schedule = Some(Schedule::every(600_000));
    let change = PolicyChange {
        name: "homes".to_owned(),
        revision: 1,
        body: policy.emit().unwrap(),
        volumes: vec![(VolumeId(1), "a".to_owned()), (VolumeId(2), "b".to_owned())],
    };
    cluster.local(0, 1, Command::Submit(vec![Record::PolicyChanged(change)]));
    cluster.run_until(4000, "an hour", |cluster| cluster.now > 3_590_000 * MS);
    assert_eq!(cluster.holder(), None);
    cluster
}

#[test]
fn backups_come_by_schedule_once_each_and_nobody_holds_the_lease_in_between() {
    let cluster = an_hour_by_schedule(Retention::default());
    let state = cluster.state();
    // One at once, and one at each multiple of ten minutes before the hour.
    assert_eq!(state.points.len(), 6, "{}", cluster.told().join("\n"));
    assert!(state.epoch.0 <= 7, "the lease went round {} times\n{}", state.epoch, cluster.told().join("\n"));
}

#[test]
fn each_backup_expires_what_the_rules_of_its_policy_keep_no_more() {
    let cluster = an_hour_by_schedule(Retention { last: Count::Newest(2), ..Retention::default() });
    let state = cluster.state();
    let left: Vec<u32> = state.points.keys().map(|backup| backup.0).collect();
    assert_eq!(left, [5, 6], "{}", cluster.told().join("\n"));
    assert_eq!(state.last_backup.0, 6);
}

/// Sets as many policies as there are volumes, each over one of them.
fn one_policy_each(cluster: &mut Cluster, schedule: Option<Schedule>) -> Vec<String> {
    let devices: BTreeSet<String> = cluster.volumes.iter().flatten().cloned().collect();
    let named = |device: &String| {
        let volume = PolicyVolume { device: device.clone(), reader: Reader::Auto };
        Policy { schedule: schedule.clone(), ..Policy::new(device, vec![volume]) }
    };
    let policies: Vec<Policy> = devices.iter().map(named).collect();
    let changes = policies.iter().zip(1..).map(|(policy, volume)| {
        let volumes = vec![(VolumeId(volume), policy.name.clone())];
        let (name, body) = (policy.name.clone(), policy.emit().unwrap());
        Record::PolicyChanged(PolicyChange { name, revision: 1, body, volumes })
    });
    cluster.local(0, 1, Command::Submit(changes.collect()));
    cluster.run_until(60, "policies", |cluster| cluster.reply_to(1).is_some());
    assert_eq!(cluster.reply_to(1), Some(Reply::Done(None)));
    devices.into_iter().collect()
}

/// As the node that knows most sees it.
fn points_of(cluster: &Cluster, policies: &[String]) -> Vec<usize> {
    let views = cluster.nodes.iter().flatten().map(|(node, _)| node.view());
    let Some(view) = views.max_by_key(|view| view.head) else { return Vec::new() };
    let of = |name: &String| view.state.points.values().filter(|point| point.policy == *name).count();
    policies.iter().map(of).collect()
}

/// Points of six policies after six minutes, each due every minute, by nodes that report so many inodes at a time.
fn six_every_minute(piece: u64) -> Vec<usize> {
    let all = ["a", "b", "c", "d", "e", "f"];
    let mut cluster = Cluster::new(&[&all, &all]);
    cluster.piece = piece;
    (0..2).for_each(|index| cluster.boot(index));
    let schedule = Schedule::every(60_000);
    let policies = one_policy_each(&mut cluster, Some(schedule));
    cluster.run_until(400, "six minutes", |cluster| cluster.now > 358_000 * MS);
    points_of(&cluster, &policies)
}

#[test]
fn policies_that_are_due_at_one_moment_get_equally_many_points() {
    // By nodes that have time for it, and by nodes that have not.
    for (piece, least) in [(INODES, 4), (64, 1)] {
        let points = six_every_minute(piece);
        let (fewest, most) = (points.iter().min().copied(), points.iter().max().copied());
        let even = fewest.zip(most).is_some_and(|(fewest, most)| fewest >= least && most - fewest <= 1);
        assert!(even, "{points:?}");
    }
}

#[test]
fn more_clients_than_backups_may_run_all_get_their_point() {
    let names: Vec<String> = (0..RUNNING_MAX + 4).map(|number| format!("v{number:02}")).collect();
    let all: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut cluster = Cluster::new(&[&all, &all]);
    cluster.piece = INODES;
    (0..2).for_each(|index| cluster.boot(index));
    let policies = one_policy_each(&mut cluster, None);
    for (client, policy) in (100..).zip(&policies) {
        cluster.local(client as usize % 2, client, Command::Backup(policy.clone()));
    }
    let clients = 100..100 + policies.len() as u64;
    cluster.run_until(60, "answers", |c| clients.clone().all(|client| c.reply_to(client).is_some()));
    let begun: Vec<Option<BackupId>> = clients
        .filter_map(|client| match cluster.reply_to(client) {
            Some(Reply::Done(begun)) => Some(begun),
            _ => None,
        })
        .collect();
    assert_eq!(begun.len(), policies.len(), "none is refused");
    assert_eq!(begun.iter().flatten().collect::<BTreeSet<_>>().len(), RUNNING_MAX, "{begun:?}");
    cluster.run_until(900, "their points", |cluster| points_of(cluster, &policies).iter().all(|&n| n == 1));
}

/// A backup under way over volumes of both nodes, and one of which dies for good; what is left to read.
fn one_of_two_dies(victim_coordinates: bool) -> Cluster {
    let mut cluster = Cluster::new(&[&["shared"], &["shared"]]);
    let schedule = Schedule::every(600_000);
    one_policy_each(&mut cluster, Some(schedule));
    cluster.run_until(60, "some of it", |cluster| {
        cluster.state().running.values().any(|running| running.totals.items > 500)
    });
    let holder = cluster.holder().expect("a coordinator");
    cluster.kill(if victim_coordinates { holder } else { 1 - holder });
    cluster
}

#[test]
fn a_cluster_of_two_of_which_one_died_works_for_good() {
    for victim_coordinates in [false, true] {
        let mut cluster = one_of_two_dies(victim_coordinates);
        let (died, lease) = (cluster.now, WriterOptions::default().timing.lease_ns);
        let items = |cluster: &Cluster| cluster.state().running.values().map(|r| r.totals.items).sum::<u64>();
        let before = items(&cluster);
        cluster.run_until(60, "work", |cluster| items(cluster) > before + 100 || cluster.points() == 1);
        assert!(cluster.now - died < 2 * lease + 5_000 * MS, "{} ms", (cluster.now - died) / MS);
        cluster.run_until(300, "the point", |cluster| cluster.points() == 1);
        let left = usize::from(cluster.nodes[0].is_none());
        // Hours later, after as many pauses: commands and schedules.
        cluster.run_until(7200, "two hours", |cluster| cluster.now > 7_190_000 * MS);
        assert!(cluster.points() >= 12, "{} points\n{}", cluster.points(), cluster.told().join("\n"));
        let before = cluster.now;
        cluster.local(left, 9, Command::Backup("shared".to_owned()));
        cluster.run_until(60, "an answer", |cluster| cluster.reply_to(9).is_some());
        assert!(matches!(cluster.reply_to(9), Some(Reply::Done(Some(_)))), "{:?}", cluster.reply_to(9));
        assert!(cluster.now - before < 2 * lease, "{} ms", (cluster.now - before) / MS);
    }
}

#[test]
fn a_node_that_boots_alone_goes_on_with_what_it_can_read_and_rests_beside_the_rest() {
    let mut cluster = Cluster::new(&[&["shared"], &["shared", "b"]]);
    cluster.set_policy();
    cluster.begin_backup(0, 2);
    cluster.run_until(60, "some of it", |cluster| {
        cluster.state().running.values().any(|running| running.totals.items > 500)
    });
    // A power failure of both; one comes back.
    cluster.kill(0);
    cluster.kill(1);
    cluster.boot(0);
    let whole = |cluster: &Cluster| {
        let state = cluster.state();
        let shared = state.volumes.iter().find(|(_, volume)| volume.device == "shared").map(|(id, _)| *id);
        state.running.values().any(|running| shared.is_some_and(|id| running.done.is_whole(id)))
    };
    cluster.run_until(200, "all that it can read", whole);
    cluster.run_until(60, "rest beside what only the other can do", |cluster| cluster.holder().is_none());
    let epoch = cluster.state().epoch.0;
    let until = cluster.now + 6 * 3_600_000 * MS;
    cluster.run_until(8 * 3600, "six hours", |cluster| cluster.now >= until);
    let looks = cluster.state().epoch.0 - epoch;
    assert!((6..=16).contains(&looks), "it looks again now and then: {looks} times");
    let before = cluster.now;
    cluster.boot(1);
    cluster.run_until(200, "the point", |cluster| cluster.points() == 1);
    assert!(cluster.now - before < 120_000 * MS, "{} ms", (cluster.now - before) / MS);
}

#[test]
fn schedules_go_on_after_all_nodes_were_off() {
    for (nodes, at_rest) in [(1, true), (1, false), (2, true), (2, false)] {
        let all: [&[&str]; 2] = [&["a"], &["a"]];
        let mut cluster = Cluster::new(&all[..nodes]);
        cluster.piece = INODES;
        (0..nodes).for_each(|index| cluster.boot(index));
        one_policy_each(&mut cluster, Some(Schedule::every(600_000)));
        cluster.run_until(900, "a point", |cluster| cluster.points() > 0);
        if at_rest {
            cluster.run_until(300, "rest", |cluster| cluster.holder().is_none());
        }
        (0..nodes).for_each(|index| cluster.kill(index));
        (0..nodes).for_each(|index| cluster.boot(index));
        let (before, end) = (cluster.points(), cluster.now + 3_600_000 * MS);
        cluster.run_until(4300, "an hour", |cluster| cluster.now >= end);
        let points = cluster.points() - before;
        assert!((5..=8).contains(&points), "{points} of {nodes}\n{}", cluster.told().join("\n"));
    }
}

/// Sets a policy over all volumes, due every so many milliseconds.
fn one_policy_of_all(cluster: &mut Cluster, every: u64) {
    let all: BTreeSet<String> = cluster.volumes.iter().flatten().cloned().collect();
    let volume = |device: &String| PolicyVolume { device: device.clone(), reader: Reader::Auto };
    let schedule = Some(Schedule::every(every));
    let body = Policy { schedule, ..Policy::new("homes", all.iter().map(volume).collect()) }.emit().unwrap();
    let volumes = all.into_iter().zip(1..).map(|(device, id)| (VolumeId(id), device)).collect();
    let change = PolicyChange { name: "homes".to_owned(), revision: 1, body, volumes };
    cluster.local(0, 1, Command::Submit(vec![Record::PolicyChanged(change)]));
    cluster.run_until(60, "a policy", |cluster| cluster.reply_to(1) == Some(Reply::Done(None)));
}

#[test]
fn a_volume_of_a_node_that_died_keeps_no_points_from_the_other_volumes() {
    for peers in [2, 3] {
        let all: [&[&str]; 3] = [&["a"], &["b"], &[]];
        let mut cluster = Cluster::new(&all[..peers]);
        one_policy_of_all(&mut cluster, 600_000);
        cluster.run_until(60, "some of it", |cluster| {
            cluster.state().running.values().any(|running| running.totals.items > 500)
        });
        assert_eq!(cluster.points(), 0);
        cluster.kill(1);
        let (before, end) = (cluster.state().epoch.0, cluster.now + 3_600_000 * MS);
        cluster.run_until(4300, "an hour", |cluster| cluster.now >= end);
        let state = cluster.state();
        let told = cluster.told().join("\n");
        assert!(state.points.len() >= 5, "{} points of {peers}\n{told}", state.points.len());
        let b = state.volumes.iter().find(|(_, volume)| volume.device == "b").map(|(id, _)| *id);
        assert!(state.points.values().all(|point| point.missing.iter().copied().eq(b)), "all say so");
        assert!(state.epoch.0 - before <= 16, "{} epochs of {peers}\n{told}", state.epoch.0 - before);
        // Back again, the volume is in the next point.
        cluster.boot(1);
        let whole = |cluster: &Cluster| {
            let points =
                cluster.nodes.iter().flatten().flat_map(|(node, _)| node.view().state.points.values());
            points.into_iter().any(|point| point.missing.is_empty())
        };
        cluster.run_until(1300, "a whole point", whole);
    }
}

#[test]
fn whoever_asks_again_gets_a_point_without_the_volume_that_nobody_can_open() {
    let mut cluster = Cluster::new(&[&["a"], &["b"]]);
    cluster.set_policy();
    cluster.begin_backup(0, 2);
    cluster.run_until(60, "some of it", |cluster| {
        cluster.state().running.values().any(|running| running.totals.items > 500)
    });
    cluster.kill(1);
    let a_is_done = |cluster: &Cluster| {
        let running = cluster.state().running.into_values().next();
        running.is_some_and(|running| running.done.is_whole(VolumeId(1)))
    };
    cluster.run_until(200, "all that it can read", a_is_done);
    // At once the backup that waits is the answer: the node may be starting.
    cluster.begin_backup(0, 3);
    let (mut client, until) = (4, cluster.now + 400_000 * MS);
    while cluster.points() == 0 && cluster.now < until {
        cluster.begin_backup(0, client);
        client += 1;
        let next = cluster.now + 20_000 * MS;
        cluster.run_until(30, "a while", |cluster| cluster.now >= next);
    }
    let state = cluster.state();
    assert_eq!(state.points.values().map(|point| point.missing.clone()).collect::<Vec<_>>(), [[VolumeId(2)]]);
}

#[test]
fn a_backup_that_cannot_begin_is_tried_again_later_and_later_and_the_cluster_rests() {
    let mut cluster = Cluster::new(&[&["a"], &["b"]]);
    let volume = PolicyVolume { device: "gone".to_owned(), reader: Reader::Auto };
    let schedule = Some(Schedule::every(60_000));
    let body = Policy { schedule, ..Policy::new("homes", vec![volume]) }.emit().unwrap();
    let volumes = vec![(VolumeId(1), "gone".to_owned())];
    let change = PolicyChange { name: "homes".to_owned(), revision: 1, body, volumes };
    cluster.local(0, 1, Command::Submit(vec![Record::PolicyChanged(change)]));
    cluster.run_until(6 * 3600, "five hours", |cluster| cluster.now > 5 * 3_600_000 * MS);
    let state = cluster.state();
    // After 1, 2, 4, 8, 16, 32 minutes, and each hour.
    assert!((8..=13).contains(&state.epoch.0), "{} epochs\n{}", state.epoch, cluster.told().join("\n"));
    let tried = &state.tried["homes"];
    assert!(tried.failures > 6 && tried.why.contains("\"gone\" in its board profile"), "{tried:?}");
    assert_eq!(cluster.holder(), None);
    cluster.local(1, 2, Command::Status);
    cluster.run_until(60, "an answer", |cluster| cluster.reply_to(2).is_some());
    assert!(matches!(cluster.reply_to(2), Some(Reply::Status(json)) if json.contains("tried again 60 min")));
    // A node has it: it begins at the next try, and is tried as planned from then on.
    cluster.volumes[1].push("gone".to_owned());
    cluster.kill(1);
    cluster.boot(1);
    cluster.run_until(4000, "a point", |cluster| cluster.points() > 0);
    assert!(cluster.state().tried.is_empty());
}

#[test]
fn clocks_that_are_wrong_neither_stop_a_schedule_nor_repeat_it() {
    const DAY: i64 = 86_400_000_000_000;
    for wrong in [30 * 60_000_000_000, DAY, 366 * DAY, -30 * 60_000_000_000, -366 * DAY] {
        let mut cluster = Cluster::new(&[&["a"], &["a"]]);
        cluster.piece = INODES;
        cluster.ahead_ns = 1000 * DAY;
        (0..2).for_each(|index| cluster.boot(index));
        one_policy_each(&mut cluster, Some(Schedule::every(600_000)));
        let hour = |hours: u64| move |cluster: &Cluster| cluster.now >= hours * 3_600_000 * MS;
        for (hours, ahead) in (1..).zip([wrong, 0, wrong, 0]) {
            cluster.run_until(8000, "an hour", hour(hours));
            cluster.ahead_ns = 1000 * DAY + ahead;
        }
        cluster.run_until(8000, "the last hour", hour(5));
        let points = cluster.points();
        assert!(
            (22..=36).contains(&points),
            "{points} in five hours, {wrong}\n{}",
            cluster.told().join("\n")
        );
    }
}

#[test]
fn a_policy_that_is_removed_leaves_no_backup_behind() {
    let mut cluster = Cluster::new(&[&["a", "shared"], &["b", "shared"]]);
    cluster.set_policy();
    cluster.begin_backup(0, 2);
    cluster.run_until(60, "some of it", |cluster| {
        cluster.state().running.values().any(|running| running.totals.items > 500)
    });
    let removal = Record::PolicyRemoved { name: "homes".to_owned(), revision: 2 };
    cluster.local(1, 3, Command::Submit(vec![removal]));
    cluster.run_until(60, "the removal", |cluster| cluster.reply_to(3).is_some());
    assert_eq!(cluster.reply_to(3), Some(Reply::Done(None)));
    assert_eq!((cluster.state().running.len(), cluster.points()), (0, 0));
    cluster.run_until(120, "rest", |cluster| cluster.holder().is_none());
    assert!(cluster.nodes.iter().flatten().all(|(_, host)| host.job.is_none()), "nobody works on it");
    assert_eq!(cluster.points(), 0);
}

#[test]
fn a_command_that_nobody_can_do_is_refused_with_a_reason() {
    let mut cluster = Cluster::new(&[&["a"], &["b"]]);
    cluster.local(0, 1, Command::Backup("nothing".to_owned()));
    cluster.run_until(60, "an answer", |cluster| cluster.reply_to(1).is_some());
    assert!(matches!(cluster.reply_to(1), Some(Reply::Refused(why)) if why.contains("policy set nothing")));
    cluster.local(0, 2, Command::Status);
    cluster.run_until(60, "an answer", |cluster| cluster.reply_to(2).is_some());
    assert!(matches!(cluster.reply_to(2), Some(Reply::Status(json)) if json.contains("\"coordinator\"")));
}

#[test]
fn a_job_that_waits_for_the_log_has_it_read_at_once() {
    let me = Author { node: NodeId(1), boot: Boot(1) };
    let config = Config {
        identity: Identity { cluster: [9; 16], me, who: Who::default() },
        peers: vec![NodeId(2)],
        sealer: PlainForTests,
        options: WriterOptions::default(),
        present: Present::default(),
        merges: Bounds { run: 4, ..Bounds::default() },
        room: Default::default(),
        rest_ns: 60_000 * MS,
        request_ns: 120_000 * MS,
        seed: [1; 32],
    };
    let (mut node, store) = (Node::new(0, config), MemoryStore::default());
    let calls = |node: &mut Node<PlainForTests>| -> Vec<_> {
        let actions = std::iter::from_fn(|| node.next_action());
        actions
            .filter_map(
                |action| if let Action::Call(ticket, call) = action { Some((ticket, call)) } else { None },
            )
            .collect()
    };
    // The first read of the log, which is empty.
    node.wake(0, 0);
    loop {
        let asked = calls(&mut node);
        if asked.is_empty() {
            break;
        }
        for (ticket, call) in asked {
            node.handle(0, 0, Event::Answered(ticket, perform(&store, &call).0));
        }
    }
    let id = AssignmentId { epoch: Epoch(1), number: 1 };
    let message = Message::Assign(Assignment { id, to: (64, 0), ..Assignment::default() });
    node.handle(0, 0, Event::Received { from: NodeId(2), epoch: Epoch(1), slot: Slot(3), message });
    let asked = calls(&mut node);
    assert!(
        matches!(&asked[..], [(_, Call::Last { .. }), ..]),
        "it would wait for whatever comes next: {asked:?}"
    );
}

#[path = "health_test.rs"]
mod health_test;

#[path = "wait_test.rs"]
mod wait_test;

#[path = "clock_test.rs"]
mod clock_test;
