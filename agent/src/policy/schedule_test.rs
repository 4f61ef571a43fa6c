//! Tests of [`schedule`](super). Source: ours.

use super::*;

const S: i64 = 1_000_000_000;
const H: i64 = 3600 * S;
const DAY: i64 = 24 * H;
/// Midnight of some day.
const D: i64 = 20_000 * DAY;

fn policy(every: &str, at: Option<&str>) -> Policy {
    let schedule = Schedule {
        at: at.map(|at| at.parse().unwrap()),
        ..Schedule::every(crate::units::parse_duration_ms(every).unwrap())
    };
    schedule.check().unwrap();
    Policy { schedule: Some(schedule), ..Policy::new("home", Vec::new()) }
}

#[test]
fn times_are_multiples_on_the_wall_clock() {
    let six = policy("6h", None);
    assert_eq!(next_due(&six, Some(D), D), Some(D + 6 * H));
    assert_eq!(next_due(&six, Some(D + 1), D + 2), Some(D + 6 * H));
    assert_eq!(next_due(&six, Some(D + 6 * H - 1), D + 6 * H), Some(D + 6 * H), "the boundary itself is due");
    assert_eq!(next_due(&six, Some(D + 6 * H), D + 6 * H), Some(D + 12 * H), "and once only");
    let daily = policy("1d", Some("02:30"));
    let half_past_two = D + 2 * H + H / 2;
    assert_eq!(next_due(&daily, Some(D), D), Some(half_past_two));
    assert_eq!(next_due(&daily, Some(half_past_two), half_past_two + S), Some(half_past_two + DAY));
    // Before 1970 the multiples go on.
    assert_eq!(next_due(&six, Some(-1), -1), Some(0));
    assert_eq!(next_due(&six, Some(-6 * H), -6 * H), Some(0));
    assert_eq!(next_due(&Policy::new("home", Vec::new()), Some(D), D), None);
}

#[test]
fn a_policy_that_never_ran_is_due_and_missed_runs_run_once() {
    let six = policy("6h", None);
    assert_eq!(next_due(&six, None, D + 7), Some(D + 7));
    // Off for a week: one run, then the usual times.
    let now = D + 7 * DAY + H;
    assert!(next_due(&six, Some(D), now).unwrap() <= now);
    assert_eq!(next_due(&six, Some(now), now + S), Some(D + 7 * DAY + 6 * H));
}

#[test]
fn a_schedule_that_was_just_set_waits_for_its_time() {
    let mut six = policy("6h", None);
    six.schedule.as_mut().unwrap().since = Some((D + H) / S);
    assert_eq!(next_due(&six, None, D + H), Some(D + 6 * H));
    assert_eq!(next_due(&six, None, D + 6 * H), Some(D + 6 * H), "and then it is due");
    // A backup by hand in the days before does not make it due at once, one behind it counts.
    assert_eq!(next_due(&six, Some(D - 5 * DAY), D + 2 * H), Some(D + 6 * H));
    assert_eq!(next_due(&six, Some(D + 7 * H), D + 8 * H), Some(D + 12 * H));
    // Set by a clock that was far ahead: nothing waits for that.
    six.schedule.as_mut().unwrap().since = Some((D + 900 * DAY) / S);
    assert_eq!(next_due(&six, None, D + H), Some(D + 6 * H));
}

#[test]
fn a_clock_set_back_repeats_nothing_and_holds_nothing_up() {
    let six = policy("6h", None);
    // Started at 06:00, then the clock says 05:59:58: not again in two seconds.
    assert_eq!(next_due(&six, Some(D + 6 * H), D + 6 * H - 2 * S), Some(D + 12 * H));
    // By one period at most ...
    assert_eq!(next_due(&six, Some(D + 6 * H), D), Some(D + 12 * H));
    // ... and not by ten years when the clock was wrong at the last start.
    assert_eq!(next_due(&six, Some(D + 3650 * DAY), D + S), Some(D + 6 * H));
    // A clock that jumps ahead makes one run due, and going back to the truth does not repeat it.
    let ahead = D + 30 * DAY + H;
    assert!(next_due(&six, Some(D), ahead).unwrap() <= ahead);
    assert_eq!(next_due(&six, Some(ahead), D + S), Some(D + 6 * H));
}

#[test]
fn after_a_start_nothing_is_due_at_once_and_something_is_soon_whatever_the_clock_did() {
    let mut state = 7u64;
    let mut random = |below: i64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as i64 % below
    };
    for policy in [policy("1m", None), policy("7h", None), policy("1d", Some("23:59")), policy("366d", None)]
    {
        let every = policy.schedule.as_ref().unwrap().every_ns();
        for _ in 0..2000 {
            let now = random(1 << 30) * S;
            let started = next_due(&policy, Some(now), now).unwrap();
            assert!(started > now && started <= now + every);
            let last = random(1 << 30) * S;
            let due = next_due(&policy, Some(last), now).unwrap();
            assert!(due <= now.max(last) + every && due <= now + 2 * every);
            assert!(last <= now || due > now, "set back: not at once");
        }
    }
    for wall in [i64::MIN, i64::MAX] {
        next_due(&policy("7h", None), Some(wall), -wall.saturating_add(1)).unwrap();
    }
}

#[test]
fn bounds_hold_on_both_sides() {
    let check = |every, at: Option<&str>| {
        Schedule { at: at.map(|at| at.parse().unwrap()), ..Schedule::every(every) }.check().is_ok()
    };
    for (every, good) in
        [(EVERY_MS_MIN - 1, false), (EVERY_MS_MIN, true), (EVERY_MS_MAX, true), (EVERY_MS_MAX + 1, false)]
    {
        assert_eq!(check(every, None), good, "{every}");
    }
    assert!(check(DAY_MS, Some("02:30")) && check(7 * DAY_MS, Some("00:00")));
    assert!(!check(DAY_MS / 2, Some("02:30")) && !check(DAY_MS + 1, Some("02:30")));
    for good in ["00:00", "23:59", "02:30"] {
        assert_eq!(good.parse::<TimeOfDay>().unwrap().to_string(), good);
    }
    for bad in ["24:00", "12:60", "2:30", "02:3", "0230", "", "+2:30", "02:30:00", "aa:bb"] {
        assert!(bad.parse::<TimeOfDay>().is_err(), "{bad}");
    }
}

#[test]
fn it_is_part_of_the_json() {
    let json =
        br#"{"version":1,"name":"a","volumes":[{"device":"/x"}],"schedule":{"every":"1d","at":"02:30"}}"#;
    let policy = Policy::parse(json).unwrap();
    assert_eq!(policy.schedule.as_ref().unwrap().to_string(), "every 1d at 02:30");
    assert_eq!(Policy::parse(&policy.emit().unwrap()), Ok(policy.clone()));
    let without = Policy { schedule: None, ..policy };
    assert!(!String::from_utf8(without.emit().unwrap()).unwrap().contains("schedule"));
    for bad in [
        r#"{"every":"1s"}"#,
        r#"{"every":"6h","at":"02:30"}"#,
        r#"{"at":"02:30"}"#,
        r#"{"every":"1d","tz":"CET"}"#,
    ] {
        let json = format!(r#"{{"version":1,"name":"a","volumes":[{{"device":"/x"}}],"schedule":{bad}}}"#);
        assert!(Policy::parse(json.as_bytes()).is_err(), "{bad}");
    }
}

/// A policy with a cron line, in Berlin.
fn cron(line: &str) -> Policy {
    let schedule = Schedule { cron: Some(line.parse().unwrap()), ..Schedule::default() };
    schedule.check().unwrap();
    let zone = "Europe/Berlin".parse().unwrap();
    Policy { schedule: Some(schedule), zone, ..Policy::new("home", Vec::new()) }
}

fn utc(text: &str) -> i64 {
    let number = |at: usize, digits: usize| text[at..at + digits].parse::<i64>().unwrap();
    let date = crate::civil::Date { year: number(0, 4), month: number(5, 2), day: number(8, 2) };
    date.days() * DAY + number(11, 2) * H + number(14, 2) * 60 * S
}

fn times(policy: &Policy, from: &str, count: usize) -> Vec<String> {
    let text = |ns: i64| crate::civil::iso_utc(ns / S)[..16].to_owned();
    next_times(policy, utc(from)).take(count).map(text).collect()
}

#[test]
fn a_cron_line_is_on_the_clock_of_the_zone() {
    let night = cron("30 2 * * *");
    assert_eq!(times(&night, "2026-01-10T00:00", 2), ["2026-01-10T01:30", "2026-01-11T01:30"]);
    // On 29 March the clock goes from 02:00 to 03:00, at 01:00 UTC: the run is at the end of that.
    let spring = ["2026-03-28T01:30", "2026-03-29T01:00", "2026-03-30T00:30"];
    assert_eq!(times(&night, "2026-03-27T12:00", 3), spring);
    // On 25 October it shows 02:30 at 00:30 and at 01:30 UTC: the run is at the first, once.
    let autumn = ["2026-10-24T00:30", "2026-10-25T00:30", "2026-10-26T01:30"];
    assert_eq!(times(&night, "2026-10-23T12:00", 3), autumn);
    let halves = ["2026-10-25T00:00", "2026-10-25T00:30", "2026-10-25T02:00"];
    assert_eq!(times(&cron("0,30 * * * *"), "2026-10-24T23:30", 3), halves);
    assert_eq!(
        next_due(&night, Some(utc("2026-03-28T02:00")), utc("2026-03-28T03:00")),
        Some(utc("2026-03-29T01:00"))
    );
    // Off for a week: one run, at once.
    let now = utc("2026-04-04T12:00");
    assert!(next_due(&night, Some(utc("2026-03-28T02:00")), now).unwrap() <= now);
    assert_eq!(next_due(&night, Some(now), now), Some(utc("2026-04-05T00:30")));
    // By days: the same.
    let mut daily = policy("1d", Some("02:30"));
    daily.zone = "Europe/Berlin".parse().unwrap();
    assert_eq!(times(&daily, "2026-03-27T12:00", 3), spring);
    assert_eq!(times(&daily, "2026-10-23T12:00", 3), autumn);
    // A period that is not whole days is as long as it says.
    let mut often = policy("30m", None);
    often.zone = "Europe/Berlin".parse().unwrap();
    assert_eq!(times(&often, "2026-10-25T00:30", 2), ["2026-10-25T01:00", "2026-10-25T01:30"]);
}

#[test]
fn a_clock_far_ahead_stops_no_cron_line() {
    let night = cron("30 2 * * *");
    let now = utc("2026-01-10T12:00");
    assert!(
        !is_ahead(&night, utc("2026-01-11T01:30"), now) && is_ahead(&night, utc("2026-01-11T01:31"), now)
    );
    assert_eq!(next_due(&night, Some(utc("2036-01-10T12:00")), now), Some(utc("2026-01-11T01:30")));
}

#[test]
fn what_is_due_outside_of_the_window_waits_until_it_opens() {
    let mut hourly = policy("1h", None);
    hourly.schedule.as_mut().unwrap().window = Some("22:00-00:30".parse().unwrap());
    let night = ["2026-01-10T22:00", "2026-01-10T23:00", "2026-01-11T00:00", "2026-01-11T22:00"];
    assert_eq!(times(&hourly, "2026-01-10T12:00", 4), night);
    // Missed in the night, seen at noon.
    let (last, noon) = (utc("2026-01-09T23:00"), utc("2026-01-10T12:00"));
    assert_eq!(next_due(&hourly, Some(last), noon), Some(utc("2026-01-10T22:00")));
    assert_eq!(next_due(&hourly, None, noon), Some(utc("2026-01-10T22:00")));
    let late = utc("2026-01-10T00:29");
    assert!(next_due(&hourly, Some(last), late).unwrap() <= late, "it is open");
    assert_eq!(next_due(&hourly, Some(last), utc("2026-01-10T00:30")), Some(utc("2026-01-10T22:00")));
    // In the zone; it opens in the hour that the clock skips.
    let mut berlin = cron("0 0 * * *");
    berlin.schedule.as_mut().unwrap().window = Some("02:15-04:00".parse().unwrap());
    assert_eq!(times(&berlin, "2026-03-28T12:00", 2), ["2026-03-29T01:00", "2026-03-30T00:15"]);
    assert_eq!(times(&berlin, "2026-10-24T12:00", 1), ["2026-10-25T00:15"]);
    for bad in ["", "22:00", "22:00-22:00", "22:00-24:00", "22-06", "1:00-02:00"] {
        assert!(bad.parse::<Window>().is_err(), "{bad}");
    }
}

#[test]
fn a_cron_line_is_part_of_the_json() {
    let body = |schedule: &str| {
        format!(
            r#"{{"version":1,"name":"a","volumes":[{{"device":"/x"}}],"zone":"Europe/Berlin","schedule":{schedule}}}"#
        )
    };
    let policy = Policy::parse(body(r#"{"cron":"30 2 * * 1-5","window":"02:00-04:00"}"#).as_bytes()).unwrap();
    assert_eq!(policy.schedule.as_ref().unwrap().to_string(), "cron 30 2 * * 1-5 within 02:00-04:00");
    assert_eq!(Policy::parse(&policy.emit().unwrap()), Ok(policy));
    for bad in [
        r#"{"cron":"30 2 * *"}"#,
        r#"{"cron":"30 2 * * *","every":"1d"}"#,
        r#"{"cron":"30 2 * * *","at":"02:30"}"#,
        r#"{"window":"02:00-04:00"}"#,
    ] {
        assert!(Policy::parse(body(bad).as_bytes()).is_err(), "{bad}");
    }
    let no_zone = body(r#"{"every":"1d"}"#).replace("Berlin", "Atlantis");
    assert!(Policy::parse(no_zone.as_bytes()).unwrap_err().to_string().contains("IANA"));
}
