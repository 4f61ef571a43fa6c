//! `NAME[@POINT]`: which recovery point of which policy a person means.
//!
//! | written | means |
//! |---|---|
//! | `home` `home@latest` | the newest point |
//! | `home@17` | point 17 |
//! | `home@2026-11-21` | the newest point begun on that day (UTC) |
//! | `home@2026-11-21T03:16` | the newest point begun in that minute; any prefix of the time works, from the year on |
//!
//! Does not: read anything. Source: ours.

use std::fmt;
use std::str::FromStr;

use windlass_agent::policy::{PolicyFault, check_name};

use crate::calendar::iso_utc;

/// A policy and one of its points.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The policy's name.
    pub policy: String,
    /// Which point.
    pub point: PointRef,
}

/// How a point is named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PointRef {
    /// The newest.
    Latest,
    /// By number.
    Number(u32),
    /// By the beginning of its time, as `iso_utc` writes it.
    Time(String),
}

/// Text that names no point. `Display` says what to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TargetFault {
    /// The policy's name cannot be one.
    Name(PolicyFault),
    /// What stands behind the `@`.
    Point(String),
}

impl fmt::Display for TargetFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TargetFault::Name(fault) => fault.fmt(f),
            TargetFault::Point(text) => write!(
                f,
                "{text:?} is not a point; write its number, latest, or a time such as 2026-11-21 or 2026-11-21T03:16"
            ),
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
        if is_time_prefix(&time) { Ok(PointRef::Time(time)) } else { Err(wrong()) }
    }
}

/// Whether `text` begins like a time, from `YYYY-` on.
fn is_time_prefix(text: &str) -> bool {
    const SHAPE: &[u8] = b"0000-00-00T00:00:00Z";
    let fits = |(have, want): (u8, &u8)| if *want == b'0' { have.is_ascii_digit() } else { have == *want };
    (5..=SHAPE.len()).contains(&text.len()) && text.bytes().zip(SHAPE).all(fits)
}

impl fmt::Display for PointRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PointRef::Latest => f.write_str("latest"),
            PointRef::Number(number) => number.fmt(f),
            PointRef::Time(time) => f.write_str(time),
        }
    }
}

impl PointRef {
    /// Picks out of points given as (number, seconds since 1970 when it began), ascending by number; the number, or `None`.
    pub fn pick(&self, points: impl Iterator<Item = (u32, i64)>) -> Option<u32> {
        let mut fitting = points.filter(|&(number, secs)| match self {
            PointRef::Latest => true,
            PointRef::Number(wanted) => number == *wanted,
            PointRef::Time(time) => iso_utc(secs).starts_with(time),
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
        assert_eq!(pick("home@2026-11-2"), Some(9));
        assert_eq!(pick("home@2025-"), None);
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
            "home@2026-11-21Z",
            "@3",
            "a b@3",
        ] {
            // "2026" alone is a number: point 2026.
            assert_eq!(text.parse::<Target>().is_err(), text != "home@2026", "{text}");
        }
        assert_eq!(pick("home@2026"), None);
    }
}
