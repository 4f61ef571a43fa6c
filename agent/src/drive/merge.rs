//! Merges carried out: from the store, through the pieces of upload objects, back into the store; and all that a process that acts alone
//! has to do of them.
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
use windlass_hal::clock::Clock;

use crate::backplane::message::MergeOrder;
use crate::coordinator::merges;
use crate::drive::commits::Commits;
use crate::format::seal::Keys;
use crate::format::slot::Sealer;
use crate::id::{BackupId, Boot, Epoch, NodeId, ObjectId};
use crate::log::session::Session;
use crate::log::state::State;
use crate::pack::object::{NameCounter, ObjectBuf, PIECE_BYTES, Placer};
use crate::store::StoreFault;
use crate::store::retry::Client;
use crate::table::plan::{Bounds, SEGMENT_BYTES};
use crate::table::segment::{SegmentMeta, SegmentSink};
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

/// What was merged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Merged {
    /// Segments that are no more.
    pub removed: u64,
    /// Segments that took their place.
    pub added: u64,
}

/// Merges until the tables of all volumes are in order, makes room for that first if need be ([`merges::floor`]), and gives the session back unless the thread that had it died. A fault ends it
/// and is the caller's to tell: the tables are as good as they were.
pub fn in_order<'env, S: Sealer + Clone + Send + 'env>(
    mut session: Session<'env, S>,
    clock: &'env impl Clock,
    merger: &Merger,
    stop: &AtomicBool,
) -> (Option<Session<'env, S>>, Merged, Result<(), String>) {
    let mut done = Merged::default();
    let floor = merges::floor(&session.view().state, merges::RETIRED_FLOOR_MIN, false);
    if let Some(Err(fault)) = floor.map(|floor| session.commit(vec![floor])) {
        return (Some(session), done, Err(fault.to_string()));
    }
    loop {
        let (epoch, state) = (session.epoch(), session.view().state.clone());
        let mut volumes = state.segments.keys();
        let Some(order) = volumes.find_map(|&volume| merges::next(&state, volume, Bounds::default())) else {
            return (Some(session), done, Ok(()));
        };
        // Beats go on meanwhile.
        let (kept, result) = std::thread::scope(|scope| {
            let (mut commits, handle) = Commits::start(scope, session, clock, BackupId(0), Arc::new(|| {}));
            let result = merger.run(epoch, &state, &order, stop).map_err(|fault| fault.to_string());
            let result = result.and_then(|segments| {
                let (removed, added) = (order.segments.len() as u64, segments.len() as u64);
                commits.commit(vec![merges::record(&order, segments)]).map_err(|fault| fault.to_string())?;
                Ok(Merged { removed, added })
            });
            commits.finish();
            (handle.join().ok().map(|(session, _)| session), result)
        });
        match (kept, result) {
            (Some(kept), Ok(merged)) => {
                done.removed += merged.removed;
                done.added += merged.added;
                session = kept;
            }
            (kept, result) => {
                let died = || "the commit log's thread died".to_owned();
                return (kept, done, Err(result.err().unwrap_or_else(died)));
            }
        }
    }
}
