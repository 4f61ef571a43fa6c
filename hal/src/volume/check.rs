//! What no single item shows: blocks that two items claim, names that lead to no item or are there twice, items without a name. For a check
//! on request, not for a backup: it sweeps the volume two to four times.
//!
//! Why it is not part of the sweep: whether a block has another owner is known only after all items were seen, and an exact answer
//! takes a bit per block (32 MiB per TiB in blocks of 4 KiB). The allocation bitmap would be a cheaper witness, but not a
//! good one: on a volume that was not cleanly unmounted it is stale where the files are sound, so it would fault items that the kernel
//! reads, and it does not show a block that is in use once and claimed twice.
//!
//! Memory is what the caller gives: the volume is looked at in spans of as many blocks (or inode numbers) as two bits each fit,
//! with a sweep to mark and, only where something is wrong in the span, another to name it.
//!
//! ```text
//!  memory    blocks of 4 KiB per pass      inodes per pass
//!  1 MiB     16 GiB                        4 million
//!  16 MiB    256 GiB                       64 million
//! ```
//!
//! Does not: look at metadata that belongs to items (map nodes, attribute blocks; the latter are shared by design), or at
//! volumes that share blocks by design (`shared_blocks`, `reflink`): there is nothing to find in those. Source: ours; pass 1B and 4 of e2fsck.

use std::ops::Range;

use super::{Cursor, Item, Swept, Volume, VolumeFault, Window};
use crate::block::BlockDevice;

/// Least memory that is worth a pass, in bytes.
pub const MEMORY_BYTES_MIN: usize = 64 << 10;

/// Something that is wrong between items.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// An item claims device bytes that are claimed more than once (by another item, or by itself in another place).
    Shared {
        /// Inode number of the item.
        inode: u64,
        /// Device bytes that are claimed twice.
        bytes: Range<u64>,
    },
    /// A directory entry names an inode that is no item.
    Nowhere {
        /// Inode number of the directory.
        directory: u64,
        /// Name of the entry, as bytes.
        name: Vec<u8>,
        /// Inode number in the entry.
        inode: u64,
    },
    /// A directory has two entries of one name: look-ups find one of them, and the other's item is lost without another name.
    Twice {
        /// Inode number of the directory.
        directory: u64,
        /// Name of both entries, as bytes.
        name: Vec<u8>,
        /// Inode number in the later of the two entries.
        inode: u64,
    },
    /// An item that no directory entry names.
    Nameless {
        /// Inode number of the item.
        inode: u64,
    },
}

/// Two bits for each number of a span: seen, and seen again.
struct Marks {
    first: u64,
    count: u64,
    bits: Vec<u64>,
    again: bool,
}

impl Marks {
    fn new(memory_bytes: usize) -> Marks {
        let words = memory_bytes.max(MEMORY_BYTES_MIN) / 8;
        Marks { first: 0, count: words as u64 * 32, bits: vec![0; words], again: false }
    }

    fn begin(&mut self, first: u64) {
        self.first = first;
        self.again = false;
        self.bits.fill(0);
    }

    /// The part of `range` that is in the span.
    fn inside(&self, range: Range<u64>) -> Range<u64> {
        range.start.max(self.first)..range.end.min(self.first + self.count)
    }

    /// 0: not seen, 1: seen, 3: seen again.
    fn of(&self, number: u64) -> u64 {
        match number.checked_sub(self.first).filter(|&at| at < self.count) {
            Some(at) => self.bits[(at / 32) as usize] >> (at % 32 * 2) & 3,
            None => 0,
        }
    }

    fn mark(&mut self, number: u64) {
        let at = number - self.first;
        let shift = at % 32 * 2;
        let again = self.of(number) & 1;
        self.again |= again != 0;
        self.bits[(at / 32) as usize] |= (1 | again << 1) << shift;
    }

    /// Sets the second bit.
    fn note(&mut self, number: u64) {
        if let Some(at) = number.checked_sub(self.first).filter(|&at| at < self.count) {
            self.bits[(at / 32) as usize] |= 2 << (at % 32 * 2);
        }
    }
}

/// Sweeps the whole volume and shows `each` every item, part by part.
fn sweep(
    volume: &mut dyn Volume,
    device: &mut dyn BlockDevice,
    window: &mut Window,
    each: &mut dyn FnMut(&Window, &Item),
) -> Result<(), VolumeFault> {
    let mut from = Cursor::default();
    loop {
        let swept = volume.sweep(device, from, window)?;
        for item in &window.items {
            each(window, item);
        }
        match swept {
            Swept::Done => return Ok(()),
            Swept::More(next) => from = next,
        }
    }
}

/// Whether items of the volume may claim the same blocks.
fn shares(volume: &dyn Volume) -> bool {
    volume.info().features.iter().any(|name| name == "shared_blocks" || name == "reflink")
}

/// Calls `each` with what is wrong, in the order in which it is found; the same kind of finding ascends by item within a pass.
/// `memory_bytes` bounds what it takes besides the volume's own memory and one window.
///
/// # Errors
/// Those of the sweep. What was found until then was reported.
pub fn check(
    volume: &mut dyn Volume,
    device: &mut dyn BlockDevice,
    memory_bytes: usize,
    each: &mut dyn FnMut(&Finding),
) -> Result<(), VolumeFault> {
    let mut marks = Marks::new(memory_bytes);
    let mut window = Window::default();
    if !shares(volume) {
        blocks(volume, device, &mut marks, &mut window, each)?;
    }
    names(volume, device, &mut marks, &mut window, each)
}

fn blocks(
    volume: &mut dyn Volume,
    device: &mut dyn BlockDevice,
    marks: &mut Marks,
    window: &mut Window,
    each: &mut dyn FnMut(&Finding),
) -> Result<(), VolumeFault> {
    let unit = u64::from(volume.info().block_bytes.max(1));
    let end = volume.info().size_bytes.div_ceil(unit);
    let mut first = 0;
    while first < end {
        marks.begin(first);
        sweep(volume, device, window, &mut |window, item| {
            for extent in &window.extents[item.extents.start as usize..item.extents.end as usize] {
                let blocks = extent.physical / unit..(extent.physical + extent.len).div_ceil(unit);
                marks.inside(blocks).for_each(|block| marks.mark(block));
            }
        })?;
        if marks.again {
            sweep(volume, device, window, &mut |window, item| {
                for extent in &window.extents[item.extents.start as usize..item.extents.end as usize] {
                    let blocks = extent.physical / unit..(extent.physical + extent.len).div_ceil(unit);
                    shared(marks, marks.inside(blocks), &mut |blocks| {
                        let bytes = blocks.start * unit..blocks.end * unit;
                        each(&Finding::Shared { inode: item.inode, bytes });
                    });
                }
            })?;
        }
        first += marks.count;
    }
    Ok(())
}

/// Runs of numbers that were seen again.
fn shared(marks: &Marks, range: Range<u64>, each: &mut dyn FnMut(Range<u64>)) {
    let mut run: Option<Range<u64>> = None;
    for number in range {
        if marks.of(number) == 3 {
            run = Some(run.map_or(number, |run| run.start)..number + 1);
        } else if let Some(run) = run.take() {
            each(run);
        }
    }
    if let Some(run) = run {
        each(run);
    }
}

fn names(
    volume: &mut dyn Volume,
    device: &mut dyn BlockDevice,
    marks: &mut Marks,
    window: &mut Window,
    each: &mut dyn FnMut(&Finding),
) -> Result<(), VolumeFault> {
    let (end, root) = (volume.info().inode_max.saturating_add(1), volume.info().root);
    let mut first = 0;
    let mut sorted: Vec<u32> = Vec::new();
    while first < end {
        marks.begin(first);
        let is_first = first == 0;
        // Numbers may be far apart (XFS): a span without any is not looked at.
        let behind = first.saturating_add(marks.count);
        let mut next = u64::MAX;
        sweep(volume, device, window, &mut |window, item| {
            let names = &window.names[item.names.start as usize..item.names.end as usize];
            if is_first {
                twice(window, item, &mut sorted, each);
            }
            let numbers = names.iter().map(|name| name.inode).chain([item.inode]);
            next = numbers.filter(|&number| number >= behind).fold(next, u64::min);
            if item.part.first && !marks.inside(item.inode..item.inode + 1).is_empty() {
                marks.mark(item.inode);
            }
        })?;
        let span = marks.inside(0..end);
        sweep(volume, device, window, &mut |window, item| {
            for name in &window.names[item.names.start as usize..item.names.end as usize] {
                if marks.of(name.inode) & 1 == 0 && span.contains(&name.inode) {
                    let bytes = window.get(&name.name).to_vec();
                    each(&Finding::Nowhere { directory: item.inode, name: bytes, inode: name.inode });
                }
                marks.note(name.inode);
            }
        })?;
        for inode in span {
            if marks.of(inode) == 1 && inode != root {
                each(&Finding::Nameless { inode });
            }
        }
        first = next;
    }
    Ok(())
}

/// Equal names of one part of a directory. In two parts (of thousands of names each) they are not compared.
fn twice(window: &Window, item: &Item, sorted: &mut Vec<u32>, each: &mut dyn FnMut(&Finding)) {
    let name = |at: u32| window.get(&window.names[at as usize].name);
    sorted.clear();
    sorted.extend(item.names.clone());
    sorted.sort_unstable_by(|&a, &b| name(a).cmp(name(b)).then(a.cmp(&b)));
    for pair in sorted.windows(2).filter(|pair| name(pair[0]) == name(pair[1])) {
        let inode = window.names[pair[1] as usize].inode;
        each(&Finding::Twice { directory: item.inode, name: name(pair[1]).to_vec(), inode });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_tell_once_from_twice() {
        let mut marks = Marks::new(0);
        assert_eq!(marks.count, MEMORY_BYTES_MIN as u64 * 4);
        marks.begin(1000);
        marks.mark(1000);
        assert!(!marks.again);
        assert_eq!((marks.of(1000), marks.of(1001), marks.of(0), marks.of(u64::MAX)), (1, 0, 0, 0));
        for number in [1005, 1005, 1006, 1006, 1006, 1008, 1008] {
            marks.mark(number);
        }
        assert!(marks.again);
        let mut runs = Vec::new();
        shared(&marks, marks.inside(0..u64::MAX), &mut |run| runs.push(run));
        assert_eq!(runs, [1005..1007, 1008..1009]);
        marks.note(1000);
        assert_eq!(marks.of(1000), 3);
    }
}
