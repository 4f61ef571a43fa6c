//! What people say of a recovery point: that it is held, a note, tags.
//!
//! A record of the log changes one part of one point's mark; its fields after the point's backup (u32):
//!
//! | part u8 | what | field |
//! |---|---|---|
//! | 1 | hold | text, why; empty: held no more |
//! | 2 | note | text; empty: none |
//! | 3 | tags | count u32, then each as text, ascending |
//!
//! Invariants: one encoding; tags ascend. Does not: say what a hold means (`log::state` refuses to
//! expire a held point). Source: ours.

use std::collections::BTreeSet;

use super::cursor::{Reader, Wire, WireFault, emit_bytes};
use crate::id::BackupId;

/// Bytes of a note, and of the reason of a hold: a line or two.
pub const MARK_TEXT_BYTES_MAX: usize = 256;
/// Tags of a point, and of one list in a retention rule.
pub const TAGS_MAX: usize = 16;
/// Bytes of a tag.
pub const TAG_BYTES_MAX: usize = 64;

/// Whether a point may have this tag.
#[must_use]
pub fn is_tag(tag: &str) -> bool {
    (1..=TAG_BYTES_MAX).contains(&tag.len())
        && tag.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-:=".contains(&b))
}

/// All that is said of a point.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Mark {
    /// Why it is held; empty: it is not.
    pub hold: String,
    /// A note; empty: none.
    pub note: String,
    /// Tags, ascending.
    pub tags: Vec<String>,
}

/// One part of a mark, as it is from now on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum MarkPart {
    /// Why the point is held; empty: held no more.
    Hold(String),
    /// The note; empty: none.
    Note(String),
    /// The tags, ascending.
    Tags(Vec<String>),
}

impl Mark {
    /// Whether the point is held.
    #[must_use]
    pub fn is_held(&self) -> bool {
        !self.hold.is_empty()
    }

    /// Changes a part.
    pub fn change(&mut self, part: &MarkPart) {
        match part {
            MarkPart::Hold(why) => self.hold.clone_from(why),
            MarkPart::Note(note) => self.note.clone_from(note),
            MarkPart::Tags(tags) => self.tags.clone_from(tags),
        }
    }

    /// The parts that say something.
    pub fn parts(&self) -> impl Iterator<Item = MarkPart> {
        let hold = (!self.hold.is_empty()).then(|| MarkPart::Hold(self.hold.clone()));
        let note = (!self.note.is_empty()).then(|| MarkPart::Note(self.note.clone()));
        let tags = (!self.tags.is_empty()).then(|| MarkPart::Tags(self.tags.clone()));
        hold.into_iter().chain(note).chain(tags)
    }
}

impl MarkPart {
    /// A point's tags in their order; `None`: too many, or one that no point may have.
    #[must_use]
    pub fn tags(tags: impl IntoIterator<Item = String>) -> Option<MarkPart> {
        let tags: BTreeSet<String> = tags.into_iter().collect();
        let fit = tags.len() <= TAGS_MAX && tags.iter().all(|tag| is_tag(tag));
        fit.then(|| MarkPart::Tags(tags.into_iter().collect()))
    }

    pub(crate) fn emit(&self, out: &mut Vec<u8>) {
        match self {
            MarkPart::Hold(text) | MarkPart::Note(text) => {
                out.push(if matches!(self, MarkPart::Hold(_)) { 1 } else { 2 });
                emit_bytes(out, text.as_bytes());
            }
            MarkPart::Tags(tags) => {
                out.push(3);
                u32::try_from(tags.len()).unwrap_or(u32::MAX).emit(out);
                tags.iter().for_each(|tag| emit_bytes(out, tag.as_bytes()));
            }
        }
    }

    pub(crate) fn parse(fields: &mut Reader<'_>) -> Result<MarkPart, WireFault> {
        match fields.value::<u8>()? {
            1 => Ok(MarkPart::Hold(fields.text(MARK_TEXT_BYTES_MAX)?)),
            2 => Ok(MarkPart::Note(fields.text(MARK_TEXT_BYTES_MAX)?)),
            3 => {
                let count: u32 = fields.value()?;
                if count as usize > TAGS_MAX {
                    return Err(WireFault::Count(count));
                }
                let tags = (0..count).map(|_| fields.text(TAG_BYTES_MAX)).collect::<Result<Vec<_>, _>>()?;
                match MarkPart::tags(tags.iter().cloned()) {
                    Some(ordered) if ordered == MarkPart::Tags(tags) => Ok(ordered),
                    _ => Err(WireFault::Value),
                }
            }
            _ => Err(WireFault::Value),
        }
    }
}

/// A record of the log: one part of one point's mark.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PointMark {
    /// The point.
    pub backup: BackupId,
    /// What is said of it from now on.
    pub part: MarkPart,
}

impl PointMark {
    pub(crate) fn emit(&self, out: &mut Vec<u8>) {
        self.backup.emit(out);
        self.part.emit(out);
    }

    pub(crate) fn parse(fields: &mut Reader<'_>) -> Result<PointMark, WireFault> {
        Ok(PointMark { backup: fields.value()?, part: MarkPart::parse(fields)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(bytes: &[u8]) -> Result<PointMark, WireFault> {
        let mut fields = Reader::new(bytes);
        let mark = PointMark::parse(&mut fields)?;
        fields.finish()?;
        Ok(mark)
    }

    #[test]
    fn marks_are_these_bytes() {
        let tags = MarkPart::tags(["b".to_owned(), "a=1".to_owned(), "b".to_owned()]).unwrap();
        for (part, golden) in [
            (MarkPart::Hold("x".to_owned()), &[7, 0, 0, 0, 1, 1, 0, 0, 0, b'x'][..]),
            (MarkPart::Note(String::new()), &[7, 0, 0, 0, 2, 0, 0, 0, 0]),
            (tags, &[7, 0, 0, 0, 3, 2, 0, 0, 0, 3, 0, 0, 0, b'a', b'=', b'1', 1, 0, 0, 0, b'b']),
        ] {
            let mark = PointMark { backup: BackupId(7), part };
            let mut bytes = Vec::new();
            mark.emit(&mut bytes);
            assert_eq!(bytes, golden);
            assert_eq!(parse(&bytes), Ok(mark));
        }
    }

    #[test]
    fn what_no_point_may_have_is_refused() {
        assert_eq!(MarkPart::tags(["a b".to_owned()]), None);
        assert_eq!(MarkPart::tags((0..=TAGS_MAX).map(|n| n.to_string())), None);
        let out_of_order = [7, 0, 0, 0, 3, 2, 0, 0, 0, 1, 0, 0, 0, b'b', 1, 0, 0, 0, b'a'];
        let twice = [7, 0, 0, 0, 3, 2, 0, 0, 0, 1, 0, 0, 0, b'a', 1, 0, 0, 0, b'a'];
        for bytes in [&out_of_order[..], &twice, &[7, 0, 0, 0, 4]] {
            assert_eq!(parse(bytes), Err(WireFault::Value));
        }
        assert_eq!(parse(&[7, 0, 0, 0, 3, 17, 0, 0, 0]), Err(WireFault::Count(17)));
        let long =
            PointMark { backup: BackupId(7), part: MarkPart::Note("x".repeat(MARK_TEXT_BYTES_MAX + 1)) };
        let mut bytes = Vec::new();
        long.emit(&mut bytes);
        assert!(parse(&bytes).is_err());
    }
}
