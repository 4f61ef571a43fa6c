//! Civil dates in UTC: from days and seconds since 1970 to years, months, days and ISO weeks, and back.
//!
//! Invariants: total for all of `i64` that wall clocks in nanoseconds can say; proleptic Gregorian.
//! Source: Howard Hinnant, "chrono-compatible low-level date algorithms"; ISO 8601 for weeks.

/// Seconds of a day.
pub const SECS_PER_DAY: i64 = 86_400;

/// A day of the calendar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Date {
    /// Year.
    pub year: i64,
    /// Month, 1..=12.
    pub month: i64,
    /// Day, 1..=31.
    pub day: i64,
}

impl Date {
    /// Of a number of days since 1970-01-01.
    #[must_use]
    pub fn from_days(days: i64) -> Date {
        let shifted = days + 719_468;
        let era = shifted.div_euclid(146_097);
        let day_of_era = shifted.rem_euclid(146_097);
        let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let shifted_month = (5 * day_of_year + 2) / 153;
        let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
        Date {
            year: year_of_era + era * 400 + i64::from(month <= 2),
            month,
            day: day_of_year - (153 * shifted_month + 2) / 5 + 1,
        }
    }

    /// Days since 1970-01-01. Months below 1 or above 12 and days beyond their month carry over: month 0 is the December before,
    /// the 31st of April is the 1st of May.
    #[must_use]
    pub fn days(self) -> i64 {
        let months = self.year * 12 + self.month - 1;
        // The year that begins in March holds the leap day at its end.
        let (year, month) = (months.div_euclid(12), months.rem_euclid(12) + 1);
        let year = year - i64::from(month <= 2);
        let era = year.div_euclid(400);
        let year_of_era = year.rem_euclid(400);
        let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + self.day - 1;
        era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
    }

    /// Year and number of its ISO week, 1..=53: weeks begin on Monday and are of the year that their Thursday is in.
    #[must_use]
    pub fn iso_week(self) -> (i64, i64) {
        let days = self.days();
        // 1970-01-01 was a Thursday.
        let thursday = days - (days + 3).rem_euclid(7) + 3;
        let year = Date::from_days(thursday).year;
        (year, (thursday - Date { year, month: 1, day: 1 }.days()) / 7 + 1)
    }
}

/// `2026-11-21T03:16:09Z` for seconds since 1970.
#[must_use]
pub fn iso_utc(secs: i64) -> String {
    let (days, time) = (secs.div_euclid(SECS_PER_DAY), secs.rem_euclid(SECS_PER_DAY));
    let Date { year, month, day } = Date::from_days(days);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", time / 3600, time / 60 % 60, time % 60)
}

/// `2026-11-21 03:16:09`, for tables.
#[must_use]
pub fn table_utc(secs: i64) -> String {
    iso_utc(secs).replace('T', " ").trim_end_matches('Z').to_owned()
}

/// Days of a month, 1 to 12, of a year; 31 for any other number.
#[must_use]
pub fn days_in_month(year: u32, month: u32) -> u32 {
    let is_leap = year.is_multiple_of(4) && !year.is_multiple_of(100) || year.is_multiple_of(400);
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if is_leap => 29,
        2 => 28,
        _ => 31,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_moments() {
        for (secs, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (-1, "1969-12-31T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_795_231_002, "2026-11-21T03:16:42Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
            (253_402_300_799, "9999-12-31T23:59:59Z"),
        ] {
            assert_eq!(iso_utc(secs), text);
        }
        assert_eq!(table_utc(0), "1970-01-01 00:00:00");
    }

    #[test]
    fn dates_there_and_back() {
        for days in (-800_000..800_000).step_by(13) {
            assert_eq!(Date::from_days(days).days(), days);
        }
        let date = |year, month, day| Date { year, month, day }.days();
        assert_eq!(date(2026, 0, 10), date(2025, 12, 10));
        assert_eq!(date(2026, 14, 1), date(2027, 2, 1));
        assert_eq!(date(2026, 4, 31), date(2026, 5, 1));
        assert_eq!(date(2026, -11, 1), date(2025, 1, 1));
    }

    #[test]
    fn weeks_of_the_turn_of_years() {
        let week = |year, month, day| Date { year, month, day }.iso_week();
        // From the table of ISO 8601 years.
        assert_eq!(week(2005, 1, 1), (2004, 53));
        assert_eq!(week(2005, 1, 3), (2005, 1));
        assert_eq!(week(2008, 12, 29), (2009, 1));
        assert_eq!(week(2010, 1, 3), (2009, 53));
        assert_eq!(week(2016, 1, 18), (2016, 3));
        assert_eq!(week(2026, 11, 29), (2026, 48));
    }
}
