//! Retention: which recovery points stay, and why each does.
//!
//! | rule | keeps |
//! |---|---|
//! | `last` N | the newest N points |
//! | `minutely` ... `yearly` N | the newest point of each of the newest N minutes, hours, days, ISO weeks, months, quarters, years that have a point |
//! | the same with `"all"` | the newest point of each such period |
//! | `within` SPAN | each point that is less than SPAN older than the newest |
//! | `within_hourly` ... `within_yearly` SPAN | of those, the newest of each period |
//! | `tags` | each point that has all tags of one of these lists |
//! | `at_least` N | the newest N points, whatever the others say |
//!
//! Rules are independent: each looks at all points and counts for itself; a point stays if one rule keeps it.
//!
//! ```text
//!             Mon 09 Mon 17 Tue 09 Tue 17 Wed 09      newest on the right
//!  last 2                            x      x
//!  daily 3             x             x      x         counts days that have a point: a day without one is not counted
//!  stays               x             x      x
//! ```
//!
//! While a counting rule has counts left at the oldest point, it keeps that too: history begins there.
//!
//! Points whose time is ahead of the clock stay and count nowhere: a clock that was wrong once expires nothing. A point that stands on
//! something the store has lost takes no count from a sound one: rules are applied to the sound points, and again to all of them, and what
//! either keeps stays.
//!
//! Invariants: no rule expires nothing; a hold keeps its point; the reference is the newest point, never a clock; the verdict is a
//! function of its arguments. Does not: remove anything (`coordinator` commits what expires).
//! Source: restic's `forget` (the meaning of each rule, and the test data), rustic's (minutely, quarterly).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::PolicyFault;
use super::zone::Zone;
use crate::civil::{Date, SECS_PER_DAY, iso_utc};
use crate::format::mark::{TAGS_MAX, is_tag};
use crate::id::BackupId;

/// Largest count of a rule: more than a repository holds points.
pub const COUNT_MAX: u32 = 1_000_000;
/// Longest part of a span, in its unit: years, months, days or hours.
pub const SPAN_PART_MAX: u32 = 9_999;
/// Tag lists of a rule.
pub const TAG_LISTS_MAX: usize = 16;
/// A point that is this much later than the clock is ahead of it, in nanoseconds: an hour, more than clocks of a cluster differ.
pub const AHEAD_NS: i64 = 3_600_000_000_000;

const NS_PER_SEC: i64 = 1_000_000_000;

/// How many points a rule keeps; written as a number or `"all"`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "CountText", into = "CountText")]
pub enum Count {
    /// The rule is not set.
    #[default]
    None,
    /// The newest so many.
    Newest(u32),
    /// All.
    All,
}

/// How a count is written.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum CountText {
    Number(u32),
    Word(String),
}

impl TryFrom<CountText> for Count {
    type Error = &'static str;

    fn try_from(text: CountText) -> Result<Count, &'static str> {
        match text {
            CountText::Number(0) => Ok(Count::None),
            CountText::Number(count) if count <= COUNT_MAX => Ok(Count::Newest(count)),
            CountText::Word(word) if word == "all" => Ok(Count::All),
            CountText::Number(_) | CountText::Word(_) => Err(COUNT_ALLOWED),
        }
    }
}

impl From<Count> for CountText {
    fn from(count: Count) -> CountText {
        match count {
            Count::None => CountText::Number(0),
            Count::Newest(count) => CountText::Number(count),
            Count::All => CountText::Word("all".to_owned()),
        }
    }
}

/// What a count may be.
pub const COUNT_ALLOWED: &str = "a number from 0 to 1000000, or all";

impl FromStr for Count {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Count, &'static str> {
        match text.parse::<u32>() {
            Ok(number) => CountText::Number(number),
            Err(_) => CountText::Word(text.to_owned()),
        }
        .try_into()
    }
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Count::None => f.write_str("0"),
            Count::Newest(count) => write!(f, "{count}"),
            Count::All => f.write_str("all"),
        }
    }
}

impl Count {
    fn is_none(&self) -> bool {
        *self == Count::None
    }

    fn use_up(&mut self) {
        if let Count::Newest(left) = self {
            *self = left.checked_sub(1).filter(|&left| left > 0).map_or(Count::None, Count::Newest);
        }
    }
}

/// A length of calendar time; written `1y2mo3d4h`, with any of its parts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Span {
    /// Years.
    pub years: u32,
    /// Months.
    pub months: u32,
    /// Days.
    pub days: u32,
    /// Hours.
    pub hours: u32,
}

/// What a span may be.
pub const SPAN_ALLOWED: &str = "written as 1y2mo3d4h, each part at most 9999, w for weeks";

impl Span {
    /// Whether it has no length: the rule is not set.
    #[must_use]
    pub fn is_none(&self) -> bool {
        *self == Span::default()
    }

    /// The moment that lies this span before another, both in nanoseconds since 1970; days, months and years are those of the zone's clock.
    /// Days that the month of the result does not have carry over into the next one.
    #[must_use]
    pub fn before(self, zone: &Zone, wall_ns: i64) -> i64 {
        let days = Span { hours: 0, ..self };
        let hours_ns = i64::from(self.hours) * 3600 * NS_PER_SEC;
        zone.moment_ns(days.before_local(zone.local_ns(wall_ns))).saturating_sub(hours_ns)
    }

    fn before_local(self, wall_ns: i64) -> i64 {
        const NS_PER_DAY: i64 = SECS_PER_DAY * NS_PER_SEC;
        let (day, time) = (wall_ns.div_euclid(NS_PER_DAY), wall_ns.rem_euclid(NS_PER_DAY));
        let date = Date::from_days(day);
        let begin = Date {
            year: date.year - i64::from(self.years),
            month: date.month - i64::from(self.months),
            day: date.day,
        };
        let day = begin.days() - i64::from(self.days);
        let ns = i128::from(day) * i128::from(NS_PER_DAY) + i128::from(time);
        i64::try_from(ns).unwrap_or(i64::MIN)
    }
}

impl FromStr for Span {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Span, &'static str> {
        let mut span = Span::default();
        let mut rest = text.trim();
        if rest == "0" {
            return Ok(span);
        }
        if rest.is_empty() {
            return Err(SPAN_ALLOWED);
        }
        while !rest.is_empty() {
            let digits = rest.bytes().position(|b| !b.is_ascii_digit()).ok_or(SPAN_ALLOWED)?;
            let (number, after) = rest.split_at(digits);
            let letters = after.bytes().position(|b| !b.is_ascii_alphabetic()).unwrap_or(after.len());
            let (unit, next) = after.split_at(letters);
            let number: u32 = number.parse().map_err(|_| SPAN_ALLOWED)?;
            let (part, times) = match unit {
                "y" => (&mut span.years, 1),
                "mo" => (&mut span.months, 1),
                "w" => (&mut span.days, 7),
                "d" => (&mut span.days, 1),
                "h" => (&mut span.hours, 1),
                _ => return Err(SPAN_ALLOWED),
            };
            let sum = number.checked_mul(times).and_then(|more| part.checked_add(more));
            *part = sum.filter(|&sum| sum <= SPAN_PART_MAX).ok_or(SPAN_ALLOWED)?;
            rest = next;
        }
        Ok(span)
    }
}

impl TryFrom<String> for Span {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Span, &'static str> {
        text.parse()
    }
}

impl From<Span> for String {
    fn from(span: Span) -> String {
        span.to_string()
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_none() {
            return f.write_str("0");
        }
        let parts = [(self.years, "y"), (self.months, "mo"), (self.days, "d"), (self.hours, "h")];
        parts
            .iter()
            .filter(|(number, _)| *number > 0)
            .try_for_each(|(number, unit)| write!(f, "{number}{unit}"))
    }
}

/// A period of the calendar, of which a rule keeps one point each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Period {
    /// Each point by itself.
    Point,
    /// A minute.
    Minute,
    /// An hour.
    Hour,
    /// A day.
    Day,
    /// An ISO week.
    Week,
    /// A month.
    Month,
    /// Three months from January on.
    Quarter,
    /// A year.
    Year,
}

impl Period {
    /// Which period of its kind a moment is in; no two of one kind have the same number. `local_ns` is what the zone's clock shows, `place` is
    /// the point's own.
    fn of(self, local_ns: i64, place: usize) -> i64 {
        let secs = local_ns.div_euclid(NS_PER_SEC);
        let date = Date::from_days(secs.div_euclid(SECS_PER_DAY));
        match self {
            Period::Point => place as i64,
            Period::Minute => secs.div_euclid(60),
            Period::Hour => secs.div_euclid(3600),
            Period::Day => secs.div_euclid(SECS_PER_DAY),
            Period::Week => {
                let (year, week) = date.iso_week();
                year * 100 + week
            }
            Period::Month => date.year * 12 + date.month,
            Period::Quarter => date.year * 4 + (date.month - 1) / 3,
            Period::Year => date.year,
        }
    }

    fn word(self) -> &'static str {
        match self {
            Period::Point => "last",
            Period::Minute => "minutely",
            Period::Hour => "hourly",
            Period::Day => "daily",
            Period::Week => "weekly",
            Period::Month => "monthly",
            Period::Quarter => "quarterly",
            Period::Year => "yearly",
        }
    }
}

/// The rules of a policy; what is missing is not set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Retention {
    /// The newest points.
    #[serde(skip_serializing_if = "Count::is_none")]
    pub last: Count,
    /// One a minute.
    #[serde(skip_serializing_if = "Count::is_none")]
    pub minutely: Count,
    /// One an hour.
    #[serde(skip_serializing_if = "Count::is_none")]
    pub hourly: Count,
    /// One a day.
    #[serde(skip_serializing_if = "Count::is_none")]
    pub daily: Count,
    /// One a week.
    #[serde(skip_serializing_if = "Count::is_none")]
    pub weekly: Count,
    /// One a month.
    #[serde(skip_serializing_if = "Count::is_none")]
    pub monthly: Count,
    /// One a quarter.
    #[serde(skip_serializing_if = "Count::is_none")]
    pub quarterly: Count,
    /// One a year.
    #[serde(skip_serializing_if = "Count::is_none")]
    pub yearly: Count,
    /// All that are not older than this.
    #[serde(skip_serializing_if = "Span::is_none")]
    pub within: Span,
    /// Of those within this, one an hour.
    #[serde(skip_serializing_if = "Span::is_none")]
    pub within_hourly: Span,
    /// Of those within this, one a day.
    #[serde(skip_serializing_if = "Span::is_none")]
    pub within_daily: Span,
    /// Of those within this, one a week.
    #[serde(skip_serializing_if = "Span::is_none")]
    pub within_weekly: Span,
    /// Of those within this, one a month.
    #[serde(skip_serializing_if = "Span::is_none")]
    pub within_monthly: Span,
    /// Of those within this, one a year.
    #[serde(skip_serializing_if = "Span::is_none")]
    pub within_yearly: Span,
    /// All that have each tag of one of these lists.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<Vec<String>>,
    /// Never fewer points than this stay; it keeps points, but expires none by itself.
    #[serde(skip_serializing_if = "is_zero")]
    pub at_least: u32,
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

impl Retention {
    fn counts(&self) -> [(Period, Count); 8] {
        [
            (Period::Point, self.last),
            (Period::Minute, self.minutely),
            (Period::Hour, self.hourly),
            (Period::Day, self.daily),
            (Period::Week, self.weekly),
            (Period::Month, self.monthly),
            (Period::Quarter, self.quarterly),
            (Period::Year, self.yearly),
        ]
    }

    fn spans(&self) -> [(Period, Span); 5] {
        [
            (Period::Hour, self.within_hourly),
            (Period::Day, self.within_daily),
            (Period::Week, self.within_weekly),
            (Period::Month, self.within_monthly),
            (Period::Year, self.within_yearly),
        ]
    }

    /// Whether nothing is set.
    #[must_use]
    pub fn is_none(&self) -> bool {
        *self == Retention::default()
    }

    /// Whether no rule is set by which anything could expire.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Retention { at_least: self.at_least, ..Retention::default() }
    }

    /// Checks every bound.
    ///
    /// # Errors
    /// [`PolicyFault::Range`].
    pub fn check(&self) -> Result<(), PolicyFault> {
        let tags_fit = self.tags.len() <= TAG_LISTS_MAX
            && self
                .tags
                .iter()
                .all(|list| (1..=TAGS_MAX).contains(&list.len()) && list.iter().all(|tag| is_tag(tag)));
        if !tags_fit {
            let allowed =
                "at most 16 lists of 1 to 16 tags of 1 to 64 letters, digits, '.', '_', '-', ':' or '='";
            return Err(PolicyFault::Range { field: "retention, tags", allowed });
        }
        if self.at_least > COUNT_MAX {
            return Err(PolicyFault::Range { field: "retention, at_least", allowed: "from 0 to 1000000" });
        }
        Ok(())
    }
}

/// A point as the rules see it.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'a> {
    /// Its backup.
    pub backup: BackupId,
    /// When it began, in nanoseconds since 1970.
    pub wall_ns: i64,
    /// Its tags.
    pub tags: &'a [String],
    /// Whether someone holds it.
    pub is_held: bool,
    /// Whether the store has lost something that it needs.
    pub is_damaged: bool,
}

/// Why a point stays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// No rule is set.
    NoRules,
    /// Someone holds it.
    Held,
    /// Its time is ahead of the clock.
    Ahead,
    /// The newest of its period.
    Newest(Period),
    /// The oldest point, and the rule has counts left.
    Oldest(Period),
    /// Not older than this.
    Within(Span),
    /// The newest of its period, and not older than this.
    NewestWithin(Period, Span),
    /// The oldest point, within this.
    OldestWithin(Period, Span),
    /// It has these tags.
    Tags(Vec<String>),
    /// One of the fewest that stay.
    AtLeast,
    /// The newest sound point, with which the next backup is compared.
    Base,
    /// Its policy keeps it until then at least: wall clock in nanoseconds.
    Young(i64),
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::NoRules => f.write_str("no rules"),
            Reason::Held => f.write_str("held"),
            Reason::Ahead => f.write_str("ahead of the clock"),
            Reason::Newest(period) => f.write_str(period.word()),
            Reason::Oldest(period) => write!(f, "oldest {}", period.word()),
            Reason::Within(span) => write!(f, "within {span}"),
            Reason::NewestWithin(period, span) => write!(f, "{} within {span}", period.word()),
            Reason::OldestWithin(period, span) => write!(f, "oldest {} within {span}", period.word()),
            Reason::Tags(tags) => write!(f, "tags {}", tags.join(",")),
            Reason::AtLeast => f.write_str("at least"),
            Reason::Base => f.write_str("newest"),
            Reason::Young(until_ns) => {
                write!(f, "minimum age until {}", iso_utc(until_ns.div_euclid(NS_PER_SEC)))
            }
        }
    }
}

/// What becomes of a point.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Its backup.
    pub backup: BackupId,
    /// When it began, in nanoseconds since 1970.
    pub wall_ns: i64,
    /// Why it stays; it expires when there is none.
    pub reasons: Vec<Reason>,
}

impl Verdict {
    /// Whether no rule keeps it.
    #[must_use]
    pub fn expires(&self) -> bool {
        self.reasons.is_empty()
    }
}

/// Judges all points of a policy; the verdicts come newest first. Periods are those of the zone's clock. `now_ns` is what the clock says, for
/// points that are ahead of it.
#[must_use]
pub fn judge(rules: &Retention, zone: &Zone, points: &[Candidate<'_>], now_ns: i64) -> Vec<Verdict> {
    let mut points: Vec<&Candidate<'_>> = points.iter().collect();
    points.sort_by_key(|point| std::cmp::Reverse((point.wall_ns, point.backup)));
    let mut reasons: Vec<Vec<Reason>> = vec![Vec::new(); points.len()];
    let is_ahead = |point: &Candidate<'_>| point.wall_ns > now_ns.saturating_add(AHEAD_NS);
    let counted: Vec<usize> = places(&points, |point| !is_ahead(point));
    for (point, why) in points.iter().zip(&mut reasons) {
        let fixed = [
            (rules.is_empty(), Reason::NoRules),
            (point.is_held, Reason::Held),
            (is_ahead(point), Reason::Ahead),
        ];
        why.extend(fixed.into_iter().filter_map(|(holds, reason)| holds.then_some(reason)));
    }
    let sound: Vec<usize> = counted
        .iter()
        .copied()
        .filter(|&place| points.get(place).is_some_and(|point| !point.is_damaged))
        .collect();
    apply(rules, zone, &points, &sound, &mut reasons);
    if sound.len() < counted.len() {
        apply(rules, zone, &points, &counted, &mut reasons);
    }
    let verdict = |(point, reasons): (&&Candidate<'_>, Vec<Reason>)| Verdict {
        backup: point.backup,
        wall_ns: point.wall_ns,
        reasons,
    };
    points.iter().zip(reasons).map(verdict).collect()
}

fn places(points: &[&Candidate<'_>], which: impl Fn(&Candidate<'_>) -> bool) -> Vec<usize> {
    points.iter().enumerate().filter(|(_, point)| which(point)).map(|(place, _)| place).collect()
}

/// Adds what the rules say of the points at `places`, newest first; a reason that is there is not added twice.
fn apply(
    rules: &Retention,
    zone: &Zone,
    points: &[&Candidate<'_>],
    places: &[usize],
    reasons: &mut [Vec<Reason>],
) {
    let mut counts = rules.counts().map(|(period, count)| (period, count, None));
    let mut spans = rules.spans().map(|(period, span)| (period, span, None));
    let Some(newest_ns) = places.first().and_then(|&place| points.get(place)).map(|point| point.wall_ns)
    else {
        return;
    };
    for (nth, &place) in places.iter().enumerate() {
        let (Some(point), Some(why)) = (points.get(place), reasons.get_mut(place)) else { continue };
        let is_oldest = nth + 1 == places.len();
        let local_ns = zone.local_ns(point.wall_ns);
        let is_within = |span: &Span| !span.is_none() && point.wall_ns > span.before(zone, newest_ns);
        let mut add = |reason: Reason| {
            if !why.contains(&reason) {
                why.push(reason);
            }
        };
        let has = |list: &&Vec<String>| list.iter().all(|tag| point.tags.contains(tag));
        rules.tags.iter().filter(has).for_each(|list| add(Reason::Tags(list.clone())));
        if is_within(&rules.within) {
            add(Reason::Within(rules.within));
        }
        for (period, count, last) in counts.iter_mut().filter(|(_, count, _)| !count.is_none()) {
            let number = period.of(local_ns, nth);
            let is_new = *last != Some(number);
            if is_new || is_oldest {
                *last = Some(number);
                count.use_up();
                add(if is_new { Reason::Newest(*period) } else { Reason::Oldest(*period) });
            }
        }
        for (period, span, last) in spans.iter_mut().filter(|(_, span, _)| is_within(span)) {
            let number = period.of(local_ns, nth);
            let is_new = *last != Some(number);
            if is_new || is_oldest {
                *last = Some(number);
                let reason = if is_new { Reason::NewestWithin } else { Reason::OldestWithin };
                add(reason(*period, *span));
            }
        }
        if nth < rules.at_least as usize {
            add(Reason::AtLeast);
        }
    }
}

#[cfg(test)]
#[path = "retention_test.rs"]
mod tests;
