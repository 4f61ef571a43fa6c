//! Units for people: sizes (`128KiB`, `1.5GiB`) and durations (`60s`, `5m`), read and written.
//!
//! | written | means |
//! |---|---|
//! | `4096`, `4096B` | bytes |
//! | `KiB` `MiB` `GiB` `TiB`, or `K` `M` `G` `T` | powers of 1024 |
//! | `kB` `MB` `GB` `TB` | powers of 1000 |
//! | `500ms` `60s` `5m` `2h` `1d`, or several `1h30m` | durations |
//!
//! A fraction is allowed where the result is a whole number of bytes (`1.5KiB`). Case counts only in `kB`; the short
//! letters are taken in either case.
//!
//! Invariants: [`format_bytes`] writes exactly what [`parse_bytes`] reads back (for settings); [`Human`] rounds (for people).
//! Does not: use floating point where exactness matters. Source: IEC 80000-13.

use std::fmt;

const IEC: [(&str, u64); 4] = [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
const DURATIONS_MS: [(&str, u64); 5] =
    [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// Text that is not a size or a duration. `Display` says what to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnitFault {
    /// Not a size.
    Size,
    /// Not a duration.
    Duration,
    /// Does not fit 64 bits.
    TooLarge,
    /// A fraction of a byte.
    Fraction,
}

impl fmt::Display for UnitFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            UnitFault::Size => "not a size; write a number and a unit, such as 128KiB, 16MiB or 1.5GiB",
            UnitFault::Duration => {
                "not a duration; write a number and a unit, such as 500ms, 60s, 5m or 1h30m"
            }
            UnitFault::TooLarge => "too large",
            UnitFault::Fraction => "not a whole number of bytes",
        })
    }
}

impl std::error::Error for UnitFault {}

/// Reads a size in bytes.
pub fn parse_bytes(text: &str) -> Result<u64, UnitFault> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    scale(number, byte_unit(unit.trim()).ok_or(UnitFault::Size)?)
}

fn byte_unit(unit: &str) -> Option<u64> {
    Some(match unit {
        "" | "B" | "b" => 1,
        "KiB" | "K" | "k" => 1 << 10,
        "MiB" | "M" | "m" => 1 << 20,
        "GiB" | "G" | "g" => 1 << 30,
        "TiB" | "T" | "t" => 1 << 40,
        "kB" | "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "TB" => 1_000_000_000_000,
        _ => return None,
    })
}

/// `number` (digits, perhaps a point and more digits) times `unit`, exactly.
fn scale(number: &str, unit: u64) -> Result<u64, UnitFault> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty() || !digits(whole) || !digits(fraction) || number.ends_with('.') {
        return Err(UnitFault::Size);
    }
    let whole: u64 = whole.parse().map_err(|_| UnitFault::TooLarge)?;
    let whole = whole.checked_mul(unit).ok_or(UnitFault::TooLarge)?;
    let fraction = fraction.trim_end_matches('0');
    if fraction.is_empty() {
        return Ok(whole);
    }
    // 12 digits and a TiB stay below 2^80.
    let power = u32::try_from(fraction.len()).ok().filter(|&n| n <= 12).ok_or(UnitFault::Fraction)?;
    let ten = 10u128.pow(power);
    let numerator: u128 = fraction.parse().map_err(|_| UnitFault::Size)?;
    let scaled = numerator * u128::from(unit);
    if !scaled.is_multiple_of(ten) {
        return Err(UnitFault::Fraction);
    }
    whole.checked_add((scaled / ten) as u64).ok_or(UnitFault::TooLarge)
}

/// Writes a size so that it reads back exactly: the largest unit that divides it.
pub fn format_bytes(bytes: u64) -> String {
    let unit = IEC.iter().find(|(_, size)| bytes >= *size && bytes.is_multiple_of(*size));
    match unit {
        Some((name, size)) => format!("{}{name}", bytes / size),
        None => format!("{bytes}B"),
    }
}

/// Reads a duration in milliseconds.
pub fn parse_duration_ms(text: &str) -> Result<u64, UnitFault> {
    let mut rest = text.trim();
    let mut total = 0u64;
    if rest.is_empty() {
        return Err(UnitFault::Duration);
    }
    while !rest.is_empty() {
        let (number, after) = split_while(rest, |b| b.is_ascii_digit());
        let (unit, next) = split_while(after, |b| b.is_ascii_alphabetic());
        let unit = DURATIONS_MS.iter().find(|(name, _)| *name == unit).ok_or(UnitFault::Duration)?.1;
        if number.is_empty() {
            return Err(UnitFault::Duration);
        }
        let number: u64 = number.parse().map_err(|_| UnitFault::TooLarge)?;
        total = number.checked_mul(unit).and_then(|n| total.checked_add(n)).ok_or(UnitFault::TooLarge)?;
        rest = next;
    }
    Ok(total)
}

fn split_while(text: &str, keep: impl Fn(u8) -> bool) -> (&str, &str) {
    text.split_at(text.bytes().position(|b| !keep(b)).unwrap_or(text.len()))
}

/// Writes a duration so that it reads back exactly: the largest unit that divides it.
pub fn format_duration_ms(ms: u64) -> String {
    let unit = DURATIONS_MS.iter().find(|(_, size)| ms >= *size && ms.is_multiple_of(*size));
    match unit {
        Some((name, size)) => format!("{}{name}", ms / size),
        None => "0s".to_owned(),
    }
}

/// A size in bytes, rounded to three digits for people: `0 B`, `12.3 MiB`, `1.00 TiB`. At most 9 characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Human(pub u64);

impl fmt::Display for Human {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
        let mut unit = 0;
        let mut value = self.0 as f64;
        while value >= 999.5 && unit + 1 < UNITS.len() {
            value /= 1024.0;
            unit += 1;
        }
        let decimals = match value {
            _ if unit == 0 => 0,
            v if v < 9.995 => 2,
            v if v < 99.95 => 1,
            _ => 0,
        };
        f.pad(&format!("{value:.decimals$} {}", UNITS[unit]))
    }
}

/// A number with its thousands set apart, for people: `1,234,567`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grouped(pub u64);

impl fmt::Display for Grouped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = self.0.to_string();
        let mut out = String::with_capacity(digits.len() + digits.len() / 3);
        for (at, digit) in digits.chars().enumerate() {
            if at > 0 && (digits.len() - at).is_multiple_of(3) {
                out.push(',');
            }
            out.push(digit);
        }
        f.pad(&out)
    }
}

/// So many of something, for people: `1 item`, `3,008 items`. The noun takes an s.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counted(pub u64, pub &'static str);

impl fmt::Display for Counted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}{}", Grouped(self.0), self.1, if self.0 == 1 { "" } else { "s" })
    }
}

/// A duration in nanoseconds for people: `340 ms`, `12.3 s`, `00:14:20`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HumanTime(pub u64);

impl fmt::Display for HumanTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let secs = self.0 / 1_000_000_000;
        let text = match secs {
            0 => format!("{} ms", self.0 / 1_000_000),
            1..=99 => format!("{:.1} s", self.0 as f64 / 1e9),
            _ => format!("{:02}:{:02}:{:02}", secs / 3600, secs / 60 % 60, secs % 60),
        };
        f.pad(&text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_as_written() {
        for (text, bytes) in [
            ("0", 0),
            ("512", 512),
            ("4096B", 4096),
            ("128KiB", 128 << 10),
            ("128 KiB", 128 << 10),
            ("16M", 16 << 20),
            ("1.5GiB", 3 << 29),
            ("1.50G", 3 << 29),
            ("2kB", 2000),
            ("15TiB", 15 << 40),
            ("0.25KiB", 256),
        ] {
            assert_eq!(parse_bytes(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn what_is_no_size_is_refused() {
        for text in ["", "KiB", "1,5MiB", "1.MiB", ".5MiB", "-1", "1e3", "12 parsecs", "1.2.3K", "1 2"] {
            assert_eq!(parse_bytes(text), Err(UnitFault::Size), "{text}");
        }
        assert_eq!(parse_bytes("0.3B"), Err(UnitFault::Fraction));
        assert_eq!(parse_bytes("16777216TiB"), Err(UnitFault::TooLarge));
        assert_eq!(parse_bytes("16777215TiB"), Ok(16_777_215 << 40));
        assert_eq!(parse_bytes("99999999999999999999"), Err(UnitFault::TooLarge));
    }

    #[test]
    fn sizes_round_trip() {
        let mut value = 1u64;
        for step in 0..4000u64 {
            assert_eq!(parse_bytes(&format_bytes(value)), Ok(value));
            value = value.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(step) >> (step % 60);
        }
        assert_eq!(format_bytes(0), "0B");
        assert_eq!(format_bytes(128 << 10), "128KiB");
        assert_eq!(format_bytes((128 << 10) + 1), "131073B");
        assert_eq!(parse_bytes(&format_bytes(u64::MAX)), Ok(u64::MAX));
    }

    #[test]
    fn durations_round_trip() {
        for (text, ms) in
            [("60s", 60_000), ("500ms", 500), ("5m", 300_000), ("1h30m", 5_400_000), ("1d", 86_400_000)]
        {
            assert_eq!(parse_duration_ms(text), Ok(ms), "{text}");
        }
        for ms in [0, 1, 999, 1000, 60_000, 90_000, 3_600_000, 86_400_000 * 7, 123_456_789] {
            assert_eq!(parse_duration_ms(&format_duration_ms(ms)), Ok(ms));
        }
        for text in ["", "60", "s", "1.5s", "5 m", "1y", "-1s"] {
            assert_eq!(parse_duration_ms(text), Err(UnitFault::Duration), "{text}");
        }
    }

    #[test]
    fn people_get_three_digits() {
        assert_eq!(Human(0).to_string(), "0 B");
        assert_eq!(Human(999).to_string(), "999 B");
        assert_eq!(Human(1000).to_string(), "0.98 KiB");
        assert_eq!(Human(12_897_485).to_string(), "12.3 MiB");
        assert_eq!(Human(1 << 40).to_string(), "1.00 TiB");
        assert_eq!(Human(u64::MAX).to_string(), "16.0 EiB");
        assert_eq!(Grouped(1_234_567).to_string(), "1,234,567");
        assert_eq!(Grouped(999).to_string(), "999");
        assert_eq!(HumanTime(340_000_000).to_string(), "340 ms");
        assert_eq!(HumanTime(12_340_000_000).to_string(), "12.3 s");
        assert_eq!(HumanTime(860_000_000_000).to_string(), "00:14:20");
    }
}
