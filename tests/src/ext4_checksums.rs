//! Makes the checksums of a broken ext4 image good again, so that a fuzzer gets past them to the rules behind.
//!
//! Follows the image as far as it makes sense: superblock, group descriptors and bitmaps, inodes, extent nodes, directory blocks with
//! a tail, attribute blocks. Bounded by [`NODES_MAX`]; what is odd is left as it is.
//!
//! Does not: care whether anything else is right. Source: kernel Documentation/filesystems/ext4 (checksums.rst).

/// Blocks that are visited at most.
const NODES_MAX: u32 = 512;
const METADATA_CSUM: u32 = 0x400;
const BITS64: u32 = 0x80;
const CSUM_SEED: u32 = 0x2000;
const SUPER: usize = 1024;

/// The image and what of its superblock is needed.
struct Image<'a> {
    bytes: &'a mut [u8],
    block_bytes: usize,
    seed: u32,
    left: u32,
}

fn crc(crc: u32, bytes: &[u8]) -> u32 {
    !crc32c::crc32c_append(!crc, bytes)
}

fn u16_at(bytes: &[u8], at: usize) -> usize {
    bytes.get(at..at + 2).map_or(0, |b| usize::from(u16::from_le_bytes([b[0], b[1]])))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).map_or(0, |b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]))
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    if let Some(place) = bytes.get_mut(at..at + value.len()) {
        place.copy_from_slice(value);
    }
}

/// Makes the checksums of `bytes` good, if it is an ext4 image with metadata_csum.
pub fn repair(bytes: &mut [u8]) {
    if bytes.len() < 4096 || u16_at(bytes, SUPER + 0x38) != 0xEF53 {
        return;
    }
    let raw = bytes[SUPER..SUPER + 1024].to_vec();
    let (incompat, log_block) = (u32_at(&raw, 0x60), u32_at(&raw, 0x18));
    if u32_at(&raw, 0x64) & METADATA_CSUM == 0 || log_block > 6 {
        return;
    }
    bytes[SUPER + 0x175] = 1;
    let sum = crc(!0, &bytes[SUPER..SUPER + 0x3FC]);
    put(bytes, SUPER + 0x3FC, &sum.to_le_bytes());
    let seed = match incompat & CSUM_SEED {
        0 => crc(!0, &raw[0x68..0x78]),
        _ => u32_at(&raw, 0x270),
    };
    let inode_bytes = u16_at(&raw, 0x58);
    if !(128..=1024 << log_block).contains(&inode_bytes) {
        return;
    }
    let mut image = Image { bytes, block_bytes: 1024 << log_block, seed, left: NODES_MAX };
    let desc_bytes = if incompat & BITS64 == 0 { 32 } else { u16_at(&raw, 0xFE).clamp(32, 1024) };
    let (inodes_per_group, blocks_per_group) = (u32_at(&raw, 0x28), u32_at(&raw, 0x20));
    let groups = u32_at(&raw, 0x4).div_ceil(blocks_per_group.max(1)).min(4);
    for group in 0..groups {
        let at = (SUPER / image.block_bytes + 1) * image.block_bytes + group as usize * desc_bytes;
        let table = u32_at(image.bytes, at + 8) as usize;
        for index in 0..inodes_per_group.min(256) {
            let place = table.saturating_mul(image.block_bytes) + index as usize * inode_bytes;
            image.inode(place, inode_bytes, group.wrapping_mul(inodes_per_group).wrapping_add(index + 1));
        }
        image.descriptor(at, desc_bytes, group, inodes_per_group, blocks_per_group);
    }
}

impl Image<'_> {
    fn block(&self, block: u32) -> Option<usize> {
        let at = (block as usize).checked_mul(self.block_bytes)?;
        (block > 1 && at + self.block_bytes <= self.bytes.len()).then_some(at)
    }

    fn descriptor(&mut self, at: usize, len: usize, group: u32, inodes: u32, blocks: u32) {
        for (place, bits, low, high) in [(0, blocks, 0x18, 0x38), (4, inodes, 0x1A, 0x3A)] {
            let Some(bitmap) = self.block(u32_at(self.bytes, at + place)) else { continue };
            let bytes = (bits as usize / 8).min(self.block_bytes);
            let sum = crc(self.seed, &self.bytes[bitmap..bitmap + bytes]);
            put(self.bytes, at + low, &(sum as u16).to_le_bytes());
            if len >= 64 {
                put(self.bytes, at + high, &((sum >> 16) as u16).to_le_bytes());
            }
        }
        put(self.bytes, at + 0x1E, &[0, 0]);
        if let Some(raw) = self.bytes.get(at..at + len) {
            let sum = crc(crc(self.seed, &group.to_le_bytes()), raw) as u16;
            put(self.bytes, at + 0x1E, &sum.to_le_bytes());
        }
    }

    fn inode(&mut self, at: usize, len: usize, number: u32) {
        let Some(raw) = self.bytes.get(at..at.saturating_add(len)).map(<[u8]>::to_vec) else { return };
        if raw.iter().all(|&byte| byte == 0) {
            return;
        }
        let seed = crc(crc(self.seed, &number.to_le_bytes()), &raw[0x64..0x68]);
        if u32_at(&raw, 0x20) & 0x8_0000 != 0 {
            let directory = u16_at(&raw, 0) & 0xF000 == 0x4000;
            self.extents(&raw[0x28..0x64], seed, directory);
        }
        if let Some(block) = self.block(u32_at(&raw, 0x68)) {
            put(self.bytes, block + 16, &[0; 4]);
            let number = u64::from(u32_at(&raw, 0x68));
            let body = &self.bytes[block..block + self.block_bytes];
            let sum = crc(crc(self.seed, &number.to_le_bytes()), body);
            put(self.bytes, block + 16, &sum.to_le_bytes());
        }
        let wide = len > 128 && u16_at(&raw, 0x80) >= 4;
        put(self.bytes, at + 0x7C, &[0, 0]);
        if wide {
            put(self.bytes, at + 0x82, &[0, 0]);
        }
        let sum = crc(seed, &self.bytes[at..at + len]);
        put(self.bytes, at + 0x7C, &(sum as u16).to_le_bytes());
        if wide {
            put(self.bytes, at + 0x82, &((sum >> 16) as u16).to_le_bytes());
        }
    }

    /// What hangs below a node of an extent tree.
    fn extents(&mut self, node: &[u8], seed: u32, directory: bool) {
        let (entries, depth) = (u16_at(node, 2).min(node.len() / 12), u16_at(node, 6));
        for entry in node.chunks_exact(12).skip(1).take(entries) {
            if self.left == 0 {
                return;
            }
            self.left -= 1;
            if depth == 0 {
                let (first, count) = (u32_at(entry, 8), u16_at(entry, 4).min(16) as u32);
                for block in (first..first.saturating_add(count)).filter(|_| directory) {
                    self.directory(block, seed);
                }
                continue;
            }
            let Some(at) = self.block(u32_at(entry, 4)) else { continue };
            let child = self.bytes[at..at + self.block_bytes].to_vec();
            let tail = 12 + u16_at(&child, 4) * 12;
            if tail + 4 <= child.len() {
                put(self.bytes, at + tail, &crc(seed, &child[..tail]).to_le_bytes());
            }
            // A fuzzer makes trees of any depth; below the depth bound the walk ends by itself.
            if u16_at(&child, 6) < depth {
                self.extents(&child, seed, directory);
            }
        }
    }

    fn directory(&mut self, block: u32, seed: u32) {
        let Some(at) = self.block(block) else { return };
        let body = self.bytes[at..at + self.block_bytes].to_vec();
        let tail = body.len() - 12;
        if u16_at(&body, tail + 4) == 12 && u16_at(&body, tail + 6) == 0xDE00 {
            put(self.bytes, at + tail + 8, &crc(seed, &body[..tail]).to_le_bytes());
            return;
        }
        // An index block: entries behind a fake entry (a node) or behind "." and ".." and eight bytes (the root).
        let counts = if u16_at(&body, 4) == 12 { 32 } else { 8 };
        let (limit, count) = (u16_at(&body, counts), u16_at(&body, counts + 2));
        let tail = counts + limit * 8;
        if count <= limit && tail + 8 <= body.len() {
            let sum = crc(crc(crc(seed, &body[..counts + count * 8]), &body[tail..tail + 4]), &[0; 4]);
            put(self.bytes, at + tail + 4, &sum.to_le_bytes());
        }
    }
}
