//! The last lines that an agent said, for a console and a support bundle.
//!
//! Invariants: at most [`LINES_MAX`] lines and [`BYTES_MAX`] bytes of text, the newest; a line has a number, one more than the line before it,
//! from 1 in each process. Does not: write anywhere. Source: ours.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

/// Lines that are kept.
pub const LINES_MAX: usize = 512;
/// Bytes of them together: what fits one answer of the control socket, and hours of an agent in trouble.
pub const BYTES_MAX: usize = 64 << 10;

static RECENT: Mutex<Recent> = Mutex::new(Recent { lines: VecDeque::new(), bytes: 0, last: 0 });

/// See the module.
#[derive(Debug, Default)]
struct Recent {
    lines: VecDeque<String>,
    bytes: usize,
    /// Number of the newest line.
    last: u64,
}

impl Recent {
    fn note(&mut self, line: &str) {
        let line = &line[..line.floor_char_boundary(BYTES_MAX / 8)];
        self.lines.push_back(line.to_owned());
        self.bytes += line.len();
        self.last += 1;
        while self.lines.len() > LINES_MAX || self.bytes > BYTES_MAX {
            let Some(oldest) = self.lines.pop_front() else { break };
            self.bytes -= oldest.len();
        }
    }

    fn after(&self, number: u64) -> (Vec<String>, u64) {
        let new = usize::try_from(self.last.saturating_sub(number)).unwrap_or(usize::MAX);
        let skip = self.lines.len().saturating_sub(new);
        (self.lines.iter().skip(skip).cloned().collect(), self.last)
    }
}

/// Keeps a line.
pub fn note(line: &str) {
    RECENT.lock().unwrap_or_else(PoisonError::into_inner).note(line);
}

/// The lines that came after the one of this number, as far as they are kept, and the number of the newest.
pub fn after(number: u64) -> (Vec<String>, u64) {
    RECENT.lock().unwrap_or_else(PoisonError::into_inner).after(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_lines_are_kept() {
        let mut recent = Recent::default();
        assert_eq!(recent.after(0), (vec![], 0));
        (1..=1000).for_each(|number| recent.note(&format!("line {number}")));
        assert_eq!(recent.after(998), (vec!["line 999".to_owned(), "line 1000".to_owned()], 1000));
        assert_eq!(recent.after(1000), (vec![], 1000));
        assert_eq!(recent.after(2000), (vec![], 1000));
        let (lines, _) = recent.after(0);
        assert_eq!((lines.len(), lines[0].as_str()), (LINES_MAX, "line 489"));
        (0..100).for_each(|_| recent.note(&"ä".repeat(BYTES_MAX)));
        assert!(
            recent.bytes <= BYTES_MAX && recent.lines.iter().map(String::len).sum::<usize>() == recent.bytes
        );
    }
}
