//! Identities: newtypes for every number that could be taken for another one, and their spelling in object names.
//!
//! Invariants: an [`ObjectId`] is never used twice (its boot number is random, 64 bits); epochs and slots only grow.
//! Does not: draw random numbers or talk to anyone. Source: `agent/doc/commit-log.md`, Keys.

use std::fmt;

/// A lease grant, and the fencing token: `1..`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(pub u64);

/// A position in the commit log: `1..`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(pub u64);

/// A node of the cluster: `0..`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub u32);

/// One start of one process: random, never reused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Boot(pub u64);

/// A backup, numbered through the whole repository in the order of their "backup begun" records: `1..`. Every row says
/// which backup wrote it; a recovery point is a cut: rows of backups up to its own number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BackupId(pub u32);

/// A volume of a policy, numbered through the whole repository: `1..`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VolumeId(pub u32);

/// Logical inode: identifies an item cluster-wide. Orders by volume, then inode.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lin {
    /// The volume it lives on.
    pub volume: VolumeId,
    /// Its inode number there.
    pub inode: u64,
}

/// A position in a volume's key order: (inode, block). All that is written of a volume is ordered by it, an item's own row behind
/// its last block.
pub type Key = (u64, u64);
/// Before every item.
pub const KEY_START: Key = (0, 0);
/// Past every item.
pub const KEY_END: Key = (u64::MAX, 0);

/// Name of an immutable object of ours: an upload object (`obj/`) or a table segment (`seg/`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectId {
    /// Epoch under which it was written.
    pub epoch: Epoch,
    /// Node that wrote it.
    pub node: NodeId,
    /// Process that wrote it.
    pub boot: Boot,
    /// Counter within that process, objects and segments together: `0..`.
    pub count: u32,
}

/// Encoded size of an [`ObjectId`] in bytes: epoch 8, node 4, boot 8, count 4, little-endian.
pub const OBJECT_ID_BYTES: usize = 24;

impl ObjectId {
    /// Little-endian fields in order.
    pub fn to_bytes(&self) -> [u8; OBJECT_ID_BYTES] {
        let mut out = [0; OBJECT_ID_BYTES];
        out[..8].copy_from_slice(&self.epoch.0.to_le_bytes());
        out[8..12].copy_from_slice(&self.node.0.to_le_bytes());
        out[12..20].copy_from_slice(&self.boot.0.to_le_bytes());
        out[20..].copy_from_slice(&self.count.to_le_bytes());
        out
    }

    /// Inverse of [`ObjectId::to_bytes`]; every value is valid.
    pub fn from_bytes(bytes: &[u8; OBJECT_ID_BYTES]) -> ObjectId {
        let long = |at: usize| {
            bytes[at..at + 8].iter().rev().fold(0u64, |value, &byte| value << 8 | u64::from(byte))
        };
        let short = |at: usize| {
            bytes[at..at + 4].iter().rev().fold(0u32, |value, &byte| value << 8 | u32::from(byte))
        };
        ObjectId { epoch: Epoch(long(0)), node: NodeId(short(8)), boot: Boot(long(12)), count: short(20) }
    }

    /// Key in the store below the repository's prefix: `obj/<epoch>/<node>-<boot>/<count>`.
    pub fn object_key(&self) -> String {
        format!("obj/{self}")
    }

    /// Key of a segment: `seg/<epoch>/<node>-<boot>/<count>`.
    pub fn segment_key(&self) -> String {
        format!("seg/{self}")
    }
}

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:020}/{:08x}-{:016x}/{:08}", self.epoch.0, self.node.0, self.boot.0, self.count)
    }
}

impl std::str::FromStr for ObjectId {
    type Err = ();

    /// Parses what `Display` prints, exactly (no other spelling of the same numbers).
    fn from_str(text: &str) -> Result<ObjectId, ()> {
        let mut parts = text.split('/');
        let (Some(epoch), Some(writer), Some(count), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(());
        };
        let (node, boot) = writer.split_once('-').ok_or(())?;
        let id = ObjectId {
            epoch: Epoch(epoch.parse().map_err(drop)?),
            node: NodeId(u32::from_str_radix(node, 16).map_err(drop)?),
            boot: Boot(u64::from_str_radix(boot, 16).map_err(drop)?),
            count: count.parse().map_err(drop)?,
        };
        if id.to_string() == text { Ok(id) } else { Err(()) }
    }
}

macro_rules! display_number {
    ($($name:ident),*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    )*};
}
display_number!(Epoch, Slot, NodeId, BackupId, VolumeId);

impl fmt::Display for Lin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.volume, self.inode)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn object_ids_round_trip_through_bytes_and_text() {
        let id = ObjectId { epoch: Epoch(7), node: NodeId(3), boot: Boot(0x0102_0304_0506_0708), count: 9 };
        assert_eq!(ObjectId::from_bytes(&id.to_bytes()), id);
        assert_eq!(id.object_key(), "obj/00000000000000000007/00000003-0102030405060708/00000009");
        assert_eq!(id.to_string().parse(), Ok(id));
        assert!("7/3-1/9".parse::<ObjectId>().is_err());
        assert!(format!("{id}/").parse::<ObjectId>().is_err());
    }
}
