//! Breadth-first search over all orders of steps.
//!
//! A step performs one call of one writer on the store and hands it the answer; a writer whose step is never chosen has stalled
//! for ever. What cannot matter to safety happens at once: beats (nobody's timer is trusted here: a candidate may always
//! claim), waits, checkpoint PUTs. Boundary PUTs land at any later time, also after their writer is gone; slots at or below the boundary
//! are deleted in any order by anyone.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use windlass_agent::format::record::Record;
use windlass_agent::id::{NodeId, Slot};
use windlass_agent::log::call::{Answer, Call};
use windlass_agent::log::keys;
use windlass_agent::log::replay::ReplayOptions;
use windlass_agent::log::writer::{Action, Checks, WriterOptions};

use windlass_tests::sim::store::Shelf;

use super::seat::{Seat, in_bounds, print_of};

#[derive(Clone, Copy)]
struct Bounds {
    writers: u32,
    epochs: u64,
    slots: u64,
    commits: u32,
    states_max: usize,
}

#[derive(Clone)]
struct World {
    shelf: Shelf,
    seats: Vec<Seat>,
    /// Boundary PUTs on their way.
    late: BTreeSet<(String, Vec<u8>)>,
    depth: u32,
}

fn options(checks: Checks, second_list: bool) -> WriterOptions {
    WriterOptions {
        // A look beyond the end of the log finds most of what the second LIST finds: to see that one matters, both are off.
        replay: ReplayOptions { gets_max: 1, second_list, look_beyond: second_list },
        checkpoint_slots: 1,
        boundary_lag_slots: 1,
        checks,
        ..WriterOptions::default()
    }
}

struct Search {
    bounds: Bounds,
    options: WriterOptions,
}

struct Found {
    states: usize,
    violation: Option<(u32, String)>,
    complete: bool,
}

impl Search {
    fn run(&self) -> Found {
        let mut world = World { shelf: Shelf::default(), seats: Vec::new(), late: BTreeSet::new(), depth: 0 };
        for number in 1..=self.bounds.writers {
            world.seats.push(Seat::new(number, self.options));
            let at = world.seats.len() - 1;
            self.settle(&mut world, at).unwrap();
        }
        let mut seen = BTreeSet::from([world.print()]);
        let mut queue = VecDeque::from([world]);
        while let Some(world) = queue.pop_front() {
            for next in self.successors(&world) {
                match next {
                    Ok(next) => {
                        if seen.insert(next.print()) {
                            queue.push_back(next);
                        }
                    }
                    Err(why) => {
                        return Found {
                            states: seen.len(),
                            violation: Some((world.depth + 1, why)),
                            complete: false,
                        };
                    }
                }
            }
            if seen.len() >= self.bounds.states_max {
                return Found { states: seen.len(), violation: None, complete: false };
            }
        }
        Found { states: seen.len(), violation: None, complete: true }
    }

    fn successors(&self, world: &World) -> Vec<Result<World, String>> {
        let mut next = Vec::new();
        for at in 0..world.seats.len() {
            for call in 0..world.seats[at].ids.len() {
                if in_bounds(&world.seats[at].node.open[call], self.bounds.slots, self.bounds.epochs) {
                    next.push(self.step(world.clone(), at, call));
                }
            }
        }
        for (key, body) in &world.late {
            let mut world = world.clone();
            world.late.remove(&(key.clone(), body.clone()));
            let put = Call::Put { key: key.clone(), body: body.clone().into() };
            next.push(world.shelf.apply(&put).map(|_| world));
        }
        let boundary = world.shelf.boundary();
        for slot in (1..=boundary.0).map(Slot) {
            let key = keys::slot(slot);
            if world.shelf.objects.contains_key(key.as_str()) {
                let mut world = world.clone();
                next.push(world.shelf.apply(&Call::Delete { key }).map(|_| world));
            }
        }
        for next in next.iter_mut().flatten() {
            next.depth = world.depth + 1;
        }
        next
    }

    fn step(&self, mut world: World, at: usize, call: usize) -> Result<World, String> {
        let seat = &mut world.seats[at];
        let id = seat.ids.remove(call);
        let node = Arc::make_mut(&mut seat.node);
        let call = node.open.remove(call);
        let answer = world.shelf.apply(&call)?;
        node.writer.handle(0, id, answer);
        self.settle(&mut world, at)?;
        Ok(world)
    }

    /// Drains a writer's actions; performs at once what cannot matter.
    fn settle(&self, world: &mut World, at: usize) -> Result<(), String> {
        let World { shelf, seats, late, .. } = world;
        let Seat { node, ids, print } = &mut seats[at];
        let node = Arc::make_mut(node);
        while let Some(action) = node.writer.next_action() {
            match action {
                Action::Call { id, call } => match &call {
                    Call::Put { key, .. } if key.starts_with("beat/") => {}
                    Call::Get { key } if key.starts_with("beat/") => {
                        node.writer.handle(0, id, Answer::Absent)
                    }
                    Call::Put { key, body } if key.starts_with(keys::BOUNDARIES) => {
                        late.insert((key.clone(), body.to_vec()));
                    }
                    Call::Put { .. } => {
                        let answer = shelf.apply(&call)?;
                        node.writer.handle(0, id, answer);
                    }
                    Call::Get { key }
                        if key.starts_with(keys::BOUNDARIES) || key.starts_with(keys::CHECKPOINTS) =>
                    {
                        let answer = shelf.apply(&call)?;
                        node.writer.handle(0, id, answer);
                    }
                    _ => {
                        node.open.push(call);
                        ids.push(id);
                    }
                },
                Action::Wait { until_ns, .. } => node.writer.wake(until_ns),
                Action::Ready { slot, .. } | Action::Committed { slot } => {
                    let view = node.writer.view();
                    assert_eq!(view.head, slot);
                    shelf.check_view(view).map_err(|why| format!("success is reported, but {why}"))?;
                    if node.commits < self.bounds.commits {
                        node.commits += 1;
                        let pin = u64::from(node.number) << 32 | node.boot << 16 | u64::from(node.commits);
                        node.writer.commit(0, vec![Record::Pin { pin, node: NodeId(node.number) }]).unwrap();
                    }
                }
                Action::Lost(_) | Action::Released { .. } => {
                    *node = node.again(self.options);
                    ids.clear();
                }
                Action::Warning(fault) => return Err(format!("warning: {fault}")),
            }
        }
        shelf.check_view(node.writer.view())?;
        *print = print_of(node);
        Ok(())
    }
}

impl World {
    fn print(&self) -> u64 {
        let seats: Vec<u64> = self.seats.iter().map(|seat| seat.print).collect();
        let keys: Vec<(&Arc<str>, &[u8])> =
            self.shelf.objects.iter().map(|(key, body)| (key, &body[..])).collect();
        let first: Vec<&[u8; 32]> = self.shelf.first.values().map(|first| &first.digest).collect();
        print_of(&(seats, keys, first, &self.shelf.after_fence, &self.late))
    }
}

fn search(writers: u32, epochs: u64, slots: u64, commits: u32, options: WriterOptions) -> Found {
    let deep = std::env::var("WINDLASS_LOG_DEEP").ok().and_then(|text| text.parse().ok());
    let states_max = deep.unwrap_or(1_000_000);
    let bounds = Bounds { writers, epochs, slots, commits, states_max };
    let found = Search { bounds, options }.run();
    println!(
        "writers {writers} epochs {epochs} slots {slots} commits {commits}: {} states, {}{}",
        found.states,
        if found.complete { "all" } else { "not all" },
        match &found.violation {
            None => String::new(),
            Some((depth, why)) => format!(", violation after {depth} steps: {why}"),
        }
    );
    found
}

#[test]
fn no_schedule_of_two_writers_breaks_the_log() {
    let found = search(2, 3, 4, 2, options(Checks::default(), true));
    assert!(found.violation.is_none() && found.complete);
}

#[test]
fn no_schedule_of_two_writers_with_more_epochs_breaks_the_log() {
    let found = search(2, 4, 5, 3, options(Checks::default(), true));
    assert!(found.violation.is_none());
}

#[test]
fn no_schedule_of_three_writers_breaks_the_log() {
    let found = search(3, 3, 4, 2, options(Checks::default(), true));
    assert!(found.violation.is_none());
}

#[test]
fn without_the_epoch_check_a_schedule_breaks_it() {
    let found = search(2, 4, 5, 3, options(Checks { epoch: false, ..Checks::default() }, true));
    assert!(found.violation.is_some());
}

#[test]
fn without_the_second_list_a_schedule_breaks_it() {
    let found = search(2, 4, 5, 3, options(Checks::default(), false));
    assert!(found.violation.is_some());
}
