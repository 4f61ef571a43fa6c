//! Steps of garbage runs in the simulated world: the product's own looks at the tables over what the store has acknowledged, and deletions and
//! listings through the simulated store, one call at a time.
//!
//! In seeds without data nothing is ever found to be dead: objects there have no rows.
//!
//! | mutation | what the host does then |
//! |---|---|
//! | gc-unretired | deletes condemned objects before a record retires them |
//! | gc-ignores-pins | deletes retired names that a pin holds |
//! | gc-trusts-lists | takes what is listed and not in the tables for an orphan, whatever the floor is |
//! | gc-trusts-clocks | the same of what it first saw listed some seconds ago |
//! | gc-trusts-names | takes names of its own epoch that are lower than the highest in the tables, and not in them, for orphans |
//! | gc-moves-early | deletes objects whose live blocks were moved before the rows that follow are committed |
//! | gc-blind | says of condemned objects that no row refers to them, without a look |
//!
//! Does not: commit. Source: ours; `drive::collect`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;
use std::sync::Arc;

use windlass_agent::format::tail::TailKind;
use windlass_agent::gc::carry::{ObjectSink, carry};
use windlass_agent::gc::mark::{Sizes, mark};
use windlass_agent::gc::rewrite::{Gates, rewrite};
use windlass_agent::gc::sweep::key_of;
use windlass_agent::gc::types::{Carried, Deleted, Marked, Move, Order, Outcome, Step, Swept};
use windlass_agent::id::{Boot, Epoch, NodeId, ObjectId, Slot};
use windlass_agent::log::call::{Answer, Body, Call};
use windlass_agent::log::state::State;
use windlass_agent::node::Event;
use windlass_agent::pack::object::NameCounter;
use windlass_agent::store::StoreFault;
use windlass_agent::table::segment::{SegmentMeta, SegmentSink};
use windlass_agent::table::source::{Source, TableLimits};

use super::super::options::{Mutation, SECOND};
use super::data::{Acknowledged, keys};
use super::plan::{ROW_BLOCKS, Shared};

/// Objects that are counted in one pass: few, so that there are several.
const PASS_OBJECTS: usize = 5;
/// Each object with something dead in it is moved.
const GATES: Gates = Gates { dead_parts: 12, gain_bytes_min: 1 };
/// Keys in one listing.
const LIST_KEYS_MAX: usize = 64;
/// Times that a call is repeated.
const TRIES_MAX: u32 = 6;
/// For how long a name must have been listed, for one who trusts clocks.
const OLD_NS: u64 = 5 * SECOND;

/// A step that waits or is under way.
struct Task {
    order: Order,
    state: Arc<State>,
    seen: Slot,
}

/// What is left to do of the step under way.
#[derive(Default)]
struct Open {
    /// Calls that have not been answered with success, each with its name and tries.
    calls: BTreeMap<u64, (Option<ObjectId>, Call, u32)>,
    gone: Vec<ObjectId>,
    failed: bool,
    /// What comes of it once all is stored.
    outcome: Option<Outcome>,
    bodies: Vec<(String, Body)>,
    after: String,
}

/// The steps of one life of a node.
pub struct Steps {
    shared: Shared,
    mutation: Mutation,
    node: usize,
    boot: u64,
    waiting: VecDeque<Task>,
    open: Option<Open>,
    next: u64,
    /// When names were listed first.
    listed: BTreeMap<ObjectId, u64>,
}

/// What the host is to do.
pub enum Wish {
    /// A call, whose answer comes back under this number.
    Call(u64, Call),
    /// Come back in a while.
    Later,
    /// Tell the node.
    Tell(Box<Event>),
}

struct Bodies {
    epoch: Epoch,
    author: (NodeId, Boot),
    names: NameCounter,
    body: Vec<u8>,
    made: Vec<(String, Body)>,
}

impl ObjectSink for Bodies {
    fn begin(&mut self) -> ObjectId {
        self.body.clear();
        let (node, boot) = self.author;
        ObjectId { epoch: self.epoch, node, boot, count: self.names.take() }
    }

    fn put(&mut self, bytes: &[u8]) {
        self.body.extend_from_slice(bytes);
    }

    fn end(&mut self, id: ObjectId) -> Result<(), StoreFault> {
        self.made.push((id.object_key(), std::mem::take(&mut self.body).into()));
        Ok(())
    }
}

impl SegmentSink for Bodies {
    fn begin(&mut self) -> ObjectId {
        ObjectSink::begin(self)
    }

    fn put(&mut self, bytes: &[u8]) {
        self.body.extend_from_slice(bytes);
    }

    fn end(&mut self, meta: &SegmentMeta) -> Result<(), StoreFault> {
        self.made.push((meta.id.segment_key(), std::mem::take(&mut self.body).into()));
        Ok(())
    }
}

impl Steps {
    pub fn new(shared: &Shared, mutation: Mutation, node: usize, boot: u64) -> Steps {
        Steps {
            shared: Rc::clone(shared),
            mutation,
            node,
            boot,
            waiting: VecDeque::new(),
            open: None,
            next: 0,
            listed: BTreeMap::new(),
        }
    }

    pub fn is_idle(&self) -> bool {
        self.waiting.is_empty()
    }

    pub fn add(&mut self, order: Order, state: Arc<State>, seen: Slot) -> Vec<Wish> {
        self.waiting.push_back(Task { order, state, seen });
        if self.waiting.len() == 1 { vec![Wish::Later] } else { Vec::new() }
    }

    /// A while is over: the step that is first in line begins, unless its calls are still out, and then those that failed go again.
    pub fn moves(&mut self, now: u64, names: &NameCounter) -> Vec<Wish> {
        let Some(task) = self.waiting.front() else { return Vec::new() };
        if self.open.is_some() {
            return self.again();
        }
        let (step, state, seen) = (task.order.step.clone(), Arc::clone(&task.state), task.seen);
        let has_data = self.shared.borrow().data;
        match step {
            Step::Mark { .. } if !has_data => self.end(Ok(Outcome::Marked(Marked::default()))),
            Step::Mark { sizes } => {
                let shared = Rc::clone(&self.shared);
                let list = &mut |from: &ObjectId, each: &mut dyn FnMut(ObjectId, u64) -> bool| {
                    let ground = shared.borrow();
                    let all = ground.bodies.iter().filter_map(|(key, body)| {
                        let id = key.strip_prefix("obj/")?.parse::<ObjectId>().ok()?;
                        Some((id, body.len() as u64))
                    });
                    let all: BTreeMap<ObjectId, u64> = all.collect();
                    all.range(*from..).all(|(id, bytes)| each(*id, *bytes));
                    Ok(())
                };
                let list: &mut Sizes<'_> = list;
                let list = sizes.then_some((list, GATES));
                let marked = self.source().and_then(|mut source| {
                    mark(&mut source, &state, PASS_OBJECTS, list, &|| false)
                        .map_err(|fault| fault.to_string())
                });
                self.end(marked.map(Outcome::Marked))
            }
            Step::Move(order) => self.rewrite(&state, &order, names),
            Step::Carry(condemned) => self.carry(&state, seen, &condemned, names),
            Step::Delete(mut gone) => {
                if self.mutation == Mutation::GcIgnoresPins {
                    let kind = |id: &ObjectId| match state.garbage.objects.contains_key(id) {
                        true => TailKind::Object,
                        false => TailKind::Segment,
                    };
                    gone = state.retired.keys().map(|id| (*id, kind(id))).collect();
                }
                self.delete(&gone)
            }
            Step::Orphans { after } => {
                let prefix = if after.starts_with("seg/") { "seg/" } else { "obj/" };
                let after = if after.is_empty() { prefix.to_owned() } else { after };
                let call = Call::Above { prefix, after, max: LIST_KEYS_MAX };
                self.open = Some(Open::default());
                self.wish(None, call, now)
            }
        }
    }

    fn source(&self) -> Result<Source<Acknowledged>, String> {
        let fetch = Acknowledged::of(&self.shared);
        Source::new(fetch, &keys(), TableLimits::default()).ok_or_else(|| "no memory".to_owned())
    }

    fn carry(&mut self, state: &State, seen: Slot, condemned: &[ObjectId], names: &NameCounter) -> Vec<Wish> {
        if self.mutation == Mutation::GcBlind {
            let retired = condemned.iter().map(|id| (*id, 1)).collect();
            return self.end(Ok(Outcome::Carried(Carried { seen, retired, ..Carried::default() })));
        }
        let mut sink = self.bodies(names);
        let carried = self.source().and_then(|mut source| {
            carry(&mut source, &keys(), (state, seen), condemned, ROW_BLOCKS, &mut sink, &|| false)
                .map_err(|fault| fault.to_string())
        });
        let carried = match carried {
            Err(why) => return self.end(Err(why)),
            Ok(carried) => carried,
        };
        let early: &[ObjectId] = if self.mutation == Mutation::GcUnretired { condemned } else { &[] };
        self.store(Outcome::Carried(carried), sink.made, early)
    }

    fn bodies(&self, names: &NameCounter) -> Bodies {
        Bodies {
            epoch: self.waiting.front().map(|task| task.order.epoch).unwrap_or_default(),
            author: (NodeId(self.node as u32 + 1), Boot(self.boot)),
            names: names.clone(),
            body: Vec::new(),
            made: Vec::new(),
        }
    }

    /// Moves live blocks: by the product, over what the store has acknowledged.
    fn rewrite(&mut self, state: &State, order: &Move, names: &NameCounter) -> Vec<Wish> {
        let (mut objects, mut segments) = (self.bodies(names), self.bodies(names));
        let mut frames = Acknowledged::of(&self.shared);
        let moved = self.source().and_then(|mut source| {
            let sinks: (&mut dyn ObjectSink, &mut dyn SegmentSink) = (&mut objects, &mut segments);
            rewrite(&mut source, &mut frames, &keys(), state, (order, GATES), sinks, &|| false)
                .map_err(|fault| fault.to_string())
        });
        let moved = match moved {
            Err(why) => return self.end(Err(why)),
            Ok(moved) => moved,
        };
        let early = match self.mutation == Mutation::GcMovesEarly && !moved.removed.is_empty() {
            true => moved.names.clone(),
            false => Vec::new(),
        };
        objects.made.append(&mut segments.made);
        self.store(Outcome::Moved(moved), objects.made, &early)
    }

    /// Stores what a step has made, and then tells what came of it; deletes `early` beside that.
    fn store(&mut self, outcome: Outcome, bodies: Vec<(String, Body)>, early: &[ObjectId]) -> Vec<Wish> {
        let puts = bodies.iter().map(|(key, body)| {
            let call = Call::Put { key: key.clone(), body: Arc::clone(body) };
            (None, call)
        });
        let deletes = early.iter().map(|id| (Some(*id), Call::Delete { key: id.object_key() }));
        let calls: Vec<(Option<ObjectId>, Call)> = puts.chain(deletes).collect();
        if calls.is_empty() {
            return self.end(Ok(outcome));
        }
        self.open = Some(Open { outcome: Some(outcome), bodies, ..Open::default() });
        calls.into_iter().flat_map(|(id, call)| self.wish(id, call, 0)).collect()
    }

    fn delete(&mut self, names: &[(ObjectId, TailKind)]) -> Vec<Wish> {
        if names.is_empty() {
            return self.end(Ok(Outcome::Deleted(Deleted::default())));
        }
        self.open = Some(Open::default());
        let calls = names.iter().map(|(id, kind)| (Some(*id), Call::Delete { key: key_of(id, *kind) }));
        calls.collect::<Vec<_>>().into_iter().flat_map(|(id, call)| self.wish(id, call, 0)).collect()
    }

    fn wish(&mut self, id: Option<ObjectId>, call: Call, _: u64) -> Vec<Wish> {
        self.next += 1;
        let Some(open) = &mut self.open else { return Vec::new() };
        open.calls.insert(self.next, (id, call.clone(), 0));
        vec![Wish::Call(self.next, call)]
    }

    /// Calls that failed go again.
    fn again(&mut self) -> Vec<Wish> {
        let Some(open) = &mut self.open else { return Vec::new() };
        if !std::mem::take(&mut open.failed) {
            return Vec::new();
        }
        let again = open.calls.iter().map(|(number, (_, call, _))| Wish::Call(*number, call.clone()));
        again.collect()
    }

    /// A call was answered.
    pub fn answered(&mut self, now: u64, number: u64, answer: Answer) -> Vec<Wish> {
        let Some(open) = &mut self.open else { return Vec::new() };
        let Some((id, call, tries)) = open.calls.remove(&number) else { return Vec::new() };
        if let Answer::Fault(_) = answer {
            if tries + 1 >= TRIES_MAX {
                let is_empty = open.gone.is_empty();
                let gone = std::mem::take(&mut open.gone);
                let is_delete = matches!(self.waiting.front().map(|t| &t.order.step), Some(Step::Delete(_)));
                return match is_delete && !is_empty {
                    true => self.end(Ok(Outcome::Deleted(Deleted { gone, ..Deleted::default() }))),
                    false => self.end(Err("the store does not answer".to_owned())),
                };
            }
            open.calls.insert(number, (id, call, tries + 1));
            let first = !std::mem::replace(&mut open.failed, true);
            return if first { vec![Wish::Later] } else { Vec::new() };
        }
        open.gone.extend(id);
        let keys = if let Answer::Keys(keys) = answer { Some(keys) } else { None };
        if let Some(keys) = keys {
            return self.listed(now, keys);
        }
        let Some(open) = self.open.as_mut().filter(|open| open.calls.is_empty()) else { return Vec::new() };
        let mut open = std::mem::take(open);
        open.gone.sort_unstable();
        let result = match self.waiting.front().map(|task| &task.order.step) {
            Some(Step::Carry(_) | Step::Move(_)) => {
                self.shared.borrow_mut().bodies.extend(open.bodies);
                open.outcome.take().unwrap_or(Outcome::Carried(Carried::default()))
            }
            Some(Step::Delete(_)) => Outcome::Deleted(Deleted { gone: open.gone, ..Deleted::default() }),
            _ => {
                Outcome::Swept(Swept { gone: open.gone.len() as u64, after: open.after, ..Swept::default() })
            }
        };
        self.end(Ok(result))
    }

    /// A part of the store's list.
    fn listed(&mut self, now: u64, keys: Vec<String>) -> Vec<Wish> {
        let Some(task) = self.waiting.front() else { return Vec::new() };
        let state = Arc::clone(&task.state);
        let Step::Orphans { after } = &task.order.step else { return Vec::new() };
        let is_segments = after.starts_with("seg/");
        let kind = if is_segments { TailKind::Segment } else { TailKind::Object };
        let is_end = keys.len() < LIST_KEYS_MAX;
        let last = keys.last().cloned().unwrap_or_default();
        let highest = state.live.names().filter(|id| id.epoch == state.epoch).max();
        let names: BTreeSet<ObjectId> =
            keys.iter().filter_map(|key| key.get(4..).and_then(|name| name.parse().ok())).collect();
        let mut orphans = Vec::new();
        for id in names {
            let since = *self.listed.entry(id).or_insert(now);
            let is_unknown = !state.live.contains(&id) && !state.retired.contains_key(&id);
            let may = match self.mutation {
                Mutation::GcTrustsLists => is_unknown,
                Mutation::GcTrustsClocks => is_unknown && now.saturating_sub(since) >= OLD_NS,
                Mutation::GcTrustsNames => is_unknown && highest.is_some_and(|highest| id < highest),
                _ => state.is_orphan(&id, now as i64),
            };
            if may {
                orphans.push((id, kind));
            }
        }
        let Some(open) = &mut self.open else { return Vec::new() };
        open.after = match (is_end, is_segments) {
            (true, true) => String::new(),
            (true, false) => "seg/".to_owned(),
            (false, _) => last,
        };
        if orphans.is_empty() {
            let after = std::mem::take(&mut open.after);
            return self.end(Ok(Outcome::Swept(Swept { after, ..Swept::default() })));
        }
        let calls = orphans.into_iter().map(|(id, kind)| (Some(id), Call::Delete { key: key_of(&id, kind) }));
        calls.collect::<Vec<_>>().into_iter().flat_map(|(id, call)| self.wish(id, call, now)).collect()
    }

    fn end(&mut self, result: Result<Outcome, String>) -> Vec<Wish> {
        self.open = None;
        let Some(task) = self.waiting.pop_front() else { return Vec::new() };
        let mut wishes = vec![Wish::Tell(Box::new(Event::Collected { number: task.order.number, result }))];
        if !self.waiting.is_empty() {
            wishes.push(Wish::Later);
        }
        wishes
    }
}
