//! How fast a node uploads while it works: what the coordinator sizes its shares by.
//!
//! Looked at about once a beat. A span that did not begin and end with work tells nothing of the uplink, so an idle node's last rate stays.
//! Bytes are counted as they leave, in pieces of 64 KiB: objects would be too coarse for an uplink that needs many beats for one.
//!
//! Source: ours.

/// What the newest span weighs in the rate: one part in so many.
const WEIGHT: u64 = 4;

/// The measurement.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rate {
    since_ns: u64,
    sent_before: u64,
    was_busy: bool,
    bytes_s: u64,
}

impl Rate {
    /// `sent` bytes left until `now_ns`, and there is work now or not. The rate in bytes a second, when a span of `span_ns` at least is over
    /// and says something.
    pub fn look(&mut self, now_ns: u64, span_ns: u64, sent: u64, busy: bool) -> Option<u64> {
        let span = now_ns.saturating_sub(self.since_ns);
        if span < span_ns.max(1) {
            return None;
        }
        let moved = sent.saturating_sub(self.sent_before);
        let tells = std::mem::replace(&mut self.was_busy, busy) && busy && moved > 0;
        (self.since_ns, self.sent_before) = (now_ns, sent);
        if !tells {
            return None;
        }
        let new = u64::try_from(u128::from(moved) * 1_000_000_000 / u128::from(span)).unwrap_or(u64::MAX);
        self.bytes_s = match self.bytes_s {
            0 => new,
            old => old - old / WEIGHT + new / WEIGHT,
        };
        Some(self.bytes_s)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEAT_NS: u64 = 5_000_000_000;

    #[test]
    fn only_beats_of_work_tell_the_rate() {
        let mut rate = Rate::default();
        let mut look = |beats: u64, sent, busy| rate.look(beats * BEAT_NS, BEAT_NS, sent, busy);
        assert_eq!(look(1, 100, true), None, "it began somewhere in this span");
        assert_eq!(look(2, 5_000_100, true), Some(1_000_000));
        assert_eq!(look(2, 9_000_000, true), None, "too soon");
        assert_eq!(look(3, 15_000_100, true), Some(1_250_000), "a part of what is new");
        assert_eq!(look(4, 15_000_100, true), None, "nothing moved: it reads");
        assert_eq!(look(5, 15_000_200, false), None, "the work ended within");
        assert_eq!(look(6, 99_000_000, true), None, "it began within");
        assert_eq!(look(7, 99_000_000 + 6_250_000, true), Some(1_250_000));
    }
}
