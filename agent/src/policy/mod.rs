//! Policies: what to back up and how, as the JSON that an operator writes and the commit log keeps.
//!
//! ```json
//! { "version": 1, "name": "home",
//!   "volumes": [ { "device": "/dev/vg0/home", "reader": "auto" } ],
//!   "include": [], "exclude": [ "*.tmp", "/scratch/" ],
//!   "block_size": "128KiB", "object_size": "16MiB", "flush_interval": "60s", "compression": "zstd:1",
//!   "limits": { "upload": "50MiB", "download": "100MiB", "device_iops": 4000,
//!               "hours": [ { "window": "08:00-18:00", "upload": "20MiB" } ] },
//!   "schedule": { "every": "1d", "at": "02:30", "window": "22:00-06:00" }, "zone": "Europe/Berlin",
//!   "safety": { "min_age": "30d", "undo": "7d" }, "priority": 10,
//!   "retention": { "daily": 7, "weekly": 4, "monthly": "all", "within": "2d" } }
//! ```
//!
//! | module | what |
//! |---|---|
//! | [`select`] | include and exclude patterns, and the set of inodes that they select |
//! | [`selected`] | a volume that shows only what is selected |
//! | [`paths`] | from inodes back to paths, for messages |
//! | [`schedule`] | when a backup is due |
//! | [`cron`] | the minutes that a cron line names |
//! | [`zone`] | the clock on which days and hours are counted |
//! | [`hours`] | limits by the time of day |
//! | [`retention`] | which points stay, and why |
//! | [`inodes`] | a bounded, sparse set of inode numbers |
//!
//! Only `version`, `name` and `volumes` must be there; sizes and durations are written as in [`units`](crate::units); a limit
//! that is missing is none. Fields that are not known are refused, so a policy of a newer agent is never half understood.
//!
//! Invariants: a [`Policy`] that [`Policy::parse`] or [`Policy::check`] let through keeps every bound of this file; what
//! [`Policy::emit`] writes parses to the same value. Does not: number volumes (the commit log does). Source: ours.

pub mod cron;
pub mod hidden;
pub mod hours;
pub mod inodes;
pub mod paths;
pub mod retention;
pub mod sample;
pub mod schedule;
pub mod select;
pub mod selected;
pub mod zone;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::format::guard::Guard;
use crate::log::limits::{
    DEVICE_BYTES_MAX, POLICY_BODY_BYTES_MAX, POLICY_NAME_BYTES_MAX, POLICY_VOLUMES_MAX,
};
use crate::pack::{
    BLOCK_BYTES_DEFAULT, BLOCK_BYTES_MAX, BLOCK_BYTES_MIN, OBJECT_BYTES_DEFAULT, OBJECT_BYTES_MAX,
    OBJECT_BYTES_MIN,
};
use crate::units;
use hours::{HOURS_MAX, Hours};
use retention::Retention;
use schedule::Schedule;
use select::{PATTERNS_MAX, PatternFault, Patterns};
use zone::Zone;

/// The version of the JSON that this agent writes, and the only one that it reads.
pub const POLICY_VERSION: u32 = 1;
/// Flush interval in milliseconds when the policy names none: data that trickles in waits a minute at most.
pub const FLUSH_INTERVAL_MS_DEFAULT: u64 = 60_000;
/// Shortest flush interval in milliseconds: below it objects would be mostly footers.
pub const FLUSH_INTERVAL_MS_MIN: u64 = 1_000;
/// Most items that a backup compares with the kernel's view: some seconds' work, and 8 bytes of memory each.
pub const VERIFY_ITEMS_MAX: u32 = 100_000;
/// Longest flush interval in milliseconds: a day.
pub const FLUSH_INTERVAL_MS_MAX: u64 = 86_400_000;

/// Longest minimum age of points, and longest time in which they can be brought back, in milliseconds: a hundred years.
pub const SAFETY_MS_MAX: u64 = 36_600 * 86_400_000;
/// Longest time between a request to remove something and its approval, in milliseconds: a year.
pub const APPROVAL_MS_MAX: u64 = 366 * 86_400_000;
/// Priorities of policies.
pub const PRIORITIES: std::ops::RangeInclusive<i8> = -100..=100;

/// What to back up, and how.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// [`POLICY_VERSION`].
    pub version: u32,
    /// 1..=64 letters, digits, `.`, `_`, `-`; the first is a letter or digit.
    pub name: String,
    /// What to read, 1..=64.
    pub volumes: Vec<PolicyVolume>,
    /// When not empty, only what one of these matches, and what is below it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub include: Vec<String>,
    /// Never what one of these matches, nor what is below it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exclude: Vec<String>,
    /// Block size in bytes, a power of two, 4 KiB..=4 MiB. It cannot change while the policy has points: their digests count in it.
    #[serde(default = "default_block_size", with = "size")]
    pub block_size: u64,
    /// Upload object size in bytes, 4 MiB..=256 MiB.
    #[serde(default = "default_object_size", with = "size")]
    pub object_size: u64,
    /// How long a block may wait for its object to fill, in milliseconds.
    #[serde(default = "default_flush_interval", with = "duration")]
    pub flush_interval: u64,
    /// How blocks are compressed.
    #[serde(default)]
    pub compression: Compression,
    /// How fast, at most.
    #[serde(default, skip_serializing_if = "Limits::is_none")]
    pub limits: Limits,
    /// How many random items of each volume with a raw reader are compared with the kernel's view after a backup; 0 for none.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub verify: u32,
    /// Whether images keep free blocks too; else what a clean file system under checksums calls free restores as zeros.
    #[serde(default, skip_serializing_if = "is_false")]
    pub all_blocks: bool,
    /// Which points stay; without a rule all do.
    #[serde(default, skip_serializing_if = "Retention::is_none")]
    pub retention: Retention,
    /// When backups are due; missing: only on request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<Schedule>,
    /// What keeps points that the rules, or people, would expire.
    #[serde(default, skip_serializing_if = "Safety::is_none")]
    pub safety: Safety,
    /// Of backups that wait for their turn, which begins first: -100..=100, the highest.
    #[serde(default, skip_serializing_if = "is_usual")]
    pub priority: i8,
    /// On whose clock the schedule and the periods of the retention are counted.
    #[serde(default, skip_serializing_if = "Zone::is_utc")]
    pub zone: Zone,
}

/// One volume of a policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyVolume {
    /// Absolute path of a block device or an image file.
    pub device: String,
    /// How to read it.
    #[serde(default)]
    pub reader: Reader,
}

/// How a volume is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reader {
    /// By what is found on it: a file system that is known, or refused with a hint.
    #[default]
    Auto,
    /// By the raw reader of the file system that is found on it; one that has none is refused.
    Raw,
    /// ext2, ext3, ext4; anything else is refused.
    Ext4,
    /// Through a read-only mount by the kernel; needs root.
    Mounted,
    /// The whole device as one item, whatever is on it.
    Image,
}

/// How blocks are compressed; written `none` or `zstd:LEVEL`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Compression {
    /// Not at all.
    None,
    /// zstd at a level, 1..=19.
    Zstd(u8),
}

/// What keeps points that the rules, or people, would expire. Less of it counts for points that are made later.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Safety {
    /// No point expires before it is so old, in milliseconds.
    #[serde(with = "duration", skip_serializing_if = "is_nothing")]
    pub min_age: u64,
    /// For so long after a point expired it can be brought back, in milliseconds.
    #[serde(with = "duration", skip_serializing_if = "is_nothing")]
    pub undo: u64,
    /// A second subject approves what removes points, or lets them be removed, so many milliseconds after it was asked for at the earliest.
    #[serde(with = "optional_duration", skip_serializing_if = "Option::is_none")]
    pub approval: Option<u64>,
}

impl Safety {
    /// Whether nothing is asked for.
    #[must_use]
    pub fn is_none(&self) -> bool {
        *self == Safety::default()
    }

    /// What guards a point that was made at `made_ns`, wall clock in nanoseconds.
    #[must_use]
    pub fn guard(&self, made_ns: i64) -> Guard {
        let ns = |ms: u64| ms.saturating_mul(1_000_000);
        let age_ns = i64::try_from(ns(self.min_age)).unwrap_or(i64::MAX);
        let until_ns = if age_ns == 0 { 0 } else { made_ns.saturating_add(age_ns) };
        Guard { until_ns, undo_ns: ns(self.undo) }
    }
}

/// How fast all nodes together, at most; a missing limit is none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Bytes per second to the store.
    #[serde(default, with = "optional_size", skip_serializing_if = "Option::is_none")]
    pub upload: Option<u64>,
    /// Bytes per second from the store.
    #[serde(default, with = "optional_size", skip_serializing_if = "Option::is_none")]
    pub download: Option<u64>,
    /// Operations per second on each device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_iops: Option<u32>,
    /// What holds in parts of the day, on the clock of the policy's zone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hours: Vec<Hours>,
}

impl Limits {
    /// Whether nothing is limited.
    pub fn is_none(&self) -> bool {
        *self == Limits::default()
    }
}

/// Why a policy is refused. `Display` says which field and what is allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PolicyFault {
    /// Not JSON of this shape; where and why in the parser's words.
    Json(String),
    /// A version of the policy format that this program does not know.
    Version(u32),
    /// The name breaks its rules.
    Name(String),
    /// No volume, too many, or one twice.
    Volumes(&'static str),
    /// Neither an absolute path nor the name of a volume in a board profile, or too long.
    Device(String),
    /// A pattern that cannot be used.
    Pattern(PatternFault),
    /// A number outside its bounds.
    Range {
        /// Name of the field.
        field: &'static str,
        /// What is allowed.
        allowed: &'static str,
    },
    /// Does not fit the commit log.
    TooLarge,
}

impl fmt::Display for PolicyFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PolicyFault::Json(why) => write!(f, "the policy does not parse: {why}"),
            PolicyFault::Version(version) => write!(
                f,
                "the policy has version {version}, this agent reads {POLICY_VERSION}; use an agent that knows it"
            ),
            PolicyFault::Name(name) => write!(
                f,
                "{name:?} is not a policy name; use 1 to 64 letters, digits, '.', '_' or '-', the first a letter or digit"
            ),
            PolicyFault::Volumes(why) => write!(f, "volumes: {why}"),
            PolicyFault::Device(device) => {
                write!(
                    f,
                    "{device:?} is not a device; give the absolute path of a block device or image file, or the name of \
                     a volume in a board profile"
                )
            }
            PolicyFault::Pattern(fault) => fault.fmt(f),
            PolicyFault::Range { field, allowed } => write!(f, "{field}: must be {allowed}"),
            PolicyFault::TooLarge => {
                write!(f, "the policy takes more than {POLICY_BODY_BYTES_MAX} bytes; use fewer patterns")
            }
        }
    }
}

impl std::error::Error for PolicyFault {}

impl Policy {
    /// A policy with every default.
    pub fn new(name: &str, volumes: Vec<PolicyVolume>) -> Policy {
        Policy {
            version: POLICY_VERSION,
            name: name.to_owned(),
            volumes,
            include: Vec::new(),
            exclude: Vec::new(),
            block_size: default_block_size(),
            object_size: default_object_size(),
            flush_interval: default_flush_interval(),
            compression: Compression::default(),
            limits: Limits::default(),
            verify: 0,
            all_blocks: false,
            retention: Retention::default(),
            schedule: None,
            safety: Safety::default(),
            priority: 0,
            zone: Zone::default(),
        }
    }

    /// Reads JSON and checks every bound.
    pub fn parse(json: &[u8]) -> Result<Policy, PolicyFault> {
        if json.len() > POLICY_BODY_BYTES_MAX {
            return Err(PolicyFault::TooLarge);
        }
        // The version first: a newer policy may well have fields that this agent does not know.
        let version: Version =
            serde_json::from_slice(json).map_err(|why| PolicyFault::Json(why.to_string()))?;
        if version.version != POLICY_VERSION {
            return Err(PolicyFault::Version(version.version));
        }
        let policy: Policy =
            serde_json::from_slice(json).map_err(|why| PolicyFault::Json(why.to_string()))?;
        policy.check()?;
        Ok(policy)
    }

    /// Writes the JSON that the commit log keeps. Fails only on a policy that `check` refuses.
    pub fn emit(&self) -> Result<Vec<u8>, PolicyFault> {
        self.check()?;
        let json = serde_json::to_vec(self).map_err(|why| PolicyFault::Json(why.to_string()))?;
        if json.len() > POLICY_BODY_BYTES_MAX { Err(PolicyFault::TooLarge) } else { Ok(json) }
    }

    /// Checks every bound.
    pub fn check(&self) -> Result<(), PolicyFault> {
        if self.version != POLICY_VERSION {
            return Err(PolicyFault::Version(self.version));
        }
        check_name(&self.name)?;
        self.check_volumes()?;
        self.patterns()?;
        let range = |holds: bool, field, allowed| {
            if holds { Ok(()) } else { Err(PolicyFault::Range { field, allowed }) }
        };
        let block = u64::from(BLOCK_BYTES_MIN)..=u64::from(BLOCK_BYTES_MAX);
        range(
            self.block_size.is_power_of_two() && block.contains(&self.block_size),
            "block size",
            "a power of two from 4KiB to 4MiB",
        )?;
        let object = u64::from(OBJECT_BYTES_MIN)..=u64::from(OBJECT_BYTES_MAX);
        range(object.contains(&self.object_size), "object size", "from 4MiB to 256MiB")?;
        let flush = FLUSH_INTERVAL_MS_MIN..=FLUSH_INTERVAL_MS_MAX;
        range(flush.contains(&self.flush_interval), "flush interval", "from 1s to 1d")?;
        let rate = |limit: Option<u64>| limit.is_none_or(|bytes| bytes >= 1024);
        range(
            self.verify <= VERIFY_ITEMS_MAX,
            "verify",
            "at most 100000 items; `volume verify --all` compares all",
        )?;
        range(rate(self.limits.upload), "upload limit", "at least 1KiB a second; leave it out for none")?;
        range(rate(self.limits.download), "download limit", "at least 1KiB a second; leave it out for none")?;
        range(self.limits.device_iops != Some(0), "device IOPS limit", "at least 1; leave it out for none")?;
        let hours = &self.limits.hours;
        range(hours.len() <= HOURS_MAX, "limits by the time of day", "at most 16 parts of the day")?;
        range(
            hours.iter().all(Hours::is_sound),
            "limits by the time of day",
            "limits of at least 64KiB a second, or 0 for none, and one at least for each part of the day",
        )?;
        range(
            self.safety.min_age <= SAFETY_MS_MAX && self.safety.undo <= SAFETY_MS_MAX,
            "safety",
            "at most 36600d for the minimum age and for the time in which a point can be brought back",
        )?;
        let approval = self.safety.approval.unwrap_or(0);
        range(approval <= APPROVAL_MS_MAX, "approval of removals", "at most 366d after it was asked for")?;
        range(PRIORITIES.contains(&self.priority), "priority", "from -100 to 100")?;
        self.retention.check()?;
        self.schedule.as_ref().map_or(Ok(()), Schedule::check)
    }

    fn check_volumes(&self) -> Result<(), PolicyFault> {
        if self.volumes.is_empty() {
            return Err(PolicyFault::Volumes("name at least one device or image file"));
        }
        if self.volumes.len() > POLICY_VOLUMES_MAX {
            return Err(PolicyFault::Volumes("at most 64; make another policy for the rest"));
        }
        for (at, volume) in self.volumes.iter().enumerate() {
            let path = &volume.device;
            let named = check_name(path).is_ok();
            if !(path.starts_with('/') || named) || path.len() > DEVICE_BYTES_MAX || path.contains('\0') {
                return Err(PolicyFault::Device(path.clone()));
            }
            if self.volumes[..at].iter().any(|other| other.device == *path) {
                return Err(PolicyFault::Volumes("the same device is named twice"));
            }
        }
        Ok(())
    }

    /// The include and exclude patterns, ready to match.
    pub fn patterns(&self) -> Result<Patterns, PolicyFault> {
        if self.include.len() + self.exclude.len() > PATTERNS_MAX {
            return Err(PolicyFault::Pattern(PatternFault::TooMany));
        }
        Patterns::new(&self.include, &self.exclude).map_err(PolicyFault::Pattern)
    }
}

/// Checks the rules of a policy's name, which also keep `NAME@POINT` unambiguous.
pub fn check_name(name: &str) -> Result<(), PolicyFault> {
    let first = name.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
    let rest = name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
    if first && rest && name.len() <= POLICY_NAME_BYTES_MAX {
        Ok(())
    } else {
        Err(PolicyFault::Name(name.to_owned()))
    }
}

impl fmt::Display for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Reader::Auto => "auto",
            Reader::Raw => "raw",
            Reader::Ext4 => "ext4",
            Reader::Mounted => "mounted",
            Reader::Image => "image",
        })
    }
}

/// Text that is not a reader's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotAReader;

impl fmt::Display for NotAReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a reader; write auto, raw, ext4, mounted or image")
    }
}

impl std::error::Error for NotAReader {}

impl FromStr for Reader {
    type Err = NotAReader;

    fn from_str(text: &str) -> Result<Reader, NotAReader> {
        match text {
            "auto" => Ok(Reader::Auto),
            "raw" => Ok(Reader::Raw),
            "ext4" => Ok(Reader::Ext4),
            "mounted" => Ok(Reader::Mounted),
            "image" => Ok(Reader::Image),
            _ => Err(NotAReader),
        }
    }
}

impl Default for Compression {
    fn default() -> Compression {
        Compression::Zstd(1)
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Compression::None => f.write_str("none"),
            Compression::Zstd(level) => write!(f, "zstd:{level}"),
        }
    }
}

/// Text that is not a compression.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotACompression;

impl fmt::Display for NotACompression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a compression; write none, zstd, or zstd:LEVEL with a level from 1 to 19")
    }
}

impl std::error::Error for NotACompression {}

impl FromStr for Compression {
    type Err = NotACompression;

    fn from_str(text: &str) -> Result<Compression, NotACompression> {
        match text.split_once(':') {
            None if text == "none" => Ok(Compression::None),
            None if text == "zstd" => Ok(Compression::default()),
            Some(("zstd", level)) => match level.parse() {
                Ok(level @ 1..=19) => Ok(Compression::Zstd(level)),
                _ => Err(NotACompression),
            },
            _ => Err(NotACompression),
        }
    }
}

impl TryFrom<String> for Compression {
    type Error = NotACompression;

    fn try_from(text: String) -> Result<Compression, NotACompression> {
        text.parse()
    }
}

impl From<Compression> for String {
    fn from(compression: Compression) -> String {
        compression.to_string()
    }
}

#[derive(Deserialize)]
struct Version {
    version: u32,
}

fn is_zero(count: &u32) -> bool {
    *count == 0
}

fn is_nothing(ms: &u64) -> bool {
    *ms == 0
}

fn is_usual(priority: &i8) -> bool {
    *priority == 0
}

fn is_false(value: &bool) -> bool {
    !value
}

fn default_block_size() -> u64 {
    BLOCK_BYTES_DEFAULT.into()
}

fn default_object_size() -> u64 {
    OBJECT_BYTES_DEFAULT.into()
}

fn default_flush_interval() -> u64 {
    FLUSH_INTERVAL_MS_DEFAULT
}

/// Sizes as `128KiB` in JSON.
mod size {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub fn serialize<S: Serializer>(bytes: &u64, out: S) -> Result<S::Ok, S::Error> {
        out.serialize_str(&super::units::format_bytes(*bytes))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
        super::units::parse_bytes(&String::deserialize(from)?).map_err(D::Error::custom)
    }
}

/// Sizes that may be missing.
mod optional_size {
    use serde::{Deserializer, Serializer};

    pub fn serialize<S: Serializer>(bytes: &Option<u64>, out: S) -> Result<S::Ok, S::Error> {
        match bytes {
            Some(bytes) => super::size::serialize(bytes, out),
            None => out.serialize_none(),
        }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u64>, D::Error> {
        super::size::deserialize(from).map(Some)
    }
}

/// The same where it may be missing.
mod optional_duration {
    use serde::{Deserializer, Serializer};

    pub fn serialize<S: Serializer>(ms: &Option<u64>, out: S) -> Result<S::Ok, S::Error> {
        match ms {
            Some(ms) => super::duration::serialize(ms, out),
            None => out.serialize_none(),
        }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u64>, D::Error> {
        super::duration::deserialize(from).map(Some)
    }
}

/// Durations as `60s` in JSON.
mod duration {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub fn serialize<S: Serializer>(ms: &u64, out: S) -> Result<S::Ok, S::Error> {
        out.serialize_str(&super::units::format_duration_ms(*ms))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
        super::units::parse_duration_ms(&String::deserialize(from)?).map_err(D::Error::custom)
    }
}

#[cfg(test)]
#[path = "policy_test.rs"]
mod tests;
