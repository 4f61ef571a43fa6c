//! Where the bytes of a file system lie among its inode numbers: some keys that cut them into equal parts, so that a coordinator can give
//! every node as much to do however unevenly files lie.
//!
//! ```text
//!  inodes   |=========== 402 files of 1 MiB ===========|. . . . . nothing up to the last inode . . . . .|
//!  marks    |    |    |    |    |    |    |    |    |    one in so many bytes, not in so many inodes
//! ```
//!
//! One sweep of the metadata, for volumes of at most [`MARKED_ITEMS_MAX`] items: it takes a fraction of what reading them does. Larger ones
//! are cut by inode numbers, which evens out.
//!
//! Invariants: at most [`BINS_MAX`] bins of memory; bins double in width when there are more. Source: ours.

use windlass_hal::block::BlockDevice;
use windlass_hal::volume::{Cursor, ExtentState, Swept, Volume, VolumeFault, VolumeKind, Window};

/// Keys that cut a volume's bytes into one part more than there are.
pub const MARKS: usize = 31;
/// Items of a volume up to which it is looked through, as the volume counts them: about a second on a fast device.
pub const MARKED_ITEMS_MAX: u64 = 1 << 20;
/// What an item costs besides its bytes, in bytes: its rows, and its share of a read.
const ITEM_BYTES: u64 = 4096;
/// Bins of the sums.
const BINS_MAX: usize = 4096;

/// Keys that cut a volume into parts of equal weight, ascending; all 0 when no node has looked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Marks(pub [u64; MARKS]);

impl Marks {
    /// Whether there are any.
    pub fn is_known(&self) -> bool {
        self.0[MARKS - 1] > 0
    }
}

/// Sums of weight by inode number.
#[derive(Debug)]
struct Density {
    /// Bins are `1 << shift` inodes wide.
    shift: u32,
    /// (first inode >> shift, weight), ascending.
    bins: Vec<(u64, u64)>,
}

impl Density {
    fn new() -> Density {
        Density { shift: 0, bins: Vec::with_capacity(BINS_MAX + 1) }
    }

    /// Adds to an inode that is none before the last one.
    fn add(&mut self, inode: u64, weight: u64) {
        let bin = inode >> self.shift;
        match self.bins.last_mut() {
            Some((last, sum)) if *last == bin => *sum = sum.saturating_add(weight),
            _ => self.bins.push((bin, weight)),
        }
        while self.bins.len() > BINS_MAX {
            self.shift += 1;
            self.bins.iter_mut().for_each(|(bin, _)| *bin >>= 1);
            self.bins.dedup_by(|next, kept| {
                let same = next.0 == kept.0;
                if same {
                    kept.1 = kept.1.saturating_add(next.1);
                }
                same
            });
        }
    }

    /// Mark `i` is the first place where bins end and `i + 1` parts of the weight lie before.
    fn marks(&self) -> Marks {
        let whole = self.bins.iter().map(|(_, weight)| u128::from(*weight)).sum::<u128>();
        let mut marks = Marks::default();
        let (mut next, mut before) = (0, 0u128);
        for (bin, weight) in &self.bins {
            before += u128::from(*weight);
            while next < MARKS && before * (MARKS as u128 + 1) >= whole * (next as u128 + 1) {
                marks.0[next] = bin.saturating_add(1) << self.shift;
                next += 1;
            }
        }
        marks
    }
}

/// Looks through a volume. Not known for one without inodes to cut between, or with more than are looked through.
///
/// # Errors
/// Those of a sweep.
pub fn look(volume: &mut dyn Volume, device: &mut dyn BlockDevice) -> Result<Marks, VolumeFault> {
    let info = volume.info();
    if info.kind == VolumeKind::Image || info.inodes_used > MARKED_ITEMS_MAX {
        return Ok(Marks::default());
    }
    let (mut density, mut window, mut cursor) = (Density::new(), Window::default(), Cursor::default());
    loop {
        let swept = volume.sweep(device, cursor, &mut window)?;
        for item in &window.items {
            let extents = &window.extents[item.extents.start as usize..item.extents.end as usize];
            let stored = extents.iter().filter(|extent| extent.state == ExtentState::Data);
            let bytes = stored.map(|extent| extent.len).fold(ITEM_BYTES, u64::saturating_add);
            density.add(item.inode, bytes);
        }
        match swept {
            Swept::More(next) => cursor = next,
            Swept::Done => return Ok(density.marks()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_cut_the_bytes_not_the_numbers() {
        let mut density = Density::new();
        (12..414).for_each(|inode| density.add(inode, 1 << 20));
        let marks = density.marks();
        assert!(marks.is_known());
        for (at, &mark) in marks.0.iter().enumerate() {
            let even = 12 + 402 * (at as u64 + 1) / 32;
            assert!(mark.abs_diff(even) <= 1, "mark {at} at {mark}, not at {even}");
        }
    }

    #[test]
    fn memory_does_not_grow_and_one_large_item_takes_many_marks() {
        let mut density = Density::new();
        (0..1_000_000).for_each(|inode| density.add(inode, 10));
        density.add(2_000_000, 10_000_000);
        assert!(density.bins.len() <= BINS_MAX && density.bins.capacity() <= BINS_MAX + 1);
        let marks = density.marks();
        assert!(marks.0.is_sorted());
        assert!(marks.0[14].abs_diff(1_000_000 * 15 / 16) < 4096, "{marks:?}");
        assert!(marks.0[16..].iter().all(|&mark| mark > 2_000_000 && mark < 2_010_000), "{marks:?}");
        assert!(!Density::new().marks().is_known(), "an empty volume");
    }
}
