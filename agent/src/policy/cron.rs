//! The five fields of cron: which minutes of the calendar they name.
//!
//! | field | values | names |
//! |---|---|---|
//! | minute | 0 to 59 | |
//! | hour | 0 to 23 | |
//! | day of the month | 1 to 31 | |
//! | month | 1 to 12 | jan to dec |
//! | day of the week | 0 to 7; 0 and 7 are Sunday | sun to sat |
//!
//! A field is a list with commas between: `*`, a value, a range `A-B`, and `*/N` or `A-B/N`, which is each N-th of them. Where both days say
//! more than `*`, one of them is enough; a day field with `*` in it (such as `*/2`) must hold too, as cron itself has it.
//!
//! Invariants: a [`Cron`] names at least one day of some year; its text is as it was written. Does not: know zones (`policy::zone`).
//! Source: crontab(5) of Vixie cron; the tests compare with `croner`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::civil::{Date, days_in_month};

/// Bytes of the five fields: lists of all values fit.
pub const CRON_BYTES_MAX: usize = 512;
/// Days in which a named day must come: 29 February of a given weekday comes after 40 years at the latest, around a year like 2100.
const DAYS_MAX: i64 = 41 * 366;
const MINUTES_PER_DAY: i64 = 1440;

const MONTHS: [&str; 12] =
    ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const WEEKDAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

/// What a field may say.
struct Field {
    name: &'static str,
    first: u32,
    last: u32,
    /// Names of the values from `first` on.
    names: &'static [&'static str],
    allowed: &'static str,
}

const FIELDS: [Field; 5] = [
    Field { name: "minute", first: 0, last: 59, names: &[], allowed: "0 to 59" },
    Field { name: "hour", first: 0, last: 23, names: &[], allowed: "0 to 23" },
    Field { name: "day of the month", first: 1, last: 31, names: &[], allowed: "1 to 31" },
    Field { name: "month", first: 1, last: 12, names: &MONTHS, allowed: "1 to 12, or jan to dec" },
    Field {
        name: "day of the week",
        first: 0,
        last: 7,
        names: &WEEKDAYS,
        allowed: "0 to 7 (0 and 7 are Sunday), or sun to sat",
    },
];

/// Minutes of the calendar; written as five fields.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Cron {
    text: String,
    /// A bit for each value of each field.
    bits: [u64; 5],
    /// Whether each of both day fields has a `*`.
    stars: [bool; 2],
}

/// Text that is not five fields of cron. `Display` says where and what is allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CronFault {
    /// Another number of fields than five.
    Fields(usize),
    /// A part of a field; counted from 1 in characters.
    Part {
        /// Where it begins.
        at: usize,
        /// Number of the field, 0 to 4.
        field: usize,
        /// The part as it was written.
        part: String,
    },
    /// No year has such a day.
    NoSuchDay,
    /// Too long.
    Long,
}

impl fmt::Display for CronFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CronFault::Fields(count) => write!(
                f,
                "a cron line has 5 fields (minute, hour, day of the month, month, day of the week), not {count}; such as \"30 2 * * 1-5\""
            ),
            CronFault::Part { at, field, part } => {
                let Some(field) = FIELDS.get(*field) else { return Ok(()) };
                write!(
                    f,
                    "character {at}, {}: {part:?} is not allowed; write {}, ranges A-B, steps A-B/N or */N, with commas between, or *",
                    field.name, field.allowed
                )
            }
            CronFault::NoSuchDay => f.write_str("no year has such a day: the month is shorter"),
            CronFault::Long => write!(f, "a cron line has at most {CRON_BYTES_MAX} bytes"),
        }
    }
}

impl std::error::Error for CronFault {}

impl Field {
    fn value(&self, text: &str) -> Option<u32> {
        let lower = text.to_ascii_lowercase();
        if let Some(at) = self.names.iter().position(|name| *name == lower) {
            return u32::try_from(at).ok().map(|at| at + self.first);
        }
        let is_number = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        text.parse().ok().filter(|value| is_number && (self.first..=self.last).contains(value))
    }

    /// The bits of one part of the list.
    fn part(&self, text: &str) -> Option<u64> {
        let (range, step) = match text.split_once('/') {
            Some((range, step)) => {
                let is_number = !step.is_empty() && step.bytes().all(|b| b.is_ascii_digit());
                let step =
                    step.parse::<u32>().ok().filter(|&step| is_number && step > 0 && step <= self.last)?;
                (range, Some(step))
            }
            None => (text, None),
        };
        let (from, to) = match range.split_once('-') {
            _ if range == "*" => (self.first, self.last),
            Some((from, to)) => (self.value(from)?, self.value(to)?),
            // One value has no steps: where they would end is for each cron to say.
            None if step.is_some() => return None,
            None => (self.value(range)?, self.value(range)?),
        };
        // fri-sun
        let to = if self.last == 7 && to == 0 && from > 0 { 7 } else { to };
        (from <= to)
            .then(|| (from..=to).step_by(step.unwrap_or(1) as usize).fold(0, |bits, at| bits | 1 << at))
    }
}

impl FromStr for Cron {
    type Err = CronFault;

    fn from_str(text: &str) -> Result<Cron, CronFault> {
        if text.len() > CRON_BYTES_MAX {
            return Err(CronFault::Long);
        }
        let words: Vec<&str> = text.split_ascii_whitespace().collect();
        let words: [&str; 5] = words.try_into().map_err(|words: Vec<&str>| CronFault::Fields(words.len()))?;
        let mut bits = [0u64; 5];
        let mut begin = 0;
        for (number, ((word, field), bits)) in words.iter().zip(&FIELDS).zip(&mut bits).enumerate() {
            begin +=
                text.get(begin..).and_then(|rest| rest.find(|c: char| !c.is_ascii_whitespace())).unwrap_or(0);
            let mut at = begin;
            for part in word.split(',') {
                let wrong = || CronFault::Part {
                    at: text.get(..at).map_or(0, |before| before.chars().count()) + 1,
                    field: number,
                    part: part.to_owned(),
                };
                *bits |= field.part(part).ok_or_else(wrong)?;
                at += part.len() + 1;
            }
            begin += word.len();
        }
        let [.., weekdays] = &mut bits;
        // 7 is Sunday, as 0 is.
        *weekdays = (*weekdays | *weekdays >> 7) & 0x7f;
        let stars = [words[2].contains('*'), words[4].contains('*')];
        let cron = Cron { text: words.join(" "), bits, stars };
        if cron.needs_weekday() || cron.has_day() { Ok(cron) } else { Err(CronFault::NoSuchDay) }
    }
}

impl Cron {
    fn has(&self, field: usize, value: i64) -> bool {
        self.bits.get(field).is_some_and(|bits| (0..64).contains(&value) && bits >> value & 1 == 1)
    }

    /// Whether a weekday alone names a day.
    fn needs_weekday(&self) -> bool {
        !self.stars.contains(&true)
    }

    /// Whether a month in it has a day in it.
    fn has_day(&self) -> bool {
        (1..=12).any(|month| {
            // A leap year.
            (1..=days_in_month(2000, month)).any(|day| self.has(3, month.into()) && self.has(2, day.into()))
        })
    }

    fn is_on(&self, day: i64) -> bool {
        let date = Date::from_days(day);
        // 1970-01-01 was a Thursday.
        let (of_month, of_week) = (self.has(2, date.day), self.has(4, (day + 4).rem_euclid(7)));
        let fits = if self.needs_weekday() { of_month || of_week } else { of_month && of_week };
        fits && self.has(3, date.month)
    }

    /// The first of its minutes at or after `minute`, both in minutes of the calendar since 1970. `None`: not within [`DAYS_MAX`] days.
    #[must_use]
    pub fn first_from(&self, minute: i64) -> Option<i64> {
        let today = minute.div_euclid(MINUTES_PER_DAY);
        (today..=today + DAYS_MAX).filter(|&day| self.is_on(day)).find_map(|day| {
            let from = if day == today { minute.rem_euclid(MINUTES_PER_DAY) } else { 0 };
            let fits = |of_day: &i64| self.has(1, of_day / 60) && self.has(0, of_day % 60);
            (from..MINUTES_PER_DAY).find(fits).map(|of_day| day * MINUTES_PER_DAY + of_day)
        })
    }
}

impl fmt::Display for Cron {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl TryFrom<String> for Cron {
    type Error = CronFault;

    fn try_from(text: String) -> Result<Cron, CronFault> {
        text.parse()
    }
}

impl From<Cron> for String {
    fn from(cron: Cron) -> String {
        cron.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str, year: i64, month: i64, day: i64, minute: i64) -> Option<(Date, i64)> {
        let from = Date { year, month, day }.days() * MINUTES_PER_DAY + minute;
        let found = text.parse::<Cron>().unwrap().first_from(from)?;
        Some((Date::from_days(found.div_euclid(MINUTES_PER_DAY)), found.rem_euclid(MINUTES_PER_DAY)))
    }

    fn on(year: i64, month: i64, day: i64, minute: i64) -> Option<(Date, i64)> {
        Some((Date { year, month, day }, minute))
    }

    #[test]
    fn fields_name_minutes() {
        // 2026-11-29 was a Sunday.
        assert_eq!(at("30 2 * * *", 2026, 11, 29, 0), on(2026, 11, 29, 150));
        assert_eq!(at("30 2 * * *", 2026, 11, 29, 150), on(2026, 11, 29, 150), "the minute itself");
        assert_eq!(at("30 2 * * *", 2026, 11, 29, 151), on(2026, 11, 30, 150));
        assert_eq!(at("0 0 * * 1-5", 2026, 11, 28, 0), on(2026, 11, 30, 0));
        assert_eq!(at("0 0 * * 7", 2026, 11, 28, 0), on(2026, 11, 29, 0));
        assert_eq!(at("0 0 * * FRI-sun", 2026, 11, 23, 0), on(2026, 11, 27, 0));
        assert_eq!(at("*/20 5-7/2 * * *", 2026, 11, 29, 341), on(2026, 11, 29, 420));
        assert_eq!(at("5,7 0 1 jan,Jul *", 2026, 2, 1, 0), on(2026, 7, 1, 5));
        assert_eq!(at("0 0 29 2 *", 2096, 3, 1, 0), on(2104, 2, 29, 0), "2100 is no leap year");
        assert!(at("0 0 */29 2 1", 2096, 3, 1, 0).is_some(), "a star in a day field: both must hold");
        // Both days are restricted: one is enough.
        assert_eq!(at("0 0 13 * fri", 2026, 11, 12, 0), on(2026, 11, 13, 0));
        assert_eq!(at("0 0 15 * fri", 2026, 11, 14, 0), on(2026, 11, 15, 0));
        // One has a star: both must hold. The first Monday on an odd day.
        assert_eq!(at("0 0 */2 * mon", 2026, 11, 1, 0), on(2026, 11, 9, 0));
    }

    #[test]
    fn what_is_wrong_is_named_by_its_place() {
        for (text, at, field, part) in [
            ("60 * * * *", 1, 0, "60"),
            ("0 24 * * *", 3, 1, "24"),
            ("0 1,x * * *", 5, 1, "x"),
            ("0  0 0 * *", 6, 2, "0"),
            ("0 0 * 13 *", 7, 3, "13"),
            ("0 0 * foo *", 7, 3, "foo"),
            ("0 0 * * 8", 9, 4, "8"),
            ("0 5-2 * * *", 3, 1, "5-2"),
            ("*/0 * * * *", 1, 0, "*/0"),
            ("5/10 * * * *", 1, 0, "5/10"),
            ("+5 * * * *", 1, 0, "+5"),
            ("1,,2 * * * *", 3, 0, ""),
            ("0 0 ? * *", 5, 2, "?"),
        ] {
            let part = part.to_owned();
            assert_eq!(text.parse::<Cron>(), Err(CronFault::Part { at, field, part }), "{text}");
        }
        let said = "0 24 * * *".parse::<Cron>().unwrap_err().to_string();
        assert!(said.contains("character 3, hour") && said.contains("0 to 23"), "{said}");
        assert_eq!("0 0 * *".parse::<Cron>(), Err(CronFault::Fields(4)));
        assert_eq!("0 0 31 feb,apr *".parse::<Cron>(), Err(CronFault::NoSuchDay));
        assert!("0 0 31 feb mon".parse::<Cron>().is_ok(), "each Monday of February");
        assert_eq!("0 ".repeat(300).parse::<Cron>(), Err(CronFault::Long));
        assert_eq!(" 0   2 * * * ".parse::<Cron>().unwrap().to_string(), "0 2 * * *");
    }
}
