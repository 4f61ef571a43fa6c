//! Byte ranges of a used-block map: joined where they touch before they are passed on.
//!
//! Source: ours.

use std::ops::Range;

/// Joins ranges that touch before it passes them on.
pub(super) struct Joiner<'a> {
    pending: Range<u64>,
    each: &'a mut dyn FnMut(Range<u64>),
}

impl<'a> Joiner<'a> {
    /// Starts with `first`, which may be empty.
    pub(super) fn new(first: Range<u64>, each: &'a mut dyn FnMut(Range<u64>)) -> Joiner<'a> {
        Joiner { pending: first, each }
    }

    /// Adds a range that does not start before the last one did.
    pub(super) fn add(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        if range.start <= self.pending.end {
            self.pending.end = self.pending.end.max(range.end);
        } else {
            self.flush();
            self.pending = range;
        }
    }

    /// Passes the last range on.
    pub(super) fn flush(&mut self) {
        if !self.pending.is_empty() {
            (self.each)(self.pending.clone());
        }
    }
}
