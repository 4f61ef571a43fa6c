//! Bytes on their way from one layer to the next: a buffer of fixed size, filled at one end and emptied at the other.
//!
//! Invariants: it never grows; what is in it is contiguous. Does not: wrap around; it moves what is left to the front when it is asked
//! for room. Source: ours.

/// A buffer of fixed size.
#[derive(Clone, Debug)]
pub struct Fifo {
    bytes: Box<[u8]>,
    start: usize,
    end: usize,
}

impl Fifo {
    /// An empty one for `capacity` bytes. Allocates.
    pub fn new(capacity: usize) -> Fifo {
        Fifo { bytes: vec![0; capacity].into_boxed_slice(), start: 0, end: 0 }
    }

    /// What is in it.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    /// What is in it, to be changed in place.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..self.end]
    }

    /// Bytes in it.
    pub fn len(&self) -> usize {
        self.end - self.start
    }

    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Bytes that it can still take.
    pub fn room(&self) -> usize {
        self.bytes.len() - self.len()
    }

    /// All the room, to be written into; then say how much with [`Fifo::filled`]. Moves what is in it to the front.
    pub fn space(&mut self) -> &mut [u8] {
        self.bytes.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        &mut self.bytes[self.end..]
    }

    /// The first `count` bytes of the space are filled; more than there is room for counts as all.
    pub fn filled(&mut self, count: usize) {
        self.end = self.end.saturating_add(count).min(self.bytes.len());
    }

    /// Takes as much of `bytes` as there is room for; returns how much.
    pub fn push(&mut self, bytes: &[u8]) -> usize {
        let count = bytes.len().min(self.room());
        self.space()[..count].copy_from_slice(&bytes[..count]);
        self.filled(count);
        count
    }

    /// Drops `count` bytes off the front, or all.
    pub fn consume(&mut self, count: usize) {
        self.start = self.start.saturating_add(count).min(self.end);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_out_in_order_and_no_more_go_in_than_fit() {
        let mut fifo = Fifo::new(4);
        assert_eq!(fifo.push(b"abcdef"), 4);
        fifo.consume(3);
        assert_eq!((fifo.bytes(), fifo.room()), (&b"d"[..], 3));
        assert_eq!(fifo.push(b"xyz"), 3);
        assert_eq!(fifo.bytes(), b"dxyz");
        fifo.consume(9);
        assert!(fifo.is_empty() && fifo.space().len() == 4);
        fifo.filled(9);
        assert_eq!(fifo.len(), 4);
    }
}
