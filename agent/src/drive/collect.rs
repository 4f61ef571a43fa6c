//! Steps of a garbage run carried out: from the store, back into the store.
//!
//! ```text
//!  order --> gc::{mark, rewrite, carry} <-- rows, frames -- store
//!       `--> gc::sweep --> DELETE, several at once
//! ```
//!
//! Memory: a table source ([`TableLimits`]), what `gc::mark` counts in, one object and one segment; none of it is a job's. Threads: the
//! one that calls, and [`DELETE_THREADS`] while names are deleted. Source: ours.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::format::seal::Keys;
use crate::format::tail::TailKind;
use crate::gc::carry::{ObjectSink, carry};
use crate::gc::mark::{MARK_OBJECTS_MAX, Sizes, mark};
use crate::gc::rewrite::{Gates, rewrite};
use crate::gc::sweep;
use crate::gc::types::{Deleted, GarbageFault, Order, Outcome, Step};
use crate::id::{Boot, Epoch, NodeId, ObjectId, Slot};
use crate::log::state::State;
use crate::pack::object::NameCounter;
use crate::store::StoreFault;
use crate::store::retry::Client;
use crate::table::segment::{SegmentMeta, SegmentSink};
use crate::table::source::{Source, TableLimits};

/// Deletions at once: as many as a bucket takes without slowing others down.
pub const DELETE_THREADS: usize = 4;

/// What steps need: the same for all of a process.
#[derive(Clone)]
pub struct Collector {
    /// To the store.
    pub client: Arc<Client>,
    /// Of the repository.
    pub keys: Keys,
    /// Names given so far under this process's boot number.
    pub names: NameCounter,
    /// This node and this start of it.
    pub author: (NodeId, Boot),
    /// Blocks in a location row.
    pub row_blocks: u32,
}

impl Collector {
    /// Carries a step out; `state` is as of `seen`. Blocks; ends early when `stop` is set.
    ///
    /// # Errors
    /// See [`GarbageFault`]: nothing came of it, but orphans.
    pub fn run(
        &self,
        order: &Order,
        (state, seen): (&State, Slot),
        stop: &AtomicBool,
    ) -> Result<Outcome, GarbageFault> {
        let is_stopped = || stop.load(Ordering::Relaxed);
        match &order.step {
            Step::Mark { sizes } => {
                let list = &mut |from: &ObjectId, each: &mut dyn FnMut(ObjectId, u64) -> bool| {
                    self.sizes(from, each)
                };
                let list: &mut Sizes<'_> = list;
                let list = sizes.then_some((list, Gates::default()));
                mark(&mut self.source()?, state, MARK_OBJECTS_MAX, list, &is_stopped).map(Outcome::Marked)
            }
            Step::Move(moves) => {
                let mut objects = Uploads { of: self, epoch: order.epoch, body: Vec::new() };
                let mut segments = Segments { of: self, epoch: order.epoch, body: Vec::new() };
                let (keys, mut frames) = (&self.keys, Arc::clone(&self.client));
                let sinks: (&mut dyn ObjectSink, &mut dyn SegmentSink) = (&mut objects, &mut segments);
                let moves = (moves, Gates::default());
                rewrite(&mut self.source()?, &mut frames, keys, state, moves, sinks, &is_stopped)
                    .map(Outcome::Moved)
            }
            Step::Carry(names) => {
                let mut sink = Uploads { of: self, epoch: order.epoch, body: Vec::new() };
                let source = &mut self.source()?;
                let (keys, blocks) = (&self.keys, self.row_blocks);
                carry(source, keys, (state, seen), names, blocks, &mut sink, &is_stopped)
                    .map(Outcome::Carried)
            }
            Step::Delete(names) => self.delete(names, &is_stopped).map(Outcome::Deleted),
            Step::Orphans { after } => {
                sweep::orphans(&self.client, &self.keys, (state, order.wall_ns), after, &is_stopped)
                    .map(Outcome::Swept)
            }
        }
    }

    fn source(&self) -> Result<Source<Arc<Client>>, GarbageFault> {
        Source::new(Arc::clone(&self.client), &self.keys, TableLimits::default()).ok_or(GarbageFault::Memory)
    }

    /// Objects that the store lists, and their bytes.
    fn sizes(&self, from: &ObjectId, each: &mut dyn FnMut(ObjectId, u64) -> bool) -> Result<(), StoreFault> {
        let prefix = "obj/";
        let first = from.object_key();
        // Listings begin behind a key: its last character goes, and so do the few that sort between.
        let after = first.get(..first.len().saturating_sub(1)).filter(|after| after.len() > prefix.len());
        self.client.list(prefix, after.unwrap_or_default(), &mut |key, bytes| {
            let id = key.strip_prefix(prefix).and_then(|name| name.parse::<ObjectId>().ok());
            id.is_none_or(|id| id < *from || each(id, bytes))
        })
    }

    fn name(&self, epoch: Epoch) -> ObjectId {
        let (node, boot) = self.author;
        ObjectId { epoch, node, boot, count: self.names.take() }
    }

    fn delete(
        &self,
        names: &[(ObjectId, TailKind)],
        stop: &(dyn Fn() -> bool + Sync),
    ) -> Result<Deleted, GarbageFault> {
        let share = names.len().div_ceil(DELETE_THREADS).max(1);
        let parts: Vec<Result<Deleted, GarbageFault>> = std::thread::scope(|scope| {
            let one = |part| scope.spawn(move || sweep::delete(&self.client, part, stop));
            let threads: Vec<_> = names.chunks(share).map(one).collect();
            threads.into_iter().filter_map(|thread| thread.join().ok()).collect()
        });
        let mut all = Deleted::default();
        let mut fault = None;
        for part in parts {
            match part {
                Ok(part) => {
                    all.gone.extend(part.gone);
                    all.later.extend(part.later);
                    all.why = all.why.or(part.why);
                }
                Err(why) => fault = Some(why),
            }
        }
        all.gone.sort_unstable();
        match fault {
            Some(fault) if all.gone.is_empty() => Err(fault),
            _ => Ok(all),
        }
    }
}

/// Objects with carried rows on their way into the store, one at a time.
struct Uploads<'a> {
    of: &'a Collector,
    epoch: Epoch,
    body: Vec<u8>,
}

impl ObjectSink for Uploads<'_> {
    fn begin(&mut self) -> ObjectId {
        self.body.clear();
        self.of.name(self.epoch)
    }

    fn put(&mut self, bytes: &[u8]) {
        self.body.extend_from_slice(bytes);
    }

    fn end(&mut self, id: ObjectId) -> Result<(), StoreFault> {
        self.of.client.put_unique(&id.object_key(), &[&self.body])
    }
}

/// Segments on their way into the store, one at a time.
struct Segments<'a> {
    of: &'a Collector,
    epoch: Epoch,
    body: Vec<u8>,
}

impl SegmentSink for Segments<'_> {
    fn begin(&mut self) -> ObjectId {
        self.body.clear();
        self.of.name(self.epoch)
    }

    fn put(&mut self, bytes: &[u8]) {
        self.body.extend_from_slice(bytes);
    }

    fn end(&mut self, meta: &SegmentMeta) -> Result<(), StoreFault> {
        self.of.client.put_unique(&meta.id.segment_key(), &[&self.body])
    }
}
