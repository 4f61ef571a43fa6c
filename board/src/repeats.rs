//! A line that comes again and again is said ever more rarely, with how often it came: a store that is away for a day fills no log.
//!
//! Invariants: a line that was not said for a while is said at once; memory is bounded. Does not: print. Source: ours.

/// How long the same line is held back after it was said for the first time, in nanoseconds; it doubles each time.
const PAUSE_NS_MIN: u64 = 10_000_000_000;
/// The longest, in nanoseconds: an hour.
const PAUSE_NS_MAX: u64 = 3_600_000_000_000;
/// How often a line comes as it is, at first: a node that was restarted once or twice is no flood.
const FREE: u32 = 3;
/// Lines that are known; one more, and the one that was said longest ago is new again.
const KNOWN_MAX: usize = 64;

struct Known {
    line: String,
    said_ns: u64,
    /// How often it was said, up to [`FREE`].
    said: u32,
    pause_ns: u64,
    /// How often it came since.
    held: u64,
}

/// Lines that were said lately.
#[derive(Default)]
pub struct Repeats(Vec<Known>);

impl Repeats {
    /// Whether to say a line now: how often it came since it was said last, which is 0 for a new one.
    pub fn admit(&mut self, now_ns: u64, line: &str) -> Option<u64> {
        let Some(known) = self.0.iter_mut().find(|known| known.line == line) else {
            if self.0.len() == KNOWN_MAX
                && let Some(oldest) = (0..self.0.len()).min_by_key(|&at| self.0[at].said_ns)
            {
                self.0.swap_remove(oldest);
            }
            self.0.push(Known {
                line: line.to_owned(),
                said_ns: now_ns,
                said: 1,
                pause_ns: PAUSE_NS_MIN,
                held: 0,
            });
            return Some(0);
        };
        let quiet_ns = now_ns.saturating_sub(known.said_ns);
        if known.said >= FREE && quiet_ns < known.pause_ns {
            known.held = known.held.saturating_add(1);
            return None;
        }
        if known.held > 0 {
            known.pause_ns = (2 * known.pause_ns).min(PAUSE_NS_MAX);
        } else if quiet_ns >= 2 * known.pause_ns {
            // It was over, and this is the next time.
            (known.pause_ns, known.said) = (PAUSE_NS_MIN, 0);
        }
        known.said = known.said.saturating_add(1).min(FREE);
        known.said_ns = now_ns;
        Some(std::mem::take(&mut known.held))
    }
}

/// What two lines have in common that differ in their numbers.
pub fn without_numbers(line: &str) -> String {
    line.chars().filter(|char| !char.is_ascii_digit()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn a_line_that_goes_on_is_said_ever_more_rarely_with_its_count() {
        let mut repeats = Repeats::default();
        let mut said = Vec::new();
        for second in 0..=400 {
            if let Some(held) =
                repeats.admit(second * SECOND, &without_numbers(&format!("waits for slot {second}")))
            {
                said.push((second, held));
            }
        }
        assert_eq!(said, [(0, 0), (1, 0), (2, 0), (12, 9), (32, 19), (72, 39), (152, 79), (312, 159)]);
        assert_eq!(repeats.admit(400 * SECOND, "another"), Some(0));
        // It was over for a while: as it comes, at first.
        let day = 86_400 * SECOND;
        assert_eq!(repeats.admit(day, "waits for slot "), Some(88));
        let mut admit = |ns| repeats.admit(3 * day + ns, "waits for slot ");
        assert_eq!([admit(0), admit(1), admit(2), admit(3)], [Some(0), Some(0), Some(0), None]);
    }

    #[test]
    fn memory_is_bounded() {
        let mut repeats = Repeats::default();
        let line = |n: usize| "x".repeat(n);
        for n in 0..=KNOWN_MAX {
            assert_eq!(repeats.admit(n as u64, &line(n)), Some(0));
        }
        assert_eq!(repeats.0.len(), KNOWN_MAX);
        assert_eq!(repeats.admit(100, &line(0)), Some(0), "it was forgotten");
        assert_eq!(repeats.admit(100, &line(KNOWN_MAX)), Some(0));
        assert_eq!(repeats.0.len(), KNOWN_MAX);
    }
}
