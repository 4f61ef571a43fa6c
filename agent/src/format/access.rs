//! Who may do what, and who did it.
//!
//! A record of the log has one part:
//!
//! | part u8 | what | fields |
//! |---|---|---|
//! | 1 | the roles of a subject, in place of those that it had | subject text, list of [`Grant`] (role u8, policy text; empty: all policies) |
//! | 2 | refused: what a subject may not do was asked for so often since it was last said | subject text, count u64, wall clock i64, what text |
//! | 3 | by: who asked for the records behind it in the slot | subject text, node u32, wall clock i64 |
//!
//! A subject is `uid:1000`, `gid:100` or `cert:NAME`, by the name of a certificate. Roles are 1 viewer, 2 operator, 3 restorer, 4 installer, 5 administrator.
//! Invariants: one encoding; grants ascend. Does not: decide (`coordinator::access`). Source: ours.

use super::cursor::{Reader, Wire, WireFault, emit_bytes};
use crate::id::NodeId;
use crate::log::limits::POLICY_NAME_BYTES_MAX;
use crate::work::entry::Role;

/// Bytes of a subject's name.
pub const SUBJECT_BYTES_MAX: usize = 128;
/// Grants of a subject: some roles for some policies.
pub const GRANTS_MAX: usize = 32;
/// Bytes of what was refused.
pub const REFUSED_WHAT_BYTES_MAX: usize = 128;

fn number(role: Role) -> u8 {
    match role {
        Role::Viewer => 1,
        Role::Operator => 2,
        Role::Restorer => 3,
        Role::Installer => 4,
        Role::Administrator => 5,
    }
}

/// A role for a policy, or for all.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Grant {
    /// Which.
    pub role: Role,
    /// For this policy; empty: for all, and for what is of none.
    pub policy: String,
}

/// Checks how a subject is written: `uid:N`, `gid:N`, or `cert:NAME` with a host name in lower case.
#[must_use]
pub fn is_subject(text: &str) -> bool {
    let is_number = |rest: &str| !rest.is_empty() && rest.parse::<u32>().is_ok_and(|n| n.to_string() == rest);
    let known = match text.split_once(':') {
        Some(("uid" | "gid", rest)) => is_number(rest),
        Some(("cert", rest)) => {
            let is_part =
                |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-._".contains(&byte);
            rest.starts_with(|c: char| c.is_ascii_alphanumeric()) && rest.bytes().all(is_part)
        }
        _ => false,
    };
    known && text.len() <= SUBJECT_BYTES_MAX
}

/// A record of the log.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum AccessNews {
    /// The roles of a subject from now on; none: it is forgotten.
    Roles {
        /// Whose.
        subject: String,
        /// Which, ascending.
        grants: Vec<Grant>,
    },
    /// It asked for what it may not do.
    Refused {
        /// Who.
        subject: String,
        /// How often since that was last said.
        count: u64,
        /// When last, wall clock in nanoseconds.
        wall_ns: i64,
        /// What last, for people.
        what: String,
    },
    /// Who asked for the records behind it in the slot.
    By {
        /// Who.
        subject: String,
        /// At which node.
        node: NodeId,
        /// When, wall clock in nanoseconds.
        wall_ns: i64,
    },
}

impl AccessNews {
    pub(crate) fn emit(&self, out: &mut Vec<u8>) {
        match self {
            AccessNews::Roles { subject, grants } => {
                out.push(1);
                emit_bytes(out, subject.as_bytes());
                u32::try_from(grants.len()).unwrap_or(u32::MAX).emit(out);
                for grant in grants {
                    out.push(number(grant.role));
                    emit_bytes(out, grant.policy.as_bytes());
                }
            }
            AccessNews::Refused { subject, count, wall_ns, what } => {
                out.push(2);
                emit_bytes(out, subject.as_bytes());
                count.emit(out);
                wall_ns.emit(out);
                emit_bytes(out, what.as_bytes());
            }
            AccessNews::By { subject, node, wall_ns } => {
                out.push(3);
                emit_bytes(out, subject.as_bytes());
                node.emit(out);
                wall_ns.emit(out);
            }
        }
    }

    pub(crate) fn parse(fields: &mut Reader<'_>) -> Result<AccessNews, WireFault> {
        let part: u8 = fields.value()?;
        let subject = fields.text(SUBJECT_BYTES_MAX)?;
        Ok(match part {
            1 => AccessNews::Roles { subject, grants: parse_grants(fields)? },
            2 => AccessNews::Refused {
                subject,
                count: fields.value()?,
                wall_ns: fields.value()?,
                what: fields.text(REFUSED_WHAT_BYTES_MAX)?,
            },
            3 => AccessNews::By { subject, node: fields.value()?, wall_ns: fields.value()? },
            _ => return Err(WireFault::Value),
        })
    }
}

fn parse_grants(fields: &mut Reader<'_>) -> Result<Vec<Grant>, WireFault> {
    let count: u32 = fields.value()?;
    if count as usize > GRANTS_MAX {
        return Err(WireFault::Count(count));
    }
    let grant = |_| {
        let wanted: u8 = fields.value()?;
        let role = Role::ALL.into_iter().find(|&role| number(role) == wanted).ok_or(WireFault::Value)?;
        Ok(Grant { role, policy: fields.text(POLICY_NAME_BYTES_MAX)? })
    };
    let grants = (0..count).map(grant).collect::<Result<Vec<_>, WireFault>>()?;
    if grants.is_sorted_by(|a, b| a < b) { Ok(grants) } else { Err(WireFault::Value) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_these_bytes() {
        let subject = "uid:7".to_owned();
        let head = |part: u8| [&[part, 5, 0, 0, 0][..], b"uid:7"].concat();
        let grants = vec![
            Grant { role: Role::Operator, policy: "p".to_owned() },
            Grant { role: Role::Administrator, policy: String::new() },
        ];
        for (news, part, rest) in [
            (
                AccessNews::Roles { subject: subject.clone(), grants },
                1,
                &[2, 0, 0, 0, 2, 1, 0, 0, 0, b'p', 5, 0, 0, 0, 0][..],
            ),
            (
                AccessNews::Refused { subject: subject.clone(), count: 3, wall_ns: 4, what: "x".to_owned() },
                2,
                &[3, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, b'x'],
            ),
            (
                AccessNews::By { subject, node: NodeId(9), wall_ns: 1 },
                3,
                &[9, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0],
            ),
        ] {
            let mut bytes = Vec::new();
            news.emit(&mut bytes);
            assert_eq!(bytes, [&head(part)[..], rest].concat());
            assert_eq!(AccessNews::parse(&mut Reader::new(&bytes)), Ok(news));
        }
        let out_of_order = [&head(1)[..], &[2, 0, 0, 0, 5, 0, 0, 0, 0, 2, 0, 0, 0, 0]].concat();
        assert_eq!(AccessNews::parse(&mut Reader::new(&out_of_order)), Err(WireFault::Value));
    }

    #[test]
    fn subjects_have_a_form() {
        for good in ["uid:0", "gid:100", "uid:4294967295", "cert:a", "cert:plane-1.example.com"] {
            assert!(is_subject(good), "{good}");
        }
        for bad in [
            "",
            "root",
            "uid:",
            "uid:-1",
            "uid:01",
            "uid:x",
            "cert:",
            "cert:A",
            "cert:-a",
            "cert:a b",
            "cert:a,b",
            "pid:1",
            "uid:4294967296",
        ] {
            assert!(!is_subject(bad), "{bad}");
        }
    }
}
