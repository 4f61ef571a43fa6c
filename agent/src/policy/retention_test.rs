//! Tests of retention.

use super::*;

const HOUR: i64 = 3_600_000_000_000;
const DAY: i64 = 24 * HOUR;
/// 2026-01-01.
const BEGIN: i64 = 1_767_225_600_000_000_000;

fn candidate(backup: u32, wall_ns: i64) -> Candidate<'static> {
    Candidate { backup: BackupId(backup), wall_ns, tags: &[], is_held: false, is_damaged: false }
}

fn kept(verdicts: &[Verdict]) -> Vec<u32> {
    verdicts.iter().filter(|verdict| !verdict.expires()).map(|verdict| verdict.backup.0).collect()
}

fn rules(json: &str) -> Retention {
    serde_json::from_str(json).unwrap()
}

fn days(count: u32) -> Vec<Candidate<'static>> {
    (1..=count).map(|n| candidate(n, BEGIN + i64::from(n) * DAY)).collect()
}

#[test]
fn no_rule_expires_nothing_and_the_least_number_is_no_rule() {
    for text in ["{}", r#"{"at_least": 2}"#, r#"{"daily": 0, "within": "0"}"#] {
        let rules = rules(text);
        assert!(rules.is_empty(), "{text}");
        assert_eq!(kept(&judge(&rules, &Zone::default(), &days(5), BEGIN + 9 * DAY)), [5, 4, 3, 2, 1]);
    }
}

#[test]
fn the_oldest_point_stays_while_counts_are_left_and_gives_its_reason() {
    let two_a_day: Vec<_> = (0..6).map(|n| candidate(n, BEGIN + i64::from(n) * DAY / 2)).collect();
    let verdicts = judge(&rules(r#"{"daily": 4}"#), &Zone::default(), &two_a_day, BEGIN + 9 * DAY);
    assert_eq!(kept(&verdicts), [5, 3, 1, 0]);
    let reasons: Vec<String> = verdicts.iter().flat_map(|v| &v.reasons).map(ToString::to_string).collect();
    assert_eq!(reasons, ["daily", "daily", "daily", "oldest daily"]);
    assert_eq!(
        kept(&judge(&rules(r#"{"daily": 3}"#), &Zone::default(), &two_a_day, BEGIN + 9 * DAY)),
        [5, 3, 1]
    );
}

#[test]
fn minutes_and_quarters_are_periods_too() {
    let minute = 60_000_000_000;
    let points: Vec<_> = (0..8).map(|n| candidate(n, BEGIN + i64::from(n) * minute / 2)).collect();
    assert_eq!(kept(&judge(&rules(r#"{"minutely": 2}"#), &Zone::default(), &points, BEGIN + DAY)), [7, 5]);
    let months: Vec<_> = (0..12)
        .map(|n| {
            let days = Date { year: 2026, month: 1 + i64::from(n), day: 15 }.days();
            candidate(n, days * DAY)
        })
        .collect();
    assert_eq!(
        kept(&judge(&rules(r#"{"quarterly": 3}"#), &Zone::default(), &months, BEGIN + 400 * DAY)),
        [11, 8, 5]
    );
}

#[test]
fn a_hold_keeps_its_point_and_takes_no_count() {
    let mut points = days(4);
    points[0].is_held = true;
    let verdicts = judge(&rules(r#"{"last": 2}"#), &Zone::default(), &points, BEGIN + 9 * DAY);
    assert_eq!(kept(&verdicts), [4, 3, 1]);
    assert_eq!(verdicts[3].reasons, [Reason::Held]);
}

#[test]
fn points_ahead_of_the_clock_stay_and_expire_nothing() {
    let mut points = days(4);
    points.push(candidate(5, BEGIN + 4000 * DAY));
    let now = BEGIN + 4 * DAY;
    let verdicts = judge(&rules(r#"{"last": 1, "within": "1d1h"}"#), &Zone::default(), &points, now);
    assert_eq!(kept(&verdicts), [5, 4, 3]);
    assert_eq!(verdicts[0].reasons, [Reason::Ahead]);
    // An hour ahead is none.
    points[4] = candidate(5, now + HOUR);
    assert_eq!(kept(&judge(&rules(r#"{"last": 1}"#), &Zone::default(), &points, now)), [5]);
}

#[test]
fn a_damaged_point_takes_no_count_from_a_sound_one() {
    let mut points = days(4);
    points[3].is_damaged = true;
    points[1].is_damaged = true;
    assert_eq!(kept(&judge(&rules(r#"{"last": 1}"#), &Zone::default(), &points, BEGIN + 9 * DAY)), [4, 3]);
    assert_eq!(kept(&judge(&rules(r#"{"last": 2}"#), &Zone::default(), &points, BEGIN + 9 * DAY)), [4, 3, 1]);
}

#[test]
fn never_fewer_than_the_least_number_stay() {
    assert_eq!(
        kept(&judge(
            &rules(r#"{"within": "1h", "at_least": 3}"#),
            &Zone::default(),
            &days(5),
            BEGIN + 9 * DAY
        )),
        [5, 4, 3]
    );
}

#[test]
fn spans_are_read_and_written_and_refused() {
    for (text, written) in
        [("1y2mo3d4h", "1y2mo3d4h"), ("2w", "14d"), ("1d1w", "8d"), ("0", "0"), ("36h", "36h")]
    {
        let span: Span = text.parse().unwrap();
        assert_eq!(span.to_string(), written);
        assert_eq!(span.to_string().parse::<Span>().unwrap(), span);
    }
    for text in ["", "1", "d", "1m", "1 d", "-1d", "99999d", "5000d5000d", "4294967296y"] {
        assert_eq!(text.parse::<Span>(), Err(SPAN_ALLOWED), "{text}");
    }
    for text in [
        r#"{"daily": -1}"#,
        r#"{"daily": "some"}"#,
        r#"{"daily": 1000001}"#,
        r#"{"within": "1m"}"#,
        r#"{"hours": 1}"#,
    ] {
        assert!(serde_json::from_str::<Retention>(text).is_err(), "{text}");
    }
    assert!(rules(r#"{"tags": [["a b"]]}"#).check().is_err());
    assert!(rules(r#"{"tags": [[]]}"#).check().is_err());
    rules(r#"{"tags": [["year=2026"]]}"#).check().unwrap();
}

#[test]
fn a_span_before_any_moment_is_a_moment() {
    let most =
        Span { years: SPAN_PART_MAX, months: SPAN_PART_MAX, days: SPAN_PART_MAX, hours: SPAN_PART_MAX };
    assert_eq!(most.before(&Zone::default(), BEGIN), i64::MIN);
    assert_eq!(most.before(&Zone::default(), i64::MIN), i64::MIN);
    // 31 March less a month is 31 February: 3 March.
    let march = Date { year: 2026, month: 3, day: 31 }.days() * DAY;
    assert_eq!(
        Span { months: 1, ..Span::default() }.before(&Zone::default(), march),
        Date { year: 2026, month: 3, day: 3 }.days() * DAY
    );
}

#[test]
fn days_are_those_of_the_zone() {
    let hour = |day: i64, hour: i64| BEGIN + day * DAY + hour * HOUR;
    let at = |backup, wall_ns| Candidate { backup: BackupId(backup), wall_ns, ..days(1).remove(0) };
    // 20:00, 23:30 and 06:00 UTC are two days in UTC, and two others in Berlin.
    let points = [at(1, hour(0, 20)), at(2, hour(0, 23) + HOUR / 2), at(3, hour(1, 6))];
    let rules = rules(r#"{"daily": 2}"#);
    let now = BEGIN + 9 * DAY;
    assert_eq!(kept(&judge(&rules, &Zone::default(), &points, now)), [3, 2]);
    assert_eq!(kept(&judge(&rules, &"Europe/Berlin".parse().unwrap(), &points, now)), [3, 1]);
    // A day before 12:00 on the day of the change is 12:00 on the clock, 25 hours before.
    let berlin: Zone = "Europe/Berlin".parse().unwrap();
    let noon = Date { year: 2026, month: 10, day: 25 }.days() * DAY + 11 * HOUR;
    let day: Span = "1d".parse().unwrap();
    assert_eq!(day.before(&berlin, noon), noon - 25 * HOUR);
    assert_eq!("1d2h".parse::<Span>().unwrap().before(&berlin, noon), noon - 27 * HOUR);
}
