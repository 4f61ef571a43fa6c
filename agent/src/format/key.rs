//! Keys of rows: one shape and one order for all kinds.
//!
//! | kind | lin | base | backup | run, name |
//! |---|---|---|---|---|
//! | item | the item | 0 | greatest first | 0, empty |
//! | name | the directory | 0 | greatest first | the run, the name's bytes |
//! | location | the item | first block | greatest first | 0, empty |
//! | entry | the item | the block | greatest first | 0, empty |
//!
//! Order: lin, base, backup descending, run, name. So at one place the newest row comes first, and a read at a cut P seeks to
//! backup P and takes what it finds.
//!
//! Does not: mix kinds; a key has a meaning only with its kind. Source: ours.

use std::cmp::Ordering;

use super::fault::FormatFault;
use super::varint::{self, Reader};
use crate::id::{BackupId, Lin, VolumeId};
use crate::limits::NAME_BYTES_MAX;

/// A borrowed key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyRef<'a> {
    /// The item or directory.
    pub lin: Lin,
    /// First block; 0 for items and names.
    pub base: u64,
    /// Which backup wrote the row.
    pub backup: BackupId,
    /// Part of the listing; 0 but for names.
    pub run: u32,
    /// The name; empty but for names.
    pub name: &'a [u8],
}

/// An owned key. Allocates for names only.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RowKey {
    /// The item or directory.
    pub lin: Lin,
    /// First block; 0 for items and names.
    pub base: u64,
    /// Which backup wrote the row.
    pub backup: BackupId,
    /// Part of the listing; 0 but for names.
    pub run: u32,
    /// The name; empty but for names.
    pub name: Vec<u8>,
}

/// The greatest backup number: as a key it sorts before every row of its place.
pub const BACKUP_NEWEST: BackupId = BackupId(u32::MAX);

impl<'a> KeyRef<'a> {
    /// The first key that rows of `lin` can have.
    pub fn first_of(lin: Lin) -> KeyRef<'static> {
        KeyRef::at(lin, 0, BACKUP_NEWEST)
    }

    /// The first key at (lin, base) of rows of backups up to `backup`.
    pub fn at(lin: Lin, base: u64, backup: BackupId) -> KeyRef<'static> {
        KeyRef { lin, base, backup, run: 0, name: &[] }
    }

    /// Copies it.
    pub fn to_owned(&self) -> RowKey {
        RowKey {
            lin: self.lin,
            base: self.base,
            backup: self.backup,
            run: self.run,
            name: self.name.to_vec(),
        }
    }
}

impl Ord for KeyRef<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.lin.cmp(&other.lin))
            .then(self.base.cmp(&other.base))
            .then(other.backup.cmp(&self.backup))
            .then(self.run.cmp(&other.run))
            .then_with(|| self.name.cmp(other.name))
    }
}

impl PartialOrd for KeyRef<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl RowKey {
    /// Borrows it.
    pub fn as_ref(&self) -> KeyRef<'_> {
        KeyRef { lin: self.lin, base: self.base, backup: self.backup, run: self.run, name: &self.name }
    }

    /// Makes it equal to `key`, keeping its memory.
    pub fn set(&mut self, key: KeyRef<'_>) {
        self.lin = key.lin;
        self.base = key.base;
        self.backup = key.backup;
        self.run = key.run;
        self.name.clear();
        self.name.extend_from_slice(key.name);
    }

    /// Appends it: varints volume, inode, base, backup, run, then the name with its length. At most 292 bytes.
    pub fn emit(&self, out: &mut Vec<u8>) {
        varint::put(out, self.lin.volume.0.into());
        varint::put(out, self.lin.inode);
        varint::put(out, self.base);
        varint::put(out, self.backup.0.into());
        varint::put(out, self.run.into());
        varint::put_bytes(out, &self.name);
    }

    /// Inverse of [`RowKey::emit`].
    pub fn parse(reader: &mut Reader<'_>) -> Result<RowKey, FormatFault> {
        Ok(RowKey {
            lin: Lin { volume: VolumeId(reader.u32()?), inode: reader.u64()? },
            base: reader.u64()?,
            backup: BackupId(reader.u32()?),
            run: reader.u32()?,
            name: reader.bytes(NAME_BYTES_MAX)?.to_vec(),
        })
    }
}

/// Most bytes of an emitted key.
pub const KEY_BYTES_MAX: usize = 5 + 10 + 10 + 5 + 5 + 2 + NAME_BYTES_MAX;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_order_by_place_then_newest_first() {
        let lin = |inode| Lin { volume: VolumeId(1), inode };
        let name = |backup, run, name| KeyRef { lin: lin(5), base: 0, backup: BackupId(backup), run, name };
        let ascending = [
            KeyRef::at(lin(4), 9, BackupId(1)),
            KeyRef::first_of(lin(5)),
            name(3, 0, b"z"),
            name(2, 0, b"a"),
            name(2, 0, b"ab"),
            name(2, 1, b"a"),
            KeyRef::at(lin(5), 10, BackupId(2)),
            KeyRef::at(lin(5), 10, BackupId(1)),
            KeyRef::first_of(lin(6)),
        ];
        assert!(ascending.is_sorted_by(|a, b| a < b));
        for key in ascending {
            let mut out = Vec::new();
            key.to_owned().emit(&mut out);
            assert_eq!(RowKey::parse(&mut Reader::new(&out, "key")).unwrap().as_ref(), key);
        }
    }
}
