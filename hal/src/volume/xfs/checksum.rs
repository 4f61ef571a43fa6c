//! Checksums of XFS metadata: CRC-32C over the whole structure with its checksum field counted as zero, stored little-endian
//! in a structure that is big-endian otherwise.
//!
//! ```text
//!  structure             checksum at  over
//!  superblock            224          its sector
//!  AGF, AGI              216, 312     its sector
//!  short btree block     52           its block (inobt, bnobt)
//!  long btree block      64           its block (bmbt)
//!  inode                 100          the inode
//!  directory data block  4            its directory block
//!  da node, attr leaf    12           its block
//!  remote symlink        12           its extent; remote value: its block
//!  log record            32           its headers up to byte 328, then its data as it is in the log
//! ```
//!
//! Source: kernel `fs/xfs/libxfs/xfs_cksum.h`, Documentation/filesystems/xfs.

use super::field::le32_at;

/// Bytes of a checksum.
const CRC_BYTES: usize = 4;

/// Whether the checksum at byte `at` of `bytes` is right.
pub(super) fn holds(bytes: &[u8], at: usize) -> bool {
    let Some((head, rest)) = bytes.split_at_checked(at) else { return false };
    let Some(rest) = rest.get(CRC_BYTES..) else { return false };
    let crc = crc32c(crc32c(crc32c(0, head), &[0; CRC_BYTES]), rest);
    crc == le32_at(bytes, at)
}

/// Continues a CRC-32C from `crc` (0 at the start) over `bytes`.
pub(super) fn crc32c(crc: u32, bytes: &[u8]) -> u32 {
    ::crc32c::crc32c_append(crc, bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_known_value_holds() {
        assert_eq!(crc32c(0, b"123456789"), 0xE306_9283);
        let mut bytes = b"ab....cdefgh".to_vec();
        let crc = crc32c(0, b"ab\0\0\0\0cdefgh");
        bytes[2..6].copy_from_slice(&crc.to_le_bytes());
        assert!(holds(&bytes, 2));
        bytes[7] ^= 1;
        assert!(!holds(&bytes, 2));
        assert!(!holds(&bytes, 9) && !holds(&bytes, 100) && !holds(&[], 0));
    }
}
