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

use crate::backplane::message::{Found, Key};
use crate::format::record::Stretch;
use crate::id::KEY_START;
use crate::log::stretches;

/// A share is one in so many of what is left of a node's part. The first two are given before the node's rate is known: with four, one
/// that is half as fast as it was taken for still ends in time.
const PARTS: u64 = 4;

/// A share is at least one in so many of a node's whole part, which is about what the nodes may differ by at the end; the smaller, the more
/// often a worker opens the volume.
const PIECES: u64 = 64;

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
    let left: u64 = gaps.iter().map(|&(from, to)| units(found, from, to)).fold(0, u64::saturating_add);
    if speed >= speeds || left == 0 {
        return Some((from, to));
    }
    let grain = found.grain.max(1);
    let of = |units: u64, by: u64| {
        let part = u128::from(units) * u128::from(speed) / (u128::from(speeds.max(1)) * u128::from(by));
        u64::try_from(part).unwrap_or(u64::MAX)
    };
    let least = of(units(found, (0, 0), found.end), PIECES).max(grain);
    let want = of(left, PARTS).max(least);
    let start = if is_image(found) { from.1 } else { from.0 };
    let end = start.saturating_add(want).div_ceil(grain).saturating_mul(grain);
    let at = if is_image(found) { (from.0.max(found.end.0), end) } else { (end, 0) };
    // A rest that is smaller than a cut is not worth an assignment of its own.
    if at >= to || units(found, at, to) < grain { Some((from, to)) } else { Some((from, at)) }
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

    #[test]
    fn a_node_alone_takes_what_there_is() {
        assert_eq!(cut(&gaps(&mut []), &files(100_000), 5, 5), Some(((0, 0), KEY_END)));
    }
}
