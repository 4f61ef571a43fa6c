//! Stretches of a volume: where one may be cut, and what of a window lies in one.
//!
//! | volume | keys | cuts |
//! |---|---|---|
//! | file system | `(0, 0)..(highest inode + 1, 0)` | before any inode: `(inode, 0)` |
//! | image | `(0, 0)..(item, blocks in whole location rows)` | at any whole location row: `(item, n * row_blocks)` |
//!
//! An item's own row, and its deletion, belong to the stretch that its last key is in: the one with `from <= (inode, ..)` and
//! `(inode, u64::MAX) < to`. So stretches that tile the keys give every row once, however they are cut. A backup that was interrupted
//! within a file goes on in it at a location row, which is a cut as good as any; none is planned there.
//!
//! Pure. Source: ours; `agent/doc/commit-log.md`, I5.

use windlass_hal::volume::{VolumeInfo, VolumeKind, Window};

use crate::id::{KEY_END, Key};
use crate::worker::batch::Shape;

/// Inodes between planned cuts of a file system: the inodes of an XFS chunk, and of four blocks of an ext4 inode table, so that no two
/// workers read one for the same items.
pub const INODE_GRAIN: u64 = 64;

/// The key past a volume's last one, and the distance of cuts: a multiple of so many inodes, or of blocks for an image. The code that
/// divides a volume cuts in proportion below the end, begins the first stretch at [`KEY_START`](crate::id::KEY_START) and ends the last
/// one at [`KEY_END`].
pub fn span(info: &VolumeInfo, shape: &Shape) -> (Key, u64) {
    match info.kind {
        VolumeKind::Image => {
            let rows = info.size_bytes.div_ceil(shape.group_bytes()).max(1);
            ((info.root, rows * u64::from(shape.row_blocks)), u64::from(shape.row_blocks))
        }
        VolumeKind::Ext4 | VolumeKind::Xfs | VolumeKind::Mounted => {
            ((info.inode_max.saturating_add(1), 0), INODE_GRAIN)
        }
    }
}

/// Whether a stretch may begin and end so: it has a length, and is cut between location rows. What a peer asks for is judged by this.
pub fn is_sound(from: Key, to: Key, shape: &Shape) -> bool {
    let between = |key: Key| key.1.is_multiple_of(u64::from(shape.row_blocks));
    from < to && to <= KEY_END && between(from) && between(to)
}

/// Takes out of a window what lies at `to` or behind it. Returns whether the stretch ends in this window. An item that is cut
/// looks like one whose next part is in another window.
pub fn trim(window: &mut Window, to: Key, shape: &Shape) -> bool {
    let kept = window.items.partition_point(|item| (item.inode, 0) < to);
    let mut ends = kept < window.items.len();
    window.items.truncate(kept);
    let Some(item) = window.items.last_mut().filter(|item| item.inode == to.0) else { return ends };
    let cut = to.1.saturating_mul(u64::from(shape.block_bytes));
    if item.part.last || item.part.to >= cut {
        let of_item = item.extents.start as usize..item.extents.end as usize;
        let extents = &mut window.extents[of_item];
        let inside = extents.partition_point(|extent| extent.logical < cut);
        if let Some(last) = extents[..inside].last_mut() {
            last.len = last.len.min(cut - last.logical);
        }
        item.extents.end = item.extents.start + inside as u32;
        item.part.last = false;
        item.part.to = cut;
        ends = true;
    }
    ends
}

#[cfg(test)]
#[path = "stretch_test.rs"]
mod tests;
