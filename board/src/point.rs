//! `NAME[@POINT]`: which recovery point of which policy a person means.
//!
//! | written | means |
//! |---|---|
//! | `home` `home@latest` | the newest point |
//! | `home@17` | point 17 |
//! | `home@2026-11-21` | the newest point begun on that day or before it: what was backed up by then |
//! | `home@2026-11-21T03:16` | the newest point begun by the end of that minute; also down to the second, the hour or the month |
//! | `home@2026-11-21T03:16Z` | the same in UTC; without `Z` it is on the clock of the site ([`site_time`](crate::site_time)) |
//!
//! Does not: read anything. Source: ours.

use std::fmt;
use std::str::FromStr;

use windlass_agent::policy::{PolicyFault, check_name};

use windlass_agent::civil::{days_in_month, iso_utc};

use crate::site_time;

/// A policy and one of its points.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The policy's name.
    pub policy: String,
    /// Which point.
    pub point: PointRef,
}

/// A target whose point is named by its number, for what may not come back: a time means the newest point by then, and that may be one
/// that was not thought of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named(pub Target);

impl FromStr for Named {
    type Err = TargetFault;

    fn from_str(text: &str) -> Result<Named, TargetFault> {
        let target: Target = text.parse()?;
        match target.point {
            PointRef::Number(_) => Ok(Named(target)),
            PointRef::Latest | PointRef::Time(_) => Err(TargetFault::Unnamed(target.policy)),
        }
    }
}

/// How a point is named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PointRef {
    /// The newest.
    Latest,
    /// By number.
    Number(u32),
    /// The newest by then.
    Time(PointTime),
}

/// A time that names a point.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PointTime {
    /// As `iso_utc` writes it without its `Z`, down to the month, day, hour, minute or second.
    text: String,
    /// It is of UTC, not of the site's clock.
    utc: bool,
}

impl PointTime {
    /// Whether a point that began at `secs` since 1970 began by then.
    fn has_come(&self, secs: i64) -> bool {
        let clock = if self.utc { iso_utc(secs) } else { site_time::clock(secs) };
        clock.get(..self.text.len()).is_some_and(|begun| begun <= self.text.as_str())
    }
}

impl fmt::Display for PointTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.text, if self.utc { "Z" } else { "" })
    }
}

/// Text that names no point. `Display` says what to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TargetFault {
    /// The policy's name cannot be one.
    Name(PolicyFault),
    /// What stands behind the `@`.
    Point(String),
    /// It has the form of a time, and there is none such.
    NoSuchTime(String),
    /// No number stands behind the policy's name, where one has to.
    Unnamed(String),
}

impl fmt::Display for TargetFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TargetFault::Name(fault) => fault.fmt(f),
            TargetFault::Point(text) => write!(
                f,
                "{text:?} is not a point; write its number, latest, or a time such as 2026-11-21 or 2026-11-21T03:16, with Z for UTC"
            ),
            TargetFault::Unnamed(name) => write!(
                f,
                "name the point by its number, as in {name}@17; `windlass points {name}` lists them"
            ),
            TargetFault::NoSuchTime(text) => {
                write!(
                    f,
                    "{text:?} is no time: a month is 01 to 12, a day one that the month has, then 00:00:00 to 23:59:59"
                )
            }
        }
    }
}

impl std::error::Error for TargetFault {}

impl FromStr for Target {
    type Err = TargetFault;

    fn from_str(text: &str) -> Result<Target, TargetFault> {
        let (name, point) = text.split_once('@').unwrap_or((text, "latest"));
        check_name(name).map_err(TargetFault::Name)?;
        Ok(Target { policy: name.to_owned(), point: point.parse()? })
    }
}

impl FromStr for PointRef {
    type Err = TargetFault;

    fn from_str(text: &str) -> Result<PointRef, TargetFault> {
        let wrong = || TargetFault::Point(text.to_owned());
        if text == "latest" {
            return Ok(PointRef::Latest);
        }
        if text.bytes().all(|b| b.is_ascii_digit()) {
            return text.parse().ok().filter(|&n| n > 0).map(PointRef::Number).ok_or_else(wrong);
        }
        let time = text.replacen(' ', "T", 1);
        let (time, utc) = match time.strip_suffix('Z').filter(|time| time.contains('T')) {
            Some(time) => (time, true),
            None => (time.as_str(), false),
        };
        if !has_form_of_time(time) {
            return Err(wrong());
        }
        if !is_time(time) {
            return Err(TargetFault::NoSuchTime(text.to_owned()));
        }
        Ok(PointRef::Time(PointTime { text: time.to_owned(), utc }))
    }
}

/// Whether `text` is written as a time is, down to the month, day, hour, minute or second.
fn has_form_of_time(text: &str) -> bool {
    const FORM: &[u8] = b"0000-00-00T00:00:00";
    let fits = |(have, want): (u8, &u8)| if *want == b'0' { have.is_ascii_digit() } else { have == *want };
    matches!(text.len(), 7 | 10 | 13 | 16 | 19) && text.bytes().zip(FORM).all(fits)
}

/// Whether there is such a time; `text` has its form.
fn is_time(text: &str) -> bool {
    let number =
        |at: usize, digits: usize| text.get(at..at + digits).and_then(|part| part.parse::<u32>().ok());
    let (year, month) = (number(0, 4).unwrap_or(0), number(5, 2).unwrap_or(0));
    let below = |at: usize, limit: u32| number(at, 2).is_none_or(|value| value < limit);
    let day = number(8, 2).is_none_or(|day| (1..=days_in_month(year, month)).contains(&day));
    (1..=12).contains(&month) && day && below(11, 24) && below(14, 60) && below(17, 60)
}

impl fmt::Display for PointRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PointRef::Latest => f.write_str("latest"),
            PointRef::Number(number) => number.fmt(f),
            PointRef::Time(time) => time.fmt(f),
        }
    }
}

impl PointRef {
    /// Picks out of points given as (number, seconds since 1970 when it began), ascending by number; the number, or `None`.
    pub fn pick(&self, points: impl Iterator<Item = (u32, i64)>) -> Option<u32> {
        let mut fitting = points.filter(|&(number, secs)| match self {
            PointRef::Latest => true,
            PointRef::Number(wanted) => number == *wanted,
            PointRef::Time(time) => time.has_come(secs),
        });
        let first = fitting.next()?;
        Some(fitting.last().unwrap_or(first).0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POINTS: [(u32, i64); 4] =
        [(3, 1_795_231_002), (5, 1_795_231_062), (6, 1_795_231_070), (9, 1_795_400_000)];

    fn pick(text: &str) -> Option<u32> {
        // The same clock wherever the tests run; the environment of a process of tests stays as it is.
        site_time::use_utc();
        text.parse::<Target>().unwrap().point.pick(POINTS.into_iter())
    }

    #[test]
    fn points_are_found_by_number_latest_and_time() {
        assert_eq!(pick("home"), Some(9));
        assert_eq!(pick("home@latest"), Some(9));
        assert_eq!(pick("home@5"), Some(5));
        assert_eq!(pick("home@4"), None);
        assert_eq!(pick("home@2026-11-21"), Some(6));
        assert_eq!(pick("home@2026-11-21T03:16"), Some(3));
        assert_eq!(pick("home@2026-11-21 03:17"), Some(6));
        assert_eq!(pick("home@2026-11-21T03:17:42Z"), Some(5));
        assert_eq!(pick("home@2026-11"), Some(9));
        // No point begun just then: the newest before it is what there was.
        assert_eq!(pick("home@2026-11-22"), Some(6));
        assert_eq!(pick("home@2026-11-21T03:18Z"), Some(6));
        assert_eq!(pick("home@2030-01-01T00"), Some(9));
        assert_eq!(pick("home@2026-11-21T03:16:41"), None);
        assert_eq!(pick("home@2026-10"), None);
        assert_eq!(PointRef::Latest.pick(std::iter::empty()), None);
    }

    #[test]
    fn what_names_no_point_is_refused() {
        for text in [
            "home@",
            "home@yesterday",
            "home@2026",
            "home@0",
            "home@-1",
            "home@2026-1x",
            "home@2026-",
            "home@2026-11-2",
            "home@2026-11-21T3:16",
            "home@2026-11-21T03:16+01:00",
            "home@2026-11-21Z",
            "@3",
            "a b@3",
        ] {
            // "2026" alone is a number: point 2026.
            assert_eq!(text.parse::<Target>().is_err(), text != "home@2026", "{text}");
        }
        assert_eq!(pick("home@2026"), None);
        for text in [
            "2026-00",
            "2026-13-45",
            "2026-11-00",
            "2026-11-31",
            "2026-02-29",
            "2100-02-29",
            "2026-11-21T24:00",
            "2026-11-21T03:60",
            "2026-11-21T03:16:60",
        ] {
            assert_eq!(text.parse::<PointRef>(), Err(TargetFault::NoSuchTime(text.to_owned())));
        }
        assert!(
            "2024-02-29".parse::<PointRef>().is_ok() && "2000-02-29T23:59:59Z".parse::<PointRef>().is_ok()
        );
    }
}
