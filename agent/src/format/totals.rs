//! What a backup did, in numbers, and how it went: fields of records. Source: ours.

use super::cursor::{Reader, Wire, WireFault};
use crate::wire_struct;

/// How a backup went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PointStatus {
    /// Everything was read.
    #[default]
    Complete,
    /// Some items, blocks or volumes could not be read; rows and records name them.
    WithErrors,
}

impl Wire for PointStatus {
    const BYTES_MIN: usize = 1;
    fn emit(&self, out: &mut Vec<u8>) {
        out.push(match self {
            PointStatus::Complete => 1,
            PointStatus::WithErrors => 2,
        });
    }
    fn parse(reader: &mut Reader<'_>) -> Result<Self, WireFault> {
        match reader.value::<u8>()? {
            1 => Ok(PointStatus::Complete),
            2 => Ok(PointStatus::WithErrors),
            _ => Err(WireFault::Value),
        }
    }
}

/// What a backup did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Totals {
    /// Items in the point.
    pub items: u64,
    /// Items whose rows this backup wrote.
    pub items_changed: u64,
    /// Items found deleted.
    pub items_deleted: u64,
    /// Bytes of all items.
    pub bytes_logical: u64,
    /// Bytes read from devices.
    pub bytes_read: u64,
    /// Bytes of blocks that the tables had already.
    pub bytes_reused: u64,
    /// Bytes put into upload objects.
    pub bytes_stored: u64,
    /// Number of upload objects stored.
    pub objects: u64,
    /// Number of segments stored.
    pub segments: u64,
    /// Items and blocks that could not be read.
    pub faults: u64,
}
wire_struct!(Totals {
    items: u64,
    items_changed: u64,
    items_deleted: u64,
    bytes_logical: u64,
    bytes_read: u64,
    bytes_reused: u64,
    bytes_stored: u64,
    objects: u64,
    segments: u64,
    faults: u64,
});

impl Totals {
    /// The sum of both. What would not fit a number stays at its end: totals are for people.
    pub fn plus(&self, other: &Totals) -> Totals {
        Totals {
            items: self.items.saturating_add(other.items),
            items_changed: self.items_changed.saturating_add(other.items_changed),
            items_deleted: self.items_deleted.saturating_add(other.items_deleted),
            bytes_logical: self.bytes_logical.saturating_add(other.bytes_logical),
            bytes_read: self.bytes_read.saturating_add(other.bytes_read),
            bytes_reused: self.bytes_reused.saturating_add(other.bytes_reused),
            bytes_stored: self.bytes_stored.saturating_add(other.bytes_stored),
            objects: self.objects.saturating_add(other.objects),
            segments: self.segments.saturating_add(other.segments),
            faults: self.faults.saturating_add(other.faults),
        }
    }

    /// How a backup with these totals went.
    pub fn status(&self) -> PointStatus {
        if self.faults == 0 { PointStatus::Complete } else { PointStatus::WithErrors }
    }
}
