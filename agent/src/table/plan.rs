//! Which segments to merge next. Pure: what is chosen depends on the log's entries alone.
//!
//! ```text
//!  keys ->   |== full ==|== full ==|== full ==|      deep:  many lie over one place: an incremental backup adds one each time
//!                |-------- day 2 --------|                  -> the smallest of them become one
//!              |------------ day 3 ------------|
//!
//!            |-|--|-|-|--|-|-|-|--|-|-|-|--|-|-      small: many lie side by side: a commit makes one each time
//!                                                           -> neighbours become full ones
//! ```
//!
//! | rule | when | what | leaves |
//! |---|---|---|---|
//! | deep | more than [`Bounds::deep`] over one place | half of them, the smallest, and others as long as each is no larger than all before it | one at that place |
//! | small | [`Bounds::run`] neighbours of less than a quarter of [`SEGMENT_BYTES`] | up to [`GROUP_MAX`] of them | full ones |
//!
//! So a reader has about [`Bounds::deep`] segments open, and a row is rewritten about once each time that what lies over it has doubled
//! (size-tiered compaction). Segments of a running backup are merged among themselves only: it may be given up.
//!
//! Does not: merge (see `merge`). Source: size-tiered compaction as Bigtable and Cassandra have it; the bounds are ours.

use crate::id::{BackupId, ObjectId};
use crate::log::limits::RECORD_SEGMENTS_MAX;
use crate::table::merge::Scope;
use crate::table::segment::SegmentMeta;

/// Segments over one place that are left alone: a read of one item asks each of them.
pub const DEEP_MAX: usize = 8;
/// Neighbours that are worth a merge: fewer would rewrite the same rows too often.
pub const RUN_MIN: usize = 32;
/// Segments merged at once over one place: each is open with a row block for each kind of rows.
pub const FAN_IN: usize = 16;
/// Segments merged at once: a record's bound.
pub const GROUP_MAX: usize = RECORD_SEGMENTS_MAX;
/// Bytes merged at once: what a node can read and write again within a minute on a slow uplink, and what a failure costs.
pub const GROUP_BYTES_MAX: u64 = 64 << 20;
/// Bytes at which a merged segment is full: what the smallest pool of pieces holds.
pub const SEGMENT_BYTES: u64 = 4 << 20;
/// Bytes below which a segment is small.
const SMALL_BYTES: u64 = SEGMENT_BYTES / 4;

const _: () = assert!(DEEP_MAX + 1 < FAN_IN && FAN_IN <= RUN_MIN && RUN_MIN <= GROUP_MAX);
const _: () = assert!(GROUP_BYTES_MAX / SEGMENT_BYTES + 1 < RECORD_SEGMENTS_MAX as u64);
// A run is worth it: fewer come out than go in.
const _: () = assert!(RUN_MIN as u64 * SMALL_BYTES / SEGMENT_BYTES < RUN_MIN as u64 / 2);

/// When the tables are in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Segments over one place, at most: [`DEEP_MAX`] but in tests.
    pub deep: usize,
    /// Small neighbours from here on are too many: [`RUN_MIN`] but in tests.
    pub run: usize,
}

impl Default for Bounds {
    fn default() -> Bounds {
        Bounds { deep: DEEP_MAX, run: RUN_MIN }
    }
}

/// What may be merged with what: all of one running backup, or all of what no running backup has written.
type Class = Option<BackupId>;

/// The next group to merge of a volume's segments, two at least; `None` when the tables are in order. `is_running` tells backups
/// that may still be given up.
pub fn pick(
    segments: &[SegmentMeta],
    bounds: Bounds,
    is_running: &dyn Fn(BackupId) -> bool,
) -> Option<Vec<ObjectId>> {
    let class =
        |segment: &SegmentMeta| -> Class { Some(segment.backup_max).filter(|&backup| is_running(backup)) };
    let mut classed: Vec<(Class, &SegmentMeta)> = segments.iter().map(|s| (class(s), s)).collect();
    classed.sort_by_key(|(class, segment)| (*class, begin(segment), segment.id));
    let mut classes = classed.chunk_by(|a, b| a.0 == b.0);
    let group = classes.find_map(|class| {
        let sorted: Vec<&SegmentMeta> = class.iter().map(|(_, segment)| *segment).collect();
        deep(&sorted, bounds.deep).or_else(|| small(&sorted, bounds.run))
    })?;
    Some(group.into_iter().map(|segment| segment.id).collect())
}

/// Whether `group` is all that has rows of its items among `segments` of a volume.
pub fn scope(group: &[SegmentMeta], segments: &[SegmentMeta]) -> Scope {
    let first = group.iter().map(|segment| segment.first_inode).min().unwrap_or(0);
    let last = group.iter().map(|segment| segment.last_inode).max().unwrap_or(0);
    let other = |segment: &&SegmentMeta| !group.iter().any(|of| of.id == segment.id);
    let meets = |segment: &SegmentMeta| segment.first_inode <= last && first <= segment.last_inode;
    if segments.iter().filter(other).any(meets) { Scope::Part } else { Scope::Full }
}

/// The next merge of a volume's segments that rids one of `targets` of rows which no point needs: that one, and what lies over it, the
/// smallest first. `None` when none of them is there any more.
pub fn purge(
    segments: &[SegmentMeta],
    targets: &[ObjectId],
    is_running: &dyn Fn(BackupId) -> bool,
) -> Option<Vec<ObjectId>> {
    let may = |segment: &&SegmentMeta| !is_running(segment.backup_max);
    let target = segments.iter().filter(may).find(|segment| targets.contains(&segment.id))?;
    let over = |other: &&SegmentMeta| {
        other.id != target.id && begin(other) < end(target) && begin(target) < end(other)
    };
    let mut group: Vec<&SegmentMeta> = segments.iter().filter(may).filter(over).collect();
    group.sort_by_key(|segment| (segment.bytes, segment.id));
    let mut bytes = target.bytes;
    let fits = |segment: &&&SegmentMeta| {
        bytes = bytes.saturating_add(segment.bytes);
        bytes <= GROUP_BYTES_MAX
    };
    let over: Vec<ObjectId> =
        group.iter().take(FAN_IN - 1).take_while(fits).map(|segment| segment.id).collect();
    Some(std::iter::once(target.id).chain(over).collect())
}

fn begin(segment: &SegmentMeta) -> (u64, u64) {
    (segment.first_inode, segment.first_base)
}

fn end(segment: &SegmentMeta) -> (u64, u64) {
    (segment.last_inode, segment.end_base_or_max())
}

/// A part of one directory's listing: the parts lie side by side, but only their indexes show it.
fn is_listing(segment: &SegmentMeta) -> bool {
    segment.first_inode == segment.last_inode && segment.end_base == 0
}

/// The rule for places that many segments lie over. `sorted` by where they begin.
fn deep<'a>(sorted: &[&'a SegmentMeta], most: usize) -> Option<Vec<&'a SegmentMeta>> {
    let mut here: Vec<&SegmentMeta> = Vec::new();
    let mut deepest: Vec<&SegmentMeta> = Vec::new();
    for segment in sorted.iter().filter(|segment| !is_listing(segment)) {
        here.retain(|other| end(other) > begin(segment));
        here.push(segment);
        if here.len() > deepest.len().max(most) {
            deepest.clone_from(&here);
        }
    }
    deepest.sort_by_key(|segment| (segment.bytes, segment.id));
    let least = deepest.len().div_ceil(2).min(FAN_IN);
    let mut bytes = 0;
    let fits = |(at, segment): &(usize, &&SegmentMeta)| {
        let takes = *at < least || segment.bytes <= bytes && *at < FAN_IN;
        bytes = segment.bytes.saturating_add(bytes);
        takes && (*at < 2 || bytes <= GROUP_BYTES_MAX)
    };
    let count = deepest.iter().enumerate().take_while(fits).count();
    deepest.truncate(count);
    (count > 1).then_some(deepest)
}

/// The rule for small neighbours. `sorted` by where they begin.
fn small<'a>(sorted: &[&'a SegmentMeta], least: usize) -> Option<Vec<&'a SegmentMeta>> {
    let mut runs = sorted.chunk_by(|a, b| (a.bytes < SMALL_BYTES) == (b.bytes < SMALL_BYTES));
    let run = runs.find(|run| run.len() >= least && run[0].bytes < SMALL_BYTES)?;
    Some(run[..run.len().min(GROUP_MAX)].to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{Epoch, VolumeId};
    use windlass_hal::sim::prng::Prng;

    fn segment(count: u32, inodes: (u64, u64), bytes: u64, backup: u32) -> SegmentMeta {
        SegmentMeta {
            id: ObjectId { epoch: Epoch(1), count, ..ObjectId::default() },
            volume: VolumeId(1),
            first_inode: inodes.0,
            last_inode: inodes.1,
            bytes,
            backup_min: BackupId(backup),
            backup_max: BackupId(backup),
            ..SegmentMeta::default()
        }
    }

    fn deepest(segments: &[SegmentMeta]) -> usize {
        let over = |place| segments.iter().filter(|s| begin(s) <= place && place < end(s)).count();
        segments.iter().map(|s| over(begin(s))).max().unwrap_or(0)
    }

    /// Stands in for a merge that drops nothing: the same bytes, side by side, in full segments.
    fn merge(segments: &mut Vec<SegmentMeta>, group: &[ObjectId], next: &mut u32) {
        let (of, rest): (Vec<_>, Vec<_>) = segments.iter().partition(|s| group.contains(&s.id));
        assert_eq!(of.len(), group.len(), "all of them are there");
        let bytes: u64 = of.iter().map(|s: &SegmentMeta| s.bytes).sum();
        let first = of.iter().map(|s| s.first_inode).min().unwrap();
        let last = of.iter().map(|s| s.last_inode).max().unwrap();
        let parts = bytes.div_ceil(SEGMENT_BYTES).min(last - first + 1);
        *segments = rest;
        for part in 0..parts {
            *next += 1;
            let at = |part: u64| first + (last - first + 1) * part / parts;
            let mut made = segment(*next, (at(part), at(part + 1) - 1), bytes / parts, 0);
            made.backup_min = of.iter().map(|s| s.backup_min).min().unwrap();
            made.backup_max = of.iter().map(|s| s.backup_max).max().unwrap();
            // The next one begins with the next inode.
            made.end_base = 1;
            segments.push(made);
        }
    }

    #[test]
    fn merges_end_with_tables_in_order_and_rewrite_little() {
        for seed in 0..40 {
            let mut prng = Prng::new(seed);
            let (mut segments, mut next) = (Vec::new(), 0);
            let (mut written, mut rewritten) = (0, 0);
            for backup in 1..=100 {
                let commits = 1 + prng.below(if backup == 1 { 300 } else { 4 });
                for _ in 0..commits {
                    next += 1;
                    let first = prng.below(1_000_000);
                    let width = 1 + prng.below(if backup == 1 { 10_000 } else { 1_000_000 });
                    let most = if prng.one_in(10) { SEGMENT_BYTES } else { 100_000 };
                    let bytes = 1 + prng.below(most);
                    written += bytes;
                    segments.push(segment(next, (first, first + width), bytes, backup));
                }
                let is_running = |other| other == BackupId(backup) && backup % 2 == 0;
                let mut merges = 0;
                while let Some(group) = pick(&segments, Bounds::default(), &is_running) {
                    let of: Vec<SegmentMeta> =
                        segments.iter().filter(|s| group.contains(&s.id)).copied().collect();
                    let running = of.iter().filter(|s| is_running(s.backup_max)).count();
                    assert!(running == 0 || running == of.len(), "what may be given up stays apart");
                    let bytes = of.iter().map(|s| s.bytes).sum::<u64>();
                    assert!((2..=GROUP_MAX).contains(&of.len()) && bytes <= GROUP_BYTES_MAX + SEGMENT_BYTES);
                    rewritten += bytes;
                    merge(&mut segments, &group, &mut next);
                    merges += 1;
                    assert!(merges < 1000, "seed {seed}: it does not end");
                }
                let settled: Vec<SegmentMeta> =
                    segments.iter().filter(|s| !is_running(s.backup_max)).copied().collect();
                assert!(deepest(&settled) <= DEEP_MAX, "seed {seed} backup {backup}");
            }
            assert!(rewritten < 12 * written, "seed {seed}: {rewritten} bytes for {written}");
        }
    }

    #[test]
    fn parts_of_one_large_listing_are_left_alone() {
        let parts: Vec<SegmentMeta> = (0..30).map(|n| segment(n, (7, 7), SEGMENT_BYTES, 1)).collect();
        assert_eq!(pick(&parts, Bounds::default(), &|_| false), None);
    }

    #[test]
    fn stretches_of_an_image_are_side_by_side() {
        let stretch = |n: u32, bytes| SegmentMeta {
            first_base: u64::from(n) * 100,
            end_base: u64::from(n) * 100 + 100,
            ..segment(n, (1, 1), bytes, 1)
        };
        let full: Vec<SegmentMeta> = (0..30).map(|n| stretch(n, SEGMENT_BYTES)).collect();
        assert_eq!(pick(&full, Bounds::default(), &|_| false), None);
        let few: Vec<SegmentMeta> = (0..40).map(|n| stretch(n, 1000)).collect();
        assert_eq!(pick(&few, Bounds::default(), &|_| false).map(|group| group.len()), Some(40));
        assert_eq!(scope(&few[..3], &few), Scope::Part);
        assert_eq!(scope(&few, &few), Scope::Full);
    }
}
