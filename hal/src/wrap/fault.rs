//! Medium errors on a device that has none: in chosen byte ranges, and in blocks drawn by a seed.
//!
//! Invariants
//! - Whether a block is bad is a function of its address and the seed, not of the order of requests or of how they are cut:
//!   a bad block stays bad, as on a real disk, and a run with the same seed meets the same errors on any port.
//! - The bytes of a segment that fails are overwritten, so that a use by accident shows.
//!
//! Does not: fail writes, or remap. Source: ours.

use std::ops::Range;
use std::os::fd::BorrowedFd;

use nix::libc;

use crate::block::{BlockDevice, DeviceId, Fault, FaultKind, Geometry, Op, Request, Wait};
use crate::sim::prng::splitmix64;

/// Unit in bytes of random faults: a physical sector of most disks.
const LOT_BYTES: u64 = 4096;
/// What a failed read leaves in its part of the buffer.
const GARBAGE: u8 = 0xDE;

/// A device with bad blocks.
#[derive(Debug)]
pub struct Faulty<D> {
    inner: D,
    bad: Bad,
}

#[derive(Debug, Default)]
struct Bad {
    ranges: Vec<Range<u64>>,
    /// Seed, and one in how many blocks.
    lot: Option<(u64, u64)>,
}

impl Bad {
    fn hits(&self, offset: u64, len: u64) -> bool {
        let end = offset.saturating_add(len);
        if self.ranges.iter().any(|bad| bad.start < end && offset < bad.end) {
            return true;
        }
        let Some((seed, one_in)) = self.lot else { return false };
        (offset / LOT_BYTES..end.div_ceil(LOT_BYTES)).any(|block| {
            let mut state = seed ^ block.wrapping_mul(0xD134_2543_DE82_EF95);
            splitmix64(&mut state).is_multiple_of(one_in)
        })
    }
}

impl<D: BlockDevice> Faulty<D> {
    /// Wraps a device; nothing fails yet.
    pub fn new(inner: D) -> Faulty<D> {
        Faulty { inner, bad: Bad::default() }
    }

    /// Makes every read that touches `range` (bytes) fail.
    #[must_use]
    pub fn with_bad(mut self, range: Range<u64>) -> Faulty<D> {
        self.bad.ranges.push(range);
        self
    }

    /// Makes one in `one_in` blocks of 4 KiB bad, by lot; 0 makes none so.
    #[must_use]
    pub fn with_random(mut self, seed: u64, one_in: u64) -> Faulty<D> {
        self.bad.lot = (one_in != 0).then_some((seed, one_in));
        self
    }

    /// The device inside.
    pub fn into_inner(self) -> D {
        self.inner
    }
}

/// Spoils the segments of a finished read that lie on bad blocks.
fn spoil(bad: &Bad, request: &mut Request) {
    if request.op != Op::Read {
        return;
    }
    let Request { buf, segments, .. } = request;
    for segment in segments.iter_mut().filter(|s| s.fault.is_none()) {
        if bad.hits(segment.device_offset, segment.len) {
            let start = segment.buf_offset as usize;
            if let Some(bytes) =
                buf.as_deref_mut().and_then(|b| b.get_mut(start..start + segment.len as usize))
            {
                bytes.fill(GARBAGE);
            }
            segment.fail(FaultKind::Media, libc::EIO);
        }
    }
}

impl<D: BlockDevice> BlockDevice for Faulty<D> {
    fn geometry(&self) -> Geometry {
        self.inner.geometry()
    }

    fn identity(&self) -> &DeviceId {
        self.inner.identity()
    }

    fn submit(&mut self, request: Request) -> Result<(), Request> {
        self.inner.submit(request)
    }

    fn complete(&mut self, wait: Wait, done: &mut dyn FnMut(Request)) -> usize {
        let bad = &self.bad;
        self.inner.complete(wait, &mut |mut request| {
            spoil(bad, &mut request);
            done(request);
        })
    }

    fn in_flight(&self) -> usize {
        self.inner.in_flight()
    }

    fn queue_depth(&self) -> usize {
        self.inner.queue_depth()
    }

    fn event_fd(&self) -> Option<BorrowedFd<'_>> {
        self.inner.event_fd()
    }

    fn read_ahead(&mut self, ranges: &[Range<u64>]) {
        self.inner.read_ahead(ranges)
    }

    fn read_at(&mut self, offset: u64, out: &mut [u8]) -> Result<(), Fault> {
        self.inner.read_at(offset, out)?;
        let len = out.len() as u64;
        // A device reads whole blocks, so a bad byte spoils its neighbours.
        let unit = u64::from(self.geometry().logical_block_bytes);
        let start = offset / unit * unit;
        if len > 0 && self.bad.hits(start, (offset + len).next_multiple_of(unit) - start) {
            out.fill(GARBAGE);
            return Err(Fault { kind: FaultKind::Media, device_offset: offset, len, errno: libc::EIO });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_have_exact_edges_and_the_lot_is_the_address() {
        let bad = Bad { ranges: vec![1024..2048, 5000..5001], lot: None };
        let hits =
            [(512, 512), (512, 513), (2047, 1), (2048, 512), (4096, 4096)].map(|(o, l)| bad.hits(o, l));
        assert_eq!(hits, [false, true, true, false, true]);
        let bad = Bad { ranges: Vec::new(), lot: Some((7, 10)) };
        let blocks: Vec<u64> = (0..10_000).filter(|b| bad.hits(b * LOT_BYTES, 512)).collect();
        assert!((800..1200).contains(&blocks.len()), "{}", blocks.len());
        let first = blocks[0] * LOT_BYTES;
        assert!(bad.hits(first + 3584, 512) && bad.hits(0, first + 1) && !bad.hits(0, first));
    }
}
