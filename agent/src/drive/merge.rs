//! Merges carried out: from the store, through the pieces of upload objects, back into the store.
//!
//! ```text
//!  order --> worker::merge <-- row blocks -- store
//!                 `--> pieces --> PUT segment --> entries, for the commit that takes the old ones out
//! ```
//!
//! Nothing is read or written ahead by other threads: a merge has all the time until the next backup, and no memory of its own.
//! Source: ours.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use windlass_hal::buf::Pool;

use crate::format::seal::Keys;
use crate::id::{Boot, Epoch, NodeId, ObjectId};
use crate::log::state::State;
use crate::pack::object::{NameCounter, ObjectBuf, PIECE_BYTES, Placer};
use crate::store::StoreFault;
use crate::store::retry::Client;
use crate::table::plan::SEGMENT_BYTES;
use crate::table::segment::{SegmentMeta, SegmentSink};
use crate::work::MergeOrder;
use crate::worker::merge::{self, MergeFault};

/// Pieces that a segment may take.
const SEGMENT_PIECES: usize = SEGMENT_BYTES as usize / PIECE_BYTES + 1;

/// What merges need: the same for all of a process.
#[derive(Clone)]
pub struct Merger {
    /// To the store.
    pub client: Arc<Client>,
    /// Of the repository.
    pub keys: Keys,
    /// Pieces of objects: no job uses them meanwhile.
    pub pieces: Pool,
    /// Names given so far under this process's boot number.
    pub names: NameCounter,
    /// This node and this start of it.
    pub author: (NodeId, Boot),
}

impl Merger {
    /// Merges the segments of `order`, and returns what takes their place. Names are of `epoch`. Blocks; ends early when `stop` is set.
    pub fn run(
        &self,
        epoch: Epoch,
        state: &State,
        order: &MergeOrder,
        stop: &AtomicBool,
    ) -> Result<Vec<SegmentMeta>, MergeFault> {
        let (node, boot) = self.author;
        let writer = (epoch, node, boot);
        let placer = Placer::new(self.pieces.clone(), SEGMENT_BYTES as u32, writer, self.names.clone());
        if placer.spare() < SEGMENT_PIECES {
            return Err(MergeFault::Busy);
        }
        let mut sink = Uploads { client: &self.client, placer, open: None, stored: Vec::new() };
        let fetch = Arc::clone(&self.client);
        merge::run(fetch, &self.keys, state, order, &mut sink, &|| stop.load(Ordering::Relaxed))?;
        Ok(sink.stored)
    }
}

/// Segments on their way into the store, one at a time.
struct Uploads<'a> {
    client: &'a Client,
    placer: Placer,
    open: Option<Arc<ObjectBuf>>,
    stored: Vec<SegmentMeta>,
}

impl SegmentSink for Uploads<'_> {
    fn begin(&mut self) -> ObjectId {
        self.open.insert(self.placer.separate()).id()
    }

    fn put(&mut self, bytes: &[u8]) {
        if let Some(open) = &self.open {
            open.append(bytes, self.placer.pool());
        }
    }

    fn end(&mut self, meta: &SegmentMeta) -> Result<(), StoreFault> {
        if let Some(open) = self.open.take() {
            open.with_parts(|parts| self.client.put_unique(&meta.id.segment_key(), parts))?;
        }
        self.stored.push(*meta);
        Ok(())
    }
}
