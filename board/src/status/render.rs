//! A status as text: for a terminal, a serial console of 80 columns, or a log file. No escape sequences, nothing cut in the middle
//! of a character, and names printed so that they cannot drive a terminal.
//!
//! Source: ours.

use windlass_agent::node::apart_text;
use windlass_agent::units::{Grouped, Human, HumanTime};

use super::{Assignment, Backup, Garbage, Node, Status, StoreTrouble};
use crate::site_time;
use crate::text::printable;

/// Columns of a line at most: one less than a serial console has, so that it does not wrap.
pub const COLUMNS_MAX: usize = 79;
/// Numbers of this age, in seconds, are marked with it.
const OLD_S: u64 = 3;
/// Assignments of a backup that are listed; more are counted.
const ASSIGNMENTS_MAX: usize = 16;

/// The lines.
pub fn lines(status: &Status) -> Vec<String> {
    let mut out = Vec::with_capacity(32);
    coordinator(status, &mut out);
    nodes(status, &mut out);
    backups(status, &mut out);
    garbage(&status.garbage, &mut out);
    points(status, &mut out);
    errors(status, &mut out);
    out.iter_mut().for_each(cut);
    out
}

/// Shortens a line that is too wide, so that it shows that it was.
fn cut(line: &mut String) {
    if line.chars().count() > COLUMNS_MAX {
        let end = line.char_indices().nth(COLUMNS_MAX - 3).map_or(line.len(), |(at, _)| at);
        line.truncate(end);
        line.push_str("...");
    }
    line.truncate(line.trim_end().len());
}

fn name(text: &str) -> String {
    printable(text.as_bytes())
}

fn coordinator(status: &Status, out: &mut Vec<String>) {
    let asked = format!("(says node {})", status.node);
    let holder = status.coordinator.clone().unwrap_or_default();
    let left = holder.lease_left_ms.map_or_else(String::new, |ms| {
        format!(", locks the repository for {}.{} s more", ms / 1000, ms % 1000 / 100)
    });
    out.push(match holder.node {
        Some(node) => format!("COORDINATOR  node {node}{left}  {asked}"),
        None if holder.why.is_none() && status.is_cut_off() => {
            format!("COORDINATOR  none that is known: no other node is reached  {asked}")
        }
        // One of them may coordinate, and reach others.
        None if holder.why.is_none() && !unreached(status).is_empty() => {
            format!("COORDINATOR  none that is known: {} not reached  {asked}", unreached(status))
        }
        None if holder.why.is_none() => format!("COORDINATOR  none: idle, nothing to do  {asked}"),
        None => {
            let since = holder.since_wall_ns.map_or_else(String::new, |ns| format!(" since {}", when(ns)));
            format!("COORDINATOR  none{since}  {asked}")
        }
    });
    if let (None, Some(why)) = (holder.node, &holder.why) {
        wrap(&name(why), out);
    }
    let is_said = |store: &StoreTrouble| holder.why.as_ref().is_some_and(|why| why.contains(&store.why));
    if let Some(store) = status.store.as_ref().filter(|store| !is_said(store)) {
        fails(holder.node.unwrap_or(status.node), store, out);
    }
    if let Some(here) = &status.here {
        here.store.iter().for_each(|store| fails(here.node, store, out));
        here.namesake.iter().for_each(|met| wrap(&format!("node {}: {}", here.node, name(met)), out));
    }
    if let Some(ahead_s) = status.clock_ahead_s {
        let apart = apart_text(ahead_s.saturating_mul(1_000_000_000));
        let node = holder.node.unwrap_or(status.node);
        wrap(
            &format!(
                "the clock of node {node} is {apart} the store's, and schedules go by the store's: set the one that is wrong"
            ),
            out,
        );
    }
}

/// The peers that are not reached and did not stop in an orderly way, with their verb: `node 1 is`, `4 nodes are`; empty: there are none.
fn unreached(status: &Status) -> String {
    let is_lost = |node: &&Node| !node.up && node.state == "down" && node.node != status.node;
    let lost: Vec<u32> = status.nodes.iter().filter(is_lost).map(|node| node.node).collect();
    match lost[..] {
        [] => String::new(),
        [one] => format!("node {one} is"),
        _ => format!("{} nodes are", lost.len()),
    }
}

/// A store that fails a node.
fn fails(node: u32, store: &StoreTrouble, out: &mut Vec<String>) {
    let (since, why) = (when(store.since_wall_ns), name(&store.why));
    wrap(&format!("the store fails node {node} since {since}: {why}"), out);
}

fn nodes(status: &Status, out: &mut Vec<String>) {
    out.push(String::new());
    out.push("NODE  STATE    WEIGHT  LANES    MEMORY        RATE  WORK  VOLUMES".to_owned());
    for node in &status.nodes {
        let volumes: Vec<String> = node.volumes.iter().map(|volume| name(volume)).collect();
        // A node has memory: without any, it has not said what it has.
        let known = |text: String| if node.memory_bytes == 0 { "-".to_owned() } else { text };
        out.push(format!(
            "{:>4}  {:<7}  {:>6}  {:>5}  {:>8}  {:>10}  {:>4}  {}",
            node.node,
            match (node.up, node.state.as_str()) {
                (true, _) => "up",
                (false, "stopped") => "stopped",
                (false, _) => "DOWN",
            },
            known(node.weight.to_string()),
            known(node.lanes.to_string()),
            known(Human(node.memory_bytes).to_string()),
            rate(node.rate),
            node.assignments,
            volumes.join(" "),
        ));
        let since = node.since_wall_ns.map(|ns| format!("since {}", when(ns)));
        match (&node.why, since.filter(|_| !node.up || node.why.is_some())) {
            (Some(why), Some(since)) => wrap_by(8, &format!("{since}: {}", name(why)), out),
            (Some(text), None) => wrap_by(8, &name(text), out),
            (None, Some(since)) => wrap_by(8, &since, out),
            (None, None) => {}
        }
    }
    for volume in &status.volumes_missing {
        out.push(format!("NO DEVICE on this machine: {}", name(volume)));
    }
}

fn rate(bytes: u64) -> String {
    if bytes == 0 { "-".to_owned() } else { format!("{}/s", Human(bytes)) }
}

fn percent(done: u64, total: u64) -> Option<u64> {
    (total > 0).then(|| (u128::from(done.min(total)) * 100 / u128::from(total)) as u64)
}

fn clock(seconds: u64) -> String {
    format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

fn backups(status: &Status, out: &mut Vec<String>) {
    out.push(String::new());
    if let Some(age_s) = status.age_s.filter(|&age_s| age_s >= OLD_S) {
        let age = HumanTime(age_s.saturating_mul(1_000_000_000));
        wrap_by(
            0,
            &format!("Backups and points as of {age} ago, when node {} last read the log:", status.node),
            out,
        );
    }
    if status.backups.is_empty() {
        out.push("BACKUPS  none running".to_owned());
    } else {
        out.push("BACKUP  POLICY                DONE        SIZE        RATE       ETA  ITEMS".to_owned());
    }
    for backup in &status.backups {
        running(backup, &status.nodes, out);
    }
    if !status.queue.is_empty() {
        let names: Vec<String> = status.queue.iter().map(|policy| name(policy)).collect();
        out.push(format!("QUEUE    {}", names.join(" ")));
    }
}

/// What gives space back, while it does, and what is still to come back.
fn garbage(garbage: &Garbage, out: &mut Vec<String>) {
    let waits = match garbage.waiting_bytes {
        0 => String::new(),
        bytes => format!("{} still to come back", Human(bytes)),
    };
    match &garbage.phase {
        Some(phase) => {
            out.push(format!("SPACE    a run {}", name(phase)));
            let deleted = Human(garbage.run_deleted_bytes);
            let waits = if waits.is_empty() { waits } else { format!("; {waits}") };
            out.push(format!("         {deleted} returned{waits}"));
        }
        None if garbage.is_wanted => out.push("SPACE    a run is wanted".to_owned()),
        None if waits.is_empty() => {}
        None => out.push(format!("SPACE    {waits}")),
    }
}

fn running(backup: &Backup, nodes: &[Node], out: &mut Vec<String>) {
    // It runs, so something is left: the upload of what was read, or its commit.
    let done = percent(backup.bytes_done, backup.bytes_total)
        .or(percent(backup.items_done, backup.items_total))
        .map_or_else(|| "-".to_owned(), |percent| format!("{}%", percent.min(99)));
    out.push(format!(
        "{:>6}  {:<20}  {done:>4}  {:>10}  {:>10}  {:>8}  {}",
        backup.backup,
        name(&backup.policy),
        Human(backup.bytes_done).to_string(),
        rate(backup.rate),
        backup.eta_s.map_or_else(|| "-".to_owned(), clock),
        Grouped(backup.items_done),
    ));
    if let Some(waits) = &backup.waits {
        wrap_by(8, &name(waits), out);
    }
    for assignment in backup.assignments.iter().take(ASSIGNMENTS_MAX) {
        out.push(stretch(assignment, nodes));
    }
    if let Some(more) = backup.assignments.len().checked_sub(ASSIGNMENTS_MAX).filter(|&more| more > 0) {
        out.push(format!("        and {more} more"));
    }
}

/// `node 2  volume 3  inodes 1 to 4,096  47%  12 MiB/s`.
fn stretch(assignment: &Assignment, nodes: &[Node]) -> String {
    let Assignment { node, volume, from, to, done } = *assignment;
    // A stretch within one item is counted in its blocks.
    let (what, start, end, at) = if from.0 == to.0 || (to.0 == from.0 + 1 && to.1 == 0 && from.1 > 0) {
        ("blocks", from.1, to.1, done.1)
    } else {
        ("inodes", from.0, to.0, done.0)
    };
    let upto = if end == u64::MAX || end <= start { "the end".to_owned() } else { Grouped(end).to_string() };
    let part = if upto == "the end" { None } else { percent(at.saturating_sub(start), end - start) };
    let part = part.map_or_else(String::new, |part| format!("  {part}%"));
    let speed = nodes.iter().find(|known| known.node == node).map_or(0, |known| known.rate);
    let speed = if speed == 0 { String::new() } else { format!("  {}", rate(speed)) };
    format!("        node {node}  volume {volume}  {what} {} to {upto}{part}{speed}", Grouped(start))
}

fn when(wall_ns: i64) -> String {
    site_time::shown(wall_ns.div_euclid(1_000_000_000))
}

fn points(status: &Status, out: &mut Vec<String>) {
    if status.points.is_empty() {
        return;
    }
    out.push(String::new());
    out.push(" POINT  POLICY            STATE     ENDED                        SIZE  ITEMS".to_owned());
    for point in status.points.iter().rev() {
        out.push(format!(
            "{:>6}  {:<16}  {:<8}  {:<21}  {:>10}  {}",
            point.backup,
            name(&point.policy),
            match point.status.as_str() {
                "complete" => "complete",
                "damaged" => "DAMAGED",
                _ => "PARTIAL",
            },
            site_time::to_the_minute(point.wall_end_ns.div_euclid(1_000_000_000)),
            Human(point.bytes).to_string(),
            Grouped(point.items),
        ));
    }
}

fn errors(status: &Status, out: &mut Vec<String>) {
    if status.errors.is_empty() {
        return;
    }
    out.push(String::new());
    out.push("LAST ERRORS".to_owned());
    for trouble in status.errors.iter().rev() {
        let node = trouble.node.map_or_else(String::new, |node| format!("  node {node}"));
        out.push(format!("  {}{node}", when(trouble.wall_ns)));
        wrap(&name(&trouble.what), out);
    }
}

/// A sentence on as many lines as it needs, at spaces where there are any.
fn wrap(sentence: &str, out: &mut Vec<String>) {
    wrap_by(4, sentence, out);
}

/// The same, behind so many spaces.
fn wrap_by(spaces: usize, sentence: &str, out: &mut Vec<String>) {
    let (indent, width) = (" ".repeat(spaces), COLUMNS_MAX - spaces);
    let mut line = String::new();
    for word in sentence.split(' ') {
        let mut word: Vec<char> = word.chars().collect();
        if !line.is_empty() && line.chars().count() + 1 + word.len() > width {
            out.push(format!("{indent}{line}"));
            line.clear();
        }
        while word.len() > width {
            let rest = word.split_off(width);
            out.push(format!("{indent}{}", word.iter().collect::<String>()));
            word = rest;
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.extend(word);
    }
    if !line.is_empty() {
        out.push(format!("{indent}{line}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FULL: &str = r#"{"node":2,"coordinator":{"node":1,"epoch":7,"resting":false,"lease_left_ms":12345},
      "nodes":[
        {"node":1,"up":true,"boot":"00ff","weight":100,"memory_bytes":67108864,"lanes":2,"rate":125829120,"volumes":["home","lun-7"],"assignments":2},
        {"node":2,"up":false,"boot":"0100","weight":0,"memory_bytes":50331648,"lanes":1,"rate":0,"volumes":[],"assignments":0},
        {"node":3,"up":false,"state":"down","since_wall_ns":1763692800000000000,"why":"the peer's certificate is not of this cluster's CA"},
        {"node":4,"up":false,"state":"stopped","since_wall_ns":1763692800000000000}],
      "backups":[{"backup":9,"policy":"home","items_done":12345,"items_total":90000,"bytes_done":1288490188,"bytes_total":2741489762,
        "rate":125829120,"eta_s":3661,"assignments":[
          {"node":1,"volume":3,"from":[1,0],"to":[4096,0],"done":[2048,0]},
          {"node":2,"volume":4,"from":[1,1024],"to":[1,2048],"done":[1,1024]},
          {"node":1,"volume":3,"from":[4096,0],"to":[18446744073709551615,0],"done":[4096,0]}]},
        {"backup":10,"policy":"luns"}],
      "queue":["pool","more"],
      "garbage":{"is_wanted":true,"phase":"deletes what was retired","run_deleted":12,"run_deleted_bytes":2741489762,"waiting_bytes":5242880},
      "points":[{"backup":7,"policy":"home","status":"complete","items":90000,"bytes":2741489762,"wall_end_ns":1763692800000000000},
                {"backup":8,"policy":"luns","status":"with_errors","items":1,"bytes":1099511627776,"wall_end_ns":1763779200000000000}],
      "errors":[{"wall_ns":1763779201000000000,"node":2,"what":"/dev/sdb: reading at 4096 failed; the device says that the medium is damaged, replace it\u001b[2J"}],
      "of_a_later_version":{}}"#;

    const GOLDEN: &str = "\
COORDINATOR  node 1, locks the repository for 12.3 s more  (says node 2)

NODE  STATE    WEIGHT  LANES    MEMORY        RATE  WORK  VOLUMES
   1  up          100      2  64.0 MiB   120 MiB/s     2  home lun-7
   2  DOWN          0      1  48.0 MiB           -     0
   3  DOWN          -      -         -           -     0
        since 2025-11-21 02:40:00 UTC: the peer's certificate is not of this
        cluster's CA
   4  stopped       -      -         -           -     0
        since 2025-11-21 02:40:00 UTC

BACKUP  POLICY                DONE        SIZE        RATE       ETA  ITEMS
     9  home                   46%    1.20 GiB   120 MiB/s  01:01:01  12,345
        node 1  volume 3  inodes 1 to 4,096  49%  120 MiB/s
        node 2  volume 4  blocks 1,024 to 2,048  0%
        node 1  volume 3  inodes 4,096 to the end  120 MiB/s
    10  luns                     -         0 B           -         -  0
QUEUE    pool more
SPACE    a run deletes what was retired
         2.55 GiB returned; 5.00 MiB still to come back

 POINT  POLICY            STATE     ENDED                        SIZE  ITEMS
     8  luns              PARTIAL   2025-11-22 02:40 UTC     1.00 TiB  1
     7  home              complete  2025-11-21 02:40 UTC     2.55 GiB  90,000

LAST ERRORS
  2025-11-22 02:40:01 UTC  node 2
    /dev/sdb: reading at 4096 failed; the device says that the medium is
    damaged, replace it\\u{1b}[2J";

    #[test]
    fn a_full_status_reads_like_this() {
        site_time::use_utc();
        let text = lines(&Status::parse(FULL).unwrap()).join("\n");
        assert_eq!(text, GOLDEN, "\n{text}");
    }

    #[test]
    fn a_volume_without_its_device_does_not_look_like_a_good_one() {
        let json = r#"{"nodes":[{"node":1,"volumes":["home","lun"]}],"volumes_missing":["home (/dev/x)"]}"#;
        let text = lines(&Status::parse(json).unwrap()).join("\n");
        assert!(text.contains("home lun\nNO DEVICE on this machine: home (/dev/x)\n"), "{text}");
    }

    #[test]
    fn a_clock_that_is_wrong_is_named_with_its_node() {
        let json = r#"{"node":2,"coordinator":{"node":1,"epoch":7},"clock_ahead_s":1800}"#;
        let text = lines(&Status::parse(json).unwrap());
        let expected = [
            "    the clock of node 1 is 30 min ahead of the store's, and schedules go by the",
            "    store's: set the one that is wrong",
        ];
        assert_eq!(text[1..3], expected, "{text:?}");
        let fits = r#"{"node":2,"coordinator":{"node":1},"clock_ahead_s":null}"#;
        assert!(!lines(&Status::parse(fits).unwrap()).join("").contains("clock"));
    }

    #[test]
    fn a_store_that_fails_and_another_machine_of_this_number_are_named_beside_a_coordinator() {
        site_time::use_utc();
        let json = r#"{"node":1,"coordinator":{"node":1},"age_s":0,
            "store":{"why":"PUT beat/7: no clear answer from the store","since_wall_ns":1763692800000000000},
            "here":{"node":2,"store":{"why":"etcd is gone","since_wall_ns":1763692801000000000},"namesake":"another machine has this number"}}"#;
        let text = lines(&Status::parse(json).unwrap());
        let expected = [
            "    the store fails node 1 since 2025-11-21 02:40:00 UTC: PUT beat/7: no clear",
            "    answer from the store",
            "    the store fails node 2 since 2025-11-21 02:40:01 UTC: etcd is gone",
            "    node 2: another machine has this number",
        ];
        assert_eq!(text[1..5], expected, "{text:?}");
        // What is said as the reason is not said twice.
        let none = r#"{"node":1,"coordinator":{"node":null,"why":"the store: gone"},"store":{"why":"gone"}}"#;
        assert!(!lines(&Status::parse(none).unwrap()).join("").contains("fails"));
    }

    #[test]
    fn numbers_that_are_old_say_so_and_nothing_is_done_before_it_is() {
        let json = r#"{"node":2,"age_s":40,"backups":[{"backup":9,"policy":"home","bytes_done":8,"bytes_total":8,
            "waits":"waits, and is looked at again in 12 s: no node could open it"}]}"#;
        let text = lines(&Status::parse(json).unwrap()).join("\n");
        assert!(
            text.contains("\nBackups and points as of 40.0 s ago, when node 2 last read the log:\n"),
            "{text}"
        );
        assert!(text.contains(" 99% ") && !text.contains("100%"), "{text}");
        assert!(
            text.contains("        waits, and is looked at again in 12 s: no node could open it"),
            "{text}"
        );
        let fresh = Status::parse(r#"{"age_s":2}"#).unwrap();
        assert!(!lines(&fresh).join("").contains("as of"));
    }

    #[test]
    fn a_status_that_says_little_is_still_one() {
        site_time::use_utc();
        let empty = lines(&Status::parse("{}").unwrap()).join("\n");
        assert!(empty.starts_with("COORDINATOR  none: idle") && empty.ends_with("none running"), "{empty}");
        let alone = r#"{"node":2,"coordinator":{"node":null,"resting":true},"nodes":[{"node":1},{"node":2,"up":true}]}"#;
        let alone = lines(&Status::parse(alone).unwrap());
        assert_eq!(alone[0], "COORDINATOR  none that is known: no other node is reached  (says node 2)");
        let far = r#"{"node":3,"coordinator":{"node":null,"resting":true},
            "nodes":[{"node":1,"state":"down"},{"node":2,"up":true},{"node":3,"up":true},{"node":4,"state":"stopped"}]}"#;
        let far = lines(&Status::parse(far).unwrap());
        assert_eq!(far[0], "COORDINATOR  none that is known: node 1 is not reached  (says node 3)");
        let silent = r#"{"coordinator":{"node":null,"resting":true,"since_wall_ns":1763692800000000000,
            "why":"the store: GET epoch/1: no clear answer from the store (connection refused by etcd-1:2379)"}}"#;
        let silent = Status::parse(silent).unwrap();
        assert!(!silent.is_resting() && !silent.is_held(), "a backup that was asked for still waits");
        let expected = [
            "COORDINATOR  none since 2025-11-21 02:40:00 UTC  (says node 0)",
            "    the store: GET epoch/1: no clear answer from the store (connection refused",
            "    by etcd-1:2379)",
        ];
        assert_eq!(lines(&silent)[..3], expected);
        let resting =
            r#"{"coordinator":{"node":null,"epoch":9,"resting":true},"errors":[{"node":null,"what":"x"}]}"#;
        assert!(lines(&Status::parse(resting).unwrap())[0].contains("none: idle"));
        assert!(Status::parse(r#"{"nodes":7}"#).is_err());
    }

    #[test]
    fn no_line_is_wider_than_a_serial_console() {
        let wide = |what: &str| what.repeat(400);
        let json = serde_json::json!({
            "nodes": [{ "node": 1, "volumes": [wide("\u{4e2d}"), wide("a")] }],
            "backups": [{ "backup": u32::MAX, "policy": wide("p"), "bytes_done": u64::MAX, "bytes_total": 1, "eta_s": u64::MAX / 2,
                "assignments": vec![serde_json::json!({ "from": [0, 0], "to": [u64::MAX - 1, 0], "done": [u64::MAX, 0] }); 20] }],
            "queue": [wide("q ")],
            "points": [{ "policy": wide("\u{1b}"), "wall_end_ns": i64::MAX }],
            "errors": [{ "what": wide("word ") }, { "what": wide("x") }, { "what": "\n\u{7}" }],
        });
        let lines = lines(&Status::parse(&json.to_string()).unwrap());
        for line in &lines {
            assert!(line.chars().count() <= COLUMNS_MAX, "{line}");
            assert!(!line.chars().any(char::is_control), "{line:?}");
        }
        assert!(lines.iter().any(|line| line.trim() == "and 4 more"));
        let lost: String =
            lines.iter().filter(|line| line.starts_with("    x")).map(|line| line.trim()).collect();
        assert_eq!(lost.len(), 400);
    }
}
