//! A node's clock: starts anywhere, runs a little too fast or too slow, and only forward.
//!
//! Invariants: `true_ns(local_ns(t)) <= t` rounded by less than a nanosecond's worth of drift; both never decrease.
//! Does not: jump; a suspended node is a frozen one, since boot time counts while a machine sleeps. Source: ours.

/// Parts per million in one.
const PPM: u64 = 1_000_000;

/// Boot-time clock of one node in one life.
#[derive(Clone, Copy, Debug)]
pub struct DriftClock {
    /// True time at boot, in nanoseconds.
    boot_ns: u64,
    /// What the clock shows at boot, in nanoseconds.
    start_ns: u64,
    /// How much too fast it runs, in parts per million; above -1,000,000.
    drift_ppm: i64,
}

impl DriftClock {
    /// A clock that shows `start_ns` at the true time `boot_ns`.
    pub fn new(boot_ns: u64, start_ns: u64, drift_ppm: i64) -> DriftClock {
        DriftClock { boot_ns, start_ns, drift_ppm: drift_ppm.max(-900_000) }
    }

    fn rate(&self) -> u64 {
        PPM.saturating_add_signed(self.drift_ppm)
    }

    /// What it shows at a true time.
    pub fn local_ns(&self, true_ns: u64) -> u64 {
        let (since, rate) = (true_ns.saturating_sub(self.boot_ns), self.rate());
        // In two parts, each of which fits.
        let since = (since / PPM).saturating_mul(rate).saturating_add(since % PPM * rate / PPM);
        self.start_ns.saturating_add(since)
    }

    /// The first true time at which it shows `local_ns` or more.
    pub fn true_ns(&self, local_ns: u64) -> u64 {
        let (since, rate) = (local_ns.saturating_sub(self.start_ns), self.rate());
        let since = (since / rate).saturating_mul(PPM).saturating_add((since % rate * PPM).div_ceil(rate));
        self.boot_ns.saturating_add(since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_is_reached_at_its_true_time_and_not_before() {
        for drift_ppm in [-700_000, -10_000, 0, 3, 10_000, 3_000_000] {
            let clock = DriftClock::new(1_000, 77, drift_ppm);
            for local in [77, 78, 1_000_000_007, 15_000_000_000] {
                let at = clock.true_ns(local);
                assert!(clock.local_ns(at) >= local);
                assert!(at == 1_000 || clock.local_ns(at - 1) < local);
            }
        }
    }
}
