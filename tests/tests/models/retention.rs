//! Retention rules keep what restic's keep, for the same reasons: restic's own test data, see `golden/retention/restic.txt`.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests, which say so by failing")]

use windlass_agent::civil::Date;
use windlass_agent::id::BackupId;
use windlass_agent::policy::retention::{Candidate, Retention, judge};
use windlass_agent::policy::zone::Zone;

/// Nanoseconds since 1970 of `2014-09-01T10:20:30.1Z`.
fn wall_ns(text: &str) -> i64 {
    let (date, time) = text.trim_end_matches('Z').split_once('T').unwrap();
    let numbers: Vec<i64> = date.split('-').map(|part| part.parse().unwrap()).collect();
    let clock: Vec<f64> = time.split(':').map(|part| part.parse().unwrap()).collect();
    let days = Date { year: numbers[0], month: numbers[1], day: numbers[2] }.days();
    let tenths = (clock[2] * 10.0).round() as i64;
    ((days * 24 + clock[0] as i64) * 60 + clock[1] as i64) * 60_000_000_000 + tenths * 100_000_000
}

#[test]
fn the_rules_keep_what_those_of_restic_keep() {
    let text = include_str!("../../golden/retention/restic.txt");
    let points: Vec<(&str, Vec<String>)> = text
        .lines()
        .filter_map(|line| line.strip_prefix("point "))
        .map(|line| {
            let (time, tags) = line.split_once(' ').unwrap_or((line, ""));
            (time, tags.split(',').filter(|tag| !tag.is_empty()).map(str::to_owned).collect())
        })
        .collect();
    assert_eq!(points.len(), 103);
    // Of points of one time the earlier one in the file comes first: it has the higher number.
    let candidates: Vec<Candidate<'_>> = points
        .iter()
        .enumerate()
        .map(|(nth, (time, tags))| Candidate {
            backup: BackupId(1000 - nth as u32),
            wall_ns: wall_ns(time),
            tags,
            is_held: false,
            is_damaged: false,
        })
        .collect();
    let now_ns = wall_ns("2026-01-01T00:00:00Z");
    let mut cases = 0;
    for case in text.split("\ncase ").skip(1) {
        let mut lines = case.lines();
        let rules = lines.next().unwrap();
        let expected: Vec<String> =
            lines.filter_map(|line| line.strip_prefix("keep ")).map(str::to_owned).collect();
        let rules: Retention = serde_json::from_str(rules).unwrap();
        let kept: Vec<String> = judge(&rules, &Zone::default(), &candidates, now_ns)
            .into_iter()
            .filter(|verdict| !verdict.expires())
            .map(|verdict| {
                let (time, tags) = &points[1000 - verdict.backup.0 as usize];
                let tags = if tags.is_empty() { String::new() } else { format!(" {}", tags.join(",")) };
                let reasons: Vec<String> = verdict.reasons.iter().map(ToString::to_string).collect();
                format!("{time}{tags} | {}", reasons.join("; "))
            })
            .collect();
        if rules.is_empty() {
            assert_eq!(kept.len(), points.len());
        } else {
            // Tags come first there, as here; the texts of spans are ours.
            assert_eq!(kept, expected, "{rules:?}");
        }
        cases += 1;
    }
    assert_eq!(cases, 40);
}
