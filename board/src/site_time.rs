//! Times as people see them: on the clock of the site, with its abbreviation.
//!
//! | `TZ` | the site's zone |
//! |---|---|
//! | not set | `/etc/localtime`; without that file UTC |
//! | `Europe/Berlin`, `:Europe/Berlin` | that zone of the database that is in the program |
//! | `CET-1CEST,M3.5.0,M10.5.0/3` | the rule as POSIX writes it |
//! | `CET-1CEST` | the same without when summer time is: as the C library has it, from the second Sunday in March to the first in November |
//! | `/path/to/a/zone` | that file |
//! | anything else | UTC; a warning says so |
//!
//! `--utc` shows UTC whatever the site is. What `--json` prints, the log on stderr and what is stored are in UTC always.
//!
//! Invariants: one zone for the whole process, chosen before the first time is shown. Source: ours; tzset(3), `jiff`.

use std::path::Path;
use std::sync::OnceLock;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use windlass_agent::civil::table_utc;

/// Where systems keep the site's zone.
const LOCALTIME: &str = "/etc/localtime";
/// Largest file of a zone in bytes; the largest of the database has 4 KiB.
const ZONE_FILE_BYTES_MAX: u64 = 256 << 10;

/// When summer time is where a POSIX string names it and does not say that: `TZDEFRULESTRING` of the C library.
const SUMMER_TIME: &str = ",M3.2.0,M11.1.0";

/// Where the seconds begin in a time as it is shown, and how they look.
const SECONDS_AT: usize = "2026-11-21 04:16".len();
const SECONDS: &str = ":09";

static SITE: OnceLock<TimeZone> = OnceLock::new();

/// Shows UTC from now on. Too late when a time was shown already.
pub fn use_utc() {
    let _ = SITE.set(TimeZone::UTC);
}

fn site() -> &'static TimeZone {
    SITE.get_or_init(|| {
        let variable = std::env::var("TZ").ok();
        zone_of(variable.as_deref(), Path::new(LOCALTIME)).unwrap_or_else(|| {
            log::warn!("times are shown in UTC: TZ names no time zone tz={}", variable.unwrap_or_default());
            TimeZone::UTC
        })
    })
}

/// The zone that `TZ` names, or that `localtime` holds; `None` when `TZ` names none.
fn zone_of(variable: Option<&str>, localtime: &Path) -> Option<TimeZone> {
    let Some(named) = variable.filter(|named| !named.is_empty()) else {
        // An empty TZ is UTC, as in libc.
        return Some(match variable {
            Some(_) => TimeZone::UTC,
            None => of_file(localtime).unwrap_or(TimeZone::UTC),
        });
    };
    let named = named.strip_prefix(':').unwrap_or(named);
    if named.starts_with('/') {
        return of_file(Path::new(named));
    }
    let posix = || TimeZone::posix(named).or_else(|_| TimeZone::posix(&format!("{named}{SUMMER_TIME}")));
    TimeZone::get(named).or_else(|_| posix()).ok()
}

fn of_file(path: &Path) -> Option<TimeZone> {
    let is_small = path.metadata().is_ok_and(|meta| meta.is_file() && meta.len() <= ZONE_FILE_BYTES_MAX);
    let bytes = is_small.then(|| std::fs::read(path).ok()).flatten()?;
    TimeZone::tzif("local", &bytes).ok()
}

/// `2026-11-21 04:16:09 CET` for seconds since 1970.
#[must_use]
pub fn shown(secs: i64) -> String {
    shown_in(site(), secs)
}

fn shown_in(zone: &TimeZone, secs: i64) -> String {
    let Ok(moment) = Timestamp::from_second(secs) else { return format!("{} UTC", table_utc(secs)) };
    let info = zone.to_offset_info(moment);
    let local = secs.saturating_add(info.offset().seconds().into());
    format!("{} {}", table_utc(local), info.abbreviation())
}

/// `2026-11-21 04:16 CET`, for lines that have to be short.
#[must_use]
pub fn to_the_minute(secs: i64) -> String {
    let shown = shown(secs);
    let (date, rest) = shown.split_at_checked(SECONDS_AT).unwrap_or((&shown, ""));
    format!("{date}{}", rest.get(SECONDS.len()..).unwrap_or_default())
}

/// `2026-11-21T04:16:09`: what the site's clock shows, without its name.
#[must_use]
pub fn clock(secs: i64) -> String {
    clock_in(site(), secs)
}

fn clock_in(zone: &TimeZone, secs: i64) -> String {
    let offset = Timestamp::from_second(secs).map_or(0, |moment| zone.to_offset(moment).seconds());
    table_utc(secs.saturating_add(offset.into())).replace(' ', "T")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zones_come_from_the_environment_or_the_site_and_have_names() {
        let none = Path::new("/none/such");
        let of = |variable: Option<&str>| zone_of(variable, none).map(|zone| shown_in(&zone, 1_795_231_002));
        assert_eq!(of(None).unwrap(), "2026-11-21 03:16:42 UTC");
        assert_eq!(of(Some("")).unwrap(), "2026-11-21 03:16:42 UTC");
        for berlin in ["Europe/Berlin", ":Europe/Berlin", "CET-1CEST,M3.5.0,M10.5.0/3"] {
            assert_eq!(of(Some(berlin)).unwrap(), "2026-11-21 04:16:42 CET", "{berlin}");
        }
        for (short, shown) in [
            ("CET-1CEST", "2026-11-21 04:16:42 CET"),
            ("EST5EDT", "2026-11-20 22:16:42 EST"),
            (":CET-1CEST", "2026-11-21 04:16:42 CET"),
            ("<+03>-3", "2026-11-21 06:16:42 +03"),
        ] {
            assert_eq!(of(Some(short)).as_deref(), Some(shown), "{short}");
        }
        // As `TZ=CET-1CEST date` shows it.
        let short = zone_of(Some("CET-1CEST"), none).unwrap();
        assert_eq!(shown_in(&short, 1_782_864_000), "2026-07-01 02:00:00 CEST");
        assert_eq!(shown_in(&short, 1_774_746_000), "2026-03-29 03:00:00 CEST");
        assert_eq!(of(Some("America/New_York")).unwrap(), "2026-11-20 22:16:42 EST");
        assert_eq!(of(Some("Europe/Atlantis")), None);
        assert_eq!(of(Some("/none/such")), None);
        let berlin = zone_of(Some("Europe/Berlin"), none).unwrap();
        assert_eq!(shown_in(&berlin, 1_782_864_000), "2026-07-01 02:00:00 CEST");
        assert_eq!(clock_in(&berlin, 1_782_864_000), "2026-07-01T02:00:00");
        for end in [i64::MIN / 1_000_000_000, i64::MAX / 1_000_000_000] {
            let _ = shown_in(&berlin, end);
        }
    }
}
