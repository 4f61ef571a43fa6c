//! The text of metrics: its grammar, its bound, its labels.

use std::collections::BTreeSet;

use serde_json::json;

use super::*;
use crate::id::BackupId;

fn health(count: usize) -> Vec<Health> {
    let one = |nth| Health {
        policy: format!("p{nth}\"\\\n"),
        protection: Protection::Late,
        good: Some((BackupId(1), 1_000_000_000, 2_000_000_000)),
        newest: Some((10, 5, 1)),
        due_ns: Some(3_000_000_000),
        points: 7,
    };
    (0..count).map(one).collect()
}

fn facts<'a>(health: &'a [Health], status: &'a Value) -> Facts<'a> {
    let mut store = StoreCounts::default();
    store.requests.iter_mut().zip(["a", "b", "c", "d", "e", "f", "g"]).for_each(|(one, name)| one.0 = name);
    let names = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k"];
    store.faults.iter_mut().zip(names).for_each(|(one, name)| one.0 = name);
    let mut api = ApiCounts::default();
    api.closed.iter_mut().zip(names).for_each(|(one, name)| one.0 = name);
    api.answers.iter_mut().zip(names).for_each(|(one, name)| one.0 = name);
    Facts {
        version: "1",
        node: 3,
        started_secs: 9,
        status,
        status_age_secs: 0.5,
        coordinates: true,
        health,
        waits: 2,
        store,
        api,
        memory_bytes: (1, 2),
    }
}

/// Checks what both grammars demand: families in one piece with help and type first, each series once, numbers for values.
fn check(text: &str, is_open: bool) -> usize {
    let (mut family, mut families, mut series) = (String::new(), BTreeSet::new(), BTreeSet::new());
    let body = if is_open { text.strip_suffix("# EOF\n").unwrap() } else { text };
    for line in body.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            family = rest.split(' ').next().unwrap().to_owned();
            assert!(families.insert(family.clone()), "twice: {line}");
            assert!(family.starts_with("windlass_"), "{line}");
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            assert!(rest.starts_with(&format!("{family} ")), "{line}");
        } else {
            let (name, value) = line.rsplit_once(' ').unwrap();
            assert!(value.parse::<f64>().is_ok(), "{line}");
            assert!(series.insert(name.to_owned()), "twice: {line}");
            let bare = name.split('{').next().unwrap();
            let suffix = bare.strip_prefix(family.as_str()).unwrap_or_else(|| panic!("{line}"));
            assert!(suffix.is_empty() || is_open && ["_total", "_info"].contains(&suffix), "{line}");
        }
    }
    series.len()
}

#[test]
fn the_text_keeps_the_grammar_and_the_bound() {
    let status = json!({
        "coordinator": { "node": 1, "epoch": 4 },
        "nodes": (0..64).map(|node| json!({ "node": node, "up": node % 2 == 0 })).collect::<Vec<_>>(),
        "backups": (0..16).map(|n| json!({ "policy": format!("r{n}"), "rate": 9 })).collect::<Vec<_>>(),
        "clock_ahead_s": -90,
        "garbage": { "waiting_bytes": 77 },
    });
    for (count, status) in [(0, &Value::Null), (3, &status), (500, &status)] {
        for is_open in [false, true] {
            let all = health(count);
            let (text, series) = text(&facts(&all, status), is_open);
            assert_eq!(check(&text, is_open), series);
            assert!(series < SERIES_MAX, "{series}: nothing may be cut at the bound");
        }
    }
    let all = health(500);
    let (text, _) = text(&facts(&all, &status), false);
    for line in [
        "windlass_policies_left_out 472",
        "windlass_policy_last_good_point_timestamp_seconds{policy=\"p3\\\"\\\\\\n\"} 2",
        "windlass_node_up{peer=\"1\"} 0",
        "windlass_clock_ahead_seconds -90",
        "windlass_garbage_waiting_bytes 77",
        "windlass_store_requests_total{kind=\"a\"} 0",
        "windlass_build_info{version=\"1\",node=\"3\"} 1",
        "# TYPE windlass_api_accepted_total counter",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in {text}");
    }
}
