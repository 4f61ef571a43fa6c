//! Attributes of a restored item, in the only order that keeps them all.
//!
//! | step | why here |
//! |---|---|
//! | data | a later write drops `security.capability` |
//! | owner | clears setuid, setgid and `security.capability`; where it cannot be set, those are left out (and named): they would give the rights of another process |
//! | extended attributes, ACLs | an ACL rewrites the group bits of the mode |
//! | mode | |
//! | `security.capability` | after the last write and the owner |
//! | project id | |
//! | times | after everything that touches them |
//! | flags | last, by the caller, when all names are there: nothing else is allowed afterwards (`inode_flags`) |
//!
//! What is already right is not set again: on a tree of small files that is most of the system calls, and an immutable directory that
//! is as it was takes none.
//!
//! Errors never end an item: each attribute that could not be set is reported and the others are set.
//! Does not: restore ctime and btime; no call can. Source: `agent/doc/architecture.md`, Restore (measured).

use windlass_hal::tree::{Errno, Node};
use windlass_hal::volume::{ItemKind, Timestamp};

use super::fault::{Feature, Reason};
use crate::format::row::ItemAttributes;

const CAPABILITY: &[u8] = b"security.capability";
const ACL_ACCESS: &[u8] = b"system.posix_acl_access";
const ACL_DEFAULT: &[u8] = b"system.posix_acl_default";
/// The setuid and setgid bits.
const PRIVILEGES: u16 = 0o6000;

/// What an inode is known to have before its attributes are set; `None` when unknown.
#[derive(Clone, Copy, Debug)]
pub struct Known {
    /// Owner and group.
    pub owner: Option<(u32, u32)>,
    /// Permission bits.
    pub mode: Option<u16>,
    /// Last change of the contents.
    pub mtime: Option<Timestamp>,
    /// Whether it may have its attributes already, so that looking first pays.
    pub is_old: bool,
}

impl Known {
    /// Nothing is known: everything is set.
    pub const NOTHING: Known = Known { owner: None, mode: None, mtime: None, is_old: false };

    /// What `node`, which was there before, has.
    pub fn of(node: &impl Node) -> Known {
        let Ok(stat) = node.stat() else { return Known { is_old: true, ..Known::NOTHING } };
        Known {
            owner: Some((stat.uid, stat.gid)),
            mode: Some(stat.mode),
            mtime: Some(stat.mtime),
            is_old: true,
        }
    }

    /// Whether it has the item's owner (unless owners are left) and mode.
    pub fn has_owner_and_mode(&self, item: &ItemAttributes, owners: bool) -> bool {
        (!owners || self.owner == Some((item.uid, item.gid))) && self.mode == Some(item.mode)
    }
}

/// Sets everything but flags on an open file or directory, as far as it differs from what is `known`.
pub fn settle(
    node: &impl Node,
    item: &ItemAttributes,
    known: Known,
    owners: bool,
    fault: &mut dyn FnMut(Reason),
) {
    let mut mode = known.mode;
    let mut owner = known.owner;
    if owners && known.owner != Some((item.uid, item.gid)) {
        mode = None;
        let set = node.set_owner(item.uid, item.gid);
        owner = set.is_ok().then_some((item.uid, item.gid)).or(owner);
        check("set owner", set, fault);
    }
    let owner = owner.or_else(|| node.stat().ok().map(|stat| (stat.uid, stat.gid)));
    let trusted = is_trusted(item, owner);
    let mut missing = Missing::default();
    for (name, value) in item.xattrs.iter().filter(|(name, _)| name != CAPABILITY) {
        if known.is_old && has_xattr(node, name, value) {
            continue;
        }
        if name == ACL_ACCESS {
            mode = None;
        }
        if let Err(errno) = node.set_xattr(name, value) {
            missing.add(name, errno, fault);
        }
    }
    let wanted = if trusted { item.mode } else { item.mode & !PRIVILEGES };
    if mode != Some(wanted) {
        check("set mode", node.set_mode(wanted), fault);
    }
    if let Some((name, value)) = item.xattrs.iter().find(|(name, _)| name == CAPABILITY)
        && trusted
        && let Err(errno) = node.set_xattr(name, value)
    {
        missing.add(name, errno, fault);
    }
    missing.tell(fault);
    if !trusted {
        fault(Reason::NotKept { what: Feature::Privileges, items: 1 });
    }
    if item.project != 0 {
        check("set project id", node.set_project(item.project), fault);
    }
    if known.mtime != Some(item.mtime) {
        check("set times", node.set_times(item.atime, item.mtime), fault);
    }
}

/// What of an item's attributes the target does not know at all: told once for each kind.
#[derive(Default)]
struct Missing {
    xattrs: bool,
    acls: bool,
}

impl Missing {
    fn add(&mut self, name: &[u8], errno: Errno, fault: &mut dyn FnMut(Reason)) {
        match errno {
            Errno::OPNOTSUPP if [ACL_ACCESS, ACL_DEFAULT].contains(&name) => self.acls = true,
            Errno::OPNOTSUPP => self.xattrs = true,
            errno => fault(Reason::Xattr { name: name.to_vec(), errno }),
        }
    }

    fn tell(&self, fault: &mut dyn FnMut(Reason)) {
        for (_, what) in
            [(self.xattrs, Feature::Xattrs), (self.acls, Feature::Acls)].iter().filter(|(is, _)| *is)
        {
            fault(Reason::NotKept { what: *what, items: 1 });
        }
    }
}

/// Whether what gives a program its owner's rights may be set: not when the item has it and is not its owner's. A directory's bits
/// give none.
fn is_trusted(item: &ItemAttributes, owner: Option<(u32, u32)>) -> bool {
    let (uid, gid) = owner.unzip();
    let capable = item.xattrs.iter().any(|(name, _)| name == CAPABILITY);
    let foreign_user = uid != Some(item.uid) && (item.mode & 0o4000 != 0 || capable);
    let foreign_group = gid != Some(item.gid) && (item.mode & 0o2000 != 0 || capable);
    item.kind == ItemKind::Directory || !foreign_user && !foreign_group
}

/// Whether an extended attribute is there with that value.
fn has_xattr(node: &impl Node, name: &[u8], value: &[u8]) -> bool {
    // A byte more: a longer value is another one.
    let mut have = vec![0; value.len() + 1];
    node.xattr(name, &mut have).is_ok_and(|len| have[..len] == *value)
}

/// Removes what an old file has and the item has not: its ACLs, capabilities and attributes of users. Labels and the like are the
/// system's own.
pub fn drop_others(node: &impl Node, item: &ItemAttributes, fault: &mut dyn FnMut(Reason)) {
    let mut others: Vec<Vec<u8>> = Vec::new();
    let listed = node.xattr_names(&mut |name| {
        let is_ours = name.starts_with(b"user.") || [CAPABILITY, ACL_ACCESS, ACL_DEFAULT].contains(&name);
        if is_ours && !item.xattrs.iter().any(|(wanted, _)| wanted == name) {
            others.push(name.to_vec());
        }
    });
    match listed {
        Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => {}
        Err(errno) => fault(Reason::System { call: "list extended attributes", errno }),
    }
    for name in others {
        match node.remove_xattr(&name) {
            Ok(()) | Err(Errno::NODATA) => {}
            Err(errno) => fault(Reason::Xattr { name, errno }),
        }
    }
}

/// Sets everything but flags on a symlink or special file, by its name in a directory that only this restore writes to.
pub fn settle_name(
    dir: &impl Node,
    name: &[u8],
    item: &ItemAttributes,
    owners: bool,
    fault: &mut dyn FnMut(Reason),
) {
    if owners {
        check("set owner", dir.set_owner_of(name, item.uid, item.gid), fault);
    }
    let mut missing = Missing::default();
    for (key, value) in &item.xattrs {
        if let Err(errno) = dir.set_xattr_of(name, key, value) {
            missing.add(key, errno, fault);
        }
    }
    missing.tell(fault);
    if item.kind != ItemKind::Symlink {
        // What is no program gives no rights, so the mode is whole whichever its owner.
        check("set mode", dir.set_mode_of(name, item.mode), fault);
    }
    check("set times", dir.set_times_of(name, item.atime, item.mtime), fault);
}

/// Removes what a new file or directory inherited from the default ACL of the one above; whether there was anything. Asked first: since
/// Linux 6.2 removing what is not there succeeds.
pub fn drop_inherited_acls(node: &impl Node) -> bool {
    let mut had = false;
    for name in [ACL_ACCESS, ACL_DEFAULT] {
        if matches!(node.xattr(name, &mut [0]), Ok(_) | Err(Errno::RANGE)) {
            had = true;
            // The mode is set afterwards, whatever an ACL made of it.
            let _ = node.remove_xattr(name);
        }
    }
    had
}

fn check(call: &'static str, result: Result<(), Errno>, fault: &mut dyn FnMut(Reason)) {
    if let Err(errno) = result {
        fault(Reason::System { call, errno });
    }
}
