//! Limits by the time of day: what holds in a part of each day in place of a policy's general limits.
//!
//! ```text
//!  08:00-18:00 20MiB/s                       uploads, in these hours
//!  08:00-18:00 up 20MiB/s down 50MiB/s iops 500
//!  22:00-06:00 up 0                          no limit of uploads, whatever the general one is
//! ```
//!
//! Hours are on the clock of the policy's zone. Of several that hold at a moment the lowest limit counts; what none of them says is as the
//! general limits say. All limits of a policy are those of all nodes together: each node has its part of them ([`Rates::part`]).
//!
//! Invariants: what is written parses to the same value. Pure: does not read a clock. Source: ours.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::schedule::Window;
use super::zone::Zone;
use super::{Limits, optional_size};
use crate::store::throttle::PIECE_BYTES_MAX;
use crate::units::{format_bytes, parse_bytes};

/// Parts of a day of a policy: more than anybody keeps track of.
pub const HOURS_MAX: usize = 16;
/// Lowest limit in bytes a second, also of a part: a piece of a body then takes a second. Below it a few uploads side by side would keep a
/// request waiting for longer than a lease holds.
pub const RATE_BYTES_S_MIN: u64 = PIECE_BYTES_MAX as u64;

/// Limits in a part of each day. What is missing is as the general limits say; 0 is no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hours {
    /// When.
    pub window: Window,
    /// Bytes per second to the store.
    #[serde(default, with = "optional_size", skip_serializing_if = "Option::is_none")]
    pub upload: Option<u64>,
    /// Bytes per second from the store.
    #[serde(default, with = "optional_size", skip_serializing_if = "Option::is_none")]
    pub download: Option<u64>,
    /// Operations per second on each device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_iops: Option<u32>,
}

/// Text that says no limits of a part of the day.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotHours {
    /// It does not begin with a part of the day.
    Window(String),
    /// This word is no limit.
    Word(String),
    /// This limit is said twice.
    Twice(&'static str),
    /// Nothing is said of that time.
    Nothing,
    /// This limit is too low.
    Low(String),
}

impl fmt::Display for NotHours {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NotHours::Window(text) => {
                write!(f, "{text:?} is no part of a day; begin with one such as 08:00-18:00, then limits")
            }
            NotHours::Word(text) => {
                write!(f, "{text:?} is no limit; write 20MiB/s or `up 20MiB/s`, `down 50MiB/s`, `iops 500`")
            }
            NotHours::Twice(what) => write!(f, "{what} is there twice"),
            NotHours::Nothing => {
                f.write_str("no limit follows the part of the day, as in \"08:00-18:00 20MiB/s\"")
            }
            NotHours::Low(text) => write!(
                f,
                "{text} is too low; write at least {}/s, or 0 for no limit",
                format_bytes(RATE_BYTES_S_MIN)
            ),
        }
    }
}

impl std::error::Error for NotHours {}

impl FromStr for Hours {
    type Err = NotHours;

    fn from_str(text: &str) -> Result<Hours, NotHours> {
        let mut words = text.split_whitespace();
        let first = words.next().unwrap_or_default();
        let window = first.parse().map_err(|_| NotHours::Window(first.to_owned()))?;
        let mut hours = Hours { window, upload: None, download: None, device_iops: None };
        let rate = |word: Option<&str>| {
            let word = word.unwrap_or_default();
            let bytes = parse_bytes(word.strip_suffix("/s").unwrap_or(word));
            match bytes.map_err(|_| NotHours::Word(word.to_owned()))? {
                low @ 1.. if low < RATE_BYTES_S_MIN => Err(NotHours::Low(word.to_owned())),
                bytes => Ok(bytes),
            }
        };
        while let Some(word) = words.next() {
            let is_twice = match word {
                "down" => hours.download.replace(rate(words.next())?).is_some().then_some("down"),
                "iops" => {
                    let number = words.next().unwrap_or_default();
                    let iops = number.parse().map_err(|_| NotHours::Word(format!("iops {number}")))?;
                    hours.device_iops.replace(iops).is_some().then_some("iops")
                }
                "up" => hours.upload.replace(rate(words.next())?).is_some().then_some("up"),
                bare => hours.upload.replace(rate(Some(bare))?).is_some().then_some("up"),
            };
            if let Some(what) = is_twice {
                return Err(NotHours::Twice(what));
            }
        }
        if hours.is_empty() { Err(NotHours::Nothing) } else { Ok(hours) }
    }
}

impl fmt::Display for Hours {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.window.fmt(f)?;
        let rate =
            |bytes: u64| if bytes == 0 { "0".to_owned() } else { format!("{}/s", format_bytes(bytes)) };
        for (name, bytes) in [("up", self.upload), ("down", self.download)] {
            bytes.map_or(Ok(()), |bytes| write!(f, " {name} {}", rate(bytes)))?;
        }
        self.device_iops.map_or(Ok(()), |iops| write!(f, " iops {iops}"))
    }
}

impl Hours {
    fn is_empty(&self) -> bool {
        (self.upload, self.download, self.device_iops) == (None, None, None)
    }

    /// Whether it says something, and no rate that is too low.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        let is_fit = |rate: Option<u64>| rate.is_none_or(|rate| rate == 0 || rate >= RATE_BYTES_S_MIN);
        !self.is_empty() && is_fit(self.upload) && is_fit(self.download)
    }
}

/// What holds at a moment; 0 is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rates {
    /// Bytes per second to the store.
    pub upload: u64,
    /// Bytes per second from the store.
    pub download: u64,
    /// Operations per second on each device.
    pub device_iops: u32,
}

impl Rates {
    /// What one of so many nodes may take of it. No part is lower than [`RATE_BYTES_S_MIN`] and one operation a second.
    #[must_use]
    pub fn part(self, nodes: u32) -> Rates {
        let rate = |all: u64| match all {
            0 => 0,
            all => (all / u64::from(nodes.max(1))).max(RATE_BYTES_S_MIN.min(all)),
        };
        let device_iops = match self.device_iops {
            0 => 0,
            all => (all / nodes.max(1)).max(1),
        };
        Rates { upload: rate(self.upload), download: rate(self.download), device_iops }
    }
}

impl Limits {
    /// What holds at a moment, in nanoseconds since 1970, for all nodes together.
    #[must_use]
    pub fn at(&self, zone: &Zone, wall_ns: i64) -> Rates {
        let local_ns = if self.hours.is_empty() { 0 } else { zone.local_ns(wall_ns) };
        let hold = || self.hours.iter().filter(|hours| hours.window.contains(local_ns));
        // Of those that say it the lowest; one without a limit is the highest.
        let of = |said: fn(&Hours) -> Option<u64>, general: Option<u64>| {
            let lowest = hold().filter_map(said).min_by_key(|&rate| if rate == 0 { u64::MAX } else { rate });
            lowest.or(general).unwrap_or(0)
        };
        let iops = of(|hours| hours.device_iops.map(u64::from), self.device_iops.map(u64::from));
        Rates {
            upload: of(|hours| hours.upload, self.upload),
            download: of(|hours| hours.download, self.download),
            device_iops: u32::try_from(iops).unwrap_or(u32::MAX),
        }
    }

    /// Whether operations on devices are limited at any time.
    #[must_use]
    pub fn limits_iops(&self) -> bool {
        self.device_iops.is_some()
            || self.hours.iter().any(|hours| hours.device_iops.is_some_and(|iops| iops > 0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::civil::Date;

    const MIB: u64 = 1 << 20;

    fn hours(text: &str) -> Hours {
        text.parse().unwrap()
    }

    #[test]
    fn what_is_written_is_what_is_read_and_mistakes_are_named() {
        for (text, shown) in [
            ("08:00-18:00 20MiB/s", "08:00-18:00 up 20MiB/s"),
            ("22:00-06:00 up 0", "22:00-06:00 up 0"),
            ("08:00-18:00  iops 500 down 1MiB up 64KiB", "08:00-18:00 up 64KiB/s down 1MiB/s iops 500"),
        ] {
            assert_eq!(hours(text).to_string(), shown);
            assert_eq!(hours(shown), hours(text));
            let json = serde_json::to_string(&hours(text)).unwrap();
            assert_eq!(serde_json::from_str::<Hours>(&json).unwrap(), hours(text), "{json}");
        }
        for (text, says) in [
            ("", "is no part of a day"),
            ("8-18 20MiB/s", "\"8-18\" is no part of a day"),
            ("08:00-08:00 20MiB/s", "is no part of a day"),
            ("08:00-18:00", "no limit follows"),
            ("08:00-18:00 fast", "\"fast\" is no limit"),
            ("08:00-18:00 up", "\"\" is no limit"),
            ("08:00-18:00 iops many", "\"iops many\" is no limit"),
            ("08:00-18:00 up 1MiB 2MiB", "up is there twice"),
            ("08:00-18:00 10KiB/s", "10KiB/s is too low; write at least 64KiB/s"),
        ] {
            let why = text.parse::<Hours>().unwrap_err().to_string();
            assert!(why.contains(says), "{text}: {why}");
        }
    }

    #[test]
    fn hours_hold_on_the_clock_of_the_zone_and_the_lowest_counts() {
        let limits = Limits {
            upload: Some(50 * MIB),
            download: None,
            device_iops: Some(400),
            hours: vec![
                hours("08:00-18:00 20MiB/s iops 100"),
                hours("12:00-13:00 up 30MiB/s iops 0"),
                hours("22:00-06:00 up 0 down 1MiB/s"),
            ],
        };
        let berlin: Zone = "Europe/Berlin".parse().unwrap();
        // 2026-07-01 in UTC; Berlin is two hours ahead.
        let day_ns = Date { year: 2026, month: 7, day: 1 }.days() * 86_400_000_000_000;
        let at = |zone: &Zone, hour: i64, minute: i64| {
            let rates = limits.at(zone, day_ns + (hour * 60 + minute) * 60_000_000_000);
            (rates.upload / MIB, rates.download / MIB, rates.device_iops)
        };
        let utc = Zone::default();
        assert_eq!(at(&utc, 7, 59), (50, 0, 400), "the general ones");
        assert_eq!(at(&utc, 8, 0), (20, 0, 100), "the first minute is in it");
        assert_eq!(at(&utc, 12, 30), (20, 0, 100), "the lowest of two");
        assert_eq!(at(&utc, 18, 0), (50, 0, 400), "the last one is not");
        assert_eq!(at(&utc, 23, 0), (0, 1, 400), "0 lifts the general one");
        assert_eq!(at(&utc, 2, 0), (0, 1, 400));
        assert_eq!(at(&berlin, 6, 0), (20, 0, 100), "08:00 in Berlin");
        assert_eq!(at(&berlin, 16, 0), (50, 0, 400));
        assert_eq!(Limits::default().at(&utc, 0), Rates::default());
    }

    #[test]
    fn nodes_divide_what_holds_and_no_part_is_too_low() {
        let all = Rates { upload: 30 * MIB, download: 0, device_iops: 100 };
        assert_eq!(all.part(1), all);
        assert_eq!(all.part(0), all);
        assert_eq!(all.part(3), Rates { upload: 10 * MIB, download: 0, device_iops: 33 });
        let low = Rates { upload: 100 << 10, download: 4096, device_iops: 2 }.part(8);
        assert_eq!(low, Rates { upload: RATE_BYTES_S_MIN, download: 4096, device_iops: 1 });
    }
}
