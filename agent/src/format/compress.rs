//! Compression with contexts that are made once and reused: zstd, for frames, row blocks and indexes.
//!
//! Invariants: output is never larger than [`COMPRESSED_PERCENT_MAX`] of the input; what is decompressed fills its buffer exactly
//! or is refused, so a hostile frame cannot make memory grow. No dictionaries, no zstd checksum (the tag covers the bytes).
//!
//! Does not: decide whether a block is worth a try (see `pack`). Source: RFC 8878.

use zstd_safe::{CCtx, CParameter, DCtx};

use super::fault::FormatFault;
use crate::limits::COMPRESSED_PERCENT_MAX;

/// Lowest and highest zstd level of a policy.
pub const ZSTD_LEVELS: std::ops::RangeInclusive<i32> = 1..=19;

/// A zstd compression context. Level 1 holds about 0.6 MiB for 128 KiB inputs, more for higher levels and larger inputs:
/// [`Compressor::memory_bytes`] tells after first use.
pub struct Compressor {
    context: CCtx<'static>,
    level: i32,
}

impl Compressor {
    /// At `level`, cut to [`ZSTD_LEVELS`]. `None` when there is no memory.
    pub fn new(level: i32) -> Option<Compressor> {
        let mut compressor = Compressor { context: CCtx::try_create()?, level: 0 };
        compressor.set_level(level);
        Some(compressor)
    }

    /// Changes the level, cut to [`ZSTD_LEVELS`].
    pub fn set_level(&mut self, level: i32) {
        self.level = level.clamp(*ZSTD_LEVELS.start(), *ZSTD_LEVELS.end());
        // Both parameters are valid at any value in that range, and between frames; if zstd thinks otherwise, it keeps its
        // own default, and the output is as valid.
        let _ = self.context.set_parameter(CParameter::CompressionLevel(self.level));
        let _ = self.context.set_parameter(CParameter::ChecksumFlag(false));
    }

    /// The level in force.
    pub fn level(&self) -> i32 {
        self.level
    }

    /// Compresses `src` into the start of `dst` and returns the length; `None` when it does not fit or does not pay, and then
    /// the contents of `dst` mean nothing. Allocates only on first use or at a larger input.
    pub fn compress(&mut self, src: &[u8], dst: &mut [u8]) -> Option<usize> {
        let worth = src.len() / 100 * COMPRESSED_PERCENT_MAX + src.len() % 100 * COMPRESSED_PERCENT_MAX / 100;
        let len = dst.len().min(worth);
        let dst = dst.get_mut(..len)?;
        if dst.is_empty() {
            return None;
        }
        self.context.compress2(dst, src).ok()
    }

    /// Bytes that the context holds.
    pub fn memory_bytes(&self) -> usize {
        self.context.sizeof()
    }
}

/// A zstd decompression context: about 160 KiB.
pub struct Decompressor {
    context: DCtx<'static>,
}

impl Decompressor {
    /// `None` when there is no memory.
    pub fn new() -> Option<Decompressor> {
        Some(Decompressor { context: DCtx::try_create()? })
    }

    /// Fills `dst` exactly from `src`, or refuses. Never writes past `dst`; does not allocate.
    pub fn decompress(&mut self, what: &'static str, src: &[u8], dst: &mut [u8]) -> Result<(), FormatFault> {
        match self.context.decompress(dst, src) {
            Ok(len) if len == dst.len() => Ok(()),
            Ok(_) => Err(FormatFault::damaged(what, "decompresses to another length")),
            Err(_) => Err(FormatFault::damaged(what, "does not decompress")),
        }
    }

    /// Bytes that the context holds.
    pub fn memory_bytes(&self) -> usize {
        self.context.sizeof()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_pays_is_compressed_and_comes_back_exactly() {
        let mut compressor = Compressor::new(1).unwrap();
        let mut decompressor = Decompressor::new().unwrap();
        let src = [5u8; 1000];
        let mut dst = [0u8; 1000];
        let len = compressor.compress(&src, &mut dst).unwrap();
        assert!(len < 100);
        let mut back = [0u8; 1000];
        assert_eq!(decompressor.decompress("test", &dst[..len], &mut back), Ok(()));
        assert_eq!(back, src);
        assert!(decompressor.decompress("test", &dst[..len], &mut back[..999]).is_err());
        assert!(decompressor.decompress("test", &dst[..len], &mut [0u8; 1001]).is_err());
        assert!(decompressor.decompress("test", &dst[..len - 1], &mut back).is_err());
        assert_eq!(compressor.compress(&src, &mut dst[..4]), None);
    }

    #[test]
    fn what_does_not_pay_is_refused() {
        let mut compressor = Compressor::new(1).unwrap();
        let mut noise = [0u8; 4096];
        blake3::Hasher::new().finalize_xof().fill(&mut noise);
        assert_eq!(compressor.compress(&noise, &mut [0u8; 8192]), None);
        assert_eq!(compressor.compress(&[], &mut [0u8; 8]), None);
        assert_eq!(compressor.compress(&[1], &mut []), None);
    }

    #[test]
    fn levels_are_cut_to_their_range() {
        assert_eq!(Compressor::new(0).unwrap().level(), 1);
        assert_eq!(Compressor::new(99).unwrap().level(), 19);
    }
}
