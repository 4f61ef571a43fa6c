//! Schedules of a cluster in which a clock is wrong.

use serde_json::Value;

use super::*;

const S: i64 = 1_000_000_000;
const DAY: i64 = 86_400 * S;
const EVERY_MS: u64 = 600_000;

/// Two nodes, the first of which has a clock that is so far ahead. Each quarter of an hour the one that leads is killed, and comes back.
fn hours(ahead_ns: i64, hours: u64) -> Cluster {
    let mut cluster = Cluster::new(&[&["a"], &["a"]]);
    cluster.piece = INODES;
    cluster.dated = true;
    // Somewhen, and not at the turn of a period.
    cluster.ahead_ns = 20_000 * DAY + 137 * S;
    cluster.node_ahead_ns = [(0, ahead_ns)].into();
    (0..2).for_each(|index| cluster.boot(index));
    one_policy_of_all(&mut cluster, EVERY_MS);
    let end = cluster.now + hours * 3_600_000 * MS;
    while cluster.now < end {
        let until = cluster.now + 900_000 * MS;
        cluster.run_until(3600, "a quarter of an hour", |cluster| cluster.now >= until);
        // The one that is wrong leads most of the time.
        let victim = cluster.holder().unwrap_or(1);
        cluster.kill(victim);
        cluster.run(5);
        cluster.boot(victim);
    }
    cluster
}

#[test]
fn a_coordinator_whose_clock_is_wrong_neither_skips_nor_fires_at_once() {
    for ahead_ns in [0, 1800 * S, -1800 * S, DAY, -DAY, 366 * DAY, -366 * DAY] {
        let cluster = hours(ahead_ns, 4);
        let points = cluster.points();
        assert!((23..=26).contains(&points), "{ahead_ns}: {points}\n{}", cluster.told().join("\n"));
        let state = cluster.state();
        let begun: Vec<i64> = state.points.values().map(|point| point.wall_ns.0).collect();
        for pair in begun.windows(2) {
            let apart = (pair[1] - pair[0]) / S;
            assert!((350..=900).contains(&apart), "{ahead_ns}: {apart} s");
        }
        let is_said = cluster.told().iter().any(|line| line.contains("the store's; schedules"));
        assert_eq!(is_said, ahead_ns != 0, "{}", cluster.told().join("\n"));
    }
}

#[test]
fn a_status_says_by_how_much_the_clock_is_wrong() {
    let mut cluster = Cluster::new(&[&["a"]]);
    cluster.dated = true;
    cluster.node_ahead_ns = [(0, 1800 * S)].into();
    let seconds = |cluster: &mut Cluster| cluster.status(0)["clock_ahead_s"].clone();
    assert_eq!(seconds(&mut cluster), Value::from(1800), "without a coordinator");
    one_policy_of_all(&mut cluster, EVERY_MS);
    assert!(cluster.holder().is_some());
    assert_eq!(seconds(&mut cluster), Value::from(1800), "and with one");
    cluster.node_ahead_ns.clear();
    cluster.run(1);
    assert_eq!(seconds(&mut cluster), Value::Null);
    let told = cluster.told().join("\n");
    assert!(told.contains("agrees with the store's again"), "{told}");
}
