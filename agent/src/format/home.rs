//! The `home` object in a log store of its own: which repository this log belongs to. Create-only, never deleted.
//!
//! | offset | bytes | field | meaning |
//! |---|---|---|---|
//! | 0 | 8 | magic | "WINDHOME" |
//! | 8 | 2 | version | 1 |
//! | 10 | 2 | reserved | zero |
//! | 12 | 16 | uuid | the repository's, as in its `format` object |
//! | 28 | 4 | crc | CRC-32 (IEEE) of all bytes before |
//!
//! Little-endian. Written by `init` before the `format` object; read by every command that opens the repository. A log store that is
//! empty, or another repository's, must not be taken for a log that has not begun.
//!
//! Invariants: an unknown version is refused. Source: ours.

use super::fault::{FormatFault, FormatFaultKind};
use super::varint::Reader;

/// Its key in the log store.
pub const HOME_KEY: &str = "home";
/// Its size in bytes.
pub const HOME_BYTES: usize = 32;

const MAGIC: [u8; 8] = *b"WINDHOME";
const VERSION: u16 = 1;
const WHAT: &str = "home of the log";

/// The `home` object of the log of repository `uuid`.
pub fn emit(uuid: &[u8; 16]) -> [u8; HOME_BYTES] {
    let mut out = [0; HOME_BYTES];
    out[..8].copy_from_slice(&MAGIC);
    out[8..10].copy_from_slice(&VERSION.to_le_bytes());
    out[12..28].copy_from_slice(uuid);
    let crc = crc32fast::hash(&out[..28]);
    out[28..].copy_from_slice(&crc.to_le_bytes());
    out
}

/// The repository whose log is here.
///
/// # Errors
/// `NotOurs`, `Version`, or damage.
pub fn parse(bytes: &[u8]) -> Result<[u8; 16], FormatFault> {
    let mut r = Reader::new(bytes, WHAT);
    if r.array()? != MAGIC {
        return Err(FormatFault::new(WHAT, FormatFaultKind::NotOurs));
    }
    let version = r.u16_le()?;
    if version != VERSION {
        return Err(FormatFault::new(WHAT, FormatFaultKind::Version(version)));
    }
    let (reserved, uuid, crc) = (r.u16_le()?, r.array()?, r.u32_le()?);
    if reserved != 0 || !r.is_empty() || crc32fast::hash(&bytes[..28]) != crc {
        return Err(r.damaged("checksum or length"));
    }
    Ok(uuid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_as_its_table_says_and_every_flipped_byte_is_found() {
        let bytes = emit(&[0x11; 16]);
        assert_eq!(bytes[..12], *b"WINDHOME\x01\0\0\0");
        assert_eq!(bytes[12..28], [0x11; 16]);
        assert_eq!(parse(&bytes), Ok([0x11; 16]));
        for at in 0..bytes.len() {
            let mut bad = bytes;
            bad[at] ^= 1;
            assert!(parse(&bad).is_err() && parse(&bytes[..at]).is_err(), "{at}");
        }
        assert!(parse(&[&bytes[..], b"x"].concat()).is_err());
        let mut newer = bytes;
        newer[8] = 2;
        assert_eq!(parse(&newer).unwrap_err().kind, FormatFaultKind::Version(2));
    }
}
