//! When a policy's backups are due: at multiples of a duration, such as every 6 hours or daily at 02:30, or at the minutes that a cron line
//! names.
//!
//! ```text
//!  every 6h          00:00     06:00     12:00     18:00     UTC, counted from 1970
//!  every 1d at 02:30      02:30 tomorrow, ...
//!  cron 30 2 * * 1-5      02:30 on Monday, ...
//!
//!  last start L, now N       due
//!  ------------------        ---
//!  never                     the first time after the schedule was set; now when that time is not known
//!  L <= N                    the first time after L; when that has passed (runs were missed), it is due once, now
//!  N < L <= N + every        the first time after L: a clock that was set back a little repeats no run
//!  L > N + every             a clock is or was wrong ([`is_ahead`]): the coordinator writes N into the log, and that counts as L
//!
//!  due outside of its window: when that opens next
//! ```
//!
//! "Now" is the coordinator's clock within bounds of the store's (`node::clock`).
//!
//! Whole days, the time of the day, cron lines and windows are on the clock of the policy's zone ([`zone`](super::zone)): a time that this
//! clock skips is due at the end of what it skips, one that it shows twice is due once. Periods that are not whole days are counted in UTC
//! whatever the zone, so that none of them is longer than it says.
//!
//! Invariants: after a run that starts at N nothing is due at or before N, whatever the clock did; the next
//! one is due at most two periods after N, or when the window opens after that. Pure: does not read a clock. Source: ours.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::cron::Cron;
use super::zone::Zone;
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
const NS_PER_MINUTE: i64 = 60 * NS_PER_SEC;
const NS_PER_DAY: i64 = DAY_MS as i64 * NS_PER_MS;
/// Times that a zone's clock shows and that lie in its past, one behind the other, are at most those of a day.
const SHOWN_TWICE_MAX: usize = 1440;
/// The largest product below fits.
const _: () = assert!(EVERY_MS_MAX <= (i64::MAX / NS_PER_MS) as u64);

/// When backups are due: by `every` or by `cron`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Schedule {
    /// The period in milliseconds, [`EVERY_MS_MIN`]..=[`EVERY_MS_MAX`]; 0: by `cron`.
    #[serde(default, with = "duration", skip_serializing_if = "is_zero")]
    pub every: u64,
    /// At which time of the day; only where the period is whole days.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<TimeOfDay>,
    /// At which minutes, instead of a period.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cron: Option<Cron>,
    /// Backups begin by themselves only in it; what is due outside of it waits until it opens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<Window>,
    /// Since when it holds, in seconds since 1970: times before it were not missed. `None`: a policy that never ran is due at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<i64>,
}

fn is_zero(ms: &u64) -> bool {
    *ms == 0
}

/// A part of each day; written `22:00-06:00`. The first minute is in it, the last is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Window {
    /// When it opens.
    pub from: TimeOfDay,
    /// When it closes; not the same.
    pub to: TimeOfDay,
}

impl Window {
    /// Whether a clock that shows `local_ns` (nanoseconds since 1970 as if it were UTC) is in it.
    #[must_use]
    pub fn contains(&self, local_ns: i64) -> bool {
        let of_day = local_ns.rem_euclid(NS_PER_DAY);
        let (from, to) = (self.from.ns(), self.to.ns());
        if from < to { (from..to).contains(&of_day) } else { of_day >= from || of_day < to }
    }

    /// `wall_ns` if it is in it, otherwise the moment at which it opens next.
    #[must_use]
    pub fn open_from(&self, zone: &Zone, wall_ns: i64) -> i64 {
        let local_ns = zone.local_ns(wall_ns);
        if self.contains(local_ns) {
            return wall_ns;
        }
        let left = (self.from.ns() - local_ns.rem_euclid(NS_PER_DAY)).rem_euclid(NS_PER_DAY);
        let opens = zone.moment_ns(local_ns.saturating_add(left));
        if opens > wall_ns { opens } else { zone.moment_ns(local_ns.saturating_add(left + NS_PER_DAY)) }
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.from, self.to)
    }
}

/// Text that is not a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotAWindow;

impl fmt::Display for NotAWindow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a part of a day; write HH:MM-HH:MM with two different times, such as 22:00-06:00")
    }
}

impl std::error::Error for NotAWindow {}

impl FromStr for Window {
    type Err = NotAWindow;

    fn from_str(text: &str) -> Result<Window, NotAWindow> {
        let (from, to) = text.split_once('-').ok_or(NotAWindow)?;
        let time = |text: &str| text.parse::<TimeOfDay>().map_err(|_| NotAWindow);
        let window = Window { from: time(from)?, to: time(to)? };
        if window.from == window.to { Err(NotAWindow) } else { Ok(window) }
    }
}

impl TryFrom<String> for Window {
    type Error = NotAWindow;

    fn try_from(text: String) -> Result<Window, NotAWindow> {
        text.parse()
    }
}

impl From<Window> for String {
    fn from(window: Window) -> String {
        window.to_string()
    }
}

/// A time of the day; written `02:30`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TimeOfDay {
    /// Minutes since midnight, 0..1440.
    minutes: u16,
}

impl Schedule {
    /// A schedule of multiples of `every_ms` milliseconds.
    #[must_use]
    pub fn every(every_ms: u64) -> Schedule {
        Schedule { every: every_ms, ..Schedule::default() }
    }

    /// Checks every bound.
    ///
    /// # Errors
    /// [`PolicyFault::Range`].
    pub fn check(&self) -> Result<(), PolicyFault> {
        if self.cron.is_some() {
            let allowed = "left out where there is a cron line";
            let fault = |field| Err(PolicyFault::Range { field, allowed });
            return match (self.every, self.at) {
                (0, None) => Ok(()),
                (0, Some(_)) => fault("schedule, at"),
                _ => fault("schedule, every"),
            };
        }
        if !(EVERY_MS_MIN..=EVERY_MS_MAX).contains(&self.every) {
            return Err(PolicyFault::Range { field: "schedule, every", allowed: "from 1m to 366d" });
        }
        if self.at.is_some() && !self.is_of_days() {
            let allowed = "left out unless the period is whole days, such as 1d";
            return Err(PolicyFault::Range { field: "schedule, at", allowed });
        }
        Ok(())
    }

    fn is_of_days(&self) -> bool {
        self.every.is_multiple_of(DAY_MS)
    }

    fn every_ns(&self) -> i64 {
        self.every.clamp(EVERY_MS_MIN, EVERY_MS_MAX) as i64 * NS_PER_MS
    }

    /// The first time of the schedule after `wall_ns`, in nanoseconds since 1970, whatever its window.
    fn first_after(&self, zone: &Zone, wall_ns: i64) -> i64 {
        if self.cron.is_none() && !self.is_of_days() {
            return wall_ns.saturating_add(self.every_ns() - wall_ns.rem_euclid(self.every_ns()));
        }
        let mut local_ns = zone.local_ns(wall_ns);
        // What the zone's clock shows again was due when it showed it first.
        for _ in 0..SHOWN_TWICE_MAX {
            local_ns = self.next_local(local_ns);
            let moment_ns = zone.moment_ns(local_ns);
            if moment_ns > wall_ns {
                return moment_ns;
            }
        }
        wall_ns.saturating_add(NS_PER_DAY)
    }

    /// The first time of the schedule that a clock shows after `local_ns`.
    fn next_local(&self, local_ns: i64) -> i64 {
        match &self.cron {
            Some(cron) => {
                let minute = cron.first_from(local_ns.div_euclid(NS_PER_MINUTE) + 1);
                minute.map_or(i64::MAX, |minute| minute.saturating_mul(NS_PER_MINUTE))
            }
            None => {
                let (every, at) = (self.every_ns(), self.at.map_or(0, TimeOfDay::ns));
                let since = local_ns.saturating_sub(at).rem_euclid(every);
                local_ns.saturating_add(every - since)
            }
        }
    }

    /// When that is due for which the time has come at `due_ns`: in the window, if there is one.
    pub fn open_from(&self, zone: &Zone, due_ns: i64, now_ns: i64) -> i64 {
        let Some(window) = &self.window else { return due_ns };
        let open_ns = window.open_from(zone, due_ns.max(now_ns));
        if open_ns <= now_ns { due_ns } else { open_ns }
    }

    /// How far ahead a start may be before the clock is doubted, as a moment.
    fn reach_ns(&self, zone: &Zone, now_ns: i64) -> i64 {
        match self.cron {
            Some(_) => self.first_after(zone, now_ns).max(now_ns.saturating_add(60 * NS_PER_MINUTE)),
            None => now_ns.saturating_add(self.every_ns()),
        }
    }
}

/// When the next backup of `policy` is due, in nanoseconds since 1970; at or before `now_wall_ns` means now. `None`: it has no
/// schedule.
///
/// `last_start_wall_ns` is the wall clock time at which the last backup was started, however that ended;
/// `None` when there was none. A schedule that was set later counts from then.
pub fn next_due(policy: &Policy, last_start_wall_ns: Option<i64>, now_wall_ns: i64) -> Option<i64> {
    let schedule = policy.schedule.as_ref()?;
    let since = schedule.since.map(|secs| secs.saturating_mul(NS_PER_SEC));
    let due_ns = match last_start_wall_ns.max(since) {
        None => now_wall_ns,
        Some(last) if is_ahead(policy, last, now_wall_ns) => schedule.first_after(&policy.zone, now_wall_ns),
        Some(last) => schedule.first_after(&policy.zone, last),
    };
    Some(schedule.open_from(&policy.zone, due_ns, now_wall_ns))
}

/// The next times of a policy's schedule after `wall_ns`, when each backup begins at once; none without a schedule.
pub fn next_times(policy: &Policy, wall_ns: i64) -> impl Iterator<Item = i64> + '_ {
    let after = move |last: i64| {
        let schedule = policy.schedule.as_ref()?;
        let time = schedule.first_after(&policy.zone, last);
        Some(schedule.open_from(&policy.zone, time, last)).filter(|&time| time < i64::MAX)
    };
    std::iter::successors(after(wall_ns), move |&last| after(last))
}

/// Whether a start, or the time since when a schedule holds, is so far ahead that a clock is or was wrong. Counted from now at each look,
/// the next time would never come: the time of one look must be kept. Nothing is ahead of a policy without a schedule.
pub fn is_ahead(policy: &Policy, start_wall_ns: i64, now_wall_ns: i64) -> bool {
    let is_beyond = |schedule: &Schedule| start_wall_ns > schedule.reach_ns(&policy.zone, now_wall_ns);
    policy.schedule.as_ref().is_some_and(is_beyond)
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.cron {
            Some(cron) => write!(f, "cron {cron}")?,
            None => write!(f, "every {}", format_duration_ms(self.every))?,
        }
        self.at.map_or(Ok(()), |at| write!(f, " at {at}"))?;
        self.window.map_or(Ok(()), |window| write!(f, " within {window}"))
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
        f.write_str("not a time of the day; write HH:MM, such as 02:30")
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
#[path = "schedule_test.rs"]
mod tests;
