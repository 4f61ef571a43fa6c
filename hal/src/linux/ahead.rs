//! Reading ahead: which ranges of the device a port is reading, or has read, into memory of its own before
//! `read_at` asks for them.
//!
//! ```text
//!  arena   [0][1][1][1][1][2][ ][ ][3][3]...      128 units of 16 KiB; a range takes neighbouring ones
//!  name     a range is called after its first unit, so no two that are here at a time share one
//! ```
//!
//! Invariants
//! - Ranges do not overlap. A range leaves when its end was asked for, when it failed, or, once it is read, when others want its
//!   place and it was passed over for [`STALE_READS`] reads.
//! - The units of a range that is being read belong to the kernel and are not given to another range.
//!
//! Does not: read anything, or touch the arena: `ring` does. Source: ours.

use std::ops::Range;

/// Memory that is read ahead into, in bytes: the next two pieces of inodes (512 KiB each), and as much for blocks all over the device.
pub(super) const ARENA_BYTES: usize = 2 << 20;
/// Units of the arena, one bit of a word each.
const UNITS: usize = u128::BITS as usize;
const UNIT_BYTES: usize = ARENA_BYTES / UNITS;
/// Calls of `read_at` after which a range that none of them wanted is dropped: more than a piece of inodes
/// brings.
const STALE_READS: u64 = 512;

/// How far a range is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// In the kernel.
    Flying,
    /// In the arena.
    Here,
}

#[derive(Clone, Copy, Debug)]
struct Reading {
    offset: u64,
    len: usize,
    units: u128,
    state: State,
    /// `read_at` calls before it came.
    since: u64,
}

/// Where wanted bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// The first so many are not here; ask the device.
    Nowhere(usize),
    /// The range of this name has some and is not read yet: wait, and look again.
    Flying(u16),
    /// So many are in the arena, at this byte.
    Here {
        /// Name of the range.
        name: u16,
        /// Byte of the arena.
        at: usize,
        /// Number of bytes.
        len: usize,
    },
}

/// See the module.
#[derive(Debug)]
pub(super) struct Ahead {
    readings: [Option<Reading>; UNITS],
    taken: u128,
    asked: u64,
}

impl Ahead {
    /// No ranges.
    pub(super) fn new() -> Ahead {
        Ahead { readings: [None; UNITS], taken: 0, asked: 0 }
    }

    /// Whether no range is here or on its way.
    pub(super) fn is_empty(&self) -> bool {
        self.taken == 0
    }

    /// Whether a range is in the kernel.
    pub(super) fn flies(&self) -> bool {
        self.readings.iter().flatten().any(|reading| reading.state == State::Flying)
    }

    /// Takes a range in: its name and its place in the arena, to be read now. `None` when some of it is here already or no
    /// room is left.
    pub(super) fn admit(&mut self, range: &Range<u64>) -> Option<(u16, usize)> {
        let len = usize::try_from(range.end.checked_sub(range.start)?).ok().filter(|&len| len > 0)?;
        let overlaps =
            |r: &Reading| r.offset < range.end && range.start < r.offset.saturating_add(r.len as u64);
        if len > ARENA_BYTES || self.readings.iter().flatten().any(overlaps) {
            return None;
        }
        let count = len.div_ceil(UNIT_BYTES);
        let first = self.room(count).or_else(|| {
            self.forget_stale();
            self.room(count)
        })?;
        let units = mask(count) << first;
        self.taken |= units;
        let reading = Reading { offset: range.start, len, units, state: State::Flying, since: self.asked };
        *self.readings.get_mut(first)? = Some(reading);
        Some((first as u16, first * UNIT_BYTES))
    }

    /// The first of `count` free units in a row.
    fn room(&self, count: usize) -> Option<usize> {
        let wanted = mask(count);
        (0..=UNITS.checked_sub(count)?).find(|&first| self.taken & wanted << first == 0)
    }

    fn forget_stale(&mut self) {
        for name in 0..self.readings.len() {
            let stale = |r: &Reading| r.state == State::Here && self.asked - r.since > STALE_READS;
            if self.readings[name].as_ref().is_some_and(stale) {
                self.leave(name as u16);
            }
        }
    }

    /// The bytes of a range that flew.
    pub(super) fn len_of(&self, name: u16) -> Option<(u64, usize)> {
        self.readings.get(usize::from(name))?.map(|reading| (reading.offset, reading.len))
    }

    /// A range's read ended.
    pub(super) fn settle(&mut self, name: u16, whole: bool) {
        match self.readings.get_mut(usize::from(name)) {
            Some(Some(reading)) if whole => reading.state = State::Here,
            _ => self.leave(name),
        }
    }

    /// Counts a call of `read_at`.
    pub(super) fn ask(&mut self) {
        self.asked += 1;
    }

    /// Where the bytes from `offset` on are, as far as one answer goes for `len` (at least 1).
    pub(super) fn find(&self, offset: u64, len: usize) -> Found {
        let mut nowhere = len;
        for (name, reading) in self.readings.iter().enumerate() {
            let Some(reading) = reading else { continue };
            let Some(skip) = offset.checked_sub(reading.offset) else {
                let before = usize::try_from(reading.offset - offset).unwrap_or(usize::MAX);
                nowhere = nowhere.min(before);
                continue;
            };
            if skip < reading.len as u64 {
                let name = name as u16;
                return match reading.state {
                    State::Flying => Found::Flying(name),
                    State::Here => {
                        let skip = skip as usize;
                        let at = usize::from(name) * UNIT_BYTES + skip;
                        Found::Here { name, at, len: len.min(reading.len - skip) }
                    }
                };
            }
        }
        Found::Nowhere(nowhere)
    }

    /// The bytes up to `offset` of the range `name` were handed out: a range that was handed out to its end leaves.
    pub(super) fn took(&mut self, name: u16, offset: u64) {
        let ends = |r: &Reading| offset >= r.offset + r.len as u64;
        if self.readings.get(usize::from(name)).is_some_and(|r| r.as_ref().is_some_and(ends)) {
            self.leave(name);
        }
    }

    fn leave(&mut self, name: u16) {
        if let Some(reading) = self.readings.get_mut(usize::from(name)).and_then(Option::take) {
            self.taken &= !reading.units;
        }
    }
}

/// `count` (1..=128) low bits.
fn mask(count: usize) -> u128 {
    u128::MAX >> (UNITS - count.clamp(1, UNITS))
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNIT: u64 = UNIT_BYTES as u64;

    #[test]
    fn a_range_is_read_once_and_leaves_when_its_end_was_asked_for() {
        let mut ahead = Ahead::new();
        assert_eq!(ahead.admit(&(1000..1000 + 2 * UNIT)), Some((0, 0)));
        assert_eq!(ahead.admit(&(2000..3000)), None, "some of it is here");
        assert_eq!(ahead.admit(&(0..1000)), Some((2, 2 * UNIT_BYTES)));
        assert_eq!(ahead.find(1500, 10), Found::Flying(0));
        assert_eq!(ahead.find(1000 + 2 * UNIT, 10), Found::Nowhere(10));
        ahead.settle(0, true);
        assert_eq!(ahead.find(1500, 10), Found::Here { name: 0, at: 500, len: 10 });
        let rest = 2 * UNIT_BYTES - 500;
        assert_eq!(ahead.find(1500, 1 << 20), Found::Here { name: 0, at: 500, len: rest });
        ahead.took(0, 1510);
        assert!(matches!(ahead.find(1500, 10), Found::Here { .. }));
        ahead.took(0, 1000 + 2 * UNIT);
        assert_eq!(ahead.find(1500, 10), Found::Nowhere(10));
        assert!(!ahead.is_empty() && ahead.flies());
        ahead.settle(2, false);
        assert!(ahead.is_empty() && !ahead.flies());
    }

    #[test]
    fn what_is_before_a_range_ends_where_the_range_begins() {
        let mut ahead = Ahead::new();
        ahead.admit(&(4096..8192));
        assert_eq!(ahead.find(96, 10_000), Found::Nowhere(4000));
        assert_eq!(ahead.find(8192, 10_000), Found::Nowhere(10_000));
    }

    #[test]
    fn a_full_arena_takes_no_more_until_something_is_stale() {
        let mut ahead = Ahead::new();
        for i in 0..UNITS as u64 {
            assert!(ahead.admit(&(i * UNIT..(i + 1) * UNIT)).is_some());
        }
        assert_eq!(ahead.admit(&(1 << 30..(1 << 30) + 1)), None);
        (0..=STALE_READS).for_each(|_| ahead.ask());
        assert_eq!(ahead.admit(&(1 << 30..(1 << 30) + 1)), None, "what flies stays");
        ahead.settle(7, true);
        ahead.settle(8, true);
        assert_eq!(ahead.admit(&(1 << 30..(1 << 30) + UNIT + 1)), Some((7, 7 * UNIT_BYTES)));
        assert_eq!(ahead.admit(&(0..u64::MAX)), None);
    }
}
