//! Carries out a fetch of a plan: one ranged GET, its frames opened, every wanted block verified and handed on.
//!
//! ```text
//!  GET --missing--> GET over another connection
//!   '-> each frame: open, verify all blocks --not as written--> GET of the frame alone, over another connection
//!                                                                '-> blocks that hold, and why the others do not
//! ```
//!
//! Invariants: [`Blocks::block`] is called exactly once for each block of the fetch, whatever happens; nothing of a frame is handed on
//! before all of it is verified, but the last time. Memory: a fetch, a frame's plain bytes. Source: ours.

use super::decode::{Decoder, Unread};
use super::plan::{Fetch, Frame, Plan, PlannedBlock};
use crate::format::fault::FormatFault;
use crate::format::seal::Keys;
use crate::progress::Progress;
use crate::store::retry::Client;
use crate::store::{ByteRange, StoreFault, StoreFaultKind};

/// Who the blocks of a fetch are for.
pub trait Blocks {
    /// Whether the work ended early: nothing more is asked of the store, and what is left is [`Unread::Ended`].
    fn is_over(&self) -> bool;

    /// A block of `frame`, verified, or why there is none.
    fn block(&mut self, frame: &Frame, block: &PlannedBlock, bytes: Result<&[u8], Unread>);

    /// The store does not answer: from now on the work is over.
    fn fail(&mut self, fault: StoreFault);
}

/// What a GET brought.
enum Got {
    /// Bytes, of an object of this size.
    Bytes(u64),
    Missing,
    Ended,
}

/// Fetches for one thread. See the module's text.
pub struct Fetcher<'a> {
    client: &'a Client,
    progress: &'a Progress,
    decoder: Decoder<'a>,
    bytes: Vec<u8>,
    /// What is wrong with each wanted block of a frame.
    wrong: Vec<Option<FormatFault>>,
}

impl<'a> Fetcher<'a> {
    /// `None` when there is no memory.
    pub fn new(client: &'a Client, keys: &'a Keys, progress: &'a Progress) -> Option<Fetcher<'a>> {
        let decoder = Decoder::new(keys)?;
        Some(Fetcher { client, progress, decoder, bytes: Vec::new(), wrong: Vec::new() })
    }

    /// Carries out `fetch` of `plan`.
    pub fn run(&mut self, plan: &Plan, fetch: &Fetch, to: &mut dyn Blocks) {
        let mut bytes = std::mem::take(&mut self.bytes);
        bytes.clear();
        let range = (fetch.offset, fetch.bytes);
        let mut got = self.get(fetch, range, false, &mut bytes, to);
        if matches!(got, Got::Missing) {
            got = self.get(fetch, range, true, &mut bytes, to);
        }
        // Opening a frame spoils its bytes, and rows are foreign: frames may overlap.
        let mut spoiled_to = u64::from(fetch.offset);
        for frame in plan.frames_of(fetch) {
            let from = (frame.offset - fetch.offset) as usize;
            let part = bytes.get_mut(from..from.saturating_add(frame.bytes as usize));
            let part = part.filter(|_| u64::from(frame.offset) >= spoiled_to);
            spoiled_to = spoiled_to.max(u64::from(frame.offset) + u64::from(frame.bytes));
            let first = || part.is_some_and(|part| self.blocks(plan, fetch, frame, part, false, to).is_ok());
            let done = match got {
                Got::Missing => Err(Unread::Missing),
                Got::Ended => Err(Unread::Ended),
                Got::Bytes(_) if first() => Ok(()),
                Got::Bytes(_) => self.once_more(plan, fetch, frame, to),
            };
            if let Err(unread) = done {
                plan.blocks_of(frame).iter().for_each(|block| to.block(frame, block, Err(unread)));
            }
        }
        self.bytes = bytes;
    }

    fn get(
        &self,
        fetch: &Fetch,
        (offset, len): (u32, u32),
        afresh: bool,
        out: &mut Vec<u8>,
        to: &mut dyn Blocks,
    ) -> Got {
        if to.is_over() {
            return Got::Ended;
        }
        self.progress.gets.add(1);
        let key = fetch.object.object_key();
        let range = ByteRange::From { offset: offset.into(), len: u64::from(len).max(1) };
        let got = match afresh {
            true => self.client.get_afresh(&key, range, out),
            false => self.client.get(&key, range, out),
        };
        match got {
            Ok(have) => {
                self.progress.bytes_read.add(out.len() as u64);
                Got::Bytes(have)
            }
            Err(fault) if fault.kind == StoreFaultKind::NotFound => Got::Missing,
            Err(fault) => {
                to.fail(fault);
                Got::Ended
            }
        }
    }

    /// Fetches a frame by itself, from another connection: what is wrong with it now is damage.
    fn once_more(
        &mut self,
        plan: &Plan,
        fetch: &Fetch,
        frame: &Frame,
        to: &mut dyn Blocks,
    ) -> Result<(), Unread> {
        let mut bytes = Vec::new();
        match self.get(fetch, (frame.offset, frame.bytes), true, &mut bytes, to) {
            Got::Ended => Err(Unread::Ended),
            Got::Missing => Err(Unread::Missing),
            Got::Bytes(have) if bytes.len() < frame.bytes as usize => {
                Err(Unread::Short { have, need: u64::from(frame.offset) + u64::from(frame.bytes) })
            }
            Got::Bytes(_) => self.blocks(plan, fetch, frame, &mut bytes, true, to).map_err(Unread::Damaged),
        }
    }

    /// Opens a frame and hands on its blocks: all or none of them, but the `last` time, when those that hold are handed on and the
    /// others are said to be damaged. `Err`: none was.
    fn blocks(
        &mut self,
        plan: &Plan,
        fetch: &Fetch,
        frame: &Frame,
        bytes: &mut [u8],
        last: bool,
        to: &mut dyn Blocks,
    ) -> Result<(), FormatFault> {
        let plain = self.decoder.open(&fetch.object, frame.offset, bytes)?;
        let blocks = plan.blocks_of(frame);
        self.wrong.clear();
        for block in blocks {
            let wrong = plain.block(block.inner_offset, block.len, &block.digest).err();
            match wrong {
                Some(wrong) if !last => return Err(wrong),
                wrong => self.wrong.push(wrong),
            }
        }
        self.progress.bytes_packed.add(plain.bytes().len() as u64);
        for (block, wrong) in blocks.iter().zip(&self.wrong) {
            let from = block.inner_offset as usize;
            let bytes = match wrong {
                Some(wrong) => Err(Unread::Damaged(*wrong)),
                // Within the frame: it was verified.
                None => Ok(&plain.bytes()[from..from + block.len as usize]),
            };
            to.block(frame, block, bytes);
        }
        Ok(())
    }
}
