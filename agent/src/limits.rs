//! Every bound of the agent: its unit (in the name), why this number, and what a caller sees when it is reached.
//!
//! Invariants: relations between bounds are asserted at compile time, at the end of this file.
//! Does not: hold settings; a profile or a policy gives actual values at or below these. Source: ours.

/// Largest plain size of a frame in bytes. Four of the largest blocks; a frame is opened whole, so this bounds a restore's
/// buffer. A larger header is refused as damaged.
pub const FRAME_RAW_BYTES_MAX: usize = 16 << 20;

/// Percentage of the plain size that a compressed frame or row block may reach; beyond it the plain bytes are stored, because
/// a restore's decompression costs more than 3 % of a transfer.
pub const COMPRESSED_PERCENT_MAX: usize = 97;

/// Plain bytes at which a row block closes. Point look-ups decode half of it on average (tens of microseconds), and 32 KiB is
/// where zstd's gain flattens out on rows.
pub const ROW_BLOCK_BYTES_TARGET: usize = 32 << 10;

/// Largest encoded row in bytes: an item row with its extended attributes
/// ([`ITEM_XATTR_BYTES_MAX`](windlass_hal::volume::ITEM_XATTR_BYTES_MAX)) and the largest inline payload, twice over.
/// A larger row is refused by `push`; such a row has a block of its own.
pub const ROW_BYTES_MAX: usize = 1 << 20;

/// Largest plain row block in bytes: one row of the largest size and the block's dictionary.
pub const ROW_BLOCK_BYTES_MAX: usize = ROW_BYTES_MAX + 64;

/// Most blocks in a location row: N of the repository (default 10) is at most this. It keeps a location row below 4 KiB.
pub const LOCATION_BLOCKS_MAX: usize = 64;

/// N when a repository is made: a 128 KiB block size then gives a row per 1.25 MiB and about 0.2 KiB of row.
pub const LOCATION_BLOCKS_DEFAULT: u8 = 10;

/// Most extent-state runs in a location row. Beyond it the writer calls the rest data (zero blocks stay zero).
pub const LOCATION_RUNS_MAX: usize = 4096;

/// Longest name of a directory entry in bytes.
pub const NAME_BYTES_MAX: usize = 255;

/// Most extended attributes of an item: readers deliver no more.
pub const ITEM_XATTRS_MAX: usize = windlass_hal::volume::ITEM_XATTRS_MAX;

/// Most bytes of contents in an item row: what fits the largest inode, or a symlink.
pub const ITEM_PAYLOAD_BYTES_MAX: usize = 64 << 10;

/// Most gaps that an item row keeps between an item's end and what is allocated past it (20 bytes each, at worst): each takes a
/// preallocation of its own to make, and one is already rare. What lies behind the last of them is preallocated without gaps.
pub const ITEM_GAPS_MAX: usize = 64;

/// Longest fault sentence in an item row, in bytes; longer ones are cut by the writer.
pub const ITEM_FAULT_BYTES_MAX: usize = 1024;

/// Largest plain index of an object or segment in bytes. A builder calls itself full at half of it, so that what is pending
/// always fits; a larger one is refused as damaged.
pub const INDEX_BYTES_MAX: usize = 256 << 10;

/// Bytes at which a segment is full: eight multiplexed GETs of 1 MiB, and small enough that coalescing rewrites little.
pub const SEGMENT_BYTES_MAX: u64 = 8 << 20;

/// Largest `format` object in bytes; a larger one is refused before it is read.
pub const REPO_FORMAT_BYTES_MAX: usize = 4096;

/// Most key slots of a repository: key files and passphrases of the people who may open it.
pub const KEY_SLOTS_MAX: usize = 8;

/// Longest store identity string in bytes.
pub const STORE_IDENTITY_BYTES_MAX: usize = 512;

/// Memory of Argon2id in KiB for new key slots. 14 MiB, not the usual 64: a repository is opened inside a memory budget that may be
/// 24 MiB, of which the program and its connections take 9. More passes make up for part of it.
pub const ARGON2_MEMORY_KIB: u32 = 14 << 10;

/// Passes of Argon2id over that memory for new key slots.
pub const ARGON2_PASSES: u32 = 5;

/// Most memory in KiB that a key slot may ask for; more is refused, because the number comes from the store.
pub const ARGON2_MEMORY_KIB_MAX: u32 = 64 << 10;

/// Most passes that a key slot may ask for.
pub const ARGON2_PASSES_MAX: u32 = 32;

/// Bytes of indexes that a table reader keeps by default.
pub const READ_INDEX_CACHE_BYTES: usize = 1 << 20;

/// Bytes of plain row blocks that a table reader keeps by default.
pub const READ_BLOCK_CACHE_BYTES: usize = (2 << 20) + (4 << 10);

/// Bytes that a streaming read fetches ahead, over all its segments together. A stream starts with one row block and doubles.
pub const READ_AHEAD_BYTES: usize = 512 << 10;

/// Bytes of other kinds' row blocks that a streaming read fetches along rather than making two requests.
pub const READ_GAP_BYTES: u64 = 32 << 10;

/// Most segments that a merging read holds open at one place of the table. A read that needs more fails with
/// `TooManySegments`. Merges keep it at a dozen; the rest is for weeks in which no node had time to merge, 64 KiB of memory each.
pub const READ_SOURCES_MAX: usize = 128;

/// Most rows of one item and base that a rebuild holds at once: one per backup that changed the base, times its blocks.
pub const REBUILD_GROUP_ROWS_MAX: usize = 1 << 16;

/// Runs that one pass of a rebuild merges.
pub const REBUILD_FAN_IN: usize = 16;

const _: () = {
    assert!(
        ROW_BYTES_MAX
            >= windlass_hal::volume::ITEM_XATTR_BYTES_MAX + ITEM_PAYLOAD_BYTES_MAX + 8 * ITEM_XATTRS_MAX
    );
    assert!(ROW_BLOCK_BYTES_TARGET < ROW_BYTES_MAX);
    assert!(LOCATION_BLOCKS_DEFAULT as usize <= LOCATION_BLOCKS_MAX);
    assert!(FRAME_RAW_BYTES_MAX <= u32::MAX as usize / 2);
    assert!(INDEX_BYTES_MAX as u64 + 2 * ROW_BLOCK_BYTES_MAX as u64 <= SEGMENT_BYTES_MAX);
    assert!(READ_INDEX_CACHE_BYTES + READ_BLOCK_CACHE_BYTES + READ_AHEAD_BYTES <= 4 << 20);
    assert!(READ_INDEX_CACHE_BYTES >= 2 * INDEX_BYTES_MAX);
    assert!(READ_BLOCK_CACHE_BYTES >= 2 * ROW_BLOCK_BYTES_MAX);
    assert!(REBUILD_FAN_IN <= READ_SOURCES_MAX);
    assert!(ARGON2_MEMORY_KIB <= ARGON2_MEMORY_KIB_MAX && ARGON2_PASSES <= ARGON2_PASSES_MAX);
    let texts = 2 * STORE_IDENTITY_BYTES_MAX + crate::format::feature::FEATURES_BYTES_MAX;
    assert!(KEY_SLOTS_MAX * 96 + texts + 256 <= REPO_FORMAT_BYTES_MAX);
};
