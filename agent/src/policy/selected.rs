//! A volume that shows only what a policy selects: middleware between a reader and a backup.
//!
//! Items that are not selected are left out of windows, and so are names that lead to them, and names of items that are selected under
//! others only. To a backup it looks as if they were not there: an item that a changed policy no longer selects is recorded as deleted, which
//! is what a listing should show.
//!
//! Memory: one list of names, used again. Does not: select (`select` does), or record the patterns (the rules
//! of a backup's volume do). Source: ours.

use std::ops::Range;

use windlass_hal::block::{BlockDevice, Fault};
use windlass_hal::volume::{Cursor, Name, Swept, UsedQuality, Volume, VolumeFault, VolumeInfo, Window};

use super::select::Selection;

/// A volume seen through a selection.
pub struct Selected {
    inner: Box<dyn Volume>,
    selection: Selection,
    info: VolumeInfo,
    names: Vec<Name>,
}

impl Selected {
    /// Shows of `inner` what is in `selection`. `snapshot` is what the snapshot service calls the contents of a frozen device, and their
    /// [sample](super::sample): they stand for the contents, whatever the volume's own state is.
    pub fn new(inner: Box<dyn Volume>, selection: Selection, snapshot: Option<(&str, [u8; 16])>) -> Selected {
        let mut info = inner.info().clone();
        info.state = snapshot.map(|(name, sample)| frozen(&info, name, &sample)).or(info.state);
        Selected { inner, selection, info, names: Vec::new() }
    }

    fn filter(&mut self, window: &mut Window) {
        if matches!(self.selection, Selection::All) {
            return;
        }
        window.items.retain(|item| self.selection.contains(item.inode));
        self.names.clear();
        for item in &mut window.items {
            let first = self.names.len() as u32;
            let range = item.names.start as usize..item.names.end as usize;
            let kept = |name: &&Name| {
                self.selection.contains_name(item.inode, &window.bytes[to_usize(&name.name)], name.inode)
            };
            self.names.extend(window.names[range].iter().filter(kept).cloned());
            item.names = first..self.names.len() as u32;
        }
        std::mem::swap(&mut window.names, &mut self.names);
    }
}

/// A range of a window's bytes.
fn to_usize(range: &Range<u32>) -> Range<usize> {
    range.start as usize..range.end as usize
}

/// The state of a volume whose device does not change while `snapshot` stays the same; `sample` distinguishes
/// copies of that name.
fn frozen(info: &VolumeInfo, snapshot: &str, sample: &[u8; 16]) -> [u8; 16] {
    // An image with and without its free blocks has other contents.
    let (size, used) = (info.size_bytes.to_le_bytes(), info.used_bytes.to_le_bytes());
    digest(&[&info.uuid, &size, &used, sample, snapshot.as_bytes()])
}

/// The last part only may be of any length.
fn digest(parts: &[&[u8]]) -> [u8; 16] {
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        hasher.update(part);
    }
    let mut out = [0; 16];
    out.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    out
}

impl Volume for Selected {
    fn info(&self) -> &VolumeInfo {
        &self.info
    }

    fn sweep(
        &mut self,
        device: &mut dyn BlockDevice,
        from: Cursor,
        window: &mut Window,
    ) -> Result<Swept, VolumeFault> {
        let swept = self.inner.sweep(device, from, window)?;
        self.filter(window);
        Ok(swept)
    }

    fn item(
        &mut self,
        device: &mut dyn BlockDevice,
        inode: u64,
        within: u64,
        window: &mut Window,
    ) -> Result<Swept, VolumeFault> {
        if !self.selection.contains(inode) {
            window.clear();
            return Ok(Swept::Done);
        }
        let swept = self.inner.item(device, inode, within, window)?;
        self.filter(window);
        Ok(swept)
    }

    fn used(
        &mut self,
        device: &mut dyn BlockDevice,
        each: &mut dyn FnMut(Range<u64>),
    ) -> Result<UsedQuality, VolumeFault> {
        self.inner.used(device, each)
    }

    fn free_is_sure(&self) -> bool {
        self.inner.free_is_sure()
    }

    fn read_at(
        &mut self,
        device: &mut dyn BlockDevice,
        inode: u64,
        offset: u64,
        out: &mut [u8],
    ) -> Result<(), Fault> {
        self.inner.read_at(device, inode, offset, out)
    }
}
