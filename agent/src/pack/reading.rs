//! How a device is read: the largest gap read over, and how many requests are in flight, from the device's
//! description of itself.
//!
//! | device | gap | depth | because |
//! |---|---|---|---|
//! | any other | 64 KiB | all there is | a request costs what 64 KiB do |
//! | at most N operations a second | what it moves in 1/N s, 64 to 256 KiB | all there is | an operation saved is 1/N s saved |
//! | N below 8,192, and three quarters in use | 256 KiB | | then it is read from one end to the other: what is left out is less than an operation costs |
//! | disk with heads | 256 KiB | 8 | skipping over a gap takes as long as reading it; sorted reads leave the disk's own queue nothing to sort |
//! | stripes of S bytes | at least S / 4, up to 256 KiB | | within a piece of a stripe, the same disk reads on |
//!
//! A frame holds 512 KiB, gaps included; a gap of half of that still leaves a frame more data than gap. Where operations are free, a full
//! volume is not read over larger gaps: at 700 MB/s, 9 tenths in use, gaps of 256 KiB cost 1.3 % more time than 64 KiB, because that many more bytes.
//!
//! Pure. Source: ours; the gaps are measured by the volumes bench, whose header has the table.

use windlass_hal::block::Geometry;

use super::FRAME_BYTES;

/// Gap in bytes that is read over on a device without heads and caps.
pub const GAP_BYTES: u64 = 64 << 10;
/// Largest gap in bytes that is ever read over.
pub const GAP_BYTES_MAX: u64 = 256 << 10;
/// Bytes a second that a device with a cap on operations is taken to move: what a cloud volume or a SATA port gives.
const CAPPED_BYTES_PER_SEC: u64 = 512 << 20;
/// Requests in flight on a disk with heads.
const ROTATIONAL_DEPTH: usize = 8;
/// Part of a volume in use, in percent, from which on it is read from one end to the other.
const SEQUENTIAL_PERCENT: u64 = 75;

const _: () = assert!(GAP_BYTES <= GAP_BYTES_MAX && GAP_BYTES_MAX <= FRAME_BYTES as u64 / 2);

/// How a device is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// Largest gap in bytes between two ranges that are read as one.
    pub gap_bytes: u64,
    /// Most requests in flight, at least 1.
    pub depth: usize,
}

impl Reading {
    /// For a device with room for `depth` requests, of whose `size_bytes` the volume uses `used_bytes`.
    pub fn of(geometry: &Geometry, depth: usize, used_bytes: u64, size_bytes: u64) -> Reading {
        let capped = match geometry.operations_per_sec_max {
            0 => 0,
            operations => CAPPED_BYTES_PER_SEC / u64::from(operations),
        };
        let striped = u64::from(geometry.io_optimal_bytes) / 4;
        let sequential =
            u128::from(used_bytes) * 100 >= u128::from(size_bytes) * u128::from(SEQUENTIAL_PERCENT);
        let gap_bytes = match geometry.rotational || sequential && capped > GAP_BYTES {
            true => GAP_BYTES_MAX,
            false => capped.max(striped).clamp(GAP_BYTES, GAP_BYTES_MAX),
        };
        let depth = if geometry.rotational { depth.min(ROTATIONAL_DEPTH) } else { depth };
        Reading { gap_bytes, depth: depth.max(1) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Geometry = Geometry {
        size_bytes: 1 << 40,
        logical_block_bytes: 512,
        physical_block_bytes: 4096,
        io_optimal_bytes: 0,
        operations_per_sec_max: 0,
        rotational: false,
        can_discard: false,
        read_only: true,
    };

    fn of(geometry: Geometry) -> Reading {
        Reading::of(&geometry, 32, 1, 100)
    }

    #[test]
    fn a_plain_device_reads_over_small_gaps_with_a_full_queue() {
        assert_eq!(of(PLAIN), Reading { gap_bytes: GAP_BYTES, depth: 32 });
        assert_eq!(Reading::of(&PLAIN, 0, 1, 100).depth, 1);
    }

    #[test]
    fn the_scarcer_operations_are_the_larger_the_gap() {
        let gap = |operations| of(Geometry { operations_per_sec_max: operations, ..PLAIN }).gap_bytes;
        assert_eq!(
            [gap(1_000_000), gap(8192), gap(4096), gap(2048), gap(1)].map(|gap| gap >> 10),
            [64, 64, 128, 256, 256]
        );
    }

    #[test]
    fn heads_mean_few_requests_and_large_gaps() {
        assert_eq!(
            of(Geometry { rotational: true, ..PLAIN }),
            Reading { gap_bytes: GAP_BYTES_MAX, depth: 8 }
        );
        assert_eq!(Reading::of(&Geometry { rotational: true, ..PLAIN }, 3, 1, 100).depth, 3);
    }

    #[test]
    fn a_stripe_counts_when_it_is_larger() {
        let gap = |bytes| of(Geometry { io_optimal_bytes: bytes, ..PLAIN }).gap_bytes;
        assert_eq!([gap(64 << 10), gap(512 << 10), gap(16 << 20)].map(|gap| gap >> 10), [64, 128, 256]);
    }

    #[test]
    fn a_full_volume_is_read_from_one_end_to_the_other_where_operations_are_scarce() {
        let gap = |operations, used, size| {
            let geometry = Geometry { operations_per_sec_max: operations, ..PLAIN };
            Reading::of(&geometry, 32, used, size).gap_bytes >> 10
        };
        assert_eq!(
            [gap(4096, 749, 1000), gap(4096, 750, 1000), gap(4096, u64::MAX, u64::MAX)],
            [128, 256, 256]
        );
        // A request less is worth nothing.
        assert_eq!([gap(0, 750, 1000), gap(8192, 750, 1000)], [64, 64]);
    }
}
