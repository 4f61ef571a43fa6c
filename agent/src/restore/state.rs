//! The state of a restore that has not ended: a file in its staging directory, beside files that are written in part.
//!
//! | bytes | of the file `state` |
//! |---|---|
//! | 0..8 | `WLRESTO1` |
//! | 8..12 | volume, little-endian |
//! | 12..16 | recovery point, little-endian |
//! | 16..32 | digest of the selection: paths, options that change what is written, name of a new image file |
//! | 32..48 | digest, with the repository's key, of what is before it |
//!
//! | file in the staging directory | what |
//! |---|---|
//! | `state` | the table above |
//! | `41234p` | inode 41234 of the volume, written in part |
//!
//! A restore that begins takes the parts of one that ended early only when that one was of the same point and selection; it believes
//! nothing of them: each block is read and compared by digest before it counts as there ([`compare`](super::compare)).
//!
//! Invariants: only who has the repository's key can make a state file. A damaged, foreign or planted one is ignored and named.
//! Does not: list what is done: names that are there say so. Source: ours.

use std::fmt;

use crate::format::row::Digest;
use crate::format::seal::Keys;
use crate::id::{BackupId, VolumeId};

/// Name of the file in the staging directory.
pub const STATE_NAME: &str = "state";
/// Bytes of the file.
pub const STATE_BYTES: usize = 48;
const MAGIC: &[u8; 8] = b"WLRESTO1";
const SELECTION: std::ops::Range<usize> = 16..32;
const BODY_BYTES: usize = 32;

/// What a restore is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unfinished {
    /// Volume.
    pub volume: VolumeId,
    /// Recovery point.
    pub point: BackupId,
    /// Digest of what was selected of it.
    pub selection: Digest,
}

/// Why a state file is ignored. `Display` says so to people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ignored {
    /// It has another size or beginning.
    NoState,
    /// Its digest is another one: damaged, or of another repository, or made by another process.
    Digest,
    /// It is of another point.
    Point(BackupId),
    /// It is of another volume, or of other paths or options.
    Selection,
}

impl fmt::Display for Ignored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Ignored::NoState => f.write_str("its state file is damaged"),
            Ignored::Digest => f.write_str("its state file is damaged, or not of this repository"),
            Ignored::Point(point) => write!(f, "it was of point {point}"),
            Ignored::Selection => {
                f.write_str("it was of another volume, of other paths, or with other options")
            }
        }
    }
}

impl Unfinished {
    /// Of a `point`; `parts` are whatever tells selections apart, in a fixed order.
    pub fn new<'a>(
        volume: VolumeId,
        point: BackupId,
        parts: impl IntoIterator<Item = &'a [u8]>,
        keys: &Keys,
    ) -> Unfinished {
        let mut digester = keys.digester();
        for part in parts {
            digester.update(&(part.len() as u64).to_le_bytes());
            digester.update(part);
        }
        Unfinished { volume, point, selection: digester.finish() }
    }

    /// The file's bytes.
    pub fn encode(&self, keys: &Keys) -> [u8; STATE_BYTES] {
        let mut out = [0; STATE_BYTES];
        out[..8].copy_from_slice(MAGIC);
        out[8..12].copy_from_slice(&self.volume.0.to_le_bytes());
        out[12..16].copy_from_slice(&self.point.0.to_le_bytes());
        out[SELECTION].copy_from_slice(&self.selection);
        let digest = keys.digest(&out[..BODY_BYTES]);
        out[BODY_BYTES..].copy_from_slice(&digest);
        out
    }

    /// Whether a file's bytes are the state of this restore.
    pub fn claims(&self, bytes: &[u8], keys: &Keys) -> Result<(), Ignored> {
        let bytes: &[u8; STATE_BYTES] = bytes.try_into().map_err(|_| Ignored::NoState)?;
        if !bytes.starts_with(MAGIC) {
            return Err(Ignored::NoState);
        }
        if keys.digest(&bytes[..BODY_BYTES])[..] != bytes[BODY_BYTES..] {
            return Err(Ignored::Digest);
        }
        let own = self.encode(keys);
        if bytes[12..16] != own[12..16] {
            let mut point = [0; 4];
            point.copy_from_slice(&bytes[12..16]);
            return Err(Ignored::Point(BackupId(u32::from_le_bytes(point))));
        }
        if *bytes == own { Ok(()) } else { Err(Ignored::Selection) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::seal::{Sealing, Secret};

    #[test]
    fn only_the_same_restore_claims_a_state() {
        let keys = Keys::new(&Secret::new([3; 32]), Sealing::Off);
        let of = |volume, point, parts: &[&[u8]]| {
            Unfinished::new(VolumeId(volume), BackupId(point), parts.iter().copied(), &keys)
        };
        let own = of(1, 7, &[b"a", b"bc"]);
        let bytes = own.encode(&keys);
        assert_eq!(own.claims(&bytes, &keys), Ok(()));
        assert_eq!(of(1, 8, &[b"a", b"bc"]).claims(&bytes, &keys), Err(Ignored::Point(BackupId(7))));
        assert_eq!(of(2, 7, &[b"a", b"bc"]).claims(&bytes, &keys), Err(Ignored::Selection));
        assert_eq!(of(1, 7, &[b"ab", b"c"]).claims(&bytes, &keys), Err(Ignored::Selection));
        let other = Keys::new(&Secret::new([4; 32]), Sealing::Off);
        assert_eq!(own.claims(&own.encode(&other), &keys), Err(Ignored::Digest));
        for len in [0, 1, STATE_BYTES - 1] {
            assert_eq!(own.claims(&bytes[..len], &keys), Err(Ignored::NoState));
        }
        for at in 0..STATE_BYTES {
            let mut damaged = bytes;
            damaged[at] ^= 0x40;
            assert!(own.claims(&damaged, &keys).is_err(), "byte {at}");
        }
    }

    #[test]
    fn the_layout_is_that_of_the_table() {
        let keys = Keys::new(&Secret::new([3; 32]), Sealing::Off);
        let selection = [9; 16];
        let bytes = Unfinished { volume: VolumeId(0x0102), point: BackupId(0x0304), selection }.encode(&keys);
        assert_eq!(bytes[..16], *b"WLRESTO1\x02\x01\0\0\x04\x03\0\0");
        assert_eq!(bytes[16..32], [9; 16]);
        assert_eq!(bytes[32..], keys.digest(&bytes[..32]));
    }
}
