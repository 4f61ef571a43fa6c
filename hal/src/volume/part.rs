//! What readers share when they put items into a window: taking one back that does not fit, and going on with one that comes
//! in parts.
//!
//! Source: ours.

use super::{ItemFault, ItemFaultKind, Window};

/// How the delivery of an item ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// All of it is in the window, or it is no item.
    Done,
    /// The window has no room for it; nothing of it is there.
    Full,
    /// A part is in the window; go on at this logical byte.
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
}

/// A fault of the kind `Damaged`.
pub(super) fn damaged(device_offset: u64, rule: &'static str) -> ItemFault {
    ItemFault { kind: ItemFaultKind::Damaged, device_offset, rule }
}
