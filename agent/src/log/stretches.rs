//! Which stretches of its volumes a running backup has done.
//!
//! ```text
//!  volume 1   |=== done ===|        |= done =|                            gaps: what is left to do
//!             (0,0)                                        KEY_END
//! ```
//!
//! Invariants: stretches are ascending, have a length, do not overlap, and do not touch (those that do are one). So a volume is done
//! when one stretch covers it (I5). Bound: [`STRETCHES_MAX`].
//! Source: ours; `agent/doc/commit-log.md`, C4 and I5.

use super::limits::{Bound, STRETCHES_MAX};
use super::state::Refusal;
use crate::format::cursor::{Reader, Wire, WireFault, emit_list};
use crate::format::record::Stretch;
use crate::id::{KEY_END, KEY_START, Key, VolumeId};

/// What of [`KEY_START`]`..`[`KEY_END`] is in none of `taken`, which ascends by its starts and may overlap.
pub fn gaps(taken: impl Iterator<Item = (Key, Key)>) -> Vec<(Key, Key)> {
    let mut gaps = Vec::new();
    let mut reached = KEY_START;
    for (from, to) in taken {
        if reached < from {
            gaps.push((reached, from));
        }
        reached = reached.max(to);
    }
    if reached < KEY_END {
        gaps.push((reached, KEY_END));
    }
    gaps
}

/// Stretches of several volumes. See the module's text.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Stretches {
    list: Vec<Stretch>,
}

impl Stretches {
    /// All of them, ascending by volume and key.
    pub fn as_slice(&self) -> &[Stretch] {
        &self.list
    }

    /// Those of one volume, ascending.
    pub fn of(&self, volume: VolumeId) -> &[Stretch] {
        let from = self.list.partition_point(|stretch| stretch.volume < volume);
        let to = self.list.partition_point(|stretch| stretch.volume <= volume);
        &self.list[from..to]
    }

    /// Adds a stretch.
    ///
    /// # Errors
    /// `Progress` when it has no length, reaches past [`KEY_END`] or overlaps one that is there; `Full` at the bound. Nothing has changed
    /// then.
    pub fn add(&mut self, new: &Stretch) -> Result<(), Refusal> {
        if new.from >= new.to || new.to > KEY_END {
            return Err(Refusal::Progress);
        }
        let at = self.list.partition_point(|other| (other.volume, other.from) < (new.volume, new.from));
        let near = |other: Option<&Stretch>| other.filter(|other| other.volume == new.volume).copied();
        let before = near(at.checked_sub(1).and_then(|before| self.list.get(before)));
        let after = near(self.list.get(at));
        if before.is_some_and(|before| before.to > new.from) || after.is_some_and(|after| after.from < new.to)
        {
            return Err(Refusal::Progress);
        }
        let before = before.filter(|before| before.to == new.from);
        let after = after.filter(|after| after.from == new.to);
        if before.is_none() && after.is_none() && self.list.len() >= STRETCHES_MAX {
            return Err(Refusal::Full(Bound::Stretches));
        }
        let joined = Stretch {
            volume: new.volume,
            from: before.map_or(new.from, |before| before.from),
            to: after.map_or(new.to, |after| after.to),
        };
        let replaced = at - usize::from(before.is_some())..at + usize::from(after.is_some());
        self.list.splice(replaced, [joined]);
        Ok(())
    }

    /// What of a volume is not done, ascending: at most one more than there are stretches. Allocates.
    pub fn gaps(&self, volume: VolumeId) -> Vec<(Key, Key)> {
        gaps(self.of(volume).iter().map(|stretch| (stretch.from, stretch.to)))
    }

    /// Whether a volume is done from end to end.
    pub fn is_whole(&self, volume: VolumeId) -> bool {
        matches!(self.of(volume), [Stretch { from: KEY_START, to: KEY_END, .. }])
    }
}

impl Wire for Stretches {
    const BYTES_MIN: usize = 4;

    fn emit(&self, out: &mut Vec<u8>) {
        emit_list(out, &self.list);
    }

    fn parse(reader: &mut Reader<'_>) -> Result<Self, WireFault> {
        let list: Vec<Stretch> = reader.list(STRETCHES_MAX)?;
        let good = |stretch: &Stretch| stretch.from < stretch.to && stretch.to <= KEY_END;
        let apart = |a: &Stretch, b: &Stretch| (a.volume, a.to) < (b.volume, b.from);
        let ordered = list.windows(2).all(|pair| apart(&pair[0], &pair[1]));
        if list.iter().all(good) && ordered { Ok(Stretches { list }) } else { Err(WireFault::Value) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stretch(volume: u32, from: Key, to: Key) -> Stretch {
        Stretch { volume: VolumeId(volume), from, to }
    }

    #[test]
    fn stretches_join_where_they_touch_and_overlaps_are_refused() {
        let mut done = Stretches::default();
        assert_eq!(done.gaps(VolumeId(1)), [(KEY_START, KEY_END)]);
        done.add(&stretch(1, (10, 0), (20, 0))).unwrap();
        done.add(&stretch(1, (30, 0), (40, 7))).unwrap();
        done.add(&stretch(2, (15, 0), (35, 0))).unwrap();
        for (from, to) in [
            ((10, 0), (20, 0)),
            ((9, 9), (10, 1)),
            ((19, 9), (25, 0)),
            ((0, 0), KEY_END),
            ((12, 0), (13, 0)),
            ((40, 6), (41, 0)),
            ((25, 0), (25, 0)),
            ((26, 0), (25, 0)),
            ((50, 0), (u64::MAX, 1)),
        ] {
            let before = done.clone();
            assert_eq!(done.add(&stretch(1, from, to)), Err(Refusal::Progress), "{from:?}..{to:?}");
            assert_eq!(done, before);
        }
        assert_eq!(
            done.gaps(VolumeId(1)),
            [(KEY_START, (10, 0)), ((20, 0), (30, 0)), ((40, 7), KEY_END)],
            "volume 2 is another matter"
        );
        done.add(&stretch(1, (20, 0), (30, 0))).unwrap();
        assert_eq!(done.of(VolumeId(1)), [stretch(1, (10, 0), (40, 7))]);
        done.add(&stretch(1, (40, 7), KEY_END)).unwrap();
        assert!(!done.is_whole(VolumeId(1)));
        done.add(&stretch(1, KEY_START, (10, 0))).unwrap();
        assert!(done.is_whole(VolumeId(1)) && !done.is_whole(VolumeId(2)) && !done.is_whole(VolumeId(3)));
        assert_eq!(done.gaps(VolumeId(1)), []);
        assert_eq!(done.as_slice().len(), 2);
    }

    #[test]
    fn it_behaves_like_a_set_of_keys() {
        let mut seed = 7u64;
        let mut next = |below: u64| {
            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (seed >> 33) % below
        };
        for _ in 0..200 {
            let mut done = Stretches::default();
            let mut plain = std::collections::BTreeSet::new();
            for _ in 0..40 {
                let from = next(60);
                let to = from + 1 + next(8);
                let free = (from..to).all(|key| !plain.contains(&key));
                let added = done.add(&stretch(1, (from, 0), (to, 0)));
                assert_eq!(added.is_ok(), free, "{from}..{to}");
                if free {
                    plain.extend(from..to);
                }
                let mut bytes = Vec::new();
                done.emit(&mut bytes);
                assert_eq!(Stretches::parse(&mut Reader::new(&bytes)).as_ref(), Ok(&done));
            }
            let covered =
                |key: u64| done.of(VolumeId(1)).iter().any(|s| s.from <= (key, 0) && (key, 0) < s.to);
            let open = |key: u64| done.gaps(VolumeId(1)).iter().any(|g| g.0 <= (key, 0) && (key, 0) < g.1);
            for key in 0..80 {
                assert_eq!((covered(key), open(key)), (plain.contains(&key), !plain.contains(&key)), "{key}");
            }
        }
    }

    #[test]
    fn the_bound_is_reached_and_touching_ones_still_go_in() {
        let mut done = Stretches::default();
        for n in 0..STRETCHES_MAX as u64 {
            done.add(&stretch(1, (3 * n, 0), (3 * n + 1, 0))).unwrap();
        }
        let far = 3 * STRETCHES_MAX as u64;
        assert_eq!(done.add(&stretch(1, (far, 0), (far + 1, 0))), Err(Refusal::Full(Bound::Stretches)));
        done.add(&stretch(1, (1, 0), (2, 0))).unwrap();
        assert_eq!(done.add(&stretch(1, (far, 0), (far + 1, 0))), Err(Refusal::Full(Bound::Stretches)));
        done.add(&stretch(1, (2, 0), (3, 0))).unwrap();
        done.add(&stretch(1, (far, 0), (far + 1, 0))).unwrap();
    }

    #[test]
    fn lists_that_touch_or_run_back_are_refused() {
        let parse = |list: &[Stretch]| {
            let mut bytes = Vec::new();
            emit_list(&mut bytes, list);
            Stretches::parse(&mut Reader::new(&bytes)).map(drop)
        };
        let a = stretch(1, (1, 0), (2, 0));
        assert_eq!(parse(&[a, stretch(1, (2, 1), (3, 0)), stretch(2, (0, 0), (1, 0))]), Ok(()));
        for bad in [
            stretch(1, (2, 0), (3, 0)),
            stretch(1, (1, 1), (3, 0)),
            stretch(0, (5, 0), (6, 0)),
            stretch(1, (6, 0), (6, 0)),
            stretch(1, (6, 0), (u64::MAX, 1)),
        ] {
            assert_eq!(parse(&[a, bad]), Err(WireFault::Value), "{bad:?}");
        }
    }
}
