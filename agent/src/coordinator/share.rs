//! Which stretch of a volume is next, and how much of it for whom. Pure.
//!
//! ```text
//!  volume   |=====done=====|--out--|........todo.........|==done==|...todo...|
//!  cut                             |-- share --|
//! ```
//!
//! What is left is handed out in shares that shrink as the end comes near (guided self-scheduling, Polychronopoulos and Kuck
//! 1987): a part of what is left, times the node's part of all speed. A fast node asks sooner, a slow one holds up little at the end.
//!
//! Invariants: a share lies in one gap, begins where the gap begins, and ends on a cut (a multiple of the grain) or with the gap.
//! Source: ours.

use crate::format::record::Stretch;
use crate::id::KEY_START;
use crate::id::Key;
use crate::log::stretches;
use crate::work::Found;
use crate::worker::density::MARKS;

/// A share is one in so many of what is left of a node's part. The first two are given before the node's rate is known: with four, one
/// that is half as fast as it was taken for still ends in time.
const PARTS: u64 = 4;

/// A share is at least one in so many of a node's whole part, which is about what the nodes may differ by at the end; the smaller, the more
/// often a worker opens the volume.
const PIECES: u64 = 64;

/// Bytes of a share of a volume whose bytes are known to lie where they do: half an object, since each share ends with one that is part-full.
const SHARE_BYTES_MIN: u64 = 8 << 20;

/// What of a volume is in none of `taken`, ascending. `taken` may overlap and need not be sorted.
pub fn gaps(taken: &mut [(Key, Key)]) -> Vec<(Key, Key)> {
    taken.sort_unstable();
    stretches::gaps(taken.iter().copied())
}

/// Whether two stretches have a key in common.
pub fn overlap(a: (Key, Key), b: (Key, Key)) -> bool {
    a.0 < b.1 && b.0 < a.1
}

/// Units from a stretch's start to its end: inodes, or blocks of an image.
fn units(found: &Found, from: Key, to: Key) -> u64 {
    let to = to.min(found.end);
    if is_image(found) { to.1.saturating_sub(from.1) } else { to.0.saturating_sub(from.0) }
}

/// Weight of a part between two marks: enough of it that rounding does not count.
const PART_WEIGHT: u64 = 1 << 16;

/// What lies before a key of a file system with marks: `PART_WEIGHT` for each part, and what a part's inode numbers say of the rest.
fn weight_before(found: &Found, inode: u64) -> u64 {
    let marks = &found.marks.0;
    let part = marks.partition_point(|&mark| mark <= inode);
    let begin = part.checked_sub(1).map_or(0, |before| marks[before]);
    let end = marks.get(part).copied().unwrap_or(found.end.0).max(begin + 1);
    let within = u128::from(inode.min(end) - begin) * u128::from(PART_WEIGHT) / u128::from(end - begin);
    part as u64 * PART_WEIGHT + u64::try_from(within).unwrap_or(PART_WEIGHT)
}

/// The first inode that so much lies before.
fn inode_behind(found: &Found, weight: u64) -> u64 {
    let marks = &found.marks.0;
    let part = usize::try_from(weight / PART_WEIGHT).unwrap_or(usize::MAX).min(marks.len());
    let begin = part.checked_sub(1).map_or(0, |before| marks[before]);
    let end = marks.get(part).copied().unwrap_or(found.end.0).max(begin);
    let within = u128::from(weight.saturating_sub(part as u64 * PART_WEIGHT)) * u128::from(end - begin);
    begin + u64::try_from(within.div_ceil(u128::from(PART_WEIGHT))).unwrap_or(0)
}

/// Bytes of an image that are done, by the stretches of it that are; `None` when it is no image: files say themselves how much they hold.
pub fn image_bytes_done(found: &Found, done: &[Stretch]) -> Option<u64> {
    let whole = units(found, KEY_START, found.end).max(1);
    let units = done.iter().map(|done| units(found, done.from, done.to)).fold(0, u64::saturating_add);
    let bytes = u128::from(found.bytes) * u128::from(units) / u128::from(whole);
    is_image(found).then(|| u64::try_from(bytes).unwrap_or(u64::MAX).min(found.bytes))
}

/// An image is one item: its cuts lie between blocks.
fn is_image(found: &Found) -> bool {
    found.end.1 > 0
}

/// The share of a node whose speed is `speed` of `speeds` together, out of `gaps`. `None` when nothing is left.
pub fn cut(gaps: &[(Key, Key)], found: &Found, speed: u64, speeds: u64) -> Option<(Key, Key)> {
    let &(from, to) = gaps.first()?;
    if found.marks.is_known() && !is_image(found) {
        return Some(cut_by_bytes(gaps, found, speed, speeds));
    }
    let left: u64 = gaps.iter().map(|&(from, to)| units(found, from, to)).fold(0, u64::saturating_add);
    if speed >= speeds || left == 0 {
        return Some((from, to));
    }
    let grain = found.grain.max(1);
    let least = part_of(units(found, (0, 0), found.end), PIECES, speed, speeds).max(grain);
    let want = part_of(left, PARTS, speed, speeds).max(least);
    let start = if is_image(found) { from.1 } else { from.0 };
    let end = start.saturating_add(want).div_ceil(grain).saturating_mul(grain);
    let at = if is_image(found) { (from.0.max(found.end.0), end) } else { (end, 0) };
    // A rest that is smaller than a cut is not worth an assignment of its own.
    if at >= to || units(found, at, to) < grain { Some((from, to)) } else { Some((from, at)) }
}

/// One in `by` of a node's part of so many units.
fn part_of(units: u64, by: u64, speed: u64, speeds: u64) -> u64 {
    let part = u128::from(units) * u128::from(speed) / (u128::from(speeds.max(1)) * u128::from(by));
    u64::try_from(part).unwrap_or(u64::MAX)
}

/// The same of a file system of which it is known where its bytes lie: cuts are before any inode.
fn cut_by_bytes(gaps: &[(Key, Key)], found: &Found, speed: u64, speeds: u64) -> (Key, Key) {
    let (from, to) = gaps[0];
    let weight = |(from, to): (Key, Key)| {
        let before = weight_before(found, from.0);
        weight_before(found, to.0.min(found.end.0)).saturating_sub(before)
    };
    let left = gaps.iter().map(|&gap| weight(gap)).fold(0, u64::saturating_add);
    if speed >= speeds || left == 0 {
        return (from, to);
    }
    let whole = (MARKS as u64 + 1) * PART_WEIGHT;
    let bytes_min = u128::from(SHARE_BYTES_MIN) * u128::from(whole) / u128::from(found.bytes.max(1));
    let bytes_min = u64::try_from(bytes_min).unwrap_or(u64::MAX);
    let least = part_of(whole, PIECES, speed, speeds).max(bytes_min);
    let want = part_of(left, PARTS, speed, speeds).max(least);
    let inode = inode_behind(found, weight_before(found, from.0).saturating_add(want)).max(from.0 + 1);
    let at = (inode, 0);
    // A rest that is smaller than a share is not worth an assignment of its own.
    if at >= to || weight((at, to)) < least / 2 { (from, to) } else { (from, at) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::KEY_END;

    fn files(end: u64) -> Found {
        Found { end: (end, 0), grain: 64, ..Found::default() }
    }

    #[test]
    fn gaps_are_what_is_left() {
        assert_eq!(gaps(&mut []), [((0, 0), KEY_END)]);
        assert_eq!(gaps(&mut [((0, 0), KEY_END)]), []);
        let mut taken = vec![((50, 0), (60, 0)), ((0, 0), (10, 0)), ((5, 0), (20, 7))];
        assert_eq!(gaps(&mut taken), [((20, 7), (50, 0)), ((60, 0), KEY_END)]);
    }

    #[test]
    fn shares_tile_a_volume_whoever_comes() {
        for (found, nodes) in [(files(100_000), 3), (files(10), 4), (files(0), 2)] {
            let mut taken = Vec::new();
            let mut shares = 0;
            loop {
                let left = gaps(&mut taken);
                let Some(share) = cut(&left, &found, 1, nodes) else { break };
                assert!(share.0 < share.1 && share.0 == left[0].0 && share.1 <= left[0].1);
                assert!(!taken.iter().any(|&other| overlap(share, other)));
                taken.push(share);
                shares += 1;
            }
            assert!(shares <= 20 * nodes, "{shares} shares of {found:?}");
            assert!(shares > 10 || found.end.0 < 1000, "one node took it all");
        }
    }

    #[test]
    fn an_image_is_cut_between_blocks() {
        let found = Found { end: (1, 1 << 20), grain: 1024, ..Found::default() };
        let first = cut(&gaps(&mut []), &found, 1, 4);
        assert_eq!(first, Some(((0, 0), (1, 1 << 16))));
        let next = cut(&gaps(&mut [((0, 0), (1, 1 << 16))]), &found, 1, 4);
        assert!(
            next.is_some_and(|(from, to)| from == (1, 1 << 16) && to.0 == 1 && to.1.is_multiple_of(1024))
        );
    }

    #[test]
    fn the_last_shares_are_small_however_many_nodes_there_are() {
        let end = 100_000_000;
        let found = Found { end: (1, end), grain: 1024, ..Found::default() };
        for nodes in [2, 16, 64, 256] {
            let left = [((1, end - 1_000_000), KEY_END)];
            let (from, to) = cut(&left, &found, 1, nodes).unwrap();
            let most = end / nodes / PIECES + 1024;
            assert!(
                to == KEY_END || to.1 - from.1 <= most.max(1_000_000 / nodes),
                "{nodes} nodes: {from:?} {to:?}"
            );
        }
    }

    #[test]
    fn an_image_counts_by_what_of_it_is_done() {
        let found = Found { end: (1, 1000), grain: 8, bytes: 1 << 30, ..Found::default() };
        let stretch = |from, to| Stretch { from, to, ..Stretch::default() };
        let done = [stretch(KEY_START, (1, 250)), stretch((1, 500), (1, 750))];
        assert_eq!(image_bytes_done(&found, &done), Some(1 << 29));
        assert_eq!(image_bytes_done(&found, &[stretch(KEY_START, KEY_END)]), Some(1 << 30));
        assert_eq!(image_bytes_done(&files(9), &done), None);
    }

    /// How many bytes each of `nodes` gets of files of so many bytes each, one inode after the other from 12 on, when each takes a share
    /// as soon as it has done the one before.
    fn spread(files: &[u64], inodes: u64, nodes: usize) -> Vec<u64> {
        let ends: Vec<u64> = files
            .iter()
            .scan(0, |sum, bytes| {
                *sum += bytes;
                Some(*sum)
            })
            .collect();
        let whole = *ends.last().unwrap();
        let mut found = Found { end: (inodes, 0), grain: 64, bytes: whole, ..Found::default() };
        for (at, mark) in found.marks.0.iter_mut().enumerate() {
            *mark =
                13 + ends.partition_point(|&end| end < whole * (at as u64 + 1) / (MARKS as u64 + 1)) as u64;
        }
        let (mut taken, mut busy) = (Vec::new(), vec![0u64; nodes]);
        loop {
            let left = gaps(&mut taken);
            let Some((from, to)) = cut(&left, &found, 1, nodes as u64) else { break };
            assert!(from < to && from == left[0].0 && to <= left[0].1);
            let of = |inode: u64| inode >= from.0 && inode < to.0;
            let bytes: u64 = (12..).zip(files).filter(|(inode, _)| of(*inode)).map(|(_, bytes)| bytes).sum();
            *busy.iter_mut().min().unwrap() += bytes;
            taken.push((from, to));
        }
        assert!(taken.len() < 64 * nodes, "{} shares", taken.len());
        busy
    }

    #[test]
    fn files_at_low_inodes_are_split_by_their_bytes() {
        let three = spread(&[1 << 20; 402], 1_000_000, 3);
        let fair = (402 << 20) / 3;
        assert!(three.iter().all(|bytes| bytes.abs_diff(fair) < fair / 5), "{three:?}");
        let two = spread(&[90_000; 1000], 65_536, 2);
        assert!(two.iter().all(|bytes| bytes.abs_diff(45_000_000) < 9_000_000), "{two:?}");
        // One of them is as large as all others.
        let mut uneven = vec![1 << 20; 200];
        uneven[20] = 200 << 20;
        let two = spread(&uneven, 65_536, 2);
        assert!(two.iter().all(|&bytes| bytes >= 170 << 20), "{two:?}");
        assert_eq!(spread(&[10], 100, 3).iter().sum::<u64>(), 10);
    }

    #[test]
    fn a_node_alone_takes_what_there_is() {
        assert_eq!(cut(&gaps(&mut []), &files(100_000), 5, 5), Some(((0, 0), KEY_END)));
    }
}
