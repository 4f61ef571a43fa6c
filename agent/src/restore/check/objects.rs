//! Which upload objects a store has: one LIST, eight bytes an object.
//!
//! Source: ours.

use super::CheckEnd;
use crate::id::{Boot, Epoch, NodeId, ObjectId};
use crate::progress::Progress;
use crate::store::retry::Client;

/// Most upload objects that a check takes on: 32 MiB of list. At 64 MiB an object that is 256 TiB.
pub const OBJECTS_MAX: usize = 4_000_000;

/// Who wrote an object.
type Writer = (Epoch, NodeId, Boot);

/// Which upload objects there are, and how long they are.
#[derive(Debug, Default)]
pub struct Objects {
    /// Writers with the first of their objects, ascending.
    writers: Vec<(Writer, usize)>,
    /// Count and size, ascending within a writer. Sizes that do not fit are as good as the largest: offsets have 32 bits too.
    sizes: Vec<(u32, u32)>,
    /// A bit per object: referred to.
    used: Vec<u64>,
}

impl Objects {
    /// Lists the store: one LIST, of many pages when there are many objects.
    pub fn list(client: &Client, progress: &Progress) -> Result<Objects, CheckEnd> {
        let mut objects = Objects::default();
        let mut end = None;
        let listed = client.list("obj/", "", &mut |key, size| {
            if progress.is_stop_requested() {
                end = Some(CheckEnd::Cancelled);
            } else if objects.sizes.len() >= OBJECTS_MAX {
                end = Some(CheckEnd::TooManyObjects);
            } else if let Some(id) = key.strip_prefix("obj/").and_then(|name| name.parse().ok()) {
                objects.push(id, size);
            }
            end.is_none()
        });
        if let Some(end) = end {
            return Err(end);
        }
        listed.map_err(CheckEnd::Store)?;
        objects.finish();
        Ok(objects)
    }

    fn push(&mut self, id: ObjectId, size: u64) {
        let writer = (id.epoch, id.node, id.boot);
        if self.writers.last().is_none_or(|(last, _)| *last != writer) {
            self.writers.push((writer, self.sizes.len()));
        }
        self.sizes.push((id.count, u32::try_from(size).unwrap_or(u32::MAX)));
    }

    /// Keys of one writer come together; past eight digits they no longer come by number.
    fn finish(&mut self) {
        for at in 0..self.writers.len() {
            let range = self.range(at);
            self.sizes[range].sort_unstable();
        }
        self.used = vec![0; self.sizes.len().div_ceil(64)];
    }

    fn range(&self, writer: usize) -> std::ops::Range<usize> {
        let end = self.writers.get(writer + 1).map_or(self.sizes.len(), |next| next.1);
        self.writers[writer].1..end
    }

    fn place(&self, id: &ObjectId) -> Option<usize> {
        let writer = (id.epoch, id.node, id.boot);
        let at = self.writers.binary_search_by(|(have, _)| have.cmp(&writer)).ok()?;
        let range = self.range(at);
        let first = range.start;
        self.sizes[range].binary_search_by_key(&id.count, |entry| entry.0).ok().map(|at| first + at)
    }

    /// Bytes of an object, if there is one. It counts as referred to from now on.
    pub fn refer(&mut self, id: &ObjectId) -> Option<u64> {
        let at = self.place(id)?;
        self.used[at / 64] |= 1 << (at % 64);
        Some(self.sizes[at].1.into())
    }

    /// How many there are.
    pub fn len(&self) -> u64 {
        self.sizes.len() as u64
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.sizes.is_empty()
    }

    /// How many were referred to.
    pub fn referred(&self) -> u64 {
        self.used.iter().map(|word| u64::from(word.count_ones())).sum()
    }
}
