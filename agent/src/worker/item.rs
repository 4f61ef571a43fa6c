//! From items as the volume shows them to item rows, and what the last point says about them. Pure. Source: ours.

use std::fmt::Write;

use windlass_hal::volume::{ITEM_XATTR_BYTES_MAX, Item, ItemKind, Name, Payload, Window};

use crate::format::row::{Gone, ItemAttributes, ItemRow, RowPayload};
use crate::id::BackupId;
use crate::limits::{ITEM_FAULT_BYTES_MAX, ITEM_GAPS_MAX, ITEM_PAYLOAD_BYTES_MAX, ITEM_XATTRS_MAX};
use crate::pack::plan::PlanPiece;
use crate::worker::backup::Task;
use crate::worker::batch::Verdict;

/// Lost ranges of one item that its row names; the rest are counted.
const LOST_NAMED_MAX: usize = 8;
/// Characters of an entry's name that a fault shows: enough to recognise it, and a fault has room for 1 KiB.
const NAME_SHOWN_CHARS_MAX: usize = 128;

/// Says for each item of the window whether the last point has it, exactly as it is or otherwise. `base` is ascending.
pub fn judge(window: &Window, base: &[ItemRow], task: &Task) -> Vec<Verdict> {
    let judge_one = |item: &Item| {
        let Ok(at) = base.binary_search_by_key(&item.inode, |row| row.lin.inode) else { return Verdict::New };
        let Some(old) = &base[at].item else { return Verdict::New };
        if old.kind != item.kind || old.generation != item.generation {
            return Verdict::New;
        }
        let unsure = old.unsure || item.fault.is_some() || !old.fault.is_empty();
        let trusted = task.trust.same_volume && (!has_blocks(item) || task.trust.holds(item));
        if unsure || !trusted || item.kind == ItemKind::Image || !is_whole(item) {
            return Verdict::Changed;
        }
        let mut new = attributes(window, item, old.rows_from);
        new.atime = old.atime;
        let mut past = Past::of(item, task.volume_block_bytes);
        past.add(window, item);
        past.tell(&mut new);
        // Of a listing without a digest nothing says what is in it.
        let listed = item.kind != ItemKind::Directory || new.listing != 0;
        if new == *old && listed { Verdict::Same } else { Verdict::Changed }
    };
    window.items.iter().map(judge_one).collect()
}

/// Whether the item's contents are blocks, which its row does not hold.
fn has_blocks(item: &Item) -> bool {
    item.kind == ItemKind::File && item.payload == Payload::None && item.size > 0
}

/// Whether all of the item is in its window.
fn is_whole(item: &Item) -> bool {
    item.part.first && item.part.last
}

/// Digest of a directory's names and what they name, as the window shows them, in the order of the volume; 0 for what is no directory, or not
/// whole. Which of a directory's names are taken may change without a trace on the directory itself: by the selection, or by another name of
/// a directory above it.
fn listing(window: &Window, item: &Item) -> u64 {
    if item.kind != ItemKind::Directory || !is_whole(item) {
        return 0;
    }
    let mut hasher = blake3::Hasher::new();
    for name in &window.names[item.names.start as usize..item.names.end as usize] {
        let bytes = window.get(&name.name);
        hasher.update(&[bytes.len() as u8]).update(bytes).update(&name.inode.to_le_bytes());
    }
    let mut digest = [0; 8];
    hasher.finalize_xof().fill(&mut digest);
    u64::from_le_bytes(digest).max(1)
}

/// Appends the inodes that the last point has and the window, which covers the same stretch, has not; `found_secs` is now.
pub fn deleted(window: &Window, base: &[ItemRow], found_secs: i64, out: &mut Vec<(u64, Gone)>) {
    let is_gone =
        |row: &&ItemRow| window.items.binary_search_by_key(&row.lin.inode, |item| item.inode).is_err();
    let of = |row: &ItemRow| Some((row.lin.inode, Gone::of(row.item.as_ref()?, found_secs)));
    out.extend(base.iter().filter(is_gone).filter_map(of));
}

/// Calls `each` with the byte ranges of a block (from, to within it) that lie in lost device ranges; returns whether nothing
/// of the block is left.
pub fn lost_ranges(
    pieces: &[PlanPiece],
    len: u32,
    lost: &[(u64, u64)],
    mut each: impl FnMut(u64, u64),
) -> bool {
    let mut left = 0;
    for piece in pieces {
        let shown = u64::from(piece.len.min(len.saturating_sub(piece.within)));
        left += shown;
        for &(from, to) in lost {
            let from = from.clamp(piece.physical, piece.physical + shown) - piece.physical;
            let to = to.clamp(piece.physical, piece.physical + shown) - piece.physical;
            if from < to {
                left -= to - from;
                each(u64::from(piece.within) + from, u64::from(piece.within) + to);
            }
        }
    }
    left == 0
}

/// What is allocated past an item's last block.
#[derive(Debug, Default)]
struct Past {
    /// End of the last block.
    from: u64,
    /// End of what is allocated, or the item's size.
    to: u64,
    gaps: Vec<(u64, u64)>,
}

impl Past {
    /// Nothing yet, of an item on a volume of such blocks.
    fn of(item: &Item, block_bytes: u32) -> Past {
        let from = item.size.checked_next_multiple_of(u64::from(block_bytes)).unwrap_or(item.size);
        Past { from, to: item.size, gaps: Vec::new() }
    }

    /// Adds what a part of the item shows. Parts ascend; the same one again changes nothing.
    fn add(&mut self, window: &Window, item: &Item) {
        for extent in &window.extents[item.extents.start as usize..item.extents.end as usize] {
            if extent.logical > self.to && self.gaps.len() < ITEM_GAPS_MAX {
                self.gaps.push((self.to, extent.logical));
            }
            self.to = self.to.max(extent.logical.saturating_add(extent.len));
        }
    }

    /// Writes it into the item's row.
    fn tell(&mut self, row: &mut ItemAttributes) {
        if self.to > self.from {
            row.allocated_to = self.to;
            row.gaps = std::mem::take(&mut self.gaps);
        }
    }
}

/// The attributes of an item, without what only its last part shows.
fn attributes(window: &Window, item: &Item, rows_from: BackupId) -> ItemAttributes {
    let xattrs = &window.xattrs[item.xattrs.start as usize..item.xattrs.end as usize];
    ItemAttributes {
        kind: item.kind,
        rows_from,
        generation: item.generation,
        mode: item.mode,
        uid: item.uid,
        gid: item.gid,
        links: item.links,
        rdev: item.rdev,
        size: item.size,
        allocated_to: 0,
        gaps: Vec::new(),
        atime: item.atime,
        mtime: item.mtime,
        ctime: item.ctime,
        btime: item.btime,
        flags: item.flags,
        project: item.project,
        hints: item.hints,
        parent: item.parent,
        listing: listing(window, item),
        payload: match &item.payload {
            Payload::None => RowPayload::None,
            Payload::Target(range) => RowPayload::Target(window.get(range).to_vec()),
            Payload::Inline(range) => RowPayload::Inline(window.get(range).to_vec()),
        },
        xattrs: xattrs
            .iter()
            .map(|x| (window.get(&x.name).to_vec(), window.get(&x.value).to_vec()))
            .collect(),
        unsure: false,
        fault: item.fault.as_ref().map(ToString::to_string).unwrap_or_default(),
    }
}

/// Cuts a text to at most `most` bytes, between characters.
fn cut(text: &mut String, most: usize) {
    text.truncate(text.floor_char_boundary(most));
}

/// The row of an item whose parts are still coming.
#[derive(Debug, Default)]
pub struct Pending {
    /// Which item, 0 for none.
    pub inode: u64,
    /// Which run of its listing comes next.
    pub run: u32,
    attributes: Option<ItemAttributes>,
    names: Vec<u32>,
    past: Past,
    lost_ranges: u64,
}

impl Pending {
    /// Begins a part of an item: takes the attributes of its first part, and sorts the names of each as one run of the
    /// listing. Calling it again for the same part changes nothing that matters (a run's number may be skipped).
    pub fn begin_part(&mut self, window: &Window, item: &Item, task: &Task) {
        if self.inode != item.inode {
            self.inode = item.inode;
            self.run = 0;
            self.lost_ranges = 0;
            let mut row = attributes(window, item, task.backup);
            // Whether all of a file was read whose blocks another stretch has, that one knows: the next backup looks again.
            let begun_elsewhere = task.from.0 == item.inode && task.from.1 > 0;
            row.unsure = begun_elsewhere;
            self.attributes = Some(row);
            self.bound();
            self.past = Past::of(item, task.volume_block_bytes);
        } else if !item.part.first {
            self.run += 1;
        }
        self.past.add(window, item);
        self.names.clear();
        self.names.extend(item.names.clone());
        let name = |at: &u32| window.get(&window.names[*at as usize].name);
        // Of equal names the first in the directory leads: the kernel finds that one, too.
        self.names.sort_unstable_by(|a, b| name(a).cmp(name(b)).then(a.cmp(b)));
        let mut twice = Vec::new();
        self.names.dedup_by(|later, first| {
            let same = name(later) == name(first);
            if same {
                twice.push(*later);
            }
            same
        });
        self.twice(window, &twice);
    }

    /// Leaves out what a row has no room for. Readers have the same bounds: this is so that no reader can end a backup.
    fn bound(&mut self) {
        let Some(row) = &mut self.attributes else { return };
        let (mut count, mut bytes) = (0, 0);
        let before = row.xattrs.len();
        row.xattrs.retain(|(name, value)| {
            (count, bytes) = (count + 1, bytes + name.len() + value.len());
            count <= ITEM_XATTRS_MAX && bytes <= ITEM_XATTR_BYTES_MAX
        });
        let gone = before - row.xattrs.len();
        let fits = match &row.payload {
            RowPayload::None => true,
            RowPayload::Target(bytes) | RowPayload::Inline(bytes) => bytes.len() <= ITEM_PAYLOAD_BYTES_MAX,
        };
        if !fits {
            row.payload = RowPayload::None;
            self.blame("small contents above 64 KiB are left out");
        }
        if gone > 0 {
            self.blame(&format!(
                "{gone} extended attributes are left out: an item keeps 16384 of 512 KiB at most"
            ));
        }
    }

    /// Names what is left out because the directory has an entry of that name already.
    fn twice(&mut self, window: &Window, names: &[u32]) {
        let Some(&first) = names.first() else { return };
        let Name { name, inode } = &window.names[first as usize];
        let name = String::from_utf8_lossy(window.get(name));
        let shown: String = name.escape_debug().take(NAME_SHOWN_CHARS_MAX).collect();
        let more = match names.len() - 1 {
            0 => String::new(),
            more => format!(", and {more} more such entries"),
        };
        self.blame(&format!(
            "two entries are called \"{shown}\"; the one for inode {inode} is left out{more}"
        ));
    }

    /// Adds to what the item's row says is missing.
    pub fn blame(&mut self, what: &str) {
        let Some(row) = &mut self.attributes else { return };
        let and = if row.fault.is_empty() { "" } else { "; " };
        // Writing to a String cannot fail.
        let _ = write!(row.fault, "{and}{what}");
    }

    /// The n-th name of the current run and the inode it names.
    pub fn name<'w>(&self, window: &'w Window, n: usize) -> Option<(&'w [u8], u64)> {
        let name = &window.names[*self.names.get(n)? as usize];
        Some((window.get(&name.name), name.inode))
    }

    /// Bytes that the row will take, about.
    pub fn row_bytes(&self) -> usize {
        let Some(row) = &self.attributes else { return 0 };
        let payload = match &row.payload {
            RowPayload::None => 0,
            RowPayload::Target(bytes) | RowPayload::Inline(bytes) => bytes.len(),
        };
        payload + row.xattrs.iter().map(|(name, value)| name.len() + value.len() + 8).sum::<usize>()
    }

    /// Notes bytes that the medium did not give.
    pub fn lost(&mut self, from: u64, to: u64) {
        self.lost_ranges += 1;
        let Some(row) = &mut self.attributes else { return };
        if self.lost_ranges <= LOST_NAMED_MAX as u64 {
            let and = if row.fault.is_empty() { "unreadable on the device: bytes" } else { "," };
            // Writing to a String cannot fail.
            let _ = write!(row.fault, "{and} {from}..{to}");
        }
    }

    /// Leaves an item whose end is in another stretch: says which and what is missing, if anything is.
    pub fn leave(&mut self) -> Option<(u64, String)> {
        let inode = std::mem::take(&mut self.inode);
        let row = self.attributes.take()?;
        (inode != 0 && self.lost_ranges > 0).then_some((inode, row.fault))
    }

    /// The item's row, now that its last part is there.
    pub fn end(&mut self) -> ItemAttributes {
        let Some(mut row) = self.attributes.take() else { unreachable!("an item ends after it began") };
        if self.lost_ranges > LOST_NAMED_MAX as u64 {
            let _ = write!(row.fault, " and {} more ranges", self.lost_ranges - LOST_NAMED_MAX as u64);
        }
        self.past.tell(&mut row);
        cut(&mut row.fault, ITEM_FAULT_BYTES_MAX);
        self.inode = 0;
        row
    }
}

#[cfg(test)]
#[path = "item_test.rs"]
mod tests;
