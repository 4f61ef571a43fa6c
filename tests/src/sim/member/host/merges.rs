//! Merges of a simulated node: what takes the place of segments is made, stored and reported.
//!
//! In seeds with data it is the product's own merge. Source: ours; `table::merge`.

use super::super::data::{self, Machinery};
use super::{Host, Merge, PAUSE_MAX_NS, PAUSE_NS, Timer};
use windlass_agent::id::{Boot, NodeId, ObjectId};
use windlass_agent::log::call::{Answer, Body};
use windlass_agent::log::state::State;
use windlass_agent::node::Event;
use windlass_agent::table::segment::SegmentMeta;
use windlass_agent::work::{AssignmentId, MergeOrder};

impl Host {
    pub(super) fn is_merging(&self, id: AssignmentId) -> bool {
        self.merge.as_ref().is_some_and(|merge| merge.order.id == id)
    }

    /// A merged segment's PUT was answered.
    pub(super) fn merge_put(
        &mut self,
        answer: Answer,
        id: AssignmentId,
        key: String,
        body: Body,
        tries: u32,
    ) -> Option<Event> {
        let merge = self.merge.as_mut()?;
        if answer == Answer::Done {
            self.shared.borrow_mut().bodies.insert(key, body);
            merge.left -= 1;
            let done = self.merge.take_if(|merge| merge.left == 0)?;
            return Some(Event::Merged { id, result: Ok(done.added) });
        }
        let tries = tries + 1;
        if tries >= self.shared.borrow().tries {
            self.merge = None;
            return Some(Event::Merged { id, result: Err("the store does not answer".to_owned()) });
        }
        let pause = (PAUSE_NS << tries.min(16)).min(PAUSE_MAX_NS);
        self.soon(pause, Timer::Again { id, key, body, tries });
        None
    }

    /// The segments to merge are read: what takes their place goes to the store.
    pub fn merge_moves(&mut self, id: AssignmentId) -> Option<Event> {
        let merge = self.merge.take().filter(|merge| merge.order.id == id)?;
        let Merge { order, state, .. } = merge;
        let made = if self.shared.borrow().data {
            let machinery = self.machinery.get_or_insert_with(|| Machinery::new(&self.shared, self.node));
            let writer = (id.epoch, NodeId(self.node as u32 + 1), Boot(self.boot));
            data::merge(&self.shared, &state, &order, writer, machinery)
        } else {
            self.hull(id, &state, &order).map(|hull| vec![hull])
        };
        match made {
            Err(why) => Some(Event::Merged { id, result: Err(why) }),
            Ok(made) if made.is_empty() => Some(Event::Merged { id, result: Ok(Vec::new()) }),
            Ok(made) => {
                let added = made.iter().map(|(meta, _)| *meta).collect();
                self.merge = Some(Merge { order, state, left: made.len(), added });
                for (meta, body) in made {
                    self.put(id, meta.id.segment_key(), body.into(), 0);
                }
                None
            }
        }
    }

    /// Stands in for what takes the place of segments that have no rows.
    fn hull(
        &mut self,
        id: AssignmentId,
        state: &State,
        order: &MergeOrder,
    ) -> Result<(SegmentMeta, Vec<u8>), String> {
        let name = self.name(id.epoch);
        let all = state.segments.get(&order.volume).map(|list| list.as_slice()).unwrap_or_default();
        let group: Vec<&SegmentMeta> = all.iter().filter(|s| order.segments.contains(&s.id)).collect();
        if group.len() != order.segments.len() {
            // Below the floor retired names have no entry any more.
            let known = |id: &ObjectId| {
                state.live.contains(id) || state.retired.contains_key(id) || id.epoch <= state.orphan_floor
            };
            if !order.segments.iter().all(known) {
                self.fail(format!("{order:?} is to be merged, and the log was not read so far"));
            }
            return Err("somebody else has merged them".to_owned());
        }
        let mut hull = group.first().map_or_else(SegmentMeta::default, |first| **first);
        for segment in group {
            hull.first_inode = hull.first_inode.min(segment.first_inode);
            hull.last_inode = hull.last_inode.max(segment.last_inode);
            hull.backup_min = hull.backup_min.min(segment.backup_min);
            hull.backup_max = hull.backup_max.max(segment.backup_max);
        }
        hull.id = name;
        Ok((hull, name.to_bytes().to_vec()))
    }
}
