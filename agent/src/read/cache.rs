//! Blocks one by one, for a reader that reads an item in order or in any order: the last fetch and the last frames are kept.
//!
//! Costs: a block of a frame that is kept is a digest; of one that is not, a ranged GET that takes the frames of the next blocks along
//! where they lie near. Memory: a fetch, and the bytes of frames that [`BlockCache::new`] was given.
//!
//! Invariants: as of [`read`](super). Does not: read ahead, share between threads. Source: ours.

use std::ops::{Deref, Range};
use std::sync::Arc;

use super::decode::{Decoder, Plain, Unread};
use super::plan::{GAP_BYTES_MAX, READ_BYTES_MAX};
use crate::format::fault::FormatFault;
use crate::format::row::{BlockPlace, Place};
use crate::format::seal::Keys;
use crate::id::ObjectId;
use crate::store::retry::Client;
use crate::store::{ByteRange, StoreFault, StoreFaultKind};
use crate::table::cache::Cache;

/// A frame: its object, offset and bytes there.
type FrameKey = (ObjectId, u32, u32);

/// A verified block. It holds its frame.
pub struct Block {
    frame: Arc<Vec<u8>>,
    range: Range<usize>,
}

impl Deref for Block {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.frame[self.range.clone()]
    }
}

/// Why there is no block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BlockFault {
    /// It is lost or damaged.
    Unread(Unread),
    /// The store does not answer.
    Store(StoreFault),
}

/// See the module.
pub struct BlockCache<'a> {
    client: &'a Client,
    keys: &'a Keys,
    decoder: Decoder<'a>,
    /// The last bytes that were fetched: object, offset, bytes.
    fetched: Option<(ObjectId, u64, Vec<u8>)>,
    frames: Cache<FrameKey, Vec<u8>>,
}

impl<'a> BlockCache<'a> {
    /// Keeps the last frames of at most `frame_bytes_max` plain bytes in all. `None` when there is no memory.
    pub fn new(client: &'a Client, keys: &'a Keys, frame_bytes_max: usize) -> Option<BlockCache<'a>> {
        let decoder = Decoder::new(keys)?;
        let frames = Cache::new(frame_bytes_max);
        Some(BlockCache { client, keys, decoder, fetched: None, frames })
    }

    /// The block at `place`. `next` are blocks that are asked for next, if that is known.
    pub fn block(&mut self, place: &Place, next: &[BlockPlace]) -> Result<Block, BlockFault> {
        let key = (place.object, place.frame_offset, place.frame_bytes);
        if let Some(frame) = self.frames.get(&key)
            && let Ok(block) = self.of(frame, place)
        {
            return Ok(block);
        }
        if let Some(frame) = self.first(place, next)?
            && let Ok(block) = self.of(Arc::clone(&frame), place)
        {
            self.keep(key, frame);
            return Ok(block);
        }
        let frame = Arc::new(self.once_more(place)?);
        let block = self.of(Arc::clone(&frame), place);
        let block = block.map_err(|what| BlockFault::Unread(Unread::Damaged(what)))?;
        self.keep(key, frame);
        Ok(block)
    }

    fn of(&self, frame: Arc<Vec<u8>>, place: &Place) -> Result<Block, FormatFault> {
        Plain::of(&frame, self.keys).block(place.inner_offset, place.len, &place.digest)?;
        let from = place.inner_offset as usize;
        Ok(Block { frame, range: from..from + place.len as usize })
    }

    fn keep(&mut self, key: FrameKey, frame: Arc<Vec<u8>>) {
        let bytes = frame.len();
        self.frames.put(key, frame, bytes);
    }

    /// The frame of a block out of the last fetch, or of a new one; `None` when it is not there or not as it was written.
    fn first(&mut self, place: &Place, next: &[BlockPlace]) -> Result<Option<Arc<Vec<u8>>>, BlockFault> {
        let (from, len) = (u64::from(place.frame_offset), u64::from(place.frame_bytes));
        let has = |(object, at, bytes): &(ObjectId, u64, Vec<u8>)| {
            *object == place.object && *at <= from && from + len <= *at + bytes.len() as u64
        };
        if !self.fetched.as_ref().is_some_and(has) {
            self.fetch(place, next)?;
        }
        let Some((_, at, bytes)) = self.fetched.as_ref().filter(|fetched| has(fetched)) else {
            return Ok(None);
        };
        let from = (from - at) as usize;
        // Opening in place spoils the bytes: a copy, so that a frame that comes again in the same fetch can be opened again.
        let mut bytes = bytes[from..from + len as usize].to_vec();
        let plain = self.decoder.open(&place.object, place.frame_offset, &mut bytes);
        Ok(plain.ok().map(|plain| Arc::new(plain.bytes().to_vec())))
    }

    /// Once more, from another connection, before it counts as damage.
    fn once_more(&mut self, place: &Place) -> Result<Vec<u8>, BlockFault> {
        let (from, len) = (u64::from(place.frame_offset), u64::from(place.frame_bytes));
        let mut bytes = Vec::new();
        let range = ByteRange::From { offset: from, len: len.max(1) };
        let have = match self.client.get_afresh(&place.object.object_key(), range, &mut bytes) {
            Err(fault) if fault.kind == StoreFaultKind::NotFound => {
                return Err(BlockFault::Unread(Unread::Missing));
            }
            other => other.map_err(BlockFault::Store)?,
        };
        if (bytes.len() as u64) < len {
            return Err(BlockFault::Unread(Unread::Short { have, need: from + len }));
        }
        let plain = self.decoder.open(&place.object, place.frame_offset, &mut bytes);
        let plain = plain.map_err(|what| BlockFault::Unread(Unread::Damaged(what)))?;
        Ok(plain.bytes().to_vec())
    }

    /// Fetches the frame of a block, and those of the next ones; nothing when the object is missing.
    fn fetch(&mut self, place: &Place, next: &[BlockPlace]) -> Result<(), BlockFault> {
        let from = u64::from(place.frame_offset);
        let mut end = from + u64::from(place.frame_bytes);
        for other in next {
            let BlockPlace::Stored(other) = other else { continue };
            let other_from = u64::from(other.frame_offset);
            let reach = other_from + u64::from(other.frame_bytes);
            let near = other_from >= from && other_from <= end + u64::from(GAP_BYTES_MAX);
            if other.object != place.object || !near || reach - from > u64::from(READ_BYTES_MAX) {
                break;
            }
            end = end.max(reach);
        }
        let mut bytes = self.fetched.take().map(|(_, _, bytes)| bytes).unwrap_or_default();
        bytes.clear();
        let range = ByteRange::From { offset: from, len: (end - from).max(1) };
        match self.client.get(&place.object.object_key(), range, &mut bytes) {
            Ok(_) => {
                self.fetched = Some((place.object, from, bytes));
                Ok(())
            }
            Err(fault) if fault.kind == StoreFaultKind::NotFound => Ok(()),
            Err(fault) => Err(BlockFault::Store(fault)),
        }
    }
}
