//! What readers share when they put items into a window: beginning one, taking one back that does not fit, going on with one that
//! comes in parts, and its attributes.
//!
//! Source: ours.

use super::{
    Hints, ITEM_XATTR_BYTES_MAX, ITEM_XATTRS_MAX, Item, ItemFault, ItemFaultKind, ItemKind, Part, Payload,
    Timestamp, Window, Xattr,
};
use crate::block::Fault;

/// How the delivery of an item ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// All of it is in the window, or it is no item.
    Done,
    /// The window has no room for it; nothing of it is there.
    Full,
    /// A part is in the window; go on at this logical byte, or where the reader means by this.
    More(u64),
}

/// Lengths of the window before an item, to take it back.
pub(super) struct Mark {
    items: usize,
    extents: usize,
    names: usize,
    xattrs: usize,
    bytes: usize,
}

impl Mark {
    /// Where the window ends now.
    pub(super) fn of(window: &Window) -> Mark {
        Mark {
            items: window.items.len(),
            extents: window.extents.len(),
            names: window.names.len(),
            xattrs: window.xattrs.len(),
            bytes: window.bytes.len(),
        }
    }

    /// Drops what was added since.
    pub(super) fn take_back(&self, window: &mut Window) {
        window.items.truncate(self.items);
        window.extents.truncate(self.extents);
        window.names.truncate(self.names);
        window.xattrs.truncate(self.xattrs);
        window.bytes.truncate(self.bytes);
    }

    /// Keeps the item in the window or takes it back, by `step`: one that does not fit what is left starts
    /// the next window, and only one that was alone in its window may come in parts.
    pub(super) fn finish(&self, step: Step, mut item: Item, window: &mut Window) -> Step {
        if step == Step::Full || (step != Step::Done && !window.items.is_empty()) {
            self.take_back(window);
            return Step::Full;
        }
        if let Step::More(to) = step {
            item.part.last = false;
            item.part.to = to;
        }
        item.extents.end = window.extents.len() as u32;
        item.names.end = window.names.len() as u32;
        window.items.push(item);
        step
    }
}

/// An item without anything but its number, whose lists begin where the window ends.
pub(super) fn bare(number: u64, window: &Window) -> Item {
    let empty = |len: usize| len as u32..len as u32;
    Item {
        inode: number,
        generation: 0,
        kind: ItemKind::File,
        mode: 0,
        uid: 0,
        gid: 0,
        links: 0,
        rdev: (0, 0),
        size: 0,
        atime: Timestamp::default(),
        mtime: Timestamp::default(),
        ctime: Timestamp::default(),
        btime: None,
        flags: 0,
        project: 0,
        hints: Hints::NONE,
        parent: 0,
        payload: Payload::None,
        extents: empty(window.extents.len()),
        names: empty(window.names.len()),
        xattrs: empty(window.xattrs.len()),
        part: Part::WHOLE,
        fault: None,
    }
}

/// The root is its own parent, and no other directory is: readers of a recovery point find the root by this.
/// A directory that breaks the rule gets a fault.
pub(super) fn settle_parent(item: &mut Item, root: u64, at: u64) {
    if item.kind != ItemKind::Directory {
        return;
    }
    if item.inode == root {
        if item.parent != root && item.parent != 0 {
            item.fault.get_or_insert(damaged(at, "root directory's .. names another directory"));
        }
        item.parent = root;
    } else if item.parent == item.inode {
        item.fault.get_or_insert(damaged(at, "directory's .. names the directory itself"));
        item.parent = 0;
    }
}

/// Turns a POSIX ACL as it is on disk into what `getxattr` returns; `None` when it is not sound.
pub(super) type ConvertAcl = fn(&[u8], &mut Vec<u8>) -> Option<()>;

/// Whether an item that has `count` attributes of `bytes` bytes already takes one more of `more` bytes. What does not fit is left out,
/// and that is a fault of the item, whose other contents are good.
pub(super) fn xattr_fits(count: usize, bytes: usize, more: usize, at: u64) -> Result<(), ItemFault> {
    let refused = |rule| Err(ItemFault { kind: ItemFaultKind::Refused, device_offset: at, rule });
    if bytes.saturating_add(more) > ITEM_XATTR_BYTES_MAX {
        return refused("attributes take more than the reader's bound of 512 KiB; the rest is left out");
    }
    match count >= ITEM_XATTRS_MAX {
        true => refused("more attributes than the reader's bound of 16384; the rest is left out"),
        false => Ok(()),
    }
}

/// Puts an attribute into the window, its name from a prefix and the rest, its value through `acl` if there is one. Returns how many
/// bytes it takes there, or the rule that it breaks.
pub(super) fn put_xattr(
    window: &mut Window,
    (prefix, rest): (&[u8], &[u8]),
    value: &[u8],
    acl: Option<ConvertAcl>,
) -> Result<usize, &'static str> {
    let start = window.bytes.len();
    let name = window.put_bytes(prefix).start..window.put_bytes(rest).end;
    let value = match acl {
        Some(convert) => {
            if convert(value, &mut window.bytes).is_none() {
                window.bytes.truncate(start);
                return Err("access control list is malformed");
            }
            name.end..window.bytes.len() as u32
        }
        None => window.put_bytes(value),
    };
    window.xattrs.push(Xattr { name, value });
    Ok(window.bytes.len() - start)
}

/// Sorts the attributes from `first` on by name. Of two with one name the first stays, and that is a fault of the inode at `at`.
pub(super) fn settle_xattrs(window: &mut Window, first: usize, at: u64) -> Option<ItemFault> {
    let bytes = &window.bytes;
    let name = |x: &Xattr| bytes.get(x.name.start as usize..x.name.end as usize).unwrap_or_default();
    window.xattrs[first..].sort_by(|a, b| name(a).cmp(name(b)));
    let before = window.xattrs.len();
    let mut kept: Vec<Xattr> = window.xattrs.drain(first..).collect();
    kept.dedup_by(|b, a| name(a) == name(b));
    window.xattrs.append(&mut kept);
    (window.xattrs.len() < before).then(|| damaged(at, "attribute name is there twice"))
}

/// A fault of the kind `Media`, at `offset` if the device does not report a place.
pub(super) fn media(fault: Fault, offset: u64, rule: &'static str) -> ItemFault {
    let device_offset = if fault.len == 0 { offset } else { fault.device_offset };
    ItemFault { kind: ItemFaultKind::Media, device_offset, rule }
}

/// A fault of the kind `Damaged`.
pub(super) fn damaged(device_offset: u64, rule: &'static str) -> ItemFault {
    ItemFault { kind: ItemFaultKind::Damaged, device_offset, rule }
}
