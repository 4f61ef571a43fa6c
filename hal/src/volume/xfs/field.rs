//! Big-endian fields of on-disk structures.
//!
//! Invariant: no call panics whatever it is given. A field outside its slice reads as zero; callers check lengths first, so
//! this is the second net and not the rule.
//!
//! Does not: know any structure. Source: ours.

/// Byte at `at`.
pub(super) fn u8_at(bytes: &[u8], at: usize) -> u8 {
    bytes.get(at).copied().unwrap_or(0)
}

/// Big-endian 16-bit number at byte `at`.
pub(super) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    array_at(bytes, at).map_or(0, u16::from_be_bytes)
}

/// Big-endian 32-bit number at byte `at`.
pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    array_at(bytes, at).map_or(0, u32::from_be_bytes)
}

/// Big-endian 64-bit number at byte `at`.
pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    array_at(bytes, at).map_or(0, u64::from_be_bytes)
}

/// Little-endian 16-bit number at byte `at`: log items are in the byte order of the machine that wrote them.
pub(super) fn le16_at(bytes: &[u8], at: usize) -> u16 {
    array_at(bytes, at).map_or(0, u16::from_le_bytes)
}

/// Little-endian 32-bit number at byte `at`: checksums, and log items.
pub(super) fn le32_at(bytes: &[u8], at: usize) -> u32 {
    array_at(bytes, at).map_or(0, u32::from_le_bytes)
}

/// Little-endian 64-bit number at byte `at`: log items.
pub(super) fn le64_at(bytes: &[u8], at: usize) -> u64 {
    array_at(bytes, at).map_or(0, u64::from_le_bytes)
}

/// `N` bytes from `at` on, or `None` when they are not all there.
pub(super) fn array_at<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk::<N>().copied()
}

/// The bytes `from..from + len`, or `None` when they are not all there.
pub(super) fn slice_at(bytes: &[u8], from: usize, len: usize) -> Option<&[u8]> {
    bytes.get(from..)?.get(..len)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_outside_read_as_zero() {
        let bytes = [1, 2, 3, 4];
        assert_eq!(u16_at(&bytes, 2), 0x0304);
        assert_eq!(u16_at(&bytes, 3), 0);
        assert_eq!(u32_at(&bytes, 0), 0x0102_0304);
        assert_eq!(le32_at(&bytes, 0), 0x0403_0201);
        assert_eq!(u32_at(&bytes, usize::MAX), 0);
        assert_eq!(u64_at(&bytes, 0), 0);
        assert_eq!(slice_at(&bytes, 1, 3), Some(&[2, 3, 4][..]));
        assert_eq!(slice_at(&bytes, 1, 4), None);
    }
}
