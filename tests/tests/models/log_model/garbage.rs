//! Breadth-first search over the garbage rules: pins, retirement, orphan floor, and deletes that land at any later time.
//!
//! ```text
//!  prelude: writer 1 holds the lease, object 1 is in the tables
//!  then in any order:  steps of both writers | an upload begins, lands | the holder commits one of
//!      object, pin, unpin, retirement, orphan floor | the holder collects or sweeps: deletes set out | a delete lands
//! ```
//!
//! | rule | when it is checked |
//! |---|---|
//! | I4 | after each step: what the tables name is in the store, and what was retired while a pin is older |
//! | I6 | a delete lands: the object is retired, or at or below the orphan floor and in no table |
//!
//! What the log says is the fold of its slots; what a writer believes, and collects by, is its own. A delete that set out lands whatever
//! becomes of its writer. Checkpoints and the boundary are left to `search`.
//! Source: `agent/doc/commit-log.md`, Garbage.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use windlass_agent::format::record::{Commit, Record};
use windlass_agent::format::slot::PlainForTests;
use windlass_agent::id::{Boot, Epoch, NodeId, ObjectId, Slot};
use windlass_agent::log::call::{Answer, Call};
use windlass_agent::log::keys;
use windlass_agent::log::replay::{ReplayOptions, View, apply_slot};
use windlass_agent::log::state::State;
use windlass_agent::log::writer::{Action, WriterOptions};
use windlass_tests::sim::store::{CLUSTER, Shelf};

use super::seat::{Seat, in_bounds, print_of};

/// Writers, and uploads: one of each node.
const WRITERS: u32 = 2;
/// Batches that a writer commits at most, over all its lives.
const BATCHES_MAX: u32 = 4;
const EPOCHS_MAX: u64 = 2;
const SLOTS_MAX: u64 = 7;
/// The one pin.
const PIN: u64 = 1;

/// What the collector leaves out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Skip {
    Nothing,
    /// Deletes set out with the batch that retires, not after it.
    Retirement,
    /// What is retired is deleted, pinned or not.
    Pins,
    /// What no table names is deleted, whatever its epoch.
    Floor,
}

#[derive(Clone)]
struct World {
    shelf: Shelf,
    /// The log as it is.
    model: View,
    seats: Vec<Seat>,
    /// Names given, and whether the store has acknowledged them.
    uploads: Vec<(ObjectId, bool)>,
    /// Deletes on their way.
    late: BTreeSet<ObjectId>,
    /// Objects deleted.
    deleted: u32,
}

/// What a holder may do besides answering.
#[derive(Clone, Copy)]
enum Deed {
    Add(ObjectId),
    Pin,
    Unpin,
    Retire(ObjectId),
    Floor(Epoch),
    /// G1: delete what is retired and not pinned.
    Collect,
    /// G2: delete what no table names, at or below the floor.
    Sweep,
}

fn options() -> WriterOptions {
    WriterOptions {
        replay: ReplayOptions { gets_max: 1, ..ReplayOptions::default() },
        checkpoint_slots: 100,
        boundary_lag_slots: 100,
        ..WriterOptions::default()
    }
}

impl World {
    /// Writer 1 is ready and has committed object 1.
    fn new() -> World {
        let seats = (1..=WRITERS).map(|number| Seat::new(number, options())).collect();
        let (shelf, model) = (Shelf::default(), View::default());
        let mut world = World { shelf, model, seats, uploads: Vec::new(), late: BTreeSet::new(), deleted: 0 };
        (0..world.seats.len()).for_each(|at| world.settle(at).unwrap());
        world.run_first();
        world.begin(Epoch(1)).unwrap();
        world.land(0).unwrap();
        let first = world.uploads[0].0;
        world.commit(0, Deed::Add(first), Skip::Nothing).unwrap();
        world.run_first();
        assert!(world.model.state.live.contains(&first));
        world
    }

    fn run_first(&mut self) {
        while !self.seats[0].ids.is_empty() {
            self.step(0, 0).unwrap();
        }
        assert!(self.seats[0].node.writer.is_ready());
    }

    fn print(&self) -> u64 {
        let seats: Vec<u64> = self.seats.iter().map(|seat| seat.print).collect();
        let keys: Vec<(&Arc<str>, &[u8])> =
            self.shelf.objects.iter().map(|(key, body)| (key, &body[..])).collect();
        print_of(&(seats, keys, &self.shelf.after_fence, &self.uploads, &self.late))
    }

    fn successors(&self, skip: Skip) -> Vec<Result<World, String>> {
        let mut next: Vec<Result<World, String>> = Vec::new();
        let mut go = |deed: &dyn Fn(&mut World) -> Result<(), String>| {
            let mut world = self.clone();
            next.push(deed(&mut world).and_then(|()| world.check()).map(|()| world));
        };
        for (at, seat) in self.seats.iter().enumerate() {
            for call in
                (0..seat.ids.len()).filter(|&call| in_bounds(&seat.node.open[call], SLOTS_MAX, EPOCHS_MAX))
            {
                go(&|world| world.step(at, call));
            }
            if seat.node.writer.is_ready() {
                for deed in self.deeds(at, skip) {
                    go(&|world| world.commit(at, deed, skip));
                }
            }
        }
        if self.uploads.len() < WRITERS as usize {
            for epoch in (1..=self.model.state.epoch.0).map(Epoch) {
                go(&|world| world.begin(epoch));
            }
        }
        for at in (0..self.uploads.len()).filter(|&at| !self.uploads[at].1) {
            go(&|world| world.land(at));
        }
        for id in &self.late {
            go(&|world| world.delete(id));
        }
        next
    }

    fn deeds(&self, at: usize, skip: Skip) -> Vec<Deed> {
        let node = &self.seats[at].node;
        let state = &node.writer.view().state;
        let mut deeds = Vec::new();
        if node.commits < BATCHES_MAX && node.writer.view().head.0 < SLOTS_MAX {
            let is_new = |id: &ObjectId| {
                id.epoch <= state.epoch
                    && id.epoch > state.orphan_floor
                    && !state.live.contains(id)
                    && !state.retired.contains_key(id)
            };
            deeds.extend(
                self.uploads
                    .iter()
                    .filter(|(id, stored)| *stored && is_new(id))
                    .map(|(id, _)| Deed::Add(*id)),
            );
            deeds.extend(
                self.uploads
                    .iter()
                    .filter(|(id, _)| state.live.contains(id))
                    .map(|(id, _)| Deed::Retire(*id)),
            );
            deeds.push(if state.pins.is_empty() { Deed::Pin } else { Deed::Unpin });
            let floor = Epoch(state.epoch.0 - 1);
            deeds.extend((floor > state.orphan_floor).then_some(Deed::Floor(floor)));
        }
        let more = |deed: Deed| self.doomed(state, deed, skip).iter().any(|id| !self.late.contains(id));
        deeds.extend([Deed::Collect, Deed::Sweep].into_iter().filter(|&deed| more(deed)));
        deeds
    }

    /// What a collector that knows the log as `state` deletes.
    fn doomed(&self, state: &State, deed: Deed, skip: Skip) -> Vec<ObjectId> {
        let held = self.uploads.iter().map(|(id, _)| *id).filter(|id| self.shelf.holds(&id.object_key()));
        let deletable: BTreeSet<ObjectId> = match skip {
            Skip::Pins => state.retired.keys().copied().collect(),
            Skip::Nothing | Skip::Retirement | Skip::Floor => state.deletable().collect(),
        };
        match deed {
            Deed::Collect => held.filter(|id| deletable.contains(id)).collect(),
            Deed::Sweep => {
                let below = |id: &ObjectId| id.epoch <= state.orphan_floor || skip == Skip::Floor;
                let unpinned = |id: &ObjectId| !state.retired.contains_key(id) || deletable.contains(id);
                held.filter(|id| below(id) && !state.live.contains(id) && unpinned(id)).collect()
            }
            Deed::Retire(id) if skip == Skip::Retirement => vec![id],
            Deed::Add(_) | Deed::Pin | Deed::Unpin | Deed::Retire(_) | Deed::Floor(_) => Vec::new(),
        }
    }

    fn commit(&mut self, at: usize, deed: Deed, skip: Skip) -> Result<(), String> {
        let doomed = self.doomed(&self.seats[at].node.writer.view().state, deed, skip);
        self.late.extend(doomed);
        let record = match deed {
            Deed::Add(id) => Record::Commit(Commit { objects: vec![(id, 1)], ..Commit::default() }),
            Deed::Pin => Record::Pin { pin: PIN, node: NodeId(9) },
            Deed::Unpin => Record::Unpin { pin: PIN },
            Deed::Retire(id) => Record::Retire { objects: vec![id] },
            Deed::Floor(epoch) => Record::OrphanFloor { epoch },
            Deed::Collect | Deed::Sweep => return Ok(()),
        };
        let node = Arc::make_mut(&mut self.seats[at].node);
        node.commits += 1;
        node.writer.commit(0, vec![record]).map_err(|(fault, _)| format!("refused: {fault}"))?;
        self.settle(at)
    }

    fn begin(&mut self, epoch: Epoch) -> Result<(), String> {
        let node = NodeId(self.uploads.len() as u32 + 1);
        self.uploads.push((ObjectId { epoch, node, boot: Boot(1), count: 1 }, false));
        Ok(())
    }

    fn land(&mut self, at: usize) -> Result<(), String> {
        self.uploads[at].1 = true;
        let key = self.uploads[at].0.object_key();
        self.shelf.apply(&Call::Put { key, body: vec![0; 4].into() }).map(drop)
    }

    /// I6.
    fn delete(&mut self, id: &ObjectId) -> Result<(), String> {
        self.late.remove(id);
        let state = &self.model.state;
        if !state.retired.contains_key(id) && (state.live.contains(id) || id.epoch > state.orphan_floor) {
            return Err(format!("I6: {id} is deleted, and no record allows it"));
        }
        self.deleted += 1;
        self.shelf.apply(&Call::Delete { key: id.object_key() }).map(drop)
    }

    /// I4.
    fn check(&mut self) -> Result<(), String> {
        while let Some(first) = self.shelf.first.get(&Slot(self.model.head.0 + 1)) {
            let applied = apply_slot(&mut self.model, &first.bytes, &CLUSTER, &PlainForTests);
            applied.map_err(|fault| format!("I1: {fault}"))?;
        }
        let state = &self.model.state;
        let pinned = |slot: &Slot| state.oldest_pin().is_some_and(|pin| pin < *slot);
        let needed = |id: &ObjectId| state.live.contains(id) || state.retired.get(id).is_some_and(pinned);
        match self.uploads.iter().find(|(id, _)| needed(id) && !self.shelf.holds(&id.object_key())) {
            Some((id, _)) => Err(format!("I4: {id} is needed, and not in the store")),
            None => Ok(()),
        }
    }

    fn step(&mut self, at: usize, call: usize) -> Result<(), String> {
        let seat = &mut self.seats[at];
        let id = seat.ids.remove(call);
        let node = Arc::make_mut(&mut seat.node);
        let call = node.open.remove(call);
        let answer = self.shelf.apply(&call)?;
        node.writer.handle(0, id, answer);
        self.settle(at)?;
        self.check()
    }

    /// Drains a writer's actions; performs at once what cannot matter.
    fn settle(&mut self, at: usize) -> Result<(), String> {
        let Seat { node, ids, print } = &mut self.seats[at];
        let node = Arc::make_mut(node);
        while let Some(action) = node.writer.next_action() {
            match action {
                Action::Call { id, call } => match &call {
                    Call::Put { key, .. } if key.starts_with(keys::BEATS) => {}
                    Call::Get { key } if key.starts_with(keys::BEATS) => {
                        node.writer.handle(0, id, Answer::Absent);
                    }
                    Call::Last { .. } | Call::Above { .. } => {
                        let answer = self.shelf.apply(&call)?;
                        node.writer.handle(0, id, answer);
                    }
                    _ => {
                        node.open.push(call);
                        ids.push(id);
                    }
                },
                Action::Wait { until_ns, .. } => node.writer.wake(until_ns),
                Action::Ready { .. } | Action::Committed { .. } => {
                    self.shelf.check_view(node.writer.view())?;
                }
                Action::Lost(_) | Action::Released { .. } => {
                    *node = node.again(options());
                    ids.clear();
                }
                Action::Warning(fault) => return Err(format!("warning: {fault}")),
            }
        }
        *print = print_of(node);
        Ok(())
    }
}

#[derive(Debug, Default)]
struct Found {
    states: usize,
    complete: bool,
    violation: Option<String>,
    /// Deletes that landed, and those that did after another writer had taken over.
    deletes: usize,
    deletes_late: usize,
}

fn search(skip: Skip, states_max: usize) -> Found {
    let deep = std::env::var("WINDLASS_LOG_DEEP").ok().and_then(|text| text.parse().ok());
    let states_max = deep.unwrap_or(states_max);
    let world = World::new();
    let mut found = Found::default();
    let mut seen = BTreeSet::from([world.print()]);
    let mut queue = VecDeque::from([world]);
    while let Some(world) = queue.pop_front() {
        for next in world.successors(skip) {
            match next {
                Ok(next) => {
                    if seen.insert(next.print()) {
                        let landed = usize::from(next.deleted > world.deleted);
                        found.deletes += landed;
                        found.deletes_late += landed * usize::from(next.model.state.epoch.0 > 1);
                        queue.push_back(next);
                    }
                }
                Err(why) => {
                    found.violation = Some(why);
                    queue.clear();
                    break;
                }
            }
        }
        if seen.len() >= states_max {
            break;
        }
    }
    found.complete = queue.is_empty() && found.violation.is_none();
    found.states = seen.len();
    println!("{skip:?}: {found:?}");
    found
}

#[test]
fn no_schedule_of_a_collector_loses_an_object() {
    let found = search(Skip::Nothing, 1_000_000);
    assert_eq!(found.violation, None);
    assert!(found.deletes > 1000 && found.deletes_late > 1000, "nothing was collected");
}

#[test]
fn a_delete_before_the_retirement_is_found() {
    let why = search(Skip::Retirement, 300_000).violation;
    assert!(why.is_some_and(|why| why.starts_with("I6") || why.starts_with("I4")));
}

#[test]
fn a_delete_under_a_pin_is_found() {
    let why = search(Skip::Pins, 300_000).violation;
    assert!(why.is_some_and(|why| why.starts_with("I4")));
}

#[test]
fn a_sweep_without_a_floor_is_found() {
    let why = search(Skip::Floor, 300_000).violation;
    assert!(why.is_some_and(|why| why.starts_with("I6") || why.starts_with("I4")));
}
