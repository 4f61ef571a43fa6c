//! How fast the store takes objects, and what follows for a backup: how large objects are made, and how much is packed ahead.
//!
//! What is stored and not yet named by a commit is stored again after a crash. So on a slow uplink objects are made smaller, few of them
//! wait, and commits follow each other closely; on a fast one none of this is seen.
//!
//! | uplink | an object, of 16 MiB | packed ahead |
//! |---|---|---|
//! | up to 512 KiB/s | 512 KiB | 1.5 MiB |
//! | 2 MiB/s | 2 MiB | 6 MiB: 3 s |
//! | 16 MiB/s and more | 16 MiB | 48 MiB and more, as far as the pool of pieces goes |
//!
//! Measured while objects are on their way only, so that a source that has little to store does not make an uplink look slow. The rate is of
//! a process: the next job begins with what the last one found out.
//!
//! Pure but for a shared number: time is an argument. Source: ours.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Time on the way that an object is made for, in nanoseconds.
pub const OBJECT_NS: u64 = 1_000_000_000;
/// Time on the way of all that is packed and not stored, in nanoseconds: three objects, so that the uplink never waits for a lane.
pub const AHEAD_NS: u64 = 3 * OBJECT_NS;
/// Least size in bytes that an object is made for: below, requests cost more than they save.
pub const AIM_BYTES_MIN: u32 = 512 << 10;
/// Bytes a second that are assumed before anything was stored: small objects at first, which cost a fast uplink nothing.
pub const FIRST_BYTES_S: u64 = 1 << 20;
/// How many times faster an uplink may look after one measurement, so that one burst into a socket's buffer does not decide. A slower one is
/// believed at once.
const RISE: u64 = 4;
/// Bytes that a measurement takes at most, however fast the uplink is. Below, it takes what may be packed ahead: what is on its way at the same
/// time is stored at about the same time.
const SPAN_BYTES_MAX: u64 = 64 << 20;
const NS_PER_S: u128 = 1_000_000_000;

/// Bytes a second that the store takes from this process. Copies are the same.
#[derive(Clone, Debug)]
pub struct LinkRate(Arc<AtomicU64>);

impl Default for LinkRate {
    fn default() -> LinkRate {
        LinkRate(Arc::new(AtomicU64::new(FIRST_BYTES_S)))
    }
}

impl LinkRate {
    /// Bytes a second.
    pub fn bytes_s(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Bytes that take `ns` nanoseconds.
    pub fn bytes_in(&self, ns: u64) -> u64 {
        let bytes = u128::from(self.bytes_s()) * u128::from(ns) / NS_PER_S;
        u64::try_from(bytes).unwrap_or(u64::MAX)
    }
}

/// The measurement of one job.
#[derive(Debug)]
pub struct Link {
    rate: LinkRate,
    object_bytes_max: u32,
    /// Since when something is on its way that is not counted in `busy_ns`.
    busy_since_ns: Option<u64>,
    busy_ns: u64,
    stored: u64,
}

impl Link {
    /// Goes on with what `rate` says; objects have `object_bytes_max` at most.
    pub fn new(rate: LinkRate, object_bytes_max: u32) -> Link {
        Link { rate, object_bytes_max, busy_since_ns: None, busy_ns: 0, stored: 0 }
    }

    /// Bytes that an object is to have.
    pub fn object_bytes(&self) -> u32 {
        let fitting = u32::try_from(self.rate.bytes_in(OBJECT_NS)).unwrap_or(u32::MAX);
        fitting.max(AIM_BYTES_MIN).min(self.object_bytes_max)
    }

    /// Bytes that may be packed and not stored.
    pub fn ahead_bytes(&self) -> u64 {
        self.rate.bytes_in(AHEAD_NS).max(u64::from(AIM_BYTES_MIN) * (AHEAD_NS / OBJECT_NS))
    }

    /// The rate.
    pub fn rate(&self) -> &LinkRate {
        &self.rate
    }

    /// An object goes on its way.
    pub fn sent(&mut self, now_ns: u64) {
        self.busy_since_ns.get_or_insert(now_ns);
    }

    /// An object of `bytes` is stored; `is_last`: none is on its way any more.
    pub fn stored(&mut self, now_ns: u64, bytes: u64, is_last: bool) {
        let since = self.busy_since_ns.replace(now_ns).unwrap_or(now_ns);
        self.busy_ns += now_ns.saturating_sub(since);
        self.stored += bytes;
        if is_last {
            self.busy_since_ns = None;
        }
        if self.stored < self.ahead_bytes().min(SPAN_BYTES_MAX) {
            return;
        }
        let found = u128::from(self.stored) * NS_PER_S / u128::from(self.busy_ns.max(1));
        let found = u64::try_from(found).unwrap_or(u64::MAX);
        let most = self.rate.bytes_s().saturating_mul(RISE);
        self.rate.0.store(found.min(most).max(1), Ordering::Relaxed);
        (self.busy_ns, self.stored) = (0, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;
    const MAX: u32 = 16 << 20;

    /// Sends as many objects as fit ahead at once, all at the same time, until `bytes` are stored; the time that it took.
    fn run(link: &mut Link, now: &mut u64, bytes_s: u64, mut bytes: u64, idle_ns: u64) {
        while bytes > 0 {
            let object = u64::from(link.object_bytes());
            let count = (link.ahead_bytes() / object).clamp(1, 4);
            (0..count).for_each(|_| link.sent(*now));
            *now += object * count * 1_000_000_000 / bytes_s;
            (0..count).for_each(|at| link.stored(*now, object, at + 1 == count));
            *now += idle_ns;
            bytes = bytes.saturating_sub(object * count);
        }
    }

    #[test]
    fn objects_are_as_large_as_a_second_of_the_uplink() {
        let mut now = 7;
        let mut link = Link::new(LinkRate::default(), MAX);
        assert_eq!((u64::from(link.object_bytes()), link.ahead_bytes()), (MIB, 3 * MIB));
        run(&mut link, &mut now, 2 * MIB, 64 * MIB, 0);
        assert!(link.rate.bytes_s().abs_diff(2 * MIB) < MIB / 8, "{:?}", link.rate);
        let next = Link::new(link.rate.clone(), MAX);
        assert!(u64::from(next.object_bytes()).abs_diff(2 * MIB) < MIB / 8, "the next job goes on with it");
        let before = now;
        run(&mut link, &mut now, 500 * MIB, 64 * MIB, 0);
        assert_eq!(link.object_bytes(), MAX);
        assert!(now - before < 1_000_000_000);
        run(&mut link, &mut now, 100 << 10, 400 * MIB, 0);
        assert_eq!(link.object_bytes(), AIM_BYTES_MIN);
        assert_eq!(link.ahead_bytes(), 3 * u64::from(AIM_BYTES_MIN));
    }

    #[test]
    fn time_without_anything_to_send_does_not_count() {
        let (mut link, mut now) = (Link::new(LinkRate::default(), MAX), 0);
        run(&mut link, &mut now, 100 * MIB, 256 * MIB, 60_000_000_000);
        assert!(link.rate.bytes_s().abs_diff(100 * MIB) < MIB, "{:?}", link.rate);
    }
}
