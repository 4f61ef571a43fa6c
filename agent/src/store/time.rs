//! What time a store says that it is: the one clock that all nodes of a repository can read.
//!
//! | store | says it in |
//! |---|---|
//! | S3, Azure, Google | the `Date` of each answer, in whole seconds |
//! | a directory | the time of a file that was just written: on a share, the server's |
//! | etcd, memory | nowhere: members of etcd often run on the nodes themselves, each with its own clock |
//!
//! Invariants: what a store says is kept with the boot time at which it was heard, so that it goes on without the machine's wall clock. A
//! time before [`STORE_SECS_MIN`] is of a clock that was never set, and counts for nothing. Source: RFC 9110, 5.6.7.

use std::sync::{Mutex, PoisonError};

use windlass_hal::clock::Clock;

use crate::civil::{Date, SECS_PER_DAY};

/// A store that says an earlier time, in seconds since 1970, has a clock that was never set: 2024-01-01.
pub const STORE_SECS_MIN: i64 = 1_704_067_200;

const NS_PER_SEC: i64 = 1_000_000_000;
const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// What time it was in a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreTime {
    /// What the store said, in nanoseconds since 1970. Up to a second, and the time of an answer's way, before it was heard.
    pub wall_ns: i64,
    /// This machine's boot time when it was heard, in nanoseconds.
    pub at_ns: u64,
}

/// The newest that was heard. Shared by threads.
#[derive(Debug, Default)]
pub(super) struct Heard(Mutex<Option<StoreTime>>);

impl Heard {
    /// A store has just said a time: seconds since 1970, and nanoseconds.
    pub(super) fn hear(&self, clock: &dyn Clock, secs: i64, nanos: u32) {
        if secs >= STORE_SECS_MIN {
            let wall_ns = secs.saturating_mul(NS_PER_SEC).saturating_add(i64::from(nanos));
            let said = StoreTime { wall_ns, at_ns: clock.now().as_ns() };
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(said);
        }
    }

    /// What was heard last.
    pub(super) fn last(&self) -> Option<StoreTime> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Seconds since 1970 of a `Date` header: `Sun, 06 Nov 1994 08:49:37 GMT`. `None` for other ways to write it, which no server of today
/// uses.
pub(super) fn parse_date(text: &str) -> Option<i64> {
    let mut words = text.split(' ');
    let (_, day, month, year) = (words.next()?, words.next()?, words.next()?, words.next()?);
    let (time, zone) = (words.next()?, words.next()?);
    let digits = |text: &str| -> Option<i64> {
        let is_number = !text.is_empty() && text.len() <= 4 && text.bytes().all(|b| b.is_ascii_digit());
        if is_number { text.parse().ok() } else { None }
    };
    let month = 1 + MONTHS.iter().position(|name| *name == month)? as i64;
    let (year, day) = (digits(year)?, digits(day)?);
    let mut parts = time.split(':').map(digits);
    let (hour, minute, second) = (parts.next()??, parts.next()??, parts.next()??);
    let is_whole = words.next().is_none() && parts.next().is_none() && zone == "GMT";
    if !is_whole || day > 31 || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    Some(Date { year, month, day }.days() * SECS_PER_DAY + hour * 3600 + minute * 60 + second)
}

/// Seconds since 1970 as a `Date` header writes them.
pub(super) fn http_date(secs: i64) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    let (days, time) = (secs.div_euclid(SECS_PER_DAY), secs.rem_euclid(SECS_PER_DAY));
    let Date { year, month, day } = Date::from_days(days);
    let weekday = DAYS.get(days.rem_euclid(7) as usize).unwrap_or(&DAYS[0]);
    let month = MONTHS.get((month - 1) as usize).unwrap_or(&MONTHS[0]);
    let (hour, minute, second) = (time / 3600, time / 60 % 60, time % 60);
    format!("{weekday}, {day:02} {month} {year:04} {hour:02}:{minute:02}:{second:02} GMT")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use windlass_hal::sim::clock::SimClock;

    use super::*;

    #[test]
    fn a_date_is_read_as_servers_write_it_and_nothing_else_is() {
        assert_eq!(parse_date("Sun, 06 Nov 1994 08:49:37 GMT"), Some(784_111_777));
        assert_eq!(parse_date("Thu, 29 Feb 2024 23:59:59 GMT"), Some(1_709_251_199));
        for bad in [
            "",
            "Sunday, 06-Nov-94 08:49:37 GMT",
            "Sun Nov  6 08:49:37 1994",
            "Sun, 06 Nov 1994 08:49:37 CET",
            "Sun, 06 Nov 1994 08:49 GMT",
            "Sun, 06 Nov 1994 08:49:37 GMT x",
            "Sun, 06 Nov 1994 24:49:37 GMT",
            "Sun, 06 Nov 19940 08:49:37 GMT",
            "Sun, +6 Nov 1994 08:49:37 GMT",
            "Sun, 06 nov 1994 08:49:37 GMT",
        ] {
            assert_eq!(parse_date(bad), None, "{bad}");
        }
        assert_eq!(http_date(784_111_777), "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(http_date(0), "Thu, 01 Jan 1970 00:00:00 GMT");
        for secs in [951_782_399, 951_782_400, 1_709_251_199, 4_107_542_400] {
            assert_eq!(parse_date(&http_date(secs)), Some(secs));
        }
    }

    #[test]
    fn a_clock_that_was_never_set_counts_for_nothing() {
        let (heard, clock) = (Heard::default(), SimClock::new());
        clock.advance(Duration::from_secs(7));
        heard.hear(&clock, 0, 0);
        heard.hear(&clock, STORE_SECS_MIN - 1, 999_999_999);
        assert_eq!(heard.last(), None);
        heard.hear(&clock, STORE_SECS_MIN, 5);
        let said = StoreTime { wall_ns: STORE_SECS_MIN * NS_PER_SEC + 5, at_ns: 7_000_000_000 };
        assert_eq!(heard.last(), Some(said));
    }
}
