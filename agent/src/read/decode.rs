//! Opens frames and verifies the blocks in them, keeping one buffer and the last object's key.
//!
//! Does not: fetch, or keep a frame (see [`cache`](super::cache)). Source: ours; `format::frame`.

use std::fmt;

use crate::format::compress::Decompressor;
use crate::format::fault::FormatFault;
use crate::format::frame;
use crate::format::row::Digest;
use crate::format::seal::{Keys, ObjectKey};
use crate::id::ObjectId;

/// Why a block cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unread {
    /// Its object is not in the store.
    Missing,
    /// Its object ends before the frame does.
    Short {
        /// Bytes that the object has.
        have: u64,
        /// Bytes that it has at least, when it is whole.
        need: u64,
    },
    /// The frame or the block is not what was written.
    Damaged(FormatFault),
    /// It was not asked for any more: the work ended early.
    Ended,
}

impl fmt::Display for Unread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unread::Missing => f.write_str("the object is missing"),
            Unread::Short { have, need } => {
                write!(f, "the object is cut short: it has {have} bytes and needs {need}")
            }
            Unread::Damaged(what) => what.fmt(f),
            Unread::Ended => f.write_str("not read"),
        }
    }
}

/// Opens frames. One for each thread: it holds a decompression context and a frame's plain bytes.
pub struct Decoder<'a> {
    keys: &'a Keys,
    decompressor: Decompressor,
    plain: Vec<u8>,
    key: Option<(ObjectId, ObjectKey)>,
}

impl<'a> Decoder<'a> {
    /// `None` when there is no memory.
    pub fn new(keys: &'a Keys) -> Option<Decoder<'a>> {
        Some(Decoder { keys, decompressor: Decompressor::new()?, plain: Vec::new(), key: None })
    }

    /// Opens the frame that `bytes` begin with, in place: they are spoiled. `offset` is where it lies in `object`.
    pub fn open<'r>(
        &'r mut self,
        object: &ObjectId,
        offset: u32,
        bytes: &'r mut [u8],
    ) -> Result<Plain<'r>, FormatFault> {
        let key = match self.key.take() {
            Some((of, key)) if of == *object => key,
            _ => self.keys.object(object),
        };
        let opened = frame::open(bytes, &key, offset.into());
        self.key = Some((*object, key));
        let opened = opened?;
        if !opened.zstd {
            return Ok(Plain { keys: self.keys, bytes: opened.body });
        }
        self.plain.resize(opened.raw_len, 0);
        opened.plain(&mut self.decompressor, &mut self.plain)?;
        Ok(Plain { keys: self.keys, bytes: &self.plain })
    }
}

/// The plain bytes of an authentic frame.
#[derive(Clone, Copy)]
pub struct Plain<'r> {
    keys: &'r Keys,
    bytes: &'r [u8],
}

impl<'r> Plain<'r> {
    /// Of bytes that were a frame's before.
    pub fn of(bytes: &'r [u8], keys: &'r Keys) -> Plain<'r> {
        Plain { keys, bytes }
    }

    /// All of them.
    pub fn bytes(&self) -> &'r [u8] {
        self.bytes
    }

    /// A block of them, if it is what its row says.
    pub fn block(&self, from: u32, len: u32, digest: &Digest) -> Result<&'r [u8], FormatFault> {
        let from = from as usize;
        let bytes = self.bytes.get(from..from.saturating_add(len as usize));
        let bytes = bytes.ok_or(FormatFault::damaged("block", "not within its frame"))?;
        if self.keys.digest(bytes) == *digest {
            Ok(bytes)
        } else {
            Err(FormatFault::damaged("block", "digest differs"))
        }
    }
}
