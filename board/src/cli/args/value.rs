//! Values of options: sizes, durations, volumes.
//!
//! Source: ours; spelled as in `windlass_agent::units`.

use std::convert::Infallible;
use std::fmt::{self, Display};
use std::str::FromStr;

use windlass_agent::policy::Reader;
pub use windlass_agent::policy::hours::RATE_BYTES_S_MIN;
use windlass_agent::units::{self, UnitFault};

use crate::failure::Failure;

/// The value of an option that was given as text.
///
/// # Errors
/// It is none: what is wrong with it.
pub fn said<T: FromStr<Err: Display>>(text: Option<&str>, option: &str) -> Result<Option<T>, Failure> {
    let parse = |text: &str| text.parse().map_err(|why| Failure::usage(format_args!("{option}: {why}")));
    text.map(parse).transpose()
}

/// A size in bytes, written `128KiB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bytes(pub u64);

impl FromStr for Bytes {
    type Err = UnitFault;

    fn from_str(text: &str) -> Result<Bytes, UnitFault> {
        units::parse_bytes(text).map(Bytes)
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&units::format_bytes(self.0))
    }
}

/// A limit in bytes a second, written `10MiB`; 0 is no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate(pub u64);

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Rate, String> {
        match units::parse_bytes(text).map_err(|fault| fault.to_string())? {
            low @ 1..RATE_BYTES_S_MIN => Err(format!(
                "{text} means {low} bytes a second; write at least {}, or 0 for no limit",
                units::format_bytes(RATE_BYTES_S_MIN)
            )),
            rate => Ok(Rate(rate)),
        }
    }
}

/// A duration in milliseconds, written `60s`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Duration(pub u64);

impl FromStr for Duration {
    type Err = UnitFault;

    fn from_str(text: &str) -> Result<Duration, UnitFault> {
        // Nothing needs no unit.
        if text == "0" { Ok(Duration(0)) } else { units::parse_duration_ms(text).map(Duration) }
    }
}

/// A device and how to read it, written `/dev/x` or `/dev/x=image`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeSpec {
    /// The path as it was written.
    pub device: String,
    /// How to read it.
    pub reader: Reader,
}

impl FromStr for VolumeSpec {
    type Err = Infallible;

    /// What stands behind the last `=` is a reader only if it is one: paths may contain `=`. Who looks at the path refuses one that is
    /// neither.
    fn from_str(text: &str) -> Result<VolumeSpec, Infallible> {
        let split = text.rsplit_once('=').and_then(|(device, reader)| Some((device, reader.parse().ok()?)));
        let (device, reader) = split.unwrap_or((text, Reader::Auto));
        Ok(VolumeSpec { device: device.to_owned(), reader })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_none_or_one_that_a_lease_can_live_with() {
        let parse = |text: &str| text.parse::<Rate>();
        assert_eq!(parse("0"), Ok(Rate(0)));
        assert_eq!(parse("64KiB"), Ok(Rate(RATE_BYTES_S_MIN)));
        for low in ["1", "65535"] {
            let said = parse(low).unwrap_err();
            assert!(said.contains("at least 64KiB") && said.contains("0 for no limit"), "{said}");
        }
        assert!(parse("x").unwrap_err().contains("not a size"));
    }

    #[test]
    fn volumes_may_name_a_reader_and_may_contain_an_equals_sign() {
        let parse = |text: &str| text.parse::<VolumeSpec>().unwrap();
        assert_eq!(parse("/dev/sda"), VolumeSpec { device: "/dev/sda".into(), reader: Reader::Auto });
        assert_eq!(parse("/dev/sda=image"), VolumeSpec { device: "/dev/sda".into(), reader: Reader::Image });
        assert_eq!(parse("/dev/sda=mounted").reader, Reader::Mounted);
        assert_eq!(parse("/dev/sda=raw").reader, Reader::Raw);
        assert_eq!(parse("/x/a=b").device, "/x/a=b");
        assert_eq!(parse("/x/a=b=ext4"), VolumeSpec { device: "/x/a=b".into(), reader: Reader::Ext4 });
    }
}
