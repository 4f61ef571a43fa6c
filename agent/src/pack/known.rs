//! Blocks stored lately: a bounded cache from digest to place, so that a block seen twice in a run is stored once.
//!
//! A set-associative table of fixed size; a new entry replaces the oldest of its set. A block that is not
//! found is stored again. The digest is keyed and 128 bits long, and the length is compared too.
//!
//! Only places written in this run (one epoch) are kept: nothing can have retired their objects. Source: ours.

use std::sync::{Mutex, PoisonError};

use crate::format::row::{Digest, Place};

/// Entries in the table, a power of two: 16384 x 72 bytes = 1.1 MiB.
pub const KNOWN_BLOCKS_MAX: usize = 1 << 14;
/// Entries a digest may be in.
const WAYS: usize = 4;
/// Blocks shorter than this are not looked up: storing them again costs less than the row saves.
pub const KNOWN_BLOCK_BYTES_MIN: u32 = 1 << 10;

/// The table. Shared between lanes.
#[derive(Debug)]
pub struct Known {
    sets: Mutex<Box<[[Option<Place>; WAYS]]>>,
}

impl Default for Known {
    fn default() -> Known {
        Known::new(KNOWN_BLOCKS_MAX)
    }
}

impl Known {
    /// A table of `blocks` entries, a power of two of at least [`WAYS`].
    pub fn new(blocks: usize) -> Known {
        assert!(blocks.is_power_of_two() && blocks >= WAYS, "a power of two, one set at least");
        Known { sets: Mutex::new(vec![[None; WAYS]; blocks / WAYS].into_boxed_slice()) }
    }

    fn set_index(digest: &Digest, sets: usize) -> usize {
        u32::from_le_bytes([digest[0], digest[1], digest[2], digest[3]]) as usize & (sets - 1)
    }

    /// Where a block of this digest and length was stored lately.
    pub fn find(&self, digest: &Digest, len: u32) -> Option<Place> {
        if len < KNOWN_BLOCK_BYTES_MIN {
            return None;
        }
        let sets = self.sets.lock().unwrap_or_else(PoisonError::into_inner);
        let set = &sets[Self::set_index(digest, sets.len())];
        set.iter().flatten().find(|place| place.digest == *digest && place.len == len).copied()
    }

    /// Remembers where a block was stored.
    pub fn put(&self, place: Place) {
        if place.len < KNOWN_BLOCK_BYTES_MIN {
            return;
        }
        let mut sets = self.sets.lock().unwrap_or_else(PoisonError::into_inner);
        let index = Self::set_index(&place.digest, sets.len());
        sets[index].rotate_right(1);
        sets[index][0] = Some(place);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::ObjectId;

    fn place(seed: u8, len: u32) -> Place {
        Place {
            object: ObjectId::default(),
            frame_offset: 0,
            frame_bytes: 1,
            inner_offset: 0,
            len,
            digest: [seed; 16],
        }
    }

    #[test]
    fn finds_what_was_put_until_its_set_is_full_of_newer_ones() {
        let known = Known::new(WAYS);
        known.put(place(1, 4096));
        assert_eq!(known.find(&[1; 16], 4096), Some(place(1, 4096)));
        assert_eq!(known.find(&[1; 16], 4095), None);
        assert_eq!(known.find(&[2; 16], 4096), None);
        for seed in 2..=WAYS as u8 {
            known.put(place(seed, 4096));
        }
        assert!(known.find(&[1; 16], 4096).is_some());
        known.put(place(9, 4096));
        assert!(known.find(&[1; 16], 4096).is_none());
        known.put(place(10, KNOWN_BLOCK_BYTES_MIN - 1));
        assert!(known.find(&[10; 16], KNOWN_BLOCK_BYTES_MIN - 1).is_none());
    }
}
