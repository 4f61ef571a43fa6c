//! Checksums of ext4 metadata.
//!
//! ```text
//!  structure            algorithm   over
//!  superblock           crc32c      bytes 0..0x3FC, start value ~0
//!  group descriptor     crc32c      seed, group number, descriptor with its checksum zeroed; low 16 bits kept
//!    (gdt_csum)         crc16       UUID, group number, descriptor without its checksum
//!  bitmap               crc32c      seed, the bitmap's bytes
//!  inode                crc32c      seed, number, generation, inode with its checksum zeroed (= "inode seed" + rest)
//!  extent node          crc32c      inode seed, node up to the tail
//!  directory block      crc32c      inode seed, block up to the tail
//!  htree node           crc32c      inode seed, entries in use, tail with its checksum zeroed
//!  attribute block      crc32c      seed, 64-bit block number, block with its checksum zeroed
//!  attribute inode      crc32c      seed, the value
//!
//!  seed = s_checksum_seed (metadata_csum_seed) or crc32c(~0, UUID)
//! ```
//!
//! These are the kernel's running values: start value as given, no final inversion.
//!
//! Does not: know where the parts are; each structure's file does. Source: kernel
//! Documentation/filesystems/ext4 (checksums.rst), `lib/crc16.c`.

/// Continues a CRC-32C as the kernel does, from `crc` over `bytes`.
pub(super) fn crc32c(crc: u32, bytes: &[u8]) -> u32 {
    !::crc32c::crc32c_append(!crc, bytes)
}

/// CRC-32C over `bytes` in which `len` bytes at `at` count as zero.
pub(super) fn crc32c_without(crc: u32, bytes: &[u8], at: usize, len: usize) -> u32 {
    const ZERO: [u8; 4] = [0; 4];
    let at = at.min(bytes.len());
    let len = len.min(bytes.len() - at).min(ZERO.len());
    let crc = crc32c(crc, &bytes[..at]);
    let crc = crc32c(crc, &ZERO[..len]);
    crc32c(crc, &bytes[at + len..])
}

/// Continues a CRC-16 (reflected 0x8005) from `crc` over `bytes`. Only group descriptors use it, so it goes bit by bit.
pub(super) fn crc16(crc: u16, bytes: &[u8]) -> u16 {
    bytes.iter().fold(crc, |crc, &byte| {
        (0..8).fold(crc ^ u16::from(byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xA001 } else { crc >> 1 })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_values() {
        assert_eq!(!crc32c(!0, b"123456789"), 0xE306_9283);
        assert_eq!(crc16(0, b"123456789"), 0xBB3D);
    }

    #[test]
    fn a_skipped_field_counts_as_zero() {
        assert_eq!(crc32c_without(7, b"abXYcd", 2, 2), crc32c(7, b"ab\0\0cd"));
        assert_eq!(crc32c_without(7, b"abX", 2, 4), crc32c(7, b"ab\0"));
    }
}
