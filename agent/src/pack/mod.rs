//! Packing: from the extents of many files to fixed-size upload objects in preallocated buffers.
//!
//! ```text
//!  window of items --plan--> frames: blocks in physical order, <= 512 KiB plain, one read request each
//!        frame read --lane--> digest, zero check, known-block check -> compress -> reserve room -> seal -> copy
//!                                                                                    |
//!  upload object:  | frame | frame | ... | frame | tail |   <------- object -------- +
//! ```
//!
//! | module | what |
//! |---|---|
//! | [`plan`] | pure: blocks of a stretch of items -> frames and their reads |
//! | [`lane`] | what a pack lane does with one frame; the only CPU-heavy code |
//! | [`object`] | objects under construction: pieces from a pool, room reserved by lanes |
//! | [`link`] | how fast the store takes objects, and how large they are made for it |
//! | [`proof`] | a sample of frames, opened again before they are sent |
//! | [`known`] | a bounded cache of digests of blocks stored lately |
//!
//! Small blocks share a compression frame: one 4 KiB file compressed alone costs a third more bytes and twice the time.
//! Does not: read, upload, or decide what is backed up.

pub mod known;
pub mod lane;
pub mod link;
pub mod object;
pub mod plan;
pub mod proof;
pub mod reading;

/// Plain bytes of one frame, unless a single block is larger: what is read, compressed and sealed together. 512 KiB is
/// where zstd's ratio and speed flatten out, and a good request size for every kind of disk.
pub const FRAME_BYTES: usize = 512 << 10;

/// Smallest block size in bytes.
pub const BLOCK_BYTES_MIN: u32 = 4 << 10;
/// Largest block size in bytes: one block is one frame then.
pub const BLOCK_BYTES_MAX: u32 = 4 << 20;
/// Block size in bytes when the policy names none.
pub const BLOCK_BYTES_DEFAULT: u32 = 128 << 10;

/// Smallest upload object in bytes.
pub const OBJECT_BYTES_MIN: u32 = 4 << 20;
/// Largest upload object in bytes.
pub const OBJECT_BYTES_MAX: u32 = 256 << 20;
/// Upload object in bytes when the policy names none.
pub const OBJECT_BYTES_DEFAULT: u32 = 16 << 20;

/// Unused front of a frame buffer, where the frame's header goes, so that an uncompressed frame is sealed where it was read.
pub const FRAME_FRONT_BYTES: usize = 4096;
/// Unused end of a frame buffer, where the tag goes.
pub const FRAME_BACK_BYTES: usize = 4096;

/// Plain bytes of the largest frame for a block size.
pub const fn frame_bytes(block_bytes: u32) -> usize {
    if block_bytes as usize > FRAME_BYTES { block_bytes as usize } else { FRAME_BYTES }
}

/// Size of a frame buffer for a block size, in bytes.
pub const fn frame_buf_bytes(block_bytes: u32) -> usize {
    FRAME_FRONT_BYTES + frame_bytes(block_bytes) + FRAME_BACK_BYTES
}

const _: () = assert!(BLOCK_BYTES_MAX <= OBJECT_BYTES_MIN, "a block fits every object");
const _: () = assert!(
    FRAME_BYTES as u64 / BLOCK_BYTES_MIN as u64 <= windlass_hal::block::SEGMENTS_PER_REQUEST_MAX as u64
);
