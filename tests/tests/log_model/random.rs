//! Seeded runs: three or four writers with clocks that drift, on a store that loses answers, lands PUTs late, says 409 and 503, while
//! nodes freeze for up to ten lease times, crash and come back, and old slots are collected. Then the faults stop and one
//! coordinator must make progress. I1, I2, I3, I6, I7, I9, I10, I11, and that whatever was reported is in the log.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::hash::{DefaultHasher, Hash, Hasher};

use windlass_agent::format::record::Record;
use windlass_agent::format::slot::PlainForTests;
use windlass_agent::id::{NodeId, Slot};
use windlass_agent::log::call::{Answer, Call, CallId};
use windlass_agent::log::fault::LogFault;
use windlass_agent::log::keys;
use windlass_agent::log::replay::{Replay, ReplayOptions, View};
use windlass_agent::log::writer::{Action, Writer, WriterOptions};
use windlass_agent::store::StoreFaultKind;

use super::shelf::{CLUSTER, Shelf, identity, seed};

const MS: u64 = 1_000_000;
const SECOND: u64 = 1_000 * MS;
const STORM_NS: u64 = 400 * SECOND;
/// Thaw, three waits of a candidate, and replays.
const CALM_NS: u64 = 120 * SECOND;

struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ z >> 31
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    fn range(&mut self, from: u64, to: u64) -> u64 {
        from + self.below(to - from)
    }

    fn percent(&mut self, p: u64) -> bool {
        self.below(100) < p
    }
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum What {
    /// A call reaches the store; its answer, if anyone gets it, arrives so much later.
    Land {
        node: usize,
        boot: u64,
        id: CallId,
        call: CallBox,
        answer_after: Option<u64>,
    },
    Deliver {
        node: usize,
        boot: u64,
        id: CallId,
        answer: AnswerBox,
    },
    Wake {
        node: usize,
        boot: u64,
    },
    Think {
        node: usize,
        boot: u64,
    },
    Start {
        node: usize,
        boot: u64,
    },
}

/// Orders as equal: the sequence number decides.
macro_rules! unordered {
    ($name:ident($inner:ty)) => {
        #[derive(Clone, Debug, PartialEq, Eq)]
        struct $name($inner);
        impl PartialOrd for $name {
            fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
                Some(self.cmp(other))
            }
        }
        impl Ord for $name {
            fn cmp(&self, _: &Self) -> std::cmp::Ordering {
                std::cmp::Ordering::Equal
            }
        }
    };
}
unordered!(CallBox(Call));
unordered!(AnswerBox(Answer));

struct Node {
    boot: u64,
    writer: Option<Writer<PlainForTests>>,
    /// Local clock: start + true time * (1000 + drift) / 1000.
    start_ns: u64,
    drift: i64,
    frozen_until: u64,
    wake_at: u64,
    pins: Vec<u64>,
    last_create: Option<Slot>,
    releasing: bool,
    in_batch: bool,
}

impl Node {
    fn local(&self, now: u64) -> u64 {
        self.start_ns + (u128::from(now) * (1000 + self.drift) as u128 / 1000) as u64
    }

    fn true_time(&self, local: u64) -> u64 {
        let since = u128::from(local.saturating_sub(self.start_ns)) * 1000;
        u64::try_from(since.div_ceil((1000 + self.drift) as u128)).unwrap_or(u64::MAX)
    }
}

#[derive(Default, Debug)]
struct Tally {
    reported: u64,
    epochs: u64,
    lost: u64,
    released: u64,
    collected: u64,
    events: u64,
}

struct Run {
    rng: Rng,
    now: u64,
    sequence: u64,
    heap: BinaryHeap<Reverse<(u64, u64, What)>>,
    shelf: Shelf,
    nodes: Vec<Node>,
    reported: BTreeMap<Slot, [u8; 32]>,
    trace: DefaultHasher,
    options: WriterOptions,
    fault_percent: u64,
    print: bool,
    tally: Tally,
    last_report: u64,
}

impl Run {
    fn new(seed_number: u64, print: bool) -> Run {
        let mut rng = Rng(seed_number);
        let checkpoint_slots = rng.range(2, 12);
        let options = WriterOptions {
            checkpoint_slots,
            boundary_lag_slots: rng.range(1, 12),
            replay: ReplayOptions { gets_max: rng.range(1, 9) as usize, second_list: true },
            ..WriterOptions::default()
        };
        let fault_percent = rng.range(0, 30);
        let mut run = Run {
            rng,
            now: 0,
            sequence: 0,
            heap: BinaryHeap::new(),
            shelf: Shelf { copies_land: true, ..Shelf::default() },
            nodes: Vec::new(),
            reported: BTreeMap::new(),
            trace: DefaultHasher::new(),
            options,
            fault_percent,
            print,
            tally: Tally::default(),
            last_report: 0,
        };
        for node in 0..run.rng.range(2, 5) as usize {
            run.nodes.push(Node {
                boot: 0,
                writer: None,
                start_ns: run.rng.below(1000 * SECOND),
                drift: run.rng.range(0, 21) as i64 - 10,
                frozen_until: 0,
                wake_at: u64::MAX,
                pins: Vec::new(),
                last_create: None,
                releasing: false,
                in_batch: false,
            });
            let at = run.rng.below(5 * SECOND);
            run.push(at, What::Start { node, boot: 0 });
        }
        run
    }

    fn push(&mut self, at: u64, what: What) {
        self.sequence += 1;
        self.heap.push(Reverse((at.max(self.now), self.sequence, what)));
    }

    fn stormy(&self) -> bool {
        self.now < STORM_NS
    }

    fn run(&mut self) -> Result<u64, String> {
        while let Some(Reverse((at, _, what))) = self.heap.pop() {
            if at > STORM_NS + CALM_NS {
                break;
            }
            self.now = at;
            self.tally.events += 1;
            if self.print {
                let text = format!("{what:?}");
                println!("{:>9} ms {}", at / MS, text.chars().take(160).collect::<String>());
            }
            self.happen(what)?;
            self.check_lease()?;
        }
        self.check_end()?;
        Ok(self.trace.finish())
    }

    fn happen(&mut self, what: What) -> Result<(), String> {
        match what {
            What::Land { node, boot, id, call, answer_after } => {
                let before = self.shelf.objects.len();
                let answer = self.shelf.apply(&call.0)?;
                (self.now, node, boot, &call.0, &answer).hash(&mut self.trace);
                if let Call::Delete { .. } = call.0 {
                    self.tally.collected += (before - self.shelf.objects.len()) as u64;
                }
                if let Some(after) = answer_after {
                    let at = self.now + after;
                    self.push(at, What::Deliver { node, boot, id, answer: AnswerBox(answer) });
                }
                return Ok(());
            }
            What::Start { node, boot } => return self.start(node, boot),
            What::Deliver { node, boot, .. } | What::Wake { node, boot } | What::Think { node, boot } => {
                let at = &self.nodes[node];
                if at.boot != boot || at.writer.is_none() {
                    return Ok(());
                }
                if self.stormy() && at.frozen_until > self.now {
                    let thaw = at.frozen_until.min(STORM_NS);
                    self.push(thaw, what);
                    return Ok(());
                }
            }
        }
        match what {
            What::Deliver { node, id, answer, .. } => {
                let local = self.nodes[node].local(self.now);
                if let Some(writer) = &mut self.nodes[node].writer {
                    writer.handle(local, id, answer.0);
                }
                self.drain(node)
            }
            What::Wake { node, .. } => {
                let local = self.nodes[node].local(self.now);
                self.nodes[node].wake_at = u64::MAX;
                if let Some(writer) = &mut self.nodes[node].writer {
                    writer.wake(local);
                }
                self.drain(node)
            }
            What::Think { node, boot } => self.think(node, boot),
            What::Land { .. } | What::Start { .. } => Ok(()),
        }
    }

    fn start(&mut self, node: usize, boot: u64) -> Result<(), String> {
        let number = node as u32 + 1;
        let at = &mut self.nodes[node];
        at.boot = boot;
        at.writer =
            Some(Writer::new(identity(number, boot), PlainForTests, self.options, seed(number, boot)));
        at.wake_at = u64::MAX;
        at.last_create = None;
        at.releasing = false;
        at.in_batch = false;
        self.drain(node)?;
        let at = self.now + self.rng.below(2 * SECOND);
        self.push(at, What::Think { node, boot });
        Ok(())
    }

    fn stop(&mut self, node: usize) {
        self.nodes[node].writer = None;
        let boot = self.nodes[node].boot + 1;
        let at = self.now + self.rng.below(10 * SECOND);
        self.push(at, What::Start { node, boot });
    }

    /// What a node's user does: commits, pins, releases; and what happens to nodes: freezes, crashes.
    fn think(&mut self, node: usize, boot: u64) -> Result<(), String> {
        if self.stormy() {
            if self.rng.percent(2) {
                let lease = self.options.timing.lease_ns;
                self.nodes[node].frozen_until = self.now + self.rng.below(10 * lease);
            } else if self.rng.percent(1) {
                self.stop(node);
                return Ok(());
            }
        }
        let local = self.nodes[node].local(self.now);
        let release = self.stormy() && self.rng.percent(3);
        let pin = self.rng.next();
        let at = &mut self.nodes[node];
        let number = NodeId(node as u32 + 1);
        if let Some(writer) = &mut at.writer
            && writer.is_ready()
        {
            if release {
                at.releasing = writer.release(local, None);
            } else {
                let held = writer.view().state.pins.keys().next().copied();
                let batch = match held {
                    Some(held) if writer.view().state.pins.len() > 3 => {
                        vec![Record::Unpin { pin: held }, Record::Pin { pin, node: number }]
                    }
                    _ => vec![Record::Pin { pin, node: number }],
                };
                at.pins.push(pin);
                match writer.commit(local, batch) {
                    Ok(()) => at.in_batch = true,
                    Err((LogFault::NotReady, _)) => {}
                    Err((fault, _)) => return Err(format!("refused: {fault}")),
                }
            }
        }
        let next = self.now + self.rng.range(50 * MS, 3 * SECOND);
        self.push(next, What::Think { node, boot });
        self.drain(node)
    }

    fn drain(&mut self, node: usize) -> Result<(), String> {
        let boot = self.nodes[node].boot;
        while let Some(action) = self.nodes[node].writer.as_mut().and_then(Writer::next_action) {
            match action {
                Action::Call { id, call } => self.send(node, boot, id, call)?,
                Action::Wait { .. } => {}
                Action::Ready { epoch, slot } => {
                    self.report(node, slot)?;
                    self.tally.epochs = self.tally.epochs.max(epoch.0);
                }
                Action::Committed { slot } => {
                    if !std::mem::take(&mut self.nodes[node].in_batch) {
                        return Err("committed twice".into());
                    }
                    self.report(node, slot)?;
                }
                Action::Released { slot } => {
                    self.report(node, slot)?;
                    self.tally.released += 1;
                    self.stop(node);
                    return Ok(());
                }
                Action::Lost(fault) => {
                    self.tally.lost += 1;
                    let expected = fault.is_transient() || !self.stormy();
                    if !expected {
                        return Err(format!("unexpected: {fault}"));
                    }
                    self.stop(node);
                    return Ok(());
                }
                Action::Warning(fault) => {
                    if !fault.is_transient() {
                        return Err(format!("unexpected: {fault}"));
                    }
                }
            }
        }
        let Some(writer) = &self.nodes[node].writer else { return Ok(()) };
        self.shelf.check_view(writer.view())?;
        if let Some(due) = writer.deadline() {
            let at = self.nodes[node].true_time(due).max(self.now);
            if at < self.nodes[node].wake_at {
                self.nodes[node].wake_at = at;
                self.push(at, What::Wake { node, boot });
            }
        }
        Ok(())
    }

    fn report(&mut self, node: usize, slot: Slot) -> Result<(), String> {
        let Some(writer) = &self.nodes[node].writer else { return Ok(()) };
        let digest = writer.view().digest;
        if writer.view().head != slot || self.shelf.first.get(&slot).map(|first| first.digest) != Some(digest)
        {
            return Err(format!("node {} reports slot {slot}, which holds something else", node + 1));
        }
        if self.reported.insert(slot, digest).is_some() {
            return Err(format!("slot {slot} was reported twice"));
        }
        self.tally.reported += 1;
        self.last_report = self.now;
        Ok(())
    }

    fn send(&mut self, node: usize, boot: u64, id: CallId, call: Call) -> Result<(), String> {
        let write = !matches!(call, Call::Get { .. } | Call::Last { .. } | Call::List { .. });
        if let Call::Create { key, .. } = &call
            && let Some(slot) = keys::number(key, keys::SLOTS)
        {
            let before = self.nodes[node].last_create.replace(slot);
            if let Some(before) = before
                && before != slot
                && !self.shelf.first.contains_key(&before)
            {
                return Err(format!("I3: slot {slot} is tried while {before} is open"));
            }
        }
        let there = self.rng.range(MS, 150 * MS);
        let back = self.rng.range(MS, 150 * MS);
        let bad = self.stormy() && self.rng.percent(self.fault_percent);
        let fault = |kind| AnswerBox(Answer::Fault(kind));
        let unknown = What::Deliver { node, boot, id, answer: fault(StoreFaultKind::Unknown) };
        let land = |answer_after| What::Land { node, boot, id, call: CallBox(call.clone()), answer_after };
        if !bad {
            let what = land(Some(back));
            self.push(self.now + there, what);
            return Ok(());
        }
        match self.rng.below(7) {
            // 503: not applied.
            0 => self.push(self.now + there + back, unknown),
            // Gone without an answer: not applied.
            1 => self.push(self.now + 3 * SECOND, unknown),
            // Applied, answer lost.
            2 | 3 if write => {
                let what = land(None);
                self.push(self.now + there, what);
                self.push(self.now + 3 * SECOND, unknown);
            }
            // Lands long after its writer gave up on it.
            4 if write => {
                let what = land(None);
                let late = self.rng.range(3 * SECOND, 120 * SECOND);
                self.push(self.now + late, what);
                self.push(self.now + 3 * SECOND, unknown);
            }
            5 if matches!(call, Call::Create { .. }) => {
                let what = What::Deliver { node, boot, id, answer: fault(StoreFaultKind::Conflict) };
                self.push(self.now + there + back, what);
            }
            _ => {
                let slow = self.rng.range(150 * MS, 2900 * MS);
                let what = land(Some(back));
                self.push(self.now + slow, what);
            }
        }
        Ok(())
    }

    /// I9: no two holders at one true time.
    fn check_lease(&self) -> Result<(), String> {
        let mut holders = self.nodes.iter().enumerate().filter(|(_, node)| {
            let end = node.writer.as_ref().and_then(Writer::lease_end_ns);
            !node.releasing && end.is_some_and(|end| node.local(self.now) < end)
        });
        match (holders.next(), holders.next()) {
            (Some((a, _)), Some((b, _))) => Err(format!("I9: nodes {} and {} hold the lease", a + 1, b + 1)),
            _ => Ok(()),
        }
    }

    fn check_end(&mut self) -> Result<(), String> {
        if self.last_report < STORM_NS + CALM_NS - 20 * SECOND {
            return Err(format!("I10: no progress since {} s", self.last_report / SECOND));
        }
        let view = self.read()?;
        for (slot, digest) in &self.reported {
            if self.shelf.first.get(slot).map(|first| &first.digest) != Some(digest) {
                return Err(format!("slot {slot} was reported and is not in the log"));
            }
        }
        let last = self.reported.keys().next_back().copied().unwrap_or(Slot(0));
        if view.head < last {
            return Err(format!("slot {last} was reported, and the log ends at {}", view.head));
        }
        if self.shelf.fold(view.head) != view {
            return Err("I11: checkpoint and log differ from the whole log".into());
        }
        Ok(())
    }

    fn read(&mut self) -> Result<View, String> {
        let mut replay = Replay::from_boundary(CLUSTER, PlainForTests, ReplayOptions::default(), 1);
        while let Some((id, call)) = replay.next_call() {
            let answer = self.shelf.apply(&call)?;
            replay.handle(0, id, answer);
        }
        match replay.result() {
            Some(Ok(view)) => Ok(view.clone()),
            Some(Err(fault)) => Err(format!("at the end: {fault}")),
            None => Err("at the end: the replay waits for nothing".into()),
        }
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

#[test]
fn seeds_keep_every_invariant() {
    if let Some(seed) = number("WINDLASS_LOG_SEED") {
        let mut run = Run::new(seed, true);
        run.run().unwrap();
        println!("{:?}", run.tally);
        return;
    }
    let seeds = number("WINDLASS_LOG_SEEDS").unwrap_or(2000);
    let mut sum = Tally::default();
    for seed in 0..seeds {
        let mut run = Run::new(seed, false);
        if let Err(why) = run.run() {
            panic!("seed {seed}: {why} (at {} ms; WINDLASS_LOG_SEED={seed} prints the trace)", run.now / MS);
        }
        sum.reported += run.tally.reported;
        sum.epochs += run.tally.epochs;
        sum.lost += run.tally.lost;
        sum.released += run.tally.released;
        sum.collected += run.tally.collected;
        sum.events += run.tally.events;
    }
    println!("{seeds} seeds: {sum:?}");
    assert!(sum.lost > seeds && sum.released > seeds && sum.collected > seeds && sum.epochs > 2 * seeds);
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    for seed in [1, 77, 4242] {
        let trace = Run::new(seed, false).run().unwrap();
        assert_eq!(Run::new(seed, false).run().unwrap(), trace);
        assert_ne!(Run::new(seed + 1, false).run().unwrap(), trace);
    }
}
