//! What keeps a recovery point from going too soon, and its way out of the repository.
//!
//! A record of the log has one part of one point; its fields after the point's backup (u32):
//!
//! | part u8 | what | fields |
//! |---|---|---|
//! | 1 | guard: the point stays until then, and can be brought back for so long after it expired | until i64, undo u64 |
//! | 2 | leave: it expires; or its time to be brought back is over, and it is gone | wall clock i64 |
//! | 3 | undo: it is brought back | |
//!
//! Times are wall clock, nanoseconds since 1970 UTC; lengths are nanoseconds. Invariants: one encoding. Does not: judge times
//! (`log::guard`). Source: ours.

use super::cursor::{Reader, Wire, WireFault};
use crate::id::BackupId;
use crate::wire_struct;

/// What a point's policy said when the point was made, or said later to keep it longer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Guard {
    /// The point does not expire before this time, wall clock in nanoseconds.
    pub until_ns: i64,
    /// For so long after it expired it can be brought back, in nanoseconds; 0: not at all.
    pub undo_ns: u64,
}
wire_struct!(Guard { until_ns: i64, undo_ns: u64 });

impl Guard {
    /// The longer of both in each part.
    #[must_use]
    pub fn or_longer(self, other: Guard) -> Guard {
        Guard { until_ns: self.until_ns.max(other.until_ns), undo_ns: self.undo_ns.max(other.undo_ns) }
    }
}

/// One part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum GuardPart {
    /// It is guarded from now on, at least so.
    Guard(Guard),
    /// It expires; or it is gone, when it had expired and its time to be brought back is over.
    Leave {
        /// Wall clock of who decides, in nanoseconds.
        wall_ns: i64,
    },
    /// It had expired, and is brought back.
    Undo,
}

/// A record of the log: one part of one point.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PointGuard {
    /// The point.
    pub backup: BackupId,
    /// What.
    pub part: GuardPart,
}

impl PointGuard {
    pub(crate) fn emit(&self, out: &mut Vec<u8>) {
        self.backup.emit(out);
        match &self.part {
            GuardPart::Guard(guard) => {
                out.push(1);
                guard.emit(out);
            }
            GuardPart::Leave { wall_ns } => {
                out.push(2);
                wall_ns.emit(out);
            }
            GuardPart::Undo => out.push(3),
        }
    }

    pub(crate) fn parse(fields: &mut Reader<'_>) -> Result<PointGuard, WireFault> {
        let backup = fields.value()?;
        let part = match fields.value::<u8>()? {
            1 => GuardPart::Guard(fields.value()?),
            2 => GuardPart::Leave { wall_ns: fields.value()? },
            3 => GuardPart::Undo,
            _ => return Err(WireFault::Value),
        };
        Ok(PointGuard { backup, part })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guards_are_these_bytes() {
        let guard = Guard { until_ns: 2, undo_ns: 3 };
        let head = [7, 0, 0, 0];
        for (part, golden) in [
            (GuardPart::Guard(guard), &[1, 2, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0][..]),
            (GuardPart::Leave { wall_ns: -1 }, &[2, 255, 255, 255, 255, 255, 255, 255, 255]),
            (GuardPart::Undo, &[3]),
        ] {
            let record = PointGuard { backup: BackupId(7), part };
            let mut bytes = Vec::new();
            record.emit(&mut bytes);
            assert_eq!(bytes, [&head[..], golden].concat());
            assert_eq!(PointGuard::parse(&mut Reader::new(&bytes)), Ok(record));
        }
        assert_eq!(PointGuard::parse(&mut Reader::new(&[7, 0, 0, 0, 4])), Err(WireFault::Value));
    }
}
