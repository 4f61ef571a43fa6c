//! Other owners than a point has: users and groups by number, each mapped to another one.
//!
//! | written | what becomes another |
//! |---|---|
//! | `1000:2000` | user 1000 becomes 2000 |
//! | `1000:100=2000:200` | user 1000 becomes 2000, and group 100 becomes 200 |
//! | `:100=:200` | group 100 becomes 200 |
//!
//! Applies to the owner and group of each item, and to the entries of its POSIX ACLs. An id that no rule names stays.
//!
//! Invariants: an id has one rule; a mapped id is not mapped again. Does not: know names of users, or other kinds of ACLs (NFSv4).
//! Source: ours; `linux/posix_acl_xattr.h`: version (4 bytes, 2), entries of tag (2), permissions (2), id (4), little-endian.

use std::collections::BTreeMap;
use std::fmt;

use crate::format::row::ItemAttributes;

/// Most rules: what a person writes on a command line.
pub const OWNER_RULES_MAX: usize = 1024;
const ACLS: [&[u8]; 2] = [b"system.posix_acl_access", b"system.posix_acl_default"];
const ACL_HEADER_BYTES: usize = 4;
const ACL_ENTRY_BYTES: usize = 8;
/// Version of the only known layout.
const ACL_VERSION: [u8; 4] = [2, 0, 0, 0];
const ACL_USER: u16 = 0x02;
const ACL_GROUP: u16 = 0x08;

/// Which ids become which.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OwnerMap {
    users: BTreeMap<u32, u32>,
    groups: BTreeMap<u32, u32>,
}

/// Why a rule cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OwnerFault {
    /// It is not written as one.
    Form,
    /// An id is not a number of 32 bits, or the one that means none.
    Id,
    /// The id has a rule already that says something else.
    Twice(u32),
    /// More than [`OWNER_RULES_MAX`].
    TooMany,
}

impl fmt::Display for OwnerFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OwnerFault::Form => f.write_str(
                "write OLD:NEW for users, UID:GID=UID:GID for both, or :GID=:GID for groups, by number",
            ),
            OwnerFault::Id => f.write_str("an id is a number from 0 to 4294967294"),
            OwnerFault::Twice(id) => write!(f, "id {id} is mapped twice, to different ids"),
            OwnerFault::TooMany => write!(f, "more than {OWNER_RULES_MAX} rules"),
        }
    }
}

impl std::error::Error for OwnerFault {}

impl OwnerMap {
    /// Whether every id stays.
    pub fn is_empty(&self) -> bool {
        self.users.is_empty() && self.groups.is_empty()
    }

    /// Adds a rule as a person writes it. Errors: [`OwnerFault`]; nothing is added then.
    pub fn add(&mut self, rule: &str) -> Result<(), OwnerFault> {
        let (old, new) = match rule.split_once('=') {
            Some((old, new)) => (pair(old)?, pair(new)?),
            None => {
                let (old, new) = rule.split_once(':').ok_or(OwnerFault::Form)?;
                ((Some(id(old)?), None), (Some(id(new)?), None))
            }
        };
        let (users, groups) = (both(old.0, new.0)?, both(old.1, new.1)?);
        if users.is_none() && groups.is_none() {
            return Err(OwnerFault::Form);
        }
        let mut changed = self.clone();
        for (map, rule) in [(&mut changed.users, users), (&mut changed.groups, groups)] {
            if let Some((old, new)) = rule
                && map.insert(old, new).is_some_and(|other| other != new)
            {
                return Err(OwnerFault::Twice(old));
            }
        }
        if changed.users.len() + changed.groups.len() > OWNER_RULES_MAX {
            return Err(OwnerFault::TooMany);
        }
        *self = changed;
        Ok(())
    }

    /// Gives an item its other owner, group and ACL entries.
    pub fn apply(&self, item: &mut ItemAttributes) {
        if self.is_empty() {
            return;
        }
        item.uid = mapped(&self.users, item.uid);
        item.gid = mapped(&self.groups, item.gid);
        for (name, value) in &mut item.xattrs {
            if ACLS.contains(&name.as_slice()) {
                self.apply_to_acl(value);
            }
        }
    }

    /// An ACL of another layout stays as it is.
    fn apply_to_acl(&self, acl: &mut [u8]) {
        if !acl.starts_with(&ACL_VERSION) {
            return;
        }
        for entry in acl[ACL_HEADER_BYTES..].chunks_exact_mut(ACL_ENTRY_BYTES) {
            let map = match u16::from_le_bytes([entry[0], entry[1]]) {
                ACL_USER => &self.users,
                ACL_GROUP => &self.groups,
                _ => continue,
            };
            let old = u32::from_le_bytes([entry[4], entry[5], entry[6], entry[7]]);
            entry[4..].copy_from_slice(&mapped(map, old).to_le_bytes());
        }
    }

    /// The rules in order, as they are written: the same text for the same rules.
    pub fn canonical(&self) -> String {
        let users = self.users.iter().map(|(old, new)| format!("{old}:{new} "));
        users.chain(self.groups.iter().map(|(old, new)| format!(":{old}=:{new} "))).collect()
    }
}

fn mapped(map: &BTreeMap<u32, u32>, id: u32) -> u32 {
    map.get(&id).copied().unwrap_or(id)
}

fn id(text: &str) -> Result<u32, OwnerFault> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let number = text.parse().map_err(|_| if is_number { OwnerFault::Id } else { OwnerFault::Form })?;
    // (uid_t)-1 tells the kernel to change nothing.
    if !is_number {
        Err(OwnerFault::Form)
    } else if number == u32::MAX {
        Err(OwnerFault::Id)
    } else {
        Ok(number)
    }
}

/// `UID:GID`, of which each may be missing.
fn pair(text: &str) -> Result<(Option<u32>, Option<u32>), OwnerFault> {
    let (user, group) = text.split_once(':').unwrap_or((text, ""));
    let one = |text: &str| if text.is_empty() { Ok(None) } else { id(text).map(Some) };
    Ok((one(user)?, one(group)?))
}

/// Both sides, or neither.
fn both(old: Option<u32>, new: Option<u32>) -> Result<Option<(u32, u32)>, OwnerFault> {
    match (old, new) {
        (Some(old), Some(new)) => Ok(Some((old, new))),
        (None, None) => Ok(None),
        _ => Err(OwnerFault::Form),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(rules: &[&str]) -> Result<OwnerMap, OwnerFault> {
        let mut map = OwnerMap::default();
        rules.iter().try_for_each(|rule| map.add(rule)).map(|()| map)
    }

    #[test]
    fn rules_are_users_groups_or_both() {
        assert_eq!(map(&["1000:2000", ":100=:200"]), map(&["1000:100=2000:200"]));
        assert_eq!(map(&["1000=2000"]), map(&["1000:2000"]));
        assert_eq!(map(&["5:6", "5:6"]).unwrap().canonical(), "5:6 ");
        for wrong in ["", ":", "=", "5", "5:", ":6", "5:6:7", "a:5", "5:b", "5:6=7", "-1:5", "+1:5", "1:2=:3"]
        {
            assert_eq!(map(&[wrong]), Err(OwnerFault::Form), "{wrong}");
        }
        for wrong in ["4294967295:5", "5:4294967295", "99999999999:1"] {
            assert_eq!(map(&[wrong]), Err(OwnerFault::Id), "{wrong}");
        }
        assert_eq!(map(&["5:6", "5:7"]), Err(OwnerFault::Twice(5)));
        let many: Vec<String> = (0..=OWNER_RULES_MAX).map(|id| format!("{id}:0")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert_eq!(map(&many), Err(OwnerFault::TooMany));
    }

    #[test]
    fn entries_of_an_acl_become_others_and_a_mapped_id_is_not_mapped_again() {
        let map = map(&["1:2", "2:3", ":1=:9"]).unwrap();
        let entry = |tag: u16, id: u32| [&tag.to_le_bytes()[..], &[7, 0], &id.to_le_bytes()].concat();
        let acl = |ids: [u32; 5]| {
            let tags = [0x01, ACL_USER, ACL_USER, ACL_GROUP, 0x20];
            let entries: Vec<u8> = tags.iter().zip(ids).flat_map(|(&tag, id)| entry(tag, id)).collect();
            [&ACL_VERSION[..], &entries, &[1]].concat()
        };
        let mut value = acl([1, 1, 2, 1, 1]);
        map.apply_to_acl(&mut value);
        assert_eq!(value, acl([1, 2, 3, 9, 1]));
        let mut other = vec![3, 0, 0, 0, ACL_USER as u8, 0, 7, 0, 1, 0, 0, 0];
        map.apply_to_acl(&mut other);
        assert_eq!(other[8], 1, "a layout that is not known stays");
        map.apply_to_acl(&mut [2, 0]);
    }
}
