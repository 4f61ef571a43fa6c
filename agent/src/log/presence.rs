//! The presence sweep: whether the store still lists everything that the tables refer to.
//!
//! ```text
//!  LIST obj/ after a key, page by page --+-- live objects between the two keys that were not listed: asked for once more, then missing
//!  LIST seg/ behind it                   `-- missing ones that were listed: present
//! ```
//!
//! A repository of a million objects is a thousand pages, so a sweep has a budget of pages and goes on where the last one stopped.
//!
//! Invariants: a name is taken for missing only when neither a LIST nor a GET over another connection has it. What leaves the tables
//! meanwhile is passed over by the state ([`Damage`]). Memory: the names of a sweep's pages, in runs.
//! Does not: read data, commit, or decide which points are affected.
//! Source: ours; `agent/doc/commit-log.md`, G2 for the order of keys.

use super::damage::Damage;
use super::names::NameSet;
use super::state::State;
use crate::id::ObjectId;
use crate::store::retry::{Client, LIST_PAGE_KEYS};
use crate::store::{ByteRange, StoreFault, StoreFaultKind};

/// From the end of one sweep to the beginning of the next, in nanoseconds: a day.
pub const SWEEP_EVERY_NS: i64 = 24 * 3600 * 1_000_000_000;
/// Pages of one sweep: 100,000 names, some seconds of one connection.
pub const SWEEP_PAGES_MAX: u64 = 100;
/// Names that were not listed and are asked for, in one sweep; it ends behind the last of them.
pub const SWEEP_ASKED_MAX: usize = 1000;
/// What a sweep lists, in order: upload objects, segments.
const PREFIXES: [&str; 2] = ["obj/", "seg/"];
/// Counts from here on have nine digits, and their keys no longer come by number.
const COUNT_IN_ORDER_MAX: u32 = 99_999_999;

/// What a sweep found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Presence {
    /// Live names that are not there.
    pub missing: NameSet,
    /// Names known as missing that are there.
    pub present: NameSet,
    /// Key behind which the next sweep goes on; empty at the end.
    pub after: String,
}

/// Whether it is time: one that was interrupted goes on at once, and the first one waits for something to be lost.
pub fn is_due(state: &State, wall_ns: i64) -> bool {
    !state.points.is_empty() && is_time(&state.damage, wall_ns)
}

fn is_time(damage: &Damage, wall_ns: i64) -> bool {
    let since = wall_ns.saturating_sub(damage.swept_ns);
    // A clock that went back must not keep sweeps from being made.
    !damage.sweep_after.is_empty() || !(0..SWEEP_EVERY_NS).contains(&since)
}

/// Sweeps on from where the log says, over at most `pages` pages. `stop` is asked at every key and before every GET: what was found until
/// then counts. Errors: what the store says.
pub fn sweep(
    client: &Client,
    state: &State,
    pages: u64,
    stop: &dyn Fn() -> bool,
) -> Result<Presence, StoreFault> {
    let mut found = Presence::default();
    let mut left = pages.saturating_mul(LIST_PAGE_KEYS);
    let mut asked = SWEEP_ASKED_MAX;
    let segments = segments(state);
    let begin = &state.damage.sweep_after;
    for prefix in PREFIXES {
        if begin.as_str() > prefix && !begin.starts_with(prefix) {
            continue;
        }
        let from = if begin.starts_with(prefix) { begin.as_str() } else { "" };
        let (mut listed, mut last, mut cut) = (NameSet::default(), None, false);
        client.list(prefix, from, &mut |key, _| {
            if left == 0 || stop() {
                cut = true;
                return false;
            }
            left -= 1;
            if let Some(id) = key.strip_prefix(prefix).and_then(|name| name.parse().ok()) {
                listed.insert(&id);
                last = Some(id);
            }
            true
        })?;
        // What is due: live names of this kind behind the one key, up to the other.
        let of_segments = prefix == PREFIXES[1];
        let due = if of_segments {
            segments.clone()
        } else {
            let mut objects = (*state.live).clone();
            objects.subtract(&segments);
            objects
        };
        let first: Option<ObjectId> = from.strip_prefix(prefix).and_then(|name| name.parse().ok());
        let within = |id: &ObjectId| {
            first.is_none_or(|first| *id > first) && (!cut || last.is_some_and(|last| *id <= last))
        };
        found.present.add(&state.damage.missing.and(&listed).and(&due));
        let mut absent = due;
        absent.subtract(&listed);
        absent.subtract(&state.damage.missing);
        for id in absent.names().filter(|id| within(id) && id.count <= COUNT_IN_ORDER_MAX) {
            if asked == 0 || stop() {
                found.after = format!("{prefix}{}", before(&id));
                return Ok(found);
            }
            asked -= 1;
            let key = format!("{prefix}{id}");
            match client.get_afresh(&key, ByteRange::Last(1), &mut Vec::new()) {
                Ok(_) => {}
                Err(fault) if fault.kind == StoreFaultKind::NotFound => drop(found.missing.insert(&id)),
                Err(fault) => return Err(fault),
            }
        }
        if cut {
            let so_far = if from.is_empty() { prefix } else { from };
            found.after = last.map_or_else(|| so_far.to_owned(), |last| format!("{prefix}{last}"));
            return Ok(found);
        }
    }
    Ok(found)
}

/// The names of all segments.
fn segments(state: &State) -> NameSet {
    let mut names = NameSet::default();
    for segment in state.segments.values().flat_map(|list| list.iter()) {
        names.insert(&segment.id);
    }
    names
}

/// A key behind which `id` is the next one at the earliest.
fn before(id: &ObjectId) -> ObjectId {
    match id.count.checked_sub(1) {
        Some(count) => ObjectId { count, ..*id },
        None => *id,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use windlass_hal::clock::SystemClock;

    use super::*;
    use crate::format::record::SegmentMeta;
    use crate::id::{Boot, Epoch, NodeId, VolumeId};
    use crate::store::memory::MemoryStore;
    use crate::store::retry::RetryPolicy;
    use crate::store::{PutMode, Store};

    fn id(node: u32, count: u32) -> ObjectId {
        ObjectId { epoch: Epoch(1), node: NodeId(node), boot: Boot(7), count }
    }

    fn sweep_all(client: &Client, state: &mut State, pages: u64) -> (Vec<ObjectId>, Vec<ObjectId>, u32) {
        let (mut missing, mut present, mut sweeps) = (Vec::new(), Vec::new(), 0);
        loop {
            let found = sweep(client, state, pages, &|| false).unwrap();
            sweeps += 1;
            missing.extend(found.missing.names());
            present.extend(found.present.names());
            let damage = Arc::make_mut(&mut state.damage);
            damage.missing.add(&found.missing);
            damage.missing.subtract(&found.present);
            damage.sweep_after.clone_from(&found.after);
            if found.after.is_empty() {
                missing.sort();
                return (missing, present, sweeps);
            }
        }
    }

    #[test]
    fn what_is_not_listed_is_found_in_any_number_of_sweeps_and_so_is_what_came_back() {
        let store = Arc::new(MemoryStore::default());
        let client =
            Client::new(Arc::<MemoryStore>::clone(&store), Arc::new(SystemClock), RetryPolicy::ONCE, 1);
        let mut state = State::default();
        // Two writers: objects 0 to 1499 of each, but for the segments among them.
        for node in [1, 2] {
            for count in 0..1500 {
                let id = id(node, count);
                Arc::make_mut(&mut state.live).insert(&id);
                let key = if count % 500 == 3 {
                    let meta = SegmentMeta { id, volume: VolumeId(1), ..SegmentMeta::default() };
                    Arc::make_mut(state.segments.entry(VolumeId(1)).or_default()).push(meta);
                    id.segment_key()
                } else {
                    id.object_key()
                };
                store.put(&key, &[b"x"], PutMode::Replace).unwrap();
            }
        }
        // Not ours: of a backup that was given up.
        store.put(&id(3, 9).object_key(), &[b"x"], PutMode::Replace).unwrap();
        assert_eq!(sweep_all(&client, &mut state, 100), (vec![], vec![], 1));
        assert_eq!(sweep_all(&client, &mut state, 1).2, 4);
        let gone = [id(1, 0), id(1, 1), id(1, 999), id(2, 1499)];
        gone.iter().for_each(|id| store.delete(&id.object_key()).unwrap());
        store.delete(&id(2, 3).segment_key()).unwrap();
        let mut all: Vec<ObjectId> = gone.into_iter().chain([id(2, 3)]).collect();
        all.sort();
        for pages in [1, 2, 100] {
            state.damage = Arc::default();
            let (missing, present, _) = sweep_all(&client, &mut state, pages);
            assert_eq!((missing, present), (all.clone(), vec![]), "{pages} pages at a time");
        }
        store.put(&id(1, 999).object_key(), &[b"x"], PutMode::Replace).unwrap();
        assert_eq!(sweep_all(&client, &mut state, 1).1, [id(1, 999)]);
        assert_eq!(state.damage.missing.len(), 4);
        // More than one sweep asks for.
        for count in 0..1200 {
            store.delete(&id(1, count).object_key()).unwrap();
        }
        let (missing, _, sweeps) = sweep_all(&client, &mut state, 100);
        assert_eq!(
            (missing.len(), sweeps),
            (1200 - 3 - 2, 2),
            "less three segments, and two that were known"
        );
    }

    #[test]
    fn one_that_is_stopped_while_it_asks_keeps_what_it_has_and_the_next_goes_on() {
        let store = Arc::<MemoryStore>::default();
        let client = Client::new(store, Arc::new(SystemClock), RetryPolicy::ONCE, 1);
        let mut state = State::default();
        (0..9).for_each(|count| assert!(Arc::make_mut(&mut state.live).insert(&id(1, count))));
        // Nothing is listed, so it is asked before each of the GETs.
        let left = std::cell::Cell::new(4);
        let stop = || left.replace(left.get() - 1) == 0;
        let found = sweep(&client, &state, 100, &stop).unwrap();
        assert_eq!(found.missing.names().collect::<Vec<_>>(), [id(1, 0), id(1, 1), id(1, 2), id(1, 3)]);
        assert_eq!(client.counts().get, 4);
        let damage = Arc::make_mut(&mut state.damage);
        damage.missing.add(&found.missing);
        damage.sweep_after.clone_from(&found.after);
        assert_eq!(sweep_all(&client, &mut state, 100).0.len(), 5);
    }

    #[test]
    fn once_a_day_and_at_once_when_one_was_interrupted() {
        let mut damage = Damage { swept_ns: 5, ..Damage::default() };
        assert!(!is_time(&damage, SWEEP_EVERY_NS + 4) && is_time(&damage, SWEEP_EVERY_NS + 5));
        assert!(is_time(&damage, 4), "the clock went back");
        damage.sweep_after = "obj/1".to_owned();
        assert!(is_time(&damage, 6) && is_time(&Damage::default(), SWEEP_EVERY_NS));
        assert!(!is_due(&State::default(), SWEEP_EVERY_NS), "nothing can be lost yet");
    }
}
