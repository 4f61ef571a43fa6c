//! Features of a repository: what a program must know to read it, or to write it, by name.
//!
//! A program that meets a feature which it does not know does what the feature's class says:
//!
//! | class | number | a program that does not know the feature |
//! |---|---|---|
//! | compatible | 0 | reads and writes: what it does not know it neither needs nor spoils |
//! | read-only | 1 | reads; it does not take the lease, because what it writes would spoil something |
//! | incompatible | 2 | does not open the repository |
//!
//! Features stand in two places. The repository's description (`repo`) has those that it was made with: they say how to read what
//! is read before the log. Record kind 26 in the log raises all others, in front of the first record that needs one
//! ([`needed`]), so that programs which do not know them can read the repository until then. A feature that was raised stays.
//!
//! As bytes, in a list of `u32` count:
//!
//! | bytes | field |
//! |---|---|
//! | 1 | class |
//! | 4 + n | name: text, 1 to 32 of `a` to `z`, `0` to `9` and `-` |
//!
//! Invariants: lists are ascending by name and have each name once; an unknown incompatible feature is a fault when it is parsed, so
//! that nothing behind it is looked at. Does not: switch anything on; a program does what it does. Source: ours; the classes are those of
//! ext4's superblock (kernel, `fs/ext4/ext4.h`).

use std::collections::BTreeMap;
use std::fmt;

use super::cursor::{Reader, Wire, WireFault, emit_bytes};
use super::record::Record;

/// Bytes of a feature's name.
pub const FEATURE_NAME_BYTES_MAX: usize = 32;
/// Features of a repository, unknown ones among them: several times as many as there are.
pub const FEATURES_MAX: usize = 64;
/// Bytes of the list of features in a repository's description, which has those only that it was made with.
pub const FEATURES_BYTES_MAX: usize = 1024;

/// What a program that does not know a feature may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// Read and write.
    Compatible,
    /// Read.
    ReadOnly,
    /// Nothing.
    Incompatible,
}

/// A feature's name: 1 to [`FEATURE_NAME_BYTES_MAX`] of `a` to `z`, `0` to `9` and `-`; zeros behind it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FeatureName([u8; FEATURE_NAME_BYTES_MAX]);

/// Features by name.
pub type Features = BTreeMap<FeatureName, Class>;

/// What this program knows: the name of each, and its class.
///
/// | name | needed by record kind |
/// |---|---|
/// | `policy-rename` | 4, when it renames |
/// | `backup-stop` | 8, when it stops a backup or lets it go on |
/// | `roles` | 21 |
/// | `point-guards` | 22 |
/// | `garbage` | 23 |
/// | `removal-approval` | 25 |
const KNOWN: &[(&str, Class, u8)] = &[
    ("policy-rename", Class::Incompatible, 4),
    ("backup-stop", Class::Incompatible, 8),
    ("roles", Class::Incompatible, 21),
    ("point-guards", Class::Incompatible, 22),
    ("garbage", Class::Incompatible, 23),
    ("removal-approval", Class::Incompatible, 25),
];

impl FeatureName {
    /// `None` for what is no name.
    #[must_use]
    pub fn new(text: &str) -> Option<FeatureName> {
        let is_part = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        let mut name = [0; FEATURE_NAME_BYTES_MAX];
        let into = name.get_mut(..text.len())?;
        into.copy_from_slice(text.as_bytes());
        (!text.is_empty() && text.bytes().all(is_part)).then_some(FeatureName(name))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        let end = self.0.iter().position(|&byte| byte == 0).unwrap_or(FEATURE_NAME_BYTES_MAX);
        std::str::from_utf8(&self.0[..end]).unwrap_or_default()
    }

    /// Whether this program knows it.
    #[must_use]
    pub fn is_known(&self) -> bool {
        KNOWN.iter().any(|(name, ..)| *name == self.as_str())
    }
}

impl fmt::Display for FeatureName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for FeatureName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Class::Compatible => "compatible",
            Class::ReadOnly => "read-only",
            Class::Incompatible => "incompatible",
        })
    }
}

impl Wire for Class {
    const BYTES_MIN: usize = 1;

    fn emit(&self, out: &mut Vec<u8>) {
        out.push(match self {
            Class::Compatible => 0,
            Class::ReadOnly => 1,
            Class::Incompatible => 2,
        });
    }

    fn parse(reader: &mut Reader<'_>) -> Result<Class, WireFault> {
        match reader.value::<u8>()? {
            0 => Ok(Class::Compatible),
            1 => Ok(Class::ReadOnly),
            2 => Ok(Class::Incompatible),
            _ => Err(WireFault::Value),
        }
    }
}

/// Appends a list of features.
pub fn emit(features: &Features, out: &mut Vec<u8>) {
    u32::try_from(features.len()).unwrap_or(u32::MAX).emit(out);
    for (name, class) in features {
        class.emit(out);
        emit_bytes(out, name.as_str().as_bytes());
    }
}

/// Inverse of [`emit`]: 1 to [`FEATURES_MAX`] features. [`WireFault::Feature`] for an incompatible one that this program does not know.
pub fn parse(reader: &mut Reader<'_>) -> Result<Features, WireFault> {
    let count: u32 = reader.value()?;
    if count == 0 || count as usize > FEATURES_MAX {
        return Err(WireFault::Count(count));
    }
    let mut features = Features::new();
    for _ in 0..count {
        let class = reader.value()?;
        let name = FeatureName::new(&reader.text(FEATURE_NAME_BYTES_MAX)?).ok_or(WireFault::Value)?;
        if features.last_key_value().is_some_and(|(last, _)| *last >= name) {
            return Err(WireFault::Value);
        }
        if class == Class::Incompatible && !name.is_known() {
            return Err(WireFault::Feature(name));
        }
        features.insert(name, class);
    }
    Ok(features)
}

/// The first feature that keeps this program from writing: a read-only one that it does not know.
pub fn not_to_write(features: &Features) -> Option<FeatureName> {
    features
        .iter()
        .find(|(name, class)| **class == Class::ReadOnly && !name.is_known())
        .map(|(name, _)| *name)
}

/// The features that records need and that are not raised: to be raised in front of them.
pub fn needed(records: &[Record], raised: &Features) -> Features {
    // A policy's removal is as old as the log, and so is the end of a backup that is given up.
    let is_new =
        |record: &&Record| !matches!(record, Record::PolicyRemoved { .. } | Record::BackupAbandoned { .. });
    needed_by(records.iter().filter(is_new).map(Record::kind), raised)
}

fn needed_by(kinds: impl Iterator<Item = u8>, raised: &Features) -> Features {
    let of = |kind| KNOWN.iter().find(|(_, _, needs)| *needs == kind);
    let named = kinds.filter_map(of).filter_map(|(name, class, _)| Some((FeatureName::new(name)?, *class)));
    named.filter(|(name, _)| !raised.contains_key(name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(features: &[(Class, &str)]) -> Vec<u8> {
        let mut out = Vec::new();
        u32::try_from(features.len()).unwrap().emit(&mut out);
        for (class, name) in features {
            class.emit(&mut out);
            emit_bytes(&mut out, name.as_bytes());
        }
        out
    }

    fn parsed(features: &[(Class, &str)]) -> Result<Features, WireFault> {
        let bytes = list(features);
        let mut reader = Reader::new(&bytes);
        let parsed = parse(&mut reader)?;
        let mut again = Vec::new();
        emit(&parsed, &mut again);
        assert!(reader.is_empty() && again == bytes, "one encoding");
        Ok(parsed)
    }

    #[test]
    fn unknown_features_are_refused_kept_from_writing_or_let_be_by_class() {
        let name = FeatureName::new("of-tomorrow").unwrap();
        assert_eq!(parsed(&[(Class::Incompatible, "of-tomorrow")]), Err(WireFault::Feature(name)));
        let known = parsed(&[(Class::Incompatible, KNOWN[0].0)]).unwrap();
        assert_eq!(not_to_write(&known), None);
        let read = parsed(&[(Class::Compatible, "all"), (Class::ReadOnly, "of-tomorrow")]).unwrap();
        assert_eq!(not_to_write(&read), Some(name));
        assert_eq!(not_to_write(&parsed(&[(Class::Compatible, "of-tomorrow")]).unwrap()), None);
        assert!(WireFault::Feature(name).to_string().contains("of-tomorrow"));
    }

    #[test]
    fn lists_have_an_order_and_names_an_alphabet() {
        let long = "x".repeat(FEATURE_NAME_BYTES_MAX);
        for good in ["a", "point-undo", "v2", &long] {
            assert_eq!(FeatureName::new(good).unwrap().as_str(), good);
        }
        for bad in ["", "A", "a b", "a\0", "ü", &format!("{long}x")] {
            assert_eq!(FeatureName::new(bad), None, "{bad}");
        }
        let compatible = |names: &[&'static str]| {
            parsed(&names.iter().map(|name| (Class::Compatible, *name)).collect::<Vec<_>>())
        };
        assert!(compatible(&["a", "b"]).is_ok());
        for bad in [&[][..], &["b", "a"], &["a", "a"], &["A"]] {
            assert!(compatible(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn all_that_is_known_is_a_name_and_what_is_raised_is_not_needed_again() {
        assert!(KNOWN.iter().all(|(name, ..)| FeatureName::new(name).is_some_and(|name| name.is_known())));
        let first = needed_by([23, 14, 23].into_iter(), &Features::new());
        assert_eq!(first, Features::from([(FeatureName::new("garbage").unwrap(), Class::Incompatible)]));
        assert_eq!(needed_by([23, 14].into_iter(), &first), Features::new());
        // A name without a record that this program can read would let it open what it cannot read.
        for (.., kind) in KNOWN {
            let empty = [*kind, 0, 0, 0, 0];
            assert_ne!(Record::parse(&mut Reader::new(&empty)), Err(WireFault::Kind(*kind)));
        }
        assert!(needed(&[Record::Unpin { pin: 1 }], &Features::new()).is_empty());
        let removed = Record::PolicyRemoved { name: "a".to_owned(), revision: 2 };
        assert!(needed(&[removed], &Features::new()).is_empty());
        let (from, to) = ("a".to_owned(), "b".to_owned());
        let renamed = needed(&[Record::PolicyRenamed { from, to, revision: 2 }], &Features::new());
        assert_eq!(renamed.keys().map(FeatureName::as_str).collect::<Vec<_>>(), ["policy-rename"]);
    }
}
