//! Cron lines name the minutes that another implementation of cron says they do.
//!
//! Source: ours; `croner`.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests, which say so by failing")]

use std::str::FromStr;

use windlass_agent::civil::iso_utc;
use windlass_agent::policy::Policy;
use windlass_agent::policy::cron::Cron;
use windlass_agent::policy::schedule::{Schedule, next_times};
use windlass_tests::prng::Prng;

const NS_PER_SEC: i64 = 1_000_000_000;
/// 2020-01-01, in minutes since 1970.
const BEGIN_MINUTE: i64 = 26_297_280;

/// A field of `values`, with `*` where `may_star`.
fn field(random: &mut Prng, first: u64, last: u64, may_star: bool) -> String {
    let value = |random: &mut Prng| first + random.below(last - first + 1);
    match random.below(if may_star { 6 } else { 4 }) {
        0 => value(random).to_string(),
        1 => {
            let (a, b) = (value(random), value(random));
            format!("{}-{}", a.min(b), a.max(b))
        }
        2 => {
            let (a, b) = (value(random), value(random));
            format!("{}-{}/{}", a.min(b), a.max(b), 1 + random.below(5))
        }
        3 => format!("{},{}", value(random), value(random)),
        4 => format!("*/{}", 1 + random.below(last)),
        _ => "*".to_owned(),
    }
}

#[test]
fn cron_lines_name_the_minutes_that_another_cron_says() {
    let mut random = Prng::new(7);
    let mut compared = 0;
    for _ in 0..400 {
        // Of both days at most one has a star with steps: there implementations differ.
        let day = if random.below(2) == 0 { "*".to_owned() } else { field(&mut random, 1, 31, false) };
        let weekday = if random.below(2) == 0 { "*".to_owned() } else { field(&mut random, 0, 6, false) };
        let line = format!(
            "{} {} {day} {} {weekday}",
            field(&mut random, 0, 59, true),
            field(&mut random, 0, 23, true),
            field(&mut random, 1, 12, true),
        );
        let Ok(ours) = line.parse::<Cron>() else {
            // Only a day that no month has is refused.
            assert!(weekday == "*" && day != "*", "{line}");
            continue;
        };
        let theirs = croner::Cron::from_str(&line).unwrap();
        let mut minute = BEGIN_MINUTE + random.below(4 * 366 * 1440) as i64;
        for _ in 0..10 {
            let at = chrono::DateTime::from_timestamp(minute * 60, 0).unwrap();
            let want = theirs.find_next_occurrence(&at, true).unwrap().timestamp() / 60;
            let found = ours.first_from(minute).unwrap();
            assert_eq!(iso_utc(found * 60), iso_utc(want * 60), "{line} from {}", iso_utc(minute * 60));
            (minute, compared) = (found + 1, compared + 1);
        }
    }
    assert!(compared > 2000, "{compared}");
}

#[test]
fn each_local_time_that_exists_is_due_once_a_day_in_every_zone() {
    for zone in ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Africa/Casablanca", "UTC"] {
        for line in ["30 2 * * *", "0 0 * * *", "15 1 * * *", "45 3 * * *"] {
            let schedule = Schedule { cron: Some(line.parse().unwrap()), ..Schedule::default() };
            let zone = zone.parse().unwrap();
            let policy = Policy { schedule: Some(schedule), zone, ..Policy::new("home", Vec::new()) };
            let times: Vec<i64> = next_times(&policy, BEGIN_MINUTE * 60 * NS_PER_SEC).take(3 * 365).collect();
            for pair in times.windows(2) {
                let hours = (pair[1] - pair[0]) as f64 / (3600.0 * NS_PER_SEC as f64);
                assert!((22.0..=26.0).contains(&hours), "{line} {}: {hours}", policy.zone);
            }
        }
    }
}
