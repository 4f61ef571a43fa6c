//! Troubles that come now and then by themselves, and the moment when all of them are over.
//!
//! Source: ours; `tests/README.md`, The simulator.

use super::super::options::{MS, TROUBLES, Trouble};
use super::super::{Input, Tenant, Verdict};
use super::{Event, World};

impl<T: Tenant> World<T> {
    pub(super) fn next_trouble(&mut self, node: usize) {
        let mean = self.options.node.trouble_leases * self.options.writer.timing.lease_ns;
        let at = self.now + 1 + self.prng.below(2 * mean);
        if at < self.options.storm_ns {
            self.push(at, Event::Trouble { node });
        }
    }

    pub(super) fn trouble(&mut self, node: usize) -> Verdict<()> {
        self.next_trouble(node);
        let mut which = self.prng.below(TROUBLES.len() as u64);
        if T::RECONNECTS && self.prng.one_in(2) {
            which = Trouble::Reset as u64;
        }
        if self.options.node.troubles >> which & 1 == 0 {
            return Ok(());
        }
        let lease = self.options.writer.timing.lease_ns;
        let longest = if self.prng.one_in(3) { 10 * lease } else { 2 * lease };
        let until = (self.now + 1 + self.prng.below(longest)).min(self.options.storm_ns);
        let trouble = TROUBLES[which as usize];
        self.say(|| format!("node {}: {trouble:?} for {} ms", node + 1, (until - self.now) / MS));
        let sides = 1 + self.prng.below(3);
        match trouble {
            Trouble::Crash if self.seats[node].tenant.is_some() => self.crash(node),
            Trouble::Freeze if self.seats[node].tenant.is_some() => self.freeze(node),
            Trouble::Crash | Trouble::Freeze => {}
            Trouble::StoreCut => {
                let seat = &mut self.seats[node];
                if sides & 1 > 0 {
                    seat.to_store_cut_until_ns = until;
                }
                if sides & 2 > 0 {
                    seat.from_store_cut_until_ns = until;
                }
            }
            Trouble::PeerCut | Trouble::Reset => {
                for peer in 0..self.options.nodes {
                    if peer == node || self.prng.one_in(3) {
                        continue;
                    }
                    if trouble == Trouble::Reset {
                        self.reset(node, peer, until);
                        continue;
                    }
                    if sides & 1 > 0 {
                        self.net.cut(node, peer, until);
                    }
                    if sides & 2 > 0 {
                        self.net.cut(peer, node, until);
                    }
                }
            }
            Trouble::Storm => {
                self.storm_until_ns = self.now + (until - self.now) / 4;
                self.storm_conflicts = self.prng.one_in(2);
            }
        }
        Ok(())
    }

    /// A connection is lost, and made anew then.
    pub(super) fn reset(&mut self, node: usize, peer: usize, until: u64) {
        self.net.reset(node, peer, until);
        self.tell_up(node, peer, false);
        if T::RECONNECTS {
            // After both ends know of the loss.
            let at = until.max(self.now + self.options.peer_latency_ns) + 1;
            self.push(at, Event::Link { a: node, b: peer });
        }
    }

    /// The faults are over.
    pub(super) fn calm(&mut self) -> Verdict<()> {
        self.say(|| "the faults are over".to_owned());
        self.calm = true;
        self.quiet = T::quiet_ns(&self.options) == 0;
        self.net.heal();
        for node in 0..self.options.nodes {
            if self.seats[node].buried {
                continue;
            }
            for peer in (0..node).filter(|&peer| !self.seats[peer].buried).collect::<Vec<_>>() {
                self.tell_up(node, peer, true);
            }
            let life = self.seats[node].life;
            self.seats[node].frozen_until_ns = 0;
            self.thaw(node, life)?;
            if self.seats[node].tenant.is_some() {
                self.input(node, Input::Finish)?;
            }
        }
        Ok(())
    }
}
