//! Removals that need a second subject: asked for by one, approved or withdrawn by another.
//!
//! A record of the log has one part:
//!
//! | part u8 | what | fields |
//! |---|---|---|
//! | 1 | asked: a subject asks for the records | subject text, wall clock i64, not before i64, records bytes |
//! | 2 | approved: the records follow in the slot | request u64, subject text |
//! | 3 | withdrawn | request u64, subject text |
//!
//! A request is known by the slot that asks for it. Records are such as [`emit_records`] writes. Invariants: one encoding. Does not: decide
//! what needs approval, or who approves (`coordinator::approval`). Source: ours.

use super::access::SUBJECT_BYTES_MAX;
use super::cursor::{Reader, Wire, WireFault, emit_bytes};
use super::record::{Record, emit_records, parse_records};
use crate::id::Slot;
use crate::log::limits::SLOT_RECORDS_MAX;

/// Bytes of the records that one request asks for: some hundred points, or a change of a policy with all its patterns.
pub const REMOVAL_BYTES_MAX: usize = 20 * 1024;

/// Records that one request asks for: with its approval they fit a slot.
pub const REMOVAL_RECORDS_MAX: usize = SLOT_RECORDS_MAX - 8;

/// A request.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Asked {
    /// Who asks.
    pub subject: String,
    /// When, wall clock in nanoseconds.
    pub wall_ns: i64,
    /// It may be approved from then on.
    pub not_before_ns: i64,
    /// What is done when it is approved.
    pub records: Vec<Record>,
}

/// A record of the log.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum RemovalNews {
    /// See [`Asked`].
    Asked(Box<Asked>),
    /// It is done: its records follow.
    Approved {
        /// Which.
        request: Slot,
        /// Who approves.
        subject: String,
    },
    /// It is not done.
    Withdrawn {
        /// Which.
        request: Slot,
        /// Who takes it back.
        subject: String,
    },
}

impl Asked {
    /// As bytes.
    pub(crate) fn emit(&self, out: &mut Vec<u8>) {
        emit_bytes(out, self.subject.as_bytes());
        self.wall_ns.emit(out);
        self.not_before_ns.emit(out);
        let mut records = Vec::new();
        emit_records(&self.records, &mut records);
        emit_bytes(out, &records);
    }

    /// Inverse of [`Asked::emit`].
    ///
    /// # Errors
    /// It is none, or asks for a removal in turn.
    pub(crate) fn parse(fields: &mut Reader<'_>) -> Result<Asked, WireFault> {
        let (subject, wall_ns) = (fields.text(SUBJECT_BYTES_MAX)?, fields.value()?);
        let not_before_ns = fields.value()?;
        let bytes = fields.bytes(REMOVAL_BYTES_MAX)?;
        // A request within a request would be parsed within it, and so on.
        let (mut kinds, mut nested) = (Reader::new(bytes), false);
        while !kinds.is_empty() {
            let kind: u8 = kinds.value()?;
            let length: u32 = kinds.value()?;
            kinds.take(usize::try_from(length).map_err(|_| WireFault::Count(length))?)?;
            nested |= kind == super::record::REMOVAL_KIND;
        }
        let records = if nested { return Err(WireFault::Value) } else { parse_records(bytes)? };
        if records.len() > REMOVAL_RECORDS_MAX {
            return Err(WireFault::Count(u32::try_from(records.len()).unwrap_or(u32::MAX)));
        }
        Ok(Asked { subject, wall_ns, not_before_ns, records })
    }
}

impl RemovalNews {
    pub(crate) fn emit(&self, out: &mut Vec<u8>) {
        match self {
            RemovalNews::Asked(asked) => {
                out.push(1);
                asked.emit(out);
            }
            RemovalNews::Approved { request, subject } => {
                out.push(2);
                request.emit(out);
                emit_bytes(out, subject.as_bytes());
            }
            RemovalNews::Withdrawn { request, subject } => {
                out.push(3);
                request.emit(out);
                emit_bytes(out, subject.as_bytes());
            }
        }
    }

    pub(crate) fn parse(fields: &mut Reader<'_>) -> Result<RemovalNews, WireFault> {
        Ok(match fields.value::<u8>()? {
            1 => RemovalNews::Asked(Box::new(Asked::parse(fields)?)),
            2 => RemovalNews::Approved { request: fields.value()?, subject: fields.text(SUBJECT_BYTES_MAX)? },
            3 => {
                RemovalNews::Withdrawn { request: fields.value()?, subject: fields.text(SUBJECT_BYTES_MAX)? }
            }
            _ => return Err(WireFault::Value),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::BackupId;

    fn asked(records: Vec<Record>) -> RemovalNews {
        let subject = "uid:7".to_owned();
        RemovalNews::Asked(Box::new(Asked { subject, wall_ns: 3, not_before_ns: 4, records }))
    }

    #[test]
    fn records_are_these_bytes() {
        let subject = || "uid:7".to_owned();
        let name = [&[5, 0, 0, 0][..], b"uid:7"].concat();
        for (news, bytes) in [
            (
                asked(vec![Record::PointExpired { backup: BackupId(9) }]),
                [
                    &[1][..],
                    &name,
                    &[3, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0],
                    &[9, 0, 0, 0, 9, 4, 0, 0, 0, 9, 0, 0, 0],
                ]
                .concat(),
            ),
            (
                RemovalNews::Approved { request: Slot(8), subject: subject() },
                [&[2, 8, 0, 0, 0, 0, 0, 0, 0][..], &name].concat(),
            ),
            (
                RemovalNews::Withdrawn { request: Slot(8), subject: subject() },
                [&[3, 8, 0, 0, 0, 0, 0, 0, 0][..], &name].concat(),
            ),
        ] {
            let mut out = Vec::new();
            news.emit(&mut out);
            assert_eq!(out, bytes);
            let mut reader = Reader::new(&bytes);
            assert_eq!(RemovalNews::parse(&mut reader), Ok(news));
            assert!(reader.is_empty());
        }
    }

    #[test]
    fn no_request_asks_for_a_request() {
        let inner = asked(vec![Record::PointExpired { backup: BackupId(9) }]);
        let mut out = Vec::new();
        asked(vec![Record::Removal(inner)]).emit(&mut out);
        assert_eq!(RemovalNews::parse(&mut Reader::new(&out)), Err(WireFault::Value));
    }
}
