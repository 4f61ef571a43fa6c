//! A whole device as one item: for LUNs, logical volumes, and volumes without a reader.
//!
//! ```text
//!  window   items   [ inode 1, kind Image, size = device ]
//!           extents [ 0..device ]                          without a used-block map
//!                   [ 0..a ]   hole   [ b..c ]  ...        with one: what the file system does not use is a hole
//! ```
//!
//! Invariants
//! - Extents are data, start and end on logical blocks or at the device's end, and logical equals physical.
//! - Memory is bounded: at most [`RANGES_MAX`] ranges are kept. When a map has more, the smallest gaps are taken as used, by
//!   doubling the least gap until the ranges fit.
//!
//! - A hole is only what a file system that was left clean calls free under checksums; in doubt it is data. It restores as zeros.
//!
//! Does not: read data. Source: ours.

use std::ops::Range;

use super::{
    Cursor, Extent, ExtentState, Hints, Item, ItemKind, Part, Payload, Swept, Timestamp, UsedQuality, Volume,
    VolumeFault, VolumeInfo, VolumeKind, WINDOW_EXTENTS_MAX, Window,
};
use crate::block::{BlockDevice, READ_UNIT_BYTES};

/// Most used ranges kept (16 bytes each, 1 MiB in all).
pub const RANGES_MAX: usize = 65536;
/// Gaps below this many bytes are not worth a hole: reading over them costs less than another request.
const GAP_BYTES_MIN: u64 = 64 << 10;
/// The item's inode number.
const INODE: u64 = 1;

/// A device as one item.
pub struct Image {
    info: VolumeInfo,
    ranges: Vec<Range<u64>>,
    quality: UsedQuality,
}

/// Ranges that grow no further than a bound.
struct Coarse {
    ranges: Vec<Range<u64>>,
    max: usize,
    gap: u64,
    unit: u64,
    end: u64,
}

impl Coarse {
    fn add(&mut self, range: Range<u64>) {
        let start = range.start / self.unit * self.unit;
        let end = range.end.checked_next_multiple_of(self.unit).unwrap_or(self.end).min(self.end);
        if start >= end {
            return;
        }
        match self.ranges.last_mut() {
            Some(last) if start < last.end.saturating_add(self.gap) => last.end = last.end.max(end),
            _ => self.ranges.push(start..end),
        }
        while self.ranges.len() > self.max {
            self.gap = self.gap.saturating_mul(2);
            let gap = self.gap;
            self.ranges.dedup_by(|next, kept| {
                let joined = next.start < kept.end.saturating_add(gap);
                if joined {
                    kept.end = kept.end.max(next.end);
                }
                joined
            });
        }
    }
}

impl Image {
    /// The whole of `device`, every byte of it used.
    pub fn open(device: &mut dyn BlockDevice) -> Image {
        let geometry = device.geometry();
        let identity = device.identity();
        let salted = |salt: u8| {
            crc32c::crc32c_append(u32::from(salt) << 24 | 0xA5, identity.stable.as_bytes()).to_le_bytes()
        };
        let mut uuid = [0; 16];
        for (salt, part) in uuid.chunks_exact_mut(4).enumerate() {
            part.copy_from_slice(&salted(salt as u8 + 1));
        }
        Image {
            info: VolumeInfo {
                kind: VolumeKind::Image,
                uuid,
                label: Vec::new(),
                block_bytes: geometry.logical_block_bytes,
                size_bytes: geometry.size_bytes,
                used_bytes: geometry.size_bytes,
                inode_max: INODE,
                inodes_used: 1,
                root: INODE,
                state: None,
                written_secs: 0,
                created: Timestamp::default(),
                features: Vec::new(),
            },
            ranges: std::iter::once(0..geometry.size_bytes).filter(|whole| !whole.is_empty()).collect(),
            quality: UsedQuality::Unknown,
        }
    }

    /// The device with the used-block map of `volume`, which was opened on it; without it where the map is not sure. Reads the map
    /// now. State and time of the last write are the volume's.
    ///
    /// # Errors
    /// Those of [`Volume::used`]; [`Image::open`] is the way on.
    pub fn with_used(device: &mut dyn BlockDevice, volume: &mut dyn Volume) -> Result<Image, VolumeFault> {
        let mut image = Image::open(device);
        if !volume.free_is_sure() {
            return Ok(image);
        }
        let mut coarse = Coarse {
            ranges: Vec::new(),
            max: RANGES_MAX,
            gap: GAP_BYTES_MIN,
            unit: u64::from(image.info.block_bytes.max(1)),
            end: image.info.size_bytes,
        };
        image.quality = volume.used(device, &mut |range| coarse.add(range))?;
        let exact = coarse.gap == GAP_BYTES_MIN;
        image.ranges = coarse.ranges;
        if image.quality == UsedQuality::Exact && !exact {
            image.quality = UsedQuality::Superset;
        }
        image.info.used_bytes = image.ranges.iter().map(|range| range.end - range.start).sum();
        image.info.state = volume.info().state;
        image.info.written_secs = volume.info().written_secs;
        Ok(image)
    }
}

impl Volume for Image {
    fn info(&self) -> &VolumeInfo {
        &self.info
    }

    fn sweep(
        &mut self,
        device: &mut dyn BlockDevice,
        from: Cursor,
        window: &mut Window,
    ) -> Result<Swept, VolumeFault> {
        window.clear();
        if from.inode > INODE {
            return Ok(Swept::Done);
        }
        self.item(device, INODE, from.within, window)
    }

    fn item(
        &mut self,
        _device: &mut dyn BlockDevice,
        inode: u64,
        within: u64,
        window: &mut Window,
    ) -> Result<Swept, VolumeFault> {
        window.clear();
        if inode != INODE {
            return Ok(Swept::Done);
        }
        let first = self.ranges.partition_point(|range| range.end <= within);
        let rest = self.ranges.get(first..).unwrap_or_default();
        window.extents.extend(rest.iter().take(WINDOW_EXTENTS_MAX).map(|range| {
            let start = range.start.max(within);
            // An end inside a unit: extents, as reads, go on to the unit's.
            let len = (range.end - start).next_multiple_of(u64::from(READ_UNIT_BYTES));
            Extent { logical: start, physical: start, len, state: ExtentState::Data }
        }));
        let next = rest.get(WINDOW_EXTENTS_MAX).map(|range| range.start);
        let written = Timestamp { secs: self.info.written_secs, nanos: 0 };
        window.items.push(Item {
            inode: INODE,
            generation: 0,
            kind: ItemKind::Image,
            mode: 0o600,
            uid: 0,
            gid: 0,
            links: 1,
            rdev: (0, 0),
            size: self.info.size_bytes,
            atime: written,
            mtime: written,
            ctime: written,
            btime: None,
            flags: 0,
            project: 0,
            hints: Hints::NONE,
            parent: 0,
            payload: Payload::None,
            extents: 0..window.extents.len() as u32,
            names: 0..0,
            xattrs: 0..0,
            part: Part {
                first: within == 0,
                last: next.is_none(),
                from: within,
                to: next.unwrap_or(u64::MAX),
            },
            fault: None,
        });
        Ok(match next {
            Some(within) => Swept::More(Cursor { inode: INODE, within }),
            None => Swept::Done,
        })
    }

    fn used(
        &mut self,
        _device: &mut dyn BlockDevice,
        each: &mut dyn FnMut(Range<u64>),
    ) -> Result<UsedQuality, VolumeFault> {
        self.ranges.iter().cloned().for_each(each);
        Ok(self.quality)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_stay_within_their_bound() {
        let mut coarse = Coarse { ranges: Vec::new(), max: 4, gap: 10, unit: 1, end: 10_000 };
        for i in 0..100 {
            coarse.add(i * 100..i * 100 + 1 + i % 50);
        }
        assert!(coarse.ranges.len() <= 4, "{:?}", coarse.ranges);
        assert_eq!(coarse.ranges.first().map(|r| r.start), Some(0));
        assert!(coarse.ranges.windows(2).all(|w| w[0].end < w[1].start));
        for i in 0..100 {
            let (start, end) = (i * 100, i * 100 + 1 + i % 50);
            assert!(coarse.ranges.iter().any(|r| r.start <= start && end <= r.end));
        }
    }

    #[test]
    fn ranges_are_rounded_outwards_and_cut_at_the_end() {
        let mut coarse = Coarse { ranges: Vec::new(), max: 9, gap: 1, unit: 512, end: 4096 };
        coarse.add(100..513);
        coarse.add(4000..u64::MAX);
        assert_eq!(coarse.ranges, [0..1024, 3584..4096]);
    }
}
