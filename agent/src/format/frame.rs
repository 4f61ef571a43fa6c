//! Frames: the unit in which blocks are compressed, sealed and fetched. An upload object starts with frames, back to back.
//!
//! | offset | bytes | field | meaning |
//! |---|---|---|---|
//! | 0 | 4 | magic | "WLFR" |
//! | 4 | 1 | version | 1 |
//! | 5 | 1 | flags | bit 0: body is zstd; bit 1: sealed (AES-256-GCM), else the tag is a MAC; others zero |
//! | 6 | 2 | reserved | zero |
//! | 8 | 4 | raw_len | plain bytes, 1..=[`FRAME_RAW_BYTES_MAX`] |
//! | 12 | 4 | body_len | bytes of the body: less than raw_len when zstd, else equal |
//! | 16 | body_len | body | blocks back to back, compressed together, then sealed |
//! | 16 + body_len | 16 | tag | over object id, offset of the frame, the header and the body (see `seal`) |
//!
//! Written by pack lanes, in place in the upload buffer; read by restores, scrubs and rewrites. Little-endian.
//!
//! Invariants: a frame is read whole; no byte of it is used before the tag has matched.
//! Does not: know which blocks are in it (location rows do), or allocate. Source: ours.

use super::compress::Decompressor;
use super::fault::{FormatFault, FormatFaultKind};
use super::seal::{FLAG_SEALED, FLAG_ZSTD, ObjectKey, Region, TAG_BYTES, flags};
use super::varint::Reader;
use crate::limits::FRAME_RAW_BYTES_MAX;

/// Bytes before the body.
pub const FRAME_HEADER_BYTES: usize = 16;
/// Bytes of a frame that are not its body.
pub const FRAME_OVERHEAD_BYTES: usize = FRAME_HEADER_BYTES + TAG_BYTES;

const MAGIC: [u8; 4] = *b"WLFR";
const VERSION: u8 = 1;
const WHAT: &str = "frame";

/// The fields of a frame's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// Whether the body is zstd.
    pub zstd: bool,
    /// Whether the body is encrypted.
    pub sealed: bool,
    /// Length of the plain contents in bytes.
    pub raw_len: u32,
    /// Length of the body in bytes.
    pub body_len: u32,
}

impl FrameHeader {
    /// Reads the first [`FRAME_HEADER_BYTES`] of `bytes`. The values are not authenticated yet; use them only
    /// to know how much to fetch.
    pub fn parse(bytes: &[u8]) -> Result<FrameHeader, FormatFault> {
        let mut reader = Reader::new(bytes, WHAT);
        if reader.array()? != MAGIC {
            return Err(FormatFault::new(WHAT, FormatFaultKind::NotOurs));
        }
        let version = reader.u8()?;
        if version != VERSION {
            return Err(FormatFault::new(WHAT, FormatFaultKind::Version(version.into())));
        }
        let bits = reader.u8()?;
        if bits & !(FLAG_ZSTD | FLAG_SEALED) != 0 || reader.u16_le()? != 0 {
            return Err(reader.damaged("reserved bits are set"));
        }
        let header = FrameHeader {
            zstd: bits & FLAG_ZSTD != 0,
            sealed: bits & FLAG_SEALED != 0,
            raw_len: reader.u32_le()?,
            body_len: reader.u32_le()?,
        };
        if header.raw_len == 0 || header.raw_len as usize > FRAME_RAW_BYTES_MAX {
            return Err(reader.damaged("plain length out of range"));
        }
        let fits = if header.zstd {
            header.body_len < header.raw_len && header.body_len > 0
        } else {
            header.body_len == header.raw_len
        };
        if !fits {
            return Err(reader.damaged("body length does not fit the plain length"));
        }
        Ok(header)
    }

    /// The header's bytes. Lengths must be within their limits.
    pub fn emit(&self) -> [u8; FRAME_HEADER_BYTES] {
        let mut out = [0; FRAME_HEADER_BYTES];
        out[..4].copy_from_slice(&MAGIC);
        out[4] = VERSION;
        out[5] = flags(self.zstd, self.sealed);
        out[8..12].copy_from_slice(&self.raw_len.to_le_bytes());
        out[12..].copy_from_slice(&self.body_len.to_le_bytes());
        out
    }

    /// Bytes of the whole frame.
    pub fn frame_bytes(&self) -> usize {
        self.body_len as usize + FRAME_OVERHEAD_BYTES
    }
}

/// Turns a body into a frame, in place: the body is at `FRAME_HEADER_BYTES..FRAME_HEADER_BYTES + body_len` of `buffer`; header
/// and tag are written around it. `offset` is where the frame will start in the object of `key`. Returns the frame's length.
///
/// Panics when the buffer is too short for it or the lengths break the header's rules: those are the caller's bugs.
pub fn seal(
    buffer: &mut [u8],
    body_len: usize,
    raw_len: usize,
    zstd: bool,
    key: &ObjectKey,
    offset: u64,
) -> usize {
    assert!(raw_len > 0 && raw_len <= FRAME_RAW_BYTES_MAX, "a frame's plain length is within its limit");
    assert!(if zstd { body_len < raw_len } else { body_len == raw_len }, "a body fits its plain length");
    let header =
        FrameHeader { zstd, sealed: key.is_sealed(), raw_len: raw_len as u32, body_len: body_len as u32 };
    let total = header.frame_bytes();
    let head = header.emit();
    let frame = &mut buffer[..total];
    frame[..FRAME_HEADER_BYTES].copy_from_slice(&head);
    let body = &mut frame[FRAME_HEADER_BYTES..total - TAG_BYTES];
    let tag = key.seal(Region::Frame, offset, &head, body);
    frame[total - TAG_BYTES..].copy_from_slice(&tag);
    total
}

/// An authentic frame.
#[derive(Debug, PartialEq, Eq)]
pub struct Opened<'a> {
    /// The body, decrypted, still compressed when `zstd`.
    pub body: &'a [u8],
    /// Whether the body is zstd.
    pub zstd: bool,
    /// Length of the plain contents in bytes.
    pub raw_len: usize,
}

/// Checks and opens the frame at the start of `bytes`, in place. `offset` is where it was read from.
pub fn open<'a>(bytes: &'a mut [u8], key: &ObjectKey, offset: u64) -> Result<Opened<'a>, FormatFault> {
    let header = FrameHeader::parse(bytes)?;
    if header.sealed != key.is_sealed() {
        return Err(FormatFault::new(WHAT, FormatFaultKind::Mode));
    }
    let frame = bytes.get_mut(..header.frame_bytes()).ok_or(FormatFault::truncated(WHAT))?;
    let (head, rest) = frame.split_at_mut(FRAME_HEADER_BYTES);
    let (body, tag) = rest.split_last_chunk_mut::<TAG_BYTES>().ok_or(FormatFault::truncated(WHAT))?;
    key.open(Region::Frame, offset, head, body, tag)?;
    Ok(Opened { body, zstd: header.zstd, raw_len: header.raw_len as usize })
}

impl Opened<'_> {
    /// Writes the plain bytes to `out`, which must be `raw_len` long.
    pub fn plain(&self, decompressor: &mut Decompressor, out: &mut [u8]) -> Result<(), FormatFault> {
        assert_eq!(out.len(), self.raw_len, "the caller gives a buffer of raw_len bytes");
        if self.zstd {
            return decompressor.decompress(WHAT, self.body, out);
        }
        out.copy_from_slice(self.body);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::compress::Compressor;
    use crate::format::seal::{Keys, Sealing, Secret};
    use crate::id::ObjectId;

    fn frame_of(plain: &[u8], key: &ObjectKey, offset: u64) -> Vec<u8> {
        let mut buffer = vec![0; plain.len() + FRAME_OVERHEAD_BYTES];
        let body = &mut buffer[FRAME_HEADER_BYTES..];
        let (len, zstd) = match Compressor::new(1).unwrap().compress(plain, body) {
            Some(len) => (len, true),
            None => {
                body[..plain.len()].copy_from_slice(plain);
                (plain.len(), false)
            }
        };
        let total = seal(&mut buffer, len, plain.len(), zstd, key, offset);
        buffer.truncate(total);
        buffer
    }

    #[test]
    fn frames_come_back_and_every_flipped_byte_is_found() {
        let mut decompressor = Decompressor::new().unwrap();
        let noise = *blake3::hash(b"noise").as_bytes();
        for sealing in [Sealing::Off, Sealing::Aes256Gcm] {
            let keys = Keys::new(&Secret::new([1; 32]), sealing);
            let key = keys.object(&ObjectId::default());
            for plain in [&[9u8; 500][..], &noise, b"x"] {
                let frame = frame_of(plain, &key, 77);
                let mut copy = frame.clone();
                let opened = open(&mut copy, &key, 77).unwrap();
                let mut back = vec![0; opened.raw_len];
                opened.plain(&mut decompressor, &mut back).unwrap();
                assert_eq!(back, plain);
                assert!(open(&mut frame.clone(), &key, 78).is_err());
                for at in 0..frame.len() {
                    for flip in [1, 0x80, 0xff] {
                        let mut bad = frame.clone();
                        bad[at] ^= flip;
                        assert!(open(&mut bad, &key, 77).is_err(), "byte {at} of {}", frame.len());
                    }
                    assert!(open(&mut frame[..at].to_vec(), &key, 77).is_err());
                }
            }
        }
    }
}
