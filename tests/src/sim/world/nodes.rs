//! What nodes go through: start, crash, freeze, thaw, inputs, and what they want done.
//!
//! Does not: decide what becomes of requests (`requests`), nor when nodes get into trouble on their own (`trouble`). Source: ours.

use std::collections::VecDeque;

use windlass_agent::log::call::Call;

use super::super::check::Issued;
use super::super::clock::DriftClock;
use super::super::net::Sent;
use super::super::options::{Drift, MS, SECOND};
use super::super::{Birth, Fact, Input, Output, Tenant, Verdict};
use super::text::brief;
use super::{Event, LATE_WAKES_MAX, World};

/// Parts per thousand.
const PERMILLE: u64 = 1000;
/// Parts per hundred thousand.
const PER_100_000: u64 = 100_000;

impl<T: Tenant> World<T> {
    pub(super) fn start(&mut self, node: usize, life: u32) -> Verdict<()> {
        if self.seats[node].life != life || self.seats[node].tenant.is_some() || self.seats[node].buried {
            return Ok(());
        }
        let start_ns = self.prng.below(1000 * SECOND);
        let boot = self.prng.next_u64() | 1;
        let (prng, options, finish) = (self.prng.fork(), self.options, self.calm);
        let birth = Birth { node, boot, prng, options, finish, now_ns: start_ns };
        let seat = &mut self.seats[node];
        seat.clock = DriftClock::new(self.now, start_ns, seat.drift_ppm);
        seat.wake_at_ns = u64::MAX;
        seat.late_wakes = 0;
        seat.issued = Issued::default();
        seat.excused = false;
        seat.tenant = Some(T::start(birth, &self.shared));
        self.say(|| format!("node {} starts, boot {boot:x}", node + 1));
        self.trace.add(boot);
        let at = self.now + self.prng.below(self.options.work_ns);
        self.push(at, Event::Work { node, life });
        for peer in 0..self.options.nodes {
            if peer != node && self.seats[peer].tenant.is_some() && self.net.is_up(self.now, node, peer) {
                self.tell_up(node, peer, true);
            }
        }
        self.drain(node)
    }

    /// Both ends learn of it, a little later, each at its own time.
    pub(super) fn tell_up(&mut self, a: usize, b: usize, up: bool) {
        self.tell_up_within(a, b, up, self.options.peer_latency_ns);
    }

    pub(super) fn tell_up_within(&mut self, a: usize, b: usize, up: bool, most_ns: u64) {
        for (node, peer) in [(a, b), (b, a)] {
            let at = self.now + 1 + self.prng.below(most_ns);
            let life = self.seats[node].life;
            self.push(at, Event::Input { node, life, input: Input::Peer { node: peer, up } });
        }
    }

    /// The node's life ends; it is started again later.
    pub(super) fn stop(&mut self, node: usize) {
        let down_ns = 1 + self.prng.below(self.options.down_ns);
        let seat = &mut self.seats[node];
        seat.tenant = None;
        T::died(&self.shared, node);
        self.oracle.died(node);
        seat.life += 1;
        seat.frozen_until_ns = 0;
        seat.stuck.clear();
        seat.held.clear();
        let life = seat.life;
        self.push(self.now + down_ns, Event::Start { node, life });
        for peer in 0..self.options.nodes {
            if peer != node {
                self.net.reset(node, peer, self.now);
                let (at, life) = (self.now + 1, self.seats[peer].life);
                self.push(at, Event::Input { node: peer, life, input: Input::Peer { node, up: false } });
            }
        }
    }

    pub(super) fn crash(&mut self, node: usize) {
        self.say(|| format!("node {} crashes", node + 1));
        self.tally.crashes += 1;
        self.stop(node);
    }

    /// It crashes, and is never started again.
    pub(super) fn bury(&mut self, node: usize) -> Verdict<()> {
        self.say(|| format!("node {} dies for good", node + 1));
        self.tally.buried += 1;
        self.stop(node);
        self.seats[node].buried = true;
        Ok(())
    }

    pub(super) fn freeze(&mut self, node: usize) {
        let lease = self.options.writer.timing.lease_ns;
        // Most freezes that matter end about when a lease does.
        let longest = if self.prng.one_in(3) { 10 * lease } else { 2 * lease };
        let until = (self.now + 1 + self.prng.below(longest)).min(self.options.storm_ns);
        self.say(|| format!("node {} freezes for {} ms", node + 1, (until - self.now) / MS));
        self.tally.freezes += 1;
        let seat = &mut self.seats[node];
        seat.frozen_until_ns = seat.frozen_until_ns.max(until);
        let life = seat.life;
        self.push(until, Event::Thaw { node, life });
    }

    pub(super) fn thaw(&mut self, node: usize, life: u32) -> Verdict<()> {
        let seat = &mut self.seats[node];
        if seat.life != life || seat.frozen_until_ns > self.now {
            return Ok(());
        }
        seat.frozen_until_ns = 0;
        let stuck = std::mem::take(&mut seat.stuck);
        let held = std::mem::take(&mut seat.held);
        for output in stuck {
            self.perform(node, output)?;
        }
        // Frames keep their order, all else comes in any.
        let (mut frames, mut others) = (VecDeque::new(), Vec::new());
        for input in held {
            if matches!(input, Input::Frame { .. } | Input::Peer { .. }) {
                frames.push_back(input);
            } else {
                others.push(input);
            }
        }
        self.prng.shuffle(&mut others);
        while !(frames.is_empty() && others.is_empty()) {
            let frame = others.is_empty() || self.prng.one_in(2);
            let input = if frame { frames.pop_front() } else { None };
            if let Some(input) = input.or_else(|| others.pop()) {
                if self.seats[node].life != life {
                    return Ok(());
                }
                self.input(node, input)?;
            }
        }
        if self.seats[node].life == life { self.drain(node) } else { Ok(()) }
    }

    pub(super) fn input(&mut self, node: usize, input: Input<T::Message>) -> Verdict<()> {
        let seat = &mut self.seats[node];
        if seat.frozen_until_ns > self.now {
            if !matches!(input, Input::Work) {
                seat.held.push(input);
            }
            return Ok(());
        }
        let Some(tenant) = &mut seat.tenant else { return Ok(()) };
        let local = seat.clock.local_ns(self.now);
        if self.print {
            println!("{:>9} ms  node {} <- {}", self.now / MS, node + 1, brief(&input));
        }
        let wake = matches!(input, Input::Wake);
        tenant.tell_time(self.now);
        tenant.handle(local, input)?;
        // A deadline that nothing clears is a node that spins.
        let due = tenant.deadline();
        let late = due.is_some_and(|due| due <= local);
        seat.late_wakes = if late { seat.late_wakes + u32::from(wake) } else { 0 };
        if seat.late_wakes > LATE_WAKES_MAX {
            return Err(format!(
                "I10: node {} wakes and wakes, and its deadline stays in the past",
                node + 1
            ));
        }
        self.drain_until(node, due)
    }

    fn drain(&mut self, node: usize) -> Verdict<()> {
        let due = self.seats[node].tenant.as_ref().and_then(T::deadline);
        self.drain_until(node, due)
    }

    /// Does what the node wants, which does not move its deadline, and wakes it then.
    fn drain_until(&mut self, node: usize, due: Option<u64>) -> Verdict<()> {
        loop {
            let seat = &mut self.seats[node];
            if seat.frozen_until_ns > self.now {
                return Ok(());
            }
            let Some(output) = seat.tenant.as_mut().and_then(T::next_output) else { break };
            if !self.calm && self.falls(node, &output) {
                let seat = &mut self.seats[node];
                if seat.tenant.is_none() {
                    return Ok(());
                }
                // It had decided on these before it froze.
                seat.stuck.push_back(output);
                while self.prng.one_in(2)
                    && let Some(output) = self.seats[node].tenant.as_mut().and_then(T::next_output)
                {
                    self.seats[node].stuck.push_back(output);
                }
                return Ok(());
            }
            self.perform(node, output)?;
        }
        let seat = &self.seats[node];
        let Some(tenant) = &seat.tenant else { return Ok(()) };
        self.shelf.check_view(tenant.view())?;
        if let Some(due) = due {
            let at = seat.clock.true_ns(due).max(self.now);
            if at < seat.wake_at_ns {
                let at = at + self.prng.below(self.options.wake_late_ns);
                let life = self.seats[node].life;
                self.seats[node].wake_at_ns = at;
                self.push(at, Event::Wake { node, life });
            }
        }
        Ok(())
    }

    /// Whether the node crashes or freezes right before it does this.
    fn falls(&mut self, node: usize, output: &Output<T::Message>) -> bool {
        let faults = self.options.node;
        let create = matches!(output, Output::Call { call: Call::Create { .. }, .. });
        let at_create = create && self.prng.below(PERMILLE) < faults.create;
        let dice = self.prng.below(PER_100_000);
        if dice < faults.crash {
            self.crash(node);
        } else if dice < faults.crash + faults.freeze || at_create {
            self.freeze(node);
        } else {
            return false;
        }
        true
    }

    pub(super) fn perform(&mut self, node: usize, output: Output<T::Message>) -> Verdict<()> {
        match output {
            Output::Call { id, call } => self.request(node, id, call),
            Output::Send { to, message } => {
                let latency = 1 + self.prng.below(self.options.peer_latency_ns);
                match self.net.send(self.now, node, to, latency) {
                    Sent::Arrives(at, generation) => {
                        self.push(at, Event::Frame { from: node, to, generation, message });
                    }
                    Sent::Down => {}
                    Sent::Full => self.reset(node, to, self.now + self.options.peer_latency_ns),
                }
                Ok(())
            }
            Output::Fact(fact) => self.fact(node, fact),
            Output::Exit => {
                self.stop(node);
                Ok(())
            }
        }
    }

    fn fact(&mut self, node: usize, fact: Fact) -> Verdict<()> {
        self.say(|| format!("node {} says {fact:?}", node + 1));
        match fact {
            Fact::Ready { .. } => self.tally.epochs += 1,
            Fact::Committed { .. } => self.tally.committed += 1,
            Fact::Released { .. } => self.tally.released += 1,
            Fact::Lost { .. } => self.tally.lost += 1,
            Fact::Counted { .. } => self.tally.counted += 1,
            Fact::Accepted { .. } => self.tally.accepted += 1,
            Fact::Assigned { .. } => self.tally.assigned += 1,
            Fact::Answered { .. } => self.tally.answered += 1,
            Fact::Skewed => self.tally.skews += 1,
            Fact::Crowded(users) => self.tally.crowd = self.tally.crowd.max(users as u64),
            Fact::Warned { .. } | Fact::Asked { .. } | Fact::Closed { .. } => {}
        }
        self.elected |=
            self.calm && matches!(fact, Fact::Ready { .. } | Fact::Committed { .. } | Fact::Answered { .. });
        let seat = &self.seats[node];
        if let Fact::Assigned { epoch, at_ns } = fact
            && seat.clock.local_ns(self.now) == at_ns
            && self.options.drift == Drift::Within
            && self.shelf.max_epoch() > epoch
        {
            return Err(format!("L1: node {} assigns under epoch {epoch}, and a later one exists", node + 1));
        }
        let Some(tenant) = &seat.tenant else { return Ok(()) };
        self.oracle.fact(&self.shelf, node, tenant.view(), fact, seat.excused)
    }
}
