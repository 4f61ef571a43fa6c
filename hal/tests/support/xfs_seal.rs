//! Makes the checksum of a changed XFS structure right again, so that the rules behind the checksums are what is tested.
//!
//! Knows the structures by their magic numbers, not by the reader's code. Shared with the fuzz targets. Source: kernel
//! `fs/xfs/libxfs/xfs_format.h`, `xfs_da_format.h`.

/// Bytes of a sector in the images that are sealed.
const SECTOR_BYTES: usize = 512;
/// Place of the checksum behind a structure's magic number.
const BLOCKS: [(&[u8], usize, usize); 13] = [
    (b"AB3B", 0, 52),
    (b"AB3C", 0, 52),
    (b"IAB3", 0, 52),
    (b"FIB3", 0, 52),
    (b"BMA3", 0, 64),
    (b"XDB3", 0, 4),
    (b"XDD3", 0, 4),
    (b"XSLM", 0, 12),
    (b"XARM", 0, 12),
    (&[0x3B, 0xEE], 8, 12),
    (&[0x3E, 0xBE], 8, 12),
    (&[0x3D, 0xF1], 8, 12),
    (&[0x3D, 0xFF], 8, 12),
];

/// CRC-32C of each byte value: the harness's own.
const TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut i = 0;
    while i < 256 {
        let mut crc = i as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = crc >> 1 ^ if crc & 1 == 1 { 0x82F6_3B78 } else { 0 };
            bit += 1;
        }
        table[i] = crc;
        i += 1;
    }
    table
};

fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, &byte| crc >> 8 ^ TABLE[(crc as u8 ^ byte) as usize])
}

/// Writes the checksum at `at` of a structure.
fn seal(structure: &mut [u8], at: usize) {
    structure[at..at + 4].fill(0);
    let crc = crc32c(structure);
    structure[at..at + 4].copy_from_slice(&crc.to_le_bytes());
}

/// Seals what byte `at` of `image` is in: a header sector, an inode of `inode_bytes`, or a block of `block_bytes`; directory
/// blocks of one block. Bytes of a log record, of data and of anything else are left alone.
pub fn seal_at(image: &mut [u8], at: usize, block_bytes: usize, inode_bytes: usize) {
    let sector = at / SECTOR_BYTES * SECTOR_BYTES;
    for (magic, crc_at) in [(b"XFSB", 224), (b"XAGF", 216), (b"XAGI", 312), (b"XAFL", 32)] {
        if image[sector..].starts_with(magic) && sector + SECTOR_BYTES <= image.len() {
            return seal(&mut image[sector..sector + SECTOR_BYTES], crc_at);
        }
    }
    let block = at / block_bytes * block_bytes;
    for (magic, magic_at, crc_at) in BLOCKS {
        if block + block_bytes <= image.len() && image[block + magic_at..].starts_with(magic) {
            return seal(&mut image[block..block + block_bytes], crc_at);
        }
    }
    let inode = at / inode_bytes * inode_bytes;
    if inode + inode_bytes <= image.len() && image[inode..].starts_with(b"IN") {
        seal(&mut image[inode..inode + inode_bytes], 100);
    }
}
