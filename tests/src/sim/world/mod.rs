//! The world: one queue of events, the nodes in it, and everything that goes wrong between them.
//!
//! ```text
//!  seed -> options -> [ queue by (time, tiebreak) ] -> land a call | hand over an answer, a frame, a wake | start, thaw, trouble
//!                              ^                              |
//!                              +--- calls, frames, deadlines --+--> checks after each step
//! ```
//!
//! Each request to the store has one answer, as a driver's timeout makes it: what the store said, if that arrives in time, or `Unknown`
//! at the timeout. Whether and when it was applied is another matter. A frozen node's inputs wait for its thaw, and so does what it
//! was about to send. A crashed node's requests land all the same.
//!
//! | module | what |
//! |---|---|
//! | `nodes` | start, crash, freeze, thaw; inputs and what they lead to |
//! | `readers` | who only reads the log |
//! | `requests` | what becomes of a request to the store |
//! | `trouble` | partitions, storms, crashes and freezes that come by themselves; the end of all faults |
//! | `text` | events in words |
//!
//! Invariants: everything is drawn from the seed. Does not: know what nodes do (`Tenant`), or what is right (`check`, `store`).
//! Source: ours; `tests/README.md`, The simulator.

mod nodes;
mod readers;
mod requests;
mod text;
mod trouble;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use windlass_agent::log::call::Call;
use windlass_agent::log::lease::Timing;
use windlass_agent::store::probe::probe;
use windlass_hal::sim::clock::SimClock;
use windlass_hal::sim::prng::Prng;

use super::check::{Issued, Oracle};
use super::clock::DriftClock;
use super::net::{Generation, Net};
use super::options::{Drift, MS, Mutation, Options, SECOND};
use super::store::{Lie, LyingStore, Shelf};
use super::weather::LEASE_TIMES_MAX;
use super::{GARBAGE, Input, Output, Tenant, Trace, Verdict};

/// Between two looks of a node at its work while only schedules run, in nanoseconds.
const WATCH_NS: u64 = 30 * SECOND;
/// Times that a backup is started again after the faults.
const URGES_MAX: u32 = 4;
/// Wakes in a row of a node that leave a deadline in the past.
const LATE_WAKES_MAX: u32 = 64;

/// What happened, in numbers: a run that did nothing proves nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    /// Events taken from the queue.
    pub events: u64,
    /// Slots reported as committed.
    pub committed: u64,
    /// Epochs that began.
    pub epochs: u64,
    /// Leases lost.
    pub lost: u64,
    /// Leases let go.
    pub released: u64,
    /// Objects whose node was told that they count.
    pub counted: u64,
    /// Recovery points.
    pub points: u64,
    /// Reports that were accepted.
    pub accepted: u64,
    /// Assignments sent.
    pub assigned: u64,
    /// Bytes of points read back and compared.
    pub restored: u64,
    /// Commands answered.
    pub answered: u64,
    /// Log slots, checkpoints and boundaries deleted.
    pub collected: u64,
    /// Objects deleted.
    pub deleted: u64,
    /// Requests that went wrong.
    pub faults: u64,
    /// Crashes.
    pub crashes: u64,
    /// Freezes.
    pub freezes: u64,
    /// Stores that the probe refused.
    pub refused: u64,
    /// Simulated time in seconds.
    pub seconds: u64,
    /// Nodes that died for good.
    pub buried: u64,
    /// Worlds with garbage at whose end some of it was left.
    pub unreturned: u64,
    /// Nodes that reached no other as long as there were faults.
    pub hermits: u64,
    /// Requests that were given up after a minute.
    pub hung: u64,
    /// Most users that waited for one node.
    pub crowd: u64,
    /// Backups that were due by schedule after the faults, and came.
    pub due: u64,
    /// Clocks found to differ from the store's.
    pub skews: u64,
    /// Backups given up.
    pub abandoned: u64,
    /// Backups that ended in a later epoch than they began in.
    pub resumed: u64,
    /// Objects whose live blocks garbage runs moved.
    pub moved: u64,
    /// Lengths that were set for the lease.
    pub lengths: u64,
    /// Records of what the store has lost.
    pub damage: u64,
    /// Most points of a run.
    pub points_most: u64,
    /// Times that somebody only read the log.
    pub read: u64,
    /// Creates that landed late where a slot was lost.
    pub usurped: u64,
    /// Policies that got another name.
    pub renamed: u64,
    /// Policies that were removed.
    pub removed: u64,
    /// Backups that began without one of their volumes.
    pub without: u64,
}

impl Tally {
    /// Adds another run's.
    pub fn add(&mut self, other: &Tally) {
        self.events += other.events;
        self.committed += other.committed;
        self.epochs += other.epochs;
        self.lost += other.lost;
        self.released += other.released;
        self.counted += other.counted;
        self.points += other.points;
        self.accepted += other.accepted;
        self.assigned += other.assigned;
        self.answered += other.answered;
        self.restored += other.restored;
        self.collected += other.collected;
        self.deleted += other.deleted;
        self.faults += other.faults;
        self.crashes += other.crashes;
        self.freezes += other.freezes;
        self.refused += other.refused;
        self.seconds += other.seconds;
        self.buried += other.buried;
        self.unreturned += other.unreturned;
        self.hermits += other.hermits;
        self.hung += other.hung;
        self.crowd = self.crowd.max(other.crowd);
        self.due += other.due;
        self.skews += other.skews;
        self.abandoned += other.abandoned;
        self.resumed += other.resumed;
        self.moved += other.moved;
        self.lengths += other.lengths;
        self.damage += other.damage;
        self.points_most = self.points_most.max(other.points_most);
        self.read += other.read;
        self.usurped += other.usurped;
        self.renamed += other.renamed;
        self.removed += other.removed;
        self.without += other.without;
    }
}

/// What came of a seed.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The rule that was broken, and the simulated time in milliseconds.
    pub violation: Option<(String, u64)>,
    /// Hash of everything that happened.
    pub trace: u64,
    /// Numbers.
    pub tally: Tally,
}

/// Runs a seed with nodes of the sort `T`. `print` shows every event.
pub fn run<T: Tenant>(seed: u64, mutation: Mutation, print: bool) -> Outcome {
    run_with::<T>(Options::draw(seed, mutation), print)
}

/// The same, with what the seed has decided already.
pub fn run_with<T: Tenant>(options: Options, print: bool) -> Outcome {
    let (seed, mutation) = (options.seed, options.mutation);
    if options.lawless && mutation != Mutation::SkipProbe {
        return refuse(seed);
    }
    let mut world = World::<T>::new(options, print);
    let violation = world.live().err().map(|why| (why, world.now / MS));
    world.tally.seconds = world.now / SECOND;
    world.tally.points = world.oracle.model().state.points.len() as u64;
    world.tally.points_most = world.tally.points;
    let due = world.oracle.due();
    (world.tally.abandoned, world.tally.resumed) = (due.abandoned, due.resumed);
    world.tally.moved = due.moved;
    (world.tally.lengths, world.tally.damage) = (due.lengths, due.damage);
    (world.tally.renamed, world.tally.removed, world.tally.without) = (due.renamed, due.removed, due.without);
    Outcome { violation, trace: world.trace.value(), tally: world.tally }
}

/// The store is one that the real probe must refuse.
fn refuse(seed: u64) -> Outcome {
    let lie = if seed.is_multiple_of(2) { Lie::IgnoresConditions } else { Lie::ReadsOld };
    let passed = probe(&LyingStore::new(lie), &SimClock::new(), seed).is_ok();
    let why = || (format!("C6: the probe lets a store pass that {lie:?}"), 0);
    let mut trace = Trace::default();
    trace.add(u64::from(passed));
    let tally = Tally { refused: u64::from(!passed), ..Tally::default() };
    Outcome { violation: passed.then(why), trace: trace.value(), tally }
}

enum Event<M> {
    /// A call reaches the store. `reply`: the answer sets out and takes so long.
    Land {
        node: usize,
        life: u32,
        id: u64,
        call: Call,
        reply: Option<Reply>,
    },
    Input {
        node: usize,
        life: u32,
        input: Input<M>,
    },
    Frame {
        from: usize,
        to: usize,
        generation: Generation,
        message: M,
    },
    Wake {
        node: usize,
        life: u32,
    },
    Work {
        node: usize,
        life: u32,
    },
    Start {
        node: usize,
        life: u32,
    },
    Thaw {
        node: usize,
        life: u32,
    },
    Trouble {
        node: usize,
    },
    /// A connection may be there again.
    Link {
        a: usize,
        b: usize,
    },
    /// A node dies for good.
    Bury {
        node: usize,
    },
    Calm,
    /// The time after the faults is over.
    Quiet,
}

/// The way of an answer.
#[derive(Clone, Copy)]
struct Reply {
    after_ns: u64,
    /// When nobody waits for it any more.
    give_up_ns: u64,
    /// The bytes are changed on the way.
    harm: Harm,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Harm {
    None,
    Flip,
    Cut,
}

struct Seat<T: Tenant> {
    tenant: Option<T>,
    /// It died for good.
    buried: bool,
    /// Counts its lives; events of earlier ones are void.
    life: u32,
    clock: DriftClock,
    drift_ppm: i64,
    frozen_until_ns: u64,
    wake_at_ns: u64,
    /// Wakes since its deadline was not in the past.
    late_wakes: u32,
    /// What it was about to do when it froze.
    stuck: VecDeque<Output<T::Message>>,
    /// What arrived while it was frozen, in order.
    held: Vec<Input<T::Message>>,
    to_store_cut_until_ns: u64,
    from_store_cut_until_ns: u64,
    issued: Issued,
    /// What it sent last of what others may have created before, and since when: key, true time, times.
    sent: (String, u64, u32),
    /// When its last beat or claim set out, on its own clock.
    beat_ns: u64,
    /// It read bytes that were changed on the way, in this life.
    excused: bool,
}

struct World<T: Tenant> {
    options: Options,
    prng: Prng,
    now: u64,
    queue: BinaryHeap<Reverse<(u64, u64, u32)>>,
    events: Vec<Option<Event<T::Message>>>,
    free: Vec<u32>,
    sequence: u64,
    shelf: Shelf,
    net: Net,
    seats: Vec<Seat<T>>,
    oracle: Oracle,
    shared: T::Shared,
    storm_until_ns: u64,
    storm_conflicts: bool,
    calm: bool,
    /// The run may end: it is not before the end of the time after the faults.
    quiet: bool,
    /// First report of a coordinator after the faults stopped.
    elected: bool,
    urged: u32,
    trace: Trace,
    tally: Tally,
    print: bool,
}

impl<T: Tenant> World<T> {
    fn new(options: Options, print: bool) -> World<T> {
        let mut world = World {
            options,
            prng: Prng::new(options.seed),
            now: 0,
            queue: BinaryHeap::new(),
            events: Vec::new(),
            free: Vec::new(),
            sequence: 0,
            shelf: Shelf::new(options.lawless),
            net: Net::new(options.nodes, options.frames_max),
            seats: Vec::new(),
            oracle: Oracle::default(),
            shared: T::shared(&options),
            storm_until_ns: 0,
            storm_conflicts: false,
            calm: false,
            quiet: false,
            elected: false,
            urged: 0,
            trace: Trace::default(),
            tally: Tally::default(),
            print,
        };
        if print {
            println!("{options:#?}");
        }
        for node in 0..options.nodes {
            world.seat(node);
        }
        world.push(options.storm_ns, Event::Calm);
        if T::quiet_ns(&options) > 0 {
            world.push(options.storm_ns + T::quiet_ns(&options), Event::Quiet);
        }
        if let Some((node, permille)) = options.weather.grave {
            world.push(options.storm_ns / 1000 * permille, Event::Bury { node });
        }
        if let Some(hermit) = options.weather.hermit {
            world.tally.hermits += 1;
            (0..options.nodes)
                .filter(|&peer| peer != hermit)
                .for_each(|peer| world.net.reset(hermit, peer, options.storm_ns));
        }
        world
    }

    fn seat(&mut self, node: usize) {
        let bound = self.options.writer.timing.drift_permille;
        // A lease of the repository's length is one of the usual bound.
        let bound =
            if self.options.weather.lengths { bound.min(Timing::default().drift_permille) } else { bound };
        let within = i64::try_from(bound).unwrap_or(0) * 1000;
        let drift_ppm = match self.options.drift {
            Drift::Beyond if self.prng.one_in(2) => self.prng.below(1_500_000) as i64 - 500_000,
            Drift::Beyond | Drift::Within => self.prng.below(2 * within as u64 + 1) as i64 - within,
        };
        self.seats.push(Seat {
            tenant: None,
            buried: false,
            life: 0,
            clock: DriftClock::new(0, 0, 0),
            drift_ppm,
            frozen_until_ns: 0,
            wake_at_ns: u64::MAX,
            late_wakes: 0,
            stuck: VecDeque::new(),
            held: Vec::new(),
            to_store_cut_until_ns: 0,
            from_store_cut_until_ns: 0,
            issued: Issued::default(),
            sent: (String::new(), 0, 0),
            beat_ns: 0,
            excused: false,
        });
        let at = self.prng.below(self.options.writer.timing.lease_ns / 2);
        self.push(at, Event::Start { node, life: 0 });
        if self.options.node.trouble_leases > 0 {
            self.next_trouble(node);
        }
    }

    fn push(&mut self, at: u64, event: Event<T::Message>) {
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None => {
                self.events.push(None);
                (self.events.len() - 1) as u32
            }
        };
        self.events[slot as usize] = Some(event);
        self.sequence += 1;
        // Events of one moment come in any order.
        let tie = self.prng.next_u64() << 32 | self.sequence & 0xFFFF_FFFF;
        self.queue.push(Reverse((at.max(self.now), tie, slot)));
    }

    fn live(&mut self) -> Verdict<()> {
        let elected_by = self.options.storm_ns + self.options.election_bound_ns();
        let finished_by = elected_by + T::quiet_ns(&self.options) + T::finish_bound_ns(&self.options);
        while let Some(Reverse((at, _, slot))) = self.queue.pop() {
            let Some(event) = self.events[slot as usize].take() else { continue };
            self.free.push(slot);
            self.now = at;
            self.tally.events += 1;
            if self.calm && at > elected_by && !self.elected {
                // One that was there before, and is busy with something long, need not have said anything.
                self.elected = self.has_holder();
            }
            if self.calm && at > elected_by && !self.elected {
                return Err("I10: the faults are over, and nobody takes the lease".into());
            }
            if at > finished_by {
                return Err(format!("I10: the faults are over, and work is not finished: {}", self.idlers()));
            }
            let progress = matches!(event, Event::Input { .. } | Event::Frame { .. } | Event::Work { .. });
            self.happen(event)?;
            self.check_leases()?;
            if self.quiet && progress && self.is_over() && self.is_finished()? {
                self.oracle.finish(&mut self.shelf)?;
                self.tally.restored = T::verify(&self.shared, &self.shelf, self.oracle.model())?;
                return Ok(());
            }
        }
        Err("I10: nothing happens any more".into())
    }

    fn is_over(&self) -> bool {
        self.elected
            && self.seats.iter().all(|seat| seat.buried || seat.tenant.as_ref().is_some_and(T::is_idle))
    }

    /// Whether no backup is left running by nodes that have nothing to do. One that failed too often waits for somebody to start it
    /// again: that happens here, a few times.
    fn is_finished(&mut self) -> Verdict<bool> {
        let left = T::unfinished(self.oracle.model());
        let changes = T::last_changes(self.oracle.model());
        if left.is_empty() && changes.is_empty() {
            return Ok(true);
        }
        self.urged += 1;
        // What a merge that failed too often, or a schedule, keeps from coming back waits for the next run: nothing is lost by that.
        if self.urged > URGES_MAX && left == [GARBAGE] {
            self.tally.unreturned += 1;
            return Ok(true);
        }
        if self.urged > URGES_MAX {
            let on: Vec<&str> = changes.iter().map(|change| change.name.as_str()).collect();
            return Err(match left.is_empty() {
                true => format!("I10: all nodes rest, and schedules of {on:?} are not switched off"),
                false => format!("I10: all nodes rest, and backups of {left:?} do not end"),
            });
        }
        let node = self.somebody();
        if left.is_empty() {
            self.say(|| "somebody switches schedules off again".to_owned());
            self.input(node, Input::Change(changes))?;
            return Ok(false);
        }
        self.say(|| format!("somebody starts {left:?} again"));
        self.input(node, Input::Urge(left))?;
        Ok(false)
    }

    /// A node that lives.
    fn somebody(&mut self) -> usize {
        let node = self.prng.below(self.options.nodes as u64) as usize;
        if self.seats[node].buried { (node + 1) % self.options.nodes } else { node }
    }

    /// The time after the faults is over: schedules have run, and are switched off.
    fn end_quiet(&mut self) -> Verdict<()> {
        self.quiet = true;
        let options = self.options;
        if T::quiet_ns(&options) > 0 && options.weather.is_exact() && options.drift == Drift::Within {
            let due = self.oracle.due().check(
                &options.weather,
                options.storm_ns,
                self.now,
                &self.oracle.model().state,
            )?;
            self.tally.due += due;
        }
        let changes = T::last_changes(self.oracle.model());
        if changes.is_empty() {
            return Ok(());
        }
        let node = self.somebody();
        self.input(node, Input::Change(changes))
    }

    fn idlers(&self) -> String {
        let is_busy = |seat: &Seat<T>| !seat.buried && !seat.tenant.as_ref().is_some_and(T::is_idle);
        let busy = self.seats.iter().enumerate().filter(|(_, seat)| is_busy(seat));
        busy.map(|(node, _)| format!("node {} ", node + 1)).collect()
    }

    fn happen(&mut self, event: Event<T::Message>) -> Verdict<()> {
        match event {
            Event::Land { node, life, id, call, reply } => self.land(node, life, id, &call, reply),
            Event::Input { node, life, input } if self.seats[node].life == life => self.input(node, input),
            Event::Input { .. } => Ok(()),
            Event::Frame { from, to, generation, message } => {
                if !self.net.arrives(from, to, generation) || self.seats[to].tenant.is_none() {
                    return Ok(());
                }
                self.input(to, Input::Frame { from, message })
            }
            Event::Wake { node, life } => {
                let seat = &mut self.seats[node];
                if seat.life != life || seat.wake_at_ns > self.now {
                    return Ok(());
                }
                seat.wake_at_ns = u64::MAX;
                self.input(node, Input::Wake)
            }
            Event::Work { node, life } => {
                if self.seats[node].life != life {
                    return Ok(());
                }
                let waits = if self.calm && !self.quiet { WATCH_NS } else { 0 };
                let pause = 1 + waits + self.prng.below(2 * self.options.work_ns);
                self.push(self.now + pause, Event::Work { node, life });
                self.input(node, Input::Work)
            }
            Event::Start { node, life } => self.start(node, life),
            Event::Thaw { node, life } => self.thaw(node, life),
            Event::Trouble { node } => self.trouble(node),
            Event::Link { a, b } => {
                let there = |node: usize| self.seats[node].tenant.is_some();
                if self.net.is_up(self.now, a, b) && there(a) && there(b) {
                    // One end may be at work long before the other has noticed.
                    self.tell_up_within(a, b, true, self.options.writer.timing.lease_ns / 4);
                }
                Ok(())
            }
            Event::Bury { node } => self.bury(node),
            Event::Calm => self.calm(),
            Event::Quiet => self.end_quiet(),
        }
    }

    fn has_holder(&self) -> bool {
        let holds = |seat: &Seat<T>| {
            let end = seat.tenant.as_ref().and_then(T::lease_end_ns);
            end.is_some_and(|end| seat.clock.local_ns(self.now) < end)
        };
        self.seats.iter().any(holds)
    }

    /// L1: a lease lasts for its length from when its last beat set out. I9: no two holders at one true time.
    fn check_leases(&self) -> Verdict<()> {
        let times = if self.options.weather.lengths { LEASE_TIMES_MAX } else { 1 };
        let lease_ns = times * self.options.writer.timing.lease_ns;
        for (node, seat) in self.seats.iter().enumerate() {
            let end = seat.tenant.as_ref().and_then(T::lease_end_ns);
            if end.is_some_and(|end| end > seat.beat_ns.saturating_add(lease_ns)) {
                return Err(format!("L1: node {}'s lease is longer than from its last beat on", node + 1));
            }
        }
        if self.options.drift == Drift::Beyond {
            return Ok(());
        }
        let mut holder = None;
        for (node, seat) in self.seats.iter().enumerate() {
            let Some(end) = seat.tenant.as_ref().and_then(T::lease_end_ns) else { continue };
            if seat.clock.local_ns(self.now) >= end {
                continue;
            }
            if let Some(other) = holder.replace(node + 1) {
                return Err(format!("I9: nodes {other} and {} hold the lease", node + 1));
            }
        }
        Ok(())
    }

    fn say(&self, text: impl FnOnce() -> String) {
        if self.print {
            println!("{:>9} ms  {}", self.now / MS, text());
        }
    }
}
