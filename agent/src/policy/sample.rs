//! A sample of a device's bytes, sent with the name of its snapshot: two copies of a volume on several nodes
//! that have the same name and different bytes are distinguished before one of them is read.
//!
//! Which blocks depends on the size and the name alone: the first, the last, and [`BY_NUMBER`] drawn by the name, so that each snapshot has
//! others. What cannot be read counts as such.
//!
//! Does not: prove that two copies are equal. Source: ours.

use windlass_hal::block::{BlockDevice, Fault};

/// Blocks besides the first and the last: with them some 20 seeks each time that a volume is opened.
const BY_NUMBER: u64 = 16;
/// Bytes of a block.
const BLOCK_BYTES: u64 = 4096;

/// Digest of the sample that belongs to `snapshot`.
///
/// # Errors
/// The device is gone.
pub fn digest(device: &mut dyn BlockDevice, snapshot: &str) -> Result<[u8; 16], Fault> {
    let size = device.geometry().size_bytes;
    let blocks = size.div_ceil(BLOCK_BYTES);
    let mut draw = blake3::Hasher::new().update(snapshot.as_bytes()).finalize_xof();
    let mut hasher = blake3::Hasher::new();
    hasher.update(&size.to_le_bytes());
    let mut drawn = || {
        let mut number = [0; 8];
        draw.fill(&mut number);
        u64::from_le_bytes(number).checked_rem(blocks).unwrap_or(0)
    };
    let numbers = [0, blocks.saturating_sub(1)].into_iter().chain((0..BY_NUMBER).map(|_| drawn()));
    let mut block = [0; BLOCK_BYTES as usize];
    for number in numbers {
        let at = number * BLOCK_BYTES;
        let len = size.saturating_sub(at).min(BLOCK_BYTES) as usize;
        match device.read_at(at, &mut block[..len]) {
            Ok(()) => hasher.update(&block[..len]),
            Err(fault) if fault.kind == windlass_hal::block::FaultKind::Media => hasher.update(b"unreadable"),
            Err(fault) => return Err(fault),
        };
    }
    let mut out = [0; 16];
    hasher.finalize_xof().fill(&mut out);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use windlass_hal::sim::disk::{DiskConfig, Media, MediaConfig};

    fn of(bytes: &[u8], snapshot: &str) -> [u8; 16] {
        let media = Media::new(MediaConfig {
            name: "vol".to_owned(),
            size_bytes: bytes.len() as u64,
            logical_block_bytes: 512,
            can_discard: false,
            seed: 1,
        });
        media.load(0, bytes);
        let config = DiskConfig { write: false, queue_depth: 2, latency_steps_max: 0, seed: 1 };
        digest(&mut media.open(config), snapshot).unwrap()
    }

    #[test]
    fn equal_copies_have_equal_samples_and_others_do_not() {
        let bytes = vec![7; 64 << 10];
        let first = of(&bytes, "monday");
        assert_eq!(of(&bytes, "monday"), first);
        for at in [0, bytes.len() - 1] {
            let mut other = bytes.clone();
            other[at] ^= 1;
            assert_ne!(of(&other, "monday"), first, "byte {at}");
        }
        let mut found = 0;
        for block in 1..15 {
            let mut other = bytes.clone();
            other[block * 4096 + 100] ^= 1;
            found += usize::from(of(&other, "monday") != first);
        }
        assert!(found > 5, "{found} of 14 blocks are in the sample");
        assert_ne!(of(&bytes[..60 << 10], "monday"), first, "its size counts");
        // An odd end.
        assert_ne!(of(&bytes[..(60 << 10) + 512], "monday"), of(&bytes[..60 << 10], "monday"));
    }
}
