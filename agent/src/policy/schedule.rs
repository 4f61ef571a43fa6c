//! When a policy's backups are due: at multiples of a duration on the wall clock, such as every 6 hours or daily at 02:30 UTC.
//!
//! ```text
//!  every 6h          00:00     06:00     12:00     18:00     UTC, counted from 1970
//!  every 1d at 02:30      02:30 tomorrow, ...
//!
//!  last start L, now N       due
//!  ------------------        ---
//!  never                     the first time after the schedule was set; now when that time is not known
//!  L <= N                    the first time after L; when that has passed (runs were missed), it is due once, now
//!  N < L <= N + every        the first time after L: a clock that was set back a little repeats no run
//!  L > N + every             a clock is or was wrong ([`is_ahead`]): the coordinator writes N into the log, and that counts as L
//! ```
//!
//! "Now" is the coordinator's clock within bounds of the store's (`node::clock`).
//!
//! Invariants: after a run that starts at N nothing is due at or before N, whatever the clock did; the next
//! one is due at most two periods after N. Pure: does not read a clock. Converting to local time is left to
//! the caller. Source: ours.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{Policy, PolicyFault, duration};
use crate::units::format_duration_ms;

/// Shortest period in milliseconds: a backup of nothing new takes about a second, and each makes a point.
pub const EVERY_MS_MIN: u64 = 60_000;
/// Longest period in milliseconds: a year.
pub const EVERY_MS_MAX: u64 = 366 * DAY_MS;

const DAY_MS: u64 = 86_400_000;
const MINUTE_MS: u64 = 60_000;
const NS_PER_MS: i64 = 1_000_000;
const NS_PER_SEC: i64 = 1_000_000_000;
/// The largest product below fits.
const _: () = assert!(EVERY_MS_MAX <= (i64::MAX / NS_PER_MS) as u64);

/// When backups are due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Schedule {
    /// The period in milliseconds, [`EVERY_MS_MIN`]..=[`EVERY_MS_MAX`].
    #[serde(with = "duration")]
    pub every: u64,
    /// At which time of the day (UTC); only where the period is whole days.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<TimeOfDay>,
    /// Since when it holds, in seconds since 1970: times before it were not missed. `None`: a policy that never ran is due at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<i64>,
}

/// A time of the day in UTC; written `02:30`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TimeOfDay {
    /// Minutes since midnight, 0..1440.
    minutes: u16,
}

impl Schedule {
    /// Checks every bound.
    ///
    /// # Errors
    /// [`PolicyFault::Range`].
    pub fn check(&self) -> Result<(), PolicyFault> {
        if !(EVERY_MS_MIN..=EVERY_MS_MAX).contains(&self.every) {
            return Err(PolicyFault::Range { field: "schedule, every", allowed: "from 1m to 366d" });
        }
        if self.at.is_some() && !self.every.is_multiple_of(DAY_MS) {
            let allowed = "left out unless the period is whole days, such as 1d";
            return Err(PolicyFault::Range { field: "schedule, at", allowed });
        }
        Ok(())
    }

    fn every_ns(&self) -> i64 {
        self.every.clamp(EVERY_MS_MIN, EVERY_MS_MAX) as i64 * NS_PER_MS
    }

    /// The first time of the schedule after `wall_ns`, in nanoseconds since 1970.
    fn first_after(&self, wall_ns: i64) -> i64 {
        let (every, at) = (self.every_ns(), self.at.map_or(0, TimeOfDay::ns));
        let since = wall_ns.saturating_sub(at).rem_euclid(every);
        wall_ns.saturating_add(every - since)
    }
}

/// When the next backup of `policy` is due, in nanoseconds since 1970; at or before `now_wall_ns` means now. `None`: it has no
/// schedule.
///
/// `last_start_wall_ns` is the wall clock time at which the last backup was started, however that ended;
/// `None` when there was none. A schedule that was set later counts from then.
pub fn next_due(policy: &Policy, last_start_wall_ns: Option<i64>, now_wall_ns: i64) -> Option<i64> {
    let schedule = policy.schedule?;
    let since = schedule.since.map(|secs| secs.saturating_mul(NS_PER_SEC));
    let Some(last) = last_start_wall_ns.max(since) else { return Some(now_wall_ns) };
    Some(schedule.first_after(if is_ahead(&schedule, last, now_wall_ns) { now_wall_ns } else { last }))
}

/// Whether a start, or the time since when a schedule holds, is so far ahead that a clock is or was wrong. Counted from now at each look,
/// the next time would never come: the time of one look must be kept.
pub fn is_ahead(schedule: &Schedule, start_wall_ns: i64, now_wall_ns: i64) -> bool {
    start_wall_ns > now_wall_ns.saturating_add(schedule.every_ns())
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "every {}", format_duration_ms(self.every))?;
        self.at.map_or(Ok(()), |at| write!(f, " at {at} UTC"))
    }
}

impl TimeOfDay {
    fn ns(self) -> i64 {
        i64::from(self.minutes) * MINUTE_MS as i64 * NS_PER_MS
    }
}

impl fmt::Display for TimeOfDay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02}:{:02}", self.minutes / 60, self.minutes % 60)
    }
}

/// Text that is not a time of the day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotATimeOfDay;

impl fmt::Display for NotATimeOfDay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a time of the day; write HH:MM in UTC, such as 02:30")
    }
}

impl std::error::Error for NotATimeOfDay {}

impl FromStr for TimeOfDay {
    type Err = NotATimeOfDay;

    fn from_str(text: &str) -> Result<TimeOfDay, NotATimeOfDay> {
        let two = |text: &str, below: u16| {
            let digits = text.len() == 2 && text.bytes().all(|b| b.is_ascii_digit());
            text.parse::<u16>().ok().filter(|&n| digits && n < below).ok_or(NotATimeOfDay)
        };
        let (hours, minutes) = text.split_once(':').ok_or(NotATimeOfDay)?;
        Ok(TimeOfDay { minutes: two(hours, 24)? * 60 + two(minutes, 60)? })
    }
}

impl TryFrom<String> for TimeOfDay {
    type Error = NotATimeOfDay;

    fn try_from(text: String) -> Result<TimeOfDay, NotATimeOfDay> {
        text.parse()
    }
}

impl From<TimeOfDay> for String {
    fn from(time: TimeOfDay) -> String {
        time.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: i64 = 1_000_000_000;
    const H: i64 = 3600 * S;
    const DAY: i64 = 24 * H;
    /// Midnight of some day.
    const D: i64 = 20_000 * DAY;

    fn policy(every: &str, at: Option<&str>) -> Policy {
        let schedule = Schedule {
            every: crate::units::parse_duration_ms(every).unwrap(),
            at: at.map(|at| at.parse().unwrap()),
            since: None,
        };
        schedule.check().unwrap();
        Policy { schedule: Some(schedule), ..Policy::new("home", Vec::new()) }
    }

    #[test]
    fn times_are_multiples_on_the_wall_clock() {
        let six = policy("6h", None);
        assert_eq!(next_due(&six, Some(D), D), Some(D + 6 * H));
        assert_eq!(next_due(&six, Some(D + 1), D + 2), Some(D + 6 * H));
        assert_eq!(
            next_due(&six, Some(D + 6 * H - 1), D + 6 * H),
            Some(D + 6 * H),
            "the boundary itself is due"
        );
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
        for policy in
            [policy("1m", None), policy("7h", None), policy("1d", Some("23:59")), policy("366d", None)]
        {
            let every = policy.schedule.unwrap().every_ns();
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
            Schedule { every, at: at.map(|at| at.parse().unwrap()), since: None }.check().is_ok()
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
        assert_eq!(policy.schedule.unwrap().to_string(), "every 1d at 02:30 UTC");
        assert_eq!(Policy::parse(&policy.emit().unwrap()), Ok(policy.clone()));
        let without = Policy { schedule: None, ..policy };
        assert!(!String::from_utf8(without.emit().unwrap()).unwrap().contains("schedule"));
        for bad in [
            r#"{"every":"1s"}"#,
            r#"{"every":"6h","at":"02:30"}"#,
            r#"{"at":"02:30"}"#,
            r#"{"every":"1d","tz":"CET"}"#,
        ] {
            let json =
                format!(r#"{{"version":1,"name":"a","volumes":[{{"device":"/x"}}],"schedule":{bad}}}"#);
            assert!(Policy::parse(json.as_bytes()).is_err(), "{bad}");
        }
    }
}
