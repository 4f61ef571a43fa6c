//! Why bytes were refused: one small Copy type for every format.
//!
//! Does not: name the object that the bytes came from; the caller adds its key. Source: ours.

use std::fmt;

use super::feature::FeatureName;

/// A structure that was refused, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FormatFault {
    /// Which structure, as a person would call it: "frame", "row block", "trailer".
    pub what: &'static str,
    /// What kind of refusal.
    pub kind: FormatFaultKind,
}

/// The kinds of refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FormatFaultKind {
    /// The bytes end before the structure does.
    Truncated,
    /// The magic is another's.
    NotOurs,
    /// A version that this build does not know: a newer agent wrote it.
    Version(u16),
    /// An incompatible feature that this build does not know.
    Feature(FeatureName),
    /// A checksum or a rule of the structure is broken; the rule is named.
    Damaged(&'static str),
    /// The tag does not match: the bytes, their place, or the key are wrong.
    Unauthentic,
    /// The structure is sealed and the repository is not, or the other way round.
    Mode,
    /// No key slot opens with this key.
    WrongKey,
}

impl FormatFault {
    /// A fault of this kind in the structure `what`.
    pub const fn new(what: &'static str, kind: FormatFaultKind) -> FormatFault {
        FormatFault { what, kind }
    }

    /// A broken rule.
    pub const fn damaged(what: &'static str, rule: &'static str) -> FormatFault {
        FormatFault { what, kind: FormatFaultKind::Damaged(rule) }
    }

    /// Bytes that end too early.
    pub const fn truncated(what: &'static str) -> FormatFault {
        FormatFault { what, kind: FormatFaultKind::Truncated }
    }
}

impl fmt::Display for FormatFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = self.what;
        match self.kind {
            FormatFaultKind::Truncated => write!(f, "{what} is cut short"),
            FormatFaultKind::NotOurs => write!(f, "not a {what} of Windlass"),
            FormatFaultKind::Version(version) => {
                write!(f, "{what} has version {version}, which this agent does not know; use a newer one")
            }
            FormatFaultKind::Feature(name) => {
                write!(f, "{what} has feature \"{name}\", which this agent does not know; use a newer one")
            }
            FormatFaultKind::Damaged(rule) => write!(f, "{what} is damaged: {rule}"),
            FormatFaultKind::Unauthentic => write!(f, "{what} is damaged or was written with another key"),
            FormatFaultKind::Mode => write!(f, "{what} does not match the repository's encryption setting"),
            FormatFaultKind::WrongKey => write!(f, "{what}: the key opens no key slot"),
        }
    }
}

impl std::error::Error for FormatFault {}
