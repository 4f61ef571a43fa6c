//! How many bytes of contents a batch takes: as many as go through in about [`BATCH_NS`].
//!
//! The rows of a batch come when all of its blocks are stored, so what a batch takes is what a crash costs: little on a slow uplink. On a
//! fast one large batches are read in better order. So a batch is made as large as the one before was fast, within bounds.
//!
//! | uplink | bytes of a batch |
//! |---|---|
//! | up to 2.6 MiB/s | 2 MiB |
//! | 32 MiB/s | 24 MiB |
//! | 200 MiB/s | 150 MiB |
//! | 1 GiB/s | 512 MiB: as many blocks of 128 KiB as a plan takes |
//!
//! Pure: time is an argument. Source: ours.

/// How long a batch should take, in nanoseconds: with [`BATCHES_MAX`](super::BATCHES_MAX) of them in work and
/// the pauses between commits, everything is committed within 5 s.
pub const BATCH_NS: u64 = 750_000_000;
/// Bytes that a batch takes at least, however slow the uplink is: four frames. Below, reads come in too little order.
pub const BATCH_BYTES_MIN: u64 = 2 << 20;
/// How many times larger a batch may be than the one before: what an uplink can do is found out in a few batches.
const RISE: u64 = 4;

/// See the module's text.
#[derive(Debug)]
pub struct Pace {
    bytes_max: u64,
    /// When the last batch was through, on the machine's clock.
    last_ns: u64,
}

impl Pace {
    /// Begins at `now` with batches of `bytes`, which the uplink is known to take in [`BATCH_NS`].
    pub fn new(bytes: u64, now: u64) -> Pace {
        Pace { bytes_max: bytes.max(BATCH_BYTES_MIN), last_ns: now }
    }

    /// Bytes that the next batch takes.
    pub fn batch_bytes(&self) -> u64 {
        self.bytes_max
    }

    /// A batch of `bytes` is through. It says something when it was about as large as it may be.
    pub fn batch_done(&mut self, now: u64, bytes: u64) {
        let took_ns = now.saturating_sub(self.last_ns).max(1);
        self.last_ns = now;
        if bytes < self.bytes_max / 2 {
            return;
        }
        let fitting = u128::from(bytes) * u128::from(BATCH_NS) / u128::from(took_ns);
        let fitting = u64::try_from(fitting).unwrap_or(u64::MAX);
        self.bytes_max =
            fitting.clamp(self.bytes_max / 2, self.bytes_max.saturating_mul(RISE)).max(BATCH_BYTES_MIN);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn batches_grow_to_what_goes_through_in_the_time_and_shrink_again() {
        let mut pace = Pace::new(0, 5);
        assert_eq!(pace.batch_bytes(), BATCH_BYTES_MIN);
        let mut now = 5;
        let mut run = |pace: &mut Pace, bytes_per_s: u64, batches: usize| {
            for _ in 0..batches {
                now += pace.batch_bytes() * 1_000_000_000 / bytes_per_s;
                pace.batch_done(now, pace.batch_bytes());
            }
            pace.batch_bytes()
        };
        let fast = run(&mut pace, 400 * MIB, 10);
        assert!(fast.abs_diff(300 * MIB) < MIB, "{fast}");
        assert_eq!(run(&mut pace, MIB, 10), BATCH_BYTES_MIN, "never less");
        pace.batch_done(u64::MAX, MIB / 2);
        assert_eq!(pace.batch_bytes(), BATCH_BYTES_MIN, "a part-filled one says nothing");
        assert_eq!(Pace::new(100 * MIB, 0).batch_bytes(), 100 * MIB, "what is known of the uplink");
    }
}
